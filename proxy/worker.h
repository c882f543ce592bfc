/* SPDX-License-Identifier: Apache-2.0
 *
 * worker.h: one thread with its libev loop, its clients, its lanes and its feeds. Nothing in it is
 * touched by another thread except through worker_post and the counters.
 *
 * A turn of the loop: fill connections are read first (M5), then lanes, then clients; clients whose
 * stalled requests may go on are run; then everything gathered is written, once per connection.
 */
#pragma once

#include "../invalidation/feed.h"
#include "../upstream/upstream.h"
#include "learn.h"
#include "order.h"
#include "server.h"

#include "../conf/log.h"
#include "../resp/parse.h"

#include <pthread.h>

struct client;
struct fence;
struct flight;
struct pinned;
struct recent;
struct request;

/* Something to be run on a worker's thread; embedded in what it is about. */
struct post {
    struct post *next;
    void (*run)(struct worker *worker, struct post *post);
};

/* Each is written by its worker alone, read by anyone: relaxed. */
struct counters {
#define COUNTER(name, prose) _Atomic uint64_t name;
#include "counters.def"
#undef COUNTER
};

#define COUNT(worker, name, n) counter_add(&(worker)->counters.name, (uint64_t)(n))

static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, old + n, memory_order_relaxed);
}

/* What a worker has for a node of the topology. */
struct worker_node {
    struct feed
        *_Atomic feed;     /* NULL: none yet. Written by the worker; other workers' INFO reads it */
    bool feeding;          /* the feed is started (nodes.h) */
    bool beating;          /* `heartbeat` is on its way */
    struct call heartbeat; /* nodes.c */
    int64_t flush_lost;    /* ms: when a flush was lost that the server may execute yet; 0: none */
    /* connections of the lanes, as of the last tick; relaxed, for INFO */
    _Atomic uint32_t lanes, lanes_up;
    _Atomic uint64_t lanes_pending, lanes_queued;
};

/* Clients linked by one of their own link members. */
struct client_queue {
    struct client *head;
};

/* Bytes read from a socket at once. */
#define WORKER_READ_SIZE ((size_t)64 * 1024)

struct worker {
    struct server *server;
    unsigned index;
    struct ev_loop *loop;
    pthread_t thread;

    int64_t now;              /* ms of CLOCK_BOOTTIME, read after the last socket read (D17) */
    struct l1_reader *reader; /* rests at the end of each turn */
    struct upstream *upstream;
    struct worker_node *nodes; /* server->max_nodes */
    uint16_t nnodes;           /* of these, followed */
    bool ended;                /* nothing is followed any more */
    struct order order;
    struct parser parser;   /* for clients with no request half read */
    struct recent *recents; /* SETs whose key is being fetched (echo.h); NULL: there was none yet */
    struct request *spare;  /* ready for the next miss, so that hits allocate nothing */
    struct request *blocks; /* of answered requests, for the next ones (request.c) */
    uint32_t nblocks;
    struct flight *flights; /* likewise (fetch.c) */
    uint32_t nflights;
    struct batch *batches; /* likewise (batch.c) */
    uint32_t nbatches;
    bool no_echoes;    /* the last SET that GETs might have waited for was refused (echo.h) */
    char *read_buffer; /* WORKER_READ_SIZE, shared by all connections of the worker */

    struct client_queue clients;  /* all that have a socket */
    struct client_queue parts;    /* those without (fanout.h) */
    struct client_queue dirty;    /* with output to be written at the end of this turn */
    struct client_queue runnable; /* whose stalled input may go on */
    struct client_queue later;    /* the same, behind the next poll */
    struct client_queue dead;     /* closed, to be freed at the end of this turn */
    struct client *sweep_at;      /* where the next look at deadlines goes on */
    struct pinned *pinned_busy, *pinned_idle, *pinned_retired, *pinned_dirty; /* pinned.c */
    unsigned npinned_idle;
    struct learner learner; /* of worker 0 */

    struct request *redirected, **redirected_tail; /* to be sent again, in order (redirect.c) */
    struct fence *gathering; /* one for each node; they start at the end of this turn */
    struct fence *fences;    /* under way */
    bool waits_for_room;     /* a client stalled because a road was full: the last one that was */
    uint16_t full_node;
    bool full_resp3;
    uint32_t full_db;
    enum road full_road;
    int64_t light_at;                  /* ms: when a client was last written little, */
    uint64_t light_id;                 /* and which it was (client.c) */
    bool output_stalled;               /* some client is stalled_output */
    struct post *own_head, **own_tail; /* what it posted to itself */
    struct log_limit closed_log, client_log;
    int64_t last_tick;
    int64_t trimmed;       /* ms: when memory was last given back */
    uint64_t quiet_served; /* commands_processed at the last tick */
    struct post topology_post;
    _Atomic bool topology_posted; /* it is on its way (nodes.c) */
    bool draining;
    bool done; /* and drained: the loop ends */
    int64_t drain_until;
    struct post drain_post;
    _Atomic int64_t drain_timeout_ms; /* relaxed: the post that follows it orders it */

    struct ev_prepare turn_end;
    struct ev_timer tick;
    struct ev_async wakeup;

    _Atomic bool has_mail;        /* relaxed: who stores true wakes the worker behind it */
    pthread_mutex_t mailbox_lock; /* guards the mailbox, nothing else */
    struct post *mailbox_head;
    struct post **mailbox_tail;

    _Atomic uint32_t nclients;      /* relaxed; main assigns new connections by it */
    _Atomic uint64_t client_memory; /* bytes held for this worker's clients; relaxed */
    uint64_t memory_checked;        /* client_memory when the limit was last looked at */
    _Atomic uint64_t
        largest_client; /* the most one of them holds, while memory is short; relaxed */
    struct counters counters;
};

/* The worker's feed for that node, or NULL. */
static inline struct feed *worker_feed(const struct worker *worker, uint16_t node)
{
    return atomic_load_explicit(&worker->nodes[node].feed, memory_order_acquire);
}

/* ms of CLOCK_BOOTTIME: goes on while the machine sleeps, as the link lease must (T6). */
int64_t clock_ms(void);

/* Dies when memory or descriptors are out. */
struct worker *worker_create(struct server *server, unsigned index);
void worker_start(struct worker *worker);
/* Waits for the thread to end. */
void worker_join(struct worker *worker);
/* When all workers have been joined: runs what they still posted to this one. False: there was
 * nothing. Call it for all until that is so for all, then destroy them. */
bool worker_run_posts(struct worker *worker);
void worker_destroy(struct worker *worker);

/* Runs post->run on the worker's thread; the receiver owns the post from here on. Any thread. */
void worker_post(struct worker *worker, struct post *post);
bool worker_is_current(const struct worker *worker);

/* Hands a connected, non-blocking socket over (any thread). Counted in nclients already. */
void worker_take_socket(struct worker *worker, int fd);
/* Finish what is in flight, for at most `timeout_ms`, then end the thread (any thread). */
void worker_drain(struct worker *worker, int64_t timeout_ms);

/* Clients whose input waits look at it again at the end of the turn. Worker's thread. */
void worker_wake_stalled(struct worker *worker);

/* Reads the clock into worker->now and returns it. */
int64_t worker_read_clock(struct worker *worker);
