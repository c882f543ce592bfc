/* SPDX-License-Identifier: Apache-2.0
 *
 * test_unix.c: Unix sockets, towards clients and towards Redis; and what is in the way of one.
 */
#include "../support/await.h"
#include "../support/cleanup.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

TestSuite(unix_socket);

static const char *path_in(const char *dir, const char *name)
{
    return cleanup_printf("%s/%s", dir, name);
}

static struct nearside *start_at(struct redis *r, const char *path)
{
    return nearside_start(r->port, cleanup_printf("proxy.listen=unix:%s", path), NULL);
}

static struct client *connect_unix(const char *path)
{
    struct client *c = client_try_unix(path);

    cr_assert(c != NULL, "cannot connect to %s", path);
    return c;
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* What a process that was killed leaves behind: a socket file nobody listens on. */
static void leave_stale(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(strlen(path) < sizeof(addr.sun_path));
    strcpy(addr.sun_path, path);
    cr_assert_eq(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    cr_assert_eq(listen(fd, 1), 0);
    close(fd);
    cr_assert(exists(path));
}

/* It must not start, and say this. */
static void expect_refusal(struct redis *r, const char *path, const char *why)
{
    const char *const argv[] = {nearside_binary(),
                                "--set",
                                cleanup_printf("proxy.listen=unix:%s", path),
                                "--set",
                                cleanup_printf("upstream.servers=127.0.0.1:%d", r->port),
                                NULL};
    struct process *p = process_run(argv, 10000);

    cr_assert_neq(process_status(p), 0);
    cr_assert_not_null(strstr(process_stderr(p), path), "%s", process_stderr(p));
    cr_assert_not_null(strstr(process_stderr(p), why), "%s", process_stderr(p));
}

SCENARIO(unix_socket, clients_come_over_one_and_over_tcp_at_the_same_time)
{
    struct redis *r = redis_start(NULL);
    const char *path = path_in(temp_dir(), "n.sock");
    struct nearside *n = start_at(r, path);
    struct client *c = connect_unix(path);

    expect(c, "+OK", "SET k v");
    expect(nearside_connect(n), "$v", "GET k");
    expect(c, "$v", "GET k");
    cr_assert_not_null(strstr(nearside_log(n), cleanup_printf("unix:%s", path)));
}

SCENARIO(unix_socket, redis_cli_takes_it_for_redis)
{
    struct redis *r = redis_start(NULL);
    const char *path = path_in(temp_dir(), "n.sock");

    start_at(r, path);
    struct process *p =
        process_run((const char *const[]){"redis-cli", "-s", path, "PING", NULL}, 10000);
    cr_assert_str_eq(process_stdout(p), "PONG\n");
}

SCENARIO(unix_socket, redis_may_be_reached_over_one)
{
    const char *path = path_in(temp_dir(), "redis.sock");
    const char *const extra[] = {"--unixsocket", path, NULL};
    struct redis *r = redis_start(extra);
    const char *upstream = cleanup_printf("unix:%s", path);
    struct nearside *n = nearside_start_with(&(struct nearside_options){.upstream = upstream});
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    expect(c, "+OK", "SET k v");
    expect(c, "$v", "GET k");
    long long hits = nearside_info(n, "l1_hits");
    expect(c, "$v", "GET k");
    cr_assert_eq(nearside_info(n, "l1_hits"), hits + 1);
    cr_assert_not_null(strstr(redis_clients(r), cleanup_printf("addr=%s:0", path)));
    cr_assert_not_null(strstr(nearside_info_text(n), cleanup_printf("name=%s,", upstream)));
    cr_assert_not_null(strstr(nearside_log(n), cleanup_printf("connected to %s", upstream)));

    redis_stop(r);
    await_reply(c, cleanup_printf("-UPSTREAM %s: not connected...", upstream), 5000, "GET other");
    redis_restart(r);
    await_reply(c, "+OK", 10000, "SET k w");
    expect(c, "$w", "GET k");
}

SCENARIO(unix_socket, both_sides_at_once)
{
    const char *dir = temp_dir();
    const char *path = path_in(dir, "redis.sock");
    const char *const extra[] = {"--unixsocket", path, NULL};
    const char *here = path_in(dir, "n.sock");
    const char *const sets[] = {cleanup_printf("proxy.listen=unix:%s", here), NULL};

    redis_start(extra);
    struct nearside *n = nearside_start_with(
        &(struct nearside_options){.upstream = cleanup_printf("unix:%s", path), .sets = sets});
    struct client *c = connect_unix(here);
    nearside_await_fills(n);
    store_value(c, "large", 3 << 20);
    expect(c, ":3145728", "STRLEN large");
    expect(c, "$(3145728 bytes)", "GET large");
    expect(c, "[$one]", "EVAL 'return {ARGV[1]}' 0 one");
}

/* What CLIENT INFO says of the client, of its address and its kind. */
static void expect_shown(struct client *c, const char *path)
{
    const char *text = ask(c, "CLIENT INFO");

    cr_assert_not_null(strstr(text, cleanup_printf(" addr=%s:0 laddr=%s:0 fd=", path, path)), "%s",
                       text);
    cr_assert_not_null(strstr(text, " flags=U "), "%s", text);
}

SCENARIO(unix_socket, clients_of_one_are_shown_and_killed_as_redis_does_it)
{
    const char *dir = temp_dir();
    const char *theirs = path_in(dir, "redis.sock");
    const char *ours = path_in(dir, "n.sock");
    const char *const extra[] = {"--unixsocket", theirs, NULL};
    struct redis *r = redis_start(extra);

    start_at(r, ours);
    struct client *direct = connect_unix(theirs);
    struct client *c = connect_unix(ours);
    struct client *victim = connect_unix(ours);
    expect_shown(direct, theirs);
    expect_shown(c, ours);
    expect(victim, "+PONG", "PING");
    expect(c, ":1", "CLIENT KILL ADDR %s:0", ours);
    cr_assert(client_drain_to_end(victim));
    expect(c, "+PONG", "PING");
}

SCENARIO(unix_socket, file_has_the_mode_that_was_asked_for_and_goes_at_the_end)
{
    struct redis *r = redis_start(NULL);
    const char *dir = temp_dir();
    const char *ours = path_in(dir, "ours");
    const char *all = path_in(dir, "all");
    struct stat st;
    struct nearside *n = start_at(r, ours);

    cr_assert_eq(stat(ours, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0700);
    nearside_stop(n, 10000);
    cr_assert_not(exists(ours));

    nearside_start(r->port, cleanup_printf("proxy.listen=unix:%s", all),
                   "proxy.unix_socket_mode=777", NULL);
    cr_assert_eq(stat(all, &st), 0);
    cr_assert_eq(st.st_mode & 07777, 0777);
}

SCENARIO(unix_socket, file_of_a_killed_process_is_taken_over)
{
    struct redis *r = redis_start(NULL);
    const char *path = path_in(temp_dir(), "n.sock");
    struct nearside *n = start_at(r, path);

    n->expected_end = true;
    process_kill(n->process);
    cr_assert(exists(path));
    start_at(r, path);
    expect(connect_unix(path), "+PONG", "PING");
}

SCENARIO(unix_socket, living_one_is_never_stolen)
{
    struct redis *r = redis_start(NULL);
    const char *path = path_in(temp_dir(), "n.sock");
    struct nearside *first = start_at(r, path);

    expect_refusal(r, path, "another process listens there");
    expect(connect_unix(path), "+PONG", "PING");
    nearside_check_alive(first);
}

SCENARIO(unix_socket, what_is_no_socket_stays)
{
    struct redis *r = redis_start(NULL);
    const char *path = temp_file(temp_dir(), "precious", "text");

    expect_refusal(r, path, "no socket");
    cr_assert(exists(path));
    expect_refusal(r, path_in(temp_dir(), "no/such/dir"), "No such file or directory");
}

/* The file of somebody who took the path over since is not ours to remove. */
SCENARIO(unix_socket, file_of_another_process_stays_at_the_end)
{
    struct redis *r = redis_start(NULL);
    const char *path = path_in(temp_dir(), "n.sock");
    struct nearside *n = start_at(r, path);

    cr_assert_eq(unlink(path), 0);
    leave_stale(path);
    nearside_stop(n, 10000);
    cr_assert(exists(path));
}

SCENARIO(unix_socket, clients_of_one_are_local_for_protected_mode)
{
    struct redis *r = redis_start(NULL);
    const char *path = path_in(temp_dir(), "n.sock");
    struct nearside *n = start_at(r, path);

    expect(connect_unix(path), "+PONG", "PING");
    cr_assert_eq(nearside_info(n, "clients_refused"), 0);
}
