/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sentinel.c: upstream.mode = sentinel, in front of a real master, replica and sentinels: who the
 * master is, and what clients see when another takes its place.
 */
#include "../support/await.h"
#include "../support/scenario.h"
#include "../support/cleanup.h"
#include "../support/sentinel.h"

#include <string.h>

TestSuite(sentinel);

SCENARIO(sentinel, the_master_is_found_and_the_other_sentinels_too)
{
    struct sentinels *s = sentinels_start(NULL);
    struct nearside *n = nearside_start_with(&(struct nearside_options){
        .upstream = cleanup_printf("127.0.0.1:%d", s->port[0]),
        .sets = (const char *const[]){"upstream.mode=sentinel", "sentinel.master=mymaster", NULL}});
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 5000 * slowdown(), "SET k v");
    expect(s->server[0]->direct, "$v", "GET k");
    nearside_await_info(n, "sentinels_known", SENTINELS, SENTINELS, 5000);
    nearside_await_info(n, "sentinels_up", SENTINELS, SENTINELS, 5000);
    nearside_await_fills(n);
    expect(c, "$v", "GET k");
    long long hits = nearside_info(n, "l1_hits");
    expect(c, "$v", "GET k");
    cr_assert_eq(nearside_info(n, "l1_hits"), hits + 1);
}

SCENARIO(sentinel, a_sentinel_that_is_down_is_skipped)
{
    struct sentinels *s = sentinels_start(NULL);
    process_kill(s->process[0]);
    struct nearside *n = sentinels_nearside(s, NULL);
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 5000 * slowdown(), "SET k v");
    nearside_await_log(n, "does not answer");
}

SCENARIO(sentinel, without_a_master_commands_fail_at_once_and_say_why)
{
    struct sentinels *s = sentinels_start(NULL);
    struct nearside *n =
        sentinels_nearside(s, (const char *const[]){"sentinel.master=nobody", NULL});
    struct client *c = nearside_connect(n);

    await_reply(c, "-UPSTREAM sentinel nobody: not connected (sentinel ...", 5000 * slowdown(),
                "GET k");
    int64_t asked = now_ms();
    cr_assert(strstr(ask(c, "SET k v"), "knows no master of that name") != NULL ||
              strstr(ask(c, "SET k v"), "No such master") != NULL);
    cr_assert_leq(now_ms() - asked, 500 * slowdown());
}

/* Who asks while it is connecting only hears that this came to nothing. */
static bool tells_of_the_password(void *ctx)
{
    const char *got = ask(ctx, "GET k");

    return matches(got,
                   "-UPSTREAM sentinel mymaster: not connected (no sentinel answers (127...") &&
           strstr(got, "login refused: WRONGPASS") != NULL;
}

SCENARIO(sentinel, passwords_of_the_sentinels_are_used_and_a_wrong_one_is_told)
{
    struct sentinels *s = sentinels_start("sesame");
    struct nearside *n =
        sentinels_nearside(s, (const char *const[]){"sentinel.password=sesame", NULL});
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 5000 * slowdown(), "SET k v");
    struct nearside *wrong =
        sentinels_nearside(s, (const char *const[]){"sentinel.password=guess", NULL});
    c = nearside_connect(wrong);
    cr_assert(await(tells_of_the_password, c, 5000 * slowdown()));
    cr_assert_eq(nearside_log_lines(wrong, "guess"), 0);
}

struct attempt {
    struct client *through, *direct;
};

/* A write may still be taken by a master that is about to be demoted: Redis loses that one. */
static bool reaches_the_master(void *ctx)
{
    struct attempt *a = ctx;

    return strcmp(ask(a->through, "SET after failover"), "+OK") == 0 &&
           strcmp(ask(a->direct, "GET after"), "$failover") == 0;
}

/* Writes reach the new master within a second of the moment at which sentinel 0 names it. */
static void expect_to_work_again(struct sentinels *s, struct client *c, int master)
{
    sentinels_await_master(s, 0, master, 20000);
    s->server[master]->direct = client_connect(s->server[master]->port); /* it closed them all */
    struct attempt a = {c, s->server[master]->direct};
    cr_assert(await(reaches_the_master, &a, 1000 * slowdown()));
}

SCENARIO(sentinel, a_master_that_is_killed_is_replaced)
{
    struct sentinels *s = sentinels_start(NULL);
    struct nearside *n = sentinels_nearside(s, NULL);
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 5000 * slowdown(), "SET k old");
    expect(c, ":1", "WAIT 1 5000");
    nearside_await_fills(n);
    expect(c, "$old", "GET k");
    redis_stop(s->server[0]);
    await_reply(c, "-UPSTREAM ...", 2000 * slowdown(), "SET k2 v");
    int64_t asked = now_ms();
    expect(c, "-UPSTREAM ...", "GET k");
    cr_assert_leq(now_ms() - asked, 500 * slowdown(), "it fails fast");
    expect_to_work_again(s, c, 1);
    expect(c, "$old", "GET k"); /* it had been confirmed by WAIT */
    expect(s->server[1]->direct, "+OK", "SET k new");
    await_reply(c, "$new", 2000 * slowdown(), "GET k");
    cr_assert_eq(nearside_info(n, "sentinel_switches"), 1);
}

SCENARIO(sentinel, nothing_of_the_old_master_is_served_after_a_failover_on_demand)
{
    struct sentinels *s = sentinels_start(NULL);
    struct nearside *n = sentinels_nearside(s, NULL);
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 5000 * slowdown(), "SET k old");
    expect(c, ":1", "WAIT 1 5000");
    nearside_await_fills(n);
    expect(c, "$old", "GET k");
    sentinels_failover(s);
    expect_to_work_again(s, c, 1);
    expect(s->server[1]->direct, "+OK", "SET k new");
    await_reply(c, "$new", 1000 * slowdown(), "GET k");
    for (int i = 0; i < 100; i++) {
        expect(c, "$new", "GET k");
    }
    nearside_await_log(n, "it was 127.0.0.1");
}

SCENARIO(sentinel, a_frozen_master_is_replaced_and_not_believed_when_it_thaws)
{
    struct sentinels *s = sentinels_start(NULL);
    struct nearside *n = sentinels_nearside(s, NULL);
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 5000 * slowdown(), "SET k old");
    expect(c, ":1", "WAIT 1 5000");
    redis_freeze(s->server[0]);
    sentinels_await_master(s, 0, 1, 20000);
    await_reply(c, "+OK", 1000 * slowdown(), "SET k new");
    redis_thaw(s->server[0]);
    for (int i = 0; i < 200; i++) {
        expect(c, "$new", "GET k");
    }
}

/* The proxy says so every ten seconds at most. */
static bool is_disbelieved_again(void *ctx)
{
    return nearside_log_lines(ctx, "is not believed") >= 2;
}

/* The old master has not heard of the failover either, and says that it is one. */
SCENARIO(sentinel, a_sentinel_that_was_left_behind_is_not_believed)
{
    struct sentinels *s = sentinels_start(NULL);
    struct nearside *n =
        sentinels_nearside(s, (const char *const[]){"upstream.topology_refresh=1s", NULL});
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 5000 * slowdown(), "SET k old");
    redis_freeze(s->server[0]);
    sentinels_await_switch(s, n, 1);
    sentinels_leave_behind(s, 2);
    redis_thaw(s->server[0]);
    await_reply(s->server[0]->direct, "[$master...", 5000 * slowdown(), "ROLE");
    cr_assert(await(is_disbelieved_again, n, 30000), "%s", nearside_log(n));
    for (int i = 0; i < 50; i++) {
        expect(c, "+OK", "SET k %d", i);
        expect(s->server[1]->direct, cleanup_printf("$%d", i), "GET k");
    }
    cr_assert_eq(nearside_info(n, "sentinel_switches"), 1);
}

SCENARIO(sentinel, a_wrong_password_of_the_master_is_told_and_a_right_one_taken_at_once)
{
    struct sentinels *s = sentinels_start(NULL);
    for (int i = 0; i < 2; i++) {
        expect(s->server[i]->direct, "+OK", "ACL SETUSER app on >other ~* &* +@all");
    }
    struct nearside *n = sentinels_nearside(
        s, (const char *const[]){"upstream.user=app", "upstream.password=guess", NULL});
    struct client *c = nearside_connect(n);

    /* before that there is no sentinel that has answered */
    nearside_await_log(n, "login refused: WRONGPASS");
    await_reply(c, "-UPSTREAM sentinel mymaster: not connected (...", 5000 * slowdown(), "GET k");
    int64_t asked = now_ms();
    for (int i = 0; i < 20; i++) {
        expect(c, "-UPSTREAM ...", "SET k v");
    }
    cr_assert_lt(now_ms() - asked, 500 * slowdown());
    cr_assert_eq(nearside_log_lines(n, "guess"), 0);
    for (int i = 0; i < 2; i++) {
        expect(s->server[i]->direct, "+OK", "ACL SETUSER app >guess");
    }
    await_reply(c, "+OK", 5000 * slowdown(), "SET k v");
    expect(s->server[0]->direct, "$v", "GET k");
}

TestSuite(role);

SCENARIO(role, a_standalone_server_that_becomes_a_replica_is_another_one)
{
    struct redis *master = redis_start(NULL);
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 5000 * slowdown(), "SET k mine");
    nearside_await_fills(n);
    expect(c, "$mine", "GET k");
    redis_await_calls(r, "role", 1, 5000 * slowdown());
    long long generation = nearside_info(n, "generation");
    expect(r->direct, "+OK", "REPLICAOF 127.0.0.1 %d", master->port);
    expect(master->direct, "+OK", "SET k theirs");
    nearside_await_info(n, "generation", generation + 1, generation + 9, 5000);
    await_reply(c, "$theirs", 5000 * slowdown(), "GET k");
    nearside_await_log(n, "is a replica now");
    cr_assert_eq(nearside_log_lines(n, "is a replica now"), 1);
}
