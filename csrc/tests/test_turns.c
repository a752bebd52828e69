/* Turns of shared writers, and who syncs for everybody. Threads play processes, each with a handle and lock descriptions of its own. */
#include "harness.h"

#define MS INT64_C(1000000)
#define PLAYERS 6
#define TURNS 400

static test_root root;
static _Atomic int inside;
static _Atomic long done;

static void take_a_turn(dbz_seg *seg, int64_t timeout)
{
    if (dbz_turn_try(seg, 0, 1000 * MS) == 0)
        return;
    int entry = dbz_turn_join(seg, 0);
    CHECK(entry >= 0);
    EQUAL(dbz_turn_wait(seg, 0, (uint32_t)entry, 1000 * MS, timeout), 0);
}

static void *player(void *arg)
{
    dbz_seg *seg = test_join(&root);
    uint64_t seed = (uint64_t)(uintptr_t)arg * 77 + 5;
    for (int i = 0; i < TURNS; i++) {
        /* A lost wake-up would show as 30 s of waiting. */
        take_a_turn(seg, 30000 * MS);
        EQUAL(atomic_fetch_add(&inside, 1), 0);
        if (test_random(&seed) % 4 == 0)
            sched_yield();
        done++;
        EQUAL(atomic_fetch_sub(&inside, 1), 1);
        EQUAL(dbz_turn_drop(seg, 0), 0);
        if (test_random(&seed) % 8 == 0) {      /* lines up, and gives up */
            int entry = dbz_turn_join(seg, 0);
            CHECK(entry >= 0);
            if (dbz_turn_wait(seg, 0, (uint32_t)entry, 1000 * MS, 0) == 0)
                EQUAL(dbz_turn_drop(seg, 0), 0);
            else
                dbz_turn_leave(seg, 0, (uint32_t)entry);
        }
    }
    dbz_seg_unmap(seg);
    return NULL;
}

static void one_at_a_time_and_no_wake_up_lost(void)
{
    pthread_t threads[PLAYERS];
    root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *seg = test_join(&root);
    EQUAL(test_prefix(seg, "a"), 0);
    done = 0;
    double started = test_seconds();
    for (long i = 0; i < PLAYERS; i++)
        CHECK(pthread_create(&threads[i], NULL, player, (void *)i) == 0);
    for (int i = 0; i < PLAYERS; i++)
        pthread_join(threads[i], NULL);
    EQUAL(done, PLAYERS * TURNS);
    CHECK(test_seconds() - started < 25);
    dbz_turn_info info;
    EQUAL(dbz_turn_status(seg, 0, &info), 0);
    EQUAL(info.turn, 0);
    EQUAL(info.waiting, 0);
    CHECK(info.turns >= PLAYERS * TURNS);
    dbz_seg_unmap(seg);
    test_root_free(&root);
}

static void in_order_of_arrival(void)
{
    root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&root), *b = test_join(&root), *c = test_join(&root);
    EQUAL(test_prefix(a, "a"), 0);
    EQUAL(dbz_turn_try(a, 0, 1000 * MS), 0);
    EQUAL(dbz_turn_try(b, 0, 1000 * MS), DBZ_E_BUSY);
    uint32_t second = (uint32_t)dbz_turn_join(c, 0), first = (uint32_t)dbz_turn_join(b, 0), pids[4];
    EQUAL(dbz_turn_wait(c, 0, second, MS, 5 * MS), DBZ_E_TIMEOUT);
    EQUAL(dbz_turn_queue(a, 0, pids, 4), 2);
    EQUAL(dbz_turn_drop(a, 0), 0);
    EQUAL(dbz_turn_drop(a, 0), DBZ_E_FENCED);
    EQUAL(dbz_turn_try(a, 0, 1000 * MS), DBZ_E_BUSY);       /* free, but others wait */
    EQUAL(dbz_turn_wait(b, 0, first, MS, 5 * MS), DBZ_E_TIMEOUT);   /* not before c, within its grace */
    EQUAL(dbz_turn_wait(c, 0, second, MS, 5 * MS), 0);
    EQUAL(dbz_turn_drop(c, 0), 0);
    EQUAL(dbz_turn_wait(b, 0, first, MS, 5 * MS), 0);
    EQUAL(dbz_turn_drop(b, 0), 0);
    /* Who does not take a free turn is passed over, and comes first again when it is back. */
    EQUAL(dbz_turn_try(a, 0, MS), 0);
    first = (uint32_t)dbz_turn_join(b, 0);
    second = (uint32_t)dbz_turn_join(c, 0);
    EQUAL(dbz_turn_drop(a, 0), 0);
    double started = test_seconds();
    EQUAL(dbz_turn_wait(c, 0, second, MS, 5000 * MS), 0);
    CHECK(test_seconds() - started > 0.02);
    EQUAL(dbz_turn_drop(c, 0), 0);
    second = (uint32_t)dbz_turn_join(c, 0);
    EQUAL(dbz_turn_wait(c, 0, second, MS, 5000 * MS), 0);
    second = (uint32_t)dbz_turn_join(a, 0);
    EQUAL(dbz_turn_wait(b, 0, first, MS, 0), DBZ_E_TIMEOUT);
    EQUAL(dbz_turn_drop(c, 0), 0);
    EQUAL(dbz_turn_wait(a, 0, second, MS, 5 * MS), DBZ_E_TIMEOUT);
    EQUAL(dbz_turn_wait(b, 0, first, MS, 5 * MS), 0);
    EQUAL(dbz_turn_drop(b, 0), 0);
    dbz_turn_leave(a, 0, second);
    dbz_seg_unmap(a);
    dbz_seg_unmap(b);
    dbz_seg_unmap(c);
    test_root_free(&root);
}

static void an_end_in_good_order_is_its_holders(void)
{
    root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&root), *b = test_join(&root);
    EQUAL(test_prefix(a, "a"), 0);
    take_a_turn(a, 0);
    dbz_turn_torn(a, 0, 1);
    EQUAL(dbz_turn_end(a, 0, 3, 4096, 77), 0);
    dbz_turn_info now;
    EQUAL(dbz_turn_status(a, 0, &now), 0);
    EQUAL(now.turn, 0);
    EQUAL(now.torn, 0);
    EQUAL(now.log_number, 3);
    EQUAL(now.log_end, 4096);
    EQUAL(now.log_chain, 77);
    take_a_turn(b, 0);
    dbz_turn_torn(b, 0, 1);
    EQUAL(dbz_turn_end(a, 0, 4, 8192, 78), DBZ_E_FENCED);   /* and nothing of it stands there */
    EQUAL(dbz_turn_status(a, 0, &now), 0);
    EQUAL(now.torn, 1);
    EQUAL(now.log_number, 3);
    EQUAL(dbz_turn_drop(b, 0), 0);
    dbz_seg_unmap(a);
    dbz_seg_unmap(b);
    test_root_free(&root);
}

static void the_dead_hold_nobody_up(void)
{
    root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&root), *b = test_join(&root), *c = test_join(&root);
    dbz_turn_info info;
    EQUAL(test_prefix(a, "a"), 0);
    EQUAL(dbz_turn_try(b, 0, 1000 * MS), 0);
    CHECK(dbz_turn_join(c, 0) >= 0);
    EQUAL(dbz_turn_status(a, 0, &info), 0);
    EQUAL(info.holder, 1);
    EQUAL(dbz_turn_seize(a, 0, 0, MS), DBZ_E_BUSY);
    /* Their locks go, as in a kill; their slots stay as they were. */
    close(b->lock_fd);
    b->lock_fd = -1;
    close(c->lock_fd);
    c->lock_fd = -1;
    EQUAL(dbz_turn_status(a, 0, &info), 0);
    EQUAL(info.holder, 2);
    EQUAL(info.waiting, 1);
    uint64_t before = info.turn;
    EQUAL(dbz_turn_seize(a, 0, before, MS), 0);
    EQUAL(dbz_turn_seize(a, 0, before, MS), DBZ_E_BUSY);
    dbz_turn_sweep(a, 0);
    EQUAL(dbz_turn_status(a, 0, &info), 0);
    EQUAL(info.waiting, 0);
    EQUAL(info.holder, 1);
    EQUAL(dbz_turn_drop(a, 0), 0);
    EQUAL(dbz_turn_drop(b, 0), DBZ_E_FENCED);
    /* The next process in that slot is not taken for the one before. */
    EQUAL(dbz_turn_try(a, 0, MS), 0);
    EQUAL(dbz_proc_reclaim(a), 2);
    dbz_seg *d = test_join(&root);
    EQUAL(dbz_turn_drop(d, 0), DBZ_E_FENCED);
    EQUAL(dbz_turn_drop(a, 0), 0);
    b->registered = c->registered = 0;
    dbz_seg_unmap(b);
    dbz_seg_unmap(c);
    dbz_seg_unmap(d);
    dbz_seg_unmap(a);
    test_root_free(&root);
}

static void a_retired_slot_ends_the_wait(void)
{
    uint64_t state;
    root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&root), *b = test_join(&root);
    EQUAL(test_prefix(a, "a"), 0);
    EQUAL(dbz_lease_take(a, 0, 2, 0), 0);
    EQUAL(dbz_lease_share(a, 0, 2, 1), 0);
    EQUAL(dbz_lease_share(a, 0, 2, 1), DBZ_E_FENCED);
    EQUAL(dbz_lease_take(b, 0, 2, 0), DBZ_E_FENCED);
    EQUAL(dbz_turn_try(a, 0, MS), 0);
    uint32_t entry = (uint32_t)dbz_turn_join(b, 0);
    int pin = dbz_pin(a, 0, 1);
    CHECK(pin >= 0);
    EQUAL(dbz_prefix_retire(b, 0, 3, &state), 0);
    EQUAL(dbz_turn_wait(b, 0, entry, MS, 5000 * MS), DBZ_E_FENCED);
    EQUAL(test_prefix(b, "a"), 1);      /* the old slot is not used again while somebody has a view of it */
    EQUAL(test_prefix(b, "b"), 2);
    dbz_unpin(a, pin);
    EQUAL(test_prefix(b, "c"), 0);
    EQUAL(dbz_turn_drop(a, 0), DBZ_E_FENCED);
    EQUAL(dbz_turn_wait(b, 0, entry, MS, 5000 * MS), DBZ_E_ARG);
    dbz_seg_unmap(a);
    dbz_seg_unmap(b);
    test_root_free(&root);
}

static void *syncs_late(void *arg)
{
    dbz_seg *seg = arg;
    struct timespec nap = {0, 20000000};
    nanosleep(&nap, NULL);
    dbz_sync_end(seg, 0, 7);
    return NULL;
}

static void one_syncs_for_all(void)
{
    pthread_t thread;
    root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&root), *b = test_join(&root);
    EQUAL(test_prefix(a, "a"), 0);
    uint32_t incarnation = dbz_incarnation(a, 0);
    EQUAL(dbz_sync_begin(a, 0, 6, incarnation, 1000 * MS), 0);
    CHECK(pthread_create(&thread, NULL, syncs_late, a) == 0);
    EQUAL(dbz_sync_begin(b, 0, 7, incarnation, 10000 * MS), 1);
    pthread_join(thread, NULL);
    EQUAL(dbz_state_durable(b, 0), 7);
    EQUAL(dbz_sync_begin(a, 0, 9, incarnation, 1000 * MS), 0);
    double started = test_seconds();
    EQUAL(dbz_sync_begin(b, 0, 8, incarnation, 10 * MS), 0);    /* a is stopped: b has waited long enough */
    CHECK(test_seconds() - started < 5);
    dbz_sync_end(b, 0, 8);
    EQUAL(dbz_sync_begin(b, 0, 9, incarnation + 1, MS), 2);
    dbz_poison(a, 0);
    EQUAL(dbz_sync_begin(b, 0, 9, incarnation, MS), 2);
    dbz_seg_unmap(a);
    dbz_seg_unmap(b);
    test_root_free(&root);
}

int main(void)
{
    RUN(one_at_a_time_and_no_wake_up_lost);
    RUN(in_order_of_arrival);
    RUN(an_end_in_good_order_is_its_holders);
    RUN(the_dead_hold_nobody_up);
    RUN(a_retired_slot_ends_the_wait);
    RUN(one_syncs_for_all);
    return 0;
}
