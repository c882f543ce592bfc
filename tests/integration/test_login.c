/* SPDX-License-Identifier: Apache-2.0
 *
 * test_login.c: who may talk to the proxy (proxy.password, protected mode), and as whom the proxy
 * talks to Redis (upstream.user, upstream.password).
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static struct redis *start_guarded(void)
{
    struct redis *r = redis_start(NULL);

    expect(r->direct, "+OK", "CONFIG SET requirepass secret");
    return r;
}

/* ---- AUTH ------------------------------------------------------------------------------------------ */

static const char *const session[] = {
    "PING",
    "GET k",
    "GET",
    "MGET a b",
    "SET k v",
    "ECHO x",
    "INFO",
    "MULTI",
    "EXEC",
    "SUBSCRIBE a",
    "UNSUBSCRIBE",
    "MONITOR",
    "WAIT 0 0",
    "CLIENT ID",
    "CLIENT LIST",
    "CLIENT REPLY OFF",
    "SELECT 1",
    "COMMAND",
    "READONLY",
    "EVAL 'return 1' 0",
    "BLPOP none 1",
    "HELLO",
    "HELLO 2",
    "HELLO 3",
    "HELLO 3 SETNAME me",
    "HELLO 4",
    "HELLO 3 AUTH default wrong",
    "HELLO 3 AUTH nobody secret",
    "HELLO 3 AUTH secret",
    "AUTH",
    "AUTH wrong",
    "AUTH ''",
    "AUTH secre",
    "AUTH secretsecret",
    "AUTH Secret",
    "AUTH default wrong",
    "AUTH nobody secret",
    "AUTH a b c",
    "PING",
    "RESET",
    "AUTH secret",
    "PING",
    "GET none",
    "CLIENT GETNAME",
    "AUTH wrong",
    "PING",
    "HELLO 2 AUTH default wrong",
    "PING",
    "AUTH default secret",
    "AUTH a b c",
    "SELECT 1",
    "GET none",
    "RESET",
    "PING",
    "GET none",
    "QUIT",
};

SCENARIO(login, a_password_is_asked_for_in_the_words_of_redis)
{
    struct redis *guarded = start_guarded();
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.password=secret", NULL);
    struct client *direct = client_connect(guarded->port);
    struct client *c = client_connect(n->port);

    n->password = "secret";
    nearside_await_fills(n);
    for (size_t i = 0; i < sizeof(session) / sizeof(session[0]); i++) {
        const char *want = cleanup_printf("%s", ask(direct, "%s", session[i]));
        const char *got = ask(c, "%s", session[i]);
        cr_assert_str_eq(got, want, "%s (%zu): a direct connection gets '%s', here it is '%s'",
                         session[i], i, want, got);
    }
    expect_next(c, "closed");
    cr_assert_eq(redis_calls(r, "auth"), 0, "a password of ours was sent to Redis");
}

SCENARIO(login, hello_logs_in_and_chooses_the_protocol_at_once)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.password=secret", NULL);
    struct client *c = client_connect(n->port);

    n->password = "secret";
    expect(c, "-NOAUTH HELLO must be called...", "HELLO 3 SETNAME me");
    expect(c, "%[$server ...", "HELLO 3 AUTH default secret SETNAME me");
    expect(c, "$me", "CLIENT GETNAME");
    expect(c, "_", "GET none");
    expect(c, "+RESET", "RESET");
    expect(c, "-NOAUTH ...", "GET none");
    expect(c, "[$server ...", "HELLO 2 AUTH default secret");
    expect(c, "nil", "GET none");
    expect(c, "nil", "CLIENT GETNAME");
}

SCENARIO(login, nothing_is_served_before_it_not_even_from_the_cache)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.password=secret", NULL);
    struct client *c = client_connect(n->port);

    n->password = "secret";
    struct client *known = nearside_connect(n);
    nearside_await_fills(n);
    expect(r->direct, "+OK", "SET k v");
    for (int i = 0; i < 3; i++) {
        expect(known, "$v", "GET k");
        expect(c, "-NOAUTH Authentication required.", "GET k");
        expect(c, "-NOAUTH Authentication required.", "MGET k k");
        expect(c, "-NOAUTH Authentication required.", "INFO nearside");
    }
    /* in a pipeline, as soon as the password was right and not before */
    cr_assert(client_send_text(c,
                               "GET k\r\nAUTH wrong\r\nGET k\r\nAUTH secret\r\nGET k\r\nRESET\r\n"
                               "GET k\r\n"));
    expect_next(c, "-NOAUTH ...");
    expect_next(c, "-WRONGPASS ...");
    expect_next(c, "-NOAUTH ...");
    expect_next(c, "+OK");
    expect_next(c, "$v");
    expect_next(c, "+RESET");
    expect_next(c, "-NOAUTH ...");
    nearside_await_info(n, "logins_failed", 1, 1, 1000);
    nearside_await_log(n, "(127.0.0.1:");
    nearside_await_log(n, "failed to log in: not proxy.password");
}

SCENARIO(login, the_password_can_lie_in_a_file)
{
    struct redis *r = redis_start(NULL);
    const char *path = temp_file(temp_dir(), "password", "sec ret\nsecond line\n");
    struct nearside *n =
        nearside_start(r->port, cleanup_printf("proxy.password_file=%s", path), NULL);
    struct client *c = client_connect(n->port);

    expect(c, "-NOAUTH ...", "PING");
    expect(c, "-WRONGPASS ...", "AUTH sec");
    expect(c, "-WRONGPASS ...", "AUTH \"sec ret\\n\"");
    expect(c, "+OK", "AUTH 'sec ret'");
    expect(c, "+PONG", "PING");
    cr_assert_eq(nearside_log_lines(n, "sec ret"), 0, "the log has the password");
}

static const char *bytes_from(int port, const char *head, size_t pad)
{
    enum { MAX = 4096 };
    struct client *c = client_connect(port);
    char *bytes = cleanup_alloc(MAX);
    char *x = cleanup_alloc(pad + 1);

    memset(x, 'x', pad);
    cr_assert(client_send_text(c, head));
    (void)client_send(c, x, pad);
    (void)client_send_text(c, pad > 0 ? "\r\nPING\r\n" : "");
    client_shutdown(c);
    bytes[client_read_bytes(c, bytes, MAX - 1)] = '\0';
    client_close(c);
    return bytes;
}

SCENARIO(login, strangers_get_no_memory_for_long_requests)
{
    static const struct {
        const char *head;
        size_t pad;
    } inputs[] = {
        {"*11\r\n", 0},
        {"*1000000\r\n", 0},
        {"PING\r\n*11\r\n$4\r\nPING\r\n", 0},
        {"*2\r\n$4\r\nAUTH\r\n$16385\r\n", 0},
        {"*2\r\n$4\r\nAUTH\r\n$536870912\r\n", 0},
        {"*1\r\n$16385\r\n", 16385},
        {"*2\r\n$4\r\nAUTH\r\n$16385\r\n", 16385},
        {"*2\r\n$4\r\nAUTH\r\n$16384\r\n", 16384},
        {"*2\r\n$4\r\nAUTH\r\n$536870913\r\n", 0},
        {"*10\r\n$4\r\nAUTH\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n"
         "$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n",
         0},
        {"*11\r\n$4\r\nAUTH\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n"
         "$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n",
         0},
        {"AUTH a b c d e f g h i j k l m n\r\nPING\r\n", 0},
        {"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*2\r\n$4\r\nECHO\r\n$3000\r\n", 3000},
        {"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*2\r\n$3\r\nGET\r\n$20000\r\n", 20000},
        {"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*12\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\na\r\n$"
         "1\r\na\r\n"
         "$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n",
         0},
        {"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n*1\r\n$5\r\nRESET\r\n*11\r\n", 0},
    };
    struct redis *guarded = start_guarded();
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.password=secret", NULL);

    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
        const char *want = bytes_from(guarded->port, inputs[i].head, inputs[i].pad);
        const char *got = bytes_from(n->port, inputs[i].head, inputs[i].pad);
        cr_assert_str_eq(got, want, "input %zu", i);
    }
    /* byte by byte, and then it is over */
    struct client *c = client_connect(n->port);
    const char *bytes = "*2\r\n$4\r\nAUTH\r\n$16385\r\n";
    for (size_t i = 0; bytes[i] != '\0'; i++) {
        cr_assert(client_send(c, bytes + i, 1));
    }
    expect_next(c, "-ERR Protocol error: unauthenticated bulk length");
    expect_next(c, "closed");
}

/* ---- Protected mode ---------------------------------------------------------------------------------- */

static bool find_address(char out[INET_ADDRSTRLEN])
{
    struct ifaddrs *all = NULL;
    bool found = false;

    cr_assert(getifaddrs(&all) == 0);
    for (struct ifaddrs *at = all; at != NULL && !found; at = at->ifa_next) {
        if (at->ifa_addr != NULL && at->ifa_addr->sa_family == AF_INET &&
            (at->ifa_flags & IFF_UP) != 0) {
            const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)at->ifa_addr;
            found = ntohl(in->sin_addr.s_addr) >> 24 != IN_LOOPBACKNET;
            inet_ntop(AF_INET, &in->sin_addr, out, INET_ADDRSTRLEN);
        }
    }
    freeifaddrs(all);
    return found;
}

/* Gives this test a network of its own, with nothing in it but its loopback interface, which gets a
 * second address that is not a loopback address. */
static void make_address(char out[INET_ADDRSTRLEN])
{
    struct ifreq request = {.ifr_name = "lo"};
    struct sockaddr_in addr = {.sin_family = AF_INET};

    cr_assert(unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0,
              "no address but loopback, and no network of the test's own: %s", strerror(errno));
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    request.ifr_flags = IFF_UP;
    cr_assert(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "lo up: %s", strerror(errno));
    inet_pton(AF_INET, "192.0.2.1", &addr.sin_addr);
    memset(&request, 0, sizeof(request));
    memcpy(request.ifr_name, "lo:1", 5);
    memcpy(&request.ifr_addr, &addr, sizeof(addr));
    cr_assert(ioctl(fd, SIOCSIFADDR, &request) == 0, "a second address: %s", strerror(errno));
    close(fd);
    inet_ntop(AF_INET, &addr.sin_addr, out, INET_ADDRSTRLEN);
}

/* What a PING to this address brings, up to the first line's end or the end. */
static const char *ping_at(const char *address, int port)
{
    enum { MAX = 2048 };
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    char *answer = cleanup_alloc(MAX);
    size_t n = 0;
    ssize_t got;

    inet_pton(AF_INET, address, &addr.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(connect(fd, (const struct sockaddr *)(const void *)&addr, sizeof(addr)) == 0,
              "%s:%d: %s", address, port, strerror(errno));
    (void)send(fd, "PING\r\n", 6, MSG_NOSIGNAL); /* it may have closed already */
    while (n < MAX - 1 && memchr(answer, '\n', n) == NULL &&
           poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, CLIENT_TIMEOUT_MS) == 1 &&
           (got = recv(fd, answer + n, MAX - 1 - n, 0)) > 0) {
        n += (size_t)got;
    }
    close(fd);
    answer[n] = '\0';
    return answer;
}

SCENARIO(login, without_a_password_only_this_machine_is_served)
{
    static const char *const sets[][2] = {
        {NULL, "-DENIED Nearside is running in protected mode"},
        {"proxy.protected_mode=no", "+PONG\r\n"},
        {"proxy.password=secret", "-NOAUTH Authentication required.\r\n"},
        {"proxy.protected_mode=yes", "-DENIED Nearside is running in protected mode"},
    };
    char address[INET_ADDRSTRLEN];

    if (!find_address(address)) {
        make_address(address);
    }
    struct redis *r = redis_start(NULL);
    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++) {
        int port = free_port();
        struct nearside *n = nearside_start(
            r->port, cleanup_printf("proxy.listen=%s:%d", address, port), sets[i][0], NULL);
        n->password = i == 2 ? "secret" : NULL;
        const char *answer = ping_at(address, port);
        cr_assert(strncmp(answer, sets[i][1], strlen(sets[i][1])) == 0, "%s: %s",
                  sets[i][0] == NULL ? "default" : sets[i][0], answer);
        expect(nearside_connect(n), "+PONG", "PING");
        bool denied = answer[1] == 'D';
        cr_assert_eq(nearside_info(n, "clients_refused"), denied ? 1 : 0);
        cr_assert_eq(nearside_log_lines(n, "protected mode"), denied ? 1 : 0);
    }
}

/* ---- Upstream ------------------------------------------------------------------------------------------ */

SCENARIO(login, the_password_of_redis_is_read_again_when_it_has_changed)
{
    struct redis *r = start_guarded();
    const char *dir = temp_dir();
    const char *path = temp_file(dir, "password", "secret\n");
    struct nearside *n =
        nearside_start(r->port, cleanup_printf("upstream.password_file=%s", path), NULL);
    struct client *c = nearside_connect(n);
    struct client *three = nearside_connect(n);

    await_reply(c, "+OK", 5000, "SET k 1");
    expect(three, "%[...", "HELLO 3");
    for (int i = 0; i < 3; i++) {
        expect(r->direct, "+OK", "CONFIG SET requirepass secret%d", i);
        (void)temp_file(dir, "password", cleanup_printf("secret%d\r\nsecret\n", i));
        (void)ask(r->direct, "CLIENT KILL TYPE normal SKIPME yes");
        await_reply(c, cleanup_printf("$%d", i + 1), 5000, "GET k");
        await_reply(c, "+OK", 5000, "SET k %d", i + 2);
        await_reply(three, cleanup_printf("$%d", i + 2), 5000, "GET k");
        expect(three, "+OK", "MULTI");
        expect(three, "[]", "EXEC");
    }
    /* a wrong one is an error and no more */
    expect(r->direct, "+OK", "CONFIG SET requirepass other");
    (void)ask(r->direct, "CLIENT KILL TYPE normal SKIPME yes");
    await_reply(c, "-UPSTREAM ...", 5000, "SET k 1");
    (void)temp_file(dir, "password", "other\n");
    await_reply(c, "+OK", 10000, "SET k 1");
}

SCENARIO(login, what_the_user_may_not_do_is_said_in_the_words_of_redis)
{
    static const char *const lines[] = {
        "GET open:1",
        "GET closed:1",
        "SET open:1 v",
        "SET closed:1 v",
        "MGET open:1 closed:1",
        "FLUSHALL",
        "CONFIG GET maxmemory",
        "EVAL 'return redis.call(\"get\",KEYS[1])' 1 closed:1",
        "SUBSCRIBE bad",
        "PUBLISH bad x",
        "BLPOP closed:1 0.01",
        "WATCH closed:1",
        "UNWATCH",
    };
    struct redis *r = redis_start(NULL);

    expect(r->direct, "+OK",
           "ACL SETUSER near on >pass ~open:* resetchannels &good +@all -flushall -config");
    struct nearside *n =
        nearside_start(r->port, "upstream.user=near", "upstream.password=pass", NULL);
    for (int version = 2; version <= 3; version++) {
        struct client *direct = client_connect(r->port);
        struct client *c = nearside_connect(n);
        expect(direct, "+OK", "AUTH near pass");
        (void)ask(direct, "HELLO %d", version);
        await_reply(c, version == 3 ? "%[..." : "[...", 5000, "HELLO %d", version);
        for (int round = 0; round < 3; round++) {
            for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
                const char *want = cleanup_printf("%s", ask(direct, "%s", lines[i]));
                expect(c, want, "%s", lines[i]);
            }
        }
    }
    cr_assert_eq(nearside_log_lines(n, ">pass"), 0);
}
