/* Threads that wait briefly awake, then asleep, and share each job by stealing.
 *
 * A job of n pieces is cut into one range per thread. A thread takes from the front of its own range, so that memory is
 * read in order; when that is empty it takes from the back of another's. A slower thread thus does less. The caller is
 * thread 0 and never depends on another one starting: what nobody has taken, it does itself.
 *
 * What it must wait for is a piece that another thread holds. When that thread is off its core (another program has
 * taken it), the wait is as long as the system's time slice, some thousand times a piece. After such a wait the caller
 * works alone for a while, twice as long each time, before the others are asked again: beside one busy program on two
 * cores that keeps one whole core busy, where waiting at every step would keep neither. */
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define MOST_THREADS 256
#define AWAKE_NS 100000   /* how long a thread without work looks for some before it sleeps */
#define STALL_NS 400000   /* a wait for one piece beyond this, and beyond eight pieces' time, is a lost core */
#define ALONE_NS 10000000 /* the first time alone; doubled with each stall up to ALONE_MOST */
#define ALONE_MOST_NS 320000000

typedef struct {
    _Alignas(64) _Atomic uint64_t range; /* begin in the upper half, end in the lower */
    void *scratch;
    int64_t scratch_bytes;
    pthread_t thread;
    Pool *pool;
    int number;
} Seat;

struct Pool {
    int threads;
    Work *work;
    void *context;
    _Alignas(64) _Atomic int64_t done;
    _Alignas(64) _Atomic uint32_t signal; /* counts the jobs; sleepers wait on it */
    _Atomic int32_t sleeping;
    _Atomic int closing;
    int64_t alone_until, alone_ns, piece_ns;
    Seat seat[MOST_THREADS];
};

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleeps until `word` is no longer `seen`; may wake for nothing. */
#if defined(__linux__)
static void sleep_while(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void wake_all(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0); }
#else /* macOS: one bell for all pools */
static pthread_mutex_t bell_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;

static void sleep_while(_Atomic uint32_t *word, uint32_t seen) {
    pthread_mutex_lock(&bell_lock);
    if (atomic_load(word) == seen) pthread_cond_wait(&bell, &bell_lock);
    pthread_mutex_unlock(&bell_lock);
}

static void wake_all(_Atomic uint32_t *word) {
    (void)word;
    pthread_mutex_lock(&bell_lock);
    pthread_cond_broadcast(&bell);
    pthread_mutex_unlock(&bell_lock);
}
#endif

static uint64_t pack(uint64_t begin, uint64_t end) { return begin << 32 | end; }

/* One piece of a seat's range, from the front or the back; -1 when it is empty. */
static int64_t take(Seat *seat, int from_front) {
    uint64_t range = atomic_load_explicit(&seat->range, memory_order_relaxed);
    for (;;) {
        uint64_t begin = range >> 32, end = range & 0xffffffffu;
        if (begin >= end) return -1;
        uint64_t left = from_front ? pack(begin + 1, end) : pack(begin, end - 1);
        if (atomic_compare_exchange_weak(&seat->range, &range, left)) return (int64_t)(from_front ? begin : end - 1);
    }
}

/* Works until nothing is left to take; returns how many pieces were done. */
static int64_t work_off(Pool *pool, int self) {
    int64_t count = 0;
    for (int other = 0; other < pool->threads; other++) {
        Seat *seat = &pool->seat[(self + other) % pool->threads];
        for (int64_t piece; (piece = take(seat, other == 0)) >= 0; count++) {
            /* The job is read after the piece was taken: it cannot change until the piece is done. */
            pool->work(pool->context, piece, piece + 1, self);
            atomic_fetch_add(&pool->done, 1);
        }
    }
    return count;
}

static void *live(void *seat_) {
    Seat *seat = seat_;
    Pool *pool = seat->pool;
    uint32_t seen = 0;
    for (;;) {
        int64_t until = 0;
        uint32_t signal;
        for (int spins = 0; (signal = atomic_load(&pool->signal)) == seen; spins++) {
            relax();
            if (spins % 64) continue;
            int64_t time = now();
            if (!until) until = time + AWAKE_NS;
            if (time < until) continue;
            atomic_fetch_add(&pool->sleeping, 1);
            sleep_while(&pool->signal, seen);
            atomic_fetch_sub(&pool->sleeping, 1);
        }
        seen = signal;
        if (atomic_load(&pool->closing)) return NULL;
        work_off(pool, seat->number);
    }
}

/* Waits for the pieces that others hold; remembers a wait so long that a core must have been lost. */
static void wait_for(Pool *pool, int64_t pieces) {
    int64_t start = 0, waited = 0;
    for (int spins = 1; atomic_load(&pool->done) < pieces; spins++) {
        relax();
        if (spins % 64) continue;
        if (!start) start = now();
        waited = now() - start;
        if (waited > STALL_NS) sched_yield();
    }
    if (waited > STALL_NS && waited > 8 * pool->piece_ns) {
        pool->alone_until = now() + pool->alone_ns;
        pool->alone_ns = pool->alone_ns * 2 < ALONE_MOST_NS ? pool->alone_ns * 2 : ALONE_MOST_NS;
    } else if (pool->alone_ns > ALONE_NS && start == 0) {
        pool->alone_ns -= pool->alone_ns / 256; /* trust comes back slowly */
    }
}

void pool_run(Pool *pool, int64_t pieces, Work *work, void *context) {
    int others = pool->threads > 1 && pieces > 1;
    if (others && pool->alone_until) {
        if (now() < pool->alone_until)
            others = 0;
        else
            pool->alone_until = 0;
    }
    if (!others) {
        for (int64_t piece = 0; piece < pieces; piece++) work(context, piece, piece + 1, 0);
        return;
    }
    pool->work = work;
    pool->context = context;
    atomic_store(&pool->done, 0);
    for (int t = 0; t < pool->threads; t++) {
        uint64_t begin = (uint64_t)(pieces * t / pool->threads), end = (uint64_t)(pieces * (t + 1) / pool->threads);
        atomic_store(&pool->seat[t].range, pack(begin, end));
    }
    atomic_fetch_add(&pool->signal, 1);
    if (atomic_load(&pool->sleeping)) wake_all(&pool->signal);
    int64_t start = now();
    int64_t count = work_off(pool, 0);
    if (count) pool->piece_ns = (now() - start) / count;
    wait_for(pool, pieces);
}

Pool *pool_new(int threads) {
    if (threads < 1 || threads > MOST_THREADS) return NULL;
    Pool *pool = aligned_alloc(64, (sizeof(Pool) + 63) / 64 * 64);
    if (!pool) return NULL;
    *pool = (Pool){.threads = 1, .alone_ns = ALONE_NS};
    for (int t = 0; t < threads; t++) pool->seat[t] = (Seat){.pool = pool, .number = t};
    /* Where the system gives fewer threads than asked for, the pool is as large as it got. */
    for (int t = 1; t < threads && !pthread_create(&pool->seat[t].thread, NULL, live, &pool->seat[t]); t++)
        pool->threads = t + 1;
    return pool;
}

void pool_free(Pool *pool) {
    if (!pool) return;
    atomic_store(&pool->closing, 1);
    atomic_fetch_add(&pool->signal, 1);
    wake_all(&pool->signal);
    for (int t = 1; t < pool->threads; t++) pthread_join(pool->seat[t].thread, NULL);
    for (int t = 0; t < pool->threads; t++) free(pool->seat[t].scratch);
    free(pool);
}

int pool_threads(const Pool *pool) { return pool->threads; }

int pool_reserve(Pool *pool, int64_t bytes) {
    for (int t = 0; t < pool->threads; t++) {
        Seat *seat = &pool->seat[t];
        if (seat->scratch_bytes >= bytes) continue;
        free(seat->scratch);
        seat->scratch_bytes = (bytes + 63) / 64 * 64;
        seat->scratch = aligned_alloc(64, (size_t)seat->scratch_bytes);
        if (!seat->scratch) return seat->scratch_bytes = 0, 0;
    }
    return 1;
}

void *pool_scratch(Pool *pool, int thread) { return pool->seat[thread].scratch; }
