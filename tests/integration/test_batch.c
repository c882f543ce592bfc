/* SPDX-License-Identifier: Apache-2.0
 *
 * test_batch.c: commands of a pipeline that travel together are to their client, and to everybody else,
 * what they would be one by one.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <string.h>

TestSuite(batch);

#define LOST "-UPSTREAM ..."

/* "SET <key><i> <i>" and the like for i below n, in one piece; the format gets i twice. */
static void send_run(struct client *c, const char *fmt, int n)
{
    char *all = cleanup_alloc((size_t)n * 128);
    size_t at = 0;

    for (int i = 0; i < n; i++) {
        const char *line = cleanup_printf(fmt, i, i);
        size_t size;
        char *bytes = command_bytes(line, &size);
        cr_assert_leq(at + size, (size_t)n * 128);
        memcpy(all + at, bytes, size);
        at += size;
    }
    cr_assert(client_send(c, all, at));
}

static void expect_run(struct client *c, const char *fmt, int n)
{
    for (int i = 0; i < n; i++) {
        expect_next(c, cleanup_printf(fmt, i));
    }
}

/* What most scenarios begin with. */
struct stage {
    struct redis *r;
    struct relay *link; /* between the two, or NULL */
    struct nearside *n;
    struct client *c;
};

static struct stage set_up(bool relayed, const char *set)
{
    struct stage s = {.r = redis_start(NULL)};
    s.link = relayed ? relay_start(s.r->port, NULL) : NULL;
    s.n = nearside_start(relayed ? relay_port(s.link) : s.r->port, set, NULL);
    s.c = nearside_connect(s.n);
    return s;
}

#define expect_each(c, want, n)                                                                    \
    do {                                                                                           \
        for (int each_ = 0; each_ < (n); each_++) {                                                \
            expect_next((c), (want));                                                              \
        }                                                                                          \
    } while (0)

/* k0 to k<n-1> are v0 to v<n-1>, as one pipeline. */
static void set_keys(struct client *c, int n)
{
    send_run(c, "SET k%d v%d", n);
    expect_each(c, "+OK", n);
}

SCENARIO(batch, pipelines_of_writes_and_of_reads_travel_together)
{
    struct stage s = set_up(false, NULL);

    set_keys(s.c, 200);
    cr_assert_geq(nearside_info(s.n, "commands_batched"), 190);
    send_run(s.c, "GET k%d", 200);
    expect_run(s.c, "$v%d", 200);
    send_run(s.c, "STRLEN k%d", 10);
    expect_each(s.c, ":2", 10);
    send_run(s.c, "APPEND k%d x", 10);
    expect_each(s.c, ":3", 10);
    send_run(s.c, "GET k%d", 10);
    expect_run(s.c, "$v%dx", 10);
    cr_assert_eq(nearside_info(s.n, "l1_writes_in_flight"), 0);
    cr_assert_eq(nearside_info(s.n, "forwarded_writes"), 210);
    cr_assert_geq(nearside_info(s.n, "commands_batched"), 210);
}

SCENARIO(batch, without_l1_gets_travel_together_too)
{
    struct stage s = set_up(false, "invalidation.mode=off");

    send_run(s.c, "SET k%d v%d", 100);
    send_run(s.c, "GET k%d", 100);
    expect_each(s.c, "+OK", 100);
    expect_run(s.c, "$v%d", 100);
    cr_assert_geq(nearside_info(s.n, "commands_batched"), 150);
}

SCENARIO(batch, errors_stand_where_they_belong)
{
    struct stage s = set_up(false, NULL);

    expect(s.c, ":1", "LPUSH list x");
    cr_assert(client_send_text(s.c, "*3\r\n$4\r\nINCR\r\n$1\r\na\r\n$1\r\nb\r\n"
                                    "*2\r\n$4\r\nINCR\r\n$1\r\na\r\n"
                                    "*2\r\n$4\r\nINCR\r\n$4\r\nlist\r\n"
                                    "*2\r\n$4\r\nINCR\r\n$1\r\na\r\n"));
    expect_next(s.c, "-ERR wrong number of arguments for 'incr' command");
    expect_next(s.c, ":1");
    expect_next(s.c, "-WRONGTYPE ...");
    expect_next(s.c, ":2");
    cr_assert_eq(nearside_info(s.n, "commands_batched"), 4);
    cr_assert_eq(nearside_info(s.n, "l1_writes_in_flight"), 0);
}

/* Who may not read a key is not to keep it out of L1 either. */
SCENARIO(batch, reads_that_are_forbidden_drop_nothing)
{
    struct stage s = set_up(false, NULL);

    nearside_await_fills(s.n);
    set_keys(s.c, 2);
    expect(s.c, "$v0", "GET k0");
    expect(s.c, "$v1", "GET k1");
    expect(s.r->direct, "+OK", "ACL SETUSER default -strlen");
    long long batched = nearside_info(s.n, "commands_batched");
    send_run(s.c, "STRLEN k%d", 2);
    expect_each(s.c, "-NOPERM ...", 2);
    cr_assert_eq(nearside_info(s.n, "commands_batched"), batched + 2);
    long long hits = nearside_info(s.n, "l1_hits");
    expect(s.c, "$v0", "GET k0");
    expect(s.c, "$v1", "GET k1");
    cr_assert_eq(nearside_info(s.n, "l1_hits"), hits + 2);
}

SCENARIO(batch, cached_value_is_gone_before_the_write_is_answered)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=2", NULL);
    struct client *writer = nearside_connect(n);
    struct client *reader = nearside_connect(n);

    nearside_await_fills(n);
    for (int round = 0; round < 50; round++) {
        (void)ask(reader, "GET a");
        (void)ask(reader, "GET b");
        cr_assert(
            client_send_text(writer, cleanup_printf("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$3\r\n%d\r\n"
                                                    "*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$3\r\n%d\r\n",
                                                    100 + round, 100 + round)));
        expect_next(writer, "+OK");
        expect(reader, cleanup_printf("$%d", 100 + round), "GET a");
        expect_next(writer, "+OK");
        expect(reader, cleanup_printf("$%d", 100 + round), "GET b");
    }
    cr_assert_eq(nearside_info(n, "commands_batched"), 100);
}

SCENARIO(batch, reads_behind_it_see_it)
{
    struct stage s = set_up(false, NULL);

    nearside_await_fills(s.n);
    expect(s.c, "+OK", "SET k7 old");
    expect(s.c, "$old", "GET k7");
    expect(s.c, "$old", "GET k7");
    send_run(s.c, "SET k%d v%d", 20);
    cr_assert(client_command(s.c, "GET k7"));
    cr_assert(client_command(s.c, "SET k7 newer"));
    cr_assert(client_command(s.c, "GET k7"));
    expect_each(s.c, "+OK", 20);
    expect_next(s.c, "$v7");
    expect_next(s.c, "+OK");
    expect_next(s.c, "$newer");
}

/* A large command takes the other lane, and must not overtake. */
SCENARIO(batch, large_command_behind_it_waits_for_it)
{
    static const char *const modes[] = {"invalidation.mode=off", "invalidation.mode=auto"};

    for (int i = 0; i < 2; i++) {
        struct redis *r = redis_start(NULL);
        struct relay *link = relay_start(r->port, NULL);
        struct nearside *n = nearside_start(relay_port(link), modes[i], NULL);
        struct client *c = nearside_connect(n);
        char *large = cleanup_alloc(100000);

        memset(large, 'x', 100000);
        expect(c, "+OK", "SET k0 small");
        relay_delay(link, RELAY_UP, 20);
        send_run(c, "APPEND k%d y", 8);
        cr_assert(client_command_big(c, "SET k0", large, 100000));
        send_run(c, "STRLEN k%d", 2);
        expect_next(c, ":6");
        expect_each(c, ":1", 7);
        expect_next(c, "+OK");
        expect_next(c, ":100000");
        expect_next(c, ":1");
    }
}

SCENARIO(batch, replies_may_arrive_in_single_bytes)
{
    struct stage s = set_up(true, NULL);
    struct client *other = nearside_connect(s.n);

    send_run(s.c, "RPUSH l%d a b%d", 16);
    expect_each(s.c, ":2", 16);
    relay_chop(s.link, RELAY_DOWN, 1);
    send_run(s.c, "LRANGE l%d 0 -1", 16);
    send_run(other, "LINDEX l%d 1", 16);
    for (int i = 0; i < 16; i++) {
        expect_next(s.c, cleanup_printf("[$a $b%d]", i));
    }
    expect_run(other, "$b%d", 16);
    send_run(s.c, "LLEN l%d", 16);
    expect_each(s.c, ":2", 16);
}

SCENARIO(batch, large_values_stream_through_it)
{
    struct stage s = set_up(false, NULL);

    store_value(s.r->direct, "large", 3000000);
    expect(s.r->direct, "+OK", "SET small v");
    for (int i = 0; i < 3; i++) {
        cr_assert(client_command(s.c, "GETRANGE small 0 -1"));
        cr_assert(client_command(s.c, "GETRANGE large 0 -1"));
    }
    for (int i = 0; i < 3; i++) {
        expect_next(s.c, "$v");
        const struct reply *reply = client_reply(s.c);
        cr_assert(reply->type == '$' && reply->n == 3000000);
    }
}

/* ---- Losses ---------------------------------------------------------------------------------- */

SCENARIO(batch, reads_whose_replies_are_lost_are_sent_again)
{
    struct stage s = set_up(true, NULL);

    set_keys(s.c, 16);
    relay_hold(s.link, RELAY_DOWN, false);
    send_run(s.c, "STRLEN k%d", 16);
    nearside_await_info(s.n, "commands_batched", 32, 32, 5000);
    relay_cut(s.link, false);
    relay_release(s.link);
    for (int i = 0; i < 16; i++) {
        expect_next(s.c, i < 10 ? ":2" : ":3");
    }
    cr_assert_eq(nearside_info(s.n, "resends"), 16);
}

SCENARIO(batch, reads_are_sent_again_unless_their_key_is_written_behind_them)
{
    struct stage s = set_up(true, NULL);
    struct client *other = nearside_connect(s.n);

    set_keys(s.c, 8);
    expect(other, ":2", "STRLEN k0"); /* its lane is up, too */
    relay_hold(s.link, RELAY_DOWN, false);
    send_run(s.c, "STRLEN k%d", 8);
    cr_assert(client_command(s.c, "SET other v"));
    send_run(other, "STRLEN k%d", 8);
    cr_assert(client_command(other, "SET k3 longer"));
    await_reply(s.r->direct, "$v", 5000, "GET other");
    await_reply(s.r->direct, "$longer", 5000, "GET k3");
    relay_cut(s.link, false);
    relay_release(s.link);
    for (int i = 0; i < 8; i++) {
        expect_next(s.c, i == 3 ? ":6" : ":2");
    }
    expect_next(s.c, LOST);
    expect_each(other, LOST, 9);
}

/* The lane is retired, and reads on it may go on on another one. */
SCENARIO(batch, reads_do_not_overtake_what_their_client_sent_before)
{
    static const char *const before[] = {"FLUSHALL", "EVAL 'redis.call(\"DEL\",\"k0\",\"k1\")' 0"};

    for (int i = 0; i < 2; i++) {
        struct redis *r = redis_start(NULL);
        struct nearside *n = nearside_start(r->port, NULL);
        struct client *c = nearside_connect(n);
        struct client *other = nearside_connect(n);

        send_run(c, "SET k%d v%d", 2);
        expect_each(c, "+OK", 2);
        expect(r->direct, "+OK", "CLIENT PAUSE 1500 WRITE");
        long long sent =
            nearside_info(n, "forwarded_flushes") + nearside_info(n, "forwarded_unknown");
        cr_assert(client_command(c, "%s", before[i]));
        nearside_await_info(n, i == 0 ? "forwarded_flushes" : "forwarded_unknown", sent + 1,
                            sent + 1, 5000);
        send_run(c, "STRLEN k%d", 2);
        send_run(other, "STRLEN x%d", 2);
        expect_each(other, ":0", 2);
        expect_next(c, i == 0 ? "+OK" : "nil");
        expect_each(c, ":0", 2);
    }
}

/* Three replies come, and half of the fourth. */
SCENARIO(batch, what_was_answered_before_the_loss_stays_answered)
{
    struct stage s = set_up(true, "proxy.workers=1");

    expect(s.c, "+OK", "SET warm v");
    int lane = relay_find(s.link, "SET");
    cr_assert_geq(lane, 0);
    relay_hold_link(s.link, lane, RELAY_DOWN);
    send_run(s.c, "INCR k%d", 8);
    nearside_await_info(s.n, "commands_batched", 8, 8, 5000);
    await_reply(s.r->direct, "$1", 5000, "GET k7");
    relay_pass(s.link, lane, RELAY_DOWN, 4 * 3 + 2);
    expect_each(s.c, ":1", 3);
    relay_cut_link(s.link, lane);
    relay_release(s.link);
    expect_each(s.c, LOST, 5);
    expect(s.c, "$1", "GET k7");
    nearside_await_info(s.n, "l1_writes_in_flight", 0, 0, 5000);
    cr_assert_eq(nearside_info(s.n, "upstream_errors"), 5);
}

SCENARIO(batch, client_that_leaves_takes_nothing_with_it)
{
    struct stage s = set_up(false, NULL);
    struct client *other = nearside_connect(s.n);

    expect(other, "+OK", "SET k3 old");
    redis_freeze(s.r);
    send_run(s.c, "SET k%d v%d", 16);
    nearside_await_info(s.n, "l1_writes_in_flight", 16, 16, 5000);
    client_reset(s.c);
    nearside_await_info(s.n, "clients_connected", 0, 2, 5000);
    redis_thaw(s.r);
    nearside_await_info(s.n, "l1_writes_in_flight", 0, 0, 5000);
    expect(other, "$v3", "GET k3");
}

SCENARIO(batch, each_command_is_told_when_the_time_is_over)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "upstream.command_timeout=200ms", "upstream.dead_after=60s", NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    redis_freeze(r);
    send_run(c, "SET k%d v%d", 5);
    cr_assert(client_command(c, "CLIENT GETNAME"));
    for (int i = 0; i < 5; i++) {
        expect_next(c, cleanup_printf("-UPSTREAM 127.0.0.1:%d: no reply within 200 ms; whether the "
                                      "command was executed is unknown",
                                      r->port));
    }
    expect_next(c, "nil");
    cr_assert_eq(nearside_info(n, "l1_writes_in_flight"), 5);
    redis_thaw(r);
    nearside_await_info(n, "l1_writes_in_flight", 0, 0, 5000);
    await_reply(c, "$v4", 5000, "GET k4");
}

SCENARIO(batch, what_waits_for_a_reply_is_no_unread_reply)
{
    struct stage s = set_up(false, "proxy.max_output=64kb");
    char *field = cleanup_alloc(1501);

    memset(field, 'f', 1500);
    field[1500] = '\0';
    expect(s.c, "+OK", "SET k v");
    redis_freeze(s.r);
    for (int i = 0; i < 300; i++) {
        cr_assert(client_command(s.c, "HEXISTS h %s", field));
    }
    nearside_await_info(s.n, "commands_batched", 100, 300, 5000);
    redis_thaw(s.r);
    expect_each(s.c, ":0", 300);
}

SCENARIO(batch, what_they_hold_is_charged_to_their_client)
{
    enum { ROUNDS = 100, COMMANDS = 4 * ROUNDS };
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "upstream.command_timeout=2s", "upstream.dead_after=60s", NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    for (int late = 0; late < 2; late++) {
        long long before = nearside_info(n, "commands_batched");
        redis_freeze(r);
        for (int i = 0; i < ROUNDS; i++) { /* reads and writes do not travel together */
            send_run(c, "SET k%d v%d", 2);
            send_run(c, "STRLEN k%d", 2);
        }
        nearside_await_info(n, "commands_batched", before + COMMANDS / 2, before + COMMANDS, 5000);
        nearside_await_info(n, "client_memory", COMMANDS * 1024LL, COMMANDS * 4096LL, 1000);
        if (late > 0) { /* each is told that its time is over */
            nearside_await_info(n, "command_timeouts", COMMANDS, COMMANDS, 8000);
        }
        redis_thaw(r);
        for (int i = 0; i < COMMANDS; i++) {
            expect_next(c, late > 0 ? "-UPSTREAM ..." : i % 4 < 2 ? "+OK" : ":2");
        }
        nearside_await_info(n, "client_memory", 0, 8192, 5000);
    }
}

SCENARIO(batch, window_counts_its_commands)
{
    struct stage s = set_up(false, "proxy.window=20");

    expect(s.c, "+OK", "SET k v");
    redis_freeze(s.r);
    send_run(s.c, "SET k%d v%d", 100);
    nearside_await_info(s.n, "l1_writes_in_flight", 20, 20, 5000);
    redis_thaw(s.r);
    expect_each(s.c, "+OK", 100);
    expect(s.c, "$v99", "GET k99");
    expect(s.c, "+PONG", "PING");
}
