/* SPDX-License-Identifier: Apache-2.0
 *
 * l1_priv.h: what the files of l1/ share. A process has one struct l1; it is cut into shards by the
 * top bits of the hash, and everything about a key lies in its shard:
 *
 *     l1 ─┬─ covers[]   incarnation and moment of each fill connection (atomics)
 *         └─ shards[] ─┬─ table    (key, db) -> entry                            table.c
 *                      ├─ S, M     the entries in the order they are evicted     evict.c
 *                      ├─ ghost    fingerprints of what left S lately            evict.c
 *                      ├─ open[]   leases that can be joined                     lease.c
 *                      └─ writes[] hashes with unanswered writes                 lease.c
 *
 * Every function below wants the shard's lock held and takes no other, unless it says otherwise.
 * What is to be freed is gathered in a `struct entry *dead` list and freed after unlocking.
 */
#pragma once

#include "l1.h"
#include "../conf/mutant.h"

/* Hash bits: 58..63 choose the shard, 0..31 the bucket. */
#define SHARD_BITS_AT 58
#define SHARDS_MAX    16
#define SLOTS_MAX     16384u

/* ---- The lock (lock.c) --------------------------------------------------------------------- */

struct lock {
    _Atomic uint32_t state; /* 0 free, 1 held, 2 held and somebody sleeps */
};

void lock_wait(struct lock *l);
void lock_wake(struct lock *l);

static inline void lock_take(struct lock *l)
{
    uint32_t is_free = 0;
    if (unlikely(!atomic_compare_exchange_strong_explicit(
            &l->state, &is_free, 1, memory_order_acquire, memory_order_relaxed))) {
        lock_wait(l);
    }
}

static inline void lock_give(struct lock *l)
{
    if (unlikely(atomic_exchange_explicit(&l->state, 0, memory_order_release) == 2)) {
        lock_wake(l);
    }
}

/* ---- Covers -------------------------------------------------------------------------------- */

/* The incarnation is odd while the cover is up: whoever compares it with that of an entry learns
 * both in one load. Down makes it even, up makes it the next odd number, and no number comes
 * back. */
struct cover {
    CACHE_ALIGNED _Atomic int64_t servable_until;
    _Atomic uint32_t incarnation;
};

/* ---- Entries ------------------------------------------------------------------------------- */

struct entry {
    struct entry *chain; /* next in the bucket; after removal: next of the dead */
    struct entry *newer; /* the queue, oldest first */
    struct entry *older;
    uint64_t hash;
    int64_t deadline;
    struct blob *blob; /* the value, when it is CHAIN_REF_MIN or larger */
    uint32_t incarnation;
    uint32_t db;
    uint32_t key_len;
    uint32_t value_len; /* of the value in `bytes` */
    uint32_t slot_generation;
    uint16_t slot;
    uint16_t cover;
    uint8_t freq; /* hits since it was queued, up to FREQ_MAX */
    bool in_main;
    bool is_null;
    char bytes[]; /* the key, and behind it the value unless that is in the blob */
};

#define FREQ_MAX 3

enum fate {
    FATE_LIVE,
    FATE_VOID,    /* its cover went down, or everything was dropped */
    FATE_EXPIRED, /* past its TTL */
    FATE_LAPSED,  /* its cover is late with its PONG; may still be renewed */
};

/* ---- A shard ------------------------------------------------------------------------------- */

/* Buckets come in segments and are added one at a time (linear hashing): growing splits one bucket
 * and moves its one or two entries, there is never a moment when everything moves. */
#define SEGMENT_BUCKETS 512

struct table {
    struct entry ***segments; /* room for all there will ever be */
    uint32_t buckets;         /* in use; low_mask < buckets <= high_mask + 1 */
    uint32_t buckets_max;
    uint32_t low_mask; /* the doubling that is complete, and the one in progress */
    uint32_t high_mask;
    size_t items;
    uint32_t sweep_bucket; /* where the sweep goes on, and how many live entries of that bucket */
    uint32_t sweep_passed; /* it has seen */
};

struct queue {
    struct entry *oldest;
    struct entry *newest;
    size_t bytes;
};

struct ghost {
    uint32_t *slots; /* sets x GHOST_WAYS of {fingerprint:16, age:16}, 0 = empty */
    uint32_t sets;
    unsigned int age_shift; /* age = bytes evicted from S >> age_shift */
    uint32_t memory;        /* how many ages back it remembers */
    uint64_t evicted;       /* bytes evicted from S, ever */
};

#define LEASE_BUCKETS 1024
#define LEASES_MAX    ((size_t)16 * LEASE_BUCKETS)

struct l1_lease {
    struct l1_lease *next; /* in its bucket of open[] */
    struct l1_waiter *first;
    struct l1_waiter *last;
    uint64_t hash;
    int64_t t_send;
    size_t charge;
    uint32_t db;
    uint32_t generation;  /* of the shard */
    uint32_t incarnation; /* of the cover */
    uint32_t slot_generation;
    uint16_t slot;
    uint16_t cover;
    uint16_t fetcher;
    bool open;    /* found in open[]; once closed it stays closed */
    bool carried; /* has waiters that a detached lease left it (R5b) */
    bool bare;    /* its owner delivers the value himself (l1_lease_try) */
    size_t key_len;
    char key[];
};

#define WRITE_SLOTS          1024
#define WRITE_SLOTS_USED_MAX 768

struct write_slot {
    uint64_t hash;
    uint32_t count; /* 0: empty */
};

struct writes {
    uint32_t used;     /* slots */
    uint64_t tabled;   /* writes counted in slots */
    uint64_t overflow; /* writes that found no slot */
    uint64_t wide;
    struct write_slot slots[WRITE_SLOTS];
};

struct shard {
    CACHE_ALIGNED struct lock lock;
    size_t budget;
    size_t used; /* of budget */
    struct table table;
    struct queue small;
    struct queue main;
    size_t small_target; /* bytes */
    struct ghost ghost;
    uint32_t generation; /* a lease of another one is detached */
    size_t leases;       /* not ended yet, open or not */
    size_t lease_bytes;
    size_t lease_bytes_max;
    struct l1_stats counted; /* all but items, bytes, leases, writes */
    struct l1_lease *open[LEASE_BUCKETS];
    struct writes writes;
};

struct l1 {
    struct shard *shards;
    struct cover *covers;
    uint32_t shard_count; /* a power of two */
    uint32_t cover_count;
    _Atomic uint32_t *slots; /* generations: what was fetched in an older one is void */
    uint32_t slot_count;
    size_t max_item_size;
    size_t fixed; /* bytes charged outside the shards */
    /* Moves between the last drop and the first install of such writes as l1_get_all must not see
     * half of. */
    _Atomic uint64_t torn;
    _Atomic uint64_t drop_alls;
    uint32_t sweep_shard; /* the sweeping thread's */
    void *shards_block;   /* what the allocator gave, unaligned */
    void *covers_block;
    unsigned char secret[192];
};

static inline struct shard *shard_of(const struct l1 *l1, uint64_t hash)
{
    return &l1->shards[(hash >> SHARD_BITS_AT) & (l1->shard_count - 1)];
}

/* Whether what the cover fetched in that incarnation may be served at `now`. The moment is loaded
 * first (acquire; partner: the release in l1_cover_up and l1_cover_renew): with a moment of a later
 * incarnation comes that incarnation, and the comparison fails. */
static inline enum fate cover_fate(const struct l1 *l1, uint16_t cover, uint32_t incarnation,
                                   int64_t now)
{
    const struct cover *c = &l1->covers[cover];
    int64_t until = atomic_load_explicit(&c->servable_until, memory_order_acquire);
    if (unlikely(atomic_load_explicit(&c->incarnation, memory_order_acquire) != incarnation) &&
        !MUTANT(C1)) {
        return FATE_VOID;
    }
    return likely(now < until) || MUTANT(C6) ? FATE_LIVE : FATE_LAPSED;
}

/* Has the slot had the same owner since? Partner: l1_drop_slot. */
static inline bool slot_is_same(const struct l1 *l1, uint16_t slot, uint32_t generation)
{
    return atomic_load_explicit(&l1->slots[slot], memory_order_acquire) == generation;
}

static inline enum fate entry_fate(const struct l1 *l1, const struct entry *e, int64_t now)
{
    enum fate fate = cover_fate(l1, e->cover, e->incarnation, now);
    if (unlikely(!slot_is_same(l1, e->slot, e->slot_generation))) {
        return FATE_VOID;
    }
    return likely(now < e->deadline) || fate == FATE_VOID ? fate : FATE_EXPIRED;
}

static inline struct slice entry_value(const struct entry *e)
{
    if (e->blob != NULL) {
        return slice_of(e->blob->p, e->blob->n);
    }
    return slice_of(e->bytes + e->key_len, e->value_len);
}

/* Bytes an entry is charged with. */
size_t entry_charge(const struct entry *e);
/* Out of table and queue, onto the dead list. */
void entry_drop(struct shard *s, struct entry *e, struct entry **dead);
/* The same for one found dead: counts why. */
void entry_bury(struct shard *s, struct entry *e, enum fate fate, struct entry **dead);
/* Frees the dead; no lock is wanted. */
void entries_free(struct entry *dead);

/* ---- table.c ------------------------------------------------------------------------------- */

/* False when memory is out. What was set up is given back by table_fini either way. */
MUST_CHECK bool table_init(struct shard *s);
void table_fini(struct shard *s);

static inline struct entry **table_bucket(const struct table *t, uint64_t hash)
{
    uint32_t i = (uint32_t)hash & t->high_mask;
    i = i < t->buckets ? i : i & t->low_mask;
    return &t->segments[i / SEGMENT_BUCKETS][i % SEGMENT_BUCKETS];
}

/* Keys are short and mostly equal when they get here: a call of memcmp would cost more than it
 * does. */
static inline bool key_eq(const char *a, const char *b, size_t n)
{
    uint64_t x;
    uint64_t y;
    if (unlikely(n < sizeof(x))) {
        return memcmp(a, b, n) == 0;
    }
    for (size_t i = 0; i < n - sizeof(x); i += sizeof(x)) {
        memcpy(&x, a + i, sizeof(x));
        memcpy(&y, b + i, sizeof(y));
        if (x != y) {
            return false;
        }
    }
    /* The last word, which may overlap the one before. */
    memcpy(&x, a + n - sizeof(x), sizeof(x));
    memcpy(&y, b + n - sizeof(y), sizeof(y));
    return x == y;
}

static inline struct entry *table_find(const struct table *t, uint64_t hash, struct slice key,
                                       uint32_t db)
{
    struct entry *e = *table_bucket(t, hash);
    while (e != NULL && (e->hash != hash || (e->db != db && !MUTANT(DB)) || e->key_len != key.n ||
                         !key_eq(e->bytes, key.p, key.n))) {
        e = e->chain;
    }
    return e;
}

/* The next entry of that hash, whatever its key and db; start with NULL. */
struct entry *table_next(const struct table *t, uint64_t hash, const struct entry *after);
void table_insert(struct table *t, struct entry *e);
void table_remove(struct table *t, struct entry *e);
/* Adds buckets if the table is crowded and the budget allows; call after an insert. */
void table_grow(struct l1 *l1, struct shard *s, int64_t now, struct entry **dead);
/* Looks at no more than *budget entries (an empty bucket counts as one) and buries the dead among
 * them. True when it came to the end of the table. */
bool table_sweep(struct l1 *l1, struct shard *s, size_t *budget, int64_t now, struct entry **dead);

/* ---- evict.c ------------------------------------------------------------------------------- */

MUST_CHECK bool evict_init(struct shard *s);
void evict_fini(struct shard *s);
/* Queues a new entry and charges it; there is room. */
void evict_admit(struct shard *s, struct entry *e);
/* Out of its queue, uncharged. */
void evict_release(struct shard *s, struct entry *e);
/* Evicts until `need` more bytes fit; false (and nothing evicted) when they never will. */
MUST_CHECK bool evict_room(struct l1 *l1, struct shard *s, size_t need, int64_t now,
                           struct entry **dead);

/* ---- lease.c ------------------------------------------------------------------------------- */

/* A lease for the query's key and cover, in no table yet; NULL when memory is out. mem_free takes
 * it back until it is opened. No lock is wanted. */
MUST_CHECK struct l1_lease *lease_try(const struct l1_query *q);
/* The open lease of that key, current or not. */
struct l1_lease *lease_find(const struct shard *s, uint64_t hash, struct slice key, uint32_t db);
/* Open, and nothing happened that detaches it: may be joined, and its value installed. */
bool lease_is_current(const struct l1 *l1, const struct shard *s, const struct l1_lease *lease,
                      int64_t now);
/* Whether there may be this lease too; evicts to make it so. */
MUST_CHECK bool lease_fits(struct l1 *l1, struct shard *s, const struct l1_lease *lease,
                           int64_t now, struct entry **dead);
/* Puts it into open[], sent now under that incarnation of its cover; it fits. */
void lease_open(struct shard *s, struct l1_lease *lease, uint32_t incarnation, int64_t now);
void lease_join(struct shard *s, struct l1_lease *lease, struct l1_waiter *w);
void lease_detach(struct shard *s, struct l1_lease *lease);
/* Detaches the open leases of a hash, in every db or (if not NULL) in *db; true if there were
 * any. */
bool lease_detach_hash(struct shard *s, uint64_t hash, const uint32_t *db);

void writes_begin(struct shard *s, uint64_t hash);
void writes_end(struct shard *s, uint64_t hash);
/* Whether nothing may be installed for that hash. */
bool writes_block(const struct shard *s, uint64_t hash);

/* Drops the entries of a hash whatever their db; how many. In l1.c. */
size_t shard_drop_hash(struct shard *s, uint64_t hash, struct entry **dead);
/* R7 for a value: drops the entries of (hash, db) that differ and detaches. In l1.c. */
void shard_observe(struct shard *s, uint64_t hash, uint32_t db, struct slice encoded,
                   struct entry **dead);
