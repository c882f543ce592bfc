/* SPDX-License-Identifier: Apache-2.0
 *
 * client.h: one client's socket: its unparsed input, its queue of requests in order, its output.
 * Worker's thread only.
 *
 *            QUIT, EOF, protocol error, drain         all answered and written
 *   OPEN ───────────────────────────────► ENDING ───────────────────────────► CLOSED
 *     └──────────────── socket error, a limit, half a reply lost ─────────────────┘
 * OPEN reads and serves. ENDING reads no more but owes replies. CLOSED is out of every list but
 * worker->dead and is freed at the end of the turn.
 *
 * Bounds (D15): proxy.window unanswered requests (then input waits, without an error),
 * proxy.max_query, proxy.max_output, proxy.stalled_output, proxy.max_client_memory.
 */
#pragma once

#include "request.h"
#include "route.h"

struct fanout;
struct standins;

enum client_state { CLIENT_OPEN, CLIENT_ENDING, CLIENT_CLOSED };

/* What CLIENT SETNAME, SETINFO and CAPA said; few clients have one. Strings are owned. */
struct client_profile {
    struct blob *name;
    struct blob *lib_name;
    struct blob *lib_ver;
    struct blob *user;     /* of Redis's own, that it is; NULL: whoever Nearside is */
    struct blob *password; /* in a cluster: what that said, for further nodes */
    bool redirects;        /* it can be redirected (CLIENT CAPA) */
};

/* There are many: flags are bits, and nothing is kept twice. */
struct client {
    struct worker *worker;
    struct ev_io io; /* io.fd: its socket, or -1; io.data: the fanout of a part */
    uint64_t id;

    enum client_state state : 2;
    bool is_part : 1;        /* it has no socket and serves a part of a command (client_fanout) */
    bool stalled : 1;        /* input waits for an answer to an earlier request, or for room */
    bool stalled_large : 1;  /* and it is large: not looked at before everything is answered */
    bool stalled_output : 1; /* or it has produced much output, and is to take some of it first */
    bool shared : 1;         /* or it has had its share of this turn */
    bool switching : 1;      /* a request that `holds` is unanswered: what follows waits */
    bool resp3 : 1;          /* HELLO 3 */
    bool authenticated : 1;  /* or nothing is asked for */
    bool anonymous : 1; /* Redis asked for a login when it came, and it has not had one (login.h) */
    bool replies_off : 1, skips_next : 1, skips_this : 1; /* CLIENT REPLY; this: being served */
    bool no_evict : 1, no_touch : 1;    /* said by it, shown to it, without effect */
    bool reads : 1;                     /* the watcher waits for input, */
    bool wants_write : 1;               /* for room to write */
    bool is_dirty : 1, is_runnable : 1; /* in the worker's queue of that name */
    bool scattered : 1;   /* what is unanswered may be on several nodes; otherwise on `node` */
    bool has_barrier : 1; /* or had one when that was last looked at */
    bool missed : 1;      /* L1 had not what its last GET asked for */
    bool ordered : 1;     /* what it has unanswered is in worker->order (order.h) */
    bool reads_back : 1;  /* a key behind its own write, unanswered: SETs are kept (echo.h) */
    bool replicates : 1;  /* what it gets is a stream without end, and no replies (replication.h) */
    bool any_db : 1;      /* nobody knows in which db its own connection is (pinned_chose_db) */
    /* the session as the requests so far will leave it (session.c) */
    bool expects_multi : 1, expects_watch : 1, multi_flushes : 1;
    bool multi_refused : 1;   /* an error was the answer to MULTI, and EXEC has not come yet */
    bool multi_held : 1;      /* MULTI was answered here, and is sent when it is known where to */
    bool had_multi : 1;       /* it has said MULTI or WATCH (CLIENT LIST of Valkey) */
    bool anchored : 1;        /* a key has decided on which node c->pinned is */
    bool multi_logs_in : 1;   /* AUTH is queued in its MULTI */
    bool multi_streams : 1;   /* or SUBSCRIBE and the like */
    bool multi_asks : 1;      /* or CLIENT LIST and the like, which ask all workers */
    bool multi_stands_in : 1; /* or anything that EXEC's reply is looked at for (standin.h) */
    bool multi_grows : 1; /* or what may change a key and is announced to nobody (pinned_grown) */
    uint8_t nlog;         /* commands in `log` */
    uint16_t node;        /* of what is unanswered, if not `scattered` */

    struct parser *parser; /* of a request that has begun; NULL, the usual: the worker's is used */
    struct blob *in; /* input not served yet; NULL when there is none. in->n is its capacity */
    size_t in_at;    /* where in it the unserved bytes begin */
    size_t in_n;     /* how many they are */
    struct chain out;

    struct request *head, *tail; /* not released yet, in request order */
    struct request *opening;     /* between client_reply_begin and _end, when others wait */
    uint64_t next_seq;
    uint32_t queued;            /* commands from head to tail: what proxy.window counts */
    uint32_t pending;           /* requests from head to tail that are unanswered */
    uint32_t on_road[ROADS];    /* unanswered, by road */
    uint32_t unknown_on[ROADS]; /* of these, of unknown effect */
    uint32_t keyless;           /* of these, on ROAD_LANE, batches whose keys are not kept */
    uint32_t nblocked;          /* of these, those that may wait for ever */
    uint32_t batches;           /* requests from head to tail that are batches */

    uint32_t db;     /* selected */
    size_t held;     /* bytes in replies that wait for their turn */
    size_t charged;  /* what worker->client_memory has for it */
    int64_t heard;   /* ms: last bytes from it */
    int64_t drained; /* ms: last bytes it took, or when output began to wait */
    uint32_t since;  /* s: accepted */
    union {
        int unacked;        /* bytes the peer's kernel had not taken when that was last looked at */
        uint16_t only_node; /* of a part: where a command without keys goes */
    };

    struct place place; /* of the request being served; node 0 unless in a cluster */
    uint32_t barrier;   /* what comes waits for the requests before this seq (redirect.h) */
    uint32_t topology;  /* topology_version when the newest was served */

    uint32_t nconfirmed;        /* commands in its MULTI, as the replies say */
    uint32_t standin_bytes;     /* of what was sent of those */
    uint32_t nqueued;           /* commands in its MULTI */
    struct blob *log;           /* what is queued in its MULTI, as long as none of it names a key */
    struct standins *standins;  /* and what is to be in EXEC's reply of those; or NULL */
    struct pinned *pinned;      /* its own connection, or NULL (pinned.h) */
    const struct cmd *last_cmd; /* for CLIENT LIST; NULL before the first */
    struct client_profile *profile;
    struct client *next, *prev; /* worker->clients; prev of a dead one: the next in worker->dead */
    struct client *next_dirty, *next_runnable;
};

/* There are many, and the allocator's next size is an eighth more. */
_Static_assert(sizeof(struct client) <= 384, "idle clients are to stay small");

/* Takes the socket; returns the client, which the worker owns. NULL when memory is out: closed. */
struct client *client_create(struct worker *worker, int fd);
/* A part of a command of `of`: shares `in`, all it is ever to serve, and begins with it later in this
 * turn. NULL when memory is out. */
struct client *client_create_part(const struct client *of, struct fanout *fanout, uint16_t node,
                                  struct blob *in);

/* What it serves a part of; NULL unless `is_part`. */
static inline struct fanout *client_fanout(const struct client *c)
{
    return c->io.data;
}

/* Is what the request being served answers not to be seen (CLIENT REPLY)? */
static inline bool client_is_silent(const struct client *c)
{
    return c->replies_off || c->skips_this;
}

/* Where the next reply of this client goes, behind everything it still waits for. NULL when memory
 * is out (the client is closed then). Append one whole reply, then client_reply_end. */
MUST_CHECK struct chain *client_reply_begin(struct client *c);
void client_reply_end(struct client *c);
/* client_reply_end, or, with `ok` false because memory was out in the middle, the client's end. */
void client_reply_finish(struct client *c, bool ok);
/* Does the next reply go straight to the output? Otherwise it may be put into a request of its own, */
static inline bool client_is_idle(const struct client *c)
{
    return c->head == NULL && !client_is_silent(c);
}
/* which is taken and waits behind the others. May close the client. */
void client_hold(struct client *c, struct request *request);
/* Instead of client_reply_end, with nothing appended (or all of it rewound). */
void client_reply_cancel(struct client *c);
/* A whole reply at once; `resp_error` text. */
void client_reply_error(struct client *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Something the server sent unasked (a message, a line of MONITOR) goes out at once; larger amounts
 * in pieces that belong together, with nothing in between. May close the client. */
void client_push(struct client *c, struct slice bytes);

/* Puts the request behind the others; it goes to c->place, and is unanswered on request->road until
 * client_answered. */
void client_enqueue(struct client *c, struct request *request);
/* A whole reply to the request: it leaves, or waits for its turn, and the request stays unanswered.
 * False: the client is closed, and the request is its caller's. */
MUST_CHECK bool client_take(struct client *c, struct request *request, struct slice reply);
/* The whole reply of the request, which is `plain`, in one piece: client_arrived and client_answered.
 * False: the client is closed, and the request is its caller's. */
MUST_CHECK bool client_pass(struct client *c, struct request *request, struct slice reply);
/* client_arrived, and with it the reply is complete. */
void client_finish(struct client *c, struct request *request);
/* The reply of request is complete (in request->reply or released already): takes it off the order
 * table and lets replies leave as far as their turn has come. May free the request. */
void client_answered(struct client *c, struct request *request);
/* n bytes were added to request->reply. Lets them leave if it is their turn. False: the client was
 * closed over a limit. */
MUST_CHECK bool client_arrived(struct client *c, struct request *request, size_t n);

/* The unanswered request goes on on another road. */
void client_move_road(struct client *c, struct request *request, enum road road);

/* Output was appended: written at the end of the turn. */
void client_mark_dirty(struct client *c);
/* Looks at the input again at the end of the turn, */
void client_mark_runnable(struct client *c);
/* or of the next one, when others have been served. */
void client_mark_later(struct client *c);

/* No more input; closed when everything has been answered and written. */
void client_end(struct client *c);
/* Closes now; unanswered requests become ghosts. Idempotent. */
void client_close(struct client *c);

/* A line about the client, with its id and address; of those from `info` on not more than one a second. */
void client_log(const struct client *c, enum log_level level, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* Closes a client that is over a limit: counted in `counter`, and logged with why, but not more than
 * once a second. */
void client_expel(struct client *c, _Atomic uint64_t *counter, const char *fmt, ...)
    PRINTF_LIKE(3, 4);

/* For the worker. */
void client_run(struct client *c);
void client_flush(struct client *c);
void client_free(struct client *c);
/* Idle and stalled-output deadlines; may close. */
void client_check_deadlines(struct client *c, int64_t now);
/* This process stood still for so long: that was not the client's doing. */
void client_excuse(struct client *c, int64_t gap_ms);
/* What request->reply and request->extra hold has changed. */
void client_charge_request(struct client *c, struct request *request);
/* What the client holds has changed: worker->client_memory follows. */
void client_charge(struct client *c);
/* Waits for input, or not. */
void client_set_reading(struct client *c, bool on);
/* There is input, or its end (client_input.c). */
void client_read(struct client *c);
size_t client_memory(const struct client *c);
