/* SPDX-License-Identifier: Apache-2.0
 *
 * client.c: a blocking client with time-outs. The socket is non-blocking and every wait is a poll
 * with the client's time-out, so that no peer can hang a test.
 *
 * Reading: [start, end) of buf holds what was received and not yet consumed. While a reply is read
 * `at` walks ahead of start and nothing is moved, so the raw bytes of a reply are buf[start, at)
 * once it is complete; the next read drops them. Sending while the peer's replies fill up is the
 * caller's business: a client that does not read is a thing we test.
 */
#include "client.h"

#include "await.h"
#include "cleanup.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LINE_MAX_BYTES ((size_t)16 * 1024 * 1024)

struct client {
    int fd;
    int64_t timeout_ms;
    int64_t deadline; /* of the reply being read */
    char *buf;
    size_t start, at, end, cap;
    struct reply *reply; /* read last */
    char *text;          /* its text */
};

static void end_client(void *object)
{
    struct client *c = object;

    client_close(c);
    free(c->buf);
    free(c->text);
    reply_free(c->reply);
    free(c);
}

static int open_socket(int port, int receive_buffer)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                               .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;

    if (fd < 0) {
        return -1;
    }
    if (receive_buffer > 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
    }
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

static int open_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || strlen(path) >= sizeof(addr.sun_path)) {
        abort();
    }
    strcpy(addr.sun_path, path);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static struct client *client_of(int fd)
{
    if (fd < 0) {
        return NULL;
    }
    struct client *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        abort();
    }
    c->fd = fd;
    c->timeout_ms = CLIENT_TIMEOUT_MS;
    cleanup_add(end_client, c);
    return c;
}

static struct client *try_connect(int port, int receive_buffer)
{
    return client_of(open_socket(port, receive_buffer));
}

struct client *client_try(int port)
{
    return try_connect(port, 0);
}

struct client *client_try_unix(const char *path)
{
    return client_of(open_unix(path));
}

struct client *client_connect_small(int port, int receive_buffer)
{
    struct client *c = try_connect(port, receive_buffer);

    cr_assert(c != NULL, "cannot connect to port %d: %s", port, strerror(errno));
    return c;
}

struct client *client_connect(int port)
{
    return client_connect_small(port, 0);
}

struct client *client_connect_as(int port, int version)
{
    struct client *c = client_connect(port);

    if (version == 3) {
        expect(c, "%[$server ...", "HELLO 3");
    }
    return c;
}

void client_close(struct client *c)
{
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
}

void client_reset(struct client *c)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};

    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    client_close(c);
}

void client_shutdown(struct client *c)
{
    shutdown(c->fd, SHUT_WR);
}

void client_set_timeout(struct client *c, int64_t ms)
{
    c->timeout_ms = ms;
}

int client_fd(const struct client *c)
{
    return c->fd;
}

static bool wait_for(int fd, short events, int64_t deadline)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int64_t left = deadline - now_ms();
        int n = poll(&p, 1, left > 0 ? (int)left : 0);
        if (n > 0) {
            return true;
        }
        if (n == 0 || errno != EINTR) {
            return false;
        }
    }
}

/* ---- Sending -------------------------------------------------------------------------------- */

size_t client_send_some(struct client *c, const void *bytes, size_t n, int64_t ms)
{
    const char *p = bytes;
    size_t sent = 0;
    int64_t deadline = now_ms() + ms;

    while (sent < n && c->fd >= 0) {
        ssize_t got = send(c->fd, p + sent, n - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (got > 0) {
            sent += (size_t)got;
        } else if (errno == EAGAIN || errno == EINTR) {
            if (!wait_for(c->fd, POLLOUT, deadline)) {
                break;
            }
        } else {
            break;
        }
    }
    return sent;
}

bool client_send(struct client *c, const void *bytes, size_t n)
{
    return client_send_some(c, bytes, n, c->timeout_ms) == n;
}

bool client_send_text(struct client *c, const char *bytes)
{
    return client_send(c, bytes, strlen(bytes));
}

static int hex_digit(char ch)
{
    const char *digits = "0123456789abcdef";
    const char *found = ch != '\0' ? strchr(digits, ch) : NULL;

    return found != NULL ? (int)(found - digits) : -1;
}

/* One character of a double-quoted word; *pp stands on it and is moved behind it. */
static char unescape(const char **pp)
{
    const char *p = *pp;

    if (*p != '\\' || p[1] == '\0') {
        *pp = p + 1;
        return *p;
    }
    if (p[1] == 'x' && hex_digit(p[2]) >= 0 && hex_digit(p[3]) >= 0) {
        *pp = p + 4;
        return (char)(hex_digit(p[2]) * 16 + hex_digit(p[3]));
    }
    *pp = p + 2;
    return p[1] == 'r' ? '\r' : p[1] == 'n' ? '\n' : p[1];
}

/* The next word of a line into word (as long as the line); false at the end. */
static bool next_word(const char **pp, char *word, size_t *n)
{
    const char *p = *pp;

    *n = 0;
    while (*p == ' ') {
        p++;
    }
    if (*p == '\0') {
        return false;
    }
    char quote = *p == '\'' || *p == '"' ? *p++ : ' ';
    while (*p != '\0' && *p != quote) {
        if (quote == '"') {
            word[(*n)++] = unescape(&p);
        } else {
            word[(*n)++] = *p++;
        }
    }
    *pp = *p == '\0' ? p : p + 1;
    return true;
}

/* The words of a line as bulk strings; returns how many. */
static size_t write_words(FILE *out, const char *line)
{
    char *word = malloc(strlen(line) + 1);
    size_t words = 0;
    size_t n;

    if (word == NULL) {
        abort();
    }
    while (next_word(&line, word, &n)) {
        fprintf(out, "$%zu\r\n", n);
        fwrite(word, 1, n, out);
        fputs("\r\n", out);
        words++;
    }
    free(word);
    return words;
}

/* The command of a line plus, if last is not NULL, one more argument of which only the header is
 * written. */
static char *command_head(const char *line, const void *last, size_t last_n, size_t *n)
{
    char *body = NULL;
    char *all = NULL;
    size_t body_n = 0;
    FILE *words = open_memstream(&body, &body_n);
    FILE *out = open_memstream(&all, n);

    if (words == NULL || out == NULL) {
        abort();
    }
    size_t count = write_words(words, line);
    fclose(words);
    fprintf(out, "*%zu\r\n", count + (last != NULL ? 1 : 0));
    fwrite(body, 1, body_n, out);
    if (last != NULL) {
        fprintf(out, "$%zu\r\n", last_n);
    }
    fclose(out);
    free(body);
    return all;
}

char *command_bytes(const char *line, size_t *n)
{
    return command_head(line, NULL, 0, n);
}

bool client_command_big(struct client *c, const char *line, const void *last, size_t last_n)
{
    size_t n;
    char *head = command_head(line, last, last_n, &n);
    bool ok = client_send(c, head, n) && client_send(c, last, last_n) && client_send(c, "\r\n", 2);

    free(head);
    return ok;
}

static bool send_line(struct client *c, const char *fmt, va_list ap)
{
    char *line = NULL;
    size_t n;

    if (vasprintf(&line, fmt, ap) < 0) {
        abort();
    }
    char *bytes = command_bytes(line, &n);
    bool ok = client_send(c, bytes, n);
    free(bytes);
    free(line);
    return ok;
}

bool client_command(struct client *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    bool ok = send_line(c, fmt, ap);
    va_end(ap);
    return ok;
}

/* ---- Receiving ------------------------------------------------------------------------------ */

static bool reserve(struct client *c, size_t room)
{
    if (c->cap - c->end >= room) {
        return true;
    }
    size_t cap = c->cap * 2 > c->end + room ? c->cap * 2 : c->end + room;
    char *buf = realloc(c->buf, cap);
    if (buf == NULL) {
        return false;
    }
    c->buf = buf;
    c->cap = cap;
    return true;
}

/* Receives some more, waiting for it until the deadline. */
static bool receive(struct client *c, size_t room, int *why)
{
    *why = REPLY_TIMEOUT;
    if (!reserve(c, room)) {
        return false;
    }
    while (c->fd >= 0) {
        ssize_t got = recv(c->fd, c->buf + c->end, c->cap - c->end, MSG_DONTWAIT);
        if (got > 0) {
            c->end += (size_t)got;
            return true;
        }
        if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
            break;
        }
        if (!wait_for(c->fd, POLLIN, c->deadline)) {
            return false;
        }
    }
    *why = c->at > c->start || c->end > c->at ? REPLY_CUT : REPLY_CLOSED;
    return false;
}

static const char *take_line(void *ctx, size_t *n, int *why)
{
    struct client *c = ctx;
    size_t seen = c->at;

    for (;;) {
        char *lf = c->end > seen ? memchr(c->buf + seen, '\n', c->end - seen) : NULL;
        if (lf != NULL) {
            char *line = c->buf + c->at;
            *n = (size_t)(lf - line);
            c->at += *n + 1;
            if (*n > 0 && lf[-1] == '\r') {
                *n -= 1;
            }
            return line;
        }
        seen = c->end;
        if (seen - c->at > LINE_MAX_BYTES) {
            *why = REPLY_GARBAGE;
            return NULL;
        }
        if (!receive(c, 65536, why)) {
            return NULL;
        }
    }
}

static const char *take_bytes(void *ctx, size_t n, int *why)
{
    struct client *c = ctx;

    while (c->end - c->at < n) {
        if (!receive(c, n - (c->end - c->at), why)) {
            return NULL;
        }
    }
    c->at += n;
    return c->buf + c->at - n;
}

/* Forgets what was read last and gets ready to read. */
static void begin_read(struct client *c)
{
    reply_free(c->reply);
    c->reply = NULL;
    free(c->text);
    c->text = NULL;
    if (c->at > 0 && c->end == c->at) {
        c->end = 0;
        c->at = 0;
    } else if (c->at > c->cap / 2) {
        memmove(c->buf, c->buf + c->at, c->end - c->at);
        c->end -= c->at;
        c->at = 0;
    }
    c->start = c->at;
    c->deadline = now_ms() + c->timeout_ms;
}

const struct reply *client_reply(struct client *c)
{
    struct reply_source source = {take_line, take_bytes, c};

    begin_read(c);
    c->reply = reply_read(&source);
    return c->reply;
}

const char *client_read(struct client *c)
{
    c->text = reply_show(client_reply(c));
    return c->text;
}

const char *client_raw(const struct client *c, size_t *n)
{
    *n = c->at - c->start;
    return c->buf + c->start;
}

size_t client_read_bytes(struct client *c, char *buf, size_t n)
{
    int why;

    begin_read(c);
    while (c->end - c->at < n && receive(c, 65536, &why)) {
        /* more */
    }
    size_t got = c->end - c->at < n ? c->end - c->at : n;
    if (got > 0) {
        memcpy(buf, c->buf + c->at, got);
    }
    c->at += got;
    return got;
}

const char *client_read_until(struct client *c, const char *marker, size_t *n)
{
    size_t len = strlen(marker);
    int why;

    begin_read(c);
    do {
        *n = c->end - c->start;
        if (*n >= len && memcmp(c->buf + c->end - len, marker, len) == 0) {
            break;
        }
    } while (receive(c, 65536, &why));
    *n = c->end - c->start;
    c->at = c->end;
    return *n > 0 ? c->buf + c->start : "";
}

bool client_readable(struct client *c, int64_t ms)
{
    return c->end > c->at || wait_for(c->fd, POLLIN, now_ms() + ms);
}

bool client_drain_to_end(struct client *c)
{
    int why;

    begin_read(c);
    for (;;) {
        c->at = c->end = c->start = 0;
        if (!receive(c, 1024 * 1024, &why)) {
            return why == REPLY_CLOSED;
        }
    }
}

/* ---- Asking --------------------------------------------------------------------------------- */

static const char *ask_line(struct client *c, const char *fmt, va_list ap)
{
    /* a peer that has closed may have said why: read whether or not everything was sent */
    (void)send_line(c, fmt, ap);
    return client_read(c);
}

const char *ask(struct client *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    const char *text = ask_line(c, fmt, ap);
    va_end(ap);
    return text;
}

int client_redirected(const struct reply *reply, bool *asks)
{
    *asks = reply->type == '-' && strncmp(reply->text, "ASK ", 4) == 0;
    bool moved = reply->type == '-' && strncmp(reply->text, "MOVED ", 6) == 0;
    const char *colon = moved || *asks ? strrchr(reply->text, ':') : NULL;
    return colon == NULL ? 0 : (int)strtol(colon + 1, NULL, 10);
}

bool matches(const char *got, const char *want)
{
    size_t n = strlen(want);

    if (n >= 3 && strcmp(want + n - 3, "...") == 0) {
        return strncmp(got, want, n - 3) == 0;
    }
    return strcmp(got, want) == 0;
}

void expect_at(const char *file, int line, struct client *c, const char *want, const char *fmt, ...)
{
    va_list ap;
    va_list again;

    va_start(ap, fmt);
    va_copy(again, ap);
    const char *got = ask_line(c, fmt, ap);
    if (!matches(got, want)) {
        char *command = NULL;
        if (vasprintf(&command, fmt, again) < 0) {
            abort();
        }
        cr_assert_fail("%s:%d: %.200s: expected '%s', got '%.300s'", file, line, command, want,
                       got);
    }
    va_end(again);
    va_end(ap);
}

void expect_next_at(const char *file, int line, struct client *c, const char *want)
{
    const char *got = client_read(c);

    if (!matches(got, want)) {
        cr_assert_fail("%s:%d: expected '%s' next, got '%.300s'", file, line, want, got);
    }
}

void await_reply_at(const char *file, int line, struct client *c, const char *want, int64_t ms,
                    const char *fmt, ...)
{
    int64_t deadline = now_ms() + ms;
    va_list ap;

    for (;;) {
        va_start(ap, fmt);
        const char *got = ask_line(c, fmt, ap);
        va_end(ap);
        if (matches(got, want)) {
            return;
        }
        if (now_ms() >= deadline) {
            cr_assert_fail("%s:%d: waited %lld ms for '%s' from %s, last got '%.300s'", file, line,
                           (long long)ms, want, fmt, got);
        }
        pass_time(2);
    }
}

char *command_repeated(const char *line, size_t times, size_t *size)
{
    size_t n;
    char *one = command_bytes(line, &n);
    char *all = cleanup_alloc(n * times);

    for (size_t i = 0; i < times; i++) {
        memcpy(all + i * n, one, n);
    }
    free(one);
    *size = n * times;
    return all;
}

bool client_send_lines(struct client *c, const char *const *lines)
{
    char *all = cleanup_alloc(1);
    size_t at = 0;

    for (; *lines != NULL; lines++) {
        size_t size;
        char *bytes = command_bytes(*lines, &size);
        char *longer = cleanup_alloc(at + size);
        memcpy(longer, all, at);
        memcpy(longer + at, bytes, size);
        free(bytes);
        all = longer;
        at += size;
    }
    return client_send(c, all, at);
}

void store_value(struct client *c, const char *key, size_t size)
{
    char *value = cleanup_alloc(size);

    memset(value, 'v', size);
    cr_assert(client_command_big(c, cleanup_printf("SET %s", key), value, size));
    expect_next(c, "+OK");
}
