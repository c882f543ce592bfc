/* SPDX-License-Identifier: Apache-2.0
 *
 * test_info.c: what the proxy says about itself. Each counter that is named here is moved by
 * something the test does, and must move by as much.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

TestSuite(info);

static const char *text_of(struct client *c, const char *line)
{
    client_command(c, "%s", line);
    const struct reply *reply = client_reply(c);
    cr_assert(reply->type == '$' && !reply->null, "%s gave no text", line);
    return cleanup_printf("%s", reply->text);
}

SCENARIO(info, info_is_that_of_redis_with_a_section_of_ours_at_the_end)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    const char *const lines[] = {"INFO", "INFO everything", "INFO all", "info default"};
    const char *pid = cleanup_printf("process_id:%d\r\n", (int)process_pid(r->process));

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        const char *text = text_of(c, lines[i]);
        const char *ours = strstr(text, "# Nearside\r\n");
        cr_assert_not_null(strstr(text, "# Server\r\n"), "%s", lines[i]);
        cr_assert_not_null(strstr(text, pid), "%s", lines[i]);
        cr_assert_not_null(strstr(text, "\r\nloading:0\r\n"), "%s", lines[i]);
        cr_assert_not_null(ours, "%s", lines[i]);
        cr_assert(ours == text || memcmp(ours - 2, "\r\n", 2) == 0);
        cr_assert_not_null(strstr(ours, "\r\nl1_hits:"));
        cr_assert_null(strstr(ours + 1, "\r\n# "), "ours is not the last section");
    }
}

SCENARIO(info, other_sections_are_those_of_redis_alone)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    const char *text = text_of(c, "INFO server");

    cr_assert_not_null(strstr(text, "# Server\r\n"));
    cr_assert_null(strstr(text, "Nearside"));
    cr_assert_str_eq(text_of(c, "INFO nosuchsection"), text_of(r->direct, "INFO nosuchsection"));
}

SCENARIO(info, every_line_of_our_section_is_a_field)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    char *text = cleanup_printf("%s", nearside_info_text(n));
    char *save = NULL;
    int fields = 0;

    cr_assert(strncmp(text, "# Nearside\r\n", 12) == 0);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        size_t len = strlen(line);
        cr_assert(len > 0 && line[len - 1] == '\r', "'%s' does not end in CRLF", line);
        if (line[0] != '#') {
            cr_assert(strspn(line, "abcdefghijklmnopqrstuvwxyz0123456789_") == strcspn(line, ":") &&
                          strchr(line, ':') != NULL,
                      "'%s' is no field", line);
            fields++;
        }
    }
    cr_assert(fields > 20);
}

SCENARIO(info, every_read_is_a_hit_or_a_miss_also_behind_a_write_of_its_own_pipeline)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    for (int i = 0; i < 100; i++) {
        cr_assert(client_send_text(c, "SET k v\r\nGET k\r\nMGET k none\r\n"));
    }
    for (int i = 0; i < 100; i++) {
        expect_next(c, "+OK");
        expect_next(c, "$v");
        expect_next(c, "[$v nil]");
    }
    cr_assert_gt(nearside_info(n, "l1_passes"), 0);
    cr_assert_eq(nearside_info(n, "l1_hits") + nearside_info(n, "l1_negative_hits") +
                     nearside_info(n, "l1_misses"),
                 300);
}

SCENARIO(info, the_fields_tell_what_happened)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    cr_assert_eq(nearside_info(n, "workers"), 2);
    cr_assert_eq(nearside_info(n, "l1_hits"), 0);
    cr_assert_eq(nearside_info(n, "l1_items"), 0);
    expect(r->direct, "+OK", "MSET a 1 b 2");
    expect(c, "$1", "GET a");
    expect(c, "$2", "GET b");
    expect(c, "nil", "GET none");
    cr_assert_eq(nearside_info(n, "l1_misses"), 3);
    cr_assert_eq(nearside_info(n, "l1_fills"), 3);
    cr_assert_eq(nearside_info(n, "l1_items"), 3);
    cr_assert_gt(nearside_info(n, "l1_bytes"), 0);
    for (int i = 0; i < 5; i++) {
        expect(c, "$1", "GET a");
        expect(c, "nil", "GET none");
    }
    cr_assert_eq(nearside_info(n, "l1_hits"), 5);
    cr_assert_eq(nearside_info(n, "l1_negative_hits"), 5);
    expect(r->direct, "+OK", "SET a 3");
    nearside_await_info(n, "invalidations_received", 1, 1, 2000);
    await_reply(c, "$3", 2000, "GET a");
    expect(r->direct, "+OK", "FLUSHALL");
    /* both fill connections are told; the second message may not drop what is kept after the first */
    nearside_await_info(n, "invalidation_flushes", 2, 2, 2000);
    await_reply(c, "nil", 2000, "GET a");
    expect(c, "+OK", "SET a 4");
    nearside_await_info(n, "drops_write", 1, 1, 2000);
    cr_assert(strstr(nearside_info_text(n), "invalidation_mode:tracking\r\n") != NULL);
    cr_assert_eq(nearside_info(n, "tracking_refused"), 0);
    cr_assert_eq(nearside_info(n, "l1_leases"), 0);
    cr_assert_eq(nearside_info(n, "l1_waiters"), 0);
}

SCENARIO(info, lost_links_are_counted)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "nil", "GET k");
    cr_assert_eq(nearside_info(n, "link_losses"), 0);
    int killed = redis_kill_tracking(r);
    cr_assert(killed >= 1);
    nearside_await_info(n, "link_losses", killed, killed, 2000);
}

SCENARIO(info, a_lapsed_lease_is_counted)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "invalidation.link_lease=100ms", "upstream.dead_after=20s", NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    expect(c, "$v", "GET k");
    long long before = nearside_info(n, "link_lease_lapses");
    redis_freeze(r);
    nearside_await_info(n, "link_lease_lapses", before + 1, before + 2, 3000);
    redis_thaw(r);
    expect(c, "$v", "GET k");
}

SCENARIO(info, our_section_is_there_while_redis_is_not)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    expect(c, "$v", "GET k");
    cr_assert(strstr(nearside_info_text(n), ",state=up,") != NULL);
    redis_stop(r);
    int64_t deadline = now_ms() + 3000;
    while (strstr(nearside_info_text(n), ",state=down,") == NULL) {
        cr_assert(now_ms() < deadline, "still up:\n%s", nearside_info_text(n));
        pass_time(5);
    }
    const char *name = cleanup_printf("upstream0:name=127.0.0.1:%d,", r->port);
    cr_assert_not_null(strstr(nearside_info_text(n), name));
    int64_t asked = now_ms();
    (void)nearside_info_text(n);
    cr_assert(now_ms() - asked < 200 * slowdown());
}

/* Workers end one by one while others still write INFO, which asks all of them. */
SCENARIO(info, info_asked_for_before_the_end_is_answered_while_workers_end)
{
    enum { CLIENTS = 24, EACH = 10 };
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "proxy.workers=4", "proxy.drain_timeout=20s", NULL);
    struct client *c[CLIENTS];

    nearside_await_fills(n);
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = nearside_connect(n);
        expect(c[i], "+PONG", "PING");
    }
    redis_freeze(r);
    for (int i = 0; i < CLIENTS * EACH; i++) {
        cr_assert(client_command(c[i % CLIENTS], "INFO"));
    }
    /* so that they are on their way: a drain serves what has been read */
    nearside_await_info(n, "pending", CLIENTS * EACH, 2 * CLIENTS * EACH, 3000);
    n->expected_end = true;
    process_signal(n->process, SIGTERM);
    struct client *late;
    int64_t deadline = now_ms() + 5000;
    while ((late = client_try(n->port)) != NULL && now_ms() < deadline) {
        client_close(late);
        pass_time(1);
    }
    redis_thaw(r);
    for (int i = 0; i < CLIENTS * EACH; i++) {
        const struct reply *reply = client_reply(c[i % CLIENTS]);
        cr_assert(reply->type == '$' && !reply->null, "reply %d is of type %c", i, reply->type);
        cr_assert_not_null(strstr(reply->text, "# Nearside\r\n"));
    }
    for (int i = 0; i < CLIENTS; i++) {
        expect_next(c[i], "closed");
    }
    cr_assert(process_wait(n->process, 5000 * slowdown()), "still runs; log:\n%s", nearside_log(n));
    cr_assert_eq(process_status(n->process), 0);
}

SCENARIO(info, clients_are_counted)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c[10];

    for (int i = 0; i < 10; i++) {
        c[i] = nearside_connect(n);
        expect(c[i], "+PONG", "PING");
    }
    nearside_await_info(n, "clients_connected", 11, 11, 2000);
    for (int i = 0; i < 10; i++) {
        client_close(c[i]);
    }
    nearside_await_info(n, "clients_connected", 1, 1, 2000);
}

SCENARIO(info, configuration_that_benchmarks_ask_for_is_relayed)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "[$save $]", "CONFIG GET save");
    expect(c, "[$appendonly $no]", "CONFIG GET appendonly");
    expect(r->direct, "+OK", "CONFIG SET appendonly yes");
    expect(c, "[$appendonly $yes]", "CONFIG GET appendonly");
    expect(r->direct, "+OK", "CONFIG SET appendonly no");
}
