/* SPDX-License-Identifier: Apache-2.0
 *
 * test_races.c: the promises of coherence under load, with everything at once: writers through the
 * proxy and past it, readers on all workers, and trouble with the links.
 *
 * Every key has one writer, which writes 1, 2, 3 ... and publishes a number in `done` once its write
 * was answered. So a reader can judge what it gets:
 *
 *   own keys      not less than `done` was before the read began      (read your writes)
 *   all keys      not less than any read before it had returned       (never backwards)
 *   foreign keys  version v not later than LEASE_MS after v+1 was done (bounded staleness)
 *   pairs         two keys written by one MSET are equal in one MGET  (not torn)
 *
 * Threads never assert: the first violation is kept as text and judged by the main thread.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(races);

#define OWN          6 /* keys 0..OWN-1 are written through the proxy */
#define FOREIGN      6 /* the next ones past it */
#define KEYS         (OWN + FOREIGN)
#define VERSIONS     200000
#define READERS      4
#define LEASE_MS     300
#define CLOCK_MS     20 /* what reading two clocks may cost */
#define RUN_MS       2500
#define ENOUGH_HITS  100
#define ENOUGH_READS 500

struct race {
    int port, direct_port;
    bool scripts; /* write by scripts too, whose keys the proxy cannot know */
    bool gets_only;
    atomic_bool stop;
    atomic_llong done[KEYS];
    atomic_llong seen[KEYS];
    atomic_llong *done_at[KEYS]; /* ms, by version */
    atomic_llong reads, errors;
    pthread_mutex_t lock;
    char violation[512]; /* the first; under lock */
};

struct worker {
    struct race *race;
    int index;
    pthread_t thread;
};

static void violated(struct race *race, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void violated(struct race *race, const char *fmt, ...)
{
    va_list ap;

    pthread_mutex_lock(&race->lock);
    if (race->violation[0] == '\0') {
        va_start(ap, fmt);
        vsnprintf(race->violation, sizeof(race->violation), fmt, ap);
        va_end(ap);
    }
    pthread_mutex_unlock(&race->lock);
    atomic_store(&race->stop, true);
}

static void raise_to(atomic_llong *place, long long value)
{
    long long now = atomic_load(place);

    while (now < value && !atomic_compare_exchange_weak(place, &now, value)) {
        /* now was reloaded */
    }
}

/* ---- Writers -------------------------------------------------------------------------------- */

/* One version of one key, by several commands in turn. */
static bool write_version(struct client *c, int key, long long version, bool scripts)
{
    const char *got;

    switch (scripts ? version % 5 : version % 3) {
    case 0:
        got = ask(c, "INCR key%d", key);
        break;
    case 1:
        got = ask(c, "MSET other v key%d %lld", key, version);
        break;
    case 3:
        got = ask(c, "EVAL 'return redis.call(\"SET\",\"key%d\",\"%lld\")' 0", key, version);
        break;
    case 4:
        got =
            ask(c, "EVAL 'return redis.call(\"SET\",KEYS[1],ARGV[1])' 1 key%d %lld", key, version);
        break;
    default:
        got = ask(c, "SET key%d %lld", key, version);
        break;
    }
    return got[0] != '-' && strchr("+:", got[0]) != NULL;
}

static void *write_keys(void *ctx)
{
    struct worker *w = ctx;
    struct race *race = w->race;
    bool foreign = w->index == 0;
    struct client *c = client_try(foreign ? race->direct_port : race->port);
    int first = foreign ? OWN : (w->index - 1) * (OWN / 2);
    int count = foreign ? FOREIGN : OWN / 2;

    for (long long v = 1; c != NULL && v < VERSIONS && !atomic_load(&race->stop); v++) {
        for (int key = first; key < first + count; key++) {
            if (!write_version(c, key, v, race->scripts && !foreign)) {
                violated(race, "writing version %lld of key%d failed", v, key);
                return NULL;
            }
            atomic_store(&race->done_at[key][v], now_ms());
            atomic_store(&race->done[key], v);
        }
        if (!foreign) {
            (void)ask(c, "MSET pair%da %lld pair%db %lld", w->index, v, w->index, v);
        }
        if (foreign || v % 8 == 0) {
            /* lets the cache be of use, and when links fail, lets values lie in it that then
             * change */
            pass_time(foreign && race->gets_only ? 20 : 1);
        }
    }
    return NULL;
}

/* ---- Readers -------------------------------------------------------------------------------- */

struct expectation {
    int key;
    long long floor; /* what may be returned at least */
    int64_t asked;
};

static struct expectation expectation_of(struct race *race, int key)
{
    struct expectation e = {.key = key, .floor = atomic_load(&race->seen[key])};
    long long done = atomic_load(&race->done[key]);

    if (key < OWN && done > e.floor) {
        e.floor = done;
    }
    e.asked = now_ms();
    return e;
}

/* Judges what a read returned; its version, or -1 when it was an error. */
static long long judge(struct race *race, const struct expectation *e, const struct reply *reply)
{
    if (reply->type == '-') {
        atomic_fetch_add(&race->errors, 1);
        return -1;
    }
    if (reply->type != '$') {
        violated(race, "GET key%d is answered by a reply of type %c", e->key, reply->type);
        return -1;
    }
    long long version = reply->null ? 0 : atoll(reply->text);
    atomic_fetch_add(&race->reads, 1);
    if (version < e->floor) {
        violated(race, "key%d: version %lld after %lld was %s", e->key, version, e->floor,
                 e->key < OWN ? "written or read" : "read");
    }
    if (e->key >= OWN && version + 1 < VERSIONS) {
        int64_t replaced = atomic_load(&race->done_at[e->key][version + 1]);
        if (replaced != 0 && e->asked - replaced > LEASE_MS + CLOCK_MS) {
            violated(race, "key%d: version %lld was replaced %lld ms before", e->key, version,
                     (long long)(e->asked - replaced));
        }
    }
    raise_to(&race->seen[e->key], version);
    return version;
}

static void read_one(struct race *race, struct client *c, int key)
{
    struct expectation e = expectation_of(race, key);

    client_command(c, "GET key%d", key);
    (void)judge(race, &e, client_reply(c));
}

/* Several reads of one key in one pipeline: each also not older than the one before it. */
static void read_pipeline(struct race *race, struct client *c, int key)
{
    struct expectation e = expectation_of(race, key);

    for (int i = 0; i < 4; i++) {
        client_command(c, i == 2 ? "MGET key%d" : "GET key%d", key);
    }
    for (int i = 0; i < 4; i++) {
        const struct reply *reply = client_reply(c);
        const struct reply *value = reply->type == '*' ? reply->item[0] : reply;
        long long version = judge(race, &e, value);
        e.floor = version > e.floor ? version : e.floor;
    }
}

static void read_several(struct race *race, struct client *c, int key)
{
    struct expectation e[3];

    for (int i = 0; i < 3; i++) {
        e[i] = expectation_of(race, (key + 5 * i) % KEYS);
    }
    client_command(c, "MGET key%d key%d key%d", e[0].key, e[1].key, e[2].key);
    const struct reply *reply = client_reply(c);
    for (size_t i = 0; i < 3 && reply->type == '*' && reply->items == 3; i++) {
        (void)judge(race, &e[i], reply->item[i]);
    }
}

static void read_pair(struct race *race, struct client *c, int pair)
{
    client_command(c, "MGET pair%da pair%db", pair, pair);
    const struct reply *reply = client_reply(c);
    if (reply->type == '*' && reply->items == 2 && reply->item[0]->type == '$') {
        long long a = reply->item[0]->null ? 0 : atoll(reply->item[0]->text);
        long long b = reply->item[1]->null ? 0 : atoll(reply->item[1]->text);
        if (a != b) {
            violated(race, "a torn MSET: %lld and %lld", a, b);
        }
    }
}

static void *read_keys(void *ctx)
{
    struct worker *w = ctx;
    struct race *race = w->race;
    struct client *c = client_try(race->port);
    unsigned seed = (unsigned)w->index + 1;

    while (c != NULL && !atomic_load(&race->stop)) {
        int dice = rand_r(&seed);
        int key = dice / 16 % KEYS;
        /* an MGET that reaches Redis drops what it contradicts: without them values can grow old */
        if (race->gets_only || dice % 16 < 11) {
            read_one(race, c, key);
        } else if (dice % 16 < 13) {
            read_pipeline(race, c, key);
        } else if (dice % 16 < 15) {
            read_several(race, c, key);
        } else {
            read_pair(race, c, 1 + dice / 16 % 2);
        }
    }
    return NULL;
}

/* ---- The races ------------------------------------------------------------------------------ */

static struct race *race_create(struct nearside *n, struct redis *r)
{
    struct race *race = cleanup_alloc(sizeof(*race));

    race->port = n->port;
    race->direct_port = r->port;
    pthread_mutex_init(&race->lock, NULL);
    for (int i = 0; i < KEYS; i++) {
        race->done_at[i] = cleanup_alloc(VERSIONS * sizeof(*race->done_at[i]));
    }
    return race;
}

/* Was enough read to tell, and from L1? */
static bool is_enough(struct race *race, struct nearside *n)
{
    return race->reads > ENOUGH_READS && nearside_info(n, "l1_hits") > ENOUGH_HITS;
}

static void race_for(int64_t ms, bool scripts, void (*trouble)(struct redis *r, struct relay *link))
{
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, "TRACKING");
    struct nearside *n = nearside_start(trouble != NULL ? relay_port(link) : r->port,
                                        "proxy.workers=3", "invalidation.link_lease=300ms", NULL);
    struct race *race = race_create(n, r);
    race->scripts = scripts;
    race->gets_only = trouble != NULL;
    static struct worker writers[3];
    static struct worker readers[READERS];

    for (int i = 0; i < 3; i++) {
        writers[i] = (struct worker){.race = race, .index = i};
        cr_assert(pthread_create(&writers[i].thread, NULL, write_keys, &writers[i]) == 0);
    }
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct worker){.race = race, .index = i};
        cr_assert(pthread_create(&readers[i].thread, NULL, read_keys, &readers[i]) == 0);
    }
    int64_t end = now_ms() + ms;
    int64_t latest = end + 10 * ms; /* where the machine is busy, until the cache was of use */
    while (!atomic_load(&race->stop) &&
           (now_ms() < end || (now_ms() < latest && !is_enough(race, n)))) {
        if (trouble != NULL) {
            trouble(r, link);
        } else {
            pass_time(10);
        }
    }
    atomic_store(&race->stop, true);
    for (int i = 0; i < 3; i++) {
        pthread_join(writers[i].thread, NULL);
    }
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
    }
    cr_assert(race->violation[0] == '\0', "after %lld reads: %s", (long long)race->reads,
              race->violation);
    cr_assert(race->reads > ENOUGH_READS, "only %lld reads", (long long)race->reads);
    cr_assert(trouble != NULL || race->errors == 0, "%lld errors", (long long)race->errors);
    cr_assert(nearside_info(n, "l1_hits") > ENOUGH_HITS, "the cache was of no use");
}

SCENARIO(races, readers_and_writers_on_all_workers)
{
    race_for(RUN_MS, false, NULL);
}

/* Apart from the others, because each script is fenced and holds its client up. */
SCENARIO(races, readers_and_scripts_on_all_workers)
{
    race_for(RUN_MS, true, NULL);
}

static void kill_links(struct redis *r, struct relay *link)
{
    (void)link;
    pass_time(30);
    (void)redis_kill_tracking(r);
}

SCENARIO(races, fill_connections_die_all_the_time)
{
    race_for(RUN_MS, false, kill_links);
}

static void stall_links(struct redis *r, struct relay *link)
{
    (void)r;
    pass_time(200);
    relay_hold(link, RELAY_DOWN, true);
    pass_time(450);
    relay_release(link);
}

SCENARIO(races, fill_links_stall_for_longer_than_the_lease)
{
    race_for(RUN_MS, false, stall_links);
}

static void delay_links(struct redis *r, struct relay *link)
{
    static int round;

    (void)r;
    relay_delay(link, RELAY_DOWN, round % 3 * 15);
    relay_delay(link, RELAY_UP, round / 3 % 3 * 10);
    round++;
    pass_time(100);
}

SCENARIO(races, links_are_slow_by_turns)
{
    race_for(RUN_MS, false, delay_links);
}
