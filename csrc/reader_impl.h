/* Inside of the reading part: shared by cache.c, record.c, table.c, lookup.c, batch.c and merge.c only. */
#ifndef DBZ_READER_IMPL_H
#define DBZ_READER_IMPL_H

#include <stdlib.h>
#include <string.h>
#include "reader.h"

#define DBZ_DATA_MIN (3u * DBZ_PAGE)          /* header and the two meta slots come first */
#define DBZ_DEPTH_MAX 7u                      /* 406 * 508^6 covers 2^62 OIDs */
#define DBZ_ADDR_MAX (UINT64_C(1) << 48)
#define DBZ_HINTS 4096u                       /* power of two */
#define DBZ_FILE_ENTRY 10u                    /* bytes of a leaf entry */

/* A growable private buffer, 8-byte aligned. */
typedef struct {
    uint8_t *bytes;
    uint64_t cap;
} dbz_buf;

/* One page as found: in a shared frame (head != NULL; what was copied counts only if dbz_page_still() says so afterwards) or in private memory. */
typedef struct {
    const _Atomic uint64_t *words;
    dbz_frame *head;
    uint64_t version;
    uint32_t valid;
} dbz_page_view;

/* A page kept privately because the cache could not take it. */
typedef struct {
    uint64_t tag, page;
    uint32_t valid;
    uint8_t *bytes;
} dbz_spare;

/* A record's own fields, DELTA not resolved. Pointers are into the buffer it was loaded to. */
typedef struct {
    uint64_t addr, oid, state, ordinal, prev, skip;
    uint32_t flags;
    const uint8_t *refs;      /* encoded */
    const uint8_t *refs_end;
    uint64_t ref_count;
    const uint8_t *body;      /* payload, or for DELTA the middle */
    uint64_t body_len;
    uint64_t head, tail;      /* DELTA only */
} dbz_raw;

#define DBZ_RAW_BUFS (DBZ_DELTA_MAX + 4u)     /* a whole DELTA chain, and three to walk with */

struct dbz_reader {
    dbz_seg *seg;
    dbz_prefix *slot;
    uint32_t prefix;
    int fd;
    int error;
    int quick, shut;          /* see dbz_reader_quick, dbz_reader_shut */
    uint32_t cache_key;       /* of the incarnation it was opened on */
    uint32_t sets, run;
    uint64_t uuid;
    dbz_header *header;
    dbz_frame *heads;
    uint8_t *frames;
    uint64_t data_end;        /* as loaded when the current call began */
    uint64_t missing, missing_tag;   /* page address */
    uint64_t missing_bytes;   /* how far from its start on bytes are wanted; may reach over following data pages */
    dbz_fault fault;
    uint64_t hits, misses, evictions;
    uint32_t hand;
    dbz_buf page;             /* the page read last that is not in the cache */
    uint64_t page_tag, page_no;
    uint32_t page_valid;
    dbz_spare *spares;        /* open addressing; bytes == NULL: empty */
    uint32_t spare_cap, spare_count;
    int spare_done;           /* the call they were supplied for is over */
    dbz_buf raw[DBZ_RAW_BUFS];
    dbz_buf whole[2];         /* DELTA resolution, in turns */
    dbz_buf refs;
    uint32_t resolved_deltas; /* DELTA records in a row behind the payload resolved last, and the sum of their middles */
    uint64_t resolved_middle;
    uint32_t hints[DBZ_HINTS];
};

/* --- small helpers --- */

int dbz_buf_grow(dbz_buf *b, uint64_t need);
void dbz_buf_free(dbz_buf *b);

static inline int dbz_buf_need(dbz_buf *b, uint64_t need) { return need <= b->cap ? 0 : dbz_buf_grow(b, need); }

/* Decode one varint from [*p, end). Canonical form is not required, overlong values beyond 64 bits are refused. */
static inline int dbz_varint_get(const uint8_t **p, const uint8_t *end, uint64_t *out)
{
    const uint8_t *q = *p;
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (q >= end)
            return -1;
        uint8_t byte = *q++;
        if (shift == 63 && byte > 1)
            return -1;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *p = q;
            *out = value;
            return 0;
        }
    }
    return -1;
}

static inline uint8_t *dbz_varint_put(uint8_t *p, uint64_t value)
{
    while (value >= 0x80) {
        *p++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *p++ = (uint8_t)value;
    return p;
}

static inline uint64_t dbz_zigzag(uint64_t now, uint64_t before)
{
    uint64_t d = now - before;
    return (d << 1) ^ (uint64_t)((int64_t)d >> 63);
}

static inline uint64_t dbz_unzigzag(uint64_t z, uint64_t before)
{
    return before + ((z >> 1) ^ (0 - (z & 1)));
}

static inline uint16_t dbz_load16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint32_t dbz_load32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint64_t dbz_load64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void dbz_store16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void dbz_store32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void dbz_store64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }
static inline uint64_t dbz_load48(const uint8_t *p) { return dbz_load32(p) | (uint64_t)dbz_load16(p + 4) << 32; }
static inline void dbz_store48(uint8_t *p, uint64_t v) { dbz_store32(p, (uint32_t)v); dbz_store16(p + 4, (uint16_t)(v >> 32)); }

/* Note the damage and return DBZ_E_CORRUPT. */
int dbz_damage(dbz_reader *r, int what, uint64_t address, uint64_t oid, uint64_t state);

/* Sort keys (and the u32 that goes with each) ascending, stable. `scratch` holds 2 * n pairs' worth of room; see sort.c. */
typedef struct {
    uint64_t key;
    uint32_t value;
} dbz_pair;
int dbz_sort_pairs(dbz_pair *pairs, uint32_t n);

/* --- cache.c --- */
#define DBZ_TAG_TABLE (UINT64_C(1) << 31)
static inline uint64_t dbz_tag_data(const dbz_reader *r) { return (uint64_t)r->cache_key << 32; }
static inline uint64_t dbz_tag_table(const dbz_reader *r, uint64_t pointer) { return (uint64_t)r->cache_key << 32 | DBZ_TAG_TABLE | DBZ_PTR_GEN(pointer); }
/* Find page `page`, filled up to byte `end` at least. */
int dbz_page_find(dbz_reader *r, uint64_t tag, uint64_t page, uint32_t end, dbz_page_view *v);
/* What was read through the view since dbz_page_find is one consistent page. */
static inline int dbz_page_still(const dbz_page_view *v)
{
    if (!v->head)
        return 1;
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&v->head->version, memory_order_relaxed) == v->version;
}
/* Copy [addr, addr + len) of the data area to base + (addr & 7); base is 8-byte aligned and has room for len + 16. */
int dbz_data_copy(dbz_reader *r, uint64_t addr, uint64_t len, uint8_t *base);
/* Begin a public call: note data_end; DBZ_E_RETRY when the prefix has a new incarnation. */
int dbz_call_begin(dbz_reader *r);

/* --- record.c --- */
/* Load and verify the record at addr into raw buffer number `b`. oid 0: any. */
int dbz_record_load(dbz_reader *r, unsigned b, uint64_t addr, uint64_t oid, dbz_raw *out);
/* Turn a loaded record into what callers see; DELTA chains are followed. */
int dbz_record_resolve(dbz_reader *r, const dbz_raw *raw, dbz_record *out);
/* Parse a complete record image (length `len`, standing at `addr`). what: the fault number. */
int dbz_record_parse(const uint8_t *bytes, uint64_t len, uint64_t addr, uint64_t uuid, dbz_raw *out, int *what);
/* Bytes of the record whose first `have` bytes are at `bytes`; 0: not known yet or malformed. */
uint64_t dbz_record_size(const uint8_t *bytes, uint64_t have);
/* Ordinal that the skip pointer of version `ordinal` (> 0) leads to. */
uint64_t dbz_skip_ordinal(uint64_t ordinal);
/* What a record is made of. */
typedef struct {
    uint64_t oid, state, ordinal, prev, skip;
    uint32_t flags;
    const uint64_t *refs;
    uint64_t ref_count;
    const uint8_t *body;
    uint64_t body_len, head, tail;
} dbz_draft;
/* Append the record to `out` at offset *used; it will stand at address `addr`. Returns its size or a negative code. */
int64_t dbz_record_encode(const dbz_draft *d, uint64_t addr, uint64_t uuid, dbz_buf *scratch, dbz_buf *out, uint64_t *used);

/* --- table.c --- */
/* OIDs covered by one entry of a node of that level (level 0: 1). */
uint64_t dbz_table_span(uint32_t level);
/* Structure and checksum of a table page. what: the fault number. */
int dbz_table_check(const uint8_t *page, uint64_t address, uint32_t generation, uint64_t uuid, int *what);
/* Write the header and checksum of a page whose entries are in place. */
void dbz_table_finish(uint8_t *page, uint64_t address, uint32_t generation, uint32_t kind, uint32_t level, uint32_t used, uint64_t first, uint64_t uuid);
/* Read a whole table page, verified, level and first OID included. */
int dbz_table_page(dbz_reader *r, uint64_t pointer, uint32_t level, uint64_t first, uint8_t *out);
/* Entry of `oid` under the root. DBZ_E_NOTFOUND when there is none. */
int dbz_table_find(dbz_reader *r, uint64_t root, uint32_t depth, uint64_t oid, uint64_t *addr, uint32_t *refcount);

#endif
