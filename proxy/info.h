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
