/* SPDX-License-Identifier: Apache-2.0
 *
 * load_data.c: keys by number, values by key and version. The generator is xorshift64*, seeded by the
 * command line, so that a run can be repeated.
 */
#include "load_data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESTS 65536 /* places in `rest` where a value's rest may begin */

static uint64_t next_random(struct data *d)
{
    uint64_t x = d->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    d->random = x;
    return x * UINT64_C(2685821657736338717);
}

uint64_t data_below(struct data *d, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)next_random(d) * n) >> 64);
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* A step near the golden section of the keys that has no divisor in common with their number. */
static uint64_t shuffling_stride(uint64_t keys)
{
    uint64_t stride = (uint64_t)((double)keys * 0.6180339887) | 1;
    while (common_divisor(stride, keys) != 1) {
        stride += 2;
    }
    return stride;
}

/* The weights 1/r^e, taken as a function of a continuous r: its integral from 1/2 to r. */
static double weight_below(const struct data *d, double r)
{
    double e = 1 - d->exponent;
    if (fabs(e) < 1e-9) {
        return log(r / 0.5);
    }
    return (pow(r, e) - pow(0.5, e)) / e;
}

static uint64_t zipf_rank(struct data *d)
{
    double w = (double)(next_random(d) >> 11) * 0x1p-53 * d->range;
    double e = 1 - d->exponent;
    double r = fabs(e) < 1e-9 ? 0.5 * exp(w) : pow(w * e + pow(0.5, e), 1 / e);
    double rank = floor(r + 0.5) - 1; /* 0 is the most frequent */
    uint64_t last = d->keys - 1;
    return rank <= 0 ? 0 : rank >= (double)last ? last : (uint64_t)rank;
}

void data_init(struct data *d, const struct load_options *o)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    *d = (struct data){
        .first = o->first_key,
        .keys = o->keys,
        .order = o->order,
        .random = 1,
        .at = o->position,
        .stride = shuffling_stride(o->keys),
        .exponent = o->exponent,
        .value_size = o->value_size,
        .rest = malloc(RESTS + o->value_size),
    };
    if (d->rest == NULL) {
        fputs("load: no memory for a value of this size\n", stderr);
        exit(1);
    }
    d->range = weight_below(d, (double)o->keys + 0.5);
    for (size_t i = 0; i < RESTS + o->value_size; i++) {
        d->rest[i] = letters[next_random(d) >> 58];
    }
    d->random = o->seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

void data_fini(struct data *d)
{
    free(d->rest);
}

uint64_t data_next_key(struct data *d)
{
    switch (d->order) {
    case ORDER_CYCLE:
        d->at += d->stride;
        d->at -= d->at >= d->keys ? d->keys : 0;
        return d->first + d->at;
    case ORDER_ZIPF:
        /* Ranks are spread over the keys, so that neighbours are not alike. */
        return d->first + (uint64_t)((unsigned __int128)zipf_rank(d) * d->stride % d->keys);
    case ORDER_UNIFORM:
    default:
        return d->first + data_below(d, d->keys);
    }
}

char *data_put_key(char *to, uint64_t key)
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233"
        "34353637383940414243444546474849505152535455565758596061626364656667"
        "6869707172737475767778798081828384858687888990919293949596979899";
    memcpy(to, "key:", 4);
    for (int i = KEY_LEN - 2; i >= 4; i -= 2) {
        memcpy(to + i, pairs + key % 100 * 2, 2);
        key /= 100;
    }
    return to + KEY_LEN;
}

static const char *rest_of(const struct data *d, uint64_t key, uint64_t version)
{
    uint64_t mixed =
        (key * UINT64_C(0x9e3779b97f4a7c15)) ^ (version * UINT64_C(0xc2b2ae3d27d4eb4f));
    return d->rest + (mixed >> 40) % RESTS;
}

char *data_put_value(const struct data *d, char *to, uint64_t key, uint64_t version)
{
    if (d->value_size < HEAD_LEN) {
        memcpy(to, rest_of(d, key, 0), d->value_size);
        return to + d->value_size;
    }
    char *at = data_put_key(to, key);
    *at++ = ':';
    for (int shift = 4 * (VERSION_LEN - 1); shift >= 0; shift -= 4) {
        *at++ = "0123456789abcdef"[version >> shift & 15];
    }
    *at++ = ':';
    memcpy(at, rest_of(d, key, version), d->value_size - HEAD_LEN);
    return to + d->value_size;
}

/* ---- Checking ------------------------------------------------------------------------------- */

void check_begin(struct check *c, uint64_t key)
{
    c->key = key;
    c->seen = 0;
    c->wrong = false;
}

/* The head is there: does it name the key, and which version? */
static void read_head(struct check *c, const struct data *d)
{
    char key[KEY_LEN];
    uint64_t version = 0;
    data_put_key(key, c->key);
    c->wrong |= memcmp(c->head, key, KEY_LEN) != 0 || c->head[KEY_LEN] != ':' ||
                c->head[HEAD_LEN - 1] != ':';
    for (size_t i = KEY_LEN + 1; i < HEAD_LEN - 1; i++) {
        unsigned char digit = (unsigned char)c->head[i];
        bool letter = digit >= 'a' && digit <= 'f';
        c->wrong |= !letter && !(digit >= '0' && digit <= '9');
        version = version << 4 | ((uint64_t)(letter ? digit - 'a' + 10 : digit - '0') & 15);
    }
    c->rest = rest_of(d, c->key, version);
}

void check_feed(struct check *c, const struct data *d, const char *bytes, size_t n)
{
    if (n > d->value_size - c->seen) {
        c->wrong = true;
    }
    if (c->wrong) {
        return;
    }
    size_t head = d->value_size < HEAD_LEN ? 0 : HEAD_LEN;
    if (head == 0) {
        c->rest = rest_of(d, c->key, 0);
    }
    if (c->seen < head) {
        size_t part = n < head - c->seen ? n : head - c->seen;
        memcpy(c->head + c->seen, bytes, part);
        c->seen += part;
        bytes += part;
        n -= part;
        if (c->seen == head) {
            read_head(c, d);
        }
    }
    if (n > 0) {
        c->wrong |= memcmp(bytes, c->rest + (c->seen - head), n) != 0;
        c->seen += n;
    }
}

bool check_end(const struct check *c, const struct data *d)
{
    return !c->wrong && c->seen == d->value_size;
}
