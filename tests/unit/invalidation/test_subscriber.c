/* SPDX-License-Identifier: Apache-2.0
 *
 * test_subscriber.c: the link of the Pub/Sub modes against a server played word by word: its bring-up,
 * what a PONG proves, what each message means, and what ends it.
 */
#include "../../../invalidation/feed_priv.h"

#include "../live.h"

static struct node *node;
static struct l1 *l1;
static struct feeds *feeds;
static struct subscriber *sub;
static struct feed_counters counters;
static struct fake fake;

/* What was told. */
static struct {
    int ups, renewals, losses, refusals, flushes, keys;
    int64_t t_ok;
    bool lasting;
    char step[64], text[ERR_MAX], key[64];
} told;

static void on_up(void *ctx, int64_t t_ok)
{
    (void)ctx;
    told.ups++;
    told.t_ok = t_ok;
}

static void on_renewed(void *ctx, int64_t t_ok)
{
    (void)ctx;
    told.renewals++;
    told.t_ok = t_ok;
}

static void on_lost(void *ctx)
{
    (void)ctx;
    told.losses++;
}

static void on_refused(void *ctx, const char *step, const char *text, bool lasting)
{
    (void)ctx;
    told.refusals++;
    told.lasting = lasting;
    (void)snprintf(told.step, sizeof(told.step), "%s", step);
    (void)snprintf(told.text, sizeof(told.text), "%s", text);
}

static void on_changed(void *ctx, struct slice key)
{
    (void)ctx;
    told.keys++;
    (void)snprintf(told.key, sizeof(told.key), "%.*s", (int)key.n, key.p);
}

static void on_flushed(void *ctx)
{
    (void)ctx;
    told.flushes++;
}

static const struct subscriber_events EVENTS = {
    .up = on_up,
    .renewed = on_renewed,
    .lost = on_lost,
    .refused = on_refused,
    .changed = on_changed,
    .flushed = on_flushed,
};

static void flush_and_tick(void)
{
    subscriber_flush(sub);
    subscriber_tick(sub, live_now());
}

static void open_with(enum feed_mode mode, struct feeds_options options)
{
    char err[ERR_MAX] = "";
    memset(&told, 0, sizeof(told));
    fake_open(&fake);
    live_start();
    node = live_node_with(fake.port, (struct node_options){.dead_after_ms = 600});
    l1 = l1_create(&(struct l1_options){.max_memory = 16 << 20,
                                        .max_item_size = 1 << 20,
                                        .covers = feeds_covers(1)},
                   err);
    cr_assert_not_null(l1, "%s", err);
    options.node = node;
    options.l1 = l1;
    options.workers = 1;
    options.mode = mode;
    options.link_lease_ms = options.link_lease_ms > 0 ? options.link_lease_ms : 400;
    options.now = live_now;
    feeds = feeds_create(&options);
    sub = subscriber_create(&(struct subscriber_options){
        .feeds = feeds,
        .mode = mode,
        .loop = live_loop,
        .read_buffer = live_buffer,
        .read_size = sizeof(live_buffer),
        .counters = &counters,
        .events = &EVENTS,
    });
    live_turn = flush_and_tick;
}

static void close_all(void)
{
    live_turn = NULL;
    subscriber_destroy(sub);
    feeds_destroy(feeds);
    l1_destroy(l1);
    node_destroy(node);
    live_stop();
    fake_close(&fake);
}

/* ---- The server's part ---------------------------------------------------------------------- */

#define PONG       "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
#define CHANNEL    "$20\r\n__redis__:invalidate\r\n"
#define SUBSCRIBED "*3\r\n$9\r\nsubscribe\r\n" CHANNEL ":1\r\n"
#define MESSAGE    "*3\r\n$7\r\nmessage\r\n" CHANNEL
#define PING       "*1\r\n$4\r\nPING\r\n"

static void greet(const char *id)
{
    fake_accept(&fake);
    fake_expect(&fake, PING);
    fake_say(&fake, "+OK\r\n"); /* NO-EVICT */
    fake_say(&fake, id);
    fake_say_info(&fake, "1111");
    fake_say(&fake, "+PONG\r\n");
}

static void subscribe(void)
{
    greet(":7\r\n");
    fake_expect(&fake, "$8\r\nTRACKING\r\n$2\r\nON\r\n$8\r\nREDIRECT\r\n$1\r\n7\r\n");
    fake_say(&fake, "+OK\r\n");
    fake_expect(&fake, "*2\r\n$9\r\nSUBSCRIBE\r\n" CHANNEL);
    fake_say(&fake, SUBSCRIBED);
}

static void come_up(enum feed_mode mode)
{
    subscribe();
    for (int i = 0; i < (mode == FEED_BROADCAST ? 2 : 1); i++) {
        fake_expect(&fake, PING);
        fake_say(&fake, PONG);
    }
    WAIT_FOR(told.ups == 1);
}

/* ---- Coming up ------------------------------------------------------------------------------ */

Test(subscriber, redirect_is_up_after_the_pong_behind_its_subscription)
{
    open_with(FEED_REDIRECT, (struct feeds_options){0});
    greet(":7\r\n");
    fake_expect(&fake, "$8\r\nREDIRECT\r\n$1\r\n7\r\n");
    live_run_for(20);
    cr_assert_not(fake_has(&fake, "SUBSCRIBE"), "registered first");
    fake_say(&fake, "+OK\r\n");
    fake_expect(&fake, "SUBSCRIBE\r\n");
    live_run_for(20);
    cr_assert_not(fake_has(&fake, "PING"), "subscribed first");
    fake_say(&fake, SUBSCRIBED);
    int64_t before = live_now();
    fake_expect(&fake, PING);
    cr_assert_eq(told.ups, 0);
    cr_assert_not(subscriber_is_up(sub));
    fake_say(&fake, PONG);
    WAIT_FOR(told.ups == 1);
    cr_assert_geq(told.t_ok, before);
    cr_assert(subscriber_is_up(sub) && subscriber_is_current(sub));
    cr_assert_eq(subscriber_peer_id(sub), 7);
    close_all();
}

/* I4: a PONG may come before the announcement of a write that was answered in the same turn. */
Test(subscriber, broadcast_counts_from_the_ping_before_the_last)
{
    open_with(FEED_BROADCAST, (struct feeds_options){.link_lease_ms = 2000});
    subscribe();
    fake_expect(&fake, PING);
    live_run_for(50);
    int64_t first_answer = live_now();
    fake_say(&fake, PONG);
    fake_expect(&fake, PING); /* at once, not after a quarter of the lease */
    cr_assert_lt(live_now() - first_answer, 300);
    cr_assert_eq(told.ups, 0, "one PONG proves nothing");
    live_run_for(50);
    fake_say(&fake, PONG);
    WAIT_FOR(told.ups == 1);
    cr_assert_lt(told.t_ok, first_answer, "the first PING's moment");
    int64_t second_answer = live_now();
    fake_expect(&fake, PING);
    fake_say(&fake, PONG);
    WAIT_FOR(told.renewals == 1);
    cr_assert(told.t_ok >= first_answer && told.t_ok <= second_answer, "the second's");
    close_all();
}

Test(subscriber, broadcast_names_its_prefixes)
{
    open_with(FEED_BROADCAST, (struct feeds_options){.prefixes = "  user:  a "});
    greet(":7\r\n");
    fake_expect(&fake, "*10\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n$8\r\nREDIRECT\r\n"
                       "$1\r\n7\r\n$5\r\nBCAST\r\n$6\r\nPREFIX\r\n$5\r\nuser:\r\n"
                       "$6\r\nPREFIX\r\n$1\r\na\r\n");
    close_all();
}

Test(subscriber, pings_for_fences_are_answered_in_order_among_messages)
{
    struct ask a = {.call = {.ops = &ASK_OPS}};
    struct ask b = {.call = {.ops = &ASK_OPS}};
    struct ask c = {.call = {.ops = &ASK_OPS}};
    open_with(FEED_REDIRECT, (struct feeds_options){.link_lease_ms = 4000});
    cr_assert_eq(subscriber_ping(sub, &a.call), CONN_DOWN);
    come_up(FEED_REDIRECT);
    cr_assert_eq(subscriber_ping(sub, &a.call), CONN_OK);
    cr_assert_eq(subscriber_ping(sub, &b.call), CONN_OK);
    fake_expect(&fake, PING PING);
    fake_say(&fake, MESSAGE "*1\r\n$1\r\na\r\n" PONG);
    WAIT_FOR(a.done);
    cr_assert_eq(told.keys, 1);
    cr_assert_not(b.done);
    fake_say(&fake, MESSAGE "_\r\n-BUSY Redis is busy\r\n");
    WAIT_FOR(b.done);
    cr_assert_eq(told.flushes, 1);
    cr_assert_str_eq(b.got, "-BUSY Redis is busy\r\n");
    cr_assert_eq(subscriber_ping(sub, &c.call), CONN_OK);
    fake_hang_up(&fake);
    WAIT_FOR(c.lost);
    cr_assert_eq(told.losses, 1, "before its calls are told");
    close_all();
}

/* ---- Messages ------------------------------------------------------------------------------- */

struct example {
    const char *bytes;
    int keys, flushes;
};

static void tell_in_pieces(const char *bytes)
{
    for (const char *p = bytes; *p != '\0'; p++) {
        char one[2] = {*p, '\0'};
        fake_say(&fake, one);
        live_spin();
    }
}

static void check_messages(const struct example *examples, size_t n)
{
    for (size_t i = 0; i < 2 * n; i++) {
        const struct example *e = &examples[i / 2];
        struct ask ask = {.call = {.ops = &ASK_OPS}};
        told.keys = told.flushes = 0;
        if (i % 2 == 0) {
            fake_say(&fake, e->bytes);
        } else {
            tell_in_pieces(e->bytes);
        }
        cr_assert_eq(subscriber_ping(sub, &ask.call), CONN_OK);
        fake_expect(&fake, PING);
        fake_say(&fake, PONG);
        WAIT_FOR(ask.done);
        cr_expect_eq(told.keys, e->keys, "%s", e->bytes);
        cr_expect_eq(told.flushes, e->flushes, "%s", e->bytes);
    }
    cr_assert_eq(told.losses, 0);
}

Test(subscriber, each_invalidation_does_what_it_says)
{
    static const struct example examples[] = {
        {MESSAGE "*1\r\n$1\r\na\r\n", 1, 0},
        {MESSAGE "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n", 3, 0},
        {MESSAGE "_\r\n", 0, 1},
        {MESSAGE "*-1\r\n", 0, 1},
        {MESSAGE "$-1\r\n", 0, 1},
        {MESSAGE "$4\r\njunk\r\n", 0, 1},
        {MESSAGE "*0\r\n", 0, 1},
        {MESSAGE "*1\r\n:1\r\n", 0, 1},
        {"*3\r\n$7\r\nmessage\r\n$5\r\nother\r\n*1\r\n$1\r\na\r\n", 0, 0},
        {SUBSCRIBED, 0, 0},
    };
    open_with(FEED_REDIRECT, (struct feeds_options){.link_lease_ms = 8000});
    come_up(FEED_REDIRECT);
    check_messages(examples, ARRAY_LEN(examples));
    close_all();
}

static void come_up_keyspace(void)
{
    greet("");
    fake_expect(&fake, "$3\r\nGET\r\n$22\r\nnotify-keyspace-events\r\n");
    fake_say(&fake, "*2\r\n$22\r\nnotify-keyspace-events\r\n$3\r\nAKE\r\n");
    fake_expect(&fake, "*2\r\n$10\r\nPSUBSCRIBE\r\n$16\r\n__keyevent@*__:*\r\n");
    fake_say(&fake, "*3\r\n$10\r\npsubscribe\r\n$16\r\n__keyevent@*__:*\r\n:1\r\n");
    fake_expect(&fake, PING);
    fake_say(&fake, PONG);
    WAIT_FOR(told.ups == 1);
}

#define EVENT "*4\r\n$8\r\npmessage\r\n$16\r\n__keyevent@*__:*\r\n"

Test(subscriber, key_events_name_the_key)
{
    static const struct example examples[] = {
        {EVENT "$18\r\n__keyevent@3__:set\r\n$1\r\na\r\n", 1, 0},
        {EVENT "$22\r\n__keyevent@3__:expired\r\n$1\r\na\r\n", 1, 0},
        {EVENT "$22\r\n__keyevent@3__:keymiss\r\n$1\r\na\r\n", 0, 0},
        {EVENT "$18\r\n__keyevent@3__:set\r\n$-1\r\n", 0, 1},
    };
    open_with(FEED_KEYSPACE, (struct feeds_options){.link_lease_ms = 8000, .db = 3});
    come_up_keyspace();
    check_messages(examples, ARRAY_LEN(examples));
    close_all();
}

/* ---- Ends ----------------------------------------------------------------------------------- */

Test(subscriber, what_no_server_says_to_a_subscriber_ends_the_link)
{
    static const char *const ends[] = {
        "+PONG\r\n",
        "+OK\r\n",
        ":1\r\n",
        PONG, /* to no PING */
        "-ERR whatever\r\n",
        "*3\r\n$11\r\nunsubscribe\r\n" CHANNEL ":0\r\n",
        "*1\r\n:1\r\n",
        "$3\r\nabc\r\n",
        "nonsense\r\n",
    };
    open_with(FEED_REDIRECT, (struct feeds_options){.link_lease_ms = 8000});
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        told.ups = told.losses = 0;
        come_up(FEED_REDIRECT);
        fake_say(&fake, ends[i]);
        WAIT_FOR(told.losses == 1);
        cr_assert_not(subscriber_is_up(sub), "%s", ends[i]);
        fake_hang_up(&fake);
    }
    close_all();
}

Test(subscriber, errors_renew_nothing_but_busy_keeps_the_link)
{
    open_with(FEED_REDIRECT, (struct feeds_options){.link_lease_ms = 200});
    come_up(FEED_REDIRECT);
    int renewals = told.renewals;
    int64_t until = live_now() + 1500; /* dead after 600 ms */
    while (live_now() < until) {
        fake_expect(&fake, PING);
        fake_say(&fake, "-BUSY Redis is busy\r\n");
    }
    cr_assert_eq(told.renewals, renewals);
    cr_assert_eq(told.losses, 0);
    cr_assert_geq(atomic_load(&counters.lapses), 1);
    WAIT_FOR(told.losses == 1); /* silence now */
    close_all();
}

/* ---- Refusals ------------------------------------------------------------------------------- */

Test(subscriber, refused_steps_are_told_by_name)
{
    open_with(FEED_REDIRECT, (struct feeds_options){0});
    greet(":7\r\n");
    fake_expect(&fake, "REDIRECT");
    fake_say(&fake, "-NOPERM no\r\n");
    WAIT_FOR(told.refusals == 1);
    cr_assert_str_eq(told.step, "CLIENT TRACKING");
    cr_assert_str_eq(told.text, "NOPERM no");
    cr_assert(told.lasting);
    cr_assert_eq(told.ups + told.losses, 0);
    close_all();
}

Test(subscriber, passing_refusals_are_tried_again_soon)
{
    open_with(FEED_BROADCAST, (struct feeds_options){0});
    greet(":7\r\n");
    fake_expect(&fake, "BCAST");
    fake_say(&fake, "-LOADING Redis is loading\r\n");
    WAIT_FOR(told.refusals == 1);
    cr_assert_not(told.lasting);
    come_up(FEED_BROADCAST);
    close_all();
}

Test(subscriber, without_its_id_there_is_no_redirection)
{
    open_with(FEED_REDIRECT, (struct feeds_options){0});
    greet("-NOPERM no\r\n");
    WAIT_FOR(told.refusals == 1);
    cr_assert_str_eq(told.step, "CLIENT ID");
    cr_assert(told.lasting);
    close_all();
}

Test(subscriber, keyspace_without_notifications_is_refused)
{
    open_with(FEED_KEYSPACE, (struct feeds_options){0});
    greet("");
    fake_expect(&fake, "notify-keyspace-events\r\n");
    fake_say(&fake, "*2\r\n$22\r\nnotify-keyspace-events\r\n$3\r\nKEx\r\n");
    WAIT_FOR(told.refusals == 1);
    cr_assert_str_eq(told.step, "notify-keyspace-events");
    cr_assert(told.lasting);
    live_run_for(20);
    cr_assert_not(fake_has(&fake, "SET"));
    close_all();
}

Test(subscriber, keyspace_adds_to_the_notifications_when_it_may)
{
    open_with(FEED_KEYSPACE, (struct feeds_options){.set_notify = true});
    greet("");
    fake_expect(&fake, "notify-keyspace-events\r\n");
    fake_say(&fake, "*2\r\n$22\r\nnotify-keyspace-events\r\n$3\r\nKEx\r\n");
    fake_expect(&fake, "$3\r\nSET\r\n$22\r\nnotify-keyspace-events\r\n$5\r\nKExEA\r\n");
    fake_say(&fake, "+OK\r\n");
    fake_expect(&fake, "$3\r\nGET\r\n$22\r\nnotify-keyspace-events\r\n");
    fake_say(&fake, "*2\r\n$22\r\nnotify-keyspace-events\r\n$3\r\nKEx\r\n");
    WAIT_FOR(told.refusals == 1); /* it did not help: once is enough */
    close_all();
}

Test(subscriber, flags_suffice_when_every_class_is_told)
{
    static const char *const good[] = {"AE", "AKE", "EA", "g$lshzxetE", "KEg$lshzxetdmn"};
    static const char *const bad[] = {"", "A", "KA", "E", "Eg$lshzxe", "E$"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        cr_assert(notify_flags_suffice(slice_str(good[i])), "%s", good[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_assert_not(notify_flags_suffice(slice_str(bad[i])), "%s", bad[i]);
    }
}
