/* SPDX-License-Identifier: Apache-2.0
 *
 * mutant.c: the choice of mutant.h, made before main. Nothing at all unless the build is a mutant's.
 */
#include "mutant.h"

#ifdef NEARSIDE_MUTANTS

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum mutant mutant_chosen;

static const struct {
    enum mutant mutant;
    const char *name;
    const char *what;
} rows[] = {
#define MUTANT_ROW(name, what) {MUTANT_##name, #name, what},
#include "mutants.def"
#undef MUTANT_ROW
};

__attribute__((constructor)) static void choose(void)
{
    const char *wanted = getenv("NEARSIDE_MUTANT");
    if (wanted == NULL || wanted[0] == '\0') {
        return;
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].name, wanted) == 0) {
            mutant_chosen = rows[i].mutant;
            fprintf(stderr, "mutant %s: %s\n", wanted, rows[i].what);
            return;
        }
    }
    fprintf(stderr, "NEARSIDE_MUTANT=%s: there is no such mutant\n", wanted);
    exit(2);
}

#endif
