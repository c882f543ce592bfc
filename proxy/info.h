/* SPDX-License-Identifier: Apache-2.0
 *
 * info.h: the "# Nearside" section of INFO: every counter of the process, by name. Sums the
 * workers' relaxed counters; may be called on any worker.
 */
#pragma once

#include "worker.h"

/* The section's text (no RESP framing), in memory of mem_try that the caller frees; NULL when memory
 * is out. */
char *info_section(struct worker *worker, size_t *length);

/* A server's whole reply to INFO gets the section behind its text, inside the same bulk (in RESP3 a verbatim
 * string). False: memory is out, and of the reply is left what there is. */
MUST_CHECK bool info_complete(struct worker *worker, struct chain *reply);
