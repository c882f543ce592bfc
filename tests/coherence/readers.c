/* SPDX-License-Identifier: Apache-2.0
 *
 * readers.c: GETs, pipelines of GETs, MGETs, reads that L1 does not answer; readers that do not wait; and
 * threads that watch keys expire.
 */
#include "traffic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIPELINE    8
#define KEYS_MGET   6
#define POOL        24 /* connections of an impatient reader */
#define PATIENCE_MS 5

/* ---- Reads ---------------------------------------------------------------------------------- */

static bool has_other_db(const struct thread *t)
{
    const struct options *o = t->traffic->options;

    return ledger_db(1) != 0 && (o->writers > 1 || o->foreign > 1);
}

/* Few keys are read much more often than the others. */
static int some_place(struct thread *t)
{
    int n = ledger_places();

    for (;;) {
        int place = dice(t, 2) == 0 ? dice(t, n) : dice(t, n) / 4 * 4 % n;
        if (ledger_key(place)->db == t->db) {
            return place;
        }
    }
}

static void judge(struct thread *t, int place, const struct expectation *e,
                  const struct reply *reply)
{
    if (t->last_key[place] != e->key) {
        t->last_key[place] = e->key;
        t->last[place] = 0;
    }
    t->last[place] = ledger_judge(&t->tally, e, reply, t->last[place]);
}

enum ask {
    ASK_GET,
    ASK_GETRANGE,
    ASK_MGET,
};

/* GETRANGE answers nothing where GET answers null. */
static const struct reply *value_of(const struct reply *reply)
{
    static const struct reply null = {.type = '$', .null = true};

    return reply->type == '$' && reply->n == 0 ? &null : reply;
}

static bool read_pipeline(struct thread *t)
{
    struct expectation e[PIPELINE];
    int place[PIPELINE];
    int n = dice(t, 3) > 0 ? 1 : 2 + dice(t, PIPELINE - 1);
    bool same = dice(t, 2) == 0;

    for (int i = 0; i < n; i++) {
        place[i] = same && i > 0 ? place[0] : some_place(t);
        e[i] = same && i > 0 ? e[0] : ledger_expect(ledger_key(place[i]));
    }
    for (int i = 0; i < n; i++) {
        client_command(t->c, "GET %s", e[i].key->name);
    }
    bool good = true;
    for (int i = 0; i < n; i++) {
        const struct reply *reply = client_reply(t->c);
        judge(t, place[i], &e[i], reply);
        good = good && (is_good(reply) || reply->type == '-');
    }
    return good;
}

static bool read_several(struct thread *t)
{
    struct expectation e[KEYS_MGET];
    int place[KEYS_MGET];
    char line[400] = "MGET";
    int n = 1 + dice(t, KEYS_MGET);

    for (int i = 0; i < n; i++) {
        place[i] = some_place(t);
        e[i] = ledger_expect(ledger_key(place[i]));
        strcat(strcat(line, " "), e[i].key->name);
    }
    client_command(t->c, "%s", line);
    const struct reply *reply = client_reply(t->c);
    for (int i = 0; i < n && reply->type == '*' && reply->items == (size_t)n; i++) {
        judge(t, place[i], &e[i], reply->item[i]);
    }
    t->tally.errors += reply->type == '*' ? 0 : 1;
    return reply->type == '*' || reply->type == '-';
}

static bool read_pair(struct thread *t)
{
    int writer = dice(t, t->traffic->options->writers);
    if (ledger_db(writer) != t->db) {
        return true;
    }
    struct expectation e[2];

    for (int i = 0; i < 2; i++) {
        e[i] = ledger_expect(ledger_pair(writer, i));
    }
    client_command(t->c, "MGET %s %s", e[0].key->name, e[1].key->name);
    const struct reply *reply = client_reply(t->c);
    if (reply->type != '*' || reply->items != 2) {
        t->tally.errors++;
        return reply->type == '-';
    }
    long long a = ledger_judge(&t->tally, &e[0], reply->item[0], 0);
    long long b = ledger_judge(&t->tally, &e[1], reply->item[1], 0);
    for (int i = 0; i < 2; i++) {
        if (ledger_pair(writer, i) != e[i].key) {
            return true; /* retired meanwhile: they may be of two pairs */
        }
    }
    bool values = !reply->item[0]->null && !reply->item[1]->null;
    if (reply->item[0]->null != reply->item[1]->null || (values && a != b)) {
        violated(RULE_WHOLE, "%s is %lld, %s is %lld", e[0].key->name, a, e[1].key->name, b);
    }
    t->tally.pairs++;
    return true;
}

/* upstream.read_from: what neither GET nor MGET reads may be of any age. */
static bool is_judged(const struct thread *t, enum ask ask)
{
    return ask != ASK_GETRANGE || !t->traffic->options->from_replicas;
}

/* A read that is not answered by L1; the value must not be taken back by the GET behind it. */
static bool read_beside(struct thread *t)
{
    int place = some_place(t);
    struct expectation e = ledger_expect(ledger_key(place));

    client_command(t->c, "GETRANGE %s 0 -1", e.key->name);
    client_command(t->c, "GET %s", e.key->name);
    for (int i = 0; i < 2; i++) {
        const struct reply *reply = client_reply(t->c);
        if (is_judged(t, i == 0 ? ASK_GETRANGE : ASK_GET)) {
            judge(t, place, &e, value_of(reply));
        }
        if (!is_good(reply) && reply->type != '-') {
            return false;
        }
    }
    return true;
}

void *run_reader(void *ctx)
{
    struct thread *t = ctx;

    t->db = has_other_db(t) && t->index % 3 == 1;
    for (int i = 0; !stopped(t); i++) {
        if (!connected(t, &t->c, t->traffic->port)) {
            continue;
        }
        int what = dice(t, 64);
        bool good = what < 4   ? read_several(t)
                    : what < 7 ? read_pair(t)
                    : what < 9 ? read_beside(t)
                               : read_pipeline(t);
        if (!good) {
            disconnect(&t->c);
        }
        if (i % 32 == 0) {
            think(t, 500);
        }
    }
    return NULL;
}

/* ---- Readers that do not wait ------------------------------------------------------------------ */

/* A link that is silent soon has every reader waiting for it, and then nobody would see what L1 goes on
 * serving. These readers leave a GET that is not answered soon to itself, and go on with other keys on
 * other connections; its reply is judged when it comes. */
struct pending {
    struct client *c;
    bool waits;
    enum ask ask;
    int place[2]; /* of which all but MGET ask for the first */
    struct expectation e[2];
};

static void take_reply(struct thread *t, struct pending *p, bool *asked)
{
    const struct reply *reply = client_reply(p->c);

    asked[p->place[0]] = false;
    p->waits = false;
    if (p->ask == ASK_MGET && reply->type == '*' && reply->items == 2) {
        (void)ledger_judge(&t->tally, &p->e[0], reply->item[0], 0);
        (void)ledger_judge(&t->tally, &p->e[1], reply->item[1], 0);
    } else if (is_judged(t, p->ask)) {
        (void)ledger_judge(&t->tally, &p->e[0], value_of(reply), 0);
    }
    if (!is_good(reply) && reply->type != '-') {
        disconnect(&p->c);
    }
}

/* A connection that is free, NULL if all of them wait. Takes the replies that have come. */
static struct pending *free_one(struct thread *t, struct pending pool[POOL], bool *asked)
{
    struct pending *found = NULL;

    for (int i = 0; i < POOL; i++) {
        struct pending *p = &pool[i];
        if (p->waits && client_readable(p->c, 0)) {
            take_reply(t, p, asked);
        }
        found = p->waits || found != NULL ? found : p;
    }
    return found;
}

static void ask_one(struct thread *t, struct pending *p, bool *asked)
{
    /* the others may drop what is old, and values should get old sometimes */
    int what = is_quiet() ? 15 : dice(t, 16);

    p->place[0] = some_place(t);
    p->place[1] = some_place(t);
    if (asked[p->place[0]] || !connected(t, &p->c, t->traffic->port)) {
        return;
    }
    p->e[0] = ledger_expect(ledger_key(p->place[0]));
    p->e[1] = ledger_expect(ledger_key(p->place[1]));
    p->ask = what < 2 ? ASK_GETRANGE : what < 4 ? ASK_MGET : ASK_GET;
    p->waits = true;
    asked[p->place[0]] = true;
    client_command(p->c,
                   p->ask == ASK_GETRANGE ? "GETRANGE %s 0 -1"
                   : p->ask == ASK_MGET   ? "MGET %s %s"
                                          : "GET %s",
                   p->e[0].key->name, p->e[1].key->name);
    if (client_readable(p->c, PATIENCE_MS)) {
        take_reply(t, p, asked);
    }
}

void *run_impatient(void *ctx)
{
    struct thread *t = ctx;
    struct pending pool[POOL] = {{0}};
    bool *asked = calloc((size_t)ledger_places(), sizeof(*asked));

    t->db = has_other_db(t) && t->index % 3 == 1;
    while (!stopped(t) && asked != NULL) {
        struct pending *p = free_one(t, pool, asked);
        if (p != NULL) {
            ask_one(t, p, asked);
        } else {
            think(t, 1000);
        }
        if (dice(t, 16) == 0) {
            think(t, 500);
        }
    }
    free(asked);
    return NULL;
}

/* ---- Deadlines ------------------------------------------------------------------------------ */

static bool get(struct client *c, const char *name)
{
    return client_command(c, "GET %s", name) && is_good(client_reply(c));
}

static bool is_one(const struct reply *reply)
{
    return reply->type == ':' && reply->integer == 1;
}

/* Sets `name` to n, on connection w, so that it ends px ms later. True: the moment is known to be not after
 * that. */
static bool set_to_end(struct thread *t, struct client *w, const char *name, long long n, int px)
{
    switch (dice(t, 4)) {
    case 0:
        return say(t, &w, "SET %s %lld PX %d", name, n, px)->type == '+';
    case 1:
        return say(t, &w, "SET %s %lld", name, n)->type == '+' && get(t->c, name) &&
               is_one(say(t, &w, "PEXPIRE %s %d", name, px));
    case 2:
        return say(t, &w, "SET %s %lld PX 100000", name, n)->type == '+' && get(t->c, name) &&
               say(t, &w, "GETEX %s PX %d", name, px)->type == '$';
    default:
        return say(t, &w, "SET %s %lld PX 9000", name, n)->type == '+' &&
               is_one(say(t, &w, "PERSIST %s", name)) &&
               is_one(say(t, &w, "PEXPIRE %s %d", name, px));
    }
}

/* Reads it until it is gone. */
static void watch_end(struct thread *t, const char *name, long long n, int64_t deadline)
{
    char value[32];

    snprintf(value, sizeof(value), "%lld", n);
    while (!stopped(t)) {
        int64_t asked = now_us();
        client_command(t->c, "GET %s", name);
        const struct reply *reply = client_reply(t->c);
        if (reply->type != '$') {
            t->tally.errors++;
            if (reply->type != '-') {
                disconnect(&t->c);
            }
            return;
        }
        if (reply->null || strcmp(reply->text, value) != 0) {
            t->tally.expired += reply->null ? 1 : 0;
            return;
        }
        if (asked > deadline) {
            violated(RULE_G4, "%s: served %.1f ms after its end", name,
                     (double)(asked - deadline) / 1000);
            return;
        }
        think(t, 1000);
    }
}

void *run_ttl(void *ctx)
{
    struct thread *t = ctx;
    struct traffic *traffic = t->traffic;

    for (long long n = 1; !stopped(t); n++) {
        bool foreign = dice(t, 2) == 0;
        t->home = foreign ? &traffic->home[ledger_places() + t->index] : NULL;
        if (!connected(t, &t->c, traffic->port)) {
            continue;
        }
        char name[40];
        int px = 15 + dice(t, 235);
        snprintf(name, sizeof(name), "{ttl%d}.%lld", t->index, n % 7);
        pthread_rwlock_rdlock(&ledger_flush_lock);
        struct client *w = foreign ? direct(t) : t->c;
        bool set = w != NULL && set_to_end(t, w, name, n, px);
        pthread_rwlock_unlock(&ledger_flush_lock);
        if (!set) {
            t->tally.errors++;
            disconnect(&t->c);
            disconnect_direct(t);
            continue;
        }
        /* clocks cut to milliseconds, and G3 if the deadline was set elsewhere */
        int64_t slack = 3000 + (foreign ? (int64_t)traffic->options->lease_ms * 1000 : 0);
        watch_end(t, name, n, now_us() + (int64_t)px * 1000 + slack);
    }
    return NULL;
}
