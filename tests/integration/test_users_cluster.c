/* SPDX-License-Identifier: Apache-2.0
 *
 * test_users_cluster.c: clients that log in as users of Redis's own, in front of a cluster: each node
 * checks their commands, and is told who they are before it is sent any.
 */
#include "cluster_scene.h"

#define RULES "on >pass ~open:* resetchannels &good +@all -flushall -echo"

static void on_each_node(const struct scene *s, const char *command)
{
    for (int i = 0; i < 3; i++) {
        expect(s->cluster->node[i]->direct, "+OK", "%s", command);
    }
}

static struct scene scene_with_users(const char *set)
{
    struct scene s = scene_start_with(0, set);
    on_each_node(&s, "ACL SETUSER bob " RULES);
    return s;
}

/* A key of that node that bob may use. */
static const char *open_key(const struct scene *s, int node)
{
    return cleanup_printf("%s", key_of(s, node, "open:"));
}

static const char *closed_key(const struct scene *s, int node)
{
    return cleanup_printf("%s", key_of(s, node, "closed:"));
}

static struct client *log_in(const struct scene *s)
{
    struct client *c = nearside_connect(s->proxy);
    expect(c, "+OK", "AUTH bob pass");
    return c;
}

SCENARIO(users_cluster, each_node_checks_what_they_send)
{
    struct scene s = scene_with_users(NULL);
    struct client *c = nearside_connect(s.proxy);

    expect(c, "-WRONGPASS ...", "AUTH bob wrong");
    expect(c, "$default", "ACL WHOAMI");
    expect(c, "+OK", "AUTH bob pass");
    for (int i = 0; i < 3; i++) {
        const char *open = open_key(&s, i);
        const char *closed = closed_key(&s, i);
        expect(s.c, "+OK", "SET %s secret", closed);
        warm(&s, closed, "$secret");
        expect(c, "-NOPERM ...", "GET %s", closed);
        expect(c, "-NOPERM ...", "SET %s v", closed);
        expect(c, "+OK", "SET %s v%d", open, i);
        warm(&s, open, cleanup_printf("$v%d", i));
        expect(c, "+OK", "SET %s w", open);
        expect(s.c, "$w", "GET %s", open);
        expect(c, "$w", "GET %s", open);
        expect(c, "$w", "EVAL 'return redis.call(\"get\",KEYS[1])' 1 %s", open);
        expect(c, "-NOPERM ...", "EVAL 'return redis.call(\"get\",KEYS[1])' 1 %s", closed);
        expect(c, "$bob", "ACL WHOAMI");
        expect(c, "-NOPERM ...", "ECHO x");
    }
    expect(c, "+RESET", "RESET");
    expect(c, "$secret", "GET %s", closed_key(&s, 1));
    nearside_await_info(s.proxy, "pinned_connections", 0, 0, 2000);
}

SCENARIO(users_cluster, a_pipeline_over_all_nodes_is_answered_in_order)
{
    struct scene s = scene_with_users(NULL);
    struct client *c = log_in(&s);

    for (int i = 0; i < 30; i++) {
        cr_assert(client_command(c, "SET %s %d", open_key(&s, i % 3), i) &&
                  client_command(c, "GET %s", open_key(&s, i % 3)) &&
                  client_command(c, "INCR %s", open_key(&s, i % 3)) &&
                  client_command(c, "GET %s", closed_key(&s, (i + 1) % 3)));
    }
    for (int i = 0; i < 30; i++) {
        expect_next(c, "+OK");
        expect_next(c, cleanup_printf("$%d", i));
        expect_next(c, cleanup_printf(":%d", i + 1));
        expect_next(c, "-NOPERM ...");
    }
}

SCENARIO(users_cluster, what_is_split_or_for_all_nodes_is_done_as_them)
{
    struct scene s = scene_with_users(NULL);
    struct client *c = log_in(&s);
    const char *keys[3] = {open_key(&s, 0), open_key(&s, 1), open_key(&s, 2)};

    expect(s.c, "+OK", "SET %s secret", closed_key(&s, 2));
    warm(&s, closed_key(&s, 2), "$secret");
    expect(c, "+OK", "MSET %s a %s b %s c", keys[0], keys[1], keys[2]);
    expect(c, "[$a $b $c]", "MGET %s %s %s", keys[0], keys[1], keys[2]);
    expect(c, "-NOPERM ...", "MGET %s %s %s", keys[0], keys[1], closed_key(&s, 2));
    expect(c, "-NOPERM ...", "DEL %s %s", keys[0], closed_key(&s, 2));
    expect(s.c, "nil", "GET %s", keys[0]); /* what is split is not atomic */
    expect(c, ":3", "DBSIZE");
    expect(c, "-NOPERM ...", "FLUSHALL");
    expect(s.c, "$secret", "GET %s", closed_key(&s, 2));
    expect(c, "+OK", "FLUSHDB");
    expect(s.c, "nil", "GET %s", closed_key(&s, 2));
    expect(c, "[]", "KEYS *");
    expect(c, "[$...", "SCAN 0 COUNT 100 MATCH none TYPE string");
    expect(c, "$bob", "ACL WHOAMI");
}

SCENARIO(users_cluster, transactions_watches_and_blocking_commands_are_theirs_on_any_node)
{
    struct scene s = scene_with_users(NULL);
    struct client *c = log_in(&s);

    for (int i = 0; i < 6; i++) {
        const char *key = open_key(&s, i % 3);
        expect(c, "+OK", "SET %s 1", key);
        expect(c, "+OK", "WATCH %s", key);
        expect(c, "nil", "GET %s", cleanup_printf("%s", key_of(&s, (i + 1) % 3, "open:other")));
        expect(c, "-NOPERM ...", "GET %s", closed_key(&s, (i + 1) % 3));
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "ACL WHOAMI");
        expect(c, "+QUEUED", "INCR %s", key);
        expect(c, "[$bob :2]", "EXEC");
        expect(c, "+OK", "MULTI");
        expect(c, "+QUEUED", "ACL WHOAMI");
        expect(c, "+QUEUED", "INCR %s", cleanup_printf("%s", key_of(&s, (i + 2) % 3, "open:n")));
        expect(c, "-NOPERM ...", "INCR %s", closed_key(&s, (i + 2) % 3));
        expect(c, "-EXECABORT ...", "EXEC");
        expect(c, "+OK", "MULTI");
        expect(c, "-ERR 'auth' is not available inside MULTI...", "AUTH default any");
        expect(c, "-EXECABORT ...", "EXEC");
        expect(c, "-NOPERM ...", "BLPOP %s 0", closed_key(&s, i % 3));
        expect(c, ":1", "RPUSH %s x", cleanup_printf("%s", key_of(&s, i % 3, "open:list")));
        expect(c, cleanup_printf("[$%s $x]", key_of(&s, i % 3, "open:list")), "BLPOP %s 0",
               cleanup_printf("%s", key_of(&s, i % 3, "open:list")));
    }
}

SCENARIO(users_cluster, another_protocol_or_user_is_said_on_every_node)
{
    struct scene s = scene_with_users(NULL);
    struct client *c = log_in(&s);
    const char *a = open_key(&s, 0);
    const char *b = open_key(&s, 1);

    on_each_node(&s, "ACL SETUSER eve on >pass ~closed:* +@all");
    expect(c, ":1", "HSET %s f v", a);
    expect(c, ":1", "HSET %s f v", b);
    expect(c, "...", "HELLO 3");
    expect(c, "%[$f $v]", "HGETALL %s", a);
    expect(c, "%[$f $v]", "HGETALL %s", b);
    expect(c, "...", "HELLO 2 AUTH eve pass");
    for (int i = 0; i < 3; i++) {
        expect(c, "-NOPERM ...", "HGETALL %s", open_key(&s, i));
        expect(c, ":1", "HSET %s f v", closed_key(&s, i));
        expect(c, "[$f $v]", "HGETALL %s", closed_key(&s, i));
    }
    expect(c, "-WRONGPASS ...", "AUTH bob wrong");
    expect(c, "[$f $v]", "HGETALL %s", closed_key(&s, 0));
    expect(c, "+OK", "AUTH default any");
    expect(c, "[$f $v]", "HGETALL %s", a);
    nearside_await_info(s.proxy, "pinned_connections", 0, 0, 2000);
}

SCENARIO(users_cluster, who_a_node_does_not_know_is_told_so_and_never_served_there_as_another)
{
    struct scene s = scene_with_users(NULL);
    struct client *c = nearside_connect(s.proxy);

    expect(c, "+OK", "AUTH bob pass");
    for (int i = 0; i < 3; i++) {
        expect(s.cluster->node[i]->direct, ":1", "ACL DELUSER bob");
    }
    nearside_await_info(s.proxy, "pinned_connections", 0, 0, 2000);
    expect(s.cluster->node[1]->direct, "+OK", "ACL SETUSER bob " RULES);
    expect(s.cluster->node[2]->direct, "+OK", "ACL SETUSER bob " RULES);
    int served = 0;
    for (int i = 0; i < 9; i++) {
        struct client *d = nearside_connect(s.proxy);
        const char *reply = ask(d, "AUTH bob pass");
        if (reply[0] != '+') {
            continue; /* it came to the node that does not know */
        }
        served++;
        expect(d, "-WRONGPASS ...", "SET %s v", open_key(&s, 0));
        expect(d, "+OK", "SET %s v", open_key(&s, 1));
        expect(d, "-WRONGPASS ...", "WATCH %s", open_key(&s, 0));
        expect(d, "closed", "GET %s", closed_key(&s, 1));
    }
    cr_assert_gt(served, 0);
    expect(s.c, "nil", "GET %s", open_key(&s, 0));
}

SCENARIO(users_cluster, they_follow_a_slot_that_moves)
{
    struct scene s = scene_with_users(NULL);
    struct client *c = log_in(&s);
    const char *key = open_key(&s, 0);
    int slot = cluster_slot(s.cluster, key);

    expect(c, "+OK", "SET %s 1", key);
    cluster_move_slot(s.cluster, slot, 2);
    cr_assert(client_command(c, "INCR %s", key) && client_command(c, "INCR %s", key) &&
              client_command(c, "MULTI") && client_command(c, "INCR %s", key) &&
              client_command(c, "EXEC") && client_command(c, "GET %s", closed_key(&s, 1)));
    expect_next(c, ":2");
    expect_next(c, ":3");
    expect_next(c, "+OK");
    expect_next(c, "+QUEUED");
    expect_next(c, "[:4]");
    expect_next(c, "-NOPERM ...");
    cluster_move_begin(s.cluster, slot, 2, 1);
    cluster_move_keys(s.cluster, slot, 2, 1);
    expect(c, ":5", "INCR %s", key);
    expect(c, "$5", "GET %s", key);
    for (int i = 0; i < 3; i++) {
        struct client *d = log_in(&s); /* to one node after the other */
        expect(d, "$5", "GET %s", key);
    }
    cluster_move_end(s.cluster, slot, 2, 1);
    expect(c, ":6", "INCR %s", key);
    expect(s.c, "$6", "GET %s", key);
}

SCENARIO(users_cluster, each_of_their_connections_counts_in_max_pinned)
{
    struct scene s = scene_with_users("upstream.max_pinned=2");
    struct client *c = log_in(&s);
    int refused = 0;

    for (int i = 0; i < 3; i++) {
        const char *reply = ask(c, "SET %s v", open_key(&s, i));
        refused += strncmp(reply, "-ERR too many clients need", 26) == 0;
    }
    cr_assert_eq(refused, 1);
    nearside_await_info(s.proxy, "pinned_connections", 2, 2, 2000);
    expect(c, "-ERR too many clients need...", "DBSIZE");
    client_close(c);
    nearside_await_info(s.proxy, "pinned_connections", 0, 0, 2000);
}

SCENARIO(users_cluster, they_are_closed_when_a_node_is_lost_and_served_again_behind_it)
{
    struct scene s = scene_start_with(3, NULL);
    for (int i = 0; i < 6; i++) {
        expect(s.cluster->node[i]->direct, "+OK", "ACL SETUSER bob " RULES);
    }
    struct client *c = log_in(&s);
    const char *key = open_key(&s, 1);
    const char *closed = closed_key(&s, 1);

    expect(c, "+OK", "SET %s v", open_key(&s, 0));
    expect(c, "+OK", "SET %s v", key);
    cluster_kill(s.cluster, 1);
    expect_next(c, "closed");
    await_reply(s.c, "+OK", 20000, "SET %s w", key);
    struct client *d = log_in(&s);
    expect(d, "$w", "GET %s", key);
    expect(d, "-NOPERM ...", "GET %s", closed);
}

SCENARIO(users_cluster, they_are_closed_when_they_are_deleted_through_here)
{
    struct scene s = scene_with_users(NULL);
    struct client *c = log_in(&s);

    expect(c, "+OK", "SET %s v", open_key(&s, 0));
    expect(c, "+OK", "SET %s v", open_key(&s, 1));
    expect(s.c, ":1", "ACL DELUSER bob");
    expect_next(c, "closed");
    nearside_await_info(s.proxy, "pinned_connections", 0, 0, 2000);
}

SCENARIO(users_cluster, channels_are_checked_and_commands_beside_them_too)
{
    struct scene s = scene_with_users(NULL);
    struct client *c = log_in(&s);

    on_each_node(&s, "ACL SETUSER bob &open:*");
    expect(c, "...", "HELLO 3");
    for (int i = 0; i < 3; i++) {
        expect(c, "-NOPERM ...", "SSUBSCRIBE %s", closed_key(&s, i));
        expect(c, cleanup_printf(">[$ssubscribe $%s :%d]", open_key(&s, i), i + 1), "SSUBSCRIBE %s",
               open_key(&s, i));
    }
    expect(c, "-NOPERM ...", "SUBSCRIBE bad");
    expect(c, ">[$subscribe $good :1]", "SUBSCRIBE good");
    for (int i = 0; i < 3; i++) {
        expect(c, "+OK", "SET %s v", open_key(&s, i));
        expect(c, "-NOPERM ...", "SET %s v", closed_key(&s, i));
        expect(s.c, ":1", "SPUBLISH %s hello", open_key(&s, i));
        expect_next(c, cleanup_printf(">[$smessage $%s $hello]", open_key(&s, i)));
    }
    expect(c, "-ERR the protocol cannot change...", "HELLO 2 AUTH bob pass");
}
