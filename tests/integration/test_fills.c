/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fills.c: GETs that follow each other and miss are fetched together: what their client gets, what L1 has
 * afterwards, and what becomes of them when something goes wrong in between.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/fake.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <string.h>

TestSuite(fills);

#define KEYS 60
#define KB   ((size_t)1024)

struct stage {
    struct redis *r;
    struct relay *link;
    struct nearside *n;
    struct client *c;
};

static struct stage set_up(const char *set)
{
    struct stage s = {.r = redis_start(NULL)};
    s.link = relay_start(s.r->port, NULL);
    s.n = nearside_start(relay_port(s.link), "proxy.workers=1", "l1.max_item_size=16kb", set, NULL);
    nearside_await_fills(s.n);
    s.c = nearside_connect(s.n);
    for (int i = 0; i < KEYS; i++) {
        expect(s.r->direct, "+OK", "SET k%d value%d", i, i);
    }
    return s;
}

/* GETs of k<from> to k<to - 1>, at once. */
static void send_gets(struct client *c, int from, int to)
{
    const char *lines[KEYS + 1] = {NULL};
    cr_assert_leq(to - from, KEYS);
    for (int i = from; i < to; i++) {
        lines[i - from] = cleanup_printf("GET k%d", i);
    }
    cr_assert(client_send_lines(c, lines));
}

static void expect_values(struct client *c, int from, int to)
{
    for (int i = from; i < to; i++) {
        expect_next(c, cleanup_printf("$value%d", i));
    }
}

#define SEND(c, ...) cr_assert(client_send_lines(c, (const char *const[]){__VA_ARGS__, NULL}))

/* Holds what comes on the fill connection. Returns which link that is. */
static int hold_fill(const struct stage *s)
{
    nearside_await_fills(s->n);
    int fill = relay_find(s->link, "TRACKING");
    cr_assert_geq(fill, 0);
    relay_hold_link(s->link, fill, RELAY_DOWN);
    return fill;
}

static void await_no_leases(const struct stage *s)
{
    nearside_await_info(s->n, "l1_leases", 0, 0, 5000);
}

SCENARIO(fills, misses_of_a_pipeline_are_fetched_once_and_kept)
{
    struct stage s = set_up(NULL);
    for (int round = 0; round < 3; round++) {
        send_gets(s.c, 0, KEYS);
        expect_values(s.c, 0, KEYS);
    }
    await_no_leases(&s);
    cr_expect_eq(redis_calls(s.r, "get"), KEYS);
    cr_expect_eq(redis_calls(s.r, "pttl"), KEYS);
    cr_expect_eq(nearside_info(s.n, "l1_items"), KEYS);
    cr_expect_eq(nearside_info(s.n, "l1_hits") / KEYS, 2);
    cr_expect_geq(nearside_info(s.n, "commands_batched"), KEYS - 3, "they went together");
    expect(s.r->direct, "+OK", "SET k7 other");
    await_reply(s.c, "$other", 5000, "GET k7");
}

static void expect_null(struct client *c, int version)
{
    const struct reply *reply = client_reply(c);
    cr_assert(reply != NULL);
    cr_assert(version == 3 ? reply->type == '_' : reply->type == '$' && reply->null);
}

/* Whatever a GET may be answered with, in the encoding of its client, and kept as it may be. */
static void check_mixture(struct stage *s, int version)
{
    struct client *c = client_connect_as(s->n->port, version);
    for (int round = 0; round < 3; round++) {
        SEND(c, "GET k1", "GET none1", "GET list", "GET k2", "GET none2", "GET none3", "GET large",
             "GET k3", "GET list", "GET large", "GET k4", "GET none1");
        expect_next(c, "$value1");
        expect_null(c, version);
        expect_next(c, "-WRONGTYPE ...");
        expect_next(c, "$value2");
        expect_null(c, version);
        expect_null(c, version);
        cr_assert_eq(client_reply(c)->n, 17 * KB);
        expect_next(c, "$value3");
        expect_next(c, "-WRONGTYPE ...");
        cr_assert_eq(client_reply(c)->n, 17 * KB);
        expect_next(c, "$value4");
        expect_null(c, version);
    }
    client_close(c);
}

SCENARIO(fills, nulls_errors_and_large_values_have_their_place)
{
    struct stage s = set_up(NULL);
    expect(s.r->direct, ":1", "LPUSH list v");
    store_value(s.r->direct, "large", 17 * KB);
    for (int chop = 0; chop < 1000; chop = 3 * chop + 90) { /* replies come in such pieces */
        relay_chop(s.link, RELAY_DOWN, (size_t)chop);
        check_mixture(&s, 2);
        check_mixture(&s, 3);
        expect(s.c, "+OK", "FLUSHALL");
        for (int i = 0; i < KEYS; i++) {
            expect(s.c, "+OK", "SET k%d value%d", i, i);
        }
        expect(s.c, ":1", "LPUSH list v");
        store_value(s.c, "large", 17 * KB);
    }
    await_no_leases(&s);
}

SCENARIO(fills, replies_may_come_in_pieces_of_any_size)
{
    struct stage s = set_up(NULL);
    for (int chop = 1; chop < 56; chop += 4) {
        relay_chop(s.link, RELAY_DOWN, (size_t)chop);
        send_gets(s.c, chop, chop + 4);
        expect_values(s.c, chop, chop + 4);
    }
    send_gets(s.c, 1, KEYS);
    expect_values(s.c, 1, KEYS);
    cr_expect_eq(redis_calls(s.r, "get"), KEYS - 1);
}

SCENARIO(fills, each_is_kept_for_as_long_as_its_key_lives)
{
    struct stage s = set_up(NULL);
    expect(s.r->direct, ":1", "PEXPIRE k1 300");
    expect(s.r->direct, ":1", "PEXPIRE k3 100000");
    send_gets(s.c, 0, 5);
    expect_values(s.c, 0, 5);
    await_reply(s.c, "nil", 5000, "GET k1");
    long long gets = redis_calls(s.r, "get");
    send_gets(s.c, 2, 5);
    expect_values(s.c, 2, 5);
    expect(s.c, "$value0", "GET k0");
    cr_expect_eq(redis_calls(s.r, "get"), gets);
}

/* Of one client and of others: whoever asks meanwhile waits for the same fetch. */
SCENARIO(fills, a_key_is_fetched_once_however_many_ask)
{
    struct stage s = set_up(NULL);
    struct client *other = nearside_connect(s.n);
    expect(other, "+PONG", "PING");
    relay_delay(s.link, RELAY_DOWN, 200);
    send_gets(s.c, 0, 20);
    send_gets(s.c, 0, 20);
    nearside_await_info(s.n, "fetches", 20, 20, 5000);
    send_gets(other, 5, 25);
    expect_values(s.c, 0, 20);
    expect_values(s.c, 0, 20);
    expect_values(other, 5, 25);
    relay_delay(s.link, RELAY_DOWN, 0);
    cr_expect_eq(redis_calls(s.r, "get"), 25);
    cr_expect_geq(nearside_info(s.n, "l1_joins"), 15);
}

SCENARIO(fills, a_client_sees_its_own_writes_in_between)
{
    struct stage s = set_up(NULL);
    for (int i = 0; i < 50; i++) {
        expect(s.r->direct, "+OK", "MSET a%d 1 b%d 2 c%d 3", i, i, i);
        SEND(s.c, cleanup_printf("GET a%d", i), cleanup_printf("GET b%d", i),
             cleanup_printf("GET c%d", i), cleanup_printf("SET b%d 20", i),
             cleanup_printf("GET a%d", i), cleanup_printf("GET b%d", i),
             cleanup_printf("DEL c%d", i), cleanup_printf("GET c%d", i),
             cleanup_printf("GET b%d", i));
        static const char *const replies[] = {"$1",  "$2", "$3",  "+OK", "$1",
                                              "$20", ":1", "nil", "$20"};
        for (size_t k = 0; k < sizeof(replies) / sizeof(replies[0]); k++) {
            expect_next(s.c, replies[k]);
        }
    }
}

/* What was written between the value and its TTL is not kept. */
SCENARIO(fills, a_value_that_changes_on_its_way_is_not_kept)
{
    struct stage s = set_up(NULL);
    (void)hold_fill(&s);
    send_gets(s.c, 0, 10);
    redis_await_calls(s.r, "pttl", 10, 5000);
    expect(s.r->direct, "+OK", "SET k4 newer");
    relay_release(s.link);
    expect_values(s.c, 0, 10);
    expect(s.c, "$newer", "GET k4");
    long long gets = redis_calls(s.r, "get");
    send_gets(s.c, 5, 10);
    expect_values(s.c, 5, 10);
    cr_expect_eq(redis_calls(s.r, "get"), gets, "the others were");
}

SCENARIO(fills, a_lost_connection_costs_nothing_but_time)
{
    struct stage s = set_up(NULL);
    for (int round = 0; round < 4; round++) {
        nearside_await_fills(s.n);
        expect(s.r->direct, "+OK", "SET k1 value1"); /* and it is asked for */
        int fill = hold_fill(&s);
        long long reads = nearside_info(s.n, "forwarded_reads");
        long long gets = redis_calls(s.r, "get");
        send_gets(s.c, 15 * round, 15 * (round + 1));
        send_gets(s.c, 15 * round, 15 * (round + 1)); /* these wait for the same */
        redis_await_calls(s.r, "get", gets + 15, 5000);
        if (round % 2 == 1) { /* some replies, and half of one */
            relay_pass(s.link, fill, RELAY_DOWN, 50);
        }
        relay_cut_link(s.link, fill);
        expect_values(s.c, 15 * round, 15 * (round + 1));
        expect_values(s.c, 15 * round, 15 * (round + 1));
        cr_expect_geq(nearside_info(s.n, "forwarded_reads"), reads + 1);
        relay_release(s.link);
    }
    await_no_leases(&s);
    cr_expect_geq(nearside_info(s.n, "fetches_failed") / 15, 4);
}

SCENARIO(fills, what_takes_too_long_is_answered_with_an_error_each)
{
    struct stage s = set_up("upstream.command_timeout=300ms");
    struct client *other = nearside_connect(s.n);
    expect(other, "+PONG", "PING");
    (void)hold_fill(&s);
    send_gets(s.c, 0, 10);
    send_gets(s.c, 0, 10);
    for (int i = 0; i < 20; i++) {
        expect_next(s.c, cleanup_printf("-UPSTREAM 127.0.0.1:%d: no reply within 300 ms",
                                        relay_port(s.link)));
    }
    relay_release(s.link);
    await_no_leases(&s);
    send_gets(s.c, 0, 10);
    expect_values(s.c, 0, 10);
    send_gets(other, 0, 10);
    expect_values(other, 0, 10);
    cr_expect_eq(nearside_info(s.n, "command_timeouts"), 20);
}

SCENARIO(fills, whose_client_leaves_are_kept_for_others)
{
    struct stage s = set_up(NULL);
    struct client *other = nearside_connect(s.n);
    expect(other, "+PONG", "PING");
    relay_delay(s.link, RELAY_DOWN, 200);
    send_gets(s.c, 0, 20);
    nearside_await_info(s.n, "fetches", 20, 20, 5000);
    send_gets(other, 0, 20);
    client_reset(s.c);
    expect_values(other, 0, 20);
    relay_delay(s.link, RELAY_DOWN, 0);
    await_no_leases(&s);
    cr_expect_eq(nearside_info(s.n, "l1_items"), 20);
    cr_expect_eq(redis_calls(s.r, "get"), 20);
}

/* A large value that is asked for twice in a pipeline: the second GET waits for what the first one is part of. */
SCENARIO(fills, a_large_value_in_the_middle_holds_nobody_up_for_good)
{
    struct stage s = set_up(NULL);
    store_value(s.r->direct, "large", 3 * KB * KB);
    for (int i = 0; i < 3; i++) {
        struct client *c = nearside_connect(s.n);
        SEND(c, "GET k1", "GET large", "GET k2", "GET large", "GET large", "GET k3");
        expect_next(c, "$value1");
        cr_assert_eq(client_reply(c)->n, 3 * KB * KB);
        expect_next(c, "$value2");
        cr_assert_eq(client_reply(c)->n, 3 * KB * KB);
        cr_assert_eq(client_reply(c)->n, 3 * KB * KB);
        expect_next(c, "$value3");
        client_close(c);
    }
    await_no_leases(&s);
    send_gets(s.c, 0, KEYS);
    expect_values(s.c, 0, KEYS);
}

/* What is in L1 is answered from there, in its turn, though something of the client is unanswered. */
SCENARIO(fills, hits_behind_an_unanswered_write_are_hits)
{
    struct stage s = set_up(NULL);
    send_gets(s.c, 0, 20);
    expect_values(s.c, 0, 20);
    await_no_leases(&s);
    for (int round = 0; round < 5; round++) {
        long long hits = nearside_info(s.n, "l1_hits");
        long long gets = redis_calls(s.r, "get");
        relay_delay(s.link, RELAY_DOWN, 100);
        SEND(s.c, cleanup_printf("SET other v%d", round), "GET k0", "GET k1", "GET k2",
             cleanup_printf("SET k3 new%d", round), "GET k2", "GET k3", "GET k4", "GET other",
             "GET k5", "GET k6");
        expect_next(s.c, "+OK");
        expect_values(s.c, 0, 3);
        expect_next(s.c, "+OK");
        expect_values(s.c, 2, 3);
        expect_next(s.c, cleanup_printf("$new%d", round));
        expect_values(s.c, 4, 5);
        expect_next(s.c, cleanup_printf("$v%d", round));
        expect_values(s.c, 5, 7);
        relay_delay(s.link, RELAY_DOWN, 0);
        await_no_leases(&s);
        cr_expect_geq(nearside_info(s.n, "l1_hits"), hits + 7);
        cr_expect_leq(redis_calls(s.r, "get"), gets + 4, "the written keys, and those only");
    }
}

/* The values are there, and one of them is not kept, but the TTLs are not. */
SCENARIO(fills, a_connection_lost_before_the_ttls_costs_nothing)
{
    struct stage s = set_up(NULL);
    const size_t value = sizeof("$6\r\nvalue1\r\n") - 1;
    const size_t large = sizeof("$17408\r\n") - 1 + 17 * KB + 2;
    store_value(s.r->direct, "large0", 17 * KB);
    store_value(s.r->direct, "large1", 17 * KB);
    for (int round = 0; round < 2; round++) {
        nearside_await_fills(s.n);
        expect(s.r->direct, "+OK", "SET k1 value1");
        expect(s.r->direct, "+OK", "SET k2 value2");
        await_reply(s.r->direct, "$value2", 1000, "GET k2");
        int fill = hold_fill(&s);
        long long ttls = redis_calls(s.r, "pttl");
        SEND(s.c, cleanup_printf("GET k5%d", round), cleanup_printf("GET large%d", round),
             cleanup_printf("GET k4%d", round));
        redis_await_calls(s.r, "pttl", ttls + 3, 5000);
        relay_pass(s.link, fill, RELAY_DOWN, 2 * (value + 1) + large);
        expect_next(s.c, cleanup_printf("$value5%d", round));
        cr_assert_eq(client_reply(s.c)->n, 17 * KB);
        expect_next(s.c, cleanup_printf("$value4%d", round));
        relay_cut_link(s.link, fill);
        relay_release(s.link);
        expect(s.c, "+PONG", "PING");
        await_no_leases(&s);
    }
}

/* Among values, also such as are too large to be kept; and everything after it is asked for again. */
SCENARIO(fills, what_is_no_value_is_not_taken_for_one)
{
    static char large[2048 + 16];
    static struct fake_rule rules[] = {
        {"GET k5", ":5\r\n", 0, FAKE_KEEP},     {"GET k6", "+six\r\n", 0, FAKE_KEEP},
        {"GET k7", ":7\r\n", 0, FAKE_KEEP},     {"GET k1", large, 0, FAKE_KEEP},
        {"PTTL k9", "+nine\r\n", 0, FAKE_KEEP}, {NULL, NULL, 0, FAKE_KEEP},
    };
    (void)snprintf(large, sizeof(large), "$2048\r\n%02048d\r\n", 0);
    struct fake *f = fake_start(rules);
    struct nearside *n =
        nearside_start(fake_port(f), "proxy.workers=1", "l1.max_item_size=1kb", NULL);
    struct client *c = nearside_connect(n);
    for (int from = 0; from < 5; from++) {
        nearside_await_fills(n);
        send_gets(c, from, 10);
        for (int i = from; i < 10; i++) {
            const struct reply *reply = client_reply(c);
            cr_assert(reply != NULL);
            cr_expect_eq(reply->type,
                         i == 5 || i == 7 ? ':'
                         : i == 6         ? '+'
                                          : '$',
                         "%d of %d", i, from);
            cr_expect_eq(reply->n, i == 1 ? 2048 : i == 6 ? 3 : i == 5 || i == 7 ? reply->n : 5);
        }
    }
    nearside_await_log(n, "a GET's reply is no value");
    expect(c, "$value", "GET other");
}

SCENARIO(fills, a_client_that_reads_may_ask_for_as_much_as_it_likes)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", "proxy.max_output=256kb", NULL);
    struct client *c = nearside_connect(n);
    nearside_await_fills(n);
    for (int round = 0; round < 10; round++) {
        expect(r->direct, "+OK", "FLUSHALL");
        for (int i = 1; i < 21; i++) {
            store_value(r->direct, cleanup_printf("k%d", i), 12 * KB);
        }
        send_gets(c, 0, 21);
        expect_next(c, "nil");
        for (int i = 1; i < 21; i++) {
            cr_assert_eq(client_reply(c)->n, 12 * KB);
        }
    }
    cr_expect_eq(nearside_info(n, "clients_closed_output"), 0);
}
