/* How fast memory can be read here, by the means that the products use: what their speed is held against. */
#include "infer.h"

#include <stdlib.h>
#include <time.h>

#define PIECE (1 << 20)

typedef struct {
    const char *memory;
    _Atomic int32_t sink; /* so that the reading cannot be left out */
} ReadJob;

static void read_work(void *context, int64_t begin, int64_t end, int thread) {
    (void)thread;
    ReadJob *job = context;
    ipart sums[4][PARTS] = {0};
    const char *from = job->memory + begin * PIECE;
    int64_t quarter = (end - begin) * PIECE / 4;
    for (int64_t at = 0; at < quarter; at += 64)
        for (int part = 0; part < 4; part++) {
            __builtin_prefetch(from + part * quarter + at + 8192, 0, 3);
            for (int v = 0; v < PARTS; v++) sums[part][v] += load_i(from + part * quarter + at + v * WIDTH);
        }
    int32_t sum = 0;
    for (int part = 0; part < 4; part++)
        for (int v = 0; v < PARTS; v++) sum += sums[part][v][0];
    job->sink += sum;
}

static double seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* The best of `rounds` rates of reading `bytes` (whole mebibytes), in bytes per second; 0 where there is no memory. */
EXPORT double read_rate(int64_t bytes, int threads, int rounds) {
    Pool *pool = pool_new(threads);
    char *memory = aligned_alloc(64, (size_t)bytes);
    double best = 0;
    if (pool && memory) {
        memset(memory, 1, (size_t)bytes);
        ReadJob job = {memory, 0};
        for (int round = 0; round < rounds; round++) {
            double start = seconds();
            pool_run(pool, bytes / PIECE, read_work, &job);
            double rate = (double)bytes / (seconds() - start);
            best = rate > best ? rate : best;
        }
    }
    free(memory);
    pool_free(pool);
    return best;
}
