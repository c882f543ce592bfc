/* SPDX-License-Identifier: Apache-2.0
 *
 * load_options.h: what the load generator was asked to do.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define LOAD_PIDS 8

enum key_order {
    ORDER_UNIFORM, /* each key as likely, independently */
    ORDER_ZIPF,    /* few keys are asked for often: key of rank r with a weight of 1 / r^exponent */
    ORDER_CYCLE,   /* every key once, in a shuffled order, then again */
};

struct load_options {
    const char *server; /* HOST:PORT or unix:/PATH */
    unsigned clients;
    unsigned pipeline; /* requests in flight on a connection */
    bool sliding;      /* each reply lets the next request go; otherwise all are awaited first */
    uint64_t first_key, keys;
    enum key_order order;
    double exponent;   /* of ORDER_ZIPF */
    uint64_t position; /* ORDER_CYCLE: where to begin, 0 to keys - 1 */
    size_t value_size;
    unsigned gets;       /* percent; the others are SETs */
    const char *command; /* instead of GET and SET; NULL: none */
    uint64_t requests;   /* 0: as many as fit into `seconds` */
    double seconds, warm_up;
    double rate; /* requests per second, of all clients together; 0: as fast as they are answered */
    bool fill;   /* SET each key once */
    bool verify;
    bool hold;
    uint64_t seed;
    pid_t pids[LOAD_PIDS];
    unsigned pid_count;
};

/* Reads the command line. Does not return when it is wrong or asks for help. */
struct load_options load_options_read(int argc, char **argv);
