/* The mapping: layout, identity, memory reserved block by block. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared.h"

#define CACHE_LIMIT (UINT64_C(1) << 42)
#define ARENA_LIMIT (UINT64_C(1) << 36)          /* its chunk map fits one block */
#define SET_BYTES ((uint64_t)DBZ_WAYS * DBZ_PAGE)

_Static_assert(sizeof(dbz_header) <= DBZ_PAGE, "the header is one page");
_Static_assert(sizeof(dbz_proc) == 192 && sizeof(dbz_frame) == 64 && sizeof(dbz_entry) == 32, "whole cache lines");
_Static_assert(ARENA_LIMIT / DBZ_CHUNK * sizeof(uint32_t) <= DBZ_BLOCK, "chunk map");

static uint64_t blocks_up(uint64_t bytes)
{
    return (bytes + DBZ_BLOCK - 1) / DBZ_BLOCK * DBZ_BLOCK;
}

int dbz_layout_make(uint32_t arena_chunks, uint32_t sets, dbz_layout *out)
{
    dbz_layout l = {0};
    if (arena_chunks == 0 || sets == 0 || (uint64_t)arena_chunks * DBZ_CHUNK > ARENA_LIMIT || (uint64_t)sets * SET_BYTES > CACHE_LIMIT)
        return DBZ_E_ARG;
    l.arena_chunks = arena_chunks;
    l.sets = sets;
    l.blocks_off = DBZ_PAGE;
    l.procs_off = DBZ_BLOCK;
    l.prefixes_off = l.procs_off + blocks_up(DBZ_PROCS * sizeof(dbz_proc));
    l.chunks_off = l.prefixes_off + blocks_up(DBZ_PREFIXES * sizeof(dbz_prefix));
    l.arena_off = l.chunks_off + blocks_up((uint64_t)arena_chunks * sizeof(uint32_t));
    l.heads_off = l.arena_off + blocks_up((uint64_t)arena_chunks * DBZ_CHUNK);
    l.frames_off = l.heads_off + blocks_up((uint64_t)sets * DBZ_WAYS * sizeof(dbz_frame));
    l.size = l.frames_off + blocks_up((uint64_t)sets * SET_BYTES);
    if (l.size / DBZ_BLOCK > (DBZ_BLOCK - DBZ_PAGE) * 8)
        return DBZ_E_ARG;
    *out = l;
    return DBZ_OK;
}

static int layout_for(uint64_t cache_bytes, uint64_t arena_bytes, dbz_layout *out)
{
    if (cache_bytes > CACHE_LIMIT || arena_bytes > ARENA_LIMIT)
        return DBZ_E_ARG;
    uint64_t cache = blocks_up(cache_bytes ? cache_bytes : 1), arena = blocks_up(arena_bytes ? arena_bytes : 1);
    return dbz_layout_make((uint32_t)(arena / DBZ_CHUNK), (uint32_t)(cache / SET_BYTES), out);
}

uint64_t dbz_seg_size(uint64_t cache_bytes, uint64_t arena_bytes)
{
    dbz_layout l;
    return layout_for(cache_bytes, arena_bytes, &l) == DBZ_OK ? l.size : 0;
}

void dbz_fail_errno(dbz_seg *seg, int error)
{
    __atomic_store_n(&seg->error, error, __ATOMIC_RELAXED);
}

static _Atomic uint64_t *block_map(const uint8_t *base)
{
    return (_Atomic uint64_t *)(void *)(base + DBZ_PAGE);
}

/* fallocate one block; tmpfs undoes a call that a signal interrupted, so it is simply repeated. */
static int back_block(int fd, uint64_t block)
{
    for (;;) {
        if (fallocate(fd, 0, (off_t)(block * DBZ_BLOCK), (off_t)DBZ_BLOCK) == 0)
            return 0;
        if (errno != EINTR)
            return errno;
    }
}

static void mark_block(const uint8_t *base, uint64_t block)
{
    atomic_fetch_or_explicit(block_map(base) + block / 64, UINT64_C(1) << (block % 64), memory_order_release);
}

int dbz_seg_format(int fd, uint64_t cache_bytes, uint64_t arena_bytes, const uint8_t root_id[16], uint64_t device, uint64_t inode,
                   const uint8_t boot_id[16])
{
    dbz_layout l;
    struct stat st;
    int rc = layout_for(cache_bytes, arena_bytes, &l);
    if (rc != DBZ_OK)
        return rc;
    if (fstat(fd, &st) != 0)
        return DBZ_E_IO;
    if ((uint64_t)st.st_size != l.size)
        return DBZ_E_ARG;
    const uint64_t first[] = {0, l.procs_off / DBZ_BLOCK, l.chunks_off / DBZ_BLOCK};
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) {
        int error = back_block(fd, first[i]);
        if (error) {
            errno = error;
            return error == ENOSPC || error == ENOMEM ? DBZ_E_NOSPACE : DBZ_E_IO;
        }
    }
    uint8_t *base = mmap(NULL, DBZ_BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return DBZ_E_IO;
    dbz_header *h = (dbz_header *)(void *)base;
    STORE(h->ready, 0);
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        mark_block(base, first[i]);
    h->magic = DBZ_MAGIC;
    h->abi = DBZ_ABI;
    memcpy(h->root_id, root_id, 16);
    h->device = device;
    h->inode = inode;
    memcpy(h->boot_id, boot_id, 16);
    h->size = l.size;
    h->blocks_off = l.blocks_off;
    h->procs_off = l.procs_off;
    h->prefixes_off = l.prefixes_off;
    h->chunks_off = l.chunks_off;
    h->arena_off = l.arena_off;
    h->heads_off = l.heads_off;
    h->frames_off = l.frames_off;
    h->arena_chunks = l.arena_chunks;
    h->sets = l.sets;
    STORE(h->incarnations, 1);
    STORE(h->proc_high, 0);
    STORE(h->ready, 1);
    munmap(base, DBZ_BLOCK);
    return DBZ_OK;
}

static int header_fits(const dbz_header *h, const struct stat *st, dbz_layout *l)
{
    return h->magic == DBZ_MAGIC && h->abi == DBZ_ABI && LOAD(h->ready) == 1 && dbz_layout_make(h->arena_chunks, h->sets, l) == DBZ_OK &&
           h->size == l->size && (uint64_t)st->st_size == l->size && h->blocks_off == l->blocks_off && h->procs_off == l->procs_off &&
           h->prefixes_off == l->prefixes_off && h->chunks_off == l->chunks_off && h->arena_off == l->arena_off && h->heads_off == l->heads_off &&
           h->frames_off == l->frames_off;
}

int dbz_seg_map(int fd, int lock_fd, const uint8_t root_id[16], uint64_t device, uint64_t inode, const uint8_t boot_id[16], dbz_seg **out)
{
    struct stat st;
    dbz_header h;
    dbz_layout l;
    if (fstat(fd, &st) != 0)
        return DBZ_E_IO;
    if (st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return DBZ_E_MISMATCH;
    /* Read, not mapped: a hole read this way gives zeros instead of asking for memory. */
    ssize_t got = pread(fd, &h, sizeof h, 0);
    if (got < 0)
        return DBZ_E_IO;
    if ((size_t)got != sizeof h || !header_fits(&h, &st, &l) || memcmp(h.root_id, root_id, 16) != 0 || memcmp(h.boot_id, boot_id, 16) != 0 ||
        h.device != device || h.inode != inode)
        return DBZ_E_MISMATCH;
    dbz_seg *seg = calloc(1, sizeof *seg);
    if (seg == NULL)
        return DBZ_E_NOMEM;
    seg->at = l;
    seg->size = l.size;
    seg->slot = -1;
    seg->lock_fd = -1;
    seg->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (seg->fd < 0) {
        free(seg);
        return DBZ_E_IO;
    }
    seg->base = mmap(NULL, l.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, seg->fd, 0);
    if (seg->base == MAP_FAILED || dbz_fork_track(seg) != DBZ_OK) {
        int error = errno;
        if (seg->base != MAP_FAILED)
            munmap(seg->base, l.size);
        close(seg->fd);
        free(seg);
        errno = error;
        return DBZ_E_IO;
    }
    seg->lock_fd = lock_fd;
    atomic_store_explicit(&seg->references, 1, memory_order_relaxed);
    *out = seg;
    return DBZ_OK;
}

void dbz_seg_unmap(dbz_seg *seg)
{
    if (seg == NULL)
        return;
    dbz_proc_release(seg);
    dbz_fork_untrack(seg);
    if (seg->lock_fd >= 0)
        close(seg->lock_fd);
    seg->lock_fd = -1;
    dbz_seg_drop(seg);
}

void dbz_seg_hold(dbz_seg *seg)
{
    atomic_fetch_add_explicit(&seg->references, 1, memory_order_relaxed);
}

void dbz_seg_drop(dbz_seg *seg)
{
    if (atomic_fetch_sub_explicit(&seg->references, 1, memory_order_acq_rel) != 1)
        return;
    munmap(seg->base, seg->size);
    close(seg->fd);
    free(seg);
}

int dbz_seg_reserved(const dbz_seg *seg, uint64_t off)
{
    if (off >= seg->size)
        return 0;
    uint64_t block = off / DBZ_BLOCK;
    return (int)(LOAD(block_map(seg->base)[block / 64]) >> (block % 64) & 1);
}

int dbz_seg_reserve(dbz_seg *seg, uint64_t off, uint64_t len)
{
    if (len == 0)
        return DBZ_OK;
    if (off >= seg->size || len > seg->size - off)
        return DBZ_E_ARG;
    for (uint64_t block = off / DBZ_BLOCK; block <= (off + len - 1) / DBZ_BLOCK; block++) {
        if (dbz_seg_reserved(seg, block * DBZ_BLOCK))
            continue;
        int error = back_block(seg->fd, block);
        if (error) {
            dbz_fail_errno(seg, error);
            return error == ENOSPC || error == ENOMEM ? DBZ_E_NOSPACE : DBZ_E_IO;
        }
        mark_block(seg->base, block);
    }
    return DBZ_OK;
}

dbz_header *dbz_seg_header(dbz_seg *seg)
{
    return (dbz_header *)(void *)seg->base;
}

dbz_prefix *dbz_seg_prefix(dbz_seg *seg, uint32_t index)
{
    if (index >= DBZ_PREFIXES)
        return NULL;
    uint64_t off = seg->at.prefixes_off + (uint64_t)index * sizeof(dbz_prefix);
    if (!dbz_seg_reserved(seg, off) || !dbz_seg_reserved(seg, off + sizeof(dbz_prefix) - 1))
        return NULL;
    return (dbz_prefix *)(void *)(seg->base + off);
}

dbz_proc *dbz_seg_proc(dbz_seg *seg, uint32_t index)
{
    if (index >= DBZ_PROCS)
        return NULL;
    return (dbz_proc *)(void *)(seg->base + seg->at.procs_off) + index;
}

_Atomic uint32_t *dbz_chunk_map(dbz_seg *seg)
{
    return (_Atomic uint32_t *)(void *)(seg->base + seg->at.chunks_off);
}
