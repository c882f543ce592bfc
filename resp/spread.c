/* SPDX-License-Identifier: Apache-2.0
 *
 * spread.c: splitting requests, joining replies, cursors of SCAN.
 *
 * Numbers of parts and elements are a peer's: what is as large as they are is allocated with mem_try.
 * Replies have been framed before (upstream/frame.h); one that is not what its command promises is
 * passed on as it is, for the client to judge.
 */
#include "spread.h"

#include "elements.h"
#include "write.h"

#include "../conf/mem.h"

#include <stdlib.h>

/* ---- Splitting ----------------------------------------------------------------------------- */

struct part {
    struct slice key, value;
    uint32_t slot;
    uint32_t at; /* in the request */
};

static int compare_parts(const void *left, const void *right)
{
    const struct part *a = left;
    const struct part *b = right;
    if (a->slot != b->slot) {
        return a->slot < b->slot ? -1 : 1;
    }
    return a->at < b->at ? -1 : 1;
}

static bool write_part(struct slice name, const struct part *parts, size_t n, bool has_values,
                       struct chain *out)
{
    bool ok = resp_array(out, (int64_t)(1 + n * (has_values ? 2 : 1))) && resp_bulk(out, name);
    for (size_t i = 0; ok && i < n; i++) {
        ok = resp_bulk(out, parts[i].key) && (!has_values || resp_bulk(out, parts[i].value));
    }
    return ok;
}

static bool write_by_slot(struct slice name, const struct part *parts, size_t nparts,
                          bool has_values, struct chain *out, size_t *n)
{
    for (size_t from = 0, to; from < nparts; from = to) {
        to = from + 1;
        while (to < nparts && parts[to].slot == parts[from].slot) {
            to++;
        }
        if (!write_part(name, parts + from, to - from, has_values, out)) {
            return false;
        }
        ++*n;
    }
    return true;
}

static bool split_by_slot(const struct request_view *view, bool has_values,
                          uint16_t (*slot_of)(struct slice key), struct chain *out, size_t *n)
{
    size_t nparts = (size_t)(view->argc - 1) / (has_values ? 2 : 1);
    struct part *parts = mem_try(nparts * sizeof(*parts));
    struct arg_walk walk;
    struct slice name;
    if (parts == NULL) {
        return false;
    }
    arg_walk_init(&walk, view);
    bool ok = arg_walk_next(&walk, &name);
    for (size_t i = 0; ok && i < nparts; i++) {
        ok = arg_walk_next(&walk, &parts[i].key) &&
             (!has_values || arg_walk_next(&walk, &parts[i].value));
        parts[i].slot = ok ? slot_of(parts[i].key) : 0;
        parts[i].at = (uint32_t)i;
    }
    bug_on(!ok); /* the request has argc arguments */
    qsort(parts, nparts, sizeof(*parts), compare_parts);
    ok = write_by_slot(name, parts, nparts, has_values, out, n);
    mem_free(parts);
    return ok;
}

static bool split_gets(const struct request_view *view, struct chain *out, size_t *n)
{
    struct arg_walk walk;
    struct slice argv[2];
    arg_walk_init(&walk, view);
    for (bool is_key = false; arg_walk_next(&walk, &argv[1]); is_key = true) {
        argv[0] = SLICE("GET");
        if (is_key && !resp_command(out, 2, argv)) {
            return false;
        }
        *n += is_key;
    }
    return true;
}

bool spread_split(enum cmd_spread how, const struct request_view *view,
                  uint16_t (*slot_of)(struct slice key), struct chain *out, size_t *n)
{
    *n = 0;
    if (how == SPREAD_GETS) {
        return split_gets(view, out, n);
    }
    bug_on(how != SPREAD_SETS && how != SPREAD_COUNT);
    return split_by_slot(view, how == SPREAD_SETS, slot_of, out, n);
}

/* ---- Joining ------------------------------------------------------------------------------- */

bool spread_replies(struct slice bytes, struct slice *replies, size_t n)
{
    struct cursor all = cursor_of(bytes);
    struct cursor one;
    for (size_t i = 0; i < n; i++) {
        if (!element_whole(&all, &one)) {
            return false;
        }
        replies[i] = slice_of(one.p, (size_t)(one.end - one.p));
    }
    return all.p == all.end;
}

static bool first_element(struct slice reply, struct cursor *c, struct element *e)
{
    *c = cursor_of(reply);
    return element_next(c, e);
}

/* MGET has nil where GET has this error. */
static bool is_wrong_type(struct slice reply)
{
    static const char wrong[] = "-WRONGTYPE ";
    return reply.n > sizeof(wrong) - 1 && memcmp(reply.p, wrong, sizeof(wrong) - 1) == 0;
}

static const struct slice *first_error(enum cmd_spread how, const struct slice *replies, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool is_error = replies[i].p[0] == '-' || replies[i].p[0] == '!';
        if (is_error && (how != SPREAD_GETS || !is_wrong_type(replies[i]))) {
            return &replies[i];
        }
    }
    return NULL;
}

/* Are all of them lists, or integers? */
static bool are_all(const struct slice *replies, size_t n, bool lists)
{
    for (size_t i = 0; i < n; i++) {
        struct cursor c;
        struct element e;
        if (!first_element(replies[i], &c, &e) || (lists ? !element_is_list(&e) : e.type != ':')) {
            return false;
        }
    }
    return true;
}

static bool join_gets(const struct slice *replies, size_t n, bool resp3, struct chain *out)
{
    bool ok = resp_array(out, (int64_t)n);
    for (size_t i = 0; ok && i < n; i++) {
        ok = is_wrong_type(replies[i]) ? resp_null(out, resp3) : chain_append(out, replies[i]);
    }
    return ok;
}

static bool join_integers(enum cmd_spread how, const struct slice *replies, size_t n,
                          struct chain *out)
{
    int64_t all = how == SPREAD_LEAST ? INT64_MAX : 0;
    for (size_t i = 0; i < n; i++) {
        struct cursor c;
        struct element e;
        if (!first_element(replies[i], &c, &e)) {
            return chain_append(out, replies[0]);
        }
        if (how == SPREAD_LEAST) {
            all = e.number < all ? e.number : all;
        } else if (__builtin_add_overflow(all, e.number, &all)) {
            all = INT64_MAX;
        }
    }
    return resp_integer(out, all);
}

/* How many elements the lists have together. */
static size_t count_elements(const struct slice *replies, size_t n)
{
    size_t all = 0;
    for (size_t i = 0; i < n; i++) {
        struct cursor c;
        struct element e;
        all += first_element(replies[i], &c, &e) ? (size_t)e.number : 0;
    }
    return all;
}

static bool join_list(const struct slice *replies, size_t n, struct chain *out)
{
    bool ok = resp_array(out, (int64_t)count_elements(replies, n));
    for (size_t i = 0; ok && i < n; i++) {
        struct cursor c;
        struct element e;
        ok = !first_element(replies[i], &c, &e) ||
             chain_append(out, slice_of(c.p, (size_t)(c.end - c.p)));
    }
    return ok;
}

static int compare_bytes(const void *left, const void *right)
{
    const struct slice *a = left;
    const struct slice *b = right;
    int order = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return order != 0 || a->n == b->n ? order : a->n < b->n ? -1 : 1;
}

static bool join_union(const struct slice *replies, size_t n, struct chain *out)
{
    size_t all = count_elements(replies, n);
    struct slice *elements = mem_try((all + 1) * sizeof(*elements));
    size_t found = 0;
    size_t kept = 0;
    if (elements == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        struct cursor c;
        struct cursor one;
        struct element e;
        bool ok = first_element(replies[i], &c, &e);
        while (ok && found < all && c.p < c.end && element_whole(&c, &one)) {
            elements[found++] = slice_of(one.p, (size_t)(one.end - one.p));
        }
    }
    qsort(elements, found, sizeof(*elements), compare_bytes);
    for (size_t i = 0; i < found; i++) {
        if (kept == 0 || !slice_eq(elements[i], elements[kept - 1])) {
            elements[kept++] = elements[i];
        }
    }
    bool ok = resp_array(out, (int64_t)kept);
    for (size_t i = 0; ok && i < kept; i++) {
        ok = chain_append(out, elements[i]);
    }
    mem_free(elements);
    return ok;
}

/* One place of all arrays. */
static bool join_place(enum cmd_spread how, struct cursor *cursors, size_t n, struct chain *out)
{
    struct cursor first = {NULL, NULL};
    int64_t all = 0;
    bool are_numbers = true;
    for (size_t i = 0; i < n; i++) {
        struct cursor one;
        struct element e = {0};
        if (!element_whole(&cursors[i], &one)) {
            continue; /* a shorter array than the first */
        }
        struct cursor at = one;
        are_numbers = are_numbers && element_next(&at, &e) && e.type == ':';
        if (first.p == NULL) {
            first = one;
            all = e.number;
        } else if (how == SPREAD_EACH_LEAST) {
            all = e.number < all ? e.number : all;
        } else if (are_numbers && __builtin_add_overflow(all, e.number, &all)) {
            all = INT64_MAX;
        }
    }
    return are_numbers ? resp_integer(out, all)
                       : chain_append(out, slice_of(first.p, (size_t)(first.end - first.p)));
}

static bool join_places(enum cmd_spread how, const struct slice *replies, size_t n,
                        struct chain *out)
{
    struct cursor *cursors = mem_try(n * sizeof(*cursors));
    int64_t places = 0;
    bool ok = cursors != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        struct element e;
        ok = first_element(replies[i], &cursors[i], &e);
        places = i == 0 ? e.number : places;
    }
    ok = ok && resp_array(out, places);
    for (; ok && places > 0; places--) {
        ok = join_place(how, cursors, n, out);
    }
    mem_free(cursors);
    return ok;
}

static const struct slice *pick(const struct slice *replies, size_t n, uint32_t chance)
{
    const struct slice *last = &replies[0];
    for (size_t i = 0; i < n; i++) {
        const struct slice *reply = &replies[(i + chance) % n];
        struct cursor c;
        struct element e;
        last = reply;
        if (first_element(*reply, &c, &e) && !e.is_null) {
            break;
        }
    }
    return last;
}

bool spread_join(enum cmd_spread how, const struct slice *replies, size_t n, uint32_t chance,
                 bool resp3, struct chain *out)
{
    const struct slice *error = first_error(how, replies, n);
    if (error != NULL) {
        return chain_append(out, *error);
    }
    switch (how) {
    case SPREAD_GETS:
        return join_gets(replies, n, resp3, out);
    case SPREAD_COUNT:
    case SPREAD_SUM:
    case SPREAD_LEAST:
        if (are_all(replies, n, false)) {
            return join_integers(how, replies, n, out);
        }
        break;
    case SPREAD_LIST:
    case SPREAD_UNION:
    case SPREAD_EACH_LEAST:
    case SPREAD_EACH_SUM:
        if (!are_all(replies, n, true)) {
            break; /* ACL LOG RESET */
        }
        return how == SPREAD_LIST    ? join_list(replies, n, out)
               : how == SPREAD_UNION ? join_union(replies, n, out)
                                     : join_places(how, replies, n, out);
    case SPREAD_PICK:
        return chain_append(out, *pick(replies, n, chance));
    case SPREAD_NO:
    case SPREAD_SETS:
    case SPREAD_FIRST:
    case SPREAD_SCAN:
        break;
    }
    return chain_append(out, replies[0]);
}

/* ---- SCAN ---------------------------------------------------------------------------------- */

/* Digits alone, within 64 bits, as Redis reads a cursor. */
static bool read_cursor(struct slice text, uint64_t *cursor)
{
    uint64_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        unsigned digit = (unsigned)(unsigned char)text.p[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(n, (uint64_t)10, &n) ||
            __builtin_add_overflow(n, (uint64_t)digit, &n)) {
            return false;
        }
    }
    *cursor = n;
    return text.n > 0;
}

static bool write_cursor(uint64_t cursor, struct chain *out)
{
    char text[24];
    char *p = text + sizeof(text);
    do {
        *--p = (char)('0' + cursor % 10);
        cursor /= 10;
    } while (cursor > 0);
    return resp_bulk(out, slice_of(p, (size_t)(text + sizeof(text) - p)));
}

bool spread_scan_read(struct slice text, struct spread_scan *scan)
{
    uint64_t cursor;
    if (!read_cursor(text, &cursor)) {
        return false;
    }
    scan->begins = cursor == 0;
    scan->cursor = cursor / SPREAD_SCAN_NODES;
    scan->node = (uint16_t)(cursor % SPREAD_SCAN_NODES - !scan->begins);
    return scan->begins || cursor % SPREAD_SCAN_NODES != 0;
}

bool spread_scan_request(const struct request_view *view, uint64_t cursor, struct chain *out)
{
    struct arg_walk walk;
    struct slice arg;
    bool ok = resp_array(out, view->argc);
    arg_walk_init(&walk, view);
    for (int64_t i = 0; ok && arg_walk_next(&walk, &arg); i++) {
        ok = i == 1 ? write_cursor(cursor, out) : resp_bulk(out, arg);
    }
    return ok;
}

/* The cursor behind "*2\r\n"; `c` is then at what follows it. */
static bool read_scan(struct slice reply, struct cursor *c, uint64_t *cursor)
{
    struct element e;
    return first_element(reply, c, &e) && e.type == '*' && e.number == 2 && element_next(c, &e) &&
           element_is_text(&e) && read_cursor(e.text, cursor);
}

bool spread_scan_next(struct slice reply, uint64_t *cursor)
{
    struct cursor c;
    return read_scan(reply, &c, cursor);
}

bool spread_scan_reply(struct slice reply, const struct spread_scan *next, struct chain *out)
{
    struct cursor rest;
    uint64_t cursor = 0;
    bug_on(!read_scan(reply, &rest, &cursor));
    cursor = next == NULL ? 0 : next->cursor;
    if (__builtin_mul_overflow(cursor, (uint64_t)SPREAD_SCAN_NODES, &cursor)) {
        return resp_error(out,
                          "ERR the cursor of a node is too large to be told apart from others");
    }
    cursor += next == NULL ? 0 : (uint64_t)next->node + 1;
    return resp_array(out, 2) && write_cursor(cursor, out) &&
           chain_append(out, slice_of(rest.p, (size_t)(rest.end - rest.p)));
}
