/* SPDX-License-Identifier: Apache-2.0
 *
 * conf.c: puts a configuration together: the defaults, then the file, then the overrides, then what
 * no single row of the table can check.
 *
 *   set_defaults ─► load_file ─► load_sets ─► lower what follows another option ─► contradictions
 *
 * It always goes through to the end, so that one run shows every error. Where a value came from is
 * remembered per option, for the messages; an option whose value was refused is left out of the
 * contradictions, which would only repeat the error in other words.
 *
 * Limits that hang on another option (l1.max_item_size, l1.negative_ttl) are an error only where
 * somebody wrote them: a default nobody asked for gives way.
 *
 * One thread. Not here: the form of a file (ini.c), of a value (values.c), names (options.c).
 */
#include "conf_priv.h"

#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum source { FROM_DEFAULT, FROM_FILE, FROM_SET };

/* Where an option's value came from. */
struct origin {
    enum source source;
    int line;        /* FROM_FILE: of the first, when there are several */
    const char *set; /* FROM_SET: the override, borrowed from conf_load's caller */
    bool refused;
};

struct loader {
    struct conf *conf;
    FILE *errors;
    const char *file;
    size_t nerrors;
    struct origin origins[OPTION_COUNT];
    int section_lines[OPTION_COUNT]; /* of the section a row is the first of; 0: not seen */
};

/* ---- Messages --------------------------------------------------------------------------------- */

/* "FILE:LINE: [section] key: "; section and key may be "". */
static void complain_file(struct loader *l, int line, const char *section, const char *key,
                          const char *text)
{
    char shown[2][SHOWN_MAX];
    l->nerrors++;
    fprintf(l->errors, "%s", l->file);
    if (line > 0) {
        fprintf(l->errors, ":%d", line);
    }
    fprintf(l->errors, ": ");
    if (section[0] != '\0') {
        fprintf(l->errors, "[%s]%s", text_shown(section, shown[0]), key[0] == '\0' ? ": " : " ");
    }
    if (key[0] != '\0') {
        fprintf(l->errors, "%s: ", text_shown(key, shown[1]));
    }
    fprintf(l->errors, "%s\n", text);
}

/* "--set section.key=value: "; the value only where it cannot hold a secret: not of an unknown option
 * (a misspelt password), and not of a URL (user:password@host). */
static void complain_set(struct loader *l, const char *set, const struct option *option,
                         const char *text)
{
    char shown[SHOWN_MAX];
    char name[SHOWN_MAX];
    bool open = option != NULL && (option->flags & OPT_SECRET) == 0 && strchr(set, '@') == NULL;
    l->nerrors++;
    set += strspn(set, " \t");
    if (!open) {
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(set, "= \t"), set);
        set = name;
    }
    fprintf(l->errors, "--set %s: %s\n", text_shown(set, shown), text);
}

/* About an option, wherever its value came from. */
static void complain(struct loader *l, const struct option *option, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static void complain(struct loader *l, const struct option *option, const char *fmt, ...)
{
    const struct origin *origin = &l->origins[option - option_table];
    char text[ERR_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (origin->source == FROM_SET) {
        complain_set(l, origin->set, option, text);
    } else {
        complain_file(l, origin->line, option->section, option->key, text);
    }
}

/* "(line 12)", "(--set)" or "(default)": where the other side of a contradiction is. */
static const char *origin_text(const struct loader *l, enum option_index i, char text[TEXT_MAX])
{
    const struct origin *origin = &l->origins[i];
    if (origin->source == FROM_FILE) {
        snprintf(text, TEXT_MAX, "(line %d)", origin->line);
    } else {
        snprintf(text, TEXT_MAX, origin->source == FROM_SET ? "(--set)" : "(default)");
    }
    return text;
}

/* ---- The file and the overrides --------------------------------------------------------------- */

static void set_defaults(struct conf *conf)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        struct value value;
        char err[ERR_MAX];
        bool ok = value_parse(&option_table[i], option_table[i].initial, &value, err) &&
                  conf_store(conf, &option_table[i], &value);
        bug_on(!ok);
    }
}

/* Gives an option the value its origin wrote; complains otherwise. */
static void assign(struct loader *l, const struct option *option, const char *text)
{
    struct origin *origin = &l->origins[option - option_table];
    struct value value;
    char err[ERR_MAX];
    if (!value_parse(option, text, &value, err)) {
        origin->refused = true;
        complain(l, option, "%s", err);
        return;
    }
    if (option->kind == OPTION_LIST && conf_strings(l->conf, option)->n >= option->max) {
        origin->refused = true;
        complain(l, option, "is one too many; expected at most %llu",
                 (unsigned long long)option->max);
        return;
    }
    if (!conf_store(l->conf, option, &value)) {
        origin->refused = true;
        complain(l, option, "%s is given twice", text);
    }
}

static void enter_section(struct loader *l, const struct ini_entry *entry)
{
    if (!option_has_section(entry->section)) {
        char hint[HINT_MAX];
        char text[HINT_MAX + 32];
        option_hint_section(entry->section, hint);
        snprintf(text, sizeof(text), "unknown section; %s", hint);
        complain_file(l, entry->line, entry->section, "", text);
        return;
    }
    size_t i = 0;
    while (strcmp(option_table[i].section, entry->section) != 0) {
        i++;
    }
    if (l->section_lines[i] != 0) {
        char text[80];
        snprintf(text, sizeof(text), "this section was opened before, on line %d; expected it once",
                 l->section_lines[i]);
        complain_file(l, entry->line, entry->section, "", text);
        return;
    }
    l->section_lines[i] = entry->line;
}

static void take_pair(struct loader *l, const struct ini_entry *entry)
{
    if (!option_has_section(entry->section)) {
        return; /* said where the section was opened */
    }
    const struct option *option = option_find(entry->section, entry->key);
    if (option == NULL) {
        char hint[HINT_MAX];
        char text[HINT_MAX + 32];
        option_hint_key(entry->section, entry->key, hint);
        snprintf(text, sizeof(text), "unknown key; %s", hint);
        complain_file(l, entry->line, entry->section, entry->key, text);
        return;
    }
    struct origin *origin = &l->origins[option - option_table];
    int first = origin->line;
    origin->source = FROM_FILE;
    origin->line = entry->line;
    if (first != 0 && option->kind != OPTION_LIST) {
        complain(l, option, "was given before, on line %d; expected it once", first);
    } else if (entry->commented && (option->flags & OPT_SECRET) != 0) {
        /* The secret may hold that blank and ';' itself: half a password is worse than none. */
        origin->refused = true;
        complain(l, option,
                 "a comment stands behind it, or it contains a blank followed by ';'; "
                 "expected the secret alone on its line");
    } else {
        if (first == 0 && option->kind == OPTION_LIST) {
            conf_clear_list(l->conf, option);
        }
        assign(l, option, entry->value);
    }
    origin->line = first != 0 ? first : entry->line;
}

static void load_file(struct loader *l, FILE *file)
{
    struct ini ini;
    ini_init(&ini, file);
    for (size_t i = 0; i < ini.n; i++) {
        const struct ini_entry *entry = &ini.entries[i];
        switch (entry->kind) {
        case INI_SECTION:
            enter_section(l, entry);
            break;
        case INI_PAIR:
            take_pair(l, entry);
            break;
        case INI_WRONG:
            complain_file(l, entry->line, entry->section, "", entry->value);
            break;
        }
    }
    ini_fini(&ini);
}

/* Cuts blanks off both ends, in place. */
static char *trimmed(char *text)
{
    text += strspn(text, " \t");
    size_t n = strlen(text);
    while (n > 0 && strchr(" \t", text[n - 1]) != NULL) {
        n--;
    }
    text[n] = '\0';
    return text;
}

/* "section.key" to its row; complains otherwise. */
static const struct option *find_named(struct loader *l, const char *set, char *name)
{
    char *dot = strchr(name, '.');
    const struct option *option = NULL;
    if (dot != NULL) {
        *dot = '\0';
        option = option_find(name, dot + 1);
        *dot = '.';
    }
    if (option == NULL) {
        char hint[HINT_MAX];
        char text[HINT_MAX + 32];
        option_hint_name(name, hint);
        snprintf(text, sizeof(text), "unknown option; %s", hint);
        complain_set(l, set, NULL, text);
    }
    return option;
}

static void take_set(struct loader *l, const char *set)
{
    char *copy = mem_strdup(set);
    char *equals = strchr(copy, '=');
    if (equals == NULL) {
        complain_set(l, set, NULL, "has no '='; expected section.key=value");
        conf_wipe(copy);
        return;
    }
    *equals = '\0';
    const struct option *option = find_named(l, set, trimmed(copy));
    if (option != NULL) {
        struct origin *origin = &l->origins[option - option_table];
        if (origin->source != FROM_SET && option->kind == OPTION_LIST) {
            conf_clear_list(l->conf, option);
        }
        origin->source = FROM_SET;
        origin->set = set;
        assign(l, option, trimmed(equals + 1));
    }
    *equals = '='; /* so that all of it is wiped */
    conf_wipe(copy);
}

/* ---- What no single row can check ------------------------------------------------------------- */

static void complain_above(struct loader *l, enum option_index low, enum option_index high,
                           const char *relation, uint64_t bound)
{
    char is[TEXT_MAX];
    char other[TEXT_MAX];
    char most[TEXT_MAX];
    char where[TEXT_MAX];
    value_format(&option_table[low], conf_number(l->conf, &option_table[low]), is);
    value_format(&option_table[high], conf_number(l->conf, &option_table[high]), other);
    value_format(&option_table[low], bound, most);
    complain(l, &option_table[low], "%s is more than %s%s.%s, %s %s; expected at most %s", is,
             relation, option_table[high].section, option_table[high].key, other,
             origin_text(l, high, where), most);
}

/* `low` may not be above `bound`, which follows from `high`. Complains if it is and somebody wrote
 * it; true if it is and nobody did: then it is ours to lower. */
static bool is_to_be_lowered(struct loader *l, enum option_index low, enum option_index high,
                             const char *relation, uint64_t bound)
{
    if (l->origins[low].refused || l->origins[high].refused ||
        conf_number(l->conf, &option_table[low]) <= bound) {
        return false;
    }
    if (l->origins[low].source == FROM_DEFAULT) {
        return true;
    }
    complain_above(l, low, high, relation, bound);
    return false;
}

static void check_l1(struct loader *l)
{
    struct conf *conf = l->conf;
    if (is_to_be_lowered(l, OPTION_l1_max_item_size, OPTION_l1_max_memory, "a quarter of ",
                         conf->l1_max_memory / 4)) {
        conf->l1_max_item_size = conf->l1_max_memory / 4;
    }
    if (is_to_be_lowered(l, OPTION_l1_negative_ttl, OPTION_l1_ttl, "", (uint64_t)conf->l1_ttl)) {
        conf->l1_negative_ttl = conf->l1_ttl;
    }
}

/* Redis refuses prefixes of which one begins with the other. In a mode without them all keys would be cached. */
static void check_prefixes(struct loader *l)
{
    const char *const text = l->conf->invalidation_prefixes;
    const struct option *mode = &option_table[OPTION_invalidation_mode];
    if (text[0] != '\0' && l->conf->invalidation_mode != CONF_INVALIDATION_BROADCAST &&
        l->conf->invalidation_mode != CONF_INVALIDATION_AUTO) {
        char is[TEXT_MAX];
        char where[TEXT_MAX];
        value_format(mode, (uint64_t)l->conf->invalidation_mode, is);
        complain(l, &option_table[OPTION_invalidation_prefixes],
                 "contradicts invalidation.mode, %s %s; expected it only with mode = broadcast or "
                 "auto",
                 is, origin_text(l, OPTION_invalidation_mode, where));
    }
    for (const char *a = text + strspn(text, " "); *a != '\0'; a += strspn(a, " ")) {
        size_t n = strcspn(a, " ");
        for (const char *b = text + strspn(text, " "); *b != '\0'; b += strspn(b, " ")) {
            size_t m = strcspn(b, " ");
            if (a != b && m >= n && strncmp(a, b, n) == 0) {
                complain(l, &option_table[OPTION_invalidation_prefixes],
                         "'%.*s' begins with '%.*s'; expected prefixes that exclude each other",
                         (int)m, b, (int)n, a);
                return;
            }
            b += m;
        }
        a += n;
    }
}

/* Can the password be read? The content does not stay in memory. */
static bool check_password_file(const char *path, char err[ERR_MAX])
{
    char shown[SHOWN_MAX];
    struct stat st;
    char first = '\0';
    text_shown(path, shown);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block us */
    if (fd < 0) {
        snprintf(err, ERR_MAX, "%s cannot be opened: %s", shown, strerror(errno));
        return false;
    }
    bool good = false;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        snprintf(err, ERR_MAX, "%s is not a regular file", shown);
    } else if (read(fd, &first, 1) < 0) {
        snprintf(err, ERR_MAX, "%s cannot be read: %s", shown, strerror(errno));
    } else if (first == '\0' || first == '\n' || first == '\r') {
        snprintf(err, ERR_MAX, "%s has nothing in its first line; expected the password", shown);
    } else {
        good = true;
    }
    close(fd);
    return good;
}

/* One of the two places a password may come from. */
static void check_password(struct loader *l, enum option_index word, enum option_index file)
{
    const char *path = *conf_string(l->conf, &option_table[file]);
    const char *password = *conf_string(l->conf, &option_table[word]);
    char where[TEXT_MAX];
    char err[ERR_MAX];
    if (password[0] != '\0' && path[0] != '\0') {
        complain(l, &option_table[file], "contradicts %s.password %s; expected only one of the two",
                 option_table[word].section, origin_text(l, word, where));
    }
    if (path[0] != '\0' && !check_password_file(path, err)) {
        complain(l, &option_table[file], "%s", err);
    }
}

static void check_user(struct loader *l, enum option_index user, enum option_index word,
                       enum option_index file)
{
    const char *section = option_table[user].section;
    if ((*conf_string(l->conf, &option_table[user]))[0] != '\0' &&
        (*conf_string(l->conf, &option_table[word]))[0] == '\0' &&
        (*conf_string(l->conf, &option_table[file]))[0] == '\0' && !l->origins[word].refused &&
        !l->origins[file].refused) {
        complain(l, &option_table[user],
                 "a user needs a password; expected %s.password or %s.password_file", section,
                 section);
    }
    check_password(l, word, file);
}

static void check_login(struct loader *l)
{
    check_password(l, OPTION_proxy_password, OPTION_proxy_password_file);
    check_user(l, OPTION_upstream_user, OPTION_upstream_password, OPTION_upstream_password_file);
    check_user(l, OPTION_sentinel_user, OPTION_sentinel_password, OPTION_sentinel_password_file);
}

/* ---- What goes with which upstream.mode ------------------------------------------------------- */

/* `what` is given although the mode is another than it is for. */
static void complain_mode(struct loader *l, enum option_index what, const char *wanted)
{
    char is[TEXT_MAX];
    char where[TEXT_MAX];
    value_format(&option_table[OPTION_upstream_mode], (uint64_t)l->conf->upstream_mode, is);
    complain(l, &option_table[what], "contradicts upstream.mode, %s %s; expected it only with %s",
             is, origin_text(l, OPTION_upstream_mode, where), wanted);
}

static void check_servers(struct loader *l)
{
    const struct conf_list *servers = &l->conf->upstream_servers;
    const struct option *option = &option_table[OPTION_upstream_servers];
    if (l->conf->upstream_mode == CONF_MODE_STANDALONE) {
        if (servers->n > 1) {
            complain(l, option,
                     "there are %zu, but upstream.mode is standalone; expected one, or mode = "
                     "sentinel or cluster",
                     servers->n);
        }
        return;
    }
    for (size_t i = 0; i < servers->n; i++) {
        if (strncmp(servers->items[i], "unix:", 5) == 0) {
            complain(l, option,
                     "%s is a Unix socket, and only a standalone server is reached by one; "
                     "expected host:port",
                     servers->items[i]);
            return;
        }
    }
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}

/* Whether who connects to `server` reaches who listens on `listen`, as far as their texts tell. */
static bool is_same_address(const char *server, const char *listen)
{
    char host[CONF_HOST_MAX];
    char port[CONF_PORT_MAX];
    char our_host[CONF_HOST_MAX];
    char our_port[CONF_PORT_MAX];
    if (!conf_address(server, host, port) || !conf_address(listen, our_host, our_port) ||
        strcmp(port, our_port) != 0) {
        return false;
    }
    bool everywhere = strcmp(our_host, "*") == 0 || strcmp(our_host, "0.0.0.0") == 0 ||
                      strcmp(our_host, "::") == 0;
    return strcmp(host, our_host) == 0 || (everywhere && is_loopback(host)) ||
           (strcmp(host, "localhost") == 0 && is_loopback(our_host));
}

/* A proxy before itself sends every command around until something breaks. */
static void check_loop(struct loader *l)
{
    const struct conf_list *servers = &l->conf->upstream_servers;
    const struct conf_list *listen = &l->conf->proxy_listen;
    char where[TEXT_MAX];
    for (size_t i = 0; i < servers->n; i++) {
        for (size_t j = 0; j < listen->n; j++) {
            if (is_same_address(servers->items[i], listen->items[j])) {
                complain(l, &option_table[OPTION_upstream_servers],
                         "%s is where Nearside itself listens, proxy.listen %s; expected the "
                         "address of Redis",
                         servers->items[i], origin_text(l, OPTION_proxy_listen, where));
                return;
            }
        }
    }
}

static void check_mode(struct loader *l)
{
    const struct conf *conf = l->conf;
    char host[CONF_HOST_MAX];
    char port[CONF_PORT_MAX];
    if (l->origins[OPTION_upstream_mode].refused) {
        return;
    }
    check_servers(l);
    check_loop(l);
    if (conf->upstream_mode == CONF_MODE_SENTINEL) {
        if (conf->sentinel_master[0] == '\0' && !l->origins[OPTION_sentinel_master].refused) {
            complain(l, &option_table[OPTION_upstream_mode],
                     "sentinel needs the name of the master; expected sentinel.master");
        }
    } else if (conf->sentinel_master[0] != '\0') {
        complain_mode(l, OPTION_sentinel_master, "mode = sentinel");
    }
    if (conf->upstream_mode != CONF_MODE_CLUSTER) {
        if (conf->proxy_cluster_facade) {
            complain_mode(l, OPTION_proxy_cluster_facade, "mode = cluster");
        }
    } else if (conf->upstream_db != 0) {
        complain_mode(l, OPTION_upstream_db, "the other modes, since clusters have db 0 only");
    }
    if (conf->upstream_mode == CONF_MODE_STANDALONE &&
        conf->upstream_read_from != CONF_READ_PRIMARY) {
        complain_mode(l, OPTION_upstream_read_from,
                      "mode = sentinel or cluster, which tell who the replicas are");
    }
    if (conf->proxy_announce[0] != '\0') {
        if (!conf->proxy_cluster_facade) {
            complain(l, &option_table[OPTION_proxy_announce],
                     "means nothing here; expected it only with proxy.cluster_facade = yes");
        } else if (!conf_address(conf->proxy_announce, host, port) || port[0] == '\0' ||
                   strcmp(host, "*") == 0) {
            complain(l, &option_table[OPTION_proxy_announce],
                     "'%s' is not valid; expected host:port", conf->proxy_announce);
        }
    }
}

/* ---- Life ------------------------------------------------------------------------------------- */

struct conf *conf_load_stream(FILE *file, const char *name, char *const *sets, size_t nsets,
                              FILE *errors)
{
    struct loader l = {.errors = errors, .file = name};
    l.conf = mem_zalloc(sizeof(*l.conf));
    set_defaults(l.conf);
    if (file != NULL) {
        load_file(&l, file);
    }
    for (size_t i = 0; i < nsets; i++) {
        take_set(&l, sets[i]);
    }
    check_l1(&l);
    check_login(&l);
    check_mode(&l);
    check_prefixes(&l);
    if (l.nerrors > 0) {
        conf_destroy(l.conf);
        return NULL;
    }
    return l.conf;
}

struct conf *conf_load(const char *path, char *const *sets, size_t nsets, FILE *errors)
{
    if (path == NULL) {
        return conf_load_stream(NULL, "", sets, nsets, errors);
    }
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        fprintf(errors, "%s: cannot be opened: %s\n", path, strerror(errno));
        return NULL;
    }
    struct conf *conf = NULL;
    struct stat st;
    if (fstat(fileno(file), &st) == 0 && S_ISDIR(st.st_mode)) {
        fprintf(errors, "%s: is a directory; expected a file\n", path);
    } else {
        conf = conf_load_stream(file, path, sets, nsets, errors);
    }
    fclose(file);
    return conf;
}
