/* SPDX-License-Identifier: Apache-2.0
 *
 * dispatch.h: what becomes of one parsed request: answered from L1, answered here, put on a lease, a
 * lane or a connection of its own, refused, or made to wait (D14). Worker's thread only.
 */
#pragma once

#include "client.h"
#include "../resp/write.h"

enum dispatch {
    DISPATCH_DONE,  /* taken: answered or on its way */
    DISPATCH_STALL, /* not taken: offer it again when an earlier request was answered */
};

/* `owner` is what keeps the request's bytes alive, if it may be referenced, or NULL. */
MUST_CHECK enum dispatch dispatch_request(struct client *c, const struct request_view *view,
                                          struct blob *owner);

/* May dispatch_hits find anything? */
static inline bool dispatch_may_hit(const struct client *c)
{
    const struct server *server = c->worker->server;
    return server->caching && (c->head == NULL || (!server->is_cluster && c->nblocked == 0));
}

/* Does a GET of this client mean nothing but "what is the value"? */
static inline bool dispatch_is_plain(const struct client *c)
{
    return c->pinned == NULL && c->authenticated && !c->switching && !c->expects_multi &&
           !c->multi_refused && !c->replies_off && !c->skips_next;
}

/* What a GET of this client gets for a key that does not exist. */
static inline struct slice dispatch_null(const struct client *c)
{
    return resp_null_text(c->resp3);
}

/* dispatch_request for a GET of which parse_get has told that it is one, from a client that is plain, with
 * L1 and not in a cluster. */
MUST_CHECK enum dispatch dispatch_get(struct client *c, const struct request_view *view,
                                      struct blob *owner);

/* The common case in one go: serves GETs at the start of the input as long as L1 has them, behind what is unanswered if
 * that has nothing to do with them; those that follow and miss are fetched together, if the client is idle or the one before
 * missed, too (it costs as much as a GET in vain). Returns how many bytes they took (at most *share requests, which is
 * counted down), 0 if there is none or the client is not in a state for it; what follows is for
 * dispatch_request. No request may be half parsed, and dispatch_may_hit has to be true. */
size_t dispatch_hits(struct client *c, struct slice in, struct blob *owner, unsigned *share);
/* An MGET of at most DISPATCH_MGET_KEYS keys, which are the request's: answers it if L1 has all of them. May close the
 * client, which counts as answered. */
#define DISPATCH_MGET_KEYS 1024
MUST_CHECK bool dispatch_mget_hits(struct client *c, const struct request_view *view,
                                   struct request *request);
/* A hint, for GETs that go one by one: at how many of them at the start of the input L1 begins to look. */
unsigned dispatch_look_ahead(const struct client *c, struct slice in);

/* Sends the request on a lane, as of class `class` (not GET, MGET or local). */
MUST_CHECK enum dispatch dispatch_forward(struct client *c, const struct cmd *cmd,
                                          enum cmd_class class, const struct request_view *view,
                                          struct blob *owner);
/* May the request, which has its keys, go anywhere? Nothing of its client that it could conflict with
 * is unanswered. */
bool dispatch_is_free(struct client *c, const struct request *request);
/* Fills keys, hashes and `wide` of a request by its command's row; class becomes CMD_UNKNOWN when a
 * write's keys make no sense. False: memory is out. */
MUST_CHECK bool dispatch_collect_keys(struct request *request, const struct cmd *cmd,
                                      const struct request_view *view);

/* A parked GET that was woken with L1_WAKE_RETRY looks again, once (R4); after that it takes a lane. */
void dispatch_again(struct request *request);
/* The same for an MGET whose fill connection was lost, or (may_fetch: false) could not read its db. */
void dispatch_mget_again(struct request *request, bool may_fetch);
