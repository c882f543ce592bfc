/* SPDX-License-Identifier: Apache-2.0
 *
 * ledger.c: the books. A writer issues a number, sends the write, and acknowledges the number once the
 * reply is there; a reader takes an expectation before it sends, and is judged afterwards.
 *
 * A key that does not exist could have been deleted by any deletion of its writer. To blame nobody
 * wrongly, a nil counts as the newest deletion that had been issued when it arrived; and to expect
 * nothing wrongly of later reads, it raises their floor only if no other deletion can be meant.
 *
 * When the outcome of a write is unknown (its connection died), it may be executed late, and the order
 * of numbers is lost: the key is retired and another takes its place. Retired keys stay in memory,
 * because a reader may be about to judge one.
 */
#include "checker.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Numbers whose moment is remembered; enough for many link leases at the pace of the writers. */
#define RING     4096
#define EXAMPLES 5
/* Milliseconds of clocks cut to whole ones, the proxy's and ours. */
#define MARGIN_US 5000

pthread_rwlock_t ledger_flush_lock;

static const struct options *options;
static struct key *_Atomic *places; /* keys of all writers, then two per writer for pairs */
static int npairs_at;
static atomic_llong violations[RULES];
static atomic_llong retired;

static const char *const rule_names[RULES] = {
    [RULE_G1] = "G1 read your writes",  [RULE_G2] = "G2 order in a pipeline",
    [RULE_G3] = "G3 bounded staleness", [RULE_G4] = "G4 time to live",
    [RULE_MR] = "MR monotonic reads",   [RULE_PM] = "PM monotonic across connections",
    [RULE_WHOLE] = "MSET seen whole",   [RULE_VALUE] = "values intact",
};

int64_t now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

const char *rule_name(enum rule rule)
{
    return rule_names[rule];
}

long long ledger_violations(enum rule rule)
{
    return atomic_load(&violations[rule]);
}

long long ledger_retired(void)
{
    return atomic_load(&retired);
}

void violated(enum rule rule, const char *fmt, ...)
{
    if (atomic_fetch_add(&violations[rule], 1) >= EXAMPLES) {
        return;
    }
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "VIOLATION %s: %s\n", rule_name(rule), text);
}

/* ---- Keys ----------------------------------------------------------------------------------- */

/* The second of the own and of the foreign writers works in another database, if there are any. */
int ledger_db(int writer)
{
    return options->mode != MODE_CLUSTER && (writer == 1 || writer == options->writers + 1);
}

/* The n-th key that has this place. In the other database its name is that of a key of the writer
 * before, as long as none was retired. The tag is the place's, and a pair's: it has one slot for ever. */
static struct key *create_key(int place, long long n)
{
    struct key *key = calloc(1, sizeof(*key));

    if (key == NULL) {
        abort();
    }
    bool pair = place >= npairs_at;
    key->writer = pair ? (place - npairs_at) / 2 : place / options->keys;
    key->origin = !pair && key->writer >= options->writers ? ORIGIN_DIRECT : ORIGIN_OWN;
    key->numeric = !pair && place % options->keys % 4 == 3;
    key->db = ledger_db(key->writer);
    key->made = n;
    atomic_store(&key->deleted2, -1);
    const char *stem = pair ? "pair" : key->origin == ORIGIN_DIRECT ? "foreign" : "own";
    const char *half = !pair ? "" : (place - npairs_at) % 2 == 0 ? "a" : "b";
    snprintf(key->name, sizeof(key->name), "{%s%d}%s.%lld", stem,
             pair ? key->writer - key->db : place - key->db * options->keys, half, n);
    if (key->origin == ORIGIN_DIRECT) {
        key->acked_at = calloc(RING, sizeof(*key->acked_at));
        if (key->acked_at == NULL) {
            abort();
        }
    }
    return key;
}

void ledger_init(const struct options *with)
{
    pthread_rwlockattr_t attr;

    options = with;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&ledger_flush_lock, &attr);
    npairs_at = (with->writers + with->foreign) * with->keys;
    int n = npairs_at + 2 * with->writers;
    places = calloc((size_t)n, sizeof(*places));
    if (places == NULL) {
        abort();
    }
    for (int i = 0; i < n; i++) {
        atomic_store(&places[i], create_key(i, 0));
    }
}

int ledger_places(void)
{
    return npairs_at;
}

struct key *ledger_key(int place)
{
    return atomic_load(&places[place]);
}

struct key *ledger_pair(int writer, int which)
{
    return atomic_load(&places[npairs_at + 2 * writer + which]);
}

static struct key *ledger_key_at(int place)
{
    return atomic_load(&places[place]);
}

static void retire(int place)
{
    atomic_store(&places[place], create_key(place, ledger_key_at(place)->made + 1));
    atomic_fetch_add(&retired, 1);
}

void ledger_retire(int place)
{
    retire(place);
}

void ledger_retire_pair(int writer)
{
    retire(npairs_at + 2 * writer);
    retire(npairs_at + 2 * writer + 1);
}

void ledger_retire_all(void)
{
    for (int i = 0; i < npairs_at + 2 * options->writers; i++) {
        retire(i);
    }
}

/* ---- Writes --------------------------------------------------------------------------------- */

static void raise_to(atomic_llong *place, long long value)
{
    long long now = atomic_load(place);

    while (now < value && !atomic_compare_exchange_weak(place, &now, value)) {
        /* now was loaded again */
    }
}

long long ledger_issue(struct key *key, bool deletes)
{
    long long seq = atomic_load(&key->issued) + 1;

    if (deletes) {
        atomic_store(&key->deleted2, atomic_load(&key->deleted));
        atomic_store(&key->deleted, seq);
    }
    atomic_store(&key->issued, seq);
    return seq;
}

void ledger_ack(struct key *key, long long seq)
{
    if (key->acked_at != NULL) {
        atomic_store(&key->acked_at[seq % RING], now_us());
    }
    atomic_store(&key->acked, seq);
}

void ledger_value(const struct key *key, long long seq, char text[96])
{
    if (key->numeric) {
        snprintf(text, 96, "%lld", seq);
    } else {
        snprintf(text, 96, "%s:%010lld:w%d", key->name, seq, key->writer);
    }
}

/* ---- Reads ---------------------------------------------------------------------------------- */

struct expectation ledger_expect(struct key *key)
{
    struct expectation e = {.key = key};

    e.acked = atomic_load(&key->acked);
    e.seen = atomic_load(&key->seen);
    e.deleted2 = atomic_load(&key->deleted2);
    e.deleted = atomic_load(&key->deleted);
    e.asked = now_us();
    return e;
}

long long ledger_number(const struct key *key, const struct reply *reply)
{
    char want[96];
    const char *digits = NULL;

    if (reply->type == '$' && reply->null) {
        return atomic_load(&key->deleted);
    }
    if (reply->type == '$' && key->numeric) {
        digits = reply->text;
    } else if (reply->type == '$') {
        size_t n = strlen(key->name);
        digits = strncmp(reply->text, key->name, n) == 0 && reply->text[n] == ':'
                     ? reply->text + n + 1
                     : NULL;
    }
    long long seq = digits != NULL ? strtoll(digits, NULL, 10) : -1;
    ledger_value(key, seq, want);
    if (seq < 1 || strcmp(want, reply->text) != 0 || seq > atomic_load(&key->issued)) {
        violated(RULE_VALUE, "%s: a reply of type %c: %.100s", key->name, reply->type,
                 reply->text != NULL ? reply->text : "");
        return -1;
    }
    return seq;
}

/* A bucket is a tenth of an octave. */
static void count_age(struct tally *tally, int64_t age)
{
    int bucket = 0;

    for (double at = 1; at < (double)age && bucket < BUCKETS - 1; at *= 1.0717734625) {
        bucket++;
    }
    tally->ages[bucket]++;
    tally->stale++;
    tally->oldest = age > tally->oldest ? age : tally->oldest;
}

/* How long before the read was sent the next write had been acknowledged; 0: not yet. */
static int64_t age_of(const struct expectation *e, long long seq)
{
    if (seq >= e->acked) {
        return 0;
    }
    /* the slot may have been taken by a later number: that makes the age look smaller */
    int64_t at = atomic_load(&e->key->acked_at[(seq + 1) % RING]);
    return at < e->asked ? e->asked - at : 0;
}

static void judge_foreign(struct tally *tally, const struct expectation *e, long long seq)
{
    int64_t age = age_of(e, seq);
    int64_t bound = (int64_t)options->lease_ms * 1000 + MARGIN_US;

    if (age > 0) {
        count_age(tally, age);
    }
    if (age > bound) {
        violated(RULE_G3, "%s: number %lld was overwritten %.1f ms before the read was sent",
                 e->key->name, seq, (double)age / 1000);
    }
}

long long ledger_judge(struct tally *tally, const struct expectation *e, const struct reply *reply,
                       long long last)
{
    struct key *key = e->key;

    if (reply->type == '-' || reply->type == REPLY_CLOSED || reply->type == REPLY_CUT) {
        tally->errors++;
        return last;
    }
    long long seq = ledger_number(key, reply);
    if (seq < 0) {
        return last;
    }
    tally->judged[key->origin]++;
    if (key->origin == ORIGIN_OWN && seq < e->acked) {
        violated(RULE_G1, "%s: number %lld, but %lld had been answered", key->name, seq, e->acked);
    }
    if (seq < last) {
        violated(RULE_MR, "%s: number %lld, but this connection had read %lld", key->name, seq,
                 last);
    }
    if (seq < e->seen) {
        violated(RULE_PM, "%s: number %lld, but another had read %lld", key->name, seq, e->seen);
    }
    if (key->origin == ORIGIN_DIRECT) {
        judge_foreign(tally, e, seq);
    }
    long long floor = key->origin == ORIGIN_OWN && e->acked > e->seen ? e->acked : e->seen;
    if (reply->null && (e->deleted != seq || e->deleted2 >= floor || e->deleted2 >= last)) {
        return last; /* another deletion may be meant */
    }
    raise_to(&key->seen, seq);
    return seq > last ? seq : last;
}
