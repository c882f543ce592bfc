/* SPDX-License-Identifier: Apache-2.0
 *
 * client.c: life, queue and output of a client; its input is client_input.c, its deadlines are client_deadline.c.
 *
 *   client_reply_begin/_end ────────────► out, or behind what still waits, as a held request
 *   client_enqueue ─► ... ─► client_arrived, client_answered ─► release: replies leave in order ─► out
 *   end of turn: client_flush ─► send
 *
 * Replies are never held back for a slow reader: Redis does not either, and clients that write a whole
 * pipeline before reading would deadlock. They are bounded instead: output_is_over closes a client
 * whose unread replies are over proxy.max_output, client_check_deadlines one that has stopped moving.
 *
 * Everything a client holds is charged to worker->client_memory (client_charge).
 */
#include "client.h"

#include "batch.h"
#include "fanout.h"
#include "login.h"
#include "pinned.h"
#include "profile.h"
#include "../resp/write.h"

#include "../conf/log.h"
#include "../conf/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_IOV 64
/* Written to one client in one turn; the rest when the loop has looked at the others. That much takes the
 * kernel 50 us and more: little of it while others are about who ask for little, and would wait for it; though
 * small pieces cost twice as much. */
#define WRITE_SHARE        ((size_t)256 * 1024)
#define WRITE_SHARE_BESIDE ((size_t)32 * 1024)
/* What asks for little: output of so many bytes, within so many ms. */
#define LIGHT_OUTPUT ((size_t)16 * 1024)
#define LIGHT_MS     100
/* Below this, a client that had produced much output goes on. */
#define OUTPUT_RESUME ((size_t)512 * 1024)
/* Above this, the connection its messages come from is not read for a while (D15). Replies are never
 * held back: see above. */
#define OUTPUT_HOLD ((size_t)4 * 1024 * 1024)

static void on_ready(struct ev_loop *loop, struct ev_io *io, int events);

/* ---- Accounting ---------------------------------------------------------------------------- */

size_t client_memory(const struct client *c)
{
    return (c->in == NULL ? 0 : c->in->n) + c->out.memory + c->held +
           c->queued * sizeof(struct request) + c->batches * sizeof(struct batch) +
           (c->profile == NULL ? 0 : profile_memory(c)) +
           (c->parser == NULL ? 0 : sizeof(*c->parser));
}

void client_charge(struct client *c)
{
    size_t now = client_memory(c);
    if (now != c->charged) {
        counter_add(&c->worker->client_memory, (uint64_t)now - (uint64_t)c->charged);
        c->charged = now;
    }
}

void client_charge_request(struct client *c, struct request *request)
{
    size_t holds = request->reply.memory + request->extra;
    c->held += holds - request->held;
    request->held = holds;
}

/* ---- The watcher --------------------------------------------------------------------------- */

/* One for both directions: idle clients are many. */
static void watch(struct client *c)
{
    int events = (c->reads ? EV_READ : 0) | (c->wants_write ? EV_WRITE : 0);
    ev_io_stop(c->worker->loop, &c->io);
    if (events != 0) {
        ev_io_set(&c->io, c->io.fd, events);
        ev_io_start(c->worker->loop, &c->io);
    }
}

void client_set_reading(struct client *c, bool on)
{
    if (c->reads != on) {
        c->reads = on;
        watch(c);
    }
}

/* ---- Life ---------------------------------------------------------------------------------- */

static struct client *create(struct worker *worker, int fd, struct client_queue *queue)
{
    struct client *c = mem_try_zero(sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    c->worker = worker;
    c->heard = c->drained = worker->now;
    c->since = (uint32_t)(worker->now / 1000);
    chain_init(&c->out);
    ev_io_init(&c->io, on_ready, fd, EV_READ);
    c->next = queue->head;
    if (c->next != NULL) {
        c->next->prev = c;
    }
    queue->head = c;
    return c;
}

struct client *client_create(struct worker *worker, int fd)
{
    struct client *c = create(worker, fd, &worker->clients);
    if (c == NULL) {
        close(fd);
        atomic_fetch_sub_explicit(&worker->server->clients, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&worker->nclients, 1, memory_order_relaxed);
        return NULL;
    }
    c->db = worker->server->conf->upstream_db;
    c->authenticated = !worker->server->asks_password;
    c->anonymous = login_is_asked(worker->server);
    c->id = atomic_fetch_add_explicit(&worker->server->next_client_id, 1, memory_order_relaxed);
    client_set_reading(c, true);
    COUNT(worker, clients_accepted, 1);
    return c;
}

struct client *client_create_part(const struct client *of, struct fanout *fanout, uint16_t node,
                                  struct blob *in)
{
    struct client *c = create(of->worker, -1, &of->worker->parts);
    if (c == NULL) {
        return NULL;
    }
    c->is_part = true;
    c->io.data = fanout;
    c->only_node = node;
    c->db = of->db;
    c->resp3 = of->resp3;
    c->authenticated = true;
    c->id = of->id;
    if (pinned_is_own(of) && !profile_lend(of, c)) {
        client_close(c);
        return NULL;
    }
    c->in = blob_ref(in);
    c->in_n = in->n;
    c->stalled = true;
    client_mark_runnable(c);
    return c;
}

static void unlink_client(struct client *c)
{
    struct worker *worker = c->worker;
    struct client_queue *queue = c->is_part ? &worker->parts : &worker->clients;
    if (worker->sweep_at == c) {
        worker->sweep_at = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        queue->head = c->next;
    }
}

/* Its socket, and its place among those that are counted. */
static void disconnect(struct client *c)
{
    struct worker *worker = c->worker;
    ev_io_stop(worker->loop, &c->io);
    close(c->io.fd);
    c->io.fd = -1;
    atomic_fetch_sub_explicit(&worker->nclients, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&worker->server->clients, 1, memory_order_relaxed);
}

void client_close(struct client *c)
{
    if (c->state == CLIENT_CLOSED) {
        return;
    }
    struct worker *worker = c->worker;
    c->state = CLIENT_CLOSED;
    if (c->is_part) {
        fanout_part_closed(c);
    } else {
        disconnect(c);
    }
    pinned_drop(c);
    struct request *request = c->head;
    c->head = c->tail = NULL;
    while (request != NULL) {
        struct request *next = request->next;
        if (!request->answered) {
            order_remove(&worker->order, request);
        }
        request_orphan(request);
        request = next;
    }
    unlink_client(c);
    c->prev = worker->dead.head;
    worker->dead.head = c;
}

static void log_about(const struct client *c, enum log_level level, struct log_limit *limit,
                      const char *fmt, va_list args)
{
    char what[256];
    char address[PROFILE_ADDRESS_MAX];
    uint64_t more = 0;
    if (!log_enabled(level) ||
        (level > LOG_DEBUG && !log_allow(limit, c->worker->now, 1000, &more))) {
        return;
    }
    vsnprintf(what, sizeof(what), fmt, args);
    profile_address(c, false, address);
    log_event(level, "client %llu (%s) %s; not logged: %llu", (unsigned long long)c->id, address,
              what, (unsigned long long)more);
}

void client_log(const struct client *c, enum log_level level, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    log_about(c, level, &c->worker->client_log, fmt, args);
    va_end(args);
}

/* A limit of its own: what anybody can make Nearside say is not to silence it. */
void client_expel(struct client *c, _Atomic uint64_t *counter, const char *fmt, ...)
{
    va_list args;
    counter_add(counter, 1);
    va_start(args, fmt);
    log_about(c, LOG_WARN, &c->worker->closed_log, fmt, args);
    va_end(args);
    client_close(c);
}

void client_free(struct client *c)
{
    request_destroy(c->opening);
    blob_unref(c->in);
    blob_unref(c->log);
    c->in = NULL;
    mem_free(c->parser);
    c->parser = NULL;
    c->held = 0;
    c->queued = c->batches = 0;
    chain_fini(&c->out);
    profile_destroy(c);
    client_charge(c);
    mem_free(c);
}

static void close_if_finished(struct client *c)
{
    if (c->state == CLIENT_ENDING && c->head == NULL && c->out.bytes == 0) {
        client_close(c);
    }
}

void client_end(struct client *c)
{
    if (c->state != CLIENT_OPEN) {
        return;
    }
    c->state = CLIENT_ENDING;
    client_set_reading(c, false);
    client_mark_dirty(c); /* closes it at the end of the turn if nothing is left to do */
}

/* ---- Output -------------------------------------------------------------------------------- */

void client_mark_dirty(struct client *c)
{
    if (!c->is_dirty) {
        c->is_dirty = true;
        c->next_dirty = c->worker->dirty.head;
        c->worker->dirty.head = c;
    }
}

void client_mark_runnable(struct client *c)
{
    if (!c->is_runnable) {
        c->is_runnable = true;
        c->next_runnable = c->worker->runnable.head;
        c->worker->runnable.head = c;
    }
}

void client_mark_later(struct client *c)
{
    if (!c->is_runnable) {
        c->is_runnable = true;
        c->next_runnable = c->worker->later.head;
        c->worker->later.head = c;
    }
}

/* The first bytes of the output, at most `most`; *n is how many. Returns the entries used. */
static int offer(const struct client *c, struct iovec iov[MAX_IOV], size_t most, size_t *n)
{
    int used = chain_iov(&c->out, iov, MAX_IOV);
    *n = 0;
    for (int i = 0; i < used; i++) {
        if (iov[i].iov_len >= most - *n) {
            iov[i].iov_len = most - *n;
            *n = most;
            return i + 1;
        }
        *n += iov[i].iov_len;
    }
    return used;
}

/* One write of at most `most` bytes; *offered is how many it was to be. */
static ssize_t write_some(const struct client *c, size_t most, size_t *offered)
{
    struct slice piece = chain_piece(&c->out);
    if (likely(piece.p != NULL)) { /* the rule, and sendmsg costs the kernel more */
        *offered = piece.n < most ? piece.n : most;
        return send(c->io.fd, piece.p, *offered, MSG_NOSIGNAL);
    }
    struct iovec iov[MAX_IOV];
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)offer(c, iov, most, offered)};
    return sendmsg(c->io.fd, &message, MSG_NOSIGNAL);
}

/* Writes as much as the socket takes, at most `most`. False: the client is closed. */
static bool write_out(struct client *c, size_t most)
{
    while (c->out.bytes > 0 && most > 0) {
        size_t offered;
        ssize_t sent = write_some(c, most, &offered);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            if (errno != EAGAIN) {
                client_close(c);
            }
            return errno == EAGAIN;
        }
        chain_consume(&c->out, (size_t)sent);
        c->drained = c->worker->now;
        if ((size_t)sent < offered) {
            return true; /* full */
        }
        most -= offered;
    }
    return true;
}

/* More unread output than allowed? The reply that is arriving, of which `own` bytes are here, does not
 * count up to the size of the largest value: one such reply passes, as on a direct connection. */
static __attribute__((noinline)) bool output_is_really_over(struct client *c, size_t own)
{
    size_t limit = c->worker->server->conf->proxy_max_output;
    size_t queued = c->out.bytes + c->held;
    size_t spared = own < (size_t)FRAME_BULK_MAX ? own : (size_t)FRAME_BULK_MAX;
    if (queued > limit && queued - limit > spared && !c->is_part) {
        (void)write_out(c, SIZE_MAX); /* what was gathered in this turn is not the client's fault */
        client_mark_dirty(c);
        queued = c->out.bytes + c->held;
    }
    if (c->state == CLIENT_CLOSED) {
        return true;
    }
    if (queued <= limit || queued - limit <= spared) {
        return false;
    }
    client_expel(
        c, &c->worker->counters.clients_closed_output,
        "closed: %zu bytes of replies unread, over proxy.max_output; it sends requests, or "
        "subscribes, without reading what comes",
        queued);
    return true;
}

static inline bool output_is_over(struct client *c, size_t own)
{
    bool less = c->out.bytes + c->held <= c->worker->server->conf->proxy_max_output;
    return unlikely(!less || c->state == CLIENT_CLOSED) && output_is_really_over(c, own);
}

/* What nobody wants to see is not kept; but INFO, HELLO and some EXECs are looked at when they are whole. */
static void drop_silent(struct client *c, struct request *request)
{
    if (request->silent && !request->completes_info && !request->greets && !request->executes) {
        chain_fini(&request->reply);
        client_charge_request(c, request);
    }
}

/* May a part of its reply leave? Not if it is changed when it is whole, nor if a message could come
 * from another connection before the rest does. */
static bool may_leave_in_parts(const struct client *c, const struct request *request)
{
    return !request->completes_info && !request->greets && !request->executes &&
           ((request->road == ROAD_PINNED && pinned_is_alone(c)) || !pinned_is_streaming(c));
}

/* The first of the queue leaves it. */
static inline void pop_head(struct client *c)
{
    struct request *request = c->head;
    c->head = request->next;
    if (c->head == NULL) {
        c->tail = NULL;
    }
    c->queued -= request->commands;
    c->batches -= request->batch != NULL;
    request_destroy(request);
}

/* Lets replies leave the queue as far as their turn has come. */
static __attribute__((noinline)) void release(struct client *c)
{
    for (;;) {
        struct request *request = c->head;
        if (request == NULL || request->fencing ||
            (!request->answered && !may_leave_in_parts(c, request))) {
            return;
        }
        if (request->silent) {
            chain_fini(&request->reply);
            client_charge_request(c, request);
        }
        if (request->reply.bytes > 0) {
            if (c->out.bytes == 0) {
                c->drained = c->worker->now;
            }
            chain_splice(&c->out, &request->reply);
            client_charge_request(c, request);
            request->released = true;
            client_mark_dirty(c);
        }
        if (!request->answered) {
            return;
        }
        pop_head(c);
    }
}

/* Output of a part is joined when all of it is there. */
static void keep_output(struct client *c)
{
    client_charge(c);
    if (c->stalled_output) {
        client_mark_later(c);
    } else if (c->head == NULL && c->in == NULL) {
        fanout_part_done(c);
    }
}

/* How much may be written to it in this turn. */
static inline size_t write_share(const struct client *c)
{
    struct worker *worker = c->worker;
    if (likely(c->out.bytes <= LIGHT_OUTPUT && !c->wants_write)) { /* and is no rest of more */
        worker->light_at = worker->now;
        worker->light_id = c->id;
        return WRITE_SHARE_BESIDE;
    }
    bool beside = worker->light_id != c->id && worker->now - worker->light_at < LIGHT_MS;
    return beside ? WRITE_SHARE_BESIDE : WRITE_SHARE;
}

void client_flush(struct client *c)
{
    if (c->state == CLIENT_CLOSED) {
        return;
    }
    if (c->is_part) {
        keep_output(c);
        return;
    }
    if (!write_out(c, write_share(c))) {
        return;
    }
    bool wants = c->out.bytes > 0;
    if (wants != c->wants_write) {
        c->wants_write = wants;
        watch(c);
    }
    client_charge(c);
    if (c->stalled_output && c->out.bytes < OUTPUT_RESUME) {
        client_mark_later(c);
    }
    if (c->pinned != NULL && c->out.bytes < OUTPUT_RESUME) {
        pinned_hold(c, false);
    }
    close_if_finished(c);
}

static void on_ready(struct ev_loop *loop, struct ev_io *io, int events)
{
    (void)loop;
    struct client *c = container_of(io, struct client, io);
    if ((events & EV_WRITE) != 0) {
        worker_read_clock(c->worker);
        client_mark_dirty(c);
    }
    if ((events & EV_READ) != 0) {
        client_read(c);
    }
}

struct chain *client_reply_begin(struct client *c)
{
    if (c->state == CLIENT_CLOSED || output_is_over(c, 0)) {
        return NULL;
    }
    if (client_is_idle(c)) {
        if (c->out.bytes == 0) {
            c->drained = c->worker->now;
        }
        return &c->out;
    }
    c->opening = request_create(c->worker);
    if (c->opening == NULL) {
        client_close(c);
        return NULL;
    }
    return &c->opening->reply;
}

void client_reply_end(struct client *c)
{
    struct request *request = c->opening;
    if (request == NULL) {
        client_mark_dirty(c);
        return;
    }
    c->opening = NULL;
    client_hold(c, request);
}

void client_hold(struct client *c, struct request *request)
{
    if (client_is_silent(c)) {
        request_destroy(request);
        return;
    }
    request->kind = REQUEST_HELD;
    request->client = c;
    request->answered = true;
    request->seq = c->next_seq++;
    c->tail->next = request;
    c->tail = request;
    c->queued++;
    client_charge_request(c, request);
    client_charge(c);
    (void)output_is_over(c, 0);
}

/* The last reply that is whole and held back by a fence, its own or an earlier one's; NULL: none is. */
static struct request *last_held(const struct client *c)
{
    struct request *last = NULL;
    for (struct request *r = c->head; r != NULL && (r->answered || (r->fencing && r->complete));
         r = r->next) {
        last = r->silent ? last : r;
    }
    return last;
}

void client_push(struct client *c, struct slice bytes)
{
    if (c->state == CLIENT_CLOSED) {
        return;
    }
    struct request *held = last_held(c);
    if (unlikely(held != NULL)) { /* the server said that first */
        if (!chain_append(&held->reply, bytes)) {
            client_close(c);
            return;
        }
        client_charge_request(c, held);
        client_charge(c);
        (void)output_is_over(c, 0);
        return;
    }
    if (c->out.bytes == 0) {
        c->drained = c->worker->now;
    }
    if (!chain_append(&c->out, bytes)) {
        client_close(c);
        return;
    }
    client_mark_dirty(c);
    client_charge(c);
    if (!output_is_over(c, 0) && c->out.bytes > OUTPUT_HOLD && c->pinned != NULL) {
        pinned_hold(c, true);
    }
}

void client_reply_cancel(struct client *c)
{
    request_destroy(c->opening);
    c->opening = NULL;
}

void client_reply_finish(struct client *c, bool ok)
{
    if (ok) {
        client_reply_end(c);
    } else {
        client_close(c);
    }
}

void client_reply_error(struct client *c, const char *fmt, ...)
{
    struct chain *out = client_reply_begin(c);
    if (out == NULL) {
        return;
    }
    va_list args;
    va_start(args, fmt);
    bool ok = resp_verrorf(out, fmt, args);
    va_end(args);
    client_reply_finish(c, ok);
}

/* ---- The queue ------------------------------------------------------------------------------ */

static inline unsigned road_index(enum road road)
{
    return (unsigned)__builtin_ctz((unsigned)road); /* a set of one */
}

/* What is not plain may mean more. */
static __attribute__((noinline)) void enqueue_odd(struct client *c, struct request *request)
{
    c->unknown_on[road_index(request->road)] += request_is_unordered(request);
    c->keyless += request->keyless;
    c->nblocked += request->blocks;
    c->switching = c->switching || request->holds;
}

void client_enqueue(struct client *c, struct request *request)
{
    request->client = c;
    request->node = c->place.node;
    request->slot = c->place.slot;
    request->db = request->selects ? request->db : c->db;
    request->resp3 = request->greets ? request->resp3 : c->resp3;
    request->silent = client_is_silent(c);
    request->seq = c->next_seq++;
    request->began = c->worker->now;
    if (c->tail != NULL) {
        c->tail->next = request;
    } else {
        c->head = request;
    }
    c->tail = request;
    c->queued += request->commands;
    c->batches += request->batch != NULL;
    c->scattered = c->pending > 0 && (c->scattered || c->node != request->node);
    c->node = request->node;
    c->ordered = c->pending > 0 && c->ordered;
    c->pending++;
    request->retired = upstream_retired(c->worker->upstream);
    c->on_road[road_index(request->road)]++;
    if (!request->plain) {
        enqueue_odd(c, request);
    }
    order_add(&c->worker->order, request);
}

void client_move_road(struct client *c, struct request *request, enum road road)
{
    c->on_road[road_index(request->road)]--;
    request->road = road;
    c->on_road[road_index(road)]++;
}

bool client_arrived(struct client *c, struct request *request, size_t n)
{
    request->arrived += n;
    drop_silent(c, request);
    client_charge_request(c, request);
    if (request == c->head) {
        release(c);
    }
    client_charge(c);
    return !output_is_over(c, request->arrived);
}

static inline bool take(struct client *c, struct request *request, struct slice reply)
{
    if (likely(request == c->head && !request->silent)) {
        if (c->out.bytes == 0) {
            c->drained = c->worker->now;
        }
        if (!chain_append(&c->out, reply)) {
            client_close(c);
            return false;
        }
        client_mark_dirty(c); /* and charged with what it holds when it is written */
    } else {
        if (!chain_append(&request->reply, reply)) {
            client_close(c);
            return false;
        }
        request->arrived = reply.n;
        drop_silent(c, request);
        client_charge_request(c, request);
        client_charge(c);
    }
    return !output_is_over(c, reply.n);
}

bool client_take(struct client *c, struct request *request, struct slice reply)
{
    return take(c, request, reply);
}

bool client_pass(struct client *c, struct request *request, struct slice reply)
{
    if (!take(c, request, reply)) {
        return false;
    }
    client_answered(c, request);
    return true;
}

void client_finish(struct client *c, struct request *request)
{
    if (client_arrived(c, request, request->reply.bytes)) {
        client_answered(c, request);
    }
}

static __attribute__((noinline)) void answered_odd(struct client *c, struct request *request)
{
    unsigned road = road_index(request->road);
    c->unknown_on[road] -= request_is_unordered(request);
    c->keyless -= request->keyless;
    c->nblocked -= request->blocks;
    if (request->holds) {
        c->switching = false;
        c->last_cmd = request->cmd;
    }
    if (request->road == ROAD_PINNED && c->on_road[road] == 0 && c->pinned != NULL) {
        pinned_settle(c);
    }
}

void client_answered(struct client *c, struct request *request)
{
    c->pending--;
    c->on_road[road_index(request->road)]--;
    order_remove(&c->worker->order, request);
    request->answered = true;
    if (request->reply.head != NULL || request->held != 0) {
        client_charge_request(c, request);
    }
    if (!request->plain) {
        answered_odd(c, request);
    }
    if (request == c->head) {
        if (likely(!request->fencing && request->reply.bytes == 0)) {
            pop_head(c); /* all of it has left */
        }
        if (c->head != NULL && (c->head->answered || c->head->reply.bytes > 0)) {
            release(c);
        }
    }
    if (c->stalled && (!c->stalled_large || c->pending == 0)) {
        client_mark_runnable(c);
    }
    if (c->state == CLIENT_ENDING) {
        client_mark_dirty(c);
    }
}
