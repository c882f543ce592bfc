/* SPDX-License-Identifier: Apache-2.0
 *
 * role.h: keeps asking a server what it is (ROLE). A master that becomes a replica closes no
 * connection and announces little: whoever relies on it has to ask.
 *
 * On the loop's thread; the callbacks may destroy it.
 */
#pragma once

#include "node.h"

#include <ev.h>

struct role;
struct answer;

struct role_options {
    struct ev_loop *loop;
    struct node *node; /* must outlive it */
    int64_t every_ms;  /* between two questions */
    int64_t deadline_ms;
    int64_t (*now)(void);
    /* It has answered; `answer` is all it said, borrowed. */
    void (*said)(bool is_master, const struct answer *answer, void *ctx);
    /* It could not be asked, or would not say. */
    void (*silent)(const char *why, void *ctx);
    void *ctx;
};

/* Copies the options, and begins. */
struct role *role_create(const struct role_options *options);
/* Accepts NULL. */
void role_destroy(struct role *role);
/* Asks at once, or as soon as it is connected. */
void role_hurry(struct role *role);
