/* Moving a collection to another prefix, and what a commit would write.
 *
 * A stored object cannot change its prefix: others hold its OID. A wrapper can, as long as nothing stored refers to it: it takes the place of a counterpart made
 * in the other view, identity and all, and what its old identity had stored becomes an orphan. Whoever holds the wrapper in Python goes on holding the collection. */
#include "pytypes.h"

uint64_t dbz_moves;

static PyObject **place_in_dirty(const ViewCore *v, const Persistent *p)
{
    for (size_t i = v->dirty_count; i-- > 0;)
        if (v->dirty[i] == (PyObject *)p)
            return v->dirty + i;
    return NULL;
}

/* Places on the dirty lists are marks of atomic blocks, so each wrapper takes the other's. Atomic: between the checks and the end nothing runs that may run
 * Python code. */
static PyObject *f_move(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *obj, *counterpart;
    if (!PyArg_ParseTuple(args, "O!O!:move", dbz_persistent_type, &obj, dbz_persistent_type, &counterpart))
        return NULL;
    Persistent *p = (Persistent *)obj, *q = (Persistent *)counterpart;
    ViewCore *old = p->view, *v = q->view;
    if (old == NULL || v == NULL || old == v || Py_TYPE(p) != Py_TYPE(q) || (p->flags & ((P_READ_SLOW & ~(uint32_t)P_BLOCK) | P_INIT | P_MEMO))
        || !(q->flags & P_NEW) || !(q->flags & P_DIRTY) || (q->flags & ((P_READ_SLOW & ~(uint32_t)P_BLOCK) | P_INIT | P_SAVING))) {
        PyErr_SetString(PyExc_ValueError, "move() needs a loaded collection and a new one of its type in another view");
        return NULL;
    }
    if ((p->flags | q->flags) & P_BLOCK)
        Py_RETURN_FALSE;
    PyObject **ours = p->flags & P_DIRTY ? place_in_dirty(old, p) : NULL, **theirs = place_in_dirty(v, q);
    if (theirs == NULL || ((p->flags & P_DIRTY) && ours == NULL)) {
        PyErr_SetString(PyExc_SystemError, "a dirty object is on no dirty list");
        return NULL;
    }
    int stored = !(p->flags & P_NEW) || (p->flags & P_SAVING);
    dbz_map_drop(old, p);
    dbz_weigh(p, 0);
    dbz_weigh(q, 0);
    if (stored)
        dbz_orphan_died(old, p->oid);
    p->oid = q->oid;
    p->view = v;                        /* they swap their references to the views */
    p->flags = P_NEW | P_DIRTY | (p->flags & P_DEFERRED) | (q->flags & P_DEFERRED);
    (void)dbz_map_put(v, p);            /* replaces q's entry, so it needs no room */
    q->view = old;
    q->oid = 0;
    q->flags = P_EXPIRED;               /* a commit passes it over */
    *theirs = obj;
    if (ours != NULL) {
        *ours = counterpart;            /* they swap the lists' references, too */
    } else {
        Py_INCREF(obj);
        Py_DECREF(counterpart);
    }
    dbz_moves++;
    Py_RETURN_TRUE;
}

static PyObject *f_dirty_objects(PyObject *module, PyObject *view)
{
    (void)module;
    if (!PyObject_TypeCheck(view, dbz_view_type)) {
        PyErr_SetString(PyExc_TypeError, "dirty_objects() needs a view");
        return NULL;
    }
    const ViewCore *v = (const ViewCore *)view;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < v->dirty_count; i++)
        if (!(((Persistent *)v->dirty[i])->flags & P_EXPIRED) && PyList_Append(list, v->dirty[i]) < 0)
            Py_CLEAR(list);
    return list;
}

PyMethodDef dbz_move_functions[] = {
    {"move", f_move, METH_VARARGS, "move(collection, counterpart): the collection takes the place of a new one in another view, which expires. False in an atomic block, which could not take it back."},
    {"dirty_objects", f_dirty_objects, METH_O, "What the next commit of a view will take."},
    {NULL, NULL, 0, NULL},
};
