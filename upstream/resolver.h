/* SPDX-License-Identifier: Apache-2.0
 *
 * resolver.h: looks host names up in a thread of its own, so that a DNS server that does not answer
 * holds up nobody: not the start, not a loop. One per process; thread-safe. Names are looked up one
 * after the other, in the order in which they were asked for.
 */
#pragma once

#include "../conf/base.h"

#include <stdbool.h>
#include <sys/socket.h>

#define ADDRESSES_MAX 16 /* of one name; further ones are left out */

struct address {
    struct sockaddr_storage addr;
    socklen_t len;
};

/* What a lookup came to: n addresses, or none and why. */
struct addresses {
    unsigned n;
    struct address list[ADDRESSES_MAX];
    char error[ERR_MAX];
};

/* Fills `found`; may block for as long as it likes. */
typedef void resolver_lookup_fn(const char *host, const char *port, struct addresses *found);

/* The system's way: files, DNS and what else nsswitch.conf names. */
void resolver_system(const char *host, const char *port, struct addresses *found);

/* True when host is an IPv4 or IPv6 address, and not a name: then `found` has it, without a lookup. */
bool resolver_is_address(const char *host, const char *port, struct addresses *found);

struct resolver;

/* Dies when no thread is to be had. */
struct resolver *resolver_create(resolver_lookup_fn *lookup);
/* Nobody is told anything any more. Does not wait for a lookup that is under way: its thread frees
 * what it uses when that is over. Accepts NULL. */
void resolver_destroy(struct resolver *r);

/* Called on the resolver's thread. May not ask the resolver for anything. `number`: which question it is. */
typedef void resolver_done_fn(void *ctx, uint64_t number, const struct addresses *found);

/* Copies host and port. `done` is called once, unless resolver_forget(ctx) comes first. The number is for who asks
 * again before it has been told. */
void resolver_ask(struct resolver *r, const char *host, const char *port, resolver_done_fn *done,
                  void *ctx, uint64_t number);
/* When it returns, nothing asked for with ctx is going on or will be told. */
void resolver_forget(struct resolver *r, const void *ctx);
