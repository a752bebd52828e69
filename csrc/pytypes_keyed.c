/* The short ways of dicts and sets: looking up, setting, adding. Ordinary are keys that are atoms; looking up
 * further takes an int or a str (whose stable hash is made in C) and a view that has not more loaded than it may.
 * What is not ordinary goes to the methods of the same purpose in dbzero/collections, which decide and raise.
 *
 * A large collection is looked up in what is pending, then in its front, then in its trees. Setting and adding only
 * ever touch `items` or what is pending. */
#include "pytypes_stored.h"

#define FRONT (1 << 20)     /* most items of a front, as in dbzero/collections/fronts.py */

static PyObject *s_getitem, *s_setitem, *s_delitem, *s_get, *s_has, *s_add, *s_length;

/* --- trees -------------------------------------------------------------------------------------------------------
 * ------------------------ */

/* The leaf of a keyed tree in whose range a key is, and its state, both new references. 1; 0: the tree or the key
 * is not an ordinary one; -1. */
static int descend(PyObject *root, long long key, PyObject **leaf, PyObject **data)
{
    PyObject *node = root;
    Py_INCREF(node);
    for (int level = 0; level < 40; level++) {
        PyObject *state = dbz_node_data(node);
        if (state == NULL) {
            Py_DECREF(node);
            return -1;
        }
        if (Py_TYPE(state) != dbz_inner_type) {
            Py_INCREF(state);
            *leaf = node;
            *data = state;
            return 1;
        }
        const Part *inner = (const Part *)state;
        Py_ssize_t k = dbz_count_up_to(inner->first, 1, key) - 1;
        PyObject *child = k >= 0 && k < PyList_Size(inner->second) ? PyList_GetItem(inner->second, k) : NULL;
        if (child == NULL)
            break;
        Py_INCREF(child);
        Py_DECREF(node);
        node = child;
    }
    Py_DECREF(node);
    return 0;
}

static PyObject *f_find_leaf(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    int overflow = 0;
    if (n != 2 || !PyLong_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "find_leaf() takes a node and a number");
        return NULL;
    }
    long long key = PyLong_AsLongLongAndOverflow(args[1], &overflow);
    PyObject *leaf, *data;
    int rc = overflow ? 0 : descend(args[0], key, &leaf, &data);
    if (rc < 0)
        return NULL;
    if (rc == 0)
        Py_RETURN_NONE;
    Py_DECREF(data);
    return leaf;
}

/* Where a number stands in an ascending list of numbers; -1: nowhere, or the list holds something else. */
static Py_ssize_t place_of(PyObject *numbers, long long number)
{
    Py_ssize_t k = dbz_count_up_to(numbers, 0, number) - 1;
    PyObject *there = k < 0 ? NULL : PyList_GetItem(numbers, k);
    int overflow = 0;
    return there != NULL && PyLong_CheckExact(there) && PyLong_AsLongLongAndOverflow(there, &overflow) == number && !overflow ? k : -1;
}

/* The collection's view has more loaded than it may: Python evicts first. */
static int over_limit(const Persistent *p)
{
    return p->view == NULL || (p->view->limit != 0 && p->view->weight > p->view->limit);
}

static void link_front(PyObject *leaf, PyObject *front)
{
    PyObject *old = ((Stored *)leaf)->front;
    if (old == front)
        return;
    Py_INCREF(front);
    ((Stored *)leaf)->front = front;
    Py_XDECREF(old);
}

/* The value of `key` in a dict's trees, a new reference. Under the operation lock. 1; 0: not there; -1: an
 * exception; -2: not ordinary. */
static int walk_dict(State *s, PyObject *key, PyObject **value)
{
    if (!dbz_given(s->index) || !dbz_given(s->tree) || !PyDict_CheckExact(s->front))
        return -2;
    PyObject *hash = dbz_stable_hash(key), *leaf = NULL, *places = NULL, *data = NULL;
    if (hash == NULL)
        return PyErr_Occurred() ? -1 : -2;
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(hash, &overflow);
    int rc = overflow ? 0 : descend(s->index, number, &leaf, &places);
    if (rc != 1) {
        Py_DECREF(hash);
        return rc == -1 ? -1 : -2;
    }
    PyObject *place = PyDict_CheckExact(places) ? PyDict_GetItemWithError(places, hash) : NULL;
    rc = PyErr_Occurred() ? -1 : !PyDict_CheckExact(places) ? -2 : place == NULL ? 0 : PyLong_CheckExact(place) ? 1 : -2;
    long long seq = rc == 1 ? PyLong_AsLongLongAndOverflow(place, &overflow) : 0;
    Py_DECREF(hash);
    Py_CLEAR(places);
    Py_CLEAR(leaf);
    if (rc != 1 || overflow)
        return overflow ? -2 : rc;
    rc = descend(s->tree, seq, &leaf, &data);
    if (rc != 1)
        return rc == -1 ? -1 : -2;
    const Part *entries = (const Part *)data;
    Py_ssize_t i = Py_TYPE(data) == dbz_entries_type ? place_of(entries->first, seq) : -1;
    PyObject *there = i < 0 ? NULL : PyList_GetItem(entries->second, i), *found = i < 0 ? NULL : PyList_GetItem(entries->third, i);
    if (there == NULL || found == NULL) {
        PyErr_Clear();
        rc = -2;    /* damaged: Python says so */
    } else {
        Py_INCREF(there);
        Py_INCREF(found);
        rc = PyObject_RichCompareBool(there, key, Py_EQ);
        if (rc == 1) {
            if (PyDict_Size(s->front) >= FRONT)
                PyDict_Clear(s->front);
            link_front(leaf, s->front);
            rc = PyDict_SetItem(s->front, there, found) < 0 ? -1 : 1;
        }
        Py_DECREF(there);
        if (rc == 1)
            *value = found;
        else
            Py_DECREF(found);
    }
    Py_DECREF(data);
    Py_DECREF(leaf);
    return rc;
}

/* Whether `key` is in a set's tree. Under the operation lock. 1; 0; -1: an exception; -2: not ordinary. */
static int walk_set(State *s, PyObject *key)
{
    if (!dbz_given(s->tree) || !PyAnySet_CheckExact(s->front))
        return -2;
    PyObject *hash = dbz_stable_hash(key), *leaf = NULL, *data = NULL;
    if (hash == NULL)
        return PyErr_Occurred() ? -1 : -2;
    int overflow = 0;
    long long number = PyLong_AsLongLongAndOverflow(hash, &overflow);
    Py_DECREF(hash);
    int rc = overflow ? 0 : descend(s->tree, number, &leaf, &data);
    if (rc != 1)
        return rc == -1 ? -1 : -2;
    rc = PyAnySet_CheckExact(data) ? PySet_Contains(data, key) : -2;
    if (rc == 1) {
        if (PySet_Size(s->front) >= FRONT)
            PySet_Clear(s->front);
        link_front(leaf, s->front);
        rc = PySet_Add(s->front, key) < 0 ? -1 : 1;
    }
    Py_DECREF(data);
    Py_DECREF(leaf);
    return rc;
}

/* --- dicts -------------------------------------------------------------------------------------------------------
 * ------------------------ */

/* The stored value of a key: 1, a new reference; 0: not there; -1: an exception; -2: not ordinary. */
static int look_up(PyObject *self, PyObject *key, PyObject **value)
{
    State *s = dbz_is_atom(key) ? dbz_loaded_state(self, dbz_dict_state) : NULL;
    if (s == NULL)
        return -2;
    PyObject *found = NULL;
    if (dbz_given(s->items)) {
        found = PyDict_GetItemWithError(s->items, key);
        if (found == NULL)
            return PyErr_Occurred() ? -1 : 0;
    } else {
        if (dbz_given(s->pending))
            found = PyDict_GetItemWithError(s->pending, key);
        if (found == NULL && !PyErr_Occurred())
            found = PyDict_GetItemWithError(s->front, key);
        if (found == NULL && PyErr_Occurred())
            return -1;
    }
    if (found != NULL) {
        Py_INCREF(found);
        *value = found;
        return 1;
    }
    if (over_limit((Persistent *)self))
        return -2;
    if (dbz_op_acquire() < 0)
        return -1;
    int rc = -2;
    s = dbz_loaded_state(self, dbz_dict_state);     /* what held the lock may have changed it */
    if (s != NULL && !dbz_given(s->items)) {
        Py_INCREF(s);
        found = dbz_given(s->pending) ? PyDict_GetItemWithError(s->pending, key) : NULL;
        if (found != NULL) {
            Py_INCREF(found);
            *value = found;
            rc = 1;
        } else {
            rc = PyErr_Occurred() ? -1 : walk_dict(s, key, value);
        }
        Py_DECREF(s);
    }
    dbz_op_release();
    return rc;
}

static PyObject *dict_subscript(PyObject *self, PyObject *key)
{
    PyObject *value = NULL;
    switch (look_up(self, key, &value)) {
    case 1:
        return dbz_settle(value);
    case 0:
        PyErr_SetObject(PyExc_KeyError, key);   /* an atom, no tuple */
        return NULL;
    case -1:
        return NULL;
    default:
        return dbz_slowly(self, s_getitem, key, NULL);
    }
}

static PyObject *dict_get(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    if (n < 1 || n > 2) {
        PyErr_Format(PyExc_TypeError, "get expected 1 or 2 arguments, got %zd", n);
        return NULL;
    }
    PyObject *value = NULL, *otherwise = n == 2 ? args[1] : Py_None;
    switch (look_up(self, args[0], &value)) {
    case 1:
        return dbz_settle(value);
    case 0:
        Py_INCREF(otherwise);
        return otherwise;
    case -1:
        return NULL;
    default:
        return dbz_slowly(self, s_get, args[0], otherwise);
    }
}

static int truth(PyObject *answer)
{
    int rc = answer == NULL ? -1 : PyObject_IsTrue(answer);
    Py_XDECREF(answer);
    return rc;
}

static int dict_contains(PyObject *self, PyObject *key)
{
    PyObject *value = NULL;
    int rc = look_up(self, key, &value);
    Py_XDECREF(value);
    return rc == -2 ? truth(dbz_slowly(self, s_has, key, NULL)) : rc;
}

/* 1: set; 0: not ordinary; -1. */
static int set_locked(PyObject *self, State *s, PyObject *key, PyObject *value)
{
    if (!dbz_is_atom(key) || !dbz_stored_as_is((Persistent *)self, value))
        return 0;
    PyObject *target = s->pending;
    if (dbz_given(s->items)) {
        target = s->items;
        if (PyDict_Size(target) >= dbz_leaf_size) {
            int there = PyDict_Contains(target, key);
            if (there <= 0)
                return there;
        }
    } else if (!dbz_given(target)) {
        return 0;
    }
    s->version++;
    Py_INCREF(target);
    int rc = PyDict_SetItem(target, key, value) < 0 ? -1 : 1;
    Py_DECREF(target);
    return rc;
}

static int dict_ass_subscript(PyObject *self, PyObject *key, PyObject *value)
{
    int rc = 0;
    State *s = value == NULL ? NULL : dbz_begin_change(self, dbz_dict_state);
    if (s != NULL) {
        Py_INCREF(s);
        rc = set_locked(self, s, key, value);
        Py_DECREF(s);
        dbz_op_release();
    }
    if (rc > 0)
        return 0;
    PyObject *done = value == NULL ? dbz_slowly(self, s_delitem, key, NULL) : dbz_slowly(self, s_setitem, key, value);
    Py_XDECREF(done);
    return done == NULL ? -1 : 0;
}

/* Of a dict or a set. */
static Py_ssize_t length(PyObject *self, const PyTypeObject *type, Py_ssize_t (*size)(PyObject *))
{
    const State *s = dbz_loaded_state(self, type);
    if (s != NULL && dbz_given(s->items))
        return size(s->items);
    if (s != NULL && (!dbz_given(s->pending) || size(s->pending) == 0))
        return s->count;
    PyObject *number = dbz_slowly(self, s_length, NULL, NULL);
    Py_ssize_t n = number == NULL ? -1 : PyLong_AsSsize_t(number);
    Py_XDECREF(number);
    return n;
}

static Py_ssize_t dict_length(PyObject *self)
{
    return length(self, dbz_dict_state, PyDict_Size);
}

/* --- sets --------------------------------------------------------------------------------------------------------
 * ------------------------ */

static int set_contains(PyObject *self, PyObject *key)
{
    State *s = dbz_is_atom(key) ? dbz_loaded_state(self, dbz_set_state) : NULL;
    if (s != NULL && dbz_given(s->items))
        return PySet_Contains(s->items, key);
    if (s != NULL) {
        int there = dbz_given(s->pending) ? PySet_Contains(s->pending, key) : 0;
        if (there == 0)
            there = PySet_Contains(s->front, key);
        if (there != 0)
            return there;
        if (!over_limit((Persistent *)self)) {
            if (dbz_op_acquire() < 0)
                return -1;
            there = -2;
            s = dbz_loaded_state(self, dbz_set_state);  /* what held the lock may have changed it */
            if (s != NULL && !dbz_given(s->items)) {
                Py_INCREF(s);
                there = dbz_given(s->pending) ? PySet_Contains(s->pending, key) : 0;
                if (there == 0)
                    there = walk_set(s, key);
                Py_DECREF(s);
            }
            dbz_op_release();
            if (there != -2)
                return there;
        }
    }
    return truth(dbz_slowly(self, s_has, key, NULL));
}

/* 1: added, or there already; 0: not ordinary; -1. */
static int add_locked(State *s, PyObject *key)
{
    PyObject *target = s->pending;
    if (dbz_given(s->items)) {
        target = s->items;
        if (PySet_Size(target) >= dbz_leaf_size)
            return PySet_Contains(target, key);
    } else {
        if (!dbz_given(target))
            return 0;
        int there = PySet_Contains(s->front, key);
        if (there != 0)
            return there;
    }
    Py_ssize_t before = PySet_Size(target);
    if (PySet_Add(target, key) < 0)
        return -1;
    s->version += PySet_Size(target) != before;
    return 1;
}

static PyObject *set_add(PyObject *self, PyObject *key)
{
    State *s = dbz_is_atom(key) ? dbz_begin_change(self, dbz_set_state) : NULL;
    if (s != NULL) {
        Py_INCREF(s);
        int rc = add_locked(s, key);
        Py_DECREF(s);
        dbz_op_release();
        if (rc < 0)
            return NULL;
        if (rc > 0)
            Py_RETURN_NONE;
    }
    return dbz_slowly(self, s_add, key, NULL);
}

static Py_ssize_t set_length(PyObject *self)
{
    return length(self, dbz_set_state, PySet_Size);
}

/* --- types -------------------------------------------------------------------------------------------------------
 * ------------------------ */

static PyMethodDef get_method[] = {
    {"get", (PyCFunction)(void (*)(void))dict_get, METH_FASTCALL, "get($self, key, default=None, /)\n--\n\nThe value of `key`, or `default`."},
    {NULL, NULL, 0, NULL},
};

static PyMethodDef add_method[] = {
    {"add", set_add, METH_O,
     "add($self, value, /)\n--\n\nAdd an element. TypeError when it is unhashable, UnsupportedTypeError when it can't be stored."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot dict_slots[] = {{Py_mp_subscript, dict_subscript}, {Py_mp_ass_subscript, dict_ass_subscript}, {Py_mp_length, dict_length},
    {Py_sq_contains, dict_contains}, {Py_tp_methods, get_method}, {Py_tp_doc, "The short ways of dicts."}, {0, NULL}};

static PyType_Slot set_slots[] = {
    {Py_sq_length, set_length}, {Py_sq_contains, set_contains}, {Py_tp_methods, add_method}, {Py_tp_doc, "The short ways of sets."}, {0, NULL}};

#define FLAGS (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE)
static PyType_Spec dict_spec = {"_persistent.DictWays", sizeof(Stored), 0, FLAGS, dict_slots};
static PyType_Spec set_spec = {"_persistent.SetWays", sizeof(Stored), 0, FLAGS, set_slots};

static PyMethodDef functions[] = {
    {"find_leaf", (PyCFunction)(void (*)(void))f_find_leaf, METH_FASTCALL,
     "find_leaf(root, key): the leaf of a keyed tree in whose range `key` is; None: walk it in Python."},
    {NULL, NULL, 0, NULL},
};

int dbz_keyed_ready(PyObject *module)
{
    static const struct { PyObject **where; const char *text; } names[] = {{&s_getitem, "_p_getitem"}, {&s_setitem, "_p_setitem"}, {&s_delitem, "_p_delitem"},
        {&s_get, "_p_get_slowly"}, {&s_has, "_p_has_slowly"}, {&s_add, "_p_add_slowly"}, {&s_length, "_p_length"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((*names[i].where = PyUnicode_InternFromString(names[i].text)) == NULL)
            return -1;
    PyObject *dicts = PyType_FromSpecWithBases(&dict_spec, (PyObject *)dbz_stored_type);
    PyObject *sets = PyType_FromSpecWithBases(&set_spec, (PyObject *)dbz_stored_type);
    if (dicts == NULL || sets == NULL || PyModule_AddObject(module, "DictWays", dicts) < 0 || PyModule_AddObject(module, "SetWays", sets) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
