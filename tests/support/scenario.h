/* SPDX-License-Identifier: Apache-2.0
 *
 * scenario.h: how an integration test is written: SCENARIO(suite, sentence, options) { body }. It is
 * a Criterion test with a time limit that ends everything it started as its last step, so that a
 * server that does not end cleanly fails the test. (Criterion ignores failures in .fini, which
 * therefore only sweeps up after a body that failed.)
 */
#pragma once

#include "cleanup.h"
#include "watchdog.h"

#include <criterion/criterion.h>

#define SCENARIO_SECONDS 60
#define SCENARIO_TELLS   55 /* where it is, when so many of them have passed */

#define SCENARIO(suite, name, ...)                                                                 \
    static void suite##_##name(void);                                                              \
    Test(suite, name, .timeout = SCENARIO_SECONDS, .fini = cleanup_run, ##__VA_ARGS__)             \
    {                                                                                              \
        watchdog_start(SCENARIO_TELLS);                                                            \
        suite##_##name();                                                                          \
        cleanup_run();                                                                             \
    }                                                                                              \
    static void suite##_##name(void)
