/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_stream.c: what a subscriber's connection says, told apart into messages and answers. The first
 * bytes of an input say how the rest is cut and which requests are sent when; the rest goes through a
 * framer to stream.c, whole and in pieces. What lies behind stream.c is played here: conn_answer, with
 * a queue of requests that are freed when they are answered, and the client. Then:
 *   - what comes out, as message or answer, is the input itself, in order and without a gap, and at
 *     the end of a reply nothing is kept back;
 *   - pieces of an answer nest as frame.h says, and its first byte is the type that was told;
 *   - every byte is the same, message or answer, however the input is cut;
 *   - counts are never negative, whatever the server says.
 * A request that is used after its answer is for AddressSanitizer to see.
 */
#include "../../proxy/stream.h"

#include "../../upstream/frame.h"

#include <stdio.h>
#include <stdlib.h>

#define SCRIPT    16
#define BYTES_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define must(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static const struct cmd commands[] = {
    {.name = "subscribe"},    {.name = "unsubscribe"}, {.name = "psubscribe"},
    {.name = "punsubscribe"}, {.name = "ssubscribe"},  {.name = "sunsubscribe"},
    {.name = "ping"},
};
#define PLAIN (&commands[6])

struct asked {
    struct request request;
    struct asked *next;
};

/* The connection and its client. */
struct world {
    struct stream stream;
    struct framer *framer;
    const char *in; /* next byte that has to come out */
    const char *end;
    char *out; /* 'm' or 'a' for each byte */
    size_t nout;
    const uint8_t *script; /* at the start and behind each reply: what is sent next */
    size_t at;
    struct asked *head; /* unanswered, in order */
    struct asked **tail;
    bool in_answer;
    bool given_up; /* a reply nobody asked for */
};

static struct world *world; /* that conn_answer and client_push belong to */
static struct client client = {.stalled = true};

static void come_out(struct slice bytes, char what)
{
    must(bytes.n > 0 && bytes.n <= (size_t)(world->end - world->in));
    must(memcmp(bytes.p, world->in, bytes.n) == 0);
    memset(world->out + world->nout, what, bytes.n);
    world->nout += bytes.n;
    world->in += bytes.n;
}

void conn_answer(struct conn *conn, const struct reply_piece *piece)
{
    struct asked *asked = world->head;
    (void)conn;
    if (world->given_up || asked == NULL) {
        world->given_up = true;
        return;
    }
    come_out(piece->bytes, 'a');
    /* Between the confirmations of one request something else may come, and is then the answer. */
    must(piece->first || world->in_answer);
    must(!piece->first || piece->type == piece->bytes.p[0]);
    world->in_answer = !piece->last;
    if (piece->last) {
        world->head = asked->next;
        world->tail = world->head == NULL ? &world->head : world->tail;
        must(world->stream.asking != &asked->request);
        free(asked);
    }
}

void client_push(struct client *c, struct slice bytes)
{
    must(c == &client);
    if (!world->given_up) {
        come_out(bytes, 'm');
    }
}

void client_mark_runnable(struct client *c)
{
    must(c == &client && !stream_is_inside(&world->stream));
}

/* Where memory is out, which it is not here. */
void client_close(struct client *c)
{
    must(c == NULL);
}

static void send_request(const struct cmd *cmd, int64_t argc)
{
    struct asked *asked = calloc(1, sizeof(*asked));
    must(asked != NULL);
    asked->request.cmd = cmd;
    *world->tail = asked;
    world->tail = &asked->next;
    if (cmd != PLAIN) {
        stream_ask(&world->stream, &asked->request, argc);
    }
}

/* Subscriptions are sent when nothing is unanswered, and nothing follows them before they are. */
static void next_of_script(void)
{
    uint8_t what = world->at < SCRIPT ? world->script[world->at++] : 255;
    if (what < 128) {
        if (world->head == NULL) {
            send_request(&commands[what % 6], 1 + what / 6 % 5);
        }
    } else if (what < 250 && world->stream.asking == NULL) {
        send_request(PLAIN, 1);
        world->stream.monitoring = world->stream.monitoring || what == 249;
    }
}

static void check_counts(void)
{
    const struct stream *s = &world->stream;
    must(s->channels >= 0 && s->patterns >= 0 && s->shards >= 0);
    must(s->asking == NULL || (s->left > 0 && s->asking == &world->head->request));
    (void)stream_is_on(s);
}

static struct client client; /* reads its replies, and waits for nothing */

static void on_piece(void *ctx, const struct reply_piece *piece)
{
    struct world *w = ctx;
    if (w->given_up) {
        return;
    }
    if (!stream_stray(&w->stream, NULL, &client, piece)) {
        conn_answer(NULL, piece);
    }
    check_counts();
    if (piece->last && !w->given_up) {
        must(!stream_is_inside(&w->stream));
        next_of_script();
    }
}

static void on_push(void *ctx, const struct push *push)
{
    struct world *w = ctx;
    if (w->given_up) {
        return;
    }
    stream_push(&w->stream, NULL, &client, push);
    check_counts();
    if (!w->given_up) {
        next_of_script();
    }
}

static const struct framer_ops ops = {.piece = on_piece, .push = on_push};

/* False: the framer refused it. */
static bool run(struct world *w, struct slice s, const uint8_t *script, size_t cut)
{
    *w = (struct world){.in = s.p, .end = s.p + s.n, .script = script};
    w->tail = &w->head;
    w->out = malloc(s.n + 1);
    w->framer = framer_create(&ops, w);
    world = w;
    next_of_script();
    uint32_t seed = script[0];
    bool ok = true;
    for (size_t at = 0; at < s.n && ok && !w->given_up;) {
        seed = seed * 1664525u + 1013904223u;
        size_t n = cut == 0 ? s.n : 1 + (seed >> 8) % cut;
        n = n > s.n - at ? s.n - at : n;
        char *copy = malloc(n);
        memcpy(copy, s.p + at, n);
        ok = framer_feed(w->framer, slice_of(copy, n), &w->given_up);
        free(copy);
        at += n;
        if (ok && !w->given_up && !framer_is_inside(w->framer)) {
            must(w->in == s.p + at); /* nothing is kept back */
        }
    }
    framer_destroy(w->framer);
    while (w->head != NULL) {
        struct asked *next = w->head->next;
        free(w->head);
        w->head = next;
    }
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const size_t cuts[] = {1, 2, 3, 7, 16, 40, 100, 600};
    if (n <= 1 + SCRIPT || n > BYTES_MAX) {
        return 0;
    }
    struct slice s = slice_of((const char *)bytes + 1 + SCRIPT, n - 1 - SCRIPT);
    struct world whole;
    struct world split;
    bool whole_ok = run(&whole, s, bytes + 1, 0);
    bool split_ok = run(&split, s, bytes + 1, cuts[bytes[0] % ARRAY_LEN(cuts)]);
    size_t both = whole.nout < split.nout ? whole.nout : split.nout;
    must(memcmp(whole.out, split.out, both) == 0);
    if (whole_ok && split_ok) {
        must(whole.given_up == split.given_up);
        must(whole.given_up || whole.nout == split.nout);
    }
    free(whole.out);
    free(split.out);
    return 0;
}
