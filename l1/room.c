/* SPDX-License-Identifier: Apache-2.0
 *
 * room.c: how a full shard makes room: in steps, of which each does one of
 *
 *     1. take back what lies in limbo and nobody can see any more
 *     2. move an entry off the page that is being drained
 *     3. evict
 *
 * until there is a slot, or enough bytes outside the slab (blobs, leases, heads), for which free
 * pages are given back to the system. A call does no more than STEPS of them, so that the lock is
 * not held for long: whoever wants a lot asks again.
 *
 * While a reader is under way, what is dropped helps nobody yet. So a reserve is kept: after each
 * fill as much is evicted as was used up, ahead of the next one, and half of the reserve is kept in
 * whole pages, since that may be of another size. When the reserve is spent and
 * readers do not rest, the value that would be kept is not: nobody waits. For the same reason no
 * more is evicted than would do if it were free at once.
 *
 * An entry is moved by copying it into another slot of its class, putting the copy in its place in
 * bucket and queue, and dropping it. Readers may stand on either.
 *
 * Everything wants the shard's lock.
 */
#include "l1_priv.h"

#define STEPS       64
#define RECLAIM     32 /* entries taken back in a step */
#define AHEAD_STEPS 8  /* of one fill, for the next one */
#define LIMBO_PART  32 /* of the reserve */

size_t entry_drop(struct shard *s, struct entry *e)
{
    size_t charge = entry_charge(s, e);
    table_remove(s, e);
    evict_release(s, e, charge);
    flags_set(e, flags_of(e) & ~FLAG_LIVE);
    limbo_add(s, e, charge);
    return charge;
}

void entry_bury(struct shard *s, struct entry *e, enum fate fate)
{
    if (fate == FATE_VOID) {
        s->counted.voids++;
    } else if (fate == FATE_EXPIRED) {
        s->counted.expirations++;
    } else {
        s->counted.lapses++;
    }
    entry_drop(s, e);
}

/* ---- Moving -------------------------------------------------------------------------------- */

/* Readers count hits meanwhile; one that gets lost is none to speak of. */
static void copy_entry(struct entry *copy, const struct entry *e)
{
    size_t content = (size_t)(entry_key(e) - e->bytes) + e->key_len;
    content += flags_of(e) & FLAG_BLOB ? sizeof(struct blob *) : e->value_len;
    copy->hash = e->hash;
    copy->deadline = e->deadline;
    copy->stamp = e->stamp;
    copy->cover = e->cover;
    copy->key_len = e->key_len;
    copy->value_len = e->value_len;
    atomic_store_explicit(&copy->freq, atomic_load_explicit(&e->freq, memory_order_relaxed),
                          memory_order_relaxed);
    flags_set(copy, flags_of(e));
    memcpy(copy->bytes, e->bytes, content);
}

/* Off the page that is drained; without a slot elsewhere it has to go. */
static void move_entry(struct shard *s, struct entry *e)
{
    uint32_t class = slab_class_at(s, ref_of(s, e));
    struct entry *copy = s->slab.class[class].free_slots > 0 ? slab_alloc(s, class) : NULL;
    if (copy == NULL) {
        s->counted.evictions++;
        entry_drop(s, e);
        return;
    }
    copy_entry(copy, e);
    table_replace(s, e, copy);
    evict_replace(s, e, copy);
    /* The blob is the copy's. */
    flags_set(e, flags_of(e) & ~(FLAG_LIVE | FLAG_BLOB));
    limbo_add(s, e, s->slab.classes->size[class]);
}

/* ---- Steps --------------------------------------------------------------------------------- */

/* False when nothing can be done, or not before readers rest: `enough` bytes are in limbo. */
static bool step(struct l1 *l1, struct shard *s, size_t enough, struct work *work)
{
    if (limbo_reclaim(l1, s, RECLAIM, work) > 0) {
        return true;
    }
    struct entry *e = slab_next_to_move(s);
    if (e != NULL) {
        move_entry(s, e);
        return true;
    }
    return s->limbo.bytes < enough && evict_step(l1, s, work);
}

static size_t page_size(const struct shard *s)
{
    return s->slab.classes->page_size;
}

/* What is free or will be without evicting anything. */
static size_t slack(const struct shard *s)
{
    return s->budget - s->used + s->slab.free_count * page_size(s) + s->slab.free_bytes +
           s->limbo.bytes;
}

enum room room_for_bytes(struct l1 *l1, struct shard *s, size_t need, struct work *work)
{
    if (need > slack(s) + s->small.bytes + s->main.bytes) {
        return ROOM_NEVER;
    }
    for (int i = 0; i < STEPS; i++) {
        if (s->budget - s->used >= need) {
            return ROOM_IS_THERE;
        }
        if (!slab_give_back(s) && !step(l1, s, need + s->reserve, work)) {
            return ROOM_NEVER;
        }
    }
    return ROOM_MORE_STEPS;
}

enum room room_for_slot(struct l1 *l1, struct shard *s, uint32_t class, struct work *work)
{
    if (s->slab.class[class].free_slots == 0 && s->limbo.bytes > 0) {
        (void)limbo_reclaim(l1, s, RECLAIM, work); /* rather than a new page */
    }
    for (int i = 0; i < STEPS; i++) {
        if (slab_has_room(s, class)) {
            return ROOM_IS_THERE;
        }
        if (!step(l1, s, s->reserve, work)) {
            return ROOM_NEVER;
        }
    }
    return ROOM_MORE_STEPS;
}

/* Bytes in pages that are free for any class, or will be. */
static size_t whole(const struct shard *s)
{
    return s->budget - s->used + s->slab.free_count * page_size(s) + s->limbo.bytes;
}

/* What is free lies scattered over pages: moves what is between. */
static void gather(struct l1 *l1, struct shard *s, int steps, struct work *work)
{
    bool stuck = false;
    for (; steps > 0 && whole(s) < s->reserve / 2 && !stuck; steps--) {
        struct entry *e = slab_next_to_move(s);
        if (e != NULL) {
            move_entry(s, e);
        } else {
            stuck = !evict_step(l1, s, work);
        }
    }
}

void room_ahead(struct l1 *l1, struct shard *s, struct work *work)
{
    int steps = AHEAD_STEPS;
    size_t free = slack(s); /* an eviction moves bytes into limbo, and nothing else of it */
    size_t enough = s->limbo.bytes + (free < s->reserve ? s->reserve - free : 0);
    while (steps > 0 && s->limbo.bytes < enough && evict_step(l1, s, work)) {
        steps--;
    }
    if (unlikely(whole(s) < s->reserve / 2)) {
        gather(l1, s, steps, work);
    }
    /* Soon, so that the next entries come to lie in what the processor's caches still have. */
    if (s->limbo.bytes > s->reserve / LIMBO_PART) {
        (void)limbo_reclaim(l1, s, RECLAIM, work);
    }
}
