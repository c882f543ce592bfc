/* SPDX-License-Identifier: Apache-2.0
 *
 * await.c: clocks and bounded waiting. Polls: the conditions are spread over other processes'
 * state (a counter in INFO, a file in /proc, a reply), which have no common way to announce a
 * change, and 2 ms is below anything the tests measure.
 */
#include "await.h"

#include <stdlib.h>
#include <time.h>

#define POLL_MS 2

static int64_t clock_ms(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t now_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

int64_t wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

void pass_time(int64_t ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000};

    while (nanosleep(&ts, &ts) != 0) {
        /* interrupted: ts holds what is left */
    }
}

bool await(bool (*condition)(void *ctx), void *ctx, int64_t ms)
{
    int64_t deadline = now_ms() + ms;

    for (;;) {
        if (condition(ctx)) {
            return true;
        }
        if (now_ms() >= deadline) {
            return false;
        }
        pass_time(POLL_MS);
    }
}

int slowdown(void)
{
    const char *text = getenv("NEARSIDE_SLOWDOWN");
    int factor = text != NULL ? atoi(text) : 1;

    return factor < 1 ? 1 : factor;
}

bool is_sanitized(void)
{
    return getenv("NEARSIDE_SANITIZED") != NULL;
}
