/* The cache of keys and values: where a position lies in it, and how it is written.
 *
 * In int8 each key and each value has a scale of its own, in bfloat16. A key's scale belongs to an output of the matrix of
 * keys, as a weight's does. A value's belongs to a place of the depth: it is multiplied into the weight of attention. */
#include "attend.h"

#include "../vector.h"

/* Whole tiles: a group of int8, here a whole head, is 32 long or a multiple of 64. */
int64_t padded_dim(const Decoder *d) { return round_up(d->head_dim, d->cache == INT8 && d->head_dim > 32 ? 64 : 32); }

int64_t head_bytes(const Decoder *d) {
    int64_t count = padded_dim(d) * BLOCK;
    return d->cache == FLOAT32 ? count * 4 : d->cache == BFLOAT16 ? count * 2 : count + BLOCK * 2;
}

int64_t block_bytes(const Decoder *d) {
    return (d->layers + d->groups - 1) / d->groups * d->kv_heads * 2 * head_bytes(d);
}

int64_t first_seen(int64_t band, int64_t position) { return band && position >= band ? position - band + 1 : 0; }

Held held_at(const AttendJob *job, int64_t sequence, int64_t position, int64_t head) {
    const Decoder *d = job->decoder;
    const Step *step = job->step;
    int64_t table = job->layer % d->groups * step->sequences + sequence, slot = job->layer / d->groups;
    int64_t block = step->tables[table * step->table_stride + position / BLOCK], size = head_bytes(d);
    char *keys = step->cache + block * block_bytes(d) + (slot * d->kv_heads + head) * 2 * size, *values = keys + size;
    return (Held){keys, values, (bf16 *)(values - BLOCK * 2), (bf16 *)(values + size - BLOCK * 2)};
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* What the numbers of a key or a value are to be divided by, as it is kept. */
static bf16 step_of(const float *x, int64_t dim) {
    float largest = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < dim; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    return largest < 1e-30f ? 0 : put_bf16(largest / 127.0f); /* so small that it is nothing */
}

INLINE float turn_of(bf16 step) { return step ? 1.0f / get_bf16(step) : 0.0f; }

/* Sixteen numbers as the cache keeps them, each in the lower bits of a word. The rounding is that of `put_bf16` and rintf. */
INLINE u16 rounded(const Decoder *d, v16 x, float turn) {
    u16 bits = (u16)x;
    if (d->cache == BFLOAT16) return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (u16)(x * turn + 12582912.0f) & 255; /* adding 1.5 * 2^23 leaves the whole number in the lowest bits */
}

/* Keys lie with the position as the lane, values with it as the depth. Halves, or bytes, that lie side by side in a word:
 * for a key numbers of the head, for a value positions. A head is filled up to whole tiles: there is room for sixteen. */
void store_key(const Decoder *d, Held to, int64_t slot, const float *x) {
    int64_t dim = padded_dim(d), panel = slot / PANEL, lane = slot % PANEL;
    if (d->cache == FLOAT32) {
        float *at = (float *)to.keys + panel * dim * PANEL + lane;
        for (int64_t i = 0; i < d->head_dim; i++) at[i * PANEL] = x[i];
        return;
    }
    float turn = d->cache == INT8 ? turn_of(to.key_scale[slot] = step_of(x, d->head_dim)) : 0.0f;
    int side = d->cache == BFLOAT16 ? 2 : 4;
    uint32_t *at = (uint32_t *)to.keys + panel * dim / side * PANEL + lane, words[16];
    for (int64_t i = 0; i < d->head_dim; i += 16, at += 16 / side * PANEL) {
        u16 some = rounded(d, get16_float(x + i, d->head_dim - i), turn);
        memcpy(words, &some, 64);
        for (int w = 0; w < 16 / side; w++) {
            uint32_t word = 0;
            for (int j = 0; j < side; j++) word |= words[w * side + j] << 32 / side * j;
            at[w * PANEL] = word;
        }
    }
}

void store_value(const Decoder *d, Held to, int64_t slot, const float *x) {
    float turn = d->cache == INT8 ? turn_of(to.value_scale[slot] = step_of(x, d->head_dim)) : 0.0f;
    int side = d->cache == BFLOAT16 ? 2 : 4, shift = 32 / side * (int)(slot % side);
    uint32_t mine = (d->cache == BFLOAT16 ? 0xffffu : 0xffu) << shift;
    for (int64_t i = 0; i < d->head_dim; i += PANEL) {
        v16 some = get16_float(x + i, d->head_dim - i);
        if (d->cache == FLOAT32) {
            put16_float((float *)to.values + i * BLOCK + slot * PANEL, some, PANEL);
            continue;
        }
        uint32_t *at = (uint32_t *)to.values + i * BLOCK / side + slot / side * PANEL;
        u16 line;
        memcpy(&line, at, 64);
        line = (line & ~mine) | rounded(d, some, turn) << shift;
        memcpy(at, &line, 64);
    }
}
