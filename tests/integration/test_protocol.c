/* SPDX-License-Identifier: Apache-2.0
 *
 * test_protocol.c: RESP as clients really send it, and as they should not. The measure is Redis
 * itself: the same bytes go to the proxy and past it, and what comes back must be the same bytes,
 * up to and including the closing of the connection.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(protocol);

#define END_MARK    "$8\r\n--end---\r\n"
#define END_COMMAND "*2\r\n$4\r\nECHO\r\n" END_MARK

struct bytes {
    const char *p;
    size_t n;
};

#define BYTES(literal)                                                                             \
    {                                                                                              \
        literal, sizeof(literal) - 1                                                               \
    }

/* Printable, for messages. */
static const char *shown(const char *p, size_t n)
{
    char *out = cleanup_alloc(4 * 200 + 1);
    size_t len = 0;

    for (size_t i = 0; i < n && i < 200; i++) {
        unsigned char ch = (unsigned char)p[i];
        len += (size_t)sprintf(out + len, ch >= ' ' && ch < 127 ? "%c" : "\\x%02x", ch);
    }
    return out;
}

struct answer {
    struct bytes bytes;
    bool closed;
};

static bool ends_with_mark(const char *p, size_t n)
{
    size_t len = strlen(END_MARK);

    return n >= len && memcmp(p + n - len, END_MARK, len) == 0;
}

/* What Redis answers to these bytes followed by an ECHO, on a fresh connection: up to the echo, or
 * until it closes, or, when the bytes swallow the ECHO, all that comes within `patience` ms. */
static struct answer answer_of_redis(struct redis *r, struct bytes in, int64_t patience)
{
    struct client *c = client_connect(r->port);
    struct answer answer = {.closed = false};
    size_t n;

    client_send(c, in.p, in.n);
    client_send_text(c, END_COMMAND);
    client_set_timeout(c, patience);
    const char *got = client_read_until(c, END_MARK, &n);
    char *copy = cleanup_alloc(n + 1);
    memcpy(copy, got, n);
    answer.bytes = (struct bytes){copy, n};
    if (!ends_with_mark(copy, n)) {
        char more;
        answer.closed = client_readable(c, 0) && client_read_bytes(c, &more, 1) == 0;
    }
    client_close(c);
    return answer;
}

/* The proxy must answer just that, and close if Redis closes. */
static void same_answer_within(struct redis *r, struct nearside *n, struct bytes in,
                               int64_t patience)
{
    struct answer want = answer_of_redis(r, in, patience);
    struct client *c = nearside_connect(n);
    char *got = cleanup_alloc(want.bytes.n + 64);

    client_send(c, in.p, in.n);
    client_send_text(c, END_COMMAND);
    client_set_timeout(c, 5000);
    size_t len = client_read_bytes(c, got, want.bytes.n);
    if (len == want.bytes.n && (want.closed || client_readable(c, 5))) {
        len += client_read_bytes(c, got + len, 63);
    }
    cr_expect(len == want.bytes.n && memcmp(got, want.bytes.p, len) == 0,
              "'%s': Redis answers '%s', the proxy '%s'", shown(in.p, in.n),
              shown(want.bytes.p, want.bytes.n), shown(got, len));
    if (want.closed) {
        cr_expect(strcmp(client_read(c), "closed") == 0, "'%s': Redis closes, the proxy does not",
                  shown(in.p, in.n));
    }
    client_close(c);
}

static void same_answer(struct redis *r, struct nearside *n, struct bytes in)
{
    same_answer_within(r, n, in, 5000);
}

/* Valkey 8.1 takes an array behind a line of blanks for further lines. */
static bool reads_arrays_behind_blanks(struct redis *r)
{
    struct bytes blanks = BYTES("   \r\n");
    struct answer answer = answer_of_redis(r, blanks, 5000);

    return answer.bytes.n == strlen(END_MARK);
}

/* To Valkey a NUL in a header is a wrong digit; Redis looks for the end of the line before it only. */
static bool stops_at_nul(struct redis *r)
{
    struct bytes nul = BYTES("*1\0\r\n");

    return !answer_of_redis(r, nul, 1000).closed;
}

SCENARIO(protocol, inline_commands_and_odd_framing_are_read_as_redis_reads_them)
{
    static const struct bytes inputs[] = {
        BYTES("PING\r\n"),
        BYTES("ping\n"),
        BYTES("   PING   \r\n"),
        BYTES("\tPING\t\r\n"),
        BYTES("SET a b\r\nGET a\r\nGET a\n"),
        BYTES("SET a \"b\\x41\\n\\t\\\"\"\r\nGET a\r\n"),
        BYTES("SET 'it\\'s' \"\"\r\nGET \"it's\"\r\n"),
        BYTES("\r\n"),
        BYTES("\n\n\r\n\n"),
        BYTES("   \r\nPING\r\n"),
        BYTES("*0\r\n"),
        BYTES("*-1\r\n"),
        BYTES("*-10\r\nPING\r\n"),
        BYTES("*1\r\n$4\r\nPINGxx"),
        BYTES("*1\r\r$4\r\nPING\r\n"),
        BYTES("*1\r\n$0\r\n\r\n"),
        BYTES("*2\r\n$3\r\nGET\r\n$0\r\n\r\n"),
        BYTES("*1\r\n$7\r\nNOSUCH\n\r\n"),
        BYTES("*2\r\n$4\r\nnope\r\n$3\r\na\r\n\r\n"),
        BYTES("GET\r\n"),
        BYTES("no such command at all\r\n"),
        BYTES("EVAL \"return 'x'\" 0\r\n"),
    };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
        same_answer(r, n, inputs[i]);
    }
    if (reads_arrays_behind_blanks(r)) {
        same_answer(r, n, (struct bytes)BYTES("   \r\n"));
    }
}

SCENARIO(protocol, errors_of_framing_get_the_text_of_redis_and_a_close)
{
    static const struct bytes inputs[] = {
        BYTES("*1\r\nPING\r\n"),
        BYTES("*2\r\n$3\r\nGET\r\nfoo\r\n"),
        BYTES("*1\r\n:4\r\n"),
        BYTES("*x\r\n"),
        BYTES("*\r\n"),
        BYTES("* 1\r\n"),
        BYTES("*1 \r\n"),
        BYTES("*+1\r\n"),
        BYTES("*01\r\n$4\r\nPING\r\n"),
        BYTES("*2147483648\r\n"),
        BYTES("*99999999999999999999\r\n"),
        BYTES("*1\r\n$x\r\n"),
        BYTES("*1\r\n$\r\n"),
        BYTES("*1\r\n$-1\r\n"),
        BYTES("*1\r\n$+4\r\nPING\r\n"),
        BYTES("*1\r\n$536870913\r\n"),
        BYTES("*1\r\n$9223372036854775808\r\n"),
        BYTES("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$-1\r\n"),
        BYTES("*1\n$4\nPING\n"),
        BYTES("SET a 'unbalanced\r\n"),
        BYTES("SET a \"unbalanced\r\n"),
        BYTES("GET \"a\"b\r\n"),
        BYTES("PING\r\n*1\r\nPING\r\n"),
        BYTES("SET a b\r\nGET a\r\n*1\r\n!\r\nGET a\r\n"),
        BYTES("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
        same_answer(r, n, inputs[i]);
    }
    nearside_check_alive(n);
}

SCENARIO(protocol, lines_without_an_end_get_the_text_of_redis_and_a_close)
{
    enum { SIZE = 70000 };
    static const char *const cases[][2] = {
        {"", "-ERR Protocol error: too big inline request"},
        {"*", "-ERR Protocol error: too big mbulk count string"},
        {"*1\r\n$", "-ERR Protocol error: too big bulk count string"},
        {"*2\r\n$3\r\nGET\r\n$", "-ERR Protocol error: too big bulk count string"},
    };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    char *line = cleanup_alloc(SIZE);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const int ports[] = {r->port, n->port};
        memset(line, '1', SIZE);
        memcpy(line, cases[i][0], strlen(cases[i][0]));
        for (int p = 0; p < 2; p++) {
            struct client *c = client_connect(ports[p]);
            cr_assert(client_send(c, line, SIZE));
            expect_next(c, cases[i][1]);
            expect_next(c, "closed");
        }
    }
}

SCENARIO(protocol, an_argument_of_512_mb_is_the_largest)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *over = nearside_connect(n);
    struct client *under = nearside_connect(n);
    char none;

    cr_assert(client_send_text(over, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870913\r\n"));
    expect_next(over, "-ERR Protocol error: invalid bulk length");
    expect_next(over, "closed");
    nearside_await_log(n,
                       "closed: what it sent is no request: Protocol error: invalid bulk length");
    cr_assert(client_send_text(under, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$536870912\r\nabc"));
    cr_assert(!client_readable(under, 100), "512 MB are refused");
    client_shutdown(under);
    cr_assert(client_read_bytes(under, &none, 1) == 0);
    nearside_check_alive(n);
}

SCENARIO(protocol, garbage_is_answered_as_redis_answers_it)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    bool nul = stops_at_nul(r);
    unsigned seed = 20240607;

    for (int round = 0; round < 100; round++) {
        char bytes[64];
        size_t len = 1 + (size_t)rand_r(&seed) % sizeof(bytes);
        for (size_t i = 0; i < len; i++) {
            /* half of it from the bytes that mean something */
            int pick = rand_r(&seed);
            int byte = pick % 2 == 0 ? "*$\r\n:+-1290 '\"\\x"[pick / 2 % 15] : pick / 2 % 256;
            bytes[i] = byte == 0 && !nul ? 'x' : (char)byte;
        }
        same_answer_within(r, n, (struct bytes){bytes, len}, 150);
    }
    nearside_check_alive(n);
}

SCENARIO(protocol, an_http_request_disturbs_nobody)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *others[4];

    for (int i = 0; i < 4; i++) {
        others[i] = nearside_connect(n);
        expect(others[i], "+OK", "SET k%d v", i);
    }
    redis_freeze(r);
    for (int i = 0; i < 4; i++) {
        cr_assert(client_command(others[i], "APPEND k%d w", i));
    }
    for (int i = 0; i < 4; i++) {
        struct client *web = nearside_connect(n);
        cr_assert(client_send_text(web, "POST / HTTP/1.1\r\nHost: x\r\n\r\n"));
    }
    pass_time(50); /* so that all of it is on its way */
    redis_thaw(r);
    for (int i = 0; i < 4; i++) {
        expect_next(others[i], ":2");
    }
}

/* A session with every kind of road in it. */
static const char session[] = "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5\r\nhello\r\n"
                              "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
                              "*2\r\n$3\r\nget\r\n$1\r\na\r\n"
                              "PING\r\n"
                              "*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$4\r\nnone\r\n"
                              "*2\r\n$6\r\nSTRLEN\r\n$1\r\na\r\n"
                              "\r\n"
                              "*2\r\n$3\r\nDEL\r\n$1\r\na\r\n"
                              "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
                              "*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n";
static const char *const session_replies[] = {"+OK", "$hello", "$hello", "+PONG",    "[$hello nil]",
                                              ":5",  ":1",     "nil",    "$\r\n\r\n"};

static void expect_session(struct client *c)
{
    for (size_t i = 0; i < sizeof(session_replies) / sizeof(session_replies[0]); i++) {
        expect_next(c, session_replies[i]);
    }
}

SCENARIO(protocol, requests_may_arrive_byte_by_byte)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (size_t i = 0; i < sizeof(session) - 1; i++) {
        cr_assert(client_send(c, session + i, 1));
        if (i % 16 == 0) {
            pass_time(1);
        }
    }
    expect_session(c);
}

SCENARIO(protocol, requests_may_be_split_anywhere)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    for (size_t split = 1; split < sizeof(session) - 1; split++) {
        cr_assert(client_send(c, session, split));
        pass_time(1);
        cr_assert(client_send(c, session + split, sizeof(session) - 1 - split));
        expect_session(c);
    }
}

/* The i-th request of a long mixed pipeline and the reply it must get. */
static void mixed(int i, FILE *out, const char **want)
{
    char line[128];
    size_t n;

    switch (i % 9) {
    case 0:
        snprintf(line, sizeof(line), "SET key%d value%d", i / 9 % 50, i);
        *want = "+OK";
        break;
    case 1:
        snprintf(line, sizeof(line), "GET key%d", i / 9 % 50);
        *want = cleanup_printf("$value%d", i - 1);
        break;
    case 2:
        snprintf(line, sizeof(line), "GET hot");
        *want = "$fire";
        break;
    case 3:
        snprintf(line, sizeof(line), "ECHO %d", i);
        *want = cleanup_printf("$%d", i);
        break;
    case 4:
        snprintf(line, sizeof(line), "INCR counter");
        *want = cleanup_printf(":%d", i / 9 + 1);
        break;
    case 5:
        snprintf(line, sizeof(line), "GET missing%d", i);
        *want = "nil";
        break;
    case 6:
        snprintf(line, sizeof(line), "GET list");
        *want = "-WRONGTYPE ...";
        break;
    case 7:
        snprintf(line, sizeof(line), "MGET hot key%d none", i / 9 % 50);
        *want = cleanup_printf("[$fire $value%d nil]", i - 7);
        break;
    default:
        snprintf(line, sizeof(line), "CLIENT TRACKING ON");
        *want = "-ERR ...";
        break;
    }
    char *bytes = command_bytes(line, &n);
    fwrite(bytes, 1, n, out);
    free(bytes);
}

SCENARIO(protocol, a_pipeline_of_10000_is_answered_in_order)
{
    enum { DEPTH = 10000 };
    static const char *want[DEPTH];
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    char *bytes = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&bytes, &size);

    expect(c, "+OK", "SET hot fire");
    expect(c, ":1", "RPUSH list a");
    for (int i = 0; i < DEPTH; i++) {
        mixed(i, out, &want[i]);
    }
    fclose(out);
    for (int round = 0; round < 2; round++) {
        cr_assert(client_send(c, bytes, size));
        for (int i = 0; i < DEPTH; i++) {
            if (i % 9 == 4) {
                expect_next(c, round == 0 ? want[i] : ":...");
            } else {
                expect_next(c, want[i]);
            }
        }
    }
    free(bytes);
}

SCENARIO(protocol, names_of_commands_are_case_insensitive)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "sEt Key Value");
    expect(c, "$Value", "gEt Key");
    expect(c, "$Value", "GeT Key");
    expect(c, "nil", "gEt key");
    expect(c, "[$Value]", "mGeT Key");
    expect(c, "+PONG", "pInG");
    expect(c, "$me", "eChO me");
    expect(c, "+OK", "sElEcT 0");
    expect(c, "+OK", "cLiEnT sEtNaMe x");
    expect(c, "$x", "ClIeNt GeTnAmE");
    expect(c, ":1", "dEl Key");
    expect(c, "nil", "GET Key");
    expect(c, "[$maxmemory-policy $noeviction]", "cOnFiG gEt maxmemory-policy");
}

SCENARIO(protocol, hello_speaks_version_2)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    const char *hello = cleanup_printf("[%s $proto :2 $id :...", redis_greeting(r));

    cr_assert(strncmp(hello, "[$server $", 10) == 0 && strstr(hello, " $version $") != NULL);
    expect(c, hello, "HELLO");
    expect(c, hello, "HELLO 2");
    expect(c, "[$server ...", "HELLO 2 SETNAME somebody");
    expect(c, "$somebody", "CLIENT GETNAME");
    expect(c, "-NOPROTO unsupported protocol version", "HELLO 4");
    expect(c, "-NOPROTO unsupported protocol version", "HELLO 1");
    expect(c, "-ERR Protocol version is not an integer or out of range", "HELLO x");
    expect(c, "-ERR Syntax error in HELLO option 'nonsense'", "HELLO 2 nonsense");
    expect(c, "+PONG", "PING");
    expect(c, "$somebody", "CLIENT GETNAME");
}

SCENARIO(protocol, a_number_that_cannot_be_a_database_is_refused_in_the_words_of_redis)
{
    static const char *const words[] = {
        "-1",  "-2147483648", "-2147483649",          "2147483648", "99999999999999",
        "abc", "1x",          "99999999999999999999", "''",         "' 0'"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "-ERR DB index is out of range", "SELECT -1");
    expect(c, "-ERR value is out of range, value must between -2147483648 and 2147483647",
           "SELECT 99999999999999");
    expect(c, "-ERR value is not an integer or out of range", "SELECT abc");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        const char *want = cleanup_printf("%s", ask(r->direct, "SELECT %s", words[i]));
        expect(c, want, "SELECT %s", words[i]);
    }
    expect(c, "+OK", "SELECT 0");
}

SCENARIO(protocol, commands_with_thousands_of_keys_work)
{
    enum { KEYS = 3000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *writer = nearside_connect(n);
    struct client *c = nearside_connect(n);
    char *text = NULL;
    size_t size = 0;

    for (int round = 0; round < 3; round++) {
        FILE *sets = open_memstream(&text, &size);
        fputs("MSET", sets);
        for (int i = 0; i < KEYS; i++) {
            fprintf(sets, " key%d %d.%d", i, i, round);
        }
        fclose(sets);
        expect(writer, "+OK", "%s", text);
        free(text);
        for (int i = 0; i < KEYS; i += 7) {
            expect(c, cleanup_printf("$%d.%d", i, round), "GET key%d", i);
        }
        FILE *gets = open_memstream(&text, &size);
        fputs("MGET", gets);
        for (int i = 0; i < KEYS; i++) {
            fprintf(gets, " key%d", i);
        }
        fclose(gets);
        for (int again = 0; again < 2; again++) {
            client_command(c, "%s", text);
            const struct reply *reply = client_reply(c);
            cr_assert(reply->type == '*' && reply->items == KEYS);
            for (int i = 0; i < KEYS; i++) {
                char want[32];
                snprintf(want, sizeof(want), "%d.%d", i, round);
                cr_assert_str_eq(reply->item[i]->text, want);
            }
        }
        free(text);
    }
    FILE *dels = open_memstream(&text, &size);
    fputs("DEL", dels);
    for (int i = 0; i < KEYS; i++) {
        fprintf(dels, " key%d", i);
    }
    fclose(dels);
    expect(writer, cleanup_printf(":%d", KEYS), "%s", text);
    free(text);
    for (int i = 0; i < KEYS; i += 7) {
        expect(c, "nil", "GET key%d", i);
    }
}

SCENARIO(protocol, a_half_sent_command_and_a_disconnect_leave_nothing_behind)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (size_t i = 1; i < sizeof(session) - 1; i += 3) {
        struct client *c = nearside_connect(n);
        cr_assert(client_send(c, session, i));
        if (i % 2 == 0) {
            client_reset(c);
        } else {
            client_close(c);
        }
    }
    nearside_await_info(n, "clients_connected", 0, 1, 3000);
    nearside_check_alive(n);
}

/* ---- Statuses and errors of any length ------------------------------------------------------ */

/* An array of three arguments, of which the second is `size` times 'x'. */
static struct bytes huge_argument(const char *name, size_t size, const char *last)
{
    char *p = cleanup_alloc(size + 256);
    size_t n = (size_t)sprintf(p, "*3\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(name), name, size);

    memset(p + n, 'x', size);
    n += size;
    n += (size_t)sprintf(p + n, "\r\n$%zu\r\n%s\r\n", strlen(last), last);
    return (struct bytes){p, n};
}

/* Redis repeats the argument; the connection it comes on is that of all clients. */
SCENARIO(protocol, an_error_of_any_length_is_passed_on_and_hurts_nobody_else)
{
    enum { TIMES = 40, SIZE = 300 * 1000 };
    static const size_t sizes[] = {60 * 1000, 64 * 1024, 70 * 1000, 1500 * 1000, 5000 * 1000};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);
    char *value = cleanup_alloc(SIZE);

    memset(value, 'v', SIZE);
    expect(c, ":1", "PFADD key a");
    store_value(other, "large", SIZE); /* large requests have a lane of their own, and here it is */
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct bytes in = huge_argument("PFDEBUG", sizes[i], "key");
        size_t want_n;
        size_t got_n;

        cr_assert(client_send(r->direct, in.p, in.n));
        (void)client_reply(r->direct);
        const char *want = client_raw(r->direct, &want_n);
        cr_assert(want[0] == '-' && want_n > sizes[i], "Redis says only %s", shown(want, want_n));
        for (int k = 0; k < TIMES; k++) {
            if (k == TIMES / 2) {
                cr_assert(client_send(c, in.p, in.n));
            }
            cr_assert(client_command(other, "INCR n%zu", i));
            cr_assert(client_command_big(other, "GETSET large", value, SIZE));
        }
        for (int k = 1; k <= TIMES; k++) {
            expect_next(other, cleanup_printf(":%d", k));
            expect_next(other, "$(300000 bytes)");
        }
        (void)client_reply(c);
        const char *got = client_raw(c, &got_n);
        cr_assert(got_n == want_n && memcmp(got, want, want_n) == 0, "%s", shown(got, got_n));
        expect(c, "$40", "GET n%zu", i);
    }
    cr_assert_eq(nearside_info(n, "upstream_errors"), 0);
    cr_assert_eq(nearside_log_lines(n, "protocol error"), 0);
}

SCENARIO(protocol, nested_statuses_and_errors_of_any_length_are_passed_on)
{
    static const char *const scripts[] = {
        "return {{ok=string.rep('x', 2000000)}}",
        "return {1, {{err=string.rep('x', 2000000)}, 'a'}, {ok='b'}, false}",
        "return {{ok=string.rep('x', 4096)}, {err=string.rep('y', 4097)}, {ok=''}}",
        "return {ok=string.rep('x', 2000000)}",
        "return {err=string.rep('x', 2000000)}",
    };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);

    for (int version = 2; version <= 3; version++) {
        struct client *direct = client_connect(r->port);
        struct client *c = nearside_connect(n);
        (void)ask(direct, "HELLO %d", version);
        (void)ask(c, "HELLO %d", version);
        for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
            const char *eval = cleanup_printf("EVAL \"%s\" 0", scripts[i]);
            for (int multi = 0; multi < 2; multi++) {
                struct client *both[] = {direct, c};
                const char *raw[2];
                size_t size[2];
                for (int k = 0; k < 2; k++) {
                    if (multi != 0) {
                        expect(both[k], "+OK", "MULTI");
                        expect(both[k], "+QUEUED", "%s", eval);
                        expect(both[k], "+QUEUED", "PING");
                    }
                    (void)ask(both[k], "%s", multi != 0 ? "EXEC" : eval);
                    raw[k] = client_raw(both[k], &size[k]);
                }
                cr_assert_gt(size[0], 8000, "Redis says only %s", shown(raw[0], size[0]));
                cr_assert_eq(size[1], size[0], "%s", shown(raw[1], size[1]));
                cr_assert(memcmp(raw[1], raw[0], size[0]) == 0, "script %zu", i);
                expect(c, "+PONG", "PING");
            }
        }
    }
    cr_assert_eq(nearside_info(n, "upstream_errors"), 0);
}
