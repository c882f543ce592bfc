/* SPDX-License-Identifier: Apache-2.0
 *
 * mutant.h: rules of the consistency protocol that can be switched off, so that the tests can be
 * seen to notice (tests/coherence). Only in the flavour `mutant`: everywhere else MUTANT(rule) is a
 * constant false and leaves no code, but the name is checked all the same.
 *
 *     if (!MUTANT(R3)) {
 *         lease_detach_hash(...);
 *     }
 *
 * The environment's NEARSIDE_MUTANT names the rule, as mutants.def lists it; without it nothing is
 * off. A name that is not in the list ends the process. Chosen before main, never changed.
 */
#pragma once

#include <stdbool.h>

enum mutant {
    MUTANT_NONE,
#define MUTANT_ROW(name, what) MUTANT_##name,
#include "mutants.def"
#undef MUTANT_ROW
};

#ifdef NEARSIDE_MUTANTS
extern enum mutant mutant_chosen;
#define MUTANT(rule) (mutant_chosen == MUTANT_##rule)
#else
#define MUTANT(rule) (MUTANT_##rule == MUTANT_NONE)
#endif
