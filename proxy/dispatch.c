/* SPDX-License-Identifier: Apache-2.0
 *
 * dispatch.c: the order rule and the choice of road.
 *
 *   row and class ─► GET   ─► order free? ─► L1 ─┬─ hit ───► reply
 *                 │                              ├─ owner ─► parked, fetch_get
 *                 │                              ├─ joined ► parked
 *                 │                              └─ pass ──► lane, beside L1 (R7)
 *                 ├► MGET  ─► order free? ─► all hit? ─► reply, otherwise whole on F
 *                 ├► needs a connection of its own, or has one ─► session.c
 *                 ├► SELECT ─► nothing unanswered? ─► a lane in the new db
 *                 ├► local, refused ─► reply
 *                 └► the rest ─► road by size ─► order ─► lane
 *
 * Order: roads.h. A read that takes the road of an earlier request for its key is beside L1.
 */
#include "dispatch.h"

#include "echo.h"
#include "facade.h"
#include "fanout.h"
#include "fetch.h"
#include "fills.h"
#include "forward.h"
#include "local.h"
#include "login.h"
#include "pause.h"
#include "pinned.h"
#include "redirect.h"
#include "roads.h"
#include "session.h"
#include "stream.h"
#include "switch.h"
#include "../resp/scripts.h"
#include "../resp/write.h"

#include "../conf/mutant.h"

/* Requests above this go on the bulk lane, so that they do not hold up the others (D8). */
#define BULK_REQUEST ((size_t)64 * 1024)

static bool is_large(struct worker *worker, uint64_t hash)
{
    return large_keys_has(&worker->server->large, hash);
}

static bool can_fetch(const struct worker *worker, uint16_t node)
{
    const struct feed *feed = worker_feed(worker, node);
    return feed != NULL && feed_is_up(feed);
}

/* ---- Lanes ---------------------------------------------------------------------------------- */

/* Back-pressure: has the road more waiting than it should? The client's input then waits too. */
static bool has_no_room(struct client *c, enum road road)
{
    struct worker *worker = c->worker;
    if (!forward_is_full(worker, c->place.node, c->db, c->resp3, road)) {
        return false;
    }
    worker->waits_for_room = true;
    worker->full_node = c->place.node;
    worker->full_db = c->db;
    worker->full_resp3 = c->resp3;
    worker->full_road = road;
    return true;
}

static inline bool add_key(struct request *request, struct slice key)
{
    const struct server *server = request->worker->server;
    request_add_key(request, l1_hash(server->l1, key));
    return likely(!server->announces || request->class == CMD_READ) ||
           resp_bulk(&request->announced, key);
}

static __attribute__((noinline)) bool collect_many(struct request *request, const struct cmd *cmd,
                                                   const struct request_view *view)
{
    struct cmd_key_walk walk;
    struct slice key;
    if (!cmd_keys_init(&walk, cmd, view)) {
        if (request->class == CMD_WRITE) {
            request->class = CMD_UNKNOWN; /* Redis will refuse it; if not, we do not know better */
        }
        return true;
    }
    uint32_t n = 0;
    while (n <= L1_WRITE_KEYS && cmd_keys_next(&walk, &key)) {
        n++;
    }
    if (n > L1_WRITE_KEYS) {
        request->wide = true;
        return true;
    }
    if (!request_reserve_keys(request, n)) {
        return false;
    }
    if (n > 0 && cmd_keys_init(&walk, cmd, view)) {
        while (cmd_keys_next(&walk, &key)) {
            if (!add_key(request, key)) {
                return false;
            }
        }
    }
    return true;
}

/* Fills hashes, links and `wide` of a request from the keys the row finds. False: out of memory. */
bool dispatch_collect_keys(struct request *request, const struct cmd *cmd,
                           const struct request_view *view)
{
    if (likely(cmd->keys == KEYS_RANGE && cmd->first == 1 && cmd->last == 1 && view->nargv > 1)) {
        return add_key(request, view->argv[1]); /* the usual; the walk would say the same */
    }
    return cmd->keys == KEYS_NONE || collect_many(request, cmd, view);
}

/* More keys than a write-begin lists: everything is held back instead, and each key is dropped by
 * itself, now that nothing can be installed (l1.h). */
static __attribute__((noinline)) void begin_wide(struct request *request, const struct cmd *cmd,
                                                 const struct request_view *view)
{
    struct l1 *l1 = request->worker->server->l1;
    l1_write_begin_wide(l1);
    (void)(MUTANT(W1w) || request_each_key(l1, cmd, view, l1_invalidate));
}

/* Puts a prepared request into the queue and on its lane. */
static void send_on_lane(struct client *c, struct request *request, const struct cmd *cmd,
                         const struct request_view *view, struct blob *owner)
{
    const struct server *server = c->worker->server;
    bool again = request->readonly || server->is_cluster || MUTANT(W2);
    bool echoes = request->class == CMD_WRITE && echo_keeps(c, cmd, view);
    if ((again || echoes) && !request_keep_raw(request, view->raw, owner)) {
        request->readonly = false; /* it will not be sent again, that is all */
    }
    if (request->wide && request_writes(request) && server->caching) {
        begin_wide(request, cmd, view);
    }
    request->plain = !request->completes_info && !request->wide &&
                     (request->class == CMD_READ || request->class == CMD_WRITE);
    client_enqueue(c, request);
    forward_request(request, view->raw, owner);
}

bool dispatch_is_free(struct client *c, const struct request *request)
{
    enum new_request what = request_is_unordered(request) ? NEW_UNKNOWN : NEW_KEYED;
    return roads_of(c, request->hashes, request->nkeys, what, c->next_seq).roads == 0;
}

enum dispatch dispatch_forward(struct client *c, const struct cmd *cmd, enum cmd_class class,
                               const struct request_view *view, struct blob *owner)
{
    struct worker *worker = c->worker;
    struct request *request = request_spare(worker);
    if (request == NULL) {
        client_close(c);
        return DISPATCH_DONE;
    }
    request->kind = REQUEST_FORWARD;
    request->class = class;
    if (!dispatch_collect_keys(request, cmd, view)) {
        client_close(c);
        return DISPATCH_DONE;
    }
    bool refused = false;
    uint16_t primary = c->place.node;
    enum road road = road_to_replica(c, request, cmd, &refused);
    if (road == ROAD_NONE) {
        road = road_of(c, request, view->raw.n > BULK_REQUEST ? ROAD_BULK : ROAD_LANE);
    }
    request_take_spare(worker, request);
    if (refused) {
        request_destroy(request);
        client_reply_error(c, "UPSTREAM no replica has the key (upstream.read_from = replica)");
        return DISPATCH_DONE;
    }
    if (road == ROAD_NONE || has_no_room(c, road)) {
        request_destroy(request);
        c->place.node = primary;
        return DISPATCH_STALL;
    }
    request->road = road;
    request->cmd = cmd;
    request->readonly = cmd->readonly;
    request->relearns = class == CMD_FLUSH && learn_is_due(cmd, false);
    request->names_script = class == CMD_NONE && view->nargv == 3 &&
                            strcmp(cmd->name, "script|load") == 0 &&
                            script_cannot_write(view->argv[2]);
    request->completes_info = cmd->local == LOCAL_INFO && local_info_wants_section(view);
    send_on_lane(c, request, cmd, view, owner);
    c->place.node = primary; /* the next request finds its own place only in a cluster */
    return DISPATCH_DONE;
}

/* ---- L1 -------------------------------------------------------------------------------------- */

/* R6b: behind an earlier request for the key that is parked on a lease, or has one, only that lease will do. */
static bool may_join_earlier(const struct earlier *earlier)
{
    return earlier->roads == ROAD_FILL && earlier->last != NULL &&
           (earlier->last->kind == REQUEST_GET || earlier->last->kind == REQUEST_FILLS);
}

static struct l1_query query_for(const struct client *c, struct slice key, uint64_t hash,
                                 const struct earlier *earlier, struct request *request,
                                 struct chain *out)
{
    const struct feed *feed = worker_feed(c->worker, c->place.node);
    const struct request *last = earlier->last;
    bool behind = earlier->roads != 0 && !MUTANT(R6b);
    return (struct l1_query){
        .key = key,
        .hash = hash,
        .db = c->db,
        .slot = c->place.slot,
        .slot_generation = c->place.generation,
        .cover = feed == NULL ? L1_NO_COVER : feed_cover(feed, key),
        .fetcher = (uint16_t)c->worker->index,
        .reader = c->worker->reader,
        .out = out,
        .waiter = &request->waiter,
        .behind = behind,
        .with = behind && last->kind == REQUEST_GET ? &last->waiter : NULL,
        .with_lease = behind && last->kind == REQUEST_FILLS ? fills_lease(last, hash) : NULL,
    };
}

/* ---- GET ------------------------------------------------------------------------------------- */

/* A GET on a lane, beside L1. The request is new, or the worker's spare one. */
static enum dispatch get_beside_l1(struct client *c, struct request *request, const struct cmd *cmd,
                                   uint64_t hash, unsigned conflicts,
                                   const struct request_view *view, struct blob *owner)
{
    struct worker *worker = c->worker;
    enum road road = lane_road(conflicts, is_large(worker, hash) ? ROAD_BULK : ROAD_LANE);
    if (road == ROAD_NONE || has_no_room(c, road)) {
        return DISPATCH_STALL;
    }
    request_take_spare(worker, request);
    request->kind = REQUEST_FORWARD;
    request->class = CMD_READ;
    request->is_get = true;
    request->readonly = true;
    request->road = road;
    request_add_key(request, hash);
    COUNT(worker, l1_misses, 1);
    COUNT(worker, l1_passes, 1);
    send_on_lane(c, request, cmd, view, owner);
    return DISPATCH_DONE;
}

static void park(struct client *c, struct request *request, uint64_t hash, struct slice raw,
                 struct blob *owner)
{
    c->missed = true;
    request_take_spare(c->worker, request);
    request->kind = REQUEST_GET;
    request->class = CMD_GET;
    request->plain = true;
    request->road = ROAD_FILL;
    request->readonly = true;
    request_add_key(request, hash);
    client_enqueue(c, request);
    if (!request_keep_raw(request, raw, owner)) {
        client_close(c);
    }
}

/* L1 has answered. */
static void take_hit(struct client *c, struct request *request, struct chain *out)
{
    c->missed = false;
    if (out == &request->reply) {
        request_take_spare(c->worker, request);
        client_hold(c, request);
    } else {
        client_reply_end(c);
    }
}

/* Where L1's answer to the request goes; NULL: memory is out and the client closed. */
static struct chain *place_of_hit(struct client *c, struct request *request)
{
    return client_is_idle(c) ? client_reply_begin(c) : &request->reply;
}

static void answer_hit(struct client *c, struct request *request, struct chain *out,
                       struct slice reply)
{
    if (chain_append(out, reply)) {
        take_hit(c, request, out);
    } else {
        client_close(c);
    }
}

/* With what echo_recall says. */
static enum dispatch answer_recalled(struct client *c, struct request *request, struct slice value)
{
    struct chain *out = place_of_hit(c, request);
    if (out != NULL) {
        COUNT(c->worker, l1_hits, 1);
        COUNT(c->worker, l1_echoes, 1);
        answer_hit(c, request, out, value);
    }
    return DISPATCH_DONE;
}

static enum dispatch get_from_l1(struct client *c, struct request *request, const struct cmd *cmd,
                                 const struct earlier *earlier, uint64_t hash,
                                 const struct request_view *view, struct blob *owner)
{
    struct worker *worker = c->worker;
    struct chain *out = place_of_hit(c, request);
    if (out == NULL) {
        return DISPATCH_DONE;
    }
    struct l1_query query = query_for(c, view->argv[1], hash, earlier, request, out);
    switch (l1_get(worker->server->l1, &query, worker->now)) {
    case L1_HIT:
        COUNT(worker, l1_hits, 1);
        take_hit(c, request, out);
        return DISPATCH_DONE;
    case L1_HIT_NULL:
        COUNT(worker, l1_negative_hits, 1);
        answer_hit(c, request, out, dispatch_null(c));
        return DISPATCH_DONE;
    case L1_JOINED:
        COUNT(worker, l1_misses, 1);
        COUNT(worker, l1_joins, 1);
        park(c, request, hash, view->raw, owner);
        return DISPATCH_DONE;
    case L1_OWNER:
        COUNT(worker, l1_misses, 1);
        park(c, request, hash, view->raw, owner);
        fetch_get(worker, c->place.node, query.lease);
        return DISPATCH_DONE;
    case L1_PASS:
        break;
    }
    if (earlier->roads != 0) {
        return DISPATCH_STALL;
    }
    return get_beside_l1(c, request, cmd, hash, 0, view, owner);
}

static enum dispatch get(struct client *c, const struct cmd *cmd, const struct request_view *view,
                         struct blob *owner)
{
    struct worker *worker = c->worker;
    uint64_t hash = l1_hash(worker->server->l1, view->argv[1]);
    struct earlier earlier = roads_of(c, &hash, 1, NEW_L1_READ, c->next_seq);
    struct request *request = request_spare(worker);
    if (request == NULL) {
        client_close(c);
        return DISPATCH_DONE;
    }
    if (earlier.last != NULL && echo_try(c, request, earlier.last, hash, view, owner)) {
        return DISPATCH_DONE;
    }
    struct slice value;
    if (unlikely(worker->recents != NULL) && earlier.roads == 0 &&
        echo_recall(c, hash, view, &value)) {
        return answer_recalled(c, request, value);
    }
    if (is_large(worker, hash) || (earlier.roads != 0 && !may_join_earlier(&earlier))) {
        return get_beside_l1(c, request, cmd, hash, earlier.roads, view, owner);
    }
    if (has_no_room(c, ROAD_FILL)) {
        return DISPATCH_STALL;
    }
    return get_from_l1(c, request, cmd, &earlier, hash, view, owner);
}

enum dispatch dispatch_get(struct client *c, const struct request_view *view, struct blob *owner)
{
    enum dispatch result = get(c, cmd_get(), view, owner);
    if (result == DISPATCH_DONE) {
        c->last_cmd = cmd_get();
    }
    return result;
}

/* ---- MGET ------------------------------------------------------------------------------------ */

static bool has_large(const struct request *request)
{
    for (uint32_t i = 0; i < request->nkeys; i++) {
        if (is_large(request->worker, request->hashes[i])) {
            return true;
        }
    }
    return false;
}

static void fetch_whole_mget(struct client *c, struct request *request,
                             const struct request_view *view, struct blob *owner)
{
    COUNT(c->worker, l1_misses, request->nkeys);
    request->kind = REQUEST_MGET;
    request->class = CMD_MGET;
    request->road = ROAD_FILL;
    request->readonly = request_keep_raw(request, view->raw, owner);
    client_enqueue(c, request);
    if (!fetch_mget(request, view)) {
        dispatch_mget_again(request, true);
    }
}

static enum dispatch mget(struct client *c, const struct cmd *cmd, const struct request_view *view,
                          struct blob *owner)
{
    struct worker *worker = c->worker;
    if (view->argc - 1 > DISPATCH_MGET_KEYS) {
        return dispatch_forward(c, cmd, CMD_READ, view, owner);
    }
    struct request *request = request_spare(worker);
    if (request == NULL || !dispatch_collect_keys(request, cmd, view)) {
        client_close(c);
        return DISPATCH_DONE;
    }
    request_take_spare(worker, request);
    struct earlier earlier = roads_of(c, request->hashes, request->nkeys, NEW_L1_READ, c->next_seq);
    if (earlier.roads == 0 && dispatch_mget_hits(c, view, request)) {
        request_destroy(request);
        return DISPATCH_DONE;
    }
    if (has_no_room(c, ROAD_FILL)) {
        request_destroy(request);
        return DISPATCH_STALL;
    }
    if (earlier.roads == 0 && can_fetch(worker, c->place.node) && view->raw.n <= BULK_REQUEST &&
        !has_large(request)) {
        fetch_whole_mget(c, request, view, owner);
        return DISPATCH_DONE;
    }
    request_destroy(request);
    enum dispatch result = dispatch_forward(c, cmd, CMD_READ, view, owner);
    if (result == DISPATCH_DONE) {
        COUNT(worker, l1_misses, view->argc - 1);
        COUNT(worker, l1_passes, view->argc - 1);
    }
    return result;
}

static enum dispatch misplaced(struct client *c, const struct cmd *cmd,
                               const struct request_view *view)
{
    if (!cmd_arity_ok(cmd, view->argc)) { /* what stood in the place of keys was none, perhaps */
        client_reply_error(c, "ERR wrong number of arguments for '%s' command", cmd->name);
        return DISPATCH_DONE;
    }
    const char *why = c->place.route == ROUTE_CROSSES    ? CROSSSLOT
                      : c->place.route == ROUTE_UNSERVED ? "CLUSTERDOWN Hash slot not served"
                                                         : ROUTE_NO_NODE;
    client_reply_error(c, "%s", why);
    return DISPATCH_DONE;
}

/* ---- All of them ----------------------------------------------------------------------------- */

/* Of those that are answered here: does it take a node's word? */
static bool needs_node(const struct cmd *cmd, const struct request_view *view)
{
    return cmd->local == LOCAL_SELECT || cmd->local == LOCAL_HELLO ||
           (cmd->local == LOCAL_INFO && !local_info_is_ours(view));
}

static enum dispatch local(struct client *c, const struct cmd *cmd, const struct request_view *view,
                           struct blob *owner)
{
    enum dispatch result;
    if (login_takes(c, cmd, view, owner, &result)) {
        return result;
    }
    if (unlikely(c->pinned != NULL) && c->pending > 0) {
        return DISPATCH_STALL; /* right behind a reply a message may come, which is before this */
    }
    if (cmd->local == LOCAL_CLIENT) {
        return local_client(c, cmd, view);
    }
    if (!cmd_arity_ok(cmd, view->argc)) {
        client_reply_error(c, "ERR wrong number of arguments for '%s' command", cmd->name);
        return DISPATCH_DONE;
    }
    if (unlikely(c->place.route != ROUTE_OK) && needs_node(cmd, view)) {
        return misplaced(c, cmd, view);
    }
    switch (cmd->local) {
    case LOCAL_INFO:
        if (!local_info_is_ours(view)) {
            return dispatch_forward(c, cmd, CMD_NONE, view, owner);
        }
        break;
    case LOCAL_ECHO:
    case LOCAL_PING:
        if (local_asks_server(c, cmd, view)) {
            return DISPATCH_DONE;
        }
        break;
    case LOCAL_RESET:
        return switch_reset(c, cmd, view);
    case LOCAL_SELECT:
        return switch_db(c, cmd, view);
    case LOCAL_HELLO:
        return switch_protocol(c, cmd, view);
    default:
        break;
    }
    local_answer(c, cmd, view);
    return DISPATCH_DONE;
}

/* Before it has authenticated, a client gets no further than this. */
static enum dispatch before_login(struct client *c, const struct cmd *cmd,
                                  const struct request_view *view, struct blob *owner)
{
    bool allowed = cmd->local == LOCAL_AUTH || cmd->local == LOCAL_HELLO ||
                   cmd->local == LOCAL_QUIT || cmd->local == LOCAL_RESET ||
                   cmd->local == LOCAL_HTTP;
    if (allowed) {
        return local(c, cmd, view, owner);
    }
    if (!cmd_arity_ok(cmd, view->argc)) {
        client_reply_error(c, "ERR wrong number of arguments for '%s' command", cmd->name);
    } else {
        client_reply_error(
            c, "%sNOAUTH Authentication required.",
            strcmp(cmd->name, "exec") == 0 ? "EXECABORT Transaction discarded because of: " : "");
    }
    return DISPATCH_DONE;
}

static enum dispatch route(struct client *c, const struct cmd *cmd, enum cmd_class class,
                           const struct request_view *view, struct blob *owner)
{
    bool cached = c->worker->server->caching && cmd_arity_ok(cmd, view->argc);
    switch (class) {
    case CMD_GET:
        return cached ? get(c, cmd, view, owner) : dispatch_forward(c, cmd, CMD_READ, view, owner);
    case CMD_MGET:
        return cached ? mget(c, cmd, view, owner) : dispatch_forward(c, cmd, CMD_READ, view, owner);
    case CMD_READ:
    case CMD_NONE:
    case CMD_WRITE:
    case CMD_UNKNOWN:
    case CMD_FLUSH:
        return dispatch_forward(c, cmd, class, view, owner);
    case CMD_LOCAL:
        return local(c, cmd, view, owner);
    case CMD_PINNED: /* session.c's */
        break;
    }
    return DISPATCH_DONE;
}

/* ---- In a cluster ---------------------------------------------------------------------------- */

static bool asks_a_server(const struct cmd *cmd, const struct request_view *view)
{
    return cmd->class != CMD_LOCAL || cmd->local == LOCAL_AUTH || needs_node(cmd, view);
}

/* Where the request goes. False: it has to wait, for earlier ones or for the first map. */
static bool find_place(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    const struct worker *worker = c->worker;
    if (redirect_waits(c)) {
        return false;
    }
    bool mapped = route_has_map(worker);
    c->place = route_command(worker->server, cmd, view, (uint32_t)c->id);
    if (c->is_part && c->place.slot == SLOT_NONE) {
        c->place.node = c->only_node;
    }
    return mapped || c->place.route == ROUTE_OK || !asks_a_server(cmd, view) ||
           !route_may_wait(worker);
}

/* The client has a connection of its own to one node, but this one's key may be another's, and needs
 * no such connection. Never from L1 (R8). */
static bool is_beside_session(const struct client *c, const struct cmd *cmd, enum cmd_class class)
{
    return c->worker->server->is_cluster && c->pinned != NULL && !pinned_is_own(c) &&
           !c->expects_multi && !c->multi_refused && c->place.slot != SLOT_NONE &&
           !pinned_is_subscriber(c) &&
           (class != CMD_PINNED || (c->place.node != pinned_node(c) &&
                                    !(pinned_is_streaming(c) && stream_is_sharded(cmd))));
}

/* In a cluster: may it concern other nodes than that of the client's session? Reads behind WATCH with keys
 * may not: their parts would use L1 (R8). */
static bool is_outside_session(const struct client *c, bool session, enum cmd_class class)
{
    return !session ||
           (class != CMD_PINNED && !c->expects_multi && !c->multi_refused &&
            !pinned_is_subscriber(c) && (!c->expects_watch || c->place.slot == SLOT_NONE));
}

static enum dispatch beside_session(struct client *c, const struct cmd *cmd, enum cmd_class class,
                                    const struct request_view *view, struct blob *owner)
{
    if (c->pending > 0) {
        return DISPATCH_STALL;
    }
    if (class == CMD_PINNED) {
        client_reply_error(c, CROSSSLOT);
        return DISPATCH_DONE;
    }
    return dispatch_forward(c, cmd, class == CMD_GET || class == CMD_MGET ? CMD_READ : class, view,
                            owner);
}

enum dispatch dispatch_request(struct client *c, const struct request_view *view,
                               struct blob *owner)
{
    const struct cmd *cmd = cmd_find(view);
    enum cmd_class class = cmd_effective_class(cmd, view);
    enum dispatch result;
    if (c->switching || c->nblocked > 0 || (c->pinned != NULL && pinned_is_inside(c))) {
        return DISPATCH_STALL; /* Redis, too, looks at nothing behind a blocked command */
    }
    if (c->worker->server->is_cluster ? !find_place(c, cmd, view)
                                      : c->worker->server->to_replicas && redirect_waits(c)) {
        return DISPATCH_STALL;
    }
    bool skips = c->skips_next;
    c->skips_this = skips;
    c->skips_next = false;
    bool session = class == CMD_PINNED || c->pinned != NULL || c->expects_multi ||
                   c->multi_refused || login_is_own(c) || pause_holds(c, cmd, class);
    if (unlikely(!c->authenticated)) {
        result = before_login(c, cmd, view, owner);
    } else if (c->worker->server->is_cluster && is_outside_session(c, session, class) &&
               (facade_takes(c, cmd, view, owner, &result) ||
                fanout_takes(c, cmd, class, view, &result))) {
        /* answered, or on its way to several nodes */
    } else if (unlikely(c->place.route != ROUTE_OK) && !c->expects_multi && !c->multi_refused &&
               class != CMD_LOCAL) {
        result = misplaced(c, cmd, view);
    } else if (unlikely(session) && is_beside_session(c, cmd, class)) {
        result = beside_session(c, cmd, class, view, owner);
    } else if (unlikely(session) && session_takes(c, cmd, class, view)) {
        result = session_request(c, cmd, class, view, owner);
    } else {
        result = route(c, cmd, class, view, owner);
    }
    if (result == DISPATCH_DONE) {
        c->last_cmd = c->switching ? c->last_cmd : cmd; /* else when it has been executed */
    } else {
        c->skips_next = skips;
    }
    c->skips_this = false;
    return result;
}

static void again_on_lane(struct request *request, struct earlier earlier, uint64_t hash)
{
    struct client *c = request->client;
    struct worker *worker = c->worker;
    enum road road = lane_road(earlier.roads, is_large(worker, hash) ? ROAD_BULK : ROAD_LANE);
    if (road == ROAD_NONE) {
        forward_fail(request, "the fetch of its key failed");
        return;
    }
    request->kind = REQUEST_FORWARD;
    request->class = CMD_READ;
    request->is_get = true;
    client_move_road(c, request, road);
    forward_request(request, request->raw, request->raw_blob);
}

/* The slot of a request that looks again may have another owner by now. Behind an earlier one for its
 * key it goes where that went. False: nobody owns it, and it is answered. */
static bool place_again(struct request *request, const struct request_view *view, uint64_t hash)
{
    struct client *c = request->client;
    const struct server *server = c->worker->server;
    if (!server->is_cluster) {
        return true;
    }
    c->place = route_key(server, view->argv[1]);
    const struct request *earlier = order_find(&c->worker->order, c, hash, request->seq);
    if (earlier != NULL) {
        c->place.node = earlier->node;
    } else if (c->place.route != ROUTE_OK) {
        forward_refuse(request, "CLUSTERDOWN Hash slot not served");
        return false;
    }
    c->scattered = c->scattered || request->node != c->place.node;
    request->node = c->place.node;
    return true;
}

void dispatch_again(struct request *request)
{
    struct client *c = request->client;
    struct worker *worker = c->worker;
    struct request_view view;
    if (MUTANT(R4)) {
        forward_fail(request, "the fetch of its key failed");
        return;
    }
    bug_on(!request_reparse(request, &view) || view.nargv < 2);
    uint64_t hash = request->hashes[0];
    if (!place_again(request, &view, hash)) {
        return;
    }
    struct earlier earlier = roads_of(c, &hash, 1, NEW_L1_READ, request->seq);
    bool behind = may_join_earlier(&earlier);
    request->attempts += !behind;
    if (!behind && (request->attempts > 1 || is_large(worker, hash) || earlier.roads != 0)) {
        again_on_lane(request, earlier, hash);
        return;
    }
    struct l1_query query = query_for(c, view.argv[1], hash, &earlier, request, &request->reply);
    query.woken = true;
    switch (l1_get(worker->server->l1, &query, worker->now)) {
    case L1_HIT_NULL:
        if (!chain_append(&request->reply, dispatch_null(c))) {
            client_close(c);
            return;
        }
        break;
    case L1_HIT:
        break;
    case L1_JOINED:
        request->kind = REQUEST_GET;
        return;
    case L1_OWNER:
        request->kind = REQUEST_GET;
        fetch_get(worker, request->node, query.lease);
        return;
    case L1_PASS:
        if (behind) {
            request->kind = REQUEST_GET;
            if (!fills_await(earlier.last, request)) {
                /* that one's lease has ended, and who ended it is about to wake it */
                request_look_again(request);
            }
        } else {
            again_on_lane(request, earlier, hash);
        }
        return;
    }
    client_finish(c, request);
}

void dispatch_mget_again(struct request *request, bool may_fetch)
{
    struct worker *worker = request->worker;
    struct request_view view;
    request->kind = REQUEST_HELD;
    if (request->attempts++ > 0 || !request_reparse(request, &view)) {
        forward_fail(request, "the fill connection was lost");
        return;
    }
    if (!place_again(request, &view, request->hashes[0])) {
        return;
    }
    if (may_fetch && can_fetch(worker, request->node) && fetch_mget(request, &view)) {
        request->kind = REQUEST_MGET;
        return;
    }
    request->kind = REQUEST_FORWARD;
    request->class = CMD_READ;
    client_move_road(request->client, request, ROAD_LANE);
    forward_request(request, request->raw, request->raw_blob);
}
