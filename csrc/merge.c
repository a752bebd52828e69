/* Copy-on-write merge of a delta into the table: every page on the path to a changed entry is written anew, once, whatever the number of changes in it. */
#include "batch.h"
#include "reader_impl.h"

enum { KIND_INNER = 1, KIND_LEAF = 2 };

struct dbz_merge {
    dbz_reader *r;
    const dbz_entry *entries;
    dbz_pair *order;          /* ascending OID, one per OID */
    uint32_t n;
    uint32_t generation;
    const uint64_t *pages;    /* while merging */
    uint8_t *bytes;
    uint64_t *addresses;
    uint64_t *freed;
    uint32_t page_count, used, freed_count;
    uint64_t root;
    uint32_t depth;
};

/* OIDs that a tree of that depth covers. */
static uint64_t reach(uint32_t depth)
{
    return depth == 0 ? 0 : dbz_table_span(depth - 1) * (depth == 1 ? DBZ_LEAF : DBZ_INNER);
}

/* Order the entries and keep the newest of each OID. */
static int arrange(dbz_merge *m, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        m->order[i] = (dbz_pair){m->entries[i].state, i};
    int rc = dbz_sort_pairs(m->order, n);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < n; i++)
        m->order[i].key = m->entries[m->order[i].value].oid;
    rc = dbz_sort_pairs(m->order, n);       /* stable: the newest of an OID comes last */
    if (rc)
        return rc;
    for (uint32_t i = 0; i < n; i++)
        if (i + 1 == n || m->order[i + 1].key != m->order[i].key)
            m->order[m->n++] = m->order[i];
    return 0;
}

/* Pages the new tree needs: one for every node with a changed entry below it, and the way from a higher root down to the old one. */
static uint64_t needed(const dbz_merge *m, uint32_t old_depth, int old_tree)
{
    uint64_t pages = 0;
    for (uint32_t level = 0; level < m->depth; level++) {
        uint64_t span = reach(level + 1), last = UINT64_MAX;
        int zero = 0;
        for (uint32_t i = 0; i < m->n; i++) {
            uint64_t node = m->order[i].key / span;
            if (node != last) {
                pages++;
                zero |= node == 0;
                last = node;
            }
        }
        if (old_tree && level >= old_depth && !zero)
            pages++;
    }
    return pages;
}

/* Rewrite the node of `level` at `pointer` (0: none yet) with changes [lo, hi). `graft`: the old root, to be hung in below node 0 of a level above it. */
static int node(dbz_merge *m, uint64_t pointer, uint32_t level, uint64_t first, uint32_t lo, uint32_t hi, uint64_t graft, uint32_t graft_level, uint64_t *out)
{
    if (m->used >= m->page_count)
        return DBZ_E_NOSPACE;
    uint32_t mine = m->used++;
    m->addresses[mine] = m->pages[mine];
    uint8_t *page = m->bytes + (uint64_t)mine * DBZ_PAGE;
    if (pointer & ~DBZ_PTR_ORPHANS) {
        int rc = dbz_table_page(m->r, pointer, level, first, page);
        if (rc)
            return rc;
        m->freed[m->freed_count++] = (pointer & DBZ_PTR_PAGE) * DBZ_PAGE;
    } else {
        memset(page, 0, DBZ_PAGE);
    }
    uint32_t in_use = 0;
    int orphans = 0;
    if (level == 0) {
        for (uint32_t i = lo; i < hi; i++) {
            const dbz_entry *e = &m->entries[m->order[i].value];
            uint8_t *at = page + 32 + 10 * (e->oid - first);
            dbz_store48(at, e->addr);
            dbz_store32(at + 6, e->refcount);
        }
        for (uint32_t i = 0; i < DBZ_LEAF; i++) {
            uint64_t addr = dbz_load48(page + 32 + 10 * i);
            in_use += addr != 0;
            orphans |= addr && !dbz_load32(page + 32 + 10 * i + 6) && first + i >= DBZ_OID_FIRST;
        }
    } else {
        uint64_t span = dbz_table_span(level);
        int above = graft && level > graft_level + 1;      /* the old root lies below child 0, which has to be made for it */
        if (graft && level == graft_level + 1)
            dbz_store64(page + 32, graft);
        if (above && (lo == hi || (m->order[lo].key - first) / span != 0)) {
            uint64_t child = 0;
            int rc = node(m, 0, level - 1, first, lo, lo, graft, graft_level, &child);
            if (rc)
                return rc;
            dbz_store64(page + 32, child);
        }
        for (uint32_t i = lo, stop; i < hi; i = stop) {
            uint64_t index = (m->order[i].key - first) / span, child = dbz_load64(page + 32 + 8 * index);
            for (stop = i; stop < hi && (m->order[stop].key - first) / span == index; stop++)
                ;
            int rc = node(m, child, level - 1, first + index * span, i, stop, above && index == 0 ? graft : 0, graft_level, &child);
            if (rc)
                return rc;
            dbz_store64(page + 32 + 8 * index, child);
        }
        for (uint32_t i = 0; i < DBZ_INNER; i++) {
            uint64_t child = dbz_load64(page + 32 + 8 * i);
            in_use += (child & ~DBZ_PTR_ORPHANS) != 0;
            orphans |= child >> 63 != 0;
        }
    }
    dbz_table_finish(page, m->addresses[mine], m->generation, level ? KIND_INNER : KIND_LEAF, level, in_use, first, m->r->uuid);
    *out = m->addresses[mine] / DBZ_PAGE | (uint64_t)(m->generation & 0x7fffff) << 40 | (orphans ? DBZ_PTR_ORPHANS : 0);
    return 0;
}

int dbz_merge_new(dbz_reader *r, uint64_t root, uint32_t depth, uint32_t generation, const dbz_entry *entries, uint32_t n, const uint64_t *pages,
                  uint32_t *npages, dbz_merge **out)
{
    if (!r || depth > DBZ_DEPTH_MAX || (n && !entries) || (*npages && !pages))
        return DBZ_E_ARG;
    int old_tree = depth && (root & ~DBZ_PTR_ORPHANS);
    for (uint32_t i = 0; i < n; i++)
        if (entries[i].oid == 0 || entries[i].oid >= reach(DBZ_DEPTH_MAX) || entries[i].addr < DBZ_DATA_MIN || entries[i].addr >= DBZ_ADDR_MAX)
            return DBZ_E_ARG;
    for (uint32_t i = 0; i < *npages; i++)
        if (pages[i] % DBZ_PAGE || pages[i] < DBZ_DATA_MIN || pages[i] >= DBZ_ADDR_MAX)
            return DBZ_E_ARG;
    int rc = dbz_call_begin(r);
    if (rc)
        return rc;
    dbz_merge *m = calloc(1, sizeof *m);
    if (!m)
        return DBZ_E_NOMEM;
    m->r = r;
    m->entries = entries;
    m->generation = generation;
    m->pages = pages;
    m->order = malloc(((uint64_t)n + 1) * sizeof *m->order);
    rc = m->order ? arrange(m, n) : DBZ_E_NOMEM;
    m->depth = old_tree ? depth : 0;
    while (!rc && m->n && reach(m->depth) <= m->order[m->n - 1].key)
        m->depth++;
    uint32_t old_depth = old_tree ? depth : 0;
    uint64_t need = !rc && m->n ? needed(m, old_depth, old_tree) : 0;
    if (!rc && need > UINT32_MAX / 2)
        rc = DBZ_E_NOSPACE;
    if (!rc && need > *npages) {
        *npages = (uint32_t)need;
        rc = DBZ_E_NOSPACE;
    }
    m->root = old_tree ? root : 0;
    if (!rc && m->n) {
        m->page_count = (uint32_t)need;
        m->bytes = malloc(need * DBZ_PAGE);
        m->addresses = malloc(need * 8);
        m->freed = malloc(need * 8);
        rc = m->bytes && m->addresses && m->freed ? 0 : DBZ_E_NOMEM;
        if (!rc) {
            uint64_t pointer = 0;
            int grow = old_tree && m->depth > old_depth;
            rc = node(m, grow ? 0 : m->root, m->depth - 1, 0, 0, m->n, grow ? m->root : 0, old_depth ? old_depth - 1 : 0, &pointer);
            if (!rc)
                m->root = pointer;
        }
    }
    r->spare_done = rc != DBZ_E_MISS;
    free(m->order);
    m->order = NULL;
    m->entries = NULL;
    m->pages = NULL;
    if (rc) {
        dbz_merge_free(m);
        return rc;
    }
    *npages = m->used;
    *out = m;
    return 0;
}

void dbz_merge_free(dbz_merge *m)
{
    if (!m)
        return;
    free(m->order);
    free(m->bytes);
    free(m->addresses);
    free(m->freed);
    free(m);
}

void dbz_merge_root(const dbz_merge *m, uint64_t *pointer, uint32_t *depth)
{
    *pointer = m->root;
    *depth = m->root ? m->depth : 0;
}

const uint8_t *dbz_merge_page(const dbz_merge *m, uint32_t i, uint64_t *address)
{
    if (i >= m->used)
        return NULL;
    *address = m->addresses[i];
    return m->bytes + (uint64_t)i * DBZ_PAGE;
}

const uint64_t *dbz_merge_freed(const dbz_merge *m, uint32_t *n)
{
    *n = m->freed_count;
    return m->freed;
}
