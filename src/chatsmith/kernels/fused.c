/* The steps between the matrix multiplies of training, each in one pass over memory.
 *
 * Every kernel comes for float and for bfloat16 (a float's upper half): this file includes itself once per type, with
 * NUM the type, GET/PUT its conversions and NAME its suffix. Arithmetic is float32. Loops are plain C in a form that
 * the compiler turns into vector code for the machine it compiles on; work is split in fixed slices over `threads`,
 * so that the same number of threads gives the same bits. Undefined GOMP_ symbols are PyTorch's own, on purpose: one
 * pool of threads serves both.
 */
#ifndef NUM

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;

#define SPAN 2048 /* numbers of a row kept in float on the stack */

static inline float get_bf16(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* Round to nearest even, as PyTorch does. The NaNs that arithmetic makes have a clear lower half and stay NaN. */
static inline bf16 put_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float get_float(float x) { return x; }
static inline float put_float(float x) { return x; }

/* e^x to about 2 units in the last place: x = n ln 2 + r, e^r by its series, 2^n by the exponent bits. */
static inline float fast_exp(float x) {
    /* these comparisons keep a NaN, and are one instruction each */
    x = -87.0f > x ? -87.0f : x;
    x = 88.0f < x ? 88.0f : x;
    float n = rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

static const float GELU_A = 1.5957691216057308f; /* 2 sqrt(2/pi): tanh form, since (1 + tanh z)/2 = sigmoid(2z) */
static const float GELU_B = 0.044715f;

#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define FN(name) JOIN(name, NAME)

#define NUM float
#define NAME float
#define GET get_float
#define PUT put_float
#include "fused.c"
#undef NUM
#undef NAME
#undef GET
#undef PUT

#define NUM bf16
#define NAME bf16
#define GET get_bf16
#define PUT put_bf16
#include "fused.c"
#undef NUM
#undef NAME
#undef GET
#undef PUT

#else

/* y = x / rms(x) * gain over rows of `width`; scale[row] = 1 / rms is kept for the way back. */
void FN(rms_norm)(const NUM *x, const NUM *gain, NUM *y, float *scale, int64_t rows, int64_t width, float epsilon,
                  int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const NUM *from = x + row * width;
        NUM *to = y + row * width;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < width; i++) sum += GET(from[i]) * GET(from[i]);
        float factor = 1.0f / sqrtf(sum / (float)width + epsilon);
        scale[row] = factor;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) to[i] = PUT(GET(from[i]) * factor * GET(gain[i]));
    }
}

/* dx from dy, and each thread's share of d gain in its own slice of partial [threads, width] (zeroed by the caller). */
void FN(rms_norm_back)(const NUM *dy, const NUM *x, const NUM *gain, const float *scale, NUM *dx, float *partial,
                       int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {
        float *share = partial + thread * width;
        for (int64_t row = rows * thread / threads; row < rows * (thread + 1) / threads; row++) {
            const NUM *slope = dy + row * width, *from = x + row * width;
            NUM *to = dx + row * width;
            float factor = scale[row], dot = 0.0f;
#pragma omp simd reduction(+ : dot)
            for (int64_t i = 0; i < width; i++) dot += GET(slope[i]) * GET(gain[i]) * GET(from[i]);
            dot *= factor * factor * factor / (float)width;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                float d = GET(slope[i]), value = GET(from[i]);
                share[i] += d * value * factor;
                to[i] = PUT(d * GET(gain[i]) * factor - value * dot);
            }
        }
    }
}

/* One head's vector of `dim` numbers: normed when gain is given, rotated when cosine is; returns the norm's factor. */
static inline float FN(turn)(const NUM *from, const NUM *gain, const float *cosine, const float *sine, NUM *to,
                             int64_t dim, float epsilon, float output) {
    int64_t half = dim / 2;
    float factor = 1.0f;
    if (gain) {
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < dim; i++) sum += GET(from[i]) * GET(from[i]);
        factor = 1.0f / sqrtf(sum / (float)dim + epsilon);
    }
    float whole = factor * output;
    if (!cosine) {
#pragma omp simd
        for (int64_t i = 0; i < dim; i++) to[i] = PUT(GET(from[i]) * whole * (gain ? GET(gain[i]) : 1.0f));
        return factor;
    }
#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        float a = GET(from[i]) * whole * (gain ? GET(gain[i]) : 1.0f);
        float b = GET(from[i + half]) * whole * (gain ? GET(gain[i + half]) : 1.0f);
        to[i] = PUT(a * cosine[i] - b * sine[i]);
        to[i + half] = PUT(b * cosine[i] + a * sine[i]);
    }
    return factor;
}

/* x [batch, time, heads * dim] -> y [batch, heads, time, dim]: norm per head, rotation, factor `output`, transposition.
 * gain [dim] or null; cosine, sine [time, dim/2] or null; scale [batch, time, heads] keeps the norm's factor. */
void FN(heads)(const NUM *x, const NUM *gain, const float *cosine, const float *sine, NUM *y, float *scale,
               int64_t batch, int64_t time, int64_t heads, int64_t dim, float epsilon, float output, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < batch * time; row++) {
        int64_t b = row / time, t = row % time;
        const float *c = cosine ? cosine + t * (dim / 2) : 0, *s = cosine ? sine + t * (dim / 2) : 0;
        for (int64_t h = 0; h < heads; h++) {
            float factor = FN(turn)(x + (row * heads + h) * dim, gain, c, s, y + ((b * heads + h) * time + t) * dim,
                                    dim, epsilon, output);
            if (gain) scale[row * heads + h] = factor;
        }
    }
}

void FN(heads_back)(const NUM *dy, const NUM *x, const NUM *gain, const float *cosine, const float *sine,
                    const float *scale, NUM *dx, float *partial, int64_t batch, int64_t time, int64_t heads,
                    int64_t dim, float output, int threads) {
    int64_t rows = batch * time, half = dim / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {
        float *share = partial + thread * dim;
        float slope[1024];
        for (int64_t row = rows * thread / threads; row < rows * (thread + 1) / threads; row++) {
            int64_t b = row / time, t = row % time;
            for (int64_t h = 0; h < heads; h++) {
                const NUM *back = dy + ((b * heads + h) * time + t) * dim, *from = x + (row * heads + h) * dim;
                NUM *to = dx + (row * heads + h) * dim;
                if (cosine) {
                    const float *c = cosine + t * half, *s = sine + t * half;
#pragma omp simd
                    for (int64_t i = 0; i < half; i++) {
                        float p = GET(back[i]) * output, q = GET(back[i + half]) * output;
                        slope[i] = p * c[i] + q * s[i];
                        slope[i + half] = q * c[i] - p * s[i];
                    }
                } else {
#pragma omp simd
                    for (int64_t i = 0; i < dim; i++) slope[i] = GET(back[i]) * output;
                }
                if (!gain) {
#pragma omp simd
                    for (int64_t i = 0; i < dim; i++) to[i] = PUT(slope[i]);
                    continue;
                }
                float factor = scale[row * heads + h], dot = 0.0f;
#pragma omp simd reduction(+ : dot)
                for (int64_t i = 0; i < dim; i++) dot += slope[i] * GET(gain[i]) * GET(from[i]);
                dot *= factor * factor * factor / (float)dim;
#pragma omp simd
                for (int64_t i = 0; i < dim; i++) {
                    float value = GET(from[i]);
                    share[i] += slope[i] * value * factor;
                    to[i] = PUT(slope[i] * GET(gain[i]) * factor - value * dot);
                }
            }
        }
    }
}

void FN(swiglu)(const NUM *gate, const NUM *up, NUM *y, int64_t count, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float g = GET(gate[i]);
        y[i] = PUT(g * sigmoid(g) * GET(up[i]));
    }
}

void FN(swiglu_back)(const NUM *dy, const NUM *gate, const NUM *up, NUM *d_gate, NUM *d_up, int64_t count,
                     int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float g = GET(gate[i]), d = GET(dy[i]), s = sigmoid(g);
        d_up[i] = PUT(d * g * s);
        d_gate[i] = PUT(d * GET(up[i]) * s * (1.0f + g * (1.0f - s)));
    }
}

void FN(gelu)(const NUM *x, NUM *y, int64_t count, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float v = GET(x[i]);
        y[i] = PUT(v * sigmoid(GELU_A * (v + GELU_B * v * v * v)));
    }
}

void FN(gelu_back)(const NUM *dy, const NUM *x, NUM *dx, int64_t count, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float v = GET(x[i]), s = sigmoid(GELU_A * (v + GELU_B * v * v * v));
        dx[i] = PUT(GET(dy[i]) * (s + v * s * (1.0f - s) * GELU_A * (1.0f + 3.0f * GELU_B * v * v)));
    }
}

/* Rows of scores [batch, rows, columns] become probabilities in place; row i may see the first start + i + 1.
 * The loops run over whole vectors, a few columns beyond what is seen, and choose: short remainders cost more. */
void FN(causal_softmax)(NUM *scores, int64_t batch, int64_t rows, int64_t columns, int64_t start, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < batch * rows; row++) {
        NUM *line = scores + row * columns;
        int64_t seen = start + row % rows + 1, end = (seen + 15) / 16 * 16;
        end = end < columns ? end : columns;
        float most = GET(line[0]), sum = 0.0f;
#pragma omp simd reduction(max : most)
        for (int64_t i = 0; i < end; i++) {
            float value = i < seen ? GET(line[i]) : -INFINITY;
            most = value > most ? value : most;
        }
        float power[SPAN];
        for (int64_t from = 0; from < end; from += SPAN) {
            int64_t to = from + SPAN < end ? from + SPAN : end;
#pragma omp simd reduction(+ : sum)
            for (int64_t i = from; i < to; i++) {
                float value = fast_exp(GET(line[i]) - most);
                value = i < seen ? value : 0.0f;
                power[i - from] = value;
                sum += value;
            }
            if (end > SPAN) {
                for (int64_t i = from; i < to; i++) line[i] = PUT(power[i - from]);
            }
        }
        float factor = 1.0f / sum;
        if (end > SPAN) {
#pragma omp simd
            for (int64_t i = 0; i < end; i++) line[i] = PUT(GET(line[i]) * factor);
        } else {
#pragma omp simd
            for (int64_t i = 0; i < end; i++) line[i] = PUT(power[i] * factor);
        }
        memset(line + end, 0, (size_t)(columns - end) * sizeof(NUM));
    }
}

/* Slopes [batch, rows, columns] of the probabilities become slopes of the scores, in place. */
void FN(causal_softmax_back)(NUM *slope, const NUM *weights, int64_t batch, int64_t rows, int64_t columns,
                             int64_t start, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < batch * rows; row++) {
        NUM *line = slope + row * columns;
        const NUM *weight = weights + row * columns;
        int64_t seen = start + row % rows + 1, end = (seen + 15) / 16 * 16;
        end = end < columns ? end : columns;
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < end; i++) dot += GET(line[i]) * GET(weight[i]);
#pragma omp simd
        for (int64_t i = 0; i < end; i++) line[i] = PUT(GET(weight[i]) * (GET(line[i]) - dot));
        memset(line + end, 0, (size_t)(columns - end) * sizeof(NUM));
    }
}

/* Logits [rows, columns] become the slope of the summed cross-entropy, in place; loss[row] in nats.
 * A negative target counts nothing: no loss, no slope. */
void FN(cross_entropy)(NUM *logits, const int64_t *targets, float *loss, int64_t rows, int64_t columns, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        NUM *line = logits + row * columns;
        int64_t target = targets[row];
        if (target < 0 || target >= columns) {
            memset(line, 0, (size_t)columns * sizeof(NUM));
            loss[row] = 0.0f;
            continue;
        }
        float most = -INFINITY, sum = 0.0f, chosen = GET(line[target]);
#pragma omp simd reduction(max : most)
        for (int64_t i = 0; i < columns; i++) most = GET(line[i]) > most ? GET(line[i]) : most;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < columns; i++) sum += fast_exp(GET(line[i]) - most);
        loss[row] = logf(sum) + most - chosen;
        float factor = 1.0f / sum;
#pragma omp simd
        for (int64_t i = 0; i < columns; i++) line[i] = PUT(fast_exp(GET(line[i]) - most) * factor);
        line[target] = PUT(fast_exp(chosen - most) * factor - 1.0f);
    }
}

/* AdamW (Loshchilov and Hutter 2019) on one tensor; `weight` is the rounded copy that computes, or null. */
void FN(adamw)(float *master, const NUM *slope, float *first, float *second, NUM *weight, int64_t count, float rate,
               float beta1, float beta2, float epsilon, float decay, float correction1, float correction2,
               float scale, int threads) {
    float step = rate / correction1, root = 1.0f / sqrtf(correction2), keep = 1.0f - rate * decay;
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float g = GET(slope[i]) * scale;
        float m = beta1 * first[i] + (1.0f - beta1) * g;
        float v = beta2 * second[i] + (1.0f - beta2) * g * g;
        first[i] = m;
        second[i] = v;
        float value = master[i] * keep - step * m / (sqrtf(v) * root + epsilon);
        master[i] = value;
        if (weight) weight[i] = PUT(value);
    }
}

#endif
