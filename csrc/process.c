/* Process slots. The argument stands above dbz_proc in segment.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "shared.h"

/* Caller holds the slot's byte. */
static void wipe(dbz_proc *p)
{
    for (uint32_t i = 0; i < DBZ_PINS; i++)
        STORE_SC(p->pins[i], 0);
    STORE_SC(p->pin_all, 0);
    uint64_t generation = LOAD(p->generation);
    if (generation & 1)
        STORE(p->generation, generation + 1);
}

static void raise_high(dbz_header *h, uint32_t least)
{
    uint32_t high = LOAD_SC(h->proc_high);
    while (high < least && !CAS_SC(h->proc_high, high, least)) {
    }
}

static uint32_t high_mark(dbz_seg *seg)
{
    uint32_t high = LOAD_SC(dbz_seg_header(seg)->proc_high);
    return high < DBZ_PROCS ? high : DBZ_PROCS;
}

static int claim(dbz_seg *seg, uint32_t index)
{
    dbz_proc *p = dbz_seg_proc(seg, index);
    int rc = dbz_lock_try(seg->lock_fd, index, 1, 1);
    if (rc != DBZ_OK)
        return rc;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    wipe(p);
    STORE_ANY(p->pid, (uint32_t)getpid());
    STORE_ANY(p->started_ns, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
    raise_high(dbz_seg_header(seg), index + 1);
    seg->generation = LOAD(p->generation) + 1;
    STORE(p->generation, seg->generation);
    seg->slot = (int)index;
    return DBZ_OK;
}

int dbz_proc_register(dbz_seg *seg)
{
    if (seg->registered)
        return DBZ_OK;
    if (seg->lock_fd < 0)
        return DBZ_E_ARG;
    /* Free slots first: taking a dead one's is right, but asks the kernel about live ones on the way. */
    for (int dead = 0; dead < 2; dead++) {
        for (uint32_t i = 0; i < DBZ_PROCS; i++) {
            if ((LOAD(dbz_seg_proc(seg, i)->generation) & 1) != (uint64_t)dead)
                continue;
            int rc = claim(seg, i);
            if (rc == DBZ_E_IO) {
                dbz_fail_errno(seg, errno);
                return rc;
            }
            if (rc == DBZ_OK) {
                seg->registered = 1;
                return DBZ_OK;
            }
        }
    }
    int rc = dbz_lock_try(seg->lock_fd, DBZ_PROCS, 1, 0);
    if (rc == DBZ_OK)
        seg->registered = 1;
    else
        dbz_fail_errno(seg, errno);
    return rc;
}

void dbz_proc_release(dbz_seg *seg)
{
    if (!seg->registered)
        return;
    if (seg->slot >= 0) {
        wipe(dbz_seg_proc(seg, (uint32_t)seg->slot));
        dbz_lock_drop(seg->lock_fd, (uint64_t)seg->slot, 1);
    } else {
        dbz_lock_drop(seg->lock_fd, DBZ_PROCS, 1);
    }
    seg->slot = -1;
    seg->generation = 0;
    seg->registered = 0;
}

int dbz_proc_alive(dbz_seg *seg, uint32_t index)
{
    if (index >= DBZ_PROCS || !(LOAD(dbz_seg_proc(seg, index)->generation) & 1))
        return 0;
    if ((int)index == seg->slot)
        return 1;
    /* When the kernel can't be asked, nobody is declared dead. */
    return seg->lock_fd < 0 || dbz_lock_taken(seg->lock_fd, index, 1) != 0;
}

int dbz_proc_reclaim(dbz_seg *seg)
{
    int wiped = 0;
    if (seg->lock_fd < 0)
        return 0;
    for (uint32_t i = 0, high = high_mark(seg); i < high; i++) {
        dbz_proc *p = dbz_seg_proc(seg, i);
        if ((int)i == seg->slot || !(LOAD(p->generation) & 1))
            continue;
        if (dbz_lock_try(seg->lock_fd, i, 1, 1) != DBZ_OK)
            continue;
        /* Asked again under the lock: the owner may have left in good order meanwhile. */
        wiped += LOAD(p->generation) & 1;
        wipe(p);
        dbz_lock_drop(seg->lock_fd, i, 1);
    }
    return wiped;
}

int dbz_proc_count(dbz_seg *seg)
{
    int live = 0;
    for (uint32_t i = 0, high = high_mark(seg); i < high; i++)
        live += dbz_proc_alive(seg, i);
    return live;
}

int dbz_proc_alone(dbz_seg *seg)
{
    return seg->lock_fd < 0 || dbz_lock_taken(seg->lock_fd, 0, DBZ_PROCS + 1) == 0;
}
