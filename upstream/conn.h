/* SPDX-License-Identifier: Apache-2.0
 *
 * conn.h: one pipelined connection of one worker to one node, on a socket of our own.
 *
 *            open            connected          all replies good
 *   IDLE ─────────► CONNECTING ─────► HANDSHAKE ─────────────► UP
 *                      ▲  │ fails        │ refused, lost        │ lost
 *                      │  ▼              ▼                      ▼
 *                      └─ BACKOFF ◄──────┴──────────────────────┘      (10 ms .. 1 s, with jitter;
 *                                                                      none after a loss from UP)
 * A connection reconnects by itself until it is destroyed. Calls are accepted while UP, and while
 * the first attempt after open or after a loss from UP is under way (they wait and leave behind the
 * handshake; lost when it fails); otherwise conn_submit says CONN_DOWN at once and the caller
 * answers with an error. A call may also cut a back-off short, ten times a second at most, if the
 * attempt before failed at once: nobody is to be told that a server is down which is back. One attempt tries every address of the node. A link that was up for less
 * than a second waits out the back-off before that first attempt, with its calls: a server that
 * hangs up on everybody must not make us spin.
 *
 * Handshake, pipelined and awaited: AUTH or HELLO 3 with AUTH, SELECT, READONLY where that is wanted,
 * CLIENT TRACKING ON for a tracked connection, INFO server (run_id, C3), PING. Refused = the server answered a step with an
 * error; CLIENT NO-EVICT, CLIENT ID and INFO may be answered with one, and on an untracked
 * connection PING too if it says why commands are not executed (BUSY, LOADING, MASTERDOWN, NOPERM,
 * NOAUTH): clients are to hear it.
 *
 * Generation (C3): a connection whose node turned out to be another server process accepts nothing
 * any more and fails itself at the next flush or tick; or at the next submit, which then waits for the
 * new link, if it owes nothing and its loss is nobody's business.
 *
 * Everything happens on the worker's thread. No callback runs from inside conn_submit.
 */
#pragma once

#include "frame.h"
#include "node.h"
#include "own_ports.h"

#include <ev.h>

struct conn;
struct call;

/* Why a call ended without its reply. */
enum call_loss {
    LOSS_UNSENT, /* no byte of it reached the socket: certainly not executed */
    LOSS_SENT,   /* sent, or partly: executed or not, nobody knows */
};

struct call_ops {
    /* A piece of the reply. When the last piece of the last reply has been delivered the connection
     * has forgotten the call, which may be freed. */
    void (*reply)(struct call *call, const struct reply_piece *piece);
    /* Exactly once instead of (the rest of) the replies; the connection has forgotten the call. */
    void (*lost)(struct call *call, enum call_loss loss);
    /* Optional: as so many times `reply`, for replies that lie behind each other whole, none of them nested or an error. */
    void (*run)(struct call *call, const struct reply_run *run);
    /* Optional, for the call at the head: what was read is about to go, and with it the pieces that were
     * delivered, if there were any. */
    void (*pause)(struct call *call);
};

/* One command, or several that belong together, awaiting `replies` replies in order. Embedded in
 * what it serves, which must outlive it (a request whose client left stays behind as a ghost). */
struct call {
    const struct call_ops *ops;
    uint32_t replies; /* still owed; counted down by the connection */
    bool
        endless; /* what answers it, unless that is an error, never ends and is no RESP: all of it comes in
                       * pieces, none of them the last. CONN_DOWN while something is unanswered or arriving. */
    struct call *next;
    uint64_t end_offset; /* private: output position behind its last byte */
};

enum conn_state { CONN_IDLE, CONN_CONNECTING, CONN_HANDSHAKE, CONN_UP, CONN_BACKOFF };

/* The owner's view; called from the loop's callbacks, conn_fail, conn_flush and conn_tick, never
 * from inside conn_submit. They may submit and conn_fail, not destroy. Each is optional. */
struct conn_events {
    void (*up)(struct conn *conn, void *ctx);   /* before waiting calls are sent */
    void (*lost)(struct conn *conn, void *ctx); /* was up; before its calls are told (C10) */
    /* The server refused a handshake step ("AUTH", "HELLO", "CLIENT TRACKING", ...) with `text`,
     * which is conn_error too. It is tried again with back-off. Who sets this writes the log line.
     * */
    void (*refused)(struct conn *conn, const char *step, const char *text, void *ctx);
    void (*push)(struct conn *conn, const struct push *push, void *ctx);
    /* Offered every piece of a reply before the call at the head of the queue gets it. True: it was
     * something else (a message to a subscriber), or is kept until that is known; conn_answer hands
     * it on later. */
    bool (*stray)(struct conn *conn, const struct reply_piece *piece, void *ctx);
};

struct conn_options {
    struct ev_loop *loop;
    struct node *node;
    const char *role;  /* "fill", "lane", "bulk": for logs */
    enum port_use use; /* for MONITOR; not set: PORT_UPKEEP */
    uint32_t db;
    bool resp3;
    bool readonly;    /* the node is a replica in a cluster, and that will do (READONLY) */
    bool tracking;    /* implies resp3, unless it is redirected */
    int64_t redirect; /* with tracking: the client that gets its messages; 0: it gets pushes */
    bool vouches;     /* L1 relies on it (implied by tracking): a write that fails ends it in that
                         very step (C10) */
    bool quiet;       /* one of many: coming up is not worth a line in the log */
    bool asks_id;     /* its client id at the server is wanted (conn_peer_id) */
    int priority;     /* of its watchers: fill connections are read first (M5) */
    int64_t (*now)(void); /* ms, CLOCK_BOOTTIME */
    char *read_buffer;    /* shared by all connections of the worker */
    size_t read_size;
    const struct conn_events *events; /* NULL: none */
    void *ctx;
};

/* Copies the options; what they point to must outlive the connection. */
struct conn *conn_create(const struct conn_options *options);
/* Ends its calls as lost; no event. Accepts NULL. Not from inside a callback of this connection. */
void conn_destroy(struct conn *conn);

/* Starts connecting if IDLE. Calls are not accepted meanwhile if the node is DOWN and those who connect
 * to it wait in vain. */
void conn_open(struct conn *conn);
/* Gives the connection up (protocol trouble seen by the owner, no PONG): as if the peer had closed;
 * reconnects. `why` goes to the log. Ignored unless UP or HANDSHAKE. */
void conn_fail(struct conn *conn, const char *why);
/* From inside `refused`: trying again soon is pointless, so the back-off before the next attempt
 * may grow to longest_ms instead of 1 s. Holds for that refusal only. */
void conn_retry_slowly(struct conn *conn, int64_t longest_ms);

enum conn_status { CONN_OK, CONN_DOWN, CONN_NO_MEMORY };

/* Queues the command's bytes (copied) and its call. With `blob` bytes must lie within it, and large
 * ones are referenced instead. Sent by the next conn_flush. */
MUST_CHECK enum conn_status conn_submit(struct conn *conn, struct call *call, struct slice bytes,
                                        struct blob *blob);

/* Queues bytes that nothing answers, behind a call that is `endless`. False: not up, or memory is out. */
MUST_CHECK bool conn_send(struct conn *conn, struct slice bytes);

/* The piece belongs to the call at the head of the queue. For the owner's `stray` and `push`, with
 * pieces those have seen. Without such a call the link is given up. */
void conn_answer(struct conn *conn, const struct reply_piece *piece);

/* Reads nothing while `on`: the one client of this connection does not take what it has. Ends with
 * the link; the silence is not held against the node. Bytes that were read already still come. */
void conn_hold(struct conn *conn, bool on);

/* Offers each call that awaits a reply, oldest first, to `stand_in`, which returns it, or another call
 * that takes its place: that one gets the reply, and the old one is forgotten. */
void conn_stand_in(struct conn *conn, struct call *(*stand_in)(struct call *call, void *ctx),
                   void *ctx);

/* Writes what is queued, as far as the socket takes it. The worker calls it once per loop turn. May
 * find the link lost and then runs callbacks. */
void conn_flush(struct conn *conn);

/* Checks deadlines (connect, handshake, dead node: D11) and the generation; the worker calls it
 * every 50..100 ms. A gap of more than a second between two ticks means that this process stood
 * still: the silence of that time is nobody's fault and is not counted. */
void conn_tick(struct conn *conn, int64_t now);

/* For how long (ms) it has owed replies and not moved a byte, although the node answered others
 * meanwhile: what is at its head keeps it waiting. 0: it has not. */
int64_t conn_overdue(const struct conn *conn, int64_t now);

/* When it last moved a byte, or was last seen to owe nothing; ms, to the tick. */
int64_t conn_moved(const struct conn *conn);

enum conn_state conn_state(const struct conn *conn);
/* Would conn_submit accept now? */
bool conn_accepts(const struct conn *conn);
/* When the handshake of this link, and the PING at its end, was handed to the socket: a moment at
 * which the link was certainly young enough for what the PONG proves (C6). 0 before the first. */
int64_t conn_handshake_sent(const struct conn *conn);
/* What CLIENT ID says at the server; 0: not asked for, refused, or not up yet. */
int64_t conn_peer_id(const struct conn *conn);
/* Unsent bytes and unanswered calls: what back-pressure goes by. */
size_t conn_queued_bytes(const struct conn *conn);
size_t conn_pending(const struct conn *conn);
/* The last reason why it was not up ("Connection refused", or the server's own text when it refused
 * the handshake); "" when it never failed. Valid until the next failure. */
const char *conn_error(const struct conn *conn);
/* Was that the server's own text, because it refused the handshake? */
bool conn_is_refused(const struct conn *conn);
