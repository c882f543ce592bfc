/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cmd.c: the command table against what real servers say (cmd_facts.def), and every sentence
 * of cmd.h.
 *
 * Requests are written as words between blanks, "" for an empty one, and made into RESP by the
 * small builder below, so that nothing here depends on the parser finding arguments. Keys are
 * compared as the same kind of words. The first half goes through all rows; the second half is one
 * test per promise. No server is started: cmd_facts.def says where its facts come from.
 */
#include "../../../resp/cmd.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

TestSuite(cmd, .init = cmd_init);

/* ---- requests from words ---- */

struct request {
    struct request_view view;
    char bytes[64 * 1024];
};

static void start_request(struct request *r, int64_t argc)
{
    memset(&r->view, 0, sizeof(r->view));
    for (int i = 0; i < REQUEST_ARGS; i++) {
        r->view.argv[i] = SLICE("0"); /* a valid number, for those who look where nothing is */
    }
    int n = snprintf(r->bytes, sizeof(r->bytes), "*%lld\r\n", (long long)argc);
    r->view.raw = slice_of(r->bytes, (size_t)n);
}

static void add_argument(struct request *r, struct slice arg)
{
    struct request_view *v = &r->view;
    char *end = r->bytes + v->raw.n;
    size_t room = sizeof(r->bytes) - v->raw.n;
    cr_assert_lt(arg.n + 32, room);
    size_t head = (size_t)snprintf(end, room, "$%zu\r\n", arg.n);
    if (arg.n > 0) {
        memcpy(end + head, arg.p, arg.n);
    }
    memcpy(end + head + arg.n, "\r\n", 2);
    if (v->nargv < REQUEST_ARGS) {
        v->argv[v->nargv++] = slice_of(end + head, arg.n);
    }
    v->argc++;
    v->raw.n += head + arg.n + 2;
    v->size = v->raw.n;
}

/* The next word of *text, or false. */
static bool next_word(const char **text, struct slice *word)
{
    const char *p = *text + strspn(*text, " ");
    if (*p == '\0') {
        return false;
    }
    *word = slice_of(p, strcspn(p, " "));
    *text = p + word->n;
    if (slice_eq(*word, SLICE("\"\""))) {
        *word = slice_of(p, 0);
    }
    return true;
}

static const struct request_view *request(struct request *r, const char *text)
{
    struct slice word;
    int64_t argc = 0;
    for (const char *p = text; next_word(&p, &word);) {
        argc++;
    }
    start_request(r, argc);
    for (const char *p = text; next_word(&p, &word);) {
        add_argument(r, word);
    }
    return &r->view;
}

static const struct request_view *request_of(struct request *r, const struct slice *args, size_t n)
{
    start_request(r, (int64_t)n);
    for (size_t i = 0; i < n; i++) {
        add_argument(r, args[i]);
    }
    return &r->view;
}

/* "config|get" as a request: "config get". */
static const struct cmd *find_name(struct request *r, const char *name)
{
    char text[128];
    snprintf(text, sizeof(text), "%s", name);
    char *bar = strchr(text, '|');
    if (bar != NULL) {
        *bar = ' ';
    }
    return cmd_find(request(r, text));
}

static const struct cmd *find_text(const char *text)
{
    struct request r;
    return cmd_find(request(&r, text));
}

/* The keys of a request as words; false when cmd_keys_init says so. */
static bool keys_of(const struct cmd *cmd, const struct request_view *v, char *out, size_t size)
{
    struct cmd_key_walk walk;
    struct slice key;
    size_t n = 0;
    bool ok = cmd_keys_init(&walk, cmd, v);
    out[0] = '\0';
    while (cmd_keys_next(&walk, &key)) {
        cr_assert(key.p >= v->raw.p && key.p + key.n <= v->raw.p + v->raw.n, "a key elsewhere");
        const char *blank = n == 0 ? "" : " ";
        struct slice shown = key.n == 0 ? SLICE("\"\"") : key;
        n += (size_t)snprintf(out + n, size - n, "%s%.*s", blank, (int)shown.n, shown.p);
        cr_assert_lt(n, size);
    }
    cr_assert(!cmd_keys_next(&walk, &key), "the walk goes on after its end");
    return ok;
}

static void expect_keys(const char *text, const char *keys)
{
    struct request r;
    char found[1024];
    const struct request_view *v = request(&r, text);
    cr_expect(keys_of(cmd_find(v), v, found, sizeof(found)), "refused: %s", text);
    cr_expect_str_eq(found, keys, "%s: got %s, not %s", text, found, keys);
}

static void expect_no_sense(const char *text)
{
    struct request r;
    char found[1024];
    const struct request_view *v = request(&r, text);
    cr_expect(!keys_of(cmd_find(v), v, found, sizeof(found)), "accepted: %s", text);
    cr_expect_str_eq(found, "", "%s: yields %s though it makes no sense", text, found);
}

/* ---- what real servers say ---- */

struct fact {
    const char *name;
    int arity;
    const char *flags;
    int first, last, step;
    const char *request;
    const char *keys;
};

#define FACT(n, a, flags, f, l, s, request, keys)  {n, a, flags, f, l, s, request, keys},
#define LATER(n, a, flags, f, l, s, request, keys) {n, a, flags, f, l, s, request, keys},
#define KEYED(request, keys)
static const struct fact facts[] = {
#include "cmd_facts.def"
};
#undef FACT
#undef LATER
#undef KEYED

#define FACT(n, a, flags, f, l, s, request, keys)
#define LATER(n, a, flags, f, l, s, request, keys)
#define KEYED(request, keys) {request, keys},
static const struct {
    const char *request;
    const char *keys;
} more_requests[] = {
#include "cmd_facts.def"
};
#undef FACT
#undef LATER
#undef KEYED

/* Every row by name alone. */
#define CMD(n, ...)    n,
#define PIN(n, ...)    n,
#define LOC(n, ...)    n,
#define LOCSUB(n, ...) n,
static const char *const row_names[] = {
#include "../../../resp/commands.def"
};
#undef CMD
#undef PIN
#undef LOC
#undef LOCSUB

/* CLIENT is answered here, but for what concerns the server as a whole. */
static bool is_answered_here(const char *name)
{
    return strncmp(name, "client|", 7) == 0 && strcmp(name, "client|help") != 0 &&
           strcmp(name, "client|pause") != 0 && strcmp(name, "client|unpause") != 0;
}

/* Is name one of the words of list? */
static bool listed(const char *name, const char *list)
{
    struct slice word;
    while (next_word(&list, &word)) {
        if (slice_eq(word, slice_str(name))) {
            return true;
        }
    }
    return false;
}

Test(cmd, every_command_of_the_servers_has_its_row)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        cr_expect_str_eq(find_name(&r, facts[i].name)->name, facts[i].name);
    }
    cr_expect_gt(ARRAY_LEN(facts), 366);
}

Test(cmd, every_row_is_a_command_of_the_servers)
{
    for (size_t i = 0; i < ARRAY_LEN(row_names); i++) {
        /* words of HTTP that Redis knows, though COMMAND does not list them */
        bool known = strcmp(row_names[i], "post") == 0 || strcmp(row_names[i], "host:") == 0;
        for (size_t j = 0; j < ARRAY_LEN(facts); j++) {
            known = known || strcmp(facts[j].name, row_names[i]) == 0;
        }
        cr_expect(known, "%s", row_names[i]);
    }
}

Test(cmd, arity_is_that_of_the_servers)
{
    /* What 7.2 widened. */
    static const struct {
        const char *name;
        int arity;
    } wider[] = {
        {"zrank", -3},
        {"zrevrank", -3},
        {"command|getkeys", -3},
        {"command|getkeysandflags", -3},
    };
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        int arity = facts[i].arity;
        for (size_t j = 0; j < ARRAY_LEN(wider); j++) {
            arity = strcmp(wider[j].name, facts[i].name) == 0 ? wider[j].arity : arity;
        }
        cr_expect_eq(find_name(&r, facts[i].name)->arity, arity, "%s", facts[i].name);
    }
}

Test(cmd, readonly_and_blocking_are_the_flags_of_the_servers)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        const struct fact *f = &facts[i];
        const struct cmd *cmd = find_name(&r, f->name);
        cr_expect_eq(cmd->readonly, strchr(f->flags, 'r') != NULL, "%s", f->name);
        /* WAIT has the flag from 7.2 on. */
        bool blocking = strchr(f->flags, 'b') != NULL || strcmp(f->name, "wait") == 0;
        cr_expect_eq(cmd->blocking, blocking, "%s", f->name);
    }
}

Test(cmd, containers_are_the_rows_that_have_subcommands)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(row_names); i++) {
        size_t n = strlen(row_names[i]);
        bool container = false;
        for (size_t j = 0; j < ARRAY_LEN(row_names); j++) {
            container = container ||
                        (strncmp(row_names[j], row_names[i], n) == 0 && row_names[j][n] == '|');
        }
        cr_expect_eq(find_name(&r, row_names[i])->has_sub, container, "%s", row_names[i]);
    }
}

Test(cmd, positions_of_ranges_are_those_of_the_servers)
{
    struct request r;
    size_t ranges = 0;
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        const struct fact *f = &facts[i];
        const struct cmd *cmd = find_name(&r, f->name);
        if (cmd->keys == KEYS_NONE) {
            cr_expect_eq(f->first, 0, "%s", f->name);
            cr_expect_null(strchr(f->flags, 'm'), "%s", f->name);
        }
        if (cmd->keys == KEYS_RANGE) {
            ranges++;
            cr_expect(cmd->first == f->first && cmd->last == f->last && cmd->step == f->step, "%s",
                      f->name);
        }
    }
    cr_expect_gt(ranges, 180);
}

Test(cmd, keys_are_those_of_command_getkeys)
{
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        if (facts[i].request[0] != '\0') {
            expect_keys(facts[i].request, facts[i].keys);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(more_requests); i++) {
        expect_keys(more_requests[i].request, more_requests[i].keys);
    }
}

Test(cmd, every_row_with_keys_has_been_compared)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        const struct cmd *cmd = find_name(&r, facts[i].name);
        bool channel = listed(facts[i].name, "spublish ssubscribe sunsubscribe");
        if (cmd->keys != KEYS_NONE && !channel) {
            cr_expect_str_neq(facts[i].request, "", "%s", facts[i].name);
            cr_expect_str_eq(find_text(facts[i].request)->name, facts[i].name);
        }
    }
}

/* ---- classes ---- */

/* Everything that is neither READ (flag r, keys) nor WRITE (flag w, keys) by its flags. */
static const struct {
    enum cmd_class class;
    const char *names;
} class_lists[] = {
    {CMD_GET, "get"},
    {CMD_MGET, "mget"},
    {CMD_WRITE, "pfcount"},
    {CMD_UNKNOWN, "eval evalsha fcall object xinfo xgroup module cluster"},
    {CMD_FLUSH, "flushall flushdb swapdb acl|deluser acl|load acl|setuser replicaof slaveof "
                "module|load module|loadex module|unload "
                "cluster|addslots cluster|addslotsrange cluster|bumpepoch cluster|delslots "
                "cluster|delslotsrange cluster|failover cluster|flushslots cluster|forget "
                "cluster|meet cluster|replicate cluster|reset cluster|set-config-epoch "
                "cluster|setslot"},
    {CMD_LOCAL, "asking auth client echo hello info ping quit readonly readwrite reset select"},
    {CMD_PINNED, "multi exec discard watch unwatch blpop brpop blmove brpoplpush bzpopmin bzpopmax "
                 "blmpop bzmpop xread xreadgroup subscribe psubscribe ssubscribe unsubscribe "
                 "punsubscribe sunsubscribe monitor wait waitaof debug shutdown failover "
                 "script|kill script|debug function|kill client|pause client|unpause "
                 "sync psync replconf"},
};

static enum cmd_class expected_class(const struct fact *f)
{
    const char *name = is_answered_here(f->name) ? "client" : f->name;
    for (size_t i = 0; i < ARRAY_LEN(class_lists); i++) {
        if (listed(name, class_lists[i].names)) {
            return class_lists[i].class;
        }
    }
    if (f->request[0] == '\0') {
        return CMD_NONE;
    }
    return strchr(f->flags, 'w') != NULL ? CMD_WRITE : CMD_READ;
}

Test(cmd, every_row_has_the_class_of_the_protocol)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        cr_expect_eq(find_name(&r, facts[i].name)->class, expected_class(&facts[i]), "%s",
                     facts[i].name);
    }
}

Test(cmd, effect_of_a_pinned_row_says_what_it_does_to_keys)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        const char *name = facts[i].name;
        const struct cmd *cmd = find_name(&r, name);
        enum cmd_class effect = cmd->class;
        if (cmd->class == CMD_PINNED) {
            effect = strchr(facts[i].flags, 'w') != NULL       ? CMD_WRITE
                     : strcmp(name, "xread") == 0              ? CMD_READ
                     : strcmp(name, "exec") == 0               ? CMD_UNKNOWN
                     : listed(name, "debug shutdown failover") ? CMD_FLUSH
                                                               : CMD_NONE;
        }
        cr_expect_eq(cmd->effect, effect, "%s", name);
    }
}

Test(cmd, local_rows_name_their_command_and_no_other_row_does)
{
    static const struct {
        const char *name;
        enum cmd_local local;
    } locals[] = {
        {"auth", LOCAL_AUTH},   {"client", LOCAL_CLIENT},     {"echo", LOCAL_ECHO},
        {"hello", LOCAL_HELLO}, {"info", LOCAL_INFO},         {"ping", LOCAL_PING},
        {"quit", LOCAL_QUIT},   {"readonly", LOCAL_READONLY}, {"readwrite", LOCAL_READWRITE},
        {"reset", LOCAL_RESET}, {"select", LOCAL_SELECT},     {"post", LOCAL_HTTP},
        {"host:", LOCAL_HTTP},  {"asking", LOCAL_READONLY},
    };
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(row_names); i++) {
        enum cmd_local local = is_answered_here(row_names[i]) ? LOCAL_CLIENT : LOCAL_NO;
        for (size_t j = 0; j < ARRAY_LEN(locals); j++) {
            local = strcmp(locals[j].name, row_names[i]) == 0 ? locals[j].local : local;
        }
        cr_expect_eq(find_name(&r, row_names[i])->local, local, "%s", row_names[i]);
    }
}

/* ---- cmd_find ---- */

Test(cmd, case_does_not_matter)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(row_names); i++) {
        char name[64];
        snprintf(name, sizeof(name), "%s", row_names[i]);
        for (int odd = 0; odd < 2; odd++) {
            for (size_t k = 0; name[k] != '\0'; k++) {
                name[k] = (char)(k % 2 == (size_t)odd ? toupper(row_names[i][k]) : row_names[i][k]);
            }
            cr_expect_str_eq(find_name(&r, name)->name, row_names[i]);
        }
    }
}

Test(cmd, a_name_with_one_other_byte_is_another_name)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(row_names); i++) {
        if (strchr(row_names[i], '|') != NULL) {
            continue;
        }
        char name[64];
        snprintf(name, sizeof(name), "%s", row_names[i]);
        for (size_t k = 0; name[k] != '\0'; k++) {
            for (int byte = 0; byte < 256; byte++) {
                name[k] = (char)byte;
                struct slice arg = slice_of(name, strlen(row_names[i]));
                const struct cmd *cmd = cmd_find(request_of(&r, &arg, 1));
                bool same = byte == row_names[i][k] || byte == toupper(row_names[i][k]);
                cr_expect_eq(strcmp(cmd->name, row_names[i]) == 0, same, "%s, byte %zu = %d",
                             row_names[i], k, byte);
            }
            name[k] = row_names[i][k];
        }
    }
}

Test(cmd, a_longer_or_shorter_name_is_another_name)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(row_names); i++) {
        char name[64];
        if (strchr(row_names[i], '|') != NULL) {
            continue;
        }
        snprintf(name, sizeof(name), "%s", row_names[i]);
        size_t n = strlen(name);
        struct slice shorter = slice_of(name, n - 1);
        struct slice longer = slice_of(name, n + 1); /* with the NUL */
        cr_expect_str_neq(cmd_find(request_of(&r, &shorter, 1))->name, row_names[i]);
        cr_expect_str_neq(cmd_find(request_of(&r, &longer, 1))->name, row_names[i]);
    }
}

Test(cmd, a_command_without_a_row_gets_the_shared_row_unknown)
{
    const struct cmd *unknown = find_text("nosuch a b");
    cr_assert_not_null(unknown);
    cr_expect_str_eq(unknown->name, "unknown");
    cr_expect_eq(unknown->class, CMD_UNKNOWN);
    cr_expect_eq(unknown->effect, CMD_UNKNOWN);
    cr_expect_eq(unknown->keys, KEYS_NONE);
    cr_expect(!unknown->readonly);
    cr_expect(cmd_arity_ok(unknown, 1) && cmd_arity_ok(unknown, 1000000));
    cr_expect_eq(find_text("unknown"), unknown);
    cr_expect_eq(find_text("\"\""), unknown);
    cr_expect_eq(find_text("JSON.SET k $ 1"), unknown);

    static char name[20000];
    memset(name, 'g', sizeof(name));
    struct slice long_name = slice_of(name, sizeof(name));
    struct request r;
    cr_expect_eq(cmd_find(request_of(&r, &long_name, 1)), unknown);
}

Test(cmd, a_container_without_a_known_subcommand_gets_its_own_row)
{
    static const char *const texts[] = {"config",        "config nosuch x", "config \"\"",
                                        "config gett x", "config ge",       "config count"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        cr_expect_str_eq(find_text(texts[i])->name, "config", "%s", texts[i]);
    }
    cr_expect_eq(find_text("config nosuch")->class, CMD_NONE);
    cr_expect_eq(find_text("cluster nosuch")->class, CMD_UNKNOWN);
    cr_expect_eq(find_text("module nosuch")->class, CMD_UNKNOWN);
    cr_expect_str_eq(find_text("config get")->name, "config|get");
}

Test(cmd, a_subcommand_is_found_only_in_its_container)
{
    cr_expect_str_eq(find_text("config|get x")->name, "unknown");
    cr_expect_str_eq(find_text("getkeysandflags")->name, "unknown");
    cr_expect_str_eq(find_text("acl setslot")->name, "acl");
    cr_expect_str_eq(find_text("slowlog get")->name, "slowlog|get");
    cr_expect_str_eq(find_text("set get")->name, "set");
    cr_expect_str_eq(find_text("client tracking on")->name, "client|tracking");
    cr_expect_str_eq(find_text("object flushall")->name, "object");
}

Test(cmd, init_again_changes_nothing)
{
    const struct cmd *get = find_text("get k");
    const struct cmd *sub = find_text("xgroup createconsumer k g c");
    cmd_init();
    cr_expect_eq(find_text("get k"), get);
    cr_expect_eq(find_text("xgroup createconsumer k g c"), sub);
}

/* ---- arity and effective class ---- */

Test(cmd, arity_of_n_wants_exactly_n_and_minus_n_at_least_n)
{
    const struct cmd *get = find_text("get");
    const struct cmd *del = find_text("del");
    cr_expect(!cmd_arity_ok(get, 1) && cmd_arity_ok(get, 2) && !cmd_arity_ok(get, 3));
    cr_expect(!cmd_arity_ok(del, 1) && cmd_arity_ok(del, 2) && cmd_arity_ok(del, INT64_MAX));
}

static enum cmd_class class_of(const char *text)
{
    struct request r;
    const struct request_view *v = request(&r, text);
    return cmd_effective_class(cmd_find(v), v);
}

Test(cmd, stream_reads_are_pinned_only_with_block)
{
    cr_expect_eq(class_of("xread STREAMS k 0"), CMD_READ);
    cr_expect_eq(class_of("xread COUNT 5 STREAMS k 0"), CMD_READ);
    cr_expect_eq(class_of("xread block 0 STREAMS k 0"), CMD_PINNED);
    cr_expect_eq(class_of("xread COUNT 5 BlocK 9 STREAMS k 0"), CMD_PINNED);
    cr_expect_eq(class_of("xreadgroup GROUP g c STREAMS k >"), CMD_WRITE);
    cr_expect_eq(class_of("xreadgroup GROUP g c NOACK COUNT 3 BLOCK 1 STREAMS k >"), CMD_PINNED);
    /* Only as an option: not as a group, a consumer or a key. */
    cr_expect_eq(class_of("xreadgroup GROUP BLOCK c STREAMS k >"), CMD_WRITE);
    cr_expect_eq(class_of("xreadgroup GROUP g BLOCK STREAMS k >"), CMD_WRITE);
    cr_expect_eq(class_of("xread STREAMS block 0"), CMD_READ);
    cr_expect_eq(class_of("xread STREAMS k block"), CMD_READ);
    cr_expect_eq(class_of("xread"), CMD_READ);
}

Test(cmd, every_other_row_keeps_its_class)
{
    struct request r;
    for (size_t i = 0; i < ARRAY_LEN(facts); i++) {
        const char *text = facts[i].request[0] != '\0' ? facts[i].request : facts[i].name;
        const struct request_view *v = request(&r, text);
        const struct cmd *cmd = cmd_find(v);
        if (cmd->keys != KEYS_STREAMS) {
            cr_expect_eq(cmd_effective_class(cmd, v), cmd->class, "%s", text);
        }
    }
    cr_expect_eq(class_of("blpop block 0"), CMD_PINNED);
    cr_expect_eq(class_of("get block"), CMD_GET);
}

/* ---- the key walk ---- */

Test(cmd, positions_that_make_no_sense_are_refused_and_yield_nothing)
{
    static const char *const texts[] = {
        "get",
        "set",
        "del",
        "lcs a",
        "rename a",
        "blpop a",
        "bitop and",
        "object encoding",
        "memory usage",
        "eval body",
        "eval",
        "lmpop",
        "zunionstore d",
        "zunionstore",
        "sort",
        "sort k STORE",
        "georadius",
        "georadius k 1 1 1 m STORE",
        "georadiusbymember k m 1 m STOREDIST",
        "xread",
        "xread STREAMS",
        "xread STREAMS k",
        "xread STREAMS a b 0",
        "xread COUNT STREAMS k 0",
        "xreadgroup GROUP g c k >",
        "xreadgroup GROUP g STREAMS k >",
        "migrate h 1",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        expect_no_sense(texts[i]);
    }
}

Test(cmd, a_bad_number_of_keys_is_refused)
{
    static const char *const numbers[] = {"-1",
                                          "3",
                                          "100",
                                          "9223372036854775807",
                                          "9223372036854775808",
                                          "-9223372036854775808",
                                          "01",
                                          "+1",
                                          "1.0",
                                          "18446744073709551617",
                                          "4294967297",
                                          "0x1",
                                          "abc",
                                          "\"\"",
                                          "1a",
                                          "-0",
                                          "NaN"};
    static const char *const forms[] = {"eval body %s a b", "fcall_ro f %s a b", "lmpop %s a b",
                                        "zunion %s a b", "zunionstore d %s a b"};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        for (size_t j = 0; j < ARRAY_LEN(forms); j++) {
            char text[128];
            snprintf(text, sizeof(text), forms[j], numbers[i]);
            expect_no_sense(text);
        }
    }
    struct slice blank[] = {SLICE("eval"), SLICE("body"), SLICE(" 1"), SLICE("k")};
    struct request r;
    char found[64];
    const struct request_view *v = request_of(&r, blank, ARRAY_LEN(blank));
    cr_expect(!keys_of(cmd_find(v), v, found, sizeof(found)));
}

Test(cmd, a_number_of_keys_may_use_all_arguments_and_be_zero)
{
    expect_keys("eval body 2 a b", "a b");
    expect_keys("eval body 1 a b", "a");
    expect_keys("eval body 0", "");
    expect_keys("zunion 0 a", "");
    expect_keys("zunionstore d 0", "d");
}

Test(cmd, commands_without_keys_have_a_walk_of_none)
{
    expect_keys("ping", "");
    expect_keys("nosuch a b", "");
    expect_keys("config get x", "");
    expect_keys("flushall async", "");
    expect_keys("sunsubscribe", "");
}

Test(cmd, sharded_channels_count_as_keys)
{
    expect_keys("spublish c message", "c");
    expect_keys("ssubscribe a b", "a b");
    expect_keys("sunsubscribe a b", "a b");
    expect_keys("publish c message", "");
}

Test(cmd, each_key_argument_is_yielded_once_and_in_order)
{
    expect_keys("del a a b a", "a a b a");
    expect_keys("mset a 1 b 2 a 3", "a b a");
    expect_keys("mset a 1 b", "a b");
    expect_keys("zunionstore d 2 b a", "d b a");
    expect_keys("rename b a", "b a");
}

Test(cmd, only_the_last_store_counts)
{
    /* COMMAND GETKEYS names the first two as well; GEORADIUS writes only c. */
    expect_keys("georadius k 1 1 1 m STORE a STOREDIST b STORE c", "k c");
    expect_keys("sort k STORE a LIMIT 0 1 STORE b STORE c", "k c");
}

Test(cmd, option_words_are_found_in_any_case)
{
    expect_keys("sort k sToRe d", "k d");
    expect_keys("georadius k 1 1 1 m StoreDist d", "k d");
    expect_keys("xread count 1 sTREAMS k 0", "k");
    expect_keys("migrate h 1 \"\" 0 5 auth2 keys keys Keys a b", "a b");
}

Test(cmd, option_words_as_arguments_of_options_are_not_options)
{
    expect_keys("sort k by store get store limit store store store d", "k d");
    expect_keys("sort k by store get x", "k");
    expect_keys("xreadgroup group streams streams streams a b 0 0", "a b");
    expect_keys("xread count streams streams k 0", "k");
    expect_keys("xread block streams streams k 0", "k");
    expect_keys("sort k store store", "k store");
    expect_keys("migrate h 1 \"\" 0 5 auth keys keys a", "a");
}

Test(cmd, options_of_newer_servers_are_passed_over)
{
    expect_keys("xreadgroup GROUP g c CLAIM 100 COUNT 2 STREAMS a b > >", "a b");
    expect_keys("sort k NEW 1 STORE d", "k d");
    expect_keys("migrate h 1 \"\" 0 5 NEW 1 KEYS a b", "a b");
}

Test(cmd, migrate_names_the_key_in_place_or_behind_keys_or_both)
{
    expect_keys("migrate h 1 k 0 5", "k");
    expect_keys("migrate h 1 \"\" 0 5", "\"\"");
    expect_keys("migrate h 1 \"\" 0 5 KEYS a b", "a b");
    expect_keys("migrate h 1 \"\" 0 5 KEYS a \"\"", "a \"\"");
    expect_keys("migrate h 1 \"\" 0 5 KEYS", "");
    /* Redis refuses the last one; all that it names is yielded. */
    expect_keys("migrate h 1 k 0 5 KEYS a b", "k a b");
}

/* name [before], then n keys "0", "1" ...; with a value behind each if step is 2. */
static void expect_many(struct slice *args, size_t used, size_t n, size_t step)
{
    static char numbers[4096][24];
    struct request *r = malloc(sizeof(*r));
    cr_assert_not_null(r);
    for (size_t i = 0; i < n; i++) {
        snprintf(numbers[i], sizeof(numbers[i]), "%zu", i);
        for (size_t k = 0; k < step; k++) {
            args[used++] = slice_str(numbers[i]);
        }
    }
    const struct request_view *v = request_of(r, args, used);
    struct cmd_key_walk walk;
    struct slice key;
    cr_assert(cmd_keys_init(&walk, cmd_find(v), v));
    for (size_t i = 0; i < n; i++) {
        cr_assert(cmd_keys_next(&walk, &key));
        cr_assert(slice_eq(key, slice_str(numbers[i])), "key %zu", i);
    }
    cr_expect(!cmd_keys_next(&walk, &key));
    free(r);
}

Test(cmd, keys_beyond_argv_are_walked)
{
    static struct slice args[8192];
    args[0] = SLICE("mget");
    for (size_t n = 1; n < 20; n++) {
        expect_many(args, 1, n, 1);
    }
    expect_many(args, 1, 4000, 1);
    args[0] = SLICE("mset");
    for (size_t n = 1; n < 20; n++) {
        expect_many(args, 1, n, 2);
    }
    expect_many(args, 1, 2000, 2);
    args[0] = SLICE("eval");
    args[1] = SLICE("body");
    args[2] = SLICE("3000");
    expect_many(args, 3, 3000, 1);
}

Test(cmd, a_request_that_ends_early_ends_the_walk)
{
    /* argc promises more than the bytes hold: not from our parser, but no reason to run wild. */
    struct request r;
    struct slice args[] = {SLICE("del"), SLICE("1"), SLICE("2"), SLICE("3"), SLICE("4"),
                           SLICE("5"),   SLICE("6"), SLICE("7"), SLICE("8"), SLICE("9")};
    request_of(&r, args, ARRAY_LEN(args));
    r.view.argc = 1000;
    char found[64];
    cr_expect(keys_of(find_text("del"), &r.view, found, sizeof(found)));
    cr_expect_str_eq(found, "1 2 3 4 5 6 7 8 9");
}
