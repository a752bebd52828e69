/* A test harness for the C engine: CHECK, threads, and segments on a memfd. Threads play processes: each opens its own handle with its own lock file description. */
#ifndef DBZ_HARNESS_H
#define DBZ_HARNESS_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../engine.h"

#define CHECK(condition)                                                                                \
    do {                                                                                                \
        if (!(condition)) {                                                                             \
            fprintf(stderr, "%s:%d: %s: not true: %s\n", __FILE__, __LINE__, __func__, #condition);       \
            abort();                                                                                    \
        }                                                                                               \
    } while (0)

/* Compares two integers and shows both when they differ. */
#define EQUAL(got, wanted)                                                                                                      \
    do {                                                                                                                        \
        long long got_ = (long long)(got), wanted_ = (long long)(wanted);                                                       \
        if (got_ != wanted_) {                                                                                                  \
            fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, __func__, #got, got_, wanted_);             \
            abort();                                                                                                            \
        }                                                                                                                       \
    } while (0)

#define RUN(test)                                                   \
    do {                                                            \
        double started_ = test_seconds();                           \
        test();                                                     \
        printf("  %-44s %6.2f s\n", #test, test_seconds() - started_); \
        fflush(stdout);                                             \
    } while (0)

static const uint8_t TEST_ROOT[16] = "root root root!", TEST_BOOT[16] = "boot boot boot!";

static inline double test_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* xorshift64*: deterministic, one state per thread. */
static inline uint64_t test_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(0x2545f4914f6cdd1d);
}

/* A root: an unnamed segment and a lock file that can be opened any number of times. */
typedef struct {
    int fd;
    char lock[64];
} test_root;

static inline test_root test_root_new(uint64_t cache_bytes, uint64_t arena_bytes)
{
    test_root r;
    r.fd = memfd_create("dbzero-test", MFD_CLOEXEC);
    CHECK(r.fd >= 0 && fchmod(r.fd, 0600) == 0);
    CHECK(ftruncate(r.fd, (off_t)dbz_seg_size(cache_bytes, arena_bytes)) == 0);
    EQUAL(dbz_seg_format(r.fd, cache_bytes, arena_bytes, TEST_ROOT, 1, 2, TEST_BOOT), 0);
    strcpy(r.lock, "/tmp/dbzero-test-XXXXXX");
    int fd = mkstemp(r.lock);
    CHECK(fd >= 0);
    close(fd);
    return r;
}

static inline void test_root_free(test_root *r)
{
    close(r->fd);
    unlink(r->lock);
}

static inline int test_lock_file(const test_root *r)
{
    int fd = open(r->lock, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

/* A process of the root: maps, and registers. */
static inline dbz_seg *test_join(const test_root *r)
{
    dbz_seg *seg = NULL;
    EQUAL(dbz_seg_map(r->fd, test_lock_file(r), TEST_ROOT, 1, 2, TEST_BOOT, &seg), 0);
    EQUAL(dbz_proc_register(seg), 0);
    return seg;
}

/* What kill -9 does to a handle: the lock dies with its description, the slot stays as it is. */
static inline void test_kill(dbz_seg *seg)
{
    close(seg->lock_fd);
    seg->lock_fd = -1;
    seg->registered = 0;
    dbz_seg_unmap(seg);
}

/* A prefix slot that is ready, at state 1, epoch 1. */
static inline uint32_t test_prefix(dbz_seg *seg, const char *name)
{
    uint8_t hash[16] = {0};
    strncpy((char *)hash, name, sizeof hash - 1);
    int i = dbz_prefix_find(seg, hash, name);
    CHECK(i >= 0);
    dbz_prefix_reset(seg, (uint32_t)i, 7, 8);
    EQUAL(dbz_prefix_start(seg, (uint32_t)i, 1, 1, 4096, 16, 0), 0);
    return (uint32_t)i;
}

#endif
