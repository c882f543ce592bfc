/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream.c: the set of lanes of one worker. There are few to one node (two or three, unless clients
 * use many databases), so they are a list for each, in the order in which they were first needed.
 *
 * Invariants: a lane stays until the end, with two exceptions. One whose SELECT was refused: clients
 * choose the db, so whoever walks through numbers must not leave a connection behind for each; such
 * a lane goes at the second tick after its refusal, when everybody has heard of it. And, in a cluster and to
 * replicas, one that has not been used for a while, or whose node serves nothing any more.
 *
 * Threads: the worker's. Not here: what goes on a lane, and which kind.
 */
#include "upstream.h"

#include "upstream_priv.h"

#include "../conf/mem.h"

#include <inttypes.h>

#define REFUSED_LOG_EVERY_MS 10000
#define OVERDUE_MS           500   /* then a lane is retired */
#define RETIRED_MAX          16    /* open at one time, to one node */
#define UNUSED_MS            60000 /* then a lane is closed, unless it is to stay */

struct lane {
    struct lane *next;
    struct upstream *up;
    struct conn *conn;
    struct lost_calls lost; /* once shut */
    struct lane_id id;
    bool no_such_db;   /* SELECT was refused */
    bool doomed;       /* and a tick has seen it */
    bool retired;      /* takes nothing new */
    uint64_t queued;   /* bytes, as a tick saw them */
    int64_t last_used; /* ms: the newest tick that saw it used; 0: none has seen it yet */
};

/* The lanes to one node. */
struct lanes {
    struct lane *head; /* only upstream_tick and _destroy take one out; new ones go to the end */
    unsigned retired;  /* not closed yet */
};

struct upstream {
    struct upstream_options options;
    bool closing;
    uint64_t retired; /* so far */
    struct log_limit refused_log;
    struct log_limit retired_log;
    uint16_t nodes; /* `to` is used below this */
    struct lanes to[];
};

static const char *const ROLES[] = {
    [LANE_NORMAL] = "lane", [LANE_BULK] = "bulk", [LANE_REPLICA] = "replica"};

static struct node *node_of(const struct lane *lane)
{
    return topology_node(lane->up->options.topology, lane->id.node);
}

static void on_lane_refused(struct conn *conn, const char *step, const char *text, void *ctx)
{
    struct lane *lane = ctx;
    struct upstream *up = lane->up;
    uint64_t more = 0;
    (void)conn;
    lane->no_such_db = strcmp(step, "SELECT") == 0;
    if (log_allow(&up->refused_log, up->options.now(), REFUSED_LOG_EVERY_MS, &more)) {
        log_event(LOG_WARN,
                  "%s refuses a connection (%s, db %" PRIu32 ") at %s: %s; commands that need it "
                  "get an error; refusals not logged: %" PRIu64,
                  node_name(node_of(lane)), ROLES[lane->id.kind], lane->id.db, step, text, more);
    }
}

static void on_lane_up(struct conn *conn, void *ctx)
{
    struct lane *lane = ctx;
    (void)conn;
    lane->no_such_db = false;
    lane->doomed = false;
}

static const struct conn_events LANE_EVENTS = {.up = on_lane_up, .refused = on_lane_refused};

static struct lane *lane_create(struct upstream *up, struct lane_id id)
{
    struct lane *lane = mem_zalloc(sizeof(*lane));
    lane->up = up;
    lane->id = id;
    lane->conn = conn_create(&(struct conn_options){
        .loop = up->options.loop,
        .node = node_of(lane),
        .role = ROLES[id.kind],
        .use = PORT_CLIENT,
        .db = id.db,
        .resp3 = id.resp3,
        .readonly = id.kind == LANE_REPLICA && topology_is_cluster(up->options.topology),
        .now = up->options.now,
        .read_buffer = up->options.read_buffer,
        .read_size = up->options.read_size,
        .events = &LANE_EVENTS,
        .ctx = lane,
    });
    return lane;
}

static void lane_destroy(struct lane *lane)
{
    conn_destroy(lane->conn);
    mem_free(lane);
}

struct upstream *upstream_create(const struct upstream_options *options)
{
    size_t nodes = topology_room(options->topology);
    struct upstream *up = mem_zalloc(sizeof(*up) + nodes * sizeof(up->to[0]));
    up->options = *options;
    return up;
}

void upstream_destroy(struct upstream *up)
{
    if (up == NULL) {
        return;
    }
    /* All are shut before any call is told, and none is freed before all are: whose call is lost
     * may look for another lane. New ones are never opened. */
    up->closing = true;
    for (uint16_t i = 0; i < up->nodes; i++) {
        for (struct lane *lane = up->to[i].head; lane != NULL; lane = lane->next) {
            lane->lost = conn_shut(lane->conn);
        }
    }
    for (uint16_t i = 0; i < up->nodes; i++) {
        for (struct lane *lane = up->to[i].head; lane != NULL; lane = lane->next) {
            lost_calls_tell(lane->lost);
        }
    }
    for (uint16_t i = 0; i < up->nodes; i++) {
        while (up->to[i].head != NULL) {
            struct lane *lane = up->to[i].head;
            up->to[i].head = lane->next;
            lane_destroy(lane);
        }
    }
    mem_free(up);
}

/* The link to the lane, or the one at the end. */
static struct lane **find_lane(struct upstream *up, struct lane_id id)
{
    struct lane **link = &up->to[id.node].head;
    while (*link != NULL && ((*link)->retired || (*link)->id.db != id.db ||
                             (*link)->id.resp3 != id.resp3 || (*link)->id.kind != id.kind)) {
        link = &(*link)->next;
    }
    return link;
}

struct conn *upstream_find_lane(struct upstream *up, struct lane_id id)
{
    struct lane *lane = *find_lane(up, id);
    return lane == NULL ? NULL : lane->conn;
}

bool upstream_probe(struct upstream *up, uint16_t node, uint32_t db, struct call *call,
                    struct slice bytes)
{
    struct lane_id id = {.node = node, .db = db};
    struct lane *lane = *find_lane(up, id);
    if (lane == NULL) {
        id.kind = LANE_REPLICA;
        lane = *find_lane(up, id);
    }
    if (lane == NULL) {
        return false;
    }
    bool used = lane->queued != lane->conn->queued;
    bool ok = conn_submit(lane->conn, call, bytes, NULL) == CONN_OK;
    lane->queued = used ? lane->queued : lane->conn->queued;
    return ok;
}

struct conn *upstream_lane(struct upstream *up, struct lane_id id)
{
    struct lane **link = find_lane(up, id);
    struct lane *lane = *link;
    if (lane == NULL) {
        lane = lane_create(up, id);
        *link = lane;
        up->nodes = up->nodes > id.node ? up->nodes : (uint16_t)(id.node + 1);
        if (!up->closing) {
            conn_open(lane->conn);
        }
    }
    return lane->conn;
}

void upstream_flush(struct upstream *up)
{
    struct lane *next = NULL;
    for (uint16_t i = 0; i < up->nodes; i++) {
        for (struct lane *lane = up->to[i].head; lane != NULL; lane = next) {
            next = lane->next;
            conn_flush(lane->conn);
        }
    }
}

/* The server refused its db, nobody waits on it, and a tick ago it was the same. */
static bool is_over(struct lane *lane)
{
    bool refused =
        lane->no_such_db && conn_state(lane->conn) == CONN_BACKOFF && conn_pending(lane->conn) == 0;
    bool over = refused && lane->doomed;
    lane->doomed = refused;
    return over;
}

/* A slow answer is no reason to make others wait that would be answered at once. */
static void retire_if_overdue(struct lane *lane, int64_t now)
{
    struct upstream *up = lane->up;
    struct lanes *lanes = &up->to[lane->id.node];
    uint64_t more = 0;
    if (lane->retired || lanes->retired >= RETIRED_MAX ||
        conn_overdue(lane->conn, now) < OVERDUE_MS) {
        return;
    }
    lane->retired = true;
    up->retired++;
    lanes->retired++;
    if (log_allow(&up->retired_log, now, REFUSED_LOG_EVERY_MS, &more)) {
        log_event(LOG_INFO,
                  "%s: %zu commands wait behind a slow one on a connection (%s, db %" PRIu32
                  "); others take a new one; not logged: %" PRIu64,
                  node_name(node_of(lane)), conn_pending(lane->conn) - 1, ROLES[lane->id.kind],
                  lane->id.db, more);
    }
    if (up->options.retired != NULL) {
        up->options.retired(lane->conn, up->options.ctx);
    }
}

uint64_t upstream_retired(const struct upstream *up)
{
    return up->retired;
}

static void doubt_if_silent(struct lane *lane)
{
    struct upstream *up = lane->up;
    if (lane->id.kind == LANE_REPLICA && up->options.in_doubt != NULL &&
        conn_state(lane->conn) == CONN_UP && conn_pending(lane->conn) > 0 &&
        node_state(node_of(lane)) != NODE_UP) {
        up->options.in_doubt(lane->conn, up->options.ctx);
    }
}

/* Nobody has used it for a while, or it leads to who serves nothing any more. The one node of the other modes
 * is always in use; its dbs are not, and clients may name as many as the server has. */
static bool is_unused(struct lane *lane, int64_t now)
{
    const struct topology *topology = lane->up->options.topology;
    bool used = lane->queued != lane->conn->queued || lane->last_used == 0;
    bool stays =
        lane->id.node == 0 && lane->id.db == lane->up->options.db && !topology_is_cluster(topology);
    if (stays || conn_pending(lane->conn) > 0) {
        return false;
    }
    lane->queued = lane->conn->queued;
    lane->last_used = used ? now : lane->last_used;
    return now - lane->last_used > UNUSED_MS ||
           (!used && topology_role(topology, lane->id.node) == TOPOLOGY_GONE);
}

static void tick_lanes(struct lanes *lanes, int64_t now)
{
    for (struct lane **link = &lanes->head; *link != NULL;) {
        struct lane *lane = *link;
        retire_if_overdue(lane, now);
        doubt_if_silent(lane);
        bool ends = lane->retired && conn_pending(lane->conn) == 0;
        if (ends || is_over(lane) || is_unused(lane, now)) {
            lanes->retired -= lane->retired;
            *link = lane->next;
            lane_destroy(lane);
            continue;
        }
        conn_tick(lane->conn, now);
        link = &lane->next;
    }
}

void upstream_tick(struct upstream *up, int64_t now)
{
    for (uint16_t i = 0; i < up->nodes; i++) {
        tick_lanes(&up->to[i], now);
    }
}

void upstream_each(struct upstream *up,
                   void (*visit)(const struct conn *conn, struct lane_id id, void *ctx), void *ctx)
{
    for (uint16_t i = 0; i < up->nodes; i++) {
        for (struct lane *lane = up->to[i].head; lane != NULL; lane = lane->next) {
            visit(lane->conn, lane->id, ctx);
        }
    }
}
