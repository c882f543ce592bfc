/* SPDX-License-Identifier: Apache-2.0
 *
 * local.c: commands that concern the client's own connection. They are never forwarded: on a shared
 * connection they would change it for everybody. Texts are Redis 7's.
 *
 * One function per command; local_answer checks nothing but which one it is. Each appends exactly one
 * reply. Only RESP2 so far.
 */
#include "local.h"

#include "info.h"

#include "../resp/write.h"

#include "../conf/mem.h"

#include <stdio.h>

struct locally {
    struct client *c;
    const struct request_view *view;
    struct chain *out;
};

static bool arg_is(const struct request_view *view, int i, const char *word)
{
    return i < view->nargv && slice_eq_nocase(view->argv[i], slice_str(word));
}

static bool unknown_subcommand(const struct locally *l, const char *command)
{
    struct slice sub = l->view->argv[1];
    int shown = sub.n > 128 ? 128 : (int)sub.n;
    return resp_errorf(l->out, "ERR unknown subcommand '%.*s'. Try %s HELP.", shown, sub.p,
                       command);
}

/* ---- AUTH, HELLO ------------------------------------------------------------------------------ */

static bool answer_auth(const struct locally *l)
{
    if (l->view->argc > 3) {
        return resp_error(l->out, "ERR syntax error");
    }
    if (l->view->argc == 2) {
        return resp_error(l->out,
                          "ERR AUTH <password> called without any password configured for the "
                          "default user. Are you sure your configuration is correct?");
    }
    /* without a password of its own Nearside has one user, "default", that needs none */
    return arg_is(l->view, 1, "default")
               ? resp_status(l->out, "OK")
               : resp_error(l->out,
                            "WRONGPASS invalid username-password pair or user is disabled.");
}

static struct client_profile *profile_of(struct client *c)
{
    if (c->profile == NULL) {
        c->profile = mem_try_zero(sizeof(*c->profile));
    }
    return c->profile;
}

/* Redis's rule for names: printable and without blanks, so that CLIENT LIST stays parsable. */
static bool is_plain_name(struct slice name)
{
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] < '!' || name.p[i] > '~') {
            return false;
        }
    }
    return true;
}

static bool set_word(struct blob **place, struct slice word)
{
    struct blob *copy = NULL;
    if (word.n > 0 && (copy = blob_try_copy(word)) == NULL) {
        return false;
    }
    blob_unref(*place);
    *place = copy;
    return true;
}

#define BAD_NAME "ERR Client names cannot contain spaces, newlines or special characters."

static bool hello_reply(const struct locally *l)
{
    char version[64];
    node_version(l->c->worker->server->node, version, sizeof(version));
    struct chain *out = l->out;
    return resp_map(out, 7, false) && resp_bulk(out, SLICE("server")) &&
           resp_bulk(out, SLICE("redis")) && resp_bulk(out, SLICE("version")) &&
           resp_bulk(out, version[0] == '\0' ? SLICE("unknown") : slice_str(version)) &&
           resp_bulk(out, SLICE("proto")) && resp_integer(out, 2) && resp_bulk(out, SLICE("id")) &&
           resp_integer(out, (int64_t)l->c->id) && resp_bulk(out, SLICE("mode")) &&
           resp_bulk(out, SLICE("standalone")) && resp_bulk(out, SLICE("role")) &&
           resp_bulk(out, SLICE("master")) && resp_bulk(out, SLICE("modules")) &&
           resp_array(out, 0);
}

/* HELLO [protover [AUTH user password] [SETNAME name]] */
static bool answer_hello(const struct locally *l)
{
    const struct request_view *view = l->view;
    struct slice name = {NULL, 0};
    int64_t version = 2;
    if (view->argc >= 2 && !slice_to_int64(view->argv[1], &version)) {
        return resp_error(l->out, "ERR Protocol version is not an integer or out of range");
    }
    if (version != 2) {
        return resp_error(l->out, "NOPROTO unsupported protocol version");
    }
    for (int i = 2; i < view->argc;) {
        if (arg_is(view, i, "AUTH") && i + 2 < view->nargv) {
            if (!arg_is(view, i + 1, "default")) {
                return resp_error(l->out,
                                  "WRONGPASS invalid username-password pair or user is disabled.");
            }
            i += 3;
        } else if (arg_is(view, i, "SETNAME") && i + 1 < view->nargv) {
            name = view->argv[i + 1];
            if (!is_plain_name(name)) {
                return resp_error(l->out, BAD_NAME);
            }
            i += 2;
        } else {
            struct slice word = i < view->nargv ? view->argv[i] : SLICE("");
            return resp_errorf(l->out, "ERR Syntax error in HELLO option '%.*s'",
                               word.n > 128 ? 128 : (int)word.n, word.p);
        }
    }
    if (name.p != NULL && (profile_of(l->c) == NULL || !set_word(&l->c->profile->name, name))) {
        return false;
    }
    return hello_reply(l);
}

/* ---- CLIENT ----------------------------------------------------------------------------------- */

static bool wrong_arity(const struct locally *l, const char *sub)
{
    return resp_errorf(l->out, "ERR wrong number of arguments for 'client|%s' command", sub);
}

static bool client_setname(const struct locally *l)
{
    if (!is_plain_name(l->view->argv[2])) {
        return resp_error(l->out, BAD_NAME);
    }
    return profile_of(l->c) != NULL && set_word(&l->c->profile->name, l->view->argv[2]) &&
           resp_status(l->out, "OK");
}

static bool client_getname(const struct locally *l)
{
    struct blob *name = l->c->profile == NULL ? NULL : l->c->profile->name;
    return name == NULL ? resp_null(l->out, false) : resp_bulk(l->out, slice_of(name->p, name->n));
}

static bool client_setinfo(const struct locally *l)
{
    bool is_name = arg_is(l->view, 2, "LIB-NAME");
    if (!is_name && !arg_is(l->view, 2, "LIB-VER")) {
        struct slice word = l->view->argv[2];
        return resp_errorf(l->out, "ERR Unrecognized option '%.*s'",
                           word.n > 128 ? 128 : (int)word.n, word.p);
    }
    if (!is_plain_name(l->view->argv[3])) {
        return resp_errorf(l->out, "ERR %s cannot contain spaces, newlines or special characters.",
                           is_name ? "lib-name" : "lib-ver");
    }
    struct client_profile *profile = profile_of(l->c);
    return profile != NULL &&
           set_word(is_name ? &profile->lib_name : &profile->lib_ver, l->view->argv[3]) &&
           resp_status(l->out, "OK");
}

static bool client_id(const struct locally *l)
{
    return resp_integer(l->out, (int64_t)l->c->id);
}

/* NO-EVICT and NO-TOUCH concern how Redis treats a connection; ours to Redis are shared, so the word
 * is taken and has no effect. */
static bool client_no_effect(const struct locally *l)
{
    return arg_is(l->view, 2, "ON") || arg_is(l->view, 2, "OFF")
               ? resp_status(l->out, "OK")
               : resp_error(l->out, "ERR syntax error");
}

static int text_of(const struct blob *blob, const char **text)
{
    *text = blob == NULL ? "" : blob->p;
    return blob == NULL ? 0 : (int)blob->n;
}

/* The fields of Redis's CLIENT INFO that have a meaning here. */
static bool client_info(const struct locally *l)
{
    struct client *c = l->c;
    const char *name, *lib, *ver;
    struct client_profile none = {NULL, NULL, NULL};
    const struct client_profile *profile = c->profile == NULL ? &none : c->profile;
    int name_n = text_of(profile->name, &name);
    int lib_n = text_of(profile->lib_name, &lib);
    int ver_n = text_of(profile->lib_ver, &ver);
    char line[1024];
    int n = snprintf(line, sizeof(line),
                     "id=%llu fd=%d name=%.*s age=%lld idle=%lld db=%u sub=0 psub=0 multi=-1 "
                     "omem=%zu cmd=client|info resp=2 lib-name=%.*s lib-ver=%.*s\n",
                     (unsigned long long)c->id, c->fd, name_n > 256 ? 256 : name_n, name,
                     (long long)((c->worker->now - c->since) / 1000),
                     (long long)((c->worker->now - c->heard) / 1000), c->db, c->out.bytes,
                     lib_n > 256 ? 256 : lib_n, lib, ver_n > 128 ? 128 : ver_n, ver);
    return n > 0 && (size_t)n < sizeof(line) && resp_bulk(l->out, slice_of(line, (size_t)n));
}

static bool answer_client(const struct locally *l)
{
    static const struct {
        const char *name;
        int64_t argc;
        bool (*answer)(const struct locally *l);
    } subs[] = {
        {"setname", 3, client_setname},    {"getname", 2, client_getname},
        {"setinfo", 4, client_setinfo},    {"id", 2, client_id},
        {"info", 2, client_info},          {"no-evict", 3, client_no_effect},
        {"no-touch", 3, client_no_effect},
    };
    static const char *const later[] = {"list",    "kill",     "reply", "tracking",
                                        "caching", "getredir", "pause", "trackinginfo",
                                        "unblock", "unpause",  "help"};
    for (size_t i = 0; i < ARRAY_LEN(subs); i++) {
        if (arg_is(l->view, 1, subs[i].name)) {
            return l->view->argc == subs[i].argc ? subs[i].answer(l) : wrong_arity(l, subs[i].name);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(later); i++) {
        if (arg_is(l->view, 1, later[i])) {
            return resp_errorf(l->out, "ERR 'client|%s' is not available through Nearside yet",
                               later[i]);
        }
    }
    return unknown_subcommand(l, "CLIENT");
}

/* ---- The small ones --------------------------------------------------------------------------- */

static bool answer_ping(const struct locally *l)
{
    if (l->view->argc > 2) {
        return resp_error(l->out, "ERR wrong number of arguments for 'ping' command");
    }
    return l->view->argc == 2 ? resp_bulk(l->out, l->view->argv[1]) : resp_status(l->out, "PONG");
}

static bool answer_reset(const struct locally *l)
{
    l->c->db = l->c->worker->server->conf->upstream_db;
    if (l->c->profile != NULL) {
        blob_unref(l->c->profile->name);
        l->c->profile->name = NULL;
    }
    return resp_status(l->out, "RESET");
}

void local_answer(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    struct locally l = {c, view, client_reply_begin(c)};
    bool ok = true;
    if (l.out == NULL) {
        return;
    }
    switch (cmd->local) {
    case LOCAL_AUTH:
        ok = answer_auth(&l);
        break;
    case LOCAL_CLIENT:
        ok = answer_client(&l);
        break;
    case LOCAL_ECHO:
        ok = resp_bulk(l.out, view->argv[1]);
        break;
    case LOCAL_HELLO:
        ok = answer_hello(&l);
        break;
    case LOCAL_INFO: {
        size_t n = 0;
        char *text = info_section(c->worker, &n);
        ok = text != NULL && resp_bulk(l.out, slice_of(text, n));
        mem_free(text);
        break;
    }
    case LOCAL_PING:
        ok = answer_ping(&l);
        break;
    case LOCAL_QUIT:
        ok = resp_status(l.out, "OK");
        break;
    case LOCAL_READONLY:
    case LOCAL_READWRITE:
        ok = resp_error(l.out, "ERR This instance has cluster support disabled");
        break;
    case LOCAL_RESET:
        ok = answer_reset(&l);
        break;
    case LOCAL_SELECT: /* dispatch.c: it takes a road of its own */
    case LOCAL_HTTP:
        /* a browser was made to send this: closed without a word, as Redis does; forwarded, it would
         * make Redis close the shared connection */
        client_reply_cancel(c);
        client_end(c);
        return;
    case LOCAL_NO:
        break;
    }
    if (!ok) {
        client_close(c);
        return;
    }
    client_reply_end(c);
    if (cmd->local == LOCAL_QUIT) {
        client_end(c);
    }
}

bool local_info_is_ours(const struct request_view *view)
{
    return view->argc == 2 && arg_is(view, 1, "nearside");
}

bool local_info_wants_section(const struct request_view *view)
{
    static const char *const words[] = {"nearside", "all", "everything", "default"};
    if (view->argc == 1) {
        return true;
    }
    for (int i = 1; i < view->nargv; i++) {
        for (size_t w = 0; w < ARRAY_LEN(words); w++) {
            if (arg_is(view, i, words[w])) {
                return true;
            }
        }
    }
    return false;
}

bool local_select(struct client *c, const struct request_view *view, int64_t *db)
{
    struct chain *out;
    bool ok;
    if (!slice_to_int64(view->argv[1], db)) {
        client_reply_error(c, "ERR value is not an integer or out of range");
    } else if (*db < INT32_MIN || *db > INT32_MAX) {
        client_reply_error(c, "ERR value is out of range, value must between %d and %d", INT32_MIN,
                           INT32_MAX);
    } else if (*db < 0) {
        client_reply_error(c, "ERR DB index is out of range");
    } else if (*db != (int64_t)c->db) {
        return true;
    } else if ((out = client_reply_begin(c)) != NULL) {
        ok = resp_status(out, "OK");
        if (ok) {
            client_reply_end(c);
        } else {
            client_close(c);
        }
    }
    return false;
}
