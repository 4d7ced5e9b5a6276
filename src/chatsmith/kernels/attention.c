/* Causal attention, forwards and backwards, without ever holding the matrix of scores.
 *
 * query [batch, time, heads * dim], key and value [batch, time, groups * dim] lie as the linear maps leave them; each
 * group's key and value serve heads / groups query heads. A query at t sees the keys from first[b, t] (0 where `first`
 * is null) to t. Of the forward pass only the output and `kept` [batch, heads, time, 2], the largest scaled score of
 * each row and one over the sum of its powers, are kept; the way back computes the weights again, as FlashAttention
 * does (Dao et al. 2022).
 */
#ifndef NUM

#include "gemm.h"
#include "vector.h"

#define BLOCK 96 /* queries that the way back takes together */
#define LINE(count) (((count) + 31) / 32 * 32) /* rows of scratch hold whole vectors */

/* Bytes of scratch per thread for either direction, with numbers of `size` bytes. */
int64_t attention_scratch(int64_t time, int64_t dim, int64_t size) {
#ifdef HAS_GEMM
    int64_t line = LINE(time + 1), wide = LINE(dim);
    int64_t packed = (3 * line + 2 * LINE(BLOCK)) * wide * size + LEFT_SIZE(BLOCK);
    return packed + 2 * BLOCK * line * size + 2 * TILE_ROWS * line * 4 + 2 * line * wide * 4 + 16 * 64;
#else
    (void)time, (void)dim, (void)size;
    return 0;
#endif
}

#ifdef HAS_GEMM

#define EACH "attention.c"
#include "each_type.h"
#endif

#else

#define PER_WORD (IS_FLOAT ? 1 : 2)
#include "tile.h"

/* All panels of a matrix [count, dim] whose rows lie along the sum (dim), or across it. */
static uint32_t *FN(pack_rows)(char **scratch, const NUM *from, int64_t stride, int64_t count, int64_t dim) {
    int64_t depth = dim / PER_WORD, room = WHOLE(depth);
    uint32_t *packed = take(scratch, LINE(count) * room * 4);
    for (int64_t n = 0; n < count; n += COLUMNS)
        pack_along((bytes)(from + n * stride), stride * (int64_t)sizeof(NUM), count - n < COLUMNS ? count - n : COLUMNS,
                   depth, packed + n * room);
    return packed;
}

static void FN(pack_columns)(uint32_t *packed, const NUM *from, int64_t stride, int64_t count, int64_t dim,
                             int64_t span) {
    for (int64_t d = 0; d < dim; d += COLUMNS)
        FN(pack_across)(from + d, stride, dim - d < COLUMNS ? dim - d : COLUMNS, count, packed + d * span);
}

/* Scores of `rows` queries against the keys up to `seen`, as floats [rows][line]. */
INLINE void FN(scores)(int rows, const NUM *from, int64_t stride, const uint32_t *packed, int64_t seen, int64_t dim,
                       float *to, int64_t line) {
    FN(Out) out = {0, 0, 0, to, line, 1, 0};
    int64_t depth = dim / PER_WORD, room = WHOLE(depth);
    for (int64_t n = 0; n < seen; n += COLUMNS)
        FN(tiles)(rows, (bytes)from, stride * (int64_t)sizeof(NUM), 4, packed + n * room, depth, &out, n, 0xffff,
                  0xffff, n);
}

/* The groups `item` (row of the batch times groups, plus group) from `begin` to `until`, by one thread. */
void FN(attend)(const NUM *query, const NUM *key, const NUM *value, const int32_t *first, NUM *output, float *kept,
                char *scratch, int64_t begin, int64_t until, int64_t time, int64_t heads, int64_t groups, int64_t dim,
                int64_t query_stride, int64_t key_stride, float scale) {
    int64_t line = LINE(time + 1), share = heads / groups;
    if (!IS_FLOAT) tiles_on();
    for (int64_t item = begin; item < until; item++) {
        int64_t b = item / groups, g = item % groups;
        char *own = scratch;
        const NUM *keys = key + b * time * key_stride + g * dim, *values = value + b * time * key_stride + g * dim;
        uint32_t *packed_keys = FN(pack_rows)(&own, keys, key_stride, time, dim);
        int64_t span = WHOLE((time + PER_WORD - 1) / PER_WORD);
        uint32_t *packed_values = take(&own, span * LINE(dim) * 4);
        FN(pack_columns)(packed_values, values, key_stride, time, dim, span);
        float *score = take(&own, ROWS * line * 4);
        NUM *weight = take(&own, ROWS * line * (int64_t)sizeof(NUM));
        for (int64_t h = g * share; h < (g + 1) * share; h++) {
            for (int64_t t0 = 0; t0 < time; t0 += ROWS) {
                int rows = time - t0 < ROWS ? (int)(time - t0) : ROWS;
                int64_t seen = t0 + rows, end = (seen + 15) / 16 * 16;
                FN(scores)(rows, query + (b * time + t0) * query_stride + h * dim, query_stride, packed_keys, seen, dim,
                           score, line);
                for (int r = 0; r < rows; r++) {
                    float *row = score + r * line;
                    NUM *to = weight + r * line;
                    int64_t from = first ? first[b * time + t0 + r] : 0, last = t0 + r;
                    v16 highest = all16(-INFINITY), sums = {0};
                    for (int64_t i = 0; i < end; i += 16) {
                        v16 x = choose16(between16(from - i, last - i), get16_float(row + i, 16), all16(-INFINITY));
                        highest = larger16(x, highest);
                    }
                    /* a row of NaN has no maximum: it stays NaN */
                    float most = max16(highest);
                    most = most > -INFINITY ? most * scale : 0.0f;
                    for (int64_t i = 0; i < end; i += 16) {
                        v16 x = exp16(get16_float(row + i, 16) * scale - most);
                        x = choose16(between16(from - i, last - i), x, all16(0.0f));
                        put16_float(row + i, x, 16);
                        sums += x;
                    }
                    float factor = 1.0f / sum16(sums), *keep = kept + ((b * heads + h) * time + t0 + r) * 2;
                    keep[0] = most, keep[1] = factor;
                    for (int64_t i = 0; i < end; i += 16) PUT16(to + i, get16_float(row + i, 16) * factor, 16);
                }
                FN(Out) out = {output + (b * time + t0) * heads * dim + h * dim, 0, 0, 0, heads * dim, 1, 1};
                for (int64_t d = 0; d < dim; d += COLUMNS)
                    FN(tiles)(rows, (bytes)weight, line * (int64_t)sizeof(NUM), 4, packed_values + d * span,
                              (seen + PER_WORD - 1) / PER_WORD, &out, d, mask_below(dim - d), mask_below(dim - d - 16),
                              d);
            }
        }
    }
    if (!IS_FLOAT) tiles_off();
}

void FN(attention)(const NUM *query, const NUM *key, const NUM *value, const int32_t *first, NUM *output,
                   float *kept, char *scratch, int64_t batch, int64_t time, int64_t heads, int64_t groups,
                   int64_t dim, int64_t query_stride, int64_t key_stride, float scale, int threads) {
    int64_t size = attention_scratch(time, dim, sizeof(NUM)), items = batch * groups;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
        FN(attend)(query, key, value, first, output, kept, scratch + thread * size, items * thread / threads,
                   items * (thread + 1) / threads, time, heads, groups, dim, query_stride, key_stride, scale);
}

/* sums [count, wide] += left^T right: left [rows, ...] weights of `rows` queries, right packed. */
INLINE void FN(gather)(const NUM *left, int64_t line, int64_t rows, const uint32_t *right, uint32_t *panel,
                       float *sums, int64_t count, int64_t dim, int64_t wide) {
    FN(Out) out = {0, 0, 0, sums, wide, 0, 0};
    int64_t depth = (rows + PER_WORD - 1) / PER_WORD, room = WHOLE(depth);
    for (int64_t m = 0; m < count; m += ROWS) {
        int keys = count - m < ROWS ? (int)(count - m) : ROWS;
        FN(pack_left)(left + m, line, keys, rows, panel);
        for (int64_t d = 0; d < dim; d += COLUMNS)
            FN(tiles)(keys, (bytes)panel, LEFT_ROW(depth), LEFT_STEP, right + d * room, depth, &out, m * wide + d,
                      0xffff, 0xffff, d);
    }
}

INLINE void FN(put_sums)(const float *sums, int64_t count, int64_t dim, int64_t wide, NUM *to, int64_t stride) {
    for (int64_t t = 0; t < count; t++)
        EACH_VECTOR(d, dim, PUT16(to + t * stride + d, get16_float(sums + t * wide + d, n), n););
}

/* Slopes of query, key and value (laid out as these are) from that of the output [batch, time, heads * dim], for the
 * groups from `begin` to `until`, by one thread. */
void FN(attend_back)(const NUM *slope, const NUM *query, const NUM *key, const NUM *value, const int32_t *first,
                     const float *kept, NUM *d_query, NUM *d_key, NUM *d_value, char *scratch, int64_t begin,
                     int64_t until, int64_t time, int64_t heads, int64_t groups, int64_t dim, int64_t query_stride,
                     int64_t key_stride, float scale) {
    int64_t line = LINE(time + 1), wide = LINE(dim);
    int64_t share = heads / groups, inner = heads * dim, span = WHOLE((time + PER_WORD - 1) / PER_WORD);
    for (int64_t item = begin; item < until; item++) {
        int64_t b = item / groups, g = item % groups, place = b * time * key_stride + g * dim;
        char *own = scratch;
        if (!IS_FLOAT) tiles_on();
        uint32_t *packed_keys = FN(pack_rows)(&own, key + place, key_stride, time, dim);
        uint32_t *packed_values = FN(pack_rows)(&own, value + place, key_stride, time, dim);
        uint32_t *across_keys = take(&own, span * wide * 4);
        FN(pack_columns)(across_keys, key + place, key_stride, time, dim, span);
        uint32_t *across_query = take(&own, WHOLE(BLOCK / PER_WORD) * wide * 4);
        uint32_t *across_slope = take(&own, WHOLE(BLOCK / PER_WORD) * wide * 4);
        uint32_t *panel = take(&own, LEFT_SIZE(BLOCK / PER_WORD));
        float *score = take(&own, ROWS * line * 4), *d_weight = take(&own, ROWS * line * 4);
        NUM *weight = take(&own, BLOCK * line * (int64_t)sizeof(NUM));
        NUM *d_score = take(&own, BLOCK * line * (int64_t)sizeof(NUM));
        float *sum_key = take(&own, time * wide * 4), *sum_value = take(&own, time * wide * 4);
        memset(sum_key, 0, (size_t)(time * wide) * 4);
        memset(sum_value, 0, (size_t)(time * wide) * 4);
        for (int64_t h = g * share; h < (g + 1) * share; h++) {
            for (int64_t from = 0; from < time; from += BLOCK) {
                int64_t count = time - from < BLOCK ? time - from : BLOCK, all = from + count;
                const NUM *queries = query + (b * time + from) * query_stride + h * dim;
                const NUM *slopes = slope + (b * time + from) * inner + h * dim;
                int64_t depth = WHOLE((count + PER_WORD - 1) / PER_WORD), clear = (all + 15) / 16 * 16;
                FN(pack_columns)(across_query, queries, query_stride, count, dim, depth);
                FN(pack_columns)(across_slope, slopes, inner, count, dim, depth);
                for (int64_t t0 = 0; t0 < count; t0 += ROWS) {
                    int rows = count - t0 < ROWS ? (int)(count - t0) : ROWS;
                    int64_t seen = from + t0 + rows, end = (seen + 15) / 16 * 16;
                    FN(scores)(rows, queries + t0 * query_stride, query_stride, packed_keys, seen, dim, score, line);
                    FN(scores)(rows, slopes + t0 * inner, inner, packed_values, seen, dim, d_weight, line);
                    for (int r = 0; r < rows; r++) {
                        float *row = score + r * line, *d_row = d_weight + r * line;
                        NUM *to = weight + (t0 + r) * line, *d_to = d_score + (t0 + r) * line;
                        int64_t last = from + t0 + r, start = first ? first[b * time + last] : 0;
                        const float *keep = kept + ((b * heads + h) * time + last) * 2;
                        float most = keep[0], factor = keep[1];
                        v16 dots = {0}, none = {0};
                        for (int64_t i = 0; i < end; i += 16) {
                            i16 visible = between16(start - i, last - i);
                            v16 p = exp16(get16_float(row + i, 16) * scale - most) * factor;
                            p = choose16(visible, p, none);
                            v16 d = choose16(visible, get16_float(d_row + i, 16), none);
                            put16_float(d_row + i, d, 16);
                            put16_float(row + i, p, 16);
                            PUT16(to + i, p, 16);
                            dots += p * d;
                        }
                        float dot = sum16(dots);
                        for (int64_t i = 0; i < end; i += 16)
                            PUT16(d_to + i, get16_float(row + i, 16) * (get16_float(d_row + i, 16) - dot) * scale, 16);
                        memset(to + end, 0, (size_t)(clear - end) * sizeof(NUM));
                        memset(d_to + end, 0, (size_t)(clear - end) * sizeof(NUM));
                    }
                    NUM *to = d_query + (b * time + from + t0) * query_stride + h * dim;
                    FN(Out) out = {to, 0, 0, 0, query_stride, 1, 1};
                    for (int64_t d = 0; d < dim; d += COLUMNS)
                        FN(tiles)(rows, (bytes)(d_score + t0 * line), line * (int64_t)sizeof(NUM), 4,
                                  across_keys + d * span, (seen + PER_WORD - 1) / PER_WORD, &out, d,
                                  mask_below(dim - d), mask_below(dim - d - 16), d);
                }
                FN(gather)(weight, line, count, across_slope, panel, sum_value, all, dim, wide);
                FN(gather)(d_score, line, count, across_query, panel, sum_key, all, dim, wide);
            }
        }
        if (!IS_FLOAT) tiles_off();
        FN(put_sums)(sum_key, time, dim, wide, d_key + place, key_stride);
        FN(put_sums)(sum_value, time, dim, wide, d_value + place, key_stride);
    }
}

void FN(attention_back)(const NUM *slope, const NUM *query, const NUM *key, const NUM *value, const int32_t *first,
                        const float *kept, NUM *d_query, NUM *d_key, NUM *d_value, char *scratch, int64_t batch,
                        int64_t time, int64_t heads, int64_t groups, int64_t dim, int64_t query_stride,
                        int64_t key_stride, float scale, int threads) {
    int64_t size = attention_scratch(time, dim, sizeof(NUM)), items = batch * groups;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
        FN(attend_back)(slope, query, key, value, first, kept, d_query, d_key, d_value, scratch + thread * size,
                        items * thread / threads, items * (thread + 1) / threads, time, heads, groups, dim,
                        query_stride, key_stride, scale);
}

#undef PER_WORD
#endif
