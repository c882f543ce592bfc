/* SPDX-License-Identifier: Apache-2.0
 *
 * server.h: the process. Owns what all workers share, listens, hands connections to workers, drains.
 * Built and run by main.c on the main thread.
 */
#pragma once

#include "../conf/conf.h"
#include "../invalidation/feed.h"
#include "../l1/l1.h"
#include "../resp/cmd.h"
#include "../upstream/resolver.h"
#include "../upstream/topology.h"

#include <pthread.h>
#include <stdatomic.h>

struct worker;

/* Keys whose value was too large for L1, by hash: read through a lane, so that a large value does
 * not hold up the pushes and PONGs of a fill connection (D8). A small direct-mapped table shared by
 * all workers; losing an entry costs one more large fetch. Relaxed atomics: a hint, nothing more. */
#define LARGE_KEYS 4096
struct large_keys {
    _Atomic uint64_t slot[LARGE_KEYS];
};

static inline bool large_keys_has(const struct large_keys *large, uint64_t hash)
{
    return atomic_load_explicit(&large->slot[hash % LARGE_KEYS], memory_order_relaxed) == hash;
}

static inline void large_keys_add(struct large_keys *large, uint64_t hash)
{
    atomic_store_explicit(&large->slot[hash % LARGE_KEYS], hash, memory_order_relaxed);
}

static inline void large_keys_remove(struct large_keys *large, uint64_t hash)
{
    if (large_keys_has(large, hash)) {
        atomic_store_explicit(&large->slot[hash % LARGE_KEYS], 0, memory_order_relaxed);
    }
}

#define SERVER_PASSWORD_MAX 1024

/* What workers share. Plain fields are set before the workers start and never change. */
struct server {
    const struct conf *conf;
    const struct cmd *get; /* the row of GET */
    struct l1 *l1;
    struct resolver *resolver;
    struct topology *topology;
    struct follow *follow; /* keeps it up to date (follow.h) */
    bool is_cluster;       /* topology_is_cluster */
    bool to_replicas;      /* upstream.read_from is not primary */
    uint16_t max_nodes;    /* topology_room */
    uint16_t covered;      /* nodes for which L1 has covers: the first */
    bool caching;          /* invalidation.mode is not off */
    int64_t
        negative_ttl;   /* ms; in a cluster bounded by the refresh of the map: a key that appears at
                             another owner of its slot is announced by nobody */
    bool announces;     /* it is channel: what is written here is told to others */
    bool asks_password; /* clients have to authenticate with this: */
    char password[SERVER_PASSWORD_MAX];
    unsigned nworkers;
    struct worker **workers;
    int64_t started_ms;
    struct large_keys large;
    uint32_t max_clients;            /* as the limit on descriptors allows */
    _Atomic uint64_t next_client_id; /* relaxed: unique ids are all that is asked */
    _Atomic uint32_t clients;        /* connected now; relaxed */
    _Atomic uint32_t pinned;         /* connections of one client alone; relaxed */
    _Atomic int64_t paused_until,
        reads_paused_until;           /* ms of the workers' clocks (pause.h); relaxed */
    _Atomic uint64_t clients_refused; /* over max_clients, or protected mode; relaxed */
    pthread_mutex_t feeds_lock;       /* held to create one */
    struct feeds *_Atomic feeds[TOPOLOGY_NODES_MAX]; /* by node (nodes.h); NULL: it has none */
};

static inline struct feeds *server_feeds(const struct server *server, uint16_t node)
{
    return atomic_load_explicit(&server->feeds[node], memory_order_acquire);
}

/* Listens, starts the workers, serves until SIGTERM or SIGINT, drains. Returns the exit status. */
int server_run(const struct conf *conf);
