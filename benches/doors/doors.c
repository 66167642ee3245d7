/* What a door costs, from C: see benches/README.md.
 *
 *   cargo build --release -p dgm-capi
 *   sh capi/cc.sh benches/doors/doors.c target/doors && target/doors
 */
#define _POSIX_C_SOURCE 199309L
#include <dgm.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TRIALS = 25, CALLS = 1000, FEW = 4, MANY = 1 << 20, STEPS = 16 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(int32_t status)
{
    if (status) {
        fprintf(stderr, "%s\n", dgm_last_error());
        exit(1);
    }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *times)
{
    qsort(times, TRIALS, sizeof *times, by_size);
    return times[TRIALS / 2];
}

static double empty_call(void)
{
    double times[TRIALS];
    for (int i = 0; i < TRIALS; i++) {
        int32_t sum = 0;
        double start = now();
        for (int n = 0; n < CALLS; n++)
            sum += dgm_abi_version();
        times[i] = (now() - start) / CALLS;
        if (sum != CALLS * DGM_ABI_VERSION)
            exit(1);
    }
    return median(times);
}

/* A plan of Euler steps, and the bytes of a run of one row. */
static dgm_plan *euler(int64_t steps, size_t *run_size)
{
    dgm_plan_options options;
    dgm_plan *plan;
    must(dgm_plan_options_init(&options, sizeof options));
    options.solver = DGM_SOLVER_EULER;
    options.steps = steps;
    must(dgm_plan_compile(&options, &plan));
    must(dgm_plan_run_size(plan, 1, run_size));
    return plan;
}

/* Seconds a round trip, over a whole run of Euler steps. */
static double ask_tell(size_t elements, int64_t steps)
{
    size_t size, floats;
    uint64_t seed = 1;
    dgm_plan *plan = euler(steps, &size);
    must(dgm_plan_state_len(plan, 1, elements, &floats));
    char *run = malloc(size);
    float *state = malloc(floats * sizeof *state), *y = calloc(elements, sizeof *y);
    if (!run || !state || !y)
        exit(1);
    double times[TRIALS];
    for (int i = 0; i < TRIALS; i++) {
        must(dgm_run_start(plan, &seed, 1, elements, NULL, run, size, state, floats));
        double start = now();
        int64_t asked = 0;
        dgm_request request = {.struct_size = sizeof request};
        for (;;) {
            must(dgm_run_ask(plan, run, size, &request));
            if (request.done)
                break;
            float *x;
            must(dgm_run_input(plan, run, size, state, floats, &x));
            must(dgm_run_tell(plan, run, size, state, floats, request.eval_id, y, elements));
            asked++;
        }
        times[i] = (now() - start) / (double)asked;
    }
    free(run);
    free(state);
    free(y);
    dgm_plan_free(plan);
    return median(times);
}

/* Seconds a round trip of a run whose tensors are elsewhere: nothing but ask and advance. */
static double ask_advance(size_t elements, int64_t steps)
{
    size_t size;
    uint64_t seed = 1;
    dgm_plan *plan = euler(steps, &size);
    char *run = malloc(size);
    if (!run)
        exit(1);
    double times[TRIALS];
    for (int i = 0; i < TRIALS; i++) {
        must(dgm_run_start_detached(plan, &seed, 1, elements, run, size));
        double start = now();
        int64_t asked = 0;
        dgm_request request = {.struct_size = sizeof request};
        for (;;) {
            must(dgm_run_ask(plan, run, size, &request));
            if (request.done)
                break;
            must(dgm_run_advance(plan, run, size, request.eval_id));
            asked++;
        }
        times[i] = (now() - start) / (double)asked;
    }
    free(run);
    dgm_plan_free(plan);
    return median(times);
}

static double normals(void)
{
    float *out = malloc(MANY * sizeof *out);
    if (!out)
        exit(1);
    int64_t shape[2] = {1, MANY};
    dgm_tensor tensor = {.data = out, .device_type = DGM_DEVICE_CPU, .ndim = 2, .dtype_code = DGM_DTYPE_FLOAT,
                         .dtype_bits = 32, .dtype_lanes = 1, .shape = shape};
    uint64_t seed = 1;
    double times[TRIALS];
    for (int i = 0; i < TRIALS; i++) {
        double start = now();
        must(dgm_random_normal(&seed, 1, 9, (uint32_t)i, &tensor));
        times[i] = now() - start;
    }
    free(out);
    return median(times);
}

/* `empty` is the time of an empty call to compare with; 0 where that means nothing. */
static void report(const char *name, double seconds, double empty)
{
    printf("{\"case\":\"%s, C\",\"group\":\"door\",\"dtype\":\"f32\",\"threads\":%d,\"ours_ms\":%.9f,", name,
           dgm_num_threads(), 1e3 * seconds);
    if (empty > 0)
        printf("\"peers_ms\":{\"empty call\":%.9f},\"best_peer\":\"empty call\",\"ratio\":%.4f,", 1e3 * empty,
               empty / seconds);
    else
        printf("\"peers_ms\":{},\"best_peer\":null,\"ratio\":null,");
    printf("\"limit\":null,\"pct_of_limit\":null}\n");
}

int main(void)
{
    double empty = empty_call();
    report("empty call", empty, 0);
    report("ask and advance without data", ask_advance(FEW, CALLS), empty);
    report("ask and tell of 4 numbers", ask_tell(FEW, CALLS), empty);
    report("Euler step of 1M numbers", ask_tell(MANY, STEPS), 0);
    report("1M normals", normals(), 0);
    return 0;
}
