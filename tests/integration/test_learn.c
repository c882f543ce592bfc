/* SPDX-License-Identifier: Apache-2.0
 *
 * test_learn.c: commands that are not built in, learnt from the server: those of a real module
 * (tests/module), and of servers that say things about their commands which no module can.
 */
#include "../support/await.h"
#include "../support/fake.h"
#include "../support/nearside.h"
#include "../support/redis.h"
#include "../support/relay.h"
#include "../support/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES 8 /* what the module has, near.c and near.c|set both counted */

static const char *loaded[] = {"--enable-module-command", "yes", "--loadmodule", NULL, NULL};
static const char *const allowed[] = {"--enable-module-command", "yes", NULL};

static struct redis *start_with_module(void)
{
    loaded[3] = file_beside("module.so");
    return redis_start(loaded);
}

/* How many commands this server has of its own that are not built in. */
static long long own_names(void)
{
    struct redis *r = redis_start(NULL);
    struct nearside *n = nearside_start(r->port, "proxy.workers=1", NULL);

    redis_await_calls(r, "command", 1, 10000 * slowdown());
    store_value(nearside_connect(n), "large",
                100 * 1000); /* goes the way COMMAND went, behind it */
    return nearside_info(n, "commands_learnt");
}

static void await_learnt(struct nearside *n, long long names)
{
    nearside_await_info(n, "commands_learnt", names, names, 10000 * slowdown());
}

/* How much a counter grows by one command that must answer `want`. */
static long long growth(struct nearside *n, const char *field, struct client *c, const char *want,
                        const char *command)
{
    long long before = nearside_info(n, field);
    expect(c, want, "%s", command);
    return nearside_info(n, field) - before;
}

/* ---- A module ------------------------------------------------------------------------------- */

SCENARIO(learn, a_learnt_write_is_seen_by_all_without_a_fence)
{
    struct redis *r = start_with_module();
    struct relay *link = relay_start(r->port, "TRACKING");
    struct nearside *n = nearside_start(relay_port(link), "invalidation.link_lease=10s", NULL);
    struct client *c[4];

    for (int i = 0; i < 4; i++) {
        c[i] = nearside_connect(n);
    }
    nearside_await_fills(n);
    await_learnt(n, own_names() + NAMES);
    expect(c[0], "+OK", "MSET k old l old m old n old");
    for (int i = 0; i < 4; i++) {
        expect(c[i], "[$old $old $old $old]", "MGET k l m n");
    }
    long long hits = nearside_info(n, "l1_hits");
    expect(c[0], "$old", "GET k");
    cr_assert_eq(nearside_info(n, "l1_hits"), hits + 1, "not cached: this would show nothing");
    relay_hold(link, RELAY_DOWN, true); /* no announcement, no PONG for a fence */
    expect(c[0], "+OK", "near.set k new");
    expect(c[1], "+OK", "NEAR.Both l m new");
    expect(c[2], "+OK", "near.c SET n new");
    for (int i = 0; i < 4; i++) {
        cr_assert(client_command(c[i], "MGET k l m n"));
    }
    relay_release(link);
    for (int i = 0; i < 4; i++) {
        expect_next(c[i], "[$new $new $new $new]");
    }
    cr_assert_eq(nearside_info(n, "fences"), 0);
    cr_assert_eq(nearside_info(n, "forwarded_unknown"), 0);
}

SCENARIO(learn, what_the_server_does_not_explain_is_fenced)
{
    struct redis *r = start_with_module();
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    struct client *other = nearside_connect(n);

    nearside_await_fills(n);
    await_learnt(n, own_names() + NAMES);
    for (int round = 0; round < 20; round++) {
        const char *value = cleanup_printf("%d", round);
        const char *want = cleanup_printf("$%d", round);
        long long fences = nearside_info(n, "fences");
        expect(c, "+OK", "near.moved x k %s", value);
        expect(other, want, "GET k");
        expect(c, "+OK", "near.plain k %s+", value);
        expect(other, cleanup_printf("%s+", want), "GET k");
        cr_assert_eq(nearside_info(n, "fences"), fences + 2);
    }
    /* without its key a write is another command */
    cr_assert_eq(growth(n, "fences", c, "-ERR wrong number...", "near.set"), 1);
    cr_assert_eq(growth(n, "fences", c, "-ERR...", "near.c nosuch"), 1);
}

SCENARIO(learn, learnt_reads_are_reads)
{
    struct redis *r = start_with_module();
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    await_learnt(n, own_names() + NAMES);
    expect(c, "+OK", "SET k v");
    cr_assert_eq(growth(n, "forwarded_reads", c, "$v", "near.get k"), 1);
    cr_assert_eq(growth(n, "forwarded_other", c, ":1", "near.count"), 1);
    cr_assert_eq(nearside_info(n, "fences"), 0);
    expect(c, "+OK", "MULTI");
    expect(c, "+QUEUED", "near.set k w");
    expect(c, "+QUEUED", "near.get k");
    expect(c, "[+OK $w]", "EXEC");
    expect(c, "$w", "GET k");
}

/* ---- When it is learnt ---------------------------------------------------------------------- */

SCENARIO(learn, a_module_that_is_loaded_or_unloaded_through_the_proxy_is_learnt_and_forgotten)
{
    struct redis *r = redis_start(allowed);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    long long own = own_names();

    nearside_await_fills(n);
    await_learnt(n, own);
    cr_assert_eq(growth(n, "fences", c, "-ERR unknown command...", "near.set k v"), 1);
    for (int round = 0; round < 3; round++) {
        expect(c, "+OK", "MODULE LOAD %s", file_beside("module.so"));
        await_learnt(n, own + NAMES);
        cr_assert_eq(growth(n, "fences", c, "+OK", "near.set k v"), 0);
        /* Redis 8.0 crashes when a connection's last command has been unloaded and it says another */
        expect(c, ":1", "EXISTS k");
        if (round == 1) { /* the same inside a transaction */
            expect(c, "+OK", "MULTI");
            expect(c, "+QUEUED", "MODULE UNLOAD near");
            expect(c, "[+OK]", "EXEC");
        } else {
            expect(c, "+OK", "MODULE UNLOAD near");
        }
        cr_assert_eq(growth(n, "fences", c, "-ERR unknown command...", "near.set k v"), 1);
        await_learnt(n, own);
    }
}

/* Nothing tells the proxy of a module that is loaded elsewhere, until it connects again. */
SCENARIO(learn, a_module_that_was_loaded_elsewhere_is_learnt_at_a_reconnect)
{
    struct redis *r = redis_start(allowed);
    struct nearside *n = nearside_start(r->port, NULL);
    struct client *c = nearside_connect(n);
    long long own = own_names();

    nearside_await_fills(n);
    redis_await_calls(r, "command", 1, 10000 * slowdown());
    await_learnt(n, own);
    expect(r->direct, "+OK", "MODULE LOAD %s", file_beside("module.so"));
    cr_assert_eq(growth(n, "fences", c, "+OK", "near.set k v"), 1);
    cr_assert_eq(nearside_info(n, "commands_learnt"), own);
    (void)ask(r->direct, "CLIENT KILL TYPE normal");
    await_learnt(n, own + NAMES);
    nearside_await_fills(n);
    cr_assert_eq(growth(n, "fences", c, "+OK", "near.set k w"), 0);
    expect(c, "$w", "GET k");
}

/* Not even until it has told its own commands. */
SCENARIO(learn, another_server_without_the_module_is_not_taken_for_the_first)
{
    struct redis *r = start_with_module();
    struct relay *link = relay_start(r->port, "$7\r\nCOMMAND\r\n");
    struct nearside *n = nearside_start(relay_port(link), NULL);
    struct client *c = nearside_connect(n);

    nearside_await_fills(n);
    await_learnt(n, own_names() + NAMES);
    relay_hold(link, RELAY_DOWN, true); /* what it tells is on its way */
    r->extra = NULL;
    redis_restart(r);
    await_learnt(n, 0);
    nearside_await_fills(n);
    await_reply(c, "-ERR unknown command...", 10000 * slowdown(), "near.set k v");
    cr_assert_eq(growth(n, "fences", c, "-ERR unknown command...", "near.set k v"), 1);
    relay_release(link);
}

/* ---- Servers that say other things ---------------------------------------------------------- */

SCENARIO(learn, a_blocking_command_holds_nobody_else)
{
    static const struct fake_rule rules[] = {
        {"COMMAND",
         "*1\r\n*6\r\n$9\r\nmod.block\r\n:-2\r\n*2\r\n+write\r\n+blocking\r\n:1\r\n:1\r\n:1\r\n", 0,
         FAKE_KEEP},
        {"MOD.BLOCK", NULL, 0, FAKE_HANG},
        {NULL, NULL, 0, FAKE_KEEP},
    };
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), "proxy.workers=1", NULL);
    struct client *blocked = nearside_connect(n);
    struct client *c = nearside_connect(n);

    await_learnt(n, 1);
    cr_assert(client_command(blocked, "mod.block k"));
    nearside_await_info(n, "pinned_connections", 1, 1, 10000 * slowdown());
    for (int i = 0; i < 20; i++) {
        expect(c, "+OK", "SET k %d", i);
        expect(c, "$value", "GET k");
        expect(c, "+OK", "EVAL x 0");
    }
    cr_assert(!client_readable(blocked, 0));
    cr_assert_eq(fake_seen(f, "mod.block"), 1);
    client_close(blocked);
    nearside_await_info(n, "pinned_connections", 0, 0, 10000 * slowdown());
    expect(c, "+OK", "SET k v");
}

struct seen {
    struct fake *fake;
    const char *prefix;
    int times;
};

static bool was_seen(void *ctx)
{
    struct seen *s = ctx;

    return fake_seen(s->fake, s->prefix) >= s->times;
}

static void await_seen(struct fake *f, const char *prefix, int times)
{
    struct seen s = {f, prefix, times};

    cr_assert(await(was_seen, &s, 15000 * slowdown()), "%s was not sent %d times", prefix, times);
}

/* Whatever the server answers: said once, and everything works. */
static void goes_on_without(const struct fake_rule *rules, const char *logged)
{
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);
    struct client *c = nearside_connect(n);

    nearside_await_log(n, logged);
    expect(c, "+OK", "MODULE LOAD x"); /* a reason to ask again */
    await_seen(f, "COMMAND", 2);
    expect(c, "+OK", "SET k v");
    expect(c, "$value", "GET k");
    expect(c, "+OK", "near.set k v");
    cr_assert_eq(nearside_info(n, "commands_learnt"), 0);
    cr_assert_eq(nearside_log_lines(n, logged), 1);
    cr_assert_eq(nearside_log_lines(n, "connection lost"), 0);
}

SCENARIO(learn, a_refusal_is_logged_once)
{
    static const struct fake_rule rules[] = {
        {"COMMAND", "-NOPERM this user has no permissions to run the 'command' command\r\n", 0,
         FAKE_KEEP},
        {NULL, NULL, 0, FAKE_KEEP},
    };

    goes_on_without(rules, "COMMAND: NOPERM this user");
}

SCENARIO(learn, a_reply_that_is_no_array_is_logged_once)
{
    static const struct fake_rule rules[] = {
        {"COMMAND", "$2\r\nno\r\n", 0, FAKE_KEEP},
        {NULL, NULL, 0, FAKE_KEEP},
    };

    goes_on_without(rules, "no array of commands");
}

SCENARIO(learn, a_reply_that_is_too_long_is_not_kept)
{
    static struct fake_rule rules[] = {
        {"COMMAND", NULL, 0, FAKE_KEEP},
        {NULL, NULL, 0, FAKE_KEEP},
    };
    size_t n = 9 * 1024 * 1024;
    char *reply = cleanup_alloc(n + 32);
    size_t head = (size_t)sprintf(reply, "$%zu\r\n", n);

    memset(reply + head, 'x', n);
    memcpy(reply + head + n, "\r\n", 3);
    rules[0].reply = reply;
    goes_on_without(rules, "it is too long");
}

SCENARIO(learn, a_server_that_hangs_up_is_asked_again_later)
{
    static const struct fake_rule rules[] = {
        {"COMMAND", "*2\r\n", 0, FAKE_CLOSE},
        {NULL, NULL, 0, FAKE_KEEP},
    };
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);
    struct client *c = nearside_connect(n);
    int64_t began = now_ms();

    await_seen(f, "COMMAND", 3);
    cr_assert_geq(now_ms() - began, 2000, "asked three times within %d ms",
                  (int)(now_ms() - began));
    expect(c, "+OK", "SET k v");
    expect(c, "$value", "GET k");
    cr_assert_eq(nearside_info(n, "commands_learnt"), 0);
}

SCENARIO(learn, an_unfinished_reply_does_not_keep_the_proxy_from_ending)
{
    static const struct fake_rule rules[] = {
        {"COMMAND", "*2\r\n*6\r\n$3\r\nmod\r\n", 0, FAKE_HANG},
        {NULL, NULL, 0, FAKE_KEEP},
    };
    struct fake *f = fake_start(rules);
    struct nearside *n = nearside_start(fake_port(f), NULL);
    struct client *c = nearside_connect(n);

    await_seen(f, "COMMAND", 1);
    expect(c, "+OK", "SET k v");
    nearside_stop(n, 10000 * slowdown());
}
