/* SPDX-License-Identifier: Apache-2.0
 *
 * log.c: one event, one line, one write(2) to stderr:
 *
 *   2026-01-31T23:59:59.123Z warn upstream 127.0.0.1:6379 lost: Connection reset by peer
 *
 * The line is built on the stack and leaves in a single write, so that lines of several threads do
 * not mix and nothing is lost when the process dies. A line that does not fit ends in "...". What a
 * peer sent may be part of the text: control characters become '?', so that it can neither begin a
 * line of its own nor speak to a terminal.
 *
 * Any thread. The level is the one mutable global; it is read without order, since nothing else is
 * published with it. errno survives a call, for callers log on their error paths.
 *
 * Not here: files, rotation, syslog. That is the business of whoever owns stderr.
 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Not above PIPE_BUF (4096): a longer write to a pipe may be torn by another thread's. */
#define LINE_SIZE 2048

static _Atomic int lowest_level = LOG_INFO;

static const char *const level_words[] = {
    [LOG_DEBUG] = "debug",
    [LOG_INFO] = "info",
    [LOG_WARN] = "warn",
    [LOG_ERROR] = "error",
};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&lowest_level, (int)level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&lowest_level, memory_order_relaxed);
}

/* "2026-01-31T23:59:59.123Z warn "; returns its length. */
static size_t put_prefix(char *line, size_t size, enum log_level level)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &utc) == NULL) {
        memset(&utc, 0, sizeof(utc));
    }
    size_t n = strftime(line, size, "%Y-%m-%dT%H:%M:%S", &utc);
    int more =
        snprintf(line + n, size - n, ".%03ldZ %s ", now.tv_nsec / 1000000, level_words[level]);
    return more < 0 ? n : n + (size_t)more;
}

/* ASCII's controls, and Unicode's second set of them (U+0080..U+009F, in UTF-8 C2 80 to C2 9F): one of
 * those is a line break to some readers, another begins a terminal's commands. */
static void replace_controls(char *p, size_t n)
{
    unsigned char before = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c < 0x20 || c == 0x7f || (before == 0xc2 && c >= 0x80 && c <= 0x9f)) {
            p[i] = '?';
        }
        before = c;
    }
}

void log_event(enum log_level level, const char *fmt, ...)
{
    if (!log_enabled(level)) {
        return;
    }
    int saved_errno = errno;
    char line[LINE_SIZE];
    size_t start = put_prefix(line, sizeof(line), level);
    size_t room = sizeof(line) - start;

    va_list args;
    va_start(args, fmt);
    errno = saved_errno; /* for a %m */
    int wanted = vsnprintf(line + start, room, fmt, args);
    va_end(args);

    size_t n = wanted < 0 ? 0 : (size_t)wanted;
    if (n >= room) { /* room includes the NUL, which makes way for the newline */
        n = room - 1;
        memcpy(line + start + n - 3, "...", 3);
    }
    replace_controls(line + start, n);
    line[start + n] = '\n';

    ssize_t written;
    do {
        written = write(STDERR_FILENO, line, start + n + 1);
    } while (written < 0 && errno == EINTR);
    errno = saved_errno;
}

bool log_allow(struct log_limit *limit, int64_t now, int64_t interval_ms, uint64_t *suppressed)
{
    if (now < limit->next_ms) {
        limit->suppressed++;
        return false;
    }
    *suppressed = limit->suppressed;
    limit->suppressed = 0;
    if (__builtin_add_overflow(now, interval_ms, &limit->next_ms)) {
        limit->next_ms = INT64_MAX;
    }
    return true;
}
