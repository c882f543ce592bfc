/* SPDX-License-Identifier: Apache-2.0
 *
 * load_data.h: which key comes next, and what its value is.
 *
 * A key is "key:" and twelve digits. A value begins with its key and a version, and the rest follows
 * from these two, so that whoever reads it can tell whether it is whole and whose it is:
 *     key:000000000042:00000000000000a7:rest...
 * A value shorter than this beginning follows from its key alone.
 */
#pragma once

#include "load_options.h"

#define KEY_LEN     16
#define VERSION_LEN 16
#define HEAD_LEN    (KEY_LEN + 1 + VERSION_LEN + 1)

struct data {
    uint64_t first, keys;
    enum key_order order;
    uint64_t random;        /* state of the generator */
    uint64_t at, stride;    /* ORDER_CYCLE: position, and a step that meets every key */
    double exponent, range; /* ORDER_ZIPF: of the weights, and their sum */
    size_t value_size;
    char *rest; /* what values are cut from */
};

void data_init(struct data *d, const struct load_options *o);
void data_fini(struct data *d);

/* A number below n, n > 0. */
uint64_t data_below(struct data *d, uint64_t n);
uint64_t data_next_key(struct data *d);

/* Write at `to` and return the end. */
char *data_put_key(char *to, uint64_t key);
char *data_put_value(const struct data *d, char *to, uint64_t key, uint64_t version);

/* A value that arrives in pieces, under examination. */
struct check {
    uint64_t key;
    size_t seen;
    bool wrong;
    char head[HEAD_LEN];
    const char *rest; /* of the version found in the head */
};

void check_begin(struct check *c, uint64_t key);
void check_feed(struct check *c, const struct data *d, const char *bytes, size_t n);
/* After the last piece: is it the whole value of the key? */
bool check_end(const struct check *c, const struct data *d);
