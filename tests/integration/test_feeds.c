/* SPDX-License-Identifier: Apache-2.0
 *
 * test_feeds.c: redirect, broadcast and keyspace keep what docs/promise.md says of them: foreign writes,
 * lost and silent links, fences.
 */
#include "feeds.h"

TestSuite(feeds);

/* ---- Foreign changes ------------------------------------------------------------------------ */

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

static void other_databases_are_told_too(const char *mode)
{
    struct setup s = start(mode);

    expect(s.redis->direct, "+OK", "SELECT 5");
    expect(s.c[0], "+OK", "SELECT 5");
    for (int i = 0; i < 5; i++) {
        expect(s.redis->direct, "+OK", "SET k %d", i);
        await_reply(s.c[0], cleanup_printf("$%d", i), 500 * slowdown(), "GET k");
        make_cached(&s, s.c[0], "k");
        expect(s.c[1], "nil", "GET k");
    }
    cr_assert_eq(nearside_info(s.proxy, "drops_lapsed"), 0, "the lease did the work");
}

SCENARIO(feeds, redirect_sees_foreign_changes_in_other_databases)
{
    other_databases_are_told_too("redirect");
}

SCENARIO(feeds, broadcast_sees_foreign_changes_in_other_databases)
{
    other_databases_are_told_too("broadcast");
}

SCENARIO(feeds, keyspace_sees_foreign_changes_in_other_databases)
{
    other_databases_are_told_too("keyspace");
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
    nearside_await_log(s.proxy, "reads go past L1 from now on");
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
    /* the SET may be announced late, and cost a fetch of its own */
    while (nearside_info(s.proxy, "drops_expired") == 0) {
        cr_assert(now_ms() < deadline, "kept for ever");
        expect(s.c[0], "$v", "GET k");
    }
    expect(s.c[0], "$v", "GET k");
    cr_assert(redis_calls(s.redis, "get") > gets);
}
