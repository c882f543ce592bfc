/* SPDX-License-Identifier: Apache-2.0
 *
 * cluster.h: a real Redis Cluster of the test's own on free loopback ports. Main thread of the test
 * only. Nodes are told by their number: first the primaries, then the replicas, then what is added.
 */
#pragma once

#include "redis.h"

#define CLUSTER_NODES_MAX 16
#define CLUSTER_SLOTS     16384

struct cluster {
    int n; /* nodes so far, dead ones included */
    int primaries;
    struct redis *node[CLUSTER_NODES_MAX];
    int bus[CLUSTER_NODES_MAX]; /* port of the cluster bus */
    char id[CLUSTER_NODES_MAX][48];
    bool gone[CLUSTER_NODES_MAX]; /* stopped or removed: not asked and not waited for */
};

/* Starts it: the slots evenly over the primaries, replica i of primary i % primaries. Returns when every
 * node says that the cluster is up and every replica is connected. A node that does not answer for two
 * seconds is failed over by its replica. `extra` as for redis_start; may be NULL. */
struct cluster *cluster_start(int primaries, int replicas, const char *const *extra);
/* Waits until all nodes that are not gone agree that the cluster is up and who owns every slot. */
void cluster_await_ok(struct cluster *c, int64_t ms);

int cluster_slot(struct cluster *c, const char *key);
/* The node that owns the slot, as the first node that is not gone sees it; -1: none. */
int cluster_owner(struct cluster *c, int slot);
/* A key whose slot that node owns: "STEM{tag}", the same tag for each stem. */
const char *cluster_key(struct cluster *c, int node, const char *stem);

/* A slot on its way: between begin and end its keys are in both places, and those that have moved are
 * answered with ASK. `begin` waits until all nodes agree about the epoch; `keys` moves what the source has. */
void cluster_move_begin(struct cluster *c, int slot, int from, int to);
void cluster_move_keys(struct cluster *c, int slot, int from, int to);
void cluster_move_end(struct cluster *c, int slot, int from, int to);
/* Waits until all nodes know the slot's owner: who asks one of them next, or takes a node away that seems to own
 * nothing, would act on what was true before. */
void cluster_await_owner(struct cluster *c, int slot, int owner);
/* All of it. */
void cluster_move_slot(struct cluster *c, int slot, int to);

/* Another node, without slots, that all others know; its number. */
int cluster_add(struct cluster *c);
/* The same as a replica of that one; returns when it is connected. */
int cluster_add_replica(struct cluster *c, int primary);
/* A node that owns nothing any more: the others forget it, then it ends. */
void cluster_remove(struct cluster *c, int node);
/* Kills a node (SIGKILL). */
void cluster_kill(struct cluster *c, int node);
/* Starts one again that was killed; it comes back empty, and as the replica of who has its slots now. */
void cluster_restart(struct cluster *c, int node);
/* The replica takes its primary's place, with its consent; waits until it has. */
void cluster_failover(struct cluster *c, int replica);
