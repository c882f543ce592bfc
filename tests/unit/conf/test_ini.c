/* SPDX-License-Identifier: Apache-2.0
 *
 * Files become entries with line numbers, and everything inih would take in silence is said.
 */
#include "../../../conf/conf_priv.h"

#include <criterion/criterion.h>
#include <string.h>

/* The entries of a file as one text: "3 [s] key=value", "4 [s]", "5 (s) what is wrong". A value whose
 * comment was cut off ends in " ;". */
static const char *entries_of(const char *bytes, size_t n)
{
    static char text[16384];
    struct ini ini;
    FILE *file = fmemopen((void *)(uintptr_t)bytes, n, "r");
    FILE *out = fmemopen(text, sizeof(text), "w");
    cr_assert_not_null(file);
    cr_assert_not_null(out);
    ini_init(&ini, file);
    for (size_t i = 0; i < ini.n; i++) {
        const struct ini_entry *e = &ini.entries[i];
        if (e->kind == INI_WRONG) {
            fprintf(out, "%d (%s) %s\n", e->line, e->section, e->value);
        } else if (e->kind == INI_SECTION) {
            fprintf(out, "%d [%s]\n", e->line, e->section);
        } else {
            fprintf(out, "%d [%s] %s=%s%s\n", e->line, e->section, e->key, e->value,
                    e->commented ? " ;" : "");
        }
    }
    ini_fini(&ini);
    cr_assert_eq(ini.n, 0);
    fputc('\0', out);
    fclose(out);
    fclose(file);
    return text;
}

#define expect_entries(bytes, wanted) cr_expect_str_eq(entries_of(bytes, sizeof(bytes) - 1), wanted)

Test(ini, pairs_carry_their_section_and_line)
{
    expect_entries("[a]\nx = 1\ny=2\n\n[b]\n  z\t=  3 4  \n",
                   "1 [a]\n2 [a] x=1\n3 [a] y=2\n5 [b]\n6 [b] z=3 4\n");
}

Test(ini, an_empty_section_is_noticed)
{
    expect_entries("[a]\n[b]\n", "1 [a]\n2 [b]\n");
}

Test(ini, an_empty_file_has_no_entries)
{
    expect_entries("\n", "");
    expect_entries(" \t\n\n", "");
}

Test(ini, comments_are_left_out)
{
    expect_entries("; c\n# c = 1\n  ; c\n[a] ; c\nx = 1 ; c\ny = a;b\nz = a#b\n",
                   "4 [a]\n5 [a] x=1 ;\n6 [a] y=a;b\n7 [a] z=a#b\n");
}

Test(ini, an_indented_key_is_a_key_of_its_own)
{
    expect_entries("[a]\nx = 1\n  y = 2\n\ttwo\n",
                   "1 [a]\n2 [a] x=1\n3 [a] y=2\n"
                   "4 (a) this is neither [section] nor key = value nor a comment\n");
}

Test(ini, lines_may_end_in_crlf_or_not_at_all)
{
    expect_entries("[a]\r\nx = 1\r\ny = 2", "1 [a]\n2 [a] x=1\n3 [a] y=2\n");
}

Test(ini, a_byte_order_mark_is_skipped)
{
    expect_entries("\xef\xbb\xbf[a]\nx = 1\n", "1 [a]\n2 [a] x=1\n");
}

Test(ini, an_empty_value_is_handed_on)
{
    expect_entries("[a]\nx =\ny = ; c\nz =;c\n", "1 [a]\n2 [a] x=\n3 [a] y= ;\n4 [a] z=;c\n");
}

Test(ini, text_outside_ascii_is_text)
{
    expect_entries("[a]\nx = \xc3\xa9\xff\n", "1 [a]\n2 [a] x=\xc3\xa9\xff\n");
}

Test(ini, what_is_no_pair_is_wrong)
{
    expect_entries("[a]\nx\n= 1\ny : 1\na b = 1\nx ; = 1\n",
                   "1 [a]\n"
                   "2 (a) this is neither [section] nor key = value nor a comment\n"
                   "3 (a) there is no key before '='; expected key = value\n"
                   "4 (a) this is neither [section] nor key = value nor a comment; "
                   "write '=' in place of ':'\n"
                   "5 (a) this is neither [section] nor key = value nor a comment\n"
                   "6 (a) this is neither [section] nor key = value nor a comment\n");
}

Test(ini, a_pair_before_any_section_is_wrong)
{
    expect_entries("x = 1\n", "1 () x stands before any section; expected [section] above it\n");
}

Test(ini, headers_that_are_wrong_take_their_keys_with_them)
{
    expect_entries("[a\nx = 1\n[]\nx = 1\n[b] x\nx = 1\ny\n[c]\nx = 1\n",
                   "1 () a section has no closing bracket; expected [section]\n"
                   "3 () a section has no name; expected [section]\n"
                   "5 () there is text behind a section; expected [section] alone on its line\n"
                   "7 () this is neither [section] nor key = value nor a comment\n"
                   "8 [c]\n9 [c] x=1\n");
}

Test(ini, control_characters_are_wrong)
{
    expect_entries("[a]\nx = \x01\ny\x7f= 1\n# \x1b\n",
                   "1 [a]\n"
                   "2 (a) there is a control character (byte 0x01) at column 5; expected text\n"
                   "3 (a) there is a control character (byte 0x7f) at column 2; expected text\n"
                   "4 (a) there is a control character (byte 0x1b) at column 3; expected text\n");
}

Test(ini, a_nul_ends_the_reading)
{
    expect_entries("[a]\nx = 1\0\n[b]\ny = 1\n",
                   "1 [a]\n2 (a) there is a NUL byte: this is not a text file\n");
}

/* "[a]", then "k = xxx" of so many bytes and the line end, then "y = 2". */
static const char *entries_with_line_of(size_t n, const char *end)
{
    char file[1000];
    int len = snprintf(file, sizeof(file), "[a]\nk = %0*d%s\ny = 2\n", (int)n - 4, 1, end);
    return entries_of(file, (size_t)len);
}

Test(ini, the_longest_line_is_read_whole_and_a_longer_one_refused)
{
    char wanted[1000];
    snprintf(wanted, sizeof(wanted), "1 [a]\n2 [a] k=%0*d\n3 [a] y=2\n", INI_LINE_BYTES - 4, 1);
    cr_expect_str_eq(entries_with_line_of(INI_LINE_BYTES, ""), wanted);
    cr_expect_str_eq(entries_with_line_of(INI_LINE_BYTES, "\r"), wanted);
    for (size_t n = INI_LINE_BYTES + 1; n < INI_LINE_BYTES + 300; n++) {
        static const char *const refused =
            "1 [a]\n2 (a) this line is longer than 198 bytes\n3 [a] y=2\n";
        cr_expect_str_eq(entries_with_line_of(n, ""), refused);
        cr_expect_str_eq(entries_with_line_of(n, "\r"), refused);
    }
}

Test(ini, a_cr_in_the_middle_does_not_shorten_a_long_line)
{
    char file[600];
    memset(file, 'x', sizeof(file));
    memcpy(file, "[a]\nk = ", 8);
    file[4 + INI_LINE_BYTES] = '\r';
    file[sizeof(file) - 1] = '\n';
    cr_expect_str_eq(entries_of(file, sizeof(file)),
                     "1 [a]\n2 (a) this line is longer than 198 bytes\n");
}

Test(ini, the_longest_section_name_is_read_whole_and_a_longer_one_refused)
{
    char file[200];
    char wanted[300];
    int len = snprintf(file, sizeof(file), "[%049d]\nx = 1\n[%050d]\nx = 1\n", 1, 2);
    snprintf(wanted, sizeof(wanted),
             "1 [%049d]\n2 [%049d] x=1\n3 () a section's name is longer than 49 bytes\n", 1, 1);
    cr_expect_str_eq(entries_of(file, (size_t)len), wanted);
}

Test(ini, a_long_key_is_handed_on_whole)
{
    char file[200];
    char wanted[300];
    int len = snprintf(file, sizeof(file), "[a]\n%0100d = 1\n", 7);
    snprintf(wanted, sizeof(wanted), "1 [a]\n2 [a] %0100d=1\n", 7);
    cr_expect_str_eq(entries_of(file, (size_t)len), wanted);
}

Test(ini, a_file_without_end_is_refused)
{
    size_t n = INI_FILE_BYTES + 1;
    char *file = malloc(n);
    cr_assert_not_null(file);
    memset(file, '\n', n);
    cr_expect_str_eq(entries_of(file, n), "0 () is larger than 1048576 bytes\n");
    cr_expect_str_eq(entries_of(file, n - 1), "");
    free(file);
}

Test(ini, a_read_error_is_said)
{
    struct ini ini;
    FILE *file = fopen("/", "r"); /* a directory opens, and cannot be read */
    cr_assert_not_null(file);
    ini_init(&ini, file);
    cr_assert_eq(ini.n, 1);
    cr_expect_eq(ini.entries[0].kind, INI_WRONG);
    cr_expect_eq(ini.entries[0].line, 0);
    cr_expect_str_eq(ini.entries[0].value, "cannot be read: Is a directory");
    ini_fini(&ini);
    fclose(file);
}

Test(ini, many_entries_are_kept_in_order)
{
    char file[8000];
    size_t n = (size_t)snprintf(file, sizeof(file), "[a]\n");
    for (int i = 0; i < 500; i++) {
        n += (size_t)snprintf(file + n, sizeof(file) - n, "k = %d\n", i);
    }
    struct ini ini;
    FILE *stream = fmemopen(file, n, "r");
    ini_init(&ini, stream);
    cr_assert_eq(ini.n, 501);
    for (int i = 0; i < 500; i++) {
        char value[16];
        snprintf(value, sizeof(value), "%d", i);
        cr_expect_str_eq(ini.entries[i + 1].value, value);
        cr_expect_eq(ini.entries[i + 1].line, i + 2);
    }
    ini_fini(&ini);
    fclose(stream);
}
