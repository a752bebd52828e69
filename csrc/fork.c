/* What a forked child must not inherit: the open file descriptions that carry locks, and the process slot.
 *
 * A lock on an open file description lives until its last descriptor is closed. A child that kept one would let its dead parent look alive for ever.
 * The child only closes; an explicit unlock would take the lock from the parent. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared.h"

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int installed;
static dbz_seg *handles;
static int *guarded;
static size_t guarded_count, guarded_room;
static _Atomic uint32_t depth;

static void before(void)
{
    pthread_mutex_lock(&guard);
}

static void after_parent(void)
{
    pthread_mutex_unlock(&guard);
}

static void forget(void)
{
    for (size_t i = 0; i < guarded_count; i++)
        close(guarded[i]);
    guarded_count = 0;
    for (dbz_seg *seg = handles; seg != NULL; seg = seg->next) {
        if (seg->lock_fd >= 0)
            close(seg->lock_fd);
        seg->lock_fd = -1;
        seg->slot = -1;
        seg->generation = 0;
        seg->registered = 0;
    }
    atomic_fetch_add_explicit(&depth, 1, memory_order_relaxed);
}

static void after_child(void)
{
    forget();
    pthread_mutex_unlock(&guard);
}

static void install(void)
{
    installed = pthread_atfork(before, after_parent, after_child);
}

static int ensure(void)
{
    pthread_once(&once, install);
    if (installed != 0)
        errno = installed;
    return installed == 0 ? DBZ_OK : DBZ_E_NOMEM;
}

void dbz_fork_child(void)
{
    pthread_mutex_lock(&guard);
    forget();
    pthread_mutex_unlock(&guard);
}

uint32_t dbz_fork_depth(void)
{
    return atomic_load_explicit(&depth, memory_order_relaxed);
}

int dbz_fork_track(dbz_seg *seg)
{
    int rc = ensure();
    if (rc != DBZ_OK)
        return rc;
    pthread_mutex_lock(&guard);
    seg->previous = NULL;
    seg->next = handles;
    if (handles != NULL)
        handles->previous = seg;
    handles = seg;
    pthread_mutex_unlock(&guard);
    return DBZ_OK;
}

void dbz_fork_untrack(dbz_seg *seg)
{
    pthread_mutex_lock(&guard);
    if (seg->previous != NULL)
        seg->previous->next = seg->next;
    else
        handles = seg->next;
    if (seg->next != NULL)
        seg->next->previous = seg->previous;
    pthread_mutex_unlock(&guard);
}

int dbz_fork_guard(int fd)
{
    int rc = ensure();
    if (rc != DBZ_OK || fd < 0)
        return rc != DBZ_OK ? rc : DBZ_E_ARG;
    pthread_mutex_lock(&guard);
    if (guarded_count == guarded_room) {
        size_t room = guarded_room ? 2 * guarded_room : 16;
        int *grown = realloc(guarded, room * sizeof *grown);
        if (grown == NULL) {
            pthread_mutex_unlock(&guard);
            return DBZ_E_NOMEM;
        }
        guarded = grown;
        guarded_room = room;
    }
    guarded[guarded_count++] = fd;
    pthread_mutex_unlock(&guard);
    return DBZ_OK;
}

void dbz_fork_unguard(int fd)
{
    pthread_mutex_lock(&guard);
    for (size_t i = 0; i < guarded_count; i++) {
        if (guarded[i] == fd) {
            guarded[i] = guarded[--guarded_count];
            break;
        }
    }
    pthread_mutex_unlock(&guard);
}

int dbz_seg_rejoin(dbz_seg *seg, int lock_fd)
{
    pthread_mutex_lock(&guard);
    int rc = seg->lock_fd >= 0 ? DBZ_E_BUSY : DBZ_OK;
    if (rc == DBZ_OK)
        seg->lock_fd = lock_fd;
    pthread_mutex_unlock(&guard);
    return rc;
}
