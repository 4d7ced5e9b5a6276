/* The loss of the next token and its slope. */
#ifndef NUM

#include "numbers.h"

#define EACH "loss.c"
#include "each_type.h"

#else

/* Logits [rows, columns] become the slope of the summed cross-entropy, in place; loss[row] in nats.
 * A negative target counts nothing: no loss, no slope. */
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
        float most = -INFINITY, sum = 0.0f, chosen = GET(line[target]);
#pragma omp simd reduction(max : most)
        for (int64_t i = 0; i < columns; i++) most = GET(line[i]) > most ? GET(line[i]) : most;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < columns; i++) sum += fast_exp(GET(line[i]) - most);
        loss[row] = logf(sum) + most - chosen;
        float factor = 1.0f / sum;
#pragma omp simd
        for (int64_t i = 0; i < columns; i++) line[i] = PUT(fast_exp(GET(line[i]) - most) * factor);
        line[target] = PUT(fast_exp(chosen - most) * factor - 1.0f);
    }
}

#endif
