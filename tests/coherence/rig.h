/* SPDX-License-Identifier: Apache-2.0
 *
 * rig.h: what scenarios of the rules stand on: a server, a relay that can hold each link, a proxy with
 * two workers, and clients of which it is known which worker serves them and on which links of the
 * relay that worker fetches (its fill connection) and forwards (its lane).
 */
#pragma once

#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

struct rig {
    struct redis *redis;
    struct relay *relay; /* fill links are marked */
    struct nearside *proxy;
    struct client *a, *a2; /* of one worker */
    struct client *b;      /* of the other */
    int fill_a, fill_b;    /* links */
    int lane_a, lane_b;
};

/* A link lease of 10 s, so that a link that is held does not lapse; a server that is silent is not dead
 * for 20 s. `extra` are settings up to a NULL; redis_extra as for redis_start. */
struct rig rig_start(const char *const *redis_extra, const char *const *extra);

/* Reads a key on a connection until it comes out of the cache. */
void rig_make_cached(struct rig *rig, struct client *c, const char *key);

/* How often Redis has executed a command, and a counter of the proxy's. */
long long rig_calls(struct rig *rig, const char *command);
/* Waits until Redis has executed the command more often than `before`. False: not within ms. */
bool rig_await_call(struct rig *rig, const char *command, long long before, int64_t ms);
void rig_await_counter(struct rig *rig, const char *field, long long low);

/* Sends a GET and waits until it has either been answered or joined or begun a fetch: from then on a
 * link that is held may be released without changing what the rules say of the answer. */
void rig_send_get(struct rig *rig, struct client *c, const char *key);
