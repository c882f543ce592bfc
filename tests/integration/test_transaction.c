/* SPDX-License-Identifier: Apache-2.0
 *
 * test_transaction.c: what concerns the client's own connection (CLIENT, HELLO, SUBSCRIBE ...) is queued in
 * MULTI and executed by EXEC as with Redis itself: the same lines are said to both, and answered alike. And L1, when
 * Redis does not say what an EXEC changed.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"
#include "cluster_scene.h"

#include <string.h>

TestSuite(transaction);

#define LINES_MAX 16
#define REFUSED   "-ERR '..."
#define FAILING   "HELLO 2 AUTH nobody x" /* a login that fails */

/* The ids in HELLO's replies are not the same. */
static const char *without_id(const char *text)
{
    char *copy = cleanup_printf("%s", text);
    char *id = strstr(copy, "$id :");
    if (id != NULL) {
        size_t digits = strspn(id + 5, "0123456789");
        memmove(id + 5, id + 5 + digits, strlen(id + 5 + digits) + 1);
    }
    return copy;
}

/* Says the lines, all at once if `piped`; the replies, a line each. */
static const char *converse(struct client *c, const char *const *lines, bool piped)
{
    const char *all = "";
    for (int i = 0; piped && lines[i] != NULL; i++) {
        cr_assert(client_command(c, "%s", lines[i]));
    }
    for (int i = 0; lines[i] != NULL; i++) {
        const char *got = piped ? client_read(c) : ask(c, "%s", lines[i]);
        all = cleanup_printf("%s%s: %s\n", all, lines[i], without_id(got));
    }
    return all;
}

static void same_conversation(struct redis *r, struct nearside *n, const char *const *lines)
{
    for (int piped = 0; piped <= 1; piped++) {
        for (int version = 2; version <= 3; version++) {
            struct client *direct = client_connect(r->port);
            struct client *c = nearside_connect(n);
            (void)ask(direct, "HELLO %d", version);
            (void)ask(c, "HELLO %d", version);
            const char *want = converse(direct, lines, piped);
            const char *got = converse(c, lines, piped);
            cr_assert_str_eq(got, want, "RESP%d: a direct connection:\n%s\nhere:\n%s", version,
                             want, got);
            client_close(direct);
            client_close(c);
        }
    }
}

static const char *const conversations[][LINES_MAX] = {
    {"MULTI", "CLIENT SETNAME me", "CLIENT GETNAME", "SET k v", "EXEC", "CLIENT GETNAME", "GET k"},
    {"MULTI", "CLIENT SETNAME me", "DISCARD", "CLIENT GETNAME", "MULTI", "CLIENT GETNAME", "EXEC"},
    {"MULTI", "CLIENT SETNAME me", "GET", "EXEC", "CLIENT GETNAME", "MULTI", "PING", "EXEC"},
    {"MULTI", "CLIENT SETNAME \"a b\"", "CLIENT NO-EVICT on", "CLIENT NO-EVICT x", "EXEC"},
    {"MULTI", "CLIENT GETREDIR", "CLIENT TRACKINGINFO", "CLIENT CACHING yes", "EXEC"},
    {"MULTI", "CLIENT TRACKING off", "CLIENT TRACKING x", "CLIENT REPLY x", "EXEC"},
    {"MULTI", "CLIENT NOSUCH", "EXEC", "MULTI", "CLIENT ID x", "CLIENT", "EXEC"},
    {"MULTI", "CLIENT KILL 1.2.3.4:5", "CLIENT KILL ID 9999", "PING", "CLIENT UNBLOCK 9999", "EXEC",
     "PING"},
    {"MULTI", "CLIENT LIST TYPE x", "CLIENT LIST TYPE pubsub", "CLIENT KILL TYPE replica", "EXEC"},
    {"MULTI", "CLIENT PAUSE x", "CLIENT UNPAUSE", "CLIENT HELP", "CLIENT REPLY on", "EXEC"},
    {"MULTI", "HELLO", "HELLO 4", "HELLO x", "HELLO 2 NOSUCH", "EXEC", "GET none"},
    {"MULTI", "CLIENT GETNAME", "HELLO 3 SETNAME me", "CLIENT GETNAME", "GET none", "EXEC",
     "CLIENT GETNAME", "GET none", "HELLO 2", "GET none"},
    {"MULTI", "HELLO 3 AUTH default any SETNAME me", "EXEC", "CLIENT GETNAME", "GET none"},
    {"MULTI", "HELLO 3 AUTH default any SETNAME me", FAILING, "EXEC", "CLIENT GETNAME", "GET none"},
    {"MULTI", "AUTH default any", "AUTH nobody x", "AUTH", "EXEC"},
    {"MULTI", "READONLY", "READWRITE", "READONLY x", "EXEC", "MULTI", "ASKING", "EXEC", "ASKING"},
    {"MULTI", "MONITOR", "PING", "EXEC", "PING", "MULTI", "MONITOR x", "EXEC"},
    {"MULTI", "SCRIPT DEBUG yes", "SCRIPT DEBUG no", "EXEC", "EVAL 'return 1' 0"},
    {"MULTI", "SYNC", "EXEC", "MULTI", "PSYNC ? -1", "EXEC"},
    {"MULTI", "MULTI", "WATCH k", "CLIENT GETNAME", "EXEC", "EXEC", "PING"},
    {"MULTI", "SUBSCRIBE a", "SET k v", "EXEC", "PING", "UNSUBSCRIBE a", "GET k"},
    {"MULTI", "CLIENT GETNAME", "SUBSCRIBE a", "CLIENT SETNAME me", "EXEC", "PING", "RESET"},
    {"MULTI", "SUBSCRIBE a", "PSUBSCRIBE b*", "UNSUBSCRIBE a", "EXEC", "PUNSUBSCRIBE b*", "GET k"},
    {"MULTI", "UNSUBSCRIBE", "EXEC", "MULTI", "PUNSUBSCRIBE", "EXEC", "GET k"},
    {"MULTI", "SUNSUBSCRIBE", "SSUBSCRIBE a", "SUNSUBSCRIBE a", "EXEC", "GET k"},
    {"MULTI", "SUBSCRIBE a", "EXEC", "RESET", "GET none", "MULTI", "CLIENT GETNAME", "EXEC"},
    {"MULTI", "HELLO 3", "SUBSCRIBE a", "EXEC", "GET none", "MULTI", "GET none", "UNSUBSCRIBE a",
     "PING", "EXEC", "GET none"},
    {"WATCH k", "MULTI", "CLIENT GETNAME", "EXEC", "GET k"},
};

/* Since 7.2, and so does Valkey: EXEC's reply has an element less than it says. */
static bool loses_failing_logins(struct redis *r)
{
    struct client *c = client_connect(r->port);
    size_t n;

    cr_assert(client_send_text(c, "MULTI\r\n" FAILING "\r\nEXEC\r\nPING\r\n"));
    const char *got = client_read_until(c, "+PONG\r\n", &n);
    bool loses = strstr(got, "*1\r\n+PONG\r\n") != NULL;
    client_close(c);
    return loses;
}

static bool has_line(const char *const *lines, const char *line)
{
    while (*lines != NULL && strcmp(*lines, line) != 0) {
        lines++;
    }
    return *lines != NULL;
}

SCENARIO(transaction, what_concerns_the_connection_is_queued_and_executed_as_with_redis)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    bool loses = loses_failing_logins(r);

    for (size_t i = 0; i < sizeof(conversations) / sizeof(conversations[0]); i++) {
        if (!loses || !has_line(conversations[i], FAILING)) {
            same_conversation(r, n, conversations[i]);
        }
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
}

/* What comes next would be taken for the element that is missing. */
SCENARIO(transaction, a_login_that_fails_inside_it_concerns_nobody_else)
{
    static const char *const logins[] = {FAILING, "AUTH nobody x"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.dead_after=1s", NULL);
    struct client *other = nearside_connect(n);
    bool loses = loses_failing_logins(r);

    expect(other, "+OK", "SET k v");
    for (size_t i = 0; i < sizeof(logins) / sizeof(logins[0]); i++) {
        struct client *c = nearside_connect(n);
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "%s", logins[i]);
        if (!loses) {
            expect(c, "[-WRONGPASS ...", "EXEC");
            client_close(c);
        } else {
            cr_assert(client_command(c, "EXEC"));
            expect(other, "$v", "GETRANGE k 0 -1");
            cr_assert(client_drain_to_end(c), "%s: it waits on", logins[i]);
        }
        expect(other, "$v", "GETRANGE k 0 -1");
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
}

SCENARIO(transaction, it_is_the_client_here_that_is_spoken_of)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=2", NULL);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);
    long long id = strtoll(ask(c, "CLIENT ID") + 1, NULL, 10);
    const char *line = cleanup_printf("%s", ask(other, "CLIENT SETNAME other"));

    cr_assert_str_eq(line, "+OK");
    line = cleanup_printf("%s", ask(other, "CLIENT INFO"));
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k v");
    expect(c, "+QUEUED", "CLIENT ID");
    expect(c, "+QUEUED", "CLIENT KILL ID %s", cleanup_printf("%lld", strtoll(line + 4, NULL, 10)));
    expect(c, "+QUEUED", "CLIENT LIST");
    expect(c, "+QUEUED", "GET k");
    const char *reply = ask(c, "EXEC");
    cr_assert(matches(reply, cleanup_printf("[+OK :%lld :1 $id=%lld ...", id, id)), "%s", reply);
    cr_assert_str_eq(reply + strlen(reply) - 4, " $v]");
    cr_assert(client_drain_to_end(other));
    cr_assert(strstr(ask(c, "CLIENT LIST"), "name=other") == NULL);
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "CLIENT KILL ID %lld SKIPME no", id);
    expect(c, "+QUEUED", "PING");
    expect(c, "[:1 +PONG]", "EXEC");
    cr_assert(client_drain_to_end(c));
}

SCENARIO(transaction, replies_that_are_turned_off_inside_it_stay_off)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int i = 0; i < 2; i++) {
        struct client *c = i == 0 ? client_connect(r->port) : nearside_connect(n);
        cr_assert(client_send_text(c,
                                   "MULTI\r\nPING\r\nCLIENT REPLY OFF\r\nPING\r\nEXEC\r\nPING\r\n"
                                   "MULTI\r\nPING\r\nCLIENT REPLY ON\r\nPING\r\nEXEC\r\n"
                                   "MULTI\r\nCLIENT REPLY SKIP\r\nPING\r\nEXEC\r\nECHO a\r\n"
                                   "ECHO b\r\nQUIT\r\n"));
        static const char want[] = "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+PONG\r\n"
                                   "+OK\r\n+PONG\r\n"
                                   "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+PONG\r\n"
                                   "$1\r\nb\r\n+OK\r\n";
        char got[sizeof(want)] = "";
        (void)client_read_bytes(c, got, sizeof(want) - 1);
        cr_assert_str_eq(got, want);
        cr_assert(client_drain_to_end(c));
    }
}

SCENARIO(transaction, who_subscribes_inside_it_gets_messages)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k v");
    expect(c, "+QUEUED", "SUBSCRIBE news");
    expect(c, "[+OK [$subscribe $news :1]]", "EXEC");
    expect(r->direct, ":1", "PUBLISH news one");
    expect_next(c, "[$message $news $one]");
    expect(c, "-ERR Can't execute 'get'...", "GET k");
    expect(c, "[$unsubscribe $news :0]", "UNSUBSCRIBE");
    expect(c, "$v", "GET k");
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
}

/* In RESP3 Redis 7.0 puts the message between the elements, where it counts for nothing; newer servers behind
 * EXEC's reply, and before what is said next. */
SCENARIO(transaction, who_publishes_to_itself_gets_the_same_bytes)
{
    static const char *const lines[] = {
        "HELLO 3", "SUBSCRIBE a", "PSUBSCRIBE a*", "MULTI", "ECHO x", "PUBLISH a m",
        "ECHO y",  "EXEC",        "CLIENT ID x",   "PING",  NULL};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    char *got[2];

    for (int i = 0; i < 2; i++) {
        struct client *c = i == 0 ? client_connect(r->port) : nearside_connect(n);
        size_t size;
        for (int k = 0; lines[k] != NULL; k++) {
            cr_assert(client_command(c, "%s", lines[k]));
        }
        (void)client_reply(c); /* HELLO's */
        const char *bytes = client_read_until(c, "+PONG\r\n", &size);
        got[i] = cleanup_printf("%.*s", (int)size, bytes);
        client_close(c);
        await_reply(r->direct, "[$a :0]", 5000, "PUBSUB NUMSUB a");
    }
    cr_assert_str_eq(got[1], got[0]);
    cr_assert(strstr(got[0], "$7\r\nmessage\r\n") != NULL);
}

SCENARIO(transaction, what_cannot_be_queued_aborts_it)
{
    static const char *const lines[] = {"SUBSCRIBE a b", "REPLCONF ack 1"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "SET k %zu", i);
        expect(c, REFUSED, "%s", lines[i]);
        expect(c, "-EXECABORT...", "EXEC");
        expect(c, "nil", "GET k");
    }
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "CLIENT LIST");
    expect(c, REFUSED, "SUBSCRIBE a");
    expect(c, "-EXECABORT...", "EXEC");
}

SCENARIO(transaction, what_is_kept_of_it_is_bounded)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    char name[4001];

    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    expect(c, "+OK", "MULTI");
    for (int i = 0; i < 16; i++) {
        expect(c, "+QUEUED", "CLIENT SETNAME %s", name);
    }
    expect(c, REFUSED, "CLIENT SETNAME %s", name);
    expect(c, "-EXECABORT...", "EXEC");
    expect(c, "nil", "CLIENT GETNAME");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "CLIENT SETNAME %s", name);
    expect(c, "[+OK]", "EXEC");
}

/* What stood in for CLIENT has been executed, and HELLO itself: there is no way back. */
SCENARIO(transaction, behind_a_multi_that_redis_refuses_nothing_is_mistaken)
{
    static const char *const lines[] = {"CLIENT GETNAME", "HELLO 3"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    expect(r->direct, "+OK", "ACL SETUSER bob on >pw ~* &* +@all -multi");
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        struct client *c = nearside_connect(n);
        expect(c, "+OK", "AUTH bob pw");
        cr_assert(client_send_text(c, cleanup_printf("MULTI\r\n%s\r\nSET k v\r\n", lines[i])));
        expect_next(c, "-NOPERM ...");
        expect_next(c, REFUSED);
        cr_assert(client_drain_to_end(c));
    }
    struct client *subscriber = nearside_connect(n);
    expect(subscriber, "+OK", "AUTH bob pw");
    cr_assert(client_send_text(subscriber, "MULTI\r\nSUBSCRIBE a\r\nPING\r\n"));
    cr_assert(client_drain_to_end(subscriber));
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
    nearside_check_alive(n);
}

SCENARIO(transaction, with_a_password_auth_inside_it_is_about_that)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.password=secret", NULL);
    n->password = "secret";
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "AUTH secret");
    expect(c, "+QUEUED", "AUTH wrong");
    expect(c, "+QUEUED", "AUTH default secret");
    expect(c, "[+OK -WRONGPASS invalid username-password pair or user is disabled. +OK]", "EXEC");
    expect(c, "+PONG", "PING");
}

SCENARIO(transaction, in_a_cluster_as_well)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 1, "k");

    expect(s.c, "+OK", "MULTI");
    expect(s.c, "+QUEUED", "CLIENT SETNAME me");
    expect(s.c, "+QUEUED", "READONLY");
    expect(s.c, "+QUEUED", "SET %s v", key);
    expect(s.c, "+QUEUED", "CLIENT GETNAME");
    expect(s.c, "[+OK -ERR This instance has cluster support disabled +OK $me]", "EXEC");
    expect(s.c, "$v", "GET %s", key);
    expect(s.c, "$me", "CLIENT GETNAME");
}

static size_t value_size(struct client *c, const char *key)
{
    cr_assert(client_command(c, "GET %s", key));
    const struct reply *reply = client_reply(c);
    cr_assert_not_null(reply);
    cr_assert_eq(reply->type, '$');
    return reply->n;
}

/* Redis announces nothing of it (redis/redis#15599). */
SCENARIO(transaction, a_key_that_a_transaction_makes_longer_and_does_not_write_is_dropped)
{
    static const char *const keys[] = {"k", "j", "k"};
    static const char *const replies[] = {"[[nil]]", "[[nil] [nil]]", "[[nil] [nil] [nil]]"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *reader = nearside_connect(n);

    nearside_await_fills(n);
    for (int grown = 1; grown <= 3; grown++) {
        expect(c, "+OK", "MSET k ab j ab other 1");
        expect(reader, "$1", "GET other");
        cr_assert_eq(value_size(reader, "k"), 2);
        cr_assert_eq(value_size(reader, "j"), 2);
        expect(c, "+OK", "MULTI");
        for (int i = 0; i < grown; i++) {
            expect(c, "+QUEUED", "BITFIELD %s OVERFLOW FAIL INCRBY u8 16 1000", keys[i]);
        }
        expect(c, replies[grown - 1], "EXEC");
        long long calls = redis_calls(r, "get");
        expect(reader, "$1", "GET other");
        cr_assert_eq(redis_calls(r, "get") - calls, grown == 1 ? 0 : 1);
        cr_assert_eq(value_size(reader, "k"), 3);
        cr_assert_eq(value_size(reader, "j"), grown == 1 ? 2 : 3);
    }
}

SCENARIO(transaction, a_key_that_a_transaction_rewrites_untold_is_dropped)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *reader = nearside_connect(n);

    nearside_await_fills(n);
    expect(c, ":1", "PFADD k a b c");
    size_t sparse = value_size(reader, "k");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "PFDEBUG TODENSE k");
    expect(c, "[:1]", "EXEC");
    cr_assert_gt(value_size(reader, "k"), sparse);
}
