/* SPDX-License-Identifier: Apache-2.0
 *
 * feed.h: keeps L1 honest, in whatever way the server allows. One `struct feeds` per process and
 * node, one `struct feed` per worker; nobody outside this folder needs to know the mode.
 *
 *   mode       how it is learnt that a key changed         links                      cover of an entry
 *   tracking   pushes on the connection that read it (A1)  a fill connection F each   its F's
 *   redirect   the same, redirected to a subscriber (A2)   F each, and one link I     its F's, and I
 *   broadcast  all writes of some prefixes (B)             F each (plain), and I      I's
 *   keyspace   keyspace notifications (C)                  F each (plain), and I      I's
 *   channel    Nearsides tell each other (D)               F each (plain), and I      I's
 *
 * The feed owns the covers: it raises them (C2), renews their link leases with PINGs (C6), takes them
 * down when the link is lost (C4, C10), and applies messages in order (M1, M2, M5, M6). Fills are
 * accepted only while everything that vouches for them is up; they never wait for a bring-up,
 * because their leases were taken under a cover that is gone then.
 *
 * I and the choice of the mode belong to the feed of worker 0 (the host). In automatic choice the
 * strongest mode is taken that the server has not refused; a refused one is tried on the side, first
 * after a second, then less and less often, and taken again when it works. A change of mode drops
 * everything. With a fixed mode a server that refuses it is asked again every 10 s at most; until then
 * reads go past L1.
 *
 * A feed belongs to its worker's thread, except feed_stats. Functions on `feeds` may be called on any
 * thread, except create and destroy.
 */
#pragma once

#include "../l1/l1.h"
#include "../upstream/conn.h"

/* From the strongest to the weakest. */
enum feed_mode {
    FEED_TRACKING,
    FEED_REDIRECT,
    FEED_BROADCAST,
    FEED_KEYSPACE,
    FEED_CHANNEL, /* never chosen automatically: it is blind to everybody who does not take part */
    FEED_NONE,
};

/* ---- What the feeds of a process share ----------------------------------------------------- */

struct feeds;

struct feeds_options {
    struct node *node;
    struct l1 *l1;
    uint16_t first_cover;  /* L1 has feeds_covers(workers) for it from here on */
    unsigned workers;      /* feeds there will be */
    bool automatic;        /* the mode is chosen; `mode` is not looked at */
    enum feed_mode mode;   /* not NONE */
    uint32_t db;           /* of the fill connections */
    int64_t link_lease_ms; /* L */
    int64_t weak_ttl_ms; /* longest an entry is kept in a mode that does not announce everything */
    int64_t channel_ttl_ms; /* the same in channel */
    const char *channel;    /* its name */
    const char *prefixes;   /* broadcast: separated by blanks; "": all keys */
    bool set_notify;        /* keyspace: the server's notify-keyspace-events may be changed */
    int64_t (*now)(void);
};

/* How many covers L1 must have for each node: one for each F, and one for I in each mode whose I
 * vouches. */
uint32_t feeds_covers(unsigned workers);

/* Copies the options; node and L1 must outlive it. */
struct feeds *feeds_create(const struct feeds_options *options);
/* After its feeds. Accepts NULL. */
void feeds_destroy(struct feeds *feeds);

/* Another server process answers at the address (C3): whatever was fetched from the old one is void,
 * and no cover comes up again before its own links lead to the new one. */
void feeds_down(struct feeds *feeds);

/* Has a fence to ask the feed of this worker (feed_fence)? If not, nothing it could say matters. */
bool feeds_fence_asks(const struct feeds *feeds, unsigned index);
/* Mode channel: what is written here has to be told to others, and nobody tells us what a script
 * wrote, so that there are no fences: drop everything instead. */
bool feeds_announces(const struct feeds *feeds);
/* Behind a write's reply or loss: its keys as bulks ("$1\r\nk\r\n"); nothing: all keys. Any
 * thread. */
void feeds_announce(struct feeds *feeds, struct slice keys);
/* That feed did not answer a fence in time (X4): what it vouches for is void. */
void feeds_void(struct feeds *feeds, unsigned index);

struct feeds_status {
    bool automatic;
    enum feed_mode mode; /* in force; NONE: the server refuses everything that was asked for */
    char why[1024];      /* what is refused, and how: "tracking: HELLO: NOPERM ..."; "" */
    uint64_t changes;    /* of the mode, since the start */
    bool link_up;        /* I's, in the modes that have one */
    unsigned peers;      /* channel: others that are heard */
    int64_t table_keys;  /* the server's tracking table, as of the newest look; -1: not known */
    int64_t table_max;   /* its limit; 0: none; -1: not known */
};
void feeds_status(struct feeds *feeds, struct feeds_status *out);
const char *feed_mode_name(enum feed_mode mode);

/* ---- One worker's feed --------------------------------------------------------------------- */

struct feed;

struct feed_options {
    struct feeds *feeds;
    unsigned index; /* of the worker; 0 is the host */
    struct ev_loop *loop;
    char *read_buffer;
    size_t read_size;
};

struct feed *feed_create(const struct feed_options *options);
/* Also after feed_stop: the node serves again. */
void feed_start(struct feed *feed);
/* Takes its covers down, then loses open calls and closes the links: it is as if nobody answered
 * until feed_start. feed_flush and feed_tick must not be called meanwhile. Accepts NULL. */
void feed_stop(struct feed *feed);
/* Stops it if it was not; nobody may ask for its stats any more. Accepts NULL. */
void feed_destroy(struct feed *feed);

/* May fills be sent? (What vouches for them is registered and answered its first PING.) */
bool feed_is_up(const struct feed *feed);

/* The cover for a lease of that key: L1_NO_COVER unless the feed is up and changes of this key are
 * announced. */
uint16_t feed_cover(const struct feed *feed, struct slice key);
/* Are changes of this key announced, while the feed is up? */
bool feed_announces(const struct feed *feed, struct slice key);
/* The longest that any entry may be kept in the present mode, ms. */
int64_t feed_ttl_limit(const struct feed *feed);

/* A fill: `bytes` are GET/MGET and PTTL commands, call->replies how many. As conn_submit, but
 * CONN_DOWN unless the feed is up. */
MUST_CHECK enum conn_status feed_submit(struct feed *feed, struct call *call, struct slice bytes);

/* Has F owed replies and not moved a byte for `limit` ms and twice what its PINGs take, or has
 * its worker not looked? To the tick; false while F is not up. Any thread, for the feed of any worker. */
bool feed_has_stalled(const struct feed *feed, int64_t limit, int64_t now);

/* Unsent bytes: what back-pressure goes by. */
size_t feed_queued_bytes(const struct feed *feed);

/* One worker's part of a fence; embedded in what waits for it. */
struct feed_fence {
    /* Exactly once, after feed_fence has returned FEED_FENCE_WAITS. good: every announcement that was
     * due before feed_fence was called has been applied, or what it was about is void. */
    void (*done)(struct feed_fence *fence, bool good);
    struct call fill; /* private from here on */
    struct call link;
    struct feed *feed;
    unsigned open; /* calls */
    bool again;    /* link: a second PING is due (I4) */
    bool bad;
};
enum feed_fence_result { FEED_FENCE_WAITS, FEED_FENCE_DONE, FEED_FENCE_FAILED };
/* Sends the PINGs (X1, I4). DONE: nothing to wait for. FAILED: out of memory. */
MUST_CHECK enum feed_fence_result feed_fence(struct feed *feed, struct feed_fence *fence);

/* Once per loop turn. */
void feed_flush(struct feed *feed);
/* Its fill connection is in a state it should not be in: as if it had been lost. */
void feed_fail(struct feed *feed, const char *why);
/* Every 10..100 ms: notices lapses, links without PONG for max(2L, dead_after), which are then lost
 * ("-BUSY" and "-LOADING" do not renew the lease, but say that somebody is there), and changes of
 * the mode. PINGs go out by timers of the feed's own, every L/4, one at a time. A standstill of this
 * process does not count, as for conn_tick. */
void feed_tick(struct feed *feed, int64_t now);

struct feed_stats {
    enum conn_state state;  /* F's as of the newest event or tick; not UP unless the feed is */
    bool refused;           /* the server refuses what F needs: reads go past L1 */
    uint64_t invalidations; /* keys announced */
    uint64_t flushes;       /* null messages and unknown payloads: all of L1 was dropped */
    uint64_t lapses;        /* times a link lease ran out while connected */
    uint64_t losses;        /* links lost */
    uint64_t refusals;      /* times a step of a mode was answered with an error */
    int64_t last_pong_ms;   /* F's; 0: never */
};
/* Any thread; relaxed. */
void feed_stats(const struct feed *feed, struct feed_stats *out);
