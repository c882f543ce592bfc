/* SPDX-License-Identifier: Apache-2.0
 *
 * l1.h: the local cache (L1), one per process, shared by all workers. Knows keys, encoded replies,
 * leases and time; nothing of sockets. Rule numbers (R1, C4, W1 ...) are those of the consistency
 * protocol, see ARCHITECTURE.md.
 *
 * Thread-safe: a call locks one shard at a time, a hit none if its thread has a reader, and holds no
 * lock when it returns or wakes somebody. Nothing here blocks or does I/O. Time is passed in: ms of CLOCK_BOOTTIME, read after
 * the last socket read that brought requests.
 *
 * The promise of this file: no call returns a value that is older than an l1_invalidate,
 * l1_write_begin, l1_write_end, l1_cover_down or l1_drop_all of that key which finished before the
 * call began.
 *
 * Identity: an entry is (key, db). The hash is over the key alone; invalidation, writes and R7 go
 * by the 64-bit hash and so reach the key in every db with one probe (a collision costs a miss,
 * never a stale value). A value is the RESP bulk that is sent to clients ("$3\r\nfoo\r\n", the same
 * in RESP2 and RESP3; kept without what follows from its length); a null is an entry without a
 * value.
 */
#pragma once

#include "../resp/chain.h"

struct l1;
struct l1_lease;

/* ---- Life ---------------------------------------------------------------------------------- */

struct l1_options {
    /* Bytes: keys, values, index, queues, ghosts, leases: everything, but for an item that a call
     * in progress brings in or takes out, and some 40 KiB of memory for leases in each of at most 64 shards. Memory, not a count: pages are charged when they get their
     * first entry. */
    size_t max_memory;
    /* Largest key + encoded value that is kept; at most max_memory / 4 and 1 GiB. */
    size_t max_item_size;
    /* How many covers there are, numbered from 0; less than L1_NO_COVER. */
    uint32_t covers;
    /* How many slots there are, numbered from 0, at most 16384: in a cluster, which has only db 0.
     * 0: keys have none. */
    uint32_t slots;
    /* How many threads look up without a lock: see l1_reader. */
    uint32_t readers;
};

/* NULL with *err filled when the options contradict each other or memory is out. */
struct l1 *l1_create(const struct l1_options *options, char err[ERR_MAX]);
/* No lease may be open and no other thread may be inside. Accepts NULL. */
void l1_destroy(struct l1 *l1);

/* The 64-bit keyed hash (secret per process) that names a key everywhere below. */
uint64_t l1_hash(const struct l1 *l1, struct slice key);

/* ---- Covers: who vouches for what was fetched (C1, C4, C6, C8) ------------------------------ */

/* A cover is one fill connection F_i. It has an incarnation, whether it is up, and a moment until
 * which what it fetched may be served (t_ok + L). Only the worker that owns F_i calls up, renew and
 * down for it, except that any thread may call l1_cover_down.
 *
 * Memory order (C11): the owner calls renew only after every invalidation received earlier on F_i
 * has been applied; whoever sees the new moment then also sees those drops. */
#define L1_NO_COVER UINT16_MAX

/* F_i is registered and answered its first PING: leases may be taken under it. If it was up still,
 * this is a new incarnation all the same. */
void l1_cover_up(struct l1 *l1, uint16_t cover, int64_t servable_until);
/* A PONG was processed. Ignored while the cover is down. */
void l1_cover_renew(struct l1 *l1, uint16_t cover, int64_t servable_until);
/* F_i is lost: everything it fetched is void in this very step, O(1) (C4, C10). */
void l1_cover_down(struct l1 *l1, uint16_t cover);
bool l1_cover_is_up(const struct l1 *l1, uint16_t cover);
/* Everything F_i fetched, and what it is fetching, is void; the cover stays as it is, up or down, and
 * leases taken from now on are good (X4). O(1), any thread. */
void l1_cover_void(struct l1 *l1, uint16_t cover);

/* Everything in L1 is void and every lease detached, whatever its cover (class F, null message,
 * another server process): O(covers). Covers that are up stay up. */
void l1_drop_all(struct l1 *l1);
/* Every entry of that slot is void, and so is every lease taken in an older generation of it: it has
 * another owner. O(1), any thread. Call it behind the moment from which the new owner is seen (and
 * before it as well, so that nothing old is left by then). */
void l1_drop_slot(struct l1 *l1, uint16_t slot);
uint32_t l1_slot_generation(const struct l1 *l1, uint16_t slot);

/* ---- Readers ------------------------------------------------------------------------------- */

/* A thread that gives its reader with a query takes no lock for a hit and writes nothing that others
 * read. In return it says when it rests: until then the memory of what it may have seen is not used
 * again, so it must rest before it waits for anything, and every few milliseconds. A query without
 * reader is answered all the same, under the lock. */
struct l1_reader;
/* The i-th of l1_options.readers, to be used by one thread; lives as long as L1. */
struct l1_reader *l1_reader(struct l1 *l1, uint32_t i);
/* Between lookups, by the reader's thread. The next lookup ends the rest. */
void l1_reader_rest(struct l1_reader *r);

/* ---- Reads --------------------------------------------------------------------------------- */

/* What a waiter is woken with. */
enum l1_wake {
    L1_WAKE_REPLY, /* reply->encoded is what to send */
    L1_WAKE_NULL,  /* the key does not exist */
    L1_WAKE_RETRY, /* the fetch failed, or stalled, or its value is too large to share: look again, once */
};

/* A reply on its way to several waiters. `encoded` is borrowed for the call; l1_reply_blob gives a
 * reference that outlives it (the first call copies, later ones share; NULL when memory is out). */
struct l1_reply {
    struct slice encoded;
    struct blob *blob;
};
struct blob *l1_reply_blob(struct l1_reply *reply);

/* One reader parked on a lease; embedded in a request. wake runs exactly once, after the lease
 * ended, on the thread that ended it, outside all locks, and never from inside l1_get; L1 has
 * forgotten the waiter by then. */
struct l1_waiter {
    void (*wake)(struct l1_waiter *w, enum l1_wake how, struct l1_reply *reply);
    uint64_t hash; /* private to l1 from here on; all but hash under the shard's lock */
    struct l1_lease *lease;
    struct l1_waiter *next;
    struct l1_waiter *prev;
};

enum l1_result {
    L1_HIT,      /* the encoded value has been appended to q->out (a large one by reference) */
    L1_HIT_NULL, /* the key is known not to exist; nothing was appended */
    L1_OWNER,    /* fetch it: q->lease is ours, end it with l1_fill or l1_abandon, exactly once; the
                    waiter is parked on it like any other */
    L1_JOINED,   /* somebody fetches it already: the waiter is parked */
    L1_PASS,     /* neither known nor leasable (cover down or late, key too long, leases at their
                    bound, memory out): read it upstream, beside L1 (R7) */
};

struct l1_query {
    struct slice key;
    uint64_t hash; /* l1_hash(key) */
    uint32_t db;
    uint16_t slot;            /* of the key; 0 when keys have none */
    uint32_t slot_generation; /* for a new lease: l1_slot_generation, asked for before it was asked
                                 which node owns the slot; 0 when keys have none */
    uint16_t cover;           /* the asking worker's; L1_NO_COVER: hit or join, no new lease */
    uint16_t fetcher;         /* the asking worker: who would fetch it (l1_outwait) */
    struct l1_reader *reader; /* the thread's; NULL: look under the lock */
    struct chain *out;
    struct l1_waiter *waiter; /* parked on L1_OWNER and L1_JOINED */
    bool
        behind; /* R6b: no hit and no new lease; L1_JOINED only on the open lease of the same key that
                    `with` is parked on, or that is `with_lease` (one of the two, or none); L1_PASS
                    otherwise */
    const struct l1_waiter *with;
    struct l1_lease *with_lease;
    bool woken;             /* was parked before that lease was taken: it may be detached */
    struct l1_lease *lease; /* out: L1_OWNER */
};

/* Looks one key up. An entry that is expired, lapsed (C6) or void is deleted on sight (C7). The
 * lease is in the table when this returns, with t_send = now: send the fetch after it (R1). */
MUST_CHECK enum l1_result l1_get(struct l1 *l1, struct l1_query *q, int64_t now);

/* Keys that are looked up together, so that memory is waited for once for many of them. */
struct l1_key {
    struct slice key;
    uint64_t hash; /* l1_hash(key) */
};

struct l1_run {
    const struct l1_key *keys;
    size_t n;
    uint32_t db;
    struct l1_reader *reader; /* as in l1_query */
    struct chain *out;
    struct slice null; /* what is appended for a key that is known not to exist */
    size_t enough;     /* l1_get_run: no more of them once `out` has so many bytes */
    size_t nulls;      /* out: of the answers, how many are `null` */
};

/* The keys in order as long as each is a hit, for a run of pipelined GETs: how many were answered. Leaves no
 * trace of a miss. Without the lock it may overlook an entry that is being moved. */
MUST_CHECK size_t l1_get_run(struct l1 *l1, struct l1_run *run, int64_t now);

/* A hint: these keys (at most 32) are looked up next, and what that reads can be on its way from memory. The reader is
 * the calling thread's. */
void l1_look_ahead(struct l1 *l1, struct l1_reader *reader, const struct l1_key *keys, size_t n);

/* All or nothing, for MGET: every key is answered, or nothing is appended and the result is false. Never
 * mixes values from before and after one multi-key write of this process: such a write beginning meanwhile
 * is a miss. `enough` is not looked at. */
MUST_CHECK bool l1_get_all(struct l1 *l1, struct l1_run *run, int64_t now);

/* Takes the waiter off its lease. True: it will not be woken. False: it was woken already, or is
 * about to be: the wake arrives on another thread. Owner thread of the waiter only. */
bool l1_forget(struct l1 *l1, struct l1_waiter *w);

/* The same, and nobody joins that fetch any more: it takes too long. */
bool l1_give_up(struct l1 *l1, struct l1_waiter *w);

/* R5's join limit. If the waiter waits for a fetch of `fetcher`, which has stalled: detaches that
 * lease and wakes the waiter, on this thread, with L1_WAKE_RETRY; others who wait for it stay. False:
 * it does not, or was woken already. Owner thread of the waiter only. */
bool l1_outwait(struct l1 *l1, struct l1_waiter *w, uint16_t fetcher);

/* ---- Leases -------------------------------------------------------------------------------- */

/* The key a lease is for; borrowed, lives as long as the lease. */
struct slice l1_lease_key(const struct l1_lease *lease);
uint32_t l1_lease_db(const struct l1_lease *lease);
uint16_t l1_lease_slot(const struct l1_lease *lease);

/* R3b. Nothing of the reply to the lease's fetch has arrived yet; and now it has. Before the former, and for MGETs
 * always, it counts as if it had. By the thread of its cover. */
void l1_lease_await(struct l1_lease *lease);
void l1_lease_answered(const struct l1 *l1, struct l1_lease *lease);

/* A lease without a waiter for a key that was just written, to have it here again before it is asked for. Like
 * l1_lease_try, but NULL also while a write of the key is unanswered; others may join it. */
MUST_CHECK struct l1_lease *l1_lease_again(struct l1 *l1, const struct l1_query *q, int64_t now);

/* A lease for a key that is to be fetched as part of something larger (MGET): like l1_get that can
 * only answer L1_OWNER, without a waiter. NULL when the key has an entry or a lease, or may have
 * none. The caller delivers the value itself, whatever becomes of the lease; so if the lease was
 * detached, l1_fill treats the value as l1_observe_value does (R7). */
MUST_CHECK struct l1_lease *l1_lease_try(struct l1 *l1, const struct l1_query *q, int64_t now);

/* l1_lease_try for these keys in their order: how many, up to the first that it is not to be had for. q->key and q->hash
 * are not looked at. */
MUST_CHECK size_t l1_lease_run(struct l1 *l1, const struct l1_query *q, const struct l1_key *keys,
                               size_t n, struct l1_lease **leases, int64_t now);

/* What a fetch brought. */
struct l1_value {
    struct slice encoded; /* the reply as sent to a client; for a null whatever the server sent */
    bool is_bulk;         /* it is known to be "$n\r\n...\r\n" with n in its shortest form */
    bool is_null;
    int64_t ttl_ms; /* > 0: keep it so long, counted from when the lease was taken (T1); 0: deliver
                       only (errors, T2's refusals) */
};

/* Takes *lease (nulled) and ends it. Installs the value if the lease was not detached, no write of
 * the key is unanswered, its cover is unchanged, up and fresh, and it fits (R2); then wakes the
 * waiters: with the value, or, if the lease was detached, as R5b says (with the entry of a newer
 * fetch, or moved once to the newer open lease, or with the value after an R7 drop). */
void l1_fill(struct l1 *l1, struct l1_lease **lease, const struct l1_value *value, int64_t now);

/* Takes *lease (nulled) and ends it without a value: the waiters get L1_WAKE_RETRY. */
void l1_abandon(struct l1 *l1, struct l1_lease **lease);

/* ---- Changes ------------------------------------------------------------------------------- */

/* The key changed elsewhere: its entry goes, in every db, and its leases are detached (R3). */
void l1_invalidate(struct l1 *l1, uint64_t hash);
/* The same, said on the very connection that is the cover. What it has been asked for and not answered yet is
 * read behind that change, since replies and announcements come in the order of their making: those leases
 * stay open (R3b). By the thread of the cover. */
void l1_invalidate_by(struct l1 *l1, uint64_t hash, uint16_t cover);

/* W1. From begin to end nothing is installed or served for these keys; begin drops entries, both
 * detach leases. Every begin has exactly one end with the same hashes (of any thread), whatever
 * happened to the command. n >= 1 and <= L1_WRITE_KEYS; a hash may occur twice. Now and then another key
 * is not installed meanwhile either.
 */
#define L1_WRITE_KEYS 1024
struct l1_begun {
    uint64_t version; /* l1_version of the last of them */
    bool was_hit;     /* an entry was dropped that somebody had read from here */
};
struct l1_begun l1_write_begin(struct l1 *l1, const uint64_t *hashes, size_t n);
/* As many writes of a single key each. Sets versions[i] (NULL: not wanted); returns bit i: was_hit. n >= 1 and <= L1_WRITE_RUN.
 * The reader is the calling thread's, or NULL; with one they wait for memory together. */
#define L1_WRITE_RUN 64
uint64_t l1_write_begin_run(struct l1 *l1, struct l1_reader *reader, const uint64_t *hashes,
                            size_t n, uint64_t *versions);
void l1_write_end(struct l1 *l1, const uint64_t *hashes, size_t n);
/* For commands with more keys than that: nothing at all is installed from begin to end, in bounded
 * memory. The caller calls l1_invalidate for each written key after the begin. */
void l1_write_begin_wide(struct l1 *l1);
void l1_write_end_wide(struct l1 *l1);

/* R7, a read answered upstream contradicts what L1 holds or is about to hold. For a GET or MGET
 * (encoded: the value as L1 would keep it; null with p == NULL): drops an entry that differs and
 * detaches open leases. For other reads: drops the entry and detaches. Cheap when L1 has
 * neither. */
void l1_observe_value(struct l1 *l1, uint64_t hash, uint32_t db, struct slice encoded);
void l1_observe(struct l1 *l1, uint64_t hash);

/* R9. A number that is another one as soon as anybody may know the key's value, or a newer one, from
 * somewhere else: it moves, not only with this key, in every l1_invalidate (an l1_invalidate_by
 * that finds nothing of the key does not count: it has been answered to nobody here), l1_write_end, l1_observe,
 * l1_observe_value, l1_fill, l1_abandon, l1_drop_all and l1_unknown_end. Takes no lock. Asked for before a
 * write is sent and again later, the same number says: nobody has been answered, in between, with anything
 * that is not older than that write. */
uint64_t l1_version(const struct l1 *l1, uint64_t hash);
/* A command whose keys are not known has been executed, and its client is about to be told. */
void l1_unknown_end(struct l1 *l1);

/* ---- Upkeep -------------------------------------------------------------------------------- */

/* Frees entries that are expired or void, looking at no more than `budget` places of the table,
 * once around at most; call it from one thread every so often. */
void l1_sweep(struct l1 *l1, size_t budget, int64_t now);

/* Sums over shards; a moment's picture, not a consistent one. Hits and misses are counted by the
 * callers. */
struct l1_stats {
    uint64_t items, bytes;    /* now; bytes as charged against max_memory */
    uint64_t leases, waiters; /* now */
    uint64_t writes;          /* unanswered writes now */
    uint64_t fills, refusals; /* values installed; delivered but not installed */
    uint64_t evictions;       /* for room */
    uint64_t expirations, lapses,
        voids;                        /* entries found past their TTL, their cover's lease, void */
    uint64_t invalidations;           /* l1_invalidate calls that found something */
    uint64_t write_drops, read_drops; /* entries dropped by W1, R7 */
    uint64_t detached; /* leases detached; by a cover or a wide write: once noticed */
    uint64_t drop_alls;
};
void l1_stats(struct l1 *l1, struct l1_stats *out);
