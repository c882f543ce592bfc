/* SPDX-License-Identifier: Apache-2.0
 *
 * route.h: which node of a cluster a request goes to. With one server nothing here is called: every
 * request goes to node 0 and has slot 0. Worker's thread only.
 */
#pragma once

#include "../resp/cmd.h"
#include "worker.h"

#define SLOT_NONE     UINT16_MAX
#define CROSSSLOT     "CROSSSLOT Keys in request don't hash to the same slot"
#define ROUTE_NO_NODE "UPSTREAM no node of the cluster is known"

enum route {
    ROUTE_OK,
    ROUTE_CROSSES,  /* its keys are in more than one slot; the place is that of the first */
    ROUTE_UNSERVED, /* nobody owns its slot */
    ROUTE_NOWHERE,  /* no map has come yet, or it names no primary */
};

/* Where the request that is being served goes. */
struct place {
    enum route route;
    uint16_t node;
    uint16_t slot;       /* SLOT_NONE: it names no key, and any primary will do */
    uint32_t generation; /* of the slot in L1, from before its owner was looked up (l1.h) */
};

/* The place of a key. */
struct place route_key(const struct server *server, struct slice key);
/* The place of a command; `hint` spreads those without keys, and keeps those of one client on one node
 * as long as it is there. */
struct place route_command(const struct server *server, const struct cmd *cmd,
                           const struct request_view *view, uint32_t hint);

/* Has a map come? To be asked before a place is looked up: a request that then finds none waits, and a
 * map that came in between has yet to wake it (nodes.c). Asked afterwards, nobody would. */
bool route_has_map(const struct worker *worker);
/* May a request still wait for the first map? Until connect_timeout after the start. */
bool route_may_wait(const struct worker *worker);
