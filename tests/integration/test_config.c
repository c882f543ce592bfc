/* SPDX-License-Identifier: Apache-2.0
 *
 * test_config.c: the command line and the configuration file as an operator meets them: what is
 * printed, on which stream, and the exit status. A wrong configuration must never start.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <string.h>

TestSuite(config);

#define RUN_MS 5000

static struct process *run(const char *const *arguments)
{
    const char *argv[16] = {nearside_binary()};
    size_t n = 1;

    for (size_t i = 0; arguments[i] != NULL; i++) {
        cr_assert(n < 15);
        argv[n++] = arguments[i];
    }
    return process_run(argv, RUN_MS * slowdown());
}

#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

/* Checks a file and fails the test unless it is refused with every one of these words. */
static void refused(const char *text, const char *const *words)
{
    const char *path = temp_file(temp_dir(), "proxy.ini", text);
    struct process *p = RUN("-c", path, "--check");
    const char *err = process_stderr(p);

    cr_assert(process_status(p) != 0, "accepted:\n%s", text);
    for (size_t i = 0; words[i] != NULL; i++) {
        cr_assert(strstr(err, words[i]) != NULL, "no '%s' in the error about\n%s\n%s", words[i],
                  text, err);
    }
    struct process *started = RUN("-c", path);
    cr_assert(process_status(started) != 0);
}

#define REFUSED(text, ...) refused(text, (const char *const[]){__VA_ARGS__, NULL})

SCENARIO(config, version_and_help_go_to_stdout)
{
    struct process *version = RUN("--version");
    struct process *help = RUN("--help");

    cr_assert_eq(process_status(version), 0);
    cr_assert(strncmp(process_stdout(version), "nearside ", 9) == 0);
    cr_assert_str_empty(process_stderr(version));
    cr_assert_eq(process_status(help), 0);
    const char *const words[] = {"-c", "--set", "--check", "--version", "--print-config", "--help"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        cr_assert_not_null(strstr(process_stdout(help), words[i]), "%s is not in the help",
                           words[i]);
    }
}

SCENARIO(config, an_unknown_argument_is_an_error_with_usage_on_stderr)
{
    struct process *unknown = RUN("--nonsense");
    struct process *extra = RUN("file.ini");
    struct process *lacking = RUN("-c");

    cr_assert_neq(process_status(unknown), 0);
    cr_assert_not_null(strstr(process_stderr(unknown), "usage:"));
    cr_assert_neq(process_status(extra), 0);
    cr_assert_not_null(strstr(process_stderr(extra), "file.ini"));
    cr_assert_neq(process_status(lacking), 0);
}

SCENARIO(config, errors_name_file_line_option_and_what_was_expected)
{
    REFUSED("[proxy]\nworkers = many\n", "proxy.ini:2:", "workers", "many", "64");
    REFUSED("[proxy]\n\nworkers = 65\n", "proxy.ini:3:", "workers", "65", "64");
    REFUSED("[proxy]\nlisten = nowhere\n", "proxy.ini:2:", "listen", "nowhere");
    REFUSED("[l1]\nttl = 5\n", "proxy.ini:2:", "ttl", "ms");
    REFUSED("[l1]\nmax_memory = lots\n", "proxy.ini:2:", "max_memory", "lots");
    REFUSED("[invalidation]\nmode = magic\n", "proxy.ini:2:", "mode", "magic", "tracking");
    REFUSED("[invalidation]\nlink_lease = 50ms\n", "proxy.ini:2:", "link_lease", "100ms");
    REFUSED("[proxy]\nworkers = 1\nworkers = 2\n", "proxy.ini:3:", "workers", "2");
    REFUSED("[proxy]\nworkers = 1\n[proxy]\nwindow = 2\n", "proxy.ini:3:", "proxy");
    REFUSED("workers = 1\n", "proxy.ini:1:");
    REFUSED("[proxy]\njust words\n", "proxy.ini:2:");
}

SCENARIO(config, an_unknown_name_is_refused_and_the_nearest_is_suggested)
{
    REFUSED("[proxy]\nworker = 2\n", "proxy.ini:2:", "worker", "workers");
    REFUSED("[upstream]\nserver = 127.0.0.1:1\n", "proxy.ini:2:", "server", "servers");
    REFUSED("[upstraem]\nservers = 127.0.0.1:1\n", "proxy.ini:1:", "upstraem", "upstream");
}

SCENARIO(config, all_errors_are_reported_at_once)
{
    REFUSED("[proxy]\nworkers = x\nwindow = y\n[l1]\nttl = z\n",
            "proxy.ini:2:", "proxy.ini:3:", "proxy.ini:5:");
}

SCENARIO(config, contradictions_are_refused)
{
    REFUSED("[l1]\nttl = 1s\nnegative_ttl = 2s\n", "negative_ttl", "ttl");
    REFUSED("[l1]\nmax_memory = 1mb\nmax_item_size = 1mb\n", "max_item_size", "max_memory");
    REFUSED("[upstream]\npassword = a\npassword_file = /dev/null\n", "password_file", "password");
    REFUSED("[upstream]\nuser = me\n", "user", "password");
    REFUSED("[upstream]\nservers = 127.0.0.1:1\nservers = 127.0.0.1:2\n", "servers");
}

SCENARIO(config, a_file_that_cannot_be_read_is_an_error)
{
    struct process *missing = RUN("-c", "/nonexistent/proxy.ini", "--check");
    struct process *directory = RUN("-c", "/tmp", "--check");

    cr_assert_neq(process_status(missing), 0);
    cr_assert_not_null(strstr(process_stderr(missing), "/nonexistent/proxy.ini"));
    cr_assert_neq(process_status(directory), 0);
    cr_assert_not_null(strstr(process_stderr(directory), "/tmp"));
}

SCENARIO(config, a_wrong_set_names_itself)
{
    struct process *p = RUN("--set", "proxy.workers=many", "--check");

    cr_assert_neq(process_status(p), 0);
    cr_assert_not_null(strstr(process_stderr(p), "--set proxy.workers=many"));
    cr_assert_neq(process_status(RUN("--set", "proxy.nosuch=1", "--check")), 0);
    cr_assert_neq(process_status(RUN("--set", "nonsense", "--check")), 0);
}

SCENARIO(config, a_good_file_is_checked_and_not_run)
{
    const char *path = temp_file(temp_dir(), "proxy.ini",
                                 "# a comment\n[proxy]\nlisten = 127.0.0.1:1\nworkers = 3\n\n"
                                 "[l1]\nmax_memory = 128mb ; inline\n");
    struct process *p = RUN("-c", path, "--check");

    cr_assert(process_status(p) == 0, "%s", process_stderr(p));
}

SCENARIO(config, what_is_printed_can_be_loaded_and_shows_no_secret)
{
    const char *dir = temp_dir();
    const char *path = temp_file(dir, "proxy.ini",
                                 "[proxy]\nworkers = 3\n[upstream]\npassword = hunter2\n"
                                 "[l1]\nttl = 90s\n");
    struct process *p = RUN("-c", path, "--set", "proxy.window=77", "--print-config");
    const char *text = process_stdout(p);

    cr_assert(process_status(p) == 0, "%s", process_stderr(p));
    cr_assert_null(strstr(text, "hunter2"), "the password is shown");
    cr_assert_not_null(strstr(text, "workers = 3\n"));
    cr_assert_not_null(strstr(text, "window = 77\n"));
    const char *again = temp_file(dir, "again.ini", text);
    struct process *reloaded = RUN("-c", again, "--print-config");
    cr_assert(process_status(reloaded) == 0, "%s", process_stderr(reloaded));
    cr_assert_not_null(strstr(process_stdout(reloaded), "workers = 3\n"));
    cr_assert_not_null(strstr(process_stdout(reloaded), "window = 77\n"));
    cr_assert_not_null(strstr(process_stdout(reloaded), "ttl = 90s\n"));
}

SCENARIO(config, a_file_is_used_and_set_overrides_it)
{
    struct redis *r = redis_start(NULL);
    int port = free_port();
    const char *path =
        temp_file(temp_dir(), "proxy.ini",
                  cleanup_printf("[proxy]\nlisten = 127.0.0.1:%d\nworkers = 1\n[upstream]\n"
                                 "servers = 127.0.0.1:1\n",
                                 port));
    const char *const argv[] = {nearside_binary(),
                                "-c",
                                path,
                                "--set",
                                cleanup_printf("upstream.servers=127.0.0.1:%d", r->port),
                                NULL};
    struct process *p = process_start(&(struct process_options){.argv = argv});
    struct client *c = NULL;
    int64_t deadline = now_ms() + 10000;

    while ((c = client_try(port)) == NULL && now_ms() < deadline) {
        pass_time(5);
    }
    cr_assert_not_null(c);
    expect(c, "+OK", "SET k v");
    expect(r->direct, "$v", "GET k");
    cr_assert(client_command(c, "INFO nearside"));
    cr_assert_not_null(strstr(client_reply(c)->text, "\r\nworkers:1\r\n"));
    process_signal(p, 15);
    cr_assert(process_wait(p, RUN_MS) && process_status(p) == 0);
}

SCENARIO(config, the_line_at_the_start_names_the_listeners)
{
    int second = free_port();
    struct redis *r = redis_start(NULL);
    struct nearside *n =
        nearside_start(r->port, cleanup_printf("proxy.listen=127.0.0.1:%d", second), NULL);

    cr_assert_not_null(strstr(nearside_log(n), cleanup_printf("127.0.0.1:%d", n->port)));
    cr_assert_not_null(strstr(nearside_log(n), cleanup_printf("127.0.0.1:%d", second)));
    struct client *c = client_connect(second);
    expect(c, "+OK", "SET k v");
    expect(nearside_connect(n), "$v", "GET k");
}

SCENARIO(config, a_port_in_use_is_an_error_that_names_it)
{
    struct redis *r = redis_start(NULL);
    const char *listen = cleanup_printf("proxy.listen=127.0.0.1:%d", r->port);
    struct process *p = RUN("--set", listen);

    cr_assert_neq(process_status(p), 0);
    cr_assert_not_null(strstr(process_stderr(p), cleanup_printf("%d", r->port)));
    cr_assert_not_null(strstr(process_stderr(p), "in use"));
}

SCENARIO(config, passwords_may_come_from_a_file)
{
    struct redis *r = redis_start(NULL);
    const char *path = temp_file(temp_dir(), "password", "open sesame\n");

    expect(r->direct, "+OK", "CONFIG SET requirepass 'open sesame'");
    struct nearside *n =
        nearside_start(r->port, cleanup_printf("upstream.password_file=%s", path), NULL);
    struct client *c = nearside_connect(n);
    await_reply(c, "+OK", 2000, "SET k v");
    expect(c, "$v", "GET k");
}

SCENARIO(config, a_user_of_redis_may_be_named)
{
    struct redis *r = redis_start(NULL);

    expect(r->direct, "+OK", "ACL SETUSER near on >secret ~* &* +@all");
    expect(r->direct, "+OK", "ACL SETUSER default off");
    struct nearside *n =
        nearside_start(r->port, "upstream.user=near", "upstream.password=secret", NULL);
    struct client *c = nearside_connect(n);
    await_reply(c, "+OK", 2000, "SET k v");
    expect(c, "$v", "GET k");
    expect(c, "$near", "ACL WHOAMI");
}
