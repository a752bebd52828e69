/* Memo payloads of ordinary content, decoded without Python code: the counterpart of pytypes_encode.c. Whatever it does not know, damage included, is left to
 * dbzero/model/codec.py, which reads the payload anew and says what is wrong with it. */
#include "pytypes.h"
#include <string.h>

typedef struct {
    const uint8_t *at, *end;
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
    default:
        return NULL;
    }
}

/* Does an array of `count` values start here? */
static int array_of(input *in, Py_ssize_t count)
{
    uint64_t type, n;
    if (!number(in, 1, &type))
        return 0;
    if ((type & 0xF0) == 0x90)
        n = type & 15;
    else if ((type != 0xDC && type != 0xDD) || !number(in, type == 0xDC ? 2 : 4, &n))
        return 0;
    return n == (uint64_t)count;
}

static PyObject *f_fill_ordinary(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    if (n != 4 || !PyObject_TypeCheck(args[0], dbz_persistent_type) || !PyTuple_Check(args[1]) || !PyBytes_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "fill_ordinary() takes an object, a tuple of names, a payload and where its values start");
        return NULL;
    }
    Py_ssize_t start = PyLong_AsSsize_t(args[3]), size = PyBytes_Size(args[2]), count = PyTuple_Size(args[1]);
    if (start == -1 && PyErr_Occurred())
        return NULL;
    const uint8_t *bytes = (const uint8_t *)PyBytes_AsString(args[2]);
    if (start < 0 || start > size)
        Py_RETURN_FALSE;
    input in = {bytes + start, bytes + size};
    PyObject *values = array_of(&in, count) ? PyList_New(count) : NULL;
    if (values == NULL)
        goto other;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *value = value_of(&in);
        if (value == NULL)
            goto other;
        PyList_SetItem(values, i, value);
    }
    if (in.at != in.end)
        goto other;
    if (dbz_put_fields(args[0], args[1], values) < 0)
        goto failed;
    Py_DECREF(values);
    Py_RETURN_TRUE;
other:
    Py_XDECREF(values);
    if (PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
            return NULL;
        PyErr_Clear();
    }
    Py_RETURN_FALSE;
failed:
    Py_DECREF(values);
    return NULL;
}

PyMethodDef dbz_decode_functions[] = {
    {"fill_ordinary", (PyCFunction)(void (*)(void))f_fill_ordinary, METH_FASTCALL,
     "fill_ordinary(obj, names, payload, at): fill() with the values of the MessagePack array at payload[at:]. False, with nothing done: it is not one of that many "
     "atoms."},
    {NULL, NULL, 0, NULL},
};
