/* Turns of shared writers, and who syncs for all of them. The argument stands above dbz_prefix in segment.h; models: stress/models/turn.pml, group_commit.pml. */
#include <string.h>

#include "shared.h"

#define GRACE INT64_C(30000000)   /* ns a waiter has to take a free turn before the next one may */

static int64_t now(void)
{
    return dbz_deadline(0);
}

static uint64_t process_word(const dbz_seg *seg)
{
    return seg->slot < 0 ? 0 : seg->generation << 16 | ((uint64_t)seg->slot + 1);
}

static int lives(dbz_seg *seg, uint64_t word)
{
    uint32_t index = (uint32_t)(word & 0xffff) - 1;
    dbz_proc *p = dbz_seg_proc(seg, index);
    if (word == process_word(seg))
        return 1;
    return p != NULL && LOAD(p->generation) << 16 == (word & ~UINT64_C(0xffff)) && dbz_proc_alive(seg, index);
}

static void bump(dbz_waiting *w)
{
    atomic_fetch_add_explicit(&w->word, 1, memory_order_seq_cst);
    dbz_futex_wake(&w->word);
}

/* The earliest waiter that is not passed over, and how many are before `ticket`. NULL: none. */
static dbz_waiting *earliest(dbz_prefix *x, uint64_t ticket, uint32_t *before)
{
    dbz_waiting *first = NULL;
    uint64_t least = UINT64_MAX;
    *before = 0;
    for (uint32_t i = 0; i < DBZ_QUEUE; i++) {
        if (i % 64 == 0 && LOAD_SC(x->waiting[i / 64]) == 0) {
            i += 63;
            continue;
        }
        if (!(LOAD_SC(x->waiting[i / 64]) >> (i % 64) & 1))
            continue;
        dbz_waiting *w = &x->queue[i];
        uint64_t t = LOAD_SC(w->ticket);
        if (t == 0 || LOAD_SC(w->skipped))
            continue;
        *before += t < ticket;
        if (t < least) {
            least = t;
            first = w;
        }
    }
    return first;
}

static int anybody(dbz_prefix *x)
{
    for (uint32_t i = 0; i < DBZ_QUEUE / 64; i++)
        if (LOAD_SC(x->waiting[i]) != 0)
            return 1;
    return 0;
}

void dbz_turn_alarm(dbz_prefix *x)
{
    for (uint32_t i = 0; i < DBZ_QUEUE; i++)
        if (LOAD_SC(x->waiting[i / 64]) >> (i % 64) & 1)
            bump(&x->queue[i]);
}

static void wake_next(dbz_prefix *x)
{
    uint32_t before;
    if (!anybody(x))
        return;
    dbz_waiting *w = earliest(x, 0, &before);
    if (w != NULL)
        bump(w);
    else
        dbz_turn_alarm(x);   /* all were passed over; some may have come back */
}

void dbz_turn_clear(dbz_prefix *x)
{
    STORE(x->turn, 0);
    STORE(x->turns, 0);
    STORE(x->turn_until, 0);
    STORE(x->freed, 0);
    STORE(x->tickets, 0);
    STORE(x->torn, 0);
    STORE(x->syncing, 0);
    STORE(x->log_number, 0);
    STORE(x->log_end, 0);
    STORE(x->log_chain, 0);
    for (uint32_t i = 0; i < DBZ_QUEUE / 64; i++)
        STORE(x->waiting[i], 0);
    for (uint32_t i = 0; i < DBZ_QUEUE; i++) {
        STORE(x->queue[i].ticket, 0);
        STORE(x->queue[i].skipped, 0);
        STORE(x->queue[i].claim, 0);
    }
}

static void begin(dbz_prefix *x, int64_t allowed)
{
    atomic_fetch_add_explicit(&x->turns, 1, memory_order_relaxed);
    STORE(x->turn_until, (uint64_t)dbz_deadline(allowed));
}

static int take(dbz_seg *seg, dbz_prefix *x, uint64_t from, int64_t allowed)
{
    if (!CAS_SC(x->turn, from, process_word(seg)))
        return DBZ_E_BUSY;
    begin(x, allowed);
    return DBZ_OK;
}

#define PREFIX_OR_FAIL                                                                                                                                         \
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);                                                                                                               \
    if (x == NULL)                                                                                                                                             \
        return DBZ_E_ARG;                                                                                                                                      \
    if (process_word(seg) == 0)                                                                                                                                \
        return DBZ_E_FULL

int dbz_turn_try(dbz_seg *seg, uint32_t prefix, int64_t allowed)
{
    PREFIX_OR_FAIL;
    if (LOAD(x->assigned) != 1)
        return DBZ_E_FENCED;
    return LOAD_SC(x->turn) != 0 || anybody(x) ? DBZ_E_BUSY : take(seg, x, 0, allowed);
}

int dbz_turn_seize(dbz_seg *seg, uint32_t prefix, uint64_t word, int64_t allowed)
{
    PREFIX_OR_FAIL;
    return take(seg, x, word, allowed);
}

int dbz_turn_extend(dbz_seg *seg, uint32_t prefix, int64_t allowed)
{
    PREFIX_OR_FAIL;
    if (LOAD(x->turn) != process_word(seg))
        return DBZ_E_FENCED;
    STORE(x->turn_until, (uint64_t)dbz_deadline(allowed));
    return DBZ_OK;
}

int dbz_turn_drop(dbz_seg *seg, uint32_t prefix)
{
    PREFIX_OR_FAIL;
    uint64_t mine = process_word(seg);
    if (LOAD(x->turn) != mine)
        return DBZ_E_FENCED;
    STORE(x->turn_until, 0);
    STORE(x->freed, (uint64_t)now());
    if (!CAS_SC(x->turn, mine, 0))
        return DBZ_E_FENCED;
    wake_next(x);
    return DBZ_OK;
}

int dbz_turn_end(dbz_seg *seg, uint32_t prefix, uint64_t number, uint64_t end, uint64_t chain)
{
    PREFIX_OR_FAIL;
    if (LOAD(x->turn) != process_word(seg))
        return DBZ_E_FENCED;
    dbz_log_place(seg, prefix, number, end, chain);
    STORE(x->torn, 0);
    return dbz_turn_drop(seg, prefix);
}

int dbz_turn_join(dbz_seg *seg, uint32_t prefix)
{
    PREFIX_OR_FAIL;
    for (uint32_t i = 0; i < DBZ_QUEUE; i++) {
        dbz_waiting *w = &x->queue[i];
        uint64_t none = 0;
        if (LOAD(w->claim) != 0 || !CAS(w->claim, none, process_word(seg)))
            continue;
        STORE(w->skipped, 0);
        STORE_SC(w->ticket, atomic_fetch_add_explicit(&x->tickets, 1, memory_order_seq_cst) + 1);
        atomic_fetch_or_explicit(&x->waiting[i / 64], UINT64_C(1) << (i % 64), memory_order_seq_cst);
        return (int)i;
    }
    return DBZ_E_FULL;
}

/* Caller has the claim. */
static void empty(dbz_prefix *x, uint32_t entry)
{
    dbz_waiting *w = &x->queue[entry];
    atomic_fetch_and_explicit(&x->waiting[entry / 64], ~(UINT64_C(1) << (entry % 64)), memory_order_seq_cst);
    STORE_SC(w->ticket, 0);
    STORE(w->claim, 0);
}

void dbz_turn_leave(dbz_seg *seg, uint32_t prefix, uint32_t entry)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL || entry >= DBZ_QUEUE || LOAD(x->queue[entry].claim) != process_word(seg))
        return;
    empty(x, entry);
    /* The wake-up may have been for us. */
    if (LOAD_SC(x->turn) == 0)
        wake_next(x);
}

void dbz_turn_sweep(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    uint64_t mine = process_word(seg);
    if (x == NULL || mine == 0)
        return;
    for (uint32_t i = 0; i < DBZ_QUEUE; i++) {
        uint64_t claim = LOAD(x->queue[i].claim);
        if (claim != 0 && !lives(seg, claim) && CAS(x->queue[i].claim, claim, mine))
            empty(x, i);
    }
    if (LOAD_SC(x->turn) == 0)
        wake_next(x);
}

/* The turn was free for longer than those before `ticket` had to take it: they are dead, stopped or starved. */
static void pass_over(dbz_prefix *x, uint64_t ticket)
{
    for (uint32_t i = 0; i < DBZ_QUEUE; i++) {
        uint64_t t = LOAD_SC(x->queue[i].ticket);
        if (t != 0 && t < ticket)
            STORE_SC(x->queue[i].skipped, 1);
    }
}

int dbz_turn_wait(dbz_seg *seg, uint32_t prefix, uint32_t entry, int64_t allowed, int64_t timeout)
{
    PREFIX_OR_FAIL;
    if (entry >= DBZ_QUEUE || LOAD(x->queue[entry].claim) != process_word(seg))
        return DBZ_E_ARG;
    dbz_waiting *w = &x->queue[entry];
    uint64_t ticket = LOAD(w->ticket);
    int64_t deadline = dbz_deadline(timeout);
    for (;;) {
        uint32_t word = LOAD_SC(w->word);
        STORE_SC(w->skipped, 0);
        if (LOAD(x->assigned) != 1 || LOAD(w->claim) != process_word(seg))
            return DBZ_E_FENCED;
        int64_t until = deadline;
        if (LOAD_SC(x->turn) == 0) {
            uint32_t before;
            (void)earliest(x, ticket, &before);
            int64_t mine = (int64_t)LOAD(x->freed) + GRACE * before;
            if (before == 0 || now() >= mine) {
                if (take(seg, x, 0, allowed) == DBZ_OK) {
                    if (before != 0)
                        pass_over(x, ticket);
                    empty(x, entry);
                    return DBZ_OK;
                }
                continue;
            }
            until = mine < deadline ? mine : deadline;
        }
        if (dbz_futex_wait(&w->word, word, until) == DBZ_E_TIMEOUT && until == deadline)
            return DBZ_E_TIMEOUT;
    }
}

int dbz_turn_status(dbz_seg *seg, uint32_t prefix, dbz_turn_info *out)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    memset(out, 0, sizeof *out);
    out->turns = LOAD(x->turns);
    out->until = LOAD(x->turn_until);
    out->turn = LOAD_SC(x->turn);
    out->freed = LOAD(x->freed);
    out->now = (uint64_t)now();
    out->torn = LOAD(x->torn);
    out->log_number = LOAD(x->log_number);
    out->log_end = LOAD(x->log_end);
    out->log_chain = LOAD(x->log_chain);
    for (uint32_t i = 0; i < DBZ_QUEUE; i++)
        out->waiting += LOAD_SC(x->waiting[i / 64]) >> (i % 64) & 1;
    if (out->turn != 0) {
        out->holder = lives(seg, out->turn) ? 1 : 2;
        dbz_proc *p = dbz_seg_proc(seg, (uint32_t)(out->turn & 0xffff) - 1);
        out->pid = p == NULL ? 0 : LOAD(p->pid);
    }
    return DBZ_OK;
}

int dbz_turn_queue(dbz_seg *seg, uint32_t prefix, uint32_t *pids, uint32_t cap)
{
    PREFIX_OR_FAIL;
    uint32_t found = 0;
    uint64_t last = 0;
    while (found < cap) {
        uint64_t next = UINT64_MAX, claim = 0;
        for (uint32_t i = 0; i < DBZ_QUEUE; i++) {
            uint64_t t = LOAD_SC(x->queue[i].ticket), c = LOAD(x->queue[i].claim);
            if (t > last && t < next && c != 0) {
                next = t;
                claim = c;
            }
        }
        if (claim == 0)
            break;
        last = next;
        dbz_proc *p = dbz_seg_proc(seg, (uint32_t)(claim & 0xffff) - 1);
        pids[found++] = p == NULL ? 0 : LOAD(p->pid);
    }
    return (int)found;
}

int dbz_turn_wanted(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    return x != NULL && anybody(x);
}

void dbz_turn_torn(dbz_seg *seg, uint32_t prefix, uint32_t torn)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x != NULL)
        STORE(x->torn, torn);
}

void dbz_log_place(dbz_seg *seg, uint32_t prefix, uint64_t number, uint64_t end, uint64_t chain)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return;
    STORE(x->log_number, number);
    STORE(x->log_end, end);
    STORE(x->log_chain, chain);
}

uint64_t dbz_log_number(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    return x == NULL ? 0 : LOAD(x->log_number);
}

int dbz_sync_begin(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t incarnation, int64_t patience)
{
    PREFIX_OR_FAIL;
    uint32_t mine = (uint32_t)seg->slot + 1;
    int64_t deadline = dbz_deadline(patience);
    for (;;) {
        uint32_t none = 0, ticket = LOAD_SC(x->wakeup);
        if (LOAD(x->incarnation) != incarnation || LOAD(x->poisoned))
            return 2;
        if (LOAD_SC(x->durable) >= state)
            return 1;
        if (CAS_SC(x->syncing, none, mine))
            return DBZ_OK;
        atomic_fetch_add_explicit(&x->waiters, 1, memory_order_seq_cst);
        int rc = DBZ_OK;
        if (LOAD_SC(x->wakeup) == ticket && LOAD_SC(x->syncing) != 0)
            rc = dbz_futex_wait(&x->wakeup, ticket, deadline);
        atomic_fetch_sub_explicit(&x->waiters, 1, memory_order_seq_cst);
        if (rc == DBZ_E_TIMEOUT) {
            STORE_SC(x->syncing, mine);
            return DBZ_OK;
        }
    }
}

void dbz_sync_end(dbz_seg *seg, uint32_t prefix, uint64_t state)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return;
    /* Free before the wake-up in dbz_durable, so that the next one can begin. Whoever's it is by now: it is only a hint. */
    STORE_SC(x->syncing, 0);
    dbz_durable(seg, prefix, state);
}
