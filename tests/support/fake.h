/* SPDX-License-Identifier: Apache-2.0
 *
 * fake.h: a Redis server that lies. It greets like a well-behaved one (HELLO, CLIENT, INFO, PING,
 * SELECT, COMMAND), answers GET with "$5 value", PTTL with -1 and other commands with +OK, except
 * where a rule of the test says what it sends instead. Runs in a thread of its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct fake;

enum fake_then {
    FAKE_KEEP,  /* goes on serving */
    FAKE_CLOSE, /* closes after the reply */
    FAKE_RESET, /* resets the connection after the reply */
    FAKE_HANG,  /* keeps the connection and never answers on it again */
    FAKE_SLOW,  /* sends the reply byte by byte, and goes on */
};

struct fake_rule {
    const char *prefix; /* of the command's words joined by blanks, in any case: "GET bad" */
    const char *reply;  /* sent as it is; NULL: nothing */
    size_t n;           /* its length; 0: that of the string */
    enum fake_then then;
};

/* Starts it with rules up to one whose prefix is NULL; the first that matches counts. They must
 * live until the end of the test. Owned by the cleanup. */
struct fake *fake_start(const struct fake_rule *rules);
int fake_port(const struct fake *f);
/* How many commands that begin with prefix it has received. */
int fake_seen(struct fake *f, const char *prefix);
