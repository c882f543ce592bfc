/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream_priv.h: what the files of this folder share and nobody else may use. A connection is one
 * struct in three files: conn.c is what its owner calls, conn_link.c brings the link up and takes
 * it down, conn_io.c moves bytes and hands replies to their calls. The bring-up itself
 * (conn_handshake.c) is a machine without a socket.
 */
#pragma once

#include "conn.h"

#include "../conf/log.h"
#include "../resp/chain.h"

/* ---- The bring-up (conn_handshake.c) ------------------------------------------------------- */

/* The bring-up of one link: knows which bytes to send and what the replies mean; conn.c moves them.
 * Wipes the password from its memory as soon as it is sent, and all of it at the end. */
struct handshake;

/* NULL with *err filled when there are no credentials to be had. */
struct handshake *handshake_create(const struct conn_options *options, char err[ERR_MAX]);
/* Accepts NULL. */
void handshake_destroy(struct handshake *h);

/* The bytes that are still to be sent, and how many of them now have been. */
struct slice handshake_unsent(const struct handshake *h);
void handshake_sent(struct handshake *h, size_t n);

enum handshake_result {
    HANDSHAKE_MORE,
    HANDSHAKE_DONE,    /* the link may be used, in handshake_generation */
    HANDSHAKE_REFUSED, /* handshake_step was answered with handshake_text */
};

/* The next piece of the server's replies. Tells the node who answers (node_identify) as soon as
 * that is known. Nothing may follow DONE and REFUSED. */
MUST_CHECK enum handshake_result handshake_piece(struct handshake *h,
                                                 const struct reply_piece *piece);

uint64_t handshake_generation(const struct handshake *h);
/* What CLIENT ID answered, or 0. */
int64_t handshake_peer_id(const struct handshake *h);
/* The step answered last, if that was with an error, even a tolerated one ("" otherwise), and its
 * text, without anything of the password. A server that hangs up now meant that one. */
const char *handshake_step(const struct handshake *h);
const char *handshake_text(const struct handshake *h);

/* ---- A connection -------------------------------------------------------------------------- */

#define CONN_MAGIC          0x6e636f6eu
#define CONN_BACKOFF_MIN_MS 10

/* Calls wait in a FIFO, in the order of their bytes in `out`. Positions count the bytes queued
 * since the link was started:
 *
 *         answered            sent = queued - out.bytes                queued
 *   ─────────┼─ head ─┼─ call ───┼─── call ─┼─ call ─┼─ tail ─┼───────────┤
 *
 * A call that begins before `sent` has had bytes on the socket, any other has not. */
struct conn {
    unsigned magic;
    enum conn_state state;
    int fd;
    uint16_t port; /* own_ports.h */
    bool hopeful;  /* the first attempt after open or a loss: calls may wait for its end */
    bool feeding;  /* inside framer_feed */
    bool given_up; /* lose as soon as the feeding ends; *stop of framer_feed */
    bool mute;     /* the socket refused our bytes; its last words are still to be read */
    bool held;     /* not read for the time being (conn_hold) */
    struct conn_options options;
    const struct conn_events *events; /* never NULL */
    struct framer *framer;
    struct handshake *handshake; /* in HANDSHAKE */
    ev_io readable;
    ev_io writable; /* active only while connecting or while the socket is full */
    ev_timer retry; /* in BACKOFF; in CONNECTING while the name is being looked up */

    struct chain out;
    uint64_t queued;   /* see the picture above */
    uint64_t answered; /* where the newest answered call ended */
    struct call *head;
    struct call *tail;
    size_t pending;

    uint64_t era;            /* node_era when this attempt began */
    uint64_t generation;     /* of the node, as this link saw it (C3) */
    int64_t peer_id;         /* conn_peer_id */
    unsigned address;        /* which of the node's addresses: kept while it works */
    unsigned addresses_left; /* to try in this attempt */
    int64_t backoff_ms;
    int64_t slow_ms; /* conn_retry_slowly's bound for the next back-off, or 0 */
    uint64_t random;

    int64_t attempt_began, attempt_failed; /* the last of each; 0: none */
    int64_t deadline;                      /* of CONNECTING and HANDSHAKE; 0: none */
    int64_t up_since;
    int64_t last_alive;  /* bytes came, or room for more of ours */
    int64_t quiet_since; /* last tick with nothing owed, or after a standstill of ours */
    int64_t passed_over; /* in the middle of a reply: when the node was seen to answer others; 0 */
    int64_t last_tick;
    int64_t handshake_sent; /* when */

    bool down_logged; /* the last line said that it is down: say when it is back */
    struct log_limit lost_log;
    struct log_limit failed_log;
    const char *refused;  /* step of the refusal that ends this link; NULL: another reason */
    bool was_refused;     /* the last attempt ended so; until one succeeds */
    char reason[ERR_MAX]; /* for given_up */
    char error[ERR_MAX];
};

static inline uint64_t conn_bytes_sent(const struct conn *conn)
{
    return conn->queued - conn->out.bytes;
}

/* Does the link lead to the server process that the node stands for now? */
static inline bool conn_is_current(const struct conn *conn)
{
    return conn->generation == node_generation(conn->options.node);
}

/* Does this attempt lead to where the node is now? */
static inline bool conn_is_there(const struct conn *conn)
{
    return conn->era == node_era(conn->options.node);
}

/* Why it is not current. */
const char *conn_why_not_current(const struct conn *conn);

/* The calls of a link that is no more. */
struct lost_calls {
    struct call *head;
    size_t n;
    uint64_t start; /* where the first begins */
    uint64_t sent;
};

/* conn.c */

/* First half of conn_destroy: closes for good. Its calls are the caller's to tell. */
struct lost_calls conn_shut(struct conn *conn);

/* conn_link.c */

/* A first attempt over all addresses. */
void conn_start_attempt(struct conn *conn);
/* In BACKOFF: may the next attempt be made before its time? */
bool conn_may_try_early(const struct conn *conn);
/* In BACKOFF: makes it, from the loop. Calls may wait for its end. */
void conn_try_early(struct conn *conn);
/* The current address did not answer: tries the next, or fails the attempt because of `why`. */
void conn_next_address(struct conn *conn, const char *why);
/* The link is gone, now, or as soon as the framer has let go: resets everything, tells the owner
 * and the calls, and sees to the next attempt. */
void conn_give_up(struct conn *conn, const char *why);
/* The socket became writable in CONNECTING. */
void conn_finish_connect(struct conn *conn);
/* Pieces in HANDSHAKE. */
void conn_handshake_piece(struct conn *conn, const struct reply_piece *piece);
/* Ends the bring-up with what the server said against it. */
void conn_refuse(struct conn *conn);
/* Takes all calls off and closes the socket; lost_calls_tell is next. */
struct lost_calls conn_take_down(struct conn *conn);
void lost_calls_tell(struct lost_calls lost);
void conn_set_state(struct conn *conn, enum conn_state state);
/* A watcher's callback. */
void conn_on_retry(struct ev_loop *loop, ev_timer *w, int revents);

/* conn_io.c */

/* Writes what the state has to say: the handshake, or the calls' bytes. */
void conn_write_out(struct conn *conn);
extern const struct framer_ops CONN_FRAMER_OPS;
void conn_on_readable(struct ev_loop *loop, ev_io *w, int revents);
void conn_on_writable(struct ev_loop *loop, ev_io *w, int revents);
