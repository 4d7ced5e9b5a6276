/* Attention over the blocks of the cache, with the running maximum of online softmax (Milakov and Gimelshein 2018).
 *
 * Scores and mixtures are products of panels like any other: a block's keys are a matrix of BLOCK outputs, its values one
 * of depth BLOCK. A query goes through the blocks in order, each as a whole, and a block it does not see changes nothing:
 * so its result does not depend on where a prompt was cut, nor on who shares its tile. */
#include "attend.h"

int64_t padded_dim(const Decoder *d) { return round_up(d->head_dim, 32); }

int64_t head_bytes(const Decoder *d) { return padded_dim(d) * BLOCK * (d->wide_cache ? 4 : 2); }

int64_t block_bytes(const Decoder *d) { return d->layers * d->kv_heads * 2 * head_bytes(d); }

static int64_t group_of(const Decoder *d) { return d->heads / d->kv_heads; }

/* Rows of one sequence that attend together: 32 queries or one row's. */
static int64_t tile_rows(const Decoder *d) {
    int64_t rows = TILE_QUERIES / group_of(d);
    return rows > 0 ? rows : 1;
}

static int64_t tile_queries(const Decoder *d) { return round_up(tile_rows(d) * group_of(d), 16); }

int64_t attend_scratch(const Decoder *d) {
    int64_t queries = tile_queries(d), dim = padded_dim(d);
    return queries * (2 * dim + 2 * BLOCK + 16) * 4 + queries * BLOCK * 4;
}

static char *block_at(const AttendJob *job, int64_t sequence, int64_t position, int64_t head) {
    const Decoder *d = job->decoder;
    int64_t block = job->step->tables[sequence * job->step->table_stride + position / BLOCK];
    return job->step->cache + block * block_bytes(d) + (job->layer * d->kv_heads + head) * 2 * head_bytes(d);
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

/* Keys lie with the position as the lane, values with it as the depth. Two halves that lie side by side: for a key two
 * numbers of the head, for a value two positions. */
static void store_key(const Decoder *d, char *to, int64_t slot, const float *x) {
    int64_t dim = padded_dim(d), panel = slot / PANEL, lane = slot % PANEL;
    if (d->wide_cache) {
        float *at = (float *)to + panel * dim * PANEL + lane;
        for (int64_t i = 0; i < d->head_dim; i++) at[i * PANEL] = x[i];
        return;
    }
    uint32_t *at = (uint32_t *)to + panel * dim / 2 * PANEL + lane;
    for (int64_t i = 0; i < d->head_dim; i += 2) {
        uint32_t second = i + 1 < d->head_dim ? put_bf16(x[i + 1]) : 0;
        at[i / 2 * PANEL] = put_bf16(x[i]) | second << 16;
    }
}

static void store_value(const Decoder *d, char *to, int64_t slot, const float *x) {
    for (int64_t i = 0; i < d->head_dim; i += PANEL) {
        int count = d->head_dim - i < PANEL ? (int)(d->head_dim - i) : PANEL;
        if (d->wide_cache) {
            memcpy((float *)to + i * BLOCK + slot * PANEL, x + i, (size_t)count * 4);
            continue;
        }
        bf16 *at = (bf16 *)to + i * BLOCK + slot / 2 * PANEL * 2 + slot % 2;
        for (int j = 0; j < count; j++) at[2 * j] = put_bf16(x[i + j]);
    }
}

/* A block that is begun is emptied: what an earlier owner left there is multiplied by zero, so it must be finite. */
static void clear_block(const AttendJob *job, int64_t sequence, int64_t row, int64_t head) {
    int64_t position = job->step->positions[row];
    if (position % BLOCK) return;
    memset(block_at(job, sequence, position, head), 0, (size_t)(2 * head_bytes(job->decoder)));
}

/* One row and key/value head: its queries to where `attend_tile` wants them, its key and value to the cache. */
static void place_row(const AttendJob *job, int64_t sequence, int64_t row, int64_t head) {
    const Decoder *d = job->decoder;
    const Layer *layer = &d->layer[job->layer];
    int64_t dim = d->head_dim, wide = padded_dim(d), group = group_of(d), position = job->step->positions[row];
    float *qkv = job->qkv + row * job->stride, *key = qkv + (d->heads + head) * dim, *value = key + d->kv_heads * dim;
    norm_and_turn(job, key, layer->key_gain, position);
    char *keys = block_at(job, sequence, position, head), *values = keys + head_bytes(d);
    store_key(d, keys, position % BLOCK, key);
    store_value(d, values, position % BLOCK, value);
    float factor = 1.0f / sqrtf((float)dim);
    for (int64_t g = 0; g < group; g++) {
        float *query = qkv + (head * group + g) * dim;
        int64_t to = (head * job->step->rows + row) * group + g;
        norm_and_turn(job, query, layer->query_gain, position);
        if (job->queries.halves) {
            bf16 *halves = job->queries.halves + to * job->queries.line;
            for (int64_t i = 0; i < dim; i++) halves[i] = put_bf16(query[i] * factor);
            for (int64_t i = dim; i < wide; i++) halves[i] = 0;
        } else {
            float *floats = job->queries.floats + to * job->queries.line;
            for (int64_t i = 0; i < dim; i++) floats[i] = query[i] * factor;
            for (int64_t i = dim; i < wide; i++) floats[i] = 0;
        }
    }
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

/* One query meets a block: scores to weights. Returns what its sums so far are to be multiplied by. */
static float soften(float *scores, int64_t from, int64_t first, int64_t last, float *most, float *weight) {
    int begin = first > from ? (int)(first - from) : 0, end = last - from + 1 < BLOCK ? (int)(last - from + 1) : BLOCK;
    float now = *most, sum = 0.0f;
#pragma omp simd reduction(max : now)
    for (int i = 0; i < BLOCK; i++) {
        scores[i] = i >= begin && i < end ? scores[i] : -1e30f;
        now = scores[i] > now ? scores[i] : now;
    }
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < BLOCK; i++) {
        float p = fast_exp(scores[i] - now);
        scores[i] = p = i >= begin && i < end ? p : 0.0f;
        sum += p;
    }
    float scale = *most == now ? 1.0f : fast_exp(*most - now);
    *weight = *weight * scale + sum;
    *most = now;
    return scale;
}

/* Rows `row` to `row + rows` of a sequence, for one key/value head, to job->mixed. */
static void attend_tile(AttendJob *job, int64_t sequence, int64_t row, int64_t rows, int64_t head, char *scratch) {
    const Decoder *d = job->decoder;
    const Step *step = job->step;
    int64_t dim = padded_dim(d), group = group_of(d), queries = rows * group, held = tile_queries(d);
    int64_t band = d->layer[job->layer].band;
    float *acc = (float *)scratch, *mixture = acc + held * dim, *scores = mixture + held * dim;
    float *most = scores + held * BLOCK, *weight = most + held, *floats = weight + held;
    int kind = d->wide_cache ? FLOAT32 : BFLOAT16;
    Input in = job->queries, probabilities = {.rows = queries, .depth = BLOCK, .line = BLOCK};
    if (in.halves) probabilities.halves = (bf16 *)floats;
    else probabilities.floats = floats;
    int64_t at = (head * step->rows + row) * group;
    Panels *kernel = kernel_for(kind, queries);
    memset(acc, 0, (size_t)(queries * dim) * 4);
    for (int64_t q = 0; q < queries; q++) most[q] = -1e30f, weight[q] = 0.0f;
    int64_t low = step->positions[row], high = step->positions[row + rows - 1];
    low = band && low >= band ? low - band + 1 : 0;
    for (int64_t from = low / BLOCK * BLOCK; from <= high; from += BLOCK) {
        char *keys = block_at(job, sequence, from, head);
        Matrix key = {.kind = kind, .depth = dim, .weight = keys};
        Matrix value = {.kind = kind, .depth = BLOCK, .weight = keys + head_bytes(d)};
        for (int64_t q = 0; q < queries; q += MOST_ROWS) {
            int some = queries - q < MOST_ROWS ? (int)(queries - q) : MOST_ROWS;
            kernel(&key, &in, at + q, some, 0, BLOCK / PANEL, scores + q * BLOCK);
        }
        for (int64_t q = 0; q < queries; q++) {
            int64_t position = step->positions[row + q / group];
            int64_t first = band && position >= band ? position - band + 1 : 0;
            float *mine = scores + q * BLOCK, *sums = acc + q * dim;
            float scale = soften(mine, from, first, position, &most[q], &weight[q]);
            if (scale != 1.0f) EACH_16(i, dim, sums[i] *= scale;);
            if (in.halves)
                for (int i = 0; i < BLOCK; i++) probabilities.halves[q * BLOCK + i] = put_bf16(mine[i]);
            else
                memcpy(probabilities.floats + q * BLOCK, mine, BLOCK * 4);
        }
        for (int64_t q = 0; q < queries; q += MOST_ROWS) {
            int some = queries - q < MOST_ROWS ? (int)(queries - q) : MOST_ROWS;
            kernel(&value, &probabilities, q, some, 0, (int)(dim / PANEL), mixture);
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
    for (int64_t piece = begin; piece < end; piece++) {
        int64_t head = piece % heads;
        find_tile(job, piece / heads, &sequence, &row, &rows);
        if (job->clears)
            for (int64_t r = row; r < row + rows; r++) clear_block(job, sequence, r, head);
        if (job->places)
            for (int64_t r = row; r < row + rows; r++) place_row(job, sequence, r, head);
        if (job->attends) attend_tile(job, sequence, row, rows, head, pool_scratch(job->pool, thread));
    }
}

/* qkv [rows][(heads + 2 kv_heads) head_dim] to mixed [rows][heads * head_dim]; `queries` has memory for all of them. */
void attend(Pool *pool, const Decoder *d, const Step *step, int64_t layer, float *qkv, float *mixed, Input queries) {
    AttendJob job = {.decoder = d, .step = step, .layer = layer, .qkv = qkv, .mixed = mixed, .queries = queries};
    job.pool = pool, job.stride = (d->heads + 2 * d->kv_heads) * d->head_dim, job.tile_rows = tile_rows(d);
    job.queries.depth = job.queries.line = padded_dim(d);
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
