/* SPDX-License-Identifier: Apache-2.0
 *
 * l1.c: the contract of l1.h over shards with a lock each. Way through the file: life, covers,
 * reads (l1_get looks once, and if it must open a lease, allocates it without the lock and looks
 * again), changes, upkeep. Endings of leases are in lease.c.
 *
 * Why nothing stale is served: a change takes the shard's lock and removes the entry, so a lookup
 * before it returned what was current then, and a lookup behind it finds nothing. What a fetch
 * brings later is kept out by its lease (lease.c). Covers are not under any lock: a lookup loads
 * the moment and the incarnation inside its critical section. If it sees a moment that
 * l1_cover_renew stored, it also sees the drops that the owner applied before (C11): had the
 * lookup's section come before the drop's, the store would have come after the load.
 *
 * Why l1_get_all never sees half a multi-key write: such a write moves `torn` after its last drop
 * and before anything can be installed again. To return the old value of one key and the new one
 * of another, l1_get_all must have read the first before its drop and the second after its install,
 * hence `torn` moved between its two loads.
 *
 * Threads: anyone, one shard's lock at a time, none when memory is freed or somebody is woken.
 * Not here: policy (what may be cached and for how long), counters of hits and misses.
 */
#include "l1.h"
#include "l1_priv.h"

#include "../conf/mem.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <stdio.h>
#include <sys/random.h>

#define SHARD_MEMORY     ((size_t)16 * 1024 * 1024) /* below this a shard is not worth its price */
#define ITEMS_PER_BUDGET 4                 /* a budget holds so many of the largest items */
#define LEASES_PART      8                 /* leases may have budget / LEASES_PART */
#define ITEM_SIZE_LIMIT  ((size_t)1 << 30) /* lengths in an entry have 32 bits */
#define SWEEP_RUN        ((size_t)64)      /* entries looked at in one critical section */

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
    while (n < SHARDS_MAX && o->max_memory / (2 * n) >= SHARD_MEMORY &&
           o->max_memory / (2 * n) / ITEMS_PER_BUDGET >= o->max_item_size) {
        n *= 2;
    }
    return n;
}

static bool shard_init(struct shard *s, size_t budget)
{
    s->budget = budget;
    s->lease_bytes_max = budget / LEASES_PART;
    return table_init(s) && evict_init(s);
}

static void shard_fini(struct shard *s)
{
    table_fini(s);
    evict_fini(s);
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
    l1->fixed = mem_usable(l1);
    l1->covers = aligned_try(o->covers, sizeof(struct cover), &l1->covers_block, &l1->fixed);
    l1->shards = aligned_try(shards, sizeof(struct shard), &l1->shards_block, &l1->fixed);
    l1->slot_count = o->slots == 0 ? 1 : o->slots;
    l1->slots = mem_try_zero(l1->slot_count * sizeof(*l1->slots));
    l1->fixed += l1->slots == NULL ? 0 : mem_usable((void *)l1->slots);
    if (l1->covers == NULL || l1->shards == NULL || l1->slots == NULL) {
        snprintf(err, ERR_MAX, "%s", no_memory);
        return false;
    }
    l1->cover_count = o->covers;
    l1->max_item_size = o->max_item_size;
    size_t budget = l1->fixed < o->max_memory ? (o->max_memory - l1->fixed) / shards : 0;
    for (; l1->shard_count < shards; l1->shard_count++) {
        struct shard *s = &l1->shards[l1->shard_count];
        if (!shard_init(s, budget)) {
            l1->shard_count++;
            snprintf(err, ERR_MAX, "%s", no_memory);
            return false;
        }
        /* Half the item's size more than it needs: room for its entry's header and for leases. */
        if (s->used > budget || budget - s->used < o->max_item_size + o->max_item_size / 2) {
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
    struct l1 *l1 = mem_zalloc(sizeof(*l1));
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
    mem_free((void *)l1->slots);
    mem_free(l1);
}

/* A secret of random bytes rather than a seed: whoever chooses the keys must not be able to choose
 * the bucket. */
uint64_t l1_hash(const struct l1 *l1, struct slice key)
{
    return XXH3_64bits_withSecret(key.p, key.n, l1->secret, sizeof(l1->secret));
}

/* ---- Covers -------------------------------------------------------------------------------- */

static struct cover *cover_at(const struct l1 *l1, uint16_t cover)
{
    bug_on(cover >= l1->cover_count);
    return &l1->covers[cover];
}

static bool is_up(uint32_t incarnation)
{
    return incarnation % 2 == 1;
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

/* Whether a lease may be taken under the cover now, and its incarnation. */
static bool cover_grants(const struct l1 *l1, uint16_t cover, int64_t now, uint32_t *incarnation)
{
    if (cover >= l1->cover_count) {
        return false;
    }
    *incarnation = atomic_load_explicit(&l1->covers[cover].incarnation, memory_order_acquire);
    return is_up(*incarnation) && cover_fate(l1, cover, *incarnation, now) == FATE_LIVE;
}

/* ---- Reads --------------------------------------------------------------------------------- */

static void touch(struct entry *e)
{
    if (unlikely(e->freq < FREQ_MAX)) {
        e->freq++;
    }
}

/* The servable entry of a key. One that is not is deleted: it might come back to life with the next
 * PONG, after a newer value was read elsewhere (C7). */
static struct entry *find_live(struct l1 *l1, struct shard *s, const struct l1_query *q,
                               int64_t now, struct entry **dead)
{
    struct entry *e = table_find(&s->table, q->hash, q->key, q->db);
    if (e == NULL) {
        return NULL;
    }
    enum fate fate = entry_fate(l1, e, now);
    if (unlikely(fate != FATE_LIVE)) {
        if (!(MUTANT(C7) && fate == FATE_LAPSED)) {
            entry_bury(s, e, fate, dead);
        }
        return NULL;
    }
    touch(e);
    return e;
}

/* L1_PASS when memory is out: the reply can still be relayed piece by piece. */
static inline enum l1_result serve(const struct entry *e, struct chain *out)
{
    if (unlikely(e->is_null)) {
        return L1_HIT_NULL;
    }
    if (unlikely(e->blob != NULL)) {
        return chain_append_blob(out, e->blob, 0, e->blob->n) ? L1_HIT : L1_PASS;
    }
    bool ok = chain_append(out, slice_of(e->bytes + e->key_len, e->value_len));
    return likely(ok) ? L1_HIT : L1_PASS;
}

/* Opens *fresh for the key, which has neither entry nor lease; without one at hand L1_OWNER only
 * says that it could. */
static enum l1_result take_lease(struct l1 *l1, struct shard *s, struct l1_query *q, int64_t now,
                                 struct l1_lease **fresh, struct entry **dead)
{
    uint32_t incarnation;
    if (q->key.n >= l1->max_item_size || !cover_grants(l1, q->cover, now, &incarnation)) {
        return L1_PASS;
    }
    if (fresh == NULL) {
        return L1_OWNER;
    }
    if (!lease_fits(l1, s, *fresh, now, dead)) {
        return L1_PASS;
    }
    lease_open(s, *fresh, incarnation, now);
    q->lease = *fresh;
    *fresh = NULL;
    return L1_OWNER;
}

/* The lease that may be joined. One that nobody may join any more makes way for a new one. */
static struct l1_lease *find_current(struct l1 *l1, struct shard *s, const struct l1_query *q,
                                     int64_t now)
{
    struct l1_lease *lease = lease_find(s, q->hash, q->key, q->db);
    if (lease != NULL && (MUTANT(R5j) || !lease_is_current(l1, s, lease, now))) {
        lease_detach(s, lease);
        return NULL;
    }
    return lease;
}

static enum l1_result look(struct l1 *l1, struct shard *s, struct l1_query *q, int64_t now,
                           struct l1_lease **fresh, struct entry **dead)
{
    const struct entry *e = find_live(l1, s, q, now, dead);
    if (likely(e != NULL)) {
        return serve(e, q->out);
    }
    struct l1_lease *lease = find_current(l1, s, q, now);
    if (lease != NULL) {
        lease_join(s, lease, q->waiter);
        return L1_JOINED;
    }
    enum l1_result result = take_lease(l1, s, q, now, fresh, dead);
    if (result == L1_OWNER && fresh != NULL) {
        lease_join(s, q->lease, q->waiter);
    }
    return result;
}

/* R6b. `with` is looked at only in its own shard, whose lock covers its lease. */
static enum l1_result join_with(struct l1 *l1, struct shard *s, struct l1_query *q, int64_t now)
{
    if (q->with->hash != q->hash) {
        return L1_PASS;
    }
    struct l1_lease *lease = find_current(l1, s, q, now);
    if (lease == NULL || q->with->lease != lease) {
        return L1_PASS;
    }
    lease_join(s, lease, q->waiter);
    return L1_JOINED;
}

/* The second look of a miss, with a lease that was allocated without the lock. Anything may have
 * happened since the first. */
static enum l1_result look_again(struct l1 *l1, struct shard *s, struct l1_query *q, int64_t now,
                                 struct entry **dead)
{
    struct l1_lease *fresh = lease_try(q);
    if (fresh == NULL) {
        return L1_PASS;
    }
    lock_take(&s->lock);
    enum l1_result result = look(l1, s, q, now, &fresh, dead);
    lock_give(&s->lock);
    mem_free(fresh);
    return result;
}

/* Everything but the hit; gives the lock back. Not inlined, so that a hit saves few registers. */
static __attribute__((noinline)) enum l1_result get_other(struct l1 *l1, struct shard *s,
                                                          struct l1_query *q, int64_t now)
{
    struct entry *dead = NULL;
    enum l1_result result =
        q->with != NULL ? join_with(l1, s, q, now) : look(l1, s, q, now, NULL, &dead);
    lock_give(&s->lock);
    if (result == L1_OWNER) {
        result = look_again(l1, s, q, now, &dead);
    }
    entries_free(dead);
    return result;
}

enum l1_result l1_get(struct l1 *l1, struct l1_query *q, int64_t now)
{
    struct shard *s = shard_of(l1, q->hash);
    lock_take(&s->lock);
    if (likely(q->with == NULL)) {
        struct entry *e = table_find(&s->table, q->hash, q->key, q->db);
        if (likely(e != NULL && entry_fate(l1, e, now) == FATE_LIVE)) {
            touch(e);
            enum l1_result result = serve(e, q->out);
            lock_give(&s->lock);
            return result;
        }
    }
    return get_other(l1, s, q, now);
}

/* Appends the key's value or null; false when it has neither, or memory is out. */
static bool answer(struct l1 *l1, const struct l1_query *q, struct chain *out, struct slice null,
                   int64_t now)
{
    struct shard *s = shard_of(l1, q->hash);
    struct entry *dead = NULL;
    lock_take(&s->lock);
    const struct entry *e = find_live(l1, s, q, now, &dead);
    enum l1_result result = e != NULL ? serve(e, out) : L1_PASS;
    lock_give(&s->lock);
    if (unlikely(dead != NULL)) {
        entries_free(dead);
    }
    return result == L1_HIT || (result == L1_HIT_NULL && chain_append(out, null));
}

enum l1_result l1_hit(struct l1 *l1, const struct l1_query *q, int64_t now)
{
    struct shard *s = shard_of(l1, q->hash);
    struct entry *dead = NULL;
    lock_take(&s->lock);
    struct entry *e = table_find(&s->table, q->hash, q->key, q->db);
    if (likely(e != NULL && entry_fate(l1, e, now) == FATE_LIVE)) {
        touch(e);
        enum l1_result result = serve(e, q->out);
        lock_give(&s->lock);
        return result;
    }
    (void)find_live(l1, s, q, now, &dead); /* buries what cannot be served */
    lock_give(&s->lock);
    entries_free(dead);
    return L1_PASS;
}

bool l1_get_all(struct l1 *l1, const struct l1_query *q, size_t n, struct chain *out,
                struct slice null, int64_t now)
{
    struct chain_mark mark = chain_mark(out);
    /* Partners of both loads: the read-modify-writes of `torn`. The shards' locks order them
     * against the drops and installs on either side. */
    uint64_t torn = atomic_load_explicit(&l1->torn, memory_order_acquire);
    bool whole = true;
    for (size_t i = 0; i < n && whole; i++) {
        whole = answer(l1, &q[i], out, null, now);
    }
    if (whole && atomic_load_explicit(&l1->torn, memory_order_acquire) == torn) {
        return true;
    }
    chain_rewind(out, mark);
    return false;
}

struct l1_lease *l1_lease_try(struct l1 *l1, const struct l1_query *asked, int64_t now)
{
    struct l1_query q = *asked;
    struct shard *s = shard_of(l1, q.hash);
    struct entry *dead = NULL;
    q.lease = NULL;
    struct l1_lease *fresh = q.key.n < l1->max_item_size ? lease_try(&q) : NULL;
    if (fresh == NULL) {
        return NULL;
    }
    fresh->bare = true;
    lock_take(&s->lock);
    if (find_live(l1, s, &q, now, &dead) == NULL && find_current(l1, s, &q, now) == NULL) {
        enum l1_result result = take_lease(l1, s, &q, now, &fresh, &dead);
        debug_assert((result == L1_OWNER) == (q.lease != NULL));
        (void)result;
    }
    lock_give(&s->lock);
    mem_free(fresh);
    entries_free(dead);
    return q.lease;
}

/* ---- Changes ------------------------------------------------------------------------------- */

size_t shard_drop_hash(struct shard *s, uint64_t hash, struct entry **dead)
{
    size_t dropped = 0;
    struct entry *e = table_next(&s->table, hash, NULL);
    while (e != NULL) {
        struct entry *next = table_next(&s->table, hash, e);
        entry_drop(s, e, dead);
        dropped++;
        e = next;
    }
    return dropped;
}

void shard_observe(struct shard *s, uint64_t hash, uint32_t db, struct slice encoded,
                   struct entry **dead)
{
    struct entry *e = table_next(&s->table, hash, NULL);
    while (e != NULL) {
        struct entry *next = table_next(&s->table, hash, e);
        bool null = encoded.p == NULL;
        bool same = e->is_null ? null : !null && slice_eq(entry_value(e), encoded);
        if (e->db == db && !same) {
            entry_drop(s, e, dead);
            s->counted.read_drops++;
        }
        e = next;
    }
    lease_detach_hash(s, hash, &db);
}

void l1_invalidate(struct l1 *l1, uint64_t hash)
{
    struct shard *s = shard_of(l1, hash);
    struct entry *dead = NULL;
    lock_take(&s->lock);
    size_t dropped = MUTANT(R3e) ? 0 : shard_drop_hash(s, hash, &dead);
    bool detached = !MUTANT(R3) && lease_detach_hash(s, hash, NULL);
    s->counted.invalidations += dropped > 0 || detached;
    lock_give(&s->lock);
    entries_free(dead);
}

void l1_observe_value(struct l1 *l1, uint64_t hash, uint32_t db, struct slice encoded)
{
    struct shard *s = shard_of(l1, hash);
    struct entry *dead = NULL;
    lock_take(&s->lock);
    shard_observe(s, hash, db, encoded, &dead);
    lock_give(&s->lock);
    entries_free(dead);
}

void l1_observe(struct l1 *l1, uint64_t hash)
{
    struct shard *s = shard_of(l1, hash);
    struct entry *dead = NULL;
    lock_take(&s->lock);
    s->counted.read_drops += shard_drop_hash(s, hash, &dead);
    lease_detach_hash(s, hash, NULL);
    lock_give(&s->lock);
    entries_free(dead);
}

void l1_write_begin(struct l1 *l1, const uint64_t *hashes, size_t n)
{
    bug_on(n == 0 || n > L1_WRITE_KEYS);
    struct entry *dead = NULL;
    for (size_t i = 0; i < n; i++) {
        struct shard *s = shard_of(l1, hashes[i]);
        lock_take(&s->lock);
        writes_begin(s, hashes[i]);
        s->counted.write_drops += MUTANT(W1) ? 0 : shard_drop_hash(s, hashes[i], &dead);
        lease_detach_hash(s, hashes[i], NULL);
        lock_give(&s->lock);
    }
    if (n > 1) {
        atomic_fetch_add_explicit(&l1->torn, 1, memory_order_acq_rel);
    }
    entries_free(dead);
}

/* Detaches as well: a lease taken since the begin may have been sent before the write, and a reader
 * who joins it from now on must not get that (R5). */
void l1_write_end(struct l1 *l1, const uint64_t *hashes, size_t n)
{
    bug_on(n == 0 || n > L1_WRITE_KEYS);
    for (size_t i = 0; i < n; i++) {
        struct shard *s = shard_of(l1, hashes[i]);
        lock_take(&s->lock);
        writes_end(s, hashes[i]);
        if (!MUTANT(R5)) {
            lease_detach_hash(s, hashes[i], NULL);
        }
        lock_give(&s->lock);
    }
}

void l1_write_begin_wide(struct l1 *l1)
{
    for (uint32_t i = 0; i < l1->shard_count; i++) {
        struct shard *s = &l1->shards[i];
        lock_take(&s->lock);
        s->writes.wide++;
        lock_give(&s->lock);
    }
}

/* Its keys are not known here, so every lease is detached, by number: walking them all would take
 * too long. `torn` moves here and not at the begin, because the caller drops the keys in
 * between. */
void l1_write_end_wide(struct l1 *l1)
{
    atomic_fetch_add_explicit(&l1->torn, 1, memory_order_acq_rel);
    for (uint32_t i = 0; i < l1->shard_count; i++) {
        struct shard *s = &l1->shards[i];
        lock_take(&s->lock);
        bug_on(s->writes.wide == 0);
        s->writes.wide--;
        s->generation++;
        lock_give(&s->lock);
    }
}

/* ---- Upkeep -------------------------------------------------------------------------------- */

void l1_sweep(struct l1 *l1, size_t budget, int64_t now)
{
    /* Once around at most, though it may begin and end in the middle of a shard. */
    for (uint32_t ends = 0; budget > 0 && ends <= l1->shard_count;) {
        struct shard *s = &l1->shards[l1->sweep_shard];
        struct entry *dead = NULL;
        size_t run = budget < SWEEP_RUN ? budget : SWEEP_RUN;
        size_t left = run;
        lock_take(&s->lock);
        bool at_end = table_sweep(l1, s, &left, now, &dead);
        lock_give(&s->lock);
        entries_free(dead);
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
    sum->writes += s->writes.tabled + s->writes.overflow;
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
        wide = s->writes.wide > wide ? s->writes.wide : wide;
        lock_give(&s->lock);
    }
    out->writes += wide;
}
