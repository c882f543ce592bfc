/* SPDX-License-Identifier: Apache-2.0
 *
 * load_latency.h: a histogram of durations, exact to 1.6 %, from 1 ns to hours.
 */
#pragma once

#include <stdint.h>

/* Buckets double in width every 64: those of one doubling share the leading bits. */
#define LATENCY_STEPS   64
#define LATENCY_BUCKETS (LATENCY_STEPS * 40)

struct latency {
    uint64_t count, sum_ns, max_ns;
    uint64_t bucket[LATENCY_BUCKETS];
};

/* Notes that `count` requests took `ns` each. */
void latency_add(struct latency *l, uint64_t ns, uint64_t count);

/* The duration that `part` of them (0.99: 99 %) did not exceed, in ns; 0 without any. */
uint64_t latency_at(const struct latency *l, double part);
