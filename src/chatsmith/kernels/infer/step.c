/* A whole pass through a decoder in one call: ids in, logits out, keys and values in the cache. */
#include "infer.h"

#include <stdlib.h>
#include <sys/mman.h>

typedef struct {
    Decoder decoder;
    Pool *pool;
    int64_t rows; /* that the buffers below have room for */
    char *memory;
    int64_t bytes;
    float *x, *qkv, *mixed, *hidden;
    Input input, hidden_input, queries;
} Session;

static int64_t deepest(const Decoder *d) {
    int64_t depth = d->head.depth;
    for (int64_t l = 0; l < d->layers; l++) {
        const Matrix *all[] = {&d->layer[l].qkv, &d->layer[l].output, &d->layer[l].up, &d->layer[l].down};
        for (int i = 0; i < 4; i++) depth = all[i]->depth > depth ? all[i]->depth : depth;
    }
    return depth;
}

/* A session over the weights that `decoder` and its layers point to; NULL when there is no memory or no right to use
 * this processor's matrix tiles. The decoder is copied, the layers are not. */
EXPORT Session *session_new(const Decoder *decoder, int threads) {
    if (!tiles_allowed()) return NULL;
    Session *s = calloc(1, sizeof(Session));
    if (!s) return NULL;
    s->decoder = *decoder;
    s->pool = pool_new(threads);
    int64_t product = multiply_scratch(deepest(decoder)), attention = attend_scratch(decoder);
    if (!s->pool || !pool_reserve(s->pool, product > attention ? product : attention)) {
        pool_free(s->pool);
        free(s);
        return NULL;
    }
    return s;
}

EXPORT void session_free(Session *s) {
    if (!s) return;
    pool_free(s->pool);
    if (s->memory) munmap(s->memory, (size_t)s->bytes);
    free(s);
}

EXPORT int64_t session_block_bytes(const Decoder *decoder) { return block_bytes(decoder); }

/* Cuts `bytes` off the memory that begins at *at; without memory it only counts. */
static void *cut(char **at, int64_t bytes) {
    void *here = *at;
    *at += round_up(bytes, 64);
    return here;
}

/* Lays the buffers for `rows` rows out from `at`; returns the end. Rows are counted up to whole tiles. */
static char *lay_out(Session *s, char *at, int64_t rows) {
    const Decoder *d = &s->decoder;
    int64_t depth = deepest(d), wide = padded_dim(d), held = round_up(rows, 16) + 16;
    s->x = cut(&at, rows * d->width * 4);
    int64_t parts = (d->heads + 2 * d->kv_heads) * d->head_dim;
    s->qkv = s->hidden = cut(&at, rows * (parts > d->ffn_width ? parts : d->ffn_width) * 4); /* never both at a time */
    s->mixed = cut(&at, rows * (d->heads * d->head_dim > d->width ? d->heads * d->head_dim : d->width) * 4);
    /* One kind at a time is in use: the largest has room for all. */
    s->input.floats = cut(&at, held * line_of(FLOAT32, depth) * 4);
    s->input.halves = (bf16 *)s->input.floats;
    s->input.bytes = (int8_t *)s->input.floats;
    s->input.scale = cut(&at, held * depth / 32 * 4);
    s->input.sums = cut(&at, held * depth / 32 * 4);
    s->hidden_input.halves = cut(&at, held * line_of(BFLOAT16, depth) * 2); /* touched where it is in use */
    void *queries = cut(&at, (d->heads * held + 16) * wide * 4);
    int wanted = wants(d->cache);
    s->queries.halves = wanted == BFLOAT16 ? queries : NULL;
    s->queries.bytes = wanted == INT8 ? queries : NULL;
    s->queries.floats = wanted == FLOAT32 ? queries : NULL;
    s->queries.scale = cut(&at, (d->heads * held + 16) * 4);
    s->queries.sums = cut(&at, (d->heads * held + 16) * 4);
    return at;
}

static int make_room(Session *s, int64_t rows) {
    if (rows <= s->rows) return 1;
    if (s->memory) munmap(s->memory, (size_t)s->bytes);
    s->rows = 0;
    s->bytes = lay_out(s, NULL, rows) - (char *)NULL;
    /* Pages are touched as rows are used, and zero until then: what lies beyond the rows is finite. */
    s->memory = mmap(NULL, (size_t)s->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (s->memory == MAP_FAILED) return s->memory = NULL, 0;
    lay_out(s, s->memory, rows);
    return s->rows = rows, 1;
}

/* Whether every number of the request lies where it must. */
static int sound(const Decoder *d, const Step *t) {
    if (t->rows < 1 || t->sequences < 1 || t->wanted < 0 || t->starts[0] != 0 || t->starts[t->sequences] != t->rows)
        return 0;
    for (int64_t s = 0; s < t->sequences; s++) {
        if (t->starts[s] >= t->starts[s + 1]) return 0;
        for (int64_t r = t->starts[s]; r < t->starts[s + 1]; r++) {
            int64_t position = t->positions[r];
            if (t->ids[r] < 0 || t->ids[r] >= d->vocabulary || position < 0 || position >= d->context) return 0;
            if (r > t->starts[s] && position != t->positions[r - 1] + 1) return 0;
        }
        int64_t blocks = t->positions[t->starts[s + 1] - 1] / BLOCK + 1;
        if (blocks > t->table_stride) return 0;
        for (int64_t g = 0; g < d->groups; g++)
            for (int64_t b = first_seen(d->layer[g].band, t->positions[t->starts[s]]) / BLOCK; b < blocks; b++) {
                int64_t block = t->tables[(g * t->sequences + s) * t->table_stride + b];
                if (block < 0 || block >= d->blocks) return 0;
            }
    }
    for (int64_t w = 0; w < t->wanted; w++)
        if (t->want[w] < 0 || t->want[w] >= t->rows) return 0;
    return 1;
}

typedef struct {
    Session *session;
    const Step *step;
} EmbedJob;

static void embed_work(void *context, int64_t begin, int64_t end, int thread) {
    EmbedJob *job = context;
    const Decoder *d = &job->session->decoder;
    float *place = pool_scratch(job->session->pool, thread);
    for (int64_t r = begin; r < end; r++) {
        float *x = job->session->x + r * d->width;
        matrix_row(&d->embed, job->step->ids[r], x);
        if (!d->positions.weight) continue;
        matrix_row(&d->positions, job->step->positions[r], place);
        EACH_16(i, d->width, x[i] += place[i];);
    }
}

/* Where rows go that `matrix` will read: to `input` as it wants them, if that is bfloat16, else to `y` in float32, from
 * which they must be prepared. */
static Output toward(const Matrix *matrix, int64_t rows, Input *input, float *y) {
    if (wants(matrix->kind) != BFLOAT16) return (Output){.y = y, .stride = matrix->inputs, .columns = matrix->inputs};
    expect(matrix, rows, input);
    for (int64_t r = 0; r < rows; r++) /* filled up to the depth */
        for (int64_t i = matrix->inputs; i < input->depth; i++) input->halves[r * input->line + i] = 0;
    return (Output){.halves = input->halves, .stride = input->line, .columns = matrix->inputs};
}

static void layer_pass(Session *s, const Step *t, int64_t index) {
    const Decoder *d = &s->decoder;
    const Layer *l = &d->layer[index];
    int64_t rows = t->rows, width = d->width;
    float epsilon = (float)d->epsilon;
    Output sum = {.y = s->x, .add = s->x, .stride = width, .columns = width};
    prepare(s->pool, &l->qkv, (Rows){s->x, width, rows, &l->attention_norm, epsilon}, &s->input);
    multiply(s->pool, &l->qkv, &s->input, (Output){.y = s->qkv, .stride = l->qkv.outputs, .columns = l->qkv.outputs});
    Output mixed = toward(&l->output, rows, &s->input, s->mixed);
    attend(s->pool, d, t, index, s->qkv, mixed, s->queries);
    if (mixed.y) prepare(s->pool, &l->output, (Rows){.x = mixed.y, .stride = mixed.stride, .rows = rows}, &s->input);
    multiply(s->pool, &l->output, &s->input, sum);
    prepare(s->pool, &l->up, (Rows){s->x, width, rows, &l->ffn_norm, epsilon}, &s->input);
    Output hidden = toward(&l->down, rows, &s->hidden_input, s->hidden);
    hidden.act = (int)d->activation;
    multiply(s->pool, &l->up, &s->input, hidden);
    if (hidden.y) prepare(s->pool, &l->down, (Rows){.x = hidden.y, .stride = hidden.stride, .rows = rows}, &s->input);
    multiply(s->pool, &l->down, hidden.y ? &s->input : &s->hidden_input, sum);
}

/* Only the wanted rows go on. They are gathered in the order asked for. */
static void head_pass(Session *s, const Step *t) {
    const Decoder *d = &s->decoder;
    for (int64_t from = 0; from < t->wanted; from += s->rows) {
        int64_t count = t->wanted - from < s->rows ? t->wanted - from : s->rows;
        for (int64_t w = 0; w < count; w++)
            memcpy(s->mixed + w * d->width, s->x + t->want[from + w] * d->width, (size_t)d->width * 4);
        Rows rows = {s->mixed, d->width, count, &d->norm, (float)d->epsilon};
        if (t->states) {
            norm_rows(s->pool, rows, t->states + from * d->width, d->width);
            continue;
        }
        prepare(s->pool, &d->head, rows, &s->input);
        float *logits = t->logits + from * d->vocabulary;
        Output to = {.y = logits, .stride = d->vocabulary, .columns = d->vocabulary};
        multiply(s->pool, &d->head, &s->input, to);
    }
}

/* Does the step. 0: done; 1: a number of the request is out of bounds; 2: no memory. */
EXPORT int session_step(Session *s, const Step *t) {
    const Decoder *d = &s->decoder;
    if (!sound(d, t)) return 1;
    if (!make_room(s, t->rows)) return 2;
    EmbedJob job = {s, t};
    pool_run(s->pool, t->rows, embed_work, &job);
    for (int64_t l = 0; l < d->layers; l++) layer_pass(s, t, l);
    head_pass(s, t);
    tiles_rest(); /* those of this thread, which belongs to others; the pool's keep theirs */
    return 0;
}
