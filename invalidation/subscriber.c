/* SPDX-License-Identifier: Apache-2.0
 *
 * subscriber.c: the link I: a RESP2 connection that is subscribed to what its mode announces, so that
 * the server's limit for slow subscribers protects the server.
 *
 *   DOWN ─ conn up ─► SETUP ─ all steps good ─► PINGING ─ PONG (broadcast: two) ─► UP
 *     ▲                 └─ a step refused ─► REFUSED ─ 10 s ─┐                      │
 *     └──────────────────── conn lost ◄──────────────────────┴──────────────────────┘
 *
 *   mode       steps
 *   redirect   CLIENT TRACKING ON REDIRECT self, SUBSCRIBE __redis__:invalidate
 *   broadcast  CLIENT TRACKING ON REDIRECT self BCAST PREFIX .., SUBSCRIBE __redis__:invalidate
 *   channel    PUBLISH a test, SUBSCRIBE its channel
 *   keyspace   CONFIG GET notify-keyspace-events, [CONFIG SET, CONFIG GET], PSUBSCRIBE __keyevent@..
 *
 * In redirect the link tracks for itself, too, though it reads nothing: what the server allows here it
 * allows the Fs. BCAST is registered before SUBSCRIBE and on this very link (I2, I3).
 *
 * Up to the subscription's own reply, replies go to calls. From then on everything the server says is
 * gathered here until it is whole, because a PONG looks like a message; a PONG or an error is then
 * handed on to the oldest PING, and the rest are messages, applied at once and in order (M5).
 *
 * Threads: the host's worker. Not here: what a message means for L1 (host.c).
 */
#include "feed_priv.h"

#include "../conf/mem.h"
#include "../resp/chain.h"
#include "../resp/write.h"

#include <inttypes.h>
#include <stdio.h>

#define SUBSCRIBER_MAGIC 0x73756273u
#define REPLY_MAX        1024 /* of a set-up step */
#define PASSING_RETRY_MS 500
#define MESSAGE_KEEP     ((size_t)64 * 1024) /* room for messages that is kept */

static const struct slice PING_BYTES = {"*1\r\n$4\r\nPING\r\n", 14};
static const struct slice INVALIDATE = {"__redis__:invalidate", 20};

enum state { STATE_DOWN, STATE_SETUP, STATE_REFUSED, STATE_PINGING, STATE_UP };

enum step { STEP_TRACKING, STEP_PUBLISH, STEP_NOTIFY, STEP_SET_NOTIFY, STEP_SUBSCRIBE };

static const char *const STEP_NAMES[] = {
    [STEP_TRACKING] = "CLIENT TRACKING",      [STEP_PUBLISH] = "PUBLISH",
    [STEP_NOTIFY] = "notify-keyspace-events", [STEP_SET_NOTIFY] = "CONFIG SET",
    [STEP_SUBSCRIBE] = "SUBSCRIBE",
};

struct subscriber {
    unsigned magic;
    struct subscriber_options options;
    const struct feeds_options *shared;
    struct conn *conn;
    enum state state;

    enum step step;
    bool notify_set; /* the flags have been changed by us on this link */
    struct call setup;
    char reply[REPLY_MAX];
    size_t reply_n;
    int64_t retry_at; /* of REFUSED */

    char *message; /* the one that is arriving */
    size_t message_n, message_cap;

    struct call ping;
    bool ping_open;
    int64_t ping_sent;     /* when */
    int64_t ping_answered; /* when the one before it, answered by now, was sent; 0: none was */
    ev_timer ping_timer;
    struct lease_clock clock;
};

/* ---- PINGs --------------------------------------------------------------------------------- */

static void send_ping(struct subscriber *sub)
{
    if (sub->ping_open || sub->state < STATE_PINGING) {
        return;
    }
    sub->ping_sent = sub->shared->now(); /* before the bytes leave */
    sub->ping.replies = 1;
    sub->ping_open = conn_submit(sub->conn, &sub->ping, PING_BYTES, NULL) == CONN_OK;
    conn_flush(sub->conn);
}

static void on_ping_timer(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    struct subscriber *sub = container_of(w, struct subscriber, ping_timer);
    bug_on(sub->magic != SUBSCRIBER_MAGIC);
    send_ping(sub);
}

static void note_lapse(struct subscriber *sub, int64_t now)
{
    if (lease_clock_lapses(&sub->clock, sub->options.feeds, now, "invalidations")) {
        feed_count(&sub->options.counters->lapses, 1);
    }
}

/* C6, I4: in broadcast mode a PONG may overtake the announcement of a write that was answered in the
 * same turn of the server's loop. Only the PING before it, answered when this one was sent, proves
 * something. */
static void take_pong(struct subscriber *sub)
{
    bool twice = sub->options.mode == FEED_BROADCAST;
    int64_t t_ok = twice ? sub->ping_answered : sub->ping_sent;
    int64_t now = sub->shared->now();
    sub->ping_answered = sub->ping_sent;
    sub->clock.alive_since = now;
    if (t_ok == 0) {
        return; /* the timer sends the second one; up a little later */
    }
    if (sub->state == STATE_UP) {
        note_lapse(sub, now);
        lease_clock_renew(&sub->clock, sub->options.feeds, t_ok, now);
        sub->options.events->renewed(sub->options.ctx, t_ok);
        return;
    }
    sub->state = STATE_UP;
    lease_clock_start(&sub->clock, t_ok, now);
    sub->options.events->up(sub->options.ctx, t_ok);
}

static void on_pong(struct call *call, const struct reply_piece *piece)
{
    struct subscriber *sub = container_of(call, struct subscriber, ping);
    sub->ping_open = false;
    if (piece->type != '-') {
        take_pong(sub);
        if (sub->state == STATE_PINGING) {
            ev_feed_event(sub->options.loop, &sub->ping_timer, EV_TIMER); /* the second, now */
        }
    } else if (slice_starts(piece->bytes, SLICE("-BUSY")) ||
               slice_starts(piece->bytes, SLICE("-LOADING"))) {
        sub->clock.alive_since = sub->shared->now();
    }
}

static void on_ping_lost(struct call *call, enum call_loss loss)
{
    (void)loss;
    container_of(call, struct subscriber, ping)->ping_open = false;
}

static const struct call_ops PING_OPS = {.reply = on_pong, .lost = on_ping_lost};

enum conn_status subscriber_ping(struct subscriber *sub, struct call *call)
{
    if (sub->state != STATE_UP) {
        return CONN_DOWN;
    }
    call->replies = 1;
    return conn_submit(sub->conn, call, PING_BYTES, NULL);
}

/* ---- Messages ------------------------------------------------------------------------------ */

static void tell_keys(struct subscriber *sub, struct message *m)
{
    struct slice key;
    feed_count(&sub->options.counters->invalidations, m->nkeys);
    while (message_next_key(m, &key)) {
        sub->options.events->changed(sub->options.ctx, key);
    }
}

static void tell_flush(struct subscriber *sub)
{
    feed_count(&sub->options.counters->flushes, 1);
    sub->options.events->flushed(sub->options.ctx);
}

/* "__keyevent@0__:set", the key. A read that missed is an event, too, but no change. */
static void take_key_event(struct subscriber *sub, const struct message *m)
{
    const struct slice missed = SLICE(":keymiss");
    if (m->kind != MESSAGE_TEXT) {
        tell_flush(sub);
        return;
    }
    if (m->channel.n >= missed.n &&
        memcmp(m->channel.p + m->channel.n - missed.n, missed.p, missed.n) == 0) {
        return;
    }
    feed_count(&sub->options.counters->invalidations, 1);
    sub->options.events->changed(sub->options.ctx, m->text);
}

static void take_message(struct subscriber *sub, struct message *m)
{
    if (sub->options.mode == FEED_KEYSPACE) {
        take_key_event(sub, m);
    } else if (sub->options.mode == FEED_CHANNEL) {
        sub->options.events->heard(sub->options.ctx, m->kind == MESSAGE_TEXT ? m->text : SLICE(""));
    } else if (!slice_eq(m->channel, INVALIDATE)) {
        return; /* nothing we asked for */
    } else if (m->kind == MESSAGE_KEYS) {
        tell_keys(sub, m);
    } else {
        /* M1: all keys. M2, I5: anybody may publish anything; it may well mean all keys. */
        tell_flush(sub);
    }
}

/* Everything the server says once the link is subscribed. */
static void take_whole(struct subscriber *sub, struct slice bytes)
{
    struct reply_piece whole = {.bytes = bytes, .type = bytes.p[0], .first = true, .last = true};
    struct message m = message_parse(bytes);
    switch (m.kind) {
    case MESSAGE_PONG:
        conn_answer(sub->conn, &whole);
        return;
    case MESSAGE_TEXT:
    case MESSAGE_KEYS:
    case MESSAGE_NULL:
    case MESSAGE_STRANGE:
        if (sub->state == STATE_UP || sub->state == STATE_PINGING) {
            take_message(sub, &m);
        }
        return;
    case MESSAGE_BEGIN:
        return;
    case MESSAGE_END:
        conn_fail(sub->conn, "the server ended the subscription");
        return;
    case MESSAGE_ODD:
        break;
    }
    if (whole.type == '-') {
        conn_answer(sub->conn, &whole);
    } else {
        /* "+PONG" among them: the server does not think that this link is subscribed */
        conn_fail(sub->conn, "not what a server says to a subscriber");
    }
}

static bool gather(struct subscriber *sub, struct slice bytes)
{
    if (bytes.n > FRAME_PUSH_MAX - sub->message_n) {
        conn_fail(sub->conn, "a message is too large");
        return false;
    }
    if (bytes.n > sub->message_cap - sub->message_n) {
        size_t cap = 2 * sub->message_cap + bytes.n;
        char *grown = mem_try_resize(sub->message, cap);
        if (grown == NULL) {
            conn_fail(sub->conn, "out of memory for a message");
            return false;
        }
        sub->message = grown;
        sub->message_cap = cap;
    }
    memcpy(sub->message + sub->message_n, bytes.p, bytes.n);
    sub->message_n += bytes.n;
    return true;
}

static void forget_message(struct subscriber *sub)
{
    sub->message_n = 0;
    if (sub->message_cap > MESSAGE_KEEP) {
        mem_free(sub->message);
        sub->message = NULL;
        sub->message_cap = 0;
    }
}

static bool on_stray(struct conn *conn, const struct reply_piece *piece, void *ctx)
{
    struct subscriber *sub = ctx;
    (void)conn;
    bug_on(sub->magic != SUBSCRIBER_MAGIC);
    if (sub->state < STATE_PINGING) {
        return false;
    }
    if (piece->first && piece->last) {
        take_whole(sub, piece->bytes);
        return true;
    }
    if (gather(sub, piece->bytes) && piece->last) {
        take_whole(sub, slice_of(sub->message, sub->message_n));
        forget_message(sub);
    }
    return true;
}

/* ---- Setting up ---------------------------------------------------------------------------- */

/* REDIRECT to itself, which is known by now, and the prefixes. */
static bool put_tracking(struct subscriber *sub, struct chain *out)
{
    const struct feeds *feeds = sub->options.feeds;
    bool broadcast = sub->options.mode == FEED_BROADCAST;
    char id[24];
    (void)snprintf(id, sizeof(id), "%" PRId64, conn_peer_id(sub->conn));
    const struct slice head[] = {SLICE("CLIENT"),   SLICE("TRACKING"), SLICE("ON"),
                                 SLICE("REDIRECT"), slice_str(id),     SLICE("BCAST")};
    size_t n = broadcast ? 6 : 5;
    size_t nprefixes = broadcast ? feeds->nprefixes : 0;
    bool ok = resp_array(out, (int64_t)(n + 2 * nprefixes));
    for (size_t i = 0; ok && i < n; i++) {
        ok = resp_bulk(out, head[i]);
    }
    for (size_t i = 0; ok && i < nprefixes; i++) {
        ok = resp_bulk(out, SLICE("PREFIX")) && resp_bulk(out, feeds->prefixes[i]);
    }
    return ok;
}

static bool put_subscribe(struct subscriber *sub, struct chain *out)
{
    if (sub->options.mode != FEED_KEYSPACE) {
        struct slice name =
            sub->options.mode == FEED_CHANNEL ? slice_str(sub->shared->channel) : INVALIDATE;
        return resp_command(out, 2, (struct slice[]){SLICE("SUBSCRIBE"), name});
    }
    /* of all databases, as every other mode announces them: names are dropped in each */
    return resp_command(out, 2, (struct slice[]){SLICE("PSUBSCRIBE"), SLICE("__keyevent@*__:*")});
}

static bool put_step(struct subscriber *sub, struct chain *out)
{
    switch (sub->step) {
    case STEP_TRACKING:
        return put_tracking(sub, out);
    case STEP_PUBLISH:
        return resp_command(
            out, 3,
            (struct slice[]){SLICE("PUBLISH"), slice_str(sub->shared->channel), CHANNEL_TEST});
    case STEP_NOTIFY:
        return resp_command(
            out, 3,
            (struct slice[]){SLICE("CONFIG"), SLICE("GET"), SLICE("notify-keyspace-events")});
    case STEP_SET_NOTIFY:
        return resp_command(out, 4,
                            (struct slice[]){SLICE("CONFIG"), SLICE("SET"),
                                             SLICE("notify-keyspace-events"),
                                             slice_of(sub->reply, sub->reply_n)});
    case STEP_SUBSCRIBE:
        return put_subscribe(sub, out);
    }
    return false;
}

static void send_step(struct subscriber *sub, enum step step)
{
    struct chain out;
    char flat[4096];
    size_t n = 0;
    chain_init(&out);
    sub->step = step;
    bool ok = put_step(sub, &out) && out.bytes <= sizeof(flat);
    while (ok && out.bytes > 0) {
        struct iovec iov[16];
        int count = chain_iov(&out, iov, 16);
        size_t taken = 0;
        for (int i = 0; i < count; i++) {
            memcpy(flat + n, iov[i].iov_base, iov[i].iov_len);
            n += iov[i].iov_len;
            taken += iov[i].iov_len;
        }
        chain_consume(&out, taken);
    }
    chain_fini(&out);
    sub->reply_n = 0;
    sub->setup.replies = 1;
    if (!ok || conn_submit(sub->conn, &sub->setup, slice_of(flat, n), NULL) != CONN_OK) {
        conn_fail(sub->conn, "cannot send the set-up of the subscription");
    }
}

static void refuse(struct subscriber *sub, const char *step, const char *text, bool lasting)
{
    sub->state = STATE_REFUSED;
    sub->retry_at = sub->shared->now() + (lasting ? REFUSED_RETRY_MS : PASSING_RETRY_MS);
    feed_count(&sub->options.counters->refusals, 1);
    sub->options.events->refused(sub->options.ctx, step, text, lasting);
}

/* The newest reply is the answer to CONFIG GET. */
static void take_flags(struct subscriber *sub)
{
    struct slice pair[2];
    char text[160];
    if (message_strings(slice_of(sub->reply, sub->reply_n), pair, 2) != 2) {
        refuse(sub, STEP_NAMES[STEP_NOTIFY], "the server does not say what it is", true);
        return;
    }
    if (notify_flags_suffice(pair[1])) {
        send_step(sub, STEP_SUBSCRIBE);
        return;
    }
    if (sub->shared->set_notify && !sub->notify_set && pair[1].n < 64) {
        sub->notify_set = true;
        memmove(sub->reply, pair[1].p, pair[1].n);
        memcpy(sub->reply + pair[1].n, "EA", 2);
        sub->reply_n = pair[1].n + 2;
        send_step(sub, STEP_SET_NOTIFY);
        return;
    }
    (void)snprintf(text, sizeof(text), "it is \"%.*s\", and must contain EA",
                   pair[1].n < 64 ? (int)pair[1].n : 64, pair[1].p);
    refuse(sub, STEP_NAMES[STEP_NOTIFY], text, true);
}

static void begin_pings(struct subscriber *sub)
{
    sub->state = STATE_PINGING;
    sub->ping_answered = 0;
    sub->clock.alive_since = sub->shared->now();
    ev_timer_again(sub->options.loop, &sub->ping_timer);
    ev_feed_event(sub->options.loop, &sub->ping_timer, EV_TIMER);
}

static void finish_step(struct subscriber *sub, char type)
{
    char text[ERR_MAX];
    if (type == '-') {
        size_t n = sub->reply_n;
        while (n > 0 && (sub->reply[n - 1] == '\r' || sub->reply[n - 1] == '\n')) {
            n--;
        }
        (void)snprintf(text, sizeof(text), "%.*s", n > 0 ? (int)(n - 1) : 0, sub->reply + 1);
        refuse(sub, STEP_NAMES[sub->step], text, refusal_is_lasting(text));
        return;
    }
    switch (sub->step) {
    case STEP_TRACKING:
    case STEP_PUBLISH:
        send_step(sub, STEP_SUBSCRIBE);
        break;
    case STEP_NOTIFY:
        take_flags(sub);
        break;
    case STEP_SET_NOTIFY:
        log_event(LOG_INFO, "notify-keyspace-events of %s was changed to announce every change",
                  node_name(sub->shared->node));
        send_step(sub, STEP_NOTIFY);
        break;
    case STEP_SUBSCRIBE:
        begin_pings(sub);
        break;
    }
}

static void on_setup_reply(struct call *call, const struct reply_piece *piece)
{
    struct subscriber *sub = container_of(call, struct subscriber, setup);
    size_t room = sizeof(sub->reply) - sub->reply_n;
    size_t n = piece->bytes.n < room ? piece->bytes.n : room;
    memcpy(sub->reply + sub->reply_n, piece->bytes.p, n);
    sub->reply_n += n;
    if (piece->last) {
        finish_step(sub, piece->type);
    }
}

static void on_setup_lost(struct call *call, enum call_loss loss)
{
    (void)call;
    (void)loss; /* on_lost has seen to everything */
}

static const struct call_ops SETUP_OPS = {.reply = on_setup_reply, .lost = on_setup_lost};

/* ---- The link ------------------------------------------------------------------------------ */

static void on_up(struct conn *conn, void *ctx)
{
    struct subscriber *sub = ctx;
    sub->state = STATE_SETUP;
    sub->notify_set = false;
    if (sub->options.mode == FEED_KEYSPACE) {
        send_step(sub, STEP_NOTIFY);
    } else if (sub->options.mode == FEED_CHANNEL) {
        send_step(sub, STEP_PUBLISH);
    } else if (conn_peer_id(conn) == 0) {
        refuse(sub, "CLIENT ID", "it is not answered", true);
    } else {
        send_step(sub, STEP_TRACKING);
    }
}

static void on_lost(struct conn *conn, void *ctx)
{
    struct subscriber *sub = ctx;
    bool was_up = sub->state == STATE_UP;
    (void)conn;
    sub->state = STATE_DOWN;
    ev_timer_stop(sub->options.loop, &sub->ping_timer);
    forget_message(sub);
    if (was_up) {
        feed_count(&sub->options.counters->losses, 1);
        sub->options.events->lost(sub->options.ctx);
    }
}

/* A step of the connection's own bring-up: nothing that has to do with the mode. */
static void on_refused(struct conn *conn, const char *step, const char *text, void *ctx)
{
    struct subscriber *sub = ctx;
    uint64_t more = 0;
    (void)conn;
    if (log_allow(&sub->clock.lapse_log, sub->shared->now(), LOG_EVERY_MS, &more)) {
        log_event(LOG_WARN,
                  "%s refuses %s on the connection for invalidations: %s; trying again; refusals "
                  "not logged: %llu",
                  node_name(sub->shared->node), step, text, (unsigned long long)more);
    }
}

static const struct conn_events CONN_EVENTS = {
    .up = on_up,
    .lost = on_lost,
    .refused = on_refused,
    .stray = on_stray,
};

struct subscriber *subscriber_create(const struct subscriber_options *options)
{
    struct subscriber *sub = mem_zalloc(sizeof(*sub));
    sub->magic = SUBSCRIBER_MAGIC;
    sub->options = *options;
    sub->shared = &options->feeds->options;
    sub->setup.ops = &SETUP_OPS;
    sub->ping.ops = &PING_OPS;
    ev_timer_init(&sub->ping_timer, on_ping_timer, 0.,
                  (double)sub->shared->link_lease_ms / 4.0 / 1000.0);
    ev_set_priority(&sub->ping_timer, EV_MAXPRI);
    sub->conn = conn_create(&(struct conn_options){
        .loop = options->loop,
        .node = sub->shared->node,
        .role = options->trial ? "trial of invalidations" : "invalidations",
        .quiet = options->trial,
        .vouches = !options->trial,
        .asks_id = options->mode == FEED_REDIRECT || options->mode == FEED_BROADCAST,
        .priority = EV_MAXPRI,
        .now = sub->shared->now,
        .read_buffer = options->read_buffer,
        .read_size = options->read_size,
        .events = &CONN_EVENTS,
        .ctx = sub,
    });
    conn_open(sub->conn);
    return sub;
}

void subscriber_destroy(struct subscriber *sub)
{
    if (sub == NULL) {
        return;
    }
    bug_on(sub->magic != SUBSCRIBER_MAGIC);
    sub->state = STATE_DOWN;
    ev_timer_stop(sub->options.loop, &sub->ping_timer);
    ev_clear_pending(sub->options.loop, &sub->ping_timer);
    conn_destroy(sub->conn);
    mem_free(sub->message);
    sub->magic = 0;
    mem_free(sub);
}

void subscriber_flush(struct subscriber *sub)
{
    conn_flush(sub->conn);
}

void subscriber_tick(struct subscriber *sub, int64_t now)
{
    if (sub->state == STATE_UP) {
        note_lapse(sub, now);
    }
    if (lease_clock_tick(&sub->clock, sub->options.feeds, now) && sub->state >= STATE_PINGING) {
        conn_fail(sub->conn, "no PONG within the limit");
    }
    if (sub->state == STATE_REFUSED && now >= sub->retry_at) {
        conn_fail(sub->conn, "asking again for what was refused");
    }
    conn_tick(sub->conn, now);
}

bool subscriber_is_up(const struct subscriber *sub)
{
    return sub->state == STATE_UP;
}

bool subscriber_is_current(const struct subscriber *sub)
{
    return sub->state >= STATE_PINGING && conn_accepts(sub->conn);
}

int64_t subscriber_peer_id(const struct subscriber *sub)
{
    return sub->state == STATE_UP ? conn_peer_id(sub->conn) : 0;
}
