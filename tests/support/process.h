/* SPDX-License-Identifier: Apache-2.0
 *
 * process.h: programs under test as children of the test. A child dies with the test, whatever ends
 * the test (PR_SET_PDEATHSIG); only children started here are ever signalled, by pid. Main thread of
 * the test only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct process;

struct process_options {
    const char *const *argv; /* ends with NULL; argv[0] is looked up in PATH */
    const char *dir;         /* working directory; NULL: the test's */
    unsigned files;          /* limit on descriptors, soft and hard; 0: the test's */
    int err;                 /* its stderr, borrowed; 0: kept in memory */
};

/* Starts a program; its stdout and stderr are kept in memory unless told otherwise. Owned by the test's cleanup, which
 * kills it if it still runs. */
struct process *process_start(const struct process_options *options);

pid_t process_pid(const struct process *p);
void process_signal(struct process *p, int sig);
/* SIGSTOP, and waits until every thread stands still; SIGCONT. */
void process_freeze(struct process *p);
void process_thaw(struct process *p);
/* Changes the soft limit on descriptors of the running process. */
void process_limit_files(struct process *p, unsigned files);

/* Has it ended? */
bool process_ended(struct process *p);
/* Waits for its end. False: it still runs after `ms`. */
bool process_wait(struct process *p, int64_t ms);
/* After its end: the exit status, or 128 + the signal that ended it. */
int process_status(const struct process *p);
/* SIGKILL, and waits. */
void process_kill(struct process *p);

/* Everything written so far, as a string that lives until the test is over. */
const char *process_stdout(struct process *p);
const char *process_stderr(struct process *p);

/* CPU time used so far, and resident memory. */
int64_t process_cpu_ms(const struct process *p);
int64_t process_rss_kb(const struct process *p);

/* Runs a program to its end, at most for `ms`; fails the test if it takes longer. */
struct process *process_run(const char *const *argv, int64_t ms);

/* A port of the loopback address nobody listens on. Reserved for this test process against other
 * tests; below the range the kernel takes ports of outgoing connections from, so it stays free. */
int free_port(void);

/* The path of what lies beside this test program. */
const char *file_beside(const char *name);
/* A directory of its own that is removed, with all that is in it, when the test is over. */
const char *temp_dir(void);
/* Writes a file into such a directory; returns its path. */
const char *temp_file(const char *dir, const char *name, const char *text);
