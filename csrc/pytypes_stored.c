/* Types beneath dbzero/collections: Stored (a persistent object with one state), the states of collections, the
 * parts of tree nodes. See pytypes_stored.h. */
#include "pytypes_stored.h"
#include <stddef.h>

PyTypeObject *dbz_stored_type, *dbz_inner_type, *dbz_counted_type, *dbz_entries_type;
PyTypeObject *dbz_list_state, *dbz_dict_state, *dbz_set_state;
Py_ssize_t dbz_leaf_size;

static traverseproc base_traverse;
static inquiry base_clear;
static destructor base_dealloc;

/* --- common steps ------------------------------------------------------------------------------------------------
 * ------------------------ */

int dbz_stored_as_is(const Persistent *p, PyObject *value)
{
    if (dbz_is_atom(value))
        return 1;
    if (!PyObject_TypeCheck(value, dbz_persistent_type))
        return 0;
    const Persistent *object = (const Persistent *)value;
    return object->view == p->view && !(object->flags & (P_EXPIRED | P_CLOSED | P_INIT));
}

State *dbz_begin_change(PyObject *self, const PyTypeObject *type)
{
    const Persistent *p = (const Persistent *)self;
    if (!dbz_writable_now(p) || dbz_op_acquire() < 0)
        return NULL;
    State *state = dbz_writable_now(p) ? dbz_loaded_state(self, type) : NULL;   /* what held the lock may have changed it */
    if (state == NULL)
        dbz_op_release();
    return state;
}

PyObject *dbz_node_data(PyObject *node)
{
    if (!PyObject_TypeCheck(node, dbz_stored_type)) {
        PyErr_Format(PyExc_TypeError, "a tree node is needed, not %R", Py_TYPE(node));
        return NULL;
    }
    Persistent *p = (Persistent *)node;
    if ((p->flags & P_READ_SLOW) && dbz_load(p, 0) < 0)
        return NULL;
    p->flags |= P_USED;
    PyObject *data = ((Stored *)node)->data;
    if (data == NULL)
        PyErr_SetString(PyExc_SystemError, "a loaded node without a state");
    return data;
}

PyObject *dbz_slowly(PyObject *self, PyObject *name, PyObject *a, PyObject *b)
{
    return PyErr_Occurred() ? NULL : PyObject_CallMethodObjArgs(self, name, a, b, NULL);
}

/* --- Stored ------------------------------------------------------------------------------------------------------
 * ------------------------ */

static int stored_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((Stored *)self)->data);
    Py_VISIT(((Stored *)self)->front);
    return base_traverse(self, visit, arg);
}

static int stored_clear(PyObject *self)
{
    int rc = base_clear(self);
    Py_CLEAR(((Stored *)self)->data);
    Py_CLEAR(((Stored *)self)->front);
    return rc;
}

/* A leaf that leaves memory takes what stands of it in a front along. */
static void stored_dealloc(PyObject *self)
{
    Stored *s = (Stored *)self;
    PyObject_GC_UnTrack(self);
    PyObject *front = s->front;
    s->front = NULL;
    if (front != NULL && PyDict_CheckExact(front))
        PyDict_Clear(front);
    else if (front != NULL && PySet_Check(front) && PySet_Clear(front) < 0)
        PyErr_Clear();
    Py_XDECREF(front);
    Py_CLEAR(s->data);
    base_dealloc(self);
}

/* About how many bytes of memory a value takes that a leaf holds. Objects are weighed by themselves, but for the
 * wrapper. */
static uint64_t bytes_of(PyObject *value)
{
    if (value == Py_None || PyBool_Check(value))
        return 0;
    if (PyUnicode_Check(value))
        return 56 + (uint64_t)PyUnicode_GetLength(value);
    if (PyBytes_Check(value))
        return 40 + (uint64_t)PyBytes_Size(value);
    if (PyLong_Check(value) || PyFloat_Check(value))
        return 32;
    return 120;
}

static uint64_t bytes_of_list(PyObject *list)
{
    uint64_t sum = 64;
    for (Py_ssize_t i = 0; PyList_Check(list) && i < PyList_Size(list); i++)
        sum += 8 + bytes_of(PyList_GetItem(list, i));
    return sum;
}

enum { IN_DICT = 48, IN_SET = 40 };     /* bytes a place in a hash table takes */

static uint64_t bytes_of_state(PyObject *data)
{
    if (data == NULL || data == Py_None)
        return 0;
    if (PyList_Check(data))
        return bytes_of_list(data);
    if (PyByteArray_Check(data))
        return 64 + (uint64_t)PyByteArray_Size(data);
    if (PyDict_Check(data)) {
        uint64_t sum = 240;
        PyObject *key, *value;
        for (Py_ssize_t at = 0; PyDict_Next(data, &at, &key, &value);)
            sum += IN_DICT + bytes_of(key) + bytes_of(value);
        return sum;
    }
    if (PyAnySet_Check(data)) {
        uint64_t sum = 220;
        PyObject *iterator = PyObject_GetIter(data), *item;
        while (iterator != NULL && (item = PyIter_Next(iterator)) != NULL) {
            sum += 2 * IN_SET + bytes_of(item);     /* it may stand in the front too */
            Py_DECREF(item);
        }
        Py_XDECREF(iterator);
        PyErr_Clear();
        return sum;
    }
    if (Py_TYPE(data) == dbz_inner_type || Py_TYPE(data) == dbz_counted_type || Py_TYPE(data) == dbz_entries_type) {
        const Part *part = (const Part *)data;
        uint64_t sum = 64 + bytes_of_list(part->first) + bytes_of_list(part->second);
        if (part->third != NULL)
            sum += bytes_of_list(part->third);
        if (Py_TYPE(data) == dbz_entries_type)
            sum += IN_DICT * (uint64_t)PyList_Size(part->first);    /* its entries may stand in the front too */
        return sum;
    }
    if (Py_TYPE(data) == dbz_list_state || Py_TYPE(data) == dbz_dict_state || Py_TYPE(data) == dbz_set_state)
        return 400 + bytes_of_state(((State *)data)->items);
    return 0;
}

static PyObject *stored_weight(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(bytes_of_state(((Stored *)self)->data));
}

static PyMethodDef stored_methods[] = {
    {"_p_weight", stored_weight, METH_NOARGS, "About how many bytes of memory the loaded state takes; 0: not known here, go by the record."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef stored_members[] = {
    {"_data", T_OBJECT_EX, offsetof(Stored, data), 0, "the loaded state"},
    {"_front", T_OBJECT, offsetof(Stored, front), 0, "the front that something of this leaf stands in, or None"},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot stored_slots[] = {
    {Py_tp_dealloc, stored_dealloc},
    {Py_tp_traverse, stored_traverse},
    {Py_tp_clear, stored_clear},
    {Py_tp_methods, stored_methods},
    {Py_tp_members, stored_members},
    {Py_tp_doc, "A persistent object whose whole state is `_data`."},
    {0, NULL},
};

static PyType_Spec stored_spec = {
    "_persistent.Stored", sizeof(Stored), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, stored_slots};

/* --- states of collections
 * --------------------------------------------------------------------------------------------------------------- */

static int state_traverse(PyObject *self, visitproc visit, void *arg)
{
    State *s = (State *)self;
    Py_VISIT(s->items);
    Py_VISIT(s->tree);
    Py_VISIT(s->front);
    Py_VISIT(s->index);
    Py_VISIT(s->last);
    Py_VISIT(s->pending);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int state_clear(PyObject *self)
{
    State *s = (State *)self;
    Py_CLEAR(s->items);
    Py_CLEAR(s->tree);
    Py_CLEAR(s->front);
    Py_CLEAR(s->index);
    Py_CLEAR(s->last);
    Py_CLEAR(s->pending);
    return 0;
}

static void release(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc give_back = (freefunc)PyType_GetSlot(type, Py_tp_free);
    give_back(self);
    Py_DECREF(type);
}

static void state_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    state_clear(self);
    release(self);
}

static PyObject *state_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *items;
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "a state takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O:State", &items))
        return NULL;
    State *s = (State *)PyType_GenericAlloc(type, 0);
    if (s == NULL)
        return NULL;
    Py_INCREF(items);
    s->items = items;
    s->full = 1;
    s->front = type == dbz_list_state ? PyList_New(0) : type == dbz_dict_state ? PyDict_New() : PySet_New(NULL);
    if (s->front == NULL)
        Py_CLEAR(s);
    return (PyObject *)s;
}

/* A copy of a builtin container, or the value itself. NULL stays NULL. */
static PyObject *copy_of(PyObject *value)
{
    if (value != NULL && PyList_CheckExact(value))
        return PyList_GetSlice(value, 0, PyList_Size(value));
    if (value != NULL && PyDict_CheckExact(value))
        return PyDict_Copy(value);
    if (value != NULL && PyAnySet_CheckExact(value))
        return PySet_New(value);
    Py_XINCREF(value);
    return value;
}

static PyObject *state_copy(PyObject *self, PyObject *unused)
{
    (void)unused;
    const State *s = (const State *)self;
    PyObject *items = copy_of(s->items);
    PyObject *args = items == NULL ? NULL : PyTuple_Pack(1, items);
    Py_XDECREF(items);
    State *made = args == NULL ? NULL : (State *)state_new(Py_TYPE(self), args, NULL);
    Py_XDECREF(args);
    if (made == NULL)
        return NULL;
    made->tree = copy_of(s->tree);
    made->index = copy_of(s->index);
    made->last = copy_of(s->last);
    made->pending = copy_of(s->pending);
    made->count = s->count;
    made->next = s->next;
    made->version = s->version;
    made->full = s->full;
    if (made->pending == NULL && s->pending != NULL) {
        Py_DECREF(made);
        return NULL;
    }
    return (PyObject *)made;
}

#define COPY(function) \
    {"copy", function, METH_NOARGS, "A copy of the state and its containers, not of what they hold; what is only derived is empty in it."}

#define FIELD(name, type, field) {name, type, offsetof(State, field), 0, NULL}
#define END {NULL, 0, 0, 0, NULL}

static PyMemberDef list_members[] = {
    FIELD("tail", T_OBJECT, items), FIELD("tree", T_OBJECT, tree), FIELD("front", T_OBJECT, front), FIELD("count", T_PYSSIZET, count),
    FIELD("version", T_LONGLONG, version), FIELD("full", T_BOOL, full), END};
static PyMemberDef dict_members[] = {
    FIELD("items", T_OBJECT, items), FIELD("entries", T_OBJECT, tree), FIELD("front", T_OBJECT, front), FIELD("index", T_OBJECT, index),
    FIELD("last", T_OBJECT, last), FIELD("pending", T_OBJECT, pending), FIELD("count", T_PYSSIZET, count), FIELD("next", T_LONGLONG, next),
    FIELD("version", T_LONGLONG, version), END};
static PyMemberDef set_members[] = {
    FIELD("items", T_OBJECT, items), FIELD("root", T_OBJECT, tree), FIELD("front", T_OBJECT, front), FIELD("pending", T_OBJECT, pending),
    FIELD("count", T_PYSSIZET, count), FIELD("version", T_LONGLONG, version), END};

/* Readers of a list don't take the operation lock: these three change in one step. */
static PyObject *list_arrange(PyObject *self, PyObject *args)
{
    State *s = (State *)self;
    PyObject *tail, *tree;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "O!On:arrange", &PyList_Type, &tail, &tree, &count))
        return NULL;
    PyObject *old_tail = s->items, *old_tree = s->tree;
    Py_INCREF(tail);
    Py_INCREF(tree);
    s->items = tail;
    s->tree = tree;
    s->count = count;
    s->version++;
    Py_XDECREF(old_tail);
    Py_XDECREF(old_tree);
    Py_RETURN_NONE;
}

static PyMethodDef list_methods[] = {
    {"arrange", list_arrange, METH_VARARGS, "arrange(tail, tree, count): set all three in one step."},
    COPY(state_copy),
    {NULL, NULL, 0, NULL},
};
static PyMethodDef state_methods[] = {COPY(state_copy), {NULL, NULL, 0, NULL}};

#define STATE_SLOTS(members, methods, doc) \
    {{Py_tp_new, state_new}, {Py_tp_dealloc, state_dealloc}, {Py_tp_traverse, state_traverse}, {Py_tp_clear, state_clear}, \
     {Py_tp_members, members}, {Py_tp_methods, methods}, {Py_tp_doc, doc}, {0, NULL}}

static PyType_Slot list_slots[] = STATE_SLOTS(list_members, list_methods, "ListState(tail): the loaded state of a list or tuple.");
static PyType_Slot dict_slots[] = STATE_SLOTS(dict_members, state_methods, "DictState(items): the loaded state of a dict.");
static PyType_Slot set_slots[] = STATE_SLOTS(set_members, state_methods, "SetState(items): the loaded state of a set.");

/* --- parts of nodes ----------------------------------------------------------------------------------------------
 * ------------------------ */

static int part_traverse(PyObject *self, visitproc visit, void *arg)
{
    Part *part = (Part *)self;
    Py_VISIT(part->first);
    Py_VISIT(part->second);
    Py_VISIT(part->third);
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static int part_clear(PyObject *self)
{
    Part *part = (Part *)self;
    Py_CLEAR(part->first);
    Py_CLEAR(part->second);
    Py_CLEAR(part->third);
    return 0;
}

static void part_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    part_clear(self);
    release(self);
}

static PyObject *part_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *first, *second, *third = NULL;
    Py_ssize_t level = 0;
    int ok = type != dbz_entries_type ? PyArg_ParseTuple(args, "nO!O!:Inner", &level, &PyList_Type, &first, &PyList_Type, &second)
                                    : PyArg_ParseTuple(args, "O!O!O!:Entries", &PyList_Type, &first, &PyList_Type, &second, &PyList_Type, &third);
    if (ok && kwargs != NULL && PyDict_Size(kwargs) > 0) {
        PyErr_SetString(PyExc_TypeError, "a node's state takes no keywords");
        ok = 0;
    }
    Part *part = ok ? (Part *)PyType_GenericAlloc(type, 0) : NULL;
    if (part == NULL)
        return NULL;
    Py_INCREF(first);
    Py_INCREF(second);
    Py_XINCREF(third);
    part->first = first;
    part->second = second;
    part->third = third;
    part->level = level;
    return (PyObject *)part;
}

static PyObject *part_copy(PyObject *self, PyObject *unused)
{
    (void)unused;
    const Part *part = (const Part *)self;
    Part *made = (Part *)PyType_GenericAlloc(Py_TYPE(self), 0);
    if (made == NULL)
        return NULL;
    made->level = part->level;
    made->first = copy_of(part->first);
    made->second = copy_of(part->second);
    made->third = copy_of(part->third);
    if (made->first == NULL || made->second == NULL || (made->third == NULL && part->third != NULL)) {
        Py_DECREF(made);
        return NULL;
    }
    return (PyObject *)made;
}

static PyMethodDef part_methods[] = {COPY(part_copy), {NULL, NULL, 0, NULL}};

static Py_ssize_t inner_length(PyObject *self)
{
    return PyList_Size(((Part *)self)->second);
}

static Py_ssize_t entries_length(PyObject *self)
{
    return PyList_Size(((Part *)self)->first);
}

static PyMemberDef inner_members[] = {
    {"marks", T_OBJECT, offsetof(Part, first), READONLY, NULL}, {"children", T_OBJECT, offsetof(Part, second), READONLY, NULL},
    {"level", T_PYSSIZET, offsetof(Part, level), READONLY, NULL}, END};
static PyMemberDef counted_members[] = {
    {"counts", T_OBJECT, offsetof(Part, first), READONLY, NULL}, {"children", T_OBJECT, offsetof(Part, second), READONLY, NULL},
    {"starts", T_OBJECT, offsetof(Part, third), 0, NULL}, {"level", T_PYSSIZET, offsetof(Part, level), READONLY, NULL}, END};
static PyMemberDef entries_members[] = {
    {"seqs", T_OBJECT, offsetof(Part, first), READONLY, NULL}, {"keys", T_OBJECT, offsetof(Part, second), READONLY, NULL},
    {"values", T_OBJECT, offsetof(Part, third), READONLY, NULL}, END};

#define PART_SLOTS(members, length, doc) \
    {{Py_tp_new, part_new}, {Py_tp_dealloc, part_dealloc}, {Py_tp_traverse, part_traverse}, {Py_tp_clear, part_clear}, \
     {Py_tp_members, members}, {Py_tp_methods, part_methods}, {Py_sq_length, length}, {Py_tp_doc, doc}, {0, NULL}}

static PyType_Slot inner_slots[] = PART_SLOTS(inner_members, inner_length, "Inner(level, marks, children): state of an inner node of a keyed tree.");
static PyType_Slot counted_slots[] =
    PART_SLOTS(counted_members, inner_length, "CountedInner(level, counts, children): state of an inner node of a counted tree.");
static PyType_Slot entries_slots[] =
    PART_SLOTS(entries_members, entries_length, "Entries(seqs, keys, values): state of a leaf of a dict's entries, in ascending order of sequence number.");

#define SPEC(name, size, slots) {"_persistent." name, size, 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots}

static PyType_Spec list_spec = SPEC("ListState", sizeof(State), list_slots);
static PyType_Spec dict_spec = SPEC("DictState", sizeof(State), dict_slots);
static PyType_Spec set_spec = SPEC("SetState", sizeof(State), set_slots);
static PyType_Spec inner_spec = SPEC("Inner", sizeof(Part), inner_slots);
static PyType_Spec counted_spec = SPEC("CountedInner", sizeof(Part), counted_slots);
static PyType_Spec entries_spec = SPEC("Entries", sizeof(Part), entries_slots);

/* --- module ------------------------------------------------------------------------------------------------------
 * ------------------------ */

static PyObject *f_set_leaf(PyObject *module, PyObject *number)
{
    (void)module;
    Py_ssize_t size = PyLong_AsSsize_t(number);
    if (size == -1 && PyErr_Occurred())
        return NULL;
    dbz_leaf_size = size;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"set_leaf", f_set_leaf, METH_O, "How many values a leaf holds at most."},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, const char *name, PyTypeObject **where, PyType_Spec *spec, PyObject *bases)
{
    *where = (PyTypeObject *)PyType_FromSpecWithBases(spec, bases);
    if (*where == NULL)
        return -1;
    Py_INCREF(*where);
    return PyModule_AddObject(module, name, (PyObject *)*where);
}

int dbz_stored_ready(PyObject *module)
{
    base_traverse = (traverseproc)PyType_GetSlot(dbz_persistent_type, Py_tp_traverse);
    base_clear = (inquiry)PyType_GetSlot(dbz_persistent_type, Py_tp_clear);
    base_dealloc = (destructor)PyType_GetSlot(dbz_persistent_type, Py_tp_dealloc);
    if (add_type(module, "Stored", &dbz_stored_type, &stored_spec, (PyObject *)dbz_persistent_type) < 0
        || add_type(module, "ListState", &dbz_list_state, &list_spec, NULL) < 0 || add_type(module, "DictState", &dbz_dict_state, &dict_spec, NULL) < 0
        || add_type(module, "SetState", &dbz_set_state, &set_spec, NULL) < 0 || add_type(module, "Inner", &dbz_inner_type, &inner_spec, NULL) < 0
        || add_type(module, "CountedInner", &dbz_counted_type, &counted_spec, NULL) < 0 || add_type(module, "Entries", &dbz_entries_type, &entries_spec, NULL) < 0)
        return -1;
    return PyModule_AddFunctions(module, functions);
}
