/* SPDX-License-Identifier: Apache-2.0
 *
 * test_relay.c: the sentences of frame.h about what is nested: aggregates and pushes, what is refused
 * inside them, their limits, and memory that runs out. Most cases are rows: an input, cut in several
 * ways, must give the same bytes, replies and verdict.
 */
#include "reply_sink.h"

Test(relay, nested_replies_pass_byte_for_byte_however_they_are_cut)
{
    static const struct good_row rows[] = {
        {"*0\r\n", 1},
        {"%0\r\n", 1},
        {"~0\r\n", 1},
        {"*1\r\n*0\r\n", 1},
        {"*3\r\n$1\r\na\r\n$-1\r\n$0\r\n\r\n", 1},
        {"*4\r\n*-1\r\n_\r\n$-1\r\n*0\r\n", 1},
        {"*2\r\n:-9223372036854775808\r\n:9223372036854775807\r\n", 1},
        {"*6\r\n,3.0\r\n,3\r\n,-inf\r\n,inf\r\n,nan\r\n,1.0000000000000000e-10\r\n", 1},
        {"*2\r\n#t\r\n#f\r\n", 1},
        {"*2\r\n(123456789012345678901234567890\r\n(-5\r\n", 1},
        {"*1\r\n=15\r\ntxt:Some string\r\n", 1},
        {"*3\r\n+status\r\n-ERR inner\r\n+\r\n", 1},
        {"%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n$1\r\nk\r\n~2\r\n:1\r\n:2\r\n", 1},
        {"~3\r\n$1\r\na\r\n~0\r\n%0\r\n", 1},
        {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", 1},
        {"*2\r\n:1\r\n:2\r\n+OK\r\n*1\r\n$1\r\na\r\n$3\r\nabc\r\n%1\r\n:1\r\n_\r\n:9\r\n", 6},
        {"*1\r\n:1\r\n*1\r\n:2\r\n*-1\r\n*0\r\n*1\r\n*-1\r\n", 5},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

Test(relay, an_aggregate_does_not_tell_its_size)
{
    struct sink *s = sink_open();
    cr_assert(feed_text(s, "*1\r\n:1\r\n%0\r\n~0\r\n*0\r\n"));
    cr_assert_eq(s->nreplies, 4);
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(s->replies[i].size, -1);
    }
    sink_close(s);
}

Test(relay, elements_of_an_aggregate_are_handed_on_before_it_is_whole)
{
    struct sink *s = sink_open();
    cr_assert(feed_text(s, "*3\r\n$3\r\nabc\r\n$4\r\nde"));
    cr_assert_eq(s->n, strlen("*3\r\n$3\r\nabc\r\n"));
    cr_assert(!s->replies[0].whole);
    cr_assert(framer_is_inside(s->framer));
    cr_assert(feed_text(s, "fg\r\n:1\r\n"));
    cr_assert(s->replies[0].whole);
    sink_close(s);
}

Test(relay, nested_bulks_of_every_size_around_the_feed_sizes_stay_exact)
{
    static const size_t sizes[] = {0,    1,    100,  503,  504,  505,  1023, 1024, 2047, 4080, 4089,
                                   4090, 4095, 4096, 4097, 4098, 4200, 8191, 8192, 9000, 70000};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct slice in = bulk_between("*3\r\n:1\r\n", sizes[i], "%1\r\n+a\r\n_\r\n+behind\r\n");
        check_good(in, 2, NULL, 0);
        check_good(in, 2, NULL, 1);
        check_good(in, 2, NULL, 50);
        check_good(in, 2, NULL, 5000);
        free((void *)(uintptr_t)in.p);
        in = bulk_between("*2\r\n:1\r\n", sizes[i], "*-1\r\n"); /* last of its reply */
        check_good(in, 2, NULL, 0);
        check_good(in, 2, NULL, 1);
        check_good(in, 2, NULL, 777);
        free((void *)(uintptr_t)in.p);
    }
}

Test(relay, a_large_nested_bulk_is_handed_on_as_it_arrives)
{
    struct sink *s = sink_open();
    cr_assert(feed_text(s, "*2\r\n$5000\r\nabc"));
    cr_assert_eq(s->n, strlen("*2\r\n$5000\r\nabc"));
    sink_close(s);
}

Test(relay, a_large_verbatim_string_keeps_its_type)
{
    char in[6000] = "*1\r\n=5000\r\ntxt:";
    size_t at = strlen(in);
    memset(in + at, 'v', 4996);
    memcpy(in + at + 4996, "\r\n", 3);
    check_good(slice_str(in), 1, NULL, 0);
    check_good(slice_str(in), 1, NULL, 1);
}

Test(relay, a_long_array_of_small_elements_is_exact_and_in_small_pieces)
{
    size_t n = 20000;
    char *p = malloc(n * 40);
    size_t at = (size_t)sprintf(p, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        at += (size_t)sprintf(p + at, i % 3 == 0 ? ":%zu\r\n" : "$6\r\n%06zu\r\n", i);
    }
    check_good(slice_of(p, at), 1, NULL, 0);
    check_good(slice_of(p, at), 1, NULL, 900);
    struct sink *s = sink_open();
    cr_assert(feed(s, p, at));
    cr_assert_leq(s->largest, 8192);
    cr_assert_gt(s->replies[0].pieces, 10);
    sink_close(s);
    free(p);
}

Test(relay, many_short_arrays_in_one_input_are_told_apart)
{
    size_t n = 3000;
    char *p = malloc(n * 40);
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        at += (size_t)sprintf(p + at, i % 5 == 4 ? "+OK\r\n" : "*2\r\n$3\r\nabc\r\n:%zu\r\n", i);
    }
    check_good(slice_of(p, at), n, NULL, 0);
    check_good(slice_of(p, at), n, NULL, 33);
    check_good(slice_of(p, at), n, NULL, 4096);
    free(p);
}

Test(relay, nonsense_inside_an_aggregate_is_refused_with_a_reason)
{
    static const struct bad_row rows[] = {
        {"*1\r\nhello\r\n", "unknown type byte inside a reply"},
        {"*1\r\n>1\r\n+a\r\n", "push inside a reply"},
        {">1\r\n>1\r\n+a\r\n", "push inside a reply"},
        {">1\r\n>3\r\n+message\r\n+c\r\n+m\r\n", "push inside a reply"},
        {"*2\r\n>0\r\n:1\r\n", "push inside a reply"},
        {"*1\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n", "push inside a reply"},
        {"*1\r\n>1\r\n:1\r\n", "push inside a reply"},
        {"*1\r\n>1\r\n_\r\n", "push inside a reply"},
        {"*1\r\n>1\r\n*0\r\n", "push inside a reply"},
        {"*1\r\n>1\r\n>1\r\n+message\r\n", "push inside a reply"},
        {"*1\r\n$5\r\nhelloXY", "no CRLF behind a bulk string"},
        {"*1\r\n$5\r\nhello\rX", "no CRLF behind a bulk string"},
        {"*1\r\n#T\r\n", "bad boolean"},
        {"%-1\r\n", "a null of a type that has none"},
        {"~-1\r\n", "a null of a type that has none"},
        {">-1\r\n", "a null of a type that has none"},
        {"*1\r\n=-1\r\n", "a null of a type that has none"},
        {"*1\r\n$536870913\r\n", "bulk length out of range"},
        {"*1\r\n$9223372036854775807\r\n", "bulk length out of range"},
        {"*1\r\n$0000000000000000000000000", "bad bulk length"},
        {"*000000000000000000000000000", "bad length"},
        {"*1\r\n%1111111111111111111111111", "bad length"},
        {"*1\r\n%2147483647\r\n", "too many elements"},
        {"*2147483647\r\n|0\r\n", "too many elements"},
        {"*1\r\n!-1\r\n", "a null of a type that has none"},
        {"*1\r\n!536870913\r\n", "bulk length out of range"},
        {"*1\r\n!0000000000000000000000000", "bad bulk length"},
        {"*1\r\n!5\r\nhelloXY", "no CRLF behind a bulk string"},
        {"|-1\r\n", "a null of a type that has none"},
        {"|1\r\n+a\r\n:1\r\n?\r\n", "unknown type byte inside a reply"},
        {"|1\r\n+a\r\n:1\r\n>1\r\n+k\r\n", "push inside a reply"},
        {"|0\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n", "push inside a reply"},
        {"|0\r\n>3\r\n$7\r\nmessage\r\n+c\r\n+m\r\n", "push inside a reply"},
        {"|1\r\n>1\r\n+k\r\n", "push inside a reply"},
        {">1\r\n|1\r\n+a\r\n", "attribute inside a push"},
        {">2\r\n$1\r\nk\r\n*1\r\n|0\r\n", "attribute inside a push"},
        {"|1\r\n$536870913\r\n", "bulk length out of range"},
        {"|2222222222222222222222222", "bad length"},
    };
    check_bad_rows(rows, ARRAY_LEN(rows));
}

/* The words are the reader's own; that they hold none of the peer's bytes is ours to keep. */
Test(relay, what_the_reader_refuses_is_refused)
{
    static const char *const bad[] = {"*x\r\n",
                                      "*-2\r\n",
                                      "*05\r\n",
                                      "*1\r\n:+42\r\n",
                                      "*1\r\n:x\r\n",
                                      "*1\r\n:\r\n",
                                      "*1\r\n,x\r\n",
                                      "*1\r\n_x\r\n",
                                      "*1\r\n#x\r\n",
                                      "*1\r\n$x\r\n\r\n",
                                      "*1\r\n$-2\r\n",
                                      "*1\r\n$5\rhello\r\n",
                                      "*?\r\n",
                                      "*1\r\n$?\r\n",
                                      "*1\r\n+a\rb\r\n",
                                      "*1\r\n+a\nb\r\n",
                                      "*1\r\n-a\nb\r\n",
                                      "*2147483648\r\n",
                                      "*1\r\n%9223372036854775807\r\n",
                                      "*9223372036854775808\r\n",
                                      "*1\r\n=2\r\nab\r\n",
                                      "*1\r\n:9223372036854775808\r\n",
                                      "|x\r\n",
                                      "|-2\r\n",
                                      "|?\r\n",
                                      "*1\r\n|05\r\n",
                                      "*1\r\n!x\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        for (size_t cut = 0; cut < 4; cut++) {
            struct sink *s = sink_open();
            cr_assert(!feed_cut(s, slice_str(bad[i]), cut), "took %s", bad[i]);
            cr_assert(strlen(framer_error(s->framer)) > 5);
            cr_assert(strpbrk(framer_error(s->framer), "\r\n\"\\") == NULL, "%s",
                      framer_error(s->framer));
            cr_assert(framer_is_inside(s->framer));
            sink_close(s);
        }
    }
}

Test(relay, a_reply_before_the_nonsense_is_delivered)
{
    struct sink *s = sink_open();
    cr_assert(!feed_text(s, "+OK\r\n*1\r\n:1\r\n?\r\n"));
    cr_assert_eq(s->nreplies, 2);
    cr_assert(s->replies[1].whole);
    sink_close(s);
}

/* deep times `head` (4 bytes) around one integer, `behind` behind it */
static struct slice nested_in(const char *head, size_t deep, const char *behind)
{
    char *p = malloc(deep * 4 + strlen(behind) + 8);
    for (size_t i = 0; i < deep; i++) {
        memcpy(p + i * 4, head, 4);
    }
    size_t n = (size_t)sprintf(p + deep * 4, ":1\r\n%s", behind);
    return slice_of(p, deep * 4 + n);
}

static struct slice nested(size_t deep)
{
    return nested_in("*1\r\n", deep, "");
}

Test(relay, nesting_may_have_its_limit_and_no_more)
{
    struct slice good = nested(FRAME_DEPTH_MAX);
    struct slice bad = nested(FRAME_DEPTH_MAX + 1);
    for (size_t cut = 0; cut < 3; cut++) {
        check_good(good, 1, NULL, cut);
        check_bad(bad, "nested too deep", cut);
    }
    free((void *)(uintptr_t)good.p);
    free((void *)(uintptr_t)bad.p);
}

/* --- statuses and errors that are long -------------------------------------------------------- */

static const struct nested_text {
    const char *before, *behind;
    size_t replies;
} nested_texts[] = {
    {"*1\r\n+", "\r\n+behind\r\n", 2},
    {"*1\r\n-", "\r\n*1\r\n:1\r\n", 2},
    {"*3\r\n+OK\r\n-", "\r\n$3\r\nabc\r\n:7\r\n", 2},
    {"*2\r\n$2\r\nab\r\n*2\r\n*2\r\n:1\r\n-", "\r\n%1\r\n+k\r\n_\r\n-x\r\n", 2},
    {"%1\r\n+", "\r\n!2\r\n!|\r\n$-1\r\n", 2},
    {"|1\r\n+a\r\n:1\r\n-", "\r\n:1\r\n", 2},
    {"|1\r\n+", "\r\n:1\r\n:2\r\n:3\r\n", 2},
    {"*1\r\n|1\r\n+", "\r\n:1\r\n*1\r\n+e\r\n*0\r\n", 2},
    {"*2\r\n!1\r\nx\r\n+", "\r\n|0\r\n+OK\r\n", 2},
};

Test(relay, nested_statuses_and_errors_of_any_length_pass)
{
    static const size_t sizes[] = {0,    1,    480,  505,  512,  3500, 3584, 4088, 4094,   4095,
                                   4096, 4097, 4098, 4099, 4100, 4608, 8191, 9000, 200000, 2000000};
    static const size_t cuts[] = {0, 2, 50, 700, 5000, 100000};
    for (size_t i = 0; i < ARRAY_LEN(nested_texts); i++) {
        const struct nested_text *row = &nested_texts[i];
        for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
            struct slice in = long_line(row->before, sizes[k], row->behind);
            for (size_t c = sizes[k] > 10000 ? 2 : 0; c < ARRAY_LEN(cuts); c++) {
                check_good(in, row->replies, NULL, cuts[c]);
            }
            check_good(in, row->replies, NULL, 0);
            if (sizes[k] <= 10000) {
                check_good(in, row->replies, NULL, 1);
            }
            free((void *)(uintptr_t)in.p);
        }
    }
}

Test(relay, a_long_nested_error_may_be_cut_anywhere)
{
    for (size_t i = 0; i < ARRAY_LEN(nested_texts); i++) {
        const struct nested_text *row = &nested_texts[i];
        for (size_t n = 4094; n <= 4099; n++) {
            struct slice in = long_line(row->before, n, row->behind);
            check_good_two_parts(in, row->replies, 4080);
            free((void *)(uintptr_t)in.p);
        }
    }
}

Test(relay, many_long_errors_in_one_array_are_exact)
{
    struct slice one = long_line("-", 5000, "\r\n+short\r\n");
    char *p = malloc(100 * one.n + 32);
    size_t at = (size_t)sprintf(p, "*200\r\n");
    for (size_t i = 0; i < 100; i++) {
        memcpy(p + at, one.p, one.n);
        at += one.n;
    }
    at += (size_t)sprintf(p + at, "+behind\r\n");
    check_good(slice_of(p, at), 2, NULL, 0);
    check_good(slice_of(p, at), 2, NULL, 1);
    check_good(slice_of(p, at), 2, NULL, 4097);
    check_good(slice_of(p, at), 2, NULL, 20000);
    free((void *)(uintptr_t)one.p);
    free(p);
}

/* The reader holds none of it, and `out` no more than what was fed. */
Test(relay, a_long_nested_error_is_handed_on_as_it_arrives_but_its_cr_waits)
{
    struct slice in = long_line("*2\r\n-", 5000, "");
    struct sink *s = sink_open();
    cr_assert(feed(s, in.p, in.n));
    cr_assert_eq(s->n, in.n);
    struct slice more = long_line("", 100000, "");
    mem_fail_after(0);
    bool ok = framer_feed(s->framer, more, NULL);
    mem_fail_after(-1);
    cr_assert(ok);
    cr_assert_eq(s->n, in.n + more.n);
    cr_assert(feed_text(s, "\r"));
    cr_assert_eq(s->n, in.n + more.n);
    cr_assert(feed_text(s, "\n"));
    cr_assert_eq(s->n, in.n + more.n + 2);
    cr_assert(!s->replies[0].whole);
    cr_assert(feed_text(s, ":1\r\n+OK\r\n"));
    cr_assert_eq(s->nreplies, 2);
    cr_assert_eq(s->replies[0].size, -1);
    sink_close(s);
    free((void *)(uintptr_t)in.p);
    free((void *)(uintptr_t)more.p);
}

Test(relay, a_long_line_in_a_push_is_collected)
{
    struct slice in = long_line(">2\r\n$1\r\nk\r\n*2\r\n+", 9000, "\r\n+b\r\n+OK\r\n");
    for (size_t cut = 0; cut < 4; cut++) {
        struct sink *s = sink_open();
        cr_assert(feed_cut(s, in, cut));
        cr_assert_eq(s->npushes, 1);
        cr_assert_eq(s->nitems, 2);
        cr_assert_eq(s->item_bytes, 9001);
        cr_assert_eq(s->nreplies, 1);
        cr_assert(s->n == in.n && memcmp(s->bytes, in.p, in.n) == 0);
        sink_close(s);
    }
    free((void *)(uintptr_t)in.p);
}

/* --- attributes and blob errors --------------------------------------------------------------- */

Test(relay, an_attribute_and_what_it_stands_before_are_one_reply)
{
    static const struct good_row rows[] = {
        {"|1\r\n+ttl\r\n:3600\r\n$5\r\nhello\r\n", 1},
        {"|0\r\n+OK\r\n", 1},
        {"|1\r\n+a\r\n+b\r\n-ERR x\r\n", 1},
        {"|1\r\n+a\r\n+b\r\n!5\r\nERR x\r\n", 1},
        {"|1\r\n+a\r\n+b\r\n_\r\n|0\r\n$-1\r\n|0\r\n*-1\r\n", 3},
        {"|1\r\n+a\r\n+b\r\n*0\r\n|0\r\n%0\r\n|0\r\n~0\r\n", 3},
        {"|1\r\n+a\r\n+b\r\n,1.50\r\n|0\r\n#t\r\n|0\r\n(12\r\n|0\r\n=5\r\ntxt:a\r\n", 4},
        {"|1\r\n+a\r\n+b\r\n*2\r\n:1\r\n*1\r\n$1\r\nx\r\n:9\r\n", 2},
        {"|1\r\n$14\r\nkey-popularity\r\n%2\r\n$1\r\na\r\n,0.1923\r\n$1\r\nb\r\n,0.0012\r\n"
         "*2\r\n:2039123\r\n:9543892\r\n",
         1},
        {"|1\r\n+a\r\n:1\r\n|2\r\n+b\r\n:2\r\n+c\r\n:3\r\n|0\r\n:4\r\n+behind\r\n", 2},
        {"+before\r\n|1\r\n+a\r\n:1\r\n:2\r\n*1\r\n:3\r\n|1\r\n+a\r\n:1\r\n:2\r\n", 4},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

Test(relay, attributes_may_stand_before_any_element)
{
    static const struct good_row rows[] = {
        {"*3\r\n:1\r\n:2\r\n|1\r\n+ttl\r\n:3600\r\n:3\r\n+behind\r\n", 2},
        {"*1\r\n|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n:2\r\n:3\r\n+behind\r\n", 2},
        {"*2\r\n|0\r\n*1\r\n|0\r\n:1\r\n|0\r\n*0\r\n:9\r\n", 2},
        {"%1\r\n|1\r\n+a\r\n+b\r\n+key\r\n|1\r\n+a\r\n+b\r\n+value\r\n:9\r\n", 2},
        {"~1\r\n|1\r\n+a\r\n*1\r\n$-1\r\n_\r\n:9\r\n", 2},
        /* of the attribute's own elements, too */
        {"|1\r\n|1\r\n+a\r\n+b\r\n+k\r\n|0\r\n+v\r\n|0\r\n*1\r\n|0\r\n:1\r\n:9\r\n", 2},
        {"|1\r\n+a\r\n|1\r\n+a\r\n|1\r\n+a\r\n:1\r\n:2\r\n:3\r\n:4\r\n:9\r\n", 2},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

Test(relay, blob_errors_may_stand_anywhere)
{
    static const struct good_row rows[] = {
        {"*2\r\n!5\r\nERR x\r\n!0\r\n\r\n+behind\r\n", 2},
        {"*1\r\n!2\r\n!|\r\n%1\r\n+k\r\n!1\r\n!\r\n", 2},
        {"*3\r\n!2\r\n\n!\r\n$2\r\n!!\r\n$3\r\n!2\r\r\n", 1},
        {">2\r\n$1\r\nk\r\n!1\r\ne\r\n", 0},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

Test(relay, what_only_looks_like_an_attribute_or_an_error_is_text)
{
    static const struct good_row rows[] = {
        {"*3\r\n$6\r\na\n|1\r\n\r\n$3\r\n|\r\n\r\n$7\r\n\n|\n!\n|\n\r\n", 1},
        {"*2\r\n+|\r\n-!1\r\n", 1},
        {"*2\r\n$8\r\n|1\r\n:1\r\n\r\n$4\r\n!1\r\n\r\n", 1},
        {"|1\r\n$6\r\n|1\r\n|1\r\n$4\r\n\r\n|\n\r\n$3\r\n\r\n|\r\n", 1},
        {"*1\r\n=8\r\ntxt:\r\n|0\r\n", 1},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

Test(relay, a_reply_behind_an_attribute_is_taken_for_nothing_else)
{
    static const char *const behind[] = {
        "+OK\r\n", "-ERR\r\n", ":1\r\n",       "$1\r\nx\r\n",   "$-1\r\n",
        "*-1\r\n", "_\r\n",    "*1\r\n:1\r\n", "!3\r\nERR\r\n", "%1\r\n_\r\n_\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(behind); i++) {
        struct sink *s = sink_open();
        cr_assert(feed_text(s, "|1\r\n+a\r\n:1\r\n"));
        cr_assert(framer_is_inside(s->framer));
        cr_assert_eq(s->nreplies, 1, "its bytes are handed on as they come");
        cr_assert(!s->replies[0].whole);
        cr_assert(feed_text(s, behind[i]));
        cr_assert(!framer_is_inside(s->framer));
        cr_assert_eq(s->nreplies, 1);
        cr_assert_eq(s->replies[0].type, '|');
        cr_assert(!s->replies[0].is_null);
        cr_assert_eq(s->replies[0].size, -1);
        sink_close(s);
    }
}

Test(relay, large_strings_in_and_behind_attributes_stay_exact)
{
    static const char *const before[] = {"|1\r\n+a\r\n", "|1\r\n+a\r\n:1\r\n", "*1\r\n|1\r\n+a\r\n",
                                         "*1\r\n|1\r\n"};
    static const char *const behind[] = {":1\r\n:9\r\n", ":9\r\n", ":1\r\n:9\r\n",
                                         ":1\r\n:2\r\n:9\r\n"};
    static const size_t sizes[] = {0, 500, 4095, 4096, 4097, 9000};
    for (size_t i = 0; i < ARRAY_LEN(before); i++) {
        for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
            for (size_t cut = 0; cut < 3; cut++) {
                struct slice in = bulk_between(before[i], sizes[k], behind[i]);
                check_good(in, 2, NULL, cut * 350);
                check_good(in, 2, NULL, 1);
                free((void *)(uintptr_t)in.p);
            }
        }
    }
}

Test(relay, a_large_blob_error_keeps_its_type)
{
    char in[6000] = "*2\r\n:1\r\n!5000\r\n";
    size_t at = strlen(in);
    for (size_t i = 0; i < 5000; i++) {
        in[at + i] = "\n!|\n"[i % 4];
    }
    memcpy(in + at + 5000, "\r\n", 3);
    check_good(slice_str(in), 1, NULL, 0);
    check_good(slice_str(in), 1, NULL, 1);
    check_good(slice_str(in), 1, NULL, 300);
}

Test(relay, attributes_count_as_nesting_and_what_they_stand_before_does_not)
{
    struct slice good = nested_in("|1\r\n", FRAME_DEPTH_MAX, "");
    struct slice bad = nested_in("|1\r\n", FRAME_DEPTH_MAX + 1, "");
    struct sink *s = sink_open();
    cr_assert(feed(s, good.p, good.n));
    sink_close(s);
    check_bad(bad, "nested too deep", 0);
    check_bad(bad, "nested too deep", 1);
    free((void *)(uintptr_t)good.p);
    free((void *)(uintptr_t)bad.p);

    char *in = malloc((size_t)FRAME_DEPTH_MAX * 8 + 64);
    for (size_t deep = FRAME_DEPTH_MAX; deep <= FRAME_DEPTH_MAX + 1; deep++) {
        size_t at = (size_t)sprintf(in, "|0\r\n");
        for (size_t i = 0; i < deep; i++) {
            at += (size_t)sprintf(in + at, "*1\r\n");
        }
        at += (size_t)sprintf(in + at, ":1\r\n");
        if (deep == FRAME_DEPTH_MAX) {
            check_good(slice_of(in, at), 1, NULL, 3);
        } else {
            check_bad(slice_of(in, at), "nested too deep", 3);
        }
    }
    free(in);
}

/* A module may say one that is none, and the server does not look. */
Test(relay, big_numbers_pass_whatever_they_say)
{
    static const struct good_row rows[] = {
        {"*2\r\n(x\r\n:1\r\n", 1},
        {"*3\r\n(\r\n(1(2\r\n$2\r\n((\r\n", 1},
        {"%1\r\n+(\r\n(-\r\n", 1},
        {"*1\r\n|1\r\n+k\r\n(12x\r\n(3\r\n", 1},
        {"*2\r\n$4\r\n\r\n(1\r\n=8\r\ntxt:\r\n(x\r\n", 1},
        {">2\r\n$1\r\nk\r\n(x\r\n", 0},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

/* EXEC: a confirmation is a command's reply, a message comes between those. */
Test(relay, pushes_of_a_transaction_stay_in_its_reply)
{
    static const struct good_row rows[] = {
        {"*2\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n:2\r\n+OK\r\n", 2},
        {"*1\r\n>3\r\n$12\r\npunsubscribe\r\n_\r\n:0\r\n", 1},
        {"*2\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n:1\r\n+OK\r\n", 2},
        {"*1\r\n>4\r\n$8\r\npmessage\r\n+p\r\n+c\r\n*1\r\n+m\r\n*2\r\n:1\r\n:2\r\n+OK\r\n", 2},
        {"*1\r\n*1\r\n>3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$1\r\nm\r\n(5\r\n+OK\r\n", 2},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

/* --- pushes ---------------------------------------------------------------------------------- */

struct push_row {
    const char *in;
    size_t replies;
    const char *pushes;
};

Test(relay, pushes_are_delivered_whole_with_kind_and_items)
{
    static const struct push_row rows[] = {
        {">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$3\r\nbcd\r\n", 0,
         "invalidate plain [a bcd]"},
        {">2\r\n$10\r\ninvalidate\r\n*1\r\n$0\r\n\r\n", 0, "invalidate plain []"},
        {">2\r\n$10\r\ninvalidate\r\n*0\r\n", 0, "invalidate plain []"},
        {">2\r\n$10\r\ninvalidate\r\n_\r\n", 0, "invalidate plain null []"},
        {">2\r\n$10\r\ninvalidate\r\n*-1\r\n", 0, "invalidate plain null []"},
        {">2\r\n$10\r\ninvalidate\r\n$-1\r\n", 0, "invalidate plain null []"},
        {">2\r\n+inv\r\n*2\r\n+a\r\n$1\r\nb\r\n", 0, "inv plain [a b]"},
        {">2\r\n$0\r\n\r\n*0\r\n", 0, " plain []"},
        {"+a\r\n>2\r\n$1\r\nk\r\n*1\r\n$1\r\nx\r\n+b\r\n>2\r\n$1\r\nl\r\n_\r\n", 2,
         "k plain [x]l plain null []"},
        {"*1\r\n:1\r\n>2\r\n$1\r\nk\r\n*1\r\n$1\r\nx\r\n*1\r\n:1\r\n", 2, "k plain [x]"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        check_good_all_cuts(slice_str(rows[i].in), rows[i].replies, rows[i].pushes);
    }
}

Test(relay, a_push_of_another_shape_tells_its_kind_and_bytes_only)
{
    static const struct push_row rows[] = {
        {">0\r\n", 0, " other []"},
        {">1\r\n$1\r\nk\r\n", 0, "k other []"},
        {">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n", 0, "message other []"},
        {">3\r\n$1\r\nk\r\n*1\r\n$1\r\nx\r\n:1\r\n", 0, "k other []"},
        {">2\r\n$1\r\nk\r\n$1\r\nx\r\n", 0, "k other []"},
        {">2\r\n$1\r\nk\r\n:1\r\n", 0, "k other []"},
        {">2\r\n$1\r\nk\r\n*2\r\n$1\r\nx\r\n:1\r\n", 0, "k other []"},
        {">2\r\n$1\r\nk\r\n*2\r\n$1\r\nx\r\n$-1\r\n", 0, "k other []"},
        {">2\r\n$1\r\nk\r\n*2\r\n*1\r\n$1\r\ny\r\n$1\r\nx\r\n", 0, "k other []"},
        {">2\r\n$1\r\nk\r\n~1\r\n$1\r\nx\r\n", 0, "k other []"},
        {">2\r\n$1\r\nk\r\n%1\r\n$1\r\nx\r\n#t\r\n", 0, "k other []"},
        {">2\r\n$1\r\nk\r\n*1\r\n=5\r\ntxt:x\r\n", 0, "k other []"},
        {">2\r\n$1\r\nk\r\n*1\r\n!1\r\nx\r\n", 0, "k other []"},
        {">2\r\n!1\r\nk\r\n*1\r\n$1\r\nx\r\n", 0, " other []"},
        {">2\r\n:5\r\n*1\r\n$1\r\nx\r\n", 0, " other []"},
        {">2\r\n_\r\n*1\r\n$1\r\nx\r\n", 0, " other []"},
        {">2\r\n$1\r\nk\r\n_\r\n>2\r\n:5\r\n_\r\n", 0, "k plain null [] other []"},
        {">2\r\n*1\r\n$1\r\nx\r\n_\r\n", 0, " other []"},
        {">2\r\n$1\r\nk\r\n,1.5\r\n>2\r\n$1\r\nk\r\n*1\r\n$1\r\nx\r\n", 0, "k other []k plain [x]"},
        {">3\r\n$1\r\nk\r\n_\r\n_\r\n>2\r\n$1\r\nl\r\n*0\r\n", 0, "k other []l plain []"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        check_good_all_cuts(slice_str(rows[i].in), rows[i].replies, rows[i].pushes);
    }
}

Test(relay, a_push_with_a_large_item_is_collected_whole)
{
    struct slice in =
        bulk_between(">2\r\n$3\r\ninv\r\n*3\r\n$1\r\na\r\n", 9000, "$1\r\nz\r\n:1\r\n");
    for (size_t cut = 0; cut < 3; cut++) {
        struct sink *s = sink_open();
        cr_assert(feed_cut(s, in, cut));
        cr_assert_eq(s->npushes, 1);
        cr_assert_eq(s->nitems, 3);
        cr_assert_eq(s->item_bytes, 9002);
        cr_assert(s->n == in.n && memcmp(s->bytes, in.p, in.n) == 0);
        cr_assert_str_eq(s->pushes + strlen(s->pushes) - 3, " z]");
        cr_assert_eq(s->nreplies, 1);
        sink_close(s);
    }
    free((void *)(uintptr_t)in.p);
}

Test(relay, a_push_of_another_shape_may_hold_a_large_string)
{
    struct slice in = bulk_between(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n", 9000, ":1\r\n");
    for (size_t cut = 0; cut < 3; cut++) {
        check_good(in, 1, "message other []", cut);
    }
    free((void *)(uintptr_t)in.p);
}

Test(relay, a_push_of_a_hundred_thousand_keys_is_delivered)
{
    size_t n = 100000;
    char *p = malloc(n * 20);
    size_t at = (size_t)sprintf(p, ">2\r\n$10\r\ninvalidate\r\n*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        at += (size_t)sprintf(p + at, "$9\r\nkey%06zu\r\n", i);
    }
    struct sink *s = sink_open();
    cr_assert(feed(s, p, at));
    cr_assert_eq(s->nitems, n);
    cr_assert_eq(s->item_bytes, n * 9);
    sink_close(s);
    free(p);
}

Test(relay, a_push_over_its_limit_is_refused_before_its_bytes_come)
{
    struct sink *s = sink_open();
    cr_assert(!feed_text(s, ">2\r\n$1\r\nk\r\n*1\r\n$67108864\r\n"));
    cr_assert_str_eq(framer_error(s->framer), "push too large");
    sink_close(s);
}

Test(relay, a_push_of_many_small_items_is_bounded)
{
    struct sink *s = sink_open();
    cr_assert(feed_text(s, ">2\r\n$1\r\nk\r\n*99999999\r\n"));
    char items[60000];
    for (size_t i = 0; i < sizeof(items); i += 6) {
        memcpy(items + i, "$0\r\n\r\n", 6);
    }
    /* 6 and 16 bytes each, so the limit is met at about 3 million. */
    bool ok = true;
    size_t fed = 0;
    for (; ok && fed < 5000000; fed += 10000) {
        ok = framer_feed(s->framer, slice_of(items, sizeof(items)), NULL);
    }
    cr_assert(!ok);
    cr_assert_geq(fed, FRAME_PUSH_MAX / 22);
    cr_assert_leq(fed, FRAME_PUSH_MAX / 22 + 20000);
    cr_assert_str_eq(framer_error(s->framer), "push too large");
    sink_close(s);
}

Test(relay, bytes_of_any_shape_of_push_count_against_its_limit)
{
    struct sink *s = sink_open();
    cr_assert(feed_text(s, ">9\r\n$1\r\nk\r\n$40000000\r\n"));
    cr_assert(feed_zeros(s, 40000000));
    cr_assert(!feed_text(s, "\r\n$40000000\r\n"));
    cr_assert_str_eq(framer_error(s->framer), "push too large");
    sink_close(s);
}

/* --- memory ---------------------------------------------------------------------------------- */

/* Lets the k-th allocation of a run fail, for k = 0, 1, 2 ... until a run needs no more than k. */
static size_t failing_runs(struct slice in, size_t cut)
{
    for (long k = 0; k < 1000; k++) {
        struct sink *s = sink_open();
        mem_fail_after(k);
        bool ok = feed_cut(s, in, cut);
        mem_fail_after(-1);
        if (ok) {
            cr_assert(!framer_is_inside(s->framer));
            sink_close(s);
            return (size_t)k;
        }
        cr_assert_str_eq(framer_error(s->framer), "out of memory");
        framer_reset(s->framer);
        size_t before = s->nreplies;
        if (before > 0) {
            s->replies[before - 1].whole = true; /* the owner has given it up */
        }
        cr_assert(feed_text(s, "*1\r\n+OK\r\n"), "not usable after a reset");
        cr_assert_eq(s->nreplies, before + 1);
        sink_close(s);
    }
    cr_assert_fail("never enough memory");
    return 0;
}

Test(relay, memory_that_is_out_is_an_error_and_a_reset_recovers)
{
    mem_install_hiredis();
    cr_assert_gt(failing_runs(SLICE("+a status\r\n"), 1), 0);
    cr_assert_gt(failing_runs(SLICE("*2\r\n:1\r\n$5\r\nhello\r\n"), 0), 3);
    cr_assert_gt(failing_runs(SLICE(">2\r\n$1\r\nk\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"), 0), 3);
    struct slice in = bulk_between(">2\r\n$1\r\nk\r\n*2\r\n$1\r\na\r\n", 30000, "*1\r\n:1\r\n");
    failing_runs(in, 1000);
    free((void *)(uintptr_t)in.p);
    cr_assert_gt(failing_runs(SLICE("|1\r\n+a\r\n*1\r\n|0\r\n!1\r\ne\r\n+OK\r\n"), 0), 3);
    in = long_line("*2\r\n-", 30000, "\r\n*1\r\n:1\r\n");
    cr_assert_gt(failing_runs(in, 1000), 3);
    free((void *)(uintptr_t)in.p);
    in = long_line("-", FRAME_TEXT_MAX + 5000, "\r\n*1\r\n:1\r\n");
    cr_assert_gt(failing_runs(in, 9000), 3);
    free((void *)(uintptr_t)in.p);
    in = nested(60);
    cr_assert_gt(failing_runs(in, 0), 60);
    free((void *)(uintptr_t)in.p);
}

/* Seen by what comes next: it has to ask for memory again, and gets none. */
Test(relay, memory_of_a_large_push_is_given_back)
{
    struct slice in = bulk_between(">2\r\n$1\r\nk\r\n*2\r\n$1\r\na\r\n", 30000, "");
    struct sink *s = sink_open();
    cr_assert(feed(s, in.p, in.n));
    cr_assert_eq(s->npushes, 1);
    mem_fail_after(0);
    bool ok = feed_text(s, "*1\r\n:1\r\n");
    mem_fail_after(-1);
    cr_assert(!ok);
    sink_close(s);
    free((void *)(uintptr_t)in.p);
}
