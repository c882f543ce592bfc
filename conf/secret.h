/* SPDX-License-Identifier: Apache-2.0
 *
 * secret.h: a password that lies in a file. No state; any thread.
 */
#pragma once

#include "base.h"

#include <stdbool.h>
#include <stddef.h>

/* Copies the first line of the file (at most max - 1 bytes) to out, with a NUL. False: *err says why
 * (it names the file, never its content), and out is to be wiped. Does not block on a FIFO. */
MUST_CHECK bool secret_from_file(const char *path, char *out, size_t max, char err[ERR_MAX]);
