/* Attention over the blocks of the cache, with the running maximum of online softmax (Milakov and Gimelshein 2018).
 *
 * Scores and mixtures are products of panels like any other: a block's keys are a matrix of BLOCK outputs, its values one
 * of depth BLOCK. A query goes through the blocks in order, each as a whole, and a block it does not see changes nothing:
 * so its result does not depend on where a prompt was cut, nor on who shares its tile. */
#include "attend.h"

static int64_t group_of(const Decoder *d) { return d->heads / d->kv_heads; }

/* Rows of one sequence that attend together: 32 queries or one row's. */
static int64_t tile_rows(const Decoder *d) {
    int64_t rows = TILE_QUERIES / group_of(d);
    return rows > 0 ? rows : 1;
}

static int64_t tile_queries(const Decoder *d) { return round_up(tile_rows(d) * group_of(d), 16); }

int64_t attend_scratch(const Decoder *d) {
    int64_t queries = tile_queries(d), dim = padded_dim(d);
    return (queries * (2 * dim + 3 * BLOCK + 16) + dim) * 4;
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

/* A block that is begun is emptied: what an earlier owner left there is multiplied by zero, so it must be finite. */
static void clear_block(const AttendJob *job, int64_t sequence, int64_t row, int64_t head) {
    int64_t position = job->step->positions[row];
    if (position % BLOCK) return;
    memset(held_at(job, sequence, position, head).keys, 0, (size_t)(2 * head_bytes(job->decoder)));
}

/* A query as the cache's numbers want it, filled up with zeros. */
static void place_query(const AttendJob *job, int64_t to, const float *query, float *whole) {
    const Decoder *d = job->decoder;
    const Input *in = &job->queries;
    int64_t dim = d->head_dim, wide = padded_dim(d);
    float factor = 1.0f / sqrtf((float)dim);
    if (in->halves) {
        bf16 *halves = in->halves + to * in->line;
        for (int64_t i = 0; i < dim; i++) halves[i] = put_bf16(query[i] * factor);
        for (int64_t i = dim; i < wide; i++) halves[i] = 0;
        return;
    }
    float *floats = in->bytes ? whole : in->floats + to * in->line;
    for (int64_t i = 0; i < dim; i++) floats[i] = query[i] * factor;
    for (int64_t i = dim; i < wide; i++) floats[i] = 0;
    if (in->bytes) quantise_row(whole, wide, wide, in->bytes + to * in->line, in->scale + to, in->sums + to);
}

/* One row and key/value head: its queries to where `attend_tile` wants them, its key and value to the cache. */
static void place_row(const AttendJob *job, int64_t sequence, int64_t row, int64_t head, float *scratch) {
    const Decoder *d = job->decoder;
    const Layer *layer = &d->layer[job->layer];
    int64_t dim = d->head_dim, group = group_of(d), position = job->step->positions[row];
    float *qkv = job->qkv + row * job->stride, *key = qkv + (d->heads + head) * dim, *value = key + d->kv_heads * dim;
    norm_and_turn(job, key, layer->key_gain, position);
    Held held = held_at(job, sequence, position, head);
    store_key(d, held, position % BLOCK, key);
    store_value(d, held, position % BLOCK, value);
    for (int64_t g = 0; g < group; g++) {
        float *query = qkv + (head * group + g) * dim;
        norm_and_turn(job, query, layer->query_gain, position);
        place_query(job, (head * job->step->rows + row) * group + g, query, scratch);
    }
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* One query meets a block: scores to weights. Returns what its sums so far are to be multiplied by. */
static float soften(float *scores, int64_t from, int64_t first, int64_t last, float *most, float *weight) {
    int begin = first > from ? (int)(first - from) : 0, end = last - from + 1 < BLOCK ? (int)(last - from + 1) : BLOCK;
    float largest[16], sums[16] = {0};
    for (int lane = 0; lane < 16; lane++) largest[lane] = *most;
    EACH_16(i, BLOCK, scores[i] = i >= begin && i < end ? scores[i] : -1e30f;
            largest[lane] = scores[i] > largest[lane] ? scores[i] : largest[lane];);
    float now = largest_lane(largest);
    EACH_16(i, BLOCK, float p = fast_exp(scores[i] - now); scores[i] = p = i >= begin && i < end ? p : 0.0f;
            sums[lane] += p;);
    float scale = *most == now ? 1.0f : fast_exp(*most - now);
    *weight = *weight * scale + sum_lanes(sums);
    *most = now;
    return scale;
}

/* The weights of one query in a block as the values want them. In int8 they take the scales of the values along. */
static void place_weights(Input *to, int64_t query, float *weights, const bf16 *scale) {
    if (to->halves) {
        for (int i = 0; i < BLOCK; i++) to->halves[query * BLOCK + i] = put_bf16(weights[i]);
    } else if (to->bytes) {
        for (int i = 0; i < BLOCK; i++) weights[i] *= get_bf16(scale[i]);
        quantise_row(weights, BLOCK, BLOCK, to->bytes + query * BLOCK, to->scale + query, to->sums + query);
    } else {
        memcpy(to->floats + query * BLOCK, weights, BLOCK * 4);
    }
}

/* Rows `row` to `row + rows` of a sequence, for one key/value head, to job->mixed. */
static void attend_tile(AttendJob *job, int64_t sequence, int64_t row, int64_t rows, int64_t head, float *scratch) {
    const Decoder *d = job->decoder;
    const Step *step = job->step;
    int64_t dim = padded_dim(d), group = group_of(d), queries = rows * group, held = tile_queries(d);
    int64_t band = d->layer[job->layer].band;
    float *acc = scratch, *mixture = acc + held * dim, *scores = mixture + held * dim;
    float *most = scores + held * BLOCK, *weight = most + held, *floats = weight + held;
    bf16 *ones = (bf16 *)(floats + held * (BLOCK + 2)); /* the scales of values are in the weights already */
    Input in = job->queries, weights = {.rows = queries, .depth = BLOCK, .line = BLOCK, .group = BLOCK};
    if (in.halves)
        weights.halves = (bf16 *)floats;
    else if (in.bytes)
        weights.scale = floats, weights.sums = (int32_t *)floats + held, weights.bytes = (int8_t *)(floats + 2 * held);
    else
        weights.floats = floats;
    for (int64_t i = 0; i < dim; i++) ones[i] = 0x3f80;
    int64_t at = (head * step->rows + row) * group;
    Panels *kernel = kernel_for(d->cache, queries);
    memset(acc, 0, (size_t)(queries * dim) * 4);
    for (int64_t q = 0; q < queries; q++) most[q] = -1e30f, weight[q] = 0.0f;
    int64_t low = first_seen(band, step->positions[row]), high = step->positions[row + rows - 1];
    for (int64_t from = low / BLOCK * BLOCK; from <= high; from += BLOCK) {
        Held block = held_at(job, sequence, from, head);
        Matrix key = {.kind = d->cache, .depth = dim, .group = dim, .weight = block.keys, .scale = block.key_scale};
        Matrix value = {.kind = d->cache, .depth = BLOCK, .group = BLOCK, .weight = block.values, .scale = ones};
        for (int64_t q = 0; q < queries; q += MOST_ROWS) {
            int some = queries - q < MOST_ROWS ? (int)(queries - q) : MOST_ROWS;
            kernel(&key, &in, at + q, some, 0, BLOCK / PANEL, scores + q * BLOCK);
        }
        for (int64_t q = 0; q < queries; q++) {
            int64_t position = step->positions[row + q / group];
            int64_t first = first_seen(band, position);
            float *mine = scores + q * BLOCK, *sums = acc + q * dim;
            float scale = soften(mine, from, first, position, &most[q], &weight[q]);
            if (scale != 1.0f) EACH_16(i, dim, sums[i] *= scale;);
            place_weights(&weights, q, mine, block.value_scale);
        }
        for (int64_t q = 0; q < queries; q += MOST_ROWS) {
            int some = queries - q < MOST_ROWS ? (int)(queries - q) : MOST_ROWS;
            kernel(&value, &weights, q, some, 0, (int)(dim / PANEL), mixture);
            EACH_16(i, some * dim, acc[q * dim + i] += mixture[i];);
        }
    }
    for (int64_t q = 0; q < queries; q++) {
        float *out = job->mixed + ((row + q / group) * d->heads + head * group + q % group) * d->head_dim;
        float turn = 1.0f / weight[q];
        for (int64_t i = 0; i < d->head_dim; i++) out[i] = acc[q * dim + i] * turn;
    }
}

/* ---- the pieces -------------------------------------------------------------------------------------------------- */

/* Pieces count tiles of every sequence, with the heads innermost. Finds the tile of a piece. */
static void find_tile(const AttendJob *job, int64_t tile, int64_t *sequence, int64_t *row, int64_t *rows) {
    const int32_t *starts = job->step->starts;
    for (int64_t s = 0;; s++) {
        int64_t count = (starts[s + 1] - starts[s] + job->tile_rows - 1) / job->tile_rows;
        if (tile < count) {
            *sequence = s, *row = starts[s] + tile * job->tile_rows;
            *rows = starts[s + 1] - *row < job->tile_rows ? starts[s + 1] - *row : job->tile_rows;
            return;
        }
        tile -= count;
    }
}

static void attend_work(void *context, int64_t begin, int64_t end, int thread) {
    AttendJob *job = context;
    int64_t heads = job->decoder->kv_heads, sequence, row, rows;
    float *scratch = pool_scratch(job->pool, thread);
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t head = piece % heads;
        find_tile(job, piece / heads, &sequence, &row, &rows);
        if (job->clears)
            for (int64_t r = row; r < row + rows; r++) clear_block(job, sequence, r, head);
        if (job->places)
            for (int64_t r = row; r < row + rows; r++) place_row(job, sequence, r, head, scratch);
        if (job->attends) attend_tile(job, sequence, row, rows, head, scratch);
    }
}

/* qkv [rows][(heads + 2 kv_heads) head_dim] to mixed [rows][heads * head_dim]; `queries` has memory for all of them. */
void attend(Pool *pool, const Decoder *d, const Step *step, int64_t layer, float *qkv, float *mixed, Input queries) {
    AttendJob job = {.decoder = d, .step = step, .layer = layer, .qkv = qkv, .mixed = mixed, .queries = queries};
    job.pool = pool, job.stride = (d->heads + 2 * d->kv_heads) * d->head_dim, job.tile_rows = tile_rows(d);
    job.queries.depth = job.queries.line = job.queries.group = padded_dim(d);
    int64_t tiles = 0, longest = 0;
    for (int64_t s = 0; s < step->sequences; s++) {
        int64_t rows = step->starts[s + 1] - step->starts[s];
        tiles += (rows + job.tile_rows - 1) / job.tile_rows;
        longest = rows > longest ? rows : longest;
    }
    int64_t pieces = tiles * d->kv_heads;
    if (longest <= job.tile_rows) { /* no tile waits for another's keys: all at once */
        job.clears = job.places = job.attends = 1;
        pool_run(pool, pieces, attend_work, &job);
        return;
    }
    for (int part = 0; part < 3; part++) {
        job.clears = part == 0, job.places = part == 1, job.attends = part == 2;
        pool_run(pool, pieces, attend_work, &job);
    }
}
