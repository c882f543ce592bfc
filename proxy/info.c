/* SPDX-License-Identifier: Apache-2.0
 *
 * info.c: writes the Nearside section. What each field means is in docs/operations.md.
 */
#include "info.h"

#include "../resp/learnt.h"

#include "../conf/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define INFO_MAX ((size_t)32 * 1024)

struct text {
    char *p;
    size_t n;
};

static void add(struct text *text, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void add(struct text *text, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text->p + text->n, INFO_MAX - text->n, fmt, args);
    va_end(args);
    if (n > 0 && (size_t)n < INFO_MAX - text->n) {
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
    uint64_t lanes, lanes_up, lanes_pending, lanes_queued;
    uint64_t fills_up;
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
    sums->fills_up += one.state == CONN_UP;
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
        sums.lanes += atomic_load_explicit(&worker->lanes, memory_order_relaxed);
        sums.lanes_up += atomic_load_explicit(&worker->lanes_up, memory_order_relaxed);
        sums.lanes_pending += atomic_load_explicit(&worker->lanes_pending, memory_order_relaxed);
        sums.lanes_queued += atomic_load_explicit(&worker->lanes_queued, memory_order_relaxed);
        if (worker->feed != NULL) {
            sum_feed(&sums, worker->feed);
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

static void add_feed(struct text *text, const struct server *server, const struct sums *sums)
{
    struct feeds_status status = {.table_keys = -1, .table_max = -1};
    if (server->caching) {
        feeds_status(server->feeds, &status);
    }
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

static void add_upstream(struct text *text, const struct server *server, const struct sums *sums)
{
    char version[64];
    node_version(server->node, version, sizeof(version));
    add(text,
        "upstream0:name=%s,state=%s,version=%s,fill_connections_up=%llu,lanes=%llu,"
        "lanes_up=%llu,pending=%llu,queued_bytes=%llu,generation=%llu\r\n",
        node_name(server->node), sums->fills_up + sums->lanes_up > 0 ? "up" : "down",
        version[0] == '\0' ? "unknown" : version, (unsigned long long)sums->fills_up,
        (unsigned long long)sums->lanes, (unsigned long long)sums->lanes_up,
        (unsigned long long)sums->lanes_pending, (unsigned long long)sums->lanes_queued,
        (unsigned long long)node_generation(server->node));
}

char *info_section(struct worker *worker, size_t *length)
{
    struct server *server = worker->server;
    struct text text = {mem_try(INFO_MAX), 0};
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
#define COUNTER(name, prose) add_number(&text, #name, sums.name);
#include "counters.def"
#undef COUNTER
    add_l1(&text, server, &sums);
    add_feed(&text, server, &sums);
    add_upstream(&text, server, &sums);
    *length = text.n;
    return text.p;
}
