/* SPDX-License-Identifier: Apache-2.0
 *
 * print.c: the two texts made from the options table: the effective values (--print-config) and the
 * sample file. Both are files that load; a unit test holds the checked-in proxy.ini.sample to what
 * this file writes.
 *
 * In the sample a line that begins with ';' is an option with its default and a line that begins
 * with '#' is prose, so that taking every ';' away gives a file that loads as well.
 *
 * Strings are always written in quotes: whatever they hold, they are read back as they were.
 */
#include "conf_priv.h"

#include <string.h>

#define PROSE_COLUMNS 98

/* ---- The effective values --------------------------------------------------------------------- */

/* Is there a secret in the option's section, and is it set? */
static bool secret_is_set(const struct conf *conf, const char *section)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *o = &option_table[i];
        if ((o->flags & OPT_SECRET) != 0 && strcmp(o->section, section) == 0 &&
            (*conf_string(conf, o))[0] != '\0') {
            return true;
        }
    }
    return false;
}

static void print_value(const struct conf *conf, const struct option *option, FILE *out)
{
    if (option->kind == OPTION_LIST) {
        const struct conf_list *list = conf_strings(conf, option);
        for (size_t i = 0; i < list->n; i++) {
            fprintf(out, "%s = %s\n", option->key, list->items[i]);
        }
    } else if (option->kind == OPTION_STRING) {
        fprintf(out, "%s = \"%s\"\n", option->key, *conf_string(conf, option));
    } else {
        char text[TEXT_MAX];
        value_format(option, conf_number(conf, option), text);
        fprintf(out, "%s = %s\n", option->key, text);
    }
}

void conf_print(const struct conf *conf, FILE *out)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option *o = &option_table[i];
        bool hidden = secret_is_set(conf, o->section);
        if (option_is_first(i)) {
            fprintf(out, "%s[%s]\n", i == 0 ? "" : "\n", o->section);
        }
        if (hidden && (o->flags & OPT_SECRET) != 0) {
            fprintf(out, "; %s = (set)\n", o->key);
            continue;
        }
        if (hidden && (o->flags & OPT_WITH_SECRET) != 0 && (*conf_string(conf, o))[0] != '\0') {
            fprintf(out, "; "); /* alone it would not load */
        }
        print_value(conf, o, out);
    }
}

/* ---- The sample ------------------------------------------------------------------------------- */

/* Writes the words of text in lines that begin with "# ". */
static void print_prose(const char *text, FILE *out)
{
    size_t column = 0;
    while (*text != '\0') {
        size_t n = strcspn(text, " ");
        if (column > 0 && column + 1 + n > PROSE_COLUMNS) {
            fputc('\n', out);
            column = 0;
        }
        fputs(column == 0 ? "# " : " ", out);
        fwrite(text, 1, n, out);
        column += (column == 0 ? 2 : 1) + n;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', out);
}

static void print_sample_option(const struct option *option, FILE *out)
{
    char text[TEXT_MAX];
    fputc('\n', out);
    print_prose(option->prose, out);
    value_describe(option, text);
    fprintf(out, "# Takes %s.", text);
    if (option->kind == OPTION_LIST && option->max > 1) {
        fprintf(out, " May be given up to %llu times.", (unsigned long long)option->max);
    }
    fprintf(out, "\n;%s = %s\n", option->key, option->initial);
}

void conf_print_sample(FILE *out)
{
    print_prose("Nearside: every option with its default. Take the ';' away to change one.", out);
    fputs("#\n", out);
    print_prose("A line is [section], key = value, or a comment that begins with # or ;. Behind a "
                "value a blank and ; begin a comment. At most 198 bytes to a line.",
                out);
    print_prose("Durations need a unit: 500ms 10s 5m 1h. Sizes count in 1024s: 512kb 64mb 1gb; "
                "without a unit they are bytes.",
                out);
    print_prose("Texts may stand in double quotes, as one with blanks at its ends must; a blank "
                "and ; begin a comment there, too.",
                out);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (option_is_first(i)) {
            fprintf(out, "\n[%s]\n", option_table[i].section);
        }
        print_sample_option(&option_table[i], out);
    }
}
