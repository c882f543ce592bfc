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
 * Invariants: an entry is in the table exactly when it is in one queue, and is charged then; the
 * shard never uses more than its budget. An entry that was allocated but not admitted yet is not
 * counted, nor is one that was evicted and not yet freed: both are held by a call in progress.
 * One call gives no more than SECOND_CHANCES second chances, so that a shard full of hot entries
 * does not turn both queues over for one insert. The dead get none; what is only late (C6) is not
 * dead, its next PONG makes it servable again.
 *
 * Everything wants the shard's lock. Never touches leases or unanswered writes.
 */
#include "l1_priv.h"

#include "../conf/mem.h"

#define SMALL_PART          10 /* S has budget / SMALL_PART */
#define GHOST_WAYS          4
#define GHOST_BYTES_PER_SET 768 /* of budget: a fingerprint for every 192 bytes */
#define GHOST_AGES_LOG2     10  /* the budget is about so many ages long */
#define SECOND_CHANCES      256 /* about 25 us when none of them is in the processor's caches */

/* ---- Ghost --------------------------------------------------------------------------------- */

static unsigned int log2_floor(size_t n)
{
    return 63U - (unsigned int)__builtin_clzll(n | 1);
}

bool evict_init(struct shard *s)
{
    struct ghost *g = &s->ghost;
    size_t sets = s->budget / GHOST_BYTES_PER_SET;
    sets = sets < 1 ? 1 : sets;
    sets = sets < UINT32_MAX ? sets : UINT32_MAX;
    g->slots = mem_try_zero(sets * GHOST_WAYS * sizeof(*g->slots));
    if (g->slots == NULL) {
        return false;
    }
    s->used += mem_usable(g->slots);
    g->sets = (uint32_t)sets;
    unsigned int bits = log2_floor(s->budget);
    g->age_shift = bits > GHOST_AGES_LOG2 ? bits - GHOST_AGES_LOG2 : 0;
    g->memory = (uint32_t)((s->budget - s->budget / SMALL_PART) >> g->age_shift);
    s->small_target = s->budget / SMALL_PART;
    return true;
}

void evict_fini(struct shard *s)
{
    mem_free(s->ghost.slots);
    s->ghost.slots = NULL;
}

static uint32_t *ghost_set(const struct ghost *g, uint64_t hash)
{
    uint64_t set = ((hash >> 16 & UINT32_MAX) * g->sets) >> 32;
    return &g->slots[set * GHOST_WAYS];
}

/* Never 0, which is the empty slot's. */
static uint32_t ghost_print(uint64_t hash)
{
    return ((uint32_t)hash & UINT16_MAX) | 1;
}

static uint32_t ghost_age(const struct ghost *g, uint32_t slot)
{
    return ((uint32_t)(g->evicted >> g->age_shift) - slot) & UINT16_MAX;
}

static void ghost_add(struct ghost *g, uint64_t hash, size_t bytes)
{
    uint32_t *set = ghost_set(g, hash);
    uint32_t *victim = &set[0];
    for (int i = 0; i < GHOST_WAYS; i++) {
        if (set[i] == 0) {
            victim = &set[i];
            break;
        }
        if (ghost_age(g, set[i]) > ghost_age(g, *victim)) {
            victim = &set[i];
        }
    }
    g->evicted += bytes;
    *victim = ghost_print(hash) << 16 | ((uint32_t)(g->evicted >> g->age_shift) & UINT16_MAX);
}

/* Whether the key left S lately; forgets it. */
static bool ghost_take(struct ghost *g, uint64_t hash)
{
    uint32_t *set = ghost_set(g, hash);
    for (int i = 0; i < GHOST_WAYS; i++) {
        if (set[i] >> 16 == ghost_print(hash)) {
            bool recent = ghost_age(g, set[i]) <= g->memory;
            set[i] = 0;
            return recent;
        }
    }
    return false;
}

/* ---- Queues -------------------------------------------------------------------------------- */

size_t entry_charge(const struct entry *e)
{
    return mem_usable(e) + mem_usable(e->blob);
}

static void queue_push(struct queue *q, struct entry *e, size_t charge)
{
    e->newer = NULL;
    e->older = q->newest;
    if (q->newest == NULL) {
        q->oldest = e;
    } else {
        q->newest->newer = e;
    }
    q->newest = e;
    q->bytes += charge;
}

static void queue_remove(struct queue *q, struct entry *e, size_t charge)
{
    if (e->older == NULL) {
        q->oldest = e->newer;
    } else {
        e->older->newer = e->newer;
    }
    if (e->newer == NULL) {
        q->newest = e->older;
    } else {
        e->newer->older = e->older;
    }
    q->bytes -= charge;
}

void evict_admit(struct shard *s, struct entry *e)
{
    size_t charge = entry_charge(e);
    e->in_main = ghost_take(&s->ghost, e->hash);
    queue_push(e->in_main ? &s->main : &s->small, e, charge);
    s->used += charge;
}

void evict_release(struct shard *s, struct entry *e)
{
    size_t charge = entry_charge(e);
    queue_remove(e->in_main ? &s->main : &s->small, e, charge);
    s->used -= charge;
}

/* From S to M with its hits spent, or once more through M for one hit. */
static void second_chance(struct shard *s, struct entry *e)
{
    size_t charge = entry_charge(e);
    queue_remove(e->in_main ? &s->main : &s->small, e, charge);
    e->freq = e->in_main ? (uint8_t)(e->freq - 1) : 0;
    e->in_main = true;
    queue_push(&s->main, e, charge);
}

/* Looks at the one whose turn it is; there is one. */
static void evict_step(struct l1 *l1, struct shard *s, int64_t now, int *chances,
                       struct entry **dead)
{
    bool from_small = s->small.bytes > s->small_target || s->main.oldest == NULL;
    struct entry *e = from_small ? s->small.oldest : s->main.oldest;
    enum fate fate = entry_fate(l1, e, now);
    if (fate == FATE_VOID || fate == FATE_EXPIRED) {
        entry_bury(s, e, fate, dead);
        return;
    }
    if (e->freq > 0 && *chances > 0) {
        (*chances)--;
        second_chance(s, e);
        return;
    }
    if (from_small) {
        ghost_add(&s->ghost, e->hash, entry_charge(e));
    }
    s->counted.evictions++;
    entry_drop(s, e, dead);
}

bool evict_room(struct l1 *l1, struct shard *s, size_t need, int64_t now, struct entry **dead)
{
    size_t evictable = s->small.bytes + s->main.bytes;
    if (need > s->budget - (s->used - evictable)) {
        return false;
    }
    int chances = SECOND_CHANCES;
    while (need > s->budget - s->used) {
        evict_step(l1, s, now, &chances, dead);
    }
    return true;
}

void entry_drop(struct shard *s, struct entry *e, struct entry **dead)
{
    table_remove(&s->table, e);
    evict_release(s, e);
    e->chain = *dead;
    *dead = e;
}

void entry_bury(struct shard *s, struct entry *e, enum fate fate, struct entry **dead)
{
    if (fate == FATE_VOID) {
        s->counted.voids++;
    } else if (fate == FATE_EXPIRED) {
        s->counted.expirations++;
    } else {
        s->counted.lapses++;
    }
    entry_drop(s, e, dead);
}

void entries_free(struct entry *dead)
{
    while (dead != NULL) {
        struct entry *next = dead->chain;
        blob_unref(dead->blob);
        mem_free(dead);
        dead = next;
    }
}
