/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conn_peers.c: a connection (conn.h) and the other end: how bytes travel, servers that lie,
 * servers that vanish, restart, or say nothing.
 */
#include "../../../upstream/upstream_priv.h"

#include "conn_fixture.h"

/* ---- Bytes --------------------------------------------------------------------------------- */

Test(conn, reply_may_come_byte_by_byte)
{
    struct ask ask = {0};
    up_with_fake();
    cr_assert_eq(ask_line(conn, &ask, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    for (const char *p = "*2\r\n$5\r\nhello\r\n:7\r\n"; *p != '\0'; p++) {
        cr_assert_not(ask.done);
        fake_say(&fake, (char[]){*p, '\0'});
        live_spin();
    }
    WAIT_FOR(ask.done);
    cr_assert_str_eq(ask.got, "*2\r\n$5\r\nhello\r\n:7\r\n");
    close_fake();
}

/* Texts of falling length, each of one letter; checks them as they arrive. */
struct slow_reader {
    size_t which;
    size_t at;
};

#define TEXT_MAX ((size_t)64 * 1024)

static bool slow_reader_has(struct slow_reader *r, size_t texts)
{
    static char seen[128 * 1024];
    ssize_t n = recv(fake.fd, seen, sizeof(seen), 0);
    for (ssize_t i = 0; i < n; i++) {
        cr_assert_eq(seen[i], 'a' + (int)(r->which % 26));
        if (++r->at == TEXT_MAX - r->which) {
            r->at = 0;
            r->which++;
        }
    }
    return r->which == texts;
}

Test(conn, peer_that_reads_slowly_gets_everything_in_order)
{
    static struct ask asks[128];
    static char text[TEXT_MAX];
    struct slow_reader reader = {0};
    up_with_fake();
    for (size_t i = 0; i < ARRAY_LEN(asks); i++) {
        memset(text, 'a' + (int)(i % 26), sizeof(text));
        cr_assert_eq(ask_blob(conn, &asks[i], slice_of(text, sizeof(text) - i), NULL), CONN_OK);
    }
    live_run_for(50);
    cr_assert_gt(conn_queued_bytes(conn), 0, "8 MiB do not fit into a socket");
    WAIT_FOR(reader.which == ARRAY_LEN(asks) || slow_reader_has(&reader, ARRAY_LEN(asks)));
    cr_assert_eq(conn_queued_bytes(conn), 0);
    cr_assert_eq(conn_pending(conn), ARRAY_LEN(asks));
    close_fake();
}

Test(conn, large_value_is_sent_from_its_blob_and_comes_back)
{
    size_t size = (size_t)64 << 20;
    char head[64];
    int n = snprintf(head, sizeof(head), "*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%zu\r\n", size);
    struct blob *blob = blob_try((size_t)n + size + 2);
    struct ask set = {0};
    struct ask get = {0};
    cr_assert_not_null(blob);
    memcpy(blob->p, head, (size_t)n);
    memset(blob->p + n, 'v', size);
    memcpy(blob->p + n + size, "\r\n", 2);
    up_with_redis();
    cr_assert_eq(ask_blob(conn, &set, slice_of(blob->p, blob->n), blob), CONN_OK);
    cr_assert_eq(atomic_load(&blob->refs), 2);
    cr_assert_eq(ask_line(conn, &get, "GET big"), CONN_OK);
    WAIT_FOR(set.done);
    cr_assert_eq(atomic_load(&blob->refs), 1);
    cr_assert_str_eq(set.got, "+OK\r\n");
    blob_unref(blob);
    WAIT_FOR(get.done);
    cr_assert_eq(get.bytes, strlen("$67108864\r\n") + size + 2);
    cr_assert_gt(get.pieces, 100, "it is handed on in pieces");
    close_redis();
}

/* ---- Servers that lie ---------------------------------------------------------------------- */

Test(conn, reply_nobody_asked_for_ends_the_link)
{
    up_with_fake();
    fake_say(&fake, "+OK\r\n");
    WAIT_FOR(losses == 1);
    cr_assert_not_null(strstr(conn_error(conn), "nobody asked"), "%s", conn_error(conn));
    close_fake();
}

Test(conn, reply_to_an_unsent_call_is_one_nobody_asked_for)
{
    struct ask ask = {0};
    up_with_fake();
    live_turn = NULL;
    cr_assert_eq(ask_line(conn, &ask, "GET a"), CONN_OK);
    fake_say(&fake, "+OK\r\n");
    WAIT_FOR(losses == 1);
    cr_assert(ask.lost);
    cr_assert_eq(ask.loss, LOSS_UNSENT);
    close_fake();
}

Test(conn, error_in_the_middle_of_a_command_reaches_its_call_and_ends_the_link)
{
    struct ask big = {0};
    struct ask behind = {0};
    up_with_fake();
    struct blob *blob = blob_try((size_t)32 << 20);
    cr_assert_not_null(blob);
    memset(blob->p, 'x', blob->n);
    cr_assert_eq(ask_blob(conn, &big, slice_of(blob->p, blob->n), blob), CONN_OK);
    blob_unref(blob);
    cr_assert_eq(ask_line(conn, &behind, "PING"), CONN_OK);
    live_run_for(20);
    fake_say(&fake, "-ERR Protocol error: invalid bulk length\r\n");
    WAIT_FOR(behind.lost);
    cr_assert(big.done);
    cr_assert_str_eq(big.got, "-ERR Protocol error: invalid bulk length\r\n");
    cr_assert_not_null(strstr(conn_error(conn), "before its command"), "%s", conn_error(conn));
    cr_assert_eq(behind.loss, LOSS_UNSENT);
    close_fake();
}

Test(conn, bytes_that_are_not_resp_end_the_link)
{
    struct ask ask = {0};
    up_with_fake();
    cr_assert_eq(ask_line(conn, &ask, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    fake_say(&fake, "HTTP/1.1 400 Bad Request\r\n");
    WAIT_FOR(ask.lost);
    cr_assert_eq(strncmp(conn_error(conn), "protocol error: ", 16), 0, "%s", conn_error(conn));
    close_fake();
}

Test(conn, end_in_mid_reply_is_a_loss_after_the_pieces_that_came)
{
    struct ask ask = {0};
    up_with_fake();
    cr_assert_eq(ask_line(conn, &ask, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    char head[20000];
    memset(head, 'x', sizeof(head));
    memcpy(head, "$100000\r\n", 9);
    head[sizeof(head) - 1] = '\0';
    fake_say(&fake, head);
    WAIT_FOR(ask.bytes > 9);
    fake_hang_up(&fake);
    WAIT_FOR(ask.lost);
    cr_assert_eq(ask.loss, LOSS_SENT);
    cr_assert_not_null(strstr(conn_error(conn), "middle of a reply"), "%s", conn_error(conn));
    close_fake();
}

Test(conn, replies_in_front_of_a_reset_are_delivered)
{
    struct ask first = {0};
    struct ask second = {0};
    struct ask third = {0};
    up_with_fake();
    live_turn = NULL;
    cr_assert_eq(ask_line(conn, &first, "GET a"), CONN_OK);
    conn_flush(conn);
    fake_expect(&fake, "GET a\r\n");
    cr_assert_eq(ask_line(conn, &second, "GET b"), CONN_OK);
    fake_say(&fake, "$-1\r\n");
    fake_hang_up(&fake);
    conn_flush(conn); /* is answered by a reset */
    cr_assert_eq(ask_line(conn, &third, "GET c"), CONN_OK);
    conn_flush(conn); /* finds the pipe broken */
    WAIT_FOR(third.lost);
    cr_assert(first.done);
    cr_assert_eq(second.loss, LOSS_SENT);
    cr_assert_eq(third.loss, LOSS_UNSENT);
    close_fake();
}

Test(conn, pushes_go_to_the_owner)
{
    struct ask ask = {0};
    up_with_fake();
    cr_assert_eq(ask_line(conn, &ask, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    fake_say(&fake,
             ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n$-1\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n");
    WAIT_FOR(pushes == 2);
    cr_assert(ask.done);
    close_fake();
}

/* ---- Losing and finding servers ------------------------------------------------------------ */

Test(conn, killed_connection_comes_back)
{
    struct ask ask = {0};
    up_with_redis();
    redis_do(&redis, "CLIENT KILL TYPE normal SKIPME yes");
    WAIT_FOR(losses == 1);
    WAIT_FOR(ups == 2);
    cr_assert_eq(ask_line(conn, &ask, "PING"), CONN_OK);
    WAIT_FOR(ask.done);
    close_redis();
}

static int changes;

static void count_change(void *ctx)
{
    (void)ctx;
    changes++;
}

Test(conn, restarted_server_is_another_generation)
{
    redis_start(&redis, "");
    open_with(redis.port, (struct node_options){.changed = count_change}, (struct conn_options){0});
    WAIT_FOR(is_up());
    uint64_t generation = node_generation(node);
    char version[32];
    node_version(node, version, sizeof(version));
    cr_assert_str_not_empty(version);
    redis_do(&redis, "CLIENT KILL TYPE normal SKIPME yes");
    WAIT_FOR(ups == 2);
    cr_assert_eq(changes, 0, "the same server");
    redis_kill(&redis);
    redis_spawn(&redis);
    WAIT_FOR(ups == 3);
    cr_assert_eq(changes, 1);
    cr_assert_eq(node_generation(node), generation + 1);
    cr_assert(conn_accepts(conn));
    close_redis();
}

static struct conn *other;

Test(conn, link_to_an_older_generation_is_unusable_at_once)
{
    struct ask owed = {0};
    struct ask refused = {0};
    up_with_fake();
    int old = fake.fd;
    cr_assert_eq(ask_line(conn, &owed, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    live_turn = NULL;
    other = make_conn(node, (struct conn_options){0});
    conn_open(other);
    fake_greet_as(&fake, "2222");
    WAIT_FOR(conn_state(other) == CONN_UP);
    cr_assert(conn_accepts(other));
    cr_assert_eq(conn_state(conn), CONN_UP);
    cr_assert_not(conn_accepts(conn));
    cr_assert_eq(ask_line(conn, &refused, "GET b"), CONN_DOWN);
    cr_assert_not(owed.lost, "no callback from inside conn_submit");
    conn_flush(conn);
    cr_assert(owed.lost);
    cr_assert_eq(losses, 1);
    cr_assert_neq(conn_state(conn), CONN_UP);
    close(old);
    conn_destroy(other);
    close_fake();
}

Test(conn, what_waits_for_a_bring_up_goes_along_when_the_node_moves)
{
    struct fake old = {0};
    struct ask ask = {0};
    char port[16];
    fake_open(&old);
    fake_open(&fake);
    open_with(old.port, (struct node_options){0}, (struct conn_options){0});
    fake_accept(&old);
    fake_expect(&old, "$4\r\nPING\r\n");
    cr_assert_eq(ask_line(conn, &ask, "GET k"), CONN_OK);
    live_turn = NULL; /* no tick: the old server answers before the move is noticed */
    (void)snprintf(port, sizeof(port), "%d", fake.port);
    node_set_address(node, "127.0.0.1", port);
    fake_say_info(&old, "1111");
    fake_say(&old, "+PONG\r\n");
    fake_greet_as(&fake, "2222");
    live_turn = flush_and_tick;
    fake_expect(&fake, "GET k");
    fake_say(&fake, "$1\r\nv\r\n");
    WAIT_FOR(ask.done || ask.lost);
    cr_assert_not(ask.lost, "%s", conn_error(conn));
    fake_close(&old);
    close_fake();
}

Test(conn, what_is_submitted_to_an_idle_link_of_an_older_generation_waits_for_the_new_one)
{
    static const struct conn_events nobodys = {0};
    struct ask ask = {0};
    fake_open(&fake);
    open_with(fake.port, (struct node_options){0}, (struct conn_options){.events = &nobodys});
    fake_greet(&fake);
    WAIT_FOR(is_up());
    int old = fake.fd;
    live_turn = NULL;
    (void)node_identify(node, SLICE("2222"), SLICE(""));
    cr_assert_eq(ask_line(conn, &ask, "GET b"), CONN_OK);
    cr_assert_neq(conn_state(conn), CONN_UP);
    live_turn = flush_and_tick;
    fake_greet_as(&fake, "2222");
    fake_expect(&fake, "GET b\r\n");
    fake_say(&fake, "$1\r\nv\r\n");
    WAIT_FOR(ask.done || ask.lost);
    cr_assert_not(ask.lost, "%s", conn_error(conn));
    close(old);
    close_fake();
}

Test(conn, tick_too_notices_an_older_generation)
{
    up_with_fake();
    live_turn = NULL;
    (void)node_identify(node, SLICE("2222"), SLICE(""));
    conn_tick(conn, live_now());
    cr_assert_eq(losses, 1);
    close_fake();
}

Test(conn, silent_node_that_owes_replies_is_dead)
{
    struct ask ask = {0};
    redis_start(&redis, "");
    open_with(redis.port, (struct node_options){.dead_after_ms = 150}, (struct conn_options){0});
    WAIT_FOR(is_up());
    kill(redis.pid, SIGSTOP);
    live_run_for(300);
    cr_assert(is_up(), "a connection that is owed nothing is not closed");
    cr_assert_eq(ask_line(conn, &ask, "PING"), CONN_OK);
    live_run_for(60);
    cr_assert_not(ask.lost, "silence counts from when something is owed");
    WAIT_FOR(ask.lost);
    cr_assert_eq(ask.loss, LOSS_SENT);
    cr_assert_not_null(strstr(conn_error(conn), "dead"), "%s", conn_error(conn));
    kill(redis.pid, SIGCONT);
    WAIT_FOR(ups == 2);
    close_redis();
}

static void tick_while_others_hear(void)
{
    node_heard(node, live_now());
    flush_and_tick();
}

Test(conn, slow_reply_of_a_node_that_talks_to_others_is_awaited)
{
    struct ask ask = {0};
    fake_open(&fake);
    open_with(fake.port, (struct node_options){.dead_after_ms = 100}, (struct conn_options){0});
    fake_greet(&fake);
    WAIT_FOR(is_up());
    live_turn = tick_while_others_hear;
    cr_assert_eq(ask_line(conn, &ask, "KEYS *"), CONN_OK);
    live_run_for(400);
    cr_assert_not(ask.lost);
    live_turn = flush_and_tick;
    WAIT_FOR(ask.lost);
    close_fake();
}

Test(conn, half_a_reply_and_no_more_of_a_node_that_talks_to_others_ends_the_link)
{
    struct ask ask = {0};
    fake_open(&fake);
    open_with(fake.port, (struct node_options){.dead_after_ms = 100}, (struct conn_options){0});
    fake_greet(&fake);
    WAIT_FOR(is_up());
    live_turn = tick_while_others_hear;
    cr_assert_eq(ask_line(conn, &ask, "GET k"), CONN_OK);
    fake_expect(&fake, "GET k");
    fake_say(&fake, "$10\r\n12345");
    WAIT_FOR(ask.lost);
    cr_assert_eq(ask.loss, LOSS_SENT);
    cr_assert_not_null(strstr(conn_error(conn), "half a reply"), "%s", conn_error(conn));
    close_fake();
}

Test(conn, own_standstill_is_not_the_nodes_silence)
{
    struct ask ask = {0};
    fake_open(&fake);
    open_with(fake.port, (struct node_options){.dead_after_ms = 800}, (struct conn_options){0});
    fake_greet(&fake);
    WAIT_FOR(is_up());
    live_turn = NULL;
    cr_assert_eq(ask_line(conn, &ask, "KEYS *"), CONN_OK);
    int64_t now = live_now();
    conn_tick(conn, now);
    conn_tick(conn, now + 60000);
    cr_assert_not(ask.lost);
    conn_tick(conn, now + 60700);
    cr_assert_not(ask.lost);
    conn_tick(conn, now + 60900);
    cr_assert(ask.lost);
    close_fake();
}

/* ---- Many that come back ----------------------------------------------------------------------- */

/* A port nobody listens on. */
static int closed_port(void)
{
    fake_open(&fake);
    int port = fake.port;
    fake_close(&fake);
    return port;
}

Test(conn, those_that_fail_in_the_same_instant_do_not_all_come_back_in_the_same)
{
    struct conn *conns[32];
    double least = 1e9, most = 0;
    live_start();
    node = live_node_with(closed_port(), (struct node_options){0});
    for (size_t i = 0; i < ARRAY_LEN(conns); i++) {
        conns[i] = make_conn(node, (struct conn_options){0});
        conn_open(conns[i]);
        WAIT_FOR(conn_state(conns[i]) == CONN_BACKOFF);
        double ms = ev_timer_remaining(live_loop, &conns[i]->retry) * 1000;
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    cr_assert_leq(most, 1.5 * CONN_BACKOFF_MIN_MS + 1);
    cr_assert_geq(most - least, 0.4 * CONN_BACKOFF_MIN_MS, "from %.1f to %.1f ms", least, most);
    for (size_t i = 0; i < ARRAY_LEN(conns); i++) {
        conn_destroy(conns[i]);
    }
    node_destroy(node);
    live_stop();
}
