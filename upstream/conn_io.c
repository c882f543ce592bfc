/* SPDX-License-Identifier: Apache-2.0
 *
 * conn_io.c: the bytes of a connection, out and in. Out: one write of what is queued, the rest
 * when the socket has room again. In: one read per readable event, framed at once, each reply to
 * the call at the head of the queue.
 *
 * Invariants: a call is off the queue before its last piece is delivered, and is not touched after.
 * A reply without a call that has been sent, at least in part, is the end of the link. The write
 * watcher is active only while the socket is full.
 *
 * Not here: how the link began and what its end means (conn_link.c).
 */
#include "upstream_priv.h"

#include <errno.h>
#include <stdio.h>

#define WRITES_PER_FLUSH 16 /* then the loop gets a turn, however fast the peer drains */
#define IOVS             64

/* ---- Writing ------------------------------------------------------------------------------- */

static void want_write(struct conn *conn, bool on)
{
    if (on && !ev_is_active(&conn->writable)) {
        ev_io_start(conn->options.loop, &conn->writable);
    } else if (!on && ev_is_active(&conn->writable)) {
        ev_io_stop(conn->options.loop, &conn->writable);
    }
}

/* The socket is broken for writing. What the server said before may still wait to be read: replies,
 * or why it hung up; the reader meets the end behind it in the next loop turn. Only a link that
 * vouches for L1 ends in this very step (C10). */
static void on_write_error(struct conn *conn, int error)
{
    if ((conn->state == CONN_UP && conn->options.vouches) ||
        (error != EPIPE && error != ECONNRESET && error != ETIMEDOUT)) {
        conn_give_up(conn, strerror(error));
        return;
    }
    conn->mute = true;
    want_write(conn, false);
}

/* One write of the first bytes of what is to go out; *offered is how many they are. */
static ssize_t offer(const struct conn *conn, size_t *offered)
{
    struct slice piece =
        conn->state == CONN_HANDSHAKE ? handshake_unsent(conn->handshake) : chain_piece(&conn->out);
    if (likely(piece.p != NULL)) { /* sendmsg costs the kernel more */
        *offered = piece.n;
        return send(conn->fd, piece.p, piece.n, MSG_NOSIGNAL);
    }
    struct iovec iov[IOVS];
    int n = chain_iov(&conn->out, iov, IOVS);
    *offered = 0;
    for (int i = 0; i < n; i++) {
        *offered += iov[i].iov_len;
    }
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)n};
    return sendmsg(conn->fd, &message, MSG_NOSIGNAL);
}

/* One write. Returns whether all that was offered went out. */
static bool write_some(struct conn *conn)
{
    size_t offered;
    ssize_t sent = offer(conn, &offered);
    if (sent < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
            want_write(conn, true);
        } else {
            on_write_error(conn, errno);
        }
        return false;
    }
    if (conn->state == CONN_HANDSHAKE) {
        handshake_sent(conn->handshake, (size_t)sent);
    } else {
        chain_consume(&conn->out, (size_t)sent);
    }
    if ((size_t)sent < offered) {
        want_write(conn, true);
        return false;
    }
    return true;
}

static size_t unsent_bytes(const struct conn *conn)
{
    return conn->state == CONN_HANDSHAKE ? handshake_unsent(conn->handshake).n : conn->out.bytes;
}

/* In HANDSHAKE: the handshake's bytes. In UP: the calls'. */
void conn_write_out(struct conn *conn)
{
    for (int i = 0; i < WRITES_PER_FLUSH && unsent_bytes(conn) > 0; i++) {
        if (!write_some(conn)) {
            return;
        }
    }
    want_write(conn, unsent_bytes(conn) > 0);
}

void conn_on_writable(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    (void)revents;
    struct conn *conn = container_of(w, struct conn, writable);
    bug_on(conn->magic != CONN_MAGIC);
    if (conn->state == CONN_CONNECTING) {
        conn_finish_connect(conn);
    } else {
        /* The socket was full and has room again: the peer takes in what we send, however long it
         * may be silent over a large value. */
        conn->last_alive = conn->options.now();
        conn_write_out(conn);
    }
}

/* ---- Reading ------------------------------------------------------------------------------- */

static void on_piece(void *ctx, const struct reply_piece *piece)
{
    struct conn *conn = ctx;
    bug_on(conn->magic != CONN_MAGIC);
    if (conn->given_up) {
        return;
    }
    if (unlikely(piece->type == '-') && piece->first && piece->bytes.n > 1 &&
        node_text_is_occupied(slice_of(piece->bytes.p + 1, piece->bytes.n - 1))) {
        node_note_occupied(conn->options.node, conn->last_alive);
    }
    if (conn->state == CONN_HANDSHAKE) {
        conn_handshake_piece(conn, piece);
        return;
    }
    if (conn->events->stray == NULL || !conn->events->stray(conn, piece, conn->options.ctx)) {
        conn_answer(conn, piece);
    }
}

/* The call at the head has been answered in full, but for being told. True: before all of it was sent. Redis
 * answers so when it gives up on a command in its middle ("invalid bulk length"). The text belongs to the call, but
 * nothing that follows could be told apart. */
static bool take_off(struct conn *conn, struct call *call)
{
    conn->head = call->next;
    if (conn->head == NULL) {
        conn->tail = NULL;
    }
    conn->pending--;
    conn->answered = call->end_offset;
    call->next = NULL;
    return conn->answered > conn_bytes_sent(conn);
}

/* A reply has been told, or several. What comes next may be of a call that takes many at a time. */
static void go_on(struct conn *conn, bool early)
{
    struct call *call = conn->head;
    if (early) {
        conn_give_up(conn, "protocol error: a reply before its command was sent");
    } else if (call != NULL && call->ops->run != NULL && conn->events->stray == NULL &&
               conn->answered < conn_bytes_sent(conn)) {
        framer_take_run(conn->framer, call->replies);
    }
}

void conn_answer(struct conn *conn, const struct reply_piece *piece)
{
    struct call *call = conn->head;
    if (conn->given_up) {
        return;
    }
    if (call == NULL || conn->answered >= conn_bytes_sent(conn)) {
        conn_give_up(conn, "protocol error: a reply nobody asked for");
        return;
    }
    if (!piece->last) {
        call->ops->reply(call, piece);
        return;
    }
    bool early = --call->replies == 0 && take_off(conn, call);
    call->ops->reply(call, piece);
    go_on(conn, early);
}

static void on_run(void *ctx, const struct reply_run *run)
{
    struct conn *conn = ctx;
    struct call *call = conn->head;
    if (conn->given_up) {
        return;
    }
    call->replies -= run->n;
    bool early = call->replies == 0 && take_off(conn, call);
    call->ops->run(call, run);
    go_on(conn, early);
}

static void on_push(void *ctx, const struct push *push)
{
    struct conn *conn = ctx;
    bug_on(conn->magic != CONN_MAGIC);
    if (!conn->given_up && conn->state == CONN_UP && conn->events->push != NULL) {
        conn->events->push(conn, push, conn->options.ctx);
    }
}

void conn_hold(struct conn *conn, bool on)
{
    if (conn->state != CONN_UP || conn->held == on) {
        return;
    }
    conn->held = on;
    if (on) {
        ev_io_stop(conn->options.loop, &conn->readable);
    } else {
        ev_io_start(conn->options.loop, &conn->readable);
    }
}

/* The peer is gone; error is 0 for an orderly end. */
static void on_end(struct conn *conn, int error)
{
    if (conn->state == CONN_HANDSHAKE && handshake_step(conn->handshake)[0] != '\0') {
        conn_refuse(conn);
        return;
    }
    if (error != 0) {
        conn_give_up(conn, strerror(error));
    } else if (framer_is_inside(conn->framer)) {
        conn_give_up(conn, "closed by the server in the middle of a reply");
    } else {
        conn_give_up(conn, "closed by the server");
    }
}

static void feed_framer(struct conn *conn, struct slice bytes)
{
    bool was_up = conn->state == CONN_UP;
    conn->feeding = true;
    bool good = framer_feed(conn->framer, bytes, &conn->given_up);
    if (conn->head != NULL && conn->head->ops->pause != NULL) {
        conn->head->ops->pause(conn->head);
    }
    conn->feeding = false;
    if (conn->given_up) {
        conn_give_up(conn, conn->reason);
    } else if (!good) {
        char why[ERR_MAX];
        (void)snprintf(why, sizeof(why), "protocol error: %s", framer_error(conn->framer));
        conn_give_up(conn, why);
    } else if (!was_up) {
        /* What waited for the link goes out with it, not with the next turn. */
        conn_flush(conn);
    }
}

void conn_on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
    (void)loop;
    (void)revents;
    struct conn *conn = container_of(w, struct conn, readable);
    bug_on(conn->magic != CONN_MAGIC);
    ssize_t n = recv(conn->fd, conn->options.read_buffer, conn->options.read_size, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        on_end(conn, n == 0 ? 0 : errno);
        return;
    }
    conn->last_alive = conn->options.now();
    node_heard(conn->options.node, conn->last_alive);
    if (conn->state == CONN_UP) {
        node_answered(conn->options.node, conn->last_alive);
    }
    feed_framer(conn, slice_of(conn->options.read_buffer, (size_t)n));
}

const struct framer_ops CONN_FRAMER_OPS = {.piece = on_piece, .push = on_push, .run = on_run};
