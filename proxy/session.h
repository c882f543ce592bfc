/* SPDX-License-Identifier: Apache-2.0
 *
 * session.h: requests of a client that is pinned or has to be (pinned.h): MULTI and what it queues,
 * WATCH and the reads behind it, blocking commands. Worker's thread only.
 */
#pragma once

#include "dispatch.h"

/* Does this request go on a pinned connection: because the command needs one, or because the client
 * has one and is in the middle of something? */
bool session_takes(const struct client *c, const struct cmd *cmd, enum cmd_class class,
                   const struct request_view *view);

/* It was refused by the node that the client's connection leads to, or a login has gone ahead of it: it goes to
 * request->node, with the session as far as it has come, or behind ASKING (redirect.h). */
void session_send_again(struct client *c, struct request *request);
/* All of its reply is here. SUNSUBSCRIBE without channels goes on to the next node with any: true. */
bool session_goes_on(struct client *c, struct request *request);
/* RESET: there is no transaction any more. */
void session_reset(struct client *c);
/* Behind this there is no transaction and nothing is watched. */
void session_expect_end(struct client *c);
void session_forget_log(struct client *c);

/* Sends it there, pinning the client first if need be. */
MUST_CHECK enum dispatch session_request(struct client *c, const struct cmd *cmd,
                                         enum cmd_class class, const struct request_view *view,
                                         struct blob *owner);
