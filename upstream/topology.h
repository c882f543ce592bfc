/* SPDX-License-Identifier: Apache-2.0
 *
 * topology.h: which servers there are, and which of them owns a key. One per process, shared by all
 * workers; thread-safe. What is asked for each command (topology_owner, topology_node) takes no lock.
 *
 *   standalone   one node, index 0, which owns everything
 *   sentinel     one node, index 0, whose address the sentinels name (node_set_address), and its replicas if
 *                they are read from
 *   cluster      up to TOPOLOGY_NODES_MAX nodes; each of the 16384 slots has an owner, or none
 *
 * A node keeps its index as long as maps name it, or anybody has a connection to it. After that a new address gets
 * the index, and the struct node with it: it moves (node_set_address), so that all that vouched for what was there
 * before is void, as after a failover behind sentinels. Who still remembers the index comes to another node of the
 * same cluster, which answers MOVED; node_era tells the two apart.
 *
 * Who changes it: topology_apply (the refresher's, with a whole map) and topology_moved (any worker's,
 * with what a MOVED reply said). For each slot that gets another owner `slot_changed` is called twice,
 * before the new owner can be seen and right after: L1 then holds nothing of that slot that was fetched
 * from the old one when the first command goes to the new one, nor does what was begun in between stay
 * (l1_drop_slot). `changed` comes after, once for all of them.
 */
#pragma once

#include "node.h"

#define TOPOLOGY_SLOTS        16384
#define TOPOLOGY_NODES_MAX    512
#define TOPOLOGY_REPLICAS_MAX 16 /* of one primary that are known; any of them will do */
#define TOPOLOGY_NONE         UINT16_MAX

/* The slot of a key in a cluster: CRC16 of what stands between the first { and the next }, if that is
 * anything, otherwise of all of it, modulo 16384 (Redis Cluster specification, "Hash tags"). */
uint16_t topology_slot(struct slice key);

struct topology;

struct topology_options {
    bool is_cluster;
    bool has_replicas; /* outside a cluster: others than the one node will come */
    /* What every node is created with; its `changed` and `ctx` are not used: node_changed below. `host`
     * and `port` are those of the first node; NULL in a cluster and with sentinels. */
    struct node_options node;
    /* All optional; called on the thread that notices. None may call what changes the topology. */
    void (*slot_changed)(uint16_t slot, void *ctx);
    void (*changed)(void *ctx); /* slots or roles */
    void (*node_changed)(unsigned index,
                         void *ctx);  /* node_options.changed: another server process */
    void (*wants_refresh)(void *ctx); /* somebody has found the map to be out of date */
    void *ctx;
};

/* Copies the options. */
struct topology *topology_create(const struct topology_options *options);
/* Accepts NULL. No connection may use its nodes any more. */
void topology_destroy(struct topology *t);

bool topology_is_cluster(const struct topology *t);
/* Indices are below this: 1, or TOPOLOGY_NODES_MAX. */
uint16_t topology_room(const struct topology *t);

/* The node that owns the slot (in standalone and sentinel any slot); TOPOLOGY_NONE when nobody does. */
uint16_t topology_owner(const struct topology *t, uint16_t slot);
/* index < topology_count. */
struct node *topology_node(const struct topology *t, uint16_t index);
/* Indices so far. */
uint16_t topology_count(const struct topology *t);
/* Any primary that owns slots, for commands that concern no key; `hint` spreads them. NONE: there is
 * no primary. */
uint16_t topology_any(const struct topology *t, uint32_t hint);
/* A replica of the slot's owner, for reads that may lag behind (read_from); `hint` spreads them.
 * NONE: it has none. */
uint16_t topology_replica(const struct topology *t, uint16_t slot, uint32_t hint);

enum topology_role { TOPOLOGY_GONE, TOPOLOGY_PRIMARY, TOPOLOGY_REPLICA };
/* GONE: the newest map does not name it, or it owns nothing. */
enum topology_role topology_role(const struct topology *t, uint16_t index);
/* How many slots it owns, for INFO. */
uint32_t topology_slots_of(const struct topology *t, uint16_t index);
/* Rises whenever the owner of a slot or the role of a node changes. 0: no map has come yet. */
uint64_t topology_version(const struct topology *t);

/* The node at that address; created if it is new (its name, if it is one, is resolved in the
 * background). It has its index until the second map from now at least. NONE: TOPOLOGY_NODES_MAX are in use, or it is
 * no address. For ASK. */
uint16_t topology_find(struct topology *t, struct slice host, struct slice port);
/* The same, and it keeps its index to the end: a seed, which is asked when nobody else is left. */
uint16_t topology_keep(struct topology *t, struct slice host, struct slice port);
/* Is there a node at that address? */
bool topology_knows(struct topology *t, struct slice host, struct slice port);
/* A server said MOVED slot host:port. Takes it over at once and wants a refresh. An empty host is that
 * of the node that said so (`from`). Returns the new owner, or NONE: it makes no sense, or this is no
 * cluster. */
uint16_t topology_moved(struct topology *t, uint16_t slot, uint16_t from, struct slice host,
                        struct slice port);
/* A refresh is wanted: CLUSTERDOWN, a node that is lost, READONLY. Cheap; the refresher limits its
 * rate. */
void topology_suspect(struct topology *t);

/* A whole map, from CLUSTER SHARDS or SLOTS. Ranges may come in any order; slots that no range names
 * have no owner afterwards. Of a primary with several ranges the replicas of the first count. Outside a
 * cluster: one range, of node 0, and its replicas. */
struct topology_range {
    uint16_t first, last;
    uint16_t primary; /* from topology_find */
    const uint16_t *replicas;
    size_t nreplicas;
};
void topology_apply(struct topology *t, const struct topology_range *ranges, size_t n);
