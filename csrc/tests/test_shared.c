/* Process slots, pins, leases, publishing, waiting - one thread a process. */
#include "harness.h"

/* --- process slots ------------------------------------------------------------------------------------------------------------------------ */

static void register_release_reclaim(void)
{
    test_root r = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&r);
    EQUAL(a->slot, 0);
    CHECK(dbz_proc_alone(a));
    dbz_seg *b = test_join(&r), *c = test_join(&r);
    EQUAL(b->slot, 1);
    EQUAL(dbz_proc_register(b), 0);
    EQUAL(b->slot, 1);
    EQUAL(dbz_proc_count(a), 3);
    CHECK(!dbz_proc_alone(a));
    uint64_t generation = b->generation;
    test_kill(b);
    EQUAL(dbz_proc_alive(a, 1), 0);
    EQUAL(dbz_proc_alive(a, 2), 1);
    EQUAL(dbz_proc_alive(a, 77), 0);
    EQUAL(dbz_proc_alive(a, DBZ_PROCS), 0);
    dbz_proc_info info;
    EQUAL(dbz_proc_status(a, 1, &info), 0);
    CHECK(info.generation == generation && !info.live && info.pid == (uint32_t)getpid());
    EQUAL(dbz_proc_reclaim(a), 1);
    EQUAL(dbz_proc_reclaim(a), 0);
    b = test_join(&r);
    EQUAL(b->slot, 1);
    CHECK(b->generation > generation && b->generation % 2 == 1);
    dbz_seg_unmap(c);
    dbz_seg_unmap(b);
    CHECK(dbz_proc_alone(a));
    dbz_seg_unmap(a);
    test_root_free(&r);
}

static void full_table_is_not_fatal(void)
{
    test_root r = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&r);
    uint32_t x = test_prefix(a, "a");
    /* Every other slot looks live, and is: one description holds all the bytes. */
    int crowd = test_lock_file(&r);
    EQUAL(dbz_lock_try(crowd, 1, DBZ_PROCS - 1, 1), 0);
    for (uint32_t i = 1; i < DBZ_PROCS; i++)
        atomic_store(&dbz_seg_proc(a, i)->generation, 1);
    atomic_store(&dbz_seg_header(a)->proc_high, DBZ_PROCS);
    dbz_seg *late = test_join(&r);
    EQUAL(late->slot, -1);
    EQUAL(dbz_floor_raise(a, x, 5), 0);          /* it pins everything */
    EQUAL(dbz_oldest_pin(a, x), 0);
    EQUAL(dbz_pin(late, x, 1), DBZ_PINS);
    dbz_unpin(late, (int)DBZ_PINS);
    EQUAL(dbz_lease_take(late, x, 2, 0), 0);
    EQUAL(dbz_lease_word(a, x), 2 << 16 | 0xffff);
    EQUAL(dbz_lease_take(a, x, 3, 0), DBZ_E_BUSY);
    dbz_seg_unmap(late);
    EQUAL(dbz_floor_raise(a, x, 5), 5);
    EQUAL(dbz_lease_take(a, x, 3, 0), 0);
    close(crowd);
    EQUAL(dbz_proc_reclaim(a), (int)DBZ_PROCS - 1);
    late = test_join(&r);
    EQUAL(late->slot, 1);
    dbz_seg_unmap(late);
    dbz_seg_unmap(a);
    test_root_free(&r);
}

#define CROWD 12
static test_root crowd_root;
static _Atomic int slot_users[DBZ_PROCS];
static _Atomic int crowd_busy;

static void *come_and_go(void *arg)
{
    uint64_t seed = (uint64_t)(uintptr_t)arg * 977 + 1;
    for (int i = 0; i < 150; i++) {
        dbz_seg *seg = test_join(&crowd_root);
        CHECK(seg->slot >= 0);
        EQUAL(atomic_fetch_add(&slot_users[seg->slot], 1), 0);      /* nobody else has it */
        int pin = dbz_pin(seg, 0, 100 + test_random(&seed) % 10);
        CHECK(pin >= 0);
        if (test_random(&seed) % 4 == 0)
            dbz_proc_reclaim(seg);
        CHECK(dbz_proc_alive(seg, (uint32_t)seg->slot));
        EQUAL(dbz_seg_proc(seg, (uint32_t)seg->slot)->generation, seg->generation);
        CHECK(dbz_oldest_pin(seg, 0) <= 109);
        atomic_fetch_sub(&slot_users[seg->slot], 1);
        if (test_random(&seed) % 2)
            test_kill(seg);
        else
            dbz_seg_unmap(seg);
    }
    atomic_fetch_sub(&crowd_busy, 1);
    return NULL;
}

static void slots_are_never_shared(void)
{
    pthread_t threads[CROWD];
    crowd_root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *seg = test_join(&crowd_root);
    EQUAL(test_prefix(seg, "a"), 0);
    EQUAL(seg->slot, 0);
    atomic_store(&crowd_busy, CROWD);
    for (int i = 0; i < CROWD; i++)
        CHECK(pthread_create(&threads[i], NULL, come_and_go, (void *)(uintptr_t)(i + 1)) == 0);
    for (int i = 0; i < CROWD; i++)
        pthread_join(threads[i], NULL);
    dbz_proc_reclaim(seg);
    EQUAL(dbz_proc_count(seg), 1);
    EQUAL(dbz_oldest_pin(seg, 0), -1);
    dbz_seg_unmap(seg);
    test_root_free(&crowd_root);
}

/* --- fork --------------------------------------------------------------------------------------------------------------------------------- */

static void forked_child_inherits_nothing(void)
{
    test_root r = test_root_new(1 << 20, 1 << 20);
    dbz_seg *seg = test_join(&r), *watcher = test_join(&r);
    int guarded = test_lock_file(&r), ready[2], hold[2];
    EQUAL(dbz_fork_guard(guarded), 0);
    EQUAL(dbz_lock_try(guarded, 100000, 1, 1), 0);
    CHECK(pipe(ready) == 0 && pipe(hold) == 0);
    uint32_t depth = dbz_fork_depth();
    pid_t child = fork();
    if (child == 0) {
        char c = 'y';
        if (seg->slot != -1 || seg->lock_fd != -1 || seg->registered || dbz_fork_depth() != depth + 1 || fcntl(guarded, F_GETFD) != -1)
            c = 'n';
        if (dbz_pin(seg, 0, 1) >= 0 || dbz_proc_register(seg) != DBZ_E_ARG)
            c = 'n';
        if (dbz_seg_rejoin(seg, test_lock_file(&r)) != 0 || dbz_proc_register(seg) != 0 || seg->slot != 2)
            c = 'n';
        (void)!write(ready[1], &c, 1);
        (void)!read(hold[0], &c, 1);
        _exit(0);
    }
    char c = 0;
    CHECK(read(ready[0], &c, 1) == 1);
    EQUAL(c, 'y');
    EQUAL(dbz_proc_alive(watcher, 2), 1);
    /* The parent "dies" while its child lives on: slot and lock are free at once. */
    test_kill(seg);
    dbz_fork_unguard(guarded);
    close(guarded);
    EQUAL(dbz_proc_alive(watcher, 0), 0);
    EQUAL(dbz_lock_taken(watcher->lock_fd, 100000, 1), 0);
    CHECK(write(hold[1], &c, 1) == 1);
    CHECK(waitpid(child, NULL, 0) == child);
    EQUAL(dbz_proc_alive(watcher, 2), 0);
    EQUAL(dbz_proc_reclaim(watcher), 2);
    dbz_seg_unmap(watcher);
    close(ready[0]), close(ready[1]), close(hold[0]), close(hold[1]);
    test_root_free(&r);
}

/* --- pins --------------------------------------------------------------------------------------------------------------------------------- */

static void pins_and_floor(void)
{
    test_root r = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&r), *b = test_join(&r);
    uint32_t x = test_prefix(a, "a"), y = test_prefix(a, "b");
    EQUAL(dbz_oldest_pin(a, x), -1);
    int p = dbz_pin(b, x, 10), q = dbz_pin(b, y, 3);
    CHECK(p >= 0 && q >= 0 && p != q);
    EQUAL(dbz_oldest_pin(a, x), 10);
    EQUAL(dbz_floor_raise(a, x, 8), 8);
    EQUAL(dbz_floor_raise(a, x, 20), 10);
    EQUAL(dbz_pin(a, x, 9), DBZ_E_RETRY);
    EQUAL(dbz_repin(b, p, x, 15), p);
    EQUAL(dbz_floor_raise(a, x, 20), 15);
    EQUAL(dbz_repin(b, p, x, 14), DBZ_E_RETRY);
    EQUAL(dbz_oldest_pin(a, x), 15);
    EQUAL(dbz_oldest_pin(a, y), 3);
    dbz_unpin(b, p);
    EQUAL(dbz_floor_raise(a, x, 20), 20);
    EQUAL(dbz_floor_raise(a, x, 5), 20);
    EQUAL(dbz_pin(a, 900, 5), DBZ_E_ARG);
    EQUAL(dbz_pin(a, x, DBZ_STATE_MASK + 1), DBZ_E_ARG);
    dbz_unpin(b, q);
    /* More pins than a slot holds. */
    int pins[DBZ_PINS + 3];
    for (uint32_t i = 0; i < DBZ_PINS + 3; i++)
        pins[i] = dbz_pin(b, x, 30 + i);
    EQUAL(pins[DBZ_PINS - 1], DBZ_PINS - 1);
    EQUAL(pins[DBZ_PINS], DBZ_PINS);
    EQUAL(dbz_floor_raise(a, x, 40), 20);
    EQUAL(dbz_floor_raise(a, y, 40), 0);
    for (uint32_t i = DBZ_PINS; i < DBZ_PINS + 3; i++)
        dbz_unpin(b, pins[i]);
    EQUAL(dbz_floor_raise(a, x, 40), 30);
    /* A dead reader pins nothing once it is reclaimed. */
    test_kill(b);
    EQUAL(dbz_floor_raise(a, x, 40), 30);
    EQUAL(dbz_proc_reclaim(a), 1);
    EQUAL(dbz_floor_raise(a, x, 40), 40);
    dbz_seg_unmap(a);
    test_root_free(&r);
}

/* Readers pin a state and look whether it was dropped; the raiser drops what is below the floor it was granted. */
static test_root pin_root;
static _Atomic uint64_t newest, dropped_below;
static _Atomic int pins_over;

static void *pinner(void *arg)
{
    dbz_seg *seg = test_join(&pin_root);
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    while (!atomic_load(&pins_over)) {
        uint64_t back = test_random(&seed) % 20, now = atomic_load(&newest), state = now > back ? now - back : 1;
        int pin = dbz_pin(seg, 0, state);
        if (pin < 0) {
            EQUAL(pin, DBZ_E_RETRY);
            continue;
        }
        for (int i = 0; i < 20; i++)
            CHECK(atomic_load(&dropped_below) <= state);
        if (test_random(&seed) % 2) {
            state += 2;
            pin = dbz_repin(seg, pin, 0, state);
            CHECK(pin >= 0 && atomic_load(&dropped_below) <= state);
        }
        dbz_unpin(seg, pin);
    }
    dbz_seg_unmap(seg);
    return NULL;
}

static void a_pinned_state_is_never_dropped(void)
{
    pthread_t threads[4];
    pin_root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *seg = test_join(&pin_root);
    EQUAL(test_prefix(seg, "a"), 0);
    atomic_store(&newest, 1);
    atomic_store(&dropped_below, 0);
    atomic_store(&pins_over, 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, pinner, (void *)(uintptr_t)(i + 1)) == 0);
    uint64_t granted = 0, end = (uint64_t)(test_seconds() * 1e3) + 1500;
    while ((uint64_t)(test_seconds() * 1e3) < end) {
        uint64_t now = atomic_fetch_add(&newest, 1) + 1;
        granted = dbz_floor_raise(seg, 0, now);
        CHECK(granted <= now && granted >= atomic_load(&dropped_below));
        atomic_store(&dropped_below, granted);
    }
    atomic_store(&pins_over, 1);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(granted > 100);
    dbz_seg_unmap(seg);
    test_root_free(&pin_root);
}

/* --- lease and publishing ----------------------------------------------------------------------------------------------------------------- */

static void lease_rules(void)
{
    test_root r = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&r), *b = test_join(&r);
    uint32_t x = test_prefix(a, "a");
    EQUAL(dbz_lease_take(a, x, 0, 0), DBZ_E_ARG);
    EQUAL(dbz_lease_take(a, x, 5, 0), 0);
    EQUAL(dbz_lease_take(a, x, 5, 0), 0);
    EQUAL(dbz_lease_take(b, x, 5, 0), DBZ_E_FENCED);
    EQUAL(dbz_lease_take(b, x, 6, 0), DBZ_E_BUSY);
    EQUAL(dbz_publish(a, x, 5, 1, 2), 0);
    EQUAL(dbz_publish(a, x, 5, 1, 3), DBZ_E_ARG);
    EQUAL(dbz_publish(a, x, 5, 2, 2), DBZ_E_ARG);
    EQUAL(dbz_publish(b, x, 4, 2, 3), DBZ_E_FENCED);
    EQUAL(dbz_lease_drop(b, x, 5), DBZ_E_FENCED);
    EQUAL(dbz_lease_drop(a, x, 5), 0);
    EQUAL(dbz_lease_take(b, x, 5, 0), 0);          /* clean hand-over keeps the epoch */
    EQUAL(dbz_publish(b, x, 5, 2, 3), 0);
    EQUAL(dbz_lease_take(a, x, 6, 1), 0);
    EQUAL(dbz_publish(b, x, 5, 3, 4), DBZ_E_FENCED);
    EQUAL(dbz_lease_drop(b, x, 5), DBZ_E_FENCED);
    EQUAL(dbz_state_published(a, x), 3);
    test_kill(a);
    EQUAL(dbz_lease_take(b, x, 6, 0), DBZ_E_FENCED);
    EQUAL(dbz_lease_take(b, x, 7, 0), 0);
    /* The slot of a dead holder with another tenant is no live holder. */
    test_kill(b);
    dbz_seg *c = test_join(&r);
    EQUAL(dbz_proc_reclaim(c), 2);
    dbz_seg *d = test_join(&r), *tenant = test_join(&r);
    EQUAL(tenant->slot + 1, dbz_lease_word(c, x) & 0xffff);
    EQUAL(dbz_lease_take(c, x, 8, 0), 0);
    dbz_poison(c, x);
    EQUAL(dbz_publish(c, x, 8, 3, 4), DBZ_E_POISONED);
    /* Epochs go on beyond 24 bits. */
    dbz_prefix_reset(c, x, 1, 1);
    EQUAL(dbz_prefix_start(c, x, 0xfffffe, 3, 4096, 16, 0), 0);
    EQUAL(dbz_lease_take(c, x, 0x1000001, 0), 0);
    EQUAL(dbz_publish(c, x, 0x1000001, 3, 4), 0);
    EQUAL(dbz_publish(c, x, 0xfffffe, 4, 5), DBZ_E_FENCED);
    dbz_seg_unmap(c);
    dbz_seg_unmap(d);
    dbz_seg_unmap(tenant);
    test_root_free(&r);
}

/* Holders take the lease from each other by force and publish as fast as they can. Every successful publish is one step of one history. */
#define STEPS 100000
static test_root lease_root;
static _Atomic uint64_t next_epoch, taken[STEPS];
static _Atomic int lease_over;

static void *holder(void *arg)
{
    dbz_seg *seg = test_join(&lease_root);
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    while (!atomic_load(&lease_over)) {
        uint64_t epoch = atomic_fetch_add(&next_epoch, 1);
        if (dbz_lease_take(seg, 0, epoch, 1) != DBZ_OK)
            continue;
        uint64_t state = dbz_state_published(seg, 0);
        int rounds = (int)(test_random(&seed) % 50);
        for (int i = 0; i < rounds && state < STEPS - 1; i++) {
            int rc = dbz_publish(seg, 0, epoch, state, state + 1);
            if (rc != DBZ_OK) {
                EQUAL(rc, DBZ_E_FENCED);
                break;
            }
            state++;
            EQUAL(atomic_exchange(&taken[state], epoch), 0);      /* nobody else made this state */
        }
        if (state >= STEPS - 1)
            break;
    }
    dbz_seg_unmap(seg);
    return NULL;
}

static void one_history(void)
{
    pthread_t threads[4];
    lease_root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *seg = test_join(&lease_root);
    EQUAL(test_prefix(seg, "a"), 0);
    atomic_store(&next_epoch, 2);
    atomic_store(&lease_over, 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, holder, (void *)(uintptr_t)(i + 1)) == 0);
    struct timespec nap = {1, 500000000};
    nanosleep(&nap, NULL);
    atomic_store(&lease_over, 1);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    uint64_t last = dbz_state_published(seg, 0), epoch = 0;
    CHECK(last > 100);
    for (uint64_t s = 2; s <= last; s++) {
        CHECK(atomic_load(&taken[s]) >= epoch);                   /* epochs never go back along the history */
        epoch = atomic_load(&taken[s]);
    }
    dbz_seg_unmap(seg);
    test_root_free(&lease_root);
}

static test_root handover_root;

static void *take_when_free(void *arg)
{
    dbz_seg *seg = arg;
    uint64_t word;
    while ((word = dbz_lease_word(seg, 0)) & 0xffff)
        EQUAL(dbz_lease_wait(seg, 0, word, 20000000000), 0);
    EQUAL(dbz_lease_take(seg, 0, 2, 0), 0);
    return NULL;
}

static void lease_wait_wakes(void)
{
    pthread_t thread;
    handover_root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *a = test_join(&handover_root), *b = test_join(&handover_root);
    EQUAL(test_prefix(a, "a"), 0);
    EQUAL(dbz_lease_take(a, 0, 2, 0), 0);
    EQUAL(dbz_lease_wait(b, 0, dbz_lease_word(b, 0), 5000000), DBZ_E_TIMEOUT);
    double started = test_seconds();
    CHECK(pthread_create(&thread, NULL, take_when_free, b) == 0);
    struct timespec nap = {0, 30000000};
    nanosleep(&nap, NULL);
    EQUAL(dbz_lease_drop(a, 0, 2), 0);
    pthread_join(thread, NULL);
    CHECK(test_seconds() - started < 10);
    EQUAL(dbz_lease_word(a, 0) & 0xffff, b->slot + 1);
    dbz_seg_unmap(a);
    dbz_seg_unmap(b);
    test_root_free(&handover_root);
}

/* --- waiting ------------------------------------------------------------------------------------------------------------------------------ */

static test_root wait_root;
#define COMMITS 20000

static void *follower(void *arg)
{
    (void)arg;
    dbz_seg *seg = test_join(&wait_root);
    uint32_t incarnation = dbz_incarnation(seg, 0);
    for (uint64_t seen = 1; seen < COMMITS;) {
        /* No timeout: a lost wake-up hangs the test. */
        EQUAL(dbz_wait(seg, 0, seen, incarnation, 30000000000), 0);
        uint64_t now = dbz_state_durable(seg, 0);
        CHECK(now >= seen);
        seen = now;
    }
    dbz_seg_unmap(seg);
    return NULL;
}

static void no_wake_is_lost(void)
{
    pthread_t threads[3];
    wait_root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *seg = test_join(&wait_root);
    EQUAL(test_prefix(seg, "a"), 0);
    uint32_t incarnation = dbz_incarnation(seg, 0);
    double started = test_seconds();
    EQUAL(dbz_wait(seg, 0, 1, incarnation, 20000000), DBZ_E_TIMEOUT);
    CHECK(test_seconds() - started > 0.015);
    EQUAL(dbz_wait(seg, 0, 0, incarnation, -1), 0);
    EQUAL(dbz_wait(seg, 0, 1, incarnation + 1, -1), 0);
    EQUAL(dbz_wait(seg, 800, 1, 0, -1), DBZ_E_ARG);
    uint32_t ticket = dbz_ticket(seg, 0);
    dbz_wake(seg, 0);
    EQUAL(dbz_wait_ticket(seg, 0, ticket, 1, incarnation, -1), 0);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, follower, NULL) == 0);
    uint64_t seed = 3;
    for (uint64_t s = 2; s <= COMMITS; s++) {
        dbz_durable(seg, 0, s);
        if (test_random(&seed) % 256 == 0) {
            struct timespec nap = {0, 100000};
            nanosleep(&nap, NULL);
        }
    }
    dbz_durable(seg, 0, 5);                      /* never goes back */
    EQUAL(dbz_state_durable(seg, 0), COMMITS);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    dbz_prefix_info info;
    EQUAL(dbz_prefix_status(seg, 0, &info), 0);
    EQUAL(info.waiters, 0);
    dbz_seg_unmap(seg);
    test_root_free(&wait_root);
}

/* --- locks and watching files --------------------------------------------------------------------------------------------------------------- */

static void locks(void)
{
    test_root r = test_root_new(1 << 20, 1 << 20);
    int a = test_lock_file(&r), b = test_lock_file(&r);
    EQUAL(dbz_lock_try(a, 5, 1, 0), 0);
    EQUAL(dbz_lock_try(b, 5, 1, 0), 0);
    EQUAL(dbz_lock_try(b, 5, 1, 1), DBZ_E_BUSY);
    EQUAL(dbz_lock_drop(a, 5, 1), 0);
    EQUAL(dbz_lock_try(b, 5, 1, 1), 0);
    EQUAL(dbz_lock_wait(a, 5, 1, 0, 3000000), DBZ_E_TIMEOUT);
    EQUAL(dbz_lock_taken(a, 0, 10), 1);
    EQUAL(dbz_lock_taken(a, 6, 10), 0);
    close(b);
    EQUAL(dbz_lock_wait(a, 5, 1, 1, -1), 0);
    EQUAL(dbz_lock_try(-1, 5, 1, 1), DBZ_E_IO);
    close(a);
    test_root_free(&r);
}

/* --- following several prefixes ----------------------------------------------------------------------------------------------------------- */

#define FOLLOWED 3u
#define ROUNDS 4000u
#define NEVER INT64_MAX

static int64_t in_the_future(int64_t ns)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec + ns;
}

static dbz_following noted(dbz_seg *seg, uint32_t prefix, uint64_t state)
{
    dbz_following f = {.prefix = prefix, .ticket = dbz_ticket(seg, prefix), .state = state, .again = NEVER};
    f.durable = dbz_state_durable(seg, prefix);
    f.incarnation = dbz_incarnation(seg, prefix);
    return f;
}

static void *follower_of_all(void *arg)
{
    (void)arg;
    dbz_seg *seg = test_join(&wait_root);
    uint32_t most = dbz_follow_most(), n = most < FOLLOWED ? 1 : FOLLOWED, done = 0, first = 0;
    dbz_following items[FOLLOWED];
    for (uint32_t i = 0; i < n; i++)
        items[i] = noted(seg, i, 1);
    while (done != (1u << n) - 1) {
        int place = dbz_follow(seg, items, n, first);      /* a lost wake-up hangs the test */
        CHECK(place >= 0 && (uint32_t)place < n);
        first = (uint32_t)place + 1;
        uint64_t state = items[place].state;
        items[place] = noted(seg, (uint32_t)place, 0);
        items[place].state = items[place].durable;
        CHECK(items[place].state >= state);      /* the same: its wake-up came after it was seen */
        if (items[place].state == ROUNDS)
            done |= 1u << place;
    }
    dbz_seg_unmap(seg);
    return NULL;
}

static void following(void)
{
    wait_root = test_root_new(1 << 20, 1 << 20);
    dbz_seg *seg = test_join(&wait_root);
    const char *names[FOLLOWED] = {"a", "b", "c"};
    for (uint32_t i = 0; i < FOLLOWED; i++)
        EQUAL(test_prefix(seg, names[i]), (int)i);
    dbz_following items[2] = {noted(seg, 0, 1), noted(seg, 1, 1)};
    EQUAL(dbz_follow(seg, items, 0, 0), DBZ_E_ARG);
    EQUAL(dbz_follow(seg, items, DBZ_FOLLOWED + 1, 0), DBZ_E_ARG);
    items[0].due = in_the_future(50000000);
    double started = test_seconds();
    EQUAL(dbz_follow(seg, items, 1, 0), DBZ_E_TIMEOUT);                  /* left alone: the caller may look up */
    CHECK(test_seconds() - started > 0.01);
    dbz_wake(seg, 0);
    EQUAL(dbz_follow(seg, items, 1, 0), DBZ_E_TIMEOUT);
    items[0].due = 0;
    EQUAL(dbz_follow(seg, items, 1, 0), 0);                              /* it was called */
    items[0] = noted(seg, 0, 1);
    items[0].again = in_the_future(20000000);
    started = test_seconds();
    EQUAL(dbz_follow(seg, items, 1, 0), 0);
    CHECK(test_seconds() - started > 0.015);
    items[0].incarnation++;
    EQUAL(dbz_follow(seg, items, 1, 7), 0);
    /* What the caller has made itself is no news; what others make is, and so is a call. */
    uint64_t made = 5;
    items[0] = noted(seg, 0, 1);
    items[0].made = &made;
    items[0].again = in_the_future(20000000);
    dbz_durable(seg, 0, 5);
    started = test_seconds();
    EQUAL(dbz_follow(seg, items, 1, 0), 0);
    CHECK(test_seconds() - started > 0.015);
    items[0].again = NEVER;
    dbz_wake(seg, 0);
    EQUAL(dbz_follow(seg, items, 1, 0), 0);
    items[0] = noted(seg, 0, 5);
    items[0].made = &made;
    dbz_durable(seg, 0, 6);
    EQUAL(dbz_follow(seg, items, 1, 0), 0);
    /* The one that is first in turn. */
    items[0] = noted(seg, 0, 1);
    items[1] = noted(seg, 1, 0);
    EQUAL(dbz_follow(seg, items, 2, 0), 0);
    EQUAL(dbz_follow(seg, items, 2, 1), 1);
    EQUAL(dbz_follow(seg, items, 2, 2), 0);
    items[0].prefix = DBZ_PREFIXES;
    EQUAL(dbz_follow(seg, items, 2, 0), DBZ_E_ARG);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        CHECK(pthread_create(&threads[i], NULL, follower_of_all, NULL) == 0);
    uint64_t seed = 4;
    for (uint64_t s = 7; s <= ROUNDS; s++)
        for (uint32_t i = 0; i < FOLLOWED; i++) {
            dbz_durable(seg, (uint32_t)((i + s) % FOLLOWED), s);
            if (test_random(&seed) % 256 == 0) {
                struct timespec nap = {0, 100000};
                nanosleep(&nap, NULL);
            }
        }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < FOLLOWED; i++) {
        dbz_prefix_info info;
        EQUAL(dbz_prefix_status(seg, i, &info), 0);
        EQUAL(info.waiters, 0);
    }
    dbz_seg_unmap(seg);
    test_root_free(&wait_root);
}

static void naming(void)
{
    char dir[] = "/tmp/dbzero-named-XXXXXX", path[64], other[64];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/log", dir);
    snprintf(other, sizeof other, "%s/log/other", dir);
    EQUAL(dbz_named(path), 0);
    int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    EQUAL(dbz_named(path), 1);
    EQUAL(dbz_named(other), 0);
    EQUAL(dbz_same_file(file, path), 1);
    EQUAL(dbz_same_file(file, dir), 0);
    EQUAL(dbz_same_file(-1, path), -EBADF);
    CHECK(unlink(path) == 0);
    EQUAL(dbz_named(path), 0);
    EQUAL(dbz_same_file(file, path), 0);
    close(file);
    CHECK(rmdir(dir) == 0);
}

static void watching(void)
{
    char dir[] = "/tmp/dbzero-watch-XXXXXX", path[64];
    CHECK(mkdtemp(dir) != NULL);
    int fd = dbz_watch_open(dir);
    CHECK(fd >= 0);
    EQUAL(dbz_watch_open("/nowhere at all"), DBZ_E_IO);
    EQUAL(dbz_watch_wait(fd, 2000000), DBZ_E_TIMEOUT);
    snprintf(path, sizeof path, "%s/log", dir);
    int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(write(file, "x", 1) == 1);
    EQUAL(dbz_watch_wait(fd, -1), 0);
    EQUAL(dbz_watch_wait(fd, 0), DBZ_E_TIMEOUT);       /* drained */
    CHECK(write(file, "y", 1) == 1);
    EQUAL(dbz_watch_wait(fd, 5000000000), 0);
    close(file);
    close(fd);
    unlink(path);
    rmdir(dir);
}

int main(void)
{
    RUN(register_release_reclaim);
    RUN(full_table_is_not_fatal);
    RUN(slots_are_never_shared);
    RUN(forked_child_inherits_nothing);
    RUN(pins_and_floor);
    RUN(a_pinned_state_is_never_dropped);
    RUN(lease_rules);
    RUN(one_history);
    RUN(lease_wait_wakes);
    RUN(no_wake_is_lost);
    RUN(following);
    RUN(locks);
    RUN(naming);
    RUN(watching);
    return 0;
}
