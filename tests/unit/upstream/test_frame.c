/* SPDX-License-Identifier: Apache-2.0
 *
 * test_frame.c: the sentences of frame.h about scalars, bulks, lines and the framer's life. Most cases
 * are rows: an input, cut in several ways, must give the same bytes, replies and verdict.
 */
#include "reply_sink.h"

Test(frame, scalars_pass_byte_for_byte_however_they_are_cut)
{
    static const struct good_row rows[] = {
        {"+OK\r\n", 1},
        {"+\r\n", 1},
        {"+OK\r\n+PONG\r\n", 2},
        {"-ERR unknown command 'x'\r\n", 1},
        {"-\r\n", 1},
        {":0\r\n:1\r\n:-1\r\n:+42\r\n:007\r\n:9223372036854775807\r\n:-9223372036854775808\r\n", 7},
        {"$0\r\n\r\n", 1},
        {"$5\r\nhello\r\n", 1},
        {"$5\r\n\r\n\r\n\r\r\n", 1},
        {"$1\r\na\r\n$2\r\nbb\r\n$10\r\n0123456789\r\n", 3},
        {"$-1\r\n", 1},
        {"*-1\r\n", 1},
        {"_\r\n", 1},
        {",1.5\r\n,-0\r\n,inf\r\n,-inf\r\n,nan\r\n,1e+30\r\n,10\r\n,.5\r\n", 8},
        {"#t\r\n#f\r\n", 2},
        {"(3492890328409238509324850943850943825024385\r\n(-1\r\n(0\r\n", 3},
        {"=15\r\ntxt:Some string\r\n=4\r\nmkd:\r\n", 2},
        {"!5\r\nERR x\r\n!0\r\n\r\n!4\r\na\r\nb\r\n", 3},
        {"$-1\r\n*-1\r\n_\r\n+a\r\n$1\r\nx\r\n:5\r\n", 6},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

/* SYNC: what comes is no RESP. */
Test(frame, an_endless_reply_ends_with_the_connection)
{
    static const char in[] = "\n\n$EOF:0123\r\n*1\r\n+x\r\n-ERR\r\n$99\r\n";
    for (size_t cut = 1; cut < sizeof(in); cut++) {
        struct sink *s = sink_open();
        cr_assert(feed_text(s, "+OK\r\n"));
        framer_expect_endless(s->framer);
        for (size_t at = 0; at < sizeof(in); at += cut) {
            cr_assert(feed(s, in + at, cut < sizeof(in) - at ? cut : sizeof(in) - at));
        }
        cr_assert_eq(s->nreplies, 2);
        cr_assert_eq(s->replies[1].type, '\n');
        cr_assert_eq(s->replies[1].bytes, sizeof(in));
        cr_assert(!s->replies[1].whole && framer_is_inside(s->framer));
        framer_reset(s->framer);
        s->replies[1].whole = true;
        cr_assert(feed_text(s, "+OK\r\n"));
        cr_assert(s->replies[2].whole);
        sink_close(s);
    }
}

Test(frame, an_error_instead_of_an_endless_reply_is_an_error)
{
    struct sink *s = sink_open();
    framer_expect_endless(s->framer);
    cr_assert(feed_text(s, "-NO"));
    cr_assert(feed_text(s, "PERM x\r\n:1\r\n"));
    cr_assert_eq(s->nreplies, 2);
    cr_assert(s->replies[0].whole && s->replies[0].type == '-' && s->replies[1].whole);
    sink_close(s);
}

Test(frame, every_single_cut_of_a_mixed_stream_gives_the_same_replies)
{
    struct slice in =
        SLICE("$5\r\nhel\r\n\r\n*2\r\n$3\r\nfoo\r\n*1\r\n$-1\r\n-ERR x\r\n%1\r\n+k\r\n,1.50\r\n"
              "*-1\r\n$-1\r\n:12\r\n=5\r\ntxt:a\r\n~2\r\n#t\r\n_\r\n(99\r\n!3\r\nERR\r\n"
              "|1\r\n+a\r\n*1\r\n!2\r\n|!\r\n$2\r\nhi\r\n+x\r\n");
    for (size_t cut = 0; cut <= in.n; cut++) {
        struct sink *s = sink_open();
        cr_assert(feed(s, in.p, cut) && feed(s, in.p + cut, in.n - cut), "cut at %zu: %s", cut,
                  framer_error(s->framer));
        cr_assert_eq(s->nreplies, 13, "cut at %zu: %zu replies", cut, s->nreplies);
        cr_assert(s->n == in.n && memcmp(s->bytes, in.p, in.n) == 0, "cut at %zu", cut);
        sink_close(s);
    }
}

Test(frame, a_scalar_whole_in_the_input_is_one_piece_and_tells_its_size)
{
    static const char *const scalars[] = {
        "+OK\r\n", "-ERR\r\n", ":12\r\n",    "$5\r\nhello\r\n", "$0\r\n\r\n",
        "$-1\r\n", "*-1\r\n",  "_\r\n",      "=5\r\ntxt:a\r\n", ",1\r\n",
        "#t\r\n",  "(1\r\n",   "!1\r\nE\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(scalars); i++) {
        struct sink *s = sink_open();
        cr_assert(feed_text(s, scalars[i]));
        cr_assert_eq(s->nreplies, 1);
        cr_assert_eq(s->replies[0].pieces, 1, "%s", scalars[i]);
        cr_assert_eq(s->replies[0].type, scalars[i][0]);
        cr_assert_eq(s->replies[0].size, (int64_t)strlen(scalars[i]), "%s", scalars[i]);
        sink_close(s);
    }
}

Test(frame, lines_of_any_length_and_bytes_pass)
{
    for (size_t n = 0; n < 300; n++) {
        char in[320];
        int len =
            snprintf(in, sizeof(in), "+%.*s\r\n", (int)n,
                     "a\tb\x01\x7f\x80\xff and some more text to make this line longer than "
                     "anything that is treated as short, and longer than the first buffer in "
                     "which a line that is split across reads is put together, which has room "
                     "for some hundred bytes, and then yet a few more of them to go on with");
        check_good(slice_of(in, (size_t)len), 1, NULL, 0);
        check_good(slice_of(in, (size_t)len), 1, NULL, 1);
        check_good(slice_of(in, (size_t)len), 1, NULL, 20);
    }
}

Test(frame, a_bulk_of_a_hundred_megabytes_whole_in_the_input_is_one_piece)
{
    size_t len = 100000000;
    char *p = calloc(1, len + 32);
    size_t head = (size_t)sprintf(p, "$%zu\r\n", len);
    memcpy(p + head + len, "\r\n", 2);
    struct sink *s = sink_open();
    s->keep = false;
    cr_assert(framer_feed(s->framer, slice_of(p, head + len + 2), NULL));
    cr_assert_eq(s->nreplies, 1);
    cr_assert_eq(s->replies[0].pieces, 1);
    cr_assert_eq(s->replies[0].size, (int64_t)(head + len + 2));
    sink_close(s);
    free(p);
}

Test(frame, lines_are_one_piece_even_byte_by_byte)
{
    static const char *const lines[] = {"+a longer status\r\n",
                                        "-ERR no\r\n",
                                        ":123\r\n",
                                        "_\r\n",
                                        ",1.25\r\n",
                                        "#f\r\n",
                                        "(77\r\n",
                                        "*-1\r\n",
                                        "$-1\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        struct sink *s = sink_open();
        cr_assert(feed_cut(s, slice_str(lines[i]), 1));
        cr_assert_eq(s->nreplies, 1);
        cr_assert_eq(s->replies[0].pieces, 1, "%s", lines[i]);
        cr_assert_eq(s->replies[0].size, (int64_t)strlen(lines[i]));
        sink_close(s);
    }
}

Test(frame, only_the_three_nulls_are_null)
{
    struct sink *s = sink_open();
    cr_assert(feed_text(s, "$-1\r\n*-1\r\n_\r\n$0\r\n\r\n*0\r\n*1\r\n*-1\r\n*1\r\n_\r\n:-1\r\n"));
    static const bool expected[] = {true, true, true, false, false, false, false, false};
    cr_assert_eq(s->nreplies, ARRAY_LEN(expected));
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        cr_assert_eq(s->replies[i].is_null, expected[i], "reply %zu", i);
    }
    sink_close(s);
}

Test(frame, bulk_bytes_are_handed_on_as_they_arrive)
{
    struct sink *s = sink_open();
    cr_assert(feed_text(s, "$10\r\nabc"));
    cr_assert_eq(s->n, 8);
    cr_assert_eq(s->replies[0].size, 17);
    cr_assert(framer_is_inside(s->framer));
    cr_assert(feed_text(s, "defghij"));
    cr_assert_eq(s->n, 15);
    cr_assert(feed_text(s, "\r"));
    cr_assert(!s->replies[0].whole);
    cr_assert(feed_text(s, "\n+OK\r\n"));
    cr_assert_eq(s->nreplies, 2);
    cr_assert_eq(s->replies[0].bytes, 17);
    sink_close(s);
}

Test(frame, nonsense_at_a_boundary_is_refused_with_a_reason)
{
    static const struct bad_row rows[] = {
        {"HTTP/1.1 400 Bad Request\r\n\r\n", "unknown type byte"},
        {"+OK\r\n\r\n", "unknown type byte"},
        {"$?\r\n", "bad bulk length"},
        {"!x\r\n", "bad bulk length"},
        {"!-1\r\n", "bulk length out of range"},
        {"!5\r\nERR xyz", "no CRLF behind a bulk string"},
        {"$\r\n", "bad bulk length"},
        {"$05\r\nhello\r\n", "bad bulk length"},
        {"$+5\r\nhello\r\n", "bad bulk length"},
        {"$5 \r\nhello\r\n", "bad bulk length"},
        {"$-2\r\n", "bulk length out of range"},
        {"=-1\r\n", "bulk length out of range"},
        {"$536870913\r\n", "bulk length out of range"},
        {"$9223372036854775807\r\n", "bulk length out of range"},
        {"$9223372036854775808\r\n", "bad bulk length"},
        {"$000000000000000000000000005\r\n", "line too long"},
        {"$5\r\nhelloXY", "no CRLF behind a bulk string"},
        {"$5\r\nhello\rX", "no CRLF behind a bulk string"},
        {"$0\r\n\n\n", "no CRLF behind a bulk string"},
        {"$5\rhello\r\n", "no LF behind a CR"},
        {"+a\rb\r\n", "no LF behind a CR"},
        {"+a\r\r\n", "no LF behind a CR"},
        {"+a\nb\r\n", "line feed inside a line"},
        {"-ERR a\nb\r\n", "line feed inside a line"},
        {":\r\n", "bad integer"},
        {":-\r\n", "bad integer"},
        {":1.5\r\n", "bad integer"},
        {":1\n2\r\n", "bad integer"},
        {",\r\n", "bad double"},
        {",1 5\r\n", "bad double"},
        {"#T\r\n", "bad boolean"},
        {"#\r\n", "bad boolean"},
        {"#tf\r\n", "bad boolean"},
        {"_x\r\n", "bad null"},
    };
    check_bad_rows(rows, ARRAY_LEN(rows));
}

/* A line of a type whose text is collected, or in a push. Owned by the caller. */
static struct slice digits_line(const char *before, size_t n, const char *behind)
{
    struct slice in = long_line(before, n, behind);
    memset((char *)(uintptr_t)in.p + strlen(before), '7', n);
    return in;
}

Test(frame, a_line_may_have_its_limit_and_no_more)
{
    static const char *const before[] = {"(", "*1\r\n(", ">2\r\n$1\r\nk\r\n+",
                                         ">2\r\n$1\r\nk\r\n-"};
    static const size_t cuts[] = {0, 3000, 100000};
    for (size_t i = 0; i < ARRAY_LEN(before); i++) {
        struct slice good = digits_line(before[i], FRAME_LINE_MAX, "\r\n");
        struct slice bad = digits_line(before[i], FRAME_LINE_MAX + 1, "\r\n");
        struct slice open = digits_line(before[i], FRAME_LINE_MAX + 2, "");
        for (size_t k = 0; k < ARRAY_LEN(cuts); k++) {
            check_good(good, before[i][0] == '>' ? 0 : 1, NULL, cuts[k]);
            check_bad(bad, "line too long", cuts[k]);
            check_bad(open, "line too long", cuts[k]);
        }
        free((void *)(uintptr_t)good.p);
        free((void *)(uintptr_t)bad.p);
        free((void *)(uintptr_t)open.p);
    }
}

Test(frame, the_last_byte_of_a_line_at_its_limit_may_be_cut_off)
{
    struct slice in = digits_line("(", FRAME_LINE_MAX, "\r\n");
    for (size_t back = 1; back <= 3; back++) {
        struct sink *s = sink_open();
        cr_assert(feed(s, in.p, in.n - back));
        cr_assert(feed(s, in.p + in.n - back, back));
        cr_assert_eq(s->n, in.n);
        sink_close(s);
    }
    free((void *)(uintptr_t)in.p);
}

/* --- statuses and errors that are long -------------------------------------------------------- */

Test(frame, statuses_and_errors_of_any_length_pass)
{
    static const char *const before[] = {"+", "-", ":1\r\n-"};
    static const size_t sizes[] = {
        FRAME_TEXT_MAX - 1, FRAME_TEXT_MAX, FRAME_TEXT_MAX + 1,  FRAME_TEXT_MAX + 2,
        3 * FRAME_TEXT_MAX, FRAME_LINE_MAX, FRAME_LINE_MAX + 10, 3000000};
    static const size_t cuts[] = {0, 3000, 66000, 100000};
    for (size_t i = 0; i < ARRAY_LEN(before); i++) {
        for (size_t k = 0; k < ARRAY_LEN(sizes); k++) {
            struct slice in = long_line(before[i], sizes[k], "\r\n-\r\n*1\r\n+a\r\n");
            size_t replies = before[i][0] == ':' ? 4 : 3;
            for (size_t c = 0; c < ARRAY_LEN(cuts); c++) {
                check_good(in, replies, NULL, cuts[c]);
            }
            if (k < 4) {
                check_good(in, replies, NULL, 1);
            }
            free((void *)(uintptr_t)in.p);
        }
    }
}

Test(frame, only_what_is_long_comes_in_pieces_and_the_first_says_what_it_is)
{
    static const size_t cuts[] = {0, 1, 3000, 66000};
    for (size_t n = FRAME_TEXT_MAX; n <= FRAME_TEXT_MAX + 1; n++) {
        struct slice in = long_line("-", n, "\r\n");
        for (size_t c = 0; c < ARRAY_LEN(cuts); c++) {
            struct sink *s = sink_open();
            cr_assert(feed_cut(s, in, cuts[c]));
            cr_assert_eq(s->nreplies, 1);
            const struct reply *r = &s->replies[0];
            cr_assert_eq(r->type, '-');
            if (n == FRAME_TEXT_MAX) {
                cr_assert_eq(r->pieces, 1);
                cr_assert_eq(r->size, (int64_t)in.n);
            } else {
                cr_assert_gt(r->pieces, 1);
                cr_assert_eq(r->size, -1);
                cr_assert_gt(r->first, FRAME_TEXT_MAX);
            }
            sink_close(s);
        }
        free((void *)(uintptr_t)in.p);
    }
}

Test(frame, a_long_error_may_be_cut_anywhere)
{
    for (size_t n = FRAME_TEXT_MAX - 1; n <= FRAME_TEXT_MAX + 4; n++) {
        struct slice in = long_line("-", n, "\r\n$1\r\na\r\n");
        check_good_two_parts(in, 2, FRAME_TEXT_MAX - 4);
        free((void *)(uintptr_t)in.p);
    }
}

Test(frame, a_long_error_is_handed_on_as_it_arrives_but_its_cr_waits)
{
    struct slice in = long_line("-", 100000, "");
    struct sink *s = sink_open();
    cr_assert(feed(s, in.p, in.n));
    cr_assert_eq(s->n, in.n);
    mem_fail_after(0); /* and nothing of it is kept */
    bool ok = framer_feed(s->framer, slice_of(in.p + 1, in.n - 1), NULL);
    mem_fail_after(-1);
    cr_assert(ok);
    size_t before = s->n;
    cr_assert(feed_text(s, "\r"));
    cr_assert_eq(s->n, before);
    cr_assert(framer_is_inside(s->framer) && !s->replies[0].whole);
    cr_assert(feed_text(s, "\n+OK\r\n"));
    cr_assert_eq(s->nreplies, 2);
    cr_assert(s->replies[0].whole && !s->inside_at_last);
    cr_assert_eq(s->replies[0].bytes, 2 * in.n - 1 + 2);
    sink_close(s);
    free((void *)(uintptr_t)in.p);
}

Test(frame, nonsense_in_a_long_line_is_refused)
{
    static const struct bad_row behind[] = {
        {"\rX", "no LF behind a CR"},
        {"\r\r\n", "no LF behind a CR"},
        {"\nabc\r\n", "line feed inside a line"},
        {"abc\n\r\n", "line feed inside a line"},
    };
    static const char *const before[] = {"+", "-", "*2\r\n:1\r\n+", "*1\r\n*1\r\n-"};
    static const size_t cuts[] = {0, 1, 7, 3000};
    for (size_t i = 0; i < ARRAY_LEN(before) * ARRAY_LEN(behind); i++) {
        const struct bad_row *row = &behind[i % ARRAY_LEN(behind)];
        struct slice in = long_line(before[i / ARRAY_LEN(behind)], FRAME_TEXT_MAX + 100, row->in);
        for (size_t c = 0; c < ARRAY_LEN(cuts); c++) {
            check_bad(in, row->error, cuts[c]);
        }
        free((void *)(uintptr_t)in.p);
    }
    struct slice in = long_line("-a\n", FRAME_TEXT_MAX, "\r\n");
    check_bad(in, "line feed inside a line", 0);
    check_bad(in, "line feed inside a line", 1);
    free((void *)(uintptr_t)in.p);
}

Test(frame, a_long_line_may_be_as_long_as_a_bulk_and_no_longer)
{
    static const char *const before[] = {"-", "*2\r\n-"};
    for (size_t i = 0; i < ARRAY_LEN(before); i++) {
        for (size_t over = 0; over < 2; over++) {
            struct sink *s = sink_open();
            s->keep = false;
            cr_assert(feed_text(s, before[i]));
            cr_assert(feed_zeros(s, (size_t)FRAME_BULK_MAX));
            if (over > 0) {
                cr_assert(!feed_zeros(s, 1));
                cr_assert_str_eq(framer_error(s->framer), "line too long");
            } else {
                cr_assert(feed_text(s, i == 0 ? "\r\n+OK\r\n" : "\r\n:1\r\n+OK\r\n"));
                cr_assert_eq(s->nreplies, 2);
                cr_assert_leq(s->largest, 2 * FRAME_TEXT_MAX);
            }
            sink_close(s);
        }
    }
}

Test(frame, a_reset_forgets_a_long_line)
{
    static const char *const before[] = {"-", "*2\r\n-"};
    static const char *const behind[] = {"", "\r", "\rX"};
    for (size_t i = 0; i < ARRAY_LEN(before) * ARRAY_LEN(behind); i++) {
        struct slice in = long_line(before[i % 2], FRAME_TEXT_MAX + 10, behind[i / 2]);
        struct sink *s = sink_open();
        cr_assert_eq(feed(s, in.p, in.n), i < 4);
        cr_assert(framer_is_inside(s->framer));
        framer_reset(s->framer);
        s->nreplies = 0;
        cr_assert(feed_text(s, "+OK\r\n*1\r\n+x\r\n"));
        cr_assert_eq(s->nreplies, 2);
        cr_assert(s->replies[1].whole);
        sink_close(s);
        free((void *)(uintptr_t)in.p);
    }
}

/* --- bulks ----------------------------------------------------------------------------------- */

Test(frame, a_bulk_of_the_largest_size_passes_nested_or_not)
{
    for (int nested = 0; nested < 2; nested++) {
        struct sink *s = sink_open();
        s->keep = false;
        cr_assert(feed_text(s, nested != 0 ? "*2\r\n$536870912\r\n" : "$536870912\r\n"));
        cr_assert(feed_zeros(s, (size_t)FRAME_BULK_MAX));
        cr_assert(feed_text(s, nested != 0 ? "\r\n:1\r\n+OK\r\n" : "\r\n+OK\r\n"));
        cr_assert_eq(s->nreplies, 2);
        cr_assert_leq(s->largest, 65536);
        sink_close(s);
    }
}

Test(frame, a_scalar_whole_in_the_input_needs_no_memory)
{
    struct sink *s = sink_open();
    s->keep = false;
    mem_fail_after(0);
    bool ok = feed_text(s, "+OK\r\n$5\r\nhello\r\n:1\r\n$-1\r\n_\r\n$100\r\nabc");
    mem_fail_after(-1);
    cr_assert(ok);
    cr_assert_eq(s->nreplies, 6);
    sink_close(s);
}

/* What is handed on together: what lies behind the reply that asked, whole, and is no error and not nested. */
Test(frame, a_run_has_as_many_plain_replies_as_were_asked_for_and_are_there)
{
    static const struct {
        const char *in;
        uint32_t run;
        size_t replies, in_runs;
    } rows[] = {
        {"+OK\r\n+OK\r\n+OK\r\n+OK\r\n", 10, 4, 3},
        {"+OK\r\n+OK\r\n+OK\r\n+OK\r\n", 1, 4, 3},
        {"+OK\r\n+OK\r\n-ERR\r\n+OK\r\n", 10, 4, 2},
        {"+OK\r\n*1\r\n:1\r\n:2\r\n$-1\r\n$5\r\nabcde\r\n", 10, 5, 3},
        {"*1\r\n:1\r\n+OK\r\n+OK\r\n", 10, 3, 2},
        {"+OK\r\n_\r\n$5\r\nabcde\r\n", 10, 3, 1},
        {"+OK\r\n+OK\r\n+OKAY\r\n+OK\r\n+O\r\n:1\r\n:10\r\n:1\r\n", 10, 8, 7},
        {"+OK\r\n$3\r\n+OK\r\n+OK\r\n", 10, 3, 2},
        {"+OK\r\n+\r\n+\r\n+\r\n", 10, 4, 3},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct sink *s = sink_open();
        s->run = rows[i].run;
        cr_assert(feed_text(s, rows[i].in));
        cr_expect_eq(s->nreplies, rows[i].replies, "%zu: %zu", i, s->nreplies);
        cr_expect_eq(s->in_runs, rows[i].in_runs, "%zu: %zu", i, s->in_runs);
        cr_expect(s->n == strlen(rows[i].in) && memcmp(s->bytes, rows[i].in, s->n) == 0);
        sink_close(s);
    }
}

/* What is asked for is of the bytes at hand: the next ones begin anew. */
Test(frame, a_run_ends_with_what_was_fed)
{
    struct sink *s = sink_open();
    s->run = 10;
    cr_assert(feed_text(s, "+OK\r\n+OK\r\n+O"));
    cr_expect_eq(s->in_runs, 1);
    cr_assert(feed_text(s, "K\r\n+OK\r\n"));
    cr_expect_eq(s->in_runs, 2);
    cr_assert(feed_text(s, "+OK\r\n"));
    cr_expect_eq(s->in_runs, 2);
    cr_expect_eq(s->nreplies, 5);
    sink_close(s);
}

Test(frame, a_reset_forgets_whatever_was_open)
{
    static const char *const open[] = {"+OK",
                                       "$5\r\nhe",
                                       "*2\r\n:1\r\n",
                                       "*2\r\n$5\r\nab",
                                       ">2\r\n$1\r\nk\r\n",
                                       "*1\r\n$9000\r\nabc",
                                       "$5",
                                       "?",
                                       "*1\r\n?",
                                       "|1\r\n+a\r\n:1\r\n",
                                       "|",
                                       "*2\r\n|",
                                       "*2\r\n!9000\r\n",
                                       "*1\r\n!",
                                       ">2\r\n$1\r\nk\r\n*2\r\n$9000\r\nx"};
    for (size_t i = 0; i < ARRAY_LEN(open); i++) {
        struct sink *s = sink_open();
        bool ok = feed_text(s, open[i]);
        cr_assert_eq(ok, framer_error(s->framer)[0] == '\0');
        cr_assert(framer_is_inside(s->framer), "%s", open[i]);
        framer_reset(s->framer);
        cr_assert(!framer_is_inside(s->framer));
        cr_assert_str_eq(framer_error(s->framer), "");
        s->nreplies = 0;
        s->n = 0;
        cr_assert(feed_text(s, "$2\r\nab\r\n*1\r\n+x\r\n>2\r\n$1\r\nk\r\n*1\r\n$1\r\ni\r\n"));
        cr_assert_eq(s->nreplies, 2);
        cr_assert_str_eq(s->pushes, "k plain [i]");
        sink_close(s);
    }
}

Test(frame, destroy_accepts_null_and_a_framer_in_the_middle)
{
    framer_destroy(NULL);
    struct sink *s = sink_open();
    cr_assert(feed_text(s, "*2\r\n$9000\r\nabc"));
    sink_close(s);
}

Test(frame, nothing_fed_is_no_error)
{
    struct sink *s = sink_open();
    cr_assert(framer_feed(s->framer, slice_of(NULL, 0), NULL));
    cr_assert(!framer_is_inside(s->framer));
    sink_close(s);
}

Test(frame, stop_ends_the_feeding_after_the_callback_that_set_it)
{
    static const char *const in[] = {"+a\r\n+b\r\n", "$1\r\na\r\n$1\r\nb\r\n",
                                     "*1\r\n:1\r\n*1\r\n:2\r\n", "*2\r\n$5000\r\nabc", "+a\r\n?"};
    for (size_t i = 0; i < ARRAY_LEN(in); i++) {
        struct sink *s = sink_open();
        bool stop = false;
        s->stop_at_piece = &stop;
        cr_assert(framer_feed(s->framer, slice_str(in[i]), &stop));
        cr_assert(stop);
        cr_assert_eq(s->nreplies, 1);
        cr_assert_eq(s->replies[0].pieces, 1, "%s", in[i]);
        sink_close(s);
    }
}

/* Seen by the next split line: it has to ask for memory again, and gets none. */
Test(frame, memory_of_a_long_split_line_is_given_back)
{
    struct slice in = long_line("+", 5000, "\r\n");
    struct sink *s = sink_open();
    cr_assert(feed_cut(s, in, 1));
    cr_assert_eq(s->nreplies, 1);
    mem_fail_after(0);
    bool ok = feed_text(s, "+O");
    mem_fail_after(-1);
    cr_assert(!ok);
    sink_close(s);
    free((void *)(uintptr_t)in.p);
}
