/* SPDX-License-Identifier: Apache-2.0
 *
 * busy_poll.c: see busy_poll.h.
 */
#include "busy_poll.h"

#include <ev.h>
#include <time.h>

/* After so many tries in vain, */
#define VAIN_MAX 8
/* there is one after every so many turns. */
#define VAIN_EVERY 64

struct poll {
    struct ev_check check;
    bool found; /* events, in the last turn */
};

static int64_t now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Behind the poll, and before what it has found is told to anybody. */
static void on_check(struct ev_loop *loop, struct ev_check *check, int events)
{
    (void)events;
    struct poll *poll = container_of(check, struct poll, check);
    poll->found = ev_pending_count(loop) > 0;
}

/* Polls until something is found, but not for longer than that. */
static bool poll_for(struct ev_loop *loop, struct poll *poll, int64_t limit_us, const bool *done)
{
    int64_t until = now_us() + limit_us;
    do {
        ev_run(loop, EVRUN_NOWAIT);
    } while (!poll->found && !*done && now_us() < until);
    return poll->found;
}

void busy_poll_run(struct ev_loop *loop, int64_t limit_us, const bool *done)
{
    struct poll poll = {.found = false};
    unsigned vain = 0;
    unsigned turns = 0;
    if (limit_us == 0) {
        ev_run(loop, 0);
        return;
    }
    ev_check_init(&poll.check, on_check);
    ev_check_start(loop, &poll.check);
    while (!*done) {
        ev_run(loop, EVRUN_ONCE);
        while (!*done && (vain < VAIN_MAX || ++turns % VAIN_EVERY == 0)) {
            if (!poll_for(loop, &poll, limit_us, done)) {
                vain++;
                break;
            }
            vain = 0;
        }
    }
    ev_check_stop(loop, &poll.check);
}
