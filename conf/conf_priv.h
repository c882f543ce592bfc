/* SPDX-License-Identifier: Apache-2.0
 *
 * conf_priv.h: what the files behind conf.h share, for this folder and its tests only.
 *
 *   ini.c      a file       ─► entries with line numbers     (knows no options)
 *   options.c  a name       ─► its row of the options table, or the nearest name
 *   values.c   a text       ─► a checked value, and back     (knows rows, not struct conf)
 *   fields.c   a value      ─► its field of struct conf, and back
 *   conf.c     all of it    ─► struct conf, and what contradicts itself
 *   print.c    struct conf  ─► text
 */
#pragma once

#include "conf.h"

/* ---- Lines of a file (ini.c) ------------------------------------------------------------------ */

/* inih's buffer: longer lines would be split in silence. The line end is not counted. */
#define INI_LINE_BYTES 198
/* inih cuts longer section names in silence. */
#define INI_SECTION_BYTES 49
/* A file that goes on after so much is no configuration (/dev/zero, say). */
#define INI_FILE_BYTES ((size_t)1 << 20)

enum ini_kind {
    INI_SECTION, /* section was opened */
    INI_PAIR,    /* key = value within section; value may be empty */
    INI_WRONG,   /* value says what is wrong with the line; section is where it stands, or "" */
};

struct ini_entry {
    enum ini_kind kind;
    int line; /* from 1; 0: the file as a whole */
    char *section;
    char *key;
    char *value;
    bool commented; /* INI_PAIR: a comment was cut off behind the value */
};

/* The entries of one file in order of their lines. */
struct ini {
    size_t n;
    size_t max;
    struct ini_entry *entries;
};

/* Reads to the end of file, which stays open. Never fails: trouble is an INI_WRONG entry. Fills *ini,
 * which the caller ends with ini_fini. */
void ini_init(struct ini *ini, FILE *file);
void ini_fini(struct ini *ini);

/* ---- The table (options.c) -------------------------------------------------------------------- */

enum option_kind {
    OPTION_INT,
    OPTION_SIZE,
    OPTION_DURATION,
    OPTION_CHOICE,
    OPTION_BOOL,
    OPTION_STRING,
    OPTION_LIST,
};

enum option_flags {
    OPT_ZERO = 1,
    OPT_AUTO = 2,
    OPT_ANY = 4,
    OPT_SECRET = 8,
    OPT_WITH_SECRET = 16,
    OPT_OCTAL = 32,
};

#define SIZE_KB ((uint64_t)1024)
#define SIZE_MB (1024 * SIZE_KB)
#define SIZE_GB (1024 * SIZE_MB)
#define SIZE_TB (1024 * SIZE_GB)
#define TIME_S  ((uint64_t)1000)
#define TIME_M  (60 * TIME_S)
#define TIME_H  (60 * TIME_M)

struct option {
    const char *section;
    const char *key;
    const char *initial; /* the default, as in the file */
    const char *words;
    const char *prose;
    uint64_t min;
    uint64_t max;
    size_t offset; /* of its field in struct conf */
    enum option_kind kind;
    unsigned flags;
};

/* OPTION_upstream_db and so on number the rows. */
#define OPTION(section, key, ...) OPTION_##section##_##key,
enum option_index {
#include "options.def"
    OPTION_COUNT
};
#undef OPTION

extern const struct option option_table[OPTION_COUNT];

/* Is option_table[i] the first of its section? */
bool option_is_first(size_t i);
bool option_has_section(const char *section);
/* The row, or NULL. */
const struct option *option_find(const char *section, const char *key);

/* Writes a hint for a name that does not exist: "did you mean ...?" or what there is. */
#define HINT_MAX 512
void option_hint_section(const char *section, char hint[HINT_MAX]);
void option_hint_key(const char *section, const char *key, char hint[HINT_MAX]);
/* For "section.key", or whatever was written in its place. */
void option_hint_name(const char *name, char hint[HINT_MAX]);
/* The word (of `words`, separated by blanks) nearest to `text`, copied to nearest; false when none
 * is near. */
bool option_nearest_word(const char *words, const char *text, char nearest[HINT_MAX]);

/* ---- Values (values.c) ------------------------------------------------------------------------ */

struct value {
    uint64_t number;  /* all kinds but STRING and LIST */
    const char *text; /* STRING, LIST: within the text that was parsed */
    size_t length;
};

/* Checks text against the row. On false err says what is wrong and what was expected; it quotes the
 * text, cut to a sane length, unless that may hold a secret. */
MUST_CHECK bool value_parse(const struct option *option, const char *text, struct value *value,
                            char err[ERR_MAX]);

/* "a whole number from 1 to 64, or auto": what the row accepts. */
#define TEXT_MAX 256
void value_describe(const struct option *option, char text[TEXT_MAX]);
/* A number of the row's kind as it would stand in a file: "64mb", "10s", "auto", "tracking". */
void value_format(const struct option *option, uint64_t number, char text[TEXT_MAX]);

/* A text from outside as it may stand in a message: cut to a sane length, no control characters. */
#define SHOWN_MAX 72
const char *text_shown(const char *text, char shown[SHOWN_MAX]);

/* ---- Fields of struct conf (fields.c) --------------------------------------------------------- */

/* The number in an option's field; not for STRING and LIST. */
uint64_t conf_number(const struct conf *conf, const struct option *option);
/* The field of a STRING, of a LIST. */
char *const *conf_string(const struct conf *conf, const struct option *option);
const struct conf_list *conf_strings(const struct conf *conf, const struct option *option);

/* Puts a checked value into its field; a LIST is added to. False: the LIST has it already. */
MUST_CHECK bool conf_store(struct conf *conf, const struct option *option,
                           const struct value *value);
void conf_clear_list(struct conf *conf, const struct option *option);
/* Frees a text and leaves nothing of it in memory. Accepts NULL. */
void conf_wipe(char *text);

/* ---- Loading (conf.c) ------------------------------------------------------------------------- */

/* conf_load for a stream that is open already (NULL: defaults only); `name` is for the messages. */
MUST_CHECK struct conf *conf_load_stream(FILE *file, const char *name, char *const *sets,
                                         size_t nsets, FILE *errors);
