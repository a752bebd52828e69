/* Holds the structs to the offsets that docs/design.md prints. A change here is a change of DBZ_ABI. */
#include "segment.h"

#define AT(type, field, offset) _Static_assert(offsetof(type, field) == (offset), #type "." #field)

AT(dbz_header, ready, 12);
AT(dbz_header, root_id, 16);
AT(dbz_header, boot_id, 48);
AT(dbz_header, blocks_off, 72);
AT(dbz_header, arena_chunks, 128);
AT(dbz_header, evictions, 160);
AT(dbz_proc, pid, 8);
AT(dbz_proc, started_ns, 16);
AT(dbz_proc, pins, 64);
AT(dbz_prefix, name_hash, 16);
AT(dbz_prefix, floor, 48);
AT(dbz_prefix, lease, 64);
AT(dbz_prefix, published, 72);
AT(dbz_prefix, durable, 80);
AT(dbz_prefix, next_oid, 96);
AT(dbz_prefix, wakeup, 104);
AT(dbz_prefix, incarnation, 116);
AT(dbz_prefix, left, 120);
AT(dbz_prefix, gens, 128);
AT(dbz_prefix, root, 144);
AT(dbz_prefix, owner_generation, 192);
AT(dbz_prefix, delta, 256);
AT(dbz_prefix, name, 8496);
AT(dbz_prefix, turn, 8768);
AT(dbz_prefix, torn, 8816);
AT(dbz_prefix, log_number, 8832);
AT(dbz_prefix, queue, 8896);
AT(dbz_waiting, word, 16);
AT(dbz_delta, pending, 12);
AT(dbz_delta, chunk, 24);
AT(dbz_root, depth, 8);
AT(dbz_root, state, 16);
AT(dbz_entry, addr, 16);
AT(dbz_entry, next, 28);
AT(dbz_frame, valid, 24);
_Static_assert(sizeof(dbz_proc) == 192 && sizeof(dbz_prefix) == 10432 && sizeof(dbz_waiting) == 24 && sizeof(dbz_frame) == 64 && sizeof(dbz_entry) == 32, "sizes");
