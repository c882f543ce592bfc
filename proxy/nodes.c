/* SPDX-License-Identifier: Apache-2.0
 *
 * nodes.c: feeds for the nodes of the topology.
 *
 *   topology says `changed` (any thread) ─► a post to every worker ─► nodes_follow: primaries get
 *   feeds, those of others are stopped
 *
 * The feeds of a node are created by the first worker that follows, and stay until the end, also when the
 * index becomes another node's: that is another server to them (C3). Nothing waits for them: as long as a
 * worker has no feed for a node, its reads from there go past L1.
 */
#include "nodes.h"

#include "follow.h"
#include "forward.h"
#include "pause.h"

#include "../resp/learnt.h"

#include "../conf/mem.h"

#include <stdio.h>

/* ---- What the topology calls ---------------------------------------------------------------- */

/* C3: another server process answers, at that address or at another one. Whatever was fetched from the old one is void,
 * and no cover comes up again before its own connection leads to the new one. */
static void on_other_server(unsigned index, void *ctx)
{
    struct server *server = ctx;
    struct feeds *feeds = server_feeds(server, (uint16_t)index);
    if (feeds != NULL) {
        feeds_down(feeds);
    }
    learnt_forget(); /* it may have other modules */
    pause_cancel(server);
}

static void on_slot_changed(uint16_t slot, void *ctx)
{
    struct server *server = ctx;
    l1_drop_slot(server->l1, slot);
}

static void on_posted(struct worker *worker, struct post *post)
{
    (void)post;
    atomic_store_explicit(&worker->topology_posted, false, memory_order_release);
    nodes_follow(worker);
    worker_wake_stalled(worker); /* they may have waited for a map */
}

static void on_changed(void *ctx)
{
    struct server *server = ctx;
    for (unsigned i = 0; server->workers != NULL && i < server->nworkers; i++) {
        struct worker *worker = server->workers[i];
        /* acq_rel: whoever finds it posted has its change seen by the follower, who clears it first */
        if (!atomic_exchange_explicit(&worker->topology_posted, true, memory_order_acq_rel)) {
            worker->topology_post.run = on_posted;
            worker_post(worker, &worker->topology_post);
        }
    }
}

static void on_wants_refresh(void *ctx)
{
    const struct server *server = ctx;
    follow_wake(server->follow);
}

/* ---- What the process shares ---------------------------------------------------------------- */

enum feed_mode nodes_mode(const struct conf *conf)
{
    switch ((enum conf_invalidation)conf->invalidation_mode) {
    case CONF_INVALIDATION_TRACKING:
        return FEED_TRACKING;
    case CONF_INVALIDATION_REDIRECT:
        return FEED_REDIRECT;
    case CONF_INVALIDATION_BROADCAST:
        return FEED_BROADCAST;
    case CONF_INVALIDATION_KEYSPACE:
        return FEED_KEYSPACE;
    case CONF_INVALIDATION_CHANNEL:
        return FEED_CHANNEL;
    case CONF_INVALIDATION_AUTO:
    case CONF_INVALIDATION_OFF:
        break;
    }
    return FEED_NONE;
}

static struct feeds *create_feeds(struct server *server, uint16_t index)
{
    const struct conf *conf = server->conf;
    return feeds_create(&(struct feeds_options){
        .node = topology_node(server->topology, index),
        .l1 = server->l1,
        .first_cover = (uint16_t)(index * feeds_covers(server->nworkers)),
        .workers = server->nworkers,
        .automatic = conf->invalidation_mode == CONF_INVALIDATION_AUTO,
        .mode = nodes_mode(conf),
        .db = conf->upstream_db,
        .link_lease_ms = conf->invalidation_link_lease,
        .weak_ttl_ms = conf->invalidation_weak_ttl,
        .channel_ttl_ms = conf->invalidation_channel_ttl,
        .channel = conf->invalidation_channel,
        .prefixes = conf->invalidation_prefixes,
        .set_notify = conf->invalidation_set_notify,
        .now = clock_ms,
    });
}

static struct feeds *feeds_for(struct server *server, uint16_t index)
{
    pthread_mutex_lock(&server->feeds_lock);
    struct feeds *feeds = server_feeds(server, index);
    if (feeds == NULL) {
        feeds = create_feeds(server, index);
        atomic_store_explicit(&server->feeds[index], feeds, memory_order_release);
    }
    pthread_mutex_unlock(&server->feeds_lock);
    return feeds;
}

static void create_topology(struct server *server)
{
    const struct conf *conf = server->conf;
    char host[CONF_HOST_MAX];
    char port[CONF_PORT_MAX];
    char label[128];
    bool known = conf->upstream_mode == CONF_MODE_STANDALONE;
    bug_on(!conf_address(conf->upstream_servers.items[0], host, port));
    snprintf(label, sizeof(label), "sentinel %s", conf->sentinel_master);
    server->resolver = resolver_create(resolver_system);
    server->topology = topology_create(&(struct topology_options){
        .is_cluster = server->is_cluster,
        .has_replicas = server->to_replicas,
        .node =
            {
                .host = known ? host : NULL,
                .port = known ? port : NULL,
                .label = conf->upstream_mode == CONF_MODE_SENTINEL ? label : NULL,
                .resolver = server->resolver,
                .user = conf_text_or_null(conf->upstream_user),
                .password = conf_text_or_null(conf->upstream_password),
                .password_file = conf_text_or_null(conf->upstream_password_file),
                .connect_timeout_ms = conf->upstream_connect_timeout,
                .dead_after_ms = conf->upstream_dead_after,
                .limits = {conf->upstream_failure_threshold, conf->upstream_recovery_threshold},
            },
        .slot_changed = on_slot_changed,
        .changed = on_changed,
        .node_changed = on_other_server,
        .wants_refresh = on_wants_refresh,
        .ctx = server,
    });
}

bool nodes_create(struct server *server, char err[ERR_MAX])
{
    const struct conf *conf = server->conf;
    uint32_t covers = feeds_covers(server->nworkers);
    uint32_t room = (L1_NO_COVER - 1) / covers;
    server->is_cluster = conf->upstream_mode == CONF_MODE_CLUSTER;
    server->to_replicas = conf->upstream_read_from != CONF_READ_PRIMARY;
    create_topology(server);
    server->max_nodes = topology_room(server->topology);
    server->covered = server->is_cluster ? server->max_nodes : 1;
    server->covered = room < server->covered ? (uint16_t)room : server->covered;
    server->caching = conf->invalidation_mode != CONF_INVALIDATION_OFF;
    server->negative_ttl = conf->l1_negative_ttl;
    if (server->is_cluster && conf->upstream_topology_refresh < server->negative_ttl) {
        server->negative_ttl = conf->upstream_topology_refresh;
    }
    server->announces = server->caching && nodes_mode(conf) == FEED_CHANNEL;
    pthread_mutex_init(&server->feeds_lock, NULL);
    server->l1 = l1_create(&(struct l1_options){.max_memory = conf->l1_max_memory,
                                                .max_item_size = conf->l1_max_item_size,
                                                .covers = server->covered * covers,
                                                .slots = server->is_cluster ? TOPOLOGY_SLOTS : 0,
                                                .readers = server->nworkers},
                           err);
    if (server->l1 == NULL) {
        return false;
    }
    if (server->caching && !server->is_cluster) {
        (void)feeds_for(server, 0);
    }
    return true;
}

void nodes_destroy(struct server *server)
{
    for (uint16_t i = 0; i < server->max_nodes; i++) {
        feeds_destroy(server_feeds(server, i));
    }
    topology_destroy(server->topology);
    resolver_destroy(server->resolver);
    l1_destroy(server->l1);
    pthread_mutex_destroy(&server->feeds_lock);
}

/* Is one of them? */
static bool any_is(const struct server *server,
                   bool (*is)(const struct node *node, unsigned major, unsigned minor),
                   unsigned major, unsigned minor)
{
    bool any = false;
    for (uint16_t i = 0; !any && i < topology_count(server->topology); i++) {
        any = is(topology_node(server->topology, i), major, minor);
    }
    return any;
}

bool nodes_are_at_least(const struct server *server, unsigned major, unsigned minor)
{
    return any_is(server, node_is_at_least, major, minor);
}

bool nodes_are_valkey(const struct server *server, unsigned major, unsigned minor)
{
    return any_is(server, node_is_valkey, major, minor);
}

/* ---- What a worker has ---------------------------------------------------------------------- */

static void start_feed(struct worker *worker, uint16_t index)
{
    struct worker_node *mine = &worker->nodes[index];
    struct feed *feed = worker_feed(worker, index);
    if (feed == NULL) {
        feed = feed_create(&(struct feed_options){
            .feeds = feeds_for(worker->server, index),
            .index = worker->index,
            .loop = worker->loop,
            .read_buffer = worker->read_buffer,
            .read_size = WORKER_READ_SIZE,
        });
        atomic_store_explicit(&mine->feed, feed, memory_order_release);
    }
    mine->feeding = true;
    feed_start(feed);
}

static void stop_feed(struct worker *worker, uint16_t index)
{
    struct worker_node *mine = &worker->nodes[index];
    if (mine->feeding) {
        mine->feeding = false;
        feed_stop(worker_feed(worker, index));
    }
}

void nodes_follow(struct worker *worker)
{
    struct server *server = worker->server;
    if (worker->ended) {
        return;
    }
    worker->nnodes = topology_count(server->topology);
    for (uint16_t i = 0; i < worker->nnodes; i++) {
        bool wanted = server->caching && i < server->covered &&
                      topology_role(server->topology, i) == TOPOLOGY_PRIMARY;
        if (wanted && !worker->nodes[i].feeding) {
            start_feed(worker, i);
        } else if (!wanted) {
            stop_feed(worker, i);
        }
    }
}

void nodes_stop(struct worker *worker)
{
    worker->ended = true;
    for (uint16_t i = 0; i < worker->nnodes; i++) {
        stop_feed(worker, i);
    }
}

void nodes_forget(struct worker *worker)
{
    for (uint16_t i = 0; i < worker->nnodes; i++) {
        feed_destroy(worker_feed(worker, i));
    }
}

void nodes_flush(struct worker *worker)
{
    for (uint16_t i = 0; i < worker->nnodes; i++) {
        if (worker->nodes[i].feeding) {
            feed_flush(worker_feed(worker, i));
        }
    }
}

static void on_heartbeat(struct call *call, const struct reply_piece *piece)
{
    struct worker_node *node = container_of(call, struct worker_node, heartbeat);
    node->beating = node->beating && !piece->last;
}

static void on_heartbeat_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    container_of(call, struct worker_node, heartbeat)->beating = false;
}

static const struct call_ops heartbeat_ops = {.reply = on_heartbeat, .lost = on_heartbeat_lost};

/* A node that was heard lately, or is being asked, is left alone. */
static bool is_to_be_asked(struct worker *worker, uint16_t index)
{
    const struct server *server = worker->server;
    struct worker_node *mine = &worker->nodes[index];
    int64_t heard = node_last_heard(topology_node(server->topology, index));
    mine->heartbeat.ops = &heartbeat_ops;
    mine->heartbeat.replies = 1;
    return !mine->beating && worker->now - heard >= server->conf->upstream_dead_after / 4;
}

static const struct slice ping = {"*1\r\n$4\r\nPING\r\n", 14};

void nodes_beat(struct worker *worker, uint16_t index)
{
    if (is_to_be_asked(worker, index)) {
        struct conn *lane =
            forward_lane(worker, index, worker->server->conf->upstream_db, false, ROAD_LANE);
        struct worker_node *mine = &worker->nodes[index];
        mine->beating = conn_submit(lane, &mine->heartbeat, ping, NULL) == CONN_OK;
    }
}

/* A node without a feed (a replica, any node if invalidation is off) says nothing while nothing is asked
 * of it. A lane that is there is enough to know how it is; none is opened or kept for that. */
static void beat_idle(struct worker *worker, uint16_t index)
{
    if (is_to_be_asked(worker, index)) {
        struct worker_node *mine = &worker->nodes[index];
        mine->beating = upstream_probe(worker->upstream, index, worker->server->conf->upstream_db,
                                       &mine->heartbeat, ping);
    }
}

void nodes_tick(struct worker *worker)
{
    for (uint16_t i = 0; i < worker->nnodes; i++) {
        if (worker->nodes[i].feeding) {
            feed_tick(worker_feed(worker, i), worker->now);
        } else {
            beat_idle(worker, i);
        }
    }
}
