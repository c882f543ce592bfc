/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conn_owner.c: what conn.h promises to an owner with a link for one client alone: to be shown
 * every piece first, to stop reading for a while, and to know who it is at the server.
 */
#include "../live.h"

static struct node *node;
static struct conn *conn;
static struct fake fake;
static bool takes;     /* what `stray` says */
static char seen[256]; /* pieces offered */
static int nfirst, nlast;
static int losses;
static int pushes;

LIVE bool on_stray(struct conn *c, const struct reply_piece *piece, void *ctx)
{
    cr_assert_eq(c, conn);
    cr_assert_str_eq(ctx, "ctx");
    size_t n = strlen(seen);
    cr_assert(n + piece->bytes.n < sizeof(seen));
    memcpy(seen + n, piece->bytes.p, piece->bytes.n);
    nfirst += piece->first;
    nlast += piece->last;
    return takes;
}

LIVE void on_push(struct conn *c, const struct push *push, void *ctx)
{
    (void)ctx;
    pushes++;
    if (slice_eq(push->kind, SLICE("subscribe"))) {
        conn_answer(
            c, &(struct reply_piece){
                   .bytes = push->bytes, .type = '>', .first = true, .last = true, .size = -1});
    }
}

LIVE void on_lost(struct conn *c, void *ctx)
{
    (void)c;
    (void)ctx;
    losses++;
}

static const struct conn_events EVENTS = {.lost = on_lost, .push = on_push, .stray = on_stray};

LIVE void flush_and_tick(void)
{
    conn_flush(conn);
    conn_tick(conn, live_now());
}

LIVE void start(bool asks_id, int64_t dead_after)
{
    live_start();
    fake_open(&fake);
    node = live_node_with(fake.port, (struct node_options){.dead_after_ms = dead_after});
    conn = conn_create(&(struct conn_options){
        .loop = live_loop,
        .node = node,
        .role = "pinned",
        .quiet = true,
        .asks_id = asks_id,
        .now = live_now,
        .read_buffer = live_buffer,
        .read_size = sizeof(live_buffer),
        .events = &EVENTS,
        .ctx = (void *)(uintptr_t) "ctx",
    });
    live_turn = flush_and_tick;
    conn_open(conn);
}

LIVE bool is_up(void)
{
    return conn_state(conn) == CONN_UP;
}

LIVE void end(void)
{
    conn_destroy(conn);
    node_destroy(node);
    live_stop();
    fake_close(&fake);
}

static void come_up(void)
{
    start(false, 5000);
    fake_greet(&fake);
    WAIT_FOR(is_up());
    cr_assert_str_empty(seen, "the handshake is nobody's business");
}

Test(conn_owner, is_offered_every_piece_and_the_call_gets_what_it_leaves)
{
    struct ask ask = {0};
    come_up();
    cr_assert_eq(ask_line(conn, &ask, "GET k"), CONN_OK);
    fake_expect(&fake, "GET k\r\n");
    fake_say(&fake, "$5\r\nva");
    WAIT_FOR(strlen(seen) == 6);
    fake_say(&fake, "lue\r\n");
    WAIT_FOR(ask.done);
    cr_assert_str_eq(seen, "$5\r\nvalue\r\n");
    cr_assert_str_eq(ask.got, "$5\r\nvalue\r\n");
    cr_assert(nfirst == 1 && nlast == 1);
    end();
}

Test(conn_owner, what_it_takes_reaches_no_call_and_needs_none)
{
    struct ask ask = {0};
    come_up();
    takes = true;
    fake_say(&fake, "+unasked\r\n");
    WAIT_FOR(nlast == 1);
    cr_assert_eq(ask_line(conn, &ask, "PING"), CONN_OK);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "+message\r\n");
    WAIT_FOR(nlast == 2);
    cr_assert_eq(ask.pieces, 0);
    takes = false;
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(ask.done);
    cr_assert_str_eq(ask.got, "+PONG\r\n");
    cr_assert_eq(losses, 0);
    end();
}

Test(conn_owner, may_answer_a_call_with_a_push)
{
    struct ask ask = {0};
    come_up();
    cr_assert_eq(ask_line(conn, &ask, "SUBSCRIBE a"), CONN_OK);
    fake_expect(&fake, "SUBSCRIBE a\r\n");
    fake_say(&fake, ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n");
    WAIT_FOR(pushes == 1);
    cr_assert_eq(ask.pieces, 0);
    fake_say(&fake, ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    WAIT_FOR(ask.done);
    cr_assert_str_eq(ask.got, ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    end();
}

Test(conn_owner, an_answer_without_a_call_is_the_end_of_the_link)
{
    come_up();
    fake_say(&fake, ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    WAIT_FOR(losses == 1);
    end();
}

Test(conn_owner, while_it_holds_nothing_is_read_and_nobody_is_taken_for_dead)
{
    struct ask ask = {0};
    start(false, 200);
    fake_greet(&fake);
    WAIT_FOR(is_up());
    conn_hold(conn, true);
    conn_hold(conn, true);
    cr_assert_eq(ask_line(conn, &ask, "PING"), CONN_OK);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "+PONG\r\n");
    live_run_for(500);
    cr_assert_eq(ask.pieces, 0);
    cr_assert(is_up());
    conn_hold(conn, false);
    conn_hold(conn, false);
    WAIT_FOR(ask.done);
    cr_assert_eq(losses, 0);
    end();
}

Test(conn_owner, holding_ends_with_the_link)
{
    struct ask ask = {0};
    come_up();
    conn_hold(conn, true);
    conn_fail(conn, "enough");
    cr_assert_eq(losses, 1);
    conn_hold(conn, true); /* nothing to hold */
    fake_greet(&fake);
    WAIT_FOR(is_up());
    cr_assert_eq(ask_line(conn, &ask, "PING"), CONN_OK);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(ask.done);
    end();
}

static void greet_with_id(const char *id)
{
    fake_accept(&fake);
    fake_expect(&fake, "*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n");
    fake_say(&fake, id);
    fake_say_info(&fake, "1111");
    fake_say(&fake, "+PONG\r\n");
}

Test(conn_owner, knows_its_id_at_the_server_once_it_is_up)
{
    start(true, 5000);
    cr_assert_eq(conn_peer_id(conn), 0);
    greet_with_id(":4711\r\n");
    WAIT_FOR(is_up());
    cr_assert_eq(conn_peer_id(conn), 4711);
    conn_fail(conn, "enough");
    cr_assert_eq(conn_peer_id(conn), 0);
    greet_with_id(":9223372036854775807\r\n");
    WAIT_FOR(is_up());
    cr_assert_eq(conn_peer_id(conn), INT64_MAX);
    end();
}

Test(conn_owner, does_without_an_id_that_is_not_to_be_had)
{
    start(true, 5000);
    greet_with_id("-NOPERM no\r\n");
    WAIT_FOR(is_up());
    cr_assert_eq(conn_peer_id(conn), 0);
    end();
}

/* Whoever uses the link is to log in. */
Test(conn_owner, is_up_and_the_node_known_to_ask_when_nobody_has_logged_in)
{
    start(true, 5000);
    greet_with_id("-NOAUTH no\r\n");
    WAIT_FOR(is_up());
    cr_assert(!node_asks_login(node), "it said PONG");
    conn_fail(conn, "enough");
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "-NOAUTH no\r\n-NOAUTH no\r\n-NOAUTH no\r\n");
    WAIT_FOR(is_up());
    cr_assert(node_asks_login(node));
    conn_fail(conn, "enough");
    greet_with_id(":1\r\n");
    WAIT_FOR(is_up());
    cr_assert(!node_asks_login(node));
    end();
}

Test(conn_owner, has_no_id_it_did_not_ask_for)
{
    come_up();
    cr_assert_eq(conn_peer_id(conn), 0);
    end();
}
