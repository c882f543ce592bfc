/* SPDX-License-Identifier: Apache-2.0
 *
 * pinned.c: the worker's pinned connections, each in one of three lists:
 *
 *        take                  settle (clean)
 *   idle ────► busy (a client) ─────────────► idle
 *                 └── drop (client left, link lost) ──► retired ──► destroyed at the end of the turn
 *
 * `multi` and `watching` follow the replies, not the requests: what counts is what Redis has done. A
 * connection is destroyed outside its own callbacks only, hence the retired list.
 */
#include "pinned.h"

#include "../conf/mem.h"

/* Kept ready per worker; more than that are closed when they become idle. */
#define IDLE_MAX 16

struct pinned {
    struct worker *worker;
    struct client *client; /* NULL: idle or retired */
    struct conn *conn;
    uint32_t db;
    bool multi, watching;
    bool tainted; /* something else was done on it: never anybody else's */
    bool is_dirty;
    struct pinned *next, *prev;
    struct pinned *next_dirty;
};

static void on_lost(struct conn *conn, void *ctx)
{
    struct pinned *p = ctx;
    (void)conn;
    if (p->client != NULL) {
        client_close(p->client);
    }
}

static const struct conn_events pinned_events = {.lost = on_lost};

static void push(struct pinned **list, struct pinned *p)
{
    p->prev = NULL;
    p->next = *list;
    if (p->next != NULL) {
        p->next->prev = p;
    }
    *list = p;
}

static void unlink_from(struct pinned **list, struct pinned *p)
{
    if (p->next != NULL) {
        p->next->prev = p->prev;
    }
    if (p->prev != NULL) {
        p->prev->next = p->next;
    } else {
        *list = p->next;
    }
}

static struct pinned *create(struct worker *worker, uint32_t db)
{
    struct pinned *p = mem_zalloc(sizeof(*p));
    p->worker = worker;
    p->db = db;
    p->conn = conn_create(&(struct conn_options){
        .loop = worker->loop,
        .node = worker->server->node,
        .role = "pinned",
        .db = db,
        .now = clock_ms,
        .read_buffer = worker->read_buffer,
        .read_size = WORKER_READ_SIZE,
        .events = &pinned_events,
        .ctx = p,
    });
    conn_open(p->conn);
    return p;
}

/* An idle one in this db whose link is up; others there are of no use. */
static struct pinned *find_idle(struct worker *worker, uint32_t db)
{
    struct pinned *p = worker->pinned_idle;
    while (p != NULL && (p->db != db || conn_state(p->conn) != CONN_UP)) {
        p = p->next;
    }
    return p;
}

bool pinned_take(struct client *c)
{
    struct worker *worker = c->worker;
    struct server *server = worker->server;
    if (atomic_fetch_add_explicit(&server->pinned, 1, memory_order_relaxed) >=
        server->conf->upstream_max_pinned) {
        atomic_fetch_sub_explicit(&server->pinned, 1, memory_order_relaxed);
        return false;
    }
    struct pinned *p = find_idle(worker, c->db);
    if (p != NULL) {
        unlink_from(&worker->pinned_idle, p);
        worker->npinned_idle--;
    } else {
        p = create(worker, c->db);
    }
    p->client = c;
    p->multi = p->watching = false;
    push(&worker->pinned_busy, p);
    c->pinned = p;
    return true;
}

struct conn *pinned_conn(struct client *c)
{
    return c->pinned->conn;
}

void pinned_mark_dirty(struct client *c)
{
    struct pinned *p = c->pinned;
    if (!p->is_dirty) {
        p->is_dirty = true;
        p->next_dirty = p->worker->pinned_dirty;
        p->worker->pinned_dirty = p;
    }
}

void pinned_follow(struct client *c, const struct cmd *cmd, char reply_type)
{
    struct pinned *p = c->pinned;
    if (strcmp(cmd->name, "multi") == 0) {
        p->multi = p->multi || reply_type == '+';
    } else if (strcmp(cmd->name, "watch") == 0) {
        p->watching = p->watching || reply_type == '+';
    } else if (strcmp(cmd->name, "exec") == 0 ||
               (strcmp(cmd->name, "discard") == 0 && reply_type == '+')) {
        /* EXEC: without MULTI an error that changes nothing, with it any reply ends the transaction */
        p->watching = p->watching && !p->multi;
        p->multi = false;
    } else if (strcmp(cmd->name, "unwatch") == 0 && reply_type == '+') {
        p->watching = p->watching && p->multi; /* inside MULTI it is only queued */
    }
}

void pinned_taint(struct client *c)
{
    c->pinned->tainted = true;
}

static struct pinned *detach(struct client *c)
{
    struct pinned *p = c->pinned;
    unlink_from(&p->worker->pinned_busy, p);
    p->client = NULL;
    c->pinned = NULL;
    c->expects_multi = c->expects_watch = c->multi_flushes = false;
    atomic_fetch_sub_explicit(&p->worker->server->pinned, 1, memory_order_relaxed);
    return p;
}

void pinned_settle(struct client *c)
{
    struct pinned *p = c->pinned;
    if (p->multi || p->watching) {
        return;
    }
    struct worker *worker = p->worker;
    detach(c);
    if (worker->npinned_idle < IDLE_MAX && conn_state(p->conn) == CONN_UP && !p->tainted) {
        push(&worker->pinned_idle, p);
        worker->npinned_idle++;
    } else {
        push(&worker->pinned_retired, p);
    }
}

void pinned_drop(struct client *c)
{
    if (c->pinned != NULL) {
        struct pinned *p = detach(c);
        push(&p->worker->pinned_retired, p);
    }
}

void pinned_flush(struct worker *worker)
{
    struct pinned *p = worker->pinned_dirty;
    worker->pinned_dirty = NULL;
    while (p != NULL) {
        struct pinned *next = p->next_dirty;
        p->is_dirty = false;
        conn_flush(p->conn);
        p = next;
    }
}

static void on_heartbeat(struct call *call, const struct reply_piece *piece)
{
    struct worker *worker = container_of(call, struct worker, heartbeat);
    worker->heartbeat_sent = worker->heartbeat_sent && !piece->last;
}

static void on_heartbeat_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    container_of(call, struct worker, heartbeat)->heartbeat_sent = false;
}

static const struct call_ops heartbeat_ops = {on_heartbeat, on_heartbeat_lost};

/* A blocked command owes a reply for as long as it likes: whether the node lives is asked on a lane. */
static void beat(struct worker *worker)
{
    struct server *server = worker->server;
    if (worker->pinned_busy == NULL || worker->heartbeat_sent ||
        worker->now - node_last_heard(server->node) < server->conf->upstream_dead_after / 4) {
        return;
    }
    struct conn *lane =
        upstream_lane(worker->upstream, server->conf->upstream_db, false, LANE_NORMAL);
    worker->heartbeat.ops = &heartbeat_ops;
    worker->heartbeat.replies = 1;
    worker->heartbeat_sent =
        conn_submit(lane, &worker->heartbeat, SLICE("*1\r\n$4\r\nPING\r\n"), NULL) == CONN_OK;
}

void pinned_tick(struct worker *worker)
{
    struct pinned *next;
    beat(worker);
    for (struct pinned *p = worker->pinned_busy; p != NULL; p = next) {
        next = p->next;
        conn_tick(p->conn, worker->now);
    }
    for (struct pinned *p = worker->pinned_idle; p != NULL; p = next) {
        next = p->next;
        if (conn_state(p->conn) != CONN_UP) {
            unlink_from(&worker->pinned_idle, p);
            worker->npinned_idle--;
            push(&worker->pinned_retired, p);
        } else {
            conn_tick(p->conn, worker->now);
        }
    }
}

void pinned_reap(struct worker *worker)
{
    pinned_flush(worker); /* nothing that is freed may be in the dirty list */
    struct pinned *p = worker->pinned_retired;
    worker->pinned_retired = NULL;
    while (p != NULL) {
        struct pinned *next = p->next;
        conn_destroy(p->conn);
        mem_free(p);
        p = next;
    }
}

void pinned_fini(struct worker *worker)
{
    while (worker->pinned_busy != NULL) {
        pinned_drop(worker->pinned_busy->client);
    }
    while (worker->pinned_idle != NULL) {
        struct pinned *p = worker->pinned_idle;
        unlink_from(&worker->pinned_idle, p);
        push(&worker->pinned_retired, p);
    }
    pinned_reap(worker);
}
