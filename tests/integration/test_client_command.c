/* SPDX-License-Identifier: Apache-2.0
 *
 * test_client_command.c: CLIENT: what a client says about itself, is told about others, and does to
 * them, over all workers; compared with a direct connection where that can be.
 */
#include "../support/await.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A text reply, whole, whatever its length; lives until the test is over. */
static const char *text_of(struct client *c, const char *line)
{
    client_command(c, "%s", line);
    const struct reply *reply = client_reply(c);
    cr_assert((reply->type == '$' || reply->type == '=') && !reply->null, "%s: %s", line,
              reply_show(reply));
    return cleanup_printf("%s", reply->text);
}

/* The value of a field in a line of CLIENT LIST. */
static const char *field_of(const char *line, const char *field)
{
    const char *label = cleanup_printf(" %s=", field);
    const char *at = strstr(line, label);

    cr_assert_not_null(at, "no %s in %s", field, line);
    at += strlen(label);
    return cleanup_printf("%.*s", (int)strcspn(at, " \n"), at);
}

static const char *id_of(struct client *c)
{
    return cleanup_printf("%s", ask(c, "CLIENT ID") + 1);
}

static int lines_in(const char *list)
{
    int n = 0;

    for (; (list = strchr(list, '\n')) != NULL; list++) {
        n++;
    }
    return n;
}

/* The names of a line's fields, in order. */
static const char *names_in(const char *line)
{
    char *out = cleanup_alloc(strlen(line) + 2);
    size_t n = 0;

    while (*line != '\0' && *line != '\n') {
        size_t name = strcspn(line, "= \n");
        memcpy(out + n, line, name);
        n += name;
        out[n++] = ' ';
        line += strcspn(line, " \n");
        line += *line == ' ';
    }
    out[n] = '\0';
    return out;
}

/* ---- About itself ------------------------------------------------------------------------------- */

SCENARIO(client_command, a_line_has_the_fields_of_redis_in_its_order)
{
    static const char *const same[] = {"name",  "flags", "db",   "sub",   "psub", "ssub",
                                       "multi", "cmd",   "user", "redir", "resp"};
    static const char *const new[] = {"watch", "io-thread", "capa"};
    static const char *const lines[] = {"PING",
                                        "CLIENT SETNAME me",
                                        "SELECT 2",
                                        "HELLO 3",
                                        "SUBSCRIBE a",
                                        "PSUBSCRIBE b",
                                        "SSUBSCRIBE c",
                                        "CLIENT NO-EVICT ON",
                                        "CLIENT NO-EVICT OFF",
                                        "WATCH k",
                                        "WATCH l m",
                                        "UNWATCH",
                                        "CLIENT CAPA x",
                                        "CLIENT CAPA x REDIRECT",
                                        "RESET"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *direct = client_connect(r->port);
    struct client *c = nearside_connect(n);

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        (void)ask(direct, "%s", lines[i]);
        (void)ask(c, "%s", lines[i]);
        const char *want = text_of(direct, "CLIENT INFO");
        const char *got = text_of(c, "CLIENT INFO");
        const char *list = text_of(c, cleanup_printf("CLIENT LIST ID %s", id_of(c)));
        cr_assert_str_eq(names_in(got), names_in(want));
        cr_assert_str_eq(names_in(list), names_in(want));
        for (size_t f = 0; f < sizeof(same) / sizeof(same[0]); f++) {
            cr_assert_str_eq(field_of(got, same[f]), field_of(want, same[f]), "%s: %s: %s%s",
                             lines[i], same[f], want, got);
        }
        for (size_t f = 0; f < sizeof(new) / sizeof(new[0]); f++) {
            if (strstr(want, cleanup_printf(" %s=", new[f])) != NULL) {
                cr_assert_str_eq(field_of(got, new[f]), field_of(want, new[f]), "%s: %s: %s%s",
                                 lines[i], new[f], want, got);
            }
        }
        cr_assert_str_eq(field_of(list, "cmd"), "client|list");
        cr_assert_str_eq(field_of(list, "flags"), field_of(want, "flags"));
    }
}

SCENARIO(client_command, others_are_shown_as_redis_shows_them)
{
    static const struct {
        const char *line;
        int answers;
    } doing[] = {
        {"PING", 1},           {"GET k", 1},
        {"MULTI", 1},          {"SUBSCRIBE a", 1},
        {"PSUBSCRIBE a b", 2}, {"MONITOR", 1},
        {"BLPOP none 0", 0},   {"CLIENT NO-EVICT ON", 1},
        {"NOSUCH", 1},         {"CONFIG GET maxmemory", 1},
        {"WATCH k", 1},        {"CLIENT SETNAME x", 1},
    };
    static const char *const same[] = {"name", "flags", "db",   "sub",   "psub",
                                       "ssub", "multi", "user", "redir", "resp"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=4", NULL);
    struct client *asks = nearside_connect(n);

    for (size_t i = 0; i < sizeof(doing) / sizeof(doing[0]); i++) {
        struct client *direct = client_connect(r->port);
        struct client *c = nearside_connect(n);
        const char *direct_id = id_of(direct);
        const char *id = id_of(c);
        cr_assert(client_command(direct, "%s", doing[i].line));
        cr_assert(client_command(c, "%s", doing[i].line));
        for (int k = 0; k < doing[i].answers; k++) {
            (void)client_read(direct);
            (void)client_read(c);
        }
        if (doing[i].answers == 0) {
            int64_t deadline = now_ms() + 5000;
            while (redis_info(r, "blocked_clients") < 2 && now_ms() < deadline) {
            }
        }
        const char *want = text_of(r->direct, cleanup_printf("CLIENT LIST ID %s", direct_id));
        const char *got = text_of(asks, cleanup_printf("CLIENT LIST ID %s", id));
        for (size_t f = 0; f < sizeof(same) / sizeof(same[0]); f++) {
            cr_assert_str_eq(field_of(got, same[f]), field_of(want, same[f]), "%s: %s: %s%s",
                             doing[i].line, same[f], want, got);
        }
        /* what Redis cannot find it shows as no command at all */
        if (strcmp(doing[i].line, "NOSUCH") != 0) {
            cr_assert_str_eq(field_of(got, "cmd"), field_of(want, "cmd"));
        }
        /* and is of the same type */
        static const char *const types[] = {"normal", "pubsub", "master", "replica", "slave"};
        for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
            const char *all = text_of(r->direct, cleanup_printf("CLIENT LIST TYPE %s", types[t]));
            const char *ours = text_of(asks, cleanup_printf("CLIENT LIST TYPE %s", types[t]));
            bool there = strstr(all, cleanup_printf("id=%s ", direct_id)) != NULL;
            bool here = strstr(ours, cleanup_printf("id=%s ", id)) != NULL;
            cr_assert(here == there, "%s: type %s", doing[i].line, types[t]);
        }
    }
}

static const char *const wordings[] = {
    "CLIENT",
    "CLIENT NOSUCH",
    "CLIENT NOSUCH x y",
    "CLIENT ID x",
    "CLIENT GETNAME x",
    "CLIENT SETNAME",
    "CLIENT SETNAME a b",
    "CLIENT SETNAME 'a b'",
    "CLIENT SETNAME \"a\\nb\"",
    "CLIENT SETNAME \"\\x80\"",
    "CLIENT SETNAME ok",
    "CLIENT GETNAME",
    "CLIENT SETNAME ''",
    "CLIENT GETNAME",
    "CLIENT SETINFO LIB-NAME x",
    "CLIENT SETINFO",
    "CLIENT SETINFO NOSUCH x",
    "CLIENT NO-EVICT",
    "CLIENT NO-EVICT x",
    "CLIENT NO-EVICT on",
    "CLIENT NO-EVICT OFF",
    "CLIENT NO-TOUCH ON",
    "CLIENT CAPA",
    "CLIENT CAPA x",
    "CLIENT CAPA x redirect",
    "CLIENT REPLY",
    "CLIENT REPLY x",
    "CLIENT REPLY ON",
    "CLIENT REPLY ON x",
    "CLIENT GETREDIR",
    "CLIENT TRACKINGINFO",
    "CLIENT TRACKINGINFO x",
    "CLIENT CACHING",
    "CLIENT CACHING YES",
    "CLIENT TRACKING",
    "CLIENT TRACKING x",
    "CLIENT TRACKING OFF",
    "CLIENT LIST x",
    "CLIENT LIST TYPE",
    "CLIENT LIST TYPE x",
    "CLIENT LIST TYPE normal x",
    "CLIENT LIST TYPE master",
    "CLIENT LIST ID",
    "CLIENT LIST ID x",
    "CLIENT LIST ID 0",
    "CLIENT LIST ID -1",
    "CLIENT LIST ID 999999",
    "CLIENT LIST ID 999999 x",
    "CLIENT KILL",
    "CLIENT KILL nosuch",
    "CLIENT KILL 1.2.3.4:5",
    "CLIENT KILL ID",
    "CLIENT KILL ID x",
    "CLIENT KILL ID 0",
    "CLIENT KILL ID 999999",
    "CLIENT KILL ID 999999 ID",
    "CLIENT KILL ID 999999 TYPE x",
    "CLIENT KILL TYPE x",
    "CLIENT KILL TYPE pubsub",
    "CLIENT KILL TYPE master",
    "CLIENT KILL USER x",
    "CLIENT KILL NOSUCH x",
    "CLIENT KILL ADDR 1.2.3.4:5",
    "CLIENT KILL LADDR 1.2.3.4:5",
    "CLIENT KILL ID 999999 SKIPME x",
    "CLIENT KILL ID 999999 SKIPME yes ADDR a USER default",
    "CLIENT KILL ADDR",
    "CLIENT KILL MAXAGE",
    "CLIENT KILL MAXAGE x",
    "CLIENT KILL MAXAGE 0",
    "CLIENT KILL MAXAGE -1",
    "CLIENT KILL MAXAGE 99999999999999999999",
    "CLIENT KILL MAXAGE 1000 SKIPME no",
    "CLIENT KILL ID 999999 MAXAGE",
    "CLIENT KILL ID 999999 999998 TYPE normal",
    "CLIENT LIST TYPE normal ID 999999",
    "CLIENT LIST ID 999999 TYPE x",
    "CLIENT LIST ID 999999 ADDR 1.2.3.4:5 SKIPME yes",
    "CLIENT LIST MAXAGE 1000",
    "CLIENT LIST MAXAGE x",
    "CLIENT LIST SKIPME x",
    "CLIENT LIST ADDR 1.2.3.4:5",
    "CLIENT LIST TYPE primary",
    "CLIENT UNBLOCK",
    "CLIENT UNBLOCK x",
    "CLIENT UNBLOCK 999999",
    "CLIENT UNBLOCK 999999 TIMEOUT",
    "CLIENT UNBLOCK 999999 error",
    "CLIENT UNBLOCK 999999 x",
    "CLIENT UNBLOCK 999999 ERROR x",
    "CLIENT UNBLOCK x x",
    "CLIENT PAUSE",
    "CLIENT PAUSE x",
    "CLIENT UNPAUSE",
    "CLIENT HELP",
    "PING a b",
    "ECHO",
    "ECHO a b",
    "SYNC x",
    "PSYNC",
    "QUIT x",
};

SCENARIO(client_command, words_and_arguments_are_checked_as_redis_does)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (int version = 2; version <= 3; version++) {
        struct client *direct = client_connect(r->port);
        struct client *c = nearside_connect(n);
        (void)ask(direct, "HELLO %d", version);
        (void)ask(c, "HELLO %d", version);
        for (size_t i = 0; i < sizeof(wordings) / sizeof(wordings[0]); i++) {
            const char *want = cleanup_printf("%s", ask(direct, "%s", wordings[i]));
            const char *got = ask(c, "%s", wordings[i]);
            cr_assert_str_eq(got, want, "%s: a direct connection gets '%s', here it is '%s'",
                             wordings[i], want, got);
        }
    }
}

SCENARIO(client_command, kill_by_age_waits_for_the_age)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);
    const char *id = id_of(other);
    const char *answer = cleanup_printf("%s", ask(r->direct, "CLIENT KILL MAXAGE 1000"));

    expect(c, answer, "CLIENT KILL MAXAGE 1000 SKIPME no");
    if (answer[0] == ':') { /* Redis 7.4, Valkey 8.0 and later */
        await_reply(c, ":1", 5000, "CLIENT KILL MAXAGE 1 ID %s", id);
        cr_assert(client_drain_to_end(other));
        expect(c, ":0", "CLIENT KILL MAXAGE 1000 SKIPME no");
    }
}

SCENARIO(client_command, tracking_is_refused_with_one_clear_error)
{
    static const char *const lines[] = {"CLIENT TRACKING ON", "CLIENT TRACKING on REDIRECT 5",
                                        "CLIENT TRACKING ON BCAST PREFIX a NOLOOP",
                                        "CLIENT TRACKING ON OPTIN"};
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    (void)ask(c, "HELLO 3");
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        expect(c, "-ERR CLIENT TRACKING is not available through Nearside...", "%s", lines[i]);
        expect(c, "+PONG", "PING");
    }
    cr_assert(!client_readable(c, 20));
}

/* ---- CLIENT REPLY --------------------------------------------------------------------------------- */

/* What comes of a whole session, as bytes; the session ends with QUIT. */
static const char *outcome(int port, const char *session)
{
    enum { MAX = 100 * 1000 };
    struct client *c = client_connect(port);
    char *bytes = cleanup_alloc(MAX);

    cr_assert(client_send_text(c, session));
    bytes[client_read_bytes(c, bytes, MAX - 1)] = '\0';
    client_close(c);
    return bytes;
}

SCENARIO(client_command, reply_acts_on_what_the_client_sees_as_with_redis)
{
    static const char *const sessions[] = {
        "CLIENT REPLY OFF\r\nSET k 1\r\nGET k\r\nPING\r\nNOSUCH\r\nCLIENT REPLY ON\r\nGET "
        "k\r\nQUIT\r\n",
        "CLIENT REPLY SKIP\r\nSET k 2\r\nGET k\r\nQUIT\r\n",
        "CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nGET k\r\nGET k\r\nQUIT\r\n",
        "CLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nGET k\r\nQUIT\r\n",
        "CLIENT REPLY SKIP\r\nPING\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nCLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nCLIENT REPLY x\r\nRESET\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY SKIP\r\nRESET\r\nGET k\r\nQUIT\r\n",
        "WATCH k\r\nCLIENT REPLY SKIP\r\nRESET\r\nGET k\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nMULTI\r\nSET k 3\r\nEXEC\r\nCLIENT REPLY ON\r\nGET k\r\nQUIT\r\n",
        "CLIENT REPLY SKIP\r\nMULTI\r\nSET k 4\r\nEXEC\r\nGET k\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nSELECT 1\r\nSET k 5\r\nCLIENT REPLY ON\r\nGET k\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nHELLO 3\r\nCLIENT REPLY ON\r\nGET none\r\nQUIT\r\n",
        "CLIENT REPLY SKIP\r\nHELLO 3\r\nGET none\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nINFO\r\nCLIENT LIST\r\nCLIENT REPLY ON\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY SKIP\r\nCLIENT INFO\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nMGET k none\r\nMGET k none\r\nCLIENT REPLY ON\r\nMGET k "
        "none\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nSUBSCRIBE a\r\nPUBLISH a x\r\nPING\r\nUNSUBSCRIBE a\r\nCLIENT REPLY "
        "ON\r\n"
        "PING\r\nQUIT\r\n",
        "HELLO 3 SETNAME me\r\nCLIENT REPLY OFF\r\nSUBSCRIBE a\r\nPUBLISH a x\r\nPING\r\n"
        "UNSUBSCRIBE a\r\nCLIENT REPLY ON\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nSUBSCRIBE\r\nSUBSCRIBE a\r\nGET k\r\nUNSUBSCRIBE\r\nCLIENT REPLY "
        "ON\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY SKIP\r\nPSUBSCRIBE\r\nCLIENT REPLY SKIP\r\nSUBSCRIBE a\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nMONITOR\r\nPING\r\nRESET\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nBLPOP none 0.01\r\nCLIENT REPLY ON\r\nPING\r\nQUIT\r\n",
        "CLIENT REPLY OFF\r\nEVAL 'return 1' 0\r\nFLUSHALL\r\nCLIENT REPLY ON\r\nGET k\r\nQUIT\r\n",
    };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    for (size_t i = 0; i < sizeof(sessions) / sizeof(sessions[0]); i++) {
        for (int round = 0; round < 2; round++) {
            char *want = cleanup_printf("%s", outcome(r->port, sessions[i]));
            char *got = cleanup_printf("%s", outcome(n->port, sessions[i]));
            /* HELLO has an id in it */
            char *ids[] = {strstr(want, "id\r\n:"), strstr(got, "id\r\n:")};
            if (ids[0] != NULL && ids[1] != NULL) {
                *ids[0] = *ids[1] = '\0';
                cr_assert_str_eq(strchr(ids[1] + 5, '$'), strchr(ids[0] + 5, '$'), "%s",
                                 sessions[i]);
            }
            cr_assert_str_eq(got, want, "%s", sessions[i]);
        }
    }
}

/* Redis has nothing to write then, and forgets to close. */
SCENARIO(client_command, who_quits_in_silence_is_closed)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);

    cr_assert_str_eq(outcome(n->port, "CLIENT REPLY OFF\r\nQUIT\r\n"), "");
    nearside_await_info(n, "clients_connected", 0, 1, 2000);
}

SCENARIO(client_command, what_is_done_in_silence_is_done)
{
    enum { TIMES = 20000 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    size_t size;

    nearside_await_fills(n);
    char *incrs = command_repeated("INCR n", TIMES, &size);
    cr_assert(client_send_text(c, "GET n\r\nCLIENT REPLY OFF\r\n"));
    cr_assert(client_send(c, incrs, size));
    cr_assert(client_send_text(c, "CLIENT REPLY ON\r\nGET n\r\n"));
    expect_next(c, "nil");
    expect_next(c, "+OK");
    expect_next(c, cleanup_printf("$%d", TIMES));
    cr_assert(!client_readable(c, 20));
}

/* ---- CLIENT LIST, KILL, UNBLOCK ---------------------------------------------------------------------- */

SCENARIO(client_command, list_shows_the_clients_of_all_workers_in_order)
{
    enum { CLIENTS = 40 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=4", NULL);
    struct client *c[CLIENTS];

    for (int i = 0; i < CLIENTS; i++) {
        c[i] = nearside_connect(n);
        expect(c[i], "+OK", "CLIENT SETNAME name%d", i);
    }
    for (int i = 0; i < CLIENTS; i += 7) {
        const char *list = text_of(c[i], "CLIENT LIST");
        cr_assert_eq(lines_in(list), CLIENTS, "%s", list);
        long long last = 0;
        for (const char *line = list; *line != '\0'; line = strchr(line, '\n') + 1) {
            long long id = strtoll(line + 3, NULL, 10);
            cr_assert(strncmp(line, "id=", 3) == 0 && id > last, "%s", line);
            last = id;
        }
        for (int k = 0; k < CLIENTS; k++) {
            cr_assert_not_null(strstr(list, cleanup_printf(" name=name%d ", k)));
        }
    }
    const char *two = text_of(
        c[0], cleanup_printf("CLIENT LIST ID %s %s %s", id_of(c[9]), id_of(c[4]), id_of(c[9])));
    cr_assert_eq(lines_in(two), 2, "%s", two);
    /* in a pipeline, and behind what is unanswered */
    cr_assert(client_send_text(c[0], "SET k v\r\nCLIENT LIST\r\nGET k\r\nCLIENT ID\r\n"));
    expect_next(c[0], "+OK");
    expect_next(c[0], "$...");
    expect_next(c[0], "$v");
    expect_next(c[0], ":...");
}

SCENARIO(client_command, clients_are_killed_by_every_filter)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=4", NULL);
    struct client *asks = nearside_connect(n);

    for (int i = 0; i < 10; i++) {
        struct client *c = nearside_connect(n);
        const char *info = text_of(c, "CLIENT INFO");
        const char *addr = field_of(info, "addr");
        const char *laddr = field_of(info, "laddr");
        const char *id = id_of(c);
        cr_assert_str_eq(laddr, cleanup_printf("127.0.0.1:%d", n->port));
        if (i == 7) {
            (void)ask(c, "SUBSCRIBE a");
        } else if (i == 8) {
            expect(c, "+OK", "MULTI");
        } else if (i == 9) {
            cr_assert(client_command(c, "BLPOP none 0"));
        }
        const char *const lines[][2] = {
            {"ID %s", id},        {"ADDR %s", addr},     {"%s", addr},
            {"LADDR %s", laddr},  {"TYPE normal", NULL}, {"USER default", NULL},
            {"SKIPME yes", NULL}, {"TYPE pubsub", NULL}, {"TYPE normal SKIPME yes", NULL},
            {"ID %s", id},
        };
        const char *line = cleanup_printf("%s", lines[i][0]);
        char *filter = cleanup_printf("%s", line);
        char *hole = strstr(filter, "%s");
        if (hole != NULL) {
            *hole = '\0';
            filter = cleanup_printf("%s%s", filter, lines[i][1]);
        }
        expect(asks, i == 2 ? "+OK" : ":1", "CLIENT KILL %s", filter);
        expect_next(c, "closed");
        expect(asks, i == 2 ? "-ERR No such client" : ":0", "CLIENT KILL %s", filter);
    }
    nearside_await_info(n, "pinned_connections", 0, 0, 2000);
    expect(r->direct, "[$a :0]", "PUBSUB NUMSUB a");
}

SCENARIO(client_command, who_kills_itself_is_told_first)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=4", NULL);

    for (int i = 0; i < 4; i++) {
        struct client *c = nearside_connect(n);
        const char *info = text_of(c, "CLIENT INFO");
        switch (i) {
        case 0:
            expect(c, ":1", "CLIENT KILL ID %s SKIPME no", id_of(c));
            break;
        case 1:
            expect(c, "+OK", "CLIENT KILL %s", field_of(info, "addr"));
            break;
        case 2:
            expect(c, ":0", "CLIENT KILL ID %s", id_of(c));
            expect(c, ":1", "CLIENT KILL TYPE normal SKIPME no");
            break;
        default:
            cr_assert(client_send_text(
                c,
                cleanup_printf("SET k v\r\nCLIENT KILL ID %s SKIPME no\r\nGET k\r\n", id_of(c))));
            expect_next(c, "+OK");
            expect_next(c, ":1");
            break;
        }
        /* what was pipelined behind it may still be answered; then it ends */
        cr_assert(client_drain_to_end(c));
    }
}

SCENARIO(client_command, blocked_clients_are_unblocked_in_both_ways)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=4", NULL);
    struct client *asks = nearside_connect(n);

    for (int i = 0; i < 8; i++) {
        struct client *c = nearside_connect(n);
        const char *id = id_of(c);
        bool error = i % 2 == 1;
        bool resp3 = i % 4 >= 2;
        if (resp3) {
            (void)ask(c, "HELLO 3");
        }
        expect(asks, ":0", "CLIENT UNBLOCK %s", id);
        cr_assert(client_command(c, "BLPOP list 0"));
        await_reply(asks, ":1", 5000, "CLIENT UNBLOCK %s %s", id, error ? "ERROR" : "TIMEOUT");
        expect_next(c, error   ? "-UNBLOCKED client unblocked via CLIENT UNBLOCK"
                       : resp3 ? "_"
                               : "nil array");
        expect(c, "+PONG", "PING");
        expect(asks, ":0", "CLIENT UNBLOCK %s", id);
    }
}

SCENARIO(client_command, questions_about_clients_that_come_and_go_are_answered)
{
    enum { ROUNDS = 100, CLIENTS = 12 };
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=4", NULL);
    struct client *asks[2] = {nearside_connect(n), nearside_connect(n)};

    for (int i = 0; i < 2; i++) {
        expect(asks[i], "+OK", "CLIENT SETNAME asks%d", i);
    }
    for (int round = 0; round < ROUNDS; round++) {
        struct client *c[CLIENTS];
        for (int i = 0; i < CLIENTS; i++) {
            c[i] = nearside_connect(n);
            /* and many of them ask, and leave without waiting */
            cr_assert(client_send_text(c[i], i % 3 == 0   ? "CLIENT LIST\r\nCLIENT LIST\r\n"
                                             : i % 3 == 1 ? "SUBSCRIBE a\r\n"
                                                          : "BLPOP none 0\r\n"));
        }
        cr_assert(client_command(asks[0], "CLIENT LIST"));
        cr_assert(client_command(asks[1], "CLIENT KILL TYPE pubsub"));
        for (int i = 0; i < CLIENTS; i++) {
            if (i % 2 == 0) {
                client_reset(c[i]);
            } else {
                client_close(c[i]);
            }
        }
        expect_next(asks[0], "$...");
        expect_next(asks[1], ":...");
    }
    nearside_await_info(n, "clients_connected", 3, 3, 5000);
    nearside_await_info(n, "pinned_connections", 0, 0, 5000);
    await_reply(r->direct, "[$a :0]", 5000, "PUBSUB NUMSUB a");
}

SCENARIO(client_command, a_stop_in_the_middle_of_questions_is_clean)
{
    struct redis *r = redis_start(NULL);

    for (int round = 0; round < 5; round++) {
        struct nearside *n = nearside_start(r->port, "proxy.workers=4", NULL);
        struct client *c[8];
        for (int i = 0; i < 8; i++) {
            c[i] = nearside_connect(n);
            for (int k = 0; k < 50; k++) {
                cr_assert(client_command(c[i], "CLIENT LIST"));
            }
        }
        struct client *sub = nearside_connect(n);
        (void)ask(sub, "SUBSCRIBE a");
        nearside_stop(n, 10000 * slowdown());
        expect(r->direct, "[$a :0]", "PUBSUB NUMSUB a");
    }
}

/* Redis 7.2 forgets it with RESET, older ones do not. */
SCENARIO(client_command, what_reset_leaves_is_what_it_leaves_in_redis)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *direct = client_connect(r->port);
    struct client *c = nearside_connect(n);

    expect(direct, "+OK", "CLIENT NO-EVICT ON");
    expect(direct, "+RESET", "RESET");
    expect(c, "+OK", "CLIENT NO-EVICT ON");
    expect(c, "+RESET", "RESET");
    const char *want = field_of(text_of(direct, "CLIENT INFO"), "flags");
    cr_assert_str_eq(field_of(text_of(c, "CLIENT INFO"), "flags"), want);
}

SCENARIO(client_command, nothing_a_client_sets_reaches_anybody_else)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);
    struct client *a = nearside_connect(n);
    struct client *b = nearside_connect(n);

    nearside_await_fills(n);
    expect(a, "+OK", "CLIENT SETNAME a");
    expect(a, "+OK", "CLIENT NO-EVICT ON");
    expect(a, "%[...", "HELLO 3 SETNAME a3");
    expect(a, "+OK", "SELECT 3");
    cr_assert(client_send_text(a, "CLIENT REPLY OFF\r\n"));
    expect(b, "nil", "CLIENT GETNAME");
    expect(b, "nil", "GET none");
    expect(b, "+OK", "SET k zero");
    expect(r->direct, "$zero", "GET k");
    const char *info = text_of(b, "CLIENT INFO");
    cr_assert_str_eq(field_of(info, "flags"), "N");
    cr_assert_str_eq(field_of(info, "db"), "0");
    const char *clients = redis_clients(r);
    cr_assert_null(strstr(clients, "name=a"), "%s", clients);
    cr_assert_null(strstr(clients, "flags=e"), "%s", clients);
}
