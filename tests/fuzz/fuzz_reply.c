/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_reply.c: arbitrary bytes as the replies of a server. The first byte of an input seeds how it is
 * cut; the rest is fed to one framer whole, to a second in pieces. Then:
 *   - the verdicts agree, whether replies are handed on one by one or in runs; without an error the
 *     bytes handed on agree too, with one the replies that were whole do;
 *   - what was handed on is the input itself, in order and without a gap;
 *   - pieces and replies nest as frame.h says;
 *   - under AddressSanitizer, memory held never exceeds a constant and a few times the input, whatever
 *     lengths the input announces.
 */
#include "../../upstream/frame.h"

#include <stdio.h>
#include <stdlib.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if __has_feature(address_sanitizer)
#include <sanitizer/allocator_interface.h>
#define HELD() __sanitizer_get_current_allocated_bytes()
#else
#define HELD() ((size_t)0)
#endif

/* 1000 levels of the reader's stack, and buffers at their smallest. */
#define HELD_MAX ((size_t)512 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define must(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct watcher {
    struct framer *framer;
    const char *in; /* next byte that has to come out */
    const char *end;
    size_t out;      /* bytes handed on */
    size_t whole;    /* of them, in replies that are whole */
    size_t replies;  /* whole ones, and pushes */
    uint64_t pushes; /* a digest of what they said */
    bool open;
    char type;
    uint32_t run; /* most replies in one; 0: none */
};

static void on_piece(void *ctx, const struct reply_piece *piece)
{
    struct watcher *w = ctx;
    must(piece->bytes.n > 0 && piece->bytes.n <= (size_t)(w->end - w->in));
    must(memcmp(piece->bytes.p, w->in, piece->bytes.n) == 0);
    must(piece->first == !w->open);
    if (piece->first) {
        w->type = w->in[0];
        must(!piece->is_null || piece->last);
        must(!piece->last || piece->size == -1 || piece->size == (int64_t)piece->bytes.n);
    }
    must(piece->type == w->type);
    w->in += piece->bytes.n;
    w->out += piece->bytes.n;
    w->open = !piece->last;
    if (piece->last) {
        w->whole = w->out;
        w->replies++;
        if (w->run > 0) {
            framer_take_run(w->framer, w->run);
        }
    }
}

static void on_run(void *ctx, const struct reply_run *run)
{
    struct watcher *w = ctx;
    struct slice bytes = run->bytes;
    uint32_t n = run->n;
    must(run->ends[n - 1] == bytes.n);
    for (uint32_t i = 0; i < n; i++) {
        must(i == 0 || run->ends[i - 1] < run->ends[i]);
        must(memcmp(bytes.p + run->ends[i] - 2, "\r\n", 2) == 0);
    }
    must(!w->open && n > 0 && n <= w->run && bytes.n >= 3 * (size_t)n);
    must(bytes.n <= (size_t)(w->end - w->in) && memcmp(bytes.p, w->in, bytes.n) == 0);
    w->in += bytes.n;
    w->out += bytes.n;
    w->whole = w->out;
    w->replies += n;
    framer_take_run(w->framer, w->run);
}

static void digest(struct watcher *w, struct slice s)
{
    for (size_t i = 0; i < s.n; i++) {
        w->pushes = (w->pushes ^ (uint8_t)s.p[i]) * 1099511628211u;
    }
    w->pushes = (w->pushes ^ s.n) * 1099511628211u;
}

static void on_push(void *ctx, const struct push *push)
{
    struct watcher *w = ctx;
    must(!w->open && w->in < w->end && *w->in == '>');
    must(!push->is_null || push->plain);
    must(push->nitems == 0 || (push->plain && !push->is_null));
    digest(w, push->kind);
    for (size_t i = 0; i < push->nitems; i++) {
        digest(w, push->items[i]);
    }
    w->pushes += (uint64_t)push->plain * 2 + push->is_null;
    w->replies++;
    must(push->bytes.n <= (size_t)(w->end - w->in));
    must(memcmp(push->bytes.p, w->in, push->bytes.n) == 0);
    w->in += push->bytes.n;
}

static const struct framer_ops ops = {.piece = on_piece, .push = on_push, .run = on_run};

/* Feeds s in pieces of 1 to `cut` bytes (0: whole). Each is a block of its own, so that a sanitizer
 * sees a read beyond it. */
static bool feed(struct watcher *w, struct slice s, size_t cut, uint32_t seed, uint32_t run)
{
    *w = (struct watcher){.in = s.p, .end = s.p + s.n, .run = run};
    size_t before = HELD();
    w->framer = framer_create(&ops, w);
    bool ok = true;
    for (size_t at = 0; at < s.n && ok;) {
        seed = seed * 1664525u + 1013904223u;
        size_t n = cut == 0 ? s.n : 1 + (seed >> 8) % cut;
        n = n > s.n - at ? s.n - at : n;
        char *copy = malloc(n);
        memcpy(copy, s.p + at, n);
        ok = framer_feed(w->framer, slice_of(copy, n), NULL);
        free(copy);
        at += n;
        must(HELD() <= before + HELD_MAX + 8 * s.n);
    }
    must(ok == (framer_error(w->framer)[0] == '\0'));
    if (ok && !framer_is_inside(w->framer)) {
        must(w->in == w->end && !w->open);
    }
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n == 0) {
        return 0;
    }
    static const size_t cuts[] = {1, 2, 3, 7, 16, 100, 600, 5000};
    struct slice s = slice_of((const char *)bytes + 1, n - 1);
    struct watcher whole;
    bool whole_ok = feed(&whole, s, 0, 0, 0);
    size_t cut = cuts[bytes[0] % ARRAY_LEN(cuts)];
    for (uint32_t run = 0; run <= 64; run += 1 + bytes[0]) {
        struct watcher other;
        bool ok = feed(&other, s, run % 2 == 0 ? cut : 0, bytes[0], run);
        must(whole_ok == ok);
        must(whole.replies == other.replies);
        must(whole.whole == other.whole);
        must(whole.pushes == other.pushes);
        if (ok) {
            must(whole.out == other.out);
            must(framer_is_inside(whole.framer) == framer_is_inside(other.framer));
        }
        framer_destroy(other.framer);
    }
    framer_destroy(whole.framer);
    return 0;
}
