/* SPDX-License-Identifier: Apache-2.0
 *
 * slots.c: two shapes of one table.
 *
 *   SLOTS    [[first, last, node of the primary, node of a replica ...] ...]
 *            node: [endpoint, port, id, [name, value ...]]
 *   SHARDS   [["slots", [first, last, first, last ...], "nodes", [node ...]] ...]
 *            node: ["port", 7000, "ip", "10.0.0.1", "endpoint", ..., "role", ..., "health", ...]
 *
 * The endpoint is what clients are to use: an address, a host name, nothing (the host that was asked) or
 * "?" (not known yet: the IP address then, where there is one). A primary that is failing counts only
 * when its shard has no other; replicas that are not online are left out.
 */
#include "slots.h"

#include "../conf/mem.h"
#include "../resp/elements.h"

#include <stdio.h>

struct reading {
    struct topology *topology;
    uint16_t from;
    struct slots_map *map;
    size_t ranges_max, replicas_max;
};

/* A node as the reply has it. */
struct seen {
    struct slice endpoint, ip;
    int64_t port;
    bool has_endpoint; /* it is no null */
    bool primary, online;
};

static uint16_t find_node(const struct reading *r, const struct seen *seen)
{
    char port[24];
    struct slice host = seen->endpoint;
    if (!seen->has_endpoint || host.n == 0) {
        if (r->from >= topology_count(r->topology)) {
            return TOPOLOGY_NONE;
        }
        host = slice_str(node_options(topology_node(r->topology, r->from))->host);
    } else if (slice_eq(host, SLICE("?"))) {
        host = seen->ip;
    }
    if (seen->port <= 0 || seen->port > UINT16_MAX) {
        return TOPOLOGY_NONE;
    }
    int n = snprintf(port, sizeof(port), "%d", (int)seen->port);
    return topology_find(r->topology, host, slice_of(port, (size_t)n));
}

static void add_replica(const struct reading *r, uint16_t node)
{
    struct slots_map *map = r->map;
    if (node != TOPOLOGY_NONE && map->nreplicas < r->replicas_max) {
        map->replicas[map->nreplicas++] = node;
    }
}

/* Its replicas are those from `at` on. */
static void add_range(const struct reading *r, int64_t first, int64_t last, uint16_t primary,
                      size_t at, size_t nreplicas)
{
    struct slots_map *map = r->map;
    if (first < 0 || last < first || last >= TOPOLOGY_SLOTS || primary == TOPOLOGY_NONE ||
        map->n == r->ranges_max) {
        return;
    }
    map->ranges[map->n++] = (struct topology_range){
        .first = (uint16_t)first,
        .last = (uint16_t)last,
        .primary = primary,
        .replicas = map->replicas + at,
        .nreplicas = nreplicas,
    };
    map->covered += (uint32_t)(last - first + 1);
}

/* ---- SLOTS --------------------------------------------------------------------------------- */

/* [endpoint, port, id, [name, value ...]] */
static bool read_slots_node(struct cursor c, struct seen *seen)
{
    struct element e;
    struct element value;
    *seen = (struct seen){.online = true};
    if (!element_next(&c, &e) || !element_is_list(&e) || e.number < 2) {
        return false;
    }
    if (!element_next(&c, &value) || !(element_is_text(&value) || value.type == '_')) {
        return false;
    }
    seen->endpoint = value.text;
    seen->has_endpoint = value.text.n > 0;
    if (!element_next(&c, &value) || value.type != ':') {
        return false;
    }
    seen->port = value.number;
    /* the id, and names with values, where the server has them */
    while (c.p < c.end && element_next(&c, &e)) {
        if (element_is_text(&e) && slice_eq(e.text, SLICE("ip")) && element_next(&c, &value) &&
            element_is_text(&value)) {
            seen->ip = value.text;
        }
    }
    return true;
}

static void read_slots_range(const struct reading *r, struct cursor c)
{
    struct element e, first, last;
    struct cursor node;
    struct seen seen;
    uint16_t primary = TOPOLOGY_NONE;
    size_t at = r->map->nreplicas;
    if (!element_next(&c, &e) || !element_is_list(&e) || e.number < 3 ||
        !element_next(&c, &first) || first.type != ':' || !element_next(&c, &last) ||
        last.type != ':') {
        return;
    }
    for (int64_t i = 2; i < e.number && i < 3 + SLOTS_REPLICAS_MAX; i++) {
        if (!element_whole(&c, &node) || !read_slots_node(node, &seen)) {
            return;
        }
        uint16_t index = find_node(r, &seen);
        if (i == 2) {
            primary = index;
        } else {
            add_replica(r, index);
        }
    }
    add_range(r, first.number, last.number, primary, at, r->map->nreplicas - at);
}

/* ---- SHARDS -------------------------------------------------------------------------------- */

static void take_field(struct seen *seen, struct slice name, const struct element *value)
{
    if (slice_eq(name, SLICE("port")) && value->type == ':') {
        seen->port = value->number;
    } else if (slice_eq(name, SLICE("ip")) && element_is_text(value)) {
        seen->ip = value->text;
    } else if (slice_eq(name, SLICE("endpoint")) && element_is_text(value)) {
        seen->endpoint = value->text;
        seen->has_endpoint = value->text.n > 0;
    } else if (slice_eq(name, SLICE("role")) && element_is_text(value)) {
        seen->primary = slice_eq(value->text, SLICE("master"));
    } else if (slice_eq(name, SLICE("health")) && element_is_text(value)) {
        seen->online = slice_eq(value->text, SLICE("online"));
    }
}

static bool read_shards_node(struct cursor c, struct seen *seen)
{
    struct element e, name, value;
    struct cursor whole;
    *seen = (struct seen){.online = false};
    if (!element_next(&c, &e) || !element_is_list(&e)) {
        return false;
    }
    for (int64_t i = 0; i + 1 < e.number; i += 2) {
        if (!element_next(&c, &name) || !element_whole(&c, &whole) ||
            !element_next(&whole, &value)) {
            return false;
        }
        take_field(seen, name.text, &value);
    }
    return true;
}

/* The primary of a shard; its replicas are added. */
static uint16_t read_shard_nodes(const struct reading *r, struct cursor c)
{
    struct element e;
    struct cursor node;
    struct seen seen;
    uint16_t primary = TOPOLOGY_NONE;
    bool is_online = false;
    if (!element_next(&c, &e) || !element_is_list(&e)) {
        return TOPOLOGY_NONE;
    }
    for (int64_t i = 0; i < e.number && i < 1 + SLOTS_REPLICAS_MAX; i++) {
        if (!element_whole(&c, &node) || !read_shards_node(node, &seen)) {
            return TOPOLOGY_NONE;
        }
        if (seen.primary && (primary == TOPOLOGY_NONE || (seen.online && !is_online))) {
            primary = find_node(r, &seen);
            is_online = seen.online;
        } else if (!seen.primary && seen.online) {
            add_replica(r, find_node(r, &seen));
        }
    }
    return primary;
}

static void read_shard(const struct reading *r, struct cursor c)
{
    struct element e, name, first, last;
    struct cursor value;
    struct cursor slots = {NULL, NULL};
    struct cursor nodes = {NULL, NULL};
    size_t at = r->map->nreplicas;
    if (!element_next(&c, &e) || !element_is_list(&e)) {
        return;
    }
    for (int64_t i = 0; i + 1 < e.number; i += 2) {
        if (!element_next(&c, &name) || !element_whole(&c, &value)) {
            return;
        }
        if (slice_eq(name.text, SLICE("slots"))) {
            slots = value;
        } else if (slice_eq(name.text, SLICE("nodes"))) {
            nodes = value;
        }
    }
    if (slots.p == NULL || nodes.p == NULL || !element_next(&slots, &e) || !element_is_list(&e)) {
        return;
    }
    uint16_t primary = read_shard_nodes(r, nodes);
    size_t nreplicas = r->map->nreplicas - at;
    for (int64_t i = 0; i + 1 < e.number; i += 2) {
        if (!element_next(&slots, &first) || first.type != ':' || !element_next(&slots, &last) ||
            last.type != ':') {
            return;
        }
        add_range(r, first.number, last.number, primary, at, nreplicas);
    }
}

/* ---- Both ---------------------------------------------------------------------------------- */

/* A range and a node take RANGE_MIN bytes of the reply at least, so that this is room for all. */
#define RANGE_MIN 8

static size_t at_most(size_t n, size_t max)
{
    return n < max ? n : max;
}

bool slots_read(struct topology *t, struct slice reply, enum slots_reply kind, uint16_t from,
                struct slots_map *map)
{
    struct reading r = {
        .topology = t,
        .from = from,
        .map = map,
        .ranges_max = at_most(reply.n / RANGE_MIN + 1, SLOTS_RANGES_MAX),
        .replicas_max = at_most(reply.n / RANGE_MIN + 1, SLOTS_NODES_MAX),
    };
    struct cursor c = cursor_of(reply);
    struct cursor whole = c;
    struct cursor item;
    struct element e;
    *map = (struct slots_map){0};
    /* once to see that all of it is there */
    if (!element_skip(&whole) || whole.p != whole.end || !element_next(&c, &e) ||
        !element_is_list(&e)) {
        return false;
    }
    map->ranges = mem_try(r.ranges_max * sizeof(*map->ranges));
    map->replicas = mem_try(r.replicas_max * sizeof(*map->replicas));
    if (map->ranges == NULL || map->replicas == NULL) {
        slots_map_fini(map);
        return false;
    }
    for (int64_t i = 0; i < e.number && element_whole(&c, &item); i++) {
        if (kind == SLOTS_SHARDS) {
            read_shard(&r, item);
        } else {
            read_slots_range(&r, item);
        }
    }
    return true;
}

void slots_map_fini(struct slots_map *map)
{
    mem_free(map->ranges);
    mem_free(map->replicas);
    *map = (struct slots_map){0};
}
