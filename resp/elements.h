/* SPDX-License-Identifier: Apache-2.0
 *
 * elements.h: a walk over a whole reply that lies in one piece. No tree is built, nothing is recursive,
 * and no number from the reply is used before it was compared with the bytes that are left.
 */
#pragma once

#include "bytes.h"

struct cursor {
    const char *p, *end;
};

struct element {
    char type;
    /* of ':'; how many elements follow, for arrays and the like, and of an attribute with what it stands before */
    int64_t number;
    bool is_null;      /* $-1, *-1 or _ */
    struct slice text; /* of everything else */
};

static inline struct cursor cursor_of(struct slice bytes)
{
    return (struct cursor){bytes.p, bytes.p + bytes.n};
}

static inline bool element_is_list(const struct element *e)
{
    return e->type == '*' || e->type == '~' || e->type == '%' || e->type == '>' || e->type == '|';
}

static inline bool element_is_text(const struct element *e)
{
    return e->type == '$' || e->type == '+';
}

static inline bool element_is_error(const struct element *e)
{
    return e->type == '-' || e->type == '!';
}

/* The next element; of an array its header. False: the bytes end within it, or it is no RESP. */
MUST_CHECK bool element_next(struct cursor *c, struct element *e);
/* Over the next element with all that is in it. */
MUST_CHECK bool element_skip(struct cursor *c);
/* The bytes of the next element; the cursor goes behind it. */
MUST_CHECK bool element_whole(struct cursor *c, struct cursor *whole);
