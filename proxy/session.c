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
 * What concerns the client's own connection (CLIENT, HELLO, SUBSCRIBE ... inside MULTI) is standin.c's. What
 * cannot be queued at all is answered with an error, and the server is sent a request it refuses in its
 * place, or behind it, so that EXEC aborts as it should. Behind an EXEC
 * with an AUTH in it nobody knows who the client is: the connection stays the client's until the next AUTH.
 */
#include "session.h"

#include "forward.h"
#include "login.h"
#include "pause.h"
#include "pinned.h"
#include "redirect.h"
#include "replication.h"
#include "standin.h"
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
    if (c->pinned != NULL && (cmd->local == LOCAL_PING || cmd->local == LOCAL_ECHO)) {
        return true; /* what the server says of its own comes before it or behind it */
    }
    return (c->pinned != NULL || login_is_own(c) || pause_holds(c, cmd, class)) &&
           class != CMD_LOCAL;
}

/* Is somebody else logged in behind it? */
static bool logs_in(const struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    return login_is_at_redis(c->worker->server) &&
           (cmd->local == LOCAL_AUTH || (cmd->local == LOCAL_HELLO && view->argc > 4));
}

void session_expect_end(struct client *c)
{
    c->expects_multi = c->expects_watch = c->multi_flushes = false;
    c->multi_logs_in = c->multi_streams = c->multi_asks = c->multi_stands_in = false;
    c->multi_grows = false;
}

/* BITFIELD makes its string as long as it may need, and then Redis announces nothing if OVERFLOW FAIL lets none of it
 * be written (redis/redis#15599). */
static bool may_grow_untold(const struct cmd *cmd, const struct request_view *view)
{
    if (!is_named(cmd, "bitfield")) {
        return false;
    }
    for (int i = 2; i < view->nargv; i++) {
        if (slice_eq_nocase(view->argv[i], SLICE("fail"))) {
            return true;
        }
    }
    return view->argc > view->nargv;
}

/* Is L1 to be emptied once it has been executed? PFDEBUG may rewrite its key, of which Redis announces nothing. */
static bool is_flush(const struct cmd *cmd, enum cmd_class class)
{
    return class == CMD_FLUSH || cmd->effect == CMD_FLUSH || is_named(cmd, "pfdebug");
}

/* EXEC is to drop the key: no fence shows that it changed. Of several keys nobody keeps a list. */
static void expect_grown(struct client *c, struct slice key)
{
    uint64_t hash = l1_hash(c->worker->server->l1, key);
    uint64_t *grown = pinned_grown(c);
    c->multi_flushes = c->multi_flushes || (c->multi_grows && *grown != hash);
    c->multi_grows = true;
    *grown = hash;
}

static void foresee(struct client *c, const struct cmd *cmd, enum cmd_class class,
                    const struct request_view *view)
{
    if (pinned_is_subscriber(c) || (!cmd_arity_ok(cmd, view->argc) && !is_named(cmd, "exec"))) {
        return; /* the server takes none of these; but any EXEC ends a MULTI */
    }
    if (is_named(cmd, "multi")) {
        c->expects_multi = c->had_multi = true;
        c->nqueued = 0;
        session_forget_log(c);
    } else if (ends_multi(cmd, view)) {
        session_expect_end(c);
    } else if (is_named(cmd, "watch")) {
        c->expects_watch = c->had_multi = true;
    } else if (is_named(cmd, "unwatch") && !c->expects_multi && view->argc == 1) {
        c->expects_watch = false;
    } else if (c->expects_multi) {
        c->multi_flushes = c->multi_flushes || is_flush(cmd, class);
        if (may_grow_untold(cmd, view)) {
            expect_grown(c, view->argv[1]);
        }
        c->multi_logs_in = c->multi_logs_in || logs_in(c, cmd, view);
        c->multi_streams = c->multi_streams || stream_is_subscription(cmd);
        c->nqueued++;
    }
}

/* The class to act on when the reply comes. */
static enum cmd_class class_of(const struct client *c, const struct cmd *cmd, enum cmd_class class)
{
    if (is_named(cmd, "exec")) {
        /* with a subscription in it no fence holds its reply, which messages would overtake */
        return c->multi_flushes || c->multi_streams ? CMD_FLUSH : CMD_UNKNOWN;
    }
    if (class == CMD_GET || class == CMD_MGET) {
        return CMD_READ;
    }
    return class == CMD_PINNED ? cmd->effect : class;
}

static void prepare_exec(struct client *c, struct request *request)
{
    request->logged_in = c->multi_logs_in;
    request->executes = c->multi_stands_in;
    if (c->multi_grows) { /* dropped when it answers, as a blocking write's */
        request_add_key(request, *pinned_grown(c));
    }
}

static bool prepare(struct client *c, struct request *request, const struct cmd *cmd,
                    enum cmd_class class, const struct request_view *view)
{
    request->kind = REQUEST_FORWARD;
    request->road = ROAD_PINNED;
    request->cmd = cmd;
    request->unbegun = class == CMD_PINNED;
    request->blocks = class == CMD_PINNED && cmd->blocking && !c->expects_multi;
    pause_note(c, request, cmd, view);
    if (c->expects_multi && !ends_multi(cmd, view)) {
        request->class = CMD_NONE;
        request->queued = true;
        request->queued_flush = is_flush(cmd, class) || may_grow_untold(cmd, view);
        return true;
    }
    request->class = class_of(c, cmd, class);
    if (is_named(cmd, "exec")) {
        prepare_exec(c, request);
    }
    request->relearns = learn_is_due(cmd, request->class == CMD_FLUSH);
    request->any_db = c->any_db;
    request->completes_info = cmd->local == LOCAL_INFO && local_info_wants_section(view);
    request->is_get = class == CMD_GET && cmd_arity_ok(cmd, view->argc) && !c->any_db;
    request->debugs = is_named(cmd, "script|debug") && view->nargv > 2 &&
                      !slice_eq_nocase(view->argv[2], SLICE("no"));
    request->streams = is_streaming(cmd);
    request->call.endless = replication_begins(cmd) && !pinned_is_subscriber(c);
    request->blocks = request->blocks || request->call.endless;
    request->holds = request->streams || request->executes;
    request->everywhere = is_named(cmd, "sunsubscribe") && view->argc == 1;
    return dispatch_collect_keys(request, cmd, view);
}

/* What ends a script, or a pause, must get through when SELECT is refused or waits. */
static bool needs_no_db(const struct cmd *cmd)
{
    return is_named(cmd, "script|kill") || is_named(cmd, "function|kill") ||
           is_named(cmd, "shutdown") || is_named(cmd, "client|unpause");
}

/* Shard channels of a slot that is not on the node where the client has others already? */
static bool is_shard_elsewhere(const struct client *c, const struct cmd *cmd)
{
    return stream_is_sharded(cmd) && pinned_is_streaming(c) && !c->expects_multi &&
           c->place.slot != SLOT_NONE && c->place.route == ROUTE_OK;
}

/* Is it a single command of a user of Redis's own, on the connection to the node of its key? */
static bool is_alone(const struct client *c, enum cmd_class class)
{
    return c->worker->server->is_cluster && pinned_is_own(c) && class != CMD_PINNED &&
           !c->expects_multi && !pinned_is_subscriber(c);
}

/* Is a command of it under way for several nodes? */
static bool has_other_roads(const struct client *c)
{
    return c->pending > c->on_road[__builtin_ctz(ROAD_PINNED)];
}

static uint16_t node_for(const struct client *c)
{
    return c->place.slot != SLOT_NONE && c->place.route == ROUTE_OK ? c->place.node
                                                                    : pinned_node(c);
}

/* In a cluster, a user of Redis's own has a connection to each node with keys it asked for, one of which has its
 * session, if there is any. Nothing is sent on two of them at once. */
static bool reach(struct client *c, enum cmd_class class, enum dispatch *result)
{
    uint16_t node = node_for(c);
    bool alone = is_alone(c, class);
    bool moves = !alone && node != pinned_node(c) && !c->anchored && !c->expects_watch &&
                 !pinned_is_streaming(c);
    if (c->pending > 0 && (moves || c->scattered || c->node != node || has_other_roads(c))) {
        return false;
    }
    if ((alone || moves) && !pinned_reach(c, node)) {
        client_reply_error(c, PINNED_TOO_MANY);
        *result = DISPATCH_DONE;
        return false;
    }
    if (moves) {
        pinned_move(c, node);
        c->multi_held = c->expects_multi; /* to be begun there */
    }
    return true;
}

/* In a cluster what begins a session, or goes on with one, waits for what its client has under way elsewhere, which it
 * would overtake; and what begins the next one waits for the last to be over by the replies, too, so that it may go to
 * another node and finds nothing of the last in c->log. */
static bool is_settled_first(const struct client *c, enum cmd_class class)
{
    return has_other_roads(c) || (class == CMD_PINNED && !c->expects_multi && !c->expects_watch);
}

/* Has the client a connection for it? False: *result says what to do instead. */
static bool get_ready(struct client *c, const struct cmd *cmd, enum cmd_class class,
                      enum dispatch *result)
{
    *result = DISPATCH_STALL;
    if (c->pending > 0 && !c->expects_multi &&
        (is_streaming(cmd) || is_wait(cmd) || replication_begins(cmd))) {
        return false;
    }
    if (is_shard_elsewhere(c, cmd) && !pinned_reach(c, c->place.node)) {
        client_reply_error(c, PINNED_TOO_MANY);
        *result = DISPATCH_DONE;
        return false;
    }
    if (c->worker->server->is_cluster && c->pending > 0 && is_settled_first(c, class)) {
        return false;
    }
    if (c->pinned != NULL) {
        /* as far as the requests tell the session is over: wait for the replies to say so too, so
         * that the client is back on its usual roads */
        bool over = !c->expects_multi && !c->expects_watch && class != CMD_PINNED &&
                    !pinned_is_streaming(c) && !pinned_is_own(c) && !c->any_db;
        bool full = conn_queued_bytes(pinned_conn(c)) > PINNED_FULL;
        if (c->worker->server->is_cluster && pinned_is_own(c)) {
            return (c->pending == 0 || !full) && reach(c, class, result);
        }
        return c->pending == 0 || (!over && !full && pinned_is_at_home(c));
    }
    if (c->pending > 0) {
        return false;
    }
    if (!pinned_take(c, c->place.node, needs_no_db(cmd) ? 0 : c->db)) {
        client_reply_error(c, PINNED_TOO_MANY);
        c->multi_refused = is_named(cmd, "multi");
        *result = DISPATCH_DONE;
        return false;
    }
    if (login_is_own(c)) {
        pinned_own(c, true); /* as who it is a part of */
    }
    return true;
}

/* To who monitors already, Redis gives no answer at all: nothing must wait for one. */
static bool is_ignored_monitor(const struct client *c, const struct request_view *view)
{
    return view->argc == 1 && !c->expects_multi && !pinned_is_subscriber(c) &&
           pinned_counts(c).monitoring;
}

/* MULTI could not be had, but what it was to hold is on its way: none of it may be executed. Who is silent for REFUSAL_MS
 * has read the refusal, and goes on without EXEC: for him the connection is over, as that to Redis would be. */
#define REFUSAL_MS 1000

static void answer_after_refusal(struct client *c, const struct cmd *cmd)
{
    bool goes_on = c->out.bytes == 0 && c->worker->now - c->drained > REFUSAL_MS &&
                   !is_named(cmd, "exec") && !is_named(cmd, "discard");
    if (is_named(cmd, "exec")) {
        client_reply_error(c, "EXECABORT Transaction discarded because of previous errors.");
        c->multi_refused = false;
    } else {
        client_reply_error(c, "ERR MULTI was refused: '%s' is not executed", cmd->name);
        c->multi_refused = !is_named(cmd, "discard");
    }
    if (goes_on) {
        client_end(c);
    }
}

/* WAIT asks about what was written on its own connection. What goes before it makes that connection's
 * position the server's, which covers all this client has been told was written. Since Redis 7.2 only what
 * is replicated does: FUNCTION RESTORE of no function (what FUNCTION DUMP says where there is none; 10 is
 * the version of RDB of Redis 7.0) changes nothing, also in a cluster. PING does at a server that
 * is older, and knows no functions perhaps. */
static const char catch_up[] = "*3\r\n$8\r\nFUNCTION\r\n$7\r\nRESTORE\r\n$10\r\n"
                               "\x0a\x00\x5d\x9b\x5c\x40\x0f\x7f\xa2\xda\r\n"
                               "*1\r\n$4\r\nPING\r\n";

/* `ahead` and `log` go first; `replies` to them are swallowed. */
static void send_behind(struct request *request, struct slice ahead, struct slice log,
                        uint8_t replies, struct slice raw)
{
    struct blob *all = blob_try(ahead.n + log.n + raw.n);
    if (all == NULL) {
        client_close(request->client);
        return;
    }
    memcpy(all->p, ahead.p, ahead.n);
    memcpy(all->p + ahead.n, log.p, log.n);
    memcpy(all->p + ahead.n + log.n, raw.p, raw.n);
    request->preface = replies;
    forward_request(request, slice_of(all->p, all->n), all);
    blob_unref(all);
}

/* ---- In a cluster ---------------------------------------------------------------------------- */

/* MULTI names no key, and where the transaction is to be depends on the first that does. It is answered
 * here, and sent ahead of what comes next. If that names no key either, it is queued at any node and
 * kept in c->log: a key of another node then takes all of it there. The command whose key decides is the
 * anchor: what follows waits for its reply, so that if it is MOVED, nothing else is under way. */

#define LOG_MAX      ((size_t)64 * 1024)
#define LOG_COMMANDS 100

static const struct slice multi = {"*1\r\n$5\r\nMULTI\r\n", 15};

void session_forget_log(struct client *c)
{
    blob_unref(c->log);
    c->log = NULL;
    c->nlog = 0;
}

void session_reset(struct client *c)
{
    c->multi_refused = c->multi_held = c->expects_multi = false;
    session_forget_log(c);
}

/* With too much in it the transaction stays where it is. */
static void keep_in_log(struct client *c, struct slice raw)
{
    size_t old = c->log == NULL ? 0 : c->log->n;
    struct blob *log =
        c->nlog < LOG_COMMANDS && raw.n < LOG_MAX - old ? blob_try(old + raw.n) : NULL;
    if (log == NULL) {
        c->anchored = true;
        session_forget_log(c);
        return;
    }
    memcpy(log->p, old == 0 ? "" : c->log->p, old);
    memcpy(log->p + old, raw.p, raw.n);
    blob_unref(c->log);
    c->log = log;
    c->nlog++;
}

static bool is_elsewhere(const struct client *c)
{
    return c->place.slot != SLOT_NONE &&
           (c->place.route != ROUTE_OK || (c->pinned != NULL && c->place.node != pinned_node(c)));
}

/* MULTI, and what ends it before anything was queued. True: answered. */
static bool answer_held(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    struct chain *out;
    bool begins = is_named(cmd, "multi") && view->argc == 1 && !c->multi_held;
    bool ends = c->multi_held && ends_multi(cmd, view) && view->argc == 1;
    if ((!begins && !ends) || (out = client_reply_begin(c)) == NULL) {
        return begins || ends;
    }
    c->expects_multi = c->multi_held = begins;
    c->had_multi = c->had_multi || begins;
    c->multi_refused = false;
    c->nqueued = 0;
    client_reply_finish(
        c, chain_append(out, is_named(cmd, "exec") ? SLICE("*0\r\n") : SLICE("+OK\r\n")));
    return true;
}

/* The client has its connection, and the request may be what decides where that is. False: it has to
 * wait. *crosses: it is another node's, and too late. */
static bool anchor(struct client *c, struct request *request, bool *crosses)
{
    bool fits =
        c->place.route == ROUTE_OK && !c->anchored && !c->expects_watch && !pinned_is_streaming(c);
    *crosses = false;
    if (is_elsewhere(c)) {
        if (fits && c->pending > 0) {
            return false;
        }
        *crosses = !fits;
        if (fits) {
            pinned_move(c, c->place.node);
            c->multi_held = c->expects_multi; /* to be begun there */
        }
    }
    request->anchors = fits && c->place.slot != SLOT_NONE;
    return true;
}

/* Is the client there as the user it is? False: the request is seen to. */
static bool enters_again(struct client *c, struct request *request)
{
    if (!pinned_reach(c, request->node)) {
        forward_refuse(request, PINNED_TOO_MANY);
        return false;
    }
    if (!pinned_has_entered(c, request->node)) {
        login_enter(c, request);
        return false;
    }
    return true;
}

void session_send_again(struct client *c, struct request *request)
{
    struct slice log = c->log == NULL ? SLICE("") : slice_of(c->log->p, c->log->n);
    struct request_view view;
    if (pinned_is_own(c) && !enters_again(c, request)) {
        return;
    }
    if (!request->alone) {
        pinned_move(c, request->node);
    }
    c->multi_held = c->multi_held && !request->queued;
    if (request->streams && request_reparse(request, &view)) {
        pinned_stream(c, request, view.argc);
    }
    if (request->queued) {
        pinned_expect_multi(c);
        send_behind(request, multi, log, (uint8_t)(c->nlog + 1), request->raw);
    } else {
        send_behind(request, request->asking ? REDIRECT_ASKING : SLICE(""), SLICE(""),
                    request->asking, request->raw);
    }
}

/* It is the first there of a user of Redis's own, and what follows waits until it is answered. */
static void enter_first(struct client *c, struct request *request, const struct request_view *view)
{
    if (request->raw.n == 0 && !request_keep_raw(request, view->raw, NULL)) {
        request_destroy(request);
        client_close(c);
        return;
    }
    request->holds = !request->blocks;
    client_enqueue(c, request);
    login_enter(c, request);
}

/* What goes ahead of it in a transaction that was answered here. */
static void send_held(struct client *c, struct request *request, struct slice raw)
{
    struct slice log = c->log == NULL ? SLICE("") : slice_of(c->log->p, c->log->n);
    c->multi_held = false;
    pinned_expect_multi(c);
    send_behind(request, multi, log, (uint8_t)(c->nlog + 1), raw);
}

bool session_goes_on(struct client *c, struct request *request)
{
    static const struct slice all = {"*1\r\n$12\r\nSUNSUBSCRIBE\r\n", 23};
    if (!request->everywhere || pinned_counts(c).shards == 0) {
        return false;
    }
    request->node = pinned_sharded_node(c);
    pinned_stream(c, request, 1);
    forward_request(request, all, NULL);
    return true;
}

/* Before it is enqueued. False: memory is out, or it has to wait (*result). */
static bool settle_place(struct client *c, struct request *request, enum cmd_class class,
                         const struct request_view *view, bool *poisons)
{
    bool crosses = false;
    if (stream_is_sharded(request->cmd) && pinned_is_streaming(c) &&
        (c->place.slot == SLOT_NONE || c->place.route == ROUTE_OK)) {
        c->place.node = c->place.slot == SLOT_NONE ? pinned_sharded_node(c) : c->place.node;
        return true; /* get_ready has seen to the connection */
    }
    if (is_alone(c, class)) {
        c->place.node = node_for(c);
        request->alone = true;
        request->anchors = request_keep_raw(request, view->raw, NULL);
        return true;
    }
    if (!anchor(c, request, &crosses)) {
        return false;
    }
    if (crosses) {
        *poisons = request->crosses = true;
    }
    c->place.node = pinned_node(c);
    c->anchored = c->anchored || request->anchors;
    if (request->anchors) {
        request->holds = !request->blocks;
        request->anchors = request_keep_raw(request, view->raw, NULL);
    }
    return true;
}

/* Inside MULTI: its bytes are needed when EXEC is answered. *other: what is sent in its place, if anything.
 * False: memory is out. */
static bool keep_standin(struct client *c, struct request *request, enum standin standin,
                         const struct request_view *view, struct blob **other)
{
    if (standin != STANDIN_FOLLOWS && standin != STANDIN_ANSWERS) {
        return true;
    }
    request->stands_in = c->multi_stands_in = true;
    c->standin_bytes += (uint32_t)view->raw.n;
    if (standin == STANDIN_ANSWERS) {
        c->multi_asks = c->multi_asks || standin_asks(request->cmd);
        *other = standin_command(request->cmd, view);
    }
    return (*other != NULL || standin == STANDIN_FOLLOWS) &&
           request_keep_raw(request, view->raw, NULL);
}

/* ---- All of them ----------------------------------------------------------------------------- */

/* `raw` is the request, or what stands for it. */
static void put_on_road(struct client *c, struct request *request, const struct request_view *view,
                        struct slice raw, struct blob *owner)
{
    if (request->refused && stream_is_subscription(request->cmd) && !c->multi_held) {
        request->tried = true; /* its channels may not be allowed */
        send_behind(request, view->raw, SLICE(""), 1, raw);
    } else if (is_wait(request->cmd) && !request->queued) {
        send_behind(request, slice_of(catch_up, sizeof(catch_up) - 1), SLICE(""), 2, raw);
    } else if (c->multi_held) {
        send_held(c, request, raw);
    } else {
        forward_request(request, raw, owner);
    }
}

enum dispatch session_request(struct client *c, const struct cmd *cmd, enum cmd_class class,
                              const struct request_view *view, struct blob *owner)
{
    enum dispatch result;
    enum standin standin = c->expects_multi ? standin_for(c, cmd, class, view) : STANDIN_NONE;
    bool poisons = standin == STANDIN_REFUSED;
    bool cluster = c->worker->server->is_cluster;
    if (c->multi_refused && !is_named(cmd, "multi")) {
        answer_after_refusal(c, cmd);
        return DISPATCH_DONE;
    }
    if (cluster && c->pinned == NULL && answer_held(c, cmd, view)) {
        return DISPATCH_DONE;
    }
    if (c->pinned == NULL && !c->expects_multi &&
        (is_named(cmd, "exec") || is_named(cmd, "discard") || is_named(cmd, "unwatch"))) {
        return dispatch_forward(c, cmd, CMD_NONE, view, owner); /* an error, or nothing to do */
    }
    c->multi_refused = false;
    if (!c->expects_multi && replication_answers(c, cmd, view)) {
        return DISPATCH_DONE;
    }
    if (!get_ready(c, cmd, class, &result)) {
        return result;
    }
    if (replication_declines(c, cmd)) {
        return DISPATCH_DONE;
    }
    if (is_named(cmd, "monitor") && is_ignored_monitor(c, view)) {
        return DISPATCH_DONE;
    }
    if ((class == CMD_PINNED && !is_harmless(cmd)) ||
        (standin == STANDIN_FOLLOWS && cmd->local != LOCAL_SELECT)) {
        pinned_taint(c);
    }
    struct request *request = request_create(c->worker);
    struct blob *other = NULL;
    if (request == NULL || !prepare(c, request, cmd, class, view)) {
        request_destroy(request);
        client_close(c);
        return DISPATCH_DONE;
    }
    if (cluster && !settle_place(c, request, class, view, &poisons)) {
        request_destroy(request);
        return DISPATCH_STALL;
    }
    if (!keep_standin(c, request, standin, view, &other)) {
        blob_unref(other);
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
    if (cluster && pinned_is_own(c) && !poisons && !pinned_has_entered(c, c->place.node)) {
        enter_first(c, request, view);
        blob_unref(other);
        return DISPATCH_DONE;
    }
    client_enqueue(c, request);
    if (request->streams && !request->queued && !poisons) {
        pinned_stream(c, request, view->argc);
    }
    struct slice raw = poisons ? poison : other != NULL ? slice_of(other->p, other->n) : view->raw;
    bool logs = cluster && request->queued && !c->anchored;
    put_on_road(c, request, view, raw, poisons ? NULL : other != NULL ? other : owner);
    if (logs && c->pinned != NULL) {
        keep_in_log(c, raw);
    }
    blob_unref(other);
    return DISPATCH_DONE;
}
