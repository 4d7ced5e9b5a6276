/* The loss of the next token and its slope. */
#ifndef NUM

#include "vector.h"

#define EACH "loss.c"
#include "each_type.h"

#else

/* Logits [rows, columns] become the slope of the summed cross-entropy, in place; loss[row] in nats.
 * A target outside 0 … columns - 1 counts nothing: no loss, no slope. */
void FN(cross_entropy)(NUM *logits, const int64_t *targets, float *loss, int64_t rows, int64_t columns, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        NUM *line = logits + row * columns;
        int64_t target = targets[row];
        if (target < 0 || target >= columns) {
            memset(line, 0, (size_t)columns * sizeof(NUM));
            loss[row] = 0.0f;
            continue;
        }
        float chosen = GET(line[target]);
        v16 highest = all16(chosen), sums = {0};
        EACH_VECTOR(i, columns, {
            v16 x = GET16(line + i, n);
            highest = larger16(n < 16 ? choose16(between16(0, n - 1), x, all16(-INFINITY)) : x, highest);
        });
        float most = max16(highest);
        EACH_VECTOR(i, columns, {
            v16 power = exp16(GET16(line + i, n) - most);
            sums += n < 16 ? choose16(between16(0, n - 1), power, all16(0.0f)) : power;
        });
        float sum = sum16(sums), factor = 1.0f / sum;
        loss[row] = logf(sum) + most - chosen;
        EACH_VECTOR(i, columns, PUT16(line + i, exp16(GET16(line + i, n) - most) * factor, n););
        line[target] = PUT(fast_exp(chosen - most) * factor - 1.0f);
    }
}

#endif
