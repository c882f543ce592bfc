/* SPDX-License-Identifier: Apache-2.0
 *
 * channel.c: mode channel, for servers that announce nothing: the Nearsides of a fleet tell each other,
 * over a Pub/Sub channel, what they write. One PUBLISH at a time; what workers add meanwhile goes with
 * the next.
 *
 *   workers ─► outbox ─► "k ORIGIN SEQ\r\n" keys ─► PUBLISH ─► Redis ─► every Nearside's link I
 *                        "f ORIGIN SEQ\r\n"           all keys
 *                        "h ORIGIN SEQ\r\n"           nothing, every L/4: the newest number so far
 *
 * Keys follow as bulks. ORIGIN is 16 hexadecimal digits, new for each process; SEQ counts its k and f
 * messages from 1. Who listens keeps the newest number of each origin. A number that does not follow
 * means that something was missed, and so does an origin that has not been heard for L (D2): everything
 * is dropped. So the version of a message is all that is needed: a message is published behind its
 * write, on the server that executed the write, and Pub/Sub keeps order on a link that lives.
 *
 * A PUBLISH that is lost is not repeated: its number is missing then, which says enough.
 *
 * Threads: channel_announce any; the rest worker 0's. Not here: the link that listens (subscriber.c).
 */
#include "feed_priv.h"

#include "../conf/mem.h"
#include "../resp/chain.h"
#include "../resp/write.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

#define ORIGIN_MAX  17 /* 16 digits and a NUL */
#define ORIGINS_MAX 1024
#define HEAD_MAX    64

struct origin {
    char id[ORIGIN_MAX];
    uint64_t seq;  /* of its newest message */
    int64_t heard; /* when */
};

struct channel {
    struct channel_options options;
    struct feeds *feeds;
    const struct feeds_options *shared;
    char id[ORIGIN_MAX];
    uint64_t seq;
    struct conn *conn; /* publishes */
    struct call call;
    bool open; /* the call */
    ev_async wake;
    ev_timer beat;
    struct log_limit refused_log;

    struct origin *origins;
    size_t norigins;
};

/* ---- The outbox ---------------------------------------------------------------------------- */

void feeds_announce(struct feeds *feeds, struct slice keys)
{
    struct outbox *box = &feeds->outbox;
    pthread_mutex_lock(&feeds->lock);
    if (keys.n == 0 || keys.n > OUTBOX_MAX - box->n) {
        box->all = true;
    }
    if (box->all) {
        box->n = 0;
    } else {
        if (keys.n > box->cap - box->n) {
            size_t cap = 2 * box->cap + keys.n;
            char *grown = mem_try_resize(box->text, cap);
            box->all = grown == NULL;
            box->text = grown != NULL ? grown : box->text;
            box->cap = grown != NULL ? cap : box->cap;
        }
        if (!box->all) {
            memcpy(box->text + box->n, keys.p, keys.n);
            box->n += keys.n;
        }
    }
    if (box->loop != NULL) {
        ev_async_send(box->loop, box->wake);
    }
    pthread_mutex_unlock(&feeds->lock);
}

/* What is to be published next, as a command; empty when there is nothing. */
static bool take_outbox(struct channel *channel, struct chain *out)
{
    struct outbox *box = &channel->feeds->outbox;
    char head[HEAD_MAX];
    bool ok = true;
    pthread_mutex_lock(&channel->feeds->lock);
    if (box->all || box->n > 0) {
        channel->seq++;
        int n = snprintf(head, sizeof(head), "%c %s %" PRIu64 "\r\n", box->all ? 'f' : 'k',
                         channel->id, channel->seq);
        char size[RESP_HEADER_MAX];
        size_t length = (size_t)n + (box->all ? 0 : box->n);
        ok = resp_array(out, 3) && resp_bulk(out, SLICE("PUBLISH")) &&
             resp_bulk(out, slice_str(channel->shared->channel)) &&
             chain_append(out, slice_of(size, resp_header(size, '$', (int64_t)length))) &&
             chain_append(out, slice_of(head, (size_t)n)) &&
             (box->all || chain_append(out, slice_of(box->text, box->n))) &&
             chain_append(out, SLICE("\r\n"));
        box->all = false;
        box->n = 0;
    }
    pthread_mutex_unlock(&channel->feeds->lock);
    return ok;
}

/* ---- Publishing ---------------------------------------------------------------------------- */

static void submit(struct channel *channel, struct chain *out)
{
    char *flat = mem_try(out->bytes);
    size_t n = 0;
    while (flat != NULL && out->bytes > 0) {
        struct iovec iov[16];
        int count = chain_iov(out, iov, 16);
        size_t taken = 0;
        for (int i = 0; i < count; i++) {
            memcpy(flat + n + taken, iov[i].iov_base, iov[i].iov_len);
            taken += iov[i].iov_len;
        }
        chain_consume(out, taken);
        n += taken;
    }
    channel->call.replies = 1;
    channel->open = flat != NULL &&
                    conn_submit(channel->conn, &channel->call, slice_of(flat, n), NULL) == CONN_OK;
    mem_free(flat);
    conn_flush(channel->conn);
}

static bool can_publish(const struct channel *channel)
{
    return !channel->open && conn_state(channel->conn) == CONN_UP && conn_accepts(channel->conn);
}

static void publish(struct channel *channel)
{
    struct chain out;
    if (!can_publish(channel)) {
        return; /* the answer to the open one, or the link's coming up, gets back here */
    }
    chain_init(&out);
    if (take_outbox(channel, &out) && out.bytes > 0) {
        submit(channel, &out);
    }
    chain_fini(&out);
}

static void on_beat(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop;
    (void)revents;
    struct channel *channel = container_of(w, struct channel, beat);
    char text[HEAD_MAX];
    struct chain out;
    publish(channel);
    if (!can_publish(channel)) {
        return;
    }
    (void)snprintf(text, sizeof(text), "h %s %" PRIu64 "\r\n", channel->id, channel->seq);
    chain_init(&out);
    if (resp_command(&out, 3,
                     (struct slice[]){SLICE("PUBLISH"), slice_str(channel->shared->channel),
                                      slice_str(text)})) {
        submit(channel, &out);
    }
    chain_fini(&out);
}

static void on_wake(struct ev_loop *loop, ev_async *w, int revents)
{
    (void)loop;
    (void)revents;
    publish(container_of(w, struct channel, wake));
}

static void on_published(struct call *call, const struct reply_piece *piece)
{
    struct channel *channel = container_of(call, struct channel, call);
    uint64_t more = 0;
    if (!piece->last) {
        return;
    }
    channel->open = false;
    if (piece->type == '-') {
        feed_count(&channel->options.counters->refusals, 1);
        if (log_allow(&channel->refused_log, channel->shared->now(), LOG_EVERY_MS, &more)) {
            log_event(LOG_WARN,
                      "%s refuses PUBLISH: what is written here is not told to other Nearsides, "
                      "which may serve it for invalidation.channel_ttl; refusals not logged: %llu",
                      node_name(channel->shared->node), (unsigned long long)more);
        }
        return;
    }
    publish(channel);
}

static void on_unpublished(struct call *call, enum call_loss loss)
{
    (void)loss;
    container_of(call, struct channel, call)->open = false;
}

static const struct call_ops PUBLISH_OPS = {.reply = on_published, .lost = on_unpublished};

/* ---- Listening ----------------------------------------------------------------------------- */

static void miss(struct channel *channel)
{
    feed_count(&channel->options.counters->flushes, 1);
    l1_drop_all(channel->shared->l1);
}

static struct origin *find_origin(struct channel *channel, struct slice id)
{
    for (size_t i = 0; i < channel->norigins; i++) {
        if (memcmp(channel->origins[i].id, id.p, ORIGIN_MAX - 1) == 0) {
            return &channel->origins[i];
        }
    }
    return NULL;
}

/* Nothing of it was missed if it has said nothing before; otherwise nobody knows. */
static struct origin *add_origin(struct channel *channel, struct slice id)
{
    if (channel->norigins == ORIGINS_MAX) {
        channel->norigins = 0; /* each of them will be new again */
        miss(channel);
    }
    struct origin *origin = &channel->origins[channel->norigins++];
    memcpy(origin->id, id.p, ORIGIN_MAX - 1);
    origin->seq = 0;
    return origin;
}

static void drop_keys(struct channel *channel, struct slice bulks)
{
    struct l1 *l1 = channel->shared->l1;
    struct slice key;
    while (bulks.n > 0) {
        if (!message_take_string(&bulks, &key)) {
            miss(channel); /* cut short */
            return;
        }
        feed_count(&channel->options.counters->invalidations, 1);
        l1_invalidate(l1, l1_hash(l1, key));
    }
}

/* "K ORIGIN SEQ\r\n"; the rest stays in *text. */
static bool take_head(struct slice *text, char *kind, struct slice *id, uint64_t *seq)
{
    const size_t fixed = 2 + ORIGIN_MAX; /* kind, blank, origin, blank */
    const char *end = text->n <= fixed ? NULL : memchr(text->p, '\r', text->n);
    int64_t n = 0;
    if (end == NULL || (size_t)(end - text->p) <= fixed || text->p[1] != ' ' ||
        text->p[fixed - 1] != ' ' || (size_t)(end - text->p) + 2 > text->n ||
        !slice_to_int64(slice_of(text->p + fixed, (size_t)(end - text->p) - fixed), &n) || n < 0) {
        return false;
    }
    *kind = text->p[0];
    *id = slice_of(text->p + 2, ORIGIN_MAX - 1);
    *seq = (uint64_t)n;
    *text = slice_of(end + 2, text->n - (size_t)(end + 2 - text->p));
    return true;
}

void channel_hear(struct channel *channel, struct slice text)
{
    char kind = 0;
    struct slice id = {0};
    uint64_t seq = 0;
    if (slice_eq(text, CHANNEL_TEST)) {
        return;
    }
    if (!take_head(&text, &kind, &id, &seq) || (kind != 'k' && kind != 'f' && kind != 'h')) {
        miss(channel); /* anybody may publish anything: it may well mean something */
        return;
    }
    if (memcmp(id.p, channel->id, ORIGIN_MAX - 1) == 0) {
        return; /* our own: write-begin and -end have seen to it */
    }
    struct origin *origin = find_origin(channel, id);
    if (origin == NULL) {
        origin = add_origin(channel, id);
    }
    uint64_t expected = kind == 'h' ? origin->seq : origin->seq + 1;
    bool follows = seq == expected;
    origin->seq = seq;
    origin->heard = channel->shared->now();
    if (!follows || kind == 'f') {
        miss(channel);
    } else if (kind == 'k') {
        drop_keys(channel, text);
    }
}

void channel_forget(struct channel *channel)
{
    channel->norigins = 0;
}

/* ---- Life ---------------------------------------------------------------------------------- */

/* What waited in the outbox goes at once, and with it the news that we are here. */
static void on_up(struct conn *conn, void *ctx)
{
    struct channel *channel = ctx;
    (void)conn;
    ev_feed_event(channel->options.loop, &channel->beat, EV_TIMER);
}

static const struct conn_events PUBLISHER_EVENTS = {.up = on_up};

struct channel *channel_create(const struct channel_options *options)
{
    struct channel *channel = mem_zalloc(sizeof(*channel));
    uint64_t random = 0;
    channel->options = *options;
    channel->feeds = options->feeds;
    channel->shared = &options->feeds->options;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        random = (uint64_t)channel->shared->now() ^ (uint64_t)(uintptr_t)channel;
    }
    (void)snprintf(channel->id, sizeof(channel->id), "%016" PRIx64, random);
    channel->origins = mem_zalloc(ORIGINS_MAX * sizeof(*channel->origins));
    channel->call.ops = &PUBLISH_OPS;
    channel->conn = conn_create(&(struct conn_options){
        .loop = options->loop,
        .node = channel->shared->node,
        .role = "announcements",
        .now = channel->shared->now,
        .read_buffer = options->read_buffer,
        .read_size = options->read_size,
        .events = &PUBLISHER_EVENTS,
        .ctx = channel,
    });
    double every = (double)channel->shared->link_lease_ms / 4.0 / 1000.0;
    ev_timer_init(&channel->beat, on_beat, every, every);
    ev_timer_start(options->loop, &channel->beat);
    ev_async_init(&channel->wake, on_wake);
    ev_async_start(options->loop, &channel->wake);
    pthread_mutex_lock(&channel->feeds->lock);
    channel->feeds->outbox.loop = options->loop;
    channel->feeds->outbox.wake = &channel->wake;
    pthread_mutex_unlock(&channel->feeds->lock);
    conn_open(channel->conn);
    return channel;
}

void channel_destroy(struct channel *channel)
{
    if (channel == NULL) {
        return;
    }
    publish(channel); /* the last words, as far as the socket takes them */
    pthread_mutex_lock(&channel->feeds->lock);
    channel->feeds->outbox.loop = NULL;
    pthread_mutex_unlock(&channel->feeds->lock);
    ev_timer_stop(channel->options.loop, &channel->beat);
    ev_async_stop(channel->options.loop, &channel->wake);
    conn_destroy(channel->conn);
    mem_free(channel->origins);
    mem_free(channel);
}

void channel_flush(struct channel *channel)
{
    conn_flush(channel->conn);
}

void channel_tick(struct channel *channel, int64_t now)
{
    conn_tick(channel->conn, now);
    for (size_t i = 0; i < channel->norigins;) {
        struct origin *origin = &channel->origins[i];
        if (now - origin->heard > channel->shared->link_lease_ms) {
            *origin = channel->origins[--channel->norigins];
            miss(channel); /* it ended, or what it said is lost */
        } else {
            i++;
        }
    }
    atomic_store_explicit(&channel->feeds->peers, (unsigned)channel->norigins,
                          memory_order_relaxed);
}
