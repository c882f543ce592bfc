/* SPDX-License-Identifier: Apache-2.0
 *
 * follow.h: on the main thread, whatever keeps the topology up to date: in a cluster the refresher of its
 * map, with sentinels who the master is, otherwise whether the server's role changes. Main thread, but for follow_wake.
 */
#pragma once

#include "server.h"

#include <ev.h>

struct follow;

/* Starts asking. The topology must outlive it. */
struct follow *follow_create(struct server *server, struct ev_loop *loop);
/* When the workers have been joined. Accepts NULL. */
void follow_destroy(struct follow *follow);

/* The topology is in doubt. Any thread. Accepts NULL. */
void follow_wake(struct follow *follow);

struct cluster_stats;
/* Any thread. False: there is no cluster. */
bool follow_cluster_stats(const struct follow *follow, struct cluster_stats *out);
struct sentinel_status;
/* Any thread. False: there are no sentinels. */
bool follow_sentinel_status(const struct follow *follow, struct sentinel_status *out);
