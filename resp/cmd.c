/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd.c: finds the row of a request in commands.def, and the keys among its arguments.
 *
 * From top to bottom: the rows; the index over them; options that name keys; the key walk.
 *
 * The index is an open-addressed table of names. A name is compared as one 64-bit word (its first
 * eight bytes, the case of letters masked out) and its length; only names longer than eight bytes
 * need a second look. A subcommand is entered under its own name and its container, so that
 * "config|get" is found in two probes and nothing is joined; a client that sends the word
 * "config|get" finds nothing, as in Redis. cmd_init alone writes the table; all threads read it.
 *
 * Key positions are read as Redis's own commands read them, which is stricter than its COMMAND
 * GETKEYS: the effect of a command is what matters here. An option we do not know is passed over,
 * so that a newer server's commands still have their keys found.
 *
 * The walk goes forward only and keeps no list: at most one key on its own, then one range. Numbers
 * from the peer are compared with the count of arguments before they are added to anything.
 *
 * Nothing here looks at values, decides where a command goes, or knows what a reply means.
 */
#include "cmd.h"

#include "learnt.h"
#include "scripts.h"

#include <endian.h>

/* The flags column of commands.def. */
enum row_flag {
    RO = 1,    /* readonly */
    SUB = 2,   /* has_sub */
    BLOCK = 4, /* blocking */
    VARY = 8,  /* varies */
};

/* clang-format off */
#define ROW(n, a, road, what, where, flags, k, f, l, s)                                            \
    {.name = (n), .arity = (a), .class = (road), .effect = (what), .local = (where),               \
     .readonly = ((flags) & RO) != 0, .has_sub = ((flags) & SUB) != 0, .keys = KEYS_##k,           \
     .first = (f), .last = (l), .step = (s), .blocking = ((flags) & BLOCK) != 0,           \
     .varies = ((flags) & VARY) != 0},
#define CMD(n, a, c, flags, k, f, l, s) ROW(n, a, CMD_##c, CMD_##c, LOCAL_NO, flags, k, f, l, s)
#define PIN(n, a, c, flags, k, f, l, s) ROW(n, a, CMD_PINNED, CMD_##c, LOCAL_NO, flags, k, f, l, s)
#define LOC(n, a, where) ROW(n, a, CMD_LOCAL, CMD_LOCAL, LOCAL_##where, 0, NONE, 0, 0, 0)
#define LOCSUB(n, a, where) ROW(n, a, CMD_LOCAL, CMD_LOCAL, LOCAL_##where, SUB, NONE, 0, 0, 0)
/* clang-format on */
static const struct cmd rows[] = {
#include "commands.def"
};
#undef CMD
#undef PIN
#undef LOC
#undef LOCSUB
#undef ROW

static const struct cmd unknown_row = {
    .name = "unknown", .arity = -1, .class = CMD_UNKNOWN, .effect = CMD_UNKNOWN};

static const struct {
    const char *name;
    enum cmd_spread spread;
} spreads[] = {
#define SPREAD(n, how) {(n), SPREAD_##how},
#include "spread.def"
#undef SPREAD
};

/* cmd_init writes them: */
static uint8_t spread_of_row[ARRAY_LEN(rows)]; /* enum cmd_spread */
static const struct cmd *row_of_get;

/* ---- the index ---- */

#define INDEX_BITS    10
#define INDEX_SLOTS   ((size_t)1 << INDEX_BITS)
#define NAME_MAX_LEN  31
#define EVERY_BYTE(b) (UINT64_C(0x0101010101010101) * (b))
#define CASE_BIT      0x20
_Static_assert(ARRAY_LEN(rows) * 2 <= INDEX_SLOTS, "a fuller index makes for long probes");

/* One name. No two share head and tag (cmd_init sees to that), so the first match is the only one
 * possible and the rest of a long name is compared once. */
struct index_slot {
    uint64_t head;         /* first eight bytes of the name, padded with zeros */
    uint64_t care;         /* bits of head that must be the same: all but the case of letters */
    const struct cmd *cmd; /* NULL: empty */
    uint32_t tag;
    uint16_t skip; /* length of "container|" */
    bool whole;    /* head and tag say all: a short name of a row without subcommands */
};

static struct index_slot name_index[INDEX_SLOTS];

static uint64_t load16(const char *p)
{
    uint16_t word;
    memcpy(&word, p, sizeof(word));
    return le16toh(word);
}

static uint64_t load32(const char *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof(word));
    return le32toh(word);
}

static uint64_t load64(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return le64toh(word);
}

/* The first eight bytes of a name, n >= 1. Never reads past its end; overlapping reads put the same
 * byte in the same place twice. */
static inline uint64_t name_head(const char *p, size_t n)
{
    if (n >= 8) {
        return load64(p);
    }
    if (n >= 4) {
        return load32(p) | load32(p + n - 4) << (8 * (n - 4));
    }
    if (n >= 2) {
        return load16(p) | load16(p + n - 2) << (8 * (n - 2));
    }
    return (unsigned char)*p;
}

/* What tells names with the same head apart: the length, and the container (NULL: a command). */
static inline uint32_t name_tag(size_t n, const struct cmd *container)
{
    uint32_t number = container == NULL ? 0 : (uint32_t)(container - rows) + 1;
    return number << 8 | (uint32_t)n;
}

static inline size_t first_slot(uint64_t head, uint32_t tag)
{
    uint64_t key = (head | EVERY_BYTE(CASE_BIT)) ^ (uint64_t)tag << 32;
    return (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - INDEX_BITS));
}

/* The slot with this head and tag, or an empty one (whose tag is 0, as no name's is). Ends, because
 * half of all slots are empty. */
static inline struct index_slot *find_slot(uint64_t head, uint32_t tag)
{
    struct index_slot *s = &name_index[first_slot(head, tag)];
    while ((((s->head ^ head) & s->care) != 0 || s->tag != tag) && s->cmd != NULL) {
        s = s == &name_index[INDEX_SLOTS - 1] ? name_index : s + 1;
    }
    return s;
}

/* Also refuses the empty name. */
static inline bool name_too_long(size_t n)
{
    return n - 1 >= NAME_MAX_LEN;
}

/* What head and tag did not compare. */
static bool rest_matches(const struct index_slot *s, struct slice name)
{
    return name.n <= 8 || strncasecmp(name.p + 8, s->cmd->name + s->skip + 8, name.n - 8) == 0;
}

/* The row with this name in this container, or NULL. */
static const struct cmd *find_row(struct slice name, const struct cmd *container)
{
    if (name_too_long(name.n)) {
        return NULL;
    }
    struct index_slot *s = find_slot(name_head(name.p, name.n), name_tag(name.n, container));
    return s->cmd != NULL && rest_matches(s, name) ? s->cmd : NULL;
}

/* All bits of a name's head but the case of its letters. */
static uint64_t head_care(const char *name, size_t n)
{
    uint64_t care = UINT64_MAX;
    for (size_t i = 0; i < n && i < 8; i++) {
        if (name[i] >= 'a' && name[i] <= 'z') {
            care &= ~((uint64_t)CASE_BIT << (8 * i));
        }
    }
    return care;
}

static void enter_name(const struct cmd *cmd, size_t skip, const struct cmd *container)
{
    const char *name = cmd->name + skip;
    size_t n = strlen(name);
    bug_on(name_too_long(n));
    uint64_t head = name_head(name, n);
    uint32_t tag = name_tag(n, container);
    struct index_slot *s = find_slot(head, tag);
    bug_on(s->cmd != NULL);
    *s = (struct index_slot){.head = head,
                             .care = head_care(name, n),
                             .cmd = cmd,
                             .tag = tag,
                             .skip = (uint16_t)skip,
                             .whole = n <= 8 && !cmd->has_sub};
}

static const struct cmd *row_named(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static void enter_spreads(void)
{
    for (size_t i = 0; i < ARRAY_LEN(spreads); i++) {
        const struct cmd *row = row_named(spreads[i].name);
        bug_on(row == NULL);
        spread_of_row[row - rows] = (uint8_t)spreads[i].spread;
    }
}

enum cmd_spread cmd_spread(const struct cmd *cmd)
{
    uintptr_t at = (uintptr_t)cmd - (uintptr_t)rows; /* beyond the rows: unknown, or learnt */
    return at < sizeof(rows) ? (enum cmd_spread)spread_of_row[at / sizeof(rows[0])] : SPREAD_NO;
}

void cmd_init(void)
{
    memset(name_index, 0, sizeof(name_index));
    enter_spreads();
    row_of_get = row_named("get");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (strchr(rows[i].name, '|') == NULL) {
            enter_name(&rows[i], 0, NULL);
        }
    }
    /* Subcommands need their containers. */
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *bar = strchr(rows[i].name, '|');
        if (bar != NULL) {
            size_t n = (size_t)(bar - rows[i].name);
            const struct cmd *container = find_row(slice_of(rows[i].name, n), NULL);
            bug_on(container == NULL || !container->has_sub);
            enter_name(&rows[i], n + 1, container);
        }
    }
}

static __attribute__((noinline)) const struct cmd *find_learnt(const struct request_view *v)
{
    const struct cmd *cmd = learnt_find(v);
    return cmd != NULL ? cmd : &unknown_row;
}

bool cmd_is_built_in(struct slice name)
{
    return find_row(name, NULL) != NULL;
}

/* The longer way of cmd_find, for long names and containers. A function of its own so that the
 * usual way needs no stack. */
static __attribute__((noinline)) const struct cmd *find_more(const struct index_slot *s,
                                                             const struct request_view *v)
{
    const struct cmd *cmd = s->cmd;
    if (cmd == NULL || !rest_matches(s, v->argv[0])) {
        return find_learnt(v);
    }
    const struct cmd *sub = NULL;
    if (cmd->has_sub && v->nargv >= 2) {
        sub = find_row(v->argv[1], cmd);
    }
    return sub != NULL ? sub : cmd;
}

const struct cmd *cmd_find(const struct request_view *v)
{
    struct slice name = v->argv[0];
    if (unlikely(name_too_long(name.n))) {
        return find_learnt(v);
    }
    const struct index_slot *s = find_slot(name_head(name.p, name.n), name_tag(name.n, NULL));
    return likely(s->whole) ? s->cmd : find_more(s, v);
}

const struct cmd *cmd_find_plain(struct slice name)
{
    if (name_too_long(name.n)) {
        return NULL;
    }
    const struct index_slot *s = find_slot(name_head(name.p, name.n), name_tag(name.n, NULL));
    const struct cmd *cmd = s->whole ? s->cmd : NULL;
    bool plain = cmd != NULL &&
                 (cmd->class == CMD_GET || cmd->class == CMD_READ || cmd->class == CMD_WRITE) &&
                 cmd->keys == KEYS_RANGE && cmd->first == 1 && cmd->last == 1 && !cmd->varies &&
                 !cmd->blocking;
    return plain ? cmd : NULL;
}

const struct cmd *cmd_get(void)
{
    return row_of_get;
}

bool cmd_arity_ok(const struct cmd *cmd, int64_t argc)
{
    return cmd->arity >= 0 ? argc == cmd->arity : argc >= -(int64_t)cmd->arity;
}

/* ---- options that name keys ---- */

enum option_kind {
    OPTION_PLAIN, /* here only for its arguments, which may look like options */
    OPTION_KEY,   /* its argument is a key */
    OPTION_KEYS,  /* all that follows belongs to it: keys, and for streams ids */
    OPTION_BLOCK,
};

struct option {
    struct slice word;
    int args;
    enum option_kind kind;
};

#define WORD(w)                                                                                    \
    {                                                                                              \
        (w), sizeof(w) - 1                                                                         \
    }
static const struct option sort_options[] = {
    {WORD("by"), 1, OPTION_PLAIN},
    {WORD("get"), 1, OPTION_PLAIN},
    {WORD("limit"), 2, OPTION_PLAIN},
    {WORD("store"), 1, OPTION_KEY},
};
static const struct option geo_options[] = {
    {WORD("store"), 1, OPTION_KEY},
    {WORD("storedist"), 1, OPTION_KEY},
};
static const struct option stream_options[] = {
    {WORD("block"), 1, OPTION_BLOCK},
    {WORD("count"), 1, OPTION_PLAIN},
    {WORD("group"), 2, OPTION_PLAIN},
    {WORD("streams"), 0, OPTION_KEYS},
};
static const struct option migrate_options[] = {
    {WORD("auth"), 1, OPTION_PLAIN},
    {WORD("auth2"), 2, OPTION_PLAIN},
    {WORD("keys"), 0, OPTION_KEYS},
};
#undef WORD

/* Where options start: behind the arguments that are told by position. GEORADIUS has one of these
 * more than GEORADIUSBYMEMBER: its unit, which cannot be STORE. */
#define STREAM_OPTIONS_AT  1
#define SORT_OPTIONS_AT    2
#define GEO_OPTIONS_AT     5
#define MIGRATE_OPTIONS_AT 6

struct option_scan {
    int64_t key;  /* index behind the last OPTION_KEY, or -1; not yet known to exist */
    int64_t keys; /* index behind OPTION_KEYS, or -1; not yet known to exist */
    bool block;
};

static const struct option *option_named(struct slice arg, const struct option *options, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (slice_eq_nocase(arg, options[i].word)) {
            return &options[i];
        }
    }
    return NULL;
}

static struct option_scan scan_options(const struct request_view *v, int64_t from,
                                       const struct option *options, size_t n)
{
    struct option_scan found = {.key = -1, .keys = -1, .block = false};
    int64_t skip = from;
    struct arg_walk args;
    struct slice arg;
    arg_walk_init(&args, v);
    for (int64_t i = 0; arg_walk_next(&args, &arg); i++) {
        if (skip > 0) {
            skip--;
            continue;
        }
        const struct option *option = option_named(arg, options, n);
        if (option == NULL) {
            continue;
        }
        skip = option->args;
        if (option->kind == OPTION_KEYS) {
            found.keys = i + 1;
            return found;
        }
        if (option->kind == OPTION_KEY) {
            found.key = i + 1;
        }
        found.block = found.block || option->kind == OPTION_BLOCK;
    }
    return found;
}

enum cmd_class cmd_varying_class(const struct cmd *cmd, const struct request_view *v)
{
    if (cmd->keys != KEYS_STREAMS) {
        bool by_name = strcmp(cmd->name, "evalsha") == 0;
        bool harmless =
            v->nargv > 1 && (by_name ? scripts_know(v->argv[1]) : script_cannot_write(v->argv[1]));
        return harmless ? CMD_READ : cmd->class;
    }
    bool block =
        scan_options(v, STREAM_OPTIONS_AT, stream_options, ARRAY_LEN(stream_options)).block;
    return block ? cmd->class : cmd->effect;
}

/* ---- the key walk ---- */

/* One key on its own: first what is yielded, and all unless a range is added behind it. */
static void walk_single(struct cmd_key_walk *w, int64_t at)
{
    w->next = at;
    w->last = at;
}

/* The keys from `from` up to `last`, behind the single key if there is one. */
static void walk_range(struct cmd_key_walk *w, int64_t from, int64_t last, int64_t step)
{
    if (from > last) {
        return;
    }
    if (w->next < 0) {
        w->next = from;
    } else {
        w->resume = from;
    }
    w->last = last;
    w->step = step;
}

static bool range_keys(struct cmd_key_walk *w, const struct cmd *cmd)
{
    int64_t argc = w->view->argc;
    if (cmd->first >= argc) {
        /* Right for those that take no key at all, like SUNSUBSCRIBE. */
        return cmd_arity_ok(cmd, argc);
    }
    int64_t last = cmd->last < 0 ? argc + cmd->last : cmd->last;
    if (last < cmd->first || last >= argc) {
        return false;
    }
    walk_range(w, cmd->first, last, cmd->step);
    return true;
}

/* argv[at] says how many keys follow it. */
static bool counted_keys(struct cmd_key_walk *w, int64_t at)
{
    int64_t count;
    if (at >= w->view->nargv || !slice_to_int64(w->view->argv[at], &count)) {
        return false;
    }
    if (count < 0 || count > w->view->argc - at - 1) {
        return false;
    }
    walk_range(w, at + 1, at + count, 1);
    return true;
}

/* argv[1], and perhaps a key to store the result in. */
static bool stored_keys(struct cmd_key_walk *w, int64_t from, const struct option *options,
                        size_t n)
{
    int64_t argc = w->view->argc;
    int64_t store = scan_options(w->view, from, options, n).key;
    if (argc < 2 || store >= argc) {
        return false;
    }
    walk_single(w, 1);
    if (store >= 0) {
        walk_range(w, store, store, 1);
    }
    return true;
}

/* As many keys as ids behind STREAMS, and at least one. */
static bool stream_keys(struct cmd_key_walk *w)
{
    struct option_scan found =
        scan_options(w->view, STREAM_OPTIONS_AT, stream_options, ARRAY_LEN(stream_options));
    if (found.keys < 0) {
        return false;
    }
    int64_t n = w->view->argc - found.keys;
    if (n <= 0 || n % 2 != 0) {
        return false;
    }
    walk_range(w, found.keys, found.keys + n / 2 - 1, 1);
    return true;
}

static bool migrate_keys(struct cmd_key_walk *w)
{
    if (w->view->argc <= 3) {
        return false;
    }
    struct option_scan found =
        scan_options(w->view, MIGRATE_OPTIONS_AT, migrate_options, ARRAY_LEN(migrate_options));
    if (found.keys < 0 || w->view->argv[3].n > 0) {
        walk_single(w, 3);
    }
    if (found.keys >= 0) {
        walk_range(w, found.keys, w->view->argc - 1, 1);
    }
    return true;
}

bool cmd_keys_init(struct cmd_key_walk *w, const struct cmd *cmd, const struct request_view *v)
{
    *w =
        (struct cmd_key_walk){.view = v, .at = -1, .next = -1, .resume = -1, .last = -1, .step = 1};
    switch (cmd->keys) {
    case KEYS_NONE:
        return true;
    case KEYS_RANGE:
        return range_keys(w, cmd);
    case KEYS_COUNTED:
        return counted_keys(w, cmd->first);
    case KEYS_DEST_COUNTED:
        walk_single(w, 1);
        if (!counted_keys(w, cmd->first)) {
            w->next = -1;
            return false;
        }
        return true;
    case KEYS_SORT:
        return stored_keys(w, SORT_OPTIONS_AT, sort_options, ARRAY_LEN(sort_options));
    case KEYS_GEO:
        return stored_keys(w, GEO_OPTIONS_AT, geo_options, ARRAY_LEN(geo_options));
    case KEYS_STREAMS:
        return stream_keys(w);
    case KEYS_MIGRATE:
        return migrate_keys(w);
    }
    return false;
}

/* Argument i, which is behind all that were asked for before. */
static bool argument(struct cmd_key_walk *w, int64_t i, struct slice *arg)
{
    if (i < w->view->nargv) {
        *arg = w->view->argv[i];
        return true;
    }
    if (w->at < 0) {
        arg_walk_init(&w->args, w->view);
        w->at = 0;
    }
    for (; w->at <= i; w->at++) {
        if (!arg_walk_next(&w->args, arg)) {
            return false;
        }
    }
    return true;
}

bool cmd_keys_next(struct cmd_key_walk *w, struct slice *key)
{
    int64_t at = w->next;
    if (at < 0 || !argument(w, at, key)) {
        w->next = -1;
        return false;
    }
    if (w->resume >= 0) {
        w->next = w->resume;
        w->resume = -1;
    } else {
        w->next = w->step <= w->last - at ? at + w->step : -1;
    }
    return true;
}
