/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cluster.c: in front of a real cluster the proxy is one server: every key reaches its node, L1
 * hears of changes on all of them, and a slot that moves, or is moving, is followed in order.
 */
#include "cluster_scene.h"

#include "../support/cleanup.h"
#include "../support/fake.h"

TestSuite(cluster);

/* ---- Which node ----------------------------------------------------------------------------- */

SCENARIO(cluster, each_key_reaches_the_node_that_owns_it)
{
    struct scene s = scene_start();

    for (int i = 0; i < 3; i++) {
        const char *key = key_of(&s, i, "k");
        expect(s.c, "+OK", "SET %s v%d", key, i);
        expect(s.cluster->node[i]->direct, cleanup_printf("$v%d", i), "GET %s", key);
        expect(s.c, cleanup_printf("$v%d", i), "GET %s", key);
        expect(s.c, ":2", "STRLEN %s", key);
    }
    cr_assert_eq(nearside_info(s.proxy, "redirects_moved"), 0);
}

SCENARIO(cluster, keys_of_one_tag_go_together_and_others_are_refused_in_redis_words)
{
    struct scene s = scene_start();

    expect(s.c, "+OK", "SET {a}x v");
    expect(s.c, "+OK", "RENAME {a}x {a}y");
    expect(s.c, "$v", "GET {a}y");
    expect(s.c, "-CROSSSLOT Keys in request don't hash to the same slot", "RENAME %s %s",
           key_of(&s, 0, "x"), key_of(&s, 1, "y"));
    expect(s.c, "-ERR wrong number of arguments for 'smove' command", "SMOVE %s %s",
           key_of(&s, 0, "x"), key_of(&s, 1, "y"));
    expect(s.c, "nil", "GET {a}x");
}

SCENARIO(cluster, select_is_answered_by_the_cluster)
{
    struct scene s = scene_start();

    expect(s.c, "+OK", "SELECT 0");
    expect(s.c, "-ERR SELECT is not allowed in cluster mode...", "SELECT 1");
    expect(s.c, "nil", "GET %s", key_of(&s, 1, "k"));
}

SCENARIO(cluster, what_comes_before_the_first_map_waits_for_it)
{
    static const struct {
        const char *request, *want;
    } early[] = {
        {"INFO", "$..."},
        {"SET k v", "+OK"},
        {"MGET j j", "[nil nil]"},
        {"SELECT 0", "+OK"},
        {"HELLO 2", "[$server ..."},
        {"EVAL 'return 1' 0", ":1"},
        {"CLUSTER KEYSLOT k", ":7629"},
        {"CLUSTER COUNTKEYSINSLOT 1", ":0"},
    };
    enum { N = sizeof(early) / sizeof(early[0]) };
    struct client *clients[N];
    struct cluster *cluster = cluster_start(3, 0, NULL);

    redis_freeze(cluster->node[0]);
    struct nearside *proxy =
        nearside_start(cluster->node[0]->port, "upstream.mode=cluster",
                       "upstream.connect_timeout=30s", "proxy.cluster_facade=yes", NULL);
    for (size_t i = 0; i < N; i++) {
        clients[i] = nearside_connect(proxy);
        cr_assert(client_send_text(clients[i], cleanup_printf("PING\r\n%s\r\n", early[i].request)));
        expect_next(clients[i], "+PONG"); /* both were read: had one been refused, it is by now */
    }
    redis_thaw(cluster->node[0]);
    for (size_t i = 0; i < N; i++) {
        expect_next(clients[i], early[i].want);
    }
}

SCENARIO(cluster, without_a_map_it_says_so_after_connect_timeout)
{
    struct redis *r = cluster_start(3, 0, NULL)->node[0];

    redis_freeze(r);
    struct nearside *n =
        nearside_start(r->port, "upstream.mode=cluster", "upstream.connect_timeout=100ms", NULL);
    struct client *c = nearside_connect(n);
    expect(c, "-UPSTREAM no node of the cluster is known", "GET k");
    expect(c, "-UPSTREAM no node of the cluster is known", "INFO");
    expect(c, "+PONG", "PING");
    cr_assert_eq(nearside_info(n, "topology_version"), 0);
    redis_thaw(r);
}

/* ---- L1 ------------------------------------------------------------------------------------- */

SCENARIO(cluster, l1_keeps_values_of_all_nodes_and_hears_of_their_changes)
{
    struct scene s = scene_start();

    for (int i = 0; i < 3; i++) {
        const char *key = key_of(&s, i, "k");
        expect(s.cluster->node[i]->direct, "+OK", "SET %s old", key);
        warm(&s, key, "$old");
        long long gets = redis_calls(s.cluster->node[i], "get");
        expect(s.c, "$old", "GET %s", key);
        cr_assert_eq(redis_calls(s.cluster->node[i], "get"), gets);
        expect(s.cluster->node[i]->direct, "+OK", "SET %s new", key);
        await_reply(s.c, "$new", 2000, "GET %s", key);
    }
}

SCENARIO(cluster, a_script_is_fenced_on_its_node)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 2, "k");

    expect(s.c, "+OK", "SET %s 1", key);
    for (int i = 2; i < 20; i++) {
        warm(&s, key, cleanup_printf("$%d", i - 1));
        expect(s.c, cleanup_printf(":%d", i), "EVAL 'return redis.call(\"INCR\",KEYS[1])' 1 %s",
               key);
        expect(s.c, cleanup_printf("$%d", i), "GET %s", key);
    }
}

/* ---- Slots that move ------------------------------------------------------------------------ */

SCENARIO(cluster, a_slot_that_has_moved_is_followed_at_once_and_l1_forgets_it)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 0, "k");
    int slot = cluster_slot(s.cluster, key);

    expect(s.c, "+OK", "SET %s before", key);
    warm(&s, key, "$before");
    cluster_move_slot(s.cluster, slot, 1);
    expect(s.c, ":8", "APPEND %s --", key);
    expect(s.c, "$before--", "GET %s", key);
    expect(s.cluster->node[1]->direct, "+OK", "SET %s after", key);
    await_reply(s.c, "$after", 2000, "GET %s", key);
    warm(&s, key, "$after");
    expect(s.cluster->node[1]->direct, "+OK", "SET %s last", key);
    await_reply(s.c, "$last", 2000, "GET %s", key);
}

static void warm_absent(const struct scene *s, const char *key)
{
    long long hits = nearside_info(s->proxy, "l1_negative_hits");

    for (int64_t end = now_ms() + 5000;
         nearside_info(s->proxy, "l1_negative_hits") == hits && now_ms() < end;) {
        expect(s->c, "nil", "GET %s", key);
    }
    cr_assert_gt(nearside_info(s->proxy, "l1_negative_hits"), hits);
}

/* That a key is not there is announced by nobody when it is created on another node. */
SCENARIO(cluster, that_a_key_does_not_exist_is_forgotten_with_its_slot)
{
    struct scene s = {.cluster = cluster_start(3, 0, NULL)};
    s.proxy = nearside_start(s.cluster->node[0]->port, "upstream.mode=cluster",
                             "upstream.topology_refresh=60s", "l1.negative_ttl=60s", NULL);
    s.c = nearside_connect(s.proxy);
    const char *key = key_of(&s, 0, "absent");
    const char *other = key_of(&s, 0, "other");
    int slot = cluster_slot(s.cluster, key);
    struct client *direct = s.cluster->node[1]->direct;

    await_reply(s.c, "nil", 5000, "GET %s", key);
    warm_absent(&s, key);
    cluster_move_begin(s.cluster, slot, 0, 1);
    expect(direct, "+OK", "ASKING");
    expect(direct, "+OK", "SET %s v", key);
    expect(s.c, ":0", "STRLEN %s", other); /* ASK */
    expect(s.c, "$v", "GET %s", key);

    expect(direct, "+OK", "ASKING");
    expect(direct, ":1", "DEL %s", key);
    cluster_move_end(s.cluster, slot, 0, 1);
    expect(s.c, ":0", "STRLEN %s", other);
    warm_absent(&s, key);
    cluster_move_slot(s.cluster, slot, 2);
    expect(s.cluster->node[2]->direct, "+OK", "SET %s v", key);
    expect(s.c, ":0", "STRLEN %s", other); /* MOVED */
    expect(s.c, "$v", "GET %s", key);
}

SCENARIO(cluster, keys_of_a_slot_on_its_way_are_found_where_they_are)
{
    struct scene s = scene_start();
    const char *here = key_of(&s, 0, "here");
    int slot = cluster_slot(s.cluster, here);
    const char *there = key_of(&s, 0, "there");

    expect(s.c, "+OK", "SET %s 1", here);
    expect(s.c, "+OK", "SET %s 2", there);
    warm(&s, here, "$1");
    cluster_move_begin(s.cluster, slot, 0, 1);
    expect(s.c, "$1", "GET %s", here);
    cluster_move_keys(s.cluster, slot, 0, 1);
    expect(s.c, "$1", "GET %s", here);
    expect(s.c, ":3", "INCR %s", there);
    expect(s.c, "$3", "GET %s", there);
    expect(s.c, "[$1 $3]", "MGET %s %s", here, there);
    cr_assert_gt(nearside_info(s.proxy, "redirects_ask"), 0);
    cluster_move_end(s.cluster, slot, 0, 1);
    expect(s.c, ":4", "INCR %s", there);
    expect(s.c, "$4", "GET %s", there);
    warm(&s, there, "$4");
}

/* A pipeline of one client keeps its order, whatever is refused where. */
SCENARIO(cluster, a_pipeline_that_meets_a_moving_slot_stays_in_order)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 0, "k");
    int slot = cluster_slot(s.cluster, key);
    int at = 0;

    for (int round = 0; round < 6; round++) {
        int from = at, to = (at + 1) % 3;
        expect(s.c, "+OK", "SET %s x", key);
        cluster_move_begin(s.cluster, slot, from, to);
        for (int i = 0; i < 50; i++) {
            cr_assert(client_command(s.c, "APPEND %s .", key));
            cr_assert(client_command(s.c, "STRLEN %s", key));
            if (i == 20) {
                cluster_move_keys(s.cluster, slot, from, to);
            }
            if (i == 40) {
                cluster_move_end(s.cluster, slot, from, to);
            }
        }
        for (int i = 0; i < 50; i++) {
            expect_next(s.c, cleanup_printf(":%d", i + 2));
            expect_next(s.c, cleanup_printf(":%d", i + 2));
        }
        at = to;
    }
    cr_assert_gt(nearside_info(s.proxy, "redirects_moved"), 0);
}

/* ---- What redirects cost ---------------------------------------------------------------------- */

#define MANY 12

/* Keys of as many slots of node 0. */
static void choose_many(const struct scene *s, const char *keys[MANY])
{
    for (int i = 0, n = 0; n < MANY; i++) {
        const char *key = cleanup_printf("n{%d}", i);
        if (cluster_owner(s->cluster, cluster_slot(s->cluster, key)) == 0) {
            keys[n++] = key;
        }
    }
}

/* How many the nodes have given. */
static long long given_moved(const struct scene *s)
{
    long long given = 0;
    for (int i = 0; i < s->cluster->n; i++) {
        given += redis_errors(s->cluster->node[i], "MOVED");
    }
    return given;
}

struct road {
    const struct scene *scene;
    const char *key;
};

/* Two commands that undo each other are not redirected? */
static bool goes_straight(void *ctx)
{
    const struct road *road = ctx;
    long long moved = nearside_info(road->scene->proxy, "redirects_moved");

    (void)ask(road->scene->c, "INCR %s", road->key);
    (void)ask(road->scene->c, "DECR %s", road->key);
    return nearside_info(road->scene->proxy, "redirects_moved") == moved;
}

SCENARIO(cluster, many_redirects_at_once_are_counted_and_are_few_refreshes)
{
    struct scene s = {.cluster = cluster_start(3, 0, NULL)};
    s.proxy = nearside_start(s.cluster->node[0]->port, "upstream.mode=cluster",
                             "upstream.topology_refresh=60s", NULL);
    s.c = nearside_connect(s.proxy);
    const char *keys[MANY];

    await_reply(s.c, "nil", 5000, "GET k");
    choose_many(&s, keys);
    struct road road = {&s, keys[0]};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < MANY; i++) {
            cluster_move_slot(s.cluster, cluster_slot(s.cluster, keys[i]), 1 + round);
        }
        long long refreshes = nearside_info(s.proxy, "topology_refreshes");
        long long moved = nearside_info(s.proxy, "redirects_moved");
        long long given = given_moved(&s);
        const char *pipeline = "";
        for (int i = 0; i < MANY; i++) {
            pipeline = cleanup_printf("%sINCR %s\r\n", pipeline, keys[i]);
        }
        cr_assert(client_send_text(s.c, pipeline));
        for (int i = 0; i < MANY; i++) {
            expect_next(s.c, cleanup_printf(":%d", round + 1));
        }
        /* fewer than MANY where a refresh that the moves brought about came before */
        cr_assert_gt(given_moved(&s), given);
        cr_assert_eq(nearside_info(s.proxy, "redirects_moved") - moved, given_moved(&s) - given);
        nearside_await_info(s.proxy, "topology_refreshes", refreshes + 1, refreshes + 3, 5000);
        cr_assert(await(goes_straight, &road, 5000 * slowdown()));
        expect(s.c, cleanup_printf(":%d", round + 2), "INCR %s", keys[0]);
        expect(s.c, cleanup_printf(":%d", round + 1), "DECR %s", keys[0]);
    }
}

SCENARIO(cluster, each_kind_of_redirect_is_counted)
{
    struct scene s = scene_start();
    const char *here = key_of(&s, 0, "here");
    const char *there = key_of(&s, 0, "there");
    int slot = cluster_slot(s.cluster, here);

    expect(s.c, "+OK", "SET %s 1", here);
    cluster_move_begin(s.cluster, slot, 0, 1);
    long long ask = nearside_info(s.proxy, "redirects_ask");
    for (int i = 1; i <= 5; i++) {
        expect(s.c, cleanup_printf(":%d", i), "INCR %s", there);
    }
    cr_assert_eq(nearside_info(s.proxy, "redirects_ask"), ask + 5);
    cr_assert(client_command(s.c, "RENAME %s %s", here, there));
    nearside_await_info(s.proxy, "redirects_tryagain", 1, 100, 5000);
    cluster_move_keys(s.cluster, slot, 0, 1);
    expect_next(s.c, "+OK");
    cluster_move_end(s.cluster, slot, 0, 1);
    expect(s.c, ":2", "INCR %s", there);
}

/* ---- Connections ------------------------------------------------------------------------------ */

static bool has_no_clients(void *ctx)
{
    return redis_info(ctx, "connected_clients") == 1; /* the test's own */
}

/* Nobody but Redis may send a connection of Nearside, and the password that it says, to where it likes. */
SCENARIO(cluster, a_script_cannot_make_nearside_connect_elsewhere)
{
    static const struct fake_rule rules[] = {{.prefix = NULL}};
    static const char *const commands[] = {"EVAL_RO \"", "EVAL \"",
                                           "EVAL \"#!lua flags=no-writes\\n"};
    static const char *const hosts[] = {"127.0.0.1", ""};
    static const char *const words[] = {"MOVED", "ASK"};
    struct scene s = scene_start();
    struct fake *fake = fake_start(rules);
    struct client *other = nearside_connect(s.proxy);
    const char *key = key_of(&s, 1, "k");

    expect(other, "+OK", "SET %s mine", key);
    for (size_t i = 0; i < 3 * 2 * 2; i++) {
        const char *script =
            cleanup_printf("return redis.error_reply('%s %d %s:%d')", words[i % 2],
                           cluster_slot(s.cluster, key), hosts[i / 2 % 2], fake_port(fake));
        struct client *c = nearside_connect(s.proxy);
        const char *got = ask(c, "%s%s\" 1 %s", commands[i / 4], script, key);
        cr_assert(strncmp(got + 1, words[i % 2], strlen(words[i % 2])) == 0, "%s", got);
        expect(other, "$mine", "GET %s", key);
        expect(other, ":4", "STRLEN %s", key);
    }
    cr_assert_eq(fake_seen(fake, ""), 0);
}

SCENARIO(cluster, a_script_that_wrote_is_not_executed_again_whatever_it_says)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 1, "k");
    const char *const said[] = {
        "TRYAGAIN lock is busy",
        cleanup_printf("MOVED %d 127.0.0.1:%d", cluster_slot(s.cluster, key),
                       s.cluster->node[1]->port),
        cleanup_printf("MOVED %d :%d", cluster_slot(s.cluster, key), s.cluster->node[1]->port),
        cleanup_printf("ASK %d 127.0.0.1:%d", cluster_slot(s.cluster, key),
                       s.cluster->node[1]->port),
    };

    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
        expect(s.c, cleanup_printf("-%s", said[i]),
               "EVAL \"redis.call('INCR',KEYS[1]) return redis.error_reply('%s')\" 1 %s", said[i],
               key);
        expect(s.c, cleanup_printf("$%zu", i + 1), "GET %s", key);
    }
}

/* It was refused, and another one was answered since. */
SCENARIO(cluster, what_nobody_waits_for_any_longer_is_not_sent_again)
{
    struct scene s = scene_start_with(0, "upstream.command_timeout=100ms");
    const char *a = key_of(&s, 0, "a");
    const char *b = key_of(&s, 0, "b");
    int slot = cluster_slot(s.cluster, a);
    int from = 0;
    int to = 1;

    for (int i = 0; i < 2; i++, from = to, to = (to + 1) % 3) {
        struct client *c = nearside_connect(s.proxy);
        expect(c, "+OK", "SET %s 0", b);
        (void)ask(c, "DEL %s", a);
        cluster_move_begin(s.cluster, slot, from, to);
        long long tries = nearside_info(s.proxy, "redirects_tryagain");
        cr_assert(client_send_text(c, cleanup_printf("MSET %s old %s old\r\n", a, b)));
        nearside_await_info(s.proxy, "redirects_tryagain", tries + 1, 1000000, 5000);
        if (i == 0) {
            cr_assert(strstr(client_read(c), "no reply within 100 ms") != NULL);
        } else {
            long long connected = nearside_info(s.proxy, "clients_connected");
            client_close(c);
            nearside_await_info(s.proxy, "clients_connected", 1, connected - 1, 5000);
        }
        expect(s.c, "+OK", "SET %s new", b);
        cluster_move_keys(s.cluster, slot, from, to);
        cluster_move_end(s.cluster, slot, from, to);
        (void)ask(s.c, "EXISTS %s %s", a, b);
        expect(s.c, "$new", "GET %s", b);
        expect(s.c, "nil", "GET %s", a);
    }
}

SCENARIO(cluster, who_serves_nothing_any_more_has_no_connections_soon)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 0, "k");
    int slot = cluster_slot(s.cluster, key);
    int added = cluster_add(s.cluster);

    cr_assert(has_no_clients(s.cluster->node[added]), "nobody asked for anything there");
    cluster_move_slot(s.cluster, slot, added);
    expect(s.c, "+OK", "SET %s v", key);
    warm(&s, key, "$v");
    expect(s.c, "+OK", "MULTI"); /* a connection of its own, which is kept ready after that */
    expect(s.c, "+QUEUED", "STRLEN %s", key);
    expect(s.c, "[:1]", "EXEC");
    cr_assert_not(has_no_clients(s.cluster->node[added]));
    cluster_move_slot(s.cluster, slot, 0);
    expect(s.c, ":1", "STRLEN %s", key);
    cr_assert(await(has_no_clients, s.cluster->node[added], 10000), "%s",
              redis_clients(s.cluster->node[added]));
}

/* ---- One that stands still ------------------------------------------------------------------ */

SCENARIO(cluster, a_frozen_node_delays_nobody_who_does_not_need_it)
{
    struct scene s = scene_start();
    struct client *stuck = nearside_connect(s.proxy);
    const char *key = key_of(&s, 1, "k");
    const char *frozen = key_of(&s, 0, "n");

    expect(s.c, "+OK", "SET %s v", key);
    expect(stuck, ":1", "INCR %s", frozen);
    redis_freeze(s.cluster->node[0]);
    cr_assert(client_command(stuck, "INCR %s", frozen));
    for (int i = 0; i < 20; i++) {
        int64_t began = now_ms();
        expect(s.c, "+OK", "SET %s v%d", key, i);
        expect(s.c, cleanup_printf("$v%d", i), "GET %s", key);
        expect(s.c, ":1", "EVAL 'return 1' 1 %s", key);
        cr_assert_lt(now_ms() - began, 1000);
    }
    redis_thaw(s.cluster->node[0]);
    expect_next(stuck, ":2");
}

/* ---- Replicas ------------------------------------------------------------------------------- */

SCENARIO(cluster, reads_go_to_replicas_where_that_is_asked_for_and_gets_never_do)
{
    struct scene s = scene_start_with(3, "upstream.read_from=prefer-replica");
    const char *key = key_of(&s, 0, "k");

    expect(s.c, "+OK", "SET %s value", key);
    await_reply(s.c, ":5", 5000, "STRLEN %s", key);
    for (int64_t end = now_ms() + 5000; redis_calls(s.cluster->node[3], "strlen") == 0;) {
        cr_assert_lt(now_ms(), end, "no read has come to the replica");
        await_reply(s.c, ":5", 5000, "STRLEN %s", key);
    }
    long long there = redis_calls(s.cluster->node[0], "strlen");
    for (int i = 0; i < 20; i++) {
        await_reply(s.c, ":5", 5000, "STRLEN %s", key);
        expect(s.c, "$value", "GET %s", key);
    }
    cr_assert_eq(redis_calls(s.cluster->node[0], "strlen"), there);
    cr_assert_eq(redis_calls(s.cluster->node[3], "get"), 0);
    redis_stop(s.cluster->node[3]);
    expect(s.c, ":5", "STRLEN %s", key);
}

SCENARIO(cluster, without_replicas_reads_that_insist_on_one_are_refused)
{
    struct scene s = scene_start_with(0, "upstream.read_from=replica");
    const char *key = key_of(&s, 0, "k");

    expect(s.c, "+OK", "SET %s value", key);
    expect(s.c, "-UPSTREAM no replica...", "STRLEN %s", key);
    expect(s.c, "$value", "GET %s", key);
}

/* A node that says of itself that it owns all, in so many shares with 60 replicas each. */
static const char *slots_of_many(int shares)
{
    char *text = cleanup_alloc(1024 * 1024);
    int n = sprintf(text, "*%d\r\n", shares);

    for (int share = 0; share < shares; share++) {
        n += sprintf(text + n, "*63\r\n:%d\r\n:%d\r\n*3\r\n$0\r\n\r\n:7000\r\n$2\r\nid\r\n",
                     share * CLUSTER_SLOTS / shares, (share + 1) * CLUSTER_SLOTS / shares - 1);
        for (int i = 0; i < 60; i++) {
            n += sprintf(text + n, "*3\r\n$0\r\n\r\n:%d\r\n$2\r\nid\r\n", 8000 + share * 60 + i);
        }
    }
    return text;
}

SCENARIO(cluster, that_room_for_nodes_is_running_out_is_said_in_time)
{
    static const int shares[] = {6, 7}; /* with the owner: 361 and 421 nodes */

    for (int i = 0; i < 2; i++) {
        const struct fake_rule rules[] = {
            {"CLUSTER INFO", "$16\r\ncluster_state:ok\r\n", 0, FAKE_KEEP},
            {"CLUSTER SHARDS", "-ERR unknown\r\n", 0, FAKE_KEEP},
            {"CLUSTER SLOTS", slots_of_many(shares[i]), 0, FAKE_KEEP},
            {NULL, NULL, 0, FAKE_KEEP},
        };
        struct fake *f = fake_start(rules);
        struct nearside *n = nearside_start(fake_port(f), "upstream.mode=cluster", NULL);
        nearside_await_info(n, "topology_slots_served", CLUSTER_SLOTS, CLUSTER_SLOTS, 5000);
        if (i == 1) {
            nearside_await_log(n, "nodes, and 512 can be known");
        }
        cr_assert_eq(nearside_log_lines(n, "nodes, and 512 can be known"), i);
        nearside_stop(n, 5000);
    }
}
