/* SPDX-License-Identifier: Apache-2.0
 *
 * reply.h: one reply (RESP2 or RESP3) as a small tree, and as a line of text that tests compare with.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Types beside RESP's own first bytes. A connection that ends, stays silent or sends nonsense gives
 * a reply like any other, so that a test can expect it. */
enum {
    REPLY_CLOSED = 'c',  /* the peer closed, nothing was half sent */
    REPLY_CUT = 'x',     /* the peer closed in the middle of a reply */
    REPLY_TIMEOUT = 't', /* nothing, or only a part, arrived in time */
    REPLY_GARBAGE = 'g', /* not RESP */
};

struct reply {
    int type; /* '+' '-' ':' '$' '*', RESP3's '_' '#' ',' '(' '=' '%' '~' '>', or one of the above */
    bool null;  /* $-1 or *-1 */
    char *text; /* of + - $ = # , ( and garbage, NUL-terminated behind its n bytes */
    size_t n;
    long long integer;
    size_t items; /* of * ~ > and, keys and values counted apart, % */
    struct reply **item;
};

/* What a reply is read from: the next line without its CRLF, and the next n bytes. Both give NULL
 * when that cannot be had, having set *why to REPLY_CLOSED, REPLY_TIMEOUT or REPLY_GARBAGE. */
struct reply_source {
    const char *(*line)(void *ctx, size_t *n, int *why);
    const char *(*bytes)(void *ctx, size_t n, int *why);
    void *ctx;
};

/* Reads one reply. Returns owned, never NULL. */
struct reply *reply_read(const struct reply_source *source);
/* Accepts NULL. */
void reply_free(struct reply *reply);

/* The reply as text, owned by the caller: "+OK", "-ERR no", ":1", "$value", "nil", "[$a :1 nil]",
 * "nil array", "closed", "cut", "timeout", "garbage ...". Of RESP3: "_", "#t", ",1.5", "(123",
 * "=txt:text", a map "%[$key :1]", a set "~[$a $b]", a push ">[$message $ch $text]". A bulk of more
 * than 1,000 bytes is given by its length: "$(65536 bytes)". */
char *reply_show(const struct reply *reply);
