/* SPDX-License-Identifier: Apache-2.0
 *
 * traffic.h: what the checker's threads are made of, whatever they do.
 */
#pragma once

#include "checker.h"

#define NODES_MAX 16

struct thread {
    pthread_t id;
    struct traffic *traffic;
    int index;
    unsigned seed;
    int db; /* of its connections */
    struct client *c, *peer;
    /* past the proxy */
    /* where the key is that is written next; NULL: what is written goes through the proxy */
    atomic_int *home;
    struct client *node[NODES_MAX];
    int node_port[NODES_MAX];
    struct tally tally;
    /* what this connection has read, per place */
    struct key **last_key;
    long long *last;
};

#define THREADS_MAX 256

struct traffic {
    const struct options *options;
    int port;         /* of the proxy */
    const int *ports; /* of the servers, up to a 0 */
    /* the port of the server that has the keys, by place; behind them those of run_ttl */
    atomic_int *home;
    atomic_bool stop;
    int n;
    struct thread threads[THREADS_MAX];
};

/* 0..n-1, by the thread's own seed. */
int dice(struct thread *t, int n);
bool stopped(const struct thread *t);
/* Sleeps for around `us`, unless it is over. */
void think(struct thread *t, int us);
/* Half of the time nothing of unknown effect is sent, and little that drops what is old: the fences
 * void whatever is late, and values would never get old otherwise. */
bool is_quiet(void);

/* Connects again if need be; false: not now. The thread has read nothing then. */
bool connected(struct thread *t, struct client **c, int port);
void disconnect(struct client **c);
/* A connection to the server at t->home; NULL: not now. */
struct client *direct(struct thread *t);
void disconnect_direct(struct thread *t);
/* Sends a command and returns the reply. Past the proxy, whoever else is said to have the key is asked, and *c
 * is the connection to him then. */
const struct reply *say(struct thread *t, struct client **c, const char *fmt, ...) FORMAT(3, 4);
/* Neither an error nor the end. */
bool is_good(const struct reply *reply);

/* What threads run, a struct thread being their argument. */
void *run_writer(void *ctx);    /* writers.c: through the proxy */
void *run_foreign(void *ctx);   /* past it */
void *run_flusher(void *ctx);   /* empties everything now and then, through the proxy */
void *run_reader(void *ctx);    /* readers.c */
void *run_impatient(void *ctx); /* does not wait for a reply that is late */
void *run_ttl(void *ctx);       /* lets keys end, and watches */
