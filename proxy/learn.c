/* SPDX-License-Identifier: Apache-2.0
 *
 * learn.c: the question COMMAND, from worker 0, to one node.
 *
 *          reason, bulk lane accepts                  reply: rows ─► IDLE
 *   IDLE ──────────────────────────► ASKING ─────────────┤
 *     ▲                                │ lost            error, nonsense, too large: none ─► IDLE
 *     └── later (1 s .. 1 min) ◄───────┘
 *
 * A reason is a lane that has come up since the last answer, or another epoch of what is learnt: a
 * MODULE command was answered, or another server process took over (server.c). An answer to a
 * question from before such a change is of no use (learnt_read sees that), and the next tick asks
 * again. When there is no usable answer, nothing is learnt: those commands are fenced.
 */
#include "learn.h"

#include "worker.h"
#include "../resp/learnt.h"

#include "../conf/mem.h"

#include <stdio.h>

/* Redis 7.0 answers some 200 KB. */
#define REPLY_MAX    ((size_t)8 * 1024 * 1024)
#define REPLY_FIRST  ((size_t)64 * 1024)
#define DELAY_MIN_MS 1000
#define DELAY_MAX_MS 60000

static void forget_reply(struct learner *l)
{
    mem_free(l->bytes);
    l->bytes = NULL;
    l->n = l->size = 0;
}

static void give_up(struct learner *l, const char *why)
{
    forget_reply(l);
    l->unfit = why;
}

static void collect(struct learner *l, struct slice bytes)
{
    if (l->unfit != NULL) {
        return;
    }
    if (bytes.n > REPLY_MAX - l->n) {
        give_up(l, "it is too long");
        return;
    }
    if (bytes.n > l->size - l->n) {
        size_t size = l->size < REPLY_FIRST ? REPLY_FIRST : l->size;
        while (size < l->n + bytes.n) {
            size *= 2;
        }
        char *grown = mem_try_resize(l->bytes, size);
        if (grown == NULL) {
            give_up(l, "out of memory");
            return;
        }
        l->bytes = grown;
        l->size = size;
    }
    memcpy(l->bytes + l->n, bytes.p, bytes.n);
    l->n += bytes.n;
}

static const char *name_of_node(const struct worker *worker)
{
    return node_name(topology_node(worker->server->topology, worker->learner.node));
}

static void warn(struct worker *worker, struct slice why)
{
    struct learner *l = &worker->learner;
    if (!l->warned) {
        log_event(LOG_WARN,
                  "%s does not tell its commands (COMMAND: %.*s); those that are not built in are "
                  "fenced",
                  name_of_node(worker), why.n < 200 ? (int)why.n : 200, why.p);
    }
    l->warned = true;
}

/* What the old answer said may not be so any more. */
static void learn_nothing(struct worker *worker, struct slice why)
{
    warn(worker, why);
    worker->learner.epoch = learnt_forget();
}

static void learn_rows(struct worker *worker)
{
    struct learner *l = &worker->learner;
    uint32_t before = learnt_count();
    switch (learnt_read(slice_of(l->bytes, l->n), l->epoch)) {
    case LEARNT_MALFORMED:
        learn_nothing(worker, SLICE("the reply is no array of commands"));
        return;
    case LEARNT_OUTDATED:
        return;
    case LEARNT_FULL:
        if (!l->warned_full) {
            log_event(LOG_WARN,
                      "%s has had too many commands that are not built in: some have no row and "
                      "are fenced",
                      name_of_node(worker));
        }
        l->warned_full = true;
        break;
    case LEARNT_OK:
        break;
    }
    l->warned = false;
    if (learnt_count() != before) {
        log_event(LOG_INFO, "%s: %u commands learnt that are not built in", name_of_node(worker),
                  learnt_count());
    }
}

static void on_reply(struct call *call, const struct reply_piece *piece)
{
    struct worker *worker = container_of(call, struct worker, learner.call);
    struct learner *l = &worker->learner;
    if (piece->type != '-') {
        collect(l, piece->bytes);
    }
    if (!piece->last) {
        return;
    }
    l->state = LEARN_IDLE;
    l->delay_ms = 0;
    if (piece->type == '-') {
        size_t n = piece->bytes.n; /* "-text\r\n", or the CRLF of a very long one */
        learn_nothing(worker, n > 3 ? slice_of(piece->bytes.p + 1, n - 3) : SLICE("an error"));
    } else if (l->unfit != NULL) {
        learn_nothing(worker, slice_str(l->unfit));
    } else {
        learn_rows(worker);
    }
    forget_reply(l);
}

static void on_lost(struct call *call, enum call_loss loss)
{
    struct worker *worker = container_of(call, struct worker, learner.call);
    struct learner *l = &worker->learner;
    (void)loss;
    forget_reply(l);
    l->state = LEARN_IDLE;
    l->link = 0;
    l->delay_ms = l->delay_ms == 0 ? DELAY_MIN_MS : l->delay_ms * 2;
    l->delay_ms = l->delay_ms > DELAY_MAX_MS ? DELAY_MAX_MS : l->delay_ms;
    l->next_ms = worker->now + l->delay_ms;
}

static const struct call_ops learner_ops = {.reply = on_reply, .lost = on_lost};

void learn_tick(struct worker *worker)
{
    struct learner *l = &worker->learner;
    uint16_t node = topology_any(worker->server->topology, 0);
    struct lane_id id = {.node = node, .db = worker->server->conf->upstream_db};
    struct conn *lane = node == TOPOLOGY_NONE ? NULL : upstream_find_lane(worker->upstream, id);
    if (l->state != LEARN_IDLE || worker->now < l->next_ms || lane == NULL ||
        conn_state(lane) != CONN_UP) {
        return;
    }
    if (l->link == conn_handshake_sent(lane) && l->epoch == learnt_epoch()) {
        return;
    }
    int64_t link = conn_handshake_sent(lane);
    id.kind = LANE_BULK;
    struct conn *bulk = upstream_lane(worker->upstream, id);
    l->node = node;
    l->call.ops = &learner_ops;
    l->call.replies = 1;
    l->unfit = NULL;
    l->epoch = learnt_epoch();
    if (conn_submit(bulk, &l->call, SLICE("*1\r\n$7\r\n" LEARN_WORD "\r\n"), NULL) == CONN_OK) {
        l->state = LEARN_ASKING;
        l->link = link;
    }
}

bool learn_is_due(const struct cmd *cmd, bool flushes)
{
    return (cmd->class == CMD_FLUSH && strncmp(cmd->name, "module|", 7) == 0) ||
           (flushes && strcmp(cmd->name, "exec") == 0);
}

void learn_again(void)
{
    learnt_forget();
}
