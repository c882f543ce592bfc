/* SPDX-License-Identifier: Apache-2.0
 *
 * secret.c: reads a password file.
 */
#include "secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Reads up to max bytes; -1 with errno when the file cannot be read. Non-blocking, so that a pipe
 * put in the file's place cannot stop a worker. */
static ssize_t read_start(const char *path, char *out, size_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return -1;
    }
    size_t total = 0;
    ssize_t n = 0;
    while (total < max && (n = read(fd, out + total, max - total)) > 0) {
        total += (size_t)n;
    }
    int error = errno;
    close(fd);
    errno = error;
    return n < 0 ? -1 : (ssize_t)total;
}

bool secret_from_file(const char *path, char *out, size_t max, char err[ERR_MAX])
{
    ssize_t n = read_start(path, out, max);
    if (n < 0) {
        (void)snprintf(err, ERR_MAX, "password file %s: %s", path, strerror(errno));
        return false;
    }
    const char *newline = memchr(out, '\n', (size_t)n);
    size_t len = newline != NULL ? (size_t)(newline - out) : (size_t)n;
    if (len > 0 && out[len - 1] == '\r') {
        len--;
    }
    if (len == 0) {
        (void)snprintf(err, ERR_MAX, "password file %s: its first line is empty", path);
        return false;
    }
    if (len >= max) {
        (void)snprintf(err, ERR_MAX, "password file %s: its first line is too long", path);
        return false;
    }
    explicit_bzero(out + len, max - len);
    return true;
}
