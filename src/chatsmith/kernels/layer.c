/* A whole layer, x + attention(norm(x)) and then x + ffn(norm(x)), forwards and backwards, each in one call.
 *
 * A small model's step is spent between its products: on calls, on waiting for the other threads after each of them,
 * and on fetching what another core has made. Here each thread takes its own rows through the layer, whole sequences
 * where they can be shared out evenly, and waits for the others only where rows meet: in attention, and in the slopes
 * of weights, which are sums over all rows. Their rows are shared out instead, so no number depends on the threads (but
 * for the slopes of norms' gains, sums of the threads' shares).
 *
 * Kept for the way back is what takes products to make, and what a norm found of each row. The outputs of norms and of
 * the activation and the weights of attention are made again.
 */
#ifndef NUM

#include "gemm.h"
#include "vector.h"

#ifdef HAS_GEMM

int64_t attention_scratch(int64_t time, int64_t dim, int64_t size);

/* The weights [out, in], each followed by its bias, and the gains of norms. What a layer lacks is null. */
enum {
    ATTENTION_NORM, ATTENTION_NORM_BIAS,
    QUERY, QUERY_BIAS, KEY, KEY_BIAS, VALUE, VALUE_BIAS, OUTPUT, OUTPUT_BIAS, QUERY_NORM, KEY_NORM,
    FFN_NORM, FFN_NORM_BIAS,
    GATE, GATE_BIAS, UP, UP_BIAS, DOWN, DOWN_BIAS,
    PARAMETERS
};

/* A layer, its input and where its numbers go; `layer._Call` in Python mirrors it.
 *
 * x, y, slope (of y), dx [batch, time, width]; cosine, sine [period, dim/2] floats or null; first [batch, time] int32
 * or null; attention_mask, ffn_mask [batch, time, width] bytes that say what dropout keeps, or null; kept and shared
 * have the sizes that `layer_kept` and `layer_shared` say, own has `layer_own` bytes per thread. */
typedef struct {
    int64_t batch, time, width, heads, groups, dim, ffn, period, threads;
    double epsilon, growth;
    const void *weights[PARAMETERS];
    void *slopes[PARAMETERS];
    const void *x, *cosine, *sine, *first, *attention_mask, *ffn_mask, *slope;
    void *y, *dx, *kept, *shared, *own;
} Layer;

INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

#define NOWHERE ((char *)64) /* where a layout is laid out that is only to be measured */

#define EACH "layer.c"
#include "each_type.h"
#endif

#else

#define PER_WORD (IS_FLOAT ? 1 : 2)
#include "tile.h"
#include "part.h"
#include "layer.h"

/* What the way back needs of the way there, for N rows. Queries and keys are kept twice where their heads are normed:
 * as the products left them, and as attention reads them. */
typedef struct {
    NUM *raw_query, *raw_key, *query, *key, *value, *mixed, *middle, *up, *gate;
    float *attention_scale, *attention_mean, *query_scale, *key_scale, *rows, *ffn_scale, *ffn_mean;
} FN(Kept);

static int64_t FN(kept)(const Layer *l, char *base, FN(Kept) *k) {
    int64_t rows = l->batch * l->time, size = (int64_t)sizeof(NUM);
    int64_t inner = l->heads * l->dim, keys = l->groups * l->dim;
    char *at = base;
    k->query = take(&at, rows * inner * size);
    k->key = take(&at, rows * keys * size);
    k->value = take(&at, rows * keys * size);
    k->raw_query = k->query, k->raw_key = k->key;
    if (l->weights[QUERY_NORM]) {
        k->raw_query = take(&at, rows * inner * size);
        k->raw_key = take(&at, rows * keys * size);
    }
    k->mixed = take(&at, rows * inner * size);
    k->middle = take(&at, rows * l->width * size);
    k->up = take(&at, rows * l->ffn * size);
    k->gate = l->weights[GATE] ? take(&at, rows * l->ffn * size) : 0;
    k->attention_scale = take(&at, rows * 4);
    k->ffn_scale = take(&at, rows * 4);
    k->attention_mean = l->weights[ATTENTION_NORM_BIAS] ? take(&at, rows * 4) : 0;
    k->ffn_mean = l->weights[FFN_NORM_BIAS] ? take(&at, rows * 4) : 0;
    k->query_scale = l->weights[QUERY_NORM] ? take(&at, rows * l->heads * 4) : 0;
    k->key_scale = l->weights[KEY_NORM] ? take(&at, rows * l->groups * 4) : 0;
    k->rows = take(&at, rows * l->heads * 8);
    return at - base;
}

int64_t FN(layer_kept)(const Layer *l) {
    FN(Kept) kept;
    return FN(kept)(l, NOWHERE, &kept);
}

/* What the threads make for each other on the way. Attention's part lies where the feed-forward's was. */
typedef struct {
    NUM *normed, *active, *d_up, *d_gate, *mixed, *query, *key, *value, *d_normed, *middle, *thin;
    float *sums, *weight_sums, *ffn_gain, *attention_gain, *query_gain, *key_gain;
} FN(Shared);

static int64_t FN(shared)(const Layer *l, int back, char *base, FN(Shared) *s) {
    int64_t rows = l->batch * l->time, size = (int64_t)sizeof(NUM);
    int64_t inner = l->heads * l->dim, keys = l->groups * l->dim;
    int64_t widest = larger(larger(l->width, inner), l->ffn), deep = widest > DEPTH * PER_WORD;
    memset(s, 0, sizeof *s);
    char *start = base, *at = base;
    s->normed = take(&at, rows * l->width * size);
    base = at;
    s->active = take(&at, rows * l->ffn * size);
    if (!back) {
        s->sums = !IS_FLOAT && deep ? take(&at, rows * widest * 4) : 0;
        return at - start;
    }
    s->d_up = take(&at, rows * l->ffn * size);
    s->d_gate = l->weights[GATE] ? take(&at, rows * l->ffn * size) : 0;
    char *end = at;
    at = base;
    s->mixed = take(&at, rows * inner * size);
    s->query = take(&at, rows * inner * size);
    s->key = take(&at, rows * keys * size);
    s->value = take(&at, rows * keys * size);
    at = at > end ? at : end;
    s->middle = take(&at, rows * l->width * size);
    s->d_normed = take(&at, rows * l->width * size);
    s->thin = l->attention_mask || l->ffn_mask ? take(&at, rows * l->width * size) : 0;
    s->sums = IS_FLOAT ? 0 : take(&at, rows * (deep ? widest : l->width) * 4);
    s->weight_sums = !IS_FLOAT && rows > SHALLOW * PER_WORD ? take(&at, larger(inner, l->ffn) * l->width * 4) : 0;
    s->ffn_gain = take(&at, l->threads * l->width * 8);
    s->attention_gain = take(&at, l->threads * l->width * 8);
    s->query_gain = take(&at, l->threads * l->dim * 4);
    s->key_gain = take(&at, l->threads * l->dim * 4);
    return at - start;
}

int64_t FN(layer_shared)(const Layer *l, int back) {
    FN(Shared) shared;
    return FN(shared)(l, back, NOWHERE, &shared);
}

int64_t FN(layer_own)(const Layer *l) {
    return (larger(GEMM_SCRATCH, attention_scratch(l->time, l->dim, sizeof(NUM))) + 63) / 64 * 64;
}

/* One thread of the team that computes a layer: its rows, its groups of attention, its scratch. */
typedef struct {
    const Layer *l;
    int64_t from, to, first_item, last_item;
    int me, team, apart; /* apart: the groups lie in the thread's own rows */
    char *own;
    float *sums;
} FN(Worker);

static FN(Worker) FN(worker)(const Layer *l, float *sums) {
    FN(Worker) w = {.l = l, .me = omp_get_thread_num(), .team = omp_get_num_threads(), .sums = sums};
    int64_t rows = l->batch * l->time, items = l->batch * l->groups;
    w.apart = l->batch % w.team == 0;
    int64_t unit = w.apart ? l->time : TILE_ROWS, units = (rows + unit - 1) / unit;
    w.from = units * w.me / w.team * unit, w.to = units * (w.me + 1) / w.team * unit;
    w.to = w.to < rows ? w.to : rows;
    w.first_item = items * w.me / w.team, w.last_item = items * (w.me + 1) / w.team;
    w.own = (char *)l->own + w.me * FN(layer_own)(l);
    return w;
}

INLINE void FN(meet)(const FN(Worker) * w) {
    if (!w->apart) {
#pragma omp barrier
    }
}

/* c = a W^T + bias + add of the thread's rows, for a [rows, in] and W [out, in]. */
static void FN(map)(const FN(Worker) * w, const NUM *a, int weight, NUM *c, const NUM *add, int64_t in, int64_t out) {
    const NUM *bias = w->l->weights[weight + 1];
    FN(Out) to = {c, bias, add, IS_FLOAT ? (float *)c : w->sums, out, 1, 1};
    FN(gemm_part)(FORWARD, 0, a, w->l->weights[weight], to, w->from, w->to, 0, out, in, in, in, w->own);
}

/* c = dy W of the thread's rows; several such in a row are summed, from the one with `first` to the one with `last`. */
static void FN(map_back)(const FN(Worker) * w, const NUM *dy, int weight, NUM *c, int64_t in, int64_t out, int first,
                         int last) {
    FN(Out) to = {c, 0, 0, IS_FLOAT ? (float *)c : w->sums, in, first, last};
    FN(gemm_part)(BACK, 0, dy, w->l->weights[weight], to, w->from, w->to, 0, in, out, out, in, w->own);
}

/* The slopes of a weight and its bias, dy^T x over all rows: the thread's part of them. */
static void FN(map_slopes)(const FN(Worker) * w, const NUM *dy, const NUM *x, int weight, int64_t in, int64_t out,
                           float *sums) {
    NUM *to = w->l->slopes[weight], *to_bias = w->l->slopes[weight + 1];
    int64_t rows = w->l->batch * w->l->time;
    FN(Out) result = {to, 0, 0, IS_FLOAT ? (float *)to : sums, in, 1, 1};
    int by_rows = out * 4 > in * 3; /* turning the left operand round costs more than packing the right one */
    int64_t unit = by_rows ? ROWS : COLUMNS, whole = by_rows ? out : in, units = (whole + unit - 1) / unit;
    int64_t from = units * w->me / w->team * unit, end = units * (w->me + 1) / w->team * unit;
    end = end < whole ? end : whole;
    if (sums) {
#pragma omp barrier
    }
    FN(gemm_part)(WEIGHTS, 0, dy, x, result, by_rows ? from : 0, by_rows ? end : out, by_rows ? 0 : from,
                  by_rows ? in : end, rows, out, in, w->own);
    if (!to_bias) return;
    int64_t first = (out + 15) / 16 * w->me / w->team * 16, last = (out + 15) / 16 * (w->me + 1) / w->team * 16;
    float total[512]; /* so many columns at a time: long stretches of each row, and sums that stay in the first cache */
    for (int64_t at = first; at < last && at < out; at += 512) {
        int64_t left = (last < out ? last : out) - at, count = left < 512 ? left : 512;
        memset(total, 0, sizeof total);
        for (int64_t row = 0; row < rows; row++)
            EACH_VECTOR(i, count, {
                put16_float(total + i, get16_float(total + i, n) + GET16(dy + row * out + at + i, n), n);
            });
        EACH_VECTOR(i, count, PUT16(to_bias + at + i, get16_float(total + i, n), n););
    }
}

/* to = from where the mask keeps it, grown, and 0 elsewhere; plus `add`. */
static void FN(thin)(const FN(Worker) * w, const NUM *from, const uint8_t *mask, const NUM *add, NUM *to) {
    float growth = (float)w->l->growth;
    int64_t width = w->l->width;
#pragma omp simd
    for (int64_t i = w->from * width; i < w->to * width; i++) {
        float value = mask[i] ? GET(PUT(GET(from[i]) * growth)) : 0.0f;
        to[i] = PUT(add ? value + GET(add[i]) : value);
    }
}

/* y = x + thinned(a W^T + bias). */
static void FN(write)(const FN(Worker) * w, const NUM *a, int weight, int64_t in, const void *mask, const NUM *x,
                      NUM *y) {
    FN(map)(w, a, weight, y, mask ? 0 : x, in, w->l->width);
    if (mask) FN(thin)(w, y, mask, x, y);
}

static void FN(norm_rows)(const FN(Worker) * w, const NUM *x, int gain, NUM *y, float *scale, float *mean) {
    int64_t at = w->from * w->l->width;
    FN(norm)(x + at, w->l->weights[gain], w->l->weights[gain + 1], y + at, scale + w->from, mean ? mean + w->from : 0,
             w->to - w->from, w->l->width, (float)w->l->epsilon, 1);
}

static void FN(turn_rows)(const FN(Worker) * w, const NUM *x, int gain, NUM *y, float *scale, int64_t count) {
    const Layer *l = w->l;
    if (!l->cosine && !l->weights[gain]) return;
    FN(heads_rows)(x, l->weights[gain], l->cosine, l->sine, y, scale, w->from, w->to, l->period, count, l->dim,
                   (float)l->epsilon);
}

void FN(layer)(const Layer *l) {
    FN(Kept) k;
    FN(Shared) s;
    FN(kept)(l, l->kept, &k);
    FN(shared)(l, 0, l->shared, &s);
    const NUM *x = l->x;
    NUM *y = l->y;
    int64_t width = l->width, inner = l->heads * l->dim, keys = l->groups * l->dim, ffn = l->ffn;
#pragma omp parallel num_threads((int)l->threads)
    {
        FN(Worker) w = FN(worker)(l, s.sums);
        FN(norm_rows)(&w, x, ATTENTION_NORM, s.normed, k.attention_scale, k.attention_mean);
        FN(map)(&w, s.normed, QUERY, k.raw_query, 0, width, inner);
        FN(map)(&w, s.normed, KEY, k.raw_key, 0, width, keys);
        FN(map)(&w, s.normed, VALUE, k.value, 0, width, keys);
        FN(turn_rows)(&w, k.raw_query, QUERY_NORM, k.query, k.query_scale, l->heads);
        FN(turn_rows)(&w, k.raw_key, KEY_NORM, k.key, k.key_scale, l->groups);
        FN(meet)(&w);
        FN(attend)(k.query, k.key, k.value, l->first, k.mixed, k.rows, w.own, w.first_item, w.last_item, l->time,
                   l->heads, l->groups, l->dim, inner, keys, 1.0f / sqrtf((float)l->dim));
        FN(meet)(&w);
        FN(write)(&w, k.mixed, OUTPUT, inner, l->attention_mask, x, k.middle);
        FN(norm_rows)(&w, k.middle, FFN_NORM, s.normed, k.ffn_scale, k.ffn_mean);
        FN(map)(&w, s.normed, UP, k.up, 0, width, ffn);
        int64_t at = w.from * ffn, count = (w.to - w.from) * ffn;
        if (k.gate) {
            FN(map)(&w, s.normed, GATE, k.gate, 0, width, ffn);
            FN(swiglu)(k.gate + at, k.up + at, s.active + at, count, 1);
        } else {
            FN(gelu)(k.up + at, s.active + at, count, 1);
        }
        FN(write)(&w, s.active, DOWN, ffn, l->ffn_mask, k.middle, y);
    }
}

/* The slope of a norm's input, plus `add`; the thread's share of the slopes of gain and bias. */
static void FN(norm_slopes)(const FN(Worker) * w, const NUM *dy, const NUM *x, int gain, const float *scale,
                            const float *mean, const NUM *add, NUM *dx, float *shares) {
    FN(norm_back_rows)(dy, x, w->l->weights[gain], scale, mean, add, dx, shares + w->me * 2 * w->l->width, w->from,
                       w->to, w->l->width);
}

static void FN(turn_back)(const FN(Worker) * w, NUM *slope, const NUM *raw, int gain, const float *scale, float *shares,
                          int64_t count) {
    const Layer *l = w->l;
    if (!l->cosine && !l->weights[gain]) return;
    FN(heads_back_rows)(slope, raw, l->weights[gain], l->cosine, l->sine, scale, slope, shares + w->me * l->dim,
                        w->from, w->to, l->period, count, l->dim);
}

static void FN(put_gains)(const Layer *l, int team, const FN(Shared) * s) {
    int64_t width = l->width;
    FN(put_shares)(s->ffn_gain, 2 * width, l->slopes[FFN_NORM], width, team);
    FN(put_shares)(s->attention_gain, 2 * width, l->slopes[ATTENTION_NORM], width, team);
    if (l->slopes[FFN_NORM_BIAS]) FN(put_shares)(s->ffn_gain + width, 2 * width, l->slopes[FFN_NORM_BIAS], width, team);
    if (l->slopes[ATTENTION_NORM_BIAS])
        FN(put_shares)(s->attention_gain + width, 2 * width, l->slopes[ATTENTION_NORM_BIAS], width, team);
    if (l->slopes[QUERY_NORM]) {
        FN(put_shares)(s->query_gain, l->dim, l->slopes[QUERY_NORM], l->dim, team);
        FN(put_shares)(s->key_gain, l->dim, l->slopes[KEY_NORM], l->dim, team);
    }
}

/* The slopes of x and of all weights, from that of y. */
void FN(layer_back)(const Layer *l) {
    FN(Kept) k;
    FN(Shared) s;
    FN(kept)(l, l->kept, &k);
    FN(shared)(l, 1, l->shared, &s);
    const NUM *x = l->x;
    int64_t width = l->width, inner = l->heads * l->dim, keys = l->groups * l->dim, ffn = l->ffn;
#pragma omp parallel num_threads((int)l->threads)
    {
        FN(Worker) w = FN(worker)(l, s.sums);
        const NUM *slope = l->slope;
        if (l->ffn_mask) FN(thin)(&w, slope, l->ffn_mask, 0, s.thin), slope = s.thin;
        FN(map_back)(&w, slope, DOWN, s.active, ffn, width, 1, 1);
        int64_t at = w.from * ffn, count = (w.to - w.from) * ffn;
        if (k.gate)
            FN(swiglu_back)(s.active + at, k.gate + at, k.up + at, s.d_gate + at, s.d_up + at, s.active + at, count, 1);
        else
            FN(gelu_back)(s.active + at, k.up + at, s.d_up + at, s.active + at, count, 1);
        FN(norm_rows)(&w, k.middle, FFN_NORM, s.normed, k.ffn_scale, k.ffn_mean);
        FN(map_back)(&w, s.d_up, UP, s.d_normed, width, ffn, 1, !k.gate);
        if (k.gate) FN(map_back)(&w, s.d_gate, GATE, s.d_normed, width, ffn, 0, 1);
        FN(norm_slopes)(&w, s.d_normed, k.middle, FFN_NORM, k.ffn_scale, k.ffn_mean, l->slope, s.middle, s.ffn_gain);
#pragma omp barrier
        FN(map_slopes)(&w, slope, s.active, DOWN, ffn, width, s.weight_sums);
        FN(map_slopes)(&w, s.d_up, s.normed, UP, width, ffn, s.weight_sums);
        if (k.gate) FN(map_slopes)(&w, s.d_gate, s.normed, GATE, width, ffn, s.weight_sums);
#pragma omp barrier
        FN(norm_rows)(&w, x, ATTENTION_NORM, s.normed, k.attention_scale, k.attention_mean);
        slope = s.middle;
        if (l->attention_mask) FN(thin)(&w, slope, l->attention_mask, 0, s.thin), slope = s.thin;
        FN(map_back)(&w, slope, OUTPUT, s.mixed, inner, width, 1, 1);
        FN(meet)(&w);
        FN(attend_back)(s.mixed, k.query, k.key, k.value, l->first, k.rows, s.query, s.key, s.value, w.own,
                        w.first_item, w.last_item, l->time, l->heads, l->groups, l->dim, inner, keys,
                        1.0f / sqrtf((float)l->dim));
        FN(meet)(&w);
        FN(turn_back)(&w, s.query, k.raw_query, QUERY_NORM, k.query_scale, s.query_gain, l->heads);
        FN(turn_back)(&w, s.key, k.raw_key, KEY_NORM, k.key_scale, s.key_gain, l->groups);
        FN(map_back)(&w, s.query, QUERY, s.d_normed, width, inner, 1, 0);
        FN(map_back)(&w, s.key, KEY, s.d_normed, width, keys, 0, 0);
        FN(map_back)(&w, s.value, VALUE, s.d_normed, width, keys, 0, 1);
        FN(norm_slopes)(&w, s.d_normed, x, ATTENTION_NORM, k.attention_scale, k.attention_mean, s.middle, l->dx,
                        s.attention_gain);
#pragma omp barrier
        if (w.me == w.team - 1) FN(put_gains)(l, w.team, &s);
        FN(map_slopes)(&w, slope, k.mixed, OUTPUT, inner, width, s.weight_sums);
        FN(map_slopes)(&w, s.query, s.normed, QUERY, width, inner, s.weight_sums);
        FN(map_slopes)(&w, s.key, s.normed, KEY, width, keys, s.weight_sums);
        FN(map_slopes)(&w, s.value, s.normed, VALUE, width, keys, s.weight_sums);
    }
}

#undef PER_WORD
#endif
