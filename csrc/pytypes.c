/* Module `_persistent` and Persistent, the base type of every stored object. See pytypes.h for the flags and who may change them. */
#include "pytypes_stored.h"
#include <stddef.h>
#include <string.h>

PyTypeObject *dbz_persistent_type, *dbz_view_type, *dbz_meta_type;
PyObject *dbz_empty_tuple, *dbz_s_dict, *dbz_s_class, *dbz_s_load, *dbz_s_convert, *dbz_s_refuse, *dbz_s_clear, *dbz_s_reserve, *dbz_s_first, *dbz_s_mro, *dbz_s_weight;

static newfunc object_new;
static initproc object_init;
static PyObject *reserved_names;    /* set: names of the machinery, readable without loading */
static PyObject *dict_descriptor;   /* the memo root's own `__dict__`, which memo classes hide; with it a dict can be taken off */
static descrsetfunc dict_set;
static PyTypeObject *deferred_type; /* type of values that are made when they are read; NULL: none yet */

int dbz_is_atom(PyObject *value)
{
    PyTypeObject *t = Py_TYPE(value);
    return t == &PyUnicode_Type || t == &PyLong_Type || t == &PyFloat_Type || value == Py_None || t == &PyBool_Type || t == &PyBytes_Type;
}

PyObject *dbz_alloc(PyTypeObject *type, ViewCore *view, uint64_t oid, uint32_t flags)
{
    /* By object's own tp_new, not the bare allocator: only that one prepares the room in which CPython keeps fields without a dict. */
    Persistent *p = (Persistent *)object_new(type, dbz_empty_tuple, NULL);
    if (p == NULL)
        return NULL;
    p->oid = oid;
    p->flags = flags;
    Py_XINCREF(view);
    p->view = view;
    return (PyObject *)p;
}

/* --- state ------------------------------------------------------------------------------------------------------------------------------- */

PyObject *dbz_state(PyObject *self)
{
    return PyObject_GenericGetDict(self, NULL);
}

int dbz_is_local_name(PyObject *name)
{
    Py_ssize_t n;
    const char *s = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &n) : NULL;
    if (s == NULL) {
        PyErr_Clear();      /* a lone surrogate: no name of ours */
        return 0;
    }
    return n >= 4 && memcmp(s, "_X__", 4) == 0;
}

/* Take a memo object's fields away, `_X__` names excepted. The object is a ghost before the first field dies, since that may run any code. */
static int clear_memo(Persistent *p)
{
    PyObject *old = dbz_state((PyObject *)p), *keep = NULL, *name, *value;
    if (old == NULL)
        return -1;
    Py_ssize_t pos = 0;
    while (PyDict_Next(old, &pos, &name, &value)) {
        if (!dbz_is_local_name(name))
            continue;
        if (keep == NULL && (keep = PyDict_New()) == NULL)
            goto fail;
        if (PyDict_SetItem(keep, name, value) < 0)
            goto fail;
    }
    if (dict_set == NULL) {
        PyErr_SetString(PyExc_SystemError, "set_dict_descriptor() was not called");
        goto fail;
    }
    if (dict_set(dict_descriptor, (PyObject *)p, keep) < 0)     /* NULL: no dict at all, so that a ghost is small */
        goto fail;
    p->flags = (p->flags & ~(uint32_t)(P_LOADING | P_USED)) | P_GHOST;
    Py_XDECREF(keep);
    Py_DECREF(old);
    return 0;
fail:
    Py_XDECREF(keep);
    Py_DECREF(old);
    return -1;
}

int dbz_ghostify(Persistent *p)
{
    if (p->flags & P_MEMO) {
        if (clear_memo(p) < 0)
            return -1;
    } else {
        p->flags |= P_LOADING;
        PyObject *r = PyObject_CallMethodObjArgs((PyObject *)p, dbz_s_clear, NULL);
        p->flags &= ~(uint32_t)P_LOADING;
        if (r == NULL)
            return -1;
        Py_DECREF(r);
        p->flags = (p->flags & ~(uint32_t)P_USED) | P_GHOST;
    }
    dbz_weigh(p, 0);
    return 0;
}

int dbz_refuse(Persistent *p, int writing)
{
    if (p->view == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this object belongs to no prefix");
        return -1;
    }
    PyObject *r = PyObject_CallMethodObjArgs((PyObject *)p->view, dbz_s_refuse, (PyObject *)p, writing ? Py_True : Py_False, NULL);
    if (r != NULL) {
        Py_DECREF(r);
        PyErr_SetString(PyExc_SystemError, "a refused access did not raise");
    }
    return -1;
}

static int load_locked(Persistent *p, int writing)
{
    if (p->flags & P_LOADING)
        return 0;           /* this thread is the one that loads it */
    if (p->flags & (P_EXPIRED | P_CLOSED))
        return dbz_refuse(p, writing);
    if (p->flags & P_UNMAPPED) {
        if (p->view->closed) {
            p->flags |= P_CLOSED;
            return dbz_refuse(p, writing);
        }
        if (dbz_map_get(p->view, p->oid) != NULL) {
            p->flags |= P_EXPIRED;
            return dbz_refuse(p, writing);
        }
        if (dbz_map_put(p->view, p) < 0)
            return -1;
        p->flags &= ~(uint32_t)P_UNMAPPED;
    }
    if (!(p->flags & P_GHOST))
        return 0;
    p->flags = (p->flags & ~(uint32_t)P_GHOST) | P_LOADING;
    PyObject *r = PyObject_CallMethodObjArgs((PyObject *)p->view, dbz_s_load, (PyObject *)p, NULL);
    p->flags &= ~(uint32_t)P_LOADING;
    if (r == NULL) {
        p->flags |= P_GHOST;
        return -1;
    }
    unsigned long long weight = PyLong_AsUnsignedLongLong(r);
    Py_DECREF(r);
    if (PyErr_Occurred()) {
        p->flags |= P_GHOST;
        return -1;
    }
    p->flags |= P_USED;
    dbz_weigh(p, weight);
    return dbz_op_outermost() ? dbz_trim(p->view, (PyObject *)p) : 0;
}

int dbz_load(Persistent *p, int writing)
{
    if (dbz_op_acquire() < 0)
        return -1;
    int rc = load_locked(p, writing);
    dbz_op_release();
    return rc;
}

/* --- attributes -------------------------------------------------------------------------------------------------------------------------- */

enum { NAME_FIELD, NAME_LOCAL, NAME_DUNDER, NAME_RESERVED };

static int classify(PyObject *name)
{
    Py_ssize_t n;
    const char *s = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &n) : NULL;
    if (s == NULL) {
        PyErr_Clear();
        return NAME_FIELD;
    }
    if (n < 4 || s[0] != '_')
        return NAME_FIELD;
    if (memcmp(s, "_X__", 4) == 0)
        return NAME_LOCAL;
    if (s[1] == '_' && s[n - 1] == '_' && s[n - 2] == '_')
        return NAME_DUNDER;
    if (s[1] == 'p' && s[2] == '_') {
        int found = PySet_Contains(reserved_names, name);
        if (found < 0)
            PyErr_Clear();
        return found > 0 ? NAME_RESERVED : NAME_FIELD;
    }
    return NAME_FIELD;
}

/* What a field's value is read as. A deferred value (a weak reference, a function named by its import path, ...) is made at each read: whether it can be
 * made, and what of, may change while the object that holds it stays loaded. Steals `found`. */
PyObject *dbz_settle(PyObject *found)
{
    if (DBZ_LIKELY(found == NULL || Py_TYPE(found) != deferred_type))
        return found;
    PyObject *value = PyObject_CallMethod(found, "resolve", NULL);
    Py_DECREF(found);
    return value;
}

static PyObject *getattro_slow(PyObject *self, PyObject *name)
{
    Persistent *p = (Persistent *)self;
    switch (classify(name)) {
    case NAME_RESERVED:
        return PyObject_GenericGetAttr(self, name);
    case NAME_LOCAL:
        if (!(p->flags & (P_EXPIRED | P_CLOSED)))
            return PyObject_GenericGetAttr(self, name);
        break;
    case NAME_DUNDER: {
        PyObject *found = PyObject_GenericGetAttr(self, name);
        if (found != NULL || !(p->flags & P_GHOST) || !PyErr_ExceptionMatches(PyExc_AttributeError))
            return found;
        PyErr_Clear();
        break;
    }
    default:
        break;
    }
    if (dbz_load(p, 0) < 0)
        return NULL;
    return dbz_settle(PyObject_GenericGetAttr(self, name));
}

static PyObject *persistent_getattro(PyObject *self, PyObject *name)
{
    Persistent *p = (Persistent *)self;
    uint32_t flags = p->flags;
    if (DBZ_LIKELY((flags & (P_READ_SLOW | P_DEFERRED | P_USED)) == P_USED))    /* one test, and a tail call: the hot path */
        return PyObject_GenericGetAttr(self, name);
    if ((flags & P_READ_SLOW) && ((flags & P_READ_SLOW) != P_BLOCK || !dbz_block_mine()))
        return getattro_slow(self, name);
    p->flags |= P_USED;
    return dbz_settle(PyObject_GenericGetAttr(self, name));
}

static int store_locked(Persistent *p, PyObject *name, PyObject *value)
{
    PyObject *self = (PyObject *)p;
    if ((p->flags & P_READ_SLOW) && load_locked(p, 1) < 0)
        return -1;
    if (p->flags & P_LOADING)
        return PyObject_GenericSetAttr(self, name, value);
    if ((p->flags & P_IMMUTABLE) || (!(p->flags & P_INIT) && !p->view->writable))
        return dbz_refuse(p, 1);
    PyObject *stored = value;
    if (value != NULL && !dbz_is_atom(value)) {
        if (p->view == NULL)
            return dbz_refuse(p, 1);
        stored = PyObject_CallMethodObjArgs((PyObject *)p->view, dbz_s_convert, value, NULL);
        if (stored == NULL)
            return -1;
    } else {
        Py_XINCREF(stored);
    }
    int rc = dbz_touch(p);
    if (rc == 0 && !(p->flags & (P_INIT | P_DIRTY)))
        rc = dbz_mark_dirty(p);
    if (stored != NULL && Py_TYPE(stored) == deferred_type)
        p->flags |= P_DEFERRED;
    if (rc == 0)
        rc = PyObject_GenericSetAttr(self, name, stored);
    Py_XDECREF(stored);
    return rc;
}

static int setattro_slow(PyObject *self, PyObject *name, PyObject *value)
{
    Persistent *p = (Persistent *)self;
    if (!(p->flags & P_MEMO)) {
        if ((p->flags & P_READ_SLOW) && dbz_load(p, 1) < 0)
            return -1;
        return PyObject_GenericSetAttr(self, name, value);
    }
    int kind = classify(name);
    if (kind == NAME_LOCAL && !(p->flags & (P_EXPIRED | P_CLOSED)))
        return PyObject_GenericSetAttr(self, name, value);
    if (kind == NAME_DUNDER && (PyUnicode_Compare(name, dbz_s_class) == 0 || PyUnicode_Compare(name, dbz_s_dict) == 0)) {
        PyErr_Format(PyExc_AttributeError, "%U of a memo object cannot be replaced", name);
        return -1;
    }
    if (p->flags & (P_EXPIRED | P_CLOSED))
        return dbz_refuse(p, 1);
    int plain = dbz_is_plain_name(dbz_class_info(Py_TYPE(self)), Py_TYPE(self), name);
    if (plain < 0)
        return -1;
    if (!plain)
        return PyObject_GenericSetAttr(self, name, value);     /* a property: what its setter assigns comes back here */
    if (dbz_op_acquire() < 0)
        return -1;
    int rc = store_locked(p, name, value);
    dbz_op_release();
    return rc;
}

static int persistent_setattro(PyObject *self, PyObject *name, PyObject *value)
{
    Persistent *p = (Persistent *)self;
    uint32_t flags = p->flags;
    if (DBZ_LIKELY(!(flags & P_WRITE_SLOW) && value != NULL)) {
        if (!(flags & P_MEMO))
            return PyObject_GenericSetAttr(self, name, value);
        if ((flags & dbz_write_mask)
            && (dbz_is_atom(value)
                || (PyObject_TypeCheck(value, dbz_persistent_type) && p->view != NULL && ((Persistent *)value)->view == p->view
                    && !(((Persistent *)value)->flags & (P_EXPIRED | P_CLOSED)))))
            return PyObject_GenericSetAttr(self, name, value);
    }
    /* In the only frame that is open, what carries P_BLOCK is saved already. */
    if ((flags & P_WRITE_SLOW) == P_BLOCK && value != NULL && (flags & P_MEMO) && (flags & (P_DIRTY | P_INIT)) && dbz_is_atom(value) && dbz_block_frames() == 1
        && dbz_block_mine()) {
        p->view->changes++;
        return PyObject_GenericSetAttr(self, name, value);
    }
    return setattro_slow(self, name, value);
}

/* --- life -------------------------------------------------------------------------------------------------------------------------------- */

static PyObject *persistent_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if ((PyTuple_Size(args) > 0 || (kwargs != NULL && PyDict_Size(kwargs) > 0)) && (initproc)PyType_GetSlot(type, Py_tp_init) == object_init) {
        PyObject *name = PyObject_GetAttrString((PyObject *)type, "__qualname__");
        if (name != NULL)
            PyErr_Format(PyExc_TypeError, "%S() takes no arguments", name);
        Py_XDECREF(name);
        return NULL;
    }
    class_info *info = dbz_class_info(type);
    if (info == NULL && PyObject_TypeCheck((PyObject *)type, dbz_meta_type)) {
        PyErr_Format(PyExc_TypeError, "%R is not a registered memo type: decorate it with @db0.memo", type);
        return NULL;
    }
    Persistent *p = (Persistent *)object_new(type, dbz_empty_tuple, NULL);   /* refuses abstract classes */
    if (p == NULL)
        return NULL;
    p->flags = P_INIT | (info != NULL ? P_MEMO : 0);
    if (info != NULL) {
        p->view = dbz_current_view();
        Py_XINCREF(p->view);
    }
    return (PyObject *)p;
}

/* A memo object hashes by its identity in the store, so that it and its versions in snapshots hash alike. */
static Py_hash_t persistent_hash(PyObject *self)
{
    const Persistent *p = (Persistent *)self;
    uint64_t mixed = (uint64_t)(uintptr_t)self >> 4;
    if ((p->flags & P_MEMO) && p->view != NULL && p->oid != 0)
        mixed = (p->oid ^ p->view->uuid) * UINT64_C(0x9E3779B97F4A7C15);
    Py_hash_t hash = (Py_hash_t)(mixed ^ mixed >> 32);
    return hash == -1 ? -2 : hash;
}

/* Equal are an object and itself, and two versions of a memo object in snapshots of the same state. */
static PyObject *persistent_compare(PyObject *self, PyObject *other, int op)
{
    if ((op == Py_EQ || op == Py_NE) && self != other && PyObject_TypeCheck(other, dbz_persistent_type)) {
        const Persistent *a = (Persistent *)self, *b = (Persistent *)other;
        if ((a->flags & b->flags & P_MEMO) && a->oid == b->oid && a->view != NULL && b->view != NULL && a->view->frozen != 0
            && a->view->frozen == b->view->frozen && a->view->uuid == b->view->uuid)
            return PyBool_FromLong(op == Py_EQ);
    }
    Py_RETURN_NOTIMPLEMENTED;
}

static int persistent_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((Persistent *)self)->view);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

/* The subclass's dict is gone when this is called. The view stays: every cycle through it is broken by ViewCore's own tp_clear. */
static int persistent_clear(PyObject *self)
{
    Persistent *p = (Persistent *)self;
    if (p->view != NULL && !(p->flags & (P_INIT | P_EXPIRED | P_CLOSED))) {
        dbz_map_drop(p->view, p);
        p->flags |= P_UNMAPPED | P_GHOST;
    }
    return 0;
}

static void persistent_finalize(PyObject *self)
{
    Persistent *p = (Persistent *)self;
    if (p->view != NULL && !(p->flags & (P_INIT | P_EXPIRED | P_CLOSED))) {
        dbz_map_drop(p->view, p);
        p->flags |= P_UNMAPPED;
    }
}

static void persistent_dealloc(PyObject *self)
{
    Persistent *p = (Persistent *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    ViewCore *view = p->view;
    if (view != NULL) {
        dbz_map_drop(view, p);
        dbz_weigh(p, 0);
        if ((p->flags & P_ORPHAN) && !(p->flags & (P_EXPIRED | P_CLOSED)))
            dbz_orphan_died(view, p->oid);
        p->view = NULL;
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
    Py_XDECREF(view);
}

int dbz_changed(Persistent *p)
{
    if (DBZ_LIKELY((p->flags & dbz_write_mask) && !(p->flags & P_READ_SLOW)))
        return 0;
    if (dbz_op_acquire() < 0)
        return -1;
    int rc = p->flags & P_READ_SLOW ? load_locked(p, 1) : 0;
    if (rc == 0 && !(p->flags & (P_DIRTY | P_INIT | P_LOADING)) && !p->view->writable)
        rc = dbz_refuse(p, 1);
    if (rc == 0 && !(p->flags & P_LOADING))
        rc = dbz_touch(p);
    if (rc == 0 && !(p->flags & (P_DIRTY | P_INIT | P_LOADING)))
        rc = dbz_mark_dirty(p);
    dbz_op_release();
    return rc;
}

static PyObject *persistent_changed(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (dbz_changed((Persistent *)self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *persistent_activate(PyObject *self, PyObject *unused)
{
    (void)unused;
    Persistent *p = (Persistent *)self;
    if ((p->flags & P_READ_SLOW) && dbz_load(p, 0) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *persistent_no_copy(PyObject *self, PyObject *args)
{
    (void)args;
    PyErr_Format(PyExc_TypeError, "%R objects are stored objects: they cannot be copied or pickled; pass db0.uuid(obj) instead", Py_TYPE(self));
    return NULL;
}

static PyMethodDef persistent_methods[] = {
    {"_p_changed", persistent_changed, METH_NOARGS,
     "Note that the state is about to change: call it before the change, inside one operation. Raises ReadOnlyError, ClosedError or ReferenceError."},
    {"_p_activate", persistent_activate, METH_NOARGS, "Load the state if it is not in memory."},
    {"__copy__", persistent_no_copy, METH_VARARGS, NULL},
    {"__deepcopy__", persistent_no_copy, METH_VARARGS, NULL},
    {"__reduce__", persistent_no_copy, METH_VARARGS, NULL},
    {"__reduce_ex__", persistent_no_copy, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef persistent_members[] = {
    {"_p_oid", T_ULONGLONG, offsetof(Persistent, oid), READONLY, "object id in its prefix"},
    {"_p_flags", T_UINT, offsetof(Persistent, flags), READONLY, "state flags, see the module's constants"},
    {"_p_bytes", T_UINT, offsetof(Persistent, weight), READONLY, "bytes counted for it in its view's weight"},
    {"_p_view", T_OBJECT, offsetof(Persistent, view), READONLY, "the view it belongs to, or None"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot persistent_slots[] = {
    {Py_tp_new, persistent_new},
    {Py_tp_dealloc, persistent_dealloc},
    {Py_tp_finalize, persistent_finalize},
    {Py_tp_hash, persistent_hash},
    {Py_tp_richcompare, persistent_compare},
    {Py_tp_traverse, persistent_traverse},
    {Py_tp_clear, persistent_clear},
    {Py_tp_getattro, persistent_getattro},
    {Py_tp_setattro, persistent_setattro},
    {Py_tp_methods, persistent_methods},
    {Py_tp_members, persistent_members},
    {Py_tp_doc, "Base type of every stored object: an OID, state flags, and the view it belongs to."},
    {0, NULL},
};

static PyType_Spec persistent_spec = {
    "_persistent.Persistent", sizeof(Persistent), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, persistent_slots};

int dbz_persistent_ready(PyObject *module)
{
    object_new = (newfunc)PyType_GetSlot(&PyBaseObject_Type, Py_tp_new);
    object_init = (initproc)PyType_GetSlot(&PyBaseObject_Type, Py_tp_init);
    dbz_persistent_type = (PyTypeObject *)PyType_FromSpec(&persistent_spec);
    if (dbz_persistent_type == NULL)
        return -1;
    reserved_names = PySet_New(NULL);
    if (reserved_names == NULL)
        return -1;
    Py_INCREF(reserved_names);
    if (PyModule_AddObject(module, "reserved_names", reserved_names) < 0)
        return -1;
    Py_INCREF(dbz_persistent_type);
    return PyModule_AddObject(module, "Persistent", (PyObject *)dbz_persistent_type);
}

/* --- module ------------------------------------------------------------------------------------------------------------------------------ */

static int is_persistent(PyObject *obj)
{
    if (PyObject_TypeCheck(obj, dbz_persistent_type))
        return 1;
    PyErr_Format(PyExc_TypeError, "a stored object is needed, not %R", Py_TYPE(obj));
    return 0;
}

static PyObject *f_state(PyObject *module, PyObject *obj)
{
    (void)module;
    return is_persistent(obj) ? dbz_state(obj) : NULL;
}

static PyObject *f_clear_state(PyObject *module, PyObject *obj)
{
    (void)module;
    if (!is_persistent(obj) || clear_memo((Persistent *)obj) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *f_set_deferred_type(PyObject *module, PyObject *type)
{
    (void)module;
    if (!PyType_Check(type) || deferred_type != NULL) {
        PyErr_SetString(PyExc_TypeError, "the type of deferred values is needed, once");
        return NULL;
    }
    Py_INCREF(type);
    deferred_type = (PyTypeObject *)type;
    Py_RETURN_NONE;
}

static PyObject *f_set_dict_descriptor(PyObject *module, PyObject *descriptor)
{
    (void)module;
    descrsetfunc set = (descrsetfunc)PyType_GetSlot(Py_TYPE(descriptor), Py_tp_descr_set);
    if (set == NULL || dict_set != NULL) {
        PyErr_SetString(PyExc_TypeError, "the __dict__ descriptor is needed, once");
        return NULL;
    }
    Py_INCREF(descriptor);
    dict_descriptor = descriptor;
    dict_set = set;
    Py_RETURN_NONE;
}

/* 1: none of the names is a data descriptor of the type; 0: one is; -1. */
static int plain_names(PyTypeObject *type, PyObject *names)
{
    class_info *info = dbz_class_info(type);
    int plain = 1;
    for (Py_ssize_t i = 0; plain == 1 && i < PyTuple_Size(names); i++)
        plain = dbz_is_plain_name(info, type, PyTuple_GetItem(names, i));
    return plain;
}

int dbz_put_fields(PyObject *obj, PyObject *names, PyObject *values)
{
    Py_ssize_t n = PyTuple_Size(names);
    int plain = plain_names(Py_TYPE(obj), names), rc = plain < 0 ? -1 : 0;
    PyObject *state = plain ? NULL : dbz_state(obj);
    if (plain == 0 && state == NULL)
        return -1;
    for (Py_ssize_t i = 0; rc == 0 && i < n; i++) {
        PyObject *name = PyTuple_GetItem(names, i), *value = PyList_GetItem(values, i);
        if (Py_TYPE(value) == deferred_type)
            ((Persistent *)obj)->flags |= P_DEFERRED;
        rc = plain ? PyObject_GenericSetAttr(obj, name, value) : PyDict_SetItem(state, name, value);
    }
    Py_XDECREF(state);
    return rc;
}

static PyObject *f_fill(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *obj, *names, *values;
    if (!PyArg_ParseTuple(args, "OO!O!:fill", &obj, &PyTuple_Type, &names, &PyList_Type, &values) || !is_persistent(obj))
        return NULL;
    Py_ssize_t n = PyTuple_Size(names);
    if (n != PyList_Size(values)) {
        PyErr_SetString(PyExc_ValueError, "as many values as names are needed");
        return NULL;
    }
    if (dbz_put_fields(obj, names, values) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* The values of a memo object whose fields are exactly `names`, in that order, if all are atoms. None: it takes the long way. Also weighs the object. */
static PyObject *f_snapshot(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    if (n != 2 || !PyTuple_Check(args[1]) || !is_persistent(args[0])) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "snapshot() takes an object and a tuple of names");
        return NULL;
    }
    Persistent *p = (Persistent *)args[0];
    Py_ssize_t count = PyTuple_Size(args[1]), pos = 0, i = 0;
    PyObject *state = dbz_state(args[0]), *name, *value, *values = NULL;
    if (state == NULL)
        return NULL;
    if (PyDict_Size(state) != count || p->view == NULL || (values = PyList_New(count)) == NULL)
        goto other;
    uint64_t weight = 0;
    while (PyDict_Next(state, &pos, &name, &value)) {
        if (i >= count || name != PyTuple_GetItem(args[1], i) || !dbz_is_atom(value))
            goto other;
        Py_ssize_t length = PyUnicode_CheckExact(value) ? PyUnicode_GetLength(value) : PyBytes_CheckExact(value) ? PyBytes_Size(value) : 0;
        weight += 32 + (uint64_t)length;
        Py_INCREF(value);
        PyList_SetItem(values, i++, value);
    }
    if (i != count)
        goto other;
    Py_DECREF(state);
    if (!(p->flags & (P_GHOST | P_EXPIRED | P_CLOSED)))
        dbz_weigh(p, weight);
    return values;
other:
    Py_DECREF(state);
    Py_XDECREF(values);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *f_materialize(PyObject *module, PyObject *obj)
{
    (void)module;
    if (PyObject_TypeCheck(obj, dbz_persistent_type) && (((Persistent *)obj)->flags & P_INIT))
        ((Persistent *)obj)->flags |= P_MATERIALIZED;
    Py_INCREF(obj);
    return obj;
}

static PyMethodDef functions[] = {
    {"state", f_state, METH_O, "The real instance dict of a stored object, as it is (no load)."},
    {"clear_state", f_clear_state, METH_O, "Make a memo object a ghost; `_X__` names stay."},
    {"set_deferred_type", f_set_deferred_type, METH_O, "The exact type of values whose resolve() is what reading them gives."},
    {"set_dict_descriptor", f_set_dict_descriptor, METH_O, "The `__dict__` descriptor of the root of memo classes."},
    {"snapshot", (PyCFunction)(void (*)(void))f_snapshot, METH_FASTCALL,
     "snapshot(obj, names): the values of an object whose fields are exactly those, all of them atoms; else None."},
    {"fill", f_fill, METH_VARARGS, "fill(obj, names, values): put values into the instance dict, past descriptors and conversion."},
    {"materialize", f_materialize, METH_O, "Let an object under construction be put into collections. Returns its argument."},
    {NULL, NULL, 0, NULL},
};

static int add_names(PyObject *module)
{
    static const struct { PyObject **where; const char *text; } names[] = {
        {&dbz_s_dict, "__dict__"}, {&dbz_s_class, "__class__"}, {&dbz_s_load, "_load"}, {&dbz_s_convert, "_convert"}, {&dbz_s_refuse, "_refuse"},
        {&dbz_s_clear, "_p_clear"}, {&dbz_s_reserve, "_reserve_oids"}, {&dbz_s_first, "_first_dirty"}, {&dbz_s_mro, "__mro__"}, {&dbz_s_weight, "_p_weight"}};
    static const struct { const char *name; long value; } constants[] = {
        {"GHOST", P_GHOST}, {"LOADING", P_LOADING}, {"INIT", P_INIT}, {"NEW", P_NEW}, {"DIRTY", P_DIRTY}, {"EXPIRED", P_EXPIRED}, {"CLOSED", P_CLOSED},
        {"IMMUTABLE", P_IMMUTABLE}, {"MEMO", P_MEMO}, {"USED", P_USED}, {"ORPHAN", P_ORPHAN}, {"UNMAPPED", P_UNMAPPED}, {"BLOCK", P_BLOCK},
        {"MATERIALIZED", P_MATERIALIZED}, {"SAVING", P_SAVING}, {"CLASS_SLOW", C_SLOW}, {"CLASS_IMMUTABLE", C_IMMUTABLE}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((*names[i].where = PyUnicode_InternFromString(names[i].text)) == NULL)
            return -1;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    dbz_empty_tuple = PyTuple_New(0);
    return dbz_empty_tuple == NULL ? -1 : 0;
}

void dbz_raise(const char *kind, const char *format, ...)
{
    PyObject *errors = PyImport_ImportModule("dbzero.errors");
    PyObject *type = errors == NULL ? NULL : PyObject_GetAttrString(errors, kind);
    va_list arguments;
    va_start(arguments, format);
    if (type != NULL)
        PyErr_FormatV(type, format, arguments);
    va_end(arguments);
    Py_XDECREF(type);
    Py_XDECREF(errors);
}

static int execute(PyObject *module)
{
    static int64_t home = -1;      /* the tables are process-wide: one interpreter may use them */
    int64_t here = PyInterpreterState_GetID(PyInterpreterState_Get());
    if (home != -1) {
        PyErr_SetString(PyExc_ImportError, here == home ? "dbzero's base types are loaded already" : "dbzero cannot be used from a second interpreter of one process");
        return -1;
    }
    if (add_names(module) < 0 || dbz_lock_ready(module) < 0 || dbz_block_ready(module) < 0 || dbz_persistent_ready(module) < 0 || dbz_view_ready(module) < 0 || dbz_meta_ready(module) < 0
        || dbz_paths_ready(module) < 0 || dbz_stored_ready(module) < 0 || dbz_list_ready(module) < 0 || dbz_keyed_ready(module) < 0
        || PyModule_AddFunctions(module, dbz_meta_functions) < 0 || PyModule_AddFunctions(module, dbz_encode_functions) < 0
        || PyModule_AddFunctions(module, dbz_decode_functions) < 0 || PyModule_AddFunctions(module, dbz_oid_functions) < 0
        || PyModule_AddFunctions(module, dbz_move_functions) < 0 || dbz_words_ready(module) < 0
        || PyModule_AddFunctions(module, dbz_read_functions) < 0)
        return -1;
    home = here;
    return 0;
}

static PyModuleDef_Slot definition_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_persistent", "Base types of stored objects.", 0, functions, definition_slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__persistent(void)
{
    return PyModuleDef_Init(&definition);
}
