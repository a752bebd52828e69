/* The one checksum of all files and frames: XXH3, 64 bits, seeded (https://github.com/Cyan4973/xxHash, vendored). */
#define XXH_INLINE_ALL
#include "third_party/xxhash.h"
#include "reader.h"

uint64_t dbz_xxh3(const void *data, uint64_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, (size_t)len, seed);
}
