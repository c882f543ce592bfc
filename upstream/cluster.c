/* SPDX-License-Identifier: Apache-2.0
 *
 * cluster.c: the refresher of the slot map.
 *
 *            due, or woken             answered: topology_apply
 *   IDLE ────────────────────► ASKING ─────────────────────────► IDLE
 *                                │ ▲ lost, late, refused, cluster_state:fail
 *                                └─┘ the next node; when all have been asked: IDLE, and again soon
 *
 * One connection, to the node that answered last; it is asked again as long as it belongs to the
 * cluster. CLUSTER INFO travels with the question: a node that says that the cluster is down may be cut
 * off from the others and does not know better, so its map counts only as long as there is none at all.
 *
 * Threads: the main thread; cluster_wake sets a flag and wakes its loop. Not here: what the map means
 * (topology.c, slots.c).
 */
#include "cluster.h"

#include "conn.h"
#include "slots.h"

#include "../conf/log.h"
#include "../conf/mem.h"

#include <inttypes.h>

#define READ_SIZE     ((size_t)16 * 1024)
#define REPLY_MAX     ((size_t)8 * 1024 * 1024)
#define ANSWER_MS     1000 /* beyond connecting, for an answer */
#define GAP_MIN_MS    100  /* between two questions */
#define GAP_MAX_MS    1000 /* the same as long as nothing is news, and when nobody answers */
#define LOG_EVERY_MS  10000
#define ROOM_EVERY_MS 3600000 /* an hour */
#define ROOM_WARN_AT  (TOPOLOGY_NODES_MAX / 4 * 3)

enum cluster_state { CLUSTER_IDLE, CLUSTER_ASKING };

struct cluster {
    struct cluster_options options;
    enum cluster_state state;
    uint16_t node;     /* whom `conn` leads to */
    struct conn *conn; /* NULL: none yet */
    char *read_buffer;
    struct call call;
    enum slots_reply kind; /* asked for */
    uint32_t answers;      /* so far, of two */
    bool cluster_down;     /* the node says so */
    bool failed; /* the call ended without a map: the next node's turn, at the next tick */
    const char *why;
    char *reply; /* what has come of it */
    size_t reply_n, reply_cap;
    uint16_t tried; /* nodes without an answer, in this round */
    int64_t asked_at, done_at, next_at;
    int64_t gap_ms;
    uint64_t version; /* of the topology, behind the last map */
    uint64_t known;   /* and when a question was sent since, if one was */
    bool said;
    struct ev_async wakeup;
    _Atomic bool wanted;
    struct log_limit failed_log, changed_log, room_log;
    _Atomic uint64_t refreshes, failures; /* relaxed, as the rest */
    _Atomic int64_t last_ms;
    _Atomic uint32_t slots_served;
};

/* ---- The answer ---------------------------------------------------------------------------- */

static void fail(struct cluster *cluster, const char *why)
{
    cluster->failed = true;
    cluster->why = why;
}

static bool collect(struct cluster *cluster, struct slice bytes)
{
    if (bytes.n > REPLY_MAX - cluster->reply_n) {
        return false;
    }
    if (bytes.n > cluster->reply_cap - cluster->reply_n) {
        size_t cap = 2 * cluster->reply_cap + bytes.n;
        char *grown = mem_try_resize(cluster->reply, cap);
        if (grown == NULL) {
            return false;
        }
        cluster->reply = grown;
        cluster->reply_cap = cap;
    }
    memcpy(cluster->reply + cluster->reply_n, bytes.p, bytes.n);
    cluster->reply_n += bytes.n;
    return true;
}

static void say_map(struct cluster *cluster, uint32_t covered)
{
    const struct topology *t = cluster->options.topology;
    uint64_t more = 0;
    unsigned primaries = 0, replicas = 0;
    for (uint16_t i = 0; i < topology_count(t); i++) {
        primaries += topology_role(t, i) == TOPOLOGY_PRIMARY;
        replicas += topology_role(t, i) == TOPOLOGY_REPLICA;
    }
    if (log_allow(&cluster->changed_log, cluster->options.now(), GAP_MAX_MS, &more)) {
        log_event(LOG_INFO,
                  "the cluster has %u primaries and %u replicas; %" PRIu32 " of %d slots are "
                  "served (says %s); changes not logged: %" PRIu64,
                  primaries, replicas, covered, TOPOLOGY_SLOTS,
                  node_name(topology_node(t, cluster->node)), more);
    }
}

/* Said in time. */
static void warn_of_room(struct cluster *cluster)
{
    const struct topology *t = cluster->options.topology;
    unsigned members = 0;
    uint64_t more = 0;
    for (uint16_t i = 0; i < topology_count(t); i++) {
        members += topology_role(t, i) != TOPOLOGY_GONE;
    }
    if (members >= ROOM_WARN_AT &&
        log_allow(&cluster->room_log, cluster->options.now(), ROOM_EVERY_MS, &more)) {
        log_event(
            LOG_WARN,
            "the cluster has %u nodes, and %d can be known: those beyond are not followed and "
            "their slots not served",
            members, TOPOLOGY_NODES_MAX);
    }
}

static void take_map(struct cluster *cluster)
{
    struct topology *t = cluster->options.topology;
    struct slots_map map;
    if (!slots_read(t, slice_of(cluster->reply, cluster->reply_n), cluster->kind, cluster->node,
                    &map)) {
        fail(cluster, "its answer is no map of slots");
        return;
    }
    if (map.n == 0) {
        fail(cluster, "it knows no owner of any slot");
    } else if (cluster->cluster_down && cluster->said) {
        fail(cluster, "it says that the cluster is down");
    } else {
        int64_t now = cluster->options.now();
        topology_apply(t, map.ranges, map.n);
        bool changed = topology_version(t) != cluster->version;
        cluster->gap_ms = changed ? GAP_MIN_MS : cluster->gap_ms * 2;
        cluster->gap_ms = cluster->gap_ms > GAP_MAX_MS ? GAP_MAX_MS : cluster->gap_ms;
        cluster->version = cluster->known = topology_version(t);
        atomic_fetch_add_explicit(&cluster->refreshes, 1, memory_order_relaxed);
        atomic_store_explicit(&cluster->last_ms, now, memory_order_relaxed);
        atomic_store_explicit(&cluster->slots_served, map.covered, memory_order_relaxed);
        if (changed || !cluster->said) {
            say_map(cluster, map.covered);
        }
        warn_of_room(cluster);
        cluster->said = true;
        cluster->tried = 0;
        cluster->state = CLUSTER_IDLE;
        cluster->done_at = now;
        cluster->next_at = now + cluster->options.refresh_ms;
    }
    slots_map_fini(&map);
}

static void take_info(struct cluster *cluster)
{
    struct slice info = slice_of(cluster->reply, cluster->reply_n);
    static const char ok[] = "cluster_state:ok";
    cluster->cluster_down = info.n > 0 && memmem(info.p, info.n, ok, sizeof(ok) - 1) == NULL;
}

static void on_reply(struct call *call, const struct reply_piece *piece)
{
    struct cluster *cluster = container_of(call, struct cluster, call);
    bool is_error = piece->type == '-';
    if (piece->first) {
        cluster->reply_n = 0;
    }
    if (!cluster->failed && !is_error && !collect(cluster, piece->bytes)) {
        fail(cluster, "its answer is too long");
    }
    if (!piece->last) {
        return;
    }
    cluster->answers++;
    if (cluster->failed) {
        return;
    }
    if (cluster->answers == 1) {
        if (is_error) {
            fail(cluster, "it is no node of a cluster, or does not tell (CLUSTER INFO)");
            return;
        }
        take_info(cluster);
        return;
    }
    if (is_error && cluster->kind == SLOTS_SHARDS) {
        cluster->kind = SLOTS_SLOTS; /* before 7.0, or not allowed */
        cluster->state = CLUSTER_IDLE;
        cluster->next_at = cluster->done_at = 0;
    } else if (is_error) {
        fail(cluster, "it does not tell (CLUSTER SLOTS)");
    } else {
        take_map(cluster);
    }
}

static void on_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    fail(container_of(call, struct cluster, call), "the connection was lost");
}

static const struct call_ops CLUSTER_CALL = {.reply = on_reply, .lost = on_lost};

/* ---- The question -------------------------------------------------------------------------- */

static void hang_up(struct cluster *cluster)
{
    conn_destroy(cluster->conn); /* an open call is told, and marks the failure */
    cluster->conn = NULL;
    cluster->failed = false;
}

/* Whom to ask: members of the cluster before all others. */
static uint16_t choose(const struct cluster *cluster)
{
    const struct topology *t = cluster->options.topology;
    uint16_t n = topology_count(t);
    uint16_t members = 0;
    for (uint16_t i = 0; i < n; i++) {
        members = (uint16_t)(members + (topology_role(t, i) != TOPOLOGY_GONE));
    }
    bool member = cluster->tried < members;
    uint32_t skip = member ? cluster->tried : (uint32_t)(cluster->tried - members);
    for (uint32_t i = 0; i < n; i++) {
        /* beginning with the one in use */
        uint16_t index = (uint16_t)((cluster->node + i) % n);
        if ((topology_role(t, index) != TOPOLOGY_GONE) == member && skip-- == 0) {
            return index;
        }
    }
    return TOPOLOGY_NONE;
}

static void connect_to(struct cluster *cluster, uint16_t index)
{
    if (cluster->conn != NULL && cluster->node == index) {
        return;
    }
    hang_up(cluster);
    cluster->node = index;
    cluster->kind = SLOTS_SHARDS;
    cluster->conn = conn_create(&(struct conn_options){
        .loop = cluster->options.loop,
        .node = topology_node(cluster->options.topology, index),
        .role = "topology",
        .quiet = true,
        .now = cluster->options.now,
        .read_buffer = cluster->read_buffer,
        .read_size = READ_SIZE,
    });
    conn_open(cluster->conn);
}

static void ask(struct cluster *cluster, int64_t now)
{
    struct slice shards = SLICE("*2\r\n$7\r\nCLUSTER\r\n$4\r\nINFO\r\n"
                                "*2\r\n$7\r\nCLUSTER\r\n$6\r\nSHARDS\r\n");
    struct slice slots = SLICE("*2\r\n$7\r\nCLUSTER\r\n$4\r\nINFO\r\n"
                               "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n");
    uint16_t index = choose(cluster);
    if (index == TOPOLOGY_NONE) {
        return;
    }
    connect_to(cluster, index);
    cluster->call = (struct call){.ops = &CLUSTER_CALL, .replies = 2};
    cluster->answers = 0;
    cluster->failed = false;
    cluster->asked_at = now;
    cluster->known = topology_version(cluster->options.topology);
    cluster->state = CLUSTER_ASKING;
    struct slice question = cluster->kind == SLOTS_SHARDS ? shards : slots;
    if (conn_submit(cluster->conn, &cluster->call, question, NULL) != CONN_OK) {
        fail(cluster, conn_error(cluster->conn));
    }
}

static void next_node(struct cluster *cluster, int64_t now)
{
    const struct topology *t = cluster->options.topology;
    uint64_t more = 0;
    atomic_fetch_add_explicit(&cluster->failures, 1, memory_order_relaxed);
    cluster->tried++;
    bool all = cluster->tried >= topology_count(t);
    if (all && log_allow(&cluster->failed_log, now, LOG_EVERY_MS, &more)) {
        log_event(LOG_WARN,
                  "no node of the cluster tells who owns the slots; the last of %u that were asked "
                  "was %s: %s; rounds not logged: %" PRIu64,
                  cluster->tried, node_name(topology_node(t, cluster->node)), cluster->why, more);
    }
    hang_up(cluster);
    cluster->state = CLUSTER_IDLE;
    cluster->done_at = now;
    cluster->next_at = now;
    if (all) {
        cluster->tried = 0;
        cluster->gap_ms = GAP_MAX_MS;
        cluster->next_at = now + GAP_MAX_MS;
    }
}

static void on_wakeup(struct ev_loop *loop, struct ev_async *async, int events)
{
    (void)loop;
    (void)events;
    cluster_tick(container_of(async, struct cluster, wakeup));
}

/* How long to wait after the last answer. A MOVED that changed an owner since is news, however little
 * came of the questions before: it may be the first sign of a failover, and what the old owner vouches
 * for of its other slots counts until the map comes. */
static int64_t gap(const struct cluster *cluster)
{
    bool news = topology_version(cluster->options.topology) != cluster->known;
    return news ? GAP_MIN_MS : cluster->gap_ms;
}

void cluster_tick(struct cluster *cluster)
{
    int64_t now = cluster->options.now();
    if (cluster->conn != NULL) {
        conn_tick(cluster->conn, now);
    }
    if (cluster->state == CLUSTER_ASKING) {
        if (!cluster->failed && now - cluster->asked_at > ANSWER_MS) {
            fail(cluster, "it does not answer");
        }
        if (cluster->failed) {
            next_node(cluster, now);
        }
    }
    bool wanted = atomic_load_explicit(&cluster->wanted, memory_order_relaxed);
    bool may = now - cluster->done_at >= gap(cluster) || cluster->tried > 0;
    if (cluster->state == CLUSTER_IDLE && (now >= cluster->next_at || (wanted && may))) {
        atomic_store_explicit(&cluster->wanted, false, memory_order_relaxed);
        ask(cluster, now);
    }
    if (cluster->conn != NULL) {
        conn_flush(cluster->conn);
    }
}

void cluster_wake(struct cluster *cluster)
{
    if (!atomic_exchange_explicit(&cluster->wanted, true, memory_order_relaxed)) {
        ev_async_send(cluster->options.loop, &cluster->wakeup);
    }
}

/* ---- Life ---------------------------------------------------------------------------------- */

struct cluster *cluster_create(const struct cluster_options *options)
{
    struct cluster *cluster = mem_zalloc(sizeof(*cluster));
    cluster->options = *options;
    cluster->read_buffer = mem_alloc(READ_SIZE);
    cluster->gap_ms = GAP_MIN_MS;
    for (size_t i = 0; i < options->nseeds; i++) {
        (void)topology_keep(options->topology, slice_str(options->seeds[2 * i]),
                            slice_str(options->seeds[2 * i + 1]));
    }
    cluster->options.seeds = NULL; /* they are nodes now */
    ev_async_init(&cluster->wakeup, on_wakeup);
    ev_async_start(options->loop, &cluster->wakeup);
    return cluster;
}

void cluster_destroy(struct cluster *cluster)
{
    if (cluster == NULL) {
        return;
    }
    hang_up(cluster);
    ev_async_stop(cluster->options.loop, &cluster->wakeup);
    mem_free(cluster->reply);
    mem_free(cluster->read_buffer);
    mem_free(cluster);
}

void cluster_stats(const struct cluster *cluster, struct cluster_stats *out)
{
    *out = (struct cluster_stats){
        .refreshes = atomic_load_explicit(&cluster->refreshes, memory_order_relaxed),
        .failures = atomic_load_explicit(&cluster->failures, memory_order_relaxed),
        .last_ms = atomic_load_explicit(&cluster->last_ms, memory_order_relaxed),
        .slots_served = atomic_load_explicit(&cluster->slots_served, memory_order_relaxed),
    };
}
