/* SPDX-License-Identifier: Apache-2.0
 *
 * test_session.c: what belongs to one connection: transactions, WATCH, blocking commands, SELECT.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <stdio.h>

#include <string.h>

/* ---- Transactions --------------------------------------------------------------------------- */

SCENARIO(session, a_transaction_answers_as_redis_does)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k 1");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "INCR k");
    expect(c, "+QUEUED", "GET k");
    expect(c, "+QUEUED", "PING");
    expect(c, "[:2 $2 +PONG]", "EXEC");
    expect(c, "$2", "GET k");
    expect(c, "-ERR EXEC without MULTI", "EXEC");
    expect(c, "-ERR DISCARD without MULTI", "DISCARD");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k 9");
    expect(c, "+OK", "DISCARD");
    expect(c, "$2", "GET k");
    expect(c, "+OK", "MULTI");
    expect(c, "-ERR unknown command...", "NOSUCH");
    expect(c, "+QUEUED", "SET k 9");
    expect(c, "-EXECABORT...", "EXEC");
    expect(c, "$2", "GET k");
    expect(c, "+PONG", "PING");
    /* that it is refused, with one text or another, aborts the transaction of newer servers */
    expect(r->direct, "+OK", "MULTI");
    expect(c, "+OK", "MULTI");
    const char *refusal = cleanup_printf("%s", ask(r->direct, "MULTI"));
    cr_assert_eq(refusal[0], '-');
    expect(c, refusal, "MULTI");
    expect(r->direct, "+QUEUED", "PING");
    expect(c, "+QUEUED", "PING");
    const char *outcome = cleanup_printf("%s", ask(r->direct, "EXEC"));
    expect(c, outcome, "EXEC");
    expect(c, "$2", "GET k");
}

SCENARIO(session, a_transaction_that_is_pipelined_whole_stays_in_order)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 200; i++) {
        cr_assert(client_command(c, "SET k %d", i));
        cr_assert(client_command(c, "MULTI"));
        cr_assert(client_command(c, "INCR k"));
        cr_assert(client_command(c, "EXEC"));
        cr_assert(client_command(c, "GET k"));
    }
    for (int i = 0; i < 200; i++) {
        expect_next(c, "+OK");
        expect_next(c, "+OK");
        expect_next(c, "+QUEUED");
        expect_next(c, cleanup_printf("[:%d]", i + 1));
        expect_next(c, cleanup_printf("$%d", i + 1));
    }
}

SCENARIO(session, what_a_transaction_wrote_is_seen_by_all_clients_at_once)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=2", NULL);
    struct client *writer = nearside_connect(n);
    struct client *readers[4];

    for (int i = 0; i < 4; i++) {
        readers[i] = nearside_connect(n);
    }
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 4; i++) {
            (void)ask(readers[i], "MGET a b");
            (void)ask(readers[i], "GET a");
        }
        expect(writer, "+OK", "MULTI");
        expect(writer, "+QUEUED", "SET a %d", round);
        expect(writer, "+QUEUED", "EVAL 'return redis.call(\"set\",\"b\",ARGV[1])' 0 %d", round);
        expect(writer, "[+OK +OK]", "EXEC");
        for (int i = 0; i < 4; i++) {
            expect(readers[i], cleanup_printf("$%d", round), "GET a");
            expect(readers[i], cleanup_printf("[$%d $%d]", round, round), "MGET a b");
        }
    }
}

SCENARIO(session, a_flush_or_swap_inside_a_transaction_empties_the_cache)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *reader = nearside_connect(n);

    expect(c, "+OK", "SET k 1");
    expect(reader, "$1", "GET k");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SWAPDB 0 1");
    expect(c, "[+OK]", "EXEC");
    expect(reader, "nil", "GET k");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SWAPDB 0 1");
    expect(c, "+QUEUED", "FLUSHALL");
    expect(c, "[+OK +OK]", "EXEC");
    expect(reader, "nil", "GET k");
}

SCENARIO(session, watched_keys_abort_the_transaction_and_are_read_past_the_cache)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    expect(c, "+OK", "SET k 1");
    expect(c, "$1", "GET k");
    expect(c, "$1", "GET k");
    long long calls = redis_calls(r, "get");
    expect(c, "+OK", "WATCH k");
    expect(c, "$1", "GET k");
    cr_assert_eq(redis_calls(r, "get"), calls + 1, "a read after WATCH must reach Redis");
    expect(r->direct, "+OK", "SET k 2");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k 3");
    expect(c, "nil array", "EXEC");
    expect(c, "$2", "GET k");

    expect(c, "+OK", "WATCH k");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "INCR k");
    expect(c, "[:3]", "EXEC");
    expect(c, "+OK", "WATCH k");
    expect(c, "+OK", "UNWATCH");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
    expect(c, "$3", "GET k");
    calls = redis_calls(r, "get");
    expect(c, "$3", "GET k");
    cr_assert_eq(redis_calls(r, "get"), calls, "after UNWATCH the cache is used again");
}

SCENARIO(session, a_client_that_leaves_inside_multi_leaves_nothing_behind)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int i = 0; i < 10; i++) {
        struct client *c = nearside_connect(n);
        expect(c, "+OK", "WATCH k");
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "SET k 1");
        client_close(c);
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
    expect(r->direct, "nil", "GET k");
    /* a new client gets a clean session */
    struct client *c = nearside_connect(n);
    expect(c, "-ERR EXEC without MULTI", "EXEC");
    expect(c, "+OK", "MULTI");
    expect(c, "[]", "EXEC");
    const char *list = redis_clients(r);
    cr_assert_null(strstr(list, "multi=1"), "%s", list);
}

SCENARIO(session, reset_ends_a_transaction)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k 1");
    expect(c, "+RESET", "RESET");
    expect(c, "-ERR EXEC without MULTI", "EXEC");
    expect(c, "nil", "GET k");
}

SCENARIO(session, a_transaction_whose_connection_dies_closes_its_client)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);

    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k 1");
    (void)ask(r->direct, "CLIENT KILL TYPE normal SKIPME yes");
    cr_assert(client_drain_to_end(c), "its session is gone, and it was not told");
    await_reply(other, "nil", 5000, "GET k");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(session, pinned_connections_are_bounded)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.max_pinned=3", NULL);
    struct client *c[4];

    for (int i = 0; i < 4; i++) {
        c[i] = nearside_connect(n);
        expect(c[i], i < 3 ? "+OK" : "-ERR too many...", "MULTI");
    }
    expect(c[0], "[]", "EXEC");
    expect(c[3], "+OK", "MULTI");
}

SCENARIO(session, a_session_that_was_not_ended_is_nobody_elses)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);

    expect(a, "+OK", "MULTI");
    expect(a, "-ERR wrong number...", "DISCARD foo");
    expect(b, "nil array", "BLPOP list 0.01");
    expect(a, "-EXECABORT...", "EXEC");
    expect(a, "+OK", "WATCH k");
    expect(a, "-ERR wrong number...", "UNWATCH foo");
    expect(r->direct, "+OK", "SET k 1");
    expect(b, "+OK", "MULTI");
    expect(b, "+QUEUED", "SET k 2");
    expect(b, "[+OK]", "EXEC");
    expect(a, "+OK", "MULTI");
    expect(a, "nil array", "EXEC");
    expect(a, "-ERR CLIENT TRACKING ...", "CLIENT TRACKING ON");
    expect(a, "+PONG", "PING");
}

SCENARIO(session, nothing_of_a_transaction_is_executed_outside_it)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.max_pinned=1", NULL);
    struct client *holder = nearside_connect(n);
    struct client *c = nearside_connect(n);

    expect(holder, "+OK", "MULTI");
    expect(c, "-ERR too many...", "MULTI");
    expect(c, "-ERR MULTI was refused...", "SET k 1");
    expect(c, "-EXECABORT...", "EXEC");
    expect(c, "nil", "GET k");
    expect(c, "-ERR too many...", "MULTI");
    expect(c, "-ERR MULTI was refused...", "DISCARD");
    expect(c, "+OK", "SET k 2");
    expect(holder, "[]", "EXEC");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k 3");
    expect(c, "-ERR wrong number...", "RESET foo");
    expect(c, "-EXECABORT...", "EXEC");
    expect(c, "$2", "GET k");
}

static bool is_past(void *moment)
{
    return now_ms() > *(const int64_t *)moment;
}

/* Who goes on without EXEC, long after, has taken the refusal for an answer: what he asks for next is not executed, but what
 * he asks for on a new connection is. */
SCENARIO(session, a_refused_transaction_that_is_given_up_ends_the_connection)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.max_pinned=1", NULL);
    struct client *holder = nearside_connect(n);
    struct client *c = nearside_connect(n);

    expect(holder, "+OK", "MULTI");
    expect(c, "-ERR too many...", "MULTI");
    int64_t later = now_ms() + 1500;
    cr_assert(await(is_past, &later, 5000));
    expect(c, "-ERR MULTI was refused...", "SET k 1");
    cr_assert_str_eq(client_read(c), "closed");
    expect(nearside_connect(n), "nil", "GET k");
}

SCENARIO(session, a_transaction_without_a_server_gets_errors)
{
    struct nearside *n = nearside_start(free_port(), NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 3; i++) {
        expect(c, "-UPSTREAM ...", "MULTI");
        expect(c, "-ERR MULTI was refused...", "SET k 1");
        expect(c, "-EXECABORT...", "EXEC");
        expect(c, "+PONG", "PING");
    }
    cr_assert(client_send_text(c, "MULTI\r\nSET k 1\r\nEXEC\r\nPING\r\n"));
    expect_next(c, "-UPSTREAM ...");
    expect_next(c, "-...");
    expect_next(c, "-...");
    expect_next(c, "+PONG");
}

SCENARIO(session, a_flush_that_a_failed_multi_did_not_hold_empties_the_cache)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *reader = nearside_connect(n);

    for (int i = 0; i < 20; i++) {
        expect(c, "+OK", "SET k %d", i);
        expect(reader, cleanup_printf("$%d", i), "GET k");
        cr_assert(client_send_text(c, "MULTI foo\r\nSWAPDB 0 1\r\n"));
        expect_next(c, "-ERR wrong number...");
        expect_next(c, "+OK");
        const char *want = cleanup_printf("%s", ask(r->direct, "GET k"));
        expect(reader, want, "GET k");
    }
}

/* Redis has the EXEC when its client leaves, and executes it after a fetch that was sent later: nothing
 * announces a SWAPDB. */
SCENARIO(session, a_swap_whose_client_left_before_it_was_executed_is_seen)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "proxy.workers=1", "invalidation.link_lease=10s", NULL);
    struct client *c = nearside_connect(n);
    struct client *first = nearside_connect(n);
    struct client *second = nearside_connect(n);

    nearside_await_fills(n);
    expect(r->direct, "+OK", "SET k zero");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SWAPDB 0 1");
    redis_freeze(r);
    cr_assert(client_command(first, "GET k"));
    nearside_await_info(n, "l1_leases", 1, 1, 2000);
    cr_assert(client_command(c, "EXEC"));
    nearside_await_info(n, "commands_processed", 6, 1000, 2000);
    client_reset(c);
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
    cr_assert(client_command(second, "GET k"));
    nearside_await_info(n, "l1_leases", 1, 2, 2000);
    redis_thaw(r);
    (void)client_read(first);
    (void)client_read(second);
    await_reply(r->direct, "nil", 3000, "GET k");
    await_reply(second, "nil", 5000, "GET k");
    for (int i = 0; i < 100; i++) {
        expect(first, "nil", "GET k");
    }
}

SCENARIO(session, transactions_are_seen_whatever_is_trusted_of_scripts)
{
    struct redis *r = redis_start(NULL);
    struct relay *relay = relay_start(r->port, "TRACKING");
    struct nearside *n =
        nearside_start(relay_port(relay), "invalidation.unknown_writes=declared", NULL);
    struct client *c = nearside_connect(n);
    struct client *reader = nearside_connect(n);

    nearside_await_fills(n);
    for (int i = 0; i < 5; i++) {
        expect(r->direct, "+OK", "SET k old%d", i);
        await_reply(reader, cleanup_printf("$old%d", i), 3000, "GET k");
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "SET k new%d", i);
        relay_hold(relay, RELAY_DOWN, true); /* no announcement gets through */
        expect(c, "[+OK]", "EXEC");
        cr_assert(client_command(reader, "GET k"));
        relay_release(relay);
        expect_next(reader, cleanup_printf("$new%d", i));
    }
}

SCENARIO(session, replies_to_what_was_sent_before_a_half_close_arrive)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int i = 1; i <= 10; i++) {
        struct client *c = nearside_connect(n);
        cr_assert(client_send_text(c, "MULTI\r\nINCR k\r\nEXEC\r\n"));
        client_shutdown(c);
        expect_next(c, "+OK");
        expect_next(c, "+QUEUED");
        expect_next(c, cleanup_printf("[:%d]", i));
        expect_next(c, "closed");
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(session, a_transaction_that_piles_up_makes_its_client_wait)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.dead_after=30s", NULL);
    struct client *c = nearside_connect(n);
    char *value = cleanup_alloc(10001);
    size_t size;

    memset(value, 'v', 10000);
    expect(c, "+OK", "MULTI");
    char *sets = command_repeated(cleanup_printf("SET k %s", value), 10000, &size);
    redis_freeze(r);
    size_t sent = client_send_some(c, sets, size, 500);
    cr_assert(sent < size, "100 MB were taken while nothing was answered");
    redis_thaw(r);
    cr_assert(client_send(c, sets + sent, size - sent));
    for (int i = 0; i < 10000; i++) {
        expect_next(c, "+QUEUED");
    }
    expect(c, "+OK", "DISCARD");
}

/* ---- Blocking commands ---------------------------------------------------------------------- */

SCENARIO(session, blocking_commands_block_their_client_only)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *waiting = nearside_connect(n);
    struct client *other = nearside_connect(n);

    cr_assert(client_command(waiting, "BLPOP list 0"));
    cr_assert(client_command(waiting, "GET k"));
    for (int i = 0; i < 50; i++) {
        expect(other, "+OK", "SET k %d", i);
        expect(other, cleanup_printf("$%d", i), "GET k");
    }
    expect(other, ":1", "RPUSH list x");
    expect_next(waiting, "[$list $x]");
    expect_next(waiting, "$49");
    expect(waiting, "nil array", "BLPOP list 0.05");
    expect(waiting, "nil array", "XREAD BLOCK 10 STREAMS s $");
    expect(waiting, "nil...", "BLMOVE list list2 LEFT LEFT 0.05");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(session, a_client_blocks_for_longer_than_a_dead_node_is_waited_for)
{
    static const char *const modes[] = {"invalidation.mode=tracking", "invalidation.mode=off"};
    struct redis *r = redis_start(NULL);

    for (int i = 0; i < 2; i++) {
        struct nearside *n = nearside_start(r->port, "upstream.dead_after=500ms", modes[i], NULL);
        struct client *waiting = nearside_connect(n);
        expect(waiting, "nil array", "BLPOP list 2");
    }
}

SCENARIO(session, a_blocked_client_that_leaves_is_forgotten_by_redis)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int i = 0; i < 4; i++) {
        struct client *c = nearside_connect(n);
        cr_assert(client_command(c, "BLPOP list 0"));
        if (i > 0) { /* waits behind it: the socket is not read */
            cr_assert(client_command(c, i == 1 ? "GET k" : "QUIT"));
        }
        int64_t deadline = now_ms() + 5000;
        while (redis_info(r, "blocked_clients") < 1 && now_ms() < deadline) {
        }
        cr_assert_eq(redis_info(r, "blocked_clients"), 1);
        if (i == 3) {
            client_reset(c);
        } else {
            client_close(c);
        }
        deadline = now_ms() + 5000;
        while (redis_info(r, "blocked_clients") > 0 && now_ms() < deadline) {
        }
        cr_assert_eq(redis_info(r, "blocked_clients"), 0);
    }
    expect(r->direct, ":1", "RPUSH list x");
    expect(r->direct, "$x", "LPOP list");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(session, what_a_blocking_command_took_is_not_served_any_more)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=2", NULL);
    struct client *c = nearside_connect(n);
    struct client *reader = nearside_connect(n);

    for (int i = 0; i < 50; i++) {
        expect(c, ":1", "RPUSH list %d", i);
        expect(reader, "-WRONGTYPE...", "GET list");
        expect(c, cleanup_printf("[$list $%d]", i), "BLPOP list 0");
        expect(reader, "nil", "GET list");
        expect(c, "+OK", "SET list text");
        expect(reader, "$text", "GET list");
        expect(c, ":1", "DEL list");
    }
}

/* ---- SELECT ---------------------------------------------------------------------------------- */

SCENARIO(session, select_changes_the_database_of_one_client)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);

    expect(a, "+OK", "SET k zero");
    expect(a, "$zero", "GET k");
    expect(a, "+OK", "SELECT 5");
    expect(a, "nil", "GET k");
    expect(a, "+OK", "SET k five");
    expect(b, "$zero", "GET k");
    expect(a, "$five", "GET k");
    expect(a, "[$five nil]", "MGET k x");
    expect(a, "+OK", "MULTI");
    expect(a, "+QUEUED", "GET k");
    expect(a, "[$five]", "EXEC");
    expect(a, ":1", "MOVE k 1");
    expect(a, "+OK", "SELECT 1");
    expect(a, "$five", "GET k");
    expect(a, "+OK", "SELECT 0");
    expect(a, "$zero", "GET k");
    expect(a, ":0", "MOVE k 1");
    expect(a, ":1", "COPY k k2 DB 1");
    expect(a, "+RESET", "RESET");
    expect(a, "$zero", "GET k");
}

SCENARIO(session, select_is_refused_in_the_words_of_redis)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    static const char *const dbs[] = {"16", "99", "-1", "abc", "99999999999999"};

    for (size_t i = 0; i < sizeof(dbs) / sizeof(dbs[0]); i++) {
        const char *want = cleanup_printf("%s", ask(r->direct, "SELECT %s", dbs[i]));
        expect(c, want, "SELECT %s", dbs[i]);
        expect(c, want, "SELECT %s", dbs[i]);
        expect(c, "+OK", "SET k %zu", i);
        expect(r->direct, cleanup_printf("$%zu", i), "GET k");
    }
}

SCENARIO(session, a_pipeline_keeps_its_order_across_select)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 50; i++) {
        for (int db = 0; db < 4; db++) {
            cr_assert(client_command(c, "SELECT %d", db));
            cr_assert(client_command(c, "SET k %d-%d", db, i));
            cr_assert(client_command(c, "GET k"));
        }
    }
    for (int i = 0; i < 50; i++) {
        for (int db = 0; db < 4; db++) {
            expect_next(c, "+OK");
            expect_next(c, "+OK");
            expect_next(c, cleanup_printf("$%d-%d", db, i));
        }
    }
}

SCENARIO(session, reset_waits_for_what_was_asked_in_another_database)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 100; i++) {
        cr_assert(
            client_send_text(c, "SELECT 1\r\nSET k 1\r\nMOVE k 0\r\nRESET\r\nGET k\r\nDEL k\r\n"));
    }
    for (int i = 0; i < 100; i++) {
        expect_next(c, "+OK");
        expect_next(c, "+OK");
        expect_next(c, ":1");
        expect_next(c, "+RESET");
        expect_next(c, "$1");
        expect_next(c, ":1");
    }
}

SCENARIO(session, nothing_behind_a_blocked_command_is_executed)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *first = nearside_connect(n);
    struct client *second = nearside_connect(n);
    const char *id = cleanup_printf("%s", ask(first, "CLIENT ID") + 1);

    cr_assert(client_command(first, "BLPOP a 0"));
    cr_assert(client_command(second, "BLPOP b 0"));
    cr_assert(client_command(second, "CLIENT UNBLOCK %s ERROR", id));
    cr_assert(client_command(second, "CLIENT SETNAME late"));
    int64_t deadline = now_ms() + 5000;
    while (redis_info(r, "blocked_clients") < 2 && now_ms() < deadline) {
    }
    cr_assert_eq(redis_info(r, "blocked_clients"), 2);
    cr_assert(!client_readable(first, 50));
    cr_assert(strstr(ask(nearside_connect(n), "CLIENT LIST"), "late") == NULL);
    expect(r->direct, ":1", "RPUSH b x");
    expect_next(second, "[$b $x]");
    expect_next(second, ":1");
    expect_next(second, "+OK");
    expect_next(first, "-UNBLOCKED ...");
}

/* ---- SELECT in the middle of something -------------------------------------------------------- */

SCENARIO(session, select_works_while_keys_are_watched)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *reader = nearside_connect(n);

    expect(c, "+OK", "SET k zero");
    expect(reader, "$zero", "GET k");
    expect(c, "+OK", "WATCH k");
    expect(c, "+OK", "SELECT 3");
    expect(c, "nil", "GET k");
    expect(c, "+OK", "SET k three");
    expect(c, "-ERR DB index is out of range", "SELECT 99");
    expect(c, "$three", "GET k");
    expect(reader, "$zero", "GET k");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "GET k");
    expect(c, "[$three]", "EXEC");
    expect(c, "$three", "GET k");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
    /* who gets the connection next is not in its db */
    expect(reader, "+OK", "MULTI");
    expect(reader, "+QUEUED", "GET k");
    expect(reader, "[$zero]", "EXEC");
}

SCENARIO(session, select_can_be_queued)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *reader = nearside_connect(n);

    nearside_await_fills(n);
    for (int i = 0; i < 20; i++) {
        expect(c, "+OK", "SET k zero%d", i);
        expect(reader, cleanup_printf("$zero%d", i), "GET k");
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "SELECT 3");
        expect(c, "+QUEUED", "SET k three%d", i);
        expect(c, "[+OK +OK]", "EXEC");
        nearside_await_info(n, "pinned_connections", 0, 0, 2000);
        expect(c, cleanup_printf("$three%d", i), "GET k");
        expect(c, cleanup_printf("[$three%d nil]", i), "MGET k none");
        expect(reader, cleanup_printf("$zero%d", i), "GET k");
        /* and back in the same way: what it writes now is what the others read */
        cr_assert(client_send_text(c, "MULTI\r\nSELECT 0\r\nEXEC\r\n"));
        expect_next(c, "+OK");
        expect_next(c, "+QUEUED");
        expect_next(c, "[+OK]");
        expect(c, "+OK", "SET k new%d", i);
        expect(reader, cleanup_printf("$new%d", i), "GET k");
        expect(c, "+OK", "SELECT 0");
        expect(c, cleanup_printf("$new%d", i), "GET k");
        nearside_await_info(n, "pinned_connections", 0, 0, 2000);
    }
    /* discarded, or wrong: nothing has changed */
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SELECT 3");
    expect(c, "+OK", "DISCARD");
    expect(c, "$new19", "GET k");
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SELECT 99");
    expect(c, "[-ERR DB index is out of range]", "EXEC");
    expect(c, "$new19", "GET k");
    expect(c, "+RESET", "RESET");
    expect(c, "$new19", "GET k");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

/* ---- Whose db a connection is in ----------------------------------------------------------------- */

static void expect_home(struct nearside *n, struct redis *r)
{
    struct client *next = nearside_connect(n);
    expect(next, "+OK", "MULTI");
    expect(next, "+QUEUED", "SET home 1");
    expect(next, "[+OK]", "EXEC");
    expect(r->direct, "$1", "GET home");
}

SCENARIO(session, a_pooled_connection_that_was_lost_is_not_used_again)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "WATCH k");
    pass_time(1100); /* links that were up for so long come back at once */
    expect(c, "+OK", "SELECT 5");
    expect(c, "+OK", "UNWATCH");
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
    long long id = 0;
    char *list = cleanup_printf("%s", redis_clients(r));
    char *save = NULL;
    for (char *line = strtok_r(list, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strstr(line, " db=5 ") != NULL) {
            cr_assert_eq(sscanf(line, "id=%lld", &id), 1);
        }
    }
    cr_assert_gt(id, 0);
    expect(r->direct, ":1", "CLIENT KILL ID %lld", id);
    while (strstr(redis_clients(r), cleanup_printf("id=%lld ", id)) != NULL) {
    }
    expect(nearside_connect(n), "+PONG", "PING");
    pass_time(200); /* it is back, if it comes back */
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET x 5");
    expect(c, "[+OK]", "EXEC");
    expect(r->direct, "nil", "GET x");
    expect_home(n, r);
}

/* Noticed by the main thread, before the worker's next tick closes what leads to the old role. */
SCENARIO(session, a_pooled_connection_from_before_a_failover_is_not_used_again)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    /* or what it is now is not known to be another role */
    redis_await_calls(r, "role", 1, 5000 * slowdown());
    for (int round = 0; round < 6; round++) {
        expect(c, "+OK", "MULTI");
        expect(c, "[]", "EXEC");
        long long generation = nearside_info(n, "generation");
        expect(r->direct, "+OK", round % 2 == 0 ? "REPLICAOF 127.0.0.1 1" : "REPLICAOF NO ONE");
        nearside_await_info(n, "generation", generation + 1, generation + 9, 5000);
        expect(c, "+OK", "MULTI");
        expect(c, "[]", "EXEC");
    }
}

SCENARIO(session, a_select_in_the_second_of_two_transactions_is_followed)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);

    cr_assert(client_send_text(c, "MULTI\r\nDISCARD\r\nMULTI\r\nSELECT 5\r\nSET y A\r\nEXEC\r\n"));
    for (int i = 0; i < 5; i++) {
        expect_next(c, "+...");
    }
    expect_next(c, "[+OK +OK]");
    expect_home(n, r);
    expect(c, "$A", "GET y");
}

SCENARIO(session, a_select_behind_a_multi_that_was_refused_is_followed)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);

    expect(r->direct, "+OK", "ACL SETUSER default -multi");
    cr_assert(client_send_text(c, "MULTI\r\nSELECT 5\r\nSET y A\r\n"));
    expect_next(c, "-NOPERM ...");
    expect_next(c, "+OK");
    expect_next(c, "+OK");
    expect(r->direct, "+OK", "ACL SETUSER default +multi");
    expect_home(n, r);
    expect(c, "$A", "GET y");
}
