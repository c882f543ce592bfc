/* SPDX-License-Identifier: Apache-2.0
 *
 * test_chain.c: the queue of outgoing bytes. Most tests drain a chain through chain_iov and compare
 * the bytes; the accounting is checked by bringing `memory` back to where it was. One test does
 * pseudo-random operations against a plain array of bytes as a model.
 */
#include "../../../resp/chain.h"

#include "../../../conf/mem.h"

#include <criterion/criterion.h>
#include <stdlib.h>

/* All queued bytes, malloced, without consuming them. */
static char *gather(const struct chain *c)
{
    static struct iovec iov[4096];
    int n = chain_iov(c, iov, (int)ARRAY_LEN(iov));
    char *all = malloc(c->bytes + 1);
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        cr_assert_gt(iov[i].iov_len, 0, "an iovec entry without bytes");
        cr_assert_leq(at + iov[i].iov_len, c->bytes);
        memcpy(all + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    cr_assert_eq(at, c->bytes);
    return all;
}

static bool holds(const struct chain *c, struct slice want)
{
    char *all = gather(c);
    bool same = slice_eq(slice_of(all, c->bytes), want);
    free(all);
    return same;
}

static void expect_empty(const struct chain *c)
{
    struct iovec iov;
    cr_expect_eq(c->bytes, 0);
    cr_expect_eq(c->memory, 0);
    cr_expect_null(c->head);
    cr_expect_null(c->tail);
    cr_expect_eq(chain_iov(c, &iov, 1), 0);
}

static char *pattern(size_t n)
{
    char *p = malloc(n);
    for (size_t i = 0; i < n; i++) {
        p[i] = (char)('a' + i % 23);
    }
    return p;
}

static struct blob *blob_of(size_t n)
{
    char *p = pattern(n);
    struct blob *b = blob_try_copy(slice_of(p, n));
    cr_assert_not_null(b);
    free(p);
    return b;
}

static int entries(const struct chain *c)
{
    struct iovec iov[64];
    return chain_iov(c, iov, (int)ARRAY_LEN(iov));
}

Test(chain, a_new_one_is_empty_and_holds_no_memory)
{
    struct chain c;
    chain_init(&c);
    expect_empty(&c);
    chain_fini(&c);
    expect_empty(&c);
}

Test(chain, appended_bytes_come_out_in_order)
{
    struct chain c;
    chain_init(&c);
    cr_assert(chain_append(&c, SLICE("one ")));
    cr_assert(chain_append(&c, SLICE("")));
    cr_assert(chain_append(&c, SLICE("two")));
    cr_assert(holds(&c, SLICE("one two")));
    cr_assert_eq(c.bytes, 7);
    cr_assert_geq(c.memory, 7);
    cr_assert_eq(entries(&c), 1);
    chain_fini(&c);
    expect_empty(&c);
}

Test(chain, appending_nothing_takes_no_memory)
{
    struct chain c;
    struct blob *b = blob_of(4);
    chain_init(&c);
    cr_assert(chain_append(&c, SLICE("")));
    cr_assert(chain_append_blob(&c, b, 4, 0));
    expect_empty(&c);
    cr_assert_eq(atomic_load(&b->refs), 1);
    blob_unref(b);
}

Test(chain, it_is_usable_after_fini)
{
    struct chain c;
    chain_init(&c);
    cr_assert(chain_append(&c, SLICE("gone")));
    chain_fini(&c);
    cr_assert(chain_append(&c, SLICE("back")));
    cr_assert(holds(&c, SLICE("back")));
    chain_fini(&c);
}

Test(chain, segments_grow_from_512_bytes_to_16_kib)
{
    struct chain c;
    chain_init(&c);
    cr_assert(chain_append(&c, SLICE("x")));
    cr_assert_leq(c.memory, 1024);
    for (int i = 1; i < 200 * 1000; i++) {
        cr_assert(chain_append(&c, SLICE("x")));
    }
    /* 512 + 1K + 2K + 4K + 8K, then 16K each: twelve for what is left, and nothing much larger. */
    cr_assert_leq(entries(&c), 5 + 13);
    cr_assert_geq(entries(&c), 5 + 11);
    cr_assert_leq(c.memory, c.bytes + 24000);
    chain_fini(&c);
    expect_empty(&c);
}

Test(chain, a_segment_is_filled_before_the_next_one_starts)
{
    struct chain c;
    chain_init(&c);
    char *p = pattern(300);
    cr_assert(chain_append(&c, slice_of(p, 300)));
    size_t first = c.memory;
    cr_assert(chain_append(&c, slice_of(p, 300)));
    struct iovec iov[2];
    cr_assert_eq(chain_iov(&c, iov, 2), 2);
    cr_assert_gt(iov[0].iov_len, 400);
    cr_assert_gt(c.memory, first);
    chain_fini(&c);
    free(p);
}

Test(chain, any_amount_can_be_reserved_in_one_piece)
{
    static const size_t sizes[] = {1, 455, 456, 457, 512, 16383, 16384, 16385, 1 << 20};
    struct chain c;
    chain_init(&c);
    size_t total = 0;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        char *at = chain_reserve(&c, sizes[i]);
        cr_assert_not_null(at);
        memset(at, 'a' + (int)i, sizes[i]);
        chain_commit(&c, sizes[i]);
        total += sizes[i];
    }
    cr_assert_eq(c.bytes, total);
    char *all = gather(&c);
    const char *at = all;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (size_t j = 0; j < sizes[i]; j++) {
            cr_assert_eq(*at, 'a' + (char)i);
            at++;
        }
    }
    free(all);
    chain_fini(&c);
    expect_empty(&c);
}

Test(chain, less_may_be_committed_than_was_reserved)
{
    struct chain c;
    chain_init(&c);
    char *at = chain_reserve(&c, 100);
    cr_assert_not_null(at);
    memcpy(at, "abc", 3);
    chain_commit(&c, 3);
    cr_assert(chain_append(&c, SLICE("def")));
    cr_assert(holds(&c, SLICE("abcdef")));
    chain_fini(&c);
}

Test(chain, a_reservation_that_comes_to_nothing_leaves_nothing)
{
    struct chain c;
    chain_init(&c);
    cr_assert_not_null(chain_reserve(&c, 100));
    chain_commit(&c, 0);
    expect_empty(&c);

    cr_assert(chain_append(&c, SLICE("abc")));
    cr_assert_not_null(chain_reserve(&c, 20000));
    chain_commit(&c, 0);
    cr_assert(holds(&c, SLICE("abc")));
    cr_assert(chain_append(&c, SLICE("def")));
    chain_consume(&c, 3);
    cr_assert(holds(&c, SLICE("def")));
    chain_consume(&c, 3);
    expect_empty(&c);
}

Test(chain, absurd_reservations_are_refused)
{
    struct chain c;
    chain_init(&c);
    cr_assert_null(chain_reserve(&c, SIZE_MAX));
    cr_assert_null(chain_reserve(&c, SIZE_MAX - 64));
    expect_empty(&c);
}

Test(chain, a_blob_is_sent_from_where_it_lies)
{
    struct chain c;
    chain_init(&c);
    struct blob *b = blob_of(100000);
    cr_assert(chain_append(&c, SLICE("head")));
    size_t before = c.memory;
    cr_assert(chain_append_blob(&c, b, 10, 50000));
    cr_assert(chain_append(&c, SLICE("tail")));
    struct iovec iov[3];
    cr_assert_eq(chain_iov(&c, iov, 3), 3);
    cr_assert_eq(iov[1].iov_base, b->p + 10);
    cr_assert_eq(iov[1].iov_len, 50000);
    cr_assert_geq(c.memory, before + mem_usable(b), "the blob counts whole");
    cr_assert_eq(atomic_load(&b->refs), 2);
    chain_fini(&c);
    expect_empty(&c);
    cr_assert_eq(atomic_load(&b->refs), 1);
    blob_unref(b);
}

Test(chain, a_blob_is_let_go_once_it_is_consumed)
{
    struct chain c;
    chain_init(&c);
    struct blob *b = blob_of(1000);
    cr_assert(chain_append_blob(&c, b, 0, 1000));
    cr_assert(chain_append(&c, SLICE("rest")));
    chain_consume(&c, 999);
    cr_assert_eq(atomic_load(&b->refs), 2);
    chain_consume(&c, 1);
    cr_assert_eq(atomic_load(&b->refs), 1);
    cr_assert(holds(&c, SLICE("rest")));
    chain_fini(&c);
    blob_unref(b);
}

Test(chain, what_follows_a_blob_starts_small_again)
{
    struct chain c;
    chain_init(&c);
    struct blob *b = blob_of(20000);
    char *p = pattern(15000);
    cr_assert(chain_append(&c, slice_of(p, 15000)));
    cr_assert(chain_append_blob(&c, b, 0, 20000));
    size_t before = c.memory;
    cr_assert(chain_append(&c, SLICE("\r\n")));
    cr_assert_leq(c.memory - before, 1024);
    chain_fini(&c);
    blob_unref(b);
    free(p);
}

Test(chain, a_small_splice_is_copied_into_the_tail)
{
    struct chain dst;
    struct chain src;
    chain_init(&dst);
    chain_init(&src);
    struct blob *b = blob_of(5);
    cr_assert(chain_append(&dst, SLICE("dst ")));
    cr_assert(chain_append(&src, SLICE("xxsrc ")));
    cr_assert(chain_append_blob(&src, b, 1, 3));
    chain_consume(&src, 2);
    size_t before = dst.memory;
    chain_splice(&dst, &src);
    expect_empty(&src);
    cr_assert(holds(&dst, SLICE("dst src bcd")));
    cr_assert_eq(dst.memory, before);
    cr_assert_eq(entries(&dst), 1);
    cr_assert_eq(atomic_load(&b->refs), 1);
    blob_unref(b);
    chain_fini(&dst);
    expect_empty(&dst);
}

Test(chain, a_large_splice_is_linked)
{
    struct chain dst;
    struct chain src;
    chain_init(&dst);
    chain_init(&src);
    struct blob *b = blob_of(20000);
    cr_assert(chain_append(&dst, SLICE("dst")));
    cr_assert(chain_append(&src, SLICE("src")));
    cr_assert(chain_append_blob(&src, b, 0, 20000));
    size_t memory = dst.memory + src.memory;
    chain_splice(&dst, &src);
    expect_empty(&src);
    cr_assert_eq(dst.bytes, 20006);
    cr_assert_eq(dst.memory, memory);
    cr_assert_eq(atomic_load(&b->refs), 2);
    struct iovec iov[3];
    cr_assert_eq(chain_iov(&dst, iov, 3), 3);
    cr_assert_eq(iov[2].iov_base, b->p);
    cr_assert(chain_append(&dst, SLICE("end")));
    chain_consume(&dst, 20006);
    cr_assert(holds(&dst, SLICE("end")));
    chain_fini(&dst);
    expect_empty(&dst);
    blob_unref(b);
}

Test(chain, splicing_into_an_empty_one_moves_everything)
{
    struct chain dst;
    struct chain src;
    chain_init(&dst);
    chain_init(&src);
    cr_assert(chain_append(&src, SLICE("abc")));
    size_t memory = src.memory;
    chain_splice(&dst, &src);
    expect_empty(&src);
    cr_assert(holds(&dst, SLICE("abc")));
    cr_assert_eq(dst.memory, memory);
    chain_splice(&dst, &src);
    cr_assert(holds(&dst, SLICE("abc")));
    chain_fini(&dst);
    expect_empty(&dst);
}

Test(chain, a_splice_works_without_memory)
{
    struct chain dst;
    struct chain src;
    chain_init(&dst);
    chain_init(&src);
    char *p = pattern(440);
    cr_assert(chain_append(&dst, slice_of(p, 440)));
    cr_assert(chain_append(&src, slice_of(p, 440)));
    mem_fail_after(0);
    chain_splice(&dst, &src);
    mem_fail_after(-1);
    cr_assert_eq(dst.bytes, 880);
    chain_fini(&dst);
    free(p);
}

Test(chain, rewind_drops_what_came_after_the_mark)
{
    struct chain c;
    chain_init(&c);
    struct blob *b = blob_of(20000);
    char *p = pattern(5000);
    cr_assert(chain_append(&c, SLICE("kept")));
    size_t memory = c.memory;
    struct chain_mark mark = chain_mark(&c);
    cr_assert(chain_append(&c, slice_of(p, 5000)));
    cr_assert(chain_append_blob(&c, b, 0, 20000));
    cr_assert(chain_append(&c, SLICE("more")));
    chain_rewind(&c, mark);
    cr_assert(holds(&c, SLICE("kept")));
    cr_assert_eq(c.memory, memory);
    cr_assert_eq(atomic_load(&b->refs), 1);
    cr_assert(chain_append(&c, SLICE(" on")));
    cr_assert(holds(&c, SLICE("kept on")));
    chain_rewind(&c, mark);
    chain_rewind(&c, mark);
    cr_assert(holds(&c, SLICE("kept")));
    chain_fini(&c);
    expect_empty(&c);
    blob_unref(b);
    free(p);
}

Test(chain, rewind_to_the_beginning_frees_everything)
{
    struct chain c;
    struct chain src;
    chain_init(&c);
    chain_init(&src);
    struct chain_mark mark = chain_mark(&c);
    cr_assert(chain_append(&src, SLICE("spliced")));
    chain_splice(&c, &src);
    cr_assert(chain_append(&c, SLICE("appended")));
    chain_rewind(&c, mark);
    expect_empty(&c);
}

Test(chain, rewind_behind_a_blob_keeps_the_blob)
{
    struct chain c;
    chain_init(&c);
    struct blob *b = blob_of(100);
    cr_assert(chain_append_blob(&c, b, 0, 100));
    struct chain_mark mark = chain_mark(&c);
    cr_assert(chain_append(&c, SLICE("x")));
    chain_rewind(&c, mark);
    cr_assert_eq(c.bytes, 100);
    cr_assert_eq(entries(&c), 1);
    chain_consume(&c, 100);
    expect_empty(&c);
    cr_assert_eq(atomic_load(&b->refs), 1);
    blob_unref(b);
}

Test(chain, iov_fills_no_more_than_it_may)
{
    struct chain c;
    chain_init(&c);
    struct blob *b = blob_of(10);
    for (int i = 0; i < 5; i++) {
        cr_assert(chain_append_blob(&c, b, (size_t)i, 1));
    }
    struct iovec iov[5] = {{0}};
    cr_assert_eq(chain_iov(&c, iov, 0), 0);
    cr_assert_eq(chain_iov(&c, iov, 3), 3);
    cr_assert_eq(iov[2].iov_base, b->p + 2);
    cr_assert_null(iov[3].iov_base);
    chain_fini(&c);
    blob_unref(b);
}

Test(chain, consuming_nothing_is_fine)
{
    struct chain c;
    chain_init(&c);
    chain_consume(&c, 0);
    expect_empty(&c);
    cr_assert(chain_append(&c, SLICE("abc")));
    chain_consume(&c, 0);
    cr_assert(holds(&c, SLICE("abc")));
    chain_fini(&c);
}

Test(chain, consumed_segments_give_their_memory_back_one_by_one)
{
    struct chain c;
    chain_init(&c);
    char *p = pattern(4000);
    cr_assert(chain_append(&c, slice_of(p, 100)));
    size_t small = c.memory;
    cr_assert(chain_append(&c, slice_of(p, 4000)));
    size_t all = c.memory;
    struct iovec iov[1];
    cr_assert_eq(chain_iov(&c, iov, 1), 1);
    size_t first = iov[0].iov_len;
    chain_consume(&c, first - 1);
    cr_assert_eq(c.memory, all);
    chain_consume(&c, 1);
    cr_assert_eq(c.memory, all - small);
    chain_consume(&c, c.bytes);
    expect_empty(&c);
    free(p);
}

Test(chain, without_memory_it_refuses_and_stays_as_it_was)
{
    struct chain c;
    chain_init(&c);
    struct blob *b = blob_of(100);
    char *p = pattern(5000);
    mem_fail_after(0);
    cr_assert_not(chain_append(&c, SLICE("abc")));
    cr_assert_null(chain_reserve(&c, 1));
    cr_assert_not(chain_append_blob(&c, b, 0, 100));
    expect_empty(&c);
    mem_fail_after(-1);

    cr_assert(chain_append(&c, SLICE("abc")));
    size_t memory = c.memory;
    mem_fail_after(0);
    cr_assert_not(chain_append(&c, slice_of(p, 5000)), "part of it would have fitted");
    cr_assert_null(chain_reserve(&c, 5000));
    cr_assert_not(chain_append_blob(&c, b, 0, 100));
    mem_fail_after(-1);
    cr_assert(holds(&c, SLICE("abc")));
    cr_assert_eq(c.memory, memory);
    cr_assert_eq(atomic_load(&b->refs), 1);
    chain_fini(&c);
    blob_unref(b);
    free(p);
}

Test(chain, sums_that_cannot_be_told_are_refused)
{
    struct blob *b = blob_of(100);
    struct chain c;
    chain_init(&c);
    c.bytes = SIZE_MAX - 99;
    cr_assert_not(chain_append_blob(&c, b, 0, 100));
    cr_assert(c.head == NULL && c.bytes == SIZE_MAX - 99);
    c.bytes = 0;
    c.memory = SIZE_MAX - 99;
    cr_assert_not(chain_append_blob(&c, b, 0, 100));
    cr_assert(c.head == NULL && c.memory == SIZE_MAX - 99);
    cr_assert_eq(atomic_load(&b->refs), 1);
    blob_unref(b);
}

Test(chain, nothing_may_be_reserved_behind_a_blob)
{
    struct blob *b = blob_of(100);
    struct chain c;
    chain_init(&c);
    cr_assert(chain_append_blob(&c, b, 0, 100));
    char *at = chain_reserve(&c, 0);
    cr_assert_not_null(at);
    cr_assert(at < b->p || at > b->p + b->n);
    chain_commit(&c, 0);
    cr_assert_eq(c.bytes, 100);
    chain_consume(&c, 100);
    expect_empty(&c);
    blob_unref(b);
}

Test(chain, it_behaves_like_one_long_array)
{
    enum { MODEL_MAX = 1 << 20 };
    char *model = malloc(MODEL_MAX);
    char *p = pattern(40000);
    struct blob *b = blob_of(40000);
    struct chain c;
    chain_init(&c);
    size_t from = 0;
    size_t to = 0;
    unsigned int seed = 12345;
    for (int step = 0; step < 3000; step++) {
        size_t n = (size_t)rand_r(&seed) % (rand_r(&seed) % 8 == 0 ? 40000 : 200);
        size_t off = (size_t)rand_r(&seed) % (40000 - n);
        struct chain_mark mark = chain_mark(&c);
        size_t memory = c.memory;
        struct chain src;
        if (to + n > MODEL_MAX) {
            chain_consume(&c, to - from);
            expect_empty(&c);
            from = to = 0;
            continue;
        }
        memcpy(model + to, p + off, n);
        switch (rand_r(&seed) % 6) {
        case 0:
            n = n < to - from ? n : to - from;
            chain_consume(&c, n);
            from += n;
            break;
        case 1:
            cr_assert(chain_append_blob(&c, b, off, n));
            to += n;
            break;
        case 2:
            chain_init(&src);
            cr_assert(chain_append(&src, slice_of(p + off, n / 2)));
            cr_assert(chain_append_blob(&src, b, off + n / 2, n - n / 2));
            chain_splice(&c, &src);
            to += n;
            break;
        case 3:
            cr_assert(chain_append(&c, slice_of(p, n)));
            cr_assert(chain_append_blob(&c, b, off, n));
            chain_rewind(&c, mark);
            cr_assert_eq(c.memory, memory);
            break;
        case 4: {
            char *at = chain_reserve(&c, n);
            cr_assert_not_null(at);
            memcpy(at, p + off, n);
            chain_commit(&c, n);
            to += n;
            break;
        }
        default:
            cr_assert(chain_append(&c, slice_of(p + off, n)));
            to += n;
        }
        if (step % 16 == 0) {
            cr_assert(holds(&c, slice_of(model + from, to - from)));
        }
    }
    cr_assert(holds(&c, slice_of(model + from, to - from)));
    chain_consume(&c, c.bytes);
    expect_empty(&c);
    cr_assert_eq(atomic_load(&b->refs), 1);
    blob_unref(b);
    free(p);
    free(model);
}

Test(chain, take_moves_everything_whatever_it_lies_in)
{
    struct chain c;
    char *text = pattern(100000);
    char taken[200001];
    struct blob *blob = blob_try_copy(slice_of(text, 100000));

    chain_init(&c);
    chain_take(&c, taken); /* nothing */
    cr_assert(chain_append(&c, slice_of(text, 70000)));
    cr_assert(chain_append_blob(&c, blob, 70000, 30000));
    cr_assert(chain_append(&c, slice_of(text, 100000)));
    taken[200000] = 'x';
    chain_take(&c, taken);
    cr_assert(memcmp(taken, text, 100000) == 0 && memcmp(taken + 100000, text, 100000) == 0);
    cr_assert_eq(taken[200000], 'x');
    expect_empty(&c);
    blob_unref(blob);
    free(text);
}

Test(chain, take_blob_moves_all_or_nothing)
{
    struct chain c;
    chain_init(&c);
    cr_assert(chain_append(&c, SLICE("abc")));
    mem_fail_after(0);
    struct blob *none = chain_take_blob(&c);
    mem_fail_after(-1);
    cr_assert_null(none);
    cr_assert_eq(c.bytes, 3);
    struct blob *blob = chain_take_blob(&c);
    cr_assert_not_null(blob);
    cr_assert_eq(blob->n, 3);
    cr_assert(memcmp(blob->p, "abc", 3) == 0);
    expect_empty(&c);
    blob_unref(blob);
}
