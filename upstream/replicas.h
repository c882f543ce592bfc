/* SPDX-License-Identifier: Apache-2.0
 *
 * replicas.h: who the replicas of the one node are, outside a cluster. The master says it itself, in its answer
 * to ROLE, which it is asked for anyway (role.h): those that are connected to it and have its data. Sentinels
 * know the same from the master, but later, and name also those that are gone.
 */
#pragma once

#include "control.h"
#include "topology.h"

/* The replicas that `role` names are those of node 0 from now on; none if it is NULL or not a master's. What
 * makes no sense is passed over. The topology is not that of a cluster. */
void replicas_take(struct topology *t, const struct answer *role);
