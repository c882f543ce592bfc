/* SPDX-License-Identifier: Apache-2.0
 *
 * test_torture.c: peers that do their worst, on both sides, and what the others notice: nothing. While
 * a scenario runs, a witness (a thread with a connection on each worker) asks and checks every reply;
 * at its end the proxy must have given back what the torturers took.
 */
#include "../support/await.h"
#include "../support/fake.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

TestSuite(torture);

#define MB ((size_t)1024 * 1024)

/* ---- The witness ---------------------------------------------------------------------------- */

enum { WITNESSES = 2 };

struct witness {
    pthread_t thread;
    struct client *c[WITNESSES];
    bool reads_only; /* of a server that lies to others: errors are allowed, other values are not */
    atomic_bool stop;
    atomic_long rounds;
    bool joined;
    int64_t slowest;
    char wrong[256];
};

static bool witness_asks(struct witness *w, int k, const char *line, const char *want)
{
    int64_t asked = now_ms();
    const char *got = ask(w->c[k], "%s", line);
    int64_t took = now_ms() - asked;

    w->slowest = took > w->slowest ? took : w->slowest;
    if (strcmp(got, want) == 0 || (w->reads_only && strncmp(got, "-UPSTREAM", 9) == 0)) {
        return true;
    }
    snprintf(w->wrong, sizeof(w->wrong), "%s gives '%.80s' and not '%.80s'", line, got, want);
    return false;
}

static bool witness_round(struct witness *w, int k, long round)
{
    char line[4][64];
    char want[3][64];

    if (w->reads_only) {
        snprintf(line[0], sizeof(line[0]), "GET good:%ld", round % 100);
        return witness_asks(w, k, line[0], "$value");
    }
    snprintf(line[0], sizeof(line[0]), "SET witness:%d %ld", k, round);
    snprintf(line[1], sizeof(line[1]), "GET witness:%d", k);
    snprintf(line[2], sizeof(line[2]), "INCR witness:n:%d", k);
    snprintf(line[3], sizeof(line[3]), "MGET witness:%d witness:n:%d", k, k);
    snprintf(want[0], sizeof(want[0]), "$%ld", round);
    snprintf(want[1], sizeof(want[1]), ":%ld", round + 1);
    snprintf(want[2], sizeof(want[2]), "[$%ld $%ld]", round, round + 1);
    return witness_asks(w, k, line[0], "+OK") && witness_asks(w, k, line[1], want[0]) &&
           witness_asks(w, k, line[1], want[0]) && witness_asks(w, k, line[2], want[1]) &&
           witness_asks(w, k, line[3], want[2]) && witness_asks(w, k, "PING", "+PONG");
}

static void *witness_run(void *ctx)
{
    struct witness *w = ctx;

    for (long round = 0; !atomic_load(&w->stop); round++) {
        for (int k = 0; k < WITNESSES; k++) {
            if (!witness_round(w, k, round)) {
                return NULL;
            }
        }
        atomic_fetch_add(&w->rounds, 1);
    }
    return NULL;
}

static void witness_join(void *object)
{
    struct witness *w = object;

    if (!w->joined) {
        w->joined = true;
        atomic_store(&w->stop, true);
        pthread_join(w->thread, NULL);
    }
}

/* Before anybody else connects, so that there is one connection on each worker. */
static struct witness *witness_start(struct nearside *n, bool reads_only)
{
    struct witness *w = cleanup_alloc(sizeof(*w));

    memset(w, 0, sizeof(*w));
    w->reads_only = reads_only;
    for (int k = 0; k < WITNESSES; k++) {
        w->c[k] = nearside_connect(n);
    }
    nearside_await_fills(n);
    cr_assert(pthread_create(&w->thread, NULL, witness_run, w) == 0);
    cleanup_add(witness_join, w);
    return w;
}

static bool has_gone_round(void *ctx)
{
    long *before = ((void **)ctx)[1];
    struct witness *w = ((void **)ctx)[0];

    return w->wrong[0] != '\0' || atomic_load(&w->rounds) >= *before + 3;
}

/* It is served now, and was all the time. */
static void witness_check(struct witness *w, const char *what)
{
    long before = atomic_load(&w->rounds);
    void *ctx[2] = {w, &before};

    cr_assert(await(has_gone_round, ctx, 5000 * slowdown()), "%s: the witness waits", what);
    cr_assert(w->wrong[0] == '\0', "%s: %s", what, w->wrong);
}

static void witness_stop(struct witness *w)
{
    witness_check(w, "at the end");
    witness_join(w);
    cr_assert(w->wrong[0] == '\0', "%s", w->wrong);
    cr_assert(w->reads_only || w->slowest < 1500 * slowdown(), "a reply took %lld ms",
              (long long)w->slowest);
}

/* More than `limit_kb` above `before`? Says nothing where sanitizers keep what was freed. */
static void check_memory(struct nearside *n, int64_t before, int64_t limit_kb, const char *what)
{
    int64_t grown = process_rss_kb(n->process) - before;

    cr_assert(is_sanitized() || grown < limit_kb, "%s: grew by %lld kB", what, (long long)grown);
}

static void raise_files(void)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- Replies of every type ------------------------------------------------------------------ */

#define END_MARK    "$8\r\n--end---\r\n"
#define END_COMMAND "*2\r\n$4\r\nECHO\r\n" END_MARK

static const char *const types[] = {"string",   "integer", "double", "null",  "array",
                                    "set",      "map",     "attrib", "push",  "bignum",
                                    "verbatim", "true",    "false",  "nosuch"};
enum { TYPES = sizeof(types) / sizeof(types[0]) };

static struct client *speaking(int port, int version)
{
    struct client *c = client_connect(port);
    size_t n;

    cr_assert(client_send_text(c, cleanup_printf("HELLO %d\r\n" END_COMMAND, version)));
    client_read_until(c, END_MARK, &n);
    return c;
}

struct text {
    const char *p;
    size_t n;
};

/* What comes back for these bytes, and the end mark behind it. */
static struct text answer(struct client *c, const char *in, size_t chunk)
{
    struct text answer;
    size_t len = strlen(in);

    for (size_t at = 0; at < len; at += chunk) {
        cr_assert(client_send(c, in + at, chunk < len - at ? chunk : len - at));
    }
    answer.p = client_read_until(c, END_MARK, &answer.n);
    return answer;
}

static void check_same(struct client *direct, struct client *through, const char *in, size_t chunk)
{
    struct text want = answer(direct, in, SIZE_MAX);
    struct text got = answer(through, in, chunk);

    cr_assert(want.n == got.n && memcmp(want.p, got.p, got.n) == 0,
              "'%s': Redis answers '%.*s', the proxy '%.*s'", in, (int)want.n, want.p, (int)got.n,
              got.p);
}

static const char *debug_command(const char *type)
{
    return cleanup_printf("*3\r\n$5\r\nDEBUG\r\n$8\r\nPROTOCOL\r\n$%zu\r\n%s\r\n", strlen(type),
                          type);
}

SCENARIO(torture, replies_of_every_type_are_passed_on_byte_for_byte)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int version = 2; version <= 3; version++) {
        struct client *direct = speaking(r->port, version);
        struct client *through = speaking(n->port, version);
        char *all = cleanup_alloc(TYPES * 128);
        size_t len = 0;
        for (int i = 0; i < TYPES; i++) {
            const char *one = debug_command(types[i]);
            check_same(direct, through, cleanup_printf("%s" END_COMMAND, one), SIZE_MAX);
            /* between two others */
            check_same(direct, through, cleanup_printf("PING\r\n%s" END_COMMAND, one), 1);
            len += (size_t)sprintf(all + len, "%sPING\r\n", one);
        }
        check_same(direct, through, cleanup_printf("%s" END_COMMAND, all), SIZE_MAX);
        check_same(direct, through, cleanup_printf("%s%s" END_COMMAND, all, all), 7);
        client_close(through);
    }
    nearside_check_alive(n);
}

SCENARIO(torture, replies_of_every_type_may_arrive_in_single_bytes)
{
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, NULL);
    struct nearside *n = nearside_start(relay_port(link), NULL);

    for (int version = 2; version <= 3; version++) {
        struct client *direct = speaking(r->port, version);
        struct client *through = speaking(n->port, version);
        size_t n_read;
        /* makes it keep one upstream connection, which comes up at full speed */
        cr_assert(client_send_text(through, "WATCH nothing\r\n" END_COMMAND));
        (void)client_read_until(through, END_MARK, &n_read);
        relay_chop(link, RELAY_DOWN, 1);
        for (int i = 0; i < TYPES; i++) {
            check_same(direct, through,
                       cleanup_printf("%sPING\r\n" END_COMMAND, debug_command(types[i])), 100);
        }
        relay_chop(link, RELAY_DOWN, 0);
        client_close(through);
    }
    nearside_check_alive(n);
}

/* Not made by Redis, and RESP3 all the same. */
SCENARIO(torture, replies_redis_does_not_know_yet_are_passed_on)
{
    static const char *const replies[] = {
        "|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n*1\r\n:2\r\n%1\r\n+k\r\n|0\r\n+v\r\n",
        "|0\r\n-ERR no\r\n",
        "*2\r\n|1\r\n+ttl\r\n:3600\r\n:1\r\n!5\r\nERR x\r\n",
        "!8\r\nERR a\r\nb\r\n",
        "~1\r\n(12345678901234567890123456789012345678901234567890\r\n",
        "*6\r\n#t\r\n#f\r\n_\r\n,nan\r\n,-inf\r\n=8\r\ntxt:\r\n|1\r\n",
        "%1\r\n*1\r\n:1\r\n~1\r\n%0\r\n",
    };
    enum { REPLIES = sizeof(replies) / sizeof(replies[0]) };
    struct fake_rule *rules = cleanup_alloc((2 * REPLIES + 1) * sizeof(*rules));

    for (size_t i = 0; i < (size_t)REPLIES; i++) {
        rules[2 * i] =
            (struct fake_rule){cleanup_printf("STRLEN r%zu", i), replies[i], 0, FAKE_KEEP};
        rules[2 * i + 1] =
            (struct fake_rule){cleanup_printf("STRLEN s%zu", i), replies[i], 0, FAKE_SLOW};
    }
    rules[(size_t)2 * REPLIES] = (struct fake_rule){0};
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);
    struct client *c = speaking(n->port, 3);
    for (size_t i = 0; i < (size_t)2 * REPLIES; i++) {
        const char *want = cleanup_printf("%s+PONG\r\n", replies[i / 2]);
        size_t len;
        cr_assert(client_command(c, "STRLEN %c%zu", i % 2 == 0 ? 'r' : 's', i / 2));
        cr_assert(client_command(c, "PING"));
        const char *got = client_read_until(c, "+PONG\r\n", &len);
        cr_assert(len == strlen(want) && memcmp(got, want, len) == 0, "'%s' and not '%s'", got,
                  want);
    }
}

/* ---- Clients that are slow ------------------------------------------------------------------ */

SCENARIO(torture, hundreds_of_clients_that_send_one_byte_at_a_time)
{
    enum { COUNT = 300 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct witness *w = witness_start(n, false);
    struct client *c[COUNT];
    char *text[COUNT];
    size_t longest = 0;

    int64_t before = process_rss_kb(n->process);
    for (int i = 0; i < COUNT; i++) {
        c[i] = nearside_connect(n);
        text[i] = cleanup_printf("*3\r\n$3\r\nSET\r\n$5\r\ns:%03d\r\n$3\r\n%03d\r\n"
                                 "*2\r\n$3\r\nGET\r\n$5\r\ns:%03d\r\nMULTI\r\nINCR s:%03d\r\n"
                                 "*1\r\n$4\r\nEXEC\r\n*2\r\n$6\r\nSTRLEN\r\n$5\r\ns:%03d\r\n",
                                 i, 100 + i, i, i, i);
        longest = strlen(text[i]) > longest ? strlen(text[i]) : longest;
    }
    for (size_t at = 0; at < longest; at++) {
        for (int i = 0; i < COUNT; i++) {
            cr_assert(at >= strlen(text[i]) || client_send(c[i], text[i] + at, 1));
        }
    }
    check_memory(n, before, 32 * 1024, "slow clients");
    for (int i = 0; i < COUNT; i++) {
        expect_next(c[i], "+OK");
        expect_next(c[i], cleanup_printf("$%03d", 100 + i));
        const char *got = client_read(c[i]);
        if (strcmp(got, "+OK") == 0) {
            expect_next(c[i], "+QUEUED");
            expect_next(c[i], cleanup_printf("[:%d]", 101 + i));
            expect_next(c[i], ":3");
        } else {
            cr_assert(matches(got, "-ERR too many..."), "MULTI gives '%s'", got);
        }
        client_close(c[i]);
    }
    witness_stop(w);
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
}

SCENARIO(torture, absurd_lengths_from_clients_take_no_memory)
{
    static const char *const starts[] = {
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc",
        "*2147483647\r\n$3\r\nDEL\r\n$1\r\nk\r\n",
        "*2147483647\r\n$4\r\nMGET\r\n$1\r\nk\r\n$536870912\r\n",
        "*2\r\n$536870912\r\nGET",
        "*1048576\r\n",
        "*3\r\n$4\r\nEVAL\r\n$536870912\r\nreturn 1",
    };
    enum { COUNT = 300, STARTS = sizeof(starts) / sizeof(starts[0]) };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct witness *w = witness_start(n, false);
    struct client *c[COUNT];

    int64_t before = process_rss_kb(n->process);
    for (int i = 0; i < COUNT; i++) {
        c[i] = nearside_connect(n);
        cr_assert(client_send_text(c[i], starts[i % STARTS]));
    }
    witness_check(w, "announced");
    /* a little comes, the rest does not */
    for (int i = 0; i < COUNT; i++) {
        cr_assert(client_send(c[i], "$1\r\na\r\n$1\r\nb\r\n", 14));
    }
    witness_check(w, "some of it sent");
    check_memory(n, before, 24 * 1024, "300 absurd announcements");
    cr_assert_lt(nearside_info(n, "client_memory"), 16 * (long long)MB);
    for (int i = 0; i < COUNT; i++) {
        if (i % 2 == 0) {
            client_reset(c[i]);
        } else {
            client_close(c[i]);
        }
    }
    nearside_await_info(n, "client_memory", 0, (long long)MB, 5000);
    witness_stop(w);
}

SCENARIO(torture, ten_thousand_idle_connections)
{
    enum { WANTED = 10000, SPARE = 200 };
    struct redis *r = redis_start(NULL);
    struct rlimit limit;

    raise_files();
    getrlimit(RLIMIT_NOFILE, &limit);
    int count = limit.rlim_cur < WANTED + SPARE ? (int)limit.rlim_cur - SPARE : WANTED;
    struct nearside *n = nearside_start(r->port, "proxy.max_clients=11000", NULL);
    struct witness *w = witness_start(n, false);
    struct client **idle = cleanup_alloc((size_t)count * sizeof(struct client *));

    int64_t before = process_rss_kb(n->process);
    for (int i = 0; i < count; i++) {
        idle[i] = nearside_connect(n);
        /* some have been active before */
        cr_assert(i % 10 != 0 || client_command(idle[i], "GET idle:%d", i % 100));
    }
    nearside_await_info(n, "clients_connected", count + WITNESSES, count + WITNESSES + 2, 20000);
    for (int i = 0; i < count; i += 10) {
        expect_next(idle[i], "nil");
    }
    int64_t each = (process_rss_kb(n->process) - before) * 1024 / count;
    cr_assert(is_sanitized() || each < 4096, "%lld bytes for each", (long long)each);
    witness_check(w, "beside idle clients");
    int64_t cpu = process_cpu_ms(n->process);
    witness_stop(w);
    int64_t from = now_ms();
    cpu = process_cpu_ms(n->process);
    pass_time(1000);
    cpu = process_cpu_ms(n->process) - cpu;
    cr_assert(cpu < (now_ms() - from) / 4 * slowdown(), "%lld ms of CPU time for being idle",
              (long long)cpu);
    for (int i = 0; i < count; i += 7) {
        expect(idle[i], "+PONG", "PING");
    }
    for (int i = 0; i < count; i++) {
        client_close(idle[i]);
    }
    nearside_await_info(n, "clients_connected", 0, WITNESSES + 2, 20000);
}

/* ---- Clients that leave, and clients that do not read --------------------------------------- */

SCENARIO(torture, resets_in_the_middle_of_pipelines)
{
    static const char *const pieces[] = {
        "*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n",
        "*3\r\n$3\r\nSET\r\n$2\r\nk1\r\n$5\r\nvalue\r\n",
        "MGET k1 k2 big k3\r\n",
        "MULTI\r\nINCR n\r\nGET big\r\nEXEC\r\n",
        "EVAL \"redis.call('set',KEYS[1],'x') return redis.call('get','big')\" 1 k2\r\n",
        "SUBSCRIBE ch\r\nPUBLISH ch hello\r\nUNSUBSCRIBE\r\n",
        "SELECT 3\r\nSET k1 other\r\nGET k1\r\nSELECT 0\r\n",
        "BLPOP nothing k1 0.05\r\n",
        "HELLO 3\r\nMGET k1 none\r\nDEBUG PROTOCOL attrib\r\nHELLO 2\r\n",
        "WATCH k1\r\nGETRANGE big 0 -1\r\nUNWATCH\r\n",
        "CLIENT INFO\r\nCLIENT SETNAME x\r\nRESET\r\n",
        "MONITOR\r\nGET big\r\n",
        "*3\r\n$3\r\nSET\r\n$2\r\nk3\r\n$100000\r\nhalf",
        "*1\r\n$4\r\nPIN",
    };
    enum { ROUNDS = 40, COUNT = 12, PIECES = sizeof(pieces) / sizeof(pieces[0]) };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct witness *w = witness_start(n, false);
    struct client *store = nearside_connect(n);
    unsigned seed = 20260101;

    for (int round = 0; round < ROUNDS; round++) {
        struct client *c[COUNT];
        store_value(store, "big", 100 * 1024);
        for (int i = 0; i < COUNT; i++) {
            c[i] = nearside_connect(n);
            for (int k = 0; k < 30; k++) {
                const char *piece = pieces[(size_t)rand_r(&seed) % PIECES];
                (void)client_send_some(c[i], piece, strlen(piece), 1);
            }
        }
        for (int i = 0; i < COUNT; i++) {
            char some[5000];
            if (rand_r(&seed) % 3 == 0) {
                client_set_timeout(c[i], 20);
                (void)client_read_bytes(c[i], some, sizeof(some));
            }
            if (rand_r(&seed) % 4 == 0) {
                client_close(c[i]);
            } else {
                client_reset(c[i]);
            }
        }
        witness_check(w, "resets");
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 5000 * slowdown());
    nearside_await_info(n, "clients_connected", 0, WITNESSES + 2, 5000 * slowdown());
    nearside_await_info(n, "client_memory", 0, (long long)MB, 5000 * slowdown());
    witness_stop(w);
    cr_assert_lt(redis_info(r, "connected_clients"), 80);
}

SCENARIO(torture, subscribers_and_monitors_that_never_read)
{
    enum { LAZY = 12, SIZE = 50 * 1024, MESSAGES = 600 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.max_output=1mb", NULL);
    struct witness *w = witness_start(n, false);
    struct client *good = nearside_connect(n);
    struct client *lazy[LAZY];
    char *message = cleanup_alloc(SIZE + 1);

    memset(message, 'm', SIZE);
    message[SIZE] = '\0';
    expect(good, "[$subscribe $news :1]", "SUBSCRIBE news");
    for (int i = 0; i < LAZY; i++) {
        lazy[i] = client_connect_small(n->port, 4096);
        client_send_text(lazy[i], i % 3 == 0   ? "HELLO 3\r\nSUBSCRIBE news\r\n"
                                  : i % 3 == 1 ? "PSUBSCRIBE ne*\r\n"
                                               : "MONITOR\r\n");
        cr_assert(client_readable(lazy[i], 5000));
    }
    await_reply(r->direct, cleanup_printf("[$news :%d]", LAZY / 3 + 1), 5000, "PUBSUB NUMSUB news");
    int64_t before = process_rss_kb(n->process);
    for (int i = 0; i < MESSAGES; i++) {
        cr_assert(client_command_big(r->direct, "PUBLISH news", message, SIZE));
        const char *got = client_read(r->direct);
        cr_assert(got[0] == ':', "PUBLISH gives '%s'", got);
        got = client_read(good);
        cr_assert(matches(got, "[$message $news $(51200 bytes)]"), "message %d is '%.60s'", i, got);
    }
    nearside_await_info(n, "clients_closed_output", LAZY / 3 * 2, LAZY, 10000);
    check_memory(n, before, 64 * 1024, "subscribers that do not read");
    witness_stop(w);
    for (int i = 0; i < LAZY; i++) {
        client_close(lazy[i]);
    }
    nearside_await_info(n, "pinned_connections", 1, 1, 5000);
}

/* ---- A server that does its worst ----------------------------------------------------------- */

/* `deep` times `head`, then `tail`. */
static const char *nested(const char *head, size_t deep, const char *tail, size_t *n)
{
    size_t len = strlen(head);
    char *p = cleanup_alloc(deep * len + strlen(tail) + 1);

    for (size_t i = 0; i < deep; i++) {
        memcpy(p + i * len, head, len);
    }
    strcpy(p + deep * len, tail);
    *n = deep * len + strlen(tail);
    return p;
}

/* Asks `count` commands that are lied to; each gets an error, a close or a reply, in time. */
static void ask_liar(struct nearside *n, struct witness *w, const char *command, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct client *c = client_connect(n->port);
        const char *what = cleanup_printf("%s%zu", command, i);
        expect(c, "+OK", "HELLO %d", 2 + (int)(i % 2)); /* the server's: it says that to all */
        char some[256];
        client_set_timeout(c, 8000 * slowdown());
        cr_assert(client_command(c, "%s", what));
        cr_assert(client_readable(c, 8000 * slowdown()), "%s: nothing comes", what);
        client_set_timeout(c, 1);
        (void)client_read_bytes(c, some, sizeof(some));
        client_close(c);
        witness_check(w, what);
    }
}

SCENARIO(torture, deep_nesting_and_absurd_lengths_from_the_server)
{
    static const struct {
        const char *head;
        size_t deep;
        const char *tail;
    } replies[] = {
        {"*1\r\n", 1001, ":1\r\n"},
        {"*1\r\n", 100000, ""},
        {"%1\r\n:1\r\n", 100000, ""},
        {"~1\r\n", 50000, "_\r\n"},
        {"|1\r\n+a\r\n", 50000, ":1\r\n:2\r\n"},
        {"|1\r\n", 50000, ":1\r\n:2\r\n"},
        {"*2\r\n|1\r\n:1\r\n", 5000, ":1\r\n"},
        {">1\r\n", 5000, ":1\r\n"},
        {"*2147483647\r\n", 2000, ""},
        {"*1\r\n", 10, "$536870913\r\n"},
        {"*1\r\n", 10, "=99999999999999999999999999999\r\n"},
        {"", 1, "!9223372036854775807\r\n"},
        {"", 1, "%-1\r\n"},
        {"", 1, "$000000000000000000000000000000005\r\nhello\r\n"},
        {">2\r\n$10\r\ninvalidate\r\n*1\r\n", 1, "$67108864\r\n"},
        {"*1\r\n", 1, "+no\nline\r\n"},
    };
    enum { COUNT = sizeof(replies) / sizeof(replies[0]) };
    struct fake_rule *rules = cleanup_alloc((COUNT + 1) * sizeof(*rules));

    for (size_t i = 0; i < (size_t)COUNT; i++) {
        /* backwards, because the first rule that begins as the command does counts: 10 before 1 */
        struct fake_rule *rule = &rules[(size_t)COUNT - 1 - i];
        *rule = (struct fake_rule){.prefix = cleanup_printf("STRLEN bad%zu", i), .then = FAKE_KEEP};
        rule->reply = nested(replies[i].head, replies[i].deep, replies[i].tail, &rule->n);
    }
    rules[COUNT] = (struct fake_rule){0};
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);
    struct witness *w = witness_start(n, true);
    int64_t before = process_rss_kb(n->process);
    ask_liar(n, w, "STRLEN bad", COUNT);
    check_memory(n, before, 24 * 1024, "lies");
    witness_stop(w);
}

/* On one connection: others are moved to another. */
SCENARIO(torture, half_a_reply_and_then_silence_on_that_connection)
{
    static const char *const halves[] = {"$100\r\nabc", "*3\r\n:1\r\n", "|1\r\n+a\r\n",
                                         "*1\r\n$536870912\r\nabc", "+O"};

    for (size_t i = 0; i < sizeof(halves) / sizeof(halves[0]); i++) {
        struct fake_rule *rules = cleanup_alloc(2 * sizeof(*rules));
        rules[0] = (struct fake_rule){"STRLEN half", halves[i], 0, FAKE_HANG};
        rules[1] = (struct fake_rule){0};
        struct fake *f = fake_start(rules);
        struct nearside *n = nearside_start(fake_port(f), NULL);
        struct witness *w = witness_start(n, true);
        struct client *c = nearside_connect(n);
        int64_t before = process_rss_kb(n->process);
        cr_assert(client_command(c, "STRLEN half"));
        /* a line is handed on when it is whole */
        cr_assert(halves[i][0] == '+' || client_readable(c, 5000), "%s", halves[i]);
        witness_check(w, halves[i]);
        check_memory(n, before, 8 * 1024, halves[i]);
        for (int k = 0; k < 8; k++) {
            struct client *other = nearside_connect(n);
            expect(other, "+OK", "STRLEN other");
            client_close(other);
        }
        client_reset(c);
        nearside_await_info(n, "clients_connected", WITNESSES, WITNESSES + 2, 5000);
        witness_stop(w);
        nearside_stop(n, 5000);
    }
}

SCENARIO(torture, half_a_reply_and_then_silence_of_the_server)
{
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, NULL);
    /* longer than Redis takes to write so large a reply */
    struct nearside *n = nearside_start(relay_port(link), "upstream.dead_after=2s", NULL);
    struct client *other = nearside_connect(n);

    store_value(r->direct, "big", 64 * MB);
    for (int round = 0; round < 3; round++) {
        await_reply(other, cleanup_printf(":%zu", 64 * MB), 5000, "STRLEN big");
        struct client *c = nearside_connect(n); /* of another worker, perhaps */
        await_reply(c, cleanup_printf(":%zu", 64 * MB), 5000, "STRLEN big");
        relay_chop(link, RELAY_DOWN, 100);
        cr_assert(client_command(c, "GETRANGE big 0 -1"));
        cr_assert(client_readable(c, 5000));
        relay_hold(link, RELAY_BOTH, false);
        relay_chop(link, RELAY_DOWN, 0);
        int64_t held = now_ms();
        cr_assert(client_drain_to_end(c), "half a reply, and it is not told");
        cr_assert(now_ms() - held < 6000 * slowdown());
        const char *got = ask(other, "STRLEN big");
        cr_assert(strncmp(got, "-UPSTREAM", 9) == 0, "got '%s'", got);
        relay_release(link);
    }
    await_reply(other, "+OK", 5000, "SET k v");
}

SCENARIO(torture, random_bytes_from_the_server)
{
    static const char likely[] = "*$\r\n:+-1290\r\n%~|>!=_,#(tf";
    enum { COUNT = 12, SIZE = 200 };
    struct fake_rule *rules = cleanup_alloc((COUNT + 1) * sizeof(*rules));
    unsigned seed = 20260202;

    for (size_t i = 0; i < (size_t)COUNT; i++) {
        char *bytes = cleanup_alloc(SIZE);
        size_t n = 1 + (size_t)rand_r(&seed) % SIZE;
        for (size_t k = 0; k < n; k++) {
            int pick = rand_r(&seed);
            int byte =
                pick % 4 != 0 ? likely[pick / 4 % (int)(sizeof(likely) - 1)] : pick / 4 % 256;
            bytes[k] = (char)byte;
        }
        rules[(size_t)COUNT - 1 - i] =
            (struct fake_rule){cleanup_printf("STRLEN bad%zu", i), bytes, n,
                               rand_r(&seed) % 2 == 0 ? FAKE_CLOSE : FAKE_RESET};
    }
    rules[COUNT] = (struct fake_rule){0};
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);
    struct witness *w = witness_start(n, true);
    ask_liar(n, w, "STRLEN bad", COUNT);
    witness_stop(w);
}

SCENARIO(torture, a_subscription_that_is_answered_by_something_else)
{
    static const struct fake_rule rules[] = {
        {"SUBSCRIBE a", "+OK\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", 0, FAKE_KEEP},
        {"SUBSCRIBE b", "*1\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", 0, FAKE_KEEP},
        {"SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n:5\r\n*1\r\n:1\r\n", 0,
         FAKE_KEEP},
        {"PSUBSCRIBE a", "|1\r\n+a\r\n:1\r\n>3\r\n$9\r\npsubscribe\r\n$1\r\na\r\n:1\r\n", 0,
         FAKE_KEEP},
        {"PSUBSCRIBE b", ":1\r\n>3\r\n$10\r\npsubscribe\r\n$1\r\na\r\n:1\r\n", 0, FAKE_KEEP},
        {"UNSUBSCRIBE", "_\r\n>3\r\n$11\r\nunsubscribe\r\n_\r\n:-1\r\n", 0, FAKE_KEEP},
        {"MONITOR", "+OK\r\n+1\r\n+OK\r\n*1\r\n$7\r\nmessage\r\n", 0, FAKE_KEEP},
        {NULL, NULL, 0, FAKE_KEEP},
    };
    static const char *const commands[] = {"SUBSCRIBE a",  "SUBSCRIBE b",  "SUBSCRIBE c x",
                                           "PSUBSCRIBE a", "PSUBSCRIBE b", "UNSUBSCRIBE",
                                           "MONITOR"};
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);
    struct witness *w = witness_start(n, true);

    for (size_t i = 0; i < 2 * sizeof(commands) / sizeof(commands[0]); i++) {
        struct client *c = speaking(n->port, 2 + (int)(i % 2));
        client_set_timeout(c, 5000);
        cr_assert(client_command(c, "%s", commands[i / 2]));
        cr_assert(client_readable(c, 5000), "%s: nothing comes", commands[i / 2]);
        client_close(c);
        witness_check(w, commands[i / 2]);
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
    witness_stop(w);
}
