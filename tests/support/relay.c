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
#define RECENT_MAX ((size_t)4096)
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
    size_t passes; /* bytes that may go on although the way is held */
    bool ended;    /* `from` has sent all it will */
};

struct link {
    bool open, marked;
    unsigned held; /* this link alone */
    unsigned long made;
    struct pipe up, down;
    size_t nrecent;
    char recent[RECENT_MAX]; /* the end of what passed upwards */
};

struct relay {
    pthread_t thread;
    atomic_int entering;  /* threads that wait for: */
    pthread_mutex_t lock; /* everything below */
    int listener, port, target;
    char *mark;
    bool stop, marked_only;
    unsigned held;
    unsigned long made; /* links so far */
    int delay_up, delay_down;
    int marked_up, marked_down; /* delays of marked links, in addition, at most */
    unsigned seed;              /* for how much of it */
    size_t chop_up, chop_down;  /* bytes at a time; 0: no limit */
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
    link->held = 0;
    link->made = ++r->made;
    link->nrecent = 0;
    pipe_init(&link->up, fd, target, RELAY_UP);
    pipe_init(&link->down, target, fd, RELAY_DOWN);
}

static bool is_held(const struct relay *r, const struct link *link, const struct pipe *p)
{
    return (link->held & (unsigned)p->way) != 0 ||
           ((r->held & (unsigned)p->way) != 0 && (!r->marked_only || link->marked));
}

/* How many bytes of the way may go on now. */
static size_t allowance(const struct relay *r, const struct link *link, const struct pipe *p)
{
    return is_held(r, link, p) ? p->passes : SIZE_MAX;
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

static void remember(struct link *link, const char *bytes, size_t n)
{
    size_t new = n < RECENT_MAX ? n : RECENT_MAX;
    size_t kept = link->nrecent < RECENT_MAX - new ? link->nrecent : RECENT_MAX - new;

    memmove(link->recent, link->recent + link->nrecent - kept, kept);
    memcpy(link->recent + kept, bytes + n - new, new);
    link->nrecent = kept + new;
}

/* Reads up to `most` bytes. False: the link is to be closed. */
static bool fill_pipe(struct relay *r, struct link *link, struct pipe *p, size_t most)
{
    struct chunk *chunk = malloc(sizeof(*chunk) + CHUNK_SIZE);

    if (chunk == NULL) {
        return false;
    }
    ssize_t n = recv(p->from, chunk->bytes, most < CHUNK_SIZE ? most : CHUNK_SIZE, MSG_DONTWAIT);
    if (n <= 0) {
        free(chunk);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return true;
        }
        p->ended = true;
        return true;
    }
    if (p->way == RELAY_UP) {
        remember(link, chunk->bytes, (size_t)n);
        link->marked =
            link->marked || (r->mark != NULL && contains(chunk->bytes, (size_t)n, r->mark));
    }
    chunk->next = NULL;
    chunk->n = (size_t)n;
    chunk->sent = 0;
    chunk->due = now_ms() + (p->way == RELAY_UP ? r->delay_up : r->delay_down);
    if (link->marked) {
        int extra = p->way == RELAY_UP ? r->marked_up : r->marked_down;
        chunk->due += rand_r(&r->seed) / 16 % (extra + 1);
    }
    *p->tail = chunk;
    p->tail = &chunk->next;
    p->queued += (size_t)n;
    return true;
}

static bool drain_pipe(struct pipe *p, size_t most, int64_t now)
{
    while (p->head != NULL && p->head->due <= now && most > 0) {
        struct chunk *chunk = p->head;
        size_t left = chunk->n - chunk->sent;
        ssize_t n = send(p->to, chunk->bytes + chunk->sent, left < most ? left : most,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        chunk->sent += (size_t)n;
        p->queued -= (size_t)n;
        most -= (size_t)n;
        p->passes -= p->passes < (size_t)n ? p->passes : (size_t)n;
        if (chunk->sent < chunk->n) {
            return true;
        }
        p->head = chunk->next;
        if (p->head == NULL) {
            p->tail = &p->head;
        }
        free(chunk);
    }
    return true;
}

/* Moves what may be moved; reading of `from` was announced by poll if `readable`. */
static void turn_pipe(struct relay *r, struct link *link, struct pipe *p, bool readable)
{
    size_t most = link->open ? allowance(r, link, p) : 0;
    if (most == 0) {
        return;
    }
    bool ok = !readable || p->ended || most <= p->queued || fill_pipe(r, link, p, most - p->queued);
    /* a mark seen just now may hold this very chunk */
    if (ok) {
        size_t chop = p->way == RELAY_UP ? r->chop_up : r->chop_down;
        most = allowance(r, link, p);
        ok = drain_pipe(p, chop > 0 && chop < most ? chop : most, now_ms());
    }
    if (!ok || (p->ended && p->head == NULL)) {
        close_link(link);
    }
}

static bool wants_to_read(const struct relay *r, const struct link *link, const struct pipe *p)
{
    return link->open && !p->ended && p->queued < QUEUE_MAX && allowance(r, link, p) > p->queued;
}

/* For all but the relay's own thread, which makes room. */
static void enter(struct relay *r)
{
    atomic_fetch_add(&r->entering, 1);
    pthread_mutex_lock(&r->lock);
    atomic_fetch_sub(&r->entering, 1);
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
        while (atomic_load(&r->entering) > 0) {
            poll(NULL, 0, 1); /* else they might wait for as long as there is something to move */
        }
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

    enter(r);
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
    enter(r);
    r->held = ways;
    r->marked_only = marked_only;
    pthread_mutex_unlock(&r->lock);
}

void relay_release(struct relay *r)
{
    enter(r);
    r->held = 0;
    for (size_t i = 0; i < LINKS_MAX; i++) {
        r->link[i].held = 0;
        r->link[i].up.passes = 0;
        r->link[i].down.passes = 0;
    }
    pthread_mutex_unlock(&r->lock);
}

void relay_delay(struct relay *r, unsigned ways, int ms)
{
    enter(r);
    r->delay_up = (ways & RELAY_UP) != 0 ? ms : r->delay_up;
    r->delay_down = (ways & RELAY_DOWN) != 0 ? ms : r->delay_down;
    pthread_mutex_unlock(&r->lock);
}

void relay_delay_marked(struct relay *r, unsigned ways, int ms)
{
    enter(r);
    r->marked_up = (ways & RELAY_UP) != 0 ? ms : r->marked_up;
    r->marked_down = (ways & RELAY_DOWN) != 0 ? ms : r->marked_down;
    pthread_mutex_unlock(&r->lock);
}

void relay_chop(struct relay *r, unsigned ways, size_t n)
{
    enter(r);
    r->chop_up = (ways & RELAY_UP) != 0 ? n : r->chop_up;
    r->chop_down = (ways & RELAY_DOWN) != 0 ? n : r->chop_down;
    pthread_mutex_unlock(&r->lock);
}

void relay_cut(struct relay *r, bool marked_only)
{
    enter(r);
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

    enter(r);
    for (size_t i = 0; i < LINKS_MAX; i++) {
        open += r->link[i].open ? 1 : 0;
    }
    pthread_mutex_unlock(&r->lock);
    return open;
}

void relay_retarget(struct relay *r, int target_port)
{
    enter(r);
    r->target = target_port;
    pthread_mutex_unlock(&r->lock);
}

/* ---- One link ------------------------------------------------------------------------------- */

int relay_find(struct relay *r, const char *word)
{
    int found = -1;
    unsigned long made = 0;

    enter(r);
    for (int i = 0; i < LINKS_MAX; i++) {
        const struct link *link = &r->link[i];
        if (link->open && link->made > made && contains(link->recent, link->nrecent, word)) {
            found = i;
            made = link->made;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

int relay_pick(struct relay *r, unsigned n, bool marked_only)
{
    int fits[LINKS_MAX];
    unsigned count = 0;

    enter(r);
    for (int i = 0; i < LINKS_MAX; i++) {
        if (r->link[i].open && (r->link[i].marked || !marked_only)) {
            fits[count++] = i;
        }
    }
    pthread_mutex_unlock(&r->lock);
    return count > 0 ? fits[n % count] : -1;
}

void relay_hold_link(struct relay *r, int link, unsigned ways)
{
    cr_assert(link >= 0 && link < LINKS_MAX, "relay: no link %d", link);
    enter(r);
    r->link[link].held = ways;
    r->link[link].up.passes = 0;
    r->link[link].down.passes = 0;
    pthread_mutex_unlock(&r->lock);
}

void relay_pass(struct relay *r, int link, enum relay_way way, size_t n)
{
    enter(r);
    struct pipe *p = way == RELAY_UP ? &r->link[link].up : &r->link[link].down;
    p->passes += n;
    pthread_mutex_unlock(&r->lock);
}

void relay_cut_link(struct relay *r, int link)
{
    enter(r);
    close_link(&r->link[link]);
    pthread_mutex_unlock(&r->lock);
}
