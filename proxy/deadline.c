/* SPDX-License-Identifier: Apache-2.0
 *
 * deadline.c: requests that have waited too long. The client gets an error, in its turn; what it asked
 * for stays where it is, as if the client had left:
 *
 *   on a lane, reads on F  another request takes its place in the client's queue and has the error; the
 *                          old one is a ghost, which takes its reply, and keeps its write-begin until then
 *   a SET that others wait to read (echo.h): they are read upstream instead
 *   parked on a lease      it gives the fetch up, and who comes later fetches anew
 *   on several nodes       likewise, and its parts are closed: what they have sent are ghosts, and the
 *                          rest is not sent any more
 *   on a pinned connection what became of the session is not known: everything that is unanswered gets
 *                          the error, then the client is closed
 *
 * A command that may block for as long as its own argument says has no deadline, nor what is behind it.
 * A reply that has begun to arrive, or that a fence holds (for 200 ms at most), is on its way.
 *
 * There is no timer for a request: a client's requests are in the order of their age, so that a look at
 * the first that is unanswered says whether there is anything to do.
 */
#include "deadline.h"

#include "client.h"
#include "echo.h"
#include "fanout.h"
#include "fetch.h"
#include "fills.h"
#include "forward.h"
#include "pinned.h"

#include <inttypes.h>
#include <stdio.h>

static bool is_waiting(const struct request *request)
{
    return !request->answered && !request->fencing && request->arrived == 0 &&
           (request->kind == REQUEST_GET || request->kind == REQUEST_MGET ||
            request->kind == REQUEST_FILLS || request->kind == REQUEST_FORWARD ||
            request->kind == REQUEST_FANOUT);
}

/* The oldest of the client's requests that waits for a reply, and what leads to it. NULL: none. */
static struct request **oldest(struct client *c)
{
    struct request **link = &c->head;
    while (*link != NULL && !is_waiting(*link)) {
        link = &(*link)->next;
    }
    return *link == NULL ? NULL : link;
}

static void fail(struct request *request, bool readonly)
{
    char why[128];
    if (!readonly) {
        l1_unknown_end(request->worker->server->l1); /* its write-end is still to come */
    }
    (void)snprintf(why, sizeof(why), "no reply within %" PRId64 " ms%s",
                   request->worker->server->conf->upstream_command_timeout,
                   readonly ? "" : "; whether the command was executed is unknown");
    COUNT(request->worker, command_timeouts, request->commands - request->done);
    forward_fail(request, why);
}

/* Puts another request into its place in the queue, and makes it a ghost. NULL: memory is out. */
static struct request *replace(struct client *c, struct request **link)
{
    struct request *old = *link;
    struct request *new = request_create(c->worker);
    if (new == NULL) {
        return NULL;
    }
    new->client = c;
    new->seq = old->seq;
    new->class = old->class;
    new->road = old->road;
    new->node = old->node;
    new->cmd = old->cmd;
    new->resp3 = old->resp3;
    new->silent = old->silent;
    new->holds = old->holds;
    new->plain = old->plain;
    new->wide = old->wide;
    new->keyless = old->keyless;
    new->commands = old->commands;
    new->done = old->done;
    chain_splice(&new->reply, &old->reply); /* of a batch's commands before */
    new->next = old->next;
    *link = new;
    if (c->tail == old) {
        c->tail = new;
    }
    c->batches -= old->batch != NULL;
    order_remove(&c->worker->order, old);
    old->extra = 0; /* charged to nobody any more */
    client_charge_request(c, old);
    request_orphan(old);
    return new;
}

/* False: nothing can be done now. */
static bool give_up(struct client *c, struct request **link)
{
    struct request *request = *link;
    bool readonly =
        request->readonly || request->class == CMD_READ || request->selects || request->greets;
    if (request->kind == REQUEST_GET) {
        if (!l1_give_up(c->worker->server->l1, &request->waiter)) {
            return false; /* the answer is in the mailbox */
        }
        fail(request, true);
        return true;
    }
    echo_give_up(request, false);
    if (c->state == CLIENT_CLOSED) {
        return false;
    }
    if (request->kind == REQUEST_MGET) {
        readonly = true;
        fetch_give_up(request);
    }
    if (request->kind == REQUEST_FILLS) {
        readonly = true;
        fills_give_up(request);
    }
    if (request->kind == REQUEST_FANOUT) {
        readonly = request->cmd->readonly;
        fanout_give_up(request);
    }
    struct request *instead = replace(c, link);
    if (instead != NULL) {
        fail(instead, readonly);
    }
    return instead != NULL;
}

static void end_session(struct client *c)
{
    struct request **link;
    if (pinned_is_streaming(c)) {
        client_close(c); /* an error among its messages would be taken for one */
        return;
    }
    pinned_taint(c);
    while (c->state != CLIENT_CLOSED && (link = oldest(c)) != NULL) {
        if (!give_up(c, link)) {
            client_close(c);
        }
    }
    client_end(c);
}

static void look_at(struct client *c, int64_t before)
{
    struct request **link;
    while (c->state != CLIENT_CLOSED && c->pending > 0 && c->nblocked == 0 &&
           (link = oldest(c)) != NULL && (*link)->began < before) {
        if ((*link)->road == ROAD_PINNED) {
            end_session(c);
            return;
        }
        if (!give_up(c, link)) {
            return;
        }
    }
}

void deadline_tick(struct worker *worker)
{
    int64_t limit = worker->server->conf->upstream_command_timeout;
    struct client *next;
    if (limit == 0) {
        return;
    }
    for (struct client *c = worker->clients.head; c != NULL; c = next) {
        next = c->next;
        look_at(c, worker->now - limit);
    }
}
