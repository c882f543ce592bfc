/* SPDX-License-Identifier: Apache-2.0
 *
 * chaos.c: trouble with the links between the proxy and Redis, and with both processes. Runs on the
 * main thread, because processes are its alone. Each trouble but a delay is over when chaos_make
 * returns.
 */
#include "checker.h"

#include "../support/await.h"
#include "../support/cluster.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const trouble_names[TROUBLES] = {
    [TROUBLE_KILL] = "kill",     [TROUBLE_CUT] = "cut",     [TROUBLE_FREEZE] = "freeze",
    [TROUBLE_LANE] = "lane",     [TROUBLE_DELAY] = "delay", [TROUBLE_STOP] = "stop",
    [TROUBLE_PAUSE] = "pause",   [TROUBLE_EVICT] = "evict", [TROUBLE_MOVE] = "move",
    [TROUBLE_SWITCH] = "switch", [TROUBLE_DEATH] = "death", [TROUBLE_NODE] = "node",
};

#define BIT(trouble) (1U << (trouble))
/* Those that change who is responsible. */
#define CHANGES (BIT(TROUBLE_MOVE) | BIT(TROUBLE_SWITCH) | BIT(TROUBLE_DEATH) | BIT(TROUBLE_NODE))

/* Sentinels would take a master that stands still for dead. */
static const unsigned fitting[MODES] = {
    [MODE_STANDALONE] = BIT(TROUBLE_MOVE) - 1,
    [MODE_CLUSTER] =
        CHANGES | BIT(TROUBLE_KILL) | BIT(TROUBLE_STOP) | BIT(TROUBLE_PAUSE) | BIT(TROUBLE_EVICT),
    [MODE_SENTINEL] = BIT(TROUBLE_SWITCH) | BIT(TROUBLE_DEATH) | BIT(TROUBLE_KILL) |
                      BIT(TROUBLE_STOP) | BIT(TROUBLE_EVICT),
};

unsigned chaos_of_mode(enum mode mode)
{
    return fitting[mode];
}

int chaos_dice(struct chaos *chaos, int n)
{
    return rand_r(&chaos->seed) / 16 % n;
}

/* The server ends one connection of the proxy, chosen among those that track or among the others. */
static bool kill_one(struct chaos *chaos)
{
    bool tracking = chaos_dice(chaos, 3) > 0;
    long long ids[256];
    int n = 0;

    (void)ask(chaos->redis->direct, "CLIENT SETNAME checker");
    client_command(chaos->redis->direct, "CLIENT LIST TYPE NORMAL");
    const struct reply *reply = client_reply(chaos->redis->direct);
    char *list = strdup(reply->type == '$' && !reply->null ? reply->text : "");
    char *save = NULL;
    for (char *line = strtok_r(list, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        const char *flags = strstr(line, " flags=");
        /* ours have a name, and those of sentinels */
        bool named =
            strstr(line, " name=checker") != NULL || strstr(line, " name=sentinel") != NULL;
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
    return strcmp(ask(chaos->redis->direct, "CLIENT KILL ID %lld", ids[chaos_dice(chaos, n)]),
                  ":1") == 0;
}

static bool cut(struct chaos *chaos)
{
    bool fills_only = chaos_dice(chaos, 2) == 0;

    int how = chaos_dice(chaos, 4);
    if (how < 2) {
        /* with `how` their successors take a while to come up */
        relay_hold(chaos->relay, how > 0 ? RELAY_UP : 0, true);
        relay_cut(chaos->relay, fills_only);
        pass_time(how * chaos_dice(chaos, 200));
        relay_release(chaos->relay);
        return true;
    }
    int link = relay_pick(chaos->relay, (unsigned)chaos_dice(chaos, 64), fills_only);
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
    bool one = chaos_dice(chaos, 2) == 0;
    int link = one ? relay_pick(chaos->relay, (unsigned)chaos_dice(chaos, 64), true) : -1;
    unsigned way = ways[chaos_dice(chaos, 4)];

    if (link >= 0) {
        relay_hold_link(chaos->relay, link, way);
    } else {
        relay_hold(chaos->relay, way, chaos_dice(chaos, 4) > 0);
    }
    pass_time(20 + chaos_dice(chaos, chaos->options->lease_ms * 3 / 2));
    relay_release(chaos->relay);
    return true;
}

static bool hold_lane(struct chaos *chaos)
{
    int link = relay_pick(chaos->relay, (unsigned)chaos_dice(chaos, 64), false);

    if (link < 0) {
        return false;
    }
    relay_hold_link(chaos->relay, link, chaos_dice(chaos, 2) == 0 ? RELAY_UP : RELAY_DOWN);
    pass_time(5 + chaos_dice(chaos, 100));
    relay_release(chaos->relay);
    return true;
}

/* Lasts until the next one, whatever else happens meanwhile; half of them end it. */
static bool delay(struct chaos *chaos)
{
    static const int most[] = {0, 0, 3, 40};

    relay_delay(chaos->relay, RELAY_DOWN, chaos_dice(chaos, most[chaos_dice(chaos, 4)] + 1));
    relay_delay(chaos->relay, RELAY_UP, chaos_dice(chaos, most[chaos_dice(chaos, 4)] + 1));
    /* what is announced comes later than what is answered, or the other way round */
    relay_delay_marked(chaos->relay, RELAY_DOWN,
                       chaos_dice(chaos, most[1 + chaos_dice(chaos, 3)] + 1));
    relay_delay_marked(chaos->relay, RELAY_UP, chaos_dice(chaos, most[chaos_dice(chaos, 4)] + 1));
    return true;
}

static bool stop_proxy(struct chaos *chaos)
{
    process_freeze(chaos->proxy->process);
    pass_time(10 + chaos_dice(chaos, chaos->options->lease_ms * 3 / 2));
    process_thaw(chaos->proxy->process);
    return true;
}

static bool pause_redis(struct chaos *chaos)
{
    redis_freeze(chaos->redis);
    pass_time(10 + chaos_dice(chaos, chaos->options->lease_ms));
    redis_thaw(chaos->redis);
    return true;
}

static bool evict(struct chaos *chaos)
{
    bool ok = strcmp(ask(chaos->redis->direct, "CONFIG SET tracking-table-max-keys 2"), "+OK") == 0;

    pass_time(50 + chaos_dice(chaos, 200));
    (void)ask(chaos->redis->direct, "CONFIG SET tracking-table-max-keys 1000000");
    return ok;
}

static bool (*const troubles[TROUBLES])(struct chaos *chaos) = {
    [TROUBLE_KILL] = kill_one,      [TROUBLE_CUT] = cut,
    [TROUBLE_FREEZE] = freeze,      [TROUBLE_LANE] = hold_lane,
    [TROUBLE_DELAY] = delay,        [TROUBLE_STOP] = stop_proxy,
    [TROUBLE_PAUSE] = pause_redis,  [TROUBLE_EVICT] = evict,
    [TROUBLE_MOVE] = move_slots,    [TROUBLE_SWITCH] = switch_over,
    [TROUBLE_DEATH] = kill_primary, [TROUBLE_NODE] = add_and_remove,
};

/* Any but changes; every fourth time the next change. */
static int choose(struct chaos *chaos)
{
    unsigned kinds = chaos->options->chaos;
    bool change = (kinds & ~CHANGES) == 0 || ((kinds & CHANGES) != 0 && chaos->turns % 4 == 3);
    int kind = change ? TROUBLE_MOVE + chaos->turns / 4 % (TROUBLES - TROUBLE_MOVE)
                      : chaos_dice(chaos, TROUBLES);

    kinds &= change ? CHANGES : ~CHANGES;
    for (kind %= TROUBLES; (kinds & BIT(kind)) == 0; kind = (kind + 1) % TROUBLES) {
        /* the next one that is allowed */
    }
    chaos->turns++;
    return kind;
}

void chaos_make(struct chaos *chaos)
{
    int kind = choose(chaos);

    if (chaos->cluster != NULL) {
        chaos->redis = chaos->cluster->node[chaos_primary(chaos)];
    }
    chaos->done[kind] += troubles[kind](chaos) ? 1 : 0;
}
