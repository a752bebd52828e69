/* The object table on disk: a radix tree of 4 KiB pages, OID -> (record address, refcount). */
#include "reader_impl.h"

enum { KIND_INNER = 1, KIND_LEAF = 2, KIND_FREE = 3 };

uint64_t dbz_table_span(uint32_t level)
{
    uint64_t span = 1;
    for (uint32_t i = 0; i < level; i++)
        span *= i ? DBZ_INNER : DBZ_LEAF;
    return span;
}

int dbz_table_check(const uint8_t *page, uint64_t address, uint32_t generation, uint64_t uuid, int *what)
{
    *what = 3;
    if (dbz_xxh3(page + 8, DBZ_PAGE - 8, uuid ^ address) != dbz_load64(page))
        return DBZ_E_CORRUPT;
    *what = 4;
    uint8_t kind = page[12], level = page[13];
    if ((dbz_load32(page + 8) & 0x7fffff) != (generation & 0x7fffff) || dbz_load64(page + 16) != address)
        return DBZ_E_CORRUPT;
    if (kind < KIND_INNER || kind > KIND_FREE || (kind == KIND_INNER ? level == 0 : level != 0) || level >= DBZ_DEPTH_MAX)
        return DBZ_E_CORRUPT;
    return 0;
}

void dbz_table_finish(uint8_t *page, uint64_t address, uint32_t generation, uint32_t kind, uint32_t level, uint32_t used, uint64_t first, uint64_t uuid)
{
    dbz_store32(page + 8, generation);
    page[12] = (uint8_t)kind;
    page[13] = (uint8_t)level;
    dbz_store16(page + 14, (uint16_t)used);
    dbz_store64(page + 16, address);
    dbz_store64(page + 24, first);
    dbz_store64(page, dbz_xxh3(page + 8, DBZ_PAGE - 8, uuid ^ address));
}

/* Header words 1 and 3 of a page that has passed dbz_table_check: is it the node that the pointer should lead to? */
static int is_node(uint64_t word1, uint64_t word3, uint32_t level, uint64_t first)
{
    uint8_t kind = (uint8_t)(word1 >> 32), at = (uint8_t)(word1 >> 40);
    return kind == (level ? KIND_INNER : KIND_LEAF) && at == level && word3 == first;
}

int dbz_table_page(dbz_reader *r, uint64_t pointer, uint32_t level, uint64_t first, uint8_t *out)
{
    uint64_t page = pointer & DBZ_PTR_PAGE;
    dbz_page_view v;
    do {
        int rc = dbz_page_find(r, dbz_tag_table(r, pointer), page, DBZ_PAGE, &v);
        if (rc)
            return rc;
        for (uint32_t k = 0; k < DBZ_PAGE / 8; k++)
            dbz_store64(out + 8 * k, atomic_load_explicit(&v.words[k], memory_order_relaxed));
    } while (!dbz_page_still(&v));
    if (!is_node(dbz_load64(out + 8), dbz_load64(out + 24), level, first))
        return dbz_damage(r, 4, page * DBZ_PAGE, first, 0);
    return 0;
}

int dbz_table_find(dbz_reader *r, uint64_t root, uint32_t depth, uint64_t oid, uint64_t *addr, uint32_t *refcount)
{
    if (depth > DBZ_DEPTH_MAX)
        return dbz_damage(r, 4, (root & DBZ_PTR_PAGE) * DBZ_PAGE, oid, 0);
    if (!depth || !(root & ~DBZ_PTR_ORPHANS) || oid / dbz_table_span(depth - 1) >= (depth == 1 ? DBZ_LEAF : DBZ_INNER))
        return DBZ_E_NOTFOUND;
    uint64_t pointer = root, first = 0;
    for (uint32_t level = depth; level-- > 0;) {
        uint64_t page = pointer & DBZ_PTR_PAGE, span = dbz_table_span(level), index = (oid - first) / span, word1, word3, a, b = 0, c = 0;
        uint64_t at = level ? 32 + 8 * index : 32 + DBZ_FILE_ENTRY * index;
        dbz_page_view v;
        do {
            int rc = dbz_page_find(r, dbz_tag_table(r, pointer), page, DBZ_PAGE, &v);
            if (rc) {
                if (rc == DBZ_E_CORRUPT)
                    r->fault.oid = oid;
                return rc;
            }
            word1 = atomic_load_explicit(&v.words[1], memory_order_relaxed);
            word3 = atomic_load_explicit(&v.words[3], memory_order_relaxed);
            a = atomic_load_explicit(&v.words[at / 8], memory_order_relaxed);
            if (!level) {
                b = atomic_load_explicit(&v.words[at / 8 + 1], memory_order_relaxed);
                if (at % 8 == 7)       /* never for even `at`; kept so that a change of the entry size stays correct */
                    c = atomic_load_explicit(&v.words[at / 8 + 2], memory_order_relaxed);
            }
        } while (!dbz_page_still(&v));
        if (!is_node(word1, word3, level, first))
            return dbz_damage(r, 4, page * DBZ_PAGE, oid, 0);
        if (level) {
            if (!(a & ~DBZ_PTR_ORPHANS))
                return DBZ_E_NOTFOUND;
            pointer = a;
            first += index * span;
            continue;
        }
        uint8_t entry[24];
        dbz_store64(entry, a);
        dbz_store64(entry + 8, b);
        dbz_store64(entry + 16, c);
        *addr = dbz_load48(entry + at % 8);
        *refcount = dbz_load32(entry + at % 8 + 6);
    }
    return *addr ? 0 : DBZ_E_NOTFOUND;
}

int dbz_table_scan(dbz_reader *r, uint64_t root, uint32_t depth, uint64_t from_oid, int only_zero, dbz_entry *out, uint32_t cap, uint64_t *next)
{
    if (depth > DBZ_DEPTH_MAX || (cap && !out) || !next)
        return DBZ_E_ARG;
    if (cap > INT32_MAX)
        cap = INT32_MAX;
    int rc = dbz_call_begin(r);
    if (rc)
        return rc;
    r->spare_done = 0;
    uint64_t top = depth ? dbz_table_span(depth - 1) * (depth == 1 ? DBZ_LEAF : DBZ_INNER) : 0, oid = from_oid, resume = 0;
    uint32_t n = 0;
    uint8_t *pages = malloc((depth ? depth : 1) * (uint64_t)DBZ_PAGE);
    uint64_t held[DBZ_DEPTH_MAX] = {0}, firsts[DBZ_DEPTH_MAX] = {0};
    if (!pages)
        return DBZ_E_NOMEM;
    /* Each turn goes down to the leaf of `oid`, or, where there is none, moves `oid` past the hole. Pages on the path stay in `pages` from turn to turn. */
    while (depth && (root & ~DBZ_PTR_ORPHANS) && oid < top && !(only_zero && !(root & DBZ_PTR_ORPHANS))) {
        uint64_t pointer = root, first = 0;
        uint32_t level = depth - 1;
        int hole = 0;
        for (;; level--) {
            uint8_t *page = pages + (uint64_t)level * DBZ_PAGE;
            if (held[level] != pointer || firsts[level] != first) {
                held[level] = 0;
                rc = dbz_table_page(r, pointer, level, first, page);
                if (rc) {
                    free(pages);
                    r->spare_done = rc != DBZ_E_MISS;
                    return rc;
                }
                held[level] = pointer;
                firsts[level] = first;
            }
            if (!level)
                break;
            uint64_t span = dbz_table_span(level), index = (oid - first) / span;
            uint64_t child = dbz_load64(page + 32 + 8 * index), skip = index;
            while (skip < DBZ_INNER && (!(child & ~DBZ_PTR_ORPHANS) || (only_zero && !(child & DBZ_PTR_ORPHANS))))
                if (++skip < DBZ_INNER)
                    child = dbz_load64(page + 32 + 8 * skip);
            if (skip != index) {
                oid = first + skip * span;
                hole = 1;
                if (skip == DBZ_INNER)
                    break;
                hole = 0;
            }
            pointer = child;
            first += skip * span;
        }
        if (hole)
            continue;
        const uint8_t *page = pages;
        for (uint64_t i = oid - first; i < DBZ_LEAF; i++) {
            const uint8_t *e = page + 32 + DBZ_FILE_ENTRY * i;
            uint64_t addr = dbz_load48(e);
            uint32_t count = dbz_load32(e + 6);
            if (!addr || (only_zero && (count || first + i < DBZ_OID_FIRST)))
                continue;
            if (n == cap) {
                resume = first + i;
                goto done;
            }
            out[n++] = (dbz_entry){.oid = first + i, .addr = addr, .refcount = count};
        }
        oid = first + DBZ_LEAF;
    }
done:
    free(pages);
    r->spare_done = 1;
    *next = resume;
    return (int)n;
}

void dbz_free_page_write(uint8_t *page, uint64_t address, uint32_t generation, const uint64_t *items, uint32_t n, uint64_t next, uint64_t uuid)
{
    if (n > DBZ_INNER)
        n = DBZ_INNER;
    memset(page, 0, DBZ_PAGE);
    if (n)
        memcpy(page + 32, items, 8 * (uint64_t)n);
    dbz_table_finish(page, address, generation, KIND_FREE, 0, n, next, uuid);
}

int dbz_free_page_read(const uint8_t *page, uint64_t address, uint32_t generation, uint64_t uuid, uint64_t *items, uint64_t *next)
{
    int what;
    uint32_t n = dbz_load16(page + 14);
    if (dbz_table_check(page, address, generation, uuid, &what) || page[12] != KIND_FREE || n > DBZ_INNER)
        return DBZ_E_CORRUPT;
    if (n)
        memcpy(items, page + 32, 8 * (uint64_t)n);
    *next = dbz_load64(page + 24);
    return (int)n;
}
