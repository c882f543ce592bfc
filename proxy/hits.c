/* SPDX-License-Identifier: Apache-2.0
 *
 * hits.c: the common case of dispatch.h in one go: GETs at the start of the input that L1 has. Nothing is
 * allocated for them but room for their replies, and no request is made; the first that L1 does not have
 * ends the run. Those that follow and miss as well are fetched together (fills.h).
 */
#include "dispatch.h"
#include "fills.h"
#include "roads.h"
#include "../resp/write.h"

/* Memory for replies that is asked for at once. */
#define PIPELINE_ROOM ((size_t)8 * 1024)
/* GETs that are looked up together: what comes behind a miss was looked at in vain, so fewer at first than behind hits,
 * and few behind a miss. */
#define AHEAD       32
#define FIRST_AHEAD 16
#define FEW_AHEAD   8
/* Misses that are worth a batch. */
#define PAIR 2
/* Replies from L1 in one go, before the client's limits are looked at again. */
#define HITS_SHARE ((size_t)64 * 1024)

/* The replies to a pipeline in one piece of memory, rather than in several that grow. Should memory be
 * out, the first reply finds out. */
static void reserve_replies(struct chain *out, size_t requests)
{
    size_t n = 2 * requests + 64;
    if (out->bytes == 0) {
        char *room = chain_reserve(out, n < PIPELINE_ROOM ? n : PIPELINE_ROOM);
        (void)room;
    }
}

/* GETs at the start of a client's input, as far as they have been looked at. */
struct gets {
    struct slice in; /* from the first of them on */
    struct l1_key keys[BATCH_COMMANDS];
    size_t ends[BATCH_COMMANDS]; /* behind how many bytes of it each ends */
    size_t n;
};

/* Looks on, so that there are at most so many. */
static inline void look_on(const struct l1 *l1, struct gets *gets, size_t most)
{
    size_t i = gets->n;
    size_t at = i == 0 ? 0 : gets->ends[i - 1];
    const struct slice in = gets->in;
    for (; i < most; i++) {
        struct slice key;
        size_t size = parse_get(slice_of(in.p + at, in.n - at), &key);
        if (size == 0) {
            break;
        }
        at += size;
        gets->keys[i] = (struct l1_key){.key = key, .hash = l1_hash(l1, key)};
        gets->ends[i] = at;
    }
    gets->n = i;
}

/* The first k are done with. */
static inline void pass_by(struct gets *gets, size_t k)
{
    size_t bytes = k == 0 ? 0 : gets->ends[k - 1];
    for (size_t i = k; i < gets->n && k > 0; i++) {
        gets->keys[i - k] = gets->keys[i];
        gets->ends[i - k] = gets->ends[i] - bytes;
    }
    gets->in = slice_of(gets->in.p + bytes, gets->in.n - bytes);
    gets->n -= k;
}

unsigned dispatch_look_ahead(const struct client *c, struct slice in)
{
    struct l1 *l1 = c->worker->server->l1;
    struct gets gets;
    gets.in = in;
    gets.n = 0;
    look_on(l1, &gets, FEW_AHEAD);
    l1_look_ahead(l1, c->worker->reader, gets.keys, gets.n);
    return (unsigned)gets.n;
}

/* ---- Misses ---------------------------------------------------------------------------------- */

/* The GETs are fetched, as long as they may be and miss. At least the first does. */
static void fetch(struct client *c, struct gets *gets, struct blob *owner, unsigned *share)
{
    struct l1 *l1 = c->worker->server->l1;
    size_t most = least(*share, BATCH_COMMANDS);
    look_on(l1, gets, PAIR);
    struct batch *batch = most < PAIR || gets->n < PAIR ? NULL : fills_begin(c);
    if (batch == NULL) {
        return;
    }
    size_t n = least(gets->n, most);
    size_t from = 0;
    while (from < n &&
           fills_add(c, batch, gets->keys + from, gets->ends + from, n - from) == n - from) {
        from = n;
        look_on(l1, gets, least(n + AHEAD, most));
        n = least(gets->n, most);
        l1_look_ahead(l1, c->worker->reader, gets->keys + from, n - from);
    }
    unsigned sent = fills_send(c, batch, gets->in, owner);
    *share -= sent;
    pass_by(gets, sent);
}

/* ---- Hits ------------------------------------------------------------------------------------ */

/* How many of the GETs may overtake what their client has unanswered (D14, R6). */
static inline size_t free_of(struct client *c, const struct gets *gets)
{
    size_t i = c->pending == 0 ? gets->n : 0;
    while (i < gets->n &&
           roads_of(c, &gets->keys[i].hash, 1, NEW_L1_READ, c->next_seq).roads == 0) {
        i++;
    }
    return i;
}

/* Answers GETs as long as L1 has them; returns how many, *nulls of them with a null. Those that are left have been
 * looked at in vain. */
static size_t answer(struct client *c, struct gets *gets, struct l1_run *run, size_t share,
                     size_t *nulls)
{
    struct l1 *l1 = c->worker->server->l1;
    size_t hits = 0;
    bool all = true;
    while (all && gets->n > 0) {
        run->n = free_of(c, gets);
        size_t n = run->n == 0 ? 0 : l1_get_run(l1, run, c->worker->now);
        hits += n;
        *nulls += n == 0 ? 0 : run->nulls;
        all = n == gets->n && run->out->bytes < run->enough;
        pass_by(gets, n);
        if (all && gets->in.n > 0) {
            look_on(l1, gets, least(share - hits, AHEAD));
        }
    }
    return hits;
}

size_t dispatch_hits(struct client *c, struct slice in, struct blob *owner, unsigned *share)
{
    struct worker *worker = c->worker;
    bool idle = c->head == NULL;
    struct gets gets;
    gets.in = in;
    gets.n = 0;
    if (!dispatch_is_plain(c)) {
        return 0;
    }
    look_on(worker->server->l1, &gets, least(*share, c->missed ? FEW_AHEAD : FIRST_AHEAD));
    if (gets.n == 0) {
        return 0;
    }
    struct l1_run run = {.keys = gets.keys,
                         .db = c->db,
                         .reader = worker->reader,
                         .out = client_reply_begin(c),
                         .null = dispatch_null(c)};
    if (run.out == NULL) {
        return 0;
    }
    run.enough = run.out->bytes + HITS_SHARE;
    if (idle && in.n > 2 * gets.ends[0]) {
        reserve_replies(run.out, in.n);
    }
    size_t nulls = 0;
    size_t hits = answer(c, &gets, &run, *share, &nulls);
    bool enough = run.out->bytes >= run.enough;
    if (hits == 0) {
        chain_commit(run.out, 0);
        client_reply_cancel(c);
    } else {
        client_reply_end(c);
        *share -= (unsigned)hits;
        COUNT(worker, l1_hits, hits - nulls);
        COUNT(worker, l1_negative_hits, nulls);
        COUNT(worker, commands_processed, c->is_part ? 0 : hits);
        c->last_cmd = worker->server->get;
        c->missed = false;
    }
    if (gets.n > 0 && !enough && (idle || c->missed) && c->state == CLIENT_OPEN) {
        fetch(c, &gets, owner, share);
    }
    return in.n - gets.in.n;
}

/* ---- MGET ------------------------------------------------------------------------------------ */

bool dispatch_mget_hits(struct client *c, const struct request_view *view, struct request *request)
{
    struct worker *worker = c->worker;
    struct l1_key keys[DISPATCH_MGET_KEYS];
    struct arg_walk walk;
    struct chain *out = client_reply_begin(c);
    if (out == NULL) {
        return true;
    }
    arg_walk_init(&walk, view);
    bool more = arg_walk_next(&walk, &keys[0].key);
    for (uint32_t i = 0; more && i < request->nkeys && arg_walk_next(&walk, &keys[i].key); i++) {
        keys[i].hash = request->hashes[i];
    }
    struct l1_run run = {.keys = keys,
                         .n = request->nkeys,
                         .db = c->db,
                         .reader = worker->reader,
                         .out = out,
                         .null = dispatch_null(c)};
    struct chain_mark mark = chain_mark(out);
    if (!resp_array(out, request->nkeys)) {
        client_close(c);
        return true;
    }
    if (!l1_get_all(worker->server->l1, &run, worker->now)) {
        chain_rewind(out, mark);
        client_reply_cancel(c);
        return false;
    }
    COUNT(worker, l1_hits, request->nkeys);
    client_reply_end(c);
    return true;
}
