/* SPDX-License-Identifier: Apache-2.0
 *
 * fence.h: after a command of unknown effect (class U: scripts, functions, commands we do not know),
 * nothing that L1 holds may be older than it (W3). The fence makes sure without emptying L1: a PING on
 * every fill connection to the node that executed it, sent after the command's reply has arrived. Its PONG comes behind every push
 * that the command caused, so when all have answered, everything the command changed has been dropped
 * (X1). Only then the reply is released.
 *
 * Fences are gathered: all requests of one worker that ask for one node within one turn share one. A fill
 * connection that is down or lost needs nothing, since what it fetched is void. One that does not
 * answer in time is voided by the worker that waits (X4); a client is never held longer than that.
 * Worker's thread only.
 */
#pragma once

#include "request.h"

struct fence;

/* The first bytes of the request's reply have arrived: it is held (request->fencing) until a fence
 * that starts at the end of this turn is through; then fenced(request) is called. False: memory is
 * out and nothing is held; the caller drops everything instead. */
MUST_CHECK bool fence_join(struct worker *worker, struct request *request);

/* At the end of a turn: sends the PINGs for what joined during it. */
void fence_start(struct worker *worker);
/* Every tick: voids the fill connections that are late. */
void fence_tick(struct worker *worker);
