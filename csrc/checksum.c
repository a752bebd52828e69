/* The one checksum of all files and frames: XXH3, 64 bits, seeded (https://github.com/Cyan4973/xxHash, vendored). */
#define XXH_INLINE_ALL
#include "third_party/xxhash.h"
#include "reader.h"

uint64_t dbz_xxh3(const void *data, uint64_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, (size_t)len, seed);
}

/* Of two pieces as if they were one. */
uint64_t dbz_xxh3_joined(const void *first, uint64_t first_len, const void *second, uint64_t second_len, uint64_t seed)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    (void)XXH3_64bits_reset_withSeed(&state, seed);
    (void)XXH3_64bits_update(&state, first, (size_t)first_len);
    (void)XXH3_64bits_update(&state, second, (size_t)second_len);
    return XXH3_64bits_digest(&state);
}
