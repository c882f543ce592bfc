/* SPDX-License-Identifier: Apache-2.0
 *
 * test_users.c: clients that log in as users of Redis's own (no proxy.password): what such a client
 * gets is what Redis gives that user, and L1 serves only those who are who Nearside is.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <string.h>

#define RULES "on >pass ~open:* resetchannels &good +@all -flushall -client|kill -echo -select"

static struct redis *start_with_users(void)
{
    struct redis *r = redis_start(NULL);
    expect(r->direct, "+OK", "ACL SETUSER bob " RULES);
    expect(r->direct, "+OK", "ACL SETUSER off off >pass ~* +@all");
    return r;
}

static void same(struct client *direct, struct client *c, const char *line)
{
    const char *want = cleanup_printf("%s", ask(direct, "%s", line));
    const char *got = ask(c, "%s", line);
    cr_assert_str_eq(got, want, "%s: a direct connection gets '%s', here it is '%s'", line, want,
                     got);
}

/* Changes nothing that matters to a second run of it. */
static const char *const session[] = {
    "AUTH bob wrong",
    "AUTH nobody pass",
    "AUTH off pass",
    "AUTH a b c",
    "AUTH any",
    "ACL WHOAMI",
    "AUTH bob pass",
    "ACL WHOAMI",
    "SET open:1 v",
    "GET open:1",
    "GET open:1",
    "GET closed:1",
    "MGET open:1 closed:1",
    "SET closed:1 v",
    "DEL closed:1",
    "FLUSHALL",
    "PING",
    "PING x",
    "ECHO x",
    "READONLY",
    "SELECT 0",
    "SELECT 1",
    "CLIENT KILL ID 999999",
    "CLIENT NOSUCH",
    "CLIENT GETNAME",
    "CLIENT SETNAME 'a b'",
    "CLIENT SETNAME me",
    "CLIENT GETNAME",
    "CLIENT NO-EVICT maybe",
    "CLIENT REPLY maybe",
    "CLIENT UNBLOCK 0",
    "PUBLISH good x",
    "PUBLISH bad x",
    "MULTI",
    "SET open:1 w",
    "AUTH bob pass",
    "EXEC",
    "GET open:1",
    "MULTI",
    "SET closed:1 w",
    "EXEC",
    "MULTI",
    "SUBSCRIBE bad",
    "EXEC",
    "WATCH closed:1",
    "WATCH open:1",
    "UNWATCH",
    "BLPOP closed:1 1",
    "BLPOP open:none 0.01",
    "EVAL 'return redis.call(\"get\",KEYS[1])' 1 closed:1",
    "EVAL 'return redis.call(\"get\",KEYS[1])' 1 open:1",
    "SUBSCRIBE bad",
    "HELLO 3",
    "GET open:none",
    "GET closed:1",
    "SUBSCRIBE bad",
    "AUTH bob wrong",
    "ACL WHOAMI",
    "HELLO 2 AUTH bob wrong",
    "GET open:none",
    "ACL DRYRUN bob GET closed:1",
    "ACL DRYRUN bob GET open:1",
    "HELLO 2 SETNAME you",
    "CLIENT GETNAME",
    "RESET",
    "ACL WHOAMI",
    "CLIENT GETNAME",
    "GET closed:1",
    "SELECT 1",
    "AUTH bob pass",
    "GET open:1",
    "AUTH default any",
    "ACL WHOAMI",
    "GET open:1",
    "SELECT 0",
    "GET open:1",
};

SCENARIO(users, a_session_of_one_of_them_is_word_for_word_the_same)
{
    struct redis *r = start_with_users();
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *direct = client_connect(r->port);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof(session) / sizeof(session[0]); i++) {
            if (strncmp(session[i], "HELLO", 5) == 0 && strstr(session[i], "wrong") == NULL) {
                (void)ask(direct, "%s", session[i]); /* the ids differ */
                (void)ask(c, "%s", session[i]);
            } else {
                same(direct, c, session[i]);
            }
        }
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
    cr_assert_eq(nearside_info(n, "logins_failed"), 2 * 7);
    nearside_await_log(n, "failed to log in: refused by the server");
}

SCENARIO(users, hello_logs_in_as_one_of_them_and_chooses_the_protocol)
{
    struct redis *r = start_with_users();
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    const char *id = cleanup_printf("$id %s", ask(c, "CLIENT ID"));

    expect(c, "-WRONGPASS ...", "HELLO 3 AUTH bob wrong SETNAME me");
    expect(c, "nil", "CLIENT GETNAME");
    cr_assert(strstr(ask(c, "HELLO 3 AUTH bob pass SETNAME me"), id) != NULL);
    expect(c, "$bob", "ACL WHOAMI");
    expect(c, "_", "GET open:none");
    expect(c, "$me", "CLIENT GETNAME");
    const char *info = ask(c, "CLIENT INFO");
    cr_assert(strstr(info, " name=me ") != NULL &&
                  strstr(info, " user=bob redir=-1 resp=3") != NULL,
              "%s", info);
    cr_assert(strstr(ask(c, "HELLO 2 AUTH default any"), id) != NULL);
    expect(c, "$default", "ACL WHOAMI");
    expect(c, "nil", "GET open:none");
    cr_assert(strstr(ask(c, "CLIENT INFO"), " user=default redir=-1 resp=2") != NULL);
}

/* The connection is its client's no longer, and speaks what it was told to: never to one of the other protocol. */
SCENARIO(users, after_hello_with_a_login_a_connection_speaks_what_was_chosen)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *two = nearside_connect(n);
    struct client *three = nearside_connect(n);
    struct client *greets = nearside_connect(n);

    expect(three, "%[...", "HELLO 3");
    expect(greets, "%[...", "HELLO 3 AUTH default any");
    expect(two, "+OK", "WATCH k");
    expect(two, "nil", "GET k");
    expect(greets, "[...", "HELLO 2 AUTH default any");
    expect(three, "+OK", "WATCH k");
    expect(three, "_", "GET k");
}

SCENARIO(users, nobody_reads_from_the_cache_what_is_forbidden_to_him)
{
    struct redis *r = start_with_users();
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *bob = nearside_connect(n);

    nearside_await_fills(n);
    expect(r->direct, "+OK", "MSET closed:1 v open:1 v");
    expect(bob, "+OK", "AUTH bob pass");
    for (int i = 0; i < 3; i++) {
        expect(c, "$v", "GET closed:1");
        expect(bob, "-NOPERM ...", "GET closed:1");
        expect(bob, "-NOPERM ...", "MGET open:1 closed:1");
        expect(bob, "$v", "GET open:1");
    }
    cr_assert_eq(nearside_info(n, "l1_hits"), 2, "c's second and third");
    /* what he writes, everybody sees at once */
    for (int i = 0; i < 20; i++) {
        expect(bob, "+OK", "SET open:1 %d", i);
        expect(c, cleanup_printf("$%d", i), "GET open:1");
        expect(bob, ":1", "DEL open:1");
        expect(c, "nil", "GET open:1");
    }
    /* what is taken away from everybody is taken away at once */
    expect(c, "$v", "GET closed:1");
    expect(c, "+OK", "ACL SETUSER default -get");
    expect(c, "-NOPERM ...", "GET closed:1");
    expect(c, "+OK", "ACL SETUSER default +get");
    expect(c, "$v", "GET closed:1");
}

SCENARIO(users, back_as_who_nearside_is_the_cache_serves_again)
{
    struct redis *r = start_with_users();
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    expect(c, "+OK", "SET open:1 v");
    for (int way = 0; way < 2; way++) {
        expect(c, "+OK", "AUTH bob pass");
        expect(c, "$v", "GET open:1");
        cr_assert_eq(nearside_info(n, "pinned_connections"), 1);
        expect(c, way == 0 ? "+RESET" : "+OK", way == 0 ? "RESET" : "AUTH default x");
        expect(c, "$v", "GET open:1");
        long long hits = nearside_info(n, "l1_hits");
        expect(c, "$v", "GET open:1");
        cr_assert_eq(nearside_info(n, "l1_hits"), hits + 1);
        cr_assert_eq(nearside_info(n, "pinned_connections"), 0);
    }
    /* so it does for who says nothing but the password everybody is to say */
    struct client *other = nearside_connect(n);
    expect(other, "+OK", "AUTH default x");
    long long hits = nearside_info(n, "l1_hits");
    expect(other, "$v", "GET open:1");
    cr_assert_eq(nearside_info(n, "l1_hits"), hits + 1);
}

SCENARIO(users, a_pipeline_changes_hands_in_order)
{
    struct redis *r = start_with_users();
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    cr_assert(client_send_text(c,
                               "SET closed:1 1\r\nAUTH bob pass\r\nGET closed:1\r\nSET open:1 1\r\n"
                               "GET open:1\r\nCLIENT GETNAME\r\nECHO x\r\nRESET\r\n"
                               "GET closed:1\r\nAUTH bob wrong\r\nGET closed:1\r\n"));
    expect_next(c, "+OK");
    expect_next(c, "+OK");
    expect_next(c, "-NOPERM ...");
    expect_next(c, "+OK");
    expect_next(c, "$1");
    expect_next(c, "nil");
    expect_next(c, "-NOPERM ...");
    expect_next(c, "+RESET");
    expect_next(c, "$1");
    expect_next(c, "-WRONGPASS ...");
    expect_next(c, "$1");
}

SCENARIO(users, who_is_deleted_or_killed_is_gone)
{
    struct redis *r = start_with_users();
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *bob = nearside_connect(n);

    expect(bob, "+OK", "AUTH bob pass");
    expect(c, ":1", "CLIENT KILL USER bob");
    expect_next(bob, "closed");
    expect(c, "-ERR No such user 'nosuch'", "CLIENT KILL USER nosuch");
    expect(c, ":0", "CLIENT KILL USER default");

    bob = nearside_connect(n);
    struct client *other = nearside_connect(n);
    expect(bob, "+OK", "AUTH bob pass");
    expect(other, "+OK", "AUTH bob pass");
    expect(other, "[...", "SUBSCRIBE good");
    expect(c, ":0", "CLIENT KILL USER bob ID 999999");
    expect(c, ":2", "CLIENT KILL USER bob LADDR 127.0.0.1:%d", n->port);
    expect_next(bob, "closed");
    expect_next(other, "closed");

    bob = nearside_connect(n);
    other = nearside_connect(n);
    expect(bob, "+OK", "AUTH bob pass");
    expect(other, "+OK", "AUTH bob pass");
    expect(other, "[...", "SUBSCRIBE good");
    expect(bob, ":1", "ACL DELUSER bob"); /* its own answer still comes */
    expect_next(bob, "closed");
    expect_next(other, "closed");
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
}

SCENARIO(users, where_redis_asks_for_a_password_nearside_need_not_know_it)
{
    static const char *const lines[] = {
        "PING",        "GET k",    "SET k v",      "CLIENT ID",
        "SELECT 0",    "SELECT 3", "ECHO x",       "MULTI",
        "SUBSCRIBE x", "HELLO",    "HELLO 3",      "AUTH wrong",
        "INFO",        "READONLY", "AUTH default", "HELLO 3 SETNAME x"};
    struct redis *r = redis_start(NULL);
    expect(r->direct, "+OK", "CONFIG SET requirepass secret");
    struct nearside *n = nearside_start(r->port, NULL);

    expect(nearside_connect(n), "-NOAUTH ...", "GET k"); /* who asks first learns it */
    for (int round = 0; round < 2; round++) {
        struct client *direct = client_connect(r->port);
        struct client *c = nearside_connect(n);
        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
            same(direct, c, lines[i]);
        }
        same(direct, c, "AUTH secret");
        same(direct, c, "SET k v");
        same(direct, c, "GET k");
        same(direct, c, "SELECT 3");
        same(direct, c, "GET k");
        same(direct, c, "RESET");
        same(direct, c, "GET k");
        same(direct, c, "PING");
    }
    struct client *c = nearside_connect(n);
    cr_assert(client_send_text(c, "*100\r\n"));
    expect_next(c, "-ERR Protocol error: unauthenticated multibulk length");
}

SCENARIO(users, a_password_that_redis_begins_to_ask_for_is_said_in_another_db_too)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SELECT 3");
    expect(c, "+OK", "SET k v");
    expect(c, "+OK", "CONFIG SET requirepass secret");
    expect(c, "-WRONGPASS ...", "AUTH wrong");
    expect(c, "+OK", "AUTH secret");
    expect(c, "$v", "GET k");
    expect(c, "%[...", "HELLO 3 AUTH default secret");
    expect(c, "$v", "GET k");
}

SCENARIO(users, what_nearside_itself_says_to_redis_needs_no_connection)
{
    struct redis *r = start_with_users();
    expect(r->direct, "+OK", "CONFIG SET requirepass secret");
    struct nearside *n =
        nearside_start(r->port, "upstream.password=secret", "upstream.max_pinned=1", NULL);
    struct client *bob = nearside_connect(n);

    nearside_await_fills(n);
    expect(bob, "+OK", "AUTH bob pass"); /* has the only one */
    struct client *c = nearside_connect(n);
    expect(c, "+OK", "AUTH secret");
    expect(c, "+OK", "AUTH default secret");
    expect(c, "%[...", "HELLO 3 AUTH default secret SETNAME me");
    expect(c, "$me", "CLIENT GETNAME");
    expect(c, "+OK", "SET open:1 v");
    expect(c, "$v", "GET open:1");
    long long hits = nearside_info(n, "l1_hits");
    expect(c, "$v", "GET open:1");
    cr_assert_eq(nearside_info(n, "l1_hits"), hits + 1);
    expect(c, "-ERR too many clients need a connection of their own...", "AUTH default secre");
    /* but who is somebody else is asked for it there, where he is */
    expect(bob, "-WRONGPASS ...", "AUTH default secre");
    expect(bob, "+OK", "AUTH default secret");
    expect(c, "-WRONGPASS ...", "AUTH default secre");
}

SCENARIO(users, there_are_no_more_of_them_than_connections_of_their_own)
{
    struct redis *r = start_with_users();
    struct nearside *n = nearside_start(r->port, "upstream.max_pinned=1", NULL);
    struct client *bob = nearside_connect(n);
    struct client *c = nearside_connect(n);

    expect(bob, "+OK", "AUTH bob pass");
    expect(c, "-ERR too many clients need a connection of their own...", "AUTH bob pass");
    expect(c, "$default", "ACL WHOAMI");
    client_close(bob);
    await_reply(c, "+OK", 5000, "AUTH bob pass");
}

SCENARIO(users, with_a_user_of_nearsides_own_that_one_is_everybody)
{
    struct redis *r = start_with_users();
    struct nearside *n =
        nearside_start(r->port, "upstream.user=bob", "upstream.password=pass", NULL);
    struct client *c = nearside_connect(n);

    await_reply(c, "$bob", 5000, "ACL WHOAMI");
    expect(c, "-NOPERM ...", "GET closed:1");
    expect(c, "+OK", "AUTH default any");
    expect(c, "nil", "GET closed:1");
    cr_assert_eq(nearside_info(n, "pinned_connections"), 1);
    expect(c, "+OK", "AUTH bob pass");
    expect(c, "-NOPERM ...", "GET closed:1");
    cr_assert_eq(nearside_info(n, "pinned_connections"), 0);
}
