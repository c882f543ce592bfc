/* SPDX-License-Identifier: Apache-2.0
 *
 * l1.c: life of the cache, covers and slots, upkeep. Lookups are in get.c, changes in change.c,
 * endings of leases in lease.c.
 *
 * Covers and slots are under no lock: voiding everything of one is one addition.
 *
 * Threads: anyone, one shard's lock at a time, none when memory is freed or somebody is woken.
 * Not here: policy (what may be cached and for how long), counters of hits and misses.
 */
#include "l1_priv.h"

#include "../conf/mem.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>
#include <sys/random.h>

#define SHARD_MEMORY     ((size_t)32 * 1024 * 1024) /* below this a shard is not worth its price */
#define SHARDS_WANTED    16                         /* more only if references would not reach */
#define SHARD_REACH      ((size_t)24 << 30)         /* budget whose mapping they reach */
#define ITEMS_PER_BUDGET 4 /* a budget holds so many of the largest items */
#define LEASES_PART      8 /* leases may have budget / LEASES_PART */
#define ITEM_SIZE_LIMIT  ((size_t)1 << 30)
#define SWEEP_RUN        ((size_t)64) /* entries looked at in one critical section */
#define LIMBO_RUN        256          /* entries taken back in one */
#define RESERVE_PART     64           /* of a shard's pages are kept free ahead */
#define RESERVE_PAGES    2            /* at least */
#define HASH_SHORT       128          /* bytes that XXH3 hashes without a loop */
/* A cover that was late for so long missed sweeps as well, see DEADLINE_MAX. */
#define STANDSTILL_MAX ((int64_t)12 * 24 * 3600 * 1000)

/* ---- Life ---------------------------------------------------------------------------------- */

/* Zeroed and on a cache line of its own; *block is what mem_free wants. NULL when memory is out. */
static void *aligned_try(size_t count, size_t size, void **block, size_t *charged)
{
    const size_t line = _Alignof(struct cover);
    size_t n;
    if (__builtin_mul_overflow(count, size, &n) || __builtin_add_overflow(n, line, &n)) {
        return NULL;
    }
    *block = mem_try_zero(n);
    if (*block == NULL) {
        return NULL;
    }
    *charged += mem_usable(*block);
    return (char *)*block + (line - (uintptr_t)*block % line) % line;
}

/* A power of two, so that each has budget enough for several of the largest items. */
static size_t shards_for(const struct l1_options *o)
{
    size_t n = 1;
    while (n < SHARDS_MAX && (n < SHARDS_WANTED || o->max_memory / n > SHARD_REACH) &&
           o->max_memory / (2 * n) >= SHARD_MEMORY &&
           o->max_memory / (2 * n) / ITEMS_PER_BUDGET >= o->max_item_size) {
        n *= 2;
    }
    return n;
}

static bool shard_init(struct shard *s, const struct classes *c, size_t budget)
{
    size_t reserve = budget / c->page_size / RESERVE_PART;
    s->budget = budget;
    s->reserve = (reserve > RESERVE_PAGES ? reserve : RESERVE_PAGES) * c->page_size;
    s->lease_bytes_max = budget / LEASES_PART;
    if (!slab_init(s, c)) {
        return false;
    }
    table_init(s);
    evict_init(s);
    return true;
}

/* Blobs are the only thing of a shard's that is not in its mapping. */
static void free_blobs(struct shard *s, uint32_t ref)
{
    while (ref != 0) {
        struct entry *e = entry_at(s, ref);
        if (flags_of(e) & FLAG_BLOB) {
            blob_unref(entry_blob(e));
        }
        ref = e->newer;
    }
}

static void shard_fini(struct shard *s)
{
    free_blobs(s, s->small.oldest);
    free_blobs(s, s->main.oldest);
    free_blobs(s, s->limbo.fresh);
    free_blobs(s, s->limbo.aged);
    while (s->spare != NULL) {
        struct l1_lease *lease = s->spare;
        s->spare = lease->next;
        mem_free(lease);
    }
    slab_fini(s);
}

static bool options_agree(const struct l1_options *o, char err[ERR_MAX])
{
    if (o->max_item_size == 0 || o->max_item_size > ITEM_SIZE_LIMIT) {
        snprintf(err, ERR_MAX, "max_item_size is %zu, it must be between 1 and %zu",
                 o->max_item_size, ITEM_SIZE_LIMIT);
        return false;
    }
    if (o->max_memory / ITEMS_PER_BUDGET < o->max_item_size) {
        snprintf(err, ERR_MAX, "max_memory is %zu, but max_item_size (%zu) must fit %d times",
                 o->max_memory, o->max_item_size, ITEMS_PER_BUDGET);
        return false;
    }
    if (o->covers >= L1_NO_COVER) {
        snprintf(err, ERR_MAX, "there are %u covers, at most %u are possible", o->covers,
                 L1_NO_COVER - 1U);
        return false;
    }
    if (o->slots > SLOTS_MAX) {
        snprintf(err, ERR_MAX, "there are %u slots, at most %u are possible", o->slots, SLOTS_MAX);
        return false;
    }
    return true;
}

/* Everything that options decide; on false some of it is set up. */
static bool l1_init(struct l1 *l1, const struct l1_options *o, char err[ERR_MAX])
{
    const char *no_memory = "out of memory for the tables of the cache";
    size_t shards = shards_for(o);
    l1->covers = aligned_try(o->covers, sizeof(struct cover), &l1->covers_block, &l1->fixed);
    l1->shards = aligned_try(shards, sizeof(struct shard), &l1->shards_block, &l1->fixed);
    l1->readers = aligned_try(o->readers, sizeof(struct l1_reader), &l1->readers_block, &l1->fixed);
    l1->slot_count = o->slots == 0 ? 1 : o->slots;
    l1->has_slots = o->slots > 0;
    l1->slots = mem_try_zero(l1->slot_count * sizeof(*l1->slots));
    l1->fixed += l1->slots == NULL ? 0 : mem_usable((void *)l1->slots);
    if (l1->covers == NULL || l1->shards == NULL || l1->readers == NULL || l1->slots == NULL) {
        snprintf(err, ERR_MAX, "%s", no_memory);
        return false;
    }
    l1->cover_count = o->covers;
    l1->reader_count = o->readers;
    atomic_store_explicit(&l1->epoch, 1, memory_order_relaxed);
    l1->max_item_size = o->max_item_size;
    size_t budget = l1->fixed < o->max_memory ? (o->max_memory - l1->fixed) / shards : 0;
    classes_init(&l1->classes, budget);
    l1->key_max = entry_key_max(l1);
    for (; l1->shard_count < shards; l1->shard_count++) {
        struct shard *s = &l1->shards[l1->shard_count];
        if (!shard_init(s, &l1->classes, budget)) {
            l1->shard_count++;
            snprintf(err, ERR_MAX, "%s", no_memory);
            return false;
        }
        /* Half the item's size more than it needs: room for its entry's header and for leases. */
        if (s->used > budget ||
            budget - s->used < o->max_item_size + o->max_item_size / 2 + s->reserve) {
            l1->shard_count++;
            snprintf(err, ERR_MAX, "max_memory is %zu, too little for the tables of the cache",
                     o->max_memory);
            return false;
        }
    }
    return true;
}

struct l1 *l1_create(const struct l1_options *options, char err[ERR_MAX])
{
    if (!options_agree(options, err)) {
        return NULL;
    }
    void *block;
    size_t charged = 0;
    struct l1 *l1 = aligned_try(1, sizeof(*l1), &block, &charged);
    if (l1 == NULL) {
        snprintf(err, ERR_MAX, "out of memory for the tables of the cache");
        return NULL;
    }
    l1->block = block;
    l1->fixed = charged;
    /* Up to 256 bytes come at once or not at all. */
    if (getrandom(l1->secret, sizeof(l1->secret), 0) != (ssize_t)sizeof(l1->secret)) {
        snprintf(err, ERR_MAX, "the system gives no random bytes for the hash");
    } else if (l1_init(l1, options, err)) {
        return l1;
    }
    l1_destroy(l1);
    return NULL;
}

void l1_destroy(struct l1 *l1)
{
    if (l1 == NULL) {
        return;
    }
    for (uint32_t i = 0; i < l1->shard_count; i++) {
        debug_assert(l1->shards[i].leases == 0);
        shard_fini(&l1->shards[i]);
    }
    mem_free(l1->shards_block);
    mem_free(l1->covers_block);
    mem_free(l1->readers_block);
    mem_free((void *)l1->slots);
    mem_free(l1->block);
}

/* A secret of random bytes rather than a seed: whoever chooses the keys must not be able to choose
 * the bucket. */
static inline uint64_t hash_of(const struct l1 *l1, struct slice key)
{
    return XXH3_64bits_withSecret(key.p, key.n, l1->secret, sizeof(l1->secret));
}

static __attribute__((noinline)) uint64_t hash_long(const struct l1 *l1, struct slice key)
{
    return hash_of(l1, key);
}

/* What long keys want, registers and a frame, would be half the price of a short one. */
__attribute__((flatten)) uint64_t l1_hash(const struct l1 *l1, struct slice key)
{
    return likely(key.n <= HASH_SHORT) ? hash_of(l1, key) : hash_long(l1, key);
}

/* ---- Covers -------------------------------------------------------------------------------- */

static struct cover *cover_at(const struct l1 *l1, uint16_t cover)
{
    bug_on(cover >= l1->cover_count);
    return &l1->covers[cover];
}

bool l1_cover_is_up(const struct l1 *l1, uint16_t cover)
{
    const struct cover *c = cover_at(l1, cover);
    return is_up(atomic_load_explicit(&c->incarnation, memory_order_acquire));
}

/* Release, so that whoever sees the new number sees what the caller did before; partner: the
 * acquire in cover_fate. */
void l1_cover_down(struct l1 *l1, uint16_t cover)
{
    struct cover *c = cover_at(l1, cover);
    uint32_t old = atomic_load_explicit(&c->incarnation, memory_order_relaxed);
    while (is_up(old) &&
           !atomic_compare_exchange_weak_explicit(&c->incarnation, &old, old + 1,
                                                  memory_order_acq_rel, memory_order_relaxed)) {
    }
}

/* The moment before the number: see cover_fate. */
void l1_cover_up(struct l1 *l1, uint16_t cover, int64_t servable_until)
{
    struct cover *c = cover_at(l1, cover);
    l1_cover_down(l1, cover);
    atomic_store_explicit(&c->servable_until, servable_until, memory_order_release);
    /* Nobody else makes it odd, and down leaves an even one alone. */
    atomic_fetch_add_explicit(&c->incarnation, 1, memory_order_acq_rel);
}

/* While the cover is down the moment belongs to nothing, and l1_cover_up sets it anew. */
void l1_cover_renew(struct l1 *l1, uint16_t cover, int64_t servable_until)
{
    struct cover *c = cover_at(l1, cover);
    int64_t old = atomic_load_explicit(&c->servable_until, memory_order_relaxed);
    if (unlikely(old < servable_until - STANDSTILL_MAX)) {
        l1_cover_void(l1, cover);
    }
    atomic_store_explicit(&c->servable_until, servable_until, memory_order_release);
}

/* By two: up stays up. */
void l1_cover_void(struct l1 *l1, uint16_t cover)
{
    atomic_fetch_add_explicit(&cover_at(l1, cover)->incarnation, 2, memory_order_acq_rel);
}

void l1_drop_all(struct l1 *l1)
{
    for (uint32_t i = 0; i < l1->cover_count; i++) {
        l1_cover_void(l1, (uint16_t)i);
    }
    atomic_fetch_add_explicit(&l1->torn, 1, memory_order_acq_rel);
    atomic_fetch_add_explicit(&l1->drop_alls, 1, memory_order_relaxed);
    l1_unknown_end(l1);
}

void l1_drop_slot(struct l1 *l1, uint16_t slot)
{
    bug_on(slot >= l1->slot_count);
    atomic_fetch_add_explicit(&l1->slots[slot], 1, memory_order_acq_rel);
    atomic_fetch_add_explicit(&l1->torn, 1, memory_order_acq_rel);
}

uint32_t l1_slot_generation(const struct l1 *l1, uint16_t slot)
{
    bug_on(slot >= l1->slot_count);
    return atomic_load_explicit(&l1->slots[slot], memory_order_acquire);
}

/* ---- Upkeep -------------------------------------------------------------------------------- */

void l1_sweep(struct l1 *l1, size_t budget, int64_t now)
{
    for (uint32_t i = 0; i < l1->shard_count; i++) {
        struct shard *s = &l1->shards[i];
        struct work work = {.now = now};
        lock_take(&s->lock);
        (void)limbo_reclaim(l1, s, LIMBO_RUN, &work);
        lock_give(&s->lock);
        work_end(&work);
    }
    /* Once around at most, though it may begin and end in the middle of a shard. */
    for (uint32_t ends = 0; budget > 0 && ends <= l1->shard_count;) {
        struct shard *s = &l1->shards[l1->sweep_shard];
        size_t run = budget < SWEEP_RUN ? budget : SWEEP_RUN;
        size_t left = run;
        lock_take(&s->lock);
        bool at_end = table_sweep(l1, s, &left, now);
        lock_give(&s->lock);
        budget -= run - left;
        if (at_end) {
            ends++;
            l1->sweep_shard = (l1->sweep_shard + 1) % l1->shard_count;
        }
    }
}

static void add_shard(struct l1_stats *sum, const struct shard *s)
{
    const struct l1_stats *c = &s->counted;
    sum->items += s->table.items;
    sum->bytes += s->used;
    sum->leases += s->leases;
    sum->waiters += c->waiters;
    sum->writes += s->writes;
    sum->fills += c->fills;
    sum->refusals += c->refusals;
    sum->evictions += c->evictions;
    sum->expirations += c->expirations;
    sum->lapses += c->lapses;
    sum->voids += c->voids;
    sum->invalidations += c->invalidations;
    sum->write_drops += c->write_drops;
    sum->read_drops += c->read_drops;
    sum->detached += c->detached;
}

void l1_stats(struct l1 *l1, struct l1_stats *out)
{
    uint64_t wide = 0;
    *out = (struct l1_stats){
        .bytes = l1->fixed,
        .drop_alls = atomic_load_explicit(&l1->drop_alls, memory_order_relaxed),
    };
    for (uint32_t i = 0; i < l1->shard_count; i++) {
        struct shard *s = &l1->shards[i];
        lock_take(&s->lock);
        add_shard(out, s);
        /* A wide write is counted in every shard, and may be half begun. */
        wide = s->wide > wide ? s->wide : wide;
        lock_give(&s->lock);
    }
    out->writes += wide;
}
