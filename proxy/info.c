/* SPDX-License-Identifier: Apache-2.0
 *
 * info.c: writes the Nearside section. What each field means is in docs/operations.md.
 */
#include "info.h"

#include "follow.h"
#include "../upstream/cluster.h"

#include "../resp/learnt.h"
#include "../resp/write.h"
#include "../upstream/sentinel.h"

#include "../conf/log.h"
#include "../conf/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define INFO_MAX      ((size_t)32 * 1024)
#define INFO_NODE_MAX ((size_t)768)

struct text {
    char *p;
    size_t n, size;
};

static void add(struct text *text, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void add(struct text *text, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text->p + text->n, text->size - text->n, fmt, args);
    va_end(args);
    if (n > 0 && (size_t)n < text->size - text->n) {
        text->n += (size_t)n;
    }
}

static void add_number(struct text *text, const char *name, uint64_t value)
{
    add(text, "%s:%llu\r\n", name, (unsigned long long)value);
}

/* Plain copies, summed. */
struct sums {
#define COUNTER(name, prose) uint64_t name;
#include "counters.def"
#undef COUNTER
    uint64_t client_memory;
    struct feed_stats feed;
};

static void sum_feed(struct sums *sums, const struct feed *feed)
{
    struct feed_stats one;
    feed_stats(feed, &one);
    sums->feed.invalidations += one.invalidations;
    sums->feed.flushes += one.flushes;
    sums->feed.lapses += one.lapses;
    sums->feed.losses += one.losses;
    sums->feed.refusals += one.refusals;
}

/* What all workers have for one node. */
struct node_sums {
    uint64_t fills_up, lanes, lanes_up, pending, queued;
};

static struct node_sums sum_node(const struct server *server, uint16_t index)
{
    struct node_sums sums = {0};
    for (unsigned i = 0; i < server->nworkers; i++) {
        struct worker_node *node = &server->workers[i]->nodes[index];
        const struct feed *feed = worker_feed(server->workers[i], index);
        struct feed_stats stats = {.state = CONN_IDLE};
        if (feed != NULL) {
            feed_stats(feed, &stats);
        }
        sums.fills_up += stats.state == CONN_UP;
        sums.lanes += atomic_load_explicit(&node->lanes, memory_order_relaxed);
        sums.lanes_up += atomic_load_explicit(&node->lanes_up, memory_order_relaxed);
        sums.pending += atomic_load_explicit(&node->lanes_pending, memory_order_relaxed);
        sums.queued += atomic_load_explicit(&node->lanes_queued, memory_order_relaxed);
    }
    return sums;
}

static struct sums sum_workers(const struct server *server)
{
    struct sums sums = {0};
    for (unsigned i = 0; i < server->nworkers; i++) {
        struct worker *worker = server->workers[i];
#define COUNTER(name, prose)                                                                       \
    sums.name += atomic_load_explicit(&worker->counters.name, memory_order_relaxed);
#include "counters.def"
#undef COUNTER
        sums.client_memory += atomic_load_explicit(&worker->client_memory, memory_order_relaxed);
        for (uint16_t node = 0; node < topology_count(server->topology); node++) {
            const struct feed *feed = worker_feed(worker, node);
            if (feed != NULL) {
                sum_feed(&sums, feed);
            }
        }
    }
    return sums;
}

static void add_l1(struct text *text, struct server *server, const struct sums *sums)
{
    struct l1_stats l1;
    l1_stats(server->l1, &l1);
    uint64_t hits = sums->l1_hits + sums->l1_negative_hits;
    uint64_t reads = hits + sums->l1_misses;
    add(text, "l1_hit_ratio:%.4f\r\n", reads == 0 ? 0.0 : (double)hits / (double)reads);
    add_number(text, "l1_items", l1.items);
    add_number(text, "l1_bytes", l1.bytes);
    add_number(text, "l1_max_bytes", server->conf->l1_max_memory);
    add_number(text, "l1_fills", l1.fills);
    add_number(text, "l1_refusals", l1.refusals);
    add_number(text, "l1_evictions", l1.evictions);
    add_number(text, "l1_leases", l1.leases);
    add_number(text, "l1_waiters", l1.waiters);
    add_number(text, "l1_writes_in_flight", l1.writes);
    add_number(text, "leases_detached", l1.detached);
    add_number(text, "drops_invalidated", l1.invalidations);
    add_number(text, "drops_write", l1.write_drops);
    add_number(text, "drops_read", l1.read_drops);
    add_number(text, "drops_expired", l1.expirations);
    add_number(text, "drops_lapsed", l1.lapses);
    add_number(text, "drops_void", l1.voids);
    add_number(text, "drops_all", l1.drop_alls);
}

/* In a cluster: the weakest mode, the first refusal, and sums. */
static struct feeds_status status_of_all(const struct server *server)
{
    struct feeds_status all = {.table_keys = -1, .table_max = -1};
    bool first = true;
    for (uint16_t i = 0; i < topology_count(server->topology); i++) {
        struct feeds *feeds = server_feeds(server, i);
        struct feeds_status one;
        if (feeds == NULL || topology_role(server->topology, i) != TOPOLOGY_PRIMARY) {
            continue;
        }
        feeds_status(feeds, &one);
        if (first) {
            all = one;
            first = false;
            continue;
        }
        if (all.why[0] == '\0') {
            memcpy(all.why, one.why, sizeof(all.why));
        }
        all.mode = one.mode > all.mode ? one.mode : all.mode;
        all.changes += one.changes;
        all.link_up = all.link_up && one.link_up;
        all.peers = one.peers > all.peers ? one.peers : all.peers;
        all.table_keys += one.table_keys > 0 ? one.table_keys : 0;
        all.table_max = one.table_max > all.table_max ? one.table_max : all.table_max;
    }
    return all;
}

static void add_feed(struct text *text, const struct server *server, const struct sums *sums)
{
    struct feeds_status status = status_of_all(server);
    bool refused = server->caching && status.mode == FEED_NONE;
    add(text, "invalidation_mode:%s\r\n", server->caching ? feed_mode_name(status.mode) : "off");
    add_number(text, "invalidation_auto", status.automatic);
    add(text, "invalidation_refused:%s\r\n", status.why);
    add_number(text, "invalidation_mode_changes", status.changes);
    add_number(text, "invalidation_link_up", status.link_up);
    add_number(text, "channel_peers", status.peers);
    add(text, "tracking_table_keys:%lld\r\n", (long long)status.table_keys);
    add(text, "tracking_table_max:%lld\r\n", (long long)status.table_max);
    add_number(text, "tracking_refused", refused || strncmp(status.why, "tracking:", 9) == 0);
    add_number(text, "tracking_refusals", sums->feed.refusals);
    add_number(text, "invalidations_received", sums->feed.invalidations);
    add_number(text, "invalidation_flushes", sums->feed.flushes);
    add_number(text, "link_lease_ms", (uint64_t)server->conf->invalidation_link_lease);
    add_number(text, "link_lease_lapses", sums->feed.lapses);
    add_number(text, "link_losses", sums->feed.losses);
}

static const char *const ROLES[] = {
    [TOPOLOGY_GONE] = "gone",
    [TOPOLOGY_PRIMARY] = "primary",
    [TOPOLOGY_REPLICA] = "replica",
};

/* Whole seconds since a moment; -1: it has not been. */
static long long seconds_since(int64_t moment, int64_t now)
{
    return moment == 0 ? -1 : (long long)(now - moment) / 1000;
}

static void add_upstream(struct text *text, const struct server *server, uint16_t index,
                         int64_t now)
{
    struct node *node = topology_node(server->topology, index);
    struct node_sums sums = sum_node(server, index);
    char version[64];
    struct health health;
    node_version(node, version, sizeof(version));
    node_health(node, &health);
    add(text,
        "upstream%u:name=%s,state=%s,state_seconds=%lld,failures=%u,heard_seconds=%lld,version=%s,"
        "fill_connections_up=%llu,lanes=%llu,lanes_up=%llu,pending=%llu,queued_bytes=%llu,"
        "generation=%llu",
        index, node_name(node), node_state_name(health.state),
        seconds_since(health.since == 0 ? server->started_ms : health.since, now), health.troubles,
        seconds_since(node_last_heard(node), now), version[0] == '\0' ? "unknown" : version,
        (unsigned long long)sums.fills_up, (unsigned long long)sums.lanes,
        (unsigned long long)sums.lanes_up, (unsigned long long)sums.pending,
        (unsigned long long)sums.queued, (unsigned long long)node_generation(node));
    if (server->max_nodes > 1) {
        add(text, ",role=%s,slots=%u", ROLES[topology_role(server->topology, index)],
            topology_slots_of(server->topology, index));
    }
    add(text, "\r\n");
}

/* Of a cluster. */
static void add_topology(struct text *text, const struct server *server)
{
    struct cluster_stats stats;
    if (follow_cluster_stats(server->follow, &stats)) {
        add_number(text, "topology_version", topology_version(server->topology));
        add_number(text, "topology_refreshes", stats.refreshes);
        add_number(text, "topology_failures", stats.failures);
        add_number(text, "topology_slots_served", stats.slots_served);
    }
}

static void add_sentinels(struct text *text, const struct server *server, int64_t now)
{
    struct sentinel_status status;
    if (follow_sentinel_status(server->follow, &status)) {
        add(text, "sentinel_master:%s\r\n", server->conf->sentinel_master);
        add_number(text, "sentinels_known", status.known);
        add_number(text, "sentinels_up", status.up);
        add_number(text, "sentinel_switches", status.switches);
        add(text, "sentinel_switch_seconds:%lld\r\n", seconds_since(status.switched_at, now));
    }
}

char *info_section(struct worker *worker, size_t *length)
{
    struct server *server = worker->server;
    uint16_t nodes = topology_count(server->topology);
    size_t size = INFO_MAX + nodes * INFO_NODE_MAX;
    struct text text = {mem_try(size), 0, size};
    if (text.p == NULL) {
        return NULL;
    }
    struct sums sums = sum_workers(server);
    add(&text, "# Nearside\r\nnearside_version:%s\r\n", NEARSIDE_VERSION);
    add_number(&text, "uptime_in_seconds", (uint64_t)((worker->now - server->started_ms) / 1000));
    add_number(&text, "workers", server->nworkers);
    add_number(&text, "clients_connected",
               atomic_load_explicit(&server->clients, memory_order_relaxed));
    add_number(&text, "clients_max", server->max_clients);
    add_number(&text, "clients_refused",
               atomic_load_explicit(&server->clients_refused, memory_order_relaxed));
    add_number(&text, "client_memory", sums.client_memory);
    add_number(&text, "pinned_connections",
               atomic_load_explicit(&server->pinned, memory_order_relaxed));
    add_number(&text, "commands_learnt", learnt_count());
    add_number(&text, "log_lines_lost", log_count_lost());
#define COUNTER(name, prose) add_number(&text, #name, sums.name);
#include "counters.def"
#undef COUNTER
    add_l1(&text, server, &sums);
    add_feed(&text, server, &sums);
    add_topology(&text, server);
    add_sentinels(&text, server, worker->now);
    for (uint16_t i = 0; i < nodes; i++) {
        add_upstream(&text, server, i, worker->now);
    }
    *length = text.n;
    return text.p;
}

bool info_complete(struct worker *worker, struct chain *reply)
{
    size_t ours = 0;
    struct blob *theirs = chain_take_blob(reply);
    char *section = info_section(worker, &ours);
    bool ok = theirs != NULL && section != NULL;
    const char *body = ok ? memchr(theirs->p, '\n', theirs->n) : NULL;
    bool is_bulk = body != NULL && (theirs->p[0] == '$' || theirs->p[0] == '=') &&
                   theirs->n >= (size_t)(body + 1 - theirs->p) + 2;
    if (is_bulk) {
        struct slice text = slice_of(body + 1, theirs->n - (size_t)(body + 1 - theirs->p) - 2);
        char header[RESP_HEADER_MAX];
        size_t h = resp_header(header, theirs->p[0], (int64_t)(text.n + 2 + ours));
        ok = chain_append(reply, slice_of(header, h)) && chain_append(reply, text) &&
             chain_append(reply, SLICE("\r\n")) && chain_append(reply, slice_of(section, ours)) &&
             chain_append(reply, SLICE("\r\n"));
    } else if (ok) {
        ok = chain_append(reply, slice_of(theirs->p, theirs->n)); /* an error: as it is */
    }
    blob_unref(theirs);
    mem_free(section);
    return ok;
}
