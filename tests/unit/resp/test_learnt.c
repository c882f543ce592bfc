/* SPDX-License-Identifier: Apache-2.0
 *
 * test_learnt.c: what is learnt from a reply to COMMAND, and what is not.
 *
 * Replies are written as RESP with "|" for CRLF, so that they stay readable; names of subcommands,
 * which hold a '|', have a '!' there. Each test is a process of its own (Criterion), so that rows of
 * one are not another's.
 */
#include "../../../resp/learnt.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

TestSuite(learnt, .init = cmd_init);

/* ---- replies and requests from text ---- */

struct text {
    char *p;
    size_t n;
};

static void add(struct text *t, const char *s)
{
    t->p = t->p == NULL ? malloc(1) : t->p;
    for (; *s != '\0'; s++) {
        t->p = realloc(t->p, t->n + 2);
        cr_assert_not_null(t->p);
        if (*s == '|') {
            t->p[t->n++] = '\r';
        }
        t->p[t->n++] = (char)(*s == '|' ? '\n' : *s == '!' ? '|' : *s);
    }
}

static enum learnt_status read_text(const char *reply)
{
    struct text t = {NULL, 0};
    add(&t, reply);
    char *exact = malloc(t.n); /* a block of its own: reads beyond it are seen */
    memcpy(exact, t.p, t.n);
    enum learnt_status status = learnt_read(slice_of(exact, t.n), learnt_epoch());
    free(exact);
    free(t.p);
    return status;
}

/* One command of six fields. */
static const char *one(const char *name, int arity, const char *flags, long long first,
                       long long last, long long step)
{
    static char text[8][512];
    static size_t next;
    char *to = text[next++ % 8];
    char list[256] = "";
    char words[128];
    int n = 0;
    char *save = NULL;
    snprintf(words, sizeof(words), "%s", flags);
    for (char *w = strtok_r(words, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save)) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof(list) - at, "+%s|", w);
        n++;
    }
    snprintf(to, sizeof(text[0]), "*6|$%zu|%s|:%d|*%d|%s:%lld|:%lld|:%lld|", strlen(name), name,
             arity, n, list, first, last, step);
    return to;
}

static void learn(const char *command)
{
    char reply[2048];
    snprintf(reply, sizeof(reply), "*1|%s", command);
    cr_assert_eq(read_text(reply), LEARNT_OK, "%s", reply);
}

struct asked {
    struct request_view view;
    char bytes[256];
};

/* Words between blanks as a request, through the parser. */
static const struct cmd *find_in(struct asked *a, const char *words)
{
    struct parser parser;
    int n = snprintf(a->bytes, sizeof(a->bytes), "%s\r\n", words);
    parser_init(&parser);
    cr_assert_eq(parse_request(&parser, slice_of(a->bytes, (size_t)n), &a->view), PARSE_OK);
    return cmd_find(&a->view);
}

static const struct cmd *find(const char *words)
{
    struct asked a;
    const struct cmd *cmd = find_in(&a, words);
    blob_unref(a.view.inline_blob);
    return cmd;
}

static bool is_unknown(const char *words)
{
    return strcmp(find(words)->name, "unknown") == 0;
}

/* The keys of a request by its row, joined by commas; "refused" when the walk is. */
static const char *keys_of(const char *words)
{
    static char joined[256];
    struct asked a;
    struct cmd_key_walk walk;
    struct slice key;
    size_t n = 0;
    const struct cmd *cmd = find_in(&a, words);
    snprintf(joined, sizeof(joined), "refused");
    if (cmd_keys_init(&walk, cmd, &a.view)) {
        joined[0] = '\0';
        while (cmd_keys_next(&walk, &key)) {
            n += (size_t)snprintf(joined + n, sizeof(joined) - n, "%s%.*s", n > 0 ? "," : "",
                                  (int)key.n, key.p);
        }
    }
    blob_unref(a.view.inline_blob);
    return joined;
}

/* ---- what a command becomes ---- */

struct case_of {
    const char *flags;
    int arity, first, last, step;
    enum cmd_class class, effect;
    bool readonly, blocking, keyed;
};

static const struct case_of cases[] = {
    {"write denyoom", -1, 1, 1, 1, CMD_WRITE, CMD_WRITE, false, false, true},
    {"write", -2, 1, -1, 2, CMD_WRITE, CMD_WRITE, false, false, true},
    {"write", 4, 1, -2, 1, CMD_WRITE, CMD_WRITE, false, false, true},
    {"readonly fast", 2, 1, 1, 1, CMD_READ, CMD_READ, true, false, true},
    {"readonly", -1, 0, 0, 0, CMD_NONE, CMD_NONE, false, false, false},
    {"WRITE", -1, 1, 1, 1, CMD_WRITE, CMD_WRITE, false, false, true},
    {"", -1, 0, 0, 0, CMD_UNKNOWN, CMD_UNKNOWN, false, false, false},
    {"fast", -1, 1, 1, 1, CMD_UNKNOWN, CMD_UNKNOWN, false, false, true},
    {"write", -1, 0, 0, 0, CMD_UNKNOWN, CMD_UNKNOWN, false, false, false},
    {"write readonly", -1, 1, 1, 1, CMD_UNKNOWN, CMD_UNKNOWN, false, false, true},
    {"write movablekeys", -1, 1, 1, 1, CMD_UNKNOWN, CMD_UNKNOWN, false, false, true},
    {"readonly movablekeys", -1, 1, 1, 1, CMD_UNKNOWN, CMD_UNKNOWN, false, false, true},
    {"readonly movablekeys", -1, 0, 0, 0, CMD_UNKNOWN, CMD_UNKNOWN, false, false, false},
    {"readonly admin", -1, 0, 0, 0, CMD_UNKNOWN, CMD_UNKNOWN, false, false, false},
    {"write noscript", -1, 1, 1, 1, CMD_UNKNOWN, CMD_UNKNOWN, false, false, true},
    {"readonly pubsub", -1, 0, 0, 0, CMD_UNKNOWN, CMD_UNKNOWN, false, false, false},
    {"readonly may_replicate", -1, 1, 1, 1, CMD_UNKNOWN, CMD_UNKNOWN, false, false, true},
    {"write blocking noscript", -1, 1, 1, 1, CMD_PINNED, CMD_WRITE, false, true, true},
    {"readonly blocking", -1, 1, 1, 1, CMD_PINNED, CMD_READ, true, true, true},
    {"readonly blocking", -1, 0, 0, 0, CMD_PINNED, CMD_NONE, false, true, false},
    {"blocking", -1, 0, 0, 0, CMD_PINNED, CMD_UNKNOWN, false, true, false},
    {"write blocking", -1, 0, 0, 0, CMD_PINNED, CMD_UNKNOWN, false, true, false},
    {"write blocking movablekeys", -1, 1, 1, 1, CMD_PINNED, CMD_UNKNOWN, false, true, true},
    {"blocking pubsub", -1, 0, 0, 0, CMD_PINNED, CMD_UNKNOWN, false, false, false},
};

Test(learnt, a_commands_flags_and_keys_decide_its_class)
{
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct case_of *want = &cases[i];
        learn(one("mod.cmd", want->arity, want->flags, want->first, want->last, want->step));
        const struct cmd *cmd = find("mod.cmd k v");
        cr_expect_str_eq(cmd->name, "mod.cmd");
        cr_expect_eq(cmd->class, want->class, "case %zu (%s): class %d", i, want->flags,
                     cmd->class);
        cr_expect_eq(cmd->effect, want->effect, "case %zu (%s): effect", i, want->flags);
        cr_expect_eq(cmd->readonly, want->readonly, "case %zu (%s): readonly", i, want->flags);
        cr_expect_eq(cmd->blocking, want->blocking, "case %zu (%s): blocking", i, want->flags);
        cr_expect_eq(cmd->keys != KEYS_NONE, want->keyed, "case %zu (%s): keys", i, want->flags);
        cr_expect_eq(cmd->local, LOCAL_NO);
    }
}

Test(learnt, positions_that_make_no_sense_leave_a_command_of_unknown_effect_without_keys)
{
    static const long long absurd[][3] = {
        {-1, 1, 1},
        {1, 1, 0},
        {1, 1, -3},
        {3, 1, 1},
        {0, 1, 1},
        {3, 1, -3},
        {1LL << 40, -1, 1},
        {1, 1LL << 40, 1},
        {1, 1, 1 << 20},
        {1, -9e18, 1},
        {INT64_MAX, 1, 1},
        {INT64_MIN, INT64_MIN, INT64_MIN},
        {1, 1LL << 32 | 1, 1},
        {1LL << 32 | 1, 1, 1},
        {1, 1, 1LL << 32 | 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(absurd); i++) {
        learn(one("mod.cmd", -1, "write", absurd[i][0], absurd[i][1], absurd[i][2]));
        cr_expect_eq(find("mod.cmd k")->class, CMD_UNKNOWN, "case %zu", i);
        cr_expect_eq(find("mod.cmd k")->keys, KEYS_NONE, "case %zu", i);
    }
    learn(one("mod.cmd", 2, "write", 2, 2, 1)); /* a key behind the last argument */
    cr_expect_eq(find("mod.cmd k")->class, CMD_UNKNOWN);
}

Test(learnt, the_keys_of_a_request_are_found)
{
    learn(one("mod.cmd", -1, "write", 1, -1, 2));
    cr_expect_str_eq(keys_of("MOD.cmd a 1 b 2 c 3"), "a,b,c");
    learn(one("mod.cmd", -1, "write", 2, 3, 1));
    cr_expect_str_eq(keys_of("mod.cmd x a b c"), "a,b");
    learn(one("mod.cmd", -1, "write", 1, -2, 1));
    cr_expect_str_eq(keys_of("mod.cmd a b 0"), "a,b");
}

Test(learnt, a_request_without_its_first_key_is_no_request_of_that_command)
{
    learn(one("mod.cmd", -1, "write", 2, 2, 1));
    cr_expect_str_eq(keys_of("mod.cmd"), "refused");
    cr_expect_str_eq(keys_of("mod.cmd x"), "refused");
    cr_expect_str_eq(keys_of("mod.cmd x k"), "k");
}

Test(learnt, what_is_built_in_stays_as_it_is)
{
    const struct cmd *get = find("get k");
    const struct cmd *config = find("config get x");
    cr_assert_eq(read_text("*2|*6|$3|GeT|:2|*1|+write|:0|:0|:0|"
                           "*10|$6|config|:-2|*0|:0|:0|:0|*0|*0|*0|"
                           "*1|*6|$10|config!new|:2|*1|+readonly|:0|:0|:0|"),
                 LEARNT_OK);
    cr_expect_eq(find("get k"), get);
    cr_expect_eq(find("config get x"), config);
    cr_expect_str_eq(find("config new")->name, "config");
    cr_expect_eq(learnt_count(), 0);
}

/* As Redis 7.0 sends it: categories, tips, key specs, subcommands. */
#define SPEC(flag, kind)                                                                           \
    "*1|*6|$5|flags|*2|+RW|+" flag "|$12|begin_search|*4|$4|type|$" kind                           \
    "|$4|spec|*2|$5|index|:1|$9|find_keys|*4|$4|type|$5|range|$4|spec|*0|"
#define FULL(spec, subs) "*1|*10|$7|mod.cmd|:-2|*1|+write|:1|:1|:1|*1|+@write|*1|$4|some|" spec subs

Test(learnt, key_specs_that_are_incomplete_or_of_unknown_kind_hide_keys)
{
    cr_assert_eq(read_text(FULL(SPEC("access", "5|index"), "*0|")), LEARNT_OK);
    cr_expect_eq(find("mod.cmd k")->class, CMD_WRITE);
    cr_assert_eq(read_text(FULL(SPEC("incomplete", "5|index"), "*0|")), LEARNT_OK);
    cr_expect_eq(find("mod.cmd k")->class, CMD_UNKNOWN);
    cr_assert_eq(read_text(FULL(SPEC("access", "7|unknown"), "*0|")), LEARNT_OK);
    cr_expect_eq(find("mod.cmd k")->class, CMD_UNKNOWN);
}

Test(learnt, key_specs_without_positions_are_no_sign_of_a_command_without_keys)
{
    cr_assert_eq(read_text("*1|*10|$7|mod.cmd|:-2|*1|+readonly|:0|:0|:0|*0|*0|" SPEC(
                     "access", "5|index") "*0|"),
                 LEARNT_OK);
    cr_expect_eq(find("mod.cmd k")->class, CMD_UNKNOWN);
}

Test(learnt, a_reply_of_resp3_says_the_same)
{
    cr_assert_eq(read_text("*1|*10|$7|mod.cmd|:-2|~2|+write|+fast|:1|:1|:1|~1|+@write|*0|*1|"
                           "%3|$5|flags|~1|+RW|$12|begin_search|%2|$4|type|$5|index|$4|spec|%1|"
                           "$5|index|:1|$9|find_keys|%1|$4|type|_|~0|"),
                 LEARNT_OK);
    cr_expect_eq(find("mod.cmd k")->class, CMD_WRITE);
}

#define SUBS                                                                                       \
    "*4|*6|$11|mod.cmd!set|:-3|*1|+write|:2|:2|:1|"                                                \
    "*6|$11|MOD.cmd!GET|:3|*1|+readonly|:2|:2|:1|"                                                 \
    "*6|$9|other!set|:3|*1|+readonly|:0|:0|:0|"                                                    \
    "*6|$13|mod.cmd!a!set|:3|*1|+readonly|:0|:0|:0|"

Test(learnt, subcommands_have_rows_of_their_own)
{
    cr_assert_eq(read_text(FULL("*0|", SUBS)), LEARNT_OK);
    cr_expect_eq(learnt_count(), 3);
    cr_expect_str_eq(find("Mod.Cmd SET k v")->name, "mod.cmd|set");
    cr_expect_eq(find("mod.cmd set k v")->class, CMD_WRITE);
    cr_expect_str_eq(keys_of("mod.cmd set k v"), "k");
    cr_expect_eq(find("mod.cmd get k")->class, CMD_READ);
    cr_expect_str_eq(find("mod.cmd nosuch k")->name, "mod.cmd");
    cr_expect_eq(find("mod.cmd nosuch k")->class, CMD_UNKNOWN);
    cr_expect_eq(find("mod.cmd")->class, CMD_UNKNOWN);
    cr_expect(is_unknown("mod.cmd|set k v"), "a joined name is not a command");
    cr_expect_str_eq(find("mod.cmd a|set")->name, "mod.cmd");
}

Test(learnt, names_that_could_be_taken_for_others_are_refused)
{
    static const char *const names[] = {"script!debug", "a b",       "tab\there", "",
                                        "\177del",      "h\xc3\xa9", "nul!"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        learn(one(names[i], 1, "readonly", 0, 0, 0));
        cr_expect_eq(learnt_count(), 0, "case %zu", i);
    }
    char name[LEARNT_NAME_MAX + 2];
    memset(name, 'x', sizeof(name));
    name[LEARNT_NAME_MAX] = '\0';
    learn(one(name, 1, "readonly", 0, 0, 0));
    cr_expect_str_eq(find(name)->name, name);
    name[LEARNT_NAME_MAX] = 'x';
    name[LEARNT_NAME_MAX + 1] = '\0';
    learn(one(name, 1, "readonly", 0, 0, 0));
    cr_expect(is_unknown(name));
}

Test(learnt, elements_that_make_no_sense_cost_only_themselves)
{
    cr_assert_eq(read_text("*9|:1|$-1|*-1|*0|*5|$1|a|:1|*0|:1|:1|"
                           "*6|$5|arity|$1|1|*0|:0|:0|:0|"
                           "*6|$4|zero|:0|*0|:0|:0|:0|"
                           "*6|$5|flags|:1|+write|:0|:0|:0|"
                           "*6|$4|good|:1|*1|+readonly|:0|:0|:0|"),
                 LEARNT_OK);
    cr_expect_eq(learnt_count(), 1);
    cr_expect_eq(find("good")->class, CMD_NONE);
}

Test(learnt, what_is_no_whole_array_changes_nothing)
{
    static const char *const replies[] = {
        "+OK|",
        ":1|",
        "*2|*0|",
        "*1|",
        "*",
        "",
        "*1|$5|abc|",
        "*-2|",
        "*1|$-2|",
        "*1|*99999999999|",
        "*1|?1|",
        "*0|+more|",
        "*1|>1|",
        "$0||",
        "*1|*6|$4|good|:1|*1|+readonly|:0|:0|",
        "*x|",
        "*1|$9223372036854775807|",
        "*4611686018427387904|",
        "*1|%4611686018427387904|",
        "*1|:x|",
        "*1|$3|abcde|",
        "|",
        "\n\n\n",
    };
    learn(one("mod.cmd", -1, "write", 1, 1, 1));
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        cr_expect_eq(read_text(replies[i]), LEARNT_MALFORMED, "case %zu", i);
        cr_expect_eq(find("mod.cmd k")->class, CMD_WRITE, "case %zu", i);
    }
    cr_expect_eq(learnt_count(), 1);
}

Test(learnt, every_cut_of_a_reply_is_refused)
{
    struct text t = {NULL, 0};
    add(&t, FULL(SPEC("access", "5|index"), SUBS));
    for (size_t n = 0; n < t.n; n++) {
        char *exact = malloc(n + 1);
        memcpy(exact, t.p, n);
        cr_expect_eq(learnt_read(slice_of(exact, n), learnt_epoch()), LEARNT_MALFORMED, "%zu", n);
        free(exact);
    }
    cr_expect_eq(learnt_count(), 0);
    free(t.p);
}

Test(learnt, nesting_of_any_depth_is_walked)
{
    struct text t = {NULL, 0};
    t.n = 4 * 500000;
    t.p = malloc(t.n + 16);
    for (size_t i = 0; i < 500000; i++) {
        memcpy(t.p + 4 * i, "*1\r\n", 4);
    }
    memcpy(t.p + t.n, ":1\r\n", 4);
    cr_expect_eq(learnt_read(slice_of(t.p, t.n + 4), learnt_epoch()), LEARNT_OK);
    cr_expect_eq(learnt_read(slice_of(t.p, t.n), learnt_epoch()), LEARNT_MALFORMED);
    cr_expect_eq(learnt_count(), 0);
    free(t.p);
}

/* ---- again ---- */

Test(learnt, the_same_reply_again_makes_nothing_new)
{
    cr_assert_eq(read_text(FULL("*0|", SUBS)), LEARNT_OK);
    const struct cmd *before = find("mod.cmd set k");
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(read_text(FULL("*0|", SUBS)), LEARNT_OK);
    }
    cr_expect_eq(find("mod.cmd set k"), before);
    cr_expect_eq(learnt_rows(), 3);
    cr_expect_eq(learnt_count(), 3);
}

Test(learnt, what_changed_gets_what_the_new_reply_says_and_who_holds_the_old_row_keeps_it)
{
    learn(one("mod.cmd", -1, "readonly", 1, 1, 1));
    const struct cmd *before = find("mod.cmd k");
    learn(one("mod.cmd", -1, "write", 1, 1, 1));
    cr_expect_eq(find("mod.cmd k")->class, CMD_WRITE);
    cr_expect_eq(before->class, CMD_READ);
    cr_expect_str_eq(before->name, "mod.cmd");
    learn(one("mod.cmd", -1, "readonly", 1, 1, 1));
    cr_expect_eq(find("mod.cmd k"), before, "a row that comes back is the one it was");
    cr_expect_eq(learnt_rows(), 2);
}

Test(learnt, what_vanished_is_unknown_again)
{
    char both[1024];
    snprintf(both, sizeof(both), "*2|%s%s", one("mod.one", -1, "write", 1, 1, 1),
             one("mod.two", -1, "write", 1, 1, 1));
    cr_assert_eq(read_text(both), LEARNT_OK);
    cr_expect_eq(learnt_count(), 2);
    learn(one("mod.two", -1, "write", 1, 1, 1));
    cr_expect(is_unknown("mod.one k"));
    cr_expect_eq(find("mod.two k")->class, CMD_WRITE);
    cr_expect_eq(learnt_count(), 1);
    cr_assert_eq(read_text("*0|"), LEARNT_OK);
    cr_expect(is_unknown("mod.two k"));
    cr_expect_eq(learnt_count(), 0);
}

Test(learnt, a_name_given_twice_is_believed_only_if_both_say_the_same)
{
    char twice[1024];
    snprintf(twice, sizeof(twice), "*2|%s%s", one("mod.cmd", -1, "write", 1, 1, 1),
             one("MOD.CMD", -1, "write", 1, 1, 1));
    cr_assert_eq(read_text(twice), LEARNT_OK);
    cr_expect_eq(find("mod.cmd k")->class, CMD_WRITE);
    snprintf(twice, sizeof(twice), "*2|%s%s", one("mod.cmd", -1, "write", 1, 1, 1),
             one("mod.cmd", -1, "readonly", 1, 1, 1));
    cr_assert_eq(read_text(twice), LEARNT_OK);
    cr_expect(is_unknown("mod.cmd k"));
    cr_expect_eq(learnt_count(), 0);
}

Test(learnt, what_was_forgotten_is_unknown_and_an_answer_from_before_is_refused)
{
    learn(one("mod.cmd", -1, "write", 1, 1, 1));
    uint64_t asked = learnt_epoch();
    cr_expect_eq(learnt_forget(), asked + 1);
    cr_expect(is_unknown("mod.cmd k"));
    cr_expect_eq(learnt_count(), 0);
    cr_expect_eq(learnt_read(SLICE("*0\r\n"), asked), LEARNT_OUTDATED);
    learn(one("mod.cmd", -1, "write", 1, 1, 1));
    cr_expect_eq(find("mod.cmd k")->class, CMD_WRITE);
}

/* ---- bounds ---- */

static enum learnt_status learn_many(size_t from, size_t n)
{
    size_t size = n * 64 + 64;
    char *reply = malloc(size);
    size_t at = (size_t)snprintf(reply, size, "*%zu\r\n", n);
    for (size_t i = from; i < from + n; i++) {
        at += (size_t)snprintf(reply + at, size - at,
                               "*6\r\n$8\r\nm%07zu\r\n:1\r\n*0\r\n:0\r\n:0\r\n:0\r\n", i);
    }
    enum learnt_status status = learnt_read(slice_of(reply, at), learnt_epoch());
    free(reply);
    return status;
}

Test(learnt, there_are_so_many_rows_and_no_more)
{
    cr_assert_eq(learn_many(0, LEARNT_ROWS_MAX), LEARNT_OK);
    cr_expect_eq(learnt_count(), LEARNT_ROWS_MAX);
    cr_assert_eq(learn_many(0, LEARNT_ROWS_MAX), LEARNT_OK);
    cr_assert_eq(learn_many(100, LEARNT_ROWS_MAX), LEARNT_FULL);
    cr_expect_eq(learnt_count(), LEARNT_ROWS_MAX - 100);
    cr_expect_eq(learnt_rows(), LEARNT_ROWS_MAX);
    cr_expect(is_unknown("m0000099"));
    cr_expect_str_eq(find("m0004095")->name, "m0004095");
    cr_expect(is_unknown("m0004096"));
    /* a name that is known already, but needs another row */
    char reply[1024];
    snprintf(reply, sizeof(reply), "*1|%s", one("m0000200", -1, "write", 1, 1, 1));
    cr_expect_eq(read_text(reply), LEARNT_FULL);
    cr_expect(is_unknown("m0000200 k"));
    learnt_reset();
    cr_expect_eq(learnt_rows(), 0);
    learn(one("m0000200", -1, "write", 1, 1, 1));
    cr_expect_eq(find("m0000200 k")->class, CMD_WRITE);
}

#define FLIPS 2000

static void *flip(void *arg)
{
    (void)arg;
    for (int i = 0; i < FLIPS; i++) {
        learn(one("mod.cmd", -1, i % 2 != 0 ? "write" : "readonly", 1, 1, 1));
        if (i % 7 == 0) {
            (void)learnt_forget();
        }
    }
    return NULL;
}

Test(learnt, readers_see_one_whole_row_or_another_or_none)
{
    pthread_t writer;
    cr_assert_eq(pthread_create(&writer, NULL, flip, NULL), 0);
    for (int i = 0; i < FLIPS * 20; i++) {
        const struct cmd *cmd = find("mod.cmd k");
        bool none = cmd->class == CMD_UNKNOWN && strcmp(cmd->name, "unknown") == 0;
        bool write = cmd->class == CMD_WRITE && !cmd->readonly && cmd->keys == KEYS_RANGE;
        bool read = cmd->class == CMD_READ && cmd->readonly && cmd->keys == KEYS_RANGE;
        cr_assert(none || write || read);
    }
    pthread_join(writer, NULL);
    cr_expect_leq(learnt_rows(), 2);
}
