/* SPDX-License-Identifier: Apache-2.0
 *
 * race_learnt.c: rows are learnt, changed and forgotten while other threads look them up and walk
 * keys by them. A plain program, because ThreadSanitizer cannot run Criterion. Ends with 0 when every
 * reader only ever saw one whole row or another, or none.
 */
#include "../../resp/learnt.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define READERS 3
#define WRITERS 2
#define ROUNDS  3000

static const struct slice replies[] = {
    SLICE("*2\r\n*6\r\n$5\r\nm.one\r\n:-1\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n"
          "*6\r\n$5\r\nm.two\r\n:-1\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n"),
    SLICE("*1\r\n*6\r\n$5\r\nm.one\r\n:-1\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n"),
    SLICE("*1\r\n*6\r\n$5\r\nm.two\r\n:-1\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n"),
};

static _Atomic unsigned writing = WRITERS;
static _Atomic uint64_t found;

static void require(bool promise, const char *what)
{
    if (!promise) {
        fprintf(stderr, "race_learnt: %s\n", what);
        abort();
    }
}

static void *write_rows(void *arg)
{
    unsigned self = *(unsigned *)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        enum learnt_status status =
            learnt_read(replies[(i + self) % ARRAY_LEN(replies)], learnt_epoch());
        require(status == LEARNT_OK || status == LEARNT_OUTDATED, "a reply was refused");
        if (i % 11 == 0) {
            (void)learnt_forget();
        }
    }
    atomic_fetch_sub_explicit(&writing, 1, memory_order_release);
    return NULL;
}

static void look(const char *bytes, size_t n)
{
    struct parser parser;
    struct request_view v;
    struct cmd_key_walk walk;
    struct slice key;
    parser_init(&parser);
    require(parse_request(&parser, slice_of(bytes, n), &v) == PARSE_OK, "no request");
    const struct cmd *cmd = cmd_find(&v);
    if (strcmp(cmd->name, "unknown") == 0) {
        return;
    }
    require(slice_eq(slice_str(cmd->name), v.argv[0]), "a row of another name");
    require(cmd->class == (cmd->readonly ? CMD_READ : CMD_WRITE), "half a row");
    require(cmd_keys_init(&walk, cmd, &v) && cmd_keys_next(&walk, &key) &&
                slice_eq(key, SLICE("k")) && !cmd_keys_next(&walk, &key),
            "wrong keys");
    atomic_fetch_add_explicit(&found, 1, memory_order_relaxed);
}

static void *read_rows(void *arg)
{
    static const char one[] = "*3\r\n$5\r\nm.one\r\n$1\r\nk\r\n$1\r\nv\r\n";
    static const char two[] = "*3\r\n$5\r\nm.two\r\n$1\r\nk\r\n$1\r\nv\r\n";
    (void)arg;
    while (atomic_load_explicit(&writing, memory_order_acquire) > 0) {
        look(one, sizeof(one) - 1);
        look(two, sizeof(two) - 1);
        require(learnt_count() <= 2 && learnt_rows() <= 4, "too many rows");
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[READERS + WRITERS];
    unsigned self[WRITERS];
    cmd_init();
    for (unsigned i = 0; i < READERS + WRITERS; i++) {
        bool writer = i < WRITERS;
        if (writer) {
            self[i] = i;
        }
        require(pthread_create(&threads[i], NULL, writer ? write_rows : read_rows,
                               writer ? &self[i] : NULL) == 0,
                "no thread");
    }
    for (unsigned i = 0; i < READERS + WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    uint64_t seen = atomic_load_explicit(&found, memory_order_relaxed);
    require(seen > 0, "no reader ever found a row");
    printf("race_learnt: %llu look-ups found a row\n", (unsigned long long)seen);
    return 0;
}
