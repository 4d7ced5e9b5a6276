/* Sixteen numbers at a time, as one vector that the compiler cuts to the width of the machine, and rows of any length
 * in such vectors: EACH_VECTOR runs a statement for every sixteen, the last time for the `n` that are left, which
 * `get16` and `put16` then read and write alone (the other places read as 0). */
#ifndef CHATSMITH_VECTOR_H
#define CHATSMITH_VECTOR_H

#include "numbers.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

/* Vectors wider than the machine's have no settled way to be passed: these functions are put in place, never called. */
#pragma GCC diagnostic ignored "-Wpsabi"

typedef float v16 __attribute__((vector_size(64)));
typedef int32_t i16 __attribute__((vector_size(64)));
typedef uint32_t u16 __attribute__((vector_size(64)));
typedef uint16_t h16 __attribute__((vector_size(32)));
typedef int16_t s16 __attribute__((vector_size(32)));
typedef uint8_t c16 __attribute__((vector_size(16)));

#define INLINE16 static inline __attribute__((always_inline))

INLINE16 v16 all16(float x) { return (v16){0} + x; }

INLINE16 v16 get16_float(const float *from, int64_t n) {
    v16 x = {0};
    if (n >= 16)
        memcpy(&x, from, 64);
    else
        memcpy(&x, from, (size_t)n * 4);
    return x;
}

INLINE16 void put16_float(float *to, v16 x, int64_t n) {
    if (n >= 16)
        memcpy(to, &x, 64);
    else
        memcpy(to, &x, (size_t)n * 4);
}

INLINE16 v16 get16_bf16(const bf16 *from, int64_t n) {
    h16 half = {0};
    if (n >= 16)
        memcpy(&half, from, 32);
    else
        memcpy(&half, from, (size_t)n * 2);
#if defined(__AVX512F__)
    return (v16)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)half), 16);
#else
    return (v16)(__builtin_convertvector(half, u16) << 16);
#endif
}

INLINE16 void put16_bf16(bf16 *to, v16 x, int64_t n) {
#if defined(__AVX512F__) && defined(__AVX512BF16__)
    __m256i half = (__m256i)_mm512_cvtneps_pbh((__m512)x);
#else
    u16 bits = (u16)x;
    h16 half = __builtin_convertvector((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, h16);
#endif
    if (n >= 16)
        memcpy(to, &half, 32);
    else
        memcpy(to, &half, (size_t)n * 2);
}

/* Sixteen floats that are kept in two halves: a bfloat16, to which they are rounded (ties away from zero), and what is
 * then missing of their bits. */
INLINE16 v16 get16_halves(const bf16 *upper, const int16_t *lower, int64_t n) {
    s16 half = {0};
    if (n >= 16)
        memcpy(&half, lower, 32);
    else
        memcpy(&half, lower, (size_t)n * 2);
    return (v16)((u16)get16_bf16(upper, n) + (u16)__builtin_convertvector(half, i16));
}

INLINE16 void put16_halves(bf16 *upper, int16_t *lower, v16 x, int64_t n) {
    u16 bits = (u16)x, rounded = (bits + 0x8000u) >> 16;
    h16 above = __builtin_convertvector(rounded, h16), below = __builtin_convertvector(bits - (rounded << 16), h16);
    if (n >= 16) {
        memcpy(upper, &above, 32);
        memcpy(lower, &below, 32);
    } else {
        memcpy(upper, &above, (size_t)n * 2);
        memcpy(lower, &below, (size_t)n * 2);
    }
}

/* Sixteen of the numbers that an optimizer steps, exactly: floats, or bfloat16 with their lower halves. */
#define GET_EXACT16(weight, lower, n) \
    (IS_FLOAT ? get16_float((const float *)(weight), n) : get16_halves((const bf16 *)(weight), lower, n))
#define PUT_EXACT16(weight, lower, x, n) \
    (IS_FLOAT ? put16_float((float *)(weight), x, n) : put16_halves((bf16 *)(weight), lower, x, n))

/* Sixteen numbers of a where the mask says -1, of b where it says 0. */
INLINE16 v16 choose16(i16 mask, v16 a, v16 b) { return (v16)((mask & (i16)a) | (~mask & (i16)b)); }

/* b where either is no number. */
INLINE16 v16 larger16(v16 a, v16 b) {
#if defined(__AVX512F__)
    return (v16)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return choose16(a > b, a, b);
#endif
}

INLINE16 v16 smaller16(v16 a, v16 b) {
#if defined(__AVX512F__)
    return (v16)_mm512_min_ps((__m512)a, (__m512)b);
#else
    return choose16(a < b, a, b);
#endif
}

/* -1 in the places from `from` up to and including `last`. */
INLINE16 i16 between16(int64_t from, int64_t last) {
    const i16 place = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    int low = from < 0 ? 0 : from > 16 ? 16 : (int)from, high = last > 15 ? 15 : last < -1 ? -1 : (int)last;
    return (place >= low) & (place <= high);
}

/* The largest of sixteen, by halves: one after the other, each would wait for the one before. */
INLINE16 float max16(v16 x) {
    float eight[8], four[4];
#pragma omp simd
    for (int i = 0; i < 8; i++) eight[i] = x[i] > x[i + 8] ? x[i] : x[i + 8];
#pragma omp simd
    for (int i = 0; i < 4; i++) four[i] = eight[i] > eight[i + 4] ? eight[i] : eight[i + 4];
    float first = four[0] > four[2] ? four[0] : four[2], second = four[1] > four[3] ? four[1] : four[3];
    return first > second ? first : second;
}

/* The sum of sixteen, by halves too. */
INLINE16 float sum16(v16 x) {
    typedef float v8 __attribute__((vector_size(32)));
    typedef float v4 __attribute__((vector_size(16)));
    v8 low, high;
    memcpy(&low, &x, 32), memcpy(&high, (char *)&x + 32, 32);
    v8 eight = low + high;
    v4 first, second;
    memcpy(&first, &eight, 16), memcpy(&second, (char *)&eight + 16, 16);
    v4 four = first + second;
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* e^x as in `fast_exp`. */
INLINE16 v16 exp16(v16 x) {
    v16 bounded = smaller16(all16(88.0f), larger16(all16(-87.0f), x));
    v16 shifted = bounded * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
    v16 r = bounded - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    v16 p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
#if defined(__AVX512F__)
    return (v16)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    return choose16(x == x, (v16)((u16)p + ((u16)shifted << 23)), x);
#endif
}

INLINE16 v16 root16(v16 x) {
#if defined(__AVX512F__)
    return (v16)_mm512_sqrt_ps((__m512)x);
#else
    for (int i = 0; i < 16; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

/* 1 / x to about 2 units in the last place. */
INLINE16 v16 over16(v16 x) {
#if defined(__AVX512F__)
    v16 near = (v16)_mm512_rcp14_ps((__m512)x); /* a division takes as long as all the rest of a sigmoid */
    return near * (2.0f - x * near);
#else
    return 1.0f / x;
#endif
}

INLINE16 v16 sigmoid16(v16 x) { return over16(1.0f + exp16(-x)); }

/* GELU in its tanh form is x times this: (1 + tanh z) / 2 = sigmoid(2 z), with z = sqrt(2 / pi) (x + 0.044715 x^3). */
#define GELU_A 1.5957691216057308f
#define GELU_B 0.044715f
INLINE16 v16 gelu_gate16(v16 x) { return sigmoid16(GELU_A * (x + GELU_B * x * x * x)); }

/* Turns 16 rows of 16 words round: row i of the result is column i of what was there. */
INLINE16 void turn_round(u16 rows[16]) {
#if defined(__AVX512F__)
    __m512i *x = (__m512i *)rows, y[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
        x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
        x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
        x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
    }
    /* now x[4 g + j] holds, in lane l, the words of column 4 l + j from rows 4 g to 4 g + 3 */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        __m512i low = _mm512_shuffle_i32x4(x[j], x[4 + j], 0x88), high = _mm512_shuffle_i32x4(x[j], x[4 + j], 0xdd);
        __m512i low2 = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0x88);
        __m512i high2 = _mm512_shuffle_i32x4(x[8 + j], x[12 + j], 0xdd);
        y[j] = _mm512_shuffle_i32x4(low, low2, 0x88);
        y[4 + j] = _mm512_shuffle_i32x4(high, high2, 0x88);
        y[8 + j] = _mm512_shuffle_i32x4(low, low2, 0xdd);
        y[12 + j] = _mm512_shuffle_i32x4(high, high2, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) x[i] = y[i];
#else
    u16 turned[16];
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) turned[j][i] = rows[i][j];
    memcpy(rows, turned, sizeof turned);
#endif
}

#define EACH_VECTOR(i, count, ...)                                                                                     \
    do {                                                                                                               \
        int64_t i = 0, n = 16;                                                                                         \
        for (; i + 16 <= (count); i += 16) {                                                                           \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
        n = (count) - i;                                                                                               \
        if (n > 0) {                                                                                                   \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    } while (0)

#endif
