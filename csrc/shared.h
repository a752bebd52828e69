/* What the files of the shared engine know of each other and nobody else needs. */
#ifndef DBZ_SHARED_H
#define DBZ_SHARED_H

#include "segment.h"

#define DBZ_NO_SLOT 0xffffu            /* owner field of a process that has no slot */
#define DBZ_GROUP 0xfffeu              /* owner field of the lease while shared writers have it together */
#define DBZ_EPOCH24 UINT64_C(0xffffff)

/* Word access with the orders the structs' arguments name. */
#define LOAD(w) atomic_load_explicit(&(w), memory_order_acquire)
#define STORE(w, v) atomic_store_explicit(&(w), (v), memory_order_release)
#define LOAD_SC(w) atomic_load_explicit(&(w), memory_order_seq_cst)
#define STORE_SC(w, v) atomic_store_explicit(&(w), (v), memory_order_seq_cst)
#define LOAD_ANY(w) atomic_load_explicit(&(w), memory_order_relaxed)
#define STORE_ANY(w, v) atomic_store_explicit(&(w), (v), memory_order_relaxed)
#define CAS(w, expected, v) atomic_compare_exchange_strong_explicit(&(w), &(expected), (v), memory_order_acq_rel, memory_order_acquire)
#define CAS_SC(w, expected, v) atomic_compare_exchange_strong_explicit(&(w), &(expected), (v), memory_order_seq_cst, memory_order_seq_cst)

int dbz_layout_make(uint32_t arena_chunks, uint32_t sets, dbz_layout *out);
void dbz_fail_errno(dbz_seg *seg, int error);                 /* note errno for DBZ_E_IO */
_Atomic uint32_t *dbz_chunk_map(dbz_seg *seg);                /* arena_chunks words, 0 free, prefix index + 1 otherwise; its blocks are always backed */

int dbz_fork_track(dbz_seg *seg);                             /* join the list of this process's handles */
void dbz_fork_untrack(dbz_seg *seg);

void dbz_delta_clear(dbz_seg *seg, uint32_t prefix);          /* move gens, then give back every chunk of both generations */

/* Futex on a shared word. deadline_ns: CLOCK_MONOTONIC, < 0 for ever. 0 (woken, changed or interrupted) or DBZ_E_TIMEOUT. */
int dbz_futex_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline_ns);
void dbz_futex_wake(_Atomic uint32_t *word);
void dbz_turn_alarm(dbz_prefix *x);                           /* wake every waiter */
void dbz_turn_clear(dbz_prefix *x);                           /* a slot is assigned anew: nobody's turn, nobody waits */
int64_t dbz_deadline(int64_t timeout_ns);                     /* < 0 stays < 0 */

#endif
