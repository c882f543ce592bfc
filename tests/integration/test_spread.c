/* SPDX-License-Identifier: Apache-2.0
 *
 * test_spread.c: commands that concern several nodes of a cluster (docs/cluster.md), and the cluster of
 * one node that clients may see. A real cluster of three primaries; what was done where is asked of its
 * nodes.
 */
#include "../support/await.h"
#include "../support/cluster.h"
#include "../support/nearside.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODES 3

struct scene {
    struct cluster *cluster;
    struct nearside *proxy;
    struct client *c;
    const char *key[NODES]; /* one of each node's */
};

static struct scene begin(int replicas, const char *set)
{
    struct scene s = {.cluster = cluster_start(NODES, replicas, NULL)};
    s.proxy = nearside_start(s.cluster->node[0]->port, "upstream.mode=cluster",
                             "upstream.topology_refresh=200ms", set, NULL);
    s.c = nearside_connect(s.proxy);
    for (int i = 0; i < NODES; i++) {
        s.key[i] = cluster_key(s.cluster, i, "key");
    }
    await_reply(s.c, "+OK", 10000, "SET %s 0", s.key[0]);
    return s;
}

/* Asks the node itself. */
static const char *at(struct scene *s, int node, const char *command)
{
    return ask(s->cluster->node[node]->direct, "%s", command);
}

/* ---- Split by slot -------------------------------------------------------------------------- */

SCENARIO(spread, mset_and_mget_cover_all_nodes_in_order)
{
    struct scene s = begin(0, NULL);
    expect(s.c, "+OK", "MSET %s a %s b %s c", s.key[2], s.key[0], s.key[1]);
    expect(s.cluster->node[2]->direct, "$a", "GET %s", s.key[2]);
    expect(s.cluster->node[0]->direct, "$b", "GET %s", s.key[0]);
    expect(s.c, "[$b $c $a nil $b]", "MGET %s %s %s nosuchkey %s", s.key[0], s.key[1], s.key[2],
           s.key[0]);
    expect(s.c, "[$b $a]", "MGET %s %s", s.key[0], s.key[2]);
    cr_assert_geq(nearside_info(s.proxy, "fanouts"), 3);
}

SCENARIO(spread, mget_is_answered_from_l1_as_far_as_it_has_the_keys)
{
    struct scene s = begin(0, NULL);
    expect(s.c, "+OK", "MSET %s a %s b %s c", s.key[0], s.key[1], s.key[2]);
    expect(s.c, "[$a $b $c]", "MGET %s %s %s", s.key[0], s.key[1], s.key[2]);
    int64_t until = now_ms() + 10000;
    long long before;
    do { /* the fill connections of this worker come up one by one */
        cr_assert_lt(now_ms(), until, "no MGET was answered from L1");
        before = nearside_info(s.proxy, "l1_hits");
        expect(s.c, "[$a $b $c]", "MGET %s %s %s", s.key[0], s.key[1], s.key[2]);
    } while (nearside_info(s.proxy, "l1_hits") != before + 3);
    /* And it is told of changes, whoever makes them. */
    expect(s.cluster->node[1]->direct, "+OK", "SET %s new", s.key[1]);
    await_reply(s.c, "[$a $new $c]", 2000, "MGET %s %s %s", s.key[0], s.key[1], s.key[2]);
    expect(s.c, "+OK", "MSET %s 1 %s 2", s.key[0], s.key[2]);
    expect(s.c, "[$1 $new $2]", "MGET %s %s %s", s.key[0], s.key[1], s.key[2]);
}

SCENARIO(spread, counts_are_added_up)
{
    struct scene s = begin(0, NULL);
    expect(s.c, "+OK", "MSET %s a %s b %s c", s.key[0], s.key[1], s.key[2]);
    expect(s.c, ":4", "EXISTS %s %s nosuchkey %s %s", s.key[0], s.key[1], s.key[2], s.key[0]);
    expect(s.c, ":3", "TOUCH %s %s %s", s.key[0], s.key[1], s.key[2]);
    expect(s.c, ":2", "DEL %s %s nosuchkey", s.key[0], s.key[1]);
    expect(s.c, ":1", "UNLINK %s %s %s", s.key[0], s.key[1], s.key[2]);
    expect(s.c, ":0", "EXISTS %s %s %s", s.key[0], s.key[1], s.key[2]);
}

SCENARIO(spread, mget_has_nil_for_what_is_no_string)
{
    struct scene s = begin(0, NULL);
    expect(s.c, ":1", "RPUSH list{x} 1");
    expect(s.c, "[nil $0]", "MGET list{x} %s", s.key[0]);
    expect(s.c, "%...", "HELLO 3");
    expect(s.c, "[_ $0]", "MGET list{x} %s", s.key[0]);
}

SCENARIO(spread, what_redis_refuses_is_refused_in_its_words)
{
    struct scene s = begin(0, NULL);
    expect(s.c, "-ERR wrong number of arguments for 'mset' command", "MSET %s a %s", s.key[0],
           s.key[1]);
    expect(s.c, "-CROSSSLOT Keys in request don't hash to the same slot", "MSETNX %s a %s b",
           s.key[0], s.key[1]);
    expect(s.c, "-CROSSSLOT ...", "RENAME %s %s", s.key[0], s.key[1]);
    expect(s.c, "-CROSSSLOT ...", "SUNION %s %s", s.key[0], s.key[1]);
    expect(s.c, "-CROSSSLOT ...", "EVAL 'return 1' 2 %s %s", s.key[0], s.key[1]);
}

SCENARIO(spread, the_error_of_one_part_is_the_error_of_the_whole)
{
    struct scene s = begin(0, NULL);
    redis_stop(s.cluster->node[1]);
    s.cluster->gone[1] = true;
    await_reply(s.c, "-...", 10000, "GET %s", s.key[1]);
    expect(s.c, "-...", "MGET %s %s", s.key[0], s.key[1]);
    expect(s.c, "-...", "MSET %s 1 %s 2", s.key[0], s.key[1]);
    expect(s.c, "-...", "DEL %s %s", s.key[0], s.key[1]);
}

/* Everything in one write: nothing is awaited in between. */
SCENARIO(spread, what_is_sent_in_one_go_takes_effect_in_order)
{
    struct scene s = begin(0, NULL);
    for (int round = 0; round < 50; round++) {
        client_command(s.c, "SET %s %d", s.key[0], round);
        client_command(s.c, "MSET %s a%d %s b%d", s.key[0], round, s.key[1], round);
        client_command(s.c, "GET %s", s.key[0]);
        client_command(s.c, "APPEND %s x", s.key[1]);
        client_command(s.c, "MGET %s %s", s.key[1], s.key[0]);
        client_command(s.c, "DEL %s %s", s.key[0], s.key[1]);
        client_command(s.c, "EXISTS %s %s", s.key[0], s.key[1]);
        client_command(s.c, "DBSIZE");
        expect_next(s.c, "+OK");
        expect_next(s.c, "+OK");
        expect_next(s.c, cleanup_printf("$a%d", round));
        expect_next(s.c, round < 10 ? ":3" : ":4");
        expect_next(s.c, cleanup_printf("[$b%dx $a%d]", round, round));
        expect_next(s.c, ":2");
        expect_next(s.c, ":0");
        expect_next(s.c, ":0");
    }
}

SCENARIO(spread, thousands_of_keys_and_large_values_pass)
{
    struct scene s = begin(0, NULL);
    size_t size = 1 << 20;
    char *line = malloc(size);
    size_t n = (size_t)snprintf(line, size, "MSET");
    for (int i = 0; i < 5000; i++) {
        n += (size_t)snprintf(line + n, size - n, " many%d %d", i, i);
    }
    expect(s.c, "+OK", "%s", line);
    expect(s.c, ":5001", "DBSIZE");
    n = (size_t)snprintf(line, size, "DEL");
    for (int i = 0; i < 5000; i++) {
        n += (size_t)snprintf(line + n, size - n, " many%d", i);
    }
    expect(s.c, ":5000", "%s", line);
    free(line);
    for (int i = 0; i < NODES; i++) {
        store_value(s.c, s.key[i], 3 << 20);
    }
    expect(s.c, "[$(3145728 bytes) $(3145728 bytes) $(3145728 bytes)]", "MGET %s %s %s", s.key[0],
           s.key[1], s.key[2]);
}

SCENARIO(spread, a_client_that_leaves_leaves_nothing_behind)
{
    struct scene s = begin(0, NULL);
    for (int i = 0; i < 50; i++) {
        struct client *c = nearside_connect(s.proxy);
        for (int k = 0; k < 20; k++) {
            client_command(c, "MSET %s a %s b %s c", s.key[0], s.key[1], s.key[2]);
            client_command(c, "MGET %s %s %s", s.key[0], s.key[1], s.key[2]);
            client_command(c, "KEYS *");
        }
        client_reset(c);
    }
    nearside_await_info(s.proxy, "clients_connected", 1, 2, 10000);
    expect(s.c, "[$a $b $c]", "MGET %s %s %s", s.key[0], s.key[1], s.key[2]);
}

/* ---- Every primary -------------------------------------------------------------------------- */

static void fill(struct scene *s, int n)
{
    for (int i = 0; i < n; i++) {
        expect(s->c, "+OK", "SET fill:%d v", i);
    }
}

SCENARIO(spread, the_keyspace_is_that_of_all_nodes)
{
    struct scene s = begin(0, NULL);
    fill(&s, 100);
    expect(s.c, ":101", "DBSIZE");
    client_command(s.c, "KEYS fill:*");
    cr_assert_eq(client_reply(s.c)->items, 100);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(ask(s.c, "RANDOMKEY")[0], '$');
    }
    expect(s.c, "+OK", "FLUSHALL");
    for (int i = 0; i < NODES; i++) {
        cr_assert_str_eq(at(&s, i, "DBSIZE"), ":0");
    }
    expect(s.c, "nil", "RANDOMKEY");
    expect(s.c, "[]", "KEYS *");
}

static int seen[1000];

/* Walks to the end; how many keys it was given. */
static int scan(struct client *c, const char *options)
{
    char cursor[32] = "0";
    int keys = 0;
    memset(seen, 0, sizeof(seen));
    for (int rounds = 0; rounds < 2000; rounds++) {
        client_command(c, "SCAN %s %s", cursor, options);
        const struct reply *reply = client_reply(c);
        cr_assert_eq(reply->items, 2);
        snprintf(cursor, sizeof(cursor), "%s", reply->item[0]->text);
        cr_assert_lt(strtoull(cursor, NULL, 10), 1ULL << 53);
        for (size_t i = 0; i < reply->item[1]->items; i++) {
            int number = 0;
            cr_assert_eq(sscanf(reply->item[1]->item[i]->text, "fill:%d", &number), 1);
            keys += seen[number]++ == 0;
        }
        if (strcmp(cursor, "0") == 0) {
            return keys;
        }
    }
    cr_assert_fail("SCAN does not end");
    return 0;
}

SCENARIO(spread, scan_walks_through_all_nodes)
{
    struct scene s = begin(0, NULL);
    expect(s.c, ":1", "DEL %s", s.key[0]);
    cr_assert_eq(scan(s.c, ""), 0);
    fill(&s, 500);
    cr_assert_eq(scan(s.c, "MATCH fill:* COUNT 7"), 500);
    cr_assert_eq(scan(s.c, "MATCH fill:1* COUNT 100"), 111);
    cr_assert_eq(scan(s.c, "TYPE string"), 500);
    cr_assert_eq(scan(s.c, "TYPE list"), 0);
    expect(s.c, "-ERR invalid cursor", "SCAN x");
    expect(s.c, "-ERR invalid cursor", "SCAN 8192");
    expect(s.c, "-ERR syntax error", "SCAN 0 NOSUCH 1");
}

SCENARIO(spread, scan_begins_again_when_its_node_is_gone)
{
    struct scene s = begin(3, NULL);
    expect(s.c, ":1", "DEL %s", s.key[0]);
    fill(&s, 300);
    client_command(s.c, "SCAN 0 COUNT 5");
    const char *cursor = cleanup_printf("%s", client_reply(s.c)->item[0]->text);
    cr_assert_str_neq(cursor, "0");
    /* Every primary is another server now. */
    for (int i = 0; i < NODES; i++) {
        cluster_failover(s.cluster, NODES + i);
        cluster_await_ok(s.cluster, 15000);
    }
    await_reply(s.c, "+OK", 10000, "SET fill:0 v");
    int64_t until = now_ms() + 10000;
    bool begun = false;
    while (!begun) {
        cr_assert_lt(now_ms(), until);
        client_command(s.c, "SCAN %s COUNT 100000", cursor);
        const struct reply *reply = client_reply(s.c);
        cr_assert_eq(reply->items, 2);
        begun = reply->item[1]->items > 50 && strcmp(reply->item[0]->text, "0") != 0;
    }
    cr_assert_eq(scan(s.c, ""), 300);
}

SCENARIO(spread, scripts_and_functions_are_on_every_node)
{
    struct scene s = begin(0, NULL);
    const char *sha = cleanup_printf("%s", ask(s.c, "SCRIPT LOAD 'return KEYS[1]'") + 1);
    cr_assert_eq(strlen(sha), 40);
    for (int i = 0; i < NODES; i++) {
        expect(s.c, cleanup_printf("$%s", s.key[i]), "EVALSHA %s 1 %s", sha, s.key[i]);
    }
    expect(s.c, "[:1 :0]", "SCRIPT EXISTS %s 0000000000000000000000000000000000000000", sha);
    expect(s.cluster->node[1]->direct, "+OK", "SCRIPT FLUSH");
    expect(s.c, "[:0]", "SCRIPT EXISTS %s", sha);
    expect(s.c, "+OK", "SCRIPT FLUSH");
    expect(s.c, "-NOSCRIPT ...", "EVALSHA %s 1 %s", sha, s.key[2]);

    expect(s.c, "$lib",
           "FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('f', function(keys) "
           "return keys[1] end)\"");
    for (int i = 0; i < NODES; i++) {
        expect(s.c, cleanup_printf("$%s", s.key[i]), "FCALL f 1 %s", s.key[i]);
    }
    expect(s.c, "+OK", "FUNCTION DELETE lib");
    expect(s.c, "-ERR ...", "FCALL f 1 %s", s.key[1]);
}

SCENARIO(spread, what_nodes_know_of_subscribers_is_put_together)
{
    struct scene s = begin(0, NULL);
    struct client *sub[NODES];
    for (int i = 0; i < NODES; i++) {
        sub[i] = client_connect(s.cluster->node[i]->port);
        expect(sub[i], "[$subscribe $news :1]", "SUBSCRIBE news");
    }
    expect(s.c, "[$news]", "PUBSUB CHANNELS new*");
    expect(s.c, "[$news :3 $other :0]", "PUBSUB NUMSUB news other");
    client_command(s.c, "PUBLISH news hello");
    cr_assert_eq(client_reply(s.c)->type, ':');
    for (int i = 0; i < NODES; i++) {
        expect_next(sub[i], "[$message $news $hello]");
    }
}

SCENARIO(spread, settings_reach_every_node)
{
    struct scene s = begin(0, NULL);
    expect(s.c, "+OK", "CONFIG SET slowlog-log-slower-than 0");
    for (int i = 0; i < NODES; i++) {
        cr_assert(strstr(at(&s, i, "CONFIG GET slowlog-log-slower-than"), "$0") != NULL);
        cr_assert_str_neq(at(&s, i, "SLOWLOG LEN"), ":0");
    }
    expect(s.c, "-ERR ...", "CONFIG SET nosuchthing 0");
    expect(s.c, "+OK", "CONFIG SET slowlog-log-slower-than -1");
    expect(s.c, "+OK", "SLOWLOG RESET");
    expect(s.c, ":0", "SLOWLOG LEN");
    cr_assert_eq(ask(s.c, "LASTSAVE")[0], ':');
}

/* ---- The facade ----------------------------------------------------------------------------- */

SCENARIO(spread, the_facade_is_a_cluster_of_one_node)
{
    struct scene s = begin(0, "proxy.cluster_facade=yes");
    const char *address = cleanup_printf("[[:0 :16383 [$127.0.0.1 :%d ...", s.proxy->port);
    expect(s.c, address, "CLUSTER SLOTS");
    expect(s.c, "[[$slots [:0 :16383] $nodes [[$id ...", "CLUSTER SHARDS");
    const char *id = cleanup_printf("%s", ask(s.c, "CLUSTER MYID") + 1);
    cr_assert_eq(strlen(id), 40);
    expect(s.c,
           cleanup_printf("$%s 127.0.0.1:%d@%d myself,master - 0 0 1 connected 0-16383...", id,
                          s.proxy->port, s.proxy->port),
           "CLUSTER NODES");
    expect(s.c, "$cluster_enabled:1\r\ncluster_state:ok...", "CLUSTER INFO");
    expect(s.c, ":12182", "CLUSTER KEYSLOT foo");
    expect(s.c, "+OK", "SET %s v", s.key[2]);
    int slot = cluster_slot(s.cluster, s.key[2]);
    expect(s.c, ":1", "CLUSTER COUNTKEYSINSLOT %d", slot);
    expect(s.c, cleanup_printf("[$%s]", s.key[2]), "CLUSTER GETKEYSINSLOT %d 10", slot);
    expect(s.c, "-ERR Invalid slot", "CLUSTER COUNTKEYSINSLOT 16384");
    expect(s.c, "-ERR ...", "CLUSTER RESET HARD");
    expect(s.c, "[]", "CLUSTER REPLICAS %s", id);
    expect(s.c, "-ERR Unknown node x", "CLUSTER REPLICAS x");
    expect(s.c, "+OK", "READONLY");
    expect(s.c, "+OK", "READWRITE");
    cluster_await_ok(s.cluster, 1000);
}

SCENARIO(spread, the_facade_announces_what_it_is_told_to)
{
    struct cluster *cluster = cluster_start(1, 0, NULL);
    struct nearside *n =
        nearside_start(cluster->node[0]->port, "upstream.mode=cluster", "proxy.cluster_facade=yes",
                       "proxy.announce=cache.example:7000", NULL);
    struct client *c = nearside_connect(n);
    await_reply(c, "nil", 10000, "GET x");
    expect(c, "[[:0 :16383 [$cache.example :7000 ...", "CLUSTER SLOTS");
    expect(c, "%...", "HELLO 3");
    expect(c, "[%[$slots [:0 :16383] $nodes [%[$id ...", "CLUSTER SHARDS");
}

SCENARIO(spread, without_the_facade_there_is_no_cluster)
{
    struct scene s = begin(0, NULL);
    expect(s.c, "-ERR This instance has cluster support disabled", "CLUSTER SLOTS");
    expect(s.c, "-ERR This instance has cluster support disabled", "READONLY");
}
