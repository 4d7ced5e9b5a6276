/* c = a b^T ("forward": a [m, k], b [n, k]), c = a b ("back": b [k, n]) and c = a^T b ("weights": a [k, m], b [k, n]),
 * with a bias per column and another matrix added on the way out. Sums are float32 and do not depend on the threads.
 */
#ifndef NUM

#include "gemm.h"

/* Whether this machine has the matrix kernels (AVX-512), and gives us the tiles they were built for. */
int gemm_built(void) {
#ifdef HAS_GEMM
    return tiles_allowed();
#else
    return 0;
#endif
}

/* Bytes of scratch that `gemm` needs per thread. */
int64_t gemm_scratch(void) {
#ifdef HAS_GEMM
    return GEMM_SCRATCH;
#else
    return 0;
#endif
}

#ifdef HAS_GEMM
#define EACH "gemm.c"
#include "each_type.h"
#endif

#else

#define PER_WORD (IS_FLOAT ? 1 : 2)
#include "tile.h"
#include "part.h"

/* c [m, n] (rows `c_stride` apart, as those of `add`, which may be c itself, or null) from a and b as `kind` says.
 * `bias` [n] or null. `sums` holds m x c_stride floats where k is above DEPTH words, where kind is WEIGHTS above
 * SHALLOW ones; it may be a float c, unless something else is added. With bfloat16 and a or b lying along the sum, k
 * and their strides are even. */
void FN(gemm)(const NUM *a, const NUM *b, NUM *c, const NUM *bias, const NUM *add, float *sums, char *scratch,
              int64_t kind, int64_t m, int64_t n, int64_t k, int64_t a_stride, int64_t b_stride, int64_t c_stride,
              int threads) {
    int go_on = IS_FLOAT && add && add == c; /* its own sums go on */
    FN(Out) out = {c, bias, go_on ? 0 : add, go_on ? (float *)c : sums, c_stride, !go_on, 1};
    /* Each thread packs what it needs of b, so rows are split where packing is little beside the work on it, which
     * also leaves a row's numbers with one core from layer to layer. */
    int by_rows = kind == WEIGHTS ? m * 4 > n * 3 : m / threads >= 192 || n < COLUMNS * threads;
    int64_t unit = by_rows ? ROWS : COLUMNS, whole = by_rows ? m : n, units = (whole + unit - 1) / unit;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {
        int64_t from = units * thread / threads * unit, to = units * (thread + 1) / threads * unit;
        to = to < whole ? to : whole;
        char *own = scratch + thread * gemm_scratch();
        if (by_rows)
            FN(gemm_part)((int)kind, 0, a, b, out, from, to, 0, n, k, a_stride, b_stride, own);
        else
            FN(gemm_part)((int)kind, 0, a, b, out, 0, m, from, to, k, a_stride, b_stride, own);
    }
}

#undef PER_WORD
#endif
