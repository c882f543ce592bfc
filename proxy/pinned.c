/* SPDX-License-Identifier: Apache-2.0
 *
 * pinned.c: the worker's pinned connections, each in one of three lists:
 *
 *        take                  settle (clean)
 *   idle ────► busy (a client) ─────────────► idle
 *                 └── drop (client left, link lost) ──► retired ──► destroyed at the end of the turn
 *
 * `multi` and `watched` follow the replies, not the requests: what counts is what Redis has done. A
 * connection is destroyed outside its own callbacks only, hence the retired list.
 */
#include "pinned.h"

#include "login.h"
#include "nodes.h"
#include "pause.h"
#include "session.h"
#include "standin.h"
#include "stream.h"

#include "../conf/mem.h"

/* Kept ready per worker; more than that are closed when they become idle. */
#define IDLE_MAX 16

struct pinned {
    struct worker *worker;
    struct client *client; /* NULL: idle or retired */
    struct client *left;   /* of a retired one: whose it was until this turn, or NULL */
    struct conn *conn;
    uint16_t node;
    uint32_t db;
    bool resp3;
    bool multi;
    uint32_t watched;   /* keys; one that is watched twice counts twice */
    bool any_db;        /* its db is not known: the SELECT it was to begin with was refused */
    bool debugging;     /* SCRIPT DEBUG */
    bool follows;       /* REPLCONF: the client is, or will be, a replica */
    bool own;           /* its client is somebody else, */
    bool entered;       /* who is logged in here (in a cluster), in the protocol it speaks now */
    struct pause pause; /* queued in its transaction */
    uint64_t grown;     /* by what is queued there */
    struct stream stream;
    bool tainted; /* something else was done on it: never anybody else's */
    bool is_dirty;
    bool held;              /* of the first: pinned_hold */
    struct pinned *sibling; /* the same client's, to another node, for shard channels */
    struct pinned *next, *prev;
    struct pinned *next_dirty;
};

/* The first of the client's connections is c->pinned; the others have nothing but shard channels, or single
 * commands of somebody else. */
static struct pinned *to_node(const struct client *c, uint16_t node)
{
    struct pinned *p = c->pinned;
    while (p != NULL && p->node != node) {
        p = p->sibling;
    }
    return p;
}

/* The one that is in the middle of a message. */
static const struct pinned *find_inside(const struct client *c)
{
    const struct pinned *p = c->pinned;
    while (p != NULL && !stream_is_inside(&p->stream)) {
        p = p->sibling;
    }
    return p;
}

static int64_t shards_of(const struct client *c)
{
    int64_t n = 0;
    for (const struct pinned *p = c->pinned; p != NULL; p = p->sibling) {
        n += p->stream.shards;
    }
    return n;
}

/* Whoever has much to take is sent nothing more; a message that has begun is not mixed with others. */
static void apply_holds(const struct client *c)
{
    const struct pinned *inside = find_inside(c);
    for (struct pinned *p = c->pinned; p != NULL; p = p->sibling) {
        conn_hold(p->conn, c->pinned->held || (inside != NULL && inside != p));
    }
}

static void on_lost(struct conn *conn, void *ctx)
{
    struct pinned *p = ctx;
    (void)conn;
    p->tainted = true; /* it comes back in the db and protocol it began with */
    if (p->client != NULL && p->client->pending == 0) {
        client_end(
            p->client); /* it is to read what it was told last: that its user was deleted, say */
    } else if (p->client != NULL) {
        client_close(p->client);
    }
}

static void count_others(struct pinned *p)
{
    p->stream.elsewhere = p->client == NULL ? 0 : shards_of(p->client) - p->stream.shards;
}

static bool on_stray(struct conn *conn, const struct reply_piece *piece, void *ctx)
{
    struct pinned *p = ctx;
    p->stream.resp3 = p->resp3;
    count_others(p);
    bool taken = stream_stray(&p->stream, conn, p->client, piece);
    if (p->client != NULL && !pinned_is_alone(p->client)) {
        apply_holds(p->client);
    }
    return taken;
}

static void on_push(struct conn *conn, const struct push *push, void *ctx)
{
    struct pinned *p = ctx;
    count_others(p);
    /* what comes right behind the last reply is still said to who asked (DEBUG PROTOCOL push) */
    stream_push(&p->stream, conn, p->client != NULL ? p->client : p->left, push);
}

static const struct conn_events pinned_events = {
    .lost = on_lost,
    .push = on_push,
    .stray = on_stray,
};

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

static struct pinned *create(struct worker *worker, uint16_t node, uint32_t db, bool resp3)
{
    struct pinned *p = mem_zalloc(sizeof(*p));
    p->worker = worker;
    p->node = node;
    p->db = db;
    p->resp3 = resp3;
    stream_init(&p->stream);
    p->conn = conn_create(&(struct conn_options){
        .loop = worker->loop,
        .node = topology_node(worker->server->topology, node),
        .role = "pinned",
        .use = PORT_CLIENT,
        .db = db,
        .resp3 = resp3,
        .quiet = true,
        .asks_id = true,
        .now = clock_ms,
        .read_buffer = worker->read_buffer,
        .read_size = WORKER_READ_SIZE,
        .events = &pinned_events,
        .ctx = p,
    });
    conn_open(p->conn);
    return p;
}

/* An idle one to this node, in this db and protocol, whose link is up and to the server as it is (a
 * failover may have been noticed a moment ago); others there are of no use. */
static struct pinned *find_idle(struct worker *worker, uint16_t node, uint32_t db, bool resp3)
{
    struct pinned *p = worker->pinned_idle;
    while (p != NULL && (p->tainted || p->node != node || p->db != db || p->resp3 != resp3 ||
                         conn_state(p->conn) != CONN_UP || !conn_accepts(p->conn))) {
        p = p->next;
    }
    return p;
}

static struct pinned *give(struct client *c, uint16_t node, uint32_t db)
{
    struct worker *worker = c->worker;
    struct pinned *p = find_idle(worker, node, db, c->resp3);
    if (p != NULL) {
        unlink_from(&worker->pinned_idle, p);
        worker->npinned_idle--;
    } else {
        p = create(worker, node, db, c->resp3);
    }
    p->client = c;
    p->multi = p->own = p->entered = false;
    p->watched = 0;
    push(&worker->pinned_busy, p);
    return p;
}

/* May there be one more? */
static bool count_in(struct server *server)
{
    if (atomic_fetch_add_explicit(&server->pinned, 1, memory_order_relaxed) >=
        server->conf->upstream_max_pinned) {
        atomic_fetch_sub_explicit(&server->pinned, 1, memory_order_relaxed);
        return false;
    }
    return true;
}

bool pinned_take(struct client *c, uint16_t node, uint32_t db)
{
    if (!count_in(c->worker->server)) {
        return false;
    }
    c->pinned = give(c, node, db);
    return true;
}

bool pinned_reach(struct client *c, uint16_t node)
{
    if (to_node(c, node) == NULL) {
        if (!count_in(c->worker->server)) {
            return false;
        }
        struct pinned *p = give(c, node, c->pinned->db);
        p->own = c->pinned->own;
        p->sibling = c->pinned->sibling;
        c->pinned->sibling = p;
        apply_holds(c);
    }
    return true;
}

uint16_t pinned_sharded_node(const struct client *c)
{
    const struct pinned *p = c->pinned;
    while (p->sibling != NULL && p->stream.shards == 0) {
        p = p->sibling;
    }
    return p->stream.shards > 0 ? p->node : c->pinned->node;
}

bool pinned_is_alone(const struct client *c)
{
    return c->pinned == NULL || c->pinned->sibling == NULL;
}

bool pinned_is_at_home(const struct client *c)
{
    return c->pinned->db == c->db || c->any_db;
}

uint16_t pinned_node(const struct client *c)
{
    return c->pinned->node;
}

static void release(struct pinned *p)
{
    unlink_from(&p->worker->pinned_busy, p);
    p->client = NULL;
    p->sibling = NULL;
    p->held = false;
    atomic_fetch_sub_explicit(&p->worker->server->pinned, 1, memory_order_relaxed);
}

/* The transaction that is queued goes on there. */
static void take_over(struct pinned *p, struct pinned *old)
{
    p->pause = old->pause;
    p->grown = old->grown;
    old->pause = (struct pause){0};
}

/* The one to that node becomes the first. What is left of a MULTI on the old one ends with it. */
static void put_first(struct client *c, uint16_t node)
{
    struct pinned *old = c->pinned;
    struct pinned **link = &c->pinned;
    while ((*link)->node != node) {
        link = &(*link)->sibling;
    }
    struct pinned *p = *link;
    *link = p->sibling;
    p->held = old->held;
    old->held = false;
    p->sibling = c->pinned;
    c->pinned = p;
    take_over(p, old);
    if (old->multi) {
        p->sibling = old->sibling;
        release(old);
        push(&old->worker->pinned_retired, old);
    }
    apply_holds(c);
}

void pinned_move(struct client *c, uint16_t node)
{
    struct pinned *old = c->pinned;
    if (old->own) {
        if (old->node != node) {
            put_first(c, node);
        }
        return;
    }
    unlink_from(&old->worker->pinned_busy, old);
    old->client = NULL;
    push(&old->worker->pinned_retired, old);
    c->pinned = give(c, node, old->db);
    c->pinned->tainted = old->tainted;
    take_over(c->pinned, old);
}

void pinned_expect_multi(struct client *c)
{
    c->pinned->multi = true;
}

struct conn *pinned_conn(struct client *c)
{
    return c->pinned->conn;
}

struct conn *pinned_conn_of(const struct request *request)
{
    return to_node(request->client, request->node)->conn;
}

void pinned_mark_dirty(const struct request *request)
{
    struct pinned *p = to_node(request->client, request->node);
    if (!p->is_dirty) {
        p->is_dirty = true;
        p->next_dirty = p->worker->pinned_dirty;
        p->worker->pinned_dirty = p;
    }
}

static bool is_named(const struct request *request, const char *name)
{
    return strcmp(request->cmd->name, name) == 0;
}

static void follow_exec(struct client *c, struct pinned *p, const struct request *request,
                        const struct reply_piece *piece)
{
    /* without MULTI an error that changes nothing, with it any reply ends the transaction */
    bool executed = p->multi && piece->type != '-' && !piece->is_null;
    if (executed && request->logged_in) {
        pinned_own(c, true);
    }
    p->watched = p->multi ? 0 : p->watched;
    p->multi = false;
    if (!request->executes) {
        standin_forget(c);
    }
}

/* Sent as part of a MULTI that the server did not take: it has been executed. */
static bool is_unqueued(const struct request *request, enum cmd_local local,
                        const struct reply_piece *piece)
{
    return request->queued && request->cmd->local == local && piece->type == '+' &&
           !slice_eq(piece->bytes, SLICE("+QUEUED\r\n"));
}

/* The others have to be told before they are used again. */
static void speak(struct client *c, bool resp3)
{
    for (struct pinned *p = c->pinned->sibling; p != NULL; p = p->sibling) {
        p->entered = p->entered && p->resp3 == resp3;
    }
    c->pinned->resp3 = resp3;
}

void pinned_follow(struct client *c, struct request *request, const struct reply_piece *piece)
{
    struct pinned *p = c->pinned;
    bool ok = piece->type != '-';
    if (request->queued) {
        standin_queued(c, request, piece);
    }
    if (request->pauses && (!ok || piece->is_null)) {
        pause_cancel(c->worker->server);
    }
    if (request->selects && ok) {
        p->db = request->db;
        p->any_db = c->any_db = false;
    } else if (is_unqueued(request, LOCAL_SELECT, piece)) {
        p->any_db = c->any_db = true;
    } else if (is_unqueued(request, LOCAL_AUTH, piece)) {
        pinned_own(c, true);
    } else if (request->greets && ok) {
        speak(c, request->resp3);
        login_follow(c, request, ok);
    } else if (request->logs_in) {
        login_follow(c, request, ok);
    } else if (is_named(request, "multi")) {
        p->multi = p->multi || ok;
    } else if (is_named(request, "watch")) {
        p->watched += !ok ? 0 : request->nkeys > 0 ? request->nkeys : 1;
    } else if (is_named(request, "exec")) {
        follow_exec(c, p, request, piece);
    } else if (is_named(request, "discard") && ok) {
        p->watched = p->multi ? 0 : p->watched;
        p->multi = false;
        standin_forget(c);
    } else if (is_named(request, "unwatch") && ok) {
        p->watched = p->multi ? p->watched : 0; /* inside MULTI it is only queued */
    } else if (is_named(request, "script|debug") && ok && !request->queued) {
        p->debugging = request->debugs;
    } else if (is_named(request, "replconf") && ok && !request->queued) {
        p->follows = true;
    } else if (is_named(request, "monitor") && ok && !request->queued) {
        p->stream.monitoring = true;
    }
}

void pinned_executed(struct client *c, const struct cmd *cmd, const struct request_view *view,
                     struct slice reply)
{
    struct pinned *p = c->pinned;
    int64_t number;
    bool says = view->argc > 1 && slice_to_int64(view->argv[1], &number);
    if (reply.n == 0 || *reply.p == '-') {
        return;
    }
    if (cmd->local == LOCAL_HELLO) {
        speak(c, says ? number == 3 : p->resp3);
    } else if (cmd->local == LOCAL_SELECT && says) {
        p->db = c->db = (uint32_t)number;
        p->any_db = c->any_db = false;
    } else if (stream_is_subscription(cmd)) {
        stream_executed(&p->stream, cmd, reply);
    } else if (strcmp(cmd->name, "monitor") == 0) {
        p->stream.active = p->stream.monitoring = true;
    }
}

void pinned_stream(struct client *c, struct request *request, int64_t argc)
{
    struct pinned *p = to_node(c, request->node);
    p->tainted = true;
    if (stream_is_subscription(request->cmd)) {
        stream_ask(&p->stream, request, argc);
    } else {
        p->stream.active = true;
    }
}

bool pinned_is_streaming(const struct client *c)
{
    return c->pinned != NULL && (stream_is_on(&c->pinned->stream) || shards_of(c) > 0);
}

bool pinned_is_inside(const struct client *c)
{
    return find_inside(c) != NULL;
}

bool pinned_is_subscriber(const struct client *c)
{
    struct pinned_counts counts = pinned_counts(c);
    return !c->resp3 && counts.channels + counts.patterns + counts.shards > 0;
}

struct pinned_counts pinned_counts(const struct client *c)
{
    if (c->pinned == NULL) {
        return (struct pinned_counts){0};
    }
    const struct stream *s = &c->pinned->stream;
    return (struct pinned_counts){s->channels, s->patterns, shards_of(c), s->monitoring,
                                  c->pinned->watched};
}

void pinned_hold(struct client *c, bool on)
{
    c->pinned->held = on;
    apply_holds(c);
}

int64_t pinned_peer_id(const struct client *c)
{
    return c->pinned == NULL ? 0 : conn_peer_id(c->pinned->conn);
}

struct pause *pinned_pause(struct client *c)
{
    return &c->pinned->pause;
}

uint64_t *pinned_grown(struct client *c)
{
    return &c->pinned->grown;
}

void pinned_chose_db(struct client *c, bool ok)
{
    c->pinned->db = c->db;
    c->pinned->any_db = c->any_db = !ok;
}

void pinned_own(struct client *c, bool on)
{
    c->pinned->tainted = c->pinned->tainted || on;
    for (struct pinned *p = c->pinned; p != NULL; p = p->sibling) {
        p->own = on;
        p->entered = false;
    }
}

void pinned_enter(struct client *c, uint16_t node, bool greeted)
{
    struct pinned *p = to_node(c, node);
    p->entered = true;
    p->resp3 = greeted ? c->resp3 : p->resp3;
}

bool pinned_has_entered(const struct client *c, uint16_t node)
{
    return to_node(c, node)->entered;
}

bool pinned_is_own(const struct client *c)
{
    return c->pinned != NULL && c->pinned->own;
}

void pinned_taint(struct client *c)
{
    c->pinned->tainted = true;
}

/* Closes the client's connections to other nodes, or those of them that have no shard channels. */
static void drop_siblings(struct client *c, bool all)
{
    struct pinned **link = &c->pinned->sibling;
    while (*link != NULL) {
        struct pinned *p = *link;
        if (!all && p->stream.shards > 0) {
            link = &p->sibling;
            continue;
        }
        *link = p->sibling;
        release(p);
        push(&p->worker->pinned_retired, p);
    }
}

static struct pinned *detach(struct client *c)
{
    struct pinned *p = c->pinned;
    drop_siblings(c, true);
    release(p);
    c->pinned = NULL;
    session_expect_end(c);
    c->any_db = c->anchored = false;
    c->nqueued = 0;
    session_forget_log(c);
    standin_forget(c);
    return p;
}

void pinned_settle(struct client *c)
{
    struct pinned *p = c->pinned;
    if (!p->own) {
        drop_siblings(c, false);
    } else if (!p->multi && p->watched == 0) {
        c->anchored = false;
        session_forget_log(c);
    }
    if (p->multi || p->watched > 0 || p->own || p->any_db || p->debugging || p->follows ||
        pinned_is_streaming(c)) {
        c->expects_multi = p->multi; /* a MULTI may have been refused */
        c->expects_watch = p->watched > 0;
        return;
    }
    struct worker *worker = p->worker;
    detach(c);
    if (worker->npinned_idle < IDLE_MAX && conn_state(p->conn) == CONN_UP && !p->tainted) {
        push(&worker->pinned_idle, p);
        worker->npinned_idle++;
    } else {
        p->left = c;
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

void pinned_tick(struct worker *worker)
{
    struct pinned *next;
    for (struct pinned *p = worker->pinned_busy; p != NULL; p = next) {
        next = p->next;
        /* A blocked command owes a reply for as long as it likes: whether its node lives is asked on a
         * lane. */
        nodes_beat(worker, p->node);
        conn_tick(p->conn, worker->now);
    }
    for (struct pinned *p = worker->pinned_idle; p != NULL; p = next) {
        next = p->next;
        bool gone = topology_role(worker->server->topology, p->node) == TOPOLOGY_GONE;
        if (conn_state(p->conn) != CONN_UP || p->tainted || gone) {
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
        stream_fini(&p->stream);
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
