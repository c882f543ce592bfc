/* SPDX-License-Identifier: Apache-2.0
 *
 * sentinel.h: keeps a node at the address of the master that Redis Sentinel names.
 *
 *   a sentinel answers, or announces ─► candidate ── ROLE says master ─► node_set_address
 *                                          └─ anything else ─► refused; the next sentinel is asked
 *
 * It asks at the start, when a sentinel announces something, when the master's connection is lost,
 * when the master says that it is none (then the node has no address until there is one), when
 * sentinel_suspect is called, and every `refresh_ms`. Further sentinels are learnt from those that
 * answer. An answer with an older configuration epoch than the one followed is a sentinel that has
 * been cut off: it is not believed, unless nobody knows better and the master that is followed is silent or none
 * any more: then the sentinels have been set up again.
 *
 * The master's replicas are those that it names itself, every `role_ms` and when it is followed; it has
 * none when it says that it is no master.
 */
#pragma once

#include "topology.h"

#include <ev.h>

struct sentinel;

struct sentinel_options {
    struct ev_loop *loop;
    struct node *node;         /* the server; created with a label, without an address */
    const char *master;        /* its name */
    struct topology *topology; /* is told the master's replicas (replicas.h); NULL: nobody asks */
    /* What the sentinels are connected to with; host and port are not used. */
    struct node_options peer;
    int64_t refresh_ms;
    int64_t role_ms; /* between two questions whether the master is still one */
    int64_t (*now)(void);
};

/* Copies the options. */
struct sentinel *sentinel_create(const struct sentinel_options *options);
/* Accepts NULL. */
void sentinel_destroy(struct sentinel *s);

/* A sentinel to ask. Loop's thread, as create and destroy. */
void sentinel_add(struct sentinel *s, const char *host, const char *port);

/* Somebody has met what a master does not do. Any thread. */
void sentinel_suspect(struct sentinel *s);

struct sentinel_status {
    unsigned known, up;  /* sentinels */
    uint64_t switches;   /* of the master to another address */
    int64_t switched_at; /* ms; 0: never */
};
/* Any thread. */
void sentinel_status(const struct sentinel *s, struct sentinel_status *out);
