/* SPDX-License-Identifier: Apache-2.0
 *
 * server.c: builds what the workers share, starts them, waits for a signal, takes it all down in
 * reverse order. The main thread accepts and watches for signals; it serves no client.
 */
#include "server.h"

#include "listen.h"
#include "worker.h"
#include "../resp/learnt.h"

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
    struct ev_signal sigterm, sigint;
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

/* C3: another server process answers at the address. Whatever was fetched from the old one is void,
 * and no cover comes up again before its own connection leads to the new one. */
static void on_other_server(void *ctx)
{
    struct server *server = ctx;
    if (server->feeds != NULL) {
        feeds_down(server->feeds);
    }
    learnt_forget(); /* it may have other modules */
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

/* The fixed mode; NONE for auto and off. */
static enum feed_mode mode_of(const struct conf *conf)
{
    switch ((enum conf_invalidation)conf->invalidation_mode) {
    case CONF_INVALIDATION_TRACKING:
        return FEED_TRACKING;
    case CONF_INVALIDATION_REDIRECT:
        return FEED_REDIRECT;
    case CONF_INVALIDATION_BROADCAST:
        return FEED_BROADCAST;
    case CONF_INVALIDATION_KEYSPACE:
        return FEED_KEYSPACE;
    case CONF_INVALIDATION_CHANNEL:
        return FEED_CHANNEL;
    case CONF_INVALIDATION_AUTO:
    case CONF_INVALIDATION_OFF:
        break;
    }
    return FEED_NONE;
}

static void create_feeds(struct server *server, const struct conf *conf)
{
    if (!server->caching) {
        return;
    }
    server->feeds = feeds_create(&(struct feeds_options){
        .node = server->node,
        .l1 = server->l1,
        .workers = server->nworkers,
        .automatic = conf->invalidation_mode == CONF_INVALIDATION_AUTO,
        .mode = mode_of(conf),
        .db = conf->upstream_db,
        .link_lease_ms = conf->invalidation_link_lease,
        .weak_ttl_ms = conf->invalidation_weak_ttl,
        .channel_ttl_ms = conf->invalidation_channel_ttl,
        .channel = conf->invalidation_channel,
        .prefixes = conf->invalidation_prefixes,
        .set_notify = conf->invalidation_set_notify,
        .now = clock_ms,
    });
    server->announces = feeds_announces(server->feeds);
}

static bool create_shared(struct server *server, const struct conf *conf)
{
    char err[ERR_MAX];
    char host[CONF_HOST_MAX];
    char port[CONF_PORT_MAX];
    server->conf = conf;
    server->get = cmd_find(&(struct request_view){.argc = 1, .nargv = 1, .argv = {SLICE("get")}});
    if (!load_password(server, err)) {
        log_event(LOG_ERROR, "%s", err);
        return false;
    }
    server->caching = conf->invalidation_mode != CONF_INVALIDATION_OFF;
    server->nworkers = conf->proxy_workers == 0 ? auto_workers() : conf->proxy_workers;
    server->started_ms = clock_ms();
    atomic_store_explicit(&server->next_client_id, 1, memory_order_relaxed);
    server->l1 = l1_create(&(struct l1_options){.max_memory = conf->l1_max_memory,
                                                .max_item_size = conf->l1_max_item_size,
                                                .covers = feeds_covers(server->nworkers)},
                           err);
    if (server->l1 == NULL) {
        log_event(LOG_ERROR, "cannot create the local cache: %s", err);
        return false;
    }
    bug_on(!conf_address(conf->upstream_servers.items[0], host, port));
    server->resolver = resolver_create(resolver_system);
    server->node = node_create(&(struct node_options){
        .host = host,
        .port = port,
        .resolver = server->resolver,
        .user = conf->upstream_user[0] == '\0' ? NULL : conf->upstream_user,
        .password = conf->upstream_password[0] == '\0' ? NULL : conf->upstream_password,
        .password_file =
            conf->upstream_password_file[0] == '\0' ? NULL : conf->upstream_password_file,
        .connect_timeout_ms = conf->upstream_connect_timeout,
        .dead_after_ms = conf->upstream_dead_after,
        .changed = on_other_server,
        .ctx = server,
    });
    create_feeds(server, conf);
    return true;
}

static void create_workers(struct server *server)
{
    server->workers = mem_zalloc(server->nworkers * sizeof(*server->workers));
    for (unsigned i = 0; i < server->nworkers; i++) {
        server->workers[i] = worker_create(server, i);
    }
}

static void say_started(const struct server *server)
{
    char listeners[1024];
    size_t at = 0;
    const struct conf *conf = server->conf;
    for (size_t i = 0; i < conf->proxy_listen.n && at < sizeof(listeners); i++) {
        at += (size_t)snprintf(listeners + at, sizeof(listeners) - at, "%s%s", i > 0 ? " " : "",
                               conf->proxy_listen.items[i]);
    }
    /* fill connection and lane of each worker; a bulk lane is opened when it is first needed; the
     * first worker's for invalidations, a look at the server's figures, and a trial of a mode */
    unsigned connections = server->nworkers * (server->caching ? 3 : 2) + (server->caching ? 3 : 0);
    struct feeds_status status = {0};
    if (server->caching) {
        feeds_status(server->feeds, &status);
    }
    const char *mode = !server->caching   ? "off"
                       : status.automatic ? "auto"
                                          : feed_mode_name(mode_of(conf));
    log_event(LOG_INFO,
              "nearside %s listens on %s; upstream %s; invalidation %s; %u workers; up to %u "
              "connections to the upstream; L1 %zu MiB; up to %u clients",
              NEARSIDE_VERSION, listeners, node_name(server->node), mode, server->nworkers,
              connections, conf->l1_max_memory >> 20, server->max_clients);
}

static void on_signal(struct ev_loop *loop, struct ev_signal *signal, int events)
{
    (void)signal;
    (void)events;
    ev_break(loop, EVBREAK_ALL);
}

static void serve(struct running *running)
{
    struct server *server = &running->server;
    ev_signal_init(&running->sigterm, on_signal, SIGTERM);
    ev_signal_init(&running->sigint, on_signal, SIGINT);
    ev_signal_start(running->loop, &running->sigterm);
    ev_signal_start(running->loop, &running->sigint);
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
    feeds_destroy(server->feeds);
    node_destroy(server->node);
    resolver_destroy(server->resolver);
    l1_destroy(server->l1);
    ev_loop_destroy(running->loop);
    mem_free(running);
}

int server_run(const struct conf *conf)
{
    struct running *running = mem_zalloc(sizeof(*running));
    int status = 1;
    signal(SIGPIPE, SIG_IGN);
    running->loop = ev_default_loop(EVFLAG_AUTO);
    if (running->loop != NULL && create_shared(&running->server, conf)) {
        fit_descriptors(&running->server);
        running->listeners = listeners_open(&running->server, running->loop);
        if (running->listeners != NULL) {
            create_workers(&running->server);
            serve(running);
            status = 0;
        }
    }
    destroy(running);
    return status;
}
