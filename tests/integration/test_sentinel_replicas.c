/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sentinel_replicas.c: upstream.read_from with sentinels: who answers reads, as replicas come, go, freeze
 * and become masters.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/scenario.h"
#include "../support/sentinel.h"

#include <string.h>

TestSuite(sentinel_replicas);

#define PREFER "upstream.read_from=prefer-replica"
#define INSIST "upstream.read_from=replica"

struct scene {
    struct sentinels *s;
    struct nearside *proxy;
    struct client *c;
};

/* `k` has five bytes, and the replica has it. */
static struct scene begin(const char *read_from, const char *set)
{
    struct scene scene = {.s = sentinels_start(NULL)};
    scene.proxy = sentinels_nearside(
        scene.s, (const char *const[]){read_from, "invalidation.link_lease=200ms", set, NULL});
    scene.c = nearside_connect(scene.proxy);
    await_reply(scene.c, "+OK", 5000 * slowdown(), "SET k value");
    expect(scene.c, ":1", "WAIT 1 5000");
    return scene;
}

/* Until the server has answered one of the client's reads. */
static void await_reads_at(struct client *c, struct redis *r)
{
    int64_t end = now_ms() + 10000 * slowdown();
    for (long long before = redis_calls(r, "strlen"); redis_calls(r, "strlen") == before;) {
        cr_assert_lt(now_ms(), end, "no read has come to %d", r->port);
        await_reply(c, ":5", 5000 * slowdown(), "STRLEN k");
    }
}

SCENARIO(sentinel_replicas, reads_go_to_the_replica_and_gets_and_all_that_is_no_read_never_do)
{
    struct scene t = begin(PREFER, NULL);
    struct redis *master = t.s->server[0];
    struct redis *replica = t.s->server[1];

    await_reads_at(t.c, replica);
    long long there = redis_calls(master, "strlen");
    nearside_await_fills(t.proxy);
    for (int i = 0; i < 20; i++) {
        expect(t.c, ":5", "STRLEN k");
        expect(t.c, "$value", "GET k");
        expect(t.c, "[$value]", "MGET k");
        expect(t.c, ":1", "EVAL_RO 'return 1' 0");
        expect(t.c, ":1", "DBSIZE");
    }
    cr_assert_eq(redis_calls(master, "strlen"), there);
    cr_assert_eq(redis_calls(replica, "get"), 0);
    cr_assert_eq(redis_calls(replica, "mget"), 0);
    cr_assert_eq(redis_calls(replica, "dbsize"), 0);
    cr_assert_eq(redis_calls(replica, "readonly"), 0);
    cr_assert_not_null(strstr(nearside_info_text(t.proxy), "role=replica"));
}

SCENARIO(sentinel_replicas, pipelined_reads_go_to_the_replica_and_writes_to_the_master)
{
    struct scene t = begin(PREFER, NULL);

    await_reads_at(t.c, t.s->server[1]);
    long long there = redis_calls(t.s->server[0], "strlen");
    for (int i = 0; i < 50; i++) {
        cr_assert(client_command(t.c, "STRLEN k"));
    }
    for (int i = 0; i < 50; i++) {
        cr_assert(client_command(t.c, "SET n%d v", i));
    }
    for (int i = 0; i < 50; i++) {
        expect_next(t.c, ":5");
    }
    for (int i = 0; i < 50; i++) {
        expect_next(t.c, "+OK");
    }
    cr_assert_eq(redis_calls(t.s->server[0], "strlen"), there);
}

/* Not one of the reads, which have a road of their own. */
SCENARIO(sentinel_replicas, runs_of_writes_travel_together_and_reads_between_them_do_not)
{
    struct scene t = begin(PREFER, NULL);
    char *run = cleanup_printf("%s", "");

    await_reads_at(t.c, t.s->server[1]);
    long long there = redis_calls(t.s->server[0], "strlen");
    long long batched = nearside_info(t.proxy, "commands_batched");
    for (int i = 0; i < 20; i++) {
        run = cleanup_printf("%s*3\r\n$3\r\nSET\r\n$2\r\nn%d\r\n$1\r\nv\r\n", run, i % 10);
    }
    for (int i = 0; i < 20; i++) {
        run = cleanup_printf("%s*2\r\n$6\r\nSTRLEN\r\n$1\r\nk\r\n", run);
    }
    for (int round = 0; round < 5; round++) {
        cr_assert(client_send_text(t.c, run));
        for (int i = 0; i < 20; i++) {
            expect_next(t.c, "+OK");
        }
        for (int i = 0; i < 20; i++) {
            expect_next(t.c, ":5");
        }
    }
    cr_assert_geq(nearside_info(t.proxy, "commands_batched"), batched + 90);
    cr_assert_leq(nearside_info(t.proxy, "commands_batched"), batched + 100);
    cr_assert_eq(redis_calls(t.s->server[0], "strlen"), there);
}

/* The read follows its connection's own write, and what comes behind it follows the read. */
SCENARIO(sentinel_replicas, a_connection_keeps_its_order_per_key)
{
    struct scene t = begin(PREFER, NULL);

    await_reads_at(t.c, t.s->server[1]);
    for (int i = 0; i < 200; i++) {
        cr_assert(client_command(t.c, "SET own %d", i % 2 == 0 ? 1 : 1000));
        cr_assert(client_command(t.c, "STRLEN own"));
        cr_assert(client_command(t.c, "GET own"));
        cr_assert(client_command(t.c, "DEL own"));
    }
    for (int i = 0; i < 200; i++) {
        expect_next(t.c, "+OK");
        expect_next(t.c, i % 2 == 0 ? ":1" : ":4");
        expect_next(t.c, i % 2 == 0 ? "$1" : "$1000");
        expect_next(t.c, ":1");
    }
}

static bool is_replica(void *ctx)
{
    struct redis *r = ctx;
    struct client *c = client_try(r->port);
    bool is = c != NULL && strstr(ask(c, "INFO replication"), "master_link_status:up") != NULL;
    if (c != NULL) {
        client_close(c);
    }
    return is;
}

SCENARIO(sentinel_replicas, after_a_failover_the_new_master_is_no_replica_and_the_old_one_is)
{
    struct scene t = begin(PREFER, NULL);
    struct redis *old = t.s->server[0];
    struct redis *new = t.s->server[1];

    await_reads_at(t.c, new);
    sentinels_failover(t.s);
    sentinels_await_switch(t.s, t.proxy, 1);
    cr_assert(await(is_replica, old, 30000 * slowdown()),
              "the sentinels leave the old master alone");
    old->direct = client_connect(old->port); /* it closed those that it had */
    await_reads_at(t.c, old);
    long long there = redis_calls(new, "strlen");
    for (int i = 0; i < 50; i++) {
        expect(t.c, ":5", "STRLEN k");
        expect(t.c, "+OK", "SET other %d", i);
    }
    cr_assert_eq(redis_calls(new, "strlen"), there);
}

SCENARIO(sentinel_replicas, without_one_reads_that_insist_on_it_are_refused_at_once)
{
    struct scene t = begin(INSIST, NULL);

    await_reads_at(t.c, t.s->server[1]);
    redis_stop(t.s->server[1]);
    await_reply(t.c, "-UPSTREAM no replica...", 5000 * slowdown(), "STRLEN k");
    int64_t asked = now_ms();
    expect(t.c, "-UPSTREAM no replica...", "STRLEN k");
    cr_assert_lt(now_ms() - asked, 500 * slowdown());
    expect(t.c, "$value", "GET k");
    expect(t.c, "+OK", "SET k other");
}

SCENARIO(sentinel_replicas, without_one_reads_that_prefer_it_go_to_the_master)
{
    struct scene t = begin(PREFER, NULL);

    await_reads_at(t.c, t.s->server[1]);
    redis_stop(t.s->server[1]);
    for (int i = 0; i < 20; i++) {
        expect(t.c, ":5", "STRLEN k");
    }
    cr_assert_geq(redis_calls(t.s->server[0], "strlen"), 20);
}

SCENARIO(sentinel_replicas, one_that_comes_is_read_from_and_one_that_leaves_is_not)
{
    struct scene t = begin(INSIST, NULL);
    struct redis *third = redis_start(NULL);

    await_reads_at(t.c, t.s->server[1]);
    expect(third->direct, "+OK", "REPLICAOF 127.0.0.1 %d", t.s->server[0]->port);
    redis_stop(t.s->server[1]);
    await_reads_at(t.c, third);
    expect(third->direct, "+OK", "REPLICAOF NO ONE");
    await_reply(t.c, "-UPSTREAM no replica...", 5000 * slowdown(), "STRLEN k");
    long long there = redis_calls(third, "strlen");
    expect(t.c, "-UPSTREAM no replica...", "STRLEN k");
    cr_assert_eq(redis_calls(third, "strlen"), there);
}

SCENARIO(sentinel_replicas, a_frozen_one_delays_only_who_was_waiting_for_it)
{
    struct scene t = begin(PREFER, "upstream.dead_after=1s");
    struct client *stuck = nearside_connect(t.proxy);

    await_reads_at(stuck, t.s->server[1]);
    redis_freeze(t.s->server[1]);
    cr_assert(client_command(stuck, "STRLEN k"));
    for (int i = 0; i < 20; i++) {
        int64_t began = now_ms();
        expect(t.c, "+OK", "SET n%d v", i);
        expect(t.c, "$value", "GET k");
        expect(t.c, ":1", "EVAL 'return 1' 0");
        cr_assert_lt(now_ms() - began, 500 * slowdown());
    }
    expect_next(stuck, ":5"); /* from the master */
    nearside_await_log(t.proxy, "says nothing");
    int64_t began = now_ms();
    expect(t.c, ":5", "STRLEN k");
    expect(stuck, ":5", "STRLEN k");
    cr_assert_lt(now_ms() - began, 500 * slowdown());
    redis_thaw(t.s->server[1]);
    await_reads_at(stuck, t.s->server[1]);
}

/* As soon as it is suspect: a quarter of dead_after. */
SCENARIO(sentinel_replicas, what_a_frozen_one_owes_is_asked_of_the_master_before_it_is_dead)
{
    struct scene t = begin(PREFER, "upstream.dead_after=12s");
    struct client *stuck = nearside_connect(t.proxy);

    await_reads_at(stuck, t.s->server[1]);
    redis_freeze(t.s->server[1]);
    for (int i = 0; i < 3; i++) {
        cr_assert(client_command(stuck, "STRLEN k"));
        cr_assert(client_command(stuck, "EXISTS k"));
    }
    cr_assert(client_command(stuck, "GET k"));
    for (int i = 0; i < 3; i++) {
        expect_next(stuck, ":5");
        expect_next(stuck, ":1");
    }
    expect_next(stuck, "$value");
    cr_assert_eq(nearside_info(t.proxy, "resends"), 6, "%s", nearside_info_text(t.proxy));
    nearside_await_log(t.proxy, "is suspect");
    cr_assert_eq(nearside_log_lines(t.proxy, "is suspect"), 1);
    cr_assert_eq(nearside_log_lines(t.proxy, "is down"), 0);
    redis_thaw(t.s->server[1]);
    await_reads_at(stuck, t.s->server[1]);
    for (int i = 0; i < 20; i++) {
        expect(stuck, ":5", "STRLEN k");
        expect(stuck, ":1", "EXISTS k");
    }
}

SCENARIO(sentinel_replicas, with_replica_what_a_frozen_one_owes_waits_for_it)
{
    struct scene t = begin(INSIST, "upstream.dead_after=4s");
    struct client *stuck = nearside_connect(t.proxy);

    await_reads_at(stuck, t.s->server[1]);
    long long there = redis_calls(t.s->server[0], "strlen");
    redis_freeze(t.s->server[1]);
    cr_assert(client_command(stuck, "STRLEN k"));
    nearside_await_log(t.proxy, "is suspect");
    redis_thaw(t.s->server[1]);
    expect_next(stuck, ":5");
    cr_assert_eq(redis_calls(t.s->server[0], "strlen"), there);
    cr_assert_eq(nearside_info(t.proxy, "resends"), 0);
}

SCENARIO(sentinel_replicas, one_that_runs_a_script_is_passed_over)
{
    struct scene t = begin(PREFER, NULL);
    struct redis *replica = t.s->server[1];
    struct client *script = client_connect(replica->port);

    await_reads_at(t.c, replica);
    expect(replica->direct, "+OK", "CONFIG SET lua-time-limit 10");
    cr_assert(client_command(script, "EVAL 'while true do end' 0"));
    await_reply(replica->direct, "-BUSY ...", 5000 * slowdown(), "STRLEN k");
    expect(t.c, ":5", "STRLEN k");
    expect(replica->direct, "+OK", "SCRIPT KILL");
    expect_next(script, "-ERR ...");
    await_reads_at(t.c, replica);
}
