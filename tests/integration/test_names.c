/* SPDX-License-Identifier: Apache-2.0
 *
 * test_names.c: Redis behind a host name. (What a name that changes does is in the unit tests of the
 * resolver, where the name service can be played.)
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

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
