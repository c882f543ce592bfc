/* SPDX-License-Identifier: Apache-2.0
 *
 * pause.h: CLIENT PAUSE that went through here. What Redis holds back until the pause is over would hold up
 * everything behind it on a shared lane, so that until then it goes on connections of its clients' own (D8), as long
 * as there are some. A pause that was asked for elsewhere is not known here.
 * Any worker's thread.
 */
#pragma once

#include "client.h"

/* A command that is on its way, inside MULTI or not: does it begin, or end, a pause? That Redis may refuse it does
 * no harm. */
void pause_note(struct server *server, const struct cmd *cmd, const struct request_view *view,
                int64_t now);

/* Is there one? ms, the worker's clock. */
static inline bool pause_is_on(const struct server *server, int64_t now)
{
    return unlikely(now < atomic_load_explicit(&server->paused_until, memory_order_relaxed));
}

/* For pause_holds, while pause_is_on. */
bool pause_concerns(const struct client *c, const struct cmd *cmd, enum cmd_class class);

/* Would it be held back now, and is there a connection for it? */
static inline bool pause_holds(const struct client *c, const struct cmd *cmd, enum cmd_class class)
{
    return pause_is_on(c->worker->server, c->worker->now) && pause_concerns(c, cmd, class);
}
