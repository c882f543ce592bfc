/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_commands.c: bytes of a client, through the parser, to a row and its keys.
 *
 * The input is a stream of requests, as a client pipelines them; the first protocol error or
 * unfinished request ends it. For each request the same is asked of the row its name finds and of
 * the row its second argument would find as a command, so that every kind of walk meets arguments
 * that were not made for it. Must hold whatever the bytes are:
 *   - cmd_find returns a row with a name, and the effective class is the row's class or its effect;
 *   - every key lies in the request, keys come in the order of the arguments, there are no more of
 *     them than arguments, and the walk then stays at its end;
 *   - a refused walk yields nothing, and asking twice gives the same.
 * A broken promise aborts; reads and writes outside are for the sanitizers to see.
 */
#include "../../resp/cmd.h"

#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void require(bool promise)
{
    if (!promise) {
        abort();
    }
}

struct walked {
    bool ok;
    int64_t keys;
    uint64_t sum; /* of addresses and lengths: tells two walks apart */
};

static struct walked walk_keys(const struct cmd *cmd, const struct request_view *v)
{
    struct walked walked = {.ok = false, .keys = 0, .sum = 0};
    struct cmd_key_walk walk;
    struct slice key;
    const char *behind = v->raw.p;
    const char *end = v->raw.p + v->raw.n;
    walked.ok = cmd_keys_init(&walk, cmd, v);
    while (cmd_keys_next(&walk, &key)) {
        require(key.p > behind && key.n <= (size_t)(end - key.p));
        behind = key.p + key.n;
        walked.sum = walked.sum * 31 + (uint64_t)(key.p - v->raw.p) * 7 + key.n;
        require(++walked.keys < v->argc);
    }
    require(!cmd_keys_next(&walk, &key));
    return walked;
}

static void check_row(const struct cmd *cmd, const struct request_view *v)
{
    require(cmd != NULL && cmd->name[0] != '\0');
    enum cmd_class class = cmd_effective_class(cmd, v);
    require(class == cmd->class || class == cmd->effect);
    struct walked first = walk_keys(cmd, v);
    struct walked second = walk_keys(cmd, v);
    require(first.ok || first.keys == 0);
    require(first.ok == second.ok && first.keys == second.keys && first.sum == second.sum);
    (void)cmd_arity_ok(cmd, v->argc);
}

static void check_request(const struct request_view *v)
{
    check_row(cmd_find(v), v);
    if (v->nargv >= 2) {
        struct request_view other = *v;
        other.argv[0] = v->argv[1];
        check_row(cmd_find(&other), v);
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    cmd_init();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    struct parser parser;
    struct slice in = slice_of((const char *)input, size);
    parser_init(&parser);
    while (in.n > 0) {
        struct request_view view;
        enum parse_status st = parse_request(&parser, in, &view);
        if (st != PARSE_OK && st != PARSE_NOTHING) {
            break;
        }
        if (st == PARSE_OK) {
            check_request(&view);
            blob_unref(view.inline_blob);
        }
        require(view.size > 0 && view.size <= in.n);
        in = slice_of(in.p + view.size, in.n - view.size);
    }
    return 0;
}
