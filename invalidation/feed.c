/* SPDX-License-Identifier: Apache-2.0
 *
 * feed.c: the fill connection F of one worker, and what it says about L1. Two clocks run here:
 *
 *   send PING ──────────► PONG processed         servable until t_ok + L, with t_ok = when the PING
 *      │ t_ok                  │                  was sent: whatever was written before that moment
 *      └──── L/4 ──► next      └─ l1_cover_renew  has its invalidation in front of the PONG (C6)
 *
 * What F is depends on the plan (feed_priv.h), which is looked at every tick:
 *
 *   tracking             RESP3, CLIENT TRACKING ON; it has a cover of its own
 *   redirect             RESP2, CLIENT TRACKING ON REDIRECT I; its cover is as good as the older t_ok
 *                        of the two (I1); without I there is no F
 *   all others           RESP2, plain; reads only. The cover is I's (host.c)
 *
 * Way through the file: pushes; PINGs; refusals; the link's life; following the plan; what the worker
 * calls.
 *
 * Invariants: every push is applied when it is read, in order (M5), so that everything in front of
 * a PONG is in effect when the PONG renews the cover (C11). The cover goes down before anybody else
 * learns of a loss (C10). There is at most one PING on the way, and it belongs to the present link:
 * a loss ends it as it ends every call.
 *
 * Threads: the worker's; the counters are written by it alone and read by anybody, relaxed.
 */
#include "feed_priv.h"

#include "../conf/mem.h"
#include "../conf/mutant.h"

#define FEED_MAGIC 0x66656564u

static const struct slice PING_BYTES = {"*1\r\n$4\r\nPING\r\n", 14};

struct feed {
    unsigned magic;
    struct feed_options options;
    struct feeds *feeds;
    const struct feeds_options *shared;
    struct host *host; /* NULL but for worker 0 */
    struct plan plan;  /* followed */
    struct conn *conn; /* NULL when the plan wants none, and before start and after stop */
    uint16_t cover;    /* of what F reads */

    struct call ping;
    bool ping_open;
    int64_t ping_sent; /* when */
    ev_timer ping_timer;
    struct lease_clock clock;
    struct log_limit refused_log;

    /* Written by the worker only: a plain load and store is enough. */
    _Atomic int state;
    _Atomic bool refused;
    _Atomic int64_t last_pong;
    _Atomic int64_t round_trip; /* of its PINGs, ms */
    _Atomic int64_t moved;      /* conn_moved, as of the newest tick */
    struct feed_counters counters;
};

static bool was_refused(const struct feed *feed)
{
    return atomic_load_explicit(&feed->refused, memory_order_relaxed);
}

/* True for the first of the process's feeds that is refused, and for the last that is not any more. */
static bool note_refused(struct feed *feed, bool refused)
{
    if (was_refused(feed) == refused) {
        return false;
    }
    atomic_store_explicit(&feed->refused, refused, memory_order_relaxed);
    _Atomic unsigned *all = &feed->feeds->nrefused;
    return refused ? atomic_fetch_add_explicit(all, 1, memory_order_relaxed) == 0
                   : atomic_fetch_sub_explicit(all, 1, memory_order_relaxed) == 1;
}

static void note_state(struct feed *feed)
{
    enum conn_state state = feed->conn == NULL ? CONN_IDLE : conn_state(feed->conn);
    if (state == CONN_UP && !feed_is_up(feed)) {
        state = CONN_HANDSHAKE;
    }
    atomic_store_explicit(&feed->state, (int)state, memory_order_relaxed);
}

/* Is the cover F's own? */
static bool owns_cover(const struct feed *feed)
{
    return !feed_mode_link_covers(feed->plan.mode);
}

/* ---- Pushes -------------------------------------------------------------------------------- */

static void on_push(struct conn *conn, const struct push *push, void *ctx)
{
    struct feed *feed = ctx;
    struct l1 *l1 = feed->shared->l1;
    (void)conn;
    bug_on(feed->magic != FEED_MAGIC);
    if (!slice_eq(push->kind, SLICE("invalidate"))) {
        return;
    }
    if (!push->plain || push->is_null || push->nitems == 0) {
        /* M1: all keys. M2: something we do not understand may well mean all keys. */
        if (push->plain && push->is_null ? !MUTANT(M1) : !MUTANT(M2)) {
            l1_drop_all(l1);
        }
        feed_count(&feed->counters.flushes, 1);
        return;
    }
    for (size_t i = 0; i < push->nitems; i++) {
        l1_invalidate_by(l1, l1_hash(l1, push->items[i]), feed->cover);
    }
    feed_count(&feed->counters.invalidations, push->nitems);
}

/* ---- PINGs --------------------------------------------------------------------------------- */

/* Until when the cover may be served: the older t_ok counts (I1). */
static int64_t servable_until(const struct feed *feed)
{
    int64_t t_ok = feed->clock.t_ok;
    if (feed->plan.mode == FEED_REDIRECT) {
        /* acquire: with the moment comes everything that I's owner applied before it (C11) */
        int64_t link = atomic_load_explicit(&feed->feeds->link_ok, memory_order_acquire);
        t_ok = link < t_ok ? link : t_ok;
    }
    return t_ok == INT64_MIN ? INT64_MIN : t_ok + feed->shared->link_lease_ms;
}

static void note_lapse(struct feed *feed, int64_t now)
{
    if (lease_clock_lapses(&feed->clock, feed->feeds, now, "fill")) {
        feed_count(&feed->counters.lapses, 1);
    }
}

static bool fill_is_up(const struct feed *feed)
{
    return feed->conn != NULL && conn_state(feed->conn) == CONN_UP && conn_accepts(feed->conn);
}

static void send_ping(struct feed *feed)
{
    if (feed->ping_open || !fill_is_up(feed)) {
        return;
    }
    /* Taken before the bytes leave: too early a moment is safe, too late a one is not. */
    feed->ping_sent = feed->shared->now();
    feed->ping.replies = 1;
    feed->ping_open = conn_submit(feed->conn, &feed->ping, PING_BYTES, NULL) == CONN_OK;
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

/* It falls at once and rises slowly: one PING behind a stall says nothing about the way. */
static void note_round_trip(struct feed *feed, int64_t ms)
{
    int64_t before = atomic_load_explicit(&feed->round_trip, memory_order_relaxed);
    int64_t most = before + before / 4 + 1;
    atomic_store_explicit(&feed->round_trip, ms < most ? ms : most, memory_order_relaxed);
}

static void on_pong(struct call *call, const struct reply_piece *piece)
{
    struct feed *feed = container_of(call, struct feed, ping);
    if (piece->last) {
        feed->ping_open = false;
    }
    if ((piece->type == '+' && slice_eq(piece->bytes, SLICE("+PONG\r\n"))) || MUTANT(C6e)) {
        int64_t now = feed->shared->now();
        note_lapse(feed, now);
        lease_clock_renew(&feed->clock, feed->feeds, MUTANT(C6t) ? now : feed->ping_sent, now);
        atomic_store_explicit(&feed->last_pong, now, memory_order_relaxed);
        note_round_trip(feed, now - feed->ping_sent);
        if (owns_cover(feed)) {
            l1_cover_renew(feed->shared->l1, feed->cover, servable_until(feed));
        }
    } else if (piece->type == '-' && piece->first &&
               (slice_starts(piece->bytes, SLICE("-BUSY")) ||
                slice_starts(piece->bytes, SLICE("-LOADING")))) {
        /* No renewal: a PONG would stand behind the invalidations, this answer does not (X3). But
         * hanging up on a server that runs a long script would only lose L1's content. */
        feed->clock.alive_since = feed->shared->now();
    }
}

static void on_ping_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    container_of(call, struct feed, ping)->ping_open = false;
}

static const struct call_ops PING_OPS = {.reply = on_pong, .lost = on_ping_lost};

/* ---- Refusals ------------------------------------------------------------------------------ */

static void on_refused(struct conn *conn, const char *step, const char *text, void *ctx)
{
    struct feed *feed = ctx;
    uint64_t more = 0;
    const char *node = node_name(feed->shared->node);
    note_state(feed);
    if (strcmp(step, "HELLO") != 0 && strcmp(step, "CLIENT TRACKING") != 0) {
        if (log_allow(&feed->refused_log, feed->shared->now(), LOG_EVERY_MS, &more)) {
            log_event(LOG_WARN,
                      "reads go past L1: %s refuses %s on the fill connection: %s; trying again; "
                      "refusals not logged: %llu",
                      node, step, text, (unsigned long long)more);
        }
        return;
    }
    bool lasting = refusal_is_lasting(text);
    if (lasting) {
        conn_retry_slowly(conn, REFUSED_RETRY_MS);
    }
    feed_count(&feed->counters.refusals, 1);
    if (lasting && feed->shared->automatic) {
        feeds_report(feed->feeds, feed->plan.serial, step, text); /* the host knows what next */
        return;
    }
    if (note_refused(feed, true)) {
        log_event(LOG_WARN,
                  "reads go past L1 from now on: %s refuses %s, without which nothing can be kept "
                  "coherent: %s; trying again every %d s at most, saying so when it works",
                  node, step, text, REFUSED_RETRY_MS / 1000);
    }
}

/* ---- The link ------------------------------------------------------------------------------ */

/* The handshake's PONG stands for the first PING (C2). */
static void on_up(struct conn *conn, void *ctx)
{
    struct feed *feed = ctx;
    struct l1 *l1 = feed->shared->l1;
    int64_t now = feed->shared->now();
    lease_clock_start(&feed->clock, conn_handshake_sent(conn), now);
    atomic_store_explicit(&feed->last_pong, now, memory_order_relaxed);
    atomic_store_explicit(&feed->round_trip, now - conn_handshake_sent(conn), memory_order_relaxed);
    if (note_refused(feed, false)) {
        log_event(LOG_INFO, "reads use L1 again: %s accepts %s", node_name(feed->shared->node),
                  feed_mode_name(feed->plan.mode));
    }
    ev_timer_again(feed->options.loop, &feed->ping_timer);
    if (owns_cover(feed)) {
        l1_cover_up(l1, feed->cover, servable_until(feed));
        /* Another plan by now, or I leads to another server process: see feed_priv.h, C3. */
        bool same_server = feed->plan.mode != FEED_REDIRECT ||
                           feed->plan.generation == node_generation(feed->shared->node);
        if (!feeds_is_current(feed->feeds, feed->plan.serial) || !same_server) {
            l1_cover_down(l1, feed->cover);
        }
    }
    note_state(feed);
}

static void on_lost(struct conn *conn, void *ctx)
{
    struct feed *feed = ctx;
    (void)conn;
    if (owns_cover(feed) && !MUTANT(C4)) {
        l1_cover_down(feed->shared->l1, feed->cover);
    }
    ev_timer_stop(feed->options.loop, &feed->ping_timer);
    feed_count(&feed->counters.losses, 1);
    note_state(feed);
}

static const struct conn_events FEED_EVENTS = {
    .up = on_up,
    .lost = on_lost,
    .refused = on_refused,
    .push = on_push,
};

/* ---- Following the plan -------------------------------------------------------------------- */

static void close_fill(struct feed *feed)
{
    struct conn *conn = feed->conn;
    if (conn == NULL) {
        return;
    }
    l1_cover_down(feed->shared->l1, feeds_fill_cover(feed->feeds, feed->options.index));
    ev_timer_stop(feed->options.loop, &feed->ping_timer);
    feed->conn = NULL; /* whose call is lost may ask again */
    conn_destroy(conn);
    (void)note_refused(feed, false);
    note_state(feed);
}

static void open_fill(struct feed *feed)
{
    enum feed_mode mode = feed->plan.mode;
    bool tracked = mode == FEED_TRACKING || mode == FEED_REDIRECT;
    feed->cover = tracked ? feeds_fill_cover(feed->feeds, feed->options.index)
                          : feeds_link_cover(feed->feeds, mode);
    if (mode == FEED_NONE || (mode == FEED_REDIRECT && feed->plan.redirect == 0)) {
        return;
    }
    feed->conn = conn_create(&(struct conn_options){
        .loop = feed->options.loop,
        .node = feed->shared->node,
        .role = "fill",
        .use = PORT_FILL,
        .db = feed->shared->db,
        .resp3 = mode == FEED_TRACKING,
        .tracking = tracked,
        .redirect = feed->plan.redirect,
        .priority = MUTANT(M5) ? EV_MINPRI : EV_MAXPRI,
        .now = feed->shared->now,
        .read_buffer = feed->options.read_buffer,
        .read_size = feed->options.read_size,
        .events = &FEED_EVENTS,
        .ctx = feed,
    });
    conn_open(feed->conn);
    note_state(feed);
}

/* Has the plan changed? The covers are down then, all but for one that came up meanwhile. */
static void follow_plan(struct feed *feed)
{
    if (atomic_load_explicit(&feed->feeds->serial, memory_order_acquire) == feed->plan.serial) {
        return;
    }
    close_fill(feed);
    feed->plan = feeds_plan(feed->feeds);
    open_fill(feed);
}

/* ---- Life ---------------------------------------------------------------------------------- */

struct feed *feed_create(const struct feed_options *options)
{
    struct feed *feed = mem_zalloc(sizeof(*feed));
    feed->magic = FEED_MAGIC;
    feed->options = *options;
    feed->feeds = options->feeds;
    feed->shared = &options->feeds->options;
    feed->ping.ops = &PING_OPS;
    ev_timer_init(&feed->ping_timer, on_ping_timer, 0.,
                  (double)feed->shared->link_lease_ms / 4.0 / 1000.0);
    /* The highest: pushes are read before clients are, which keeps foreign writes visible soon. */
    ev_set_priority(&feed->ping_timer, EV_MAXPRI);
    return feed;
}

void feed_start(struct feed *feed)
{
    if (feed->options.index == 0) {
        feed->host = host_create(&(struct host_options){
            .feeds = feed->feeds,
            .loop = feed->options.loop,
            .read_buffer = feed->options.read_buffer,
            .read_size = feed->options.read_size,
            .counters = &feed->counters,
        });
        host_start(feed->host);
    }
    follow_plan(feed);
}

void feed_stop(struct feed *feed)
{
    if (feed == NULL) {
        return;
    }
    bug_on(feed->magic != FEED_MAGIC);
    host_destroy(feed->host);
    feed->host = NULL;
    close_fill(feed);
    feed->plan = (struct plan){0};
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

bool feed_is_up(const struct feed *feed)
{
    return fill_is_up(feed) && (owns_cover(feed) || l1_cover_is_up(feed->shared->l1, feed->cover));
}

bool feed_announces(const struct feed *feed, struct slice key)
{
    const struct feeds *feeds = feed->feeds;
    if (feed->plan.mode != FEED_BROADCAST || feeds->nprefixes == 0) {
        return true;
    }
    for (size_t i = 0; i < feeds->nprefixes; i++) {
        if (slice_starts(key, feeds->prefixes[i])) {
            return true;
        }
    }
    return false;
}

uint16_t feed_cover(const struct feed *feed, struct slice key)
{
    return feed_is_up(feed) && feed_announces(feed, key) ? feed->cover : L1_NO_COVER;
}

int64_t feed_ttl_limit(const struct feed *feed)
{
    return feed->plan.mode == FEED_KEYSPACE  ? feed->shared->weak_ttl_ms
           : feed->plan.mode == FEED_CHANNEL ? feed->shared->channel_ttl_ms
                                             : INT64_MAX;
}

size_t feed_queued_bytes(const struct feed *feed)
{
    return feed->conn == NULL ? 0 : conn_queued_bytes(feed->conn);
}

enum conn_status feed_submit(struct feed *feed, struct call *call, struct slice bytes)
{
    return feed_is_up(feed) ? conn_submit(feed->conn, call, bytes, NULL) : CONN_DOWN;
}

void feed_fail(struct feed *feed, const char *why)
{
    if (feed->conn != NULL) {
        conn_fail(feed->conn, why);
    }
}

void feed_flush(struct feed *feed)
{
    if (feed->host != NULL) {
        host_flush(feed->host);
    }
    if (feed->conn != NULL) {
        conn_flush(feed->conn);
    }
}

void feed_tick(struct feed *feed, int64_t now)
{
    if (feed->host != NULL) {
        host_tick(feed->host, now);
    }
    follow_plan(feed);
    bool silent = lease_clock_tick(&feed->clock, feed->feeds, now);
    if (feed->conn == NULL) {
        return;
    }
    if (conn_state(feed->conn) == CONN_UP) {
        note_lapse(feed, now);
        if (silent) {
            conn_fail(feed->conn, "no PONG within the limit");
        }
    }
    conn_tick(feed->conn, now);
    atomic_store_explicit(&feed->moved, conn_moved(feed->conn), memory_order_relaxed);
    note_state(feed);
}

bool feed_has_stalled(const struct feed *feed, int64_t limit, int64_t now)
{
    int64_t moved = atomic_load_explicit(&feed->moved, memory_order_relaxed);
    int64_t trips = 2 * atomic_load_explicit(&feed->round_trip, memory_order_relaxed);
    return atomic_load_explicit(&feed->state, memory_order_relaxed) == CONN_UP &&
           now - moved >= limit + trips;
}

/* ---- Fences (X1, I4) ----------------------------------------------------------------------- */

static void end_call(struct feed_fence *fence, bool good)
{
    fence->bad = fence->bad || !good;
    if (--fence->open == 0) {
        fence->done(fence, !fence->bad);
    }
}

static void on_fill_pong(struct call *call, const struct reply_piece *piece)
{
    if (piece->last) {
        end_call(container_of(call, struct feed_fence, fill),
                 piece->first && (piece->type == '+' || MUTANT(X3)));
    }
}

/* What it vouched for is void already (C10). */
static void on_fill_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    end_call(container_of(call, struct feed_fence, fill), true);
}

static const struct call_ops FILL_OPS = {.reply = on_fill_pong, .lost = on_fill_lost};

/* Broadcast: the first PONG may have overtaken announcements of the server's same turn. */
static void on_link_pong(struct call *call, const struct reply_piece *piece)
{
    struct feed_fence *fence = container_of(call, struct feed_fence, link);
    struct host *host = fence->feed->host;
    bool good = piece->type != '-';
    if (!good || !fence->again) {
        end_call(fence, good);
        return;
    }
    fence->again = false;
    struct subscriber *link = host == NULL ? NULL : host_link(host);
    switch (link == NULL ? CONN_DOWN : subscriber_ping(link, &fence->link)) {
    case CONN_OK:
        return;
    case CONN_DOWN:
        end_call(fence, true);
        return;
    case CONN_NO_MEMORY:
        end_call(fence, false);
        return;
    }
}

static void on_link_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    end_call(container_of(call, struct feed_fence, link), true);
}

static const struct call_ops LINK_OPS = {.reply = on_link_pong, .lost = on_link_lost};

enum feed_fence_result feed_fence(struct feed *feed, struct feed_fence *fence)
{
    enum conn_status status[2] = {CONN_DOWN, CONN_DOWN};
    fence->feed = feed;
    fence->open = 0;
    fence->fill.ops = &FILL_OPS;
    fence->fill.replies = 1;
    fence->link.ops = &LINK_OPS;
    fence->again = feed->plan.mode == FEED_BROADCAST;
    if (owns_cover(feed) && fill_is_up(feed)) {
        status[0] = conn_submit(feed->conn, &fence->fill, PING_BYTES, NULL);
        fence->open += status[0] == CONN_OK;
    }
    struct subscriber *link = feed->host == NULL ? NULL : host_link(feed->host);
    if (link != NULL) {
        status[1] = subscriber_ping(link, &fence->link);
        fence->open += status[1] == CONN_OK;
    }
    fence->bad = status[0] == CONN_NO_MEMORY || status[1] == CONN_NO_MEMORY;
    if (fence->open > 0) {
        return FEED_FENCE_WAITS;
    }
    return fence->bad ? FEED_FENCE_FAILED : FEED_FENCE_DONE;
}

/* ---- Figures ------------------------------------------------------------------------------- */

void feed_stats(const struct feed *feed, struct feed_stats *out)
{
    const struct feed_counters *c = &feed->counters;
    out->state = (enum conn_state)atomic_load_explicit(&feed->state, memory_order_relaxed);
    out->refused = atomic_load_explicit(&feed->refused, memory_order_relaxed);
    out->invalidations = atomic_load_explicit(&c->invalidations, memory_order_relaxed);
    out->flushes = atomic_load_explicit(&c->flushes, memory_order_relaxed);
    out->lapses = atomic_load_explicit(&c->lapses, memory_order_relaxed);
    out->losses = atomic_load_explicit(&c->losses, memory_order_relaxed);
    out->refusals = atomic_load_explicit(&c->refusals, memory_order_relaxed);
    out->last_pong_ms = atomic_load_explicit(&feed->last_pong, memory_order_relaxed);
}
