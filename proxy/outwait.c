/* SPDX-License-Identifier: Apache-2.0
 *
 * outwait.c: the join limit (R5, G6). A fetch of another worker is late for one of two reasons. If the
 * server is slow, our own fill connection stands still too, and nothing is gained by asking again. If
 * only that worker or its link is, the lease is detached and the request looks again.
 *
 * There is no timer for a request, nor a list of those that wait: a stall is rare, and costs a walk
 * over the clients at each tick while it lasts.
 */
#include "outwait.h"

#include "client.h"

#include "../conf/mutant.h"

/* A fill connection that owes and does not move for so long has stalled. */
#define JOIN_LIMIT_MS 250

/* All that wait, in their order: those of one client for one key look again together, or the later ones
 * would be answered by the old fetch behind a newer value (R6b). Wakes are posted, so that the queue
 * stays as it is meanwhile. */
static void outwait(struct worker *worker, uint16_t node, unsigned stalled)
{
    struct l1 *l1 = worker->server->l1;
    for (struct client *c = worker->clients.head; c != NULL; c = c->next) {
        for (struct request *r = c->head; c->pending > 0 && r != NULL; r = r->next) {
            if (r->kind == REQUEST_GET && r->node == node && !r->answered) {
                COUNT(worker, l1_outwaits, l1_outwait(l1, &r->waiter, (uint16_t)stalled));
            }
        }
    }
}

static void look_at(struct worker *worker, uint16_t node)
{
    const struct server *server = worker->server;
    const struct feed *mine = worker_feed(worker, node);
    if (mine == NULL || feed_has_stalled(mine, JOIN_LIMIT_MS, worker->now)) {
        return;
    }
    for (unsigned i = 0; i < server->nworkers; i++) {
        const struct feed *feed = worker_feed(server->workers[i], node);
        if (i != worker->index && feed != NULL &&
            feed_has_stalled(feed, JOIN_LIMIT_MS, worker->now)) {
            outwait(worker, node, i);
        }
    }
}

void outwait_tick(struct worker *worker)
{
    for (uint16_t i = 0; i < worker->nnodes && !MUTANT(R5t); i++) {
        look_at(worker, i);
    }
}
