/* SPDX-License-Identifier: Apache-2.0
 *
 * test_single.c: the proxy before one Redis server, with nothing going wrong: what every client may
 * rely on. Each test has servers of its own. Whether Redis was asked is read from Redis's own
 * commandstats, never from the proxy's word alone.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

TestSuite(single);

SCENARIO(single, what_one_client_sets_every_client_gets)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);

    expect(a, "+OK", "SET greeting 'hello world'");
    expect(b, "$hello world", "GET greeting");
    expect(b, "$hello world", "GET greeting");
    expect(r->direct, "$hello world", "GET greeting");
}

SCENARIO(single, a_repeated_get_does_not_reach_redis)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);

    nearside_await_fills(n);
    expect(r->direct, "+OK", "SET k v");
    expect(a, "$v", "GET k");
    long long calls = redis_calls(r, "get");
    long long hits = nearside_info(n, "l1_hits");
    for (int i = 0; i < 200; i++) {
        expect(a, "$v", "GET k");
        expect(b, "$v", "GET k");
    }
    cr_assert_eq(redis_calls(r, "get"), calls);
    cr_assert_eq(nearside_info(n, "l1_hits"), hits + 400);
}

SCENARIO(single, a_missing_key_is_asked_for_once)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);

    nearside_await_fills(n);
    expect(a, "nil", "GET nobody");
    long long calls = redis_calls(r, "get");
    for (int i = 0; i < 50; i++) {
        expect(a, "nil", "GET nobody");
        expect(b, "nil", "GET nobody");
    }
    cr_assert_eq(redis_calls(r, "get"), calls);
    cr_assert_geq(nearside_info(n, "l1_negative_hits"), 100);
}

SCENARIO(single, a_missing_key_is_asked_for_each_time_without_negative_ttl)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "l1.negative_ttl=0", NULL);
    struct client *c = nearside_connect(n);
    long long calls = redis_calls(r, "get");

    for (int i = 0; i < 10; i++) {
        expect(c, "nil", "GET nobody");
    }
    cr_assert_eq(redis_calls(r, "get"), calls + 10);
}

SCENARIO(single, mget_is_answered_whole_and_fills_the_cache)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    expect(r->direct, "+OK", "MSET a 1 b 2 c 3");
    expect(c, "[$1 $2 nil $3 $1]", "MGET a b none c a");
    long long gets = redis_calls(r, "get") + redis_calls(r, "mget");
    expect(c, "$2", "GET b");
    expect(c, "[$3 $1 nil $3]", "MGET c a none c");
    cr_assert_eq(redis_calls(r, "get") + redis_calls(r, "mget"), gets);
}

/* A command over that many keys; owned by the test. */
static const char *wide(const char *name, int count)
{
    char *line = cleanup_alloc((size_t)count * 16 + strlen(name) + 1);
    size_t n = (size_t)sprintf(line, "%s", name);

    for (int i = 0; i < count; i++) {
        n += (size_t)sprintf(line + n, " key%d", i);
    }
    return line;
}

/* Is a key that was never asked for kept from its first GET on? */
static void expect_kept(struct redis *r, struct nearside *n, struct client *c, const char *after)
{
    nearside_await_info(n, "l1_writes_in_flight", 0, 0, 2000);
    const char *key = cleanup_printf("after %s", after);
    expect(c, "nil", "GET '%s'", key);
    long long gets = redis_calls(r, "get");
    for (int i = 0; i < 5; i++) {
        expect(c, "nil", "GET '%s'", key);
    }
    cr_assert(redis_calls(r, "get") == gets, "after %s nothing is kept any more", after);
}

SCENARIO(single, a_read_of_more_keys_than_are_listed_does_not_keep_l1_from_filling)
{
    static const char *const reads[] = {"EXISTS", "TOUCH", "MGET"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    expect(c, "+OK", "MSET key0 a key1499 b");
    for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
        const char *got = ask(c, "%s", wide(reads[i], 1500));
        cr_assert(matches(got, i < 2 ? ":2" : "[$a nil nil ..."), "%s: '%.100s'", reads[i], got);
        expect_kept(r, n, c, reads[i]);
    }
}

/* Redis's announcements are held back, so that only the proxy itself can have dropped them. */
SCENARIO(single, a_write_of_more_keys_than_are_listed_drops_them_and_l1_fills_again)
{
    enum { KEYS = 2000 };
    static const char *const writes[] = {"DEL", "UNLINK"};
    static const char *const keys[] = {"key0", "key1000", "key1999"};
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, "TRACKING");
    struct nearside *n =
        nearside_start(relay_port(link), "proxy.workers=1", "invalidation.link_lease=10s", NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);

    nearside_await_fills(n);
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        expect(a, "+OK", "MSET key0 v key1000 v key1999 v");
        for (int again = 0; again < 2; again++) {
            expect(a, "[$v $v $v]", "MGET key0 key1000 key1999");
        }
        relay_hold(link, RELAY_DOWN, true);
        expect(a, ":3", "%s", wide(writes[i], KEYS));
        for (int k = 0; k < 3; k++) {
            cr_assert(client_command(b, "GET %s", keys[k]));
        }
        cr_assert(!client_readable(b, 20), "after %s a key is still there", writes[i]);
        relay_release(link);
        for (int k = 0; k < 3; k++) {
            expect_next(b, "nil");
        }
        expect_kept(r, n, b, writes[i]);
    }
}

SCENARIO(single, keys_and_values_may_hold_any_byte)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    char all[256];

    for (int i = 0; i < 256; i++) {
        all[i] = (char)i;
    }
    cr_assert(client_command_big(c, "SET \"a\\r\\n\\x00b\"", all, sizeof(all)));
    expect_next(c, "+OK");
    for (int round = 0; round < 2; round++) {
        cr_assert(client_command(c, "GET \"a\\r\\n\\x00b\""));
        const struct reply *reply = client_reply(c);
        cr_assert(reply->type == '$' && reply->n == sizeof(all));
        cr_assert(memcmp(reply->text, all, sizeof(all)) == 0);
    }
    expect(c, "+OK", "SET '' ''");
    expect(c, "$", "GET ''");
    expect(c, "$", "GET ''");
    expect(c, "nil", "GET \"a\\r\\n\"");
}

/* Both ways through the proxy, read on other connections than it was written on. */
static void round_trip(struct nearside *n, size_t size)
{
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);
    char *value = cleanup_alloc(size);

    for (size_t i = 0; i < size; i++) {
        value[i] = (char)('a' + (i * 31 + i / 4093) % 26);
    }
    cr_assert(client_command_big(a, "SET big", value, size));
    expect_next(a, "+OK");
    for (int round = 0; round < 2; round++) {
        cr_assert(client_command(b, "GET big"));
        const struct reply *reply = client_reply(b);
        cr_assert(reply->type == '$' && reply->n == size, "type %c, %zu of %zu bytes", reply->type,
                  reply->n, size);
        cr_assert(memcmp(reply->text, value, size) == 0, "%zu bytes came back different", size);
    }
    expect(a, "+PONG", "PING");
}

SCENARIO(single, values_of_any_size_come_back_as_they_were)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    const size_t sizes[] = {1, 511, 512, 4096, 16383, 16384, 16385, 65536, 1000000, 1100000};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        round_trip(n, sizes[i]);
    }
}

SCENARIO(single, a_value_of_64_mib_makes_the_round_trip)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    round_trip(n, (size_t)64 * 1024 * 1024);
}

SCENARIO(single, replies_equal_those_of_redis_byte_for_byte)
{
    static const char *const lines[] = {
#define PASS(line) line,
#include "passthrough.def"
#undef PASS
    };
    /* a command that is slow by chance shows in SLOWLOG LEN */
    static const char *const extra[] = {"--slowlog-log-slower-than", "-1", NULL};
    struct redis *behind = redis_start(extra);
    struct redis *alone = redis_start(extra);
    struct nearside *n = nearside_start(behind->port, NULL);
    struct client *c = nearside_connect(n);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        size_t got_n;
        size_t want_n;
        char *shown = cleanup_printf("%s", ask(c, "%s", lines[i]));
        const char *got = client_raw(c, &got_n);
        const char *want_shown = ask(alone->direct, "%s", lines[i]);
        const char *want = client_raw(alone->direct, &want_n);
        cr_expect(got_n == want_n && memcmp(got, want, want_n) == 0,
                  "%s: Redis says '%.300s', the proxy '%.300s'", lines[i], want_shown, shown);
    }
}

SCENARIO(single, what_is_not_supported_gets_one_clear_error)
{
    static const char *const lines[] = {"CLIENT TRACKING ON", "CLIENT TRACKING ON BCAST"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        const char *got = ask(c, "%s", lines[i]);
        cr_expect(got[0] == '-' && strlen(got) > 10, "%s: '%s'", lines[i], got);
        /* exactly one reply, and the connection goes on */
        expect(c, cleanup_printf("$after %zu", i), "ECHO 'after %zu'", i);
    }
}

SCENARIO(single, commands_about_the_connection_are_answered)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+PONG", "PING");
    expect(c, "$hello", "PING hello");
    expect(c, "-ERR wrong number of arguments for 'ping' command", "PING a b");
    expect(c, "$x", "ECHO x");
    expect(c, "nil", "CLIENT GETNAME");
    expect(c, "+OK", "CLIENT SETNAME me");
    expect(c, "$me", "CLIENT GETNAME");
    expect(c, ":...", "CLIENT ID");
    expect(c, "+RESET", "RESET");
    expect(c, "+OK", "QUIT");
    expect_next(c, "closed");
}

SCENARIO(single, a_password_for_redis_is_used)
{
    struct redis *r = redis_start(NULL);

    expect(r->direct, "+OK", "CONFIG SET requirepass sesame");
    struct nearside *n = nearside_start(r->port, "upstream.password=sesame", NULL);
    struct client *c = nearside_connect(n);
    await_reply(c, "+OK", 2000, "SET k v");
    expect(c, "$v", "GET k");
    cr_assert(strstr(nearside_log(n), "sesame") == NULL, "the password is in the log");
}

SCENARIO(single, a_wrong_password_for_redis_is_an_error_not_a_hang)
{
    struct redis *r = redis_start(NULL);

    expect(r->direct, "+OK", "CONFIG SET requirepass sesame");
    struct nearside *n = nearside_start(r->port, "upstream.password=mustard", NULL);
    struct client *c = nearside_connect(n);
    expect(c, "-...", "GET k");
    expect(c, "-...", "SET k v");
    cr_assert(strstr(nearside_log(n), "mustard") == NULL, "the password is in the log");
    expect(r->direct, "+OK", "CONFIG SET requirepass mustard");
    await_reply(c, "+OK", 15000, "SET k v");
}

SCENARIO(single, redis_cli_works_unchanged)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    const char *port = cleanup_printf("%d", n->port);
    const char *const set[] = {"redis-cli", "-p", port, "SET", "k", "from the shell", NULL};
    const char *const get[] = {"redis-cli", "-p", port, "GET", "k", NULL};

    cr_assert_str_eq(process_stdout(process_run(set, 10000)), "OK\n");
    for (int i = 0; i < 2; i++) {
        struct process *p = process_run(get, 10000);
        cr_assert_str_eq(process_stdout(p), "from the shell\n");
        cr_assert_eq(process_status(p), 0);
    }
}

static void benchmark(struct nearside *n, const char *tests, const char *depth, const char *size)
{
    const char *const argv[] = {"redis-benchmark",
                                "-p",
                                cleanup_printf("%d", n->port),
                                "-t",
                                tests,
                                "-n",
                                "2000",
                                "-c",
                                "50",
                                "-r",
                                "100",
                                "--threads",
                                "2",
                                "-P",
                                depth,
                                "-d",
                                size,
                                "--csv",
                                NULL};
    struct process *p = process_run(argv, 60000 * slowdown());
    const char *out = process_stdout(p);
    const char *err = process_stderr(p);

    cr_assert(process_status(p) == 0, "-P %s -d %s: status %d: %s%s", depth, size,
              process_status(p), out, err);
    cr_assert(strcasestr(out, "error") == NULL && strcasestr(err, "error") == NULL,
              "-P %s -d %s: %s%s", depth, size, out, err);
    cr_assert(strstr(out, "\"SET\"") != NULL, "no result: %s", out);
}

/* All that redis-benchmark knows by name; each takes it a third of a second, however little there is to do. */
static const char *const benchmarks =
    "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange,mset";

SCENARIO(single, redis_benchmark_runs_without_a_pipeline)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    benchmark(n, benchmarks, "1", "3");
    nearside_check_alive(n);
}

SCENARIO(single, redis_benchmark_runs_with_pipelines)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    benchmark(n, benchmarks, "16", "3");
    benchmark(n, "set,get,mset", "16", "20000");
    nearside_check_alive(n);
}

SCENARIO(single, redis_benchmark_runs_with_long_pipelines)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    benchmark(n, benchmarks, "64", "64");
    nearside_check_alive(n);
}
