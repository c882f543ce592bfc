/* SPDX-License-Identifier: Apache-2.0
 *
 * One value at a time: what each type takes, what it refuses and how that is said. Rows of our own
 * stand in for the options table.
 */
#include "../../../conf/conf_priv.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/un.h>

static const struct option an_int = {
    .section = "s", .key = "int", .min = 1, .max = 64, .kind = OPTION_INT, .flags = OPT_AUTO};
static const struct option a_mode = {
    .section = "s", .key = "mode", .max = 0777, .kind = OPTION_INT, .flags = OPT_OCTAL};
static const struct option a_size = {
    .section = "s", .key = "size", .min = 64, .max = 64 * SIZE_GB, .kind = OPTION_SIZE};
static const struct option a_duration = {.section = "s",
                                         .key = "duration",
                                         .min = 100,
                                         .max = 24 * TIME_H,
                                         .kind = OPTION_DURATION,
                                         .flags = OPT_ZERO};
static const struct option a_choice = {
    .section = "s", .key = "choice", .words = "debug info warn", .kind = OPTION_CHOICE};
static const struct option a_bool = {.section = "s", .key = "bool", .kind = OPTION_BOOL};
static const struct option a_string = {.section = "s", .key = "string", .kind = OPTION_STRING};
static const struct option a_secret = {
    .section = "s", .key = "secret", .kind = OPTION_STRING, .flags = OPT_SECRET};
static const struct option a_list = {
    .section = "s", .key = "list", .max = 2, .kind = OPTION_LIST, .flags = OPT_ANY};
static const struct option a_peer = {.section = "s", .key = "peer", .max = 1, .kind = OPTION_LIST};

struct good {
    const struct option *option;
    const char *text;
    uint64_t number;
};

struct bad {
    const struct option *option;
    const char *text;
    const char *err;
};

static void expect_good(const struct good *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct value value;
        char err[ERR_MAX] = "";
        cr_expect(value_parse(cases[i].option, cases[i].text, &value, err), "%s: %s", cases[i].text,
                  err);
        cr_expect_eq(value.number, cases[i].number, "%s", cases[i].text);
    }
}

static void expect_bad(const struct bad *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct value value;
        char err[ERR_MAX] = "";
        cr_expect_not(value_parse(cases[i].option, cases[i].text, &value, err), "%s",
                      cases[i].text);
        cr_expect_str_eq(err, cases[i].err);
    }
}

Test(values, numbers_within_their_bounds)
{
    static const struct good cases[] = {
        {&an_int, "1", 1}, {&an_int, "64", 64}, {&an_int, "007", 7}, {&an_int, "auto", 0}};
    expect_good(cases, ARRAY_LEN(cases));
}

Test(values, numbers_that_are_refused)
{
#define WANTED "expected a whole number from 1 to 64, or auto"
    static const struct bad cases[] = {
        {&an_int, "0", "0 is too small; " WANTED},
        {&an_int, "65", "65 is too large; " WANTED},
        {&an_int, "-1", "'-1' is not valid; " WANTED},
        {&an_int, "+1", "'+1' is not valid; " WANTED},
        {&an_int, "1.5", "'1.5' is not valid; " WANTED},
        {&an_int, "0x10", "'0x10' is not valid; " WANTED},
        {&an_int, "4 ", "'4 ' is not valid; " WANTED},
        {&an_int, "Auto", "'Auto' is not valid; " WANTED},
        {&an_int, "", "has no value; " WANTED},
        {&an_int, "18446744073709551617", "'18446744073709551617' is not valid; " WANTED},
        {&an_int, "18446744073709551615", "18446744073709551615 is too large; " WANTED},
    };
#undef WANTED
    expect_bad(cases, ARRAY_LEN(cases));
}

Test(values, sizes_in_every_unit_and_case)
{
    static const struct good cases[] = {
        {&a_size, "64", 64},
        {&a_size, "64b", 64},
        {&a_size, "2k", 2048},
        {&a_size, "2kb", 2048},
        {&a_size, "3m", 3145728},
        {&a_size, "3Mb", 3145728},
        {&a_size, "1g", 1073741824},
        {&a_size, "64GB", 64 * SIZE_GB},
        {&a_size, "65536m", 64 * SIZE_GB},
    };
    expect_good(cases, ARRAY_LEN(cases));
}

Test(values, sizes_that_are_refused)
{
#define WANTED "expected a size (b, kb, mb, gb) from 64b to 64gb"
    static const struct bad cases[] = {
        {&a_size, "63", "63 is too small; " WANTED},
        {&a_size, "0", "0 is too small; " WANTED},
        {&a_size, "65gb", "65gb is too large; " WANTED},
        {&a_size, "1t", "1t is too large; " WANTED},
        {&a_size, "1.5gb", "'1.5gb' is not valid; " WANTED},
        {&a_size, "64 mb", "'64 mb' is not valid; " WANTED},
        {&a_size, "mb", "'mb' is not valid; " WANTED},
        {&a_size, "64mib", "'64mib' is not valid; " WANTED},
        {&a_size, "64s", "'64s' is not valid; " WANTED},
        {&a_size, "-1mb", "'-1mb' is not valid; " WANTED},
        {&a_size, "17592186044416mb", "'17592186044416mb' is not valid; " WANTED},
    };
#undef WANTED
    expect_bad(cases, ARRAY_LEN(cases));
}

Test(values, durations_in_every_unit)
{
    static const struct good cases[] = {
        {&a_duration, "100ms", 100},    {&a_duration, "1s", 1000}, {&a_duration, "2m", 120000},
        {&a_duration, "24H", 86400000}, {&a_duration, "0", 0},     {&a_duration, "0s", 0},
    };
    expect_good(cases, ARRAY_LEN(cases));
}

Test(values, durations_that_are_refused)
{
#define WANTED "expected a duration (ms, s, m, h) from 100ms to 24h, or 0"
    static const struct bad cases[] = {
        {&a_duration, "10", "'10' is not valid; " WANTED},
        {&a_duration, "99ms", "99ms is too small; " WANTED},
        {&a_duration, "25h", "25h is too large; " WANTED},
        {&a_duration, "1d", "'1d' is not valid; " WANTED},
        {&a_duration, "1s500ms", "'1s500ms' is not valid; " WANTED},
        {&a_duration, "s", "'s' is not valid; " WANTED},
        {&a_duration, "5124095576030431h", "'5124095576030431h' is not valid; " WANTED},
    };
#undef WANTED
    expect_bad(cases, ARRAY_LEN(cases));
}

Test(values, choices_count_from_nought)
{
    static const struct good cases[] = {
        {&a_choice, "debug", 0}, {&a_choice, "info", 1}, {&a_choice, "warn", 2}};
    expect_good(cases, ARRAY_LEN(cases));
}

Test(values, choices_that_are_refused)
{
#define WANTED "expected one of debug, info, warn"
    static const struct bad cases[] = {
        {&a_choice, "warning", "'warning' is not valid; " WANTED "; did you mean warn?"},
        {&a_choice, "INFO", "'INFO' is not valid; " WANTED "; did you mean info?"},
        {&a_choice, "xyz", "'xyz' is not valid; " WANTED},
        {&a_choice, "inf", "'inf' is not valid; " WANTED "; did you mean info?"},
        {&a_choice, "debug info", "'debug info' is not valid; " WANTED},
    };
#undef WANTED
    expect_bad(cases, ARRAY_LEN(cases));
}

Test(values, booleans_are_yes_and_no)
{
    static const struct good good[] = {{&a_bool, "no", 0}, {&a_bool, "yes", 1}};
    static const struct bad bad[] = {
        {&a_bool, "true", "'true' is not valid; expected yes or no"},
        {&a_bool, "1", "'1' is not valid; expected yes or no"},
    };
    expect_good(good, ARRAY_LEN(good));
    expect_bad(bad, ARRAY_LEN(bad));
}

Test(values, strings_stand_for_themselves)
{
    static const char *const cases[][2] = {
        {"plain", "plain"},
        {"\"\"", ""},
        {"\"a b \"", "a b "},
        {"\"\"quoted\"\"", "\"quoted\""},
        {"a;b", "a;b"},
        {"\";a\"", ";a"},
        {"a\"b", "a\"b"},
        {"a # b", "a # b"},
        {"caf\xc3\xa9", "caf\xc3\xa9"},
        {"a\\nb", "a\\nb"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct value value;
        char err[ERR_MAX] = "";
        cr_expect(value_parse(&a_string, cases[i][0], &value, err), "%s: %s", cases[i][0], err);
        cr_expect_eq(value.length, strlen(cases[i][1]), "%s", cases[i][0]);
        cr_expect_eq(memcmp(value.text, cases[i][1], value.length), 0, "%s", cases[i][0]);
    }
}

Test(values, strings_that_are_refused)
{
    static const struct bad cases[] = {
        {&a_string, "", "has no value; expected text, or \"\" for none"},
        {&a_string, "a\nb", "contains a control character (byte 0x0a)"},
        {&a_string, "a\x7f", "contains a control character (byte 0x7f)"},
        {&a_string, "a ;b",
         "a blank followed by ';' begins a comment and cannot be part of a value"},
        {&a_string, "\"a\t;b\"", "contains a control character (byte 0x09)"},
        {&a_string, "\"a",
         "has no closing quote (a blank followed by ';' begins a comment, even within quotes)"},
        {&a_string, "\"",
         "has no closing quote (a blank followed by ';' begins a comment, even within quotes)"},
    };
    expect_bad(cases, ARRAY_LEN(cases));
}

Test(values, secrets_are_never_quoted_back)
{
    static const char *const cases[] = {"hunter2\n", "hunter2 ;", "\"hunter2"};
    char longer[400];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct value value;
        char err[ERR_MAX];
        cr_expect_not(value_parse(&a_secret, cases[i], &value, err));
        cr_expect_null(strstr(err, "hunter"), "%s", err);
    }
    struct value value;
    char err[ERR_MAX];
    memset(longer, 'h', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    cr_expect_not(value_parse(&a_secret, longer, &value, err));
    cr_expect_null(strstr(err, "hhhh"), "%s", err);
}

Test(values, what_is_accepted_fits_into_a_line_of_a_file)
{
    char text[INI_LINE_BYTES + 1];
    size_t longest = INI_LINE_BYTES - strlen("string = \"\"");
    struct value value;
    char err[ERR_MAX] = "";
    memset(text, 'x', sizeof(text));
    text[longest] = '\0';
    cr_expect(value_parse(&a_string, text, &value, err), "%s", err);
    text[longest] = 'x';
    text[longest + 1] = '\0';
    cr_expect_not(value_parse(&a_string, text, &value, err));
    cr_expect_str_eq(err, "is too long; expected at most 187 bytes");
}

Test(values, addresses_are_taken_apart)
{
    static const char *const cases[][3] = {
        {"127.0.0.1:6379", "127.0.0.1", "6379"},
        {"localhost:1", "localhost", "1"},
        {"redis-1.cache_a.example:65535", "redis-1.cache_a.example", "65535"},
        {"*:6380", "*", "6380"},
        {"[::1]:6379", "::1", "6379"},
        {"[fe80::1%eth0]:6379", "fe80::1%eth0", "6379"},
        {"[::ffff:10.0.0.1]:6379", "::ffff:10.0.0.1", "6379"},
        {"1st.example:80", "1st.example", "80"},
        {"unix:/run/redis.sock", "/run/redis.sock", ""},
        {"unix:/a:b,c@d", "/a:b,c@d", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char host[CONF_HOST_MAX] = "";
        char port[CONF_PORT_MAX] = "";
        cr_expect(conf_address(cases[i][0], host, port), "%s", cases[i][0]);
        cr_expect_str_eq(host, cases[i][1]);
        cr_expect_str_eq(port, cases[i][2]);
    }
}

Test(values, what_has_not_the_shape_of_an_address)
{
    static const char *const cases[] = {
        "",
        ":",
        ":6379",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "host:06379",
        "host:99999999",
        "host:+1",
        "host:63 79",
        "::1:6379",
        "[::1:6379",
        "::1]:6379",
        "[]:6379",
        "[::1]6379",
        "[::g]:6379",
        "[127.0.0.1]:1",
        "[localhost]:1",
        "[*]:1",
        "10.1:6379",
        "256.1.1.1:80",
        "1.2.3.4.5:80",
        "a b:80",
        "-a:80",
        ".a:80",
        "[fe80::1%]:1",
        "[fe80::1%a b]:1",
        "a@b:80",
        "**:80",
        "caf\xc3\xa9:80",
        "unix:",
        "unix:run/redis.sock",
        "unix:/run/my redis.sock",
        "unix:/run/\x7f",
        "/run/redis.sock",
        "UNIX:/run/redis.sock",
    };
    char host[CONF_HOST_MAX];
    char port[CONF_PORT_MAX];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        cr_expect_not(conf_address(cases[i], host, port), "%s", cases[i]);
    }
    char item[600];
    memset(item, 'h', sizeof(item));
    strcpy(item + CONF_HOST_MAX - 1, ":1");
    cr_expect(conf_address(item, host, port));
    memset(item, 'h', sizeof(item));
    strcpy(item + CONF_HOST_MAX, ":1");
    cr_expect_not(conf_address(item, host, port));
}

Test(values, the_path_of_a_unix_socket_is_as_long_as_the_kernel_takes)
{
    char item[200] = "unix:/";
    char host[CONF_HOST_MAX];
    char port[CONF_PORT_MAX];
    struct sockaddr_un addr;
    cr_assert_eq(CONF_PATH_MAX, sizeof(addr.sun_path) - 1);
    memset(item + strlen(item), 'p', CONF_PATH_MAX - 1);
    cr_expect(conf_address(item, host, port));
    cr_expect_eq(strlen(host), CONF_PATH_MAX);
    strcat(item, "p");
    cr_expect_not(conf_address(item, host, port));

    struct value value;
    char err[ERR_MAX];
    cr_expect_not(value_parse(&a_peer, item, &value, err));
    cr_expect_str_eq(err,
                     "the path has 108 bytes; expected at most 107, the limit for Unix sockets");
}

Test(values, usual_mistakes_in_addresses_are_named)
{
    static const struct bad cases[] = {
        {&a_peer, "redis://:hunter2@h:1",
         "is a URL; expected host:port (user and password are options of their own)"},
        {&a_peer, "rediss://h:1",
         "is a URL for TLS, which Nearside does not speak; expected host:port (user and password "
         "are options of their own)"},
        {&a_peer, "user:hunter2@h:1",
         "is a URL; expected host:port (user and password are options of their own)"},
        {&a_peer, "a:1, b:2", "holds more than one word; expected one host:port per line"},
        {&a_peer, "::1", "an IPv6 address needs brackets; expected [address]:port"},
        {&a_peer, "::1:6379", "an IPv6 address needs brackets; expected [address]:port"},
        {&a_peer, "host", "'host' has no port; expected host:port"},
        {&a_peer, "host:0", "'0' is not a port; expected 1 to 65535"},
        {&a_peer, "*:1",
         "'*:1' is not valid; expected host:port, [IPv6 address]:port or unix:/path"},
        {&a_list, "10.1:1",
         "'10.1:1' is not valid; expected host:port, [IPv6 address]:port, *:port or unix:/path"},
        {&a_list, "/run/n.sock", "is a path; expected unix:/path for a Unix socket"},
        {&a_list, "unix:n.sock", "'n.sock' is no absolute path; expected unix:/path"},
        {&a_list, "unix:/a b", "the path holds a blank or a control character; expected none"},
    };
    expect_bad(cases, ARRAY_LEN(cases));
    static const struct good good[] = {{&a_list, "*:1", 0}, {&a_peer, "h:1", 0}};
    expect_good(good, ARRAY_LEN(good));
}

Test(values, file_modes_are_octal)
{
    static const struct good good[] = {
        {&a_mode, "700", 0700}, {&a_mode, "0770", 0770}, {&a_mode, "0", 0}, {&a_mode, "777", 0777}};
    static const struct bad bad[] = {
        {&a_mode, "800", "'800' is not valid; expected a file mode in octal from 0 to 777"},
        {&a_mode, "1000", "1000 is too large; expected a file mode in octal from 0 to 777"},
        {&a_mode, "rwx", "'rwx' is not valid; expected a file mode in octal from 0 to 777"},
    };
    char text[TEXT_MAX];
    expect_good(good, ARRAY_LEN(good));
    expect_bad(bad, ARRAY_LEN(bad));
    value_format(&a_mode, 0640, text);
    cr_expect_str_eq(text, "640");
}

Test(values, what_is_written_is_read_back)
{
    static const struct good cases[] = {
        {&an_int, "auto", 0},
        {&an_int, "64", 64},
        {&a_size, "1tb", SIZE_TB},
        {&a_size, "1023b", 1023},
        {&a_size, "1025kb", 1049600},
        {&a_duration, "0", 0},
        {&a_duration, "1500ms", 1500},
        {&a_duration, "1m", 60000},
        {&a_duration, "90s", 90000},
        {&a_choice, "debug", 0},
        {&a_choice, "warn", 2},
        {&a_bool, "yes", 1},
        {&a_bool, "no", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[TEXT_MAX];
        value_format(cases[i].option, cases[i].number, text);
        cr_expect_str_eq(text, cases[i].text);
    }
    for (uint64_t n = 100; n < 24 * TIME_H; n = n * 3 + 1) {
        char text[TEXT_MAX];
        char err[ERR_MAX];
        struct value value;
        value_format(&a_duration, n, text);
        cr_expect(value_parse(&a_duration, text, &value, err), "%s", err);
        cr_expect_eq(value.number, n, "%s", text);
        value_format(&a_size, n, text);
        cr_expect(value_parse(&a_size, text, &value, err), "%s", err);
        cr_expect_eq(value.number, n, "%s", text);
    }
}

Test(values, shown_texts_are_cut_and_plain)
{
    char shown[SHOWN_MAX];
    char text[200];
    cr_expect_str_eq(text_shown("a\nb\x1b\xff", shown), "a?b??");
    memset(text, 'x', sizeof(text));
    text[SHOWN_MAX - 1] = '\0';
    cr_expect_str_eq(text_shown(text, shown), text);
    text[SHOWN_MAX - 1] = 'x';
    text[SHOWN_MAX] = '\0';
    cr_expect_eq(strlen(text_shown(text, shown)), SHOWN_MAX - 1);
    cr_expect_str_eq(shown + SHOWN_MAX - 5, "x...");
}
