/* SPDX-License-Identifier: Apache-2.0
 *
 * scripts.c: a table of names, open addressing from their first digits; it only grows. Behind a mutex:
 * scripts are no hot path.
 */
#include "scripts.h"

#include <pthread.h>

#define SLOTS (2 * SCRIPTS_MAX) /* a power of two */

struct name {
    char hex[SCRIPTS_NAME_LEN]; /* lower case; all zero bytes: empty */
};

static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
static struct name names[SLOTS];
static size_t used;

/* ---- Texts ----------------------------------------------------------------------------------- */

/* The next word of *text up to one of two bytes; false at its end. */
static bool next_part(struct slice *text, char end, struct slice *part)
{
    if (text->n == 0) {
        return false;
    }
    const char *p = memchr(text->p, end, text->n);
    part->p = text->p;
    part->n = p == NULL ? text->n : (size_t)(p - text->p);
    size_t taken = p == NULL ? text->n : part->n + 1;
    *text = slice_of(text->p + taken, text->n - taken);
    return true;
}

bool script_cannot_write(struct slice text)
{
    static const struct slice label = {"flags=", 6};
    struct slice line;
    struct slice word;
    struct slice flag;
    if (text.n < 2 || memcmp(text.p, "#!", 2) != 0 || !next_part(&text, '\n', &line)) {
        return false;
    }
    while (next_part(&line, ' ', &word)) {
        if (word.n < label.n || memcmp(word.p, label.p, label.n) != 0) {
            continue;
        }
        word = slice_of(word.p + label.n, word.n - label.n);
        while (next_part(&word, ',', &flag)) {
            if (slice_eq(flag, SLICE("no-writes"))) {
                return true;
            }
        }
    }
    return false;
}

/* ---- Names ----------------------------------------------------------------------------------- */

static bool read_name(struct slice text, struct name *name)
{
    if (text.n != SCRIPTS_NAME_LEN) {
        return false;
    }
    for (size_t i = 0; i < SCRIPTS_NAME_LEN; i++) {
        char c = text.p[i];
        c = c >= 'A' && c <= 'F' ? (char)(c | 0x20) : c;
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
        name->hex[i] = c;
    }
    return true;
}

/* The name's slot, or the empty one where the search for it ends. The lock is held. */
static struct name *find(const struct name *name)
{
    uint64_t digits;
    memcpy(&digits, name->hex, sizeof(digits));
    size_t i = (size_t)(digits * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (SLOTS - 1);
    while (names[i].hex[0] != '\0' && memcmp(&names[i], name, sizeof(*name)) != 0) {
        i = (i + 1) & (SLOTS - 1);
    }
    return &names[i];
}

void scripts_learn(struct slice text)
{
    struct name name;
    if (!read_name(text, &name)) {
        return;
    }
    pthread_mutex_lock(&names_lock);
    struct name *slot = find(&name);
    if (slot->hex[0] == '\0' && used < SCRIPTS_MAX) {
        *slot = name;
        used++;
    }
    pthread_mutex_unlock(&names_lock);
}

bool scripts_know(struct slice text)
{
    struct name name;
    if (!read_name(text, &name)) {
        return false;
    }
    pthread_mutex_lock(&names_lock);
    bool known = find(&name)->hex[0] != '\0';
    pthread_mutex_unlock(&names_lock);
    return known;
}
