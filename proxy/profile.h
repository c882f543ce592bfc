/* SPDX-License-Identifier: Apache-2.0
 *
 * profile.h: what a client said about itself (CLIENT SETNAME, SETINFO and CAPA, HELLO SETNAME), and
 * the line CLIENT LIST and CLIENT INFO have for it. Worker's thread only.
 */
#pragma once

#include "client.h"

/* The name or library word may stand in CLIENT LIST: printable and without blanks, as in Redis. */
bool profile_is_plain(struct slice word);

/* False: memory is out. An empty word takes the old one away. */
MUST_CHECK bool profile_set_name(struct client *c, struct slice name);
MUST_CHECK bool profile_set_library(struct client *c, bool version, struct slice word);
MUST_CHECK bool profile_set_redirects(struct client *c);
MUST_CHECK bool profile_set_user(struct client *c, struct slice user);
MUST_CHECK bool profile_set_password(struct client *c, struct slice password);
/* `part` is who `c` is. */
MUST_CHECK bool profile_lend(const struct client *c, struct client *part);
/* Empty if there is none. */
struct slice profile_name(const struct client *c);
struct slice profile_user(const struct client *c);
struct slice profile_password(const struct client *c);
/* Of a client that has one. */
size_t profile_memory(const struct client *c);
void profile_destroy(struct client *c);

#define PROFILE_ADDRESS_MAX 128
/* "address:port" of the client, or (`local`) of the listener it came to; of a Unix socket "path:0"
 * both times, as Redis says it. */
void profile_address(const struct client *c, bool local, char out[PROFILE_ADDRESS_MAX]);

/* The server's fields in its order, by its version (Redis 7.0 to 8.0, Valkey 8), with a line end. `cmd` is the
 * name of its last command; `asking` the size of the request, if it is the one who asks. Appends to out; false:
 * memory is out. */
MUST_CHECK bool profile_line(const struct client *c, const char *cmd, size_t asking,
                             struct chain *out);
