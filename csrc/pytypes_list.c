/* The short ways of lists and tuples: getting, setting and appending a value, the length, iteration. What is not
 * ordinary goes to the methods of the same purpose in dbzero/collections, which decide and raise.
 *
 * The front of a list whose leaves are all full is a list: its k-th item is the k-th leaf, or None. Leaves are
 * found there by position alone; one that was evicted is a ghost, which is not ordinary. A list that becomes uneven
 * empties its front. */
#include "pytypes_stored.h"

static PyObject *s_getitem, *s_setitem, *s_delitem, *s_append, *s_length, *s_part;
static PyTypeObject *iterator_type;

/* The same in an uneven list, whose leaves are found by walking down. While another thread is in the middle of an
 * operation, which may be changing that very tree, it is not ordinary: Python waits for the lock. */
static PyObject *container_below(const State *s, Py_ssize_t position, Py_ssize_t *offset, Stored **node)
{
    PyObject *at = dbz_op_elsewhere() ? NULL : s->tree;
    for (int level = 0; level < 40 && dbz_given(at); level++) {
        Persistent *p = (Persistent *)at;
        PyObject *data = ((Stored *)at)->data;
        if ((p->flags & P_READ_SLOW) || data == NULL)
            return NULL;
        p->flags |= P_USED;
        if (PyList_CheckExact(data)) {
            *offset = position;
            *node = (Stored *)at;
            return position < PyList_Size(data) ? data : NULL;
        }
        if (Py_TYPE(data) != dbz_counted_type)
            return NULL;
        const Part *inner = (const Part *)data;
        if (!dbz_given(inner->third))
            return NULL;
        Py_ssize_t k = dbz_count_up_to(inner->third, 0, position) - 1;
        if (k < 0 || PyList_Size(inner->third) != PyList_Size(inner->second))
            return NULL;
        position -= PyLong_AsSsize_t(PyList_GetItem(inner->third, k));
        at = PyList_GetItem(inner->second, k);
    }
    return NULL;
}

/* The live container that holds `position` (not negative), borrowed, and the offset in it; NULL: not ordinary.
 * `node` is its leaf, NULL for the tail. */
static PyObject *container_at(const State *s, Py_ssize_t position, Py_ssize_t *offset, Stored **node)
{
    *node = NULL;
    if (position >= s->count) {
        *offset = position - s->count;
        return PyList_CheckExact(s->items) ? s->items : NULL;
    }
    if (!s->full)
        return container_below(s, position, offset, node);
    if (dbz_leaf_size <= 0 || !PyList_CheckExact(s->front))
        return NULL;
    Py_ssize_t k = position / dbz_leaf_size;
    if (k >= PyList_Size(s->front))
        return NULL;
    PyObject *leaf = PyList_GetItem(s->front, k);
    if (leaf == Py_None)
        return NULL;
    Persistent *p = (Persistent *)leaf;     /* only nodes are put there, see Sequence._p_get() */
    PyObject *values = ((Stored *)leaf)->data;
    if ((p->flags & P_READ_SLOW) || values == NULL || !PyList_CheckExact(values) || PyList_Size(values) != dbz_leaf_size)
        return NULL;
    p->flags |= P_USED;
    *offset = position % dbz_leaf_size;
    *node = (Stored *)leaf;
    return values;
}

/* The place of an index that is an exact int: a position in range, or -1 without an exception. */
static Py_ssize_t place_of(const State *s, PyObject *key)
{
    if (!PyLong_CheckExact(key) || !PyList_CheckExact(s->items))
        return -1;
    Py_ssize_t position = PyLong_AsSsize_t(key);
    if (position < 0) {
        if (position == -1 && PyErr_Occurred()) {
            PyErr_Clear();
            return -1;
        }
        position += s->count + PyList_Size(s->items);
    }
    return position;
}

static PyObject *list_subscript(PyObject *self, PyObject *key)
{
    const State *s = dbz_loaded_state(self, dbz_list_state);
    Py_ssize_t offset, position = s == NULL ? -1 : place_of(s, key);
    Stored *node;
    PyObject *values = position < 0 ? NULL : container_at(s, position, &offset, &node);
    if (values != NULL && offset < PyList_Size(values)) {
        PyObject *value = PyList_GetItem(values, offset);
        Py_INCREF(value);
        return dbz_settle(value);
    }
    return dbz_slowly(self, s_getitem, key, NULL);
}

/* 1: replaced; 0: not the ordinary case; -1. */
static int put_locked(PyObject *self, State *s, PyObject *key, PyObject *value)
{
    Py_ssize_t offset, position = dbz_stored_as_is((Persistent *)self, value) ? place_of(s, key) : -1;
    Stored *node;
    PyObject *values = position < 0 ? NULL : container_at(s, position, &offset, &node);
    if (values == NULL || offset >= PyList_Size(values))
        return 0;
    if (node != NULL && !dbz_writable_now(&node->base)) {
        if (dbz_changed(&node->base) < 0)
            return -1;
        if (container_at(s, position, &offset, &node) != values)
            return 0;
    }
    Py_INCREF(value);
    s->version++;
    return PyList_SetItem(values, offset, value) < 0 ? -1 : 1;
}

static int list_ass_subscript(PyObject *self, PyObject *key, PyObject *value)
{
    int rc = 0;
    if (value != NULL) {
        State *s = dbz_begin_change(self, dbz_list_state);
        if (s != NULL) {
            Py_INCREF(s);
            rc = put_locked(self, s, key, value);
            Py_DECREF(s);
            dbz_op_release();
        }
    }
    if (rc > 0)
        return 0;
    PyObject *done = value == NULL ? dbz_slowly(self, s_delitem, key, NULL) : dbz_slowly(self, s_setitem, key, value);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

static PyObject *list_append(PyObject *self, PyObject *value)
{
    State *s = dbz_begin_change(self, dbz_list_state);
    if (s != NULL) {
        PyObject *tail = s->items;
        int rc = 0;
        if (dbz_stored_as_is((Persistent *)self, value) && PyList_CheckExact(tail) && PyList_Size(tail) < dbz_leaf_size) {
            rc = PyList_Append(tail, value) < 0 ? -1 : 1;
            s->version++;
        }
        dbz_op_release();
        if (rc < 0)
            return NULL;
        if (rc > 0)
            Py_RETURN_NONE;
    }
    return dbz_slowly(self, s_append, value, NULL);
}

static Py_ssize_t list_length(PyObject *self)
{
    const State *s = dbz_loaded_state(self, dbz_list_state);
    if (s != NULL && PyList_CheckExact(s->items))
        return s->count + PyList_Size(s->items);
    PyObject *number = dbz_slowly(self, s_length, NULL, NULL);
    Py_ssize_t n = number == NULL ? -1 : PyLong_AsSsize_t(number);
    Py_XDECREF(number);
    return n;
}

/* --- iteration ---------------------------------------------------------------------------------------------------
 * ------------------------ */

typedef struct {
    PyObject_HEAD
    PyObject *list;     /* NULL: at the end */
    State *state;       /* whose container `values` is */
    PyObject *values;   /* NULL: none yet */
    Py_ssize_t offset, position;
    long long version;  /* of the state when `values` was fetched: every change, and an eviction, changes it */
} Iterator;

static int iterator_clear(PyObject *self)
{
    Iterator *it = (Iterator *)self;
    Py_CLEAR(it->list);
    Py_CLEAR(it->state);
    Py_CLEAR(it->values);
    return 0;
}

static int iterator_traverse(PyObject *self, visitproc visit, void *arg)
{
    Iterator *it = (Iterator *)self;
    Py_VISIT(it->list);
    Py_VISIT(it->state);
    Py_VISIT(it->values);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void iterator_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    iterator_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *list_iter(PyObject *self)
{
    Iterator *it = (Iterator *)PyType_GenericAlloc(iterator_type, 0);
    if (it == NULL)
        return NULL;
    Py_INCREF(self);
    it->list = self;
    return (PyObject *)it;
}

/* Go to the container that holds the position. 1: there is a value; 0: at the end; -1. */
static int fetch_part(Iterator *it)
{
    State *s = dbz_loaded_state(it->list, dbz_list_state);
    Stored *node;
    Py_ssize_t offset = 0;
    PyObject *values = s == NULL ? NULL : container_at(s, it->position, &offset, &node), *part = NULL;
    if (values == NULL) {
        PyObject *number = PyLong_FromSsize_t(it->position);
        part = number == NULL ? NULL : PyObject_CallMethodObjArgs(it->list, s_part, number, NULL);
        Py_XDECREF(number);
        PyObject *found;
        if (part == NULL || !PyArg_ParseTuple(part, "O!nO!:_p_part", &PyList_Type, &values, &offset, dbz_list_state, &found)) {
            Py_XDECREF(part);
            return -1;
        }
        s = (State *)found;
    }
    Py_INCREF(s);
    Py_INCREF(values);
    State *old_state = it->state;
    PyObject *old_values = it->values;
    it->state = s;
    it->values = values;
    it->offset = offset;
    it->version = s->version;
    Py_XDECREF(old_state);
    Py_XDECREF(old_values);
    Py_XDECREF(part);
    return it->values != NULL && it->offset < PyList_Size(it->values);
}

static PyObject *iterator_next(PyObject *self)
{
    Iterator *it = (Iterator *)self;
    if (it->list == NULL)
        return NULL;
    if (it->values == NULL || it->version != it->state->version || it->offset >= PyList_Size(it->values)) {
        int more = fetch_part(it);
        if (more <= 0) {
            if (more == 0)
                iterator_clear(self);
            return NULL;
        }
    }
    PyObject *value = PyList_GetItem(it->values, it->offset);
    if (value == NULL)
        return NULL;
    it->offset++;
    it->position++;
    Py_INCREF(value);
    return dbz_settle(value);
}

static PyType_Slot iterator_slots[] = {
    {Py_tp_dealloc, iterator_dealloc},
    {Py_tp_traverse, iterator_traverse},
    {Py_tp_clear, iterator_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, iterator_next},
    {Py_tp_doc, "Goes over a list or tuple by position; changes meanwhile are seen."},
    {0, NULL},
};

static PyType_Spec iterator_spec = {"_persistent.SequenceIterator", sizeof(Iterator), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, iterator_slots};

/* --- types -------------------------------------------------------------------------------------------------------
 * ------------------------ */

static PyMethodDef append_method[] = {
    {"append", list_append, METH_O, "append($self, value, /)\n--\n\nAdd `value` at the end."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot sequence_slots[] = {
    {Py_mp_subscript, list_subscript}, {Py_mp_length, list_length}, {Py_tp_iter, list_iter}, {Py_tp_doc, "The short ways of lists and tuples."}, {0, NULL}};

static PyType_Slot mutable_slots[] = {
    {Py_mp_ass_subscript, list_ass_subscript}, {Py_tp_methods, append_method}, {Py_tp_doc, "The short ways of what changes a list."}, {0, NULL}};

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE)
static PyType_Spec sequence_spec = {"_persistent.SequenceWays", sizeof(Stored), 0, FLAGS, sequence_slots};
static PyType_Spec mutable_spec = {"_persistent.ListWays", sizeof(Stored), 0, FLAGS, mutable_slots};

int dbz_list_ready(PyObject *module)
{
    static const struct { PyObject **where; const char *text; } names[] = {{&s_getitem, "_p_getitem"}, {&s_setitem, "_p_setitem"}, {&s_delitem, "_p_delitem"},
        {&s_append, "_p_append"}, {&s_length, "_p_length"}, {&s_part, "_p_part"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((*names[i].where = PyUnicode_InternFromString(names[i].text)) == NULL)
            return -1;
    iterator_type = (PyTypeObject *)PyType_FromSpec(&iterator_spec);
    PyObject *sequence = PyType_FromSpecWithBases(&sequence_spec, (PyObject *)dbz_stored_type);
    PyObject *mutable = PyType_FromSpecWithBases(&mutable_spec, (PyObject *)dbz_stored_type);
    if (iterator_type == NULL || sequence == NULL || mutable == NULL)
        return -1;
    return PyModule_AddObject(module, "SequenceWays", sequence) < 0 || PyModule_AddObject(module, "ListWays", mutable) < 0 ? -1 : 0;
}
