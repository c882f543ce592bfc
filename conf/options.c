/* SPDX-License-Identifier: Apache-2.0
 *
 * options.c: the options table in memory, and finding the row a user meant.
 *
 * A name that does not exist gets a hint, in this order: the same key in another section, the
 * nearest name by edit distance (one wrong, missing, extra or swapped character counts 1, case counts
 * nothing), a name that contains what was written, and otherwise the list of what there is.
 *
 * Everything is constant but the caller's buffers; linear search, for it runs at start-up only.
 */
#include "conf_priv.h"

#include <ctype.h>
#include <string.h>

/* Longer names get no hint; none of ours comes near. */
#define NAME_MAX_COMPARED 48
#define FAR_AWAY          ((size_t)1000)

#define OPTION(section_, key_, kind_, initial_, min_, max_, flags_, words_, prose_)                \
    [OPTION_##section_##_##key_] = {                                                               \
        .section = #section_,                                                                      \
        .key = #key_,                                                                              \
        .initial = (initial_),                                                                     \
        .words = (words_),                                                                         \
        .prose = (prose_),                                                                         \
        .min = (min_),                                                                             \
        .max = (max_),                                                                             \
        .offset = offsetof(struct conf, section_##_##key_),                                        \
        .kind = OPTION_##kind_,                                                                    \
        .flags = (flags_),                                                                         \
    },
const struct option option_table[OPTION_COUNT] = {
#include "options.def"
};
#undef OPTION

bool option_is_first(size_t i)
{
    return i == 0 || strcmp(option_table[i - 1].section, option_table[i].section) != 0;
}

bool option_has_section(const char *section)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (strcmp(option_table[i].section, section) == 0) {
            return true;
        }
    }
    return false;
}

const struct option *option_find(const char *section, const char *key)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (strcmp(option_table[i].section, section) == 0 &&
            strcmp(option_table[i].key, key) == 0) {
            return &option_table[i];
        }
    }
    return NULL;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool same_letter(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Edit distance with swaps of neighbours: three rows of the usual table. */
static size_t distance(const char *a, const char *b)
{
    size_t na = strlen(a);
    size_t nb = strlen(b);
    if (na > NAME_MAX_COMPARED || nb > NAME_MAX_COMPARED) {
        return FAR_AWAY;
    }
    size_t rows[3][NAME_MAX_COMPARED + 1];
    for (size_t j = 0; j <= nb; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= na; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3];
        const size_t *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t swap = same_letter(a[i - 1], b[j - 1]) ? 0 : 1;
            row[j] = least(least(above[j], row[j - 1]) + 1, above[j - 1] + swap);
            if (i > 1 && j > 1 && same_letter(a[i - 1], b[j - 2]) &&
                same_letter(a[i - 2], b[j - 1])) {
                row[j] = least(row[j], above2[j - 2] + 1);
            }
        }
    }
    return rows[na % 3][nb];
}

/* How far `name` is from what was written, or FAR_AWAY when nobody would mix them up. */
static size_t likeness(const char *written, const char *name)
{
    size_t n = strlen(written);
    size_t d = distance(written, name);
    if (d <= (n + 2) / 3) {
        return d;
    }
    return n >= 3 && strcasestr(name, written) != NULL ? NAME_MAX_COMPARED : FAR_AWAY;
}

/* Appends to a hint; what does not fit is cut. */
static void hint_add(char hint[HINT_MAX], const char *before, const char *text)
{
    size_t n = strlen(hint);
    snprintf(hint + n, HINT_MAX - n, "%s%s", before, text);
}

void option_hint_section(const char *section, char hint[HINT_MAX])
{
    size_t best = FAR_AWAY;
    hint[0] = '\0';
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        size_t d = option_is_first(i) ? likeness(section, option_table[i].section) : FAR_AWAY;
        if (d < best) {
            best = d;
            snprintf(hint, HINT_MAX, "did you mean [%s]?", option_table[i].section);
        }
    }
    if (best < FAR_AWAY) {
        return;
    }
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (option_is_first(i)) {
            hint_add(hint, i == 0 ? "there is [" : "], [", option_table[i].section);
        }
    }
    hint_add(hint, "]", "");
}

void option_hint_key(const char *section, const char *key, char hint[HINT_MAX])
{
    size_t best = FAR_AWAY;
    const char *dot = strrchr(key, '.'); /* "l1.ttl" where "ttl" would do */
    if (dot != NULL) {
        key = dot + 1;
    }
    hint[0] = '\0';
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *o = &option_table[i];
        bool at_home = strcmp(o->section, section) == 0;
        size_t d = at_home ? likeness(key, o->key) : FAR_AWAY;
        if (!at_home && strcasecmp(key, o->key) == 0) {
            d = 0; /* the right key in the wrong place beats anything similar */
        }
        if (d < best) {
            best = d;
            snprintf(hint, HINT_MAX, "did you mean %s%s%s%s?", o->key, at_home ? "" : " in [",
                     at_home ? "" : o->section, at_home ? "" : "]");
        }
    }
    if (best < FAR_AWAY) {
        return;
    }
    const char *before = "there is ";
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (strcmp(option_table[i].section, section) == 0) {
            hint_add(hint, before, option_table[i].key);
            before = ", ";
        }
    }
}

void option_hint_name(const char *name, char hint[HINT_MAX])
{
    const char *dot = strchr(name, '.');
    const char *key = dot == NULL ? name : dot + 1;
    size_t best = FAR_AWAY;
    snprintf(hint, HINT_MAX, "--print-config shows what there is");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char full[2 * NAME_MAX_COMPARED];
        snprintf(full, sizeof(full), "%s.%s", option_table[i].section, option_table[i].key);
        /* A key that is right counts more than a section that is. */
        size_t d = least(likeness(name, full), likeness(key, option_table[i].key) * 2);
        if (d < best) {
            best = d;
            snprintf(hint, HINT_MAX, "did you mean %s?", full);
        }
    }
}

bool option_nearest_word(const char *words, const char *text, char nearest[HINT_MAX])
{
    size_t best = FAR_AWAY;
    while (*words != '\0') {
        char word[NAME_MAX_COMPARED];
        size_t n = strcspn(words, " ");
        snprintf(word, sizeof(word), "%.*s", (int)n, words);
        size_t d = likeness(text, word);
        if (d < best) {
            best = d;
            snprintf(nearest, HINT_MAX, "%s", word);
        }
        words += n;
        words += strspn(words, " ");
    }
    return best < FAR_AWAY;
}
