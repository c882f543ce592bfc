/* SPDX-License-Identifier: Apache-2.0
 *
 * chain.h: a queue of bytes on their way out to one peer. Small pieces are copied into segments
 * (512 B growing to 16 KiB), large ones are referenced (struct blob), so that a large value is sent
 * from where it lies and an idle peer holds no memory at all. Drained with send, or with sendmsg if there are several.
 *
 * Embedded, single owner, no locks. Functions that return bool return false only when memory is out;
 * the chain is then unchanged.
 */
#pragma once

#include "bytes.h"

#include <sys/uio.h>

/* Pieces of this size and above are referenced rather than copied where the caller has a blob. */
#define CHAIN_REF_MIN ((size_t)16 * 1024)

struct chain_seg;

struct chain {
    struct chain_seg *head;
    struct chain_seg *tail;
    size_t bytes;  /* queued and not yet consumed */
    size_t memory; /* bytes of memory held by the segments (a referenced blob counts whole) */
};

/* A point in a chain to fall back to; valid until something is consumed. */
struct chain_mark {
    struct chain_seg *tail;
    size_t tail_bytes;
    size_t bytes;
};

void chain_init(struct chain *c);
/* Frees what is queued; the chain is empty and usable afterwards. */
void chain_fini(struct chain *c);

/* Room for n contiguous bytes at the end; write them and call chain_commit with how many. NULL
 * when memory is out. Nothing else may touch the chain in between. */
MUST_CHECK char *chain_reserve(struct chain *c, size_t n);
void chain_commit(struct chain *c, size_t n);

/* Copies s to the end. */
MUST_CHECK bool chain_append(struct chain *c, struct slice s);
/* Copies s to the end as the bulk "$n\r\ns\r\n"; s.n is below CHAIN_REF_MIN. */
MUST_CHECK bool chain_append_bulk(struct chain *c, struct slice s);
/* `type`, n and "\r\n" at p, for n below CHAIN_REF_MIN; how many bytes, CHAIN_HEADER_MAX at most. */
#define CHAIN_HEADER_MAX 8
size_t chain_header(char *p, char type, size_t n);
/* Queues b->p[off .. off+n) by reference: takes one reference of its own. */
MUST_CHECK bool chain_append_blob(struct chain *c, struct blob *b, size_t off, size_t n);
/* Moves everything in src behind what is in dst; src is empty afterwards. Cannot fail. */
void chain_splice(struct chain *dst, struct chain *src);

struct chain_mark chain_mark(const struct chain *c);
/* Drops what was appended since the mark. */
void chain_rewind(struct chain *c, struct chain_mark mark);

/* Fills up to max entries with the first bytes of the queue; returns how many. */
int chain_iov(const struct chain *c, struct iovec *iov, int max);
/* All of it, if it lies in one piece; p is NULL otherwise. */
struct slice chain_piece(const struct chain *c);
/* Moves everything to dst (`bytes` bytes); the chain is empty afterwards. */
void chain_take(struct chain *c, char *dst);
/* The same into a blob of its own. NULL: memory is out, and the chain is as it was. */
MUST_CHECK struct blob *chain_take_blob(struct chain *c);
/* Forgets the first n (<= bytes) bytes. */
void chain_consume(struct chain *c, size_t n);
