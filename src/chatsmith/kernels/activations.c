/* The activations of the feed-forward layer, and their slopes. */
#ifndef NUM

#include "vector.h"

/* Runs the statement for sixteen numbers at a time, shared out over the threads. */
#define SHARED_16(i, count, threads, ...)                                                                              \
    _Pragma("omp parallel for num_threads(threads) schedule(static)")                                                  \
    for (int thread = 0; thread < threads; thread++) {                                                                 \
        int64_t vectors = ((count) + 15) / 16, begin = vectors * thread / threads * 16;                                \
        int64_t until = vectors * (thread + 1) / threads * 16;                                                         \
        EACH_VECTOR(place, (until < (count) ? until : (count)) - begin, {                                              \
            int64_t i = begin + place;                                                                                 \
            __VA_ARGS__                                                                                                \
        });                                                                                                            \
    }

#define EACH "activations.c"
#include "each_type.h"

#else

void FN(swiglu)(const NUM *gate, const NUM *up, NUM *y, int64_t count, int threads) {
    SHARED_16(i, count, threads, {
        v16 g = GET16(gate + i, n);
        PUT16(y + i, g * sigmoid16(g) * GET16(up + i, n), n);
    })
}

/* `y`, where it is not null, becomes the output once more, so that the forward pass need not keep it; it may be dy. */
void FN(swiglu_back)(const NUM *dy, const NUM *gate, const NUM *up, NUM *d_gate, NUM *d_up, NUM *y, int64_t count,
                     int threads) {
    SHARED_16(i, count, threads, {
        v16 g = GET16(gate + i, n), d = GET16(dy + i, n), u = GET16(up + i, n), s = sigmoid16(g);
        PUT16(d_up + i, d * g * s, n);
        PUT16(d_gate + i, d * u * s * (1.0f + g * (1.0f - s)), n);
        if (y) PUT16(y + i, g * s * u, n);
    })
}

void FN(gelu)(const NUM *x, NUM *y, int64_t count, int threads) {
    SHARED_16(i, count, threads, {
        v16 v = GET16(x + i, n);
        PUT16(y + i, v * gelu_gate16(v), n);
    })
}

void FN(gelu_back)(const NUM *dy, const NUM *x, NUM *dx, NUM *y, int64_t count, int threads) {
    SHARED_16(i, count, threads, {
        v16 v = GET16(x + i, n), d = GET16(dy + i, n), s = gelu_gate16(v);
        PUT16(dx + i, d * (s + v * s * (1.0f - s) * GELU_A * (1.0f + 3.0f * GELU_B * v * v)), n);
        if (y) PUT16(y + i, v * s, n);
    })
}

#endif
