/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_parse.c: a stream of requests, taken apart in several ways that must agree.
 *
 * The input is parsed first with all of it at hand, and the outcome of every request is kept as a
 * digest. Then the same stream arrives in pieces: byte by byte, in pieces of pseudo-random size
 * (chosen by the input), and, for short inputs, in two pieces split at every point. Each look at it
 * is into a block of its own and exact size, so AddressSanitizer sees a parser that reads on or
 * keeps a pointer.
 *
 * For every request it is checked that arg_walk and argv agree, and that raw is a request again,
 * with the same arguments and of its own size.
 */
#include "../../resp/parse.h"

#include <stdlib.h>

/* Copying for every byte is quadratic. */
#define DRIP_MAX  ((size_t)2048)
#define SPLIT_MAX ((size_t)160)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define check(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct outcome {
    enum parse_status status;
    size_t size;
    uint64_t digest;
};

static uint64_t mix(uint64_t h, struct slice s)
{
    h = (h ^ s.n) * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < s.n; i++) {
        h = (h ^ (unsigned char)s.p[i]) * 0x100000001b3u;
    }
    return h ^ (h >> 29);
}

/* Walks the arguments, comparing with argv. */
static uint64_t digest_args(const struct request_view *v)
{
    struct arg_walk walk;
    struct slice arg;
    uint64_t h = 1;
    int64_t i = 0;
    check(v->argc >= 1);
    check(v->nargv == (v->argc < REQUEST_ARGS ? v->argc : REQUEST_ARGS));
    for (arg_walk_init(&walk, v); arg_walk_next(&walk, &arg); i++) {
        check(arg.p >= v->raw.p && arg.n <= (size_t)(v->raw.p + v->raw.n - arg.p));
        if (i < REQUEST_ARGS) {
            check(slice_eq(arg, v->argv[i]) && arg.p == v->argv[i].p);
        }
        h = mix(h, arg);
    }
    check(i == v->argc);
    return h;
}

static void check_raw(const struct request_view *v, uint64_t args)
{
    struct parser p;
    struct request_view again;
    parser_init(&p);
    check(parse_request(&p, v->raw, &again) == PARSE_OK);
    check(again.inline_blob == NULL);
    check(again.size == v->raw.n && again.argc == v->argc);
    check(digest_args(&again) == args);
    if (v->raw.n > 0) {
        parser_init(&p);
        check(parse_request(&p, slice_of(v->raw.p, v->raw.n - 1), &again) == PARSE_MORE);
        size_t wanted = parse_wanted(&p);
        check(wanted == v->raw.n);
    }
}

/* One look at the first n bytes of in. */
static struct outcome look(struct parser *p, const uint8_t *in, size_t n)
{
    char *block = malloc(n > 0 ? n : 1);
    check(block != NULL);
    if (n > 0) {
        memcpy(block, in, n);
    }
    struct request_view v;
    struct outcome o = {.status = parse_request(p, slice_of(block, n), &v)};
    switch (o.status) {
    case PARSE_OK:
        o.size = v.size;
        o.digest = digest_args(&v);
        check_raw(&v, o.digest);
        o.digest = mix(o.digest, v.raw);
        blob_unref(v.inline_blob);
        break;
    case PARSE_NOTHING:
        o.size = v.size;
        break;
    case PARSE_ERROR:
        o.digest = mix(1, slice_str(p->error));
        for (const char *c = p->error; *c != '\0'; c++) {
            check(*c >= ' ' && *c <= '~');
        }
        break;
    case PARSE_MORE:
        check(parse_wanted(p) > n);
        check(parse_wanted(p) - n <= (size_t)PARSE_BULK_MAX + 2);
        break;
    case PARSE_NO_MEMORY:
        break;
    }
    free(block);
    check(o.status == PARSE_OK || v.inline_blob == NULL);
    check(o.size <= n);
    check(o.status == PARSE_MORE || parse_wanted(p) == 0);
    return o;
}

/* All of the stream at hand. Returns how many outcomes there are, the last one without a size. */
static size_t parse_whole(const uint8_t *in, size_t n, struct outcome *outcomes)
{
    struct parser p;
    parser_init(&p);
    for (size_t i = 0;; i++) {
        outcomes[i] = look(&p, in, n);
        if (outcomes[i].size == 0) {
            return i + 1;
        }
        in += outcomes[i].size;
        n -= outcomes[i].size;
    }
}

static bool same(const struct outcome *a, const struct outcome *b)
{
    return a->status == b->status && a->size == b->size && a->digest == b->digest;
}

/* The stream arrives as `first` bytes, then in pieces of 1 to `most`. */
static void parse_pieces(const uint8_t *in, size_t n, const struct outcome *want, size_t first,
                         size_t most, uint64_t seed)
{
    struct parser p;
    parser_init(&p);
    size_t start = 0;
    size_t have = first;
    for (;;) {
        struct outcome got = look(&p, in + start, have - start);
        if (got.status != PARSE_MORE) {
            check(same(&got, want));
            if (got.size == 0) {
                return;
            }
            start += got.size;
            want++;
            continue;
        }
        if (have == n) {
            check(want->status == PARSE_MORE);
            return;
        }
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t piece = 1 + (size_t)(seed >> 33) % most;
        have = piece < n - have ? have + piece : n;
    }
}

static void check_view(const struct plain *plain, const struct request_view *want)
{
    struct request_view view;
    plain_view(plain, &view);
    check(view.nargv == want->nargv && slice_eq(view.raw, want->raw));
    for (int i = 0; i < view.nargv; i++) {
        check(slice_eq(view.argv[i], want->argv[i]));
    }
}

/* What the short ways take, parse_request takes for the same request. */
static void check_short_ways(struct slice in)
{
    struct plain plain = {.head = 0};
    struct slice key;
    struct parser p;
    struct request_view view;
    for (size_t at = 0; at < in.n;) {
        struct slice rest = slice_of(in.p + at, in.n - at);
        size_t n = parse_plain(rest, &plain);
        size_t get = parse_get(rest, &key);
        parser_init(&p);
        enum parse_status status = parse_request(&p, rest, &view);
        check(n == 0 ||
              (status == PARSE_OK && view.size == n && slice_eq(view.argv[0], plain.name) &&
               slice_eq(view.argv[1], plain.key) && view.argc == plain.args + 1));
        if (n > 0) {
            check_view(&plain, &view);
        }
        check(get == 0 || (status == PARSE_OK && view.size == get && slice_eq(view.argv[1], key)));
        if (status == PARSE_OK) {
            blob_unref(view.inline_blob);
        }
        if (n == 0) {
            return;
        }
        at += n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct outcome *outcomes = calloc(n + 1, sizeof(*outcomes));
    check(outcomes != NULL);
    size_t count = parse_whole(bytes, n, outcomes);
    check(count <= n + 1);

    uint64_t seed = n;
    for (size_t i = 0; i < n && i < 64; i++) {
        seed = seed * 31 + bytes[i];
    }
    if (n <= DRIP_MAX) {
        parse_pieces(bytes, n, outcomes, 0, 1, seed);
        parse_pieces(bytes, n, outcomes, 0, 7, seed);
    }
    parse_pieces(bytes, n, outcomes, n / 3, n / 4 + 1, seed + 1);
    for (size_t at = 1; at < n && n <= SPLIT_MAX; at++) {
        parse_pieces(bytes, n, outcomes, at, n, seed);
    }
    free(outcomes);
    uint8_t *exact = malloc(n);
    check(n == 0 || exact != NULL);
    memcpy(exact, bytes, n);
    check_short_ways(slice_of((char *)exact, n));
    free(exact);
    return 0;
}
