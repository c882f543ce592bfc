/* SPDX-License-Identifier: Apache-2.0
 *
 * forward.h: requests on lanes: submission, the effect of their replies on L1, and what happens when
 * their connection dies. Worker's thread only.
 */
#pragma once

#include "client.h"

/* The lane for a node, a db, a protocol and a road (ROAD_LANE, ROAD_BULK or ROAD_REPLICA). */
struct conn *forward_lane(struct worker *worker, uint16_t node, uint32_t db, bool resp3,
                          enum road road);
/* The lane a request is or was on. */
struct conn *forward_lane_of(const struct request *request);

/* Has the lane (or, for ROAD_FILL, the fill connection) more waiting than it should (back-pressure: the client's input waits)? */
bool forward_is_full(struct worker *worker, uint16_t node, uint32_t db, bool resp3, enum road road);
bool forward_lane_is_full(const struct conn *lane);

/* Sends the request, which is in its client's queue with road, class and keys set: write-begin first
 * (W1). When the lane takes nothing it is answered with an error at once. */
void forward_request(struct request *request, struct slice raw, struct blob *owner);

/* The reply to a HELLO, with the client's id in it. */
MUST_CHECK bool forward_put_hello(struct chain *out, struct slice reply, uint64_t client_id);

/* Is it that of a request which forward_request has sent? */
bool forward_is_call(const struct call *call);

/* It will not be sent (again), and was never executed: its effect on L1 ends. */
void forward_drop(struct request *request);

/* The fence that held the request's reply is through. */
void forward_fenced(struct request *request);

/* Answers the request, which is in its client's queue and has no part of a reply to come, with this error:
 * each command of it that is unanswered. */
void forward_refuse(struct request *request, const char *text);
/* The same with -UPSTREAM and why. */
void forward_fail(struct request *request, const char *why);
/* The same for a request that the lane did not take, */
void forward_unsent(struct request *request, const struct conn *lane, enum conn_status status);
/* or whose connection was lost. */
void forward_lost(struct request *request, enum call_loss loss);

/* Is the reply that its client may not do that? Then nothing was read. `piece` may be NULL. */
bool forward_is_forbidden(const struct reply_piece *piece);

/* Sent (again) on another connection, would a read come behind later writes of its client, which may have
 * been executed, and see too much, or ahead of something of unknown effect (D14)? */
bool forward_is_overtaken(const struct request *request);
