/* SPDX-License-Identifier: Apache-2.0
 *
 * worker.c: the loop of one worker, its mailbox, its upkeep, its end.
 *
 *   poll ─► feeds' sockets ─► lanes' sockets ─► clients' sockets ─► (prepare) on_turn_end:
 *           mailbox ─► clients that may go on ─► write feeds and lanes ─► write clients ─► free the dead
 *
 * The mailbox is the only thing other threads touch. A post to oneself needs no wakeup: it is found at
 * the end of the same turn.
 *
 * The end: drained (or out of time), all clients are closed and lanes and feeds stopped on this
 * thread, which ends every lease and lane call; posts that workers sent each other meanwhile are run by
 * worker_run_posts, when all threads have ended.
 */
#include "worker.h"

#include "batch.h"
#include "busy_poll.h"
#include "client.h"
#include "deadline.h"
#include "echo.h"
#include "fanout.h"
#include "fence.h"
#include "fetch.h"
#include "forward.h"
#include "nodes.h"
#include "outwait.h"
#include "pinned.h"
#include "redirect.h"
#include "resend.h"

#include "../conf/log.h"
#include "../conf/mem.h"
#include "../conf/mutant.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Entries L1's sweep looks at per tick of the first worker. */
#define SWEEP_BUDGET 2000
/* Rounds of a turn's end before the loop gets to poll again. */
#define TURN_ROUNDS 8
/* Ticks further apart than this mean that the process stood still. */
#define STANDSTILL_MS 1000
/* A server heard so long after a loss has executed what had reached it before. */
#define FLUSH_SETTLED_MS 500
/* How often memory is given back: by who is idle for a tick, by who is busy all the time. */
#define TRIM_MS      1000
#define TRIM_BUSY_MS 10000

int64_t clock_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t worker_read_clock(struct worker *worker)
{
    worker->now = clock_ms();
    return worker->now;
}

bool worker_is_current(const struct worker *worker)
{
    return pthread_equal(pthread_self(), worker->thread) != 0;
}

/* ---- Mailbox --------------------------------------------------------------------------------- */

void worker_post(struct worker *worker, struct post *post)
{
    post->next = NULL;
    if (worker_is_current(worker)) {
        *worker->own_tail = post;
        worker->own_tail = &post->next;
        return;
    }
    pthread_mutex_lock(&worker->mailbox_lock);
    *worker->mailbox_tail = post;
    worker->mailbox_tail = &post->next;
    atomic_store_explicit(&worker->has_mail, true, memory_order_relaxed);
    pthread_mutex_unlock(&worker->mailbox_lock);
    ev_async_send(worker->loop, &worker->wakeup); /* who looks too early is called once more */
}

static void run_posts(struct worker *worker, struct post *post)
{
    while (post != NULL) {
        struct post *next = post->next;
        post->run(worker, post);
        post = next;
    }
}

static struct post *take_mail(struct worker *worker)
{
    if (!atomic_load_explicit(&worker->has_mail, memory_order_relaxed)) {
        return NULL;
    }
    pthread_mutex_lock(&worker->mailbox_lock);
    struct post *post = worker->mailbox_head;
    worker->mailbox_head = NULL;
    worker->mailbox_tail = &worker->mailbox_head;
    atomic_store_explicit(&worker->has_mail, false, memory_order_relaxed);
    pthread_mutex_unlock(&worker->mailbox_lock);
    return post;
}

/* Runs what is there; false when nothing was. */
static bool run_mailbox(struct worker *worker)
{
    struct post *mail = take_mail(worker);
    struct post *own = worker->own_head;
    worker->own_head = NULL;
    worker->own_tail = &worker->own_head;
    run_posts(worker, mail);
    run_posts(worker, own);
    return mail != NULL || own != NULL;
}

static void on_wakeup(struct ev_loop *loop, struct ev_async *async, int events)
{
    (void)loop;
    (void)events;
    struct worker *worker = container_of(async, struct worker, wakeup);
    worker_read_clock(worker);
    run_mailbox(worker);
}

/* ---- Sockets handed over --------------------------------------------------------------------- */

struct arrival {
    struct post post;
    int fd;
};

static void on_arrival(struct worker *worker, struct post *post)
{
    struct arrival *arrival = container_of(post, struct arrival, post);
    struct client *c = client_create(worker, arrival->fd);
    if (c != NULL && worker->draining) {
        client_end(c);
    }
    mem_free(arrival);
}

void worker_take_socket(struct worker *worker, int fd)
{
    struct arrival *arrival = mem_alloc(sizeof(*arrival));
    arrival->fd = fd;
    arrival->post.run = on_arrival;
    worker_post(worker, &arrival->post);
}

/* ---- Memory of all clients (D15) ------------------------------------------------------------- */

static uint64_t memory_of_all(const struct server *server)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < server->nworkers; i++) {
        sum += atomic_load_explicit(&server->workers[i]->client_memory, memory_order_relaxed);
    }
    return sum;
}

/* Each worker that notices publishes its largest client; the one that has the largest of all closes
 * it. Two may do so at once: the limit is kept all the same. */
static void close_largest(struct worker *worker)
{
    struct client *const heads[] = {worker->clients.head, worker->parts.head};
    struct client *largest = NULL;
    uint64_t size = 0;
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        for (struct client *c = heads[i]; c != NULL; c = c->next) {
            if (client_memory(c) > size) {
                largest = c;
                size = client_memory(c);
            }
        }
    }
    atomic_store_explicit(&worker->largest_client, size, memory_order_relaxed);
    for (unsigned i = 0; i < worker->server->nworkers; i++) {
        struct worker *other = worker->server->workers[i];
        if (atomic_load_explicit(&other->largest_client, memory_order_relaxed) > size) {
            return;
        }
    }
    if (largest != NULL && size > 0) {
        client_expel(largest, &worker->counters.clients_closed_memory,
                     "closed: it held %llu bytes, the most, and all clients together are over "
                     "proxy.max_client_memory",
                     (unsigned long long)size);
        atomic_store_explicit(&worker->largest_client, 0, memory_order_relaxed);
    }
}

static void check_memory(struct worker *worker)
{
    uint64_t mine = atomic_load_explicit(&worker->client_memory, memory_order_relaxed);
    worker->memory_checked = mine;
    if (memory_of_all(worker->server) > worker->server->conf->proxy_max_client_memory) {
        close_largest(worker);
    } else {
        atomic_store_explicit(&worker->largest_client, 0, memory_order_relaxed);
    }
}

/* ---- A turn ---------------------------------------------------------------------------------- */

/* Those who let others go first come after them. */
static void bring_later(struct worker *worker)
{
    struct client *c = worker->later.head;
    worker->later.head = NULL;
    while (c != NULL) {
        struct client *next = c->next_runnable;
        c->next_runnable = worker->runnable.head;
        worker->runnable.head = c;
        c = next;
    }
}

static void run_clients(struct worker *worker)
{
    struct client *c = worker->runnable.head;
    worker->runnable.head = NULL;
    while (c != NULL) {
        struct client *next = c->next_runnable;
        c->is_runnable = false;
        client_run(c);
        c = next;
    }
}

static void flush_clients(struct worker *worker)
{
    struct client *c = worker->dirty.head;
    worker->dirty.head = NULL;
    while (c != NULL) {
        struct client *next = c->next_dirty;
        c->is_dirty = false;
        client_flush(c);
        c = next;
    }
}

static void free_dead(struct worker *worker)
{
    struct client *c = worker->dead.head;
    worker->dead.head = NULL;
    while (c != NULL) {
        struct client *next = c->prev;
        if (c->is_runnable) { /* in `later`: not yet */
            c->prev = worker->dead.head;
            worker->dead.head = c;
        } else {
            client_free(c);
        }
        c = next;
    }
}

void worker_wake_stalled(struct worker *worker)
{
    struct client *const heads[] = {worker->clients.head, worker->parts.head};
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        for (struct client *c = heads[i]; c != NULL; c = c->next) {
            if (c->stalled) {
                client_mark_runnable(c);
            }
        }
    }
}

/* Who sends what blocks, or ends a subscription, seldom waits for the reply before another client goes on,
 * and who writes seldom before another reads: so that is the order in which what came in one turn leaves. */
static void flush_upstream(struct worker *worker)
{
    pinned_flush(worker);
    upstream_flush(worker->upstream);
    nodes_flush(worker);
    if (worker->waits_for_room && !forward_is_full(worker, worker->full_node, worker->full_db,
                                                   worker->full_resp3, worker->full_road)) {
        worker->waits_for_room = false;
        worker_wake_stalled(worker);
    }
}

static void finish_drain(struct worker *worker)
{
    /* clients of others may need this worker for a fence or a census */
    bool all_left = atomic_load_explicit(&worker->server->clients, memory_order_relaxed) == 0;
    if (!all_left && worker->now < worker->drain_until) {
        return;
    }
    while (worker->clients.head != NULL) {
        client_close(worker->clients.head);
    }
    fanout_close_parts(worker);
    worker->done = true;
    ev_break(worker->loop, EVBREAK_ALL);
}

static bool has_more_to_do(const struct worker *worker)
{
    return worker->own_head != NULL || worker->runnable.head != NULL || worker->dirty.head != NULL;
}

static void on_turn_end(struct ev_loop *loop, struct ev_prepare *prepare, int events)
{
    (void)events;
    struct worker *worker = container_of(prepare, struct worker, turn_end);
    worker_read_clock(worker); /* stalled input is served by it (D17) */
    bring_later(worker);
    bool more = true;
    for (int round = 0; more && round < TURN_ROUNDS; round++) {
        run_mailbox(worker);
        run_clients(worker);
        fence_start(worker);
        if (worker->own_head != NULL) {
            run_mailbox(worker); /* our own part of the fence */
        }
        redirect_flush(worker);
        flush_upstream(worker);
        flush_clients(worker);
        more = has_more_to_do(worker);
    }
    uint64_t memory = atomic_load_explicit(&worker->client_memory, memory_order_relaxed);
    if (memory > worker->memory_checked + ((uint64_t)1 << 20)) {
        check_memory(worker);
    }
    if (worker->draining) {
        finish_drain(worker);
    }
    l1_reader_rest(worker->reader);
    bool done = !has_more_to_do(worker);
    if (done) {
        pinned_reap(worker);
        free_dead(worker);
    }
    if (!done || worker->later.head != NULL) {
        ev_async_send(loop, &worker->wakeup); /* poll without waiting */
    }
}

/* ---- Upkeep ---------------------------------------------------------------------------------- */

static void add_lane(const struct conn *conn, struct lane_id id, void *ctx)
{
    struct worker_node *node = &((struct worker *)ctx)->nodes[id.node];
    counter_add(&node->lanes_pending, conn_pending(conn));
    counter_add(&node->lanes_queued, conn_queued_bytes(conn));
    uint32_t up = conn_state(conn) == CONN_UP;
    atomic_fetch_add_explicit(&node->lanes, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&node->lanes_up, up, memory_order_relaxed);
}

static void publish_lanes(struct worker *worker)
{
    for (uint16_t i = 0; i < worker->nnodes; i++) {
        struct worker_node *node = &worker->nodes[i];
        atomic_store_explicit(&node->lanes, 0, memory_order_relaxed);
        atomic_store_explicit(&node->lanes_up, 0, memory_order_relaxed);
        atomic_store_explicit(&node->lanes_pending, 0, memory_order_relaxed);
        atomic_store_explicit(&node->lanes_queued, 0, memory_order_relaxed);
    }
    upstream_each(worker->upstream, add_lane, worker);
}

/* Whoever has not taken its output by now may not be reading before it has sent everything. */
static void run_output_stalled(struct worker *worker)
{
    if (!worker->output_stalled) {
        return;
    }
    worker->output_stalled = false;
    for (struct client *c = worker->clients.head; c != NULL; c = c->next) {
        if (c->stalled_output) {
            client_mark_runnable(c);
        }
    }
}

/* Looks at a share of the clients, so that each is looked at about once a second. */
static void sweep_clients(struct worker *worker)
{
    uint32_t n = atomic_load_explicit(&worker->nclients, memory_order_relaxed) / 16 + 16;
    struct client *c = worker->sweep_at == NULL ? worker->clients.head : worker->sweep_at;
    for (; c != NULL && n > 0; n--) {
        worker->sweep_at = c->next; /* unlink_client moves it on if that one goes */
        client_check_deadlines(c, worker->now);
        c = worker->sweep_at;
    }
}

/* A stopped or starved process: its clients are not to be blamed for the silence. */
static void excuse_standstill(struct worker *worker, int64_t now)
{
    int64_t gap = now - worker->last_tick;
    worker->last_tick = now;
    for (struct client *c = worker->clients.head; gap > STANDSTILL_MS && c != NULL; c = c->next) {
        client_excuse(c, gap);
    }
}

/* A SWAPDB whose connection died may be executed after what was dropped then, and nothing announces
 * it. L1 is emptied again until the server has surely come to it: it has answered somebody some time
 * after the loss, and reads what arrived before it answers what came later. */
static void finish_lost_flush(struct worker *worker)
{
    struct server *server = worker->server;
    for (uint16_t i = 0; i < worker->nnodes; i++) {
        struct worker_node *node = &worker->nodes[i];
        if (node->flush_lost == 0 || MUTANT(W3l)) {
            continue;
        }
        l1_drop_all(server->l1);
        if (node_last_heard(topology_node(server->topology, i)) - node->flush_lost >
            FLUSH_SETTLED_MS) {
            node->flush_lost = 0;
        }
    }
}

/* Frees what is kept for the next requests as well: few as they are, each would hold the page of the allocator
 * that it lies in. */
static void free_kept(struct worker *worker)
{
    request_free_blocks(worker);
    fetch_free_flights(worker);
    batch_free_all(worker);
    order_shrink(&worker->order);
}

/* Gives memory back at the first quiet moment in a second, or all the same after TRIM_BUSY_MS. */
static void trim_tick(struct worker *worker, int64_t now)
{
    uint64_t served =
        atomic_load_explicit(&worker->counters.commands_processed, memory_order_relaxed);
    bool quiet = served == worker->quiet_served;
    worker->quiet_served = served;
    if (now - worker->trimmed >= (quiet ? TRIM_MS : TRIM_BUSY_MS)) {
        worker->trimmed = now;
        free_kept(worker);
        mem_trim();
    }
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    struct worker *worker = container_of(timer, struct worker, tick);
    int64_t now = worker_read_clock(worker);
    excuse_standstill(worker, now);
    nodes_tick(worker);
    upstream_tick(worker->upstream, now);
    pinned_tick(worker);
    finish_lost_flush(worker);
    fence_tick(worker);
    deadline_tick(worker);
    outwait_tick(worker);
    publish_lanes(worker);
    run_output_stalled(worker);
    sweep_clients(worker);
    check_memory(worker);
    trim_tick(worker, now);
    if (worker->index == 0) {
        if (worker->server->caching) {
            l1_sweep(worker->server->l1, SWEEP_BUDGET, now);
        }
        learn_tick(worker);
    }
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* Often enough for a PING every quarter of the link lease. */
static double tick_seconds(const struct conf *conf)
{
    int64_t ms = conf->invalidation_link_lease / 8;
    return (double)(ms < 10 ? 10 : ms > 50 ? 50 : ms) / 1000.0;
}

static void on_lane_retired(struct conn *conn, void *ctx)
{
    (void)ctx;
    resend_retired(conn);
}

static void on_lane_in_doubt(struct conn *conn, void *ctx)
{
    const struct worker *worker = ctx;
    if (worker->server->conf->upstream_read_from == CONF_READ_PREFER_REPLICA) {
        resend_elsewhere(conn);
    }
}

static void create_links(struct worker *worker)
{
    struct server *server = worker->server;
    worker->upstream = upstream_create(&(struct upstream_options){
        .retired = on_lane_retired,
        .in_doubt = on_lane_in_doubt,
        .ctx = worker,
        .loop = worker->loop,
        .topology = server->topology,
        .now = clock_ms,
        .read_buffer = worker->read_buffer,
        .read_size = WORKER_READ_SIZE,
        .db = server->conf->upstream_db,
    });
    worker->nodes = mem_zalloc(server->max_nodes * sizeof(*worker->nodes));
}

struct worker *worker_create(struct server *server, unsigned index)
{
    struct worker *worker = mem_zalloc(sizeof(*worker));
    worker->server = server;
    worker->index = index;
    worker->loop = ev_loop_new(EVFLAG_AUTO);
    if (worker->loop == NULL) {
        log_event(LOG_ERROR, "cannot create an event loop (too few file descriptors?)");
        exit(1);
    }
    worker->read_buffer = mem_alloc(WORKER_READ_SIZE);
    worker->reader = l1_reader(server->l1, index);
    pthread_mutex_init(&worker->mailbox_lock, NULL);
    worker->mailbox_tail = &worker->mailbox_head;
    worker->own_tail = &worker->own_head;
    order_init(&worker->order);
    redirect_init(worker);
    parser_init(&worker->parser);
    worker_read_clock(worker);
    create_links(worker);
    ev_prepare_init(&worker->turn_end, on_turn_end);
    ev_prepare_start(worker->loop, &worker->turn_end);
    ev_async_init(&worker->wakeup, on_wakeup);
    ev_async_start(worker->loop, &worker->wakeup);
    double tick = tick_seconds(server->conf);
    ev_timer_init(&worker->tick, on_tick, tick, tick);
    ev_timer_start(worker->loop, &worker->tick);
    return worker;
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    pthread_mutex_lock(&worker->mailbox_lock); /* worker->thread has been written */
    pthread_mutex_unlock(&worker->mailbox_lock);
    worker->last_tick = worker_read_clock(worker);
    nodes_follow(worker);
    if (!worker->server->is_cluster) {
        (void)forward_lane(worker, 0, worker->server->conf->upstream_db, false,
                           ROAD_LANE); /* opened now: the first request finds it up */
    }
    busy_poll_run(worker->loop, worker->server->conf->proxy_busy_poll, &worker->done);
    pinned_fini(worker);
    bring_later(worker); /* all are closed */
    run_clients(worker);
    free_dead(worker);
    upstream_destroy(worker->upstream);
    redirect_fini(worker);
    nodes_stop(worker); /* feeds are freed later: other workers' INFO still asks for their stats */
    fence_start(worker);
    l1_reader_rest(worker->reader);
    return NULL;
}

void worker_start(struct worker *worker)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the main thread's */
    pthread_mutex_lock(&worker->mailbox_lock);
    if (pthread_create(&worker->thread, NULL, run, worker) != 0) {
        log_event(LOG_ERROR, "cannot start a thread");
        exit(1);
    }
    pthread_mutex_unlock(&worker->mailbox_lock);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

void worker_join(struct worker *worker)
{
    pthread_join(worker->thread, NULL);
}

bool worker_run_posts(struct worker *worker)
{
    bool any = run_mailbox(worker);
    while (worker->clients.head != NULL) { /* handed over too late */
        client_close(worker->clients.head);
    }
    fanout_close_parts(worker);
    free_dead(worker);
    return any;
}

void worker_destroy(struct worker *worker)
{
    nodes_forget(worker);
    mem_free(worker->nodes);
    echo_fini(worker);
    request_destroy(worker->spare);
    free_kept(worker);
    order_fini(&worker->order);
    pthread_mutex_destroy(&worker->mailbox_lock);
    ev_loop_destroy(worker->loop);
    mem_free(worker->read_buffer);
    mem_free(worker);
}

static void on_drain(struct worker *worker, struct post *post)
{
    (void)post;
    worker->draining = true;
    worker->drain_until =
        worker->now + atomic_load_explicit(&worker->drain_timeout_ms, memory_order_relaxed);
    for (struct client *c = worker->clients.head, *next; c != NULL; c = next) {
        next = c->next;
        if (c->nblocked > 0) {
            client_close(c); /* nothing says when its answer comes */
            continue;
        }
        client_end(c);
    }
}

void worker_drain(struct worker *worker, int64_t timeout_ms)
{
    atomic_store_explicit(&worker->drain_timeout_ms, timeout_ms, memory_order_relaxed);
    worker->drain_post.run = on_drain;
    worker_post(worker, &worker->drain_post);
}
