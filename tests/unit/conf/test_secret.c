/* SPDX-License-Identifier: Apache-2.0
 *
 * test_secret.c: what counts as the password in a file, and what is said when there is none.
 */
#include "../../../conf/secret.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/nearside-secret-XXXXXX";
static char path[64];

static void make_dir(void)
{
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/password", dir);
}

static void remove_dir(void)
{
    unlink(path);
    rmdir(dir);
}

TestSuite(secret, .init = make_dir, .fini = remove_dir);

static void write_text(const char *text, size_t n)
{
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    cr_assert_eq(fwrite(text, 1, n, f), n);
    cr_assert_eq(fclose(f), 0);
}

Test(secret, is_the_first_line_without_its_end)
{
    static const struct {
        const char *text;
        const char *secret; /* NULL: refused */
        const char *why;
    } cases[] = {
        {"word", "word", ""},
        {"word\n", "word", ""},
        {"word\r\n", "word", ""},
        {"word\nsecond\n", "word", ""},
        {" a b \n", " a b ", ""},
        {"a\rb\n", "a\rb", ""},
        {"word\r\r\n", "word\r", ""},
        {"seven.7", "seven.7", ""},
        {"seven.7\n", "seven.7", ""},
        {"eight..8", NULL, "too long"},
        {"eight..8\n", NULL, "too long"},
        {"much longer than that\n", NULL, "too long"},
        {"", NULL, "empty"},
        {"\n", NULL, "empty"},
        {"\r\n", NULL, "empty"},
        {"\nsecond\n", NULL, "empty"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char out[8];
        char err[ERR_MAX] = "";
        memset(out, '#', sizeof(out));
        write_text(cases[i].text, strlen(cases[i].text));
        bool ok = secret_from_file(path, out, sizeof(out), err);
        cr_assert_eq(ok, cases[i].secret != NULL, "case %zu: %s", i, err);
        if (ok) {
            cr_assert_str_eq(out, cases[i].secret, "case %zu", i);
            cr_assert_null(memchr(out + strlen(out), '#', sizeof(out) - strlen(out)),
                           "the rest is wiped");
        } else {
            cr_assert(strstr(err, path) != NULL && strstr(err, cases[i].why) != NULL, "%s", err);
            cr_assert_null(strstr(err, "eight"), "%s", err);
        }
    }
}

Test(secret, a_file_that_cannot_be_read_is_named)
{
    char out[8];
    char err[ERR_MAX] = "";
    cr_assert_not(secret_from_file(path, out, sizeof(out), err));
    cr_assert_not_null(strstr(err, path), "%s", err);
    cr_assert_not(secret_from_file(dir, out, sizeof(out), err));
    cr_assert_not_null(strstr(err, dir), "%s", err);
}

Test(secret, a_pipe_nobody_writes_to_does_not_block, .timeout = 10)
{
    char out[8];
    char err[ERR_MAX] = "";
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_assert_not(secret_from_file(path, out, sizeof(out), err));
}
