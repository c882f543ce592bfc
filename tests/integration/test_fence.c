/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fence.c: commands of unknown effect (scripts). Their replies wait until everything they
 * changed has been dropped, by whichever fill connection it was fetched; the rest of the cache stays.
 *
 * How fast an announcement travels is left to chance only where a test says so. Elsewhere the relay
 * holds the fill connections, so that a reply that does not wait is caught each time.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <string.h>

TestSuite(fence);

/* More than there are workers: connections go to the worker with the fewest, so each has some. */
#define CLIENTS 4

/* What a fence may take at most: 200 ms, noticed by the next tick. */
#define FENCE_MS 250
#define SLACK_MS 250

struct setup {
    struct redis *redis;
    struct relay *link; /* marks fill connections */
    struct nearside *proxy;
    struct client *c[CLIENTS];
};

static struct setup start(const char *set)
{
    struct setup s;

    s.redis = redis_start(NULL);
    s.link = relay_start(s.redis->port, "TRACKING");
    s.proxy = nearside_start(relay_port(s.link), "invalidation.link_lease=10s", "proxy.workers=2",
                             set, NULL);
    nearside_await_fills(s.proxy);
    for (int i = 0; i < CLIENTS; i++) {
        s.c[i] = nearside_connect(s.proxy);
        expect(s.c[i], "+PONG", "PING");
    }
    return s;
}

/* Writes a key that the proxy is not told. */
static bool send_script(struct client *c, const char *key, const char *value)
{
    return client_command(c, "EVAL 'return redis.call(\"SET\",ARGV[1],ARGV[2])' 0 %s %s", key,
                          value);
}

static void script(struct client *c, const char *key, const char *value)
{
    cr_assert(send_script(c, key, value));
    expect_next(c, "+OK");
}

/* Reads a key on a connection until it comes out of the cache. */
static void make_cached(struct setup *s, struct client *c, const char *key)
{
    int64_t deadline = now_ms() + 3000;

    while (now_ms() < deadline) {
        (void)ask(c, "GET %s", key);
        long long calls = redis_calls(s->redis, "get");
        (void)ask(c, "GET %s", key);
        if (redis_calls(s->redis, "get") == calls) {
            return;
        }
    }
    cr_assert_fail("%s is never answered from the cache", key);
}

static void all_read(struct setup *s, const char *want, const char *key)
{
    for (int i = 0; i < CLIENTS; i++) {
        expect(s->c[i], want, "GET %s", key);
    }
}

/* No reply may come while the fill connections are held, unless this test itself was kept waiting for
 * as long as a fence may take. */
static void expect_held(struct client *c, const char *what)
{
    int64_t started = now_ms();
    bool answered = client_readable(c, 40);

    cr_assert(!answered || now_ms() - started > 100, "%s", what);
}

/* ---- What is seen --------------------------------------------------------------------------- */

/* This one leaves it to chance whether the reply or the announcement is first. */
SCENARIO(fence, what_a_script_wrote_is_seen_by_clients_of_all_workers_after_its_reply)
{
    struct setup s = start(NULL);

    expect(s.c[0], "+OK", "SET k -1");
    for (int round = 0; round < 100; round++) {
        /* fetched by one worker or the other */
        expect(s.c[round % CLIENTS], cleanup_printf("$%d", round - 1), "GET k");
        all_read(&s, cleanup_printf("$%d", round - 1), "k");
        script(s.c[round / CLIENTS % CLIENTS], "k", cleanup_printf("%d", round));
        all_read(&s, cleanup_printf("$%d", round), "k");
    }
    cr_assert(nearside_info(s.proxy, "l1_hits") >= 300, "the cache was not used");
    cr_assert_eq(nearside_info(s.proxy, "drops_all"), 0);
}

SCENARIO(fence, the_reply_waits_for_announcements_that_are_late)
{
    struct setup s = start(NULL);

    for (int round = 0; round < 2 * CLIENTS; round++) {
        struct client *writer = s.c[round % CLIENTS];
        expect(s.redis->direct, "+OK", "SET k%d old", round);
        make_cached(&s, s.c[round / 2 % CLIENTS], cleanup_printf("k%d", round));
        relay_hold(s.link, RELAY_DOWN, true);
        cr_assert(send_script(writer, cleanup_printf("k%d", round), "new"));
        expect_held(writer, "answered before the fence was through");
        relay_release(s.link);
        expect_next(writer, "+OK");
        all_read(&s, "$new", cleanup_printf("k%d", round));
    }
    cr_assert_geq(nearside_info(s.proxy, "fences"), 2 * CLIENTS);
}

SCENARIO(fence, replies_behind_a_fenced_one_keep_their_order)
{
    struct setup s = start(NULL);
    struct client *c = s.c[0];

    expect(c, "+OK", "MSET hot v k old");
    make_cached(&s, c, "hot");
    make_cached(&s, c, "k");
    relay_hold(s.link, RELAY_DOWN, true);
    cr_assert(send_script(c, "k", "new"));
    cr_assert(client_command(c, "PING") && client_command(c, "GET k") &&
              client_command(c, "GET hot") && client_command(c, "SET k last") &&
              client_command(c, "GET k"));
    expect_held(c, "something overtook the fence");
    relay_release(s.link);
    expect_next(c, "+OK");
    expect_next(c, "+PONG");
    expect_next(c, "$new");
    expect_next(c, "$v");
    expect_next(c, "+OK");
    expect_next(c, "$last");
}

SCENARIO(fence, messages_come_behind_the_reply_that_came_before_them)
{
    struct setup s = start(NULL);
    struct client *c = s.c[0];

    expect(s.redis->direct, "+OK", "SET k old");
    make_cached(&s, c, "k");
    expect(c, "%[...", "HELLO 3");
    expect(c, ">[$subscribe $ch :1]", "SUBSCRIBE ch");
    relay_hold(s.link, RELAY_DOWN, true);
    cr_assert(send_script(c, "k", "new"));
    await_reply(s.redis->direct, "$new", 5000, "GET k"); /* it has been executed */
    expect(s.redis->direct, ":1", "PUBLISH ch one");
    expect(s.redis->direct, ":1", "PUBLISH ch two");
    expect_held(c, "a message overtook the reply");
    relay_release(s.link);
    expect_next(c, "+OK");
    expect_next(c, ">[$message $ch $one]");
    expect_next(c, ">[$message $ch $two]");
    expect(s.redis->direct, ":1", "PUBLISH ch three");
    expect_next(c, ">[$message $ch $three]");
}

/* ---- What stays ----------------------------------------------------------------------------- */

SCENARIO(fence, a_script_leaves_the_rest_of_the_cache_alone)
{
    struct setup s = start(NULL);

    expect(s.c[0], "+OK", "MSET hot v k 0");
    make_cached(&s, s.c[0], "hot");
    long long gets = redis_calls(s.redis, "get");
    for (int i = 0; i < 50; i++) {
        script(s.c[i % CLIENTS], "k", "1");
        expect(s.c[i % CLIENTS], ":1", "EVAL 'return 1' 0");
        all_read(&s, "$v", "hot");
    }
    /* on a slow machine a fence may have timed out, which costs what that connection fetched */
    cr_assert(redis_calls(s.redis, "get") == gets || nearside_info(s.proxy, "fence_timeouts") > 0,
              "the other key was fetched again");
    cr_assert_eq(nearside_info(s.proxy, "drops_all"), 0);
}

SCENARIO(fence, with_flush_a_script_empties_the_cache_and_needs_no_fence)
{
    struct setup s = start("invalidation.unknown_writes=flush");

    expect(s.c[0], "+OK", "MSET hot v k 0");
    for (int i = 1; i <= 10; i++) {
        make_cached(&s, s.c[i % CLIENTS], "hot");
        make_cached(&s, s.c[i % CLIENTS], "k");
        relay_hold(s.link, RELAY_DOWN, true);
        script(s.c[(i + 1) % CLIENTS], "k", cleanup_printf("%d", i));
        relay_release(s.link);
        all_read(&s, cleanup_printf("$%d", i), "k");
        cr_assert_eq(nearside_info(s.proxy, "drops_all"), i);
        long long gets = redis_calls(s.redis, "get");
        expect(s.c[0], "$v", "GET hot");
        cr_assert_eq(redis_calls(s.redis, "get"), gets + 1);
    }
    cr_assert_eq(nearside_info(s.proxy, "fences"), 0);
}

SCENARIO(fence, with_declared_a_script_is_trusted_to_write_only_what_it_names)
{
    struct setup s = start("invalidation.unknown_writes=declared");
    struct client *c = s.c[0];

    expect(c, "+OK", "MSET hot v k 0 secret old");
    make_cached(&s, c, "hot");
    make_cached(&s, c, "secret");
    for (int i = 1; i <= 20; i++) {
        make_cached(&s, s.c[i % CLIENTS], "k");
        expect(c, "+OK", "EVAL 'return redis.call(\"SET\",KEYS[1],ARGV[1])' 1 k %d", i);
        all_read(&s, cleanup_printf("$%d", i), "k");
    }
    long long gets = redis_calls(s.redis, "get");
    relay_hold(s.link, RELAY_DOWN, true);
    script(c, "secret", "new");
    all_read(&s, "$old", "secret"); /* nobody has said that it changed */
    all_read(&s, "$v", "hot");
    cr_assert_eq(redis_calls(s.redis, "get"), gets);
    relay_release(s.link);
    await_reply(s.c[1], "$new", 3000, "GET secret");
    cr_assert_eq(nearside_info(s.proxy, "fences"), 0);
    cr_assert_eq(nearside_info(s.proxy, "drops_all"), 0);
}

/* ---- What it costs -------------------------------------------------------------------------- */

SCENARIO(fence, scripts_that_end_together_share_a_fence)
{
    enum { EACH = 50 };
    struct setup s = start(NULL);

    relay_hold(s.link, RELAY_DOWN, false);
    for (int i = 0; i < CLIENTS * EACH; i++) {
        cr_assert(client_command(s.c[i % CLIENTS], "EVAL 'return redis.call(\"INCR\",\"n\")' 0"));
    }
    await_reply(s.redis->direct, cleanup_printf("$%d", CLIENTS * EACH), 5000, "GET n");
    relay_release(s.link);
    for (int i = 0; i < CLIENTS * EACH; i++) {
        expect_next(s.c[i % CLIENTS], ":...");
    }
    long long fences = nearside_info(s.proxy, "fences");
    cr_assert(fences >= 1 && fences <= CLIENTS * EACH / 4, "%d scripts made %lld fences",
              CLIENTS * EACH, fences);
}

/* ---- Fill connections in trouble ------------------------------------------------------------ */

SCENARIO(fence, a_stalled_fill_connection_is_not_waited_for_and_what_it_fetched_is_gone)
{
    struct setup s = start(NULL);

    expect(s.redis->direct, "+OK", "MSET k old other v");
    make_cached(&s, s.c[0], "k");
    relay_hold(s.link, RELAY_DOWN, true);
    int64_t asked = now_ms();
    script(s.c[1], "k", "new");
    int64_t took = now_ms() - asked;
    cr_assert(took >= 150, "the reply came after %lld ms: no fence", (long long)took);
    cr_assert(took <= FENCE_MS + SLACK_MS * slowdown(), "the reply took %lld ms", (long long)took);
    nearside_await_info(s.proxy, "fence_timeouts", 2, 2, 2000);
    for (int i = 0; i < CLIENTS; i++) {
        cr_assert(client_command(s.c[i], "GET k"));
    }
    for (int i = 0; i < CLIENTS; i++) {
        if (client_readable(s.c[i], i == 0 ? 50 : 0)) {
            expect_next(s.c[i], "$new");
            cr_assert(client_command(s.c[i], "GET k"));
        }
    }
    relay_release(s.link);
    for (int i = 0; i < CLIENTS; i++) {
        expect_next(s.c[i], "$new");
    }
    make_cached(&s, s.c[0], "k");
    script(s.c[0], "k", "newest");
    all_read(&s, "$newest", "k");
}

SCENARIO(fence, a_fill_connection_that_dies_ends_the_wait_for_it)
{
    enum { ROUNDS = 5 };
    struct setup s = start(NULL);

    for (int round = 0; round < ROUNDS; round++) {
        const char *key = cleanup_printf("k%d", round);
        await_reply(s.c[1], "+OK", 3000, "SET %s old", key);
        nearside_await_fills(s.proxy);
        make_cached(&s, s.c[0], key);
        long long fences = nearside_info(s.proxy, "fences");
        relay_hold(s.link, RELAY_DOWN, true);
        cr_assert(send_script(s.c[0], key, "new"));
        nearside_await_info(s.proxy, "fences", fences + 1, fences + 1, 3000);
        relay_cut(s.link, true);
        expect_next(s.c[0], "+OK");
        relay_release(s.link);
        all_read(&s, "$new", key);
    }
    /* a slow machine may have let the time run out now and then, but not each time */
    cr_assert(nearside_info(s.proxy, "fence_timeouts") < 2LL * ROUNDS, "the end was not noticed");
}

SCENARIO(fence, clients_that_leave_during_a_fence_leave_nothing_behind)
{
    struct setup s = start(NULL);

    for (int round = 0; round < 4; round++) {
        long long fences = nearside_info(s.proxy, "fences");
        relay_hold(s.link, RELAY_DOWN, true);
        for (int i = 0; i < CLIENTS; i++) {
            cr_assert(
                client_command(s.c[i], "EVAL 'return redis.call(\"INCR\",KEYS[1])' 1 n%d", i));
            cr_assert(client_command(s.c[i], "EVAL 'return {1,2,{3}}' 0"));
        }
        nearside_await_info(s.proxy, "fences", fences + 1, fences + 2 * CLIENTS, 3000);
        for (int i = 0; i < CLIENTS; i++) {
            if ((round + i) % 2 == 0) {
                client_close(s.c[i]);
            } else {
                client_reset(s.c[i]);
            }
        }
        if (round % 2 == 0) {
            nearside_await_info(s.proxy, "clients_connected", 1, 1, 3000);
        }
        relay_release(s.link);
        nearside_await_info(s.proxy, "clients_connected", 1, 1, 3000);
        nearside_await_info(s.proxy, "l1_writes_in_flight", 0, 0, 3000);
        nearside_await_info(s.proxy, "client_memory", 0, 64 * 1024, 3000);
        for (int i = 0; i < CLIENTS; i++) {
            s.c[i] = nearside_connect(s.proxy);
            expect(s.c[i], cleanup_printf("$%d", round + 1), "GET n%d", i);
        }
    }
}

/* The server sees to it that these change nothing. */
SCENARIO(fence, scripts_that_cannot_write_are_not_fenced)
{
    static const char *const scripts[] = {
        "EVAL_RO 'return redis.call(\"GET\", KEYS[1])' 1 k",
        "EVALSHA_RO %s 1 k",
        "FCALL_RO reads 1 k",
        "EVAL '#!lua flags=no-writes\nreturn redis.call(\"GET\", KEYS[1])' 1 k",
    };
    struct setup s = start(NULL);

    expect(s.c[0], "+OK", "SET k v");
    const char *sha = ask(s.c[0], "SCRIPT LOAD 'return redis.call(\"GET\", KEYS[1])'");
    sha = cleanup_printf("%s", sha + 1);
    expect(s.c[0], "$lib",
           "FUNCTION LOAD '#!lua name=lib\n"
           "redis.register_function{function_name=\"reads\", callback=function(keys) "
           "return redis.call(\"GET\", keys[1]) end, flags={\"no-writes\"}}'");
    for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
        expect(s.c[0], "$v", scripts[i], sha);
    }
    cr_assert_eq(nearside_info(s.proxy, "fences"), 0);
    expect(s.c[0], "-ERR Write commands are not allowed from read-only scripts. ...",
           "EVAL '#!lua flags=no-writes\nreturn redis.call(\"SET\", KEYS[1], 1)' 1 k");
    expect(s.c[0], "$v", "EVALSHA %s 1 k", sha);
    cr_assert_eq(nearside_info(s.proxy, "fences"), 1);
}

/* By its name, which can stand for nothing else, whoever loaded it. */
SCENARIO(fence, loaded_script_that_cannot_write_is_not_fenced)
{
    struct setup s = start(NULL);

    expect(s.c[0], "+OK", "SET k v");
    const char *sha = ask(s.c[0], "SCRIPT LOAD '#!lua flags=no-writes\n"
                                  "return redis.call(\"GET\", KEYS[1])'");
    sha = cleanup_printf("%s", sha + 1);
    expect(s.c[1], "$v", "EVALSHA %s 1 k", sha);
    expect(s.c[0], "+OK", "SCRIPT FLUSH");
    expect(s.c[1], "-NOSCRIPT ...", "EVALSHA %s 1 k", sha);
    cr_assert_eq(nearside_info(s.proxy, "fences"), 0);
    expect(s.c[1], "-NOSCRIPT ...", "EVALSHA 0000000000000000000000000000000000000000 1 k");
    cr_assert_eq(nearside_info(s.proxy, "fences"), 1);
}
