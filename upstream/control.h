/* SPDX-License-Identifier: Apache-2.0
 *
 * control.h: a connection on which questions are asked about servers (who is the master, who owns
 * which slot, what is your role), and on which a sentinel announces changes. Few, small, and never on
 * a worker's loop: the data goes over conn.h.
 *
 *              created        connected       logged in
 *   BACKOFF ───────────► CONNECTING ───► LOGIN ─────────► UP
 *      ▲                     │ fails       │ refused       │ lost, or a question not answered in time
 *      └─────────────────────┴─────────────┴───────────────┘     (50 ms .. 1 s, with jitter)
 *
 * It connects again by itself until it is destroyed, and each time it is lost or could not be made, a name is looked
 * up again (node_resolve). Single-threaded: the loop's. All callbacks come from the loop, never from inside a call
 * of this header; they may ask and may destroy. What a peer sends is bounded and checked here; what it means is for
 * who asked to judge.
 */
#pragma once

#include "node.h"

#include <ev.h>

struct control;

enum answer_type {
    ANSWER_NIL,
    ANSWER_TEXT, /* bulks and statuses, and numbers that are no integers */
    ANSWER_ERROR,
    ANSWER_NUMBER, /* integers; booleans as 0 and 1 */
    ANSWER_LIST,   /* arrays and sets; a map as key, value, key, value ... */
};

struct answer {
    enum answer_type type;
    struct slice text;
    int64_t number;
    const struct answer *items;
    size_t nitems;
};

/* Is it text of just these bytes? */
bool answer_is(const struct answer *a, const char *text);
/* The value behind a key in a list of keys and values; NULL: there is none. */
const struct answer *answer_field(const struct answer *map, const char *key);
/* An integer, or a text that is one. */
MUST_CHECK bool answer_number(const struct answer *a, int64_t *number);

struct control_options {
    struct ev_loop *loop;
    struct node *node; /* its address and credentials; must outlive the connection */
    bool resp3;        /* logs in with HELLO 3, so that questions can be asked beside SUBSCRIBE */
    int64_t
        deadline_ms; /* of the first lookup of a name, of connecting, of logging in, of each question */
    int64_t (*now)(void);
    /* Logged in. */
    void (*up)(struct control *c, void *ctx);
    /* It could not connect or log in, or is lost; its questions have been told. Once per attempt. */
    void (*down)(struct control *c, const char *why, void *ctx);
    /* A message of a channel subscribed to. May be NULL. */
    void (*message)(struct control *c, struct slice channel, struct slice text, void *ctx);
    void *ctx;
};

/* Copies the options, and begins to connect. */
struct control *control_create(const struct control_options *options);
/* Tells nobody. Accepts NULL. */
void control_destroy(struct control *c);

bool control_is_up(const struct control *c);
/* In BACKOFF: tries at once. */
void control_hurry(struct control *c);

/* The answer, borrowed; NULL: there will be none, the connection is lost. */
typedef void control_answer_fn(struct control *c, const struct answer *answer, void *ctx);

/* Sends a command; `words` ends with NULL. `answer` is called exactly once, unless the connection is
 * destroyed first. Only while it is up. */
void control_ask(struct control *c, const char *const *words, control_answer_fn *answer, void *ctx);
