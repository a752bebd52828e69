/* The delta index: what the object table misses since the last checkpoint. The argument stands above dbz_delta and dbz_prefix in segment.h;
 * model: stress/models/delta_recycle.pml. */
#include <stdlib.h>

#include "shared.h"

#define HEADS (uint32_t)(DBZ_CHUNK / sizeof(uint32_t))           /* bucket heads in a chunk */
#define ENTRIES (uint32_t)(DBZ_CHUNK / sizeof(dbz_entry))        /* entries in a chunk */
#define TRIES 64
#define NEAR 16                      /* entries of one object that a search passes over before it leaves the rest to the version chain */

/* An entry as it lies in the arena. */
typedef struct {
    _Atomic uint64_t oid, state, addr;
    _Atomic uint32_t refcount, next;
} shared_entry;
_Static_assert(sizeof(shared_entry) == sizeof(dbz_entry), "one layout");

static dbz_delta *active(dbz_prefix *x, uint64_t gens)
{
    return &x->delta[gens >> 1 & 1];
}

static dbz_delta *other(dbz_prefix *x, uint64_t gens)
{
    return &x->delta[(gens >> 1 & 1) ^ 1];
}

/* Address of an arena chunk given as number + 1; NULL when that can't be one. */
static uint8_t *chunk_at(dbz_seg *seg, uint32_t listed)
{
    if (listed == 0 || listed > seg->at.arena_chunks)
        return NULL;
    uint64_t off = seg->at.arena_off + (uint64_t)(listed - 1) * DBZ_CHUNK;
    return dbz_seg_reserved(seg, off) ? seg->base + off : NULL;
}

static _Atomic uint32_t *head_at(dbz_seg *seg, dbz_delta *d, uint32_t bucket_chunks, uint64_t oid)
{
    uint64_t bucket = oid & ((uint64_t)bucket_chunks * HEADS - 1);
    uint8_t *c = chunk_at(seg, LOAD(d->chunk[bucket / HEADS]));
    return c == NULL ? NULL : (_Atomic uint32_t *)(void *)c + bucket % HEADS;
}

static shared_entry *entry_at(dbz_seg *seg, dbz_delta *d, uint32_t bucket_chunks, uint32_t index)
{
    uint64_t place = (uint64_t)bucket_chunks + index / ENTRIES;
    uint8_t *c = place < DBZ_DELTA_CHUNKS ? chunk_at(seg, LOAD(d->chunk[place])) : NULL;
    return c == NULL ? NULL : (shared_entry *)(void *)c + index % ENTRIES;
}

static int sane_buckets(uint32_t n)
{
    return n != 0 && n < DBZ_DELTA_CHUNKS && (n & (n - 1)) == 0;
}

/* --- chunks of the arena ------------------------------------------------------------------------------------------------------------------ */

static int take_chunk(dbz_seg *seg, uint32_t prefix, uint32_t *listed)
{
    _Atomic uint32_t *map = dbz_chunk_map(seg);
    /* First what is backed already, so that a full /dev/shm can still be used to its end. */
    for (int grow = 0; grow < 2; grow++) {
        for (uint32_t i = 0; i < seg->at.arena_chunks; i++) {
            uint64_t off = seg->at.arena_off + (uint64_t)i * DBZ_CHUNK;
            uint32_t free_word = 0;
            if (LOAD_ANY(map[i]) != 0 || (!grow && !dbz_seg_reserved(seg, off)) || !CAS(map[i], free_word, prefix + 1))
                continue;
            int rc = dbz_seg_reserve(seg, off, DBZ_CHUNK);
            if (rc != DBZ_OK) {
                STORE(map[i], 0);
                return rc;
            }
            *listed = i + 1;
            return DBZ_OK;
        }
    }
    return DBZ_E_NOSPACE;
}

/* Claim one more chunk for `d`; zeroed when it is to hold bucket heads. */
static int add_chunk(dbz_seg *seg, uint32_t prefix, dbz_delta *d, int zeroed)
{
    uint32_t place = LOAD(d->chunks), listed = 0;
    if (place >= DBZ_DELTA_CHUNKS)
        return DBZ_E_NOSPACE;
    int rc = take_chunk(seg, prefix, &listed);
    if (rc != DBZ_OK)
        return rc;
    if (zeroed) {
        _Atomic uint64_t *word = (_Atomic uint64_t *)(void *)chunk_at(seg, listed);
        for (uint32_t i = 0; i < DBZ_CHUNK / sizeof(uint64_t); i++)
            STORE(word[i], 0);
    }
    STORE(d->chunk[place], listed);
    STORE(d->chunks, place + 1);
    return DBZ_OK;
}

/* Empty a generation that no value of `gens` names any more, or that isn't in use yet. */
static void empty(dbz_seg *seg, uint32_t prefix, dbz_delta *d)
{
    _Atomic uint32_t *map = dbz_chunk_map(seg);
    uint32_t chunks = LOAD(d->chunks);
    STORE(d->bucket_chunks, 0);
    STORE(d->count, 0);
    STORE(d->pending, 0);
    for (uint32_t i = chunks < DBZ_DELTA_CHUNKS ? chunks : DBZ_DELTA_CHUNKS; i-- > 0;) {
        uint32_t listed = LOAD(d->chunk[i]), mine = prefix + 1;
        STORE(d->chunk[i], 0);
        STORE(d->chunks, i);
        if (listed != 0 && listed <= seg->at.arena_chunks)
            (void)CAS(map[listed - 1], mine, 0);
    }
}

static int make_buckets(dbz_seg *seg, uint32_t prefix, dbz_delta *d, uint64_t expected)
{
    /* At a head per entry, heads take an eighth of what entries do; never more than a sixteenth of the arena. */
    uint32_t want = 1;
    while (want < DBZ_DELTA_CHUNKS / 8 && want < seg->at.arena_chunks / 32 && (uint64_t)want * HEADS < expected)
        want *= 2;
    for (;; want /= 2) {
        while (LOAD(d->chunks) < want && add_chunk(seg, prefix, d, 1) == DBZ_OK) {
        }
        if (LOAD(d->chunks) >= want)
            break;
        if (want == 1)
            return DBZ_E_NOSPACE;
    }
    STORE(d->bucket_chunks, want);
    return DBZ_OK;
}

/* --- the writer --------------------------------------------------------------------------------------------------------------------------- */

static uint64_t capacity(dbz_delta *d)
{
    return LOAD(d->bucket_chunks) == 0 ? 0 : (uint64_t)(LOAD(d->chunks) - LOAD(d->bucket_chunks)) * ENTRIES;
}

int dbz_delta_reserve(dbz_seg *seg, uint32_t prefix, uint32_t n)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    dbz_delta *d = active(x, LOAD(x->gens));
    if ((uint64_t)n / ENTRIES >= seg->at.arena_chunks)
        return DBZ_E_NOSPACE;
    if (LOAD(d->bucket_chunks) == 0) {
        empty(seg, prefix, d);
        int rc = make_buckets(seg, prefix, d, n);
        if (rc != DBZ_OK)
            return rc;
    }
    uint64_t need = (uint64_t)LOAD(d->count) + n;
    if (need > (uint64_t)(DBZ_DELTA_CHUNKS - LOAD(d->bucket_chunks)) * ENTRIES)
        return DBZ_E_NOSPACE;
    while (capacity(d) < need) {
        int rc = add_chunk(seg, prefix, d, 0);
        if (rc != DBZ_OK)
            return rc;
    }
    return DBZ_OK;
}

/* Unlink what a writer that died in dbz_delta_apply had put in. */
static int undo(dbz_seg *seg, dbz_prefix *x, dbz_delta *d)
{
    uint32_t count = LOAD(d->count), buckets = LOAD(d->bucket_chunks);
    uint64_t gens = LOAD(x->gens);
    STORE(x->gens, gens + 4);        /* counter + 2: the same generation stays active, and readers in it start again */
    uint32_t pending = LOAD(d->pending);
    for (uint32_t i = pending < DBZ_DELTA_CHUNKS * ENTRIES ? pending : DBZ_DELTA_CHUNKS * ENTRIES; i-- > count;) {
        shared_entry *e = entry_at(seg, d, buckets, i);
        if (e == NULL)
            continue;
        _Atomic uint32_t *head = head_at(seg, d, buckets, LOAD(e->oid));
        if (head == NULL)
            return DBZ_E_CORRUPT;
        /* Only a complete entry is ever a head. */
        if (LOAD(*head) == i + 1)
            STORE(*head, LOAD(e->next));
    }
    STORE(d->pending, count);
    return DBZ_OK;
}

int dbz_delta_apply(dbz_seg *seg, uint32_t prefix, const dbz_entry *entries, uint32_t n)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    dbz_delta *d = active(x, LOAD(x->gens));
    uint32_t count = LOAD(d->count), buckets = LOAD(d->bucket_chunks);
    if (n == 0)
        return DBZ_OK;
    if (!sane_buckets(buckets) || (uint64_t)count + n > capacity(d))
        return DBZ_E_NOSPACE;
    if (LOAD(d->pending) != count) {
        int rc = undo(seg, x, d);
        if (rc != DBZ_OK)
            return rc;
    }
    STORE(d->pending, count + n);
    for (uint32_t i = 0; i < n; i++) {
        shared_entry *e = entry_at(seg, d, buckets, count + i);
        _Atomic uint32_t *head = head_at(seg, d, buckets, entries[i].oid);
        if (e == NULL || head == NULL)
            return DBZ_E_CORRUPT;
        STORE(e->oid, entries[i].oid);
        STORE(e->state, entries[i].state);
        STORE(e->addr, entries[i].addr);
        STORE(e->refcount, entries[i].refcount);
        STORE(e->next, LOAD(*head));
        STORE(*head, count + i + 1);
    }
    STORE(d->count, count + n);
    return DBZ_OK;
}

int dbz_delta_rotate(dbz_seg *seg, uint32_t prefix, uint64_t state, uint32_t expected)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    uint64_t gens = LOAD(x->gens);
    if (gens & 1)
        return DBZ_E_BUSY;
    dbz_delta *d = active(x, gens), *fresh = other(x, gens);
    if (LOAD(d->pending) != LOAD(d->count)) {
        int rc = undo(seg, x, d);
        if (rc != DBZ_OK)
            return rc;
        gens = LOAD(x->gens);
    }
    empty(seg, prefix, fresh);       /* what a retirer that died left behind */
    STORE(fresh->base_state, state);
    /* Without room for buckets the first reserve tries again: rotating is the way to make room, so it doesn't fail for the want of it. */
    if (expected != 0)
        (void)make_buckets(seg, prefix, fresh, expected);
    STORE(x->gens, ((gens >> 1) + 1) << 1 | 1);
    return DBZ_OK;
}

void dbz_root_install(dbz_seg *seg, uint32_t prefix, uint64_t pointer, uint32_t depth, uint64_t state)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return;
    uint64_t no = LOAD(x->root_no) + 1;
    dbz_root *root = &x->root[no & 1];
    STORE(root->pointer, pointer);
    STORE(root->depth, depth);
    STORE(root->state, state);
    STORE(x->root_no, no);
}

void dbz_delta_retire(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return;
    uint64_t gens = LOAD(x->gens);
    /* By CAS, because a commit that repairs (undo) moves the counter meanwhile. */
    while (gens & 1) {
        if (CAS(x->gens, gens, gens & ~UINT64_C(1))) {
            empty(seg, prefix, other(x, gens));
            return;
        }
    }
}

void dbz_delta_clear(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    uint64_t gens = LOAD(x->gens);
    STORE(x->gens, ((gens >> 1) + 2) << 1);
    empty(seg, prefix, &x->delta[0]);
    empty(seg, prefix, &x->delta[1]);
    STORE(x->delta[0].base_state, 0);
    STORE(x->delta[1].base_state, 0);
    (void)dbz_delta_sweep(seg, prefix);
}

int dbz_delta_sweep(dbz_seg *seg, uint32_t prefix)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return 0;
    _Atomic uint32_t *map = dbz_chunk_map(seg);
    uint8_t *listed = calloc(seg->at.arena_chunks, 1);
    int freed = 0;
    if (listed == NULL)
        return 0;
    for (int g = 0; g < 2; g++) {
        uint32_t chunks = LOAD(x->delta[g].chunks);
        for (uint32_t i = 0; i < chunks && i < DBZ_DELTA_CHUNKS; i++) {
            uint32_t c = LOAD(x->delta[g].chunk[i]);
            if (c != 0 && c <= seg->at.arena_chunks)
                listed[c - 1] = 1;
        }
    }
    for (uint32_t i = 0; i < seg->at.arena_chunks; i++) {
        uint32_t mine = prefix + 1;
        if (!listed[i] && LOAD(map[i]) == mine)
            freed += CAS(map[i], mine, 0);
    }
    free(listed);
    return freed;
}

/* --- readers ------------------------------------------------------------------------------------------------------------------------------ */

uint32_t dbz_delta_count(dbz_seg *seg, uint32_t prefix, int frozen)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    uint64_t gens = x == NULL ? 0 : LOAD(x->gens);
    if (x == NULL || (frozen && !(gens & 1)))
        return 0;
    return LOAD((frozen ? other(x, gens) : active(x, gens))->count);
}

int dbz_delta_copy(dbz_seg *seg, uint32_t prefix, int frozen, dbz_entry *out, uint32_t cap)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return DBZ_E_ARG;
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t gens = LOAD(x->gens);
        if (frozen && !(gens & 1))
            return 0;
        dbz_delta *d = frozen ? other(x, gens) : active(x, gens);
        uint32_t buckets = LOAD(d->bucket_chunks), count = LOAD(d->count), i = 0;
        count = count < cap ? count : cap;
        count = count < INT32_MAX ? count : INT32_MAX;
        for (; i < count; i++) {
            shared_entry *e = entry_at(seg, d, buckets, i);
            if (e == NULL)
                break;
            out[i] = (dbz_entry){LOAD(e->oid), LOAD(e->state), LOAD(e->addr), LOAD(e->refcount), 0};
        }
        if (LOAD(x->gens) == gens)
            return i < count ? DBZ_E_CORRUPT : (int)count;
    }
    return DBZ_E_RETRY;
}

/* 0 found, DBZ_E_NOTFOUND, DBZ_E_CORRUPT: this can't be a chain - or the generation is being recycled under us.
 * A hot object has an entry for each commit, so going back along them costs what was committed since; the version chain has skip pointers. After NEAR entries that
 * are too new, the oldest of them is what is found. */
static int search(dbz_seg *seg, dbz_delta *d, uint64_t oid, uint64_t state, dbz_entry *out)
{
    uint32_t buckets = LOAD(d->bucket_chunks);
    if (buckets == 0)
        return DBZ_E_NOTFOUND;
    _Atomic uint32_t *head = sane_buckets(buckets) ? head_at(seg, d, buckets, oid) : NULL;
    if (head == NULL)
        return DBZ_E_CORRUPT;
    unsigned newer = 0;
    for (uint32_t at = LOAD(*head), next; at != 0; at = next) {
        shared_entry *e = entry_at(seg, d, buckets, at - 1);
        if (e == NULL)
            return DBZ_E_CORRUPT;
        next = LOAD(e->next);
        if (LOAD(e->oid) == oid) {
            uint64_t entry_state = LOAD(e->state);
            if (entry_state <= state || ++newer == NEAR) {
                *out = (dbz_entry){oid, entry_state, LOAD(e->addr), LOAD(e->refcount), 0};
                return DBZ_OK;
            }
        }
        if (next >= at)
            return DBZ_E_CORRUPT;
    }
    return DBZ_E_NOTFOUND;
}

int dbz_delta_find(dbz_seg *seg, uint32_t prefix, uint64_t oid, uint64_t state, dbz_entry *out)
{
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    dbz_entry found;
    if (x == NULL)
        return DBZ_E_ARG;
    for (int tries = 0; tries < TRIES; tries++) {
        uint64_t gens = LOAD(x->gens);
        int rc = search(seg, active(x, gens), oid, state, &found);
        if (rc == DBZ_E_NOTFOUND && (gens & 1))
            rc = search(seg, other(x, gens), oid, state, &found);
        if (LOAD(x->gens) == gens) {
            if (rc == DBZ_OK)
                *out = found;
            return rc;
        }
    }
    return DBZ_E_RETRY;
}
