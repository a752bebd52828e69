/* What a reader finds in shared memory, without letting go of the GIL: an object is there in a microsecond or two, while each release of the GIL beside a
 * thread that computes ends in a switch of threads. What needs the file is answered with a code, and asked again through cffi, which lets go of it. */
#include "pytypes.h"
#include "reader.h"

#define CAPSULE "dbzero.reader"
#define ROOM 256u

static void let_go(PyObject *capsule)
{
    dbz_reader *r = PyCapsule_GetPointer(capsule, CAPSULE);
    if (r != NULL)
        dbz_reader_free(r);
}

static PyObject *f_reader(PyObject *module, PyObject *address)
{
    (void)module;
    dbz_reader *r = PyLong_AsVoidPtr(address);
    if (r == NULL)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "no reader");
    dbz_reader_quick(r);
    PyObject *capsule = PyCapsule_New(r, CAPSULE, let_go);
    if (capsule == NULL)
        dbz_reader_free(r);
    return capsule;
}

static PyObject *f_shut_reader(PyObject *module, PyObject *capsule)
{
    (void)module;
    dbz_reader *r = PyCapsule_GetPointer(capsule, CAPSULE);
    if (r == NULL)
        return NULL;
    dbz_reader_shut(r);
    Py_RETURN_NONE;
}

/* (reader, number, number). */
static dbz_reader *arguments(PyObject *const *args, Py_ssize_t n, uint64_t *first, uint64_t *second)
{
    if (n != 3) {
        PyErr_SetString(PyExc_TypeError, "a reader and two numbers are needed");
        return NULL;
    }
    dbz_reader *r = PyCapsule_GetPointer(args[0], CAPSULE);
    if (r == NULL)
        return NULL;
    *first = PyLong_AsUnsignedLongLong(args[1]);
    *second = PyLong_AsUnsignedLongLong(args[2]);
    return (*first == UINT64_MAX || *second == UINT64_MAX) && PyErr_Occurred() ? NULL : r;
}

static PyObject *f_read(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    uint64_t oid, state;
    dbz_record found;
    dbz_reader *r = arguments(args, n, &oid, &state);
    if (r == NULL)
        return NULL;
    int rc = dbz_get(r, oid, state, &found);
    if (rc == DBZ_E_NOTFOUND || (rc == 0 && (found.flags & DBZ_TOMBSTONE)))
        Py_RETURN_NONE;
    if (rc != 0)
        return PyLong_FromLong(rc);
    PyObject *payload = PyBytes_FromStringAndSize((const char *)found.payload, (Py_ssize_t)found.payload_len);
    PyObject *count = payload == NULL ? NULL : PyLong_FromUnsignedLong(found.refcount);
    PyObject *pair = count == NULL ? NULL : PyTuple_New(2);
    if (pair == NULL) {
        Py_XDECREF(payload);
        Py_XDECREF(count);
        return NULL;
    }
    PyTuple_SetItem(pair, 0, payload);
    PyTuple_SetItem(pair, 1, count);
    return pair;
}

static PyObject *f_changes_since(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    uint64_t after, upto, oids[ROOM];
    dbz_reader *r = arguments(args, n, &after, &upto);
    if (r == NULL)
        return NULL;
    PyObject *all = PySet_New(NULL);
    while (all != NULL && after < upto) {
        uint64_t count = ROOM;
        int rc = dbz_get_changes_since(r, after, upto, oids, &count, &after);
        if (rc != 0) {
            Py_DECREF(all);
            return PyLong_FromLong(rc);
        }
        for (uint64_t i = 0; i < count; i++) {
            PyObject *oid = PyLong_FromUnsignedLongLong(oids[i]);
            if (oid == NULL || PySet_Add(all, oid) < 0) {
                Py_XDECREF(oid);
                Py_DECREF(all);
                return NULL;
            }
            Py_DECREF(oid);
        }
    }
    return all;
}

PyMethodDef dbz_read_functions[] = {
    {"reader", f_reader, METH_O, "reader(address of a dbz_reader): what the other functions take. Owns it from now on."},
    {"shut_reader", f_shut_reader, METH_O, "shut_reader(reader): its descriptor is about to be closed; all that is asked of it is to be asked through cffi."},
    {"read", (PyCFunction)(void (*)(void))f_read, METH_FASTCALL, "read(reader, oid, state): (payload, refcount), None, or a code: ask again through cffi."},
    {"changes_since", (PyCFunction)(void (*)(void))f_changes_since, METH_FASTCALL,
     "changes_since(reader, after, upto): set of the OIDs that these commits wrote, or a code: ask again through cffi."},
    {NULL, NULL, 0, NULL},
};
