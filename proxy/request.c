/* SPDX-License-Identifier: Apache-2.0
 *
 * request.c: life of a request, and its way back when another worker's fetch answers it.
 *
 * Who frees it: its client when it leaves the queue answered; request_orphan when the client closed
 * first and nothing else holds it; otherwise whatever ends last: the lane's reply or loss
 * (forward.c, fetch.c) or the post of a wake that was on its way (on_woken).
 */
#include "request.h"

#include "batch.h"
#include "client.h"
#include "dispatch.h"
#include "echo.h"
#include "fetch.h"
#include "../resp/write.h"

#include "../conf/mem.h"

/* What a new request has to be blank in. */
#define BLANK_FROM(request) ((char *)(request) + offsetof(struct request, call))
#define BLANK_TO(request)   ((char *)(request) + offsetof(struct request, post))
#define BLANK_PIECE         ((size_t)64)
_Static_assert(sizeof(struct request) - offsetof(struct request, post) >= BLANK_PIECE,
               "the last piece may reach into what need not be blank");

/* Requests a worker keeps for use again; none where sanitizers look for use after free. */
#ifdef NEARSIDE_LIBC_MALLOC
#define BLOCKS_MAX 0
#else
#define BLOCKS_MAX 1024
#endif

/* Large replies are shared with the other waiters, small ones copied. */
static bool append_reply(struct request *request, struct blob *blob)
{
    return blob->n >= CHAIN_REF_MIN ? chain_append_blob(&request->reply, blob, 0, blob->n)
                                    : chain_append(&request->reply, slice_of(blob->p, blob->n));
}

static void answer_woken(struct request *request, struct blob *blob)
{
    struct client *c = request->client;
    request->kind = REQUEST_HELD;
    if (request->woken == L1_WAKE_RETRY) {
        dispatch_again(request);
    } else if (request->woken == L1_WAKE_NULL || request->woken_n > 0) {
        bool is_null = request->woken == L1_WAKE_NULL;
        struct slice reply = is_null ? resp_null_text(request->resp3)
                                     : slice_of(request->small_reply, request->woken_n);
        (void)!client_pass(c, request, reply); /* false: it went with its client */
    } else if (append_reply(request, blob)) {
        client_finish(c, request);
    } else {
        client_close(c);
    }
}

static void on_woken(struct worker *worker, struct post *post)
{
    (void)worker;
    struct request *request = container_of(post, struct request, post);
    struct blob *blob = request->woken_reply;
    request->woken_reply = NULL;
    if (request->client == NULL) {
        request_destroy(request);
    } else {
        answer_woken(request, blob);
    }
    blob_unref(blob);
}

/* Without memory for a long one the request looks again. */
static void keep_reply(struct request *request, struct l1_reply *reply)
{
    struct slice encoded = reply->encoded;
    if (encoded.n <= REQUEST_RAW_MAX) {
        memcpy(request->small_reply, encoded.p, encoded.n);
        request->woken_n = (uint32_t)encoded.n;
        return;
    }
    request->woken_reply = l1_reply_blob(reply);
    if (request->woken_reply == NULL) {
        request->woken = L1_WAKE_RETRY;
    }
}

void request_look_again(struct request *request)
{
    request->woken = L1_WAKE_RETRY;
    request->post.run = on_woken;
    worker_post(request->worker, &request->post);
}

/* Runs on whichever thread ended the lease. Always goes through the mailbox, also on the own thread:
 * the lease may have ended in the middle of handling another request of the same client. */
static void on_wake(struct l1_waiter *waiter, enum l1_wake how, struct l1_reply *reply)
{
    struct request *request = container_of(waiter, struct request, waiter);
    request->woken = how;
    if (how == L1_WAKE_REPLY) {
        keep_reply(request, reply);
    }
    request->post.run = on_woken;
    worker_post(request->worker, &request->post);
}

/* A block for a request: its chains are empty and it belongs to this worker. */
static struct request *take_block(struct worker *worker)
{
    struct request *request = worker->blocks;
    if (request != NULL) {
        worker->blocks = request->next;
        worker->nblocks--;
        return request;
    }
    request = mem_try(sizeof(*request));
    if (request != NULL) {
        request->worker = worker;
        chain_init(&request->reply);
        chain_init(&request->announced);
    }
    return request;
}

struct request *request_create(struct worker *worker)
{
    struct request *request = take_block(worker);
    if (request == NULL) {
        return NULL;
    }
    /* in pieces that are plain stores: a `rep stos` takes longer to start than all of it */
    for (char *p = BLANK_FROM(request); p < BLANK_TO(request); p += BLANK_PIECE) {
        memset(p, 0, BLANK_PIECE);
    }
    request->waiter.wake = on_wake;
    request->hashes = &request->one_hash;
    request->keys = &request->one_key;
    request->commands = 1;
    return request;
}

static void give_block(struct request *request)
{
    struct worker *worker = request->worker;
    if (worker->nblocks == BLOCKS_MAX) {
        mem_free(request);
        return;
    }
    request->next = worker->blocks;
    worker->blocks = request;
    worker->nblocks++;
}

void request_destroy(struct request *request)
{
    if (request == NULL) {
        return;
    }
    bug_on(request->echoes != NULL);
    if (request->reply.head != NULL) {
        chain_fini(&request->reply);
    }
    if (request->announced.head != NULL) {
        chain_fini(&request->announced);
    }
    if (request->mget != NULL) {
        fetch_mget_destroy(request->mget);
    }
    if (request->batch != NULL) {
        batch_destroy(request);
    }
    if (request->raw_blob != NULL) {
        blob_unref(request->raw_blob);
    }
    if (request->woken_reply != NULL) {
        blob_unref(request->woken_reply);
    }
    if (request->hashes != &request->one_hash) {
        mem_free(request->hashes);
    }
    give_block(request);
}

void request_free_blocks(struct worker *worker)
{
    while (worker->blocks != NULL) {
        struct request *request = worker->blocks;
        worker->blocks = request->next;
        mem_free(request);
    }
    worker->nblocks = 0;
}

struct request *request_spare(struct worker *worker)
{
    if (worker->spare == NULL) {
        worker->spare = request_create(worker);
    }
    return worker->spare;
}

void request_take_spare(struct worker *worker, struct request *request)
{
    bug_on(worker->spare != request);
    worker->spare = NULL;
}

bool request_keep_raw(struct request *request, struct slice raw, struct blob *blob)
{
    if (request->raw.n > 0) {
        return true;
    }
    if (raw.n <= REQUEST_RAW_MAX) {
        memcpy(request->small_raw, raw.p, raw.n);
        request->raw = slice_of(request->small_raw, raw.n);
        return true;
    }
    if (blob != NULL && raw.n >= CHAIN_REF_MIN) {
        request->raw_blob = blob_ref(blob);
        request->raw = raw;
        return true;
    }
    request->raw_blob = blob_try_copy(raw);
    if (request->raw_blob == NULL) {
        return false;
    }
    request->raw = slice_of(request->raw_blob->p, raw.n);
    return true;
}

bool request_reparse(const struct request *request, struct request_view *view)
{
    struct parser parser;
    parser_init(&parser);
    return request->raw.n > 0 && parse_request(&parser, request->raw, view) == PARSE_OK;
}

bool request_reserve_keys(struct request *request, uint32_t n)
{
    if (n <= 1) {
        return true;
    }
    /* hashes first, links behind them, in one block: both have alignment 8 */
    size_t each = sizeof(*request->hashes) + sizeof(*request->keys);
    uint64_t *block = mem_try(n * each);
    if (block == NULL) {
        return false;
    }
    request->hashes = block;
    request->keys = (struct order_link *)(void *)(block + n);
    return true;
}

void request_add_key(struct request *request, uint64_t hash)
{
    request->hashes[request->nkeys] = hash;
    request->keys[request->nkeys].hash = hash;
    request->nkeys++;
}

bool request_each_key(struct l1 *l1, const struct cmd *cmd, const struct request_view *view,
                      void (*visit)(struct l1 *l1, uint64_t hash))
{
    struct cmd_key_walk walk;
    struct slice key;
    if (!cmd_keys_init(&walk, cmd, view)) {
        return false;
    }
    while (cmd_keys_next(&walk, &key)) {
        visit(l1, l1_hash(l1, key));
    }
    return true;
}

void request_orphan(struct request *request)
{
    request->client = NULL;
    chain_fini(&request->reply);
    echo_forget(request);
    switch (request->kind) {
    case REQUEST_HELD:
    case REQUEST_ECHO:
        request_destroy(request);
        return;
    case REQUEST_GET:
        if (request->answered || request->awaits_fills ||
            l1_forget(request->worker->server->l1, &request->waiter)) {
            request_destroy(request);
        }
        return;
    case REQUEST_MGET:
    case REQUEST_FILLS:
    case REQUEST_FORWARD:
    case REQUEST_CENSUS:
    case REQUEST_FANOUT:
        if (request->answered) {
            request_destroy(request);
        }
        return;
    }
}
