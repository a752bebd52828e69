/* Growable private buffers. */
#include "reader_impl.h"

int dbz_buf_grow(dbz_buf *b, uint64_t need)
{
    uint64_t cap = b->cap ? b->cap : 512;
    while (cap < need)
        cap *= 2;
    uint8_t *bytes = realloc(b->bytes, cap);
    if (!bytes)
        return DBZ_E_NOMEM;
    b->bytes = bytes;
    b->cap = cap;
    return 0;
}

void dbz_buf_free(dbz_buf *b)
{
    free(b->bytes);
    b->bytes = NULL;
    b->cap = 0;
}
