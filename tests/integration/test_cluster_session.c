/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cluster_session.c: transactions, blocking commands and subscriptions through the proxy in front of
 * a real cluster: they find the node of their keys, and follow a slot that moves.
 */
#include "cluster_scene.h"

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
