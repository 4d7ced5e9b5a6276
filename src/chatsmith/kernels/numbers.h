/* The two number types that training computes in, and the functions of one number that several kernels share. */
#ifndef CHATSMITH_NUMBERS_H
#define CHATSMITH_NUMBERS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16; /* the upper half of a float */

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
    /* adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits: no conversion is needed */
    float shifted = x * 1.44269504f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits, power;
    memcpy(&bits, &shifted, 4);
    memcpy(&power, &p, 4);
    power += bits << 23; /* p lies in [0.7, 1.5] and n in [-126, 127]: the exponent stays in its field */
    memcpy(&p, &power, 4);
    return x != x ? x : p; /* the sum of bits might have made a number of a NaN */
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

/* Runs the statement for i from 0 to count, sixteen at a time in one vector and then what is left one by one: rows are
 * short, and a loop that the compiler cuts up for any length spends more on its ends than on its middle. `lane` is the
 * place within the vector, so that sums over i go to sums[lane], which stays in a register. */
#define EACH_16(i, count, ...)                                                                                         \
    do {                                                                                                               \
        int64_t each_from = 0;                                                                                         \
        for (; each_from + 16 <= (count); each_from += 16) {                                                           \
            _Pragma("omp simd") for (int lane = 0; lane < 16; lane++) {                                                \
                int64_t i = each_from + lane;                                                                          \
                __VA_ARGS__                                                                                            \
            }                                                                                                          \
        }                                                                                                              \
        for (int64_t i = each_from; i < (count); i++) {                                                                \
            int lane = (int)(i - each_from);                                                                           \
            (void)lane;                                                                                                \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
    } while (0)

/* The sum of sixteen numbers, by halves: one after the other, each would wait for the one before. */
static inline float total(const float *sums) {
    float eight[8], four[4];
#pragma omp simd
    for (int i = 0; i < 8; i++) eight[i] = sums[i] + sums[i + 8];
#pragma omp simd
    for (int i = 0; i < 4; i++) four[i] = eight[i] + eight[i + 4];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)
#define FN(name) JOIN(name, NAME)

#endif
