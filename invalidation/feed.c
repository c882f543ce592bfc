/* SPDX-License-Identifier: Apache-2.0
 *
 * feed.c: the fill connection F of one worker, and what it says about L1. Two clocks run here:
 *
 *   send PING ──────────► PONG processed         servable until t_ok + L, with t_ok = when the PING
 *      │ t_ok                  │                  was sent: whatever was written before that moment
 *      └──── L/4 ──► next      └─ l1_cover_renew  has its invalidation in front of the PONG (C6)
 *
 * Way through the file: pushes; PINGs; refusals; the link's life; what the worker calls.
 *
 * Invariants: every push is applied when it is read, in order (M5), so that everything in front of
 * a PONG is in effect when the PONG renews the cover (C11). The cover goes down before anybody else
 * learns of a loss (C10). There is at most one PING on the way, and it belongs to the present link:
 * a loss ends it as it ends every call.
 *
 * Threads: the worker's; the counters are written by it alone and read by anybody, relaxed.
 */
#include "feed.h"

#include "../conf/log.h"
#include "../conf/mem.h"

#define FEED_MAGIC       0x66656564u
#define REFUSED_RETRY_MS 10000
#define LOG_EVERY_MS     10000
#define STALL_MS         1000 /* so long without a tick: this process stood still */

struct feed {
    unsigned magic;
    struct feed_options options;
    struct conn *conn;

    struct call ping;
    bool ping_open;
    int64_t ping_sent; /* when */
    ev_timer ping_timer;

    int64_t t_ok;        /* of the present link (C6) */
    bool lapsed;         /* now is past t_ok + L, and that has been counted */
    int64_t alive_since; /* newest answer to a PING; later after a standstill of ours */
    int64_t last_tick;
    struct log_limit lapse_log;
    struct log_limit refused_log;

    /* Written by the worker only: a plain load and store is enough. */
    _Atomic int state;
    _Atomic bool refused;
    _Atomic uint64_t invalidations;
    _Atomic uint64_t flushes;
    _Atomic uint64_t lapses;
    _Atomic uint64_t losses;
    _Atomic uint64_t refusals;
    _Atomic int64_t last_pong;
};

static void add(_Atomic uint64_t *counter, uint64_t n)
{
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, old + n, memory_order_relaxed);
}

static bool was_refused(const struct feed *feed)
{
    return atomic_load_explicit(&feed->refused, memory_order_relaxed);
}

/* True for the first of the process's feeds that is refused, and for the last that is not any more. */
static bool note_refused(struct feed *feed, bool refused)
{
    atomic_store_explicit(&feed->refused, refused, memory_order_relaxed);
    _Atomic unsigned *all = feed->options.refused;
    if (all == NULL) {
        return true;
    }
    return refused ? atomic_fetch_add_explicit(all, 1, memory_order_relaxed) == 0
                   : atomic_fetch_sub_explicit(all, 1, memory_order_relaxed) == 1;
}

static void note_state(struct feed *feed)
{
    atomic_store_explicit(&feed->state, (int)conn_state(feed->conn), memory_order_relaxed);
}

/* ---- Pushes -------------------------------------------------------------------------------- */

static void on_push(struct conn *conn, const struct push *push, void *ctx)
{
    struct feed *feed = ctx;
    (void)conn;
    bug_on(feed->magic != FEED_MAGIC);
    if (!slice_eq(push->kind, SLICE("invalidate"))) {
        return;
    }
    if (!push->plain || push->is_null || push->nitems == 0) {
        /* M1: all keys. M2: something we do not understand may well mean all keys. */
        l1_drop_all(feed->options.l1);
        add(&feed->flushes, 1);
        return;
    }
    for (size_t i = 0; i < push->nitems; i++) {
        l1_invalidate(feed->options.l1, l1_hash(feed->options.l1, push->items[i]));
    }
    add(&feed->invalidations, push->nitems);
}

/* ---- PINGs --------------------------------------------------------------------------------- */

static void note_lapse(struct feed *feed, int64_t now)
{
    uint64_t more = 0;
    if (feed->lapsed || now <= feed->t_ok + feed->options.link_lease_ms) {
        return;
    }
    feed->lapsed = true;
    add(&feed->lapses, 1);
    if (log_allow(&feed->lapse_log, now, LOG_EVERY_MS, &more)) {
        log_event(LOG_WARN,
                  "no PONG from %s (fill) for a PING of the last %lld ms: what it filled in L1 is "
                  "not served until one comes; lapses not logged: %llu",
                  node_name(feed->options.node), (long long)feed->options.link_lease_ms,
                  (unsigned long long)more);
    }
}

static void send_ping(struct feed *feed)
{
    if (feed->ping_open || !feed_is_up(feed)) {
        return;
    }
    /* Taken before the bytes leave: too early a moment is safe, too late a one is not. */
    feed->ping_sent = feed->options.now();
    feed->ping.replies = 1;
    feed->ping_open =
        conn_submit(feed->conn, &feed->ping, SLICE("*1\r\n$4\r\nPING\r\n"), NULL) == CONN_OK;
    conn_flush(feed->conn);
}

static void on_ping_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    struct feed *feed = container_of(w, struct feed, ping_timer);
    bug_on(feed->magic != FEED_MAGIC);
    send_ping(feed);
}

static bool starts_with(struct slice s, struct slice start)
{
    return s.n >= start.n && memcmp(s.p, start.p, start.n) == 0;
}

static void on_pong(struct call *call, const struct reply_piece *piece)
{
    struct feed *feed = container_of(call, struct feed, ping);
    if (piece->last) {
        feed->ping_open = false;
    }
    if (piece->type == '+' && slice_eq(piece->bytes, SLICE("+PONG\r\n"))) {
        int64_t now = feed->options.now();
        note_lapse(feed, now);
        feed->t_ok = feed->ping_sent;
        feed->lapsed = feed->lapsed && now > feed->t_ok + feed->options.link_lease_ms;
        feed->alive_since = now;
        atomic_store_explicit(&feed->last_pong, now, memory_order_relaxed);
        l1_cover_renew(feed->options.l1, feed->options.cover,
                       feed->t_ok + feed->options.link_lease_ms);
    } else if (piece->type == '-' && (starts_with(piece->bytes, SLICE("-BUSY")) ||
                                      starts_with(piece->bytes, SLICE("-LOADING")))) {
        /* No renewal: a PONG would stand behind the invalidations, this answer does not (X3). But
         * hanging up on a server that runs a long script would only lose L1's content. */
        feed->alive_since = feed->options.now();
    }
}

static void on_ping_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    container_of(call, struct feed, ping)->ping_open = false;
}

static const struct call_ops PING_OPS = {.reply = on_pong, .lost = on_ping_lost};

/* ---- Refusals ------------------------------------------------------------------------------ */

/* Will the server say the same to the next attempts? Not when it is busy, full, loading or waits
 * for another password. */
static bool is_lasting(const char *text)
{
    return strncmp(text, "NOPERM", 6) == 0 || strncmp(text, "NOPROTO", 7) == 0 ||
           strncmp(text, "ERR unknown", 11) == 0 || strncmp(text, "ERR Unknown", 11) == 0;
}

static void on_refused(struct conn *conn, const char *step, const char *text, void *ctx)
{
    struct feed *feed = ctx;
    uint64_t more = 0;
    note_state(feed);
    if (strcmp(step, "HELLO") != 0 && strcmp(step, "CLIENT TRACKING") != 0) {
        if (log_allow(&feed->refused_log, feed->options.now(), LOG_EVERY_MS, &more)) {
            log_event(LOG_WARN,
                      "reads go past L1: %s refuses %s on the fill connection: %s; trying again; "
                      "refusals not logged: %llu",
                      node_name(feed->options.node), step, text, (unsigned long long)more);
        }
        return;
    }
    if (is_lasting(text)) {
        conn_retry_slowly(conn, REFUSED_RETRY_MS);
    }
    add(&feed->refusals, 1);
    if (!was_refused(feed) && note_refused(feed, true)) {
        log_event(LOG_WARN,
                  "reads go past L1 from now on: %s refuses %s, without which nothing can be kept "
                  "coherent: %s; trying again every %d s at most, saying so when it works",
                  node_name(feed->options.node), step, text, REFUSED_RETRY_MS / 1000);
    }
}

/* ---- The link ------------------------------------------------------------------------------ */

/* The handshake's PONG stands for the first PING (C2). */
static void on_up(struct conn *conn, void *ctx)
{
    struct feed *feed = ctx;
    int64_t now = feed->options.now();
    feed->t_ok = conn_handshake_sent(conn);
    feed->lapsed = false;
    feed->alive_since = now;
    atomic_store_explicit(&feed->last_pong, now, memory_order_relaxed);
    note_state(feed);
    if (was_refused(feed) && note_refused(feed, false)) {
        log_event(LOG_INFO, "reads use L1 again: %s accepts tracking",
                  node_name(feed->options.node));
    }
    l1_cover_up(feed->options.l1, feed->options.cover, feed->t_ok + feed->options.link_lease_ms);
    ev_timer_again(feed->options.loop, &feed->ping_timer);
}

static void on_lost(struct conn *conn, void *ctx)
{
    struct feed *feed = ctx;
    (void)conn;
    l1_cover_down(feed->options.l1, feed->options.cover);
    ev_timer_stop(feed->options.loop, &feed->ping_timer);
    add(&feed->losses, 1);
    note_state(feed);
}

static const struct conn_events FEED_EVENTS = {
    .up = on_up,
    .lost = on_lost,
    .refused = on_refused,
    .push = on_push,
};

struct feed *feed_create(const struct feed_options *options)
{
    struct feed *feed = mem_zalloc(sizeof(*feed));
    feed->magic = FEED_MAGIC;
    feed->options = *options;
    feed->ping.ops = &PING_OPS;
    ev_timer_init(&feed->ping_timer, on_ping_timer, 0.,
                  (double)options->link_lease_ms / 4.0 / 1000.0);
    /* The highest: pushes are read before clients are, which keeps foreign writes visible soon. */
    ev_set_priority(&feed->ping_timer, EV_MAXPRI);
    feed->conn = conn_create(&(struct conn_options){
        .loop = options->loop,
        .node = options->node,
        .role = "fill",
        .db = options->db,
        .resp3 = true,
        .tracking = true,
        .priority = EV_MAXPRI,
        .now = options->now,
        .read_buffer = options->read_buffer,
        .read_size = options->read_size,
        .events = &FEED_EVENTS,
        .ctx = feed,
    });
    return feed;
}

void feed_stop(struct feed *feed)
{
    if (feed == NULL || feed->conn == NULL) {
        return;
    }
    bug_on(feed->magic != FEED_MAGIC);
    l1_cover_down(feed->options.l1, feed->options.cover);
    ev_timer_stop(feed->options.loop, &feed->ping_timer);
    conn_destroy(feed->conn);
    feed->conn = NULL;
    atomic_store_explicit(&feed->state, CONN_IDLE, memory_order_relaxed);
}

void feed_destroy(struct feed *feed)
{
    if (feed == NULL) {
        return;
    }
    feed_stop(feed);
    feed->magic = 0;
    mem_free(feed);
}

/* ---- What the worker calls ----------------------------------------------------------------- */

void feed_start(struct feed *feed)
{
    conn_open(feed->conn);
    note_state(feed);
}

bool feed_is_up(const struct feed *feed)
{
    return feed->conn != NULL && conn_state(feed->conn) == CONN_UP && conn_accepts(feed->conn);
}

size_t feed_queued_bytes(const struct feed *feed)
{
    return conn_queued_bytes(feed->conn);
}

enum conn_status feed_submit(struct feed *feed, struct call *call, struct slice bytes)
{
    return feed_is_up(feed) ? conn_submit(feed->conn, call, bytes, NULL) : CONN_DOWN;
}

void feed_fail(struct feed *feed, const char *why)
{
    conn_fail(feed->conn, why);
}

void feed_flush(struct feed *feed)
{
    conn_flush(feed->conn);
}

static int64_t silence_limit(const struct feed *feed)
{
    int64_t dead_after = node_options(feed->options.node)->dead_after_ms;
    int64_t leases = 2 * feed->options.link_lease_ms;
    return leases > dead_after ? leases : dead_after;
}

void feed_tick(struct feed *feed, int64_t now)
{
    if (feed->last_tick != 0 && now - feed->last_tick > STALL_MS) {
        feed->alive_since = now;
    }
    feed->last_tick = now;
    if (conn_state(feed->conn) == CONN_UP) {
        note_lapse(feed, now);
        if (now - feed->alive_since > silence_limit(feed)) {
            conn_fail(feed->conn, "no PONG within the limit");
        }
    }
    conn_tick(feed->conn, now);
    note_state(feed);
}

void feed_stats(const struct feed *feed, struct feed_stats *out)
{
    out->state = (enum conn_state)atomic_load_explicit(&feed->state, memory_order_relaxed);
    out->refused = atomic_load_explicit(&feed->refused, memory_order_relaxed);
    out->invalidations = atomic_load_explicit(&feed->invalidations, memory_order_relaxed);
    out->flushes = atomic_load_explicit(&feed->flushes, memory_order_relaxed);
    out->lapses = atomic_load_explicit(&feed->lapses, memory_order_relaxed);
    out->losses = atomic_load_explicit(&feed->losses, memory_order_relaxed);
    out->refusals = atomic_load_explicit(&feed->refusals, memory_order_relaxed);
    out->last_pong_ms = atomic_load_explicit(&feed->last_pong, memory_order_relaxed);
}
