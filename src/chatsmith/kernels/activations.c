/* The activations of the feed-forward layer, and their slopes. */
#ifndef NUM

#include "numbers.h"

static const float GELU_A = 1.5957691216057308f; /* 2 sqrt(2/pi): tanh form, since (1 + tanh z)/2 = sigmoid(2z) */
static const float GELU_B = 0.044715f;

#define EACH "activations.c"
#include "each_type.h"

#else

void FN(swiglu)(const NUM *gate, const NUM *up, NUM *y, int64_t count, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float g = GET(gate[i]);
        y[i] = PUT(g * sigmoid(g) * GET(up[i]));
    }
}

/* `y`, where it is not null, becomes the output once more, so that the forward pass need not keep it. */
void FN(swiglu_back)(const NUM *dy, const NUM *gate, const NUM *up, NUM *d_gate, NUM *d_up, NUM *y, int64_t count,
                     int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float g = GET(gate[i]), d = GET(dy[i]), u = GET(up[i]), s = sigmoid(g);
        d_up[i] = PUT(d * g * s);
        d_gate[i] = PUT(d * u * s * (1.0f + g * (1.0f - s)));
        if (y) y[i] = PUT(g * s * u);
    }
}

void FN(gelu)(const NUM *x, NUM *y, int64_t count, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float v = GET(x[i]);
        y[i] = PUT(v * sigmoid(GELU_A * (v + GELU_B * v * v * v)));
    }
}

void FN(gelu_back)(const NUM *dy, const NUM *x, NUM *dx, NUM *y, int64_t count, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < count; i++) {
        float v = GET(x[i]), s = sigmoid(GELU_A * (v + GELU_B * v * v * v));
        dx[i] = PUT(GET(dy[i]) * (s + v * s * (1.0f - s) * GELU_A * (1.0f + 3.0f * GELU_B * v * v)));
        if (y) y[i] = PUT(v * s);
    }
}

#endif
