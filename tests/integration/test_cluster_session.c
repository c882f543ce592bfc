/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cluster_session.c: transactions, blocking commands and subscriptions through the proxy in front of
 * a real cluster: they find the node of their keys, and follow a slot that moves.
 */
#include "cluster_scene.h"

#include <string.h>

TestSuite(cluster_session);

static bool has_blocked_client(void *node)
{
    return redis_info(node, "blocked_clients") == 1;
}

static void await_blocked(struct redis *node)
{
    cr_assert(await(has_blocked_client, node, 5000));
}

SCENARIO(cluster_session, a_transaction_is_executed_on_the_node_of_its_keys)
{
    struct scene s = scene_start();

    for (int i = 0; i < 3; i++) {
        const char *key = key_of(&s, i, "n");
        expect(s.c, "+OK", "MULTI");
        expect(s.c, "+QUEUED", "PING");
        expect(s.c, "+QUEUED", "INCR %s", key);
        expect(s.c, "+QUEUED", "GET %s", key);
        expect(s.c, "[+PONG :1 $1]", "EXEC");
        expect(s.c, "$1", "GET %s", key);
        expect(s.cluster->node[i]->direct, "$1", "GET %s", key);
    }
}

SCENARIO(cluster_session, a_pipelined_transaction_is_whole)
{
    struct scene s = scene_start();

    for (int i = 0; i < 30; i++) {
        const char *key = key_of(&s, i % 3, "n");
        cr_assert(client_command(s.c, "MULTI") && client_command(s.c, "SET %s %d", key, i) &&
                  client_command(s.c, "INCR %s", key) && client_command(s.c, "EXEC") &&
                  client_command(s.c, "GET %s", key));
        expect_next(s.c, "+OK");
        expect_next(s.c, "+QUEUED");
        expect_next(s.c, "+QUEUED");
        expect_next(s.c, cleanup_printf("[+OK :%d]", i + 1));
        expect_next(s.c, cleanup_printf("$%d", i + 1));
    }
}

/* In one piece; the replies in one line. */
static const char *pipeline(struct client *c, const char *const *commands)
{
    const char *all = "";
    size_t n = 0;

    for (; commands[n] != NULL; n++) {
        all = cleanup_printf("%s%s\r\n", all, commands[n]);
    }
    cr_assert(client_send_text(c, all));
    all = "";
    for (size_t i = 0; i < n; i++) {
        all = cleanup_printf("%s%s%s", all, i == 0 ? "" : " ", client_read(c));
    }
    return all;
}

SCENARIO(cluster_session, pipelined_transactions_have_nothing_of_each_other)
{
    struct scene s = scene_start();
    struct client *subscriber = client_connect(s.cluster->node[0]->port);
    struct client *c[] = {nearside_connect(s.proxy), nearside_connect(s.proxy)};

    expect(subscriber, "[$subscribe $ch :1]", "SUBSCRIBE ch");
    for (int i = 0; i < 6; i++) {
        const char *key = key_of(&s, i % 3, "k");
        const char *end = i < 3 ? "EXEC" : "DISCARD";
        const char *publish = cleanup_printf("PUBLISH ch %d", i);
        const char *set = cleanup_printf("SET %s %d", key, i);
        const char *const commands[] = {"MULTI", publish, end, "MULTI", set, "EXEC", NULL};
        const char *got = pipeline(c[i / 3], commands);
        cr_assert_str_eq(strstr(got, i < 3 ? "] +OK" : "+OK +OK"),
                         i < 3 ? "] +OK +QUEUED [+OK]" : "+OK +OK +QUEUED [+OK]", "%s", got);
        if (i < 3) {
            expect_next(subscriber, cleanup_printf("[$message $ch $%d]", i));
        }
    }
    expect(s.c, ":...", "PUBLISH ch last");
    expect_next(subscriber, "[$message $ch $last]"); /* none of those that were discarded */
}

SCENARIO(cluster_session, pipelined_transactions_go_to_the_nodes_of_their_keys)
{
    struct scene s = scene_start();
    const char *sets[3];

    for (int i = 0; i < 3; i++) {
        sets[i] = cleanup_printf("INCR %s", key_of(&s, i, "n"));
    }
    const char *const commands[] = {"MULTI", sets[0], "EXEC",  "MULTI", sets[1],
                                    "EXEC",  "MULTI", sets[2], "EXEC",  NULL};
    for (int i = 1; i <= 5; i++) {
        const char *each = cleanup_printf("+OK +QUEUED [:%d]", i);
        cr_assert_str_eq(pipeline(s.c, commands), cleanup_printf("%s %s %s", each, each, each));
    }
}

SCENARIO(cluster_session, a_transaction_does_not_overtake_what_its_client_sent_before)
{
    struct scene s = scene_start();

    for (int i = 0; i < 9; i++) {
        const char *key = key_of(&s, i % 3, "k");
        const char *watch = cleanup_printf("WATCH %s", key);
        const char *get = cleanup_printf("GET %s", key);
        const char *set = cleanup_printf("SET %s x%d", key, i);
        const char *const own[] = {set, "MULTI", get, "EXEC", NULL};
        const char *const ahead[] = {get, "MULTI", set, "EXEC", NULL};
        struct client *c = nearside_connect(s.proxy);

        (void)ask(c, "DEL %s", key);
        expect(c, "+OK", "%s", watch);
        cr_assert_str_eq(pipeline(c, own), "+OK +OK +QUEUED nil array");
        expect(c, ":1", "DEL %s", key);
        expect(c, "+OK", "%s", watch);
        cr_assert_str_eq(pipeline(c, ahead), "nil +OK +QUEUED [+OK]");
        expect(c, "%[$server...", "HELLO 3");
        expect(c, ">[$subscribe $ch :1]", "SUBSCRIBE ch");
        const char *got = pipeline(c, own);
        if (strstr(got, "CROSSSLOT") == NULL) { /* where the subscription is */
            cr_assert_str_eq(got, cleanup_printf("+OK +OK +QUEUED [$x%d]", i));
        }
    }
}

SCENARIO(cluster_session, what_follows_multi_at_once_is_in_the_transaction)
{
    struct scene s = scene_start();
    const char *set = cleanup_printf("SET %s v", key_of(&s, 1, "k"));
    const char *const unwatch[] = {"MULTI", "UNWATCH", set, "EXEC", NULL};
    const char *const exec[] = {"MULTI", "EXEC x", "EXEC", NULL};
    const char *const discard[] = {"MULTI", "DISCARD x", set, "EXEC", NULL};

    cr_assert_str_eq(pipeline(s.c, unwatch), "+OK +QUEUED +QUEUED [+OK +OK]");
    const char *got = pipeline(s.c, exec);
    cr_assert(strstr(got, "+OK -EXECABORT") == got &&
                  strstr(got, " -ERR EXEC without MULTI") != NULL,
              "%s", got);
    got = pipeline(s.c, discard);
    cr_assert(strstr(got, "+OK -ERR wrong number") == got &&
                  strstr(got, " +QUEUED -EXECABORT") != NULL,
              "%s", got);
}

SCENARIO(cluster_session, a_transaction_without_commands_is_answered)
{
    struct scene s = scene_start();

    expect(s.c, "+OK", "MULTI");
    expect(s.c, "[]", "EXEC");
    expect(s.c, "+OK", "MULTI");
    expect(s.c, "+OK", "DISCARD");
    expect(s.c, "-ERR EXEC without MULTI", "EXEC");
    expect(s.c, "+OK", "MULTI");
    expect(s.c, "+RESET", "RESET");
    expect(s.c, "nil", "GET %s", key_of(&s, 1, "k"));
}

SCENARIO(cluster_session, keys_of_two_nodes_abort_a_transaction)
{
    struct scene s = scene_start();

    expect(s.c, "+OK", "MULTI");
    expect(s.c, "+QUEUED", "SET %s v", key_of(&s, 0, "k"));
    expect(s.c, "-CROSSSLOT ...", "SET %s v", key_of(&s, 1, "k"));
    expect(s.c, "-EXECABORT ...", "EXEC");
    expect(s.c, "nil", "GET %s", key_of(&s, 0, "k"));
    expect(s.c, "nil", "GET %s", key_of(&s, 1, "k"));
}

SCENARIO(cluster_session, keys_of_two_slots_first_of_all_abort_a_transaction)
{
    struct scene s = scene_start();
    const char *const both[] = {"MULTI", "RENAME a b", "SET a v", "EXEC", NULL};

    for (int first = 0; first < 2; first++) {
        expect(s.c, "+OK", "MULTI");
        if (first > 0) {
            expect(s.c, "+QUEUED", "PING");
        }
        expect(s.c, "-CROSSSLOT Keys in request don't hash to the same slot", "MGET a b");
        expect(s.c, first > 0 ? "-EXECABORT ..." : "+OK", first > 0 ? "EXEC" : "DISCARD");
    }
    const char *got = pipeline(s.c, both);
    cr_assert(strstr(got, "+OK -CROSSSLOT") == got && strstr(got, " +QUEUED -EXECABORT") != NULL,
              "%s", got);
    expect(s.c, "nil", "GET a");
}

SCENARIO(cluster_session, a_watched_key_that_changes_aborts_the_transaction)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 1, "k");

    expect(s.c, "+OK", "SET %s 1", key);
    expect(s.c, "+OK", "WATCH %s", key);
    expect(s.c, "$1", "GET %s", key);
    expect(s.c, "nil", "GET %s", key_of(&s, 2, "other"));
    expect(s.cluster->node[1]->direct, "+OK", "SET %s 2", key);
    expect(s.c, "+OK", "MULTI");
    expect(s.c, "+QUEUED", "SET %s 3", key);
    expect(s.c, "nil array", "EXEC");
    await_reply(s.c, "$2", 2000, "GET %s", key);
}

SCENARIO(cluster_session, a_transaction_follows_a_slot_that_has_moved)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 0, "n");

    expect(s.c, "+OK", "SET %s 5", key);
    cluster_move_slot(s.cluster, cluster_slot(s.cluster, key), 2);
    cr_assert(client_command(s.c, "MULTI") && client_command(s.c, "PING") &&
              client_command(s.c, "INCR %s", key) && client_command(s.c, "INCR %s", key) &&
              client_command(s.c, "EXEC"));
    expect_next(s.c, "+OK");
    expect_next(s.c, "+QUEUED");
    expect_next(s.c, "+QUEUED");
    expect_next(s.c, "+QUEUED");
    expect_next(s.c, "[+PONG :6 :7]");
    expect(s.c, "$7", "GET %s", key);
}

/* A slot whose keys have gone to the other node already. */
static int move_half_way(const struct scene *s, const char *key, int from, int to)
{
    int slot = cluster_slot(s->cluster, key);

    expect(s->c, "+OK", "SET %s 5", key);
    cluster_move_begin(s->cluster, slot, from, to);
    cluster_move_keys(s->cluster, slot, from, to);
    return slot;
}

SCENARIO(cluster_session, a_transaction_waits_for_a_slot_that_is_on_its_way)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 0, "n");
    int slot = move_half_way(&s, key, 0, 2);

    expect(s.c, "+OK", "MULTI");
    cr_assert(client_command(s.c, "INCR %s", key));
    nearside_await_info(s.proxy, "redirects_ask", 1, 1000, 5000);
    cluster_move_end(s.cluster, slot, 0, 2);
    expect_next(s.c, "+QUEUED");
    expect(s.c, "[:6]", "EXEC");
    expect(s.c, "$6", "GET %s", key);
}

SCENARIO(cluster_session, a_transaction_is_refused_in_redis_words_while_its_slot_stays_on_its_way)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 0, "n");
    int slot = move_half_way(&s, key, 0, 2);

    expect(s.c, "+OK", "MULTI");
    expect(s.c, cleanup_printf("-ASK %d ...", slot), "INCR %s", key);
    expect(s.c, "-EXECABORT ...", "EXEC");
    expect(s.c, "$5", "GET %s", key); /* by itself it is found */
    expect(s.c, ":6", "INCR %s", key);
    cluster_move_end(s.cluster, slot, 0, 2);
    expect(s.c, "$6", "GET %s", key);
}

SCENARIO(cluster_session, a_transaction_whose_keys_leave_before_exec_is_not_executed)
{
    struct scene s = scene_start();
    const char *key = key_of(&s, 0, "n");
    int slot = cluster_slot(s.cluster, key);

    expect(s.c, "+OK", "SET %s 5", key);
    expect(s.c, "+OK", "MULTI");
    expect(s.c, "+QUEUED", "INCR %s", key);
    cluster_move_begin(s.cluster, slot, 0, 2);
    cluster_move_keys(s.cluster, slot, 0, 2);
    expect(s.c, cleanup_printf("-ASK %d ...", slot), "EXEC");
    expect(s.c, "$5", "GET %s", key);
    expect(s.c, "+OK", "MULTI");
    expect(s.c, "+QUEUED", "INCR %s", key_of(&s, 1, "other")); /* the session was over */
    expect(s.c, "[:1]", "EXEC");

    expect(s.c, "+OK", "SET %s 7", key);
    cluster_move_end(s.cluster, slot, 0, 2);
    await_reply(s.c, "$7", 5000, "GET %s", key);
    expect(s.c, "+OK", "MULTI");
    expect(s.c, "+QUEUED", "INCR %s", key);
    cluster_move_slot(s.cluster, slot, 1);
    expect(s.c, cleanup_printf("-MOVED %d ...", slot), "EXEC");
    expect(s.c, "$7", "GET %s", key);
}

SCENARIO(cluster_session, a_blocked_client_follows_a_slot_that_moves)
{
    struct scene s = scene_start();
    struct client *blocked = nearside_connect(s.proxy);
    const char *key = key_of(&s, 0, "list");
    int slot = cluster_slot(s.cluster, key);

    cr_assert(client_command(blocked, "BLPOP %s 0", key));
    await_blocked(s.cluster->node[0]);
    cluster_move_slot(s.cluster, slot, 1);
    await_blocked(s.cluster->node[1]);
    expect(s.c, ":1", "RPUSH %s v", key);
    expect_next(blocked, cleanup_printf("[$%s $v]", key));
}

SCENARIO(cluster_session, messages_reach_subscribers_of_channels_and_of_shard_channels)
{
    struct scene s = scene_start();

    for (int i = 0; i < 3; i++) {
        struct client *sub = nearside_connect(s.proxy);
        const char *channel = key_of(&s, i, "channel");
        expect(sub, cleanup_printf("[$ssubscribe $%s :1]", channel), "SSUBSCRIBE %s", channel);
        expect(s.c, ":1", "SPUBLISH %s hello", channel);
        expect_next(sub, cleanup_printf("[$smessage $%s $hello]", channel));
    }
    struct client *sub = nearside_connect(s.proxy);
    expect(sub, "[$subscribe $news :1]", "SUBSCRIBE news");
    cr_assert(client_command(s.c, "PUBLISH news hello"));
    (void)client_read(s.c);
    expect_next(sub, "[$message $news $hello]");
}

/* One connection to Nearside, one to each node behind it: the client sees one server that counts all. */
static void use_shard_channels_of_all_nodes(bool resp3)
{
    struct scene s = scene_start();
    struct client *sub = nearside_connect(s.proxy);
    const char *mark = resp3 ? ">" : "";
    const char *channel[3];
    size_t left = 3;

    if (resp3) {
        (void)ask(sub, "HELLO 3");
    }
    for (int i = 0; i < 3; i++) {
        channel[i] = key_of(&s, i, "channel");
        expect(sub, cleanup_printf("%s[$ssubscribe $%s :%d]", mark, channel[i], i + 1),
               "SSUBSCRIBE %s", channel[i]);
    }
    cr_assert_eq(nearside_info(s.proxy, "pinned_connections"), 3);
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 3; i++) {
            expect(s.c, ":1", "SPUBLISH %s %d", channel[i], round);
            expect_next(sub, cleanup_printf("%s[$smessage $%s $%d]", mark, channel[i], round));
        }
    }
    expect(sub, cleanup_printf("%s[$sunsubscribe $%s :2]", mark, channel[1]), "SUNSUBSCRIBE %s",
           channel[1]);
    expect(s.c, ":0", "SPUBLISH %s lost", channel[1]);
    expect(sub, cleanup_printf("%s[$ssubscribe $%s :3]", mark, channel[1]), "SSUBSCRIBE %s",
           channel[1]);

    cr_assert(client_command(sub, "SUNSUBSCRIBE"));
    while (left-- > 0) {
        const struct reply *reply = client_reply(sub);
        cr_assert(reply->items == 3 && strcmp(reply->item[0]->text, "sunsubscribe") == 0);
        cr_assert_eq(reply->item[2]->integer, (long long)left);
    }
    expect(sub, "+PONG", "PING");
    nearside_await_info(s.proxy, "pinned_connections", 0, 0, 2000);
    for (int i = 0; i < 3; i++) {
        expect(s.c, ":0", "SPUBLISH %s nobody", channel[i]);
    }
    expect(sub, "+OK", "SET %s v", channel[2]);
}

SCENARIO(cluster_session, shard_channels_of_all_nodes_on_one_connection)
{
    use_shard_channels_of_all_nodes(false);
}

SCENARIO(cluster_session, shard_channels_of_all_nodes_on_one_connection_in_resp3)
{
    use_shard_channels_of_all_nodes(true);
}

/* A message that arrives in pieces is whole for its subscriber, whatever other nodes say meanwhile. */
SCENARIO(cluster_session, large_messages_of_several_nodes_do_not_mix)
{
    enum { SIZE = 2000000, ROUNDS = 20 };
    struct scene s = scene_start();
    struct client *sub = nearside_connect(s.proxy);
    const char *channel[3];
    int seen[3] = {0};
    size_t n;

    for (int i = 0; i < 3; i++) {
        channel[i] = key_of(&s, i, "channel");
        (void)ask(sub, "SSUBSCRIBE %s", channel[i]);
    }
    char *value = cleanup_alloc(SIZE);
    memset(value, 'v', SIZE);
    for (int i = 0; i < 3 * ROUNDS; i++) {
        struct client *node = s.cluster->node[i % 3]->direct;
        cr_assert(client_command_big(node, cleanup_printf("SPUBLISH %s", channel[i % 3]), value,
                                     i % 2 == 0 ? SIZE : 10));
        if (i % 6 == 5) {
            for (int k = i - 5; k <= i; k++) {
                const struct reply *m = client_reply(sub);
                cr_assert(m->type == '*' && m->items == 3);
                for (int at = 0; at < 3; at++) {
                    seen[at] += strcmp(m->item[1]->text, channel[at]) == 0;
                }
                n = m->item[2]->n;
                cr_assert(n == SIZE || n == 10);
            }
        }
    }
    cr_assert(seen[0] == ROUNDS && seen[1] == ROUNDS && seen[2] == ROUNDS);
}

/* What goes to all nodes, or is the facade's to say, is so for a subscriber too. */
SCENARIO(cluster_session, a_subscriber_in_resp3_uses_all_nodes_and_sees_the_facade)
{
    struct scene s = scene_start_with(0, "proxy.cluster_facade=yes");
    struct client *sub = nearside_connect(s.proxy);
    const char *a = key_of(&s, 0, "k"), *b = key_of(&s, 1, "k");

    (void)ask(sub, "HELLO 3");
    expect(sub, ">[$subscribe $news :1]", "SUBSCRIBE news");
    expect(sub, "+OK", "MSET %s 1 %s 2", a, b);
    expect(sub, "[$1 $2]", "MGET %s %s", a, b);
    expect(sub, ":2", "DBSIZE");
    const struct reply *slots = (client_command(sub, "CLUSTER SLOTS"), client_reply(sub));
    cr_assert(slots->type == '*' && slots->items == 1, "one node has them all");
    expect(sub, "+OK", "FLUSHALL");
    expect(s.c, ":0", "DBSIZE");
    expect(s.c, "[nil nil]", "MGET %s %s", a, b);
}

/* What is queued is kept both for another node and for EXEC's reply: once. */
SCENARIO(cluster_session, a_long_channel_queued_in_a_transaction_is_let_go_of)
{
    struct scene s = scene_start();
    char channel[301];

    memset(channel, 'c', 300);
    channel[300] = '\0';
    for (int i = 0; i < 10; i++) {
        expect(s.c, "+OK", "MULTI");
        expect(s.c, "+QUEUED", "SSUBSCRIBE %s", channel);
        expect(s.c, "+OK", "DISCARD");
    }
    expect(s.c, "+PONG", "PING");
    nearside_stop(s.proxy, 5000 * slowdown()); /* LeakSanitizer looks */
}

SCENARIO(cluster_session, select_and_hello_of_a_watching_client_go_where_its_session_is)
{
    struct scene s = scene_start();

    for (int node = 0; node < 3; node++) {
        expect(s.c, "+OK", "WATCH %s", key_of(&s, node, "w"));
        expect(s.c, "+OK", "SELECT 0");
        expect(s.c, "...", "HELLO 3");
        expect(s.c, "...", "HELLO 2");
        expect(s.c, "+OK", "UNWATCH");
        expect(s.c, "+OK", "WATCH %s", key_of(&s, node, "w"));
        expect(s.c, "+RESET", "RESET");
        expect(s.c, "nil", "GET %s", key_of(&s, node, "w"));
    }
}
