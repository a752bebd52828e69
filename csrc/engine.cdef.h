/* What the cffi binding exposes. A plain subset of segment.h, reader.h and batch.h; the compiler checks it against them. */

typedef struct { uint64_t oid, state, addr; uint32_t refcount, next; } dbz_entry;
typedef struct { uint64_t oid, addr; uint32_t refcount, flags; } dbz_change;
typedef struct { uint64_t data_addr, data_len, data_sum; uint32_t entries, flags; } dbz_body;
typedef struct { uint64_t address, oid, state; int what; } dbz_fault;
typedef struct {
    uint64_t oid, state, addr, ordinal, prev, skip;
    uint32_t flags, refcount;
    const uint8_t *payload; uint64_t payload_len;
    const uint64_t *refs; uint64_t ref_count;
} dbz_record;
typedef struct { int slot; int error; ...; } dbz_seg;
typedef struct dbz_reader dbz_reader;
typedef struct dbz_batch dbz_batch;
typedef struct dbz_merge dbz_merge;

uint64_t dbz_seg_size(uint64_t cache_bytes, uint64_t arena_bytes);
int dbz_seg_format(int fd, uint64_t cache_bytes, uint64_t arena_bytes, const uint8_t *root_id, uint64_t device, uint64_t inode, const uint8_t *boot_id);
int dbz_seg_map(int fd, int lock_fd, const uint8_t *root_id, uint64_t device, uint64_t inode, const uint8_t *boot_id, dbz_seg **out);
void dbz_seg_unmap(dbz_seg *seg);
