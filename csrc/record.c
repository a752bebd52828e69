/* Records: encoding, verification, DELTA chains, the arithmetic of skip pointers. */
#include "reader_impl.h"

#define FIRST_BYTES 192u      /* copied before the length is known; most records end within it */
#define SHORTEST 8u           /* bytes of the shortest record */
#define LENGTH_END 9u         /* where the length field ends at the latest, given DBZ_RECORD_MAX */
#define HEAD_ROOM 96u         /* checksum, length and fixed fields never take more */

uint64_t dbz_skip_ordinal(uint64_t ordinal)
{
    /* Myers' rule gives version n the jump n - w, w the lowest weight (2^k - 1) in n's skew-binary form. */
    uint64_t rest = ordinal, weight = 1;
    while (rest) {
        weight = UINT64_MAX >> __builtin_clzll(rest);
        if (weight > rest)
            weight >>= 1;
        rest -= weight;
    }
    return ordinal ? ordinal - weight : 0;
}

uint64_t dbz_record_size(const uint8_t *bytes, uint64_t have)
{
    if (have < 5)
        return 0;
    const uint8_t *p = bytes + 4, *end = bytes + have;
    uint64_t length;
    if (dbz_varint_get(&p, end, &length) || length < 3 || length > DBZ_RECORD_MAX)
        return 0;
    return (uint64_t)(p - bytes) + length;
}

int dbz_record_parse(const uint8_t *bytes, uint64_t len, uint64_t addr, uint64_t uuid, dbz_raw *out, int *what)
{
    *what = 2;
    if (!len || dbz_record_size(bytes, len) != len)
        return DBZ_E_CORRUPT;
    if ((uint32_t)dbz_xxh3(bytes + 4, len - 4, uuid ^ addr) != dbz_load32(bytes)) {
        *what = 1;
        return DBZ_E_CORRUPT;
    }
    const uint8_t *p = bytes + 4, *end = bytes + len;
    uint64_t length, distance;
    if (dbz_varint_get(&p, end, &length) || p >= end)
        return DBZ_E_CORRUPT;
    dbz_raw raw = {.addr = addr};
    raw.flags = *p++;
    uint32_t form = raw.flags & (DBZ_FULL | DBZ_DELTA | DBZ_TOMBSTONE);
    if ((raw.flags & 0xc0) || (form & (form - 1)) || !form)
        return DBZ_E_CORRUPT;
    if ((raw.flags & (DBZ_DELTA | DBZ_HAS_SKIP)) && !(raw.flags & DBZ_HAS_PREV))
        return DBZ_E_CORRUPT;
    if (dbz_varint_get(&p, end, &raw.oid) || dbz_varint_get(&p, end, &raw.state) || raw.oid == 0)
        return DBZ_E_CORRUPT;
    if (raw.flags & DBZ_HAS_PREV) {
        if (dbz_varint_get(&p, end, &distance) || dbz_varint_get(&p, end, &raw.ordinal))
            return DBZ_E_CORRUPT;
        if (distance == 0 || distance > addr || addr - distance < DBZ_DATA_MIN || raw.ordinal == 0)
            return DBZ_E_CORRUPT;
        raw.prev = addr - distance;
    }
    if (raw.flags & DBZ_HAS_SKIP) {
        if (dbz_varint_get(&p, end, &distance) || distance == 0 || distance > addr || addr - distance < DBZ_DATA_MIN)
            return DBZ_E_CORRUPT;
        raw.skip = addr - distance;
    }
    if (raw.flags & DBZ_HAS_REFS) {
        if (dbz_varint_get(&p, end, &raw.ref_count) || raw.ref_count > (uint64_t)(end - p))
            return DBZ_E_CORRUPT;
        raw.refs = p;
        uint64_t ignored;
        for (uint64_t i = 0; i < raw.ref_count; i++)
            if (dbz_varint_get(&p, end, &ignored))
                return DBZ_E_CORRUPT;
        raw.refs_end = p;
    }
    if (raw.flags & DBZ_DELTA) {
        if (dbz_varint_get(&p, end, &raw.head) || dbz_varint_get(&p, end, &raw.tail) || raw.head > DBZ_RECORD_MAX || raw.tail > DBZ_RECORD_MAX)
            return DBZ_E_CORRUPT;
    }
    raw.body = p;
    raw.body_len = (uint64_t)(end - p);
    if ((raw.flags & DBZ_TOMBSTONE) && (raw.body_len || raw.ref_count))
        return DBZ_E_CORRUPT;
    *out = raw;
    return 0;
}

/* Copy the record's beginning, with its length: as much as is at hand, but demanding no byte that the shortest record would not have. The file may end right
 * behind the last record although data_end has been rounded up. */
static int first_bytes(dbz_reader *r, dbz_buf *buf, uint64_t addr, uint64_t left, uint64_t *have)
{
    if (dbz_buf_need(buf, FIRST_BYTES + 16))
        return DBZ_E_NOMEM;
    uint64_t in_page = addr % DBZ_PAGE, room = DBZ_PAGE - in_page;
    if (left < SHORTEST)
        return dbz_damage(r, 5, addr, 0, 0);
    if (room < LENGTH_END) {
        int rc = dbz_data_copy(r, addr, SHORTEST, buf->bytes);
        *have = SHORTEST;
        if (!rc && left >= LENGTH_END && !dbz_record_size(buf->bytes + (addr & 7), SHORTEST)) {
            rc = dbz_data_copy(r, addr, LENGTH_END, buf->bytes);
            *have = LENGTH_END;
        }
        return rc;
    }
    dbz_page_view v;
    uint64_t n;
    do {
        int rc = dbz_page_find(r, dbz_tag_data(r), addr / DBZ_PAGE, (uint32_t)(in_page + SHORTEST), &v);
        if (rc)
            return rc;
        n = v.valid - in_page;
        if (n > FIRST_BYTES)
            n = FIRST_BYTES;
        if (n > left)
            n = left;
        uint8_t *to = buf->bytes;
        for (uint64_t k = in_page / 8; k * 8 < in_page + n; k++, to += 8)
            dbz_store64(to, atomic_load_explicit(&v.words[k], memory_order_relaxed));
    } while (!dbz_page_still(&v));
    *have = n;
    return 0;
}

int dbz_record_load(dbz_reader *r, unsigned b, uint64_t addr, uint64_t oid, dbz_raw *out)
{
    if (addr < DBZ_DATA_MIN || addr >= r->data_end)
        return dbz_damage(r, 5, addr, oid, 0);
    dbz_buf *buf = &r->raw[b];
    uint64_t left = r->data_end - addr, have = 0;
    int rc = first_bytes(r, buf, addr, left, &have);
    if (rc)
        return rc;
    uint64_t size = dbz_record_size(buf->bytes + (addr & 7), have);
    if (!size)
        return dbz_damage(r, 2, addr, oid, 0);
    if (size > left)
        return dbz_damage(r, 5, addr, oid, 0);
    if (size > have) {
        if (dbz_buf_need(buf, size + 16))
            return DBZ_E_NOMEM;
        rc = dbz_data_copy(r, addr, size, buf->bytes);
        if (rc)
            return rc;
    }
    int what = 0;
    rc = dbz_record_parse(buf->bytes + (addr & 7), size, addr, r->uuid, out, &what);
    if (rc)
        return dbz_damage(r, what, addr, oid, 0);
    if (oid && out->oid != oid)
        return dbz_damage(r, 6, addr, oid, out->state);
    return 0;
}

static int decode_refs(dbz_reader *r, const dbz_raw *raw)
{
    if (dbz_buf_need(&r->refs, raw->ref_count * 8 + 8))
        return DBZ_E_NOMEM;
    uint64_t *refs = (uint64_t *)(void *)r->refs.bytes, before = raw->oid, z;
    const uint8_t *p = raw->refs;
    for (uint64_t i = 0; i < raw->ref_count; i++) {
        if (dbz_varint_get(&p, raw->refs_end, &z))
            return dbz_damage(r, 2, raw->addr, raw->oid, raw->state);
        before = dbz_unzigzag(z, before);
        if (before == 0)
            return dbz_damage(r, 2, raw->addr, raw->oid, raw->state);
        refs[i] = before;
    }
    return 0;
}

int dbz_record_resolve(dbz_reader *r, const dbz_raw *raw, dbz_record *out)
{
    dbz_raw chain[DBZ_DELTA_MAX + 1];
    unsigned n = 0;
    chain[0] = *raw;
    uint64_t middles = 0;
    while (chain[n].flags & DBZ_DELTA) {
        if (n == DBZ_DELTA_MAX)
            return dbz_damage(r, 2, raw->addr, raw->oid, raw->state);
        middles += chain[n].body_len;
        /* Buffers 0..2 are the walker's (raw stands in one of them). */
        int rc = dbz_record_load(r, 3 + n, chain[n].prev, raw->oid, &chain[n + 1]);
        if (rc)
            return rc;
        const dbz_raw *newer = &chain[n], *older = &chain[n + 1];
        if (older->ordinal + 1 != newer->ordinal || older->state >= newer->state || (older->flags & DBZ_TOMBSTONE))
            return dbz_damage(r, 2, newer->addr, raw->oid, newer->state);
        n++;
    }
    const uint8_t *payload = chain[n].body;
    uint64_t len = chain[n].body_len;
    for (unsigned i = n; i-- > 0;) {
        const dbz_raw *d = &chain[i];
        uint64_t next = d->head + d->tail + d->body_len;
        if (d->head + d->tail > len || next > DBZ_RECORD_MAX)
            return dbz_damage(r, 2, d->addr, raw->oid, d->state);
        dbz_buf *to = &r->whole[i & 1];
        if (dbz_buf_need(to, next + 1))
            return DBZ_E_NOMEM;
        memcpy(to->bytes, payload, d->head);
        memcpy(to->bytes + d->head, d->body, d->body_len);
        memcpy(to->bytes + d->head + d->body_len, payload + len - d->tail, d->tail);
        payload = to->bytes;
        len = next;
    }
    unsigned k = 0;       /* a DELTA without REFS holds what the version before it held */
    while (k < n && !(chain[k].flags & DBZ_HAS_REFS))
        k++;
    if (chain[k].ref_count) {
        int rc = decode_refs(r, &chain[k]);
        if (rc)
            return rc;
    }
    r->resolved_deltas = n;
    r->resolved_middle = middles;
    *out = (dbz_record){
        .oid = raw->oid, .state = raw->state, .addr = raw->addr, .ordinal = raw->ordinal, .prev = raw->prev, .skip = raw->skip, .flags = raw->flags,
        .payload = payload, .payload_len = len, .refs = (const uint64_t *)(const void *)r->refs.bytes, .ref_count = chain[k].ref_count,
    };
    return 0;
}

int64_t dbz_record_encode(const dbz_draft *d, uint64_t addr, uint64_t uuid, dbz_buf *scratch, dbz_buf *out, uint64_t *used)
{
    uint32_t flags = d->flags | (d->prev ? DBZ_HAS_PREV : 0u) | (d->skip ? DBZ_HAS_SKIP : 0u);
    if (dbz_buf_need(scratch, HEAD_ROOM + d->ref_count * 10))
        return DBZ_E_NOMEM;
    uint8_t *p = scratch->bytes;
    *p++ = (uint8_t)flags;
    p = dbz_varint_put(p, d->oid);
    p = dbz_varint_put(p, d->state);
    if (d->prev) {
        p = dbz_varint_put(p, addr - d->prev);
        p = dbz_varint_put(p, d->ordinal);
    }
    if (d->skip)
        p = dbz_varint_put(p, addr - d->skip);
    if (flags & DBZ_HAS_REFS) {
        p = dbz_varint_put(p, d->ref_count);
        uint64_t before = d->oid;
        for (uint64_t i = 0; i < d->ref_count; i++) {
            p = dbz_varint_put(p, dbz_zigzag(d->refs[i], before));
            before = d->refs[i];
        }
    }
    if (flags & DBZ_DELTA) {
        p = dbz_varint_put(p, d->head);
        p = dbz_varint_put(p, d->tail);
    }
    uint64_t head = (uint64_t)(p - scratch->bytes), length = head + d->body_len;
    if (length > DBZ_RECORD_MAX)
        return DBZ_E_ARG;
    if (dbz_buf_need(out, *used + 4 + 10 + length))
        return DBZ_E_NOMEM;
    uint8_t *start = out->bytes + *used, *q = dbz_varint_put(start + 4, length);
    memcpy(q, scratch->bytes, head);
    if (d->body_len)
        memcpy(q + head, d->body, d->body_len);
    uint64_t size = (uint64_t)(q - start) + length;
    dbz_store32(start, (uint32_t)dbz_xxh3(start + 4, size - 4, uuid ^ addr));
    *used += size;
    return (int64_t)size;
}
