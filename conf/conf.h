/* SPDX-License-Identifier: Apache-2.0
 *
 * conf.h: what the process is told. A file in INI form and overrides from the command line become
 * one `struct conf`, which nobody changes afterwards: any thread may read it, and no module below
 * proxy/ knows it (main hands each the few values it needs).
 *
 * options.def is the page to read next: one row per option with its type, default, bounds and
 * prose. It makes the fields below, the sample file, --print-config and every error text.
 *
 * All functions belong to the set-up paths: one thread, and they die when memory is out.
 */
#pragma once

#include "base.h"

#include <stdbool.h>
#include <stdio.h>

/* A repeatable option: its values in the order given, none repeated. Never empty. */
struct conf_list {
    size_t n;
    char **items;
};

/* invalidation.mode. (proxy.log_level holds an enum log_level.) */
enum conf_invalidation {
    CONF_INVALIDATION_AUTO,
    CONF_INVALIDATION_TRACKING,
    CONF_INVALIDATION_REDIRECT,
    CONF_INVALIDATION_BROADCAST,
    CONF_INVALIDATION_KEYSPACE,
    CONF_INVALIDATION_CHANNEL,
    CONF_INVALIDATION_OFF
};

/* upstream.mode */
enum conf_mode { CONF_MODE_STANDALONE, CONF_MODE_SENTINEL, CONF_MODE_CLUSTER };

/* upstream.read_from */
enum conf_read_from { CONF_READ_PRIMARY, CONF_READ_PREFER_REPLICA, CONF_READ_REPLICA };

/* proxy.order */
enum conf_order { CONF_ORDER_KEY, CONF_ORDER_STRICT };

/* invalidation.unknown_writes */
enum conf_unknown_writes { CONF_UNKNOWN_FENCE, CONF_UNKNOWN_DECLARED, CONF_UNKNOWN_FLUSH };

/* One field per option, named section_key: proxy_workers, l1_max_memory. By type:
 *   INT       a number; 0 stands for `auto` where the option has it
 *   SIZE      bytes
 *   DURATION  milliseconds; 0 where the option gives 0 a meaning (off, never, none)
 *   CHOICE    which of the words, counted from 0: the enums above
 *   BOOL      yes or no
 *   STRING    text, "" when not set, never NULL
 *   LIST      addresses; conf_address takes them apart */
#define CONF_FIELD_INT                  uint32_t
#define CONF_FIELD_SIZE                 size_t
#define CONF_FIELD_DURATION             int64_t
#define CONF_FIELD_CHOICE               int
#define CONF_FIELD_BOOL                 bool
#define CONF_FIELD_STRING               char *
#define CONF_FIELD_LIST                 struct conf_list
#define OPTION(section, key, kind, ...) CONF_FIELD_##kind section##_##key;
struct conf {
#include "options.def"
};
#undef OPTION

/* Reads the file at path (NULL: no file, defaults only), then applies the overrides, each
 * "section.key=value" as after --set; the last one of an option counts, except that those of a
 * repeatable option add up and together replace the file's. Borrows its arguments.
 *
 * Every error is written to `errors`, one line each:
 *   FILE:LINE: [section] key: what is wrong; what was expected, or: did you mean ...?
 *   --set section.key=value: the same
 * Secrets are never written. Returns NULL when there was any error, otherwise a configuration that
 * the caller owns. */
MUST_CHECK struct conf *conf_load(const char *path, char *const *sets, size_t nsets, FILE *errors);
/* Accepts NULL. */
void conf_destroy(struct conf *conf);

/* --print-config: the effective values as a file that loads and gives the same again. A secret that
 * is set is shown as a comment without it, and so is what cannot stand without it (the user). */
void conf_print(const struct conf *conf, FILE *out);
/* proxy.ini.sample: every option as a comment, with its prose, type, bounds and default. */
void conf_print_sample(FILE *out);

/* A STRING for those who want NULL when it is not set. */
static inline const char *conf_text_or_null(const char *text)
{
    return text[0] == '\0' ? NULL : text;
}

/* Takes an item of proxy.listen or upstream.servers apart: "host:port", "[v6]:port" (the brackets
 * are dropped), "*:port" (host "*": every address of the machine) or "unix:/path" (host: the path,
 * the only kind of host that begins with '/'; port: ""). False when it has not that shape; never so
 * for items of a loaded configuration. */
#define CONF_HOST_MAX 256
#define CONF_PORT_MAX 6
/* The longest path of a Unix socket, in bytes: the kernel's limit. */
#define CONF_PATH_MAX 107
MUST_CHECK bool conf_address(const char *item, char host[CONF_HOST_MAX], char port[CONF_PORT_MAX]);
