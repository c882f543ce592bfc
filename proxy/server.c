/* SPDX-License-Identifier: Apache-2.0
 *
 * server.c: builds what the workers share, starts them, waits for a signal, takes it all down in
 * reverse order. The main thread accepts and watches for signals; it serves no client.
 */
#include "server.h"

#include "follow.h"
#include "listen.h"
#include "nodes.h"

#include "../conf/log.h"
#include "../conf/mem.h"
#include "../conf/secret.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define AUTO_WORKERS 4
/* Connections and such that are not clients: per worker, and for the process. */
#define DESCRIPTORS_PER_WORKER 16
#define DESCRIPTORS_OWN        64

struct running {
    struct server server;
    struct ev_loop *loop;
    struct listeners *listeners;
    struct ev_signal sigterm, sigint, sighup;
};

/* The first line of a small file of the kernel's; false when there is none. */
static bool read_line(const char *path, char *line, int max)
{
    FILE *f = fopen(path, "re");
    bool ok = f != NULL && fgets(line, max, f) != NULL;
    if (f != NULL) {
        fclose(f);
    }
    return ok;
}

/* CPUs that the cgroup's quota amounts to, rounded up; 0: no quota (cgroup v2: "QUOTA PERIOD" or
 * "max PERIOD"; v1: one number in each of two files, -1 for none). */
static unsigned quota_cpus(void)
{
    char line[64];
    char *rest = line;
    long quota = 0, period = 0;
    if (read_line("/sys/fs/cgroup/cpu.max", line, sizeof(line))) {
        quota = strtol(line, &rest, 10);
        period = strtol(rest, NULL, 10);
    } else if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", line, sizeof(line))) {
        quota = strtol(line, NULL, 10);
        if (read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", line, sizeof(line))) {
            period = strtol(line, NULL, 10);
        }
    }
    return quota > 0 && period > 0 ? (unsigned)((quota + period - 1) / period) : 0;
}

/* D1: workers = auto. */
static unsigned auto_workers(void)
{
    cpu_set_t set;
    unsigned cpus = 1;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        cpus = (unsigned)CPU_COUNT(&set);
    }
    unsigned quota = quota_cpus();
    if (quota > 0 && quota < cpus) {
        cpus = quota;
    }
    return cpus < 1 ? 1 : cpus > AUTO_WORKERS ? AUTO_WORKERS : cpus;
}

/* Raises the limit on descriptors to what proxy.max_clients needs, or lowers max_clients. */
static void fit_descriptors(struct server *server)
{
    struct rlimit limit;
    rlim_t own = DESCRIPTORS_OWN + server->nworkers * (rlim_t)DESCRIPTORS_PER_WORKER;
    rlim_t needed = own + server->conf->proxy_max_clients + server->conf->upstream_max_pinned;
    server->max_clients = server->conf->proxy_max_clients;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) {
        return;
    }
    struct rlimit wanted = {needed, limit.rlim_max < needed ? needed : limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0) {
        return;
    }
    wanted = (struct rlimit){limit.rlim_max, limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0) {
        limit.rlim_cur = limit.rlim_max;
    }
    if (limit.rlim_cur < needed) {
        server->max_clients = limit.rlim_cur > own + 1 ? (uint32_t)(limit.rlim_cur - own) : 1;
        log_event(LOG_WARN,
                  "proxy.max_clients is %u instead of %u: this process may have %llu file "
                  "descriptors (ulimit -n)",
                  server->max_clients, server->conf->proxy_max_clients,
                  (unsigned long long)limit.rlim_cur);
    }
}

static bool load_password(struct server *server, char err[ERR_MAX])
{
    const struct conf *conf = server->conf;
    if (conf->proxy_password_file[0] != '\0' &&
        !secret_from_file(conf->proxy_password_file, server->password, sizeof(server->password),
                          err)) {
        return false;
    }
    if (strlen(conf->proxy_password) >= sizeof(server->password)) {
        snprintf(err, ERR_MAX, "proxy.password is longer than %zu bytes",
                 sizeof(server->password) - 1);
        return false;
    }
    if (conf->proxy_password[0] != '\0') {
        snprintf(server->password, sizeof(server->password), "%s", conf->proxy_password);
    }
    server->asks_password = server->password[0] != '\0';
    return true;
}

static bool create_shared(struct server *server, const struct conf *conf)
{
    char err[ERR_MAX];
    server->conf = conf;
    server->get = cmd_find(&(struct request_view){.argc = 1, .nargv = 1, .argv = {SLICE("get")}});
    if (!load_password(server, err)) {
        log_event(LOG_ERROR, "%s", err);
        return false;
    }
    server->nworkers = conf->proxy_workers == 0 ? auto_workers() : conf->proxy_workers;
    server->started_ms = clock_ms();
    atomic_store_explicit(&server->next_client_id, 1, memory_order_relaxed);
    if (!nodes_create(server, err)) {
        log_event(LOG_ERROR, "cannot create the local cache: %s", err);
        return false;
    }
    return true;
}

static void create_workers(struct server *server)
{
    server->workers = mem_zalloc(server->nworkers * sizeof(*server->workers));
    for (unsigned i = 0; i < server->nworkers; i++) {
        server->workers[i] = worker_create(server, i);
    }
}

static void join(const struct conf_list *list, char *out, size_t max)
{
    size_t at = 0;
    for (size_t i = 0; i < list->n && at < max; i++) {
        at += (size_t)snprintf(out + at, max - at, "%s%s", i > 0 ? " " : "", list->items[i]);
    }
}

static void say_started(const struct server *server)
{
    char listeners[1024];
    char upstream[1024];
    const struct conf *conf = server->conf;
    join(&conf->proxy_listen, listeners, sizeof(listeners));
    join(&conf->upstream_servers, upstream, sizeof(upstream));
    const char *mode = !server->caching ? "off"
                       : conf->invalidation_mode == CONF_INVALIDATION_AUTO
                           ? "auto"
                           : feed_mode_name(nodes_mode(conf));
    /* fill connection and lane of each worker; a bulk lane is opened when it is first needed; the
     * first worker's for invalidations, a look at the server's figures, and a trial of a mode */
    unsigned connections = server->nworkers * (server->caching ? 3 : 2) + (server->caching ? 3 : 0);
    log_event(LOG_INFO,
              "nearside %s listens on %s; upstream %s; invalidation %s; %u workers; up to %u "
              "connections to %s; L1 %zu MiB; up to %u clients",
              NEARSIDE_VERSION, listeners, upstream, mode, server->nworkers, connections,
              server->is_cluster ? "each primary" : "the upstream", conf->l1_max_memory >> 20,
              server->max_clients);
}

static void on_signal(struct ev_loop *loop, struct ev_signal *signal, int events)
{
    (void)signal;
    (void)events;
    ev_break(loop, EVBREAK_ALL);
}

/* Redis ignores it, too. By default it would end the process without a drain, and leave the file of a
 * Unix socket behind. */
static void on_hangup(struct ev_loop *loop, struct ev_signal *signal, int events)
{
    (void)loop;
    (void)signal;
    (void)events;
    log_event(LOG_INFO, "SIGHUP ignored: nothing is reloaded, settings change by a restart");
}

static void serve(struct running *running)
{
    struct server *server = &running->server;
    ev_signal_init(&running->sigterm, on_signal, SIGTERM);
    ev_signal_init(&running->sigint, on_signal, SIGINT);
    ev_signal_init(&running->sighup, on_hangup, SIGHUP);
    ev_signal_start(running->loop, &running->sigterm);
    ev_signal_start(running->loop, &running->sigint);
    ev_signal_start(running->loop, &running->sighup);
    for (unsigned i = 0; i < server->nworkers; i++) {
        worker_start(server->workers[i]);
    }
    listeners_start(running->listeners);
    say_started(server);
    ev_run(running->loop, 0);
    log_event(LOG_INFO, "stopping: no new clients, finishing what is under way");
    listeners_close(running->listeners);
    for (unsigned i = 0; i < server->nworkers; i++) {
        worker_drain(server->workers[i], server->conf->proxy_drain_timeout);
    }
    for (unsigned i = 0; i < server->nworkers; i++) {
        worker_join(server->workers[i]);
    }
    log_event(LOG_INFO, "stopped");
}

static void destroy(struct running *running)
{
    struct server *server = &running->server;
    for (bool any = server->workers != NULL; any;) {
        any = false;
        for (unsigned i = 0; i < server->nworkers; i++) {
            any = worker_run_posts(server->workers[i]) || any;
        }
    }
    for (unsigned i = 0; server->workers != NULL && i < server->nworkers; i++) {
        worker_destroy(server->workers[i]);
    }
    mem_free(server->workers);
    follow_destroy(server->follow);
    if (server->topology != NULL) {
        nodes_destroy(server);
    }
    ev_loop_destroy(running->loop);
    mem_free(running);
}

int server_run(const struct conf *conf)
{
    struct running *running = mem_zalloc(sizeof(*running));
    int status = 1;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN); /* until there is a loop to say so */
    running->loop = ev_default_loop(EVFLAG_AUTO);
    if (running->loop != NULL && create_shared(&running->server, conf)) {
        fit_descriptors(&running->server);
        running->listeners = listeners_open(&running->server, running->loop);
        if (running->listeners != NULL) {
            running->server.follow = follow_create(&running->server, running->loop);
            create_workers(&running->server);
            serve(running);
            status = 0;
        }
    }
    destroy(running);
    return status;
}
