/* SPDX-License-Identifier: Apache-2.0
 *
 * resend.c: reads change the lane, and leave a ghost where they were, which takes their reply if it still comes.
 *
 *   lane is retired (upstream.h)     ─► those behind its oldest command ─► a fresh lane to the same node
 *   lane to a replica that is silent ─► all                             ─► the lane of the owner of their keys
 */
#include "resend.h"

#include "batch.h"
#include "forward.h"
#include "redirect.h"

#include "../conf/mem.h"

/* Takes the reply to a read that has been sent again. */
static void on_ghost_reply(struct call *call, const struct reply_piece *piece)
{
    if (piece->last && call->replies == 0) {
        mem_free(call);
    }
}

static void on_ghost_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    mem_free(call);
}

static const struct call_ops ghost_ops = {.reply = on_ghost_reply, .lost = on_ghost_lost};

struct again {
    struct request **requests;
    size_t n, cap;
    bool behind_head;
    bool (*may_move)(const struct request *request);
};

static bool may_repeat(const struct request *request)
{
    return request->client != NULL && request->readonly && request->attempts == 0 &&
           request->arrived == 0 && request->preface == 0 && request->raw.n > 0 &&
           !request->holds && !request->fencing && !forward_is_overtaken(request);
}

/* Reads see what their client did before, and nothing it did after: then they may move. The oldest
 * call stays: it is what the others wait for, and would keep them waiting on the next lane again. */
static bool may_take_fresh_lane(const struct request *request)
{
    struct client *c = request->client;
    if (!may_repeat(request)) {
        return false;
    }
    for (uint32_t i = 0; i < request->nkeys; i++) {
        if (order_find(&request->worker->order, c, request->hashes[i], request->seq) != NULL) {
            return false;
        }
    }
    return request->worker->server->conf->proxy_order != CONF_ORDER_STRICT &&
           (request->batch == NULL || batch_may_move(request));
}

static struct call *stand_in(struct call *call, void *ctx)
{
    struct again *again = ctx;
    bool is_head = !again->behind_head;
    again->behind_head = true;
    bool is_mine = forward_is_call(call) || batch_is_call(call);
    if (is_head || !is_mine || again->n == again->cap) {
        return call;
    }
    struct request *request = container_of(call, struct request, call);
    struct call *ghost = again->may_move(request) ? mem_try_zero(sizeof(*ghost)) : NULL;
    if (ghost == NULL) {
        return call;
    }
    ghost->ops = &ghost_ops;
    again->requests[again->n++] = request;
    return ghost;
}

/* Those that may move leave a ghost on the lane. False: memory is out. */
static bool collect_moving(struct conn *lane, struct again *again)
{
    again->cap = conn_pending(lane);
    again->requests = mem_try(again->cap * sizeof(struct request *));
    if (again->requests == NULL) {
        return false;
    }
    conn_stand_in(lane, stand_in, again);
    return true;
}

static void repeat(struct request *request)
{
    request->attempts++;
    COUNT(request->worker, resends, 1);
    forward_request(request, request->raw, request->raw_blob);
}

void resend_retired(struct conn *lane)
{
    struct again again = {.may_move = may_take_fresh_lane};
    if (!collect_moving(lane, &again)) {
        return;
    }
    for (size_t i = 0; i < again.n; i++) {
        struct request *request = again.requests[i];
        if (request->batch != NULL) {
            batch_again(request);
        } else {
            repeat(request);
        }
    }
    mem_free(again.requests);
}

/* What is on its way to a replica are reads, and nothing of their keys is on any other road. */
static bool may_pass_over(const struct request *request)
{
    if (request->road != ROAD_REPLICA || request->slot == SLOT_NONE || !may_repeat(request)) {
        return false;
    }
    struct worker *worker = request->worker;
    uint16_t owner = topology_owner(worker->server->topology, request->slot);
    return owner != TOPOLOGY_NONE &&
           conn_accepts(forward_lane(worker, owner, request->db, request->resp3, ROAD_LANE));
}

void resend_elsewhere(struct conn *lane)
{
    struct again again = {.may_move = may_pass_over, .behind_head = true};
    if (!collect_moving(lane, &again)) {
        return;
    }
    for (size_t i = 0; i < again.n; i++) {
        redirect_to_owner(again.requests[i]);
        repeat(again.requests[i]);
    }
    mem_free(again.requests);
}
