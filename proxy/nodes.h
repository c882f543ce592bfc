/* SPDX-License-Identifier: Apache-2.0
 *
 * nodes.h: what this process has for each node of the topology: one set of feeds, and of each worker
 * a feed. In a cluster nodes come and go: a node gets feeds when it becomes a primary; each worker's
 * feed is stopped, on its thread, when the node is a primary no longer, and started again when it is
 * one again.
 */
#pragma once

#include "worker.h"

/* The fixed mode; NONE for auto and off. */
enum feed_mode nodes_mode(const struct conf *conf);

/* Creates the topology and L1, which has covers for its nodes. False with *err filled: memory is out,
 * or the options contradict each other. Main thread, before the workers. */
MUST_CHECK bool nodes_create(struct server *server, char err[ERR_MAX]);
/* When the workers have been destroyed. */
void nodes_destroy(struct server *server);

/* The worker's feeds follow the topology, from now until nodes_stop. Worker's thread. */
void nodes_follow(struct worker *worker);
void nodes_stop(struct worker *worker);
/* Frees them; other workers' INFO must not ask any more. */
void nodes_forget(struct worker *worker);

/* Once per loop turn; every tick. Worker's thread. */
void nodes_flush(struct worker *worker);
void nodes_tick(struct worker *worker);

/* PINGs the node on a lane, unless it was heard lately or a PING is on its way. Every tick nodes_tick does
 * the same for nodes without a feed, if there is a lane. */
void nodes_beat(struct worker *worker, uint16_t index);

/* Is a node known to be of that version (of Redis) or newer? Any thread. */
bool nodes_are_at_least(const struct server *server, unsigned major, unsigned minor);
/* Or to be Valkey, of its own version? That is at least Redis 7.2. */
bool nodes_are_valkey(const struct server *server, unsigned major, unsigned minor);
