/* SPDX-License-Identifier: Apache-2.0
 *
 * spread.h: one command becomes several, and their replies one (enum cmd_spread in cmd.h). Bytes in,
 * bytes out: nothing here knows of nodes or connections.
 */
#pragma once

#include "chain.h"
#include "cmd.h"

/* Appends the commands that together do what the request asks for (GETS, SETS, COUNT): *n of them. Keys of
 * one slot stay in their order. False: memory is out. The request has the arity of its row, and MSET a
 * value for each key. */
MUST_CHECK bool spread_split(enum cmd_spread how, const struct request_view *view,
                             uint16_t (*slot_of)(struct slice key), struct chain *out, size_t *n);

/* Takes n whole replies that lie one behind the other apart. False: they are something else. */
MUST_CHECK bool spread_replies(struct slice bytes, struct slice *replies, size_t n);

/* Appends the one reply that n (> 0) replies make; not for SCAN. `chance` is for PICK. False: memory is
 * out. */
MUST_CHECK bool spread_join(enum cmd_spread how, const struct slice *replies, size_t n,
                            uint32_t chance, bool resp3, struct chain *out);

/* ---- SCAN ---------------------------------------------------------------------------------- */

/* A cursor is the node's, times SPREAD_SCAN_NODES, plus 1 + the number of the node; 0 is the beginning,
 * and the end. It stays small as long as the node's is: JavaScript has no more than 53 bits. */
#define SPREAD_SCAN_NODES 8192

struct spread_scan {
    bool begins;
    uint16_t node;
    uint64_t cursor; /* the node's own */
};

/* False: it is no cursor of ours. */
MUST_CHECK bool spread_scan_read(struct slice text, struct spread_scan *scan);
/* Appends the request with the node's own cursor in it. False: memory is out. */
MUST_CHECK bool spread_scan_request(const struct request_view *view, uint64_t cursor,
                                    struct chain *out);
/* Where a node's reply leads: its cursor, 0 when it has no more. False: it is an error, or no reply to
 * SCAN; it is passed on as it is. */
MUST_CHECK bool spread_scan_next(struct slice reply, uint64_t *cursor);
/* Appends the node's reply with the cursor that leads on (`next` NULL: that is the end) in place of its
 * own. False: memory is out. */
MUST_CHECK bool spread_scan_reply(struct slice reply, const struct spread_scan *next,
                                  struct chain *out);
