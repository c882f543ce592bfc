/* SPDX-License-Identifier: Apache-2.0
 *
 * pinned.h: connections of one client alone, for what cannot share one: transactions (MULTI, WATCH),
 * subscriptions, MONITOR, and commands that block or could stall others (D8).
 *
 * A client is pinned from the first such command until its session is provably clean again: no MULTI
 * open, nothing watched, nothing subscribed to, nobody else logged in, nothing unanswered. Then the connection goes back to the worker's pool. A
 * client that leaves before that takes its connection with it, so that Redis forgets the rest. When a
 * pinned connection dies its client is closed: as with a direct connection, the session is gone.
 * upstream.max_pinned bounds them. Worker's thread only.
 */
#pragma once

#include "client.h"

struct pause;
struct pinned;

#define PINNED_TOO_MANY "ERR too many clients need a connection of their own (upstream.max_pinned)"

/* Gives the client a connection to the node, in its protocol and this db. False: upstream.max_pinned are
 * in use, and PINNED_TOO_MANY is the answer. */
MUST_CHECK bool pinned_take(struct client *c, uint16_t node, uint32_t db);
/* Is it in the client's db? */
bool pinned_is_at_home(const struct client *c);
/* The connection; conn_accepts tells whether it takes commands. */
struct conn *pinned_conn(struct client *c);
/* The one the request is on, or will be: the same, unless it is about shard channels of another node. */
struct conn *pinned_conn_of(const struct request *request);
/* The node it leads to. */
uint16_t pinned_node(const struct client *c);
/* The client goes on on a connection to that node; nothing is unanswered on the one it had, and nothing
 * subscribed to. One that is somebody else keeps the old one beside it, and has reached the new one. */
void pinned_move(struct client *c, uint16_t node);
/* MULTI is sent ahead of what comes, and its reply will not be seen. */
void pinned_expect_multi(struct client *c);
/* The request was submitted: flushed at the end of the turn. */
void pinned_mark_dirty(const struct request *request);

/* In a cluster, shard channels of several nodes, or somebody else's keys on several nodes: the client has a
 * connection to each, one of which is the one above. Makes sure that there is one to this node. False:
 * upstream.max_pinned are in use. */
MUST_CHECK bool pinned_reach(struct client *c, uint16_t node);
/* A node whose connection has shard channels, or else the one above. */
uint16_t pinned_sharded_node(const struct client *c);
/* Is there one connection only? */
bool pinned_is_alone(const struct client *c);

/* The first piece of the reply says what became of the session; the request is on it. */
void pinned_follow(struct client *c, struct request *request, const struct reply_piece *piece);
/* A command was executed in a transaction, with this reply: HELLO, SELECT, SUBSCRIBE and the like,
 * or MONITOR. */
void pinned_executed(struct client *c, const struct cmd *cmd, const struct request_view *view,
                     struct slice reply);
/* The request (SUBSCRIBE or the like, of argc arguments; or MONITOR) is about to be sent. */
void pinned_stream(struct client *c, struct request *request, int64_t argc);
/* Does the client see things it did not ask for one by one: subscribed, or MONITOR? */
bool pinned_is_streaming(const struct client *c);
/* Subscribed in RESP2: the server refuses nearly everything. */
bool pinned_is_subscriber(const struct client *c);
/* Is it in the middle of a message? Nothing may be said to it before the rest has come. */
bool pinned_is_inside(const struct client *c);
/* Stops reading it until further notice: the client has much to take in already. */
void pinned_hold(struct client *c, bool on);
/* Its client id at the server; 0 if the client has no connection of its own, or it is not up. */
int64_t pinned_peer_id(const struct client *c);
/* For CLIENT LIST: channels, patterns and shard channels, as the confirmations say; keys in WATCH. */
struct pinned_counts {
    int64_t channels, patterns, shards;
    bool monitoring;
    uint32_t watched;
};
struct pinned_counts pinned_counts(const struct client *c);
/* What the EXEC of its transaction will begin, by what was queued; for pause.c. */
struct pause *pinned_pause(struct client *c);
/* If c->multi_grows: the hash of the key that this EXEC is to drop; for session.c. */
uint64_t *pinned_grown(struct client *c);
/* It was to be taken to the client's db; otherwise (`ok` false) nobody knows where it is. */
void pinned_chose_db(struct client *c, bool ok);
/* The client is somebody else than Nearside is (login.h), or (`on` false) no longer. None of its
 * connections is known to be logged in as that, */
void pinned_own(struct client *c, bool on);
bool pinned_is_own(const struct client *c);
/* but the one to that node, from now on; with a HELLO in the protocol of c->resp3, if `greeted`. */
void pinned_enter(struct client *c, uint16_t node, bool greeted);
bool pinned_has_entered(const struct client *c, uint16_t node);
/* It is used for more than transactions and blocking: closed when the client is through with it. */
void pinned_taint(struct client *c);
/* Everything on it has been answered: back to the pool if the session is clean. */
void pinned_settle(struct client *c);
/* The client leaves, or says RESET: closed at the end of the turn. */
void pinned_drop(struct client *c);

/* For the worker. */
void pinned_flush(struct worker *worker);
void pinned_tick(struct worker *worker);
/* Frees what was dropped; from outside all callbacks. */
void pinned_reap(struct worker *worker);
/* Ends all of them. */
void pinned_fini(struct worker *worker);
