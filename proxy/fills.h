/* SPDX-License-Identifier: Apache-2.0
 *
 * fills.h: GETs of one client that follow each other in its input and miss. They are fetched together: one request,
 * one place in the client's queue, one call on F that owes a value and a TTL for each. Each has a lease of its own
 * (R1), which others may join, and its value is L1's before it is the client's. Worker's thread only.
 *
 *   GET a, GET b, GET c, PTTL a, PTTL b, PTTL c ··· values ··· TTLs, for each: l1_fill ─► the client
 *
 * A value that is too large to be kept ends that: what has come is delivered without being kept, and the rest passed
 * on as it comes. If F is lost, what is unanswered becomes a batch of reads on a lane (batch.h).
 *
 * Not in a cluster, not for other databases than F's.
 */
#pragma once

#include "batch.h"

/* Begins to gather GETs of the client, which is plain (dispatch.h). NULL: not now, they go one by one. */
MUST_CHECK struct batch *fills_begin(const struct client *c);
/* Takes more: the client's next GETs, of which the i-th ends behind ends[i] bytes of its input. Returns how many, up to
 * the first that is not for this batch: it is full, or the key is here, or somebody fetches it. */
MUST_CHECK size_t fills_add(struct client *c, struct batch *batch, const struct l1_key *keys,
                            const size_t *ends, size_t n);
/* Sends what has been gathered, or, if that is nothing, forgets the batch. `in` is the client's input. Returns how many
 * requests those were. May close the client. */
unsigned fills_send(struct client *c, struct batch *batch, struct slice in, struct blob *owner);

/* The lease of the key in a request of kind REQUEST_FILLS; NULL: it has ended. */
struct l1_lease *fills_lease(const struct request *request, uint64_t hash);
/* `later`, a GET of kind REQUEST_GET that waits for no lease and may not go before `earlier`: it looks again when the
 * fills have ended that `earlier` is, or waits for. False: it is and does neither. */
bool fills_await(struct request *earlier, struct request *later);

/* Its client waits no longer, and nobody else is to wait for it. The request is still owed its replies. */
void fills_give_up(struct request *request);
