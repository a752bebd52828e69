/* Reading one prefix: page cache, object table, records, version chains. */
#ifndef DBZ_READER_H
#define DBZ_READER_H

#include "segment.h"

/* Table page (4096 bytes, little endian):
 *   0  u64 xxh3_64 of bytes 8..4095, seed = prefix uuid ^ page address
 *   8  u32 generation (number of the checkpoint that wrote it, low 23 bits in pointers)
 *  12  u8  kind: 1 inner, 2 leaf, 3 free list
 *  13  u8  level: leaf 0
 *  14  u16 entries in use
 *  16  u64 own page address in bytes
 *  24  u64 first OID covered (free list: pointer of the next free list page)
 *  32      leaf:  406 x { u48 record address, u32 refcount }     address 0: no such object
 *          inner: 508 x u64 page pointer
 *          free list: 508 x u64: page number (40 bits) | checkpoint that freed it << 40
 * Page pointer: page number (40 bits) | generation << 40 (23 bits) | bit 63: the subtree holds a live object with refcount 0. 0: empty subtree. */
#define DBZ_LEAF 406u
#define DBZ_INNER 508u
#define DBZ_PTR_PAGE ((UINT64_C(1) << 40) - 1)
#define DBZ_PTR_GEN(p) (((p) >> 40) & 0x7fffffu)
#define DBZ_PTR_ORPHANS (UINT64_C(1) << 63)

/* Record: one immutable version of one object, at any byte address of the data area.
 *   u32     low half of xxh3_64 of all that follows, seed = prefix uuid ^ record address
 *   varint  length of what follows this field (LEB128, as all varints here)
 *   u8      flags: FULL 1, DELTA 2, TOMBSTONE 4 (exactly one of them); PREV 8; SKIP 16; REFS 32
 *   varint  OID
 *   varint  state
 *   PREV:   varint distance to the previous version's address (always backwards), varint ordinal (number of older versions)
 *   SKIP:   varint distance to the skip target's address
 *   REFS:   varint count, then that many OIDs held strongly (duplicates count), each as the zigzag varint of its distance to the one before (first: to
 *           the record's own OID). A DELTA without REFS holds what the previous version held.
 *   rest    payload; for DELTA: varint head, varint tail, middle - the previous payload's first `head` and last `tail` bytes around `middle`
 * Skip pointers are the jump pointers of Myers, "An applicative random-access stack", IPL 17 (1983): ancestor search in O(log n). */
enum { DBZ_FULL = 1, DBZ_DELTA = 2, DBZ_TOMBSTONE = 4, DBZ_HAS_PREV = 8, DBZ_HAS_SKIP = 16, DBZ_HAS_REFS = 32 };
#define DBZ_DELTA_MAX 8u       /* DELTA records in a row before a FULL one */
#define DBZ_RECORD_MAX (UINT64_C(1) << 31)
#define DBZ_REF_TOMBSTONE UINT32_MAX   /* refcount of a table or delta entry whose record is a tombstone */

#define DBZ_OID_ROOT 1u        /* the prefix's catalogue */
#define DBZ_OID_LOG 2u         /* the commit log: its version at state s lists what commit s changed */
#define DBZ_OID_FIRST 16u      /* first OID given to objects */

/* What a lookup returns. payload and refs point into the reader's buffer: valid until its next call. */
typedef struct {
    uint64_t oid, state, addr;
    uint64_t ordinal;
    uint64_t prev, skip;       /* addresses, 0: none */
    uint32_t flags;
    uint32_t refcount;         /* of the newest entry <= state, or a later one (table, many newer); 0 when read by address */
    const uint8_t *payload;
    uint64_t payload_len;
    const uint64_t *refs;
    uint64_t ref_count;
} dbz_record;

/* Where and why the last DBZ_E_CORRUPT happened. */
typedef struct {
    uint64_t address;
    uint64_t oid;
    uint64_t state;
    int what;                  /* 1 record checksum, 2 record structure, 3 page checksum, 4 page identity, 5 address out of bounds, 6 wrong OID,
                                * 7 refcount below zero, 8 reference to nothing */
} dbz_fault;

typedef struct dbz_reader dbz_reader;

/* A process's handle for reading one prefix. Not thread-safe: one thread at a time (the caller's operation lock).
 * fd: descriptor of the prefix file, or -1: misses return DBZ_E_MISS and the caller supplies the page. The descriptor is borrowed. */
int dbz_reader_new(dbz_seg *seg, uint32_t prefix, int fd, dbz_reader **out);
/* For a caller that must not be kept waiting, since it holds the GIL: of the file only the last page is read, which has just been written and can't be cached. From now
 * on every call that needs another page answers DBZ_E_MISS; nothing can be supplied: ask another reader. */
void dbz_reader_quick(dbz_reader *r);
void dbz_reader_shut(dbz_reader *r);                              /* its descriptor is about to be closed: every call answers DBZ_E_MISS from now on */
void dbz_reader_free(dbz_reader *r);                              /* touches private memory only: the mapping may be gone already */
uint64_t dbz_reader_missing(const dbz_reader *r);                 /* page address wanted by the last DBZ_E_MISS */
uint64_t dbz_reader_missing_bytes(const dbz_reader *r);           /* bytes wanted from there on; more than a page: supply the following pages too, if you can */
int dbz_page_supply(dbz_reader *r, uint64_t page_address, const uint8_t *bytes, uint32_t len);
const dbz_fault *dbz_reader_fault(const dbz_reader *r);
int dbz_reader_errno(const dbz_reader *r);

/* Newest version of `oid` at or below `state`. A tombstone is returned as a record with the TOMBSTONE flag. */
int dbz_get(dbz_reader *r, uint64_t oid, uint64_t state, dbz_record *out);
/* Newest table/delta entry at or below `state`. out->state is the record's or that of a later change of its count, both <= `state`; the refcount is the
 * newest known one (from the table, or when many entries are newer: a later one), DBZ_REF_TOMBSTONE when the version is a tombstone. */
int dbz_get_entry(dbz_reader *r, uint64_t oid, uint64_t state, dbz_entry *out);
/* The record at an address, DELTA resolved. */
int dbz_get_at(dbz_reader *r, uint64_t addr, dbz_record *out);
/* Copy raw data bytes through the cache (for copy and verify). */
int dbz_get_bytes(dbz_reader *r, uint64_t addr, uint8_t *out, uint64_t len);
/* OIDs changed by the commit that made `state`, ascending; *n in: capacity, out: number (DBZ_E_NOSPACE when more). *time_us: commit time. */
int dbz_get_changes(dbz_reader *r, uint64_t state, uint64_t *oids, uint64_t *n, uint64_t *time_us);
int dbz_get_changes_since(dbz_reader *r, uint64_t after, uint64_t upto, uint64_t *oids, uint64_t *n, uint64_t *done);
/* Table entries in OID order from `from_oid` on (checkpointed table only, no delta; state is 0). only_zero: refcount 0 and live only.
 * Returns count, *next = where to go on (0: end). */
int dbz_table_scan(dbz_reader *r, uint64_t root_pointer, uint32_t depth, uint64_t from_oid, int only_zero, dbz_entry *out, uint32_t cap, uint64_t *next);

/* Free list pages (kind 3), for the storage layer. Write: n <= DBZ_INNER items, `next`: page pointer of the next page (0: none). Read: verifies, returns the
 * number of items (room for DBZ_INNER) or DBZ_E_CORRUPT. */
void dbz_free_page_write(uint8_t *page, uint64_t address, uint32_t generation, const uint64_t *items, uint32_t n, uint64_t next, uint64_t uuid);
int dbz_free_page_read(const uint8_t *page, uint64_t address, uint32_t generation, uint64_t uuid, uint64_t *items, uint64_t *next);

/* --- checksum.c -------------------------------------------------------------------------------------------------------------------------- */
uint64_t dbz_xxh3(const void *data, uint64_t len, uint64_t seed);
uint64_t dbz_xxh3_joined(const void *first, uint64_t first_len, const void *second, uint64_t second_len, uint64_t seed);

/* --- frame.c ----------------------------------------------------------------------------------------------------------------------------- */
/* Write the 64 header bytes of a log frame that follows the one with chain checksum `seed`, and stands at `offset` of the file with `salt`. Returns its chain checksum. */
uint64_t dbz_frame_head(uint8_t *out, uint32_t kind, uint64_t epoch, uint64_t state, uint64_t durable, uint64_t next_oid, const uint8_t *body, uint64_t len,
                        uint64_t seed, uint64_t salt, uint64_t offset);

#endif
