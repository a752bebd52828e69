/* Least-significant-digit radix sort of (key, value) pairs: stable, and it skips digits that are the same everywhere, so dense OIDs take two or three passes. */
#include "reader_impl.h"

int dbz_sort_pairs(dbz_pair *pairs, uint32_t n)
{
    uint32_t k = 1;
    while (k < n && pairs[k - 1].key <= pairs[k].key)
        k++;
    if (k >= n)
        return 0;
    if (n <= 32) {
        for (uint32_t i = 1; i < n; i++) {
            dbz_pair p = pairs[i];
            uint32_t j = i;
            for (; j > 0 && pairs[j - 1].key > p.key; j--)
                pairs[j] = pairs[j - 1];
            pairs[j] = p;
        }
        return 0;
    }
    dbz_pair *other = malloc(n * sizeof *other), *from = pairs, *to = other;
    uint32_t (*counts)[256] = calloc(8, sizeof *counts);
    if (!other || !counts) {
        free(other);
        free(counts);
        return DBZ_E_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++)
        for (unsigned d = 0; d < 8; d++)
            counts[d][pairs[i].key >> 8 * d & 0xff]++;
    for (unsigned d = 0; d < 8; d++) {
        if (counts[d][pairs[0].key >> 8 * d & 0xff] == n)
            continue;
        uint32_t sum = 0;
        for (unsigned b = 0; b < 256; b++) {
            uint32_t c = counts[d][b];
            counts[d][b] = sum;
            sum += c;
        }
        for (uint32_t i = 0; i < n; i++)
            to[counts[d][from[i].key >> 8 * d & 0xff]++] = from[i];
        dbz_pair *t = from;
        from = to;
        to = t;
    }
    if (from != pairs)
        memcpy(pairs, from, n * sizeof *pairs);
    free(other);
    free(counts);
    return 0;
}
