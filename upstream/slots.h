/* SPDX-License-Identifier: Apache-2.0
 *
 * slots.h: what a node of a cluster answers to CLUSTER SHARDS (7.0 and later) and CLUSTER SLOTS, as
 * ranges for topology_apply. The reply is a peer's: what makes no sense in it is left out, and one that is
 * no such reply at all is refused. Any thread.
 */
#pragma once

#include "topology.h"

/* What is beyond is left out. */
#define SLOTS_RANGES_MAX   ((size_t)TOPOLOGY_SLOTS)
#define SLOTS_NODES_MAX    ((size_t)65536)
#define SLOTS_REPLICAS_MAX 64 /* of one shard */

struct slots_map {
    struct topology_range *ranges;
    size_t n;
    uint16_t *replicas; /* what the ranges point into */
    size_t nreplicas;
    uint32_t covered; /* slots that have an owner */
};

enum slots_reply { SLOTS_SHARDS, SLOTS_SLOTS };

/* Reads the reply of the node `from`, whose host stands for one that is left out. Nodes that are new are
 * added to the topology. False: it is no such reply, or memory is out; *map is empty then. */
MUST_CHECK bool slots_read(struct topology *t, struct slice reply, enum slots_reply kind,
                           uint16_t from, struct slots_map *map);
void slots_map_fini(struct slots_map *map);
