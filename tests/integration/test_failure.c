/* SPDX-License-Identifier: Apache-2.0
 *
 * test_failure.c: what clients get when something is down, slow, dead or lying, and that the proxy
 * outlives it. Three kinds of trouble: a real Redis that is stopped, killed or frozen; a relay that
 * cuts or stalls the link; a fake server that sends what no Redis would.
 *
 * Bounds on time are those the options promise plus slack for a busy machine.
 */
#include "../support/await.h"
#include "../support/fake.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(failure);

/* Asks and fails the test if the reply takes longer than `ms`; returns its text. */
static const char *ask_within(struct client *c, int64_t ms, const char *line)
{
    int64_t asked = now_ms();
    const char *got = ask(c, "%s", line);
    int64_t took = now_ms() - asked;

    cr_assert(took <= ms * slowdown(), "%s took %lld ms: '%s'", line, (long long)took, got);
    return got;
}

SCENARIO(failure, a_missing_redis_gives_errors_at_once_and_is_used_when_it_appears)
{
    int port = free_port();
    struct nearside *n = nearside_start(port, NULL);
    struct client *c = nearside_connect(n);

    for (int i = 0; i < 5; i++) {
        cr_assert(ask_within(c, 200, "GET k")[0] == '-');
        cr_assert(ask_within(c, 200, "SET k v")[0] == '-');
        cr_assert(ask_within(c, 200, "MGET k k2")[0] == '-');
        cr_assert(ask_within(c, 200, "LRANGE l 0 -1")[0] == '-');
        cr_assert(ask_within(c, 200, "EVAL 'return 1' 0")[0] == '-');
    }
    cr_assert(matches(ask_within(c, 200, "PING"), "+PONG"));
    struct redis *r = redis_start_on(port, NULL);
    await_reply(c, "+OK", 3000, "SET k v");
    await_reply(c, "$v", 3000, "GET k");
    expect(r->direct, "$v", "GET k");
}

SCENARIO(failure, errors_about_the_upstream_have_one_prefix)
{
    struct nearside *n = nearside_start(free_port(), NULL);
    struct client *c = nearside_connect(n);

    expect(c, "-UPSTREAM ...", "GET k");
    expect(c, "-UPSTREAM ...", "SET k v");
    expect(c, "-UPSTREAM ...", "MGET a b");
    expect(c, "-UPSTREAM ...", "HGETALL h");
    expect(c, "-UPSTREAM ...", "FLUSHALL");
    expect(c, "-UPSTREAM ...", "NOSUCHCOMMAND x");
}

SCENARIO(failure, a_restarted_redis_is_used_again_and_nothing_old_is_served)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);

    for (int round = 0; round < 3; round++) {
        await_reply(a, "+OK", 3000, "SET k before");
        await_reply(b, "$before", 3000, "GET k");
        redis_stop(r);
        /* the end of the link is noticed at once; from then on there is nothing to serve */
        await_reply(a, "-...", 200 * slowdown(), "GET k");
        await_reply(b, "-...", 200 * slowdown(), "GET k");
        for (int i = 0; i < 20; i++) {
            cr_assert(ask_within(a, 200, "GET k")[0] == '-');
            cr_assert(ask_within(b, 200, "GET k")[0] == '-');
        }
        redis_restart(r);
        await_reply(a, "nil", 3000, "GET k");
        await_reply(b, "nil", 3000, "GET k");
        expect(r->direct, "+OK", "SET k after");
        await_reply(a, "$after", 1500, "GET k");
        await_reply(b, "$after", 1500, "GET k");
    }
}

/* dead_after, then connect_timeout for a read that is tried once more on a new connection, and slack */
#define BOUND_MS (1000 + 300 + 500)

SCENARIO(failure, a_frozen_redis_gives_errors_in_time_and_no_value_beyond_the_lease)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, "invalidation.link_lease=300ms", "upstream.dead_after=1s",
                       "upstream.connect_timeout=300ms", NULL);
    struct client *reader = nearside_connect(n);
    struct client *writer = nearside_connect(n);
    struct client *late = nearside_connect(n);

    expect(writer, "+OK", "SET k v");
    expect(reader, "$v", "GET k");
    redis_freeze(r);
    int64_t frozen = now_ms();
    cr_assert(client_command(writer, "SET k w"));
    cr_assert(client_command(late, "GET other"));
    while (now_ms() < frozen + 320) {
        pass_time(10);
    }
    /* the lease has run out: this one may not come from the cache */
    const char *got = ask_within(reader, BOUND_MS, "GET k");
    cr_assert(got[0] == '-', "%lld ms after the freeze: '%s'", (long long)(now_ms() - frozen), got);
    cr_assert(matches(client_read(writer), "-UPSTREAM ..."));
    cr_assert(matches(client_read(late), "-UPSTREAM ..."));
    cr_assert(now_ms() - frozen <= BOUND_MS * slowdown(), "errors after %lld ms",
              (long long)(now_ms() - frozen));
    redis_thaw(r);
    await_reply(reader, "$...", 5000, "GET k");
    await_reply(writer, "+OK", 5000, "SET k x");
    expect(reader, "$x", "GET k");
}

SCENARIO(failure, a_slow_redis_is_not_a_dead_one)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);

    expect(a, "+OK", "SET k v");
    expect(b, "$v", "GET k");
    cr_assert(client_command(r->direct, "DEBUG SLEEP 1.5"));
    pass_time(20);
    cr_assert(client_command(a, "APPEND k w"));
    cr_assert(client_command(b, "GET other"));
    expect_next(a, ":2");
    expect_next(b, "nil");
    expect_next(r->direct, "+OK");
    expect(b, "$vw", "GET k");
}

SCENARIO(failure, errors_of_redis_are_passed_on_as_they_are)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    expect(r->direct, "+OK", "CONFIG SET maxmemory 1");
    expect(c, "-OOM command not allowed when used memory > 'maxmemory'.", "SET k w");
    expect(c, "$v", "GET k");
    expect(r->direct, "+OK", "CONFIG SET maxmemory 0");
    expect(c, "+OK", "SET k w");
    expect(c, "$w", "GET k");
    expect(r->direct, "+OK", "REPLICAOF 127.0.0.1 1");
    expect(c, "-READONLY ...", "SET k x");
    expect(c, "$w", "GET k");
}

SCENARIO(failure, a_cut_link_loses_no_client_and_is_made_again)
{
    struct redis *r = redis_start(NULL);
    struct relay *link = relay_start(r->port, NULL);
    struct nearside *n = nearside_start(relay_port(link), NULL);
    struct client *c[4];

    for (int i = 0; i < 4; i++) {
        c[i] = nearside_connect(n);
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 4; i++) {
            cr_assert(client_command(c[i], "SET k%d %d", i, round));
            cr_assert(client_command(c[i], "GET k%d", i));
            cr_assert(client_command(c[i], "GET none%d", i));
        }
        relay_cut(link, false);
        for (int i = 0; i < 4; i++) {
            for (int reply = 0; reply < 3; reply++) {
                const char *got = client_read(c[i]);
                cr_assert(strchr("+-$n", got[0]) != NULL, "got '%s'", got);
            }
        }
        for (int i = 0; i < 4; i++) {
            await_reply(c[i], "+OK", 3000, "SET k%d after%d", i, round);
            await_reply(c[i], cleanup_printf("$after%d", round), 3000, "GET k%d", i);
        }
    }
}

/* ---- A server that lies --------------------------------------------------------------------- */

struct lie {
    const char *reply;
    size_t n;
    enum fake_then then;
};

#define LIE(text, then)                                                                            \
    {                                                                                              \
        text, sizeof(text) - 1, then                                                               \
    }

static const struct lie lies[] = {
    LIE("$10\r\nhalf", FAKE_CLOSE),
    LIE("$10\r\nhalf", FAKE_RESET),
    LIE("$10", FAKE_CLOSE),
    LIE("", FAKE_CLOSE),
    LIE("", FAKE_RESET),
    LIE("$-2\r\n", FAKE_KEEP),
    LIE("$3\r\nlonger\r\n", FAKE_KEEP),
    LIE("$99999999999999999999\r\nx\r\n", FAKE_KEEP),
    LIE("$9223372036854775807\r\nx\r\n", FAKE_KEEP),
    LIE("$1099511627776\r\nx\r\n", FAKE_KEEP),
    LIE("$x\r\n", FAKE_KEEP),
    LIE("*-2\r\n", FAKE_KEEP),
    LIE("*2147483647\r\n", FAKE_CLOSE),
    LIE("*99999999999\r\n", FAKE_KEEP),
    LIE("*3\r\n$1\r\na\r\n", FAKE_CLOSE),
    LIE("*1\r\n$9999999999\r\n", FAKE_KEEP),
    LIE("*1\r\n*1\r\n*1\r\n!\r\n", FAKE_KEEP),
    LIE("hello\r\n", FAKE_KEEP),
    LIE("\r\n", FAKE_KEEP),
    LIE("\0\0\0\0", FAKE_KEEP),
    LIE("HTTP/1.1 400 Bad Request\r\n\r\n", FAKE_CLOSE),
    LIE(":12x4\r\n", FAKE_CLOSE),
    LIE(">2\r\n$10\r\ninvalidate\r\n$3\r\nfoo\r\n:1\r\n", FAKE_CLOSE),
    LIE("+OK\r\n+OK\r\n+OK\r\n+OK\r\n", FAKE_KEEP),
    LIE("$5\r\nvalue\r\n:-1\r\n$5\r\nextra\r\n:-1\r\n", FAKE_KEEP),
};

/* After each lie the proxy must have given an error, a close or a well-formed reply, and serve on. */
static void survive(const char *command, const char *prefix)
{
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        struct fake_rule *rules = cleanup_alloc(2 * sizeof(*rules));
        rules[0] = (struct fake_rule){prefix, lies[i].reply, lies[i].n, lies[i].then};
        struct fake *f = fake_start(rules);
        struct nearside *n =
            nearside_start(fake_port(f), "upstream.dead_after=500ms", "proxy.workers=1", NULL);
        struct client *c = nearside_connect(n);
        struct client *other = nearside_connect(n);
        expect(other, "$value", "GET good");
        client_set_timeout(c, 4000);
        cr_assert(client_command(c, "%s", command));
        const char *got = client_read(c);
        cr_assert(strcmp(got, "timeout") != 0 && strncmp(got, "garbage", 7) != 0,
                  "%s answered by '%s': the client gets '%s'", command, lies[i].reply, got);
        await_reply(other, "$value", 5000, "GET good%zu", i);
        await_reply(other, "+OK", 5000, "SET good v");
        client_close(c);
        client_close(other);
        nearside_stop(n, 5000);
    }
}

SCENARIO(failure, lies_about_a_value_are_survived)
{
    survive("GET bad", "GET bad");
}

SCENARIO(failure, lies_about_a_write_are_survived)
{
    survive("SET bad v", "SET bad");
}

SCENARIO(failure, lies_about_a_list_are_survived)
{
    survive("LRANGE bad 0 -1", "LRANGE bad");
}

SCENARIO(failure, lies_about_several_values_are_survived)
{
    survive("MGET bad good", "MGET bad");
}

SCENARIO(failure, lies_while_connecting_are_survived)
{
    static const char *const steps[] = {"HELLO", "CLIENT TRACKING", "INFO", "PING"};

    for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
        for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i += 4) {
            struct fake_rule *rules = cleanup_alloc(2 * sizeof(*rules));
            rules[0] = (struct fake_rule){steps[s], lies[i].reply, lies[i].n, lies[i].then};
            struct fake *f = fake_start(rules);
            struct nearside *n = nearside_start(fake_port(f), "upstream.dead_after=500ms",
                                                "upstream.connect_timeout=200ms", NULL);
            struct client *c = nearside_connect(n);
            client_set_timeout(c, 3000);
            for (int again = 0; again < 3; again++) {
                const char *got = ask(c, "GET k");
                cr_assert(strcmp(got, "timeout") != 0, "%s answered by '%s': no reply", steps[s],
                          lies[i].reply);
            }
            nearside_stop(n, 5000);
        }
    }
}

SCENARIO(failure, a_reply_in_single_bytes_is_read_like_any_other)
{
    static const struct fake_rule rules[] = {
        {"GET slow", "$12\r\nbyte by byte\r\n", 0, FAKE_SLOW},
        {"LRANGE slow", "*2\r\n$1\r\na\r\n*1\r\n:5\r\n", 0, FAKE_SLOW},
        {NULL, NULL, 0, FAKE_KEEP}};
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);
    struct client *c = nearside_connect(n);

    expect(c, "$byte by byte", "GET slow");
    expect(c, "[$a [:5]]", "LRANGE slow 0 -1");
}

SCENARIO(failure, a_write_whose_reply_is_lost_is_an_error_and_is_not_sent_again)
{
    static const struct fake_rule rules[] = {{"SET lost", NULL, 0, FAKE_CLOSE},
                                             {"INCR lost", "$5\r\nha", 0, FAKE_RESET},
                                             {"EVAL", NULL, 0, FAKE_CLOSE},
                                             {NULL, NULL, 0, FAKE_KEEP}};
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);

    for (int i = 1; i <= 5; i++) {
        struct client *c = nearside_connect(n);
        await_reply(c, "+OK", 3000, "SET good v");
        expect(c, "-UPSTREAM ...", "SET lost v");
        await_reply(c, "+OK", 3000, "SET good v");
        expect(c, "-UPSTREAM ...", "EVAL 'return 1' 0");
        await_reply(c, "+OK", 3000, "SET good v");
        /* half of its reply came: an error, or a close if that half was passed on */
        const char *got = ask(c, "INCR lost");
        cr_assert(got[0] == '-' || strcmp(got, "closed") == 0 || strcmp(got, "cut") == 0,
                  "got '%s'", got);
        cr_assert_eq(fake_seen(f, "SET lost"), i);
        cr_assert_eq(fake_seen(f, "EVAL"), i);
        cr_assert_eq(fake_seen(f, "INCR lost"), i);
    }
}

SCENARIO(failure, a_read_whose_reply_is_lost_is_sent_again_once_at_most)
{
    static const struct fake_rule rules[] = {{"STRLEN lost", NULL, 0, FAKE_CLOSE},
                                             {"GET lost", NULL, 0, FAKE_CLOSE},
                                             {NULL, NULL, 0, FAKE_KEEP}};
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);
    struct client *c = nearside_connect(n);

    await_reply(c, "+OK", 3000, "SET good v");
    expect(c, "-UPSTREAM ...", "STRLEN lost");
    await_reply(c, "+OK", 3000, "SET good v");
    expect(c, "-UPSTREAM ...", "GET lost");
    cr_assert(fake_seen(f, "STRLEN lost") <= 2, "sent %d times", fake_seen(f, "STRLEN lost"));
    cr_assert(fake_seen(f, "GET lost") <= 2, "sent %d times", fake_seen(f, "GET lost"));
}

/* ---- Clients that leave --------------------------------------------------------------------- */

/* Sends something on many connections and leaves, by close and by reset. */
static void leave(struct nearside *n, const char *command, int count)
{
    struct client *c[32];

    cr_assert(count <= 32);
    for (int i = 0; i < count; i++) {
        c[i] = nearside_connect(n);
        cr_assert(client_command(c[i], "%s", command));
    }
    pass_time(20); /* so that the requests are on their way */
    for (int i = 0; i < count; i++) {
        if (i % 2 == 0) {
            client_close(c[i]);
        } else {
            client_reset(c[i]);
        }
    }
}

SCENARIO(failure, clients_that_leave_in_any_state_leave_nothing_behind)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    size_t size = (size_t)32 * 1024 * 1024;
    char *value = cleanup_alloc(size);

    memset(value, 'v', size);
    cr_assert(client_command_big(c, "SET huge", value, size));
    expect_next(c, "+OK");
    client_close(c);
    for (int round = 0; round < 3; round++) {
        redis_freeze(r);
        leave(n, cleanup_printf("GET cold%d", round), 16); /* waiting on one fetch */
        leave(n, "SET k v", 16);                           /* waiting on a lane */
        leave(n, "MGET a b c", 8);
        leave(n, "EVAL 'return 1' 0", 8);
        leave(n, "LRANGE l 0 -1", 8);
        redis_thaw(r);
        leave(n, "GET huge", 4);
        leave(n, "GETRANGE huge 0 -1", 4);
        nearside_await_info(n, "clients_connected", 0, 1, 15000);
    }
    nearside_await_info(n, "l1_waiters", 0, 0, 15000);
    nearside_await_info(n, "l1_leases", 0, 0, 15000);
    nearside_await_info(n, "client_memory", 0, 1024 * 1024, 15000);
    c = nearside_connect(n);
    expect(c, "nil", "GET cold0");
    expect(c, "$v", "GET k");
}

SCENARIO(failure, a_client_that_leaves_does_not_take_the_fetch_of_others_with_it)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *first = nearside_connect(n);
    struct client *second = nearside_connect(n);
    struct client *third = nearside_connect(n);

    expect(r->direct, "+OK", "SET k v");
    redis_freeze(r);
    cr_assert(client_command(first, "GET k"));
    pass_time(20);
    cr_assert(client_command(second, "GET k") && client_command(third, "GET k"));
    pass_time(20);
    client_reset(first);
    client_close(second);
    pass_time(20);
    redis_thaw(r);
    expect_next(third, "$v");
}

/* ---- The end -------------------------------------------------------------------------------- */

static void drain(int sig)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.drain_timeout=5s", NULL);
    struct client *busy = nearside_connect(n);
    struct client *fetching = nearside_connect(n);
    struct client *idle = nearside_connect(n);

    expect(idle, "+OK", "SET k v");
    redis_freeze(r);
    cr_assert(client_command(busy, "APPEND k w") && client_command(busy, "STRLEN k"));
    cr_assert(client_command(fetching, "GET other"));
    pass_time(50); /* so that they are in flight */
    n->expected_end = true;
    process_signal(n->process, sig);
    expect_next(idle, "closed");
    redis_thaw(r);
    expect_next(busy, ":2");
    expect_next(busy, ":2");
    expect_next(busy, "closed");
    expect_next(fetching, "nil");
    expect_next(fetching, "closed");
    cr_assert(process_wait(n->process, 3000 * slowdown()), "still runs; log:\n%s", nearside_log(n));
    cr_assert_eq(process_status(n->process), 0);
    cr_assert_null(client_try(n->port));
}

SCENARIO(failure, sigterm_lets_requests_under_way_finish)
{
    drain(SIGTERM);
}

SCENARIO(failure, sigint_lets_requests_under_way_finish)
{
    drain(SIGINT);
}

SCENARIO(failure, sighup_is_ignored_and_the_log_says_that_nothing_is_reloaded)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    for (int i = 1; i <= 2; i++) { /* the second finds the handler still there */
        int64_t deadline = now_ms() + 5000 * slowdown();
        process_signal(n->process, SIGHUP);
        while (nearside_log_lines(n, "SIGHUP ignored: nothing is reloaded") < i) {
            cr_assert(!process_ended(n->process) && now_ms() < deadline, "log:\n%s",
                      nearside_log(n));
            pass_time(1);
        }
    }
    expect(c, "+PONG", "PING");
    expect(c, "$v", "GET k");
    nearside_check_alive(n);
}

SCENARIO(failure, the_end_does_not_wait_longer_than_it_was_told)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.drain_timeout=300ms", NULL);
    struct client *c = nearside_connect(n);

    expect(c, "+OK", "SET k v");
    redis_freeze(r);
    cr_assert(client_command(c, "SET k w"));
    pass_time(20);
    nearside_stop(n, 2000 * slowdown());
    const char *got = client_read(c);
    cr_assert(strcmp(got, "closed") == 0 || got[0] == '-', "got '%s'", got);
}

/* ---- What reads the log ----------------------------------------------------------------------- */

/* Fills a pipe through an open file of its own: O_NONBLOCK is not for those who share this one. */
static void fill_pipe(int write_end)
{
    char zeros[4096] = {0};
    int fd = open(cleanup_printf("/proc/self/fd/%d", write_end), O_WRONLY | O_NONBLOCK | O_CLOEXEC);

    cr_assert_geq(fd, 0);
    while (write(fd, zeros, sizeof(zeros)) > 0) {
        /* more */
    }
    cr_assert_eq(errno, EAGAIN);
    close(fd);
}

SCENARIO(failure, the_proxy_serves_and_ends_while_nobody_reads_its_log)
{
    struct redis *r = redis_start(NULL);
    int ends[2];

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    fill_pipe(ends[1]);
    struct nearside *n =
        nearside_start_with(&(struct nearside_options){.upstream_port = r->port, .err = ends[1]});
    struct client *c = nearside_connect(n);
    expect(c, "+OK", "SET k v");
    redis_stop(r);
    cr_assert(matches(ask(c, "SET k w"), "-UPSTREAM..."));
    expect(c, "+PONG", "PING");
    cr_assert_gt(nearside_info(n, "log_lines_lost"), 0);
    nearside_stop(n, 5000 * slowdown());
    close(ends[0]);
    close(ends[1]);
}

SCENARIO(failure, who_reads_the_log_again_is_told_how_many_lines_were_lost)
{
    static char text[1 << 18];
    struct redis *r = redis_start(NULL);
    int ends[2];
    size_t got = 0;

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    fill_pipe(ends[1]);
    struct nearside *n =
        nearside_start_with(&(struct nearside_options){.upstream_port = r->port, .err = ends[1]});
    for (int round = 0; round < 2; round++) {
        for (ssize_t m; (m = read(ends[0], text + got, sizeof(text) - got)) > 0;) {
            got += (size_t)m;
        }
        if (round == 0) {
            nearside_stop(n, 5000 * slowdown());
        }
    }
    close(ends[0]);
    close(ends[1]);
    const char *told = "log lines were lost: stderr was not read";
    const char *stopped = "Z info stopped\n";
    cr_assert_not_null(memmem(text, got, told, strlen(told)));
    cr_assert_not_null(memmem(text, got, stopped, strlen(stopped)));
}

/* The next client would be descriptor 2 otherwise, and have the log in what it reads. */
SCENARIO(failure, a_closed_stderr_is_no_clients)
{
    struct redis *r = redis_start(NULL);
    char target[64] = "";
    int port = free_port();
    const char *const argv[] = {"sh",
                                "-c",
                                "exec \"$0\" \"$@\" <&- >&- 2>&-",
                                nearside_binary(),
                                "--set",
                                cleanup_printf("proxy.listen=127.0.0.1:%d", port),
                                "--set",
                                cleanup_printf("upstream.servers=127.0.0.1:%d", r->port),
                                NULL};
    struct process *p = process_start(&(struct process_options){.argv = argv});
    struct client *c = NULL;

    for (int64_t end = now_ms() + 10000 * slowdown(); c == NULL && now_ms() < end;) {
        pass_time(5);
        c = client_try(port);
    }
    cr_assert(c != NULL && !process_ended(p));
    expect(c, "+PONG", "PING");
    for (int fd = 0; fd <= 2; fd++) {
        const char *name = cleanup_printf("/proc/%d/fd/%d", (int)process_pid(p), fd);
        ssize_t len = readlink(name, target, sizeof(target) - 1);
        target[len > 0 ? len : 0] = '\0';
        cr_assert_str_eq(target, "/dev/null");
    }
    process_signal(p, SIGTERM);
    cr_assert(process_wait(p, 10000 * slowdown()));
    cr_assert_eq(process_status(p), 0);
}
