/* SPDX-License-Identifier: Apache-2.0
 *
 * standin.h: commands inside MULTI that concern the client's own connection (CLIENT, HELLO, SELECT ...).
 * Redis queues, and executes, the command itself where that does no harm, or something in its place that
 * is refused or queued for the same reasons; in the reply to EXEC the element is followed (HELLO, SELECT, SUBSCRIBE,
 * MONITOR), or exchanged for the answer that is given here. Worker's thread only.
 */
#pragma once

#include "client.h"

enum standin {
    STANDIN_NONE,    /* Redis queues it, and that is all */
    STANDIN_FOLLOWS, /* Redis queues it, and its element is looked at */
    STANDIN_ANSWERS, /* Redis queues something else, and it is answered here */
    STANDIN_REFUSED, /* it cannot be queued through here */
};

/* What becomes of the command, which comes inside MULTI. */
enum standin standin_for(const struct client *c, const struct cmd *cmd, enum cmd_class class,
                         const struct request_view *view);
/* Is it answered when all workers were asked, and the rest of EXEC's reply behind that? */
bool standin_asks(const struct cmd *cmd);
/* What is sent in its place (STANDIN_ANSWERS): the same subcommand of CLIENT, or INFO, with arguments
 * that make no sense, since permissions come before those; for others a PING. NULL: memory is out. */
MUST_CHECK struct blob *standin_command(const struct cmd *cmd, const struct request_view *view);

/* The server's answer to a command inside MULTI, whose raw is kept if it `stands_in`. */
void standin_queued(struct client *c, struct request *request, const struct reply_piece *piece);
/* The reply to an EXEC that `executes` is whole, in request->reply, and may leave: it does, with what is to
 * stand in it. Takes the request; may close the client. */
void standin_executed(struct client *c, struct request *request);
/* The transaction is over, or the connection gone. */
void standin_forget(struct client *c);
