/* SPDX-License-Identifier: Apache-2.0
 *
 * stream.h: what a pinned connection says that answers no request: messages to a subscriber, lines of
 * MONITOR. They are told from replies and passed to the client at once, in the order in which the
 * server sent them. Embedded in struct pinned; worker's thread only.
 *
 * RESP3 marks them (">"). In RESP2 an array whose first element is "message" and the like is one, and
 * behind MONITOR a status line that begins with a digit. SUBSCRIBE and its kin are answered with one
 * confirmation for each channel; together they count as one reply.
 */
#pragma once

#include "client.h"

/* Of an array, so much is looked at before it is known what it is. */
#define STREAM_HEAD 32
/* And so much of its end is kept: ":<count>\r\n" of a confirmation. */
#define STREAM_TAIL 24

enum stream_phase {
    STREAM_ANSWER,  /* the reply that is arriving answers a request */
    STREAM_HEADING, /* an array of which too little is here */
    STREAM_CONFIRM, /* a confirmation */
    STREAM_MESSAGE, /* neither */
    STREAM_HIDDEN, /* a line of MONITOR about upkeep, or for a client that has turned replies off */
};

struct stream {
    bool active; /* SUBSCRIBE, MONITOR or the like was sent: from now on replies are looked at */
    bool monitoring;
    bool resp3; /* as its connection speaks now: arrays are never messages */
    int64_t channels, patterns, shards; /* subscribed to, as the confirmations say */
    int64_t
        elsewhere; /* shard channels the client has on other nodes: counted in what it is told */

    struct request *asking; /* SUBSCRIBE or the like that awaits confirmations, or NULL */
    int64_t left;           /* how many */
    bool begun;             /* the first of them has been handed on */

    enum stream_phase phase;
    bool inside; /* a message has begun and not ended */
    char head[STREAM_HEAD];
    size_t nhead;
    char tail[STREAM_TAIL];
    size_t ntail;
    struct slice kind;    /* of a confirmation; static text */
    struct chain confirm; /* what has arrived of one whose count is to be changed */
};

/* Is it SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE or the contrary of one? */
bool stream_is_subscription(const struct cmd *cmd);
/* SSUBSCRIBE or SUNSUBSCRIBE? */
bool stream_is_sharded(const struct cmd *cmd);
static inline bool stream_is_on(const struct stream *s)
{
    return s->monitoring || s->channels + s->patterns + s->shards > 0;
}

/* Is it a message, as RESP3 marks them? */
bool stream_is_message(struct slice push);
/* The command, queued in a transaction, was executed, and this is its confirmation. */
void stream_executed(struct stream *s, const struct cmd *cmd, struct slice confirmation);

/* Has the client a part of a message, and is to get the rest before anything else? */
static inline bool stream_is_inside(const struct stream *s)
{
    return s->inside;
}

void stream_init(struct stream *s);
void stream_fini(struct stream *s);
/* The request (SUBSCRIBE or the like, of argc arguments) is about to be sent. */
void stream_ask(struct stream *s, struct request *request, int64_t argc);

/* The `stray` and `push` events of the connection (conn.h). c may be NULL: it has left. */
bool stream_stray(struct stream *s, struct conn *conn, struct client *c,
                  const struct reply_piece *piece);
void stream_push(struct stream *s, struct conn *conn, struct client *c, const struct push *push);
