/* SPDX-License-Identifier: Apache-2.0
 *
 * client_input.c: from a client's socket to dispatch.
 *
 * Input is read into the worker's buffer and served from there; only what is left over is kept, in a
 * blob of the client's own, so that idle clients hold none. A short rest is moved in front of the next
 * read; a large request grows the blob as its bytes arrive (never on the word of its length alone) and
 * is then handed on by reference.
 *
 * A client that may not go on (window full, order, lane full) is `stalled`: its rest is not looked at
 * until something was answered (client_run), nor is its socket read, unless it waits for a blocked command. So is one that produced much
 * output in one go, until most of that has been written, or until the next tick: one that reads nothing
 * before it has sent everything must get on too. After REQUEST_SHARE requests others get their turn.
 */
#include "client.h"

#include "batch.h"
#include "dispatch.h"
#include "login.h"
#include "replication.h"

#include "../conf/mem.h"

#include <errno.h>
#include <sys/socket.h>

/* Room a read into a client's own blob should find at least. */
#define READ_ROOM ((size_t)16 * 1024)
/* Up to this much unserved input is moved into the worker's buffer before reading on. */
#define SHORT_REST ((size_t)16 * 1024)
/* A request above this that has to wait is parsed again only when nothing is unanswered. */
#define LARGE_REQUEST ((size_t)64 * 1024)
/* Output produced in one go. Then others get their turn, and the client some time to take it. */
#define OUTPUT_SHARE ((size_t)2 * 1024 * 1024)

/* Requests served in one go. */
#define REQUEST_SHARE 512u

/* What a client that has not authenticated may send, as in Redis: so much memory it gets, no more. */
#define UNKNOWN_ARGS ((int64_t)10)
#define UNKNOWN_BULK ((int64_t)16 * 1024)

/* Redis's text when it would refuse what was scanned of the request so far; otherwise NULL. */
static const char *unfinished_fault(const struct parser *p)
{
    if (p->args > UNKNOWN_ARGS && p->args_left >= 0) {
        return "Protocol error: unauthenticated multibulk length";
    }
    return p->bulk_left > UNKNOWN_BULK ? "Protocol error: unauthenticated bulk length" : NULL;
}

static const char *request_fault(const struct request_view *view)
{
    struct arg_walk walk;
    struct slice word;
    if (view->inline_blob != NULL) {
        return NULL; /* bounded otherwise */
    }
    if (view->argc > UNKNOWN_ARGS) {
        return "Protocol error: unauthenticated multibulk length";
    }
    arg_walk_init(&walk, view);
    while (arg_walk_next(&walk, &word)) {
        if ((int64_t)word.n > UNKNOWN_BULK) {
            return "Protocol error: unauthenticated bulk length";
        }
    }
    return NULL;
}

static void refuse_protocol(struct client *c, const char *why)
{
    COUNT(c->worker, protocol_errors, 1);
    client_log(c, LOG_INFO, "closed: what it sent is no request: %s", why);
    client_reply_error(c, "ERR %s", why);
    client_end(c);
}

/* The usual GET is told without the parser, and needs nothing that dispatch_request looks at. */
static inline bool is_usual_get(const struct client *c, const struct parser *parser,
                                struct slice in, struct request_view *view)
{
    const struct server *server = c->worker->server;
    if (!server->caching || server->is_cluster || !dispatch_is_plain(c) || c->nblocked > 0 ||
        !parser_is_idle(parser)) {
        return false;
    }
    view->size = parse_get(in, &view->argv[1]);
    if (view->size == 0) {
        return false;
    }
    view->raw = slice_of(in.p, view->size);
    view->argc = view->nargv = 2;
    view->argv[0] = slice_of(in.p + 8, 3);
    view->inline_blob = NULL;
    return true;
}

/* At how many usual GETs behind this one, of so many bytes, L1 has begun to look. */
static inline unsigned looked_ahead(const struct client *c, struct slice rest, size_t size,
                                    unsigned ahead)
{
    if (ahead == 0 && size < rest.n) {
        ahead = dispatch_look_ahead(c, rest);
    }
    return ahead - (ahead > 0);
}

/* Requests at the start of the input that are served together; returns how many bytes they took. 0: there are none;
 * view->size is not 0 if the first is in *view, and *usual says whether it is a usual GET. */
static inline size_t serve_several(struct client *c, const struct parser *parser, struct slice in,
                                   struct blob *owner, unsigned *share, struct request_view *view,
                                   bool *usual)
{
    bool whole = parser_is_idle(parser);
    size_t used = 0;
    view->size = 0;
    if (whole && parse_may_be_get(in) && dispatch_may_hit(c)) {
        used = dispatch_hits(c, in, owner, share);
    }
    if (used == 0) {
        *usual = is_usual_get(c, parser, in, view);
    }
    if (used == 0 && !*usual && whole && c->state == CLIENT_OPEN) {
        used = batch_dispatch(c, in, owner, share, view);
    }
    return used;
}

/* Serves the requests at the start of `in` and returns how many bytes they took. */
static size_t serve_requests(struct client *c, struct parser *parser, struct slice in,
                             struct blob *owner)
{
    size_t used = 0;
    size_t before = c->out.bytes;
    unsigned share = REQUEST_SHARE;
    unsigned ahead = 0; /* see looked_ahead */
    c->stalled = c->stalled_large = c->stalled_output = c->shared = false;
    while (used < in.n && c->state == CLIENT_OPEN) {
        if (c->queued >= c->worker->server->conf->proxy_window) {
            c->stalled = true;
            break;
        }
        if (c->out.bytes > before + OUTPUT_SHARE) {
            c->stalled = c->stalled_output = true;
            c->worker->output_stalled = true;
            client_mark_dirty(c);
            break;
        }
        if (share == 0) {
            c->stalled = c->shared = true;
            COUNT(c->worker, turns_shared, 1);
            client_mark_later(c);
            break;
        }
        struct slice rest = slice_of(in.p + used, in.n - used);
        struct request_view view;
        bool usual = false;
        size_t several = serve_several(c, parser, rest, owner, &share, &view, &usual);
        if (several > 0 || c->state != CLIENT_OPEN) { /* it may have been closed over a limit */
            used += several;
            continue;
        }
        share--;
        ahead = usual ? looked_ahead(c, rest, view.size, ahead) : 0;
        const char *fault = NULL;
        switch (view.size > 0 ? PARSE_OK : parse_request(parser, rest, &view)) {
        case PARSE_OK:
            fault = login_is_stranger(c) ? request_fault(&view) : NULL;
            if (fault != NULL) {
                refuse_protocol(c, fault);
                return in.n;
            }
            if ((usual ? dispatch_get(c, &view, owner)
                       : dispatch_request(c, &view,
                                          view.inline_blob == NULL ? owner : view.inline_blob)) ==
                DISPATCH_STALL) {
                blob_unref(view.inline_blob);
                c->stalled = true;
                c->stalled_large = view.raw.n > LARGE_REQUEST && c->pending > 0;
                COUNT(c->worker, order_stalls, 1);
                return used;
            }
            blob_unref(view.inline_blob);
            COUNT(c->worker, commands_processed, !c->is_part);
            used += view.size;
            break;
        case PARSE_NOTHING:
            used += view.size;
            break;
        case PARSE_MORE:
            fault = login_is_stranger(c) ? unfinished_fault(parser) : NULL;
            if (fault != NULL) {
                refuse_protocol(c, fault);
                return in.n;
            }
            return used;
        case PARSE_ERROR:
            refuse_protocol(c, parser->error);
            return in.n;
        case PARSE_NO_MEMORY:
            client_close(c);
            return in.n;
        }
    }
    return used;
}

/* The state of a request that has begun becomes the client's own; between requests it has none. */
static void keep_parser(struct client *c)
{
    struct parser *shared = &c->worker->parser;
    if (c->parser != NULL && parser_is_idle(c->parser)) {
        mem_free(c->parser);
        c->parser = NULL;
    } else if (c->parser == NULL && !parser_is_idle(shared)) {
        c->parser = mem_try(sizeof(*c->parser));
        if (c->parser != NULL) {
            *c->parser = *shared;
        } else {
            client_close(c);
        }
        parser_init(shared);
    }
}

static size_t run_requests(struct client *c, struct slice in, struct blob *owner)
{
    if (unlikely(c->replicates)) {
        c->stalled = false;
        replication_send(c, in);
        return in.n;
    }
    struct parser *parser = c->parser != NULL ? c->parser : &c->worker->parser;
    size_t used = serve_requests(c, parser, in, owner);
    keep_parser(c);
    return used;
}

static void drop_input(struct client *c)
{
    blob_unref(c->in);
    c->in = NULL;
    c->in_at = c->in_n = 0;
}

/* Moves the unserved rest (in the worker's buffer or in c->in) to the start of a blob of the client's
 * own with room for `capacity` bytes. False: memory is out and the client closed. */
static bool move_input(struct client *c, struct slice rest, size_t capacity)
{
    struct blob *in = blob_try(capacity);
    if (in == NULL) {
        client_close(c);
        return false;
    }
    memcpy(in->p, rest.p, rest.n);
    blob_unref(c->in);
    c->in = in;
    c->in_at = 0;
    c->in_n = rest.n;
    return true;
}

static bool is_shared(const struct blob *blob)
{
    return atomic_load_explicit(&blob->refs, memory_order_acquire) > 1;
}

/* Keeps the rest of what was served from the worker's buffer. Short rests get a snug blob: many
 * clients may each be in the middle of a request. */
static void keep_input(struct client *c, struct slice rest)
{
    if (rest.n == 0) {
        drop_input(c);
        return;
    }
    bool fits = c->in != NULL && c->in->n >= rest.n && c->in->n / 4 <= rest.n && !is_shared(c->in);
    if (!fits) {
        move_input(c, rest, rest.n <= SHORT_REST ? rest.n : rest.n + READ_ROOM);
        return;
    }
    memcpy(c->in->p, rest.p, rest.n);
    c->in_at = 0;
    c->in_n = rest.n;
}

/* Makes room to read a long rest on where it lies. It grows with what has arrived, by doubling, up to
 * what the request is known to need: a peer that only announces a large argument costs nothing. */
static bool make_room(struct client *c)
{
    size_t limit = c->worker->server->conf->proxy_max_query;
    if (c->in_n >= limit) {
        client_expel(c, &c->worker->counters.clients_closed_query,
                     "closed: its request is over proxy.max_query (%zu bytes)", limit);
        return false;
    }
    size_t wanted = c->parser == NULL ? 0 : parse_wanted(c->parser);
    size_t capacity = c->in->n - c->in_at;
    if (capacity - c->in_n >= READ_ROOM || (capacity > c->in_n && capacity >= wanted)) {
        return true;
    }
    size_t target = 2 * c->in_n;
    if (wanted > c->in_n && wanted < target) {
        target = wanted + READ_ROOM;
    }
    if (target < c->in_n + READ_ROOM) {
        target = c->in_n + READ_ROOM;
    }
    return move_input(c, slice_of(c->in->p + c->in_at, c->in_n), target);
}

/* Serves what lies in c->in. A rest stays where it is unless most of the blob is behind it, or the
 * blob has been handed on with a request. */
static void serve_own_input(struct client *c)
{
    struct blob *in = blob_ref(c->in);
    size_t used = run_requests(c, slice_of(in->p + c->in_at, c->in_n), in);
    blob_unref(in);
    if (c->state == CLIENT_CLOSED || used == 0) {
        return;
    }
    c->in_at += used;
    c->in_n -= used;
    if (c->in_n == 0) {
        drop_input(c);
    } else if (is_shared(c->in) || c->in_n <= SHORT_REST || c->in_at > c->in_n) {
        move_input(c, slice_of(c->in->p + c->in_at, c->in_n),
                   c->in_n <= SHORT_REST ? c->in_n : c->in_n + READ_ROOM);
    }
}

/* After input was served: read on, or wait? */
static void settle_reading(struct client *c)
{
    if (c->state == CLIENT_CLOSED) {
        return;
    }
    if (c->is_part) {
        client_charge(c);
        return;
    }
    client_set_reading(c, c->state == CLIENT_OPEN && (!c->stalled || c->nblocked > 0));
    if (!c->is_dirty) { /* otherwise it is charged when it is written to, in this turn */
        client_charge(c);
    }
}

/* Reads once: a long rest is read on where it lies, a short one is moved in front of what comes. */
static ssize_t read_some(struct client *c)
{
    if (c->in == NULL) {
        return recv(c->io.fd, c->worker->read_buffer, WORKER_READ_SIZE, 0);
    }
    char *rest = c->in->p + c->in_at;
    if (c->in_n > SHORT_REST) {
        return recv(c->io.fd, rest + c->in_n, c->in->n - c->in_at - c->in_n, 0);
    }
    memcpy(c->worker->read_buffer, rest, c->in_n);
    return recv(c->io.fd, c->worker->read_buffer + c->in_n, WORKER_READ_SIZE - c->in_n, 0);
}

static void serve_input(struct client *c, size_t n)
{
    if (c->in_n > SHORT_REST) {
        c->in_n += n;
        serve_own_input(c);
        return;
    }
    struct slice in = slice_of(c->worker->read_buffer, c->in_n + n);
    size_t used = run_requests(c, in, NULL);
    if (c->state != CLIENT_CLOSED) {
        keep_input(c, slice_of(in.p + used, in.n - used));
    }
}

/* What waits behind a blocked command is read all the same, as Redis does: the end of the client may
 * stand behind it, and what it is blocked on may never come. */
static void read_ahead(struct client *c)
{
    if (c->in == NULL && !move_input(c, slice_of("", 0), READ_ROOM)) {
        return;
    }
    if (!make_room(c)) {
        return;
    }
    ssize_t n = recv(c->io.fd, c->in->p + c->in_at + c->in_n, c->in->n - c->in_at - c->in_n, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        client_close(c);
        return;
    }
    c->in_n += (size_t)n;
    c->heard = worker_read_clock(c->worker);
    client_charge(c);
}

void client_read(struct client *c)
{
    if (c->stalled) {
        read_ahead(c);
        return;
    }
    if (c->in_n > SHORT_REST && !make_room(c)) {
        return;
    }
    ssize_t n = read_some(c);
    worker_read_clock(c->worker);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n < 0) {
        client_close(c);
        return;
    }
    if (n == 0) {
        if (c->nblocked > 0) {
            client_close(c); /* it may be blocked for ever: Redis, too, forgets it at once */
            return;
        }
        client_end(c); /* it may still read: what it asked for is delivered first */
        return;
    }
    c->heard = c->worker->now;
    serve_input(c, (size_t)n);
    settle_reading(c);
}

void client_run(struct client *c)
{
    if (c->state != CLIENT_OPEN || !c->stalled) {
        return;
    }
    if (c->in != NULL) {
        serve_own_input(c);
    } else {
        c->stalled = false;
    }
    settle_reading(c);
}
