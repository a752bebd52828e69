/* What the C short ways of collections know of them: the stored object with its state, the states of collections,
 * the parts of tree nodes.
 *
 * The fields are those that the Python code in dbzero/collections sees as attributes of the same names; what is not
 * there is NULL or None. All fields are read and written with the GIL held. Trees, and `items` of a dict or set,
 * change only under the operation lock. */
#ifndef DBZ_PYTYPES_STORED_H
#define DBZ_PYTYPES_STORED_H

#include "pytypes.h"

typedef struct {
    Persistent base;
    PyObject *data;     /* `_data`: the loaded state; NULL: never set, None: a ghost's */
    PyObject *front;    /* `_front`: the front that something of this leaf stands in */
} Stored;

/* The loaded state of a list or tuple (items: its tail), a dict, or a set. */
typedef struct {
    PyObject_HEAD
    PyObject *items;    /* list: the tail; dict and set: the whole content, None when it stands in trees */
    PyObject *tree;     /* root of the counted tree, of a dict's entries, of a set's tree */
    PyObject *front;    /* list of leaves by number; dict; set */
    PyObject *index;    /* root of a dict's hash index */
    PyObject *last;     /* a dict's last leaf of entries */
    PyObject *pending;  /* entries or elements not yet put into the trees, or None when nothing may be left pending */
    Py_ssize_t count;   /* values in the tree(s) */
    long long next;     /* a dict's next sequence number */
    long long version;
    char full;          /* every leaf of a list's tree is full */
} State;

/* A node's state that is not a builtin container. Inner nodes of keyed trees: marks, children; of counted trees:
 * counts, children, starts (None: not computed). Leaves of a dict's entries: seqs, keys, values. */
typedef struct {
    PyObject_HEAD
    PyObject *first, *second, *third;
    Py_ssize_t level;
} Part;

extern PyTypeObject *dbz_stored_type, *dbz_inner_type, *dbz_counted_type, *dbz_entries_type;
extern PyTypeObject *dbz_list_state, *dbz_dict_state, *dbz_set_state;
extern Py_ssize_t dbz_leaf_size;    /* most values in a leaf; 0: not told yet, so nothing is ordinary */

static inline int dbz_given(const PyObject *value)
{
    return value != NULL && value != Py_None;
}

/* The loaded state of a collection if it is of that type and may be read at once, else NULL. */
static inline State *dbz_loaded_state(PyObject *self, const PyTypeObject *type)
{
    Persistent *p = (Persistent *)self;
    PyObject *data = ((Stored *)self)->data;
    if ((p->flags & P_READ_SLOW) || data == NULL || Py_TYPE(data) != type)
        return NULL;
    p->flags |= P_USED;
    return (State *)data;
}

/* Is the value stored as it is in p's view? */
int dbz_stored_as_is(const Persistent *p, PyObject *value);
/* Take the operation lock if the object may be changed without further ado and its state is of that type. NULL: not
 * ordinary, nothing is held, or an exception. */
State *dbz_begin_change(PyObject *self, const PyTypeObject *type);
/* The state of a node, borrowed, loading it if it is a ghost. Under the operation lock. NULL with an exception. */
PyObject *dbz_node_data(PyObject *node);
/* Call a method that decides and raises. */
PyObject *dbz_slowly(PyObject *self, PyObject *name, PyObject *a, PyObject *b);

int dbz_stored_ready(PyObject *module);
int dbz_list_ready(PyObject *module);
int dbz_keyed_ready(PyObject *module);

#endif
