/* c = a b^T ("forward": a [m, k], b [n, k]), c = a b ("back": b [k, n]) and c = a^T b ("weights": a [k, m], b [k, n]),
 * with a bias per column and another matrix added on the way out. Sums are float32 and do not depend on the threads.
 */
#ifndef NUM

#include "gemm.h"

/* Whether this machine has the matrix kernels (AVX-512 with bfloat16). */
int gemm_built(void) {
#ifdef HAS_GEMM
    return 1;
#else
    return 0;
#endif
}

/* Bytes of scratch that `gemm` needs per thread. */
#define PACKED (1 << 19)
int64_t gemm_scratch(void) {
#ifdef HAS_GEMM
    return PACKED + ROWS * DEPTH * 4 + 4096;
#else
    return 0;
#endif
}

#ifdef HAS_GEMM
#define EACH "gemm.c"
#include "each_type.h"
#endif

#else

enum { FN(FORWARD), FN(BACK), FN(WEIGHTS) };

#define PER_WORD (IS_FLOAT ? 1 : 2)
#include "tile.h"

/* Rows m0 to m1 and columns n0 to n1 of the result, by one thread. */
static void FN(gemm_part)(int kind, const NUM *a, const NUM *b, FN(Out) out, int64_t m0, int64_t m1, int64_t n0,
                          int64_t n1, int64_t k, int64_t a_stride, int64_t b_stride, char *scratch) {
    uint32_t *right = (uint32_t *)scratch, *left = (uint32_t *)(scratch + PACKED);
    /* The left operand of `weights` is packed anew for each block of columns: shallow blocks are wide ones. */
    int64_t most = (kind == FN(WEIGHTS) && out.sums ? SHALLOW : DEPTH) * PER_WORD;
    for (int64_t k0 = 0; k0 < k; k0 += most) {
        int64_t numbers = k - k0 < most ? k - k0 : most;
        int64_t depth = (numbers + PER_WORD - 1) / PER_WORD;
        out.first = k0 == 0, out.last = k0 + numbers == k;
        int64_t block = PACKED / 4 / depth / COLUMNS * COLUMNS;
        for (int64_t from = n0; from < n1; from += block) {
            int64_t to = from + block < n1 ? from + block : n1;
            for (int64_t n = from; n < to; n += COLUMNS) {
                uint32_t *panel = right + (n - from) * depth;
                int64_t width = to - n < COLUMNS ? to - n : COLUMNS;
                if (kind == FN(FORWARD))
                    pack_along((bytes)(b + n * b_stride + k0), b_stride * (int64_t)sizeof(NUM), width, depth, panel);
                else
                    FN(pack_across)(b + k0 * b_stride + n, b_stride, width, numbers, panel, COLUMNS);
            }
            for (int64_t m = m0; m < m1; m += ROWS) {
                int rows = m1 - m < ROWS ? (int)(m1 - m) : ROWS;
                bytes words = (bytes)(a + m * a_stride + k0);
                int64_t row = a_stride * (int64_t)sizeof(NUM), step = 4;
                if (kind == FN(WEIGHTS)) {
                    FN(pack_across)(a + k0 * a_stride + m, a_stride, rows, numbers, left, ROWS);
                    words = (bytes)left, row = 4, step = ROWS * 4;
                } else if (row % 2048 == 0 && to - from > COLUMNS) {
                    /* rows so far apart would share a few lines of the first cache */
                    int64_t apart = depth * 4 + 64;
                    for (int r = 0; r < rows; r++)
                        memcpy((char *)left + r * apart, words + r * row, (size_t)depth * 4);
                    words = (bytes)left, row = apart;
                }
                for (int64_t n = from; n < to; n += COLUMNS)
                    FN(tiles)(rows, words, row, step, right + (n - from) * depth, depth, &out, m * out.stride + n,
                              mask_below(to - n), mask_below(to - n - 16), n);
            }
        }
    }
}

/* c [m, n] (rows `c_stride` apart, as those of `add`, which may be c itself, or null) from a and b as `kind` says.
 * `bias` [n] or null. `sums` holds m x c_stride floats where k is above DEPTH words, and should where kind is WEIGHTS. With bfloat16 and a or b lying
 * along the sum, k and their strides are even. */
void FN(gemm)(const NUM *a, const NUM *b, NUM *c, const NUM *bias, const NUM *add, float *sums, char *scratch,
              int64_t kind, int64_t m, int64_t n, int64_t k, int64_t a_stride, int64_t b_stride, int64_t c_stride,
              int threads) {
    FN(Out) out = {c, bias, add, sums, c_stride, 1, 1};
    /* Each thread packs what it needs of b, so rows are split where packing is little beside the work on it, which
     * also leaves a row's numbers with one core from layer to layer. */
    int by_rows = kind == FN(WEIGHTS) ? m > n : m / threads >= 192 || n < COLUMNS * threads;
    int64_t unit = by_rows ? ROWS : COLUMNS, whole = by_rows ? m : n, units = (whole + unit - 1) / unit;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {
        int64_t from = units * thread / threads * unit, to = units * (thread + 1) / threads * unit;
        to = to < whole ? to : whole;
        char *own = scratch + thread * gemm_scratch();
        if (by_rows)
            FN(gemm_part)((int)kind, a, b, out, from, to, 0, n, k, a_stride, b_stride, own);
        else
            FN(gemm_part)((int)kind, a, b, out, 0, m, from, to, k, a_stride, b_stride, own);
    }
}

#undef PER_WORD
#endif
