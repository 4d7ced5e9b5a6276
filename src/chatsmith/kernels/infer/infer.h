/* What the files of this folder share: the shapes of a decoder in memory, and who offers which step.
 *
 * Weights lie in panels of 16 outputs; within a panel the sum runs outermost, and a vector's lanes are the outputs:
 *
 *     float32, float16   [outputs / 16][depth][16]
 *     bfloat16           [outputs / 16][depth / 2][16][2]
 *     int8               [outputs / 16][depth / 4][16][4]           scale [outputs / 16][depth / group][16] in bfloat16
 *     int4               [outputs / 16][depth / 8][16][4]           in a byte the lower half is k, the upper k + 4
 *
 * int4 may have factors, [outputs / 16][depth / 32][16] in int8 from -15 to 15: (n - 8) * factor is then an int8, and
 * so a group's sum of products whole, whether they are multiplied out first (many rows) or 32 are summed at a time
 * (one).
 *
 * Matrix tiles (AMX), dot products of bytes (VNNI, NEON) and plain vectors all read this order as it lies in the file.
 * Outputs are filled up to whole panels and the depth to whole groups, with zeros. */
#ifndef CHATSMITH_INFER_H
#define CHATSMITH_INFER_H

#include "pool.h"
#include "simd.h"

enum { FLOAT32, FLOAT16, BFLOAT16, INT8, INT4 };
enum { PLAIN, GELU_TANH, GELU, SWIGLU };

typedef struct {
    int64_t kind, outputs, inputs, depth, group;
    const void *weight;
    const bf16 *scale;
    const uint8_t *zero; /* int4: what stands for 0, [outputs / 16][depth / group][16]; NULL means 8 everywhere */
    const int8_t *factor; /* int4: NULL means 1 everywhere */
    const float *bias;
} Matrix;

/* Sixteen lanes become one, by halves: four steps in place of fifteen. They are used up. */
INLINE float largest_lane(float *lanes) {
#pragma GCC unroll 4
    for (int half = 8; half; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++) lanes[i] = lanes[i + half] > lanes[i] ? lanes[i + half] : lanes[i];
    return lanes[0];
}

/* Rows as a matrix of some kind wants them: in float32, rounded to bfloat16, or in int8 with a scale per group. */
typedef struct {
    int64_t rows, depth, group, span;
    int64_t line; /* numbers from row to row, so that rows do not share a few cache sets */
    float *floats;
    bf16 *halves;
    int8_t *bytes;
    float *scale;  /* [rows][depth / group] */
    int32_t *sums; /* of `span` bytes each: a group, or a part of one */
} Input;

#define SPAN 32 /* weights that share a factor */

typedef struct {
    const float *gain, *bias; /* without a bias: root-mean-square norm */
} Norm;

/* Rows to be made ready for a product, `stride` floats from one to the next, through a norm where there is one. */
typedef struct {
    const float *x;
    int64_t stride, rows;
    const Norm *norm;
    float epsilon;
} Rows;

/* What becomes of a product: y = act(sums + bias) + add, or rounded to `halves` in place of y, where the next product
 * wants it so. SWIGLU takes panels in pairs, gate and up. */
typedef struct {
    float *y;
    bf16 *halves;
    const float *add; /* may be y itself */
    int64_t stride, columns; /* columns: of y, which has no more */
    int act;
} Output;

int64_t round_up(int64_t count, int64_t multiple);
int64_t line_of(int64_t kind, int64_t depth);
int wants(int64_t kind); /* FLOAT32, BFLOAT16 or INT8: how a matrix of this kind wants its input */
void expect(const Matrix *matrix, int64_t rows, Input *input);
void prepare(Pool *pool, const Matrix *matrix, Rows from, Input *input);
void quantise_row(const float *x, int64_t depth, int64_t group, int64_t span, int8_t *bytes, float *scale,
                  int32_t *sums);
void multiply(Pool *pool, const Matrix *matrix, const Input *input, Output output);
void matrix_row(const Matrix *matrix, int64_t row, float *out);

/* Sums of up to MOST_ROWS rows and `panels` panels from `panel` on, to sums[row][panels * 16]. */
#define MOST_ROWS 64
#define STRIP 4
typedef void Panels(const Matrix *m, const Input *x, int64_t row, int rows, int64_t panel, int panels, float *sums);
Panels panels_float32, panels_float16, panels_bfloat16, panels_int8, panels_int4;
#if defined(__ARM_FEATURE_MATMUL_INT8) && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define HAS_MMLA
Panels mmla_bfloat16, mmla_int8;
#endif
Panels *kernel_for(int64_t kind, int64_t rows);
int tiles_allowed(void);
void tiles_rest(void); /* gives this thread's tiles back: other code on it may shape them differently */

int64_t multiply_scratch(int64_t depth); /* bytes that `multiply` wants of each thread */

typedef struct {
    Norm attention_norm, ffn_norm;
    const float *query_gain, *key_gain;
    Matrix qkv, output, up, down;
    int64_t band; /* positions a query sees, 0: all */
} Layer;

typedef struct {
    int64_t width, layers, heads, kv_heads, head_dim, ffn_width, vocabulary, context, activation;
    int64_t cache; /* the kind of the keys and values */
    int64_t blocks;
    int64_t groups; /* of layers, which take turns: each group has tables of its own */
    double epsilon;
    const float *cosine, *sine; /* [context][head_dim / 2], or NULL */
    Matrix embed, positions, head;
    Norm norm;
    const Layer *layer;
} Decoder;

/* One pass: rows of several sequences, each at the next positions of its own. */
typedef struct {
    int64_t rows, sequences, wanted, table_stride;
    const int32_t *ids, *positions, *starts, *tables, *want; /* tables [groups][sequences][table_stride] */
    float *logits, *states; /* of the wanted rows; one of them is NULL */
    char *cache;
} Step;

/* The cache is a row of blocks of BLOCK positions. A block serves one group of layers and holds, for each of its layers
 * and key/value heads, the keys as a panel matrix with the positions as outputs, and the values as one with the
 * positions as depth. */
#define BLOCK 32
int64_t block_bytes(const Decoder *d);
int64_t first_seen(int64_t band, int64_t position); /* the first position that a query sees */
int64_t head_bytes(const Decoder *d); /* of the keys, or the values, of one head of one layer in a block */
int64_t padded_dim(const Decoder *d); /* head_dim filled up to whole tiles */
int64_t attend_scratch(const Decoder *d);
void attend(Pool *pool, const Decoder *d, const Step *step, int64_t layer, float *qkv, Output mixed, Input queries);
void norm_head(const float *x, const float *gain, float *y, int64_t dim, float epsilon);
void norm_rows(Pool *pool, Rows from, float *y, int64_t width);

#endif
