/* SPDX-License-Identifier: Apache-2.0
 *
 * test_deadline.c: upstream.command_timeout. The client is told in time, what it asked for stays under way
 * as a ghost, and nobody gets another's reply.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/cluster.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <string.h>

TestSuite(deadline);

#define LATE    "no reply within 200 ms"
#define UNKNOWN LATE "; whether the command was executed is unknown"

static struct nearside *start(int port)
{
    return nearside_start(port, "upstream.command_timeout=200ms", "upstream.dead_after=60s", NULL);
}

static const char *error_of(int port, const char *what)
{
    return cleanup_printf("-UPSTREAM 127.0.0.1:%d: %s", port, what);
}

SCENARIO(deadline, frozen_server_is_told_in_time_whatever_was_asked)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = start(r->port);
    struct client *c = nearside_connect(n);

    expect(r->direct, "+OK", "SET read v");
    nearside_await_fills(n);
    expect(c, "+OK", "SET k 0");
    redis_freeze(r);
    int64_t began = now_ms();
    expect(c, error_of(r->port, UNKNOWN), "SET k 1");
    cr_assert_geq(now_ms() - began, 190);
    cr_assert_lt(now_ms() - began, 1500 * slowdown());
    expect(c, error_of(r->port, LATE), "GET read");
    expect(c, error_of(r->port, LATE), "MGET read b");
    expect(c, error_of(r->port, LATE), "LRANGE l 0 -1");
    expect(c, error_of(r->port, UNKNOWN), "EVAL 'return 1' 0");
    expect(c, error_of(r->port, UNKNOWN), "FLUSHALL");
    expect(c, error_of(r->port, LATE), "SELECT 3");
    expect(c, "nil", "CLIENT GETNAME");
    cr_assert_geq(nearside_info(n, "l1_writes_in_flight"), 1, "the write is under way");
    cr_assert_eq(nearside_info(n, "command_timeouts"), 7);
    cr_assert_eq(nearside_info(n, "l1_waiters"), 0);

    redis_thaw(r);
    nearside_await_info(n, "l1_writes_in_flight", 0, 0, 5000);
    nearside_await_info(n, "l1_leases", 0, 0, 5000);
    await_reply(c, "nil", 5000, "GET k"); /* FLUSHALL came behind the SET */
    expect(c, "+OK", "SET k 2");
    expect(c, "$2", "GET k");
    expect(c, "$2", "GET k");
    nearside_check_alive(n);
}

SCENARIO(deadline, replies_stay_in_their_order_and_with_their_commands)
{
    enum { COUNT = 200 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = start(r->port);
    struct client *c = nearside_connect(n);
    struct client *d = nearside_connect(n);

    nearside_await_fills(n);
    expect(c, "[nil]", "MGET warm");
    redis_freeze(r);
    for (int i = 0; i < COUNT; i++) {
        cr_assert(client_command(c, "SET k%d %d", i, i) && client_command(c, "GET k%d", i) &&
                  client_command(c, "CLIENT GETNAME") && client_command(c, "STRLEN other"));
        cr_assert(client_command(d, "HGET h%d f", i));
    }
    for (int i = 0; i < COUNT; i++) {
        expect_next(c, error_of(r->port, UNKNOWN));
        expect_next(c, error_of(r->port, LATE));
        expect_next(c, "nil");
        expect_next(c, error_of(r->port, LATE));
        expect_next(d, error_of(r->port, LATE));
    }
    redis_thaw(r);
    await_reply(d, "$0", 5000, "GET k0");
    for (int i = 0; i < COUNT; i++) {
        expect(c, cleanup_printf("$%d", i), "GET k%d", i);
        expect(d, ":1", "EXISTS k%d", i);
    }
}

SCENARIO(deadline, commands_that_block_by_themselves_have_none)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = start(r->port);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);

    cr_assert(client_command(c, "BLPOP l 0"));
    cr_assert_not(client_readable(c, 600));
    expect(other, ":1", "RPUSH l v");
    expect_next(c, "[$l $v]");
    expect(c, "nil array", "BLPOP l 0.5");
}

SCENARIO(deadline, transaction_is_told_and_its_client_closed)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = start(r->port);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "MULTI");
    redis_freeze(r);
    cr_assert(client_command(c, "SET k v") && client_command(c, "EXEC"));
    expect_next(c, error_of(r->port, UNKNOWN));
    expect_next(c, error_of(r->port, UNKNOWN));
    cr_assert(client_drain_to_end(c));
    redis_thaw(r);
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
    await_reply(nearside_connect(n), "+OK", 5000, "SET k w");
}

SCENARIO(deadline, stalled_fill_connection_is_given_up_and_read_around)
{
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, "TRACKING");
    struct nearside *n = start(relay_port(link));
    struct client *c = nearside_connect(n);

    expect(r->direct, "+OK", "SET k v");
    nearside_await_fills(n);
    relay_hold(link, RELAY_BOTH, true);
    expect(c, error_of(relay_port(link), LATE), "GET k");
    expect(c, "+OK", "SET other v");
    await_reply(c, "$v", 5000, "GET k");
    relay_release(link);
    await_reply(c, "$v", 5000, "GET k");
    nearside_await_info(n, "l1_waiters", 0, 0, 5000);
}

SCENARIO(deadline, clients_that_left_and_timeouts_leave_nothing_behind)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = start(r->port);

    nearside_await_fills(n);
    redis_freeze(r);
    for (int i = 0; i < 20; i++) {
        struct client *c = nearside_connect(n);
        cr_assert(client_command(c, "SET k v") && client_command(c, "MGET a%d b%d", i, i) &&
                  client_command(c, "GET cold%d", i));
        if (i % 2 == 0) {
            expect_next(c, "-UPSTREAM...");
        }
        client_close(c);
    }
    redis_thaw(r);
    nearside_await_info(n, "clients_connected", 0, 1, 10000);
    nearside_await_info(n, "l1_writes_in_flight", 0, 0, 10000);
    nearside_await_info(n, "l1_leases", 0, 0, 10000);
    nearside_await_info(n, "l1_waiters", 0, 0, 10000);
}

/* ---- Several nodes -------------------------------------------------------------------------- */

SCENARIO(deadline, frozen_node_does_not_hold_what_goes_to_several)
{
    static const char *const extra[] = {"--cluster-require-full-coverage", "no",
                                        "--cluster-node-timeout", "60000", NULL};
    struct cluster *cluster = cluster_start(3, 0, extra);
    struct nearside *n =
        nearside_start(cluster->node[0]->port, "upstream.mode=cluster",
                       "upstream.command_timeout=200ms", "upstream.dead_after=60s", NULL);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);
    const char *a = cluster_key(cluster, 0, "k");
    const char *b = cluster_key(cluster, 1, "k");
    const char *late = cleanup_printf("-UPSTREAM 127.0.0.1:%d: %s", cluster->node[1]->port, LATE);
    const char *unknown =
        cleanup_printf("-UPSTREAM 127.0.0.1:%d: %s", cluster->node[1]->port, UNKNOWN);

    await_reply(c, "+OK", 10000, "MSET %s 1 %s 2", a, b);
    await_reply(c, ":2", 5000, "DBSIZE");
    redis_freeze(cluster->node[1]);
    int64_t began = now_ms();
    expect(c, late, "MGET %s %s", a, b);
    cr_assert_lt(now_ms() - began, 1500 * slowdown());
    expect(c, late, "EXISTS %s %s", a, b);
    expect(c, late, "DBSIZE");
    expect(c, late, "KEYS *");
    expect(c, unknown, "MSET %s 3 %s 4", a, b);
    expect(c, unknown, "DEL %s %s", a, b);
    expect(c, unknown, "SCRIPT LOAD 'return 1'");
    expect(c, unknown, "FLUSHALL");
    cr_assert_eq(nearside_info(n, "command_timeouts"), 8);
    cr_assert_eq(nearside_info(n, "l1_waiters"), 0);
    cr_assert_geq(nearside_info(n, "l1_writes_in_flight"), 1, "what was sent is under way");
    for (int i = 0; i < 20; i++) { /* one behind the other, each with its own answer, in its turn */
        cr_assert(client_command(c, "MGET %s %s", b, a) && client_command(c, "STRLEN %s", a) &&
                  client_command(other, "UNLINK %s %s", b, a));
    }
    for (int i = 0; i < 20; i++) {
        expect_next(c, late);
        expect_next(c, ":0");
        expect_next(other, unknown);
    }

    redis_thaw(cluster->node[1]);
    nearside_await_info(n, "l1_writes_in_flight", 0, 0, 10000);
    nearside_await_info(n, "l1_leases", 0, 0, 10000);
    await_reply(c, "+OK", 10000, "MSET %s 5 %s 6", a, b);
    expect(c, "[$5 $6]", "MGET %s %s", a, b);
    expect(cluster->node[1]->direct, "$6", "GET %s", b);
    nearside_check_alive(n);
}
