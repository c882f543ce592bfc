/* SPDX-License-Identifier: Apache-2.0
 *
 * batch.h: a batch: commands of one client that follow each other in its input, each a plain read or a
 * plain write of one key, and travel as one request: one place in the client's queue, one call on the
 * lane, one copy of their bytes. Their replies are taken one by one, each with its effect on L1 before
 * a byte of it leaves (W1, R7). A batch has only reads or only writes. Worker's thread only.
 *
 * What a command on its own gets, its place in a batch gets too: write-begin and -end, order by its key
 * (D14; with L1 off there are no keys, and it conflicts with what is on other roads), the window, the
 * deadline, errors, a second attempt for reads (D16), a move away from a lane that is retired.
 *
 * That a reply may be to a command whose bytes have not left is seen for the batch as a whole only: a server
 * that answers what it was not asked ends the link at its last reply.
 *
 * Not in a cluster, not while others are told of writes (mode channel), not on pinned connections.
 */
#pragma once

#include "client.h"

#define BATCH_COMMANDS L1_WRITE_RUN /* as many as `was_hit` and `refused` have bits */

/* Of commands or of bytes: how many may go together is bounded by several things. */
static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Of GETs that are fetched (fills.h). */
struct fills {
    struct l1_lease *leases[BATCH_COMMANDS];
    uint32_t ends[BATCH_COMMANDS]; /* behind which byte of `values` each reply ends */
    uint64_t nulls;                /* bit i: the i-th key does not exist */
    uint64_t bulks;                /* bit i: the i-th reply is l1_value.is_bulk */
    struct slice values; /* what has come of the replies: in the read buffer, or in `kept` */
    char *kept;
    size_t kept_size;
    uint32_t got; /* replies that are here */
    bool passing; /* and are passed on as they come, not kept */
    bool awaited; /* by later requests (fills_await) */
};

struct batch {
    struct batch *next; /* worker->batches */
    uint32_t n;
    bool inside;                   /* the reply to the next one has begun */
    uint64_t was_hit;              /* bit i: its key was read here before it was written (echo.h) */
    uint64_t refused;              /* bit i: the reply to the i-th was an error */
    struct slice gathered;         /* replies in the read buffer, not passed on yet */
    struct chain_mark before;      /* where it begins in request->reply, unless it has left */
    uint32_t ends[BATCH_COMMANDS]; /* behind which byte of the whole each command ends */
    /* With L1, for each command: */
    uint64_t hashes[BATCH_COMMANDS];
    struct order_link links[BATCH_COMMANDS];
    union {
        uint64_t versions[BATCH_COMMANDS]; /* of writes: l1_version before it was sent (echo.h) */
        struct fills fills;
    };
};

/* An empty one, which has its n to be filled; NULL: memory is out. batch_give takes it back. */
MUST_CHECK struct batch *batch_take(struct worker *worker);
void batch_give(struct worker *worker, struct batch *batch);

/* Sends the plain commands at the start of the input as a batch, if there are at least two and nothing of
 * the client is unanswered on another road. Returns how many bytes they took (at most *share commands,
 * which is counted down); 0: what is there is for dispatch_request. No request may be half parsed.
 * `owner` as for dispatch_request. May close the client. *view, of size 0 before, may have become the first
 * request, which is then not parsed again. */
size_t batch_dispatch(struct client *c, struct slice in, struct blob *owner, unsigned *share,
                      struct request_view *view);

/* Sends what is unanswered of a batch of reads again, on a lane that takes it. */
void batch_again(struct request *request);

/* Could what moves on its own (forward.c) move as a batch: none answered, no key twice, in order without keys?
 * The request has a client, and its keys are in the order table. */
bool batch_may_move(const struct request *request);

/* Is this the call of a batch's request? */
bool batch_is_call(const struct call *call);

/* For fills.c. A piece of the reply to the next command, on its way to the client if there is one. */
void batch_pass_piece(struct request *request, const struct reply_piece *piece);
/* The connection on which the commands were is lost: what has come of an unfinished reply is forgotten. False: the client
 * has some of it, and is closed, and the request gone. The request has a client. */
MUST_CHECK bool batch_rewind(struct request *request);
/* Sends what is unanswered, on request->road. */
void batch_resume(struct request *request);
bool batch_is_in_read_buffer(const struct worker *worker, const char *p);

/* Frees request->batch. */
void batch_destroy(struct request *request);
/* Frees what batch_destroy has kept for the next ones. */
void batch_free_all(struct worker *worker);
