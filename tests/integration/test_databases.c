/* SPDX-License-Identifier: Apache-2.0
 *
 * test_databases.c: L1 holds every database's keys apart, though fill connections live in one.
 */
#include "../support/await.h"
#include "../support/fake.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <string.h>

TestSuite(databases);

static long long hits(struct nearside *n)
{
    return nearside_info(n, "l1_hits") + nearside_info(n, "l1_negative_hits");
}

static struct client *client_in(struct nearside *n, int db)
{
    struct client *c = nearside_connect(n);
    expect(c, "+OK", "SELECT %d", db);
    return c;
}

SCENARIO(databases, each_has_its_own_entries)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c[4];

    nearside_await_fills(n);
    for (int db = 0; db < 4; db++) {
        c[db] = client_in(n, db);
        if (db != 2) {
            expect(c[db], "+OK", "SET k in-%d", db);
        }
    }
    for (int round = 0; round < 3; round++) {
        long long before = hits(n);
        for (int db = 0; db < 4; db++) {
            expect(c[db], db == 2 ? "nil" : cleanup_printf("$in-%d", db), "GET k");
            expect(c[db], db == 2 ? "[nil nil]" : cleanup_printf("[$in-%d nil]", db), "MGET k q");
        }
        cr_assert(round == 0 || hits(n) == before + 12, "round %d: %lld", round, hits(n) - before);
    }
}

SCENARIO(databases, mget_fills_in_the_clients_db)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "upstream.db=1", NULL);
    struct client *home = nearside_connect(n);
    struct client *away = client_in(n, 5);

    nearside_await_fills(n);
    expect(home, "+OK", "MSET a home-a b home-b");
    expect(away, "+OK", "MSET a away-a b away-b");
    for (int round = 0; round < 2; round++) {
        expect(away, "[$away-a $away-b nil]", "MGET a b c");
        expect(home, "[$home-a $home-b nil]", "MGET a b c");
    }
    cr_assert_eq(hits(n), 6);
}

SCENARIO(databases, a_change_elsewhere_is_seen_in_the_db_it_was_made_in)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = client_in(n, 7);

    nearside_await_fills(n);
    expect(r->direct, "+OK", "SELECT 7");
    for (int i = 0; i < 20; i++) {
        expect(r->direct, "+OK", "SET k %d", i);
        await_reply(c, cleanup_printf("$%d", i), 5000, "GET k");
        expect(c, cleanup_printf("$%d", i), "GET k");
    }
    cr_assert_geq(hits(n), 20);
}

SCENARIO(databases, writes_in_one_are_read_in_it_and_change_no_other)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=4", NULL);
    struct client *c[8];

    nearside_await_fills(n);
    for (int i = 0; i < 8; i++) {
        c[i] = client_in(n, i / 2);
    }
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 8; i += 2) {
            expect(c[i], "+OK", "SET k %d-%d", i / 2, round);
            expect(c[i + 1], cleanup_printf("$%d-%d", i / 2, round), "GET k");
        }
        for (int i = 0; i < 8; i++) {
            expect(c[i], cleanup_printf("$%d-%d", i / 2, round), "GET k");
        }
    }
}

/* The lane exists, then SELECT is forbidden: what a fill connection reads now is its own db's. */
SCENARIO(databases, a_fetch_that_cannot_get_there_is_read_on_a_lane)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *home = nearside_connect(n);
    struct client *away = client_in(n, 3);

    nearside_await_fills(n);
    expect(home, "+OK", "MSET k home q home");
    expect(away, "+OK", "MSET k away q away");
    expect(r->direct, "+OK", "ACL SETUSER default -select");
    for (int i = 0; i < 3; i++) {
        expect(away, "$away", "GET k");
        expect(away, "[$away $away nil]", "MGET k q none");
        expect(home, "$home", "GET k");
        expect(home, "[$home $home nil]", "MGET k q none");
    }
    cr_assert_eq(nearside_info(n, "link_losses"), 0);
    expect(r->direct, "+OK", "ACL SETUSER default +select");
}

/* Nobody knows where such a connection is. */
SCENARIO(databases, a_fill_connection_that_cannot_return_is_given_up)
{
    enum { LONG = 100 * 1000 }; /* such an error comes in pieces (frame.h) */
    static const char text[] = "-ERR no way back";

    for (int i = 0; i < 3; i++) {
        size_t more = i > 0 ? LONG : 0;
        char *reply = cleanup_alloc(sizeof(text) + LONG + 2);
        struct fake_rule *rules = cleanup_alloc(2 * sizeof(*rules));
        memcpy(reply, text, sizeof(text) - 1);
        memset(reply + sizeof(text) - 1, 'x', more);
        memcpy(reply + sizeof(text) - 1 + more, "\r\n", 3);
        rules[0] = (struct fake_rule){"SELECT 0", reply, 0, FAKE_KEEP};
        rules[1] = (struct fake_rule){NULL, NULL, 0, FAKE_KEEP};
        struct fake *f = fake_start(rules);
        struct nearside *nearside = nearside_start(fake_port(f), "proxy.workers=1", NULL);
        struct client *c = client_in(nearside, 3);

        nearside_await_fills(nearside);
        if (i < 2) {
            expect(c, "$value", "GET k");
        } else {
            (void)ask(c, "MGET k q");
        }
        nearside_await_info(nearside, "link_losses", 1, 1000000, 5000);
        nearside_check_alive(nearside);
    }
}
