/* The cache of keys and values: where a position lies in it, and how it is written.
 *
 * In int8 each key and each value has a scale of its own, in bfloat16. A key's scale belongs to an output of the matrix
 * of keys, as a weight's does. A value's belongs to a place of the depth: it is multiplied into the weight of
 * attention. */
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

/* Numbers that lie side by side in a word. */
INLINE int per_word(const Decoder *d) { return d->cache == FLOAT32 ? 1 : d->cache == BFLOAT16 ? 2 : 4; }

/* The first `n` of sixteen numbers as the cache keeps them, each in the lower bits of a word; zeros for the others. The
 * rounding is that of `put_bf16` and rintf. */
INLINE u16 rounded(const Decoder *d, const float *x, int64_t n, float turn) {
    v16 some = n > 0 ? get16_float(x, n) : all16(0.0f);
    u16 bits = (u16)some;
    if (d->cache == FLOAT32) return bits;
    if (d->cache == BFLOAT16) return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (u16)(some * turn + 12582912.0f) & 255; /* adding 1.5 * 2^23 leaves the whole number in the lowest bits */
}

/* The first `n` numbers of a row as sixteen words. */
INLINE u16 words_of(const Decoder *d, const float *x, int64_t n, float turn) {
    if (d->cache == FLOAT32) return rounded(d, x, n, turn);
    u16 words;
    if (d->cache == BFLOAT16) {
        h16 halves[2];
        for (int j = 0; j < 2; j++) halves[j] = __builtin_convertvector(rounded(d, x + 16 * j, n - 16 * j, turn), h16);
        memcpy(&words, halves, 64);
    } else {
        c16 bytes[4];
        for (int j = 0; j < 4; j++) bytes[j] = __builtin_convertvector(rounded(d, x + 16 * j, n - 16 * j, turn), c16);
        memcpy(&words, bytes, 64);
    }
    return words;
}

/* Up to sixteen keys, `apart` numbers from one to the next, to the lanes of a panel from `lane` on. A panel that is
 * written whole is turned round in registers. */
INLINE void store_panel(const Decoder *d, Held to, int64_t slot, const float *x, int64_t apart, int rows) {
    int64_t dim = padded_dim(d), side = per_word(d), lane = slot % PANEL;
    uint32_t *at = (uint32_t *)to.keys + slot / PANEL * dim / side * PANEL, one[16];
    float turn[PANEL] = {0};
    if (d->cache == INT8)
        for (int r = 0; r < rows; r++) turn[r] = turn_of(to.key_scale[slot + r] = step_of(x + r * apart, d->head_dim));
    for (int64_t i = 0; i < dim; i += 16 * side, at += 16 * PANEL) {
        int count = dim - i < 16 * side ? (int)((dim - i) / side) : 16;
        u16 words[PANEL];
        for (int r = 0; r < rows; r++) words[r] = words_of(d, x + r * apart + i, d->head_dim - i, turn[r]);
        if (rows == PANEL) {
            turn_round(words);
            for (int w = 0; w < count; w++) memcpy(at + w * PANEL, &words[w], 64);
            continue;
        }
        for (int r = 0; r < rows; r++) {
            memcpy(one, &words[r], 64);
            for (int w = 0; w < count; w++) at[w * PANEL + lane + r] = one[w];
        }
    }
}

/* The keys of `rows` positions of a block, `apart` numbers from one to the next: with the position as the lane, and
 * what is side by side in a word numbers of the head. A head is filled up to whole tiles. */
void store_keys(const Decoder *d, Held to, int64_t slot, const float *x, int64_t apart, int64_t rows) {
    for (int64_t end = slot + rows, some; slot < end; slot += some, x += some * apart) {
        some = PANEL - slot % PANEL;
        if (some > end - slot) some = end - slot;
        if (some == PANEL)
            store_panel(d, to, slot, x, apart, PANEL);
        else
            store_panel(d, to, slot, x, apart, (int)some);
    }
}

/* Their values: with the position as the depth, and side by side in a word positions. */
void store_values(const Decoder *d, Held to, int64_t slot, const float *x, int64_t apart, int64_t rows) {
    int side = per_word(d), bits = 32 / side;
    uint32_t mask = 0xffffffffu >> (32 - bits);
    for (int64_t end = slot + rows, some; slot < end; slot += some, x += some * apart) {
        some = side - slot % side;
        if (some > end - slot) some = end - slot;
        float turn[4] = {0};
        if (d->cache == INT8)
            for (int64_t r = 0; r < some; r++)
                turn[r] = turn_of(to.value_scale[slot + r] = step_of(x + r * apart, d->head_dim));
        for (int64_t i = 0; i < d->head_dim; i += PANEL) {
            uint32_t *at = (uint32_t *)to.values + i * BLOCK / side + slot / side * PANEL;
            u16 line;
            memcpy(&line, at, 64);
            for (int64_t r = 0; r < some; r++) {
                int shift = bits * (int)((slot + r) % side);
                line = (line & ~(mask << shift)) | rounded(d, x + r * apart + i, d->head_dim - i, turn[r]) << shift;
            }
            memcpy(at, &line, 64);
        }
    }
}
