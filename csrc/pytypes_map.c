/* The identity map of a view: OID -> live object, borrowed. The essay on borrowed pointers stands above struct ViewCore in pytypes.h.
 *
 * It is an open-addressing table with linear probing and deleted marks, and is rebuilt only by an insertion. */
#include "pytypes.h"
#include <stddef.h>
#include <stdlib.h>

#define DELETED (UINT64_C(1) << 63)

/* Four neighbours share a cache line: OIDs are dealt out in order, and objects made together are used together. */
static inline size_t spread(uint64_t oid)
{
    return (size_t)(((oid >> 2) * UINT64_C(0x9E3779B97F4A7C15)) >> 24) * 4 + (size_t)(oid & 3);
}

static map_slot *find(const ViewCore *v, uint64_t oid)
{
    if (v->capacity == 0)
        return NULL;
    size_t mask = v->capacity - 1;
    for (size_t i = spread(oid) & mask;; i = (i + 1) & mask) {
        map_slot *slot = &v->slots[i];
        if (slot->oid == oid)
            return slot;
        if (slot->oid == 0)
            return NULL;
    }
}

Persistent *dbz_map_get(ViewCore *v, uint64_t oid)
{
    map_slot *slot = find(v, oid);
    return slot != NULL && Py_REFCNT(slot->object) > 0 ? slot->object : NULL;
}

static int grow(ViewCore *v)
{
    size_t capacity = 64;
    while (capacity < v->live * 3)
        capacity *= 2;
    map_slot *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < v->capacity; i++) {
        const map_slot *old = &v->slots[i];
        if (old->object == NULL)
            continue;
        size_t j = spread(old->oid) & (capacity - 1);
        while (slots[j].oid != 0)
            j = (j + 1) & (capacity - 1);
        slots[j] = *old;
    }
    free(v->slots);
    v->slots = slots;
    v->capacity = capacity;
    v->filled = v->live;
    return 0;
}

int dbz_map_put(ViewCore *v, Persistent *p)
{
    map_slot *slot = find(v, p->oid);
    if (slot != NULL) {
        slot->object = p;
        return 0;
    }
    if ((v->filled + 1) * 3 > v->capacity * 2 && grow(v) < 0)
        return -1;
    size_t mask = v->capacity - 1, i = spread(p->oid) & mask;
    while (v->slots[i].oid != 0 && v->slots[i].oid != DELETED)
        i = (i + 1) & mask;
    if (v->slots[i].oid == 0)
        v->filled++;
    v->slots[i].oid = p->oid;
    v->slots[i].object = p;
    v->live++;
    return 0;
}

void dbz_map_drop(ViewCore *v, const Persistent *p)
{
    map_slot *slot = find(v, p->oid);
    if (slot == NULL || slot->object != p)
        return;
    slot->object = NULL;
    slot->oid = DELETED;
    v->live--;
}
