/* SPDX-License-Identifier: Apache-2.0
 *
 * traffic.c: starts the clients and stops them. Threads never end the program: they count, and note
 * violations.
 */
#include "traffic.h"

#include "../support/await.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUIET_MS 2500

int dice(struct thread *t, int n)
{
    return rand_r(&t->seed) / 16 % n;
}

bool stopped(const struct thread *t)
{
    return atomic_load(&t->traffic->stop);
}

void think(struct thread *t, int us)
{
    if (us > 0 && !stopped(t)) {
        struct timespec ts = {0, (long)(us / 5 + dice(t, us * 8 / 5 + 1)) * 1000};
        nanosleep(&ts, NULL);
    }
}

bool is_good(const struct reply *reply)
{
    return strchr("+:$*", reply->type) != NULL;
}

bool connected(struct thread *t, struct client **c, int port)
{
    if (*c != NULL) {
        return true;
    }
    memset(t->last, 0, (size_t)ledger_places() * sizeof(*t->last));
    *c = client_try(port);
    if (*c == NULL) {
        think(t, 20000);
        return false;
    }
    /* a name, so that chaos tells it from the proxy's */
    if ((port != t->traffic->port && ask(*c, "CLIENT SETNAME checker")[0] != '+') ||
        (t->db != 0 && ask(*c, "SELECT %d", t->db)[0] != '+')) {
        disconnect(c);
        return false;
    }
    return true;
}

void disconnect(struct client **c)
{
    if (*c != NULL) {
        client_close(*c);
        *c = NULL;
    }
}

/* ---- Past the proxy ------------------------------------------------------------------------- */

static struct client *node_at(struct thread *t, int port)
{
    int i = 0;

    while (i < NODES_MAX - 1 && t->node[i] != NULL && t->node_port[i] != port) {
        i++;
    }
    if (t->node_port[i] != port) {
        disconnect(&t->node[i]);
        t->node_port[i] = port;
    }
    return connected(t, &t->node[i], port) ? t->node[i] : NULL;
}

struct client *direct(struct thread *t)
{
    int n = 0;
    struct client *c = node_at(t, atomic_load(t->home));

    if (c == NULL) {
        while (t->traffic->ports[n] != 0) {
            n++;
        }
        atomic_store(t->home, t->traffic->ports[dice(t, n)]);
    }
    return c;
}

void disconnect_direct(struct thread *t)
{
    for (int i = 0; i < NODES_MAX; i++) {
        disconnect(&t->node[i]);
    }
}

const struct reply *say(struct thread *t, struct client **c, const char *fmt, ...)
{
    char line[400];
    bool asks = false;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    (void)client_command(*c, "%s", line);
    const struct reply *reply = client_reply(*c);
    for (int hops = 0; hops < 5 && t->home != NULL; hops++) {
        int port = client_redirected(reply, &asks);
        struct client *next = port != 0 ? node_at(t, port) : NULL;
        if (next == NULL) {
            break;
        }
        if (asks) {
            (void)ask(next, "ASKING");
        } else {
            atomic_store(t->home, port);
        }
        *c = next;
        (void)client_command(next, "%s", line);
        reply = client_reply(next);
    }
    return reply;
}

bool is_quiet(void)
{
    return now_ms() / QUIET_MS % 2 == 0;
}

/* ---- All of them ---------------------------------------------------------------------------- */

static void start_threads(struct traffic *traffic, int n, void *(*run)(void *ctx))
{
    for (int i = 0; i < n && traffic->n < THREADS_MAX; i++) {
        struct thread *t = &traffic->threads[traffic->n++];
        size_t places = (size_t)ledger_places();
        t->traffic = traffic;
        t->index = i;
        t->seed = traffic->options->seed * 1000 + (unsigned)traffic->n;
        t->last = calloc(places, sizeof(*t->last));
        t->last_key = calloc(places, sizeof(struct key *));
        if (t->last == NULL || t->last_key == NULL || pthread_create(&t->id, NULL, run, t) != 0) {
            abort();
        }
    }
}

void traffic_lead(struct traffic *traffic, int port)
{
    for (int i = 0; i < ledger_places() + traffic->options->ttls; i++) {
        atomic_store(&traffic->home[i], port);
    }
}

struct traffic *traffic_start(const struct options *options, int port, const int *ports)
{
    struct traffic *traffic = calloc(1, sizeof(*traffic));

    if (traffic == NULL) {
        abort();
    }
    traffic->options = options;
    traffic->port = port;
    traffic->ports = ports;
    traffic->home = calloc((size_t)(ledger_places() + options->ttls), sizeof(*traffic->home));
    if (traffic->home == NULL) {
        abort();
    }
    traffic_lead(traffic, ports[0]);
    start_threads(traffic, options->writers, run_writer);
    start_threads(traffic, options->foreign, run_foreign);
    start_threads(traffic, options->readers, run_reader);
    start_threads(traffic, options->impatient, run_impatient);
    start_threads(traffic, options->ttls, run_ttl);
    start_threads(traffic, options->flush_ms > 0 ? 1 : 0, run_flusher);
    return traffic;
}

static void add(struct tally *sum, const struct tally *t)
{
    for (int i = 0; i < 2; i++) {
        sum->judged[i] += t->judged[i];
        sum->writes[i] += t->writes[i];
    }
    for (int i = 0; i < BUCKETS; i++) {
        sum->ages[i] += t->ages[i];
    }
    sum->stale += t->stale;
    sum->pipelined += t->pipelined;
    sum->expired += t->expired;
    sum->pairs += t->pairs;
    sum->errors += t->errors;
    sum->oldest = t->oldest > sum->oldest ? t->oldest : sum->oldest;
}

void traffic_stop(struct traffic *traffic, struct tally *sum)
{
    memset(sum, 0, sizeof(*sum));
    atomic_store(&traffic->stop, true);
    for (int i = 0; i < traffic->n; i++) {
        struct thread *t = &traffic->threads[i];
        pthread_join(t->id, NULL);
        add(sum, &t->tally);
        free(t->last);
        free(t->last_key);
    }
    free(traffic->home);
    free(traffic);
}
