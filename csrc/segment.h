/* The shared-memory segment: one per root directory, mapped by every process that uses it.
 *
 * The segment is a cache of what is on disk plus the words by which processes agree on order. Losing it loses nothing: every field below can be
 * rebuilt from the prefix files and redo logs. Anything in it may be garbage written by a dying process, so readers bounds-check what they follow.
 *
 * Virtual layout (all offsets are multiples of DBZ_BLOCK, sizes fixed at creation, memory reserved block by block with fallocate):
 *   header | block map | process slots | prefix slots | chunk map | delta arena | frame headers | frames
 */
#ifndef DBZ_SEGMENT_H
#define DBZ_SEGMENT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "errors.h"

#define DBZ_MAGIC UINT64_C(0x314f52455a4244)  /* "DBZERO1" */
#define DBZ_ABI 1u
#define DBZ_PAGE 4096u
#define DBZ_BLOCK (UINT64_C(1) << 20)   /* unit in which segment memory is reserved */
#define DBZ_CHUNK (UINT64_C(1) << 18)   /* unit in which the delta arena is handed out */
#define DBZ_PROCS 4096u
#define DBZ_PREFIXES 1024u
#define DBZ_PINS 14u                     /* pins a process can hold in its own slot */
#define DBZ_DELTA_CHUNKS 1024u           /* chunks one delta generation can own: 8,388,608 entries */
#define DBZ_WAYS 8u
#define DBZ_STATE_BITS 40u               /* publish word: epoch (24 high bits) | state (40 low bits) */
#define DBZ_STATE_MASK ((UINT64_C(1) << DBZ_STATE_BITS) - 1)

/* Header. Written once under the root's file lock by the creator; `ready` is stored last (release) and loaded first (acquire).
 * After that only the two counters change (relaxed fetch_add: they only need to be unique). */
typedef struct {
    uint64_t magic;
    uint32_t abi;
    _Atomic uint32_t ready;
    uint8_t root_id[16];
    uint64_t device, inode;
    uint8_t boot_id[16];
    uint64_t size;
    uint64_t blocks_off, procs_off, prefixes_off, chunks_off, arena_off, heads_off, frames_off;
    uint32_t arena_chunks;   /* number of DBZ_CHUNK units in the arena */
    uint32_t sets;           /* page cache sets of DBZ_WAYS frames */
    _Atomic uint32_t incarnations;   /* source of prefix cache keys, never 0 */
    _Atomic uint32_t proc_hint;
    _Atomic uint64_t hits, misses, evictions;   /* statistics, relaxed */
} dbz_header;

/* Process slot.
 *
 * Proof of life is the open-file-description write lock on byte `index` of the root's lock file, held by the owner from before the slot is filled
 * until it exits. The kernel arbitrates: whoever gets the byte owns the slot, and whatever the slot then says belongs to a dead process and is wiped
 * by the new owner. So there is no claiming state that a crash could leave behind, pids need not be comparable (namespaces), and pid reuse is harmless.
 * Reclaiming is the same act: try the byte; if it is granted the owner is dead: wipe, release. `generation` grows at each wipe (release), so a
 * (slot, generation) pair names one process for ever; a reader of the slot loads generation (acquire) before and after.
 * A slot fills whole cache lines so that one process's pin stores never slow another's.
 * Each pin: prefix slot index + 1 in the high 24 bits, pinned state in the low 40; 0 is free. Only the owner writes its pins.
 * Protocol pin-against-floor: owner stores the pin (seq_cst), then loads the prefix floor (seq_cst); if floor > state it withdraws and takes a newer
 * state. Whoever raises the floor stores it (seq_cst), then scans all pins (seq_cst) and puts it back down to the lowest pin found. Either the owner sees the new
 * floor or the raiser sees the pin (store-buffer litmus: both loads after both stores). `pin_all` set means: this process pins everything. */
typedef struct {
    _Alignas(64) _Atomic uint64_t generation;  /* odd: live, even: free */
    uint32_t pid;
    _Atomic uint32_t pin_all;
    uint64_t started_ns;      /* CLOCK_REALTIME */
    uint8_t reserved[40];
    _Atomic uint64_t pins[DBZ_PINS];
    uint64_t pad[2];
} dbz_proc;

/* Delta entry: one change of the object table since the last checkpoint. Written completely, then made reachable by a release store of the bucket
 * head (or not at all); never changed afterwards until its generation is recycled. */
typedef struct {
    uint64_t oid;
    uint64_t state;
    uint64_t addr;       /* record address; for a refcount-only change the unchanged address; 0 never */
    uint32_t refcount;
    uint32_t next;       /* index + 1 of the next older entry of the bucket; 0 ends */
} dbz_entry;

enum { DBZ_ENTRY_TOMBSTONE = 1, DBZ_ENTRY_REFONLY = 2 };   /* flags of a frame entry, see batch.h */

/* One delta generation. `count` is stored (release) after entries and heads are in. chunk[] holds arena chunk numbers + 1, buckets first. */
typedef struct {
    _Atomic uint32_t count;
    uint32_t bucket_chunks;   /* power of two */
    uint32_t chunks;
    uint32_t reserved;
    uint64_t base_state;      /* entries are newer than this */
    _Atomic uint32_t chunk[DBZ_DELTA_CHUNKS];
} dbz_delta;

/* Root of the object table as of one checkpoint. */
typedef struct {
    uint64_t pointer;         /* table page pointer, 0: empty tree; see reader.h */
    uint32_t depth;           /* 0: empty, 1: root is a leaf */
    uint32_t reserved;
    uint64_t state;           /* the newest state merged in */
} dbz_root;

/* Prefix slot.
 *
 * Slots are assigned under the root's file lock; everything below `ready` is lock-free.
 * lease      epoch << 16 | process slot + 1 (0: free). CAS. Backed by the lock on `<prefix>.db0.lock`, which is what decides across segments.
 * published  epoch24 << 40 | state. Only ever moved by CAS with the mover's epoch in the expected value: a holder that was replaced cannot publish.
 * durable    state. Raised by max-CAS after fdatasync. Ordinary views follow it.
 * wakeup     futex word: bumped (release) after durable moved; waiters sleep on it.
 * gens       rotation counter << 1 | frozen present. delta[counter & 1] is active, the other is frozen (if present) or empty.
 * root_no    number of the root in force; root[root_no & 1]. The other one is being prepared by the checkpointer.
 * A reader loads gens and root_no (acquire), looks up, fences, and loads both again: equal means that nothing it read was recycled meanwhile; a
 * recycled generation or root can only be overwritten after the word that names it has moved. A crash between never leaves a half-written root in
 * force, so there is no odd state to repair. */
typedef struct {
    _Alignas(64) _Atomic uint32_t ready;      /* 0 empty, 1 usable */
    _Atomic uint32_t cache_key;               /* unique per (slot, incarnation); part of every frame tag */
    uint8_t name_hash[16];
    uint64_t file_id, prefix_uuid;
    _Atomic uint64_t floor;                   /* oldest state that is promised */
    _Alignas(64) _Atomic uint64_t lease;
    _Atomic uint64_t published;
    _Atomic uint64_t durable;
    _Atomic uint64_t data_end;                /* data bytes below are published and never change */
    _Atomic uint64_t next_oid;
    _Atomic uint32_t wakeup;
    _Atomic uint32_t waiters;
    _Atomic uint32_t poisoned;
    _Atomic uint32_t incarnation;
    _Alignas(64) _Atomic uint64_t gens;
    _Atomic uint64_t root_no;
    dbz_root root[2];
    _Alignas(64) dbz_delta delta[2];
    char name[256];                           /* for status output only, NUL-terminated, may be cut */
} dbz_prefix;

/* Frame header of the page cache. See cache.c for the protocol.
 * version: even = stable (count << 16), odd = being filled (count << 16 | filler slot + 1 << 1 | 1).
 * Tag: cache_key << 32 | generation of the page's birth (0 for data pages), and the page number. */
typedef struct {
    _Alignas(64) _Atomic uint64_t version;
    _Atomic uint64_t tag;
    _Atomic uint64_t page;
    _Atomic uint32_t valid;    /* bytes of the frame that are filled: less than DBZ_PAGE at the tail of the data */
    _Atomic uint32_t used;     /* CLOCK bit */
    _Atomic uint64_t filler_generation;
    uint64_t pad[3];
} dbz_frame;

/* A process's handle on the mapping. Private memory. */
typedef struct dbz_seg {
    uint8_t *base;
    uint64_t size;
    int fd;            /* the shared memory object */
    int lock_fd;       /* the root's lock file, own open file description; closed in forked children */
    int slot;          /* process slot, -1 when unregistered or table full */
    int error;         /* errno of the last DBZ_E_IO */
    uint64_t generation;
} dbz_seg;

/* --- segment.c --------------------------------------------------------------------------------------------------------------------------- */
/* Bytes of virtual size a segment needs for `cache_bytes` of frames and `arena_bytes` of delta arena. */
uint64_t dbz_seg_size(uint64_t cache_bytes, uint64_t arena_bytes);
/* Lay out a fresh shared memory object of that size (already ftruncate'd, zero). Caller holds the root's file lock. */
int dbz_seg_format(int fd, uint64_t cache_bytes, uint64_t arena_bytes, const uint8_t root_id[16], uint64_t device, uint64_t inode, const uint8_t boot_id[16]);
/* Map and verify identity. `lock_fd` < 0: unregistered (private) use. On success *out is malloc'd. */
int dbz_seg_map(int fd, int lock_fd, const uint8_t root_id[16], uint64_t device, uint64_t inode, const uint8_t boot_id[16], dbz_seg **out);
void dbz_seg_unmap(dbz_seg *seg);            /* releases the process slot first */
/* Make [off, off + len) backed by memory. DBZ_E_NOSPACE instead of SIGBUS when /dev/shm is full. Idempotent, lock-free, any process. */
int dbz_seg_reserve(dbz_seg *seg, uint64_t off, uint64_t len);
int dbz_seg_reserved(const dbz_seg *seg, uint64_t off);   /* 1 when the block of `off` is backed */
dbz_header *dbz_seg_header(dbz_seg *seg);
dbz_prefix *dbz_seg_prefix(dbz_seg *seg, uint32_t index);
dbz_proc *dbz_seg_proc(dbz_seg *seg, uint32_t index);

/* --- process.c --------------------------------------------------------------------------------------------------------------------------- */
int dbz_proc_register(dbz_seg *seg);         /* 0 also when the table is full (slot stays -1, then the overflow byte is share-locked) */
void dbz_proc_release(dbz_seg *seg);
int dbz_proc_alive(dbz_seg *seg, uint32_t index);          /* 1 live, 0 dead or free */
int dbz_proc_reclaim(dbz_seg *seg);          /* wipes the slots of dead processes; returns how many */
int dbz_proc_count(dbz_seg *seg);            /* live slots */
/* 1 when this process is the only live one attached (caller holds the root's file lock). */
int dbz_proc_alone(dbz_seg *seg);
/* Called in a forked child (also installed through pthread_atfork): closes the inherited lock descriptors and forgets slots. */
void dbz_fork_child(void);

/* --- pins.c ------------------------------------------------------------------------------------------------------------------------------ */
int dbz_pin(dbz_seg *seg, uint32_t prefix, uint64_t state);     /* pin number >= 0, DBZ_E_RETRY when below the floor; a full slot sets pin_all and returns DBZ_PINS */
void dbz_unpin(dbz_seg *seg, int pin);
int dbz_repin(dbz_seg *seg, int pin, uint32_t prefix, uint64_t state);
uint64_t dbz_floor_raise(dbz_seg *seg, uint32_t prefix, uint64_t wanted);   /* returns the floor in force afterwards */
uint64_t dbz_oldest_pin(dbz_seg *seg, uint32_t prefix);         /* UINT64_MAX when nothing is pinned */

/* --- lease.c ----------------------------------------------------------------------------------------------------------------------------- */
/* Find or assign the slot of a prefix. Caller holds the root's file lock. Returns the index or DBZ_E_FULL. */
int dbz_prefix_find(dbz_seg *seg, const uint8_t name_hash[16], const char *name);
/* Empty the slot for a new incarnation: new cache key, no delta, no root, ready = 0. Caller holds the prefix's init lock. */
void dbz_prefix_reset(dbz_seg *seg, uint32_t prefix, uint64_t file_id, uint64_t prefix_uuid);
/* Take the lease word for `epoch` (the file lock is already held). `force` replaces a live holder. Moves the published word to the new epoch. */
int dbz_lease_take(dbz_seg *seg, uint32_t prefix, uint64_t epoch, int force);
int dbz_lease_drop(dbz_seg *seg, uint32_t prefix, uint64_t epoch);
uint64_t dbz_lease_word(dbz_seg *seg, uint32_t prefix);
/* Compare-and-swap published from (epoch, state) to (epoch, next). DBZ_E_FENCED when the epoch moved, DBZ_E_ARG when the state differs. */
int dbz_publish(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t state, uint64_t next);
/* Raise durable to at least `state` and wake every waiter. */
void dbz_durable(dbz_seg *seg, uint32_t prefix, uint64_t state);
uint64_t dbz_state_published(dbz_seg *seg, uint32_t prefix);
uint64_t dbz_state_durable(dbz_seg *seg, uint32_t prefix);
void dbz_poison(dbz_seg *seg, uint32_t prefix);
/* Sleep until durable > state, the incarnation differs, or the timeout. Returns 0, or DBZ_E_TIMEOUT. No busy loop; call without the GIL.
 * timeout_ns < 0: for ever. dbz_wake makes every sleeper return (spuriously) at once, for shutdown. */
int dbz_wait(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t incarnation, int64_t timeout_ns);
void dbz_wake(dbz_seg *seg, uint32_t prefix);

/* --- delta.c ----------------------------------------------------------------------------------------------------------------------------- */
/* Make room for `n` more entries in the active generation. DBZ_E_NOSPACE: rotate and checkpoint, or go past the delta. Lease holder only. */
int dbz_delta_reserve(dbz_seg *seg, uint32_t prefix, uint32_t n);
/* Append entries of one state, newest last. Room must have been reserved. Lease holder (or the follower, or recovery) only. */
int dbz_delta_apply(dbz_seg *seg, uint32_t prefix, const dbz_entry *entries, uint32_t n);
/* Freeze the active generation and start the other one. DBZ_E_BUSY while a frozen one exists. `expected` entries size the new bucket array. */
int dbz_delta_rotate(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t expected);
uint32_t dbz_delta_count(dbz_seg *seg, uint32_t prefix, int frozen);
/* Copy the entries of the frozen (1) or active (0) generation, oldest first; returns how many were copied. */
int dbz_delta_copy(dbz_seg *seg, uint32_t prefix, int frozen, dbz_entry *out, uint32_t cap);
/* Put a new root in force, then drop the frozen generation (if any). */
void dbz_root_install(dbz_seg *seg, uint32_t prefix, uint64_t pointer, uint32_t depth, uint64_t state);
void dbz_delta_retire(dbz_seg *seg, uint32_t prefix);
/* Give back arena chunks that belong to no generation of a prefix (left by a dead rotator). Lease holder only. */
void dbz_delta_sweep(dbz_seg *seg, uint32_t prefix);
/* Newest entry of `oid` with entry.state <= state. DBZ_E_NOTFOUND, DBZ_E_RETRY (kept moving), or 0. */
int dbz_delta_find(dbz_seg *seg, uint32_t prefix, uint64_t oid, uint64_t state, dbz_entry *out);

#endif
