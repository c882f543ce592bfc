/* SPDX-License-Identifier: Apache-2.0
 *
 * fanout.h: commands that concern several nodes of a cluster (spread.def): split, sent on, joined.
 *
 *                    ┌─► part ─► dispatch ─► L1, lanes ... ─► its output ─┐
 *   client's request ┤                                                    ├─► join ─► client
 *                    └─► part ─► dispatch ─► L1, lanes ... ─► its output ─┘
 *
 * A part is a client without a socket, whose input is there from the start: what stands for the request
 * is served like everything else, with leases, write-begins, redirects and errors as they are. A request
 * with keys has one part, whose commands go each to its slot; one without has a part for each primary.
 * Worker's thread only.
 */
#pragma once

#include "client.h"
#include "dispatch.h"

/* In a cluster: is this a request for several nodes? Then *result says what became of it. */
MUST_CHECK bool fanout_takes(struct client *c, const struct cmd *cmd, enum cmd_class class,
                             const struct request_view *view, enum dispatch *result);

/* All replies of the part are in its output. */
void fanout_part_done(struct client *part);
/* It was closed; if before that, its command has failed. */
void fanout_part_closed(struct client *part);
/* The request (REQUEST_FANOUT) has waited for too long: parts are closed, and what they have not sent
 * is not sent any more. Leaves it to be answered by its client, or as a ghost that ends by itself. */
void fanout_give_up(struct request *request);
/* The worker ends: parts are given up. */
void fanout_close_parts(struct worker *worker);
