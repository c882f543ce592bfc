/* SPDX-License-Identifier: Apache-2.0
 *
 * follow.c: starts what the mode needs, and ticks it.
 */
#include "follow.h"

#include "worker.h"
#include "../upstream/cluster.h"

#include "../conf/mem.h"

#define TICK_SECONDS 0.05

struct follow {
    struct ev_loop *loop;
    struct ev_timer tick;
    struct cluster *cluster; /* NULL in the other modes */
};

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    struct follow *follow = container_of(timer, struct follow, tick);
    if (follow->cluster != NULL) {
        cluster_tick(follow->cluster);
    }
}

/* Host and port of each of upstream.servers, in turn. */
static char **split_servers(const struct conf_list *servers)
{
    char **seeds = mem_alloc(2 * servers->n * sizeof(*seeds));
    for (size_t i = 0; i < servers->n; i++) {
        char host[CONF_HOST_MAX];
        char port[CONF_PORT_MAX];
        bug_on(!conf_address(servers->items[i], host, port));
        seeds[2 * i] = mem_strdup(host);
        seeds[2 * i + 1] = mem_strdup(port);
    }
    return seeds;
}

static struct cluster *create_cluster(const struct server *server, struct ev_loop *loop)
{
    const struct conf_list *servers = &server->conf->upstream_servers;
    char **seeds = split_servers(servers);
    struct cluster *cluster = cluster_create(&(struct cluster_options){
        .loop = loop,
        .topology = server->topology,
        .seeds = seeds,
        .nseeds = servers->n,
        .refresh_ms = server->conf->upstream_topology_refresh,
        .now = clock_ms,
    });
    for (size_t i = 0; i < 2 * servers->n; i++) {
        mem_free(seeds[i]);
    }
    mem_free(seeds);
    return cluster;
}

struct follow *follow_create(struct server *server, struct ev_loop *loop)
{
    struct follow *follow = mem_zalloc(sizeof(*follow));
    follow->loop = loop;
    if (server->is_cluster) {
        follow->cluster = create_cluster(server, loop);
    }
    ev_timer_init(&follow->tick, on_tick, 0, TICK_SECONDS);
    ev_timer_start(loop, &follow->tick);
    return follow;
}

void follow_destroy(struct follow *follow)
{
    if (follow == NULL) {
        return;
    }
    ev_timer_stop(follow->loop, &follow->tick);
    cluster_destroy(follow->cluster);
    mem_free(follow);
}

void follow_wake(struct follow *follow)
{
    if (follow != NULL && follow->cluster != NULL) {
        cluster_wake(follow->cluster);
    }
}

bool follow_cluster_stats(const struct follow *follow, struct cluster_stats *out)
{
    if (follow == NULL || follow->cluster == NULL) {
        return false;
    }
    cluster_stats(follow->cluster, out);
    return true;
}
