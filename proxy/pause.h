/* SPDX-License-Identifier: Apache-2.0
 *
 * pause.h: CLIENT PAUSE that went through here. What Redis holds back until the pause is over would hold up
 * everything behind it on a shared lane, so that until then it goes on connections of its clients' own (D8), as long
 * as half of them are left for others. A pause that was asked for elsewhere is not known here.
 * Any worker's thread.
 */
#pragma once

#include "client.h"

struct pause {
    int64_t ms; /* 0: none */
    bool all;   /* reads too */
};

/* The request is about to be sent on its client's own connection: does it begin, or end, a pause, itself or as
 * the EXEC of one? That is noted at once, as what is sent right behind it would be held back already
 * (request->pauses). */
void pause_note(struct client *c, struct request *request, const struct cmd *cmd,
                const struct request_view *view);
/* There is none: it was refused, or the server is another one. */
void pause_cancel(struct server *server);

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
