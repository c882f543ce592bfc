/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bytes.c: slices as values and numbers, blobs and their counter. The numbers are a table:
 * what Redis's string2ll takes and what it refuses. Memory failures are injected per thread and
 * switched off again in the same test.
 */
#include "../../../resp/bytes.h"

#include "../../../conf/mem.h"

#include <criterion/criterion.h>
#include <pthread.h>

static bool parses(struct slice s, int64_t *value)
{
    *value = 4711;
    return slice_to_int64(s, value);
}

Test(bytes, slices_are_equal_when_length_and_bytes_are)
{
    cr_assert(slice_eq(SLICE("a\0b"), slice_of("a\0b", 3)));
    cr_assert(!slice_eq(SLICE("a\0b"), SLICE("a\0c")));
    cr_assert(!slice_eq(SLICE("ab"), SLICE("abc")));
    cr_assert(slice_eq(SLICE(""), slice_str("")));
}

Test(bytes, names_compare_without_case)
{
    cr_assert(slice_eq_nocase(SLICE("GeT"), slice_str("gEt")));
    cr_assert(!slice_eq_nocase(SLICE("get"), SLICE("gets")));
    cr_assert(!slice_eq_nocase(SLICE("get"), SLICE("set")));
}

Test(bytes, a_number_is_read_over_the_whole_range)
{
    static const struct {
        const char *text;
        int64_t value;
    } rows[] = {
        {"0", 0},
        {"1", 1},
        {"-1", -1},
        {"9", 9},
        {"10", 10},
        {"-10", -10},
        {"2147483648", 2147483648},
        {"999999999999999999", 999999999999999999},
        {"9223372036854775807", INT64_MAX},
        {"-9223372036854775807", -INT64_MAX},
        {"-9223372036854775808", INT64_MIN},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t value;
        cr_expect(parses(slice_str(rows[i].text), &value), "%s", rows[i].text);
        cr_expect(value == rows[i].value, "%s", rows[i].text);
    }
}

Test(bytes, what_is_no_number_is_refused_and_changes_nothing)
{
    static const char *const rows[] = {
        "",
        "-",
        "+1",
        "00",
        "01",
        "-0",
        "-01",
        " 1",
        "1 ",
        "1a",
        "a",
        "--1",
        "1-",
        "0x10",
        "1e3",
        "1.0",
        "\xff",
        "9223372036854775808",
        "-9223372036854775809",
        "18446744073709551616",
        "18446744073709551617",
        "99999999999999999999",
        "-99999999999999999999",
        "100000000000000000000000",
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t value;
        cr_expect(!parses(slice_str(rows[i]), &value), "%s", rows[i]);
        cr_expect(value == 4711, "%s", rows[i]);
    }
    int64_t value;
    cr_expect(!parses(SLICE("1\0"), &value));
}

Test(bytes, a_number_ends_where_its_slice_ends)
{
    int64_t value;
    cr_assert(parses(slice_of("1234", 2), &value));
    cr_assert_eq(value, 12);
}

Test(bytes, a_blob_has_the_bytes_asked_for_and_one_reference)
{
    struct blob *b = blob_try(100);
    cr_assert_not_null(b);
    cr_assert_eq(b->n, 100);
    cr_assert_eq(atomic_load(&b->refs), 1);
    memset(b->p, 'x', b->n);
    blob_unref(b);
}

Test(bytes, a_blob_may_be_empty)
{
    struct blob *b = blob_try_copy(slice_of(NULL, 0));
    cr_assert_not_null(b);
    cr_assert_eq(b->n, 0);
    blob_unref(b);
}

Test(bytes, a_copy_is_independent_of_its_source)
{
    char source[] = "hello";
    struct blob *b = blob_try_copy(slice_of(source, 5));
    cr_assert_not_null(b);
    source[0] = 'J';
    cr_assert(slice_eq(slice_of(b->p, b->n), SLICE("hello")));
    blob_unref(b);
}

Test(bytes, absurd_lengths_are_refused)
{
    static const size_t rows[] = {SIZE_MAX, SIZE_MAX - sizeof(struct blob), (size_t)PTRDIFF_MAX};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        cr_expect_null(blob_try(rows[i]));
    }
}

Test(bytes, no_memory_means_no_blob)
{
    mem_fail_after(0);
    struct blob *a = blob_try(10);
    struct blob *b = blob_try_copy(SLICE("hello"));
    mem_fail_after(-1);
    cr_assert_null(a);
    cr_assert_null(b);
}

Test(bytes, a_reference_keeps_a_blob_alive)
{
    struct blob *b = blob_try_copy(SLICE("hello"));
    cr_assert_not_null(b);
    cr_assert_eq(blob_ref(b), b);
    cr_assert_eq(atomic_load(&b->refs), 2);
    blob_unref(b);
    cr_assert_eq(atomic_load(&b->refs), 1);
    cr_assert(slice_eq(slice_of(b->p, b->n), SLICE("hello")));
    blob_unref(b);
}

Test(bytes, copies_of_every_length_are_whole_and_no_longer)
{
    char from[100];
    for (size_t i = 0; i < sizeof(from); i++) {
        from[i] = (char)('!' + i % 90);
    }
    for (size_t n = 0; n <= sizeof(from); n++) {
        char key[sizeof(from) + 1];
        char value[sizeof(from) + 1];
        memset(key, '-', sizeof(key));
        memset(value, '-', sizeof(value));
        copy_key(key, from, n);
        copy_value(value, from, n);
        cr_expect(memcmp(key, from, n) == 0 && key[n] == '-', "%zu", n);
        cr_expect(memcmp(value, from, n) == 0 && value[n] == '-', "%zu", n);
    }
}

Test(bytes, no_blob_can_be_dropped)
{
    blob_unref(NULL);
}

static void *take_and_drop(void *blob)
{
    for (int i = 0; i < 20000; i++) {
        blob_unref(blob_ref(blob));
    }
    blob_unref(blob);
    return NULL;
}

Test(bytes, references_are_counted_across_threads)
{
    struct blob *b = blob_try_copy(SLICE("shared"));
    cr_assert_not_null(b);
    pthread_t threads[3];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, take_and_drop, blob_ref(b)), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(atomic_load(&b->refs), 1);
    blob_unref(b);
}
