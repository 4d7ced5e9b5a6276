/* What is done to rows of activations between the products: norms, and getting them ready for the next product. */
#include "infer.h"

#include "../vector.h"

int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

int wants(int64_t kind) {
    if (kind == INT8 || kind == INT4) return INT8;
#if HAS_DOT2
    if (kind == BFLOAT16) return BFLOAT16;
#endif
    return FLOAT32; /* without products of bfloat16, such weights are widened and meet the exact input */
}

int64_t line_of(int64_t kind, int64_t depth) {
    int wanted = wants(kind);
    return depth + 64 / (wanted == FLOAT32 ? 4 : wanted == BFLOAT16 ? 2 : 1);
}

/* ---- norms ------------------------------------------------------------------------------------------------------- */

static float sum_of(const float *x, int64_t count) {
    float sums[16] = {0};
    EACH_16(i, count, sums[lane] += x[i];);
    return total(sums);
}

static float squares_of(const float *x, int64_t count, float mean) {
    float sums[16] = {0};
    EACH_16(i, count, float d = x[i] - mean; sums[lane] += d * d;);
    return total(sums);
}

/* One row; y may be x. Layer norm with a bias (Ba et al. 2016), else RMS norm (Zhang and Sennrich 2019). */
static void norm_row(const float *x, const Norm *norm, float *y, int64_t width, float epsilon) {
    const float *gain = norm->gain, *bias = norm->bias;
    float mean = bias ? sum_of(x, width) / (float)width : 0.0f;
    float scale = 1.0f / sqrtf(squares_of(x, width, mean) / (float)width + epsilon);
    if (bias)
        EACH_16(i, width, y[i] = (x[i] - mean) * scale * gain[i] + bias[i];);
    else
        EACH_16(i, width, y[i] = x[i] * scale * gain[i];);
}

typedef struct {
    Rows from;
    float *y;
    int64_t width;
} NormJob;

#define ROWS_PER_PIECE 4

INLINE int64_t pieces_of(int64_t rows) { return (rows + ROWS_PER_PIECE - 1) / ROWS_PER_PIECE; }

static void norm_work(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    NormJob *job = context;
    const Rows *from = &job->from;
    int64_t last = end * ROWS_PER_PIECE < from->rows ? end * ROWS_PER_PIECE : from->rows, width = job->width;
    for (int64_t row = begin * ROWS_PER_PIECE; row < last; row++)
        norm_row(from->x + row * from->stride, from->norm, job->y + row * width, width, from->epsilon);
}

void norm_rows(Pool *pool, Rows from, float *y, int64_t width) {
    NormJob job = {from, y, width};
    pool_run(pool, pieces_of(from.rows), norm_work, &job);
}

void norm_head(const float *x, const float *gain, float *y, int64_t dim, float epsilon) {
    norm_row(x, &(Norm){gain, NULL}, y, dim, epsilon);
}

/* ---- getting ready ----------------------------------------------------------------------------------------------- */

/* Sixteen numbers times `turn`, rounded, to bytes; and added to `totals`. */
INLINE void round_16(const float *x, float turn, int8_t *bytes, int32_t *totals) {
#if WIDTH == 64
    __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(turn)));
    _mm_storeu_si128((void *)bytes, _mm512_cvtepi32_epi8(rounded)); /* the compiler goes a longer way */
    _mm512_storeu_si512(totals, _mm512_add_epi32(_mm512_loadu_si512(totals), rounded));
#else
#pragma omp simd
    for (int lane = 0; lane < 16; lane++) {
        int32_t rounded = (int32_t)rintf(x[lane] * turn);
        bytes[lane] = (int8_t)rounded;
        totals[lane] += rounded;
    }
#endif
}

/* int8 in groups: the largest number of a group becomes 127. Sums are of `span` bytes, a multiple of 16 that divides
 * the group. Sixteen lanes run through a span, and only at its end meet. */
void quantise_row(const float *x, int64_t depth, int64_t group, int64_t span, int8_t *bytes, float *scale,
                  int32_t *sums) {
    for (int64_t g = 0; g < depth / group; g++) {
        float most[16] = {0};
        EACH_16(i, group, most[lane] = fabsf(x[i]) > most[lane] ? fabsf(x[i]) : most[lane];);
        float largest = largest_lane(most), step = largest / 127.0f, turn = step > 0 ? 1.0f / step : 0.0f;
        if (!(turn < 3e38f)) step = turn = 0.0f; /* numbers so small that they are nothing */
        scale[g] = step;
        for (int64_t s = 0; s < group / span; s++, x += span, bytes += span) {
            int32_t totals[16] = {0}, sum = 0;
            for (int64_t i = 0; i < span; i += 16) round_16(x + i, turn, bytes + i, totals);
#pragma omp simd reduction(+ : sum)
            for (int lane = 0; lane < 16; lane++) sum += totals[lane];
            *sums++ = sum;
        }
    }
}

typedef struct {
    Rows from;
    int64_t inputs;
    int kind;
    Input *input;
    Pool *pool;
} PrepareJob;

static void prepare_row(PrepareJob *job, int64_t row, float *whole) {
    Input *in = job->input;
    const Rows *from = &job->from;
    const float *x = from->x + row * from->stride;
    if (job->kind == FLOAT32) whole = in->floats + row * in->line;
    if (from->norm)
        norm_row(x, from->norm, whole, job->inputs, from->epsilon), x = whole;
    else if (job->kind == FLOAT32 || in->depth > job->inputs)
        x = memcpy(whole, x, (size_t)job->inputs * 4);
    if (x == whole) memset(whole + job->inputs, 0, (size_t)(in->depth - job->inputs) * 4);
    if (job->kind == BFLOAT16) {
        bf16 *halves = in->halves + row * in->line;
        EACH_VECTOR(i, in->depth, put16_bf16(halves + i, get16_float(x + i, n), n););
    }
    if (job->kind == INT8) {
        int64_t groups = in->depth / in->group;
        quantise_row(x, in->depth, in->group, in->span, in->bytes + row * in->line, in->scale + row * groups,
                     in->sums + row * (in->depth / in->span));
    }
}

static void prepare_work(void *context, int64_t begin, int64_t end, int thread) {
    PrepareJob *job = context;
    int64_t last = end * ROWS_PER_PIECE < job->from.rows ? end * ROWS_PER_PIECE : job->from.rows;
    for (int64_t row = begin * ROWS_PER_PIECE; row < last; row++)
        prepare_row(job, row, pool_scratch(job->pool, thread));
}

/* Shapes `input`, which holds memory enough, for rows of what `matrix` reads. */
void expect(const Matrix *matrix, int64_t rows, Input *input) {
    input->rows = rows, input->depth = matrix->depth, input->group = matrix->group;
    input->span = matrix->factor && rows == 1 ? SPAN : matrix->group;
    input->line = line_of(matrix->kind, matrix->depth);
}

/* Rows of [inputs] numbers as `matrix` wants them. */
void prepare(Pool *pool, const Matrix *matrix, Rows from, Input *input) {
    expect(matrix, from.rows, input);
    PrepareJob job = {from, matrix->inputs, wants(matrix->kind), input, pool};
    pool_run(pool, pieces_of(from.rows), prepare_work, &job);
}

/* ---- one row of a matrix, as an embedding looks it up ------------------------------------------------------------ */

void matrix_row(const Matrix *m, int64_t row, float *out) {
    int64_t panel = row / PANEL, lane = row % PANEL, depth = m->depth;
    const char *at = m->weight;
    for (int64_t k = 0; k < m->inputs; k++) {
        if (m->kind == FLOAT32) {
            out[k] = ((const float *)at)[(panel * depth + k) * PANEL + lane];
        } else if (m->kind == FLOAT16) {
            fpart value = load_f16((uint16_t[PANEL]){((const uint16_t *)at)[(panel * depth + k) * PANEL + lane]});
            out[k] = value[0];
        } else if (m->kind == BFLOAT16) {
            out[k] = get_bf16(((const bf16 *)at)[(panel * depth / 2 + k / 2) * PANEL * 2 + lane * 2 + k % 2]);
        } else {
            int64_t group = (panel * (depth / m->group) + k / m->group) * PANEL + lane;
            int value, zero = m->zero ? m->zero[group] : 8;
            if (m->kind == INT8) {
                value = ((const int8_t *)at)[(panel * depth / 4 + k / 4) * PANEL * 4 + lane * 4 + k % 4];
            } else {
                uint8_t both = ((const uint8_t *)at)[(panel * depth / 8 + k / 8) * PANEL * 4 + lane * 4 + k % 4];
                value = (k % 8 < 4 ? both & 15 : both >> 4) - zero;
                if (m->factor) value *= m->factor[(panel * (depth / SPAN) + k / SPAN) * PANEL + lane];
            }
            out[k] = (float)value * get_bf16(m->scale[group]);
        }
    }
}
