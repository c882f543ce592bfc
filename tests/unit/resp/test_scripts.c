/* SPDX-License-Identifier: Apache-2.0
 *
 * test_scripts.c: scripts that say of themselves that they cannot write.
 */
#include "../../../resp/cmd.h"
#include "../../../resp/scripts.h"

#include <criterion/criterion.h>

#include <stdio.h>

static void set_up(void)
{
    cmd_init();
}

TestSuite(scripts, .init = set_up);

Test(scripts, a_script_that_cannot_write_is_a_read)
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

static enum cmd_class class_of_name(const char *name)
{
    struct request_view v = {.argc = 3, .nargv = 3};
    v.argv[0] = SLICE("EVALSHA");
    v.argv[1] = slice_str(name);
    v.argv[2] = SLICE("0");
    return cmd_effective_class(cmd_find(&v), &v);
}

Test(scripts, a_name_is_a_read_once_it_was_learnt)
{
    static const char name[] = "0123456789abcdef0123456789abcdef01234567";
    cr_expect_eq(class_of_name(name), CMD_UNKNOWN);
    scripts_learn(slice_str(name));
    scripts_learn(slice_str(name));
    cr_expect_eq(class_of_name(name), CMD_READ);
    cr_expect_eq(class_of_name("0123456789ABCDEF0123456789abcdef01234567"), CMD_READ);
    cr_expect_eq(class_of_name("0123456789abcdef0123456789abcdef01234568"), CMD_UNKNOWN);
    cr_expect_eq(class_of_name("0123456789abcdef0123456789abcdef0123456"), CMD_UNKNOWN);
    cr_expect_eq(class_of_name(""), CMD_UNKNOWN);
    cr_expect_eq(class_of_name("#!lua flags=no-writes"), CMD_UNKNOWN, "a text is no name");
}

Test(scripts, what_is_no_name_is_not_learnt)
{
    scripts_learn(SLICE("g123456789abcdef0123456789abcdef01234567"));
    scripts_learn(SLICE("0123"));
    cr_expect_not(scripts_know(SLICE("g123456789abcdef0123456789abcdef01234567")));
    cr_expect_not(scripts_know(SLICE("0123")));
}

Test(scripts, table_that_is_full_learns_no_more_and_forgets_nothing)
{
    char name[48];
    for (unsigned i = 0; i < 2 * SCRIPTS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "%08x%032u", i, i);
        scripts_learn(slice_str(name));
        cr_expect_eq(scripts_know(slice_str(name)), i < SCRIPTS_MAX);
    }
}
