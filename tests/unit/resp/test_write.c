/* SPDX-License-Identifier: Apache-2.0
 *
 * test_write.c: replies and commands, byte for byte in both protocol versions, and what happens
 * when memory is out. Commands are also read back by the parser.
 */
#include "../../../resp/write.h"

#include "../../../conf/mem.h"
#include "../../../resp/parse.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* Compares what is queued and empties the chain. */
static void expect_bytes(struct chain *c, struct slice want)
{
    struct iovec iov[1];
    cr_assert_eq(chain_iov(c, iov, 1), 1);
    cr_expect(slice_eq(slice_of(iov[0].iov_base, iov[0].iov_len), want), "got %.*s",
              (int)iov[0].iov_len, (const char *)iov[0].iov_base);
    cr_expect_eq(c->bytes, want.n);
    chain_fini(c);
}

static const struct {
    int64_t n;
    const char *text;
} numbers[] = {
    {0, "0"},
    {9, "9"},
    {10, "10"},
    {-1, "-1"},
    {1234567, "1234567"},
    {INT64_MAX, "9223372036854775807"},
    {INT64_MIN, "-9223372036854775808"},
};

Test(write, a_header_is_type_number_and_crlf)
{
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        char got[RESP_HEADER_MAX + 1];
        char want[RESP_HEADER_MAX + 8];
        memset(got, '#', sizeof(got));
        int n = snprintf(want, sizeof(want), "$%s\r\n", numbers[i].text);
        cr_assert_leq(n, RESP_HEADER_MAX);
        cr_expect_eq(resp_header(got, '$', numbers[i].n), (size_t)n);
        cr_expect(memcmp(got, want, (size_t)n) == 0, "%s", numbers[i].text);
        cr_expect_eq(got[n], '#', "nothing behind it is touched");
    }
}

Test(write, integers_have_all_their_digits)
{
    struct chain c;
    chain_init(&c);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        char want[RESP_HEADER_MAX + 8];
        snprintf(want, sizeof(want), ":%s\r\n", numbers[i].text);
        cr_assert(resp_integer(&c, numbers[i].n));
        expect_bytes(&c, slice_str(want));
    }
}

Test(write, a_status_is_one_line)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_status(&c, "OK"));
    expect_bytes(&c, SLICE("+OK\r\n"));
    cr_assert(resp_status(&c, ""));
    expect_bytes(&c, SLICE("+\r\n"));
    cr_assert(resp_status(&c, "a\r\n+b"));
    expect_bytes(&c, SLICE("+a  +b\r\n"));
}

Test(write, an_error_is_one_line_whatever_its_text)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_error(&c, "ERR no"));
    expect_bytes(&c, SLICE("-ERR no\r\n"));
    cr_assert(resp_error(&c, "ERR a\r\n+OK\r\n"));
    expect_bytes(&c, SLICE("-ERR a  +OK  \r\n"));
}

Test(write, a_formatted_error_is_one_line_whatever_its_arguments)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_errorf(&c, "ERR unknown command '%.*s', %d", 3, "f\nobar", 7));
    expect_bytes(&c, SLICE("-ERR unknown command 'f o', 7\r\n"));
    cr_assert(resp_errorf(&c, "%s", ""));
    expect_bytes(&c, SLICE("-\r\n"));
}

Test(write, a_formatted_error_may_be_long)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_errorf(&c, "ERR %020000d", 5));
    cr_assert_eq(c.bytes, 1 + 4 + 20000 + 2);
    struct iovec iov[1];
    cr_assert_eq(chain_iov(&c, iov, 1), 1);
    const char *p = iov[0].iov_base;
    cr_assert(memcmp(p + c.bytes - 4, "05\r\n", 4) == 0);
    chain_fini(&c);
}

Test(write, a_formatted_error_beyond_int_is_refused)
{
    struct chain c;
    chain_init(&c);
    volatile int width = INT_MAX; /* a constant would be refused by the compiler */
    cr_assert(!resp_errorf(&c, "ERR %*d", width, 1));
    cr_assert_eq(c.memory, 0);
}

Test(write, a_bulk_string_may_hold_any_bytes)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_bulk(&c, SLICE("a\r\n\0b")));
    expect_bytes(&c, SLICE("$5\r\na\r\n\0b\r\n"));
    cr_assert(resp_bulk(&c, slice_of(NULL, 0)));
    expect_bytes(&c, SLICE("$0\r\n\r\n"));
}

Test(write, a_large_bulk_string_is_written_whole)
{
    enum { SIZE = 100 * 1000 };
    char *p = malloc(SIZE);
    memset(p, 'v', SIZE);
    struct chain c;
    chain_init(&c);
    cr_assert(resp_bulk(&c, slice_of(p, SIZE)));
    cr_assert_eq(c.bytes, strlen("$100000\r\n") + SIZE + 2);
    chain_fini(&c);
    free(p);
}

Test(write, null_depends_on_the_protocol)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_null(&c, false));
    expect_bytes(&c, SLICE("$-1\r\n"));
    cr_assert(resp_null(&c, true));
    expect_bytes(&c, SLICE("_\r\n"));
}

Test(write, an_array_header_counts_its_elements)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_array(&c, 12));
    expect_bytes(&c, SLICE("*12\r\n"));
}

Test(write, a_map_is_a_flat_array_in_the_older_protocol)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_map(&c, 7, false));
    expect_bytes(&c, SLICE("*14\r\n"));
    cr_assert(resp_map(&c, 7, true));
    expect_bytes(&c, SLICE("%7\r\n"));
}

Test(write, a_set_is_an_array_in_the_older_protocol)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_set(&c, 7, false));
    expect_bytes(&c, SLICE("*7\r\n"));
    cr_assert(resp_set(&c, 7, true));
    expect_bytes(&c, SLICE("~7\r\n"));
}

Test(write, a_text_is_a_bulk_string_in_the_older_protocol)
{
    struct chain c;
    chain_init(&c);
    cr_assert(resp_verbatim(&c, SLICE("a\r\nb"), false));
    expect_bytes(&c, SLICE("$4\r\na\r\nb\r\n"));
    cr_assert(resp_verbatim(&c, SLICE("a\r\nb"), true));
    expect_bytes(&c, SLICE("=8\r\ntxt:a\r\nb\r\n"));
    cr_assert(resp_verbatim(&c, SLICE(""), false));
    expect_bytes(&c, SLICE("$0\r\n\r\n"));
    cr_assert(resp_verbatim(&c, SLICE(""), true));
    expect_bytes(&c, SLICE("=4\r\ntxt:\r\n"));
    cr_assert(resp_verbatim_begin(&c, 10, false));
    expect_bytes(&c, SLICE("$10\r\n"));
    cr_assert(resp_verbatim_begin(&c, 10, true));
    expect_bytes(&c, SLICE("=14\r\ntxt:"));
}

Test(write, a_command_is_an_array_of_bulk_strings)
{
    struct chain c;
    chain_init(&c);
    const struct slice argv[] = {SLICE("SET"), SLICE("key"), SLICE(""), SLICE("1234567890")};
    cr_assert(resp_command(&c, ARRAY_LEN(argv), argv));
    expect_bytes(&c, SLICE("*4\r\n$3\r\nSET\r\n$3\r\nkey\r\n$0\r\n\r\n$10\r\n1234567890\r\n"));
}

Test(write, a_command_is_what_the_parser_reads)
{
    struct slice argv[200];
    char *large = malloc(50000);
    memset(large, '\r', 50000);
    for (size_t i = 0; i < ARRAY_LEN(argv); i++) {
        argv[i] = slice_of(large, i * i);
    }
    struct chain c;
    chain_init(&c);
    cr_assert(resp_command(&c, ARRAY_LEN(argv), argv));
    struct iovec iov[2];
    cr_assert_eq(chain_iov(&c, iov, 2), 1);
    struct parser p;
    struct request_view v;
    parser_init(&p);
    cr_assert_eq(parse_request(&p, slice_of(iov[0].iov_base, iov[0].iov_len), &v), PARSE_OK);
    cr_assert_eq(v.size, c.bytes);
    cr_assert_eq(v.argc, ARRAY_LEN(argv));
    struct arg_walk walk;
    arg_walk_init(&walk, &v);
    for (size_t i = 0; i < ARRAY_LEN(argv); i++) {
        struct slice arg;
        cr_assert(arg_walk_next(&walk, &arg));
        cr_assert(slice_eq(arg, argv[i]), "argument %zu", i);
    }
    chain_fini(&c);
    free(large);
}

Test(write, lengths_that_cannot_be_summed_are_refused)
{
    struct chain c;
    chain_init(&c);
    const struct slice argv[] = {{"x", SIZE_MAX / 2}, {"y", SIZE_MAX / 2}, {"z", 100}};
    cr_assert(!resp_bulk(&c, slice_of("x", SIZE_MAX)));
    cr_assert(!resp_bulk(&c, slice_of("x", SIZE_MAX - RESP_HEADER_MAX)));
    cr_assert(!resp_command(&c, 1, argv));
    cr_assert(!resp_command(&c, ARRAY_LEN(argv), argv));
    cr_assert_eq(c.memory, 0);
}

static bool write_everything(struct chain *c, int which)
{
    const struct slice argv[] = {SLICE("GET"), SLICE("key")};
    switch (which) {
    case 0:
        return resp_status(c, "OK");
    case 1:
        return resp_error(c, "ERR x");
    case 2:
        return resp_errorf(c, "ERR %d", 1);
    case 3:
        return resp_integer(c, 1);
    case 4:
        return resp_bulk(c, SLICE("abc"));
    case 5:
        return resp_null(c, false);
    case 6:
        return resp_array(c, 1);
    case 7:
        return resp_map(c, 1, true);
    case 8:
        return resp_set(c, 1, true);
    case 9:
        return resp_verbatim(c, SLICE("abc"), true);
    case 10:
        return resp_verbatim(c, SLICE("abc"), false);
    case 11:
        return resp_verbatim_begin(c, 3, true);
    default:
        return resp_command(c, ARRAY_LEN(argv), argv);
    }
}

Test(write, without_memory_nothing_is_queued)
{
    for (int which = 0; which < 13; which++) {
        struct chain c;
        chain_init(&c);
        mem_fail_after(0);
        bool empty = write_everything(&c, which);
        mem_fail_after(-1);
        cr_expect(!empty, "function %d", which);
        cr_expect(c.bytes == 0 && c.memory == 0, "function %d", which);

        /* Fill the first segment, so that the next piece needs another one. */
        char *at = chain_reserve(&c, 400);
        cr_assert_not_null(at);
        memset(at, 'x', 400);
        chain_commit(&c, 400);
        while (c.bytes < 456) {
            cr_assert(chain_append(&c, SLICE("x")));
        }
        size_t bytes = c.bytes;
        mem_fail_after(0);
        bool full = write_everything(&c, which);
        mem_fail_after(-1);
        cr_expect(!full, "function %d", which);
        cr_expect_eq(c.bytes, bytes, "function %d", which);
        chain_fini(&c);
    }
}
