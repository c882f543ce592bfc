/* SPDX-License-Identifier: Apache-2.0
 *
 * log.h: one event per line on stderr: time, level, what happened, to what, what it means.
 * Thread-safe (one write per line). Secrets and values of users' keys are never logged.
 *
 * A log never stops the process: when stderr takes no line now (a pipe, terminal or socket that
 * nobody reads, a full disk), the line is lost and counted, and the next one that goes through comes
 * behind a line that says how many were lost. Files are written to as ever: a slow disk is waited for.
 */
#pragma once

#include "base.h"

#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Lines below `level` are dropped. Any thread. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* Writes one line; control characters in it are replaced, so that a peer's text cannot forge
 * another line. Does not wait for a reader of stderr (log.c names what cannot be kept from waiting).
 * errno stays as it is. Any thread, under any lock. */
void log_event(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Lines lost since the start of the process. Any thread. */
uint64_t log_count_lost(void);

/* At most one line per `interval_ms` through one `struct log_limit` (zero-initialised, one per
 * message and owner, not shared between threads). Returns false to stay silent; when it returns
 * true, *suppressed says how many were swallowed since the last line. `now` in ms. */
struct log_limit {
    int64_t next_ms;
    uint64_t suppressed;
};
bool log_allow(struct log_limit *limit, int64_t now, int64_t interval_ms, uint64_t *suppressed);
