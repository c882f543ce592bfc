/* SPDX-License-Identifier: Apache-2.0
 *
 * The log's contract. stderr is a datagram socket here, so that what one write(2) wrote is what one
 * recv gives. Behind that, what becomes of lines when nobody reads stderr, whatever it is.
 */
#include "../../../conf/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int listener;

static void catch_stderr(void)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    cr_assert_eq(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    close(ends[1]);
    listener = ends[0];
}

/* What one write wrote, or "" when there is none; valid until the next call. */
static const char *next_write(void)
{
    static char text[8192];
    ssize_t n = recv(listener, text, sizeof(text) - 1, MSG_DONTWAIT);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

TestSuite(log, .init = catch_stderr);

static bool matches(const char *text, const char *pattern)
{
    regex_t regex;
    cr_assert_eq(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

Test(log, a_line_is_time_level_and_text)
{
    log_event(LOG_WARN, "node %s lost: %d", "a:1", 7);
    const char *line = next_write();
    cr_assert(matches(line, "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z "
                            "warn node a:1 lost: 7\n$"),
              "%s", line);
}

Test(log, the_time_is_now_in_utc)
{
    setenv("TZ", "Asia/Tokyo", 1);
    tzset();
    time_t before = time(NULL);
    log_event(LOG_INFO, "x");
    struct tm tm = {0};
    cr_assert_not_null(strptime(next_write(), "%Y-%m-%dT%H:%M:%S", &tm));
    time_t said = timegm(&tm);
    cr_assert(said >= before && said <= time(NULL) + 1); /* time() may lag by a timer tick */
}

Test(log, every_level_has_its_word)
{
    static const char *const words[] = {"Z debug x\n", "Z info x\n", "Z warn x\n", "Z error x\n"};
    log_set_level(LOG_DEBUG);
    for (int level = LOG_DEBUG; level <= LOG_ERROR; level++) {
        log_event((enum log_level)level, "x");
        cr_assert_not_null(strstr(next_write(), words[level]));
    }
}

Test(log, debug_is_off_at_first)
{
    cr_assert_not(log_enabled(LOG_DEBUG));
    cr_assert(log_enabled(LOG_INFO));
}

Test(log, lines_below_the_level_are_dropped)
{
    for (int lowest = LOG_DEBUG; lowest <= LOG_ERROR; lowest++) {
        log_set_level((enum log_level)lowest);
        for (int level = LOG_DEBUG; level <= LOG_ERROR; level++) {
            bool written = level >= lowest;
            cr_assert_eq(log_enabled((enum log_level)level), written);
            log_event((enum log_level)level, "x");
            cr_assert_eq(next_write()[0] != '\0', written);
        }
    }
}

Test(log, a_line_is_one_write)
{
    log_event(LOG_INFO, "first");
    log_event(LOG_INFO, "second");
    const char *first = next_write();
    cr_assert_not_null(strstr(first, " first\n"));
    cr_assert_null(strstr(first, "second"));
    cr_assert_not_null(strstr(next_write(), " second\n"));
    cr_assert_str_eq(next_write(), "");
}

Test(log, control_characters_cannot_forge_a_line)
{
    log_event(LOG_INFO, "%s", "a\nb\rc\x1b[31md\x7f\te");
    cr_assert_not_null(strstr(next_write(), " a?b?c?[31md??e\n"));
}

Test(log, nor_can_the_second_set_of_control_characters)
{
    log_event(LOG_INFO, "%s",
              "a\xc2\x85 b\xc2\x9b"
              "c");
    cr_assert_not_null(strstr(next_write(), " a\xc2? b\xc2?c\n"));
}

Test(log, other_text_stays_as_it_is)
{
    log_event(LOG_INFO, "%s", "caf\xc3\xa9 \xe2\x82\xac \xc2\xa0");
    cr_assert_not_null(strstr(next_write(), " caf\xc3\xa9 \xe2\x82\xac \xc2\xa0\n"));
}

Test(log, a_line_that_is_too_long_says_so)
{
    char text[5000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_event(LOG_INFO, "%s", text);
    const char *line = next_write();
    size_t n = strlen(line);
    cr_assert_leq(n, 2048);
    cr_assert_str_eq(line + n - 5, "x...\n");
    cr_assert_str_eq(next_write(), "");
}

Test(log, no_length_of_text_is_special)
{
    char text[2100];
    for (size_t n = 1900; n < sizeof(text); n++) {
        memset(text, 'x', n);
        text[n] = '\0';
        log_event(LOG_INFO, "%s", text);
        const char *line = next_write();
        const char *last = line + strlen(line) - 1;
        cr_assert_eq(*last, '\n');
        cr_assert(strstr(line, text) != NULL || strstr(line, "...\n") == last - 3);
    }
}

Test(log, errno_survives)
{
    errno = EHOSTUNREACH;
    log_event(LOG_ERROR, "%m");
    cr_assert_eq(errno, EHOSTUNREACH);
    cr_assert_not_null(strstr(next_write(), strerror(EHOSTUNREACH)));
    close(STDERR_FILENO);
    log_event(LOG_ERROR, "nobody hears it");
    cr_assert_eq(errno, EHOSTUNREACH);
}

#define THREADS          4
#define LINES_PER_THREAD 20

static void *write_lines(void *name)
{
    for (int i = 0; i < LINES_PER_THREAD; i++) {
        log_event(LOG_INFO, "thread %s line %d of many", (const char *)name, i);
    }
    return NULL;
}

Test(log, lines_of_several_threads_do_not_mix)
{
    static char names[THREADS][2] = {"0", "1", "2", "3"};
    int next[THREADS] = {0};
    pthread_t threads[THREADS];
    int size = 1 << 20;
    setsockopt(STDERR_FILENO, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, write_lines, names[i]), 0);
    }
    for (int i = 0; i < THREADS * LINES_PER_THREAD; i++) {
        char line[512];
        ssize_t n = recv(listener, line, sizeof(line) - 1, 0);
        cr_assert_gt(n, 0);
        line[n] = '\0';
        int thread = 0;
        int number = 0;
        cr_assert_eq(sscanf(strstr(line, "thread"), "thread %d line %d", &thread, &number), 2);
        cr_assert(matches(line, "Z info thread [0-3] line [0-9]+ of many\n$"), "%s", line);
        cr_assert_eq(number, next[thread]++);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

Test(log, the_first_line_through_a_limit_is_allowed)
{
    struct log_limit limit = {0};
    uint64_t suppressed = 99;
    cr_assert(log_allow(&limit, 0, 1000, &suppressed));
    cr_assert_eq(suppressed, 0);
}

Test(log, a_limit_lets_one_line_through_per_interval)
{
    struct log_limit limit = {0};
    uint64_t suppressed = 99;
    cr_assert(log_allow(&limit, 5000, 1000, &suppressed));
    cr_assert_not(log_allow(&limit, 5000, 1000, &suppressed));
    cr_assert_not(log_allow(&limit, 5500, 1000, &suppressed));
    cr_assert_not(log_allow(&limit, 5999, 1000, &suppressed));
    cr_assert(log_allow(&limit, 6000, 1000, &suppressed));
    cr_assert_eq(suppressed, 3);
    cr_assert_not(log_allow(&limit, 6001, 1000, &suppressed));
    cr_assert(log_allow(&limit, 9000, 1000, &suppressed));
    cr_assert_eq(suppressed, 1, "only those since the last line count");
}

Test(log, limits_do_not_share_anything)
{
    struct log_limit a = {0};
    struct log_limit b = {0};
    uint64_t suppressed;
    cr_assert(log_allow(&a, 10, 1000, &suppressed));
    cr_assert(log_allow(&b, 10, 1000, &suppressed));
}

Test(log, a_limit_survives_the_end_of_time)
{
    struct log_limit limit = {0};
    uint64_t suppressed;
    cr_assert(log_allow(&limit, INT64_MAX - 10, 1000, &suppressed));
    cr_assert_not(log_allow(&limit, INT64_MAX - 5, 1000, &suppressed));
}

/* ---- Nobody reads stderr ---------------------------------------------------------------------- */

/* A write that waits does so for ever here: then a test runs out of time. */
TestSuite(log_unread, .timeout = 30);

#define UNREAD_LINES 4000 /* more bytes than any of these takes */
#define SILENCE_MS   1000

static int reader;          /* the other end of stderr */
static char heard[1 << 20]; /* what came out there */
static size_t heard_bytes;

/* Takes both. */
static void become_stderr(int fd, int other_end)
{
    cr_assert_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    close(fd);
    reader = other_end;
    cr_assert_eq(fcntl(reader, F_SETFL, fcntl(reader, F_GETFL) | O_NONBLOCK), 0);
}

static void stderr_is_pipe(void)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    become_stderr(ends[1], ends[0]);
}

static void stderr_is_terminal(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    cr_assert(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    cr_assert_geq(slave, 0);
    become_stderr(slave, master);
}

static void *log_unread_lines(void *count)
{
    for (int i = 0; i < *(int *)count; i++) {
        log_event(LOG_INFO, "line %d of many, in which there is more than its number: end", i);
    }
    return NULL;
}

/* Reads until there is `word`, or silence. */
static bool hears(const char *word)
{
    struct pollfd room = {.fd = reader, .events = POLLIN};
    for (;;) {
        ssize_t n = read(reader, heard + heard_bytes, sizeof(heard) - 1 - heard_bytes);
        if (n > 0) {
            heard_bytes += (size_t)n;
        } else if (strstr(heard, word) != NULL) {
            return true;
        } else if (poll(&room, 1, SILENCE_MS) == 0) {
            return false;
        }
    }
}

/* Every line so far, and those it takes until one goes through again, was heard whole or told to be
 * lost. */
static void check_lost_lines_are_told(unsigned logged)
{
    const char *const told = " log lines were lost: stderr was not read, or full";
    cr_assert_gt(log_count_lost(), 0);
    hears("\n\n"); /* what there is: until silence */
    do {
        log_event(LOG_INFO, "at last: end");
        logged++;
    } while (!hears(" at last: end"));

    uint64_t lost = 0;
    unsigned whole = 0;
    char *save = NULL;
    for (char *line = strtok_r(heard, "\r\n", &save); line; line = strtok_r(NULL, "\r\n", &save)) {
        const char *at = strstr(line, told);
        if (at != NULL) {
            cr_assert(matches(line, "^[0-9TZ:.-]+ warn [0-9]+ log lines were lost"), "%s", line);
            lost += strtoull(strstr(line, " warn ") + 6, NULL, 10);
        } else if (matches(line, "^[0-9TZ:.-]+ info .*: end$")) {
            whole++;
        }
    }
    cr_assert_gt(lost, 0);
    cr_assert_eq(lost, log_count_lost());
    cr_assert_eq(whole + lost, logged, "%u heard, %llu lost, %u logged", whole,
                 (unsigned long long)lost, logged);
}

static void check_unread(void)
{
    int count = UNREAD_LINES;
    log_unread_lines(&count);
    check_lost_lines_are_told(UNREAD_LINES);
}

Test(log_unread, a_full_pipe_loses_lines_and_then_says_how_many)
{
    stderr_is_pipe();
    check_unread();
    cr_assert_eq(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK, 0, "set for others, too");
}

/* As when privileges were dropped: mode 0, and nobody who may pass over it. */
Test(log_unread, so_does_a_pipe_that_may_not_be_opened_again_also_with_several_threads)
{
    pthread_t threads[THREADS];
    int count = UNREAD_LINES / THREADS;
    stderr_is_pipe();
    cr_assert_eq(fchmod(STDERR_FILENO, 0), 0);
    cr_assert(geteuid() != 0 || seteuid(65534) == 0);
    cr_assert_lt(open("/proc/self/fd/2", O_WRONLY), 0);
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, log_unread_lines, &count), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    check_lost_lines_are_told(UNREAD_LINES);
}

Test(log_unread, so_does_a_stream_socket)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    become_stderr(ends[1], ends[0]);
    check_unread();
}

Test(log_unread, so_does_a_terminal)
{
    stderr_is_terminal();
    check_unread();
}

Test(log_unread, so_does_a_terminal_that_was_stopped)
{
    stderr_is_terminal();
    cr_assert_eq(tcflow(STDERR_FILENO, TCOOFF), 0); /* Ctrl-S */
    log_event(LOG_INFO, "nobody sees it: end");
    cr_assert_eq(tcflow(STDERR_FILENO, TCOON), 0);
    check_lost_lines_are_told(1);
}

Test(log_unread, so_does_a_full_disk)
{
    int full = open("/dev/full", O_WRONLY);
    cr_assert_eq(dup2(full, STDERR_FILENO), STDERR_FILENO);
    log_event(LOG_INFO, "there is no room: end");
    stderr_is_pipe();
    check_lost_lines_are_told(1);
}

Test(log_unread, a_file_needs_no_reader)
{
    int count = UNREAD_LINES;
    int fd = memfd_create("stderr", MFD_CLOEXEC);
    cr_assert_eq(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    log_unread_lines(&count);
    cr_assert_eq(log_count_lost(), 0);
    ssize_t n = pread(fd, heard, sizeof(heard) - 1, 0);
    cr_assert_gt(n, 0);
    int lines = 0;
    for (ssize_t i = 0; i < n; i++) {
        lines += heard[i] == '\n' ? 1 : 0;
    }
    cr_assert_eq(lines, UNREAD_LINES);
}

Test(log_unread, another_stderr_is_followed)
{
    stderr_is_pipe();
    int first = reader;
    log_event(LOG_INFO, "first: end");
    stderr_is_pipe();
    log_event(LOG_INFO, "second: end");
    cr_assert(hears("second: end"));
    cr_assert_null(strstr(heard, "first"));
    cr_assert_gt(read(first, heard, sizeof(heard)), 0);
    cr_assert_eq(read(first, heard, sizeof(heard)), 0, "nothing holds the first one open");
}
