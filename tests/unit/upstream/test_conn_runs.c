/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conn_runs.c: calls that take several replies together (call_ops.run).
 */
#include "conn_fixture.h"

/* A call that takes replies together, and notes how: "1" for one, "[n]" for a run of n. */
struct row {
    struct call call;
    char log[64];
};

static void row_note(struct call *call, const char *text)
{
    struct row *row = container_of(call, struct row, call);
    (void)snprintf(row->log + strlen(row->log), sizeof(row->log) - strlen(row->log), "%s", text);
}

static void row_reply(struct call *call, const struct reply_piece *piece)
{
    row_note(call, piece->type == '-' ? "e" : "1");
}

static void row_run(struct call *call, const struct reply_run *run)
{
    char text[16];
    cr_assert_geq(run->bytes.n / 4, run->n);
    (void)snprintf(text, sizeof(text), "[%u]", run->n);
    row_note(call, text);
}

static void row_lost(struct call *call, enum call_loss loss)
{
    row_note(call, loss == LOSS_SENT ? "lost" : "unsent");
}

static const struct call_ops ROW_OPS = {.reply = row_reply, .run = row_run, .lost = row_lost};

Test(conn, call_may_take_replies_together_and_no_others)
{
    struct row rows[4] = {0};
    struct ask between = {0};
    up_with_fake();
    for (int i = 0; i < 4; i++) {
        rows[i].call = (struct call){.ops = &ROW_OPS, .replies = 4};
        cr_assert_eq(conn_submit(conn, &rows[i].call, SLICE("a\r\nb\r\nc\r\nd\r\n"), NULL),
                     CONN_OK);
        if (i == 1) {
            cr_assert_eq(ask_line(conn, &between, "GET between"), CONN_OK);
        }
    }
    fake_expect(&fake, "GET between\r\na\r\nb\r\nc\r\nd\r\na\r\nb\r\nc\r\nd\r\n");
    fake_say(&fake, "+OK\r\n+OK\r\n+OK\r\n+OK\r\n"
                    ":1\r\n-ERR no\r\n$2\r\nab\r\n$-1\r\n"
                    "+between\r\n"
                    "+OK\r\n+OK\r\n+OK\r\n+OK\r\n:1\r\n:2\r\n");
    WAIT_FOR(strcmp(rows[3].log, "[2]") == 0);
    cr_expect_str_eq(rows[0].log, "1[3]");
    cr_expect_str_eq(rows[1].log, "[1]e[2]");
    cr_expect(between.done && between.bytes == 10);
    cr_expect_str_eq(rows[2].log, "[4]");
    cr_expect_eq(conn_pending(conn), 1);
    fake_hang_up(&fake);
    WAIT_FOR(strcmp(rows[3].log, "[2]lost") == 0);
    cr_expect_eq(rows[3].call.replies, 2);
    close_fake();
}

/* Replies beyond what was asked are nobody's, however they come. */
Test(conn, run_ends_where_the_calls_do)
{
    struct row row = {.call = {.ops = &ROW_OPS, .replies = 2}};
    up_with_fake();
    cr_assert_eq(conn_submit(conn, &row.call, SLICE("a\r\nb\r\n"), NULL), CONN_OK);
    fake_expect(&fake, "b\r\n");
    fake_say(&fake, "+OK\r\n+OK\r\n+OK\r\n+OK\r\n");
    WAIT_FOR(losses == 1);
    cr_expect_str_eq(row.log, "1[1]");
    cr_expect(strstr(conn_error(conn), "a reply nobody asked for") != NULL);
    close_fake();
}
