/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pubsub.c: SUBSCRIBE and its kin in both protocols: compared with a direct
 * connection, and nothing of them is left behind when the client goes.
 */
#include "../support/await.h"
#include "../support/fake.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <string.h>

/* ---- As on a direct connection --------------------------------------------------------------- */

/* Lines, and how many replies and messages they bring. "!" is said by somebody else at the server. */
struct step {
    const char *line;
    int comes[2]; /* in version 2, in version 3 */
};

static const struct step subscriptions[] = {
    {"SUBSCRIBE a", {1, 1}},
    {"!PUBLISH a one", {1, 1}},
    {"!PUBLISH b none", {0, 0}},
    {"SUBSCRIBE a b a", {3, 3}},
    {"!PUBLISH b two", {1, 1}},
    {"PSUBSCRIBE a* *", {2, 2}},
    {"!PUBLISH a three", {3, 3}},
    {"!PUBLISH c ''", {1, 1}},
    {"SSUBSCRIBE s t", {2, 2}},
    {"!SPUBLISH s four", {1, 1}},
    {"PING", {1, 1}},
    {"PING text", {1, 1}},
    {"GET k", {1, 1}},
    {"SET k v", {1, 1}},
    {"MULTI", {1, 1}},
    {"DISCARD", {1, 1}},
    {"CLIENT GETNAME", {1, 1}},
    {"SELECT 1", {1, 1}},
    {"SELECT 0", {1, 1}},
    {"NOSUCH", {1, 1}},
    {"ECHO x", {1, 1}},
    {"SUBSCRIBE", {1, 1}},
    {"PSUBSCRIBE", {1, 1}},
    {"UNSUBSCRIBE nosuch", {1, 1}},
    {"UNSUBSCRIBE a a", {2, 2}},
    {"!PUBLISH a five", {2, 2}},
    {"PUNSUBSCRIBE", {2, 2}},
    {"PUNSUBSCRIBE", {1, 1}},
    {"!PUBLISH a none", {0, 0}},
    {"SUNSUBSCRIBE s", {1, 1}},
    {"UNSUBSCRIBE", {1, 1}},
    {"UNSUBSCRIBE", {1, 1}},
    {"SUNSUBSCRIBE", {1, 1}},
    {"SUNSUBSCRIBE", {1, 1}},
    {"GET k", {1, 1}},
    {"PING", {1, 1}},
    {"SUBSCRIBE a b c", {3, 3}},
    {"UNSUBSCRIBE c b a", {3, 3}},
    {"CLIENT GETNAME", {1, 1}},
    {"UNSUBSCRIBE", {1, 1}},
    {"PUNSUBSCRIBE x y", {2, 2}},
    {"SET k w", {1, 1}},
    {"GET k", {1, 1}},
};

static void compare_subscriptions(int version)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *direct = client_connect_as(r->port, version);
    struct client *c = client_connect_as(n->port, version);

    for (size_t i = 0; i < sizeof(subscriptions) / sizeof(subscriptions[0]); i++) {
        const struct step *step = &subscriptions[i];
        if (step->line[0] == '!') {
            (void)ask(r->direct, "%s", step->line + 1);
        } else {
            cr_assert(client_command(direct, "%s", step->line));
            cr_assert(client_command(c, "%s", step->line));
        }
        for (int k = 0; k < step->comes[version - 2]; k++) {
            const char *want = client_read(direct);
            const char *got = client_read(c);
            cr_assert_str_eq(got, want, "%s (%zu): a direct connection gets '%s', here it is '%s'",
                             step->line, i, want, got);
        }
    }
    cr_assert(!client_readable(c, 20) && !client_readable(direct, 0), "more than expected");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(pubsub, a_subscriber_of_version_2_sees_what_redis_would_show_it)
{
    compare_subscriptions(2);
}

SCENARIO(pubsub, a_subscriber_of_version_3_sees_what_redis_would_show_it)
{
    compare_subscriptions(3);
}

SCENARIO(pubsub, subscriptions_in_one_pipeline_are_confirmed_in_order)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int version = 2; version <= 3; version++) {
        struct client *c = client_connect_as(n->port, version);
        const char *mark = version == 3 ? ">" : "";
        for (int i = 0; i < 50; i++) {
            cr_assert(client_send_text(c,
                                       "SET k v\r\nSUBSCRIBE a b\r\nPSUBSCRIBE p*\r\n"
                                       "UNSUBSCRIBE a\r\nUNSUBSCRIBE\r\nPUNSUBSCRIBE\r\nGET k\r\n"
                                       "DEL k\r\n"));
        }
        for (int i = 0; i < 50; i++) {
            expect_next(c, "+OK");
            expect_next(c, cleanup_printf("%s[$subscribe $a :1]", mark));
            expect_next(c, cleanup_printf("%s[$subscribe $b :2]", mark));
            expect_next(c, cleanup_printf("%s[$psubscribe $p* :3]", mark));
            expect_next(c, cleanup_printf("%s[$unsubscribe $a :2]", mark));
            expect_next(c, cleanup_printf("%s[$unsubscribe $b :1]", mark));
            expect_next(c, cleanup_printf("%s[$punsubscribe $p* :0]", mark));
            expect_next(c, "$v");
            expect_next(c, ":1");
        }
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(pubsub, many_channels_are_subscribed_to_and_left_at_once)
{
    enum { CHANNELS = 2000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    char *line = cleanup_alloc(CHANNELS * 16);
    size_t at = (size_t)sprintf(line, "SUBSCRIBE");

    for (int i = 0; i < CHANNELS; i++) {
        at += (size_t)sprintf(line + at, " ch%d", i);
    }
    cr_assert(client_command(c, "%s", line));
    for (int i = 0; i < CHANNELS; i++) {
        expect_next(c, cleanup_printf("[$subscribe $ch%d :%d]", i, i + 1));
    }
    cr_assert(client_send_text(c, "UNSUBSCRIBE\r\nPING\r\n"));
    for (int i = CHANNELS - 1; i >= 0; i--) {
        const char *got = client_read(c);
        char end[16];
        snprintf(end, sizeof(end), " :%d]", i);
        cr_assert(strncmp(got, "[$unsubscribe $ch", 17) == 0 && strstr(got, end) != NULL, "%s",
                  got);
    }
    expect_next(c, "+PONG");
}

SCENARIO(pubsub, messages_of_any_size_and_content_arrive_in_order)
{
    enum { SIZE = 300 * 1024 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    char *text = cleanup_alloc(SIZE);

    for (int i = 0; i < SIZE; i++) {
        text[i] = "*3\r\n$7\r\nmessage\r\n>+-:$"[i % 23];
    }
    for (int version = 2; version <= 3; version++) {
        struct client *c = client_connect_as(n->port, version);
        (void)ask(c, "SUBSCRIBE ch");
        for (int round = 0; round < 3; round++) {
            for (size_t size = 0; size < SIZE; size = size * 3 + 1) {
                cr_assert(client_command_big(r->direct, "PUBLISH ch", text, size));
                expect_next(r->direct, ":1");
            }
        }
        for (int round = 0; round < 3; round++) {
            for (size_t size = 0; size < SIZE; size = size * 3 + 1) {
                const struct reply *m = client_reply(c);
                cr_assert(m->type == (version == 3 ? '>' : '*') && m->items == 3);
                cr_assert_str_eq(m->item[0]->text, "message");
                cr_assert(m->item[2]->n == size && memcmp(m->item[2]->text, text, size) == 0);
            }
        }
        client_close(c);
        await_reply(r->direct, "[$ch :0]", 5000, "PUBSUB NUMSUB ch");
    }
}

/* Redis 7.0 says the message before the count, newer servers behind it. */
SCENARIO(pubsub, who_publishes_to_itself_gets_message_and_count_in_the_order_of_redis)
{
    enum { TIMES = 50 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    const int ports[] = {r->port, n->port};
    const char *got[] = {"", ""};

    for (int k = 0; k < 2; k++) {
        struct client *c = client_connect_as(ports[k], 3);
        expect(c, ">[$subscribe $ch :1]", "SUBSCRIBE ch");
        for (int i = 0; i < TIMES; i++) {
            cr_assert(client_command(c, "SET k %d", i));
            cr_assert(client_command(c, "PUBLISH ch %d", i));
            cr_assert(client_command(c, "GET k"));
        }
        for (int i = 0; i < 4 * TIMES; i++) {
            got[k] = cleanup_printf("%s%s\n", got[k], client_read(c));
        }
        client_close(c);
        await_reply(r->direct, "[$ch :0]", 5000, "PUBSUB NUMSUB ch");
    }
    cr_assert_str_eq(got[1], got[0]);
    cr_assert_not_null(strstr(got[0], ">[$message $ch $49]\n"));
}

SCENARIO(pubsub, a_subscriber_of_version_3_goes_on_working_as_before)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = client_connect_as(n->port, 3);
    struct client *other = nearside_connect(n);

    expect(c, ">[$subscribe $ch :1]", "SUBSCRIBE ch");
    for (int i = 0; i < 50; i++) {
        expect(other, "+OK", "SET k %d", i);
        expect(c, cleanup_printf("$%d", i), "GET k");
        expect(c, "+OK", "SET k2 %d", i);
        expect(other, cleanup_printf("$%d", i), "GET k2");
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "INCR k");
        expect(c, cleanup_printf("[:%d]", i + 1), "EXEC");
        expect(c, "_", "BLPOP none 0.01");
        expect(c, "+OK", "SELECT 1");
        expect(c, "_", "GET k");
        expect(c, "+OK", "SELECT 0");
        expect(c, "=txt:# Server...", "INFO server");
        expect(c, "[$server...", "HELLO 2");
        expect(c, "-ERR Can't execute 'get'...", "GET k");
        expect(other, ":1", "PUBLISH ch x");
        expect_next(c, "[$message $ch $x]");
        expect(c, "-ERR Can't execute 'hello'...", "HELLO 3");
        expect(c, "[$unsubscribe $ch :0]", "UNSUBSCRIBE ch");
        expect(c, "%[$server...", "HELLO 3");
        expect(c, ">[$subscribe $ch :1]", "SUBSCRIBE ch");
    }
}

SCENARIO(pubsub, a_subscriber_of_version_2_that_tries_a_transaction_can_still_unsubscribe)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "[$subscribe $a :1]", "SUBSCRIBE a");
    expect(c, "-ERR Can't execute 'multi'...", "MULTI");
    expect(c, "[$subscribe $b :2]", "SUBSCRIBE b");
    cr_assert(client_send_text(c, "MULTI\r\nWATCH k\r\nUNSUBSCRIBE a b\r\nCLIENT GETNAME\r\n"));
    expect_next(c, "-ERR Can't execute 'multi'...");
    expect_next(c, "-ERR Can't execute 'watch'...");
    expect_next(c, "[$unsubscribe $a :1]");
    expect_next(c, "[$unsubscribe $b :0]");
    expect_next(c, "nil");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(pubsub, a_multi_that_is_refused_is_none_while_keys_are_watched)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "WATCH k");
    expect(c, "-ERR wrong number...", "MULTI foo");
    expect(c, "nil", "CLIENT GETNAME");
    cr_assert(client_send_text(c, "MULTI foo\r\nCLIENT GETNAME\r\nPING\r\n"));
    expect_next(c, "-ERR wrong number...");
    expect_next(c, "nil");
    expect_next(c, "+PONG");
    expect(c, "[$subscribe $a :1]", "SUBSCRIBE a");
    expect(c, "[$unsubscribe $a :0]", "UNSUBSCRIBE a");
    expect(c, "+OK", "UNWATCH");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(pubsub, a_reply_that_looks_like_a_message_is_one_to_nobody)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(r->direct, ":3", "RPUSH l message ch text");
    expect(r->direct, ":3", "RPUSH u unsubscribe ch 0");
    expect(c, "+OK", "WATCH k");
    expect(c, "[$subscribe $a :1]", "SUBSCRIBE a");
    expect(c, "[$unsubscribe $a :0]", "UNSUBSCRIBE a");
    expect(c, "[$message $ch $text]", "LRANGE l 0 -1");
    expect(c, "[$unsubscribe $ch $0]", "LRANGE u 0 -1");
    expect(c, "+PONG", "PING");
    expect(c, "+OK", "UNWATCH");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(pubsub, a_refused_subscription_is_answered_once)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    expect(r->direct, "+OK", "ACL SETUSER default resetchannels &good*");
    for (int version = 2; version <= 3; version++) {
        struct client *c = client_connect_as(n->port, version);
        expect(c, "-NOPERM...", "SUBSCRIBE bad1 bad2");
        expect(c, "-NOPERM...", "PSUBSCRIBE *");
        expect(c, "-ERR wrong number...", "SUBSCRIBE");
        expect(c, "+PONG", "PING");
        expect(c, version == 3 ? ">[$subscribe $good :1]" : "[$subscribe $good :1]",
               "SUBSCRIBE good");
        expect(c, "-NOPERM...", "SUBSCRIBE bad");
        expect(c, version == 3 ? ">[$unsubscribe $good :0]" : "[$unsubscribe $good :0]",
               "UNSUBSCRIBE");
        expect(c, "+PONG", "PING");
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

/* ---- Nothing is left behind ------------------------------------------------------------------- */

SCENARIO(pubsub, who_leaves_is_forgotten_by_redis)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int i = 0; i < 12; i++) {
        struct client *c = client_connect_as(n->port, 2 + i % 2);
        (void)ask(c, "SUBSCRIBE ch");
        (void)ask(c, "PSUBSCRIBE p*");
        (void)ask(c, "SSUBSCRIBE s");
        expect(r->direct, "[$ch :1]", "PUBSUB NUMSUB ch");
        expect(r->direct, ":1", "PUBSUB NUMPAT");
        expect(r->direct, "[$s :1]", "PUBSUB SHARDNUMSUB s");
        switch (i / 2) {
        case 0:
            client_close(c);
            break;
        case 1:
            client_reset(c);
            break;
        case 2:
            expect(c, "+RESET", "RESET");
            expect(c, "nil", "GET k");
            break;
        case 3:
            expect(c, "+OK", "QUIT");
            expect_next(c, "closed");
            break;
        case 4:
            client_shutdown(c);
            expect_next(c, "closed");
            break;
        default:
            (void)ask(c, "UNSUBSCRIBE");
            (void)ask(c, "PUNSUBSCRIBE");
            (void)ask(c, "SUNSUBSCRIBE");
            break;
        }
        await_reply(r->direct, "[$ch :0]", 5000, "PUBSUB NUMSUB ch");
        await_reply(r->direct, ":0", 5000, "PUBSUB NUMPAT");
        await_reply(r->direct, "[$s :0]", 5000, "PUBSUB SHARDNUMSUB s");
        nearside_await_info(n, "pinned_connections", 0, 0, 2000);
    }
    const char *list = ask(r->direct, "CLIENT LIST TYPE pubsub");
    cr_assert_str_eq(list, "$", "%s", list);
}

SCENARIO(pubsub, subscribers_are_bounded_and_told_at_once)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.max_pinned=3", NULL);
    struct client *c[4];

    for (int i = 0; i < 4; i++) {
        c[i] = client_connect_as(n->port, 2 + i % 2);
    }
    expect(c[0], "[$subscribe $ch :1]", "SUBSCRIBE ch");
    expect(c[1], ">[$psubscribe $ch* :1]", "PSUBSCRIBE ch*");
    expect(c[2], "+OK", "MONITOR");
    expect(c[3], "-ERR too many clients need a connection of their own...", "SUBSCRIBE ch");
    expect(c[3], "-ERR too many...", "MONITOR");
    expect(c[3], "-ERR too many...", "WAIT 0 0");
    expect(c[3], "+PONG", "PING");
    expect(c[0], "[$unsubscribe $ch :0]", "UNSUBSCRIBE");
    expect(c[3], ">[$subscribe $ch :1]", "SUBSCRIBE ch");
}

SCENARIO(pubsub, a_restart_of_redis_closes_its_subscribers)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c[3] = {client_connect_as(n->port, 2), client_connect_as(n->port, 3),
                           client_connect_as(n->port, 2)};
    struct client *other = nearside_connect(n);

    (void)ask(c[0], "SUBSCRIBE ch");
    (void)ask(c[1], "SUBSCRIBE ch");
    expect(c[2], "+OK", "MONITOR");
    redis_restart(r);
    for (int i = 0; i < 3; i++) {
        cr_assert(client_drain_to_end(c[i]), "a subscriber is not told");
    }
    await_reply(other, "+OK", 5000, "SET k v");
    struct client *again = nearside_connect(n);
    await_reply(again, "[$subscribe $ch :1]", 5000, "SUBSCRIBE ch");
    expect(other, ":1", "PUBLISH ch x");
    expect_next(again, "[$message $ch $x]");
}

SCENARIO(pubsub, idle_subscribers_and_blocked_clients_are_not_closed)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.timeout=1s", NULL);
    struct client *c[4];
    struct client *idle = nearside_connect(n);

    for (int i = 0; i < 4; i++) {
        c[i] = client_connect_as(n->port, 2 + i % 2);
    }
    (void)ask(c[0], "SUBSCRIBE ch");
    (void)ask(c[1], "SUBSCRIBE ch");
    expect(c[2], "+OK", "MONITOR");
    cr_assert(client_command(c[3], "BLPOP list 0"));
    expect_next(idle, "closed");
    pass_time(1500); /* longer again than what closed the idle one */
    expect(r->direct, ":2", "PUBLISH ch x");
    expect_next(c[0], "[$message $ch $x]");
    expect_next(c[1], ">[$message $ch $x]");
    expect_next(c[2], "+...");
    expect(r->direct, ":1", "RPUSH list a");
    expect_next(c[3], "[$list $a]");
}

SCENARIO(pubsub, a_subscriber_that_redis_drops_is_dropped_here)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c[2] = {client_connect_as(n->port, 2), client_connect_as(n->port, 3)};
    struct client *other = nearside_connect(n);

    (void)ask(c[0], "SUBSCRIBE ch");
    (void)ask(c[1], "PSUBSCRIBE ch");
    expect(r->direct, ":2", "CLIENT KILL TYPE pubsub");
    expect_next(c[0], "closed");
    expect_next(c[1], "closed");
    expect(other, "+OK", "SET k v");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(pubsub, without_a_server_a_subscription_is_an_error)
{
    static const char *const lines[] = {"SUBSCRIBE a b", "PSUBSCRIBE a", "UNSUBSCRIBE", "MONITOR",
                                        "WAIT 0 0"};
    struct nearside *n = nearside_start(free_port(), NULL);
    struct client *c = nearside_connect(n);

    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
            expect(c, "-UPSTREAM ...", "%s", lines[i]);
            expect(c, "+PONG", "PING");
        }
    }
    expect(c, "-UPSTREAM ...", "HELLO 3");
    expect(c, "+OK", "CLIENT SETNAME x");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(pubsub, a_user_that_may_not_say_client_can_subscribe)
{
    struct redis *r = redis_start(NULL);

    expect(r->direct, "+OK", "ACL SETUSER near on >pass ~* &* +@all -client");
    struct nearside *n =
        nearside_start(r->port, "upstream.user=near", "upstream.password=pass", NULL);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);
    const char *id = cleanup_printf("%s", ask(c, "CLIENT ID") + 1);

    await_reply(other, "+OK", 5000, "SET k v");
    expect(c, "[$subscribe $ch :1]", "SUBSCRIBE ch");
    expect(other, ":1", "PUBLISH ch x");
    expect_next(c, "[$message $ch $x]");
    expect(c, "[$unsubscribe $ch :0]", "UNSUBSCRIBE");
    cr_assert(client_command(c, "BLPOP none 1"));
    expect(other, ":0", "CLIENT UNBLOCK %s", id);
    expect_next(c, "nil array");
}

/* ---- What is in the middle of something --------------------------------------------------------- */

/* Byte by byte, so that what the client says comes while the message is on its way. */
static struct fake *fake_slow_message(void)
{
    enum { SIZE = 200 * 1000 };
    static struct fake_rule rules[2];
    char *text = cleanup_alloc(SIZE + 200);
    size_t n = (size_t)sprintf(text,
                               "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
                               "*4\r\n$8\r\npmessage\r\n$40\r\n%040d\r\n$1\r\na\r\n$%d\r\n",
                               0, SIZE);

    memset(text + n, 'm', SIZE);
    memcpy(text + n + SIZE, "\r\n", 2);
    rules[0] = (struct fake_rule){"SUBSCRIBE", text, n + SIZE + 2, FAKE_SLOW};
    return fake_start(rules);
}

SCENARIO(pubsub, a_message_is_not_interrupted_by_a_reply_of_ours)
{
    static const char *const lines[][2] = {{"RESET", "+RESET"}, {"QUIT", "+OK"}};
    struct fake *f = fake_slow_message();
    struct nearside *n = nearside_start(fake_port(f), "invalidation.mode=off", NULL);

    for (int i = 0; i < 2; i++) {
        struct client *c = nearside_connect(n);
        expect(c, "[$subscribe $a :1]", "SUBSCRIBE a");
        cr_assert(client_readable(c, 5000));
        cr_assert(client_command(c, "%s", lines[i][0]));
        const struct reply *m = client_reply(c);
        cr_assert(m->type == '*' && m->items == 4, "%s", reply_show(m));
        cr_assert_eq(strspn(m->item[3]->text, "m"), m->item[3]->n);
        expect_next(c, lines[i][1]);
    }
}

/* Half of what the server says of itself is here when a message comes. */
static const struct fake_rule half_info[] = {
    {"SUBSCRIBE", ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", 0, FAKE_KEEP},
    {"INFO stats", "=1000\r\ntxt:half", 0, FAKE_KEEP},
    {"GET", ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n$5\r\nvalue\r\n", 0, FAKE_KEEP},
    {NULL, NULL, 0, FAKE_KEEP},
};

SCENARIO(pubsub, a_reply_from_another_road_is_not_interrupted_by_a_message)
{
    struct fake *f = fake_start(half_info);
    struct nearside *n = nearside_start(fake_port(f), "invalidation.mode=off", NULL);
    struct client *c = nearside_connect(n);

    expect(c, "...", "HELLO 3");
    expect(c, ">[$subscribe $a :1]", "SUBSCRIBE a");
    cr_assert(client_command(c, "INFO stats"));
    cr_assert(client_command(c, "GET k"));
    expect_next(c, ">[$message $a $x]");
}

/* ---- Slow ones ---------------------------------------------------------------------------------- */

SCENARIO(pubsub, a_subscriber_that_does_not_read_costs_little_and_is_closed)
{
    enum { SIZE = 100 * 1000, MESSAGES = 2000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", "proxy.stalled_output=0", NULL);
    char *text = cleanup_alloc(SIZE);

    memset(text, 'm', SIZE);
    for (int version = 2; version <= 3; version++) {
        struct client *slow = client_connect_as(n->port, version);
        struct client *other = nearside_connect(n);
        struct client *publisher = nearside_connect(n);
        (void)ask(slow, "SUBSCRIBE ch");
        int64_t before = process_rss_kb(n->process);
        for (int i = 0; i < MESSAGES; i++) {
            cr_assert(client_command_big(publisher, "PUBLISH ch", text, SIZE));
            (void)client_read(publisher);
            if (i % 100 == 0) {
                expect(other, "+OK", "SET k %d", i);
                expect(other, cleanup_printf("$%d", i), "GET k");
            }
        }
        int64_t grown = process_rss_kb(n->process) - before;
        cr_assert(is_sanitized() || grown < 40 * 1024, "grown by %lld KiB", (long long)grown);
        await_reply(r->direct, "[$ch :0]", 5000, "PUBSUB NUMSUB ch");
        cr_assert(client_drain_to_end(slow), "Redis has dropped it, and it is not told");
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(pubsub, a_subscriber_that_pauses_misses_nothing)
{
    enum { SIZE = 100 * 1000, MESSAGES = 250 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    char *text = cleanup_alloc(SIZE);

    memset(text, 'm', SIZE);
    expect(r->direct, "+OK", "CONFIG SET client-output-buffer-limit 'pubsub 0 0 0'");
    for (int version = 2; version <= 3; version++) {
        struct client *c = client_connect_as(n->port, version);
        (void)ask(c, "SUBSCRIBE ch");
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < MESSAGES; i++) {
                cr_assert(client_command_big(r->direct, "PUBLISH ch", text, SIZE));
                expect_next(r->direct, ":1");
            }
            for (int i = 0; i < MESSAGES; i++) {
                const struct reply *m = client_reply(c);
                cr_assert(m->items == 3 && m->item[2]->n == SIZE);
            }
        }
        client_close(c);
        await_reply(r->direct, "[$ch :0]", 5000, "PUBSUB NUMSUB ch");
    }
}

/* A connection that was not read for its client's sake goes back to the pool. */
SCENARIO(pubsub, a_slow_client_leaves_a_connection_that_works)
{
    enum { SIZE = 9 * 1024 * 1024 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *slow = client_connect_small(n->port, 4096);
    struct client *c = nearside_connect(n);

    store_value(r->direct, "large", SIZE);
    for (int round = 0; round < 3; round++) {
        cr_assert(client_send_text(slow, "MULTI\r\nGET large\r\nEXEC\r\n"));
        cr_assert(client_readable(slow, 5000));
        nearside_await_info(n, "pinned_connections", 0, 0, 5000);
        client_set_timeout(c, 5000);
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "PING");
        expect(c, "[+PONG]", "EXEC");
        expect_next(slow, "+OK");
        expect_next(slow, "+QUEUED");
        expect_next(slow, cleanup_printf("[$(%d bytes)]", SIZE));
    }
}

/* As with Redis: somebody who writes all before reading anything gets on. */
SCENARIO(pubsub, a_pinned_client_may_write_a_whole_pipeline_before_it_reads)
{
    enum { SIZE = 10 * 1000, GETS = 5000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    size_t size;

    store_value(r->direct, "k", SIZE);
    expect(c, "+OK", "WATCH other");
    char *gets = command_repeated(cleanup_printf("MGET k %03000d", 1), GETS, &size);
    client_set_timeout(c, 5000);
    cr_assert(client_send(c, gets, size), "the proxy does not take it");
    for (int i = 0; i < GETS; i++) {
        expect_next(c, "[$...");
    }
}

SCENARIO(pubsub, in_resp3_stored_words_are_no_messages)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    (void)ask(c, "HELLO 3");
    (void)ask(c, "SUBSCRIBE ch");
    expect(c, ":3", "RPUSH l message x y");
    expect(c, "[$message $x $y]", "LRANGE l 0 -1");
    expect(c, ":3", "RPUSH l2 subscribe x 1");
    expect(c, "[$subscribe $x $1]", "LRANGE l2 0 -1");
    expect(c, ":3", "LLEN l");
    expect(c, ">[$subscribe $other :2]", "SUBSCRIBE other"); /* nothing is left unanswered */
}
