/* SPDX-License-Identifier: Apache-2.0
 *
 * test_rig.c: starts a rig, and finds out which links belong to which client: a read of a key of its
 * own name is seen on the way up. The scenarios are in the other test_*.c.
 */
#include "rig.h"

#include <string.h>

#define TRIES 16

/* The link on which a command with a word of its own goes up. */
static int link_of(struct rig *rig, struct client *c, const char *command)
{
    static int probes;
    const char *word = cleanup_printf("probe-%d-", probes++);

    (void)ask(c, "%s %s", command, word);
    int link = relay_find(rig->relay, word);
    cr_assert(link >= 0, "%s was not seen on any link", command);
    return link;
}

/* Connects until there are two clients of one worker and one of another. */
static void find_clients(struct rig *rig)
{
    struct client *c[TRIES];
    int fill[TRIES];

    for (int n = 0; n < TRIES; n++) {
        c[n] = nearside_connect(rig->proxy);
        fill[n] = link_of(rig, c[n], "GET");
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < n; j++) {
                if (i != j && fill[i] == fill[j] && fill[i] != fill[n]) {
                    rig->a = c[i];
                    rig->a2 = c[j];
                    rig->b = c[n];
                    rig->fill_a = fill[i];
                    rig->fill_b = fill[n];
                    return;
                }
            }
        }
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < i; j++) {
                if (fill[i] == fill[n] && fill[j] != fill[n]) {
                    rig->a = c[i];
                    rig->a2 = c[n];
                    rig->b = c[j];
                    rig->fill_a = fill[n];
                    rig->fill_b = fill[j];
                    return;
                }
            }
        }
    }
    cr_assert_fail("all clients are served by one worker");
}

struct rig rig_start(const char *const *redis_extra, const char *const *extra)
{
    const char *sets[24] = {"proxy.workers=2", "invalidation.link_lease=10s",
                            "upstream.dead_after=20s"};
    struct rig rig = {.redis = redis_start(redis_extra)};

    for (size_t n = 0; extra != NULL && extra[n] != NULL; n++) {
        sets[3 + n] = extra[n];
    }
    rig.relay = relay_start(rig.redis->port, "TRACKING");
    rig.proxy = nearside_start_with(
        &(struct nearside_options){.upstream_port = relay_port(rig.relay), .sets = sets});
    nearside_await_fills(rig.proxy);
    find_clients(&rig);
    rig.lane_a = link_of(&rig, rig.a, "STRLEN");
    rig.lane_b = link_of(&rig, rig.b, "STRLEN");
    cr_assert(rig.lane_a != rig.lane_b && rig.lane_a != rig.fill_a && rig.lane_b != rig.fill_b);
    return rig;
}

void rig_make_cached(struct rig *rig, struct client *c, const char *key)
{
    int64_t deadline = now_ms() + 3000;

    while (now_ms() < deadline) {
        (void)ask(c, "GET %s", key);
        long long calls = redis_calls(rig->redis, "get");
        (void)ask(c, "GET %s", key);
        if (redis_calls(rig->redis, "get") == calls) {
            return;
        }
    }
    cr_assert_fail("%s is never answered from the cache", key);
}

long long rig_calls(struct rig *rig, const char *command)
{
    return redis_calls(rig->redis, command);
}

bool rig_await_call(struct rig *rig, const char *command, long long before, int64_t ms)
{
    int64_t deadline = now_ms() + ms;

    while (redis_calls(rig->redis, command) <= before) {
        if (now_ms() > deadline) {
            return false;
        }
        pass_time(1);
    }
    return true;
}

void rig_await_counter(struct rig *rig, const char *field, long long low)
{
    nearside_await_info(rig->proxy, field, low, INT64_MAX, 5000);
}

/* Misses: those that wait for a fetch, whoever's. */
static long long misses(struct rig *rig)
{
    return nearside_info(rig->proxy, "l1_misses") + nearside_info(rig->proxy, "l1_passes");
}

void rig_send_get(struct rig *rig, struct client *c, const char *key)
{
    long long before = misses(rig);
    int64_t deadline = now_ms() + 5000;

    cr_assert(client_command(c, "GET %s", key));
    while (!client_readable(c, 1) && misses(rig) == before) {
        cr_assert(now_ms() < deadline, "GET %s is neither answered nor a miss", key);
    }
}
