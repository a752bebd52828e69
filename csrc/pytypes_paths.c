/* Short ways for the shortest operations: fetching a live object by its UUID, hashing a key, finding the child of a keyed tree's node. Each of them
 * does what its Python counterpart does, or says that this is not the ordinary case and leaves everything as it was. */
#include "pytypes.h"
#include <string.h>

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

/* --- keyed trees ------------------------------------------------------------------------------------------------------------------------- */

/* The number at a place of a list; 0 with `*bad` set when it is no 64-bit number. */
static long long number_at(PyObject *numbers, Py_ssize_t place, int *bad)
{
    PyObject *number = PyList_GetItem(numbers, place);
    int overflow = 0;
    if (number == NULL || !PyLong_CheckExact(number)) {
        *bad = 1;
        return 0;
    }
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    *bad |= overflow != 0;
    return value;
}

Py_ssize_t dbz_count_up_to(PyObject *numbers, Py_ssize_t first, long long key)
{
    if (!PyList_CheckExact(numbers))
        return -1;
    Py_ssize_t low = first, high = PyList_Size(numbers);
    int bad = 0;
    /* Each number is a cache miss of its own. Hashes are even, sequence numbers nearly dense: a guess in proportion and its neighbour mostly settle it. */
    if (high - low > 8) {
        long long least = number_at(numbers, low, &bad), most = number_at(numbers, high - 1, &bad);
        if (!bad && key >= most)
            return high;
        if (!bad && key < least)
            return low;
        if (!bad) {
            Py_ssize_t guess = low + (Py_ssize_t)(((double)key - (double)least) / ((double)most - (double)least) * (double)(high - 1 - low));
            Py_ssize_t step = 1;
            guess = guess < low ? low : guess > high - 1 ? high - 1 : guess;
            if (number_at(numbers, guess, &bad) <= key) {
                for (low = guess + 1; low < high && number_at(numbers, guess + step < high ? guess + step : high - 1, &bad) <= key; step *= 2)
                    low = (guess + step < high ? guess + step : high - 1) + 1;
                high = guess + step < high ? guess + step : high;
            } else {
                for (high = guess; guess - step > low && number_at(numbers, guess - step, &bad) > key; step *= 2)
                    high = guess - step;
                low = guess - step > low ? guess - step : low;
            }
        }
    }
    while (low < high && !bad) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (key < number_at(numbers, middle, &bad))
            high = middle;
        else
            low = middle + 1;
    }
    return bad ? -1 : low;
}

/* --- hashes ------------------------------------------------------------------------------------------------------------------------------ */

static PyObject *hash_of_others;    /* the Python function for all that is neither int, bool nor str */

PyObject *dbz_stable_hash(PyObject *form)
{
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
    return NULL;
}

static PyObject *f_stable_hash(PyObject *module, PyObject *form)
{
    (void)module;
    PyObject *hash = dbz_stable_hash(form);
    if (hash != NULL || PyErr_Occurred())
        return hash;
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
    {NULL, NULL, 0, NULL},
};

int dbz_paths_ready(PyObject *module)
{
    crc_ready();
    return PyModule_AddFunctions(module, functions);
}
