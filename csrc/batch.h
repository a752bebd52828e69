/* Building what a commit writes, and merging a delta into table pages. All of it in private memory; nothing here touches shared words. */
#ifndef DBZ_BATCH_H
#define DBZ_BATCH_H

#include "reader.h"

/* One line of a commit frame's entry list: the new table entry of one object. */
typedef struct {
    uint64_t oid;
    uint64_t addr;
    uint32_t refcount;
    uint32_t flags;            /* DBZ_ENTRY_* */
} dbz_change;

/* Body of a commit frame:
 *   0  u64 data address      8  u64 data length     16 u64 xxh3_64 of the data (seed 0)
 *  24  u32 entries          28  u32 flags: 1 = the data bytes are in place already and not repeated here
 *  32  dbz_change[entries], ascending OID
 *      data bytes (unless flag 1) */
typedef struct {
    uint64_t data_addr, data_len, data_sum;
    uint32_t entries, flags;
} dbz_body;

typedef struct dbz_batch dbz_batch;

/* Start the records of state `state`, built on the versions visible at `base` (= state - 1); data will stand at `data_addr`. */
int dbz_batch_new(dbz_reader *r, uint64_t base, uint64_t state, uint64_t data_addr, dbz_batch **out);
void dbz_batch_free(dbz_batch *b);
/* Promise that no OID from `from_oid` on is stored yet: saves looking them up. Before the first put. */
void dbz_batch_fresh(dbz_batch *b, uint64_t from_oid);
/* Write a new version. Counts: what the previous version held is subtracted, `refs` are added. A payload equal to the previous one still writes. */
int dbz_batch_put(dbz_batch *b, uint64_t oid, const uint8_t *payload, uint64_t len, const uint64_t *refs, uint64_t nrefs);
/* Put `n` objects: payloads and references stand one after the other. *done in: how many to skip, out: how many were put (also on failure: repeat from there
 * after dbz_page_supply, with payloads and refs moved on to the first one not put). */
int dbz_batch_put_many(dbz_batch *b, uint32_t n, const uint64_t *oids, const uint8_t *payloads, const uint64_t *lens, const uint64_t *refs,
                       const uint64_t *ref_counts, uint32_t *done);
/* Delete: writes a tombstone for a stored object, forgets one put in this very batch; what it held is subtracted. */
int dbz_batch_delete(dbz_batch *b, uint64_t oid);
/* Objects whose count became or is 0 by this batch and that were not reported before (put with no referrer, or lost the last one). Never OIDs < 16.
 * Call in a loop with dbz_batch_delete until it returns 0. DBZ_E_CORRUPT, fault 7: the stored counts don't add up. */
int dbz_batch_zero(dbz_batch *b, uint64_t *out, uint32_t cap);
/* Count of an object as of this batch. */
int dbz_batch_refcount(dbz_batch *b, uint64_t oid, uint64_t *out);
/* Encodes the records, the commit log's and the entry list. DBZ_E_NOTFOUND: a reference leads to an object that is neither stored nor put (its OID is in the
 * reader's fault). After success only dbz_batch_sealed may be called. `in_place`: leave the data out of the body. */
int dbz_batch_seal(dbz_batch *b, uint64_t time_us, int in_place);
uint64_t dbz_batch_records(const dbz_batch *b);                     /* records so far, the commit log's excluded */
/* What a sealed batch is made of; lives as long as the batch. */
typedef struct {
    const uint8_t *body, *data;                                     /* the frame body, the data bytes */
    uint64_t body_len, data_len;
    const dbz_entry *entries;                                       /* ready for dbz_delta_apply */
    uint32_t entry_count;
} dbz_sealed;
void dbz_batch_sealed(const dbz_batch *b, dbz_sealed *out);         /* all 0 before dbz_batch_seal */

/* Check a frame body's structure and turn its entry list into delta entries of `state`. out == NULL: count only. */
int dbz_body_entries(const uint8_t *body, uint64_t len, uint64_t state, dbz_entry *out, uint32_t cap, dbz_body *head);

/* Merge entries (any order; the newest state per OID wins) into the table under `root`, copy-on-write.
 * pages: addresses that may be used, in order; *npages in: how many, out: how many were used (DBZ_E_NOSPACE: *npages is how many are needed; a repeat with so many and the same entries fits).
 * The new pages are in dbz_merge_page(m, i): address and bytes; freed pages in dbz_merge_freed. */
typedef struct dbz_merge dbz_merge;
int dbz_merge_new(dbz_reader *r, uint64_t root_pointer, uint32_t depth, uint32_t generation, const dbz_entry *entries, uint32_t n,
                  const uint64_t *pages, uint32_t *npages, dbz_merge **out);
void dbz_merge_free(dbz_merge *m);
void dbz_merge_root(const dbz_merge *m, uint64_t *pointer, uint32_t *depth);
const uint8_t *dbz_merge_page(const dbz_merge *m, uint32_t i, uint64_t *address);
const uint64_t *dbz_merge_freed(const dbz_merge *m, uint32_t *n);

#endif
