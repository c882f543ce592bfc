/* SPDX-License-Identifier: Apache-2.0
 *
 * relay.c: aggregates, attributes and pushes, through hiredis's reader with a reply-object table of our own. No
 * reply tree is built: a reply's elements are written straight out again, byte for byte as they came
 * (the table sees which null, which text of a double); a push is kept until it is whole.
 *
 * The way through: relay_step feeds the reader at most FEED_MAX bytes. The reader calls the table
 * (on_...) for every element that is whole, the table writes to `out`, relay_step delivers `out`. When
 * the root completes in the middle of what was fed, the unread rest is taken back: the next reply is
 * framed by frame.c again. Between steps the reader holds one unfinished element, which look_ahead
 * inspects before more memory is spent on it:
 *   - a header or line that is too long to become valid is refused;
 *   - a bulk above FEED_MAX is not shown to the reader at all. Its body goes past it (step_body) and
 *     the reader is then told that a null stood there, which on_nil ignores;
 *   - so does a status or an error whose text is longer than FEED_MAX, from there on (step_text). The
 *     reader is then told that it is empty, which on_string ignores. In a push, whose items have to
 *     be measured, the reader collects it.
 * So the reader never holds more than FEED_MAX + a header, or a line of another type (or in a push),
 * whatever the peer announces.
 * All this by the reader's public fields; buf[pos..len) is what it has not consumed.
 *
 * The reader does not know attributes and blob errors, and refuses big numbers that are none, which a
 * module may well say. It is never fed across a byte that may begin one ('|', '!' or '(' behind a line
 * feed); when it turns out to stand between two elements there, it is shown a type it takes instead, and
 * the table writes the one that came:
 *   - '!' as '$', and '(' as '+', whose form they have;
 *   - '|' as '%', an element more of the aggregate it is in, whose count is raised by one. At the
 *     start of a reply there is none, so the reader is shown a "*1" first, which the table leaves out.
 *
 * A push inside a reply is a confirmation (EXEC of a SUBSCRIBE), which is an element like others, or a message
 * to who publishes to itself in a transaction: an element more, too. Others do not belong there.
 *
 * A table function that refuses sets the framer's error and returns NULL, which ends the reader with
 * REDIS_ERR_OOM; a reader that failed is never used again (relay_destroy at the reset).
 *
 * Single-threaded, no I/O. hiredis allocates by the functions mem_install_hiredis gave it.
 */
#include "frame_priv.h"

#include "../conf/mem.h"
#include "../resp/push.h"
#include "../resp/write.h"

#include <hiredis/hiredis.h>

/* The reader moves its rest down after each KiB it consumed, so large feeds cost twice; and what
 * lies behind a short reply is copied for nothing, so the first feed of a reply is small. */
#define FEED_FIRST ((size_t)512)
#define FEED_MAX   ((size_t)4096)

/* Buffers above this go back to the allocator once they are delivered. */
#define OUT_KEEP  ((size_t)16 * 1024)
#define OUT_FIRST ((size_t)1024)

/* Nothing is allocated for announced elements; this only refuses the absurd before it can hang. */
#define ELEMENTS_MAX INT32_MAX

struct relay {
    redisReader *reader;
    struct framer *owner;
    size_t fed;       /* bytes of this reply the reader was shown (and some behind it) */
    size_t body_left; /* of a bulk that goes past the reader: bytes to come, CRLF included */
    bool in_text;     /* a status or an error goes past the reader */
    bool stand_in; /* what the reader meets now (a null, an empty line) stands for one of these */
    char
        disguised; /* '|', '!' or '(', which the reader took for another and has not finished; or 0 */
    bool kind_due;  /* a push inside a reply has begun, and says next what it is */
    bool wrapped;   /* the reader's root is the "*1" in front of an attribute */
    bool begun;     /* a piece of this reply was delivered */
    bool root_null; /* the reply is "*-1" */

    /* What the table wrote: of a reply what was not delivered yet, of a push all of it. */
    char *out;
    size_t out_n;
    size_t out_cap;

    /* A push. `out` moves as it grows, so pointers into it are set when it is whole. */
    bool plain;
    bool is_null;
    bool has_kind;
    struct slice kind;
    size_t kind_at; /* where in out it was written */
    struct slice *items;
    size_t nitems;
    size_t items_cap;
    size_t items_at; /* the first; the others follow it directly */
};

/* Always false, for "return fails(...)". */
static bool fails(struct relay *r, const char *why)
{
    framer_fail(r->owner, why);
    return false;
}

/* --- growing --------------------------------------------------------------------------------- */

static size_t grown_cap(size_t cap, size_t first, size_t need)
{
    cap = cap < first ? first : cap;
    /* need is bounded by FRAME_LINE_MAX or FRAME_PUSH_MAX and a little: no overflow. */
    while (cap < need) {
        cap *= 2;
    }
    return cap;
}

static bool is_push(const struct relay *r)
{
    return r->owner->type == '>';
}

/* May the open push take n more bytes of memory? False: failed. */
static bool push_has_room(struct relay *r, size_t n)
{
    size_t taken = r->out_n + r->nitems * sizeof(*r->items);
    return (taken <= FRAME_PUSH_MAX && n <= FRAME_PUSH_MAX - taken) || fails(r, "push too large");
}

/* Room for n more bytes in out; NULL: failed. */
static char *out_reserve(struct relay *r, size_t n)
{
    if (is_push(r) && !push_has_room(r, n)) {
        return NULL;
    }
    if (r->out == NULL || n > r->out_cap - r->out_n) {
        size_t cap = grown_cap(r->out_cap, OUT_FIRST, r->out_n + n);
        char *grown = mem_try_resize(r->out, cap);
        if (grown == NULL) {
            framer_fail(r->owner, "out of memory");
            return NULL;
        }
        r->out = grown;
        r->out_cap = cap;
    }
    return r->out + r->out_n;
}

static bool out_append(struct relay *r, const char *p, size_t n)
{
    char *dst = out_reserve(r, n);
    if (dst == NULL) {
        return false;
    }
    memcpy(dst, p, n);
    r->out_n += n;
    return true;
}

static bool out_header(struct relay *r, char type, int64_t n)
{
    char *dst = out_reserve(r, RESP_HEADER_MAX);
    if (dst == NULL) {
        return false;
    }
    r->out_n += resp_header(dst, type, n);
    return true;
}

/* A line of a type byte and n bytes of text. */
static bool out_line(struct relay *r, char type, const char *p, size_t n)
{
    char *dst = out_reserve(r, n + 3);
    if (dst == NULL) {
        return false;
    }
    dst[0] = type;
    memcpy(dst + 1, p, n);
    memcpy(dst + 1 + n, "\r\n", 2);
    r->out_n += n + 3;
    return true;
}

static void release_large(struct relay *r)
{
    if (r->out_cap > OUT_KEEP) {
        mem_free(r->out);
        r->out = NULL;
        r->out_cap = 0;
    }
    if (r->items_cap * sizeof(*r->items) > OUT_KEEP) {
        mem_free(r->items);
        r->items = NULL;
        r->items_cap = 0;
    }
}

/* --- pushes ---------------------------------------------------------------------------------- */

enum push_place { PLACE_ROOT, PLACE_KIND, PLACE_SECOND, PLACE_ITEM, PLACE_OTHER };

static enum push_place push_place(const redisReadTask *task)
{
    const redisReadTask *parent = task->parent;
    if (parent == NULL) {
        return PLACE_ROOT;
    }
    if (parent->parent == NULL) {
        return task->idx == 0 ? PLACE_KIND : task->idx == 1 ? PLACE_SECOND : PLACE_OTHER;
    }
    /* Whether that parent is the second element and an array, `plain` says. */
    return parent->parent->parent == NULL ? PLACE_ITEM : PLACE_OTHER;
}

/* The item's bytes are written next, and meet the limit for both. */
static bool push_add_item(struct relay *r, size_t n)
{
    if (r->nitems == r->items_cap) {
        size_t cap = grown_cap(r->items_cap, 16, r->nitems + 1);
        struct slice *grown = mem_try_resize(r->items, cap * sizeof(*grown));
        if (grown == NULL) {
            return fails(r, "out of memory");
        }
        r->items = grown;
        r->items_cap = cap;
    }
    if (r->nitems == 0) {
        r->items_at = r->out_n;
    }
    r->items[r->nitems++] = slice_of(NULL, n);
    return true;
}

/* A string of n bytes is about to be written: is it the kind, an item? */
static bool push_string(struct relay *r, const redisReadTask *task, char type, size_t n)
{
    enum push_place place = push_place(task);
    bool text = type == '$' || type == '+';
    if (text && place == PLACE_KIND) {
        r->has_kind = true;
        r->kind = slice_of(NULL, n);
        r->kind_at = r->out_n;
        return true;
    }
    if (!text || place != PLACE_ITEM) {
        r->plain = false;
    }
    return !r->plain || push_add_item(r, n);
}

/* An element that is no string and no null; has it a place in the plain shape? */
static void push_other(struct relay *r, const redisReadTask *task, size_t elements)
{
    switch (push_place(task)) {
    case PLACE_ROOT:
        r->plain = elements == 2;
        break;
    case PLACE_SECOND:
        r->plain = r->plain && task->type == REDIS_REPLY_ARRAY;
        break;
    default:
        r->plain = false;
        break;
    }
}

static void push_null(struct relay *r, const redisReadTask *task)
{
    if (push_place(task) == PLACE_SECOND) {
        r->is_null = true;
    } else {
        r->plain = false;
    }
}

/* The text of the string of n bytes that was written at p: behind "+" or "$n\r\n". */
static const char *string_text(const char *p)
{
    return *p == '+' ? p + 1 : strchr(p, '\n') + 1;
}

static void push_deliver(struct relay *r)
{
    if (r->has_kind) {
        r->kind.p = string_text(r->out + r->kind_at);
    }
    const char *p = r->out + r->items_at;
    size_t nitems = r->plain ? r->nitems : 0;
    for (size_t i = 0; i < nitems; i++) {
        r->items[i].p = string_text(p);
        p = r->items[i].p + r->items[i].n + 2;
    }
    struct push push = {
        .kind = r->has_kind ? r->kind : SLICE(""),
        .plain = r->plain,
        .is_null = r->plain && r->is_null,
        .nitems = nitems,
        .items = r->items,
        .bytes = slice_of(r->out, r->out_n),
    };
    r->owner->push(r->owner->ctx, &push);
}

/* --- the table: what hiredis calls for each element ------------------------------------------ */

static void *refuse(struct relay *r, const char *why)
{
    framer_fail(r->owner, why);
    return NULL;
}

/* What a table function returns: any address, or NULL to stop the reader. */
static void *element(struct relay *r, bool ok)
{
    return !ok ? NULL : r->kind_due ? refuse(r, "push inside a reply") : r;
}

/* The first element of a push inside a reply. False: none that belongs there. */
static bool take_kind(struct relay *r, const redisReadTask *task, struct slice kind)
{
    r->kind_due = false;
    if (push_message(kind) != NULL) {
        long long *elements = &task->parent->parent->elements;
        return ++*elements <= ELEMENTS_MAX;
    }
    return push_confirmation(kind) != NULL;
}

/* The type byte of the string the reader is at; it will not be asked again. */
static char string_type(struct relay *r, const redisReadTask *task)
{
    char disguised = r->disguised;
    r->disguised = 0;
    switch (task->type) {
    case REDIS_REPLY_STRING:
        return disguised != 0 ? disguised : '$';
    case REDIS_REPLY_VERB:
        return '=';
    case REDIS_REPLY_ERROR:
        return '-';
    default:
        return disguised != 0 ? disguised : '+';
    }
}

static bool relay_bulk(struct relay *r, char type, const char *p, size_t n)
{
    char *dst = out_reserve(r, RESP_HEADER_MAX + n + 2);
    if (dst == NULL) {
        return false;
    }
    size_t head = resp_header(dst, type, (int64_t)n);
    memcpy(dst + head, p, n);
    memcpy(dst + head + n, "\r\n", 2);
    r->out_n += head + n + 2;
    return true;
}

static void *on_string(const redisReadTask *task, char *p, size_t n)
{
    struct relay *r = task->privdata;
    if (r->stand_in) {
        r->stand_in = false;
        return element(r, true);
    }
    char type = string_type(r, task);
    bool bulk = type == '$' || type == '=' || type == '!';
    /* The reader skips two bytes behind a bulk without a look; they are in its buffer. */
    if (bulk && (p[n] != '\r' || p[n + 1] != '\n')) {
        return refuse(r, "no CRLF behind a bulk string");
    }
    if (!bulk && n > FRAME_LINE_MAX) {
        return refuse(r, "line too long");
    }
    if (r->kind_due && !take_kind(r, task, slice_of(p, n))) {
        return refuse(r, "push inside a reply");
    }
    if (is_push(r) && !push_string(r, task, type, n)) {
        return NULL;
    }
    return element(r, bulk ? relay_bulk(r, type, p, n) : out_line(r, type, p, n));
}

static void *on_array(const redisReadTask *task, size_t elements)
{
    struct relay *r = task->privdata;
    bool attribute = r->disguised != 0;
    r->disguised = 0;
    if (r->wrapped && task->parent == NULL) {
        return element(r, true);
    }
    if (r->reader->ridx - (r->wrapped ? 1 : 0) >= FRAME_DEPTH_MAX) {
        return refuse(r, "nested too deep");
    }
    if (elements > ELEMENTS_MAX) { /* the reader has doubled a map's */
        return refuse(r, "too many elements");
    }
    bool inside = task->type == REDIS_REPLY_PUSH && task->parent != NULL;
    bool behind_attribute = inside && r->wrapped && task->parent->parent == NULL;
    if (r->kind_due || behind_attribute || (inside && (is_push(r) || elements == 0))) {
        return refuse(r, "push inside a reply");
    }
    r->kind_due = inside;
    if (is_push(r)) {
        push_other(r, task, elements);
    }
    switch (task->type) {
    case REDIS_REPLY_MAP: /* keys and values are counted */
        return element(r, out_header(r, attribute ? '|' : '%', (int64_t)(elements / 2)));
    case REDIS_REPLY_SET:
        return element(r, out_header(r, '~', (int64_t)elements));
    case REDIS_REPLY_PUSH:
        return out_header(r, '>', (int64_t)elements) ? r : NULL;
    default:
        return element(r, out_header(r, '*', (int64_t)elements));
    }
}

static void *on_integer(const redisReadTask *task, long long value)
{
    struct relay *r = task->privdata;
    /* The reader takes only the canonical form, so the number gives the text back. */
    if (is_push(r)) {
        push_other(r, task, 0);
    }
    return element(r, out_header(r, ':', value));
}

static void *on_double(const redisReadTask *task, double value, char *p, size_t n)
{
    struct relay *r = task->privdata;
    (void)value;
    if (is_push(r)) {
        push_other(r, task, 0);
    }
    return element(r, out_line(r, ',', p, n));
}

static void *on_bool(const redisReadTask *task, int value)
{
    struct relay *r = task->privdata;
    /* The reader also takes T and F, which RESP3 does not have. It has just stepped over the CRLF. */
    char byte = r->reader->buf[r->reader->pos - 3];
    if (byte != 't' && byte != 'f') {
        return refuse(r, "bad boolean");
    }
    if (is_push(r)) {
        push_other(r, task, 0);
    }
    return element(r, out_append(r, value ? "#t\r\n" : "#f\r\n", 4));
}

static void *on_nil(const redisReadTask *task)
{
    struct relay *r = task->privdata;
    if (r->stand_in) {
        r->stand_in = false;
        return element(r, true);
    }
    const char *text;
    switch (r->disguised != 0 ? -1 : task->type) {
    case REDIS_REPLY_STRING:
        text = "$-1\r\n";
        break;
    case REDIS_REPLY_ARRAY:
        text = "*-1\r\n";
        r->root_null = task->parent == NULL;
        break;
    case REDIS_REPLY_NIL:
        text = "_\r\n";
        break;
    default:
        return refuse(r, "a null of a type that has none");
    }
    if (is_push(r)) {
        push_null(r, task);
    }
    return element(r, out_append(r, text, strlen(text)));
}

/* Not const because hiredis's function takes it so; never written. */
static redisReplyObjectFunctions relay_table = {
    .createString = on_string,
    .createArray = on_array,
    .createInteger = on_integer,
    .createDouble = on_double,
    .createNil = on_nil,
    .createBool = on_bool,
};

/* --- the unfinished element ------------------------------------------------------------------ */

/* The reader waits for the rest of a bulk. True when it may; else failed, or the bulk goes past the
 * reader from now on: *p, the end of what was fed, is set back to the body's first byte. */
static bool look_at_bulk(struct relay *r, const char **p)
{
    redisReader *reader = r->reader;
    const redisReadTask *task = reader->task[reader->ridx];
    const char *head = reader->buf + reader->pos;
    size_t n = reader->len - reader->pos;
    size_t scan = n > FRAME_DIGITS_MAX + 1 ? FRAME_DIGITS_MAX + 1 : n;
    const char *cr = scan == 0 ? NULL : memchr(head, '\r', scan);
    if (cr == NULL || cr == head + n - 1) {
        return n <= FRAME_DIGITS_MAX + 1 || fails(r, "bad bulk length");
    }
    int64_t len;
    if (cr[1] != '\n' || !slice_to_int64(slice_of(head, (size_t)(cr - head)), &len)) {
        return fails(r, "bad bulk length");
    }
    if (len < 0 || len > FRAME_BULK_MAX) {
        return fails(r, "bulk length out of range");
    }
    if (len <= (int64_t)FEED_MAX) {
        return true;
    }
    char type = string_type(r, task);
    if (is_push(r) && (!push_string(r, task, type, (size_t)len) ||
                       !push_has_room(r, RESP_HEADER_MAX + (size_t)len + 2))) {
        return false;
    }
    r->body_left = (size_t)len + 2;
    /* All body bytes the reader has came with the last feed: a header is looked at when it is whole. */
    *p -= n - (size_t)(cr + 2 - head);
    reader->pos = reader->len;
    return out_header(r, type, len);
}

/* The reader waits for the rest of a status or an error. True when it may, or when the text goes past
 * the reader from now on; else failed. */
static bool look_at_text(struct relay *r)
{
    redisReader *reader = r->reader;
    const char *text = reader->buf + reader->pos;
    size_t n = reader->len - reader->pos;
    bool cr = n > 0 && text[n - 1] == '\r';
    if (n - cr <= FEED_MAX) {
        return true;
    }
    struct framer *f = r->owner;
    char type = string_type(r, reader->task[reader->ridx]);
    f->text_left = (size_t)FRAME_BULK_MAX;
    const char *behind = framer_text(f, text, text + n, &n);
    if (behind == NULL || behind != reader->buf + reader->len) {
        return behind != NULL && fails(r, "no LF behind a CR");
    }
    reader->pos = reader->len;
    r->in_text = true;
    return out_append(r, &type, 1) && out_append(r, text, n);
}

/* Judges n bytes of an unfinished line; the CR may be among them already. False: failed. */
static bool look_at_line(struct relay *r, size_t n)
{
    int type = r->reader->task[r->reader->ridx]->type;
    bool is_text = (type == REDIS_REPLY_STATUS && r->disguised == 0) || type == REDIS_REPLY_ERROR;
    if (is_text && !is_push(r)) {
        return look_at_text(r);
    }
    return n <= FRAME_LINE_MAX + 1 || fails(r, "line too long");
}

/* Judges what the reader holds unfinished. False: failed. */
static bool look_ahead(struct relay *r, const char **p)
{
    const redisReader *reader = r->reader;
    size_t n = reader->len - reader->pos;
    switch (reader->task[reader->ridx]->type) {
    case -1: /* between two elements */
        return true;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_VERB:
        return look_at_bulk(r, p);
    case REDIS_REPLY_ARRAY:
    case REDIS_REPLY_MAP:
    case REDIS_REPLY_SET:
    case REDIS_REPLY_PUSH:
        return n <= FRAME_DIGITS_MAX + 1 || fails(r, "bad length");
    default:
        return look_at_line(r, n);
    }
}

/* --- steps ----------------------------------------------------------------------------------- */

static void deliver(struct relay *r, const char *p, size_t n, bool last)
{
    struct framer *f = r->owner;
    struct reply_piece piece = {
        .bytes = {p, n},
        .type = f->type,
        .first = !r->begun,
        .last = last,
        .is_null = r->root_null,
        .size = r->root_null ? (int64_t)n : -1,
    };
    r->begun = true;
    f->piece(f->ctx, &piece);
}

/* Delivers what the table wrote; a push only when it is whole. */
static void deliver_out(struct relay *r, bool last)
{
    if (last) {
        /* First, so that a callback finds the framer between two replies. */
        r->owner->state = FRAME_START;
    }
    if (is_push(r)) {
        if (!last) {
            return;
        }
        push_deliver(r);
    } else if (r->out_n > 0) { /* always so when it is the last: the table wrote its end */
        deliver(r, r->out, r->out_n, last);
    }
    r->out_n = 0;
    release_large(r);
}

/* Shows the reader n bytes at p and delivers what came of it. Returns behind what was consumed. */
static const char *feed_reader(struct relay *r, const char *p, size_t n)
{
    redisReader *reader = r->reader;
    void *root = NULL;
    if (redisReaderFeed(reader, p, n) != REDIS_OK ||
        redisReaderGetReply(reader, &root) != REDIS_OK) {
        /* The reader quotes the byte it did not know, the one text that is not fixed. */
        bool quotes = strncmp(reader->errstr, "Protocol error", 14) == 0;
        return framer_fail(r->owner, reader->err == REDIS_ERR_OOM ? "out of memory"
                                     : quotes ? "unknown type byte inside a reply"
                                              : reader->errstr);
    }
    p += n;
    if (root != NULL) {
        size_t rest = reader->len - reader->pos;
        bug_on(rest >= n);
        reader->pos = reader->len;
        deliver_out(r, true);
        return p - rest;
    }
    if (!look_ahead(r, &p)) {
        return NULL;
    }
    deliver_out(r, false);
    return p;
}

/* The bulk's CRLF is here: the reader may go on behind it. */
static bool end_body(struct relay *r)
{
    r->stand_in = true;
    return out_append(r, "\r\n", 2) && feed_reader(r, "-1\r\n", 4) != NULL;
}

/* Bytes of a bulk that goes past the reader. */
static const char *step_body(struct relay *r, const char *p, const char *end)
{
    size_t n = (size_t)(end - p);
    if (r->body_left > 2) {
        n = n > r->body_left - 2 ? r->body_left - 2 : n;
        r->body_left -= n;
        if (!is_push(r)) {
            deliver(r, p, n, false);
        } else if (!out_append(r, p, n)) {
            return NULL;
        }
        return p + n;
    }
    if (*p != (r->body_left == 2 ? '\r' : '\n')) {
        return framer_fail(r->owner, "no CRLF behind a bulk string");
    }
    r->body_left--;
    return r->body_left > 0 || end_body(r) ? p + 1 : NULL;
}

/* Bytes of a status or an error that goes past the reader. */
static const char *step_text(struct relay *r, const char *p, const char *end)
{
    struct framer *f = r->owner;
    const char *behind;
    if (f->has_cr) {
        behind = framer_text_end(f, p);
        if (behind == NULL || !out_append(r, "\r\n", 2)) {
            return NULL;
        }
        r->in_text = false;
        r->stand_in = true;
        return feed_reader(r, "\r\n", 2) == NULL ? NULL : behind;
    }
    size_t n;
    behind = framer_text(f, p, end, &n);
    if (behind != NULL && n > 0) {
        deliver(r, p, n, false);
    }
    return behind;
}

/* The reader awaits the type byte of an element. */
static bool is_between_elements(const struct relay *r)
{
    const redisReader *reader = r->reader;
    return reader->ridx > 0 && reader->task[reader->ridx]->type == -1;
}

/* An element begins at p that the reader has to be shown as another. */
static const char *step_disguise(struct relay *r, const char *p)
{
    bool attribute = *p == '|';
    if (attribute) {
        long long *elements = &r->reader->task[r->reader->ridx]->parent->elements;
        if (is_push(r) || *elements >= ELEMENTS_MAX) {
            return framer_fail(r->owner,
                               is_push(r) ? "attribute inside a push" : "too many elements");
        }
        ++*elements;
    }
    r->disguised = *p;
    return feed_reader(r, attribute ? "%" : *p == '!' ? "$" : "+", 1) == NULL ? NULL : p + 1;
}

/* How many of the n bytes at p come before this one behind a line feed. The first byte of all was
 * looked at. */
static size_t length_before(char byte, const char *p, size_t n)
{
    const char *at = p;
    while ((at = memchr(at + 1, byte, n - 1 - (size_t)(at - p))) != NULL) {
        if (at[-1] == '\n') {
            return (size_t)(at - p);
        }
    }
    return n;
}

const char *relay_step(struct framer *f, const char *p, const char *end)
{
    struct relay *r = f->relay;
    if (r->body_left > 0) {
        return step_body(r, p, end);
    }
    if (r->in_text) {
        return step_text(r, p, end);
    }
    if ((*p == '|' || *p == '!' || *p == '(') && is_between_elements(r)) {
        return step_disguise(r, p);
    }
    size_t max = r->fed < FEED_FIRST ? FEED_FIRST : FEED_MAX;
    size_t n = (size_t)(end - p) > max ? max : (size_t)(end - p);
    n = length_before('(', p, length_before('!', p, length_before('|', p, n)));
    r->fed += n;
    return feed_reader(r, p, n);
}

bool relay_begin(struct framer *f)
{
    struct relay *r = f->relay;
    if (r == NULL) {
        r = mem_zalloc(sizeof(*r));
        r->owner = f;
        f->relay = r;
    }
    if (r->reader == NULL) {
        r->reader = redisReaderCreateWithFunctions(&relay_table);
        if (r->reader == NULL) {
            framer_fail(f, "out of memory");
            return false;
        }
        r->reader->privdata = r;
        r->reader->maxelements = ELEMENTS_MAX;
    }
    r->fed = 0;
    r->disguised = 0;
    r->kind_due = false;
    r->wrapped = f->type == '|';
    r->begun = false;
    r->root_null = false;
    r->is_null = false;
    r->has_kind = false;
    r->nitems = 0;
    r->items_at = 0;
    f->state = FRAME_NESTED;
    return !r->wrapped || feed_reader(r, "*1\r\n", 4) != NULL;
}

void relay_destroy(struct relay *r)
{
    if (r == NULL) {
        return;
    }
    if (r->reader != NULL) {
        redisReaderFree(r->reader);
    }
    mem_free(r->out);
    mem_free(r->items);
    mem_free(r);
}
