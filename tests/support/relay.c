/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.c: one thread, poll, two pipes per link.
 *
 *   from ──read──► chunk ► chunk ► chunk ──write, once due and not held──► to
 *
 * The thread holds the lock at all times except inside poll, so a caller that has returned from
 * relay_hold knows that not one more byte is moved. Chunks carry the moment they may go on; a pipe
 * whose queue is full stops reading (back-pressure as on a real link). When a side ends, the other
 * is closed after the queue has drained. Poll times out every few milliseconds, which serves the
 * delays and picks up changed settings.
 */
#include "relay.h"

#include "await.h"
#include "cleanup.h"
#include "process.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINKS_MAX  512
#define QUEUE_MAX  ((size_t)8 * 1024 * 1024)
#define CHUNK_SIZE ((size_t)64 * 1024)
#define TICK_MS    2

struct chunk {
    struct chunk *next;
    int64_t due;
    size_t n, sent;
    char bytes[];
};

struct pipe {
    int from, to;
    enum relay_way way;
    struct chunk *head, **tail;
    size_t queued;
    bool ended; /* `from` has sent all it will */
};

struct link {
    bool open, marked;
    struct pipe up, down;
};

struct relay {
    pthread_t thread;
    pthread_mutex_t lock; /* everything below */
    int listener, port, target;
    char *mark;
    bool stop, marked_only;
    unsigned held;
    int delay_up, delay_down;
    size_t chop_up, chop_down; /* 0: no limit */
    struct link link[LINKS_MAX];
    struct pollfd fds[1 + 2 * LINKS_MAX]; /* the thread's alone */
};

static void pipe_init(struct pipe *p, int from, int to, enum relay_way way)
{
    *p = (struct pipe){.from = from, .to = to, .way = way};
    p->tail = &p->head;
}

static void pipe_fini(struct pipe *p)
{
    while (p->head != NULL) {
        struct chunk *chunk = p->head;
        p->head = chunk->next;
        free(chunk);
    }
}

static void close_link(struct link *link)
{
    if (link->open) {
        pipe_fini(&link->up);
        pipe_fini(&link->down);
        close(link->up.from);
        close(link->up.to);
        link->open = false;
    }
}

static int connect_to(int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                               .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void accept_link(struct relay *r)
{
    int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);
    int on = 1;

    if (fd < 0) {
        return;
    }
    int target = connect_to(r->target);
    struct link *link = NULL;
    for (size_t i = 0; i < LINKS_MAX && link == NULL; i++) {
        link = r->link[i].open ? NULL : &r->link[i];
    }
    if (target < 0 || link == NULL) {
        close(fd);
        if (target >= 0) {
            close(target);
        }
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(target, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    link->open = true;
    link->marked = false;
    pipe_init(&link->up, fd, target, RELAY_UP);
    pipe_init(&link->down, target, fd, RELAY_DOWN);
}

static bool is_held(const struct relay *r, const struct link *link, const struct pipe *p)
{
    return (r->held & (unsigned)p->way) != 0 && (!r->marked_only || link->marked);
}

static bool contains(const char *bytes, size_t n, const char *word)
{
    size_t len = strlen(word);

    for (size_t i = 0; i + len <= n; i++) {
        if (strncasecmp(bytes + i, word, len) == 0) {
            return true;
        }
    }
    return false;
}

/* False: the link is to be closed. */
static bool fill_pipe(struct relay *r, struct link *link, struct pipe *p)
{
    struct chunk *chunk = malloc(sizeof(*chunk) + CHUNK_SIZE);

    if (chunk == NULL) {
        return false;
    }
    ssize_t n = recv(p->from, chunk->bytes, CHUNK_SIZE, MSG_DONTWAIT);
    if (n <= 0) {
        free(chunk);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return true;
        }
        p->ended = true;
        return true;
    }
    if (p->way == RELAY_UP && r->mark != NULL && contains(chunk->bytes, (size_t)n, r->mark)) {
        link->marked = true;
    }
    chunk->next = NULL;
    chunk->n = (size_t)n;
    chunk->sent = 0;
    chunk->due = now_ms() + (p->way == RELAY_UP ? r->delay_up : r->delay_down);
    *p->tail = chunk;
    p->tail = &chunk->next;
    p->queued += (size_t)n;
    return true;
}

/* chop: no more than that in this turn, or 0. */
static bool drain_pipe(struct pipe *p, int64_t now, size_t chop)
{
    while (p->head != NULL && p->head->due <= now) {
        struct chunk *chunk = p->head;
        size_t left = chunk->n - chunk->sent;
        size_t size = chop > 0 && chop < left ? chop : left;
        ssize_t n = send(p->to, chunk->bytes + chunk->sent, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        chunk->sent += (size_t)n;
        if (chunk->sent < chunk->n) {
            return true;
        }
        p->queued -= chunk->n;
        p->head = chunk->next;
        if (p->head == NULL) {
            p->tail = &p->head;
        }
        free(chunk);
        if (chop > 0) {
            return true;
        }
    }
    return true;
}

/* Moves what may be moved; reading of `from` was announced by poll if `readable`. */
static void turn_pipe(struct relay *r, struct link *link, struct pipe *p, bool readable)
{
    if (!link->open || is_held(r, link, p)) {
        return;
    }
    bool ok = !readable || p->ended || fill_pipe(r, link, p);
    /* a mark seen just now may hold this very chunk */
    if (ok && !is_held(r, link, p)) {
        ok = drain_pipe(p, now_ms(), p->way == RELAY_UP ? r->chop_up : r->chop_down);
    }
    if (!ok || (p->ended && p->head == NULL)) {
        close_link(link);
    }
}

static bool wants_to_read(const struct relay *r, const struct link *link, const struct pipe *p)
{
    return link->open && !p->ended && p->queued < QUEUE_MAX && !is_held(r, link, p);
}

static void *serve(void *ctx)
{
    struct relay *r = ctx;
    struct pollfd *fds = r->fds;

    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        fds[0] = (struct pollfd){.fd = r->listener, .events = POLLIN};
        for (size_t i = 0; i < LINKS_MAX; i++) {
            struct link *link = &r->link[i];
            bool up = wants_to_read(r, link, &link->up);
            bool down = wants_to_read(r, link, &link->down);
            fds[1 + 2 * i] = (struct pollfd){.fd = up ? link->up.from : -1, .events = POLLIN};
            fds[2 + 2 * i] = (struct pollfd){.fd = down ? link->down.from : -1, .events = POLLIN};
        }
        pthread_mutex_unlock(&r->lock);
        poll(fds, 1 + 2 * LINKS_MAX, TICK_MS);
        pthread_mutex_lock(&r->lock);
        for (size_t i = 0; i < LINKS_MAX; i++) {
            turn_pipe(r, &r->link[i], &r->link[i].up, fds[1 + 2 * i].revents != 0);
            turn_pipe(r, &r->link[i], &r->link[i].down, fds[2 + 2 * i].revents != 0);
        }
        if ((fds[0].revents & POLLIN) != 0) {
            accept_link(r);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void end_relay(void *object)
{
    struct relay *r = object;

    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    relay_cut(r, false);
    close(r->listener);
    free(r->mark);
    free(r);
}

struct relay *relay_start(int target_port, const char *mark)
{
    struct relay *r = calloc(1, sizeof(*r));
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;

    cr_assert(r != NULL);
    pthread_mutex_init(&r->lock, NULL);
    r->port = free_port();
    r->target = target_port;
    r->mark = mark != NULL ? strdup(mark) : NULL;
    addr.sin_port = htons((uint16_t)r->port);
    r->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(r->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    cr_assert(bind(r->listener, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
                  listen(r->listener, 128) == 0,
              "relay: %s", strerror(errno));
    cr_assert(pthread_create(&r->thread, NULL, serve, r) == 0);
    cleanup_add(end_relay, r);
    return r;
}

int relay_port(const struct relay *r)
{
    return r->port;
}

void relay_hold(struct relay *r, unsigned ways, bool marked_only)
{
    pthread_mutex_lock(&r->lock);
    r->held = ways;
    r->marked_only = marked_only;
    pthread_mutex_unlock(&r->lock);
}

void relay_release(struct relay *r)
{
    relay_hold(r, 0, false);
}

void relay_delay(struct relay *r, unsigned ways, int ms)
{
    pthread_mutex_lock(&r->lock);
    r->delay_up = (ways & RELAY_UP) != 0 ? ms : r->delay_up;
    r->delay_down = (ways & RELAY_DOWN) != 0 ? ms : r->delay_down;
    pthread_mutex_unlock(&r->lock);
}

void relay_chop(struct relay *r, unsigned ways, size_t n)
{
    pthread_mutex_lock(&r->lock);
    r->chop_up = (ways & RELAY_UP) != 0 ? n : r->chop_up;
    r->chop_down = (ways & RELAY_DOWN) != 0 ? n : r->chop_down;
    pthread_mutex_unlock(&r->lock);
}

void relay_cut(struct relay *r, bool marked_only)
{
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < LINKS_MAX; i++) {
        if (r->link[i].marked || !marked_only) {
            close_link(&r->link[i]);
        }
    }
    pthread_mutex_unlock(&r->lock);
}

int relay_links(struct relay *r)
{
    int open = 0;

    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < LINKS_MAX; i++) {
        open += r->link[i].open ? 1 : 0;
    }
    pthread_mutex_unlock(&r->lock);
    return open;
}
