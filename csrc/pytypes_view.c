/* ViewCore: the type, the dirty list and eviction. The identity map's operations stand in pytypes_map.c; the essay on borrowed pointers stands above
 * struct ViewCore in pytypes.h.
 *
 * Only an insertion rebuilds the map, so walks over its slots that run foreign code between two of them (eviction) use an index and look at the table
 * afresh each time. */
#include "pytypes.h"
#include <stddef.h>
#include <stdlib.h>

#define OVERHEAD 160    /* bytes counted for a loaded object beside its payload */

void dbz_weigh(Persistent *p, uint64_t weight)
{
    uint32_t counted = weight == 0 ? 0 : weight > UINT32_MAX - OVERHEAD ? UINT32_MAX : (uint32_t)weight + OVERHEAD;
    p->view->weight += counted;
    p->view->weight -= p->weight;
    p->weight = counted;
}

static int push_oid(uint64_t **list, size_t *count, size_t *room, uint64_t oid)
{
    if (*count == *room) {
        size_t more = *room ? *room * 2 : 64;
        uint64_t *grown = realloc(*list, more * sizeof *grown);
        if (grown == NULL)
            return -1;
        *list = grown;
        *room = more;
    }
    (*list)[(*count)++] = oid;
    return 0;
}

void dbz_orphan_died(ViewCore *v, uint64_t oid)
{
    if (!v->closed)
        (void)push_oid(&v->orphans, &v->orphan_count, &v->orphan_room, oid);   /* out of memory: the next writer finds it again */
}

/* gcc 12's analyzer takes v->dirty for lost here, though v outlives the call. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wanalyzer-malloc-leak"
#endif
static int push_dirty(ViewCore *v, Persistent *p)
{
    if (v->dirty_count == v->dirty_room) {
        size_t room = v->dirty_room ? v->dirty_room * 2 : 256;
        PyObject **grown = realloc(v->dirty, room * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        v->dirty = grown;
        v->dirty_room = room;
    }
    p->flags |= P_DIRTY;
    v->pushes++;
    Py_INCREF(p);
    v->dirty[v->dirty_count++] = (PyObject *)p;
    return 0;
}

int dbz_mark_dirty(Persistent *p)
{
    if (p->view->dirty_count == 0) {
        PyObject *r = PyObject_CallMethodObjArgs((PyObject *)p->view, dbz_s_first, NULL);
        if (r == NULL)
            return -1;
        Py_DECREF(r);
        if (p->flags & P_DIRTY)
            return 0;
        if (p->flags & (P_GHOST | P_EXPIRED | P_CLOSED))
            return dbz_load(p, 1) < 0 ? -1 : dbz_mark_dirty(p);     /* the hook moved the view */
    }
    return push_dirty(p->view, p);
}

uint64_t dbz_next_oid(ViewCore *v)
{
    if (v->next_oid == v->end_oid) {
        PyObject *r = PyObject_CallMethodObjArgs((PyObject *)v, dbz_s_reserve, NULL);
        if (r == NULL)
            return 0;
        unsigned long long first, count;
        int ok = PyArg_ParseTuple(r, "KK:_reserve_oids", &first, &count);
        Py_DECREF(r);
        if (!ok)
            return 0;
        if (first == 0 || count == 0 || first >> 48 || count >> 48 || first + count > (UINT64_C(1) << 48)) {
            PyErr_SetString(PyExc_SystemError, "_reserve_oids() gave no usable object ids");
            return 0;
        }
        v->next_oid = first;
        v->end_oid = first + count;
    }
    return v->next_oid++;
}

int dbz_adopt(ViewCore *v, Persistent *p)
{
    if (v->closed || !v->writable)
        return dbz_refuse(p, 1);
    Persistent *there = dbz_map_get(v, p->oid);
    if (there != NULL && there != p) {
        PyErr_Format(PyExc_SystemError, "object id %llu is taken", (unsigned long long)p->oid);
        return -1;
    }
    if (dbz_write_mask == 0 && (dbz_touch(p) < 0 || dbz_block_created(p) < 0))
        return -1;
    p->flags = (p->flags & ~(uint32_t)(P_INIT | P_MATERIALIZED)) | P_NEW;
    if (!(p->flags & P_DIRTY) && dbz_mark_dirty(p) < 0) {
        p->flags |= P_INIT;
        return -1;
    }
    return dbz_map_put(v, p);
}

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

int dbz_evict(ViewCore *v, uint64_t target, PyObject *keep)
{
    if (v->evicting)
        return 0;
    v->evicting = 1;
    Py_INCREF(v);
    int rc = 0;
    for (size_t steps = 0; v->weight > target && steps < 2 * v->capacity; steps++) {
        if (v->hand >= v->capacity)
            v->hand = 0;
        Persistent *p = v->slots[v->hand++].object;
        if (p == NULL || (PyObject *)p == keep || Py_REFCNT(p) == 0 || (p->flags & P_PINNED))
            continue;
        if (p->flags & P_USED) {
            p->flags &= ~(uint32_t)P_USED;
            continue;
        }
        Py_INCREF(p);
        rc = dbz_ghostify(p);
        Py_DECREF(p);
        if (rc < 0)
            break;
    }
    v->evicting = 0;
    Py_DECREF(v);
    return rc;
}

int dbz_trim(ViewCore *v, PyObject *keep)
{
    if (v->limit == 0 || v->weight <= v->limit || v->weight <= v->stuck + v->limit / 8)
        return 0;
    int rc = dbz_evict(v, v->limit - v->limit / 8, keep);
    v->stuck = v->weight > v->limit ? v->weight : 0;
    return rc;
}

/* --- the type ---------------------------------------------------------------------------------------------------------------------------- */

static Persistent *persistent_arg(PyObject *obj, const ViewCore *v)
{
    if (!PyObject_TypeCheck(obj, dbz_persistent_type)) {
        PyErr_Format(PyExc_TypeError, "a stored object is needed, not %R", Py_TYPE(obj));
        return NULL;
    }
    Persistent *p = (Persistent *)obj;
    if (v != NULL && p->view != v) {
        PyErr_SetString(PyExc_ValueError, "the object belongs to another view");
        return NULL;
    }
    return p;
}

static int oid_arg(PyObject *obj, uint64_t *oid)
{
    *oid = PyLong_AsUnsignedLongLong(obj);
    if (PyErr_Occurred())
        return -1;
    if (*oid == 0 || *oid >> 48) {
        PyErr_Format(PyExc_ValueError, "%R is no object id", obj);
        return -1;
    }
    return 0;
}

PyObject *dbz_ghost(ViewCore *v, PyObject *type, uint64_t oid)
{
    Persistent *p = dbz_map_get(v, oid);
    if (p != NULL) {
        Py_INCREF(p);
        return (PyObject *)p;
    }
    if (!PyType_IsSubtype((PyTypeObject *)type, dbz_persistent_type)) {
        PyErr_Format(PyExc_TypeError, "%R is no type of stored objects", type);
        return NULL;
    }
    if (v->closed) {
        dbz_raise("ClosedError", "the prefix was closed; open it again and fetch the object anew"); /* by another thread, in the middle of an operation of ours */
        return NULL;
    }
    class_info *info = dbz_class_info((PyTypeObject *)type);
    uint32_t flags = P_GHOST | (info == NULL ? 0 : P_MEMO) | (info != NULL && (info->flags & C_IMMUTABLE) ? P_IMMUTABLE : 0);
    PyObject *made = dbz_alloc((PyTypeObject *)type, v, oid, flags);
    if (made == NULL)
        return NULL;
    p = dbz_map_get(v, oid);    /* the allocation may have run a collection, and that anything */
    if (p != NULL) {
        Py_INCREF(p);
        ((Persistent *)made)->flags |= P_EXPIRED;
        Py_DECREF(made);
        return (PyObject *)p;
    }
    if (dbz_map_put(v, (Persistent *)made) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}

static PyObject *view_ghost(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    uint64_t oid;
    if (n != 2 || !PyType_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "ghost() takes a class and an object id");
        return NULL;
    }
    if (oid_arg(args[1], &oid) < 0)
        return NULL;
    return dbz_ghost((ViewCore *)self, args[0], oid);
}

static PyObject *view_peek(PyObject *self, PyObject *number)
{
    uint64_t oid;
    if (oid_arg(number, &oid) < 0)
        return NULL;
    PyObject *p = (PyObject *)dbz_map_get((ViewCore *)self, oid);
    if (p == NULL)
        p = Py_None;
    Py_INCREF(p);
    return p;
}

static PyObject *view_adopt(PyObject *self, PyObject *args)
{
    ViewCore *v = (ViewCore *)self;
    PyObject *obj, *number = NULL;
    uint64_t oid = 0;
    if (!PyArg_ParseTuple(args, "O|O:adopt", &obj, &number) || (number != NULL && oid_arg(number, &oid) < 0))
        return NULL;
    Persistent *p = persistent_arg(obj, NULL);
    if (p == NULL)
        return NULL;
    if (!(p->flags & P_INIT) || (p->view != NULL && p->view != v)) {
        PyErr_SetString(PyExc_ValueError, "the object belongs to a view already");
        return NULL;
    }
    if (p->view == NULL) {
        Py_INCREF(v);
        p->view = v;
    }
    if (oid != 0)
        p->oid = oid;
    else if (p->oid == 0 && (p->oid = dbz_next_oid(v)) == 0)
        return NULL;
    if (dbz_adopt(v, p) < 0)
        return NULL;
    Py_INCREF(obj);
    return obj;
}

static PyObject *view_take_dirty(PyObject *self, PyObject *unused)
{
    (void)unused;
    ViewCore *v = (ViewCore *)self;
    PyObject *list = PyList_New(0);
    if (list == NULL)
        return NULL;
    PyObject **taken = v->dirty;
    size_t count = v->dirty_count, i, late = 0;
    for (i = 0; i < count; i++) {
        if (((Persistent *)taken[i])->flags & P_EXPIRED)
            continue;
        if (PyList_Append(list, taken[i]) < 0 || push_oid(&v->saving, &v->saving_count, &v->saving_room, ((Persistent *)taken[i])->oid) < 0) {
            Py_DECREF(list);    /* nothing was changed yet */
            return PyErr_NoMemory();
        }
        late += i < v->scanned;
    }
    v->late = late;
    v->dirty = NULL;
    v->dirty_count = v->dirty_room = v->scanned = 0;
    for (i = 0; i < count; i++)
        ((Persistent *)taken[i])->flags = (((Persistent *)taken[i])->flags & ~(uint32_t)P_DIRTY) | P_SAVING;
    for (i = 0; i < count; i++)
        Py_DECREF(taken[i]);
    free(taken);
    return list;
}

static PyObject *view_put_back(PyObject *self, PyObject *list)
{
    ViewCore *v = (ViewCore *)self;
    if (!PyList_Check(list)) {
        PyErr_SetString(PyExc_TypeError, "put_back() needs the list of take_dirty()");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_Size(list); i++) {
        Persistent *p = persistent_arg(PyList_GetItem(list, i), NULL);
        if (p == NULL)
            return NULL;
        if (p->view != v)
            continue;       /* moved to another prefix meanwhile */
        p->flags &= ~(uint32_t)P_SAVING;
        if (!(p->flags & (P_DIRTY | P_EXPIRED | P_CLOSED)) && push_dirty(v, p) < 0)
            return NULL;
    }
    size_t kept = 0;
    for (size_t i = 0; i < v->saving_count; i++) {
        const Persistent *p = dbz_map_get(v, v->saving[i]);
        if (p != NULL && (p->flags & P_SAVING))
            v->saving[kept++] = v->saving[i];
    }
    v->saving_count = kept;
    Py_RETURN_NONE;
}

static void settle(Persistent *p, uint64_t weight)
{
    p->flags &= ~(uint32_t)(P_SAVING | P_NEW);
    if (!(p->flags & (P_GHOST | P_EXPIRED | P_CLOSED)))
        dbz_weigh(p, weight);
}

/* What a loaded object of the machinery or a collection weighs; for memo objects the encoder has said it. */
static uint64_t measured(Persistent *p)
{
    if ((p->flags & P_MEMO) || !PyObject_HasAttr((PyObject *)p, dbz_s_weight))
        return p->weight > OVERHEAD ? p->weight - OVERHEAD : OVERHEAD;
    PyObject *r = PyObject_CallMethodObjArgs((PyObject *)p, dbz_s_weight, NULL);
    unsigned long long weight = r == NULL ? OVERHEAD : PyLong_AsUnsignedLongLong(r);
    Py_XDECREF(r);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        weight = OVERHEAD;
    }
    return weight != 0 ? weight : p->weight > OVERHEAD ? p->weight - OVERHEAD : OVERHEAD;
}

static PyObject *view_settle_all(PyObject *self, PyObject *unused)
{
    (void)unused;
    ViewCore *v = (ViewCore *)self;
    if (dbz_op_acquire() < 0)
        return NULL;
    uint64_t *saving = v->saving;
    size_t count = v->saving_count;
    v->saving = NULL;
    v->saving_count = v->saving_room = 0;
    for (size_t i = 0; i < count; i++) {
        Persistent *p = dbz_map_get(v, saving[i]);
        if (p == NULL || !(p->flags & P_SAVING))
            continue;
        Py_INCREF(p);
        settle(p, p->flags & (P_GHOST | P_EXPIRED | P_CLOSED) ? 0 : measured(p));
        Py_DECREF(p);
    }
    free(saving);
    v->stuck = 0;
    int rc = dbz_op_outermost() ? dbz_trim(v, NULL) : 0;
    dbz_op_release();
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *view_weigh(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    Persistent *p = n == 2 ? persistent_arg(args[0], (ViewCore *)self) : NULL;
    if (p == NULL) {
        if (n != 2)
            PyErr_SetString(PyExc_TypeError, "weigh() takes an object and a number of bytes");
        return NULL;
    }
    unsigned long long weight = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    if (!(p->flags & (P_GHOST | P_EXPIRED | P_CLOSED)))
        dbz_weigh(p, weight);
    Py_RETURN_NONE;
}

static PyObject *view_admit_unfinished(PyObject *self, PyObject *obj)
{
    ViewCore *v = (ViewCore *)self;
    Persistent *p = persistent_arg(obj, v);
    if (p == NULL)
        return NULL;
    if ((p->flags & P_INIT) && !(p->flags & (P_DIRTY | P_SAVING | P_EXPIRED)) && p->oid != 0) {
        if (dbz_touch(p) < 0 || dbz_map_put(v, p) < 0)
            return NULL;
        p->flags |= P_NEW;
        if (push_dirty(v, p) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *view_settle(PyObject *self, PyObject *args)
{
    PyObject *obj, *number;
    if (!PyArg_ParseTuple(args, "OO!:settle", &obj, &PyLong_Type, &number))
        return NULL;
    unsigned long long weight = PyLong_AsUnsignedLongLong(number);
    Persistent *p = PyErr_Occurred() ? NULL : persistent_arg(obj, (ViewCore *)self);
    if (p == NULL)
        return NULL;
    settle(p, weight);
    Py_RETURN_NONE;
}

static PyObject *view_held(PyObject *self, PyObject *args)
{
    PyObject *number;
    Py_ssize_t extra = 0;
    uint64_t oid;
    if (!PyArg_ParseTuple(args, "O|n:held", &number, &extra) || oid_arg(number, &oid) < 0)
        return NULL;
    const Persistent *p = dbz_map_get((ViewCore *)self, oid);
    return PyBool_FromLong(p != NULL && Py_REFCNT(p) > extra);
}

static PyObject *view_mark_orphan(PyObject *self, PyObject *number)
{
    uint64_t oid;
    if (oid_arg(number, &oid) < 0)
        return NULL;
    Persistent *p = dbz_map_get((ViewCore *)self, oid);
    if (p != NULL)
        p->flags |= P_ORPHAN;
    else
        dbz_orphan_died((ViewCore *)self, oid);
    Py_RETURN_NONE;
}

static PyObject *view_unmark_orphan(PyObject *self, PyObject *number)
{
    uint64_t oid;
    if (oid_arg(number, &oid) < 0)
        return NULL;
    Persistent *p = dbz_map_get((ViewCore *)self, oid);
    if (p != NULL)
        p->flags &= ~(uint32_t)P_ORPHAN;
    Py_RETURN_NONE;
}

static PyObject *view_dead_orphans(PyObject *self, PyObject *unused)
{
    (void)unused;
    ViewCore *v = (ViewCore *)self;
    uint64_t *dead = v->orphans;
    size_t count = v->orphan_count;
    v->orphans = NULL;
    v->orphan_count = v->orphan_room = 0;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < count; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(dead[i]);
        if (number == NULL || PyList_Append(list, number) < 0)
            Py_CLEAR(list);
        Py_XDECREF(number);
    }
    free(dead);
    return list;
}

static PyObject *view_invalidate(PyObject *self, PyObject *oids)
{
    ViewCore *v = (ViewCore *)self;
    PyObject *walk = PyObject_GetIter(oids), *number;
    if (walk == NULL || dbz_op_acquire() < 0) {
        Py_XDECREF(walk);
        return NULL;
    }
    long count = 0;
    while ((number = PyIter_Next(walk)) != NULL) {
        uint64_t oid;
        int rc = oid_arg(number, &oid);
        Py_DECREF(number);
        if (rc < 0)
            break;
        Persistent *p = dbz_map_get(v, oid);
        if (p == NULL || (p->flags & P_PINNED))
            continue;
        Py_INCREF(p);
        rc = dbz_ghostify(p);
        Py_DECREF(p);
        if (rc < 0)
            break;
        count++;
    }
    dbz_op_release();
    Py_DECREF(walk);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(count);
}

static PyObject *view_evict(PyObject *self, PyObject *target)
{
    ViewCore *v = (ViewCore *)self;
    uint64_t bytes = PyLong_AsUnsignedLongLong(target);
    if (PyErr_Occurred() || dbz_op_acquire() < 0)
        return NULL;
    int rc = dbz_evict(v, bytes, NULL);
    dbz_op_release();
    return rc < 0 ? NULL : PyLong_FromUnsignedLongLong(v->weight);
}

static PyObject *view_expire(PyObject *self, PyObject *obj)
{
    ViewCore *v = (ViewCore *)self;
    Persistent *p = persistent_arg(obj, v);
    if (p == NULL || dbz_op_acquire() < 0)
        return NULL;
    int rc = dbz_touch(p);
    if (rc < 0) {
        dbz_op_release();
        return NULL;
    }
    rc = p->flags & (P_GHOST | P_INIT | P_LOADING | P_EXPIRED) ? 0 : dbz_ghostify(p);
    dbz_map_drop(v, p);
    p->flags |= P_EXPIRED;
    dbz_op_release();
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void drop_dirty(ViewCore *v)
{
    PyObject **dirty = v->dirty;
    size_t count = v->dirty_count;
    v->dirty = NULL;
    v->dirty_count = v->dirty_room = v->scanned = 0;
    for (size_t i = 0; i < count; i++)
        ((Persistent *)dirty[i])->flags &= ~(uint32_t)P_DIRTY;
    for (size_t i = 0; i < count; i++)
        Py_DECREF(dirty[i]);
    free(dirty);
}

void dbz_truncate_dirty(ViewCore *v, size_t count)
{
    while (v->dirty_count > count) {
        Persistent *p = (Persistent *)v->dirty[--v->dirty_count];
        p->flags &= ~(uint32_t)P_DIRTY;
        Py_DECREF(p);
    }
    if (v->scanned > v->dirty_count)
        v->scanned = v->dirty_count;
}

static PyObject *view_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    ViewCore *v = (ViewCore *)self;
    if (dbz_op_acquire() < 0)
        return NULL;
    v->closed = 1;
    v->writable = 0;
    v->orphan_count = 0;
    for (size_t i = 0; i < v->capacity; i++)
        if (v->slots[i].object != NULL)
            v->slots[i].object->flags |= P_CLOSED;
    free(v->slots);
    v->slots = NULL;
    v->capacity = v->live = v->filled = v->hand = 0;
    drop_dirty(v);
    dbz_op_release();
    Py_RETURN_NONE;
}

static PyObject *view_forget_oids(PyObject *self, PyObject *unused)
{
    (void)unused;
    ((ViewCore *)self)->next_oid = ((ViewCore *)self)->end_oid = 0;
    Py_RETURN_NONE;
}

static PyObject *view_discard_dirty(PyObject *self, PyObject *unused)
{
    (void)unused;
    ViewCore *v = (ViewCore *)self;
    if (dbz_op_acquire() < 0)
        return NULL;
    PyObject *list = view_take_dirty(self, NULL);
    /* What an unsettled commit took counts as well: its objects show what no state of this view has. */
    uint64_t *saving = v->saving;
    size_t count = v->saving_count;
    v->saving = NULL;
    v->saving_count = v->saving_room = 0;
    v->stuck = 0;
    int rc = list == NULL ? -1 : 0;
    for (size_t i = 0; i < count; i++) {
        Persistent *p = dbz_map_get(v, saving[i]);
        if (p == NULL || !(p->flags & P_SAVING))
            continue;
        Py_INCREF(p);
        p->flags &= ~(uint32_t)P_SAVING;
        if (p->flags & P_NEW) {
            dbz_map_drop(v, p);
            p->flags |= P_EXPIRED;
        } else if (!(p->flags & P_GHOST) && dbz_ghostify(p) < 0) {
            rc = -1;
        }
        Py_DECREF(p);
    }
    free(saving);
    dbz_op_release();
    Py_XDECREF(list);
    if (rc < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *view_objects(PyObject *self, PyObject *unused)
{
    (void)unused;
    ViewCore *v = (ViewCore *)self;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < v->capacity; i++) {
        Persistent *p = v->slots[i].object;
        if (p != NULL && Py_REFCNT(p) > 0 && PyList_Append(list, (PyObject *)p) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyMethodDef view_methods[] = {
    {"ghost", (PyCFunction)(void (*)(void))view_ghost, METH_FASTCALL, "ghost(cls, oid): the live object of that OID, or a new ghost of class cls."},
    {"peek", view_peek, METH_O, "The live object of an OID, or None."},
    {"adopt", view_adopt, METH_VARARGS, "adopt(obj, oid=None): make a finished new object part of the view: OID, map, NEW and DIRTY. Returns it."},
    {"take_dirty", view_take_dirty, METH_NOARGS, "The dirty objects as a list; they are clean and SAVING from now on, until settle() or put_back()."},
    {"put_back", view_put_back, METH_O, "The commit failed: the objects of take_dirty()'s list are dirty again."},
    {"settle", view_settle, METH_VARARGS, "settle(obj, payload bytes): the object's commit is published."},
    {"settle_all", view_settle_all, METH_NOARGS, "settle() for everything taken and not put back."},
    {"weigh", (PyCFunction)(void (*)(void))view_weigh, METH_FASTCALL, "weigh(obj, bytes): what a loaded object counts in the view's weight."},
    {"admit_unfinished", view_admit_unfinished, METH_O, "A stored reference needs this object under construction: it goes into the commit as it is."},
    {"forget_oids", view_forget_oids, METH_NOARGS, "Reserve object ids anew before the next object is made: those in stock may be somebody else's."},
    {"discard_dirty", view_discard_dirty, METH_NOARGS, "Forget uncommitted changes: changed objects become ghosts, new ones expire."},
    {"held", view_held, METH_VARARGS, "held(oid, extra=0): whether a wrapper exists with more than `extra` references."},
    {"mark_orphan", view_mark_orphan, METH_O, "The stored refcount of this OID is 0: report it when its wrapper dies."},
    {"unmark_orphan", view_unmark_orphan, METH_O, "The stored refcount of this OID is above 0 again."},
    {"dead_orphans", view_dead_orphans, METH_NOARGS, "OIDs of orphans whose wrapper died since the last call."},
    {"invalidate", view_invalidate, METH_O, "invalidate(oids): loaded clean objects become ghosts. Returns how many did."},
    {"evict", view_evict, METH_O, "evict(bytes): ghosts are made of clean objects (CLOCK) until no more than that is loaded. Returns the weight left."},
    {"expire", view_expire, METH_O, "The object was deleted: every further access raises ReferenceError."},
    {"close", view_close, METH_NOARGS, "Drop everything; objects still held raise ClosedError from now on."},
    {"objects", view_objects, METH_NOARGS, "All live objects of the view, for checks and status."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef view_members[] = {
    {"writable", T_BOOL, offsetof(ViewCore, writable), 0, "whether objects may be changed"},
    {"closed", T_BOOL, offsetof(ViewCore, closed), READONLY, "close() was called"},
    {"weight", T_ULONGLONG, offsetof(ViewCore, weight), READONLY, "bytes counted for loaded objects"},
    {"late", T_ULONGLONG, offsetof(ViewCore, late), READONLY, "place in the last take_dirty() list from which on take_new() has not seen it"},
    {"uuid", T_ULONGLONG, offsetof(ViewCore, uuid), 0, "uuid of the prefix"},
    {"frozen", T_ULONGLONG, offsetof(ViewCore, frozen), 0, "state that a snapshot's view shows for good; 0: a live view"},
    {"codes", T_OBJECT, offsetof(ViewCore, codes), 0, "class -> class code of references to its objects"},
    {"changes", T_ULONGLONG, offsetof(ViewCore, changes), READONLY, "changes counted while somebody watched"},
    {"limit", T_ULONGLONG, offsetof(ViewCore, limit), 0, "loaded bytes above which a load evicts; 0: no limit"},
    {NULL, 0, 0, 0, NULL},
};

static PyObject *get_dirty_count(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((ViewCore *)self)->dirty_count);
}

static PyObject *get_live(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((ViewCore *)self)->live);
}

static PyObject *get_orphan_count(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((ViewCore *)self)->orphan_count);
}

static PyObject *get_quiet(PyObject *self, void *unused)
{
    (void)unused;
    const ViewCore *v = (const ViewCore *)self;
    if (v->dirty_count > 0 || v->saving_count > 0)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(v->pushes);
}

static PyGetSetDef view_getset[] = {
    {"quiet", get_quiet, NULL, "None while objects are dirty or being saved; else a number that grows with every object that becomes dirty", NULL},
    {"orphan_count", get_orphan_count, NULL, "dead orphans that dead_orphans() would report", NULL},
    {"dirty_count", get_dirty_count, NULL, "objects on the dirty list", NULL},
    {"live_count", get_live, NULL, "objects in the identity map", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static int view_traverse(PyObject *self, visitproc visit, void *arg)
{
    const ViewCore *v = (ViewCore *)self;
    for (size_t i = 0; i < v->dirty_count; i++)
        Py_VISIT(v->dirty[i]);
    Py_VISIT(v->codes);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int view_clear(PyObject *self)
{
    drop_dirty((ViewCore *)self);
    Py_CLEAR(((ViewCore *)self)->codes);
    return 0;
}

static void view_dealloc(PyObject *self)
{
    ViewCore *v = (ViewCore *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    drop_dirty(v);
    Py_CLEAR(v->codes);
    free(v->slots);
    free(v->orphans);
    free(v->saving);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyType_Slot view_slots[] = {
    {Py_tp_methods, view_methods},
    {Py_tp_members, view_members},
    {Py_tp_getset, view_getset},
    {Py_tp_traverse, view_traverse},
    {Py_tp_clear, view_clear},
    {Py_tp_dealloc, view_dealloc},
    {Py_tp_doc, "Identity map, dirty list and eviction of one prefix's live objects."},
    {0, NULL},
};

static PyType_Spec view_spec = {
    "_persistent.ViewCore", sizeof(ViewCore), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, view_slots};

int dbz_view_ready(PyObject *module)
{
    dbz_view_type = (PyTypeObject *)PyType_FromSpec(&view_spec);
    if (dbz_view_type == NULL)
        return -1;
    Py_INCREF(dbz_view_type);
    return PyModule_AddObject(module, "ViewCore", (PyObject *)dbz_view_type);
}
