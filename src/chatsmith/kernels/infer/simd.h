/* Vectors of the processor's own width, and the few operations that differ from one instruction set to the next.
 *
 * A panel is 16 outputs of a matrix side by side. A vector register holds all of them (AVX-512), half (AVX2) or a
 * quarter (SSE, NEON); PARTS says how many registers make a panel. Everything else is plain C over these. */
#ifndef CHATSMITH_INFER_SIMD_H
#define CHATSMITH_INFER_SIMD_H

#include "../numbers.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512VNNI__)
#define WIDTH 64
#elif defined(__AVX2__)
#define WIDTH 32
#else
#define WIDTH 16
#endif

#define EXPORT __attribute__((visibility("default")))
#define PANEL 16
#define PARTS (64 / WIDTH)
#define INLINE static inline __attribute__((always_inline))

typedef float fpart __attribute__((vector_size(WIDTH)));
typedef int32_t ipart __attribute__((vector_size(WIDTH)));
typedef uint32_t upart __attribute__((vector_size(WIDTH)));
typedef uint8_t bpart __attribute__((vector_size(WIDTH)));
typedef float fpart_any __attribute__((vector_size(WIDTH), aligned(4), may_alias));
typedef int32_t ipart_any __attribute__((vector_size(WIDTH), aligned(4), may_alias));
typedef uint16_t half_any __attribute__((vector_size(WIDTH / 2), aligned(2), may_alias));

INLINE fpart load_f(const void *p) { return *(const fpart_any *)p; }
INLINE ipart load_i(const void *p) { return *(const ipart_any *)p; }
INLINE void store_f(float *p, fpart x) { *(fpart_any *)p = x; }
INLINE fpart all_f(float x) { return x - (fpart){0}; }
INLINE ipart all_i(int32_t x) { return x - (ipart){0}; }
INLINE fpart to_float(ipart x) { return __builtin_convertvector(x, fpart); }
/* a b + c, rounded once where the processor can: said outright, since bits must not hang on what a compiler fuses. */
INLINE fpart fma_f(fpart a, fpart b, fpart c) {
#if WIDTH == 64
    return (fpart)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif WIDTH == 32
    return (fpart)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
    return (fpart)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}
INLINE int32_t word(const void *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return x;
}

/* The numbers of a part that lie in 16 bits as the upper half of a float, or in 8 bits without or with a sign. */
INLINE fpart load_bf16(const bf16 *p) {
    return (fpart)(__builtin_convertvector(*(const half_any *)p, upart) << 16);
}
#if WIDTH == 64 /* said outright: the compiler would take byte after byte */
INLINE ipart load_u8(const uint8_t *p) { return (ipart)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)); }
INLINE ipart load_i8(const int8_t *p) { return (ipart)_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)); }
#elif WIDTH == 32
INLINE ipart load_u8(const uint8_t *p) { return (ipart)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)); }
INLINE ipart load_i8(const int8_t *p) { return (ipart)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)); }
#elif defined(__aarch64__)
INLINE ipart load_u8(const uint8_t *p) {
    return (ipart)vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_s32(vdup_n_s32(word(p))))));
}
INLINE ipart load_i8(const int8_t *p) {
    return (ipart)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(word(p))))));
}
#else
typedef uint8_t quarter_any __attribute__((vector_size(WIDTH / 4), aligned(1), may_alias));
typedef int8_t signed_any __attribute__((vector_size(WIDTH / 4), aligned(1), may_alias));
INLINE ipart load_u8(const uint8_t *p) { return __builtin_convertvector(*(const quarter_any *)p, ipart); }
INLINE ipart load_i8(const int8_t *p) { return __builtin_convertvector(*(const signed_any *)p, ipart); }
#endif

/* IEEE half precision, exact for every value but infinities and NaN, which no weight may be. */
INLINE fpart load_f16(const uint16_t *p) {
#if defined(__AVX512F__) && WIDTH == 64
    return (fpart)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
#elif defined(__F16C__) && WIDTH == 32
    return (fpart)_mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
#elif defined(__aarch64__)
    return (fpart)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
#else
    upart x = __builtin_convertvector(*(const half_any *)p, upart);
    fpart size = (fpart)((x & 0x7fff) << 13) * 0x1p112f;
    return (fpart)((upart)size | (x & 0x8000) << 16);
#endif
}

/* Two products of bfloat16 summed into each lane, where the processor has them:
 * acc[l] += w[2 l] x[0] + w[2 l + 1] x[1]. */
#if WIDTH == 64 && defined(__AVX512BF16__)
#define HAS_DOT2 1
INLINE fpart dot2(fpart acc, ipart w, int32_t x) {
    return (fpart)_mm512_dpbf16_ps((__m512)acc, (__m512bh)w, (__m512bh)_mm512_set1_epi32(x));
}
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define HAS_DOT2 1
INLINE fpart dot2(fpart acc, ipart w, int32_t x) {
    return (fpart)vbfdotq_f32((float32x4_t)acc, (bfloat16x8_t)w, vreinterpretq_bf16_s32(vdupq_n_s32(x)));
}
#else
#define HAS_DOT2 0
#endif

/* The upper halves of the bytes, from 0 to 15. */
INLINE ipart high_halves(ipart w) { return (ipart)((bpart)w >> 4); }

/* Four products of bytes summed into each lane: acc[l] += w[4 l + j] * x[j], for j from 0 to 3, always exactly.
 *
 * `signed_bytes` makes of a part's weights, which have signs and are not -128, what `dot4` wants; the sums then come
 * out too large by OFFSET times the sum of x. `dot4_small` takes weights from 0 to 15. */
#if WIDTH == 64
#define OFFSET 128
INLINE ipart signed_bytes(ipart w) { return w ^ (int32_t)0x80808080; }
INLINE ipart dot4(ipart acc, ipart w, int32_t x) {
    return (ipart)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, _mm512_set1_epi32(x));
}
INLINE ipart dot4_small(ipart acc, ipart w, int32_t x) { return dot4(acc, w, x); }
#elif WIDTH == 32 && defined(__AVXVNNI__)
#define OFFSET 128
INLINE ipart signed_bytes(ipart w) { return w ^ (int32_t)0x80808080; }
INLINE ipart dot4(ipart acc, ipart w, int32_t x) {
    return (ipart)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)w, _mm256_set1_epi32(x));
}
INLINE ipart dot4_small(ipart acc, ipart w, int32_t x) { return dot4(acc, w, x); }
#elif WIDTH == 32
#define OFFSET 0
INLINE ipart signed_bytes(ipart w) { return w; }
INLINE ipart dot4_small(ipart acc, ipart w, int32_t x) {
    __m256i pairs = _mm256_maddubs_epi16((__m256i)w, _mm256_set1_epi32(x));
    return acc + (ipart)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
INLINE ipart dot4(ipart acc, ipart w, int32_t x) { /* |w| * (x with the sign of w): no pair overflows 16 bits */
    __m256i signs = _mm256_sign_epi8(_mm256_set1_epi32(x), (__m256i)w);
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), signs);
    return acc + (ipart)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#elif defined(__ARM_FEATURE_DOTPROD)
#define OFFSET 0
INLINE ipart signed_bytes(ipart w) { return w; }
INLINE ipart dot4(ipart acc, ipart w, int32_t x) {
    return (ipart)vdotq_s32((int32x4_t)acc, (int8x16_t)w, vreinterpretq_s8_s32(vdupq_n_s32(x)));
}
INLINE ipart dot4_small(ipart acc, ipart w, int32_t x) { return dot4(acc, w, x); }
#elif defined(__aarch64__)
#define OFFSET 0
INLINE ipart signed_bytes(ipart w) { return w; }
INLINE ipart dot4(ipart acc, ipart w, int32_t x) { /* |x| is at most 127: two products fit 16 bits */
    int8x16_t in = vreinterpretq_s8_s32(vdupq_n_s32(x));
    int16x8_t low = vmull_s8(vget_low_s8((int8x16_t)w), vget_low_s8(in)), high = vmull_high_s8((int8x16_t)w, in);
    return (ipart)vpadalq_s16((int32x4_t)acc, vpaddq_s16(low, high));
}
INLINE ipart dot4_small(ipart acc, ipart w, int32_t x) { return dot4(acc, w, x); }
#else
#define OFFSET 0
INLINE ipart signed_bytes(ipart w) { return w; }
INLINE ipart dot4(ipart acc, ipart w, int32_t x) {
    for (int j = 0; j < 4; j++) acc += (w << (24 - 8 * j) >> 24) * (int32_t)(int8_t)(x >> 8 * j);
    return acc;
}
INLINE ipart dot4_small(ipart acc, ipart w, int32_t x) { return dot4(acc, w, x); }
#endif

/* Rows and panels that a kernel holds in registers at a time, for few rows and for many. */
#if WIDTH == 64
#define FEW_PANELS 4
#define MANY_ROWS 8
#elif WIDTH == 32
#define FEW_PANELS 2
#define MANY_ROWS 2
#elif defined(__aarch64__)
#define FEW_PANELS 2
#define MANY_ROWS 4
#else
#define FEW_PANELS 1
#define MANY_ROWS 2
#endif
#define MANY_PANELS (FEW_PANELS > 1 ? FEW_PANELS / 2 : 1)

#endif
