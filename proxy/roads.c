/* SPDX-License-Identifier: Apache-2.0
 *
 * roads.c: the order rule, where something is unanswered; and the way to replicas.
 */
#include "roads.h"

#include "forward.h"

#include "../conf/mutant.h"

static unsigned roads_in_use(const uint32_t count[ROADS])
{
    return (count[0] ? (unsigned)ROAD_FILL : 0) | (count[1] ? (unsigned)ROAD_LANE : 0) |
           (count[2] ? (unsigned)ROAD_BULK : 0) | (count[4] ? (unsigned)ROAD_REPLICA : 0) |
           (count[5] ? (unsigned)ROAD_SPLIT : 0);
}

struct earlier roads_among(struct client *c, const uint64_t *hashes, size_t n,
                           enum new_request what, uint64_t before)
{
    struct earlier earlier = {0, NULL};
    bool strict = c->worker->server->conf->proxy_order == CONF_ORDER_STRICT && !MUTANT(R6s);
    if (MUTANT(R6)) {
        return earlier;
    }
    earlier.roads = roads_in_use(what == NEW_UNKNOWN || strict ? c->on_road : c->unknown_on);
    if (what == NEW_L1_READ) {
        earlier.roads &= ~(unsigned)ROAD_FILL; /* fetches of other keys hold no read up (R6b) */
    }
    unsigned lanes = (unsigned)ROAD_LANE | (unsigned)ROAD_BULK;
    earlier.roads |= c->keyless > 0 ? (unsigned)ROAD_LANE : 0;
    if (earlier.roads != 0 && (c->scattered || c->node != c->place.node)) {
        earlier.roads |= lanes; /* not all on the node where this one goes: wait */
    }
    for (size_t i = 0; i < n; i++) {
        struct request *last = order_find(&c->worker->order, c, hashes[i], before);
        if (last != NULL) {
            earlier.roads |= (unsigned)last->road | (last->node == c->place.node ? 0 : lanes);
            earlier.last = last;
        }
    }
    if ((earlier.roads & lanes) != 0 && c->head->retired != upstream_retired(c->worker->upstream)) {
        earlier.roads |= lanes; /* it may be on a lane that was retired since: wait */
    }
    return earlier;
}

enum road lane_road(unsigned conflicts, enum road wanted)
{
    if (conflicts == 0) {
        return wanted;
    }
    return conflicts == ROAD_LANE || conflicts == ROAD_BULK || conflicts == (unsigned)wanted
               ? (enum road)conflicts
               : ROAD_NONE;
}

/* ---- Replicas ------------------------------------------------------------------------------- */

/* Does it answer? What is frozen, and has not been found out, is not known. */
static bool is_up(const struct worker *worker, uint16_t node)
{
    return node_state(topology_node(worker->server->topology, node)) == NODE_UP;
}

/* The replica for the client's reads: always the same, unless that is not up and another one is. NONE: there
 * is none. */
static uint16_t choose_replica(const struct client *c)
{
    struct worker *worker = c->worker;
    const struct topology *topology = worker->server->topology;
    uint16_t first = topology_replica(topology, c->place.slot, (uint32_t)c->id);
    uint16_t replica = first;
    for (uint32_t i = 1; i < TOPOLOGY_REPLICAS_MAX && replica != TOPOLOGY_NONE; i++) {
        if (is_up(worker, replica)) {
            return replica;
        }
        /* it would stay as it is known to be, if nobody tried to connect */
        (void)forward_lane(worker, replica, c->db, c->resp3, ROAD_REPLICA);
        replica = topology_replica(topology, c->place.slot, (uint32_t)c->id + i);
    }
    return first;
}

/* Would a read that may as well go to the primary be answered there at once? */
static bool is_ready(const struct client *c, uint16_t replica)
{
    const struct conn *lane = forward_lane(c->worker, replica, c->db, c->resp3, ROAD_REPLICA);
    return is_up(c->worker, replica) && conn_state(lane) == CONN_UP && conn_accepts(lane);
}

enum road road_to_replica(struct client *c, const struct request *request, const struct cmd *cmd,
                          bool *refused)
{
    const struct server *server = c->worker->server;
    uint16_t owner = c->place.node;
    bool has_key = request->nkeys > 0 || request->wide;
    if (!server->to_replicas || request->class != CMD_READ || cmd->class != CMD_READ || !has_key ||
        c->pinned != NULL) {
        return ROAD_NONE;
    }
    uint16_t replica = choose_replica(c);
    if (replica == TOPOLOGY_NONE) {
        *refused = server->conf->upstream_read_from == CONF_READ_REPLICA;
        return ROAD_NONE;
    }
    bool takes = server->conf->upstream_read_from == CONF_READ_REPLICA || is_ready(c, replica);
    c->place.node = replica;
    enum road road = takes ? road_of(c, request, ROAD_REPLICA) : ROAD_NONE;
    if (road != ROAD_REPLICA) {
        c->place.node = owner; /* behind an earlier one of its key on its road */
        return ROAD_NONE;
    }
    return road;
}
