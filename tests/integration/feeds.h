/* SPDX-License-Identifier: Apache-2.0
 *
 * feeds.h: what the tests of the modes of invalidation share: a proxy in a mode in front of a real
 * server, behind a relay that can hold its subscriber.
 */
#pragma once

#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <string.h>

#define FEEDS static inline __attribute__((unused))

#define CLIENTS 4
#define LEASE   300

struct setup {
    struct redis *redis;
    struct relay *link; /* marks the connection that subscribes */
    struct nearside *proxy;
    struct client *c[CLIENTS];
};

__attribute__((unused)) static const char *const NOTIFY[] = {"--notify-keyspace-events", "EA",
                                                             NULL};

FEEDS void open_clients(struct setup *s)
{
    for (int i = 0; i < CLIENTS; i++) {
        s->c[i] = nearside_connect(s->proxy);
        expect(s->c[i], "+PONG", "PING");
    }
}

FEEDS struct setup start_with(const char *mode, const char *lease, const char *set)
{
    struct setup s;

    s.redis = redis_start(NOTIFY);
    s.link = relay_start(s.redis->port, "SUBSCRIBE");
    s.proxy = nearside_start(relay_port(s.link), cleanup_printf("invalidation.mode=%s", mode),
                             cleanup_printf("invalidation.link_lease=%s", lease), set, NULL);
    nearside_await_fills(s.proxy);
    open_clients(&s);
    return s;
}

FEEDS struct setup start(const char *mode)
{
    return start_with(mode, cleanup_printf("%dms", LEASE), NULL);
}

/* Reads a key on a connection until it comes out of the cache. */
FEEDS void make_cached(struct setup *s, struct client *c, const char *key)
{
    int64_t deadline = now_ms() + 5000;

    while (now_ms() < deadline) {
        (void)ask(c, "GET %s", key);
        long long calls = redis_calls(s->redis, "get");
        (void)ask(c, "GET %s", key);
        if (redis_calls(s->redis, "get") == calls) {
            return;
        }
    }
    cr_assert_fail("%s is never answered from the cache:\n%s", key, nearside_info_text(s->proxy));
}

FEEDS bool has_mode(struct nearside *n, const char *mode)
{
    return strstr(nearside_info_text(n), cleanup_printf("\ninvalidation_mode:%s\r\n", mode)) !=
           NULL;
}

FEEDS void await_mode(struct nearside *n, const char *mode, int64_t ms)
{
    int64_t deadline = now_ms() + ms;

    while (!has_mode(n, mode)) {
        cr_assert(now_ms() < deadline, "not %s within %lld ms:\n%s%s", mode, (long long)ms,
                  nearside_info_text(n), nearside_log(n));
        pass_time(10);
    }
}

/* Each way to change a key: done past the proxy, and what a GET gives then. */
__attribute__((unused)) static const struct change {
    const char *before, *change, *want;
} CHANGES[] = {
    {"SET k old", "SET k new", "$new"},
    {"SET k old", "DEL k", "nil"},
    {"DEL k", "SET k new", "$new"},
    {"SET k old", "APPEND k er", "$older"},
    {"SET k old", "PEXPIRE k -1", "nil"},
    {"SET k old", "RENAME k other", "nil"},
    {"MSET k old o new", "RENAME o k", "$new"},
    {"SET k old", "EVAL 'return redis.call(\"SET\",\"k\",\"new\")' 0", "$new"},
    {"SET k old", "MSET a 1 k new b 2", "$new"},
    {"SET k old", "SETRANGE k 0 cold", "$cold"},
    {"MSET k old o new", "COPY o k REPLACE", "$new"},
    {"SET k old", "MOVE k 3", "nil"},
};

/* Writes a key that the proxy is not told. */
FEEDS bool send_script(struct client *c, const char *key, const char *value)
{
    return client_command(c, "EVAL 'return redis.call(\"SET\",ARGV[1],ARGV[2])' 0 %s %s", key,
                          value);
}
