/* SPDX-License-Identifier: Apache-2.0
 *
 * learnt.h: rows for commands that commands.def does not have (modules, newer servers), learnt from
 * the server's own reply to COMMAND. commands.def always wins: what it names, container or command,
 * is never looked up here. What has no row here either is fenced, which is always safe.
 *
 * What a row may claim, and why that keeps the promise (first line that fits):
 *
 *   a container; flagged admin,        UNKNOWN  may do anything
 *   pubsub, may_replicate or noscript
 *   (noscript: unless blocking)
 *   write and readonly, or neither     UNKNOWN  says nothing
 *   keys movable, incomplete, absurd   UNKNOWN  some keys may be hidden; those at known positions
 *                                               are treated as written all the same
 *   write, keys at known positions     WRITE    write-begin and -end for each. A request without any
 *                                               of these keys is UNKNOWN (`arity` sees to that)
 *   write without keys                 UNKNOWN  it changes something, but what?
 *   readonly, keys at known positions  READ     R7 for its keys; sent again when its connection dies
 *                                               (D16)
 *   readonly without keys              NONE     changes nothing. Not sent again: it reads the
 *                                               module's own state, and may consume what it reads
 *
 * With the flag `blocking` the class is PINNED and the above the effect: a shared connection would
 * hold everybody up. (admin or pubsub besides: `blocking` is not set in the row, and so the connection
 * is not given to another client afterwards.)
 *
 * So a command is taken at its word in one thing: that it changes the keys it declares and no
 * others, as Redis Cluster and ACLs require. One that lies (a write that changes further keys, a
 * readonly command that writes) is seen like a write made elsewhere: when Redis announces it.
 *
 * A row is never freed or changed once it can be found, so that requests in flight may keep it. A
 * name has at most one row at a time, behind one atomic pointer (release, acquire), so readers need
 * no lock. What changed gets another row, what vanished none; a row that comes back is the one it
 * was. Writers take a lock; learnt_find is for any thread at any time.
 */
#pragma once

#include "cmd.h"

/* Rows made in the life of the process, and bytes in a name ("container|sub"); what is beyond has no
 * row. */
#define LEARNT_ROWS_MAX 4096
#define LEARNT_NAME_MAX 64

enum learnt_status {
    LEARNT_OK,
    LEARNT_FULL,      /* the same, but for want of room or memory not all commands have a row */
    LEARNT_OUTDATED,  /* learnt_forget was called since the question: ask again; nothing changed */
    LEARNT_MALFORMED, /* no array of commands; nothing changed */
};

/* Counts calls of learnt_forget. Read it before COMMAND is sent. */
uint64_t learnt_epoch(void);

/* The server's commands may be others now: no name has a row until they are learnt again. Returns
 * the new epoch. */
uint64_t learnt_forget(void);

/* From now on the rows are what `reply` (whole, as it came, RESP2 or RESP3) says; `epoch` is from
 * before the question. Elements that make no sense are passed over. Nothing is allocated but rows,
 * whatever is in the reply. */
MUST_CHECK enum learnt_status learnt_read(struct slice reply, uint64_t epoch);

/* The row for a request by its first one or two arguments, whatever their case, or NULL. Only for
 * names that commands.def does not have: cmd_find asks. */
const struct cmd *learnt_find(const struct request_view *v);

/* Names that have a row now; rows made so far. */
uint32_t learnt_count(void);
uint32_t learnt_rows(void);

/* Frees all rows: for tests, when nobody holds one. */
void learnt_reset(void);
