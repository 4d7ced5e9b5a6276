/* One layer's attention as a job for the pool. */
#ifndef CHATSMITH_INFER_ATTEND_H
#define CHATSMITH_INFER_ATTEND_H

#include "infer.h"

#define TILE_QUERIES 32

/* The keys and values of one head of one layer in a block. */
typedef struct {
    char *keys, *values;
    bf16 *key_scale, *value_scale; /* int8: of each position */
} Held;

typedef struct {
    const Decoder *decoder;
    const Step *step;
    Pool *pool;
    int64_t layer, stride, tile_rows;
    float *qkv;
    Output mixed;
    Input queries; /* [kv_heads][rows][heads / kv_heads][head_dim, filled up] */
    int places, attends; /* what is done this time */
} AttendJob;

Held held_at(const AttendJob *job, int64_t sequence, int64_t position, int64_t head);
void store_keys(const Decoder *d, Held to, int64_t slot, const float *x, int64_t apart, int64_t rows);
void store_values(const Decoder *d, Held to, int64_t slot, const float *x, int64_t apart, int64_t rows);

#endif
