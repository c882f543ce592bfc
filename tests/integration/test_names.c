/* SPDX-License-Identifier: Apache-2.0
 *
 * test_names.c: Redis behind a host name. (More on names that change is in the unit tests of the resolver, the
 * node and the control connection.)
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(names);

static struct nearside *start_with_name(const char *host, int port)
{
    const char *upstream = cleanup_printf("%s:%d", host, port);
    const char *const sets[] = {"upstream.connect_timeout=300ms", NULL};

    return nearside_start_with(&(struct nearside_options){.upstream = upstream, .sets = sets});
}

SCENARIO(names, first_command_after_the_start_waits_for_the_lookup)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = start_with_name("localhost", r->port);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    expect(c, "$v", "GET k");
    cr_assert_not_null(strstr(nearside_info_text(n), cleanup_printf("name=localhost:%d", r->port)));
}

SCENARIO(names, unknown_name_is_an_error_of_commands_and_not_of_the_start)
{
    struct nearside *n = start_with_name("no-such-host.invalid", 1);
    struct client *c = nearside_connect(n);
    int64_t began;

    await_reply(c,
                "-UPSTREAM no-such-host.invalid:1: not connected (the host name is not resolved...",
                5000, "GET k");
    began = now_ms();
    expect(c, "-UPSTREAM...", "SET k v");
    cr_assert_lt(now_ms() - began, 200 * slowdown(), "it was not told at once");
    expect(c, "+PONG", "PING");
}

/* The name service says so from now on (tests/module/names.c). */
static void name(const char *file, const struct redis *r)
{
    const char *next = cleanup_printf("%s.next", file);
    FILE *f = fopen(next, "w");

    cr_assert(f != NULL);
    cr_assert(fprintf(f, "%d", r->port) > 0);
    cr_assert_eq(fclose(f), 0);
    cr_assert_eq(rename(next, file), 0);
}

SCENARIO(names, failover_behind_a_name_is_followed_though_the_old_master_lives_on)
{
    struct redis *old = redis_start(NULL);
    struct redis *new = redis_start(NULL);
    const char *file = temp_file(temp_dir(), "names", "");

    if (is_sanitized()) {
        cr_skip_test("the sanitizers want to be loaded first");
    }
    name(file, old);
    setenv("NEARSIDE_TEST_NAMES", file, 1);
    setenv("LD_PRELOAD", file_beside("names.so"), 1);
    struct nearside *n = start_with_name("redis.example", 1);
    unsetenv("LD_PRELOAD");
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k old");
    nearside_await_fills(n);
    expect(c, "$old", "GET k");
    redis_await_calls(old, "role", 1, 5000 * slowdown());
    expect(old->direct, "+OK", "REPLICAOF 127.0.0.1 %d", new->port);
    await_reply(c, "-READONLY...", 5000 * slowdown(), "SET k lost");
    name(file, new);
    await_reply(c, "+OK", 5000 * slowdown(), "SET k new");
    expect(new->direct, "$new", "GET k");
    nearside_await_log(n, "leads to other addresses");
    expect(new->direct, "+OK", "SET k newer");
    await_reply(c, "$newer", 5000 * slowdown(), "GET k");
    redis_await_calls(new, "role", 2, 5000 * slowdown());
}
