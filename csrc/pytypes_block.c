/* Atomic blocks: a stack of undo logs (frames, save-points), one for the whole process. Only the holder of the operation lock has one open, and holds that
 * lock from begin to end.
 *
 * The first change of an object within a frame saves how to put it back; from then on, until the block ends, it carries P_BLOCK, which sends every access to
 * the slow way: the owner's passes there, another thread's waits for the lock. While a block is open dbz_write_mask is 0, so that no write passes unseen.
 * Both together: outside of blocks nothing costs more than the load of a variable, and begin takes constant time.
 *
 * What is kept of an object, and how it is put back:
 *   STORED   it was as the store has it: it becomes a ghost again;
 *   PENDING  it had uncommitted changes, or a commit that is not settled took it: its fields, or what _p_save() returns;
 *   CREATED  made in the frame: it expires.
 * Dirty lists only grow inside a block (commits wait or are refused), so a mark for each view and truncation put them back. */
#include "pytypes.h"
#include <stdlib.h>
#include <string.h>

enum { STORED, PENDING, CREATED };
enum { ATTEMPTS = 3 };      /* a signal handler may raise while an object is being put back */
#define RESTORED (P_INIT | P_NEW | P_DIRTY | P_SAVING | P_MATERIALIZED | P_IMMUTABLE | P_EXPIRED)

typedef struct {
    Persistent *object;     /* strong; NULL: taken out */
    PyObject *state;        /* PENDING: (names, values) of a memo object, else what its _p_save() returned */
    uint32_t flags;
    unsigned char kind, mapped;
} entry;

typedef struct {
    ViewCore *view;         /* strong */
    size_t mark;            /* length of its dirty list */
    PyObject *saved;        /* what its _block_save() returned */
} view_entry;

typedef struct {
    entry *entries;
    size_t count, room;
    size_t *slots;          /* open addressing: entry number + 1 by object */
    size_t capacity;
    view_entry *views;
    size_t view_count, view_room;
    PyObject *block;        /* what begin was given for it */
    unsigned long base;     /* dbz_block_base before it */
} frame;

uint32_t dbz_write_mask = P_DIRTY | P_INIT;
static frame *frames;
static size_t frame_count, frame_room;
static unsigned long watchers;          /* who wants to know of every change: locked blocks */
static PyObject *token, *get_token;     /* the owner's context has `token` in a context variable */
static PyObject *owner_task;            /* and runs in this asyncio task, or None */
static PyObject *running_loop, *current_task;
static PyObject *s_copy, *s_put_back, *s_reverted, *s_save, *s_restore, *s_asyncio, *s_begin, *s_finish;

static void set_mask(void)
{
    dbz_write_mask = frame_count > 0 || watchers > 0 ? 0 : P_DIRTY | P_INIT;
}

size_t dbz_block_frames(void)
{
    return frame_count;
}

/* --- ownership --------------------------------------------------------------------------------------------------------------------------- */

/* The running asyncio task, None, or NULL with an exception. asyncio is looked at only when the program has imported it. */
static PyObject *task_now(void)
{
    if (running_loop == NULL) {
        PyObject *module = PyImport_GetModule(s_asyncio);
        if (module == NULL) {
            if (PyErr_Occurred())
                return NULL;
            Py_INCREF(Py_None);
            return Py_None;
        }
        PyObject *loop = PyObject_GetAttrString(module, "_get_running_loop"), *task = PyObject_GetAttrString(module, "current_task");
        Py_DECREF(module);
        if (loop == NULL || task == NULL) {
            PyErr_Clear();      /* it is being imported: no loop of it runs yet */
            Py_XDECREF(loop);
            Py_XDECREF(task);
            Py_INCREF(Py_None);
            return Py_None;
        }
        running_loop = loop;
        current_task = task;
    }
    PyObject *loop = PyObject_CallNoArgs(running_loop);
    if (loop == NULL || loop == Py_None)
        return loop;
    Py_DECREF(loop);
    return PyObject_CallNoArgs(current_task);
}

/* 1: the block belongs to another context than the running one; 0; -1. For the thread that holds the operation lock. */
static int foreign(void)
{
    PyObject *here = PyObject_CallNoArgs(get_token);
    if (here == NULL)
        return -1;
    int other = here != token;
    Py_DECREF(here);
    if (other)
        return 1;
    PyObject *task = task_now();
    if (task == NULL)
        return -1;
    other = task != owner_task;
    Py_DECREF(task);
    return other;
}

int dbz_block_admits(void)
{
    if (frame_count == 0 || token == NULL)
        return 0;
    int other = foreign();
    if (other <= 0)
        return other;
    dbz_raise("AtomicError", "an atomic block of another task of this thread is open: let it end first; `async with db0.atomic()` waits for its turn");
    return -1;
}

int dbz_block_mine(void)
{
    if (!dbz_op_mine())
        return 0;
    if (dbz_op_inside())
        return 1;
    int other = token == NULL ? 0 : foreign();
    if (other < 0)
        PyErr_Clear();      /* the slow way meets it again and raises it */
    return other == 0;
}

/* --- the log ----------------------------------------------------------------------------------------------------------------------------- */

static size_t place_of(const frame *f, const Persistent *p)
{
    size_t mask = f->capacity - 1, i = (size_t)(((uintptr_t)p >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 20) & mask;
    while (f->slots[i] != 0 && f->entries[f->slots[i] - 1].object != p)
        i = (i + 1) & mask;
    return i;
}

static entry *find(const frame *f, const Persistent *p)
{
    if (f->capacity == 0)
        return NULL;
    size_t slot = f->slots[place_of(f, p)];
    return slot == 0 ? NULL : &f->entries[slot - 1];
}

static int make_room(frame *f)
{
    if (f->count == f->room) {
        size_t room = f->room ? f->room * 2 : 32;
        entry *grown = realloc(f->entries, room * sizeof *grown);
        if (grown == NULL)
            return -1;
        f->entries = grown;
        f->room = room;
    }
    if ((f->count + 1) * 2 <= f->capacity)
        return 0;
    size_t capacity = f->capacity ? f->capacity * 2 : 64, *old = f->slots;
    size_t *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL)
        return -1;
    f->slots = slots;
    f->capacity = capacity;
    for (size_t i = 0; i < f->count; i++)
        if (f->entries[i].object != NULL)
            f->slots[place_of(f, f->entries[i].object)] = i + 1;
    free(old);
    return 0;
}

/* Takes over the references that `e` has. */
static int put(frame *f, entry e)
{
    if (make_room(f) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    f->entries[f->count++] = e;
    f->slots[place_of(f, e.object)] = f->count;
    e.object->flags |= P_BLOCK;
    return 0;
}

static int room_for_view(frame *f)
{
    if (f->view_count == f->view_room) {
        size_t room = f->view_room ? f->view_room * 2 : 4;
        view_entry *grown = realloc(f->views, room * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        f->views = grown;
        f->view_room = room;
    }
    return 0;
}

static int has_view(const frame *f, const ViewCore *v)
{
    for (size_t i = 0; i < f->view_count; i++)
        if (f->views[i].view == v)
            return 1;
    return 0;
}

static int enter_view(frame *f, ViewCore *v)
{
    if (has_view(f, v))
        return 0;
    PyObject *saved = PyObject_CallMethodObjArgs((PyObject *)v, s_save, NULL);
    if (saved == NULL)
        return -1;
    if (room_for_view(f) < 0) {
        Py_DECREF(saved);
        return -1;
    }
    Py_INCREF(v);
    f->views[f->view_count].view = v;
    f->views[f->view_count].mark = v->dirty_count;
    f->views[f->view_count++].saved = saved;
    return 0;
}

static PyObject *fields_of(Persistent *p)
{
    PyObject *state = dbz_state((PyObject *)p), *name, *value;
    if (state == NULL)
        return NULL;
    PyObject *names = PyList_New(0), *values = PyList_New(0), *tuple = NULL, *pair = NULL;
    Py_ssize_t pos = 0;
    int rc = names == NULL || values == NULL ? -1 : 0;
    while (rc == 0 && PyDict_Next(state, &pos, &name, &value))
        if (!dbz_is_local_name(name))
            rc = PyList_Append(names, name) < 0 || PyList_Append(values, value) < 0 ? -1 : 0;
    if (rc == 0 && (tuple = PyList_AsTuple(names)) != NULL)
        pair = PyTuple_Pack(2, tuple, values);
    Py_XDECREF(tuple);
    Py_XDECREF(names);
    Py_XDECREF(values);
    Py_DECREF(state);
    return pair;
}

static int save(Persistent *p, int kind)
{
    size_t level = frame_count;
    if (enter_view(&frames[level - 1], p->view) < 0)
        return -1;
    entry e = {p, NULL, p->flags, (unsigned char)kind, 0};
    if (kind != CREATED && (p->flags & (P_DIRTY | P_NEW | P_SAVING | P_INIT))) {
        e.kind = PENDING;
        e.state = p->flags & P_MEMO ? fields_of(p) : PyObject_CallMethodObjArgs((PyObject *)p, s_copy, NULL);
        if (e.state == NULL)
            return -1;
    }
    e.mapped = dbz_map_get(p->view, p->oid) == p;
    Py_INCREF(p);
    if (frame_count != level || find(&frames[level - 1], p) != NULL || put(&frames[level - 1], e) < 0) {    /* saving ran Python code */
        Py_DECREF(p);
        Py_XDECREF(e.state);
        return PyErr_Occurred() ? -1 : 0;
    }
    return 0;
}

int dbz_touch_slow(Persistent *p)
{
    if (p->view == NULL)
        return 0;
    p->view->changes++;
    if (frame_count == 0 || (p->flags & (P_EXPIRED | P_CLOSED)))
        return 0;
    if ((p->flags & P_BLOCK) && find(&frames[frame_count - 1], p) != NULL)
        return 0;
    return save(p, STORED);
}

int dbz_block_created(Persistent *p)
{
    if (frame_count == 0 || p->view == NULL)
        return 0;
    if (!(p->flags & P_BLOCK))
        return save(p, CREATED);
    for (size_t i = 0; i < frame_count; i++) {
        entry *e = find(&frames[i], p);     /* it was under construction when that frame first met it: it is made in that frame */
        if (e != NULL && (e->flags & P_INIT)) {
            Py_CLEAR(e->state);
            e->kind = CREATED;
        }
    }
    return 0;
}

static int held_below(size_t level, const Persistent *p)
{
    for (size_t i = 0; i < level; i++)
        if (find(&frames[i], p) != NULL)
            return 1;
    return 0;
}

static void free_frame(frame *f)
{
    for (size_t i = 0; i < f->count; i++) {
        Py_XDECREF(f->entries[i].object);
        Py_XDECREF(f->entries[i].state);
    }
    for (size_t i = 0; i < f->view_count; i++) {
        Py_XDECREF(f->views[i].view);
        Py_XDECREF(f->views[i].saved);
    }
    Py_XDECREF(f->block);
    free(f->entries);
    free(f->slots);
    free(f->views);
}

/* --- putting back ------------------------------------------------------------------------------------------------------------------------ */

/* The first exception met, kept while the work goes on. */
typedef struct {
    PyObject *type, *value, *trace;
} failure;

static void keep(failure *first)
{
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (first->type == NULL) {
        first->type = type;
        first->value = value;
        first->trace = trace;
        return;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
}

/* Who it is. */
static void restore_identity(entry *e, failure *first)
{
    Persistent *p = e->object;
    if (p->flags & P_CLOSED)
        return;
    if (e->kind == CREATED) {
        dbz_map_drop(p->view, p);
        p->flags = (p->flags & ~(uint32_t)P_NEW) | P_EXPIRED;
        return;
    }
    p->flags = (p->flags & ~(uint32_t)RESTORED) | (e->flags & RESTORED);
    Persistent *there = dbz_map_get(p->view, p->oid);
    if (!e->mapped) {
        dbz_map_drop(p->view, p);
    } else if (there != p) {
        if (there != NULL)
            there->flags |= P_EXPIRED;      /* made for a stale reference while p was deleted */
        if (dbz_map_put(p->view, p) < 0)
            keep(first);
    }
}

static int put_back(Persistent *p, PyObject *saved)
{
    p->flags = (p->flags & ~(uint32_t)P_GHOST) | P_LOADING;
    PyObject *r = PyObject_CallMethodObjArgs((PyObject *)p, s_put_back, saved, NULL);
    p->flags &= ~(uint32_t)P_LOADING;
    if (r == NULL) {
        p->flags |= P_GHOST;
        return -1;
    }
    Py_DECREF(r);
    return 0;
}

static int restore_state(const entry *e, failure *first)
{
    Persistent *p = e->object;
    if (p->flags & P_CLOSED)
        return 0;
    int loaded = !(p->flags & P_GHOST) && ((p->flags & P_MEMO) || !(p->flags & P_INIT));
    if (loaded && dbz_ghostify(p) < 0) {
        keep(first);
        if (dbz_ghostify(p) < 0) {      /* the first attempt came to its end and was interrupted then: nothing is left to clear */
            keep(first);
            p->flags |= P_GHOST;
        }
    }
    if (e->kind != PENDING)
        return 0;
    if (!(p->flags & P_MEMO))
        return put_back(p, e->state);
    if (dbz_put_fields((PyObject *)p, PyTuple_GetItem(e->state, 0), PyTuple_GetItem(e->state, 1)) < 0)
        return -1;
    p->flags &= ~(uint32_t)P_GHOST;
    return 0;
}

static void tell_reverted(Persistent *p, failure *first)
{
    PyObject *hook = p->flags & (P_MEMO | P_CLOSED) ? NULL : PyObject_GetAttr((PyObject *)Py_TYPE(p), s_reverted);
    if (hook == NULL) {
        PyErr_Clear();
        return;
    }
    PyObject *r = NULL;
    for (int i = 0; r == NULL && i < ATTEMPTS; i++)
        if ((r = PyObject_CallFunctionObjArgs(hook, (PyObject *)p, NULL)) == NULL)
            keep(first);
    Py_XDECREF(r);
    Py_DECREF(hook);
}

static int concerns(const entry *e, const ViewCore *only)
{
    return e->object != NULL && (only == NULL || e->object->view == only);
}

/* Put back what frame `level` has of the view `only`, or (NULL) of all. Its entries stay; they are done with. */
static void restore(size_t level, const ViewCore *only, failure *first)
{
    frame *f = &frames[level];
    for (size_t i = 0; i < f->view_count; i++)
        if ((only == NULL || f->views[i].view == only) && !f->views[i].view->closed)
            dbz_truncate_dirty(f->views[i].view, f->views[i].mark);
    for (size_t i = 0; i < f->count; i++)
        if (concerns(&f->entries[i], only))
            restore_identity(&f->entries[i], first);
    /* Running Python code can add to no frame: whoever might is waiting for the lock, or is this code. Putting back changes no other object. */
    size_t count = f->count;
    for (size_t i = 0; i < count; i++) {
        if (!concerns(&frames[level].entries[i], only))
            continue;
        int rc = -1;
        for (int k = 0; rc < 0 && k < ATTEMPTS; k++)
            if ((rc = restore_state(&frames[level].entries[i], first)) < 0)
                keep(first);
        if (rc < 0)
            frames[level].entries[i].object->flags |= P_EXPIRED;    /* better gone than wrong; the error says so */
    }
    for (size_t i = 0; i < count; i++)
        if (concerns(&frames[level].entries[i], only))
            tell_reverted(frames[level].entries[i].object, first);
    for (size_t i = 0; i < frames[level].view_count; i++) {
        const view_entry *v = &frames[level].views[i];
        if ((only != NULL && v->view != only) || v->view->closed)
            continue;
        PyObject *r = NULL;
        for (int k = 0; r == NULL && k < ATTEMPTS; k++)
            if ((r = PyObject_CallMethodObjArgs((PyObject *)v->view, s_restore, v->saved, NULL)) == NULL)
                keep(first);
        Py_XDECREF(r);
    }
    for (size_t i = 0; i < count; i++) {
        Persistent *p = frames[level].entries[i].object;
        if (concerns(&frames[level].entries[i], only) && !held_below(level, p))
            p->flags &= ~(uint32_t)P_BLOCK;
    }
}

/* --- begin and end ----------------------------------------------------------------------------------------------------------------------- */

static PyObject *f_begin(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *fresh, *block;
    if (!PyArg_ParseTuple(args, "OO:block_begin", &fresh, &block))
        return NULL;
    if (get_token == NULL || !dbz_op_inside()) {
        PyErr_SetString(PyExc_SystemError, "a block begins under the operation lock");
        return NULL;
    }
    PyObject *task = frame_count == 0 ? task_now() : NULL;
    if (frame_count == 0 && task == NULL)
        return NULL;
    if (frame_count == frame_room) {
        size_t room = frame_room ? frame_room * 2 : 8;
        frame *grown = realloc(frames, room * sizeof *grown);
        if (grown == NULL) {
            Py_XDECREF(task);
            return PyErr_NoMemory();
        }
        frames = grown;
        frame_room = room;
    }
    if (dbz_op_acquire() < 0) {
        Py_XDECREF(task);
        return NULL;
    }
    frame *f = &frames[frame_count];
    memset(f, 0, sizeof *f);
    f->base = dbz_block_base;
    Py_INCREF(block);
    f->block = block;
    if (frame_count++ == 0) {
        Py_INCREF(fresh);
        token = fresh;
        owner_task = task;
    }
    dbz_block_base = dbz_op_depth() - 1;    /* the caller's operation ends yet */
    set_mask();
    return PyLong_FromSize_t(frame_count);
}

/* The innermost frame is done with: forget it, and give back the hold that it has on the operation lock. */
static void leave(void)
{
    frame gone = frames[--frame_count];
    dbz_block_base = gone.base;
    PyObject *old_token = NULL, *old_task = NULL;
    if (frame_count == 0) {
        old_token = token;
        old_task = owner_task;
        token = owner_task = NULL;
    }
    set_mask();
    free_frame(&gone);      /* may run any code: what only the log still held dies */
    Py_XDECREF(old_token);
    Py_XDECREF(old_task);
    if (dbz_op_mine())
        dbz_op_release();
}

static int merge_down(void)
{
    frame *inner = &frames[frame_count - 1], *outer = inner - 1;
    for (size_t i = 0; i < inner->view_count; i++) {
        if (has_view(outer, inner->views[i].view))
            continue;
        if (room_for_view(outer) < 0)
            return -1;
        outer->views[outer->view_count++] = inner->views[i];
        Py_INCREF(inner->views[i].view);
        Py_INCREF(inner->views[i].saved);
    }
    for (size_t i = 0; i < inner->count; i++) {
        entry *e = &inner->entries[i];
        if (e->object == NULL || find(outer, e->object) != NULL)
            continue;
        if (put(outer, *e) < 0)
            return -1;
        e->object = NULL;       /* its references went along */
        e->state = NULL;
    }
    return 0;
}

static PyObject *views_of(const frame *f)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < f->view_count; i++)
        if (PyList_Append(list, (PyObject *)f->views[i].view) < 0)
            Py_CLEAR(list);
    return list;
}

static PyObject *f_keep(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (frame_count == 0) {
        PyErr_SetString(PyExc_SystemError, "no block is open");
        return NULL;
    }
    dbz_op_unwind();
    PyObject *views = views_of(&frames[frame_count - 1]);
    if (views == NULL)
        return NULL;
    if (frame_count > 1) {
        if (merge_down() < 0) {     /* nothing is lost: a repeated call goes on where this one stopped */
            Py_DECREF(views);
            return NULL;
        }
    } else {
        const frame *f = &frames[0];
        for (size_t i = 0; i < f->count; i++)
            if (f->entries[i].object != NULL)
                f->entries[i].object->flags &= ~(uint32_t)P_BLOCK;
    }
    leave();
    return views;
}

static PyObject *result_of(const failure *first)
{
    if (first->type == NULL)
        Py_RETURN_NONE;
    PyErr_Restore(first->type, first->value, first->trace);
    return NULL;
}

static PyObject *f_revert(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    if (frame_count == 0) {
        PyErr_SetString(PyExc_SystemError, "no block is open");
        return NULL;
    }
    dbz_op_unwind();
    failure first = {NULL, NULL, NULL};
    restore(frame_count - 1, NULL, &first);
    leave();
    return result_of(&first);
}

static PyObject *f_revert_view(PyObject *module, PyObject *view)
{
    (void)module;
    if (!PyObject_TypeCheck(view, dbz_view_type)) {
        PyErr_SetString(PyExc_TypeError, "a view is needed");
        return NULL;
    }
    failure first = {NULL, NULL, NULL};
    for (size_t level = frame_count; level-- > 0;) {
        restore(level, (ViewCore *)view, &first);
        frame *f = &frames[level];
        for (size_t i = 0; i < f->count; i++) {
            entry *e = &f->entries[i];
            if (!concerns(e, (ViewCore *)view))
                continue;
            Persistent *p = e->object;
            e->object = NULL;
            Py_CLEAR(e->state);
            Py_DECREF(p);
            f = &frames[level];
        }
        memset(f->slots, 0, f->capacity * sizeof *f->slots);
        for (size_t i = 0; i < f->count; i++)
            if (f->entries[i].object != NULL)
                f->slots[place_of(f, f->entries[i].object)] = i + 1;
        for (size_t i = 0; i < f->view_count; i++) {
            if (f->views[i].view != (ViewCore *)view)
                continue;
            view_entry gone = f->views[i];
            f->views[i] = f->views[--f->view_count];
            Py_DECREF(gone.saved);
            Py_DECREF(gone.view);
            break;
        }
    }
    return result_of(&first);
}

static PyObject *f_open(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < frame_count; i++)
        if (PyList_Append(list, frames[i].block) < 0)
            Py_CLEAR(list);
    return list;
}

static PyObject *f_depth(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromSize_t(frame_count);
}

static PyObject *f_mine(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyBool_FromLong(frame_count > 0 && dbz_block_mine());
}

static PyObject *f_set_token_reader(PyObject *module, PyObject *reader)
{
    (void)module;
    PyObject *old = get_token;
    Py_INCREF(reader);
    get_token = reader;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

static PyObject *f_watch(PyObject *module, PyObject *number)
{
    (void)module;
    long more = PyLong_AsLong(number);
    if (more == -1 && PyErr_Occurred())
        return NULL;
    watchers = more < 0 ? watchers - (unsigned long)(-more) : watchers + (unsigned long)more;
    set_mask();
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"block_begin", f_begin, METH_VARARGS, "block_begin(token, block): open a frame; it has a hold of its own on the operation lock, beside that of the caller, in whose operation it begins. Returns the depth."},
    {"block_keep", f_keep, METH_NOARGS, "The innermost frame ended well: what it saved goes to the frame around it. Returns the views that changed."},
    {"block_revert", f_revert, METH_NOARGS, "Put back all that changed since the innermost frame began, and close it."},
    {"block_revert_view", f_revert_view, METH_O, "Put back all that changed in a view since the outermost frame began; the frames stay open."},
    {"open_blocks", f_open, METH_NOARGS, "What block_begin() was given for the frames that are open, innermost last."},
    {"block_depth", f_depth, METH_NOARGS, "How many frames are open in the process."},
    {"block_mine", f_mine, METH_NOARGS, "Whether a block is open and belongs to the running context."},
    {"set_token_reader", f_set_token_reader, METH_O, "What tells the token of the running context."},
    {"watch_changes", f_watch, METH_O, "watch_changes(1 or -1): views count all of their changes while somebody watches."},
    {NULL, NULL, 0, NULL},
};

/* --- what a signal may not tear ---------------------------------------------------------------------------------------------------------- */

/* The base of what is begun and must be ended. A subclass has _begin() and _finish(keep); a signal handler may raise anywhere in them, but not here. _finish can be
 * repeated, goes on where it stopped, and returns None or the exception that its work met. */

static PyObject *finish(PyObject *self, PyObject *keep_changes)
{
    failure first = {NULL, NULL, NULL};
    PyObject *r = NULL;
    for (int i = 0; r == NULL && i < 1000; i++)
        if ((r = PyObject_CallMethodObjArgs(self, s_finish, keep_changes, NULL)) == NULL)
            keep(&first);
    if (first.type == NULL && r != NULL && r != Py_None) {
        PyObject *kind = (PyObject *)Py_TYPE(r);
        PyErr_SetObject(kind, r);
        Py_DECREF(r);
        return NULL;
    }
    Py_XDECREF(r);
    return result_of(&first);
}

static PyObject *ending_begin(PyObject *self, PyObject *unused)
{
    (void)unused;
    PyObject *r = PyObject_CallMethodObjArgs(self, s_begin, NULL);
    if (r != NULL)
        return r;
    failure first = {NULL, NULL, NULL};
    keep(&first);
    r = finish(self, Py_False);
    if (r == NULL)
        keep(&first);
    Py_XDECREF(r);
    return result_of(&first);
}

static PyObject *ending_enter(PyObject *self, PyObject *unused)
{
    PyObject *r = ending_begin(self, unused);
    if (r == NULL)
        return NULL;
    Py_DECREF(r);
    Py_INCREF(self);
    return self;
}

static PyObject *ending_close(PyObject *self, PyObject *unused)
{
    (void)unused;
    return finish(self, Py_True);
}

static PyObject *ending_cancel(PyObject *self, PyObject *unused)
{
    (void)unused;
    return finish(self, Py_False);
}

static PyObject *ending_exit(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    return finish(self, n == 0 || args[0] == Py_None ? Py_True : Py_False);
}

static PyMethodDef ending_methods[] = {
    {"begin", ending_begin, METH_NOARGS, "Begin it; begun already: nothing happens."},
    {"close", ending_close, METH_NOARGS, "End it well; ended already, or not begun: nothing happens."},
    {"cancel", ending_cancel, METH_NOARGS, "End it and put everything back as it was when it began; ended already: nothing happens."},
    {"__enter__", ending_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))ending_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ending_slots[] = {
    {Py_tp_methods, ending_methods},
    {Py_tp_doc, "What is begun and ended whatever signal handlers raise."},
    {0, NULL},
};

static PyType_Spec ending_spec = {"_persistent.Ending", sizeof(PyObject), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, ending_slots};

int dbz_block_ready(PyObject *module)
{
    static const struct { PyObject **where; const char *text; } names[] = {
        {&s_copy, "_p_save"}, {&s_put_back, "_p_restore"}, {&s_reverted, "_p_reverted"}, {&s_save, "_block_save"}, {&s_restore, "_block_restore"},
        {&s_asyncio, "asyncio"}, {&s_begin, "_begin"}, {&s_finish, "_finish"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((*names[i].where = PyUnicode_InternFromString(names[i].text)) == NULL)
            return -1;
    PyObject *type = PyType_FromSpec(&ending_spec);
    if (type == NULL)
        return -1;
    if (PyModule_AddObject(module, "Ending", type) < 0) {
        Py_DECREF(type);
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
