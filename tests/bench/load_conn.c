/* SPDX-License-Identifier: Apache-2.0
 *
 * load_conn.c: requests go out through one shared buffer, and what the socket does not take is copied
 * to the connection. Replies are read into another and taken apart where they lie; a value may come
 * in any number of pieces, and is checked as it comes.
 *
 *     feed ─┬─ feed_line ─ on_line ─┬─ a bulk begins ─┐
 *           │                       └─ on_element ────┼─► on_reply
 *           └─ feed_bulk ─────────────────────────────┘
 */
#include "load_conn.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define INPUT_SIZE ((size_t)256 * 1024)
#define LINE_MAX   128 /* what is kept of a line that comes in pieces */
#define HEAD_ROOM  64  /* the longest "*3\r\n$3\r\nSET\r\n$16\r\n" */
#define WORD_ROOM  32  /* "$512000000\r\n" and "\r\n" around a word */
#define COMPLAINTS 3

enum kind { KIND_GET, KIND_SET, KIND_COMMAND };

struct request {
    uint64_t key;
    uint64_t since_ns;
    enum kind kind;
};

struct conn {
    struct load *load;
    int fd;
    bool wants_out;            /* EPOLLOUT is registered */
    unsigned first, in_flight; /* of the ring of requests: the oldest one, and how many */
    char *unsent;
    size_t unsent_at, unsent_end, unsent_room;
    /* the reply that is being read */
    uint64_t elements; /* still to come of it; 0: it has not begun */
    char type;         /* its first byte */
    uint64_t bulk_left;
    char line[LINE_MAX];
    size_t line_len;
    struct check check;
    struct request requests[];
};

uint64_t load_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void load_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void *need(void *memory)
{
    if (memory == NULL) {
        load_fail("out of memory");
    }
    return memory;
}

/* ---- What is shared ------------------------------------------------------------------------- */

static void split_command(struct load *load)
{
    load->command = need(strdup(load->options->command));
    char *rest = NULL;
    for (char *w = strtok_r(load->command, " ", &rest); w != NULL; w = strtok_r(NULL, " ", &rest)) {
        if (load->word_count == COMMAND_WORDS) {
            load_fail("--command takes at most %d words", COMMAND_WORDS);
        }
        load->words[load->word_count++] = w;
    }
    if (load->word_count == 0) {
        load_fail("--command is empty");
    }
}

/* The longest request there can be. */
static size_t request_room(const struct load *load)
{
    size_t room = HEAD_ROOM + KEY_LEN + WORD_ROOM + load->data.value_size;
    for (unsigned i = 0; i < load->word_count; i++) {
        room += WORD_ROOM + KEY_LEN + load->data.value_size + strlen(load->words[i]);
    }
    return room;
}

void load_init(struct load *load, const struct load_options *options)
{
    *load = (struct load){.options = options, .version = 1};
    data_init(&load->data, options);
    if (options->command != NULL) {
        split_command(load);
    }
    load->bulk_head_len =
        (size_t)snprintf(load->bulk_head, sizeof(load->bulk_head), "$%zu\r\n", options->value_size);
    load->input = need(malloc(INPUT_SIZE));
    load->output = need(malloc(options->pipeline * request_room(load)));
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (load->epoll < 0) {
        load_fail("epoll_create1: %s", strerror(errno));
    }
}

void load_fini(struct load *load)
{
    close(load->epoll);
    free(load->command);
    free(load->input);
    free(load->output);
    data_fini(&load->data);
}

/* ---- Connecting ----------------------------------------------------------------------------- */

static int connect_unix(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(to.sun_path)) {
        load_fail("the path of a Unix socket has at most %zu bytes: %s", sizeof(to.sun_path) - 1,
                  path);
    }
    memcpy(to.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        load_fail("cannot connect to %s: %s", path, strerror(errno));
    }
    return fd;
}

static int connect_tcp(const char *server)
{
    const char *colon = strrchr(server, ':');
    if (colon == NULL || colon == server || colon[1] == '\0') {
        load_fail("a server is HOST:PORT or unix:/PATH, not '%s'", server);
    }
    char host[256];
    snprintf(host, sizeof(host), "%.*s", (int)(colon - server), server);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *to = NULL;
    int bad = getaddrinfo(host, colon + 1, &hints, &to);
    if (bad != 0) {
        load_fail("%s: %s", server, gai_strerror(bad));
    }
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    if (fd < 0 || connect(fd, to->ai_addr, to->ai_addrlen) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) {
        load_fail("cannot connect to %s: %s", server, strerror(errno));
    }
    freeaddrinfo(to);
    return fd;
}

struct conn *conn_open(struct load *load)
{
    const struct load_options *o = load->options;
    struct conn *c = need(calloc(1, sizeof(*c) + o->pipeline * sizeof(c->requests[0])));
    bool local = strncmp(o->server, "unix:", 5) == 0;
    c->load = load;
    c->fd = local ? connect_unix(o->server + 5) : connect_tcp(o->server);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0 ||
        epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &e) != 0) {
        load_fail("%s", strerror(errno));
    }
    return c;
}

void conn_close(struct conn *c)
{
    close(c->fd);
    free(c->unsent);
    free(c);
}

/* ---- Sending -------------------------------------------------------------------------------- */

static char *put(char *to, const char *text, size_t n)
{
    memcpy(to, text, n);
    return to + n;
}

static char *put_command(struct load *load, char *to, uint64_t key)
{
    to += sprintf(to, "*%u\r\n", load->word_count);
    for (unsigned i = 0; i < load->word_count; i++) {
        const char *word = load->words[i];
        if (strcmp(word, "{key}") == 0) {
            to = data_put_key(put(to, "$16\r\n", 5), key);
        } else if (strcmp(word, "{value}") == 0) {
            to = put(to, load->bulk_head, load->bulk_head_len);
            to = data_put_value(&load->data, to, key, load->version++);
        } else {
            to += sprintf(to, "$%zu\r\n%s", strlen(word), word);
        }
        to = put(to, "\r\n", 2);
    }
    return to;
}

static char *put_request(struct load *load, char *to, const struct request *r)
{
    static const char get[] = "*2\r\n$3\r\nGET\r\n$16\r\n";
    static const char set[] = "*3\r\n$3\r\nSET\r\n$16\r\n";
    switch (r->kind) {
    case KIND_GET:
        to = data_put_key(put(to, get, sizeof(get) - 1), r->key);
        return put(to, "\r\n", 2);
    case KIND_SET:
        to = data_put_key(put(to, set, sizeof(set) - 1), r->key);
        to = put(put(to, "\r\n", 2), load->bulk_head, load->bulk_head_len);
        to = data_put_value(&load->data, to, r->key, load->version++);
        return put(to, "\r\n", 2);
    case KIND_COMMAND:
    default:
        return put_command(load, to, r->key);
    }
}

static enum kind next_kind(struct load *load)
{
    if (load->word_count > 0) {
        return KIND_COMMAND;
    }
    unsigned gets = load->options->gets;
    if (gets == 0 || gets == 100) {
        return gets == 0 ? KIND_SET : KIND_GET;
    }
    return data_below(&load->data, 100) < gets ? KIND_GET : KIND_SET;
}

static void want_out(struct conn *c, bool wanted)
{
    if (c->wants_out == wanted) {
        return;
    }
    struct epoll_event e = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0U), .data.ptr = c};
    if (epoll_ctl(c->load->epoll, EPOLL_CTL_MOD, c->fd, &e) != 0) {
        load_fail("epoll_ctl: %s", strerror(errno));
    }
    c->wants_out = wanted;
}

static size_t write_some(struct conn *c, const char *bytes, size_t n)
{
    ssize_t written = send(c->fd, bytes, n, MSG_NOSIGNAL);
    if (written < 0 && errno != EAGAIN && errno != EINTR) {
        load_fail("writing to %s: %s", c->load->options->server, strerror(errno));
    }
    return written < 0 ? 0 : (size_t)written;
}

static void keep_unsent(struct conn *c, const char *bytes, size_t n)
{
    size_t before = c->unsent_end - c->unsent_at;
    if (before + n > c->unsent_room) {
        char *room = need(malloc(before + n));
        if (before > 0) {
            memcpy(room, c->unsent + c->unsent_at, before);
        }
        free(c->unsent);
        c->unsent = room;
        c->unsent_room = before + n;
    } else if (before > 0) {
        memmove(c->unsent, c->unsent + c->unsent_at, before);
    }
    memcpy(c->unsent + before, bytes, n);
    c->unsent_at = 0;
    c->unsent_end = before + n;
    want_out(c, true);
}

static void send_unsent(struct conn *c)
{
    c->unsent_at += write_some(c, c->unsent + c->unsent_at, c->unsent_end - c->unsent_at);
    if (c->unsent_at == c->unsent_end) {
        want_out(c, false);
    }
}

void conn_send(struct conn *c, unsigned n, uint64_t since_ns)
{
    struct load *load = c->load;
    unsigned places = load->options->pipeline;
    char *end = load->output;
    for (unsigned i = 0; i < n; i++) {
        struct request *r = &c->requests[(c->first + c->in_flight++) % places];
        r->kind = next_kind(load);
        r->key = data_next_key(&load->data);
        r->since_ns = since_ns;
        end = put_request(load, end, r);
    }
    size_t bytes = (size_t)(end - load->output);
    size_t written = c->wants_out ? 0 : write_some(c, load->output, bytes);
    if (written < bytes) {
        keep_unsent(c, load->output + written, bytes - written);
    }
}

unsigned conn_in_flight(const struct conn *c)
{
    return c->in_flight;
}

/* ---- Replies -------------------------------------------------------------------------------- */

static void on_reply(struct conn *c)
{
    struct tally *t = &c->load->tally;
    const struct request *r = &c->requests[c->first];
    t->requests++;
    t->gets += r->kind == KIND_GET;
    t->sets += r->kind == KIND_SET;
    latency_add(&t->latency, c->load->read_ns - r->since_ns, 1);
    c->first = (c->first + 1) % c->load->options->pipeline;
    c->in_flight--;
}

static void on_element(struct conn *c)
{
    if (--c->elements == 0) {
        on_reply(c);
    }
}

/* Names the first few, counts all. */
static void complain(struct conn *c, uint64_t *count, const char *what, const char *line, size_t n)
{
    if (++*count <= COMPLAINTS) {
        char key[KEY_LEN];
        data_put_key(key, c->requests[c->first].key);
        fprintf(stderr, "load: %s, request with %.*s: %.*s\n", what, KEY_LEN, key, (int)n, line);
    }
}

/* Is it what the command returns? */
static void judge_first_line(struct conn *c, const char *line, size_t n)
{
    struct tally *t = &c->load->tally;
    enum kind kind = c->requests[c->first].kind;
    bool null = line[0] == '_' || ((line[0] == '$' || line[0] == '*') && n > 1 && line[1] == '-');
    bool expected = line[0] != '-' && line[0] != '!';
    if (kind == KIND_GET) {
        expected = line[0] == '$' || line[0] == '_';
    } else if (kind == KIND_SET) {
        expected = n >= 3 && memcmp(line, "+OK", 3) == 0;
    }
    if (!expected) {
        complain(c, &t->errors, "unexpected reply", line, n);
    } else if (null) {
        t->nulls++;
        if (c->load->options->verify) {
            complain(c, &t->wrong, "no value", line, n);
        }
    }
}

/* The number in the line, 0 if it is negative (a null). */
static uint64_t count_of(const char *line, size_t n)
{
    uint64_t count = 0;
    for (size_t i = 1; i < n && line[i] >= '0' && line[i] <= '9'; i++) {
        count = count * 10 + (uint64_t)(line[i] - '0');
    }
    return count;
}

/* A line without its end, of at most LINE_MAX bytes. */
static void on_line(struct conn *c, const char *line, size_t n)
{
    if (n == 0) {
        load_fail("an empty line from %s", c->load->options->server);
    }
    if (c->elements == 0) {
        c->elements = 1;
        c->type = line[0];
        check_begin(&c->check, c->requests[c->first].key);
        judge_first_line(c, line, n);
    }
    switch (line[0]) {
    case '$':
    case '=':
    case '!':
        if (line[1] != '-') {
            c->bulk_left = count_of(line, n) + 2;
            return;
        }
        break;
    case '*':
    case '~':
        c->elements += count_of(line, n);
        break;
    case '%':
        c->elements += 2 * count_of(line, n);
        break;
    default:
        break;
    }
    on_element(c);
}

static const char *feed_line(struct conn *c, const char *p, const char *end)
{
    const struct load *load = c->load;
    size_t head = load->bulk_head_len;
    if (c->line_len == 0 && c->elements == 0 && (size_t)(end - p) >= head &&
        memcmp(p, load->bulk_head, head) == 0) {
        on_line(c, p, head - 2);
        return p + head;
    }
    const char *newline = memchr(p, '\n', (size_t)(end - p));
    const char *stop = newline != NULL ? newline : end;
    size_t part = (size_t)(stop - p);
    if (part > LINE_MAX - c->line_len) {
        part = LINE_MAX - c->line_len;
    }
    memcpy(c->line + c->line_len, p, part);
    c->line_len += part;
    if (newline == NULL) {
        return end;
    }
    size_t n = c->line_len;
    c->line_len = 0;
    on_line(c, c->line, n > 0 && c->line[n - 1] == '\r' ? n - 1 : n);
    return newline + 1;
}

static const char *feed_bulk(struct conn *c, const char *p, const char *end)
{
    struct load *load = c->load;
    uint64_t n = (uint64_t)(end - p);
    if (n > c->bulk_left) {
        n = c->bulk_left;
    }
    bool checked = load->options->verify && c->type == '$';
    if (checked && c->bulk_left > 2) {
        uint64_t value = c->bulk_left - 2;
        check_feed(&c->check, &load->data, p, (size_t)(n < value ? n : value));
    }
    c->bulk_left -= n;
    if (c->bulk_left == 0) {
        if (checked && !check_end(&c->check, &load->data)) {
            complain(c, &load->tally.wrong, "wrong value", c->check.head,
                     c->check.seen >= HEAD_LEN ? HEAD_LEN : 0);
        }
        on_element(c);
    }
    return p + n;
}

static void feed(struct conn *c, const char *p, const char *end)
{
    while (p < end) {
        if (c->in_flight == 0) {
            load_fail("%s sent more than was asked for: %.*s", c->load->options->server,
                      (int)(end - p < 60 ? end - p : 60), p);
        }
        p = c->bulk_left > 0 ? feed_bulk(c, p, end) : feed_line(c, p, end);
    }
}

unsigned conn_on_event(struct conn *c, uint32_t events)
{
    struct load *load = c->load;
    if ((events & EPOLLOUT) != 0) {
        send_unsent(c);
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) {
        return 0;
    }
    ssize_t n = recv(c->fd, load->input, INPUT_SIZE, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (n <= 0) {
        load_fail("%s closed a connection with %u replies to come%s%s", load->options->server,
                  c->in_flight, n < 0 ? ": " : "", n < 0 ? strerror(errno) : "");
    }
    unsigned before = c->in_flight;
    load->read_ns = load_now_ns();
    feed(c, load->input, load->input + n);
    return before - c->in_flight;
}
