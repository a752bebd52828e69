/* The operation lock: process-wide, reentrant. It makes a compound operation on objects, a load, an eviction and the encoding of a commit whole against each other.
 *
 * Single attribute writes to an object that is dirty already don't take it: the encoder takes the dirty list first, which clears every DIRTY flag, so any later
 * write finds a clean object, goes the slow way and waits here until the encoding is over. */
#include "pytypes.h"
#include <pythread.h>

static PyThread_type_lock lock;
static unsigned long owner;
static unsigned long depth;     /* 0: free, `owner` is meaningless */
unsigned long dbz_block_base;

int dbz_op_acquire(void)
{
    unsigned long me = PyThread_get_thread_ident();
    if (depth > 0 && owner == me) {
        if (depth == dbz_block_base && dbz_block_admits() < 0)
            return -1;
        depth++;
        return 0;
    }
    if (PyThread_acquire_lock(lock, NOWAIT_LOCK) == 0) {
        for (;;) {
            PyLockStatus got;
            Py_BEGIN_ALLOW_THREADS
            got = PyThread_acquire_lock_timed(lock, -1, 1);
            Py_END_ALLOW_THREADS
            if (got == PY_LOCK_ACQUIRED)
                break;
            if (PyErr_CheckSignals() < 0)
                return -1;
        }
    }
    owner = me;
    depth = 1;
    return 0;
}

void dbz_op_release(void)
{
    if (--depth == 0)
        PyThread_release_lock(lock);
}

int dbz_op_outermost(void)
{
    return depth == dbz_block_base + 1 && owner == PyThread_get_thread_ident();
}

int dbz_op_free(void)
{
    return depth == 0;
}

int dbz_op_mine(void)
{
    return depth > 0 && owner == PyThread_get_thread_ident();
}

int dbz_op_inside(void)
{
    return depth > dbz_block_base && owner == PyThread_get_thread_ident();
}

void dbz_op_unwind(void)
{
    if (dbz_block_base > 0 && depth > dbz_block_base && owner == PyThread_get_thread_ident())
        depth = dbz_block_base;
}

unsigned long dbz_op_depth(void)
{
    return depth;
}

int dbz_op_elsewhere(void)
{
    return depth > 0 && owner != PyThread_get_thread_ident();
}

typedef struct {
    PyObject_HEAD
} Operation;

static PyObject *operation_acquire(PyObject *self, PyObject *unused)
{
    (void)unused;
    if (dbz_op_acquire() < 0)
        return NULL;
    Py_INCREF(self);
    return self;
}

static PyObject *operation_release(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    if (depth == 0 || owner != PyThread_get_thread_ident()) {
        PyErr_SetString(PyExc_RuntimeError, "the operation lock is not held by this thread");
        return NULL;
    }
    dbz_op_release();
    Py_RETURN_NONE;
}

static PyObject *operation_inside(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(dbz_op_inside());
}

/* A fork copies what its thread is in the middle of, whichever task that belongs to: no question of whose block is open. */
static PyObject *operation_freeze(PyObject *self, PyObject *unused)
{
    if (depth > 0 && owner == PyThread_get_thread_ident()) {
        depth++;
        Py_RETURN_NONE;
    }
    PyObject *r = operation_acquire(self, unused);
    Py_XDECREF(r);
    if (r == NULL)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *operation_itself(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_INCREF(self);
    return self;
}

static PyObject *operation_exit(PyObject *self, PyObject *const *args, Py_ssize_t n)
{
    (void)args;
    (void)n;
    return operation_release(self, NULL);
}

static PyObject *operation_held(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    return PyBool_FromLong(depth > 0 && owner == PyThread_get_thread_ident());
}

static PyObject *operation_reset(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyThread_type_lock fresh = PyThread_allocate_lock();   /* the old one is abandoned: its holder does not exist in this process */
    if (fresh == NULL)
        return PyErr_NoMemory();
    lock = fresh;
    depth = 0;
    dbz_block_base = 0;
    Py_RETURN_NONE;
}

static PyMethodDef operation_methods[] = {
    {"acquire", operation_acquire, METH_NOARGS, "Take the lock; reentrant. Waits without the GIL."},
    {"release", operation_release, METH_NOARGS, "Give it back. RuntimeError when this thread does not hold it."},
    {"exclusive", operation_itself, METH_NOARGS, "The lock itself: `with operation.exclusive():` reads as what an encoder wants of it."},
    {"held", operation_held, METH_NOARGS, "True while this thread holds it."},
    {"inside", operation_inside, METH_NOARGS, "True inside an operation of this thread; its open atomic block does not count."},
    {"freeze", operation_freeze, METH_NOARGS, "Take the lock before a fork."},
    {"reset_after_fork", operation_reset, METH_NOARGS, "Only for a forked child: forget a holder that was another thread of the parent."},
    {"__enter__", operation_acquire, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))operation_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static void operation_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyType_Slot operation_slots[] = {
    {Py_tp_methods, operation_methods},
    {Py_tp_dealloc, operation_dealloc},
    {Py_tp_doc, "The process-wide operation lock, a context manager."},
    {0, NULL},
};

static PyType_Spec operation_spec = {"_persistent.Operation", sizeof(Operation), 0, Py_TPFLAGS_DEFAULT, operation_slots};

int dbz_lock_ready(PyObject *module)
{
    lock = PyThread_allocate_lock();
    if (lock == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *type = PyType_FromSpec(&operation_spec);
    if (type == NULL)
        return -1;
    PyObject *instance = PyType_GenericAlloc((PyTypeObject *)type, 0);
    Py_DECREF(type);
    if (instance == NULL)
        return -1;
    if (PyModule_AddObject(module, "operation", instance) < 0) {
        Py_DECREF(instance);
        return -1;
    }
    return 0;
}
