/* SPDX-License-Identifier: Apache-2.0
 *
 * route.c: key ─► slot ─► generation in L1 ─► owner, in this order: should the owner change in between,
 * a lease taken with the older generation is void already (l1.h).
 */
#include "route.h"

struct place route_key(const struct server *server, struct slice key)
{
    struct place place = {.route = ROUTE_OK, .slot = topology_slot(key)};
    place.generation = l1_slot_generation(server->l1, place.slot);
    place.node = topology_owner(server->topology, place.slot);
    if (place.node == TOPOLOGY_NONE) {
        place.route = topology_version(server->topology) == 0 ? ROUTE_NOWHERE : ROUTE_UNSERVED;
    }
    return place;
}

static struct place anywhere(const struct server *server, uint32_t hint)
{
    struct place place = {.route = ROUTE_OK, .slot = SLOT_NONE};
    place.node = topology_any(server->topology, hint);
    if (place.node == TOPOLOGY_NONE) {
        place.route = ROUTE_NOWHERE;
    }
    return place;
}

struct place route_command(const struct server *server, const struct cmd *cmd,
                           const struct request_view *view, uint32_t hint)
{
    struct cmd_key_walk walk;
    struct slice key;
    if (cmd->keys == KEYS_NONE || !cmd_keys_init(&walk, cmd, view) || !cmd_keys_next(&walk, &key)) {
        return anywhere(server, hint);
    }
    struct place place = route_key(server, key);
    while (place.route == ROUTE_OK && cmd_keys_next(&walk, &key)) {
        if (topology_slot(key) != place.slot) {
            place.route = ROUTE_CROSSES;
        }
    }
    return place;
}

bool route_has_map(const struct worker *worker)
{
    return topology_version(worker->server->topology) != 0;
}

bool route_may_wait(const struct worker *worker)
{
    const struct server *server = worker->server;
    return worker->now - server->started_ms < server->conf->upstream_connect_timeout;
}
