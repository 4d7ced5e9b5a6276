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

void FN(pack_across)(const NUM *from, int64_t stride, int64_t width, int64_t depth, uint32_t *to, int span);
void FN(tiles)(int rows, bytes a, int64_t row, int64_t step, const uint32_t *b, int64_t depth, const FN(Out) * out,
               int64_t at, __mmask16 left, __mmask16 right, int64_t column);
