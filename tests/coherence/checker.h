/* SPDX-License-Identifier: Apache-2.0
 *
 * checker.h: what the parts of the checker share.
 *
 *   checker.c   options, start, the end, the verdict
 *   ledger.c    what was written, and what a read may therefore return
 *   traffic.c   threads, which writers.c and readers.c tell what to do
 *   chaos.c     trouble, on the main thread
 *   moves.c     trouble of clusters and sentinels: who is responsible changes
 *
 * Every key has one writer, which numbers its writes 1, 2, 3 ...; a value names its key, its number and
 * its writer. A deletion has a number too. So whoever reads can be judged by what was answered to
 * others before the read was sent: the judge is never wrong because of its own scheduling.
 */
#pragma once

#include "../support/client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* What is judged. */
enum rule {
    RULE_G1,    /* not older than what was answered to a writer of the proxy before */
    RULE_G2,    /* a pipeline reads its own writes */
    RULE_G3,    /* overwritten elsewhere: served for at most the link lease */
    RULE_G4,    /* not served after its deadline */
    RULE_MR,    /* not older than what this connection has read */
    RULE_PM,    /* not older than what any connection of the proxy had read */
    RULE_WHOLE, /* an MSET is not seen torn by an MGET */
    RULE_VALUE, /* what was returned is a value of that key */
    RULES,
};

#define SETS_MAX 12

/* What the proxy stands in front of. */
enum mode {
    MODE_STANDALONE,
    MODE_CLUSTER,  /* three primaries, three replicas */
    MODE_SENTINEL, /* a master, a replica, three sentinels */
    MODES,
};

struct options {
    enum mode mode;
    int seconds, workers, writers, foreign, readers, impatient, ttls, keys;
    unsigned seed;
    int lease_ms;
    unsigned chaos; /* bits of enum trouble */
    int chaos_ms;   /* between two troubles, on average */
    int nsets;      /* settings of the proxy's */
    const char *sets[SETS_MAX + 8];
    bool
        from_replicas; /* upstream.read_from is one of them: other reads than GET and MGET are of any age */
    int flush_ms; /* between two FLUSHALLs; 0: none */
};

/* ---- ledger.c ------------------------------------------------------------------------------- */

enum origin {
    ORIGIN_OWN,    /* written through the proxy */
    ORIGIN_DIRECT, /* written past it */
};

struct key {
    char name[40];
    enum origin origin;
    int writer;
    int db;
    bool numeric;   /* the value is the bare number, for INCR */
    long long made; /* how many had its place before */
    atomic_llong issued;
    atomic_llong acked;
    atomic_llong deleted;   /* the last number that is a deletion; 0: never written */
    atomic_llong deleted2;  /* the one before */
    atomic_llong seen;      /* the highest that any read has returned */
    atomic_llong *acked_at; /* us, by number modulo RING; ORIGIN_DIRECT only */
};

#define BUCKETS 400

/* One thread's counts. */
struct tally {
    long long judged[2]; /* by origin */
    long long stale;     /* foreign reads that returned what had been overwritten */
    long long pipelined; /* reads judged by G2 */
    long long expired;   /* keys that were read until they were gone */
    long long pairs;     /* MGETs of two keys of one MSET */
    long long writes[2];
    long long errors;
    long long ages[BUCKETS]; /* of stale reads */
    int64_t oldest;          /* us */
};

struct expectation {
    struct key *key;
    long long acked, seen, deleted, deleted2;
    int64_t asked; /* us */
};

int64_t now_us(void);

void ledger_init(const struct options *options);
/* Ends with the violations so far. */
long long ledger_violations(enum rule rule);
long long ledger_retired(void);
const char *rule_name(enum rule rule);

/* The key that has that place now. Places: `keys` per writer, own writers first. */
struct key *ledger_key(int place);
int ledger_places(void);
/* In which database a writer writes, own writers first. */
int ledger_db(int writer);
/* The two keys that writer w sets by one MSET only; which is 0 or 1. */
struct key *ledger_pair(int writer, int which);

/* Begins the next write of a key: its number. `deletes`: nothing is left of it. */
long long ledger_issue(struct key *key, bool deletes);
/* That write was answered. */
void ledger_ack(struct key *key, long long seq);
/* The value that number writes. */
void ledger_value(const struct key *key, long long seq, char text[96]);
/* The outcome of a write is not known: another key takes the place. */
void ledger_retire(int place);
void ledger_retire_pair(int writer);
void ledger_retire_all(void);

/* Writes hold it shared, a flush alone. */
extern pthread_rwlock_t ledger_flush_lock;

/* What a read sent from now on may return. */
struct expectation ledger_expect(struct key *key);
/* Judges what it returned, `last` being what this connection had read of the key before (0: nothing), and
 * returns the new `last`. Errors are counted and not judged. */
long long ledger_judge(struct tally *tally, const struct expectation *e, const struct reply *reply,
                       long long last);
/* The number in a reply; -1 for an error or nonsense (a violation). */
long long ledger_number(const struct key *key, const struct reply *reply);
void violated(enum rule rule, const char *fmt, ...) FORMAT(2, 3);

/* ---- traffic.c ------------------------------------------------------------------------------ */

struct traffic;

/* Starts all threads, stops them; *sum gets what they have counted. Writes past the proxy go to the first of
 * `ports` (up to a 0), or where redirects lead, or to another of them if nobody listens there. */
struct traffic *traffic_start(const struct options *options, int port, const int *ports);
/* From now on they go there. */
void traffic_lead(struct traffic *traffic, int port);
void traffic_stop(struct traffic *traffic, struct tally *sum);

/* ---- chaos.c -------------------------------------------------------------------------------- */

enum trouble {
    TROUBLE_KILL,   /* CLIENT KILL of fill connections, or of a lane */
    TROUBLE_CUT,    /* links cut */
    TROUBLE_FREEZE, /* fill links that are silent, for up to 1.5 leases */
    TROUBLE_LANE,   /* one link of any kind that is silent for a moment */
    TROUBLE_DELAY,  /* links that are slow */
    TROUBLE_STOP,   /* the proxy stands still */
    TROUBLE_PAUSE,  /* Redis stands still */
    TROUBLE_EVICT,  /* Redis forgets whom to tell, and tells it */
    TROUBLE_MOVE,   /* slots move to another node */
    TROUBLE_SWITCH, /* a replica takes over on demand */
    TROUBLE_DEATH,  /* a primary is killed, and is its replica's replica when it is back */
    TROUBLE_NODE,   /* a node is added, has slots for a while, and is removed */
    TROUBLES,
};

extern const char *const trouble_names[TROUBLES];

struct nearside;
struct redis;
struct relay;

struct chaos {
    struct redis *redis; /* that the next trouble is for; in a cluster any primary */
    struct relay *relay; /* MODE_STANDALONE */
    struct cluster *cluster;
    struct sentinels *sentinels;
    struct traffic *traffic;
    struct nearside *proxy;
    const struct options *options;
    unsigned seed;
    int turns;
    long long done[TROUBLES];
};

/* The troubles that there can be in front of such servers. */
unsigned chaos_of_mode(enum mode mode);
/* One trouble, from its beginning to its end (a delay stays until the next one). */
void chaos_make(struct chaos *chaos);
int chaos_dice(struct chaos *chaos, int n);

/* moves.c; false: not now. Nobody writes while a primary dies or sentinels put another in its place, and its
 * replica has everything before: then Redis loses nothing, and every read is judged as ever. */
int chaos_primary(struct chaos *chaos); /* of a cluster, by its number */
bool move_slots(struct chaos *chaos);
bool switch_over(struct chaos *chaos);
bool kill_primary(struct chaos *chaos);
bool add_and_remove(struct chaos *chaos);
