/* SPDX-License-Identifier: Apache-2.0
 *
 * fills.c: see fills.h.
 *
 * What has come of the values stays where it was read, until that is used again (on_pause) or something else lies in
 * between; then it is copied. `request->done` counts what the client has, `fills->got` the values that are here; the
 * leases from `done` on have not ended.
 */
#include "fills.h"

#include "dispatch.h"
#include "fetch.h"
#include "forward.h"
#include "redirect.h"
#include "roads.h"

#include "../conf/mem.h"
#include "../conf/mutant.h"

/* Values wait for their TTLs: those of a batch may take so much of proxy.max_output, and no more than that. */
#define OUTPUT_PART 4
#define VALUES_MAX  ((size_t)1 << 30)

static void on_reply(struct call *call, const struct reply_piece *piece);
static void on_run(struct call *call, const struct reply_run *run);
static void on_pause(struct call *call);
static void on_lost(struct call *call, enum call_loss loss);
static void go_on(struct request *request, enum call_loss loss);

static const struct call_ops fills_ops = {
    .reply = on_reply, .lost = on_lost, .run = on_run, .pause = on_pause};

/* ---- Gathering ------------------------------------------------------------------------------- */

/* So many values can be kept, however large they are. */
static size_t most_values(const struct server *server)
{
    size_t bytes = server->conf->proxy_max_output / OUTPUT_PART;
    size_t n = (bytes < VALUES_MAX ? bytes : VALUES_MAX) / server->conf->l1_max_item_size;
    return n < BATCH_COMMANDS ? n : BATCH_COMMANDS;
}

struct batch *fills_begin(const struct client *c)
{
    struct worker *worker = c->worker;
    const struct server *server = worker->server;
    const struct feed *feed = worker_feed(worker, 0);
    if (server->is_cluster || c->db != server->conf->upstream_db || feed == NULL ||
        !feed_is_up(feed) || forward_is_full(worker, 0, c->db, c->resp3, ROAD_FILL) ||
        most_values(server) < 2 || MUTANT(R6) || MUTANT(R6b)) {
        return NULL;
    }
    struct batch *batch = batch_take(worker);
    if (batch != NULL) {
        struct fills *fills = &batch->fills;
        fills->values = slice_of(NULL, 0);
        fills->kept = NULL;
        fills->kept_size = 0;
        fills->got = 0;
        fills->nulls = fills->bulks = 0;
        fills->passing = fills->awaited = false;
    }
    return batch;
}

static bool may_go(struct client *c, uint64_t hash)
{
    return roads_of(c, &hash, 1, NEW_L1_READ, c->next_seq).roads == 0 &&
           !large_keys_has(&c->worker->server->large, hash);
}

/* How many of the keys may be in the batch, whatever L1 says. */
static size_t may_add(struct client *c, const struct batch *batch, const struct l1_key *keys,
                      size_t n)
{
    const struct feed *feed = worker_feed(c->worker, 0);
    size_t window = (size_t)c->worker->server->conf->proxy_window;
    size_t room = most_values(c->worker->server) - batch->n;
    size_t i = 0;
    if (window < c->queued + batch->n + room) {
        room = window < c->queued + batch->n ? 0 : window - c->queued - batch->n;
    }
    while (i < n && i < room && may_go(c, keys[i].hash) && feed_announces(feed, keys[i].key)) {
        i++;
    }
    return i;
}

size_t fills_add(struct client *c, struct batch *batch, const struct l1_key *keys,
                 const size_t *ends, size_t n)
{
    struct worker *worker = c->worker;
    n = may_add(c, batch, keys, n);
    if (n == 0) {
        return 0;
    }
    const struct l1_query query = {
        .db = c->db,
        .cover = feed_cover(worker_feed(worker, 0), keys[0].key),
        .fetcher = (uint16_t)worker->index,
    };
    n = l1_lease_run(worker->server->l1, &query, keys, n, batch->fills.leases + batch->n,
                     worker->now);
    for (size_t i = 0; i < n; i++) {
        l1_lease_await(batch->fills.leases[batch->n]);
        batch->hashes[batch->n] = batch->links[batch->n].hash = keys[i].hash;
        batch->ends[batch->n++] = (uint32_t)ends[i];
    }
    return n;
}

/* ---- Endings of leases ------------------------------------------------------------------------ */

/* From the i-th on. */
static void abandon(struct worker *worker, struct batch *batch, uint32_t i)
{
    for (; i < batch->n; i++) {
        l1_abandon(worker->server->l1, &batch->fills.leases[i]);
    }
}

static void charge(struct request *request, size_t extra)
{
    if (request->client != NULL && request->extra != extra) {
        request->extra = extra;
        client_charge_request(request->client, request);
    }
}

static void forget_values(struct request *request)
{
    struct fills *fills = &request->batch->fills;
    mem_free(fills->kept);
    fills->kept = NULL;
    fills->kept_size = 0;
    fills->values.n = 0;
    charge(request, 0);
}

/* The reply to the i-th GET. */
static struct slice value_of(const struct fills *fills, uint32_t i)
{
    uint32_t begin = i == 0 ? 0 : fills->ends[i - 1];
    return slice_of(fills->values.p + begin, fills->ends[i] - begin);
}

/* The i-th value goes into L1; with ttl_ms 0 to those only who wait for it. */
static inline void fill(struct request *request, uint32_t i, int64_t ttl_ms)
{
    struct worker *worker = request->worker;
    struct fills *fills = &request->batch->fills;
    const struct l1_value value = {
        .encoded = value_of(fills, i),
        .is_bulk = (fills->bulks >> i & 1) != 0,
        .is_null = (fills->nulls >> i & 1) != 0,
        .ttl_ms = ttl_ms,
    };
    l1_fill(worker->server->l1, &fills->leases[i], &value, worker->now);
}

struct l1_lease *fills_lease(const struct request *request, uint64_t hash)
{
    const struct batch *batch = request->batch;
    for (uint32_t i = 0; i < batch->n; i++) {
        if (batch->hashes[i] == hash) {
            return batch->fills.leases[i];
        }
    }
    return NULL;
}

/* ---- To the client ---------------------------------------------------------------------------- */

/* The values up to the n-th, whose leases have ended. */
static void deliver(struct request *request, uint32_t n)
{
    const struct fills *fills = &request->batch->fills;
    charge(request, 0); /* that they waited is not held against who takes them */
    while (request->done < n) {
        uint32_t from = request->done;
        uint32_t to = from;
        while (to < n && (fills->nulls >> to & 1) == 0) {
            to++;
        }
        struct slice bytes = resp_null_text(request->resp3);
        if (to > from) {
            size_t begin = from == 0 ? 0 : fills->ends[from - 1];
            bytes = slice_of(fills->values.p + begin, fills->ends[to - 1] - begin);
        }
        request->done = to > from ? to : from + 1;
        if (request->client != NULL) {
            (void)!client_take(request->client, request, bytes); /* false: a ghost now */
            request->arrived = 0;
        }
    }
}

/* From here on nothing is kept. */
static void begin_passing(struct request *request)
{
    struct fills *fills = &request->batch->fills;
    fills->passing = true;
    for (uint32_t i = request->done; i < fills->got; i++) {
        fill(request, i, 0);
    }
    abandon(request->worker, request->batch, fills->got);
    deliver(request, fills->got);
    forget_values(request);
}

/* R7 on the first of its bytes, which are passed on as they come. */
static void pass(struct request *request, const struct reply_piece *piece)
{
    struct fills *fills = &request->batch->fills;
    struct reply_piece null = *piece;
    if (piece->first && !MUTANT(R7)) {
        l1_observe(request->worker->server->l1, request->batch->hashes[fills->got]);
    }
    if (piece->is_null) {
        null.bytes = resp_null_text(request->resp3);
    }
    batch_pass_piece(request, &null);
    if (piece->last) {
        fills->got++;
        request->done++;
    }
}

/* ---- Values ----------------------------------------------------------------------------------- */

/* Moves what has come to where it can stay, with room for `more` bytes. False: memory is out. */
static bool keep_values(struct request *request, size_t more)
{
    struct fills *fills = &request->batch->fills;
    struct slice values = fills->values;
    if (fills->kept != NULL && values.n + more <= fills->kept_size) {
        return true;
    }
    size_t size = 2 * values.n + more;
    char *kept = mem_try(size);
    if (kept == NULL) {
        return false;
    }
    memcpy(kept, values.p == NULL ? "" : values.p, values.n);
    mem_free(fills->kept);
    fills->kept = kept;
    fills->kept_size = size;
    fills->values.p = kept;
    charge(request, size);
    return true;
}

/* Memory is out: nobody gets anything of it. */
static void break_off(struct request *request)
{
    struct fills *fills = &request->batch->fills;
    abandon(request->worker, request->batch, request->done);
    forget_values(request);
    fills->passing = true;
    if (request->client != NULL) {
        client_close(request->client);
    }
}

/* More bytes of the values. False: memory is out. */
static bool add_bytes(struct request *request, struct slice bytes)
{
    struct fills *fills = &request->batch->fills;
    struct slice *values = &fills->values;
    if (values->n == 0 && batch_is_in_read_buffer(request->worker, bytes.p)) {
        *values = bytes;
    } else if (values->p + values->n == bytes.p && values->p != fills->kept) {
        values->n += bytes.n;
    } else if (keep_values(request, bytes.n)) {
        memcpy(fills->kept + values->n, bytes.p, bytes.n);
        values->n += bytes.n;
    } else {
        return false;
    }
    return true;
}

static bool may_keep(struct request *request, char type, int64_t size)
{
    struct server *server = request->worker->server;
    const struct batch *batch = request->batch;
    if (size >= 0 && (size_t)size <= server->conf->l1_max_item_size) {
        return true;
    }
    if (type == '$') {
        large_keys_add(&server->large, batch->hashes[batch->fills.got]);
    }
    return false;
}

/* A piece of the reply to a GET. False: it is none, and F is given up. */
static bool take_value(struct request *request, const struct reply_piece *piece)
{
    struct batch *batch = request->batch;
    struct fills *fills = &batch->fills;
    if (piece->first && piece->type == '-') {
        (void)!redirect_notes(request->worker, request->node, piece->bytes);
    }
    if (piece->first && piece->type != '$' && piece->type != '_' && piece->type != '-') {
        feed_fail(worker_feed(request->worker, request->node),
                  "protocol error: a GET's reply is no value");
        return false;
    }
    if (piece->first && !fills->passing && !may_keep(request, piece->type, piece->size)) {
        begin_passing(request);
    }
    if (fills->passing) {
        pass(request, piece);
        return true;
    }
    if (piece->first) {
        l1_lease_answered(request->worker->server->l1, fills->leases[fills->got]);
    }
    if (!add_bytes(request, piece->bytes)) {
        break_off(request);
        fills->got += piece->last;
        return true;
    }
    if (piece->last) {
        fills->nulls |= (uint64_t)(piece->type == '_' || piece->is_null) << fills->got;
        fills->ends[fills->got++] = (uint32_t)fills->values.n;
    }
    return true;
}

/* The i-th of the replies in a run. */
static struct slice reply_of(const struct reply_run *run, uint32_t i)
{
    uint32_t begin = i == 0 ? 0 : run->ends[i - 1];
    return slice_of(run->bytes.p + begin, run->ends[i] - begin);
}

/* ---- TTLs --------------------------------------------------------------------------------------- */

/* The reply to PTTL for the i-th. */
static void take_ttl(struct request *request, uint32_t i, struct slice reply)
{
    const struct fills *fills = &request->batch->fills;
    bool is_null = (fills->nulls >> i & 1) != 0;
    bool is_error = value_of(fills, i).p[0] == '-';
    COUNT(request->worker, fetches_failed, is_error);
    fill(request, i, is_error ? 0 : fetch_ttl(request->worker, request->node, is_null, reply));
}

/* Those of the run from its i-th on. Most keys live for ever: what that means is looked up once. */
static void take_ttls(struct request *request, const struct reply_run *run, uint32_t i)
{
    const struct fills *fills = &request->batch->fills;
    const struct slice for_ever = SLICE(":-1\r\n");
    int64_t usual = fetch_ttl(request->worker, request->node, false, for_ever);
    uint32_t filled = request->done;
    for (; i < run->n; i++, filled++) {
        struct slice reply = reply_of(run, i);
        if ((fills->bulks >> filled & 1) != 0 && reply.n == for_ever.n &&
            memcmp(reply.p, ":-1\r\n", 5) == 0) {
            fill(request, filled, usual);
        } else {
            take_ttl(request, filled, reply);
        }
    }
    deliver(request, filled);
}

/* ---- Replies ------------------------------------------------------------------------------------ */

/* Later GETs of the client that wait for this (fills_await). */
static void wake_later(struct client *c)
{
    for (struct request *r = c->head; r != NULL; r = r->next) {
        if (r->awaits_fills) {
            r->awaits_fills = false;
            request_look_again(r);
        }
    }
}

static void finish(struct request *request)
{
    struct client *c = request->client;
    bool awaited = request->batch->fills.awaited;
    forget_values(request);
    if (c == NULL) {
        request_destroy(request);
        return;
    }
    client_answered(c, request);
    if (awaited) {
        wake_later(c);
    }
}

static void on_reply(struct call *call, const struct reply_piece *piece)
{
    struct request *request = container_of(call, struct request, call);
    struct fills *fills = &request->batch->fills;
    if (fills->got < request->batch->n) {
        (void)take_value(request, piece); /* false: on_lost comes, since TTLs are owed */
    } else if (!fills->passing && piece->last) {
        take_ttl(request, request->done, piece->first ? piece->bytes : slice_of("-", 1));
        deliver(request, request->done + 1);
    }
    if (piece->last && call->replies == 0) {
        finish(request);
    }
}

static struct reply_piece piece_of(const struct reply_run *run, uint32_t i)
{
    struct slice bytes = reply_of(run, i);
    return (struct reply_piece){
        .bytes = bytes,
        .type = bytes.p[0],
        .first = true,
        .last = true,
        .is_null = bytes.p[0] == '$' && bytes.p[1] == '-',
        .size = (int64_t)bytes.n,
    };
}

/* The first n replies of a run, as far as they are values that may be kept, in one go. Returns how many. */
static uint32_t take_values(struct request *request, const struct reply_run *run, uint32_t n)
{
    struct fills *fills = &request->batch->fills;
    const struct server *server = request->worker->server;
    const struct l1 *l1 = server->l1;
    uint32_t base = (uint32_t)fills->values.n;
    uint32_t got = fills->got;
    size_t largest = server->conf->l1_max_item_size;
    uint32_t i = 0;
    uint32_t begin = 0;
    if (fills->passing) {
        return 0;
    }
    for (; i < n; i++) {
        const char *p = run->bytes.p + begin;
        if (*p != '$' || run->ends[i] - begin > largest) {
            break;
        }
        l1_lease_answered(l1, fills->leases[got]);
        fills->nulls |= (uint64_t)(p[1] == '-') << got;
        fills->bulks |= (uint64_t)(p[1] > '0')
                        << got; /* the framer takes no others for whole at once */
        begin = run->ends[i];
        fills->ends[got++] = base + begin;
    }
    if (i > 0 && !add_bytes(request, slice_of(run->bytes.p, begin))) {
        break_off(request);
    }
    fills->got = got;
    return i;
}

static void on_run(struct call *call, const struct reply_run *run)
{
    struct request *request = container_of(call, struct request, call);
    struct fills *fills = &request->batch->fills;
    uint32_t left = request->batch->n - fills->got;
    uint32_t values = run->n < left ? run->n : left;
    uint32_t i = take_values(request, run, values);
    for (; i < values; i++) {
        struct reply_piece piece = piece_of(run, i);
        if (!take_value(request, &piece)) {
            if (call->replies == 0) { /* of this run, so that nobody will call on_lost */
                go_on(request, LOSS_SENT);
            }
            return;
        }
    }
    if (i < run->n && !fills->passing) {
        take_ttls(request, run, i);
    }
    if (call->replies == 0) {
        finish(request);
    }
}

/* What was read is about to go. */
static void on_pause(struct call *call)
{
    struct request *request = container_of(call, struct request, call);
    const struct fills *fills = &request->batch->fills;
    if (fills->values.n > 0 && !fills->passing && !keep_values(request, 0)) {
        break_off(request);
    }
}

/* ---- Losses ------------------------------------------------------------------------------------- */

static void resume(struct request *request, enum call_loss loss)
{
    if (request->readonly && conn_accepts(forward_lane_of(request))) {
        COUNT(request->worker, forwarded_reads, request->commands - request->done);
        batch_resume(request);
    } else {
        forward_lost(request, loss);
    }
}

/* What is unanswered goes on as reads on a lane. */
static void go_on(struct request *request, enum call_loss loss)
{
    struct batch *batch = request->batch;
    struct client *c = request->client;
    bool awaited = batch->fills.awaited;
    if (!batch->fills.passing) {
        abandon(request->worker, request->batch, request->done);
        batch->inside = false;
    }
    forget_values(request);
    if (c == NULL) {
        request_destroy(request);
        return;
    }
    if (request->done == request->commands) {
        client_answered(c, request); /* only TTLs were missing */
    } else if (batch_rewind(request)) {
        request->kind = REQUEST_FORWARD;
        request->class = CMD_READ;
        client_move_road(c, request, ROAD_LANE);
        resume(request, loss);
    }
    if (awaited) {
        wake_later(c);
    }
}

static void on_lost(struct call *call, enum call_loss loss)
{
    struct request *request = container_of(call, struct request, call);
    COUNT(request->worker, fetches_failed, request->commands - request->done);
    go_on(request, loss);
}

void fills_give_up(struct request *request)
{
    struct fills *fills = &request->batch->fills;
    if (!fills->passing) {
        abandon(request->worker, request->batch, request->done);
        fills->passing = true;
        request->batch->inside = false;
    }
    forget_values(request);
    if (fills->awaited) {
        wake_later(request->client);
    }
}

bool fills_await(struct request *earlier, struct request *later)
{
    if (earlier->kind == REQUEST_FILLS) {
        earlier->batch->fills.awaited = true;
    } else if (!earlier->awaits_fills) {
        return false;
    }
    later->awaits_fills = true;
    return true;
}

/* ---- Sending ------------------------------------------------------------------------------------ */

/* In front of the key in a GET as parse_get takes it; the longest such request. */
#define GET_HEAD 13
#define GET_MAX  120

/* GETs as they came, then the PTTLs. */
static enum conn_status submit(struct request *request, struct slice gets)
{
    static const char head[] = "*2\r\n$4\r\nPTTL\r\n";
    const size_t head_n = sizeof(head) - 1;
    const struct batch *batch = request->batch;
    char bytes[BATCH_COMMANDS * 2 * (GET_MAX + 2)];
    bug_on(gets.n > (size_t)batch->n * GET_MAX);
    memcpy(bytes, gets.p, gets.n);
    char *end = bytes + gets.n;
    size_t at = 0;
    for (uint32_t i = 0; i < batch->n; i++) {
        size_t key = at + GET_HEAD;
        memcpy(end, head, head_n);
        copy_key(end + head_n, gets.p + key, batch->ends[i] - key);
        end += head_n + batch->ends[i] - key;
        at = batch->ends[i];
    }
    request->call.ops = &fills_ops;
    request->call.replies = 2 * batch->n;
    return feed_submit(worker_feed(request->worker, request->node), &request->call,
                       slice_of(bytes, (size_t)(end - bytes)));
}

unsigned fills_send(struct client *c, struct batch *batch, struct slice in, struct blob *owner)
{
    struct worker *worker = c->worker;
    uint32_t n = batch->n;
    struct request *request = n == 0 ? NULL : request_create(worker);
    if (request == NULL) {
        abandon(worker, batch, 0);
        batch_give(worker, batch);
        return 0;
    }
    struct slice gets = slice_of(in.p, batch->ends[n - 1]);
    request->kind = REQUEST_FILLS;
    request->class = CMD_GET;
    request->road = ROAD_FILL;
    request->cmd = c->last_cmd = cmd_get();
    request->batch = batch;
    request->commands = n;
    request->hashes = batch->hashes;
    request->keys = batch->links;
    request->nkeys = n;
    request->plain = true;
    request->readonly = request_keep_raw(request, gets, owner);
    COUNT(worker, commands_processed, n);
    COUNT(worker, commands_batched, n);
    COUNT(worker, l1_misses, n);
    c->missed = true;
    client_enqueue(c, request);
    if (submit(request, gets) == CONN_OK) {
        COUNT(worker, fetches, n);
    } else {
        COUNT(worker, fetches_failed, n);
        go_on(request, LOSS_UNSENT);
    }
    return n;
}
