/* SPDX-License-Identifier: Apache-2.0
 *
 * forward.c: requests on lanes.
 *
 *   forward_request ─► write-begin (W1) ─► conn_submit ··· on_reply: settle ─► bytes to the client
 *                                                      └─ on_lost: settle ─► again, or an error
 *
 * `settle` runs once per request, at the first byte of its reply (the command has been executed then)
 * or at its loss (it may have been), before a byte is released: write-end (W1, W2), a fence for class
 * U, everything dropped for class F (W3), R7 for reads.
 *
 * A reply goes into request->reply and from there to the client when it is the request's turn; for
 * the head of the queue that is at once, so a long reply streams. When the client has left, replies
 * are counted and dropped here.
 */
#include "forward.h"

#include "batch.h"
#include "echo.h"
#include "fence.h"
#include "info.h"
#include "login.h"
#include "pinned.h"
#include "redirect.h"
#include "replication.h"
#include "session.h"
#include "standin.h"
#include "switch.h"
#include "../resp/scripts.h"
#include "../resp/write.h"

#include "../conf/mem.h"
#include "../conf/mutant.h"

/* A lane with so much unsent makes clients wait; one with less takes any request whole. */
#define LANE_FULL     ((size_t)32 * 1024 * 1024)
#define ANNOUNCED_MAX ((size_t)256 * 1024) /* bytes of keys; more are all keys */
#define LANE_PENDING  ((size_t)256 * 1024)

static void on_reply(struct call *call, const struct reply_piece *piece);
static void on_lost(struct call *call, enum call_loss loss);

static const struct call_ops lane_ops = {.reply = on_reply, .lost = on_lost};

bool forward_is_call(const struct call *call)
{
    return call->ops == &lane_ops;
}

struct conn *forward_lane(struct worker *worker, uint16_t node, uint32_t db, bool resp3,
                          enum road road)
{
    enum lane_kind kind = road == ROAD_BULK      ? LANE_BULK
                          : road == ROAD_REPLICA ? LANE_REPLICA
                                                 : LANE_NORMAL;
    return upstream_lane(worker->upstream,
                         (struct lane_id){.node = node, .resp3 = resp3, .kind = kind, .db = db});
}

static const char *name_of_node(const struct request *request)
{
    return node_name(topology_node(request->worker->server->topology, request->node));
}

struct conn *forward_lane_of(const struct request *request)
{
    return forward_lane(request->worker, request->node, request->db, request->resp3, request->road);
}

bool forward_lane_is_full(const struct conn *lane)
{
    return conn_queued_bytes(lane) > LANE_FULL || conn_pending(lane) > LANE_PENDING;
}

bool forward_is_full(struct worker *worker, uint16_t node, uint32_t db, bool resp3, enum road road)
{
    if (road == ROAD_FILL) {
        const struct feed *feed = worker_feed(worker, node);
        return feed != NULL && feed_queued_bytes(feed) > LANE_FULL;
    }
    return forward_lane_is_full(forward_lane(worker, node, db, resp3, road));
}

/* ---- Effects on L1 --------------------------------------------------------------------------- */

bool forward_is_forbidden(const struct reply_piece *piece)
{
    return piece != NULL && piece->type == '-' && slice_starts(piece->bytes, SLICE("-NOPERM "));
}

static void settle_read(struct request *request, const struct reply_piece *piece)
{
    struct l1 *l1 = request->worker->server->l1;
    bool whole = piece != NULL && piece->first && piece->last;
    if (MUTANT(R7) || forward_is_forbidden(piece)) {
        return; /* nothing was read: who may not read a key is not to drop it either */
    }
    if (request->is_get && whole && (piece->type == '$' || piece->type == '_')) {
        struct slice value = piece->is_null ? slice_of(NULL, 0) : piece->bytes;
        l1_observe_value(l1, request->hashes[0], request->db, value);
        return;
    }
    for (uint32_t i = 0; i < request->nkeys; i++) {
        l1_observe(l1, request->hashes[i]);
    }
    struct request_view view;
    if (request->wide && (request->cmd == NULL || !request_reparse(request, &view) ||
                          !request_each_key(l1, request->cmd, &view, l1_observe))) {
        l1_drop_all(l1); /* its keys are not known any more */
    }
}

/* W3, by invalidation.unknown_writes. */
static void settle_unknown(struct request *request)
{
    struct worker *worker = request->worker;
    enum conf_unknown_writes mode =
        (enum conf_unknown_writes)worker->server->conf->invalidation_unknown_writes;
    if (MUTANT(W3u) || MUTANT(X2)) {
        return;
    }
    if (mode == CONF_UNKNOWN_DECLARED && request->road == ROAD_PINNED) {
        mode = CONF_UNKNOWN_FENCE; /* EXEC names no keys; what is trusted is scripts */
    }
    if (mode == CONF_UNKNOWN_FENCE && worker->server->announces) {
        mode = CONF_UNKNOWN_FLUSH; /* nobody announces what a script wrote */
    }
    switch (mode) {
    case CONF_UNKNOWN_FENCE:
        l1_unknown_end(worker->server->l1);
        if (!fence_join(worker, request)) {
            l1_drop_all(worker->server->l1);
        }
        return;
    case CONF_UNKNOWN_FLUSH:
        l1_drop_all(worker->server->l1);
        return;
    case CONF_UNKNOWN_DECLARED:
        break;
    }
}

static void end_write(struct request *request)
{
    struct l1 *l1 = request->worker->server->l1;
    if (MUTANT(W1e)) {
        return;
    }
    if (!request->unbegun && request->wide) {
        l1_write_end_wide(l1);
    } else if (!request->unbegun && request->nkeys == 1 && echo_ends(request)) {
        echo_write_end(request, 0);
    } else if (!request->unbegun && request->nkeys > 0) {
        l1_write_end(l1, request->hashes, request->nkeys);
    }
    for (uint32_t i = 0; request->unbegun && i < request->nkeys; i++) {
        l1_invalidate(l1, request->hashes[i]);
    }
}

/* Inside MULTI; executed at once all the same if the server did not take the MULTI. */
static bool was_executed(const struct request *request, const struct reply_piece *piece)
{
    return request->queued && piece->type != '-' && !slice_eq(piece->bytes, SLICE("+QUEUED\r\n"));
}

/* Mode channel: others are told of what may have changed, lost replies included. Nobody knows what a
 * script or a transaction wrote. */
static void announce(struct request *request, const struct reply_piece *piece)
{
    struct server *server = request->worker->server;
    bool declared = server->conf->invalidation_unknown_writes == CONF_UNKNOWN_DECLARED &&
                    request->road != ROAD_PINNED;
    bool executed = piece != NULL && was_executed(request, piece);
    bool writes = request_writes(request) || request->class == CMD_FLUSH || executed;
    bool all = request->class == CMD_FLUSH || executed || request->wide ||
               (request->class == CMD_UNKNOWN && !declared);
    size_t n = request->announced.bytes;
    if (!writes || (!all && n == 0)) {
        return;
    }
    char *keys = all || n > ANNOUNCED_MAX ? NULL : mem_try(n);
    if (keys != NULL) {
        chain_take(&request->announced, keys);
    }
    struct feeds *feeds = server_feeds(server, request->node);
    if (feeds != NULL) {
        feeds_announce(feeds, slice_of(keys, keys == NULL ? 0 : n));
    }
    mem_free(keys);
}

static __attribute__((noinline)) void settle_in_l1(struct request *request,
                                                   const struct reply_piece *piece)
{
    struct worker *worker = request->worker;
    struct l1 *l1 = worker->server->l1;
    if (worker->server->announces) {
        announce(request, piece);
    }
    if (request_writes(request)) {
        end_write(request);
    } else if (request->class == CMD_READ && piece != NULL) {
        settle_read(request, piece);
    }
    if (request->class == CMD_FLUSH ||
        (piece != NULL && request->queued_flush && was_executed(request, piece))) {
        if (!MUTANT(W3f)) {
            l1_drop_all(l1);
        }
        struct worker_node *node = &worker->nodes[request->node];
        node->flush_lost = piece == NULL ? worker->now : node->flush_lost;
    } else if (piece != NULL && request->client != NULL &&
               (request->class == CMD_UNKNOWN || was_executed(request, piece))) {
        /* lost, or nobody there to be told: its pushes do, in their time */
        settle_unknown(request);
    } else if (request->class == CMD_UNKNOWN) {
        l1_unknown_end(l1);
    }
}

/* piece is the first of the reply, or NULL when it was lost. */
static inline void settle(struct request *request, const struct reply_piece *piece)
{
    if (request->settled) {
        return;
    }
    request->settled = true;
    request->begun = false;
    if (unlikely(request->relearns)) {
        learn_again();
    }
    if (request->worker->server->caching) {
        settle_in_l1(request, piece);
    }
}

void forward_drop(struct request *request)
{
    settle(request, NULL);
}

static void begin(struct request *request)
{
    if (request->begun) {
        return; /* it was refused and is sent again */
    }
    request->begun = true;
    request->settled = false;
    bool begins = request_writes(request) && !request->wide && !request->unbegun;
    if (begins && request->nkeys > 0 && request->worker->server->caching) {
        struct l1_begun begun =
            l1_write_begin(request->worker->server->l1, request->hashes, request->nkeys);
        request->version = begun.version;
        request->was_hit = begun.was_hit;
    }
}

/* ---- Replies --------------------------------------------------------------------------------- */

/* Takes all of a reply out of its chain. NULL: memory is out. */
static char *take_reply(struct request *request)
{
    char *text = mem_try(request->reply.bytes + 1);
    if (text != NULL) {
        chain_take(&request->reply, text);
    }
    return text;
}

bool forward_put_hello(struct chain *out, struct slice text, uint64_t client_id)
{
    static const char label[] = "$2\r\nid\r\n:";
    const char *end = text.p + text.n;
    const char *id = memmem(text.p, text.n, label, sizeof(label) - 1);
    const char *cr =
        id == NULL ? NULL : memchr(id + sizeof(label), '\r', (size_t)(end - (id + sizeof(label))));
    if (cr == NULL) {
        return chain_append(out, text); /* an error: as it is */
    }
    return chain_append(out, slice_of(text.p, (size_t)(id - text.p))) &&
           chain_append(out, slice_of(label, sizeof(label) - 2)) &&
           resp_integer(out, (int64_t)client_id) &&
           chain_append(out, slice_of(cr + 2, (size_t)(end - (cr + 2))));
}

static bool complete_hello(struct request *request)
{
    size_t n = request->reply.bytes;
    char *text = take_reply(request);
    bool ok =
        text != NULL && forward_put_hello(&request->reply, slice_of(text, n), request->client->id);
    mem_free(text);
    return ok;
}

static void remember_size(struct request *request, const struct reply_piece *piece)
{
    struct server *server = request->worker->server;
    if (request->is_get && server->caching && piece->size >= 0 &&
        (size_t)piece->size <= server->conf->l1_max_item_size) {
        large_keys_remove(&server->large, request->hashes[0]); /* if it was one */
    }
}

/* The first bytes of the reply are here, and none has been passed on. May close the client. */
static inline void take_effect(struct request *request, const struct reply_piece *piece)
{
    settle(request, piece);
    remember_size(request, piece);
    echo_stored(request, request->was_hit, piece->type == '-');
}

/* What the server says to something that cannot be queued here, and that will be aborted: if it is an
 * error, its client is to hear it. False: it was executed, there was no MULTI; or memory is out. */
static bool keep_refusal(struct request *request, const struct reply_piece *piece)
{
    return piece->type == '-' ? chain_append(&request->reply, piece->bytes)
                              : slice_eq(piece->bytes, SLICE("+QUEUED\r\n"));
}

static bool put_refusal(struct request *request)
{
    const char *name = request->cmd->name;
    if (request->reply.bytes > 0) {
        return true; /* in the server's own words */
    }
    if (request->crosses) {
        return resp_error(&request->reply, CROSSSLOT);
    }
    return resp_errorf(&request->reply, "ERR '%s' is not available inside MULTI through Nearside",
                       name);
}

/* Inside MULTI, something that cannot be queued here: the server has refused what was sent in its
 * place, and EXEC will abort. (Or it has executed it: then there may be a fence.) */
static void answer_refused(struct request *request)
{
    struct client *c = request->client;
    request->kind = request->fencing ? request->kind : REQUEST_HELD;
    if (!put_refusal(request)) {
        client_close(c);
    } else if (request->fencing) {
        request->complete = true;
    } else {
        client_finish(c, request);
    }
}

/* Was its HELLO taken? With a SELECT behind it, it is SELECT's reply that is here. */
static bool greeted(const struct request *request, const struct reply_piece *piece)
{
    return request->reselects ? request->logs_in : piece->type != '-';
}

static void begin_reply(struct request *request, const struct reply_piece *piece)
{
    take_effect(request, piece);
    if (request->streams && (piece->type == '*' || piece->type == '>')) {
        request->silent = false; /* confirmations always show */
    }
    if (request->road == ROAD_PINNED && request->client != NULL) {
        pinned_follow(request->client, request, piece);
    }
}

static __attribute__((noinline)) void on_other_reply(struct request *request,
                                                     const struct reply_piece *piece)
{
    struct client *c = request->client;
    if (request->preface > 0) {
        request->preface -= piece->last;
        if (request->tried && c != NULL && !keep_refusal(request, piece)) {
            client_close(c);
        }
        return;
    }
    if (piece->type == '-' && piece->first && redirect_takes(request, piece)) {
        return; /* it was not executed */
    }
    if ((request->enters && login_entered(request, piece)) ||
        (request->probes && login_probed(request, piece))) {
        return;
    }
    bool reselected = request->reselects && login_reselected(request, piece);
    if (piece->first && !reselected) {
        begin_reply(request, piece);
        c = request->client; /* it may have been closed */
    }
    if (unlikely(request->call.endless) && replication_takes(request, piece)) {
        return;
    }
    if (request->names_script && piece->last && slice_starts(piece->bytes, SLICE("$40\r\n"))) {
        scripts_learn(slice_of(piece->bytes.p + 5, piece->bytes.n - 7));
    }
    if (request->refused && c != NULL) {
        if (!piece->last) {
            return;
        }
        answer_refused(request);
        return;
    }
    if (c != NULL && !reselected && !request->resets) {
        if (!chain_append(&request->reply, piece->bytes)) {
            client_close(c);
            c = NULL;
        } else if (!client_arrived(c, request, piece->bytes.n)) {
            c = NULL;
        }
    }
    if (!piece->last || request->call.replies > 0) {
        return;
    }
    if (request->fencing) {
        request->complete = true;
        return;
    }
    if (c != NULL && request->resets) {
        switch_after_reset(request);
        return;
    }
    if (c == NULL) {
        request_destroy(request);
        return;
    }
    if (request->streams && session_goes_on(c, request)) {
        return;
    }
    if (request->executes) {
        standin_executed(c, request);
        return;
    }
    if (request->selects) {
        c->db = piece->type == '+' ? request->db : c->db;
    }
    if (request->greets) {
        c->resp3 = greeted(request, piece) ? request->resp3 : c->resp3;
    }
    if ((request->completes_info && !info_complete(request->worker, &request->reply)) ||
        (request->greets && !complete_hello(request))) {
        client_close(c);
        request_destroy(request);
        return;
    }
    client_answered(c, request);
}

static void on_reply(struct call *call, const struct reply_piece *piece)
{
    struct request *request = container_of(call, struct request, call);
    if (unlikely(!request->plain || !piece->first || !piece->last || piece->type == '-')) {
        on_other_reply(request, piece);
        return;
    }
    take_effect(request, piece);
    if (request->client == NULL || !client_pass(request->client, request, piece->bytes)) {
        request_destroy(request);
    }
}

/* ---- Losses ---------------------------------------------------------------------------------- */

void forward_refuse(struct request *request, const char *text)
{
    COUNT(request->worker, upstream_errors, request->commands - request->done);
    echo_give_up(request, false);
    struct client *c = request->client;
    if (c == NULL) {
        request_destroy(request);
        return;
    }
    request->kind = REQUEST_HELD; /* nothing else holds it any more */
    for (uint32_t i = request->done; i < request->commands; i++) {
        if (!resp_error(&request->reply, text)) {
            client_close(c);
            return;
        }
    }
    client_answered(c, request);
}

/* SELECT and HELLO are answered when their road exists; if the server refused that, in the server's
 * words. */
static void fail_switch(struct request *request)
{
    struct conn *lane = forward_lane_of(request);
    chain_fini(&request->reply);
    if (resp_error(&request->reply, conn_error(lane))) {
        request->kind = REQUEST_HELD;
        client_answered(request->client, request);
    } else {
        client_close(request->client);
        request_destroy(request);
    }
}

static void note_refused_multi(const struct request *request)
{
    if (request->road == ROAD_PINNED && request->client->expects_multi) {
        request->client->multi_refused = true;
    }
}

/* The server refused the connection because it is occupied: with what, it says itself. */
static bool fail_occupied(struct request *request, const struct conn *lane)
{
    const char *error = conn_error(lane);
    if (!conn_is_refused(lane) || !node_text_is_occupied(slice_str(error)) || request->selects ||
        request->greets) {
        return false;
    }
    note_refused_multi(request);
    forward_refuse(request, error);
    return true;
}

void forward_fail(struct request *request, const char *why)
{
    if ((request->selects || request->greets) && request->road != ROAD_PINNED &&
        conn_is_refused(forward_lane_of(request))) {
        fail_switch(request);
        return;
    }
    topology_suspect(request->worker->server->topology);
    note_refused_multi(request);
    char text[ERR_MAX];
    snprintf(text, sizeof(text), "UPSTREAM %s: %s", name_of_node(request), why);
    forward_refuse(request, text);
}

void forward_fenced(struct request *request)
{
    struct client *c = request->client;
    request->fencing = false;
    if (!request->complete) {
        /* what is here may leave, the rest follows */
        if (c != NULL && !client_arrived(c, request, 0)) {
            return; /* closed: a ghost now */
        }
    } else if (c == NULL) {
        request_destroy(request);
    } else if (request->executes) {
        standin_executed(c, request);
    } else {
        client_answered(c, request);
    }
}

/* Its connection died in the middle of a reply that a fence holds: to be told when that is through. */
static void lose_fenced(struct request *request)
{
    request->complete = true;
    chain_fini(&request->reply);
    if (request->client != NULL &&
        !resp_errorf(&request->reply, "UPSTREAM %s: connection lost in the middle of the reply",
                     name_of_node(request))) {
        client_close(request->client);
    }
}

void forward_lost(struct request *request, enum call_loss loss)
{
    bool pinned = request->road == ROAD_PINNED;
    if (loss == LOSS_UNSENT &&
        fail_occupied(request, pinned ? pinned_conn_of(request) : forward_lane_of(request))) {
        return;
    }
    if (loss == LOSS_UNSENT || request->readonly) {
        forward_fail(request, "connection lost; the command was not answered");
    } else {
        forward_fail(request, "connection lost before the reply; whether the command was executed "
                              "is unknown");
    }
}

/* Losses are told in order: what is unanswered now is later; but for a lane that was retired. */
bool forward_is_overtaken(const struct request *request)
{
    const struct client *c = request->client;
    if (c->unknown_on[0] + c->unknown_on[1] + c->unknown_on[2] > 0) {
        return true;
    }
    if (c->keyless == 0) {
        return order_has_later_write(&request->worker->order, request);
    }
    for (const struct request *r = request->next; r != NULL; r = r->next) {
        if (!r->answered && request_writes(r)) {
            return true; /* of whatever key */
        }
    }
    return false;
}

static void on_lost(struct call *call, enum call_loss loss)
{
    struct request *request = container_of(call, struct request, call);
    settle(request, NULL);
    echo_give_up(request, true);
    struct client *c = request->client;
    if (request->fencing) {
        lose_fenced(request);
        return;
    }
    if (c == NULL) {
        request_destroy(request);
        return;
    }
    if (request->released || (request->road == ROAD_PINNED && loss == LOSS_SENT &&
                              (c->expects_multi || c->expects_watch))) {
        /* half of the reply is with the client already, and there is no way to take it back; or a
         * transaction broke in the middle, and what comes next must not be executed outside it */
        client_close(c);
        request_destroy(request);
        return;
    }
    if (loss == LOSS_UNSENT && login_again(request)) {
        return;
    }
    chain_fini(&request->reply);
    if (request->road == ROAD_REPLICA &&
        request->worker->server->conf->upstream_read_from == CONF_READ_PREFER_REPLICA) {
        redirect_to_owner(request); /* who has not lost what a replica has lost */
    }
    if ((request->readonly || MUTANT(W2)) && request->attempts == 0 &&
        request->road != ROAD_PINNED && !forward_is_overtaken(request) &&
        conn_accepts(forward_lane_of(request))) {
        request->attempts++;
        request->preface = 0;
        COUNT(request->worker, resends, 1);
        forward_request(request, request->raw, request->raw_blob);
        return;
    }
    forward_lost(request, loss);
}

/* ---- Submission ------------------------------------------------------------------------------ */

static void count_forwarded(struct request *request)
{
    struct worker *worker = request->worker;
    switch (request->class) {
    case CMD_READ:
        COUNT(worker, forwarded_reads, 1);
        break;
    case CMD_WRITE:
        COUNT(worker, forwarded_writes, 1);
        break;
    case CMD_UNKNOWN:
        COUNT(worker, forwarded_unknown, 1);
        break;
    case CMD_FLUSH:
        COUNT(worker, forwarded_flushes, 1);
        break;
    default:
        COUNT(worker, forwarded_other, 1);
        break;
    }
}

static __attribute__((noinline)) void fail_unconnected(struct request *request,
                                                       const struct conn *lane)
{
    const char *error = conn_error(lane);
    char why[256];
    if (fail_occupied(request, lane)) {
        return;
    }
    snprintf(why, sizeof(why), "not connected (%s)", error[0] == '\0' ? "no connection" : error);
    forward_fail(request, why);
}

static __attribute__((noinline)) void fail_submit(struct request *request, struct conn *lane,
                                                  enum conn_status status)
{
    settle(request, NULL);
    forward_unsent(request, lane, status);
}

void forward_unsent(struct request *request, const struct conn *lane, enum conn_status status)
{
    if (request->client == NULL) {
        request_destroy(request); /* a ghost that was redirected */
        return;
    }
    if (status != CONN_NO_MEMORY) {
        fail_unconnected(request, lane);
        return;
    }
    if (request->road == ROAD_PINNED) {
        client_end(request->client); /* the session has a hole now */
    }
    forward_fail(request, "out of memory");
}

void forward_request(struct request *request, struct slice raw, struct blob *owner)
{
    bool pinned = request->road == ROAD_PINNED;
    struct conn *lane = pinned ? pinned_conn_of(request) : forward_lane_of(request);
    begin(request);
    if (MUTANT(X2) && request->class == CMD_UNKNOWN) {
        (void)!fence_join(request->worker, request);
    }
    request->call.ops = &lane_ops;
    request->call.replies = 1u + request->preface + request->reselects;
    enum conn_status status = conn_submit(lane, &request->call, raw, owner);
    if (status == CONN_OK) {
        count_forwarded(request);
        if (pinned) {
            pinned_mark_dirty(request);
        }
        return;
    }
    fail_submit(request, lane, status);
}
