/* Records of ordinary content, encoded without Python code: arrays of atoms and of references to live objects whose class code is known.
 *
 * What is written is byte for byte what dbzero/model/codec.py writes; whatever is not ordinary (big ints, lone surrogates, dates, objects under
 * construction, a class met for the first time) is left to it. All of it runs inside an operation, so no field changes meanwhile. */
#include "pytypes.h"
#include <stdlib.h>
#include <string.h>

enum { ORDINARY = 1, OTHER = 0, FAILED = -1 };

typedef struct {
    uint8_t *bytes;
    size_t used, room;
} buffer;

static uint8_t *extend(buffer *b, size_t n)
{
    if (b->room - b->used < n) {
        size_t room = b->room * 2 + n + 256;
        uint8_t *bytes = realloc(b->bytes, room);
        if (bytes == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        b->bytes = bytes;
        b->room = room;
    }
    uint8_t *at = b->bytes + b->used;
    b->used += n;
    return at;
}

static int append(buffer *b, const void *data, size_t n)
{
    uint8_t *at = extend(b, n);
    if (at == NULL)
        return FAILED;
    if (n > 0)
        memcpy(at, data, n);
    return ORDINARY;
}

static int append_word(buffer *b, uint64_t word)
{
    return append(b, &word, sizeof word);
}

/* A type byte and a big-endian number of `width` bytes. */
static int head(buffer *b, uint8_t type, uint64_t number, int width)
{
    uint8_t *at = extend(b, 1 + (size_t)width);
    if (at == NULL)
        return FAILED;
    *at++ = type;
    while (width-- > 0)
        *at++ = (uint8_t)(number >> (8 * width));
    return ORDINARY;
}

static int put_int(buffer *b, long long value)
{
    if (value >= 0) {
        if (value < 0x80)
            return head(b, (uint8_t)value, 0, 0);
        return value <= 0xFF ? head(b, 0xCC, (uint64_t)value, 1) : value <= 0xFFFF ? head(b, 0xCD, (uint64_t)value, 2)
               : value <= 0xFFFFFFFFLL ? head(b, 0xCE, (uint64_t)value, 4) : head(b, 0xCF, (uint64_t)value, 8);
    }
    if (value >= -32)
        return head(b, (uint8_t)value, 0, 0);
    return value >= -0x80 ? head(b, 0xD0, (uint64_t)value, 1) : value >= -0x8000 ? head(b, 0xD1, (uint64_t)value, 2)
           : value >= -0x80000000LL ? head(b, 0xD2, (uint64_t)value, 4) : head(b, 0xD3, (uint64_t)value, 8);
}

static int put_sized(buffer *b, const char *data, Py_ssize_t n, int is_text)
{
    int rc;
    if (n > 0xFFFFFFFFLL)
        return OTHER;
    if (is_text && n < 32)
        rc = head(b, (uint8_t)(0xA0 | n), 0, 0);
    else if (n <= 0xFF)
        rc = head(b, is_text ? 0xD9 : 0xC4, (uint64_t)n, 1);
    else
        rc = n <= 0xFFFF ? head(b, is_text ? 0xDA : 0xC5, (uint64_t)n, 2) : head(b, is_text ? 0xDB : 0xC6, (uint64_t)n, 4);
    return rc < 0 ? rc : append(b, data, (size_t)n);
}

static int put_array_head(buffer *b, Py_ssize_t n)
{
    if (n < 16)
        return head(b, (uint8_t)(0x90 | n), 0, 0);
    return n <= 0xFFFF ? head(b, 0xDC, (uint64_t)n, 2) : n <= 0xFFFFFFFFLL ? head(b, 0xDD, (uint64_t)n, 4) : OTHER;
}

static int put_reference(buffer *b, buffer *refs, Persistent *p)
{
    if ((p->flags & (P_EXPIRED | P_INIT)) || p->view == NULL || p->view->codes == NULL || !PyDict_CheckExact(p->view->codes))
        return OTHER;
    PyObject *code = PyDict_GetItemWithError(p->view->codes, (PyObject *)Py_TYPE(p));   /* borrowed */
    if (code == NULL)
        return PyErr_Occurred() ? FAILED : OTHER;
    long long number = PyLong_AsLongLong(code);
    if (number < 0 || number >= 1 << 24 || p->oid >= UINT64_C(1) << 40)
        return PyErr_Occurred() ? FAILED : OTHER;
    uint8_t *at = extend(b, 10);
    if (at == NULL)
        return FAILED;
    *at++ = 0xD7;
    *at++ = X_REFERENCE;
    uint64_t both = p->oid | (uint64_t)number << 40;
    for (int i = 0; i < 8; i++)
        *at++ = (uint8_t)(both >> (8 * i));
    return append_word(refs, p->oid);
}

static int put_value(buffer *b, buffer *refs, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyLong_Type) {
        int overflow;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow ? OTHER : put_int(b, number);
    }
    if (type == &PyUnicode_Type) {
        Py_ssize_t n;
        const char *text = PyUnicode_AsUTF8AndSize(value, &n);
        if (text == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
                return FAILED;
            PyErr_Clear();      /* lone surrogates */
            return OTHER;
        }
        return put_sized(b, text, n, 1);
    }
    if (value == Py_None)
        return head(b, 0xC0, 0, 0);
    if (type == &PyBool_Type)
        return head(b, value == Py_True ? 0xC3 : 0xC2, 0, 0);
    if (type == &PyFloat_Type) {
        double number = PyFloat_AsDouble(value);
        uint64_t bits;
        memcpy(&bits, &number, sizeof bits);
        return head(b, 0xCB, bits, 8);
    }
    if (type == &PyBytes_Type)
        return put_sized(b, PyBytes_AsString(value), PyBytes_Size(value), 0);
    if (PyObject_TypeCheck(value, dbz_persistent_type))
        return put_reference(b, refs, (Persistent *)value);
    return OTHER;
}

static PyObject *words_as_list(const buffer *b)
{
    size_t n = b->used / sizeof(uint64_t);
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        uint64_t word;
        memcpy(&word, b->bytes + i * sizeof word, sizeof word);
        PyObject *number = PyLong_FromUnsignedLongLong(word);
        if (number == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, (Py_ssize_t)i, number);
    }
    return list;
}

/* (bytes, OIDs) as encode_values() gives them, or None when a value is not ordinary. */
static PyObject *f_encode_ordinary(PyObject *module, PyObject *values)
{
    (void)module;
    if (!PyList_CheckExact(values))
        Py_RETURN_NONE;
    buffer out = {NULL, 0, 0}, refs = {NULL, 0, 0};
    int rc = put_array_head(&out, PyList_Size(values));
    for (Py_ssize_t i = 0; rc == ORDINARY && i < PyList_Size(values); i++)
        rc = put_value(&out, &refs, PyList_GetItem(values, i));
    PyObject *result = NULL;
    if (rc == OTHER) {
        Py_INCREF(Py_None);
        result = Py_None;
    } else if (rc == ORDINARY) {
        PyObject *oids = words_as_list(&refs);
        PyObject *bytes = oids == NULL ? NULL : PyBytes_FromStringAndSize((const char *)out.bytes, (Py_ssize_t)out.used);
        result = bytes == NULL ? NULL : PyTuple_Pack(2, bytes, oids);
        Py_XDECREF(bytes);
        Py_XDECREF(oids);
    }
    free(out.bytes);
    free(refs.bytes);
    return result;
}

/* Append the payload of a memo object whose fields are exactly `names`, in that order. OTHER leaves the buffers as they were. */
static int put_memo(Persistent *p, PyObject *names, PyObject *start, buffer *out, buffer *refs)
{
    Py_ssize_t count = PyTuple_Size(names), pos = 0, i = 0;
    PyObject *state = dbz_state((PyObject *)p), *name, *value;
    if (state == NULL)
        return FAILED;
    size_t before = out->used, refs_before = refs->used;
    int rc = OTHER;
    if (PyDict_Size(state) != count || (rc = append(out, PyBytes_AsString(start), (size_t)PyBytes_Size(start))) != ORDINARY
        || (rc = put_array_head(out, count)) != ORDINARY)
        goto done;
    size_t body = out->used;
    while (rc == ORDINARY && PyDict_Next(state, &pos, &name, &value)) {
        if (i >= count || name != PyTuple_GetItem(names, i++)) {
            rc = OTHER;
            break;
        }
        Py_INCREF(value);
        rc = put_value(out, refs, value);
        Py_DECREF(value);
    }
    if (rc == ORDINARY && i != count)
        rc = OTHER;
    if (rc == ORDINARY && !(p->flags & (P_GHOST | P_EXPIRED | P_CLOSED)))
        dbz_weigh(p, 32 * (uint64_t)count + (out->used - body));
done:
    if (rc == OTHER) {
        out->used = before;
        refs->used = refs_before;
    }
    Py_DECREF(state);
    return rc;
}

static PyObject *as_bytes(const buffer *b)
{
    return PyBytes_FromStringAndSize(b->used ? (const char *)b->bytes : "", (Py_ssize_t)b->used);
}

static PyObject *f_encode_memos(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *objects, *known, *result = NULL;
    if (!PyArg_ParseTuple(args, "O!O!:encode_memos", &PyList_Type, &objects, &PyDict_Type, &known))
        return NULL;
    buffer out = {NULL, 0, 0}, oids = {NULL, 0, 0}, lengths = {NULL, 0, 0}, counts = {NULL, 0, 0}, refs = {NULL, 0, 0};
    PyObject *rest = PyList_New(0);
    if (rest == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < PyList_Size(objects); i++) {
        PyObject *obj = PyList_GetItem(objects, i);
        PyObject *layout = PyDict_GetItemWithError(known, (PyObject *)Py_TYPE(obj));
        if (layout == NULL && PyErr_Occurred())
            goto done;
        int rc = OTHER;
        size_t before = out.used, refs_before = refs.used;
        if (layout != NULL && PyObject_TypeCheck(obj, dbz_persistent_type)) {
            PyObject *names, *start;
            if (!PyArg_ParseTuple(layout, "O!S:layout", &PyTuple_Type, &names, &start))
                goto done;
            Py_INCREF(obj);
            Py_INCREF(layout);
            rc = put_memo((Persistent *)obj, names, start, &out, &refs);
            Py_DECREF(layout);
            if (rc == ORDINARY && (append_word(&oids, ((Persistent *)obj)->oid) < 0 || append_word(&lengths, out.used - before) < 0
                                   || append_word(&counts, (refs.used - refs_before) / sizeof(uint64_t)) < 0))
                rc = FAILED;
            Py_DECREF(obj);
        }
        if (rc == FAILED || (rc == OTHER && PyList_Append(rest, obj) < 0))
            goto done;
    }
    {
        PyObject *parts[5] = {as_bytes(&oids), as_bytes(&lengths), as_bytes(&counts), as_bytes(&refs), as_bytes(&out)};
        if (parts[0] && parts[1] && parts[2] && parts[3] && parts[4])
            result = PyTuple_Pack(6, rest, parts[0], parts[1], parts[2], parts[3], parts[4]);
        for (int i = 0; i < 5; i++)
            Py_XDECREF(parts[i]);
    }
done:
    Py_DECREF(rest);
    free(out.bytes);
    free(oids.bytes);
    free(lengths.bytes);
    free(counts.bytes);
    free(refs.bytes);
    return result;
}

PyMethodDef dbz_encode_functions[] = {
    {"encode_ordinary", f_encode_ordinary, METH_O, "encode_ordinary(list): (MessagePack array, OIDs referred to), or None when a value is not ordinary."},
    {"encode_memos", f_encode_memos, METH_VARARGS,
     "encode_memos(objects, {class: (field names, payload head)}): (the objects that are not ordinary, and of the others, as packed 64-bit words: OIDs, payload "
     "lengths, numbers of references, the references; and the payloads)."},
    {NULL, NULL, 0, NULL},
};
