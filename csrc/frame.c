/* The header of a log frame (docs/design.md, 1.2), of which each commit makes two. They are read in Python (dbzero/storage/format.py). */
#include "reader.h"
#include <stddef.h>
#include <string.h>

/* As it stands in the file: little-endian, as every machine is that the engine is built for. */
typedef struct {
    char magic[4];
    uint32_t kind;
    uint64_t chain;
    struct {
        uint64_t epoch, state, durable, length, next_oid, check;
    } rest;
} frame_head;

_Static_assert(sizeof(frame_head) == 64 && offsetof(frame_head, rest) == 16, "layout");

uint64_t dbz_frame_head(uint8_t *out, uint32_t kind, uint64_t epoch, uint64_t state, uint64_t durable, uint64_t next_oid, const uint8_t *body, uint64_t len,
                        uint64_t seed, uint64_t salt, uint64_t offset)
{
    frame_head head = {.magic = {'F', 'R', 'M', '1'}, .kind = kind};
    head.rest.epoch = epoch;
    head.rest.state = state;
    head.rest.durable = durable;
    head.rest.length = len;
    head.rest.next_oid = next_oid;
    uint8_t checked[48];        /* all but the two sums */
    memcpy(checked, &head, 8);
    memcpy(checked + 8, &head.rest, 40);
    head.rest.check = dbz_xxh3(checked, sizeof checked, salt + offset);
    head.chain = dbz_xxh3_joined(&head.rest, sizeof head.rest, body, len, seed);
    memcpy(out, &head, sizeof head);
    return head.chain;
}
