/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_conf.c: any bytes as a configuration file, followed by overrides: what stands behind each
 * byte 0x1f is a --set. Either there are errors, each a line of its own, or there is a configuration
 * whose print loads, gives the same print again, and does not show a password.
 */
#include "../../conf/conf.h"
#include "../../conf/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SETS_MAX 8

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* Loads text as a file; *errors is what was said, for the caller to free. */
static struct conf *load(const char *text, size_t n, char **sets, size_t nsets, char **errors)
{
    char path[64];
    size_t said;
    FILE *out = open_memstream(errors, &said);
    int fd = memfd_create("f.ini", MFD_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, n) == (ssize_t)n;
    bug_on(out == NULL || !written);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct conf *conf = conf_load(path, sets, nsets, out);
    close(fd);
    fclose(out);
    bug_on((conf == NULL) != (said > 0));
    bug_on(said > 0 && (*errors)[said - 1] != '\n');
    for (size_t i = 0; i < said; i++) {
        bug_on((unsigned char)(*errors)[i] < 0x20 && (*errors)[i] != '\n');
    }
    return conf;
}

static char *print(const struct conf *conf, size_t *n)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, n);
    bug_on(out == NULL);
    conf_print(conf, out);
    fclose(out);
    return text;
}

static bool has_secret(const struct conf *conf)
{
    return conf->proxy_password[0] != '\0' || conf->upstream_password[0] != '\0' ||
           conf->sentinel_password[0] != '\0';
}

static void check_loaded(const struct conf *conf)
{
    char *errors = NULL;
    size_t n[2];
    char *first = print(conf, &n[0]);
    struct conf *again = load(first, n[0], NULL, 0, &errors);
    bug_on(again == NULL);
    char *second = print(again, &n[1]);
    bug_on(has_secret(again));
    if (has_secret(conf)) {
        bug_on(strstr(first, "; password = (set)") == NULL);
    } else {
        bug_on(strcmp(first, second) != 0);
    }
    conf_destroy(again);
    free(first);
    free(second);
    free(errors);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char *sets[SETS_MAX];
    size_t nsets = 0;
    char *text = mem_alloc(size + 1);
    memcpy(text, bytes, size);
    text[size] = '\0';
    size_t n = size;
    for (size_t i = 0; i < size && nsets < SETS_MAX; i++) {
        if (text[i] == 0x1f) {
            text[i] = '\0';
            n = nsets == 0 ? i : n;
            sets[nsets++] = text + i + 1;
        }
    }
    char *errors = NULL;
    struct conf *conf = load(text, n, sets, nsets, &errors);
    if (conf != NULL) {
        check_loaded(conf);
    }
    conf_destroy(conf);
    free(errors);
    mem_free(text);
    return 0;
}
