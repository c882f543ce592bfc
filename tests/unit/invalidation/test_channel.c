/* SPDX-License-Identifier: Apache-2.0
 *
 * test_channel.c: what is made of the messages of other Nearsides, and what is published, with a server
 * played word by word.
 */
#include "../../../invalidation/feed_priv.h"

#include "../live.h"

static struct node *node;
static struct l1 *l1;
static struct feeds *feeds;
static struct channel *channel;
static struct feed_counters counters;
static struct fake fake;

static void flush_and_tick(void)
{
    channel_flush(channel);
    channel_tick(channel, live_now());
}

static void open_channel(int64_t lease)
{
    char err[ERR_MAX] = "";
    memset(&counters, 0, sizeof(counters));
    fake_open(&fake);
    live_start();
    node = live_node(fake.port);
    l1 = l1_create(&(struct l1_options){.max_memory = 16 << 20,
                                        .max_item_size = 1 << 20,
                                        .covers = feeds_covers(1)},
                   err);
    cr_assert_not_null(l1, "%s", err);
    feeds = feeds_create(&(struct feeds_options){
        .node = node,
        .l1 = l1,
        .workers = 1,
        .mode = FEED_CHANNEL,
        .link_lease_ms = lease,
        .channel = "ch",
        .now = live_now,
    });
    channel = channel_create(&(struct channel_options){
        .feeds = feeds,
        .loop = live_loop,
        .read_buffer = live_buffer,
        .read_size = sizeof(live_buffer),
        .counters = &counters,
    });
    live_turn = flush_and_tick;
    fake_greet(&fake);
}

static void close_all(void)
{
    live_turn = NULL;
    channel_destroy(channel);
    feeds_destroy(feeds);
    l1_destroy(l1);
    node_destroy(node);
    live_stop();
    fake_close(&fake);
}

/* ---- Listening ------------------------------------------------------------------------------ */

#define A "00000000000000aa"
#define B "00000000000000bb"

static const struct step {
    const char *text;
    int keys, flushes;
} STEPS[] = {
    {"h " A " 0\r\n", 0, 0}, /* new, and has said nothing */
    {"k " A " 1\r\n$1\r\na\r\n", 1, 0},
    {"k " A " 2\r\n$1\r\na\r\n$0\r\n\r\n$2\r\n\r\n\r\n", 3, 0},
    {"h " A " 2\r\n", 0, 0},
    {"f " A " 3\r\n", 0, 1},
    {"k " A " 4\r\n", 0, 0},
    {"k " A " 6\r\n$1\r\na\r\n", 0, 1}, /* one is missing */
    {"k " A " 7\r\n$1\r\na\r\n", 1, 0},
    {"h " A " 8\r\n", 0, 1}, /* the newest is missing */
    {"k " A " 8\r\n$1\r\na\r\n", 0, 1},
    {"k " B " 1\r\n$1\r\na\r\n", 1, 0}, /* new, and this is its first */
    {"k " B " 2\r\n$9\r\na\r\n", 0, 1}, /* cut short */
    {"h 00000000000000cc 5\r\n", 0, 1}, /* new to us, not to others */
    {"t", 0, 0},
    {"", 0, 1},
    {"junk", 0, 1},
    {"k " A " x\r\n", 0, 1},
    {"k " A " -9\r\n", 0, 1},
    {"k " A " 9", 0, 1},
    {"x " A " 9\r\n", 0, 1},
    {"k 00000000000000a 9\r\n", 0, 1},
};

Test(channel, each_message_does_what_its_number_says)
{
    open_channel(60000);
    for (size_t i = 0; i < ARRAY_LEN(STEPS); i++) {
        uint64_t keys = atomic_load(&counters.invalidations);
        uint64_t flushes = atomic_load(&counters.flushes);
        struct l1_stats before, after;
        l1_stats(l1, &before);
        channel_hear(channel, slice_str(STEPS[i].text));
        l1_stats(l1, &after);
        cr_expect_eq(atomic_load(&counters.invalidations) - keys, (uint64_t)STEPS[i].keys, "%s",
                     STEPS[i].text);
        cr_expect_eq(atomic_load(&counters.flushes) - flushes, (uint64_t)STEPS[i].flushes, "%s",
                     STEPS[i].text);
        cr_expect_eq(after.drop_alls - before.drop_alls, (uint64_t)STEPS[i].flushes);
    }
    close_all();
}

Test(channel, origin_that_falls_silent_may_have_said_something)
{
    open_channel(200);
    channel_hear(channel, SLICE("h " A " 0\r\n"));
    for (int i = 0; i < 8; i++) {
        live_run_for(50);
        channel_hear(channel, SLICE("h " A " 0\r\n"));
    }
    cr_assert_eq(atomic_load(&counters.flushes), 0);
    WAIT_FOR(atomic_load(&counters.flushes) == 1);
    live_run_for(300);
    cr_assert_eq(atomic_load(&counters.flushes), 1, "once");
    close_all();
}

Test(channel, more_origins_than_there_is_room_for_are_forgotten_all)
{
    char text[64];
    open_channel(60000);
    for (int i = 0; i < 1024; i++) {
        (void)snprintf(text, sizeof(text), "h %016x 0\r\n", i + 1);
        channel_hear(channel, slice_str(text));
    }
    cr_assert_eq(atomic_load(&counters.flushes), 0);
    channel_hear(channel, SLICE("h ffffffffffffff00 0\r\n"));
    cr_assert_eq(atomic_load(&counters.flushes), 1);
    close_all();
}

/* ---- Publishing ----------------------------------------------------------------------------- */

/* The number behind our id in the newest message, which must be of that kind; it is answered. */
static int expect_message(char kind, const char *rest)
{
    char head[64];
    (void)snprintf(head, sizeof(head), "\r\n%c ", kind);
    fake_expect(&fake, head);
    WAIT_FOR(fake_has(&fake, rest));
    int seq = atoi(fake.in + 17);
    fake_expect(&fake, rest);
    fake_say(&fake, ":1\r\n");
    return seq;
}

Test(channel, what_is_announced_is_published_in_order_one_at_a_time)
{
    open_channel(60000);
    cr_assert_eq(expect_message('h', "\r\n"), 0);
    feeds_announce(feeds, SLICE("$1\r\na\r\n"));
    fake_expect(&fake, "*3\r\n$7\r\nPUBLISH\r\n$2\r\nch\r\n");
    fake_expect(&fake, "$1\r\na\r\n");
    feeds_announce(feeds, SLICE("$1\r\nb\r\n"));
    feeds_announce(feeds, SLICE("$1\r\nc\r\n"));
    live_run_for(20);
    cr_assert_not(fake_has(&fake, "PUBLISH"), "the first is not answered yet");
    fake_say(&fake, ":1\r\n");
    cr_assert_eq(expect_message('k', "$1\r\nb\r\n$1\r\nc\r\n"), 2);
    feeds_announce(feeds, slice_of(NULL, 0));
    cr_assert_eq(expect_message('f', "\r\n"), 3);
    close_all();
}

Test(channel, lost_publish_leaves_a_gap_and_the_rest_waits_for_the_link)
{
    open_channel(60000);
    cr_assert_eq(expect_message('h', "\r\n"), 0);
    feeds_announce(feeds, SLICE("$1\r\na\r\n"));
    fake_expect(&fake, "$1\r\na\r\n");
    feeds_announce(feeds, SLICE("$1\r\nb\r\n"));
    fake_hang_up(&fake);
    fake_greet(&fake);
    cr_assert_eq(expect_message('k', "$1\r\nb\r\n"), 2);
    close_all();
}

Test(channel, more_than_the_outbox_holds_is_all_keys)
{
    static char text[600 * 1024];
    open_channel(60000);
    cr_assert_eq(expect_message('h', "\r\n"), 0);
    feeds_announce(feeds, SLICE("$1\r\na\r\n"));
    fake_expect(&fake, "$1\r\na\r\n");
    feeds_announce(feeds, slice_of(text, sizeof(text)));
    feeds_announce(feeds, slice_of(text, sizeof(text)));
    fake_say(&fake, ":1\r\n");
    cr_assert_eq(expect_message('f', "\r\n"), 2);
    close_all();
}

Test(channel, newest_number_is_said_every_quarter_of_the_lease)
{
    open_channel(400);
    cr_assert_eq(expect_message('h', "\r\n"), 0);
    feeds_announce(feeds, SLICE("$1\r\na\r\n"));
    cr_assert_eq(expect_message('k', "$1\r\na\r\n"), 1);
    for (int i = 0; i < 3; i++) {
        int64_t start = live_now();
        cr_assert_eq(expect_message('h', "\r\n"), 1);
        cr_assert_lt(live_now() - start, 200);
    }
    close_all();
}
