/* The page cache: set-associative frames in the segment, shared by every process.
 *
 * Why no lock: a frame's content is a pure function of its tag and page number (records never change, a table page's address carries its generation, data
 * bytes below data_end never change), so it does not matter who fills a frame, how often, or how many frames hold the same page. All that must be kept
 * apart is a reader's copy from a filler's writes, and that is a seqlock:
 *   filler  CAS version even -> odd (acq_rel); release fence; relaxed stores of tag, page, valid, bytes; release store of the next even version
 *   reader  acquire load of version (even, not 0); relaxed loads of tag, page, valid, bytes; acquire fence; relaxed load of version, must be equal
 * If the reader saw any store of a filler, the fences make it see that filler's odd version (or a later one) too, and it looks again.
 *
 * A filler that dies leaves its frame odd. The odd version names it by slot and by the low 16 bits of the slot's generation, in the one word that the CAS
 * moves, so there is no moment at which a claimed frame names the wrong process. Slot wiped since (generation differs): dead for certain. Same generation:
 * the kernel's byte lock decides (dbz_proc_alive). Taking the frame over is the same CAS, from odd to the new filler's odd. The dead write nothing more.
 * A process without a slot (table full) reads frames but fills none: nobody could tell whether it died. Segments that are private to a process
 * (no lock file) are filled with slot 0, and never reclaimed from.
 *
 * Tail page: only bytes below data_end are filled, `valid` says how many. data_end is loaded before the file is read, so bytes counted as valid were final
 * when they were read. A reader that needs more than `valid` treats the frame as a miss and fills it again.
 *
 * Whatever cannot be had - memory for the frame, an idle frame in the set - the page is used from private memory instead. */
#include "reader_impl.h"

#include <errno.h>
#include <unistd.h>

#define COUNT_SHIFT 30u      /* version: count << 30, odd: count << 30 | generation16 << 14 | slot + 1 << 1 | 1 */
#define WORDS (DBZ_PAGE / 8u)

static inline uint64_t mix(uint64_t tag, uint64_t page)
{
    uint64_t h = (tag ^ page * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xd6e8feb86659fd93);
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

static inline uint64_t heads_offset(const dbz_reader *r, uint64_t set) { return r->seg->at.heads_off + set * DBZ_WAYS * sizeof(dbz_frame); }

/* Where a frame's bytes are, behind the first one's. Frames of one way stand together, so that the pages of one run do: what is cached takes the memory that
 * it needs, block by block, and not a block for every page. */
static inline uint64_t frame_offset(const dbz_reader *r, uint64_t index)
{
    return (index % DBZ_WAYS * r->sets + index / DBZ_WAYS) * DBZ_PAGE;
}

static inline _Atomic uint64_t *frame_words(const dbz_reader *r, uint64_t index)
{
    return (_Atomic uint64_t *)(void *)(r->frames + frame_offset(r, index));
}

/* The set of a page: consecutive ones for the pages of a run, whatever they hold and when they were written. */
static inline uint64_t set_of(const dbz_reader *r, uint64_t page)
{
    uint64_t run = mix(r->cache_key, page / r->run);
    return ((run >> 32) * (r->sets / r->run) >> 32) * r->run + page % r->run;
}

/* Which of its ways a page was found in last. */
static inline uint32_t *hint_of(dbz_reader *r, uint64_t tag, uint64_t page)
{
    return &r->hints[mix(tag, page) & (DBZ_HINTS - 1)];
}

/* How many: as many as a block of memory has, if the sets can be divided so. */
static uint32_t run_of(uint32_t sets)
{
    uint32_t most = DBZ_BLOCK / DBZ_PAGE, run = sets & (0 - sets);
    return run == 0 ? 1 : run < most ? run : most;
}

int dbz_damage(dbz_reader *r, int what, uint64_t address, uint64_t oid, uint64_t state)
{
    r->fault.what = what;
    r->fault.address = address;
    r->fault.oid = oid;
    r->fault.state = state;
    return DBZ_E_CORRUPT;
}

/* --- the reader's life --- */

int dbz_reader_new(dbz_seg *seg, uint32_t prefix, int fd, dbz_reader **out)
{
    if (!seg || prefix >= DBZ_PREFIXES)
        return DBZ_E_ARG;
    dbz_reader *r = calloc(1, sizeof *r);
    if (!r)
        return DBZ_E_NOMEM;
    r->seg = seg;
    r->prefix = prefix;
    r->slot = dbz_seg_prefix(seg, prefix);
    if (!r->slot) {
        free(r);
        return DBZ_E_ARG;
    }
    r->fd = fd;
    r->header = dbz_seg_header(seg);
    r->heads = (dbz_frame *)(void *)(seg->base + seg->at.heads_off);
    r->frames = seg->base + seg->at.frames_off;
    r->sets = seg->at.sets;
    r->run = run_of(r->sets);
    r->cache_key = atomic_load_explicit(&r->slot->cache_key, memory_order_acquire);
    r->uuid = r->slot->prefix_uuid;
    r->hand = (uint32_t)(uintptr_t)r >> 6;
    if (dbz_buf_need(&r->page, DBZ_PAGE)) {
        free(r);
        return DBZ_E_NOMEM;
    }
    dbz_seg_hold(seg);
    *out = r;
    return 0;
}

static void statistics(dbz_reader *r)
{
    atomic_fetch_add_explicit(&r->header->hits, r->hits, memory_order_relaxed);
    atomic_fetch_add_explicit(&r->header->misses, r->misses, memory_order_relaxed);
    atomic_fetch_add_explicit(&r->header->evictions, r->evictions, memory_order_relaxed);
    r->hits = r->misses = r->evictions = 0;
}

static void spares_clear(dbz_reader *r)
{
    for (uint32_t i = 0; i < r->spare_cap; i++)
        free(r->spares[i].bytes);
    free(r->spares);
    r->spares = NULL;
    r->spare_cap = r->spare_count = 0;
    r->spare_done = 0;
}

void dbz_reader_free(dbz_reader *r)
{
    if (!r)
        return;
    dbz_seg_drop(r->seg);
    spares_clear(r);
    dbz_buf_free(&r->page);
    for (unsigned i = 0; i < DBZ_RAW_BUFS; i++)
        dbz_buf_free(&r->raw[i]);
    dbz_buf_free(&r->whole[0]);
    dbz_buf_free(&r->whole[1]);
    dbz_buf_free(&r->refs);
    free(r);
}

void dbz_reader_quick(dbz_reader *r) { r->quick = 1; }
void dbz_reader_shut(dbz_reader *r) { r->shut = 1; }
uint64_t dbz_reader_missing(const dbz_reader *r) { return r->missing; }
uint64_t dbz_reader_missing_bytes(const dbz_reader *r) { return r->missing_bytes; }
const dbz_fault *dbz_reader_fault(const dbz_reader *r) { return &r->fault; }
int dbz_reader_errno(const dbz_reader *r) { return r->error; }

int dbz_call_begin(dbz_reader *r)
{
    if (r->shut)
        return DBZ_E_MISS;
    if (atomic_load_explicit(&r->slot->cache_key, memory_order_acquire) != r->cache_key)
        return DBZ_E_RETRY;
    r->data_end = atomic_load_explicit(&r->slot->data_end, memory_order_acquire);
    if (r->hits + r->misses > 1024)
        statistics(r);
    return 0;
}

/* --- private pages --- */

static dbz_spare *spare_slot(dbz_spare *spares, uint32_t cap, uint64_t tag, uint64_t page)
{
    uint32_t i = (uint32_t)mix(tag, page) & (cap - 1);
    while (spares[i].bytes && !(spares[i].tag == tag && spares[i].page == page))
        i = (i + 1) & (cap - 1);
    return &spares[i];
}

static int spare_keep(dbz_reader *r, uint64_t tag, uint64_t page, const uint8_t *bytes, uint32_t valid)
{
    if (r->spare_count * 2 >= r->spare_cap) {
        uint32_t cap = r->spare_cap ? r->spare_cap * 2 : 16;
        dbz_spare *spares = calloc(cap, sizeof *spares);
        if (!spares)
            return DBZ_E_NOMEM;
        for (uint32_t i = 0; i < r->spare_cap; i++)
            if (r->spares[i].bytes)
                *spare_slot(spares, cap, r->spares[i].tag, r->spares[i].page) = r->spares[i];
        free(r->spares);
        r->spares = spares;
        r->spare_cap = cap;
    }
    dbz_spare *s = spare_slot(r->spares, r->spare_cap, tag, page);
    if (!s->bytes) {
        dbz_buf fresh = {0};
        if (dbz_buf_grow(&fresh, DBZ_PAGE))
            return DBZ_E_NOMEM;
        *s = (dbz_spare){.tag = tag, .page = page, .bytes = fresh.bytes};
        r->spare_count++;
    }
    memcpy(s->bytes, bytes, DBZ_PAGE);
    s->valid = valid;
    return 0;
}

/* --- filling --- */

/* The filler named by an odd version can write no more. `ask`: a system call may be spent on it. */
static int filler_dead(dbz_reader *r, uint64_t version, int ask)
{
    uint32_t slot = (uint32_t)(version >> 1) & 0x1fff;
    if (slot == 0 || slot > DBZ_PROCS)
        return 0;
    uint64_t now = atomic_load_explicit(&dbz_seg_proc(r->seg, slot - 1)->generation, memory_order_acquire);
    if (((now ^ version >> 14) & 0xffff) != 0)
        return 1;
    return ask && r->seg->slot != (int)slot - 1 && dbz_proc_alive(r->seg, slot - 1) == 0;
}

static int backed(dbz_reader *r, uint64_t index)
{
    return dbz_seg_reserved(r->seg, r->seg->at.frames_off + frame_offset(r, index));
}

/* Pick the frame to overwrite and claim it. Returns its index, or -1 when every way is busy. */
static int64_t claim(dbz_reader *r, uint64_t set, uint64_t tag, uint64_t page, uint64_t *version)
{
    uint64_t base = set * DBZ_WAYS;
    int full = 0;            /* no memory is left: only frames that have some */
    uint64_t mine = (uint64_t)(r->seg->slot + 1) << 1 | 1 | (r->seg->slot >= 0 ? (r->seg->generation & 0xffff) << 14 : 0);
    for (int round = 0; round < 4; round++) {
        int64_t victim = -1;
        uint64_t seen = 0;
        int rank = 0;        /* 4 same page, 3 never used, 2 its filler died, 1 not used lately (or anything on the last rounds) */
        for (uint32_t w = 0; w < DBZ_WAYS && rank < 4; w++) {
            uint64_t i = base + ((r->hand + w) & (DBZ_WAYS - 1));
            dbz_frame *f = &r->heads[i];
            uint64_t v = atomic_load_explicit(&f->version, memory_order_acquire);
            int score = 0;
            if (full && !backed(r, i)) {
                continue;
            } else if (v & 1) {
                if (rank < 2 && filler_dead(r, v, round == 3 || (r->hand & 15) == 0))
                    score = 2;
            } else if (v == 0) {
                score = 3;
            } else if (atomic_load_explicit(&f->tag, memory_order_relaxed) == tag && atomic_load_explicit(&f->page, memory_order_relaxed) == page) {
                score = 4;
            } else if (rank < 1) {
                if (round > 1 || !atomic_load_explicit(&f->used, memory_order_relaxed))
                    score = 1;
                else
                    atomic_store_explicit(&f->used, 0, memory_order_relaxed);
            }
            if (score > rank || (score == 3 && rank == 3 && (int64_t)i < victim)) {       /* never used: the first way that is left */
                rank = score;
                victim = (int64_t)i;
                seen = v;
            }
        }
        r->hand++;
        if (victim < 0)
            continue;
        if (!backed(r, (uint64_t)victim) && dbz_seg_reserve(r->seg, r->seg->at.frames_off + frame_offset(r, (uint64_t)victim), DBZ_PAGE)) {
            full = 1;
            continue;
        }
        uint64_t odd = seen >> COUNT_SHIFT << COUNT_SHIFT | mine;
        if (odd == seen)      /* a dead filler under our own name: step the count so that the CAS changes the word */
            odd += UINT64_C(1) << COUNT_SHIFT;
        if (atomic_compare_exchange_strong_explicit(&r->heads[victim].version, &seen, odd, memory_order_acq_rel, memory_order_relaxed)) {
            if (rank == 1)
                r->evictions++;
            *version = odd;
            return victim;
        }
    }
    return -1;
}

static void fill(dbz_reader *r, uint64_t tag, uint64_t page, const uint8_t *bytes, uint32_t valid)
{
    if (!r->sets || (r->seg->slot < 0 && r->seg->lock_fd >= 0))
        return;
    uint64_t set = set_of(r, page), heads = heads_offset(r, set), odd;
    if (!dbz_seg_reserved(r->seg, heads) && dbz_seg_reserve(r->seg, heads, DBZ_WAYS * sizeof(dbz_frame)))
        return;
    int64_t i = claim(r, set, tag, page, &odd);
    if (i < 0)
        return;
    dbz_frame *f = &r->heads[i];
    _Atomic uint64_t *words = frame_words(r, (uint64_t)i);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&f->tag, tag, memory_order_relaxed);
    atomic_store_explicit(&f->page, page, memory_order_relaxed);
    atomic_store_explicit(&f->valid, valid, memory_order_relaxed);
    atomic_store_explicit(&f->used, 1, memory_order_relaxed);
    for (uint32_t k = 0; k < WORDS; k++)
        atomic_store_explicit(&words[k], dbz_load64(bytes + 8 * k), memory_order_relaxed);
    atomic_store_explicit(&f->version, ((odd >> COUNT_SHIFT) + 1) << COUNT_SHIFT, memory_order_release);
    *hint_of(r, tag, page) = (uint32_t)i;
}

static int read_file(dbz_reader *r, uint64_t address, uint8_t *out, uint64_t len, uint64_t *got)
{
    uint64_t n = 0;
    while (n < len) {
        ssize_t k = pread(r->fd, out + n, len - n, (off_t)(address + n));
        if (k < 0) {
            if (errno == EINTR)
                continue;
            r->error = errno;
            return DBZ_E_IO;
        }
        if (k == 0)
            break;
        n += (uint64_t)k;
    }
    *got = n;
    return 0;
}

/* Check what came from the file or the caller. *valid in: bytes present, out: bytes that may be used. */
static int admit(dbz_reader *r, uint64_t tag, uint64_t page, const uint8_t *bytes, uint64_t data_end, uint32_t *valid)
{
    if (tag & DBZ_TAG_TABLE) {
        int what = 3;
        if (*valid < DBZ_PAGE || dbz_table_check(bytes, page * DBZ_PAGE, (uint32_t)tag & 0x7fffff, r->uuid, &what))
            return dbz_damage(r, what, page * DBZ_PAGE, 0, 0);
        return 0;
    }
    uint64_t start = page * DBZ_PAGE, limit = data_end > start ? data_end - start : 0;
    if (*valid > limit)
        *valid = (uint32_t)limit;
    return 0;
}

/* --- finding --- */

int dbz_page_find(dbz_reader *r, uint64_t tag, uint64_t page, uint32_t end, dbz_page_view *v)
{
    if (r->sets) {
        uint64_t set = set_of(r, page), first = set * DBZ_WAYS;
        uint32_t *hint = hint_of(r, tag, page);
        if (dbz_seg_reserved(r->seg, heads_offset(r, set))) {
            uint64_t start = *hint - first < DBZ_WAYS ? *hint - first : 0;
            for (uint32_t w = 0; w < DBZ_WAYS; w++) {
                uint64_t i = first + ((start + w) & (DBZ_WAYS - 1));
                dbz_frame *f = &r->heads[i];
                uint64_t version = atomic_load_explicit(&f->version, memory_order_acquire);
                if ((version & 1) || !version)
                    continue;
                if (atomic_load_explicit(&f->tag, memory_order_relaxed) != tag || atomic_load_explicit(&f->page, memory_order_relaxed) != page)
                    continue;
                uint32_t valid = atomic_load_explicit(&f->valid, memory_order_relaxed);
                if (valid < end || valid > DBZ_PAGE)
                    continue;
                if (!atomic_load_explicit(&f->used, memory_order_relaxed))
                    atomic_store_explicit(&f->used, 1, memory_order_relaxed);
                *hint = (uint32_t)i;
                v->words = frame_words(r, i);
                v->head = f;
                v->version = version;
                v->valid = valid;
                r->hits++;
                return 0;
            }
        }
    }
    r->misses++;
    v->head = NULL;
    v->version = 0;
    if (r->page_tag == tag && r->page_no == page && r->page_valid >= end && r->page_valid) {
        v->words = (const _Atomic uint64_t *)(const void *)r->page.bytes;
        v->valid = r->page_valid;
        return 0;
    }
    const dbz_spare *s = r->spare_cap ? spare_slot(r->spares, r->spare_cap, tag, page) : NULL;
    if (s && s->bytes && s->valid >= end) {
        v->words = (const _Atomic uint64_t *)(const void *)s->bytes;
        v->valid = s->valid;
        return 0;
    }
    if (page >= DBZ_ADDR_MAX / DBZ_PAGE)
        return dbz_damage(r, 5, page * DBZ_PAGE, 0, 0);
    if (r->fd < 0 || (r->quick && ((tag & DBZ_TAG_TABLE) || (page + 1) * DBZ_PAGE <= r->data_end))) {
        r->missing = page * DBZ_PAGE;
        r->missing_tag = tag;
        r->missing_bytes = end;
        return DBZ_E_MISS;
    }
    /* data_end first, then the bytes: see the head of this file. */
    uint64_t data_end = atomic_load_explicit(&r->slot->data_end, memory_order_acquire), got = 0;
    r->page_valid = 0;
    int rc = read_file(r, page * DBZ_PAGE, r->page.bytes, DBZ_PAGE, &got);
    if (rc)
        return rc;
    uint32_t valid = (uint32_t)got;
    rc = admit(r, tag, page, r->page.bytes, data_end, &valid);
    if (rc)
        return rc;
    memset(r->page.bytes + valid, 0, DBZ_PAGE - valid);
    if (valid < end)
        return dbz_damage(r, 5, page * DBZ_PAGE + valid, 0, 0);
    r->page_tag = tag;
    r->page_no = page;
    r->page_valid = valid;
    fill(r, tag, page, r->page.bytes, valid);
    v->words = (const _Atomic uint64_t *)(const void *)r->page.bytes;
    v->valid = valid;
    return 0;
}

int dbz_page_supply(dbz_reader *r, uint64_t page_address, const uint8_t *bytes, uint32_t len)
{
    if (page_address % DBZ_PAGE || page_address >= DBZ_ADDR_MAX || len > DBZ_PAGE || (len && !bytes))
        return DBZ_E_ARG;
    uint64_t tag = page_address == r->missing ? r->missing_tag : dbz_tag_data(r), page = page_address / DBZ_PAGE;
    if (tag >> 32 != r->cache_key)
        return DBZ_E_ARG;
    uint64_t data_end = atomic_load_explicit(&r->slot->data_end, memory_order_acquire);
    uint8_t copy[DBZ_PAGE] __attribute__((aligned(8)));
    uint32_t valid = len;
    if (len)
        memcpy(copy, bytes, len);
    int rc = admit(r, tag, page, copy, data_end, &valid);
    if (rc)
        return rc;
    if (valid < DBZ_PAGE && page_address <= r->missing && r->missing - page_address < DBZ_PAGE && valid < r->missing_bytes)
        return dbz_damage(r, 5, page_address + valid, 0, 0);      /* the file ends before what was asked for */
    memset(copy + valid, 0, DBZ_PAGE - valid);
    if (r->spare_done)
        spares_clear(r);
    fill(r, tag, page, copy, valid);
    return spare_keep(r, tag, page, copy, valid);
}

/* --- copying data bytes --- */

int dbz_data_copy(dbz_reader *r, uint64_t addr, uint64_t len, uint8_t *base)
{
    if (len == 0)
        return 0;
    if (addr < DBZ_DATA_MIN || addr >= r->data_end || len > r->data_end - addr)
        return dbz_damage(r, 5, addr, 0, 0);
    uint64_t start = addr & ~UINT64_C(7), stop = addr + len, shift = start;
    uint64_t tag = dbz_tag_data(r);
    if (r->fd >= 0 && len > 16 * DBZ_PAGE) {       /* big: straight from the file, the cache keeps what is read often */
        uint64_t got = 0;
        if (r->quick)
            return DBZ_E_MISS;
        int rc = read_file(r, addr, base + (addr & 7), len, &got);
        if (rc)
            return rc;
        return got == len ? 0 : dbz_damage(r, 5, addr + got, 0, 0);
    }
    while (start < stop) {
        uint64_t page = start / DBZ_PAGE, in_page = start % DBZ_PAGE;
        uint64_t page_stop = stop - page * DBZ_PAGE;
        uint32_t end = page_stop < DBZ_PAGE ? (uint32_t)page_stop : DBZ_PAGE;
        dbz_page_view v;
        do {
            int rc = dbz_page_find(r, tag, page, end, &v);
            if (rc) {
                if (rc == DBZ_E_MISS)
                    r->missing_bytes = page_stop;
                return rc;
            }
            uint8_t *to = base + (start - shift);
            for (uint64_t k = in_page / 8; k * 8 < end; k++, to += 8)
                dbz_store64(to, atomic_load_explicit(&v.words[k], memory_order_relaxed));
        } while (!dbz_page_still(&v));
        start = (page + 1) * DBZ_PAGE;
    }
    return 0;
}
