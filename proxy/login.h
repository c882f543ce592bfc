/* SPDX-License-Identifier: Apache-2.0
 *
 * login.h: clients that log in at Redis. Without proxy.password, AUTH and HELLO ... AUTH are Redis's
 * business. They are said on a connection of the client's own, and who is somebody else from then on than
 * Nearside is (upstream.user) keeps that connection until RESET, the end, or a login as the one Nearside is:
 * everything it sends goes there, and nothing is answered from L1, since what it may read only Redis knows.
 * In a cluster it has such a connection to each node its commands go to, and what it said is said again on
 * the others, before anything of its own is. Worker's thread only.
 */
#pragma once

#include "local.h"

/* Are logins Redis's business? */
bool login_is_at_redis(const struct server *server);
/* Are they, and does Redis ask for one from who says nothing, as far as is known? */
bool login_is_asked(const struct server *server);
/* Is it the user Nearside is, with Redis or with its own clients? */
bool login_is_ours(const struct server *server, struct slice user);
/* Has the client not logged in anywhere, where it has to? It gets little memory. */
static inline bool login_is_stranger(const struct client *c)
{
    return unlikely(!c->authenticated) ||
           (unlikely(c->anonymous) && login_is_asked(c->worker->server));
}

/* Is the client somebody else than Nearside is, or does it serve a part of such a one's command (fanout.h)? */
bool login_is_own(const struct client *c);

/* Takes as long for a wrong password as for one that is wrong at its end only. */
bool login_is_password(const char *password, struct slice said);
/* Is that what Nearside itself says to Redis? Then nobody has to be asked. */
bool login_is_known(const struct client *c, struct slice user, struct slice password);

/* What is otherwise answered here: with a login at Redis, or while one is asked for, Redis decides who
 * may. True: seen to, *result is what became of it. */
MUST_CHECK bool login_takes(struct client *c, const struct cmd *cmd,
                            const struct request_view *view, struct blob *owner,
                            enum dispatch *result);
/* HELLO ... AUTH; nothing is unanswered. */
MUST_CHECK enum dispatch login_greet(struct client *c, const struct cmd *cmd,
                                     const struct request_view *view,
                                     const struct local_greeting *greeting);

/* The first piece of a login's reply came, good (`ok`) or bad; other requests are ignored. */
void login_follow(struct client *c, struct request *request, bool ok);
/* It was not sent, because Redis has begun to ask for logins and does not even let choose a db before.
 * True: it is sent again. */
MUST_CHECK bool login_again(struct request *request);
/* A piece of the reply to a request that `reselects`. True: of SELECT's, which nobody is to see. */
MUST_CHECK bool login_reselected(struct request *request, const struct reply_piece *piece);
/* In a cluster: the request, which is on the client's own connection to request->node and keeps its bytes, is
 * sent when the client has logged in there. */
void login_enter(struct client *c, struct request *request);
/* A piece of the reply to that. False: it is a refusal, and the request's answer; otherwise it was taken. */
MUST_CHECK bool login_entered(struct request *request, const struct reply_piece *piece);
/* A piece of a probe's reply. False: it is a refusal, and the client's answer; otherwise it was taken, and
 * with the last piece the request may be gone, and its client closed. */
MUST_CHECK bool login_probed(struct request *request, const struct reply_piece *piece);
