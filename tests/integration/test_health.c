/* SPDX-License-Identifier: Apache-2.0
 *
 * test_health.c: the states of a server, as INFO and the log show them, and that nobody waits for one
 * that is down.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <string.h>

TestSuite(health_states);

struct wait {
    struct nearside *n;
    const char *state;
};

static bool has_state(void *ctx)
{
    const struct wait *wait = ctx;
    const char *field = cleanup_printf(",state=%s,", wait->state);
    return strstr(nearside_info_text(wait->n), field) != NULL;
}

static void await_state(struct nearside *n, const char *state, int64_t ms)
{
    struct wait wait = {n, state};

    cr_assert(await(has_state, &wait, ms), "it is not %s:\n%s\n%s", state, nearside_info_text(n),
              nearside_log(n));
}

static long long in_upstream0(struct nearside *n, const char *field)
{
    return field_number(strstr(nearside_info_text(n), "upstream0:"), field, -2);
}

SCENARIO(health_states, frozen_server_is_suspect_then_down_and_up_when_it_answers)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.dead_after=2s", NULL);
    struct client *c = nearside_connect(n);

    await_state(n, "up", 5000);
    cr_assert_eq(in_upstream0(n, "failures"), 0);
    cr_assert_leq(in_upstream0(n, "heard_seconds"), 1);
    redis_freeze(r);
    await_state(n, "suspect", 2000 * slowdown());
    await_state(n, "down", 10000);
    cr_assert_geq(in_upstream0(n, "heard_seconds"), 1);
    nearside_await_log(n, "is down");
    cr_assert_eq(nearside_log_lines(n, "is suspect"), 1);

    int64_t began = now_ms();
    for (int i = 0; i < 20; i++) {
        expect(c, "-UPSTREAM...", "SET k v");
        expect(nearside_connect(n), "-UPSTREAM...", "BLPOP l 0"); /* a connection of its own */
    }
    cr_assert_lt(now_ms() - began, 800 * slowdown(), "commands wait for a server that is down:\n%s",
                 nearside_log(n));

    redis_thaw(r);
    await_state(n, "up", 10000);
    cr_assert_eq(in_upstream0(n, "failures"), 0);
    nearside_await_log(n, "answers again");
    nearside_await_log(n, "is up again");
    cr_assert_eq(nearside_log_lines(n, "is up again"), 1);
    await_reply(c, "+OK", 2000, "SET k v");
}

/* Without L1 nothing is said to an idle server but what asks how it is. */
SCENARIO(health_states, idle_server_that_freezes_is_noticed_without_a_command)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "invalidation.mode=off", "upstream.dead_after=2s", NULL);

    await_reply(nearside_connect(n), "+OK", 5000, "SET k v");
    await_state(n, "up", 5000);
    redis_freeze(r);
    await_state(n, "suspect", 3000 * slowdown());
    await_state(n, "down", 10000);
    redis_thaw(r);
    await_state(n, "up", 10000);
}

SCENARIO(health_states, server_that_refuses_connections_is_down_after_so_many)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.failure_threshold=5", NULL);

    await_state(n, "up", 5000);
    redis_stop(r);
    await_state(n, "down", 5000 * slowdown());
    cr_assert_geq(in_upstream0(n, "failures"), 5);
    redis_restart(r);
    await_state(n, "up", 10000);
    await_reply(nearside_connect(n), "+OK", 2000, "SET k v");
}

SCENARIO(health_states, server_that_was_never_there_is_connecting_then_down)
{
    struct nearside *n = nearside_start(free_port(), NULL);

    await_state(n, "down", 5000 * slowdown());
    cr_assert_eq(in_upstream0(n, "heard_seconds"), -1);
}

SCENARIO(health_states, connection_that_is_killed_makes_no_server_down)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    cr_assert_geq(redis_kill_tracking(r), 1);
    expect(c, "+OK", "SET k v");
    await_state(n, "up", 5000);
    cr_assert_eq(nearside_log_lines(n, "is down"), 0);
}
