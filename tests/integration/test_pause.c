/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pause.c: CLIENT PAUSE through the proxy holds back what Redis holds back, and nothing else.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

TestSuite(pause);

struct blocked {
    struct redis *r;
    int n;
};

static bool are_blocked(void *ctx)
{
    const struct blocked *b = ctx;
    return redis_info(b->r, "blocked_clients") == b->n;
}

static void await_blocked(struct redis *r, int n)
{
    struct blocked b = {r, n};
    cr_assert(await(are_blocked, &b, 5000 * slowdown()), "%lld blocked clients, not %d",
              redis_info(r, "blocked_clients"), n);
}

static const char *const held[][2] = {
    {"SET k new", "+OK"},       {"EVAL \"return redis.call('incr', 'n')\" 0", ":1"},
    {"PUBLISH none x", ":0"},   {"PFCOUNT h", ":0"},
    {"near.unknown x", "-..."}, {"BLPOP l 0", "[$l $v]"},
};
#define HELD (sizeof(held) / sizeof(held[0]))

SCENARIO(pause, writes_wait_and_reads_do_not)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *writers[HELD];

    expect(c, "+OK", "SET k old");
    expect(c, ":1", "RPUSH l v");
    expect(c, "+OK", "CLIENT PAUSE 100000 WRITE");
    for (size_t i = 0; i < HELD; i++) {
        writers[i] = nearside_connect(n);
        cr_assert(client_command(writers[i], "%s", held[i][0]));
    }
    await_blocked(r, HELD - 1); /* an unknown command is answered at once */
    expect_next(writers[4], held[4][1]);
    for (int i = 0; i < 20; i++) {
        expect(i % 2 == 0 ? c : nearside_connect(n), "$old", "GET k");
        expect(i % 2 == 0 ? c : nearside_connect(n), ":3", "STRLEN k");
    }
    expect(c, "+OK", "CLIENT UNPAUSE");
    for (size_t i = 0; i < HELD; i++) {
        if (i != 4) {
            expect_next(writers[i], held[i][1]);
        }
    }
    await_reply(c, "$new", 5000, "GET k");
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
}

SCENARIO(pause, it_begins_with_the_transaction_that_says_so)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *writer = nearside_connect(n);

    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k 1");
    expect(c, "+QUEUED", "CLIENT PAUSE 100000 WRITE");
    expect(c, "+QUEUED", "SET k 2");
    expect(c, "[+OK +OK +OK]", "EXEC");
    for (int i = 0; i < 3; i++) {
        cr_assert(client_command(writer, "SET k %d", 3 + i)); /* a pipeline */
    }
    await_blocked(r, 1);
    expect(c, "$2", "GET k");
    expect(c, "$2", "GETRANGE k 0 -1");
    expect(c, "+OK", "CLIENT UNPAUSE");
    for (int i = 0; i < 3; i++) {
        expect_next(writer, "+OK");
    }
    await_reply(c, "$5", 5000, "GET k");
}

/* Without a connection of its own a write waits on its lane, as in any pause that is not known here. */
SCENARIO(pause, too_many_writers_wait_all_the_same)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.max_pinned=4", NULL);
    struct client *c = nearside_connect(n);
    struct client *writers[6];

    expect(c, "+OK", "CLIENT PAUSE 100000 WRITE");
    for (int i = 0; i < 6; i++) {
        writers[i] = nearside_connect(n);
        cr_assert(client_command(writers[i], "INCR k"));
        nearside_await_info(n, "pinned_connections", i < 2 ? i + 1 : 2, 2, 5000);
    }
    expect(c, "+OK", "MULTI"); /* half of them are left for others, */
    expect(c, "+QUEUED", "PING");
    expect(c, "[+PONG]", "EXEC");
    expect(c, "+OK", "CLIENT UNPAUSE"); /* and for this */
    int sum = 0;
    for (int i = 0; i < 6; i++) {
        const char *got = client_read(writers[i]);
        cr_assert(got[0] == ':', "%s", got);
        sum += got[1] - '0';
    }
    cr_assert_eq(sum, 1 + 2 + 3 + 4 + 5 + 6);
}

/* What Redis refuses is no pause: writes go together on shared connections as ever. */
SCENARIO(pause, that_is_refused_is_none)
{
    struct redis *r = redis_start(NULL);
    expect(r->direct, "+OK", "%s", "ACL SETUSER some on nopass +@all -client|pause ~* &*");
    struct nearside *n =
        nearside_start(r->port, "upstream.user=some", "upstream.password=any", NULL);
    struct client *c = nearside_connect(n);
    static const char *const tries[][4] = {
        {"CLIENT PAUSE 100000 WRITE", NULL},
        {"CLIENT PAUSE x WRITE", NULL},
        {"MULTI", "CLIENT PAUSE 100000", "EXEC", NULL},
        {"MULTI", "SET k v", "DISCARD", NULL},
    };

    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        for (int k = 0; tries[i][k] != NULL; k++) {
            (void)ask(c, "%s", tries[i][k]);
        }
        nearside_await_info(n, "pinned_connections", 0, 0, 5000);
        long long connections = redis_info(r, "total_connections_received");
        struct client *writers[8];
        for (int k = 0; k < 8; k++) {
            writers[k] = nearside_connect(n);
            cr_assert(client_command(writers[k], "INCR n"));
        }
        for (int k = 0; k < 8; k++) {
            (void)client_read(writers[k]);
            client_close(writers[k]);
        }
        cr_assert_leq(redis_info(r, "total_connections_received"), connections + 1);
    }
}

SCENARIO(pause, one_that_is_refused_does_not_end_another)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);
    struct client *writer = nearside_connect(n);

    expect(c, "+OK", "CLIENT PAUSE 100000 WRITE");
    expect(c, "-ERR CLIENT PAUSE mode...", "CLIENT PAUSE 5 NOPE");
    cr_assert(client_command(writer, "SET k 1"));
    await_blocked(r, 1);
    cr_assert_eq(nearside_info(n, "pinned_connections"), 1); /* where it holds nobody up */
    expect(c, "+OK", "CLIENT UNPAUSE");
    expect_next(writer, "+OK");
}

SCENARIO(pause, of_all_commands_ends_by_itself)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    expect(c, "+OK", "CLIENT PAUSE 700");
    int64_t began = now_ms();
    cr_assert(client_command(other, "STRLEN k"));
    expect(c, ":1", "EXISTS k");
    expect_next(other, ":1");
    cr_assert_geq(now_ms() - began, 500);
    expect(c, "+OK", "SET k w");
    await_reply(other, "$w", 5000, "GET k");
}
