/* Building one commit: versions, refcounts, what becomes garbage, the commit log, the frame body.
 *
 * Nothing is encoded before dbz_batch_seal, so a version that is replaced or forgotten in the same batch leaves no bytes behind. Payloads and references
 * are kept in two arenas; an object the batch has touched (put, deleted or counted) is a `node`, found through a private hash map. Counts are kept as a
 * difference, so the table is asked for the count of an object only when its outcome matters.
 * Every call does all its reading before it changes anything: after an error (a page to supply, no memory, damage) it can be repeated. */
#include "batch.h"
#include "reader_impl.h"

enum { TOUCHED, PUT, DELETED, FORGOTTEN };
enum { UNKNOWN, ABSENT, LIVE, DEAD };

#define DELTA_MIN 128u        /* payloads shorter than this are always written whole */

typedef struct {
    uint64_t oid;
    int64_t diff;             /* references gained minus lost by this batch */
    uint64_t body, body_len;  /* in arena `bytes`; for a DELTA the middle */
    uint64_t refs;            /* index in arena `refs` */
    uint32_t ref_count;
    uint32_t past;            /* index + 1 in `pasts` */
    uint32_t base_count;
    uint8_t what;             /* TOUCHED, PUT, DELETED (stored before), FORGOTTEN (put and deleted here) */
    uint8_t base;             /* what the table has: UNKNOWN, ABSENT, LIVE, DEAD */
    uint8_t queued, reported;
    uint64_t base_addr;
} node;

/* The version before the one being written. */
typedef struct {
    uint64_t prev, skip, ordinal;   /* ordinal of the new version; skip target, 0: none */
    uint64_t head, tail;
    uint8_t delta, same_refs;
} past;

struct dbz_batch {
    dbz_reader *r;
    uint64_t base, state, data_addr, fresh;
    node *nodes;
    uint32_t count, cap;
    uint32_t *index;          /* open addressing: node number + 1 */
    uint32_t index_cap;
    past *pasts;
    uint32_t past_count, past_cap;
    dbz_buf bytes, refs, old_refs, scratch, body, log;
    uint64_t bytes_used, refs_used;
    uint32_t *queue;          /* nodes whose count may be 0; each at most once (node.queued) */
    uint32_t queue_count, queue_cap;
    uint64_t records;
    int sealed;
    uint64_t body_len, data_off, data_len;
    dbz_entry *entries;
    uint32_t entry_count;
};

/* --- the map --- */

static uint32_t slot_of(uint64_t oid, uint32_t cap)
{
    return (uint32_t)((oid * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (cap - 1);
}

static uint32_t find(const dbz_batch *b, uint64_t oid)
{
    if (!b->index_cap)
        return UINT32_MAX;
    uint32_t i = slot_of(oid, b->index_cap);
    while (b->index[i]) {
        if (b->nodes[b->index[i] - 1].oid == oid)
            return b->index[i] - 1;
        i = (i + 1) & (b->index_cap - 1);
    }
    return UINT32_MAX;
}

/* Room for `n` more nodes and queue entries, so that what follows cannot fail. */
static int room(dbz_batch *b, uint64_t n)
{
    uint64_t need = (uint64_t)b->count + n;
    if (need >= UINT32_MAX / 4)
        return DBZ_E_NOSPACE;
    if (need > b->cap) {
        uint64_t cap = b->cap ? b->cap : 64;
        while (cap < need)
            cap *= 2;
        node *nodes = realloc(b->nodes, cap * sizeof *nodes);
        if (!nodes)
            return DBZ_E_NOMEM;
        b->nodes = nodes;
        b->cap = (uint32_t)cap;
    }
    if (b->cap > b->queue_cap) {       /* a node is queued at most once at a time */
        uint32_t *queue = realloc(b->queue, b->cap * sizeof *queue);
        if (!queue)
            return DBZ_E_NOMEM;
        b->queue = queue;
        b->queue_cap = b->cap;
    }
    if (need * 2 > b->index_cap) {
        uint64_t cap = b->index_cap ? b->index_cap : 128;
        while (cap < need * 2)
            cap *= 2;
        uint32_t *index = calloc(cap, sizeof *index);
        if (!index)
            return DBZ_E_NOMEM;
        for (uint32_t k = 0; k < b->count; k++) {
            uint32_t i = slot_of(b->nodes[k].oid, (uint32_t)cap);
            while (index[i])
                i = (i + 1) & ((uint32_t)cap - 1);
            index[i] = k + 1;
        }
        free(b->index);
        b->index = index;
        b->index_cap = (uint32_t)cap;
    }
    return 0;
}

/* Room has been made. */
static uint32_t touch(dbz_batch *b, uint64_t oid)
{
    uint32_t i = slot_of(oid, b->index_cap);
    while (b->index[i]) {
        if (b->nodes[b->index[i] - 1].oid == oid)
            return b->index[i] - 1;
        i = (i + 1) & (b->index_cap - 1);
    }
    b->nodes[b->count] = (node){.oid = oid, .base = oid >= b->fresh ? ABSENT : UNKNOWN};
    b->index[i] = ++b->count;
    return b->count - 1;
}

static void enqueue(dbz_batch *b, uint32_t k)
{
    node *n = &b->nodes[k];
    if (!n->queued && !n->reported && n->oid >= DBZ_OID_FIRST) {
        n->queued = 1;
        b->queue[b->queue_count++] = k;
    }
}

static void count_up(dbz_batch *b, const uint64_t *refs, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        b->nodes[touch(b, refs[i])].diff++;
}

static void count_down(dbz_batch *b, const uint64_t *refs, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint32_t k = touch(b, refs[i]);
        b->nodes[k].diff--;
        enqueue(b, k);
    }
}

static uint64_t *arena_refs(const dbz_batch *b, const node *n) { return (uint64_t *)(void *)b->refs.bytes + n->refs; }

/* --- what was there before --- */

static int know_base(dbz_batch *b, node *n)
{
    if (n->base != UNKNOWN)
        return 0;
    dbz_entry e;
    int rc = dbz_get_entry(b->r, n->oid, b->base, &e);
    if (rc == DBZ_E_NOTFOUND) {
        n->base = ABSENT;
        return 0;
    }
    if (rc)
        return rc;
    n->base = e.refcount == DBZ_REF_TOMBSTONE ? DEAD : LIVE;
    n->base_count = n->base == DEAD ? 0 : e.refcount;
    n->base_addr = e.addr;
    return 0;
}

/* Count as of this batch; the base is known. */
static int count_of(dbz_batch *b, const node *n, uint32_t *out)
{
    int64_t count = (n->base == LIVE ? (int64_t)n->base_count : 0) + n->diff;
    if (count < 0)       /* more references dropped than were ever counted */
        return dbz_damage(b->r, 7, n->base_addr, n->oid, b->base);
    if (count >= (int64_t)DBZ_REF_TOMBSTONE)
        return DBZ_E_NOSPACE;
    *out = (uint32_t)count;
    return 0;
}

/* Address of the version that the skip pointer of the successor of `prev` leads to; 0 when that is `prev` itself. */
static int skip_address(dbz_batch *b, const dbz_record *prev, uint64_t *out)
{
    uint64_t ordinal = prev->ordinal + 1, target = dbz_skip_ordinal(ordinal);
    *out = 0;
    if (target == prev->ordinal)
        return 0;
    dbz_raw raw;
    uint64_t from = prev->skip ? prev->skip : prev->prev;
    int rc = dbz_record_load(b->r, 1, from, prev->oid, &raw);
    if (rc)
        return rc;
    if (raw.ordinal != dbz_skip_ordinal(prev->ordinal) || !raw.prev)
        return dbz_damage(b->r, 2, from, prev->oid, raw.state);
    *out = raw.skip ? raw.skip : raw.prev;
    return 0;
}

/* Read the stored version of `oid` (if any): what the next one needs to know of it, and its references (to old_refs). Changes nothing of the batch. */
static int look_back(dbz_batch *b, uint64_t oid, const uint8_t *payload, uint64_t len, const uint64_t *refs, uint64_t nrefs, past *p, dbz_record *rec,
                     int *have)
{
    *have = 0;
    *p = (past){0};
    if (oid >= b->fresh)
        return 0;
    int rc = dbz_get(b->r, oid, b->base, rec);
    if (rc == DBZ_E_NOTFOUND)
        return 0;
    if (rc)
        return rc;
    *have = 1;
    p->prev = rec->addr;
    p->ordinal = rec->ordinal + 1;
    if (dbz_buf_need(&b->old_refs, rec->ref_count * 8 + 8))
        return DBZ_E_NOMEM;
    if (rec->ref_count)
        memcpy(b->old_refs.bytes, rec->refs, rec->ref_count * 8);
    p->same_refs = payload && !(rec->flags & DBZ_TOMBSTONE) && rec->ref_count == nrefs && (!nrefs || !memcmp(rec->refs, refs, nrefs * 8));
    if (payload && len >= DELTA_MIN && !(rec->flags & DBZ_TOMBSTONE) && b->r->resolved_deltas + 1 <= DBZ_DELTA_MAX && oid != DBZ_OID_LOG) {
        uint64_t most = len < rec->payload_len ? len : rec->payload_len, head = 0, tail = 0;
        const uint8_t *o = rec->payload, *oe = o + rec->payload_len, *ne = payload + len;
        while (head + 8 <= most && dbz_load64(o + head) == dbz_load64(payload + head))
            head += 8;
        while (head < most && o[head] == payload[head])
            head++;
        while (tail + 8 <= most - head && dbz_load64(oe - tail - 8) == dbz_load64(ne - tail - 8))
            tail += 8;
        while (tail < most - head && oe[-1 - (int64_t)tail] == ne[-1 - (int64_t)tail])
            tail++;
        uint64_t middle = len - head - tail;
        if (b->r->resolved_middle + middle + 16 <= len / 2) {
            p->delta = 1;
            p->head = head;
            p->tail = tail;
        }
    }
    return skip_address(b, rec, &p->skip);
}

/* --- life --- */

int dbz_batch_new(dbz_reader *r, uint64_t base, uint64_t state, uint64_t data_addr, dbz_batch **out)
{
    if (!r || base >= state || data_addr < DBZ_DATA_MIN || data_addr >= DBZ_ADDR_MAX)
        return DBZ_E_ARG;
    dbz_batch *b = calloc(1, sizeof *b);
    if (!b)
        return DBZ_E_NOMEM;
    b->r = r;
    b->base = base;
    b->state = state;
    b->data_addr = data_addr;
    b->fresh = UINT64_MAX;
    *out = b;
    return 0;
}

void dbz_batch_free(dbz_batch *b)
{
    if (!b)
        return;
    free(b->nodes);
    free(b->index);
    free(b->pasts);
    free(b->queue);
    free(b->entries);
    dbz_buf_free(&b->bytes);
    dbz_buf_free(&b->refs);
    dbz_buf_free(&b->old_refs);
    dbz_buf_free(&b->scratch);
    dbz_buf_free(&b->body);
    dbz_buf_free(&b->log);
    free(b);
}

void dbz_batch_fresh(dbz_batch *b, uint64_t from_oid)
{
    if (!b->count)
        b->fresh = from_oid;
}

/* --- changes --- */

int dbz_batch_put(dbz_batch *b, uint64_t oid, const uint8_t *payload, uint64_t len, const uint64_t *refs, uint64_t nrefs)
{
    if (b->sealed || oid == 0 || oid == DBZ_OID_LOG || (len && !payload) || (nrefs && !refs) || len > DBZ_RECORD_MAX / 2 || nrefs > DBZ_RECORD_MAX / 32)
        return DBZ_E_ARG;
    static const uint8_t nothing[1];
    if (!payload)
        payload = nothing;
    for (uint64_t i = 0; i < nrefs; i++)
        if (refs[i] == 0)
            return DBZ_E_ARG;
    uint32_t k = find(b, oid);
    int again = k != UINT32_MAX && b->nodes[k].what == PUT;
    if (k != UINT32_MAX && (b->nodes[k].what == DELETED || b->nodes[k].what == FORGOTTEN))
        return DBZ_E_ARG;
    past p;
    dbz_record rec;
    int have;
    int rc = look_back(b, oid, payload, len, refs, nrefs, &p, &rec, &have);
    if (rc)
        return rc;
    const uint8_t *body = payload + p.head;
    uint64_t body_len = len - p.head - p.tail, nold = have ? rec.ref_count : 0;
    /* All memory first. */
    if (b->past_count == b->past_cap) {
        uint32_t cap = b->past_cap ? b->past_cap * 2 : 16;
        past *pasts = realloc(b->pasts, cap * sizeof *pasts);
        if (!pasts)
            return DBZ_E_NOMEM;
        b->pasts = pasts;
        b->past_cap = cap;
    }
    rc = room(b, 1 + nold + nrefs);
    if (rc)
        return rc;
    if (dbz_buf_need(&b->bytes, b->bytes_used + body_len + 1) || dbz_buf_need(&b->refs, (b->refs_used + nrefs + 1) * 8))
        return DBZ_E_NOMEM;
    k = touch(b, oid);
    node *n = &b->nodes[k];
    int live = have && !(rec.flags & DBZ_TOMBSTONE);
    if (again)
        count_down(b, arena_refs(b, n), n->ref_count);
    else if (live && !p.same_refs)
        count_down(b, (const uint64_t *)(const void *)b->old_refs.bytes, nold);
    if (again || !p.same_refs)
        count_up(b, refs, nrefs);
    n = &b->nodes[k];
    n->base = have ? (live ? LIVE : DEAD) : ABSENT;
    n->base_count = live ? rec.refcount : 0;
    n->base_addr = p.prev;
    if (!again)
        b->records++;
    n->what = PUT;
    n->body = b->bytes_used;
    n->body_len = body_len;
    n->refs = b->refs_used;
    n->ref_count = (uint32_t)nrefs;
    if (body_len)
        memcpy(b->bytes.bytes + b->bytes_used, body, body_len);
    if (nrefs)
        memcpy(b->refs.bytes + b->refs_used * 8, refs, nrefs * 8);
    b->bytes_used += body_len;
    b->refs_used += nrefs;
    if (have) {
        if (!n->past)
            n->past = ++b->past_count;
        b->pasts[n->past - 1] = p;
    }
    enqueue(b, k);
    return 0;
}

int dbz_batch_put_many(dbz_batch *b, uint32_t n, const uint64_t *oids, const uint8_t *payloads, const uint64_t *lens, const uint64_t *refs,
                       const uint64_t *ref_counts, uint32_t *done)
{
    for (; *done < n; ++*done) {
        uint32_t i = *done;
        int rc = dbz_batch_put(b, oids[i], payloads, lens[i], refs, ref_counts[i]);
        if (rc)
            return rc;
        payloads += lens[i];
        refs += ref_counts[i];
    }
    return 0;
}

int dbz_batch_delete(dbz_batch *b, uint64_t oid)
{
    if (b->sealed || oid == 0 || oid == DBZ_OID_LOG)
        return DBZ_E_ARG;
    uint32_t k = find(b, oid);
    int was_put = k != UINT32_MAX && b->nodes[k].what == PUT;
    if (k != UINT32_MAX && (b->nodes[k].what == DELETED || b->nodes[k].what == FORGOTTEN))
        return DBZ_E_NOTFOUND;
    past p;
    dbz_record rec;
    int have;
    int rc = look_back(b, oid, NULL, 0, NULL, 0, &p, &rec, &have);
    if (rc)
        return rc;
    int live = have && !(rec.flags & DBZ_TOMBSTONE);
    if (!live && !was_put)
        return DBZ_E_NOTFOUND;
    if (b->past_count == b->past_cap) {
        uint32_t cap = b->past_cap ? b->past_cap * 2 : 16;
        past *pasts = realloc(b->pasts, cap * sizeof *pasts);
        if (!pasts)
            return DBZ_E_NOMEM;
        b->pasts = pasts;
        b->past_cap = cap;
    }
    uint64_t nold = have ? rec.ref_count : 0;
    rc = room(b, 1 + nold);
    if (rc)
        return rc;
    k = touch(b, oid);
    if (was_put)
        count_down(b, arena_refs(b, &b->nodes[k]), b->nodes[k].ref_count);
    else
        count_down(b, (const uint64_t *)(const void *)b->old_refs.bytes, nold);
    node *n = &b->nodes[k];
    n->base = have ? (live ? LIVE : DEAD) : ABSENT;
    n->base_count = live ? rec.refcount : 0;
    n->base_addr = p.prev;
    n->what = live ? DELETED : FORGOTTEN;
    n->body_len = 0;
    n->ref_count = 0;
    if (live) {
        if (!n->past)
            n->past = ++b->past_count;
        p.same_refs = 0;
        b->pasts[n->past - 1] = p;
        if (!was_put)
            b->records++;
    } else {
        b->records--;
    }
    return 0;
}

int dbz_batch_zero(dbz_batch *b, uint64_t *out, uint32_t cap)
{
    uint32_t n = 0;
    if (cap > INT32_MAX)
        cap = INT32_MAX;
    while (b->queue_count && n < cap) {
        node *o = &b->nodes[b->queue[b->queue_count - 1]];
        uint32_t count = 1;
        if (o->what == TOUCHED || o->what == PUT) {
            int rc = know_base(b, o);
            if (!rc && !(o->what == TOUCHED && o->base != LIVE))
                rc = count_of(b, o, &count);
            if (rc)
                return rc;
        }
        b->queue_count--;
        o->queued = 0;
        if (count == 0) {
            o->reported = 1;
            out[n++] = o->oid;
        }
    }
    return (int)n;
}

int dbz_batch_refcount(dbz_batch *b, uint64_t oid, uint64_t *out)
{
    uint32_t k = find(b, oid), count = 0;
    node fresh = {.oid = oid}, *n = k == UINT32_MAX ? &fresh : &b->nodes[k];
    if (n->what == DELETED || n->what == FORGOTTEN)
        return DBZ_E_NOTFOUND;
    int rc = know_base(b, n);
    if (!rc && n->what == TOUCHED && n->base != LIVE)
        rc = DBZ_E_NOTFOUND;
    if (!rc)
        rc = count_of(b, n, &count);
    if (rc)
        return rc;
    *out = count;
    return 0;
}

/* --- sealing --- */

/* The commit log record's payload; the OIDs are in ascending order. */
static int log_payload(dbz_batch *b, const dbz_pair *order, uint32_t n, uint64_t time_us, uint64_t *len)
{
    if (dbz_buf_need(&b->log, 8 + 10 + b->records * 10))
        return DBZ_E_NOMEM;
    dbz_store64(b->log.bytes, time_us);
    uint8_t *p = dbz_varint_put(b->log.bytes + 8, b->records);
    uint64_t before = 0;
    for (uint32_t i = 0; i < n; i++) {
        const node *o = &b->nodes[order[i].value];
        if (o->what == PUT || o->what == DELETED) {
            p = dbz_varint_put(p, o->oid - before);
            before = o->oid;
        }
    }
    *len = (uint64_t)(p - b->log.bytes);
    return 0;
}

int dbz_batch_seal(dbz_batch *b, uint64_t time_us, int in_place)
{
    if (b->sealed)
        return DBZ_E_ARG;
    /* Reading. */
    for (uint32_t k = 0; k < b->count; k++) {
        node *n = &b->nodes[k];
        if (n->what == TOUCHED && n->diff == 0)
            continue;
        uint32_t count;
        int rc = know_base(b, n);
        if (!rc && n->what == TOUCHED && n->base == ABSENT && n->diff > 0) {     /* a reference to what was never stored */
            dbz_damage(b->r, 8, 0, n->oid, b->state);
            rc = DBZ_E_NOTFOUND;
        }
        if (!rc && (n->what == PUT || (n->what == TOUCHED && n->base == LIVE)))
            rc = count_of(b, n, &count);
        if (rc)
            return rc;
    }
    past log_past;
    dbz_record log_rec;
    int have_log;
    int rc = look_back(b, DBZ_OID_LOG, NULL, 0, NULL, 0, &log_past, &log_rec, &have_log);
    if (rc)
        return rc;

    /* Encoding. It works on fresh buffers only, so it can be repeated after a failure. */
    dbz_pair *order = malloc(((uint64_t)b->count + 1) * sizeof *order);
    dbz_entry *entries = malloc(((uint64_t)b->count + 1) * sizeof *entries);
    if (!order || !entries) {
        free(order);
        free(entries);
        return DBZ_E_NOMEM;
    }
    uint32_t n = 0, made = 0;
    for (uint32_t k = 0; k < b->count; k++) {
        const node *o = &b->nodes[k];
        if (o->what == PUT || o->what == DELETED || (o->what == TOUCHED && o->diff && o->base == LIVE)) {
            order[n].key = o->oid;
            order[n++].value = k;
        }
    }
    rc = dbz_sort_pairs(order, n);
    uint64_t log_len = 0, used = 0;
    if (!rc)
        rc = log_payload(b, order, n, time_us, &log_len);
    uint64_t data_off = sizeof(dbz_body) + ((uint64_t)n + 1) * sizeof(dbz_change);
    used = data_off;
    if (!rc)
        rc = dbz_buf_need(&b->body, data_off + b->bytes_used + b->refs_used * 3 + (uint64_t)n * 24 + log_len + 64);
    int log_done = 0;
    for (uint32_t i = 0; !rc && (i < n || !log_done); i++) {
        dbz_draft d = {.state = b->state};
        dbz_change c = {0};
        if (!log_done && (i == n || order[i].key > DBZ_OID_LOG)) {
            log_done = 1;
            i--;       /* the object at i comes next */
            d.oid = c.oid = DBZ_OID_LOG;
            d.flags = DBZ_FULL;
            d.body = b->log.bytes;
            d.body_len = log_len;
            d.prev = log_past.prev;
            d.skip = log_past.skip;
            d.ordinal = log_past.ordinal;
        } else {
            const node *o = &b->nodes[order[i].value];
            c.oid = d.oid = o->oid;
            if (o->what != DELETED)
                rc = count_of(b, o, &c.refcount);
            if (rc)
                break;
            if (o->what == TOUCHED) {
                c.addr = o->base_addr;
                c.flags = DBZ_ENTRY_REFONLY;
            } else {
                const past *p = o->past ? &b->pasts[o->past - 1] : NULL;
                d.flags = o->what == DELETED ? DBZ_TOMBSTONE : p && p->delta ? DBZ_DELTA : DBZ_FULL;
                if (p) {
                    d.prev = p->prev;
                    d.skip = p->skip;
                    d.ordinal = p->ordinal;
                    d.head = p->head;
                    d.tail = p->tail;
                }
                d.body = b->bytes.bytes + o->body;
                d.body_len = o->what == DELETED ? 0 : o->body_len;
                if (o->what == PUT && (o->ref_count || d.flags == DBZ_DELTA) && !(d.flags == DBZ_DELTA && p->same_refs)) {
                    d.refs = arena_refs(b, o);
                    d.ref_count = o->ref_count;
                    d.flags |= DBZ_HAS_REFS;
                }
                if (o->what == DELETED)
                    c.flags = DBZ_ENTRY_TOMBSTONE;
            }
        }
        if (d.flags) {
            c.addr = b->data_addr + (used - data_off);
            int64_t size = dbz_record_encode(&d, c.addr, b->r->uuid, &b->scratch, &b->body, &used);
            if (size < 0)
                rc = (int)size;
        }
        if (rc)
            break;
        memcpy(b->body.bytes + sizeof(dbz_body) + made * sizeof c, &c, sizeof c);
        entries[made++] = (dbz_entry){.oid = c.oid, .state = b->state, .addr = c.addr, .refcount = c.flags & DBZ_ENTRY_TOMBSTONE ? DBZ_REF_TOMBSTONE : c.refcount};
    }
    free(order);
    uint64_t data_len = used - data_off;
    if (!rc && data_len > DBZ_ADDR_MAX - b->data_addr)
        rc = DBZ_E_NOSPACE;
    if (rc) {
        free(entries);
        return rc;
    }
    dbz_body head = {
        .data_addr = b->data_addr, .data_len = data_len, .data_sum = dbz_xxh3(b->body.bytes + data_off, data_len, 0),
        .entries = made, .flags = in_place ? 1 : 0,
    };
    memcpy(b->body.bytes, &head, sizeof head);
    b->entries = entries;
    b->entry_count = made;
    b->data_off = data_off;
    b->data_len = data_len;
    b->body_len = in_place ? data_off : used;
    b->sealed = 1;
    return 0;
}

uint64_t dbz_batch_records(const dbz_batch *b) { return b->records; }

void dbz_batch_sealed(const dbz_batch *b, dbz_sealed *out)
{
    memset(out, 0, sizeof *out);
    if (b->sealed)
        *out = (dbz_sealed){b->body.bytes, b->body.bytes + b->data_off, b->body_len, b->data_len, b->entries, b->entry_count};
}

int dbz_body_entries(const uint8_t *body, uint64_t len, uint64_t state, dbz_entry *out, uint32_t cap, dbz_body *head)
{
    dbz_body h;
    if (len < sizeof h)
        return DBZ_E_CORRUPT;
    memcpy(&h, body, sizeof h);
    if (h.entries > INT32_MAX || (uint64_t)h.entries * sizeof(dbz_change) > len - sizeof h || (h.flags & ~1u))
        return DBZ_E_CORRUPT;
    if (h.data_addr < DBZ_DATA_MIN || h.data_addr >= DBZ_ADDR_MAX || h.data_len > DBZ_ADDR_MAX - h.data_addr)
        return DBZ_E_CORRUPT;
    uint64_t rest = len - sizeof h - (uint64_t)h.entries * sizeof(dbz_change);
    if (h.flags & 1 ? rest != 0 : rest != h.data_len || dbz_xxh3(body + (len - rest), rest, 0) != h.data_sum)
        return DBZ_E_CORRUPT;
    uint64_t before = 0;
    for (uint32_t i = 0; i < h.entries; i++) {
        dbz_change c;
        memcpy(&c, body + sizeof h + i * sizeof c, sizeof c);
        int refonly = c.flags == DBZ_ENTRY_REFONLY;
        if (c.oid <= before || (c.flags && !refonly && c.flags != DBZ_ENTRY_TOMBSTONE) || c.refcount == DBZ_REF_TOMBSTONE)
            return DBZ_E_CORRUPT;
        if (refonly ? c.addr < DBZ_DATA_MIN || c.addr >= h.data_addr : c.addr < h.data_addr || c.addr - h.data_addr >= h.data_len)
            return DBZ_E_CORRUPT;
        before = c.oid;
        if (out && i < cap)
            out[i] = (dbz_entry){.oid = c.oid, .state = state, .addr = c.addr, .refcount = c.flags == DBZ_ENTRY_TOMBSTONE ? DBZ_REF_TOMBSTONE : c.refcount};
    }
    if (out && h.entries > cap)
        return DBZ_E_NOSPACE;
    if (head)
        *head = h;
    return (int)h.entries;
}
