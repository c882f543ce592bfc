/* SPDX-License-Identifier: Apache-2.0
 *
 * test_turns.c: what one turn of a worker's loop may do to its clients. Nobody is closed for what the
 * proxy itself let pile up within a turn, or for time in which it stood still; what waits for its
 * turn is bounded; and input that had to wait is served by the clock of the moment it is served.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <stdlib.h>
#include <string.h>

TestSuite(turns);

/* ---- What piles up within a turn ------------------------------------------------------------ */

SCENARIO(turns, a_pipeline_of_large_hits_is_answered_to_a_client_that_reads)
{
    enum { COUNT = 400, SIZE = 900 * 1000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    size_t size;

    nearside_await_fills(n);
    store_value(c, "hot", SIZE);
    for (int i = 0; i < 2; i++) {
        expect(c, cleanup_printf("$(%d bytes)", SIZE), "GET hot");
    }
    long long hits = nearside_info(n, "l1_hits");
    char *gets = command_repeated("GET hot", COUNT, &size);
    cr_assert(client_send(c, gets, size));
    const size_t one = (size_t)SIZE + sizeof("$900000\r\n\r\n") - 1;
    char *got = cleanup_alloc(one);
    for (int i = 0; i < COUNT; i++) {
        cr_assert(client_read_bytes(c, got, one) == one, "closed after %d of %d replies", i, COUNT);
        cr_assert(memcmp(got, "$900000\r\nv", 10) == 0 && memcmp(got + one - 3, "v\r\n", 3) == 0);
    }
    expect(c, "+PONG", "PING");
    cr_assert_eq(nearside_info(n, "l1_hits"), hits + COUNT);
    cr_assert_eq(nearside_info(n, "clients_closed_output"), 0);
}

SCENARIO(turns, replies_that_wait_behind_a_slow_command_are_bounded_and_all_answered)
{
    enum { COUNT = 700000 };
    static const char pong[] = "+PONG\r\n";
    const size_t one = sizeof(pong) - 1;
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.dead_after=30s", NULL);
    struct client *c = nearside_connect(n);
    size_t size;

    expect(c, "+OK", "SET k v");
    char *pings = command_repeated("PING", COUNT, &size);
    int64_t before = process_rss_kb(n->process);
    redis_freeze(r);
    cr_assert(client_command(c, "SET k w"));
    size_t sent = client_send_some(c, pings, size, 500);
    int64_t grown = process_rss_kb(n->process) - before;
    cr_assert(is_sanitized() || grown < 16 * 1024, "grew by %lld kB", (long long)grown);
    cr_assert(nearside_info(n, "client_memory") < 16 * 1024 * 1024);
    redis_thaw(r);
    cr_assert(client_send(c, pings + sent, size - sent));
    expect_next(c, "+OK");
    char *got = cleanup_alloc(COUNT * one);
    cr_assert_eq(client_read_bytes(c, got, COUNT * one), COUNT * one);
    for (size_t i = 0; i < COUNT; i++) {
        cr_assert(memcmp(got + i * one, pong, one) == 0, "reply %zu is not +PONG", i);
    }
    expect(c, "$w", "GET k");
}

/* ---- Time in which the proxy stood still ---------------------------------------------------- */

SCENARIO(turns, a_standstill_of_the_proxy_is_not_held_against_its_clients)
{
    enum { COUNT = 12, SIZE = 1000 * 1000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", "proxy.timeout=1s",
                                        "proxy.stalled_output=1s", NULL);
    struct client *setter = nearside_connect(n);
    size_t size;

    store_value(setter, "k", SIZE);
    struct client *reader = client_connect_small(n->port, 64 * 1024);
    char *gets = command_repeated("GET k", COUNT, &size);
    cr_assert(client_send(reader, gets, size));
    nearside_await_info(n, "client_memory", SIZE, 100LL * SIZE, 3000);
    struct client *idle = nearside_connect(n);
    struct client *left = nearside_connect(n);
    expect(idle, "+PONG", "PING");
    expect(left, "+PONG", "PING");
    /* what waits upstream is counted when the worker looks at deadlines: it has seen the reader then */
    redis_freeze(r);
    cr_assert(client_command(setter, "APPEND a b"));
    nearside_await_info(n, "pending", 1, 10, 10000);
    redis_thaw(r);
    expect_next(setter, ":1");
    process_freeze(n->process);
    pass_time(1600);
    process_thaw(n->process);
    /* the worker has looked at all deadlines by the time it answers this */
    cr_assert_eq(nearside_info(n, "clients_closed_output"), 0);
    cr_assert_eq(nearside_info(n, "clients_closed_idle"), 0);
    expect(idle, "+PONG", "PING");
    for (int i = 0; i < COUNT; i++) {
        expect_next(reader, cleanup_printf("$(%d bytes)", SIZE));
    }
    expect(reader, "+PONG", "PING");
    /* what it excuses is that time and no more */
    expect_next(left, "closed");
    nearside_await_info(n, "clients_closed_idle", 1, 100, 3000);
}

/* ---- The clock ------------------------------------------------------------------------------ */

/* A GET waits behind a write of another key, which waits for the reply to a GET of that key, which
 * comes when the hot value's time is over. */
SCENARIO(turns, a_get_that_had_to_wait_is_not_answered_by_the_clock_of_its_arrival)
{
    enum { ROUNDS = 20 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    expect(r->direct, "+OK", "DEBUG SET-ACTIVE-EXPIRE 0");
    long long stalls = nearside_info(n, "order_stalls");
    for (int i = 0; i < ROUNDS; i++) {
        int64_t deadline = wall_ms() + 40;
        expect(r->direct, "+OK", "SET hot%d v PXAT %lld", i, (long long)deadline);
        (void)ask(c, "GET hot%d", i); /* on a slow machine its time may be over already */
        redis_freeze(r);
        char *pipeline = cleanup_printf("GET m%d\r\nSET m%d x\r\nGET hot%d\r\n", i, i, i);
        cr_assert(client_send_text(c, pipeline));
        while (wall_ms() < deadline + 3) {
            pass_time(1);
        }
        redis_thaw(r);
        expect_next(c, "nil");
        expect_next(c, "+OK");
        const char *got = client_read(c);
        cr_assert(strcmp(got, "nil") == 0, "round %d: '%s' after its time to live", i, got);
    }
    cr_assert(nearside_info(n, "order_stalls") >= stalls + ROUNDS, "nothing had to wait");
}

/* A pipeline of any length is served in shares, between which others come. */
SCENARIO(turns, a_long_pipeline_lets_others_go_first_and_is_served_in_order)
{
    enum { COUNT = 20000, SHARE = 512 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);
    size_t size;

    expect(c, "+OK", "SET k v");
    expect(c, "$v", "GET k");
    expect(c, "$v", "GET k");
    char *gets = command_repeated("GET k", COUNT, &size);
    long long before = nearside_info(n, "turns_shared");
    cr_assert(client_send(c, gets, size) && client_send(c, "PING\r\n", 6));
    for (int i = 0; i < COUNT; i++) {
        expect_next(c, "$v");
    }
    expect_next(c, "+PONG");
    long long shared = nearside_info(n, "turns_shared") - before;
    cr_assert(shared >= 3 && shared <= COUNT / SHARE, "others could go first %lld times", shared);
}

/* ---- Looking for more before sleeping ------------------------------------------------------- */

SCENARIO(turns, a_worker_that_polls_busily_answers_and_sleeps_when_there_is_nothing)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.busy_poll=1000", "proxy.workers=2", NULL);
    struct client *clients[2] = {nearside_connect(n), nearside_connect(n)};

    for (int i = 0; i < 200; i++) {
        expect(clients[i % 2], "+OK", "SET k %d", i);
        expect(clients[(i + 1) % 2], cleanup_printf("$%d", i), "GET k");
    }
    int64_t before = process_cpu_ms(n->process);
    pass_time(1000); /* two workers that never sleep would take 2000 ms */
    cr_expect_lt(process_cpu_ms(n->process) - before, 500);
    expect(clients[0], "$199", "GET k");
    nearside_stop(n, 5000);
}
