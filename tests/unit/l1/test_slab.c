/* SPDX-License-Identifier: Apache-2.0
 *
 * test_slab.c: the memory of entries: that it is what is charged, that pages go from one size to
 * another, that what is moved meanwhile is still found; and readers: what one may have seen is not
 * used again before it rests.
 */
#include "cache.h"

#include <stdio.h>
#include <unistd.h>

#define MB ((size_t)1 << 20)

static char text[64 * 1024];

/* Value of n bytes as it is sent, of a key that is its number. */
static void put_size(struct cache *c, unsigned int i, size_t n, int64_t now)
{
    char key[16];
    struct reader r = {0};
    snprintf(key, sizeof(key), "k%u", i);
    if (get(c, &r, key, now) == L1_OWNER) {
        size_t head = (size_t)snprintf(text, sizeof(text), "$%zu\r\n", n);
        memset(text + head, 'v', n);
        memcpy(text + head + n, "\r\n", 2);
        struct l1_value v = {.encoded = slice_of(text, head + n + 2), .ttl_ms = TTL};
        l1_fill(c->l1, &r.lease, &v, now);
    }
    empty_out(c);
}

#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed */
static size_t resident(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    cr_assert(f != NULL && fscanf(f, "%*d %ld", &pages) == 1);
    fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

Test(slab, resident_memory_stays_within_its_bound_whatever_the_sizes)
{
    static const size_t sizes[] = {8, 200, 1500, 64, 7000, 30, 3000, 100};
    struct cache c = cache_of(16 * MB, 16000);
    size_t before = resident();
    unsigned int key = 0;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (size_t written = 0; written < 24 * MB; written += sizes[i] + 40) {
            put_size(&c, key, sizes[i] / 2 + key % (sizes[i] / 2 + 1), 10);
            key++;
        }
        size_t grown = resident() - before;
        cr_expect(grown <= 16 * MB + MB / 2, "%zu after sizes to %zu", grown, sizes[i]);
        cr_expect(stats_of(&c).bytes <= 16 * MB);
        cr_expect(stats_of(&c).bytes >= 15 * MB);
    }
    cr_expect(stats_of(&c).refusals == 0);
    cache_close(&c);
}

Test(slab, item_of_16_and_64_bytes_takes_126_bytes_at_most)
{
    enum { ITEMS = 200000 };
    struct cache c = cache_of(32 * MB, 16000);
    char key[24];
    size_t before = resident();
    for (unsigned int i = 0; i < ITEMS; i++) {
        struct reader r = {0};
        snprintf(key, sizeof(key), "key:%012u", i);
        cr_assert(get(&c, &r, key, 10) == L1_OWNER);
        fill(&c, &r, "$64\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n",
             10);
    }
    cr_expect(stats_of(&c).items == ITEMS);
    size_t grown = resident() - before;
    cr_expect(grown <= (size_t)ITEMS * 126, "%zu", grown / ITEMS);
    cache_close(&c);
}
#endif

Test(slab, pages_go_from_one_size_to_another)
{
    static const size_t sizes[] = {30, 1000, 30, 4000, 200};
    struct cache c = cache_of(MB, 16000);
    unsigned int key = 0;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (size_t written = 0; written < 3 * MB; written += sizes[i]) {
            put_size(&c, key++, sizes[i], 10);
        }
        uint64_t items = stats_of(&c).items;
        size_t each = sizes[i] + 64;
        cr_expect(items * each > MB * 65 / 100, "%zu of %zu bytes", (size_t)items, sizes[i]);
    }
    cr_expect(stats_of(&c).refusals == 0);
    cache_close(&c);
}

Test(slab, what_is_read_again_and_again_survives_being_moved)
{
    struct cache c = cache_of(MB, 16000);
    char key[16];
    for (unsigned int i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "hot%u", i);
        put(&c, key, key, 10);
    }
    for (unsigned int i = 0; i < 20000; i++) {
        put_size(&c, i, 30 + (size_t)(i / 4000) * 300 + i % 50, 10);
        snprintf(key, sizeof(key), "hot%u", i % 200);
        cr_assert(holds_text(&c, key, key, 11), "%s after %u", key, i);
    }
    cr_expect(stats_of(&c).evictions > 10000);
    cache_close(&c);
}

Test(slab, value_comes_back_as_it_was_sent)
{
    static const char *const values[] = {
        "$0\r\n\r\n", "$3\r\nfoo\r\n", "$03\r\nfoo\r\n", "$4\r\nfoo\r\n", "$3\r\nfoo\n\r", "$", "",
        "$-1\r\n",    "foo",           "$1\r\n\n\r\n",   "$\r\n\r\n",
    };
    struct cache c = cache_open();
    char key[16];
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        snprintf(key, sizeof(key), "%zu", i);
        put(&c, key, values[i], 10);
        cr_expect(holds_text(&c, key, values[i], 11), "row %zu", i);
        struct slice same = slice_str(values[i]);
        l1_observe_value(c.l1, hash_of(&c, key), 0, same);
        cr_expect(holds(&c, key, 11), "row %zu is what it is", i);
        l1_observe_value(c.l1, hash_of(&c, key), 0, SLICE("$3\r\nbar\r\n"));
        cr_expect(!holds(&c, key, 11), "row %zu is something else", i);
    }
    cache_close(&c);
}

Test(slab, every_length_of_value_comes_back)
{
    struct cache c = cache_of(8 * MB, 64 * 1024);
    static char expected[64 * 1024];
    for (size_t n = 0; n < 40000; n += n < 1100 ? 1 : 977) {
        size_t head = (size_t)snprintf(expected, sizeof(expected), "$%zu\r\n", n);
        memset(expected + head, (int)('a' + n % 26), n);
        memcpy(expected + head + n, "\r\n", 3);
        put(&c, "k", expected, 10);
        cr_assert(hits(&c, "k", 11), "%zu", n);
        cr_assert(c.out.bytes == head + n + 2);
        chain_take(&c.out, text);
        cr_assert(memcmp(text, expected, head + n + 2) == 0, "%zu", n);
        invalidate(&c, "k");
    }
    cache_close(&c);
}

Test(slab, key_too_long_for_a_slot_passes)
{
    struct cache c = cache_of(MB, 64 * 1024);
    static char key[8 * 1024];
    struct reader r = {0};
    memset(key, 'k', sizeof(key) - 1);
    cr_expect(get(&c, &r, key, 10) == L1_PASS);
    key[1000] = '\0';
    put(&c, key, "v", 10);
    cr_expect(holds_text(&c, key, "v", 11));
    cache_close(&c);
}

/* ---- Readers ------------------------------------------------------------------------------- */

Test(slab, nothing_a_reader_may_see_is_used_again_before_it_rests)
{
    struct cache c = cache_of(MB, 16000);
    for (unsigned int i = 0; i < 4000; i++) {
        put_size(&c, i, 200, 10);
    }
    struct l1_reader *none = NULL;
    struct l1_reader *under_way = c.reader;
    cr_assert(!peeks(&c, "k", 10));
    c.reader = none; /* the puts are another thread's */
    uint64_t kept = stats_of(&c).fills;
    for (unsigned int i = 10000; i < 14000; i++) {
        put_size(&c, i, 200, 10);
    }
    cr_expect(stats_of(&c).refusals > 3000, "no memory comes back");
    cr_expect(stats_of(&c).fills > kept, "the reserve does");
    cr_expect(stats_of(&c).items > 2000, "and the rest is left alone");
    cr_expect(stats_of(&c).bytes <= MB);
    l1_reader_rest(under_way);
    uint64_t refused = stats_of(&c).refusals;
    for (unsigned int i = 20000; i < 24000; i++) {
        put_size(&c, i, 200, 10);
    }
    cr_expect(stats_of(&c).refusals == refused);
    c.reader = under_way;
    cache_close(&c);
}

Test(slab, a_reader_that_looks_again_sees_every_change_made_while_it_was_under_way)
{
    struct cache c = cache_open();
    put(&c, "k", "old", 10);
    cr_assert(peeks(&c, "k", 11));
    invalidate(&c, "k");
    cr_assert(!peeks(&c, "k", 12));
    l1_reader_rest(c.reader);
    empty_out(&c);
    cache_close(&c);
}

Test(slab, sweep_takes_back_what_was_dropped_when_readers_rest)
{
    struct cache c = cache_of(MB, 64 * 1024);
    memset(text, 'x', 40000);
    text[40000] = '\0';
    put(&c, "k", text, 10);
    uint64_t with = stats_of(&c).bytes;
    cr_assert(peeks(&c, "k", 11));
    empty_out(&c);
    invalidate(&c, "k");
    l1_sweep(c.l1, 10, 12);
    cr_expect(stats_of(&c).bytes == with, "a reader may stand on it");
    l1_reader_rest(c.reader);
    l1_sweep(c.l1, 10, 13);
    cr_expect(stats_of(&c).bytes + 40000 <= with);
    cache_close(&c);
}
