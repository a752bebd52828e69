/* Life of a prefix slot: assigned, reset for an incarnation, started, retired. */
#include <string.h>

#include "shared.h"

static dbz_prefix *slot_at(dbz_seg *seg, uint32_t index, int *rc)
{
    uint64_t off = seg->at.prefixes_off + (uint64_t)index * sizeof(dbz_prefix);
    *rc = dbz_seg_reserve(seg, off, sizeof(dbz_prefix));
    return *rc == DBZ_OK ? dbz_seg_prefix(seg, index) : NULL;
}

static int reusable(dbz_seg *seg, dbz_prefix *x, uint32_t index)
{
    uint32_t zombie = LOAD(x->zombie);
    /* Pins: of views that show a state of it still, of shared writers who may write a word of it, of a reader who is filling it. */
    if (LOAD(x->assigned) != 2 || dbz_oldest_pin(seg, index) != UINT64_MAX)
        return 0;
    if (zombie == 0 || zombie == DBZ_GROUP)
        return 1;
    if (zombie == DBZ_NO_SLOT)
        return seg->lock_fd >= 0 && dbz_lock_taken(seg->lock_fd, DBZ_PROCS, 1) == 0;
    return !dbz_proc_alive(seg, zombie - 1);
}

int dbz_prefix_find(dbz_seg *seg, const uint8_t name_hash[16], const char *name)
{
    int vacant = -1, rc = DBZ_OK;
    for (uint32_t i = 0; i < DBZ_PREFIXES; i++) {
        dbz_prefix *x = dbz_seg_prefix(seg, i);
        uint32_t assigned = x == NULL ? 0 : LOAD(x->assigned);
        if (assigned == 1 && memcmp(x->name_hash, name_hash, sizeof x->name_hash) == 0)
            return (int)i;
        if (assigned == 0) {
            /* Slots are given out in order: none is assigned behind the first that never was. */
            vacant = vacant < 0 ? (int)i : vacant;
            break;
        }
        if (vacant < 0 && reusable(seg, x, i))
            vacant = (int)i;
    }
    if (vacant < 0)
        return DBZ_E_FULL;
    dbz_prefix *x = slot_at(seg, (uint32_t)vacant, &rc);
    if (x == NULL)
        return rc;
    STORE(x->assigned, 2);
    STORE(x->zombie, 0);
    dbz_prefix_reset(seg, (uint32_t)vacant, 0, 0);
    STORE(x->lease, 0);
    dbz_turn_clear(x);
    memcpy(x->name_hash, name_hash, sizeof x->name_hash);
    size_t len = strlen(name);
    len = len < sizeof x->name ? len : sizeof x->name - 1;
    memcpy(x->name, name, len);
    x->name[len] = 0;
    STORE(x->assigned, 1);
    return vacant;
}

static uint32_t fresh_incarnation(dbz_seg *seg)
{
    uint32_t n;
    do
        n = atomic_fetch_add_explicit(&dbz_seg_header(seg)->incarnations, 1, memory_order_relaxed);
    while (n == 0);
    return n;
}

void dbz_prefix_reset(dbz_seg *seg, uint32_t prefix, uint64_t file_id, uint64_t prefix_uuid)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return;
    uint32_t incarnation = fresh_incarnation(seg);
    STORE(x->ready, 0);
    STORE(x->incarnation, incarnation);
    STORE(x->cache_key, incarnation);
    dbz_root_install(seg, prefix, 0, 0, 0);
    dbz_delta_clear(seg, prefix);
    STORE(x->file_id, file_id);
    STORE(x->prefix_uuid, prefix_uuid);
    STORE(x->floor, 0);
    STORE(x->floor_set, 0);
    STORE(x->published, 0);
    STORE(x->durable, 0);
    STORE(x->data_end, 0);
    STORE(x->next_oid, 0);
    STORE(x->poisoned, 0);
    STORE(x->left, 0);
    dbz_wake(seg, prefix);
}

int dbz_prefix_start(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t state, uint64_t data_end, uint64_t next_oid, uint64_t floor)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL || state > DBZ_STATE_MASK)
        return DBZ_E_ARG;
    STORE(x->floor, floor);
    STORE(x->floor_set, floor);
    STORE(x->data_end, data_end);
    STORE(x->next_oid, next_oid);
    STORE(x->published, (epoch & DBZ_EPOCH24) << DBZ_STATE_BITS | state);
    STORE(x->durable, state);
    STORE(x->ready, 1);
    dbz_wake(seg, prefix);
    return DBZ_OK;
}

/* The slot is nobody's prefix any more, for good: its incarnation ends and everybody looks for another one. */
static void end_slot(dbz_seg *seg, uint32_t prefix, dbz_prefix *x)
{
    STORE(x->assigned, 2);
    STORE(x->ready, 0);
    STORE(x->incarnation, fresh_incarnation(seg));
    dbz_wake(seg, prefix);
    dbz_turn_alarm(x);
}

int dbz_prefix_retire(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t *state)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    uint32_t owner = (uint32_t)(LOAD(x->lease) & 0xffff);
    int rc = dbz_lease_take(seg, prefix, epoch, 1);
    if (rc != DBZ_OK)
        return rc;
    *state = dbz_state_published(seg, prefix);
    STORE(x->zombie, owner);
    end_slot(seg, prefix, x);
    return DBZ_OK;
}

int dbz_prefix_leave(dbz_seg *seg, uint32_t prefix, uint64_t epoch)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    if (LOAD(x->assigned) != 1 || LOAD(x->lease) != (epoch << 16 | DBZ_GROUP))
        return DBZ_E_FENCED;
    STORE(x->zombie, DBZ_GROUP);
    STORE(x->left, LOAD(x->incarnation));
    end_slot(seg, prefix, x);
    return DBZ_OK;
}

uint32_t dbz_prefix_left(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    return x == NULL ? 0 : LOAD(x->left);
}

static void raise_word(_Atomic uint64_t *word, uint64_t least)
{
    uint64_t now = LOAD(*word);
    while (now < least && !CAS(*word, now, least)) {
    }
}

void dbz_advance(dbz_seg *seg, uint32_t prefix, uint64_t data_end, uint64_t next_oid)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return;
    raise_word(&x->data_end, data_end);
    raise_word(&x->next_oid, next_oid);
}

uint64_t dbz_oid_reserve(dbz_seg *seg, uint32_t prefix, uint64_t n)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    return x == NULL ? 0 : atomic_fetch_add_explicit(&x->next_oid, n, memory_order_acq_rel);
}
