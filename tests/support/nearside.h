/* SPDX-License-Identifier: Apache-2.0
 *
 * nearside.h: the proxy under test as a child process. The binary is the one NEARSIDE_BIN names, or
 * build/release/nearside. Main thread of the test only.
 *
 * Unless a test says otherwise: two workers, invalidation as by default, and a short drain. At the
 * end of the test it is asked to end (SIGTERM) and must do so with status 0 and without a report
 * of a sanitizer; a proxy that was made to end earlier is looked at then.
 */
#pragma once

#include "client.h"
#include "process.h"

struct nearside {
    int port;
    struct process *process;
    bool expected_end;    /* the test ends it itself, or expects it to be dead */
    const char *password; /* proxy.password, set by the test: what follows here logs in; or NULL */
};

struct nearside_options {
    int upstream_port;
    const char *upstream;    /* instead: an item of upstream.servers */
    const char *const *sets; /* "section.key=value" up to a NULL, after our own; may be NULL */
    unsigned files;          /* limit on descriptors; 0: the test's */
    int err;                 /* its stderr, borrowed: there is no log then; 0: kept in memory */
};

const char *nearside_binary(void);

/* Starts it and waits until it accepts. */
struct nearside *nearside_start_with(const struct nearside_options *options);
/* The same with settings as arguments up to a NULL. */
struct nearside *nearside_start(int upstream_port, ...) __attribute__((sentinel));

/* SIGTERM; fails the test unless it ends with status 0 within `ms`. */
void nearside_stop(struct nearside *n, int64_t ms);
/* Fails the test unless the process is alive and answers PING. */
void nearside_check_alive(struct nearside *n);

/* Waits until every worker's fill connection is up. Until then GETs are answered by Redis and not
 * kept: for tests that count them. */
void nearside_await_fills(struct nearside *n);

/* A connection through the proxy, logged in if it asks for that. */
struct client *nearside_connect(struct nearside *n);

/* INFO nearside, asked on a connection of its own (which clients_connected counts); lives until the
 * test is over. */
const char *nearside_info_text(struct nearside *n);
/* A number in it; fails the test when the field is missing. */
long long nearside_info(struct nearside *n, const char *field);
/* Waits until low <= field <= high; fails the test after `ms`. */
void nearside_await_info(struct nearside *n, const char *field, long long low, long long high,
                         int64_t ms);

/* Everything it has written to stderr. */
const char *nearside_log(struct nearside *n);
/* How many lines of its log contain the word, in any case. */
int nearside_log_lines(struct nearside *n, const char *word);
/* Waits until there is one: a reply may be faster than the line. Fails the test after 10 s,
 * times slowdown(): before a scenario is out of time, so that it is told what it waited for. */
void nearside_await_log(struct nearside *n, const char *word);
