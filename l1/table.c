/* SPDX-License-Identifier: Apache-2.0
 *
 * table.c: the index of one shard, and the way an entry leaves it. Chains of entries behind
 * buckets, at most three entries to four buckets. Linear hashing: each insert that crowds the
 * table adds a bucket at its end and moves into it what belongs there from one other bucket, so
 * growing from nothing to millions never stalls a request, and needs no second table while it
 * lasts.
 *
 *     buckets:  0 ......... split ......... low_mask | low_mask+1 ... buckets-1 |     high_mask
 *               [ have been split: high_mask ]         [ their other halves ]
 *                             [ not yet: low_mask ]
 *
 * The buckets come in segments of 4 KiB that are allocated when the first bucket in them is, and
 * charged to the shard. The directory of segments is sized once, for the smallest entries there
 * are; when memory for a segment is out, chains grow longer instead. The table never shrinks: what
 * once was needed for the working set will be again.
 *
 * Everything wants the shard's lock. Knows hashes and entries, nothing of time (but for the sweep,
 * which asks for an entry's fate) and nothing of leases.
 */
#include "l1_priv.h"

#include "../conf/mem.h"

/* The smallest charge there is to expect: a header, a key and a small value. */
#define SMALLEST_ENTRY 128
#define BUCKETS_LIMIT  ((size_t)1 << 31)

/* Buckets that one insert may add: more than come by one insert, so that the table catches up. */
#define GROW_STEP 2

static bool is_crowded(const struct table *t)
{
    return t->items > t->buckets - t->buckets / 4;
}

static bool add_segment(struct shard *s)
{
    struct table *t = &s->table;
    struct entry **segment = mem_try_zero(SEGMENT_BUCKETS * sizeof(*segment));
    if (segment == NULL) {
        return false;
    }
    t->segments[t->buckets / SEGMENT_BUCKETS] = segment;
    s->used += mem_usable(segment);
    return true;
}

bool table_init(struct shard *s)
{
    struct table *t = &s->table;
    size_t most = s->budget / SMALLEST_ENTRY;
    most = most < SEGMENT_BUCKETS ? SEGMENT_BUCKETS : most;
    most = most < BUCKETS_LIMIT ? most : BUCKETS_LIMIT;
    size_t segments = most / SEGMENT_BUCKETS;
    t->segments = mem_try_zero(segments * sizeof(*t->segments));
    if (t->segments == NULL) {
        return false;
    }
    s->used += mem_usable(t->segments);
    t->buckets_max = (uint32_t)(segments * SEGMENT_BUCKETS);
    if (!add_segment(s)) {
        return false;
    }
    t->buckets = SEGMENT_BUCKETS;
    t->low_mask = SEGMENT_BUCKETS - 1;
    t->high_mask = 2 * SEGMENT_BUCKETS - 1;
    return true;
}

void table_fini(struct shard *s)
{
    struct table *t = &s->table;
    for (uint32_t i = 0; i < t->buckets; i++) {
        entries_free(t->segments[i / SEGMENT_BUCKETS][i % SEGMENT_BUCKETS]);
    }
    for (uint32_t i = 0; i < t->buckets; i += SEGMENT_BUCKETS) {
        mem_free(t->segments[i / SEGMENT_BUCKETS]);
    }
    mem_free(t->segments);
    *t = (struct table){0};
}

struct entry *table_next(const struct table *t, uint64_t hash, const struct entry *after)
{
    struct entry *e = after == NULL ? *table_bucket(t, hash) : after->chain;
    while (e != NULL && e->hash != hash) {
        e = e->chain;
    }
    return e;
}

void table_insert(struct table *t, struct entry *e)
{
    struct entry **bucket = table_bucket(t, e->hash);
    e->chain = *bucket;
    *bucket = e;
    t->items++;
}

void table_remove(struct table *t, struct entry *e)
{
    struct entry **at = table_bucket(t, e->hash);
    while (*at != e) {
        at = &(*at)->chain;
    }
    *at = e->chain;
    t->items--;
}

/* The bucket behind the last gets its share of the one it doubles. */
static void split_next(struct table *t)
{
    uint32_t fresh = t->buckets;
    uint32_t split = fresh - (t->low_mask + 1);
    struct entry **from = &t->segments[split / SEGMENT_BUCKETS][split % SEGMENT_BUCKETS];
    struct entry **to = &t->segments[fresh / SEGMENT_BUCKETS][fresh % SEGMENT_BUCKETS];
    while (*from != NULL) {
        struct entry *e = *from;
        if (((uint32_t)e->hash & t->high_mask) == fresh) {
            *from = e->chain;
            e->chain = *to;
            *to = e;
        } else {
            from = &e->chain;
        }
    }
    t->buckets++;
    if (t->buckets > t->high_mask) {
        t->low_mask = t->high_mask;
        t->high_mask = 2 * t->low_mask + 1;
    }
}

void table_grow(struct l1 *l1, struct shard *s, int64_t now, struct entry **dead)
{
    struct table *t = &s->table;
    for (int i = 0; i < GROW_STEP && is_crowded(t) && t->buckets < t->buckets_max; i++) {
        if (t->buckets % SEGMENT_BUCKETS == 0) {
            /* The allocator may round up; twice the size is surely enough to ask for. */
            size_t most = sizeof(struct entry * [2 * SEGMENT_BUCKETS]);
            if (!evict_room(l1, s, most, now, dead) || !add_segment(s)) {
                return;
            }
        }
        split_next(t);
    }
}

/* Looks at one bucket from where the sweep left it; true when it is done with it. */
static bool sweep_bucket(struct l1 *l1, struct shard *s, size_t *budget, int64_t now,
                         struct entry **dead)
{
    struct table *t = &s->table;
    uint32_t i = t->sweep_bucket;
    struct entry *e = t->segments[i / SEGMENT_BUCKETS][i % SEGMENT_BUCKETS];
    if (e == NULL) {
        (*budget)--;
        return true;
    }
    for (uint32_t skip = t->sweep_passed; e != NULL && skip > 0; skip--) {
        e = e->chain;
    }
    while (e != NULL && *budget > 0) {
        struct entry *next = e->chain;
        enum fate fate = entry_fate(l1, e, now);
        if (fate == FATE_VOID || fate == FATE_EXPIRED) {
            entry_bury(s, e, fate, dead);
        } else {
            t->sweep_passed++;
        }
        (*budget)--;
        e = next;
    }
    return e == NULL;
}

bool table_sweep(struct l1 *l1, struct shard *s, size_t *budget, int64_t now, struct entry **dead)
{
    struct table *t = &s->table;
    while (*budget > 0) {
        if (!sweep_bucket(l1, s, budget, now, dead)) {
            return false;
        }
        t->sweep_passed = 0;
        t->sweep_bucket++;
        if (t->sweep_bucket >= t->buckets) {
            t->sweep_bucket = 0;
            return true;
        }
    }
    return false;
}
