/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_message.c: arbitrary bytes as a message to a subscriber, in memory that ends where they end. What
 * is found lies within them, and there are as many keys as were announced.
 */
#include "../../invalidation/message.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

#define must(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void check_inside(const char *p, size_t n, struct slice s)
{
    must(s.n == 0 || (s.p >= p && s.n <= n && s.p + s.n <= p + n));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n == 0) {
        return 0;
    }
    char *copy = malloc(n);
    must(copy != NULL);
    memcpy(copy, bytes, n);
    struct message m = message_parse(slice_of(copy, n));
    struct slice key;
    size_t keys = 0;
    check_inside(copy, n, m.channel);
    check_inside(copy, n, m.text);
    while (message_next_key(&m, &key)) {
        check_inside(copy, n, key);
        keys++;
    }
    must(keys == m.nkeys);
    must((m.kind == MESSAGE_KEYS) == (keys > 0));
    struct slice strings[3];
    size_t found = message_strings(slice_of(copy, n), strings, ARRAY_LEN(strings));
    for (size_t i = 0; i < found && i < ARRAY_LEN(strings); i++) {
        check_inside(copy, n, strings[i]);
    }
    free(copy);
    return 0;
}
