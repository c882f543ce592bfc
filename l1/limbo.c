/* SPDX-License-Identifier: Apache-2.0
 *
 * limbo.c: when the memory of a dropped entry may be used again: quiescent-state-based reclamation.
 *
 * A reader is resting or under way. It gets under way by its first lookup, and rests when its thread
 * says so (l1_reader_rest), which a worker does once a turn, before it sleeps. What it sees while it
 * is under way stays where it is until it rests. Lookups therefore write nothing that is shared.
 *
 *     dropped ──► fresh ──── aged is empty: all of it, under a new epoch ───► aged ──► slot is free
 *                                                             every reader rests or began
 *                                                             in that epoch or later
 *
 * Why that is enough. An entry is unlinked, then the epoch moves (by whoever turns fresh into aged,
 * under the same lock), then the readers are looked at. A reader whose number is that epoch or a
 * later one read the epoch behind the move, so it found the entry unlinked. One that is seen resting
 * will have stored its number after we looked, behind which it has a full fence, as we have one
 * before looking: it finds the entry unlinked too. Any other may stand on the entry, and is waited
 * for: by leaving things where they are, never by blocking.
 *
 * The epoch has 64 bits and does not wrap. It moves once per batch, not per entry. A thread that
 * gives no reader looks under the lock and needs none of this.
 */
#include "l1_priv.h"

#include "../conf/mem.h"

struct l1_reader *l1_reader(struct l1 *l1, uint32_t i)
{
    bug_on(i >= l1->reader_count);
    return &l1->readers[i];
}

/* Release: what was read is read. Partner: the acquire in readers_have_passed. */
void l1_reader_rest(struct l1_reader *r)
{
    if (atomic_load_explicit(&r->seen, memory_order_relaxed) != 0) {
        atomic_store_explicit(&r->seen, 0, memory_order_release);
    }
}

static bool readers_have_passed(const struct l1 *l1, uint64_t epoch)
{
    atomic_thread_fence(memory_order_seq_cst);
    for (uint32_t i = 0; i < l1->reader_count; i++) {
        uint64_t seen = atomic_load_explicit(&l1->readers[i].seen, memory_order_acquire);
        if (seen != 0 && seen < epoch) {
            return false;
        }
    }
    return true;
}

void limbo_add(struct shard *s, struct entry *e, size_t charge)
{
    e->newer = s->limbo.fresh;
    s->limbo.fresh = ref_of(s, e);
    s->limbo.bytes += charge;
}

void work_free(struct work *work)
{
    for (uint32_t i = 0; i < work->dead_count; i++) {
        blob_unref(work->dead[i]);
    }
    work->dead_count = 0;
}

static void free_entry(struct shard *s, struct entry *e, struct work *work)
{
    if (flags_of(e) & FLAG_BLOB) {
        struct blob *b = entry_blob(e);
        size_t outside = mem_usable(b);
        s->used -= outside;
        s->limbo.bytes -= outside;
        if (work->dead_count == ARRAY_LEN(work->dead)) {
            work_end(work);
        }
        work->dead[work->dead_count++] = b;
    }
    s->limbo.bytes -= slab_free(s, e);
}

static uint32_t free_aged(struct shard *s, uint32_t max, struct work *work)
{
    struct limbo *l = &s->limbo;
    uint32_t freed = 0;
    for (; l->aged != 0 && freed < max; freed++) {
        struct entry *e = entry_at(s, l->aged);
        l->aged = e->newer;
        free_entry(s, e, work);
    }
    return freed;
}

uint32_t limbo_reclaim(struct l1 *l1, struct shard *s, uint32_t max, struct work *work)
{
    struct limbo *l = &s->limbo;
    uint32_t freed = 0;
    while (freed < max && (l->aged != 0 || l->fresh != 0)) {
        if (l->aged == 0) {
            l->aged = l->fresh;
            l->fresh = 0;
            l->epoch = atomic_fetch_add_explicit(&l1->epoch, 1, memory_order_seq_cst) + 1;
        }
        if (!readers_have_passed(l1, l->epoch)) {
            break;
        }
        freed += free_aged(s, max - freed, work);
    }
    return freed;
}
