/* SPDX-License-Identifier: Apache-2.0
 *
 * test_stream.c: what a subscriber's connection says, told apart and counted, however it is cut. The
 * pieces come from a framer of the test's; replies go to a call on a connection to a server played by
 * the test, messages into the output of a client that has no socket.
 */
#include "../../../proxy/stream.h"
#include "../live.h"

#define SHOWN_MAX 4096

static struct conf conf = {.proxy_max_output = SHOWN_MAX};
static struct server server = {.conf = &conf};
static struct worker worker = {.server = &server};
static struct client client = {.worker = &worker, .io.fd = -1};
static struct stream stream;
static struct request request;
static struct cmd command;
static struct node *node;
static struct conn *conn;
static struct fake fake;
static struct call call; /* at the head of the connection's queue, for as long as a test runs */
static char answered[SHOWN_MAX]; /* what it got: "^" before a first piece, "$" behind a last */
static char pushed[SHOWN_MAX];
static bool client_left;

static void add(char *to, struct slice bytes)
{
    size_t n = strlen(to);
    cr_assert(n + bytes.n < SHOWN_MAX);
    memcpy(to + n, bytes.p, bytes.n);
    to[n + bytes.n] = '\0';
}

static void on_reply(struct call *c, const struct reply_piece *piece)
{
    (void)c;
    add(answered, piece->first ? SLICE("^") : SLICE(""));
    add(answered, piece->bytes);
    add(answered, piece->last ? SLICE("$") : SLICE(""));
}

static void on_lost(struct call *c, enum call_loss loss)
{
    (void)c;
    (void)loss;
}

static const struct call_ops CALL_OPS = {.reply = on_reply, .lost = on_lost};

static void flush_and_tick(void)
{
    conn_flush(conn);
    conn_tick(conn, live_now());
}

static void setup(void)
{
    live_start();
    fake_open(&fake);
    node = live_node(fake.port);
    conn = conn_create(&(struct conn_options){
        .loop = live_loop,
        .node = node,
        .role = "pinned",
        .now = live_now,
        .read_buffer = live_buffer,
        .read_size = sizeof(live_buffer),
    });
    live_turn = flush_and_tick;
    conn_open(conn);
    fake_greet(&fake);
    WAIT_FOR(conn_state(conn) == CONN_UP);
    call.ops = &CALL_OPS;
    call.replies = UINT32_MAX;
    cr_assert_eq(conn_submit(conn, &call, SLICE("ASK\r\n"), NULL), CONN_OK);
    fake_expect(&fake, "ASK\r\n");
}

static void teardown(void)
{
    conn_destroy(conn);
    node_destroy(node);
    live_stop();
    fake_close(&fake);
}

TestSuite(stream, .init = setup, .fini = teardown);

/* Moves what went to the client into `pushed`. */
static void take_pushed(void)
{
    while (client.out.bytes > 0) {
        struct iovec iov;
        chain_iov(&client.out, &iov, 1);
        add(pushed, slice_of(iov.iov_base, iov.iov_len));
        chain_consume(&client.out, iov.iov_len);
    }
}

static void on_piece(void *ctx, const struct reply_piece *piece)
{
    (void)ctx;
    if (!stream_stray(&stream, conn, client_left ? NULL : &client, piece)) {
        conn_answer(conn, piece);
    }
}

static void on_push(void *ctx, const struct push *push)
{
    (void)ctx;
    stream_push(&stream, conn, client_left ? NULL : &client, push);
}

static const struct framer_ops OPS = {.piece = on_piece, .push = on_push};

static void asks(const char *name, int64_t argc)
{
    command.name = name;
    request.cmd = &command;
    stream_ask(&stream, &request, argc);
}

static void feed(struct framer *f, const char *p, size_t n)
{
    if (n > 0) {
        cr_assert(framer_feed(f, slice_of(p, n), NULL), "%s", framer_error(f));
    }
    take_pushed();
}

static void begin(void)
{
    memset(&stream, 0, sizeof(stream));
    pushed[0] = answered[0] = '\0';
    client_left = false;
}

/* `before` leaves the stream as it is when `bytes` come. They are fed whole, in two parts cut at every
 * place, and byte by byte. */
static void each_cut(void (*before)(struct framer *f), const char *bytes, void (*check)(void))
{
    size_t n = strlen(bytes);
    for (size_t cut = 0; cut <= n + 1; cut++) {
        struct framer *f = framer_create(&OPS, NULL);
        begin();
        before(f);
        pushed[0] = answered[0] = '\0';
        if (cut <= n) {
            feed(f, bytes, cut);
            feed(f, bytes + cut, n - cut);
        }
        for (size_t i = 0; cut > n && i < n; i++) {
            feed(f, bytes + i, 1);
        }
        cr_assert_not(framer_is_inside(f));
        cr_assert_not(stream_is_inside(&stream));
        check();
        framer_destroy(f);
    }
}

#define CONFIRM2(kind, n, channel, count)                                                          \
    "*3\r\n$" #n "\r\n" kind "\r\n$1\r\n" channel "\r\n:" #count "\r\n"
#define MESSAGE2(text) "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\n" text "\r\n"
#define MESSAGE3(text) ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\n" text "\r\n"

/* ---- RESP2 ---------------------------------------------------------------------------------- */

static void two_channels_asked(struct framer *f)
{
    (void)f;
    asks("subscribe", 3);
}

static void check_two_confirmed(void)
{
    cr_assert_str_eq(pushed, MESSAGE2("hello") MESSAGE2("again"));
    cr_assert_str_eq(answered,
                     "^" CONFIRM2("subscribe", 9, "a", 1) CONFIRM2("subscribe", 9, "b", 2) "$");
    cr_assert_eq(stream.channels, 2);
    cr_assert_null(stream.asking);
}

Test(stream, confirmations_are_one_reply_and_messages_none)
{
    each_cut(two_channels_asked,
             CONFIRM2("subscribe", 9, "a", 1) MESSAGE2("hello") CONFIRM2("subscribe", 9, "b", 2)
                 MESSAGE2("again"),
             check_two_confirmed);
}

static void subscribed(struct framer *f)
{
    static const char bytes[] = CONFIRM2("subscribe", 9, "a", 1);
    asks("subscribe", 2);
    feed(f, bytes, sizeof(bytes) - 1);
}

#define REPLIES                                                                                    \
    "*2\r\n$4\r\npong\r\n$0\r\n\r\n-ERR no\r\n*3\r\n$7\r\nmessag2\r\n:1\r\n:2\r\n*0\r\n*-1\r\n"    \
    "*2\r\n*1\r\n$7\r\nmessage\r\n$1\r\nx\r\n*1\r\n:7\r\n$3\r\nabc\r\n+OK\r\n:5\r\n"

static void check_replies(void)
{
    char plain[SHOWN_MAX] = "";
    size_t n = 0;
    for (const char *p = answered; *p != '\0'; p++) {
        if (*p != '^' && *p != '$') {
            plain[n++] = *p;
        }
    }
    char want[SHOWN_MAX] = "";
    n = 0;
    for (const char *p = REPLIES; *p != '\0'; p++) {
        if (*p != '$') {
            want[n++] = *p;
        }
    }
    cr_assert_str_eq(plain, want);
    cr_assert_str_empty(pushed);
}

Test(stream, what_is_not_a_message_is_a_reply)
{
    each_cut(subscribed, REPLIES, check_replies);
}

#define KINDS                                                                                      \
    "*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$0\r\n\r\n"                                    \
    "*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$2\r\n\r\n\r\n"

static void check_kinds(void)
{
    cr_assert_str_eq(pushed, KINDS);
    cr_assert_str_empty(answered);
}

Test(stream, all_three_kinds_of_message_go_to_the_client)
{
    each_cut(subscribed, KINDS, check_kinds);
}

static void check_like_messages(void)
{
    cr_assert_str_empty(pushed);
    cr_assert_neq(strlen(answered), 0);
    cr_assert_eq(stream.channels, 0);
}

static void unsubscribed(struct framer *f)
{
    static const char bytes[] = CONFIRM2("unsubscribe", 11, "a", 0);
    subscribed(f);
    asks("unsubscribe", 2);
    feed(f, bytes, sizeof(bytes) - 1);
}

Test(stream, who_is_subscribed_to_nothing_gets_replies_only)
{
    each_cut(unsubscribed, MESSAGE2("hello") CONFIRM2("unsubscribe", 11, "a", 0),
             check_like_messages);
}

Test(stream, before_the_first_subscription_nothing_is_looked_at)
{
    struct framer *f = framer_create(&OPS, NULL);
    begin();
    feed(f, MESSAGE2("hello"), sizeof(MESSAGE2("hello")) - 1);
    cr_assert_str_eq(answered, "^" MESSAGE2("hello") "$");
    cr_assert_str_empty(pushed);
    framer_destroy(f);
}

static void check_unasked(void)
{
    cr_assert_str_eq(pushed, CONFIRM2("sunsubscribe", 12, "s", 0));
    cr_assert_str_empty(answered);
    cr_assert_eq(stream.shards, 0);
    cr_assert_eq(stream.channels, 1);
}

Test(stream, a_confirmation_nobody_asked_for_is_a_message_and_counts)
{
    each_cut(subscribed, CONFIRM2("sunsubscribe", 12, "s", 0), check_unasked);
}

static void both_and_unsubscribe(struct framer *f)
{
    static const char bytes[] = CONFIRM2("subscribe", 9, "a", 1) CONFIRM2("subscribe", 9, "b", 2);
    static const char patterns[] = CONFIRM2("psubscribe", 10, "p", 3);
    asks("subscribe", 3);
    feed(f, bytes, sizeof(bytes) - 1);
    asks("psubscribe", 2);
    feed(f, patterns, sizeof(patterns) - 1);
    cr_assert(stream.channels == 2 && stream.patterns == 1);
    asks("unsubscribe", 1);
}

static void check_unsubscribe_all(void)
{
    cr_assert_null(stream.asking);
    cr_assert(stream.channels == 0 && stream.patterns == 1);
    cr_assert(stream_is_on(&stream));
    cr_assert_str_empty(pushed);
}

Test(stream, unsubscribe_without_arguments_awaits_as_many_as_there_are)
{
    each_cut(both_and_unsubscribe,
             CONFIRM2("unsubscribe", 11, "b", 2) CONFIRM2("unsubscribe", 11, "a", 1),
             check_unsubscribe_all);
}

static void nothing_and_unsubscribe(struct framer *f)
{
    (void)f;
    asks("punsubscribe", 1);
}

static void check_unsubscribe_none(void)
{
    cr_assert_null(stream.asking);
    cr_assert_str_eq(answered, "^*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n$");
    cr_assert_not(stream_is_on(&stream));
}

Test(stream, unsubscribe_from_nothing_is_confirmed_once)
{
    each_cut(nothing_and_unsubscribe, "*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n",
             check_unsubscribe_none);
}

static void check_refused(void)
{
    cr_assert_null(stream.asking);
    cr_assert_str_eq(answered, "^-NOPERM no\r\n$");
}

Test(stream, a_refusal_ends_the_asking)
{
    each_cut(two_channels_asked, "-NOPERM no\r\n", check_refused);
}

/* ---- RESP3 ---------------------------------------------------------------------------------- */

#define CONFIRM3(kind, n, channel, count)                                                          \
    ">3\r\n$" #n "\r\n" kind "\r\n$1\r\n" channel "\r\n:" #count "\r\n"

static void check_resp3(void)
{
    cr_assert_str_eq(pushed, MESSAGE3("hello") MESSAGE3("again"));
    char want[SHOWN_MAX];
    snprintf(want, sizeof(want), "%s",
             "^" CONFIRM3("subscribe", 9, "a", 1) CONFIRM3("subscribe", 9, "b", 2) "$");
    cr_assert_eq(strncmp(answered, want, strlen(want)), 0, "%s", answered);
    cr_assert_not_null(strstr(answered + strlen(want), "message"), "an array is a reply");
    cr_assert_eq(stream.channels, 2);
}

Test(stream, pushes_are_told_from_arrays)
{
    each_cut(two_channels_asked,
             CONFIRM3("subscribe", 9, "a", 1) MESSAGE3("hello")
                 CONFIRM3("subscribe", 9, "b",
                          2) "%1\r\n+message\r\n*1\r\n$7\r\nmessage\r\n" MESSAGE3("again"),
             check_resp3);
}

/* ---- MONITOR, and clients that left ----------------------------------------------------------- */

static void monitors(struct framer *f)
{
    (void)f;
    stream.active = stream.monitoring = true;
}

#define LINE "+1700000000.123456 [0 127.0.0.1:4711] \"get\" \"k\"\r\n"

static void check_monitor(void)
{
    cr_assert_str_eq(pushed, LINE LINE);
    cr_assert_str_eq(answered, "^+OK\r\n$^+1\r\n$^+PONG\r\n$");
}

Test(stream, lines_of_monitor_are_told_from_statuses)
{
    each_cut(monitors, "+OK\r\n" LINE "+1\r\n" LINE "+PONG\r\n", check_monitor);
}

/* `+1700000000.123456 "xx...":7x"\r\n`, which comes in pieces; some of them look like a line of their
 * own. */
static struct slice long_monitor_line(void)
{
    static char bytes[2 * FRAME_TEXT_MAX];
    size_t n = sizeof(bytes) - 2;
    memset(bytes, '7', n);
    memcpy(bytes, "+17", 3);
    memcpy(bytes + n, "\r\n", 2);
    return slice_of(bytes, sizeof(bytes));
}

static size_t feed_counting(struct framer *f, struct slice bytes, size_t cut)
{
    size_t pushed_bytes = 0;
    for (size_t at = 0; at < bytes.n; at += cut) {
        size_t n = bytes.n - at < cut ? bytes.n - at : cut;
        cr_assert(framer_feed(f, slice_of(bytes.p + at, n), NULL), "%s", framer_error(f));
        pushed_bytes += client.out.bytes;
        chain_consume(&client.out, client.out.bytes);
    }
    return pushed_bytes;
}

Test(stream, a_long_line_of_monitor_goes_to_the_client_in_pieces)
{
    static const size_t cuts[] = {1, 100, 1000, 1000000};
    conf.proxy_max_output = 10 * FRAME_TEXT_MAX;
    for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
        struct framer *f = framer_create(&OPS, NULL);
        begin();
        monitors(f);
        cr_assert_eq(feed_counting(f, long_monitor_line(), cuts[i]), long_monitor_line().n);
        cr_assert_not(stream_is_inside(&stream));
        feed(f, LINE "+PONG\r\n", sizeof(LINE "+PONG\r\n") - 1);
        cr_assert_str_eq(pushed, LINE);
        cr_assert_str_eq(answered, "^+PONG\r\n$");
        framer_destroy(f);
    }
}

Test(stream, who_turns_replies_off_or_on_gets_all_of_a_line_or_nothing)
{
    struct slice line = long_monitor_line();
    size_t half = FRAME_TEXT_MAX + 100;
    conf.proxy_max_output = 10 * FRAME_TEXT_MAX;
    for (int hidden = 0; hidden < 2; hidden++) {
        struct framer *f = framer_create(&OPS, NULL);
        begin();
        monitors(f);
        client.replies_off = hidden != 0;
        size_t n = feed_counting(f, slice_of(line.p, half), half);
        cr_assert_eq(stream_is_inside(&stream), hidden == 0);
        client.replies_off = hidden == 0;
        n += feed_counting(f, slice_of(line.p + half, line.n - half), 999);
        cr_assert_eq(n, hidden != 0 ? 0 : line.n);
        cr_assert_not(stream_is_inside(&stream));
        cr_assert_str_empty(answered);
        feed(f, LINE, sizeof(LINE) - 1);
        cr_assert_str_eq(pushed, hidden != 0 ? LINE : "");
        framer_destroy(f);
    }
    client.replies_off = false;
}

Test(stream, messages_to_a_client_that_left_are_dropped)
{
    struct framer *f = framer_create(&OPS, NULL);
    begin();
    subscribed(f);
    client_left = true;
    feed(f, MESSAGE2("hello") MESSAGE3("hello"), 2 * (sizeof(MESSAGE2("hello")) - 1));
    cr_assert_str_empty(pushed);
    framer_destroy(f);
}

Test(stream, a_client_that_waits_is_woken_at_the_end_of_the_message)
{
    static const char bytes[] =
        "*4\r\n$8\r\npmessage\r\n$20\r\naaaaaaaaaaaaaaaaaaaa\r\n$1\r\na\r\n";
    struct framer *f = framer_create(&OPS, NULL);
    begin();
    subscribed(f);
    client.stalled = true;
    feed(f, bytes, sizeof(bytes) - 1);
    cr_assert(stream_is_inside(&stream));
    cr_assert_not(client.is_runnable);
    feed(f, "$0\r\n\r\n", 6);
    cr_assert_not(stream_is_inside(&stream));
    cr_assert(client.is_runnable);
    framer_destroy(f);
}
