/* Matrix multiplication with AVX-512: the small kernel on registers, and the packing that feeds it.
 *
 * A matrix is read as 32-bit words: one float, or two neighbouring bfloat16 along the dimension that is summed over,
 * which is what vdpbf16ps multiplies in one go. `right` operands are packed in panels of COLUMNS: word k of the sum
 * is followed by its neighbours in the row, [k][COLUMNS]. The left operand is read in place where its words lie along
 * the sum, and packed in panels [k][ROWS] where they do not.
 */
#ifndef CHATSMITH_GEMM_H
#define CHATSMITH_GEMM_H

#include "numbers.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512BF16__)
#define HAS_GEMM 1
#include <immintrin.h>
#include <omp.h>

#define ROWS 12    /* 12 x 2 sums of 16 fill 24 of the 32 registers */
#define COLUMNS 32
#define DEPTH 2048 /* words of the sum taken at a time: a panel then fits the second-level cache */
#define SHALLOW 512
#define INLINE static inline __attribute__((always_inline))

typedef const char *bytes;

INLINE __mmask16 mask_below(int64_t count) { return count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

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
static void pack_along(bytes from, int64_t stride, int64_t width, int64_t depth, uint32_t *to) {
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

#endif
#endif
