/* SPDX-License-Identifier: Apache-2.0
 *
 * test_resp3.c: HELLO, and clients of both protocols side by side: each gets what a direct connection
 * of its protocol gets, byte for byte.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <string.h>

static const char *copy_raw(struct client *c, const char *line, size_t *n)
{
    (void)ask(c, "%s", line);
    const char *bytes = client_raw(c, n);
    char *copy = cleanup_alloc(*n + 1);
    memcpy(copy, bytes, *n);
    return copy;
}

/* Both get the same bytes for this command. `anew`, if not NULL, is done before each. */
static void same_bytes(struct client *direct, struct client *c, const char *line,
                       void (*anew)(struct redis *r), struct redis *r)
{
    size_t want_n = 0;
    size_t n = 0;

    if (anew != NULL) {
        anew(r);
    }
    const char *want = copy_raw(direct, line, &want_n);
    if (anew != NULL) {
        anew(r);
    }
    const char *got = copy_raw(c, line, &n);
    cr_assert(n == want_n && memcmp(got, want, n) == 0,
              "%s: a direct connection gets '%.300s', here it is '%.300s'", line, want, got);
}

static const char *const fill[] = {
    "SET k v",        "SET n 12",
    "RPUSH l a b c",  "SADD s one",
    "HSET h f v",     "ZADD z 1.5 m",
    "XADD x 1-1 f v", "SET large aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
};

static const char *const reads[] = {
    "GET k",
    "GET none",
    "GET l",
    "MGET k none n",
    "MGET k k",
    "MGET l",
    "GET",
    "MGET",
    "INCR n",
    "HGETALL h",
    "HGETALL none",
    "SMEMBERS s",
    "ZRANGE z 0 -1 WITHSCORES",
    "ZSCORE z m",
    "ZSCORE z none",
    "LRANGE l 0 -1",
    "LPOP none",
    "XREAD STREAMS x 0",
    "XRANGE x - +",
    "HGET h none",
    "CONFIG GET maxmemory",
    "COMMAND COUNT",
    "COMMAND GETKEYS GET k",
    "COMMAND INFO get nosuch",
    "COMMAND DOCS ping",
    "COMMAND NOSUCH",
    "OBJECT ENCODING k",
    "NOSUCH",
    "EVAL 'return {1,false,{ok=\"x\"}}' 0",
    "EVAL 'redis.setresp(3); return redis.call(\"HGETALL\",\"h\")' 0",
    "EVAL 'return {double=3.25}' 0",
    "EVAL 'return {map={a=1}}' 0",
    "EVAL 'return {big_number=\"1234567999999999999999\"}' 0",
    "MULTI",
    "GET none",
    "HGETALL h",
    "EXEC",
    "BLPOP l 1",
    "BLPOP none 0.01",
    "WATCH k",
    "GET none",
    "GET k",
    "UNWATCH",
    "SELECT 3",
    "GET k",
    "MGET k none",
    "SELECT 0",
    "PING",
    "PING text",
    "ECHO text",
    "CLIENT GETNAME",
    "CLIENT SETNAME me",
    "CLIENT GETNAME",
    "CLIENT TRACKINGINFO",
    "CLIENT GETREDIR",
    "CLIENT NOSUCH",
    "CLIENT HELP",
    "READONLY",
    "READWRITE",
    "AUTH x",
    "AUTH a b c",
    "AUTH default x",
    "AUTH nobody x",
    "DEBUG PROTOCOL STRING",
    "DEBUG PROTOCOL INTEGER",
    "DEBUG PROTOCOL DOUBLE",
    "DEBUG PROTOCOL NULL",
    "DEBUG PROTOCOL ARRAY",
    "DEBUG PROTOCOL SET",
    "DEBUG PROTOCOL MAP",
    "DEBUG PROTOCOL BIGNUM",
    "DEBUG PROTOCOL VERBATIM",
    "DEBUG PROTOCOL TRUE",
    "DEBUG PROTOCOL FALSE",
    "RESET",
    "GET none",
};

static void refill(struct redis *r)
{
    expect(r->direct, "+OK", "FLUSHALL");
    for (size_t i = 0; i < sizeof(fill) / sizeof(fill[0]); i++) {
        (void)ask(r->direct, "%s", fill[i]);
    }
}

static void compare_reads(int version)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *direct = client_connect(r->port);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    for (int run = 0; run < 2; run++) {
        expect(direct, "...", "HELLO %d", version);
        expect(c, "...", "HELLO %d", version);
        for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
            bool is_get = strstr(reads[i], "GET ") != NULL;
            same_bytes(direct, c, reads[i], refill, r);
            for (int again = 0; is_get && again < 2; again++) {
                same_bytes(direct, c, reads[i], NULL, NULL); /* the last one from the cache */
            }
        }
    }
}

SCENARIO(resp3, a_client_of_version_2_gets_what_redis_gives_it_byte_for_byte)
{
    compare_reads(2);
}

SCENARIO(resp3, a_client_of_version_3_gets_what_redis_gives_it_byte_for_byte)
{
    compare_reads(3);
}

SCENARIO(resp3, both_versions_share_the_cache_and_get_their_own_nulls)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *two = nearside_connect(n);
    struct client *three = client_connect_as(n->port, 3);

    nearside_await_fills(n);
    expect(r->direct, "+OK", "SET k v");
    for (int round = 0; round < 3; round++) {
        expect(three, "$v", "GET k");
        expect(two, "$v", "GET k");
        expect(two, "nil", "GET none");
        expect(three, "_", "GET none");
        expect(two, "[$v nil]", "MGET k none");
        expect(three, "[$v _]", "MGET k none");
        expect(three, "_", "GET none3");
        expect(two, "nil", "GET none3");
        expect(three, "[_ _]", "MGET none4 none5");
        expect(two, "[nil nil]", "MGET none4 none5");
    }
    cr_assert_eq(redis_calls(r, "get"), 3, "k, none, none3 each once");
}

SCENARIO(resp3, clients_of_both_versions_that_wait_for_one_fetch_get_their_own_nulls)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.dead_after=30s", NULL);
    struct client *c[8];

    nearside_await_fills(n);
    for (int i = 0; i < 8; i++) {
        c[i] = i % 2 == 0 ? nearside_connect(n) : client_connect_as(n->port, 3);
        expect(c[i], "+PONG", "PING");
    }
    for (int round = 0; round < 5; round++) {
        redis_freeze(r);
        for (int i = 0; i < 8; i++) {
            cr_assert(client_command(c[i], "GET none%d", round));
            cr_assert(client_command(c[i], "MGET none%d many%d", round, round));
        }
        redis_thaw(r);
        for (int i = 0; i < 8; i++) {
            expect_next(c[i], i % 2 == 0 ? "nil" : "_");
            expect_next(c[i], i % 2 == 0 ? "[nil nil]" : "[_ _]");
        }
    }
}

static const char *hello_without_id(struct client *c, const char *fmt, const char *arg)
{
    char *text = cleanup_printf("%s", ask(c, fmt, arg));
    char *id = strstr(text, "$id :");

    if (id != NULL) {
        id += strlen("$id :");
        size_t digits = strspn(id, "0123456789");
        memmove(id, id + digits, strlen(id + digits) + 1);
    }
    return text;
}

SCENARIO(resp3, hello_answers_as_redis_does_in_all_its_forms)
{
    static const char *const forms[] = {
        "",
        "2",
        "3",
        "",
        "3 SETNAME a",
        "2 SETNAME b",
        "3 AUTH default any",
        "3 AUTH default any SETNAME c",
        "3 SETNAME d AUTH default any",
        "2 setname e auth default any",
        "3 AUTH nobody any",
        "2",
        "3 AUTH default",
        "3 SETNAME",
        "3 SETNAME 'bad name'",
        "3 SETNAME \"bad\\nname\"",
        "3 NONSENSE",
        "3 'non sense'",
        "3 AUTH nobody any SETNAME f",
        "4",
        "1",
        "0",
        "-1",
        "x",
        "'3 '",
        "99999999999999999999",
        "4 SETNAME g",
        "SETNAME h",
        "3",
        "3 SETNAME ''",
        "2",
    };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *direct = client_connect(r->port);
    struct client *c = nearside_connect(n);

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        const char *want = hello_without_id(direct, "HELLO %s", forms[i]);
        cr_assert_str_eq(hello_without_id(c, "HELLO %s", forms[i]), want, "HELLO %s", forms[i]);
        same_bytes(direct, c, "CLIENT GETNAME", NULL, NULL);
        same_bytes(direct, c, "GET none", NULL, NULL);
    }
    const char *id = cleanup_printf("$id %s ", ask(c, "CLIENT ID"));
    const char *hello = ask(c, "HELLO 3");
    cr_assert_not_null(strstr(hello, id), "'%s' is not in %s", id, hello);
}

SCENARIO(resp3, a_switch_in_the_middle_of_a_pipeline_keeps_the_order)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    const char *hello2 = cleanup_printf("[%s $proto :2 ...", redis_greeting(r));
    const char *hello3 = cleanup_printf("%%[%s $proto :3 ...", redis_greeting(r));

    nearside_await_fills(n);
    for (int i = 0; i < 100; i++) {
        cr_assert(client_send_text(
            c, "HELLO 3\r\nSET k v\r\nGET none\r\nHSET h f v\r\nHGETALL h\r\nGET k\r\nPING\r\n"
               "HELLO 2\r\nGET none\r\nHGETALL h\r\nGET k\r\nMGET none k\r\nDEL h\r\n"));
    }
    for (int i = 0; i < 100; i++) {
        expect_next(c, hello3);
        expect_next(c, "+OK");
        expect_next(c, "_");
        expect_next(c, ":1");
        expect_next(c, "%[$f $v]");
        expect_next(c, "$v");
        expect_next(c, "+PONG");
        expect_next(c, hello2);
        expect_next(c, "nil");
        expect_next(c, "[$f $v]");
        expect_next(c, "$v");
        expect_next(c, "[nil $v]");
        expect_next(c, ":1");
    }
}

SCENARIO(resp3, a_switch_that_is_refused_changes_nothing)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    cr_assert(client_send_text(c, "GET none\r\nHELLO 4\r\nGET none\r\nHELLO 3 BAD\r\nGET none\r\n"
                                  "HELLO 3\r\nHELLO 9\r\nGET none\r\n"));
    expect_next(c, "nil");
    expect_next(c, "-NOPROTO...");
    expect_next(c, "nil");
    expect_next(c, "-ERR Syntax error...");
    expect_next(c, "nil");
    expect_next(c, "%[...");
    expect_next(c, "-NOPROTO...");
    expect_next(c, "_");
}

SCENARIO(resp3, the_version_can_change_while_keys_are_watched)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "WATCH k");
    expect(c, "nil", "GET k");
    expect(c, "%[$server ...", "HELLO 3");
    expect(c, "_", "GET k");
    expect(c, "[$server ...", "HELLO 2");
    expect(c, "nil", "GET k");
    expect(c, "%[$server ...", "HELLO 3");
    expect(r->direct, "+OK", "SET k 1");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k 2");
    expect(c, "_", "EXEC");
    expect(c, "$1", "GET k");
    expect(c, "_", "GET none");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
    /* the connection that was left behind suits its next user */
    struct client *two = nearside_connect(n);
    expect(two, "nil array", "BLPOP none 0.01");
    expect(c, "_", "BLPOP none 0.01");
}

SCENARIO(resp3, reset_goes_back_to_version_2)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = client_connect_as(n->port, 3);

    expect(c, "_", "GET none");
    expect(c, "+RESET", "RESET");
    expect(c, "nil", "GET none");
    expect(c, "nil", "CLIENT GETNAME");
}

SCENARIO(resp3, info_is_a_verbatim_text_with_our_section_in_it)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = client_connect_as(n->port, 3);

    client_command(c, "INFO");
    const struct reply *all = client_reply(c);
    cr_assert(all->type == '=' && strncmp(all->text, "txt:# Server", 12) == 0);
    cr_assert_not_null(strstr(all->text, "# Nearside"));
    client_command(c, "INFO nearside");
    const struct reply *ours = client_reply(c);
    cr_assert(ours->type == '=' && strncmp(ours->text, "txt:# Nearside", 14) == 0);
    client_command(c, "INFO server");
    const struct reply *theirs = client_reply(c);
    cr_assert(theirs->type == '=' && strstr(theirs->text, "# Nearside") == NULL);
}

SCENARIO(resp3, a_write_of_one_version_is_seen_by_the_other_at_once)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *two = nearside_connect(n);
    struct client *three = client_connect_as(n->port, 3);

    nearside_await_fills(n);
    for (int i = 0; i < 200; i++) {
        expect(two, "+OK", "SET k %d", i);
        expect(three, cleanup_printf("$%d", i), "GET k");
        expect(three, ":1", "DEL k");
        expect(two, "nil", "GET k");
        expect(three, "_", "GET k");
    }
}

SCENARIO(resp3, who_did_not_ask_for_pushes_gets_none)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = client_connect_as(n->port, 3);

    nearside_await_fills(n);
    for (int i = 0; i < 100; i++) {
        expect(r->direct, "+OK", "SET k %d", i);
        (void)ask(r->direct, "PUBLISH ch %d", i);
        const char *got = ask(c, "GET k");
        cr_assert(got[0] == '$', "%s", got);
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "GET k");
        expect(c, "[...", "EXEC");
    }
    cr_assert(!client_readable(c, 50));
}

SCENARIO(resp3, large_replies_and_errors_pass_in_both_versions)
{
    enum { SIZE = 3 * 1024 * 1024 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c[2] = {nearside_connect(n), client_connect_as(n->port, 3)};

    store_value(r->direct, "large", SIZE);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2; i++) {
            expect(c[i], cleanup_printf("$(%d bytes)", SIZE), "GET large");
            expect(c[i], i == 0 ? "nil" : "_", "GET none");
            expect(c[i], "-WRONGTYPE ...", "LPUSH large x");
            expect(c[i], cleanup_printf(":%d", SIZE), "STRLEN large");
        }
    }
}

SCENARIO(resp3, a_server_without_hello_says_so)
{
    static const char *const extra[] = {"--rename-command", "HELLO", "", NULL};
    struct redis *r = redis_start(extra);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 3; i++) {
        expect(c, "-ERR unknown command...", "HELLO 3");
        expect(c, "nil", "GET none");
        expect(c, "-ERR unknown command...", "HELLO");
        expect(c, "+OK", "WATCH k");
        expect(c, "-ERR unknown command...", "HELLO 3");
        expect(c, "nil", "GET none");
        expect(c, "+OK", "UNWATCH");
    }
}

/* ---- What scripts can make of a reply ---------------------------------------------------------- */

SCENARIO(resp3, strange_replies_of_scripts_pass_through)
{
    static const char *const scripts[] = {
        "EVAL 'redis.setresp(3) return {big_number=\"123\\r\\n123\"}' 0",
        "EVAL 'redis.setresp(3) return {double=1/0}' 0",
    };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);

    for (int proto = 2; proto <= 3; proto++) {
        struct client *proxied = nearside_connect(n);
        struct client *direct = client_connect(r->port);
        (void)ask(proxied, "HELLO %d", proto);
        (void)ask(direct, "HELLO %d", proto);
        for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
            const char *want = cleanup_printf("%s", ask(direct, "%s", scripts[i]));
            cr_expect_str_eq(ask(proxied, "%s", scripts[i]), want, "%s", scripts[i]);
        }
        size_t n_direct = 0;
        size_t n_proxied = 0;
        cr_assert(client_command(direct, "EVAL 'local a={} a[1]=a return a' 0"));
        cr_assert(client_command(proxied, "EVAL 'local a={} a[1]=a return a' 0"));
        const char *want = client_read_until(direct, "stack limit\r\n", &n_direct);
        const char *got = client_read_until(proxied, "stack limit\r\n", &n_proxied);
        cr_expect(n_direct > 20000 && n_direct == n_proxied && memcmp(want, got, n_direct) == 0);
        expect(proxied, "+PONG", "PING");
    }
    cr_assert_eq(nearside_info(n, "upstream_errors"), 0);
}
