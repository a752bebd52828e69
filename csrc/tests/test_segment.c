/* Mapping, identity, reservation, prefix slots, status. */
#include "harness.h"

static void layout_and_identity(void)
{
    test_root r = test_root_new(4 << 20, 2 << 20);
    dbz_seg *seg = NULL;
    uint8_t strange[16] = "something else!";
    EQUAL(dbz_seg_map(r.fd, -1, strange, 1, 2, TEST_BOOT, &seg), DBZ_E_MISMATCH);
    EQUAL(dbz_seg_map(r.fd, -1, TEST_ROOT, 9, 2, TEST_BOOT, &seg), DBZ_E_MISMATCH);
    EQUAL(dbz_seg_map(r.fd, -1, TEST_ROOT, 1, 9, TEST_BOOT, &seg), DBZ_E_MISMATCH);
    EQUAL(dbz_seg_map(r.fd, -1, TEST_ROOT, 1, 2, strange, &seg), DBZ_E_MISMATCH);
    CHECK(fchmod(r.fd, 0640) == 0);
    EQUAL(dbz_seg_map(r.fd, -1, TEST_ROOT, 1, 2, TEST_BOOT, &seg), DBZ_E_MISMATCH);
    CHECK(fchmod(r.fd, 0600) == 0);
    CHECK(seg == NULL);
    EQUAL(dbz_seg_map(r.fd, -1, TEST_ROOT, 1, 2, TEST_BOOT, &seg), 0);
    EQUAL(seg->at.sets * (uint64_t)DBZ_WAYS * DBZ_PAGE, 4 << 20);
    EQUAL(seg->at.arena_chunks * DBZ_CHUNK, 2 << 20);
    EQUAL(seg->at.frames_off % DBZ_BLOCK, 0);
    CHECK(dbz_seg_proc(seg, DBZ_PROCS) == NULL && dbz_seg_prefix(seg, DBZ_PREFIXES) == NULL);
    CHECK(dbz_seg_prefix(seg, 5) == NULL);       /* not backed yet */
    dbz_seg_unmap(seg);
    test_root_free(&r);
}

static void every_header_byte_is_checked(void)
{
    /* A flipped bit in the header is refused, or is in a counter: never a mapping with wrong bounds. */
    test_root r = test_root_new(1 << 20, 1 << 20);
    for (off_t at = 0; at < (off_t)sizeof(dbz_header); at++) {
        uint8_t byte, flipped;
        dbz_seg *seg = NULL;
        CHECK(pread(r.fd, &byte, 1, at) == 1);
        flipped = byte ^ 0x40;
        CHECK(pwrite(r.fd, &flipped, 1, at) == 1);
        int rc = dbz_seg_map(r.fd, -1, TEST_ROOT, 1, 2, TEST_BOOT, &seg);
        CHECK(pwrite(r.fd, &byte, 1, at) == 1);
        if (rc == DBZ_OK) {
            CHECK(at >= (off_t)offsetof(dbz_header, incarnations));
            dbz_seg_unmap(seg);
        } else {
            EQUAL(rc, DBZ_E_MISMATCH);
        }
    }
    CHECK(ftruncate(r.fd, DBZ_BLOCK) == 0);
    dbz_seg *seg = NULL;
    EQUAL(dbz_seg_map(r.fd, -1, TEST_ROOT, 1, 2, TEST_BOOT, &seg), DBZ_E_MISMATCH);
    test_root_free(&r);
}

static void sizes_out_of_range(void)
{
    EQUAL(dbz_seg_size(UINT64_MAX, 1), 0);
    EQUAL(dbz_seg_size(1, UINT64_MAX), 0);
    CHECK(dbz_seg_size(0, 0) > 0);
    CHECK(dbz_seg_size(UINT64_C(1) << 40, UINT64_C(1) << 36) > UINT64_C(1) << 40);
    int fd = memfd_create("short", MFD_CLOEXEC);
    EQUAL(dbz_seg_format(fd, 1 << 20, 1 << 20, TEST_ROOT, 1, 2, TEST_BOOT), DBZ_E_ARG);
    close(fd);
}

static void reserve_and_failure(void)
{
    test_root r = test_root_new(8 << 20, 8 << 20);
    dbz_seg *seg = test_join(&r);
    uint64_t at = seg->at.frames_off;
    EQUAL(dbz_seg_reserved(seg, at), 0);
    EQUAL(dbz_seg_reserve(seg, at + DBZ_BLOCK - 1, 2), 0);
    EQUAL(dbz_seg_reserved(seg, at), 1);
    EQUAL(dbz_seg_reserved(seg, at + DBZ_BLOCK), 1);
    EQUAL(dbz_seg_reserved(seg, at + 2 * DBZ_BLOCK), 0);
    EQUAL(dbz_seg_reserve(seg, seg->size - 1, 2), DBZ_E_ARG);
    EQUAL(dbz_seg_reserve(seg, seg->size, 1), DBZ_E_ARG);
    EQUAL(dbz_seg_reserved(seg, UINT64_MAX), 0);
    /* No memory to be had: a descriptor that may not write refuses like a file system that is full, and nothing is marked. */
    int kept = seg->fd;
    seg->fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    CHECK(dbz_seg_reserve(seg, at + 3 * DBZ_BLOCK, 1) < 0);
    EQUAL(dbz_seg_reserved(seg, at + 3 * DBZ_BLOCK), 0);
    uint32_t x;
    close(seg->fd);
    seg->fd = kept;
    x = test_prefix(seg, "a");
    seg->fd = open("/dev/full", O_RDWR | O_CLOEXEC);
    CHECK(dbz_delta_reserve(seg, x, 10) < 0);
    EQUAL(dbz_delta_apply(seg, x, &(dbz_entry){16, 2, 4096, 1, 0}, 1), DBZ_E_NOSPACE);
    close(seg->fd);
    seg->fd = kept;
    EQUAL(dbz_delta_reserve(seg, x, 10), 0);
    dbz_seg_unmap(seg);
    test_root_free(&r);
}

static void prefix_slots(void)
{
    test_root r = test_root_new(1 << 20, 1 << 20);
    dbz_seg *seg = test_join(&r), *two = test_join(&r);
    uint32_t a = test_prefix(seg, "a"), b = test_prefix(seg, "b");
    CHECK(a != b);
    uint8_t hash[16] = "a";
    EQUAL(dbz_prefix_find(two, hash, "a"), a);
    dbz_prefix_info info;
    EQUAL(dbz_prefix_status(two, a, &info), 0);
    CHECK(strcmp(info.name, "a") == 0 && info.ready == 1 && info.durable == 1 && info.file_id == 7);
    EQUAL(dbz_oid_reserve(seg, a, 100), 16);
    EQUAL(dbz_oid_reserve(two, a, 1), 116);
    dbz_advance(seg, a, 9000, 50);
    EQUAL(dbz_prefix_status(two, a, &info), 0);
    EQUAL(info.data_end, 9000);
    EQUAL(info.next_oid, 117);
    uint32_t key = info.cache_key;
    dbz_prefix_reset(seg, a, 9, 9);
    EQUAL(dbz_prefix_status(two, a, &info), 0);
    CHECK(info.ready == 0 && info.cache_key != key && info.incarnation != 0);
    /* Full table. */
    for (uint32_t i = 2; i < DBZ_PREFIXES; i++) {
        uint8_t h[16] = {0};
        snprintf((char *)h, sizeof h, "p%u", i);
        EQUAL(dbz_prefix_find(seg, h, "p"), i);
    }
    EQUAL(dbz_prefix_find(seg, (const uint8_t *)"one too many\0\0\0", "x"), DBZ_E_FULL);
    EQUAL(dbz_prefix_find(seg, hash, "a"), a);
    dbz_seg_info s;
    EQUAL(dbz_seg_status(seg, &s), 0);
    EQUAL(s.prefixes, DBZ_PREFIXES);
    EQUAL(s.processes, 2);
    CHECK(s.reserved >= 12 * DBZ_BLOCK && s.reserved < s.size);
    dbz_seg_unmap(two);
    dbz_seg_unmap(seg);
    test_root_free(&r);
}

static void retired_slot_waits_for_its_zombie(void)
{
    test_root r = test_root_new(1 << 20, 1 << 20);
    dbz_seg *zombie = test_join(&r), *next = test_join(&r);
    uint32_t a = test_prefix(zombie, "a");
    uint8_t hash[16] = "a";
    uint64_t state = 0;
    EQUAL(dbz_lease_take(zombie, a, 2, 0), 0);
    EQUAL(dbz_publish(zombie, a, 2, 1, 2), 0);
    EQUAL(dbz_prefix_retire(next, a, 2, &state), DBZ_E_FENCED);
    uint32_t incarnation = dbz_incarnation(next, a);
    EQUAL(dbz_prefix_retire(next, a, 3, &state), 0);
    EQUAL(state, 2);
    CHECK(dbz_incarnation(next, a) != incarnation);
    EQUAL(dbz_publish(zombie, a, 2, 2, 3), DBZ_E_FENCED);
    uint32_t b = (uint32_t)dbz_prefix_find(next, hash, "a");
    CHECK(b != a);
    uint8_t other[16] = "b";
    CHECK((uint32_t)dbz_prefix_find(next, other, "b") != a);
    test_kill(zombie);
    uint8_t third[16] = "c";
    EQUAL(dbz_prefix_find(next, third, "c"), a);
    dbz_seg_unmap(next);
    test_root_free(&r);
}

int main(void)
{
    RUN(layout_and_identity);
    RUN(every_header_byte_is_checked);
    RUN(sizes_out_of_range);
    RUN(reserve_and_failure);
    RUN(prefix_slots);
    RUN(retired_slot_waits_for_its_zombie);
    return 0;
}
