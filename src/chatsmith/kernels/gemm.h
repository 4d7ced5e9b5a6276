/* Matrix multiplication with AVX-512, and with AMX where the processor has it: the small kernel, and the packing that
 * feeds it.
 *
 * A matrix is read as 32-bit words: one float, or two neighbouring bfloat16 along the dimension that is summed over,
 * which is what vdpbf16ps and tdpbf16ps multiply in one go; where there is neither, float32's instructions take two.
 * `right` operands are packed in panels of COLUMNS: word k of the sum is followed by its neighbours in the row,
 * [k][COLUMNS], with zeros up to a whole STRIDE of words. The left operand is read in place where its words lie along
 * the sum, and packed by `pack_left` where they do not.
 */
#ifndef CHATSMITH_GEMM_H
#define CHATSMITH_GEMM_H

#include "numbers.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define HAS_GEMM 1
#include <immintrin.h>
#include <omp.h>

#define VECTOR_ROWS 12 /* 12 x 2 sums of 16 fill 24 of the 32 registers */
#define COLUMNS 32
#define DEPTH 2048 /* words of the sum taken at a time: a panel then fits the second-level cache */
#define SHALLOW 512
#define PACKED (3 << 18) /* bytes of the right operand packed at a time */

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__linux__)
#define HAS_TILES 1
#define TILE_ROWS 32 /* 2 x 2 sums of 16 x 16 fill four of the eight tiles */
#define STRIDE 16    /* words of the sum that one tile instruction takes */
#else
#define TILE_ROWS VECTOR_ROWS
#define STRIDE 1
#endif
#define WHOLE(words) (((words) + STRIDE - 1) / STRIDE * STRIDE)
#define LEFT_SIZE(words) (TILE_ROWS * (WHOLE(words) * 4 + 64)) /* bytes that `pack_left` may write */
#define GEMM_SCRATCH (PACKED + LEFT_SIZE(DEPTH) + 4096)

enum { FORWARD, BACK, WEIGHTS }; /* a b^T, a b, a^T b */

#define INLINE static inline __attribute__((always_inline))

typedef const char *bytes;

INLINE __mmask16 mask_below(int64_t count) { return count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

/* To 16 sums, the products of 16 pairs of bfloat16. */
INLINE __m512 add_pairs(__m512 sum, __m512i a, __m512i b) {
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
#else
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    __m512 second = _mm512_castsi512_ps(_mm512_and_si512(b, high));
    sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(a, high)), second, sum);
    __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(b, 16));
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(a, 16)), first, sum);
#endif
}

/* 16 numbers rounded to the nearest bfloat16, of two to the even one; what is no number stays none. */
INLINE __m256i to_bf16(__m512 x) {
#if defined(__AVX512BF16__)
    return (__m256i)_mm512_cvtneps_pbh(x);
#else
    __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __mmask16 none = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(up, none, _mm512_set1_epi32(0x7fc0)));
#endif
}

/* The next `size` bytes of a block of memory, in whole lines of the cache. */
INLINE void *take(char **from, int64_t size) {
    char *mine = *from;
    *from += (size + 63) / 64 * 64;
    return mine;
}

void pack_along(bytes from, int64_t stride, int64_t width, int64_t depth, uint32_t *to);

/* Tiles are switched on for a thread before it multiplies bfloat16, and off afterwards: their state weighs on every
 * change of context. Without tiles both are nothing. */
void tiles_on(void);
void tiles_off(void);
int tiles_allowed(void);

#endif
#endif
