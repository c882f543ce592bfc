/* SPDX-License-Identifier: Apache-2.0
 *
 * feeds.c: what the feeds of a process share: the plan they follow, what was refused, which cover
 * stands for what.
 *
 *   covers, from first_cover on   workers   F of each worker (tracking, redirect)
 *                                 1         I in broadcast
 *                                 1         I in keyspace
 *                                 1         I in channel
 *
 * Each mode has covers of its own, so that a worker that has not followed the newest plan yet can
 * only use a cover that is down.
 *
 * Threads: any. The lock is held for copies only. Not here: when the plan changes (host.c), and what
 * it means for an F (feed.c).
 */
#include "feed_priv.h"

#include "../conf/mem.h"

#include <stdio.h>

static const char *const MODE_NAMES[] = {
    [FEED_TRACKING] = "tracking", [FEED_REDIRECT] = "redirect", [FEED_BROADCAST] = "broadcast",
    [FEED_KEYSPACE] = "keyspace", [FEED_CHANNEL] = "channel",   [FEED_NONE] = "refused",
};

const char *feed_mode_name(enum feed_mode mode)
{
    return MODE_NAMES[mode];
}

bool feed_mode_has_link(enum feed_mode mode)
{
    return mode == FEED_REDIRECT || feed_mode_link_covers(mode);
}

bool feed_mode_link_covers(enum feed_mode mode)
{
    return mode == FEED_BROADCAST || mode == FEED_KEYSPACE || mode == FEED_CHANNEL;
}

uint32_t feeds_covers(unsigned workers)
{
    return workers + 3;
}

uint16_t feeds_fill_cover(const struct feeds *feeds, unsigned index)
{
    return (uint16_t)(feeds->options.first_cover + index);
}

uint16_t feeds_link_cover(const struct feeds *feeds, enum feed_mode mode)
{
    return feeds_fill_cover(feeds, feeds->options.workers + (unsigned)mode - FEED_BROADCAST);
}

/* ---- Life ---------------------------------------------------------------------------------- */

static void cut_prefixes(struct feeds *feeds)
{
    size_t n = strlen(feeds->options.prefixes);
    feeds->prefix_text = mem_alloc(n + 1);
    memcpy(feeds->prefix_text, feeds->options.prefixes, n + 1);
    feeds->prefixes = mem_alloc((n / 2 + 1) * sizeof(*feeds->prefixes));
    const char *p = feeds->prefix_text;
    for (p += strspn(p, " "); *p != '\0'; p += strspn(p, " ")) {
        feeds->prefixes[feeds->nprefixes++] = slice_of(p, strcspn(p, " "));
        p += strcspn(p, " ");
    }
    feeds->options.prefixes = feeds->prefix_text;
}

struct feeds *feeds_create(const struct feeds_options *options)
{
    struct feeds *feeds = mem_zalloc(sizeof(*feeds));
    bug_on(!options->automatic && options->mode == FEED_NONE);
    feeds->options = *options;
    if (options->prefixes == NULL) {
        feeds->options.prefixes = "";
    }
    cut_prefixes(feeds);
    pthread_mutex_init(&feeds->lock, NULL);
    feeds->plan =
        (struct plan){.serial = 1, .mode = options->automatic ? FEED_TRACKING : options->mode};
    atomic_store(&feeds->serial, 1);
    atomic_store_explicit(&feeds->mode, (int)feeds->plan.mode, memory_order_relaxed);
    atomic_store_explicit(&feeds->link_ok, INT64_MIN, memory_order_relaxed);
    atomic_store_explicit(&feeds->table_keys, -1, memory_order_relaxed);
    atomic_store_explicit(&feeds->table_max, -1, memory_order_relaxed);
    return feeds;
}

void feeds_destroy(struct feeds *feeds)
{
    if (feeds == NULL) {
        return;
    }
    pthread_mutex_destroy(&feeds->lock);
    mem_free(feeds->outbox.text);
    mem_free(feeds->prefixes);
    mem_free(feeds->prefix_text);
    mem_free(feeds);
}

/* ---- The plan ------------------------------------------------------------------------------ */

struct plan feeds_plan(struct feeds *feeds)
{
    pthread_mutex_lock(&feeds->lock);
    struct plan plan = feeds->plan;
    pthread_mutex_unlock(&feeds->lock);
    return plan;
}

void feeds_down(struct feeds *feeds)
{
    uint32_t n = feeds_covers(feeds->options.workers);
    for (uint32_t i = 0; i < n; i++) {
        l1_cover_down(feeds->options.l1, feeds_fill_cover(feeds, i));
    }
}

void feeds_set_plan(struct feeds *feeds, struct plan plan)
{
    pthread_mutex_lock(&feeds->lock);
    bool changes = plan.mode != feeds->plan.mode;
    plan.serial = feeds->plan.serial + 1;
    feeds->plan = plan;
    pthread_mutex_unlock(&feeds->lock);
    atomic_store_explicit(&feeds->mode, (int)plan.mode, memory_order_relaxed);
    if (changes) {
        atomic_fetch_add_explicit(&feeds->changes, 1, memory_order_relaxed);
    }
    /* seq_cst, as are the fences in feeds_is_current: either the feed that raises a cover sees this
     * serial, or its cover is up before we take it down. */
    atomic_store(&feeds->serial, plan.serial);
    atomic_thread_fence(memory_order_seq_cst);
    feeds_down(feeds);
}

bool feeds_is_current(struct feeds *feeds, uint64_t serial)
{
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load(&feeds->serial) == serial;
}

/* ---- Fences -------------------------------------------------------------------------------- */

static enum feed_mode mode_of(const struct feeds *feeds)
{
    return (enum feed_mode)atomic_load_explicit(&feeds->mode, memory_order_relaxed);
}

/* A change of mode meanwhile drops everything, so it does not matter which one is seen. */
bool feeds_fence_asks(const struct feeds *feeds, unsigned index)
{
    enum feed_mode mode = mode_of(feeds);
    return mode != FEED_NONE && (index == 0 || !feed_mode_link_covers(mode));
}

bool feeds_announces(const struct feeds *feeds)
{
    return !feeds->options.automatic && feeds->options.mode == FEED_CHANNEL;
}

/* The host also answers for I, whose loss costs everything. */
void feeds_void(struct feeds *feeds, unsigned index)
{
    uint32_t n = feeds_covers(feeds->options.workers);
    if (index != 0 || mode_of(feeds) == FEED_TRACKING) {
        l1_cover_void(feeds->options.l1, feeds_fill_cover(feeds, index));
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        l1_cover_void(feeds->options.l1, feeds_fill_cover(feeds, i));
    }
}

/* ---- Refusals ------------------------------------------------------------------------------ */

bool refusal_is_lasting(const char *text)
{
    static const char *const passing[] = {
        "LOADING",     "BUSY",     "NOAUTH", "WRONGPASS",      "MASTERDOWN",
        "CLUSTERDOWN", "TRYAGAIN", "OOM",    "ERR max number", "ERR The client ID",
    };
    for (size_t i = 0; i < ARRAY_LEN(passing); i++) {
        if (strncmp(text, passing[i], strlen(passing[i])) == 0) {
            return false;
        }
    }
    return true;
}

void feeds_report(struct feeds *feeds, uint64_t serial, const char *step, const char *text)
{
    pthread_mutex_lock(&feeds->lock);
    feeds->has_report = true;
    feeds->reported_serial = serial;
    (void)snprintf(feeds->reported, sizeof(feeds->reported), "%s: %s", step, text);
    pthread_mutex_unlock(&feeds->lock);
}

bool feeds_take_report(struct feeds *feeds, char text[ERR_MAX])
{
    pthread_mutex_lock(&feeds->lock);
    bool has = feeds->has_report && feeds->reported_serial == feeds->plan.serial;
    feeds->has_report = false;
    if (has) {
        (void)snprintf(text, ERR_MAX, "%s", feeds->reported);
    }
    pthread_mutex_unlock(&feeds->lock);
    return has;
}

void feeds_note_refused(struct feeds *feeds, enum feed_mode mode, const char *text)
{
    pthread_mutex_lock(&feeds->lock);
    (void)snprintf(feeds->refused[mode], ERR_MAX, "%s", text);
    pthread_mutex_unlock(&feeds->lock);
}

bool feeds_is_refused(struct feeds *feeds, enum feed_mode mode)
{
    pthread_mutex_lock(&feeds->lock);
    bool refused = feeds->refused[mode][0] != '\0';
    pthread_mutex_unlock(&feeds->lock);
    return refused;
}

/* ---- Status -------------------------------------------------------------------------------- */

/* With the lock. */
static void say_why(const struct feeds *feeds, char *out, size_t max)
{
    size_t n = 0;
    out[0] = '\0';
    for (int mode = 0; mode < FEED_NONE; mode++) {
        if (feeds->refused[mode][0] != '\0' && n < max) {
            n += (size_t)snprintf(out + n, max - n, "%s%s: %s", n > 0 ? "; " : "", MODE_NAMES[mode],
                                  feeds->refused[mode]);
        }
    }
}

void feeds_status(struct feeds *feeds, struct feeds_status *out)
{
    *out = (struct feeds_status){.automatic = feeds->options.automatic};
    pthread_mutex_lock(&feeds->lock);
    out->mode = feeds->plan.mode;
    say_why(feeds, out->why, sizeof(out->why));
    pthread_mutex_unlock(&feeds->lock);
    if (atomic_load_explicit(&feeds->nrefused, memory_order_relaxed) > 0) {
        out->mode = FEED_NONE;
    }
    out->changes = atomic_load_explicit(&feeds->changes, memory_order_relaxed);
    out->link_up = atomic_load_explicit(&feeds->link_up, memory_order_relaxed);
    out->peers = atomic_load_explicit(&feeds->peers, memory_order_relaxed);
    out->table_keys = atomic_load_explicit(&feeds->table_keys, memory_order_relaxed);
    out->table_max = atomic_load_explicit(&feeds->table_max, memory_order_relaxed);
}

/* ---- The link lease (C6) ------------------------------------------------------------------- */

#define STALL_MS 1000 /* so long without a tick: this process stood still */

void lease_clock_start(struct lease_clock *clock, int64_t t_ok, int64_t now)
{
    clock->t_ok = t_ok;
    clock->lapsed = false;
    clock->alive_since = now;
}

bool lease_clock_lapses(struct lease_clock *clock, const struct feeds *feeds, int64_t now,
                        const char *role)
{
    uint64_t more = 0;
    if (clock->lapsed || now <= clock->t_ok + feeds->options.link_lease_ms) {
        return false;
    }
    clock->lapsed = true;
    if (log_allow(&clock->lapse_log, now, LOG_EVERY_MS, &more)) {
        log_event(
            LOG_WARN,
            "no PONG from %s (%s) for a PING of the last %lld ms: what it vouches for in L1 is "
            "not served until one comes; lapses not logged: %llu",
            node_name(feeds->options.node), role, (long long)feeds->options.link_lease_ms,
            (unsigned long long)more);
    }
    return true;
}

void lease_clock_renew(struct lease_clock *clock, const struct feeds *feeds, int64_t t_ok,
                       int64_t now)
{
    clock->t_ok = t_ok;
    clock->lapsed = clock->lapsed && now > t_ok + feeds->options.link_lease_ms;
    clock->alive_since = now;
}

bool lease_clock_tick(struct lease_clock *clock, const struct feeds *feeds, int64_t now)
{
    if (clock->last_tick != 0 && now - clock->last_tick > STALL_MS) {
        clock->alive_since = now;
    }
    clock->last_tick = now;
    int64_t dead_after = node_options(feeds->options.node)->dead_after_ms;
    int64_t leases = 2 * feeds->options.link_lease_ms;
    return now - clock->alive_since > (leases > dead_after ? leases : dead_after);
}
