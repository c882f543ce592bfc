/* SPDX-License-Identifier: Apache-2.0
 *
 * test_slow.c: a command that keeps its connection waiting, while the server answers others, holds up
 * nobody but its own client; a server that is busy, loading or back is heard as on a direct connection.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/process.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <stdlib.h>

TestSuite(slow);

SCENARIO(slow, a_paused_write_holds_up_its_own_client_only)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *writer = nearside_connect(n);
    struct client *other = nearside_connect(n);

    expect(writer, "+OK", "SET k old");
    expect(r->direct, ":1", "RPUSH list a");
    expect(r->direct, "+OK", "CLIENT PAUSE 600000 WRITE");
    cr_assert(client_command(writer, "SET k new"));
    cr_assert(client_command(writer, "GETRANGE k 0 -1"));
    cr_assert(client_command(writer, "LLEN list"));
    nearside_await_info(n, "l1_writes_in_flight", 1, 1, 5000);
    for (int i = 0; i < 10; i++) {
        expect(other, "[$a]", "LRANGE list 0 -1");
        expect(other, "$old", "GETRANGE k 0 -1");
    }
    cr_assert(!client_readable(writer, 0), "answered out of order");
    expect(r->direct, "+OK", "CLIENT UNPAUSE");
    expect_next(writer, "+OK");
    expect_next(writer, "$new"); /* behind the write, though there was a free road */
    expect_next(writer, ":1");
    expect(other, "$new", "GET k");
}

SCENARIO(slow, a_busy_script_is_reported_and_can_be_killed)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *busy = nearside_connect(n);
    struct client *other = nearside_connect(n);

    expect(other, "+OK", "CONFIG SET busy-reply-threshold 50");
    cr_assert(client_command(busy, "EVAL 'while true do end' 0"));
    await_reply(r->direct, "-BUSY ...", 10000, "GET k");
    expect(other, "-BUSY ...", "LLEN list");
    expect(other, "-BUSY ...", "SET k v");
    expect(other, "-BUSY ...", "BLPOP list 0");
    expect(other, "+OK", "MULTI");
    expect(other, "-BUSY ...", "LLEN list");
    expect(other, "-EXECABORT ...", "EXEC");
    expect(other, "+OK", "SCRIPT KILL");
    expect_next(busy, "-ERR ...");
    await_reply(other, "+OK", 5000, "SET k v");
}

/* There SELECT is refused too: no connection of its own can be had. */
SCENARIO(slow, a_busy_script_is_reported_and_can_be_killed_in_any_database)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *busy = nearside_connect(n);
    struct client *other = nearside_connect(n);

    expect(other, "+OK", "CONFIG SET busy-reply-threshold 50");
    for (int db = 0; db < 10; db += 9) {
        expect(busy, "+OK", "SELECT %d", db);
        expect(other, "+OK", "SELECT %d", db);
        cr_assert(client_send_text(busy, "EVAL \"while true do end\" 0\r\nPING\r\n"));
        await_reply(r->direct, "-BUSY ...", 10000, "GET k");
        cr_assert(client_command(busy, "PING"));
        await_reply(other, "-BUSY ...", 2000, "PING");
        expect(other, "-BUSY ...", "ECHO hello");
        expect(other, "-BUSY ...", "SET k v");
        expect(other, "-BUSY ...", "BLPOP list 0");
        expect(other, "+OK", "SCRIPT KILL");
        expect_next(busy, "-ERR ...");
        expect_next(busy, "+PONG"); /* Redis, too, comes to these when the script has ended */
        expect_next(busy, "+PONG");
        expect(other, "+PONG", "PING");
        await_reply(other, "+OK", 5000, "SET k v");
    }
    expect(r->direct, "+OK", "SELECT 9");
    expect(r->direct, "$v", "GET k");
}

/* What keeps the others waiting is left where it is: asked again it would only be refused, or keep them
 * waiting on the next connection too. */
SCENARIO(slow, a_read_that_takes_long_gets_its_own_answer_and_is_not_asked_again)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *busy = nearside_connect(n);
    struct client *other = nearside_connect(n);

    expect(r->direct, "+OK", "CONFIG SET busy-reply-threshold 50");
    cr_assert(client_command(busy, "EVAL_RO 'for i = 1, 400000000 do end return 1' 0"));
    await_reply(r->direct, "-BUSY ...", 10000, "GET k");
    expect(other, "-BUSY ...", "LLEN list"); /* stood behind it, and was moved */
    cr_assert(client_readable(busy, 60000)); /* two seconds of a processor that is free */
    expect_next(busy, ":1");
    cr_assert_eq(redis_calls(r, "eval_ro"), 1);
    expect(other, ":0", "LLEN list");
}

SCENARIO(slow, a_loading_server_says_so)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);

    expect(r->direct, "+OK",
           "CONFIG SET key-load-delay 1000 loading-process-events-interval-bytes 1024");
    expect(r->direct, "+OK", "DEBUG POPULATE 4000 key 100");
    cr_assert(client_command(r->direct, "DEBUG RELOAD"));
    struct client *direct = client_connect(r->port);
    await_reply(direct, "-LOADING ...", 10000, "GET k");
    const char *loading = cleanup_printf("%s", ask(direct, "GET k"));
    cr_assert_not_null(strstr(loading, " is loading the dataset in memory"));
    await_reply(c, loading, 10000, "GET k");
    expect(c, loading, "SET k v");
    expect(c, "$# Server...", "INFO server");
}

SCENARIO(slow, a_server_that_is_back_is_used_at_once)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    redis_stop(r);
    await_reply(c, "-UPSTREAM ...", 5000, "SET k v");
    pass_time(1500); /* its back-off is at its longest */
    redis_restart(r);
    /* an attempt may have failed a moment ago: the next is made 100 ms later, not a second */
    await_reply(c, "+OK", 300 * slowdown(), "SET k v");
}
