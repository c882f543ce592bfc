/* SPDX-License-Identifier: Apache-2.0
 *
 * test_plain.c: parse_plain, which must take nothing that parse_request does not take, and as that.
 */
#include "../../../resp/parse.h"

#include "../../../conf/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* Each alone, behind one that is alike and behind one that is not: the same size every time. */
static size_t plain_size(struct slice in, struct plain *plain)
{
    static const char *const before[] = {"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
                                         "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n",
                                         "*2\r\n$10\r\nGETLENGTHS\r\n$1\r\nk\r\n"};
    *plain = (struct plain){.head = 0};
    size_t n = parse_plain(in, plain);
    for (size_t i = 0; i < ARRAY_LEN(before); i++) {
        struct plain other = {.head = 0};
        char both[512];
        size_t first = strlen(before[i]);
        cr_assert_leq(first + in.n, sizeof(both));
        memcpy(both, before[i], first);
        memcpy(both + first, in.p, in.n);
        cr_assert_eq(parse_plain(slice_of(both, first + in.n), &other), first);
        cr_expect_eq(parse_plain(slice_of(both + first, in.n), &other), n, "behind %zu", i);
        cr_expect(n == 0 || (slice_eq(other.key, plain->key) && other.args == plain->args));
        cr_expect(n == 0 || other.same || slice_eq(other.name, plain->name));
        cr_expect(n == 0 || !other.same || memcmp(both, in.p, other.head) == 0);
    }
    return n;
}

/* plain_view against what parse_request made of the same request. */
static void expect_view(const struct plain *plain, const struct request_view *want)
{
    struct request_view view;
    plain_view(plain, &view);
    cr_expect_eq(view.size, want->size);
    cr_expect(slice_eq(view.raw, want->raw));
    cr_expect_eq(view.argc, want->argc);
    cr_assert_eq(view.nargv, want->nargv);
    for (int i = 0; i < view.nargv; i++) {
        cr_expect_eq(view.argv[i].p, want->argv[i].p, "argument %d", i);
        cr_expect_eq(view.argv[i].n, want->argv[i].n, "argument %d", i);
    }
    cr_expect_null(view.inline_blob);
}

/* Whatever parse_plain takes, parse_request takes for the same request; and it takes the usual form. */
Test(plain, request_is_what_parse_request_says_it_is)
{
    static const struct {
        const char *text;
        bool plain;
    } requests[] = {
        {"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", true},
        {"*2\r\n$3\r\nGET\r\n$2\r\nkk\r\n", true},
        {"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$0\r\n\r\n", true},
        {"*3\r\n$3\r\nset\r\n$3\r\nkey\r\n$2\r\n\r\n\r\n", true},
        {"*2\r\n$1\r\nX\r\n$0\r\n\r\n", true},
        {"*9\r\n$1\r\nX\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n$1\r\n4\r\n$1\r\n5\r\n$1\r\n6\r\n"
         "$1\r\n7\r\n$1\r\n8\r\n",
         true},
        {"*2\r\n$10\r\nGETLENGTHS\r\n$1\r\nk\r\n", true},
        {"*1\r\n$4\r\nPING\r\n$4\r\nPING\r\n", false},
        {"*10\r\n$3\r\nGET\r\n$1\r\nk\r\n", false},
        {"*2\r\n$0\r\n\r\n$1\r\nk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$01\r\nk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$00\r\n\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$-1\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$1\r\nkk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$1\r\nk\rx", false},
        {"*2\r\n$3\r\nGET\r\n$1\nk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$\r\nk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n$:\r\n0123456789\r\n", false},
        {"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$A\r\n0123456789abcdefg\r\n", false},
        {"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1:\r\n0123456789abcdefghij\r\n", false},
        {"*2\r\n$:\r\n0123456789\r\n$1\r\nk\r\n", false},
        {"*2\r\n$3\r\nGETX$1\r\nk\r\n", false},
        {"*2\n\n$3\r\nGET\r\n$1\r\nk\r\n", false},
        {"*2\r\n$3\r\nGET\r\n:1\r\nk\r\n", false},
        {"GET k\r\n                       ", false},
        {"", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        struct slice in = slice_str(requests[i].text);
        struct plain plain;
        struct parser p;
        struct request_view view;
        size_t n = plain_size(in, &plain);
        cr_expect_eq(n, requests[i].plain ? in.n : 0, "%zu: %zu", i, n);
        if (n == 0) {
            continue;
        }
        parser_init(&p);
        cr_assert(parse_request(&p, in, &view) == PARSE_OK);
        cr_expect_eq(view.size, n);
        cr_expect_eq(view.argc, plain.args + 1);
        cr_expect(slice_eq(view.argv[0], plain.name) && slice_eq(view.argv[1], plain.key));
        expect_view(&plain, &view);
        for (size_t cut = 0; cut < in.n; cut++) { /* exactly so much memory, for ASan */
            char *part = mem_alloc(cut + 1);
            memcpy(part, in.p, cut);
            plain = (struct plain){.head = 0};
            cr_expect_eq(parse_plain(slice_of(part, cut), &plain), 0, "%zu of %zu", cut, i);
            mem_free(part);
        }
    }
}

/* Behind a request of the same shape only what lies between the arguments is looked at: all of that is. */
Test(plain, request_behind_one_of_its_shape_is_looked_at_byte_for_byte)
{
    static const char *const requests[] = {
        "*3\r\n$3\r\nSET\r\n$4\r\nkey1\r\n$5\r\nvalue\r\n",
        "*2\r\n$3\r\nGET\r\n$12\r\nkey:00000001\r\n",
        "*3\r\n$6\r\nGETSET\r\n$4\r\nkey1\r\n$110\r\n"
        "01234567890123456789012345678901234567890123456789012345678901234567890123456789"
        "012345678901234567890123456789\r\n",
        "*4\r\n$5\r\nSETEX\r\n$1\r\nk\r\n$2\r\n10\r\n$0\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        size_t n = strlen(requests[i]);
        for (size_t at = 0; at < n; at++) {
            for (int to = 0; to < 256; to++) {
                char both[512];
                struct plain plain = {.head = 0};
                struct plain alone = {.head = 0};
                memcpy(both, requests[i], n);
                memcpy(both + n, requests[i], n);
                both[n + at] = (char)to;
                cr_assert_eq(parse_plain(slice_of(both, 2 * n), &plain), n);
                size_t size = parse_plain(slice_of(both + n, n), &plain);
                cr_assert_eq(size, parse_plain(slice_of(both + n, n), &alone), "%zu, %zu: %d", i,
                             at, to);
                cr_assert(size == 0 ||
                          (slice_eq(plain.key, alone.key) && plain.key.p == alone.key.p &&
                           slice_eq(plain.name, alone.name)));
            }
        }
        char *cut = mem_alloc(2 * n - 1); /* the second one lacks its last byte */
        struct plain plain = {.head = 0};
        memcpy(cut, requests[i], n);
        memcpy(cut + n, requests[i], n - 1);
        cr_assert_eq(parse_plain(slice_of(cut, 2 * n - 1), &plain), n);
        cr_expect_eq(parse_plain(slice_of(cut + n, n - 1), &plain), 0);
        mem_free(cut);
    }
}

Test(plain, argument_of_up_to_9999_bytes_is_plain)
{
    static char text[16 * 1024];
    static char value[10 * 1024 + 16];
    for (size_t n = 1; n <= 10001; n += n < 120 ? 1 : 9) {
        struct plain plain = {.head = 0};
        memset(value, 'v', n);
        value[n] = '\0';
        int size = snprintf(text, sizeof(text), "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%zu\r\n%s\r\nrest",
                            n, value);
        size_t got = parse_plain(slice_str(text), &plain);
        cr_expect_eq(got, n < 10000 ? (size_t)size - 4 : 0, "%zu", n);
    }
}
