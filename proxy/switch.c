/* SPDX-License-Identifier: Apache-2.0
 *
 * switch.c: SELECT, HELLO and RESET.
 */
#include "switch.h"

#include "forward.h"
#include "local.h"
#include "login.h"
#include "pinned.h"
#include "session.h"

/* SELECT and HELLO change the road: what was asked before is answered first, what comes later waits
 * for the reply, which decides. It comes from a lane in the new db or protocol, or from the client's
 * own connection. */
static enum dispatch switch_road(struct client *c, const struct cmd *cmd, struct request *request,
                                 struct slice raw)
{
    request_take_spare(c->worker, request);
    request->kind = REQUEST_FORWARD;
    request->class = CMD_NONE;
    request->cmd = cmd;
    request->road = c->pinned == NULL ? ROAD_LANE : ROAD_PINNED;
    request->holds = true;
    if (c->pinned != NULL) {
        c->place.node = pinned_node(c);
    }
    client_enqueue(c, request);
    forward_request(request, raw, NULL);
    return DISPATCH_DONE;
}

enum dispatch switch_db(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    int64_t db;
    if (!local_select(c, view, &db)) {
        return DISPATCH_DONE;
    }
    if (c->pending > 0) {
        return DISPATCH_STALL;
    }
    struct request *request = request_spare(c->worker);
    if (request == NULL) {
        client_close(c);
        return DISPATCH_DONE;
    }
    request->db = (uint32_t)db;
    request->selects = true;
    return switch_road(c, cmd, request, view->raw);
}

/* Its options concern this process. What is left, the version and the question who the server is, goes
 * to a connection of that version. */
enum dispatch switch_protocol(struct client *c, const struct cmd *cmd,
                              const struct request_view *view)
{
    static const struct slice bare = {"*1\r\n$5\r\nHELLO\r\n", 15};
    static const struct slice to2 = {"*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n", 22};
    static const struct slice to3 = {"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", 22};
    struct local_greeting greeting;
    if (c->pending > 0) {
        return DISPATCH_STALL;
    }
    if (!local_hello(c, view, &greeting)) {
        return DISPATCH_DONE;
    }
    bool resp3 = greeting.resp3;
    if (resp3 != c->resp3 && !pinned_is_alone(c) && pinned_is_streaming(c)) {
        client_reply_error(c,
                           "ERR the protocol cannot change while shard channels of several nodes "
                           "are subscribed to");
        return DISPATCH_DONE;
    }
    if (greeting.logs_in) {
        return login_greet(c, cmd, view, &greeting);
    }
    struct request *request = request_spare(c->worker);
    if (request == NULL) {
        client_close(c);
        return DISPATCH_DONE;
    }
    request->resp3 = resp3;
    request->greets = true;
    bool changes = c->pinned != NULL && resp3 != c->resp3;
    return switch_road(c, cmd, request, !changes ? bare : resp3 ? to3 : to2);
}

static void start_again(struct client *c)
{
    pinned_drop(c);
    session_reset(c);
    local_reset(c);
}

/* It changes the road, and ends the session: also at the server, before anything else is asked of it. */
enum dispatch switch_reset(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    if (c->pending > 0) {
        return DISPATCH_STALL;
    }
    if (c->pinned == NULL || conn_state(pinned_conn(c)) != CONN_UP) {
        start_again(c);
        return DISPATCH_DONE;
    }
    struct request *request = request_spare(c->worker);
    if (request == NULL) {
        client_close(c);
        return DISPATCH_DONE;
    }
    request->resets = true;
    return switch_road(c, cmd, request, view->raw);
}

void switch_after_reset(struct request *request)
{
    struct client *c = request->client;
    bool silent = request->silent;
    request->kind = REQUEST_HELD;
    client_answered(c, request);
    if (c->state != CLIENT_CLOSED) {
        c->skips_this = silent && !c->replies_off;
        start_again(c);
        c->skips_this = false;
    }
}
