/* SPDX-License-Identifier: Apache-2.0
 *
 * fence.c: one fence, seen from the worker that asked (R) and from each worker i. It is about the feeds
 * of one node, the one that executed what waits.
 *
 *   R: requests join ─► end of turn ─► a part for each feed ─► PINGs ─► PONGs ────────┐
 *                                                               └─ link lost ────────┤
 *   R: all parts done, or the time is up (late parts: their cover is voided) ◄───────┘
 *      └─► requests are released; the fence is freed when its last part has come home
 *
 * Each part lives in the fence, travels to its worker as a post, is a call on F_i there, and travels
 * back as a post; it is only ever touched by the thread it is with, so nothing in it is atomic. An
 * error reply to the PING (-BUSY, -LOADING) is no fence (X3): such a part comes home undone, and its
 * cover is voided. Nobody blocks.
 */
#include "fence.h"

#include "forward.h"

#include "../conf/mem.h"
#include "../conf/mutant.h"

/* X4: at most this long, and never longer than the link lease. */
#define FENCE_MS 200

struct part {
    struct post post;
    struct feed_fence asked;
    struct fence *fence;
    unsigned index; /* of the worker */
    bool answered;  /* PONG, or nothing to wait for */
    bool home;      /* back at R; R's alone */
};

struct fence {
    struct worker *owner; /* R */
    uint16_t node;        /* whose feeds are asked: it executed what waits */
    struct fence *next;   /* in owner->fences */
    struct request *waiting;
    int64_t until;
    unsigned away; /* parts that are not home */
    unsigned nparts;
    struct part parts[];
};

static void on_home(struct worker *owner, struct post *post);

static void send_home(struct part *part, bool answered)
{
    part->answered = answered;
    part->post.run = on_home;
    worker_post(part->fence->owner, &part->post);
}

static void on_asked(struct feed_fence *asked, bool good)
{
    send_home(container_of(asked, struct part, asked), good);
}

/* On worker i. */
static void on_part(struct worker *worker, struct post *post)
{
    struct part *part = container_of(post, struct part, post);
    struct feed *feed = worker_feed(worker, part->fence->node);
    part->asked.done = on_asked;
    if (feed == NULL || (MUTANT(X1) && worker != part->fence->owner)) {
        send_home(part, true);
        return;
    }
    switch (feed_fence(feed, &part->asked)) {
    case FEED_FENCE_WAITS:
        return;
    case FEED_FENCE_DONE:
        send_home(part, true);
        return;
    case FEED_FENCE_FAILED:
        send_home(part, false);
        return;
    }
}

/* Home again, on R. */
static void release_requests(struct fence *fence)
{
    struct request *request = fence->waiting;
    fence->waiting = NULL;
    while (request != NULL) {
        struct request *next = request->next_fenced;
        forward_fenced(request);
        request = next;
    }
}

static void end_fence(struct fence *fence)
{
    struct fence **link = &fence->owner->fences;
    while (*link != fence) {
        link = &(*link)->next;
    }
    *link = fence->next;
    release_requests(fence);
    mem_free(fence);
}

static void on_home(struct worker *owner, struct post *post)
{
    struct part *part = container_of(post, struct part, post);
    struct fence *fence = part->fence;
    part->home = true;
    if (!part->answered) {
        feeds_void(server_feeds(owner->server, fence->node), part->index);
        COUNT(owner, fence_timeouts, 1);
    }
    if (--fence->away == 0) {
        end_fence(fence);
    }
}

bool fence_join(struct worker *worker, struct request *request)
{
    struct fence *fence = worker->gathering;
    while (fence != NULL && fence->node != request->node) {
        fence = fence->next;
    }
    if (fence == NULL) {
        unsigned n = worker->server->nworkers;
        fence = mem_try_zero(sizeof(*fence) + n * sizeof(struct part));
        if (fence == NULL) {
            return false;
        }
        fence->owner = worker;
        fence->node = request->node;
        fence->nparts = n;
        fence->next = worker->gathering;
        worker->gathering = fence;
    }
    request->fencing = true;
    request->next_fenced = fence->waiting;
    fence->waiting = request;
    return true;
}

static void start(struct worker *worker, struct fence *fence)
{
    int64_t limit = worker->server->conf->invalidation_link_lease;
    const struct feeds *feeds = server_feeds(worker->server, fence->node);
    fence->until = worker->now + (limit < FENCE_MS ? limit : FENCE_MS);
    fence->next = worker->fences;
    worker->fences = fence;
    COUNT(worker, fences, 1);
    for (unsigned i = 0; i < fence->nparts; i++) {
        struct part *part = &fence->parts[i];
        part->fence = fence;
        part->index = i;
        part->post.run = on_part;
        part->home = feeds == NULL || !feeds_fence_asks(feeds, i);
        fence->away += !part->home;
    }
    if (fence->away == 0) {
        end_fence(fence);
        return;
    }
    for (unsigned i = 0, away = fence->away; away > 0; i++) {
        if (!fence->parts[i].home) {
            away--; /* counted first: the last part's post may bring the fence to its end */
            worker_post(worker->server->workers[i], &fence->parts[i].post);
        }
    }
}

void fence_start(struct worker *worker)
{
    struct fence *fence = worker->gathering;
    worker->gathering = NULL;
    while (fence != NULL) {
        struct fence *next = fence->next;
        start(worker, fence);
        fence = next;
    }
}

void fence_tick(struct worker *worker)
{
    for (struct fence *fence = worker->fences; fence != NULL; fence = fence->next) {
        if (fence->waiting == NULL || worker->now < fence->until) {
            continue;
        }
        for (unsigned i = 0; i < fence->nparts; i++) {
            if (!fence->parts[i].home && !MUTANT(X4)) {
                feeds_void(server_feeds(worker->server, fence->node), i);
                COUNT(worker, fence_timeouts, 1);
            }
        }
        release_requests(fence);
    }
}
