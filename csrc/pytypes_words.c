/* The words of a prefix slot that every operation looks at, and the steps of a turn and of a commit that only move such words, without letting go of the GIL: that takes
 * nanoseconds, while each release of the GIL beside a thread that wants it may end in a switch of threads. Whatever may sleep or take long goes through cffi, which lets go of it. */
#include "pytypes.h"
#include "shared.h"
#include <sched.h>

/* --- Words: the segment -------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    dbz_seg *seg;               /* held; NULL once it is shut */
    PyObject *root;             /* for the error */
} Words;

static PyTypeObject *words_type;

static void let_go(Words *words)
{
    dbz_seg *seg = words->seg;
    words->seg = NULL;
    if (seg != NULL)
        dbz_seg_drop(seg);
}

static void release(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc give_back = (freefunc)PyType_GetSlot(type, Py_tp_free);
    give_back(self);
    Py_DECREF(type);
}

static PyObject *words_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    PyObject *address, *root;
    (void)named;
    if (!PyArg_ParseTuple(args, "OU", &address, &root))
        return NULL;
    dbz_seg *seg = PyLong_AsVoidPtr(address);
    if (seg == NULL)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "no segment");
    Words *words = (Words *)PyType_GenericAlloc(type, 0);
    if (words == NULL)
        return NULL;
    dbz_seg_hold(seg);
    words->seg = seg;
    words->root = Py_NewRef(root);
    return (PyObject *)words;
}

static void words_dealloc(PyObject *self)
{
    let_go((Words *)self);
    Py_XDECREF(((Words *)self)->root);
    release(self);
}

static PyObject *words_shut(PyObject *self, PyObject *unused)
{
    (void)unused;
    let_go((Words *)self);
    Py_RETURN_NONE;
}

static PyMethodDef words_methods[] = {
    {"shut", words_shut, METH_NOARGS, "The segment is closed: slots raise ClosedError from now on."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot words_slots[] = {
    {Py_tp_new, words_new},
    {Py_tp_dealloc, words_dealloc},
    {Py_tp_methods, words_methods},
    {Py_tp_doc, "Words(address of a dbz_seg, root): what slots are made of. Keeps the mapping until it is shut."},
    {0, NULL},
};

static PyType_Spec words_spec = {"_persistent.Words", sizeof(Words), 0, Py_TPFLAGS_DEFAULT, words_slots};

/* --- Slot: a prefix slot in it ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Words *words;
    uint32_t index;
} Slot;

/* ClosedError when it is shut. */
static dbz_seg *segment_of(PyObject *self)
{
    Words *words = ((Slot *)self)->words;
    if (words->seg == NULL)
        dbz_raise("ClosedError", "root %U: its segment is closed; open it again", words->root);
    return words->seg;
}

static PyObject *slot_new(PyTypeObject *type, PyObject *args, PyObject *named)
{
    PyObject *words;
    unsigned int index;
    (void)named;
    if (!PyArg_ParseTuple(args, "O!I", words_type, &words, &index))
        return NULL;
    Slot *slot = (Slot *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (slot == NULL)
        return NULL;
    slot->words = (Words *)Py_NewRef(words);
    slot->index = index;
    return (PyObject *)slot;
}

static void slot_dealloc(PyObject *self)
{
    Py_XDECREF(((Slot *)self)->words);
    release(self);
}

static PyObject *slot_index(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(((Slot *)self)->index);
}

#define WORD(function, call, make)                                                                                                                             \
    static PyObject *function(PyObject *self, void *unused)                                                                                                    \
    {                                                                                                                                                          \
        (void)unused;                                                                                                                                          \
        dbz_seg *seg = segment_of(self);                                                                                                                       \
        return seg == NULL ? NULL : make(call(seg, ((Slot *)self)->index));                                                                                    \
    }

WORD(slot_published, dbz_state_published, PyLong_FromUnsignedLongLong)
WORD(slot_durable, dbz_state_durable, PyLong_FromUnsignedLongLong)
WORD(slot_incarnation, dbz_incarnation, PyLong_FromUnsignedLong)
WORD(slot_ticket, dbz_ticket, PyLong_FromUnsignedLong)
WORD(slot_log_number, dbz_log_number, PyLong_FromUnsignedLongLong)

static PyGetSetDef slot_words[] = {
    {"index", slot_index, NULL, "Number of the slot; what the engine's calls take.", NULL},
    {"published", slot_published, NULL, "Newest published state: what only the lease holder builds on.", NULL},
    {"durable", slot_durable, NULL, "Newest durable state: what views follow.", NULL},
    {"incarnation", slot_incarnation, NULL, "Changes when a successor resets or retires the slot.", NULL},
    {"ticket", slot_ticket, NULL, "Wake-ups so far.", NULL},
    {"log_number", slot_log_number, NULL, "The log file in use, as the last turn left it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

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

static PyObject *slot_now(PyObject *self, PyObject *unused)
{
    (void)unused;
    dbz_seg *seg = segment_of(self);
    if (seg == NULL)
        return NULL;
    dbz_prefix *x = dbz_seg_prefix(seg, ((Slot *)self)->index);
    if (x == NULL)
        return PyErr_Format(PyExc_ValueError, "no prefix slot %u", ((Slot *)self)->index);
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

/* `n` numbers; the segment, or NULL with an error. */
static dbz_seg *numbers(PyObject *self, PyObject *const *args, Py_ssize_t given, uint64_t *number, Py_ssize_t n)
{
    if (given != n) {
        PyErr_Format(PyExc_TypeError, "%zd numbers are needed", n);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        number[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (number[i] == UINT64_MAX && PyErr_Occurred())
            return NULL;
    }
    return segment_of(self);
}

#define STEP(function, n, call)                                                                                                                                \
    static PyObject *function(PyObject *self, PyObject *const *args, Py_ssize_t given)                                                                         \
    {                                                                                                                                                          \
        uint64_t a[n];                                                                                                                                         \
        dbz_seg *seg = numbers(self, args, given, a, n);                                                                                                       \
        return seg == NULL ? NULL : PyLong_FromLong(call);                                                                                                     \
    }
#define INDEX ((Slot *)self)->index

STEP(slot_repin, 2, dbz_repin(seg, (int)a[0], INDEX, a[1]))
STEP(slot_turn_try, 1, dbz_turn_try(seg, INDEX, (int64_t)a[0]))
STEP(slot_turn_torn, 1, (dbz_turn_torn(seg, INDEX, (uint32_t)a[0]), 0))
STEP(slot_advance, 2, (dbz_advance(seg, INDEX, a[0], a[1]), 0))
STEP(slot_step, 3, dbz_publish(seg, INDEX, a[0], a[1], a[2]))

static PyObject *slot_turn_end(PyObject *self, PyObject *const *args, Py_ssize_t given)
{
    uint64_t a[3];
    dbz_seg *seg = numbers(self, args, given, a, 3);
    if (seg == NULL)
        return NULL;
    int code = dbz_turn_end(seg, INDEX, a[0], a[1], a[2]);
    if (code == DBZ_OK && dbz_turn_wanted(seg, INDEX)) {
        /* The next one was woken, maybe onto this processor: what is left for us to do is nothing to anybody else, and its turn is. */
        Py_BEGIN_ALLOW_THREADS
        sched_yield();
        Py_END_ALLOW_THREADS
    }
    return PyLong_FromLong(code);
}

#define METHOD(function) (PyCFunction)(void (*)(void))function, METH_FASTCALL

static PyMethodDef slot_methods[] = {
    {"now", slot_now, METH_NOARGS,
     "now(): what who writes has to know at each step, each word as of its own load: state (the newest published one), data_end, next_oid, epoch and owner of the lease, ready, "
     "poisoned; and of turns torn, turn (the holder's word), log_number, log_end, log_chain."},
    {"repin", METHOD(slot_repin), "repin(pin, state): the pin's number from now on, or a code."},
    {"turn_try", METHOD(slot_turn_try), "turn_try(nanoseconds it may be kept): a code."},
    {"turn_end", METHOD(slot_turn_end), "turn_end(log number, end, chain): a code. Lets who waits run first."},
    {"turn_torn", METHOD(slot_turn_torn), "turn_torn(whether the next holder has to recover)."},
    {"advance", METHOD(slot_advance), "advance(data_end, next_oid): raise the end of published data and the next OID. Lease holder only."},
    {"step", METHOD(slot_step), "step(epoch, state, next state): move published; a code."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slot_slots[] = {
    {Py_tp_new, slot_new},
    {Py_tp_dealloc, slot_dealloc},
    {Py_tp_getset, slot_words},
    {Py_tp_methods, slot_methods},
    {Py_tp_doc, "Slot(words, index): a prefix slot's words."},
    {0, NULL},
};

static PyType_Spec slot_spec = {"_persistent.Slot", sizeof(Slot), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, slot_slots};

int dbz_words_ready(PyObject *module)
{
    static PyStructSequence_Desc desc = {"_persistent.SlotNow", "Words of a prefix slot.", now_fields, (int)(sizeof now_fields / sizeof *now_fields) - 1};
    now_type = PyStructSequence_NewType(&desc);
    words_type = now_type == NULL ? NULL : (PyTypeObject *)PyType_FromSpec(&words_spec);
    PyObject *slot_type = words_type == NULL ? NULL : PyType_FromSpec(&slot_spec);
    if (slot_type == NULL || PyModule_AddObject(module, "Slot", slot_type) < 0) {
        Py_XDECREF(slot_type);
        return -1;
    }
    return PyModule_AddObject(module, "Words", Py_NewRef((PyObject *)words_type));
}
