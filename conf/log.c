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
 * Whoever reads stderr may stop (a pager, Ctrl-S, a supervisor that hangs), and no worker may wait for
 * him. O_NONBLOCK on the descriptor we were given would do, but it belongs to the open file, which
 * other processes share: a shell's terminal, a log's other writers. So, by what stderr is:
 *
 *   pipe, terminal   opened once more, which gives an open file of our own, with O_NONBLOCK
 *   socket           cannot be opened; send(2) with MSG_DONTWAIT is for this one call
 *   anything else    files and devices, which need no reader; and pipes and terminals that may not be
 *                    opened (of another user's, say, before privileges were dropped): poll(2), then
 *                    write(2). A pipe that polls writable has room for PIPE_BUF bytes, and the lock
 *                    keeps our threads out in between. What is left is another process that fills
 *                    that pipe just then, and a terminal with less room than a line.
 *
 * A thread with a queue would wait in our stead for all of these, but what it holds when the process
 * dies is lost, and those are the lines that are looked for.
 *
 * Any thread. `out` is under its lock, in which nothing waits for a reader. The level and the count of
 * lost lines are read without order, since nothing else is published with them. errno survives a
 * call, for callers log on their error paths.
 *
 * Not here: files, rotation, syslog. That is the business of whoever owns stderr.
 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE 2048
_Static_assert(LINE_SIZE <= PIPE_BUF, "a pipe takes a line whole or not at all");

enum way { WAY_POLL, WAY_OWN, WAY_SEND };

static _Atomic int lowest_level = LOG_INFO;
static _Atomic uint64_t lines_lost;

static struct {
    pthread_mutex_t lock;
    dev_t dev; /* what stderr was when its way was chosen; 0: to be chosen again */
    ino_t ino;
    enum way way;
    int own;         /* with WAY_OWN */
    bool torn;       /* a terminal or a full disk took a part of the last line */
    uint64_t untold; /* lines lost since the last that went through */
} out = {.lock = PTHREAD_MUTEX_INITIALIZER};

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

/* Chooses the way to stderr when it is not what it was: somebody may give a running process another
 * one (a debugger, a test). */
static void follow_stderr(void)
{
    struct stat st = {0};
    (void)fstat(STDERR_FILENO, &st); /* closed: stays zero, and write says so */
    if (st.st_dev == out.dev && st.st_ino == out.ino) {
        return;
    }
    if (out.way == WAY_OWN) {
        close(out.own);
    }
    out.dev = st.st_dev;
    out.ino = st.st_ino;
    out.way = S_ISSOCK(st.st_mode) ? WAY_SEND : WAY_POLL;
    if (S_ISFIFO(st.st_mode) || isatty(STDERR_FILENO)) {
        out.own = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (out.own >= 0) {
            out.way = WAY_OWN;
        } else { /* out of descriptors, a FIFO without a reader: the next line may try again */
            out.dev = 0;
            out.ino = 0;
        }
    }
}

/* As write(2), but -1 with EAGAIN when it would wait for a reader. */
static ssize_t write_now(const char *p, size_t n)
{
    struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
    switch (out.way) {
    case WAY_OWN:
        return write(out.own, p, n);
    case WAY_SEND:
        return send(STDERR_FILENO, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    case WAY_POLL:
        break;
    }
    if (poll(&room, 1, 0) != 1) {
        errno = EAGAIN;
        return -1;
    }
    return write(STDERR_FILENO, p, n);
}

/* The line begins with a newline, which is for the end of a torn one, and otherwise left out. False: it
 * did not go, or not all of its text. */
static bool put(const char *line, size_t n)
{
    size_t skipped = out.torn ? 0 : 1;
    size_t wanted = n - skipped;
    ssize_t written;
    do {
        written = write_now(line + skipped, wanted);
    } while (written < 0 && errno == EINTR);
    if (written > 0) {
        out.torn = (size_t)written < wanted;
    }
    return written >= (ssize_t)wanted - 1; /* a terminal may have room for all but the newline */
}

static void count_lost(void)
{
    out.untold++;
    atomic_fetch_add_explicit(&lines_lost, 1, memory_order_relaxed);
}

/* The line, behind what there is to tell of others. With out.lock. */
static void put_line(const char *line, size_t n)
{
    follow_stderr();
    if (out.untold > 0) {
        char told[160] = "\n";
        size_t at = 1 + put_prefix(told + 1, sizeof(told) - 1, LOG_WARN);
        int more = snprintf(told + at, sizeof(told) - at,
                            "%llu log lines were lost: stderr was not read, or full\n",
                            (unsigned long long)out.untold);
        if (more < 0 || !put(told, at + (size_t)more)) {
            count_lost();
            return;
        }
        out.untold = 0;
    }
    if (!put(line, n)) {
        count_lost();
    }
}

void log_event(enum log_level level, const char *fmt, ...)
{
    if (!log_enabled(level)) {
        return;
    }
    int saved_errno = errno;
    char line[LINE_SIZE];
    line[0] = '\n';
    size_t start = 1 + put_prefix(line + 1, sizeof(line) - 1, level);
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

    pthread_mutex_lock(&out.lock);
    put_line(line, start + n + 1);
    pthread_mutex_unlock(&out.lock);
    errno = saved_errno;
}

uint64_t log_count_lost(void)
{
    return atomic_load_explicit(&lines_lost, memory_order_relaxed);
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
