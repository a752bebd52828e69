/* Pinned states against the floor. The argument stands above dbz_proc in segment.h; model: stress/models/pin_floor.pml. */
#include "shared.h"

static uint64_t pin_word(uint32_t prefix, uint64_t state)
{
    return (uint64_t)(prefix + 1) << DBZ_STATE_BITS | state;
}

static dbz_proc *own(dbz_seg *seg)
{
    return seg->slot < 0 ? NULL : dbz_seg_proc(seg, (uint32_t)seg->slot);
}

int dbz_pin(dbz_seg *seg, uint32_t prefix, uint64_t state)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    dbz_proc *p = own(seg);
    int pin = (int)DBZ_PINS;
    if (x == NULL || state > DBZ_STATE_MASK)
        return DBZ_E_ARG;
    if (p != NULL) {
        for (uint32_t i = 0; i < DBZ_PINS; i++) {
            uint64_t free_word = 0;
            if (LOAD_ANY(p->pins[i]) == 0 && CAS_SC(p->pins[i], free_word, pin_word(prefix, state))) {
                pin = (int)i;
                break;
            }
        }
        if (pin == (int)DBZ_PINS)
            atomic_fetch_add_explicit(&p->pin_all, 1, memory_order_seq_cst);
    } else {
        /* The overflow byte has pinned everything since registration; the fence orders that lock before the load of the floor. */
        atomic_thread_fence(memory_order_seq_cst);
    }
    if (LOAD_SC(x->floor) > state) {
        dbz_unpin(seg, pin);
        return DBZ_E_RETRY;
    }
    return pin;
}

void dbz_unpin(dbz_seg *seg, int pin)
{
    dbz_proc *p = own(seg);
    if (p == NULL || pin < 0 || pin > (int)DBZ_PINS)
        return;
    if (pin < (int)DBZ_PINS) {
        STORE_SC(p->pins[pin], 0);
        return;
    }
    uint32_t all = LOAD(p->pin_all);
    while (all != 0 && !CAS_SC(p->pin_all, all, all - 1)) {
    }
}

int dbz_repin(dbz_seg *seg, int pin, uint32_t prefix, uint64_t state)
{
    dbz_proc *p = own(seg);
    if (pin < 0 || pin > (int)DBZ_PINS || state > DBZ_STATE_MASK)
        return DBZ_E_ARG;
    if (p != NULL && pin < (int)DBZ_PINS) {
        uint64_t word = LOAD(p->pins[pin]);
        if (word != 0 && word >> DBZ_STATE_BITS == prefix + 1 && (word & DBZ_STATE_MASK) <= state) {
            /* Forwards: the old pin holds the confirmed floor at or below `state`, and the word always names one of the two. */
            STORE_SC(p->pins[pin], pin_word(prefix, state));
            return pin;
        }
    }
    int moved = dbz_pin(seg, prefix, state);
    if (moved >= 0)
        dbz_unpin(seg, pin);
    return moved;
}

/* Lowest state pinned for the prefix; 0 when somebody pins everything. Runs after the floor was stored. */
static uint64_t lowest(dbz_seg *seg, uint32_t prefix)
{
    uint64_t low = UINT64_MAX;
    uint32_t high = LOAD_SC(dbz_seg_header(seg)->proc_high);
    for (uint32_t i = 0; i < high && i < DBZ_PROCS; i++) {
        dbz_proc *p = dbz_seg_proc(seg, i);
        if (LOAD_SC(p->pin_all) != 0)
            return 0;
        for (uint32_t j = 0; j < DBZ_PINS; j++) {
            uint64_t word = LOAD_SC(p->pins[j]);
            if (word != 0 && word >> DBZ_STATE_BITS == prefix + 1 && (word & DBZ_STATE_MASK) < low)
                low = word & DBZ_STATE_MASK;
        }
    }
    /* Our own read lock is not reported, and needs not be: a raiser without a slot counts itself. */
    if (seg->lock_fd >= 0 && (dbz_lock_taken(seg->lock_fd, DBZ_PROCS, 1) != 0 || (seg->registered && seg->slot < 0)))
        return 0;
    return low;
}

uint64_t dbz_floor_raise(dbz_seg *seg, uint32_t prefix, uint64_t wanted)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return 0;
    uint64_t confirmed = LOAD(x->floor_set);
    if (wanted <= confirmed)
        return confirmed;
    STORE_SC(x->floor, wanted);
    uint64_t low = lowest(seg, prefix);
    uint64_t floor = low < wanted ? low : wanted;
    /* A pin below the confirmed floor is one that is about to be withdrawn. */
    if (floor < confirmed)
        floor = confirmed;
    STORE_SC(x->floor, floor);
    STORE(x->floor_set, floor);
    return floor;
}

uint64_t dbz_oldest_pin(dbz_seg *seg, uint32_t prefix)
{
    return lowest(seg, prefix);
}
