/* SPDX-License-Identifier: Apache-2.0
 *
 * pause.c: see pause.h.
 */
#include "pause.h"

#include "pinned.h"

/* Nobody pauses for longer: and the sum of this and the clock is a number. */
#define PAUSE_MAX_MS INT64_C(1000000000)

static void extend(_Atomic int64_t *until, int64_t to)
{
    if (atomic_load_explicit(until, memory_order_relaxed) < to) {
        atomic_store_explicit(until, to, memory_order_relaxed);
    }
}

void pause_cancel(struct server *server)
{
    atomic_store_explicit(&server->paused_until, 0, memory_order_relaxed);
    atomic_store_explicit(&server->reads_paused_until, 0, memory_order_relaxed);
}

static void begin(struct client *c, struct request *request, struct pause pause)
{
    if (pause.ms == 0) {
        return;
    }
    struct server *server = c->worker->server;
    int64_t until = c->worker->now + pause.ms;
    extend(&server->paused_until, until);
    if (pause.all) {
        extend(&server->reads_paused_until, until);
    }
    request->pauses = true;
}

/* ms == 0: what Redis will refuse. */
static struct pause pause_of(const struct request_view *view)
{
    struct pause pause = {0};
    int64_t ms;
    bool all = view->argc == 3 || (view->argc == 4 && slice_eq_nocase(view->argv[3], SLICE("ALL")));
    bool writes = view->argc == 4 && slice_eq_nocase(view->argv[3], SLICE("WRITE"));
    if ((all || writes) && slice_to_int64(view->argv[2], &ms) && ms > 0) {
        pause.ms = ms < PAUSE_MAX_MS ? ms : PAUSE_MAX_MS;
        pause.all = all;
    }
    return pause;
}

void pause_note(struct client *c, struct request *request, const struct cmd *cmd,
                const struct request_view *view)
{
    struct pause *queued = pinned_pause(c);
    if (strcmp(cmd->name, "exec") == 0) {
        begin(c, request, *queued);
        queued->ms = 0;
    } else if (strcmp(cmd->name, "multi") == 0) {
        queued->ms = 0;
    } else if (strcmp(cmd->name, "client|unpause") == 0 && !c->expects_multi) {
        pause_cancel(c->worker->server);
    } else if (strcmp(cmd->name, "client|pause") == 0) {
        struct pause pause = pause_of(view);
        if (!c->expects_multi) {
            begin(c, request, pause);
        } else if (pause.ms > 0) {
            *queued = pause;
        }
    }
}

/* Reads that are replicated, sometimes or always. */
static bool may_be_replicated(const struct cmd *cmd)
{
    return strcmp(cmd->name, "pfcount") == 0 || strcmp(cmd->name, "publish") == 0 ||
           strcmp(cmd->name, "spublish") == 0;
}

bool pause_concerns(const struct client *c, const struct cmd *cmd, enum cmd_class class)
{
    const struct server *server = c->worker->server;
    bool all =
        c->worker->now < atomic_load_explicit(&server->reads_paused_until, memory_order_relaxed);
    bool held = class == CMD_WRITE || class == CMD_UNKNOWN || class == CMD_FLUSH ||
                may_be_replicated(cmd) || (all && class != CMD_LOCAL);
    return held && !server->is_cluster && !c->is_part &&
           (c->pinned != NULL || atomic_load_explicit(&server->pinned, memory_order_relaxed) <
                                     server->conf->upstream_max_pinned / 2);
}
