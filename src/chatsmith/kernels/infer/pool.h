/* A pool of threads that share work a piece at a time. */
#ifndef CHATSMITH_INFER_POOL_H
#define CHATSMITH_INFER_POOL_H

#include <stdint.h>

typedef struct Pool Pool;
/* Does pieces from `begin` to `end`; `thread` counts from 0, and no two threads that run at once have the same. */
typedef void Work(void *context, int64_t begin, int64_t end, int thread);

Pool *pool_new(int threads);
void pool_free(Pool *pool);
int pool_threads(const Pool *pool);
int pool_reserve(Pool *pool, int64_t bytes); /* for each thread; 0 when there is no memory */
void *pool_scratch(Pool *pool, int thread);  /* this thread's own, at a multiple of 64 */
void pool_run(Pool *pool, int64_t pieces, Work *work, void *context);

#endif
