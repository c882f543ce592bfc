/* SPDX-License-Identifier: Apache-2.0
 *
 * roads.h: the order rule (D14, R6): on which upstream connections a client has unanswered requests
 * that a new one must not overtake. Those are the ones that name a key of it; or any, if one of the two has
 * unknown effect or is a batch without keys; or with proxy.order = strict any but fetches before a read.
 * None: go. One road to the same node that the new request can take too: take it. Otherwise: wait until
 * something was answered. Worker's thread only.
 */
#pragma once

#include "client.h"

struct earlier {
    unsigned roads;       /* where conflicting requests of the client are unanswered */
    struct request *last; /* the latest that names the key (the last key, if several) */
};

/* What the new request is to the order rule. */
enum new_request {
    NEW_L1_READ, /* may be answered from L1 or by a fetch for it */
    NEW_KEYED,   /* its keys say what it can conflict with */
    NEW_UNKNOWN, /* it conflicts with everything */
};

/* `before`: the seq of the new request. It goes to c->place. */
struct earlier roads_among(struct client *c, const uint64_t *hashes, size_t n,
                           enum new_request what, uint64_t before);

static inline struct earlier roads_of(struct client *c, const uint64_t *hashes, size_t n,
                                      enum new_request what, uint64_t before)
{
    return c->pending == 0 ? (struct earlier){0, NULL} : roads_among(c, hashes, n, what, before);
}

/* Settles the road for a request that may only go on lanes. ROAD_NONE: it has to wait. */
enum road lane_road(unsigned conflicts, enum road wanted);

/* Can it go there whatever else of its client is unanswered? All of that is on that very road. */
static inline bool is_only_road(const struct client *c, enum road road)
{
    return c->pending == 0 ||
           (c->pending == c->on_road[__builtin_ctz(road)] && !c->scattered &&
            c->node == c->place.node && c->head->retired == upstream_retired(c->worker->upstream));
}

/* The road of a request that goes on lanes only. ROAD_NONE: it has to wait. */
static inline enum road road_of(struct client *c, const struct request *request, enum road wanted)
{
    if (likely(is_only_road(c, wanted))) {
        return wanted;
    }
    enum new_request what = request_is_unordered(request) ? NEW_UNKNOWN : NEW_KEYED;
    return lane_road(roads_of(c, request->hashes, request->nkeys, what, c->next_seq).roads, wanted);
}

/* read_from: a read whose value nobody keeps may go to a replica, if nothing earlier of its client holds
 * it back there: then c->place is the replica. ROAD_NONE: it may not; c->place is as it was. *refused: and to
 * nobody else either. */
enum road road_to_replica(struct client *c, const struct request *request, const struct cmd *cmd,
                          bool *refused);
