/* The Python-aware part of the engine: module `_persistent`, CPython limited API (3.10), the only C that knows Python.
 *
 * Files: pytypes.c (module, Persistent), pytypes_map.c (the identity map), pytypes_view.c (ViewCore: dirty list, eviction),
 * pytypes_meta.c (MemoMeta, construction), pytypes_lock.c (the operation lock), pytypes_encode.c and pytypes_decode.c (records of ordinary content), pytypes_oids.c (sets of object ids),
 * pytypes_paths.c (short ways), pytypes_stored.c, pytypes_list.c and pytypes_keyed.c (collections, see pytypes_stored.h), pytypes_block.c (undo logs of atomic blocks),
 * pytypes_move.c (collections that change their prefix). All of it runs with the
 * GIL held; "atomic" below means: no call that may run Python code or release the GIL.
 */
#ifndef DBZ_PYTYPES_H
#define DBZ_PYTYPES_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030A0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdint.h>

#define DBZ_LIKELY(x) __builtin_expect(!!(x), 1)

/* State flags of a stored object. */
enum {
    P_GHOST = 1,            /* its state is not in memory */
    P_LOADING = 2,          /* its state is being put in or taken out by whoever holds the operation lock; raw access for that thread */
    P_INIT = 4,             /* under construction: has an OID, is in no map, fields are buffered in the instance */
    P_NEW = 8,              /* never committed */
    P_DIRTY = 16,           /* on the view's dirty list, which holds it strongly */
    P_EXPIRED = 32,         /* deleted, or its construction failed */
    P_CLOSED = 64,          /* its view is closed */
    P_IMMUTABLE = 128,      /* refuses attribute writes */
    P_MEMO = 256,           /* an instance of a memo class: attribute writes convert and mark dirty */
    P_USED = 512,           /* CLOCK bit */
    P_ORPHAN = 1024,        /* stored refcount is 0: its OID is reported when the wrapper dies */
    P_UNMAPPED = 2048,      /* the collector finalized it, and it came back: must re-enter the map before it is used */
    P_BLOCK = 4096,         /* in the undo log of the open atomic block; another thread that touches it waits */
    P_MATERIALIZED = 8192,  /* under construction, but may be put into collections */
    P_SAVING = 16384,       /* taken for a commit that is not settled: must stay loaded */
    P_DEFERRED = 32768,     /* a field may hold a value that is made when it is read */
    P_READ_SLOW = P_GHOST | P_LOADING | P_EXPIRED | P_CLOSED | P_UNMAPPED | P_BLOCK,
    P_WRITE_SLOW = P_READ_SLOW | P_IMMUTABLE,
    P_PINNED = P_GHOST | P_LOADING | P_INIT | P_NEW | P_DIRTY | P_EXPIRED | P_CLOSED | P_SAVING | P_BLOCK   /* eviction keeps off */
};

/* Extension types of MessagePack in records, see dbzero/model/codec.py. */
enum { X_REFERENCE = 1 };

/* Flags of a registered memo class. */
enum { C_SLOW = 1, C_IMMUTABLE = 2 };

typedef struct ViewCore ViewCore;

typedef struct {
    PyObject_HEAD
    uint64_t oid;
    uint32_t flags;
    uint32_t weight;    /* bytes counted in the view's weight */
    ViewCore *view;     /* strong; NULL before adoption */
} Persistent;

typedef struct {
    uint64_t oid;
    Persistent *object; /* borrowed; NULL: empty (oid 0) or deleted (oid 1 << 63) */
} map_slot;

/* A view: the live objects of one prefix in this process.
 *
 * The map's pointers are borrowed. An entry is valid while the object's refcount is above 0, and goes in tp_finalize: that runs before the first weak reference
 * dies and, in the cyclic collector, for all of the trash before any of it is cleared, so nothing half-cleared is ever handed out. An object that was
 * handed out while the collector was finalizing others is found resurrected by it; it then carries P_UNMAPPED and re-enters on its next use. tp_dealloc removes the
 * entry once more for an object finalized twice. Objects hold their view, so a map never outlives its view's storage. */
struct ViewCore {
    PyObject_HEAD
    map_slot *slots;
    size_t capacity;    /* power of two, or 0 */
    size_t live, filled;/* entries; entries and deleted marks */
    size_t hand;        /* CLOCK */
    PyObject **dirty;   /* strong */
    size_t dirty_count, dirty_room;
    uint64_t pushes;    /* how many times an object has entered the dirty list */
    size_t scanned;     /* how many of the dirty list take_new() has seen */
    uint64_t late;      /* place in take_dirty()'s last list from which on it had not */
    uint64_t *orphans;
    size_t orphan_count, orphan_room;
    uint64_t *saving;   /* OIDs taken for the commit under way */
    size_t saving_count, saving_room;
    uint64_t next_oid, end_oid;
    uint64_t weight, limit;    /* loaded bytes; 0 limit: no eviction */
    uint64_t uuid;      /* of the prefix */
    uint64_t frozen;    /* the state that a snapshot's view shows for good; 0: a live view */
    PyObject *codes;    /* dict: class -> class code of references to its objects; NULL or incomplete at first */
    uint64_t changes;   /* counted while somebody watches, see dbz_touch() */
    uint64_t stuck;     /* weight that the last eviction could not get below the limit: not tried again at every load */
    char writable, closed, evicting;
};

typedef struct {
    PyTypeObject *type;     /* borrowed, removed by MemoMeta's finalizer */
    uint32_t flags;
    uint64_t version;       /* of `plain` */
    PyObject *plain;        /* set of names known not to be data descriptors of the type */
} class_info;

extern uint32_t dbz_write_mask;     /* an object with one of these flags may be written without asking anybody; 0 while a block is open or changes are watched */

/* May the object's state be changed without further ado? Else _p_changed() decides: it loads, marks dirty, saves, or refuses. */
static inline int dbz_writable_now(const Persistent *p)
{
    return (p->flags & dbz_write_mask) && !(p->flags & P_WRITE_SLOW);
}

extern PyTypeObject *dbz_persistent_type, *dbz_view_type, *dbz_meta_type;
extern PyObject *dbz_empty_tuple, *dbz_s_dict, *dbz_s_class, *dbz_s_load, *dbz_s_convert, *dbz_s_refuse, *dbz_s_clear, *dbz_s_reserve, *dbz_s_first, *dbz_s_mro, *dbz_s_weight;

/* pytypes_lock.c */
int dbz_op_acquire(void);           /* -1 with an exception set when a signal handler raised */
void dbz_op_release(void);
int dbz_op_outermost(void);         /* held by this thread for one operation, which is in no other one; holds of blocks don't count */
int dbz_op_elsewhere(void);         /* another thread is in the middle of an operation */
int dbz_op_free(void);              /* nobody holds it */
int dbz_op_mine(void);              /* held by this thread */
int dbz_op_inside(void);            /* held by this thread, for more than its blocks */
unsigned long dbz_op_depth(void);
void dbz_op_unwind(void);           /* give back what interrupted operations of the open block did not */
extern unsigned long dbz_block_base;/* how often the open block holds the lock between its operations; 0: none is open */
int dbz_lock_ready(PyObject *module);

/* pytypes.c */
void dbz_raise(const char *kind, const char *format, ...);      /* an error of dbzero.errors, by its name; the format is PyErr_Format's */
int dbz_load(Persistent *p, int writing);           /* a usable, loaded object, or -1 with an exception */
int dbz_refuse(Persistent *p, int writing);         /* raises; always -1 */
int dbz_ghostify(Persistent *p);                    /* drop the state of a loaded object */
int dbz_is_local_name(PyObject *name);               /* `_X__` names are not stored */
PyObject *dbz_state(PyObject *self);                /* the real instance dict, new reference */
int dbz_is_atom(PyObject *value);
/* Put a tuple of names and a list of as many values into an object, past its own setters and conversion. Where no descriptor can intervene, by way of
 * generic attribute setting: CPython then keeps the fields without a dict, which makes them faster to read and smaller. */
int dbz_put_fields(PyObject *obj, PyObject *names, PyObject *values);
PyObject *dbz_settle(PyObject *found);              /* what a stored value is read as; steals its argument, NULL stays NULL */
int dbz_changed(Persistent *p);                     /* _p_changed(): 0, or -1 with an exception */
PyObject *dbz_alloc(PyTypeObject *type, ViewCore *view, uint64_t oid, uint32_t flags);
int dbz_persistent_ready(PyObject *module);

/* pytypes_block.c */
int dbz_touch_slow(Persistent *p);
int dbz_block_created(Persistent *p);
int dbz_block_admits(void);         /* 0: no block, or it belongs to the running context; -1 with AtomicError. For the holder of the operation lock */
int dbz_block_mine(void);           /* may the running code use an object of the block as it is? */
size_t dbz_block_frames(void);
int dbz_block_ready(PyObject *module);

/* Call it before an object is changed, expired or put on the dirty list, with the operation lock held and the object loaded. */
static inline int dbz_touch(Persistent *p)
{
    return DBZ_LIKELY(dbz_write_mask != 0) ? 0 : dbz_touch_slow(p);
}

/* pytypes_map.c */
Persistent *dbz_map_get(ViewCore *v, uint64_t oid); /* borrowed, or NULL */
int dbz_map_put(ViewCore *v, Persistent *p);        /* replaces a dying entry */
void dbz_map_drop(ViewCore *v, const Persistent *p);/* only if the entry is p */

/* pytypes_view.c */
int dbz_mark_dirty(Persistent *p);                  /* caller has checked that writing is allowed */
void dbz_truncate_dirty(ViewCore *v, size_t count);  /* what was put on the dirty list last is clean */
uint64_t dbz_next_oid(ViewCore *v);                 /* 0 with an exception set */
int dbz_adopt(ViewCore *v, Persistent *p);          /* p has its OID */
PyObject *dbz_ghost(ViewCore *v, PyObject *type, uint64_t oid);     /* the live object of that OID or a new ghost; new reference */
void dbz_weigh(Persistent *p, uint64_t weight);
int dbz_evict(ViewCore *v, uint64_t target, PyObject *keep);
int dbz_trim(ViewCore *v, PyObject *keep);          /* evict if the limit asks for it */
void dbz_orphan_died(ViewCore *v, uint64_t oid);
int dbz_view_ready(PyObject *module);

/* pytypes_move.c */
extern uint64_t dbz_moves;          /* collections that changed their view in this process */
extern PyMethodDef dbz_move_functions[];

/* pytypes_encode.c */
extern PyMethodDef dbz_encode_functions[];

/* pytypes_decode.c */
extern PyMethodDef dbz_decode_functions[];

/* pytypes_oids.c */
extern PyMethodDef dbz_oid_functions[];

/* pytypes_words.c */
int dbz_words_ready(PyObject *module);

/* pytypes_read.c */
extern PyMethodDef dbz_read_functions[];

/* checksum.c */
uint64_t dbz_xxh3(const void *data, uint64_t len, uint64_t seed);

/* pytypes_paths.c */
int dbz_paths_ready(PyObject *module);
PyObject *dbz_stable_hash(PyObject *form);          /* of an int, bool or str; else NULL without an exception when it takes Python */
/* How far numbers[first..] are at most `key`, in an ascending list: the place of the first that is greater. -1: it is no list of 64-bit numbers. */
Py_ssize_t dbz_count_up_to(PyObject *numbers, Py_ssize_t first, long long key);

/* pytypes_meta.c */
class_info *dbz_class_info(PyTypeObject *type);
int dbz_is_plain_name(class_info *info, PyTypeObject *type, PyObject *name);   /* 1: no data descriptor of that name; 0; -1 */
int dbz_meta_ready(PyObject *module);
extern PyMethodDef dbz_meta_functions[];
ViewCore *dbz_shown_view(void);     /* borrowed: the current view, writable or not, or NULL */
ViewCore *dbz_current_view(void);   /* borrowed, NULL when the session must be asked */

#endif
