/* SPDX-License-Identifier: Apache-2.0
 *
 * test_channel.c: mode channel: two Nearsides of one Redis that announces nothing tell each other what they
 * write.
 */
#include "feeds.h"

TestSuite(channel);

/* Two Nearsides of one Redis that announces nothing. */
struct pair {
    struct redis *redis;
    struct relay *link; /* of b; marks what subscribes */
    struct nearside *a, *b;
    struct client *write, *read;
};

static struct pair start_pair(const char *lease)
{
    static const char *const extra[] = {"--rename-command", "CLIENT", "", NULL};
    struct pair p;
    const char *set = cleanup_printf("invalidation.link_lease=%s", lease);

    p.redis = redis_start(extra);
    p.link = relay_start(p.redis->port, "SUBSCRIBE");
    p.a = nearside_start(p.redis->port, "invalidation.mode=channel", "invalidation.channel_ttl=60s",
                         set, NULL);
    p.b = nearside_start(relay_port(p.link), "invalidation.mode=channel",
                         "invalidation.channel_ttl=60s", set, NULL);
    nearside_await_fills(p.a);
    nearside_await_fills(p.b);
    nearside_await_info(p.a, "channel_peers", 1, 1, 5000);
    nearside_await_info(p.b, "channel_peers", 1, 1, 5000);
    p.write = nearside_connect(p.a);
    p.read = nearside_connect(p.b);
    return p;
}

static void cache_in(struct pair *p, const char *key)
{
    struct setup s = {.redis = p->redis, .proxy = p->b};

    make_cached(&s, p->read, key);
}

SCENARIO(channel, sees_what_another_nearside_wrote)
{
    struct pair p = start_pair("1s");

    for (size_t i = 0; i < sizeof(CHANGES) / sizeof(CHANGES[0]); i++) {
        expect(p.write, "...", "%s", CHANGES[i].before);
        await_reply(p.read, strstr(CHANGES[i].before, "DEL") ? "nil" : "$old", 1000, "GET k");
        cache_in(&p, "k");
        expect(p.write, "...", "%s", CHANGES[i].change);
        await_reply(p.read, CHANGES[i].want, 500 * slowdown(), "GET k");
        expect(p.write, "...", "DEL k");
    }
    cr_assert(nearside_info(p.b, "l1_hits") > 0);
    cr_assert_eq(nearside_info(p.b, "drops_lapsed") + nearside_info(p.b, "drops_expired"), 0);

    expect(p.write, "+OK", "MSET k old other v");
    await_reply(p.read, "$old", 1000, "GET k");
    cache_in(&p, "k");
    cache_in(&p, "other");
    expect(p.write, "+OK", "SET k new");
    await_reply(p.read, "$new", 500 * slowdown(), "GET k");
    long long hits = nearside_info(p.b, "l1_hits");
    expect(p.read, "$v", "GET other");
    cr_assert_eq(nearside_info(p.b, "l1_hits"), hits + 1, "other keys stay");

    expect(p.write, "+OK", "MULTI");
    expect(p.write, "+QUEUED", "SET k exec");
    expect(p.write, "[+OK]", "EXEC");
    await_reply(p.read, "$exec", 500 * slowdown(), "GET k");
    cache_in(&p, "k");
    expect(p.write, "+OK", "FLUSHALL");
    await_reply(p.read, "nil", 500 * slowdown(), "GET k");
}

SCENARIO(channel, shows_own_writes_at_once)
{
    struct pair p = start_pair("1s");
    struct client *c[CLIENTS];

    for (int i = 0; i < CLIENTS; i++) {
        c[i] = nearside_connect(p.a);
    }
    expect(c[0], "+OK", "SET k -1");
    for (int round = 0; round < 60; round++) {
        for (int i = 0; i < CLIENTS; i++) {
            expect(c[(round + i) % CLIENTS], cleanup_printf("$%d", round - 1), "GET k");
        }
        struct client *writer = c[round / CLIENTS % CLIENTS];
        if (round % 2 == 0) {
            cr_assert(send_script(writer, "k", cleanup_printf("%d", round)));
            expect_next(writer, "+OK");
        } else {
            expect(writer, ":...", "INCR k");
        }
    }
    cr_assert(nearside_info(p.a, "l1_hits") > 60, "the cache was not used");
}

SCENARIO(channel, forgets_when_another_nearside_dies)
{
    struct pair p = start_pair("1s");

    expect(p.redis->direct, "+OK", "SET k v");
    cache_in(&p, "k");
    long long flushes = nearside_info(p.b, "invalidation_flushes");
    p.a->expected_end = true;
    process_kill(p.a->process);
    nearside_await_info(p.b, "invalidation_flushes", flushes + 1, flushes + 1, 4000);
    nearside_await_info(p.b, "channel_peers", 0, 0, 1000);
}

SCENARIO(channel, forgets_everything_with_its_link)
{
    struct pair p = start_pair("10s");

    expect(p.write, "+OK", "MSET k old");
    cache_in(&p, "k");
    relay_hold(p.link, RELAY_DOWN, true);
    expect(p.write, "+OK", "SET k new");
    expect(p.read, "$old", "GET k"); /* nobody could know */
    relay_cut(p.link, true);
    relay_release(p.link);
    await_reply(p.read, "$new", 3000, "GET k");
}

SCENARIO(channel, serves_no_longer_than_the_lease_of_a_silent_link)
{
    struct pair p = start_pair("300ms");

    expect(p.write, "+OK", "SET k old");
    await_reply(p.read, "$old", 1000, "GET k");
    cache_in(&p, "k");
    relay_hold(p.link, RELAY_DOWN, true);
    expect(p.write, "+OK", "SET k new");
    await_reply(p.read, "$new", 300 + 200 * slowdown(), "GET k");
    relay_release(p.link);
}

SCENARIO(channel, keeps_nothing_longer_than_channel_ttl)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "invalidation.mode=channel",
                                        "invalidation.channel_ttl=400ms", NULL);
    struct setup s = {.redis = r, .proxy = n, .c = {nearside_connect(n)}};

    nearside_await_fills(n);
    for (int i = 0; i < 3; i++) {
        expect(r->direct, "+OK", "SET k %d", i); /* by somebody who does not take part */
        await_reply(s.c[0], cleanup_printf("$%d", i), 1000, "GET k");
        make_cached(&s, s.c[0], "k");
    }
    expect(r->direct, "+OK", "ACL SETUSER default -publish");
    struct nearside *mute = nearside_start(r->port, "invalidation.mode=channel", NULL);
    await_mode(mute, "refused", 5000);
}
