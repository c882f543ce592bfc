/* SPDX-License-Identifier: Apache-2.0
 *
 * push.c: see push.h.
 */
#include "push.h"

static const struct slice messages[] = {
    {"message", 7},
    {"pmessage", 8},
    {"smessage", 8},
};

static const struct slice confirmations[] = {
    {"subscribe", 9},     {"unsubscribe", 11}, {"psubscribe", 10},
    {"punsubscribe", 12}, {"ssubscribe", 10},  {"sunsubscribe", 12},
};

static const struct slice *find(const struct slice *list, size_t n, struct slice word)
{
    for (size_t i = 0; i < n; i++) {
        if (slice_eq(list[i], word)) {
            return &list[i];
        }
    }
    return NULL;
}

const struct slice *push_message(struct slice kind)
{
    return find(messages, ARRAY_LEN(messages), kind);
}

const struct slice *push_confirmation(struct slice kind)
{
    return find(confirmations, ARRAY_LEN(confirmations), kind);
}
