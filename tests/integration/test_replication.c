/* SPDX-License-Identifier: Apache-2.0
 *
 * test_replication.c: a replica that follows Redis through the proxy, and what becomes of a connection that only
 * tries to.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/cluster.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <string.h>

TestSuite(replication);

static bool is_linked(void *replica)
{
    struct redis *r = replica;
    const char *text = ask(r->direct, "INFO replication");
    return strstr(text, "master_link_status:up") != NULL;
}

static void follow(struct redis *replica, int port)
{
    expect(replica->direct, "+OK", "REPLICAOF 127.0.0.1 %d", port);
    cr_assert(await(is_linked, replica, 20000 * slowdown()));
}

static struct redis *start_master(void)
{
    static const char *const at_once[] = {"--repl-diskless-sync-delay", "0", NULL};
    return redis_start(at_once);
}

/* More than fits any buffer on the way, then what is written meanwhile. */
SCENARIO(replication, a_replica_gets_what_there_is_and_what_comes)
{
    struct redis *master = start_master();
    struct redis *replica = redis_start(NULL);
    struct nearside *n = nearside_start(master->port, NULL);
    struct client *c = nearside_connect(n);

    expect(master->direct, "+OK", "DEBUG POPULATE 30000 key 1000");
    follow(replica, n->port);
    expect(replica->direct, ":30000", "DBSIZE");
    expect(c, "+OK", "SET k v");
    expect(c, ":1", "WAIT 1 10000");
    expect(replica->direct, "$v", "GET k");
    expect(replica->direct, ":30001", "DBSIZE");
    cr_assert_not_null(strstr(ask(nearside_connect(n), "CLIENT LIST"), "flags=S"));
    expect(c, "+OK", "FLUSHALL");
    expect(c, ":1", "WAIT 1 10000");
    expect(replica->direct, ":0", "DBSIZE");
    cr_assert_eq(redis_info(master, "sync_full"), 1);
}

/* Its link is cut, and it goes on where it was. */
SCENARIO(replication, a_replica_whose_client_was_killed_comes_back)
{
    struct redis *master = start_master();
    struct redis *replica = redis_start(NULL);
    struct nearside *n = nearside_start(master->port, NULL);
    struct client *c = nearside_connect(n);

    follow(replica, n->port);
    char *list = cleanup_printf("%s", ask(c, "CLIENT LIST"));
    char *line = strstr(list, "flags=S");
    cr_assert_not_null(line);
    while (line > list && line[-1] != '\n') {
        line--;
    }
    const char *id = strstr(line, "id=");
    cr_assert_not_null(id);
    expect(c, ":1", "CLIENT KILL ID %s", cleanup_printf("%lld", strtoll(id + 3, NULL, 10)));
    expect(c, "+OK", "SET k v");
    await_reply(replica->direct, "$v", 20000, "GET k");
    cr_assert_eq(redis_info(master, "sync_partial_ok"), 1);
}

static bool has_none(void *master)
{
    return redis_info(master, "connected_slaves") == 0;
}

SCENARIO(replication, nothing_is_left_of_a_replica_that_goes)
{
    struct redis *master = start_master();
    struct redis *replica = redis_start(NULL);
    struct nearside *n = nearside_start(master->port, NULL);

    follow(replica, n->port);
    cr_assert_eq(redis_info(master, "connected_slaves"), 1);
    expect(replica->direct, "+OK", "REPLICAOF NO ONE");
    cr_assert(await(has_none, master, 5000));
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
}

SCENARIO(replication, who_only_tries_gets_what_redis_says_and_goes_on)
{
    static const char *const lines[] = {
        "REPLCONF foo 1",
        "REPLCONF foo 1 ack 1",
        "REPLCONF capa",
        "REPLCONF capa eof capa psync2",
        "REPLCONF",
        "PSYNC x",
        "SYNC x",
        "MULTI",
        "REPLCONF capa eof",
        "SYNC",
        "EXEC",
    };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        expect(c, cleanup_printf("%s", ask(r->direct, "%s", lines[i])), "%s", lines[i]);
    }
    cr_assert(client_command(c, "REPLCONF ACK 5")); /* has no answer */
    cr_assert(client_command(c, "REPLCONF capa eof getack x"));
    expect(c, "+PONG", "PING");
    expect(c, "+OK", "SET k v");
    expect(c, "$v", "GET k");
    expect(c, "+RESET", "RESET");
    expect(c, "$v", "GET k");
}

/* What else comes on its connection would be taken for the stream, or be cut in two by it. */
SCENARIO(replication, a_subscriber_is_no_replica)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "[$subscribe $ch :1]", "SUBSCRIBE ch");
    expect(c, "-ERR Can't execute 'sync': ...", "SYNC");
    expect(r->direct, ":1", "PUBLISH ch x");
    expect_next(c, "[$message $ch $x]");
    c = nearside_connect(n);
    (void)ask(c, "HELLO 3");
    (void)ask(c, "SUBSCRIBE ch");
    expect(c, "-ERR 'psync' is not available to a subscriber...", "PSYNC ? -1");
    expect(c, "+PONG", "PING");
    c = nearside_connect(n);
    expect(c, "+OK", "MONITOR");
    cr_assert(client_command(c, "SYNC")); /* Redis, too, says nothing to that */
    expect(r->direct, "+OK", "SET k v");
    const char *line = client_read(c);
    cr_assert_not_null(strstr(line, "\"SET\" \"k\" \"v\""), "%s", line);
    nearside_check_alive(n);
}

/* In the middle of a line, or of a message, where its connection is held because it does not read. */
SCENARIO(replication, nor_is_one_that_does_not_read)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int i = 0; i < 2; i++) {
        struct client *c = nearside_connect(n);
        if (i == 0) {
            expect(c, "+OK", "MONITOR");
        } else {
            (void)ask(c, "HELLO 3");
            (void)ask(c, "SUBSCRIBE ch");
        }
        char *large = cleanup_alloc(100001);
        memset(large, 'x', 100000);
        for (int k = 0; k < 150; k++) {
            (void)ask(r->direct, "PUBLISH ch %s", large);
        }
        cr_assert(client_command(c, "SYNC"));
        cr_assert(client_command(c, "PSYNC ? -1"));
        expect(nearside_connect(n), "+OK", "SET k v");
        nearside_check_alive(n);
        client_reset(c);
    }
}

/* Line feeds alone tell the master that it is there while it loads for longer than repl-timeout. */
SCENARIO(replication, what_a_replica_says_reaches_redis_as_it_is)
{
    struct redis *master = start_master();
    struct nearside *n = nearside_start(master->port, NULL);
    struct client *c = nearside_connect(n);

    expect(master->direct, "+OK", "CONFIG SET repl-timeout 2");
    cr_assert(client_command(c, "PSYNC ? -1"));
    cr_assert(client_readable(c, 20000));
    for (int i = 0; i < 25; i++) {
        cr_assert(client_send_text(c, "\n"));
        pass_time(200);
    }
    cr_assert_eq(redis_info(master, "connected_slaves"), 1);
    cr_assert_eq(nearside_info(n, "protocol_errors"), 0);
}

SCENARIO(replication, who_may_not_is_told_so)
{
    struct redis *r = redis_start(NULL);
    expect(r->direct, "+OK", "%s", "ACL SETUSER some on nopass +@all -sync -psync ~* &*");
    struct nearside *n =
        nearside_start(r->port, "upstream.user=some", "upstream.password=any", NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 3; i++) {
        expect(c, "-NOPERM ...", i == 1 ? "SYNC" : "PSYNC ? -1");
        expect(c, "+OK", "SET k %d", i);
        expect(c, cleanup_printf("$%d", i), "GET k");
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
}

SCENARIO(replication, a_cluster_is_no_master)
{
    struct cluster *cluster = cluster_start(3, 0, NULL);
    struct nearside *n = nearside_start(cluster->node[0]->port, "upstream.mode=cluster", NULL);
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 5000, "SET k v");
    expect(c, "-ERR 'psync' is not available in front of a cluster...", "PSYNC ? -1");
    expect(c, "-ERR 'sync' is not available in front of a cluster...", "SYNC");
    expect(c, "-ERR 'replconf' is not available in front of a cluster...", "REPLCONF capa eof");
    expect(c, "$v", "GET k");
}
