/* SPDX-License-Identifier: Apache-2.0
 *
 * load.c: see load.h. A value is "KEY:NUMBER"; keys have a generation in their name, so that one that was
 * given up is never met again.
 */
#include "load.h"

#include "await.h"
#include "cleanup.h"
#include "client.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS    12 /* the last FOREIGN of them are written past the proxy */
#define FOREIGN 4
#define READERS 2
#define RING    1024 /* moments that are remembered */
#define SERVERS 16
#define NAMES   512 /* in all, those that were given up included */

/* One name, written by one thread. */
struct key {
    char name[32];
    bool foreign;
    atomic_bool doubtful;
    atomic_long issued, acked;
    atomic_llong acked_at[RING];
};

struct load {
    struct load_options options;
    int ports[SERVERS];
    int nports;
    _Atomic(struct key *) key[KEYS];
    struct key *names; /* NAMES of them, */
    atomic_int nnames; /* so many in use */
    pthread_t thread[2 + READERS];
    int nthreads;
    atomic_bool stop, waits, doubt;
    atomic_long reads, own_writes, foreign_writes, errors;
    pthread_mutex_t lock; /* guards: */
    char wrong[256];
    bool joined;
};

static void blame(struct load *load, const char *key, const char *why, const char *got, long want)
{
    pthread_mutex_lock(&load->lock);
    if (load->wrong[0] == '\0') {
        snprintf(load->wrong, sizeof(load->wrong), "%s: %s: got '%.60s', %ld had been acknowledged",
                 key, why, got, want);
    }
    pthread_mutex_unlock(&load->lock);
}

/* A name that was never used takes the place. */
static void renew(struct load *load, int at)
{
    int n = atomic_fetch_add(&load->nnames, 1);
    if (n >= NAMES) {
        blame(load, "load", "too many writes of unknown outcome", "", 0);
        return;
    }
    struct key *key = &load->names[n];
    snprintf(key->name, sizeof(key->name), "load%d.%d", at, n);
    key->foreign = at >= KEYS - FOREIGN;
    atomic_store(&load->key[at], key);
    if (atomic_load(&load->doubt)) { /* looked at last: load_doubt has marked those in place */
        atomic_store(&key->doubtful, true);
    }
}

/* The pace of a thread; nothing is waited for. */
static void pause_ms(int ms)
{
    (void)poll(NULL, 0, ms);
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void acknowledge(struct key *key, long n)
{
    atomic_store(&key->acked_at[n % RING], now_ms());
    atomic_store(&key->acked, n);
}

static bool is_ok(const struct reply *reply)
{
    return reply->type == '+' && strcmp(reply->text, "OK") == 0;
}

/* Errors that say that nothing was executed. */
static bool is_refusal(const struct reply *reply)
{
    return reply->type == '-' && strstr(reply->text, "unknown") == NULL &&
           strstr(reply->text, "no reply within") == NULL;
}

static struct client *connected(struct client **c, int port)
{
    if (*c == NULL) {
        *c = client_try(port);
        if (*c != NULL) {
            client_set_timeout(*c, 20000);
        }
    }
    return *c;
}

static void disconnect(struct client **c)
{
    if (*c != NULL) {
        client_close(*c);
        *c = NULL;
    }
}

enum outcome { DONE, REFUSED, UNKNOWN };

/* The SET was answered with OK. Does a replica have it, if that is asked for? */
static enum outcome await_replica(struct load *load, struct client *c)
{
    if (!atomic_load(&load->waits)) {
        return DONE;
    }
    client_command(c, "WAIT 1 500");
    const struct reply *reply = client_reply(c);
    return reply->type == ':' && reply->integer > 0 ? DONE : UNKNOWN;
}

/* Through the proxy. */
static enum outcome write_own(struct load *load, struct client *c, const struct key *key, long n)
{
    client_command(c, "SET %s %s:%ld", key->name, key->name, n);
    const struct reply *reply = client_reply(c);
    return is_ok(reply) ? await_replica(load, c) : is_refusal(reply) ? REFUSED : UNKNOWN;
}

/* The next server to try. */
static int other_port(const struct load *load, int port)
{
    for (int i = 0; i < load->nports; i++) {
        if (load->ports[i] == port) {
            return load->ports[(i + 1) % load->nports];
        }
    }
    return load->ports[0];
}

/* Past it, to whoever says that it is his. */
static enum outcome write_foreign(struct load *load, int *port, const struct key *key, long n)
{
    bool asks = false;
    for (int hops = 0; hops < 6; hops++) {
        struct client *c = client_try(*port);
        if (c == NULL) {
            break;
        }
        client_set_timeout(c, 5000);
        if (asks) {
            client_command(c, "ASKING");
            (void)client_reply(c);
        }
        client_command(c, "SET %s %s:%ld", key->name, key->name, n);
        const struct reply *reply = client_reply(c);
        int next = client_redirected(reply, &asks);
        enum outcome outcome = is_ok(reply)         ? await_replica(load, c)
                               : reply->type == '-' ? REFUSED
                                                    : UNKNOWN;
        client_close(c);
        if (outcome != REFUSED) {
            return outcome;
        }
        if (next == 0) {
            break;
        }
        *port = next;
    }
    *port = other_port(load, *port);
    return REFUSED;
}

static void settle(struct load *load, int at, struct key *key, long n, enum outcome outcome)
{
    if (outcome == DONE) {
        acknowledge(key, n);
        atomic_fetch_add(key->foreign ? &load->foreign_writes : &load->own_writes, 1);
        return;
    }
    atomic_fetch_add(&load->errors, 1);
    if (outcome == UNKNOWN) {
        if (atomic_load(&load->key[at]) == key) { /* or it was forgotten meanwhile */
            renew(load, at);
        }
    }
}

static void *run_writer(void *ctx)
{
    struct load *load = ctx;
    struct client *c = NULL;
    for (unsigned i = 0; !atomic_load(&load->stop); i++) {
        int at = (int)(i % (KEYS - FOREIGN));
        struct key *key = atomic_load(&load->key[at]);
        if (connected(&c, load->options.port) == NULL) {
            pause_ms(5);
            continue;
        }
        long n = atomic_load(&key->acked) + 1; /* once more, if it was refused */
        atomic_store(&key->issued, n);
        enum outcome outcome = write_own(load, c, key, n);
        settle(load, at, key, n, outcome);
        if (outcome != DONE) {
            disconnect(&c);
            pause_ms(2);
        }
    }
    disconnect(&c);
    return NULL;
}

static void *run_foreign(void *ctx)
{
    struct load *load = ctx;
    int port[FOREIGN];
    for (int i = 0; i < FOREIGN; i++) {
        port[i] = load->ports[0];
    }
    for (unsigned i = 0; !atomic_load(&load->stop); i++) {
        int at = (int)(i % FOREIGN);
        struct key *key = atomic_load(&load->key[KEYS - FOREIGN + at]);
        long n = atomic_load(&key->acked) + 1;
        atomic_store(&key->issued, n);
        settle(load, KEYS - FOREIGN + at, key, n, write_foreign(load, &port[at], key, n));
        pause_ms(3);
    }
    return NULL;
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* The least number that the key must have from now on. */
static long floor_of(const struct load *load, struct key *key)
{
    long n = atomic_load(&key->acked);
    if (!key->foreign) {
        return n;
    }
    int64_t before = now_ms() - load->options.grace_ms;
    long oldest = n > RING / 2 ? n - RING / 2 : 0;
    while (n > oldest && atomic_load(&key->acked_at[n % RING]) > before) {
        n--;
    }
    return n;
}

static void judge(struct load *load, struct key *key, const struct reply *reply, long least)
{
    size_t n = strlen(key->name);
    if (reply->type != '$') {
        atomic_fetch_add(&load->errors, 1);
        return;
    }
    if (atomic_load(&key->doubtful)) {
        least = 0;
    }
    if (reply->null) {
        if (least > 0) {
            blame(load, key->name, "gone", "nil", least);
        }
        return;
    }
    long seq = strncmp(reply->text, key->name, n) == 0 && reply->text[n] == ':'
                   ? strtol(reply->text + n + 1, NULL, 10)
                   : -1;
    if (seq < 1 || seq > atomic_load(&key->issued)) {
        blame(load, key->name, "never written", reply->text, least);
    } else if (seq < least) {
        blame(load, key->name, "too old", reply->text, least);
    }
    atomic_fetch_add(&load->reads, 1);
}

static void *run_reader(void *ctx)
{
    struct load *load = ctx;
    struct client *c = NULL;
    unsigned seed = (unsigned)(uintptr_t)&c;
    while (!atomic_load(&load->stop)) {
        struct key *key = atomic_load(&load->key[rand_r(&seed) / 16 % KEYS]);
        if (connected(&c, load->options.port) == NULL) {
            pause_ms(5);
            continue;
        }
        long least = floor_of(load, key);
        client_command(c, "GET %s", key->name);
        const struct reply *reply = client_reply(c);
        judge(load, key, reply, least);
        if (reply->type != '$' && reply->type != '-') {
            disconnect(&c);
        }
    }
    disconnect(&c);
    return NULL;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void join(void *object)
{
    struct load *load = object;
    if (load->joined) {
        return;
    }
    load->joined = true;
    atomic_store(&load->stop, true);
    for (int i = 0; i < load->nthreads; i++) {
        pthread_join(load->thread[i], NULL);
    }
}

static void start_thread(struct load *load, void *(*run)(void *ctx))
{
    cr_assert(pthread_create(&load->thread[load->nthreads], NULL, run, load) == 0);
    load->nthreads++;
}

struct load *load_start(const struct load_options *options)
{
    struct load *load = cleanup_alloc(sizeof(*load));
    memset(load, 0, sizeof(*load));
    load->options = *options;
    pthread_mutex_init(&load->lock, NULL);
    atomic_store(&load->waits, options->waits);
    for (const int *port = options->ports; port != NULL && *port != 0; port++) {
        load->ports[load->nports++] = *port;
    }
    load->names = cleanup_alloc(NAMES * sizeof(*load->names));
    memset(load->names, 0, NAMES * sizeof(*load->names));
    for (int i = 0; i < KEYS; i++) {
        renew(load, i);
    }
    cleanup_add(join, load);
    start_thread(load, run_writer);
    for (int i = 0; i < READERS; i++) {
        start_thread(load, run_reader);
    }
    if (load->nports > 0) {
        start_thread(load, run_foreign);
    }
    return load;
}

static void check(struct load *load)
{
    char wrong[sizeof(load->wrong)];
    pthread_mutex_lock(&load->lock);
    memcpy(wrong, load->wrong, sizeof(wrong));
    pthread_mutex_unlock(&load->lock);
    cr_assert(wrong[0] == '\0', "%s", wrong);
}

void load_await(struct load *load, long reads, int ms)
{
    long read = atomic_load(&load->reads);
    long own = atomic_load(&load->own_writes);
    long foreign = atomic_load(&load->foreign_writes);
    int64_t end = now_ms() + ms;
    bool enough = false;
    while (!enough && now_ms() < end) {
        check(load);
        pause_ms(5);
        enough = atomic_load(&load->reads) >= read + reads &&
                 atomic_load(&load->own_writes) >= own + 20 &&
                 (load->nports == 0 || atomic_load(&load->foreign_writes) >= foreign + 5);
    }
    check(load);
    cr_assert(enough, "%ld reads, %ld writes, %ld past the proxy, %ld errors",
              atomic_load(&load->reads) - read, atomic_load(&load->own_writes) - own,
              atomic_load(&load->foreign_writes) - foreign, atomic_load(&load->errors));
}

void load_wait_no_more(struct load *load)
{
    atomic_store(&load->waits, false);
}

void load_doubt(struct load *load)
{
    atomic_store(&load->doubt, true);
    for (int i = 0; i < KEYS; i++) {
        atomic_store(&atomic_load(&load->key[i])->doubtful, true);
    }
}

void load_forget(struct load *load)
{
    atomic_store(&load->doubt, false);
    for (int i = 0; i < KEYS; i++) {
        renew(load, i);
    }
}

void load_stop(struct load *load)
{
    join(load);
    check(load);
    struct client *c = client_try(load->options.port);
    cr_assert(c != NULL);
    client_set_timeout(c, 20000);
    for (int i = 0; i < KEYS; i++) {
        struct key *key = atomic_load(&load->key[i]);
        long least = floor_of(load, key);
        int64_t end = now_ms() + 10000;
        const struct reply *reply;
        do {
            client_command(c, "GET %s", key->name);
            reply = client_reply(c);
            cr_assert(reply->type != '-' || now_ms() < end, "GET %s: %s", key->name, reply->text);
        } while (reply->type == '-');
        judge(load, key, reply, least);
    }
    client_close(c);
    check(load);
}
