/* SPDX-License-Identifier: Apache-2.0
 *
 * lock.c: what a shard's lock does when somebody else has it: spins for about as long as a critical
 * section lasts, then sleeps in the kernel.
 *
 *     0 free  ──lock──►  1 held  ──a second one gives up spinning──►  2 held, somebody sleeps
 *       ▲                   │                                             │
 *       └──────unlock───────┴──────────────unlock, wakes one──────────────┘
 *
 * Not a plain spinlock: with as many workers as cores a holder is preempted now and then, and
 * spinning on it would burn the time slice that it needs. Not a pthread mutex: a cache hit is 150
 * instructions, and locking and unlocking one are 70 of them; here they are 6, inlined.
 *
 * Whoever slept takes the lock as 2, since others may still be asleep: at worst one wake too many.
 * Order: taking is acquire, giving back is release, on the same word.
 */
#include "l1_priv.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 200

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void lock_wait(struct lock *l)
{
    for (int i = 0; i < SPINS; i++) {
        uint32_t is_free = 0;
        if (atomic_load_explicit(&l->state, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_weak_explicit(&l->state, &is_free, 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            return;
        }
        pause_cpu();
    }
    while (atomic_exchange_explicit(&l->state, 2, memory_order_acquire) != 0) {
        /* Returns at once if the word is no longer 2; why it returned does not matter. */
        syscall(SYS_futex, &l->state, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    }
}

void lock_wake(struct lock *l)
{
    syscall(SYS_futex, &l->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}
