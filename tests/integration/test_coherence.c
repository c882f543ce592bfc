/* SPDX-License-Identifier: Apache-2.0
 *
 * test_coherence.c: what is served is not old. Two promises are tested apart:
 *
 *   a write through the proxy, once answered, is seen at once by every reader of the proxy;
 *   a write that goes past it (the `direct` connection of the redis fixture) is seen when Redis has
 *   announced it, and whatever happens to the announcement, after invalidation.link_lease at most.
 *
 * Every test first makes sure that the value really comes out of the cache, or the rest would prove
 * nothing: Redis's own count of GETs must stand still.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <stdlib.h>
#include <string.h>

TestSuite(coherence);

#define LEASE_MS 1000
/* An announcement takes well under a millisecond; this is for a busy machine. */
#define SLACK_MS 500

struct change {
    const char *prepare, *change;
};

static const struct change changes[] = {
#define CHANGE(prepare, change) {prepare, change},
#include "changes.def"
#undef CHANGE
};

#define CHANGES (sizeof(changes) / sizeof(changes[0]))

/* Runs commands separated by ';' (which none of them contains otherwise). */
static void run(struct client *c, const char *commands)
{
    char *copy = cleanup_printf("%s", commands);
    char *save = NULL;

    for (char *line = strtok_r(copy, ";", &save); line; line = strtok_r(NULL, ";", &save)) {
        const char *got = ask(c, "%s", line);
        cr_assert(strchr("+-:$n[", got[0]) != NULL && strncmp(got, "-ERR unknown", 12) != 0 &&
                      strcmp(got, "nil array") != 0,
                  "%s: %s", line, got);
    }
}

/* The watched keys as somebody sees them. */
static char *view(struct client *c)
{
    char *k = cleanup_printf("%s", ask(c, "GET k"));

    return cleanup_printf("k=%s k2=%s", k, ask(c, "GET k2"));
}

/* Waits until the proxy's view is the server's own; fails after the bound. */
static void await_same(struct client *c, struct redis *r, const char *what)
{
    int64_t deadline = now_ms() + LEASE_MS + SLACK_MS * slowdown();
    const char *want = view(r->direct);

    for (;;) {
        const char *got = view(c);
        if (strcmp(got, want) == 0) {
            return;
        }
        cr_assert(now_ms() < deadline, "%s: Redis has '%s', the proxy still says '%s'", what, want,
                  got);
        pass_time(1);
    }
}

/* Reads k until it is answered without Redis. WRONGTYPE is never kept and so never gets there. */
static void make_cached(struct client *c, struct redis *r, const char *key)
{
    int64_t deadline = now_ms() + 3000 * (int64_t)slowdown();

    while (now_ms() < deadline) {
        (void)ask(c, "GET %s", key);
        long long calls = redis_calls(r, "get");
        (void)ask(c, "GET %s", key);
        if (redis_calls(r, "get") == calls) {
            return;
        }
    }
    cr_assert_fail("%s is never answered from the cache", key);
}

SCENARIO(coherence, writes_of_every_kind_elsewhere_are_seen)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (size_t i = 0; i < CHANGES; i++) {
        expect(r->direct, "+OK", "FLUSHALL");
        run(r->direct, changes[i].prepare);
        await_same(c, r, "after the preparation");
        const char *before = view(c);
        if (strstr(before, "WRONGTYPE") == NULL) {
            make_cached(c, r, "k");
            make_cached(c, r, "k2");
        }
        run(r->direct, changes[i].change);
        cr_assert(strcmp(view(r->direct), before) != 0 || strstr(before, "WRONGTYPE") != NULL,
                  "%s changes nothing", changes[i].change);
        await_same(c, r, changes[i].change);
    }
}

#define ROUNDS  50
#define READERS 4

/* One change, written on one connection and read on all others, directly after its reply. */
static void own_change(struct redis *r, struct client *const *c, const struct change *change)
{
    for (int round = 0; round < ROUNDS; round++) {
        struct client *writer = c[round % READERS];
        run(writer, "FLUSHALL");
        run(writer, change->prepare);
        const char *before = view(r->direct);
        for (int i = 0; i < READERS; i++) {
            const char *got = view(c[i]);
            cr_assert(strcmp(got, before) == 0, "before %s: Redis has '%s', the proxy says '%s'",
                      change->change, before, got);
        }
        run(writer, change->change);
        const char *after = view(r->direct);
        for (int i = 1; i <= READERS; i++) {
            const char *got = view(c[(round + i) % READERS]);
            cr_assert(strcmp(got, after) == 0, "round %d, %s: Redis has '%s', the proxy says '%s'",
                      round, change->change, after, got);
        }
    }
}

/* In four parts, which run side by side. */
static void own_changes(size_t part)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c[READERS];

    for (int i = 0; i < READERS; i++) {
        c[i] = nearside_connect(n);
    }
    for (size_t i = part; i < CHANGES; i += 4) {
        own_change(r, c, &changes[i]);
    }
    cr_assert(nearside_info(n, "l1_hits") > (long long)CHANGES, "nothing came from the cache");
}

SCENARIO(coherence, own_writes_of_every_kind_are_seen_at_once_1)
{
    own_changes(0);
}

SCENARIO(coherence, own_writes_of_every_kind_are_seen_at_once_2)
{
    own_changes(1);
}

SCENARIO(coherence, own_writes_of_every_kind_are_seen_at_once_3)
{
    own_changes(2);
}

SCENARIO(coherence, own_writes_of_every_kind_are_seen_at_once_4)
{
    own_changes(3);
}

SCENARIO(coherence, a_transaction_elsewhere_is_seen)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(r->direct, "+OK", "MSET k a k2 b");
    make_cached(c, r, "k");
    make_cached(c, r, "k2");
    expect(r->direct, "+OK", "MULTI");
    expect(r->direct, "+QUEUED", "SET k c");
    expect(r->direct, "+QUEUED", "DEL k2");
    expect(c, "$a", "GET k");
    expect(r->direct, "[+OK :1]", "EXEC");
    await_same(c, r, "EXEC");
}

SCENARIO(coherence, a_restored_key_is_seen_from_both_sides)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *writer = nearside_connect(n);
    struct client *c = nearside_connect(n);

    expect(r->direct, "+OK", "SET from payload");
    client_command(r->direct, "DUMP from");
    const struct reply *dump = client_reply(r->direct);
    cr_assert(dump->type == '$' && !dump->null);
    size_t size = dump->n;
    char *payload = cleanup_alloc(size);
    memcpy(payload, dump->text, size);
    for (int round = 0; round < ROUNDS; round++) {
        bool foreign = round % 2 == 0;
        struct client *w = foreign ? r->direct : writer;
        expect(writer, ":...", "DEL k");
        expect(c, "nil", "GET k");
        cr_assert(client_command_big(w, "RESTORE k 0", payload, size));
        expect_next(w, "+OK");
        if (foreign) {
            await_same(c, r, "RESTORE");
        }
        expect(c, "$payload", "GET k");
    }
}

SCENARIO(coherence, a_migrated_key_is_gone_at_once)
{
    struct redis *r = redis_start(NULL);
    struct redis *other = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *writer = nearside_connect(n);
    struct client *c = nearside_connect(n);

    expect(writer, "+OK", "MSET k a k2 b");
    make_cached(c, r, "k");
    make_cached(c, r, "k2");
    expect(writer, "+OK", "MIGRATE 127.0.0.1 %d k 0 5000", other->port);
    expect(c, "nil", "GET k");
    expect(writer, "+OK", "MIGRATE 127.0.0.1 %d '' 0 5000 KEYS none k2", other->port);
    expect(c, "nil", "GET k2");
}

SCENARIO(coherence, swapdb_through_the_proxy_is_seen_at_once)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *writer = nearside_connect(n);
    struct client *c = nearside_connect(n);

    expect(writer, "+OK", "SET k zero");
    expect(r->direct, "+OK", "SELECT 1");
    expect(r->direct, "+OK", "SET k one");
    expect(r->direct, "+OK", "SELECT 0");
    for (int round = 0; round < ROUNDS; round++) {
        expect(c, round % 2 == 0 ? "$zero" : "$one", "GET k");
        expect(c, round % 2 == 0 ? "$zero" : "$one", "GET k");
        expect(writer, "+OK", "SWAPDB 0 1");
        expect(c, round % 2 == 0 ? "$one" : "$zero", "GET k");
    }
}

SCENARIO(coherence, a_pipeline_reads_its_own_writes)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k start");
    make_cached(c, r, "k");
    for (int i = 0; i < 300; i++) {
        cr_assert(client_command(c, "SET k %d", i) && client_command(c, "GET k") &&
                  client_command(c, "APPEND k x") && client_command(c, "GET k") &&
                  client_command(c, "GET k") && client_command(c, "MGET k k") &&
                  client_command(c, "EVAL 'return redis.call(\"SET\",\"k\",\"e%d\")' 0", i) &&
                  client_command(c, "GET k"));
    }
    for (int i = 0; i < 300; i++) {
        expect_next(c, "+OK");
        expect_next(c, cleanup_printf("$%d", i));
        expect_next(c, ":...");
        expect_next(c, cleanup_printf("$%dx", i));
        expect_next(c, cleanup_printf("$%dx", i));
        expect_next(c, cleanup_printf("[$%dx $%dx]", i, i));
        expect_next(c, "+OK");
        expect_next(c, cleanup_printf("$e%d", i));
    }
}

SCENARIO(coherence, a_value_is_not_served_after_its_deadline)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    expect(r->direct, "+OK", "DEBUG SET-ACTIVE-EXPIRE 0");
    for (int round = 0; round < 10; round++) {
        int64_t deadline = wall_ms() + 100LL * slowdown();
        int served = 0;
        expect(r->direct, "+OK", "SET k%d v PXAT %lld", round, (long long)deadline);
        for (;;) {
            int64_t asked = wall_ms();
            const char *got = ask(c, "GET k%d", round);
            if (strcmp(got, "nil") == 0) {
                break;
            }
            cr_assert_str_eq(got, "$v");
            served++;
            /* clocks of ms: the one Redis counts in may be one behind */
            cr_assert(asked <= deadline + 2, "served %lld ms after its deadline",
                      (long long)(asked - deadline));
        }
        cr_assert(served > 2, "served only %d times", served);
        cr_assert(wall_ms() >= deadline - 5, "gone %lld ms too early",
                  (long long)(deadline - wall_ms()));
    }
    long long calls = redis_calls(r, "get");
    cr_assert(calls < nearside_info(n, "l1_hits"), "the cache was not used");
}

SCENARIO(coherence, a_deadline_changed_elsewhere_is_kept)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(r->direct, "+OK", "DEBUG SET-ACTIVE-EXPIRE 0");
    expect(r->direct, "+OK", "MSET shorter v shorter2 v longer v longer2 v");
    expect(r->direct, ":1", "PEXPIRE longer 400");
    expect(r->direct, ":1", "PEXPIRE longer2 400");
    make_cached(c, r, "shorter");
    make_cached(c, r, "shorter2");
    make_cached(c, r, "longer");
    make_cached(c, r, "longer2");
    int64_t started = now_ms();
    expect(r->direct, ":1", "PEXPIRE shorter 300");
    expect(r->direct, "$v", "GETEX shorter2 PX 300");
    expect(r->direct, ":1", "PERSIST longer");
    expect(r->direct, "$v", "GETEX longer2 EX 1000");
    while (now_ms() < started + 420) {
        pass_time(10);
    }
    expect(c, "nil", "GET shorter");
    expect(c, "nil", "GET shorter2");
    expect(c, "$v", "GET longer");
    expect(c, "$v", "GET longer2");
}

SCENARIO(coherence, the_configured_ttl_bounds_how_long_a_value_is_kept)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "l1.ttl=200ms", "l1.negative_ttl=100ms", NULL);
    struct client *c = nearside_connect(n);
    nearside_await_fills(n);
    int64_t end = now_ms() + 1000;
    expect(r->direct, "+OK", "SET k v");
    long long calls = redis_calls(r, "get");
    long asked = 0;
    while (now_ms() < end) {
        expect(c, "$v", "GET k");
        asked++;
    }
    long long fetched = redis_calls(r, "get") - calls;
    cr_assert(fetched >= 4 && fetched <= 7, "fetched %lld times in a second", fetched);
    cr_assert(asked > 100, "asked only %ld times", asked);
}

SCENARIO(coherence, wrongtype_is_never_kept)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (int round = 0; round < 20; round++) {
        expect(r->direct, ":1", "RPUSH l%d a", round);
        long long calls = redis_calls(r, "get");
        expect(c, "-WRONGTYPE ...", "GET l%d", round);
        expect(c, "-WRONGTYPE ...", "GET l%d", round);
        cr_assert_eq(redis_calls(r, "get"), calls + 2);
        expect(c, "[nil]", "MGET l%d", round);
        expect(c, "-WRONGTYPE ...", "GET l%d", round);
        expect(r->direct, ":1", "DEL l%d", round);
        expect(r->direct, "+OK", "SET l%d v", round);
        expect(c, "$v", "GET l%d", round);
    }
}

SCENARIO(coherence, a_killed_fill_connection_does_not_leave_old_values)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);
    int killed = 0;

    for (int round = 0; round < 20; round++) {
        expect(r->direct, "+OK", "MSET k old%d k2 old%d", round, round);
        await_same(a, r, "SET");
        make_cached(a, r, "k");
        make_cached(b, r, "k2");
        killed += redis_kill_tracking(r);
        expect(r->direct, "+OK", "MSET k new%d k2 new%d", round, round);
        await_same(a, r, "SET after CLIENT KILL");
        await_same(b, r, "SET after CLIENT KILL");
    }
    cr_assert(killed >= 20, "only %d tracking connections found", killed);
}

/* A link that is silent but not closed: nothing older than the lease may be served. */
static void stalled_link(bool fills_only, unsigned ways)
{
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, "TRACKING");
    struct nearside *n = nearside_start(relay_port(link), "invalidation.link_lease=300ms",
                                        "upstream.dead_after=2s", NULL);
    struct client *c = nearside_connect(n);

    expect(r->direct, "+OK", "SET k old");
    make_cached(c, r, "k");
    client_set_timeout(c, 8000);
    relay_hold(link, ways, fills_only);
    expect(r->direct, "+OK", "SET k new");
    int64_t written = now_ms();
    int stale = 0;
    while (now_ms() < written + 1200) {
        int64_t asked = now_ms();
        const char *got = ask(c, "GET k");
        if (strcmp(got, "$old") == 0) {
            stale++;
            cr_assert(asked - written <= 300 + 20, "%lld ms after the write: old",
                      (long long)(asked - written));
        } else {
            cr_assert(strcmp(got, "$new") == 0 || got[0] == '-', "got '%s'", got);
            break;
        }
    }
    if ((ways & RELAY_DOWN) != 0) {
        cr_assert(stale > 0, "the link was not stalled");
    }
    relay_release(link);
    await_reply(c, "$new", 5000, "GET k");
}

SCENARIO(coherence, a_stalled_fill_link_serves_nothing_older_than_the_lease)
{
    stalled_link(true, RELAY_DOWN);
}

SCENARIO(coherence, a_fill_link_stalled_upwards_serves_nothing_older_than_the_lease)
{
    stalled_link(true, RELAY_UP);
}

SCENARIO(coherence, a_partition_serves_nothing_older_than_the_lease)
{
    stalled_link(false, RELAY_BOTH);
}

SCENARIO(coherence, a_proxy_that_was_stopped_does_not_serve_by_its_old_clock)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "invalidation.link_lease=200ms", NULL);
    struct client *c = nearside_connect(n);
    struct client *early = nearside_connect(n);

    for (int round = 0; round < 3; round++) {
        expect(r->direct, "+OK", "SET k old%d", round);
        await_same(c, r, "SET");
        make_cached(c, r, "k");
        process_freeze(n->process);
        /* one GET waits in the socket while the proxy stands still, one comes right after */
        cr_assert(client_command(early, "GET k"));
        expect(r->direct, "+OK", "SET k new%d", round);
        pass_time(300);
        process_thaw(n->process);
        expect(c, cleanup_printf("$new%d", round), "GET k");
        expect_next(early, cleanup_printf("$new%d", round));
    }
}

SCENARIO(coherence, without_invalidation_every_get_reaches_redis)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "invalidation.mode=off", NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 20; i++) {
        long long calls = redis_calls(r, "get");
        expect(r->direct, "+OK", "SET k %d", i);
        expect(c, cleanup_printf("$%d", i), "GET k");
        expect(c, cleanup_printf("$%d", i), "GET k");
        cr_assert_eq(redis_calls(r, "get"), calls + 2);
    }
    cr_assert_eq(nearside_info(n, "l1_hits"), 0);
}

/* A server that does not allow tracking: everything works, nothing is kept, and it is said once. */
static void refused_tracking(struct redis *r)
{
    struct nearside *n = nearside_start(r->port, "invalidation.mode=tracking", NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 50; i++) {
        expect(r->direct, "+OK", "SET k %d", i);
        expect(c, cleanup_printf("$%d", i), "GET k");
        expect(c, "+OK", "SET k mine");
        expect(c, "$mine", "GET k");
        expect(c, "[$mine]", "MGET k");
        expect(c, "nil", "GET nobody");
    }
    cr_assert_eq(nearside_info(n, "l1_hits"), 0);
    nearside_await_info(n, "tracking_refused", 1, 1, 3000);
    pass_time(1500); /* time for it to be said again */
    /* the line at start says that tracking is what will be tried */
    int lines = nearside_log_lines(n, "tracking") - nearside_log_lines(n, "listens on");
    cr_assert(lines == 1, "said %d times:\n%s", lines, nearside_log(n));
}

SCENARIO(coherence, a_user_who_may_not_track_gets_no_cache)
{
    struct redis *r = redis_start(NULL);

    expect(r->direct, "+OK", "ACL SETUSER default -client|tracking");
    refused_tracking(r);
}

SCENARIO(coherence, a_server_without_the_client_command_gets_no_cache)
{
    static const char *const extra[] = {"--rename-command", "CLIENT", "", NULL};

    refused_tracking(redis_start(extra));
}

SCENARIO(coherence, tracking_allowed_later_brings_the_cache_back)
{
    struct redis *r = redis_start(NULL);

    expect(r->direct, "+OK", "ACL SETUSER default -client|tracking");
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    expect(c, "+OK", "SET k v");
    expect(c, "$v", "GET k");
    expect(r->direct, "+OK", "ACL SETUSER default +client|tracking");
    int64_t deadline = now_ms() + 15000;
    long long hits = 0;
    while (hits == 0 && now_ms() < deadline) {
        expect(c, "$v", "GET k");
        hits = nearside_info(n, "l1_hits");
        pass_time(50);
    }
    cr_assert(hits > 0, "the cache did not come back; log:\n%s", nearside_log(n));
}

SCENARIO(coherence, a_write_that_fails_does_not_leave_the_key_blocked)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k text");
    for (int i = 0; i < 20; i++) {
        expect(c, "-ERR ...", "INCR k");
        expect(c, "-WRONGTYPE ...", "LPUSH k a");
        expect(c, "-ERR ...", "SET k a b c d");
        expect(c, "$text", "GET k");
    }
    make_cached(c, r, "k");
}
