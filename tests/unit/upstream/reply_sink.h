/* SPDX-License-Identifier: Apache-2.0
 *
 * reply_sink.h: what test_frame.c and test_relay.c share: a framer whose callbacks are recorded, ways
 * to cut an input, and checks that hold for every way.
 *
 * `struct sink` is what the callbacks saw: all bytes handed on in one buffer, one record per reply,
 * and each push as text, "kind plain [item item]". The callbacks themselves check that pieces and
 * replies nest as frame.h says.
 */
#pragma once

#include "../../../upstream/frame.h"

#include "../../../conf/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define REPLIES_MAX 4096

struct reply {
    char type;
    bool is_null;
    bool whole; /* its last piece came */
    int64_t size;
    size_t pieces;
    size_t bytes;
    size_t first; /* bytes of its first piece */
};

struct sink {
    struct framer *framer;
    char *bytes;
    size_t n, cap;
    bool keep; /* false: count bytes, do not store them */
    struct reply replies[REPLIES_MAX];
    size_t nreplies;
    size_t largest;
    char pushes[4096];
    size_t npushes, nitems, item_bytes;
    bool inside_at_last;
    bool *stop_at_piece;
    uint32_t run; /* framer_take_run of so many behind each reply; 0: never */
    size_t in_runs;
};

static inline void sink_append(struct sink *s, struct slice bytes)
{
    if (s->keep) {
        if (s->n + bytes.n > s->cap) {
            s->cap = (s->n + bytes.n) * 2;
            s->bytes = realloc(s->bytes, s->cap);
        }
        memcpy(s->bytes + s->n, bytes.p, bytes.n);
    }
    s->n += bytes.n;
}

static inline void on_piece(void *ctx, const struct reply_piece *piece)
{
    struct sink *s = ctx;
    cr_assert(piece->bytes.n > 0, "an empty piece");
    if (piece->first) {
        cr_assert(s->nreplies == 0 || s->replies[s->nreplies - 1].whole, "first inside a reply");
        cr_assert(s->nreplies < REPLIES_MAX);
        s->replies[s->nreplies++] = (struct reply){.type = piece->type,
                                                   .is_null = piece->is_null,
                                                   .size = piece->size,
                                                   .first = piece->bytes.n};
        cr_assert_eq(piece->bytes.p[0], piece->type);
    }
    cr_assert(s->nreplies > 0);
    struct reply *r = &s->replies[s->nreplies - 1];
    cr_assert(!r->whole, "a piece behind the last");
    cr_assert_eq(piece->type, r->type);
    r->pieces++;
    r->bytes += piece->bytes.n;
    r->whole = piece->last;
    s->largest = piece->bytes.n > s->largest ? piece->bytes.n : s->largest;
    if (piece->last && framer_is_inside(s->framer)) {
        s->inside_at_last = true;
    }
    sink_append(s, piece->bytes);
    if (piece->last && s->run > 0) {
        framer_take_run(s->framer, s->run);
    }
    if (s->stop_at_piece != NULL) {
        *s->stop_at_piece = true;
    }
}

static inline void on_push(void *ctx, const struct push *push)
{
    struct sink *s = ctx;
    cr_assert(s->nreplies == 0 || s->replies[s->nreplies - 1].whole, "a push inside a reply");
    cr_assert(!framer_is_inside(s->framer));
    s->npushes++;
    sink_append(s, push->bytes);
    s->nitems += push->nitems;
    size_t at = strlen(s->pushes);
    at += (size_t)snprintf(s->pushes + at, sizeof(s->pushes) - at, "%.*s%s%s[", (int)push->kind.n,
                           push->kind.p, push->plain ? " plain " : " other ",
                           push->is_null ? "null " : "");
    for (size_t i = 0; i < push->nitems; i++) {
        s->item_bytes += push->items[i].n;
        if (at + push->items[i].n + 8 < sizeof(s->pushes)) {
            at += (size_t)snprintf(s->pushes + at, sizeof(s->pushes) - at, "%s%.*s",
                                   i == 0 ? "" : " ", (int)push->items[i].n, push->items[i].p);
        }
    }
    snprintf(s->pushes + at, sizeof(s->pushes) - at, "]");
}

static inline void on_run(void *ctx, const struct reply_run *run)
{
    struct sink *s = ctx;
    struct slice bytes = run->bytes;
    uint32_t n = run->n;
    cr_assert(n <= FRAME_RUN_MAX && run->ends[n - 1] == bytes.n);
    cr_assert(n > 0 && n <= s->run && bytes.n > 0);
    cr_assert(s->nreplies > 0 && s->replies[s->nreplies - 1].whole, "a run inside a reply");
    cr_assert(memchr("$+:", bytes.p[0], 3) != NULL, "a run of %c", bytes.p[0]);
    cr_assert(!framer_is_inside(s->framer));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t begin = i == 0 ? 0 : run->ends[i - 1];
        cr_assert(run->ends[i] > begin && memchr("$+:", bytes.p[begin], 3) != NULL);
        s->replies[s->nreplies++] = (struct reply){.whole = true, .size = -1};
    }
    s->in_runs += n;
    sink_append(s, bytes);
    framer_take_run(s->framer, s->run);
}

static const struct framer_ops sink_ops = {.piece = on_piece, .push = on_push, .run = on_run};

static inline struct sink *sink_open(void)
{
    struct sink *s = calloc(1, sizeof(*s));
    s->keep = true;
    s->framer = framer_create(&sink_ops, s);
    return s;
}

static inline void sink_close(struct sink *s)
{
    framer_destroy(s->framer);
    free(s->bytes);
    free(s);
}

/* Feeds a copy of exactly n bytes, so that a sanitizer sees every step beyond them. */
static inline bool feed(struct sink *s, const char *p, size_t n)
{
    char *copy = malloc(n == 0 ? 1 : n);
    memcpy(copy, p, n);
    bool ok = framer_feed(s->framer, slice_of(copy, n), NULL);
    free(copy);
    return ok;
}

static inline bool feed_text(struct sink *s, const char *text)
{
    return feed(s, text, strlen(text));
}

/* How an input is cut: 0 whole, 1 byte by byte, else pieces of pseudo-random size up to `cut`. */
static inline bool feed_cut(struct sink *s, struct slice in, size_t cut)
{
    uint32_t seed = (uint32_t)cut * 2654435761u;
    bool ok = true;
    for (size_t at = 0; at < in.n && ok;) {
        seed = seed * 1664525u + 1013904223u;
        size_t n = cut == 0 ? in.n : cut == 1 ? 1 : 1 + (seed >> 8) % cut;
        n = n > in.n - at ? in.n - at : n;
        ok = feed(s, in.p + at, n);
        at += n;
    }
    return ok;
}

static inline void check_good_runs(struct slice in, size_t replies, const char *pushes, size_t cut,
                                   uint32_t run)
{
    struct sink *s = sink_open();
    s->run = run;
    bool ok = feed_cut(s, in, cut);
    cr_assert(ok, "cut %zu: %s in \"%.60s\"", cut, framer_error(s->framer), in.p);
    cr_assert(!framer_is_inside(s->framer), "cut %zu: inside after \"%.60s\"", cut, in.p);
    cr_assert_str_eq(framer_error(s->framer), "");
    cr_assert_eq(s->nreplies, replies, "cut %zu: %zu replies in \"%.60s\"", cut, s->nreplies, in.p);
    cr_assert(!s->inside_at_last);
    cr_assert_eq(s->n, in.n);
    cr_assert(memcmp(s->bytes, in.p, in.n) == 0, "cut %zu: other bytes", cut);
    if (pushes != NULL) {
        cr_assert_str_eq(s->pushes, pushes, "cut %zu: \"%s\"", cut, s->pushes);
    }
    for (size_t i = 0; i < s->nreplies; i++) {
        const struct reply *r = &s->replies[i];
        cr_assert(r->whole);
        cr_assert(r->size == -1 || r->size == (int64_t)r->bytes);
    }
    sink_close(s);
}

/* However many are handed on together. */
static inline void check_good(struct slice in, size_t replies, const char *pushes, size_t cut)
{
    for (uint32_t run = 0; run <= 3; run++) {
        check_good_runs(in, replies, pushes, cut, run);
    }
    check_good_runs(in, replies, pushes, cut, 100);
}

static inline void check_good_all_cuts(struct slice in, size_t replies, const char *pushes)
{
    for (size_t cut = 0; cut < 12; cut++) {
        check_good(in, replies, pushes, cut);
    }
    check_good(in, replies, pushes, 700);
    check_good(in, replies, pushes, 6000);
}

static inline void check_bad(struct slice in, const char *error, size_t cut)
{
    struct sink *s = sink_open();
    bool ok = feed_cut(s, in, cut);
    cr_assert(!ok, "cut %zu: took \"%.60s\"", cut, in.p);
    cr_assert_str_eq(framer_error(s->framer), error, "cut %zu: \"%s\" for \"%.60s\"", cut,
                     framer_error(s->framer), in.p);
    cr_assert(s->n <= in.n && memcmp(s->bytes == NULL ? "" : s->bytes, in.p, s->n) == 0);
    cr_assert(!feed_text(s, "+OK\r\n"), "went on after an error");
    cr_assert_str_eq(framer_error(s->framer), error);
    sink_close(s);
}

struct good_row {
    const char *in;
    size_t replies;
};

static inline void check_rows(const struct good_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        check_good_all_cuts(slice_str(rows[i].in), rows[i].replies, NULL);
    }
}

/* A bulk of n bytes of a pattern, with what stands before and behind it. Owned by the caller. */
static inline struct slice bulk_between(const char *before, size_t n, const char *behind)
{
    size_t room = strlen(before) + n + strlen(behind) + 32;
    char *p = malloc(room);
    size_t at = (size_t)sprintf(p, "%s$%zu\r\n", before, n);
    for (size_t i = 0; i < n; i++) {
        p[at + i] = (char)("\r\n$*0123456789abc"[i * 7 % 17]);
    }
    at += n;
    at += (size_t)sprintf(p + at, "\r\n%s", behind);
    return slice_of(p, at);
}

struct bad_row {
    const char *in;
    const char *error;
};

static inline void check_bad_rows(const struct bad_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t cut = 0; cut < 6; cut++) {
            check_bad(slice_str(rows[i].in), rows[i].error, cut);
        }
    }
}

/* A line: before, n times 'x', behind. Owned by the caller. */
static inline struct slice long_line(const char *before, size_t n, const char *behind)
{
    char *p = malloc(strlen(before) + n + strlen(behind) + 1);
    size_t at = (size_t)sprintf(p, "%s", before);
    memset(p + at, 'x', n);
    at += n;
    at += (size_t)sprintf(p + at, "%s", behind);
    return slice_of(p, at);
}

/* The same input in two feeds, cut at each place from `from` on. */
static inline void check_good_two_parts(struct slice in, size_t replies, size_t from)
{
    for (size_t cut = from; cut <= in.n; cut++) {
        struct sink *s = sink_open();
        cr_assert(feed(s, in.p, cut) && feed(s, in.p + cut, in.n - cut), "cut at %zu: %s", cut,
                  framer_error(s->framer));
        cr_assert_eq(s->nreplies, replies, "cut at %zu: %zu replies", cut, s->nreplies);
        cr_assert(s->replies[replies - 1].whole && !framer_is_inside(s->framer));
        cr_assert(s->n == in.n && memcmp(s->bytes, in.p, in.n) == 0, "cut at %zu", cut);
        sink_close(s);
    }
}

static inline bool feed_zeros(struct sink *s, size_t n)
{
    static char zeros[65536];
    bool ok = true;
    while (n > 0 && ok) {
        size_t part = n > sizeof(zeros) ? sizeof(zeros) : n;
        ok = framer_feed(s->framer, slice_of(zeros, part), NULL);
        n -= part;
    }
    return ok;
}
