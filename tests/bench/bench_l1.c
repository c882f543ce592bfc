/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_l1.c: nanoseconds of thread CPU time per hit, miss with fill, and invalidation of one
 * thread, one line each: keys of 16 bytes, values of 64. The number of keys comes first on the
 * command line (10000 unless given), then the rounds (200). The median of the rounds is printed,
 * which forgives a busy machine; compare runs on the same one only.
 *
 * A round is timed as a whole: the clock costs as much as a hit.
 */
#include "../../l1/l1.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KEY_LEN 16
#define VALUE   "$64\r\n0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n"
#define BATCH   2000

struct bench {
    struct l1 *l1;
    uint32_t keys;
    uint32_t at; /* walks the keys in an order that the prefetcher cannot guess */
    uint64_t key[KEY_LEN / sizeof(uint64_t)];
    struct chain out;
};

static double cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void woken(struct l1_waiter *w, enum l1_wake how, struct l1_reply *reply)
{
    (void)w;
    (void)how;
    (void)reply;
}

static struct l1_query query(struct bench *b, struct l1_waiter *w, uint32_t i)
{
    b->key[0] = 0x3a79656b; /* "key:" */
    b->key[1] = i;
    struct l1_query q = {
        .key = slice_of((const char *)b->key, KEY_LEN), .out = &b->out, .waiter = w};
    q.hash = l1_hash(b->l1, q.key);
    return q;
}

static void fill(struct bench *b, uint32_t i)
{
    struct l1_waiter w = {.wake = woken};
    struct l1_query q = query(b, &w, i);
    if (l1_get(b->l1, &q, 0) == L1_OWNER) {
        struct l1_value v = {.encoded = SLICE(VALUE), .ttl_ms = 60000};
        l1_fill(b->l1, &q.lease, &v, 0);
    }
}

static void next_key(struct bench *b)
{
    b->at = (uint32_t)(((uint64_t)b->at + 2654435761U) % b->keys);
}

static void round_hit(struct bench *b)
{
    struct l1_waiter w = {.wake = woken};
    for (int i = 0; i < BATCH; i++) {
        next_key(b);
        struct l1_query q = query(b, &w, b->at);
        if (l1_get(b->l1, &q, 0) != L1_HIT) {
            fprintf(stderr, "bench_l1: a key is not there\n");
            exit(1);
        }
        if (b->out.bytes > 8192) {
            chain_consume(&b->out, b->out.bytes);
        }
    }
    chain_consume(&b->out, b->out.bytes);
}

/* What the loop costs without L1, to be subtracted. */
static void round_loop(struct bench *b)
{
    struct l1_waiter w = {.wake = woken};
    for (int i = 0; i < BATCH; i++) {
        next_key(b);
        struct l1_query q = query(b, &w, b->at);
        __asm__ volatile("" : : "r"(&q) : "memory");
    }
}

static void round_fill(struct bench *b)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        fill(b, b->keys + i);
    }
}

static void round_invalidate(struct bench *b)
{
    struct l1_waiter w = {.wake = woken};
    for (uint32_t i = 0; i < BATCH; i++) {
        l1_invalidate(b->l1, query(b, &w, b->keys + i).hash);
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

struct kind {
    const char *name;
    void (*round)(struct bench *b);
};

static const struct kind kinds[] = {
    {"loop", round_loop},
    {"hit", round_hit},
    {"fill", round_fill},
    {"invalidate", round_invalidate},
};

static void run(struct bench *b, size_t rounds)
{
    double *ns[ARRAY_LEN(kinds)];
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        ns[k] = calloc(rounds, sizeof(**ns));
        if (ns[k] == NULL) {
            exit(1);
        }
    }
    for (size_t r = 0; r < rounds; r++) {
        for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
            double start = cpu_ns();
            kinds[k].round(b);
            ns[k][r] = (cpu_ns() - start) / BATCH;
        }
    }
    double loop = 0;
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++) {
        qsort(ns[k], rounds, sizeof(**ns), by_value);
        if (k == 0) {
            loop = ns[k][rounds / 2];
        } else {
            printf("l1 %-10s %7.1f ns\n", kinds[k].name, ns[k][rounds / 2] - loop);
        }
        free(ns[k]);
    }
}

/* The number in text, 0 if it is none. */
static uint32_t number(const char *text)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    return *end == '\0' && n <= 50000000 ? (uint32_t)n : 0;
}

int main(int argc, char **argv)
{
    uint32_t keys = argc > 1 ? number(argv[1]) : 10000;
    uint32_t rounds = argc > 2 ? number(argv[2]) : 200;
    if (keys == 0 || rounds == 0) {
        fprintf(stderr, "usage: bench_l1 [keys [rounds]]\n");
        return 2;
    }
    char err[ERR_MAX];
    struct l1_options options = {.max_memory = ((size_t)64 << 20) + (size_t)keys * 512,
                                 .max_item_size = 1 << 20,
                                 .covers = 1};
    struct bench b = {.l1 = l1_create(&options, err), .keys = keys};
    if (b.l1 == NULL) {
        fprintf(stderr, "bench_l1: %s\n", err);
        return 1;
    }
    l1_cover_up(b.l1, 0, INT64_MAX);
    chain_init(&b.out);
    for (uint32_t i = 0; i < b.keys; i++) {
        fill(&b, i);
    }
    run(&b, rounds);
    struct l1_stats stats;
    l1_stats(b.l1, &stats);
    printf("l1 bytes      %7.1f per item\n", (double)stats.bytes / (double)stats.items);
    chain_fini(&b.out);
    l1_destroy(b.l1);
    return 0;
}
