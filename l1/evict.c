/* SPDX-License-Identifier: Apache-2.0
 *
 * evict.c: which entry goes when a shard is full. S3-FIFO, counted in bytes:
 *
 *     new key ──────► S (10 %) ──► hit since? ─yes─► M (90 %) ──► hit since? ─yes─► tail of M,
 *     key in ghost ─────────────────│───────────────►  │                          one hit less
 *                                   no                 no
 *                                   ▼                  ▼
 *                          gone, ghost remembers      gone
 *
 * A key that is read once passes through S and costs the others nothing; a hit moves nothing, it
 * counts to three. The ghost is a four-way table of 16-bit fingerprints with the age they were made
 * at, counted in bytes evicted from S; older than nine tenths of the budget means forgotten. It is
 * advice: a false match or a wrapped age puts an entry into the wrong queue, nothing worse.
 *
 * One call gives no more than SECOND_CHANCES second chances, so that a shard full of hot entries
 * does not turn both queues over for one insert. The dead get none; what is only late (C6) is not
 * dead, its next PONG makes it servable again.
 *
 * Everything wants the shard's lock. Decides who goes; when is room.c's. Never touches leases or
 * unanswered writes.
 */
#include "l1_priv.h"

#include "../conf/mem.h"

#define SMALL_PART          10 /* S has budget / SMALL_PART */
#define GHOST_WAYS          4
#define GHOST_BYTES_PER_SET 512 /* of budget: a fingerprint for every 128 bytes */
#define GHOST_AGES_LOG2     10  /* the budget is about so many ages long */
#define SECOND_CHANCES      256 /* about 25 us when none of them is in the processor's caches */

/* ---- Ghost --------------------------------------------------------------------------------- */

static unsigned int log2_floor(size_t n)
{
    return 63U - (unsigned int)__builtin_clzll(n | 1);
}

static size_t ghost_sets(size_t budget)
{
    size_t sets = budget / GHOST_BYTES_PER_SET;
    sets = sets < 1 ? 1 : sets;
    return sets < UINT32_MAX ? sets : UINT32_MAX;
}

size_t evict_ghost_bytes(size_t budget)
{
    return ghost_sets(budget) * GHOST_WAYS * sizeof(uint32_t);
}

void evict_init(struct shard *s)
{
    struct ghost *g = &s->ghost;
    g->sets = (uint32_t)ghost_sets(s->budget);
    s->used += evict_ghost_bytes(s->budget);
    unsigned int bits = log2_floor(s->budget);
    g->age_shift = bits > GHOST_AGES_LOG2 ? bits - GHOST_AGES_LOG2 : 0;
    g->memory = (uint32_t)((s->budget - s->budget / SMALL_PART) >> g->age_shift);
    s->small_target = s->budget / SMALL_PART;
}

/* By the high bits of the hash; the fingerprint is the low ones. */
static uint32_t *ghost_set(const struct ghost *g, uint32_t hash)
{
    uint64_t set = ((uint64_t)hash * g->sets) >> 32;
    return &g->slots[set * GHOST_WAYS];
}

/* Never 0, which is the empty slot's. */
static uint32_t ghost_print(uint32_t hash)
{
    return (hash & UINT16_MAX) | 1;
}

static uint32_t ghost_age(const struct ghost *g, uint32_t slot)
{
    return ((uint32_t)(g->evicted >> g->age_shift) - slot) & UINT16_MAX;
}

/* A set has the newest first and what is empty last: the oldest falls out. */
static void ghost_add(struct ghost *g, uint32_t hash, size_t bytes)
{
    uint32_t *set = ghost_set(g, hash);
    memmove(&set[1], &set[0], (GHOST_WAYS - 1) * sizeof(*set));
    g->evicted += bytes;
    set[0] = ghost_print(hash) << 16 | ((uint32_t)(g->evicted >> g->age_shift) & UINT16_MAX);
}

/* Whether the key left S lately; forgets it. Memory that was never written is not even read: some
 * kernels charge for that as well. */
static bool ghost_take(struct ghost *g, uint32_t hash)
{
    if (g->evicted == 0) {
        return false;
    }
    uint32_t *set = ghost_set(g, hash);
    for (int i = 0; i < GHOST_WAYS; i++) {
        if (set[i] >> 16 == ghost_print(hash)) {
            bool recent = ghost_age(g, set[i]) <= g->memory;
            for (; i < GHOST_WAYS - 1; i++) {
                set[i] = set[i + 1];
            }
            set[i] = 0;
            return recent;
        }
    }
    return false;
}

void evict_expect(const struct shard *s, uint64_t hash)
{
    __builtin_prefetch(ghost_set(&s->ghost, (uint32_t)hash), 1);
    __builtin_prefetch(table_head(s, hash), 1);
}

/* ---- Queues -------------------------------------------------------------------------------- */

static struct queue *queue_of(struct shard *s, const struct entry *e)
{
    return flags_of(e) & FLAG_MAIN ? &s->main : &s->small;
}

static void queue_push(struct shard *s, struct queue *q, struct entry *e, size_t charge)
{
    uint32_t ref = ref_of(s, e);
    e->newer = 0;
    e->older = q->newest;
    if (q->newest == 0) {
        q->oldest = ref;
    } else {
        entry_at(s, q->newest)->newer = ref;
    }
    q->newest = ref;
    q->bytes += charge;
}

/* What stands on both sides of e in its queue has `older` and `newer` for neighbours now. */
static void queue_relink(struct shard *s, const struct entry *e, uint32_t older, uint32_t newer)
{
    struct queue *q = queue_of(s, e);
    if (e->older == 0) {
        q->oldest = newer;
    } else {
        entry_at(s, e->older)->newer = newer;
    }
    if (e->newer == 0) {
        q->newest = older;
    } else {
        entry_at(s, e->newer)->older = older;
    }
}

void evict_admit(struct shard *s, struct entry *e, size_t charge)
{
    bool in_main = ghost_take(&s->ghost, e->hash);
    flags_set(e, flags_of(e) | FLAG_LIVE | (in_main ? FLAG_MAIN : 0));
    queue_push(s, in_main ? &s->main : &s->small, e, charge);
}

void evict_release(struct shard *s, struct entry *e, size_t charge)
{
    queue_relink(s, e, e->older, e->newer);
    queue_of(s, e)->bytes -= charge;
}

void evict_replace(struct shard *s, const struct entry *e, struct entry *copy)
{
    copy->older = e->older;
    copy->newer = e->newer;
    queue_relink(s, e, ref_of(s, copy), ref_of(s, copy));
}

static unsigned int freq_of(const struct entry *e)
{
    return atomic_load_explicit(&e->freq, memory_order_relaxed);
}

/* From S to M with its hits spent, or once more through M for one hit. */
static void second_chance(struct shard *s, struct entry *e)
{
    size_t charge = entry_charge(s, e);
    unsigned int freq = flags_of(e) & FLAG_MAIN ? freq_of(e) - 1 : 0;
    evict_release(s, e, charge);
    atomic_store_explicit(&e->freq, (uint8_t)freq, memory_order_relaxed);
    flags_set(e, flags_of(e) | FLAG_MAIN);
    queue_push(s, &s->main, e, charge);
}

/* The n-th behind e in its queue, if there are so many. */
static const struct entry *queued_behind(const struct shard *s, const struct entry *e, int n)
{
    for (; n > 0 && e != NULL; n--) {
        e = entry_at(s, e->newer);
    }
    return e;
}

/* What the next evictions read is on its way when it is wanted: of an entry that is still AHEAD steps off, what is behind
 * the first one in its bucket; of one twice as far, that first one; at three times, its bucket and its place in the
 * ghost; and two steps farther, the entry itself. Each was asked for when the entry was as far off as the stage in front
 * of it. */
#define AHEAD 2

static void expect_next(const struct shard *s, const struct entry *e)
{
    const struct entry *next = queued_behind(s, e, AHEAD);
    const struct entry *second = next == NULL ? NULL : queued_behind(s, next, AHEAD);
    const struct entry *third = second == NULL ? NULL : queued_behind(s, second, AHEAD);
    const struct entry *last = third == NULL ? NULL : queued_behind(s, third, 1);
    if (last != NULL) {
        const struct entry *first = seat_of(s, link_of(table_head(s, next->hash)));
        __builtin_prefetch(seat_of(s, link_of(&first->chain)));
        __builtin_prefetch(seat_of(s, link_of(table_head(s, second->hash))));
        evict_expect(s, third->hash);
        __builtin_prefetch(seat_of(s, last->newer));
    }
}

bool evict_step(struct l1 *l1, struct shard *s, struct work *work)
{
    bool from_small = s->small.bytes > s->small_target || s->main.oldest == 0;
    struct entry *e = entry_at(s, from_small ? s->small.oldest : s->main.oldest);
    if (e == NULL) {
        return false;
    }
    expect_next(s, e);
    enum fate fate = entry_fate(l1, e, work->now);
    if (fate == FATE_VOID || fate == FATE_EXPIRED) {
        entry_bury(s, e, fate);
        return true;
    }
    if (freq_of(e) > 0 && work->chances < SECOND_CHANCES) {
        work->chances++;
        second_chance(s, e);
        return true;
    }
    s->counted.evictions++;
    size_t charge = entry_drop(s, e);
    if (from_small) {
        ghost_add(&s->ghost, e->hash, charge);
    }
    return true;
}
