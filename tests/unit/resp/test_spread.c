/* SPDX-License-Identifier: Apache-2.0
 *
 * test_spread.c: what becomes of a request that concerns several nodes, and of their replies.
 */
#include "../../../resp/spread.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static struct chain chain;

static const char *text(void)
{
    static char bytes[4096];
    size_t n = chain.bytes;
    cr_assert_lt(n, sizeof(bytes));
    chain_take(&chain, bytes);
    bytes[n] = '\0';
    return bytes;
}

static struct request_view view_of(const char *line)
{
    struct request_view view;
    struct parser parser;
    parser_init(&parser);
    cr_assert_eq(parse_request(&parser, slice_str(line), &view), PARSE_OK);
    return view;
}

/* The first character decides. */
static uint16_t slot_of(struct slice key)
{
    return (unsigned char)key.p[0];
}

static enum cmd_spread spread_named(const char *line)
{
    struct request_view view = view_of(line);
    cmd_init();
    enum cmd_spread how = cmd_spread(cmd_find(&view));
    blob_unref(view.inline_blob);
    return how;
}

Test(spread, rows_say_how)
{
    cr_expect_eq(spread_named("MGET a b\r\n"), SPREAD_GETS);
    cr_expect_eq(spread_named("unlink a b\r\n"), SPREAD_COUNT);
    cr_expect_eq(spread_named("SCRIPT EXISTS a\r\n"), SPREAD_EACH_LEAST);
    cr_expect_eq(spread_named("SCRIPT nothing\r\n"), SPREAD_NO);
    cr_expect_eq(spread_named("GET a\r\n"), SPREAD_NO);
    cr_expect_eq(spread_named("NOSUCH\r\n"), SPREAD_NO);
}

static void expect_split(const char *line, enum cmd_spread how, size_t parts, const char *want)
{
    struct request_view view = view_of(line);
    size_t n = 77;
    cr_assert(spread_split(how, &view, slot_of, &chain, &n));
    cr_expect_eq(n, parts, "%s", line);
    cr_expect_str_eq(text(), want);
    blob_unref(view.inline_blob);
}

Test(spread, keys_of_one_slot_stay_together_in_their_order)
{
    expect_split("DEL b1 a1 b2 a2\r\n", SPREAD_COUNT, 2,
                 "*3\r\n$3\r\nDEL\r\n$2\r\na1\r\n$2\r\na2\r\n"
                 "*3\r\n$3\r\nDEL\r\n$2\r\nb1\r\n$2\r\nb2\r\n");
    expect_split("MSET b 1 a 2 b 3\r\n", SPREAD_SETS, 2,
                 "*3\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n2\r\n"
                 "*5\r\n$4\r\nMSET\r\n$1\r\nb\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n3\r\n");
    expect_split("MGET b a\r\n", SPREAD_GETS, 2,
                 "*2\r\n$3\r\nGET\r\n$1\r\nb\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
}

Test(spread, requests_with_more_arguments_than_a_view_shows_are_split_whole)
{
    char line[8000] = "EXISTS";
    for (size_t i = 0; i < 1000; i++) {
        strcat(line, i % 2 == 0 ? " a" : " b");
    }
    strcat(line, "\r\n");
    struct request_view view = view_of(line);
    size_t n = 0;
    cr_assert(spread_split(SPREAD_COUNT, &view, slot_of, &chain, &n));
    cr_expect_eq(n, 2);
    cr_expect_eq(chain.bytes, 2 * (strlen("*501\r\n$6\r\nEXISTS\r\n") + 500 * 7));
    chain_fini(&chain);
    blob_unref(view.inline_blob);
}

static void expect_join(enum cmd_spread how, const char *replies, size_t n, const char *want)
{
    struct slice parts[8];
    cr_assert(spread_replies(slice_str(replies), parts, n), "%s", replies);
    cr_assert(spread_join(how, parts, n, 1, false, &chain));
    cr_expect_str_eq(text(), want);
}

Test(spread, values_are_joined_in_order_and_a_wrong_type_is_nil)
{
    expect_join(SPREAD_GETS, "$1\r\na\r\n-WRONGTYPE no\r\n$-1\r\n", 3,
                "*3\r\n$1\r\na\r\n$-1\r\n$-1\r\n");
    struct slice wrong[] = {SLICE("-WRONGTYPE no\r\n")};
    cr_assert(spread_join(SPREAD_GETS, wrong, 1, 0, true, &chain));
    cr_expect_str_eq(text(), "*1\r\n_\r\n");
}

Test(spread, the_first_error_is_the_error_of_the_whole)
{
    expect_join(SPREAD_GETS, "$1\r\na\r\n-ERR 1\r\n-ERR 2\r\n", 3, "-ERR 1\r\n");
    expect_join(SPREAD_COUNT, ":1\r\n-CLUSTERDOWN x\r\n", 2, "-CLUSTERDOWN x\r\n");
    expect_join(SPREAD_FIRST, "+OK\r\n-ERR 1\r\n", 2, "-ERR 1\r\n");
    expect_join(SPREAD_LIST, "*0\r\n!5\r\nERR 1\r\n", 2, "!5\r\nERR 1\r\n");
    expect_join(SPREAD_SETS, "-WRONGTYPE x\r\n+OK\r\n", 2, "-WRONGTYPE x\r\n");
}

Test(spread, integers_are_added_or_the_least_is_taken)
{
    expect_join(SPREAD_COUNT, ":1\r\n:0\r\n:20\r\n", 3, ":21\r\n");
    expect_join(SPREAD_SUM, ":9223372036854775807\r\n:1\r\n", 2, ":9223372036854775807\r\n");
    expect_join(SPREAD_LEAST, ":7\r\n:3\r\n:5\r\n", 3, ":3\r\n");
    expect_join(SPREAD_SUM, "+odd\r\n:1\r\n", 2, "+odd\r\n");
}

Test(spread, lists_are_put_one_behind_the_other)
{
    expect_join(SPREAD_LIST, "*2\r\n$1\r\na\r\n:1\r\n*0\r\n*1\r\n*1\r\n+x\r\n", 3,
                "*3\r\n$1\r\na\r\n:1\r\n*1\r\n+x\r\n");
    expect_join(SPREAD_LIST, "+OK\r\n+OK\r\n", 2, "+OK\r\n");
    expect_join(SPREAD_UNION, "*2\r\n$1\r\nb\r\n$1\r\na\r\n*2\r\n$1\r\na\r\n$2\r\nab\r\n", 2,
                "*3\r\n$1\r\na\r\n$1\r\nb\r\n$2\r\nab\r\n");
    expect_join(SPREAD_UNION, "*0\r\n*0\r\n", 2, "*0\r\n");
}

Test(spread, arrays_are_joined_place_by_place)
{
    expect_join(SPREAD_EACH_LEAST, "*3\r\n:1\r\n:0\r\n:1\r\n*3\r\n:1\r\n:1\r\n:0\r\n", 2,
                "*3\r\n:1\r\n:0\r\n:0\r\n");
    expect_join(SPREAD_EACH_SUM,
                "*4\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:0\r\n*4\r\n$1\r\na\r\n:2\r\n"
                "$1\r\nb\r\n:5\r\n",
                2, "*4\r\n$1\r\na\r\n:3\r\n$1\r\nb\r\n:5\r\n");
    expect_join(SPREAD_EACH_LEAST, "*1\r\n:1\r\n*0\r\n", 2, "*1\r\n:1\r\n");
}

Test(spread, one_that_is_not_null_is_picked)
{
    expect_join(SPREAD_PICK, "$-1\r\n$-1\r\n$1\r\na\r\n", 3, "$1\r\na\r\n");
    expect_join(SPREAD_PICK, "_\r\n$1\r\nb\r\n$1\r\na\r\n", 3, "$1\r\nb\r\n");
    expect_join(SPREAD_PICK, "$-1\r\n$-1\r\n", 2, "$-1\r\n");
}

Test(spread, what_are_not_whole_replies_is_refused)
{
    struct slice parts[4];
    cr_expect_not(spread_replies(SLICE(":1\r\n:2"), parts, 2));
    cr_expect_not(spread_replies(SLICE(":1\r\n"), parts, 2));
    cr_expect_not(spread_replies(SLICE(":1\r\n:2\r\n"), parts, 1));
    cr_expect_not(spread_replies(SLICE("*2\r\n:1\r\n"), parts, 1));
    cr_expect_not(spread_replies(SLICE("*9223372036854775807\r\n:1\r\n"), parts, 1));
    cr_expect_not(spread_replies(SLICE("what"), parts, 1));
}

/* ---- SCAN ---------------------------------------------------------------------------------- */

Test(spread, cursor_names_the_node_and_survives_the_way)
{
    struct slice reply = SLICE("*2\r\n$2\r\n17\r\n*1\r\n$1\r\na\r\n");
    struct spread_scan scan = {.node = 8190};
    cr_assert(spread_scan_next(reply, &scan.cursor));
    cr_expect_eq(scan.cursor, 17);
    cr_assert(spread_scan_reply(reply, &scan, &chain));
    cr_expect_str_eq(text(), "*2\r\n$6\r\n147455\r\n*1\r\n$1\r\na\r\n");
    cr_assert(spread_scan_read(SLICE("147455"), &scan));
    cr_expect_not(scan.begins);
    cr_expect_eq(scan.node, 8190);
    cr_expect_eq(scan.cursor, 17);
    cr_assert(spread_scan_reply(reply, NULL, &chain));
    cr_expect_str_eq(text(), "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n");
}

Test(spread, zero_begins_and_what_is_no_cursor_is_refused)
{
    struct spread_scan scan;
    cr_assert(spread_scan_read(SLICE("0"), &scan));
    cr_expect(scan.begins);
    cr_expect_eq(scan.cursor, 0);
    cr_expect_not(spread_scan_read(SLICE(""), &scan));
    cr_expect_not(spread_scan_read(SLICE("-1"), &scan));
    cr_expect_not(spread_scan_read(SLICE("1x"), &scan));
    cr_expect_not(spread_scan_read(SLICE("18446744073709551616"), &scan));
    cr_expect_not(spread_scan_read(SLICE("8192"), &scan)); /* no node */
}

Test(spread, options_of_scan_pass_through)
{
    struct request_view view = view_of("SCAN 147455 MATCH x* COUNT 9\r\n");
    cr_assert(spread_scan_request(&view, 17, &chain));
    cr_expect_str_eq(text(), "*6\r\n$4\r\nSCAN\r\n$2\r\n17\r\n$5\r\nMATCH\r\n$2\r\nx*\r\n"
                             "$5\r\nCOUNT\r\n$1\r\n9\r\n");
    blob_unref(view.inline_blob);
}

Test(spread, cursor_that_does_not_fit_is_an_error_and_no_loop)
{
    struct slice reply = SLICE("*2\r\n$20\r\n18446744073709551615\r\n*0\r\n");
    struct spread_scan scan = {.node = 1};
    cr_assert(spread_scan_next(reply, &scan.cursor));
    cr_assert(spread_scan_reply(reply, &scan, &chain));
    cr_expect_eq(text()[0], '-');
    uint64_t cursor;
    cr_expect_not(spread_scan_next(SLICE("-ERR x\r\n"), &cursor));
    cr_expect_not(spread_scan_next(SLICE("*2\r\n$1\r\nx\r\n*0\r\n"), &cursor));
}
