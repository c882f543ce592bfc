/* SPDX-License-Identifier: Apache-2.0
 *
 * test_parse.c: framing of requests. Most cases are rows: an input and what Redis 7.0 makes of it.
 * Each row is parsed whole, byte by byte, and split in two at every point; each piece lies in a
 * block of its own and exact size, so that a parser that keeps a pointer or reads on is found out
 * (by the sanitizers at the latest).
 */
#include "../../../resp/parse.h"

#include "../../../conf/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define ARGS_MAX 12

struct row {
    struct slice in;
    enum parse_status status;
    size_t size;       /* PARSE_OK, PARSE_NOTHING */
    const char *error; /* PARSE_ERROR, without "Protocol error: " */
    struct slice raw;  /* PARSE_OK; left out: the first size bytes of in */
    int argc;          /* PARSE_OK */
    struct slice argv[ARGS_MAX];
};

/* One look at the first n bytes, in a block that ends right behind them. *block must be freed after
 * the view has been used. */
static enum parse_status look(struct parser *p, struct slice in, size_t n, struct request_view *out,
                              char **block)
{
    *block = malloc(n > 0 ? n : 1);
    memcpy(*block, in.p, n);
    return parse_request(p, slice_of(*block, n), out);
}

static void expect_args(const struct row *row, const struct request_view *v, const char *how)
{
    int expected = row->argc < REQUEST_ARGS ? row->argc : REQUEST_ARGS;
    cr_expect(v->argc == row->argc, "%s: argc", how);
    cr_assert(v->nargv == expected, "%s: nargv", how);
    for (int i = 0; i < v->nargv; i++) {
        cr_expect(slice_eq(v->argv[i], row->argv[i]), "%s: argument %d", how, i);
    }
    struct arg_walk walk;
    struct slice arg;
    arg_walk_init(&walk, v);
    for (int i = 0; i < row->argc; i++) {
        cr_assert(arg_walk_next(&walk, &arg), "%s: walk to %d", how, i);
        cr_expect(slice_eq(arg, row->argv[i]), "%s: walked argument %d", how, i);
    }
    cr_expect(!arg_walk_next(&walk, &arg), "%s: walk ends", how);
}

static void expect_outcome(const struct row *row, enum parse_status st, const struct parser *p,
                           struct request_view *v, const char *how)
{
    cr_assert(st == row->status, "%s: status %d, not %d", how, (int)st, (int)row->status);
    if (st == PARSE_OK || st == PARSE_NOTHING) {
        cr_expect(v->size == row->size, "%s: size %zu", how, v->size);
    }
    if (st == PARSE_ERROR) {
        cr_assert(strncmp(p->error, "Protocol error: ", 16) == 0, "%s: %s", how, p->error);
        cr_expect_str_eq(p->error + 16, row->error, "%s: %s", how, p->error);
    }
    if (st == PARSE_OK) {
        struct slice raw = row->raw.p == NULL ? slice_of(row->in.p, row->size) : row->raw;
        cr_expect(slice_eq(v->raw, raw), "%s: raw", how);
        cr_expect((v->inline_blob != NULL) == (row->raw.p != NULL), "%s: blob", how);
        expect_args(row, v, how);
    } else {
        cr_expect_null(v->inline_blob, "%s: blob", how);
    }
    blob_unref(v->inline_blob);
}

/* Feeds more and more of the row's input: first bytes, then step more each time. */
static void feed(const struct row *row, size_t index, size_t first, size_t step)
{
    char how[64];
    snprintf(how, sizeof(how), "row %zu, %zu bytes then %zu", index, first, step);
    struct parser p;
    parser_init(&p);
    struct request_view v;
    for (size_t n = first;; n += step) {
        n = n < row->in.n ? n : row->in.n;
        char *block;
        enum parse_status st = look(&p, row->in, n, &v, &block);
        if (st != PARSE_MORE || n == row->in.n) {
            expect_outcome(row, st, &p, &v, how);
            if (st == PARSE_MORE) {
                cr_expect(parse_wanted(&p) > n, "%s: wanted", how);
            }
            free(block);
            return;
        }
        cr_expect_null(v.inline_blob, "%s", how);
        cr_expect(parse_wanted(&p) > n, "%s: wanted %zu after %zu", how, parse_wanted(&p), n);
        if (row->status == PARSE_OK) {
            cr_expect(parse_wanted(&p) <= row->size, "%s: wanted %zu", how, parse_wanted(&p));
        }
        free(block);
    }
}

static void run(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        feed(&rows[i], i, rows[i].in.n, 1);
        feed(&rows[i], i, 0, 1);
        feed(&rows[i], i, 1, 3);
        for (size_t at = 1; at < rows[i].in.n && rows[i].in.n < 200; at++) {
            feed(&rows[i], i, at, rows[i].in.n);
        }
    }
}

#define RUN(rows) run(rows, ARRAY_LEN(rows))
#define OK(text, ...)                                                                              \
    {                                                                                              \
        .in = SLICE(text), .status = PARSE_OK, .size = sizeof(text) - 1, __VA_ARGS__               \
    }
#define ARGV(n, ...)    .argc = n, .argv = {__VA_ARGS__}
#define REWRITTEN(text) .raw = SLICE(text)
#define NOTHING(text)                                                                              \
    {                                                                                              \
        .in = SLICE(text), .status = PARSE_NOTHING, .size = sizeof(text) - 1                       \
    }
#define MORE(text)                                                                                 \
    {                                                                                              \
        .in = SLICE(text), .status = PARSE_MORE                                                    \
    }
#define ERROR(text, what)                                                                          \
    {                                                                                              \
        .in = SLICE(text), .status = PARSE_ERROR, .error = (what)                                  \
    }

Test(parse, an_array_of_bulk_strings_is_a_view_into_the_input)
{
    static const struct row rows[] = {
        OK("*1\r\n$4\r\nPING\r\n", ARGV(1, SLICE("PING"))),
        OK("*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n",
           ARGV(2, SLICE("GET"), SLICE("key:000000000001"))),
        OK("*2\r\n$0\r\n\r\n$0\r\n\r\n", ARGV(2, SLICE(""), SLICE(""))),
        OK("*3\r\n$3\r\nSET\r\n$3\r\n\r\n\0\r\n$6\r\n$1\r\n*2\r\n",
           ARGV(3, SLICE("SET"), SLICE("\r\n\0"), SLICE("$1\r\n*2"))),
        OK("*1\r\n$101\r\n"
           "0123456789012345678901234567890123456789012345678901234567890123456789"
           "0123456789012345678901234567890\r\n",
           ARGV(1, SLICE("0123456789012345678901234567890123456789012345678901234567890123456789"
                         "0123456789012345678901234567890"))),
    };
    RUN(rows);
}

Test(parse, eight_arguments_are_found_and_more_can_be_walked)
{
    static const struct row rows[] = {
        OK("*8\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n$1\r\ng\r\n"
           "$1\r\nh\r\n",
           ARGV(8, SLICE("a"), SLICE("b"), SLICE("c"), SLICE("d"), SLICE("e"), SLICE("f"),
                SLICE("g"), SLICE("h"))),
        OK("*10\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n$1\r\ng\r\n"
           "$1\r\nh\r\n$2\r\nii\r\n$0\r\n\r\n",
           ARGV(10, SLICE("a"), SLICE("b"), SLICE("c"), SLICE("d"), SLICE("e"), SLICE("f"),
                SLICE("g"), SLICE("h"), SLICE("ii"), SLICE(""))),
    };
    RUN(rows);
}

Test(parse, a_request_ends_where_the_next_one_begins)
{
    struct slice in = SLICE("*1\r\n$1\r\na\r\nPING\r\n\r\n*0\r\n*1\r\n$1\r\nb\r\n*1\r\n$");
    static const enum parse_status want[] = {PARSE_OK,      PARSE_OK, PARSE_NOTHING,
                                             PARSE_NOTHING, PARSE_OK, PARSE_MORE};
    static const size_t sizes[] = {11, 6, 2, 4, 11};
    struct parser p;
    parser_init(&p);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        struct request_view v;
        cr_assert_eq(parse_request(&p, in, &v), want[i], "request %zu", i);
        blob_unref(v.inline_blob);
        if (want[i] != PARSE_MORE) {
            cr_assert_eq(v.size, sizes[i], "request %zu", i);
            in = slice_of(in.p + v.size, in.n - v.size);
        }
    }
}

Test(parse, the_byte_behind_a_carriage_return_is_not_looked_at)
{
    static const struct row rows[] = {
        OK("*1\rx$4\ryPING\r\n", ARGV(1, SLICE("PING"))),
        OK("*1\r\r$4\r$PING\r\n", ARGV(1, SLICE("PING"))),
        OK("*12\r\0$1\r\0aXY$1\r\nb\n\r$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n$1\r\ng\r\n$"
           "1\r\n"
           "h\r\n$1\r\ni\r\n$1\r\nj\r\n$1\r\nk\r\n$1\r\nl\0\0",
           ARGV(12, SLICE("a"), SLICE("b"), SLICE("c"), SLICE("d"), SLICE("e"), SLICE("f"),
                SLICE("g"), SLICE("h"), SLICE("i"), SLICE("j"), SLICE("k"), SLICE("l"))),
        OK("*1\r\n$100\r*"
           "0123456789012345678901234567890123456789012345678901234567890123456789"
           "012345678901234567890123456789$$",
           ARGV(1, SLICE("0123456789012345678901234567890123456789012345678901234567890123456789"
                         "012345678901234567890123456789"))),
        NOTHING("*0\r*"),
    };
    RUN(rows);
}

Test(parse, arrays_of_nothing_hold_no_request)
{
    static const struct row rows[] = {
        NOTHING("*0\r\n"),
        NOTHING("*-1\r\n"),
        NOTHING("*-10\r\n"),
        NOTHING("*-9223372036854775808\r\n"),
    };
    RUN(rows);
}

Test(parse, unfinished_requests_want_more)
{
    static const struct row rows[] = {
        MORE(""),
        MORE("*"),
        MORE("*2"),
        MORE("*2\r"),
        MORE("*2\r\n"),
        MORE("*-1\r"),
        MORE("*x\r"),
        MORE("*123456789012345678901234567890"),
        MORE("*1\r\n$"),
        MORE("*1\r\n$4\r"),
        MORE("*1\r\n$4\r\n"),
        MORE("*1\r\n$4\r\nPING"),
        MORE("*1\r\n$4\r\nPING\r"),
        MORE("*1\r\nx\r"),
        MORE("*1\r\n\r"),
        MORE("*1\r\n$-1\r"),
        MORE("*1\r\n$536870912\r\n"),
        MORE("*2147483647\r\n"),
        MORE("*1024\r\n$1\r\na\r\n"),
        MORE("PING"),
        MORE("PING\r"),
        MORE("\""),
    };
    RUN(rows);
}

Test(parse, a_nul_hides_the_rest_of_a_line)
{
    static const struct row rows[] = {
        MORE("*1\0\r\n$4\r\nPING\r\n"),
        MORE("*1\r\n$4\0\r\nPING\r\n"),
        MORE("*1\r\n\0$4\r\nPING\r\n"),
        MORE("PING\0\r\n"),
        MORE("\0PING\r\n"),
    };
    RUN(rows);
}

Test(parse, a_bad_array_header_is_an_error)
{
    static const struct row rows[] = {
        ERROR("*\r\n", "invalid multibulk length"),
        ERROR("*-\r\n", "invalid multibulk length"),
        ERROR("*-0\r\n", "invalid multibulk length"),
        ERROR("*00\r\n", "invalid multibulk length"),
        ERROR("*01\r\n", "invalid multibulk length"),
        ERROR("*+1\r\n", "invalid multibulk length"),
        ERROR("* 1\r\n", "invalid multibulk length"),
        ERROR("*1 \r\n", "invalid multibulk length"),
        ERROR("*1:\r\n", "invalid multibulk length"),
        ERROR("*/\r\n$4\r\n", "invalid multibulk length"),
        ERROR("*1/\r\n$4\r\n", "invalid multibulk length"),
        ERROR("*123:5\r\n", "invalid multibulk length"),
        ERROR("*1\n$4\nPING\n\r\n", "invalid multibulk length"),
        ERROR("*2147483648\r\n", "invalid multibulk length"),
        ERROR("*99999999999\r\n", "invalid multibulk length"),
        ERROR("*9223372036854775808\r\n", "invalid multibulk length"),
        ERROR("*-9223372036854775809\r\n", "invalid multibulk length"),
        ERROR("*18446744073709551617\r\n", "invalid multibulk length"),
    };
    RUN(rows);
}

Test(parse, a_bad_bulk_length_is_an_error)
{
    static const struct row rows[] = {
        ERROR("*1\r\n$\r\n", "invalid bulk length"),
        ERROR("*1\r\n$-1\r\n", "invalid bulk length"),
        ERROR("*1\r\n$00\r\n\r\n", "invalid bulk length"),
        ERROR("*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
        ERROR("*1\r\n$4a\r\nPING\r\n", "invalid bulk length"),
        ERROR("*1\r\n$:\r\nPING\r\n", "invalid bulk length"),
        ERROR("*1\r\n$4\n\r\nPING\r\n", "invalid bulk length"),
        ERROR("*1\r\n$536870913\r\nPING\r\n", "invalid bulk length"),
        ERROR("*1\r\n$2147483648\r\nPING\r\n", "invalid bulk length"),
        ERROR("*1\r\n$18446744073709551620\r\nPING\r\n", "invalid bulk length"),
        ERROR("*2\r\n$3\r\nGET\r\n$9223372036854775807\r\n", "invalid bulk length"),
    };
    RUN(rows);
}

Test(parse, an_argument_that_is_no_bulk_string_is_an_error)
{
    static const struct row rows[] = {
        ERROR("*1\r\nPING\r\n", "expected '$', got 'P'"),
        ERROR("*1\r\n:1\r\n", "expected '$', got ':'"),
        ERROR("*1\r\n 4\r\n", "expected '$', got ' '"),
        ERROR("*1\r\n*1\r\n$4\r\n", "expected '$', got '*'"),
        ERROR("*2\r\n$3\r\nGET\r\nkey\r\n", "expected '$', got 'k'"),
        ERROR("*2\r\n$3\r\nGETT\r\n$1\r\na\r\n", "expected '$', got ' '"),
    };
    RUN(rows);
}

Test(parse, no_error_text_can_hold_a_control_character)
{
    static const struct row rows[] = {
        ERROR("*1\r\n\r\n+OK\r\n", "expected '$', got ' '"),
        ERROR("*1\r\n\n$4\r\n", "expected '$', got ' '"),
        ERROR("*1\r\n\x1b[2J\r\n", "expected '$', got '?'"),
        ERROR("*1\r\n\x7f\r\n", "expected '$', got '?'"),
        ERROR("*1\r\n\xff\r\n", "expected '$', got '?'"),
    };
    RUN(rows);
}

Test(parse, an_inline_command_is_rewritten_as_an_array)
{
    static const struct row rows[] = {
        OK("PING\r\n", REWRITTEN("*1\r\n$4\r\nPING\r\n"), ARGV(1, SLICE("PING"))),
        OK("PING\n", REWRITTEN("*1\r\n$4\r\nPING\r\n"), ARGV(1, SLICE("PING"))),
        OK(" GET  key \t\r\n", REWRITTEN("*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"),
           ARGV(2, SLICE("GET"), SLICE("key"))),
        OK("$4\r\n", REWRITTEN("*1\r\n$2\r\n$4\r\n"), ARGV(1, SLICE("$4"))),
        OK("a\rb\n", REWRITTEN("*2\r\n$1\r\na\r\n$1\r\nb\r\n"), ARGV(2, SLICE("a"), SLICE("b"))),
        OK("\x80\xff x\n", REWRITTEN("*2\r\n$2\r\n\x80\xff\r\n$1\r\nx\r\n"),
           ARGV(2, SLICE("\x80\xff"), SLICE("x"))),
        OK("a b c d e f g h i jjjjjjjjjj\n",
           REWRITTEN("*10\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n"
                     "$1\r\ng\r\n$1\r\nh\r\n$1\r\ni\r\n$10\r\njjjjjjjjjj\r\n"),
           ARGV(10, SLICE("a"), SLICE("b"), SLICE("c"), SLICE("d"), SLICE("e"), SLICE("f"),
                SLICE("g"), SLICE("h"), SLICE("i"), SLICE("jjjjjjjjjj"))),
    };
    RUN(rows);
}

Test(parse, vertical_tab_and_form_feed_are_blanks_only_between_words)
{
    static const struct row rows[] = {
        OK("\v\fa\vb\fc\v \vd\n", REWRITTEN("*2\r\n$6\r\na\vb\fc\v\r\n$1\r\nd\r\n"),
           ARGV(2, SLICE("a\vb\fc\v"), SLICE("d"))),
        OK("\"a\"\v\"b\"\n", REWRITTEN("*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
           ARGV(2, SLICE("a"), SLICE("b"))),
    };
    RUN(rows);
}

Test(parse, double_quotes_take_escapes)
{
    static const struct row rows[] = {
        OK("\"a b\" \"\"\n", REWRITTEN("*2\r\n$3\r\na b\r\n$0\r\n\r\n"),
           ARGV(2, SLICE("a b"), SLICE(""))),
        OK("\"\\n\\r\\t\\b\\a\\\\\\\"\\q\"\n", REWRITTEN("*1\r\n$8\r\n\n\r\t\b\a\\\"q\r\n"),
           ARGV(1, SLICE("\n\r\t\b\a\\\"q"))),
        OK("\"\\x00\\x4a\\xFf\\x4g\\x\"\n", REWRITTEN("*1\r\n$7\r\n\0J\xffx4gx\r\n"),
           ARGV(1, SLICE("\0J\xffx4gx"))),
        OK("fo\"o b\"\r\n", REWRITTEN("*1\r\n$5\r\nfoo b\r\n"), ARGV(1, SLICE("foo b"))),
        OK("\"it's\"\n", REWRITTEN("*1\r\n$4\r\nit's\r\n"), ARGV(1, SLICE("it's"))),
        OK("a\\nb\n", REWRITTEN("*1\r\n$4\r\na\\nb\r\n"), ARGV(1, SLICE("a\\nb"))),
    };
    RUN(rows);
}

Test(parse, single_quotes_take_only_the_escaped_quote)
{
    static const struct row rows[] = {
        OK("'a b' ''\n", REWRITTEN("*2\r\n$3\r\na b\r\n$0\r\n\r\n"),
           ARGV(2, SLICE("a b"), SLICE(""))),
        OK("'\\'\\n\\x41\\\"'\n", REWRITTEN("*1\r\n$9\r\n'\\n\\x41\\\"\r\n"),
           ARGV(1, SLICE("'\\n\\x41\\\""))),
        OK("x'\"'\n", REWRITTEN("*1\r\n$2\r\nx\"\r\n"), ARGV(1, SLICE("x\""))),
    };
    RUN(rows);
}

Test(parse, unbalanced_quotes_are_an_error)
{
    static const struct row rows[] = {
        ERROR("\"\n", "unbalanced quotes in request"),
        ERROR("'\r\n", "unbalanced quotes in request"),
        ERROR("GET \"abc\r\n", "unbalanced quotes in request"),
        ERROR("\"abc\\\"\n", "unbalanced quotes in request"),
        ERROR("\"abc\\\n", "unbalanced quotes in request"),
        ERROR("'abc\\'\n", "unbalanced quotes in request"),
        ERROR("\"a\"b\n", "unbalanced quotes in request"),
        ERROR("'a'b\n", "unbalanced quotes in request"),
        ERROR("\"a\"'b'\n", "unbalanced quotes in request"),
        ERROR("ok \"\\x4\n", "unbalanced quotes in request"),
    };
    RUN(rows);
}

Test(parse, blank_lines_hold_no_request)
{
    static const struct row rows[] = {
        NOTHING("\n"),
        NOTHING("\r\n"),
        NOTHING(" \t\v\f\r\n"),
        NOTHING("\r\r\n"),
    };
    RUN(rows);
}

/* A line of n times c behind a prefix, then an ending. */
static char *long_line(const char *prefix, char c, size_t n, const char *end, size_t *total)
{
    *total = strlen(prefix) + n + strlen(end);
    char *line = malloc(*total + 1);
    memcpy(line, prefix, strlen(prefix));
    memset(line + strlen(prefix), c, n);
    memcpy(line + strlen(prefix) + n, end, strlen(end) + 1);
    return line;
}

/* Bytes arriving one by one, in one block so that this stays quick. */
static enum parse_status drip(struct parser *p, struct slice in, struct request_view *v)
{
    enum parse_status st = PARSE_MORE;
    for (size_t n = 1; n <= in.n && st == PARSE_MORE; n++) {
        st = parse_request(p, slice_of(in.p, n), v);
        cr_assert(st != PARSE_MORE || parse_wanted(p) > n);
    }
    return st;
}

static void expect_long(const char *prefix, char c, size_t n, const char *end,
                        enum parse_status want, const char *error)
{
    size_t total;
    char *line = long_line(prefix, c, n, end, &total);
    for (int dripping = 0; dripping < 2; dripping++) {
        struct parser p;
        struct request_view v;
        parser_init(&p);
        enum parse_status st = dripping ? drip(&p, slice_of(line, total), &v)
                                        : parse_request(&p, slice_of(line, total), &v);
        cr_expect_eq(st, want, "%s... of %zu: %d", prefix, total, (int)st);
        if (st == PARSE_ERROR && error != NULL) {
            cr_expect_str_eq(p.error, error);
        }
        blob_unref(v.inline_blob);
    }
    free(line);
}

Test(parse, an_inline_command_may_be_64_kib_long)
{
    const char *error = "Protocol error: too big inline request";
    expect_long("", 'a', PARSE_INLINE_MAX - 1, "\n", PARSE_OK, NULL);
    expect_long("", 'a', PARSE_INLINE_MAX, "\n", PARSE_OK, NULL);
    expect_long("", 'a', PARSE_INLINE_MAX + 1, "\n", PARSE_ERROR, error);
    expect_long("", 'a', PARSE_INLINE_MAX, "", PARSE_MORE, NULL);
    expect_long("", 'a', PARSE_INLINE_MAX + 1, "", PARSE_ERROR, error);
    expect_long("", '\0', PARSE_INLINE_MAX + 1, "", PARSE_ERROR, error);
    expect_long("", ' ', PARSE_INLINE_MAX, "\n", PARSE_NOTHING, NULL);
}

Test(parse, a_count_line_may_be_64_kib_long_before_it_is_called_too_long)
{
    const char *header = "Protocol error: too big mbulk count string";
    const char *bulk = "Protocol error: too big bulk count string";
    expect_long("*", '1', PARSE_INLINE_MAX - 1, "", PARSE_MORE, NULL);
    expect_long("*", '1', PARSE_INLINE_MAX, "", PARSE_ERROR, header);
    expect_long("*", '\0', PARSE_INLINE_MAX, "", PARSE_ERROR, header);
    expect_long("*", '1', PARSE_INLINE_MAX - 1, "\r\n", PARSE_ERROR,
                "Protocol error: invalid multibulk length");
    expect_long("*", '1', PARSE_INLINE_MAX - 1, "\r", PARSE_MORE, NULL);
    expect_long("*1\r\n", '1', PARSE_INLINE_MAX, "", PARSE_MORE, NULL);
    expect_long("*1\r\n", '1', PARSE_INLINE_MAX + 1, "", PARSE_ERROR, bulk);
    expect_long("*1\r\n$", '1', PARSE_INLINE_MAX - 1, "\r\n", PARSE_ERROR,
                "Protocol error: invalid bulk length");
    expect_long("*1\r\n", 'x', PARSE_INLINE_MAX, "\r\n", PARSE_ERROR,
                "Protocol error: expected '$', got 'x'");
}

Test(parse, a_long_inline_command_of_short_words_is_rewritten)
{
    const size_t words = 32768;
    char *line = malloc(2 * words);
    for (size_t i = 0; i < words; i++) {
        line[2 * i] = 'w';
        line[2 * i + 1] = i == words - 1 ? '\n' : ' ';
    }
    struct parser p;
    struct request_view v;
    parser_init(&p);
    cr_assert_eq(parse_request(&p, slice_of(line, 2 * words), &v), PARSE_OK);
    cr_assert_eq(v.argc, (int64_t)words);
    cr_assert_eq(v.raw.n, strlen("*32768\r\n") + words * strlen("$1\r\nw\r\n"));
    struct arg_walk walk;
    struct slice arg;
    size_t walked = 0;
    for (arg_walk_init(&walk, &v); arg_walk_next(&walk, &arg); walked++) {
        cr_assert(slice_eq(arg, SLICE("w")));
    }
    cr_assert_eq(walked, words);
    blob_unref(v.inline_blob);
    free(line);
}

Test(parse, an_inline_command_outlives_its_input)
{
    char line[] = "ECHO hi\r\n";
    struct parser p;
    struct request_view v;
    parser_init(&p);
    cr_assert_eq(parse_request(&p, slice_of(line, sizeof(line) - 1), &v), PARSE_OK);
    memset(line, 'x', sizeof(line));
    cr_assert(slice_eq(v.argv[1], SLICE("hi")));
    cr_assert_eq(v.raw.p, v.inline_blob->p);
    cr_assert_eq(atomic_load(&v.inline_blob->refs), 1);
    blob_unref(v.inline_blob);
}

Test(parse, without_memory_an_inline_command_cannot_be_rewritten)
{
    struct parser p;
    struct request_view v;
    parser_init(&p);
    mem_fail_after(0);
    enum parse_status array = parse_request(&p, SLICE("*1\r\n$1\r\na\r\n"), &v);
    enum parse_status blank = parse_request(&p, SLICE("\r\n"), &v);
    enum parse_status line = parse_request(&p, SLICE("PING\r\n"), &v);
    mem_fail_after(-1);
    cr_assert_eq(array, PARSE_OK, "only inline commands allocate");
    cr_assert_eq(blank, PARSE_NOTHING);
    cr_assert_eq(line, PARSE_NO_MEMORY);
    cr_assert_null(v.inline_blob);
    cr_assert_eq(parse_request(&p, SLICE("PING\r\n"), &v), PARSE_OK);
    blob_unref(v.inline_blob);
}

Test(parse, after_an_error_the_parser_is_ready_and_still_tells_the_error)
{
    struct parser p;
    struct request_view v;
    parser_init(&p);
    struct slice bad = SLICE("*2\r\n$1\r\na\r\nb\r\n");
    cr_assert_eq(parse_request(&p, slice_of(bad.p, bad.n - 2), &v), PARSE_MORE);
    cr_assert_eq(parse_request(&p, bad, &v), PARSE_ERROR);
    cr_assert_eq(parse_wanted(&p), 0);
    cr_assert_eq(parse_request(&p, SLICE("*1\r\n$1\r\nc\r\n"), &v), PARSE_OK);
    cr_assert(slice_eq(v.argv[0], SLICE("c")));
    cr_assert_str_eq(p.error, "Protocol error: expected '$', got 'b'");
}

Test(parse, an_announced_argument_is_wanted_in_full)
{
    static const struct {
        struct slice in;
        size_t wanted;
    } rows[] = {
        {SLICE("*2\r\n$3\r\nGET\r\n$1000\r\nab"), 4 + 9 + 7 + 1000 + 2},
        {SLICE("*1\r\n$536870912\r\n"), 4 + 12 + (size_t)PARSE_BULK_MAX + 2},
        {SLICE("*1\r\n$0\r\n\r"), 10},
        {SLICE("*2147483647\r\n"), 13 + 6},
        {SLICE("*2147483647\r\n$1\r\na\r\n$"), 13 + 7 + 6},
        {SLICE("*"), 4},
        {SLICE("*12"), 4},
        {SLICE("*123"), 5},
        {SLICE("P"), 2},
        {SLICE(""), 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct parser p;
        struct request_view v;
        parser_init(&p);
        cr_assert_eq(parse_request(&p, rows[i].in, &v), PARSE_MORE, "row %zu", i);
        cr_expect_eq(parse_wanted(&p), rows[i].wanted, "row %zu: %zu", i, parse_wanted(&p));
    }
}

Test(parse, an_open_request_shows_how_much_was_announced)
{
    struct parser p;
    struct request_view v;
    parser_init(&p);
    cr_assert_eq(parse_request(&p, SLICE("*"), &v), PARSE_MORE);
    cr_assert_eq(p.args_left, -1);
    cr_assert_eq(parse_request(&p, SLICE("*11\r\n$1\r\na\r\n$20000\r\nxy"), &v), PARSE_MORE);
    cr_assert_eq(p.args, 11);
    cr_assert_eq(p.args_left, 10);
    cr_assert_eq(p.bulk_left, 20000);
    cr_assert_eq(p.pos, 5 + 7 + 8);
}

/* ---- The usual GET --------------------------------------------------------------------------- */

/* Whatever parse_get takes, parse_request takes for the same request; and it takes the usual form. */
Test(parse, the_usual_get_is_what_parse_request_says_it_is)
{
    static const struct {
        const char *text;
        bool usual;
    } requests[] = {
        {"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", true},
        {"*2\r\n$3\r\nget\r\n$1\r\nk\r\n", true},
        {"*2\r\n$3\r\nGeT\r\n$10\r\n0123456789\r\n", true},
        {"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n", true},
        {"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$01\r\nk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$-1\r\nk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$1\r\nkk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$1\r\nk\rx", false},
        {"*2\r\n$3\r\nGETX$1\r\nk\r\n", false},
        {"*2\r\n$3\r\nSET\r\n$1\r\nk\r\n", false},
        {"*2\r\n$3\r\n'ET\r\n$1\r\nk\r\n", false},
        {"*3\r\n$3\r\nGET\r\n$1\r\nk\r\n", false},
        {"*2\n\n$3\r\nGET\r\n$1\r\nk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n:1\r\nk\r\n", false},
        {"GET k\r\n                       ", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        struct slice in = slice_str(requests[i].text);
        struct slice key = SLICE("untouched");
        struct parser p;
        struct request_view view;
        size_t n = parse_get(in, &key);
        cr_expect_eq(n, requests[i].usual ? in.n : 0, "%zu: %zu", i, n);
        if (n == 0) {
            continue;
        }
        parser_init(&p);
        cr_assert(parse_request(&p, in, &view) == PARSE_OK);
        cr_expect_eq(view.size, n);
        cr_expect(slice_eq(view.argv[1], key));
        for (size_t cut = 0; cut < in.n; cut++) { /* exactly so much memory, for ASan */
            char *part = mem_alloc(cut + 1);
            memcpy(part, in.p, cut);
            cr_expect_eq(parse_get(slice_of(part, cut), &key), 0, "%zu of %zu", cut, i);
            mem_free(part);
        }
    }
}

Test(parse, a_key_of_up_to_99_bytes_is_usual)
{
    char text[256];
    char name[128];
    for (size_t n = 1; n <= 120; n++) {
        struct slice key;
        memset(name, 'k', n);
        name[n] = '\0';
        int size = snprintf(text, sizeof(text), "*2\r\n$3\r\nGET\r\n$%zu\r\n%s\r\nrest", n, name);
        size_t got = parse_get(slice_str(text), &key);
        cr_expect_eq(got, n < 100 ? (size_t)size - 4 : 0, "%zu", n);
        cr_expect(got == 0 || (key.n == n && memcmp(key.p, name, n) == 0));
    }
}
