/* SPDX-License-Identifier: Apache-2.0
 *
 * session.c: what a pinned client sends, and what it means for L1.
 *
 *   MULTI, SET, ... ─► queued: no effect yet (should the server execute it after all: a fence)
 *   EXEC            ─► unknown effect: a fence, or L1 emptied if a flush was queued
 *   WATCH, then GET ─► read beside L1 (R8): an old value read after WATCH would let EXEC succeed on it
 *   BLPOP ...       ─► its keys are dropped when it answers; no write-begin, it may wait for ever (Kb)
 *
 * Two views of the session are kept. `expects_multi` and `expects_watch` follow the requests as they are
 * dispatched, since a whole transaction may be pipelined; pinned.c follows the replies, and decides
 * when the session is over. Roads are changed only when nothing is unanswered (D14).
 *
 * What cannot be queued here (CLIENT, HELLO, SUBSCRIBE ... inside MULTI) is answered with an error, and
 * the server is sent a request it refuses in its place, so that EXEC aborts as it should. Behind an EXEC
 * with a SELECT in it nobody knows the connection's db: it stays the client's until the next SELECT.
 */
#include "session.h"

#include "forward.h"
#include "pinned.h"
#include "stream.h"

#include "../conf/mutant.h"

/* With so much unsent and something unanswered, the client's input waits. */
#define PINNED_FULL ((size_t)4 * 1024 * 1024)

/* Refused by every server, with or without MULTI: one argument short. */
static const struct slice poison = {"*1\r\n$3\r\nGET\r\n", 13};

static bool is_named(const struct cmd *cmd, const char *name)
{
    return strcmp(cmd->name, name) == 0;
}

static bool ends_multi(const struct cmd *cmd, const struct request_view *view)
{
    return is_named(cmd, "exec") || (is_named(cmd, "discard") && view->argc == 1);
}

/* Commands behind which more comes than one reply. */
static bool is_streaming(const struct cmd *cmd)
{
    return stream_is_subscription(cmd) || is_named(cmd, "monitor");
}

static bool is_wait(const struct cmd *cmd)
{
    return is_named(cmd, "wait") || is_named(cmd, "waitaof");
}

/* What is answered here whatever the state of the session. */
static bool is_ours_always(const struct cmd *cmd, const struct request_view *view)
{
    return cmd->local == LOCAL_QUIT || cmd->local == LOCAL_HTTP ||
           (cmd->local == LOCAL_RESET && view->argc == 1);
}

/* Commands that leave nothing behind once MULTI and WATCH are over. */
static bool is_harmless(const struct cmd *cmd)
{
    return cmd->blocking || is_wait(cmd) || is_named(cmd, "multi") || is_named(cmd, "exec") ||
           is_named(cmd, "discard") || is_named(cmd, "watch") || is_named(cmd, "unwatch");
}

bool session_takes(const struct client *c, const struct cmd *cmd, enum cmd_class class,
                   const struct request_view *view)
{
    if (c->expects_multi || c->multi_refused) {
        return !is_ours_always(cmd, view);
    }
    if (pinned_is_subscriber(c)) {
        return !is_ours_always(cmd, view); /* the server refuses most of them, in its words */
    }
    if (class == CMD_PINNED) {
        return true;
    }
    if (MUTANT(R8) && class == CMD_GET) {
        return false;
    }
    return c->pinned != NULL && class != CMD_LOCAL && class != CMD_REFUSED;
}

/* Inside MULTI: may the server queue it? */
static bool can_queue(const struct cmd *cmd, enum cmd_class class)
{
    if (class == CMD_LOCAL) {
        return cmd->local == LOCAL_PING || cmd->local == LOCAL_ECHO || cmd->local == LOCAL_INFO ||
               cmd->local == LOCAL_SELECT ||
               cmd->local == LOCAL_RESET; /* RESET: its arity is wrong */
    }
    return class != CMD_REFUSED && !is_streaming(cmd) && !is_named(cmd, "script|debug");
}

static void foresee(struct client *c, const struct cmd *cmd, enum cmd_class class,
                    const struct request_view *view)
{
    if (pinned_is_subscriber(c) || (!cmd_arity_ok(cmd, view->argc) && !is_named(cmd, "exec"))) {
        return; /* the server takes none of these; but any EXEC ends a MULTI */
    }
    if (is_named(cmd, "multi")) {
        c->expects_multi = true;
        c->nqueued = 0;
    } else if (ends_multi(cmd, view)) {
        c->expects_multi = c->expects_watch = c->multi_flushes = c->multi_selects = false;
    } else if (is_named(cmd, "watch")) {
        c->expects_watch = true;
    } else if (is_named(cmd, "unwatch") && !c->expects_multi && view->argc == 1) {
        c->expects_watch = false;
    } else if (c->expects_multi) {
        c->multi_flushes = c->multi_flushes || class == CMD_FLUSH || cmd->effect == CMD_FLUSH;
        c->multi_selects = c->multi_selects || cmd->local == LOCAL_SELECT;
        c->nqueued++;
    }
}

/* The class to act on when the reply comes. */
static enum cmd_class class_of(const struct client *c, const struct cmd *cmd, enum cmd_class class)
{
    if (is_named(cmd, "exec")) {
        return c->multi_flushes ? CMD_FLUSH : CMD_UNKNOWN;
    }
    if (class == CMD_GET || class == CMD_MGET) {
        return CMD_READ;
    }
    return class == CMD_PINNED ? cmd->effect : class;
}

static bool prepare(struct client *c, struct request *request, const struct cmd *cmd,
                    enum cmd_class class, const struct request_view *view)
{
    request->kind = REQUEST_FORWARD;
    request->road = ROAD_PINNED;
    request->cmd = cmd;
    request->unbegun = class == CMD_PINNED;
    request->blocks = class == CMD_PINNED && cmd->blocking && !c->expects_multi;
    if (c->expects_multi && !ends_multi(cmd, view)) {
        request->class = CMD_NONE;
        request->queued = true;
        request->queued_flush = class == CMD_FLUSH || cmd->effect == CMD_FLUSH;
        return true;
    }
    request->class = class_of(c, cmd, class);
    request->selected = is_named(cmd, "exec") && c->multi_selects;
    request->relearns = learn_is_due(cmd, request->class == CMD_FLUSH);
    request->any_db = c->any_db;
    request->is_get = class == CMD_GET && cmd_arity_ok(cmd, view->argc) && !c->any_db;
    request->debugs = is_named(cmd, "script|debug") && view->nargv > 2 &&
                      !slice_eq_nocase(view->argv[2], SLICE("no"));
    request->streams = request->holds = is_streaming(cmd);
    return dispatch_collect_keys(request, cmd, view);
}

/* What ends a script, or a pause, must get through when SELECT is refused or waits. */
static bool needs_no_db(const struct cmd *cmd)
{
    return is_named(cmd, "script|kill") || is_named(cmd, "function|kill") ||
           is_named(cmd, "shutdown") || is_named(cmd, "client|unpause");
}

/* Has the client a connection for it? False: *result says what to do instead. */
static bool get_ready(struct client *c, const struct cmd *cmd, enum cmd_class class,
                      enum dispatch *result)
{
    *result = DISPATCH_STALL;
    if (c->pending > 0 && !c->expects_multi && (is_streaming(cmd) || is_wait(cmd))) {
        return false;
    }
    if (c->pinned != NULL) {
        /* as far as the requests tell the session is over: wait for the replies to say so too, so
         * that the client is back on its usual roads */
        bool over = !c->expects_multi && !c->expects_watch && class != CMD_PINNED &&
                    !pinned_is_streaming(c) && !c->any_db;
        bool full = conn_queued_bytes(pinned_conn(c)) > PINNED_FULL;
        return c->pending == 0 || (!over && !full && pinned_is_at_home(c));
    }
    if (c->pending > 0) {
        return false;
    }
    if (!pinned_take(c, 0, needs_no_db(cmd) ? 0 : c->db)) {
        client_reply_error(c, "ERR too many clients need a connection of their own "
                              "(upstream.max_pinned)");
        c->multi_refused = is_named(cmd, "multi");
        *result = DISPATCH_DONE;
        return false;
    }
    return true;
}

/* To who monitors already, Redis gives no answer at all: nothing must wait for one. */
static bool is_ignored_monitor(const struct client *c, const struct request_view *view)
{
    return view->argc == 1 && !c->expects_multi && !pinned_is_subscriber(c) &&
           pinned_counts(c).monitoring;
}

/* MULTI could not be had, but what it was to hold is on its way: none of it may be executed. */
static void answer_after_refusal(struct client *c, const struct cmd *cmd)
{
    if (is_named(cmd, "exec")) {
        client_reply_error(c, "EXECABORT Transaction discarded because of previous errors.");
        c->multi_refused = false;
    } else {
        client_reply_error(c, "ERR MULTI was refused: '%s' is not executed", cmd->name);
        c->multi_refused = !is_named(cmd, "discard");
    }
}

/* WAIT asks about what was written on its own connection. The PING before it makes that connection's
 * position the server's, which covers all this client has been told was written. */
static void send_wait(struct request *request, struct slice raw)
{
    static const struct slice ping = {"*1\r\n$4\r\nPING\r\n", 14};
    struct blob *both = blob_try(ping.n + raw.n);
    if (both == NULL) {
        client_close(request->client);
        return;
    }
    memcpy(both->p, ping.p, ping.n);
    memcpy(both->p + ping.n, raw.p, raw.n);
    request->preface = 1;
    forward_request(request, slice_of(both->p, ping.n + raw.n), both);
    blob_unref(both);
}

enum dispatch session_request(struct client *c, const struct cmd *cmd, enum cmd_class class,
                              const struct request_view *view, struct blob *owner)
{
    enum dispatch result;
    bool poisons = c->expects_multi && !can_queue(cmd, class);
    if (c->multi_refused && !is_named(cmd, "multi")) {
        answer_after_refusal(c, cmd);
        return DISPATCH_DONE;
    }
    if (c->pinned == NULL &&
        (is_named(cmd, "exec") || is_named(cmd, "discard") || is_named(cmd, "unwatch"))) {
        return dispatch_forward(c, cmd, CMD_NONE, view, owner); /* an error, or nothing to do */
    }
    c->multi_refused = false;
    if (!get_ready(c, cmd, class, &result)) {
        return result;
    }
    if (is_named(cmd, "monitor") && is_ignored_monitor(c, view)) {
        return DISPATCH_DONE;
    }
    if (class == CMD_PINNED && !is_harmless(cmd)) {
        pinned_taint(c);
    }
    struct request *request = request_create(c->worker);
    if (request == NULL || !prepare(c, request, cmd, class, view)) {
        request_destroy(request);
        client_close(c);
        return DISPATCH_DONE;
    }
    request->refused = poisons;
    if (!poisons) {
        foresee(c, cmd, class, view);
    }
    if (request->wide && request_writes(request) && !request->unbegun) {
        request->class = CMD_UNKNOWN; /* fenced: cheaper here than holding everything back */
        request->unbegun = true;
    }
    client_enqueue(c, request);
    if (request->streams && !request->queued && !poisons) {
        pinned_stream(c, request, view->argc);
    }
    if (is_wait(cmd) && !request->queued) {
        send_wait(request, view->raw);
    } else {
        forward_request(request, poisons ? poison : view->raw, poisons ? NULL : owner);
    }
    return DISPATCH_DONE;
}
