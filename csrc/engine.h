/* The C engine's public face: everything the cffi binding and the C unit tests may call.
 *
 * Layers, lowest first (each file includes only what stands left of it):
 *   checksum  ->  io  ->  segment  ->  process / pins / lease  ->  delta, cache  ->  record, table  ->  lookup  ->  batch, merge
 *
 * No file of this part includes Python.h; pytypes.c (the memo base type) is the only one that does.
 * Every function that can fail returns 0 or a negative DBZ_E_* code and leaves its outputs untouched on failure.
 */
#ifndef DBZ_ENGINE_H
#define DBZ_ENGINE_H

#include "segment.h"
#include "reader.h"
#include "batch.h"

#endif
