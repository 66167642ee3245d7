/* The limits of this machine: fused multiply-adds, bf16 dot products, reading memory.
 * Compiled by harness/probe.py with -O3 -march=native: what runs here is what is measured. */

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
#define WIDTH 64
#define CHAINS 16
#elif defined(__AVX__)
#define WIDTH 32
#define CHAINS 12
#else
#define WIDTH 16
#define CHAINS 16
#endif

#if defined(__AVX__)
#include <immintrin.h>
#endif

typedef float vf __attribute__((vector_size(WIDTH)));
typedef int64_t vi __attribute__((vector_size(WIDTH)));

enum { FMA_F32, FMA_BF16, READ, MIX };
enum { MOST_STREAMS = 4 };

struct job {
    int kind;
    int64_t rounds;
    const char *data;
    size_t bytes;
    const char *in[MOST_STREAMS];
    char *out[MOST_STREAMS];
    int ins, outs, streaming;
    atomic_int *ready;
    int threads;
    double begin, end;
};

static volatile float float_sink;
static volatile int64_t int_sink;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fma_f32(int64_t rounds) {
    vf acc[CHAINS], half;
    volatile float h = 0.5f;
    for (size_t j = 0; j < WIDTH / sizeof(float); j++) half[j] = h;
    for (int i = 0; i < CHAINS; i++) acc[i] = half * (float)i;
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * half + half;
    }
    vf sum = acc[0];
    for (int i = 1; i < CHAINS; i++) sum += acc[i];
    float_sink = sum[0];
}

#if defined(__AVX512BF16__)
static void fma_bf16(int64_t rounds) {
    __m512 acc[16];
    volatile uint16_t half = 0x3f00;
    __m512bh a = (__m512bh)_mm512_set1_epi16((short)half);
    for (int i = 0; i < 16; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) acc[i] = _mm512_dpbf16_ps(acc[i], a, a);
    }
    __m512 sum = acc[0];
    for (int i = 1; i < 16; i++) sum = _mm512_add_ps(sum, acc[i]);
    float_sink = _mm512_cvtss_f32(sum);
}
#endif

static void read_once(const char *p, size_t bytes) {
    vi acc[8];
    memset(acc, 0, sizeof acc);
    for (size_t i = 0; i + 8 * WIDTH <= bytes; i += 8 * WIDTH) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            vi x;
            memcpy(&x, p + i + j * WIDTH, WIDTH);
            acc[j] ^= x;
        }
    }
    for (int j = 1; j < 8; j++) acc[0] ^= acc[j];
    int_sink = acc[0][0];
}

/* Stores around the cache where `streaming`. */
static inline void put(char *to, vf x, int streaming) {
#if defined(__AVX512F__)
    if (streaming) {
        _mm512_stream_ps((float *)to, (__m512)x);
        return;
    }
#elif defined(__AVX__)
    if (streaming) {
        _mm256_stream_ps((float *)to, (__m256)x);
        return;
    }
#endif
    (void)streaming;
    memcpy(to, &x, WIDTH);
}

static inline __attribute__((always_inline)) void mix(struct job *j, int ins, int outs, int streaming) {
    for (size_t i = 0; i + WIDTH <= j->bytes; i += WIDTH) {
        vf sum = {0};
        for (int k = 0; k < ins; k++) {
            vf x;
            memcpy(&x, j->in[k] + i, WIDTH);
            sum += x;
        }
        for (int k = 0; k < outs; k++) put(j->out[k] + i, sum, streaming);
    }
}

static void mix_once(struct job *j) {
#define CASE(I, O)                                                       \
    if (j->ins == I && j->outs == O) {                                   \
        if (j->streaming) mix(j, I, O, 1);                               \
        else mix(j, I, O, 0);                                            \
    }
    CASE(0, 1) CASE(1, 1) CASE(2, 1) CASE(2, 2) CASE(3, 1) CASE(3, 2) CASE(4, 1) CASE(4, 2)
#undef CASE
}

static void *work(void *argument) {
    struct job *job = argument;
    atomic_fetch_add(job->ready, 1);
    while (atomic_load(job->ready) < job->threads) {
    }
    job->begin = now();
    switch (job->kind) {
    case FMA_F32: fma_f32(job->rounds); break;
#if defined(__AVX512BF16__)
    case FMA_BF16: fma_bf16(job->rounds); break;
#endif
    case MIX: mix_once(job); break;
    default: read_once(job->data, job->bytes);
    }
    job->end = now();
    return NULL;
}

/* Runs the job on all threads at once; seconds from the first start to the last end, or -1. */
static double run(struct job job, int threads) {
    enum { MOST = 256 };
    struct job jobs[MOST];
    pthread_t ids[MOST];
    atomic_int ready = 0;
    if (threads < 1 || threads > MOST) return -1;
    size_t share = job.bytes / (size_t)threads / 4096 * 4096;
    for (int i = 0; i < threads; i++) {
        jobs[i] = job;
        jobs[i].ready = &ready;
        jobs[i].threads = threads;
        if (job.data) jobs[i].data = job.data + share * (size_t)i;
        for (int k = 0; k < job.ins; k++) jobs[i].in[k] += share * (size_t)i;
        for (int k = 0; k < job.outs; k++) jobs[i].out[k] += share * (size_t)i;
        jobs[i].bytes = i + 1 < threads ? share : job.bytes - share * (size_t)i;
    }
    for (int i = 1; i < threads; i++)
        if (pthread_create(&ids[i], NULL, work, &jobs[i]) != 0) return -1;
    work(&jobs[0]);
    for (int i = 1; i < threads; i++) pthread_join(ids[i], NULL);
    double begin = jobs[0].begin, end = jobs[0].end;
    for (int i = 1; i < threads; i++) {
        if (jobs[i].begin < begin) begin = jobs[i].begin;
        if (jobs[i].end > end) end = jobs[i].end;
    }
    return end - begin;
}

/* f32 operations a second of all threads together (a fused multiply-add is two). */
double probe_fma_f32(int threads, int64_t rounds) {
    double s = run((struct job){.kind = FMA_F32, .rounds = rounds}, threads);
    return 2.0 * CHAINS * (WIDTH / sizeof(float)) * (double)rounds * threads / s;
}

/* The same for bf16 dot products; 0 where the processor has none. */
double probe_fma_bf16(int threads, int64_t rounds) {
#if defined(__AVX512BF16__)
    double s = run((struct job){.kind = FMA_BF16, .rounds = rounds}, threads);
    return 2.0 * 16 * 32 * (double)rounds * threads / s;
#else
    (void)threads, (void)rounds;
    return 0;
#endif
}

/* Reads the buffer once, every thread its own part; seconds. */
double probe_read(const void *data, size_t bytes, int threads) {
    return run((struct job){.kind = READ, .data = data, .bytes = bytes}, threads);
}

/* Reads `ins` buffers and writes `outs` (which may be the same), each of `bytes`, 64-byte aligned:
 * 0:1, 1:1, 2:1, 3:1, 3:2, 4:1 or 4:2. Seconds. */
double probe_mix(const void **in, int ins, void **out, int outs, size_t bytes, int threads, int streaming) {
    struct job job = {.kind = MIX, .bytes = bytes, .ins = ins, .outs = outs, .streaming = streaming};
    for (int k = 0; k < ins; k++) job.in[k] = in[k];
    for (int k = 0; k < outs; k++) job.out[k] = out[k];
    return run(job, threads);
}
