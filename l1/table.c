/* SPDX-License-Identifier: Apache-2.0
 *
 * table.c: the index of one shard. Chains of entries behind buckets, at most three entries to four
 * buckets. Linear hashing: each insert that crowds the table adds a bucket at its end and moves into
 * it what belongs there from one other bucket, so growing from nothing to millions never stalls a
 * request, and needs no second table while it lasts.
 *
 *     buckets:  0 ......... split ......... half | half+1 ..... buckets-1 |        2 * half
 *               [ have been split ]              [ their other halves ]
 *                         [ not yet ]
 *
 * A bucket is the reference of its first entry, 4 bytes. Their place is reserved for as many as
 * there could ever be, and charged a page of the system at a time; when the budget has none, chains
 * grow longer instead. The table never shrinks: what once was needed for the working set will be
 * again.
 *
 * Readers without the lock walk along while all this happens. Links are stored with release, so
 * whoever follows one finds the entry written. One who stands on an entry that is being split off
 * goes on in another bucket and finds nothing: he looks again with the lock.
 *
 * Everything else wants the shard's lock. Knows hashes and entries, nothing of time (but for the
 * sweep, which asks for an entry's fate) and nothing of leases.
 */
#include "l1_priv.h"

/* Buckets that one insert may add: more than come by one insert, so that the table catches up. */
#define GROW_STEP 2
/* Splits from the moment that something is asked for to the one that it is wanted. */
#define SPLIT_AHEAD 1

static void link_store(_Atomic uint32_t *link, uint32_t ref)
{
    atomic_store_explicit(link, ref, memory_order_release);
}

static uint32_t buckets_of(const struct shard *s)
{
    return (uint32_t)atomic_load_explicit(&s->shape, memory_order_relaxed);
}

static bool is_crowded(const struct shard *s)
{
    return s->table.items > buckets_of(s) - buckets_of(s) / 4;
}

void table_init(struct shard *s)
{
    atomic_store_explicit(&s->shape, table_shape(BUCKETS_STEP), memory_order_relaxed);
    s->used += BUCKETS_STEP * sizeof(*s->heads);
}

struct entry *table_next(const struct shard *s, uint64_t hash, const struct entry *after)
{
    struct entry *e = link_load(s, after == NULL ? table_head(s, hash) : &after->chain);
    while (e != NULL && e->hash != (uint32_t)hash) {
        e = link_load(s, &e->chain);
    }
    return e;
}

void table_insert(struct shard *s, struct entry *e)
{
    _Atomic uint32_t *head = table_head(s, e->hash);
    atomic_store_explicit(&e->chain, link_of(head), memory_order_relaxed);
    link_store(head, ref_of(s, e));
    s->table.items++;
}

/* The link that leads to the entry. */
static _Atomic uint32_t *link_to(struct shard *s, const struct entry *e)
{
    _Atomic uint32_t *at = table_head(s, e->hash);
    uint32_t ref = ref_of(s, e);
    while (link_of(at) != ref) {
        at = &entry_at(s, link_of(at))->chain;
    }
    return at;
}

void table_remove(struct shard *s, struct entry *e)
{
    link_store(link_to(s, e), link_of(&e->chain));
    s->table.items--;
}

void table_replace(struct shard *s, struct entry *e, struct entry *copy)
{
    atomic_store_explicit(&copy->chain, link_of(&e->chain), memory_order_relaxed);
    link_store(link_to(s, e), ref_of(s, copy));
}

/* What the splits after this one read is on its way when it is wanted: the bucket, the first entry in it, the second;
 * each was asked for when its split was SPLIT_AHEAD farther off than the next stage is. */
static void expect_split(const struct shard *s, uint32_t fresh)
{
    uint64_t shape = table_shape(fresh);
    const struct entry *first =
        seat_of(s, link_of(&s->heads[bucket_of(shape, fresh + SPLIT_AHEAD)]));
    __builtin_prefetch(seat_of(s, link_of(&first->chain)), 1);
    __builtin_prefetch(seat_of(s, link_of(&s->heads[bucket_of(shape, fresh + 2 * SPLIT_AHEAD)])),
                       1);
    __builtin_prefetch(&s->heads[bucket_of(shape, fresh + 3 * SPLIT_AHEAD)]);
}

/* The bucket behind the last gets its share of the one it doubles. */
static void split_next(struct shard *s)
{
    uint32_t fresh = buckets_of(s);
    uint64_t grown = table_shape(fresh + 1);
    _Atomic uint32_t *from = &s->heads[bucket_of(table_shape(fresh), fresh)];
    _Atomic uint32_t *to = &s->heads[fresh];
    expect_split(s, fresh);
    while (link_of(from) != 0) {
        struct entry *e = entry_at(s, link_of(from));
        if (bucket_of(grown, e->hash) == fresh) {
            uint32_t ref = link_of(from);
            link_store(from, link_of(&e->chain));
            link_store(&e->chain, link_of(to));
            link_store(to, ref);
        } else {
            from = &e->chain;
        }
    }
    atomic_store_explicit(&s->shape, grown, memory_order_release);
}

void table_grow(struct l1 *l1, struct shard *s, struct work *work)
{
    const size_t bytes = BUCKETS_STEP * sizeof(*s->heads);
    for (int i = 0; i < GROW_STEP && is_crowded(s) && buckets_of(s) < s->table.buckets_max; i++) {
        if (buckets_of(s) % BUCKETS_STEP == 0) {
            if (room_for_bytes(l1, s, bytes, work) != ROOM_IS_THERE) {
                return;
            }
            s->used += bytes;
        }
        split_next(s);
    }
}

/* Looks at one bucket from where the sweep left it; true when it is done with it. */
static bool sweep_bucket(struct l1 *l1, struct shard *s, size_t *budget, int64_t now)
{
    struct table *t = &s->table;
    struct entry *e = link_load(s, &s->heads[t->sweep_bucket]);
    if (e == NULL) {
        (*budget)--;
        return true;
    }
    for (uint32_t skip = t->sweep_passed; e != NULL && skip > 0; skip--) {
        e = link_load(s, &e->chain);
    }
    while (e != NULL && *budget > 0) {
        struct entry *next = link_load(s, &e->chain);
        enum fate fate = entry_fate(l1, e, now);
        if (fate == FATE_VOID || fate == FATE_EXPIRED) {
            entry_bury(s, e, fate);
        } else {
            t->sweep_passed++;
        }
        (*budget)--;
        e = next;
    }
    return e == NULL;
}

bool table_sweep(struct l1 *l1, struct shard *s, size_t *budget, int64_t now)
{
    struct table *t = &s->table;
    while (*budget > 0) {
        if (!sweep_bucket(l1, s, budget, now)) {
            return false;
        }
        t->sweep_passed = 0;
        t->sweep_bucket++;
        if (t->sweep_bucket >= buckets_of(s)) {
            t->sweep_bucket = 0;
            return true;
        }
    }
    return false;
}
