/* SPDX-License-Identifier: Apache-2.0
 *
 * fake.c: one thread, poll, blocking writes (the replies are small, or the test is about their not
 * being taken). Commands are parsed only as far as needed: arrays of bulk strings, as the proxy
 * sends them; anything else closes the connection. What was received is kept as lines of words, for
 * fake_seen.
 */
#include "fake.h"

#include "cleanup.h"
#include "process.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEERS_MAX   64
#define INPUT_MAX   ((size_t)1024 * 1024)
#define WORDS_SHOWN 512
#define TICK_MS     5

struct peer {
    int fd; /* -1: free */
    bool hung;
    size_t n;
    char *input;
};

struct fake {
    pthread_t thread;
    pthread_mutex_t lock; /* stop, log */
    bool stop;
    char *log; /* one line per command received */
    size_t log_n;
    FILE *log_file;
    int listener, port;
    const struct fake_rule *rules;
    struct peer peer[PEERS_MAX];
};

static void close_peer(struct peer *p, bool reset)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};

    if (p->fd < 0) {
        return;
    }
    if (reset) {
        setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
    close(p->fd);
    free(p->input);
    *p = (struct peer){.fd = -1};
}

static void send_all(int fd, const char *bytes, size_t n, size_t step)
{
    while (n > 0) {
        ssize_t sent = send(fd, bytes, n < step ? n : step, MSG_NOSIGNAL);
        if (sent <= 0) {
            return;
        }
        bytes += sent;
        n -= (size_t)sent;
    }
}

/* Numbers of the framing; -1 when there is none yet or it is not one. */
static long read_number(const char *p, const char *end, char type, const char **next)
{
    const char *lf = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;

    if (lf == NULL || *p != type) {
        return -1;
    }
    *next = lf + 1;
    return strtol(p + 1, NULL, 10);
}

/* Takes one command off the input as words joined by blanks (cut at WORDS_SHOWN); false if it is not
 * complete. */
static bool take_command(struct peer *p, char words[WORDS_SHOWN])
{
    const char *at = p->input;
    const char *end = p->input + p->n;
    long argc = read_number(at, end, '*', &at);
    size_t len = 0;

    if (argc < 1) {
        return false;
    }
    for (long i = 0; i < argc; i++) {
        long n = read_number(at, end, '$', &at);
        if (n < 0 || end - at < n + 2) {
            return false;
        }
        int put = snprintf(words + len, WORDS_SHOWN - len, "%s%.*s", i > 0 ? " " : "", (int)n, at);
        len = len + (size_t)put < WORDS_SHOWN ? len + (size_t)put : WORDS_SHOWN - 1;
        at += n + 2;
    }
    p->n = (size_t)(end - at);
    memmove(p->input, at, p->n);
    return true;
}

static bool begins(const char *words, const char *prefix)
{
    return strncasecmp(words, prefix, strlen(prefix)) == 0;
}

static void reply_as_redis(struct peer *p, const char *words)
{
    static const char info[] = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n"
                               "process_id:1\r\nrun_id:00000000000000000000000000000000deadbeef\r\n"
                               "# Replication\r\nrole:master\r\n";
    char reply[1024];

    if (begins(words, "HELLO 3")) {
        snprintf(reply, sizeof(reply),
                 "%%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n");
    } else if (begins(words, "INFO")) {
        snprintf(reply, sizeof(reply), "$%zu\r\n%s\r\n", sizeof(info) - 1, info);
    } else if (strcasecmp(words, "PING") == 0) {
        snprintf(reply, sizeof(reply), "+PONG\r\n");
    } else if (begins(words, "PING ")) {
        snprintf(reply, sizeof(reply), "$%zu\r\n%s\r\n", strlen(words) - 5, words + 5);
    } else if (begins(words, "CLIENT ID")) {
        snprintf(reply, sizeof(reply), ":1\r\n");
    } else if (begins(words, "COMMAND")) {
        snprintf(reply, sizeof(reply), "*0\r\n");
    } else if (begins(words, "CLIENT ID")) {
        snprintf(reply, sizeof(reply), ":7\r\n");
    } else if (begins(words, "PTTL")) {
        snprintf(reply, sizeof(reply), ":-1\r\n");
    } else if (begins(words, "GET")) {
        snprintf(reply, sizeof(reply), "$5\r\nvalue\r\n");
    } else {
        snprintf(reply, sizeof(reply), "+OK\r\n");
    }
    send_all(p->fd, reply, strlen(reply), SIZE_MAX);
}

static void act(struct peer *p, const struct fake_rule *rule)
{
    if (rule->reply != NULL) {
        size_t n = rule->n > 0 ? rule->n : strlen(rule->reply);
        send_all(p->fd, rule->reply, n, rule->then == FAKE_SLOW ? 1 : SIZE_MAX);
    }
    if (rule->then == FAKE_CLOSE || rule->then == FAKE_RESET) {
        close_peer(p, rule->then == FAKE_RESET);
    } else if (rule->then == FAKE_HANG) {
        p->hung = true;
    }
}

static void answer(struct fake *f, struct peer *p, const char *words)
{
    pthread_mutex_lock(&f->lock);
    fprintf(f->log_file, "%s\n", words);
    fflush(f->log_file);
    pthread_mutex_unlock(&f->lock);
    for (const struct fake_rule *rule = f->rules; rule->prefix != NULL; rule++) {
        if (begins(words, rule->prefix)) {
            act(p, rule);
            return;
        }
    }
    reply_as_redis(p, words);
}

static void read_peer(struct fake *f, struct peer *p)
{
    char words[WORDS_SHOWN];
    ssize_t n = recv(p->fd, p->input + p->n, INPUT_MAX - p->n, MSG_DONTWAIT);

    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            close_peer(p, false);
        }
        return;
    }
    p->n += (size_t)n;
    while (p->fd >= 0 && !p->hung && take_command(p, words)) {
        answer(f, p, words);
    }
}

static void accept_peer(struct fake *f)
{
    int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
    int on = 1;

    for (size_t i = 0; i < PEERS_MAX && fd >= 0; i++) {
        struct peer *p = &f->peer[i];
        if (p->fd < 0) {
            *p = (struct peer){.fd = fd, .input = malloc(INPUT_MAX)};
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
            return;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

static bool stopped(struct fake *f)
{
    pthread_mutex_lock(&f->lock);
    bool stop = f->stop;
    pthread_mutex_unlock(&f->lock);
    return stop;
}

static void *serve(void *ctx)
{
    struct fake *f = ctx;
    struct pollfd fds[1 + PEERS_MAX];

    while (!stopped(f)) {
        fds[0] = (struct pollfd){.fd = f->listener, .events = POLLIN};
        for (size_t i = 0; i < PEERS_MAX; i++) {
            fds[1 + i] = (struct pollfd){.fd = f->peer[i].fd, .events = POLLIN};
        }
        poll(fds, 1 + PEERS_MAX, TICK_MS);
        for (size_t i = 0; i < PEERS_MAX; i++) {
            if (fds[1 + i].fd >= 0 && fds[1 + i].revents != 0) {
                read_peer(f, &f->peer[i]);
            }
        }
        if ((fds[0].revents & POLLIN) != 0) {
            accept_peer(f);
        }
    }
    return NULL;
}

static void end_fake(void *object)
{
    struct fake *f = object;

    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    for (size_t i = 0; i < PEERS_MAX; i++) {
        close_peer(&f->peer[i], false);
    }
    close(f->listener);
    fclose(f->log_file);
    free(f->log);
    free(f);
}

struct fake *fake_start(const struct fake_rule *rules)
{
    struct fake *f = calloc(1, sizeof(*f));
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;

    cr_assert(f != NULL);
    pthread_mutex_init(&f->lock, NULL);
    f->rules = rules;
    f->log_file = open_memstream(&f->log, &f->log_n);
    for (size_t i = 0; i < PEERS_MAX; i++) {
        f->peer[i].fd = -1;
    }
    f->port = free_port();
    addr.sin_port = htons((uint16_t)f->port);
    f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(f->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    cr_assert(bind(f->listener, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
                  listen(f->listener, 128) == 0,
              "fake server: %s", strerror(errno));
    cr_assert(pthread_create(&f->thread, NULL, serve, f) == 0);
    cleanup_add(end_fake, f);
    return f;
}

int fake_port(const struct fake *f)
{
    return f->port;
}

int fake_seen(struct fake *f, const char *prefix)
{
    int seen = 0;

    pthread_mutex_lock(&f->lock);
    for (const char *line = f->log; line != NULL && *line != '\0';) {
        seen += begins(line, prefix) ? 1 : 0;
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    pthread_mutex_unlock(&f->lock);
    return seen;
}
