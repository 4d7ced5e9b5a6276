/* What the files that multiply share, once per type: how a tile of the result begins and ends, and the functions of
 * tile.c. */

/* What a tile of the result starts from and how it ends. */
typedef struct {
    NUM *c;
    const NUM *bias, *add;
    float *sums;
    int64_t stride;
    int first, last;
} FN(Out);

/* Rows of the result that `tiles` makes at once, and how a left operand that `pack_left` has packed lies: bytes from
 * row to row, and from word to word of the sum. */
#undef ROWS
#undef LEFT_ROW
#undef LEFT_STEP
#if defined(HAS_TILES) && !IS_FLOAT
#define ROWS TILE_ROWS
#define LEFT_ROW(words) (WHOLE(words) * 4 + 64)
#define LEFT_STEP 4
#else
#define ROWS VECTOR_ROWS
#define LEFT_ROW(words) 4
#define LEFT_STEP (ROWS * 4)
#endif

void FN(pack_across)(const NUM *from, int64_t stride, int64_t width, int64_t depth, uint32_t *to);
void FN(pack_left)(const NUM *from, int64_t stride, int rows, int64_t depth, uint32_t *to);
void FN(tiles)(int rows, bytes a, int64_t row, int64_t step, const uint32_t *b, int64_t depth, const FN(Out) * out,
               int64_t at, __mmask16 left, __mmask16 right, int64_t column);
