/* SPDX-License-Identifier: Apache-2.0
 *
 * test_cmd_script.c: scripts that say of themselves that they cannot write.
 */
#include "../../../resp/cmd.h"

#include <criterion/criterion.h>

static void set_up(void)
{
    cmd_init();
}

TestSuite(cmd_script, .init = set_up);

Test(cmd_script, a_script_that_cannot_write_is_a_read)
{
    static const struct {
        const char *script;
        enum cmd_class class;
    } scripts[] = {
        {"#!lua flags=no-writes\nreturn 1", CMD_READ},
        {"#!lua flags=allow-stale,no-writes\nreturn 1", CMD_READ},
        {"#!lua name=x flags=no-writes,allow-oom\nreturn 1", CMD_READ},
        {"#!lua flags=no-writes", CMD_READ},
        {"#!lua\nreturn 1", CMD_UNKNOWN},
        {"#!lua flags=\nreturn 1", CMD_UNKNOWN},
        {"#!lua flags=allow-oom\n-- flags=no-writes", CMD_UNKNOWN},
        {"#!lua flags=no-writesx\nreturn 1", CMD_UNKNOWN},
        {"#!lua flag=no-writes\nreturn 1", CMD_UNKNOWN},
        {"-- flags=no-writes\nreturn 1", CMD_UNKNOWN},
        {"#", CMD_UNKNOWN},
        {"", CMD_UNKNOWN},
    };
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        struct slice argv[] = {SLICE("EVAL"), slice_str(scripts[i].script), SLICE("0")};
        struct request_view v = {.argc = 3, .nargv = 3};
        memcpy(v.argv, argv, sizeof(argv));
        cr_expect_eq(cmd_effective_class(cmd_find(&v), &v), scripts[i].class, "%s",
                     scripts[i].script);
    }
}
