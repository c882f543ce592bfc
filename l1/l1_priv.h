/* SPDX-License-Identifier: Apache-2.0
 *
 * l1_priv.h: what the files of l1/ share. A process has one struct l1; it is cut into shards by the
 * top bits of the hash, and everything about a key lies in its shard:
 *
 *     l1 ─┬─ covers[]   incarnation and moment of each fill connection (atomics)
 *         ├─ slots[]    generation of each slot (atomics)
 *         ├─ readers[]  who may be looking without a lock                       limbo.c
 *         └─ shards[] ─┬─ table    hash -> entry                                table.c
 *                      ├─ slab     the memory of entries: pages cut into slots  slab.c
 *                      ├─ limbo    dropped entries that a reader may still see  limbo.c
 *                      ├─ S, M     the entries in the order they are evicted    evict.c
 *                      ├─ ghost    fingerprints of what left S lately           evict.c
 *                      └─ under_way[]  by hash: leases that can be joined       lease.c
 *                                      and how many writes are unanswered       change.c
 *
 * The memory of a shard is one reserved mapping, touched as it is needed; a reference to something
 * in it is its distance from the beginning in units of 8 bytes, so 4 bytes reach 32 GiB:
 *
 *     base ─► nobody | ghost | heads of the buckets ... | page | page | page ...
 *
 * Who may look at what:
 *   - the lock guards everything in a shard; whoever changes something holds it;
 *   - a reader without the lock goes from a head along `chain` from entry to entry, and reads what
 *     never changes in an entry once it is in the table (all but the queue links, `freq` and
 *     `flags`). It believes only what it finds: if it finds nothing, it looks again with the lock,
 *     because an entry may have been moved under its feet.
 *
 * Invariants:
 *   1. An entry is in the table, in one queue, and has FLAG_LIVE, or it has none of the three.
 *   2. The memory of an entry that left the table is reused only when every reader that was under
 *      way has rested (limbo.c). Until then its `chain` stays as it was, so that a reader that
 *      stands on it gets on.
 *   3. FLAG_LIVE goes before the call that drops the entry gives the lock back. A reader looks at
 *      it behind the cover's moment (C11).
 *   4. fixed + used <= max_memory, where used is what the shards' pages, heads, blobs and leases
 *      take: checked when a page is granted or a block allocated.
 *
 * Every function below wants the shard's lock held and takes no other, unless it says otherwise.
 * Blobs that are let go are gathered in a `struct work` and freed after unlocking.
 */
#pragma once

#include "l1.h"
#include "../conf/mem.h"
#include "../conf/mutant.h"

/* Hash bits: 58..63 choose the shard, 0..31 are kept in the entry and choose the bucket. */
#define SHARD_BITS_AT 58
#define SHARDS_MAX    64
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

static inline bool is_up(uint32_t incarnation)
{
    return incarnation % 2 == 1;
}

/* ---- Entries ------------------------------------------------------------------------------- */

#define FLAG_LIVE   1u  /* in the table */
#define FLAG_MAIN   2u  /* in M, otherwise in S */
#define FLAG_NULL   4u  /* the key does not exist: no value */
#define FLAG_FRAMED 8u  /* the value is kept without the "$n\r\n" and "\r\n" around it */
#define FLAG_BLOB   16u /* instead of a value there is a pointer to a blob that has it */
#define FLAG_PLACE  32u /* 4 bytes go before the key: the slot, or without slots the db */

/* Bytes of a processor's cache that come at once. An entry with a short value ends in its second such line. */
#define CACHE_LINE 64

/* 32 bytes, then the place if it is not 0, the key, the value. Links are references, 0 is none. */
struct entry {
    _Atomic uint32_t chain; /* next in the bucket */
    uint32_t newer;         /* the queue, oldest first; when dropped: next in limbo or free slot */
    uint32_t older;
    uint32_t hash;
    uint32_t deadline; /* the low bits of ms, see DEADLINE_MAX */
    uint32_t stamp;    /* the cover's incarnation + the slot's generation: see entry_fate */
    uint16_t cover;
    uint16_t key_len;
    uint16_t value_len;   /* as it is kept here; nothing with a blob */
    _Atomic uint8_t freq; /* hits since it was queued, up to FREQ_MAX; readers count as well */
    _Atomic uint8_t flags;
    char bytes[];
};

#define FREQ_MAX 3

/* No entry lives longer than 12 days, so that what is left can be told from what is over by the low
 * 32 bits of a moment, for 37 days from its beginning. By then the sweep has met it; and if the
 * process stood still so long, its cover did not come back (l1_cover_renew). */
#define DEADLINE_MAX ((int64_t)1 << 30)

enum fate {
    FATE_LIVE,
    FATE_VOID,    /* its cover went down, its slot moved, or everything was dropped */
    FATE_EXPIRED, /* past its TTL */
    FATE_LAPSED,  /* its cover is late with its PONG; may still be renewed */
};

/* What a call carries along: the time, and blobs to let go of once the lock is given back. */
struct work {
    int64_t now;
    uint32_t chances; /* second chances given (evict.c) */
    uint32_t dead_count;
    struct blob *dead[16];
};

/* ---- A shard ------------------------------------------------------------------------------- */

#define REF_UNIT    8
#define CLASSES_MAX 96
#define NO_PAGE     UINT32_MAX

/* The sizes that pages are cut into; the same in all shards. */
struct classes {
    size_t page_size; /* a power of two: */
    unsigned int page_shift;
    uint32_t count;
    uint32_t size[CLASSES_MAX];       /* bytes of a slot, ascending */
    uint32_t per_page[CLASSES_MAX];   /* slots */
    uint8_t of[32768 / REF_UNIT + 1]; /* by bytes / REF_UNIT, rounded up */
};

/* A page is bare (has no memory), free (has memory, no class), or cut for a class: then it is
 * listed there if it has a free slot, except the one that is being drained. */
struct page {
    uint32_t next; /* in the list that it is in */
    uint32_t prev;
    uint32_t first_free; /* slot */
    uint16_t cut;        /* slots from the beginning that have been used before */
    uint16_t used;       /* slots that are not free */
    uint16_t class;
};

struct slab {
    const struct classes *classes;
    struct page *pages;
    size_t first_page; /* bytes from base */
    uint32_t page_count;
    uint32_t touched; /* pages from here on were never used */
    uint32_t bare;    /* list: had memory once and gave it back */
    uint32_t free;    /* list */
    uint32_t free_count;
    size_t free_bytes; /* in the free slots of cut pages, but for the one being drained */
    struct {
        uint32_t open; /* list of the pages with a free slot */
        uint32_t free_slots;
    } class[CLASSES_MAX];
    uint32_t drain;    /* a sparse page on its way to become free, or NO_PAGE */
    uint32_t drain_at; /* its slots before this one have been looked at */
};

/* Chains behind buckets, which are added one at a time (linear hashing): growing splits one bucket
 * and moves its one or two entries, there is never a moment when everything moves. */
struct table {
    uint32_t buckets_max;
    size_t items;
    uint32_t sweep_bucket; /* where the sweep goes on, and how many live entries of that bucket */
    uint32_t sweep_passed; /* it has seen */
};

struct queue {
    uint32_t oldest;
    uint32_t newest;
    size_t bytes;
};

/* Dropped entries, linked by `newer`. `fresh` gathers; `aged` were all dropped before `epoch`. */
struct limbo {
    uint32_t fresh;
    uint32_t aged;
    uint64_t epoch;
    size_t bytes;
};

struct ghost {
    uint32_t *slots; /* sets x GHOST_WAYS of {fingerprint:16, age:16}, 0 = empty */
    uint32_t sets;
    unsigned int age_shift; /* age = bytes evicted from S >> age_shift */
    uint32_t memory;        /* how many ages back it remembers */
    uint64_t evicted;       /* bytes evicted from S, ever */
};

#define UNDER_WAY 2048
/* Bytes for the key that every lease has, so that its memory can be used again; so many are kept for that, some 40 KiB
 * that are charged to nobody, but none where sanitizers look for use after free. */
#define LEASE_KEY 40
#ifdef NEARSIDE_LIBC_MALLOC
#define LEASE_SPARES_MAX 0
#else
#define LEASE_SPARES_MAX 256
#endif
#define LEASES_MAX ((size_t)8 * UNDER_WAY)

struct l1_lease {
    struct l1_lease *next;  /* in its place of under_way[]; of a spare one: the next spare one */
    struct l1_lease **link; /* what leads to it there, while it is open */
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
    bool open;       /* found in under_way[]; once closed it stays closed */
    bool carried;    /* has waiters that a detached lease left it (R5b) */
    bool unanswered; /* l1_lease_await; its cover's thread alone looks at it */
    bool bare;       /* its owner delivers the value himself (l1_lease_try) */
    uint32_t key_len;
    char key[];
};

/* What is under way for the keys of some bits of the hash, on one line. */
struct under_way {
    struct l1_lease *open; /* those that can be joined */
    uint32_t writes[2];    /* unanswered, by one bit more */
};

#define VERSIONS 16 /* of a shard: one line */

struct shard {
    /* What lookups read, on lines that only growing writes. */
    CACHE_ALIGNED char *base;
    _Atomic uint32_t *heads;
    _Atomic uint64_t shape; /* table_shape of the buckets in use */

    CACHE_ALIGNED struct lock lock;
    uint32_t generation; /* a lease of another one is detached */
    uint64_t writes;     /* unanswered, of single keys */
    uint64_t wide;       /* those of all keys */
    size_t mapped;       /* bytes reserved at base */
    size_t budget;
    size_t used;    /* of budget */
    size_t reserve; /* bytes that are kept free, for what comes while readers are under way */
    struct table table;
    struct slab slab;
    struct limbo limbo;
    struct queue small;
    struct queue main;
    size_t small_target; /* bytes */
    struct ghost ghost;
    size_t leases; /* not ended yet, open or not */
    size_t lease_bytes;
    size_t lease_bytes_max;
    struct l1_stats counted; /* all but items, bytes, leases, writes */
    CACHE_ALIGNED struct under_way under_way[UNDER_WAY];
    struct l1_lease *spare; /* memory of leases that ended, for the next ones */
    uint32_t spares;
    /* By hash; written under the lock (l1_version). */
    CACHE_ALIGNED _Atomic uint32_t versions[VERSIONS];
};

/* 0: resting. Otherwise the epoch that its thread saw when it began to look. */
struct l1_reader {
    CACHE_ALIGNED _Atomic uint64_t seen;
};

struct l1 {
    struct shard *shards;
    struct cover *covers;
    struct l1_reader *readers;
    uint32_t shard_count; /* a power of two */
    uint32_t cover_count;
    uint32_t reader_count;
    _Atomic uint32_t *slots; /* generations: what was fetched in an older one is void */
    uint32_t slot_count;
    bool has_slots;
    size_t max_item_size;
    size_t key_max; /* entry_key_max */
    size_t fixed;   /* bytes charged outside the shards */
    struct classes classes;
    void *block; /* what the allocator gave for this, unaligned */
    void *shards_block;
    void *covers_block;
    void *readers_block;
    unsigned char secret[192];
    uint32_t sweep_shard;                 /* the sweeping thread's */
    CACHE_ALIGNED _Atomic uint64_t epoch; /* from 1 on */
    /* Moves between the last drop and the first install of such writes as l1_get_all must not see
     * half of. */
    CACHE_ALIGNED _Atomic uint64_t torn;
    _Atomic uint64_t drop_alls;
    _Atomic uint64_t version; /* moves with what has no key (l1_version) */
};

static inline uint32_t shard_index(const struct l1 *l1, uint64_t hash)
{
    return (uint32_t)(hash >> SHARD_BITS_AT) & (l1->shard_count - 1);
}

static inline struct shard *shard_of(const struct l1 *l1, uint64_t hash)
{
    return &l1->shards[shard_index(l1, hash)];
}

/* NULL for 0. */
static inline struct entry *entry_at(const struct shard *s, uint32_t ref)
{
    return ref == 0 ? NULL : (struct entry *)(void *)(s->base + (size_t)ref * REF_UNIT);
}

static inline uint32_t ref_of(const struct shard *s, const struct entry *e)
{
    return (uint32_t)((size_t)((const char *)e - s->base) / REF_UNIT);
}

static inline unsigned int flags_of(const struct entry *e)
{
    return atomic_load_explicit(&e->flags, memory_order_relaxed);
}

static inline void flags_set(struct entry *e, unsigned int flags)
{
    atomic_store_explicit(&e->flags, (uint8_t)flags, memory_order_relaxed);
}

/* Slot or db. */
static inline uint32_t entry_place(const struct entry *e)
{
    uint32_t place = 0;
    if (flags_of(e) & FLAG_PLACE) {
        memcpy(&place, e->bytes, sizeof(place));
    }
    return place;
}

static inline uint32_t entry_db(const struct l1 *l1, const struct entry *e)
{
    return l1->has_slots ? 0 : entry_place(e);
}

static inline size_t key_at(unsigned int flags)
{
    _Static_assert(FLAG_PLACE == 8 * sizeof(uint32_t), "the flag is eight times the offset");
    return (flags & FLAG_PLACE) / 8;
}

static inline const char *entry_key(const struct entry *e)
{
    return e->bytes + key_at(flags_of(e));
}

/* The value as it is kept, without frame; not of one with a blob. */
static inline struct slice entry_value(const struct entry *e, unsigned int flags)
{
    return slice_of(e->bytes + key_at(flags) + e->key_len, e->value_len);
}

static inline struct blob *entry_blob(const struct entry *e)
{
    struct blob *b;
    memcpy(&b, entry_key(e) + e->key_len, sizeof(b));
    return b;
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

/* Partner: l1_drop_slot. */
static inline uint32_t slot_generation(const struct l1 *l1, uint32_t slot)
{
    return atomic_load_explicit(&l1->slots[slot], memory_order_acquire);
}

static inline bool entry_is_over(const struct entry *e, int64_t now)
{
    return (int32_t)(e->deadline - (uint32_t)now) <= 0;
}

/* Incarnation and generation only grow, so their sum is what it was exactly when both are. */
static inline enum fate entry_fate(const struct l1 *l1, const struct entry *e, int64_t now)
{
    uint32_t generation = slot_generation(l1, l1->has_slots ? entry_place(e) : 0);
    enum fate fate = cover_fate(l1, e->cover, e->stamp - generation, now);
    return likely(!entry_is_over(e, now)) || fate == FATE_VOID ? fate : FATE_EXPIRED;
}

/* ---- entry.c ------------------------------------------------------------------------------- */

/* What an entry is to be: sizes and flags decided before it has memory. */
struct entry_plan {
    struct slice key;
    struct slice value; /* as it will be kept, unless there is a blob */
    struct blob *blob;  /* owned */
    uint32_t place;
    uint32_t flags;
    uint32_t class;
};

/* False when the value is not to be kept, or memory is out. entry_plan_fini lets go of the blob. No
 * lock is wanted. */
MUST_CHECK bool entry_plan_init(struct entry_plan *plan, const struct l1 *l1,
                                const struct l1_lease *lease, const struct l1_value *value);
void entry_plan_fini(struct entry_plan *plan);
/* Writes all but the links into a slot of the plan's class; the blob is the entry's from now on. */
void entry_write(struct entry *e, struct entry_plan *plan, const struct l1_lease *lease,
                 uint32_t deadline);
/* Whether the value, as it is sent, is `encoded`; not for a null. */
bool entry_is_value(const struct entry *e, struct slice encoded);
/* The value as it is sent, in a blob of the caller's; NULL when memory is out. Not for a null. */
MUST_CHECK struct blob *entry_copy(const struct entry *e);
/* The longest key that can be in an entry at all. */
size_t entry_key_max(const struct l1 *l1);

/* ---- slab.c -------------------------------------------------------------------------------- */

void classes_init(struct classes *c, size_t budget);
/* Memory for the shard, with as much room for pages as the budget could ever pay for; false when
 * the system refuses. slab_fini gives it back either way. */
MUST_CHECK bool slab_init(struct shard *s, const struct classes *c);
void slab_fini(struct shard *s);

static inline uint32_t class_of(const struct classes *c, size_t bytes)
{
    return c->of[(bytes + REF_UNIT - 1) / REF_UNIT];
}

uint32_t slab_class_at(const struct shard *s, uint32_t ref);

/* Bytes an entry is charged with: its slot's, and its blob's. */
static inline size_t entry_charge(const struct shard *s, const struct entry *e)
{
    const struct classes *c = s->slab.classes;
    unsigned int flags = flags_of(e);
    size_t bytes = sizeof(*e) + key_at(flags) + e->key_len;
    if (unlikely(flags & FLAG_BLOB)) {
        return c->size[class_of(c, bytes + sizeof(struct blob *))] + mem_usable(entry_blob(e));
    }
    return c->size[class_of(c, bytes + e->value_len)];
}
/* Whether a page can be had. */
bool slab_has_page(const struct shard *s);
/* Whether slab_alloc will find a slot. */
bool slab_has_room(const struct shard *s, uint32_t class);
/* A slot (contents undefined), or NULL. */
MUST_CHECK struct entry *slab_alloc(struct shard *s, uint32_t class);
/* Returns the slot's bytes. */
size_t slab_free(struct shard *s, struct entry *e);
/* Gives the memory of a free page back to the system; false when there is none. */
bool slab_give_back(struct shard *s);
/* The next entry to be moved off the page that is drained, if there is one. Chooses a page when none
 * is: of the class that has most free slots, if those would make a page. NULL: nothing to move. */
struct entry *slab_next_to_move(struct shard *s);

/* ---- limbo.c ------------------------------------------------------------------------------- */

/* Puts a dropped entry by until nobody can see it; `charge` is entry_charge. */
void limbo_add(struct shard *s, struct entry *e, size_t charge);
/* Frees up to max of those that nobody can see any more; how many. */
uint32_t limbo_reclaim(struct l1 *l1, struct shard *s, uint32_t max, struct work *work);

/* Before a lookup without the lock. No lock is wanted. */
static inline void reader_begin(struct l1 *l1, struct l1_reader *r)
{
    if (unlikely(atomic_load_explicit(&r->seen, memory_order_relaxed) == 0)) {
        uint64_t epoch = atomic_load_explicit(&l1->epoch, memory_order_acquire);
        atomic_store_explicit(&r->seen, epoch, memory_order_release);
        /* Either limbo_reclaim sees that we look, or we see what was dropped before it. */
        atomic_thread_fence(memory_order_seq_cst);
    }
}

static inline void work_begin(struct work *work, int64_t now)
{
    work->now = now;
    work->chances = work->dead_count = 0;
}

/* Lets go of the blobs; no lock is wanted. */
void work_free(struct work *work);

static inline void work_end(struct work *work)
{
    if (unlikely(work->dead_count > 0)) {
        work_free(work);
    }
}

/* ---- room.c -------------------------------------------------------------------------------- */

enum room {
    ROOM_IS_THERE,
    ROOM_MORE_STEPS, /* not yet: ask again, the lock may be given away in between */
    ROOM_NEVER,      /* or not before readers rest */
};

/* Makes room for `need` bytes outside the slab, or for a slot, in no more than a few steps. */
MUST_CHECK enum room room_for_bytes(struct l1 *l1, struct shard *s, size_t need, struct work *work);
MUST_CHECK enum room room_for_slot(struct l1 *l1, struct shard *s, uint32_t class,
                                   struct work *work);
/* Keeps the reserve; after what took room. */
void room_ahead(struct l1 *l1, struct shard *s, struct work *work);

/* Out of table and queue, and into limbo. Returns what it is charged with. */
size_t entry_drop(struct shard *s, struct entry *e);
/* The same for one found dead: counts why. */
void entry_bury(struct shard *s, struct entry *e, enum fate fate);

/* ---- table.c ------------------------------------------------------------------------------- */

#define BUCKETS_STEP 1024 /* whose heads fill a page of the system's */

/* So many buckets, and above that the mask that bucket_of begins with. */
static inline uint64_t table_shape(uint32_t buckets)
{
    return (uint64_t)(UINT32_MAX >> __builtin_clz(buckets - 1)) << 32 | buckets;
}

/* By linear hashing. */
static inline uint32_t bucket_of(uint64_t shape, uint32_t hash)
{
    uint32_t buckets = (uint32_t)shape;
    uint32_t mask = (uint32_t)(shape >> 32);
    uint32_t i = hash & mask;
    return i < buckets ? i : i & (mask >> 1);
}

static inline _Atomic uint32_t *table_head(const struct shard *s, uint64_t hash)
{
    uint64_t shape = atomic_load_explicit(&s->shape, memory_order_acquire);
    return &s->heads[bucket_of(shape, (uint32_t)hash)];
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

/* Most entries have no place: what that leaves to compare takes one look at the flags. */
static inline bool entry_is(const struct l1 *l1, const struct entry *e, uint64_t hash,
                            struct slice key, uint32_t db)
{
    if (e->hash != (uint32_t)hash || e->key_len != key.n) {
        return false;
    }
    if (likely((flags_of(e) & FLAG_PLACE) == 0)) {
        return (db == 0 || MUTANT(DB)) && key_eq(e->bytes, key.p, key.n);
    }
    return (entry_db(l1, e) == db || MUTANT(DB)) && key_eq(entry_key(e), key.p, key.n);
}

/* Partner of the acquire: the release in table_insert and wherever else a link is set. */
static inline struct entry *link_load(const struct shard *s, const _Atomic uint32_t *link)
{
    return entry_at(s, atomic_load_explicit(link, memory_order_acquire));
}

static inline struct entry *table_find(const struct l1 *l1, const struct shard *s, uint64_t hash,
                                       struct slice key, uint32_t db)
{
    struct entry *e = link_load(s, table_head(s, hash));
    while (e != NULL && !entry_is(l1, e, hash, key, db)) {
        e = link_load(s, &e->chain);
    }
    return e;
}

/* Links that a reader without the lock follows: entries that are moved meanwhile could lead it
 * around for ever. */
#define PEEK_MAX 32

/* Without the lock, from the head of its bucket on: NULL says nothing. */
static inline struct entry *table_peek(const struct l1 *l1, const struct shard *s,
                                       const _Atomic uint32_t *head, const struct l1_key *key,
                                       uint32_t db)
{
    struct entry *e = link_load(s, head);
    for (int i = 0; i < PEEK_MAX && e != NULL; i++) {
        if (likely(entry_is(l1, e, key->hash, key->key, db))) {
            return e;
        }
        e = link_load(s, &e->chain);
    }
    return NULL;
}

/* Takes the lock of the hash's shard in place of that of `held`, which may be NULL: who goes through many hashes often
 * stays where he is. */
static inline struct shard *hold_next(struct shard *s, struct shard *held)
{
    if (s != held) {
        if (held != NULL) {
            lock_give(&held->lock);
        }
        lock_take(&s->lock);
    }
    return s;
}

static inline uint32_t link_of(const _Atomic uint32_t *link)
{
    return atomic_load_explicit(link, memory_order_relaxed);
}

/* Where an entry of that reference would be, for who only asks for the memory: 0 is the line at the beginning of the
 * mapping, which nobody writes. */
static inline const struct entry *seat_of(const struct shard *s, uint32_t ref)
{
    return (const struct entry *)(const void *)(s->base + (size_t)ref * REF_UNIT);
}

void table_init(struct shard *s);
/* The next entry of that hash, whatever its key and db; start with NULL. */
struct entry *table_next(const struct shard *s, uint64_t hash, const struct entry *after);
void table_insert(struct shard *s, struct entry *e);
void table_remove(struct shard *s, struct entry *e);
/* `copy` takes the place of `e` in its bucket. */
void table_replace(struct shard *s, struct entry *e, struct entry *copy);
/* Adds buckets if the table is crowded and the budget allows; call after an insert. */
void table_grow(struct l1 *l1, struct shard *s, struct work *work);
/* Looks at no more than *budget entries (an empty bucket counts as one) and buries the dead among
 * them. True when it came to the end of the table. */
bool table_sweep(struct l1 *l1, struct shard *s, size_t *budget, int64_t now);

/* ---- evict.c ------------------------------------------------------------------------------- */

#define NOBODY                                                                                     \
    64 /* bytes at the beginning of the mapping: what a reference that is 0 would lead to */

/* Bytes of the mapping that the ghost wants. */
size_t evict_ghost_bytes(size_t budget);
void evict_init(struct shard *s);
/* A hint: an entry of that hash is going to be queued and put into the table. */
void evict_expect(const struct shard *s, uint64_t hash);
/* Queues a new entry; `charge` is entry_charge. */
void evict_admit(struct shard *s, struct entry *e, size_t charge);
/* Out of its queue; `charge` is entry_charge. */
void evict_release(struct shard *s, struct entry *e, size_t charge);
/* `copy` takes the place of `e` in its queue. */
void evict_replace(struct shard *s, const struct entry *e, struct entry *copy);
/* Looks at the entry whose turn it is: drops it, or lets it go round once more. False when there is
 * none. */
bool evict_step(struct l1 *l1, struct shard *s, struct work *work);

/* ---- lease.c ------------------------------------------------------------------------------- */

static inline struct under_way *under_way(struct shard *s, uint64_t hash)
{
    return &s->under_way[hash >> 32 & (UNDER_WAY - 1)];
}

/* A lease for the query's key and cover, in no table yet; NULL when memory is out. mem_free takes
 * it back until it is opened. No lock is wanted. */
MUST_CHECK struct l1_lease *lease_try(const struct l1_query *q);
/* The same, of what the shard has spare if there is any. */
MUST_CHECK struct l1_lease *lease_reuse(struct shard *s, const struct l1_query *q);
/* Keeps the memory of one that is in no table as spare; false: it is for mem_free, without the lock. */
MUST_CHECK bool lease_keep_spare(struct shard *s, struct l1_lease *lease);
/* The one of that key among those from `lease` on. */
struct l1_lease *lease_search(struct l1_lease *lease, uint64_t hash, struct slice key, uint32_t db);

/* The open lease of that key, current or not. */
static inline struct l1_lease *lease_find(struct shard *s, uint64_t hash, struct slice key,
                                          uint32_t db)
{
    struct l1_lease *first = under_way(s, hash)->open;
    return likely(first == NULL) ? NULL : lease_search(first, hash, key, db);
}

/* Open, and nothing happened that detaches it: may be joined, and its value installed. */
bool lease_is_current(const struct l1 *l1, const struct shard *s, const struct l1_lease *lease,
                      int64_t now);
/* Whether there may be this lease too; evicts to make it so. */
MUST_CHECK bool lease_fits(struct l1 *l1, struct shard *s, const struct l1_lease *lease,
                           struct work *work);
/* Puts it into under_way[], sent now under that incarnation of its cover; it fits. */
void lease_open(struct shard *s, struct l1_lease *lease, uint32_t incarnation, int64_t now);
void lease_join(struct shard *s, struct l1_lease *lease, struct l1_waiter *w);
void lease_detach(struct shard *s, struct l1_lease *lease);
bool lease_detach_some(struct shard *s, uint64_t hash, const uint32_t *db, uint16_t but);

/* Detaches the open leases of a hash, in every db or (if not NULL) in *db; true if there were
 * any. */
static inline bool lease_detach_hash(struct shard *s, uint64_t hash, const uint32_t *db)
{
    return under_way(s, hash)->open != NULL && lease_detach_some(s, hash, db, L1_NO_COVER);
}

static inline uint32_t version_at(uint64_t hash)
{
    return (uint32_t)(hash >> 40) & (VERSIONS - 1);
}

/* Before whoever learns of it is answered. */
static inline void version_move(struct shard *s, uint64_t hash)
{
    _Atomic uint32_t *version = &s->versions[version_at(hash)];
    uint32_t now = atomic_load_explicit(version, memory_order_relaxed);
    atomic_store_explicit(version, now + 1, memory_order_release);
}

static inline uint32_t *write_count(struct under_way *at, uint64_t hash)
{
    return &at->writes[(hash >> 32) / UNDER_WAY & 1];
}

/* Whether nothing may be installed for that hash. */
static inline bool writes_block(struct shard *s, uint64_t hash)
{
    return s->wide > 0 || *write_count(under_way(s, hash), hash) > 0;
}

/* Drops the entries of a hash whatever their db; how many. *hit, if asked for, becomes true if one of them
 * was hit since it was queued. In change.c. */
size_t shard_drop_some(struct shard *s, uint64_t hash, bool *hit);

static inline bool shard_may_hold(const struct shard *s, uint64_t hash)
{
    return atomic_load_explicit(table_head(s, hash), memory_order_relaxed) != 0;
}

static inline size_t shard_drop_hash(struct shard *s, uint64_t hash, bool *hit)
{
    return shard_may_hold(s, hash) ? shard_drop_some(s, hash, hit) : 0;
}

/* R7 for a value: drops the entries of (hash, db) that differ and detaches. In change.c. */
void shard_observe(const struct l1 *l1, struct shard *s, uint64_t hash, uint32_t db,
                   struct slice encoded);
