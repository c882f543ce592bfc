/* SPDX-License-Identifier: Apache-2.0
 *
 * test_health.c: every arrow of the picture in health.h, what node.c makes of them, and what
 * connections make of a node that is down.
 */
#include "../../../upstream/health.h"

#include "../../../upstream/upstream_priv.h"

#include "conn_fixture.h"

#include <netinet/tcp.h>

static const struct health_limits LIMITS = {.failures = 3, .recoveries = 2};

static bool trouble(struct health *h, int64_t now)
{
    return health_trouble(h, &LIMITS, "refused", false, now);
}

static bool answer(struct health *h, int64_t now)
{
    return health_answer(h, &LIMITS, now);
}

Test(health, first_answer_brings_it_up)
{
    struct health h = {0};
    cr_expect_eq(h.state, NODE_CONNECTING);
    cr_expect(answer(&h, 1000));
    cr_expect_eq(h.state, NODE_UP);
    cr_expect_eq(h.since, 1000);
    cr_expect_not(answer(&h, 2000));
}

Test(health, one_that_never_answered_is_down_after_so_many_failures)
{
    struct health h = {0};
    cr_expect_not(trouble(&h, 1000));
    cr_expect_not(trouble(&h, 2000));
    cr_expect_eq(h.state, NODE_CONNECTING);
    cr_expect(trouble(&h, 3000));
    cr_expect_eq(h.state, NODE_DOWN);
    cr_expect_eq(h.troubles, 3);
    cr_expect_str_eq(h.why, "refused");
}

Test(health, first_trouble_makes_it_suspect_and_further_ones_down)
{
    struct health h = {0};
    answer(&h, 1000);
    cr_expect(trouble(&h, 2000));
    cr_expect_eq(h.state, NODE_SUSPECT);
    cr_expect_not(trouble(&h, 3000));
    cr_expect(trouble(&h, 4000));
    cr_expect_eq(h.state, NODE_DOWN);
    cr_expect_eq(h.since, 4000);
    cr_expect_not(trouble(&h, 5000));
}

Test(health, what_fails_in_one_moment_counts_once)
{
    struct health h = {0};
    answer(&h, 1000);
    for (int i = 0; i < 50; i++) {
        trouble(&h, 2000 + i);
    }
    cr_expect_eq(h.state, NODE_SUSPECT);
    cr_expect_eq(h.troubles, 1);
    trouble(&h, 2000 + HEALTH_APART_MS);
    cr_expect_eq(h.troubles, 2);
}

Test(health, suspect_is_up_after_so_many_answers_in_a_row)
{
    struct health h = {0};
    answer(&h, 1000);
    trouble(&h, 2000);
    cr_expect_not(answer(&h, 3000));
    cr_expect_not(answer(&h, 3001), "of the same moment");
    trouble(&h, 3500); /* begins anew */
    cr_expect_not(answer(&h, 4000));
    cr_expect_eq(h.state, NODE_SUSPECT);
    cr_expect(answer(&h, 4000 + HEALTH_APART_MS));
    cr_expect_eq(h.state, NODE_UP);
    cr_expect_eq(h.troubles, 0);
}

Test(health, answer_forgives_what_failed_before)
{
    struct health h = {0};
    answer(&h, 1000);
    trouble(&h, 2000);
    trouble(&h, 3000);
    answer(&h, 4000);
    cr_expect_not(trouble(&h, 5000));
    cr_expect_not(trouble(&h, 6000));
    cr_expect_eq(h.state, NODE_SUSPECT);
}

Test(health, down_is_suspect_from_the_first_answer_on)
{
    struct health h = {0};
    for (int i = 1; i <= 3; i++) {
        trouble(&h, i * 1000);
    }
    cr_expect(answer(&h, 5000));
    cr_expect_eq(h.state, NODE_SUSPECT);
    cr_expect(answer(&h, 6000));
    cr_expect_eq(h.state, NODE_UP);

    const struct health_limits at_once = {.failures = 1, .recoveries = 1};
    cr_expect(health_trouble(&h, &at_once, "refused", false, 7000));
    cr_expect_eq(h.state, NODE_DOWN);
    cr_expect(health_answer(&h, &at_once, 8000));
    cr_expect_eq(h.state, NODE_UP);
}

Test(health, silence_makes_it_suspect_and_then_down)
{
    struct health h = {0};
    answer(&h, 1000);
    cr_expect(health_silence(&h, false, 3500));
    cr_expect_eq(h.state, NODE_SUSPECT);
    cr_expect_not(health_silence(&h, false, 4000));
    cr_expect(health_silence(&h, true, 11000));
    cr_expect_eq(h.state, NODE_DOWN);
    cr_expect(h.silent);
}

/* ---- The node ------------------------------------------------------------------------------- */

static int times_troubled;

static void on_troubled(void *ctx)
{
    cr_assert_str_eq(ctx, "owner");
    times_troubled++;
}

static struct node *make_node(void)
{
    return node_create(&(struct node_options){.host = "127.0.0.1",
                                              .port = "1",
                                              .limits = LIMITS,
                                              .troubled = on_troubled,
                                              .ctx = (void *)(uintptr_t) "owner"});
}

Test(health, owner_hears_when_the_node_leaves_up_and_only_then)
{
    node = make_node();
    struct health h;
    node_trouble(node, "refused", false, 100);
    cr_expect_eq(times_troubled, 0, "it was not up");
    node_answered(node, 1000);
    node_trouble(node, "refused", false, 2000);
    node_trouble(node, "refused", false, 3000);
    cr_expect_eq(times_troubled, 1);
    node_health(node, &h);
    cr_expect_eq(h.state, NODE_SUSPECT);
    cr_expect_eq(h.troubles, 2);
    node_answered(node, 4000);
    node_answered(node, 5000);
    cr_expect_eq(node_state(node), NODE_UP);
    node_silence(node, true, 6000);
    cr_expect_eq(times_troubled, 2);
    node_destroy(node);
}

Test(health, only_those_that_wait_in_vain_are_told_at_once)
{
    node = make_node();
    for (int i = 1; i <= 3; i++) {
        node_trouble(node, "Connection refused", false, i * 1000);
    }
    cr_expect_eq(node_state(node), NODE_DOWN);
    cr_expect_not(node_is_mute(node), "to be refused costs nobody a wait");
    node_trouble(node, "connecting took too long", true, 5000);
    cr_expect(node_is_mute(node));
    node_answered(node, 6000);
    cr_expect_not(node_is_mute(node));
    node_destroy(node);
}

Test(health, limits_that_are_not_given_are_one)
{
    node = node_create(&(struct node_options){.host = "127.0.0.1", .port = "1"});
    node_answered(node, 1000);
    node_trouble(node, "refused", false, 2000);
    cr_expect_eq(node_state(node), NODE_DOWN);
    node_answered(node, 3000);
    cr_expect_eq(node_state(node), NODE_UP);
    node_destroy(node);
}

/* ---- Connections ---------------------------------------------------------------------------- */

static int option(int level, int name)
{
    int value = 0;
    socklen_t n = sizeof(value);
    cr_assert_eq(getsockopt(conn->fd, level, name, &value, &n), 0);
    return value;
}

Test(health, kernel_is_told_when_a_silent_peer_counts_as_dead)
{
    fake_open(&fake);
    open_with(fake.port, (struct node_options){.dead_after_ms = 12000}, (struct conn_options){0});
    cr_expect_eq(option(IPPROTO_TCP, TCP_USER_TIMEOUT), 12000);
    cr_expect_eq(option(SOL_SOCKET, SO_KEEPALIVE), 1);
    cr_expect_eq(option(IPPROTO_TCP, TCP_KEEPIDLE), 6);
    cr_expect_eq(option(IPPROTO_TCP, TCP_KEEPINTVL), 2);
    close_fake();
}

Test(health, new_connection_to_a_silent_node_that_is_down_takes_nothing)
{
    struct ask one = {0};
    fake_open(&fake); /* and never greets */
    live_start();
    node = live_node_with(fake.port, (struct node_options){0});
    node_trouble(node, "it sleeps", true, 1000);
    cr_assert_eq(node_state(node), NODE_DOWN);
    conn = make_conn(node, (struct conn_options){0});
    live_turn = flush_and_tick;
    conn_open(conn);
    cr_expect_eq(ask_line(conn, &one, "PING"), CONN_DOWN);
    cr_expect_str_eq(conn_error(conn), "it sleeps");
    fake_greet(&fake);
    WAIT_FOR(is_up());
    cr_expect_eq(node_state(node), NODE_UP);
    cr_expect_eq(ask_line(conn, &one, "PING"), CONN_OK);
    close_fake();
}

Test(health, idle_connection_to_a_silent_node_that_is_down_takes_nothing_and_closes)
{
    struct ask one = {0};
    up_with_fake();
    node_silence(node, true, live_now());
    cr_expect_eq(ask_line(conn, &one, "PING"), CONN_DOWN);
    WAIT_FOR(losses == 1);
    close_fake();
}
