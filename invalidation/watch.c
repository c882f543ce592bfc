/* SPDX-License-Identifier: Apache-2.0
 *
 * watch.c: asks the server now and then for what no message announces, on a plain connection of its
 * own.
 *
 *   tracking, redirect  every 5 s: how full the table of tracked keys is (INFO stats, CONFIG GET).
 *                       Beyond its limit the server forgets keys at random, which costs hits: a warning
 *                       at 90 %, and the end of it below 80 %.
 *   keyspace            every second: are notifications still as they must be (CONFIG GET)? Was a
 *                       FLUSHALL, FLUSHDB, SWAPDB or DEBUG executed (INFO commandstats)? None of those is
 *                       announced.
 *
 * A server that refuses one of the questions leaves that figure unknown. Worker 0's thread.
 */
#include "feed_priv.h"

#include "../conf/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define TABLE_EVERY_MS   5000
#define NOTIFY_EVERY_MS  1000
#define REFUSED_EVERY_MS 600000 /* whoever may not ask would only fill the server's ACL log */
#define REPLY_MAX        ((size_t)1024 * 1024)
#define FULL_PERCENT     90
#define RELAXED_PERCENT  80

enum question { QUESTION_CONFIG, QUESTION_INFO, QUESTIONS };

struct answer {
    struct call call;
    struct watch *watch;
    char *text; /* NUL-terminated */
    size_t n;
    bool good; /* whole, and not an error */
};

struct watch {
    struct watch_options options;
    const struct feeds_options *shared;
    struct conn *conn;
    struct answer answers[QUESTIONS];
    unsigned open; /* calls */
    int64_t next;
    bool knows_flushes;
    uint64_t flushes; /* as of the newest answer */
    bool warned;
};

/* ---- What the answers say ------------------------------------------------------------------ */

bool notify_flags_suffice(struct slice flags)
{
    static const char classes[] = "g$lshzxet";
    if (flags.n == 0 || memchr(flags.p, 'E', flags.n) == NULL) {
        return false;
    }
    if (memchr(flags.p, 'A', flags.n) != NULL) {
        return true;
    }
    for (const char *c = classes; *c != '\0'; c++) {
        if (memchr(flags.p, *c, flags.n) == NULL) {
            return false;
        }
    }
    return true;
}

/* The number behind "\nlabel"; -1 when there is none. */
static int64_t number_behind(const char *text, const char *label)
{
    const char *at = text == NULL ? NULL : strstr(text, label);
    return at == NULL ? -1 : strtoll(at + strlen(label), NULL, 10);
}

static void judge_table(struct watch *watch)
{
    struct feeds *feeds = watch->options.feeds;
    const struct answer *config = &watch->answers[QUESTION_CONFIG];
    const struct answer *info = &watch->answers[QUESTION_INFO];
    struct slice pair[2];
    int64_t keys = info->good ? number_behind(info->text, "\ntracking_total_keys:") : -1;
    int64_t max = -1;
    if (!config->good || message_strings(slice_of(config->text, config->n), pair, 2) != 2 ||
        !slice_to_int64(pair[1], &max)) {
        max = -1;
    }
    atomic_store_explicit(&feeds->table_keys, keys, memory_order_relaxed);
    atomic_store_explicit(&feeds->table_max, max, memory_order_relaxed);
    if (!config->good || !info->good) {
        watch->next = watch->shared->now() + REFUSED_EVERY_MS;
    }
    if (keys < 0 || max <= 0) {
        return;
    }
    bool full = keys >= max / 100 * FULL_PERCENT + max % 100 * FULL_PERCENT / 100;
    bool relaxed = keys < max / 100 * RELAXED_PERCENT + max % 100 * RELAXED_PERCENT / 100;
    if (full && !watch->warned) {
        watch->warned = true;
        log_event(LOG_WARN,
                  "the tracking table of %s holds %lld keys and has room for %lld "
                  "(tracking-table-max-keys): beyond it keys are announced as changed at random, "
                  "which costs hits; raise the limit, use fewer workers or invalidation.mode = "
                  "broadcast",
                  node_name(watch->shared->node), (long long)keys, (long long)max);
    } else if (relaxed && watch->warned) {
        watch->warned = false;
        log_event(LOG_INFO, "the tracking table of %s has room again: %lld of %lld keys",
                  node_name(watch->shared->node), (long long)keys, (long long)max);
    }
}

static void judge_flushes(struct watch *watch)
{
    static const char *const commands[] = {
        "\ncmdstat_flushall:calls=", "\ncmdstat_flushdb:calls=", "\ncmdstat_swapdb:calls=",
        "\ncmdstat_debug:calls=", "\ncmdstat_debug|reload:calls="};
    const struct answer *info = &watch->answers[QUESTION_INFO];
    uint64_t flushes = 0;
    if (!info->good) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        int64_t calls = number_behind(info->text, commands[i]);
        flushes += calls > 0 ? (uint64_t)calls : 0;
    }
    if (!watch->knows_flushes || flushes != watch->flushes) {
        watch->options.events->flushed(watch->options.ctx);
    }
    watch->knows_flushes = true;
    watch->flushes = flushes;
}

static void judge_notify(struct watch *watch)
{
    const struct answer *config = &watch->answers[QUESTION_CONFIG];
    struct slice pair[2];
    char text[160];
    if (!config->good) {
        watch->options.events->silenced(watch->options.ctx,
                                        "CONFIG GET notify-keyspace-events: refused now");
        return;
    }
    if (message_strings(slice_of(config->text, config->n), pair, 2) == 2 &&
        notify_flags_suffice(pair[1])) {
        judge_flushes(watch);
        return;
    }
    (void)snprintf(text, sizeof(text),
                   "notify-keyspace-events: it was changed and does not "
                   "announce every change any more");
    watch->options.events->silenced(watch->options.ctx, text);
}

/* ---- Asking -------------------------------------------------------------------------------- */

static void forget(struct answer *answer)
{
    mem_free(answer->text);
    answer->text = NULL;
    answer->n = 0;
    answer->good = false;
}

static void end_round(struct watch *watch)
{
    if (watch->options.mode == FEED_KEYSPACE) {
        judge_notify(watch);
    } else {
        judge_table(watch);
    }
    for (size_t i = 0; i < QUESTIONS; i++) {
        forget(&watch->answers[i]);
    }
}

static bool collect(struct answer *answer, struct slice bytes)
{
    if (bytes.n > REPLY_MAX - answer->n) {
        return false;
    }
    char *grown = mem_try_resize(answer->text, answer->n + bytes.n + 1);
    if (grown == NULL) {
        return false;
    }
    answer->text = grown;
    memcpy(grown + answer->n, bytes.p, bytes.n);
    answer->n += bytes.n;
    grown[answer->n] = '\0';
    return true;
}

static void on_answer(struct call *call, const struct reply_piece *piece)
{
    struct answer *answer = container_of(call, struct answer, call);
    if (piece->first) {
        forget(answer);
        answer->good = piece->type != '-';
    }
    answer->good = answer->good && collect(answer, piece->bytes);
    if (piece->last && --answer->watch->open == 0) {
        end_round(answer->watch);
    }
}

static void on_lost(struct call *call, enum call_loss loss)
{
    struct answer *answer = container_of(call, struct answer, call);
    (void)loss;
    forget(answer);
    answer->watch->open--; /* the next round asks again */
}

static const struct call_ops ANSWER_OPS = {.reply = on_answer, .lost = on_lost};

static void ask(struct watch *watch, enum question question, struct slice bytes)
{
    struct answer *answer = &watch->answers[question];
    answer->call.ops = &ANSWER_OPS;
    answer->call.replies = 1;
    answer->watch = watch;
    forget(answer);
    watch->open += conn_submit(watch->conn, &answer->call, bytes, NULL) == CONN_OK;
}

static void ask_all(struct watch *watch)
{
    if (watch->options.mode == FEED_KEYSPACE) {
        ask(watch, QUESTION_CONFIG,
            SLICE("*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$22\r\nnotify-keyspace-events\r\n"));
        ask(watch, QUESTION_INFO, SLICE("*2\r\n$4\r\nINFO\r\n$12\r\ncommandstats\r\n"));
    } else {
        ask(watch, QUESTION_CONFIG,
            SLICE("*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$23\r\ntracking-table-max-keys\r\n"));
        ask(watch, QUESTION_INFO, SLICE("*2\r\n$4\r\nINFO\r\n$5\r\nstats\r\n"));
    }
}

/* ---- Life ---------------------------------------------------------------------------------- */

/* Refusals of its bring-up are everybody's, and others log them. */
static void on_refused(struct conn *conn, const char *step, const char *text, void *ctx)
{
    (void)conn;
    (void)step;
    (void)text;
    (void)ctx;
}

static const struct conn_events WATCH_CONN_EVENTS = {.refused = on_refused};

struct watch *watch_create(const struct watch_options *options)
{
    struct watch *watch = mem_zalloc(sizeof(*watch));
    watch->options = *options;
    watch->shared = &options->feeds->options;
    watch->conn = conn_create(&(struct conn_options){
        .loop = options->loop,
        .node = watch->shared->node,
        .role = "watch",
        .quiet = true,
        .now = watch->shared->now,
        .read_buffer = options->read_buffer,
        .read_size = options->read_size,
        .events = &WATCH_CONN_EVENTS,
        .ctx = watch,
    });
    conn_open(watch->conn);
    return watch;
}

void watch_destroy(struct watch *watch)
{
    if (watch == NULL) {
        return;
    }
    conn_destroy(watch->conn);
    for (size_t i = 0; i < QUESTIONS; i++) {
        forget(&watch->answers[i]);
    }
    atomic_store_explicit(&watch->options.feeds->table_keys, -1, memory_order_relaxed);
    atomic_store_explicit(&watch->options.feeds->table_max, -1, memory_order_relaxed);
    mem_free(watch);
}

void watch_flush(struct watch *watch)
{
    conn_flush(watch->conn);
}

void watch_tick(struct watch *watch, int64_t now)
{
    conn_tick(watch->conn, now);
    if (watch->open == 0 && now >= watch->next && conn_state(watch->conn) == CONN_UP) {
        watch->next =
            now + (watch->options.mode == FEED_KEYSPACE ? NOTIFY_EVERY_MS : TABLE_EVERY_MS);
        ask_all(watch);
    }
}
