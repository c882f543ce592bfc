/* SPDX-License-Identifier: Apache-2.0
 *
 * test_limits.c: no client can take more than its share, and none is punished for using it. What a
 * limit costs is looked at from outside: the process's resident memory and CPU time in /proc, the
 * replies of other clients, and the counters that must name the reason of each close.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

TestSuite(limits);

#define MB ((size_t)1024 * 1024)

/* ---- Long pipelines ------------------------------------------------------------------------- */

SCENARIO(limits, a_pipeline_of_100_mb_may_be_written_before_anything_is_read)
{
    enum { COUNT = 1000, SIZE = 100 * 1024 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    char *value = cleanup_alloc(SIZE);

    memset(value, 'v', SIZE);
    for (int i = 0; i < COUNT; i++) {
        cr_assert(client_command_big(c, cleanup_printf("SET k%d", i % 10), value, SIZE),
                  "stuck after %d requests", i);
    }
    for (int i = 0; i < COUNT; i++) {
        expect_next(c, "+OK");
    }
    expect(c, "+PONG", "PING");
}

SCENARIO(limits, a_pipeline_of_a_million_small_requests_may_be_written_before_anything_is_read)
{
    enum { BLOCKS = 100, BLOCK = 10000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    size_t size;

    expect(c, "+OK", "SET key v");
    char *block = command_repeated("GET key", BLOCK, &size);
    for (int i = 0; i < BLOCKS; i++) {
        cr_assert(client_send(c, block, size), "stuck after %d blocks", i);
    }
    const char one[] = "$1\r\nv\r\n";
    size_t want = (size_t)BLOCKS * BLOCK * (sizeof(one) - 1);
    char *got = cleanup_alloc(want);
    cr_assert_eq(client_read_bytes(c, got, want), want);
    for (size_t i = 0; i < want; i += sizeof(one) - 1) {
        cr_assert(memcmp(got + i, one, sizeof(one) - 1) == 0);
    }
    expect(c, "+PONG", "PING");
}

SCENARIO(limits, replies_of_many_megabytes_may_wait_while_more_is_written)
{
    enum { COUNT = 900, SIZE = 100 * 1024 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    size_t gets_n;
    size_t reads_n;

    store_value(c, "k", SIZE);
    char *gets = command_repeated("GET k", COUNT, &gets_n);
    char *reads = command_repeated("GETRANGE k 0 -1", COUNT, &reads_n);
    cr_assert(client_send(c, gets, gets_n));
    cr_assert(client_send(c, reads, reads_n));
    for (int i = 0; i < 2 * COUNT; i++) {
        expect_next(c, cleanup_printf("$(%d bytes)", SIZE));
    }
    expect(c, "+PONG", "PING");
}

SCENARIO(limits, a_small_window_slows_a_pipeline_down_and_loses_nothing)
{
    enum { COUNT = 3000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.window=1", NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < COUNT; i++) {
        cr_assert(client_command(c, "SET k %d", i) && client_command(c, "GET k") &&
                  client_command(c, "INCR n"));
    }
    for (int i = 0; i < COUNT; i++) {
        expect_next(c, "+OK");
        expect_next(c, cleanup_printf("$%d", i));
        expect_next(c, cleanup_printf(":%d", i + 1));
    }
}

SCENARIO(limits, requests_beyond_the_window_wait_in_the_clients_socket)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "proxy.window=16", "upstream.dead_after=30s", NULL);
    struct client *c = nearside_connect(n);
    size_t size;

    expect(c, "+OK", "SET k v");
    char *value = cleanup_alloc(10001);
    memset(value, 'v', 10000);
    char *sets = command_repeated(cleanup_printf("SET k %s", value), 8000, &size);
    int64_t before = process_rss_kb(n->process);
    redis_freeze(r);
    size_t sent = client_send_some(c, sets, size, 500);
    cr_assert(sent < size, "80 MB were taken while nothing was answered");
    int64_t grown = process_rss_kb(n->process) - before;
    cr_assert(is_sanitized() || grown < 16 * 1024, "grew by %lld kB", (long long)grown);
    redis_thaw(r);
    cr_assert(client_send(c, sets + sent, size - sent));
    for (int i = 0; i < 8000; i++) {
        expect_next(c, "+OK");
    }
}

/* A client that stays connected. */
static void speak_once(struct nearside *n)
{
    struct client *c = nearside_connect(n);
    expect(c, "+OK", "SET k v");
    expect(c, "$v", "GET k");
    cr_assert(client_send(c, "*2\r\n$3\r\nGE", 10));
    cr_assert(client_send(c, "T\r\n$1\r\nk\r\n", 11));
    expect_next(c, "$v");
}

struct footprint {
    struct nearside *n;
    int64_t most_kb;
};

static bool is_small(void *ctx)
{
    const struct footprint *f = ctx;
    return process_rss_kb(f->n->process) <= f->most_kb;
}

/* Many are connected and few speak: what one said before must not be kept for it. */
SCENARIO(limits, an_idle_client_costs_half_a_kilobyte)
{
    enum { COUNT = 3500, MOST = 512, FIXED_KB = 512 }; /* some pages come with the first of them */
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);

    for (int i = 0; i < COUNT / 10; i++) {
        speak_once(n); /* what is needed once is there */
    }
    int64_t before = process_rss_kb(n->process);
    for (int i = 0; i < COUNT; i++) {
        speak_once(n);
    }
    struct footprint footprint = {n, before + FIXED_KB + (int64_t)COUNT * MOST / 1024};
    cr_assert(is_sanitized() || await(is_small, &footprint, 5000 * slowdown()),
              "%d clients: %lld kB", COUNT, (long long)(process_rss_kb(n->process) - before));
}

/* What a burst takes is given back, and not only used again. */
SCENARIO(limits, what_a_burst_took_is_given_back)
{
    enum { COUNT = 8, COMMANDS = 2000, VALUE = 8000, SPARE_KB = 4096 };
    static const char get[] = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    size_t size = sizeof(get) - 1;
    char *burst = cleanup_alloc(size * COMMANDS);
    for (size_t i = 0; i < COMMANDS; i++) {
        memcpy(burst + i * size, get, size);
    }
    struct client *clients[COUNT];
    for (int i = 0; i < COUNT; i++) {
        clients[i] = nearside_connect(n);
    }
    nearside_await_fills(n);
    store_value(clients[0], "k", VALUE);
    do {
        ask(clients[0], "GET k");
    } while (nearside_info(n, "l1_hits") == 0);
    int64_t before = process_rss_kb(n->process);
    for (int i = 0; i < COUNT; i++) {
        cr_assert(client_send(clients[i], burst, size * COMMANDS));
    }
    nearside_await_info(n, "l1_hits", COUNT * COMMANDS, 2 * COUNT * COMMANDS, 20000);
    int64_t peak = process_rss_kb(n->process);
    for (int i = 0; i < COUNT * COMMANDS; i++) {
        cr_assert(client_reply(clients[i / COMMANDS]) != NULL);
    }
    cr_assert(is_sanitized() || peak > before + 4 * SPARE_KB, "no burst: %lld kB",
              (long long)(peak - before));
    struct footprint footprint = {n, before + SPARE_KB};
    cr_assert(is_sanitized() || await(is_small, &footprint, 5000 * slowdown()), "%lld kB more",
              (long long)(process_rss_kb(n->process) - before));
}

/* ---- Clients that do not read --------------------------------------------------------------- */

SCENARIO(limits, a_client_that_never_reads_is_closed_and_others_do_not_notice)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.max_output=1mb", NULL);
    struct client *other = nearside_connect(n);
    struct client *lazy = client_connect_small(n->port, 4096);
    size_t size;

    store_value(other, "k", 100 * 1024);
    expect(other, "+OK", "SET small v");
    char *gets = command_repeated("GET k", 1000, &size);
    (void)client_send_some(lazy, gets, size, 1000);
    int64_t deadline = now_ms() + 5000;
    while (nearside_info(n, "clients_closed_output") == 0 && now_ms() < deadline) {
        int64_t asked = now_ms();
        expect(other, "$v", "GET small");
        expect(other, "+OK", "SET small v");
        cr_assert(now_ms() - asked < 500 * slowdown());
    }
    cr_assert_eq(nearside_info(n, "clients_closed_output"), 1);
    nearside_await_log(n, "over proxy.max_output");
    cr_assert(client_drain_to_end(lazy), "it is counted as closed and is not");
    expect(other, "$v", "GET small");
    nearside_await_info(n, "clients_connected", 2, 2, 2000);
}

SCENARIO(limits, a_client_that_never_reads_replies_of_redis_is_closed_too)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.max_output=1mb", NULL);
    struct client *other = nearside_connect(n);
    struct client *lazy = client_connect_small(n->port, 4096);
    size_t size;

    store_value(other, "k", 100 * 1024);
    char *reads = command_repeated("GETRANGE k 0 -1", 1000, &size);
    (void)client_send_some(lazy, reads, size, 1000);
    nearside_await_info(n, "clients_closed_output", 1, 1, 5000);
    cr_assert(client_drain_to_end(lazy));
    expect(other, "$vvv", "GETRANGE k 0 2");
    nearside_await_info(n, "client_memory", 0, (long long)MB, 5000);
}

/* It is collected again on another road. */
SCENARIO(limits, what_an_mget_had_of_its_reply_when_its_link_was_lost_is_not_charged_any_longer)
{
    struct redis *r = redis_start(NULL);
    struct relay *relay = relay_start(r->port, NULL);
    struct nearside *n =
        nearside_start(relay_port(relay), "proxy.workers=1", "invalidation.link_lease=500ms", NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 8; i++) {
        store_value(r->direct, cleanup_printf("k%d", i), MB / 4);
    }
    for (int i = 0; i < 3; i++) {
        nearside_await_fills(n);
        expect(c, "nil", "GET none%d", i);
        int fill = relay_find(relay, "PTTL");
        relay_hold_link(relay, fill, RELAY_DOWN);
        cr_assert(client_command(c, "MGET k0 k1 k2 k3 k4 k5 k6 k7"));
        relay_pass(relay, fill, RELAY_DOWN, MB + MB / 2);
        /* it is silent for too long then */
        expect_next(c, "[$(262144 bytes) $(262144 bytes)...");
        nearside_await_info(n, "client_memory", 0, 64 * 1024, 5000);
        relay_release(relay);
    }
}

SCENARIO(limits, a_client_that_stops_reading_is_closed_after_stalled_output)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.stalled_output=500ms", NULL);
    struct client *lazy = client_connect_small(n->port, 4096);
    struct client *slow = nearside_connect(n);
    struct client *other = nearside_connect(n);
    size_t size;

    store_value(other, "k", MB);
    char *gets = command_repeated("GET k", 20, &size);
    cr_assert(client_send(lazy, gets, size) && client_send(slow, gets, size));
    /* one reads a little now and then and is left alone */
    static char some[512 * 1024];
    for (int i = 0; i < 20; i++) {
        cr_assert(client_read_bytes(slow, some, sizeof(some)) == sizeof(some));
        pass_time(100);
    }
    nearside_await_info(n, "clients_closed_output", 1, 1, 2000);
    cr_assert(client_drain_to_end(lazy));
    client_close(slow);
}

SCENARIO(limits, slow_readers_together_cannot_exceed_the_memory_for_clients)
{
    enum { COUNT = 40 };
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "proxy.max_client_memory=32mb", "l1.max_memory=8mb", NULL);
    struct client *other = nearside_connect(n);
    struct client *lazy[COUNT];
    size_t size;

    store_value(other, "k", 256 * 1024);
    expect(other, "+OK", "SET small v");
    char *reads = command_repeated("GETRANGE k 0 -1", 60, &size);
    int64_t before = process_rss_kb(n->process);
    int64_t worst = 0;
    for (int i = 0; i < COUNT; i++) {
        lazy[i] = client_connect_small(n->port, 4096);
        (void)client_send_some(lazy[i], reads, size, 100);
    }
    int64_t end = now_ms() + 30000;
    do { /* Redis answers all of it in one go, which may take seconds */
        expect(other, "$v", "GET small");
        int64_t rss = process_rss_kb(n->process);
        worst = rss > worst ? rss : worst;
        cr_assert(now_ms() < end, "none was closed");
    } while (nearside_info(n, "clients_closed_memory") < COUNT / 2);
    nearside_await_info(n, "client_memory", 0, 33 * (long long)MB, 5000);
    /* 40 clients x 15 MB were asked for */
    cr_assert(is_sanitized() || worst - before < 120 * 1024, "grew by %lld kB",
              (long long)(worst - before));
    expect(other, "$v", "GET small");
    for (int i = 0; i < COUNT; i++) {
        client_close(lazy[i]);
    }
    nearside_await_info(n, "client_memory", 0, (long long)MB, 5000);
}

/* An MGET of about 60 KB whose keys nobody else names; owned by the caller. */
static char *long_mget(int client, int i, size_t *size)
{
    enum { KEYS = 120, KEY = 500 };
    char *line = cleanup_alloc(KEYS * (KEY + 1) + 8);
    size_t n = (size_t)sprintf(line, "MGET");

    for (int k = 0; k < KEYS; k++) {
        int head = sprintf(line + n, " %d:%d:%d:", client, i, k);
        memset(line + n + head, 'x', (size_t)(KEY - head));
        n += KEY;
    }
    return command_bytes(line, size);
}

SCENARIO(limits, long_reads_that_redis_does_not_answer_stay_within_bounds)
{
    enum { COUNT = 4, EACH = 300 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", "upstream.dead_after=30s",
                                        "proxy.max_client_memory=64mb", NULL);
    struct client *c[COUNT];
    char *bytes[COUNT];
    size_t size[COUNT] = {0};
    size_t sent[COUNT];

    nearside_await_fills(n);
    for (int i = 0; i < COUNT; i++) {
        c[i] = nearside_connect(n);
        expect(c[i], "+PONG", "PING");
        bytes[i] = cleanup_alloc(EACH * 64 * 1024);
        for (int m = 0; m < EACH; m++) {
            size_t one;
            char *mget = long_mget(i, m, &one);
            memcpy(bytes[i] + size[i], mget, one);
            size[i] += one;
            free(mget);
        }
    }
    int64_t before = process_rss_kb(n->process);
    redis_freeze(r);
    for (int i = 0; i < COUNT; i++) {
        sent[i] = client_send_some(c[i], bytes[i], size[i], 200);
    }
    int64_t grown = process_rss_kb(n->process) - before;
    /* 74 MB were offered, which on their way to Redis are twice as much */
    cr_assert(is_sanitized() || grown < 115 * 1024, "grew by %lld kB", (long long)grown);
    cr_assert(nearside_info(n, "client_memory") < 65 * (long long)MB);
    redis_thaw(r);
    for (int i = 0; i < COUNT; i++) {
        cr_assert(client_send(c[i], bytes[i] + sent[i], size[i] - sent[i]));
        for (int m = 0; m < EACH; m++) {
            expect_next(c[i], "[nil nil ...");
        }
    }
}

SCENARIO(limits, names_of_clients_count_as_their_memory)
{
    enum { COUNT = 24, SIZE = 8 * 1024 * 1024 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.max_client_memory=32mb", NULL);
    struct client *c[COUNT];
    char *name = cleanup_alloc(SIZE);

    memset(name, 'n', SIZE);
    int64_t before = process_rss_kb(n->process);
    for (int i = 0; i < COUNT; i++) {
        c[i] = nearside_connect(n);
        (void)client_command_big(c[i], "CLIENT SETNAME", name, SIZE);
        const char *got = client_read(c[i]);
        cr_assert(i > 2 || strcmp(got, "+OK") == 0, "got '%s'", got);
        if (i == 1) {
            nearside_await_info(n, "client_memory", 2 * SIZE, 32 * (long long)MB, 2000);
        }
    }
    nearside_await_info(n, "client_memory", 0, 33 * (long long)MB, 2000);
    cr_assert(nearside_info(n, "clients_closed_memory") >= COUNT - 5);
    int64_t grown = process_rss_kb(n->process) - before;
    cr_assert(is_sanitized() || grown < 110 * 1024, "grew by %lld kB", (long long)grown);
    for (int i = 0; i < COUNT; i++) {
        client_close(c[i]);
    }
    nearside_await_info(n, "client_memory", 0, 64 * 1024, 2000);
}

SCENARIO(limits, a_request_over_the_limit_closes_its_client)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.max_query=1mb", NULL);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);
    char *value = cleanup_alloc(2 * MB);

    memset(value, 'v', 2 * MB);
    expect(c, "+OK", "SET k v");
    (void)client_command_big(c, "SET k", value, 2 * MB);
    const char *got = client_read(c);
    cr_assert(got[0] == '-' || strcmp(got, "closed") == 0, "got '%s'", got);
    if (got[0] == '-') {
        expect_next(c, "closed");
    }
    expect(other, "$v", "GET k");
    cr_assert_eq(nearside_info(n, "clients_closed_query"), 1);
}

/* ---- How many clients ----------------------------------------------------------------------- */

SCENARIO(limits, clients_over_the_limit_are_refused_in_the_words_of_redis)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.max_clients=3", NULL);
    struct client *c[3];

    /* the connection that tested whether the proxy accepts may still be on its way out */
    for (int i = 0; i < 3; i++) {
        int64_t deadline = now_ms() + 2000;
        do {
            c[i] = nearside_connect(n);
        } while (strcmp(ask(c[i], "PING"), "+PONG") != 0 && now_ms() < deadline);
    }
    for (int i = 0; i < 5; i++) {
        struct client *one_more = nearside_connect(n);
        expect_next(one_more, "-ERR max number of clients reached");
        expect_next(one_more, "closed");
    }
    expect(c[0], "+OK", "SET k v");
    expect(c[2], "$v", "GET k");
    client_close(c[0]);
    int64_t deadline = now_ms() + 2000;
    bool served = false;
    while (!served && now_ms() < deadline) {
        struct client *again = nearside_connect(n);
        served = strcmp(ask(again, "PING"), "+PONG") == 0;
        client_close(again);
    }
    cr_assert(served, "a place became free and is not given away");
    client_command(c[2], "INFO nearside"); /* a new connection might be one too many */
    cr_assert(field_number(client_reply(c[2])->text, "clients_refused", -1) >= 5);
}

SCENARIO(limits, running_out_of_descriptors_does_not_spin_and_passes)
{
    enum { COUNT = 100 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *first = nearside_connect(n);
    struct client *c[COUNT];

    expect(first, "+OK", "SET k v");
    expect(first, "$v", "GET k");
    process_limit_files(n->process, 50);
    for (int i = 0; i < COUNT; i++) {
        c[i] = nearside_connect(n);
    }
    pass_time(100);
    int64_t cpu = process_cpu_ms(n->process);
    pass_time(1000);
    cpu = process_cpu_ms(n->process) - cpu;
    cr_assert(cpu < 150 * slowdown(), "%lld ms of CPU time in a second of waiting", (long long)cpu);
    expect(first, "$v", "GET k");
    expect(first, "+OK", "SET k w");
    for (int i = 0; i < COUNT; i++) {
        client_close(c[i]);
    }
    process_limit_files(n->process, 1000);
    nearside_await_info(n, "clients_connected", 2, 2, 3000);
    nearside_check_alive(n);
}

SCENARIO(limits, an_idle_client_is_closed_after_the_timeout_and_an_active_one_is_not)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.timeout=1s", "proxy.log_level=debug", NULL);
    struct client *idle = nearside_connect(n);
    struct client *active = nearside_connect(n);
    int64_t started = now_ms();

    expect(idle, "+PONG", "PING");
    while (!client_readable(idle, 50)) {
        expect(active, "+PONG", "PING");
        cr_assert(now_ms() < started + 3000 * slowdown(), "not closed");
    }
    cr_assert(now_ms() >= started + 950, "closed after %lld ms", (long long)(now_ms() - started));
    expect_next(idle, "closed");
    expect(active, "+PONG", "PING");
    cr_assert_eq(nearside_info(n, "clients_closed_idle"), 1);
    nearside_await_log(n, "closed: idle for ");
}

SCENARIO(limits, a_client_that_waits_for_redis_is_not_idle)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "proxy.timeout=1s", "upstream.dead_after=10s", NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    redis_freeze(r);
    cr_assert(client_command(c, "APPEND k w"));
    pass_time(1800);
    redis_thaw(r);
    expect_next(c, ":2");
}

/* ---- The cache's own limit ------------------------------------------------------------------ */

SCENARIO(limits, the_cache_stays_within_its_memory)
{
    enum { KEYS = 60000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "l1.max_memory=4mb", NULL);
    struct client *c = nearside_connect(n);
    char *value = cleanup_alloc(513);

    memset(value, 'v', 512);
    for (int i = 0; i < KEYS; i++) {
        cr_assert(client_command(c, "SET key:%d %s", i, value));
        if (i % 500 == 499) {
            for (int j = 0; j < 500; j++) {
                expect_next(c, "+OK");
            }
        }
    }
    int64_t before = process_rss_kb(n->process);
    for (int i = 0; i < KEYS; i++) {
        cr_assert(client_command(c, "GET key:%d", i));
        if (i % 500 == 499) {
            for (int j = 0; j < 500; j++) {
                expect_next(c, "$vvv...");
            }
            cr_assert(nearside_info(n, "l1_bytes") <= 4 * (long long)MB);
        }
    }
    int64_t grown = process_rss_kb(n->process) - before;
    cr_assert(is_sanitized() || grown < 24 * 1024, "grew by %lld kB", (long long)grown);
    cr_assert(nearside_info(n, "l1_evictions") > 0);
    cr_assert(nearside_info(n, "l1_items") > 1000);
}

SCENARIO(limits, a_value_over_the_item_limit_is_served_and_not_kept)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "l1.max_item_size=1kb", NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    store_value(c, "large", 2000);
    store_value(c, "fits", 500);
    for (int i = 0; i < 10; i++) {
        expect(c, "$(2000 bytes)", "GET large");
        expect(c, "$vvv...", "GET fits");
    }
    cr_assert_eq(nearside_info(n, "l1_hits"), 9);
    cr_assert_geq(redis_calls(r, "get"), 11);
}

SCENARIO(limits, replies_that_nobody_wants_to_see_are_not_held)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.max_output=64kb", NULL);
    struct client *c = nearside_connect(n);

    cr_assert(client_command(c, "CLIENT REPLY OFF"));
    for (int i = 0; i < 100; i++) {
        cr_assert(client_command(c, "INFO"));
        cr_assert(client_command(c, "HELLO"));
    }
    cr_assert(client_command(c, "CLIENT REPLY ON"));
    expect_next(c, "+OK");
    expect(c, "+PONG", "PING");
}

SCENARIO(limits, a_client_that_is_closed_while_its_input_is_served_gets_nothing_more)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.max_output=64kb", "proxy.workers=1", NULL);
    struct client *setter = nearside_connect(n);

    store_value(setter, "k", 30 * 1000 * 1000);
    for (int i = 0; i < 5; i++) {
        struct client *c = client_connect_small(n->port, 64 * 1024);
        cr_assert(client_command(c, "GET k"));
        nearside_await_info(n, "client_memory", 1000 * 1000, 1LL << 40, 10000);
        cr_assert(client_command(c, "GET k"));
        nearside_await_info(n, "clients_closed_output", i + 1, i + 1, 10000);
        client_close(c);
    }
    expect(setter, "+PONG", "PING");
}
