/* Muon (Jordan et al. 2024) over many matrices of one shape in one call: momentum, orthogonalisation, step.
 *
 * Each thread takes a matrix through all of it, so that the matrix stays in that core's cache. The rounds compute in
 * the dtype of the weights: they magnify what is small, a rounding to bfloat16 to a hundredth of the step.
 */
#ifndef NUM

#include "gemm.h"
#include "vector.h"

/* Bytes of scratch per thread for matrices of rows x columns whose iterates take `bytes` each. */
int64_t muon_scratch(int64_t rows, int64_t columns, int64_t bytes) {
#ifdef HAS_GEMM
    int64_t side = rows < columns ? rows : columns;
    int64_t numbers = rows * columns, grams = side * side;
    return GEMM_SCRATCH + 2 * (numbers + grams) * bytes + (grams + numbers) * 4 + 256;
#else
    (void)rows, (void)columns, (void)bytes;
    return 0;
#endif
}

#ifdef HAS_GEMM

/* The polynomial of one round, a x + b (x x^T) x + c (x x^T)^2 x: five rounds take singular values to about 1. */
static const float A = 3.4445f, B = -4.7750f, C = 2.0315f;

#define EACH "muon.c"
#include "each_type.h"
#endif

#else

#define PER_WORD (IS_FLOAT ? 1 : 2)
#include "tile.h"
#include "part.h"

/* What lies below the diagonal is copied above it, in squares that stay in the first cache. */
static void FN(mirror)(NUM *x, int64_t side) {
    for (int64_t top = 0; top < side; top += 32)
        for (int64_t left = 0; left <= top; left += 32) {
#if defined(HAS_TILES) && !IS_FLOAT
            if (left < top && top + 32 <= side) {
                uint32_t turned[LEFT_SIZE(16) / 4];
                FN(pack_left)(x + top * side + left, side, 32, 32, turned);
                for (int64_t j = 0; j < 32; j++)
                    memcpy(x + (left + j) * side + top, (char *)turned + j * LEFT_ROW(16), 64);
                continue;
            }
#endif
            for (int64_t i = top; i < top + 32 && i < side; i++)
                for (int64_t j = left; j < left + 32 && j < i; j++) x[j * side + i] = x[i * side + j];
        }
}

/* x [rows, columns], of Frobenius norm at most 1, towards the nearest matrix with orthogonal rows or columns. */
static NUM *FN(orthogonalise)(NUM *x, int64_t rows, int64_t columns, int rounds, char *scratch) {
    int tall = rows > columns;
    int64_t side = tall ? columns : rows, other = tall ? rows : columns;
    NUM *y = (NUM *)(scratch + GEMM_SCRATCH), *gram = y + rows * columns, *poly = gram + side * side;
    float *sums = (float *)(((uintptr_t)(poly + side * side) + 63) / 64 * 64);
    for (int round = 0; round < rounds; round++) {
        FN(Out) to_gram = {gram, 0, 0, sums, side, 1, 1}, to_poly = {poly, 0, 0, sums, side, 1, 1};
        FN(Out) to_y = {y, 0, 0, sums, columns, 1, 1};
        FN(gemm_part)(tall ? WEIGHTS : FORWARD, 1, x, x, to_gram, 0, side, 0, side, other, columns, columns, scratch);
        FN(mirror)(gram, side);
        FN(gemm_part)(FORWARD, 1, gram, gram, to_poly, 0, side, 0, side, side, side, side, scratch);
        for (int64_t i = 0; i < side; i++) {
            NUM *to = poly + i * side;
            EACH_VECTOR(j, i + 1, PUT16(to + j, B * GET16(gram + i * side + j, n) + C * GET16(to + j, n), n););
            to[i] = PUT(A + GET(to[i]));
        }
        FN(mirror)(poly, side);
        if (tall)
            FN(gemm_part)(BACK, 0, x, poly, to_y, 0, rows, 0, columns, side, columns, side, scratch);
        else
            FN(gemm_part)(BACK, 0, poly, x, to_y, 0, rows, 0, columns, side, side, columns, scratch);
        NUM *old = x;
        x = y, y = old;
    }
    return x;
}

/* One step of `count` matrices: table [4, count] holds the addresses of weights, gradients, momenta and of the weights'
 * lower halves (for bfloat16 only). Gradients count times `scale`; momentum looks one step ahead (Nesterov). */
void FN(muon)(const int64_t *table, char *scratch, int64_t count, int64_t rows, int64_t columns, int64_t rounds,
              float rate, float keep, float momentum, float scale, int threads) {
    int64_t size = rows * columns, space = (muon_scratch(rows, columns, (int64_t)sizeof(NUM)) + 63) / 64 * 64;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t item = 0; item < count; item++) {
        NUM *restrict weight = (NUM *)table[item];
        const NUM *restrict slope = (const NUM *)table[count + item];
        float *restrict average = (float *)table[2 * count + item];
        int16_t *restrict lower = IS_FLOAT ? 0 : (int16_t *)table[3 * count + item];
        char *own = scratch + omp_get_thread_num() * space;
        NUM *x = (NUM *)(own + space - ((int64_t)sizeof(NUM) * size + 63) / 64 * 64);
        double squares = 0.0;
        for (int64_t r = 0; r < rows; r++) {
            v16 sums = {0};
            int64_t row = r * columns;
            EACH_VECTOR(i, columns, {
                v16 g = GET16(slope + row + i, n) * scale;
                v16 m = get16_float(average + row + i, n) * momentum + (1.0f - momentum) * g;
                put16_float(average + row + i, m, n);
                v16 ahead = g + momentum * (m - g);
                PUT16(x + row + i, ahead, n);
                sums += ahead * ahead;
            });
            squares += (double)sum16(sums);
        }
        /* The Frobenius norm bounds the largest singular value: the rounds start inside their region of convergence. */
        float factor = 1.0f / ((float)sqrt(squares) + 1e-7f);
        EACH_VECTOR(i, size, PUT16(x + i, GET16(x + i, n) * factor, n););
        const NUM *update = FN(orthogonalise)(x, rows, columns, (int)rounds, own);
        EACH_VECTOR(i, size, {
            v16 value = GET_EXACT16(weight + i, lower + i, n) * keep - rate * GET16(update + i, n);
            PUT_EXACT16(weight + i, lower + i, value, n);
        });
    }
}

#undef PER_WORD

#endif
