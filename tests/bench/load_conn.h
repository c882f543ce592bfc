/* SPDX-License-Identifier: Apache-2.0
 *
 * load_conn.h: the connections of the load generator, each with up to options->pipeline requests in
 * flight. Whatever should not happen on a connection ends the program.
 */
#pragma once

#include "load_data.h"
#include "load_latency.h"

#define COMMAND_WORDS 32

struct tally {
    uint64_t requests, gets, sets, nulls;
    uint64_t errors; /* replies that are errors, or not what the command returns */
    uint64_t wrong;  /* values that check_end refused, and nulls where there should be a value */
    struct latency latency;
};

/* What all connections share. */
struct load {
    const struct load_options *options;
    struct data data;
    int epoll;
    uint64_t version; /* of the next SET */
    char *command;    /* options->command, cut into words */
    const char *words[COMMAND_WORDS];
    unsigned word_count;
    char bulk_head[32]; /* the first line of a reply with a value of the usual size */
    size_t bulk_head_len;
    char *input, *output; /* buffers for one read, and for the requests of one client */
    uint64_t read_ns;     /* when the last read was */
    struct tally tally;
};

struct conn;

/* Buffers, and the words of options->command. */
void load_init(struct load *load, const struct load_options *options);
void load_fini(struct load *load);

/* Connects and registers with load->epoll; ends the program if it cannot. Returns owned. */
struct conn *conn_open(struct load *load);
void conn_close(struct conn *c);

/* Sends n requests in one piece. `since_ns`: what their latency counts from. */
void conn_send(struct conn *c, unsigned n, uint64_t since_ns);
unsigned conn_in_flight(const struct conn *c);

/* What epoll reported for it. Returns how many replies have come. */
unsigned conn_on_event(struct conn *c, uint32_t events);

uint64_t load_now_ns(void);
/* Prints the reason (as printf) and ends the program with 1. */
__attribute__((noreturn, format(printf, 1, 2))) void load_fail(const char *format, ...);
