/* SPDX-License-Identifier: Apache-2.0
 *
 * scripts.h: scripts that say they cannot write ("#!lua flags=no-writes"), which the server holds them to.
 * A name (the SHA1 that SCRIPT LOAD answered) always stands for the same text, so what was learnt once
 * stays true, whatever the server has forgotten or another client has loaded. Any thread.
 */
#pragma once

#include "bytes.h"

/* Names kept in the life of the process; what is beyond is not known to be harmless. */
#define SCRIPTS_MAX      2048
#define SCRIPTS_NAME_LEN ((size_t)40)

/* Does the first line of the text, "#!lua ... flags=a,b", have the flag? */
bool script_cannot_write(struct slice text);

/* `text` is the server's name for a script that cannot write; anything but 40 hex digits is ignored. */
void scripts_learn(struct slice text);
/* Is it such a name, in any case? */
bool scripts_know(struct slice text);
