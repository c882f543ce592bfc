/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conn.c: what conn.h promises about bringing a link up, being refused, and calls: against a
 * server played word by word and, where a real one can tell more, against redis-server.
 */
#include "conn_fixture.h"

/* ---- States and the handshake -------------------------------------------------------------- */

Test(conn, idle_accepts_nothing)
{
    struct ask ask = {0};
    live_start();
    node = live_node(1);
    conn = make_conn(node, (struct conn_options){0});
    cr_assert_eq(conn_state(conn), CONN_IDLE);
    cr_assert_not(conn_accepts(conn));
    cr_assert_eq(ask_line(conn, &ask, "PING"), CONN_DOWN);
    cr_assert_str_empty(conn_error(conn));
    cr_assert_eq(conn_handshake_sent(conn), 0);
    conn_fail(conn, "ignored");
    cr_assert_eq(conn_state(conn), CONN_IDLE);
    close_all();
}

Test(conn, destroy_accepts_null)
{
    conn_destroy(NULL);
}

Test(conn, comes_up_when_all_replies_of_the_handshake_are_good)
{
    open_fake();
    cr_assert_eq(conn_state(conn), CONN_CONNECTING);
    fake_accept(&fake);
    fake_expect(&fake, "*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n*1\r\n$4\r\nPING\r\n");
    cr_assert_eq(conn_state(conn), CONN_HANDSHAKE);
    fake_say_info(&fake, "1111");
    live_run_for(20);
    cr_assert_eq(conn_state(conn), CONN_HANDSHAKE);
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(is_up());
    cr_assert_eq(ups, 1);
    close_fake();
}

Test(conn, handshake_replies_may_come_byte_by_byte)
{
    open_fake();
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    for (const char *p = "$17\r\n# \r\nrun_id:1234\r\n\r\n+PONG\r\n"; *p != '\0'; p++) {
        cr_assert_not(is_up());
        fake_say(&fake, (char[]){*p, '\0'});
        live_spin();
    }
    WAIT_FOR(is_up());
    close_fake();
}

Test(conn, tracked_handshake_has_all_steps_in_order)
{
    fake_open(&fake);
    open_with(fake.port, (struct node_options){.user = "me", .password = "pw"},
              (struct conn_options){.tracking = true, .db = 5});
    fake_accept(&fake);
    fake_expect(&fake, "*5\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$2\r\npw\r\n"
                       "*2\r\n$6\r\nSELECT\r\n$1\r\n5\r\n"
                       "*3\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n"
                       "*3\r\n$6\r\nCLIENT\r\n$8\r\nNO-EVICT\r\n$2\r\nON\r\n"
                       "*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n"
                       "*1\r\n$4\r\nPING\r\n");
    fake_say(&fake, FAKE_HELLO "+OK\r\n+OK\r\n-NOPERM no\r\n-NOPERM no\r\n");
    live_run_for(20);
    cr_assert_not(is_up());
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(is_up());
    cr_assert_eq(refusals, 0);
    close_fake();
}

Test(conn, redirected_tracking_needs_no_resp3)
{
    fake_open(&fake);
    open_with(fake.port, (struct node_options){0},
              (struct conn_options){.tracking = true, .redirect = 1234567890123, .asks_id = true});
    fake_accept(&fake);
    fake_expect(&fake, "*5\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n"
                       "$8\r\nREDIRECT\r\n$13\r\n1234567890123\r\n"
                       "*3\r\n$6\r\nCLIENT\r\n$8\r\nNO-EVICT\r\n$2\r\nON\r\n"
                       "*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n"
                       "*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n"
                       "*1\r\n$4\r\nPING\r\n");
    cr_assert_eq(conn_peer_id(conn), 0);
    fake_say(&fake, "+OK\r\n+OK\r\n:77\r\n-NOPERM no\r\n+PONG\r\n");
    WAIT_FOR(is_up());
    cr_assert_eq(conn_peer_id(conn), 77);
    fake_hang_up(&fake);
    WAIT_FOR(!is_up());
    cr_assert_eq(conn_peer_id(conn), 0);
    close_fake();
}

Test(conn, password_without_user_is_that_of_the_default_user)
{
    fake_open(&fake);
    open_with(fake.port, (struct node_options){.password = "pw"}, (struct conn_options){0});
    fake_accept(&fake);
    fake_expect(&fake, "*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*2\r\n$4\r\nINFO");
    close_all();
    open_with(fake.port, (struct node_options){.password = "pw"},
              (struct conn_options){.resp3 = true});
    fake_accept(&fake);
    fake_expect(&fake, "$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$2\r\npw\r\n");
    close_fake();
}

Test(conn, handshake_sent_is_a_moment_before_the_server_had_it)
{
    int64_t before = live_now();
    open_fake();
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    int64_t after = live_now();
    live_run_for(30);
    fake_say_info(&fake, "1111");
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(is_up());
    cr_assert_geq(conn_handshake_sent(conn), before);
    cr_assert_leq(conn_handshake_sent(conn), after);
    close_fake();
}

Test(conn, silence_in_the_handshake_ends_the_attempt)
{
    fake_open(&fake);
    open_with(fake.port, (struct node_options){.connect_timeout_ms = 100},
              (struct conn_options){0});
    fake_accept(&fake);
    WAIT_FOR(conn_state(conn) == CONN_BACKOFF);
    cr_assert_not_null(strstr(conn_error(conn), "in time"), "%s", conn_error(conn));
    close_fake();
}

Test(conn, a_server_that_answered_lately_may_take_longer_in_the_handshake)
{
    fake_open(&fake);
    open_with(fake.port, (struct node_options){.connect_timeout_ms = 50, .dead_after_ms = 400},
              (struct conn_options){0});
    int64_t began = live_now();
    node_heard(node, began);
    fake_accept(&fake);
    WAIT_FOR(conn_state(conn) == CONN_BACKOFF);
    cr_assert_geq(live_now() - began, 400);
    cr_assert_not_null(strstr(conn_error(conn), "in time"), "%s", conn_error(conn));
    close_fake();
}

Test(conn, connecting_has_a_deadline)
{
    int port = 0;
    int listener = live_listen(0, &port);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fillers[4]; /* a full queue: further connects get no answer */
    for (size_t i = 0; i < ARRAY_LEN(fillers); i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&addr, sizeof(addr));
    }
    open_with(port, (struct node_options){.connect_timeout_ms = 100}, (struct conn_options){0});
    WAIT_FOR(conn_state(conn) == CONN_BACKOFF);
    cr_assert_not_null(strstr(conn_error(conn), "too long"), "%s", conn_error(conn));
    close_all();
    for (size_t i = 0; i < ARRAY_LEN(fillers); i++) {
        close(fillers[i]);
    }
    close(listener);
}

/* ---- Refusals ------------------------------------------------------------------------------ */

struct refusal {
    const char *said;
    const char *step;
    const char *text;
    bool then_hangs_up;
};

Test(conn, refusal_tells_the_step_and_the_servers_text)
{
    static const struct refusal cases[] = {
        {"$0\r\n\r\n-MISCONF no\r\n", "PING", "MISCONF no", false},
        {"$0\r\n\r\n+PONK\r\n", "PING", "not a PONG", false},
        {"*1\r\n:1\r\n", "INFO", "an answer of the wrong type", false},
        {"-ERR max number of clients reached\r\n", "INFO", "ERR max number of clients reached",
         true},
    };
    open_fake();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fake_accept(&fake);
        fake_expect(&fake, "PING\r\n");
        fake_say(&fake, cases[i].said);
        if (cases[i].then_hangs_up) {
            fake_hang_up(&fake);
        }
        WAIT_FOR(refusals == (int)i + 1);
        cr_assert_str_eq(refused_step, cases[i].step);
        cr_assert_str_eq(refused_text, cases[i].text);
        cr_assert_str_eq(conn_error(conn), cases[i].text);
    }
    /* And it is tried again. */
    fake_greet(&fake);
    WAIT_FOR(is_up());
    cr_assert_eq(losses, 0);
    close_fake();
}

/* A server that is occupied says so to each command in its own words. */
Test(conn, an_occupied_server_is_talked_to_unless_the_link_vouches_for_l1)
{
    static const char *const said[] = {"-BUSY x\r\n", "-LOADING x\r\n", "-MASTERDOWN x\r\n",
                                       "-NOPERM x\r\n", "-NOAUTH x\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(said); i++) {
        open_fake();
        fake_accept(&fake);
        fake_expect(&fake, "PING\r\n");
        fake_say(&fake, "$0\r\n\r\n");
        fake_say(&fake, said[i]);
        WAIT_FOR(is_up());
        close_fake();
    }
    for (size_t i = 0; i < ARRAY_LEN(said); i++) {
        fake_open(&fake);
        open_with(fake.port, (struct node_options){0}, (struct conn_options){.tracking = true});
        fake_accept(&fake);
        fake_expect(&fake, "PING\r\n");
        fake_say(&fake, FAKE_HELLO "+OK\r\n+OK\r\n$0\r\n\r\n");
        fake_say(&fake, said[i]);
        WAIT_FOR(refusals == 1);
        cr_assert_str_eq(refused_step, "PING");
        refusals = 0;
        close_fake();
    }
}

/* `head`, so much that it comes in pieces, "\r\n" and `behind`. */
static void say_long(const char *head, const char *behind)
{
    static char text[FRAME_TEXT_MAX + 512];
    size_t n = strlen(head);
    memset(text, 'x', sizeof(text));
    memcpy(text, head, n);
    (void)snprintf(text + FRAME_TEXT_MAX + 100, 400, "\r\n%s", behind);
    fake_say(&fake, text);
}

Test(conn, long_errors_in_the_handshake_are_one_reply_each)
{
    static const struct {
        const char *info, *ping;
    } said[] = {{"-NOPERM no ", "+PONG\r\n"}, {"-ERR ", "-NOPERM x\r\n"}};
    for (size_t i = 0; i < ARRAY_LEN(said); i++) { /* of INFO, which is tolerated */
        open_fake();
        fake_accept(&fake);
        fake_expect(&fake, "PING\r\n");
        say_long(said[i].info, said[i].ping);
        WAIT_FOR(is_up());
        close_fake();
    }
    /* of PING, by a server that is occupied; the first call gets its own reply */
    open_fake();
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "$0\r\n\r\n");
    say_long("-BUSY ", "");
    WAIT_FOR(is_up());
    struct ask ask = {0};
    cr_assert_eq(ask_line(conn, &ask, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    fake_say(&fake, "$1\r\nv\r\n");
    WAIT_FOR(ask.done || ask.lost);
    cr_assert_str_eq(ask.got, "$1\r\nv\r\n");
    cr_assert_eq(losses, 0);
    close_fake();
}

Test(conn, a_long_refusal_is_told_by_its_beginning)
{
    open_fake();
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "$0\r\n\r\n");
    say_long("-ERR something else ", "");
    WAIT_FOR(refusals == 1);
    cr_assert_str_eq(refused_step, "PING");
    cr_assert_eq(strncmp(refused_text, "ERR something else xxx", 22), 0, "%s", refused_text);
    close_fake();
}

Test(conn, refusal_is_heard_when_the_server_resets_before_our_handshake)
{
    open_fake();
    fake_accept(&fake);
    fake_say(&fake, "-ERR max number of clients reached\r\n");
    fake_hang_up(&fake); /* with our bytes unread: a reset */
    WAIT_FOR(conn_state(conn) == CONN_BACKOFF);
    cr_assert_str_eq(conn_error(conn), "ERR max number of clients reached");
    close_fake();
}

Test(conn, earlier_refusal_does_not_colour_a_later_failure)
{
    open_fake();
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "$0\r\n\r\n-MISCONF\r\n");
    WAIT_FOR(refusals == 1);
    fake_hang_up(&fake);
    close(fake.listener);
    WAIT_FOR(strstr(conn_error(conn), "refused") != NULL);
    cr_assert_eq(refusals, 1);
    fake.listener = -1;
    close_fake();
}

Test(conn, wrong_password_is_refused_and_the_right_one_is_not)
{
    redis_start(&redis, "right");
    open_with(redis.port, (struct node_options){.password = "wrong"}, (struct conn_options){0});
    WAIT_FOR(refusals > 0);
    cr_assert_str_eq(refused_step, "AUTH");
    cr_assert_eq(strncmp(refused_text, "WRONGPASS", 9), 0, "%s", refused_text);
    close_all();
    open_with(redis.port, (struct node_options){.password = "wrong"},
              (struct conn_options){.resp3 = true});
    WAIT_FOR(refusals > 0 && strcmp(refused_step, "HELLO") == 0);
    close_all();
    open_with(redis.port, (struct node_options){.password = "right"}, (struct conn_options){0});
    WAIT_FOR(is_up());
    close_all();
    open_with(redis.port, (struct node_options){.password = "right"},
              (struct conn_options){.tracking = true});
    WAIT_FOR(is_up());
    close_all();
    cr_assert_neq(redis_do(&redis, "ACL SETUSER me on >it +@all ~*"), -1);
    open_with(redis.port, (struct node_options){.user = "me", .password = "it"},
              (struct conn_options){0});
    WAIT_FOR(is_up());
    close_redis();
}

Test(conn, password_file_is_read_at_every_bring_up)
{
    char path[] = "/tmp/nearside-test-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, "wrong\n", 6), 6);
    redis_start(&redis, "right");
    open_with(redis.port, (struct node_options){.password_file = path}, (struct conn_options){0});
    WAIT_FOR(refusals > 0);
    cr_assert_eq(pwrite(fd, "right\n", 6, 0), 6);
    WAIT_FOR(is_up());
    unlink(path);
    redis_do(&redis, "CLIENT KILL TYPE normal SKIPME yes");
    WAIT_FOR(losses == 1 && strstr(conn_error(conn), path) != NULL);
    close(fd);
    close_redis();
}

struct echo {
    const char *said;
    const char *text;
};

Test(conn, password_is_never_repeated)
{
    static const struct echo cases[] = {
        {"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `me`, `hunt\r\n",
         "ERR unknown command"},
        {"-ERR unknown command 'HELLO'\r\n", "ERR unknown command"},
        {"-ERR what is hunter2 for?\r\n", "(withheld: the text repeats the password)"},
        {"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
         "WRONGPASS invalid username-password pair or user is disabled."},
    };
    fake_open(&fake);
    open_with(fake.port, (struct node_options){.user = "me", .password = "hunter2"},
              (struct conn_options){.resp3 = true});
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fake_accept(&fake);
        fake_expect(&fake, "PING\r\n");
        fake_say(&fake, cases[i].said);
        WAIT_FOR(refusals == (int)i + 1);
        cr_assert_str_eq(refused_text, cases[i].text);
    }
    close_fake();
}

Test(conn, db_is_selected_or_refused_with_redis_own_text)
{
    struct ask ask = {0};
    redis_start(&redis, "");
    redis_do(&redis, "SELECT 3");
    redis_do(&redis, "SET where three");
    open_with(redis.port, (struct node_options){0}, (struct conn_options){.db = 3});
    WAIT_FOR(is_up());
    cr_assert_eq(ask_line(conn, &ask, "GET where"), CONN_OK);
    WAIT_FOR(ask.done);
    cr_assert_str_eq(ask.got, "$5\r\nthree\r\n");
    close_all();
    open_with(redis.port, (struct node_options){0}, (struct conn_options){.db = 4000000000u});
    WAIT_FOR(refusals > 0);
    cr_assert_str_eq(refused_step, "SELECT");
    cr_assert_eq(strncmp(conn_error(conn), "ERR ", 4), 0, "%s", conn_error(conn));
    close_redis();
}

/* ---- Calls --------------------------------------------------------------------------------- */

Test(conn, replies_come_back_in_the_order_of_submission)
{
    static struct ask asks[1000];
    up_with_redis();
    for (int i = 0; i < (int)ARRAY_LEN(asks); i++) {
        char line[64];
        (void)snprintf(line, sizeof(line), i % 2 == 0 ? "SET k %d" : "GET k", i);
        cr_assert_eq(ask_line(conn, &asks[i], line), CONN_OK);
        cr_assert_not(asks[i].done);
    }
    cr_assert_eq(conn_pending(conn), ARRAY_LEN(asks));
    WAIT_FOR(conn_pending(conn) == 0);
    for (int i = 0; i < (int)ARRAY_LEN(asks); i++) {
        char value[32];
        char reply[64];
        int n = snprintf(value, sizeof(value), "%d", i - 1);
        (void)snprintf(reply, sizeof(reply), "$%d\r\n%s\r\n", n, value);
        cr_assert_eq(asks[i].order, i + 1);
        cr_assert_str_eq(asks[i].got, i % 2 == 0 ? "+OK\r\n" : reply);
    }
    close_redis();
}

static bool fake_had_calls_at_up;

static void look_for_early_calls(void)
{
    fake_had_calls_at_up = fake_has(&fake, "SET");
}

Test(conn, calls_wait_for_the_first_attempt_and_leave_behind_the_handshake)
{
    struct ask ask = {0};
    struct ask late = {0};
    when_up = look_for_early_calls;
    open_fake();
    cr_assert(conn_accepts(conn));
    cr_assert_eq(ask_line(conn, &ask, "SET a 1"), CONN_OK);
    cr_assert_eq(conn_pending(conn), 1);
    cr_assert_eq(conn_queued_bytes(conn), 9);
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    cr_assert_eq(ask_line(conn, &late, "SET b 1"), CONN_OK);
    live_run_for(20);
    cr_assert_not(fake_has(&fake, "SET"));
    fake_say_info(&fake, "1111");
    fake_say(&fake, "+PONG\r\n");
    fake_expect(&fake, "SET a 1\r\nSET b 1\r\n");
    cr_assert_not(fake_had_calls_at_up);
    close_fake();
}

Test(conn, failed_first_attempt_loses_its_calls_unsent_and_accepts_no_more)
{
    struct ask ask = {0};
    struct ask late = {0};
    open_to(live_free_port());
    cr_assert_eq(ask_line(conn, &ask, "PING"), CONN_OK);
    WAIT_FOR(ask.lost);
    cr_assert_eq(ask.loss, LOSS_UNSENT);
    cr_assert_eq(conn_pending(conn), 0);
    cr_assert_eq(conn_queued_bytes(conn), 0);
    cr_assert_not(conn_accepts(conn));
    cr_assert_eq(ask_line(conn, &late, "PING"), CONN_DOWN);
    cr_assert_not_null(strstr(conn_error(conn), "refused"), "%s", conn_error(conn));
    live_run_for(100); /* through further attempts */
    cr_assert_eq(ask_line(conn, &late, "PING"), CONN_DOWN);
    cr_assert_eq(losses, 0);
    close_all();
}

Test(conn, goes_on_trying_until_somebody_listens)
{
    struct ask ask = {0};
    int port = live_free_port();
    open_to(port);
    WAIT_FOR(conn_state(conn) == CONN_BACKOFF);
    live_run_for(60);
    fake.port = port;
    fake.fd = -1;
    fake.listener = live_listen(4, &fake.port);
    fake_greet(&fake);
    WAIT_FOR(is_up());
    cr_assert_eq(ask_line(conn, &ask, "PING"), CONN_OK);
    close_fake();
}

Test(conn, backs_off_between_failed_attempts)
{
    int attempts = 0;
    open_fake();
    for (int64_t until = live_now() + 500; live_now() < until; live_spin()) {
        if (fake_try_accept(&fake)) {
            attempts++;
            fake_hang_up(&fake);
        }
    }
    /* 10, 20, 40, 80, 160, 320 ms, each -50 % at the least: 315 ms for seven. */
    cr_assert_geq(attempts, 3);
    cr_assert_leq(attempts, 8);
    close_fake();
}

Test(conn, owner_may_change_the_bound_of_the_back_off_after_a_refusal)
{
    retry_bound = 20;
    open_fake();
    int64_t start = live_now();
    /* With the usual doubling up to 1 s these take at least 10 * (2^6 - 1) * 50 % + 7 * 500 ms. */
    for (int i = 0; i < 14; i++) {
        fake_accept(&fake);
        fake_expect(&fake, "PING\r\n");
        fake_say(&fake, "$0\r\n\r\n-MISCONF\r\n");
        WAIT_FOR(refusals == i + 1);
        fake_hang_up(&fake);
    }
    cr_assert_lt(live_now() - start, 3000);
    close_fake();
}

Test(conn, hanging_up_is_not_blamed_on_a_tolerated_error_before)
{
    fake_open(&fake);
    open_with(fake.port, (struct node_options){0}, (struct conn_options){.tracking = true});
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, FAKE_HELLO "+OK\r\n-ERR unknown subcommand\r\n$0\r\n\r\n");
    fake_hang_up(&fake);
    WAIT_FOR(conn_state(conn) == CONN_BACKOFF);
    cr_assert_eq(refusals, 0);
    cr_assert_eq(strncmp(conn_error(conn), "ERR", 3) == 0, false, "%s", conn_error(conn));
    close_fake();
}

Test(conn, loss_tells_the_owner_first_and_then_each_call_whether_it_was_sent)
{
    struct ask sent = {0};
    struct ask unsent = {0};
    up_with_fake();
    cr_assert_eq(ask_line(conn, &sent, "SET a 1"), CONN_OK);
    fake_expect(&fake, "SET a 1\r\n");
    live_turn = NULL; /* no flush any more */
    cr_assert_eq(ask_line(conn, &unsent, "SET b 1"), CONN_OK);
    fake_hang_up(&fake);
    WAIT_FOR(unsent.lost);
    cr_assert_eq(losses, 1);
    cr_assert_eq(ends_at_loss, 0);
    cr_assert_eq(sent.order, 1);
    cr_assert_eq(sent.loss, LOSS_SENT);
    cr_assert_eq(unsent.order, 2);
    cr_assert_eq(unsent.loss, LOSS_UNSENT);
    cr_assert_str_eq(conn_error(conn), "closed by the server");
    close_fake();
}

Test(conn, partly_sent_call_is_sent_and_those_behind_it_are_not)
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
    live_run_for(50);
    cr_assert_gt(conn_queued_bytes(conn), 0);
    fake_reset(&fake);
    WAIT_FOR(behind.lost);
    cr_assert_eq(big.loss, LOSS_SENT);
    cr_assert_eq(behind.loss, LOSS_UNSENT);
    close_fake();
}

static struct ask second_try;

static void submit_again(struct ask *ask)
{
    (void)ask;
    cr_assert(conn_accepts(conn));
    cr_assert_eq(ask_line(conn, &second_try, "GET again"), CONN_OK);
}

Test(conn, who_lost_a_call_may_submit_again_at_once)
{
    struct ask ask = {.then = submit_again};
    up_with_fake();
    cr_assert_eq(ask_line(conn, &ask, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    fake_hang_up(&fake);
    fake_greet(&fake);
    fake_expect(&fake, "GET again\r\n");
    fake_say(&fake, "$-1\r\n");
    WAIT_FOR(second_try.done);
    cr_assert_str_eq(second_try.got, "$-1\r\n");
    cr_assert_eq(ups, 2);
    close_fake();
}

Test(conn, short_lived_link_waits_out_the_back_off_with_its_calls)
{
    struct ask ask = {0};
    up_with_fake();
    fake_hang_up(&fake);
    WAIT_FOR(losses == 1);
    cr_assert_eq(conn_state(conn), CONN_BACKOFF);
    cr_assert_eq(ask_line(conn, &ask, "PING"), CONN_OK);
    fake_greet(&fake);
    fake_expect(&fake, "PING\r\n");
    close_fake();
}

Test(conn, link_that_was_up_for_long_reconnects_at_once)
{
    up_with_fake();
    live_run_for(1050);
    fake_hang_up(&fake);
    WAIT_FOR(losses == 1);
    cr_assert_eq(conn_state(conn), CONN_CONNECTING);
    close_fake();
}

static void free_ask(struct ask *ask)
{
    free(ask);
}

Test(conn, answered_and_lost_calls_may_be_freed_by_their_callback)
{
    struct ask *first = calloc(1, sizeof(*first));
    struct ask *second = calloc(1, sizeof(*second));
    first->then = free_ask;
    second->then = free_ask;
    up_with_fake();
    cr_assert_eq(ask_line(conn, first, "GET a"), CONN_OK);
    cr_assert_eq(ask_line(conn, second, "GET b"), CONN_OK);
    fake_expect(&fake, "GET b\r\n");
    fake_say(&fake, "$1\r\na\r\n");
    WAIT_FOR(conn_pending(conn) == 1);
    fake_hang_up(&fake);
    WAIT_FOR(conn_pending(conn) == 0);
    close_fake();
}

Test(conn, call_may_await_several_replies)
{
    struct ask ask = {.call = {.ops = &ASK_OPS, .replies = 2}};
    struct ask next = {0};
    up_with_fake();
    cr_assert_eq(conn_submit(conn, &ask.call, SLICE("GET a\r\nPTTL a\r\n"), NULL), CONN_OK);
    cr_assert_eq(ask_line(conn, &next, "GET b"), CONN_OK);
    fake_expect(&fake, "GET b\r\n");
    fake_say(&fake, "$1\r\na\r\n");
    WAIT_FOR(ask.pieces == 1);
    cr_assert_not(ask.done);
    fake_say(&fake, ":-1\r\n$1\r\nb\r\n");
    WAIT_FOR(next.done);
    cr_assert(ask.done);
    cr_assert_str_eq(ask.got, "$1\r\na\r\n:-1\r\n");
    cr_assert_str_eq(next.got, "$1\r\nb\r\n");
    close_fake();
}

static void submit_in_reply(struct ask *ask)
{
    (void)ask;
    cr_assert_eq(ask_line(conn, &second_try, "GET again"), CONN_OK);
}

Test(conn, callbacks_may_submit)
{
    struct ask ask = {.then = submit_in_reply};
    up_with_fake();
    cr_assert_eq(ask_line(conn, &ask, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    fake_say(&fake, "$-1\r\n");
    fake_expect(&fake, "GET again\r\n");
    close_fake();
}

static void fail_in_reply(struct ask *ask)
{
    (void)ask;
    conn_fail(conn, "the owner had enough");
    cr_assert_not(conn_accepts(conn));
}

Test(conn, owner_may_give_it_up_from_a_callback)
{
    struct ask first = {.then = fail_in_reply};
    struct ask second = {0};
    up_with_fake();
    cr_assert_eq(ask_line(conn, &first, "GET a"), CONN_OK);
    cr_assert_eq(ask_line(conn, &second, "GET b"), CONN_OK);
    fake_expect(&fake, "GET b\r\n");
    fake_say(&fake, "$-1\r\n$-1\r\n");
    WAIT_FOR(second.lost);
    cr_assert(first.done);
    cr_assert_eq(second.pieces, 0);
    cr_assert_eq(losses, 1);
    cr_assert_str_eq(conn_error(conn), "the owner had enough");
    close_fake();
}

Test(conn, given_up_link_reconnects)
{
    up_with_fake();
    conn_fail(conn, "why");
    cr_assert_eq(losses, 1);
    cr_assert_neq(conn_state(conn), CONN_UP);
    fake_greet(&fake);
    WAIT_FOR(is_up());
    close_fake();
}

static void submit_in_vain(struct ask *ask)
{
    (void)ask;
    cr_assert_not(conn_accepts(conn));
    cr_assert_eq(ask_line(conn, &second_try, "GET again"), CONN_DOWN);
}

Test(conn, destroy_ends_calls_without_an_event)
{
    struct ask sent = {.then = submit_in_vain};
    struct ask unsent = {0};
    up_with_fake();
    cr_assert_eq(ask_line(conn, &sent, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    cr_assert_eq(ask_line(conn, &unsent, "GET b"), CONN_OK);
    close_fake();
    cr_assert(sent.lost && unsent.lost);
    cr_assert_eq(sent.loss, LOSS_SENT);
    cr_assert_eq(unsent.loss, LOSS_UNSENT);
    cr_assert_eq(losses, 0);
}

Test(conn, nothing_is_queued_when_memory_is_out)
{
    struct ask ask = {0};
    char *line = calloc(1, 100001);
    memset(line, 'x', 100000);
    up_with_fake();
    mem_fail_after(0);
    enum conn_status status = ask_blob(conn, &ask, slice_of(line, 100000), NULL);
    mem_fail_after(-1);
    cr_assert_eq(status, CONN_NO_MEMORY);
    cr_assert_eq(conn_pending(conn), 0);
    cr_assert_eq(conn_queued_bytes(conn), 0);
    cr_assert_eq(ask_line(conn, &ask, "GET a"), CONN_OK);
    fake_expect(&fake, "GET a\r\n");
    fake_say(&fake, "$-1\r\n");
    WAIT_FOR(ask.done);
    free(line);
    close_fake();
}
