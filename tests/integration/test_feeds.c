/* SPDX-License-Identifier: Apache-2.0
 *
 * test_feeds.c: every mode of invalidation keeps what docs/promise.md says of it: foreign writes,
 * lost and silent links, fences, and in automatic choice the way down and up again.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <string.h>

TestSuite(feeds);

#define CLIENTS 4
#define LEASE   300

struct setup {
    struct redis *redis;
    struct relay *link; /* marks the connection that subscribes */
    struct nearside *proxy;
    struct client *c[CLIENTS];
};

static const char *const NOTIFY[] = {"--notify-keyspace-events", "EA", NULL};

static void open_clients(struct setup *s)
{
    for (int i = 0; i < CLIENTS; i++) {
        s->c[i] = nearside_connect(s->proxy);
        expect(s->c[i], "+PONG", "PING");
    }
}

static struct setup start_with(const char *mode, const char *lease, const char *set)
{
    struct setup s;

    s.redis = redis_start(NOTIFY);
    s.link = relay_start(s.redis->port, "SUBSCRIBE");
    s.proxy = nearside_start(relay_port(s.link), cleanup_printf("invalidation.mode=%s", mode),
                             cleanup_printf("invalidation.link_lease=%s", lease), set, NULL);
    nearside_await_fills(s.proxy);
    open_clients(&s);
    return s;
}

static struct setup start(const char *mode)
{
    return start_with(mode, cleanup_printf("%dms", LEASE), NULL);
}

/* Reads a key on a connection until it comes out of the cache. */
static void make_cached(struct setup *s, struct client *c, const char *key)
{
    int64_t deadline = now_ms() + 5000;

    while (now_ms() < deadline) {
        (void)ask(c, "GET %s", key);
        long long calls = redis_calls(s->redis, "get");
        (void)ask(c, "GET %s", key);
        if (redis_calls(s->redis, "get") == calls) {
            return;
        }
    }
    cr_assert_fail("%s is never answered from the cache:\n%s", key, nearside_info_text(s->proxy));
}

static bool has_mode(struct nearside *n, const char *mode)
{
    return strstr(nearside_info_text(n), cleanup_printf("\ninvalidation_mode:%s\r\n", mode)) !=
           NULL;
}

static void await_mode(struct nearside *n, const char *mode, int64_t ms)
{
    int64_t deadline = now_ms() + ms;

    while (!has_mode(n, mode)) {
        cr_assert(now_ms() < deadline, "not %s within %lld ms:\n%s%s", mode, (long long)ms,
                  nearside_info_text(n), nearside_log(n));
        pass_time(10);
    }
}

/* ---- Foreign changes ------------------------------------------------------------------------ */

/* Each way to change a key: done past the proxy, and what a GET gives then. */
static const struct change {
    const char *before, *change, *want;
} CHANGES[] = {
    {"SET k old", "SET k new", "$new"},
    {"SET k old", "DEL k", "nil"},
    {"DEL k", "SET k new", "$new"},
    {"SET k old", "APPEND k er", "$older"},
    {"SET k old", "PEXPIRE k -1", "nil"},
    {"SET k old", "RENAME k other", "nil"},
    {"MSET k old o new", "RENAME o k", "$new"},
    {"SET k old", "EVAL 'return redis.call(\"SET\",\"k\",\"new\")' 0", "$new"},
    {"SET k old", "MSET a 1 k new b 2", "$new"},
    {"SET k old", "SETRANGE k 0 cold", "$cold"},
    {"MSET k old o new", "COPY o k REPLACE", "$new"},
    {"SET k old", "MOVE k 3", "nil"},
};

static void foreign_changes_are_seen(const char *mode)
{
    struct setup s = start(mode);

    for (size_t i = 0; i < sizeof(CHANGES) / sizeof(CHANGES[0]); i++) {
        const struct change *ch = &CHANGES[i];
        expect(s.redis->direct, "...", "%s", ch->before);
        make_cached(&s, s.c[i % CLIENTS], "k");
        expect(s.redis->direct, "...", "%s", ch->change);
        for (int j = 0; j < CLIENTS; j++) {
            await_reply(s.c[j], ch->want, 500 * slowdown(), "GET k");
        }
        expect(s.redis->direct, "...", "DEL k");
    }
    cr_assert(nearside_info(s.proxy, "l1_hits") > 0);
    cr_assert_eq(nearside_info(s.proxy, "link_losses"), 0);
    cr_assert_eq(nearside_info(s.proxy, "drops_lapsed"), 0, "the lease did the work");
}

SCENARIO(feeds, redirect_sees_foreign_changes)
{
    foreign_changes_are_seen("redirect");
}

SCENARIO(feeds, broadcast_sees_foreign_changes)
{
    foreign_changes_are_seen("broadcast");
}

SCENARIO(feeds, keyspace_sees_foreign_changes)
{
    foreign_changes_are_seen("keyspace");
}

static void flush_is_seen(const char *mode, const char *command, int rounds, int64_t ms)
{
    struct setup s = start(mode);

    for (int i = 0; i < rounds; i++) {
        expect(s.redis->direct, "+OK", "SET k %d", i);
        await_reply(s.c[0], cleanup_printf("$%d", i), 1000, "GET k");
        make_cached(&s, s.c[0], "k");
        expect(s.redis->direct, "+OK", "%s", command);
        await_reply(s.c[i], "nil", ms, "GET k");
    }
    cr_assert(nearside_info(s.proxy, "invalidation_flushes") >= rounds);
}

SCENARIO(feeds, redirect_sees_a_flush)
{
    flush_is_seen("redirect", "FLUSHALL", 3, 500 * slowdown());
}

SCENARIO(feeds, broadcast_sees_a_flush)
{
    flush_is_seen("broadcast", "FLUSHDB", 3, 500 * slowdown());
}

/* It is not announced; the server is asked for it every second. */
SCENARIO(feeds, keyspace_sees_a_flush_a_little_later)
{
    flush_is_seen("keyspace", "FLUSHALL", 2, 3000 * slowdown());
}

SCENARIO(feeds, keyspace_sees_a_swapdb_a_little_later)
{
    flush_is_seen("keyspace", "SWAPDB 0 5", 1, 3000 * slowdown());
}

/* ---- Links ---------------------------------------------------------------------------------- */

/* What was missed while the link was away must not stay in the cache. */
static void loss_of_the_link_costs_what_it_covered(const char *mode)
{
    struct setup s = start_with(mode, "10s", NULL);

    for (int i = 0; i < 5; i++) {
        expect(s.redis->direct, "+OK", "SET k %d", i);
        await_reply(s.c[i % CLIENTS], cleanup_printf("$%d", i), 3000, "GET k");
        make_cached(&s, s.c[i % CLIENTS], "k");
        expect(s.redis->direct, "+OK", "MULTI");
        expect(s.redis->direct, "+QUEUED", "CLIENT KILL TYPE pubsub");
        expect(s.redis->direct, "+QUEUED", "SET k %d.5", i);
        expect(s.redis->direct, "[:1 +OK]", "EXEC");
        await_reply(s.c[(i + 1) % CLIENTS], cleanup_printf("$%d.5", i), 2000 * slowdown(), "GET k");
        nearside_await_info(s.proxy, "link_losses", i + 1, 1000, 2000);
    }
    cr_assert_eq(nearside_info(s.proxy, "drops_lapsed"), 0);
    nearside_await_info(s.proxy, "invalidation_link_up", 1, 1, 5000);
    make_cached(&s, s.c[0], "k");
}

SCENARIO(feeds, redirect_forgets_everything_with_its_link)
{
    loss_of_the_link_costs_what_it_covered("redirect");
}

SCENARIO(feeds, broadcast_forgets_everything_with_its_link)
{
    loss_of_the_link_costs_what_it_covered("broadcast");
}

SCENARIO(feeds, keyspace_forgets_everything_with_its_link)
{
    loss_of_the_link_costs_what_it_covered("keyspace");
}

/* Nothing may be served while nobody vouches for it, however long the link stays away. */
static void nothing_is_served_without_the_link(const char *mode)
{
    struct setup s = start_with(mode, "10s", NULL);

    expect(s.redis->direct, "+OK", "MSET a v b v c v");
    make_cached(&s, s.c[0], "a");
    make_cached(&s, s.c[1], "b");
    make_cached(&s, s.c[2], "c");
    expect(s.redis->direct, "+OK", "ACL SETUSER default resetchannels");
    nearside_await_info(s.proxy, "link_losses", 1, 1000, 3000);
    expect(s.redis->direct, "+OK", "MSET a new b new c new");
    for (int i = 0; i < CLIENTS; i++) {
        expect(s.c[i], "$new", "GET a");
        expect(s.c[i], "$new", "GET b");
        expect(s.c[i], "[$new $new]", "MGET a c");
        expect(s.c[i], "$new", "GET c");
    }
    await_mode(s.proxy, "refused", 3000);
    cr_assert_eq(nearside_info(s.proxy, "invalidation_link_up"), 0);
    expect(s.redis->direct, "+OK", "ACL SETUSER default allchannels");
    await_mode(s.proxy, mode, 15000);
    nearside_await_fills(s.proxy);
    make_cached(&s, s.c[0], "a");
}

SCENARIO(feeds, redirect_serves_nothing_without_its_link)
{
    nothing_is_served_without_the_link("redirect");
}

SCENARIO(feeds, broadcast_serves_nothing_without_its_link)
{
    nothing_is_served_without_the_link("broadcast");
}

SCENARIO(feeds, keyspace_serves_nothing_without_its_link)
{
    nothing_is_served_without_the_link("keyspace");
}

/* Kills fill connections in the same step as the write: in redirect nobody is told of it. */
static void loss_of_fills_hides_nothing(const char *mode)
{
    struct setup s = start_with(mode, "10s", NULL);

    for (int i = 0; i < 5; i++) {
        expect(s.redis->direct, "+OK", "SET k %d", i);
        await_reply(s.c[i % CLIENTS], cleanup_printf("$%d", i), 3000, "GET k");
        make_cached(&s, s.c[i % CLIENTS], "k");
        expect(s.redis->direct, "+OK", "MULTI");
        expect(s.redis->direct, "+QUEUED", "CLIENT KILL TYPE normal SKIPME yes");
        expect(s.redis->direct, "+QUEUED", "SET k %d.5", i);
        expect(s.redis->direct, "[...", "EXEC");
        await_reply(s.c[(i + 1) % CLIENTS], cleanup_printf("$%d.5", i), 2000 * slowdown(), "GET k");
        nearside_await_fills(s.proxy);
    }
    cr_assert_eq(nearside_info(s.proxy, "drops_lapsed"), 0);
}

SCENARIO(feeds, redirect_forgets_what_a_lost_fill_connection_read)
{
    loss_of_fills_hides_nothing("redirect");
}

SCENARIO(feeds, broadcast_does_not_need_its_fill_connections_to_be_told)
{
    loss_of_fills_hides_nothing("broadcast");
}

SCENARIO(feeds, keyspace_does_not_need_its_fill_connections_to_be_told)
{
    loss_of_fills_hides_nothing("keyspace");
}

static void silent_link_bounds_staleness(const char *mode)
{
    struct setup s = start(mode);

    for (int i = 0; i < 3; i++) {
        long long lapses = nearside_info(s.proxy, "link_lease_lapses");
        expect(s.redis->direct, "+OK", "SET k old%d", i);
        await_reply(s.c[0], cleanup_printf("$old%d", i), 2000, "GET k");
        make_cached(&s, s.c[0], "k");
        relay_hold(s.link, RELAY_DOWN, true);
        expect(s.redis->direct, "+OK", "SET k new%d", i);
        await_reply(s.c[i], cleanup_printf("$new%d", i), LEASE + 200 * slowdown(), "GET k");
        nearside_await_info(s.proxy, "link_lease_lapses", lapses + 1, lapses + 10, 2000);
        relay_release(s.link);
        make_cached(&s, s.c[1], "k");
    }
    cr_assert_eq(nearside_info(s.proxy, "link_losses"), 0);
}

SCENARIO(feeds, redirect_serves_no_longer_than_the_lease_of_a_silent_link)
{
    silent_link_bounds_staleness("redirect");
}

SCENARIO(feeds, broadcast_serves_no_longer_than_the_lease_of_a_silent_link)
{
    silent_link_bounds_staleness("broadcast");
}

SCENARIO(feeds, keyspace_serves_no_longer_than_the_lease_of_a_silent_link)
{
    silent_link_bounds_staleness("keyspace");
}

static void another_server_voids_everything(const char *mode)
{
    struct setup s = start(mode);

    for (int i = 0; i < 3; i++) {
        expect(s.redis->direct, "+OK", "SET k %d", i);
        await_reply(s.c[0], cleanup_printf("$%d", i), 3000, "GET k");
        make_cached(&s, s.c[0], "k");
        redis_restart(s.redis);
        await_reply(s.c[0], "nil", 5000 * slowdown(), "GET k");
        nearside_await_fills(s.proxy);
    }
}

SCENARIO(feeds, redirect_forgets_everything_with_the_server)
{
    another_server_voids_everything("redirect");
}

SCENARIO(feeds, broadcast_forgets_everything_with_the_server)
{
    another_server_voids_everything("broadcast");
}

SCENARIO(feeds, keyspace_forgets_everything_with_the_server)
{
    another_server_voids_everything("keyspace");
}

/* ---- Fences --------------------------------------------------------------------------------- */

static bool send_script(struct client *c, const char *key, const char *value)
{
    return client_command(c, "EVAL 'return redis.call(\"SET\",ARGV[1],ARGV[2])' 0 %s %s", key,
                          value);
}

static void scripts_are_seen_after_their_reply(const char *mode)
{
    struct setup s = start_with(mode, "10s", NULL);

    expect(s.c[0], "+OK", "SET k -1");
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < CLIENTS; i++) {
            expect(s.c[(round + i) % CLIENTS], cleanup_printf("$%d", round - 1), "GET k");
        }
        struct client *writer = s.c[round / CLIENTS % CLIENTS];
        cr_assert(send_script(writer, "k", cleanup_printf("%d", round)));
        expect_next(writer, "+OK");
    }
    cr_assert(nearside_info(s.proxy, "l1_hits") >= 200, "the cache was not used");
    /* keyspace: the first look at what is not announced empties it, too */
    cr_assert_leq(nearside_info(s.proxy, "drops_all"), 1);

    for (int round = 0; round < 2 * CLIENTS; round++) {
        struct client *writer = s.c[round % CLIENTS];
        const char *key = cleanup_printf("k%d", round);
        expect(s.redis->direct, "+OK", "SET %s old", key);
        make_cached(&s, s.c[round / 2 % CLIENTS], key);
        relay_hold(s.link, RELAY_DOWN, true);
        int64_t asked = now_ms();
        cr_assert(send_script(writer, key, "new"));
        bool early = client_readable(writer, 40);
        cr_assert(!early || now_ms() - asked > 100, "answered before the fence was through");
        relay_release(s.link);
        expect_next(writer, "+OK");
        for (int i = 0; i < CLIENTS; i++) {
            expect(s.c[i], "$new", "GET %s", key);
        }
    }
}

SCENARIO(feeds, redirect_shows_what_a_script_wrote_after_its_reply)
{
    scripts_are_seen_after_their_reply("redirect");
}

SCENARIO(feeds, broadcast_shows_what_a_script_wrote_after_its_reply)
{
    scripts_are_seen_after_their_reply("broadcast");
}

SCENARIO(feeds, keyspace_shows_what_a_script_wrote_after_its_reply)
{
    scripts_are_seen_after_their_reply("keyspace");
}

static void late_link_is_voided_by_the_fence(const char *mode)
{
    struct setup s = start_with(mode, "10s", NULL);

    expect(s.redis->direct, "+OK", "MSET k old other v");
    make_cached(&s, s.c[0], "k");
    relay_hold(s.link, RELAY_DOWN, true);
    int64_t asked = now_ms();
    cr_assert(send_script(s.c[1], "k", "new"));
    expect_next(s.c[1], "+OK");
    int64_t took = now_ms() - asked;
    cr_assert(took >= 150 && took <= 500 * slowdown(), "the reply took %lld ms", (long long)took);
    for (int i = 0; i < CLIENTS; i++) {
        expect(s.c[i], "$new", "GET k");
    }
    cr_assert_geq(nearside_info(s.proxy, "fence_timeouts"), 1);
    relay_release(s.link);
    make_cached(&s, s.c[0], "k");
}

SCENARIO(feeds, redirect_voids_what_a_late_link_covers)
{
    late_link_is_voided_by_the_fence("redirect");
}

SCENARIO(feeds, broadcast_voids_what_a_late_link_covers)
{
    late_link_is_voided_by_the_fence("broadcast");
}

SCENARIO(feeds, keyspace_voids_what_a_late_link_covers)
{
    late_link_is_voided_by_the_fence("keyspace");
}

/* The server drops what it had to say to a fill connection that is gone, and the link knows nothing of
 * it (I4). */
SCENARIO(feeds, redirect_asks_the_fill_connections_too)
{
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, "PTTL"); /* marks those that filled something */
    struct nearside *n = nearside_start(relay_port(link), "invalidation.mode=redirect",
                                        "invalidation.link_lease=10s", NULL);
    struct setup s = {.redis = r, .link = link, .proxy = n};

    nearside_await_fills(n);
    open_clients(&s);
    for (int round = 0; round < 4; round++) {
        const char *value = cleanup_printf("%d", round);
        expect(r->direct, "+OK", "SET k old");
        await_reply(s.c[0], "$old", 3000, "GET k");
        make_cached(&s, s.c[round % CLIENTS], "k");
        relay_hold(link, RELAY_DOWN, true); /* nor does the news of their end come through */
        cr_assert_geq(redis_kill_tracking_fills(r), 2);
        nearside_await_info(n, "invalidation_link_up", 1, 1, 1000);
        cr_assert(send_script(s.c[round % CLIENTS], "k", value));
        expect_next(s.c[round % CLIENTS], "+OK");
        for (int i = 0; i < CLIENTS; i++) {
            cr_assert(client_command(s.c[i], "GET k"));
        }
        relay_release(link);
        for (int i = 0; i < CLIENTS; i++) {
            expect_next(s.c[i], cleanup_printf("$%s", value));
        }
        nearside_await_fills(n);
    }
}

/* ---- Broadcast ------------------------------------------------------------------------------ */

SCENARIO(feeds, broadcast_keeps_only_keys_with_a_prefix)
{
    struct setup s = start_with("broadcast", "10s", "invalidation.prefixes=user: cart:");

    expect(s.redis->direct, "+OK", "MSET user:1 a cart:1 b other c users d");
    make_cached(&s, s.c[0], "user:1");
    make_cached(&s, s.c[1], "cart:1");
    long long gets = redis_calls(s.redis, "get");
    for (int i = 0; i < 10; i++) {
        expect(s.redis->direct, "+OK", "SET other %d", i);
        expect(s.c[i % CLIENTS], cleanup_printf("$%d", i), "GET other");
        expect(s.c[i % CLIENTS], "$d", "GET users");
        expect(s.c[i % CLIENTS], cleanup_printf("[$%d $d]", i), "MGET other users");
    }
    cr_assert_eq(redis_calls(s.redis, "get"), gets + 20);
    expect(s.redis->direct, "+OK", "MSET user:1 new cart:1 new");
    await_reply(s.c[2], "$new", 1000, "GET user:1");
    await_reply(s.c[3], "$new", 1000, "GET cart:1");
    cr_assert(nearside_info(s.proxy, "invalidations_received") <= 4, "told of other keys");
}

SCENARIO(feeds, anybody_may_publish_nonsense)
{
    struct setup s = start("broadcast");

    expect(s.redis->direct, "+OK", "SET k v");
    make_cached(&s, s.c[0], "k");
    long long flushes = nearside_info(s.proxy, "invalidation_flushes");
    for (int i = 0; i < 20; i++) {
        expect(s.redis->direct, ":1", "PUBLISH __redis__:invalidate junk%d", i);
    }
    nearside_await_info(s.proxy, "invalidation_flushes", flushes + 20, flushes + 20, 2000);
    cr_assert_eq(nearside_info(s.proxy, "link_losses"), 0);
    make_cached(&s, s.c[0], "k");
}

/* ---- Keyspace ------------------------------------------------------------------------------- */

SCENARIO(feeds, keyspace_stops_when_notifications_are_turned_off)
{
    struct setup s = start("keyspace");

    expect(s.redis->direct, "+OK", "SET k v");
    make_cached(&s, s.c[0], "k");
    expect(s.redis->direct, "+OK", "CONFIG SET notify-keyspace-events KEx");
    await_mode(s.proxy, "refused", 3000);
    for (int i = 0; i < 10; i++) {
        expect(s.redis->direct, "+OK", "SET k %d", i);
        expect(s.c[i % CLIENTS], cleanup_printf("$%d", i), "GET k");
    }
    cr_assert_eq(nearside_log_lines(s.proxy, "reads go past L1 from now on"), 1);
    expect(s.redis->direct, "+OK", "CONFIG SET notify-keyspace-events KEA");
    await_mode(s.proxy, "keyspace", 15000);
    nearside_await_fills(s.proxy);
    make_cached(&s, s.c[0], "k");
}

SCENARIO(feeds, keyspace_changes_the_server_only_when_told_to)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "invalidation.mode=keyspace", NULL);

    await_mode(n, "refused", 5000);
    expect(r->direct, "[$notify-keyspace-events $]", "CONFIG GET notify-keyspace-events");
    n = nearside_start(r->port, "invalidation.mode=keyspace", "invalidation.set_notify=yes", NULL);
    nearside_await_fills(n);
    await_mode(n, "keyspace", 5000);
    expect(r->direct, "[$notify-keyspace-events $AE]", "CONFIG GET notify-keyspace-events");
}

SCENARIO(feeds, keyspace_keeps_nothing_longer_than_weak_ttl)
{
    struct setup s = start_with("keyspace", "10s", "invalidation.weak_ttl=300ms");

    expect(s.redis->direct, "+OK", "SET k v");
    make_cached(&s, s.c[0], "k");
    long long gets = redis_calls(s.redis, "get");
    int64_t deadline = now_ms() + 3000;
    while (redis_calls(s.redis, "get") == gets) {
        cr_assert(now_ms() < deadline, "kept for ever");
        expect(s.c[0], "$v", "GET k");
    }
    cr_assert(nearside_info(s.proxy, "drops_expired") >= 1);
}

/* ---- Channel -------------------------------------------------------------------------------- */

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

SCENARIO(feeds, channel_sees_what_another_nearside_wrote)
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
    long long gets = redis_calls(p.redis, "get");
    expect(p.write, "+OK", "SET k new");
    await_reply(p.read, "$new", 500 * slowdown(), "GET k");
    expect(p.read, "$v", "GET other");
    cr_assert_leq(redis_calls(p.redis, "get"), gets + 1, "other keys stay");

    expect(p.write, "+OK", "MULTI");
    expect(p.write, "+QUEUED", "SET k exec");
    expect(p.write, "[+OK]", "EXEC");
    await_reply(p.read, "$exec", 500 * slowdown(), "GET k");
    cache_in(&p, "k");
    expect(p.write, "+OK", "FLUSHALL");
    await_reply(p.read, "nil", 500 * slowdown(), "GET k");
}

SCENARIO(feeds, channel_shows_own_writes_at_once)
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

SCENARIO(feeds, channel_forgets_when_another_nearside_dies)
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

SCENARIO(feeds, channel_forgets_everything_with_its_link)
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

SCENARIO(feeds, channel_serves_no_longer_than_the_lease_of_a_silent_link)
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

SCENARIO(feeds, channel_keeps_nothing_longer_than_channel_ttl)
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

/* ---- Automatic choice ----------------------------------------------------------------------- */

/* What is cached in one mode is gone in the next. */
static void change_empties(struct setup *s, const char *acl, const char *mode)
{
    long long changes = nearside_info(s->proxy, "invalidation_mode_changes");

    make_cached(s, s->c[0], "k");
    expect(s->redis->direct, "+OK", "ACL SETUSER default %s", acl);
    expect(s->redis->direct, ":...", "CLIENT KILL TYPE pubsub");
    expect(s->redis->direct, ":...", "CLIENT KILL TYPE normal SKIPME yes");
    await_mode(s->proxy, mode, 10000);
    cr_assert(nearside_info(s->proxy, "invalidation_mode_changes") > changes);
    open_clients(s);
}

SCENARIO(feeds, auto_goes_down_as_the_server_refuses_and_up_as_it_allows)
{
    struct redis *r = redis_start(NOTIFY);
    struct setup s = {.redis = r, .proxy = nearside_start(r->port, NULL)};

    expect(r->direct, "+OK", "SET k v");
    nearside_await_fills(s.proxy);
    open_clients(&s);
    await_mode(s.proxy, "tracking", 1000);

    change_empties(&s, "-client|tracking", "keyspace");
    cr_assert(strstr(nearside_info_text(s.proxy),
                     "invalidation_refused:tracking: CLIENT TRACKING: NOPERM"));
    nearside_await_fills(s.proxy);
    expect(r->direct, "+OK", "SET k w");
    await_reply(s.c[0], "$w", 1000, "GET k");
    change_empties(&s, "-psubscribe", "refused");
    cr_assert_eq(nearside_info(s.proxy, "tracking_refused"), 1);
    long long gets = redis_calls(r, "get");
    expect(s.c[0], "$w", "GET k");
    expect(s.c[0], "$w", "GET k");
    cr_assert_eq(redis_calls(r, "get"), gets + 2);

    expect(r->direct, "+OK", "ACL SETUSER default +psubscribe");
    await_mode(s.proxy, "keyspace", 20000);
    nearside_await_fills(s.proxy);
    make_cached(&s, s.c[0], "k");
    gets = redis_calls(r, "get");
    expect(r->direct, "+OK", "ACL SETUSER default +client|tracking");
    await_mode(s.proxy, "tracking", 30000);
    nearside_await_fills(s.proxy);
    expect(s.c[0], "$w", "GET k");
    cr_assert_gt(redis_calls(r, "get"), gets, "what another mode had vouched for was served");
    make_cached(&s, s.c[0], "k");
    expect(r->direct, "+OK", "SET k x");
    await_reply(s.c[0], "$x", 1000, "GET k");
    cr_assert_eq(nearside_log_lines(s.proxy, "invalidation falls from tracking to redirect"), 1);
    cr_assert_eq(nearside_log_lines(s.proxy, "reads use L1 again"), 1);
    cr_assert_geq(nearside_log_lines(s.proxy, "invalidation climbs to"), 1);
}

/* Users cannot be kept from HELLO, so RESP3 is impossible here in another way. */
SCENARIO(feeds, auto_without_resp3_starts_with_the_best_that_is_allowed)
{
    static const char *const extra[] = {
        "--notify-keyspace-events", "EA", "--rename-command", "HELLO", "", NULL};
    struct redis *r = redis_start(extra);

    expect(r->direct, "+OK", "ACL SETUSER default resetchannels &__keyevent@*__:*");
    struct nearside *n = nearside_start(r->port, NULL);
    await_mode(n, "keyspace", 5000);
    nearside_await_fills(n);
    expect(r->direct, "+OK", "ACL SETUSER default allchannels");
    await_mode(n, "redirect", 10000);
    nearside_await_fills(n);
    /* the server itself closes subscribers that lose their channel */
    expect(r->direct, "+OK", "ACL SETUSER default resetchannels &__keyevent@*__:*");
    await_mode(n, "keyspace", 5000);
    nearside_await_fills(n);
    expect(r->direct, "+OK", "ACL SETUSER default allchannels");
    await_mode(n, "redirect", 20000);
}

SCENARIO(feeds, auto_does_not_fall_when_the_server_is_only_away)
{
    struct setup s = start_with("auto", "1s", NULL);

    for (int i = 0; i < 2; i++) {
        redis_restart(s.redis);
        nearside_await_fills(s.proxy);
    }
    cr_assert(has_mode(s.proxy, "tracking"));
    cr_assert_eq(nearside_info(s.proxy, "invalidation_mode_changes"), 0);
}

/* ---- The tracking table --------------------------------------------------------------------- */

SCENARIO(feeds, tracking_table_that_is_nearly_full_is_said_once)
{
    static const char *const extra[] = {"--tracking-table-max-keys", "50", NULL};
    struct redis *r = redis_start(extra);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    for (int i = 0; i < 47; i++) {
        expect(r->direct, "+OK", "SET k%d v", i);
        expect(c, "$v", "GET k%d", i);
    }
    nearside_await_info(n, "tracking_table_keys", 45, 50, 10000);
    cr_assert_eq(nearside_info(n, "tracking_table_max"), 50);
    cr_assert_eq(nearside_log_lines(n, "the tracking table"), 1);
    expect(r->direct, "+OK", "CONFIG SET tracking-table-max-keys 1000");
    nearside_await_info(n, "tracking_table_max", 1000, 1000, 10000);
    cr_assert_eq(nearside_log_lines(n, "has room again"), 1);
}
