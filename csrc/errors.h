/* Error codes shared by every engine call. The Python facade maps each to a typed exception. */
#ifndef DBZ_ERRORS_H
#define DBZ_ERRORS_H

enum {
    DBZ_OK = 0,
    DBZ_E_MISS = -1,      /* page not cached and the reader has no descriptor: supply it with dbz_page_supply, then retry */
    DBZ_E_NOTFOUND = -2,  /* no version of the object at or below the asked state */
    DBZ_E_CORRUPT = -3,   /* a checksum, length or address is wrong; see dbz_reader_fault */
    DBZ_E_IO = -4,        /* a system call failed; errno is kept in the handle */
    DBZ_E_NOMEM = -5,     /* malloc failed */
    DBZ_E_NOSPACE = -6,   /* shared memory or a fixed array is exhausted */
    DBZ_E_FENCED = -7,    /* the caller's epoch is no longer the lease's */
    DBZ_E_BUSY = -8,      /* held by a live process */
    DBZ_E_FULL = -9,      /* every slot is taken */
    DBZ_E_TIMEOUT = -10,
    DBZ_E_MISMATCH = -11, /* magic, ABI version or identity is another's */
    DBZ_E_ARG = -12,      /* an argument is out of range */
    DBZ_E_RETRY = -13,    /* the structure kept moving; the caller refreshes its view and retries */
    DBZ_E_POISONED = -14  /* a failed fsync: the incarnation is over */
};

#endif
