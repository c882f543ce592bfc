/* SPDX-License-Identifier: Apache-2.0
 *
 * The log's contract. stderr is a datagram socket here, so that what one write(2) wrote is what one
 * recv gives.
 */
#include "../../../conf/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
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
    /* A datagram socket queues few lines; the writers wait for us. */
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
