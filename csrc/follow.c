/* Sleeping until one of several prefixes has something new: what the thread does that keeps a process's views at the newest states. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shared.h"

#define NS INT64_C(1000000000)
#define NAP INT64_C(20000000)      /* ns after which the caller looks up, should everything be left alone then: somebody may want that */

#ifndef SYS_futex_waitv            /* Linux 5.16; the number is the same everywhere */
#define SYS_futex_waitv 449
#endif
#ifndef FUTEX_WAITV_MAX
#define FUTEX_32 2
struct futex_waitv {
    uint64_t val, uaddr;
    uint32_t flags, reserved;
};
#endif

uint32_t dbz_follow_most(void)
{
    /* Kernels that know the call refuse an empty list as such. */
    return syscall(SYS_futex_waitv, NULL, 0, 0, NULL, CLOCK_MONOTONIC) < 0 && errno == EINVAL ? DBZ_FOLLOWED : 1;
}

static int news(dbz_prefix *x, dbz_following *f, int64_t at)
{
    uint32_t ticket = LOAD_SC(x->wakeup);
    uint64_t durable = LOAD_SC(x->durable), shown = f->state, made = f->made == NULL ? 0 : __atomic_load_n(f->made, __ATOMIC_ACQUIRE);
    if (LOAD_SC(x->incarnation) != f->incarnation || durable > (made > shown ? made : shown))
        return 1;
    if (ticket != f->ticket) {
        if (f->made == NULL || durable == f->durable || LOAD_SC(x->poisoned))
            return 1;              /* somebody called */
        f->ticket = ticket;        /* only states became durable that the caller has made itself */
        f->durable = durable;
        f->due = f->rest > 0 ? at + f->rest : f->due;
    }
    return 0;
}

int dbz_follow(dbz_seg *seg, dbz_following *items, uint32_t n, uint32_t first)
{
    struct futex_waitv set[DBZ_FOLLOWED];
    dbz_prefix *slept[DBZ_FOLLOWED];
    if (n == 0 || n > DBZ_FOLLOWED)
        return DBZ_E_ARG;
    int64_t up = dbz_deadline(NAP);
    for (;;) {
        int64_t at = dbz_deadline(0), next = INT64_MAX;
        uint32_t k = 0;
        for (uint32_t j = 0; j < n; j++) {
            uint32_t i = (j + first) % n;
            dbz_following *f = &items[i];
            dbz_prefix *x = dbz_seg_prefix(seg, f->prefix);
            if (x == NULL)
                return DBZ_E_ARG;
            if (f->due <= at && (f->again <= at || news(x, f, at)))
                return (int)i;
            if (f->due > at) {
                next = f->due < next ? f->due : next;
                continue;
            }
            next = f->again < next ? f->again : next;
            set[k] = (struct futex_waitv){.val = f->ticket, .uaddr = (uint64_t)(uintptr_t)&x->wakeup, .flags = FUTEX_32};
            slept[k++] = x;
        }
        if (k == 0 && next > up)
            next = up;
        /* Counted before the kernel compares the words: either that finds one moved, or who moves it finds us. */
        for (uint32_t i = 0; i < k; i++)
            atomic_fetch_add_explicit(&slept[i]->waiters, 1, memory_order_seq_cst);
        struct timespec until = {(time_t)(next / NS), (long)(next % NS)};
        int error = 0;
        if (k == 0)
            (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        else if (k == 1)
            (void)dbz_futex_wait(&slept[0]->wakeup, (uint32_t)set[0].val, next);
        else if (syscall(SYS_futex_waitv, set, k, 0, &until, CLOCK_MONOTONIC) < 0)
            error = errno;
        for (uint32_t i = 0; i < k; i++)
            atomic_fetch_sub_explicit(&slept[i]->waiters, 1, memory_order_seq_cst);
        if (error == ENOSYS || error == EPERM || error == EINVAL)
            return DBZ_E_IO;
        if (k == 0 && next == up)
            return DBZ_E_TIMEOUT;
    }
}
