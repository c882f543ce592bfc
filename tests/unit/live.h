/* SPDX-License-Identifier: Apache-2.0
 *
 * live.h: what the tests of upstream/ and invalidation/ run against: an event loop that is turned
 * until a condition holds, a real redis-server of the test's own, and a server played by the test
 * itself, in the same thread, word by word.
 *
 * Nothing sleeps and hopes: WAIT_FOR turns the loop until something is true, for 10 s at most.
 */
#pragma once

#include "../../conf/log.h"
#include "../../conf/mem.h"
#include "../../upstream/conn.h"

#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIVE static inline __attribute__((unused))

/* ---- The loop ------------------------------------------------------------------------------ */

static struct ev_loop *live_loop;
static void (*live_turn)(void); /* what a worker does once per turn: flush, tick */
static ev_timer live_pulse;
static char live_buffer[64 * 1024] __attribute__((unused));

LIVE int64_t live_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

LIVE void live_on_pulse(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)w;
    (void)revents;
}

LIVE void live_start(void)
{
    log_set_level(getenv("LIVE_LOG") != NULL ? LOG_DEBUG : LOG_ERROR);
    live_loop = ev_loop_new(EVFLAG_AUTO);
    ev_timer_init(&live_pulse, live_on_pulse, 0.002, 0.002);
    ev_timer_start(live_loop, &live_pulse);
}

LIVE void live_stop(void)
{
    live_turn = NULL;
    ev_timer_stop(live_loop, &live_pulse);
    ev_loop_destroy(live_loop);
}

LIVE void live_spin(void)
{
    ev_run(live_loop, EVRUN_ONCE);
    if (live_turn != NULL) {
        live_turn();
    }
}

#define WAIT_FOR(...)                                                                              \
    do {                                                                                           \
        int64_t until_ = live_now() + 10000;                                                       \
        while (!(__VA_ARGS__) && live_now() < until_) {                                            \
            live_spin();                                                                           \
        }                                                                                          \
        cr_assert((__VA_ARGS__), "waited in vain for: %s", #__VA_ARGS__);                          \
    } while (0)

/* Turns the loop for a while: for what must not happen, and for time itself. */
LIVE void live_run_for(int64_t ms)
{
    for (int64_t until = live_now() + ms; live_now() < until;) {
        live_spin();
    }
}

/* ---- A call that remembers ----------------------------------------------------------------- */

struct ask {
    struct call call;
    char got[512]; /* the first bytes of the replies */
    size_t bytes;  /* of all replies */
    int pieces;
    bool done;
    bool lost;
    enum call_loss loss;
    int order;                     /* among all ends of calls of this test */
    void (*then)(struct ask *ask); /* when it is done or lost */
};

static int ask_ends;

LIVE void ask_end(struct ask *ask)
{
    ask->order = ++ask_ends;
    if (ask->then != NULL) {
        ask->then(ask);
    }
}

LIVE void ask_on_reply(struct call *call, const struct reply_piece *piece)
{
    struct ask *ask = container_of(call, struct ask, call);
    size_t room = sizeof(ask->got) - 1;
    if (ask->bytes < room) {
        size_t n = piece->bytes.n < room - ask->bytes ? piece->bytes.n : room - ask->bytes;
        memcpy(ask->got + ask->bytes, piece->bytes.p, n);
    }
    ask->bytes += piece->bytes.n;
    ask->pieces++;
    if (piece->last && call->replies == 0) {
        ask->done = true;
        ask_end(ask);
    }
}

LIVE void ask_on_lost(struct call *call, enum call_loss loss)
{
    struct ask *ask = container_of(call, struct ask, call);
    cr_assert(!ask->done && !ask->lost, "a call ends once");
    ask->lost = true;
    ask->loss = loss;
    ask_end(ask);
}

static const struct call_ops ASK_OPS = {.reply = ask_on_reply, .lost = ask_on_lost};

LIVE enum conn_status ask_blob(struct conn *conn, struct ask *ask, struct slice bytes,
                               struct blob *blob)
{
    ask->call.ops = &ASK_OPS;
    ask->call.replies = 1;
    return conn_submit(conn, &ask->call, bytes, blob);
}

/* Inline commands do for a real server. */
LIVE enum conn_status ask_line(struct conn *conn, struct ask *ask, const char *line)
{
    char text[256];
    int n = snprintf(text, sizeof(text), "%s\r\n", line);
    return ask_blob(conn, ask, slice_of(text, (size_t)n), NULL);
}

/* ---- A node -------------------------------------------------------------------------------- */

LIVE struct node *live_node_with(int port, struct node_options options)
{
    char text[16];
    (void)snprintf(text, sizeof(text), "%d", port);
    options.host = options.host != NULL ? options.host : "127.0.0.1";
    options.port = text;
    options.connect_timeout_ms = options.connect_timeout_ms > 0 ? options.connect_timeout_ms : 5000;
    options.dead_after_ms = options.dead_after_ms > 0 ? options.dead_after_ms : 5000;
    return node_create(&options);
}

LIVE struct node *live_node(int port)
{
    return live_node_with(port, (struct node_options){0});
}

/* ---- Sockets ------------------------------------------------------------------------------- */

/* A listening socket on a free loopback port. */
LIVE int live_listen(int backlog, int *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof(addr);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    cr_assert(bind(fd, (struct sockaddr *)&addr, len) == 0);
    cr_assert(listen(fd, backlog) == 0);
    cr_assert(getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
    *port = ntohs(addr.sin_port);
    return fd;
}

LIVE int live_free_port(void)
{
    int port = 0;
    close(live_listen(1, &port));
    return port;
}

/* ---- A server played by the test ----------------------------------------------------------- */

struct fake {
    int listener;
    int port;
    int fd; /* the connection accepted last */
    char in[1 << 20];
    size_t n; /* received and not yet expected */
};

LIVE void fake_open(struct fake *f)
{
    f->fd = -1;
    f->n = 0;
    f->port = 0;
    f->listener = live_listen(16, &f->port);
}

LIVE bool fake_try_accept(struct fake *f)
{
    int fd = accept4(f->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        f->fd = fd;
        f->n = 0;
    }
    return fd >= 0;
}

LIVE void fake_accept(struct fake *f)
{
    bool accepted = false;
    WAIT_FOR(accepted || (accepted = fake_try_accept(f)));
}

LIVE void fake_read(struct fake *f)
{
    ssize_t n = recv(f->fd, f->in + f->n, sizeof(f->in) - f->n, 0);
    f->n += n > 0 ? (size_t)n : 0;
}

LIVE bool fake_has(struct fake *f, const char *text)
{
    fake_read(f);
    return memmem(f->in, f->n, text, strlen(text)) != NULL;
}

/* Waits until text was received, and forgets everything up to its end. */
LIVE void fake_expect(struct fake *f, const char *text)
{
    WAIT_FOR(fake_has(f, text));
    char *end = (char *)memmem(f->in, f->n, text, strlen(text)) + strlen(text);
    f->n -= (size_t)(end - f->in);
    memmove(f->in, end, f->n);
}

LIVE void fake_say(struct fake *f, const char *text)
{
    size_t n = strlen(text);
    cr_assert(send(f->fd, text, n, MSG_NOSIGNAL) == (ssize_t)n);
}

LIVE void fake_hang_up(struct fake *f)
{
    close(f->fd);
    f->fd = -1;
}

/* Closes with RST. */
LIVE void fake_reset(struct fake *f)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(f->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    fake_hang_up(f);
}

LIVE void fake_close(struct fake *f)
{
    if (f->fd >= 0) {
        close(f->fd);
    }
    close(f->listener);
}

LIVE void fake_say_info(struct fake *f, const char *run_id)
{
    char body[256];
    char text[300];
    int n =
        snprintf(body, sizeof(body), "# Server\r\nredis_version:7.9.9\r\nrun_id:%s\r\n", run_id);
    (void)snprintf(text, sizeof(text), "$%d\r\n%s\r\n", n, body);
    fake_say(f, text);
}

#define FAKE_HELLO "%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"

/* Accepts and plays the bring-up of a RESP2 lane. */
LIVE void fake_greet_as(struct fake *f, const char *run_id)
{
    fake_accept(f);
    fake_expect(f, "$4\r\nPING\r\n");
    fake_say_info(f, run_id);
    fake_say(f, "+PONG\r\n");
}

LIVE void fake_greet(struct fake *f)
{
    fake_greet_as(f, "1111");
}

/* The same for a fill connection. */
LIVE void fake_greet_fill(struct fake *f)
{
    fake_accept(f);
    fake_expect(f, "$4\r\nPING\r\n");
    fake_say(f, FAKE_HELLO "+OK\r\n+OK\r\n");
    fake_say_info(f, "1111");
    fake_say(f, "+PONG\r\n");
}

/* ---- A real server ------------------------------------------------------------------------- */

struct redis {
    int port;
    pid_t pid;
    char dir[64];
    char password[32];
    redisContext *direct; /* a connection of the test's own */
};

LIVE void redis_exec(struct redis *r, const char *password)
{
    char port[16];
    (void)snprintf(port, sizeof(port), "%d", r->port);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = open("/dev/null", O_RDWR);
    (void)dup2(null, 0);
    (void)dup2(null, 1);
    (void)dup2(null, 2);
    execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
           "--appendonly", "no", "--dir", r->dir, "--daemonize", "no", "--enable-debug-command",
           "yes", "--requirepass", password, (char *)NULL);
    _exit(127);
}

/* One attempt to get a PONG. */
LIVE bool redis_answers(struct redis *r)
{
    struct timeval limit = {.tv_sec = 5};
    redisContext *c = redisConnectWithTimeout("127.0.0.1", r->port, limit);
    bool good = c != NULL && c->err == 0;
    if (good && r->password[0] != '\0') {
        freeReplyObject(redisCommand(c, "AUTH %s", r->password));
    }
    redisReply *reply = good ? redisCommand(c, "PING") : NULL;
    good = reply != NULL && reply->type == REDIS_REPLY_STATUS;
    freeReplyObject(reply);
    if (good) {
        r->direct = c;
    } else if (c != NULL) {
        redisFree(c);
    }
    return good;
}

LIVE void redis_spawn(struct redis *r)
{
    r->pid = fork();
    if (r->pid == 0) {
        redis_exec(r, r->password);
    }
    int64_t until = live_now() + 10000;
    while (!redis_answers(r) && live_now() < until) {
        (void)poll(NULL, 0, 5);
    }
    cr_assert(r->direct != NULL, "redis-server does not answer");
}

LIVE void redis_start(struct redis *r, const char *password)
{
    if (access("/usr/bin/redis-server", X_OK) != 0 &&
        system("command -v redis-server >/dev/null")) {
        cr_skip_test("redis-server is not installed");
    }
    *r = (struct redis){.port = live_free_port()};
    (void)snprintf(r->password, sizeof(r->password), "%s", password);
    (void)snprintf(r->dir, sizeof(r->dir), "/tmp/nearside-test-XXXXXX");
    cr_assert(mkdtemp(r->dir) != NULL);
    redis_spawn(r);
}

LIVE void redis_kill(struct redis *r)
{
    redisFree(r->direct);
    r->direct = NULL;
    kill(r->pid, SIGCONT);
    kill(r->pid, SIGKILL);
    (void)waitpid(r->pid, NULL, 0);
}

LIVE void redis_stop(struct redis *r)
{
    redis_kill(r);
    (void)rmdir(r->dir);
}

/* Runs a command past everything under test; returns its integer, or -1 for an error. */
LIVE long long redis_do(struct redis *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
LIVE long long redis_do(struct redis *r, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    redisReply *reply = redisvCommand(r->direct, fmt, args);
    va_end(args);
    cr_assert(reply != NULL, "the direct connection is gone");
    long long value = reply->type == REDIS_REPLY_ERROR ? -1 : reply->integer;
    freeReplyObject(reply);
    return value;
}
