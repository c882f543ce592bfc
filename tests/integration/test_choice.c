/* SPDX-License-Identifier: Apache-2.0
 *
 * test_choice.c: invalidation.mode = auto goes down as the server refuses and up as it allows, and what is
 * said when the server's tracking table is nearly full.
 */
#include "../support/cluster.h"
#include "../support/fake.h"
#include "feeds.h"

TestSuite(choice);

/* ---- Automatic choice ----------------------------------------------------------------------- */

/* What is cached in one mode is gone in the next. */
static void change_empties(struct setup *s, const char *acl, const char *mode)
{
    long long changes = nearside_info(s->proxy, "invalidation_mode_changes");

    make_cached(s, s->c[0], "k");
    expect(s->redis->direct, "+OK", "ACL SETUSER default %s", acl);
    expect(s->redis->direct, ":...", "CLIENT KILL TYPE pubsub");
    expect(s->redis->direct, ":...", "CLIENT KILL TYPE normal SKIPME yes");
    await_mode(s->proxy, mode, 10000);
    cr_assert(nearside_info(s->proxy, "invalidation_mode_changes") > changes);
    open_clients(s);
}

SCENARIO(choice, auto_goes_down_as_the_server_refuses_and_up_as_it_allows)
{
    struct redis *r = redis_start(NOTIFY);
    struct setup s = {.redis = r, .proxy = nearside_start(r->port, NULL)};

    expect(r->direct, "+OK", "SET k v");
    nearside_await_fills(s.proxy);
    open_clients(&s);
    await_mode(s.proxy, "tracking", 1000);

    change_empties(&s, "-client|tracking", "keyspace");
    cr_assert(strstr(nearside_info_text(s.proxy),
                     "invalidation_refused:tracking: CLIENT TRACKING: NOPERM"));
    nearside_await_fills(s.proxy);
    expect(r->direct, "+OK", "SET k w");
    await_reply(s.c[0], "$w", 1000, "GET k");
    change_empties(&s, "-psubscribe", "refused");
    cr_assert_eq(nearside_info(s.proxy, "tracking_refused"), 1);
    long long gets = redis_calls(r, "get");
    expect(s.c[0], "$w", "GET k");
    expect(s.c[0], "$w", "GET k");
    cr_assert_eq(redis_calls(r, "get"), gets + 2);

    expect(r->direct, "+OK", "ACL SETUSER default +psubscribe");
    await_mode(s.proxy, "keyspace", 20000);
    nearside_await_fills(s.proxy);
    make_cached(&s, s.c[0], "k");
    gets = redis_calls(r, "get");
    expect(r->direct, "+OK", "ACL SETUSER default +client|tracking");
    await_mode(s.proxy, "tracking", 30000);
    nearside_await_fills(s.proxy);
    expect(s.c[0], "$w", "GET k");
    cr_assert_gt(redis_calls(r, "get"), gets, "what another mode had vouched for was served");
    make_cached(&s, s.c[0], "k");
    expect(r->direct, "+OK", "SET k x");
    await_reply(s.c[0], "$x", 1000, "GET k");
    nearside_await_log(s.proxy, "invalidation climbs to");
    nearside_await_log(s.proxy, "reads use L1 again");
    cr_assert_eq(nearside_log_lines(s.proxy, "invalidation falls from tracking to redirect"), 1);
    cr_assert_eq(nearside_log_lines(s.proxy, "reads use L1 again"), 1);
}

struct seat {
    struct nearside *n;
    int port;
    const char *role;
};

static bool is_seated(void *ctx)
{
    const struct seat *seat = ctx;
    const char *line =
        strstr(nearside_info_text(seat->n), cleanup_printf(":name=127.0.0.1:%d,", seat->port));
    const char *role = line == NULL ? NULL : strstr(line, ",role=");
    return role != NULL && strncmp(role + strlen(",role="), seat->role, strlen(seat->role)) == 0;
}

/* The choice of a node is made anew where the last one stopped when it is a primary again. */
SCENARIO(choice, a_node_that_comes_back_climbs_again)
{
    struct cluster *cluster = cluster_start(3, 1, NULL);
    struct redis *node = cluster->node[0];
    const char *climbs =
        cleanup_printf("reads use L1 again, invalidation is tracking: 127.0.0.1:%d", node->port);

    expect(node->direct, "+OK", "ACL SETUSER default -client|tracking -psubscribe");
    struct nearside *n = nearside_start(cluster->node[1]->port, "upstream.mode=cluster",
                                        "upstream.topology_refresh=1s", NULL);
    nearside_await_log(n, cleanup_printf("from now on: 127.0.0.1:%d refuses", node->port));
    for (int i = 0; i < 2; i++) {
        struct seat seat = {n, node->port, i == 0 ? "replica" : "primary"};
        cluster_failover(cluster, i == 0 ? 3 : 0);
        cr_assert(await(is_seated, &seat, 10000 * slowdown()));
    }
    cr_assert_eq(nearside_log_lines(n, climbs), 0);
    expect(node->direct, "+OK", "ACL SETUSER default +client|tracking");
    nearside_await_log(n, climbs);
}

/* No real server allows broadcast to whom it forbids the rest. This one does, and then says nothing a
 * subscriber could use, so that the mode is as far as it gets. */
SCENARIO(choice, auto_takes_broadcast_when_redirection_is_refused)
{
    static const struct fake_rule rules[] = {
        {"HELLO", "-ERR unknown command 'HELLO'\r\n", 0, FAKE_KEEP},
        {"CLIENT ID", ":7\r\n", 0, FAKE_KEEP},
        {"CLIENT TRACKING ON REDIRECT 7 BCAST", "+OK\r\n", 0, FAKE_KEEP},
        {"CLIENT TRACKING", "-ERR not here\r\n", 0, FAKE_KEEP},
        {"SUBSCRIBE", "*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n", 0,
         FAKE_KEEP},
        {0},
    };
    struct nearside *n = nearside_start(fake_port(fake_start(rules)), NULL);

    await_mode(n, "broadcast", 5000);
    const char *info = nearside_info_text(n);
    cr_assert(strstr(info, "invalidation_refused:tracking: HELLO: ERR unknown command") != NULL);
    cr_assert(strstr(info, "redirect: CLIENT TRACKING: ERR not here") != NULL);
    cr_assert_eq(nearside_info(n, "invalidation_link_up"), 0);
    struct client *c = nearside_connect(n);
    for (int i = 0; i < 20; i++) {
        expect(c, "$value", "GET k");
    }
    cr_assert_eq(nearside_info(n, "l1_hits"), 0);
}

/* Users cannot be kept from HELLO, so RESP3 is impossible here in another way. */
SCENARIO(choice, auto_without_resp3_starts_with_the_best_that_is_allowed)
{
    static const char *const extra[] = {
        "--notify-keyspace-events", "EA", "--rename-command", "HELLO", "", NULL};
    struct redis *r = redis_start(extra);

    expect(r->direct, "+OK", "ACL SETUSER default resetchannels &__keyevent@*__:*");
    struct nearside *n = nearside_start(r->port, NULL);
    await_mode(n, "keyspace", 5000);
    nearside_await_fills(n);
    expect(r->direct, "+OK", "ACL SETUSER default allchannels");
    await_mode(n, "redirect", 10000);
    nearside_await_fills(n);
    /* the server itself closes subscribers that lose their channel */
    expect(r->direct, "+OK", "ACL SETUSER default resetchannels &__keyevent@*__:*");
    await_mode(n, "keyspace", 5000);
    nearside_await_fills(n);
    expect(r->direct, "+OK", "ACL SETUSER default allchannels");
    await_mode(n, "redirect", 20000);
}

SCENARIO(choice, auto_does_not_fall_when_the_server_is_only_away)
{
    struct setup s = start_with("auto", "1s", NULL);

    for (int i = 0; i < 2; i++) {
        redis_restart(s.redis);
        nearside_await_fills(s.proxy);
    }
    cr_assert(has_mode(s.proxy, "tracking"));
    cr_assert_eq(nearside_info(s.proxy, "invalidation_mode_changes"), 0);
}

/* ---- The tracking table --------------------------------------------------------------------- */

SCENARIO(choice, tracking_table_that_is_nearly_full_is_said_once)
{
    static const char *const extra[] = {"--tracking-table-max-keys", "50", NULL};
    struct redis *r = redis_start(extra);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    for (int i = 0; i < 47; i++) {
        expect(r->direct, "+OK", "SET k%d v", i);
        expect(c, "$v", "GET k%d", i);
    }
    nearside_await_info(n, "tracking_table_keys", 45, 50, 10000);
    cr_assert_eq(nearside_info(n, "tracking_table_max"), 50);
    nearside_await_log(n, "the tracking table");
    cr_assert_eq(nearside_log_lines(n, "the tracking table"), 1);
    expect(r->direct, "+OK", "CONFIG SET tracking-table-max-keys 1000");
    nearside_await_info(n, "tracking_table_max", 1000, 1000, 10000);
    nearside_await_log(n, "has room again");
    cr_assert_eq(nearside_log_lines(n, "has room again"), 1);
}
