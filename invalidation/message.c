/* SPDX-License-Identifier: Apache-2.0
 *
 * message.c: one pass over the bytes of a message. `at` only moves forward, and never past `end`.
 */
#include "message.h"

struct cursor {
    const char *at, *end;
};

/* "Tn\r\n": the type byte and its number. */
static bool take_head(struct cursor *c, char *type, int64_t *n)
{
    const char *cr = c->at == c->end ? NULL : memchr(c->at, '\r', (size_t)(c->end - c->at));
    if (cr == NULL || c->end - cr < 2 || cr[1] != '\n') {
        return false;
    }
    struct slice digits = slice_of(c->at + 1, (size_t)(cr - c->at - 1));
    *type = *c->at;
    *n = -1;
    if (*type != '_' && !slice_to_int64(digits, n)) {
        return false;
    }
    c->at = cr + 2;
    return true;
}

/* A bulk string that is not null. Leaves the cursor where it was if there is none. */
static bool take_string(struct cursor *c, struct slice *s)
{
    struct cursor from = *c;
    char type = 0;
    int64_t n = 0;
    if (!take_head(c, &type, &n) || type != '$' || n < 0 || c->end - c->at < 2 ||
        n > c->end - c->at - 2) {
        *c = from;
        return false;
    }
    *s = slice_of(c->at, (size_t)n);
    c->at += n + 2;
    return true;
}

/* All of n strings are there, and nothing behind them. */
static bool are_strings(struct cursor c, int64_t n)
{
    struct slice key;
    for (; n > 0; n--) {
        if (!take_string(&c, &key)) {
            return false;
        }
    }
    return c.at == c.end;
}

static void take_payload(struct message *m, struct cursor c)
{
    char type = 0;
    int64_t n = 0;
    if (take_string(&c, &m->text)) {
        m->kind = c.at == c.end ? MESSAGE_TEXT : MESSAGE_STRANGE;
        return;
    }
    m->kind = MESSAGE_STRANGE;
    if (!take_head(&c, &type, &n)) {
        return;
    }
    if (n == -1 && c.at == c.end) {
        m->kind = MESSAGE_NULL;
    } else if (type == '*' && n > 0 && are_strings(c, n)) {
        m->kind = MESSAGE_KEYS;
        m->nkeys = (size_t)n;
        m->at = c.at;
        m->end = c.end;
    }
}

struct message message_parse(struct slice bytes)
{
    struct message m = {.kind = MESSAGE_ODD, .channel = SLICE(""), .text = SLICE("")};
    struct cursor c = {bytes.p, bytes.p + bytes.n};
    struct slice word;
    char type = 0;
    int64_t n = 0;
    if (!take_head(&c, &type, &n) || type != '*' || !take_string(&c, &word)) {
        return m;
    }
    bool is_message = (slice_eq(word, SLICE("message")) && n == 3) ||
                      (slice_eq(word, SLICE("pmessage")) && n == 4 && take_string(&c, &word));
    if (is_message) {
        if (take_string(&c, &m.channel)) {
            take_payload(&m, c);
        }
    } else if (slice_eq(word, SLICE("pong")) && n == 2) {
        m.kind = MESSAGE_PONG;
    } else if (slice_eq(word, SLICE("unsubscribe")) || slice_eq(word, SLICE("punsubscribe"))) {
        m.kind = MESSAGE_END;
    } else if (slice_eq(word, SLICE("subscribe")) || slice_eq(word, SLICE("psubscribe"))) {
        m.kind = MESSAGE_BEGIN;
    }
    return m;
}

bool message_next_key(struct message *m, struct slice *key)
{
    struct cursor c = {m->at, m->end};
    if (m->kind != MESSAGE_KEYS || m->at == m->end || !take_string(&c, key)) {
        return false;
    }
    m->at = c.at;
    return true;
}

size_t message_strings(struct slice bytes, struct slice *strings, size_t max)
{
    struct cursor c = {bytes.p, bytes.p + bytes.n};
    char type = 0;
    int64_t n = 0;
    if (!take_head(&c, &type, &n) || type != '*' || n < 0 || !are_strings(c, n)) {
        return 0;
    }
    for (size_t i = 0; i < max && i < (size_t)n; i++) {
        (void)take_string(&c, &strings[i]);
    }
    return (size_t)n;
}

bool message_take_string(struct slice *bytes, struct slice *string)
{
    struct cursor c = {bytes->p, bytes->p + bytes->n};
    if (!take_string(&c, string)) {
        return false;
    }
    *bytes = slice_of(c.at, (size_t)(c.end - c.at));
    return true;
}
