/* Short ways for the shortest operations: fetching a live object by its UUID, appending to a list that is dirty already, descending a keyed tree. Each of them
 * does what its Python counterpart does, or says that this is not the ordinary case and leaves everything as it was. */
#include "pytypes.h"
#include <string.h>

static PyObject *s_data, *s_tail, *s_version, *s_append_slowly, *s_marks, *s_children, *one;

/* --- UUIDs ------------------------------------------------------------------------------------------------------------------------------- */

static uint32_t crc_of_nibble[16];

static void crc_ready(void)
{
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t c = i;
        for (int k = 0; k < 4; k++)
            c = c & 1 ? (c >> 1) ^ UINT32_C(0xEDB88320) : c >> 1;
        crc_of_nibble[i] = c;
    }
}

static uint32_t crc32_of(const uint8_t *data, size_t n)
{
    uint32_t c = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        c ^= data[i];
        c = (c >> 4) ^ crc_of_nibble[c & 15];
        c = (c >> 4) ^ crc_of_nibble[c & 15];
    }
    return ~c;
}

/* 24 letters of base 32: prefix uuid (64 bits), OID (48), check byte. 0: malformed. */
static int parse_uuid(const char *text, uint64_t *prefix, uint64_t *oid)
{
    uint8_t bytes[15];
    for (int group = 0; group < 3; group++) {
        uint64_t bits = 0;
        for (int i = 0; i < 8; i++) {
            char c = text[group * 8 + i];
            int digit = c >= 'A' && c <= 'Z' ? c - 'A' : c >= '2' && c <= '7' ? c - '2' + 26 : -1;
            if (digit < 0)
                return 0;
            bits = bits << 5 | (uint64_t)digit;
        }
        for (int i = 0; i < 5; i++)
            bytes[group * 5 + i] = (uint8_t)(bits >> (32 - 8 * i));
    }
    if ((crc32_of(bytes, 14) & 0xFF) != bytes[14])
        return 0;
    *prefix = *oid = 0;
    for (int i = 0; i < 8; i++)
        *prefix = *prefix << 8 | bytes[i];
    for (int i = 8; i < 14; i++)
        *oid = *oid << 8 | bytes[i];
    return 1;
}

/* The memo object with that UUID, if it lives in the current view; else None, which says nothing. */
static PyObject *f_find_live(PyObject *module, PyObject *text)
{
    (void)module;
    ViewCore *v = dbz_shown_view();
    Py_ssize_t n;
    const char *letters = v != NULL && !v->closed && PyUnicode_CheckExact(text) ? PyUnicode_AsUTF8AndSize(text, &n) : NULL;
    uint64_t prefix, oid;
    if (letters != NULL && n == 24 && parse_uuid(letters, &prefix, &oid) && prefix == v->uuid) {
        Persistent *p = dbz_map_get(v, oid);
        if (p != NULL && (p->flags & P_MEMO) && !(p->flags & (P_EXPIRED | P_CLOSED))) {
            Py_INCREF(p);
            return (PyObject *)p;
        }
    }
    if (PyErr_Occurred())
        PyErr_Clear();      /* lone surrogates: no UUID */
    Py_RETURN_NONE;
}

/* --- lists ------------------------------------------------------------------------------------------------------------------------------- */

static Py_ssize_t leaf_size;    /* most values in a tail; 0: not told yet, so every append is slow */

/* Is the value stored as it is? */
static int stored_as_is(const Persistent *p, PyObject *value)
{
    if (dbz_is_atom(value))
        return 1;
    if (!PyObject_TypeCheck(value, dbz_persistent_type))
        return 0;
    const Persistent *object = (const Persistent *)value;
    return object->view == p->view && !(object->flags & (P_EXPIRED | P_CLOSED | P_INIT));
}

/* 1: appended; 0: not the ordinary case. Inside an operation: so no encoder is at work, and nobody is in the middle of changing the list. */
static int append_locked(Persistent *p, PyObject *value)
{
    if ((p->flags & P_READ_SLOW & ~(uint32_t)P_BLOCK) || !(p->flags & P_DIRTY) || !stored_as_is(p, value))
        return 0;
    if (dbz_touch(p) < 0)
        return -1;
    PyObject *state = PyObject_GenericGetAttr((PyObject *)p, s_data);
    if (state == NULL)
        return -1;
    PyObject *tail = PyObject_GetAttr(state, s_tail), *version = NULL, *next = NULL;
    int rc = tail == NULL ? -1 : 0;
    if (rc == 0 && PyList_CheckExact(tail) && PyList_Size(tail) < leaf_size) {
        version = PyObject_GetAttr(state, s_version);
        next = version == NULL ? NULL : PyNumber_Add(version, one);
        if (next == NULL || PyList_Append(tail, value) < 0)
            rc = -1;
        else
            rc = PyObject_SetAttr(state, s_version, next) < 0 ? -1 : 1;
    }
    Py_XDECREF(next);
    Py_XDECREF(version);
    Py_XDECREF(tail);
    Py_DECREF(state);
    return rc;
}

static PyObject *list_append(PyObject *self, PyObject *value)
{
    if (dbz_op_acquire() < 0)
        return NULL;
    int rc = append_locked((Persistent *)self, value);
    dbz_op_release();
    if (rc < 0)
        return NULL;
    if (rc == 0)
        return PyObject_CallMethodObjArgs(self, s_append_slowly, value, NULL);
    Py_RETURN_NONE;
}

static PyObject *f_set_leaf(PyObject *module, PyObject *number)
{
    (void)module;
    Py_ssize_t size = PyLong_AsSsize_t(number);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    leaf_size = size;
    Py_RETURN_NONE;
}

static PyMethodDef list_append_method = {"append", list_append, METH_O, "append($self, value, /)\n--\n\nAdd `value` at the end."};

/* --- keyed trees ------------------------------------------------------------------------------------------------------------------------- */

/* How many of marks[1..] are at most `key`; -1: not a list of 64-bit numbers. */
static Py_ssize_t child_for(PyObject *marks, long long key)
{
    if (!PyList_CheckExact(marks))
        return -1;
    Py_ssize_t low = 1, high = PyList_Size(marks);
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        PyObject *mark = PyList_GetItem(marks, middle);
        int overflow = 0;
        long long number = PyLong_CheckExact(mark) ? PyLong_AsLongLongAndOverflow(mark, &overflow) : 0;
        if (!PyLong_CheckExact(mark) || overflow)
            return -1;
        if (key < number)
            high = middle;
        else
            low = middle + 1;
    }
    return low - 1;
}

/* The leaf of a keyed tree in whose range a key is; None when the tree, or the key, is not an ordinary one. Reading a node loads it if it is a ghost. */
static PyObject *f_find_leaf(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    int overflow = 0;
    if (n != 3 || !PyLong_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "find_leaf() takes a node, a number and the type of inner nodes' states");
        return NULL;
    }
    long long key = PyLong_AsLongLongAndOverflow(args[1], &overflow);
    PyObject *node = args[0];
    Py_INCREF(node);
    for (int level = 0; level < 40 && !overflow; level++) {
        PyObject *data = PyObject_GetAttr(node, s_data);
        if (data == NULL)
            goto failed;
        if ((PyObject *)Py_TYPE(data) != args[2]) {
            Py_DECREF(data);
            return node;
        }
        PyObject *marks = PyObject_GetAttr(data, s_marks), *children = marks == NULL ? NULL : PyObject_GetAttr(data, s_children);
        Py_DECREF(data);
        if (children == NULL) {
            Py_XDECREF(marks);
            goto failed;
        }
        Py_ssize_t k = child_for(marks, key);
        PyObject *child = k >= 0 && PyList_CheckExact(children) && k < PyList_Size(children) ? PyList_GetItem(children, k) : NULL;
        Py_XINCREF(child);
        Py_DECREF(marks);
        Py_DECREF(children);
        if (child == NULL)
            break;
        Py_DECREF(node);
        node = child;
    }
    Py_DECREF(node);
    Py_RETURN_NONE;
failed:
    Py_DECREF(node);
    return NULL;
}

/* --- hashes ------------------------------------------------------------------------------------------------------------------------------ */

static PyObject *hash_of_others;    /* the Python function for all that is neither int, bool nor str */

static PyObject *f_stable_hash(PyObject *module, PyObject *form)
{
    (void)module;
    if (PyLong_CheckExact(form) || PyBool_Check(form)) {
        Py_hash_t hash = PyObject_Hash(form);
        return hash == -1 && PyErr_Occurred() ? NULL : PyLong_FromSsize_t(hash);
    }
    if (PyUnicode_CheckExact(form)) {
        Py_ssize_t n;
        const char *text = PyUnicode_AsUTF8AndSize(form, &n);
        if (text != NULL)
            return PyLong_FromUnsignedLongLong(dbz_xxh3(text, (uint64_t)n, 0) >> 1);
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
            return NULL;
        PyErr_Clear();
    }
    if (hash_of_others == NULL) {
        PyErr_SetString(PyExc_SystemError, "set_hash_of_others() was not called");
        return NULL;
    }
    return PyObject_CallFunctionObjArgs(hash_of_others, form, NULL);
}

static PyObject *f_set_hash_of_others(PyObject *module, PyObject *function)
{
    (void)module;
    PyObject *old = hash_of_others;
    Py_INCREF(function);
    hash_of_others = function;
    Py_XDECREF(old);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"stable_hash", f_stable_hash, METH_O,
     "stable_hash(form): a hash of a key's native form that is the same in every process, an int of 64 bits with sign. Equal forms have equal hashes."},
    {"set_hash_of_others", f_set_hash_of_others, METH_O, "What stable_hash() asks about all that is neither int, bool nor str."},
    {"find_live", f_find_live, METH_O, "find_live(uuid): the memo object of that UUID if it lives in the current view; else None."},
    {"set_leaf", f_set_leaf, METH_O, "How many values the tail of a list holds at most."},
    {"find_leaf", (PyCFunction)(void (*)(void))f_find_leaf, METH_FASTCALL,
     "find_leaf(root, key, inner): the leaf of a keyed tree in whose range `key` is; None: walk it in Python."},
    {NULL, NULL, 0, NULL},
};

int dbz_paths_ready(PyObject *module)
{
    static const struct { PyObject **where; const char *text; } names[] = {
        {&s_data, "_data"}, {&s_tail, "tail"}, {&s_version, "version"}, {&s_append_slowly, "_p_append"}, {&s_marks, "marks"}, {&s_children, "children"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((*names[i].where = PyUnicode_InternFromString(names[i].text)) == NULL)
            return -1;
    crc_ready();
    PyObject *method = PyDescr_NewMethod(dbz_persistent_type, &list_append_method);
    if (method == NULL || (one = PyLong_FromLong(1)) == NULL || PyModule_AddFunctions(module, functions) < 0) {
        Py_XDECREF(method);
        return -1;
    }
    if (PyModule_AddObject(module, "list_append", method) < 0) {
        Py_DECREF(method);
        return -1;
    }
    return 0;
}
