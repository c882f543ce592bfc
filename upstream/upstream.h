/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream.h: the lanes of one worker: untracked shared connections that carry everything but
 * fills, one per (node, db, RESP version, kind), opened on demand (D8). Replies come back in the
 * order of submission on each. A lane whose oldest command keeps it waiting while the server answers
 * others (CLIENT PAUSE, a command that waits for something) is retired: it gets nothing new, what comes
 * takes a fresh one, and it is closed when it owes nothing (D11). One that has not been used for a minute is closed
 * too, unless it leads to the one node of the other modes and to the usual db. Worker's thread only.
 */
#pragma once

#include "conn.h"
#include "topology.h"

struct upstream;

struct upstream_options {
    struct ev_loop *loop;
    const struct topology *topology;
    int64_t (*now)(void);
    char *read_buffer;
    size_t read_size;
    uint32_t db; /* the usual one */
    /* The lane has just been retired; what waits on it may be sent again. May submit. May be NULL. */
    void (*retired)(struct conn *conn, void *ctx);
    /* The lane owes something, and its node is a replica that is not up (health.h); at each tick as long as that is
     * so. Reads may be sent to another node. May submit. May be NULL. */
    void (*in_doubt)(struct conn *conn, void *ctx);
    void *ctx;
};

struct upstream *upstream_create(const struct upstream_options *options);
/* Ends all calls as lost; a lane asked for meanwhile accepts nothing. Accepts NULL. */
void upstream_destroy(struct upstream *up);

enum lane_kind {
    LANE_NORMAL,
    LANE_BULK,
    LANE_REPLICA, /* to a replica; in a cluster it says that it knows (READONLY): reads that may lag behind */
};

struct lane_id {
    uint16_t node; /* in the topology */
    bool resp3;
    enum lane_kind kind;
    uint32_t db;
};

/* The lane; opened if it was not. Never NULL; conn_accepts tells whether it takes commands. Valid
 * until upstream_tick returns, longer while a call is pending on it: a lane whose SELECT the server
 * refuses (db out of range: what a client asked for) is closed there. conn_error has the server's
 * text. */
struct conn *upstream_lane(struct upstream *up, struct lane_id id);

/* The same if it exists, otherwise NULL: for who only looks. */
struct conn *upstream_find_lane(struct upstream *up, struct lane_id id);

/* Submits the call on a lane to the node that is there, a normal one or else one for reads that may lag;
 * that does not count as its use. False: there is none, or it does not accept. */
MUST_CHECK bool upstream_probe(struct upstream *up, uint16_t node, uint32_t db, struct call *call,
                               struct slice bytes);

/* How many lanes have been retired so far. A client that has something unanswered from before the
 * newest one must not send what may not overtake that. */
uint64_t upstream_retired(const struct upstream *up);

void upstream_flush(struct upstream *up);
void upstream_tick(struct upstream *up, int64_t now);

/* Calls visit for each lane that exists. */
void upstream_each(struct upstream *up,
                   void (*visit)(const struct conn *conn, struct lane_id id, void *ctx), void *ctx);
