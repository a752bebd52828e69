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
typedef struct { int slot; int error; int lock_fd; int fd; uint64_t generation; ...; } dbz_seg;
typedef struct dbz_reader dbz_reader;
typedef struct dbz_batch dbz_batch;
typedef struct dbz_merge dbz_merge;

/* --- shared engine: segment.h --- */
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
    uint64_t pin[14];
} dbz_proc_info;
typedef struct {
    uint64_t size, reserved, cache_bytes;
    uint64_t hits, misses, evictions;
    uint32_t arena_chunks, arena_used, processes, prefixes;
} dbz_seg_info;

uint64_t dbz_xxh3(const void *data, uint64_t len, uint64_t seed);
uint64_t dbz_frame_head(uint8_t *out, uint32_t kind, uint64_t epoch, uint64_t state, uint64_t durable, uint64_t next_oid, const uint8_t *body, uint64_t len,
                        uint64_t seed, uint64_t salt, uint64_t offset);

uint64_t dbz_seg_size(uint64_t cache_bytes, uint64_t arena_bytes);
int dbz_seg_format(int fd, uint64_t cache_bytes, uint64_t arena_bytes, const uint8_t *root_id, uint64_t device, uint64_t inode, const uint8_t *boot_id);
int dbz_seg_map(int fd, int lock_fd, const uint8_t *root_id, uint64_t device, uint64_t inode, const uint8_t *boot_id, dbz_seg **out);
void dbz_seg_unmap(dbz_seg *seg);
void dbz_seg_hold(dbz_seg *seg);
void dbz_seg_drop(dbz_seg *seg);
int dbz_seg_reserve(dbz_seg *seg, uint64_t off, uint64_t len);
int dbz_seg_reserved(const dbz_seg *seg, uint64_t off);
int dbz_seg_rejoin(dbz_seg *seg, int lock_fd);

int dbz_seg_status(dbz_seg *seg, dbz_seg_info *out);
int dbz_prefix_status(dbz_seg *seg, uint32_t prefix, dbz_prefix_info *out);
int dbz_proc_status(dbz_seg *seg, uint32_t index, dbz_proc_info *out);

void dbz_fork_child(void);
int dbz_fork_guard(int fd);
void dbz_fork_unguard(int fd);
uint32_t dbz_fork_depth(void);

int dbz_lock_try(int fd, uint64_t start, uint64_t len, int exclusive);
int dbz_lock_wait(int fd, uint64_t start, uint64_t len, int exclusive, int64_t timeout_ns);
int dbz_lock_drop(int fd, uint64_t start, uint64_t len);
int dbz_lock_taken(int fd, uint64_t start, uint64_t len);

int dbz_proc_register(dbz_seg *seg);
void dbz_proc_release(dbz_seg *seg);
int dbz_proc_alive(dbz_seg *seg, uint32_t index);
int dbz_proc_reclaim(dbz_seg *seg);
int dbz_proc_count(dbz_seg *seg);
int dbz_proc_alone(dbz_seg *seg);

int dbz_pin(dbz_seg *seg, uint32_t prefix, uint64_t state);
void dbz_unpin(dbz_seg *seg, int pin);
uint64_t dbz_floor_raise(dbz_seg *seg, uint32_t prefix, uint64_t wanted);
uint64_t dbz_oldest_pin(dbz_seg *seg, uint32_t prefix);

int dbz_prefix_find(dbz_seg *seg, const uint8_t *name_hash, const char *name);
void dbz_prefix_reset(dbz_seg *seg, uint32_t prefix, uint64_t file_id, uint64_t prefix_uuid);
int dbz_prefix_start(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t state, uint64_t data_end, uint64_t next_oid, uint64_t floor);
int dbz_prefix_retire(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t *state);
int dbz_prefix_leave(dbz_seg *seg, uint32_t prefix, uint64_t epoch);
uint32_t dbz_prefix_left(dbz_seg *seg, uint32_t prefix);
void dbz_advance(dbz_seg *seg, uint32_t prefix, uint64_t data_end, uint64_t next_oid);
uint64_t dbz_oid_reserve(dbz_seg *seg, uint32_t prefix, uint64_t n);

int dbz_lease_take(dbz_seg *seg, uint32_t prefix, uint64_t epoch, int force);
int dbz_lease_drop(dbz_seg *seg, uint32_t prefix, uint64_t epoch);
uint64_t dbz_lease_word(dbz_seg *seg, uint32_t prefix);
int dbz_lease_wait(dbz_seg *seg, uint32_t prefix, uint64_t word, int64_t timeout_ns);
int dbz_publish(dbz_seg *seg, uint32_t prefix, uint64_t epoch, uint64_t state, uint64_t next);
void dbz_durable(dbz_seg *seg, uint32_t prefix, uint64_t state);
void dbz_poison(dbz_seg *seg, uint32_t prefix);
int dbz_wait(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t incarnation, int64_t timeout_ns);
typedef struct {
    uint32_t prefix, incarnation, ticket, reserved;
    uint64_t state, durable;
    uint64_t *made;
    int64_t due, again, rest;
} dbz_following;
int dbz_follow(dbz_seg *seg, dbz_following *items, uint32_t n, uint32_t first);
uint32_t dbz_follow_most(void);
void dbz_wake(dbz_seg *seg, uint32_t prefix);

typedef struct {
    uint64_t turn, turns, until, freed, now, log_number, log_end, log_chain;
    uint32_t holder, pid, waiting, torn;
} dbz_turn_info;
int dbz_turn_status(dbz_seg *seg, uint32_t prefix, dbz_turn_info *out);
int dbz_turn_queue(dbz_seg *seg, uint32_t prefix, uint32_t *pids, uint32_t cap);
int dbz_turn_join(dbz_seg *seg, uint32_t prefix);
int dbz_turn_wait(dbz_seg *seg, uint32_t prefix, uint32_t entry, int64_t allowed, int64_t timeout);
void dbz_turn_leave(dbz_seg *seg, uint32_t prefix, uint32_t entry);
void dbz_turn_sweep(dbz_seg *seg, uint32_t prefix);
int dbz_turn_seize(dbz_seg *seg, uint32_t prefix, uint64_t word, int64_t allowed);
int dbz_turn_extend(dbz_seg *seg, uint32_t prefix, int64_t allowed);
int dbz_turn_drop(dbz_seg *seg, uint32_t prefix);
void dbz_log_place(dbz_seg *seg, uint32_t prefix, uint64_t number, uint64_t end, uint64_t chain);
int dbz_lease_share(dbz_seg *seg, uint32_t prefix, uint64_t epoch, int on);
int dbz_sync_begin(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t incarnation, int64_t patience);
void dbz_sync_end(dbz_seg *seg, uint32_t prefix, uint64_t state);

int64_t dbz_fs_type(const char *path);
int dbz_named(const char *path);
int dbz_log_followed(const char *following, const char *own);
int dbz_same_file(int fd, const char *path);

int dbz_watch_open(const char *directory);
int dbz_watch_wait(int fd, int64_t timeout_ns);

int dbz_delta_reserve(dbz_seg *seg, uint32_t prefix, uint32_t n);
int dbz_delta_apply(dbz_seg *seg, uint32_t prefix, const dbz_entry *entries, uint32_t n);
int dbz_delta_rotate(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t expected);
uint32_t dbz_delta_count(dbz_seg *seg, uint32_t prefix, int frozen);
int dbz_delta_copy(dbz_seg *seg, uint32_t prefix, int frozen, dbz_entry *out, uint32_t cap);
void dbz_root_install(dbz_seg *seg, uint32_t prefix, uint64_t pointer, uint32_t depth, uint64_t state);
void dbz_delta_retire(dbz_seg *seg, uint32_t prefix);
int dbz_delta_sweep(dbz_seg *seg, uint32_t prefix);
int dbz_delta_find(dbz_seg *seg, uint32_t prefix, uint64_t oid, uint64_t state, dbz_entry *out);

/* --- data engine: reader.h, batch.h --- */
int dbz_reader_new(dbz_seg *seg, uint32_t prefix, int fd, dbz_reader **out);
void dbz_reader_free(dbz_reader *r);
uint64_t dbz_reader_missing(const dbz_reader *r);
uint64_t dbz_reader_missing_bytes(const dbz_reader *r);
int dbz_page_supply(dbz_reader *r, uint64_t page_address, const uint8_t *bytes, uint32_t len);
const dbz_fault *dbz_reader_fault(const dbz_reader *r);
int dbz_reader_errno(const dbz_reader *r);
int dbz_get(dbz_reader *r, uint64_t oid, uint64_t state, dbz_record *out);
int dbz_get_entry(dbz_reader *r, uint64_t oid, uint64_t state, dbz_entry *out);
int dbz_get_at(dbz_reader *r, uint64_t addr, dbz_record *out);
int dbz_get_bytes(dbz_reader *r, uint64_t addr, uint8_t *out, uint64_t len);
int dbz_get_changes(dbz_reader *r, uint64_t state, uint64_t *oids, uint64_t *n, uint64_t *time_us);
int dbz_get_changes_since(dbz_reader *r, uint64_t after, uint64_t upto, uint64_t *oids, uint64_t *n, uint64_t *done);
int dbz_table_scan(dbz_reader *r, uint64_t root_pointer, uint32_t depth, uint64_t from_oid, int only_zero, dbz_entry *out, uint32_t cap, uint64_t *next);

int dbz_batch_new(dbz_reader *r, uint64_t base, uint64_t state, uint64_t data_addr, dbz_batch **out);
void dbz_batch_free(dbz_batch *b);
void dbz_batch_fresh(dbz_batch *b, uint64_t from_oid);
int dbz_batch_put(dbz_batch *b, uint64_t oid, const uint8_t *payload, uint64_t len, const uint64_t *refs, uint64_t nrefs);
int dbz_batch_put_many(dbz_batch *b, uint32_t n, const uint64_t *oids, const uint8_t *payloads, const uint64_t *lens, const uint64_t *refs,
                       const uint64_t *ref_counts, uint32_t *done);
int dbz_batch_delete(dbz_batch *b, uint64_t oid);
int dbz_batch_zero(dbz_batch *b, uint64_t *out, uint32_t cap);
int dbz_batch_refcount(dbz_batch *b, uint64_t oid, uint64_t *out);
int dbz_batch_seal(dbz_batch *b, uint64_t time_us, int in_place);
uint64_t dbz_batch_records(const dbz_batch *b);
typedef struct { const uint8_t *body, *data; uint64_t body_len, data_len; const dbz_entry *entries; uint32_t entry_count; } dbz_sealed;
void dbz_batch_sealed(const dbz_batch *b, dbz_sealed *out);
int dbz_body_entries(const uint8_t *body, uint64_t len, uint64_t state, dbz_entry *out, uint32_t cap, dbz_body *head);

int dbz_merge_new(dbz_reader *r, uint64_t root_pointer, uint32_t depth, uint32_t generation, const dbz_entry *entries, uint32_t n,
                  const uint64_t *pages, uint32_t *npages, dbz_merge **out);
void dbz_merge_free(dbz_merge *m);
void dbz_merge_root(const dbz_merge *m, uint64_t *pointer, uint32_t *depth);
const uint8_t *dbz_merge_page(const dbz_merge *m, uint32_t i, uint64_t *address);
const uint64_t *dbz_merge_freed(const dbz_merge *m, uint32_t *n);

/* A record of the free list: kind 3 pages are written and read by the storage layer through these two. */
void dbz_free_page_write(uint8_t *page, uint64_t address, uint32_t generation, const uint64_t *items, uint32_t n, uint64_t next, uint64_t uuid);
int dbz_free_page_read(const uint8_t *page, uint64_t address, uint32_t generation, uint64_t uuid, uint64_t *items, uint64_t *next);
