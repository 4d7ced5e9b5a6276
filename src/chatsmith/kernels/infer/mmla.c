/* The same products by Arm's multiplication of small matrices (BFMMLA, SMMLA): two rows by two outputs, 8 bytes of a
 * sum.
 *
 * The words of the sum at one place and at the next, zipped, are what these instructions want of the weights. Sums of
 * int8 are exact, and BFMMLA is defined as two BFDOT, one after the other: the results are those of panels.c bit for
 * bit. */
#include "infer.h"

#if defined(HAS_MMLA)

#define MOST_PAIRS 4 /* pairs of rows held at a time; with half a panel they fill 16 registers */
#define STEP 16      /* bytes of each row that are read at a time */

/* Sums of a pair of rows and four pairs of outputs: (first row, second row) by (even output, odd output). */
typedef ipart Squares[MOST_PAIRS][4];

INLINE ipart square(int halves, ipart acc, int8x16_t rows, int8x16_t outputs) {
    if (halves) return (ipart)vbfmmlaq_f32((float32x4_t)acc, (bfloat16x8_t)rows, (bfloat16x8_t)outputs);
    return (ipart)vmmlaq_s32((int32x4_t)acc, rows, outputs);
}

/* A row of four outputs, the first (0) or second (1) of its pair, out of two squares. */
INLINE ipart row_of(int second, ipart left, ipart right) {
    int64x2_t a = (int64x2_t)left, b = (int64x2_t)right;
    return (ipart)(second ? vzip2q_s64(a, b) : vzip1q_s64(a, b));
}

/* Adds `bytes` of the sum; rows lie `line` bytes apart, `weight` is the half of a panel. */
INLINE void add_products(int halves, int pairs, Squares acc, const char *in, int64_t line, const char *weight,
                         int64_t bytes) {
    for (int64_t k = 0; k < bytes; k += STEP, weight += STEP / 4 * 64) {
        int8x16_t rows[2][MOST_PAIRS];
#pragma GCC unroll 4
        for (int p = 0; p < pairs; p++) {
            ipart first = load_i(in + 2 * p * line + k), second = load_i(in + (2 * p + 1) * line + k);
            rows[0][p] = (int8x16_t)row_of(0, first, second);
            rows[1][p] = (int8x16_t)row_of(1, first, second);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) { /* a quarter of a panel, 8 bytes of the sum */
            const char *at = weight + i / 2 * 128 + i % 2 * WIDTH;
            int32x4_t here = (int32x4_t)load_i(at), next = (int32x4_t)load_i(at + 64);
            int8x16_t even = (int8x16_t)vzip1q_s32(here, next), odd = (int8x16_t)vzip2q_s32(here, next);
#pragma GCC unroll 4
            for (int p = 0; p < pairs; p++) {
                ipart *mine = acc[p] + i % 2 * 2;
                mine[0] = square(halves, mine[0], rows[i / 2][p], even);
                mine[1] = square(halves, mine[1], rows[i / 2][p], odd);
            }
        }
    }
}

/* 2 pairs rows and 8 outputs, from output 8 `half` of the panel on. */
INLINE void block_bfloat16(int pairs, const Matrix *m, const Input *x, int64_t row, int64_t panel, int half,
                           float *sums, int64_t stride) {
    Squares acc = {0};
    const char *weight = (const char *)m->weight + panel * m->depth * PANEL * 2 + half * 2 * WIDTH;
    add_products(1, pairs, acc, (const char *)(x->halves + row * x->line), x->line * 2, weight, m->depth * 2);
#pragma GCC unroll 16
    for (int i = 0; i < 4 * pairs; i++) { /* row i / 2, quarter i % 2 */
        ipart quarter = row_of(i / 2 % 2, acc[i / 4][i % 2 * 2], acc[i / 4][i % 2 * 2 + 1]);
        store_f(sums + i / 2 * stride + i % 2 * 4, (fpart)quarter);
    }
}

INLINE void block_int8(int pairs, const Matrix *m, const Input *x, int64_t row, int64_t panel, int half, float *sums,
                       int64_t stride) {
    int64_t groups = m->depth / m->group;
    const char *weight = (const char *)m->weight + panel * m->depth * PANEL + half * 2 * WIDTH;
    const int8_t *in = x->bytes + row * x->line;
    const bf16 *scale = m->scale + panel * groups * PANEL + half * 8;
    const float *own = x->scale + row * groups;
    fpart acc[MOST_PAIRS * 4] = {0};
    for (int64_t g = 0; g < groups; g++, in += m->group, weight += m->group * PANEL) {
        Squares whole = {0};
        add_products(0, pairs, whole, (const char *)in, x->line, weight, m->group);
        fpart scales[2] = {load_bf16(scale + g * PANEL), load_bf16(scale + g * PANEL + 4)};
#pragma GCC unroll 16
        for (int i = 0; i < 4 * pairs; i++) {
            ipart sum = row_of(i / 2 % 2, whole[i / 4][i % 2 * 2], whole[i / 4][i % 2 * 2 + 1]);
            acc[i] = fma_f(to_float(sum), scales[i % 2] * all_f(own[i / 2 * groups + g]), acc[i]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < 4 * pairs; i++) store_f(sums + i / 2 * stride + i % 2 * 4, acc[i]);
}

/* 2 pairs rows and all the panels. */
INLINE void some_rows(int halves, int pairs, const Matrix *m, const Input *x, int64_t row, int64_t panel, int panels,
                      float *sums) {
    int64_t stride = panels * PANEL;
    for (int i = 0; i < 2 * panels; i++) {
        if (halves)
            block_bfloat16(pairs, m, x, row, panel + i / 2, i % 2, sums + i * 8, stride);
        else
            block_int8(pairs, m, x, row, panel + i / 2, i % 2, sums + i * 8, stride);
    }
}

INLINE void all_rows(int halves, const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels,
                     float *sums) {
    int64_t stride = panels * PANEL;
    int r = 0;
    for (; r + 8 <= rows; r += 8) some_rows(halves, 4, m, x, row + r, panel, panels, sums + r * stride);
    if (r + 4 <= rows) some_rows(halves, 2, m, x, row + r, panel, panels, sums + r * stride), r += 4;
    if (r + 2 <= rows) some_rows(halves, 1, m, x, row + r, panel, panels, sums + r * stride), r += 2;
    if (r < rows) (halves ? panels_bfloat16 : panels_int8)(m, x, row + r, 1, panel, panels, sums + r * stride);
}

void mmla_bfloat16(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums) {
    all_rows(1, m, x, row, rows, panel, panels, sums);
}

void mmla_int8(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums) {
    all_rows(0, m, x, row, rows, panel, panels, sums);
}

#endif
