/* SPDX-License-Identifier: Apache-2.0
 *
 * replication.h: a replica that follows Redis through Nearside, or a program that does as if (redis-cli --rdb).
 *
 *   REPLCONF listening-port ... ─► on a connection of the client's own, which it keeps from then on
 *   SYNC, PSYNC ─► if Redis agrees: what it says from then on is no reply but a stream without end
 *                  (conn.h: endless), which the client gets as it comes; what the client says is sent as it is
 *
 * Nothing of it concerns L1: what the stream brings is another server's. Not in front of a cluster, which is no one
 * server. Worker's thread only.
 */
#pragma once

#include "client.h"

/* SYNC or PSYNC? */
bool replication_begins(const struct cmd *cmd);
/* REPLCONF ACK or GETACK, to which Redis says nothing? */
bool replication_is_silent(const struct cmd *cmd, const struct request_view *view);
/* SYNC or PSYNC of who is subscribed, or monitors: what comes on its connection could not be told from the stream.
 * Answered with an error, or, to who monitors, with nothing, as by Redis. */
bool replication_declines(struct client *c, const struct cmd *cmd);
/* Is it one of these three that Redis does not get? Answered with an error in front of a cluster, and with nothing
 * if it is silent. */
bool replication_answers(struct client *c, const struct cmd *cmd, const struct request_view *view);

/* The reply to what begins it arrives. False: Redis refuses, in an ordinary error. May close the client. */
bool replication_takes(struct request *request, const struct reply_piece *piece);

/* Input of a client whose stream has begun: all of it goes to Redis as it is, the line feeds too by which a replica
 * that loads says that it is there. May close the client. */
void replication_send(struct client *c, struct slice bytes);
