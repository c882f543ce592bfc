/* SPDX-License-Identifier: Apache-2.0
 *
 * test_feed.c: what feed.h promises, with a real L1 behind the feed and, in front of it,
 * redis-server or a server played word by word.
 */
#include "../../../invalidation/feed.h"

#include "../live.h"

static struct node *node;
static struct l1 *l1;
static struct feeds *feeds;
static struct feed *feed;
static struct fake fake;
static struct redis redis;

static struct slice key_of(const char *name)
{
    return slice_str(name);
}

static void flush_and_tick(void)
{
    feed_flush(feed);
    feed_tick(feed, live_now());
}

struct times {
    int64_t lease;
    int64_t dead_after;
};

static void open_with(int port, struct times t, struct node_options n)
{
    char err[ERR_MAX] = "";
    live_start();
    n.dead_after_ms = t.dead_after;
    node = live_node_with(port, n);
    l1 = l1_create(&(struct l1_options){.max_memory = 16 << 20,
                                        .max_item_size = 1 << 20,
                                        .covers = feeds_covers(2)},
                   err);
    cr_assert_not_null(l1, "%s", err);
    feeds = feeds_create(&(struct feeds_options){
        .node = node,
        .l1 = l1,
        .workers = 2,
        .mode = FEED_TRACKING,
        .link_lease_ms = t.lease,
        .now = live_now,
    });
    feed = feed_create(&(struct feed_options){
        .feeds = feeds,
        .index = 1,
        .loop = live_loop,
        .read_buffer = live_buffer,
        .read_size = sizeof(live_buffer),
    });
    live_turn = flush_and_tick;
    feed_start(feed);
}

static void open_fake(struct times t)
{
    fake_open(&fake);
    open_with(fake.port, t, (struct node_options){0});
    fake_greet_fill(&fake);
    WAIT_FOR(feed_is_up(feed));
}

static void open_redis(struct times t)
{
    redis_start(&redis, "");
    open_with(redis.port, t, (struct node_options){0});
    WAIT_FOR(feed_is_up(feed));
}

static void close_all(void)
{
    feed_destroy(feed);
    feeds_destroy(feeds);
    l1_destroy(l1);
    node_destroy(node);
    live_stop();
}

static void close_fake(void)
{
    close_all();
    fake_close(&fake);
}

static void close_redis(void)
{
    close_all();
    redis_stop(&redis);
}

static struct feed_stats stats(void)
{
    struct feed_stats s;
    feed_stats(feed, &s);
    return s;
}

static const struct times CALM = {.lease = 5000, .dead_after = 10000};

/* ---- L1, as a request would use it --------------------------------------------------------- */

static void ignore_wake(struct l1_waiter *w, enum l1_wake how, struct l1_reply *reply)
{
    (void)w;
    (void)how;
    (void)reply;
}

static enum l1_result look_up(const char *name, struct l1_waiter *w, struct l1_lease **lease)
{
    struct chain out;
    chain_init(&out);
    *w = (struct l1_waiter){.wake = ignore_wake};
    struct l1_query q = {
        .key = key_of(name),
        .hash = l1_hash(l1, key_of(name)),
        .cover = 1,
        .out = &out,
        .waiter = w,
    };
    enum l1_result result = l1_get(l1, &q, live_now());
    *lease = q.lease;
    chain_fini(&out);
    return result;
}

static bool is_hit(const char *name)
{
    struct l1_waiter w;
    struct l1_lease *lease = NULL;
    enum l1_result result = look_up(name, &w, &lease);
    if (result == L1_OWNER) {
        l1_abandon(l1, &lease);
    }
    return result == L1_HIT;
}

static void put_in_l1(const char *name, struct slice encoded)
{
    struct l1_waiter w;
    struct l1_lease *lease = NULL;
    cr_assert_eq(look_up(name, &w, &lease), L1_OWNER, "%s", name);
    struct l1_value value = {.encoded = encoded, .ttl_ms = 60000};
    l1_fill(l1, &lease, &value, live_now());
}

/* GETs it on the feed, as a fill does. */
static void fill(const char *name)
{
    char line[64];
    struct ask ask = {.call = {.ops = &ASK_OPS, .replies = 1}};
    int n = snprintf(line, sizeof(line), "GET %s\r\n", name);
    cr_assert_eq(feed_submit(feed, &ask.call, slice_of(line, (size_t)n)), CONN_OK);
    WAIT_FOR(ask.done);
    put_in_l1(name, slice_str(ask.got));
    cr_assert(is_hit(name));
}

/* ---- Coming up ----------------------------------------------------------------------------- */

Test(feed, destroy_accepts_null)
{
    feed_destroy(NULL);
}

Test(feed, cover_is_up_once_the_link_is_registered_and_answered_its_first_ping)
{
    struct ask ask = {.call = {.ops = &ASK_OPS, .replies = 1}};
    fake_open(&fake);
    open_with(fake.port, CALM, (struct node_options){0});
    fake_accept(&fake);
    fake_expect(&fake, "$8\r\nTRACKING\r\n$2\r\nON\r\n");
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, FAKE_HELLO "+OK\r\n+OK\r\n$0\r\n\r\n");
    live_run_for(20);
    cr_assert_not(feed_is_up(feed));
    cr_assert_not(l1_cover_is_up(l1, 1));
    cr_assert_eq(stats().state, CONN_HANDSHAKE);
    cr_assert_eq(feed_submit(feed, &ask.call, SLICE("GET a\r\n")), CONN_DOWN,
                 "a fill does not wait for a bring-up");
    fake_say(&fake, "+PONG\r\n");
    WAIT_FOR(feed_is_up(feed));
    cr_assert(l1_cover_is_up(l1, 1));
    cr_assert_not(l1_cover_is_up(l1, 0), "only its own cover");
    cr_assert_eq(stats().state, CONN_UP);
    cr_assert_gt(stats().last_pong_ms, 0);
    close_fake();
}

Test(feed, cover_counts_from_when_the_first_ping_was_sent)
{
    fake_open(&fake);
    open_with(fake.port, (struct times){.lease = 200, .dead_after = 5000},
              (struct node_options){0});
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    live_run_for(250); /* longer than the lease */
    fake_say(&fake, FAKE_HELLO "+OK\r\n+OK\r\n$0\r\n\r\n+PONG\r\n");
    WAIT_FOR(feed_is_up(feed));
    int64_t up = live_now();
    struct l1_waiter w;
    struct l1_lease *lease = NULL;
    if (look_up("a", &w, &lease) == L1_OWNER) {
        struct l1_value value = {.encoded = SLICE("$1\r\na\r\n"), .ttl_ms = 60000};
        l1_fill(l1, &lease, &value, live_now());
    }
    cr_assert_not(is_hit("a"));
    WAIT_FOR(stats().lapses == 1);
    cr_assert_lt(live_now() - up, 150, "it has lapsed already");
    close_fake();
}

Test(feed, fills_are_answered_and_their_changes_announced)
{
    open_redis(CALM);
    redis_do(&redis, "SET a 1");
    fill("a");
    redis_do(&redis, "SET a 2");
    WAIT_FOR(stats().invalidations == 1);
    cr_assert_not(is_hit("a"));
    fill("a");
    cr_assert_eq(stats().flushes, 0);
    close_redis();
}

/* ---- Pushes -------------------------------------------------------------------------------- */

Test(feed, flush_on_the_server_drops_everything)
{
    open_redis(CALM);
    redis_do(&redis, "SET a 1");
    fill("a");
    redis_do(&redis, "FLUSHALL");
    WAIT_FOR(stats().flushes == 1);
    cr_assert_not(is_hit("a"));
    cr_assert(l1_cover_is_up(l1, 1));
    close_redis();
}

struct message {
    const char *push;
    bool drops_a, drops_b;
    uint64_t invalidations, flushes;
};

Test(feed, each_push_does_what_it_says)
{
    static const struct message cases[] = {
        {">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n", true, false, 1, 0},
        {">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n", true, true, 2, 0},
        {">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nz\r\n", false, false, 1, 0},
        {">2\r\n$10\r\ninvalidate\r\n_\r\n", true, true, 0, 1},
        {">2\r\n$10\r\ninvalidate\r\n*-1\r\n", true, true, 0, 1},
        {">2\r\n$10\r\ninvalidate\r\n$-1\r\n", true, true, 0, 1},
        {">2\r\n$10\r\ninvalidate\r\n$4\r\njunk\r\n", true, true, 0, 1},
        {">2\r\n$10\r\ninvalidate\r\n*0\r\n", true, true, 0, 1},
        {">1\r\n$10\r\ninvalidate\r\n", true, true, 0, 1},
        {">2\r\n$10\r\ninvalidate\r\n*1\r\n*1\r\n$1\r\na\r\n", true, true, 0, 1},
        {">2\r\n$21\r\ntracking-redir-broken\r\n:7\r\n", false, false, 0, 0},
        {">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n", false, false, 0, 0},
    };
    open_fake(CALM);
    struct feed_stats before = stats();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct message *m = &cases[i];
        struct ask ask = {.call = {.ops = &ASK_OPS, .replies = 1}};
        if (!is_hit("a")) {
            put_in_l1("a", SLICE("$1\r\na\r\n"));
        }
        if (!is_hit("b")) {
            put_in_l1("b", SLICE("$1\r\nb\r\n"));
        }
        cr_assert(is_hit("a") && is_hit("b"));
        cr_assert_eq(feed_submit(feed, &ask.call, SLICE("GET x\r\n")), CONN_OK);
        fake_expect(&fake, "GET x\r\n");
        fake_say(&fake, m->push);
        fake_say(&fake, "$-1\r\n");
        WAIT_FOR(ask.done);
        cr_assert_eq(is_hit("a"), !m->drops_a, "%s", m->push);
        cr_assert_eq(is_hit("b"), !m->drops_b, "%s", m->push);
        struct feed_stats after = stats();
        cr_assert_eq(after.invalidations - before.invalidations, m->invalidations, "%s", m->push);
        cr_assert_eq(after.flushes - before.flushes, m->flushes, "%s", m->push);
        before = after;
    }
    cr_assert(feed_is_up(feed));
    cr_assert_eq(stats().losses, 0);
    close_fake();
}

/* ---- The link lease ------------------------------------------------------------------------ */

Test(feed, pongs_renew_the_lease)
{
    open_redis((struct times){.lease = 400, .dead_after = 5000});
    redis_do(&redis, "SET a 1");
    fill("a");
    live_run_for(1000);
    cr_assert(is_hit("a"));
    cr_assert_eq(stats().lapses, 0);
    close_redis();
}

Test(feed, one_ping_at_a_time_and_four_to_a_lease)
{
    open_fake((struct times){.lease = 200, .dead_after = 5000});
    int64_t start = live_now();
    fake_expect(&fake, "PING\r\n");
    cr_assert_lt(live_now() - start, 150);
    live_run_for(150);
    cr_assert_not(fake_has(&fake, "PING"));
    fake_say(&fake, "+PONG\r\n");
    fake_expect(&fake, "PING\r\n");
    close_fake();
}

Test(feed, silent_server_lets_the_lease_lapse_and_nothing_is_served)
{
    open_redis((struct times){.lease = 300, .dead_after = 8000});
    redis_do(&redis, "SET a 1");
    redis_do(&redis, "SET b 1");
    fill("a");
    fill("b");
    kill(redis.pid, SIGSTOP);
    WAIT_FOR(stats().lapses == 1);
    cr_assert_not(is_hit("a"));
    live_run_for(200);
    cr_assert_eq(stats().lapses, 1, "once per lapse");
    kill(redis.pid, SIGCONT);
    /* The second PONG: the first may belong to a PING from before the silence. */
    int64_t thawed = live_now();
    WAIT_FOR(stats().last_pong_ms > thawed + 100);
    cr_assert(is_hit("b"), "what nobody asked for meanwhile is as good as before");
    cr_assert_not(is_hit("a"), "what was seen lapsed is gone");
    cr_assert_eq(stats().losses, 0);
    fill("a");
    close_redis();
}

Test(feed, lease_counts_from_when_the_ping_was_sent)
{
    open_fake((struct times){.lease = 300, .dead_after = 5000});
    put_in_l1("a", SLICE("$1\r\na\r\n"));
    fake_expect(&fake, "PING\r\n");
    live_run_for(350);
    fake_say(&fake, "+PONG\r\n"); /* to a PING older than the lease */
    fake_expect(&fake, "PING\r\n");
    cr_assert_eq(stats().lapses, 1, "still the same lapse");
    cr_assert_not(is_hit("a"));
    close_fake();
}

Test(feed, error_is_no_renewal_but_busy_is_a_sign_of_life)
{
    open_fake((struct times){.lease = 100, .dead_after = 300});
    int64_t until = live_now() + 700;
    while (live_now() < until) {
        fake_expect(&fake, "PING\r\n");
        fake_say(&fake, "-BUSY Redis is busy\r\n");
    }
    cr_assert_eq(stats().lapses, 1);
    cr_assert_eq(stats().losses, 0);
    until = live_now() + 5000;
    while (stats().losses == 0 && live_now() < until) {
        live_spin();
        if (fake_has(&fake, "PING\r\n")) {
            fake.n = 0;
            fake_say(&fake, "-NOPERM no\r\n");
        }
    }
    cr_assert_eq(stats().losses, 1);
    close_fake();
}

Test(feed, text_of_a_pong_inside_another_reply_is_no_renewal)
{
    open_fake((struct times){.lease = 200, .dead_after = 5000});
    int64_t until = live_now() + 5000;
    while (stats().lapses == 0 && live_now() < until) {
        fake_expect(&fake, "PING\r\n");
        fake_say(&fake, "|1\r\n+a\r\n:1\r\n");
        live_run_for(10);
        fake_say(&fake, "+PONG\r\n");
    }
    cr_assert_eq(stats().lapses, 1);
    close_fake();
}

Test(feed, link_without_pong_is_lost)
{
    open_redis((struct times){.lease = 100, .dead_after = 300});
    kill(redis.pid, SIGSTOP);
    int64_t start = live_now();
    WAIT_FOR(stats().losses == 1);
    cr_assert_geq(live_now() - start, 150);
    cr_assert_not(l1_cover_is_up(l1, 1));
    kill(redis.pid, SIGCONT);
    WAIT_FOR(feed_is_up(feed));
    close_redis();
}

Test(feed, own_standstill_is_not_the_servers_silence)
{
    open_fake((struct times){.lease = 100, .dead_after = 500});
    live_turn = NULL;
    int64_t now = live_now();
    feed_tick(feed, now);
    feed_tick(feed, now + 60000);
    cr_assert(feed_is_up(feed));
    cr_assert_eq(stats().lapses, 1, "the lease is a matter of clocks, not of blame");
    feed_tick(feed, now + 60400);
    cr_assert(feed_is_up(feed));
    feed_tick(feed, now + 60600);
    cr_assert_not(feed_is_up(feed));
    close_fake();
}

/* ---- Losing the link ----------------------------------------------------------------------- */

static bool cover_at_loss;

static void look_at_cover(struct ask *ask)
{
    struct ask again = {.call = {.ops = &ASK_OPS, .replies = 1}};
    cr_assert(ask->lost);
    cover_at_loss = l1_cover_is_up(l1, 1);
    cr_assert_eq(feed_submit(feed, &again.call, SLICE("GET a\r\n")), CONN_DOWN);
}

Test(feed, cover_is_down_before_a_lost_fill_is_told)
{
    struct ask ask = {.call = {.ops = &ASK_OPS, .replies = 1}, .then = look_at_cover};
    open_fake(CALM);
    put_in_l1("a", SLICE("$1\r\na\r\n"));
    cr_assert_eq(feed_submit(feed, &ask.call, SLICE("GET x\r\n")), CONN_OK);
    fake_expect(&fake, "GET x\r\n");
    cover_at_loss = true;
    fake_hang_up(&fake);
    WAIT_FOR(ask.lost);
    cr_assert_not(cover_at_loss);
    cr_assert_not(is_hit("a"));
    cr_assert_eq(stats().losses, 1);
    cr_assert_neq(stats().state, CONN_UP);
    close_fake();
}

Test(feed, killed_link_comes_back_without_what_it_had_filled)
{
    open_redis(CALM);
    redis_do(&redis, "SET a 1");
    fill("a");
    redis_do(&redis, "CLIENT KILL TYPE normal SKIPME yes");
    WAIT_FOR(stats().losses == 1);
    cr_assert_not(is_hit("a"));
    WAIT_FOR(feed_is_up(feed));
    cr_assert(l1_cover_is_up(l1, 1));
    fill("a");
    redis_do(&redis, "SET a 2");
    WAIT_FOR(stats().invalidations == 1);
    close_redis();
}

Test(feed, ping_on_the_way_is_forgotten_with_its_link)
{
    open_fake((struct times){.lease = 200, .dead_after = 5000});
    fake_expect(&fake, "PING\r\n");
    fake_hang_up(&fake);
    fake_greet_fill(&fake);
    WAIT_FOR(feed_is_up(feed));
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "+PONG\r\n");
    fake_expect(&fake, "PING\r\n");
    cr_assert_eq(stats().losses, 1);
    close_fake();
}

Test(feed, destroy_takes_the_cover_down_and_then_loses_open_calls)
{
    struct ask ask = {.call = {.ops = &ASK_OPS, .replies = 1}, .then = look_at_cover};
    open_fake(CALM);
    cr_assert_eq(feed_submit(feed, &ask.call, SLICE("GET x\r\n")), CONN_OK);
    cover_at_loss = true;
    feed_destroy(feed);
    cr_assert(ask.lost);
    cr_assert_not(cover_at_loss);
    feed = NULL;
    live_turn = NULL;
    close_fake();
}

/* ---- Refusals ------------------------------------------------------------------------------ */

Test(feed, refused_tracking_is_counted_and_asked_for_again)
{
    struct ask ask = {.call = {.ops = &ASK_OPS, .replies = 1}};
    redis_start(&redis, "");
    redis_do(&redis, "ACL SETUSER me on >pw ~* +@all -client|tracking");
    open_with(redis.port, CALM, (struct node_options){.user = "me", .password = "pw"});
    WAIT_FOR(stats().refusals >= 2);
    cr_assert(stats().refused);
    cr_assert_not(feed_is_up(feed));
    cr_assert_not(l1_cover_is_up(l1, 1));
    cr_assert_eq(feed_submit(feed, &ask.call, SLICE("GET a\r\n")), CONN_DOWN);
    redis_do(&redis, "ACL SETUSER me +client|tracking");
    WAIT_FOR(feed_is_up(feed));
    cr_assert_not(stats().refused);
    close_redis();
}

Test(feed, server_without_resp3_refuses_too)
{
    fake_open(&fake);
    open_with(fake.port, CALM, (struct node_options){0});
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, "-ERR unknown command `HELLO`\r\n");
    WAIT_FOR(stats().refusals == 1);
    cr_assert(stats().refused);
    cr_assert_not(l1_cover_is_up(l1, 1));
    close_fake();
}

Test(feed, loading_server_is_not_one_that_refuses_tracking)
{
    fake_open(&fake);
    open_with(fake.port, CALM, (struct node_options){0});
    fake_accept(&fake);
    fake_expect(&fake, "PING\r\n");
    fake_say(&fake, FAKE_HELLO "+OK\r\n+OK\r\n$0\r\n\r\n-LOADING\r\n");
    fake_greet_fill(&fake);
    WAIT_FOR(feed_is_up(feed));
    cr_assert_eq(stats().refusals, 0);
    close_fake();
}

static int changes;

static void drop_all(void *ctx)
{
    (void)ctx;
    changes++;
    l1_drop_all(l1);
}

Test(feed, another_server_process_voids_everything_before_the_cover_is_up_again)
{
    redis_start(&redis, "");
    open_with(redis.port, CALM, (struct node_options){.changed = drop_all});
    WAIT_FOR(feed_is_up(feed));
    redis_do(&redis, "SET a 1");
    fill("a");
    redis_kill(&redis);
    WAIT_FOR(stats().losses == 1);
    redis_spawn(&redis);
    WAIT_FOR(feed_is_up(feed));
    cr_assert_eq(changes, 1);
    cr_assert_not(is_hit("a"));
    close_redis();
}

Test(feed, stale_generation_accepts_no_fill)
{
    struct ask ask = {.call = {.ops = &ASK_OPS, .replies = 1}};
    open_fake(CALM);
    live_turn = NULL;
    (void)node_identify(node, SLICE("2222"), SLICE(""));
    cr_assert_not(feed_is_up(feed));
    cr_assert_eq(feed_submit(feed, &ask.call, SLICE("GET a\r\n")), CONN_DOWN);
    feed_flush(feed);
    cr_assert_eq(stats().losses, 1);
    cr_assert_not(l1_cover_is_up(l1, 1));
    close_fake();
}
