/* SPDX-License-Identifier: Apache-2.0
 *
 * cleanup.c: a stack of things to end, one per test process (Criterion gives each test a process of
 * its own, so a process-wide list is a per-test list).
 *
 * An entry leaves the list before its end runs: a failing end leaves the function by longjmp, and
 * the next cleanup_run goes on with the rest. The lock is not held while an end runs, because ends
 * join threads that may add entries themselves.
 */
#include "cleanup.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct entry {
    void (*end)(void *object);
    void *object;
    struct entry *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct entry *top; /* under lock */

static void out_of_memory(void)
{
    fprintf(stderr, "test support: out of memory\n");
    abort();
}

void cleanup_add(void (*end)(void *object), void *object)
{
    struct entry *entry = malloc(sizeof(*entry));

    if (entry == NULL) {
        out_of_memory();
    }
    entry->end = end;
    entry->object = object;
    pthread_mutex_lock(&lock);
    entry->next = top;
    top = entry;
    pthread_mutex_unlock(&lock);
}

void cleanup_run(void)
{
    for (;;) {
        pthread_mutex_lock(&lock);
        struct entry *entry = top;
        if (entry != NULL) {
            top = entry->next;
        }
        pthread_mutex_unlock(&lock);
        if (entry == NULL) {
            return;
        }
        void (*end)(void *) = entry->end;
        void *object = entry->object;
        free(entry);
        end(object);
    }
}

void *cleanup_alloc(size_t n)
{
    void *p = calloc(1, n > 0 ? n : 1);

    if (p == NULL) {
        out_of_memory();
    }
    cleanup_add(free, p);
    return p;
}

char *cleanup_printf(const char *fmt, ...)
{
    va_list ap;
    char *text = NULL;

    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0) {
        out_of_memory();
    }
    va_end(ap);
    cleanup_add(free, text);
    return text;
}
