/* SPDX-License-Identifier: Apache-2.0
 *
 * test_resolver.c: what resolver.h promises, and how a connection lives with a name that is not
 * resolved yet, never, or anew. The name service is played: it answers with a loopback port, with
 * nothing, or not at all.
 */
#include "../../../upstream/resolver.h"

#include "conn_fixture.h"

static atomic_int answer; /* the port; 0: there is no such name */
static atomic_int lookups;
static atomic_bool silent;
static char asked[64]; /* hosts, in order */

static void play(const char *host, const char *port, struct addresses *found)
{
    char text[16];
    (void)port;
    strncat(asked, host, sizeof(asked) - strlen(asked) - 1);
    atomic_fetch_add(&lookups, 1);
    while (atomic_load(&silent)) {
        (void)poll(NULL, 0, 1);
    }
    (void)snprintf(text, sizeof(text), "%d", atomic_load(&answer));
    if (atomic_load(&answer) == 0) {
        (void)snprintf(found->error, sizeof(found->error), "no such name");
    } else {
        cr_assert(resolver_is_address("127.0.0.1", text, found));
    }
}

static void await_lookups(int n)
{
    for (int i = 0; i < 10000 && atomic_load(&lookups) < n; i++) {
        (void)poll(NULL, 0, 1);
    }
    cr_assert_geq(atomic_load(&lookups), n);
}

/* ---- The resolver --------------------------------------------------------------------------- */

struct told {
    atomic_int times;
    uint64_t number;
    unsigned n;
    char error[ERR_MAX];
};

static void on_told(void *ctx, uint64_t number, const struct addresses *found)
{
    struct told *told = ctx;
    told->number = number;
    told->n = found->n;
    (void)snprintf(told->error, sizeof(told->error), "%s", found->error);
    atomic_fetch_add(&told->times, 1);
}

static void await_told(struct told *told)
{
    for (int i = 0; i < 10000 && atomic_load(&told->times) == 0; i++) {
        (void)poll(NULL, 0, 1);
    }
    cr_assert_eq(atomic_load(&told->times), 1);
}

Test(resolver, addresses_are_told_from_names)
{
    struct addresses found = {0};
    cr_expect(resolver_is_address("127.0.0.1", "1", &found));
    cr_expect_eq(found.n, 1);
    cr_expect(resolver_is_address("::1", "1", &found));
    cr_expect_eq(found.n, 1);
    cr_expect_not(resolver_is_address("localhost", "1", &found));
    cr_expect_eq(found.n, 0);
}

Test(resolver, system_knows_localhost_and_says_why_it_does_not_know_others)
{
    struct addresses found = {0};
    resolver_system("localhost", "1", &found);
    cr_expect_geq(found.n, 1);
    resolver_system("no such host", "1", &found);
    cr_expect_eq(found.n, 0);
    cr_expect_str_eq(found.error, "Name or service not known");
}

Test(resolver, questions_are_answered_in_their_order)
{
    struct told told[3] = {0};
    struct resolver *r = resolver_create(play);
    resolver_ask(r, "a", "1", on_told, &told[0], 0);
    resolver_ask(r, "b", "1", on_told, &told[1], 0);
    resolver_ask(r, "c", "1", on_told, &told[2], 3);
    await_told(&told[2]);
    cr_expect_str_eq(asked, "abc");
    cr_expect_eq(told[2].number, 3);
    cr_expect_eq(atomic_load(&told[0].times), 1);
    cr_expect_eq(told[1].n, 0);
    cr_expect_str_eq(told[1].error, "no such name");
    resolver_destroy(r);
}

/* With AddressSanitizer: the one it has answered last is not looked at any more. */
Test(resolver, forgets_and_ends_as_well_when_it_has_nothing_to_do)
{
    struct told told = {0};
    struct resolver *r = resolver_create(play);
    resolver_ask(r, "a", "1", on_told, &told, 0);
    await_told(&told);
    resolver_forget(r, &told);
    resolver_destroy(r);
}

Test(resolver, what_is_forgotten_is_not_told)
{
    struct told told[3] = {0};
    atomic_store(&silent, true);
    struct resolver *r = resolver_create(play);
    resolver_ask(r, "a", "1", on_told, &told[0], 0);
    resolver_ask(r, "b", "1", on_told, &told[1], 0);
    resolver_ask(r, "c", "1", on_told, &told[2], 0);
    await_lookups(1);
    resolver_forget(r, &told[0]); /* being looked up */
    resolver_forget(r, &told[1]); /* waits */
    atomic_store(&silent, false);
    await_told(&told[2]);
    cr_expect_eq(atomic_load(&told[0].times), 0);
    cr_expect_eq(atomic_load(&told[1].times), 0);
    cr_expect_str_eq(asked, "ac");
    resolver_destroy(r);
}

Test(resolver, destroy_does_not_wait_for_a_lookup)
{
    struct told told = {0};
    atomic_store(&silent, true);
    struct resolver *r = resolver_create(play);
    resolver_ask(r, "a", "1", on_told, &told, 0);
    await_lookups(1);
    resolver_destroy(r);
    atomic_store(&silent, false);
    cr_expect_eq(atomic_load(&told.times), 0);
    resolver_destroy(NULL);
}

/* ---- A connection --------------------------------------------------------------------------- */

static struct resolver *names;

static void open_name(int64_t connect_timeout_ms)
{
    names = resolver_create(play);
    open_with(1, /* what the name service says counts */
              (struct node_options){.host = "redis.example",
                                    .resolver = names,
                                    .connect_timeout_ms = connect_timeout_ms},
              (struct conn_options){0});
}

static void close_name(void)
{
    close_all();
    resolver_destroy(names);
}

Test(resolver, name_with_several_addresses_finds_the_one_that_listens)
{
    redis_start(&redis, "");
    names = resolver_create(resolver_system);
    open_with(redis.port, (struct node_options){.host = "localhost", .resolver = names},
              (struct conn_options){0});
    WAIT_FOR(is_up());
    close_name();
    redis_stop(&redis);
}

Test(resolver, calls_wait_for_the_first_lookup_as_for_a_connect)
{
    struct ask one = {0};
    redis_start(&redis, "");
    atomic_store(&answer, redis.port);
    atomic_store(&silent, true);
    open_name(0);
    await_lookups(1);
    cr_assert_eq(conn_state(conn), CONN_CONNECTING);
    cr_assert_eq(ask_line(conn, &one, "PING"), CONN_OK);
    atomic_store(&silent, false);
    WAIT_FOR(is_up());
    WAIT_FOR(one.done);
    close_name();
    redis_stop(&redis);
}

Test(resolver, calls_fail_at_once_when_the_name_service_has_not_answered_in_time)
{
    struct ask one = {0};
    struct ask two = {0};
    atomic_store(&silent, true);
    open_name(100);
    cr_assert_eq(ask_line(conn, &one, "PING"), CONN_OK);
    WAIT_FOR(one.lost);
    cr_assert_str_eq(conn_error(conn), "the host name is not resolved yet");
    cr_assert_eq(ask_line(conn, &two, "PING"), CONN_DOWN);
    close_name();
    atomic_store(&silent, false);
}

Test(resolver, unknown_name_fails_the_attempt_and_is_looked_up_again)
{
    atomic_store(&answer, 0);
    open_name(0);
    WAIT_FOR(conn_state(conn) == CONN_BACKOFF);
    cr_assert_str_eq(conn_error(conn), "the host name is not resolved: no such name");
    redis_start(&redis, "");
    atomic_store(&answer, redis.port);
    WAIT_FOR(is_up());
    close_name();
    redis_stop(&redis);
}

Test(resolver, connection_follows_a_name_that_leads_elsewhere)
{
    struct redis old;
    redis_start(&redis, "");
    redis_start(&old, "");
    atomic_store(&answer, old.port);
    open_name(0);
    WAIT_FOR(is_up());
    atomic_store(&answer, redis.port);
    redis_stop(&old);
    WAIT_FOR(losses == 1);
    WAIT_FOR(is_up());
    cr_assert_eq(ups, 2);
    close_name();
    redis_stop(&redis);
}

/* As after a failover behind a name, whose old server lives on as a replica. */
Test(resolver, connection_follows_a_name_that_leads_elsewhere_though_the_old_server_answers)
{
    struct redis old;
    struct ask one = {0};
    bool followed = false;
    redis_start(&redis, "");
    redis_start(&old, "");
    atomic_store(&answer, old.port);
    open_name(0);
    WAIT_FOR(is_up());
    atomic_store(&answer, redis.port);
    cr_assert_eq(redis_do(&old, "CLIENT KILL TYPE normal SKIPME yes"), 1);
    WAIT_FOR(followed || (followed = node_follow_name(node)));
    flush_and_tick(); /* if it was back at the old one, it leaves that now */
    WAIT_FOR(is_up());
    cr_assert_eq(ask_line(conn, &one, "SET k v"), CONN_OK);
    WAIT_FOR(one.done);
    cr_assert_eq(redis_do(&redis, "EXISTS k"), 1);
    close_name();
    redis_stop(&old);
    redis_stop(&redis);
}
