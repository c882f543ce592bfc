/* SPDX-License-Identifier: Apache-2.0
 *
 * batch.c: see batch.h.
 *
 *   batch_dispatch ─► gather ─► write-begins ─► conn_submit ··· on_reply, for each: settle ─► bytes
 *                                                            └─ on_lost: settle the rest ─► again, or
 *                                                                        an error for each
 *
 * The call owes one reply per command, so that the framer's pieces arrive here in order; which command
 * they answer is `done`.
 */
#include "batch.h"

#include "echo.h"
#include "forward.h"
#include "pause.h"
#include "redirect.h"
#include "roads.h"

#include "../conf/mem.h"
#include "../conf/mutant.h"

/* No more bytes of commands in one batch. */
#define BATCH_BYTES ((size_t)64 * 1024)

/* Batches a worker keeps for use again; none where sanitizers look for use after free. */
#ifdef NEARSIDE_LIBC_MALLOC
#define BATCHES_MAX 0
#else
#define BATCHES_MAX 256
#endif

static void on_reply(struct call *call, const struct reply_piece *piece);
static void on_lost(struct call *call, enum call_loss loss);
static void on_run(struct call *call, const struct reply_run *run);
static void on_pause(struct call *call);

static const struct call_ops batch_ops = {
    .reply = on_reply, .lost = on_lost, .run = on_run, .pause = on_pause};

bool batch_is_call(const struct call *call)
{
    return call->ops == &batch_ops;
}

/* ---- Life ------------------------------------------------------------------------------------ */

struct batch *batch_take(struct worker *worker)
{
    struct batch *batch = worker->batches;
    if (batch != NULL) {
        worker->batches = batch->next;
        worker->nbatches--;
    } else if ((batch = mem_try(sizeof(*batch))) == NULL) {
        return NULL;
    }
    batch->n = 0;
    batch->inside = false;
    batch->was_hit = batch->refused = 0;
    batch->gathered.n = 0;
    return batch;
}

void batch_give(struct worker *worker, struct batch *batch)
{
    if (worker->nbatches == BATCHES_MAX) {
        mem_free(batch);
        return;
    }
    batch->next = worker->batches;
    worker->batches = batch;
    worker->nbatches++;
}

void batch_destroy(struct request *request)
{
    batch_give(request->worker, request->batch);
    request->batch = NULL;
    request->hashes = &request->one_hash; /* those were the batch's */
}

void batch_free_all(struct worker *worker)
{
    while (worker->batches != NULL) {
        struct batch *batch = worker->batches;
        worker->batches = batch->next;
        mem_free(batch);
    }
    worker->nbatches = 0;
}

/* ---- Gathering ------------------------------------------------------------------------------- */

/* What the command is in a batch; false: it goes its own way, as does what a replica may answer. */
static inline bool class_in_batch(const struct cmd *cmd, const struct server *server,
                                  enum cmd_class *class)
{
    if (cmd == NULL || (cmd->class == CMD_GET && server->caching) ||
        (cmd->class == CMD_READ && server->to_replicas)) {
        return false;
    }
    *class = cmd->class == CMD_WRITE ? CMD_WRITE : CMD_READ;
    return true;
}

/* Is a plain command of this client nothing but that, and is all that it has unanswered on the lane? */
static bool may_batch(const struct client *c)
{
    const struct server *server = c->worker->server;
    return !server->is_cluster && !server->announces && c->authenticated && c->pinned == NULL &&
           !c->switching && !c->expects_multi && !c->multi_refused && !client_is_silent(c) &&
           !c->skips_next && is_only_road(c, ROAD_LANE) && !pause_is_on(server, c->worker->now) &&
           !MUTANT(R6) && !MUTANT(R6s);
}

/* Takes commands from the input as long as they are of the class of the first, which is in *plain; returns the bytes
 * of all. *last becomes the last one's. */
static size_t gather(const struct server *server, struct batch *batch, struct slice in,
                     uint32_t most, struct plain *plain, enum cmd_class class,
                     const struct cmd **last)
{
    enum cmd_class this;
    bool caching = server->caching;
    size_t size = plain->size;
    size_t used = 0;
    uint32_t n = 0;
    for (;;) {
        if (caching) {
            batch->hashes[n] = batch->links[n].hash = l1_hash(server->l1, plain->key);
        }
        used += size;
        batch->ends[n++] = (uint32_t)used;
        if (n == most) {
            break;
        }
        size = parse_plain(slice_of(in.p + used, in.n - used), plain);
        if (size == 0) {
            break;
        }
        if (!plain->same) {
            const struct cmd *cmd = cmd_find_plain(plain->name);
            if (!class_in_batch(cmd, server, &this) || this != class) {
                break;
            }
            *last = cmd;
        }
    }
    batch->n = n;
    return used;
}

/* ---- Effects on L1 --------------------------------------------------------------------------- */

static void begin(struct request *request)
{
    struct batch *batch = request->batch;
    struct l1 *l1 = request->worker->server->l1;
    if (request->class != CMD_WRITE || request->keyless) {
        return;
    }
    /* who cannot see what was SET has no use for versions (echo.c) */
    uint64_t *versions = request->raw.n > 0 ? batch->versions : NULL;
    batch->was_hit =
        l1_write_begin_run(l1, request->worker->reader, batch->hashes, batch->n, versions);
}

/* The n commands from the i-th on have been executed; or, unread, no read of them has told anything. */
static void settle(struct request *request, uint32_t i, uint32_t n, bool unread)
{
    struct l1 *l1 = request->worker->server->l1;
    const uint64_t *hashes = request->batch->hashes;
    if (request->keyless) {
        return;
    }
    if (request->class != CMD_WRITE) {
        for (uint32_t end = i + n; i < end && !unread && !MUTANT(R7); i++) {
            l1_observe(l1, hashes[i]);
        }
    } else if (unlikely(echo_ends(request))) {
        for (uint32_t end = i + n; i < end && !MUTANT(W1e); i++) {
            echo_write_end(request, i);
        }
    } else if (n > 0 && !MUTANT(W1e)) {
        l1_write_end(l1, hashes + i, n);
    }
}

static void settle_rest(struct request *request)
{
    const struct batch *batch = request->batch;
    uint32_t from = request->done + batch->inside;
    settle(request, from, batch->n - from, true);
}

/* ---- Sending --------------------------------------------------------------------------------- */

static void submit(struct request *request, struct conn *lane, struct slice bytes,
                   struct blob *owner)
{
    request->call.ops = &batch_ops;
    request->call.replies = request->commands - request->done;
    enum conn_status status = conn_submit(lane, &request->call, bytes, owner);
    if (status != CONN_OK) {
        settle_rest(request);
        forward_unsent(request, lane, status);
    }
}

static void count(struct worker *worker, const struct batch *batch, enum cmd_class class)
{
    COUNT(worker, commands_processed, batch->n);
    COUNT(worker, commands_batched, batch->n);
    if (class == CMD_WRITE) {
        COUNT(worker, forwarded_writes, batch->n);
    } else {
        COUNT(worker, forwarded_reads, batch->n);
    }
}

/* The batch, which is gathered, becomes a request. False: memory is out, and it is still the caller's. */
static bool enqueue(struct client *c, struct conn *lane, struct batch *batch, enum cmd_class class,
                    const struct cmd *last, struct slice raw, struct blob *owner)
{
    struct worker *worker = c->worker;
    struct request *request = request_create(worker);
    if (request == NULL) {
        return false;
    }
    if (class == CMD_READ || (c->reads_back && raw.n <= batch->n * ECHO_BYTES)) {
        bool kept = request_keep_raw(request, raw, owner);
        request->readonly = kept && class == CMD_READ;
    }
    request->kind = REQUEST_FORWARD;
    request->class = class;
    request->road = ROAD_LANE;
    request->cmd = last;
    request->batch = batch;
    request->commands = batch->n;
    request->hashes = batch->hashes;
    request->keys = batch->links;
    request->keyless = !worker->server->caching;
    request->nkeys = request->keyless ? 0 : batch->n;
    request->plain = !request->keyless;
    count(worker, batch, class);
    client_enqueue(c, request);
    begin(request);
    submit(request, lane, raw, owner);
    return true;
}

/* batch_dispatch, when the first command is in *plain, may be in a batch and is followed by something. */
static size_t dispatch(struct client *c, struct slice in, struct blob *owner, unsigned *share,
                       uint32_t most, struct plain *plain, const struct cmd *cmd,
                       enum cmd_class class)
{
    struct worker *worker = c->worker;
    struct batch *batch;
    struct conn *lane = forward_lane(worker, 0, c->db, c->resp3, ROAD_LANE);
    if (forward_lane_is_full(lane) || !conn_accepts(lane) || (batch = batch_take(worker)) == NULL) {
        return 0;
    }
    size_t used = gather(worker->server, batch, in, most, plain, class, &cmd);
    uint32_t n = batch->n;
    if (n < 2 || !enqueue(c, lane, batch, class, cmd, slice_of(in.p, used), owner)) {
        batch_give(worker, batch);
        return 0;
    }
    c->last_cmd = cmd;
    *share -= n;
    return used;
}

size_t batch_dispatch(struct client *c, struct slice in, struct blob *owner, unsigned *share,
                      struct request_view *view)
{
    uint32_t window = (uint32_t)c->worker->server->conf->proxy_window;
    uint32_t room = window > c->queued ? window - c->queued : 0;
    uint32_t most = (uint32_t)least(least(room, *share), BATCH_COMMANDS);
    struct plain plain = {.size = 0};
    size_t size = parse_plain_anew(in, &plain);
    enum cmd_class class;
    if (size == 0) {
        return 0;
    }
    const struct cmd *cmd = size == in.n || most < 2 ? NULL : cmd_find_plain(plain.name);
    if (size > BATCH_BYTES || !class_in_batch(cmd, c->worker->server, &class) || !may_batch(c)) {
        plain_view(&plain, view);
        return 0;
    }
    in.n = least(in.n, BATCH_BYTES);
    return dispatch(c, in, owner, share, most, &plain, cmd, class);
}

/* ---- Replies --------------------------------------------------------------------------------- */

/* What has gathered goes to the client. False: it is closed, and the request a ghost. */
static bool pass_gathered(struct request *request)
{
    struct batch *batch = request->batch;
    struct slice replies = batch->gathered;
    batch->gathered.n = 0;
    if (request->client == NULL || replies.n == 0) {
        return request->client != NULL;
    }
    bool open = client_take(request->client, request, replies);
    request->arrived = 0;
    return open;
}

/* The bytes that were read have all been looked at. */
static void on_pause(struct call *call)
{
    (void)pass_gathered(container_of(call, struct request, call));
}

/* Where the worker reads; a reply that came in two reads is elsewhere, and not for long. */
bool batch_is_in_read_buffer(const struct worker *worker, const char *p)
{
    return (uintptr_t)p - (uintptr_t)worker->read_buffer < WORKER_READ_SIZE;
}

static __attribute__((noinline)) void begin_gathering(struct request *request, struct slice reply)
{
    bool open = request->client != NULL;
    if (request->batch->gathered.n > 0) {
        open = pass_gathered(request);
    }
    if (batch_is_in_read_buffer(request->worker, reply.p)) {
        request->batch->gathered = reply;
    } else if (open) {
        (void)!client_take(request->client, request, reply);
        request->arrived = 0;
    }
}

/* Replies that lie behind each other in what was read are passed on in one piece. */
static inline void gather_reply(struct request *request, struct slice reply)
{
    struct slice *gathered = &request->batch->gathered;
    if (likely(gathered->n > 0 && gathered->p + gathered->n == reply.p)) {
        gathered->n += reply.n;
    } else {
        begin_gathering(request, reply);
    }
}

/* A piece of a reply that comes in several. False: the client is closed. */
static bool take_piece(struct client *c, struct request *request, const struct reply_piece *piece)
{
    struct batch *batch = request->batch;
    if (piece->first) {
        batch->before = chain_mark(&request->reply);
        request->released = false;
    }
    if (!chain_append(&request->reply, piece->bytes)) {
        client_close(c);
        return false;
    }
    return client_arrived(c, request, piece->bytes.n);
}

static void finish(struct request *request)
{
    echo_stored(request, request->batch->was_hit, request->batch->refused);
    if (!pass_gathered(request)) {
        request_destroy(request);
    } else {
        client_answered(request->client, request);
    }
}

__attribute__((noinline)) void batch_pass_piece(struct request *request,
                                                const struct reply_piece *piece)
{
    struct batch *batch = request->batch;
    if (pass_gathered(request)) {
        (void)!take_piece(request->client, request, piece); /* false: a ghost now */
    }
    batch->inside = !piece->last;
    request->arrived = piece->last ? 0 : request->arrived;
}

static void on_reply(struct call *call, const struct reply_piece *piece)
{
    struct request *request = container_of(call, struct request, call);
    if (piece->first) {
        settle(request, request->done, 1, forward_is_forbidden(piece));
        if (unlikely(piece->type == '-')) {
            request->batch->refused |= UINT64_C(1) << request->done;
            (void)!redirect_notes(request->worker, request->node, piece->bytes);
        }
    }
    if (likely(piece->first && piece->last)) {
        gather_reply(request, piece->bytes);
    } else {
        batch_pass_piece(request, piece);
    }
    if (!piece->last) {
        return;
    }
    request->done++;
    if (call->replies == 0) {
        finish(request);
    }
}

static void on_run(struct call *call, const struct reply_run *run)
{
    struct request *request = container_of(call, struct request, call);
    settle(request, request->done, run->n, false);
    request->done += run->n;
    gather_reply(request, run->bytes);
    if (call->replies == 0) {
        finish(request);
    }
}

/* ---- Losses ---------------------------------------------------------------------------------- */

void batch_resume(struct request *request)
{
    const struct batch *batch = request->batch;
    uint32_t from = request->done == 0 ? 0 : batch->ends[request->done - 1];
    request->attempts++;
    submit(request, forward_lane_of(request),
           slice_of(request->raw.p + from, request->raw.n - from), request->raw_blob);
}

void batch_again(struct request *request)
{
    COUNT(request->worker, resends, request->commands - request->done);
    batch_resume(request);
}

bool batch_may_move(const struct request *request)
{
    const struct batch *batch = request->batch;
    for (uint32_t i = 0; i < request->nkeys; i++) {
        /* what moves is executed twice: not for a value that is asked for again and again */
        if (batch->links[i].request == NULL) {
            return false;
        }
    }
    return request->done == 0 && !batch->inside &&
           (!request->keyless || request == request->client->head);
}

bool batch_rewind(struct request *request)
{
    struct batch *batch = request->batch;
    struct client *c = request->client;
    if (batch->inside && request->released) {
        /* half of the reply is with it already, and there is no way to take it back */
        client_close(c);
        request_destroy(request);
        return false;
    }
    if (batch->inside) {
        chain_rewind(&request->reply, batch->before);
        batch->inside = false;
        request->arrived = 0;
        client_charge_request(c, request);
    }
    return true;
}

static void on_lost(struct call *call, enum call_loss loss)
{
    struct request *request = container_of(call, struct request, call);
    bug_on(request->batch->gathered.n > 0);
    settle_rest(request);
    echo_give_up(request, true);
    if (request->client == NULL) {
        request_destroy(request);
        return;
    }
    if (!batch_rewind(request)) {
        return;
    }
    if (request->readonly && request->attempts == 0 && !forward_is_overtaken(request) &&
        conn_accepts(forward_lane_of(request))) {
        batch_again(request);
        return;
    }
    forward_lost(request, loss);
}
