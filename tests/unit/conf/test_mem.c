/* SPDX-License-Identifier: Apache-2.0
 *
 * The allocator's contract, in whichever build it is compiled into: mimalloc or, under sanitizers,
 * libc. What ends the process is run in a child of its own, whose last words are read.
 */
#include "../../../conf/mem.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <hiredis/alloc.h>
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

/* Runs act in a child and reads what it says; returns the signal that ended it. */
static int last_words(void (*act)(void), char *text, size_t size)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDERR_FILENO);
        act();
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t got;
    while ((got = read(ends[0], text + n, size - 1 - n)) > 0) {
        n += (size_t)got;
    }
    text[n] = '\0';
    close(ends[0]);
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

Test(mem, a_block_holds_as_many_bytes_as_asked_for)
{
    for (size_t n = 0; n < 70000; n = 2 * n + 1) {
        char *p = mem_alloc(n);
        cr_assert_not_null(p);
        memset(p, 0x5a, n);
        cr_assert_geq(mem_usable(p), n);
        mem_free(p);
    }
}

Test(mem, zeroed_blocks_are_zero)
{
    for (int round = 0; round < 100; round++) {
        unsigned char *a = mem_zalloc(333);
        unsigned char *b = mem_try_zero(333);
        cr_assert_not_null(b);
        for (size_t i = 0; i < 333; i++) {
            cr_assert_eq(a[i], 0);
            cr_assert_eq(b[i], 0);
        }
        memset(a, 0xff, 333);
        memset(b, 0xff, 333);
        mem_free(a);
        mem_free(b);
    }
}

Test(mem, strdup_copies_with_the_nul)
{
    char text[] = "near";
    char *copy = mem_strdup(text);
    text[0] = 'X';
    cr_assert_str_eq(copy, "near");
    mem_free(copy);
}

static size_t absurd(void)
{
    volatile size_t n = SIZE_MAX - 4096; /* so that no compiler sees it coming */
    return n;
}

static void alloc_absurd(void)
{
    mem_free(mem_alloc(absurd()));
}

static void zalloc_absurd(void)
{
    mem_free(mem_zalloc(absurd()));
}

Test(mem, alloc_dies_with_a_message_when_memory_is_out)
{
    char text[256];
    cr_assert_eq(last_words(alloc_absurd, text, sizeof(text)), SIGABRT);
    cr_assert_not_null(strstr(text, "out of memory"), "%s", text);
    cr_assert_eq(last_words(zalloc_absurd, text, sizeof(text)), SIGABRT);
    cr_assert_not_null(strstr(text, "out of memory"), "%s", text);
}

static void trip_bug_on(void)
{
    int two = 2;
    bug_on(two == 2);
}

Test(mem, bug_on_dies_with_file_and_line)
{
    char text[256];
    cr_assert_eq(last_words(trip_bug_on, text, sizeof(text)), SIGABRT);
    cr_assert_not_null(strstr(text, "two == 2"), "%s", text);
    cr_assert_not_null(strstr(text, "test_mem.c:"), "%s", text);
    cr_assert_eq(text[strlen(text) - 1], '\n');
}

static void bug_with_a_long_text(void)
{
    char what[1000];
    memset(what, 'w', sizeof(what) - 1);
    what[sizeof(what) - 1] = '\0';
    bug_found(what, "file", 1);
}

Test(mem, a_bug_with_a_long_text_is_cut)
{
    char text[4096];
    cr_assert_eq(last_words(bug_with_a_long_text, text, sizeof(text)), SIGABRT);
    cr_assert_lt(strlen(text), 300);
    cr_assert_not_null(strstr(text, "www"));
}

Test(mem, try_returns_null_for_what_nobody_can_give)
{
    cr_assert_null(mem_try(absurd()));
    cr_assert_null(mem_try_zero(absurd()));
    char *p = mem_try(8);
    cr_assert_not_null(p);
    strcpy(p, "kept");
    cr_assert_null(mem_try_resize(p, absurd()));
    cr_assert_str_eq(p, "kept");
    mem_free(p);
}

Test(mem, resize_keeps_the_content)
{
    char *p = mem_try_resize(NULL, 5);
    cr_assert_not_null(p);
    strcpy(p, "four");
    for (size_t n = 8; n < 100000; n *= 3) {
        char *q = mem_try_resize(p, n);
        cr_assert_not_null(q);
        p = q;
        cr_assert_str_eq(p, "four");
        cr_assert_geq(mem_usable(p), n);
    }
    mem_free(p);
}

Test(mem, resize_to_nothing_is_no_failure)
{
    char *p = mem_try(100);
    char *q = mem_try_resize(p, 0);
    cr_assert_not_null(q); /* NULL would mean that p is still there */
    mem_free(q);
}

Test(mem, resize_that_fails_leaves_the_block_alone)
{
    char *p = mem_try(16);
    strcpy(p, "still here");
    mem_fail_after(0);
    cr_assert_null(mem_try_resize(p, 1000));
    mem_fail_after(-1);
    cr_assert_str_eq(p, "still here");
    cr_assert_geq(mem_usable(p), 16);
    mem_free(p);
}

Test(mem, free_accepts_null)
{
    mem_free(NULL);
}

Test(mem, usable_of_null_is_nothing)
{
    cr_assert_eq(mem_usable(NULL), 0);
}

Test(mem, fail_after_lets_n_calls_succeed_and_then_fails_all)
{
    mem_fail_after(2);
    void *a = mem_try(1);
    void *b = mem_try_zero(1);
    cr_assert_not_null(a);
    cr_assert_not_null(b);
    for (int i = 0; i < 5; i++) {
        cr_assert_null(mem_try(1));
        cr_assert_null(mem_try_zero(1));
        cr_assert_null(mem_try_resize(a, 64));
    }
    mem_fail_after(-1);
    void *c = mem_try(1);
    cr_assert_not_null(c);
    mem_free(a);
    mem_free(b);
    mem_free(c);
}

Test(mem, fail_after_does_not_touch_what_may_not_fail)
{
    mem_fail_after(0);
    mem_free(mem_alloc(8));
    mem_free(mem_zalloc(8));
    mem_free(mem_strdup("s"));
    mem_fail_after(-1);
}

static void *try_elsewhere(void *block)
{
    mem_free(block); /* a block of another thread */
    return mem_try(8);
}

Test(mem, failures_belong_to_their_thread_and_blocks_do_not)
{
    pthread_t thread;
    void *made = NULL;
    void *block = mem_alloc(24);
    mem_fail_after(0);
    cr_assert_eq(pthread_create(&thread, NULL, try_elsewhere, block), 0);
    cr_assert_eq(pthread_join(thread, &made), 0);
    cr_assert_not_null(made);
    cr_assert_null(mem_try(8));
    mem_fail_after(-1);
    mem_free(made);
}

/* ---- libev ------------------------------------------------------------------------------------ */

Test(mem, an_array_of_libev_grows_in_pages_of_its_own)
{
    char *p = mem_for_libev(NULL, 100);
    cr_assert_lt(mem_usable(p), 200);
    memcpy(p, "events", 7);
    p = mem_for_libev(p, 20000);
    cr_assert_str_eq(p, "events");
    cr_assert_gt(mem_usable(p), 128 << 10);
    char *before = p;
    for (long n = 20000; n <= 128 << 10; n *= 2) {
        p = mem_for_libev(p, n);
        cr_assert_eq(p, before);
    }
    p = mem_for_libev(p, 1 << 20);
    cr_assert_geq(mem_usable(p), 1 << 20);
    cr_assert_str_eq(p, "events");
    cr_assert_null(mem_for_libev(p, 0));
}

/* ---- hiredis ---------------------------------------------------------------------------------- */

Test(mem, hiredis_allocates_here, .init = mem_install_hiredis)
{
    mem_fail_after(0);
    cr_assert_null(hi_malloc(8));
    cr_assert_null(hi_calloc(2, 8));
    cr_assert_null(hi_realloc(NULL, 8));
    cr_assert_null(hi_strdup("s"));
    mem_fail_after(-1);

    char *text = hi_strdup("text");
    cr_assert_str_eq(text, "text");
    hi_free(text);
    char *zeros = hi_calloc(3, 5);
    cr_assert_not_null(zeros);
    for (int i = 0; i < 15; i++) {
        cr_assert_eq(zeros[i], 0);
    }
    mem_free(zeros);
    void *p = hi_malloc(10);
    cr_assert_geq(mem_usable(p), 10);
    mem_free(p);
}

Test(mem, hiredis_is_refused_what_overflows, .init = mem_install_hiredis)
{
    cr_assert_null(hiredisAllocFns.callocFn(SIZE_MAX / 2, 3));
    void *p = hi_malloc(8);
    cr_assert_null(hi_realloc(p, absurd()));
    hi_free(p);
}

Test(mem, hiredis_grows_large_blocks_by_half, .init = mem_install_hiredis)
{
    size_t moves = 0;
    char *p = hi_malloc(MIB);
    p[0] = 'a';
    for (size_t n = MIB; n <= 64 * MIB; n += MIB) {
        size_t before = mem_usable(p);
        p = hi_realloc(p, n);
        cr_assert_not_null(p);
        cr_assert_geq(mem_usable(p), n);
        moves += mem_usable(p) != before ? 1 : 0;
        p[n - 1] = 'z';
    }
    cr_assert_eq(p[0], 'a');
    cr_assert_lt(moves, 16, "%zu resizes for 64 steps of 1 MiB", moves);
    hi_free(p);
}

Test(mem, hiredis_keeps_small_blocks_small, .init = mem_install_hiredis)
{
    void *p = hi_realloc(hi_malloc(16), 1000);
    cr_assert_geq(mem_usable(p), 1000);
    cr_assert_lt(mem_usable(p), 1500);
    hi_free(p);
}

Test(mem, hiredis_gives_idle_memory_back, .init = mem_install_hiredis)
{
    char *p = hi_malloc(8 * MIB);
    strcpy(p, "kept");
    p = hi_realloc(p, 64);
    cr_assert_str_eq(p, "kept");
    cr_assert_lt(mem_usable(p), MIB);
    hi_free(p);
}

Test(mem, hiredis_keeps_its_block_when_it_cannot_grow, .init = mem_install_hiredis)
{
    char *p = hi_malloc(2 * MIB);
    strcpy(p, "kept");
    mem_fail_after(0);
    cr_assert_null(hi_realloc(p, 4 * MIB));
    mem_fail_after(-1);
    cr_assert_str_eq(p, "kept");
    hi_free(p);
}

Test(mem, hiredis_reads_a_reply_of_64_mib, .init = mem_install_hiredis)
{
    static char block[16384];
    size_t size = 64 * MIB;
    memset(block, 'v', sizeof(block));
    redisReader *reader = redisReaderCreate();
    char head[32];
    int n = snprintf(head, sizeof(head), "$%zu\r\n", size);
    cr_assert_eq(redisReaderFeed(reader, head, (size_t)n), REDIS_OK);
    void *reply = NULL;
    for (size_t done = 0; done < size; done += sizeof(block)) {
        cr_assert_eq(redisReaderFeed(reader, block, sizeof(block)), REDIS_OK);
        cr_assert_eq(redisReaderGetReply(reader, &reply), REDIS_OK);
        cr_assert_null(reply);
    }
    cr_assert_eq(redisReaderFeed(reader, "\r\n", 2), REDIS_OK);
    cr_assert_eq(redisReaderGetReply(reader, &reply), REDIS_OK);
    cr_assert_not_null(reply);
    cr_assert_eq(((redisReply *)reply)->len, size);
    freeReplyObject(reply);
    redisReaderFree(reader);
}

static void die_unread(void)
{
    int ends[2];
    alarm(20); /* ends it if it hangs */
    if (pipe(ends) == 0 && fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0) {
        while (write(ends[1], ends, sizeof(ends)) > 0) {
            /* more */
        }
        fcntl(ends[1], F_SETFL, 0);
        dup2(ends[1], STDERR_FILENO);
        mem_alloc(SIZE_MAX);
    }
}

Test(mem, it_dies_also_while_nobody_reads_what_it_says)
{
    char text[200];
    cr_assert_eq(last_words(die_unread, text, sizeof(text)), SIGABRT);
}
