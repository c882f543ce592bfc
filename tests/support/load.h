/* SPDX-License-Identifier: Apache-2.0
 *
 * load.h: a load that judges what it is answered, for tests that trouble the servers meanwhile. Threads
 * write numbers, each to keys of its own, through the proxy and past it, and others read them through
 * the proxy. A read has to return at least the number that had been acknowledged before it was sent
 * (of writes past the proxy: at least `grace_ms` before), and none that was not written.
 *
 * An error is no violation, but counted. After a write whose outcome is not known its key is given up for
 * another one: the server may execute it at any later time.
 */
#pragma once

#include <stdbool.h>

struct load;

struct load_options {
    int port;         /* of the proxy */
    const int *ports; /* of the servers, up to a 0: for writes past the proxy; NULL: none */
    int grace_ms;     /* the link lease, and what a clock of the test's may be off */
    bool waits;       /* a write counts as acknowledged when a replica has it (WAIT 1) */
};

struct load *load_start(const struct load_options *options);
/* Waits until so many reads more have been answered with a value, and writes on both ways. Fails the test when
 * that takes longer than ms, or when something was wrong. */
void load_await(struct load *load, long reads, int ms);
/* From now on a write counts without a replica. */
void load_wait_no_more(struct load *load);
/* From now on, until load_forget, the servers may lose what they have acknowledged: a read has to return some
 * value of its key, or none. */
void load_doubt(struct load *load);
/* From now on they lose nothing; all keys are given up for others. */
void load_forget(struct load *load);
/* Ends it; fails the test if anything was wrong, or if a value that was acknowledged is gone now. */
void load_stop(struct load *load);
