/* SPDX-License-Identifier: Apache-2.0
 *
 * elements.c: the cursor of elements.h.
 */
#include "elements.h"

/* The shortest element: "_\r\n". */
#define ELEMENT_MIN 3

static bool read_bulk(struct cursor *c, struct element *e)
{
    int64_t left = c->end - c->p;
    if (e->number == -1) {
        e->text.n = 0;
        e->is_null = true;
        return true;
    }
    if (e->number < 0 || left < 2 || e->number > left - 2 ||
        memcmp(c->p + e->number, "\r\n", 2) != 0) {
        return false;
    }
    e->text = slice_of(c->p, (size_t)e->number);
    c->p += e->number + 2;
    return true;
}

static bool read_count(const struct cursor *c, struct element *e)
{
    if (e->number == -1) {
        e->number = 0;
        e->is_null = true;
    }
    if (e->number < 0 || e->number > (c->end - c->p) / ELEMENT_MIN) {
        return false;
    }
    e->number *= e->type == '%' || e->type == '|' ? 2 : 1;
    e->number += e->type == '|';
    return true;
}

bool element_next(struct cursor *c, struct element *e)
{
    size_t left = (size_t)(c->end - c->p);
    const char *lf = left > 0 ? memchr(c->p, '\n', left) : NULL;
    if (lf == NULL || lf - c->p < 2 || lf[-1] != '\r') {
        return false;
    }
    *e = (struct element){.type = *c->p, .text = slice_of(c->p + 1, (size_t)(lf - c->p) - 2)};
    c->p = lf + 1;
    switch (e->type) {
    case '_':
        e->is_null = true;
        return true;
    case '+':
    case '-':
    case ',':
    case '#':
    case '(':
        return true;
    case ':':
        return slice_to_int64(e->text, &e->number);
    case '$':
    case '=':
    case '!':
        return slice_to_int64(e->text, &e->number) && read_bulk(c, e);
    case '*':
    case '~':
    case '%':
    case '>':
    case '|':
        return slice_to_int64(e->text, &e->number) && read_count(c, e);
    default:
        return false;
    }
}

/* Ends, because each round takes bytes. */
bool element_skip(struct cursor *c)
{
    struct element e;
    for (uint64_t left = 1; left > 0; left--) {
        if (!element_next(c, &e)) {
            return false;
        }
        left += element_is_list(&e) ? (uint64_t)e.number : 0;
    }
    return true;
}

bool element_whole(struct cursor *c, struct cursor *whole)
{
    whole->p = c->p;
    bool ok = element_skip(c);
    whole->end = c->p;
    return ok;
}
