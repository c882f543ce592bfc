/* SPDX-License-Identifier: Apache-2.0
 *
 * test_upstream.c: what upstream.h promises about the lanes of a worker.
 */
#include "../../../upstream/upstream.h"

#include "../live.h"

static struct topology *topology;
static struct upstream *up;
static struct redis redis;

static void flush_and_tick(void)
{
    upstream_flush(up);
    upstream_tick(up, live_now());
}

static void open_up(int port)
{
    live_start();
    char text[8];
    snprintf(text, sizeof(text), "%d", port);
    topology = topology_create(&(struct topology_options){
        .node =
            {.host = "127.0.0.1", .port = text, .connect_timeout_ms = 5000, .dead_after_ms = 5000},
    });
    up = upstream_create(&(struct upstream_options){
        .loop = live_loop,
        .topology = topology,
        .now = live_now,
        .read_buffer = live_buffer,
        .read_size = sizeof(live_buffer),
        .db = 3,
    });
    live_turn = flush_and_tick;
}

static void close_up(void)
{
    upstream_destroy(up);
    topology_destroy(topology);
    live_stop();
}

static void start(void)
{
    redis_start(&redis, "");
    open_up(redis.port);
}

static void stop(void)
{
    close_up();
    redis_stop(&redis);
}

static struct conn *lane_to(uint32_t db, bool resp3, enum lane_kind kind)
{
    return upstream_lane(up, (struct lane_id){.resp3 = resp3, .kind = kind, .db = db});
}

static struct conn *find_lane(uint32_t db, bool resp3, enum lane_kind kind)
{
    return upstream_find_lane(up, (struct lane_id){.resp3 = resp3, .kind = kind, .db = db});
}

struct visit {
    size_t lanes;
    size_t bulk;
};

static void count_lane(const struct conn *conn, struct lane_id id, void *ctx)
{
    struct visit *visit = ctx;
    cr_assert_not_null(conn);
    visit->lanes++;
    visit->bulk += id.kind == LANE_BULK;
}

static struct visit count_lanes(void)
{
    struct visit visit = {0};
    upstream_each(up, count_lane, &visit);
    return visit;
}

Test(upstream, destroy_accepts_null)
{
    upstream_destroy(NULL);
}

Test(upstream, lane_is_opened_on_demand_and_shared)
{
    start();
    cr_assert_eq(count_lanes().lanes, 0);
    struct conn *lane = lane_to(0, false, LANE_NORMAL);
    cr_assert_neq(conn_state(lane), CONN_IDLE);
    cr_assert(conn_accepts(lane));
    cr_assert_eq(lane_to(0, false, LANE_NORMAL), lane);
    WAIT_FOR(conn_state(lane) == CONN_UP);
    cr_assert_eq(lane_to(0, false, LANE_NORMAL), lane);
    cr_assert_eq(count_lanes().lanes, 1);
    stop();
}

Test(upstream, find_lane_opens_none)
{
    start();
    cr_assert_null(find_lane(0, false, LANE_NORMAL));
    cr_assert_eq(count_lanes().lanes, 0);
    struct conn *lane = lane_to(0, false, LANE_NORMAL);
    cr_assert_eq(find_lane(0, false, LANE_NORMAL), lane);
    cr_assert_null(find_lane(0, false, LANE_BULK));
    cr_assert_null(find_lane(0, true, LANE_NORMAL));
    cr_assert_null(find_lane(1, false, LANE_NORMAL));
    stop();
}

Test(upstream, db_protocol_and_kind_have_lanes_of_their_own)
{
    start();
    struct conn *lanes[] = {
        lane_to(0, false, LANE_NORMAL),
        lane_to(0, false, LANE_BULK),
        lane_to(0, true, LANE_NORMAL),
        lane_to(1, false, LANE_NORMAL),
    };
    for (size_t i = 0; i < ARRAY_LEN(lanes); i++) {
        for (size_t k = 0; k < i; k++) {
            cr_assert_neq(lanes[i], lanes[k]);
        }
        WAIT_FOR(conn_state(lanes[i]) == CONN_UP);
    }
    cr_assert_eq(count_lanes().lanes, ARRAY_LEN(lanes));
    cr_assert_eq(count_lanes().bulk, 1);
    stop();
}

Test(upstream, lanes_speak_their_db_and_protocol)
{
    struct ask asks[3] = {0};
    start();
    redis_do(&redis, "HSET h f v");
    redis_do(&redis, "SELECT 1");
    redis_do(&redis, "SET k one");
    cr_assert_eq(ask_line(lane_to(0, false, LANE_NORMAL), &asks[0], "HGETALL h"), CONN_OK);
    cr_assert_eq(ask_line(lane_to(0, true, LANE_NORMAL), &asks[1], "HGETALL h"), CONN_OK);
    cr_assert_eq(ask_line(lane_to(1, false, LANE_BULK), &asks[2], "GET k"), CONN_OK);
    WAIT_FOR(asks[0].done && asks[1].done && asks[2].done);
    cr_assert_str_eq(asks[0].got, "*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    cr_assert_str_eq(asks[1].got, "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    cr_assert_str_eq(asks[2].got, "$3\r\none\r\n");
    stop();
}

Test(upstream, lane_of_a_refused_db_tells_why_and_is_closed)
{
    struct ask ask = {0};
    start();
    struct conn *good = lane_to(0, false, LANE_NORMAL);
    WAIT_FOR(conn_state(good) == CONN_UP);
    for (uint32_t db = 1000; db < 1010; db++) {
        struct conn *lane = lane_to(db, false, LANE_NORMAL);
        ask = (struct ask){0};
        cr_assert_eq(ask_line(lane, &ask, "PING"), CONN_OK);
        live_turn = NULL;
        WAIT_FOR(ask.lost);
        live_turn = flush_and_tick;
        cr_assert_eq(strncmp(conn_error(lane), "ERR ", 4), 0, "%s", conn_error(lane));
        cr_assert_eq(conn_state(lane), CONN_BACKOFF);
    }
    WAIT_FOR(count_lanes().lanes == 1);
    cr_assert_eq(lane_to(0, false, LANE_NORMAL), good);
    stop();
}

Test(upstream, lane_of_a_node_that_is_down_stays)
{
    open_up(live_free_port());
    struct conn *lane = lane_to(7, false, LANE_NORMAL);
    WAIT_FOR(conn_state(lane) == CONN_BACKOFF);
    live_run_for(100);
    cr_assert_eq(count_lanes().lanes, 1);
    cr_assert_eq(lane_to(7, false, LANE_NORMAL), lane);
    cr_assert_not(conn_accepts(lane));
    close_up();
}

static struct ask second_try;

static void look_for_another_lane(struct ask *ask)
{
    (void)ask;
    struct conn *lane = lane_to(5, true, LANE_BULK);
    cr_assert_not_null(lane);
    cr_assert_not(conn_accepts(lane));
    lane = lane_to(1, false, LANE_NORMAL);
    cr_assert_eq(ask_line(lane, &second_try, "PING"), CONN_DOWN);
}

Test(upstream, destroy_ends_all_calls_as_lost)
{
    struct ask first = {.then = look_for_another_lane};
    struct ask second = {.then = look_for_another_lane};
    start();
    struct conn *lane = lane_to(0, false, LANE_NORMAL);
    WAIT_FOR(conn_state(lane) == CONN_UP);
    cr_assert_eq(ask_line(lane, &first, "DEBUG SLEEP 0.01"), CONN_OK);
    upstream_flush(up);
    lane = lane_to(1, false, LANE_NORMAL);
    cr_assert_eq(ask_line(lane, &second, "PING"), CONN_OK);
    stop();
    cr_assert(first.lost && second.lost);
    cr_assert_eq(second.loss, LOSS_UNSENT);
}

/* ---- Lanes are closed when nobody uses them --------------------------------------------------- */

Test(upstream, lane_to_the_one_node_stays_in_the_usual_db_and_is_closed_in_others)
{
    start();
    live_turn = NULL; /* the clock is ours */
    int64_t now = live_now();
    for (uint32_t db = 0; db < 8; db++) {
        struct conn *lane = lane_to(db, db % 2 == 0, db < 6 ? LANE_NORMAL : LANE_BULK);
        WAIT_FOR(conn_state(lane) == CONN_UP);
    }
    upstream_tick(up, now);
    upstream_tick(up, now + 60000);
    cr_assert_eq(count_lanes().lanes, 8);
    upstream_tick(up, now + 60001);
    cr_assert_eq(count_lanes().lanes, 1);
    cr_assert_not_null(find_lane(3, false, LANE_NORMAL));
    stop();
}

static void start_cluster(void)
{
    char text[8];
    redis_start(&redis, "");
    open_up(redis.port);
    upstream_destroy(up);
    topology_destroy(topology);
    (void)snprintf(text, sizeof(text), "%d", redis.port);
    topology = topology_create(&(struct topology_options){
        .is_cluster = true, .node = {.connect_timeout_ms = 5000, .dead_after_ms = 5000}});
    up = upstream_create(&(struct upstream_options){
        .loop = live_loop,
        .topology = topology,
        .now = live_now,
        .read_buffer = live_buffer,
        .read_size = sizeof(live_buffer),
    });
    const struct topology_range all = {
        .first = 0,
        .last = TOPOLOGY_SLOTS - 1,
        .primary = topology_find(topology, SLICE("127.0.0.1"), slice_str(text))};
    topology_apply(topology, &all, 1);
}

Test(upstream, lane_in_a_cluster_is_closed_a_minute_after_its_last_use)
{
    struct ask ask = {0}, probe = {0};
    start_cluster();
    struct conn *lane = lane_to(0, false, LANE_NORMAL);
    WAIT_FOR(conn_state(lane) == CONN_UP);
    live_turn = NULL; /* the clock is ours from here */
    cr_assert_eq(ask_line(lane, &ask, "PING"), CONN_OK);
    upstream_flush(up);
    WAIT_FOR(ask.done);
    int64_t used = live_now();
    upstream_tick(up, used);
    upstream_tick(up, used + 60000);
    cr_assert_eq(find_lane(0, false, LANE_NORMAL), lane);
    probe.call = (struct call){.ops = &ASK_OPS, .replies = 1};
    cr_assert(upstream_probe(up, 0, 0, &probe.call, SLICE("*1\r\n$4\r\nPING\r\n")));
    upstream_flush(up);
    WAIT_FOR(probe.done); /* which was no use */
    upstream_tick(up, used + 60001);
    cr_assert_null(find_lane(0, false, LANE_NORMAL));
    cr_assert_not(upstream_probe(up, 0, 0, &probe.call, SLICE("")), "none is opened for that");
    cr_assert_eq(count_lanes().lanes, 0);
    stop();
}

Test(upstream, lane_in_a_cluster_stays_as_long_as_it_is_used)
{
    start_cluster();
    struct conn *lane = lane_to(0, false, LANE_NORMAL);
    WAIT_FOR(conn_state(lane) == CONN_UP);
    live_turn = NULL;
    int64_t now = live_now();
    for (int i = 0; i < 10; i++) {
        struct ask ask = {0};
        cr_assert_eq(ask_line(lane, &ask, "PING"), CONN_OK);
        upstream_flush(up);
        WAIT_FOR(ask.done);
        upstream_tick(up, now += 30000);
        cr_assert_eq(find_lane(0, false, LANE_NORMAL), lane);
    }
    stop();
}
