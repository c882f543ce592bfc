/* SPDX-License-Identifier: Apache-2.0
 *
 * test_modes.c: one worker's feed in the modes that have a link, against a server played on both
 * connections: when fills may be sent, which cover stands for them, and what a fence asks.
 */
#include "../../../invalidation/feed_priv.h"

#include "../live.h"

static struct node *node;
static struct l1 *l1;
static struct feeds *feeds;
static struct feed *feed;
static struct fake link_end; /* the subscriber's connection, and the listener */
static struct fake fill_end;

static void flush_and_tick(void)
{
    feed_flush(feed);
    feed_tick(feed, live_now());
}

#define PONG    "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
#define CHANNEL "$20\r\n__redis__:invalidate\r\n"
#define PING    "*1\r\n$4\r\nPING\r\n"

static void open_mode(struct feeds_options options)
{
    char err[ERR_MAX] = "";
    fake_open(&link_end);
    live_start();
    node = live_node(link_end.port);
    l1 = l1_create(&(struct l1_options){.max_memory = 16 << 20,
                                        .max_item_size = 1 << 20,
                                        .covers = feeds_covers(1)},
                   err);
    cr_assert_not_null(l1, "%s", err);
    options.node = node;
    options.l1 = l1;
    options.workers = 1;
    options.link_lease_ms = 8000;
    options.weak_ttl_ms = 77;
    options.now = live_now;
    feeds = feeds_create(&options);
    feed = feed_create(&(struct feed_options){
        .feeds = feeds,
        .index = 0,
        .loop = live_loop,
        .read_buffer = live_buffer,
        .read_size = sizeof(live_buffer),
    });
    live_turn = flush_and_tick;
    feed_start(feed);
}

static void close_all(void)
{
    live_turn = NULL;
    feed_destroy(feed);
    feeds_destroy(feeds);
    l1_destroy(l1);
    node_destroy(node);
    live_stop();
    close(fill_end.fd);
    fake_close(&link_end);
}

/* Accepts the next connection at its own end. */
static void accept_fill(void)
{
    fill_end.listener = link_end.listener;
    fill_end.port = link_end.port;
    fake_accept(&fill_end);
    fake_expect(&fill_end, PING);
}

static void subscribe(void)
{
    fake_say(&link_end, "+OK\r\n:7\r\n");
    fake_say_info(&link_end, "1111");
    fake_say(&link_end, "+PONG\r\n");
    fake_expect(&link_end, "TRACKING");
    fake_say(&link_end, "+OK\r\n");
    fake_expect(&link_end, "SUBSCRIBE");
    fake_say(&link_end, "*3\r\n$9\r\nsubscribe\r\n" CHANNEL ":1\r\n");
}

static void answer_ping(struct fake *end, const char *pong)
{
    fake_expect(end, PING);
    fake_say(end, pong);
}

static void open_broadcast(const char *prefixes)
{
    open_mode((struct feeds_options){.mode = FEED_BROADCAST, .prefixes = prefixes});
    fake_accept(&link_end);
    fake_expect(&link_end, PING);
    accept_fill();
    fake_say_info(&fill_end, "1111");
    fake_say(&fill_end, "+PONG\r\n");
    subscribe();
    answer_ping(&link_end, PONG);
    cr_assert_not(feed_is_up(feed));
    answer_ping(&link_end, PONG);
    WAIT_FOR(feed_is_up(feed));
}

static int ends;
static bool end_good;

static void on_done(struct feed_fence *fence, bool good)
{
    (void)fence;
    ends++;
    end_good = good;
}

/* ---- Covers --------------------------------------------------------------------------------- */

Test(modes, broadcast_fills_are_covered_by_the_link)
{
    open_broadcast("");
    uint16_t cover = feeds_link_cover(feeds, FEED_BROADCAST);
    cr_assert_eq(feed_cover(feed, SLICE("any")), cover);
    cr_assert(l1_cover_is_up(l1, cover));
    cr_assert_not(l1_cover_is_up(l1, 0));
    cr_assert_not(l1_cover_is_up(l1, feeds_link_cover(feeds, FEED_KEYSPACE)));
    cr_assert_eq(feed_ttl_limit(feed), INT64_MAX);
    fake_hang_up(&link_end);
    WAIT_FOR(!l1_cover_is_up(l1, cover));
    cr_assert_not(feed_is_up(feed), "the fill connection alone is not enough");
    cr_assert_eq(feed_cover(feed, SLICE("any")), L1_NO_COVER);
    close_all();
}

Test(modes, keys_without_a_prefix_have_no_cover)
{
    open_broadcast("user: a");
    cr_assert_neq(feed_cover(feed, SLICE("user:1")), L1_NO_COVER);
    cr_assert_neq(feed_cover(feed, SLICE("a")), L1_NO_COVER);
    cr_assert_eq(feed_cover(feed, SLICE("user")), L1_NO_COVER);
    cr_assert_eq(feed_cover(feed, SLICE("b")), L1_NO_COVER);
    cr_assert_eq(feed_cover(feed, SLICE("")), L1_NO_COVER);
    close_all();
}

/* ---- Fences --------------------------------------------------------------------------------- */

Test(modes, broadcast_fence_is_two_pings_in_sequence)
{
    struct feed_fence fence = {.done = on_done};
    open_broadcast("");
    ends = 0;
    cr_assert_eq(feed_fence(feed, &fence), FEED_FENCE_WAITS);
    fake_expect(&link_end, PING);
    live_run_for(30);
    cr_assert_not(fake_has(&link_end, "PING"), "the second waits for the first");
    cr_assert_not(fake_has(&fill_end, "PING"), "fill connections have nothing to say");
    fake_say(&link_end, PONG);
    fake_expect(&link_end, PING);
    cr_assert_eq(ends, 0);
    fake_say(&link_end, PONG);
    WAIT_FOR(ends == 1);
    cr_assert(end_good);
    close_all();
}

Test(modes, broadcast_fence_that_is_refused_is_none)
{
    struct feed_fence fence = {.done = on_done};
    open_broadcast("");
    for (int nth = 0; nth < 2; nth++) {
        ends = 0;
        cr_assert_eq(feed_fence(feed, &fence), FEED_FENCE_WAITS);
        if (nth == 1) {
            answer_ping(&link_end, PONG);
        }
        answer_ping(&link_end, "-BUSY no\r\n");
        WAIT_FOR(ends == 1);
        cr_assert_not(end_good);
    }
    close_all();
}

Test(modes, fence_of_a_lost_link_is_over_and_its_cover_is_down)
{
    struct feed_fence fence = {.done = on_done};
    open_broadcast("");
    ends = 0;
    cr_assert_eq(feed_fence(feed, &fence), FEED_FENCE_WAITS);
    fake_expect(&link_end, PING);
    fake_hang_up(&link_end);
    WAIT_FOR(ends == 1);
    cr_assert(end_good);
    cr_assert_not(l1_cover_is_up(l1, feeds_link_cover(feeds, FEED_BROADCAST)));
    cr_assert_eq(feed_fence(feed, &fence), FEED_FENCE_DONE, "nothing to wait for");
    close_all();
}

Test(modes, only_the_host_is_asked_where_the_link_covers)
{
    static const struct {
        enum feed_mode mode;
        bool others;
    } cases[] = {{FEED_TRACKING, true},
                 {FEED_REDIRECT, true},
                 {FEED_BROADCAST, false},
                 {FEED_KEYSPACE, false},
                 {FEED_CHANNEL, false}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct feeds *f = feeds_create(&(struct feeds_options){
            .workers = 3, .mode = cases[i].mode, .channel = "c", .now = live_now});
        cr_assert(feeds_fence_asks(f, 0));
        cr_assert_eq(feeds_fence_asks(f, 2), cases[i].others, "%s", feed_mode_name(cases[i].mode));
        feeds_destroy(f);
    }
}

/* X4: the host answers for the link, hence for everything in redirect. */
Test(modes, voiding_the_host_voids_what_the_link_vouches_for)
{
    static const enum feed_mode modes[] = {FEED_TRACKING, FEED_REDIRECT, FEED_BROADCAST};
    char err[ERR_MAX];
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        l1 = l1_create(&(struct l1_options){.max_memory = 16 << 20,
                                            .max_item_size = 1 << 20,
                                            .covers = feeds_covers(2)},
                       err);
        struct feeds *f = feeds_create(
            &(struct feeds_options){.workers = 2, .l1 = l1, .mode = modes[i], .now = live_now});
        uint16_t cover = modes[i] == FEED_BROADCAST ? feeds_link_cover(f, modes[i]) : 1;
        struct chain out;
        struct l1_waiter w;
        int64_t now = live_now();
        l1_cover_up(l1, cover, now + 10000);
        struct l1_query q = {.key = SLICE("k"),
                             .hash = l1_hash(l1, SLICE("k")),
                             .cover = cover,
                             .out = &out,
                             .waiter = &w};
        struct l1_lease *lease = l1_lease_try(l1, &q, now);
        cr_assert_not_null(lease);
        struct l1_value value = {.encoded = SLICE("$1\r\nv\r\n"), .ttl_ms = 60000};
        l1_fill(l1, &lease, &value, now);
        feeds_void(f, 0);
        chain_init(&out);
        struct l1_key key = {.key = q.key, .hash = q.hash};
        struct l1_run run = {.keys = &key, .n = 1, .out = &out, .null = SLICE("$-1\r\n")};
        bool hit = l1_get_all(l1, &run, now);
        cr_assert_eq(hit, modes[i] == FEED_TRACKING, "%s", feed_mode_name(modes[i]));
        cr_assert(l1_cover_is_up(l1, cover), "void, not down");
        chain_fini(&out);
        feeds_destroy(f);
        l1_destroy(l1);
    }
}
