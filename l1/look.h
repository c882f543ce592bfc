/* SPDX-License-Identifier: Apache-2.0
 *
 * look.h: how a run of lookups, or of writes, asks for what it is going to read (get.c, change.c).
 *
 * Each lookup waits for a bucket, for the first entry behind it, often for a second. All of a run begin to
 * wait for one before the first of them goes on to the next: look_for for each, then look_behind.
 */
#pragma once

#include "l1_priv.h"

/* Where a key is looked for. A bucket that is split meanwhile has lost it, perhaps: it is overlooked. */
struct look {
    struct shard *shard;
    const _Atomic uint32_t *head;
    const struct entry *first; /* behind the bucket, perhaps: only to be asked for */
};

/* No lock is wanted. */
static inline void look_for(const struct l1 *l1, uint64_t hash, struct look *look)
{
    look->shard = shard_of(l1, hash);
    look->head = table_head(look->shard, hash);
    __builtin_prefetch(look->head);
}

/* No lock is wanted, but a reader, which begins: without one (NULL) nothing behind a bucket may be read. What is
 * `value` bytes behind the beginning of the first entries is wanted, too, unless that is 0. */
static inline void look_behind(struct l1 *l1, struct l1_reader *reader, struct look *looks,
                               size_t n, size_t value)
{
    if (unlikely(reader == NULL)) {
        return;
    }
    reader_begin(l1, reader);
    for (size_t i = 0; i < n; i++) {
        looks[i].first =
            seat_of(looks[i].shard, atomic_load_explicit(looks[i].head, memory_order_acquire));
        __builtin_prefetch(looks[i].first);
        if (value > 0) {
            __builtin_prefetch((const char *)looks[i].first + value);
        }
    }
    for (size_t i = 0; i < n; i++) {
        __builtin_prefetch(seat_of(looks[i].shard, link_of(&looks[i].first->chain)));
    }
}
