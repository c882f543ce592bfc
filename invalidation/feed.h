/* SPDX-License-Identifier: Apache-2.0
 *
 * feed.h: keeps L1 honest. One feed per worker: the worker's fill connection F, which reads for L1
 * and on which the server announces every change of what was read (mode `tracking`, A1: RESP3,
 * CLIENT TRACKING ON). The feed is the cover's owner: it raises it (C2), renews its link lease with
 * PINGs (C6), takes it down when the link is lost (C4, C10), and applies pushes in order (M1, M2,
 * M5, M6).
 *
 * Fills are accepted only while the link is up; they never wait for a bring-up, because their
 * leases were taken under a cover that is gone then. A server that refuses RESP3 or tracking is
 * asked again every 10 s at most; until then the cover stays down and reads go past L1.
 *
 * Worker's thread only, except feed_stats.
 */
#pragma once

#include "../l1/l1.h"
#include "../upstream/conn.h"

struct feed;

struct feed_options {
    struct ev_loop *loop;
    struct node *node;
    struct l1 *l1;
    uint16_t cover;
    uint32_t db;
    int64_t link_lease_ms; /* L */
    int64_t (*now)(void);
    char *read_buffer;
    size_t read_size;
    _Atomic unsigned *refused; /* how many feeds of the process are refused, counted by all of them,
                                  so that it is said once; NULL: this feed is the only one */
};

struct feed *feed_create(const struct feed_options *options);
void feed_start(struct feed *feed);
/* Takes the cover down, then loses open calls and closes the link for good: nothing but feed_stats,
 * feed_submit (CONN_DOWN) and feed_destroy may be called afterwards. Accepts NULL. */
void feed_stop(struct feed *feed);
/* Stops it if it was not; nobody may ask for its stats any more. Accepts NULL. */
void feed_destroy(struct feed *feed);

/* May fills be sent? (Registered, answered its first PING, not refused.) */
bool feed_is_up(const struct feed *feed);

/* A fill: `bytes` are GET/MGET and PTTL commands, call->replies how many. As conn_submit, but
 * CONN_DOWN unless the feed is up. */
MUST_CHECK enum conn_status feed_submit(struct feed *feed, struct call *call, struct slice bytes);

/* Unsent bytes: what back-pressure goes by. */
size_t feed_queued_bytes(const struct feed *feed);

/* Once per loop turn. */
void feed_flush(struct feed *feed);
/* Its connection is in a state it should not be in: as if it had been lost. */
void feed_fail(struct feed *feed, const char *why);
/* Every 50..100 ms: notices lapses, and a link without PONG for max(2L, dead_after), which is then
 * lost ("-BUSY" and "-LOADING" do not renew the lease, but say that somebody is there). PINGs go
 * out by a timer of the feed's own, every L/4, one at a time. A standstill of this process does not
 * count, as for conn_tick. */
void feed_tick(struct feed *feed, int64_t now);

struct feed_stats {
    enum conn_state state;  /* as of the newest event or tick */
    bool refused;           /* the server refuses RESP3 or tracking: reads go past L1 */
    uint64_t invalidations; /* keys announced */
    uint64_t flushes;       /* null messages and unknown payloads: all of L1 was dropped */
    uint64_t lapses;        /* times the link lease ran out while connected */
    uint64_t losses;        /* links lost */
    uint64_t refusals;      /* times HELLO or CLIENT TRACKING was answered with an error */
    int64_t last_pong_ms;   /* when; 0: never */
};
/* Any thread; relaxed. */
void feed_stats(const struct feed *feed, struct feed_stats *out);
