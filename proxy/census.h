/* SPDX-License-Identifier: Apache-2.0
 *
 * census.h: questions about all clients of the process: CLIENT LIST, KILL and UNBLOCK. The question
 * goes round the workers, one after the other, and comes home with the answer. Worker's thread only.
 */
#pragma once

#include "profile.h"

enum census_kind {
    CENSUS_LIST,
    CENSUS_KILL,         /* answered with how many */
    CENSUS_KILL_ADDRESS, /* CLIENT KILL address: answered with OK or an error */
    CENSUS_UNBLOCK,      /* answered by the server, in whose words the client is another */
};

enum census_type { CENSUS_ANY, CENSUS_NORMAL, CENSUS_PUBSUB };

/* Whom it concerns. */
struct census_filter {
    uint64_t *ids; /* owned; NULL: all */
    size_t nids;
    struct blob *user; /* owned; NULL: any. One that Redis does not have is nobody's */
    enum census_type type;
    char addr[PROFILE_ADDRESS_MAX]; /* "": any */
    char laddr[PROFILE_ADDRESS_MAX];
    int64_t max_age; /* seconds: only who is connected for at least so long; 0: any */
    bool skips_self;
};

struct census;

/* NULL when memory is out. */
struct census *census_create(enum census_kind kind);
void census_destroy(struct census *census);
struct census_filter *census_filter(struct census *census);
/* UNBLOCK: with an error (UNBLOCK id ERROR) rather than as if the time were up. */
void census_unblock_with_error(struct census *census);

/* Sets off; takes the census. The answer comes in the client's turn. `size` is that of the request. */
void census_start(struct client *c, const struct cmd *cmd, size_t size, struct census *census);
