/* One layer's attention as a job for the pool. */
#ifndef CHATSMITH_INFER_ATTEND_H
#define CHATSMITH_INFER_ATTEND_H

#include "infer.h"

#define TILE_QUERIES 32

typedef struct {
    const Decoder *decoder;
    const Step *step;
    Pool *pool;
    int64_t layer, stride, tile_rows;
    float *qkv, *mixed;
    Input queries; /* [kv_heads][rows][heads / kv_heads][head_dim, filled up] */
    int clears, places, attends; /* what is done this time */
} AttendJob;

#endif
