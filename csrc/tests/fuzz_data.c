/* libFuzzer target for everything that parses bytes of a file: records, table pages, frame bodies, free list pages, and lookups through a file that consists of
 * the input. Checksums are made right first, otherwise nothing but the checksum would ever be tested.
 *
 *   clang -g -O1 -std=gnu11 -fsanitize=fuzzer,address,undefined csrc/[!_p]*.c csrc/tests/fuzz_data.c -o fuzz_data -lrt && ./fuzz_data -max_total_time=60 */
#include "harness.h"
#include "../reader_impl.h"

static const uint64_t UUID = 7;
static dbz_seg *seg;
static uint32_t prefix;
static int fd;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void start(void)
{
    static test_root root;
    uint8_t hash[16] = {1};
    root = test_root_new(64 << 10, 1 << 20);
    seg = test_join(&root);
    int slot = dbz_prefix_find(seg, hash, "fuzz");
    CHECK(slot >= 0);
    prefix = (uint32_t)slot;
    fd = memfd_create("pages", MFD_CLOEXEC);
    CHECK(fd >= 0);
    test_root_free(&root);
}

/* The input as a page file from DBZ_DATA_MIN on: byte 0 says where the record starts that is made valid, byte 1 whether the first page is a table page. */
static void as_file(const uint8_t *data, size_t size)
{
    uint8_t bytes[4 * DBZ_PAGE] = {0};
    if (size > sizeof bytes)
        size = sizeof bytes;
    memcpy(bytes, data, size);
    uint32_t depth = data[1] % 4;
    if (depth)
        dbz_store64(bytes, dbz_xxh3(bytes + 8, DBZ_PAGE - 8, UUID ^ DBZ_DATA_MIN));
    uint64_t at = depth ? DBZ_PAGE : 0;
    for (unsigned k = 0; k < 20; k++) {
        uint64_t len = dbz_record_size(bytes + at, sizeof bytes - at);
        if (!len || len > sizeof bytes - at)
            break;
        dbz_store32(bytes + at, (uint32_t)dbz_xxh3(bytes + at + 4, len - 4, UUID ^ (DBZ_DATA_MIN + at)));
        at += len;
    }
    CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, bytes, sizeof bytes, DBZ_DATA_MIN) == (ssize_t)sizeof bytes);
    dbz_prefix_reset(seg, prefix, 1, UUID);
    EQUAL(dbz_prefix_start(seg, prefix, 1, 100, DBZ_DATA_MIN + sizeof bytes, 16, 0), 0);
    dbz_root_install(seg, prefix, 3 | (uint64_t)(dbz_load32(bytes + 8) & 0x7fffff) << 40, depth, 100);
    dbz_reader *r;
    EQUAL(dbz_reader_new(seg, prefix, fd, &r), 0);
    dbz_record rec;
    dbz_entry out[32];
    uint64_t next, changes[32], n = 32, time;
    for (uint64_t oid = 1; oid < 24; oid++)
        (void)dbz_get(r, oid, data[0], &rec);
    for (uint64_t a = 0; a < 64; a++)
        (void)dbz_get_at(r, DBZ_DATA_MIN + a * 67, &rec);
    (void)dbz_get_changes(r, data[0], changes, &n, &time);
    n = 4;
    (void)dbz_get_changes_since(r, data[0] / 2, data[0], changes, &n, &time);
    (void)dbz_table_scan(r, 3 | UINT64_C(1) << 63, depth, 0, data[0] & 1, out, 32, &next);
    dbz_reader_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!seg)
        start();
    if (size < 8)
        return 0;
    dbz_entry entries[64];
    dbz_body head;
    (void)dbz_body_entries(data, size, 5, entries, 64, &head);
    uint64_t addr = DBZ_DATA_MIN + data[0];
    uint8_t *copy = malloc(size);
    CHECK(copy);
    memcpy(copy, data, size);
    dbz_store32(copy, (uint32_t)dbz_xxh3(copy + 4, size - 4, UUID ^ addr));
    dbz_raw raw;
    int what;
    (void)dbz_record_parse(copy, size, addr, UUID, &raw, &what);
    if (size == DBZ_PAGE) {
        uint64_t items[DBZ_INNER], next;
        dbz_store64(copy, dbz_xxh3(copy + 8, DBZ_PAGE - 8, UUID ^ DBZ_DATA_MIN));
        (void)dbz_free_page_read(copy, DBZ_DATA_MIN, dbz_load32(copy + 8), UUID, items, &next);
    }
    free(copy);
    as_file(data, size);
    return 0;
}
