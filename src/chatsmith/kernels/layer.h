/* What a whole layer is made of: the functions of the other files that work on one thread's share, once per type. */

void FN(norm)(const NUM *x, const NUM *gain, const NUM *bias, NUM *y, float *scale, float *mean, int64_t rows,
              int64_t width, float epsilon, int threads);
void FN(norm_back_rows)(const NUM *dy, const NUM *x, const NUM *gain, const float *scale, const float *mean,
                        const NUM *add, NUM *dx, float *share, int64_t begin, int64_t until, int64_t width);
void FN(heads_rows)(const NUM *x, const NUM *gain, const float *cosine, const float *sine, NUM *y, float *scale,
                    int64_t begin, int64_t until, int64_t period, int64_t heads, int64_t dim, float epsilon);
void FN(heads_back_rows)(const NUM *dy, const NUM *x, const NUM *gain, const float *cosine, const float *sine,
                         const float *scale, NUM *dx, float *share, int64_t begin, int64_t until, int64_t period,
                         int64_t heads, int64_t dim);
void FN(put_shares)(const float *shares, int64_t stride, NUM *to, int64_t width, int threads);
void FN(attend)(const NUM *query, const NUM *key, const NUM *value, const int32_t *first, NUM *output, float *kept,
                char *scratch, int64_t begin, int64_t until, int64_t time, int64_t heads, int64_t groups, int64_t dim,
                int64_t query_stride, int64_t key_stride, float scale);
void FN(attend_back)(const NUM *slope, const NUM *query, const NUM *key, const NUM *value, const int32_t *first,
                     const float *kept, NUM *d_query, NUM *d_key, NUM *d_value, char *scratch, int64_t begin,
                     int64_t until, int64_t time, int64_t heads, int64_t groups, int64_t dim, int64_t query_stride,
                     int64_t key_stride, float scale);
void FN(swiglu)(const NUM *gate, const NUM *up, NUM *y, int64_t count, int threads);
void FN(swiglu_back)(const NUM *dy, const NUM *gate, const NUM *up, NUM *d_gate, NUM *d_up, NUM *y, int64_t count,
                     int threads);
void FN(gelu)(const NUM *x, NUM *y, int64_t count, int threads);
void FN(gelu_back)(const NUM *dy, const NUM *x, NUM *dx, NUM *y, int64_t count, int threads);
