/* SPDX-License-Identifier: Apache-2.0
 *
 * hits.c: the common case of dispatch.h in one go: GETs at the start of the input that L1 has. Nothing is
 * allocated for them but room for their replies, and no request is made; the first that L1 does not have
 * ends the run.
 */
#include "client.h"
#include "dispatch.h"

/* Memory for replies that is asked for at once. */
#define PIPELINE_ROOM ((size_t)8 * 1024)
/* GETs that are looked up together: at first few, as what comes behind a miss was looked at in vain. */
#define AHEAD     32
#define FEW_AHEAD 8
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

/* The GETs at the start of the input, at most n of them: how many, and where in it each ends. */
static inline size_t scan(const struct l1 *l1, struct slice in, struct l1_key *keys, size_t *ends,
                          size_t n)
{
    size_t at = 0;
    size_t i = 0;
    for (; i < n; i++) {
        size_t size = parse_get(slice_of(in.p + at, in.n - at), &keys[i].key);
        if (size == 0) {
            break;
        }
        keys[i].hash = l1_hash(l1, keys[i].key);
        at += size;
        ends[i] = at;
    }
    return i;
}

unsigned dispatch_look_ahead(const struct client *c, struct slice in)
{
    const struct l1 *l1 = c->worker->server->l1;
    struct l1_key keys[FEW_AHEAD];
    size_t ends[FEW_AHEAD];
    size_t n = scan(l1, in, keys, ends, FEW_AHEAD);
    l1_look_ahead(l1, keys, n);
    return (unsigned)n;
}

size_t dispatch_hits(struct client *c, struct slice in, unsigned *share)
{
    struct worker *worker = c->worker;
    struct l1 *l1 = worker->server->l1;
    struct l1_key keys[AHEAD];
    size_t ends[AHEAD];
    size_t n = *share < FEW_AHEAD ? *share : FEW_AHEAD;
    if (!dispatch_is_plain(c) || (n = scan(l1, in, keys, ends, n)) == 0) {
        return 0;
    }
    struct l1_run run = {.keys = keys,
                         .n = n,
                         .db = c->db,
                         .reader = worker->reader,
                         .out = client_reply_begin(c),
                         .null = dispatch_null(c)};
    if (run.out == NULL) {
        return 0;
    }
    run.enough = run.out->bytes + HITS_SHARE;
    if (in.n > 2 * ends[0]) {
        reserve_replies(run.out, in.n);
    }
    size_t used = 0;
    size_t hits = 0;
    size_t nulls = 0;
    do {
        n = l1_get_run(l1, &run, worker->now);
        used += n == 0 ? 0 : ends[n - 1];
        hits += n;
        nulls += run.nulls;
        if (n < run.n || run.out->bytes >= run.enough) {
            break;
        }
        n = *share - hits < AHEAD ? *share - hits : AHEAD;
        run.n = scan(l1, slice_of(in.p + used, in.n - used), keys, ends, n);
    } while (run.n > 0);
    if (used == 0) {
        chain_commit(run.out, 0);
        client_reply_cancel(c);
        return 0;
    }
    client_reply_end(c);
    *share -= (unsigned)hits;
    COUNT(worker, l1_hits, hits - nulls);
    COUNT(worker, l1_negative_hits, nulls);
    COUNT(worker, commands_processed, c->part_of == NULL ? hits : 0);
    c->last_cmd = worker->server->get;
    return used;
}
