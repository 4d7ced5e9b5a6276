/* One thread's part of a product of matrices, in blocks that fit the second-level cache; included once per type. */

/* Rows m0 to m1 and columns n0 to n1 of the result, by one thread; with `lower`, only its tiles on and below the
 * diagonal. Where out.first is 0 the sums go on from out.sums, where out.last is 0 they stay there. */
static void FN(gemm_part)(int kind, int lower, const NUM *a, const NUM *b, FN(Out) out, int64_t m0, int64_t m1,
                          int64_t n0, int64_t n1, int64_t k, int64_t a_stride, int64_t b_stride, char *scratch) {
    uint32_t *right = (uint32_t *)scratch, *left = (uint32_t *)(scratch + PACKED);
    /* The left operand of `weights` is packed anew for each block of columns: shallow blocks are wide ones. */
    int64_t most = (kind == WEIGHTS && out.sums ? SHALLOW : DEPTH) * PER_WORD;
    int begin = out.first, end = out.last;
    if (!IS_FLOAT) tiles_on();
    for (int64_t k0 = 0; k0 < k; k0 += most) {
        int64_t numbers = k - k0 < most ? k - k0 : most;
        int64_t depth = (numbers + PER_WORD - 1) / PER_WORD, room = WHOLE(depth);
        out.first = begin && k0 == 0, out.last = end && k0 + numbers == k;
        int64_t panels = (n1 - n0 + COLUMNS - 1) / COLUMNS, room_for = PACKED / 4 / room / COLUMNS;
        int64_t blocks = (panels + room_for - 1) / room_for; /* of equal size: a small one would read all of a again */
        int64_t block = blocks ? (panels + blocks - 1) / blocks * COLUMNS : COLUMNS;
        for (int64_t from = n0; from < n1; from += block) {
            int64_t to = from + block < n1 ? from + block : n1;
            for (int64_t n = from; n < to; n += COLUMNS) {
                uint32_t *panel = right + (n - from) * room;
                int64_t width = to - n < COLUMNS ? to - n : COLUMNS;
                if (kind == FORWARD)
                    pack_along((bytes)(b + n * b_stride + k0), b_stride * (int64_t)sizeof(NUM), width, depth, panel);
                else
                    FN(pack_across)(b + k0 * b_stride + n, b_stride, width, numbers, panel);
            }
            for (int64_t m = m0; m < m1; m += ROWS) {
                int rows = m1 - m < ROWS ? (int)(m1 - m) : ROWS;
                bytes words = (bytes)(a + m * a_stride + k0);
                int64_t row = a_stride * (int64_t)sizeof(NUM), step = 4;
                if (kind == WEIGHTS) {
                    FN(pack_left)(a + k0 * a_stride + m, a_stride, rows, numbers, left);
                    words = (bytes)left, row = LEFT_ROW(depth), step = LEFT_STEP;
                } else if (row % 2048 == 0 && to - from > COLUMNS) {
                    /* rows so far apart would share a few lines of the first cache */
                    int64_t apart = depth * 4 + 64;
                    for (int r = 0; r < rows; r++)
                        memcpy((char *)left + r * apart, words + r * row, (size_t)depth * 4);
                    words = (bytes)left, row = apart;
                }
                int64_t right_end = lower && m + rows < to ? m + rows : to;
                for (int64_t n = from; n < right_end; n += COLUMNS)
                    FN(tiles)(rows, words, row, step, right + (n - from) * room, depth, &out, m * out.stride + n,
                              mask_below(to - n), mask_below(to - n - 16), n);
            }
        }
    }
    if (!IS_FLOAT) tiles_off();
}
