/* SPDX-License-Identifier: Apache-2.0
 *
 * parse.h: where one request of a client begins and ends (RESP arrays of bulk strings, and inline
 * commands). Framing only: knows no command names. No I/O, no allocation except for inline commands.
 *
 * Resumable: `struct parser` remembers how far an unfinished request was scanned, so that bytes are
 * looked at once however they are split. Zero-copy: a finished request is a view into the caller's
 * buffer. As strict and as lenient as Redis 7's networking.c (numbers as string2ll reads them, the
 * byte behind '\r' not looked at), because the bytes are forwarded as they are: what we take for a
 * request must be what Redis takes for one. Limits are met before anything is kept.
 */
#pragma once

#include "bytes.h"

#define PARSE_INLINE_MAX ((size_t)64 * 1024)          /* PROTO_INLINE_MAX_SIZE */
#define PARSE_BULK_MAX   ((int64_t)512 * 1024 * 1024) /* default proto-max-bulk-len */
#define REQUEST_ARGS     8                            /* arguments found without walking */

enum parse_status {
    PARSE_OK,        /* *out is a request; it ends out->size bytes after the start of the input */
    PARSE_MORE,      /* unfinished: call again with the same start and more bytes */
    PARSE_NOTHING,   /* out->size bytes hold no request (empty line, "*0", "*-1"): skip them */
    PARSE_ERROR,     /* not RESP: parser->error is Redis's text ("Protocol error: ..."); close */
    PARSE_NO_MEMORY, /* an inline command could not be rewritten: close */
};

/* Read-only for callers, and of interest only after PARSE_MORE. (Redis allows a client that has not
 * authenticated no more than 10 arguments and 16 KiB in each: that is the caller's to apply, with
 * args and bulk_left here and argc and argv of a finished request.) */
struct parser {
    size_t pos;        /* scanned so far, from the start of the request */
    int64_t args_left; /* -1: the header has not been read */
    int64_t args;      /* arguments in all, once the header has been read */
    int64_t bulk_left; /* -1: at an argument's "$n" line; else length of the open argument */
    size_t line_seen;  /* bytes of the unfinished line at pos that need no second look */
    size_t wanted;     /* see parse_wanted; 0: no request is open */
    const char *error; /* after PARSE_ERROR: static or in error_text */
    char error_text[64];
};

/* One complete request. argv borrows from the parsed buffer (or from *inline_blob). */
struct request_view {
    struct slice raw; /* the request in RESP array form, as it is forwarded */
    size_t size;      /* bytes of input it took (differs from raw.n for inline commands) */
    int64_t argc;     /* >= 1 when PARSE_OK */
    int nargv;        /* min(argc, REQUEST_ARGS) */
    struct slice argv[REQUEST_ARGS];
    struct blob *inline_blob; /* non-NULL for an inline command: holds raw; the caller unrefs it */
};

/* Ready for the first byte of a request. */
void parser_init(struct parser *p);
/* Is no request open? */
static inline bool parser_is_idle(const struct parser *p)
{
    return p->wanted == 0;
}

/* Looks for one request at the start of in. After anything but PARSE_MORE the parser is ready for
 * the next request. *out means something only as enum parse_status says; out->inline_blob is NULL
 * whenever there is nothing to unref. */
MUST_CHECK enum parse_status parse_request(struct parser *p, struct slice in,
                                           struct request_view *out);

/* Is it worth a call of parse_get? */
static inline bool parse_may_be_get(struct slice in)
{
    return in.n >= 20 && (in.p[8] | 0x20) == 'g';
}

/* A whole GET in the form in which clients send it ("*2\r\n$3\r\nGET\r\n$<n>\r\n<key>\r\n", the name in
 * any case, n from 1 to 99) at the start of in: its size, and *key borrows from in. 0: it is something
 * else, or a longer or unfinished one; parse_request tells. No parser may be in the middle of a
 * request. */
static inline size_t parse_get(struct slice in, struct slice *key)
{
    static const char head[] = "*2\r\n$3\r\n"; /* 8 bytes, as */
    static const char name[] = "get\r\n$\0\0"; /* here, behind which the length follows */
    static const char any_case[] = "\x20\x20\x20\0\0\0\0\0";
    static const char no_length[] = "\xff\xff\xff\xff\xff\xff\0\0";
    const char *p = in.p;
    uint64_t word, want, lower, mask;
    if (unlikely(in.n < 20)) {
        return 0;
    }
    memcpy(&word, p + 8, 8);
    memcpy(&want, name, 8);
    memcpy(&lower, any_case, 8);
    memcpy(&mask, no_length, 8);
    size_t n = (size_t)(unsigned char)p[14] - '0';
    if (memcmp(p, head, 8) != 0 || ((word | lower) & mask) != want || n - 1 > 8) {
        return 0;
    }
    size_t digit = (size_t)(unsigned char)p[15] - '0';
    p += 15;
    if (likely(digit <= 9)) {
        n = 10 * n + digit;
        p++;
    }
    size_t size = (size_t)(p - in.p) + 2 + n + 2;
    if (unlikely(in.n < size || memcmp(p, "\r\n", 2) != 0 || memcmp(p + 2 + n, "\r\n", 2) != 0)) {
        return 0;
    }
    *key = slice_of(p + 2, n);
    return size;
}

/* An argument behind another one. */
struct plain_more {
    uint16_t gap, n; /* bytes between the two; its own */
};

/* A whole request with a command and at least one more argument, in the form in which clients send it
 * ("*<2..9>\r\n$<n>\r\n<name>\r\n$<n>\r\n<key>\r\n...", every n below 10,000, that of the name not 0). */
struct plain {
    struct slice name; /* borrows from the input, maybe from a request before that had the same; */
    struct slice key;  /* so does this */
    const char *at;    /* where it begins */
    size_t size;       /* 0: there is none */
    size_t alike;      /* the same, if plain_is_alike can compare with it; else 0 */
    size_t head;       /* bytes up to and with the name's CRLF */
    size_t fixed;      /* bytes before the key */
    int args;          /* behind the name */
    bool same;         /* as the one before: number of arguments and name, byte for byte */
    struct plain_more more[7]; /* behind the key */
};

static inline bool plain_word(const char *a, const char *b)
{
    return memcmp(a, b, sizeof(uint64_t)) == 0;
}

static inline bool plain_half(const char *a, const char *b)
{
    return memcmp(a, b, sizeof(uint32_t)) == 0;
}

#define PLAIN_FIXED_MIN 16 /* bytes before the key that plain_is_alike can compare, */
#define PLAIN_FIXED_MAX 24
#define PLAIN_GAP_MAX   8 /* and between arguments, from 6 on */

/* Does the request at p, as long as the one before, differ from it in nothing but the bytes of its arguments? */
static inline bool plain_is_alike(const struct plain *plain, const char *p)
{
    const char *before = plain->at;
    size_t at = plain->fixed;
    if (!plain_word(p, before) || !plain_word(p + 8, before + 8) ||
        !plain_word(p + at - 8, before + at - 8)) {
        return false;
    }
    at += plain->key.n;
    const struct plain_more *more = plain->more;
    for (const struct plain_more *end = more + plain->args - 1; more < end; more++) {
        size_t gap = more->gap;
        if (!plain_half(p + at, before + at) ||
            !plain_half(p + at + gap - 4, before + at + gap - 4)) {
            return false;
        }
        at += gap + more->n;
    }
    return memcmp(p + at, "\r\n", 2) == 0;
}

/* parse_plain for what is not alike. */
size_t parse_plain_anew(struct slice in, struct plain *plain);

/* Such a request at the start of in: its size; 0 as for parse_get. *plain is all zeros, or of the
 * request before it in the same input: those that are alike are looked at less closely. */
static inline __attribute__((always_inline)) size_t parse_plain(struct slice in,
                                                                struct plain *plain)
{
    if (likely(plain->alike - 1 < in.n) && likely(plain_is_alike(plain, in.p))) {
        plain->at = in.p;
        plain->key.p = in.p + plain->fixed;
        plain->same = true;
        return plain->alike;
    }
    return parse_plain_anew(in, plain);
}

/* The request in *plain as parse_request gives it. */
void plain_view(const struct plain *plain, struct request_view *out);

/* After PARSE_MORE: how many bytes the request has at least, counted from its start, as far as is
 * known (so that room for a large argument can be reserved once). More than the input had, and at
 * most PARSE_BULK_MAX + 2 more: arguments not yet announced by a "$n" of their own do not count. */
size_t parse_wanted(const struct parser *p);

/* Walks all arguments, also beyond REQUEST_ARGS. Start with arg_walk_init; each call yields the
 * next argument until it returns false. */
struct arg_walk {
    const char *p;
    int64_t left;
};
void arg_walk_init(struct arg_walk *w, const struct request_view *v);
bool arg_walk_next(struct arg_walk *w, struct slice *arg);
