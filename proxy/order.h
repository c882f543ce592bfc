/* SPDX-License-Identifier: Apache-2.0
 *
 * order.h: which keys the unanswered requests of a client name, and on which road they are, so that
 * two of them never race on two upstream connections (D14, R6, R6b). One table per worker, by
 * (client, hash of the key). Worker's thread only.
 *
 * Most clients have all that they have unanswered on one road, and nobody asks. So what a client has unanswered comes
 * into the table when somebody does (client->ordered), and what it sends from then on does at once, until nothing is
 * unanswered.
 */
#pragma once

#include "../conf/base.h"

#include <stdbool.h>

struct client;
struct request;

/* Upstream connections of a worker, as a set. */
enum road {
    ROAD_NONE = 0,
    ROAD_FILL = 1,
    ROAD_LANE = 2,
    ROAD_BULK = 4,
    ROAD_PINNED = 8,
    ROAD_REPLICA = 16, /* a lane to a replica: reads that may lag behind (read_from) */
    ROAD_SPLIT = 32,   /* several: nothing else goes all of them (fanout.h) */
};
#define ROADS 6

/* One key of one unanswered request; lives in the request. */
struct order_link {
    uint64_t hash;
    struct request *request;
    struct order_link *next;
    struct order_link **at; /* what points to it: its bucket, or the one before */
};

struct order {
    struct order_link **buckets;
    size_t mask;
    size_t links;
};

void order_init(struct order *order);
void order_fini(struct order *order);

/* While nothing is in it: as small as it began. */
void order_shrink(struct order *order);

/* The request, the last in its client's queue, is unanswered, and so are its keys (request->keys), from now until
 * order_remove. */
void order_add(struct order *order, struct request *request);
void order_remove(struct order *order, struct request *request);

/* The latest unanswered request of the client (seq below `before`) that names this key, or NULL. By the
 * order rule all of them are on its road. */
struct request *order_find(struct order *order, struct client *client, uint64_t hash,
                           uint64_t before);

/* Does an unanswered request of the client behind `request` name one of its keys? */
bool order_has_later(struct order *order, const struct request *request);
/* Does one change it? */
bool order_has_later_write(struct order *order, const struct request *request);
