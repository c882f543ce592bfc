/* SPDX-License-Identifier: Apache-2.0
 *
 * health.h: what is thought of a node, from what all connections to it have met. A machine without
 * clock, thread or log; node.c drives it under a lock.
 *
 *                 answered                 trouble
 *   CONNECTING ─────────────► UP ─────────────────────────► SUSPECT
 *        │                    ▲  recovery_threshold answers   │ failure_threshold troubles in
 *        │ failure_threshold  └───────────────────────────────┤ a row, or silence
 *        │ troubles                                           ▼
 *        └──────────────────────────────────────────────────► DOWN
 *                                                SUSPECT ◄────┘ answered
 *
 *   CONNECTING  nothing has answered yet, nor failed often enough
 *   UP          it answers
 *   SUSPECT     a link was lost, a connect failed, or it owes and is silent; commands go on
 *   DOWN        commands fail at once, unless their own connection is up
 *
 * Troubles that come together count once, and so do answers: a server that restarts breaks all its
 * connections in one moment.
 */
#pragma once

#include "../conf/base.h"

#include <stdbool.h>
#include <stdint.h>

enum node_state { NODE_CONNECTING, NODE_UP, NODE_SUSPECT, NODE_DOWN };

const char *node_state_name(enum node_state state);

/* Events closer together than this (ms) are one. */
#define HEALTH_APART_MS 100

struct health {
    enum node_state state;
    int64_t since;     /* ms: of the state; 0: the beginning */
    uint32_t troubles; /* in a row */
    uint32_t answers;  /* in a row, since the last trouble */
    int64_t troubled_at, answered_at;
    bool silent;   /* the last trouble was a wait in vain, not a refusal */
    char why[128]; /* the last trouble; "" before the first */
};

struct health_limits {
    uint32_t failures;   /* troubles in a row until it is DOWN; at least 1 */
    uint32_t recoveries; /* answers in a row until it is UP again; at least 1 */
};

/* All return true when the state has changed. */

/* A connect failed, or a link was lost. `waited`: after a wait, rather than at once. */
bool health_trouble(struct health *h, const struct health_limits *limits, const char *why,
                    bool waited, int64_t now);
/* It owes replies and has said nothing for long; `dead`: for so long that its connections close. */
bool health_silence(struct health *h, bool dead, int64_t now);
/* A handshake is complete, or a reply came on a connection that is up. */
bool health_answer(struct health *h, const struct health_limits *limits, int64_t now);
