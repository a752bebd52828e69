/* Sleeping on a shared word until another process moves it. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shared.h"

#define NS 1000000000

int64_t dbz_deadline(int64_t timeout_ns)
{
    struct timespec now;
    if (timeout_ns < 0)
        return -1;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t at = (int64_t)now.tv_sec * NS + now.tv_nsec;
    return timeout_ns > INT64_MAX - at ? INT64_MAX : at + timeout_ns;
}

int dbz_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline_ns)
{
    /* The bitset form takes an absolute deadline, so an interrupted sleep never stretches. Not FUTEX_PRIVATE: other processes wake us. */
    struct timespec at = {(time_t)(deadline_ns / NS), (long)(deadline_ns % NS)};
    long rc = syscall(SYS_futex, (void *)word, FUTEX_WAIT_BITSET, expected, deadline_ns < 0 ? NULL : &at, NULL, FUTEX_BITSET_MATCH_ANY);
    return rc < 0 && errno == ETIMEDOUT ? DBZ_E_TIMEOUT : DBZ_OK;
}

void dbz_futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, (void *)word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
