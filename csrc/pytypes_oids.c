/* Sets of object ids as bytes, and from object ids to live objects: what the inverted index does per object.
 *
 * A set is handed over as ascending native 64-bit words. Packed, it is a row of runs: LEB128 of the distance from the end of the run before (from 0 at
 * first), LEB128 of the run's length. So a new highest member changes the last byte, or adds two. */
#include "pytypes.h"
#include "reader_impl.h"
#include <stdlib.h>
#include <string.h>

#define OID_END (UINT64_C(1) << 48)
#define MOST_MEMBERS (1u << 20)     /* of one packed set: more is damage */

static size_t put_varint(uint8_t *out, uint64_t number)
{
    size_t n = 0;
    while (number > 0x7F) {
        out[n++] = (uint8_t)(number | 0x80);
        number >>= 7;
    }
    out[n++] = (uint8_t)number;
    return n;
}

static PyObject *f_pack_oids(PyObject *module, PyObject *words)
{
    (void)module;
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(words, &bytes, &size) < 0)
        return NULL;
    size_t n = (size_t)size / 8, length = 0;
    uint8_t *out = malloc(n * 16 + 1);
    if (out == NULL)
        return PyErr_NoMemory();
    uint64_t end = 0;
    for (size_t i = 0; i < n;) {
        uint64_t first, next;
        memcpy(&first, bytes + 8 * i, 8);
        size_t run = 1;
        for (; i + run < n; run++) {
            memcpy(&next, bytes + 8 * (i + run), 8);
            if (next != first + run)
                break;
        }
        if (first < end || first >= OID_END) {
            free(out);
            PyErr_SetString(PyExc_ValueError, "object ids out of order");
            return NULL;
        }
        length += put_varint(out + length, first - end);
        length += put_varint(out + length, run);
        end = first + run;
        i += run;
    }
    PyObject *packed = PyBytes_FromStringAndSize((const char *)out, (Py_ssize_t)length);
    free(out);
    return packed;
}

/* 0: cut short or too long. */
static int get_varint(const uint8_t **at, const uint8_t *end, uint64_t *number)
{
    *number = 0;
    for (int shift = 0; shift < 56 && *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        *number |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return 1;
    }
    return 0;
}

/* How many members a packed set has, or -1: it is damaged. */
static int64_t count_members(const uint8_t *at, const uint8_t *end)
{
    uint64_t place = 0, gap, run, total = 0;
    int first = 1;
    while (at < end) {
        if (!get_varint(&at, end, &gap) || !get_varint(&at, end, &run) || run == 0 || (gap == 0 && !first))
            return -1;
        first = 0;
        if (gap > OID_END || run > MOST_MEMBERS || total + run > MOST_MEMBERS || place + gap + run > OID_END)
            return -1;
        place += gap + run;
        total += run;
    }
    return (int64_t)total;
}

static PyObject *f_unpack_oids(PyObject *module, PyObject *packed)
{
    (void)module;
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(packed, &bytes, &size) < 0)
        return NULL;
    const uint8_t *at = (const uint8_t *)bytes, *end = at + size;
    int64_t total = count_members(at, end);
    if (total < 0) {
        PyErr_SetString(PyExc_ValueError, "a damaged set of object ids");
        return NULL;
    }
    PyObject *words = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(total * 8));
    if (words == NULL)
        return NULL;
    char *out = PyBytes_AsString(words);
    uint64_t place = 0, gap = 0, run = 0;
    while (at < end && get_varint(&at, end, &gap) && get_varint(&at, end, &run)) {
        place += gap;
        for (uint64_t stop = place + run; place < stop; place++, out += 8)
            memcpy(out, &place, 8);
    }
    return words;
}

/* --- from ids to objects ----------------------------------------------------------------------------------------------------------------- */

static PyObject *f_live_objects(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *view, *words, *cls;
    Py_ssize_t start, stop;
    if (!PyArg_ParseTuple(args, "O!SnnO:live_objects", dbz_view_type, &view, &words, &start, &stop, &cls))
        return NULL;
    const char *bytes = PyBytes_AsString(words);
    if (start < 0 || stop < start || stop > PyBytes_Size(words) / 8 || (cls != Py_None && !PyType_Check(cls))) {
        PyErr_SetString(PyExc_ValueError, "a range outside of the ids, or no class");
        return NULL;
    }
    PyObject *found = PyList_New(stop - start);
    Py_ssize_t missing = 0;
    for (Py_ssize_t i = 0; found != NULL && i < stop - start; i++) {
        uint64_t oid;
        memcpy(&oid, bytes + 8 * (stop - 1 - i), 8);
        PyObject *obj = (PyObject *)dbz_map_get((ViewCore *)view, oid);
        if (obj != NULL && (((Persistent *)obj)->flags & (P_EXPIRED | P_INIT | P_CLOSED)))
            obj = Py_None;
        if (obj == NULL && cls != Py_None)
            obj = dbz_ghost((ViewCore *)view, cls, oid);
        else
            Py_XINCREF(obj);
        if (obj == NULL && !PyErr_Occurred()) {
            obj = Py_None;
            Py_INCREF(obj);
        }
        missing += obj == Py_None;
        if (obj == NULL || PyList_SetItem(found, i, obj) < 0)
            Py_CLEAR(found);
    }
    return found == NULL ? NULL : Py_BuildValue("Nn", found, missing);
}

static PyObject *f_identify(PyObject *module, PyObject *obj)
{
    (void)module;
    if (!PyObject_TypeCheck(obj, dbz_persistent_type)) {
        PyErr_SetString(PyExc_TypeError, "a stored object is needed");
        return NULL;
    }
    const Persistent *p = (Persistent *)obj;
    PyObject *view = p->view == NULL ? Py_None : (PyObject *)p->view;
    return Py_BuildValue("OKI", view, (unsigned long long)p->oid, (unsigned int)p->flags);
}

/* --- from new objects to ids ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyTypeObject *type;     /* borrowed from an object of the dirty list */
    uint64_t *oids;
    size_t count, room;
} group;

static int group_put(group *g, uint64_t oid)
{
    if (g->count == g->room) {
        size_t room = g->room ? g->room * 2 : 64;
        uint64_t *grown = realloc(g->oids, room * sizeof *grown);
        if (grown == NULL)
            return -1;
        g->oids = grown;
        g->room = room;
    }
    g->oids[g->count++] = oid;
    return 0;
}

static PyObject *groups_dict(const group *groups, size_t n)
{
    PyObject *dict = PyDict_New();
    for (size_t i = 0; dict != NULL && i < n; i++) {
        PyObject *words = PyBytes_FromStringAndSize((const char *)groups[i].oids, (Py_ssize_t)(groups[i].count * 8));
        if (words == NULL || PyDict_SetItem(dict, (PyObject *)groups[i].type, words) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(words);
    }
    return dict;
}

/* Under the operation lock, so nobody takes the dirty list meanwhile. But whatever allocates an object may run a collection and let other threads create
 * objects: what they append behind `at` is not seen yet. */
static PyObject *f_take_new(PyObject *module, PyObject *view)
{
    (void)module;
    if (!PyObject_TypeCheck(view, dbz_view_type)) {
        PyErr_SetString(PyExc_TypeError, "a view is needed");
        return NULL;
    }
    ViewCore *v = (ViewCore *)view;
    group *groups = NULL;
    size_t n = 0, last = 0, from = v->scanned < v->dirty_count ? v->scanned : v->dirty_count;
    PyObject *unfinished = PyList_New(0), *dict = NULL, *result = NULL;
    int rc = unfinished == NULL ? -1 : 0;
    size_t at = from;
    for (; rc == 0 && at < v->dirty_count; at++) {
        Persistent *p = (Persistent *)v->dirty[at];
        if ((p->flags & (P_MEMO | P_NEW | P_EXPIRED)) != (P_MEMO | P_NEW))
            continue;
        if (p->flags & P_INIT) {
            rc = PyList_Append(unfinished, (PyObject *)p);
            continue;
        }
        PyTypeObject *type = Py_TYPE(p);
        if (n == 0 || groups[last].type != type) {
            for (last = 0; last < n && groups[last].type != type; last++)
                ;
            if (last == n) {
                group *grown = realloc(groups, (n + 1) * sizeof *grown);
                if (grown == NULL) {
                    rc = -1;
                    PyErr_NoMemory();
                    break;
                }
                groups = grown;
                groups[n++] = (group){.type = type};
            }
        }
        if (group_put(&groups[last], p->oid) < 0) {
            rc = -1;
            PyErr_NoMemory();
        }
    }
    if (rc == 0 && (dict = groups_dict(groups, n)) != NULL && (result = PyTuple_Pack(2, dict, unfinished)) != NULL)
        v->scanned = at;
    for (size_t i = 0; i < n; i++)
        free(groups[i].oids);
    free(groups);
    Py_XDECREF(dict);
    Py_XDECREF(unfinished);
    return result;
}

/* The object ids of an index's items, which are (rank, id): ascending words, as an id may come twice. */
static PyObject *f_item_oids(PyObject *module, PyObject *items)
{
    (void)module;
    if (!PyList_Check(items)) {
        PyErr_SetString(PyExc_TypeError, "a list of items is needed");
        return NULL;
    }
    size_t n = (size_t)PyList_Size(items);
    dbz_pair *pairs = malloc((n + 1) * sizeof *pairs);
    if (pairs == NULL || n > UINT32_MAX) {
        free(pairs);
        return PyErr_NoMemory();
    }
    for (size_t i = 0; i < n; i++) {
        PyObject *item = PyList_GetItem(items, (Py_ssize_t)i);
        PyObject *oid = item != NULL && PyTuple_Check(item) && PyTuple_Size(item) == 2 ? PyTuple_GetItem(item, 1) : NULL;
        if (oid == NULL || !PyLong_Check(oid)) {
            free(pairs);
            PyErr_SetString(PyExc_TypeError, "an item is a rank and an object id");
            return NULL;
        }
        pairs[i] = (dbz_pair){.key = PyLong_AsUnsignedLongLong(oid)};
        if (pairs[i].key == UINT64_MAX && PyErr_Occurred()) {
            free(pairs);
            return NULL;
        }
    }
    PyObject *words = NULL;
    if (dbz_sort_pairs(pairs, (uint32_t)n) != 0) {
        PyErr_NoMemory();
    } else if ((words = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(8 * n))) != NULL) {
        char *out = PyBytes_AsString(words);
        for (size_t i = 0; i < n; i++)
            memcpy(out + 8 * i, &pairs[i].key, 8);
    }
    free(pairs);
    return words;
}

static PyObject *f_rescan(PyObject *module, PyObject *view)
{
    (void)module;
    if (!PyObject_TypeCheck(view, dbz_view_type)) {
        PyErr_SetString(PyExc_TypeError, "a view is needed");
        return NULL;
    }
    ((ViewCore *)view)->scanned = 0;
    Py_RETURN_NONE;
}

PyMethodDef dbz_oid_functions[] = {
    {"pack_oids", f_pack_oids, METH_O, "pack_oids(words): ascending 64-bit words as runs. ValueError: out of order."},
    {"unpack_oids", f_unpack_oids, METH_O, "unpack_oids(packed): the words that pack_oids() packed. ValueError: damaged."},
    {"live_objects", f_live_objects, METH_VARARGS,
     "live_objects(view, words, start, stop, cls): (list, number of None in it) of the objects of ids stop-1 down to start; ghosts of `cls` for those not in memory (None: None). "
     "None for what expired or is under construction."},
    {"identify", f_identify, METH_O, "identify(obj): (view, object id, flags) of a stored object."},
    {"take_new", f_take_new, METH_O,
     "take_new(view): ({class: words}, objects still under construction) of the new memo objects on the dirty list since the last call."},
    {"item_oids", f_item_oids, METH_O, "item_oids(items): the object ids of (rank, object id) tuples as ascending words."},
    {"rescan", f_rescan, METH_O, "The dirty list was cut: the next take_new() begins at its start."},
    {NULL, NULL, 0, NULL},
};
