/* AdamW (Loshchilov and Hutter 2019) over many tensors in one call, and the size of their gradients. */
#ifndef NUM

#include "vector.h"

#define SLICE 16384 /* numbers that a thread takes at a time, so that many small tensors are shared out evenly */

#define EACH "adamw.c"
#include "each_type.h"

#else

static void FN(adamw_slice)(NUM *restrict weight, const NUM *restrict slope, float *restrict first,
                            float *restrict second, int16_t *restrict lower, int64_t count, float beta1, float beta2,
                            float epsilon, float keep, float step, float root, float scale) {
    EACH_VECTOR(i, count, {
        v16 g = GET16(slope + i, n) * scale;
        v16 m = beta1 * get16_float(first + i, n) + (1.0f - beta1) * g;
        v16 v = beta2 * get16_float(second + i, n) + (1.0f - beta2) * g * g;
        put16_float(first + i, m, n);
        put16_float(second + i, v, n);
        v16 value = GET_EXACT16(weight + i, lower + i, n) * keep - step * m / (root16(v) * root + epsilon);
        PUT_EXACT16(weight + i, lower + i, value, n);
    });
}

/* One step of `tensors` tensors: table [5, tensors] holds the addresses of weights, gradients, first and second
 * averages and of the weights' lower halves (for bfloat16 only), counts [tensors] their sizes. Gradients count
 * times `scale`. */
void FN(adamw)(const int64_t *table, const int64_t *counts, int64_t tensors, float rate, float beta1, float beta2,
               float epsilon, float decay, float correction1, float correction2, float scale, int threads) {
    float step = rate / correction1, root = 1.0f / sqrtf(correction2), keep = 1.0f - rate * decay;
    int64_t slices = 0;
    for (int64_t t = 0; t < tensors; t++) slices += (counts[t] + SLICE - 1) / SLICE;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {
        int64_t from = slices * thread / threads, to = slices * (thread + 1) / threads, passed = 0;
        for (int64_t t = 0; t < tensors && passed < to; t++) {
            int64_t here = (counts[t] + SLICE - 1) / SLICE;
            int64_t start = from > passed ? (from - passed) * SLICE : 0;
            int64_t end = to < passed + here ? (to - passed) * SLICE : counts[t];
            passed += here;
            if (start >= end) continue;
            FN(adamw_slice)((NUM *)table[t] + start, (const NUM *)table[tensors + t] + start,
                            (float *)table[2 * tensors + t] + start, (float *)table[3 * tensors + t] + start,
                            IS_FLOAT ? 0 : (int16_t *)table[4 * tensors + t] + start, end - start, beta1, beta2,
                            epsilon, keep, step, root, scale);
        }
    }
}

/* The sum of squares of each thread's share of all gradients, in squares [threads]. */
void FN(squares)(const int64_t *addresses, const int64_t *counts, double *squares, int64_t tensors, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int thread = 0; thread < threads; thread++) {
        double total = 0.0;
        for (int64_t t = 0; t < tensors; t++) {
            const NUM *x = (const NUM *)addresses[t];
            int64_t end = counts[t] * (thread + 1) / threads;
            for (int64_t from = counts[t] * thread / threads; from < end; from += SLICE) {
                v16 sums = {0};
                int64_t to = from + SLICE < end ? from + SLICE : end;
                EACH_VECTOR(i, to - from, {
                    v16 value = GET16(x + from + i, n);
                    sums += value * value;
                });
                total += (double)sum16(sums);
            }
        }
        squares[thread] = total;
    }
}

#endif
