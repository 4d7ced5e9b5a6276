/* Attention over the blocks of the cache, with the running maximum of online softmax (Milakov and Gimelshein 2018).
 *
 * Scores and mixtures are products of panels like any other: a block's keys are a matrix of BLOCK outputs, its values
 * one of depth BLOCK. A query goes through the positions in strides, in order, each as a whole, and a block of one that
 * it does not see changes nothing: so its result does not depend on where a prompt was cut, nor on who shares its
 * tile. */
#include "attend.h"

#include "../vector.h"

#define BLOCKS 4 /* of a stride: between two of them sums so far meet a new maximum */
#define STRIDE (BLOCKS * BLOCK)
#define UNSEEN -1e30f
#define AHEAD 4 /* rows */

static int64_t group_of(const Decoder *d) { return d->heads / d->kv_heads; }

/* Rows of one sequence that attend together: 32 queries or one row's. */
static int64_t tile_rows(const Decoder *d) {
    int64_t rows = TILE_QUERIES / group_of(d);
    return rows > 0 ? rows : 1;
}

static int64_t tile_queries(const Decoder *d) { return round_up(tile_rows(d) * group_of(d), 16); }

int64_t attend_scratch(const Decoder *d) {
    int64_t queries = tile_queries(d), dim = padded_dim(d);
    return (queries * (2 * dim + 2 * STRIDE + 2 * BLOCKS + 16) + dim) * 4;
}

/* ---- new keys, values and queries -------------------------------------------------------------------------------- */

/* Llama's layout: number i of a head and number i + D/2 make a pair (Su et al. 2021). */
static void turn(float *x, const float *cosine, const float *sine, int64_t dim) {
    int64_t half = dim / 2;
    EACH_16(i, half, float first = x[i], second = x[i + half]; x[i] = first * cosine[i] - second * sine[i];
            x[i + half] = second * cosine[i] + first * sine[i];);
}

static void norm_and_turn(const AttendJob *job, float *x, const float *gain, int64_t position) {
    const Decoder *d = job->decoder;
    int64_t at = position * d->head_dim / 2;
    if (gain) norm_head(x, gain, x, d->head_dim, (float)d->epsilon);
    if (d->cosine) turn(x, d->cosine + at, d->sine + at, d->head_dim);
}

/* A query as the cache's numbers want it, filled up with zeros. */
static void place_query(const AttendJob *job, int64_t to, const float *query, float *whole) {
    const Decoder *d = job->decoder;
    const Input *in = &job->queries;
    int64_t dim = d->head_dim, wide = padded_dim(d);
    float factor = 1.0f / sqrtf((float)dim);
    if (in->halves) {
        bf16 *halves = in->halves + to * in->line;
        EACH_VECTOR(i, dim, put16_bf16(halves + i, get16_float(query + i, n) * factor, n););
        for (int64_t i = dim; i < wide; i++) halves[i] = 0;
        return;
    }
    float *floats = in->bytes ? whole : in->floats + to * in->line;
    for (int64_t i = 0; i < dim; i++) floats[i] = query[i] * factor;
    for (int64_t i = dim; i < wide; i++) floats[i] = 0;
    if (in->bytes) quantise_row(whole, wide, wide, wide, in->bytes + to * in->line, in->scale + to, in->sums + to);
}

/* Asks for what `place_rows` will read: a head's part of a row lies too far from the next row's to be foreseen. */
static void fetch_row(const AttendJob *job, int64_t row, int64_t head) {
    const Decoder *d = job->decoder;
    int64_t dim = d->head_dim, group = group_of(d);
    const float *qkv = job->qkv + row * job->stride, *key = qkv + (d->heads + head) * dim;
    const float *value = key + d->kv_heads * dim;
    for (int64_t i = 0; i < group * dim; i += 16) __builtin_prefetch(qkv + head * group * dim + i, 1);
    for (int64_t i = 0; i < dim; i += 16) __builtin_prefetch(key + i, 1), __builtin_prefetch(value + i, 0);
}

/* Rows and one key/value head: their queries to where `attend_tile` wants them, their keys and values to the cache. */
static void place_rows(const AttendJob *job, int64_t sequence, int64_t row, int64_t rows, int64_t head,
                       float *scratch) {
    const Decoder *d = job->decoder;
    const Layer *layer = &d->layer[job->layer];
    int64_t dim = d->head_dim, group = group_of(d), end = row + rows;
    for (int64_t r = row; r < end; r++) {
        int64_t position = job->step->positions[r];
        float *qkv = job->qkv + r * job->stride;
        if (r + AHEAD < end) fetch_row(job, r + AHEAD, head);
        norm_and_turn(job, qkv + (d->heads + head) * dim, layer->key_gain, position);
        for (int64_t g = 0; g < group; g++) {
            float *query = qkv + (head * group + g) * dim;
            norm_and_turn(job, query, layer->query_gain, position);
            place_query(job, (head * job->step->rows + r) * group + g, query, scratch);
        }
    }
    for (int64_t r = row, some; r < end; r += some) {
        int64_t position = job->step->positions[r], slot = position % BLOCK;
        float *key = job->qkv + r * job->stride + (d->heads + head) * dim, *value = key + d->kv_heads * dim;
        Held held = held_at(job, sequence, position, head);
        some = BLOCK - slot < end - r ? BLOCK - slot : end - r;
        /* A block that is begun is emptied: what an earlier owner left is multiplied by zero, so it must be finite. */
        if (slot == 0) memset(held.keys, 0, (size_t)(2 * head_bytes(d)));
        store_keys(d, held, slot, key, job->stride, some);
        store_values(d, held, slot, value, job->stride, some);
    }
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* One query meets the blocks of a stride, `apart` numbers from one to the next: scores to weights. Returns what its
 * sums so far are to be multiplied by. */
static float soften(float *scores, int blocks, int64_t apart, int64_t from, int64_t first, int64_t last, float *most,
                    float *weight) {
    v16 largest = all16(*most), sums = all16(0.0f);
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < BLOCK; i += 16) {
            float *at = scores + b * apart + i;
            int64_t low = first - from - b * BLOCK - i, high = last - from - b * BLOCK - i;
            v16 x = get16_float(at, 16);
            if (low > 0 || high < 15) put16_float(at, x = choose16(between16(low, high), x, all16(UNSEEN)), 16);
            largest = larger16(x, largest);
        }
    float now = max16(largest);
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t i = 0; i < BLOCK; i += 16) {
            float *at = scores + b * apart + i;
            int64_t low = first - from - b * BLOCK - i, high = last - from - b * BLOCK - i;
            v16 p = exp16(get16_float(at, 16) - now);
            if (low > 0 || high < 15) p = choose16(between16(low, high), p, all16(0.0f)); /* `now` may be UNSEEN too */
            put16_float(at, p, 16);
            sums += p;
        }
    float scale = *most == now ? 1.0f : fast_exp(*most - now);
    *weight = *weight * scale + sum16(sums);
    *most = now;
    return scale;
}

/* The weights of one query in a block as the values want them. In int8 they take the scales of the values along. */
static void place_weights(Input *to, int64_t query, float *weights, const bf16 *scale) {
    if (to->halves) {
        EACH_VECTOR(i, BLOCK, put16_bf16(to->halves + query * BLOCK + i, get16_float(weights + i, n), n););
    } else if (to->bytes) {
        EACH_VECTOR(i, BLOCK, put16_float(weights + i, get16_float(weights + i, n) * get16_bf16(scale + i, n), n););
        quantise_row(weights, BLOCK, BLOCK, BLOCK, to->bytes + query * BLOCK, to->scale + query, to->sums + query);
    } else {
        memcpy(to->floats + query * BLOCK, weights, BLOCK * 4);
    }
}

/* The products of `queries` rows of `in`, from row `at` on, and one block: MOST_ROWS at a time. */
INLINE void rows_by_block(Panels *kernel, const Matrix *block, const Input *in, int64_t at, int64_t queries,
                          float *to) {
    int64_t wide = block->outputs;
    for (int64_t q = 0; q < queries; q += MOST_ROWS) {
        int some = queries - q < MOST_ROWS ? (int)(queries - q) : MOST_ROWS;
        kernel(block, in, at + q, some, 0, (int)(wide / PANEL), to + q * wide);
    }
}

/* Rows `row` to `row + rows` of a sequence, for one key/value head, to job->mixed. */
static void attend_tile(AttendJob *job, int64_t sequence, int64_t row, int64_t rows, int64_t head, float *scratch) {
    const Decoder *d = job->decoder;
    const Step *step = job->step;
    int64_t dim = padded_dim(d), group = group_of(d), queries = rows * group, held = tile_queries(d);
    int64_t band = d->layer[job->layer].band, apart = held * BLOCK;
    float *acc = scratch, *mixture = acc + held * dim, *scores = mixture + held * dim;
    float *most = scores + held * STRIDE, *weight = most + held, *scale = weight + held, *floats = scale + held;
    bf16 *ones = (bf16 *)(floats + held * (STRIDE + 2 * BLOCKS)); /* the scales of values are in the weights already */
    Input in = job->queries;
    Input weights = {.rows = BLOCKS * held, .depth = BLOCK, .line = BLOCK, .group = BLOCK, .span = BLOCK};
    if (in.halves)
        weights.halves = (bf16 *)floats;
    else if (in.bytes)
        weights.scale = floats, weights.sums = (int32_t *)floats + BLOCKS * held,
        weights.bytes = (int8_t *)(floats + 2 * BLOCKS * held);
    else
        weights.floats = floats;
    for (int64_t i = 0; i < dim; i++) ones[i] = 0x3f80;
    int64_t at = (head * step->rows + row) * group;
    Panels *kernel = kernel_for(d->cache, queries);
    memset(acc, 0, (size_t)(queries * dim) * 4);
    for (int64_t q = 0; q < queries; q++) most[q] = UNSEEN, weight[q] = 0.0f;
    int64_t low = first_seen(band, step->positions[row]) / BLOCK * BLOCK, high = step->positions[row + rows - 1];
    for (int64_t from = low, next; from <= high; from = next) {
        next = from / STRIDE * STRIDE + STRIDE; /* strides begin at the same positions for everyone */
        int blocks = (int)((next <= high ? next - from : high - from + BLOCK) / BLOCK);
        Held block[BLOCKS];
        for (int b = 0; b < blocks; b++) {
            block[b] = held_at(job, sequence, from + b * BLOCK, head);
            Matrix key = {.kind = d->cache, .outputs = BLOCK, .depth = dim, .group = dim, .weight = block[b].keys};
            key.scale = block[b].key_scale;
            rows_by_block(kernel, &key, &in, at, queries, scores + b * apart);
        }
        for (int64_t q = 0; q < queries; q++) {
            int64_t position = step->positions[row + q / group], first = first_seen(band, position);
            scale[q] = soften(scores + q * BLOCK, blocks, apart, from, first, position, &most[q], &weight[q]);
            for (int b = 0; b < blocks; b++)
                place_weights(&weights, b * held + q, scores + b * apart + q * BLOCK, block[b].value_scale);
        }
        for (int b = 0; b < blocks; b++) {
            Matrix value = {.kind = d->cache, .outputs = dim, .depth = BLOCK, .group = BLOCK};
            value.weight = block[b].values, value.scale = ones;
            rows_by_block(kernel, &value, &weights, b * held, queries, mixture);
            for (int64_t q = 0; q < queries; q++) {
                float *sums = acc + q * dim, *more = mixture + q * dim, old = b ? 1.0f : scale[q];
                EACH_VECTOR(i, dim, {
                    put16_float(sums + i, get16_float(sums + i, n) * old + get16_float(more + i, n), n);
                });
            }
        }
    }
    for (int64_t q = 0; q < queries; q++) {
        int64_t to = (row + q / group) * job->mixed.stride + (head * group + q % group) * d->head_dim;
        const float *sums = acc + q * dim, turn = 1.0f / weight[q];
        EACH_VECTOR(i, d->head_dim, v16 mean = get16_float(sums + i, n) * turn;
                    if (job->mixed.halves) put16_bf16(job->mixed.halves + to + i, mean, n);
                    else put16_float(job->mixed.y + to + i, mean, n););
    }
}

/* ---- the pieces -------------------------------------------------------------------------------------------------- */

/* Pieces count tiles of every sequence, or the blocks of the cache that its rows go to, with the heads innermost: a
 * block that is begun is emptied and filled by one thread. Finds the rows of a piece. */
static void find_rows(const AttendJob *job, int64_t piece, int64_t *sequence, int64_t *row, int64_t *rows) {
    for (int64_t s = 0;; s++) {
        int64_t begin = job->step->starts[s], end = job->step->starts[s + 1];
        int64_t before = job->attends ? 0 : job->step->positions[begin] % BLOCK;
        int64_t size = job->attends ? job->tile_rows : BLOCK;
        int64_t count = (before + end - begin + size - 1) / size;
        if (piece < count) {
            int64_t last = begin - before + (piece + 1) * size;
            *sequence = s, *row = piece ? last - size : begin;
            *rows = (last < end ? last : end) - *row;
            return;
        }
        piece -= count;
    }
}

static void attend_work(void *context, int64_t begin, int64_t end, int thread) {
    AttendJob *job = context;
    int64_t heads = job->decoder->kv_heads, sequence, row, rows;
    float *scratch = pool_scratch(job->pool, thread);
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t head = piece % heads;
        find_rows(job, piece / heads, &sequence, &row, &rows);
        if (job->places) place_rows(job, sequence, row, rows, head, scratch);
        if (job->attends) attend_tile(job, sequence, row, rows, head, scratch);
    }
}

/* qkv [rows][(heads + 2 kv_heads) head_dim] to mixed [rows][heads * head_dim]; `queries` has memory for all of them. */
void attend(Pool *pool, const Decoder *d, const Step *step, int64_t layer, float *qkv, Output mixed, Input queries) {
    AttendJob job = {.decoder = d, .step = step, .layer = layer, .qkv = qkv, .mixed = mixed, .queries = queries};
    job.pool = pool, job.stride = (d->heads + 2 * d->kv_heads) * d->head_dim, job.tile_rows = tile_rows(d);
    job.queries.depth = job.queries.line = job.queries.group = padded_dim(d);
    int64_t tiles = 0, blocks = 0, longest = 0;
    for (int64_t s = 0; s < step->sequences; s++) {
        int64_t rows = step->starts[s + 1] - step->starts[s];
        tiles += (rows + job.tile_rows - 1) / job.tile_rows;
        blocks += (step->positions[step->starts[s]] % BLOCK + rows + BLOCK - 1) / BLOCK;
        longest = rows > longest ? rows : longest;
    }
    job.places = job.attends = longest <= job.tile_rows; /* no tile waits for another's keys: all at once */
    if (!job.attends) {
        job.places = 1;
        pool_run(pool, blocks * d->kv_heads, attend_work, &job);
        job.places = 0, job.attends = 1;
    }
    pool_run(pool, tiles * d->kv_heads, attend_work, &job);
}
