/* SPDX-License-Identifier: Apache-2.0
 *
 * listen.c: accepts on the main thread and hands each socket to the worker with the fewest clients
 * (D5): a sidecar has few, long-lived connections, and hashing them would leave workers idle.
 *
 * Out of descriptors, accept would report the same waiting connection over and over. One descriptor is
 * kept in reserve: it is given up to accept that connection, tell it why and close it. If even that
 * fails, accepting pauses for a moment.
 *
 * A Unix socket's file outlives a process that is killed. It is removed at the start if nobody listens
 * there any more, and at the end if it is still ours.
 */
#include "listen.h"

#include "worker.h"

#include "../conf/log.h"
#include "../conf/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG          4096
#define ACCEPTS_PER_TURN 64
#define PAUSE_SECONDS    0.1

struct listener {
    struct ev_io io;
    struct listeners *all;
    const char *path; /* of a Unix socket; NULL: TCP */
    dev_t dev;        /* and its file */
    ino_t ino;
};

struct listeners {
    struct server *server;
    struct ev_loop *loop;
    struct listener *sockets;
    size_t n;
    int reserve; /* descriptor kept for saying no */
    struct ev_timer resume;
    struct log_limit no_descriptors;
    struct log_limit too_many;
    struct log_limit not_local;
};

static void set_keepalive(const struct conf *conf, int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (conf->proxy_tcp_keepalive == 0) {
        return;
    }
    /* as Redis: first probe after the interval, then three at a third of it */
    int idle = (int)(conf->proxy_tcp_keepalive / 1000);
    int interval = idle / 3 > 0 ? idle / 3 : 1;
    int count = 3;
    idle = idle > 0 ? idle : 1;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static struct worker *least_loaded(const struct server *server)
{
    struct worker *best = server->workers[0];
    uint32_t fewest = UINT32_MAX;
    for (unsigned i = 0; i < server->nworkers; i++) {
        uint32_t n = atomic_load_explicit(&server->workers[i]->nclients, memory_order_relaxed);
        if (n < fewest) {
            fewest = n;
            best = server->workers[i];
        }
    }
    return best;
}

/* Protected mode: is it somebody on this machine? */
static bool is_local(int fd)
{
    struct sockaddr_storage addr;
    socklen_t n = sizeof(addr);
    memset(&addr, 0, sizeof(addr));
    if (getpeername(fd, (struct sockaddr *)&addr, &n) != 0) {
        return false;
    }
    if (addr.ss_family == AF_INET6) {
        const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)&addr)->sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(in6);
    }
    const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)&addr;
    return addr.ss_family != AF_INET || ntohl(in->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

static const char full[] = "-ERR max number of clients reached\r\n";
static const char protected[] =
    "-DENIED Nearside is running in protected mode because no password is set (proxy.password). In "
    "this mode connections are only accepted from the loopback interface. To accept others, set "
    "proxy.password or proxy.password_file and restart, or, if everybody who can connect may read "
    "and write everything in Redis, set proxy.protected_mode = no.\r\n";

static void refuse(int fd, const char *text)
{
    ssize_t ignored = send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)ignored; /* it is told if it listens */
    close(fd);
}

static void say_limited(struct log_limit *limit, const char *what)
{
    uint64_t suppressed = 0;
    if (log_allow(limit, clock_ms(), 10000, &suppressed)) {
        log_event(LOG_WARN, "%s (%llu more since the last line)", what,
                  (unsigned long long)suppressed);
    }
}

static void take(struct listeners *ls, int fd, bool is_tcp)
{
    struct server *server = ls->server;
    if (atomic_load_explicit(&server->clients, memory_order_relaxed) >= server->max_clients) {
        atomic_fetch_add_explicit(&server->clients_refused, 1, memory_order_relaxed);
        say_limited(&ls->too_many, "a client was refused: proxy.max_clients are connected");
        refuse(fd, full);
        return;
    }
    if (server->conf->proxy_protected_mode && !server->asks_password && !is_local(fd)) {
        atomic_fetch_add_explicit(&server->clients_refused, 1, memory_order_relaxed);
        say_limited(&ls->not_local, "a client was refused: protected mode, it is not on this "
                                    "machine and there is no proxy.password");
        refuse(fd, protected);
        return;
    }
    if (is_tcp) {
        set_keepalive(server->conf, fd);
    }
    struct worker *worker = least_loaded(server);
    atomic_fetch_add_explicit(&server->clients, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&worker->nclients, 1, memory_order_relaxed);
    worker_take_socket(worker, fd);
}

static void on_resume(struct ev_loop *loop, struct ev_timer *timer, int events)
{
    (void)loop;
    (void)events;
    listeners_start(container_of(timer, struct listeners, resume));
}

static void pause_accepting(struct listeners *ls)
{
    for (size_t i = 0; i < ls->n; i++) {
        ev_io_stop(ls->loop, &ls->sockets[i].io);
    }
    ev_timer_set(&ls->resume, PAUSE_SECONDS, 0.0);
    ev_timer_start(ls->loop, &ls->resume);
}

/* No descriptor left: frees the reserve for the one that waits, and turns it away. */
static void turn_away(struct listeners *ls, int listening)
{
    say_limited(&ls->no_descriptors,
                "a client was refused: no file descriptors left (raise the limit: ulimit -n)");
    atomic_fetch_add_explicit(&ls->server->clients_refused, 1, memory_order_relaxed);
    if (ls->reserve >= 0) {
        close(ls->reserve);
        int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            refuse(fd, full);
        }
    }
    ls->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (ls->reserve < 0) {
        pause_accepting(ls);
    }
}

static void on_acceptable(struct ev_loop *loop, struct ev_io *io, int events)
{
    (void)loop;
    (void)events;
    struct listener *listener = container_of(io, struct listener, io);
    struct listeners *ls = listener->all;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(io->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            take(ls, fd, listener->path == NULL);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE) {
            turn_away(ls, io->fd);
            return;
        }
        if (errno == EAGAIN) {
            return;
        }
        if (errno != EINTR && errno != ECONNABORTED) {
            pause_accepting(ls); /* out of kernel memory, say: it will not be better at once */
            return;
        }
    }
}

static int open_socket(const struct addrinfo *ai)
{
    int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
    int on = 1;
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ai->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    return fd;
}

static struct listener *add_listener(struct listeners *ls, int fd)
{
    struct listener *grown = mem_try_resize(ls->sockets, (ls->n + 1) * sizeof(*grown));
    bug_on(grown == NULL);
    ls->sockets = grown;
    struct listener *added = &ls->sockets[ls->n++];
    *added = (struct listener){.all = ls};
    ev_io_init(&added->io, on_acceptable, fd, EV_READ);
    return added;
}

/* ---- Unix sockets --------------------------------------------------------------------------- */

/* Makes room for a socket file: removes one that nobody listens on any more. False: the log says what
 * is in the way. */
static bool clear_path(const char *path, const struct sockaddr_un *addr)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        return true; /* nothing there, or bind will say */
    }
    if (!S_ISSOCK(st.st_mode)) {
        log_event(LOG_ERROR, "cannot listen on unix:%s: there is a file that is no socket", path);
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool refused = fd >= 0 &&
                   connect(fd, (const struct sockaddr *)(const void *)addr, sizeof(*addr)) != 0 &&
                   errno == ECONNREFUSED;
    if (fd >= 0) {
        close(fd);
    }
    if (!refused) {
        log_event(LOG_ERROR, "cannot listen on unix:%s: another process listens there", path);
        return false;
    }
    if (unlink(path) != 0) {
        log_event(LOG_ERROR,
                  "cannot listen on unix:%s: the socket of an ended process cannot be "
                  "removed: %s",
                  path, strerror(errno));
        return false;
    }
    return true;
}

/* Binds with the mode from the first moment on (a socket's own mode is what bind gives its file, less
 * the umask), and then adds what the umask took. */
static bool bind_unix(int fd, const struct sockaddr_un *addr, mode_t mode)
{
    return fchmod(fd, mode) == 0 &&
           bind(fd, (const struct sockaddr *)(const void *)addr, sizeof(*addr)) == 0 &&
           chmod(addr->sun_path, mode) == 0 && listen(fd, BACKLOG) == 0;
}

static bool open_unix(struct listeners *ls, const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct stat st;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    if (!clear_path(path, &addr)) {
        return false;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || !bind_unix(fd, &addr, (mode_t)ls->server->conf->proxy_unix_socket_mode) ||
        lstat(path, &st) != 0) {
        log_event(LOG_ERROR, "cannot listen on unix:%s: %s", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    struct listener *added = add_listener(ls, fd);
    added->path = path;
    added->dev = st.st_dev;
    added->ino = st.st_ino;
    return true;
}

/* Unless somebody else has put a file of his own there. */
static void remove_file(const struct listener *listener)
{
    struct stat st;
    if (listener->path != NULL && lstat(listener->path, &st) == 0 && st.st_dev == listener->dev &&
        st.st_ino == listener->ino) {
        unlink(listener->path);
    }
}

/* ---- All of them ---------------------------------------------------------------------------- */

/* All addresses of one proxy.listen line; false when one that exists here cannot be had. */
static bool open_item(struct listeners *ls, const char *item)
{
    char host[CONF_HOST_MAX];
    char port[CONF_PORT_MAX];
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    bug_on(!conf_address(item, host, port));
    if (host[0] == '/') {
        return open_unix(ls, strchr(item, '/'));
    }
    int rc = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &found);
    if (rc != 0) {
        log_event(LOG_ERROR, "cannot listen on %s: %s", item, gai_strerror(rc));
        return false;
    }
    size_t before = ls->n;
    for (struct addrinfo *ai = found; ai != NULL; ai = ai->ai_next) {
        int fd = open_socket(ai);
        if (fd < 0 && errno == EAFNOSUPPORT) {
            continue; /* no IPv6 on this machine: "*" is then IPv4 alone */
        }
        if (fd < 0) {
            log_event(LOG_ERROR, "cannot listen on %s: %s", item, strerror(errno));
            freeaddrinfo(found);
            return false;
        }
        add_listener(ls, fd);
    }
    freeaddrinfo(found);
    if (ls->n == before) {
        log_event(LOG_ERROR, "cannot listen on %s: no such address on this machine", item);
    }
    return ls->n > before;
}

struct listeners *listeners_open(struct server *server, struct ev_loop *loop)
{
    struct listeners *ls = mem_zalloc(sizeof(*ls));
    ls->server = server;
    ls->loop = loop;
    ls->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ev_timer_init(&ls->resume, on_resume, PAUSE_SECONDS, 0.0);
    for (size_t i = 0; i < server->conf->proxy_listen.n; i++) {
        if (!open_item(ls, server->conf->proxy_listen.items[i])) {
            listeners_close(ls);
            return NULL;
        }
    }
    return ls;
}

void listeners_start(struct listeners *ls)
{
    for (size_t i = 0; i < ls->n; i++) {
        ev_io_start(ls->loop, &ls->sockets[i].io);
    }
}

void listeners_close(struct listeners *ls)
{
    if (ls == NULL) {
        return;
    }
    ev_timer_stop(ls->loop, &ls->resume);
    for (size_t i = 0; i < ls->n; i++) {
        ev_io_stop(ls->loop, &ls->sockets[i].io);
        remove_file(&ls->sockets[i]);
        close(ls->sockets[i].io.fd);
    }
    if (ls->reserve >= 0) {
        close(ls->reserve);
    }
    mem_free(ls->sockets);
    mem_free(ls);
}
