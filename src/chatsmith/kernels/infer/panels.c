/* Products of rows and panels, in vector registers.
 *
 * Each sum runs over the depth in one order, whatever the rows beside it and however many panels are held at a time:
 * float32, float16: a chain of fused multiply-adds; bfloat16: the same, by pairs; int8 and int4: exact sums within a
 * group, each then multiplied by the scales and added. So a row's result is the same bits in any company. */
#include "infer.h"

#define AHEAD 2048 /* bytes to ask for before they are needed, of each of some panels: more would push each other out */
#define FAR(p) __builtin_prefetch((const char *)(p) + AHEAD, 0, 3)

typedef fpart Sums[MANY_ROWS][FEW_PANELS * PARTS];

INLINE void put_sums(int rows, int panels, Sums acc, float *sums, int64_t stride) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int v = 0; v < panels * PARTS; v++) store_f(sums + r * stride + v * (PANEL / PARTS), acc[r][v]);
}

/* ---- float32 and float16 ----------------------------------------------------------------------------------------- */

INLINE fpart load_wide(const void *w, int64_t at, int half) {
    return half ? load_f16((const uint16_t *)w + at) : load_f((const float *)w + at);
}

INLINE void block_float(int rows, int panels, int half, const Matrix *m, const Input *x, int64_t row, int64_t panel,
                        float *sums, int64_t stride) {
    Sums acc = {0};
    const float *in = x->floats + row * x->line;
    int64_t apart = m->depth * PANEL, size = half ? 2 : 4;
    const char *weight = (const char *)m->weight + panel * apart * size;
    for (int64_t k = 0; k < m->depth; k++) {
#pragma GCC unroll 16
        for (int v = 0; v < panels * PARTS; v++) {
            int64_t at = v / PARTS * apart + k * PANEL + v % PARTS * (PANEL / PARTS);
            fpart w = load_wide(weight, at, half);
            if (v % PARTS == 0 && rows == 1) FAR(weight + at * size);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) acc[r][v] = fma_f(w, all_f(in[r * x->line + k]), acc[r][v]);
        }
    }
    put_sums(rows, panels, acc, sums, stride);
}

/* ---- bfloat16 ---------------------------------------------------------------------------------------------------- */

INLINE void block_bfloat16(int rows, int panels, const Matrix *m, const Input *x, int64_t row, int64_t panel,
                           float *sums, int64_t stride) {
    Sums acc = {0};
    int64_t apart = m->depth * PANEL;
    const bf16 *weight = (const bf16 *)m->weight + panel * apart;
    for (int64_t k = 0; k < m->depth; k += 2) {
#pragma GCC unroll 16
        for (int v = 0; v < panels * PARTS; v++) {
            const bf16 *at = weight + v / PARTS * apart + k * PANEL + v % PARTS * (WIDTH / 2);
            ipart w = load_i(at);
            if (v % PARTS == 0 && rows == 1) FAR(at);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
#if HAS_DOT2
                acc[r][v] = dot2(acc[r][v], w, word(x->halves + (row + r) * x->line + k));
#else
                const float *in = x->floats + (row + r) * x->line + k;
                acc[r][v] = fma_f((fpart)((upart)w << 16), all_f(in[0]), acc[r][v]);
                acc[r][v] = fma_f((fpart)(w & (int32_t)0xffff0000), all_f(in[1]), acc[r][v]);
#endif
            }
        }
    }
    put_sums(rows, panels, acc, sums, stride);
}

/* ---- int8 and int4 ----------------------------------------------------------------------------------------------- */

/* `bytes` are the weights of the first panel; int4 has them in halves, int8 not. `small`: 0 int8, 1 int4. */
INLINE void block_int(int rows, int panels, int small, const Matrix *m, const char *bytes, const Input *x, int64_t row,
                      int64_t panel, float *sums, int64_t stride) {
    int64_t groups = m->depth / m->group, apart = m->depth * PANEL / (small ? 2 : 1);
    Sums acc = {0};
    for (int64_t g = 0; g < groups; g++) {
        ipart whole[MANY_ROWS][FEW_PANELS * PARTS];
        const char *at = bytes + g * m->group * PANEL / (small ? 2 : 1);
        int64_t table = (panel * groups + g) * PANEL;
#pragma GCC unroll 16
        for (int v = 0; v < panels * PARTS; v++) {
            int64_t mine = table + v / PARTS * groups * PANEL + v % PARTS * (PANEL / PARTS);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                int32_t sum = x->sums[(row + r) * groups + g];
                if (!small)
                    whole[r][v] = all_i(-OFFSET * sum);
                else if (m->zero)
                    whole[r][v] = load_u8(m->zero + mine) * all_i(-sum);
                else
                    whole[r][v] = all_i(-8 * sum);
            }
        }
        for (int64_t k = 0; k < m->group; k += small ? 8 : 4, at += 64) {
#pragma GCC unroll 16
            for (int v = 0; v < panels * PARTS; v++) {
                const char *from = at + v / PARTS * apart + v % PARTS * WIDTH;
                ipart w = load_i(from);
                if (v % PARTS == 0 && rows == 1) FAR(from);
                ipart low = small ? w & 0x0f0f0f0f : signed_bytes(w), high = high_halves(w);
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) {
                    const int8_t *in = x->bytes + (row + r) * x->line + g * m->group + k;
                    if (small) {
                        whole[r][v] = dot4_small(whole[r][v], low, word(in));
                        whole[r][v] = dot4_small(whole[r][v], high, word(in + 4));
                    } else {
                        whole[r][v] = dot4(whole[r][v], low, word(in));
                    }
                }
            }
        }
#pragma GCC unroll 16
        for (int v = 0; v < panels * PARTS; v++) {
            int64_t mine = table + v / PARTS * groups * PANEL + v % PARTS * (PANEL / PARTS);
            fpart scale = load_bf16(m->scale + mine);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
                acc[r][v] = fma_f(to_float(whole[r][v]), scale * all_f(x->scale[(row + r) * groups + g]), acc[r][v]);
        }
    }
    put_sums(rows, panels, acc, sums, stride);
}

/* One row of int4 with factors: SPAN products are summed, times their factor added to the group's whole sum. */
INLINE void block_factors(int panels, const Matrix *m, const Input *x, int64_t row, int64_t panel, float *sums) {
    int64_t groups = m->depth / m->group, spans = m->depth / SPAN, apart = m->depth * PANEL / 2;
    const char *at = (const char *)m->weight + panel * apart;
    const int8_t *in = x->bytes + row * x->line;
    fpart acc[FEW_PANELS * PARTS] = {0};
    for (int64_t g = 0, s = 0; g < groups; g++) {
        ipart whole[FEW_PANELS * PARTS] = {0};
        for (int64_t end = s + m->group / SPAN; s < end; s++, in += SPAN) {
            ipart part[FEW_PANELS * PARTS];
#pragma GCC unroll 16
            for (int v = 0; v < panels * PARTS; v++) part[v] = all_i(-8 * x->sums[row * spans + s]);
#pragma GCC unroll 4
            for (int k = 0; k < SPAN; k += 8, at += 64) {
#pragma GCC unroll 16
                for (int v = 0; v < panels * PARTS; v++) {
                    const char *from = at + v / PARTS * apart + v % PARTS * WIDTH;
                    ipart w = load_i(from);
                    if (v % PARTS == 0) FAR(from);
                    part[v] = dot4_small(part[v], w & 0x0f0f0f0f, word(in + k));
                    part[v] = dot4_small(part[v], high_halves(w), word(in + k + 4));
                }
            }
#pragma GCC unroll 16
            for (int v = 0; v < panels * PARTS; v++) {
                int64_t at = ((panel + v / PARTS) * spans + s) * PANEL + v % PARTS * (PANEL / PARTS);
                whole[v] += part[v] * load_i8(m->factor + at);
            }
        }
#pragma GCC unroll 16
        for (int v = 0; v < panels * PARTS; v++) {
            int64_t at = ((panel + v / PARTS) * groups + g) * PANEL + v % PARTS * (PANEL / PARTS);
            acc[v] = fma_f(to_float(whole[v]), load_bf16(m->scale + at) * all_f(x->scale[row * groups + g]), acc[v]);
        }
    }
#pragma GCC unroll 16
    for (int v = 0; v < panels * PARTS; v++) store_f(sums + v * (PANEL / PARTS), acc[v]);
}

/* ---- any number of rows and panels ------------------------------------------------------------------------------- */

/* Calls EACH(rows, panels, row, panel, sums) over all of them: the fewer rows at a time, the more panels. */
#define BY_ROWS(EACH, ROWS, PANELS)                                                                                   \
    for (; r + (ROWS) <= rows; r += (ROWS)) {                                                                          \
        int p = 0;                                                                                                     \
        for (; p + (PANELS) <= panels; p += (PANELS))                                                                  \
            EACH(ROWS, PANELS, row + r, panel + p, sums + r * stride + p * PANEL);                                     \
        for (; p < panels; p++) EACH(ROWS, 1, row + r, panel + p, sums + r * stride + p * PANEL);                      \
    }

#define OVER_ALL(EACH)                                                                                                \
    do {                                                                                                               \
        int64_t stride = panels * PANEL;                                                                               \
        int r = 0;                                                                                                     \
        BY_ROWS(EACH, MANY_ROWS, MANY_PANELS)                                                                          \
        if (MANY_ROWS > 4) BY_ROWS(EACH, 4, MANY_PANELS)                                                               \
        if (MANY_ROWS > 2) BY_ROWS(EACH, 2, MANY_PANELS)                                                               \
        BY_ROWS(EACH, 1, FEW_PANELS)                                                                                   \
    } while (0)

void panels_float32(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums) {
#define EACH(R, P, row, panel, sums) block_float(R, P, 0, m, x, row, panel, sums, stride)
    OVER_ALL(EACH);
#undef EACH
}

void panels_float16(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums) {
#define EACH(R, P, row, panel, sums) block_float(R, P, 1, m, x, row, panel, sums, stride)
    OVER_ALL(EACH);
#undef EACH
}

void panels_bfloat16(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums) {
#define EACH(R, P, row, panel, sums) block_bfloat16(R, P, m, x, row, panel, sums, stride)
    OVER_ALL(EACH);
#undef EACH
}

void panels_int8(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums) {
    const char *weight = m->weight;
#define EACH(R, P, row, panel, sums)                                                                                  \
    block_int(R, P, 0, m, weight + (panel) * m->depth * PANEL, x, row, panel, sums, stride)
    OVER_ALL(EACH);
#undef EACH
}

void panels_int4(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums) {
    const char *weight = m->weight;
    if (m->factor) { /* of more rows than one int4 is not asked: see `multiply_work` */
        int p = 0;
        for (; p + FEW_PANELS <= panels; p += FEW_PANELS)
            block_factors(FEW_PANELS, m, x, row, panel + p, sums + p * PANEL);
        for (; p < panels; p++) block_factors(1, m, x, row, panel + p, sums + p * PANEL);
        return;
    }
#define EACH(R, P, row, panel, sums)                                                                                  \
    block_int(R, P, 1, m, weight + (panel) * m->depth * PANEL / 2, x, row, panel, sums, stride)
    OVER_ALL(EACH);
#undef EACH
}
