/* SPDX-License-Identifier: Apache-2.0
 *
 * redis.c: starts redis-server and asks it things. A start is believed only when the process that
 * answers on the port says it is ours (process_id in INFO): another server on the port would make a
 * test pass or fail for somebody else's reasons.
 */
#include "redis.h"

#include "await.h"
#include "cleanup.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ARGS_MAX 48
#define START_MS 20000

static bool is_installed(void)
{
    const char *const argv[] = {"redis-server", "--version", NULL};

    return process_status(process_run(argv, START_MS)) == 0;
}

long long field_number(const char *text, const char *field, long long fallback)
{
    size_t n = strlen(field);

    for (const char *p = text; (p = strstr(p, field)) != NULL; p += n) {
        bool starts = p == text || strchr("\n,:", p[-1]) != NULL;
        if (starts && (p[n] == ':' || p[n] == '=')) {
            return strtoll(p + n + 1, NULL, 10);
        }
    }
    return fallback;
}

/* A sentinel that gives a server another role closes the connections of all its clients. */
static const char *info_text(struct redis *r, const char *section)
{
    bool sent = client_command(r->direct, "INFO %s", section);
    const struct reply *reply = client_reply(r->direct);
    if (!sent || reply->type == REPLY_CLOSED) {
        client_close(r->direct);
        r->direct = client_connect(r->port);
        client_command(r->direct, "INFO %s", section);
        reply = client_reply(r->direct);
    }
    cr_assert(reply->type == '$' && !reply->null, "redis-server does not answer INFO");
    return reply->text;
}

static bool try_answer(struct redis *r)
{
    r->direct = client_try(r->port);
    if (r->direct == NULL) {
        return false;
    }
    if (strcmp(ask(r->direct, "PING"), "+PONG") != 0) {
        client_close(r->direct);
        return false;
    }
    return true;
}

static bool answers(void *ctx)
{
    struct redis *r = ctx;

    return process_ended(r->process) || try_answer(r);
}

static void start(struct redis *r)
{
    const char *argv[ARGS_MAX] = {"redis-server",
                                  "--bind",
                                  "127.0.0.1",
                                  "--port",
                                  cleanup_printf("%d", r->port),
                                  "--dir",
                                  r->dir,
                                  "--save",
                                  "",
                                  "--appendonly",
                                  "no",
                                  "--enable-debug-command",
                                  "yes",
                                  "--client-query-buffer-limit",
                                  "1gb"};
    size_t n = 15;

    for (size_t i = 0; r->extra != NULL && r->extra[i] != NULL; i++) {
        cr_assert(n < ARGS_MAX - 1);
        argv[n++] = r->extra[i];
    }
    r->process = process_start(&(struct process_options){.argv = argv});
    bool up = await(answers, r, START_MS) && !process_ended(r->process);
    cr_assert(up, "redis-server did not start: %s%s", process_stdout(r->process),
              process_stderr(r->process));
    long long pid = redis_info(r, "process_id");
    cr_assert(pid == (long long)process_pid(r->process), "port %d belongs to process %lld", r->port,
              pid);
}

struct redis *redis_start_on(int port, const char *const *extra)
{
    struct redis *r = cleanup_alloc(sizeof(*r));

    if (!is_installed()) {
        cr_skip_test("redis-server is not installed");
    }
    r->port = port;
    r->dir = temp_dir();
    r->extra = extra;
    start(r);
    return r;
}

struct redis *redis_start(const char *const *extra)
{
    return redis_start_on(free_port(), extra);
}

void redis_stop(struct redis *r)
{
    process_kill(r->process);
    client_close(r->direct);
}

void redis_restart(struct redis *r)
{
    redis_stop(r);
    start(r);
}

void redis_freeze(struct redis *r)
{
    process_freeze(r->process);
}

void redis_thaw(struct redis *r)
{
    process_thaw(r->process);
}

/* What stands behind `field` in a section of INFO; 0 where there is no such field yet. */
static long long counted(struct redis *r, const char *section, const char *field)
{
    const char *found = strstr(info_text(r, section), field);
    return found != NULL ? strtoll(found + strlen(field), NULL, 10) : 0;
}

long long redis_calls(struct redis *r, const char *command)
{
    return counted(r, "commandstats", cleanup_printf("cmdstat_%s:calls=", command));
}

struct awaited_calls {
    struct redis *r;
    const char *command;
    long long n;
};

static bool has_called(void *ctx)
{
    const struct awaited_calls *calls = ctx;
    return redis_calls(calls->r, calls->command) >= calls->n;
}

void redis_await_calls(struct redis *r, const char *command, long long n, int64_t ms)
{
    struct awaited_calls calls = {r, command, n};
    cr_assert(await(has_called, &calls, ms), "%s was not called %lld times", command, n);
}

long long redis_errors(struct redis *r, const char *code)
{
    return counted(r, "errorstats", cleanup_printf("errorstat_%s:count=", code));
}

long long redis_info(struct redis *r, const char *field)
{
    return field_number(info_text(r, "all"), field, -1);
}

const char *redis_greeting(struct redis *r)
{
    char *hello = cleanup_printf("%s", ask(r->direct, "HELLO") + 1);
    char *end = strstr(hello, " $proto ");
    cr_assert_not_null(end, "redis-server greets with '%s'", hello);
    *end = '\0';
    return hello;
}

const char *redis_clients(struct redis *r)
{
    client_command(r->direct, "CLIENT LIST");
    const struct reply *reply = client_reply(r->direct);
    cr_assert(reply->type == '$');
    return cleanup_printf("%s", reply->text);
}

static int kill_tracking(struct redis *r, bool subscribers)
{
    int killed = 0;
    char *list = cleanup_printf("%s", redis_clients(r));
    char *save = NULL;
    for (char *line = strtok_r(list, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        long long id = 0;
        const char *flags = strstr(line, " flags=");
        if (flags == NULL || sscanf(line, "id=%lld", &id) != 1) {
            continue;
        }
        flags += strlen(" flags=");
        size_t n = strcspn(flags, " ");
        if (memchr(flags, 't', n) != NULL && (subscribers || memchr(flags, 'P', n) == NULL)) {
            expect(r->direct, ":1", "CLIENT KILL ID %lld", id);
            killed++;
        }
    }
    return killed;
}

int redis_kill_tracking(struct redis *r)
{
    return kill_tracking(r, true);
}

int redis_kill_tracking_fills(struct redis *r)
{
    return kill_tracking(r, false);
}
