/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.h: a TCP relay between two ends of a link that can make the link bad without closing it:
 * hold one direction (a half-open connection, a partition), delay, or cut. Runs in a thread of its
 * own; the functions may be called on any thread. What is held or delayed is never lost or
 * reordered.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct relay;

enum relay_way {
    RELAY_UP = 1,   /* from who connected to the target */
    RELAY_DOWN = 2, /* from the target */
    RELAY_BOTH = 3,
};

/* Listens on a port of its own and connects each connection to the target port. If mark is not
 * NULL, a link is marked once `mark` was seen on its way up (in any case). Owned by the cleanup. */
struct relay *relay_start(int target_port, const char *mark);
int relay_port(const struct relay *r);

/* From the return of this call until relay_release no byte passes in the given ways; on marked
 * links only, or on all. */
void relay_hold(struct relay *r, unsigned ways, bool marked_only);
void relay_release(struct relay *r);
/* Every byte read from now on takes at least `ms` on these ways. */
void relay_delay(struct relay *r, unsigned ways, int ms);
/* For marked links alone, besides what all links have: each read by another time, up to `ms`. */
void relay_delay_marked(struct relay *r, unsigned ways, int ms);
/* From now on at most n bytes at a time on these ways; 0: as many as there are. */
void relay_chop(struct relay *r, unsigned ways, size_t n);
/* Closes the marked links, or all. */
void relay_cut(struct relay *r, bool marked_only);
/* Links open now. */
int relay_links(struct relay *r);
/* Links made from now on lead to another port; those there are stay. */
void relay_retarget(struct relay *r, int target_port);

/* ---- One link alone, by its number ---------------------------------------------------------- */

/* The open link on which `word` passed upwards lately (within its last 4 KiB, in any case); of several
 * the one made last. -1: none. */
int relay_find(struct relay *r, const char *word);
/* The nth open link (counted around), of the marked ones or of all; -1: there is none. */
int relay_pick(struct relay *r, unsigned n, bool marked_only);
/* Holds these ways of one link, whatever relay_hold says of all; 0: none. relay_release ends it too. */
void relay_hold_link(struct relay *r, int link, unsigned ways);
/* Lets n bytes pass on a way that is held. */
void relay_pass(struct relay *r, int link, enum relay_way way, size_t n);
void relay_cut_link(struct relay *r, int link);
