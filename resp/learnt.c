/* SPDX-License-Identifier: Apache-2.0
 *
 * learnt.c: reads a server's reply to COMMAND and keeps the rows.
 *
 * From top to bottom: one command of the reply as a `spec`; what row a spec gets; the names and their
 * rows; the reply as a whole; the look-up.
 *
 * The reply is walked where it lies: no tree is built, nothing is recursive, and no number from it
 * is used before it was compared with the bytes that are left. It is walked once to see that it is
 * whole, so that later steps only meet elements that end; each command is then read within its own
 * bytes, and one that makes no sense costs only itself.
 *
 * Names are an open-addressed table of pointers, at most half full, to which names are only added:
 *
 *   slot ─► name "mod.set" ─── row ──► the row in force, or NULL
 *                           └─ made ─► all rows it ever had (the lock's)
 *
 * All writing is under one lock; readers go by slot and row alone (acquire).
 */
#include "learnt.h"

#include "elements.h"

#include "../conf/mem.h"

#include <pthread.h>

/* ---- one command ---- */

enum flag {
    WRITE = 1,
    READONLY = 2,
    BLOCKING = 4,
    MOVABLE = 8, /* key positions do not say all */
    ADMIN = 16,
    PUBSUB = 32,
    NOSCRIPT = 64,
    REPLICATES = 128, /* may_replicate: PFCOUNT is one, which is readonly and writes its key */
};

struct spec {
    char name[LEARNT_NAME_MAX]; /* lower case; "container|sub" */
    size_t n;
    int64_t arity, first, last, step;
    unsigned flags;
    bool has_specs;    /* key specs; false before 7.0, or if it has none */
    struct cursor sub; /* the array of its subcommands */
    int64_t nsub;
};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* Lower case; false if it is no name. */
static bool copy_name(struct slice name, char *to)
{
    if (name.n == 0 || name.n > LEARNT_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] <= ' ' || name.p[i] > '~') {
            return false;
        }
        to[i] = lower(name.p[i]);
    }
    return true;
}

/* A command's name has no '|', that of a subcommand begins with "container|" and has no other. */
static bool is_name_of(const struct spec *spec, const struct spec *container)
{
    const char *bar = memchr(spec->name, '|', spec->n);
    if (container == NULL) {
        return bar == NULL;
    }
    size_t skip = container->n + 1;
    return bar == spec->name + container->n && spec->n > skip &&
           memcmp(spec->name, container->name, container->n) == 0 &&
           memchr(spec->name + skip, '|', spec->n - skip) == NULL;
}

static bool read_name(struct cursor *c, const struct spec *container, struct spec *spec)
{
    struct element e;
    if (!element_next(c, &e) || !element_is_text(&e) || !copy_name(e.text, spec->name)) {
        return false;
    }
    spec->n = e.text.n;
    return is_name_of(spec, container);
}

static bool read_number(struct cursor *c, int64_t *n)
{
    struct element e;
    if (!element_next(c, &e) || e.type != ':') {
        return false;
    }
    *n = e.number;
    return true;
}

static bool read_flags(struct cursor *c, unsigned *flags)
{
    static const struct {
        struct slice word;
        unsigned flag;
    } words[] = {
        {{"write", 5}, WRITE},       {{"readonly", 8}, READONLY},
        {{"blocking", 8}, BLOCKING}, {{"movablekeys", 11}, MOVABLE},
        {{"admin", 5}, ADMIN},       {{"pubsub", 6}, PUBSUB},
        {{"noscript", 8}, NOSCRIPT}, {{"may_replicate", 13}, REPLICATES},
    };
    struct element e;
    if (!element_next(c, &e) || !element_is_list(&e)) {
        return false;
    }
    for (int64_t left = e.number; left > 0; left--) {
        if (!element_next(c, &e) || !element_is_text(&e)) {
            return false;
        }
        for (size_t i = 0; i < ARRAY_LEN(words); i++) {
            *flags |= slice_eq_nocase(e.text, words[i].word) ? words[i].flag : 0;
        }
    }
    return true;
}

/* Key specs: they say when positions are not all there is to know. Their shape differs with the
 * protocol and may grow; the two words are looked for wherever they stand. */
static void read_key_specs(struct cursor *c, struct spec *spec)
{
    struct cursor specs;
    struct element e;
    if (!element_whole(c, &specs)) {
        return;
    }
    spec->has_specs = specs.p < specs.end && element_next(&specs, &e) && e.number > 0;
    while (specs.p < specs.end && element_next(&specs, &e)) {
        if (element_is_text(&e) && (slice_eq_nocase(e.text, SLICE("incomplete")) ||
                                    slice_eq_nocase(e.text, SLICE("unknown")))) {
            spec->flags |= MOVABLE;
        }
    }
}

/* [name, arity, flags, first, last, step, categories, tips, key specs, subcommands]; the first six
 * are as old as COMMAND. */
static bool read_command(struct cursor c, const struct spec *container, struct spec *spec)
{
    struct element e;
    *spec = (struct spec){.flags = 0};
    if (!element_next(&c, &e) || !element_is_list(&e) || e.number < 6) {
        return false;
    }
    int64_t more = e.number - 6;
    if (!read_name(&c, container, spec) || !read_number(&c, &spec->arity) ||
        !read_flags(&c, &spec->flags) || !read_number(&c, &spec->first) ||
        !read_number(&c, &spec->last) || !read_number(&c, &spec->step)) {
        return false;
    }
    if (spec->arity == 0 || spec->arity < -INT16_MAX || spec->arity > INT16_MAX) {
        return false;
    }
    if (more >= 3 && element_skip(&c) && element_skip(&c)) {
        read_key_specs(&c, spec);
        if (more >= 4 && element_next(&c, &e) && element_is_list(&e)) {
            spec->nsub = e.number;
            spec->sub = c;
        }
    }
    return true;
}

/* ---- its row ---- */

/* Positions that name at least one key of every request that has them. */
static bool has_positions(const struct spec *spec)
{
    bool sane = spec->first >= 1 && spec->first < INT16_MAX && spec->step >= 1 &&
                spec->step < INT16_MAX && spec->last > -INT16_MAX && spec->last < INT16_MAX;
    return sane && (spec->last < 0 || spec->last >= spec->first) &&
           (spec->arity < 0 || spec->first < spec->arity);
}

static bool has_no_keys(const struct spec *spec)
{
    return spec->first == 0 && !spec->has_specs && (spec->flags & MOVABLE) == 0;
}

static enum cmd_class effect_of(const struct spec *spec)
{
    unsigned odd = ADMIN | PUBSUB | REPLICATES;
    odd |= (spec->flags & BLOCKING) == 0 ? NOSCRIPT : 0; /* who blocks may not in a script */
    bool known = has_positions(spec) && (spec->flags & MOVABLE) == 0;
    if (spec->nsub > 0 || (spec->flags & odd) != 0) {
        return CMD_UNKNOWN;
    }
    switch (spec->flags & (WRITE | READONLY)) {
    case WRITE:
        return known ? CMD_WRITE : CMD_UNKNOWN;
    case READONLY:
        return known ? CMD_READ : has_no_keys(spec) ? CMD_NONE : CMD_UNKNOWN;
    default:
        return CMD_UNKNOWN;
    }
}

static struct cmd row_of(const struct spec *spec)
{
    bool blocking = (spec->flags & BLOCKING) != 0;
    enum cmd_class effect = effect_of(spec);
    struct cmd row = {
        .arity = (int)spec->arity,
        .class = blocking ? CMD_PINNED : effect,
        .effect = effect,
        .readonly = effect == CMD_READ,
        .has_sub = spec->nsub > 0,
        .blocking = blocking && (spec->flags & (ADMIN | PUBSUB)) == 0,
    };
    if (has_positions(spec)) {
        row.keys = KEYS_RANGE;
        row.first = (int)spec->first;
        row.last = (int)spec->last;
        row.step = (int)spec->step;
        if (row.arity < 0 && -row.arity <= row.first) {
            row.arity =
                -(row.first + 1); /* modules say -1; without its key it is another command */
        }
    }
    return row;
}

static bool is_same_row(const struct cmd *a, const struct cmd *b)
{
    return a->arity == b->arity && a->class == b->class && a->effect == b->effect &&
           a->readonly == b->readonly && a->has_sub == b->has_sub && a->keys == b->keys &&
           a->first == b->first && a->last == b->last && a->step == b->step &&
           a->blocking == b->blocking;
}

/* ---- names and rows ---- */

#define SLOTS ((size_t)8192)
_Static_assert(LEARNT_ROWS_MAX <= SLOTS / 2, "a search must come to an empty slot");

struct made {
    struct cmd row;
    struct made *next;
};

struct name {
    const struct cmd *_Atomic row; /* NULL: none now */
    struct made *made;
    uint64_t round; /* of the reply that named it last */
    size_t n;
    char text[]; /* with a '\0', for row.name */
};

static struct name *_Atomic slots[SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all writing, round and rounds */
static uint64_t rounds;                                  /* replies read */
static _Atomic uint64_t epoch;                           /* written under the lock */
static _Atomic uint32_t rows;                            /* made so far */
static _Atomic uint32_t count;                           /* names with a row */

/* The name's slot, or the empty one where it belongs. */
static struct name *_Atomic *find_slot(const char *text, size_t n)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++) {
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    }
    for (size_t i = (size_t)(hash ^ hash >> 32) % SLOTS;; i = (i + 1) % SLOTS) {
        const struct name *name = atomic_load_explicit(&slots[i], memory_order_acquire);
        if (name == NULL || (name->n == n && memcmp(name->text, text, n) == 0)) {
            return &slots[i];
        }
    }
}

static void set_row(struct name *name, const struct cmd *row)
{
    const struct cmd *old = atomic_load_explicit(&name->row, memory_order_relaxed);
    uint32_t n = atomic_load_explicit(&count, memory_order_relaxed);
    n += (uint32_t)(row != NULL) - (uint32_t)(old != NULL);
    if (row != old) {
        atomic_store_explicit(&name->row, row, memory_order_release);
        atomic_store_explicit(&count, n, memory_order_relaxed);
    }
}

/* A name without a row; NULL: no memory. */
static struct name *add_name(struct name *_Atomic *slot, const struct spec *spec)
{
    struct name *name = mem_try_zero(sizeof(*name) + spec->n + 1);
    if (name != NULL) {
        name->n = spec->n;
        memcpy(name->text, spec->name, spec->n);
        atomic_store_explicit(slot, name, memory_order_release);
    }
    return name;
}

/* The name's row with this content, made if it never had it; NULL: no room, or no memory. */
static const struct cmd *make_row(struct name *name, struct cmd row)
{
    for (struct made *made = name->made; made != NULL; made = made->next) {
        if (is_same_row(&made->row, &row)) {
            return &made->row;
        }
    }
    uint32_t n = atomic_load_explicit(&rows, memory_order_relaxed);
    struct made *made = n < LEARNT_ROWS_MAX ? mem_try(sizeof(*made)) : NULL;
    if (made == NULL) {
        return NULL;
    }
    row.name = name->text;
    *made = (struct made){.row = row, .next = name->made};
    name->made = made;
    atomic_store_explicit(&rows, n + 1, memory_order_relaxed);
    return &made->row;
}

/* False: there was no room for it. */
static bool enter(const struct spec *spec)
{
    struct name *_Atomic *slot = find_slot(spec->name, spec->n);
    struct name *name = atomic_load_explicit(slot, memory_order_relaxed);
    if (name == NULL) {
        bool full = atomic_load_explicit(&rows, memory_order_relaxed) >= LEARNT_ROWS_MAX;
        name = full ? NULL : add_name(slot, spec);
        if (name == NULL) {
            return false;
        }
    }
    const struct cmd *row = make_row(name, row_of(spec));
    if (name->round == rounds && row != atomic_load_explicit(&name->row, memory_order_relaxed)) {
        set_row(name, NULL); /* named twice, and not the same: neither is believed */
        return true;
    }
    name->round = rounds;
    set_row(name, row);
    return row != NULL;
}

/* ---- the reply ---- */

static bool enter_subcommands(const struct spec *container)
{
    struct cursor c = container->sub;
    struct cursor one;
    struct spec spec;
    bool room = true;
    for (int64_t left = container->nsub; left > 0 && element_whole(&c, &one); left--) {
        if (read_command(one, container, &spec)) {
            room = enter(&spec) && room;
        }
    }
    return room;
}

static bool enter_commands(struct cursor c, int64_t n)
{
    struct cursor one;
    struct spec spec;
    bool room = true;
    for (; n > 0 && element_whole(&c, &one); n--) {
        if (read_command(one, NULL, &spec) && !cmd_is_built_in(slice_of(spec.name, spec.n))) {
            room = enter(&spec) && room;
            room = enter_subcommands(&spec) && room;
        }
    }
    return room;
}

/* Names that this reply did not have lose their row. */
static void forget_others(void)
{
    for (size_t i = 0; i < SLOTS; i++) {
        struct name *name = atomic_load_explicit(&slots[i], memory_order_relaxed);
        if (name != NULL && name->round != rounds) {
            set_row(name, NULL);
        }
    }
}

uint64_t learnt_epoch(void)
{
    return atomic_load_explicit(&epoch, memory_order_acquire);
}

uint64_t learnt_forget(void)
{
    pthread_mutex_lock(&lock);
    rounds++;
    forget_others();
    uint64_t now = atomic_load_explicit(&epoch, memory_order_relaxed) + 1;
    atomic_store_explicit(&epoch, now, memory_order_release);
    pthread_mutex_unlock(&lock);
    return now;
}

enum learnt_status learnt_read(struct slice reply, uint64_t asked)
{
    struct cursor all = {reply.p, reply.p + reply.n};
    struct cursor whole = all;
    struct element e;
    if (!element_skip(&whole) || whole.p != whole.end || !element_next(&all, &e) ||
        !element_is_list(&e)) {
        return LEARNT_MALFORMED;
    }
    enum learnt_status status = LEARNT_OUTDATED;
    pthread_mutex_lock(&lock);
    if (asked == atomic_load_explicit(&epoch, memory_order_relaxed)) {
        rounds++;
        status = enter_commands(all, e.number) ? LEARNT_OK : LEARNT_FULL;
        forget_others();
    }
    pthread_mutex_unlock(&lock);
    return status;
}

uint32_t learnt_count(void)
{
    return atomic_load_explicit(&count, memory_order_relaxed);
}

uint32_t learnt_rows(void)
{
    return atomic_load_explicit(&rows, memory_order_relaxed);
}

void learnt_reset(void)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < SLOTS; i++) {
        struct name *name = atomic_load_explicit(&slots[i], memory_order_relaxed);
        atomic_store_explicit(&slots[i], NULL, memory_order_relaxed);
        for (struct made *made = name == NULL ? NULL : name->made; made != NULL;) {
            struct made *next = made->next;
            mem_free(made);
            made = next;
        }
        mem_free(name);
    }
    atomic_store_explicit(&rows, 0, memory_order_relaxed);
    atomic_store_explicit(&count, 0, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
}

/* ---- the look-up ---- */

static const struct cmd *find_name(const char *text, size_t n)
{
    struct name *name = atomic_load_explicit(find_slot(text, n), memory_order_acquire);
    return name == NULL ? NULL : atomic_load_explicit(&name->row, memory_order_acquire);
}

/* The row of a name without '|', and of its subcommand with "container|" before it. */
const struct cmd *learnt_find(const struct request_view *v)
{
    char text[LEARNT_NAME_MAX];
    struct slice name = v->argv[0];
    if (learnt_count() == 0 || !copy_name(name, text) || memchr(text, '|', name.n) != NULL) {
        return NULL;
    }
    const struct cmd *row = find_name(text, name.n);
    if (row == NULL || !row->has_sub || v->nargv < 2) {
        return row;
    }
    struct slice word = v->argv[1];
    size_t room = sizeof(text) - name.n;
    if (word.n >= room || !copy_name(word, text + name.n + 1) ||
        memchr(text + name.n + 1, '|', word.n) != NULL) {
        return row;
    }
    text[name.n] = '|';
    const struct cmd *sub = find_name(text, name.n + 1 + word.n);
    return sub == NULL ? row : sub;
}
