/* The cost of the door itself: an empty ask/tell round trip, one row of four numbers.
 *
 *   cargo build --release -p dgm-capi
 *   sh capi/cc.sh benches/ask_tell.c target/ask_tell && target/ask_tell
 */
#define _POSIX_C_SOURCE 199309L
#include <dgm.h>

#include <stdio.h>
#include <time.h>

enum { ELEMENTS = 4, STEPS = 1000, TRIALS = 50 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int fail(void)
{
    fprintf(stderr, "%s\n", dgm_last_error());
    return 1;
}

int main(void)
{
    dgm_plan_options options;
    dgm_plan *plan;
    if (dgm_plan_options_init(&options, sizeof options))
        return fail();
    options.solver = DGM_SOLVER_EULER;
    options.steps = STEPS;
    if (dgm_plan_compile(&options, &plan))
        return fail();
    char run[4096];
    float state[64], y[ELEMENTS] = {0};
    size_t run_size, floats;
    uint64_t seed = 1;
    if (dgm_plan_run_size(plan, 1, &run_size) || dgm_plan_state_len(plan, 1, ELEMENTS, &floats))
        return fail();
    if (run_size > sizeof run || floats > sizeof state / sizeof *state)
        return 1;
    double best = 1e9;
    for (int trial = 0; trial < TRIALS; trial++) {
        if (dgm_run_start(plan, &seed, 1, ELEMENTS, NULL, run, run_size, state, floats))
            return fail();
        double start = now();
        long asked = 0;
        dgm_request request = {.struct_size = sizeof request};
        for (;;) {
            if (dgm_run_ask(plan, run, run_size, &request))
                return fail();
            if (request.done)
                break;
            float *x;
            if (dgm_run_input(plan, run, run_size, state, floats, &x) ||
                dgm_run_tell(plan, run, run_size, state, floats, request.eval_id, y, ELEMENTS))
                return fail();
            asked++;
        }
        double each = (now() - start) / (double)asked;
        best = each < best ? each : best;
    }
    printf("ask/tell in C: %.0f ns a round trip\n", best * 1e9);
    dgm_plan_free(plan);
    return 0;
}
