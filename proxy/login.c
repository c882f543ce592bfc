/* SPDX-License-Identifier: Apache-2.0
 *
 * login.c: who is who at Redis.
 *
 *   AUTH, HELLO AUTH ─► what Nearside itself says to Redis? ──────────────► shared roads, L1
 *       │ no
 *       └─► own connection ─────────────┬─ error ─────────────────────────► as it was
 *                                       ├─ somebody else ─► pinned_own ───► everything goes there
 *                                       └─ who Nearside is ───────────────► shared roads, L1
 *
 * Nearside may have no credentials where Redis asks for some. Then who Nearside is may do nothing, and
 * who logs in, as whoever, keeps its connection.
 *
 * CLIENT concerns Nearside's clients, so it is answered here; whether a user of Redis may say it, Redis is
 * asked with the same subcommand and arguments that make no sense: permissions come before those.
 */
#include "login.h"

#include "forward.h"
#include "pinned.h"
#include "profile.h"
#include "session.h"
#include "standin.h"
#include "../resp/write.h"

#include <inttypes.h>
#include <stdio.h>

#define CREDENTIAL_MAX 1024

static const struct node *node_of(const struct server *server)
{
    return topology_node(server->topology, 0);
}

bool login_is_at_redis(const struct server *server)
{
    return !server->asks_password;
}

bool login_is_asked(const struct server *server)
{
    /* of a cluster that asks, and is not told, no map is known, and nobody gets so far */
    return login_is_at_redis(server) && !server->is_cluster && node_asks_login(node_of(server));
}

bool login_is_ours(const struct server *server, struct slice user)
{
    const char *ours = login_is_at_redis(server) ? server->conf->upstream_user : "";
    return slice_eq(user, ours[0] == '\0' ? SLICE("default") : slice_str(ours));
}

bool login_is_own(const struct client *c)
{
    return pinned_is_own(c) || unlikely(c->is_part && c->profile != NULL);
}

bool login_is_password(const char *password, struct slice said)
{
    size_t n = strlen(password);
    unsigned char differ = n != said.n;
    for (size_t i = 0; i < said.n; i++) {
        differ |= (unsigned char)(said.p[i] ^ password[n == 0 ? 0 : i % n]);
    }
    return differ == 0;
}

bool login_is_known(const struct client *c, struct slice user, struct slice password)
{
    struct server *server = c->worker->server;
    char ours[CREDENTIAL_MAX];
    char secret[CREDENTIAL_MAX];
    char err[ERR_MAX];
    if (!login_is_ours(server, user) || pinned_is_own(c) || c->anonymous ||
        c->place.node == TOPOLOGY_NONE) {
        return false;
    }
    bool known = node_credentials(topology_node(server->topology, c->place.node), ours,
                                  sizeof(ours), secret, sizeof(secret), err) &&
                 secret[0] != '\0' && login_is_password(secret, password);
    explicit_bzero(secret, sizeof(secret));
    return known;
}

/* ---- Logging in ----------------------------------------------------------------------------- */

/* What an AUTH, or a HELLO with one, says. */
struct login {
    struct slice user, password, name;
};

static struct login read_login(const struct request_view *view)
{
    struct login login = {.name = SLICE("")};
    struct arg_walk walk;
    struct slice word;
    if (!slice_eq_nocase(view->argv[0], SLICE("HELLO"))) {
        login.user = view->argc == 2 ? SLICE("default") : view->argv[1];
        login.password = view->argv[view->argc - 1]; /* not followed with more arguments */
        return login;
    }
    arg_walk_init(&walk, view);
    for (int i = 0; i < 2 && arg_walk_next(&walk, &word); i++) { /* HELLO, the version */
    }
    while (arg_walk_next(&walk, &word)) { /* looked at before it was sent */
        bool is_auth = slice_eq_nocase(word, SLICE("AUTH"));
        (void)(arg_walk_next(&walk, is_auth ? &login.user : &login.name) &&
               (!is_auth || arg_walk_next(&walk, &login.password)));
    }
    return login;
}

static bool put_hello(struct chain *out, bool resp3, struct slice user, struct slice password)
{
    return resp_array(out, 5) && resp_bulk(out, SLICE("HELLO")) &&
           resp_bulk(out, resp3 ? SLICE("3") : SLICE("2")) && resp_bulk(out, SLICE("AUTH")) &&
           resp_bulk(out, user) && resp_bulk(out, password);
}

/* HELLO without SETNAME, which is ours; AUTH as it is. Behind it SELECT, if the connection could not
 * choose its db before. */
static bool put_login(struct chain *out, const struct client *c, const struct request *request,
                      const struct request_view *view)
{
    char db[16];
    bool ok;
    if (request->greets) {
        struct login login = read_login(view);
        ok = put_hello(out, request->resp3, login.user, login.password);
    } else {
        ok = chain_append(out, view->raw);
    }
    if (!ok || !request->reselects) {
        return ok;
    }
    snprintf(db, sizeof(db), "%" PRIu32, c->db);
    return resp_array(out, 2) && resp_bulk(out, SLICE("SELECT")) && resp_bulk(out, slice_str(db));
}

/* Enqueued, on a connection that is the client's. */
static void send_login(struct client *c, struct request *request, const struct request_view *view)
{
    struct chain words;
    chain_init(&words);
    request->reselects = !pinned_is_at_home(c);
    struct blob *raw = put_login(&words, c, request, view) ? chain_take_blob(&words) : NULL;
    chain_fini(&words);
    if (raw == NULL) {
        client_close(c);
        return;
    }
    forward_request(request, slice_of(raw->p, raw->n), NULL);
    blob_unref(raw);
}

/* The request goes on the client's own connection, and what follows waits for its reply. */
static bool enqueue(struct client *c, struct request *request, const struct cmd *cmd,
                    const struct request_view *view)
{
    if (!request_keep_raw(request, view->raw, NULL)) {
        request_destroy(request);
        client_close(c);
        return false;
    }
    request->kind = REQUEST_FORWARD;
    request->class = CMD_NONE;
    request->cmd = cmd;
    request->road = ROAD_PINNED;
    request->holds = true;
    c->place.node = pinned_node(c);
    client_enqueue(c, request);
    return true;
}

/* Who is nobody may not choose a db. */
static bool take_connection(struct client *c)
{
    return pinned_take(c, c->place.node, login_is_asked(c->worker->server) ? 0 : c->db);
}

/* AUTH as who Nearside is. True: answered. */
static bool is_known_auth(struct client *c, const struct request_view *view)
{
    struct slice user = read_login(view).user;
    if (view->argc < 2 || !login_is_known(c, user, view->argv[view->argc - 1])) {
        return false;
    }
    struct chain *out = client_reply_begin(c);
    if (out != NULL) {
        client_reply_finish(c, resp_status(out, "OK"));
    }
    return true;
}

/* `greeting`: it is a HELLO; NULL: AUTH. */
static enum dispatch log_in(struct client *c, const struct cmd *cmd,
                            const struct request_view *view, const struct local_greeting *greeting)
{
    if (c->pending > 0) {
        return DISPATCH_STALL;
    }
    if (greeting == NULL && view->argc <= 3 && is_known_auth(c, view)) {
        return DISPATCH_DONE;
    }
    if (c->place.route == ROUTE_NOWHERE) {
        client_reply_error(c, ROUTE_NO_NODE);
        return DISPATCH_DONE;
    }
    if (c->pinned == NULL && !take_connection(c)) {
        client_reply_error(c, PINNED_TOO_MANY);
        return DISPATCH_DONE;
    }
    struct request *request = request_create(c->worker);
    if (request == NULL) {
        client_close(c);
        return DISPATCH_DONE;
    }
    request->logs_in = true;
    request->greets = greeting != NULL;
    request->resp3 = greeting != NULL && greeting->resp3;
    if (enqueue(c, request, cmd, view)) {
        send_login(c, request, view);
    }
    return DISPATCH_DONE;
}

enum dispatch login_greet(struct client *c, const struct cmd *cmd, const struct request_view *view,
                          const struct local_greeting *greeting)
{
    return log_in(c, cmd, view, greeting);
}

bool login_again(struct request *request)
{
    struct client *c = request->client;
    struct request_view view;
    if (!request->logs_in || request->attempts > 0 || pinned_is_own(c) ||
        !login_is_asked(c->worker->server) || !request_reparse(request, &view)) {
        return false;
    }
    request->attempts++;
    pinned_drop(c);
    if (!take_connection(c)) {
        forward_refuse(request, PINNED_TOO_MANY);
        return true;
    }
    send_login(c, request, &view);
    return true;
}

void login_follow(struct client *c, struct request *request, bool ok)
{
    const struct server *server = c->worker->server;
    struct request_view view;
    if (!request->logs_in) {
        return;
    }
    if (!ok) {
        COUNT(c->worker, logins_failed, 1);
        client_log(c, LOG_INFO, "failed to log in: refused by the server");
        request->logs_in = false;
        return;
    }
    bug_on(!request_reparse(request, &view));
    struct login login = read_login(&view);
    bool shared = login_is_ours(server, login.user) && !login_is_asked(server);
    pinned_own(c, !shared);
    pinned_enter(c, pinned_node(c), false);
    c->anonymous = false;
    if (!profile_set_user(c, shared ? SLICE("") : login.user) ||
        !profile_set_password(c, shared || !server->is_cluster ? SLICE("") : login.password) ||
        (login.name.n > 0 && !profile_set_name(c, login.name))) {
        client_end(c);
    }
}

bool login_reselected(struct request *request, const struct reply_piece *piece)
{
    if (!request->reselecting) {
        request->reselecting = piece->last; /* the login's own reply */
        return false;
    }
    if (piece->first && request->client != NULL && request->logs_in) {
        pinned_chose_db(request->client, piece->type == '+');
    }
    return true;
}

/* ---- On other nodes -------------------------------------------------------------------------- */

void login_enter(struct client *c, struct request *request)
{
    struct chain words;
    chain_init(&words);
    struct blob *raw = put_hello(&words, c->resp3, profile_user(c), profile_password(c))
                           ? chain_take_blob(&words)
                           : NULL;
    chain_fini(&words);
    if (raw == NULL) {
        client_close(c);
        return;
    }
    request->enters = true;
    forward_request(request, slice_of(raw->p, raw->n), NULL);
    blob_unref(raw);
}

bool login_entered(struct request *request, const struct reply_piece *piece)
{
    struct client *c = request->client;
    if (piece->first && piece->type == '-') {
        request->enters = false;
        COUNT(request->worker, logins_failed, 1);
        if (c != NULL && !c->is_part && pinned_node(c) == request->node) {
            client_end(c); /* what it says next would be said as Nearside */
        }
        return false;
    }
    if (!piece->last) {
        return true;
    }
    request->enters = false;
    if (c == NULL) {
        request_destroy(request);
    } else {
        pinned_enter(c, request->node, true);
        session_send_again(c, request);
    }
    return true;
}

/* ---- What is answered here ------------------------------------------------------------------ */

static enum dispatch probe(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    if (c->pending > 0) {
        return DISPATCH_STALL;
    }
    struct request *request = request_create(c->worker);
    struct blob *raw = standin_command(cmd, view);
    if (request == NULL || raw == NULL) {
        request_destroy(request);
        client_close(c);
    } else {
        request->probes = true;
        if (enqueue(c, request, cmd, view)) {
            forward_request(request, slice_of(raw->p, raw->n), NULL);
        }
    }
    blob_unref(raw);
    return DISPATCH_DONE;
}

/* It may: the answer is given here, in the place of the one that was not passed on. */
static void answer(struct client *c, const struct request_view *view, const struct cmd *cmd,
                   bool silent)
{
    if (c->state == CLIENT_CLOSED) {
        return;
    }
    c->skips_this = silent && !c->replies_off;
    if (cmd->local != LOCAL_CLIENT) {
        local_answer(c, cmd, view);
    } else if (local_client(c, cmd, view) == DISPATCH_STALL) {
        client_close(c); /* its lane has no room: there is no way back to its input */
    }
    c->skips_this = false;
}

bool login_probed(struct request *request, const struct reply_piece *piece)
{
    struct client *c = request->client;
    if (piece->first && (slice_starts(piece->bytes, SLICE("-NOPERM ")) ||
                         slice_starts(piece->bytes, SLICE("-NOAUTH ")))) {
        request->probes = false;
        return false;
    }
    if (!piece->last) {
        return true;
    }
    const struct cmd *cmd = request->cmd;
    struct blob *raw = c == NULL ? NULL : blob_try_copy(request->raw);
    if (raw == NULL) {
        if (c != NULL) {
            client_close(c);
        }
        request_destroy(request);
        return true;
    }
    struct parser parser;
    struct request_view view;
    bool silent = request->silent;
    request->kind = REQUEST_HELD;
    client_answered(c, request);
    parser_init(&parser);
    if (parse_request(&parser, slice_of(raw->p, raw->n), &view) == PARSE_OK) {
        answer(c, &view, cmd, silent);
    }
    blob_unref(raw);
    return true;
}

/* Nobody has logged in where Redis asks for that. On shared connections it says so itself. */
static bool refuse_stranger(struct client *c, const struct cmd *cmd,
                            const struct request_view *view, struct blob *owner,
                            enum dispatch *result)
{
    switch (cmd->local) {
    case LOCAL_CLIENT:
        if (!cmd_arity_ok(cmd, view->argc)) {
            return false;
        }
        client_reply_error(c, "NOAUTH Authentication required.");
        *result = DISPATCH_DONE;
        return true;
    case LOCAL_ECHO:
    case LOCAL_INFO:
    case LOCAL_PING:
    case LOCAL_READONLY:
    case LOCAL_READWRITE:
        *result = dispatch_forward(c, cmd, CMD_NONE, view, owner);
        return true;
    default:
        return false;
    }
}

static bool ask_as_user(struct client *c, const struct cmd *cmd, const struct request_view *view,
                        struct blob *owner, enum dispatch *result)
{
    switch (cmd->local) {
    case LOCAL_CLIENT:
        if (!cmd_arity_ok(cmd, view->argc) || cmd->has_sub) {
            return false; /* an error whoever says it */
        }
        *result = local_client_concerns_redis(c, view)
                      ? session_request(c, cmd, CMD_NONE, view, owner)
                      : probe(c, cmd, view);
        return true;
    case LOCAL_INFO:
        *result = local_info_is_ours(view) ? probe(c, cmd, view)
                                           : session_request(c, cmd, CMD_NONE, view, owner);
        return true;
    case LOCAL_ECHO:
    case LOCAL_PING:
        *result = session_request(c, cmd, CMD_NONE, view, owner);
        return true;
    case LOCAL_READONLY:
    case LOCAL_READWRITE:
        if (c->worker->server->is_cluster) {
            return false; /* it is not to know that there is one */
        }
        *result = session_request(c, cmd, CMD_NONE, view, owner);
        return true;
    default:
        return false; /* everybody may, or it goes on the client's connection anyway */
    }
}

bool login_takes(struct client *c, const struct cmd *cmd, const struct request_view *view,
                 struct blob *owner, enum dispatch *result)
{
    if (cmd->local == LOCAL_AUTH && login_is_at_redis(c->worker->server)) {
        *result = log_in(c, cmd, view, NULL);
        return true;
    }
    if (pinned_is_own(c)) {
        return ask_as_user(c, cmd, view, owner, result);
    }
    return login_is_stranger(c) && c->authenticated && refuse_stranger(c, cmd, view, owner, result);
}
