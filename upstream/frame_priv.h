/* SPDX-License-Identifier: Apache-2.0
 *
 * frame_priv.h: what the two halves of the framer share. frame.c holds the state and frames scalars
 * and bulks; relay.c takes over for an aggregate, an attribute or a push and gives the state back when
 * the last element of the reply has been met. For frame.c, relay.c and nobody else.
 */
#pragma once

#include "frame.h"

struct relay;

/*
 *              first byte of a line that is split          line is whole
 *   FRAME_START ────────────────────────────────► FRAME_LINE ────────────► FRAME_START
 *      │  ▲                                            │ it is a bulk's header
 *      │  │ its CRLF              a bulk in pieces     ▼
 *      │  └────────────── FRAME_BULK ◄─────────────────┴──── (also straight from FRAME_START)
 *      │
 *      │  ▲ its LF             a status or an error that is long, also when it is not split
 *      │  └────────────── FRAME_LONG ◄──────────────── FRAME_LINE, FRAME_START
 *      │
 *      ├─ framer_expect_endless ─► FRAME_AWAITED ── any byte but '-' ──► FRAME_ENDLESS
 *      └─ * % ~ > | ─► FRAME_NESTED ── root complete ──► FRAME_START      any ── nonsense ──► FAILED
 */
enum frame_state {
    FRAME_START,
    FRAME_LINE,
    FRAME_LONG,
    FRAME_BULK,
    FRAME_NESTED,
    FRAME_AWAITED,
    FRAME_ENDLESS,
    FRAME_FAILED,
};

struct framer {
    void (*piece)(void *ctx, const struct reply_piece *piece);
    void *ctx;
    enum frame_state state;
    char type;         /* first byte of the open reply */
    size_t body_left;  /* FRAME_BULK: bytes to come, the CRLF included */
    size_t text_left;  /* of a line that is not collected: bytes it may still have */
    bool has_cr;       /* and its CR has come, which is handed on with its LF */
    const char *error; /* NULL until FRAME_FAILED; static, or lives as long as the relay */
    char *line;        /* FRAME_LINE: the line so far, from its type byte */
    size_t line_n;
    size_t line_cap;
    struct relay *relay; /* made for the first aggregate of a connection */
    void (*push)(void *ctx, const struct push *push);
    void (*run)(void *ctx, const struct reply_run *run);
    uint32_t run_max; /* framer_take_run, for the bytes behind the piece */
};

/* Longest "n" of a "$n\r\n" or "*n\r\n" that can be a number. */
#define FRAME_DIGITS_MAX ((size_t)20)

/* Makes the framer FAILED for the reason `why` (kept). Returns NULL: what a step returns that cannot
 * go on. A reason given earlier stays. */
const char *framer_fail(struct framer *f, const char *why);

/* The text of a line that is not collected goes on at p. Returns behind what was taken, with *n the
 * bytes of text in it, which may be handed on; a CR behind them is taken, too (f->has_cr), and what
 * comes next has to be its LF. NULL: failed. */
const char *framer_text(struct framer *f, const char *p, const char *end, size_t *n);
/* The byte behind the CR. NULL: failed. */
const char *framer_text_end(struct framer *f, const char *p);

/* Starts an aggregate, an attribute or a push whose first byte, not consumed yet, is f->type. False:
 * failed, out of memory. */
MUST_CHECK bool relay_begin(struct framer *f);
/* FRAME_NESTED: consumes from p up to at most end (p < end) with at most one callback; returns where
 * to go on, or NULL when the framer failed. */
const char *relay_step(struct framer *f, const char *p, const char *end);
/* Accepts NULL. */
void relay_destroy(struct relay *r);
