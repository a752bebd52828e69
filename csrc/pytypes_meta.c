/* MemoMeta: the metatype of memo classes. Its tp_call is construction.
 *
 * What C must know of a class at each call stands in a table keyed by the type's address. An entry goes in the metatype's finalizer, so a later
 * type at the same address is unknown until it is registered itself; an undecorated subclass of a memo class has no entry, and is refused. */
#include "pytypes.h"
#include <stdlib.h>

static class_info *table;
static size_t table_capacity, table_live;
static uint64_t class_version = 1;  /* grows when an attribute of any memo class is set */
static ViewCore *current_view;      /* strong; where plain classes are created */
static PyObject *construct_hook;    /* hook(cls, args, kwargs) for everything that is not the plain case */
static setattrofunc type_setattro_base;

static size_t spread(const void *p)
{
    return (size_t)(((uint64_t)(uintptr_t)p * UINT64_C(0x9E3779B97F4A7C15)) >> 24);
}

class_info *dbz_class_info(PyTypeObject *type)
{
    if (table_capacity == 0)
        return NULL;
    size_t mask = table_capacity - 1;
    for (size_t i = spread(type) & mask; table[i].type != NULL; i = (i + 1) & mask)
        if (table[i].type == type)
            return &table[i];
    return NULL;
}

static int table_put(PyTypeObject *type, uint32_t flags)
{
    class_info *info = dbz_class_info(type);
    if (info != NULL) {
        info->flags = flags;
        return 0;
    }
    if ((table_live + 1) * 2 > table_capacity) {
        size_t capacity = table_capacity ? table_capacity * 2 : 256;
        class_info *grown = calloc(capacity, sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        for (size_t i = 0; i < table_capacity; i++) {
            if (table[i].type == NULL)
                continue;
            size_t j = spread(table[i].type) & (capacity - 1);
            while (grown[j].type != NULL)
                j = (j + 1) & (capacity - 1);
            grown[j] = table[i];
        }
        free(table);
        table = grown;
        table_capacity = capacity;
    }
    PyObject *plain = PySet_New(NULL);
    if (plain == NULL)
        return -1;
    size_t i = spread(type) & (table_capacity - 1);
    while (table[i].type != NULL)
        i = (i + 1) & (table_capacity - 1);
    table[i] = (class_info){type, flags, class_version, plain};
    table_live++;
    return 0;
}

static void table_drop(PyTypeObject *type)
{
    class_info *info = dbz_class_info(type);
    if (info == NULL)
        return;
    PyObject *plain = info->plain;
    size_t mask = table_capacity - 1, hole = (size_t)(info - table);
    for (size_t i = (hole + 1) & mask; table[i].type != NULL; i = (i + 1) & mask) {     /* backward shift: no deleted marks */
        size_t home = spread(table[i].type) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            table[hole] = table[i];
            hole = i;
        }
    }
    table[hole] = (class_info){NULL, 0, 0, NULL};
    table_live--;
    Py_DECREF(plain);
}

int dbz_is_plain_name(class_info *info, PyTypeObject *type, PyObject *name)
{
    if (info != NULL) {
        if (info->version != class_version) {
            if (PySet_Clear(info->plain) < 0)
                return -1;
            info->version = class_version;
        }
        int known = PySet_Contains(info->plain, name);
        if (known != 0)
            return known;
    }
    PyObject *mro = PyObject_GetAttr((PyObject *)type, dbz_s_mro);
    if (mro == NULL)
        return -1;
    int plain = 1;
    for (Py_ssize_t i = 0; plain == 1 && i < PyTuple_Size(mro); i++) {
        PyObject *names = PyObject_GetAttr(PyTuple_GetItem(mro, i), dbz_s_dict);
        if (names == NULL) {
            plain = -1;
            break;
        }
        int has = PySequence_Contains(names, name);
        PyObject *found = has > 0 ? PyObject_GetItem(names, name) : NULL;
        Py_DECREF(names);
        if (has < 0 || (has > 0 && found == NULL)) {
            plain = -1;
        } else if (found != NULL) {
            PyTypeObject *t = Py_TYPE(found);
            int data = t != &PyLong_Type && t != &PyUnicode_Type && t != &PyFloat_Type && found != Py_None
                && PyObject_HasAttrString((PyObject *)t, "__set__");
            Py_DECREF(found);
            plain = data ? 0 : 2;
        }
    }
    Py_DECREF(mro);
    if (plain > 0) {
        plain = 1;
        info = dbz_class_info(type);    /* the table may have moved meanwhile */
        if (info != NULL && info->version == class_version && PyUnicode_CheckExact(name) && PySet_Size(info->plain) < 4096
            && PySet_Add(info->plain, name) < 0)
            return -1;
    }
    return plain;
}

ViewCore *dbz_shown_view(void)
{
    return current_view;
}

ViewCore *dbz_current_view(void)
{
    return current_view != NULL && current_view->writable ? current_view : NULL;
}

/* --- construction ------------------------------------------------------------------------------------------------------------------------ */

/* A collection that this object took in its __init__ went to another prefix before the object was finished: convert anew, which says so. */
static int convert_moved(Persistent *p)
{
    PyObject *fields = dbz_state((PyObject *)p);
    PyObject *items = fields == NULL ? NULL : PyDict_Items(fields);
    int rc = items == NULL ? -1 : 0;
    for (Py_ssize_t i = 0; rc == 0 && i < PyList_Size(items); i++) {
        PyObject *item = PyList_GetItem(items, i), *value = PyTuple_GetItem(item, 1);
        if (!PyObject_TypeCheck(value, dbz_persistent_type) || ((Persistent *)value)->view == p->view)
            continue;
        PyObject *converted = PyObject_CallMethodObjArgs((PyObject *)p->view, dbz_s_convert, value, NULL);
        rc = converted == NULL ? -1 : PyDict_SetItem(fields, PyTuple_GetItem(item, 0), converted);
        Py_XDECREF(converted);
    }
    Py_XDECREF(items);
    Py_XDECREF(fields);
    return rc;
}

/* The construction of an object failed. If a commit has taken it, the view takes it out of what is stored. Whoever kept a reference holds a dead one, which
 * holds nothing itself. Keeps the exception that is set. */
static void abandon(Persistent *p)
{
    PyObject *kind, *value, *trace, *r;
    PyErr_Fetch(&kind, &value, &trace);
    if (p->view != NULL && dbz_map_get(p->view, p->oid) == p) {
        PyObject *name = PyUnicode_FromString("_abandon");
        r = name == NULL ? NULL : PyObject_CallMethodObjArgs((PyObject *)p->view, name, (PyObject *)p, NULL);
        if (r == NULL)
            PyErr_WriteUnraisable((PyObject *)p->view);
        Py_XDECREF(r);
        Py_XDECREF(name);
    }
    p->flags |= P_EXPIRED;
    if (dbz_ghostify(p) < 0)
        PyErr_WriteUnraisable((PyObject *)p->view);
    PyErr_Restore(kind, value, trace);
}

/* preset: a dict of fields that the object has before its __init__ runs, or NULL. */
static PyObject *construct(PyTypeObject *cls, ViewCore *view, PyObject *args, PyObject *kwargs, PyObject *preset)
{
    newfunc make = (newfunc)PyType_GetSlot(cls, Py_tp_new);
    PyObject *obj = make(cls, args, kwargs);
    if (obj == NULL || !PyObject_TypeCheck(obj, cls))
        return obj;
    Persistent *p = (Persistent *)obj;
    int fresh = (p->flags & P_INIT) && p->oid == 0;
    if (fresh) {
        if (p->view != view) {
            Py_INCREF(view);
            Py_XDECREF(p->view);
            p->view = view;
        }
        if ((p->oid = dbz_next_oid(view)) == 0) {
            Py_DECREF(obj);
            return NULL;
        }
        if (dbz_write_mask == 0 && dbz_block_frames() > 0 && dbz_block_mine() && dbz_block_created(p) < 0) {
            Py_DECREF(obj);
            return NULL;
        }
        if (preset != NULL) {
            PyObject *fields = dbz_state(obj);
            int rc = fields == NULL ? -1 : PyDict_Update(fields, preset);
            Py_XDECREF(fields);
            if (rc < 0) {
                Py_DECREF(obj);
                return NULL;
            }
        }
    }
    uint64_t moves = dbz_moves;
    initproc init = (initproc)PyType_GetSlot(Py_TYPE(obj), Py_tp_init);
    if (init(obj, args, kwargs) < 0)
        goto fail;
    if (!fresh || !(p->flags & P_INIT))
        return obj;
    if (dbz_moves != moves && convert_moved(p) < 0)
        goto fail;
    /* Another thread's block must not take it for its own, nor a commit that has begun. With nobody at work, and something dirty already, adoption runs no Python
     * code and so is whole without the lock. */
    int alone = DBZ_LIKELY(dbz_write_mask != 0 && p->view->dirty_count > 0 && dbz_op_free());
    if (!alone && dbz_op_acquire() < 0)
        goto fail;
    int rc = dbz_adopt(p->view, p);
    if (!alone)
        dbz_op_release();
    if (rc < 0)
        goto fail;
    class_info *info = dbz_class_info(Py_TYPE(obj));
    if (info != NULL && (info->flags & C_IMMUTABLE))
        p->flags |= P_IMMUTABLE;
    return obj;
fail:
    if (fresh && (p->flags & P_INIT))
        abandon(p);
    Py_DECREF(obj);
    return NULL;
}

static PyObject *meta_call(PyObject *cls, PyObject *args, PyObject *kwargs)
{
    class_info *info = dbz_class_info((PyTypeObject *)cls);
    if (DBZ_LIKELY(info != NULL && !(info->flags & C_SLOW) && current_view != NULL && current_view->writable)) {
        ViewCore *view = current_view;
        Py_INCREF(view);
        PyObject *made = construct((PyTypeObject *)cls, view, args, kwargs, NULL);
        Py_DECREF(view);
        return made;
    }
    if (construct_hook == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "dbzero not initialized");
        return NULL;
    }
    return PyObject_CallFunctionObjArgs(construct_hook, cls, args, kwargs != NULL ? kwargs : Py_None, NULL);
}

static void meta_finalize(PyObject *cls)
{
    table_drop((PyTypeObject *)cls);
}

static int meta_setattro(PyObject *cls, PyObject *name, PyObject *value)
{
    class_version++;
    return type_setattro_base(cls, name, value);
}

static PyType_Slot meta_slots[] = {
    {Py_tp_call, meta_call},
    {Py_tp_finalize, meta_finalize},
    {Py_tp_setattro, meta_setattro},
    {Py_tp_doc, "Metatype of memo classes."},
    {0, NULL},
};

static PyType_Spec meta_spec = {"_persistent.MemoMeta", 0, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, meta_slots};

static PyObject *f_register_class(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *cls;
    unsigned int flags;
    if (!PyArg_ParseTuple(args, "O!I:register_class", dbz_meta_type, &cls, &flags))
        return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)cls, dbz_persistent_type)) {
        PyErr_Format(PyExc_TypeError, "%R is no type of stored objects", cls);
        return NULL;
    }
    if (table_put((PyTypeObject *)cls, flags) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *f_class_flags(PyObject *module, PyObject *cls)
{
    (void)module;
    class_info *info = PyType_Check(cls) ? dbz_class_info((PyTypeObject *)cls) : NULL;
    if (info == NULL)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLong(info->flags);
}

static PyObject *f_set_current_view(PyObject *module, PyObject *view)
{
    (void)module;
    if (view != Py_None && !PyObject_TypeCheck(view, dbz_view_type)) {
        PyErr_SetString(PyExc_TypeError, "a view or None is needed");
        return NULL;
    }
    ViewCore *old = current_view;
    current_view = view == Py_None ? NULL : (ViewCore *)view;
    Py_XINCREF(current_view);
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

static PyObject *f_set_construct_hook(PyObject *module, PyObject *hook)
{
    (void)module;
    PyObject *old = construct_hook;
    Py_INCREF(hook);
    construct_hook = hook;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

static PyObject *f_construct(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *cls, *view, *positional, *named, *preset = NULL;
    if (!PyArg_ParseTuple(args, "O!O!O!O|O!:construct", dbz_meta_type, &cls, dbz_view_type, &view, &PyTuple_Type, &positional, &named, &PyDict_Type, &preset))
        return NULL;
    if (named != Py_None && !PyDict_Check(named)) {
        PyErr_SetString(PyExc_TypeError, "keyword arguments must be a dict or None");
        return NULL;
    }
    if (dbz_class_info((PyTypeObject *)cls) == NULL) {
        PyErr_Format(PyExc_TypeError, "%R is not a registered memo type: decorate it with @db0.memo", cls);
        return NULL;
    }
    return construct((PyTypeObject *)cls, (ViewCore *)view, positional, named == Py_None ? NULL : named, preset);
}

static PyObject *f_rebind(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *obj, *view;
    if (!PyArg_ParseTuple(args, "O!O!:rebind", dbz_persistent_type, &obj, dbz_view_type, &view))
        return NULL;
    Persistent *p = (Persistent *)obj;
    if (!(p->flags & P_INIT)) {
        PyErr_SetString(PyExc_ValueError, "the object is constructed already");
        return NULL;
    }
    uint64_t oid = dbz_next_oid((ViewCore *)view);
    if (oid == 0)
        return NULL;
    PyObject *old = (PyObject *)p->view;
    Py_INCREF(view);
    p->view = (ViewCore *)view;
    p->oid = oid;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

PyMethodDef dbz_meta_functions[] = {
    {"register_class", f_register_class, METH_VARARGS, "register_class(cls, flags): instances of cls may be created."},
    {"class_flags", f_class_flags, METH_O, "The flags a class was registered with, or None."},
    {"set_current_view", f_set_current_view, METH_O, "The view plain classes create in; None: ask the construct hook."},
    {"set_construct_hook", f_set_construct_hook, METH_O, "hook(cls, args, kwargs or None) makes what the fast path does not."},
    {"construct", f_construct, METH_VARARGS, "construct(cls, view, args, kwargs or None[, fields]): make an object in that view, which has these fields before __init__ runs."},
    {"rebind", f_rebind, METH_VARARGS, "rebind(obj, view): move an object under construction to another view."},
    {NULL, NULL, 0, NULL},
};

int dbz_meta_ready(PyObject *module)
{
    type_setattro_base = (setattrofunc)PyType_GetSlot(&PyType_Type, Py_tp_setattro);
    PyObject *bases = PyTuple_Pack(1, (PyObject *)&PyType_Type);
    if (bases == NULL)
        return -1;
    dbz_meta_type = (PyTypeObject *)PyType_FromSpecWithBases(&meta_spec, bases);
    Py_DECREF(bases);
    if (dbz_meta_type == NULL)
        return -1;
    Py_INCREF(dbz_meta_type);
    return PyModule_AddObject(module, "MemoMeta", (PyObject *)dbz_meta_type);
}
