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
#define PACKED (1 << 19) /* bytes of the right operand packed at a time */
#define GEMM_SCRATCH (PACKED + ROWS * DEPTH * 4 + 4096)

enum { FORWARD, BACK, WEIGHTS }; /* a b^T, a b, a^T b */

#define INLINE static inline __attribute__((always_inline))

typedef const char *bytes;

INLINE __mmask16 mask_below(int64_t count) { return count >= 16 ? 0xffff : count <= 0 ? 0 : (1u << count) - 1; }

void pack_along(bytes from, int64_t stride, int64_t width, int64_t depth, uint32_t *to);

#endif
#endif
