/* SPDX-License-Identifier: Apache-2.0
 *
 * roads.c: the order rule, where something is unanswered.
 */
#include "roads.h"

#include "../conf/mutant.h"

static unsigned roads_in_use(const uint32_t count[ROADS])
{
    return (count[0] ? (unsigned)ROAD_FILL : 0) | (count[1] ? (unsigned)ROAD_LANE : 0) |
           (count[2] ? (unsigned)ROAD_BULK : 0) | (count[4] ? (unsigned)ROAD_REPLICA : 0) |
           (count[5] ? (unsigned)ROAD_SPLIT : 0);
}

struct earlier roads_among(const struct client *c, const uint64_t *hashes, size_t n,
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
