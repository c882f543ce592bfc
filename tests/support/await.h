/* SPDX-License-Identifier: Apache-2.0
 *
 * await.h: time in tests. Nothing sleeps and hopes: a test waits for a condition, with a bound.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Milliseconds of CLOCK_MONOTONIC. */
int64_t now_ms(void);
/* Milliseconds since 1970, the clock Redis keeps deadlines by. */
int64_t wall_ms(void);

/* Calls condition(ctx) every few milliseconds until it is true, at most for `ms`. Returns whether it
 * became true. */
bool await(bool (*condition)(void *ctx), void *ctx, int64_t ms);

/* Lets time pass: only for tests whose subject is time (a lease that must run out). */
void pass_time(int64_t ms);

/* How much slower than usual the proxy may be: 1, or the number in NEARSIDE_SLOWDOWN (for builds
 * with sanitizers, and machines that are busy with something else). Upper bounds on time are
 * multiplied by it. */
int slowdown(void);
/* Is the proxy built with sanitizers (NEARSIDE_SANITIZED is set)? Its memory use says nothing then. */
bool is_sanitized(void);
