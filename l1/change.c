/* SPDX-License-Identifier: Apache-2.0
 *
 * change.c: keys that changed: invalidations, writes of this process, reads that contradict. Each
 * takes the shard's lock, removes the entry and detaches leases; what a fetch brings later is kept
 * out by its lease (lease.c), or by the write that is still out.
 *
 * Unanswered writes are counted by some bits of the hash. Keys that share a count keep each other from being
 * installed for as long as a write of either is out; there are so many counts that this is rare, and
 * it costs a fetch, no more.
 */
#include "l1_priv.h"
#include "look.h"

size_t shard_drop_some(struct shard *s, uint64_t hash, bool *hit)
{
    size_t dropped = 0;
    struct entry *e = table_next(s, hash, NULL);
    while (e != NULL) {
        struct entry *next = table_next(s, hash, e);
        if (hit != NULL && atomic_load_explicit(&e->freq, memory_order_relaxed) > 0) {
            *hit = true;
        }
        entry_drop(s, e);
        dropped++;
        e = next;
    }
    return dropped;
}

void shard_observe(const struct l1 *l1, struct shard *s, uint64_t hash, uint32_t db,
                   struct slice encoded)
{
    struct entry *e = table_next(s, hash, NULL);
    while (e != NULL) {
        struct entry *next = table_next(s, hash, e);
        bool is_null = (flags_of(e) & FLAG_NULL) != 0;
        bool null = encoded.p == NULL;
        bool same = is_null || null ? is_null && null : entry_is_value(e, encoded);
        if (entry_db(l1, e) == db && !same) {
            entry_drop(s, e);
            s->counted.read_drops++;
        }
        e = next;
    }
    lease_detach_hash(s, hash, &db);
    version_move(s, hash);
}

void l1_invalidate(struct l1 *l1, uint64_t hash)
{
    l1_invalidate_by(l1, hash, L1_NO_COVER);
}

void l1_invalidate_by(struct l1 *l1, uint64_t hash, uint16_t cover)
{
    struct shard *s = shard_of(l1, hash);
    lock_take(&s->lock);
    size_t dropped = MUTANT(R3e) ? 0 : shard_drop_hash(s, hash, NULL);
    bool detached = !MUTANT(R3) && lease_detach_some(s, hash, NULL, cover);
    s->counted.invalidations += dropped > 0 || detached;
    if (cover == L1_NO_COVER || dropped > 0 || detached) {
        version_move(s, hash); /* else nobody is answered by it, and nothing of the key is here */
    }
    lock_give(&s->lock);
}

void l1_observe_value(struct l1 *l1, uint64_t hash, uint32_t db, struct slice encoded)
{
    struct shard *s = shard_of(l1, hash);
    lock_take(&s->lock);
    shard_observe(l1, s, hash, db, encoded);
    lock_give(&s->lock);
}

void l1_observe(struct l1 *l1, uint64_t hash)
{
    struct shard *s = shard_of(l1, hash);
    lock_take(&s->lock);
    s->counted.read_drops += shard_drop_hash(s, hash, NULL);
    lease_detach_hash(s, hash, NULL);
    version_move(s, hash);
    lock_give(&s->lock);
}

static __attribute__((noinline)) bool drop_written(struct shard *s, uint64_t hash)
{
    bool hit = false;
    s->counted.write_drops += MUTANT(W1) ? 0 : shard_drop_some(s, hash, &hit);
    return hit;
}

/* Under the lock. Was an entry dropped that had been hit? */
static inline bool begin_one(struct shard *s, struct under_way *at, uint64_t hash)
{
    s->writes++;
    (*write_count(at, hash))++;
    lease_detach_hash(s, hash, NULL);
    return unlikely(shard_may_hold(s, hash)) && drop_written(s, hash);
}

static inline uint32_t version_of(const struct shard *s, uint64_t hash)
{
    return atomic_load_explicit(&s->versions[version_at(hash)], memory_order_relaxed);
}

/* What is in no cache is waited for together: where each write is counted, and with `heads` its bucket. */
static inline void find_counts(const struct l1 *l1, const uint64_t *hashes, size_t n, bool heads,
                               struct look *looks, struct under_way **at)
{
    for (size_t i = 0; i < n; i++) {
        if (heads) {
            look_for(l1, hashes[i], &looks[i]);
        } else {
            looks[i].shard = shard_of(l1, hashes[i]);
        }
        at[i] = under_way(looks[i].shard, hashes[i]);
        __builtin_prefetch(at[i], 1);
    }
}

uint64_t l1_write_begin_run(struct l1 *l1, struct l1_reader *reader, const uint64_t *hashes,
                            size_t n, uint64_t *versions)
{
    uint64_t version = atomic_load_explicit(&l1->version, memory_order_acquire);
    uint64_t hits = 0;
    struct shard *s = NULL;
    struct look looks[L1_WRITE_RUN];
    struct under_way *at[L1_WRITE_RUN];
    bug_on(n == 0 || n > L1_WRITE_RUN);
    find_counts(l1, hashes, n, true, looks, at);
    look_behind(l1, reader, looks, n, 0);
    for (size_t i = 0; i < n; i++) {
        s = hold_next(looks[i].shard, s);
        if (begin_one(s, at[i], hashes[i])) {
            hits |= UINT64_C(1) << i;
        }
        if (versions != NULL) {
            versions[i] = version + version_of(s, hashes[i]);
        }
    }
    lock_give(&s->lock);
    return hits;
}

struct l1_begun l1_write_begin(struct l1 *l1, const uint64_t *hashes, size_t n)
{
    uint64_t versions[L1_WRITE_RUN];
    uint64_t hits = 0;
    size_t run = 0;
    bug_on(n == 0 || n > L1_WRITE_KEYS);
    for (size_t at = 0; at < n; at += run) {
        run = n - at < L1_WRITE_RUN ? n - at : L1_WRITE_RUN;
        hits |= l1_write_begin_run(l1, NULL, hashes + at, run, versions);
    }
    if (n > 1) {
        atomic_fetch_add_explicit(&l1->torn, 1, memory_order_acq_rel);
    }
    return (struct l1_begun){.version = versions[run - 1], .was_hit = hits != 0};
}

/* Detaches as well: a lease taken since the begin may have been sent before the write, and a reader
 * who joins it from now on must not get that (R5). */
static void end_some(struct l1 *l1, const uint64_t *hashes, size_t n)
{
    struct shard *s = NULL;
    struct look looks[L1_WRITE_RUN];
    struct under_way *at[L1_WRITE_RUN];
    bug_on(n == 0 || n > L1_WRITE_RUN);
    find_counts(l1, hashes, n, false, looks, at);
    for (size_t i = 0; i < n; i++) {
        uint64_t hash = hashes[i];
        s = hold_next(looks[i].shard, s);
        uint32_t *count = write_count(at[i], hash);
        bool none = __builtin_sub_overflow(*count, 1, count);
        bug_on(none);
        s->writes--;
        if (!MUTANT(R5)) {
            lease_detach_hash(s, hash, NULL);
        }
        version_move(s, hash);
    }
    lock_give(&s->lock);
}

void l1_write_end(struct l1 *l1, const uint64_t *hashes, size_t n)
{
    bug_on(n > L1_WRITE_KEYS);
    for (; n > L1_WRITE_RUN; n -= L1_WRITE_RUN) { /* nobody is to wait longer than that */
        end_some(l1, hashes, L1_WRITE_RUN);
        hashes += L1_WRITE_RUN;
    }
    end_some(l1, hashes, n);
}

void l1_write_begin_wide(struct l1 *l1)
{
    for (uint32_t i = 0; i < l1->shard_count; i++) {
        struct shard *s = &l1->shards[i];
        lock_take(&s->lock);
        s->wide++;
        lock_give(&s->lock);
    }
}

/* Its keys are not known here, so every lease is detached, by number: walking them all would take
 * too long. `torn` moves here and not at the begin, because the caller drops the keys in
 * between. */
void l1_write_end_wide(struct l1 *l1)
{
    l1_unknown_end(l1);
    atomic_fetch_add_explicit(&l1->torn, 1, memory_order_acq_rel);
    for (uint32_t i = 0; i < l1->shard_count; i++) {
        struct shard *s = &l1->shards[i];
        lock_take(&s->lock);
        bug_on(s->wide == 0);
        s->wide--;
        s->generation++;
        lock_give(&s->lock);
    }
}

void l1_unknown_end(struct l1 *l1)
{
    atomic_fetch_add_explicit(&l1->version, 1, memory_order_release);
}

uint64_t l1_version(const struct l1 *l1, uint64_t hash)
{
    const struct shard *s = shard_of(l1, hash);
    return atomic_load_explicit(&l1->version, memory_order_acquire) +
           atomic_load_explicit(&s->versions[version_at(hash)], memory_order_acquire);
}
