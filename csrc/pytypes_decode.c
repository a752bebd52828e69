/* Memo payloads of ordinary content, decoded without Python code: the counterpart of pytypes_encode.c. Whatever it does not know, damage included, is left to
 * dbzero/model/codec.py, which reads the payload anew and says what is wrong with it. */
#include "pytypes.h"
#include "reader.h"
#include <string.h>

typedef struct {
    const uint8_t *at, *end;
    ViewCore *view;       /* whose objects references lead to */
    PyObject *types;      /* class code -> class; NULL: references are not ordinary */
    uint64_t code;        /* of the last reference: those of a list are mostly of one class */
    PyObject *type;       /* strong, NULL: there was none */
} input;

/* A big-endian number of `width` bytes. 0: there are not that many. */
static int number(input *in, int width, uint64_t *out)
{
    if (in->end - in->at < width)
        return 0;
    uint64_t value = 0;
    while (width-- > 0)
        value = value << 8 | *in->at++;
    *out = value;
    return 1;
}

static PyObject *sized(input *in, uint64_t n, int is_text)
{
    if ((uint64_t)(in->end - in->at) < n)
        return NULL;
    const char *start = (const char *)in->at;
    in->at += n;
    return is_text ? PyUnicode_DecodeUTF8(start, (Py_ssize_t)n, NULL) : PyBytes_FromStringAndSize(start, (Py_ssize_t)n);
}

/* The object that a short reference leads to, perhaps as a ghost. */
static PyObject *referenced(input *in)
{
    if (in->types == NULL || in->end - in->at < 9 || *in->at++ != X_REFERENCE)
        return NULL;
    uint64_t both = 0;
    for (int i = 0; i < 8; i++)
        both |= (uint64_t)*in->at++ << (8 * i);
    uint64_t oid = both & ((UINT64_C(1) << 40) - 1), code = both >> 40;
    if (oid < DBZ_OID_FIRST)
        return NULL;
    if (in->type == NULL || code != in->code) {
        PyObject *number = PyLong_FromUnsignedLongLong(code);
        PyObject *type = number == NULL ? NULL : PyDict_GetItemWithError(in->types, number);
        Py_XDECREF(number);
        if (type == NULL)
            return NULL;
        Py_INCREF(type);
        Py_XDECREF(in->type);
        in->type = type;
        in->code = code;
    }
    PyObject *obj = dbz_ghost(in->view, in->type, oid);
    if (obj != NULL && (PyObject *)Py_TYPE(obj) != in->type) {
        Py_DECREF(obj);
        return NULL;
    }
    return obj;
}

/* The next value, a new reference; NULL, perhaps with an exception set, when it is no ordinary one. */
static PyObject *value_of(input *in)
{
    uint64_t n, type;
    if (!number(in, 1, &type))
        return NULL;
    if (type < 0x80)
        return PyLong_FromLong((long)type);
    if (type >= 0xE0)
        return PyLong_FromLong((long)type - 0x100);
    if (type >= 0xA0 && type < 0xC0)
        return sized(in, type & 31, 1);
    switch (type) {
    case 0xC0:
        Py_INCREF(Py_None);
        return Py_None;
    case 0xC2:
    case 0xC3:
        return PyBool_FromLong(type == 0xC3);
    case 0xC4:
    case 0xC5:
    case 0xC6:
        return number(in, 1 << (type - 0xC4), &n) ? sized(in, n, 0) : NULL;
    case 0xCB: {
        double real;
        if (!number(in, 8, &n))
            return NULL;
        memcpy(&real, &n, sizeof real);
        return PyFloat_FromDouble(real);
    }
    case 0xCC:
    case 0xCD:
    case 0xCE:
    case 0xCF:
        return number(in, 1 << (type - 0xCC), &n) ? PyLong_FromUnsignedLongLong(n) : NULL;
    case 0xD0:
        return number(in, 1, &n) ? PyLong_FromLong((int8_t)n) : NULL;
    case 0xD1:
        return number(in, 2, &n) ? PyLong_FromLong((int16_t)n) : NULL;
    case 0xD2:
        return number(in, 4, &n) ? PyLong_FromLong((int32_t)n) : NULL;
    case 0xD3:
        return number(in, 8, &n) ? PyLong_FromLongLong((int64_t)n) : NULL;
    case 0xD9:
    case 0xDA:
    case 0xDB:
        return number(in, 1 << (type - 0xD9), &n) ? sized(in, n, 1) : NULL;
    case 0xD7:
        return referenced(in);
    default:
        return NULL;
    }
}

/* How many values the array has that starts here, -1: none does. */
static Py_ssize_t array_of(input *in)
{
    uint64_t type, n;
    if (!number(in, 1, &type))
        return -1;
    if ((type & 0xF0) == 0x90)
        n = type & 15;
    else if ((type != 0xDC && type != 0xDD) || !number(in, type == 0xDC ? 2 : 4, &n))
        return -1;
    return n <= (uint64_t)(in->end - in->at) ? (Py_ssize_t)n : -1;
}

/* The values of an array of ordinary content, `count` of them (-1: any number), a new list; NULL, perhaps with an exception set: it is none. */
static PyObject *array(input *in, Py_ssize_t count)
{
    Py_ssize_t n = array_of(in);
    PyObject *values = n < 0 || (count >= 0 && n != count) ? NULL : PyList_New(n);
    Py_ssize_t done = 0;
    for (PyObject *value; values != NULL && done < n && (value = value_of(in)) != NULL; done++)
        PyList_SetItem(values, done, value);
    if (values != NULL && (done < n || in->at != in->end)) {
        PyObject *type, *error, *trace;
        PyErr_Fetch(&type, &error, &trace);   /* ghosts that nobody holds are finalized here */
        Py_CLEAR(values);
        PyErr_Restore(type, error, trace);
    }
    Py_CLEAR(in->type);
    if (values == NULL && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
        PyErr_Clear();
    return values;
}

/* bytes, where its array starts, and the classes of references (a dict, or None). 0: an exception is set. */
static int open_input(input *in, PyObject *payload, PyObject *start, PyObject *types, ViewCore *view)
{
    Py_ssize_t at = PyLong_AsSsize_t(start), size = PyBytes_Size(payload);
    if (PyErr_Occurred())
        return 0;
    const uint8_t *bytes = (const uint8_t *)PyBytes_AsString(payload);
    *in = (input){bytes + (at < 0 || at > size ? size : at), bytes + size, view, view != NULL && PyDict_Check(types) ? types : NULL, 0, NULL};
    return 1;
}

static PyObject *f_fill_ordinary(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    if (n != 5 || !PyObject_TypeCheck(args[0], dbz_persistent_type) || !PyTuple_Check(args[1]) || !PyBytes_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "fill_ordinary() takes an object, a tuple of names, a payload, where its values start, and the classes of references");
        return NULL;
    }
    input in;
    if (!open_input(&in, args[2], args[3], args[4], ((Persistent *)args[0])->view))
        return NULL;
    PyObject *values = array(&in, PyTuple_Size(args[1]));
    if (values == NULL)
        return PyErr_Occurred() ? NULL : PyBool_FromLong(0);
    int rc = dbz_put_fields(args[0], args[1], values);
    Py_DECREF(values);
    return rc < 0 ? NULL : PyBool_FromLong(1);
}

static PyObject *f_decode_ordinary(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    if (n != 4 || !PyObject_TypeCheck(args[0], dbz_view_type) || !PyBytes_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "decode_ordinary() takes a view, a payload, where its values start, and the classes of references");
        return NULL;
    }
    input in;
    if (!open_input(&in, args[1], args[2], args[3], (ViewCore *)args[0]))
        return NULL;
    PyObject *values = array(&in, -1);
    if (values == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return values;
}

PyMethodDef dbz_decode_functions[] = {
    {"fill_ordinary", (PyCFunction)(void (*)(void))f_fill_ordinary, METH_FASTCALL,
     "fill_ordinary(obj, names, payload, at, types): fill() with the values of the MessagePack array at payload[at:]. False, with nothing done: it is not one of "
     "that many atoms and references to objects of `types` (by class code; None: no references)."},
    {"decode_ordinary", (PyCFunction)(void (*)(void))f_decode_ordinary, METH_FASTCALL,
     "decode_ordinary(view, payload, at, types): the values of the MessagePack array at payload[at:], None when others than for fill_ordinary() are among them."},
    {NULL, NULL, 0, NULL},
};
