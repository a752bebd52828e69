/* Copies of shared words for people to look at. */
#include <string.h>

#include "shared.h"

int dbz_seg_status(dbz_seg *seg, dbz_seg_info *out)
{
    dbz_header *h = dbz_seg_header(seg);
    _Atomic uint32_t *map = dbz_chunk_map(seg);
    dbz_seg_info s = {0};
    s.size = seg->size;
    for (uint64_t off = 0; off < seg->size; off += DBZ_BLOCK)
        s.reserved += dbz_seg_reserved(seg, off) ? DBZ_BLOCK : 0;
    s.cache_bytes = (uint64_t)seg->at.sets * DBZ_WAYS * DBZ_PAGE;
    s.hits = LOAD_ANY(h->hits);
    s.misses = LOAD_ANY(h->misses);
    s.evictions = LOAD_ANY(h->evictions);
    s.arena_chunks = seg->at.arena_chunks;
    for (uint32_t i = 0; i < seg->at.arena_chunks; i++)
        s.arena_used += LOAD_ANY(map[i]) != 0;
    s.processes = (uint32_t)dbz_proc_count(seg);
    for (uint32_t i = 0; i < DBZ_PREFIXES; i++) {
        dbz_prefix *x = dbz_seg_prefix(seg, i);
        s.prefixes += x != NULL && LOAD(x->assigned) == 1;
    }
    *out = s;
    return DBZ_OK;
}

int dbz_prefix_status(dbz_seg *seg, uint32_t prefix, dbz_prefix_info *out)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    memset(out, 0, sizeof *out);
    out->ready = LOAD(x->ready);
    out->assigned = LOAD(x->assigned);
    out->cache_key = LOAD(x->cache_key);
    out->incarnation = LOAD(x->incarnation);
    out->poisoned = LOAD(x->poisoned);
    out->waiters = LOAD(x->waiters);
    out->file_id = LOAD(x->file_id);
    out->prefix_uuid = LOAD(x->prefix_uuid);
    out->floor = LOAD(x->floor_set);
    out->lease = LOAD(x->lease);
    out->published = LOAD(x->published);
    out->durable = LOAD(x->durable);
    out->data_end = LOAD(x->data_end);
    out->next_oid = LOAD(x->next_oid);
    out->gens = LOAD(x->gens);
    do {
        out->root_no = LOAD(x->root_no);
        const dbz_root *root = &x->root[out->root_no & 1];
        out->root_pointer = LOAD(root->pointer);
        out->root_depth = LOAD(root->depth);
        out->root_state = LOAD(root->state);
    } while (LOAD(x->root_no) != out->root_no);
    out->active_entries = dbz_delta_count(seg, prefix, 0);
    out->frozen_entries = dbz_delta_count(seg, prefix, 1);
    out->chunks = LOAD(x->delta[0].chunks) + LOAD(x->delta[1].chunks);
    memcpy(out->name, x->name, sizeof out->name - 1);
    return DBZ_OK;
}

int dbz_proc_status(dbz_seg *seg, uint32_t index, dbz_proc_info *out)
{
    dbz_proc *p = dbz_seg_proc(seg, index);
    if (p == NULL)
        return DBZ_E_ARG;
    memset(out, 0, sizeof *out);
    out->generation = LOAD(p->generation);
    out->started_ns = LOAD(p->started_ns);
    out->pid = LOAD(p->pid);
    out->pin_all = LOAD(p->pin_all);
    out->live = (uint32_t)dbz_proc_alive(seg, index);
    for (uint32_t i = 0; i < DBZ_PINS; i++) {
        uint64_t word = LOAD(p->pins[i]);
        if (word != 0)
            out->pin[out->pins++] = word;
    }
    return DBZ_OK;
}
