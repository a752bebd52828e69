/* The shared-memory segment: one per root directory, mapped by every process that uses it.
 *
 * The segment is a cache of what is on disk plus the words by which processes agree on order. Losing it loses nothing: every field below can be
 * rebuilt from the prefix files and redo logs. Anything in it may be garbage written by a dying process, so readers bounds-check what they follow.
 *
 * Virtual layout (areas start at multiples of DBZ_BLOCK, the block map right behind the header's page; sizes are fixed at creation, memory is reserved
 * block by block with fallocate):
 *   header, block map | process slots | prefix slots | chunk map | delta arena | frame headers | frames
 *
 * Even a read of a hole makes tmpfs allocate, so nothing is touched, read or written, in a block whose bit in the block map is not set: that is what
 * keeps a full /dev/shm from ever raising SIGBUS. The bit is set (release) after fallocate succeeded and tested (acquire) before access; it is never cleared.
 *
 * Words that change while others look at them are _Atomic without exception, so that C11 gives every race a meaning. Where the argument of a
 * struct names no order, loads are acquire and stores release: on x86-64 both are plain moves.
 */
#ifndef DBZ_SEGMENT_H
#define DBZ_SEGMENT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "errors.h"

#define DBZ_MAGIC UINT64_C(0x314f52455a4244)  /* "DBZERO1" */
#define DBZ_ABI 4u
#define DBZ_PAGE 4096u
#define DBZ_BLOCK (UINT64_C(1) << 20)   /* unit in which segment memory is reserved */
#define DBZ_CHUNK (UINT64_C(1) << 18)   /* unit in which the delta arena is handed out */
#define DBZ_PROCS 4096u
#define DBZ_PREFIXES 1024u
#define DBZ_PINS 14u                     /* pins a process can hold in its own slot */
#define DBZ_DELTA_CHUNKS 1024u           /* chunks one delta generation can own: 8,388,608 entries */
#define DBZ_WAYS 8u
#define DBZ_QUEUE 64u                    /* processes that can wait for a turn at one prefix in order of arrival */
#define DBZ_STATE_BITS 40u               /* publish word: epoch (24 high bits) | state (40 low bits) */
#define DBZ_STATE_MASK ((UINT64_C(1) << DBZ_STATE_BITS) - 1)

/* Header. Written once under the root's file lock by the creator; `ready` is stored last (release) and loaded first (acquire).
 * A handle keeps its own copy of sizes and offsets, checked at mapping time, and never reads them here again.
 * incarnations  relaxed fetch_add: only has to be unique.
 * proc_high     slots at and above it have never been used, so scans stop there. Raised (seq_cst) before a slot's first pin, loaded (seq_cst) after the
 *               floor was stored: a raiser that misses a slot here is one whose floor that slot's pins will see. */
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
    _Atomic uint32_t proc_high;
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
 * Each pin: prefix slot index + 1 in the high 24 bits, pinned state in the low 40; 0 is free. Only the owner writes its pins (its threads by CAS).
 * Protocol pin-against-floor: owner stores the pin (seq_cst), then loads the prefix floor (seq_cst); if floor > state it withdraws and takes a newer
 * state. Whoever raises the floor stores it (seq_cst), then scans all pins (seq_cst) and puts it back down to the lowest pin found. Either the owner sees the new
 * floor or the raiser sees the pin (store-buffer litmus: both loads after both stores; model: stress/models/pin_floor.pml).
 * `pin_all` counts pins that found no room: while it is not 0 this process pins everything. A process that found no slot at all holds a read lock on the overflow byte
 * (number DBZ_PROCS) from before its first pin, with the same meaning; the raiser tests that byte after storing the floor. */
typedef struct {
    _Alignas(64) _Atomic uint64_t generation;  /* odd: live, even: free */
    _Atomic uint32_t pid;     /* for messages and status only */
    _Atomic uint32_t pin_all;
    _Atomic uint64_t started_ns;   /* CLOCK_REALTIME */
    uint8_t reserved[40];
    _Atomic uint64_t pins[DBZ_PINS];
    uint64_t pad[2];
} dbz_proc;

/* Delta entry: one change of the object table since the last checkpoint. Written completely, then made reachable by a release store of the bucket
 * head (or not at all); never changed afterwards until its generation is recycled. `next` is always smaller than the entry's own index + 1: a chain that
 * doesn't descend is garbage, and every walk ends. In the arena the fields are accessed as atomics (acquire, release), see shared.h. */
typedef struct {
    uint64_t oid;
    uint64_t state;
    uint64_t addr;       /* record address; for a refcount-only change the unchanged address; 0 never */
    uint32_t refcount;
    uint32_t next;       /* index + 1 of the next older entry of the bucket; 0 ends */
} dbz_entry;

enum { DBZ_ENTRY_TOMBSTONE = 1, DBZ_ENTRY_REFONLY = 2 };   /* flags of a frame entry, see batch.h */

/* One delta generation. One writer (the lease holder), any number of readers.
 * count    entries that are in; stored (release) after the entries and their heads.
 * pending  stored before an apply begins, equal to count after it. Different when the lease is taken: the holder died in between, and the entries from
 *          count on are unlinked again before anything is appended (after moving `gens`, because a reader may stand on one of them).
 * chunk[]  arena chunk numbers + 1, buckets first; a chunk is listed (release) after it was claimed and, for buckets, zeroed, and unlisted before it is given
 *          back: a crash in between can leak a chunk (dbz_delta_sweep finds it), never share one.
 * Buckets are u32 heads (index + 1 of the newest entry), bucket = oid & (buckets - 1): OIDs are dense. */
typedef struct {
    _Atomic uint32_t count;
    _Atomic uint32_t bucket_chunks;   /* power of two; 0: no entry yet */
    _Atomic uint32_t chunks;
    _Atomic uint32_t pending;
    _Atomic uint64_t base_state;      /* entries are newer than this */
    _Atomic uint32_t chunk[DBZ_DELTA_CHUNKS];
} dbz_delta;

/* Root of the object table as of one checkpoint. */
typedef struct {
    _Atomic uint64_t pointer; /* table page pointer, 0: empty tree; see reader.h */
    _Atomic uint32_t depth;   /* 0: empty, 1: root is a leaf */
    uint32_t reserved;
    _Atomic uint64_t state;   /* the newest state merged in */
} dbz_root;

/* One process that waits for its turn.
 * claim   process word (see dbz_prefix.turn) of who uses the entry, 0: free. Claimed by CAS; a dead claimant's entry is claimed from it by CAS, emptied, and freed.
 * ticket  order of arrival, stored before the entry's bit in dbz_prefix.waiting is set and until it is cleared.
 * word    the futex this waiter alone sleeps on: bumped (seq_cst) by whoever wants it to look at the turn.
 * skipped set by a waiter that went past this one because it did not take a free turn for longer than its grace; the owner clears it when it looks again. */
typedef struct {
    _Atomic uint64_t claim;
    _Atomic uint64_t ticket;
    _Atomic uint32_t word;
    _Atomic uint32_t skipped;
} dbz_waiting;

/* Prefix slot.
 *
 * Slots are assigned under the root's file lock; everything below `ready` is lock-free.
 * lease      epoch << 16 | process slot + 1 (0: free, 0xffff: a process without a slot). CAS (acq_rel). Backed by the lock on `<prefix>.db0.lock`, which is
 *            what decides across segments. Its epoch never goes down.
 * owner_generation  generation of the owner's process slot, stored after the CAS: a holder whose slot has another generation by now is dead.
 * published  epoch24 << 40 | state. Only ever moved by CAS (acq_rel) with the mover's epoch in the expected value: a holder that was replaced cannot publish. Epochs are
 *            compared modulo 2^24; a taker that finds a newer epoch here has itself been replaced.
 * durable    state. Raised by max-CAS (release) after fdatasync. Ordinary views follow it (acquire).
 * wakeup     futex word: bumped (seq_cst) after durable moved; waiters sleep on it. waiters is raised (seq_cst) before the waiter loads wakeup and durable, and loaded
 *            (seq_cst) after the bump: either the waker sees the waiter, or the waiter sees the bump. A waiter that died leaves it too high, which costs a system call.
 * floor      the oldest state that may be pinned, as announced; floor_set is the one confirmed by a completed scan. A raiser that died between leaves floor too high,
 *            which only makes pinners take a newer state until the next raise. See the process slot.
 * gens       rotation counter << 1 | frozen present. delta[counter & 1] is active, the other is frozen (if present) or empty.
 *            No value ever comes back: rotation and repair raise the counter, retiring clears the bit once per counter value.
 * root_no    number of the root in force; root[root_no & 1]. The other one is being prepared by the checkpointer.
 * A reader loads gens and root_no (acquire), looks up, and loads both again: equal means that nothing it read was recycled meanwhile; a
 * recycled generation or root can only be overwritten after the word that names it has moved. All loads between are acquire and all stores of the recycler
 * release, so a reader that saw one recycled byte sees the moved word too, without a fence. A crash between never leaves a half-written root in
 * force, so there is no odd state to repair (model: stress/models/delta_recycle.pml).
 * Rotation, installing a root and retiring happen under the prefix's checkpoint lock: they never run beside each other, only beside commits and readers.
 *
 * Shared writers. The lease belongs to all of them (owner 0xfffe): each has a read lock on the lease's byte. Who of them may write just now has the *turn*:
 * turn       process word of the holder - generation of its process slot (48) | slot + 1 (16) -, 0 free. One word, so that a holder is never taken for the dead owner of an
 *            earlier turn. Taken by CAS from 0, or from the word of a process found dead; given back by CAS to 0 (all seq_cst).
 * waiting    bit i: queue[i] waits. A waiter sets its bit (seq_cst) before it loads `turn`, and sleeps only if that is not 0; who gives back stores 0 and then loads
 *            `waiting`: one of them sees the other, so no wake-up is lost (model: stress/models/turn.pml). Only the earliest waiter is woken. A waiter that gives up
 *            passes the wake-up on. A free turn that the earliest one does not take is taken by the k-th after k graces: stopped and dead waiters hold nobody up.
 * turns, turn_until, freed  turns begun; CLOCK_MONOTONIC time from which the holder may be replaced (0: just begun or free); when it was last given back. For waiters.
 * torn       1 from before a holder's first write until it gives the turn back in good order, 2 in the fresh slot of a forced takeover: whoever gets the turn and finds it
 *            not 0 recovers from the files first (new epoch). So a holder may die anywhere.
 * log_*      where the log ends: number, offset, chain checksum. Stored before the turn is given back, and log_number also before anything that stands in that
 *            file is published: who loads published, then log_number, knows that all of it stands in that file or in ones before, which are durable.
 * syncing    process slot + 1 of who is in fdatasync for everybody (a hint: who has waited too long does it himself, so its death or stop costs time only).
 *
 * left       the incarnation that was left because a compacted file took the place of the one that the slot is for. Everything published in it is in that file, durable:
 *            so a process whose commit of that incarnation waited for its sync knows what became of it. Stored (release) before the incarnation moves.
 *
 * A holder that is replaced while it still lives (stopped, perhaps in the middle of dbz_delta_apply) may go on writing into the slot and the chunks it knows. So its slot
 * is not used again: the successor *retires* it (dbz_prefix_retire: fence the published word, mark the slot, wake everybody) and gets a fresh one. The old slot and its
 * chunks are reused when the process in `zombie` is dead and nothing is pinned there. A holder that died needs none of this: its slot is reset in place. */
typedef struct {
    _Alignas(64) _Atomic uint32_t ready;      /* 0 empty, 1 usable */
    _Atomic uint32_t cache_key;               /* unique per (slot, incarnation); part of every frame tag */
    _Atomic uint32_t assigned;                /* 0 never used, 1 in use, 2 retired */
    _Atomic uint32_t zombie;                  /* retired: process slot + 1 of the replaced holder, 0xffff: one without a slot, 0xfffe: shared writers, 0: nobody */
    uint8_t name_hash[16];                    /* guarded by the root's file lock */
    _Atomic uint64_t file_id, prefix_uuid;
    _Atomic uint64_t floor;                   /* oldest state that is promised */
    _Atomic uint64_t floor_set;
    _Alignas(64) _Atomic uint64_t lease;
    _Atomic uint64_t published;
    _Atomic uint64_t durable;
    _Atomic uint64_t data_end;                /* data bytes below are published and never change */
    _Atomic uint64_t next_oid;
    _Atomic uint32_t wakeup;
    _Atomic uint32_t waiters;
    _Atomic uint32_t poisoned;
    _Atomic uint32_t incarnation;
    _Atomic uint32_t left;                    /* the incarnation that ended by dbz_prefix_leave, 0: none */
    _Alignas(64) _Atomic uint64_t gens;
    _Atomic uint64_t root_no;
    dbz_root root[2];
    _Atomic uint64_t owner_generation;
    _Atomic uint32_t lease_wakeup;            /* futex word: bumped when the lease is dropped */
    _Atomic uint32_t lease_waiters;
    _Alignas(64) dbz_delta delta[2];
    char name[256];                           /* for status output only, NUL-terminated, may be cut; guarded by the root's file lock */
    _Alignas(64) _Atomic uint64_t turn;
    _Atomic uint64_t waiting[DBZ_QUEUE / 64];
    _Atomic uint64_t turns;
    _Atomic uint64_t turn_until;
    _Atomic uint64_t freed;
    _Atomic uint64_t tickets;
    _Atomic uint32_t torn;
    _Atomic uint32_t syncing;
    _Alignas(64) _Atomic uint64_t log_number;
    _Atomic uint64_t log_end, log_chain;
    _Alignas(64) dbz_waiting queue[DBZ_QUEUE];
} dbz_prefix;

/* Frame header of the page cache. See cache.c for the protocol.
 * version: 0 = never filled; even = stable (count << 30); odd = being filled (count << 30 | low 16 bits of the filler's slot generation << 14 |
 *          filler slot + 1 << 1 | 1): one word names claim and claimant, so a frame is never held by somebody who can't be told from another.
 * tag:     cache_key << 32 | 1 << 31 | generation of the page's birth for table pages, cache_key << 32 for data pages.
 * page:    page number. */
typedef struct {
    _Alignas(64) _Atomic uint64_t version;
    _Atomic uint64_t tag;
    _Atomic uint64_t page;
    _Atomic uint32_t valid;    /* bytes of the frame that are filled: less than DBZ_PAGE at the tail of the data */
    _Atomic uint32_t used;     /* CLOCK bit */
    uint64_t pad[4];
} dbz_frame;

/* Offsets and sizes of the areas, computed from the two sizes that determine them. */
typedef struct {
    uint64_t size, blocks_off, procs_off, prefixes_off, chunks_off, arena_off, heads_off, frames_off;
    uint32_t arena_chunks, sets;
} dbz_layout;

/* A process's handle on the mapping. Private memory. */
typedef struct dbz_seg {
    uint8_t *base;
    uint64_t size;
    int fd;            /* the shared memory object, a duplicate of its own */
    int lock_fd;       /* the root's lock file, own open file description; closed in forked children */
    int slot;          /* process slot, -1 when unregistered or table full */
    int error;         /* errno of the last DBZ_E_IO */
    uint64_t generation;
    int registered;    /* dbz_proc_register was called; 0 again in a forked child */
    _Atomic uint32_t references;   /* the opener's and each reader's: the mapping goes with the last, so that a reader freed late touches no hole */
    dbz_layout at;
    struct dbz_seg *next, *previous;   /* the process's handles, for dbz_fork_child */
} dbz_seg;

/* Copies of shared words for status output; each field is one load, the whole is no snapshot. */
typedef struct {
    uint32_t ready, assigned, cache_key, incarnation, poisoned, waiters;
    uint64_t file_id, prefix_uuid, floor, lease, published, durable, data_end, next_oid, gens, root_no;
    uint64_t root_pointer, root_state;
    uint32_t root_depth, active_entries, frozen_entries, chunks;
    char name[256];
} dbz_prefix_info;

typedef struct {
    uint64_t generation, started_ns;
    uint32_t pid, pin_all, pins, live;
    uint64_t pin[DBZ_PINS];
} dbz_proc_info;

typedef struct {
    uint64_t size, reserved, cache_bytes;      /* bytes: virtual, backed by memory, of frames (virtual) */
    uint64_t hits, misses, evictions;
    uint32_t arena_chunks, arena_used, processes, prefixes;
} dbz_seg_info;

/* --- segment.c --------------------------------------------------------------------------------------------------------------------------- */
/* Bytes of virtual size a segment needs for `cache_bytes` of frames and `arena_bytes` of delta arena. 0 when out of range. */
uint64_t dbz_seg_size(uint64_t cache_bytes, uint64_t arena_bytes);
/* Lay out a fresh shared memory object of that size (already ftruncate'd, zero). Caller holds the root's file lock. */
int dbz_seg_format(int fd, uint64_t cache_bytes, uint64_t arena_bytes, const uint8_t root_id[16], uint64_t device, uint64_t inode, const uint8_t boot_id[16]);
/* Map and verify owner (this user, mode 0600), layout and identity; DBZ_E_MISMATCH otherwise. Both descriptors are duplicated or left to the caller
 * as follows: `fd` is duplicated; `lock_fd` is taken over (closed by dbz_seg_unmap) when the call succeeds. `lock_fd` < 0: unregistered (private) use.
 * On success *out is malloc'd. */
int dbz_seg_map(int fd, int lock_fd, const uint8_t root_id[16], uint64_t device, uint64_t inode, const uint8_t boot_id[16], dbz_seg **out);
void dbz_seg_unmap(dbz_seg *seg);            /* releases the process slot; the mapping goes when no reader needs it any more */
void dbz_seg_hold(dbz_seg *seg);
void dbz_seg_drop(dbz_seg *seg);
/* Make [off, off + len) backed by memory. DBZ_E_NOSPACE instead of SIGBUS when /dev/shm is full. Idempotent, lock-free, any process. */
int dbz_seg_reserve(dbz_seg *seg, uint64_t off, uint64_t len);
int dbz_seg_reserved(const dbz_seg *seg, uint64_t off);   /* 1 when the block of `off` is backed */
dbz_header *dbz_seg_header(dbz_seg *seg);
dbz_prefix *dbz_seg_prefix(dbz_seg *seg, uint32_t index);   /* NULL: out of range or not backed */
dbz_proc *dbz_seg_proc(dbz_seg *seg, uint32_t index);       /* NULL: out of range */

/* --- status.c ---------------------------------------------------------------------------------------------------------------------------- */
int dbz_seg_status(dbz_seg *seg, dbz_seg_info *out);
int dbz_prefix_status(dbz_seg *seg, uint32_t prefix, dbz_prefix_info *out);
int dbz_proc_status(dbz_seg *seg, uint32_t index, dbz_proc_info *out);

/* --- fork.c ------------------------------------------------------------------------------------------------------------------------------ */
/* Called in a forked child (also installed through pthread_atfork): closes the inherited lock descriptors and forgets slots. */
void dbz_fork_child(void);
/* Close `fd` in every forked child, because an inherited copy would keep its locks alive. Must be undone before the descriptor is closed. */
int dbz_fork_guard(int fd);
void dbz_fork_unguard(int fd);
/* How many forks lie between this process and the one that loaded the engine: a handle made under another number is inherited, its lock descriptors are gone. */
uint32_t dbz_fork_depth(void);
/* Take over a lock file description opened anew in a forked child, after which dbz_proc_register works again. */
int dbz_seg_rejoin(dbz_seg *seg, int lock_fd);

/* --- locks.c: open-file-description byte locks ------------------------------------------------------------------------------------------- */
int dbz_lock_try(int fd, uint64_t start, uint64_t len, int exclusive);   /* 0, DBZ_E_BUSY, DBZ_E_IO (errno set) */
int dbz_lock_wait(int fd, uint64_t start, uint64_t len, int exclusive, int64_t timeout_ns);   /* also DBZ_E_TIMEOUT; polls with growing pauses, at most 20 ms */
int dbz_lock_drop(int fd, uint64_t start, uint64_t len);
int dbz_lock_taken(int fd, uint64_t start, uint64_t len);                /* 1 when another description holds a byte, 0, DBZ_E_IO */

/* --- process.c --------------------------------------------------------------------------------------------------------------------------- */
int dbz_proc_register(dbz_seg *seg);         /* 0 also when the table is full (slot stays -1, then the overflow byte is share-locked) */
void dbz_proc_release(dbz_seg *seg);
int dbz_proc_alive(dbz_seg *seg, uint32_t index);          /* 1 live, 0 dead or free */
int dbz_proc_reclaim(dbz_seg *seg);          /* wipes the slots of dead processes; returns how many */
int dbz_proc_count(dbz_seg *seg);            /* live slots */
/* 1 when this process is the only live one attached (caller holds the root's file lock). */
int dbz_proc_alone(dbz_seg *seg);

/* --- fstype.c */
/* statfs(2) magic number of the file system `path` is on, or a negative errno. */
int64_t dbz_fs_type(const char *path);

/* --- named.c */
/* 1 when a file of that name is there, 0 when none is, or a negative errno. */
int dbz_named(const char *path);
/* 1 when the first one is there, or else the second one is not; 0, or a negative errno. */
int dbz_log_followed(const char *following, const char *own);
/* 1 when `path` names the file open as `fd`, 0 when it does not, or a negative errno. */
int dbz_same_file(int fd, const char *path);

/* --- pins.c ------------------------------------------------------------------------------------------------------------------------------ */
int dbz_pin(dbz_seg *seg, uint32_t prefix, uint64_t state);     /* pin number >= 0, DBZ_E_RETRY when below the floor; a full slot raises pin_all and returns DBZ_PINS */
void dbz_unpin(dbz_seg *seg, int pin);
/* Move a pin. Returns the pin's number from now on (it may change), or an error with the old pin still in force. */
int dbz_repin(dbz_seg *seg, int pin, uint32_t prefix, uint64_t state);
/* Returns the floor in force afterwards: the caller may drop what is older than that, whatever it wanted. One raiser at a time (checkpoint lock). */
uint64_t dbz_floor_raise(dbz_seg *seg, uint32_t prefix, uint64_t wanted);
uint64_t dbz_oldest_pin(dbz_seg *seg, uint32_t prefix);         /* UINT64_MAX when nothing is pinned, 0 when a process pins everything */

/* --- prefix.c ---------------------------------------------------------------------------------------------------------------------------- */
/* Find or assign the slot of a prefix. Caller holds the root's file lock. Returns the index, DBZ_E_FULL or DBZ_E_NOSPACE. */
int dbz_prefix_find(dbz_seg *seg, const uint8_t name_hash[16], const char *name);
/* Empty the slot for a new incarnation: new cache key, no delta, no root, ready = 0. Caller holds the prefix's init lock, and no live process writes through
 * the slot (otherwise: dbz_prefix_retire, and find again). */
void dbz_prefix_reset(dbz_seg *seg, uint32_t prefix, uint64_t file_id, uint64_t prefix_uuid);
/* After a reset, when delta and root are filled: set the words and make the slot usable (ready = 1). */
int dbz_prefix_start(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t state, uint64_t data_end, uint64_t next_oid, uint64_t floor);
/* Replace a live holder: fence it out of the published word with `epoch`, end the incarnation, leave the slot to the zombie. Caller holds the root's file lock.
 * *state: the last state it published, which nothing changes any more. DBZ_E_FENCED when a newer epoch is there. */
int dbz_prefix_retire(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t *state);
/* Shared writers leave the slot of a page file that another one has taken the place of, with all that was published. Caller holds the root's file lock and the turn.
 * The slot is not used again while anything is pinned there. DBZ_E_FENCED: the lease is not shared at `epoch`, or the slot is left already. */
int dbz_prefix_leave(dbz_seg *seg, uint32_t prefix, uint64_t epoch);
/* The incarnation of the slot that ended so, 0: none. */
uint32_t dbz_prefix_left(dbz_seg *seg, uint32_t prefix);
/* Step 6 of a commit: raise data_end and next_oid. Lease holder only. */
void dbz_advance(dbz_seg *seg, uint32_t prefix, uint64_t data_end, uint64_t next_oid);
/* First of `n` fresh OIDs (0: no such prefix). */
uint64_t dbz_oid_reserve(dbz_seg *seg, uint32_t prefix, uint64_t n);

/* --- lease.c ----------------------------------------------------------------------------------------------------------------------------- */
/* Take the lease word for `epoch` (the file lock is already held). `force` replaces a holder that is not known to be dead. Moves the published word to the new epoch.
 * DBZ_E_BUSY: held by a live process. DBZ_E_FENCED: the epoch is not newer than the one a holder has or had uncleanly. */
int dbz_lease_take(dbz_seg *seg, uint32_t prefix, uint64_t epoch, int force);
int dbz_lease_drop(dbz_seg *seg, uint32_t prefix, uint64_t epoch);
uint64_t dbz_lease_word(dbz_seg *seg, uint32_t prefix);
/* Sleep until the lease word differs from `word`, or the timeout (a holder's death moves nothing: wait in slices and try the file lock between). */
int dbz_lease_wait(dbz_seg *seg, uint32_t prefix, uint64_t word, int64_t timeout_ns);
/* Compare-and-swap published from (epoch, state) to (epoch, next). DBZ_E_FENCED when the epoch moved, DBZ_E_ARG when the state differs. */
int dbz_publish(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t state, uint64_t next);
/* Raise durable to at least `state` and wake every waiter. */
void dbz_durable(dbz_seg *seg, uint32_t prefix, uint64_t state);
uint64_t dbz_state_published(dbz_seg *seg, uint32_t prefix);
uint64_t dbz_state_durable(dbz_seg *seg, uint32_t prefix);
uint32_t dbz_incarnation(dbz_seg *seg, uint32_t prefix);
/* After a failed fsync: dbz_publish answers DBZ_E_POISONED until the slot is reset. Sleepers wake. */
void dbz_poison(dbz_seg *seg, uint32_t prefix);
/* Sleep until durable > state, the incarnation differs, a wake, a signal, or the timeout. Returns 0, or DBZ_E_TIMEOUT. No busy loop; call without the GIL.
 * timeout_ns < 0: for ever. dbz_wake makes every sleeper return (spuriously) at once, for shutdown. */
int dbz_wait(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t incarnation, int64_t timeout_ns);
/* The same, but returns at once when the wakeup word is no longer `ticket` (from dbz_ticket): no wake between reading the ticket and sleeping is lost. */
int dbz_wait_ticket(dbz_seg *seg, uint32_t prefix, uint32_t ticket, uint64_t state, uint32_t incarnation, int64_t timeout_ns);
uint32_t dbz_ticket(dbz_seg *seg, uint32_t prefix);
void dbz_wake(dbz_seg *seg, uint32_t prefix);

/* --- follow.c ---------------------------------------------------------------------------------------------------------------------------- */
#define DBZ_FOLLOWED 128u
/* A prefix that a process follows. Times are of CLOCK_MONOTONIC, in ns. */
typedef struct {
    uint32_t prefix, incarnation;              /* that is shown */
    uint32_t ticket, reserved;                 /* from dbz_ticket, before the caller looked at anything else; moves on */
    uint64_t state;                            /* that is shown: newer durable ones are news */
    uint64_t durable;                          /* when the ticket was taken; for processes that make states */
    uint64_t *made;                            /* newest state made here, which is no news; its threads raise it (release) before they make it durable. NULL: none are */
    int64_t due, again;                        /* it is left alone until `due`, whatever happens, and is news from `again` on */
    int64_t rest;                              /* for how long it is left alone after states that were made here; 0: not at all */
} dbz_following;
/* Sleep until one of them has news - a state, another incarnation, a wake-up since its ticket - and return its place, or DBZ_E_TIMEOUT: all are left alone, and the caller
 * may have something else to do. `first`: place to look at first, so that none with news all the time hides the others. No busy loop; call without the GIL.
 * DBZ_E_IO: the kernel can't wait for more than one. */
int dbz_follow(dbz_seg *seg, dbz_following *items, uint32_t n, uint32_t first);
uint32_t dbz_follow_most(void);                /* how many dbz_follow can wait for on this kernel: 1 or DBZ_FOLLOWED */

/* --- turns.c: shared writers ------------------------------------------------------------------------------------------------------------- */
/* All: DBZ_E_ARG for no such prefix, DBZ_E_FULL for a process without a slot. Times in nanoseconds. */
/* The words for people and for deciding; `holder`: 0 the turn is free, 1 its holder lives, 2 it is dead. */
typedef struct {
    uint64_t turn, turns, until, freed, now, log_number, log_end, log_chain;
    uint32_t holder, pid, waiting, torn;
} dbz_turn_info;
int dbz_turn_status(dbz_seg *seg, uint32_t prefix, dbz_turn_info *out);
/* pids of the waiters, earliest first; returns how many were stored. */
int dbz_turn_queue(dbz_seg *seg, uint32_t prefix, uint32_t *pids, uint32_t cap);
/* Take a free turn that nobody waits for. DBZ_E_BUSY; DBZ_E_FENCED: the slot was retired. `allowed`: how long it may be kept before a waiter may replace us. */
int dbz_turn_try(dbz_seg *seg, uint32_t prefix, int64_t allowed);
/* Line up: the entry's number, or DBZ_E_FULL. */
int dbz_turn_join(dbz_seg *seg, uint32_t prefix);
/* Sleep until it is this entry's turn (0; the entry is free then), at most `timeout` (DBZ_E_TIMEOUT). DBZ_E_FENCED: the slot was retired. */
int dbz_turn_wait(dbz_seg *seg, uint32_t prefix, uint32_t entry, int64_t allowed, int64_t timeout);
/* Out of the line. */
void dbz_turn_leave(dbz_seg *seg, uint32_t prefix, uint32_t entry);
/* Free the entries of dead waiters. */
void dbz_turn_sweep(dbz_seg *seg, uint32_t prefix);
/* Take the turn from `word`, whose process is dead (0: from nobody). DBZ_E_BUSY when it is not there any more. */
int dbz_turn_seize(dbz_seg *seg, uint32_t prefix, uint64_t word, int64_t allowed);
/* Be allowed `allowed` from now on. */
int dbz_turn_extend(dbz_seg *seg, uint32_t prefix, int64_t allowed);
/* Give the turn back and wake the next. DBZ_E_FENCED: it was not ours. */
int dbz_turn_drop(dbz_seg *seg, uint32_t prefix);
/* The same in good order: the log ends there, and the next holder has nothing to recover. */
int dbz_turn_end(dbz_seg *seg, uint32_t prefix, uint64_t number, uint64_t end, uint64_t chain);
int dbz_turn_wanted(dbz_seg *seg, uint32_t prefix);            /* whether anybody is in line */
void dbz_turn_torn(dbz_seg *seg, uint32_t prefix, uint32_t torn);
void dbz_log_place(dbz_seg *seg, uint32_t prefix, uint64_t number, uint64_t end, uint64_t chain);
uint64_t dbz_log_number(dbz_seg *seg, uint32_t prefix);
/* Holder of the lease word: hand it to all shared writers (`on`), or take it back for ourselves. DBZ_E_FENCED. */
int dbz_lease_share(dbz_seg *seg, uint32_t prefix, uint64_t epoch, int on);
/* Who syncs for everybody: 0: the caller is to, and calls dbz_sync_end; 1: `state` is durable; 2: poisoned, or another incarnation. Sleeps while another process is at it,
 * but at most `patience`: then 0. */
int dbz_sync_begin(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t incarnation, int64_t patience);
/* `state` (0: none) is durable. */
void dbz_sync_end(dbz_seg *seg, uint32_t prefix, uint64_t state);

/* --- watch.c: following files written by a process that shares no segment with us --------------------------------------------------------- */
int dbz_watch_open(const char *directory);                      /* inotify descriptor, or DBZ_E_IO with errno set */
/* Sleep until a file in the directory was written, created, moved or deleted. 0, DBZ_E_TIMEOUT, DBZ_E_IO. Signals return 0 (spuriously). */
int dbz_watch_wait(int fd, int64_t timeout_ns);

/* --- delta.c ----------------------------------------------------------------------------------------------------------------------------- */
/* Make room for `n` more entries in the active generation. DBZ_E_NOSPACE: rotate and checkpoint, or go past the delta. Lease holder only. */
int dbz_delta_reserve(dbz_seg *seg, uint32_t prefix, uint32_t n);
/* Append entries of one state, newest last. Room must have been reserved. Lease holder (or the follower, or recovery) only. */
int dbz_delta_apply(dbz_seg *seg, uint32_t prefix, const dbz_entry *entries, uint32_t n);
/* Freeze the active generation and start the other one. DBZ_E_BUSY while a frozen one exists. `expected` entries size the new bucket array (0: at the first
 * reserve). Lease holder, under the checkpoint lock. */
int dbz_delta_rotate(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t expected);
uint32_t dbz_delta_count(dbz_seg *seg, uint32_t prefix, int frozen);
/* Copy the entries of the frozen (1) or active (0) generation, oldest first; returns how many were copied. */
int dbz_delta_copy(dbz_seg *seg, uint32_t prefix, int frozen, dbz_entry *out, uint32_t cap);
/* Put a new root in force. Then dbz_delta_retire drops the frozen generation (if any). Both under the checkpoint lock. */
void dbz_root_install(dbz_seg *seg, uint32_t prefix, uint64_t pointer, uint32_t depth, uint64_t state);
void dbz_delta_retire(dbz_seg *seg, uint32_t prefix);
/* Give back arena chunks that belong to no generation of a prefix (left by a dead rotator). Lease holder, under the checkpoint lock. Returns how many. */
int dbz_delta_sweep(dbz_seg *seg, uint32_t prefix);
/* Newest entry of `oid` with entry.state <= state; or, when many are newer, one of these (out->state > state): the version chain leads on from there.
 * DBZ_E_NOTFOUND, DBZ_E_RETRY (kept moving), DBZ_E_CORRUPT, or 0. */
int dbz_delta_find(dbz_seg *seg, uint32_t prefix, uint64_t oid, uint64_t state, dbz_entry *out);

#endif
