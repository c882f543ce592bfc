/* SPDX-License-Identifier: Apache-2.0
 *
 * hits.c: the common case of dispatch.h in one go: GETs at the start of the input that L1 has. Nothing is
 * allocated for them but room for their replies, and no request is made; the first that L1 does not have
 * ends the run.
 */
#include "client.h"
#include "dispatch.h"
#include "../resp/write.h"

/* Memory for replies that is asked for at once. */
#define PIPELINE_ROOM ((size_t)8 * 1024)
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

size_t dispatch_hits(struct client *c, struct slice in, unsigned *share)
{
    struct worker *worker = c->worker;
    struct l1 *l1 = worker->server->l1;
    struct l1_query query = {.db = c->db, .reader = worker->reader};
    size_t used = 0;
    uint64_t hits = 0;
    uint64_t nulls = 0;
    size_t n;
    if (!dispatch_is_plain(c) || (n = parse_get(in, &query.key)) == 0 ||
        (query.out = client_reply_begin(c)) == NULL) {
        return 0;
    }
    size_t enough = query.out->bytes + HITS_SHARE;
    if (in.n > 2 * n) {
        reserve_replies(query.out, in.n);
    }
    do {
        query.hash = l1_hash(l1, query.key);
        enum l1_result result = l1_hit(l1, &query, worker->now);
        if (result == L1_HIT_NULL && resp_null(query.out, c->resp3)) {
            nulls++;
        } else if (result == L1_HIT) {
            hits++;
        } else {
            break;
        }
        used += n;
        n = parse_get(slice_of(in.p + used, in.n - used), &query.key);
    } while (n > 0 && query.out->bytes < enough && hits + nulls < *share);
    if (used == 0) {
        chain_commit(query.out, 0);
        client_reply_cancel(c);
        return 0;
    }
    client_reply_end(c);
    *share -= (unsigned)(hits + nulls);
    COUNT(worker, l1_hits, hits);
    COUNT(worker, l1_negative_hits, nulls);
    COUNT(worker, commands_processed, c->part_of == NULL ? hits + nulls : 0);
    c->last_cmd = worker->server->get;
    return used;
}
