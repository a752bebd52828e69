/* The write lease, publishing, durability and waiting for it. The argument stands above dbz_prefix in segment.h; model: stress/models/lease.pml. */
#include <time.h>

#include "shared.h"

static uint64_t owner_word(const dbz_seg *seg, uint64_t epoch)
{
    return epoch << 16 | (seg->slot < 0 ? DBZ_NO_SLOT : (uint64_t)seg->slot + 1);
}

/* 1 when epoch a is newer than b, both cut to 24 bits. */
static int newer(uint64_t a, uint64_t b)
{
    uint64_t ahead = (a - b) & DBZ_EPOCH24;
    return ahead != 0 && ahead < (DBZ_EPOCH24 + 1) / 2;
}

static int holder_lives(dbz_seg *seg, dbz_prefix *x, uint64_t word)
{
    uint32_t owner = (uint32_t)(word & 0xffff);
    if (owner == DBZ_GROUP)
        return 0;   /* the turn says who of them writes, and its holder is who comes here */
    if (owner == 0 || owner == (owner_word(seg, 0) & 0xffff))
        return 0;
    if (owner == DBZ_NO_SLOT)
        return seg->lock_fd >= 0 && dbz_lock_taken(seg->lock_fd, DBZ_PROCS, 1) != 0;
    dbz_proc *p = dbz_seg_proc(seg, owner - 1);
    return p != NULL && LOAD(p->generation) == LOAD(x->owner_generation) && dbz_proc_alive(seg, owner - 1);
}

int dbz_lease_take(dbz_seg *seg, uint32_t prefix, uint64_t epoch, int force)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL || epoch == 0 || epoch >> 48 != 0)
        return DBZ_E_ARG;
    uint64_t word = LOAD(x->lease), mine = owner_word(seg, epoch);
    do {
        if (word == mine)
            break;
        /* A clean hand-over keeps the epoch; whoever replaces an owner needs a newer one. */
        if (word >> 16 > epoch || (word >> 16 == epoch && (word & 0xffff) != 0))
            return DBZ_E_FENCED;
        if (!force && holder_lives(seg, x, word))
            return DBZ_E_BUSY;
    } while (!CAS(x->lease, word, mine));
    STORE(x->owner_generation, seg->generation);
    /* From the lease word to the published word a newer taker may overtake us: its epoch stands there then, and we are fenced. */
    uint64_t cut = epoch & DBZ_EPOCH24, seen = LOAD(x->published);
    do {
        if (seen >> DBZ_STATE_BITS == cut)
            return DBZ_OK;
        if (newer(seen >> DBZ_STATE_BITS, cut))
            return DBZ_E_FENCED;
    } while (!CAS(x->published, seen, cut << DBZ_STATE_BITS | (seen & DBZ_STATE_MASK)));
    return DBZ_OK;
}

int dbz_lease_drop(dbz_seg *seg, uint32_t prefix, uint64_t epoch)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    uint64_t mine = owner_word(seg, epoch);
    if (!CAS(x->lease, mine, epoch << 16))
        return DBZ_E_FENCED;
    atomic_fetch_add_explicit(&x->lease_wakeup, 1, memory_order_seq_cst);
    if (LOAD_SC(x->lease_waiters) != 0)
        dbz_futex_wake(&x->lease_wakeup);
    return DBZ_OK;
}

int dbz_lease_share(dbz_seg *seg, uint32_t prefix, uint64_t epoch, int on)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    uint64_t mine = owner_word(seg, epoch), group = epoch << 16 | DBZ_GROUP, from = on ? mine : group;
    return CAS(x->lease, from, on ? group : mine) ? DBZ_OK : DBZ_E_FENCED;
}

uint64_t dbz_lease_word(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    return x == NULL ? 0 : LOAD(x->lease);
}

int dbz_lease_wait(dbz_seg *seg, uint32_t prefix, uint64_t word, int64_t timeout_ns)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    int rc = DBZ_OK;
    int64_t deadline = dbz_deadline(timeout_ns);
    atomic_fetch_add_explicit(&x->lease_waiters, 1, memory_order_seq_cst);
    uint32_t ticket = LOAD_SC(x->lease_wakeup);
    if (LOAD_SC(x->lease) == word)
        rc = dbz_futex_wait(&x->lease_wakeup, ticket, deadline);
    atomic_fetch_sub_explicit(&x->lease_waiters, 1, memory_order_seq_cst);
    return rc;
}

int dbz_publish(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t state, uint64_t next)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL || state > DBZ_STATE_MASK || next > DBZ_STATE_MASK || next <= state)
        return DBZ_E_ARG;
    if (LOAD(x->poisoned))
        return DBZ_E_POISONED;
    uint64_t cut = (epoch & DBZ_EPOCH24) << DBZ_STATE_BITS, seen = cut | state;
    if (CAS(x->published, seen, cut | next))
        return DBZ_OK;
    return (seen & ~DBZ_STATE_MASK) != cut ? DBZ_E_FENCED : DBZ_E_ARG;
}

uint64_t dbz_state_published(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    return x == NULL ? 0 : LOAD(x->published) & DBZ_STATE_MASK;
}

uint64_t dbz_state_durable(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    return x == NULL ? 0 : LOAD(x->durable);
}

uint32_t dbz_incarnation(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    return x == NULL ? 0 : LOAD(x->incarnation);
}

void dbz_wake(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return;
    atomic_fetch_add_explicit(&x->wakeup, 1, memory_order_seq_cst);
    if (LOAD_SC(x->waiters) != 0)
        dbz_futex_wake(&x->wakeup);
}

void dbz_durable(dbz_seg *seg, uint32_t prefix, uint64_t state)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return;
    uint64_t now = LOAD(x->durable);
    while (now < state && !CAS(x->durable, now, state)) {
    }
    dbz_wake(seg, prefix);
}

void dbz_poison(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return;
    STORE(x->poisoned, 1);
    dbz_wake(seg, prefix);
}

uint32_t dbz_ticket(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    return x == NULL ? 0 : LOAD_SC(x->wakeup);
}

int dbz_wait_ticket(dbz_seg *seg, uint32_t prefix, uint32_t ticket, uint64_t state, uint32_t incarnation, int64_t timeout_ns)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    int rc = DBZ_OK;
    int64_t deadline = dbz_deadline(timeout_ns);
    atomic_fetch_add_explicit(&x->waiters, 1, memory_order_seq_cst);
    if (LOAD_SC(x->wakeup) == ticket && LOAD_SC(x->durable) <= state && LOAD_SC(x->incarnation) == incarnation)
        rc = dbz_futex_wait(&x->wakeup, ticket, deadline);
    atomic_fetch_sub_explicit(&x->waiters, 1, memory_order_seq_cst);
    return rc;
}

int dbz_wait(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t incarnation, int64_t timeout_ns)
{
    return dbz_wait_ticket(seg, prefix, dbz_ticket(seg, prefix), state, incarnation, timeout_ns);
}
