/* SPDX-License-Identifier: Apache-2.0
 *
 * echo.h: R9. A GET behind its client's own unanswered SET of the key waits for that SET's reply; if that
 * is no error, the value of the SET is the answer, and Redis is not asked. Clients that multiplex an application over
 * one connection would otherwise read every key beside L1 that they have just written.
 *
 * That is what Redis would have answered right behind the SET, and nobody has seen anything newer by then:
 * echo_try says when. If the SET is refused or lost, the GET is read upstream, like one beside L1; but not if
 * a later request for the key is on its way: what the key was before that would be told too late, and the GET is
 * an error. Not in a cluster, where requests wait for redirects.
 * Worker's thread only.
 */
#pragma once

#include "client.h"

/* Longer SETs (in a batch: than that on average) are not kept for it: nobody counts what is kept. */
#define ECHO_BYTES ((size_t)1024)

/* The GET (hash, view; it goes behind all requests so far) is to be answered with the latest unanswered
 * request that names its key, if that is a SET without options and every one of these holds:
 *   - nothing of unknown effect of this client is unanswered, and order is not strict: what lies between the
 *     two could not change the key (R6);
 *   - since before the SET was sent nobody has been answered with anything of the key but its client's own
 *     writes before it (l1_version, echo_write_end), so that G1 and monotonic reads hold;
 *   - that is no longer ago than L: a value overwritten elsewhere is not served longer than that (G3);
 *   - the last such SET was not refused.
 * True: `request`, the worker's spare one, is in the client's queue. False: nothing has happened. */
MUST_CHECK bool echo_try(struct client *c, struct request *request, struct request *last,
                         uint64_t hash, const struct request_view *view, struct blob *owner);

/* Is it a SET whose bytes are to be kept for that? Only for clients that have read like this before: the
 * first such GET of a client is read beside L1. */
static inline bool echo_keeps(const struct client *c, const struct cmd *cmd,
                              const struct request_view *view)
{
    return c->reads_back && view->argc == 3 && view->raw.n <= ECHO_BYTES &&
           strcmp(cmd->name, "set") == 0;
}

/* Is its write ended by echo_write_end? */
static inline bool echo_ends(const struct request *write)
{
    return write->client != NULL && write->client->reads_back;
}

/* l1_write_end of the key of a write, or of the i-th of its batch. That this one is answered takes nothing from
 * the client's later SET of the key: it is older, and on the same connection. */
void echo_write_end(struct request *write, uint32_t i);

/* Out of line: what echo_stored does where there is anything to do. */
void echo_settle(struct request *write, uint64_t was_hit, uint64_t refused);

/* A write, or all of its batch, has its reply, and has settled in L1; bit i is of the i-th command of a batch, bit
 * 0 of a single one. If it is a SET that was kept:
 *   - the GETs behind it are answered, or, if it was refused, sent;
 *   - a key that had been read here before it was written (was_hit), or is being read, is fetched anew: it will be asked for again,
 *     and then it is here already, or on its way, and until it is here the SET's value is known (echo_recall);
 *   - as long as SETs are refused (no memory, disk full, a replica), none is waited for: the GETs between two of
 *     them could only be answered with an error.
 * May close the client. */
static inline void echo_stored(struct request *write, uint64_t was_hit, uint64_t refused)
{
    if (unlikely((was_hit | refused) != 0 || write->echoes != NULL || write->worker->no_echoes) &&
        write->class == CMD_WRITE && write->raw.n > 0) {
        echo_settle(write, was_hit, refused);
    }
}

/* Is the key's value that of a SET which was answered, fetched anew, and not yet there? Under the conditions of
 * echo_try. Only while worker->recents is not NULL. The value is valid until something is sent. */
MUST_CHECK bool echo_recall(const struct client *c, uint64_t hash, const struct request_view *view,
                            struct slice *value);
void echo_fini(struct worker *worker);

/* The SET will have no reply, or its client an error instead: what waits behind it goes upstream. `in_order`: what
 * came behind it is lost as well, and told after it. May close the client. */
void echo_give_up(struct request *set, bool in_order);

/* The client is going, and takes what waits with it. */
void echo_forget(struct request *set);
