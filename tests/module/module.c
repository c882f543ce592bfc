/* SPDX-License-Identifier: Apache-2.0
 *
 * module.c: a Redis module for tests, with commands that Nearside cannot know:
 *
 *   near.set KEY VALUE       write, key 1        sets it
 *   near.get KEY             readonly, key 1     its value
 *   near.both KEY KEY VALUE  write, keys 1..2    sets both
 *   near.count               readonly, no keys   how often it was called
 *   near.moved X KEY VALUE   write, movablekeys  sets it
 *   near.plain KEY VALUE     no flags, no keys   sets it
 *   near.c set KEY VALUE     container, if the server has those: write, key 2
 *
 * Loaded with an argument, it has near.late (as near.set) and nothing else. The few functions of the
 * module API that are used are declared here: the server hands out their addresses by name, through
 * the getter that is the first pointer in *ctx.
 */
#include <stddef.h>

struct context;
struct string;
struct key;
struct command;

#define OK       0
#define ERROR    1
#define READ     1
#define WRITE    2
#define API      1
#define UNUSED   __attribute__((unused))
#define EXPORTED __attribute__((visibility("default")))

typedef int (*command_fn)(struct context *ctx, struct string **argv, int argc);

static void (*set_attributes)(struct context *ctx, const char *name, int version, int api);
static int (*create_command)(struct context *ctx, const char *name, command_fn fn,
                             const char *flags, int first, int last, int step);
static struct command *(*get_command)(struct context *ctx, const char *name);
static int (*create_subcommand)(struct command *parent, const char *name, command_fn fn,
                                const char *flags, int first, int last, int step);
static struct key *(*open_key)(struct context *ctx, struct string *name, int mode);
static void (*close_key)(struct key *key);
static int (*string_set)(struct key *key, struct string *value);
static char *(*string_dma)(struct key *key, size_t *n, int mode);
static int (*reply_ok)(struct context *ctx, const char *text);
static int (*reply_bulk)(struct context *ctx, const char *bytes, size_t n);
static int (*reply_null)(struct context *ctx);
static int (*reply_number)(struct context *ctx, long long n);
static int (*wrong_arity)(struct context *ctx);
static int (*asks_for_keys)(struct context *ctx);
static void (*key_at)(struct context *ctx, int position);

int RedisModule_OnLoad(struct context *ctx, struct string **argv, int argc);

static void put(struct context *ctx, struct string *name, struct string *value)
{
    struct key *key = open_key(ctx, name, WRITE);
    string_set(key, value);
    close_key(key);
}

static int set(struct context *ctx, struct string **argv, int argc)
{
    if (argc != 3) {
        return wrong_arity(ctx);
    }
    put(ctx, argv[1], argv[2]);
    return reply_ok(ctx, "OK");
}

static int set_both(struct context *ctx, struct string **argv, int argc)
{
    if (argc != 4) {
        return wrong_arity(ctx);
    }
    put(ctx, argv[1], argv[3]);
    put(ctx, argv[2], argv[3]);
    return reply_ok(ctx, "OK");
}

static int set_second(struct context *ctx, struct string **argv, int argc)
{
    if (asks_for_keys(ctx)) {
        key_at(ctx, 2);
        return OK;
    }
    if (argc != 4) {
        return wrong_arity(ctx);
    }
    put(ctx, argv[2], argv[3]);
    return reply_ok(ctx, "OK");
}

static int get(struct context *ctx, struct string **argv, int argc)
{
    if (argc != 2) {
        return wrong_arity(ctx);
    }
    struct key *key = open_key(ctx, argv[1], READ);
    size_t n = 0;
    const char *value = key == NULL ? NULL : string_dma(key, &n, READ);
    if (value == NULL) {
        reply_null(ctx);
    } else {
        reply_bulk(ctx, value, n);
    }
    close_key(key);
    return OK;
}

static int count(struct context *ctx, struct string **argv UNUSED, int argc UNUSED)
{
    static long long calls;
    return reply_number(ctx, ++calls);
}

static const struct {
    const char *name;
    void *to;
    int needed;
} functions[] = {
    {"RedisModule_SetModuleAttribs", &set_attributes, 1},
    {"RedisModule_CreateCommand", &create_command, 1},
    {"RedisModule_GetCommand", &get_command, 0},
    {"RedisModule_CreateSubcommand", &create_subcommand, 0},
    {"RedisModule_OpenKey", &open_key, 1},
    {"RedisModule_CloseKey", &close_key, 1},
    {"RedisModule_StringSet", &string_set, 1},
    {"RedisModule_StringDMA", &string_dma, 1},
    {"RedisModule_ReplyWithSimpleString", &reply_ok, 1},
    {"RedisModule_ReplyWithStringBuffer", &reply_bulk, 1},
    {"RedisModule_ReplyWithNull", &reply_null, 1},
    {"RedisModule_ReplyWithLongLong", &reply_number, 1},
    {"RedisModule_WrongArity", &wrong_arity, 1},
    {"RedisModule_IsKeysPositionRequest", &asks_for_keys, 1},
    {"RedisModule_KeyAtPos", &key_at, 1},
};

static int get_functions(struct context *ctx)
{
    int (*get_function)(const char *name, void *to) =
        *(int (**)(const char *name, void *to))(void *)ctx;
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        if (get_function(functions[i].name, functions[i].to) != OK && functions[i].needed) {
            return ERROR;
        }
    }
    return OK;
}

static int set_in_container(struct context *ctx, struct string **argv, int argc)
{
    return set(ctx, argv + 1, argc - 1);
}

static int create_container(struct context *ctx)
{
    if (create_subcommand == NULL || get_command == NULL) {
        return OK; /* before 7.0 */
    }
    if (create_command(ctx, "near.c", NULL, "", 0, 0, 0) != OK) {
        return ERROR;
    }
    return create_subcommand(get_command(ctx, "near.c"), "set", set_in_container, "write", 2, 2, 1);
}

EXPORTED int RedisModule_OnLoad(struct context *ctx, struct string **argv UNUSED, int argc)
{
    if (get_functions(ctx) != OK) {
        return ERROR;
    }
    set_attributes(ctx, argc > 0 ? "nearlate" : "near", 1, API);
    if (argc > 0) {
        return create_command(ctx, "near.late", set, "write deny-oom", 1, 1, 1);
    }
    if (create_command(ctx, "near.set", set, "write deny-oom", 1, 1, 1) != OK ||
        create_command(ctx, "near.get", get, "readonly fast", 1, 1, 1) != OK ||
        create_command(ctx, "near.both", set_both, "write", 1, 2, 1) != OK ||
        create_command(ctx, "near.count", count, "readonly", 0, 0, 0) != OK ||
        create_command(ctx, "near.moved", set_second, "write getkeys-api", 0, 0, 0) != OK ||
        create_command(ctx, "near.plain", set, "", 0, 0, 0) != OK || create_container(ctx) != OK) {
        return ERROR;
    }
    return OK;
}
