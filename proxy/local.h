/* SPDX-License-Identifier: Apache-2.0
 *
 * local.h: commands that concern the client's own connection, answered here in Redis's words: they
 * are never forwarded, because on a shared connection they would change it for everybody. Arity has
 * been checked. Worker's thread only.
 */
#pragma once

#include "dispatch.h"

/* AUTH, ECHO, PING, QUIT, READONLY, READWRITE, and INFO's Nearside section. */
void local_answer(struct client *c, const struct cmd *cmd, const struct request_view *view);

/* CLIENT and its subcommands (local_client.c), which sees to their arity. */
MUST_CHECK enum dispatch local_client(struct client *c, const struct cmd *cmd,
                                      const struct request_view *view);

/* Is it about connections that Redis knows better: of replicas, or of users of its own? */
bool local_client_concerns_redis(const struct client *c, const struct request_view *view);

/* PING and ECHO, while the server may be occupied: forwarded, so that it says so itself (then true). */
bool local_asks_server(struct client *c, const struct cmd *cmd, const struct request_view *view);
/* RESET: a new client's state, but for what it is connected to (dispatch.c). */
void local_reset(struct client *c);

/* SELECT: false when it has been answered already (an error, or the client is in that db); otherwise
 * *db is the one it has to go to. */
MUST_CHECK bool local_select(struct client *c, const struct request_view *view, int64_t *db);

/* What a HELLO says; borrows from the request. */
struct local_greeting {
    struct slice user, password, name;
    bool has_auth, has_name;
    bool logs_in; /* Redis decides whether it may */
    bool resp3;   /* the protocol to answer in */
};

/* HELLO: sees to its options, but for a login that is Redis's business (login.h): then to none. False
 * when it has been answered already, with an error; otherwise who the server is remains to be said. */
MUST_CHECK bool local_hello(struct client *c, const struct request_view *view,
                            struct local_greeting *greeting);

/* INFO: does it ask for the Nearside section alone, or for a text it belongs into? */
bool local_info_is_ours(const struct request_view *view);
bool local_info_wants_section(const struct request_view *view);

#define LOCAL_BAD_NAME "ERR Client names cannot contain spaces, newlines or special characters."

/* How much of an argument an error repeats where Redis has no limit (for "%.*s"). */
static inline int local_shown(struct slice word)
{
    return word.n > (1 << 20) ? 1 << 20 : (int)word.n;
}

/* Is argument i this word, in any case? */
static inline bool local_arg_is(const struct request_view *view, int64_t i, const char *word)
{
    return i < view->nargv && slice_eq_nocase(view->argv[i], slice_str(word));
}
