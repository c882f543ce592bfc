/* SPDX-License-Identifier: Apache-2.0
 *
 * resolver.c: a queue of questions and the thread that answers them.
 *
 * The lookup itself runs without the lock, on a question that is out of the queue and of which only
 * `ctx` is shared: resolver_forget empties it. `done` is called with the lock held, so that who has
 * forgotten a question is not told of it a moment later. Order of locks: this one before a node's.
 */
#include "resolver.h"

#include "../conf/log.h"
#include "../conf/mem.h"

#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct question {
    struct question *next;
    char *host;
    char *port;
    resolver_done_fn *done;
    void *ctx;
    uint64_t number;
    bool forgotten;
};

struct resolver {
    resolver_lookup_fn *lookup;
    pthread_t thread;
    pthread_mutex_t lock; /* everything below */
    pthread_cond_t asked; /* a question, or the end */
    struct question *first;
    struct question **end;
    struct question *current; /* being looked up */
    bool stopped;
};

/* ---- Lookups -------------------------------------------------------------------------------- */

static void look_up(const char *host, const char *port, int flags, struct addresses *found)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *list = NULL;
    found->n = 0;
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0) {
        snprintf(found->error, sizeof(found->error), "%s", gai_strerror(rc));
        return;
    }
    for (const struct addrinfo *at = list; at != NULL && found->n < ADDRESSES_MAX;
         at = at->ai_next) {
        struct address *address = &found->list[found->n];
        if (at->ai_addrlen <= sizeof(address->addr)) {
            memset(address, 0, sizeof(*address));
            memcpy(&address->addr, at->ai_addr, at->ai_addrlen);
            address->len = at->ai_addrlen;
            found->n++;
        }
    }
    freeaddrinfo(list);
    if (found->n == 0) {
        snprintf(found->error, sizeof(found->error), "it has no address");
    }
}

void resolver_system(const char *host, const char *port, struct addresses *found)
{
    look_up(host, port, 0, found);
}

bool resolver_is_address(const char *host, const char *port, struct addresses *found)
{
    look_up(host, port, AI_NUMERICHOST | AI_NUMERICSERV, found);
    return found->n > 0;
}

/* ---- The thread ----------------------------------------------------------------------------- */

static void question_destroy(struct question *q)
{
    mem_free(q->host);
    mem_free(q->port);
    mem_free(q);
}

static void resolver_free(struct resolver *r)
{
    while (r->first != NULL) {
        struct question *q = r->first;
        r->first = q->next;
        question_destroy(q);
    }
    pthread_cond_destroy(&r->asked);
    pthread_mutex_destroy(&r->lock);
    mem_free(r);
}

static struct question *take_question(struct resolver *r)
{
    while (r->first == NULL && !r->stopped) {
        pthread_cond_wait(&r->asked, &r->lock);
    }
    struct question *q = r->stopped ? NULL : r->first;
    if (q != NULL) {
        r->first = q->next;
        r->end = r->first == NULL ? &r->first : r->end;
    }
    return q;
}

static void *run(void *arg)
{
    struct resolver *r = arg;
    struct addresses found;
    pthread_mutex_lock(&r->lock);
    while ((r->current = take_question(r)) != NULL) {
        struct question *q = r->current;
        pthread_mutex_unlock(&r->lock);
        memset(&found, 0, sizeof(found));
        r->lookup(q->host, q->port, &found);
        pthread_mutex_lock(&r->lock);
        if (r->stopped) {
            /* resolver_destroy found us busy and has left everything to us */
            question_destroy(q);
            pthread_mutex_unlock(&r->lock);
            resolver_free(r);
            return NULL;
        }
        if (!q->forgotten) {
            q->done(q->ctx, q->number, &found);
        }
        r->current = NULL;
        question_destroy(q);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- For others ----------------------------------------------------------------------------- */

struct resolver *resolver_create(resolver_lookup_fn *lookup)
{
    struct resolver *r = mem_zalloc(sizeof(*r));
    sigset_t all;
    sigset_t old;
    r->lookup = lookup;
    r->end = &r->first;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->asked, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the main thread's */
    if (pthread_create(&r->thread, NULL, run, r) != 0) {
        log_event(LOG_ERROR, "cannot start the thread that looks host names up");
        exit(1);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

void resolver_destroy(struct resolver *r)
{
    if (r == NULL) {
        return;
    }
    pthread_t thread = r->thread;
    pthread_mutex_lock(&r->lock);
    bool busy = r->current != NULL;
    r->stopped = true;
    if (busy) {
        pthread_detach(thread);
    }
    pthread_cond_signal(&r->asked);
    pthread_mutex_unlock(&r->lock);
    if (!busy) {
        pthread_join(thread, NULL);
        resolver_free(r);
    }
}

void resolver_ask(struct resolver *r, const char *host, const char *port, resolver_done_fn *done,
                  void *ctx, uint64_t number)
{
    struct question *q = mem_zalloc(sizeof(*q));
    q->host = mem_strdup(host);
    q->port = mem_strdup(port);
    q->done = done;
    q->ctx = ctx;
    q->number = number;
    pthread_mutex_lock(&r->lock);
    *r->end = q;
    r->end = &q->next;
    pthread_cond_signal(&r->asked);
    pthread_mutex_unlock(&r->lock);
}

void resolver_forget(struct resolver *r, const void *ctx)
{
    pthread_mutex_lock(&r->lock);
    if (r->current != NULL && r->current->ctx == ctx) {
        r->current->forgotten = true;
    }
    r->end = &r->first;
    while (*r->end != NULL) {
        struct question *q = *r->end;
        if (q->ctx == ctx) {
            *r->end = q->next;
            question_destroy(q);
        } else {
            r->end = &q->next;
        }
    }
    pthread_mutex_unlock(&r->lock);
}
