/* SPDX-License-Identifier: Apache-2.0
 *
 * cache.h: a small L1 and readers for the tests of this folder. Values are given as plain text; the
 * encoded form is that text. Covers 0 and 1 are up until UNTIL, cover 2 is down.
 */
#pragma once

#include "../../../conf/mem.h"
#include "../../../l1/l1.h"

#include <criterion/criterion.h>

#define UNTIL      1000000
#define TTL        60000
#define NULL_REPLY SLICE("$-1\r\n")

struct cache {
    struct l1 *l1;
    struct l1_reader *reader; /* rests whenever no lookup is being made */
    struct chain out;
};

/* One client's read: what l1_get said, and how it was woken. */
struct reader {
    struct l1_waiter waiter;
    struct l1_lease *lease;
    int wakes;
    enum l1_wake how;
    char text[64];
    struct blob *blob;
    int *turn; /* counts the wakes of several readers, if set */
    int woken_at;
};

static inline struct cache cache_of(size_t max_memory, size_t max_item_size)
{
    char err[ERR_MAX];
    struct l1_options o = {
        .max_memory = max_memory, .max_item_size = max_item_size, .covers = 3, .readers = 1};
    struct cache c = {.l1 = l1_create(&o, err)};
    cr_assert(c.l1 != NULL, "%s", err);
    c.reader = l1_reader(c.l1, 0);
    chain_init(&c.out);
    l1_cover_up(c.l1, 0, UNTIL);
    l1_cover_up(c.l1, 1, UNTIL);
    return c;
}

static inline struct cache cache_open(void)
{
    return cache_of((size_t)1 << 20, (size_t)64 << 10);
}

static inline void cache_close(struct cache *c)
{
    struct l1_stats s;
    l1_stats(c->l1, &s);
    cr_expect(s.leases == 0, "a lease was left open");
    cr_expect(s.waiters == 0, "a waiter was left parked");
    chain_fini(&c->out);
    l1_destroy(c->l1);
}

static inline struct l1_stats stats_of(const struct cache *c)
{
    struct l1_stats s;
    l1_stats(c->l1, &s);
    return s;
}

static inline uint64_t hash_of(const struct cache *c, const char *key)
{
    return l1_hash(c->l1, slice_str(key));
}

static inline void reader_woken(struct l1_waiter *w, enum l1_wake how, struct l1_reply *reply)
{
    struct reader *r = container_of(w, struct reader, waiter);
    r->wakes++;
    r->how = how;
    if (r->turn != NULL) {
        r->woken_at = ++*r->turn;
    }
    if (how == L1_WAKE_REPLY) {
        size_t n = reply->encoded.n < sizeof(r->text) ? reply->encoded.n : sizeof(r->text) - 1;
        memcpy(r->text, reply->encoded.p, n);
        r->text[n] = '\0';
    }
}

static inline struct l1_query query_of(struct cache *c, struct reader *r, const char *key)
{
    r->waiter.wake = reader_woken;
    return (struct l1_query){.key = slice_str(key),
                             .hash = hash_of(c, key),
                             .reader = c->reader,
                             .out = &c->out,
                             .waiter = &r->waiter};
}

/* l1_get of a key in db 0 under a cover. */
static inline enum l1_result get_under(struct cache *c, struct reader *r, const char *key,
                                       uint16_t cover, int64_t now)
{
    struct l1_query q = query_of(c, r, key);
    q.cover = cover;
    enum l1_result result = l1_get(c->l1, &q, now);
    if (result == L1_OWNER) {
        r->lease = q.lease;
    }
    if (c->reader != NULL) {
        l1_reader_rest(c->reader);
    }
    return result;
}

static inline enum l1_result get(struct cache *c, struct reader *r, const char *key, int64_t now)
{
    return get_under(c, r, key, 0, now);
}

static inline void fill(struct cache *c, struct reader *r, const char *text, int64_t now)
{
    struct l1_value v = {.encoded = slice_str(text), .ttl_ms = TTL};
    cr_assert(r->lease != NULL);
    l1_fill(c->l1, &r->lease, &v, now);
    cr_assert(r->lease == NULL);
}

static inline void fill_null(struct cache *c, struct reader *r, int64_t ttl, int64_t now)
{
    struct l1_value v = {.encoded = NULL_REPLY, .is_null = true, .ttl_ms = ttl};
    cr_assert(r->lease != NULL);
    l1_fill(c->l1, &r->lease, &v, now);
}

/* Fetches a key that is not there and installs it. */
static inline void put_under(struct cache *c, const char *key, const char *text, uint16_t cover,
                             int64_t now)
{
    struct reader r = {0};
    cr_assert(get_under(c, &r, key, cover, now) == L1_OWNER);
    fill(c, &r, text, now);
    cr_assert(r.wakes == 1);
}

static inline void put(struct cache *c, const char *key, const char *text, int64_t now)
{
    put_under(c, key, text, 0, now);
}

static inline void empty_out(struct cache *c)
{
    chain_consume(&c->out, c->out.bytes);
}

/* What was appended since it was last asked, as text. */
static inline const char *taken(struct cache *c)
{
    static char text[20000];
    struct iovec iov[16];
    int n = chain_iov(&c->out, iov, 16);
    size_t len = 0;
    for (int i = 0; i < n; i++) {
        cr_assert(len + iov[i].iov_len < sizeof(text));
        memcpy(text + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    text[len] = '\0';
    empty_out(c);
    return text;
}

/* A run of n keys, which are put into `keys`. */
static inline struct l1_run run_of(struct cache *c, struct l1_key *keys, const char *const *names,
                                   size_t n)
{
    for (size_t i = 0; i < n; i++) {
        keys[i] = (struct l1_key){.key = slice_str(names[i]), .hash = hash_of(c, names[i])};
    }
    return (struct l1_run){.keys = keys,
                           .n = n,
                           .reader = c->reader,
                           .out = &c->out,
                           .null = NULL_REPLY,
                           .enough = SIZE_MAX};
}

/* Whether l1_get_run answers the key; the reader stays under way. */
static inline bool peeks(struct cache *c, const char *name, int64_t now)
{
    struct l1_key key;
    struct l1_run run = run_of(c, &key, &name, 1);
    return l1_get_run(c->l1, &run, now) == 1;
}

/* The same, and the reader rests. */
static inline bool hits(struct cache *c, const char *key, int64_t now)
{
    bool hit = peeks(c, key, now);
    if (c->reader != NULL) {
        l1_reader_rest(c->reader);
    }
    return hit;
}

/* Whether the key is a hit, without taking a lease for it. */
static inline bool holds(struct cache *c, const char *key, int64_t now)
{
    bool hit = hits(c, key, now);
    empty_out(c);
    return hit;
}

/* Whether the key is a hit with that text. */
static inline bool holds_text(struct cache *c, const char *key, const char *text, int64_t now)
{
    return hits(c, key, now) && strcmp(taken(c), text) == 0;
}

static inline void invalidate(struct cache *c, const char *key)
{
    l1_invalidate(c->l1, hash_of(c, key));
}

static inline void write_begin(struct cache *c, const char *key)
{
    uint64_t hash = hash_of(c, key);
    l1_write_begin(c->l1, &hash, 1);
}

static inline void write_end(struct cache *c, const char *key)
{
    uint64_t hash = hash_of(c, key);
    l1_write_end(c->l1, &hash, 1);
}

static inline bool was_told(const struct reader *r, const char *text)
{
    return r->wakes == 1 && r->how == L1_WAKE_REPLY && strcmp(r->text, text) == 0;
}
