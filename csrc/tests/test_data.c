/* Tests of the data engine: cache, records, table, lookup, batch, merge. Usage: test_data [seed [rounds]]
 *
 * A small store is played on a memfd segment and a memfd page file: commits as docs/design.md has them (data, delta, data_end, publish), checkpoints with
 * pages reused from the second checkpoint after they were freed. A plain model keeps every version of every object and every count. */
#include "harness.h"
#include "../reader_impl.h"

#define OK(call)                                                                         \
    do {                                                                                 \
        int rc_ = (call);                                                                \
        if (rc_ < 0) {                                                                   \
            fprintf(stderr, "%s:%d: %s returned %d\n", __FILE__, __LINE__, #call, rc_);  \
            abort();                                                                     \
        }                                                                                \
    } while (0)

/* --- a store --------------------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    test_root in;
    int fd;
    dbz_seg *seg;
    dbz_reader *reader;
    uint32_t prefix;
    uint64_t state, data_end, next_page_free;
    uint32_t checkpoint;
    uint64_t root;
    uint32_t depth;
    uint64_t *freed, *freed_at;      /* pages and the checkpoint that freed them */
    uint32_t freed_count, freed_cap;
} store;

static const uint8_t HASH[16] = "data engine test";

static void store_open(store *s, uint64_t cache, uint64_t arena)
{
    *s = (store){.state = 1, .data_end = DBZ_DATA_MIN};
    s->in = test_root_new(cache, arena);
    s->fd = memfd_create("pages", MFD_CLOEXEC);
    CHECK(s->fd >= 0);
    s->seg = test_join(&s->in);
    int prefix = dbz_prefix_find(s->seg, HASH, "test");
    OK(prefix);
    s->prefix = (uint32_t)prefix;
    dbz_prefix_reset(s->seg, s->prefix, 77, UINT64_C(0xfeedfacecafebeef));
    OK(dbz_prefix_start(s->seg, s->prefix, 1, s->state, s->data_end, DBZ_OID_FIRST, 0));
    OK(dbz_lease_take(s->seg, s->prefix, 1, 1));
    OK(dbz_reader_new(s->seg, s->prefix, s->fd, &s->reader));
}

static void store_close(store *s)
{
    dbz_reader_free(s->reader);
    dbz_seg_unmap(s->seg);
    test_root_free(&s->in);
    close(s->fd);
    free(s->freed);
    free(s->freed_at);
}

static void write_all(int fd, const uint8_t *bytes, uint64_t len, uint64_t at)
{
    while (len) {
        ssize_t n = pwrite(fd, bytes, len, (off_t)at);
        CHECK(n > 0);
        bytes += n;
        at += (uint64_t)n;
        len -= (uint64_t)n;
    }
}

static dbz_batch *begin(store *s)
{
    dbz_batch *b;
    OK(dbz_batch_new(s->reader, s->state, s->state + 1, s->data_end, &b));
    return b;
}

static void commit(store *s, dbz_batch *b)
{
    int in_place = s->state % 3 == 0;
    int sealed = dbz_batch_seal(b, s->state * 1000, in_place);
    if (sealed == DBZ_E_CORRUPT)
        fprintf(stderr, "fault %d, OID %lu, state %lu\n", dbz_reader_fault(s->reader)->what, (unsigned long)dbz_reader_fault(s->reader)->oid,
                (unsigned long)s->state);
    OK(sealed);
    dbz_sealed made;
    dbz_batch_sealed(b, &made);
    const uint8_t *data = made.data, *body = made.body;
    const dbz_entry *entries = made.entries;
    uint64_t len = made.data_len, body_len = made.body_len;
    uint32_t n = made.entry_count;
    dbz_body head;
    CHECK(dbz_body_entries(body, body_len, s->state + 1, NULL, 0, &head) == (int)n);
    dbz_entry *again = malloc((n + 1) * sizeof *again);
    CHECK(dbz_body_entries(body, body_len, s->state + 1, again, n, NULL) == (int)n);
    CHECK(!memcmp(again, entries, n * sizeof *again));
    CHECK(n == 0 || dbz_body_entries(body, body_len, s->state + 1, again, n - 1, NULL) == DBZ_E_NOSPACE);
    free(again);
    CHECK(head.data_addr == s->data_end && head.data_len == len && head.flags == (in_place ? 1u : 0u));
    /* What an aborted commit left behind data_end must never be taken for valid, though it stands on a page that is read now. */
    dbz_record last;
    write_all(s->fd, (const uint8_t *)"left by an aborted commit: garbage", 34, s->data_end);
    (void)dbz_get(s->reader, DBZ_OID_LOG, s->state, &last);
    write_all(s->fd, data, len, s->data_end);
    OK(dbz_delta_reserve(s->seg, s->prefix, n));
    OK(dbz_delta_apply(s->seg, s->prefix, entries, n));
    s->data_end += len;
    dbz_advance(s->seg, s->prefix, s->data_end, 1 << 20);
    OK(dbz_publish(s->seg, s->prefix, 1, s->state, s->state + 1));
    s->state++;
    dbz_durable(s->seg, s->prefix, s->state);
    dbz_batch_free(b);
}

static void checkpoint(store *s)
{
    uint32_t n = dbz_delta_count(s->seg, s->prefix, 0), need = 0, k;
    uint64_t state = s->state;
    OK(dbz_delta_rotate(s->seg, s->prefix, state, n));
    dbz_entry *entries = malloc((n + 1) * sizeof *entries);
    CHECK(dbz_delta_copy(s->seg, s->prefix, 1, entries, n) == (int)n);
    s->checkpoint++;
    dbz_merge *m;
    int rc = dbz_merge_new(s->reader, s->root, s->depth, s->checkpoint, entries, n, NULL, &need, &m);
    uint64_t *pages = malloc((need + 1) * sizeof *pages);
    if (rc == DBZ_E_NOSPACE) {
        uint32_t have = 0, keep = 0;
        for (uint32_t i = 0; i < s->freed_count; i++) {
            if (have < need && s->freed_at[i] + 2 <= s->checkpoint) {
                pages[have++] = s->freed[i];
            } else {
                s->freed[keep] = s->freed[i];
                s->freed_at[keep++] = s->freed_at[i];
            }
        }
        s->freed_count = keep;
        uint64_t at = (s->data_end + DBZ_PAGE - 1) / DBZ_PAGE * DBZ_PAGE;
        for (; have < need; have++, at += DBZ_PAGE)
            pages[have] = at;
        s->data_end = at;
        uint32_t given = need;
        rc = dbz_merge_new(s->reader, s->root, s->depth, s->checkpoint, entries, n, pages, &given, &m);
        CHECK(given == need);
    }
    OK(rc);
    free(entries);
    for (uint32_t i = 0; i < need; i++) {
        uint64_t address;
        const uint8_t *page = dbz_merge_page(m, i, &address);
        CHECK(page && address == pages[i]);
        write_all(s->fd, page, DBZ_PAGE, address);
    }
    free(pages);
    dbz_advance(s->seg, s->prefix, s->data_end, 1 << 20);
    dbz_merge_root(m, &s->root, &s->depth);
    const uint64_t *freed = dbz_merge_freed(m, &k);
    for (uint32_t i = 0; i < k; i++) {
        if (s->freed_count == s->freed_cap) {
            s->freed_cap = s->freed_cap ? s->freed_cap * 2 : 64;
            s->freed = realloc(s->freed, s->freed_cap * 8);
            s->freed_at = realloc(s->freed_at, s->freed_cap * 8);
            CHECK(s->freed && s->freed_at);
        }
        s->freed[s->freed_count] = freed[i];
        s->freed_at[s->freed_count++] = s->checkpoint;
    }
    dbz_merge_free(m);
    dbz_root_install(s->seg, s->prefix, s->root, s->depth, state);
    dbz_delta_retire(s->seg, s->prefix);
}

/* --- the model ------------------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t state;
    uint8_t *payload;       /* NULL: deleted */
    uint64_t len;
    uint64_t *refs;
    uint64_t nrefs;
} version;

typedef struct {
    version *v;
    uint32_t n;
    int64_t count;
    int live, stored;       /* stored: live before this commit */
    int put, lost, reported;
} object;

#define OBJECTS 900u
typedef struct {
    store s;
    object o[OBJECTS];
    uint64_t seed;
} world;

/* Dense, scattered and far OIDs, so that trees of several depths and holes appear. */
static uint64_t oid_of(uint32_t i)
{
    if (i < 600)
        return DBZ_OID_FIRST + i;
    if (i < 800)
        return 1000000 + (uint64_t)(i - 600) * 977;
    return UINT64_C(20000000000) + (uint64_t)(i - 800) * UINT64_C(1000003);
}

static version *add_version(object *o, uint64_t state)
{
    if (o->n && o->v[o->n - 1].state == state) {
        free(o->v[o->n - 1].payload);
        free(o->v[o->n - 1].refs);
    } else {
        o->v = realloc(o->v, (o->n + 1) * sizeof *o->v);
        CHECK(o->v);
        o->n++;
    }
    o->v[o->n - 1] = (version){.state = state};
    return &o->v[o->n - 1];
}

static uint32_t index_of(uint64_t oid)
{
    for (uint32_t i = 0; i < OBJECTS; i++)
        if (oid_of(i) == oid)
            return i;
    abort();
}

static void drop_refs(world *w, const version *v)
{
    for (uint64_t i = 0; v && v->payload && i < v->nrefs; i++) {
        object *t = &w->o[index_of(v->refs[i])];
        if (t->live) {
            t->count--;
            t->lost = 1;
        }
    }
}

static void random_put(world *w, dbz_batch *b, uint32_t i, uint64_t state)
{
    object *o = &w->o[i];
    const version *old = o->n && o->live ? &o->v[o->n - 1] : NULL;
    uint64_t r = test_random(&w->seed), len;
    uint8_t *payload;
    if (old && r % 4) {        /* a small change, as a node sees it */
        uint64_t at = old->len ? (r >> 8) % old->len : 0, cut = (r >> 24) % 5, grow = (r >> 28) % 9;
        if (cut > old->len - at)
            cut = old->len - at;
        len = old->len - cut + grow;
        payload = malloc(len + 1);
        memcpy(payload, old->payload, at);
        for (uint64_t k = 0; k < grow; k++)
            payload[at + k] = (uint8_t)test_random(&w->seed);
        memcpy(payload + at + grow, old->payload + at + cut, old->len - at - cut);
    } else {
        len = (r >> 8) % (r >> 40 & 15 ? 300 : 9000);
        payload = malloc(len + 1);
        for (uint64_t k = 0; k < len; k++)
            payload[k] = (uint8_t)(k % 7 ? k : test_random(&w->seed));
    }
    uint64_t nrefs = test_random(&w->seed) % 6, refs[6];
    if (old && r >> 60 < 8) {      /* often the same references */
        nrefs = old->nrefs < 6 ? old->nrefs : 6;
        memcpy(refs, old->refs, nrefs * 8);
    } else {
        for (uint64_t k = 0; k < nrefs; k++) {
            uint32_t t = (uint32_t)(test_random(&w->seed) % OBJECTS);
            for (uint32_t tries = 0; !w->o[t].live && t != i && tries < 50; tries++)
                t = (t + 1) % OBJECTS;
            refs[k] = oid_of(w->o[t].live ? t : i);
        }
    }
    uint64_t keep = 0;       /* never a reference to what is gone */
    for (uint64_t k = 0; k < nrefs; k++)
        if (refs[k] == oid_of(i) || w->o[index_of(refs[k])].live)
            refs[keep++] = refs[k];
    nrefs = keep;
    if (o->live && o->n && o->v[o->n - 1].payload && o->v[o->n - 1].nrefs == nrefs && !memcmp(o->v[o->n - 1].refs, refs, nrefs * 8) &&
        o->v[o->n - 1].state != state) {
        /* unchanged references are not counted anew: nobody lost one */
    } else {
        if (o->live)
            drop_refs(w, &o->v[o->n - 1]);
        if (!o->live) {
            o->live = 1;
            o->count = 0;
        }
        for (uint64_t k = 0; k < nrefs; k++)
            w->o[index_of(refs[k])].count++;
    }
    OK(dbz_batch_put(b, oid_of(i), payload, len, refs, nrefs));
    version *v = add_version(o, state);
    v->payload = payload;
    v->len = len;
    v->refs = malloc((nrefs + 1) * 8);
    memcpy(v->refs, refs, nrefs * 8);
    v->nrefs = nrefs;
    o->put = 1;
}

static void model_delete(world *w, dbz_batch *b, uint32_t i, uint64_t state)
{
    object *o = &w->o[i];
    CHECK(o->live);
    drop_refs(w, &o->v[o->n - 1]);
    o->live = 0;
    OK(dbz_batch_delete(b, oid_of(i)));
    CHECK(dbz_batch_delete(b, oid_of(i)) == DBZ_E_NOTFOUND);
    if (o->stored) {
        add_version(o, state);
    } else {
        o->n--;
        free(o->v[o->n].payload);
        free(o->v[o->n].refs);
    }
}

static int by_oid(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void random_commit(world *w)
{
    dbz_batch *b = begin(&w->s);
    uint64_t state = w->s.state + 1, ops = test_random(&w->seed) % 40;
    for (uint32_t i = 0; i < OBJECTS; i++) {
        w->o[i].stored = w->o[i].live;
        w->o[i].put = w->o[i].lost = w->o[i].reported = 0;
    }
    uint32_t hot = (uint32_t)(test_random(&w->seed) % 8);
    for (uint64_t k = 0; k < ops; k++) {
        uint32_t i = test_random(&w->seed) % 3 ? (uint32_t)(test_random(&w->seed) % OBJECTS) : hot;
        object *o = &w->o[i];
        int gone = !o->live && (o->n || o->put);     /* OIDs are not used again */
        if (gone)
            continue;
        if (o->live && i >= 8 && test_random(&w->seed) % 8 == 0)
            model_delete(w, b, i, state);
        else
            random_put(w, b, i, state);
    }
    for (;;) {
        uint64_t want[OBJECTS], got[OBJECTS], n = 0;
        for (uint32_t i = 0; i < OBJECTS; i++) {
            object *o = &w->o[i];
            if (o->live && o->count == 0 && (o->put || o->lost) && !o->reported) {
                want[n++] = oid_of(i);
                o->reported = 1;
            }
        }
        uint64_t have = 0;
        for (int got_now = 1; got_now;) {
            got_now = dbz_batch_zero(b, got + have, 7);
            OK(got_now);
            have += (uint64_t)got_now;
        }
        CHECK(have == n);
        qsort(got, n, 8, by_oid);
        CHECK(!memcmp(got, want, n * 8));
        int more = 0;
        for (uint64_t k = 0; k < n; k++)
            if (test_random(&w->seed) % 4 && index_of(got[k]) >= 8) {
                model_delete(w, b, index_of(got[k]), state);
                more = 1;
            }
        if (n && test_random(&w->seed) % 2) {      /* what was reported and kept is not reported again, even when it is put once more */
            uint32_t i = index_of(got[test_random(&w->seed) % n]);
            if (w->o[i].live) {
                random_put(w, b, i, state);
                more = 1;
            }
        }
        if (!more)
            break;
    }
    for (uint32_t i = 0; i < OBJECTS; i += 13) {
        uint64_t count;
        int rc = dbz_batch_refcount(b, oid_of(i), &count);
        CHECK(w->o[i].live ? rc == 0 && (int64_t)count == w->o[i].count : rc == DBZ_E_NOTFOUND);
    }
    commit(&w->s, b);
    uint64_t changes[OBJECTS], n = OBJECTS, time, k = 0;
    OK(dbz_get_changes(w->s.reader, state, changes, &n, &time));
    CHECK(time == (state - 1) * 1000);
    for (uint32_t i = 0; i < OBJECTS; i++)
        if (w->o[i].n && w->o[i].v[w->o[i].n - 1].state == state)
            CHECK(k < n && changes[k++] == oid_of(i));
    CHECK(k == n);
}

/* The version the model has for `state`, or NULL. */
static const version *model_at(const object *o, uint64_t state)
{
    const version *v = NULL;
    for (uint32_t k = 0; k < o->n && o->v[k].state <= state; k++)
        v = &o->v[k];
    return v;
}

static int same(const dbz_record *rec, const version *v)
{
    if (rec->state != v->state)
        return 0;
    if (!v->payload)
        return (rec->flags & DBZ_TOMBSTONE) && !rec->payload_len && !rec->ref_count;
    return !(rec->flags & DBZ_TOMBSTONE) && rec->payload_len == v->len && !memcmp(rec->payload, v->payload, v->len) && rec->ref_count == v->nrefs &&
           (!v->nrefs || !memcmp(rec->refs, v->refs, v->nrefs * 8));
}

static void check_object(world *w, uint32_t i, uint64_t state)
{
    const object *o = &w->o[i];
    const version *v = model_at(o, state);
    dbz_record rec;
    dbz_entry e;
    int rc = dbz_get(w->s.reader, oid_of(i), state, &rec);
    if (!v) {
        CHECK(rc == DBZ_E_NOTFOUND);
        CHECK(dbz_get_entry(w->s.reader, oid_of(i), state, &e) == DBZ_E_NOTFOUND);
        return;
    }
    OK(rc);
    CHECK(rec.oid == oid_of(i) && same(&rec, v) && rec.ordinal == (uint64_t)(v - o->v));
    uint64_t addr = rec.addr;
    if (state >= w->s.state)
        CHECK((int64_t)rec.refcount == (o->live ? o->count : 0));
    OK(dbz_get_entry(w->s.reader, oid_of(i), state, &e));
    CHECK(e.oid == oid_of(i) && e.addr == addr && e.state <= state);
    CHECK((e.refcount == DBZ_REF_TOMBSTONE) == !v->payload);
    OK(dbz_get_at(w->s.reader, addr, &rec));
    CHECK(same(&rec, v));
}

static void check_scan(world *w)
{
    for (int zero = 0; zero < 2; zero++) {
        uint64_t from = 0, next = 0;
        uint32_t i = 0;
        dbz_entry got[37];
        do {
            int n = dbz_table_scan(w->s.reader, w->s.root, w->s.depth, from, zero, got, 37, &next);
            OK(n);
            for (int k = 0; k < n; k++) {
                if (got[k].oid == DBZ_OID_LOG)
                    continue;
                while (i < OBJECTS && (zero ? !w->o[i].live || w->o[i].count : !w->o[i].n))
                    i++;
                CHECK(i < OBJECTS && got[k].oid == oid_of(i));
                CHECK(got[k].refcount == (w->o[i].live ? (uint32_t)w->o[i].count : DBZ_REF_TOMBSTONE));
                i++;
            }
            from = next;
        } while (next);
        while (i < OBJECTS && (zero ? !w->o[i].live || w->o[i].count : !w->o[i].n))
            i++;
        CHECK(i == OBJECTS);
    }
}

static void world_free(world *w)
{
    for (uint32_t i = 0; i < OBJECTS; i++) {
        for (uint32_t k = 0; k < w->o[i].n; k++) {
            free(w->o[i].v[k].payload);
            free(w->o[i].v[k].refs);
        }
        free(w->o[i].v);
    }
    store_close(&w->s);
    free(w);
}

static world *build(uint64_t seed, uint32_t commits, uint64_t cache)
{
    world *w = calloc(1, sizeof *w);
    w->seed = seed;
    store_open(&w->s, cache, 8 << 20);
    for (uint32_t c = 0; c < commits; c++) {
        random_commit(w);
        for (int k = 0; k < 30; k++)
            check_object(w, (uint32_t)(test_random(&w->seed) % OBJECTS), 1 + test_random(&w->seed) % w->s.state);
        if (test_random(&w->seed) % 9 == 0) {
            checkpoint(&w->s);
            check_scan(w);
        }
    }
    return w;
}

static void test_model(uint64_t seed, uint32_t commits)
{
    world *w = build(seed, commits, seed % 2 ? 64 << 10 : 4 << 20);
    for (int after = 0; after < 2; after++) {
        for (uint64_t state = 1; state <= w->s.state; state++)
            for (uint32_t i = (uint32_t)(state % 5); i < OBJECTS; i += 5)
                check_object(w, i, state);
        checkpoint(&w->s);
        check_scan(w);
    }
    world_free(w);
}

/* --- records and bodies by themselves ---------------------------------------------------------------------------------------------------------- */

static void test_skip_ordinals(void)
{
    uint64_t jump[2000] = {0};
    for (uint64_t n = 1; n < 2000; n++) {      /* Myers' rule, straight from the paper */
        uint64_t p = n - 1;
        jump[n] = p && p - jump[p] == jump[p] - jump[jump[p]] ? jump[jump[p]] : p;
        CHECK(dbz_skip_ordinal(n) == jump[n]);
    }
    CHECK(dbz_skip_ordinal(UINT64_MAX) == 0 && dbz_skip_ordinal(0) == 0);
}

static void test_record_bytes(uint64_t seed)
{
    dbz_buf scratch = {0}, out = {0};
    uint64_t refs[40], used, uuid = 99;
    uint8_t payload[300];
    for (int round = 0; round < 200; round++) {
        for (unsigned k = 0; k < 40; k++)
            refs[k] = 1 + (test_random(&seed) >> (test_random(&seed) % 63));
        for (unsigned k = 0; k < 300; k++)
            payload[k] = (uint8_t)test_random(&seed);
        uint64_t addr = (test_random(&seed) >> 20) + DBZ_DATA_MIN + 1000;
        dbz_draft d = {.oid = 1 + (test_random(&seed) >> (test_random(&seed) % 63)), .state = test_random(&seed) >> 24, .flags = DBZ_FULL | DBZ_HAS_REFS,
                       .refs = refs, .ref_count = test_random(&seed) % 40, .body = payload, .body_len = test_random(&seed) % 300};
        if (round % 2) {
            d.prev = addr - 1 - test_random(&seed) % 900;
            d.ordinal = 5;
            d.skip = d.prev - 1;
        }
        if (round % 4 == 3) {
            d.flags = DBZ_DELTA | DBZ_HAS_REFS;
            d.head = 7;
            d.tail = 1000;
        }
        used = round % 11;
        uint64_t start = used;
        int64_t size = dbz_record_encode(&d, addr, uuid, &scratch, &out, &used);
        CHECK(size > 0 && used == start + (uint64_t)size);
        uint8_t *exact = malloc((uint64_t)size);      /* so that a sanitizer sees every read beyond it */
        memcpy(exact, out.bytes + start, (uint64_t)size);
        dbz_raw raw;
        int what;
        CHECK(dbz_record_parse(exact, (uint64_t)size, addr, uuid, &raw, &what) == 0);
        CHECK(raw.oid == d.oid && raw.state == d.state && raw.prev == d.prev && raw.skip == d.skip && raw.ordinal == d.ordinal);
        CHECK(raw.ref_count == d.ref_count && raw.body_len == d.body_len && !memcmp(raw.body, payload, d.body_len) && raw.head == d.head && raw.tail == d.tail);
        CHECK(dbz_record_parse(exact, (uint64_t)size, addr + 1, uuid, &raw, &what) != 0);
        CHECK(dbz_record_parse(exact, (uint64_t)size, addr, uuid + 1, &raw, &what) != 0);
        for (int64_t k = 0; k < size; k++) {
            exact[k] ^= (uint8_t)(1u << test_random(&seed) % 8);
            CHECK(dbz_record_parse(exact, (uint64_t)size, addr, uuid, &raw, &what) == DBZ_E_CORRUPT && what);
            /* With the checksum made right again the structure checks alone must keep reads inside. */
            uint32_t keep = dbz_load32(exact);
            dbz_store32(exact, (uint32_t)dbz_xxh3(exact + 4, (uint64_t)size - 4, uuid ^ addr));
            (void)dbz_record_parse(exact, (uint64_t)size, addr, uuid, &raw, &what);
            dbz_store32(exact, keep);
            exact[k] = out.bytes[start + (uint64_t)k];
        }
        for (int64_t k = 0; k < size; k++)
            CHECK(dbz_record_parse(exact, (uint64_t)k, addr, uuid, &raw, &what) == DBZ_E_CORRUPT);
        free(exact);
    }
    dbz_buf_free(&scratch);
    dbz_buf_free(&out);
}

static void test_bodies(uint64_t seed)
{
    world *w = build(seed, 20, 1 << 20);
    for (int round = 0; round < 4; round++) {
        dbz_batch *b = begin(&w->s);
        for (uint32_t i = 0; i < 6; i++)
            OK(dbz_batch_put(b, UINT64_C(50000000000) + i, (const uint8_t *)"abcdefgh", 8, NULL, 0));
        dbz_sealed made;
        dbz_batch_sealed(b, &made);
        CHECK(made.body == NULL && made.body_len == 0 && made.entry_count == 0);
        OK(dbz_batch_seal(b, 1, round & 1));
        dbz_batch_sealed(b, &made);
        uint64_t len = made.body_len;
        const uint8_t *body = made.body;
        uint8_t *copy = malloc(len);
        memcpy(copy, body, len);
        dbz_entry out[16];
        dbz_body head;
        CHECK(dbz_body_entries(copy, len, 9, out, 16, &head) == 7);
        for (uint64_t cut = 0; cut < len; cut++)
            CHECK(dbz_body_entries(copy, cut, 9, out, 16, &head) == DBZ_E_CORRUPT);
        for (uint64_t k = 0; k < len; k++) {
            copy[k] ^= (uint8_t)(1u << test_random(&seed) % 8);
            (void)dbz_body_entries(copy, len, 9, out, 16, &head);
            copy[k] = body[k];
        }
        free(copy);
        CHECK(dbz_batch_put(b, 77, NULL, 0, NULL, 0) == DBZ_E_ARG);
        dbz_batch_free(b);
    }
    /* Misuse. */
    dbz_batch *b = begin(&w->s);
    uint64_t nowhere = UINT64_C(60000000000), zero = 0;
    CHECK(dbz_batch_put(b, 0, NULL, 0, NULL, 0) == DBZ_E_ARG && dbz_batch_put(b, DBZ_OID_LOG, NULL, 0, NULL, 0) == DBZ_E_ARG);
    CHECK(dbz_batch_put(b, 20, NULL, 0, &zero, 1) == DBZ_E_ARG);
    CHECK(dbz_batch_delete(b, nowhere) == DBZ_E_NOTFOUND);
    OK(dbz_batch_put(b, nowhere + 1, NULL, 0, &nowhere, 1));
    CHECK(dbz_batch_seal(b, 1, 0) == DBZ_E_NOTFOUND && dbz_reader_fault(w->s.reader)->oid == nowhere);
    OK(dbz_batch_put(b, nowhere, NULL, 0, NULL, 0));      /* put it after all: the batch is intact */
    OK(dbz_batch_seal(b, 1, 0));
    dbz_batch_free(b);
    world_free(w);
}

/* --- a reader without a descriptor -------------------------------------------------------------------------------------------------------------- */

static int get_supplied(world *w, dbz_reader *r, uint64_t oid, uint64_t state, dbz_record *rec)
{
    for (int k = 0; k < 300; k++) {
        int rc = dbz_get(r, oid, state, rec);
        if (rc != DBZ_E_MISS)
            return rc;
        uint8_t page[DBZ_PAGE];
        ssize_t n = pread(w->s.fd, page, DBZ_PAGE, (off_t)dbz_reader_missing(r));
        CHECK(n > 0);
        OK(dbz_page_supply(r, dbz_reader_missing(r), page, (uint32_t)n));
    }
    fprintf(stderr, "supplied pages are not found\n");
    abort();
}

static void test_supply(uint64_t seed, int cached)
{
    world *w = build(seed, 60, 64 << 10);
    checkpoint(&w->s);
    dbz_reader *r;
    OK(dbz_reader_new(w->s.seg, w->s.prefix, -1, &r));
    if (!cached)
        r->sets = 0;         /* as if /dev/shm were full */
    for (uint32_t i = 0; i < OBJECTS; i++) {
        uint64_t state = 1 + test_random(&w->seed) % w->s.state;
        const version *v = model_at(&w->o[i], state);
        dbz_record rec;
        int rc = get_supplied(w, r, oid_of(i), state, &rec);
        CHECK(v ? rc == 0 && same(&rec, v) : rc == DBZ_E_NOTFOUND);
    }
    dbz_reader_free(r);
    world_free(w);
}

/* --- damage -------------------------------------------------------------------------------------------------------------------------------------- */

static void test_flips(uint64_t seed, int rounds)
{
    world *w = build(seed, 60, 1 << 20);
    checkpoint(&w->s);
    dbz_reader_free(w->s.reader);
    dbz_prefix *slot = dbz_seg_prefix(w->s.seg, w->s.prefix);
    uint64_t detected = 0;
    for (int k = 0; k < rounds; k++) {
        uint64_t at = DBZ_DATA_MIN + test_random(&seed) % (w->s.data_end - DBZ_DATA_MIN);
        uint8_t old, bad;
        if (pread(w->s.fd, &old, 1, (off_t)at) != 1)      /* data_end was rounded up, the file ends before it */
            continue;
        bad = old ^ (uint8_t)(1u << test_random(&seed) % 8);
        write_all(w->s.fd, &bad, 1, at);
        atomic_fetch_add(&slot->cache_key, 1);       /* nothing cached is valid any more */
        OK(dbz_reader_new(w->s.seg, w->s.prefix, w->s.fd, &w->s.reader));
        int found = 0;
        for (uint32_t i = (uint32_t)(k % 3); i < OBJECTS; i += 3) {
            uint64_t state = w->s.state - (k % 2 ? test_random(&seed) % w->s.state : 0);
            const version *v = model_at(&w->o[i], state);
            dbz_record rec;
            int rc = dbz_get(w->s.reader, oid_of(i), state, &rec);
            if (rc == DBZ_E_CORRUPT) {
                const dbz_fault *f = dbz_reader_fault(w->s.reader);
                CHECK(f->what >= 1 && f->what <= 6 && f->oid == oid_of(i) && f->state == state);
                found = 1;
            } else if (v) {
                CHECK(rc == 0 && same(&rec, v));
            } else {
                CHECK(rc == DBZ_E_NOTFOUND);
            }
        }
        detected += (uint64_t)found;
        dbz_entry got[64];
        uint64_t next = 0;
        int n = dbz_table_scan(w->s.reader, w->s.root, w->s.depth, 0, k & 1, got, 64, &next);
        CHECK(n >= 0 || n == DBZ_E_CORRUPT);
        dbz_reader_free(w->s.reader);
        write_all(w->s.fd, &old, 1, at);
    }
    /* A truncated file. */
    atomic_fetch_add(&slot->cache_key, 1);
    CHECK(ftruncate(w->s.fd, (off_t)(w->s.data_end / 2)) == 0);
    OK(dbz_reader_new(w->s.seg, w->s.prefix, w->s.fd, &w->s.reader));
    for (uint32_t i = 0; i < OBJECTS; i++) {
        dbz_record rec;
        const version *v = model_at(&w->o[i], w->s.state);
        int rc = dbz_get(w->s.reader, oid_of(i), w->s.state, &rec);
        CHECK(rc == DBZ_E_CORRUPT || (v ? rc == 0 && same(&rec, v) : rc == DBZ_E_NOTFOUND));
        CHECK(dbz_get_at(w->s.reader, test_random(&seed) >> test_random(&seed) % 60, &rec) != 0 || rec.oid);
    }
    printf("flips: %d, seen by a third of the objects: %lu\n", rounds, (unsigned long)detected);
    CHECK(detected > (uint64_t)rounds / 50);
    world_free(w);
}

/* Wrong checksums made right: the structure checks alone have to keep a lookup inside its memory and finite. */
static void test_forged(uint64_t seed, int rounds)
{
    world *w = build(seed, 60, 1 << 20);
    checkpoint(&w->s);
    dbz_reader_free(w->s.reader);
    dbz_prefix *slot = dbz_seg_prefix(w->s.seg, w->s.prefix);
    uint64_t uuid = atomic_load(&slot->prefix_uuid);
    for (int k = 0; k < rounds; k++) {
        uint32_t i = (uint32_t)(test_random(&seed) % OBJECTS);
        dbz_record rec;
        uint8_t old[DBZ_PAGE * 4], bad[DBZ_PAGE * 4];
        uint64_t at, len;
        atomic_fetch_add(&slot->cache_key, 1);
        OK(dbz_reader_new(w->s.seg, w->s.prefix, w->s.fd, &w->s.reader));
        if (k & 1) {
            at = (w->s.root & DBZ_PTR_PAGE) * DBZ_PAGE;
            len = DBZ_PAGE;
            CHECK(pread(w->s.fd, old, len, (off_t)at) == (ssize_t)len);
            memcpy(bad, old, len);
            bad[8 + test_random(&seed) % 600] ^= (uint8_t)(1u << test_random(&seed) % 8);
            dbz_store64(bad, dbz_xxh3(bad + 8, DBZ_PAGE - 8, uuid ^ at));
        } else {
            if (dbz_get(w->s.reader, oid_of(i), w->s.state, &rec)) {
                dbz_reader_free(w->s.reader);
                continue;
            }
            at = rec.addr;
            ssize_t have = pread(w->s.fd, old, 20, (off_t)at);
            CHECK(have >= 8);
            len = dbz_record_size(old, (uint64_t)have);
            if (!len || len > sizeof old) {
                dbz_reader_free(w->s.reader);
                continue;
            }
            CHECK(pread(w->s.fd, old, len, (off_t)at) == (ssize_t)len);
            memcpy(bad, old, len);
            uint64_t most = len < 40 ? len : 40;
            bad[4 + test_random(&seed) % (most - 4)] ^= (uint8_t)(1u << test_random(&seed) % 8);
            dbz_store32(bad, (uint32_t)dbz_xxh3(bad + 4, len - 4, uuid ^ at));
        }
        dbz_reader_free(w->s.reader);
        write_all(w->s.fd, bad, len, at);
        atomic_fetch_add(&slot->cache_key, 1);
        OK(dbz_reader_new(w->s.seg, w->s.prefix, w->s.fd, &w->s.reader));
        for (uint32_t j = 0; j < OBJECTS; j += 7) {
            int rc = dbz_get(w->s.reader, oid_of(j), 1 + test_random(&seed) % w->s.state, &rec);
            CHECK(rc == 0 || rc == DBZ_E_NOTFOUND || rc == DBZ_E_CORRUPT);
        }
        (void)dbz_get(w->s.reader, oid_of(i), 1 + test_random(&seed) % w->s.state, &rec);
        dbz_entry got[64];
        uint64_t next;
        (void)dbz_table_scan(w->s.reader, w->s.root, w->s.depth, 0, 0, got, 64, &next);
        dbz_reader_free(w->s.reader);
        write_all(w->s.fd, old, len, at);
    }
    atomic_fetch_add(&slot->cache_key, 1);
    OK(dbz_reader_new(w->s.seg, w->s.prefix, w->s.fd, &w->s.reader));
    world_free(w);
}

/* --- readers beside a writer, a checkpointer and each other, on a cache much too small ------------------------------------------------------------ */

static atomic_int stop_threads;
static uint32_t thread_objects;

static uint64_t stamp(uint64_t oid, uint64_t state) { uint64_t s = (oid * 1000003 + state) * UINT64_C(0x9e3779b97f4a7c15) + 1; return test_random(&s); }
static int changed_at(uint64_t oid, uint64_t state) { return state == 2 || stamp(oid, state) % 10 == 0; }

static uint64_t thread_payload(uint64_t oid, uint64_t state, uint8_t *out)
{
    uint64_t s = stamp(oid, state), len = 8 + s % 500;
    for (uint64_t k = 0; k < len; k++)
        out[k] = (uint8_t)(s >> (k % 8 * 8));
    return len;
}

static void *reading(void *arg)
{
    store *s = arg;
    dbz_seg *seg = test_join(&s->in);
    dbz_reader *r;
    OK(dbz_reader_new(seg, s->prefix, s->fd, &r));
    uint64_t seed = (uint64_t)(uintptr_t)&seg, done = 0;
    uint8_t want[600];
    while (!atomic_load_explicit(&stop_threads, memory_order_relaxed)) {
        uint64_t now = dbz_state_published(seg, s->prefix), oid = DBZ_OID_FIRST + test_random(&seed) % thread_objects;
        if (now < 2)
            continue;
        uint64_t state = test_random(&seed) % 3 ? now : 2 + test_random(&seed) % (now - 1), at = state;
        while (!changed_at(oid, at))
            at--;
        dbz_record rec;
        OK(dbz_get(r, oid, state, &rec));
        CHECK(rec.state == at && rec.payload_len == thread_payload(oid, at, want) && !memcmp(rec.payload, want, rec.payload_len));
        done++;
    }
    dbz_reader_free(r);
    dbz_seg_unmap(seg);
    return (void *)(uintptr_t)done;
}

/* `every`: commits between two checkpoints. */
static void test_threads(int commits, int readers, uint32_t objects, int every)
{
    thread_objects = objects;
    store s;
    store_open(&s, 256 << 10, 16 << 20);
    atomic_store(&stop_threads, 0);
    pthread_t threads[8];
    for (int k = 0; k < readers; k++)
        CHECK(pthread_create(&threads[k], NULL, reading, &s) == 0);
    uint8_t payload[600];
    for (int c = 0; c < commits; c++) {
        dbz_batch *b = begin(&s);
        for (uint64_t oid = DBZ_OID_FIRST; oid < DBZ_OID_FIRST + thread_objects; oid++)
            if (changed_at(oid, s.state + 1)) {
                uint64_t len = thread_payload(oid, s.state + 1, payload);
                OK(dbz_batch_put(b, oid, payload, len, NULL, 0));
            }
        commit(&s, b);
        if (c % every == every - 1)
            checkpoint(&s);
    }
    atomic_store(&stop_threads, 1);
    uint64_t reads = 0;
    for (int k = 0; k < readers; k++) {
        void *n;
        CHECK(pthread_join(threads[k], &n) == 0);
        reads += (uintptr_t)n;
    }
    CHECK(reads);
    dbz_header *h = dbz_seg_header(s.seg);
    printf("threads: %lu reads beside %d commits; evictions %lu\n", (unsigned long)reads, commits, (unsigned long)atomic_load(&h->evictions));
    store_close(&s);
}

static uint32_t odd_frames(const world *w)
{
    uint32_t odd = 0;
    for (uint32_t i = 0; i < w->s.reader->sets * DBZ_WAYS; i++)
        odd += atomic_load(&w->s.reader->heads[i].version) & 1;
    return odd;
}

/* Frames claimed by a filler that lives are left alone, and read around; when it has died they are taken over, whether or not its slot was wiped. */
static void test_dead_filler(int wiped)
{
    world *w = build(5, 30, 64 << 10);
    dbz_seg *filler = test_join(&w->s.in);
    int slot = filler->slot;
    uint64_t mark = (filler->generation & 0xffff) << 14 | (uint64_t)(filler->slot + 1) << 1 | 1;
    uint32_t frames = w->s.reader->sets * DBZ_WAYS;
    for (uint32_t i = 0; i < frames; i++) {
        uint64_t version = atomic_load(&w->s.reader->heads[i].version);
        atomic_store(&w->s.reader->heads[i].version, (version >> 30 << 30) | mark);
    }
    for (uint32_t i = 0; i < OBJECTS; i++)
        check_object(w, i, w->s.state);
    EQUAL(odd_frames(w), frames);
    test_kill(filler);
    if (wiped)
        EQUAL(dbz_proc_reclaim(w->s.seg), 1);
    dbz_seg *successor = wiped ? test_join(&w->s.in) : NULL;      /* lives in the same slot */
    CHECK(!successor || successor->slot == slot);
    for (int pass = 0; pass < 200 && odd_frames(w) > frames / 8; pass++) {
        dbz_reader_free(w->s.reader);
        atomic_fetch_add(&dbz_seg_prefix(w->s.seg, w->s.prefix)->cache_key, 1);      /* nothing cached is of use: every page is filled again */
        OK(dbz_reader_new(w->s.seg, w->s.prefix, w->s.fd, &w->s.reader));
        for (uint32_t i = 0; i < OBJECTS; i++)
            check_object(w, i, 1 + test_random(&w->seed) % w->s.state);
    }
    CHECK(odd_frames(w) <= frames / 8);
    if (successor)
        dbz_seg_unmap(successor);
    world_free(w);
}

/* A process without a slot reads the cache but fills nothing: nobody could tell whether it died. */
static void test_no_slot(void)
{
    world *w = build(6, 30, 1 << 20);
    dbz_seg *seg = NULL;
    OK(dbz_seg_map(w->s.in.fd, test_lock_file(&w->s.in), TEST_ROOT, 1, 2, TEST_BOOT, &seg));
    dbz_reader *mine = w->s.reader, *r;
    OK(dbz_reader_new(seg, w->s.prefix, w->s.fd, &r));
    uint64_t before = 0, after = 0;
    for (uint32_t i = 0; i < mine->sets * DBZ_WAYS; i++)
        before += atomic_load(&mine->heads[i].version) >> 30;
    w->s.reader = r;
    for (uint32_t i = 0; i < OBJECTS; i++)
        check_object(w, i, 1 + test_random(&w->seed) % w->s.state);
    w->s.reader = mine;
    for (uint32_t i = 0; i < mine->sets * DBZ_WAYS; i++)
        after += atomic_load(&mine->heads[i].version) >> 30;
    CHECK(before == after && r->hits + atomic_load(&dbz_seg_header(seg)->hits));
    dbz_reader_free(r);
    dbz_seg_unmap(seg);
    world_free(w);
}

/* --- speed ----------------------------------------------------------------------------------------------------------------------------------------- */

static double now_ns(void) { return test_seconds() * 1e9; }

static void measure(void)
{
    store s;
    store_open(&s, 256 << 20, 64 << 20);
    enum { N = 200000, TIMES = 1000000 };
    uint8_t payload[40] = {1};
    double t = now_ns();
    dbz_batch *b = begin(&s);
    for (uint64_t i = 0; i < N; i++) {
        memcpy(payload, &i, 8);
        uint64_t ref = DBZ_OID_FIRST + i;
        OK(dbz_batch_put(b, DBZ_OID_FIRST + i, payload, sizeof payload, &ref, 1));
    }
    double put = now_ns();
    OK(dbz_batch_seal(b, 0, 0));
    double sealed = now_ns();
    dbz_batch_free(b);
    b = begin(&s);
    for (uint64_t i = 0; i < N; i++)
        OK(dbz_batch_put(b, DBZ_OID_FIRST + i, payload, sizeof payload, NULL, 0));
    double third = now_ns();
    commit(&s, b);
    printf("put %.0f ns, seal %.0f ns, whole commit %.0f ns an object\n", (put - t) / N, (sealed - put) / N, (now_ns() - third) / N);
    uint64_t seed = 1;
    dbz_record rec;
    for (int pass = 0; pass < 2; pass++) {
        for (uint64_t i = 0; i < N; i++)
            OK(dbz_get(s.reader, DBZ_OID_FIRST + i, s.state, &rec));
        t = now_ns();
        for (int k = 0; k < TIMES; k++)
            OK(dbz_get(s.reader, DBZ_OID_FIRST + (uint64_t)k % 512, s.state, &rec));
        double hot = now_ns();
        for (int k = 0; k < TIMES; k++)
            OK(dbz_get(s.reader, DBZ_OID_FIRST + test_random(&seed) % N, s.state, &rec));
        printf("%s: get %.0f ns among 512 objects, %.0f ns among %d\n", pass ? "from the table" : "from the delta", (hot - t) / TIMES, (now_ns() - hot) / TIMES, N);
        if (!pass) {
            t = now_ns();
            checkpoint(&s);
            printf("checkpoint %.0f ns an entry\n", (now_ns() - t) / N);
        }
    }
    store_close(&s);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "measure")) {
        measure();
        return 0;
    }
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) | 1 : 1;      /* xorshift must not start from 0 */
    int rounds = argc > 2 ? atoi(argv[2]) : 4;
    test_skip_ordinals();
    test_record_bytes(seed);
    test_bodies(seed);
    for (int k = 0; k < rounds; k++)
        test_model(seed + (uint64_t)k, 120);
    test_supply(seed, 0);
    test_supply(seed, 1);
    test_dead_filler(0);
    test_dead_filler(1);
    test_no_slot();
    test_flips(seed, rounds * 150);
    test_forged(seed, rounds * 150);
    test_threads(60, 3, 2000, 5);
    test_threads(1500, 3, 30, 1);
    puts("test_data: ok");
    return 0;
}
