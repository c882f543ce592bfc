/* SPDX-License-Identifier: Apache-2.0
 *
 * test_links.c: rules that matter when several fill connections, or a fill connection and a lane, are
 * not equally fast. Each scenario holds one link while the others go on, so that what would be a rare
 * race happens each time.
 */
#include "rig.h"

#include <stdlib.h>
#include <string.h>

TestSuite(links);

/* Where a rule lets something wait that would happen at once without it, this much is given to it. */
#define CHANCE_MS 60

static int number(const char *got)
{
    return got[0] == '$' ? atoi(got + 1) : -1;
}

/* A command that is answered while links are held. */
static void held_write(struct rig *rig, struct client *c, const char *line)
{
    long long writes = nearside_info(rig->proxy, "l1_writes_in_flight");

    cr_assert(client_command(c, "%s", line));
    rig_await_counter(rig, "l1_writes_in_flight", writes + 1);
}

/* ---- Writes through the proxy --------------------------------------------------------------- */

SCENARIO(links, a_write_drops_the_old_value_before_it_is_answered)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.b, "k");
    relay_hold(rig.relay, RELAY_DOWN, true);
    expect(rig.a, "+OK", "SET k new");
    rig_send_get(&rig, rig.b, "k");
    relay_release(rig.relay);
    expect_next(rig.b, "$new");
}

SCENARIO(links, nothing_is_installed_while_a_write_of_its_key_is_unanswered)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    relay_hold_link(rig.relay, rig.lane_a, RELAY_UP);
    held_write(&rig, rig.a, "SET k new");
    expect(rig.b, "$old", "GET k");
    relay_hold_link(rig.relay, rig.fill_b, RELAY_DOWN);
    relay_hold_link(rig.relay, rig.fill_a, RELAY_DOWN);
    relay_hold_link(rig.relay, rig.lane_a, 0);
    expect_next(rig.a, "+OK");
    rig_send_get(&rig, rig.b, "k");
    relay_release(rig.relay);
    expect_next(rig.b, "$new");
}

SCENARIO(links, who_reads_after_a_write_does_not_join_a_fetch_from_before_it)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    relay_hold_link(rig.relay, rig.lane_a, RELAY_UP);
    held_write(&rig, rig.a, "SET k new");
    long long gets = rig_calls(&rig, "get");
    relay_hold_link(rig.relay, rig.fill_b, RELAY_DOWN);
    cr_assert(client_command(rig.b, "GET k"));
    cr_assert(rig_await_call(&rig, "get", gets, 5000), "the fetch did not reach Redis");
    relay_hold_link(rig.relay, rig.lane_a, 0);
    expect_next(rig.a, "+OK");
    rig_send_get(&rig, rig.a2, "k");
    relay_release(rig.relay);
    expect_next(rig.a2, "$new");
    (void)client_read(rig.b); /* asked before the write was answered: either will do */
    expect(rig.b, "$new", "GET k");
}

SCENARIO(links, who_waits_for_a_worker_that_stalls_fetches_by_himself)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k 1");
    long long fetches = nearside_info(rig.proxy, "fetches");
    relay_hold_link(rig.relay, rig.fill_b, RELAY_UP);
    cr_assert(client_command(rig.b, "GET k"));
    rig_await_counter(&rig, "fetches", fetches + 1);
    client_set_timeout(rig.a, 10000); /* long before b's link counts as dead */
    cr_assert(client_command(rig.a, "GET k"));
    cr_assert(client_command(rig.a, "GET k"));
    expect_next(rig.a, "$1"); /* b's link is held still */
    expect_next(rig.a, "$1");
    cr_assert_eq(nearside_info(rig.proxy, "fetches"), fetches + 2);
    relay_hold_link(rig.relay, rig.fill_a, RELAY_DOWN);
    expect(rig.redis->direct, "+OK", "SET k 2"); /* and a's worker does not hear of it */
    relay_hold_link(rig.relay, rig.fill_b, 0);
    int seen = number(client_read(rig.b));
    int after = number(ask(rig.a2, "GET k"));
    relay_release(rig.relay);
    cr_assert(seen >= 1 && after >= seen, "a read returns %d, one that began after it %d", seen,
              after);
}

SCENARIO(links, reads_that_wait_together_for_a_stalled_worker_look_again_together)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k 1");
    long long gets = rig_calls(&rig, "get");
    relay_hold_link(rig.relay, rig.fill_b, RELAY_DOWN);
    cr_assert(client_command(rig.b, "GET k"));
    cr_assert(rig_await_call(&rig, "get", gets, 5000),
              "the fetch did not reach Redis"); /* 1 comes */
    long long joins = nearside_info(rig.proxy, "l1_joins");
    cr_assert(client_send_text(rig.a, "GET k\r\nGET k\r\nGET k\r\nGET k\r\n"));
    rig_await_counter(&rig, "l1_joins", joins + 4);
    expect(rig.redis->direct, "+OK", "SET k 2");
    expect_next(rig.a, "$2"); /* a's worker has fetched by himself */
    long long pushes = nearside_info(rig.proxy, "invalidations_received");
    expect(rig.redis->direct, "+OK", "SET k 3");
    rig_await_counter(&rig, "invalidations_received", pushes + 1);
    relay_release(rig.relay); /* there is no entry now, and 1 arrives */
    for (int i = 0; i < 3; i++) {
        int seen = number(client_read(rig.a));
        cr_expect(seen >= 2, "2, then %d", seen);
    }
}

SCENARIO(links, a_flush_is_seen_before_it_is_announced)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.b, "k");
    relay_hold(rig.relay, RELAY_DOWN, true);
    expect(rig.a, "+OK", "FLUSHALL");
    rig_send_get(&rig, rig.b, "k");
    relay_release(rig.relay);
    expect_next(rig.b, "nil");
}

/* ---- Order of one connection ---------------------------------------------------------------- */

SCENARIO(links, a_read_does_not_overtake_an_unanswered_write_of_its_connection)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    long long gets = rig_calls(&rig, "get");
    relay_hold_link(rig.relay, rig.lane_a, RELAY_UP);
    held_write(&rig, rig.a, "SET k new");
    cr_assert(client_command(rig.a, "GET k"));
    (void)rig_await_call(&rig, "get", gets, CHANCE_MS);
    relay_release(rig.relay);
    expect_next(rig.a, "+OK");
    expect_next(rig.a, "$new");
}

SCENARIO(links, two_reads_of_a_key_in_one_pipeline_do_not_go_backwards)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k 0");
    long long fetches = nearside_info(rig.proxy, "fetches");
    long long joins = nearside_info(rig.proxy, "l1_joins");
    relay_hold_link(rig.relay, rig.fill_b, RELAY_UP);
    cr_assert(client_command(rig.b, "GET k"));
    rig_await_counter(&rig, "fetches", fetches + 1);
    cr_assert(client_command(rig.a, "GET k"));
    rig_await_counter(&rig, "l1_joins", joins + 1);
    expect(rig.a2, "+OK", "SET k 1"); /* detaches that fetch */
    long long gets = rig_calls(&rig, "get");
    long long announced = nearside_info(rig.proxy, "invalidations_received");
    cr_assert(client_command(rig.a, "GET k"));
    bool fetched = rig_await_call(&rig, "get", gets, CHANCE_MS);
    expect(rig.redis->direct, "+OK", "SET k 2");
    if (fetched) {
        rig_await_counter(&rig, "invalidations_received", announced + 1);
    }
    relay_release(rig.relay);
    int first = number(client_read(rig.a));
    int second = number(client_read(rig.a));
    cr_assert(first >= 0 && second >= first, "one connection reads %d, then %d", first, second);
    expect(rig.a, "$2", "GET k");
}

/* a's SET is executed, and its reply held. (A client's SETs are kept once it has read behind one.) */
static void unanswered_set(struct rig *rig, const char *value)
{
    cr_assert(client_send_text(rig->a, "*3\r\n$3\r\nSET\r\n$1\r\nj\r\n$1\r\nv\r\n"
                                       "*2\r\n$3\r\nGET\r\n$1\r\nj\r\n"));
    expect_next(rig->a, "+OK");
    expect_next(rig->a, "$v");
    long long sets = rig_calls(rig, "set");

    relay_hold_link(rig->relay, rig->lane_a, RELAY_DOWN);
    cr_assert(client_command(rig->a, "SET k %s", value));
    cr_assert(rig_await_call(rig, "set", sets, 5000), "the SET did not reach Redis");
}

/* a reads the key behind it. */
static void expect_behind(struct rig *rig, const char *want)
{
    long long gets = rig_calls(rig, "get");

    cr_assert(client_command(rig->a, "GET k"));
    (void)rig_await_call(rig, "get", gets, CHANCE_MS);
    relay_release(rig->relay);
    expect_next(rig->a, "+OK");
    expect_next(rig->a, want);
}

SCENARIO(links, a_value_just_set_is_not_read_over_the_write_of_another_client)
{
    struct rig rig = rig_start(NULL, NULL);

    unanswered_set(&rig, "mine");
    long long echoes = nearside_info(rig.proxy, "l1_echoes");
    expect_behind(&rig, "$mine");
    cr_expect_eq(nearside_info(rig.proxy, "l1_echoes"), echoes + 1);
    unanswered_set(&rig, "mine");
    expect(rig.b, "+OK", "SET k theirs");
    expect_behind(&rig, "$theirs");
    unanswered_set(&rig, "mine");
    expect(rig.b, "nil", "EVAL \"redis.call('set', 'k', 'of a script')\" 0");
    expect_behind(&rig, "$of a script");
    unanswered_set(&rig, "mine");
    expect(rig.b, "+OK", "FLUSHALL");
    expect_behind(&rig, "nil");
}

SCENARIO(links, a_value_just_set_is_not_read_when_another_client_has_read_a_newer_one)
{
    static const char *const commands[] = {"GET k", "MGET k", "GETRANGE k 0 -1"};
    struct rig rig = rig_start(NULL, NULL);

    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        unanswered_set(&rig, "mine");
        expect(rig.redis->direct, "+OK", "SET k theirs");
        expect(rig.b, i == 1 ? "[$theirs]" : "$theirs", "%s", commands[i]);
        expect_behind(&rig, "$theirs");
    }
}

SCENARIO(links, a_value_just_set_is_not_read_longer_than_the_lease)
{
    const char *const extra[] = {"invalidation.link_lease=200ms", NULL};
    struct rig rig = rig_start(NULL, extra);

    unanswered_set(&rig, "mine");
    expect(rig.redis->direct, "+OK", "SET k theirs");
    pass_time(300);
    expect_behind(&rig, "$theirs");
}

/* ---- Fetches that were detached ------------------------------------------------------------- */

/* Flight 1 goes out on a's fill connection and is held before Redis; a write through the proxy detaches
 * it. */
static void detach_a_flight(struct rig *rig)
{
    expect(rig->redis->direct, "+OK", "SET k 0");
    long long fetches = nearside_info(rig->proxy, "fetches");
    relay_hold_link(rig->relay, rig->fill_a, RELAY_UP);
    cr_assert(client_command(rig->a, "GET k"));
    rig_await_counter(rig, "fetches", fetches + 1);
    expect(rig->a2, "+OK", "SET k 1");
}

SCENARIO(links, a_detached_fetch_gives_its_readers_the_entry_that_came_after_it)
{
    struct rig rig = rig_start(NULL, NULL);

    detach_a_flight(&rig);
    rig_make_cached(&rig, rig.b, "k");
    relay_hold_link(rig.relay, rig.fill_b, RELAY_DOWN);
    expect(rig.redis->direct, "+OK", "SET k 2");
    relay_hold_link(rig.relay, rig.fill_a, 0);
    int first = number(client_read(rig.a));
    rig_send_get(&rig, rig.a, "k");
    relay_release(rig.relay);
    int second = number(client_read(rig.a));
    int third = number(ask(rig.a2, "GET k"));
    cr_assert(first >= 1 && second >= first && third >= second, "reads in order return %d, %d, %d",
              first, second, third);
}

SCENARIO(links, a_detached_fetch_leaves_its_readers_to_the_one_that_came_after_it)
{
    struct rig rig = rig_start(NULL, NULL);

    detach_a_flight(&rig);
    long long gets = rig_calls(&rig, "get");
    relay_hold_link(rig.relay, rig.fill_b, RELAY_DOWN);
    cr_assert(client_command(rig.b, "GET k"));
    cr_assert(rig_await_call(&rig, "get", gets, 5000), "the fetch did not reach Redis");
    expect(rig.redis->direct, "+OK", "SET k 2");
    relay_hold_link(rig.relay, rig.fill_a, 0);
    expect(rig.a2, "nil", "GET behind"); /* on the same link, so flight 1 is over */
    rig_send_get(&rig, rig.a2, "k");
    relay_release(rig.relay);
    int first = number(client_read(rig.a));
    int second = number(client_read(rig.a2));
    cr_assert(first >= 1 && second >= first, "a read returns %d, one that began after it %d", first,
              second);
}

/* ---- Reads beside L1 ------------------------------------------------------------------------ */

SCENARIO(links, what_a_read_on_a_lane_has_shown_is_not_taken_back)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.a, "k");
    relay_hold(rig.relay, RELAY_DOWN, true);
    expect(rig.redis->direct, "+OK", "SET k new");
    expect(rig.b, "$new", "GETRANGE k 0 -1");
    rig_send_get(&rig, rig.b, "k");
    relay_release(rig.relay);
    expect_next(rig.b, "$new");
}

SCENARIO(links, what_an_mget_has_shown_is_not_taken_back)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.a, "k");
    relay_hold_link(rig.relay, rig.fill_a, RELAY_DOWN);
    expect(rig.redis->direct, "+OK", "SET k new");
    expect(rig.b, "[$new nil]", "MGET k another");
    expect(rig.b, "$new", "GET k");
    relay_release(rig.relay);
}

/* ---- Fences --------------------------------------------------------------------------------- */

static const char *const script = "EVAL 'return redis.call(\"SET\",\"k\",\"new\")' 0";

SCENARIO(links, a_fence_covers_the_fill_connections_of_other_workers)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.b, "k");
    relay_hold_link(rig.relay, rig.fill_b, RELAY_DOWN);
    expect(rig.a, "+OK", "%s", script);
    expect(rig.a, "$new", "GET k");
    relay_release(rig.relay);
    expect(rig.b, "$new", "GET k");
}

SCENARIO(links, a_fence_does_not_let_a_fetch_from_before_it_be_joined)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    long long gets = rig_calls(&rig, "get");
    relay_hold_link(rig.relay, rig.fill_b, RELAY_DOWN);
    cr_assert(client_command(rig.b, "GET k"));
    cr_assert(rig_await_call(&rig, "get", gets, 5000), "the fetch did not reach Redis");
    expect(rig.a, "+OK", "%s", script);
    rig_send_get(&rig, rig.a, "k");
    relay_release(rig.relay);
    expect_next(rig.a, "$new");
}

SCENARIO(links, a_fence_begins_when_the_reply_is_there)
{
    struct rig rig = rig_start(NULL, NULL);

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.b, "k");
    long long pings = rig_calls(&rig, "ping");
    relay_hold_link(rig.relay, rig.lane_a, RELAY_UP);
    held_write(&rig, rig.a, "EVAL 'return redis.call(\"SET\",\"k\",\"new\")' 1 other");
    /* PINGs that were sent with the command are answered now */
    (void)rig_await_call(&rig, "ping", pings + 1, CHANCE_MS);
    pass_time(CHANCE_MS / 3);
    relay_hold(rig.relay, RELAY_DOWN, true);
    relay_hold_link(rig.relay, rig.lane_a, 0);
    expect_next(rig.a, "+OK");
    rig_send_get(&rig, rig.b, "k");
    relay_release(rig.relay);
    expect_next(rig.b, "$new");
}

SCENARIO(links, an_error_in_answer_to_its_ping_is_no_fence)
{
    static const char *const soon_busy[] = {"--lua-time-limit", "5", NULL};
    struct rig rig = rig_start(soon_busy, NULL);
    struct client *slow = client_connect(rig.redis->port);

    expect(rig.redis->direct, "+OK", "SET k old");
    rig_make_cached(&rig, rig.b, "k");
    relay_hold(rig.relay, RELAY_UP, true);
    cr_assert(client_command(rig.a, "%s", script));
    rig_await_counter(&rig, "fences", 1);
    cr_assert(client_command(slow, "EVAL 'while true do end' 0"));
    await_reply(rig.redis->direct, "-BUSY ...", 3000, "PING");
    relay_release(rig.relay);
    expect_next(rig.a, "+OK");
    expect(rig.redis->direct, "+OK", "SCRIPT KILL");
    expect_next(slow, "-ERR ...");
    nearside_await_info(rig.proxy, "fence_timeouts", 2, 2, 3000);
    expect(rig.b, "$new", "GET k");
}
