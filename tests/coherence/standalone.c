/* SPDX-License-Identifier: Apache-2.0
 *
 * standalone.c: lets a plain program use tests/support. Those files fail a test through Criterion,
 * which has no test here; so these few functions stand in for the library's, and the program is not
 * linked with it. A failure is printed, what was started is ended, and the program ends with 1.
 */
#include "../support/cleanup.h"

#include <criterion/criterion.h>
#include <criterion/internal/assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct criterion_options criterion_options;

int cr_asprintf(char **text, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vasprintf(text, fmt, ap);
    va_end(ap);
    return n;
}

void cr_asprintf_free(char *text)
{
    free(text);
}

/* The asserts of tests/support all say something themselves; this is for what they do not. */
char *cr_translate_assert_msg(int index, ...)
{
    char *text = NULL;

    return asprintf(&text, "a condition does not hold (%d)", index) < 0 ? NULL : text;
}

void cri_asserts_passed_incr(void)
{
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
    fprintf(stderr, "%s:%u: %s\n", stats->file, stats->line, stats->message);
}

void criterion_abort_test(void)
{
    static bool ending;

    if (!ending) {
        ending = true;
        cleanup_run();
        printf("result: checker: 0 passed, 1 failed, 0 skipped\n");
        exit(1);
    }
    exit(1);
}

void criterion_skip_test(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    cleanup_run();
    printf("\nresult: checker: 0 passed, 0 failed, 1 skipped\n");
    exit(1);
}
