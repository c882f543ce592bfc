/* SPDX-License-Identifier: Apache-2.0
 *
 * host.c: worker 0's part of the feeds: the link I of the present mode, and which mode that is.
 *
 *   tracking ──refused──► redirect ──refused──► broadcast ──refused──► keyspace ──refused──► none
 *      ▲                     ▲                     ▲                      ▲                   │
 *      └─────────────────────┴──────── a trial on the side was granted ───┴───────────────────┘
 *
 * Refused is what the server will say again (refusal_is_lasting): a link that is merely down, or a
 * server that loads, changes nothing. A trial brings a connection of its own up as the mode wants it,
 * and closes it. The wait before the next one doubles from 1 s to 60 s; a mode that is refused again
 * within a minute of being taken goes on from the wait it had, so nothing flaps.
 *
 * Everything that destroys a link happens in host_tick, never in a callback of that link. A change of
 * plan comes first and takes all covers down, then the old link goes.
 *
 * Threads: worker 0's.
 */
#include "feed_priv.h"

#include "../conf/mem.h"

#include <stdio.h>

#define TRIAL_MS    3000 /* longer without an answer is no answer */
#define WAIT_MIN_MS 1000
#define WAIT_MAX_MS 60000
#define SETTLED_MS  60000 /* in force for so long: the wait begins anew */

enum outcome { OUTCOME_OPEN, OUTCOME_GRANTED, OUTCOME_REFUSED };

/* A mode, as far as the choice goes. */
struct rung {
    bool refused;
    int64_t wait_ms; /* before the next trial */
    int64_t trial_at;
    int64_t taken_at; /* when it came into force last; 0: never */
};

struct trial {
    enum feed_mode mode;
    struct conn *conn; /* of tracking */
    struct subscriber *sub;
    enum outcome outcome;
    char text[ERR_MAX];
    int64_t until;
    struct feed_counters counters; /* nobody's */
};

struct host {
    struct host_options options;
    struct feeds *feeds;
    const struct feeds_options *shared;
    enum feed_mode mode; /* in force */
    struct subscriber *link;
    struct watch *watch;
    struct channel *channel;
    bool fails;            /* the mode is refused or withdrawn: act at the next tick */
    bool said;             /* fixed mode: refused, and said so */
    char failure[ERR_MAX]; /* how */
    struct rung rungs[FEED_NONE];
    struct trial *trial;
    struct log_limit passing_log;
};

static uint16_t link_cover(const struct host *host)
{
    return feeds_link_cover(host->feeds, host->mode);
}

static void note_link(struct host *host, bool up)
{
    atomic_store_explicit(&host->feeds->link_up, up, memory_order_relaxed);
}

/* ---- The link ------------------------------------------------------------------------------ */

static void say_accepted(struct host *host)
{
    feeds_note_refused(host->feeds, host->mode, "");
    if (host->said) {
        host->said = false;
        atomic_fetch_sub_explicit(&host->feeds->nrefused, 1, memory_order_relaxed);
        log_event(LOG_INFO, "reads use L1 again: %s accepts %s", node_name(host->shared->node),
                  feed_mode_name(host->mode));
    }
}

static void on_link_up(void *ctx, int64_t t_ok)
{
    struct host *host = ctx;
    struct feeds *feeds = host->feeds;
    uint64_t generation = node_generation(host->shared->node);
    if (!subscriber_is_current(host->link)) {
        return; /* it is about to be lost */
    }
    note_link(host, true);
    say_accepted(host);
    if (host->mode == FEED_REDIRECT) {
        atomic_store_explicit(&feeds->link_ok, t_ok, memory_order_release);
        feeds_set_plan(feeds, (struct plan){.mode = host->mode,
                                            .redirect = subscriber_peer_id(host->link),
                                            .generation = generation});
        return;
    }
    if (host->channel != NULL) {
        channel_forget(host->channel);
    }
    l1_cover_up(host->shared->l1, link_cover(host), t_ok + host->shared->link_lease_ms);
    /* Either we see that another server process was found, or whoever found it takes down what is up
     * now (C3). */
    atomic_thread_fence(memory_order_seq_cst);
    if (!subscriber_is_current(host->link)) {
        l1_cover_down(host->shared->l1, link_cover(host));
    }
}

static void on_link_renewed(void *ctx, int64_t t_ok)
{
    struct host *host = ctx;
    if (host->mode == FEED_REDIRECT) {
        /* release: everything that came before the PONG has been applied (C11) */
        atomic_store_explicit(&host->feeds->link_ok, t_ok, memory_order_release);
    } else {
        l1_cover_renew(host->shared->l1, link_cover(host), t_ok + host->shared->link_lease_ms);
    }
}

static void on_link_lost(void *ctx)
{
    struct host *host = ctx;
    note_link(host, false);
    if (host->mode == FEED_REDIRECT) {
        atomic_store_explicit(&host->feeds->link_ok, INT64_MIN, memory_order_release);
        feeds_set_plan(host->feeds, (struct plan){.mode = host->mode});
    } else {
        l1_cover_down(host->shared->l1, link_cover(host));
    }
}

static void on_link_refused(void *ctx, const char *step, const char *text, bool lasting)
{
    struct host *host = ctx;
    const char *node = node_name(host->shared->node);
    uint64_t more = 0;
    if (lasting && host->shared->automatic) {
        host->fails = true;
        (void)snprintf(host->failure, sizeof(host->failure), "%s: %s", step, text);
        return;
    }
    if (!lasting) {
        if (log_allow(&host->passing_log, host->shared->now(), LOG_EVERY_MS, &more)) {
            log_event(LOG_WARN,
                      "reads go past L1: %s refuses %s: %s; trying again; refusals not "
                      "logged: %llu",
                      node, step, text, (unsigned long long)more);
        }
        return;
    }
    char how[ERR_MAX];
    (void)snprintf(how, sizeof(how), "%s: %s", step, text);
    feeds_note_refused(host->feeds, host->mode, how);
    if (!host->said) {
        host->said = true;
        atomic_fetch_add_explicit(&host->feeds->nrefused, 1, memory_order_relaxed);
        log_event(LOG_WARN,
                  "reads go past L1 from now on: %s refuses %s, without which nothing can be kept "
                  "coherent: %s; trying again every %d s at most, saying so when it works",
                  node, step, text, REFUSED_RETRY_MS / 1000);
    }
}

static void on_changed(void *ctx, struct slice key)
{
    struct l1 *l1 = ((struct host *)ctx)->shared->l1;
    l1_invalidate(l1, l1_hash(l1, key));
}

static void on_flushed(void *ctx)
{
    l1_drop_all(((struct host *)ctx)->shared->l1);
}

static void on_heard(void *ctx, struct slice text)
{
    struct host *host = ctx;
    if (host->channel != NULL) {
        channel_hear(host->channel, text);
    }
}

static const struct subscriber_events LINK_EVENTS = {
    .heard = on_heard,
    .up = on_link_up,
    .renewed = on_link_renewed,
    .lost = on_link_lost,
    .refused = on_link_refused,
    .changed = on_changed,
    .flushed = on_flushed,
};

static struct subscriber *create_link(struct host *host)
{
    return subscriber_create(&(struct subscriber_options){
        .feeds = host->feeds,
        .mode = host->mode,
        .loop = host->options.loop,
        .read_buffer = host->options.read_buffer,
        .read_size = host->options.read_size,
        .counters = host->options.counters,
        .events = &LINK_EVENTS,
        .ctx = host,
    });
}

/* ---- The watch ----------------------------------------------------------------------------- */

static void on_watch_flushed(void *ctx)
{
    struct host *host = ctx;
    feed_count(&host->options.counters->flushes, 1);
    l1_drop_all(host->shared->l1);
}

static void on_silenced(void *ctx, const char *text)
{
    struct host *host = ctx;
    if (host->link != NULL && subscriber_is_up(host->link)) { /* else its bring-up sees to it */
        host->fails = true;
        (void)snprintf(host->failure, sizeof(host->failure), "%s", text);
    }
}

static const struct watch_events WATCH_EVENTS = {
    .flushed = on_watch_flushed,
    .silenced = on_silenced,
};

static bool has_watch(enum feed_mode mode)
{
    return mode == FEED_TRACKING || mode == FEED_REDIRECT || mode == FEED_KEYSPACE;
}

/* ---- Choosing ------------------------------------------------------------------------------ */

static void open_links(struct host *host)
{
    host->fails = false;
    if (host->mode == FEED_CHANNEL) {
        host->channel = channel_create(&(struct channel_options){
            .feeds = host->feeds,
            .loop = host->options.loop,
            .read_buffer = host->options.read_buffer,
            .read_size = host->options.read_size,
            .counters = host->options.counters,
        });
    }
    if (feed_mode_has_link(host->mode)) {
        host->link = create_link(host);
    }
    if (has_watch(host->mode)) {
        host->watch = watch_create(&(struct watch_options){
            .feeds = host->feeds,
            .mode = host->mode,
            .loop = host->options.loop,
            .read_buffer = host->options.read_buffer,
            .read_size = host->options.read_size,
            .events = &WATCH_EVENTS,
            .ctx = host,
        });
    }
}

/* Covers are down by now. */
static void close_links(struct host *host)
{
    struct subscriber *link = host->link;
    host->link = NULL; /* fences whose PING is lost look for it */
    note_link(host, false);
    subscriber_destroy(link);
    watch_destroy(host->watch);
    host->watch = NULL;
    channel_destroy(host->channel);
    host->channel = NULL;
}

static void take_mode(struct host *host, enum feed_mode mode)
{
    feeds_set_plan(host->feeds, (struct plan){.mode = mode});
    close_links(host);
    host->mode = mode;
    if (mode != FEED_NONE) {
        host->rungs[mode].taken_at = host->shared->now();
    }
    open_links(host);
}

static enum feed_mode strongest(const struct host *host)
{
    enum feed_mode mode = FEED_TRACKING;
    while (mode < FEED_CHANNEL && host->rungs[mode].refused) {
        mode++;
    }
    return mode < FEED_CHANNEL ? mode : FEED_NONE;
}

static void fall(struct host *host, const char *how)
{
    struct rung *rung = &host->rungs[host->mode];
    enum feed_mode from = host->mode;
    const char *node = node_name(host->shared->node);
    int64_t now = host->shared->now();
    bool flaps = rung->wait_ms > 0 && now - rung->taken_at < SETTLED_MS;
    rung->refused = true;
    rung->wait_ms = !flaps                            ? WAIT_MIN_MS
                    : 2 * rung->wait_ms > WAIT_MAX_MS ? WAIT_MAX_MS
                                                      : 2 * rung->wait_ms;
    rung->trial_at = now + rung->wait_ms;
    feeds_note_refused(host->feeds, from, how);
    take_mode(host, strongest(host));
    if (host->mode != FEED_NONE) {
        log_event(LOG_WARN,
                  "invalidation falls from %s to %s: %s refuses %s; L1 starts empty; tried again "
                  "from time to time",
                  feed_mode_name(from), feed_mode_name(host->mode), node, how);
    } else {
        log_event(LOG_WARN,
                  "reads go past L1 from now on: %s refuses %s too, and nothing is left that could "
                  "keep it coherent; everything is tried again from time to time",
                  node, how);
    }
}

static void climb(struct host *host, enum feed_mode mode)
{
    enum feed_mode from = host->mode;
    host->rungs[mode].refused = false;
    feeds_note_refused(host->feeds, mode, "");
    take_mode(host, mode);
    log_event(LOG_INFO, "%s%s: %s accepts it; L1 starts empty",
              from == FEED_NONE ? "reads use L1 again, invalidation is "
                                : "invalidation climbs to ",
              feed_mode_name(mode), node_name(host->shared->node));
}

/* ---- Trials -------------------------------------------------------------------------------- */

static void decide(struct trial *trial, enum outcome outcome, const char *step, const char *text)
{
    trial->outcome = outcome;
    (void)snprintf(trial->text, sizeof(trial->text), "%s: %s", step, text);
}

static void on_trial_conn_up(struct conn *conn, void *ctx)
{
    (void)conn;
    decide(ctx, OUTCOME_GRANTED, "", "");
}

static void on_trial_conn_refused(struct conn *conn, const char *step, const char *text, void *ctx)
{
    (void)conn;
    decide(ctx, OUTCOME_REFUSED, step, text);
}

static const struct conn_events TRIAL_CONN_EVENTS = {
    .up = on_trial_conn_up,
    .refused = on_trial_conn_refused,
};

static void on_trial_up(void *ctx, int64_t t_ok)
{
    (void)t_ok;
    decide(ctx, OUTCOME_GRANTED, "", "");
}

static void on_trial_refused(void *ctx, const char *step, const char *text, bool lasting)
{
    (void)lasting;
    decide(ctx, OUTCOME_REFUSED, step, text);
}

static void ignore_renewed(void *ctx, int64_t t_ok)
{
    (void)ctx;
    (void)t_ok;
}

static void ignore_key(void *ctx, struct slice key)
{
    (void)ctx;
    (void)key;
}

static void ignore(void *ctx)
{
    (void)ctx;
}

static const struct subscriber_events TRIAL_EVENTS = {
    .up = on_trial_up,
    .renewed = ignore_renewed,
    .lost = ignore,
    .refused = on_trial_refused,
    .changed = ignore_key,
    .flushed = ignore,
};

static void begin_trial(struct host *host, enum feed_mode mode)
{
    struct trial *trial = mem_zalloc(sizeof(*trial));
    trial->mode = mode;
    trial->until = host->shared->now() + TRIAL_MS;
    host->trial = trial;
    if (mode != FEED_TRACKING) {
        trial->sub = subscriber_create(&(struct subscriber_options){
            .feeds = host->feeds,
            .mode = mode,
            .loop = host->options.loop,
            .read_buffer = host->options.read_buffer,
            .read_size = host->options.read_size,
            .trial = true,
            .counters = &trial->counters,
            .events = &TRIAL_EVENTS,
            .ctx = trial,
        });
        return;
    }
    trial->conn = conn_create(&(struct conn_options){
        .loop = host->options.loop,
        .node = host->shared->node,
        .role = "trial of invalidations",
        .quiet = true,
        .db = host->shared->db,
        .resp3 = true,
        .tracking = true,
        .now = host->shared->now,
        .read_buffer = host->options.read_buffer,
        .read_size = host->options.read_size,
        .events = &TRIAL_CONN_EVENTS,
        .ctx = trial,
    });
    conn_open(trial->conn);
}

static void end_trial(struct host *host)
{
    struct trial *trial = host->trial;
    host->trial = NULL;
    if (trial != NULL) {
        conn_destroy(trial->conn);
        subscriber_destroy(trial->sub);
        mem_free(trial);
    }
}

static void finish_trial(struct host *host, int64_t now)
{
    struct trial *trial = host->trial;
    struct rung *rung = &host->rungs[trial->mode];
    enum feed_mode mode = trial->mode;
    bool granted = trial->outcome == OUTCOME_GRANTED;
    if (trial->outcome == OUTCOME_OPEN && now < trial->until) {
        return;
    }
    if (trial->outcome == OUTCOME_REFUSED) {
        feeds_note_refused(host->feeds, mode, trial->text);
    }
    end_trial(host);
    rung->wait_ms = granted                           ? rung->wait_ms
                    : 2 * rung->wait_ms > WAIT_MAX_MS ? WAIT_MAX_MS
                                                      : 2 * rung->wait_ms;
    rung->trial_at = now + rung->wait_ms;
    if (granted && mode < host->mode) {
        climb(host, mode);
    }
}

/* One at a time, the strongest that is due. */
static void try_stronger(struct host *host, int64_t now)
{
    for (enum feed_mode mode = FEED_TRACKING; mode < host->mode && mode < FEED_CHANNEL; mode++) {
        if (host->rungs[mode].refused && now >= host->rungs[mode].trial_at) {
            begin_trial(host, mode);
            return;
        }
    }
}

/* ---- Life ---------------------------------------------------------------------------------- */

struct host *host_create(const struct host_options *options)
{
    struct host *host = mem_zalloc(sizeof(*host));
    host->options = *options;
    host->feeds = options->feeds;
    host->shared = &options->feeds->options;
    host->mode = feeds_plan(host->feeds).mode;
    return host;
}

/* A host that went on from another one's mode tries again what that one was refused. */
static void recall_refused(struct host *host, int64_t now)
{
    for (enum feed_mode mode = FEED_TRACKING; mode < host->mode && mode < FEED_CHANNEL; mode++) {
        if (feeds_is_refused(host->feeds, mode)) {
            struct rung *rung = &host->rungs[mode];
            rung->refused = true;
            rung->wait_ms = WAIT_MIN_MS;
            rung->trial_at = now + WAIT_MIN_MS;
        }
    }
}

void host_start(struct host *host)
{
    int64_t now = host->shared->now();
    recall_refused(host, now);
    if (host->mode != FEED_NONE) {
        host->rungs[host->mode].taken_at = now;
    }
    open_links(host);
}

void host_destroy(struct host *host)
{
    if (host == NULL) {
        return;
    }
    for (enum feed_mode mode = FEED_BROADCAST; mode < FEED_NONE; mode++) {
        l1_cover_down(host->shared->l1, feeds_link_cover(host->feeds, mode));
    }
    if (host->mode == FEED_REDIRECT) {
        atomic_store_explicit(&host->feeds->link_ok, INT64_MIN, memory_order_release);
        feeds_set_plan(host->feeds, (struct plan){.mode = host->mode}); /* I's id is of the past */
    }
    if (host->said) {
        atomic_fetch_sub_explicit(&host->feeds->nrefused, 1, memory_order_relaxed);
    }
    end_trial(host);
    close_links(host);
    mem_free(host);
}

struct subscriber *host_link(struct host *host)
{
    return host->link;
}

void host_flush(struct host *host)
{
    if (host->link != NULL) {
        subscriber_flush(host->link);
    }
    if (host->watch != NULL) {
        watch_flush(host->watch);
    }
    if (host->channel != NULL) {
        channel_flush(host->channel);
    }
    if (host->trial != NULL && host->trial->sub != NULL) {
        subscriber_flush(host->trial->sub);
    }
}

static void tick_links(struct host *host, int64_t now)
{
    if (host->link != NULL) {
        subscriber_tick(host->link, now);
    }
    if (host->watch != NULL) {
        watch_tick(host->watch, now);
    }
    if (host->channel != NULL) {
        channel_tick(host->channel, now);
    }
    if (host->trial != NULL && host->trial->sub != NULL) {
        subscriber_tick(host->trial->sub, now);
    }
    if (host->trial != NULL && host->trial->conn != NULL) {
        conn_tick(host->trial->conn, now);
    }
}

void host_tick(struct host *host, int64_t now)
{
    tick_links(host, now);
    if (feeds_take_report(host->feeds, host->failure)) {
        host->fails = true;
    }
    if (host->fails && host->shared->automatic) {
        fall(host, host->failure);
    } else if (host->fails) {
        take_mode(host, host->mode); /* withdrawn: its bring-up will say so, and go on asking */
    }
    if (!host->shared->automatic) {
        return;
    }
    if (host->trial != NULL) {
        finish_trial(host, now);
    } else {
        try_stronger(host, now);
    }
}
