/* SPDX-License-Identifier: Apache-2.0
 *
 * message.h: what a subscriber connection says, once it is whole: takes a RESP array apart into a
 * Pub/Sub message, a PONG or something else. Bytes are the peer's: lengths are checked although
 * the framer has seen them. No memory is taken; everything found is borrowed from the bytes.
 */
#pragma once

#include "../resp/bytes.h"

enum message_kind {
    MESSAGE_ODD,     /* not an array, or of no shape known here */
    MESSAGE_PONG,    /* ["pong", text] */
    MESSAGE_TEXT,    /* ["message", channel, text], ["pmessage", pattern, channel, text] */
    MESSAGE_KEYS,    /* ["message", channel, [key, ...]]: at least one, all strings */
    MESSAGE_NULL,    /* ["message", channel, null], in any of the three encodings */
    MESSAGE_STRANGE, /* ["message", channel, anything else] */
    MESSAGE_END,     /* ["unsubscribe", ...], ["punsubscribe", ...]: the subscription is over */
    MESSAGE_BEGIN,   /* ["subscribe", ...], ["psubscribe", ...] */
};

struct message {
    enum message_kind kind;
    struct slice channel;
    struct slice text; /* of TEXT */
    size_t nkeys;      /* of KEYS; message_next_key walks through them */
    const char *at, *end;
};

/* Never fails: what it cannot make out is MESSAGE_ODD. */
struct message message_parse(struct slice bytes);
/* False when there is none left. */
bool message_next_key(struct message *m, struct slice *key);

/* Takes a bulk string off the front of *bytes; false, and *bytes as it was, when there is none. */
MUST_CHECK bool message_take_string(struct slice *bytes, struct slice *string);
/* The elements of an array of strings, of which at most `max` are looked at; returns how many it has,
 * or 0 when it is not one. */
size_t message_strings(struct slice bytes, struct slice *strings, size_t max);
