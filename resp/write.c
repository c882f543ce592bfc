/* SPDX-License-Identifier: Apache-2.0
 *
 * write.c: replies and commands as bytes.
 *
 * Every function works out how long its piece is at most, reserves that once, writes it and commits
 * what it wrote. So a piece is queued whole or not at all, and memory can only run out before the
 * first byte. Values that lie in a blob are not for here: their owner queues header, reference and
 * CRLF itself.
 *
 * A line (status, error) may carry a peer's text, so CR and LF never get through: whoever could put
 * them there could forge replies.
 */
#include "write.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

#define CRLF_LEN 2

static char *put_crlf(char *at)
{
    at[0] = '\r';
    at[1] = '\n';
    return at + CRLF_LEN;
}

static char *put_bytes(char *at, struct slice s)
{
    if (s.n > 0) {
        memcpy(at, s.p, s.n);
    }
    return at + s.n;
}

static __attribute__((noinline)) size_t long_header(char *dst, char type, int64_t n)
{
    char digits[RESP_HEADER_MAX];
    char *first = digits + sizeof(digits);
    /* Negated as unsigned: INT64_MIN has no positive twin. */
    uint64_t left = n < 0 ? 0 - (uint64_t)n : (uint64_t)n;
    do {
        *--first = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (n < 0) {
        *--first = '-';
    }
    dst[0] = type;
    size_t length = (size_t)(digits + sizeof(digits) - first);
    memcpy(dst + 1, first, length);
    return (size_t)(put_crlf(dst + 1 + length) - dst);
}

size_t resp_header(char *dst, char type, int64_t n)
{
    if (likely(n >= 0 && n < (int64_t)CHAIN_REF_MIN)) {
        return chain_header(dst, type, (size_t)n);
    }
    return long_header(dst, type, n);
}

static bool append_header(struct chain *c, char type, int64_t n)
{
    char *at = chain_reserve(c, RESP_HEADER_MAX);
    if (at == NULL) {
        return false;
    }
    chain_commit(c, resp_header(at, type, n));
    return true;
}

/* Makes n characters of a line harmless and closes it; returns behind the CRLF. */
static char *finish_line(char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r' || text[i] == '\n') {
            text[i] = ' ';
        }
    }
    return put_crlf(text + n);
}

static bool append_line(struct chain *c, char type, const char *text)
{
    size_t n = strlen(text);
    char *at = chain_reserve(c, 1 + n + CRLF_LEN);
    if (at == NULL) {
        return false;
    }
    at[0] = type;
    memcpy(at + 1, text, n);
    chain_commit(c, (size_t)(finish_line(at + 1, n) - at));
    return true;
}

bool resp_status(struct chain *c, const char *text)
{
    return append_line(c, '+', text);
}

bool resp_error(struct chain *c, const char *text)
{
    return append_line(c, '-', text);
}

bool resp_verrorf(struct chain *c, const char *fmt, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    /* Over INT_MAX characters: as good as out of memory. */
    bool fits = n >= 0 && n <= INT_MAX - 1 - CRLF_LEN;
    char *at = fits ? chain_reserve(c, 1 + (size_t)n + CRLF_LEN) : NULL;
    if (at != NULL) {
        at[0] = '-';
        /* Its closing NUL falls on the place of the CR. */
        int written = vsnprintf(at + 1, (size_t)n + 1, fmt, again);
        bug_on(written != n);
        chain_commit(c, (size_t)(finish_line(at + 1, (size_t)n) - at));
    }
    va_end(again);
    return at != NULL;
}

bool resp_errorf(struct chain *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    bool ok = resp_verrorf(c, fmt, args);
    va_end(args);
    return ok;
}

bool resp_integer(struct chain *c, int64_t n)
{
    return append_header(c, ':', n);
}

/* What s takes as a bulk string at most; false when that cannot be said. */
static bool bulk_size(struct slice s, size_t *size)
{
    return !__builtin_add_overflow(s.n, RESP_HEADER_MAX + CRLF_LEN, size);
}

static char *put_bulk(char *at, struct slice s)
{
    at += resp_header(at, '$', (int64_t)s.n);
    return put_crlf(put_bytes(at, s));
}

bool resp_bulk(struct chain *c, struct slice s)
{
    size_t room;
    if (!bulk_size(s, &room)) {
        return false;
    }
    char *at = chain_reserve(c, room);
    if (at == NULL) {
        return false;
    }
    chain_commit(c, (size_t)(put_bulk(at, s) - at));
    return true;
}

bool resp_verbatim_begin(struct chain *c, size_t n, bool resp3)
{
    if (!resp3) {
        return append_header(c, '$', (int64_t)n);
    }
    struct chain_mark mark = chain_mark(c);
    if (append_header(c, '=', (int64_t)n + 4) && chain_append(c, SLICE("txt:"))) {
        return true;
    }
    chain_rewind(c, mark);
    return false;
}

bool resp_verbatim(struct chain *c, struct slice s, bool resp3)
{
    struct chain_mark mark = chain_mark(c);
    if (resp_verbatim_begin(c, s.n, resp3) && chain_append(c, s) &&
        chain_append(c, SLICE("\r\n"))) {
        return true;
    }
    chain_rewind(c, mark);
    return false;
}

bool resp_null(struct chain *c, bool resp3)
{
    return chain_append(c, resp_null_text(resp3));
}

bool resp_array(struct chain *c, int64_t n)
{
    return append_header(c, '*', n);
}

bool resp_map(struct chain *c, int64_t pairs, bool resp3)
{
    bug_on(pairs < 0 || pairs > INT64_MAX / 2);
    return resp3 ? append_header(c, '%', pairs) : append_header(c, '*', 2 * pairs);
}

bool resp_set(struct chain *c, int64_t n, bool resp3)
{
    return append_header(c, resp3 ? '~' : '*', n);
}

bool resp_command(struct chain *c, size_t argc, const struct slice *argv)
{
    size_t room = RESP_HEADER_MAX;
    for (size_t i = 0; i < argc; i++) {
        size_t size;
        if (!bulk_size(argv[i], &size) || __builtin_add_overflow(room, size, &room)) {
            return false;
        }
    }
    char *start = chain_reserve(c, room);
    if (start == NULL) {
        return false;
    }
    char *at = start + resp_header(start, '*', (int64_t)argc);
    for (size_t i = 0; i < argc; i++) {
        at = put_bulk(at, argv[i]);
    }
    chain_commit(c, (size_t)(at - start));
    return true;
}
