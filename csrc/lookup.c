/* Lookups: delta index, else table, then down the version chain.
 *
 * Consistency: gens and root_no are loaded (acquire) before the delta is asked and compared afterwards. Unchanged means that the delta generations and the
 * root were in force together for the whole lookup: what a checkpoint moved from the one to the other was in at least one of them. Changed: once more.
 * Damage found in a table page while root_no moved may be nothing but a page that was freed and written anew, and is looked at again too.
 * Records never change, so the chain walk needs no such care. */
#include "reader_impl.h"

#define TRIES 1000
#define PART (UINT64_C(1) << 20)      /* bytes copied at a time by dbz_get_bytes */

/* Where the newest entry at or below `state` is. *exact: 1 when entry->state is known not to be above `state` for the record too.
 * An entry may lead to a record that was committed since the call began, so data_end is loaded again behind it. */
static int find_entry(dbz_reader *r, uint64_t oid, uint64_t state, dbz_entry *out, int *exact)
{
    for (int i = 0; i < TRIES; i++) {
        uint64_t gens = atomic_load_explicit(&r->slot->gens, memory_order_acquire);
        uint64_t root_no = atomic_load_explicit(&r->slot->root_no, memory_order_acquire);
        int rc = dbz_delta_find(r->seg, r->prefix, oid, state, out);
        if (rc == 0) {
            atomic_thread_fence(memory_order_acquire);
            if (atomic_load_explicit(&r->slot->cache_key, memory_order_relaxed) != r->cache_key)
                return DBZ_E_RETRY;
            *exact = out->state <= state;
            r->data_end = atomic_load_explicit(&r->slot->data_end, memory_order_acquire);
            return 0;
        }
        if (rc != DBZ_E_NOTFOUND)
            return rc;
        dbz_root *root = &r->slot->root[root_no & 1];
        uint64_t pointer = atomic_load_explicit(&root->pointer, memory_order_acquire);
        uint32_t depth = atomic_load_explicit(&root->depth, memory_order_acquire);
        dbz_entry e = {.oid = oid, .state = atomic_load_explicit(&root->state, memory_order_acquire)};
        if (atomic_load_explicit(&r->slot->root_no, memory_order_acquire) != root_no)
            continue;
        rc = dbz_table_find(r, pointer, depth, oid, &e.addr, &e.refcount);
        if (rc == DBZ_E_MISS || rc == DBZ_E_NOMEM || rc == DBZ_E_IO)
            return rc;
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&r->slot->root_no, memory_order_relaxed) != root_no || atomic_load_explicit(&r->slot->gens, memory_order_relaxed) != gens)
            continue;
        /* Before the result counts for anything: an incarnation that has just begun is empty, and nothing is missing because of that. */
        if (atomic_load_explicit(&r->slot->cache_key, memory_order_relaxed) != r->cache_key)
            return DBZ_E_RETRY;
        if (rc)
            return rc;
        r->data_end = atomic_load_explicit(&r->slot->data_end, memory_order_acquire);
        *exact = e.state <= state;
        *out = e;
        return 0;
    }
    return DBZ_E_RETRY;
}

/* From the version at `addr` to the newest one at or below `state`. The result stands in one of raw buffers 0..2. */
static int walk(dbz_reader *r, uint64_t addr, uint64_t oid, uint64_t state, dbz_raw *out)
{
    unsigned at = 0;
    int rc = dbz_record_load(r, at, addr, oid, out);
    while (!rc && out->state > state) {
        if (!out->prev)
            return DBZ_E_NOTFOUND;
        unsigned other = at ? 0 : 1;
        dbz_raw next;
        uint64_t ordinal = 0;
        if (out->skip) {
            ordinal = dbz_skip_ordinal(out->ordinal);
            rc = dbz_record_load(r, other, out->skip, oid, &next);
            if (rc)
                break;
        }
        if (!out->skip || next.state <= state) {
            ordinal = out->ordinal - 1;
            rc = dbz_record_load(r, other, out->prev, oid, &next);
            if (rc)
                break;
        }
        /* Every step must lead where the arithmetic says, so the walk ends after O(log n) of them whatever the file holds. */
        if (next.ordinal != ordinal || next.state >= out->state)
            return dbz_damage(r, 2, out->addr, oid, out->state);
        *out = next;
        at = other;
    }
    return rc;
}

static int get(dbz_reader *r, uint64_t oid, uint64_t state, dbz_record *out)
{
    dbz_entry e;
    dbz_raw raw;
    int exact;
    int rc = find_entry(r, oid, state, &e, &exact);
    if (rc)
        return rc;
    rc = walk(r, e.addr, oid, state, &raw);
    if (rc)
        return rc;
    rc = dbz_record_resolve(r, &raw, out);
    if (!rc)
        out->refcount = e.refcount == DBZ_REF_TOMBSTONE ? 0 : e.refcount;
    return rc;
}

int dbz_get(dbz_reader *r, uint64_t oid, uint64_t state, dbz_record *out)
{
    int rc = dbz_call_begin(r);
    if (rc)
        return rc;
    rc = get(r, oid, state, out);
    r->spare_done = rc != DBZ_E_MISS;
    if (rc == DBZ_E_CORRUPT && atomic_load_explicit(&r->slot->cache_key, memory_order_acquire) != r->cache_key)
        return DBZ_E_RETRY;
    if (rc == DBZ_E_CORRUPT) {
        r->fault.oid = oid;
        r->fault.state = state;
    }
    return rc;
}

int dbz_get_entry(dbz_reader *r, uint64_t oid, uint64_t state, dbz_entry *out)
{
    int rc = dbz_call_begin(r), exact = 0;
    if (rc)
        return rc;
    dbz_entry e;
    rc = find_entry(r, oid, state, &e, &exact);
    if (!rc && !exact) {
        dbz_raw raw;
        rc = walk(r, e.addr, oid, state, &raw);
        if (!rc) {
            e.addr = raw.addr;
            e.state = raw.state;
            if (raw.flags & DBZ_TOMBSTONE)
                e.refcount = DBZ_REF_TOMBSTONE;
            else if (e.refcount == DBZ_REF_TOMBSTONE)
                e.refcount = 0;
        }
    }
    r->spare_done = rc != DBZ_E_MISS;
    if (rc)
        return rc;
    *out = e;
    return 0;
}

int dbz_get_at(dbz_reader *r, uint64_t addr, dbz_record *out)
{
    int rc = dbz_call_begin(r);
    if (rc)
        return rc;
    dbz_raw raw;
    rc = dbz_record_load(r, 0, addr, 0, &raw);
    if (!rc)
        rc = dbz_record_resolve(r, &raw, out);
    r->spare_done = rc != DBZ_E_MISS;
    return rc;
}

int dbz_get_bytes(dbz_reader *r, uint64_t addr, uint8_t *out, uint64_t len)
{
    int rc = dbz_call_begin(r);
    if (rc)
        return rc;
    while (len) {
        uint64_t part = len < PART ? len : PART;
        rc = dbz_buf_need(&r->raw[0], part + 16);
        if (!rc)
            rc = dbz_data_copy(r, addr, part, r->raw[0].bytes);
        if (rc)
            break;
        memcpy(out, r->raw[0].bytes + (addr & 7), part);
        addr += part;
        out += part;
        len -= part;
    }
    r->spare_done = rc != DBZ_E_MISS;
    return rc;
}

/* Payload of the commit log: u64 time, varint count, then the OIDs as varint gaps (first: the OID itself). */
int dbz_get_changes(dbz_reader *r, uint64_t state, uint64_t *oids, uint64_t *n, uint64_t *time_us)
{
    dbz_record rec;
    int rc = dbz_get(r, DBZ_OID_LOG, state, &rec);
    if (rc)
        return rc;
    if (rec.state != state)
        return DBZ_E_NOTFOUND;
    const uint8_t *p = rec.payload + 8, *end = rec.payload + rec.payload_len;
    uint64_t count, oid = 0, gap;
    if (rec.payload_len < 9 || dbz_varint_get(&p, end, &count) || count > (uint64_t)(end - p))
        return dbz_damage(r, 2, rec.addr, DBZ_OID_LOG, state);
    if (count > *n) {
        *n = count;
        return DBZ_E_NOSPACE;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (dbz_varint_get(&p, end, &gap) || gap == 0 || oid + gap < oid)
            return dbz_damage(r, 2, rec.addr, DBZ_OID_LOG, state);
        oid += gap;
        oids[i] = oid;
    }
    *n = count;
    *time_us = dbz_load64(rec.payload);
    return 0;
}

/* What the commits after state `after` up to `upto` changed, one behind the other; stops early when `oids` (room for *n) is full, or a state can't be
 * read: *done is the last state that is in. An error is that of state after + 1; DBZ_E_NOSPACE: *n is the room that one needs. */
int dbz_get_changes_since(dbz_reader *r, uint64_t after, uint64_t upto, uint64_t *oids, uint64_t *n, uint64_t *done)
{
    uint64_t used = 0, time_us;
    *done = after;
    while (*done < upto) {
        uint64_t room = *n - used;
        int rc = dbz_get_changes(r, *done + 1, oids + used, &room, &time_us);
        if (rc) {
            if (*done > after)
                break;
            if (rc == DBZ_E_NOSPACE)
                *n = room;
            return rc;
        }
        used += room;
        ++*done;
    }
    *n = used;
    return 0;
}
