/* The small kernel on registers, and the packing of its operands (see gemm.h for their layout). */
#ifndef NUM

#include "gemm.h"

#ifdef HAS_GEMM

/* 16 rows of 16 words, `stride` bytes apart, turned round: to[k * COLUMNS + row]. Masked rows count as zeros. */
INLINE void pack_square(bytes from, int64_t stride, int rows, __mmask16 words, int count, uint32_t *to) {
    __m512i x[16], y[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        x[i] = i < rows ? _mm512_maskz_loadu_epi32(words, from + i * stride) : _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    /* now x[4 g + j] holds, in lane l, the words of column 4 l + j from rows 4 g to 4 g + 3 */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i low = _mm512_shuffle_i32x4(x[j], x[4 + j], 0x88), high = _mm512_shuffle_i32x4(x[j], x[4 + j], 0xdd);
        __m512i low2 = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0x88);
        __m512i high2 = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0xdd);
        __m512i column[4] = {_mm512_shuffle_i32x4(low, low2, 0x88), _mm512_shuffle_i32x4(high, high2, 0x88),
                             _mm512_shuffle_i32x4(low, low2, 0xdd), _mm512_shuffle_i32x4(high, high2, 0xdd)};
#pragma GCC unroll 4
        for (int l = 0; l < 4; l++)
            if (4 * l + j < count) _mm512_storeu_si512(to + (4 * l + j) * COLUMNS, column[l]);
    }
}

/* One panel from rows that lie along the sum: `width` rows of `depth` words. */
void pack_along(bytes from, int64_t stride, int64_t width, int64_t depth, uint32_t *to) {
    for (int64_t half = 0; half < COLUMNS; half += 16) {
        int rows = width - half > 16 ? 16 : width - half > 0 ? (int)(width - half) : 0;
        for (int64_t k = 0; k < depth; k += 16) {
            int count = depth - k > 16 ? 16 : (int)(depth - k);
            bytes at = rows ? from + half * stride + k * 4 : from;
            if (rows == 16 && count == 16)
                pack_square(at, stride, 16, 0xffff, 16, to + k * COLUMNS + half);
            else
                pack_square(at, stride, rows, mask_below(count), count, to + k * COLUMNS + half);
        }
    }
}

#define EACH "tile.c"
#include "each_type.h"
#endif

#else

#define PER_WORD (IS_FLOAT ? 1 : 2)
#include "tile.h"

#if IS_FLOAT
INLINE __m512 FN(multiply)(uint32_t a, __m512i b, __m512 sum) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32((int)a)), _mm512_castsi512_ps(b), sum);
}
INLINE __m512 FN(load)(const NUM *from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }
INLINE void FN(store)(NUM *to, __mmask16 mask, __m512 x) { _mm512_mask_storeu_ps(to, mask, x); }
/* 16 words of the sum's step k from a row-major matrix with rows across the sum. */
INLINE __m512i FN(words)(const NUM *row, int64_t stride, int pair, __mmask16 mask) {
    (void)stride, (void)pair;
    return _mm512_maskz_loadu_epi32(mask, row);
}
#else
INLINE __m512 FN(multiply)(uint32_t a, __m512i b, __m512 sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
}
INLINE __m512 FN(load)(const NUM *from, __mmask16 mask) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}
INLINE void FN(store)(NUM *to, __mmask16 mask, __m512 x) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(x));
}
INLINE __m512i FN(words)(const NUM *row, int64_t stride, int pair, __mmask16 mask) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row));
    if (!pair) return low;
    __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row + stride));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
#endif

/* A panel from rows across the sum: `depth` numbers of the sum, `width` neighbours of each, `span` words apart. */
void FN(pack_across)(const NUM *from, int64_t stride, int64_t width, int64_t depth, uint32_t *to, int span) {
    __mmask16 first = mask_below(width), second = mask_below(width - 16);
    for (int64_t k = 0; k < depth; k += PER_WORD, from += PER_WORD * stride, to += span) {
        int pair = k + 1 < depth;
        if (span == COLUMNS) {
            _mm512_storeu_si512(to, FN(words)(from, stride, pair, first));
            _mm512_storeu_si512(to + 16, second ? FN(words)(from + 16, stride, pair, second) : _mm512_setzero_si512());
        } else {
            _mm512_mask_storeu_epi32(to, (1u << ROWS) - 1, FN(words)(from, stride, pair, first));
        }
    }
}

/* ROWS x COLUMNS (or fewer rows) of the result: words of a at a + r * row + k * step bytes, b a packed panel. */
INLINE void FN(tile)(const int rows, bytes a, int64_t row, int64_t step, const uint32_t *b, int64_t depth,
                     const FN(Out) * out, int64_t at, __mmask16 left, __mmask16 right, int64_t column) {
    __m512 sum[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        if (out->first) {
            sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        } else {
            sum[r][0] = _mm512_maskz_loadu_ps(left, out->sums + at + r * out->stride);
            sum[r][1] = _mm512_maskz_loadu_ps(right, out->sums + at + r * out->stride + 16);
        }
    }
    bytes group[4] = {a, a + 3 * row, a + 6 * row, a + 9 * row};
    for (int64_t k = 0; k < depth; k++, b += COLUMNS) {
        __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            uint32_t word;
            memcpy(&word, group[r / 3] + (r % 3) * row, 4);
            sum[r][0] = FN(multiply)(word, b0, sum[r][0]);
            sum[r][1] = FN(multiply)(word, b1, sum[r][1]);
        }
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) group[g] += step;
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        int64_t place = at + r * out->stride;
        if (!out->last) {
            _mm512_mask_storeu_ps(out->sums + place, left, sum[r][0]);
            _mm512_mask_storeu_ps(out->sums + place + 16, right, sum[r][1]);
            continue;
        }
        if (out->bias) {
            sum[r][0] = _mm512_add_ps(sum[r][0], FN(load)(out->bias + column, left));
            if (right) sum[r][1] = _mm512_add_ps(sum[r][1], FN(load)(out->bias + column + 16, right));
        }
        if (out->add) {
            sum[r][0] = _mm512_add_ps(sum[r][0], FN(load)(out->add + place, left));
            if (right) sum[r][1] = _mm512_add_ps(sum[r][1], FN(load)(out->add + place + 16, right));
        }
        FN(store)(out->c + place, left, sum[r][0]);
        if (right) FN(store)(out->c + place + 16, right, sum[r][1]);
    }
}

#define TILE(n)                                                                                                        \
    case n:                                                                                                            \
        FN(tile)(n, a, row, step, b, depth, out, at, left, right, column);                                             \
        break;
/* The same for 1 to ROWS rows. */
void FN(tiles)(int rows, bytes a, int64_t row, int64_t step, const uint32_t *b, int64_t depth, const FN(Out) * out,
               int64_t at, __mmask16 left, __mmask16 right, int64_t column) {
    switch (rows) {
        TILE(12) TILE(11) TILE(10) TILE(9) TILE(8) TILE(7) TILE(6) TILE(5) TILE(4) TILE(3) TILE(2) TILE(1)
    }
}

#undef TILE
#undef PER_WORD
#endif
