/* The same products by matrix tiles (AMX): 16 rows by 16 outputs, 64 bytes of the sum at a time.
 *
 * Sums of int8 are exact, so they equal those of panels.c bit for bit. Those of bfloat16 are rounded in another order;
 * where there are tiles they serve every number of rows, and a row's result is again its own. */
#include "infer.h"

#if defined(__AMX_INT8__) && defined(__AMX_BF16__)

#include <sys/syscall.h>
#include <unistd.h>

#define TILE 16

/* Tiles 0 to 3 hold sums, 4 and 5 rows of the input, 6 and 7 weights; `bytes` of the sum fill a row. To shape them
 * takes as long as a dozen products: a thread remembers how its own are. */
static __thread int shaped;

INLINE void shape_tiles(int rows, int bytes) {
    if (shaped == (rows << 8 | bytes)) return;
    shaped = rows << 8 | bytes;
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } __attribute__((aligned(64))) shape = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        shape.row_bytes[t] = t == 4 || t == 5 ? (uint16_t)bytes : 64;
        shape.rows[t] = (uint8_t)(t < 6 ? rows : bytes / 4);
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(shape)); /* the intrinsic of GCC 12 tells of 8 bytes only */
}

/* The operands of four tiles at k: 32 rows of `in` (the lower 16 `below` behind, rows `line` bytes apart), two panels
 * of `weight` (`apart`). */
#define FOUR_TILES(in, weight, k)                                                                                      \
    do {                                                                                                               \
        _tile_loadd(6, weight + (k) * PANEL, 64);                                                                      \
        _tile_loadd(4, in + (k), line);                                                                                \
        _tile_loadd(7, weight + apart + (k) * PANEL, 64);                                                              \
        _tile_loadd(5, in + below + (k), line);                                                                        \
    } while (0)

/* Their products, and the operands at `next`. Where two threads share a core, a load does not overlap the products
 * around it unless its tile is long free and not yet wanted: so each is loaded as soon as its last product is under
 * way. */
#define PRODUCTS_AND_NEXT(product, in, weight, next)                                                                   \
    do {                                                                                                               \
        product(0, 4, 6);                                                                                              \
        product(1, 4, 7);                                                                                              \
        _tile_loadd(4, in + (next), line);                                                                             \
        product(3, 5, 7);                                                                                              \
        _tile_loadd(7, weight + apart + (next) * PANEL, 64);                                                           \
        product(2, 5, 6);                                                                                              \
        _tile_loadd(6, weight + (next) * PANEL, 64);                                                                   \
        _tile_loadd(5, in + below + (next), line);                                                                     \
    } while (0)

#define LAST_PRODUCTS(product)                                                                                         \
    do {                                                                                                               \
        product(0, 4, 6);                                                                                              \
        product(1, 4, 7);                                                                                              \
        product(2, 5, 6);                                                                                              \
        product(3, 5, 7);                                                                                              \
    } while (0)

/* ---- bfloat16 ---------------------------------------------------------------------------------------------------- */

void tiles_bfloat16(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums) {
    int64_t apart = m->depth * PANEL, line = x->line * 2, below = TILE * x->line, stride = panels * PANEL;
    int r = 0;
    for (int p; r + 2 * TILE <= rows; r += 2 * TILE) {
        shape_tiles(TILE, 64);
        const bf16 *in = x->halves + (row + r) * x->line;
        float *out = sums + r * stride;
        for (p = 0; p + 2 <= panels; p += 2) {
            const bf16 *weight = (const bf16 *)m->weight + (panel + p) * apart;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            FOUR_TILES(in, weight, 0);
            for (int64_t k = 32; k < m->depth; k += 32) PRODUCTS_AND_NEXT(_tile_dpbf16ps, in, weight, k);
            LAST_PRODUCTS(_tile_dpbf16ps);
            _tile_stored(0, out + p * PANEL, stride * 4);
            _tile_stored(1, out + (p + 1) * PANEL, stride * 4);
            _tile_stored(2, out + TILE * stride + p * PANEL, stride * 4);
            _tile_stored(3, out + TILE * stride + (p + 1) * PANEL, stride * 4);
        }
        for (; p < panels; p++) {
            const bf16 *weight = (const bf16 *)m->weight + (panel + p) * apart;
            _tile_zero(0);
            _tile_zero(2);
            for (int64_t k = 0; k < m->depth; k += 32) {
                _tile_loadd(6, weight + k * PANEL, 64);
                _tile_loadd(4, in + k, line);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(5, in + TILE * x->line + k, line);
                _tile_dpbf16ps(2, 5, 6);
            }
            _tile_stored(0, out + p * PANEL, stride * 4);
            _tile_stored(2, out + TILE * stride + p * PANEL, stride * 4);
        }
    }
    for (int some; r < rows; r += some) {
        some = rows - r < TILE ? rows - r : TILE;
        shape_tiles(some, 64);
        const bf16 *in = x->halves + (row + r) * x->line;
        float *out = sums + r * stride;
        int p = 0;
        for (; p + 4 <= panels; p += 4) { /* four panels at a time: more lines of memory under way */
            const bf16 *weight = (const bf16 *)m->weight + (panel + p) * apart;
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (int64_t k = 0; k < m->depth; k += 32) {
                _tile_loadd(4, in + k, line);
                const bf16 *at = weight + k * PANEL;
                for (int ahead = 0; ahead < 512; ahead += 32)
                    for (int next = 0; next < 4; next++) __builtin_prefetch(at + next * apart + 1024 + ahead, 0, 3);
                _tile_loadd(6, at, 64);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(7, at + apart, 64);
                _tile_dpbf16ps(1, 4, 7);
                _tile_loadd(6, at + 2 * apart, 64);
                _tile_dpbf16ps(2, 4, 6);
                _tile_loadd(7, at + 3 * apart, 64);
                _tile_dpbf16ps(3, 4, 7);
            }
            _tile_stored(0, out + p * PANEL, stride * 4);
            _tile_stored(1, out + (p + 1) * PANEL, stride * 4);
            _tile_stored(2, out + (p + 2) * PANEL, stride * 4);
            _tile_stored(3, out + (p + 3) * PANEL, stride * 4);
        }
        for (; p < panels; p++) {
            const bf16 *weight = (const bf16 *)m->weight + (panel + p) * apart;
            _tile_zero(0);
            for (int64_t k = 0; k < m->depth; k += 32) {
                _tile_loadd(4, in + k, line);
                _tile_loadd(6, weight + k * PANEL, 64);
                _tile_dpbf16ps(0, 4, 6);
            }
            _tile_stored(0, out + p * PANEL, stride * 4);
        }
    }
}

/* ---- int8 -------------------------------------------------------------------------------------------------------- */

/* Where one 16 by 16 block of sums comes from. */
typedef struct {
    const int8_t *in, *weight;
    int64_t line, group, step;
} Block;

/* The exact sums of group g, in tile `t` and then in `to`. Tile numbers are part of the instruction. */
#define SUM_GROUP(t, a, b, block, g, to)                                                                               \
    do {                                                                                                               \
        _tile_zero(t);                                                                                                 \
        for (int64_t k = (g) * (block).group; k < ((g) + 1) * (block).group; k += (block).step) {                      \
            _tile_loadd(a, (block).in + k, (block).line);                                                              \
            _tile_loadd(b, (block).weight + k * PANEL, 64);                                                            \
            _tile_dpbssd(t, a, b);                                                                                     \
        }                                                                                                              \
        _tile_stored(t, to, 64);                                                                                       \
    } while (0)

INLINE void add_group(int held, __m512 acc[TILE], int32_t whole[TILE][PANEL], const bf16 *scale, const float *own,
                      int64_t groups) {
    __m512 times = (__m512)load_bf16(scale);
#pragma GCC unroll 16
    for (int r = 0; r < held; r++) {
        __m512 both = _mm512_mul_ps(times, _mm512_set1_ps(own[r * groups]));
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(whole[r])), both, acc[r]);
    }
}

/* Up to `held` rows (8 or 16, those beyond the last are computed and thrown away) and one panel. While one group's sums
 * are scaled and added, the next one's are made. */
INLINE void tile_int8(int held, const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, float *sums,
                      int64_t stride) {
    int64_t groups = m->depth / m->group;
    Block block = {x->bytes + row * x->line, (const int8_t *)m->weight + panel * m->depth * PANEL, x->line, m->group,
                   m->group < 64 ? m->group : 64};
    const bf16 *scale = m->scale + panel * groups * PANEL;
    const float *own = x->scale + row * groups;
    int32_t whole[2][TILE][PANEL] __attribute__((aligned(64)));
    __m512 acc[TILE];
#pragma GCC unroll 16
    for (int r = 0; r < held; r++) acc[r] = _mm512_setzero_ps();
    SUM_GROUP(0, 4, 6, block, 0, whole[0]);
    for (int64_t g = 0; g < groups; g += 2) {
        if (g + 1 < groups) SUM_GROUP(1, 5, 7, block, g + 1, whole[1]);
        add_group(held, acc, whole[0], scale + g * PANEL, own + g, groups);
        if (g + 1 == groups) break;
        if (g + 2 < groups) SUM_GROUP(0, 4, 6, block, g + 2, whole[0]);
        add_group(held, acc, whole[1], scale + (g + 1) * PANEL, own + g + 1, groups);
    }
#pragma GCC unroll 16
    for (int r = 0; r < held; r++)
        if (r < rows) _mm512_storeu_ps(sums + r * stride, acc[r]);
}

/* One group's sums of 16 rows and a panel, scaled and added to `sums`. */
INLINE void drain_group(int64_t g, int64_t groups, int32_t whole[TILE][PANEL], const bf16 *scale, const float *own,
                        float *sums, int64_t stride) {
    __m512 times = (__m512)load_bf16(scale + g * PANEL);
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++) {
        __m512 both = _mm512_mul_ps(times, _mm512_set1_ps(own[r * groups + g]));
        __m512 before = g ? _mm512_loadu_ps(sums + r * stride) : _mm512_setzero_ps();
        _mm512_storeu_ps(sums + r * stride,
                         _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(whole[r])), both, before));
    }
}

/* 32 rows and two panels: what is loaded serves two tiles, and four chains of products are under way at a time. */
static void four_tiles_int8(const Matrix *m, const Input *x, int64_t row, int64_t panel, float *sums, int64_t stride) {
    int64_t groups = m->depth / m->group, apart = m->depth * PANEL, step = m->group < 64 ? m->group : 64;
    int64_t line = x->line, below = TILE * line;
    const int8_t *in = x->bytes + row * line, *weight = (const int8_t *)m->weight + panel * apart;
    const bf16 *scale = m->scale + panel * groups * PANEL;
    const float *own = x->scale + row * groups;
    int32_t whole[2][4][TILE][PANEL] __attribute__((aligned(64)));
    FOUR_TILES(in, weight, 0);
    for (int64_t g = 0; g <= groups; g++) {
        if (g < groups) {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
            for (int64_t next = g * m->group + step; next <= (g + 1) * m->group; next += step)
                if (next < m->depth)
                    PRODUCTS_AND_NEXT(_tile_dpbssd, in, weight, next);
                else
                    LAST_PRODUCTS(_tile_dpbssd);
            _tile_stored(0, whole[g % 2][0], 64);
            _tile_stored(1, whole[g % 2][1], 64);
            _tile_stored(2, whole[g % 2][2], 64);
            _tile_stored(3, whole[g % 2][3], 64);
        }
        if (!g) continue;
        for (int t = 0; t < 4; t++) /* the sums of the group before, while those of this one are made */
            drain_group(g - 1, groups, whole[(g - 1) % 2][t], scale + t % 2 * groups * PANEL,
                        own + t / 2 * TILE * groups, sums + t / 2 * TILE * stride + t % 2 * PANEL, stride);
    }
}

void tiles_int8(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums) {
    int64_t stride = panels * PANEL;
    int bytes = m->group < 64 ? (int)m->group : 64, r = 0;
    if (rows > TILE / 2) {
        shape_tiles(TILE, bytes);
        for (; r + 2 * TILE <= rows; r += 2 * TILE) {
            float *out = sums + r * stride;
            int p = 0;
            for (; p + 2 <= panels; p += 2) four_tiles_int8(m, x, row + r, panel + p, out + p * PANEL, stride);
            for (; p < panels; p++) {
                tile_int8(TILE, m, x, row + r, TILE, panel + p, out + p * PANEL, stride);
                tile_int8(TILE, m, x, row + r + TILE, TILE, panel + p, out + TILE * stride + p * PANEL, stride);
            }
        }
        for (; rows - r > TILE / 2; r += TILE)
            for (int p = 0; p < panels; p++)
                tile_int8(TILE, m, x, row + r, rows - r, panel + p, sums + r * stride + p * PANEL, stride);
    }
    if (r < rows) {
        shape_tiles(TILE / 2, bytes);
        for (int p = 0; p < panels; p++)
            tile_int8(TILE / 2, m, x, row + r, rows - r, panel + p, sums + r * stride + p * PANEL, stride);
    }
}

void tiles_rest(void) {
    if (shaped) _tile_release();
    shaped = 0;
}

/* Asks the system for the right to use tiles (Linux 5.16 and later). */
EXPORT int tiles_allowed(void) {
    return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}

#else

void tiles_rest(void) {}

EXPORT int tiles_allowed(void) { return 1; }

#endif

/* Rows from which tiles of int8 are faster than vectors. */
#define WORTH_TILES 4

Panels *kernel_for(int64_t kind, int64_t rows) {
#if defined(__AMX_INT8__) && defined(__AMX_BF16__)
    if (kind == BFLOAT16) return tiles_bfloat16;
    if (kind == INT8 && rows >= WORTH_TILES) return tiles_int8;
#elif defined(HAS_MMLA)
    if (kind == BFLOAT16 && rows > 1) return mmla_bfloat16;
    if (kind == INT8 && rows > 1) return mmla_int8;
#endif
    (void)rows;
    Panels *known[] = {panels_float32, panels_float16, panels_bfloat16, panels_int8, panels_int4};
    return known[kind];
}
