/* SPDX-License-Identifier: Apache-2.0
 *
 * ceiling.c: the least that an epoll program does between clients and a Redis, to measure Nearside by:
 *
 *   ceiling forward PORT UPSTREAM_PORT   sends what clients send on over one connection, and the replies back
 *   ceiling hit PORT UPSTREAM_PORT       answers GETs from a table, for good: what is not in it is asked for and kept
 *
 * Requests are looked at for their ends, and GETs for their key; replies for their ends. One read and one write for
 * each event, one write upstream for each turn. There is nothing of what makes either of use: no limits, no errors, no
 * time, no changes. It listens on 127.0.0.1, expects well-formed requests and scalar replies, and ends with its parent.
 */
#include "../../conf/base.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define READ_SIZE ((size_t)256 * 1024)
#define EVENTS    256
#define OWED      65536 /* runs of replies that are under way */
#define SLOTS     (1U << 21)
#define AHEAD     16 /* lookups that wait for memory together */

struct bytes {
    char *p;
    size_t n, size;
};

struct conn {
    struct conn *next; /* clients */
    int fd;
    bool writes;       /* waits for room to write */
    struct bytes rest; /* of a request, or of a reply */
    struct bytes out;
};

struct item {
    uint64_t hash;
    uint32_t key_n, reply_n;
    char bytes[]; /* the key, the reply */
};

/* A request: its end, and if it is a GET its key. */
struct request {
    const char *end;
    const char *key;
    size_t key_n;
    uint64_t hash;
};

static int epoll;
static bool hits;
static struct conn upstream;
static struct conn *clients; /* they are never freed: replies may still be owed to one */
static struct bytes to_upstream;
static char *buffer; /* twice READ_SIZE: a rest, and what is read behind it */
static struct item **table;
static struct {
    struct conn *c;
    uint32_t n;
} owed[OWED];
static uint32_t owed_from, owed_to;

static void must(bool ok, const char *what)
{
    if (!ok) {
        perror(what);
        exit(1);
    }
}

static void append(struct bytes *b, const char *p, size_t n)
{
    if (n == 0) {
        return;
    }
    if (b->n + n > b->size) {
        b->size = 2 * (b->n + n);
        b->p = realloc(b->p, b->size);
        if (b->p == NULL) {
            abort();
        }
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

/* ---- Framing --------------------------------------------------------------------------------- */

/* The number behind the type byte at p; *p goes behind its line. False: the line is not whole. */
static bool number(const char **p, const char *end, size_t *n)
{
    const char *q = *p + 1;
    size_t value = 0;
    while (q < end && (unsigned char)(*q - '0') <= 9) {
        value = 10 * value + (size_t)(*q++ - '0');
    }
    *p = q + 2;
    *n = value;
    return end - q >= 2;
}

static bool scan_request(const char *p, const char *end, struct request *r)
{
    size_t argc;
    size_t n;
    r->key = NULL;
    if (!number(&p, end, &argc)) {
        return false;
    }
    bool get = false;
    for (size_t i = 0; i < argc; i++) {
        if (p >= end || !number(&p, end, &n) || (size_t)(end - p) < n + 2) {
            return false;
        }
        if (i == 0) {
            get = argc == 2 && n == 3 && memcmp(p, "GET", 3) == 0;
        } else if (get) {
            r->key = p;
            r->key_n = n;
        }
        p += n + 2;
    }
    r->end = p;
    return true;
}

/* Behind the reply at p, or NULL. */
static const char *reply_end(const char *p, const char *end)
{
    size_t n;
    if (*p == '$' && end - p >= 2 && p[1] != '-') {
        return number(&p, end, &n) && (size_t)(end - p) >= n + 2 ? p + n + 2 : NULL;
    }
    const char *line = memchr(p, '\n', (size_t)(end - p));
    return line == NULL ? NULL : line + 1;
}

/* ---- Connections ----------------------------------------------------------------------------- */

static void watch(struct conn *c, bool writes, int how)
{
    struct epoll_event e = {.events = EPOLLIN | (writes ? EPOLLOUT : 0U), .data.ptr = c};
    must(epoll_ctl(epoll, how, c->fd, &e) == 0, "epoll_ctl");
    c->writes = writes;
}

/* Writes what it can of p and keeps the rest, behind what is kept already. */
static void put(struct conn *c, const char *p, size_t n)
{
    size_t sent = 0;
    if (c->fd < 0) {
        return;
    }
    if (c->out.n == 0) {
        ssize_t done = send(c->fd, p, n, MSG_NOSIGNAL);
        sent = done < 0 ? 0 : (size_t)done;
    }
    if (sent < n) {
        append(&c->out, p + sent, n - sent);
        if (!c->writes) {
            watch(c, true, EPOLL_CTL_MOD);
        }
    }
}

static void put_rest(struct conn *c)
{
    struct bytes rest = c->out;
    c->out = (struct bytes){0};
    watch(c, false, EPOLL_CTL_MOD);
    put(c, rest.p, rest.n);
    free(rest.p);
}

/* ---- Hits ------------------------------------------------------------------------------------ */

static struct item **slot_of(const struct request *r)
{
    size_t i = r->hash & (SLOTS - 1);
    struct item *item;
    while ((item = table[i]) != NULL && (item->hash != r->hash || item->key_n != r->key_n ||
                                         memcmp(item->bytes, r->key, r->key_n) != 0)) {
        i = (i + 1) & (SLOTS - 1);
    }
    return &table[i];
}

/* Asks upstream and waits. */
static struct item *ask(const struct request *r, const char *p)
{
    const char *end = NULL;
    size_t n = 0;
    must(send(upstream.fd, p, (size_t)(r->end - p), MSG_NOSIGNAL) == r->end - p, "send");
    while (end == NULL) {
        ssize_t done = recv(upstream.fd, buffer + READ_SIZE + n, READ_SIZE - n, 0);
        must(done > 0, "recv");
        n += (size_t)done;
        end = reply_end(buffer + READ_SIZE, buffer + READ_SIZE + n);
    }
    struct item *item = malloc(sizeof(*item) + r->key_n + n);
    must(item != NULL, "malloc");
    item->hash = r->hash;
    item->key_n = (uint32_t)r->key_n;
    item->reply_n = (uint32_t)n;
    memcpy(item->bytes, r->key == NULL ? "" : r->key, r->key_n);
    memcpy(item->bytes + r->key_n, buffer + READ_SIZE, n);
    return item;
}

static void answer(struct bytes *out, const struct request *r, const char *p)
{
    if (r->key == NULL) {
        struct request bare = {.end = r->end, .key = "", .key_n = 0};
        struct item *item = ask(&bare, p);
        append(out, item->bytes, item->reply_n);
        free(item);
        return;
    }
    struct item **slot = slot_of(r);
    if (*slot == NULL) {
        *slot = ask(r, p);
    }
    append(out, (*slot)->bytes + r->key_n, (*slot)->reply_n);
}

/* Returns behind the last whole request. */
static const char *serve_hits(struct conn *c, const char *p, const char *end)
{
    static struct bytes out;
    struct request r[AHEAD];
    size_t n;
    out.n = 0;
    do {
        const char *q = p;
        for (n = 0; n < AHEAD && q < end && scan_request(q, end, &r[n]); n++) {
            r[n].hash = r[n].key == NULL ? 0 : XXH3_64bits(r[n].key, r[n].key_n);
            __builtin_prefetch(&table[r[n].hash & (SLOTS - 1)]);
            q = r[n].end;
        }
        for (size_t i = 0; i < n; i++) {
            const char *item = (const char *)table[r[i].hash & (SLOTS - 1)];
            __builtin_prefetch(item);
            __builtin_prefetch(item + 64);
        }
        for (size_t i = 0; i < n; i++) {
            answer(&out, &r[i], p);
            p = r[i].end;
        }
    } while (n == AHEAD);
    put(c, out.p, out.n);
    return p;
}

/* ---- Forwarding ------------------------------------------------------------------------------ */

static const char *forward(struct conn *c, const char *p, const char *end)
{
    const char *from = p;
    struct request r;
    uint32_t n = 0;
    while (p < end && scan_request(p, end, &r)) {
        p = r.end;
        n++;
    }
    if (n > 0) {
        append(&to_upstream, from, (size_t)(p - from));
        owed[owed_to % OWED].c = c;
        owed[owed_to++ % OWED].n = n;
        must(owed_to - owed_from < OWED, "too many clients");
    }
    return p;
}

static const char *take_replies(const char *p, const char *end)
{
    while (p < end && owed_from != owed_to) {
        struct conn *c = owed[owed_from % OWED].c;
        uint32_t *left = &owed[owed_from % OWED].n;
        const char *from = p;
        const char *behind;
        while (*left > 0 && p < end && (behind = reply_end(p, end)) != NULL) {
            p = behind;
            (*left)--;
        }
        if (p > from) {
            put(c, from, (size_t)(p - from));
        }
        if (*left > 0) {
            break;
        }
        owed_from++;
    }
    return p;
}

/* ---- The loop -------------------------------------------------------------------------------- */

static void on_readable(struct conn *c)
{
    size_t rest = c->rest.n;
    if (rest > 0) {
        memcpy(buffer, c->rest.p, rest);
    }
    ssize_t n = recv(c->fd, buffer + rest, READ_SIZE - rest, 0);
    if (n <= 0) {
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        must(c != &upstream, "upstream");
        close(c->fd);
        c->fd = -1;
        return;
    }
    const char *end = buffer + rest + n;
    const char *p = c == &upstream ? take_replies(buffer, end)
                    : hits         ? serve_hits(c, buffer, end)
                                   : forward(c, buffer, end);
    c->rest.n = 0;
    append(&c->rest, p, (size_t)(end - p));
}

static void on_accept(int listener)
{
    int on = 1;
    struct conn *c = calloc(1, sizeof(*c));
    must(c != NULL, "calloc");
    c->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    must(c->fd >= 0, "accept");
    c->next = clients;
    clients = c;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    watch(c, false, EPOLL_CTL_ADD);
}

static int start(int port, int upstream_port)
{
    int on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons((uint16_t)upstream_port)};
    buffer = malloc(2 * READ_SIZE);
    table = calloc(SLOTS, sizeof(struct item *));
    epoll = epoll_create1(0);
    upstream.fd = socket(AF_INET, SOCK_STREAM, 0);
    must(buffer != NULL && table != NULL && epoll >= 0 && upstream.fd >= 0, "start");
    must(connect(upstream.fd, (struct sockaddr *)&at, sizeof(at)) == 0, "connect");
    setsockopt(upstream.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (!hits) {
        must(fcntl(upstream.fd, F_SETFL, O_NONBLOCK) == 0, "fcntl");
        watch(&upstream, false, EPOLL_CTL_ADD);
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_port = htons((uint16_t)port);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    must(bind(listener, (struct sockaddr *)&at, sizeof(at)) == 0 && listen(listener, 1024) == 0,
         "listen");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    must(epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e) == 0, "epoll_ctl");
    return listener;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    if (argc != 4 || (strcmp(argv[1], "hit") != 0 && strcmp(argv[1], "forward") != 0)) {
        (void)fprintf(stderr, "ceiling hit|forward PORT UPSTREAM_PORT\n");
        return 2;
    }
    hits = strcmp(argv[1], "hit") == 0;
    int listener = start((int)strtol(argv[2], NULL, 10), (int)strtol(argv[3], NULL, 10));
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (c == NULL) {
                on_accept(listener);
                continue;
            }
            if ((events[i].events & EPOLLOUT) != 0) {
                put_rest(c);
            }
            if ((events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
                on_readable(c);
            }
        }
        if (to_upstream.n > 0) {
            put(&upstream, to_upstream.p, to_upstream.n);
            to_upstream.n = 0;
        }
    }
}
