/* SPDX-License-Identifier: Apache-2.0
 *
 * health.c: the states of a node. The picture is in health.h.
 */
#include "health.h"

#include <stdio.h>

const char *node_state_name(enum node_state state)
{
    static const char *const names[] = {
        [NODE_CONNECTING] = "connecting",
        [NODE_UP] = "up",
        [NODE_SUSPECT] = "suspect",
        [NODE_DOWN] = "down",
    };
    return names[state];
}

static bool enter(struct health *h, enum node_state state, int64_t now)
{
    if (h->state == state) {
        return false;
    }
    h->state = state;
    h->since = now;
    return true;
}

static void note(struct health *h, const char *why, bool waited)
{
    (void)snprintf(h->why, sizeof(h->why), "%s", why);
    h->silent = waited;
}

bool health_trouble(struct health *h, const struct health_limits *limits, const char *why,
                    bool waited, int64_t now)
{
    h->answers = 0;
    note(h, why, waited);
    if (h->troubles > 0 && now - h->troubled_at < HEALTH_APART_MS) {
        return false;
    }
    h->troubled_at = now;
    h->troubles++;
    if (h->troubles >= limits->failures) {
        return enter(h, NODE_DOWN, now);
    }
    return h->state == NODE_UP && enter(h, NODE_SUSPECT, now);
}

bool health_silence(struct health *h, bool dead, int64_t now)
{
    h->answers = 0;
    note(h, "it owes replies and says nothing", true);
    if (dead) {
        return enter(h, NODE_DOWN, now);
    }
    return h->state == NODE_UP && enter(h, NODE_SUSPECT, now);
}

bool health_answer(struct health *h, const struct health_limits *limits, int64_t now)
{
    if (h->state == NODE_CONNECTING) {
        h->troubles = 0;
        return enter(h, NODE_UP, now);
    }
    if (h->state == NODE_UP || (h->answers > 0 && now - h->answered_at < HEALTH_APART_MS)) {
        return false;
    }
    h->answered_at = now;
    h->answers++;
    h->troubles = 0;
    return enter(h, h->answers >= limits->recoveries ? NODE_UP : NODE_SUSPECT, now);
}
