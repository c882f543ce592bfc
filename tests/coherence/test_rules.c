/* SPDX-License-Identifier: Apache-2.0
 *
 * test_rules.c: a scenario for each rule of ARCHITECTURE.md that no other test makes happen each time:
 * covers and link leases, fetches and what is announced meanwhile, time to live, pushes. The table of
 * rules, scenarios and mutants is README.md.
 */
#include "rig.h"

#include "../support/fake.h"

#include <stdlib.h>
#include <string.h>

TestSuite(rules);

/* For bytes to get through the relay when nothing can tell that they have. */
#define CHANCE_MS 40

/* ---- Covers --------------------------------------------------------------------------------- */

SCENARIO(rules, a_lost_link_voids_what_it_fetched_before_it_is_back)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.a, "k");
    /* its successors cannot come up: their handshake has the mark in it */
    relay_hold(rig.relay, RELAY_UP, true);
    relay_cut(rig.relay, true);
    nearside_await_info(rig.proxy, "fill_connections_up", 0, 0, 5000);
    expect(rig.redis->direct, "+OK", "SET k new");
    expect(rig.a, "$new", "GET k");
    expect(rig.b, "$new", "GET k");
    relay_release(rig.relay);
}

SCENARIO(rules, a_link_that_is_back_does_not_bring_back_what_it_had_fetched)
{
    struct rig rig = rig_start(NULL, NULL);

    for (int i = 0; i < 3; i++) {
        expect(rig.redis->direct, "+OK", "SET k old%d", i);
        await_reply(rig.a, cleanup_printf("$old%d", i), 3000, "GET k");
        rig_make_cached(&rig, rig.a, "k");
        long long losses = nearside_info(rig.proxy, "link_losses");
        relay_cut(rig.relay, true);
        rig_await_counter(&rig, "link_losses", losses + 2);
        nearside_await_fills(rig.proxy);
        expect(rig.redis->direct, "+OK", "SET k new%d", i); /* the server tells nobody */
        expect(rig.a, cleanup_printf("$new%d", i), "GET k");
        expect(rig.b, cleanup_printf("$new%d", i), "GET k");
    }
}

SCENARIO(rules, what_is_read_while_a_fill_connection_is_down_is_not_kept)
{
    struct rig rig = rig_start(NULL, NULL);

    relay_hold(rig.relay, RELAY_UP, true);
    relay_cut(rig.relay, true);
    nearside_await_info(rig.proxy, "fill_connections_up", 0, 0, 5000);
    for (int i = 0; i < 10; i++) {
        expect(rig.redis->direct, "+OK", "SET k %d", i);
        expect(rig.a, cleanup_printf("$%d", i), "GET k");
        expect(rig.b, cleanup_printf("$%d", i), "GET k");
    }
    relay_release(rig.relay);
}

/* A name that leads to another server now: connections to the old one live on. */
SCENARIO(rules, reads_do_not_stay_with_a_server_that_writes_have_left)
{
    struct redis *other = redis_start(NULL);
    struct rig rig = rig_start(NULL, NULL);
    int64_t deadline = now_ms() + 10000;

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.b, "k");
    relay_retarget(rig.relay, other->port);
    relay_cut_link(rig.relay, rig.lane_a);
    await_reply(rig.a, "+OK", 5000, "SET k new");
    expect(other->direct, "$new", "GET k");
    for (bool seen = false; !seen;) {
        const char *got = ask(rig.b, "GET k");
        cr_assert(strcmp(got, "$new") == 0 || got[0] == '-', "after the write: '%s'", got);
        seen = got[0] == '$';
        cr_assert(now_ms() < deadline, "only errors: %s", got);
    }
}

/* A flush whose connection died may be executed later than its loss was noticed, and SWAPDB is announced
 * to nobody. Redis stands still, and when it goes on it reads the fetch before the SWAPDB, because
 * something else had been sent on that fill connection first. */
SCENARIO(rules, a_swap_that_is_executed_after_its_connection_died_is_seen)
{
    struct rig rig = rig_start(NULL, NULL);
    struct client *b2 = NULL;

    for (int i = 0; i < 8 && b2 == NULL; i++) {
        struct client *c = nearside_connect(rig.proxy);
        expect(c, "nil", "GET which-%d-", i);
        bool same = relay_find(rig.relay, cleanup_printf("which-%d-", i)) == rig.fill_b;
        b2 = same ? c : NULL;
    }
    cr_assert(b2 != NULL);
    expect(rig.redis->direct, "+OK", "SET k old");
    expect(rig.redis->direct, "+OK", "SELECT 1");
    expect(rig.redis->direct, "+OK", "SET k new");
    expect(rig.redis->direct, "+OK", "SELECT 0");
    redis_freeze(rig.redis);
    long long fetches = nearside_info(rig.proxy, "fetches");
    long long flushes = nearside_info(rig.proxy, "forwarded_flushes");
    cr_assert(client_command(rig.b, "GET first"));
    rig_await_counter(&rig, "fetches", fetches + 1);
    pass_time(CHANCE_MS); /* until it is in Redis's socket; nothing can tell */
    cr_assert(client_command(rig.a, "SWAPDB 0 1"));
    rig_await_counter(&rig, "forwarded_flushes", flushes + 1);
    pass_time(CHANCE_MS);
    relay_cut_link(rig.relay, rig.lane_a);
    expect_next(rig.a, "-UPSTREAM ...");
    cr_assert(client_command(b2, "GET k"));
    rig_await_counter(&rig, "fetches", fetches + 2);
    pass_time(CHANCE_MS);
    redis_thaw(rig.redis);
    expect_next(rig.b, "nil");
    (void)client_read(b2);
    await_reply(rig.redis->direct, "$new", 3000, "GET k");
    await_reply(b2, "$new", 3000, "GET k");
}

/* ---- Link leases ---------------------------------------------------------------------------- */

#define PONG_SIZE 7

SCENARIO(rules, the_lease_counts_from_when_the_ping_was_sent)
{
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, "TRACKING");
    struct nearside *n =
        nearside_start(relay_port(link), "proxy.workers=1", "invalidation.link_lease=1s", NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    expect(r->direct, "+OK", "SET k old");
    expect(c, "$old", "GET k");
    long long gets = redis_calls(r, "get");
    expect(c, "$old", "GET k");
    cr_assert_eq(redis_calls(r, "get"), gets);
    int fill = relay_pick(link, 0, true);
    relay_hold_link(link, fill, RELAY_DOWN);
    pass_time(350); /* a PING is sent every 250 ms, and there is one at a time */
    expect(r->direct, "+OK", "SET k new");
    int64_t written = now_ms();
    pass_time(500);
    relay_pass(link, fill, RELAY_DOWN, PONG_SIZE); /* the announcement stays behind */
    while (now_ms() < written + 1010) {
        pass_time(5);
    }
    expect(c, "$new", "GET k");
    relay_release(link);
}

/* ---- Fetches -------------------------------------------------------------------------------- */

SCENARIO(rules, a_change_between_the_two_replies_of_a_fetch_is_noticed)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    relay_hold_link(rig.relay, rig.fill_a, RELAY_UP);
    long long gets = rig_calls(&rig, "get");
    cr_assert(client_command(rig.a, "GET k"));
    /* byte by byte, until Redis has executed the GET but has not got all of the PTTL */
    for (int i = 0; rig_calls(&rig, "get") == gets; i++) {
        cr_assert(i < 200, "the fetch does not begin with its GET");
        relay_pass(rig.relay, rig.fill_a, RELAY_UP, 1);
        (void)rig_await_call(&rig, "get", gets, 4);
    }
    expect(rig.redis->direct, "+OK", "SET k new");
    relay_hold_link(rig.relay, rig.fill_a, 0);
    expect_next(rig.a, "$old"); /* it was asked for before */
    expect(rig.a, "$new", "GET k");
    expect(rig.b, "$new", "GET k");
}

SCENARIO(rules, a_change_elsewhere_is_seen)
{
    struct rig rig = rig_start(NULL, NULL);

    for (int i = 0; i < 10; i++) {
        expect(rig.redis->direct, "+OK", "SET k old%d", i);
        await_reply(rig.a, cleanup_printf("$old%d", i), 3000, "GET k");
        rig_make_cached(&rig, rig.a, "k");
        expect(rig.redis->direct, "+OK", "SET k new%d", i);
        await_reply(rig.b, cleanup_printf("$new%d", i), 3000, "GET k");
        expect(rig.a, cleanup_printf("$new%d", i), "GET k");
    }
}

/* Reads every 6 ms on all workers for so long, each on a client that does not wait. */
static void read_steadily(struct client **c, bool *waits, size_t n, const char *key, int64_t ms)
{
    int64_t end = now_ms() + ms;

    for (size_t i = 0; now_ms() < end; i = (i + 1) % n) {
        if (waits[i] && client_readable(c[i], 0)) {
            (void)client_read(c[i]);
            waits[i] = false;
        }
        if (!waits[i]) {
            cr_assert(client_command(c[i], "GET %s", key));
            waits[i] = true;
        }
        pass_time(6);
    }
}

/* The server is 60 ms away, a fetch is under way when the key is written: if each fetch that was
 * detached detached the one after it, there would be no end to them, unless two of them happened to
 * come home together; hence the rounds. */
SCENARIO(rules, a_hot_key_is_cached_again_soon_after_a_write)
{
    enum { CLIENTS = 40, ROUNDS = 4 };
    struct rig rig = rig_start(NULL, NULL);
    struct client *c[CLIENTS];
    bool waits[CLIENTS] = {false};

    for (int i = 0; i < CLIENTS; i++) {
        c[i] = nearside_connect(rig.proxy);
    }
    relay_delay(rig.relay, RELAY_DOWN, 60);
    for (int round = 0; round < ROUNDS; round++) {
        const char *key = cleanup_printf("k%d", round);
        read_steadily(c, waits, CLIENTS, key, 20);
        cr_assert(client_command(rig.a, "SET %s 1", key));
        read_steadily(c, waits, CLIENTS, key, 400);
        long long fetches = nearside_info(rig.proxy, "fetches");
        read_steadily(c, waits, CLIENTS, key, 300);
        long long more = nearside_info(rig.proxy, "fetches") - fetches;
        cr_assert_eq(more, 0, "%lld fetches later than 0.4 s after the write", more);
        expect_next(rig.a, "+OK");
    }
}

/* ---- Time to live --------------------------------------------------------------------------- */

SCENARIO(rules, time_on_the_way_is_not_added_to_a_time_to_live)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "DEBUG SET-ACTIVE-EXPIRE 0");
    int64_t end = wall_ms() + 800;
    expect(rig.redis->direct, "+OK", "SET k v PXAT %lld", (long long)end);
    long long gets = rig_calls(&rig, "get");
    relay_hold_link(rig.relay, rig.fill_a, RELAY_DOWN);
    cr_assert(client_command(rig.a, "GET k"));
    cr_assert(rig_await_call(&rig, "get", gets, 3000), "the fetch did not reach Redis");
    pass_time(400);
    relay_release(rig.relay);
    expect_next(rig.a, "$v");
    while (wall_ms() <= end + 2) {
        pass_time(1);
    }
    expect(rig.a, "nil", "GET k");
}

SCENARIO(rules, a_value_whose_key_was_gone_when_pttl_looked_is_not_kept)
{
    static const struct fake_rule lies[] = {{"PTTL k", ":-2\r\n", 0, FAKE_KEEP},
                                            {"PTTL zero", ":0\r\n", 0, FAKE_KEEP},
                                            {NULL, NULL, 0, FAKE_KEEP}};
    struct fake *f = fake_start(lies);
    struct nearside *n = nearside_start(fake_port(f), "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    for (int i = 1; i <= 3; i++) {
        expect(c, "$value", "GET k");
        expect(c, "$value", "GET zero");
        cr_assert_eq(fake_seen(f, "GET k"), i);
        cr_assert_eq(fake_seen(f, "GET zero"), i);
    }
}

/* An error is not kept, and neither is MGET's null for what is no string. */
SCENARIO(rules, nothing_is_kept_of_a_key_of_another_type)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, ":1", "RPUSH list a");
    for (int i = 0; i < 3; i++) {
        long long gets = rig_calls(&rig, "get");
        expect(rig.a, "-WRONGTYPE ...", "GET list");
        expect(rig.a, "-WRONGTYPE ...", "GET list");
        cr_assert_eq(rig_calls(&rig, "get"), gets + 2);
        expect(rig.a, "[nil]", "MGET list");
    }
}

/* ---- Pushes --------------------------------------------------------------------------------- */

SCENARIO(rules, a_flush_elsewhere_is_seen)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.a, "k");
    expect(rig.redis->direct, "+OK", "FLUSHALL");
    await_reply(rig.a, "nil", 3000, "GET k");
}

SCENARIO(rules, announcements_are_read_before_requests_that_came_after_them)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "proxy.workers=1", "invalidation.link_lease=10s", NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    for (int i = 0; i < 10; i++) {
        expect(r->direct, "+OK", "SET k old%d", i);
        await_reply(c, cleanup_printf("$old%d", i), 3000, "GET k");
        long long gets = redis_calls(r, "get");
        expect(c, cleanup_printf("$old%d", i), "GET k");
        cr_assert_eq(redis_calls(r, "get"), gets);
        process_freeze(n->process);
        expect(r->direct, "+OK", "SET k new%d", i);
        expect(r->direct, "+PONG", "PING"); /* the announcement has been written */
        cr_assert(client_command(c, "GET k"));
        process_thaw(n->process);
        expect_next(c, cleanup_printf("$new%d", i));
    }
}
