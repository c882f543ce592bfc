/* SPDX-License-Identifier: Apache-2.0
 *
 * writers.c: every class of command: known keys, unknown effect, transactions, pipelines, whole MSETs,
 * flushes. A write whose outcome is unknown retires its key.
 */
#include "traffic.h"

#include "../support/await.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Writes --------------------------------------------------------------------------------- */

/* Sends one command that writes number seq, and acknowledges it. False: the outcome is unknown. */
static bool write_by(struct thread *t, struct key *key, long long seq, const char *line)
{
    const struct reply *reply = say(t, &t->c, "%s", line);
    if (!is_good(reply)) {
        if (t->traffic->options->chaos == 0) {
            fprintf(stderr, "%s: %s\n", line, reply->text != NULL ? reply->text : "no reply");
        }
        return false;
    }
    ledger_ack(key, seq);
    return true;
}

/* The formats have the key, then the value. */
static const char *const plain_sets[] = {
    "SET %s %s",
    "SET %s %s",
    "SET %s %s",
    "SET %s %s PX 1000000",
    "SET %s %s GET",
    "SETEX %1$s 1000 %2$s",
    "GETSET %s %s",
    "PSETEX %1$s 1000000 %2$s",
    "MSET %1$s %2$s %1$s.other v",
};
/* The second says what it writes, as it must in a cluster. */
static const char *const scripts[] = {
    "EVAL 'return redis.call(\"SET\",\"%s\",ARGV[1])' 0 %s",
    "EVAL 'return redis.call(\"SET\",KEYS[1],ARGV[1])' 1 %s %s",
};
static const char *const detours[] = {"RENAME %1$s.tmp %1$s", "COPY %1$s.tmp %1$s REPLACE"};
static const char *const deletes[] = {"DEL %s", "UNLINK %s", "GETDEL %s", "EXPIRE %s -1",
                                      "RENAME %1$s %1$s.gone"};
static const char *const touches[] = {"GETEX %s EX 1000", "EXPIRE %s 1000", "PERSIST %s",
                                      "GETEX %s PERSIST"};

#define PICK(t, list) (list)[dice(t, (int)(sizeof(list) / sizeof((list)[0])))]

static void format(char line[400], const char *fmt, const char *key, const char *value)
{
    snprintf(line, 400, fmt, key, value);
}

static const char *some_script(struct thread *t)
{
    return t->traffic->options->mode == MODE_CLUSTER ? scripts[1] : PICK(t, scripts);
}

static bool write_plain(struct thread *t, struct key *key, const char *fmt)
{
    char value[96];
    char line[400];
    long long seq = ledger_issue(key, false);

    ledger_value(key, seq, value);
    format(line, fmt, key->name, value);
    return write_by(t, key, seq, line);
}

static bool write_detour(struct thread *t, struct key *key)
{
    char value[96];
    char line[400];
    long long seq = ledger_issue(key, false);

    ledger_value(key, seq, value);
    if (say(t, &t->c, "SET %s.tmp %s", key->name, value)->type != '+') {
        return false;
    }
    format(line, PICK(t, detours), key->name, "");
    return write_by(t, key, seq, line);
}

static bool remove_key(struct thread *t, struct key *key)
{
    char line[400];

    if (atomic_load(&key->deleted) == atomic_load(&key->issued)) {
        return write_plain(t, key, plain_sets[0]); /* RENAME of nothing is an error */
    }
    format(line, PICK(t, deletes), key->name, "");
    return write_by(t, key, ledger_issue(key, true), line);
}

static bool increment(struct thread *t, struct key *key)
{
    if (!key->numeric) {
        return write_plain(t, key, PICK(t, plain_sets));
    }
    bool exists = atomic_load(&key->deleted) != atomic_load(&key->issued);

    return write_plain(t, key, exists ? "INCRBY %1$s 1" : plain_sets[0]);
}

static bool write_transaction(struct thread *t, struct key *key)
{
    char value[96];
    long long seq = ledger_issue(key, false);

    ledger_value(key, seq, value);
    if (t->home != NULL) {
        (void)say(t, &t->c, "TYPE %s", key->name); /* leads to its node */
    }
    client_command(t->c, "MULTI");
    client_command(t->c, "SET %s %s", key->name, value);
    client_command(t->c, "EXEC");
    for (int i = 0; i < 2; i++) {
        if (client_reply(t->c)->type != '+') {
            return false;
        }
    }
    const struct reply *exec = client_reply(t->c);
    if (exec->type != '*' || exec->items != 1 || exec->item[0]->type != '+') {
        return false;
    }
    ledger_ack(key, seq);
    return true;
}

/* SET, GET, SET, GET ... in one go: each GET returns what was set right before. */
static bool write_pipeline(struct thread *t, struct key *key)
{
    long long seq[4];
    char value[96];
    int n = 1 + dice(t, 4);
    int first = dice(t, 2);

    for (int i = 0; i < first; i++) {
        client_command(t->c, "GET %s", key->name);
    }
    for (int i = 0; i < n; i++) {
        seq[i] = ledger_issue(key, false);
        ledger_value(key, seq[i], value);
        client_command(t->c, is_quiet() || dice(t, 8) > 0 ? "SET %s %s" : scripts[1], key->name,
                       value);
        client_command(t->c, "GET %s", key->name);
    }
    for (int i = 0; i < first; i++) {
        (void)client_reply(t->c);
    }
    bool good = true;
    for (int i = 0; i < n; i++) {
        if (client_reply(t->c)->type != '+') {
            good = false;
        } else if (good) {
            ledger_ack(key, seq[i]);
        }
        const struct reply *reply = client_reply(t->c);
        good = good && reply->type == '$';
        if (good && ledger_number(key, reply) != seq[i]) {
            violated(RULE_G2, "%s: SET %lld, GET: %s", key->name, seq[i],
                     reply->null ? "nil" : reply->text);
        }
        t->tally.pipelined += good ? 1 : 0;
    }
    return good;
}

/* Both keys of the writer's pair by one command. */
static bool write_pair(struct thread *t)
{
    struct key *a = ledger_pair(t->index, 0);
    struct key *b = ledger_pair(t->index, 1);
    char value[2][96];
    long long seq = ledger_issue(a, false);

    if (ledger_issue(b, false) != seq) {
        return false;
    }
    ledger_value(a, seq, value[0]);
    ledger_value(b, seq, value[1]);
    if (ask(t->c, "MSET %s %s %s %s", a->name, value[0], b->name, value[1])[0] != '+') {
        return false;
    }
    ledger_ack(a, seq);
    ledger_ack(b, seq);
    return true;
}

static bool write_own(struct thread *t, struct key *key)
{
    int what = dice(t, 100);

    if (!is_quiet() && what < 50) {
        return what < 35 ? write_plain(t, key, some_script(t)) : write_transaction(t, key);
    }
    what = dice(t, 75);
    if (what < 15) {
        return write_pipeline(t, key);
    }
    if (what < 22) {
        return remove_key(t, key);
    }
    if (what < 29) {
        return write_detour(t, key);
    }
    if (what < 33) {
        char line[400];
        format(line, PICK(t, touches), key->name, "");
        (void)client_command(t->c, "%s", line);
        return is_good(client_reply(t->c));
    }
    return what < 55 ? increment(t, key) : write_plain(t, key, PICK(t, plain_sets));
}

/* Another connection, at once. */
static void read_back(struct thread *t, struct key *key)
{
    if (connected(t, &t->peer, t->traffic->port)) {
        struct expectation e = ledger_expect(key);
        client_command(t->peer, "GET %s", key->name);
        const struct reply *reply = client_reply(t->peer);
        (void)ledger_judge(&t->tally, &e, reply, 0);
        if (!is_good(reply)) {
            disconnect(&t->peer);
        }
    }
}

void *run_writer(void *ctx)
{
    struct thread *t = ctx;
    int keys = t->traffic->options->keys;

    t->db = ledger_db(t->index);
    while (!stopped(t)) {
        if (!connected(t, &t->c, t->traffic->port)) {
            continue;
        }
        pthread_rwlock_rdlock(&ledger_flush_lock);
        int place = t->index * keys + dice(t, keys);
        struct key *key = ledger_key(place);
        bool pair = dice(t, 12) == 0;
        bool done = pair ? write_pair(t) : write_own(t, key);
        if (!done) {
            t->tally.errors++;
            if (pair) {
                ledger_retire_pair(t->index);
            } else {
                ledger_retire(place);
            }
            disconnect(&t->c);
        }
        t->tally.writes[ORIGIN_OWN] += done;
        pthread_rwlock_unlock(&ledger_flush_lock);
        if (done && dice(t, 10) < 6) {
            read_back(t, pair ? ledger_pair(t->index, dice(t, 2)) : key);
        }
        think(t, 1500);
    }
    return NULL;
}

void *run_foreign(void *ctx)
{
    struct thread *t = ctx;
    const struct options *o = t->traffic->options;

    t->db = ledger_db(o->writers + t->index);
    while (!stopped(t)) {
        int place = (o->writers + t->index) * o->keys + dice(t, o->keys);
        t->home = &t->traffic->home[place];
        pthread_rwlock_rdlock(&ledger_flush_lock);
        t->c = direct(t);
        if (t->c == NULL) {
            pthread_rwlock_unlock(&ledger_flush_lock);
            continue;
        }
        struct key *key = ledger_key(place);
        int what = dice(t, 20);
        bool done = what < 2    ? remove_key(t, key)
                    : what < 4  ? write_plain(t, key, some_script(t))
                    : what < 5  ? write_transaction(t, key)
                    : what < 6  ? write_detour(t, key)
                    : what < 12 ? increment(t, key)
                                : write_plain(t, key, PICK(t, plain_sets));
        if (!done) {
            t->tally.errors++;
            ledger_retire(place);
            disconnect_direct(t);
        }
        t->tally.writes[ORIGIN_DIRECT] += done;
        pthread_rwlock_unlock(&ledger_flush_lock);
        think(t, 4000);
    }
    return NULL;
}

/* While nobody else writes, so that the flush has a number in every key. */
static void flush(struct thread *t)
{
    const struct options *o = t->traffic->options;
    int n = ledger_places();

    pthread_rwlock_wrlock(&ledger_flush_lock);
    for (int i = 0; i < n; i++) {
        ledger_issue(ledger_key(i), true);
    }
    for (int i = 0; i < 2 * o->writers; i++) {
        ledger_issue(ledger_pair(i / 2, i % 2), true);
    }
    if (ask(t->c, dice(t, 2) == 0 ? "FLUSHALL" : "FLUSHALL ASYNC")[0] == '+') {
        for (int i = 0; i < n; i++) {
            struct key *key = ledger_key(i);
            ledger_ack(key, atomic_load(&key->issued));
        }
        for (int i = 0; i < 2 * o->writers; i++) {
            struct key *key = ledger_pair(i / 2, i % 2);
            ledger_ack(key, atomic_load(&key->issued));
        }
        t->tally.writes[ORIGIN_OWN]++;
    } else {
        t->tally.errors++;
        ledger_retire_all();
        disconnect(&t->c);
    }
    pthread_rwlock_unlock(&ledger_flush_lock);
}

void *run_flusher(void *ctx)
{
    struct thread *t = ctx;
    int64_t next = now_ms() + t->traffic->options->flush_ms;

    while (!stopped(t)) {
        think(t, 20000);
        if (now_ms() > next && connected(t, &t->c, t->traffic->port)) {
            flush(t);
            next = now_ms() + t->traffic->options->flush_ms;
        }
    }
    return NULL;
}
