/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_learnt.c: bytes of a server, as its reply to COMMAND, to rows.
 *
 * The input is one reply, or two with a byte 0xff between them (what changed, what vanished). Must
 * hold whatever the bytes are:
 *   - a reply is read or changes nothing, and read again it says the same and makes no row;
 *   - a row that is found has the name that was asked for, and claims only what learnt.h allows: a
 *     write has keys, a key range has sense, who may be sent again reads;
 *   - the walk of its keys stays inside a request;
 *   - names that commands.def has keep their rows.
 * Names to ask for are cut from the input: every bulk or status of it is asked for as a command, and
 * with its successor as the subcommand. A broken promise aborts.
 */
#include "../../resp/learnt.h"

#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static const struct cmd *built_in;

static void require(bool promise)
{
    if (!promise) {
        abort();
    }
}

#define ARGS 6

/* A request of the two words and some more arguments. */
static void make_request(struct request_view *v, char bytes[512], struct slice one,
                         struct slice two)
{
    size_t n = 0;
    *v = (struct request_view){.argc = ARGS, .nargv = ARGS};
    memcpy(bytes, "*6\r\n", 4);
    n = 4;
    for (int i = 0; i < ARGS; i++) {
        struct slice arg = i == 0 ? one : i == 1 ? two : SLICE("key");
        char head[] = "$00\r\n";
        head[1] = (char)('0' + arg.n / 10);
        head[2] = (char)('0' + arg.n % 10);
        memcpy(bytes + n, head, 5);
        memcpy(bytes + n + 5, arg.p, arg.n);
        memcpy(bytes + n + 5 + arg.n, "\r\n", 2);
        v->argv[i] = slice_of(bytes + n + 5, arg.n);
        n += arg.n + 7;
    }
    v->raw = slice_of(bytes, n);
    v->size = n;
}

static void check_row(const struct cmd *cmd, const struct request_view *v)
{
    enum cmd_class effect = cmd->effect;
    require(cmd->class == effect || cmd->class == CMD_PINNED);
    require(effect == CMD_WRITE || effect == CMD_READ || effect == CMD_NONE ||
            effect == CMD_UNKNOWN);
    require(cmd->local == LOCAL_NO && (cmd->keys == KEYS_NONE || cmd->keys == KEYS_RANGE));
    require(effect != CMD_WRITE || cmd->keys == KEYS_RANGE);
    require(cmd->readonly == (effect == CMD_READ) && (!cmd->blocking || cmd->class == CMD_PINNED));
    require(!cmd->has_sub || effect == CMD_UNKNOWN);
    if (cmd->keys == KEYS_RANGE) {
        require(cmd->first >= 1 && cmd->step >= 1);
        require(cmd->last < 0 || cmd->last >= cmd->first);
        require(cmd->arity > cmd->first || -cmd->arity > cmd->first);
    }
    struct cmd_key_walk walk;
    struct slice key;
    int64_t keys = 0;
    if (cmd_keys_init(&walk, cmd, v)) {
        while (cmd_keys_next(&walk, &key)) {
            require(key.p > v->raw.p && key.p + key.n < v->raw.p + v->raw.n);
            require(++keys < v->argc);
        }
    }
}

static void ask(struct slice one, struct slice two)
{
    struct request_view v;
    char bytes[512];
    if (one.n == 0 || one.n > LEARNT_NAME_MAX || two.n > LEARNT_NAME_MAX) {
        return;
    }
    make_request(&v, bytes, one, two);
    const struct cmd *cmd = learnt_find(&v);
    if (cmd == NULL) {
        return;
    }
    require(strncasecmp(cmd->name, one.p, one.n) == 0);
    require(cmd->name[one.n] == '\0' || cmd->name[one.n] == '|');
    require(cmd->name[one.n] == '\0' || slice_eq_nocase(slice_str(cmd->name + one.n + 1), two));
    require(cmd_is_built_in(one) || cmd_find(&v) == cmd);
    check_row(cmd, &v);
}

/* Everything between line ends is a name worth asking for. */
static void ask_for_all(struct slice in)
{
    struct slice last = SLICE("x");
    int asked = 0;
    for (const char *p = in.p, *end = in.p + in.n; p < end && asked < 2000; asked++) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((lf == NULL ? end : lf) - p);
        struct slice line = slice_of(p, n > 0 && p[n - 1] == '\r' ? n - 1 : n);
        const char *bar = line.n > 0 ? memchr(line.p, '|', line.n) : NULL;
        ask(last, line);
        ask(line, last);
        if (bar != NULL) {
            ask(slice_of(line.p, (size_t)(bar - line.p)),
                slice_of(bar + 1, line.n - (size_t)(bar + 1 - line.p)));
        }
        last = line;
        p = lf == NULL ? end : lf + 1;
    }
}

static void read_one(struct slice in)
{
    /* a block of its own: a sanitizer sees a read beyond it */
    char *exact = malloc(in.n == 0 ? 1 : in.n);
    require(exact != NULL);
    if (in.n > 0) {
        memcpy(exact, in.p, in.n);
    }
    uint32_t count = learnt_count();
    uint32_t rows = learnt_rows();
    enum learnt_status status = learnt_read(slice_of(exact, in.n), learnt_epoch());
    if (status == LEARNT_MALFORMED) {
        require(learnt_count() == count && learnt_rows() == rows);
    } else {
        count = learnt_count();
        rows = learnt_rows();
        require(learnt_read(slice_of(exact, in.n), learnt_epoch()) == status);
        require(learnt_count() == count && learnt_rows() == rows);
    }
    require(status != LEARNT_OUTDATED && rows <= LEARNT_ROWS_MAX && count <= rows);
    ask_for_all(slice_of(exact, in.n));
    free(exact);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct request_view v;
    char bytes[512];
    (void)argc;
    (void)argv;
    cmd_init();
    make_request(&v, bytes, SLICE("get"), SLICE("k"));
    built_in = cmd_find(&v);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    struct request_view v;
    char bytes[512];
    struct slice in = slice_of((const char *)input, size);
    const char *cut = size > 0 ? memchr(in.p, 0xff, size) : NULL;
    if (cut == NULL) {
        read_one(in);
    } else {
        size_t n = (size_t)(cut - in.p);
        read_one(slice_of(in.p, n));
        read_one(slice_of(cut + 1, in.n - n - 1));
    }
    make_request(&v, bytes, SLICE("get"), SLICE("k"));
    require(cmd_find(&v) == built_in);
    learnt_forget();
    require(learnt_count() == 0);
    learnt_reset();
    return 0;
}
