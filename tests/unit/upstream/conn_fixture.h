/* SPDX-License-Identifier: Apache-2.0
 *
 * conn_fixture.h: one connection on the test's loop, to a played or a real server, and what it told
 * its owner. For test_conn.c and test_conn_peers.c.
 */
#pragma once

#include "../live.h"

static struct node *node;
static struct conn *conn;
static struct fake fake;
static struct redis redis;
static int ups;
static int losses;
static int pushes;
static int ends_at_loss; /* how many calls had ended when the loss was reported */
static int refusals;
static int64_t retry_bound; /* for conn_retry_slowly, from inside `refused` */
static char refused_step[64];
static char refused_text[ERR_MAX];
static void (*when_up)(void);

LIVE void on_up(struct conn *c, void *ctx)
{
    (void)ctx;
    cr_assert_eq(conn_state(c), CONN_UP);
    ups++;
    if (when_up != NULL) {
        when_up();
    }
}

LIVE void on_lost(struct conn *c, void *ctx)
{
    (void)c;
    cr_assert_str_eq(ctx, "ctx");
    losses++;
    ends_at_loss = ask_ends;
}

LIVE void on_refused(struct conn *c, const char *step, const char *text, void *ctx)
{
    (void)ctx;
    cr_assert_str_eq(conn_error(c), text);
    (void)snprintf(refused_step, sizeof(refused_step), "%s", step);
    (void)snprintf(refused_text, sizeof(refused_text), "%s", text);
    refusals++;
    if (retry_bound > 0) {
        conn_retry_slowly(c, retry_bound);
    }
}

LIVE void on_push(struct conn *c, const struct push *push, void *ctx)
{
    (void)c;
    (void)ctx;
    cr_assert(slice_eq(push->kind, SLICE("invalidate")));
    pushes++;
}

static const struct conn_events EVENTS = {
    .up = on_up,
    .lost = on_lost,
    .refused = on_refused,
    .push = on_push,
};

LIVE void flush_and_tick(void)
{
    conn_flush(conn);
    conn_tick(conn, live_now());
}

LIVE struct conn *make_conn(struct node *to, struct conn_options o)
{
    o.loop = live_loop;
    o.node = to;
    o.role = "lane";
    o.now = live_now;
    o.read_buffer = live_buffer;
    o.read_size = sizeof(live_buffer);
    o.events = o.events != NULL ? o.events : &EVENTS;
    o.ctx = (void *)(uintptr_t) "ctx";
    return conn_create(&o);
}

LIVE void open_with(int port, struct node_options n, struct conn_options o)
{
    live_start();
    node = live_node_with(port, n);
    conn = make_conn(node, o);
    live_turn = flush_and_tick;
    conn_open(conn);
}

LIVE void open_to(int port)
{
    open_with(port, (struct node_options){0}, (struct conn_options){0});
}

LIVE void open_fake(void)
{
    fake_open(&fake);
    open_to(fake.port);
}

LIVE void close_all(void)
{
    conn_destroy(conn);
    node_destroy(node);
    live_stop();
}

LIVE void close_fake(void)
{
    close_all();
    fake_close(&fake);
}

LIVE bool is_up(void)
{
    return conn_state(conn) == CONN_UP;
}

LIVE void up_with_fake(void)
{
    open_fake();
    fake_greet(&fake);
    WAIT_FOR(is_up());
}

LIVE void up_with_redis(void)
{
    redis_start(&redis, "");
    open_to(redis.port);
    WAIT_FOR(is_up());
}

LIVE void close_redis(void)
{
    close_all();
    redis_stop(&redis);
}
