/* y = act(x W^T + b) + add, for any number of rows: strips of panels are the pieces that the threads share. */
#include "infer.h"

#include "../vector.h"

/* 1/2 x (1 + erf(x / sqrt 2)), erf to 1.5e-7 (Abramowitz and Stegun 7.1.26). */
INLINE v16 gelu(v16 x) {
    v16 z = (v16)((u16)x & 0x7fffffff) * 0.70710678f, t = over16(1.0f + 0.3275911f * z);
    v16 p = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    v16 erf = 1.0f - p * exp16(-z * z);
    return 0.5f * x * (1.0f + choose16(x < 0, -erf, erf));
}

/* 16 outputs of one row, of which `count` exist; `at` is where they go, and where lies what is added to them. */
INLINE void finish_panel(const float *sums, const float *bias, int act, Output o, int64_t at, int64_t count) {
    v16 y = get16_float(sums, PANEL);
    if (bias) y += get16_float(bias, count);
    if (act == SWIGLU) {
        v16 up = get16_float(sums + PANEL, PANEL);
        if (bias) up += get16_float(bias + PANEL, count);
        y *= sigmoid16(y) * up;
    }
    if (act == GELU_TANH) y *= gelu_gate16(y);
    if (act == GELU) y = gelu(y);
    if (o.add) y += get16_float(o.add + at, count);
    if (o.halves)
        put16_bf16(o.halves + at, y, count);
    else
        put16_float(o.y + at, y, count);
}

/* The rows of one strip, from the sums [rows][panels * 16]. */
INLINE void finish(int act, const Matrix *m, const float *sums, Output o, int64_t row, int rows, int64_t panel,
                   int panels) {
    int pair = act == SWIGLU ? 2 : 1;
    for (int r = 0; r < rows; r++) {
        for (int p = 0; p < panels; p += pair) {
            const float *from = sums + (r * panels + p) * PANEL, *bias = m->bias ? m->bias + (panel + p) * PANEL : NULL;
            int64_t column = (panel + p) / pair * PANEL, at = (row + r) * o.stride + column, left = o.columns - column;
            if (left >= PANEL)
                finish_panel(from, bias, act, o, at, PANEL);
            else
                finish_panel(from, bias, act, o, at, left);
        }
    }
}

static void finish_any(const Matrix *m, const float *sums, Output o, int64_t row, int rows, int64_t panel, int panels) {
    if (o.act == PLAIN) finish(PLAIN, m, sums, o, row, rows, panel, panels);
    if (o.act == GELU_TANH) finish(GELU_TANH, m, sums, o, row, rows, panel, panels);
    if (o.act == GELU) finish(GELU, m, sums, o, row, rows, panel, panels);
    if (o.act == SWIGLU) finish(SWIGLU, m, sums, o, row, rows, panel, panels);
}

typedef uint32_t quads __attribute__((vector_size(64))); /* four bytes for each of a panel's outputs */
typedef uint16_t pairs __attribute__((vector_size(64)));
typedef uint8_t bytes __attribute__((vector_size(64)));
typedef quads quads_any __attribute__((aligned(1), may_alias));

/* What turns the numbers n from 0 to 15 of an output into (n - 8) f: for f < 0 that is ((15 - n) - 7) |f|, and n * |f|
 * is less than 256, so that bytes are multiplied two at a time. */
typedef struct {
    quads flip, times, less;
} Turn;

INLINE Turn turn_of(const Matrix *m, int64_t span) {
    union {
        ipart part[PARTS];
        quads whole;
    } flip, times, less;
    for (int p = 0; p < PARTS; p++) {
        int64_t at = span * PANEL + p * (PANEL / PARTS);
        ipart factor = m->factor ? load_i8(m->factor + at) : all_i(1), negative = factor < 0;
        ipart size = (factor ^ negative) - negative, zero = m->zero ? load_u8(m->zero + at) : all_i(8) + negative;
        flip.part[p] = negative & 0x0f0f0f0f;
        times.part[p] = size * 0x00010001;
        less.part[p] = (size * zero & 255) * 0x01010101;
    }
    return (Turn){flip.whole, times.whole, less.whole};
}

INLINE void turn_to(int8_t *to, quads n, const Turn *turn) {
    pairs product = (pairs)((n & 0x0f0f0f0f) ^ turn->flip) * (pairs)turn->times;
    *(quads_any *)to = (quads)((bytes)product - (bytes)turn->less);
}

/* int4 to int8 for some panels: worth it as soon as two rows want them. */
static void unpack(const Matrix *m, int64_t panel, int panels, int8_t *to) {
    int64_t span = m->factor ? SPAN : m->group, spans = m->depth / span;
    const uint8_t *from = (const uint8_t *)m->weight + panel * m->depth * PANEL / 2;
    for (int64_t s = panel * spans; s < (panel + panels) * spans; s++) {
        Turn turn = turn_of(m, s);
        for (int64_t k = 0; k < span; k += 8, from += 64, to += 128) {
            quads both = *(const quads_any *)from;
            turn_to(to, both, &turn);
            turn_to(to + 64, both >> 4, &turn);
        }
    }
}

typedef struct {
    const Matrix *matrix;
    const Input *input;
    Output output;
    Pool *pool;
    int64_t from, to; /* rows */
} MultiplyJob;

static void multiply_work(void *context, int64_t begin, int64_t end, int thread) {
    MultiplyJob *job = context;
    Matrix m = *job->matrix;
    int64_t panel = begin * STRIP, count = (m.outputs + PANEL - 1) / PANEL - panel, at = panel;
    int panels = count < (end - begin) * STRIP ? (int)count : (int)(end - begin) * STRIP;
    float *sums = pool_scratch(job->pool, thread);
    if (m.kind == INT4 && job->input->rows > 1) {
        int8_t *bytes = (int8_t *)(sums + MOST_ROWS * STRIP * PANEL);
        int64_t tables = panel * (m.depth / m.group) * PANEL;
        unpack(&m, panel, panels, bytes);
        m.kind = INT8, m.weight = bytes, m.scale += tables, m.zero = NULL, m.factor = NULL, at = 0;
    }
    Panels *kernel = kernel_for(m.kind, job->input->rows);
    for (int64_t row = job->from; row < job->to; row += MOST_ROWS) {
        int64_t left = job->to - row;
        int rows = left < MOST_ROWS ? (int)left : MOST_ROWS;
        kernel(&m, job->input, row, rows, at, panels, sums);
        finish_any(job->matrix, sums, job->output, row, rows, panel, panels);
    }
}

/* Rows go through all strips in blocks that stay in a core's own cache: the cache that cores share gives them no faster
 * than memory gives the weights. */
#define BLOCK_BYTES (768 * 1024)

void multiply(Pool *pool, const Matrix *matrix, const Input *input, Output output) {
    int wanted = wants(matrix->kind);
    int64_t row_bytes = input->line * (wanted == FLOAT32 ? 4 : wanted == BFLOAT16 ? 2 : 1);
    int64_t block = BLOCK_BYTES / row_bytes / MOST_ROWS * MOST_ROWS;
    if (block < MOST_ROWS) block = MOST_ROWS;
    int64_t panels = (matrix->outputs + PANEL - 1) / PANEL;
    for (int64_t from = 0; from < input->rows; from += block) {
        int64_t to = from + block < input->rows ? from + block : input->rows;
        MultiplyJob job = {matrix, input, output, pool, from, to};
        pool_run(pool, (panels + STRIP - 1) / STRIP, multiply_work, &job);
    }
}

int64_t multiply_scratch(int64_t depth) { return MOST_ROWS * STRIP * PANEL * 4 + STRIP * PANEL * depth; }
