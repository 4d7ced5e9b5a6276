/* Attention over a cache of keys and values that lies in blocks, for generation.
 *
 * keys [blocks, groups, dim, size] lie across (a block's places side by side, so that one vector scores sixteen of
 * them), values [blocks, groups, size, dim] along. A sequence's place p is in block table[p / size]. Each query's sums
 * run over the dims, then over the places, always in the same order: its output has the same bits in whatever company
 * and blocks it is computed.
 */
#ifndef NUM

#include "numbers.h"

#include <omp.h>

#define MANY 4 /* queries that share a load of keys or values */

#define EACH "paged.c"
#include "each_type.h"

#else

/* New keys and values [rows, groups * dim] to their places; `slots` [rows] are block * size + place in the block. */
void FN(paged_store)(const NUM *key, const NUM *value, const int64_t *slots, NUM *keys, NUM *values, int64_t rows,
                     int64_t groups, int64_t dim, int64_t size, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t item = 0; item < rows * groups; item++) {
        int64_t row = item / groups, block = slots[row] / size, at = slots[row] % size;
        int64_t part = (block * groups + item % groups) * size * dim;
        const NUM *from = key + item * dim;
        for (int64_t d = 0; d < dim; d++) keys[part + d * size + at] = from[d];
        memcpy(values + part + at * dim, value + item * dim, (size_t)dim * sizeof(NUM));
    }
}

/* Scores of `count` queries against 16 places of a block: to [count][line]. */
static inline __attribute__((always_inline)) void FN(score)(int count, const float *const *query, const NUM *keys,
                                                            int64_t size, int64_t dim, float *to, int64_t line) {
    float sums[MANY][16] = {{0}};
    for (int64_t d = 0; d < dim; d++)
        for (int q = 0; q < count; q++)
#pragma omp simd
            for (int lane = 0; lane < 16; lane++) sums[q][lane] += query[q][d] * GET(keys[d * size + lane]);
    for (int q = 0; q < count; q++) memcpy(to + q * line, sums[q], 64);
}

/* mixed [count][dim] += weights [count][line] times `places` rows of values. */
static inline __attribute__((always_inline)) void FN(mix)(int count, const float *weights, int64_t line,
                                                          const NUM *values, int64_t places, int64_t dim,
                                                          float *mixed) {
    int64_t from = 0;
    for (; from + 16 <= dim; from += 16) {
        float sums[MANY][16];
        for (int q = 0; q < count; q++) memcpy(sums[q], mixed + q * dim + from, 64);
        for (int64_t s = 0; s < places; s++)
            for (int q = 0; q < count; q++)
#pragma omp simd
                for (int lane = 0; lane < 16; lane++)
                    sums[q][lane] += weights[q * line + s] * GET(values[s * dim + from + lane]);
        for (int q = 0; q < count; q++) memcpy(mixed + q * dim + from, sums[q], 64);
    }
    for (int q = 0; q < count; q++)
        for (int64_t s = 0; s < places; s++)
            for (int64_t d = from; d < dim; d++) mixed[q * dim + d] += weights[q * line + s] * GET(values[s * dim + d]);
}

/* `count` queries of one group, whose places are `at`: their outputs go to `to`. */
static inline __attribute__((always_inline)) void FN(attend)(int count, const NUM *const *from, const int32_t *at,
                                                             const NUM *keys, const NUM *values, const int32_t *table,
                                                             int64_t groups, int64_t g, int64_t dim, int64_t size,
                                                             int64_t band, float scale, float *scratch, int64_t line,
                                                             NUM *const *to) {
    float *query = scratch, *mixed = query + MANY * dim, *scores = mixed + MANY * dim;
    const float *queries[MANY];
    int64_t first = at[0], last = at[0], firsts[MANY];
    for (int q = 0; q < count; q++) {
        queries[q] = query + q * dim;
        for (int64_t d = 0; d < dim; d++) query[q * dim + d] = GET(from[q][d]) * scale;
        firsts[q] = band && at[q] >= band ? at[q] - band + 1 : 0;
        first = firsts[q] < first ? firsts[q] : first;
        last = at[q] > last ? at[q] : last;
    }
    memset(mixed, 0, (size_t)(MANY * dim) * 4);
    int64_t begin = first / 16 * 16, end = last / 16 * 16 + 16; /* whole vectors, at the same places for every query */
    for (int64_t p = begin; p < end; p += 16)
        FN(score)(count, queries, keys + (table[p / size] * groups + g) * size * dim + p % size, size, dim,
                  scores + p - begin, line);
    float over[MANY];
    for (int q = 0; q < count; q++) {
        float *row = scores + q * line - begin, most = -INFINITY, sums[16] = {0};
        for (int64_t p = begin; p < end; p += 16)
#pragma omp simd reduction(max : most)
            for (int lane = 0; lane < 16; lane++) {
                float x = p + lane >= firsts[q] && p + lane <= at[q] ? row[p + lane] : -INFINITY;
                row[p + lane] = x;
                most = x > most ? x : most;
            }
        most = most > -INFINITY ? most : 0.0f; /* a row of NaN has no maximum: it stays NaN */
        for (int64_t p = begin; p < end; p += 16)
#pragma omp simd
            for (int lane = 0; lane < 16; lane++) {
                float x = row[p + lane] == -INFINITY ? 0.0f : fast_exp(row[p + lane] - most);
                row[p + lane] = x;
                sums[lane] += x;
            }
        over[q] = 1.0f / total(sums);
    }
    for (int64_t p = begin; p <= last; p = (p / size + 1) * size) {
        int64_t places = size - p % size;
        if (places > last + 1 - p) places = last + 1 - p;
        FN(mix)(count, scores + p - begin, line, values + (table[p / size] * groups + g) * size * dim + p % size * dim,
                places, dim, mixed);
    }
    for (int q = 0; q < count; q++)
        for (int64_t d = 0; d < dim; d++) to[q][d] = PUT(mixed[q * dim + d] * over[q]);
}

/* query and output [rows, heads * dim]; each tile (sequence, first row, rows) is some neighbouring rows of one
 * sequence; at [rows] are their places, tables [sequences, width]. `scratch` holds `space` floats for each thread. */
void FN(paged_attention)(const NUM *query, const NUM *keys, const NUM *values, const int32_t *tables,
                         const int32_t *tiles, const int32_t *at, NUM *output, float *scratch, int64_t count,
                         int64_t width, int64_t heads, int64_t groups, int64_t dim, int64_t size, int64_t band,
                         int64_t line, int64_t space, float scale, int threads) {
    int64_t share = heads / groups;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t item = 0; item < count * groups; item++) {
        /* the last tiles see the most: they begin */
        const int32_t *tile = tiles + (count - 1 - item / groups) * 3;
        int64_t g = item % groups, all = tile[2] * share;
        float *own = scratch + omp_get_thread_num() * space;
        for (int64_t q = 0; q < all; q += MANY) {
            const NUM *from[MANY];
            NUM *to[MANY];
            int32_t places[MANY];
            int some = all - q < MANY ? (int)(all - q) : MANY;
            for (int i = 0; i < some; i++) {
                int64_t row = tile[1] + (q + i) / share, head = g * share + (q + i) % share;
                int64_t place = (row * heads + head) * dim;
                from[i] = query + place, to[i] = output + place, places[i] = at[row];
            }
            const int32_t *table = tables + tile[0] * width;
            if (some == MANY)
                FN(attend)(MANY, from, places, keys, values, table, groups, g, dim, size, band, scale, own, line, to);
            else
                for (int i = 0; i < some; i++)
                    FN(attend)(1, from + i, places + i, keys, values, table, groups, g, dim, size, band, scale, own,
                               line, to + i);
        }
    }
}

#endif
