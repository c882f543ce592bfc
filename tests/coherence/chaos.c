/* SPDX-License-Identifier: Apache-2.0
 *
 * chaos.c: trouble with the links between the proxy and Redis, and with both processes. Runs on the
 * main thread, because processes are its alone. Each trouble but a delay is over when chaos_make
 * returns.
 */
#include "checker.h"

#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const trouble_names[TROUBLES] = {
    [TROUBLE_KILL] = "kill",   [TROUBLE_CUT] = "cut",     [TROUBLE_FREEZE] = "freeze",
    [TROUBLE_LANE] = "lane",   [TROUBLE_DELAY] = "delay", [TROUBLE_STOP] = "stop",
    [TROUBLE_PAUSE] = "pause", [TROUBLE_EVICT] = "evict",
};

static int dice(struct chaos *chaos, int n)
{
    return rand_r(&chaos->seed) / 16 % n;
}

/* The server ends one connection of the proxy, chosen among those that track or among the others. */
static bool kill_one(struct chaos *chaos)
{
    bool tracking = dice(chaos, 3) > 0;
    long long ids[256];
    int n = 0;

    client_command(chaos->redis->direct, "CLIENT LIST TYPE NORMAL");
    const struct reply *reply = client_reply(chaos->redis->direct);
    char *list = strdup(reply->type == '$' && !reply->null ? reply->text : "");
    char *save = NULL;
    for (char *line = strtok_r(list, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *flags = strstr(line, " flags=");
        /* ours have a name */
        bool named = strstr(line, " name=checker") != NULL;
        if (flags != NULL && !named && n < 256) {
            flags += strlen(" flags=");
            bool tracks = memchr(flags, 't', strcspn(flags, " ")) != NULL;
            n += tracks == tracking && sscanf(line, "id=%lld", &ids[n]) == 1 ? 1 : 0;
        }
    }
    free(list);
    if (n == 0) {
        return false;
    }
    return strcmp(ask(chaos->redis->direct, "CLIENT KILL ID %lld", ids[dice(chaos, n)]), ":1") == 0;
}

static bool cut(struct chaos *chaos)
{
    bool fills_only = dice(chaos, 2) == 0;

    int how = dice(chaos, 4);
    if (how < 2) {
        /* with `how` their successors take a while to come up */
        relay_hold(chaos->relay, how > 0 ? RELAY_UP : 0, true);
        relay_cut(chaos->relay, fills_only);
        pass_time(how * dice(chaos, 200));
        relay_release(chaos->relay);
        return true;
    }
    int link = relay_pick(chaos->relay, (unsigned)dice(chaos, 64), fills_only);
    if (link < 0) {
        return false;
    }
    relay_cut_link(chaos->relay, link);
    return true;
}

/* Some links say nothing for a while, without being closed. */
static bool freeze(struct chaos *chaos)
{
    static const unsigned ways[] = {RELAY_DOWN, RELAY_DOWN, RELAY_UP, RELAY_BOTH};
    bool one = dice(chaos, 2) == 0;
    int link = one ? relay_pick(chaos->relay, (unsigned)dice(chaos, 64), true) : -1;
    unsigned way = ways[dice(chaos, 4)];

    if (link >= 0) {
        relay_hold_link(chaos->relay, link, way);
    } else {
        relay_hold(chaos->relay, way, dice(chaos, 4) > 0);
    }
    pass_time(20 + dice(chaos, chaos->options->lease_ms * 3 / 2));
    relay_release(chaos->relay);
    return true;
}

static bool hold_lane(struct chaos *chaos)
{
    int link = relay_pick(chaos->relay, (unsigned)dice(chaos, 64), false);

    if (link < 0) {
        return false;
    }
    relay_hold_link(chaos->relay, link, dice(chaos, 2) == 0 ? RELAY_UP : RELAY_DOWN);
    pass_time(5 + dice(chaos, 100));
    relay_release(chaos->relay);
    return true;
}

/* Lasts until the next one, whatever else happens meanwhile; half of them end it. */
static bool delay(struct chaos *chaos)
{
    static const int most[] = {0, 0, 3, 40};

    relay_delay(chaos->relay, RELAY_DOWN, dice(chaos, most[dice(chaos, 4)] + 1));
    relay_delay(chaos->relay, RELAY_UP, dice(chaos, most[dice(chaos, 4)] + 1));
    /* what is announced comes later than what is answered, or the other way round */
    relay_delay_marked(chaos->relay, RELAY_DOWN, dice(chaos, most[1 + dice(chaos, 3)] + 1));
    relay_delay_marked(chaos->relay, RELAY_UP, dice(chaos, most[dice(chaos, 4)] + 1));
    return true;
}

static bool stop_proxy(struct chaos *chaos)
{
    process_freeze(chaos->proxy->process);
    pass_time(10 + dice(chaos, chaos->options->lease_ms * 3 / 2));
    process_thaw(chaos->proxy->process);
    return true;
}

static bool pause_redis(struct chaos *chaos)
{
    redis_freeze(chaos->redis);
    pass_time(10 + dice(chaos, chaos->options->lease_ms));
    redis_thaw(chaos->redis);
    return true;
}

static bool evict(struct chaos *chaos)
{
    bool ok = strcmp(ask(chaos->redis->direct, "CONFIG SET tracking-table-max-keys 2"), "+OK") == 0;

    pass_time(50 + dice(chaos, 200));
    (void)ask(chaos->redis->direct, "CONFIG SET tracking-table-max-keys 1000000");
    return ok;
}

static bool (*const troubles[TROUBLES])(struct chaos *chaos) = {
    [TROUBLE_KILL] = kill_one,     [TROUBLE_CUT] = cut,     [TROUBLE_FREEZE] = freeze,
    [TROUBLE_LANE] = hold_lane,    [TROUBLE_DELAY] = delay, [TROUBLE_STOP] = stop_proxy,
    [TROUBLE_PAUSE] = pause_redis, [TROUBLE_EVICT] = evict,
};

void chaos_make(struct chaos *chaos)
{
    int kind = dice(chaos, TROUBLES);

    while ((chaos->options->chaos & 1U << kind) == 0) {
        kind = (kind + 1) % TROUBLES;
    }
    chaos->done[kind] += troubles[kind](chaos) ? 1 : 0;
}
