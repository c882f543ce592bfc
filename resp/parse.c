/* SPDX-License-Identifier: Apache-2.0
 *
 * parse.c: finds the end of one request, and its arguments on the way.
 *
 *     first byte ─┬─ '*' ─► header "*n" ─► n times: "$len", len bytes, CRLF ─► view into the input
 *                 └─ else ─► line to '\n' ─► words and quotes ─► rewritten as an array in a blob
 *
 * parse_request chooses; parse_array and parse_inline do one each. The bytes go on to Redis as they
 * came, so a request must end here exactly where Redis lets it end. That is why odd habits of Redis
 * are kept: a count line ends at '\r' and the byte behind it is not looked at, nor are the two
 * behind an argument; a line's first byte is judged only when the line is whole; and a NUL hides
 * the rest of a line (Redis searches with strchr), which then only ever becomes too long. Where
 * Redis's verdict on a long line depends on how the bytes arrived, ours is that of bytes arriving
 * one by one.
 *
 * Count lines have two readers: quick_count takes the usual form in a few instructions, and
 * whatever it declines count_line decides by the rules. A request that is whole and usual never
 * leaves parse_request, which scans it in registers and does not touch struct parser. Where that
 * stops, parse_array goes on, and suspend stores the state when bytes run out. It fills argv at the
 * end, walking the first argument headers again, because the buffer may have moved in between.
 *
 * No locks, no I/O; allocates for inline commands only.
 */
#include "parse.h"

#include "write.h"

#include <limits.h>
#include <stdio.h>

#define CRLF_LEN 2
/* "*n\r\n" with one digit, and the shortest argument, "$0\r\n\r\n". */
#define COUNT_LINE_MIN 4
#define ARG_MIN        6
/* quick_count's longest line up to the '\r': 11 digits cannot overflow, and no limit needs more. */
#define QUICK_LINE_MAX 12

/* One kind of count line: what is allowed, and Redis's words when it is not. */
struct count_rule {
    char type;
    int64_t min;
    int64_t max;
    const char *too_long;
    const char *invalid;
};

/* Counts of zero and less are valid headers: requests of nothing. */
static const struct count_rule header_rule = {
    .type = '*',
    .min = INT64_MIN,
    .max = INT_MAX,
    .too_long = "Protocol error: too big mbulk count string",
    .invalid = "Protocol error: invalid multibulk length",
};

static const struct count_rule bulk_rule = {
    .type = '$',
    .min = 0,
    .max = PARSE_BULK_MAX,
    .too_long = "Protocol error: too big bulk count string",
    .invalid = "Protocol error: invalid bulk length",
};

/* The error stays: it tells of the request that just ended. */
static void parser_reset(struct parser *p)
{
    p->pos = 0;
    p->args_left = -1;
    p->args = 0;
    p->bulk_left = -1;
    p->line_seen = 0;
    p->wanted = 0;
}

void parser_init(struct parser *p)
{
    parser_reset(p);
    p->error = NULL;
    p->error_text[0] = '\0';
}

static enum parse_status fail(struct parser *p, const char *error)
{
    parser_reset(p);
    p->error = error;
    return PARSE_ERROR;
}

/* Redis copies the character as it is; in ours nothing can act on a terminal or a log. */
static enum parse_status fail_type(struct parser *p, char got)
{
    if (got == '\r' || got == '\n') {
        got = ' ';
    } else if (got < ' ' || got > '~') {
        got = '?';
    }
    snprintf(p->error_text, sizeof(p->error_text), "Protocol error: expected '$', got '%c'", got);
    return fail(p, p->error_text);
}

/* Looks for the end of the line that begins at rest, from where the last call left off. PARSE_OK:
 * *length is what stands before it. PARSE_ERROR: the line is too long. */
static enum parse_status find_line_end(struct parser *p, struct slice rest, char line_end,
                                       size_t *length)
{
    /* The byte that makes a line too long may itself be its end. */
    size_t limit = rest.n > PARSE_INLINE_MAX ? PARSE_INLINE_MAX + 1 : rest.n;
    debug_assert(p->line_seen <= limit);
    const char *from = rest.p + p->line_seen;
    size_t n = limit - p->line_seen;
    const char *hit = memchr(from, line_end, n);
    const char *nul = memchr(from, '\0', hit == NULL ? n : (size_t)(hit - from));
    if (hit != NULL && nul == NULL) {
        *length = (size_t)(hit - rest.p);
        return PARSE_OK;
    }
    if (rest.n > PARSE_INLINE_MAX) {
        return PARSE_ERROR;
    }
    /* Next time the search begins at the NUL, and ends there. */
    p->line_seen = nul == NULL ? limit : (size_t)(nul - rest.p);
    return PARSE_MORE;
}

/* Reads the count line at rest by all the rules. *size is how long it is, ending included. */
static enum parse_status count_line(struct parser *p, struct slice rest,
                                    const struct count_rule *rule, int64_t *n, size_t *size)
{
    size_t length;
    enum parse_status found = find_line_end(p, rest, '\r', &length);
    if (found == PARSE_ERROR) {
        return fail(p, rule->too_long);
    }
    if (found == PARSE_MORE) {
        return PARSE_MORE;
    }
    if (rest.n - length < CRLF_LEN) {
        p->line_seen = length;
        return PARSE_MORE;
    }
    if (rest.p[0] != rule->type) {
        return fail_type(p, rest.p[0]);
    }
    if (!slice_to_int64(slice_of(rest.p + 1, length - 1), n) || *n < rule->min || *n > rule->max) {
        return fail(p, rule->invalid);
    }
    *size = length + CRLF_LEN;
    return PARSE_OK;
}

/* Over 9 for what is no digit. */
static inline unsigned int digit_value(char c)
{
    return (unsigned int)(unsigned char)c - '0';
}

/* Reads a count line of the usual form: complete, few digits, no sign. Returns what is behind it, or
 * NULL for one that count_line has to decide. Nearly all counts have one digit or two, hence the
 * steps. */
static inline const char *quick_count(const char *at, const char *end, char type, int64_t *n)
{
    /* A request goes on for at least that long from the start of either line; so much checked at
     * once spares the steps a check each. */
    if (unlikely(end - at < ARG_MIN || at[0] != type)) {
        return NULL;
    }
    unsigned int first = digit_value(at[1]);
    if (at[2] == '\r') {
        *n = first;
        return likely(first <= 9) ? at + 4 : NULL;
    }
    if (unlikely(first - 1 > 8)) {
        return NULL;
    }
    unsigned int second = digit_value(at[2]);
    if (at[3] == '\r') {
        *n = first * 10 + second;
        return likely(second <= 9) ? at + 5 : NULL;
    }
    /* One byte must be left behind the '\r'. */
    const char *stop = end - at > QUICK_LINE_MAX ? at + QUICK_LINE_MAX : end - 1;
    int64_t value = first;
    for (at += 2; at < stop; at++) {
        unsigned int digit = digit_value(*at);
        if (digit > 9) {
            *n = value;
            return likely(*at == '\r') ? at + CRLF_LEN : NULL;
        }
        value = value * 10 + digit;
    }
    return NULL;
}

/* Reads the count line at *at and moves behind it; touches neither *at nor *n unless PARSE_OK. */
static inline enum parse_status read_count(struct parser *p, const char **at, const char *end,
                                           const struct count_rule *rule, int64_t *n)
{
    int64_t count;
    const char *behind = quick_count(*at, end, rule->type, &count);
    if (unlikely(behind == NULL || count > rule->max)) {
        int64_t unusual = 0;
        size_t size = 0;
        struct slice rest = slice_of(*at, (size_t)(end - *at));
        enum parse_status st = count_line(p, rest, rule, &unusual, &size);
        if (st != PARSE_OK) {
            return st;
        }
        count = unusual;
        behind = *at + size;
    }
    p->line_seen = 0;
    *at = behind;
    *n = count;
    return PARSE_OK;
}

/* Where in a request bytes ran out. */
struct scan {
    size_t pos;
    int64_t args;
    int64_t left;
    int64_t bulk;
};

/* Stores where to go on. In the middle of a line line_seen has been set already. */
static enum parse_status suspend(struct parser *p, size_t have, struct scan scan)
{
    p->pos = scan.pos;
    p->args = scan.args;
    p->args_left = scan.left;
    p->bulk_left = scan.bulk;
    if (scan.bulk >= 0) {
        p->wanted = scan.pos + (size_t)scan.bulk + CRLF_LEN;
        return PARSE_MORE;
    }
    size_t least = scan.pos + (scan.left < 0 ? COUNT_LINE_MIN : ARG_MIN);
    p->wanted = have < least ? least : have + 1;
    return PARSE_MORE;
}

static enum parse_status found_array(const char *start, const char *end, int64_t args,
                                     struct request_view *out)
{
    out->size = (size_t)(end - start);
    out->raw = slice_of(start, out->size);
    out->argc = args;
    out->nargv = args < REQUEST_ARGS ? (int)args : REQUEST_ARGS;
    return PARSE_OK;
}

/* Fills argv from raw. */
static void fill_argv(struct request_view *out)
{
    struct arg_walk walk;
    arg_walk_init(&walk, out);
    for (int i = 0; i < out->nargv; i++) {
        bool found = arg_walk_next(&walk, &out->argv[i]);
        bug_on(!found);
    }
}

/* Scans on from where *p says, by all the rules. */
static enum parse_status parse_array(struct parser *p, struct slice in, struct request_view *out)
{
    const char *at = in.p + p->pos;
    const char *const end = in.p + in.n;
    int64_t args = p->args;
    int64_t left = p->args_left;
    int64_t bulk = p->bulk_left;

    if (left < 0) {
        enum parse_status st = read_count(p, &at, end, &header_rule, &args);
        if (st != PARSE_OK) {
            return st == PARSE_MORE ? suspend(p, in.n, (struct scan){0, 0, -1, -1}) : st;
        }
        left = args;
    }
    for (; left > 0; left--) {
        if (bulk < 0) {
            enum parse_status st = read_count(p, &at, end, &bulk_rule, &bulk);
            if (st != PARSE_OK) {
                struct scan scan = {(size_t)(at - in.p), args, left, -1};
                return st == PARSE_MORE ? suspend(p, in.n, scan) : st;
            }
        }
        if (end - at < bulk + CRLF_LEN) {
            return suspend(p, in.n, (struct scan){(size_t)(at - in.p), args, left, bulk});
        }
        at += bulk + CRLF_LEN;
        bulk = -1;
    }
    parser_reset(p);
    if (args <= 0) {
        out->size = (size_t)(at - in.p);
        return PARSE_NOTHING;
    }
    enum parse_status st = found_array(in.p, at, args, out);
    fill_argv(out);
    return st;
}

/* ---- Inline commands: words, "double quotes with \escapes", 'single quotes' ---- */

enum token { TOKEN_FOUND, TOKEN_NONE, TOKEN_UNBALANCED };

static void skip(struct slice *s, size_t n)
{
    s->p += n;
    s->n -= n;
}

/* The character i ahead, NUL behind the end; the line itself holds no NUL. */
static char peek(struct slice s, size_t i)
{
    return i < s.n ? s.p[i] : '\0';
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The character that rest begins with inside double quotes; returns how many bytes spell it. */
static size_t unescape(struct slice rest, char *c)
{
    *c = peek(rest, 0);
    char next = peek(rest, 1);
    if (*c != '\\' || next == '\0') {
        return 1;
    }
    if (next == 'x') {
        int high = hex_value(peek(rest, 2));
        int low = hex_value(peek(rest, 3));
        if (high >= 0 && low >= 0) {
            *c = (char)(high * 16 + low);
            return 4;
        }
    }
    static const char names[] = "nrtba";
    static const char codes[] = "\n\r\t\b\a";
    const char *name = strchr(names, next);
    *c = name == NULL ? next : codes[name - names];
    return 2;
}

/* Reads up to the closing quote, appending to dst (unless NULL) and counting in *n. The quote must
 * end the word. */
static enum token quoted(struct slice *rest, char *dst, size_t *n)
{
    char quote = peek(*rest, 0);
    skip(rest, 1);
    while (rest->n > 0) {
        char c = peek(*rest, 0);
        if (c == quote) {
            skip(rest, 1);
            return rest->n == 0 || is_blank(peek(*rest, 0)) ? TOKEN_FOUND : TOKEN_UNBALANCED;
        }
        size_t took = 1;
        if (quote == '"') {
            took = unescape(*rest, &c);
        } else if (c == '\\' && peek(*rest, 1) == '\'') {
            c = '\'';
            took = 2;
        }
        skip(rest, took);
        if (dst != NULL) {
            dst[*n] = c;
        }
        *n += 1;
    }
    return TOKEN_UNBALANCED;
}

/* Takes the next word from the line: n bytes, written to dst unless that is NULL. */
static enum token next_token(struct slice *rest, char *dst, size_t *n)
{
    while (rest->n > 0 && is_blank(peek(*rest, 0))) {
        skip(rest, 1);
    }
    if (rest->n == 0) {
        return TOKEN_NONE;
    }
    *n = 0;
    for (; rest->n > 0; skip(rest, 1)) {
        char c = peek(*rest, 0);
        if (c == '"' || c == '\'') {
            return quoted(rest, dst, n);
        }
        /* Narrower than is_blank: within a word \v and \f are ordinary to Redis. */
        if (c == ' ' || c == '\n' || c == '\r' || c == '\t') {
            return TOKEN_FOUND;
        }
        if (dst != NULL) {
            dst[*n] = c;
        }
        *n += 1;
    }
    return TOKEN_FOUND;
}

/* Counts the words of a line and the bytes they take as arguments. TOKEN_NONE: the end was met. */
static enum token measure(struct slice line, int64_t *argc, size_t *bytes)
{
    char header[RESP_HEADER_MAX];
    size_t n;
    enum token token;
    *argc = 0;
    *bytes = 0;
    /* Sums are safe: a line is PARSE_INLINE_MAX long at most, and no byte of it becomes ten. */
    while ((token = next_token(&line, NULL, &n)) == TOKEN_FOUND) {
        *argc += 1;
        *bytes += resp_header(header, '$', (int64_t)n) + n + CRLF_LEN;
    }
    return token;
}

/* The line, measured already, as an array; NULL when memory is out. */
static struct blob *rewrite(struct slice line, int64_t argc, size_t bytes)
{
    char header[RESP_HEADER_MAX];
    size_t header_n = resp_header(header, '*', argc);
    struct blob *b = blob_try(header_n + bytes);
    if (b == NULL) {
        return NULL;
    }
    memcpy(b->p, header, header_n);
    char *at = b->p + header_n;
    for (int64_t i = 0; i < argc; i++) {
        /* Its length stands before its bytes, so each word is read twice. */
        struct slice again = line;
        size_t n = 0;
        enum token token = next_token(&line, NULL, &n);
        bug_on(token != TOKEN_FOUND);
        at += resp_header(at, '$', (int64_t)n);
        token = next_token(&again, at, &n);
        bug_on(token != TOKEN_FOUND);
        memcpy(at + n, "\r\n", CRLF_LEN);
        at += n + CRLF_LEN;
    }
    bug_on(at != b->p + b->n);
    return b;
}

static enum parse_status parse_inline(struct parser *p, struct slice in, struct request_view *out)
{
    size_t length;
    enum parse_status found = find_line_end(p, in, '\n', &length);
    if (found == PARSE_ERROR) {
        return fail(p, "Protocol error: too big inline request");
    }
    if (found == PARSE_MORE) {
        p->wanted = in.n + 1;
        return PARSE_MORE;
    }
    parser_reset(p);
    out->size = length + 1;
    struct slice line = slice_of(in.p, length);
    if (length > 0 && in.p[length - 1] == '\r') {
        line.n--;
    }
    int64_t argc;
    size_t bytes;
    if (measure(line, &argc, &bytes) == TOKEN_UNBALANCED) {
        return fail(p, "Protocol error: unbalanced quotes in request");
    }
    if (argc == 0) {
        return PARSE_NOTHING;
    }
    struct blob *b = rewrite(line, argc, bytes);
    if (b == NULL) {
        return PARSE_NO_MEMORY;
    }
    out->inline_blob = b;
    out->raw = slice_of(b->p, b->n);
    out->argc = argc;
    out->nargv = argc < REQUEST_ARGS ? (int)argc : REQUEST_ARGS;
    fill_argv(out);
    return PARSE_OK;
}

/* Everything but the usual: kept out of line, so that parse_request needs hardly any stack. */
static __attribute__((noinline)) enum parse_status parse_unusual(struct parser *p, struct slice in,
                                                                 struct request_view *out)
{
    if (in.n == 0) {
        p->wanted = 1;
        return PARSE_MORE;
    }
    return in.p[0] == '*' ? parse_array(p, in, out) : parse_inline(p, in, out);
}

enum parse_status parse_request(struct parser *p, struct slice in, struct request_view *out)
{
    out->inline_blob = NULL;
    const char *at = in.p;
    const char *const end = in.p + in.n;
    int64_t args;
    if (unlikely(p->wanted > 0 || (at = quick_count(at, end, '*', &args)) == NULL || args == 0 ||
                 args > header_rule.max)) {
        return parse_unusual(p, in, out);
    }
    int64_t left = args;
    for (struct slice *slot = out->argv; left > 0; left--) {
        int64_t bulk;
        const char *arg = quick_count(at, end, '$', &bulk);
        if (unlikely(arg == NULL || bulk > bulk_rule.max || end - arg < bulk + CRLF_LEN)) {
            /* From this argument on. */
            p->pos = (size_t)(at - in.p);
            p->args = args;
            p->args_left = left;
            return parse_unusual(p, in, out);
        }
        if (likely(slot < out->argv + REQUEST_ARGS)) {
            *slot++ = slice_of(arg, (size_t)bulk);
        }
        at = arg + bulk + CRLF_LEN;
    }
    return found_array(in.p, at, args, out);
}

size_t parse_wanted(const struct parser *p)
{
    return p->wanted;
}

/* Reads the digits behind a type byte and steps over the line: it has been parsed before. */
static int64_t step_count(const char **at)
{
    int64_t n = 0;
    const char *digit = *at + 1;
    for (; *digit != '\r'; digit++) {
        n = n * 10 + (*digit - '0');
    }
    *at = digit + CRLF_LEN;
    return n;
}

void arg_walk_init(struct arg_walk *w, const struct request_view *v)
{
    w->p = v->raw.p;
    w->left = step_count(&w->p);
}

bool arg_walk_next(struct arg_walk *w, struct slice *arg)
{
    if (w->left <= 0) {
        return false;
    }
    int64_t n = step_count(&w->p);
    *arg = slice_of(w->p, (size_t)n);
    w->p += n + CRLF_LEN;
    w->left--;
    return true;
}

/* ---- The short way --------------------------------------------------------------------------- */

/* The argument at p; returns behind its CRLF, or NULL. */
static inline const char *plain_arg(const char *p, const char *end, struct slice *arg)
{
    if (unlikely(end - p < 5 || *p != '$')) {
        return NULL;
    }
    size_t n = (size_t)(unsigned char)p[1] - '0';
    size_t digit = (size_t)(unsigned char)p[2] - '0';
    p += 2;
    if (digit <= 9) {
        if (unlikely(n - 1 > 8)) {
            return NULL;
        }
        n = 10 * n + digit;
        p++;
        for (int i = 0; i < 2 && p < end && (digit = (size_t)(unsigned char)*p - '0') <= 9; i++) {
            n = 10 * n + digit;
            p++;
        }
    } else if (unlikely(n > 9)) {
        return NULL;
    }
    if (unlikely((size_t)(end - p) < n + 4 || memcmp(p, "\r\n", 2) != 0 ||
                 memcmp(p + 2 + n, "\r\n", 2) != 0)) {
        return NULL;
    }
    *arg = slice_of(p + 2, n);
    return p + n + 4;
}

static const char *plain_head(const char *p, const char *end, struct plain *plain)
{
    if (end - p < 16 || p[0] != '*' || (unsigned char)(p[1] - '2') > 7 ||
        memcmp(p + 2, "\r\n", 2) != 0) {
        return NULL;
    }
    const char *behind = plain_arg(p + 4, end, &plain->name);
    plain->args = p[1] - '1';
    plain->head = behind == NULL ? 0 : (size_t)(behind - p);
    return plain->name.n == 0 ? NULL : behind;
}

/* The arguments behind p; returns behind the last, or NULL. */
static const char *plain_args(const char *p, const char *end, struct plain *plain)
{
    p = plain_arg(p, end, &plain->key);
    for (int i = 0; p != NULL && i < plain->args - 1; i++) {
        struct slice arg;
        const char *behind = plain_arg(p, end, &arg);
        if (behind != NULL) {
            plain->more[i].gap = (uint16_t)(arg.p - p + 2);
            plain->more[i].n = (uint16_t)arg.n;
        }
        p = behind;
    }
    return p;
}

static bool has_common_shape(struct plain *plain)
{
    plain->fixed = (size_t)(plain->key.p - plain->at);
    if (plain->fixed < PLAIN_FIXED_MIN || plain->fixed > PLAIN_FIXED_MAX) {
        return false;
    }
    for (int i = 0; i < plain->args - 1; i++) {
        if (plain->more[i].gap > PLAIN_GAP_MAX) {
            return false;
        }
    }
    return true;
}

size_t parse_plain_anew(struct slice in, struct plain *plain)
{
    const char *end = in.p + in.n;
    const char *p = in.p + plain->head;
    plain->same =
        plain->size > 0 && in.n >= plain->head && memcmp(in.p, plain->at, plain->head) == 0;
    if (!plain->same) {
        p = plain_head(in.p, end, plain);
    }
    p = p == NULL ? NULL : plain_args(p, end, plain);
    plain->at = in.p;
    plain->size = p == NULL ? 0 : (size_t)(p - in.p);
    plain->alike = plain->size > 0 && has_common_shape(plain) ? plain->size : 0;
    return plain->size;
}

_Static_assert(REQUEST_ARGS >= 2, "name and key");

void plain_view(const struct plain *plain, struct request_view *out)
{
    const char *p = plain->key.p + plain->key.n;
    out->raw = slice_of(plain->at, plain->size);
    out->size = plain->size;
    out->argc = plain->args + 1;
    out->nargv = plain->args + 1 < REQUEST_ARGS ? plain->args + 1 : REQUEST_ARGS;
    out->argv[0] = plain->name;
    out->argv[1] = plain->key;
    for (int i = 2; i < out->nargv; i++) {
        const struct plain_more *more = &plain->more[i - 2];
        out->argv[i] = slice_of(p + more->gap, more->n);
        p += (size_t)more->gap + more->n;
    }
    out->inline_blob = NULL;
}
