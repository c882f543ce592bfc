/* SPDX-License-Identifier: Apache-2.0
 *
 * values.c: from the text behind `=` to a checked value, and from a value back to text. One parser
 * per type, chosen by the row's kind; every refusal says what was written, what was expected, and
 * never the text of a secret.
 *
 * The types are strict on purpose: "10" is no duration (10 what?), "1.5gb" and "64 mb" are no sizes,
 * "Yes" is no boolean. Sizes count in 1024s whatever their suffix, and a size without one is bytes.
 * A string may stand in double quotes, which is how an empty one or one with blanks at its ends is
 * written; within them everything stands for itself, a quote too.
 *
 * value_format is value_parse's inverse: what it writes, value_parse reads back to the same number.
 * Nothing here allocates or looks at the file system or the network.
 */
#include "conf_priv.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct unit {
    const char *suffix;
    uint64_t factor;
};

/* Largest first; of several suffixes for one factor the first is the one that is written. */
static const struct unit size_units[] = {
    {"tb", SIZE_TB}, {"t", SIZE_TB},  {"gb", SIZE_GB}, {"g", SIZE_GB}, {"mb", SIZE_MB},
    {"m", SIZE_MB},  {"kb", SIZE_KB}, {"k", SIZE_KB},  {"b", 1},       {"", 1},
};
static const struct unit time_units[] = {
    {"h", TIME_H},
    {"m", TIME_M},
    {"s", TIME_S},
    {"ms", 1},
};

static const char *const bool_words[] = {"no", "yes"};

static bool refuse(char err[ERR_MAX], const char *fmt, ...) PRINTF_LIKE(2, 3);
static bool refuse(char err[ERR_MAX], const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(err, ERR_MAX, fmt, args);
    va_end(args);
    return false;
}

const char *text_shown(const char *text, char shown[SHOWN_MAX])
{
    size_t n = strnlen(text, SHOWN_MAX);
    size_t keep = n < SHOWN_MAX ? n : SHOWN_MAX - 4;
    for (size_t i = 0; i < keep; i++) {
        unsigned char c = (unsigned char)text[i];
        shown[i] = c < 0x20 || c >= 0x7f ? '?' : text[i];
    }
    snprintf(shown + keep, SHOWN_MAX - keep, "%s", keep < n ? "..." : "");
    return shown;
}

/* "expected ..." for a text that is not of the row's type at all. */
static bool refuse_type(const struct option *option, const char *text, char err[ERR_MAX])
{
    char expected[TEXT_MAX];
    char shown[SHOWN_MAX];
    value_describe(option, expected);
    return refuse(err, "'%s' is not valid; expected %s", text_shown(text, shown), expected);
}

/* ---- Numbers ---------------------------------------------------------------------------------- */

/* Reads digits; *rest is what follows them. False when there are none or they are too many. */
static bool parse_digits_of(unsigned base, const char *text, uint64_t *number, const char **rest)
{
    uint64_t n = 0;
    const char *p = text;
    for (; *p >= '0' && *p < (char)('0' + base); p++) {
        if (__builtin_mul_overflow(n, (uint64_t)base, &n) ||
            __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n)) {
            return false;
        }
    }
    *number = n;
    *rest = p;
    return p != text;
}

static bool parse_digits(const char *text, uint64_t *number, const char **rest)
{
    return parse_digits_of(10, text, number, rest);
}

static bool parse_with_unit(const char *text, const struct unit *units, size_t nunits,
                            uint64_t *number)
{
    uint64_t n;
    const char *suffix;
    if (!parse_digits(text, &n, &suffix)) {
        return false;
    }
    for (size_t i = 0; i < nunits; i++) {
        if (strcasecmp(units[i].suffix, suffix) == 0) {
            return !__builtin_mul_overflow(n, units[i].factor, number);
        }
    }
    *number = n;
    return n == 0 && *suffix == '\0'; /* nothing needs no unit */
}

static bool parse_number(const struct option *option, const char *text, struct value *value,
                         char err[ERR_MAX])
{
    bool ok;
    const char *rest;
    if ((option->flags & OPT_AUTO) != 0 && strcmp(text, "auto") == 0) {
        value->number = 0;
        return true;
    }
    if (option->kind == OPTION_SIZE) {
        ok = parse_with_unit(text, size_units, ARRAY_LEN(size_units), &value->number);
    } else if (option->kind == OPTION_DURATION) {
        ok = parse_with_unit(text, time_units, ARRAY_LEN(time_units), &value->number);
    } else {
        unsigned base = (option->flags & OPT_OCTAL) != 0 ? 8 : 10;
        ok = parse_digits_of(base, text, &value->number, &rest) && *rest == '\0';
    }
    if (!ok) {
        return refuse_type(option, text, err);
    }
    if (value->number == 0 && (option->flags & OPT_ZERO) != 0) {
        return true;
    }
    if (value->number < option->min || value->number > option->max) {
        char expected[TEXT_MAX];
        char shown[SHOWN_MAX];
        value_describe(option, expected);
        return refuse(err, "%s is too %s; expected %s", text_shown(text, shown),
                      value->number < option->min ? "small" : "large", expected);
    }
    return true;
}

/* ---- Words ------------------------------------------------------------------------------------ */

static bool parse_choice(const struct option *option, const char *text, struct value *value,
                         char err[ERR_MAX])
{
    const char *word = option->words;
    size_t length = strlen(text);
    for (value->number = 0; *word != '\0'; value->number++) {
        size_t n = strcspn(word, " ");
        if (n == length && memcmp(word, text, n) == 0) {
            return true;
        }
        word += n;
        word += strspn(word, " ");
    }
    refuse_type(option, text, err);
    char nearest[HINT_MAX];
    if (option_nearest_word(option->words, text, nearest)) {
        size_t n = strlen(err);
        snprintf(err + n, ERR_MAX - n, "; did you mean %s?", nearest);
    }
    return false;
}

static bool parse_bool(const struct option *option, const char *text, struct value *value,
                       char err[ERR_MAX])
{
    for (value->number = 0; value->number < ARRAY_LEN(bool_words); value->number++) {
        if (strcmp(text, bool_words[value->number]) == 0) {
            return true;
        }
    }
    return refuse_type(option, text, err);
}

/* ---- Texts ------------------------------------------------------------------------------------ */

/* Does a blank and ';' stand in it, which would begin a comment in a file? */
static bool looks_commented(const char *text, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        if (text[i] == ';' && (text[i - 1] == ' ' || text[i - 1] == '\t')) {
            return true;
        }
    }
    return false;
}

/* The message never holds the text: it may be a secret. */
static bool parse_string(const char *text, struct value *value, char err[ERR_MAX])
{
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c < 0x20 || c == 0x7f) {
            return refuse(err, "contains a control character (byte 0x%02x)", c);
        }
    }
    if (looks_commented(text, n)) {
        return refuse(err,
                      "a blank followed by ';' begins a comment and cannot be part of a value");
    }
    if (text[0] == '"') {
        if (n < 2 || text[n - 1] != '"') {
            return refuse(err, "has no closing quote (a blank followed by ';' begins a comment, "
                               "even within quotes)");
        }
        text++;
        n -= 2;
    }
    value->text = text;
    value->length = n;
    return true;
}

/* ---- Addresses -------------------------------------------------------------------------------- */

static bool is_port(const char *text)
{
    uint64_t port;
    const char *rest;
    return text[0] != '0' && strlen(text) < CONF_PORT_MAX && parse_digits(text, &port, &rest) &&
           *rest == '\0' && port <= UINT16_MAX;
}

#define DIGITS_AND_DOT  "0123456789."
#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_" DIGITS_AND_DOT

/* Nothing but characters of that set, and at least one. */
static bool consists_of(const char *text, const char *set)
{
    size_t n = strspn(text, set);
    return n > 0 && text[n] == '\0';
}

/* An IPv6 address, perhaps with the interface it belongs to: fe80::1%eth0. */
static bool is_ipv6(const char *text)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    size_t n = strcspn(text, "%");
    if (n >= sizeof(address) || (text[n] == '%' && !consists_of(text + n + 1, NAME_CHARACTERS))) {
        return false;
    }
    snprintf(address, sizeof(address), "%.*s", (int)n, text);
    return inet_pton(AF_INET6, address, &ignored) == 1;
}

/* What consists of digits and dots must be an address: no name does, and getaddrinfo would read 10.1
 * as 10.0.0.1. */
static bool is_name_or_ipv4(const char *text)
{
    struct in_addr ignored;
    if (consists_of(text, DIGITS_AND_DOT)) {
        return inet_pton(AF_INET, text, &ignored) == 1;
    }
    return text[0] != '.' && text[0] != '-' && consists_of(text, NAME_CHARACTERS);
}

#define UNIX_PREFIX "unix:"

static bool is_unix(const char *item)
{
    return strncmp(item, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0;
}

/* A blank would end the field in CLIENT LIST that shows it. */
static bool is_plain(const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c <= ' ' || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool take_path(const char *path, char host[CONF_HOST_MAX], char port[CONF_PORT_MAX])
{
    if (path[0] != '/' || strlen(path) > CONF_PATH_MAX || !is_plain(path)) {
        return false;
    }
    snprintf(host, CONF_HOST_MAX, "%s", path);
    port[0] = '\0';
    return true;
}

bool conf_address(const char *item, char host[CONF_HOST_MAX], char port[CONF_PORT_MAX])
{
    if (is_unix(item)) {
        return take_path(item + strlen(UNIX_PREFIX), host, port);
    }
    const char *colon = strrchr(item, ':');
    if (colon == NULL || !is_port(colon + 1)) {
        return false;
    }
    size_t n = (size_t)(colon - item);
    bool bracketed = n >= 2 && item[0] == '[' && item[n - 1] == ']';
    if (bracketed) {
        item++;
        n -= 2;
    }
    if (n >= CONF_HOST_MAX) {
        return false;
    }
    memcpy(host, item, n);
    host[n] = '\0';
    snprintf(port, CONF_PORT_MAX, "%s", colon + 1);
    return bracketed ? is_ipv6(host) : strcmp(host, "*") == 0 || is_name_or_ipv4(host);
}

static bool refuse_path(const char *path, char err[ERR_MAX])
{
    char shown[SHOWN_MAX];
    if (path[0] != '/') {
        return refuse(err, "'%s' is no absolute path; expected unix:/path",
                      text_shown(path, shown));
    }
    if (strlen(path) > CONF_PATH_MAX) {
        return refuse(err,
                      "the path has %zu bytes; expected at most %d, the limit for Unix sockets",
                      strlen(path), CONF_PATH_MAX);
    }
    return refuse(err, "the path holds a blank or a control character; expected none");
}

/* The usual mistakes get a word of their own. The text is not shown where it may hold a password. */
static bool refuse_address(const struct option *option, const char *text, char err[ERR_MAX])
{
    if (is_unix(text)) {
        return refuse_path(text + strlen(UNIX_PREFIX), err);
    }
    if (text[0] == '/') {
        return refuse(err, "is a path; expected unix:/path for a Unix socket");
    }
    if (strstr(text, "://") != NULL || strchr(text, '@') != NULL) {
        return refuse(
            err, "is a URL%s; expected host:port (user and password are options of their own)",
            strncmp(text, "rediss:", 7) == 0 ? " for TLS, which Nearside does not speak" : "");
    }
    if (strchr(text, ',') != NULL || strchr(text, ' ') != NULL) {
        return refuse(err, "holds more than one word; expected one host:port per line");
    }
    if (is_ipv6(text) || (text[0] != '[' && strchr(text, ':') != strrchr(text, ':'))) {
        return refuse(err, "an IPv6 address needs brackets; expected [address]:port");
    }
    const char *colon = strrchr(text, ':');
    if (colon == NULL) {
        char shown[SHOWN_MAX];
        return refuse(err, "'%s' has no port; expected host:port", text_shown(text, shown));
    }
    if (!is_port(colon + 1)) {
        char shown[SHOWN_MAX];
        return refuse(err, "'%s' is not a port; expected 1 to 65535", text_shown(colon + 1, shown));
    }
    return refuse_type(option, text, err);
}

static bool parse_address(const struct option *option, const char *text, struct value *value,
                          char err[ERR_MAX])
{
    char host[CONF_HOST_MAX];
    char port[CONF_PORT_MAX];
    if (!conf_address(text, host, port)) {
        return refuse_address(option, text, err);
    }
    if (strcmp(host, "*") == 0 && (option->flags & OPT_ANY) == 0) {
        return refuse_type(option, text, err);
    }
    value->text = text;
    value->length = strlen(text);
    return true;
}

bool value_parse(const struct option *option, const char *text, struct value *value,
                 char err[ERR_MAX])
{
    memset(value, 0, sizeof(*value));
    if (text[0] == '\0') {
        char expected[TEXT_MAX];
        value_describe(option, expected);
        return refuse(err, "has no value; expected %s", expected);
    }
    /* Also from the command line: what is accepted can be printed as a line of a file. */
    size_t longest = INI_LINE_BYTES - strlen(option->key) - strlen(" = \"\"");
    if (strlen(text) > longest) {
        return refuse(err, "is too long; expected at most %zu bytes", longest);
    }
    switch (option->kind) {
    case OPTION_INT:
    case OPTION_SIZE:
    case OPTION_DURATION:
        return parse_number(option, text, value, err);
    case OPTION_CHOICE:
        return parse_choice(option, text, value, err);
    case OPTION_BOOL:
        return parse_bool(option, text, value, err);
    case OPTION_STRING:
        return parse_string(text, value, err);
    case OPTION_LIST:
        return parse_address(option, text, value, err);
    }
    bug_on(true);
    return false;
}

/* ---- Back to text ----------------------------------------------------------------------------- */

static void describe_words(const struct option *option, char text[TEXT_MAX])
{
    size_t n = (size_t)snprintf(text, TEXT_MAX, "one of ");
    for (const char *p = option->words; *p != '\0' && n + 3 < TEXT_MAX; p++) {
        if (*p == ' ') {
            text[n++] = ',';
        }
        text[n++] = *p;
    }
    text[n] = '\0';
}

static void describe_range(const struct option *option, const char *noun, char text[TEXT_MAX])
{
    char min[TEXT_MAX];
    char max[TEXT_MAX];
    value_format(option, option->min, min);
    value_format(option, option->max, max);
    snprintf(text, TEXT_MAX, "%.40s from %.40s to %.40s%s%s", noun, min, max,
             (option->flags & OPT_ZERO) != 0 ? ", or 0" : "",
             (option->flags & OPT_AUTO) != 0 ? ", or auto" : "");
}

void value_describe(const struct option *option, char text[TEXT_MAX])
{
    switch (option->kind) {
    case OPTION_INT:
        describe_range(option,
                       (option->flags & OPT_OCTAL) != 0 ? "a file mode in octal" : "a whole number",
                       text);
        break;
    case OPTION_SIZE:
        describe_range(option, "a size (b, kb, mb, gb)", text);
        break;
    case OPTION_DURATION:
        describe_range(option, "a duration (ms, s, m, h)", text);
        break;
    case OPTION_CHOICE:
        describe_words(option, text);
        break;
    case OPTION_BOOL:
        snprintf(text, TEXT_MAX, "yes or no");
        break;
    case OPTION_STRING:
        snprintf(text, TEXT_MAX, "text, or \"\" for none");
        break;
    case OPTION_LIST:
        snprintf(text, TEXT_MAX, "%s",
                 (option->flags & OPT_ANY) != 0
                     ? "host:port, [IPv6 address]:port, *:port or unix:/path"
                     : "host:port, [IPv6 address]:port or unix:/path");
        break;
    }
}

/* In the largest unit that makes it a whole number. */
static void format_with_unit(uint64_t number, const struct unit *units, char text[TEXT_MAX])
{
    const struct unit *unit = units;
    while (number % unit->factor != 0) {
        unit++; /* the last factor is 1 */
    }
    snprintf(text, TEXT_MAX, "%llu%s", (unsigned long long)(number / unit->factor), unit->suffix);
}

static void format_word(const char *words, uint64_t number, char text[TEXT_MAX])
{
    for (; number > 0; number--) {
        words += strcspn(words, " ");
        words += strspn(words, " ");
    }
    snprintf(text, TEXT_MAX, "%.*s", (int)strcspn(words, " "), words);
}

void value_format(const struct option *option, uint64_t number, char text[TEXT_MAX])
{
    switch (option->kind) {
    case OPTION_CHOICE:
        format_word(option->words, number, text);
        return;
    case OPTION_BOOL:
        snprintf(text, TEXT_MAX, "%s", bool_words[number != 0]);
        return;
    case OPTION_SIZE:
    case OPTION_DURATION:
        if (number != 0) {
            const bool is_size = option->kind == OPTION_SIZE;
            format_with_unit(number, is_size ? size_units : time_units, text);
            return;
        }
        break;
    case OPTION_INT:
    case OPTION_STRING:
    case OPTION_LIST:
        break;
    }
    if (number == 0 && (option->flags & OPT_AUTO) != 0) {
        snprintf(text, TEXT_MAX, "auto");
        return;
    }
    snprintf(text, TEXT_MAX, (option->flags & OPT_OCTAL) != 0 ? "%llo" : "%llu",
             (unsigned long long)number);
}
