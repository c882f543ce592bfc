/* SPDX-License-Identifier: Apache-2.0
 *
 * cluster.h: the one who asks who owns which slot: one per process, on the main thread's loop. It asks a
 * node that is known to be of the cluster, or else one of the seeds, at least every refresh_ms, and
 * sooner when somebody has found the map to be wrong, but not more often than every 100 ms, and less
 * often (down to once a second) as long as nothing changes, by a map or by a MOVED. One question is open
 * at a time.
 */
#pragma once

#include "topology.h"

#include <ev.h>

struct cluster;

struct cluster_options {
    struct ev_loop *loop;
    struct topology *topology;
    char *const *seeds; /* host and port in turn: 2 * nseeds texts */
    size_t nseeds;
    int64_t refresh_ms;
    int64_t (*now)(void); /* ms, CLOCK_BOOTTIME */
};

/* Copies the options, adds the seeds to the topology. Asks from the first cluster_tick on. */
struct cluster *cluster_create(const struct cluster_options *options);
/* Accepts NULL. */
void cluster_destroy(struct cluster *cluster);

/* Every 10 to 100 ms. */
void cluster_tick(struct cluster *cluster);
/* The map is in doubt. Any thread. */
void cluster_wake(struct cluster *cluster);

struct cluster_stats {
    uint64_t refreshes;    /* maps taken over */
    uint64_t failures;     /* nodes that gave none */
    int64_t last_ms;       /* when the last map came; 0: never */
    uint32_t slots_served; /* slots with an owner in it */
};
/* Any thread. */
void cluster_stats(const struct cluster *cluster, struct cluster_stats *out);
