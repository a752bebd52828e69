/* The words of a prefix slot that every operation looks at, and the pin that moves with each of its states, without letting go of the GIL: that takes
 * nanoseconds, while each release of the GIL beside a thread that wants it may end in a switch of threads. Whatever may sleep or take long goes through cffi, which lets go of it. */
#include "pytypes.h"
#include "shared.h"

#define CAPSULE "dbzero.segment"

static void let_go(PyObject *capsule)
{
    dbz_seg *seg = PyCapsule_GetPointer(capsule, CAPSULE);
    if (seg != NULL)
        dbz_seg_drop(seg);
}

static PyObject *f_segment_words(PyObject *module, PyObject *address)
{
    (void)module;
    dbz_seg *seg = PyLong_AsVoidPtr(address);
    if (seg == NULL)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "no segment");
    dbz_seg_hold(seg);
    PyObject *capsule = PyCapsule_New(seg, CAPSULE, let_go);
    if (capsule == NULL)
        dbz_seg_drop(seg);
    return capsule;
}

static int arguments(PyObject *const *args, Py_ssize_t n, dbz_seg **seg, uint32_t *prefix)
{
    if (n != 2) {
        PyErr_SetString(PyExc_TypeError, "a segment's words and the number of a slot are needed");
        return -1;
    }
    *seg = PyCapsule_GetPointer(args[0], CAPSULE);
    if (*seg == NULL)
        return -1;
    unsigned long index = PyLong_AsUnsignedLong(args[1]);
    if (index == (unsigned long)-1 && PyErr_Occurred())
        return -1;
    *prefix = index > UINT32_MAX ? UINT32_MAX : (uint32_t)index;
    return 0;
}

#define WORD(function, call, make)                                                                                                                             \
    static PyObject *function(PyObject *module, PyObject *const *args, Py_ssize_t n)                                                                           \
    {                                                                                                                                                          \
        (void)module;                                                                                                                                          \
        dbz_seg *seg;                                                                                                                                          \
        uint32_t prefix;                                                                                                                                       \
        return arguments(args, n, &seg, &prefix) < 0 ? NULL : make(call(seg, prefix));                                                                         \
    }

static PyTypeObject *now_type;

static PyStructSequence_Field now_fields[] = {
    {"state", "newest published state"},
    {"data_end", "data bytes below are published"},
    {"next_oid", "no object id from here on was given out"},
    {"epoch", "of the lease"},
    {"owner", "of the lease: process slot + 1, 0 free, GROUP"},
    {"ready", "0 while it is being filled"},
    {"poisoned", "a sync failed"},
    {"torn", "how the last turn ended"},
    {"turn", "word of the turn's holder, 0: nobody's"},
    {"log_number", "log file in use, as the last turn left it"},
    {"log_end", "offset behind its last frame"},
    {"log_chain", "that frame's chain checksum"},
    {NULL, NULL},
};

static PyObject *f_now(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    dbz_seg *seg;
    uint32_t prefix;
    if (arguments(args, n, &seg, &prefix) < 0)
        return NULL;
    dbz_prefix *x = dbz_seg_prefix(seg, prefix);
    if (x == NULL)
        return PyErr_Format(PyExc_ValueError, "no prefix slot %u", prefix);
    uint64_t lease = LOAD(x->lease);
    uint64_t words[] = {
        LOAD(x->published) & DBZ_STATE_MASK, LOAD(x->data_end), LOAD(x->next_oid), lease >> 16, lease & 0xffff, LOAD(x->ready), LOAD(x->poisoned),
        LOAD(x->torn), LOAD_SC(x->turn), LOAD(x->log_number), LOAD(x->log_end), LOAD(x->log_chain),
    };
    PyObject *found = PyStructSequence_New(now_type);
    for (Py_ssize_t i = 0; found != NULL && i < (Py_ssize_t)(sizeof words / sizeof *words); i++) {
        PyObject *word = PyLong_FromUnsignedLongLong(words[i]);
        if (word == NULL)
            Py_CLEAR(found);
        else
            PyStructSequence_SetItem(found, i, word);
    }
    return found;
}

static PyObject *f_repin(PyObject *module, PyObject *const *args, Py_ssize_t n)
{
    (void)module;
    dbz_seg *seg;
    uint32_t prefix;
    if (n != 4)
        return PyErr_Format(PyExc_TypeError, "a segment's words, the number of a slot, that of a pin and a state are needed");
    if (arguments(args, 2, &seg, &prefix) < 0)
        return NULL;
    long pin = PyLong_AsLong(args[2]);
    uint64_t state = PyLong_AsUnsignedLongLong(args[3]);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(dbz_repin(seg, (int)pin, prefix, state));
}

WORD(f_published, dbz_state_published, PyLong_FromUnsignedLongLong)
WORD(f_durable, dbz_state_durable, PyLong_FromUnsignedLongLong)
WORD(f_incarnation, dbz_incarnation, PyLong_FromUnsignedLong)
WORD(f_ticket, dbz_ticket, PyLong_FromUnsignedLong)

static PyMethodDef functions[] = {
    {"segment_words", f_segment_words, METH_O, "segment_words(address of a dbz_seg): what the other functions take. Keeps the mapping."},
    {"published", (PyCFunction)(void (*)(void))f_published, METH_FASTCALL, "published(words, slot): newest published state."},
    {"durable", (PyCFunction)(void (*)(void))f_durable, METH_FASTCALL, "durable(words, slot): newest durable state."},
    {"incarnation", (PyCFunction)(void (*)(void))f_incarnation, METH_FASTCALL, "incarnation(words, slot): of the slot."},
    {"ticket", (PyCFunction)(void (*)(void))f_ticket, METH_FASTCALL, "ticket(words, slot): wake-ups so far."},
    {"now", (PyCFunction)(void (*)(void))f_now, METH_FASTCALL, "now(words, slot): what who writes has to know, each word as of its own load."},
    {"repin", (PyCFunction)(void (*)(void))f_repin, METH_FASTCALL, "repin(words, slot, pin, state): the pin's number from now on, or a code."},
    {NULL, NULL, 0, NULL},
};

int dbz_words_ready(PyObject *module)
{
    static PyStructSequence_Desc desc = {"_persistent.SlotNow", "Words of a prefix slot.", now_fields, (int)(sizeof now_fields / sizeof *now_fields) - 1};
    now_type = PyStructSequence_NewType(&desc);
    return now_type == NULL ? -1 : PyModule_AddFunctions(module, functions);
}
