/* SPDX-License-Identifier: Apache-2.0
 *
 * follow.c: starts what the mode needs, and ticks it.
 */
#include "follow.h"

#include "worker.h"
#include "../upstream/cluster.h"
#include "../upstream/role.h"
#include "../upstream/sentinel.h"

#include "../conf/log.h"

#include "../conf/mem.h"

#define TICK_SECONDS 0.05

struct follow {
    const struct server *server;
    struct ev_loop *loop;
    struct ev_timer tick;
    struct cluster *cluster; /* NULL in the other modes, as the next two: */
    struct sentinel *sentinel;
    struct role *role; /* standalone */
    struct node *node; /* its node */
    struct ev_async doubted;
    bool role_known, is_master, role_refused;
    bool was_master; /* it has been one since it is at this address */
};

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

/* ---- Sentinel ------------------------------------------------------------------------------- */

static struct sentinel *create_sentinel(const struct server *server, struct ev_loop *loop)
{
    const struct conf *conf = server->conf;
    char **servers = split_servers(&conf->upstream_servers);
    struct sentinel *sentinel = sentinel_create(&(struct sentinel_options){
        .loop = loop,
        .node = topology_node(server->topology, 0),
        .master = conf->sentinel_master,
        .topology = server->to_replicas ? server->topology : NULL,
        .peer =
            {
                .resolver = server->resolver,
                .user = conf_text_or_null(conf->sentinel_user),
                .password = conf_text_or_null(conf->sentinel_password),
                .password_file = conf_text_or_null(conf->sentinel_password_file),
                .connect_timeout_ms = conf->upstream_connect_timeout,
                .dead_after_ms = conf->upstream_dead_after,
            },
        .refresh_ms = conf->upstream_topology_refresh,
        .role_ms = conf->invalidation_link_lease,
        .now = clock_ms,
    });
    for (size_t i = 0; i < conf->upstream_servers.n; i++) {
        sentinel_add(sentinel, servers[2 * i], servers[2 * i + 1]);
        mem_free(servers[2 * i]);
        mem_free(servers[2 * i + 1]);
    }
    mem_free(servers);
    return sentinel;
}

/* ---- Standalone ------------------------------------------------------------------------------ */

/* One may stand in front of a replica on purpose: only a change of role is another server (a master that
 * becomes a replica closes no connection, and what L1 has from before may not be what it has now). */
static void on_role(bool is_master, const struct answer *answer, void *ctx)
{
    (void)answer;
    struct follow *follow = ctx;
    if (follow->role_known && follow->is_master != is_master) {
        log_event(LOG_WARN, "%s is a %s now; what L1 has from it is void, its connections are new",
                  node_name(follow->node), is_master ? "master" : "replica");
        node_renounce(follow->node);
    }
    follow->role_known = true;
    follow->is_master = is_master;
    follow->was_master |= is_master;
    if (!is_master && follow->was_master) {
        /* Its name will lead to the new master, sooner or later. */
        node_resolve(follow->node, clock_ms());
    }
}

static void on_no_role(const char *why, void *ctx)
{
    struct follow *follow = ctx;
    if (strncmp(why, "ROLE:", 5) == 0 && !follow->role_refused) {
        follow->role_refused = true;
        log_event(LOG_WARN, "%s does not tell its role (%s): that it becomes a replica goes unseen",
                  node_name(follow->node), why);
    }
}

static struct role *create_role(struct follow *follow)
{
    const struct conf *conf = follow->server->conf;
    return role_create(&(struct role_options){
        .loop = follow->loop,
        .node = follow->node,
        .every_ms = conf->invalidation_link_lease,
        .deadline_ms = conf->upstream_dead_after,
        .now = clock_ms,
        .said = on_role,
        .silent = on_no_role,
        .ctx = follow,
    });
}

static void on_doubted(struct ev_loop *loop, struct ev_async *async, int events)
{
    (void)loop;
    (void)events;
    struct follow *follow = container_of(async, struct follow, doubted);
    if (follow->role != NULL) {
        node_resolve(follow->node, clock_ms());
        role_hurry(follow->role);
    }
}

/* Its name leads elsewhere: who asks for the role of the old server has to come along. */
static void follow_name(struct follow *follow)
{
    log_event(LOG_WARN,
              "the name of %s leads to other addresses now; what L1 has from it is void, its "
              "connections are new",
              node_name(follow->node));
    role_destroy(follow->role);
    follow->role_known = follow->was_master = false;
    follow->role = create_role(follow);
}

static void on_tick(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    struct follow *follow = container_of(timer, struct follow, tick);
    if (follow->cluster != NULL) {
        cluster_tick(follow->cluster);
    } else if (follow->role != NULL && node_follow_name(follow->node)) {
        follow_name(follow);
    }
}

/* ---- Life ----------------------------------------------------------------------------------- */

struct follow *follow_create(struct server *server, struct ev_loop *loop)
{
    struct follow *follow = mem_zalloc(sizeof(*follow));
    follow->server = server;
    follow->loop = loop;
    if (server->is_cluster) {
        follow->cluster = create_cluster(server, loop);
    } else if (server->conf->upstream_mode == CONF_MODE_SENTINEL) {
        follow->sentinel = create_sentinel(server, loop);
    } else {
        follow->node = topology_node(server->topology, 0);
        follow->role = create_role(follow);
    }
    ev_async_init(&follow->doubted, on_doubted);
    ev_async_start(loop, &follow->doubted);
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
    ev_async_stop(follow->loop, &follow->doubted);
    cluster_destroy(follow->cluster);
    sentinel_destroy(follow->sentinel);
    role_destroy(follow->role);
    mem_free(follow);
}

void follow_wake(struct follow *follow)
{
    if (follow == NULL) {
        return;
    }
    if (follow->cluster != NULL) {
        cluster_wake(follow->cluster);
    } else if (follow->sentinel != NULL) {
        sentinel_suspect(follow->sentinel);
    } else {
        ev_async_send(follow->loop, &follow->doubted);
    }
}

bool follow_sentinel_status(const struct follow *follow, struct sentinel_status *out)
{
    if (follow == NULL || follow->sentinel == NULL) {
        return false;
    }
    sentinel_status(follow->sentinel, out);
    return true;
}

bool follow_cluster_stats(const struct follow *follow, struct cluster_stats *out)
{
    if (follow == NULL || follow->cluster == NULL) {
        return false;
    }
    cluster_stats(follow->cluster, out);
    return true;
}
