/* SPDX-License-Identifier: Apache-2.0
 *
 * frame.h: finds where each reply of a server ends and hands its bytes on as they arrive, without
 * collecting it: a 300 MB value passes through in pieces.
 *
 * At a reply boundary scalars (+ - : $ _ , # ( = !) are framed here; bulks are passed on in pieces
 * after their length met the limit. Aggregates, pushes and replies behind an attribute (* % ~ > |) go
 * through hiredis's reader with a reply-object table that writes each element straight out again
 * (relay.c), fed at most 4 KiB at a time. RESP2 and RESP3. Every byte is hostile: lengths, nesting
 * and line lengths are bounded.
 *
 * One framer per connection, one thread, no I/O.
 */
#pragma once

#include "../resp/bytes.h"

/* Longest line, but for a status or an error outside a push, which may be as long as a bulk;
 * longest bulk (Redis's own limit for a value), nested or not; most memory one push may take (its
 * bytes, and 16 for each item); deepest nesting, the outermost aggregate counted. Beyond: protocol
 * error, before memory is spent on it.
 * Memory held for one connection: some 32 KiB, and a line or a push where one is unfinished. */
#define FRAME_LINE_MAX ((size_t)1024 * 1024)
#define FRAME_BULK_MAX ((int64_t)512 * 1024 * 1024)
/* Longest text of a status or an error that is collected: servers repeat arguments of clients in
 * their errors, and those may have any length. */
#define FRAME_TEXT_MAX  ((size_t)64 * 1024)
#define FRAME_PUSH_MAX  ((size_t)64 * 1024 * 1024)
#define FRAME_DEPTH_MAX 8192 /* a script's tables come as deep as Lua's stack: 8,000 */

/* Bytes of one reply. A scalar that is whole in the input is one piece with first and last set, and
 * so is "*-1"; statuses, errors and the other lines always are, however they are cut. The exception
 * are statuses and errors with more than FRAME_TEXT_MAX bytes between type byte and CR: always
 * several pieces, however they are cut: the first has more text than that, the last is the CRLF.
 *
 * An attribute is part of the reply it stands before. Such a reply has the type '|', whatever comes
 * behind the attribute: it is no value, no null, no status and no error to anybody who looks at
 * types, comes in as many pieces as it likes, and is fit to be passed on only. */
struct reply_piece {
    struct slice bytes; /* borrowed for the call; never empty */
    char type;          /* first byte of the reply */
    bool first, last;
    bool is_null; /* with first: "$-1", "*-1" or "_" */
    int64_t size; /* with first: encoded size of the whole reply, or -1 (aggregates, '|', a
                   * status or an error in pieces) */
};

/* A push, whole; everything is borrowed for the call. plain: the shape was [kind, array of strings]
 * or [kind, null]; is_null says which. `items` are then the strings in order. Not plain: kind is the
 * first element if that is a string, else empty, and `bytes` alone says the rest. */
struct push {
    struct slice kind;
    bool plain;
    bool is_null;
    size_t nitems;
    const struct slice *items;
    struct slice bytes; /* all of it as it came, for a client that is to see it */
};

/* Several replies that lie behind each other whole: n > 0, at most FRAME_RUN_MAX; ends[i]: behind which of the bytes
 * the i-th ends. Borrowed for the call. */
#define FRAME_RUN_MAX 64
struct reply_run {
    struct slice bytes;
    uint32_t n;
    const uint32_t *ends;
};

struct framer;

/* Called from framer_feed. They may destroy neither the framer nor its owner, and not feed or reset
 * the framer. At the last piece of a reply framer_is_inside says false already. */
struct framer_ops {
    void (*piece)(void *ctx, const struct reply_piece *piece);
    void (*push)(void *ctx, const struct push *push);
    /* Optional: what framer_take_run has asked for. */
    void (*run)(void *ctx, const struct reply_run *run);
};

/* Owned by the caller; dies when memory is out. ctx goes to the ops. */
struct framer *framer_create(const struct framer_ops *ops, void *ctx);
/* Accepts NULL. */
void framer_destroy(struct framer *f);
/* Ready for the first byte of a new connection. */
void framer_reset(struct framer *f);

/* Hands on everything in `bytes`. False: the peer does not speak RESP, or memory is out; framer_error
 * says why in one line without the peer's bytes; until a reset nothing more may be fed (it is ignored
 * and false again). Pieces of the bad reply may have been delivered before. Refused as well, though
 * RESP3 has them: streamed lengths ("$?"), attributes of a push or inside one; Redis sends none.
 * `*stop` (may be NULL), when it becomes true during a callback, ends the feeding early and returns
 * true (the owner gave the connection up; the framer wants a reset). */
MUST_CHECK bool framer_feed(struct framer *f, struct slice bytes, const bool *stop);
/* From inside `piece`, at the last piece of a reply, or from inside `run`: of the next n replies those that lie behind it whole, and are
 * bulks, nulls, integers or short statuses, are handed on together. For who expects many that are alike. */
void framer_take_run(struct framer *f, uint32_t n);
/* Between two replies: the next one, unless it is an error, has no end, whatever it looks like, until the reset. Its
 * pieces have the type of the first byte, and no size. */
void framer_expect_endless(struct framer *f);
/* "" while nothing failed. Lives until the reset. */
const char *framer_error(const struct framer *f);

/* In the middle of a reply or push, or failed? (A connection that closes then lied.) */
bool framer_is_inside(const struct framer *f);
