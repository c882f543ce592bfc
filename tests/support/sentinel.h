/* SPDX-License-Identifier: Apache-2.0
 *
 * sentinel.h: a master, a replica and three sentinels (quorum two) of the test's own, on free loopback
 * ports. A master that says nothing for a second is failed over. Main thread of the test only.
 */
#pragma once

#include "nearside.h"
#include "redis.h"

#define SENTINELS 3

struct sentinels {
    struct redis *server[2]; /* at the start: the master, its replica */
    int port[SENTINELS];
    struct process *process[SENTINELS];
};

/* Starts them under the name "mymaster", with this password for the sentinels or NULL; returns when
 * the replica is connected and the sentinels know it and each other. */
struct sentinels *sentinels_start(const char *password);
/* A proxy in front; settings beyond upstream.mode, upstream.servers and sentinel.master, up to a NULL. */
struct nearside *sentinels_nearside(struct sentinels *s, const char *const *sets);
/* Waits until the sentinel says that server[n] is the master. */
void sentinels_await_master(struct sentinels *s, int sentinel, int n, int64_t ms);
/* Waits until sentinel 0 says that server[n] is the master, and then until every worker of the proxy writes to
 * it; what went to the old one behind its back until then is lost. server[n]->direct is a new connection. */
void sentinels_await_switch(struct sentinels *s, struct nearside *proxy, int n);
/* Ends all sentinels, and starts number i again as one that was cut off before any failover: it names server[0]. */
void sentinels_leave_behind(struct sentinels *s, int i);
/* They wait for so long before they take a silent master for dead. */
void sentinels_have_patience(struct sentinels *s, int ms);
/* SENTINEL FAILOVER, as soon as the sentinel consents; does not wait for the outcome. */
void sentinels_failover(struct sentinels *s);
