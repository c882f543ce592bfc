/* SPDX-License-Identifier: Apache-2.0
 *
 * local.c: what concerns the client's own connection, but for CLIENT (local_client.c). One function
 * per command; each gives exactly one reply. Texts are Redis 7's.
 */
#include "local.h"

#include "forward.h"
#include "facade.h"
#include "info.h"
#include "login.h"
#include "nodes.h"
#include "pinned.h"
#include "profile.h"

#include "../resp/write.h"

#include "../conf/mem.h"

#include <stdio.h>

/* ---- AUTH, HELLO ------------------------------------------------------------------------------ */

#define WRONG_PASSWORD "WRONGPASS invalid username-password pair or user is disabled."

/* With proxy.password Nearside has one user, "default". Says what is wrong, or NULL. */
static const char *log_in(struct client *c, struct slice user, struct slice password)
{
    const struct server *server = c->worker->server;
    bool known = slice_eq(user, SLICE("default"));
    if (known && login_is_password(server->password, password)) {
        c->authenticated = true;
        return NULL;
    }
    COUNT(c->worker, logins_failed, 1);
    client_log(c, LOG_INFO, "failed to log in: not proxy.password, or another user than 'default'");
    return WRONG_PASSWORD;
}

static bool answer_auth(struct client *c, const struct request_view *view, struct chain *out)
{
    if (view->argc > 3) {
        return resp_error(out, "ERR syntax error");
    }
    struct slice user = view->argc == 2 ? SLICE("default") : view->argv[1];
    const char *wrong = log_in(c, user, view->argv[view->argc - 1]);
    return wrong == NULL ? resp_status(out, "OK") : resp_error(out, wrong);
}

/* [AUTH user password] [SETNAME name], from argument 2 on. False: answered with an error. */
static bool read_greeting(struct client *c, const struct request_view *view,
                          struct local_greeting *g)
{
    struct arg_walk walk;
    struct slice word;
    int64_t left = view->argc;
    arg_walk_init(&walk, view);
    for (; left > view->argc - 2 && arg_walk_next(&walk, &word); left--) {
    }
    while (arg_walk_next(&walk, &word)) {
        left--;
        if (slice_eq_nocase(word, SLICE("AUTH")) && left >= 2) {
            g->has_auth = arg_walk_next(&walk, &g->user) && arg_walk_next(&walk, &g->password);
            left -= 2;
        } else if (slice_eq_nocase(word, SLICE("SETNAME")) && left >= 1) {
            g->has_name = arg_walk_next(&walk, &g->name);
            left--;
            if (!profile_is_plain(g->name)) {
                client_reply_error(c, LOCAL_BAD_NAME);
                return false;
            }
        } else {
            client_reply_error(c, "ERR Syntax error in HELLO option '%.*s'", local_shown(word),
                               word.p);
            return false;
        }
    }
    return true;
}

/* In the server's words, if it has said them to us. */
static void refuse_stranger(struct client *c)
{
    const struct server *server = c->worker->server;
    char words[ERR_MAX];
    node_words_to_strangers(topology_node(server->topology, 0), words, sizeof(words));
    if (words[0] != '\0') {
        client_reply_error(c, "%s", words);
        return;
    }
    client_reply_error(
        c,
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
        "%sAUTH <user> <pass> option can be used to authenticate the client and select the RESP "
        "protocol version at the same time",
        nodes_are_at_least(server, 7, 2) ? "<proto> " : "");
}

/* HELLO [protover [AUTH user password] [SETNAME name]] */
bool local_hello(struct client *c, const struct request_view *view, struct local_greeting *g)
{
    const struct server *server = c->worker->server;
    const char *wrong = NULL;
    int64_t version = c->resp3 ? 3 : 2;
    if (view->argc >= 2 && !slice_to_int64(view->argv[1], &version)) {
        client_reply_error(c, "ERR Protocol version is not an integer or out of range");
        return false;
    }
    if (version != 2 && version != 3) {
        client_reply_error(c, "NOPROTO unsupported protocol version");
        return false;
    }
    *g = (struct local_greeting){.resp3 = version == 3};
    if (!read_greeting(c, view, g)) {
        return false;
    }
    g->logs_in =
        g->has_auth && login_is_at_redis(server) && !login_is_known(c, g->user, g->password);
    if (g->logs_in) {
        return true;
    }
    if (g->has_auth && !login_is_at_redis(server) &&
        (wrong = log_in(c, g->user, g->password)) != NULL) {
        client_reply_error(c, "%s", wrong);
        return false;
    }
    if (login_is_stranger(c)) {
        refuse_stranger(c);
        return false;
    }
    if (g->has_name && !profile_set_name(c, g->name)) {
        client_close(c);
        return false;
    }
    return true;
}

/* ---- PING and ECHO of an occupied server ------------------------------------------------------ */

/* A cluster as a whole never is. Behind a command of its own the client would not hear of it from Redis
 * either: that looks at nothing before it has answered. */
static bool may_be_occupied(const struct client *c)
{
    const struct server *server = c->worker->server;
    return !server->is_cluster && c->pending == 0 &&
           node_is_occupied(topology_node(server->topology, 0), c->worker->now) &&
           conn_accepts(forward_lane(c->worker, 0, 0, c->resp3, ROAD_BULK));
}

/* On a connection that commands do not wait on, and that comes up although SELECT is refused. */
bool local_asks_server(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    if (likely(!may_be_occupied(c))) {
        return false;
    }
    struct request *request = request_spare(c->worker);
    if (request == NULL || !request_keep_raw(request, view->raw, NULL)) {
        client_close(c);
        return true;
    }
    request_take_spare(c->worker, request);
    request->kind = REQUEST_FORWARD;
    request->class = CMD_NONE;
    request->cmd = cmd;
    request->road = ROAD_BULK;
    request->readonly = true;
    client_enqueue(c, request);
    request->db = 0;
    forward_request(request, view->raw, NULL);
    return true;
}

/* ---- The small ones --------------------------------------------------------------------------- */

static bool answer_ping(const struct request_view *view, struct chain *out)
{
    if (view->argc > 2) {
        return resp_error(out, "ERR wrong number of arguments for 'ping' command");
    }
    return view->argc == 2 ? resp_bulk(out, view->argv[1]) : resp_status(out, "PONG");
}

void local_reset(struct client *c)
{
    const struct server *server = c->worker->server;
    c->db = server->conf->upstream_db;
    c->resp3 = false;
    c->authenticated = !server->asks_password;
    c->anonymous = login_is_asked(server);
    c->replies_off = c->skips_next = false;
    if (nodes_are_at_least(server, 7, 2)) {
        c->no_evict = c->no_touch = false;
    }
    struct chain *out = client_reply_begin(c);
    if (out != NULL) {
        client_reply_finish(c, profile_set_name(c, SLICE("")) && profile_set_user(c, SLICE("")) &&
                                   resp_status(out, "RESET"));
    }
}

static bool answer_info(struct client *c, struct chain *out)
{
    size_t n = 0;
    char *text = info_section(c->worker, &n);
    bool ok = text != NULL && resp_verbatim(out, slice_of(text, n), c->resp3);
    mem_free(text);
    return ok;
}

/* Valkey 8 takes READONLY and READWRITE outside of a cluster too, for CLIENT CAPA redirect; but not ASKING. */
static bool takes_readonly(const struct server *server, const struct cmd *cmd)
{
    return !server->is_cluster && nodes_are_valkey(server, 8, 0) &&
           strcmp(cmd->name, "asking") != 0;
}

void local_answer(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    struct chain *out = client_reply_begin(c);
    bool ok = true;
    if (out == NULL) {
        return;
    }
    switch (cmd->local) {
    case LOCAL_AUTH:
        ok = answer_auth(c, view, out);
        break;
    case LOCAL_ECHO:
        ok = resp_bulk(out, view->argv[1]);
        break;
    case LOCAL_INFO:
        ok = answer_info(c, out);
        break;
    case LOCAL_PING:
        ok = answer_ping(view, out);
        break;
    case LOCAL_QUIT:
        ok = resp_status(out, "OK");
        break;
    case LOCAL_READONLY:
    case LOCAL_READWRITE:
        ok = facade_is_on(c) || takes_readonly(c->worker->server, cmd)
                 ? resp_status(out, "OK")
                 : resp_error(out, "ERR This instance has cluster support disabled");
        break;
    case LOCAL_HTTP:
        /* a browser was made to send this: closed without a word, even about what came before it, as
         * Redis does; forwarded, it would make Redis close the shared connection */
        client_reply_cancel(c);
        client_close(c);
        return;
    case LOCAL_CLIENT: /* these have functions of their own */
    case LOCAL_HELLO:
    case LOCAL_RESET:
    case LOCAL_SELECT:
    case LOCAL_NO:
        break;
    }
    client_reply_finish(c, ok);
    if (ok && cmd->local == LOCAL_QUIT) {
        client_end(c);
    }
}

bool local_info_is_ours(const struct request_view *view)
{
    return view->argc == 2 && local_arg_is(view, 1, "nearside");
}

bool local_info_wants_section(const struct request_view *view)
{
    static const char *const words[] = {"nearside", "all", "everything", "default"};
    if (view->argc == 1) {
        return true;
    }
    for (int i = 1; i < view->nargv; i++) {
        for (size_t w = 0; w < ARRAY_LEN(words); w++) {
            if (local_arg_is(view, i, words[w])) {
                return true;
            }
        }
    }
    return false;
}

bool local_select(struct client *c, const struct request_view *view, int64_t *db)
{
    struct chain *out;
    if (!slice_to_int64(view->argv[1], db)) {
        client_reply_error(c, "ERR value is not an integer or out of range");
    } else if (*db < INT32_MIN || *db > INT32_MAX) {
        client_reply_error(c, "ERR value is out of range, value must between %d and %d", INT32_MIN,
                           INT32_MAX);
    } else if (*db < 0) {
        client_reply_error(c, "ERR DB index is out of range");
    } else if (*db != (int64_t)c->db || c->any_db || c->anonymous || pinned_is_own(c)) {
        return true; /* or whether it may is for Redis to say */
    } else if ((out = client_reply_begin(c)) != NULL) {
        client_reply_finish(c, resp_status(out, "OK"));
    }
    return false;
}
