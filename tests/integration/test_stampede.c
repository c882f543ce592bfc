/* SPDX-License-Identifier: Apache-2.0
 *
 * test_stampede.c: one fetch for a cold key, however many ask for it. Redis's own count of GETs is
 * the judge. The fetch is made slow by a relay that delays replies, so that the crowd really arrives
 * while it is under way.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <string.h>
#include <sys/resource.h>

TestSuite(stampede);

#define CROWD 1000
/* Well below what a worker waits for the fetch of another one (R5: 250 ms). */
#define DELAY_MS 120

/* Descriptors for the crowd. */
static void raise_limit(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < CROWD + 100) {
        cr_skip_test("too few descriptors allowed");
    }
}

static void gather(struct nearside *n, struct client **crowd)
{
    raise_limit();
    nearside_await_fills(n);
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = nearside_connect(n);
        client_set_timeout(crowd[i], 20000);
    }
    for (int i = 0; i < CROWD; i++) {
        expect(crowd[i], "+PONG", "PING");
    }
}

SCENARIO(stampede, a_thousand_clients_on_a_cold_key_cost_one_fetch)
{
    static struct client *crowd[CROWD];
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, NULL);
    struct nearside *n = nearside_start(relay_port(link), NULL);

    gather(n, crowd);
    for (int round = 0; round < 3; round++) {
        expect(r->direct, "+OK", "SET cold%d value%d", round, round);
        long long calls = redis_calls(r, "get");
        long long joins = nearside_info(n, "l1_joins");
        relay_delay(link, RELAY_DOWN, DELAY_MS);
        for (int i = 0; i < CROWD; i++) {
            cr_assert(client_command(crowd[i], "GET cold%d", round));
        }
        for (int i = 0; i < CROWD; i++) {
            expect_next(crowd[i], cleanup_printf("$value%d", round));
        }
        relay_delay(link, RELAY_DOWN, 0);
        cr_assert_eq(redis_calls(r, "get"), calls + 1, "%lld fetches",
                     redis_calls(r, "get") - calls);
        joins = nearside_info(n, "l1_joins") - joins;
        cr_assert(joins > CROWD / 2, "only %lld waited for the fetch of another", joins);
    }
}

SCENARIO(stampede, a_thousand_clients_on_a_missing_key_cost_one_fetch)
{
    static struct client *crowd[CROWD];
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=4", NULL);

    gather(n, crowd);
    long long calls = redis_calls(r, "get");
    for (int i = 0; i < CROWD; i++) {
        cr_assert(client_command(crowd[i], "GET nobody"));
    }
    for (int i = 0; i < CROWD; i++) {
        expect_next(crowd[i], "nil");
    }
    cr_assert_eq(redis_calls(r, "get"), calls + 1);
}

SCENARIO(stampede, a_write_during_the_fetch_is_seen_by_all_who_ask_after_it)
{
    enum { FEW = 20 };
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, NULL);
    struct nearside *n = nearside_start(relay_port(link), NULL);
    struct client *early[FEW];
    struct client *late[FEW];
    struct client *writer = nearside_connect(n);

    for (int i = 0; i < FEW; i++) {
        early[i] = nearside_connect(n);
        late[i] = nearside_connect(n);
    }
    relay_delay(link, RELAY_DOWN, 30);
    for (int round = 0; round < 10; round++) {
        expect(writer, "+OK", "SET k%d old", round);
        for (int i = 0; i < FEW; i++) {
            cr_assert(client_command(early[i], "GET k%d", round));
        }
        expect(writer, "+OK", "SET k%d new", round);
        for (int i = 0; i < FEW; i++) {
            cr_assert(client_command(late[i], "GET k%d", round));
        }
        for (int i = 0; i < FEW; i++) {
            const char *got = client_read(early[i]);
            cr_assert(strcmp(got, "$old") == 0 || strcmp(got, "$new") == 0, "got '%s'", got);
            expect_next(late[i], "$new");
        }
    }
}

/* Returns how many of the crowd got an error when the link of the fetch, or all links, died. */
static int die_during_fetch(bool fills_only)
{
    enum { FEW = 200 };
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, "TRACKING");
    struct nearside *n = nearside_start(relay_port(link), NULL);
    struct client *crowd[FEW];

    for (int i = 0; i < FEW; i++) {
        crowd[i] = nearside_connect(n);
        expect(crowd[i], "+PONG", "PING");
    }
    expect(r->direct, "+OK", "SET k v");
    relay_hold(link, RELAY_DOWN, false);
    for (int i = 0; i < FEW; i++) {
        cr_assert(client_command(crowd[i], "GET k"));
    }
    pass_time(50);
    relay_cut(link, fills_only);
    relay_release(link);
    int errors = 0;
    for (int i = 0; i < FEW; i++) {
        const char *got = client_read(crowd[i]);
        cr_assert(strcmp(got, "$v") == 0 || strncmp(got, "-UPSTREAM", 9) == 0, "got '%s'", got);
        errors += got[0] == '-' ? 1 : 0;
    }
    await_reply(crowd[0], "$v", 3000, "GET k");
    return errors;
}

SCENARIO(stampede, a_fetch_that_dies_is_tried_again_for_the_whole_crowd)
{
    cr_assert_eq(die_during_fetch(true), 0);
}

SCENARIO(stampede, a_fetch_that_dies_with_all_links_leaves_nobody_waiting)
{
    /* the second try may meet a link that is dying too: then it is an error */
    (void)die_during_fetch(false);
}
