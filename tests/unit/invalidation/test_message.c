/* SPDX-License-Identifier: Apache-2.0
 *
 * test_message.c: what a subscriber is told, taken apart.
 */
#include "../../../invalidation/message.h"

#include <criterion/criterion.h>

#include <stdlib.h>

struct example {
    const char *bytes;
    enum message_kind kind;
    const char *channel;
    const char *text;
};

static const struct example EXAMPLES[] = {
    {"*2\r\n$4\r\npong\r\n$0\r\n\r\n", MESSAGE_PONG, "", ""},
    {"*3\r\n$4\r\npong\r\n$0\r\n\r\n$0\r\n\r\n", MESSAGE_ODD, "", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\nabc\r\n", MESSAGE_TEXT, "c", "abc"},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n", MESSAGE_TEXT, "c", ""},
    {"*4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$1\r\nk\r\n", MESSAGE_TEXT, "c", "k"},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*2\r\n$1\r\na\r\n$2\r\nbb\r\n", MESSAGE_KEYS, "c", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n_\r\n", MESSAGE_NULL, "c", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*-1\r\n", MESSAGE_NULL, "c", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$-1\r\n", MESSAGE_NULL, "c", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*0\r\n", MESSAGE_STRANGE, "c", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n:7\r\n", MESSAGE_STRANGE, "c", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*1\r\n:7\r\n", MESSAGE_STRANGE, "c", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*1\r\n$-1\r\n", MESSAGE_STRANGE, "c", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*1\r\n*1\r\n$1\r\na\r\n", MESSAGE_STRANGE, "c", ""},
    {"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", MESSAGE_BEGIN, "", ""},
    {"*3\r\n$10\r\npsubscribe\r\n$1\r\nc\r\n:1\r\n", MESSAGE_BEGIN, "", ""},
    {"*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n", MESSAGE_END, "", ""},
    {"*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n", MESSAGE_END, "", ""},
    {"*1\r\n$7\r\nmessage\r\n", MESSAGE_ODD, "", ""},
    {"*-1\r\n", MESSAGE_ODD, "", ""},
    {"+PONG\r\n", MESSAGE_ODD, "", ""},
    {"-BUSY\r\n", MESSAGE_ODD, "", ""},
    {":1\r\n", MESSAGE_ODD, "", ""},
    {"$3\r\nabc\r\n", MESSAGE_ODD, "", ""},
    /* lies: the framer lets none of these through */
    {"*3\r\n$7\r\nmessage\r\n$9\r\nc\r\n$3\r\nabc\r\n", MESSAGE_STRANGE, "c\r\n$3\r\nab", ""},
    {"*3\r\n$7\r\nmessage\r\n$99\r\nc\r\n", MESSAGE_ODD, "", ""},
    {"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*9\r\n$1\r\na\r\n", MESSAGE_STRANGE, "c", ""},
    {"*3\r\n$9223372036854775807\r\nmessage\r\n", MESSAGE_ODD, "", ""},
};

Test(message, each_shape_is_what_it_is)
{
    for (size_t i = 0; i < ARRAY_LEN(EXAMPLES); i++) {
        const struct example *e = &EXAMPLES[i];
        struct message m = message_parse(slice_str(e->bytes));
        cr_expect_eq(m.kind, e->kind, "%s: %d", e->bytes, (int)m.kind);
        cr_expect(slice_eq(m.channel, slice_str(e->channel)), "%s", e->bytes);
        if (e->kind == MESSAGE_TEXT) {
            cr_expect(slice_eq(m.text, slice_str(e->text)), "%s", e->bytes);
        }
    }
}

Test(message, keys_come_in_order_and_once)
{
    struct message m = message_parse(
        SLICE("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*3\r\n$1\r\na\r\n$0\r\n\r\n$4\r\n\r\n\r\n\r\n"));
    struct slice key;
    cr_assert_eq(m.nkeys, 3);
    cr_assert(message_next_key(&m, &key) && slice_eq(key, SLICE("a")));
    cr_assert(message_next_key(&m, &key) && key.n == 0);
    cr_assert(message_next_key(&m, &key) && slice_eq(key, SLICE("\r\n\r\n")));
    cr_assert_not(message_next_key(&m, &key));
}

/* Cut anywhere, nothing behind the cut is read: the copies end where their memory does. */
Test(message, cut_anywhere_is_no_harm)
{
    for (size_t i = 0; i < ARRAY_LEN(EXAMPLES); i++) {
        size_t n = strlen(EXAMPLES[i].bytes);
        for (size_t cut = 1; cut < n; cut++) {
            char *copy = malloc(cut);
            struct slice found[4], key;
            cr_assert_not_null(copy);
            memcpy(copy, EXAMPLES[i].bytes, cut);
            struct message m = message_parse(slice_of(copy, cut));
            while (message_next_key(&m, &key)) {
            }
            (void)message_strings(slice_of(copy, cut), found, 4);
            free(copy);
        }
    }
}

Test(message, strings_of_an_array)
{
    struct slice s[2] = {{0}};
    cr_assert_eq(message_strings(SLICE("*2\r\n$1\r\na\r\n$2\r\nbc\r\n"), s, 2), 2);
    cr_assert(slice_eq(s[0], SLICE("a")) && slice_eq(s[1], SLICE("bc")));
    cr_assert_eq(message_strings(SLICE("*3\r\n$1\r\na\r\n$2\r\nbc\r\n$0\r\n\r\n"), s, 2), 3);
    cr_assert_eq(message_strings(SLICE("*0\r\n"), s, 2), 0);
    cr_assert_eq(message_strings(SLICE("*2\r\n$1\r\na\r\n:1\r\n"), s, 2), 0);
    cr_assert_eq(message_strings(SLICE("$1\r\na\r\n"), s, 2), 0);
}
