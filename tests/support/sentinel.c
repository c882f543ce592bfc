/* SPDX-License-Identifier: Apache-2.0
 *
 * sentinel.c: everything is started at once and awaited as the servers tell it. A sentinel rewrites its
 * configuration, so each has a directory of its own.
 */
#include "sentinel.h"

#include "await.h"
#include "cleanup.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define AWAIT_MS 30000

static const char *password;

static void start_sentinel(struct sentinels *s, int i)
{
    const char *dir = temp_dir();
    char text[1024];

    s->port[i] = s->port[i] == 0 ? free_port() : s->port[i];
    (void)snprintf(text, sizeof(text),
                   "port %d\nbind 127.0.0.1\ndir %s\n"
                   "sentinel monitor mymaster 127.0.0.1 %d 2\n"
                   "sentinel down-after-milliseconds mymaster 1000\n"
                   "sentinel failover-timeout mymaster 2000\n%s%s%s%s\n",
                   s->port[i], dir, s->server[0]->port, password != NULL ? "requirepass " : "",
                   password != NULL ? password : "",
                   password != NULL ? "\nsentinel sentinel-pass " : "",
                   password != NULL ? password : "");
    const char *file = temp_file(dir, "sentinel.conf", text);
    const char *const argv[] = {"redis-server", file, "--sentinel", NULL};
    s->process[i] = process_start(&(struct process_options){.argv = argv});
}

/* What a sentinel answers; "" while it does not. */
static const char *ask_sentinel(struct sentinels *s, int i, const char *command)
{
    struct client *c = client_try(s->port[i]);
    if (c == NULL) {
        return "";
    }
    if (password != NULL) {
        (void)ask(c, "AUTH %s", password);
    }
    const char *text = ask(c, "%s", command);
    client_close(c);
    return text;
}

static bool agree(void *ctx)
{
    struct sentinels *s = ctx;

    for (int i = 0; i < SENTINELS; i++) {
        const char *text = ask_sentinel(s, i, "SENTINEL MASTER mymaster");
        if (strstr(text, "$num-slaves $1 ") == NULL ||
            strstr(text, "$num-other-sentinels $2 ") == NULL) {
            return false;
        }
    }
    return strstr(ask(s->server[1]->direct, "INFO replication"), "master_link_status:up") != NULL;
}

struct sentinels *sentinels_start(const char *with_password)
{
    static const char *const options[] = {"--repl-diskless-sync-delay", "0",
                                          "--repl-ping-replica-period", "1", NULL};
    struct sentinels *s = cleanup_alloc(sizeof(*s));

    password = with_password;
    s->server[0] = redis_start(options);
    s->server[1] = redis_start(options);
    expect(s->server[1]->direct, "+OK", "REPLICAOF 127.0.0.1 %d", s->server[0]->port);
    for (int i = 0; i < SENTINELS; i++) {
        start_sentinel(s, i);
    }
    cr_assert(await(agree, s, AWAIT_MS * slowdown()), "the sentinels do not agree: %s",
              ask_sentinel(s, 0, "SENTINEL MASTER mymaster"));
    return s;
}

struct nearside *sentinels_nearside(struct sentinels *s, const char *const *sets)
{
    const char **all = cleanup_alloc(32 * sizeof(*all));
    size_t n = 0;

    all[n++] = "upstream.mode=sentinel";
    all[n++] = "sentinel.master=mymaster";
    for (int i = 1; i < SENTINELS; i++) {
        all[n++] = cleanup_printf("upstream.servers=127.0.0.1:%d", s->port[i]);
    }
    for (size_t i = 0; sets != NULL && sets[i] != NULL; i++) {
        all[n++] = sets[i];
    }
    all[n] = NULL;
    return nearside_start_with(&(struct nearside_options){
        .upstream = cleanup_printf("127.0.0.1:%d", s->port[0]), .sets = all});
}

struct wanted {
    struct sentinels *s;
    int sentinel;
    const char *port;
};

static bool names(void *ctx)
{
    struct wanted *w = ctx;

    return strstr(ask_sentinel(w->s, w->sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME mymaster"),
                  w->port) != NULL;
}

void sentinels_await_master(struct sentinels *s, int sentinel, int n, int64_t ms)
{
    struct wanted wanted = {s, sentinel, cleanup_printf("$%d", s->server[n]->port)};

    cr_assert(await(names, &wanted, ms * slowdown()), "sentinel %d names no other master",
              sentinel);
}

void sentinels_await_switch(struct sentinels *s, struct nearside *proxy, int n)
{
    sentinels_await_master(s, 0, n, 20000);
    s->server[n]->direct = client_connect(s->server[n]->port); /* it closed those that it had */
    for (int i = 0; i < 8; i++) {
        struct client *c = nearside_connect(proxy);
        const char *want = cleanup_printf("$%lld", (long long)now_ms());
        int64_t end = now_ms() + 10000;
        do {
            cr_assert(now_ms() < end, "client %d writes elsewhere", i);
            (void)ask(c, "SET probe%d %s", i, want + 1);
        } while (strcmp(ask(s->server[n]->direct, "GET probe%d", i), want) != 0);
        client_close(c);
    }
}

void sentinels_leave_behind(struct sentinels *s, int i)
{
    for (int k = 0; k < SENTINELS; k++) {
        process_kill(s->process[k]);
    }
    start_sentinel(s, i);
}

void sentinels_have_patience(struct sentinels *s, int ms)
{
    for (int i = 0; i < SENTINELS; i++) {
        const char *command =
            cleanup_printf("SENTINEL SET mymaster down-after-milliseconds %d", ms);
        cr_assert_str_eq(ask_sentinel(s, i, command), "+OK");
    }
}

static bool consents(void *ctx)
{
    return strcmp(ask_sentinel(ctx, 0, "SENTINEL FAILOVER mymaster"), "+OK") == 0;
}

void sentinels_failover(struct sentinels *s)
{
    cr_assert(await(consents, s, AWAIT_MS), "no failover on demand");
}
