/* SPDX-License-Identifier: Apache-2.0
 *
 * load_latency.c: durations below LATENCY_STEPS have a bucket each; above, a bucket is the position
 * of the highest bit and the six bits behind it.
 */
#include "load_latency.h"

#define STEP_BITS 6
_Static_assert(LATENCY_STEPS == 1 << STEP_BITS, "a doubling is so many buckets");

static unsigned bucket_of(uint64_t ns)
{
    if (ns < LATENCY_STEPS) {
        return (unsigned)ns;
    }
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - STEP_BITS;
    unsigned bucket = (shift << STEP_BITS) + (unsigned)(ns >> shift);
    return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

/* The longest duration of a bucket. */
static uint64_t upper_end(unsigned bucket)
{
    if (bucket < LATENCY_STEPS) {
        return bucket;
    }
    unsigned shift = (bucket >> STEP_BITS) - 1;
    uint64_t lead = LATENCY_STEPS + (bucket & (LATENCY_STEPS - 1));
    return ((lead + 1) << shift) - 1;
}

void latency_add(struct latency *l, uint64_t ns, uint64_t count)
{
    l->bucket[bucket_of(ns)] += count;
    l->count += count;
    l->sum_ns += ns * count;
    if (ns > l->max_ns) {
        l->max_ns = ns;
    }
}

uint64_t latency_at(const struct latency *l, double part)
{
    uint64_t wanted = (uint64_t)(part * (double)l->count);
    uint64_t seen = 0;
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        seen += l->bucket[i];
        if (l->bucket[i] > 0 && seen >= wanted) {
            uint64_t end = upper_end(i);
            return end < l->max_ns ? end : l->max_ns;
        }
    }
    return l->max_ns;
}
