/* The small kernel and the packing that depends on the type; included once per type by the files that multiply. */
#if IS_FLOAT
INLINE __m512 FN(multiply)(uint32_t a, __m512i b, __m512 sum) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_set1_epi32((int)a)), _mm512_castsi512_ps(b), sum);
}
INLINE __m512 FN(load)(const NUM *from, __mmask16 mask) { return _mm512_maskz_loadu_ps(mask, from); }
INLINE void FN(store)(NUM *to, __mmask16 mask, __m512 x) { _mm512_mask_storeu_ps(to, mask, x); }
/* 16 words of the sum's step k from a row-major matrix with rows across the sum. */
INLINE __m512i FN(words)(const NUM *row, int64_t stride, int pair, __mmask16 mask) {
    (void)stride, (void)pair;
    return _mm512_maskz_loadu_epi32(mask, row);
}
#else
INLINE __m512 FN(multiply)(uint32_t a, __m512i b, __m512 sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
}
INLINE __m512 FN(load)(const NUM *from, __mmask16 mask) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}
INLINE void FN(store)(NUM *to, __mmask16 mask, __m512 x) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(x));
}
INLINE __m512i FN(words)(const NUM *row, int64_t stride, int pair, __mmask16 mask) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row));
    if (!pair) return low;
    __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row + stride));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
#endif

/* A panel from rows across the sum: `depth` numbers of the sum, `width` neighbours of each, `span` words apart. */
static void FN(pack_across)(const NUM *from, int64_t stride, int64_t width, int64_t depth, uint32_t *to, int span) {
    __mmask16 first = mask_below(width), second = mask_below(width - 16);
    for (int64_t k = 0; k < depth; k += PER_WORD, from += PER_WORD * stride, to += span) {
        int pair = k + 1 < depth;
        if (span == COLUMNS) {
            _mm512_storeu_si512(to, FN(words)(from, stride, pair, first));
            _mm512_storeu_si512(to + 16, second ? FN(words)(from + 16, stride, pair, second) : _mm512_setzero_si512());
        } else {
            _mm512_mask_storeu_epi32(to, (1u << ROWS) - 1, FN(words)(from, stride, pair, first));
        }
    }
}

/* What a tile of the result starts from and how it ends. */
typedef struct {
    NUM *c;
    const NUM *bias, *add;
    float *sums;
    int64_t stride;
    int first, last;
} FN(Out);

/* ROWS x COLUMNS (or fewer rows) of the result: words of a at a + r * row + k * step bytes, b a packed panel. */
INLINE void FN(tile)(const int rows, bytes a, int64_t row, int64_t step, const uint32_t *b, int64_t depth,
                     const FN(Out) * out, int64_t at, __mmask16 left, __mmask16 right, int64_t column) {
    __m512 sum[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        if (out->first) {
            sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        } else {
            sum[r][0] = _mm512_maskz_loadu_ps(left, out->sums + at + r * out->stride);
            sum[r][1] = _mm512_maskz_loadu_ps(right, out->sums + at + r * out->stride + 16);
        }
    }
    bytes group[4] = {a, a + 3 * row, a + 6 * row, a + 9 * row};
    for (int64_t k = 0; k < depth; k++, b += COLUMNS) {
        __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + 16);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            uint32_t word;
            memcpy(&word, group[r / 3] + (r % 3) * row, 4);
            sum[r][0] = FN(multiply)(word, b0, sum[r][0]);
            sum[r][1] = FN(multiply)(word, b1, sum[r][1]);
        }
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) group[g] += step;
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
        int64_t place = at + r * out->stride;
        if (!out->last) {
            _mm512_mask_storeu_ps(out->sums + place, left, sum[r][0]);
            _mm512_mask_storeu_ps(out->sums + place + 16, right, sum[r][1]);
            continue;
        }
        if (out->bias) {
            sum[r][0] = _mm512_add_ps(sum[r][0], FN(load)(out->bias + column, left));
            if (right) sum[r][1] = _mm512_add_ps(sum[r][1], FN(load)(out->bias + column + 16, right));
        }
        if (out->add) {
            sum[r][0] = _mm512_add_ps(sum[r][0], FN(load)(out->add + place, left));
            if (right) sum[r][1] = _mm512_add_ps(sum[r][1], FN(load)(out->add + place + 16, right));
        }
        FN(store)(out->c + place, left, sum[r][0]);
        if (right) FN(store)(out->c + place + 16, right, sum[r][1]);
    }
}

#define TILE(n)                                                                                                        \
    case n:                                                                                                            \
        FN(tile)(n, a, row, step, b, depth, out, at, left, right, column);                                             \
        break;
static void FN(tiles)(int rows, bytes a, int64_t row, int64_t step, const uint32_t *b, int64_t depth,
                      const FN(Out) * out, int64_t at, __mmask16 left, __mmask16 right, int64_t column) {
    switch (rows) {
        TILE(12) TILE(11) TILE(10) TILE(9) TILE(8) TILE(7) TILE(6) TILE(5) TILE(4) TILE(3) TILE(2) TILE(1)
    }
}

