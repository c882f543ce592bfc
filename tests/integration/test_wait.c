/* SPDX-License-Identifier: Apache-2.0
 *
 * test_wait.c: WAIT through the proxy, with a real replica: it must not say that a write of this
 * client has arrived where it has not.
 */
#include "cluster_scene.h"

#include <string.h>

static struct redis *replica_of(struct redis *r)
{
    static const char *extra[8];

    extra[0] = "--replicaof";
    extra[1] = "127.0.0.1";
    extra[2] = cleanup_printf("%d", r->port);
    extra[3] = "--repl-diskless-sync-delay";
    extra[4] = "0";
    extra[5] = "--appendonly";
    extra[6] = "yes";
    extra[7] = NULL;
    struct redis *replica = redis_start(extra);
    int64_t deadline = now_ms() + 20000;
    while (strstr(ask(r->direct, "INFO replication"), "state=online") == NULL) {
        cr_assert(now_ms() < deadline, "the replica does not come online");
        pass_time(10);
    }
    return replica;
}

SCENARIO(wait, it_does_not_count_a_replica_that_has_not_got_the_write)
{
    struct redis *r = redis_start(NULL);
    struct redis *replica = replica_of(r);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (int round = 0; round < 5; round++) {
        expect(c, "+OK", "SET k %d", round);
        expect(c, ":1", "WAIT 1 10000");
        redis_freeze(replica);
        expect(c, "+OK", "SET k %d.5", round);
        expect(c, ":0", "WAIT 1 100");
        expect(c, ":0", "WAIT 1 100");
        /* pipelined behind its write */
        cr_assert(client_send_text(c, "SET k x\r\nWAIT 1 50\r\nGET k\r\n"));
        expect_next(c, "+OK");
        expect_next(c, ":0");
        expect_next(c, "$x");
        redis_thaw(replica);
        expect(c, ":1", "WAIT 1 10000");
        expect(replica->direct, "$x", "GET k");
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

/* On a pool connection that has written nothing for long, or on a new one, an offset of its own would
 * be covered already. */
SCENARIO(wait, it_covers_writes_on_every_road)
{
    static const char *const writes[][3] = {
        {"SET k 1", "+OK", ""},      {"EVAL 'return redis.call(\"incr\",KEYS[1])' 1 n", ":...", ""},
        {"MULTI", "+OK", "SET k 2"}, {"BLPOP list 1", "[$list...", ""},
        {"FLUSHALL", "+OK", ""},
    };
    struct redis *r = redis_start(NULL);
    struct redis *replica = replica_of(r);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *three = nearside_connect(n);

    expect(three, "%[...", "HELLO 3");
    for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++) {
        struct client *who = i % 2 == 0 ? c : three;
        (void)ask(r->direct, "RPUSH list x y z");
        expect(who, ":1", "WAIT 1 10000");
        redis_freeze(replica);
        expect(who, writes[i][1], "%s", writes[i][0]);
        if (writes[i][2][0] != '\0') {
            expect(who, "+QUEUED", "%s", writes[i][2]);
            expect(who, "[...", "EXEC");
        }
        expect(who, ":0", "WAIT 1 50");
        redis_thaw(replica);
        expect(who, ":1", "WAIT 1 10000");
    }
    /* a large one goes its own road */
    redis_freeze(replica);
    store_value(c, "large", 300000);
    expect(c, ":0", "WAIT 1 50");
    redis_thaw(replica);
    expect(c, ":1", "WAIT 1 10000");
}

/* Redis 7.0 has no WAITAOF. */
SCENARIO(wait, of_the_file_it_counts_as_little)
{
    struct redis *r = redis_start(NULL);
    struct redis *replica = replica_of(r);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    if (ask(r->direct, "WAITAOF 0 0 0")[0] == '-') {
        expect(c, "-ERR unknown command 'WAITAOF'...", "WAITAOF 0 1 50");
        return;
    }
    for (int round = 0; round < 3; round++) {
        expect(c, "+OK", "SET k %d", round);
        expect(c, "[:0 :1]", "WAITAOF 0 1 10000");
        redis_freeze(replica);
        expect(c, "+OK", "SET k %d.5", round);
        expect(c, "[:0 :0]", "WAITAOF 0 1 100");
        redis_thaw(replica);
    }
}

SCENARIO(wait, in_front_of_a_cluster_it_asks_about_one_node)
{
    struct scene s = scene_start_with(3, NULL);

    for (int round = 0; round < 3; round++) {
        expect(s.c, "+OK", "MSET %s 1 %s 1 %s 1", key_of(&s, 0, "k"), key_of(&s, 1, "k"),
               key_of(&s, 2, "k"));
        expect(s.c, ":1", "WAIT 1 10000");
        for (int i = 0; i < 3; i++) {
            redis_freeze(s.cluster->node[3 + i]);
        }
        for (int i = 0; i < 3; i++) {
            expect(s.c, "+OK", "SET %s %d", key_of(&s, i, "k"), round);
        }
        expect(s.c, ":0", "WAIT 1 100");
        for (int i = 0; i < 3; i++) {
            redis_thaw(s.cluster->node[3 + i]);
        }
    }
}

/* What goes before it leaves no trace in the data. */
SCENARIO(wait, it_keeps_functions_and_watched_keys)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(
        c, "$lib",
        "FUNCTION LOAD \"#!lua name=lib\\nredis.register_function('f', function() return 1 end)\"");
    expect(c, "+OK", "WATCH k");
    expect(c, ":0", "WAIT 0 10");
    expect(c, ":1", "FCALL f 0");
    expect(c, "+OK", "MULTI");
    expect(c, "[]", "EXEC");
    expect(r->direct, ":0", "DBSIZE");
}

SCENARIO(wait, it_answers_as_redis_does)
{
    static const char *const lines[] = {
        "WAIT 0 10",      "WAIT 1 10", "WAIT 0 0",        "WAIT",           "WAIT 1",
        "WAIT x 1",       "WAIT 1 x",  "WAIT 1 -1",       "WAIT -1 1",      "WAIT 1 2 3",
        "WAITAOF 0 0 10", "WAITAOF",   "WAITAOF 1 1 1 1", "WAITAOF x 0 10",
    };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *direct = client_connect(r->port);
    struct client *c = nearside_connect(n);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        const char *want = cleanup_printf("%s", ask(direct, "%s", lines[i]));
        expect(c, want, "%s", lines[i]);
    }
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "SET k v");
    expect(c, "+QUEUED", "WAIT 1 0");
    expect(c, "+QUEUED", "PING");
    expect(c, "[+OK :0 +PONG]", "EXEC");
    expect(c, "+OK", "WATCH k");
    expect(c, ":0", "WAIT 0 10");
    expect(c, "+OK", "MULTI");
    expect(c, "[]", "EXEC");
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}

SCENARIO(wait, a_client_that_waits_can_be_unblocked_and_can_leave)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *waits = nearside_connect(n);
    struct client *other = nearside_connect(n);
    const char *id = cleanup_printf("%s", ask(waits, "CLIENT ID") + 1);

    expect(waits, "+OK", "SET k v");
    cr_assert(client_command(waits, "WAIT 1 0"));
    await_reply(other, ":1", 5000, "CLIENT UNBLOCK %s", id);
    expect_next(waits, ":0");
    cr_assert(client_command(waits, "WAIT 1 0"));
    int64_t deadline = now_ms() + 5000;
    while (redis_info(r, "blocked_clients") < 1 && now_ms() < deadline) {
    }
    cr_assert_eq(redis_info(r, "blocked_clients"), 1);
    client_close(waits);
    while (redis_info(r, "blocked_clients") > 0 && now_ms() < deadline) {
    }
    cr_assert_eq(redis_info(r, "blocked_clients"), 0);
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
}
