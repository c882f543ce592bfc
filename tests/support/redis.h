/* SPDX-License-Identifier: Apache-2.0
 *
 * redis.h: a real redis-server of the test's own: free loopback port, own directory, no
 * persistence, DEBUG allowed. Main thread of the test only.
 */
#pragma once

#include "client.h"
#include "process.h"

struct redis {
    int port;
    const char *dir;
    struct process *process;
    struct client *direct; /* a connection that goes past the proxy; new after each start */
    const char *const *extra;
};

/* Starts it and waits until it answers. `extra` are further arguments up to a NULL, e.g.
 * "--rename-command", "CLIENT", "". Skips the test with a reason when redis-server is missing. */
struct redis *redis_start(const char *const *extra);
/* The same on a port that was announced before (somebody may be trying it already). */
struct redis *redis_start_on(int port, const char *const *extra);

/* Ends it at once (SIGKILL); starts it again, empty, on the same port. */
void redis_stop(struct redis *r);
void redis_restart(struct redis *r);
/* Stands still until it is thawed: connections stay, nothing is answered. */
void redis_freeze(struct redis *r);
void redis_thaw(struct redis *r);

/* How often it has executed a command (INFO commandstats); `command` in lower case, "get". */
long long redis_calls(struct redis *r, const char *command);
/* Waits until that is at least n; fails the test after `ms`. */
void redis_await_calls(struct redis *r, const char *command, long long n, int64_t ms);
/* How many errors of a code (MOVED) it has given: INFO errorstats; 0 before the first. */
long long redis_errors(struct redis *r, const char *code);
/* A number from INFO; -1 when it has no such field. */
long long redis_info(struct redis *r, const char *field);
/* The number behind "field:" or "field=" in a text of lines; `fallback` when it is not there. */
long long field_number(const char *text, const char *field, long long fallback);

/* What its replies to HELLO begin with, as text behind the bracket: who it is, and its version. */
const char *redis_greeting(struct redis *r);

/* What CLIENT LIST says there; lives until the test is over. */
const char *redis_clients(struct redis *r);

/* Kills (CLIENT KILL) every connection on which tracking is on; returns how many there were. */
int redis_kill_tracking(struct redis *r);
/* The same, but not those that are subscribed to something. */
int redis_kill_tracking_fills(struct redis *r);
