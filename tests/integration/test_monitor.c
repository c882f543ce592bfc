/* SPDX-License-Identifier: Apache-2.0
 *
 * test_monitor.c: MONITOR in both protocols shows what a direct connection shows, but not what Nearside asks for
 * itself; and nothing of it is left behind.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <string.h>

TestSuite(monitor);

/* The next of its lines that has the words in it; directly others may come before. */
static const char *monitored(struct client *c, const char *words)
{
    const char *got;

    do {
        got = client_read(c);
        cr_assert(got[0] == '+' && got[1] >= '0' && got[1] <= '9', "%s", got);
    } while (strstr(got, words) == NULL);
    return cleanup_printf("%s", got);
}

SCENARIO(monitor, monitor_shows_what_redis_executes)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *direct = client_connect(r->port);

    expect(direct, "+OK", "MONITOR");
    for (int version = 2; version <= 3; version++) {
        struct client *c = client_connect_as(n->port, version);
        expect(c, "+OK", "MONITOR");
        for (int i = 0; i < 20; i++) {
            expect(r->direct, "+OK", "SET k '%d \"x\"'", i);
            const char *want = monitored(direct, cleanup_printf("\"SET\" \"k\" \"%d ", i));
            cr_assert_str_eq(monitored(c, "\"SET\" \"k\""), want);
        }
        expect(c, "+RESET", "RESET");
        expect(c, "$19 \"x\"", "GET k");
        nearside_await_info(n, "pinned_connections", 0, 0, 2000);
        const char *only = strstr(redis_clients(r), "flags=O"); /* the direct one */
        cr_assert(only != NULL && strstr(only + 1, "flags=O") == NULL);
    }
}

SCENARIO(monitor, monitor_does_not_show_what_nearside_asks_for_itself)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "invalidation.link_lease=200ms", NULL);
    struct client *direct = client_connect(r->port);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);

    nearside_await_fills(n);
    expect(c, "+OK", "MONITOR");
    expect(direct, "+OK", "MONITOR");
    expect(other, "-ERR...", "MODULE UNLOAD none"); /* whereupon it asks for the commands again */
    expect(other, "+OK", "SELECT 9");
    for (int i = 0; i < 5; i++) {
        (void)monitored(direct, i == 0 ? "] \"Command\"" : "] \"PING\""); /* of a fill connection */
        expect(other, "+OK", "SET k%d v", i);
        expect(other, "$v", "GET k%d", i);
        expect(other, "+OK", "MULTI"); /* on a connection that is opened for it */
        expect(other, "+QUEUED", "GETRANGE k%d 0 -1", i);
        expect(other, "[$v]", "EXEC");
        static const char *const words[] = {"] \"SET\" \"k", "] \"GET\" \"k", "] \"MULTI\"",
                                            "] \"GETRANGE\" \"k", "] \"EXEC\""};
        for (size_t k = 0; k < sizeof(words) / sizeof(words[0]); k++) {
            const char *got = client_read(c);
            cr_assert(strstr(got, words[k]) != NULL, "'%s', not %s", got, words[k]);
        }
    }
}

/* Redis says nothing to it. */
SCENARIO(monitor, a_second_monitor_is_waited_for_by_nobody)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int version = 2; version <= 3; version++) {
        const int ports[] = {r->port, n->port};
        for (int i = 0; i < 2; i++) {
            struct client *c = client_connect_as(ports[i], version);
            const char *got;
            expect(c, "+OK", "MONITOR");
            cr_assert(client_send_text(c, "MONITOR\r\nMONITOR x\r\nECHO end\r\n"));
            do {
                got = client_read(c);
            } while (got[0] == '+' && got[1] >= '0' && got[1] <= '9');
            cr_assert(matches(got, "-ERR wrong number..."), "%s", got);
            do {
                got = client_read(c);
            } while (got[0] == '+' && got[1] >= '0' && got[1] <= '9');
            cr_assert_str_eq(got, "$end");
        }
    }
}

SCENARIO(monitor, a_monitor_that_leaves_is_forgotten_by_redis)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int i = 0; i < 4; i++) {
        struct client *c = client_connect_as(n->port, 2 + i % 2);
        expect(c, "+OK", "MONITOR");
        cr_assert_not_null(strstr(redis_clients(r), "flags=O"));
        if (i < 2) {
            client_close(c);
        } else {
            client_reset(c);
        }
        int64_t deadline = now_ms() + 5000;
        while (strstr(redis_clients(r), "flags=O") != NULL) {
            cr_assert(now_ms() < deadline, "it monitors on");
        }
    }
}

/* One over 64 KiB comes in pieces (frame.h). */
SCENARIO(monitor, a_line_of_monitor_may_have_any_length)
{
    enum { SIZE = 5000 * 1000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int version = 2; version <= 3; version++) {
        struct client *c = client_connect_as(n->port, version);
        expect(c, "+OK", "MONITOR");
        for (size_t size = 60 * 1000; size <= SIZE; size = size * 2 + 5000) {
            const char *got;
            store_value(r->direct, "k", size);
            expect(r->direct, "+OK", "SET end 1");
            do {
                got = client_read(c);
                cr_assert(got[0] == '+', "%.100s", got);
            } while (strlen(got) < size);
            cr_assert_not_null(strstr(got, "] \"SET\" \"k\" \""), "%.100s", got);
            do { /* Nearside asks Redis things of its own */
                got = client_read(c);
                cr_assert(got[0] == '+' && strlen(got) < 1000, "%.100s", got);
            } while (strstr(got, "] \"SET\" \"end\" \"1\"") == NULL);
        }
        cr_assert(client_command(c, "RESET"));
        const char *got;
        do {
            got = client_read(c);
            cr_assert(got[0] == '+', "%.100s", got);
        } while (strcmp(got, "+RESET") != 0);
        expect(c, "$1", "GET end");
    }
}
