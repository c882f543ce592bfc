/* SPDX-License-Identifier: Apache-2.0
 *
 * test_order.c: the commands of one connection take effect in the order they were sent, also when
 * the connection to Redis dies under them, and keeping them in order costs no more for one key than
 * for many.
 *
 * Replies are lost like this: the relay holds what comes from Redis, a pipeline is sent, the test
 * waits until Redis has executed all of it, and the relay cuts the links. So a read that is sent
 * again is executed behind everything that stood behind it.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <stdlib.h>

TestSuite(order);

/* ---- Replies that are lost ------------------------------------------------------------------ */

#define LOST  "-UPSTREAM ..."
#define STEPS 5

struct step {
    const char *line, *want;
};

struct chain_of_links {
    struct redis *redis;
    struct relay *link;
    struct nearside *proxy;
};

static struct chain_of_links start_behind_relay(void)
{
    struct chain_of_links all;

    all.redis = redis_start(NULL);
    all.link = relay_start(all.redis->port, NULL);
    all.proxy = nearside_start(relay_port(all.link), NULL);
    return all;
}

/* Sends the steps as one pipeline whose replies are all lost, and compares what the client gets. */
static void lose_replies(const struct chain_of_links *all, const struct step *steps)
{
    struct client *c = nearside_connect(all->proxy);

    await_reply(c, "+OK", 5000, "FLUSHALL");
    relay_hold(all->link, RELAY_DOWN, false);
    for (int i = 0; i < STEPS && steps[i].line != NULL; i++) {
        cr_assert(client_command(c, "%s", steps[i].line));
    }
    cr_assert(client_command(c, "INCR executed"));
    await_reply(all->redis->direct, "$1", 5000, "GET executed");
    relay_cut(all->link, false);
    relay_release(all->link);
    for (int i = 0; i < STEPS && steps[i].line != NULL; i++) {
        const char *got = client_read(c);
        cr_assert(matches(got, steps[i].want),
                  "%s, then %s ...: step %d is answered '%s', not '%s'", steps[0].line,
                  steps[1].line, i + 1, got, steps[i].want);
    }
    expect_next(c, LOST);
    client_close(c);
}

SCENARIO(order, a_read_is_not_sent_again_behind_a_later_write_of_its_key)
{
    static const struct step lost[][STEPS] = {
        {{"SET k 1", LOST}, {"GET k", LOST}, {"SET k 2", LOST}},
        {{"SET k 1", LOST}, {"GET k", LOST}, {"DEL k", LOST}},
        {{"STRLEN k", LOST}, {"APPEND k abc", LOST}},
        {{"EXISTS a k", LOST}, {"MSET b 1 k 2", LOST}},
        {{"SET a 1", LOST}, {"MGET a b", LOST}, {"SET b 2", LOST}},
        {{"SET k 1", LOST}, {"GET k", LOST}, {"SET other 2", LOST}, {"SET k 3", LOST}},
        {{"SET k 1", LOST}, {"GET k", LOST}, {"EVAL 'redis.call(\"SET\",\"k\",\"2\")' 0", LOST}},
    };
    struct chain_of_links all = start_behind_relay();

    for (size_t i = 0; i < sizeof(lost) / sizeof(lost[0]); i++) {
        lose_replies(&all, lost[i]);
    }
    cr_assert_eq(nearside_info(all.proxy, "resends"), 0);
    nearside_await_info(all.proxy, "l1_writes_in_flight", 0, 0, 3000);
}

SCENARIO(order, a_read_without_a_later_write_of_its_key_is_sent_again_and_answered)
{
    static const struct step answered[][STEPS] = {
        {{"SET k 1", LOST}, {"GET k", "$1"}},
        {{"SET k 1", LOST}, {"GET k", "$1"}, {"SET other 2", LOST}},
        {{"SET k 1", LOST}, {"GET k", LOST}, {"SET k 2", LOST}, {"GET k", "$2"}},
        {{"SET k abc", LOST}, {"STRLEN k", ":3"}, {"GET k", "$abc"}},
        {{"SET a 1", LOST}, {"MGET a b", "[$1 nil]"}, {"SET c 2", LOST}},
    };
    struct chain_of_links all = start_behind_relay();

    for (size_t i = 0; i < sizeof(answered) / sizeof(answered[0]); i++) {
        lose_replies(&all, answered[i]);
    }
    /* the second GET of a client waited here for the SET in front of it (echo.h), and was sent once */
    cr_assert_eq(nearside_info(all.proxy, "resends"), 5);
}

/* ---- What order costs ----------------------------------------------------------------------- */

#define WRITES 600

/* An MSET of 1000 keys of four letters: all the same, or all different. */
static char *mset(bool same, size_t *size)
{
    char *line = NULL;
    size_t n;
    FILE *out = open_memstream(&line, &n);

    fputs("MSET", out);
    for (int i = 0; i < 1000; i++) {
        fprintf(out, " k%03d v", same ? 7 : i);
    }
    fclose(out);
    char *bytes = command_bytes(line, size);
    free(line);
    return bytes;
}

struct cost {
    int64_t all;   /* ms until everything was answered */
    int64_t other; /* the longest another client waited for what is answered here, in ms */
};

/* Piles writes up before a Redis that stands still, then lets it go. */
static struct cost pile_up(struct redis *r, struct nearside *n, bool same)
{
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);
    struct cost cost = {0, 0};
    size_t size;
    char *bytes = mset(same, &size);

    expect(other, ":...", "CLIENT ID");
    redis_freeze(r);
    int64_t started = now_ms();
    for (int i = 0; i < WRITES; i++) {
        cr_assert(client_send(c, bytes, size), "stuck after %d writes", i);
        if (i % 20 == 0 || i == WRITES - 1) {
            int64_t asked = now_ms();
            expect(other, ":...", "CLIENT ID");
            cost.other = now_ms() - asked > cost.other ? now_ms() - asked : cost.other;
        }
    }
    redis_thaw(r);
    for (int i = 0; i < WRITES; i++) {
        expect_next(c, "+OK");
    }
    cost.all = now_ms() - started;
    free(bytes);
    client_close(c);
    client_close(other);
    return cost;
}

SCENARIO(order, writes_of_one_key_that_pile_up_cost_no_more_than_writes_of_many)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "proxy.workers=1", "upstream.dead_after=30s", NULL);
    struct cost many = pile_up(r, n, false);
    struct cost one = pile_up(r, n, true);

    cr_assert(one.all < 3 * many.all + 500, "%d writes of one key took %lld ms, of many %lld ms",
              WRITES, (long long)one.all, (long long)many.all);
    cr_assert(one.other < 3 * many.other + 200,
              "another client waited for %lld ms; behind writes of many keys for %lld ms",
              (long long)one.other, (long long)many.other);
    nearside_await_info(n, "l1_writes_in_flight", 0, 0, 3000);
}

/* ---- Across keys (proxy.order) --------------------------------------------------------------- */

/* y is in L1. SET x, GET y are sent while nothing gets through to Redis on the lane; meanwhile somebody
 * else changes y, and L1 has heard of it. Does the GET, which was sent behind the SET, see the change? */
static const char *read_behind_held_write(const char *order)
{
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, "lane-mark");
    struct nearside *n = nearside_start(relay_port(link), "proxy.workers=1", order, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET lane-mark 1");
    expect(c, "+OK", "SET y old");
    nearside_await_fills(n);
    expect(c, "$old", "GET y");
    expect(c, "$old", "GET y");
    relay_hold(link, RELAY_UP, true);
    long long heard = nearside_info(n, "invalidations_received");
    cr_assert(client_command(c, "SET x 1"));
    cr_assert(client_command(c, "GET y"));
    nearside_await_info(n, "l1_writes_in_flight", 1, 1, 5000);
    expect(r->direct, "+OK", "SET y new");
    nearside_await_info(n, "invalidations_received", heard + 1, INT64_MAX, 5000);
    relay_release(link);
    expect_next(c, "+OK");
    return client_read(c);
}

SCENARIO(order, strict_is_across_keys)
{
    cr_expect_str_eq(read_behind_held_write("proxy.order=strict"), "$new");
}

SCENARIO(order, reads_of_other_keys_do_not_wait_for_writes)
{
    cr_expect_str_eq(read_behind_held_write("proxy.order=key"), "$old");
}

SCENARIO(order, behind_a_reset_nothing_is_subscribed_to)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int version = 2; version <= 3; version++) {
        struct client *c = nearside_connect(n);
        for (int i = 0; i < 20; i++) {
            (void)ask(c, "HELLO %d", version);
            cr_assert(client_send_text(c, "SUBSCRIBE ch\r\nRESET\r\nPUBLISH ch x\r\n"
                                          "CLIENT REPLY OFF\r\nWATCH k\r\nRESET\r\n"
                                          "PUBSUB NUMSUB ch\r\n"));
            expect_next(c, version == 2 ? "[$subscribe $ch :1]" : ">[$subscribe $ch :1]");
            expect_next(c, "+RESET");
            expect_next(c, ":0");
            expect_next(c, "+RESET");
            expect_next(c, "[$ch :0]");
        }
    }
}

/* What arrives in one turn: Nearside stands still while two clients send. */
SCENARIO(order, commands_of_two_clients_leave_as_they_came)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *first = nearside_connect(n);
    struct client *second = nearside_connect(n);

    nearside_await_fills(n);
    expect(first, "[$psubscribe $other :1]", "PSUBSCRIBE other"); /* its connection is up */
    expect(first, "[$punsubscribe $other :0]", "PUNSUBSCRIBE other");
    expect(second, "+OK", "SET k old");
    for (int i = 0; i < 20; i++) {
        expect(first, "+OK", "MULTI");
        expect(first, "+QUEUED", "GET k");
        process_freeze(n->process);
        cr_assert(client_command(first, "EXEC"));
        cr_assert(client_command(second, "SET k new"));
        process_thaw(n->process);
        expect_next(first, "[$old]");
        expect_next(second, "+OK");

        expect(first, "[$psubscribe $c* :1]", "PSUBSCRIBE c*");
        process_freeze(n->process);
        cr_assert(client_command(first, "PUNSUBSCRIBE"));
        cr_assert(client_command(second, "PUBLISH channel x"));
        process_thaw(n->process);
        expect_next(first, "[$punsubscribe $c* :0]");
        expect_next(second, ":0");

        process_freeze(n->process);
        cr_assert(client_command(first, "SET new%d v", i));
        cr_assert(client_command(second, "GET new%d", i));
        process_thaw(n->process);
        expect_next(first, "+OK");
        expect_next(second, "$v");
        expect(second, "+OK", "SET k old");
    }
}
