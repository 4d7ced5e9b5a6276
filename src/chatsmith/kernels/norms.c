/* Norms of rows and of heads, and the rotation of heads; forwards and backwards. */
#ifndef NUM

#include "vector.h"

#define EACH "norms.c"
#include "each_type.h"

#else

/* y = (x - mean) / deviation * gain + bias over rows of `width`. Without a bias it is the root-mean-square norm, and
 * mean is 0. scale[row] = 1 / deviation, and mean[row] where there is a bias, are kept for the way back. */
void FN(norm)(const NUM *x, const NUM *gain, const NUM *bias, NUM *y, float *scale, float *mean, int64_t rows,
              int64_t width, float epsilon, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const NUM *from = x + row * width;
        NUM *to = y + row * width;
        v16 squares = {0};
        float middle = 0.0f;
        if (bias) {
            v16 sums = {0};
            EACH_VECTOR(i, width, sums += GET16(from + i, n););
            mean[row] = middle = sum16(sums) / (float)width;
        }
        EACH_VECTOR(i, width, {
            v16 value = GET16(from + i, n) - middle;
            squares += n < 16 ? choose16(between16(0, n - 1), value * value, all16(0.0f)) : value * value;
        });
        float factor = scale[row] = 1.0f / sqrtf(sum16(squares) / (float)width + epsilon);
        if (bias)
            EACH_VECTOR(i, width, {
                v16 value = (GET16(from + i, n) - middle) * factor;
                PUT16(to + i, value * GET16(gain + i, n) + GET16(bias + i, n), n);
            });
        else
            EACH_VECTOR(i, width, PUT16(to + i, GET16(from + i, n) * factor * GET16(gain + i, n), n););
    }
}

/* The sum of the threads' shares, each `stride` floats after the one before, in the order of the threads. */
void FN(put_shares)(const float *shares, int64_t stride, NUM *to, int64_t width, int threads) {
    EACH_VECTOR(i, width, {
        v16 sum = get16_float(shares + i, n);
        for (int thread = 1; thread < threads; thread++) sum += get16_float(shares + thread * stride + i, n);
        PUT16(to + i, sum, n);
    });
}

/* dx from dy (plus `add`, or null) for the rows from `begin` to `until`, by one thread, whose share of the slopes of
 * gain and bias becomes share [2, width]. A null `mean` says root-mean-square norm. */
void FN(norm_back_rows)(const NUM *dy, const NUM *x, const NUM *gain, const float *scale, const float *mean,
                        const NUM *add, NUM *dx, float *share, int64_t begin, int64_t until, int64_t width) {
    float *restrict d_gain = share, *restrict d_bias = share + width;
    memset(share, 0, (size_t)width * 8);
    for (int64_t row = begin; row < until; row++) {
        const NUM *slope = dy + row * width, *from = x + row * width, *more = add ? add + row * width : 0;
        NUM *to = dx + row * width;
        float factor = scale[row], middle = mean ? mean[row] : 0.0f;
        v16 dots = {0}, sums = {0};
        EACH_VECTOR(i, width, {
            v16 d = GET16(slope + i, n) * GET16(gain + i, n);
            dots += d * (GET16(from + i, n) - middle);
            sums += d;
        });
        float dot = sum16(dots) * factor * factor / (float)width, sum = mean ? sum16(sums) / (float)width : 0.0f;
        EACH_VECTOR(i, width, {
            v16 d = GET16(slope + i, n), value = GET16(from + i, n) - middle;
            put16_float(d_gain + i, get16_float(d_gain + i, n) + d * value * factor, n);
            put16_float(d_bias + i, get16_float(d_bias + i, n) + d, n);
            v16 out = factor * (d * GET16(gain + i, n) - sum - value * dot);
            PUT16(to + i, more ? out + GET16(more + i, n) : out, n);
        });
    }
}

/* The same for all rows, with the slopes [2, width] of gain and bias; `partial` has room for threads times as many
 * floats. */
void FN(norm_back)(const NUM *dy, const NUM *x, const NUM *gain, const float *scale, const float *mean, const NUM *add,
                   NUM *dx, NUM *slopes, float *partial, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
        FN(norm_back_rows)(dy, x, gain, scale, mean, add, dx, partial + thread * 2 * width, rows * thread / threads,
                           rows * (thread + 1) / threads, width);
    FN(put_shares)(partial, 2 * width, slopes, 2 * width, threads);
}

/* One head's vector of `dim` numbers: normed when gain is given, rotated when cosine is; returns the norm's factor. */
static inline float FN(turn)(const NUM *from, const NUM *gain, const float *cosine, const float *sine, NUM *to,
                             int64_t dim, float epsilon) {
    int64_t half = dim / 2;
    float factor = 1.0f;
    if (gain) {
        v16 sums = {0};
        EACH_VECTOR(i, dim, sums += GET16(from + i, n) * GET16(from + i, n););
        factor = 1.0f / sqrtf(sum16(sums) / (float)dim + epsilon);
    }
    if (!cosine) {
        EACH_VECTOR(i, dim, {
            v16 x = GET16(from + i, n) * factor;
            PUT16(to + i, gain ? x * GET16(gain + i, n) : x, n);
        });
        return factor;
    }
    EACH_VECTOR(i, half, {
        v16 a = GET16(from + i, n) * factor, b = GET16(from + i + half, n) * factor;
        if (gain) a *= GET16(gain + i, n), b *= GET16(gain + i + half, n);
        v16 c = get16_float(cosine + i, n), s = get16_float(sine + i, n);
        PUT16(to + i, a * c - b * s, n);
        PUT16(to + i + half, b * c + a * s, n);
    });
    return factor;
}

/* x [rows, heads * dim] -> y of the same shape, for the rows from `begin` to `until`: norm per head, then rotation by
 * the angles of row % period. gain [dim] or null; cosine, sine [period, dim/2] or null; scale [rows, heads] keeps the
 * norm's factor. */
void FN(heads_rows)(const NUM *x, const NUM *gain, const float *cosine, const float *sine, NUM *y, float *scale,
                    int64_t begin, int64_t until, int64_t period, int64_t heads, int64_t dim, float epsilon) {
    for (int64_t row = begin; row < until; row++) {
        int64_t t = row % period;
        const float *c = cosine ? cosine + t * (dim / 2) : 0, *s = cosine ? sine + t * (dim / 2) : 0;
        for (int64_t h = 0; h < heads; h++) {
            int64_t at = (row * heads + h) * dim;
            float factor = FN(turn)(x + at, gain, c, s, y + at, dim, epsilon);
            if (gain) scale[row * heads + h] = factor;
        }
    }
}

void FN(heads)(const NUM *x, const NUM *gain, const float *cosine, const float *sine, NUM *y, float *scale,
               int64_t rows, int64_t period, int64_t heads, int64_t dim, float epsilon, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
        FN(heads_rows)(x, gain, cosine, sine, y, scale, rows * thread / threads, rows * (thread + 1) / threads, period,
                       heads, dim, epsilon);
}

/* dx from dy (they may be one) for the rows from `begin` to `until`, by one thread, whose share of the slope of gain
 * becomes share [dim]. */
void FN(heads_back_rows)(const NUM *dy, const NUM *x, const NUM *gain, const float *cosine, const float *sine,
                         const float *scale, NUM *dx, float *share, int64_t begin, int64_t until, int64_t period,
                         int64_t heads, int64_t dim) {
    int64_t half = dim / 2;
    float slope[1024]; /* MAX_DIM in native.py: no larger head is sent here */
    memset(share, 0, (size_t)dim * 4);
    for (int64_t row = begin; row < until; row++) {
        for (int64_t h = 0; h < heads; h++) {
            const NUM *back = dy + (row * heads + h) * dim;
            NUM *to = dx + (row * heads + h) * dim;
            if (cosine) {
                const float *c = cosine + row % period * half, *s = sine + row % period * half;
                EACH_VECTOR(i, half, {
                    v16 p = GET16(back + i, n), q = GET16(back + i + half, n);
                    v16 cos = get16_float(c + i, n), sin = get16_float(s + i, n);
                    put16_float(slope + i, p * cos + q * sin, n);
                    put16_float(slope + i + half, q * cos - p * sin, n);
                });
            } else {
                EACH_VECTOR(i, dim, put16_float(slope + i, GET16(back + i, n), n););
            }
            if (!gain) {
                EACH_VECTOR(i, dim, PUT16(to + i, get16_float(slope + i, n), n););
                continue;
            }
            const NUM *from = x + (row * heads + h) * dim;
            float factor = scale[row * heads + h];
            v16 dots = {0};
            EACH_VECTOR(i, dim, dots += get16_float(slope + i, n) * GET16(gain + i, n) * GET16(from + i, n););
            float dot = sum16(dots) * factor * factor * factor / (float)dim;
            EACH_VECTOR(i, dim, {
                v16 value = GET16(from + i, n), d = get16_float(slope + i, n);
                put16_float(share + i, get16_float(share + i, n) + d * value * factor, n);
                PUT16(to + i, d * GET16(gain + i, n) * factor - value * dot, n);
            });
        }
    }
}

/* The same for all rows, with the slope of gain [dim]; `partial` has room for threads times as many floats. */
void FN(heads_back)(const NUM *dy, const NUM *x, const NUM *gain, const float *cosine, const float *sine,
                    const float *scale, NUM *dx, NUM *d_gain, float *partial, int64_t rows, int64_t period,
                    int64_t heads, int64_t dim, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++)
        FN(heads_back_rows)(dy, x, gain, cosine, sine, scale, dx, partial + thread * dim, rows * thread / threads,
                            rows * (thread + 1) / threads, period, heads, dim);
    if (gain) FN(put_shares)(partial, dim, d_gain, dim, threads);
}

#endif
