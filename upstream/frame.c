/* SPDX-License-Identifier: Apache-2.0
 *
 * frame.c: the framer's state, and everything that is not nested.
 *
 * The way through: framer_feed loops over steps, each of which consumes some bytes and makes at most
 * one callback, so that *stop is seen after every one. At the start of a reply the first byte chooses:
 * a line, of a scalar or the header of a bulk, goes through start_line (step_line when it is split)
 * to on_line or on_header, or is a long status or error and is handed on as it comes (step_long);
 * aggregates, attributes and pushes are relay.c's. short_cut takes what most
 * replies are, and gives up whenever something is unusual; leaving it out would change no byte.
 *
 * Invariant: what was delivered depends on the bytes fed so far and not on how they were cut, except
 * for the last, bad reply before an error. A line is judged as soon as it is whole or too long; a
 * bulk's bytes are handed on as they come, behind a header that was judged.
 *
 * Lines are refused when they hold a lone CR or LF: readers disagree where such a line ends, and
 * whoever reads behind us must see the boundaries we see. Numbers are looked at loosely (sign and
 * digits): their meaning is the client's affair, their end is ours.
 *
 * Single-threaded, no I/O. Does not know what a reply answers.
 */
#include "frame_priv.h"

#include "../conf/mem.h"

/* A line buffer above this goes back to the allocator once its line is delivered. */
#define LINE_KEEP  ((size_t)1024)
#define LINE_FIRST ((size_t)128)

/* The short cut takes lines up to here, and lengths of so many digits: all below FRAME_BULK_MAX. */
#define SHORT_LINE   32
#define SHORT_DIGITS 8
_Static_assert(99999999 <= FRAME_BULK_MAX, "the short cut does not look at the limit");

static const bool never_stop = false;

const char *framer_fail(struct framer *f, const char *why)
{
    if (f->error == NULL) {
        f->error = why;
    }
    f->state = FRAME_FAILED;
    return NULL;
}

static inline void deliver_scalar(struct framer *f, const char *p, size_t n, bool is_null)
{
    struct reply_piece piece = {
        .bytes = {p, n},
        .type = *p,
        .first = true,
        .last = true,
        .is_null = is_null,
        .size = (int64_t)n,
    };
    f->piece(f->ctx, &piece);
}

/* --- the short cut --------------------------------------------------------------------------- */

/* A bulk of a plain length, or its null, whole at p: returns behind it. */
static inline const char *whole_bulk(const char *p, const char *end, bool *is_null)
{
    if (unlikely(end - p <= SHORT_DIGITS)) {
        return NULL;
    }
    const char *q = p + 1;
    size_t digit = (size_t)(unsigned char)*q - '0';
    if (digit - 1 > 8) {
        *is_null = true;
        return memcmp(p, "$-1\r\n", 5) == 0 ? p + 5 : NULL;
    }
    size_t len = digit;
    while (++q <= p + SHORT_DIGITS && (digit = (size_t)(unsigned char)*q - '0') <= 9) {
        len = len * 10 + digit;
    }
    if (unlikely((size_t)(end - q) < len + 4 || memcmp(q, "\r\n", 2) != 0 ||
                 memcmp(q + 2 + len, "\r\n", 2) != 0)) {
        return NULL;
    }
    return q + len + 4;
}

/* An integer or a short status, whole at p. */
static inline const char *whole_line(const char *p, const char *end)
{
    const char *stop = end - p > SHORT_LINE ? p + SHORT_LINE : end;
    const char *q = p + 1;
    if (*p == ':') {
        if (q < stop && *q == '-') {
            q++;
        }
        if (q == stop || (unsigned char)(*q - '0') > 9) {
            return NULL;
        }
        while (q < stop && (unsigned char)(*q - '0') <= 9) {
            q++;
        }
    } else {
        while (q < stop && (unsigned char)*q >= ' ') {
            q++;
        }
    }
    return end - q < 2 || memcmp(q, "\r\n", 2) != 0 ? NULL : q + 2;
}

/* What most replies are, when it is whole at p: returns behind it. NULL for anything else. */
static inline const char *whole(const char *p, const char *end, bool *is_null)
{
    if (likely(*p == '$')) {
        return whole_bulk(p, end, is_null);
    }
    return *p == '+' || *p == ':' ? whole_line(p, end) : NULL;
}

/* That is delivered in one piece. NULL, and nothing done, for anything else. */
static inline const char *short_cut(struct framer *f, const char *p, const char *end)
{
    bool is_null = false;
    const char *behind = whole(p, end, &is_null);
    if (likely(behind != NULL)) {
        deliver_scalar(f, p, (size_t)(behind - p), is_null);
    }
    return behind;
}

#define SHORT_REPLY 8

/* How many times the `size` bytes before q follow once more, in `most` bytes. */
static inline size_t repeats(const char *q, size_t size, size_t most)
{
    uint64_t word;
    uint64_t before;
    size_t n = 0;
    for (; n + sizeof(word) <= most; n += sizeof(word)) {
        memcpy(&word, q + n, sizeof(word));
        memcpy(&before, q + n - size, sizeof(before));
        if (word != before) {
            break;
        }
    }
    while (n < most && q[n] == (q - size)[n]) {
        n++;
    }
    return n / size;
}

/* What framer_take_run asked for, as far as it is here; returns behind it. Replies like "+OK" come in long rows: the
 * same bytes again need no second look. */
static const char *take_run(struct framer *f, const char *p, const char *end)
{
    const char *q = p;
    const char *behind;
    bool is_null;
    uint32_t ends[FRAME_RUN_MAX];
    uint32_t max = f->run_max < FRAME_RUN_MAX ? f->run_max : FRAME_RUN_MAX;
    uint32_t n = 0;
    while (n < max && q < end && (behind = whole(q, end, &is_null)) != NULL) {
        size_t size = (size_t)(behind - q);
        size_t more = 0;
        if (size <= SHORT_REPLY) {
            size_t most = (max - n - 1) * size;
            size_t left = (size_t)(end - behind);
            more = repeats(behind, size, left < most ? left : most);
        }
        for (uint32_t last = n + (uint32_t)more; n <= last; n++) {
            q += size;
            ends[n] = (uint32_t)(q - p);
        }
    }
    f->run_max = 0;
    if (n > 0) {
        const struct reply_run run = {.bytes = slice_of(p, (size_t)(q - p)), .n = n, .ends = ends};
        f->run(f->ctx, &run);
    }
    return q;
}

/* --- bulks ----------------------------------------------------------------------------------- */

/* The first n of the `size` bytes of a bulk reply: its header at least, its last byte not. */
static void open_bulk(struct framer *f, const char *p, size_t n, size_t size)
{
    f->type = *p;
    f->body_left = size - n;
    f->state = FRAME_BULK;
    struct reply_piece piece = {
        .bytes = {p, n},
        .type = *p,
        .first = true,
        .size = (int64_t)size,
    };
    f->piece(f->ctx, &piece);
}

static const char *step_bulk(struct framer *f, const char *p, const char *end)
{
    size_t left = f->body_left;
    size_t n = (size_t)(end - p);
    if (n > left) {
        n = left;
    }
    /* Of the CRLF, what lies in these bytes. The CR may have been the last byte of the previous ones. */
    if ((left >= 2 && n >= left - 1 && p[left - 2] != '\r') || (n == left && p[n - 1] != '\n')) {
        return framer_fail(f, "no CRLF behind a bulk string");
    }
    f->body_left = left - n;
    if (f->body_left == 0) {
        f->state = FRAME_START;
    }
    struct reply_piece piece = {
        .bytes = {p, n},
        .type = f->type,
        .last = n == left,
        .size = -1,
    };
    f->piece(f->ctx, &piece);
    return p + n;
}

/* --- lines ----------------------------------------------------------------------------------- */

static bool is_bulk_type(char type)
{
    return type == '$' || type == '=' || type == '!';
}

static bool all_digits(const char *p, const char *end)
{
    if (p < end && (*p == '-' || *p == '+')) {
        p++;
    }
    if (p == end) {
        return false;
    }
    for (; p < end; p++) {
        if (*p < '0' || *p > '9') {
            return false;
        }
    }
    return true;
}

/* Digits, sign, point, exponent, "inf", "nan": nothing that could end the line for anyone. */
static bool is_double(const char *p, const char *end)
{
    if (p == end) {
        return false;
    }
    for (; p < end; p++) {
        char lower = (char)(*p | 0x20);
        bool ok = (*p >= '0' && *p <= '9') || (lower >= 'a' && lower <= 'z') || *p == '-' ||
                  *p == '+' || *p == '.';
        if (!ok) {
            return false;
        }
    }
    return true;
}

/* What is wrong with the line [p, end) of a scalar (type byte included, CRLF not), or NULL. */
static const char *line_fault(const char *p, const char *end)
{
    char type = *p++;
    switch (type) {
    case ':':
        return all_digits(p, end) ? NULL : "bad integer";
    case '(': /* a script may say what it likes here, and Redis passes it on */
        return NULL;
    case ',':
        return is_double(p, end) ? NULL : "bad double";
    case '#':
        return end - p == 1 && (*p == 't' || *p == 'f') ? NULL : "bad boolean";
    case '_':
        return p == end ? NULL : "bad null";
    default: /* + - */
        return memchr(p, '\n', (size_t)(end - p)) == NULL ? NULL : "line feed inside a line";
    }
}

/* The line of a scalar, [p, end) with its CRLF, in the input or in f->line. False: failed. */
static bool on_line(struct framer *f, const char *p, const char *end)
{
    const char *fault = line_fault(p, end - 2);
    if (fault != NULL) {
        framer_fail(f, fault);
        return false;
    }
    f->state = FRAME_START;
    deliver_scalar(f, p, (size_t)(end - p), *p == '_');
    return true;
}

/* The header of a bulk, [p, body), and behind it, up to end, what is here of the body: the same
 * piece takes it along. Returns behind what was taken, or NULL: failed. */
static const char *on_header(struct framer *f, const char *p, const char *body, const char *end)
{
    int64_t len;
    if (!slice_to_int64(slice_of(p + 1, (size_t)(body - p) - 3), &len)) {
        return framer_fail(f, "bad bulk length");
    }
    if (len == -1 && *p == '$') {
        f->state = FRAME_START;
        deliver_scalar(f, p, (size_t)(body - p), true);
        return body;
    }
    if (len < 0 || len > FRAME_BULK_MAX) {
        return framer_fail(f, "bulk length out of range");
    }
    size_t n = (size_t)len;
    size_t rest = (size_t)(end - body);
    size_t size = (size_t)(body - p) + n + 2;
    if ((rest > n && body[n] != '\r') || (rest > n + 1 && body[n + 1] != '\n')) {
        return framer_fail(f, "no CRLF behind a bulk string");
    }
    if (rest < n + 2) {
        open_bulk(f, p, (size_t)(end - p), size);
        return end;
    }
    f->state = FRAME_START;
    deliver_scalar(f, p, size, false);
    return p + size;
}

static bool line_append(struct framer *f, const char *p, size_t n)
{
    if (n > f->line_cap - f->line_n) {
        /* Bounded by FRAME_LINE_MAX, so doubling cannot overflow. */
        size_t cap = f->line_cap == 0 ? LINE_FIRST : f->line_cap;
        while (cap < f->line_n + n) {
            cap *= 2;
        }
        char *grown = mem_try_resize(f->line, cap);
        if (grown == NULL) {
            framer_fail(f, "out of memory");
            return false;
        }
        f->line = grown;
        f->line_cap = cap;
    }
    memcpy(f->line + f->line_n, p, n);
    f->line_n += n;
    return true;
}

static void line_forget(struct framer *f)
{
    f->line_n = 0;
    if (f->line_cap > LINE_KEEP) {
        mem_free(f->line);
        f->line = NULL;
        f->line_cap = 0;
    }
}

/* Bytes between the type byte and the CR that a line of this type may have. */
static size_t line_max(char type)
{
    return is_bulk_type(type) ? FRAME_DIGITS_MAX : FRAME_LINE_MAX;
}

static bool is_text_type(char type)
{
    return type == '+' || type == '-';
}

const char *framer_text(struct framer *f, const char *p, const char *end, size_t *n)
{
    const char *cr = memchr(p, '\r', (size_t)(end - p));
    *n = (size_t)((cr == NULL ? end : cr) - p);
    if (*n > f->text_left) {
        return framer_fail(f, "line too long");
    }
    if (memchr(p, '\n', *n) != NULL) {
        return framer_fail(f, "line feed inside a line");
    }
    f->text_left -= *n;
    f->has_cr = cr != NULL;
    return p + *n + f->has_cr;
}

const char *framer_text_end(struct framer *f, const char *p)
{
    if (*p != '\n') {
        return framer_fail(f, "no LF behind a CR");
    }
    f->has_cr = false;
    return p + 1;
}

static void deliver_text(struct framer *f, const char *p, size_t n, bool first)
{
    struct reply_piece piece = {
        .bytes = {p, n},
        .type = f->type,
        .first = first,
        .last = f->state == FRAME_START,
        .size = -1,
    };
    f->piece(f->ctx, &piece);
}

/* The n bytes at p, without a CR among them, begin a status or an error that is not collected. */
static const char *open_long(struct framer *f, const char *p, size_t n)
{
    f->type = *p;
    f->text_left = (size_t)FRAME_BULK_MAX + 1; /* the type byte is handed on with the text */
    const char *behind = framer_text(f, p, p + n, &n);
    if (behind != NULL) {
        f->state = FRAME_LONG;
        deliver_text(f, p, n, true);
    }
    return behind;
}

static const char *step_long(struct framer *f, const char *p, const char *end)
{
    const char *behind;
    if (f->has_cr) {
        behind = framer_text_end(f, p);
        if (behind != NULL) {
            f->state = FRAME_START;
            deliver_text(f, "\r\n", 2, false);
        }
        return behind;
    }
    size_t n;
    behind = framer_text(f, p, end, &n);
    if (behind != NULL && n > 0) {
        deliver_text(f, p, n, false);
    }
    return behind;
}

/* With what lies at p the line becomes a long one. Its first piece shall say what it is about. */
static const char *end_collecting(struct framer *f, const char *p)
{
    size_t n = FRAME_TEXT_MAX + 1 - (f->line_n - 1);
    bool ok = line_append(f, p, n) && open_long(f, f->line, f->line_n) != NULL;
    line_forget(f);
    return ok ? p + n : NULL;
}

/* A line that began in earlier input goes on at p. A CR at its end waits for its LF. */
static const char *step_line(struct framer *f, const char *p, const char *end)
{
    size_t n = 1;
    bool ends = f->line[f->line_n - 1] == '\r';
    if (!ends) {
        const char *cr = memchr(p, '\r', (size_t)(end - p));
        n = cr == NULL ? (size_t)(end - p) : (size_t)(cr - p);
        if (is_text_type(f->type) && n > FRAME_TEXT_MAX - (f->line_n - 1)) {
            return end_collecting(f, p);
        }
        if (n > line_max(f->type) - (f->line_n - 1)) {
            return framer_fail(f, "line too long");
        }
        if (cr != NULL) {
            ends = end - cr >= 2;
            n += ends ? 2 : 1;
        }
    }
    if (!line_append(f, p, n)) {
        return NULL;
    }
    if (!ends) {
        return p + n;
    }
    if (f->line[f->line_n - 1] != '\n') {
        return framer_fail(f, "no LF behind a CR");
    }
    const char *behind = f->line + f->line_n;
    bool ok = is_bulk_type(f->type) ? on_header(f, f->line, behind, behind) != NULL
                                    : on_line(f, f->line, behind);
    line_forget(f);
    return ok ? p + n : NULL;
}

/* A line begins at p: taken from the input when it is whole, else collected. */
static const char *start_line(struct framer *f, const char *p, const char *end)
{
    const char *cr = memchr(p, '\r', (size_t)(end - p));
    size_t n = (size_t)((cr == NULL ? end : cr) - p);
    if (is_text_type(*p) && n - 1 > FRAME_TEXT_MAX) {
        return open_long(f, p, n);
    }
    if (n - 1 > line_max(*p)) {
        return framer_fail(f, "line too long");
    }
    if (cr == NULL || end - cr < 2) {
        f->type = *p;
        f->state = FRAME_LINE;
        return line_append(f, p, (size_t)(end - p)) ? end : NULL;
    }
    if (cr[1] != '\n') {
        return framer_fail(f, "no LF behind a CR");
    }
    if (is_bulk_type(*p)) {
        return on_header(f, p, cr + 2, end);
    }
    return on_line(f, p, cr + 2) ? cr + 2 : NULL;
}

/* --- the start of a reply -------------------------------------------------------------------- */

static const char *start_reply(struct framer *f, const char *p, const char *end)
{
    switch (*p) {
    case '$':
    case '=':
    case '!':
    case '+':
    case '-':
    case ':':
    case '_':
    case ',':
    case '#':
    case '(':
        return start_line(f, p, end);
    case '*':
    case '%':
    case '~':
    case '>':
    case '|':
        f->type = *p;
        return relay_begin(f) ? p : NULL;
    default:
        return framer_fail(f, "unknown type byte");
    }
}

/* --- the contract ---------------------------------------------------------------------------- */

struct framer *framer_create(const struct framer_ops *ops, void *ctx)
{
    struct framer *f = mem_zalloc(sizeof(*f));
    f->piece = ops->piece;
    f->push = ops->push;
    f->run = ops->run;
    f->ctx = ctx;
    f->state = FRAME_START;
    return f;
}

void framer_destroy(struct framer *f)
{
    if (f == NULL) {
        return;
    }
    relay_destroy(f->relay);
    mem_free(f->line);
    mem_free(f);
}

void framer_reset(struct framer *f)
{
    relay_destroy(f->relay);
    f->relay = NULL;
    line_forget(f);
    f->body_left = 0;
    f->has_cr = false;
    f->error = NULL;
    f->state = FRAME_START;
}

static const char *step_endless(struct framer *f, const char *p, const char *end)
{
    struct reply_piece piece = {
        .bytes = {p, (size_t)(end - p)},
        .first = f->state == FRAME_AWAITED,
        .size = -1,
    };
    if (piece.first && *p == '-') {
        f->state = FRAME_START;
        return start_reply(f, p, end);
    }
    f->type = piece.first ? *p : f->type;
    f->state = FRAME_ENDLESS;
    piece.type = f->type;
    f->piece(f->ctx, &piece);
    return end;
}

static const char *step(struct framer *f, const char *p, const char *end)
{
    switch (f->state) {
    case FRAME_START:
        return start_reply(f, p, end);
    case FRAME_LINE:
        return step_line(f, p, end);
    case FRAME_LONG:
        return step_long(f, p, end);
    case FRAME_BULK:
        return step_bulk(f, p, end);
    case FRAME_NESTED:
        return relay_step(f, p, end);
    case FRAME_AWAITED:
    case FRAME_ENDLESS:
        return step_endless(f, p, end);
    case FRAME_FAILED:
        break;
    }
    return NULL;
}

bool framer_feed(struct framer *f, struct slice bytes, const bool *stop)
{
    if (bytes.n == 0) {
        return f->state != FRAME_FAILED;
    }
    const char *p = bytes.p;
    const char *end = p + bytes.n;
    if (stop == NULL) {
        stop = &never_stop;
    }
    f->run_max = 0;
    while (p < end && !*stop) {
        const char *behind = likely(f->state == FRAME_START) ? short_cut(f, p, end) : NULL;
        if (unlikely(behind == NULL)) {
            behind = step(f, p, end);
            if (behind == NULL) {
                return false;
            }
        }
        p = behind;
        while (f->run_max > 0 && !*stop) {
            p = take_run(f, p, end);
        }
    }
    return f->state != FRAME_FAILED;
}

void framer_take_run(struct framer *f, uint32_t n)
{
    bug_on(f->state != FRAME_START || f->run == NULL);
    f->run_max = n;
}

void framer_expect_endless(struct framer *f)
{
    bug_on(f->state != FRAME_START);
    f->state = FRAME_AWAITED;
}

const char *framer_error(const struct framer *f)
{
    return f->error == NULL ? "" : f->error;
}

bool framer_is_inside(const struct framer *f)
{
    return f->state != FRAME_START;
}
