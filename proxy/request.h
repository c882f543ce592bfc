/* SPDX-License-Identifier: Apache-2.0
 *
 * request.h: one command of a client that could not be answered on the spot.
 *
 *                 ┌─ lease: owner or waiter ──woken──┐
 *   dispatch ─────┼─ lane (or MGET on F) ───reply────┼──► answered ──► released in order ──► gone
 *                 └─ echo: behind a SET ──its reply──┘
 *
 * It sits in its client's queue until its reply may leave. While it is on a lane or parked on a lease
 * it outlives its client: the client only empties `client` (a ghost); a ghost write keeps its
 * write-begin until the reply arrives, then it is freed. Worker's thread only, but for the wake of a
 * waiter, which another worker's thread posts back.
 */
#pragma once

#include "../resp/cmd.h"
#include "worker.h"

struct batch;
struct fanout;
struct mget;
struct pinned;

/* What happens to L1 when the reply arrives, before any byte of it is released. */
enum request_kind {
    REQUEST_HELD,    /* on nothing: answered, or about to be; it is its client's alone */
    REQUEST_GET,     /* parked on a lease */
    REQUEST_MGET,    /* whole MGET on F */
    REQUEST_FILLS,   /* a run of GETs on F (fills.h) */
    REQUEST_FORWARD, /* on a lane */
    REQUEST_ECHO,    /* behind a SET that is unanswered (echo.h) */
    REQUEST_CENSUS,  /* on its way round the workers (census.c) */
    REQUEST_FANOUT,  /* its parts are on their ways (fanout.c) */
};

/* Bytes of a command that are kept in the request itself. */
#define REQUEST_RAW_MAX 128

struct request {
    /* Kept when it is used again (request.c): */
    struct worker *worker;
    struct chain reply;     /* what arrived and may not leave yet */
    struct chain announced; /* mode channel: its keys as bulks, to be told to others (forward.c) */

    /* Blank in a new one, from here: */
    struct call call;        /* its place on a lane */
    struct l1_waiter waiter; /* its place on a lease */
    struct client *client;   /* NULL: it left */
    struct request *next;    /* the client's queue, in request order */
    uint64_t retired;        /* upstream_retired when it was sent */
    uint64_t seq;            /* position among the client's requests */
    int64_t began;           /* ms: when it was put there */

    enum request_kind kind;
    enum cmd_class class;
    enum road road;
    uint16_t node;         /* whose lane or fill connection it is on, or will be */
    uint16_t slot;         /* of its keys, in a cluster */
    uint32_t db;           /* whose lane it is on */
    bool resp3;            /* so is its reply */
    bool silent;           /* and nobody wants to see it (CLIENT REPLY) */
    const struct cmd *cmd; /* what it was; NULL for GETs and MGETs that began on F */
    bool logged_in;        /* an EXEC with an AUTH in it */
    bool executes;         /* or something that stands in for another command (standin.h) */
    bool stands_in;        /* is that */
    bool queued_flush;     /* executed all the same, it is a reason to empty L1 */
    bool blocks;           /* may wait for other clients */
    bool pauses;           /* begins a pause (pause.h) */
    bool queued;           /* inside MULTI: the reply should be QUEUED */
    bool unbegun; /* a blocking write: no write-begin, its keys are dropped when it answers */
    bool refused; /* answered with an error whatever the server says (session.c) */
    bool tried;   /* in the server's words: it went ahead of what stands for it */
    bool crosses; /* and that is because its keys are another node's */
    bool anchors; /* its key decides on which node the session is: it may move there (redirect.h) */
    bool alone; /* or no session is concerned: it is a single command of somebody else (login.h) */
    bool selects; /* a SELECT: its client is in request->db once the reply says so */
    bool greets;  /* a HELLO: its client speaks request->resp3 once the reply says so */
    bool resets;  /* a RESET: its client starts again once there is a reply */
    bool logs_in; /* its client is somebody else once the reply says so (login.h) */
    bool reselects, reselecting; /* SELECT goes behind it; and is what is being answered */
    bool enters; /* its client's login at a further node goes first, and it behind that (login.h) */
    bool probes; /* whether its client may do what is answered here (login.h) */
    bool streams;    /* SUBSCRIBE, MONITOR and the like (stream.c) */
    bool everywhere; /* SUNSUBSCRIBE of all, on each node that has any */
    bool debugs;     /* SCRIPT DEBUG, but for NO: its connection is a debugger's */
    bool holds;      /* what follows waits for its reply */
    bool any_db;     /* on a connection whose db is not known: its keys may be in L1's */
    uint8_t preface; /* replies to be swallowed first: of what was sent ahead of it */
    bool readonly;   /* may be sent once more if its connection dies (D16) */
    bool answered;   /* the reply is complete */
    bool linked;     /* its keys are in worker->order */
    bool settled;    /* its effect on L1 has been applied */
    bool released;   /* bytes of the reply are in the client's output */
    bool is_get;     /* a GET beside L1: R7 compares the value */
    bool plain;      /* its reply is passed on as it is, and means nothing more for its client */
    bool completes_info; /* INFO: our section is appended */
    bool names_script;   /* SCRIPT LOAD of a text that cannot write: its reply is the name */
    bool relearns;       /* when it has been executed, the server may have other commands */
    bool fencing;        /* its reply is held until a fence is through (fence.h) */
    bool complete;       /* fencing, and all of the reply is here */
    bool wide;           /* more than L1_WRITE_KEYS keys: counted as unknown for order */
    bool keyless;        /* a batch whose keys nobody asks for: it conflicts with other roads */
    uint8_t attempts;
    bool begun;        /* its write-begin has not ended yet */
    bool redirecting;  /* refused by a node, not sent again yet (redirect.h) */
    bool asking;       /* behind ASKING */
    uint8_t redirects; /* so far */
    int64_t due;       /* ms: when it is to be sent again */
    int64_t try_until; /* ms: so long after TRYAGAIN; 0: there was none */
    struct request *next_redirected;

    size_t arrived; /* bytes of the reply in all, also those that left */
    size_t held;    /* reply.memory and extra, as charged to the client */
    size_t extra;   /* what it holds besides (an MGET's reply in the making) */

    bool
        awaits_fills; /* a GET behind those that fetch its key: it looks again when they have ended */
    struct request *next_fenced;
    struct mget *mget;     /* REQUEST_MGET: its leases and what has arrived (fetch.c) */
    struct batch *batch;   /* the commands it stands for, if there are several (batch.h); or NULL */
    uint32_t commands;     /* how many they are; 1 without a batch */
    uint32_t done;         /* of a batch: how many have been answered */
    struct fanout *fanout; /* REQUEST_FANOUT: its parts, until it is answered */

    bool was_hit;              /* of a write: its key was read here before (l1_write_begin) */
    uint64_t version;          /* of a SET: l1_version of its key before it was sent */
    struct request *echoes;    /* of a SET: GETs that wait for its reply, in order, up to */
    struct request *last_echo; /* this one (echo.h) */
    struct request *echoed;    /* REQUEST_ECHO: the SET, */
    struct request *next_echo;
    struct slice value; /* in it the value, as GET's reply, */
    uint32_t echoed_at; /* and which of a batch it is */

    uint32_t nkeys; /* keys and hashes have so many entries; one key is in place */
    uint64_t *hashes;
    struct order_link *keys;

    enum l1_wake woken;       /* written by the waking thread before it posts, */
    uint32_t woken_n;         /* with a short reply, in small_reply; 0: it is in woken_reply */
    struct blob *woken_reply; /* NULL also if memory was out */

    struct slice raw;      /* the command, kept while it may have to be sent again; n == 0: not */
    struct blob *raw_blob; /* what keeps raw alive; NULL: it is in small_raw */

    /* Of any content until they are used, from here: */
    struct post post; /* its way back from another worker's thread */
    uint64_t one_hash;
    struct order_link one_key;
    char small_raw[REQUEST_RAW_MAX]; /* the command */
    /* The reply it is woken with: not where the command is, which may be put there while another
     * thread ends the lease. */
    char small_reply[REQUEST_RAW_MAX];
};

/* Does it change keys that are known: write-begin and -end (classes K and U)? */
static inline bool request_writes(const struct request *request)
{
    return request->class == CMD_WRITE || request->class == CMD_UNKNOWN;
}

/* Can it not be told apart from its client's other requests by its keys (D14)? */
static inline bool request_is_unordered(const struct request *request)
{
    return request->wide || request->class == CMD_UNKNOWN || request->class == CMD_FLUSH;
}

/* A blank request of this worker; NULL when memory is out. */
MUST_CHECK struct request *request_create(struct worker *worker);
/* Must not be on a lane, parked or in a queue. Accepts NULL. */
void request_destroy(struct request *request);

/* Frees what request_destroy has kept for request_create. */
void request_free_blocks(struct worker *worker);

/* The worker's spare one (it stays the worker's until request_take_spare). */
MUST_CHECK struct request *request_spare(struct worker *worker);
void request_take_spare(struct worker *worker, struct request *request);

/* Keeps a copy of (or reference to) the command's bytes, if they are not kept already. */
MUST_CHECK bool request_keep_raw(struct request *request, struct slice raw, struct blob *blob);
/* Of kind GET, with no lease: wakes it behind whoever is about to be woken now, and it looks again. */
void request_look_again(struct request *request);
/* Looks at the kept bytes again; false if they were not kept. */
MUST_CHECK bool request_reparse(const struct request *request, struct request_view *view);
/* Room for n keys' hashes and links. */
MUST_CHECK bool request_reserve_keys(struct request *request, uint32_t n);
void request_add_key(struct request *request, uint64_t hash);

/* Calls visit with the hash of each key of a command; for commands with too many keys to remember.
 * False: their positions make no sense. */
bool request_each_key(struct l1 *l1, const struct cmd *cmd, const struct request_view *view,
                      void (*visit)(struct l1 *l1, uint64_t hash));

/* The client is going: forgets the waiter, or leaves the request behind as a ghost. The request is
 * out of the client's queue already; do not touch it afterwards. */
void request_orphan(struct request *request);
