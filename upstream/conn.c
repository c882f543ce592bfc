/* SPDX-License-Identifier: Apache-2.0
 *
 * conn.c: a pipelined connection to a node as its owner sees it: submitting, deadlines, life and
 * questions. conn_link.c keeps bringing the link up, conn_io.c moves the bytes, and struct conn
 * with the picture of its queue is in upstream_priv.h.
 *
 * Invariants: nothing here calls back except conn_flush, conn_tick, conn_fail and conn_destroy.
 * What is accepted has its bytes in `out` and its call in the FIFO, or neither.
 *
 * Threads: the worker's only. Not here: deadlines of single requests.
 */
#include "upstream_priv.h"

#include "../conf/mem.h"

#include <stdio.h>

#define STALL_MS     1000 /* so long without a tick: the process stood still */
#define SUSPECT_PART 4    /* of dead_after: silent for so long, a node is suspect */
#define SILENT_MS    50   /* so long without an answer to anybody: occupied, it may be */

/* ---- Submitting ---------------------------------------------------------------------------- */

/* It owes nothing and has not found out yet that the node is dead: others have. A client's own
 * connection stays, its session may be worth more. */
static bool is_to_be_closed(const struct conn *conn)
{
    return conn->pending == 0 && !conn->options.quiet && node_is_mute(conn->options.node);
}

bool conn_accepts(const struct conn *conn)
{
    if (conn->given_up) {
        return false;
    }
    if (conn->state == CONN_UP) {
        return conn_is_current(conn) && !is_to_be_closed(conn);
    }
    return conn->state != CONN_IDLE &&
           (conn->hopeful || (conn->state == CONN_BACKOFF && conn_may_try_early(conn)));
}

static bool queue_bytes(struct conn *conn, struct slice bytes, struct blob *blob)
{
    if (blob == NULL || bytes.n < CHAIN_REF_MIN) {
        return chain_append(&conn->out, bytes);
    }
    size_t off = (size_t)(bytes.p - blob->p);
    bug_on(bytes.p < blob->p || off > blob->n || bytes.n > blob->n - off);
    return chain_append_blob(&conn->out, blob, off, bytes.n);
}

/* What the server is saying would be taken for the beginning. */
static bool can_be_endless(const struct conn *conn)
{
    return conn->pending == 0 && (conn->state != CONN_UP || !framer_is_inside(conn->framer));
}

enum conn_status conn_submit(struct conn *conn, struct call *call, struct slice bytes,
                             struct blob *blob)
{
    bug_on(call->replies == 0 || bytes.n == 0);
    if (unlikely(conn->state == CONN_UP && !conn_is_current(conn)) && conn->pending == 0 &&
        conn->events->lost == NULL && !conn->feeding) {
        conn_flush(conn); /* another thread has found out a moment ago, and nobody is to be told */
    }
    if (!conn_accepts(conn) || (unlikely(call->endless) && !can_be_endless(conn))) {
        return CONN_DOWN;
    }
    if (conn->state == CONN_BACKOFF && !conn->hopeful) {
        conn_try_early(conn);
    }
    if (!queue_bytes(conn, bytes, blob)) {
        return CONN_NO_MEMORY;
    }
    conn->queued += bytes.n;
    call->end_offset = conn->queued;
    call->next = NULL;
    if (conn->tail == NULL) {
        conn->head = call;
    } else {
        conn->tail->next = call;
    }
    conn->tail = call;
    conn->pending++;
    if (unlikely(call->endless) && conn->state == CONN_UP) {
        framer_expect_endless(conn->framer);
    }
    return CONN_OK;
}

bool conn_send(struct conn *conn, struct slice bytes)
{
    if (conn->state != CONN_UP || !queue_bytes(conn, bytes, NULL)) {
        return false;
    }
    conn->queued += bytes.n;
    return true;
}

void conn_stand_in(struct conn *conn, struct call *(*stand_in)(struct call *call, void *ctx),
                   void *ctx)
{
    struct call *last = NULL;
    for (struct call **link = &conn->head; *link != NULL; link = &(*link)->next) {
        struct call *old = *link;
        struct call *new = stand_in(old, ctx);
        if (new != old) {
            new->replies = old->replies;
            new->end_offset = old->end_offset;
            new->next = old->next;
            *link = new;
        }
        last = new;
    }
    conn->tail = last;
}

void conn_flush(struct conn *conn)
{
    if (conn->state != CONN_UP || conn->given_up) {
        return;
    }
    if (!conn_is_current(conn)) {
        conn_give_up(conn, conn_why_not_current(conn));
        return;
    }
    if (conn->out.bytes > 0 && !conn->mute && !ev_is_active(&conn->writable)) {
        conn_write_out(conn);
    }
}

/* ---- Deadlines ----------------------------------------------------------------------------- */

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* D11: a slow answer is no reason to fail everybody's commands; a silent node is. */
static bool is_node_dead(const struct conn *conn, int64_t now)
{
    struct node *node = conn->options.node;
    int64_t limit = node_options(node)->dead_after_ms;
    int64_t here = later(conn->last_alive, conn->quiet_since);
    int64_t anywhere = later(node_last_heard(node), conn->quiet_since);
    int64_t silence = now - later(here, anywhere);
    if (silence > limit / SUSPECT_PART) {
        node_silence(node, silence > limit, now);
    }
    return silence > limit;
}

/* It owes, and says nothing to anybody: it may be at something that takes long. */
static bool is_node_silent(const struct conn *conn, int64_t now)
{
    int64_t here = later(conn->last_alive, conn->quiet_since);
    return now - later(here, node_last_heard(conn->options.node)) >= SILENT_MS;
}

int64_t conn_moved(const struct conn *conn)
{
    return later(conn->last_alive, conn->quiet_since);
}

int64_t conn_overdue(const struct conn *conn, int64_t now)
{
    int64_t since = later(conn->last_alive, conn->quiet_since);
    bool heard = node_last_heard(conn->options.node) - since >= (now - since) / 2;
    return conn->state == CONN_UP && conn->pending > 0 && heard ? now - since : 0;
}

/* Half a reply is here, and the rest does not come although the server has gone on to answer others. It
 * sends what it has as fast as it is taken, so that nothing comes through here any more. */
static bool is_cut_off(struct conn *conn, int64_t now)
{
    int64_t here = later(conn->last_alive, conn->quiet_since);
    if (!framer_is_inside(conn->framer) || (conn->head != NULL && conn->head->endless) ||
        node_last_heard(conn->options.node) <= here) {
        conn->passed_over = 0;
        return false;
    }
    if (conn->passed_over <= here) {
        conn->passed_over = now;
    }
    return now - conn->passed_over > node_options(conn->options.node)->dead_after_ms;
}

/* And is read. */
static bool owes(const struct conn *conn)
{
    return conn->pending > 0 && !conn->held;
}

static void tick_up(struct conn *conn, int64_t now)
{
    if (!conn_is_current(conn)) {
        conn_give_up(conn, conn_why_not_current(conn));
    } else if (is_to_be_closed(conn) || (owes(conn) && is_node_dead(conn, now))) {
        conn_give_up(conn, "the node is dead: it owes replies and says nothing");
    } else if (!owes(conn)) {
        conn->quiet_since = now;
    } else if (is_node_silent(conn, now)) {
        node_note_occupied(conn->options.node, now);
    } else if (is_cut_off(conn, now)) {
        conn_give_up(conn, "half a reply came, and no more");
    }
}

/* A server that has answered others lately may be busy: a new connection waits its turn, as a client of
 * its own would, but not longer than until the node counts as dead. */
static bool may_be_busy(const struct conn *conn, int64_t now)
{
    int64_t limit = node_options(conn->options.node)->dead_after_ms;
    return conn->state == CONN_HANDSHAKE && now - conn->handshake_sent < limit &&
           now - node_last_heard(conn->options.node) < limit;
}

/* What was begun towards where the node is no longer: at once towards where it is. */
static void follow(struct conn *conn)
{
    if (conn->state == CONN_BACKOFF) {
        conn_try_early(conn);
    } else {
        conn_give_up(conn, conn_why_not_current(conn));
    }
}

void conn_tick(struct conn *conn, int64_t now)
{
    if (conn->last_tick != 0 && now - conn->last_tick > STALL_MS) {
        conn->quiet_since = now;
        if (conn->deadline != 0) {
            conn->deadline += now - conn->last_tick;
        }
    }
    conn->last_tick = now;
    if (conn->state == CONN_UP) {
        tick_up(conn, now);
    } else if (conn->state != CONN_IDLE && !conn_is_there(conn)) {
        follow(conn);
    } else if (conn->state == CONN_BACKOFF && conn_may_try_early(conn) &&
               node_last_heard(conn->options.node) > conn->attempt_failed) {
        conn_try_early(conn); /* it has answered somebody since */
    } else if (conn->deadline != 0 && now >= conn->deadline && !may_be_busy(conn, now)) {
        if (conn->state == CONN_CONNECTING) {
            conn_next_address(conn, conn->fd < 0 ? "the host name is not resolved yet"
                                                 : "connecting took too long");
        } else {
            conn_give_up(conn, "the server did not answer the handshake in time");
        }
    }
}

/* ---- Life ---------------------------------------------------------------------------------- */

static const struct conn_events NO_EVENTS = {0};

struct conn *conn_create(const struct conn_options *options)
{
    struct conn *conn = mem_zalloc(sizeof(*conn));
    conn->magic = CONN_MAGIC;
    conn->fd = -1;
    conn->options = *options;
    conn->options.vouches = options->vouches || options->tracking;
    conn->events = options->events != NULL ? options->events : &NO_EVENTS;
    conn->framer = framer_create(&CONN_FRAMER_OPS, conn);
    /* Odd, hence not the zero that xorshift never leaves. */
    conn->random = ((uint64_t)(uintptr_t)conn * 0x9e3779b97f4a7c15u) ^ (uint64_t)options->now();
    conn->random |= 1;
    chain_init(&conn->out);
    ev_io_init(&conn->readable, conn_on_readable, -1, EV_READ);
    ev_io_init(&conn->writable, conn_on_writable, -1, EV_WRITE);
    ev_timer_init(&conn->retry, conn_on_retry, 0., 0.);
    ev_set_priority(&conn->readable, options->priority);
    ev_set_priority(&conn->writable, options->priority);
    return conn;
}

struct lost_calls conn_shut(struct conn *conn)
{
    bug_on(conn->feeding);
    struct lost_calls lost = conn_take_down(conn);
    conn->hopeful = false;
    conn_set_state(conn, CONN_IDLE);
    return lost;
}

void conn_destroy(struct conn *conn)
{
    if (conn == NULL) {
        return;
    }
    bug_on(conn->magic != CONN_MAGIC);
    lost_calls_tell(conn_shut(conn));
    framer_destroy(conn->framer);
    conn->magic = 0;
    mem_free(conn);
}

void conn_open(struct conn *conn)
{
    if (conn->state != CONN_IDLE) {
        return;
    }
    conn->hopeful = !node_is_mute(conn->options.node);
    if (!conn->hopeful) {
        struct health health;
        node_health(conn->options.node, &health);
        (void)snprintf(conn->error, sizeof(conn->error), "%s", health.why);
    }
    conn->backoff_ms = CONN_BACKOFF_MIN_MS;
    conn_start_attempt(conn);
}

void conn_fail(struct conn *conn, const char *why)
{
    if (conn->state == CONN_UP || conn->state == CONN_HANDSHAKE) {
        conn_give_up(conn, why);
    }
}

void conn_retry_slowly(struct conn *conn, int64_t longest_ms)
{
    conn->slow_ms = longest_ms;
}

enum conn_state conn_state(const struct conn *conn)
{
    return conn->state;
}

int64_t conn_handshake_sent(const struct conn *conn)
{
    return conn->handshake_sent;
}

int64_t conn_peer_id(const struct conn *conn)
{
    return conn->state == CONN_UP ? conn->peer_id : 0;
}

size_t conn_queued_bytes(const struct conn *conn)
{
    return conn->out.bytes;
}

size_t conn_pending(const struct conn *conn)
{
    return conn->pending;
}

const char *conn_error(const struct conn *conn)
{
    return conn->error;
}

bool conn_is_refused(const struct conn *conn)
{
    return conn->was_refused;
}
