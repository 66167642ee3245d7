/* Threads attend, sample, pack and fail at once while another changes the size of the pool: every
 * result has the bits it had alone, errors belong to their thread, and memory does not grow.
 *
 *   stress [SECONDS]      default 3; run from the root of the repository */
#define _POSIX_C_SOURCE 200809L
#include "check.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { B = 1, H = 4, L = 160, D = 64, ROWS = 4, N = 64, WORKERS = 7 };

static float q[B * H * L * D], reference[B * H * L * D], images[ROWS * N];
static int64_t shape[] = {B, H, L, D}, image_shape[] = {ROWS, 1, 8, 8}, weight_shape[] = {L, D};
static uint64_t seeds[ROWS];
static const int64_t labels[ROWS] = {3, 1, 4, 1};
static dgm_model *model;
static dgm_plan *plan;
static double seconds;

typedef struct worker {
    pthread_t thread;
    int number;
    long rounds, wrong;
} worker;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Resident pages, and threads of this process; 0 where the system does not tell. */
static long resident(void)
{
    long size = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f == NULL || fscanf(f, "%ld %ld", &size, &pages) != 2)
        pages = 0;
    if (f)
        fclose(f);
    return pages;
}

static long threads_alive(void)
{
    char line[256];
    long count = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "Threads: %ld", &count) == 1)
            break;
    if (f)
        fclose(f);
    return count;
}

static int attend(void)
{
    float *out = (float *)malloc(sizeof reference);
    dgm_tensor tq = f32_tensor(q, 4, shape), to = f32_tensor(out, 4, shape);
    int same = out && dgm_attention(&tq, &tq, &tq, NULL, &to, NULL) == DGM_OK && memcmp(out, reference, sizeof reference) == 0;
    free(out);
    return same;
}

static int sample(void)
{
    float out[ROWS * N];
    dgm_tensor to = f32_tensor(out, 4, image_shape);
    return dgm_generate(model, plan, seeds, labels, ROWS, &to) == DGM_OK && memcmp(out, images, sizeof images) == 0;
}

/* Handles come and go. */
static int pack(void)
{
    dgm_linear *layer = NULL;
    dgm_plan *other = NULL;
    dgm_tensor w = f32_tensor(q, 2, weight_shape);
    int good = dgm_linear_pack(&w, NULL, &layer) == DGM_OK && dgm_plan_compile(NULL, &other) == DGM_OK;
    dgm_linear_free(layer);
    dgm_plan_free(other);
    return good;
}

/* A thread reads its own error, whatever fails elsewhere. */
static int fail(int number)
{
    char words[64];
    snprintf(words, sizeof words, "threads is -%d,", number + 1);
    int32_t status = dgm_set_num_threads(-number - 1);
    struct timespec pause = {0, 200000};
    nanosleep(&pause, NULL);
    return status == DGM_ERROR_RANGE && strstr(dgm_last_error(), words) != NULL;
}

static void *work(void *arg)
{
    worker *w = (worker *)arg;
    unsigned pick = (unsigned)w->number;
    for (double end = now() + seconds; now() < end; w->rounds++) {
        int good = 1;
        pick = pick * 1664525u + 1013904223u;
        switch (w->number) {
        case 0:
        case 1:
        case 2:
            good = attend();
            break;
        case 3:
        case 4:
            good = sample();
            break;
        case 5:
            good = dgm_set_num_threads((int32_t)(pick >> 16) % 6 + 1) == DGM_OK && pack();
            break;
        default:
            good = fail(w->number);
        }
        w->wrong += !good;
    }
    return NULL;
}

/* All workers for so long; the rounds they made. */
static long run_workers(double duration)
{
    worker workers[WORKERS];
    long rounds = 0;
    memset(workers, 0, sizeof workers);
    seconds = duration;
    for (int i = 0; i < WORKERS; i++) {
        workers[i].number = i;
        CHECK(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        CHECK(pthread_join(workers[i].thread, NULL) == 0);
        CHECK(workers[i].rounds > 0 && workers[i].wrong == 0);
        if (workers[i].wrong)
            fprintf(stderr, "worker %d: %ld of %ld rounds wrong\n", i, workers[i].wrong, workers[i].rounds);
        rounds += workers[i].rounds;
    }
    return rounds;
}

int main(int argc, char **argv)
{
    double total = argc > 1 ? atof(argv[1]) : 3;
    for (size_t i = 0; i < COUNT(q); i++)
        q[i] = (float)((i * 2654435761u >> 7) % 2001) / 1000.0f - 1.0f;
    dgm_plan_options o;
    OK(dgm_model_load("models/digits.safetensors", &model));
    OK(dgm_plan_options_init(&o, sizeof o));
    OK(dgm_model_plan_options(model, &o));
    o.steps = 2;
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_row_seeds(7, ROWS, seeds));
    OK(dgm_set_num_threads(1));
    dgm_tensor tq = f32_tensor(q, 4, shape), to = f32_tensor(reference, 4, shape), ti = f32_tensor(images, 4, image_shape);
    OK(dgm_attention(&tq, &tq, &tq, NULL, &to, NULL));
    OK(dgm_generate(model, plan, seeds, labels, ROWS, &ti));

    /* The first third fills pools, arenas and scratch; from then on nothing may be added. */
    long rounds = run_workers(total / 3);
    OK(dgm_set_num_threads(1));
    long before = resident();
    rounds += run_workers(total * 2 / 3);
    OK(dgm_set_num_threads(1));
    struct timespec pause = {0, 300000000};
    nanosleep(&pause, NULL); /* threads of the last pools end */
    double grown = (double)(resident() - before) * (double)sysconf(_SC_PAGESIZE) / 1048576.0;
    CHECK(grown < 8);
    CHECK(threads_alive() <= 1);
    printf("%ld rounds in %.0f s, memory grew by %.1f MiB, %ld thread left\n", rounds, total, grown, threads_alive());
    dgm_plan_free(plan);
    dgm_model_free(model);
    return finish("stress");
}
