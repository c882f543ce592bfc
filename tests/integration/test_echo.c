/* SPDX-License-Identifier: Apache-2.0
 *
 * test_echo.c: a GET behind its client's own SET is answered as Redis would answer it there, without being
 * asked; and what becomes of it when the SET is refused, or has no reply. What others have written or read
 * meanwhile is the matter of tests/coherence/test_links.c.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <string.h>

TestSuite(echo);

struct stage {
    struct redis *r;
    struct relay *link;
    struct nearside *n;
    struct client *c;
};

#define SEND(c, ...) cr_assert(client_send_lines(c, (const char *const[]){__VA_ARGS__, NULL}))

/* The first such GET of a client is read beside L1: from then on its SETs are kept. */
static void prime(const struct stage *s)
{
    SEND(s->c, "SET other v", "GET other");
    expect_next(s->c, "+OK");
    expect_next(s->c, "$v");
}

static struct stage set_up(const char *set)
{
    struct stage s = {.r = redis_start(NULL)};
    s.link = relay_start(s.r->port, NULL);
    s.n = nearside_start(relay_port(s.link), "proxy.workers=1", set, NULL);
    s.c = nearside_connect(s.n);
    prime(&s);
    return s;
}

/* But for those that follow a SET, for L1. */
static long long gets_at_redis(const struct stage *s)
{
    long long again = nearside_info(s->n, "fetches_again");
    nearside_await_info(s->n, "l1_leases", 0, 0, 5000);
    return redis_calls(s->r, "get") - again;
}

SCENARIO(echo, a_value_just_set_is_not_asked_for)
{
    struct stage s = set_up(NULL);
    expect(s.r->direct, "+OK", "SET k old");
    long long gets = gets_at_redis(&s);
    SEND(s.c, "SET k one", "GET k", "GET k", "SET k 'a longer one'", "GET k", "SET k ''", "GET k");
    const char *const replies[] = {"+OK", "$one", "$one", "+OK", "$a longer one", "+OK", "$"};
    for (size_t i = 0; i < sizeof(replies) / sizeof(*replies); i++) {
        expect_next(s.c, replies[i]);
    }
    cr_expect_eq(gets_at_redis(&s), gets);
    cr_expect_eq(nearside_info(s.n, "l1_echoes"), 4);
    cr_expect_eq(nearside_info(s.n, "l1_hits"), 4);
    expect(s.c, "$", "GET k");
}

SCENARIO(echo, so_it_is_behind_several_sets_that_travel_together)
{
    struct stage s = set_up(NULL);
    long long gets = gets_at_redis(&s);
    SEND(s.c, "SET a 1", "SET b 1", "SET a 2", "GET b", "GET a", "GET b");
    for (int i = 0; i < 3; i++) {
        expect_next(s.c, "+OK");
    }
    expect_next(s.c, "$1");
    expect_next(s.c, "$2");
    expect_next(s.c, "$1");
    cr_expect_eq(gets_at_redis(&s), gets);
    cr_expect_eq(nearside_info(s.n, "l1_echoes"), 3);
}

SCENARIO(echo, a_key_that_is_read_here_is_fetched_as_soon_as_it_was_set)
{
    struct stage s = set_up(NULL);
    expect(s.c, "+OK", "SET k 1");
    expect(s.c, "+OK", "SET k 2");
    expect(s.c, "$2", "GET k");
    expect(s.c, "+OK", "SET k 3"); /* it was fetched, but not read from here */
    cr_expect_eq(nearside_info(s.n, "fetches_again"), 0);
    expect(s.c, "$3", "GET k");
    expect(s.c, "$3", "GET k");
    long long misses = nearside_info(s.n, "l1_misses");
    long long fills = nearside_info(s.n, "l1_fills");
    expect(s.c, "+OK", "SET k 4");
    nearside_await_info(s.n, "l1_fills", fills + 1, fills + 1, 5000);
    expect(s.c, "$4", "GET k");
    SEND(s.c, "SET k 5", "SET k 6"); /* a batch; the last word of several */
    expect_next(s.c, "+OK");
    expect_next(s.c, "+OK");
    nearside_await_info(s.n, "l1_fills", fills + 2, fills + 2, 5000);
    expect(s.c, "$6", "GET k");
    cr_expect_eq(nearside_info(s.n, "l1_misses"), misses);
    cr_expect_eq(nearside_info(s.n, "fetches_again"), 2);
}

/* What Redis makes of it is not what was sent, or is not known yet. */
SCENARIO(echo, redis_is_asked_where_the_answer_is_not_certain)
{
    struct stage s = set_up(NULL);
    SEND(s.c, "SET k v PX 1000000", "GET k", "SET k w PXAT 1", "GET k", "SET k x", "APPEND k y",
         "GET k", "SET k z", "EVAL \"redis.call('set', 'k', 'script')\" 0", "GET k", "SET k v NX",
         "GET k");
    const char *const replies[] = {"+OK", "$v",  "+OK", "nil",     "+OK", ":2",
                                   "$xy", "+OK", "nil", "$script", "nil", "$script"};
    for (size_t i = 0; i < sizeof(replies) / sizeof(*replies); i++) {
        expect_next(s.c, replies[i]);
    }
    cr_expect_eq(nearside_info(s.n, "l1_echoes"), 0);
    expect(s.c, "+OK", "SELECT 3");
    SEND(s.c, "SET k three", "SELECT 0", "GET k", "SELECT 3", "GET k");
    const char *const others[] = {"+OK", "+OK", "$script", "+OK", "$three"};
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
        expect_next(s.c, others[i]);
    }
}

SCENARIO(echo, a_set_that_is_refused_is_not_read)
{
    static const char oom[] = "-OOM command not allowed when used memory > 'maxmemory'.";
    struct stage s = set_up(NULL);
    expect(s.r->direct, "+OK", "SET k old");
    expect(s.r->direct, "+OK", "CONFIG SET maxmemory 1");
    SEND(s.c, "SET k new", "GET k", "GET k");
    expect_next(s.c, oom);
    expect_next(s.c, "$old");
    expect_next(s.c, "$old");
    /* and as long as they are, what is between two of them is read as ever */
    for (int i = 0; i < 3; i++) {
        SEND(s.c, "SET k new", "GET k", "SET k newer", "SET j new", "GET k");
        expect_next(s.c, oom);
        expect_next(s.c, "$old");
        expect_next(s.c, oom);
        expect_next(s.c, oom);
        expect_next(s.c, "$old");
    }
    expect(s.r->direct, "+OK", "CONFIG SET maxmemory 0");
    expect(s.c, "+OK", "SET k new");
    SEND(s.c, "SET k newest", "GET k");
    expect_next(s.c, "+OK");
    expect_next(s.c, "$newest");
    cr_expect_eq(nearside_info(s.n, "l1_echoes"), 1);
}

/* In a batch, one may be refused and the next one not. */
SCENARIO(echo, of_several_sets_each_has_its_own_reply)
{
    struct stage s = {.r = redis_start(NULL)};
    expect(s.r->direct, "+OK", "%s", "ACL SETUSER some on nopass +@all %RW~a* %R~b* &*");
    expect(s.r->direct, "+OK", "SET b old");
    s.n = nearside_start(s.r->port, "proxy.workers=1", "upstream.user=some",
                         "upstream.password=any", NULL);
    s.c = nearside_connect(s.n);
    SEND(s.c, "SET a v", "GET a");
    expect_next(s.c, "+OK");
    expect_next(s.c, "$v");
    SEND(s.c, "SET a 1", "SET b 1", "SET a2 1", "GET b", "GET a", "GET a2");
    expect_next(s.c, "+OK");
    expect_next(s.c, "-NOPERM ...");
    expect_next(s.c, "+OK");
    expect_next(s.c, "$old");
    expect_next(s.c, "$1");
    expect_next(s.c, "$1");
    cr_expect_eq(nearside_info(s.n, "l1_echoes"), 2);
}

/* Redis has executed so many more SETs. */
static void execute(const struct stage *s, const char *const *lines, int sets)
{
    long long before = redis_calls(s->r, "set");
    cr_assert(client_send_lines(s->c, lines));
    redis_await_calls(s->r, "set", before + sets, 5000);
}

/* And their replies are held. */
static void hold_replies(struct stage *s, const char *const *lines, int sets)
{
    relay_hold(s->link, RELAY_DOWN, false);
    execute(s, lines, sets);
}

/* The same for the lane alone. */
static int hold_lane(const struct stage *s)
{
    int lane = relay_find(s->link, "\r\nother\r\n");
    relay_hold_link(s->link, lane, RELAY_DOWN);
    return lane;
}

/* That an older one is answered meanwhile makes it no less certain. */
SCENARIO(echo, of_two_sets_the_later_one_is_read_when_the_other_is_answered)
{
    static const char *const one[] = {"SET k one", NULL};
    static const char *const two[] = {"SET k two", NULL};
    struct stage s = set_up(NULL);
    long long gets = gets_at_redis(&s);
    int lane = hold_lane(&s);
    execute(&s, one, 1);
    execute(&s, two, 1);
    relay_pass(s.link, lane, RELAY_DOWN, strlen("+OK\r\n"));
    expect_next(s.c, "+OK");
    SEND(s.c, "GET k");
    expect(nearside_connect(s.n), "+PONG", "PING"); /* the loop has read that */
    relay_release(s.link);
    expect_next(s.c, "+OK");
    expect_next(s.c, "$two");
    cr_expect_eq(gets_at_redis(&s), gets);
    cr_expect_eq(nearside_info(s.n, "l1_echoes"), 1);
}

/* While its fetch is under way; unless somebody may know a newer one. */
SCENARIO(echo, a_value_just_set_is_read_until_it_is_here)
{
    static const char *const told[] = {"GETRANGE k 0 -1", "SET k theirs"};
    struct stage s = set_up(NULL);
    struct client *other = nearside_connect(s.n);
    nearside_await_fills(s.n);
    expect(s.r->direct, "+OK", "SET k old");
    for (int i = 0; i < 2; i++) {
        (void)ask(s.c, "GET k");
        (void)ask(s.c, "GET k");
        relay_hold_link(s.link, relay_find(s.link, "GET\r\n$1\r\nk\r\n"), RELAY_DOWN);
        long long again = nearside_info(s.n, "fetches_again");
        long long echoes = nearside_info(s.n, "l1_echoes");
        expect(s.c, "+OK", "SET k mine");
        expect(s.c, "$mine", "GET k");
        expect(other, "$mine", "GET k");
        cr_expect_eq(nearside_info(s.n, "fetches_again"), again + 1);
        cr_expect_eq(nearside_info(s.n, "l1_echoes"), echoes + 2);
        expect(s.r->direct, "+OK", "SET k theirs");
        (void)ask(other, "%s", told[i]);
        SEND(s.c, "GET k");
        expect(other, "+PONG", "PING");
        relay_release(s.link);
        expect_next(s.c, "$theirs");
    }
}

SCENARIO(echo, a_set_without_a_reply_leaves_nobody_waiting)
{
    struct stage s = set_up("upstream.command_timeout=300ms");
    expect(s.c, "+OK", "SET k old");
    relay_hold(s.link, RELAY_UP, false);
    SEND(s.c, "SET k new", "GET k", "SET k newer", "SET j new", "GET j");
    for (int i = 0; i < 5; i++) {
        expect_next(s.c, "-UPSTREAM ...");
    }
    relay_release(s.link);
    await_reply(s.c, "$newer", 5000, "GET k");
}

SCENARIO(echo, nor_does_a_lost_one)
{
    static const char *const one[] = {"SET k new", "GET k", NULL};
    static const char *const several[] = {"SET k new", "SET j new", "GET k", NULL};
    struct stage s = set_up(NULL);
    expect(s.c, "+OK", "SET k old");
    for (int n = 1; n <= 2; n++) {
        hold_replies(&s, n == 1 ? one : several, n);
        relay_cut(s.link, false);
        relay_release(s.link);
        for (int i = 0; i < n; i++) {
            expect_next(s.c, "-UPSTREAM ...");
        }
        const char *got = client_read(s.c);
        cr_expect(matches(got, "-UPSTREAM ...") || matches(got, "$new"), "%s", got);
        await_reply(s.c, "$new", 5000, "GET k");
    }
}

SCENARIO(echo, a_client_that_leaves_takes_it_along)
{
    static const char *const lines[] = {"SET k new", "GET k", "SET k newer", "SET j new",
                                        "GET k",     "GET j", NULL};
    struct stage s = set_up(NULL);
    struct client *other = nearside_connect(s.n);
    expect(other, "nil", "GET nothing");
    hold_replies(&s, lines, 3);
    client_reset(s.c);
    expect(other, "+PONG", "PING"); /* the loop has seen that */
    relay_release(s.link);
    expect(other, "$newer", "GET k");
    expect(other, "$new", "GET j");
    nearside_await_info(s.n, "l1_writes_in_flight", 0, 0, 5000);
}
