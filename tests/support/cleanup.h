/* SPDX-License-Identifier: Apache-2.0
 *
 * cleanup.h: what a test started ends with it. Whatever a test starts (processes, connections,
 * threads, directories) is owned by this list, so tests hold plain pointers and free nothing.
 */
#pragma once

#include <stddef.h>

/* `end` is called with `object` when the test is over, last added first. `end` releases everything
 * and may fail the test. Any thread. */
void cleanup_add(void (*end)(void *object), void *object);

/* Ends everything that was added. Called at the end of every test body, where a failure counts, and
 * again after a failed one. */
void cleanup_run(void);

/* Memory that lives until the test is over. Never NULL. */
void *cleanup_alloc(size_t n);
/* printf into such memory. */
char *cleanup_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
