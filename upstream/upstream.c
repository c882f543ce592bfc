/* SPDX-License-Identifier: Apache-2.0
 *
 * upstream.c: the set of lanes of one worker. There are few (two or three, unless clients use many
 * databases), so they are a list, in the order in which they were first needed.
 *
 * Invariants: a lane stays until the end, with one exception: one whose SELECT was refused. Clients
 * choose the db, so whoever walks through numbers must not leave a connection behind for each; such
 * a lane goes at the second tick after its refusal, when everybody has heard of it.
 *
 * Threads: the worker's. Not here: what goes on a lane, and which kind.
 */
#include "upstream.h"

#include "upstream_priv.h"

#include "../conf/mem.h"

#include <inttypes.h>

#define REFUSED_LOG_EVERY_MS 10000
#define OVERDUE_MS           500 /* then a lane is retired */
#define RETIRED_MAX          16  /* open at one time */

struct lane {
    struct lane *next;
    struct upstream *up;
    struct conn *conn;
    struct lost_calls lost; /* once shut */
    uint32_t db;
    bool resp3;
    enum lane_kind kind;
    bool no_such_db; /* SELECT was refused */
    bool doomed;     /* and a tick has seen it */
    bool retired;    /* takes nothing new */
};

struct upstream {
    struct upstream_options options;
    struct lane *lanes; /* only upstream_tick and _destroy take one out; new ones go to the end */
    bool closing;
    uint64_t retired;      /* so far */
    unsigned retired_open; /* of these, not closed yet */
    struct log_limit refused_log;
    struct log_limit retired_log;
};

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
                  node_name(up->options.node), lane->kind == LANE_BULK ? "bulk" : "lane", lane->db,
                  step, text, more);
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

static struct lane *lane_create(struct upstream *up, uint32_t db, bool resp3, enum lane_kind kind)
{
    struct lane *lane = mem_zalloc(sizeof(*lane));
    lane->up = up;
    lane->db = db;
    lane->resp3 = resp3;
    lane->kind = kind;
    lane->conn = conn_create(&(struct conn_options){
        .loop = up->options.loop,
        .node = up->options.node,
        .role = kind == LANE_BULK ? "bulk" : "lane",
        .db = db,
        .resp3 = resp3,
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
    struct upstream *up = mem_zalloc(sizeof(*up));
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
    for (struct lane *lane = up->lanes; lane != NULL; lane = lane->next) {
        lane->lost = conn_shut(lane->conn);
    }
    for (struct lane *lane = up->lanes; lane != NULL; lane = lane->next) {
        lost_calls_tell(lane->lost);
    }
    while (up->lanes != NULL) {
        struct lane *lane = up->lanes;
        up->lanes = lane->next;
        lane_destroy(lane);
    }
    mem_free(up);
}

/* The link to the lane, or the one at the end. */
static struct lane **find_lane(struct upstream *up, uint32_t db, bool resp3, enum lane_kind kind)
{
    struct lane **link = &up->lanes;
    while (*link != NULL && ((*link)->retired || (*link)->db != db || (*link)->resp3 != resp3 ||
                             (*link)->kind != kind)) {
        link = &(*link)->next;
    }
    return link;
}

struct conn *upstream_find_lane(struct upstream *up, uint32_t db, bool resp3, enum lane_kind kind)
{
    struct lane *lane = *find_lane(up, db, resp3, kind);
    return lane == NULL ? NULL : lane->conn;
}

/* A lane that is not the first of the list, or none yet. */
static __attribute__((noinline)) struct conn *other_lane(struct upstream *up, uint32_t db,
                                                         bool resp3, enum lane_kind kind)
{
    struct lane **link = find_lane(up, db, resp3, kind);
    struct lane *lane = *link;
    if (lane == NULL) {
        lane = lane_create(up, db, resp3, kind);
        *link = lane;
        if (!up->closing) {
            conn_open(lane->conn);
        }
    }
    return lane->conn;
}

static inline bool is_lane(const struct lane *lane, uint32_t db, bool resp3, enum lane_kind kind)
{
    return !lane->retired && lane->db == db && lane->resp3 == resp3 && lane->kind == kind;
}

struct conn *upstream_lane(struct upstream *up, uint32_t db, bool resp3, enum lane_kind kind)
{
    struct lane *first = up->lanes;
    bool found = first != NULL && is_lane(first, db, resp3, kind);
    return likely(found) ? first->conn : other_lane(up, db, resp3, kind);
}

void upstream_flush(struct upstream *up)
{
    struct lane *next = NULL;
    for (struct lane *lane = up->lanes; lane != NULL; lane = next) {
        next = lane->next;
        conn_flush(lane->conn);
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
    uint64_t more = 0;
    if (lane->retired || up->retired_open >= RETIRED_MAX ||
        conn_overdue(lane->conn, now) < OVERDUE_MS) {
        return;
    }
    lane->retired = true;
    up->retired++;
    up->retired_open++;
    if (log_allow(&up->retired_log, now, REFUSED_LOG_EVERY_MS, &more)) {
        log_event(LOG_INFO,
                  "%s: %zu commands wait behind a slow one on a connection (%s, db %" PRIu32
                  "); others take a new one; not logged: %" PRIu64,
                  node_name(up->options.node), conn_pending(lane->conn) - 1,
                  lane->kind == LANE_BULK ? "bulk" : "lane", lane->db, more);
    }
    if (up->options.retired != NULL) {
        up->options.retired(lane->conn, up->options.ctx);
    }
}

uint64_t upstream_retired(const struct upstream *up)
{
    return up->retired;
}

void upstream_tick(struct upstream *up, int64_t now)
{
    for (struct lane **link = &up->lanes; *link != NULL;) {
        struct lane *lane = *link;
        retire_if_overdue(lane, now);
        if (lane->retired && conn_pending(lane->conn) == 0) {
            *link = lane->next;
            up->retired_open--;
            lane_destroy(lane);
            continue;
        }
        if (is_over(lane)) {
            *link = lane->next;
            lane_destroy(lane);
            continue;
        }
        conn_tick(lane->conn, now);
        link = &lane->next;
    }
}

void upstream_each(struct upstream *up,
                   void (*visit)(const struct conn *conn, enum lane_kind kind, void *ctx),
                   void *ctx)
{
    for (struct lane *lane = up->lanes; lane != NULL; lane = lane->next) {
        visit(lane->conn, lane->kind, ctx);
    }
}
