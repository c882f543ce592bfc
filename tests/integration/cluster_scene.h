/* SPDX-License-Identifier: Apache-2.0
 *
 * cluster_scene.h: three primaries with the proxy in front of them.
 */
#pragma once

#include "../support/await.h"
#include "../support/cluster.h"
#include "../support/nearside.h"
#include "../support/scenario.h"

#include <stdio.h>

struct scene {
    struct cluster *cluster;
    struct nearside *proxy;
    struct client *c; /* through the proxy */
};

/* `replicas` in all. Further settings as for nearside_start. */
static inline struct scene scene_start_with(int replicas, const char *set)
{
    struct scene s;
    s.cluster = cluster_start(3, replicas, NULL);
    s.proxy = nearside_start(s.cluster->node[0]->port, "upstream.mode=cluster",
                             "upstream.topology_refresh=1s", set, NULL);
    s.c = nearside_connect(s.proxy);
    await_reply(s.c, "+PONG", 5000, "PING");
    await_reply(s.c, "nil", 5000, "GET %s", cluster_key(s.cluster, 0, "first"));
    return s;
}

static inline struct scene scene_start(void)
{
    return scene_start_with(0, NULL);
}

/* A key of that node. */
static inline const char *key_of(const struct scene *s, int node, const char *stem)
{
    return cluster_key(s->cluster, node, stem);
}

/* Repeats GET until L1 has it. */
static inline void warm(const struct scene *s, const char *key, const char *want)
{
    for (int64_t end = now_ms() + 5000; now_ms() < end;) {
        long long hits = nearside_info(s->proxy, "l1_hits");
        expect(s->c, want, "GET %s", key);
        if (nearside_info(s->proxy, "l1_hits") > hits) {
            return;
        }
    }
    cr_assert_fail("%s is not kept", key);
}
