/* SPDX-License-Identifier: Apache-2.0
 *
 * redirect.h: a node of a cluster did not execute a command, and says who would (MOVED, ASK) or that the
 * keys are on their way (TRYAGAIN). The request goes there, transparently, in the order in which it and
 * its like were refused; what its client sends next waits until everything before is answered (D14). Its
 * write-begin stays open meanwhile. After seven redirects, or a second of TRYAGAIN, the client gets the node's
 * words. A read whose replica is occupied goes to the primary in the same way, if that will do. Worker's
 * thread only.
 */
#pragma once

#include "client.h"

/* What goes ahead of a request with `asking`; it has a reply of its own. */
#define REDIRECT_ASKING SLICE("*1\r\n$6\r\nASKING\r\n")

/* The first piece of the request's reply, an error: is it such a refusal, and the request taken care of?
 * It is off its connection then, and nothing of the reply has been used. */
MUST_CHECK bool redirect_takes(struct request *request, const struct reply_piece *piece);

/* The request is on nothing; it goes on to the primary that owns its slot, if that is known. */
void redirect_to_owner(struct request *request);

/* The same for a fetch on F or a command of a batch: what the error says of the slot or the node is
 * noted. True: it is such a refusal, and the caller is to try elsewhere. `text` is its first piece. */
MUST_CHECK bool redirect_notes(struct worker *worker, uint16_t node, struct slice text);

/* Before anything else. */
void redirect_init(struct worker *worker);
/* Once per turn, before anything is written: sends again what may be. */
void redirect_flush(struct worker *worker);
/* The worker ends: nothing is sent any more. */
void redirect_fini(struct worker *worker);

/* In a cluster, and where replicas are read from: must the client's next request wait for what is
 * unanswered, because a slot has another owner, a node another role, or a request is being redirected? */
bool redirect_waits(struct client *c);
