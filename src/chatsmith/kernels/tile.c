/* The small kernel on registers or tiles, and the packing of its operands (see gemm.h for their layout). */
#ifndef NUM

#include "gemm.h"
#include "vector.h"

#ifdef HAS_GEMM

/* 16 rows of 16 words, `stride` bytes apart, turned round: to[k * COLUMNS + row]. Masked rows count as zeros. */
INLINE void pack_square(bytes from, int64_t stride, int rows, __mmask16 words, int count, uint32_t *to) {
    __m512i x[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        x[i] = i < rows ? _mm512_maskz_loadu_epi32(words, from + i * stride) : _mm512_setzero_si512();
    turn_round((u16 *)x);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        if (i < count) _mm512_storeu_si512(to + i * COLUMNS, x[i]);
}

/* One panel from rows that lie along the sum: `width` rows of `depth` words. */
void pack_along(bytes from, int64_t stride, int64_t width, int64_t depth, uint32_t *to) {
    for (int64_t half = 0; half < COLUMNS; half += 16) {
        int rows = width - half > 16 ? 16 : width - half > 0 ? (int)(width - half) : 0;
        for (int64_t k = 0; k < depth; k += 16) {
            int count = depth - k > 16 ? 16 : (int)(depth - k);
            bytes at = rows ? from + half * stride + k * 4 : from;
            for (int i = 0; i < rows; i++) __builtin_prefetch(at + i * stride + 4 * 64);
            if (rows == 16 && count == 16)
                pack_square(at, stride, 16, 0xffff, 16, to + k * COLUMNS + half);
            else
                pack_square(at, stride, rows, mask_below(count), (int)(WHOLE(depth) - k), to + k * COLUMNS + half);
        }
    }
}

#ifdef HAS_TILES

#include <sys/syscall.h>
#include <unistd.h>

static int allowed;

/* Linux gives a process the tiles when it asks for them (arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA). */
__attribute__((constructor)) static void ask_for_tiles(void) { allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

int tiles_allowed(void) { return allowed; }

/* Tiles 0 to 3 hold the sums, 4 and 5 the left operand's rows, 6 and 7 the right one's columns. */
static void set_tiles(int rows) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t line[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) shape = {.palette = 1};
    int upper = rows < 16 ? rows : 16, lower = rows > 16 ? rows - 16 : 1;
    const int counts[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
    for (int i = 0; i < 8; i++) shape.line[i] = 64, shape.rows[i] = (uint8_t)counts[i];
    __asm__ volatile("ldtilecfg %0" : : "m"(shape));
}

void tiles_on(void) { set_tiles(TILE_ROWS); }

void tiles_off(void) { _tile_release(); }

/* What the tile loads read must be written before them; the compiler does not see that they read. */
#define WRITTEN __asm__ volatile("" ::: "memory")

/* The sums over `steps` strides of words. Without `lower`, at most 16 rows.
 *
 * Where two threads share a core, a load does not overlap the products around it unless its tile is long free and not
 * yet wanted: so each operand's next tile is loaded as soon as the last product of this one is on its way. */
INLINE void sum_tiles(bytes a, int64_t row, const uint32_t *b, int64_t steps, const int lower) {
    if (!steps) return;
    _tile_loadd(6, b, COLUMNS * 4);
    _tile_loadd(4, a, row);
    _tile_loadd(7, b + 16, COLUMNS * 4);
    if (lower) _tile_loadd(5, a + 16 * row, row);
    while (--steps) {
        a += STRIDE * 4, b += STRIDE * COLUMNS;
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(4, a, row);
        if (lower) _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(7, b + 16, COLUMNS * 4);
        if (lower) _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(6, b, COLUMNS * 4);
        if (lower) _tile_loadd(5, a + 16 * row, row);
    }
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (lower) {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

#else
int tiles_allowed(void) { return 1; }
void tiles_on(void) {}
void tiles_off(void) {}
#endif

#define EACH "tile.c"
#include "each_type.h"
#endif

#else

#define PER_WORD (IS_FLOAT ? 1 : 2)
#include "tile.h"

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
    return add_pairs(sum, _mm512_set1_epi32((int)a), b);
}
INLINE __m512 FN(load)(const NUM *from, __mmask16 mask) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}
INLINE void FN(store)(NUM *to, __mmask16 mask, __m512 x) {
    _mm256_mask_storeu_epi16(to, mask, to_bf16(x));
}
INLINE __m512i FN(words)(const NUM *row, int64_t stride, int pair, __mmask16 mask) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row));
    if (!pair) return low;
    __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row + stride));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
#endif

/* A panel from rows across the sum: `depth` numbers of the sum, `width` neighbours of each. */
void FN(pack_across)(const NUM *from, int64_t stride, int64_t width, int64_t depth, uint32_t *to) {
    __mmask16 first = mask_below(width), second = mask_below(width - 16);
    uint32_t *end = to + WHOLE((depth + PER_WORD - 1) / PER_WORD) * COLUMNS;
    for (int64_t k = 0; k < depth; k += PER_WORD, from += PER_WORD * stride, to += COLUMNS) {
        int pair = k + 1 < depth;
        for (int64_t i = 16; i < 16 + PER_WORD; i++) __builtin_prefetch(from + i * stride);
        _mm512_storeu_si512(to, FN(words)(from, stride, pair, first));
        _mm512_storeu_si512(to + 16, second ? FN(words)(from + 16, stride, pair, second) : _mm512_setzero_si512());
    }
    memset(to, 0, (size_t)(end - to) * 4);
}

/* A left operand from rows across the sum: `depth` numbers of the sum, `rows` (up to ROWS) neighbours of each. */
void FN(pack_left)(const NUM *from, int64_t stride, int rows, int64_t depth, uint32_t *to) {
#if defined(HAS_TILES) && !IS_FLOAT
    int64_t words = (depth + 1) / 2;
    const __mmask32 mask = rows < 32 ? (1u << rows) - 1 : 0xffffffff;
    const __m512i high = _mm512_set1_epi32((int)0xffff0000);
    for (int64_t k = 0; k < words; k += STRIDE) {
        __m512i even[16], odd[16]; /* pairs of the columns 0, 2, 4 … and 1, 3, 5 … */
#pragma GCC unroll 16
        for (int64_t i = 0; i < STRIDE; i++) {
            int64_t at = 2 * (k + i);
            __builtin_prefetch(from + (at + 32) * stride), __builtin_prefetch(from + (at + 33) * stride);
            __m512i first = at < depth ? _mm512_maskz_loadu_epi16(mask, from + at * stride) : _mm512_setzero_si512();
            __m512i second =
                at + 1 < depth ? _mm512_maskz_loadu_epi16(mask, from + (at + 1) * stride) : _mm512_setzero_si512();
            even[i] = _mm512_ternarylogic_epi32(high, _mm512_slli_epi32(second, 16), first, 0xca);
            odd[i] = _mm512_ternarylogic_epi32(high, second, _mm512_srli_epi32(first, 16), 0xca);
        }
        turn_round((u16 *)even);
        turn_round((u16 *)odd);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            char *row = (char *)to + 2 * i * LEFT_ROW(words) + k * 4;
            _mm512_storeu_si512(row, even[i]);
            _mm512_storeu_si512(row + LEFT_ROW(words), odd[i]);
        }
    }
#else
    for (int64_t k = 0; k < depth; k += PER_WORD, from += PER_WORD * stride, to += ROWS)
        _mm512_mask_storeu_epi32(to, (1u << ROWS) - 1, FN(words)(from, stride, k + 1 < depth, mask_below(rows)));
#endif
}

/* A row of a finished tile on its way out: bias, the matrix to add, rounding. */
INLINE void FN(finish)(const FN(Out) * out, int64_t place, int64_t column, __mmask16 mask, __m512 sum) {
    if (out->bias) sum = _mm512_add_ps(sum, FN(load)(out->bias + column, mask));
    if (out->add) sum = _mm512_add_ps(sum, FN(load)(out->add + place, mask));
    FN(store)(out->c + place, mask, sum);
}

#if defined(HAS_TILES) && !IS_FLOAT

INLINE __m512 FN(wide)(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

/* All rows of a whole tile on their way out, COLUMNS wide; with a bias [COLUMNS] and a matrix to add, or null. */
INLINE void FN(finish_rows)(int rows, const float *block, const NUM *bias, const NUM *add, NUM *to, int64_t stride) {
    __m512 more_low = _mm512_setzero_ps(), more_high = more_low;
    if (bias) more_low = FN(load)(bias, 0xffff), more_high = FN(load)(bias + 16, 0xffff);
    for (int r = 0; r < rows; r++, block += COLUMNS, to += stride) {
        __m512 low = _mm512_add_ps(_mm512_load_ps(block), more_low);
        __m512 high = _mm512_add_ps(_mm512_load_ps(block + 16), more_high);
        if (add) {
            __m512i more = _mm512_loadu_si512(add);
            low = _mm512_add_ps(low, FN(wide)(_mm512_castsi512_si256(more)));
            high = _mm512_add_ps(high, FN(wide)(_mm512_extracti64x4_epi64(more, 1)));
            add += stride;
        }
        _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

/* Up to ROWS x COLUMNS of the result: words of a at a + r * row + 4 k bytes, b a packed panel. */
void FN(tiles)(int rows, bytes a, int64_t row, int64_t step, const uint32_t *b, int64_t depth, const FN(Out) * out,
               int64_t at, __mmask16 left, __mmask16 right, int64_t column) {
    (void)step;
    float block[TILE_ROWS * COLUMNS] __attribute__((aligned(64))), *sums = out->sums + at;
    int whole = left == 0xffff && right == 0xffff, lower = rows > 16;
    int64_t line = out->stride * 4, steps = depth / STRIDE, rest = depth % STRIDE;
    if (rows < ROWS) set_tiles(rows);
    /* the lines of a result larger than the cache are fetched while the tile is computed */
    if (out->last && whole && steps >= 8)
        for (int r = 0; r < rows; r++) __builtin_prefetch(out->c + at + r * out->stride, 1, 2);
    if (!out->first && whole) {
        WRITTEN;
        _tile_loadd(0, sums, line);
        _tile_loadd(1, sums + 16, line);
        if (lower) {
            _tile_loadd(2, sums + 16 * out->stride, line);
            _tile_loadd(3, sums + 16 * out->stride + 16, line);
        }
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    WRITTEN;
    if (lower)
        sum_tiles(a, row, b, steps, 1);
    else
        sum_tiles(a, row, b, steps, 0);
    if (rest) {
        /* the words behind the end of the sum are somebody else's: they may not even be numbers */
        char edge[TILE_ROWS * STRIDE * 4] __attribute__((aligned(64)));
        for (int r = 0; r < rows; r++)
            _mm512_store_si512(edge + r * STRIDE * 4,
                               _mm512_maskz_loadu_epi32(mask_below(rest), a + r * row + steps * STRIDE * 4));
        WRITTEN;
        sum_tiles(edge, STRIDE * 4, b + steps * STRIDE * COLUMNS, 1, lower);
    }
    if (!out->last && whole) {
        _tile_stored(0, sums, line);
        _tile_stored(1, sums + 16, line);
        if (lower) {
            _tile_stored(2, sums + 16 * out->stride, line);
            _tile_stored(3, sums + 16 * out->stride + 16, line);
        }
    } else {
        _tile_stored(0, block, COLUMNS * 4);
        _tile_stored(1, block + 16, COLUMNS * 4);
        if (lower) {
            _tile_stored(2, block + 16 * COLUMNS, COLUMNS * 4);
            _tile_stored(3, block + 16 * COLUMNS + 16, COLUMNS * 4);
        }
        if (out->last && whole) {
            FN(finish_rows)(rows, block, out->bias ? out->bias + column : 0, out->add ? out->add + at : 0, out->c + at,
                            out->stride);
        } else {
            for (int r = 0; r < rows; r++) {
                int64_t place = r * out->stride;
                __m512 sum[2] = {_mm512_load_ps(block + r * COLUMNS), _mm512_load_ps(block + r * COLUMNS + 16)};
                if (!out->first && !whole) {
                    sum[0] = _mm512_add_ps(sum[0], _mm512_maskz_loadu_ps(left, sums + place));
                    sum[1] = _mm512_add_ps(sum[1], _mm512_maskz_loadu_ps(right, sums + place + 16));
                }
                if (out->last) {
                    FN(finish)(out, at + place, column, left, sum[0]);
                    if (right) FN(finish)(out, at + place + 16, column + 16, right, sum[1]);
                } else {
                    _mm512_mask_storeu_ps(sums + place, left, sum[0]);
                    _mm512_mask_storeu_ps(sums + place + 16, right, sum[1]);
                }
            }
        }
    }
    if (rows < ROWS) tiles_on();
}

#else

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
        __builtin_prefetch(b + 8 * COLUMNS, 0, 3); /* the panel lies in the second cache */
        __builtin_prefetch(b + 8 * COLUMNS + 16, 0, 3);
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
        FN(finish)(out, place, column, left, sum[r][0]);
        if (right) FN(finish)(out, place + 16, column + 16, right, sum[r][1]);
    }
}

#define TILE(n)                                                                                                        \
    case n:                                                                                                            \
        FN(tile)(n, a, row, step, b, depth, out, at, left, right, column);                                             \
        break;
/* The same for 1 to ROWS rows. */
void FN(tiles)(int rows, bytes a, int64_t row, int64_t step, const uint32_t *b, int64_t depth, const FN(Out) * out,
               int64_t at, __mmask16 left, __mmask16 right, int64_t column) {
    switch (rows) {
        TILE(12) TILE(11) TILE(10) TILE(9) TILE(8) TILE(7) TILE(6) TILE(5) TILE(4) TILE(3) TILE(2) TILE(1)
    }
}
#undef TILE

#endif

#undef PER_WORD
#endif
