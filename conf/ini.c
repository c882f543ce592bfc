/* SPDX-License-Identifier: Apache-2.0
 *
 * ini.c: a file in INI form becomes a list of entries, each with its line number.
 *
 *   file ─► read_line ─► check_line ─► inih ─► on_pair ─► entries
 *                            └─ sections and whatever is wrong ─► entries
 *
 * inih as distributions build it splits lines over 198 bytes and cuts section names over 49 in
 * silence, takes an indented key for a continuation of the value above, tells its handler no line
 * numbers, and says only where the first error is. So inih never sees a line that is not plain: our
 * reader, which inih calls for every line, checks it first, strips its indentation, keeps the line
 * number, and hands on an empty line in place of one that is wrong. What is left to inih is to part
 * key from value and to cut comments off.
 *
 * The form: `[section]`, `key = value`, comments from '#' or ';' at the beginning of a line and from
 * a blank and ';' behind a value. Lines end in LF or CRLF. Control characters are errors; a NUL ends
 * the reading, for such a file is not text.
 *
 * One thread; dies when memory is out. Knows no options.
 */
#include "conf_priv.h"

#include "mem.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS         " \t"
#define KEY_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-."

/* The reader and the handler of one ini_parse_stream. */
struct reading {
    struct ini *ini;
    FILE *file;
    size_t bytes;
    int error; /* errno of a read that failed */
    int line;
    bool ended;
    bool commented; /* the line inih has now */
    /* The section the line stands in; have_section is false before the first and behind a header
     * that is wrong, where keys have no meaning. */
    bool have_section;
    bool had_header;
    char section[INI_SECTION_BYTES + 1];
};

static struct ini_entry *add_entry(struct ini *ini, enum ini_kind kind, int line)
{
    if (ini->n == ini->max) {
        size_t max = ini->max == 0 ? 32 : 2 * ini->max; /* bounded by INI_FILE_BYTES */
        struct ini_entry *entries = mem_alloc(max * sizeof(*entries));
        if (ini->n > 0) {
            memcpy(entries, ini->entries, ini->n * sizeof(*entries));
        }
        mem_free(ini->entries);
        ini->entries = entries;
        ini->max = max;
    }
    struct ini_entry *entry = &ini->entries[ini->n++];
    memset(entry, 0, sizeof(*entry));
    entry->kind = kind;
    entry->line = line;
    return entry;
}

static void wrong(struct reading *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void wrong(struct reading *r, const char *fmt, ...)
{
    char text[ERR_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    struct ini_entry *entry = add_entry(r->ini, INI_WRONG, r->line);
    entry->section = mem_strdup(r->have_section ? r->section : "");
    entry->value = mem_strdup(text);
}

/* ---- One line --------------------------------------------------------------------------------- */

enum line_end { LINE_OK, LINE_LONG, LINE_BINARY, LINE_END };

/* Reads a line without its end into buf (max bytes and a NUL). LINE_LONG: the rest was skipped.
 * LINE_BINARY: there was a NUL. LINE_END: nothing was left to read. */
static enum line_end read_line(struct reading *r, char *buf, size_t max)
{
    size_t n = 0; /* of the whole line, whether it fits or not */
    int before = EOF;
    int c = EOF;
    while (r->bytes < INI_FILE_BYTES && (c = getc(r->file)) != EOF) {
        r->bytes++;
        if (c == '\0') {
            return LINE_BINARY;
        }
        if (c == '\n') {
            break;
        }
        if (n < max) {
            buf[n] = (char)c;
        }
        n++;
        before = c;
    }
    if (ferror(r->file)) {
        r->error = errno;
        return LINE_END;
    }
    if (n == 0 && c != '\n') {
        return LINE_END;
    }
    n -= before == '\r' ? 1 : 0;
    buf[n < max ? n : max] = '\0';
    return n > max ? LINE_LONG : LINE_OK;
}

static void check_header(struct reading *r, const char *line)
{
    r->have_section = false;
    r->had_header = true;
    size_t n = strcspn(line + 1, "]");
    const char *rest = line + 1 + n;
    if (*rest != ']') {
        wrong(r, "a section has no closing bracket; expected [section]");
        return;
    }
    rest++;
    rest += strspn(rest, BLANKS);
    if (*rest != '\0' && *rest != ';' && *rest != '#') {
        wrong(r, "there is text behind a section; expected [section] alone on its line");
        return;
    }
    if (n == 0) {
        wrong(r, "a section has no name; expected [section]");
        return;
    }
    if (n > INI_SECTION_BYTES) {
        wrong(r, "a section's name is longer than %d bytes", INI_SECTION_BYTES);
        return;
    }
    memcpy(r->section, line + 1, n);
    r->section[n] = '\0';
    r->have_section = true;
    add_entry(r->ini, INI_SECTION, r->line)->section = mem_strdup(r->section);
}

/* Is it `key = ...`? The line is never quoted in a message: it may hold a password. */
static bool check_pair(struct reading *r, const char *line)
{
    size_t n = strspn(line, KEY_CHARACTERS);
    const char *rest = line + n;
    rest += strspn(rest, BLANKS);
    if (*rest == '=' && n == 0) {
        wrong(r, "there is no key before '='; expected key = value");
        return false;
    }
    if (*rest != '=') {
        wrong(r, "this is neither [section] nor key = value nor a comment%s",
              *rest == ':' ? "; write '=' in place of ':'" : "");
        return false;
    }
    if (!r->had_header) {
        wrong(r, "%.*s stands before any section; expected [section] above it", (int)n, line);
        return false;
    }
    r->commented = false;
    for (const char *p = rest + 2; p[-1] != '\0' && *p != '\0'; p++) {
        r->commented = r->commented || (*p == ';' && strchr(BLANKS, p[-1]) != NULL);
    }
    return r->have_section;
}

/* May inih see the line? Notes what is wrong with it. */
static bool check_line(struct reading *r, const char *line)
{
    for (const char *p = line; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            wrong(r, "there is a control character (byte 0x%02x) at column %td; expected text", c,
                  p - line + 1);
            return false;
        }
    }
    if (*line == '\0' || *line == ';' || *line == '#') {
        return false;
    }
    if (*line == '[') {
        check_header(r, line);
        return r->have_section;
    }
    return check_pair(r, line);
}

/* ---- inih's two callbacks --------------------------------------------------------------------- */

/* Reads one line into buf (as fgets would, but plain) or says NULL at the end. */
static char *next_line(char *buf, int size, void *ctx)
{
    struct reading *r = ctx;
    char raw[INI_LINE_BYTES + 1];
    /* size counts the newline and the NUL; it is 200 in the library as it is packaged. */
    size_t max = size < INI_LINE_BYTES + 2 ? (size_t)size - 2 : INI_LINE_BYTES;
    enum line_end end = r->ended ? LINE_END : read_line(r, raw, max);
    if (end == LINE_END) {
        return NULL;
    }
    r->line++;
    size_t n = 0; /* what inih gets; nothing but a line end for a line that is wrong */
    if (end == LINE_BINARY) {
        r->ended = true;
        wrong(r, "there is a NUL byte: this is not a text file");
    } else if (end == LINE_LONG) {
        wrong(r, "this line is longer than %zu bytes", max);
    } else {
        const char *line = raw;
        if (r->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0) {
            line += 3; /* some editors put a byte order mark there */
        }
        line += strspn(line, BLANKS);
        if (check_line(r, line)) {
            n = strlen(line);
            memcpy(buf, line, n);
        }
    }
    buf[n] = '\n';
    buf[n + 1] = '\0';
    return buf;
}

static int on_pair(void *ctx, const char *section, const char *key, const char *value)
{
    struct reading *r = ctx;
    if (key == NULL) {
        return 1; /* some builds announce sections; we saw them ourselves */
    }
    struct ini_entry *entry = add_entry(r->ini, INI_PAIR, r->line);
    entry->section = mem_strdup(section);
    entry->key = mem_strdup(key);
    entry->value = mem_strdup(value == NULL ? "" : value);
    entry->commented = r->commented;
    return 1;
}

/* ---- The file --------------------------------------------------------------------------------- */

void ini_init(struct ini *ini, FILE *file)
{
    struct reading r = {.ini = ini, .file = file};
    memset(ini, 0, sizeof(*ini));
    int rc = ini_parse_stream(next_line, &r, on_pair, &r);
    bool larger = r.bytes == INI_FILE_BYTES && getc(file) != EOF;
    if (r.error != 0 || larger || rc != 0) {
        r.line = rc > 0 ? rc : 0; /* inih refused a line that looked plain to us */
        r.have_section = false;
    }
    if (r.error != 0) {
        wrong(&r, "cannot be read: %s", strerror(r.error));
    } else if (larger) {
        wrong(&r, "is larger than %zu bytes", INI_FILE_BYTES);
    } else if (rc != 0) {
        wrong(&r, "cannot be understood");
    }
}

void ini_fini(struct ini *ini)
{
    for (size_t i = 0; i < ini->n; i++) {
        mem_free(ini->entries[i].section);
        mem_free(ini->entries[i].key);
        mem_free(ini->entries[i].value);
    }
    mem_free(ini->entries);
    memset(ini, 0, sizeof(*ini));
}
