/* SPDX-License-Identifier: Apache-2.0
 *
 * nearside.c: starts the proxy, asks for its INFO, and judges how it ends.
 *
 * "Accepts" means that a PING is answered, so that start-up races are the proxy's and not the
 * test's. The end is judged in the cleanup after the clients have been closed (they were added
 * later, so they go first); the log is part of every message, because that is where the reason is.
 */
#include "nearside.h"

#include "await.h"
#include "cleanup.h"
#include "redis.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SETS_MAX  24
#define START_MS  20000
#define END_MS    10000
#define LOG_SHOWN 3000

const char *nearside_binary(void)
{
    const char *path = getenv("NEARSIDE_BIN");

    return path != NULL ? path : "build/release/nearside";
}

const char *nearside_log(struct nearside *n)
{
    return process_stderr(n->process);
}

/* The end of the log: enough for a message. */
static const char *log_tail(struct nearside *n)
{
    const char *log = nearside_log(n);
    size_t len = strlen(log);

    return len > LOG_SHOWN ? log + len - LOG_SHOWN : log;
}

static void judge_log(struct nearside *n)
{
    const char *const reports[] = {"AddressSanitizer", "LeakSanitizer", "ThreadSanitizer",
                                   "runtime error:", "bug:"};
    const char *log = nearside_log(n);

    for (size_t i = 0; i < sizeof(reports) / sizeof(reports[0]); i++) {
        const char *found = strstr(log, reports[i]);
        cr_assert(found == NULL, "the proxy reports: %.3000s", found);
    }
}

static void end_nearside(void *object)
{
    struct nearside *n = object;

    if (!n->expected_end) {
        nearside_stop(n, END_MS * slowdown());
    }
    judge_log(n);
}

void nearside_stop(struct nearside *n, int64_t ms)
{
    n->expected_end = true;
    cr_assert(!process_ended(n->process), "the proxy ended by itself, status %d; log:\n%s",
              process_status(n->process), log_tail(n));
    process_signal(n->process, SIGCONT);
    process_signal(n->process, SIGTERM);
    cr_assert(process_wait(n->process, ms), "SIGTERM did not end the proxy; log:\n%s", log_tail(n));
    cr_assert(process_status(n->process) == 0, "the proxy ended with status %d; log:\n%s",
              process_status(n->process), log_tail(n));
}

static bool try_ping(void *ctx)
{
    struct nearside *n = ctx;

    if (process_ended(n->process)) {
        return true;
    }
    struct client *c = client_try(n->port);
    if (c == NULL) {
        return false;
    }
    const char *answer = ask(c, "PING");
    bool ok = strcmp(answer, "+PONG") == 0 || matches(answer, "-NOAUTH...");
    client_close(c);
    return ok;
}

struct nearside *nearside_start_with(const struct nearside_options *options)
{
    struct nearside *n = cleanup_alloc(sizeof(*n));
    const char *argv[2 * SETS_MAX + 2] = {nearside_binary()};
    size_t argc = 1;

    n->port = free_port();
    const char *const ours[] = {
        cleanup_printf("proxy.listen=127.0.0.1:%d", n->port),
        options->upstream != NULL
            ? cleanup_printf("upstream.servers=%s", options->upstream)
            : cleanup_printf("upstream.servers=127.0.0.1:%d", options->upstream_port),
        "proxy.workers=2", "proxy.drain_timeout=500ms", NULL};
    const char *const *lists[] = {ours, options->sets};
    for (size_t l = 0; l < 2; l++) {
        for (size_t i = 0; lists[l] != NULL && lists[l][i] != NULL; i++) {
            cr_assert(argc + 2 < sizeof(argv) / sizeof(argv[0]));
            argv[argc++] = "--set";
            argv[argc++] = lists[l][i];
        }
    }
    n->process = process_start(
        &(struct process_options){.argv = argv, .files = options->files, .err = options->err});
    bool up = await(try_ping, n, START_MS) && !process_ended(n->process);
    cr_assert(up, "%s did not start: %s", argv[0], log_tail(n));
    cleanup_add(end_nearside, n);
    return n;
}

struct nearside *nearside_start(int upstream_port, ...)
{
    const char *sets[SETS_MAX] = {NULL};
    struct nearside_options options = {.upstream_port = upstream_port, .sets = sets};
    va_list ap;

    va_start(ap, upstream_port);
    for (size_t i = 0; (sets[i] = va_arg(ap, const char *)) != NULL; i++) {
        cr_assert(i < SETS_MAX - 1);
    }
    va_end(ap);
    return nearside_start_with(&options);
}

struct client *nearside_connect(struct nearside *n)
{
    struct client *c = client_connect(n->port);

    if (n->password != NULL) {
        expect(c, "+OK", "AUTH %s", n->password);
    }
    return c;
}

void nearside_check_alive(struct nearside *n)
{
    cr_assert(!process_ended(n->process), "the proxy ended, status %d; log:\n%s",
              process_status(n->process), log_tail(n));
    struct client *c = nearside_connect(n);
    expect(c, "+PONG", "PING");
    client_close(c);
}

const char *nearside_info_text(struct nearside *n)
{
    struct client *c = nearside_connect(n);

    client_command(c, "INFO nearside");
    const struct reply *reply = client_reply(c);
    cr_assert(reply->type == '$' && !reply->null, "INFO nearside gave no text; log:\n%s",
              log_tail(n));
    const char *text = cleanup_printf("%s", reply->text);
    client_close(c);
    return text;
}

long long nearside_info(struct nearside *n, const char *field)
{
    const char *text = nearside_info_text(n);
    long long value = field_number(text, field, INT64_MIN);

    cr_assert(value != INT64_MIN, "INFO nearside has no %s:\n%s", field, text);
    return value;
}

void nearside_await_info(struct nearside *n, const char *field, long long low, long long high,
                         int64_t ms)
{
    int64_t deadline = now_ms() + ms;

    for (;;) {
        long long value = nearside_info(n, field);
        if (value >= low && value <= high) {
            return;
        }
        cr_assert(now_ms() < deadline, "%s is %lld, not in %lld..%lld, after %lld ms", field, value,
                  low, high, (long long)ms);
        pass_time(5);
    }
}

void nearside_await_fills(struct nearside *n)
{
    long long workers = nearside_info(n, "workers");

    nearside_await_info(n, "fill_connections_up", workers, workers, 5000);
}

int nearside_log_lines(struct nearside *n, const char *word)
{
    char *log = cleanup_printf("%s", nearside_log(n));
    char *save = NULL;
    int found = 0;

    for (char *line = strtok_r(log, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        found += strcasestr(line, word) != NULL ? 1 : 0;
    }
    return found;
}

struct awaited_line {
    struct nearside *n;
    const char *word;
};

static bool was_logged(void *ctx)
{
    struct awaited_line *line = ctx;

    return nearside_log_lines(line->n, line->word) > 0;
}

void nearside_await_log(struct nearside *n, const char *word)
{
    struct awaited_line line = {n, word};

    cr_assert(await(was_logged, &line, 10000 * slowdown()), "not in the log: %s\n%s", word,
              log_tail(n));
}
