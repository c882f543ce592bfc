/* SPDX-License-Identifier: Apache-2.0
 *
 * chain.c: the queue of outgoing bytes: a list of segments, first out first.
 *
 *     head ─► own  [consumed|bytes     ]      bytes = own + start .. own + used
 *             ref  [        bytes      ] ─► blob
 *     tail ─► own  [bytes     |room    ]      room  = own + used  .. own + size
 *
 * A segment either owns its bytes (they follow the struct in the same block) or refers to a blob.
 * Only the tail is written to, and a segment never moves, so a mark is the tail and its fill level.
 * Blocks start at 512 B and double from tail to tail up to 16 KiB: an ordinary reply costs little
 * memory, a long pipeline few blocks. Behind a reference the doubling starts anew, because there it
 * is only a few bytes that tie large values together.
 *
 * Invariants between calls: `bytes` is the sum of used - start, `memory` the sum of charges, and
 * there are segments exactly when there are bytes; only a reservation in progress may add an empty
 * tail. Every charge is kept with its segment, so that what is given back is what was taken.
 *
 * Single owner, no locks. Knows nothing of sockets or of the protocol.
 */
#include "chain.h"

#include "../conf/mem.h"

#define BLOCK_MIN ((size_t)512)
#define BLOCK_MAX ((size_t)16 * 1024)

struct chain_seg {
    struct chain_seg *next;
    const char *p;     /* own, or within the blob */
    size_t start;      /* consumed so far */
    size_t used;       /* written so far */
    size_t size;       /* what used may grow to; a reference is full from the start */
    size_t charge;     /* its part of chain.memory */
    struct blob *blob; /* NULL: the bytes are own */
    char own[];
};

void chain_init(struct chain *c)
{
    *c = (struct chain){0};
}

static void seg_destroy(struct chain_seg *seg)
{
    blob_unref(seg->blob);
    mem_free(seg);
}

/* Frees seg and all behind it. Neither bytes nor links of the chain are set right. */
static void seg_destroy_from(struct chain *c, struct chain_seg *seg)
{
    while (seg != NULL) {
        struct chain_seg *next = seg->next;
        c->memory -= seg->charge;
        seg_destroy(seg);
        seg = next;
    }
}

void chain_fini(struct chain *c)
{
    seg_destroy_from(c, c->head);
    chain_init(c);
}

static size_t seg_room(const struct chain_seg *seg)
{
    return seg == NULL ? 0 : seg->size - seg->used;
}

/* A segment for n bytes or more, not linked yet; NULL when memory is out. */
static struct chain_seg *seg_try(const struct chain_seg *tail, size_t n)
{
    const size_t header = sizeof(struct chain_seg);
    size_t last = tail == NULL || tail->blob != NULL ? 0 : tail->size;
    size_t block = BLOCK_MIN;
    while (block < BLOCK_MAX && (block - header <= last || block - header < n)) {
        block *= 2;
    }
    if (block - header < n && __builtin_add_overflow(n, header, &block)) {
        return NULL;
    }
    struct chain_seg *seg = mem_try(block);
    if (seg == NULL) {
        return NULL;
    }
    /* a power of two is what an allocator has */
    *seg = (struct chain_seg){.size = block - header,
                              .charge = block <= BLOCK_MAX ? block : mem_usable(seg)};
    seg->p = seg->own;
    return seg;
}

static void seg_link(struct chain *c, struct chain_seg *seg)
{
    if (c->tail == NULL) {
        c->head = seg;
    } else {
        c->tail->next = seg;
    }
    c->tail = seg;
    c->memory += seg->charge;
}

char *chain_reserve(struct chain *c, size_t n)
{
    struct chain_seg *seg = c->tail;
    if (unlikely(seg == NULL || seg->blob != NULL || seg_room(seg) < n)) {
        seg = seg_try(c->tail, n);
        if (seg == NULL) {
            return NULL;
        }
        seg_link(c, seg);
    }
    return seg->own + seg->used;
}

void chain_commit(struct chain *c, size_t n)
{
    bug_on(n > seg_room(c->tail));
    if (n > 0) {
        c->tail->used += n;
        c->bytes += n;
    } else if (c->bytes == 0) {
        /* Nothing came of it: an empty chain holds no memory. */
        chain_fini(c);
    }
}

/* The tail has room for it. */
static void copy_in(struct chain *c, const char *p, size_t n)
{
    if (n > 0) {
        memcpy(c->tail->own + c->tail->used, p, n);
        c->tail->used += n;
        c->bytes += n;
    }
}

/* What does not fit into the tail. */
static __attribute__((noinline)) bool append_more(struct chain *c, struct slice s)
{
    size_t room = seg_room(c->tail);
    size_t first = s.n < room ? s.n : room;
    struct chain_seg *seg = NULL;
    if (first < s.n) {
        /* Before the first byte is copied, so that failing leaves the chain as it was. */
        seg = seg_try(c->tail, s.n - first);
        if (seg == NULL) {
            return false;
        }
    }
    copy_in(c, s.p, first);
    if (seg != NULL) {
        seg_link(c, seg);
        copy_in(c, s.p + first, s.n - first);
    }
    return true;
}

bool chain_append(struct chain *c, struct slice s)
{
    struct chain_seg *tail = c->tail;
    if (unlikely(s.n == 0)) {
        return true;
    }
    if (unlikely(tail == NULL || tail->size - tail->used < s.n)) {
        return append_more(c, s);
    }
    char *end = tail->own + tail->used;
    tail->used += s.n;
    c->bytes += s.n;
    memcpy(end, s.p, s.n);
    return true;
}

/* Two decimal digits of n, which is below 100. */
static inline char *put_two(char *p, unsigned int n)
{
    static const char digits[] = "00010203040506070809101112131415161718192021222324"
                                 "25262728293031323334353637383940414243444546474849"
                                 "50515253545556575859606162636465666768697071727374"
                                 "75767778798081828384858687888990919293949596979899";
    memcpy(p, &digits[2 * (size_t)n], 2);
    return p + 2;
}

/* Not inlined: what most values need stays short. */
static __attribute__((noinline)) char *put_digits(char *p, unsigned int n)
{
    if (n >= 10000) {
        *p++ = (char)('0' + n / 10000);
        n %= 10000;
        p = put_two(p, n / 100);
        return put_two(p, n % 100);
    }
    if (n >= 1000) {
        p = put_two(p, n / 100);
        return put_two(p, n % 100);
    }
    if (n >= 100) {
        *p++ = (char)('0' + n / 100);
        return put_two(p, n % 100);
    }
    *p = (char)('0' + n);
    return p + 1;
}

static inline char *put_header(char *p, char type, size_t size)
{
    unsigned int n = (unsigned int)size;
    *p++ = type;
    p = likely(n - 10 < 90) ? put_two(p, n) : put_digits(p, n);
    memcpy(p, "\r\n", 2);
    return p + 2;
}

size_t chain_header(char *p, char type, size_t n)
{
    return (size_t)(put_header(p, type, n) - p);
}

/* The tail has room for it. */
static inline void put_bulk(struct chain *c, struct slice s)
{
    struct chain_seg *tail = c->tail;
    char *begin = tail->own + tail->used;
    char *p = put_header(begin, '$', s.n);
    copy_value(p, s.p, s.n);
    memcpy(p + s.n, "\r\n", 2);
    size_t n = (size_t)(p - begin) + s.n + 2;
    tail->used += n;
    c->bytes += n;
}

/* What does not fit into the tail: into a new one, if that one is full. */
static __attribute__((noinline)) bool append_bulk_more(struct chain *c, struct slice s)
{
    char head[CHAIN_HEADER_MAX];
    struct chain_mark mark = chain_mark(c);
    if (seg_room(c->tail) == 0) {
        bool room = chain_reserve(c, s.n + CHAIN_HEADER_MAX + 2) != NULL;
        if (room) {
            put_bulk(c, s);
        }
        return room;
    }
    if (chain_append(c, slice_of(head, chain_header(head, '$', s.n))) && chain_append(c, s) &&
        chain_append(c, SLICE("\r\n"))) {
        return true;
    }
    chain_rewind(c, mark);
    return false;
}

bool chain_append_bulk(struct chain *c, struct slice s)
{
    const struct chain_seg *tail = c->tail;
    if (unlikely(tail == NULL || tail->size - tail->used < s.n + CHAIN_HEADER_MAX + 2)) {
        return append_bulk_more(c, s);
    }
    put_bulk(c, s);
    return true;
}

bool chain_append_blob(struct chain *c, struct blob *b, size_t off, size_t n)
{
    bug_on(off > b->n || n > b->n - off);
    if (n == 0) {
        return true;
    }
    /* The same blob may be queued again and again, so these sums are not bounded by memory. */
    size_t bytes;
    if (__builtin_add_overflow(c->bytes, n, &bytes)) {
        return false;
    }
    struct chain_seg *seg = mem_try(sizeof(*seg));
    if (seg == NULL) {
        return false;
    }
    *seg = (struct chain_seg){.p = b->p + off, .used = n, .size = n};
    seg->charge = mem_usable(seg) + mem_usable(b);
    if (seg->charge > SIZE_MAX - c->memory) {
        mem_free(seg);
        return false;
    }
    seg->blob = blob_ref(b);
    seg_link(c, seg);
    c->bytes = bytes;
    return true;
}

void chain_splice(struct chain *dst, struct chain *src)
{
    bug_on(dst == src);
    bug_on(src->bytes > SIZE_MAX - dst->bytes || src->memory > SIZE_MAX - dst->memory);
    /* A few bytes are cheaper to copy than to send from a segment of their own; the bound keeps a
     * roomy tail from making that untrue. */
    if (src->bytes < CHAIN_REF_MIN && src->bytes <= seg_room(dst->tail)) {
        for (const struct chain_seg *seg = src->head; seg != NULL; seg = seg->next) {
            copy_in(dst, seg->p + seg->start, seg->used - seg->start);
        }
        chain_fini(src);
        return;
    }
    /* src has bytes here: none at all always fit. */
    if (dst->tail == NULL) {
        dst->head = src->head;
    } else {
        dst->tail->next = src->head;
    }
    dst->tail = src->tail;
    dst->bytes += src->bytes;
    dst->memory += src->memory;
    chain_init(src);
}

struct chain_mark chain_mark(const struct chain *c)
{
    return (struct chain_mark){
        .tail = c->tail,
        .tail_bytes = c->tail == NULL ? 0 : c->tail->used,
        .bytes = c->bytes,
    };
}

void chain_rewind(struct chain *c, struct chain_mark mark)
{
    if (mark.tail == NULL) {
        chain_fini(c);
        return;
    }
    bug_on(mark.bytes > c->bytes || mark.tail_bytes > mark.tail->used);
    seg_destroy_from(c, mark.tail->next);
    mark.tail->next = NULL;
    mark.tail->used = mark.tail_bytes;
    c->tail = mark.tail;
    c->bytes = mark.bytes;
}

int chain_iov(const struct chain *c, struct iovec *iov, int max)
{
    int n = 0;
    for (const struct chain_seg *seg = c->head; seg != NULL && n < max; seg = seg->next) {
        if (seg->used > seg->start) {
            /* An iovec is for reading and for writing alike, hence without const. */
            iov[n].iov_base = (char *)(uintptr_t)(seg->p + seg->start);
            iov[n].iov_len = seg->used - seg->start;
            n++;
        }
    }
    return n;
}

struct slice chain_piece(const struct chain *c)
{
    const struct chain_seg *seg = c->head;
    return seg == NULL || seg != c->tail ? slice_of(NULL, 0)
                                         : slice_of(seg->p + seg->start, c->bytes);
}

void chain_consume(struct chain *c, size_t n)
{
    bug_on(n > c->bytes);
    c->bytes -= n;
    if (c->bytes == 0) {
        chain_fini(c);
        return;
    }
    while (n >= c->head->used - c->head->start) {
        struct chain_seg *seg = c->head;
        n -= seg->used - seg->start;
        c->head = seg->next;
        c->memory -= seg->charge;
        seg_destroy(seg);
    }
    c->head->start += n;
}

void chain_take(struct chain *c, char *dst)
{
    for (const struct chain_seg *seg = c->head; seg != NULL; seg = seg->next) {
        memcpy(dst, seg->p + seg->start, seg->used - seg->start);
        dst += seg->used - seg->start;
    }
    chain_fini(c);
}

struct blob *chain_take_blob(struct chain *c)
{
    struct blob *blob = blob_try(c->bytes);
    if (blob != NULL) {
        chain_take(c, blob->p);
    }
    return blob;
}
