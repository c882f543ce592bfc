/* SPDX-License-Identifier: Apache-2.0
 *
 * local_client.c: CLIENT. One function per subcommand, in a table; those about other clients start a
 * census. Texts and order of checks are Redis 7's, and Valkey 8's
 * where it is that.
 */
#include "local.h"

#include "census.h"
#include "login.h"
#include "nodes.h"
#include "profile.h"
#include "../resp/write.h"

#include "../conf/mem.h"

/* Of an argument, in an error: as Redis, where it has a limit. */
#define SHOWN_MAX 128

#define BAD_ID "ERR client-id should be greater than 0"

struct asked {
    struct client *c;
    const struct cmd *cmd;
    const struct request_view *view;
};

static int shown(struct slice word)
{
    return word.n > SHOWN_MAX ? SHOWN_MAX : (int)word.n;
}

static void unknown_subcommand(const struct asked *a)
{
    struct slice sub = a->view->argv[1];
    client_reply_error(a->c, "ERR unknown subcommand '%.*s'. Try CLIENT HELP.", shown(sub), sub.p);
}

static void syntax_error(const struct asked *a)
{
    client_reply_error(a->c, "ERR syntax error");
}

static void reply_ok(struct client *c)
{
    struct chain *out = client_reply_begin(c);
    if (out != NULL) {
        client_reply_finish(c, resp_status(out, "OK"));
    }
}

static void reply_integer(struct client *c, int64_t n)
{
    struct chain *out = client_reply_begin(c);
    if (out != NULL) {
        client_reply_finish(c, resp_integer(out, n));
    }
}

/* Which servers know a subcommand. */
enum since { ALWAYS, REDIS_72, VALKEY_80 };

static bool is_known_since(const struct asked *a, enum since since)
{
    const struct server *server = a->c->worker->server;
    return since == ALWAYS || (since == REDIS_72 && nodes_are_at_least(server, 7, 2)) ||
           (since == VALKEY_80 && nodes_are_valkey(server, 8, 0));
}

static bool has_max_age(const struct asked *a)
{
    const struct server *server = a->c->worker->server;
    return nodes_are_at_least(server, 7, 4) || nodes_are_valkey(server, 8, 0);
}

/* CLIENT LIST takes what CLIENT KILL takes, and ID several of them; UNBLOCK ignores what follows. */
static bool has_filters_of_valkey(const struct asked *a)
{
    return nodes_are_valkey(a->c->worker->server, 8, 1);
}

/* ---- About itself --------------------------------------------------------------------------- */

static void set_name(const struct asked *a)
{
    if (!profile_is_plain(a->view->argv[2])) {
        client_reply_error(a->c, LOCAL_BAD_NAME);
    } else if (profile_set_name(a->c, a->view->argv[2])) {
        reply_ok(a->c);
    } else {
        client_close(a->c);
    }
}

static void get_name(const struct asked *a)
{
    struct slice name = profile_name(a->c);
    struct chain *out = client_reply_begin(a->c);
    if (out != NULL) {
        client_reply_finish(a->c, name.n == 0 ? resp_null(out, a->c->resp3) : resp_bulk(out, name));
    }
}

static void set_info(const struct asked *a)
{
    bool is_name = local_arg_is(a->view, 2, "LIB-NAME");
    struct slice word = a->view->argv[2];
    if (!is_name && !local_arg_is(a->view, 2, "LIB-VER")) {
        client_reply_error(a->c, "ERR Unrecognized option '%.*s'", local_shown(word), word.p);
    } else if (!profile_is_plain(a->view->argv[3])) {
        client_reply_error(a->c, "ERR %.*s cannot contain spaces, newlines or special characters.",
                           shown(word), word.p);
    } else if (profile_set_library(a->c, !is_name, a->view->argv[3])) {
        reply_ok(a->c);
    } else {
        client_close(a->c);
    }
}

static void id(const struct asked *a)
{
    reply_integer(a->c, (int64_t)a->c->id);
}

static void info(const struct asked *a)
{
    struct chain line;
    struct chain *out = client_reply_begin(a->c);
    if (out == NULL) {
        return;
    }
    chain_init(&line);
    bool ok = profile_line(a->c, a->cmd->name, a->view->raw.n, &line) &&
              resp_verbatim_begin(out, line.bytes, a->c->resp3);
    if (ok) {
        chain_splice(out, &line);
        ok = chain_append(out, SLICE("\r\n"));
    }
    chain_fini(&line);
    client_reply_finish(a->c, ok);
}

/* NO-EVICT and NO-TOUCH concern how Redis treats a connection; ours to Redis are shared, so the word
 * is taken and has no effect. */
static void no_effect(const struct asked *a)
{
    bool evict = strcmp(a->cmd->name, "client|no-evict") == 0;
    bool on = local_arg_is(a->view, 2, "ON");
    if (!on && !local_arg_is(a->view, 2, "OFF")) {
        syntax_error(a);
    } else {
        if (evict) {
            a->c->no_evict = on;
        } else {
            a->c->no_touch = on;
        }
        reply_ok(a->c);
    }
}

/* Nobody is redirected from here: Nearside follows the primary itself. */
static void claim(const struct asked *a)
{
    struct arg_walk walk;
    struct slice word;
    arg_walk_init(&walk, a->view);
    while (arg_walk_next(&walk, &word)) {
        if (slice_eq_nocase(word, SLICE("REDIRECT")) && !profile_set_redirects(a->c)) {
            client_close(a->c);
            return;
        }
    }
    reply_ok(a->c);
}

static void reply(const struct asked *a)
{
    struct client *c = a->c;
    if (local_arg_is(a->view, 2, "ON")) {
        c->replies_off = c->skips_this = false;
        reply_ok(c);
    } else if (local_arg_is(a->view, 2, "OFF")) {
        c->replies_off = true;
    } else if (local_arg_is(a->view, 2, "SKIP")) {
        c->skips_next = !c->replies_off;
    } else {
        syntax_error(a);
    }
}

/* ---- Tracking ------------------------------------------------------------------------------- */

static void get_redirection(const struct asked *a)
{
    reply_integer(a->c, -1);
}

static void tracking_info(const struct asked *a)
{
    bool resp3 = a->c->resp3;
    struct chain *out = client_reply_begin(a->c);
    if (out != NULL) {
        client_reply_finish(a->c, resp_map(out, 3, resp3) && resp_bulk(out, SLICE("flags")) &&
                                      resp_set(out, 1, resp3) && resp_bulk(out, SLICE("off")) &&
                                      resp_bulk(out, SLICE("redirect")) && resp_integer(out, -1) &&
                                      resp_bulk(out, SLICE("prefixes")) && resp_array(out, 0));
    }
}

static void caching(const struct asked *a)
{
    client_reply_error(a->c, "ERR CLIENT CACHING can be called only when the client is in tracking "
                             "mode with OPTIN or OPTOUT mode enabled");
}

static void tracking(const struct asked *a)
{
    if (local_arg_is(a->view, 2, "OFF") && a->view->argc == 3) {
        reply_ok(a->c);
    } else if (local_arg_is(a->view, 2, "ON") || local_arg_is(a->view, 2, "OFF")) {
        client_reply_error(a->c, "ERR CLIENT TRACKING is not available through Nearside, which "
                                 "keeps a coherent cache itself");
    } else {
        syntax_error(a);
    }
}

/* ---- About others --------------------------------------------------------------------------- */

static struct census *begin_census(const struct asked *a, enum census_kind kind)
{
    struct census *census = census_create(kind);
    if (census == NULL) {
        client_close(a->c);
    }
    return census;
}

static void start_census(const struct asked *a, struct census *census)
{
    if (census != NULL) {
        census_start(a->c, a->cmd, a->view->raw.n, census);
    }
}

static bool read_type(struct slice word, enum census_type *type)
{
    static const struct {
        const char *word;
        enum census_type type;
    } types[] = {
        {"normal", CENSUS_NORMAL},
        {"pubsub", CENSUS_PUBSUB},
    };
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (slice_eq_nocase(word, slice_str(types[i].word))) {
            *type = types[i].type;
            return true;
        }
    }
    return false;
}

static void unknown_type(const struct asked *a, struct slice word)
{
    client_reply_error(a->c, "ERR Unknown client type '%.*s'", local_shown(word), word.p);
}

/* Room for so many, unless there is some. False: memory is out and the client closed. */
static bool has_ids(const struct asked *a, struct census_filter *filter, size_t n)
{
    if (filter->ids == NULL) {
        filter->ids = mem_try(n * sizeof(*filter->ids));
    }
    if (filter->ids == NULL) {
        client_close(a->c);
    }
    return filter->ids != NULL;
}

/* The ids that follow argument 2. False: answered with an error. */
static bool read_ids(const struct asked *a, struct census_filter *filter)
{
    struct arg_walk walk;
    struct slice word;
    if (!has_ids(a, filter, (size_t)a->view->argc - 3)) {
        return false;
    }
    arg_walk_init(&walk, a->view);
    for (size_t i = 0; arg_walk_next(&walk, &word); i++) {
        int64_t value;
        if (i < 3) {
            continue;
        }
        if (!slice_to_int64(word, &value)) {
            client_reply_error(a->c, "ERR Invalid client ID");
            return false;
        }
        filter->ids[filter->nids++] = (uint64_t)value;
    }
    return true;
}

static bool copy_word(char *out, size_t max, struct slice word)
{
    size_t n = word.n < max - 1 ? word.n : max - 1;
    memcpy(out, word.p, n);
    out[n] = '\0';
    return true;
}

static bool read_id(const struct asked *a, struct slice word, struct census_filter *filter)
{
    int64_t value;
    if (!slice_to_int64(word, &value) || value < 1) {
        client_reply_error(a->c, BAD_ID);
        return false;
    }
    if (!has_ids(a, filter, 1)) {
        return false;
    }
    filter->ids[0] = (uint64_t)value;
    filter->nids = 1;
    return true;
}

static bool read_age(const struct asked *a, struct slice word, struct census_filter *filter)
{
    if (!slice_to_int64(word, &filter->max_age)) {
        client_reply_error(a->c, "ERR maxage is not an integer or out of range");
        return false;
    }
    if (filter->max_age < 1) {
        client_reply_error(a->c, "ERR maxage should be greater than 0");
        return false;
    }
    return true;
}

/* One "OPTION value" of CLIENT KILL. False: answered with an error. */
static bool read_option(const struct asked *a, struct slice option, struct slice value,
                        struct census_filter *filter)
{
    if (slice_eq_nocase(option, SLICE("ID"))) {
        return read_id(a, value, filter);
    }
    if (slice_eq_nocase(option, SLICE("TYPE"))) {
        if (!read_type(value, &filter->type)) {
            unknown_type(a, value);
            return false;
        }
        return true;
    }
    if (slice_eq_nocase(option, SLICE("ADDR"))) {
        return copy_word(filter->addr, sizeof(filter->addr), value);
    }
    if (slice_eq_nocase(option, SLICE("LADDR"))) {
        return copy_word(filter->laddr, sizeof(filter->laddr), value);
    }
    if (slice_eq_nocase(option, SLICE("USER"))) {
        blob_unref(filter->user);
        filter->user = blob_try_copy(value);
        if (filter->user == NULL) {
            client_close(a->c);
        }
        return filter->user != NULL;
    }
    if (slice_eq_nocase(option, SLICE("MAXAGE")) && has_max_age(a)) {
        return read_age(a, value, filter);
    }
    if (slice_eq_nocase(option, SLICE("SKIPME"))) {
        bool yes = slice_eq_nocase(value, SLICE("yes"));
        filter->skips_self = yes;
        if (yes || slice_eq_nocase(value, SLICE("no"))) {
            return true;
        }
    }
    syntax_error(a);
    return false;
}

/* Valkey: numbers up to the next word that is none, which is left in *word. */
static bool read_several_ids(const struct asked *a, struct arg_walk *walk, struct slice *word,
                             bool *more, struct census_filter *filter)
{
    int64_t value;
    if (!has_ids(a, filter, (size_t)a->view->argc)) {
        return false;
    }
    while ((*more = arg_walk_next(walk, word)) && slice_to_int64(*word, &value)) {
        if (value < 1) {
            client_reply_error(a->c, BAD_ID);
            return false;
        }
        filter->ids[filter->nids++] = (uint64_t)value;
    }
    return true;
}

/* What follows CLIENT KILL, and on Valkey CLIENT LIST. False: answered with an error. */
static bool read_options(const struct asked *a, struct census_filter *filter)
{
    bool several = has_filters_of_valkey(a);
    struct arg_walk walk;
    struct slice option;
    struct slice value;
    bool more = true;
    arg_walk_init(&walk, a->view);
    for (int i = 0; i < 3 && more; i++) { /* CLIENT KILL, and the first of them */
        more = arg_walk_next(&walk, &option);
    }
    while (more) {
        if (several && slice_eq_nocase(option, SLICE("ID"))) {
            if (!read_several_ids(a, &walk, &option, &more, filter)) {
                return false;
            }
            continue;
        }
        if (!arg_walk_next(&walk, &value)) {
            syntax_error(a);
            return false;
        }
        if (!read_option(a, option, value, filter)) {
            return false;
        }
        more = arg_walk_next(&walk, &option);
    }
    return true;
}

/* [TYPE type | ID id ...]. False: answered with an error. */
static bool read_list(const struct asked *a, struct census_filter *filter)
{
    const struct request_view *view = a->view;
    if (view->argc == 2) {
        return true;
    }
    if (view->argc > 3 && has_filters_of_valkey(a)) {
        return read_options(a, filter);
    }
    if (view->argc > 3 && local_arg_is(view, 2, "ID")) {
        return read_ids(a, filter);
    }
    if (view->argc != 4 || !local_arg_is(view, 2, "TYPE")) {
        syntax_error(a);
        return false;
    }
    if (!read_type(view->argv[3], &filter->type)) {
        unknown_type(a, view->argv[3]);
        return false;
    }
    return true;
}

static void list(const struct asked *a)
{
    struct census *census = begin_census(a, CENSUS_LIST);
    if (census == NULL) {
        return;
    }
    if (read_list(a, census_filter(census))) {
        start_census(a, census);
    } else {
        census_destroy(census);
    }
}

static void kill_clients(const struct asked *a)
{
    bool by_address = a->view->argc == 3;
    struct census *census = begin_census(a, by_address ? CENSUS_KILL_ADDRESS : CENSUS_KILL);
    if (census == NULL) {
        return;
    }
    struct census_filter *filter = census_filter(census);
    filter->skips_self = !by_address;
    if (by_address ? copy_word(filter->addr, sizeof(filter->addr), a->view->argv[2])
                   : read_options(a, filter)) {
        start_census(a, census);
    } else {
        census_destroy(census);
    }
}

static void unblock(const struct asked *a)
{
    const struct request_view *view = a->view;
    int64_t client;
    bool error = view->argc == 4 && local_arg_is(view, 3, "ERROR");
    if (view->argc > 4 && !has_filters_of_valkey(a)) {
        client_reply_error(a->c,
                           "ERR unknown subcommand or wrong number of arguments for '%.*s'. Try "
                           "CLIENT HELP.",
                           shown(view->argv[1]), view->argv[1].p);
        return;
    }
    if (view->argc == 4 && !error && !local_arg_is(view, 3, "TIMEOUT")) {
        client_reply_error(a->c, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
        return;
    }
    if (!slice_to_int64(view->argv[2], &client)) {
        client_reply_error(a->c, "ERR value is not an integer or out of range");
        return;
    }
    struct census *census = begin_census(a, CENSUS_UNBLOCK);
    if (census == NULL) {
        return;
    }
    struct census_filter *filter = census_filter(census);
    filter->ids = mem_try(sizeof(*filter->ids));
    if (filter->ids == NULL) {
        census_destroy(census);
        client_close(a->c);
        return;
    }
    filter->ids[0] = (uint64_t)client;
    filter->nids = 1;
    if (error) {
        census_unblock_with_error(census);
    }
    start_census(a, census);
}

/* KILL of nothing but a USER who is not the one Nearside is: those have connections of their own. */
static bool kills_user(const struct client *c, const struct request_view *view)
{
    bool kills = false;
    if (!local_arg_is(view, 1, "KILL") || !login_is_at_redis(c->worker->server) ||
        c->worker->server->is_cluster) {
        return false;
    }
    for (int i = 2; i + 1 < view->nargv; i += 2) {
        if (local_arg_is(view, i, "USER")) {
            kills = !login_is_ours(c->worker->server, view->argv[i + 1]);
        } else if (!local_arg_is(view, i, "SKIPME")) {
            return false;
        }
    }
    return kills;
}

/* LIST or KILL of TYPE master, primary or replica: those are connections of the server. */
static bool concerns_replication(const struct request_view *view)
{
    if (!local_arg_is(view, 1, "LIST") && !local_arg_is(view, 1, "KILL")) {
        return false;
    }
    for (int i = 2; i + 1 < view->nargv; i++) {
        if (local_arg_is(view, i, "TYPE") &&
            (local_arg_is(view, i + 1, "master") || local_arg_is(view, i + 1, "primary") ||
             local_arg_is(view, i + 1, "replica") || local_arg_is(view, i + 1, "slave"))) {
            return true;
        }
    }
    return false;
}

bool local_client_concerns_redis(const struct client *c, const struct request_view *view)
{
    return concerns_replication(view) || kills_user(c, view);
}

enum dispatch local_client(struct client *c, const struct cmd *cmd, const struct request_view *view)
{
    static const struct {
        const char *name;
        void (*answer)(const struct asked *a);
        enum since since;
    } subs[] = {
        {"client|caching", caching, ALWAYS},
        {"client|capa", claim, VALKEY_80},
        {"client|getname", get_name, ALWAYS},
        {"client|getredir", get_redirection, ALWAYS},
        {"client|id", id, ALWAYS},
        {"client|info", info, ALWAYS},
        {"client|kill", kill_clients, ALWAYS},
        {"client|list", list, ALWAYS},
        {"client|no-evict", no_effect, ALWAYS},
        {"client|no-touch", no_effect, REDIS_72},
        {"client|reply", reply, ALWAYS},
        {"client|setinfo", set_info, REDIS_72},
        {"client|setname", set_name, ALWAYS},
        {"client|tracking", tracking, ALWAYS},
        {"client|trackinginfo", tracking_info, ALWAYS},
        {"client|unblock", unblock, ALWAYS},
    };
    struct asked a = {c, cmd, view};
    if (local_client_concerns_redis(c, view)) {
        return dispatch_forward(c, cmd, CMD_NONE, view, NULL);
    }
    size_t i = 0;
    while (i < ARRAY_LEN(subs) && strcmp(cmd->name, subs[i].name) != 0) {
        i++;
    }
    bool known = i < ARRAY_LEN(subs) && is_known_since(&a, subs[i].since);
    if (!known && view->argc > 1) {
        unknown_subcommand(&a);
    } else if (!cmd_arity_ok(cmd, view->argc)) {
        client_reply_error(c, "ERR wrong number of arguments for '%s' command", cmd->name);
    } else {
        subs[i].answer(&a);
    }
    return DISPATCH_DONE;
}
