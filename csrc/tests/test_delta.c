/* The delta index: one writer, a checkpointer and readers on one mapping. */
#include "harness.h"

static dbz_entry entry(uint64_t oid, uint64_t state)
{
    return (dbz_entry){oid, state, state * 1000 + oid, (uint32_t)(oid + state), 0};
}

static void check_entry(const dbz_entry *e, uint64_t oid)
{
    EQUAL(e->oid, oid);
    EQUAL(e->addr, e->state * 1000 + oid);
    EQUAL(e->refcount, oid + e->state);
}

static void apply_find_rotate_retire(void)
{
    test_root r = test_root_new(1 << 20, 4 << 20);
    dbz_seg *seg = test_join(&r);
    uint32_t x = test_prefix(seg, "a"), y = test_prefix(seg, "b");
    dbz_entry e, many[300];
    EQUAL(dbz_delta_find(seg, x, 16, 9, &e), DBZ_E_NOTFOUND);
    EQUAL(dbz_delta_apply(seg, x, many, 1), DBZ_E_NOSPACE);
    for (uint64_t s = 2; s <= 4; s++) {
        for (uint32_t i = 0; i < 300; i++)
            many[i] = entry(16 + i, s);
        EQUAL(dbz_delta_reserve(seg, x, 300), 0);
        EQUAL(dbz_delta_apply(seg, x, many, 300), 0);
    }
    EQUAL(dbz_delta_count(seg, x, 0), 900);
    EQUAL(dbz_delta_find(seg, x, 20, 3, &e), 0);
    EQUAL(e.state, 3);
    EQUAL(dbz_delta_find(seg, x, 20, DBZ_STATE_MASK, &e), 0);
    EQUAL(e.state, 4);
    check_entry(&e, 20);
    EQUAL(dbz_delta_find(seg, x, 20, 1, &e), DBZ_E_NOTFOUND);
    EQUAL(dbz_delta_find(seg, y, 20, 4, &e), DBZ_E_NOTFOUND);
    EQUAL(dbz_delta_rotate(seg, x, 4, 1000), 0);
    EQUAL(dbz_delta_rotate(seg, x, 4, 1000), DBZ_E_BUSY);
    EQUAL(dbz_delta_count(seg, x, 0), 0);
    EQUAL(dbz_delta_count(seg, x, 1), 900);
    EQUAL(dbz_delta_find(seg, x, 20, 4, &e), 0);
    many[0] = entry(20, 5);
    EQUAL(dbz_delta_reserve(seg, x, 1), 0);
    EQUAL(dbz_delta_apply(seg, x, many, 1), 0);
    EQUAL(dbz_delta_find(seg, x, 20, 5, &e), 0);
    EQUAL(e.state, 5);
    EQUAL(dbz_delta_find(seg, x, 20, 4, &e), 0);
    EQUAL(e.state, 4);
    dbz_entry copy[900];
    EQUAL(dbz_delta_copy(seg, x, 1, copy, 900), 900);
    for (uint32_t i = 0; i < 900; i++) {
        EQUAL(copy[i].state, 2 + i / 300);
        check_entry(&copy[i], 16 + i % 300);
    }
    EQUAL(dbz_delta_copy(seg, x, 0, copy, 10), 1);
    dbz_root_install(seg, x, 77, 1, 4);
    dbz_delta_retire(seg, x);
    EQUAL(dbz_delta_find(seg, x, 21, 9, &e), DBZ_E_NOTFOUND);
    EQUAL(dbz_delta_find(seg, x, 20, 9, &e), 0);
    dbz_prefix_info info;
    EQUAL(dbz_prefix_status(seg, x, &info), 0);
    CHECK(info.root_pointer == 77 && info.root_depth == 1 && info.root_state == 4 && info.frozen_entries == 0 && info.active_entries == 1);
    dbz_delta_retire(seg, x);
    EQUAL(dbz_delta_count(seg, x, 0), 1);
    dbz_prefix_reset(seg, x, 1, 1);
    EQUAL(dbz_delta_find(seg, x, 20, 9, &e), DBZ_E_NOTFOUND);
    dbz_seg_info s;
    EQUAL(dbz_seg_status(seg, &s), 0);
    EQUAL(s.arena_used, 0);
    dbz_seg_unmap(seg);
    test_root_free(&r);
}

/* Going far back ends at one of the newer entries, in as few steps as ever: the version chain leads on from there. */
static void hot_object(void)
{
    test_root r = test_root_new(1 << 20, 4 << 20);
    dbz_seg *seg = test_join(&r);
    uint32_t x = test_prefix(seg, "a");
    dbz_entry e;
    for (uint64_t s = 2; s <= 1001; s++) {
        dbz_entry one[2] = {entry(20, s), entry(16 + s % 3, s)};
        EQUAL(dbz_delta_reserve(seg, x, 2), 0);
        EQUAL(dbz_delta_apply(seg, x, one, 2), 0);
    }
    for (uint64_t s = 2; s <= 1001; s++) {
        EQUAL(dbz_delta_find(seg, x, 20, s, &e), 0);
        CHECK(e.state == s || (e.state > s && e.state > 1001 - 17));
        check_entry(&e, 20);
    }
    EQUAL(dbz_delta_find(seg, x, 20, 995, &e), 0);
    EQUAL(e.state, 995);
    EQUAL(dbz_delta_rotate(seg, x, 1001, 0), 0);
    EQUAL(dbz_delta_find(seg, x, 20, 1, &e), 0);
    CHECK(e.state > 1001 - 17);
    dbz_seg_unmap(seg);
    test_root_free(&r);
}

static void arena_full_then_rotated(void)
{
    test_root r = test_root_new(1 << 20, 2 << 20);       /* 8 chunks */
    dbz_seg *seg = test_join(&r);
    uint32_t x = test_prefix(seg, "a"), n = 0;
    dbz_entry e;
    EQUAL(dbz_delta_reserve(seg, x, UINT32_MAX), DBZ_E_NOSPACE);
    while (dbz_delta_reserve(seg, x, 1000) == DBZ_OK) {
        dbz_entry many[1000];
        for (uint32_t i = 0; i < 1000; i++, n++)
            many[i] = entry(n, 2);
        EQUAL(dbz_delta_apply(seg, x, many, 1000), 0);
    }
    CHECK(n > 30000);
    for (uint32_t i = 0; i < n; i++) {
        EQUAL(dbz_delta_find(seg, x, i, 2, &e), 0);
        check_entry(&e, i);
    }
    /* No chunk is left: rotation works all the same, and after retiring there is room. */
    EQUAL(dbz_delta_rotate(seg, x, 2, 100000), 0);
    EQUAL(dbz_delta_reserve(seg, x, 1000), DBZ_E_NOSPACE);
    EQUAL(dbz_delta_find(seg, x, 5, 2, &e), 0);
    dbz_delta_retire(seg, x);
    EQUAL(dbz_delta_reserve(seg, x, 1000), 0);
    e = entry(5, 3);
    EQUAL(dbz_delta_apply(seg, x, &e, 1), 0);
    EQUAL(dbz_delta_find(seg, x, 5, 3, &e), 0);
    EQUAL(e.state, 3);
    dbz_seg_unmap(seg);
    test_root_free(&r);
}

static void leaked_chunks_are_swept(void)
{
    test_root r = test_root_new(1 << 20, 2 << 20);
    dbz_seg *seg = test_join(&r);
    uint32_t x = test_prefix(seg, "a"), y = test_prefix(seg, "b");
    EQUAL(dbz_delta_reserve(seg, x, 10), 0);
    _Atomic uint32_t *map = (_Atomic uint32_t *)(void *)(seg->base + seg->at.chunks_off);
    atomic_store(&map[6], x + 1);
    atomic_store(&map[7], y + 1);
    EQUAL(dbz_delta_sweep(seg, x), 1);
    EQUAL(dbz_delta_sweep(seg, x), 0);
    EQUAL(atomic_load(&map[6]), 0);
    EQUAL(atomic_load(&map[7]), y + 1);
    EQUAL(atomic_load(&map[0]), x + 1);
    dbz_seg_unmap(seg);
    test_root_free(&r);
}

/* A writer that dies at any point inside dbz_delta_apply: `pending` is raised, some entries and heads are in, `count` is not. */
static void half_an_apply_is_undone(void)
{
    for (uint32_t done = 0; done <= 6; done++) {
        test_root r = test_root_new(1 << 20, 2 << 20);
        dbz_seg *seg = test_join(&r);
        uint32_t x = test_prefix(seg, "a");
        dbz_entry old[3] = {entry(16, 2), entry(17, 2), entry(18, 2)}, lost[6], e;
        EQUAL(dbz_delta_reserve(seg, x, 20), 0);
        EQUAL(dbz_delta_apply(seg, x, old, 3), 0);
        for (uint32_t i = 0; i < done; i++)
            lost[i] = entry(16 + i % 3, 3);
        EQUAL(dbz_delta_apply(seg, x, lost, done), 0);
        dbz_prefix *p = dbz_seg_prefix(seg, x);
        uint64_t gens = atomic_load(&p->gens);
        atomic_store(&p->delta[0].count, 3);
        atomic_store(&p->delta[0].pending, 9);
        if (done % 2) {
            dbz_entry fresh[2] = {entry(17, 3), entry(99, 3)};
            EQUAL(dbz_delta_apply(seg, x, fresh, 2), 0);
            EQUAL(dbz_delta_count(seg, x, 0), 5);
            EQUAL(dbz_delta_find(seg, x, 17, 9, &e), 0);
            EQUAL(e.state, 3);
            EQUAL(dbz_delta_find(seg, x, 99, 9, &e), 0);
        } else {
            EQUAL(dbz_delta_rotate(seg, x, 2, 0), 0);
            EQUAL(dbz_delta_count(seg, x, 1), 3);
        }
        CHECK(atomic_load(&p->gens) != gens);
        EQUAL(dbz_delta_find(seg, x, 16, 9, &e), 0);
        EQUAL(e.state, 2);
        EQUAL(dbz_delta_find(seg, x, 18, 9, &e), 0);
        EQUAL(e.state, 2);
        dbz_seg_unmap(seg);
        test_root_free(&r);
    }
}

/* Random garbage in delta words and chunks: every call returns, nothing is touched out of bounds (run under ASan). */
static void garbage_is_survived(void)
{
    test_root r = test_root_new(1 << 20, 2 << 20);
    dbz_seg *seg = test_join(&r);
    uint64_t seed = 42;
    for (int round = 0; round < 300; round++) {
        uint32_t x = test_prefix(seg, "a");
        dbz_entry many[100], e;
        for (uint32_t i = 0; i < 100; i++)
            many[i] = entry(16 + i, 2);
        EQUAL(dbz_delta_reserve(seg, x, 100), 0);
        EQUAL(dbz_delta_apply(seg, x, many, 100), 0);
        dbz_prefix *p = dbz_seg_prefix(seg, x);
        uint8_t *arena = seg->base + seg->at.arena_off;
        for (int i = 0; i < 200; i++) {
            uint32_t place = (uint32_t)(test_random(&seed) % 3);
            uint8_t *target = place == 0   ? (uint8_t *)p->delta + test_random(&seed) % (i % 10 ? 24 + 16 : sizeof p->delta)
                              : place == 1 ? arena + 4 * (16 + test_random(&seed) % 100)
                                           : arena + DBZ_CHUNK + test_random(&seed) % 3200;
            *target = (uint8_t)test_random(&seed);
        }
        for (uint64_t oid = 0; oid < 150; oid++) {
            int rc = dbz_delta_find(seg, x, oid, 5, &e);
            CHECK(rc == 0 || rc == DBZ_E_NOTFOUND || rc == DBZ_E_CORRUPT);
        }
        dbz_entry copy[200];
        dbz_delta_copy(seg, x, 0, copy, 200);
        (void)dbz_delta_reserve(seg, x, 5);
        (void)dbz_delta_apply(seg, x, many, 5);
        (void)dbz_delta_rotate(seg, x, 3, 10);
        (void)dbz_delta_retire(seg, x);
    }
    dbz_seg_unmap(seg);
    test_root_free(&r);
}

/* --- readers beside writer and checkpointer ------------------------------------------------------------------------------------------------ */

/* `table` plays the checkpointed object table: newest state per OID as of the root in force. Every commit changes CHANGED objects of OBJECTS. */
#define OBJECTS 400
#define CHANGED 25
static test_root busy_root;
static _Atomic int over;
static _Atomic uint64_t tables[2][OBJECTS];
static _Atomic uint64_t lookups, retries;
static pthread_mutex_t checkpoint_lock = PTHREAD_MUTEX_INITIALIZER;

/* State that object `oid` has at `state`, by construction: commit s changes the objects with oid % (OBJECTS / CHANGED) == s % (OBJECTS / CHANGED). */
static uint64_t expected_state(uint64_t oid, uint64_t state)
{
    uint64_t period = OBJECTS / CHANGED, back = (state % period + period - oid % period) % period;
    return state >= back + 2 ? state - back : 0;
}

static void *reader(void *arg)
{
    dbz_seg *seg = test_join(&busy_root);
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    dbz_prefix *p = dbz_seg_prefix(seg, 0);
    while (!atomic_load(&over)) {
        uint64_t oid = test_random(&seed) % OBJECTS, state = dbz_state_published(seg, 0);
        dbz_entry e;
        for (int tries = 0;; tries++) {
            CHECK(tries < 1000000);
            uint64_t gens = atomic_load(&p->gens), root = atomic_load(&p->root_no), got;
            int rc = dbz_delta_find(seg, 0, oid, state, &e);
            got = rc == DBZ_OK ? e.state : atomic_load(&tables[root & 1][oid]);
            if (rc == DBZ_E_RETRY || atomic_load(&p->gens) != gens || atomic_load(&p->root_no) != root) {
                atomic_fetch_add(&retries, 1);
                continue;
            }
            CHECK(rc == DBZ_OK || rc == DBZ_E_NOTFOUND);
            if (rc == DBZ_OK)
                check_entry(&e, oid);
            /* It may be newer than the state asked for (the real lookup goes down the chain then), never older. */
            if (got <= state)
                EQUAL(got, expected_state(oid, state));
            else
                CHECK(got == expected_state(oid, got));
            break;
        }
        atomic_fetch_add_explicit(&lookups, 1, memory_order_relaxed);
    }
    dbz_seg_unmap(seg);
    return NULL;
}

static void *checkpointer(void *arg)
{
    dbz_seg *seg = arg;
    dbz_entry *copy = malloc(1000000 * sizeof *copy);
    CHECK(copy != NULL);
    while (!atomic_load(&over)) {
        /* The writer rotates; we merge what is frozen. */
        int n = dbz_delta_count(seg, 0, 1) == 0 ? 0 : dbz_delta_copy(seg, 0, 1, copy, 1000000);
        CHECK(n >= 0);
        if (n == 0)
            continue;
        uint64_t no = atomic_load(&dbz_seg_prefix(seg, 0)->root_no);
        for (uint64_t i = 0; i < OBJECTS; i++)
            atomic_store(&tables[(no + 1) & 1][i], atomic_load(&tables[no & 1][i]));
        for (int i = 0; i < n; i++)
            atomic_store(&tables[(no + 1) & 1][copy[i].oid], copy[i].state);
        pthread_mutex_lock(&checkpoint_lock);
        dbz_root_install(seg, 0, no + 1, 1, copy[n - 1].state);
        dbz_delta_retire(seg, 0);
        pthread_mutex_unlock(&checkpoint_lock);
    }
    free(copy);
    return NULL;
}

static void readers_beside_rotation(void)
{
    pthread_t threads[3], merging;
    busy_root = test_root_new(1 << 20, 1 << 20);       /* four chunks: every rotation recycles */
    dbz_seg *seg = test_join(&busy_root), *second = test_join(&busy_root);
    EQUAL(test_prefix(seg, "a"), 0);
    for (int i = 0; i < OBJECTS; i++)
        atomic_store(&tables[0][i], 0), atomic_store(&tables[1][i], 0);
    atomic_store(&over, 0);
    CHECK(pthread_create(&merging, NULL, checkpointer, second) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, reader, (void *)(uintptr_t)(i + 1)) == 0);
    uint64_t state = 1, rotations = 0;
    double end = test_seconds() + 3;
    while (test_seconds() < end) {
        dbz_entry many[CHANGED];
        uint32_t n = 0;
        int rc = dbz_delta_reserve(seg, 0, CHANGED);
        if (rc == DBZ_E_NOSPACE || dbz_delta_count(seg, 0, 0) > 2000) {
            pthread_mutex_lock(&checkpoint_lock);
            rotations += dbz_delta_rotate(seg, 0, state, (uint32_t)(rotations % 3)) == DBZ_OK;
            pthread_mutex_unlock(&checkpoint_lock);
            continue;
        }
        EQUAL(rc, 0);
        for (uint64_t oid = (state + 1) % (OBJECTS / CHANGED); oid < OBJECTS; oid += OBJECTS / CHANGED)
            many[n++] = entry(oid, state + 1);
        EQUAL(dbz_delta_apply(seg, 0, many, n), 0);
        EQUAL(dbz_publish(seg, 0, 1, state, state + 1), 0);
        state++;
    }
    atomic_store(&over, 1);
    pthread_join(merging, NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    printf("    %llu commits, %llu rotations, %llu lookups, %llu retries\n", (unsigned long long)state, (unsigned long long)rotations,
           (unsigned long long)atomic_load(&lookups), (unsigned long long)atomic_load(&retries));
    CHECK(rotations > 10 && atomic_load(&lookups) > 1000);
    dbz_seg_unmap(second);
    dbz_seg_unmap(seg);
    test_root_free(&busy_root);
}

int main(void)
{
    RUN(apply_find_rotate_retire);
    RUN(hot_object);
    RUN(arena_full_then_rotated);
    RUN(leaked_chunks_are_swept);
    RUN(half_an_apply_is_undone);
    RUN(garbage_is_survived);
    RUN(readers_beside_rotation);
    return 0;
}
