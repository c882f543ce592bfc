/* SPDX-License-Identifier: Apache-2.0
 *
 * feed_priv.h: what the files of this folder share.
 *
 *   feeds.c       struct feeds: the plan that all feeds follow, refusals, status
 *   feed.c        struct feed: one worker's F
 *   host.c        worker 0's part: I, the choice of the mode, trials of refused ones
 *   subscriber.c  a link I: bring-up of its mode, messages, PINGs
 *   watch.c       what is asked of the server now and then
 *
 * A plan says what every F is to be. Only the host makes a new one; it raises the serial first and
 * takes the covers down after that, and a feed that brings a cover up looks at the serial again
 * behind it: whatever the order, no cover of an older plan stays up (feeds_is_current).
 */
#pragma once

#include "feed.h"
#include "message.h"

#include "../conf/log.h"

#include <pthread.h>

#define REFUSED_RETRY_MS 10000
#define LOG_EVERY_MS     10000

/* ---- feeds.c ------------------------------------------------------------------------------- */

struct plan {
    uint64_t serial; /* of the plans of this process, from 1 */
    enum feed_mode mode;
    int64_t redirect;    /* redirect: I's client id; 0: I is not up, no F is wanted */
    uint64_t generation; /* redirect: of the node, as I saw it (I2) */
};

/* What is to be published; channel.c's, under the lock. */
#define OUTBOX_MAX ((size_t)1024 * 1024)
struct outbox {
    char *text;
    size_t n, cap;
    bool all;
    struct ev_loop *loop; /* whom to wake; NULL: nobody yet, or no more */
    struct ev_async *wake;
};

struct feeds {
    struct feeds_options options;
    struct outbox outbox;
    _Atomic unsigned peers; /* relaxed */
    char *prefix_text;      /* of the options, cut up */
    struct slice *prefixes;
    size_t nprefixes;

    pthread_mutex_t lock; /* plan, rungs' texts, reported */
    struct plan plan;
    char refused[FEED_NONE][ERR_MAX]; /* by mode: how; "" when it is not */
    bool has_report;
    uint64_t reported_serial;
    char reported[ERR_MAX]; /* a feed's F was refused under that plan */

    _Atomic uint64_t serial; /* the plan's; seq_cst, see above */
    _Atomic int mode;        /* the plan's; relaxed */
    _Atomic int64_t link_ok; /* redirect: t_ok of I; acquire and release (C11) */
    _Atomic bool link_up;    /* the rest relaxed, for status */
    _Atomic uint64_t changes;
    _Atomic unsigned nrefused; /* Fs (and I) of a fixed mode that are refused: said once */
    _Atomic int64_t table_keys, table_max;
};

bool feed_mode_has_link(enum feed_mode mode);
/* Is I alone the cover? */
bool feed_mode_link_covers(enum feed_mode mode);
/* The cover of that worker's F; I's in a mode whose I is the cover. */
uint16_t feeds_fill_cover(const struct feeds *feeds, unsigned index);
uint16_t feeds_link_cover(const struct feeds *feeds, enum feed_mode mode);

/* The present plan. */
struct plan feeds_plan(struct feeds *feeds);
/* Host only: the next plan (its serial is set here), and all covers down. */
void feeds_set_plan(struct feeds *feeds, struct plan plan);
/* Call behind l1_cover_up. */
bool feeds_is_current(struct feeds *feeds, uint64_t serial);

/* An F was refused something that its mode cannot do without, for good. */
void feeds_report(struct feeds *feeds, uint64_t serial, const char *step, const char *text);
/* Takes the report, if there is one about the present plan. */
bool feeds_take_report(struct feeds *feeds, char text[ERR_MAX]);
void feeds_note_refused(struct feeds *feeds, enum feed_mode mode, const char *text);
bool feeds_is_refused(struct feeds *feeds, enum feed_mode mode);

/* Will the server say the same to the next attempts? Not when it is busy, full, loading or waits
 * for another password. */
bool refusal_is_lasting(const char *text);

/* ---- Counters of a feed -------------------------------------------------------------------- */

/* Written by the feed's worker only: a plain load and store is enough. */
struct feed_counters {
    _Atomic uint64_t invalidations;
    _Atomic uint64_t flushes;
    _Atomic uint64_t lapses;
    _Atomic uint64_t losses;
    _Atomic uint64_t refusals;
};

static inline void feed_count(_Atomic uint64_t *counter, uint64_t n)
{
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, old + n, memory_order_relaxed);
}

/* The link lease of one link (C6): shared by F and I. */
struct lease_clock {
    int64_t t_ok;        /* of the present link */
    bool lapsed;         /* now is past t_ok + L, and that has been counted */
    int64_t alive_since; /* newest answer to a PING; later after a standstill of ours */
    int64_t last_tick;
    struct log_limit lapse_log;
};

/* A link has come up with that t_ok. */
void lease_clock_start(struct lease_clock *clock, int64_t t_ok, int64_t now);
/* A PONG was processed. */
void lease_clock_renew(struct lease_clock *clock, const struct feeds *feeds, int64_t t_ok,
                       int64_t now);
/* True when it has just lapsed. */
bool lease_clock_lapses(struct lease_clock *clock, const struct feeds *feeds, int64_t now,
                        const char *role);
/* Each tick; true when nothing was heard for so long that the link is to be given up. */
bool lease_clock_tick(struct lease_clock *clock, const struct feeds *feeds, int64_t now);

/* ---- subscriber.c -------------------------------------------------------------------------- */

struct subscriber;

/* Called from the loop, ticks and flushes, never from inside subscriber_fence. None may destroy the
 * subscriber. */
struct subscriber_events {
    void (*up)(void *ctx, int64_t t_ok);      /* subscribed, and answered its first PINGs */
    void (*renewed)(void *ctx, int64_t t_ok); /* everything received before has been told */
    void (*lost)(void *ctx);                  /* was up */
    void (*refused)(void *ctx, const char *step, const char *text, bool lasting);
    void (*changed)(void *ctx, struct slice key);
    void (*flushed)(void *ctx);                  /* all keys, or something that may mean it */
    void (*heard)(void *ctx, struct slice text); /* channel: a message */
};

struct subscriber_options {
    const struct feeds *feeds;
    enum feed_mode mode;
    struct ev_loop *loop;
    char *read_buffer;
    size_t read_size;
    bool trial; /* finds out whether the server grants the mode, no more */
    struct feed_counters *counters;
    const struct subscriber_events *events;
    void *ctx;
};

struct subscriber *subscriber_create(const struct subscriber_options *options);
/* Not from inside its events. Open PINGs end as lost. Accepts NULL. */
void subscriber_destroy(struct subscriber *sub);
void subscriber_flush(struct subscriber *sub);
void subscriber_tick(struct subscriber *sub, int64_t now);
bool subscriber_is_up(const struct subscriber *sub);
/* Leads to the server process the node stands for now. */
bool subscriber_is_current(const struct subscriber *sub);
/* Its client id at the server; 0 unless it is up. */
int64_t subscriber_peer_id(const struct subscriber *sub);
/* A PING for a fence; call->ops is the caller's. CONN_DOWN unless it is up. */
MUST_CHECK enum conn_status subscriber_ping(struct subscriber *sub, struct call *call);

/* ---- watch.c ------------------------------------------------------------------------------- */

struct watch;

struct watch_events {
    void (*flushed)(void *ctx); /* keyspace: a flush or SWAPDB was executed somewhere */
    void (*silenced)(void *ctx, const char *text); /* keyspace: notifications are not as they must
                                                      be any more */
};

struct watch_options {
    struct feeds *feeds;
    enum feed_mode mode;
    struct ev_loop *loop;
    char *read_buffer;
    size_t read_size;
    const struct watch_events *events;
    void *ctx;
};

struct watch *watch_create(const struct watch_options *options);
/* Not from inside its events. Accepts NULL. */
void watch_destroy(struct watch *watch);
void watch_flush(struct watch *watch);
void watch_tick(struct watch *watch, int64_t now);

/* Do these flags announce every change of a key? */
bool notify_flags_suffice(struct slice flags);

/* ---- channel.c ----------------------------------------------------------------------------- */

struct channel;

struct channel_options {
    struct feeds *feeds;
    struct ev_loop *loop;
    char *read_buffer;
    size_t read_size;
    struct feed_counters *counters;
};

/* What is published to find out whether that is allowed; means nothing. */
#define CHANNEL_TEST SLICE("t")

struct channel *channel_create(const struct channel_options *options);
/* Accepts NULL. */
void channel_destroy(struct channel *channel);
void channel_flush(struct channel *channel);
void channel_tick(struct channel *channel, int64_t now);
/* A message came on I. */
void channel_hear(struct channel *channel, struct slice text);
/* I is up anew: nothing is known of anybody. */
void channel_forget(struct channel *channel);

/* ---- host.c -------------------------------------------------------------------------------- */

struct host;

struct host_options {
    struct feeds *feeds;
    struct ev_loop *loop;
    char *read_buffer;
    size_t read_size;
    struct feed_counters *counters;
};

struct host *host_create(const struct host_options *options);
void host_start(struct host *host);
/* Covers down first, then the links. Accepts NULL. */
void host_destroy(struct host *host);
void host_flush(struct host *host);
void host_tick(struct host *host, int64_t now);
/* The link fences have to ask; NULL: none. */
struct subscriber *host_link(struct host *host);
