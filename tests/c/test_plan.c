/* Plans and runs: ask, tell, export, import, the callback driver, and their misuse. */
#include "check.h"

#include <math.h>
#include <stdlib.h>

enum { ROWS = 3, N = 5 };

static const uint64_t seeds[ROWS] = {11, 22, 33};
static char run[4096], copy[4096];
static float state[1024], other[1024], y[ROWS * N], t[ROWS];
static size_t run_size, state_len;

static dgm_plan *compile(int32_t solver, int64_t steps, double guidance)
{
    dgm_plan_options o;
    dgm_plan *plan = NULL;
    OK(dgm_plan_options_init(&o, sizeof o));
    o.solver = solver;
    o.steps = steps;
    o.guidance = guidance;
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_plan_run_size(plan, ROWS, &run_size));
    OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
    CHECK(run_size <= sizeof run && state_len <= COUNT(state));
    return plan;
}

/* A straight path: every solver is exact and ends at the start less 1. Counts its calls. */
static int32_t straight(void *ctx, const dgm_request *r, const float *x, const float *times, float *out)
{
    int *calls = (int *)ctx;
    for (int64_t i = 0; i < r->rows * r->elements; i++)
        out[i] = 1;
    (void)x;
    (void)times;
    ++*calls;
    return 0;
}

static int32_t stop_at_three(void *ctx, const dgm_request *r, const float *x, const float *times, float *out)
{
    return *(int *)ctx == 3 ? 77 : straight(ctx, r, x, times, out);
}

/* Carries the run from wherever it stands to its end. */
static void finish_run(const dgm_plan *plan)
{
    int calls = 0;
    for (;;) {
        dgm_request r = new_request();
        float *x = NULL;
        int32_t status = dgm_run_ask(plan, run, run_size, &r);
        if (status != DGM_OK || r.done)
            break;
        status = dgm_run_times(plan, run, run_size, t, ROWS);
        status = status ? status : dgm_run_input(plan, run, run_size, state, state_len, &x);
        status = status ? status : straight(&calls, &r, x, t, y);
        status = status ? status : dgm_run_tell(plan, run, run_size, state, state_len, r.eval_id, y, ROWS * N);
        if (status != DGM_OK || calls > 1000) {
            CHECK(!"the run came to its end");
            return;
        }
    }
    CHECK(calls > 0);
}

static void every_solver(void)
{
    for (int32_t solver = DGM_SOLVER_EULER; solver <= DGM_SOLVER_BOSH3; solver++) {
        if (solver == DGM_SOLVER_DDPM || solver == DGM_SOLVER_DDIM)
            continue; /* VP only, below */
        dgm_plan_options o;
        dgm_plan *plan = NULL;
        OK(dgm_plan_options_init(&o, sizeof o));
        o.solver = solver;
        o.steps = 6;
        if (dgm_plan_compile(&o, &plan) != DGM_OK) {
            fprintf(stderr, "solver %d: %s\n", (int)solver, dgm_last_error());
            CHECK(!"the plan compiles");
            continue;
        }
        OK(dgm_plan_run_size(plan, ROWS, &run_size));
        OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
        OK(dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len));
        memcpy(other, state, sizeof other);
        finish_run(plan);
        const float *x = NULL;
        OK(dgm_run_result(plan, run, run_size, state, state_len, &x));
        for (int i = 0; x && i < ROWS * N; i++)
            CHECK(fabs((double)x[i] - (double)other[i] + 1) < 1e-3);
        dgm_plan_free(plan);
    }
    static const int32_t vp[] = {DGM_SOLVER_DDPM, DGM_SOLVER_DDIM};
    for (size_t i = 0; i < COUNT(vp); i++) {
        dgm_plan_options o;
        dgm_plan *plan = NULL;
        OK(dgm_plan_options_init(&o, sizeof o));
        o.process = DGM_PROCESS_VP_LINEAR;
        o.prediction = DGM_PREDICTION_X0;
        o.solver = vp[i];
        o.steps = 10;
        OK(dgm_plan_compile(&o, &plan));
        dgm_plan_free(plan);
    }
}

/* What the options that came later do, and that a caller who does not know them is understood. */
static void later_options(void)
{
    dgm_plan_options o;
    dgm_plan *plan = NULL;
    uint64_t hash = 0, same = 0;
    float *x = NULL, data[ROWS * N], mask[ROWS * N];
    const double sigmas[] = {0.5, 0.25, 0};
    size_t outputs = 0, size = 0, len = 0;
    dgm_request r = new_request();
    for (int i = 0; i < ROWS * N; i++) {
        data[i] = 2;
        mask[i] = (float)(i % 2);
    }

    OK(dgm_plan_options_init(&o, sizeof o));
    CHECK(o.sde_eta == 1 && o.rho == 7 && o.sigmas == NULL && o.guidance_end == 1);
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_plan_hash(plan, &hash));
    double alpha, sigma;
    OK(dgm_plan_level(plan, 0.25, &alpha, &sigma));
    CHECK(alpha == 0.75 && sigma == 0.25);
    dgm_plan_free(plan);
    OK(dgm_plan_options_init(&o, offsetof(dgm_plan_options, order)));
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_plan_hash(plan, &same));
    CHECK(hash == same);
    dgm_plan_free(plan);

    OK(dgm_plan_options_preset(&o, "sd3"));
    CHECK(o.shift == 3 && o.steps == 28 && o.order == 0);
    FAILS(DGM_ERROR_ARGUMENT, "preset is", dgm_plan_options_preset(&o, "sd9"));
    FAILS(DGM_ERROR_NULL, "name is null", dgm_plan_options_preset(&o, NULL));

    OK(dgm_plan_options_init(&o, sizeof o));
    o.sigmas = sigmas;
    o.sigmas_len = COUNT(sigmas);
    o.inpaint = 1;
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_plan_outputs(plan, &outputs));
    CHECK(outputs == 1);
    OK(dgm_plan_run_size(plan, ROWS, &size));
    OK(dgm_plan_state_len(plan, ROWS, N, &len));
    CHECK(size <= sizeof run && len == 3 * ROWS * N && len <= COUNT(state));
    float *big = state;
    OK(dgm_run_start_from(plan, seeds, ROWS, N, data, run, size, big, len));
    OK(dgm_run_set_known(plan, run, size, big, len, data, mask, ROWS * N));
    OK(dgm_run_ask(plan, run, size, &r));
    CHECK(r.t == 0.5 && r.t_to == 0.25);
    FAILS(DGM_ERROR_RANGE, "mask", dgm_run_set_known(plan, run, size, big, len, data, data, ROWS * N));
    FAILS(DGM_ERROR_NULL, "known is null", dgm_run_set_known(plan, run, size, big, len, NULL, mask, ROWS * N));
    FAILS(DGM_ERROR_NULL, "data is null", dgm_run_start_from(plan, seeds, ROWS, N, NULL, run, size, big, len));
    while (!r.done) {
        OK(dgm_run_input(plan, run, size, big, len, &x));
        memset(y, 0, sizeof y);
        OK(dgm_run_tell(plan, run, size, big, len, r.eval_id, y, ROWS * N));
        r = new_request();
        OK(dgm_run_ask(plan, run, size, &r));
    }
    for (int i = 1; i < ROWS * N; i += 2) {
        CHECK(big[i] == 2);
    }
    dgm_plan_free(plan);

    o.inpaint = 2;
    FAILS(DGM_ERROR_ARGUMENT, "inpaint is 2", dgm_plan_compile(&o, &plan));
    o.inpaint = 0;
    o.guidance_mode = 9;
    FAILS(DGM_ERROR_ARGUMENT, "guidance_mode is 9", dgm_plan_compile(&o, &plan));
    o.guidance_mode = 0;
    o.sigmas_len = 0;
    FAILS(DGM_ERROR_SHAPE, "sigmas", dgm_plan_compile(&o, &plan));
}

/* Outputs of one input, one after the other or at once. */
static void together(void)
{
    dgm_plan *plan = compile(DGM_SOLVER_HEUN, 3, 2.5);
    float both[2 * ROWS * N], bits[ROWS * N];
    float *big = other;
    for (int i = 0; i < 2 * ROWS * N; i++)
        both[i] = (float)i / (ROWS * N) - 1;
    for (int joined = 0; joined < 2; joined++) {
        OK(dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, big, state_len));
        for (;;) {
            dgm_request r = new_request();
            OK(dgm_run_ask(plan, run, run_size, &r));
            if (r.done)
                break;
            CHECK(r.roles == (r.role == DGM_ROLE_COND ? 3u : 2u));
            if (joined)
                OK(dgm_run_tell(plan, run, run_size, big, state_len, r.eval_id, both, COUNT(both)));
            else
                OK(dgm_run_tell(plan, run, run_size, big, state_len, r.eval_id, both + r.role * ROWS * N, ROWS * N));
        }
        if (joined)
            CHECK(memcmp(bits, big, sizeof bits) == 0);
        else
            memcpy(bits, big, sizeof bits);
    }
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, big, state_len));
    OK(dgm_run_tell(plan, run, run_size, big, state_len, 1, both, ROWS * N));
    FAILS(DGM_ERROR_SHAPE, "y has shape", dgm_run_tell(plan, run, run_size, big, state_len, 2, both, COUNT(both)));
    OK(dgm_run_tell(plan, run, run_size, big, state_len, 2, both, ROWS * N));
    FAILS(DGM_ERROR_SHAPE, "up to 2 outputs", dgm_run_tell(plan, run, run_size, big, state_len, 3, both, COUNT(both) - 1));
    dgm_plan_free(plan);
}

static void driver(void)
{
    dgm_plan *plan = compile(DGM_SOLVER_HEUN, 4, 1);
    int calls = 0;
    OK(dgm_sample(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len, y, t, straight, &calls));
    CHECK(calls >= 7);
    memcpy(other, state, sizeof other);

    /* A model that stops leaves a run that can go on. */
    calls = 0;
    STATUS(77, dgm_sample(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len, y, t, stop_at_three, &calls));
    dgm_request r = new_request();
    OK(dgm_run_ask(plan, run, run_size, &r));
    CHECK(!r.done && r.eval_id == 4);
    finish_run(plan);
    CHECK(memcmp(state, other, ROWS * N * sizeof *state) == 0);

    FAILS(DGM_ERROR_NULL, "model is null",
          dgm_sample(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len, y, t, NULL, NULL));
    FAILS(DGM_ERROR_NULL, "y is null",
          dgm_sample(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len, NULL, t, straight, &calls));
    FAILS(DGM_ERROR_NULL, "t is null",
          dgm_sample(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len, y, NULL, straight, &calls));
    FAILS(DGM_ERROR_NULL, "plan is null",
          dgm_sample(NULL, seeds, ROWS, N, NULL, run, run_size, state, state_len, y, t, straight, &calls));
    dgm_plan_free(plan);
}

/* x decays, and stops at the evaluation that ctx names. */
static int32_t decay(void *ctx, const dgm_request *r, const float *x, const float *times, float *out)
{
    (void)times;
    for (int64_t i = 0; i < r->rows * r->elements; i++)
        out[i] = 0.25f * x[i];
    return r->eval_id == *(uint64_t *)ctx ? 77 : 0;
}

/* States from which the driver keeps a second one: the walk ends in the caller's, also where the model stops it. */
static void large_driver(int32_t solver)
{
    enum { LARGE = 1 << 20 };
    dgm_plan *plan = compile(solver, 9, 1);
    size_t floats, size;
    OK(dgm_plan_state_len(plan, 1, LARGE, &floats));
    OK(dgm_plan_run_size(plan, 1, &size));
    float *whole = (float *)malloc(2 * floats * sizeof *whole), *part = whole + floats, *out = (float *)malloc(LARGE * sizeof *out);
    CHECK(whole && out);
    for (uint64_t stop = 0; stop < 10; stop += 3) {
        OK(dgm_run_start(plan, seeds, 1, LARGE, NULL, run, size, whole, floats));
        for (;;) {
            dgm_request r = new_request();
            OK(dgm_run_ask(plan, run, size, &r));
            if (r.done || r.eval_id == stop)
                break;
            float *x;
            OK(dgm_run_input(plan, run, size, whole, floats, &x));
            uint64_t none = 0;
            OK(decay(&none, &r, x, t, out));
            OK(dgm_run_tell(plan, run, size, whole, floats, r.eval_id, out, LARGE));
        }
        STATUS(stop ? 77 : DGM_OK, dgm_sample(plan, seeds, 1, LARGE, NULL, copy, size, part, floats, out, t, decay, &stop));
        CHECK(memcmp(run, copy, size) == 0 && memcmp(whole, part, floats * sizeof *whole) == 0);
    }
    free(whole);
    free(out);
    dgm_plan_free(plan);
}

static void guidance(int32_t mode, int32_t second)
{
    dgm_plan_options o;
    dgm_plan *plan = NULL;
    OK(dgm_plan_options_init(&o, sizeof o));
    o.steps = 2;
    o.guidance = 3;
    o.guidance_mode = mode;
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_plan_run_size(plan, ROWS, &run_size));
    OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len));
    int32_t roles[] = {DGM_ROLE_COND, second, DGM_ROLE_COND, second};
    for (size_t i = 0; i < COUNT(roles); i++) {
        dgm_request r = new_request();
        OK(dgm_run_ask(plan, run, run_size, &r));
        CHECK(r.role == roles[i] && r.eval_id == i + 1 && r.step == (int64_t)i / 2 && !r.done);
        CHECK(r.rows == ROWS && r.elements == N && r.active_rows == ROWS && r.uniform_t == 1);
        NEAR(r.t, 1 - (double)(i / 2) / 2);
        NEAR(r.sigma, r.t);
        NEAR(r.alpha, 1 - r.t);
        OK(dgm_run_tell(plan, run, run_size, state, state_len, r.eval_id, y, ROWS * N));
    }
    dgm_request r = new_request();
    OK(dgm_run_ask(plan, run, run_size, &r));
    CHECK(r.done == 1);
    FAILS(DGM_ERROR_STATE, "done", dgm_run_tell(plan, run, run_size, state, state_len, 5, y, ROWS * N));
    dgm_plan_free(plan);
}

/* Classifier-free guidance and autoguidance: three requests a step, one output. */
static void two_guidances(void)
{
    dgm_plan_options o;
    dgm_plan *plan = NULL;
    float zero[ROWS * N] = {0};
    const float *x = NULL;
    OK(dgm_plan_options_init(&o, sizeof o));
    CHECK(o.guidance_weak == 1 && o.snr == 0.16 && o.corrector_steps == 1);
    o.steps = 1;
    o.guidance = 3;
    o.guidance_weak = 2;
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_plan_run_size(plan, ROWS, &run_size));
    OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
    OK(dgm_run_start(plan, seeds, ROWS, N, zero, run, run_size, state, state_len));
    const int32_t roles[] = {DGM_ROLE_COND, DGM_ROLE_UNCOND, DGM_ROLE_WEAK};
    const float outputs[] = {0.5f, 0.25f, 0.125f};
    for (size_t i = 0; i < COUNT(roles); i++) {
        dgm_request r = new_request();
        OK(dgm_run_ask(plan, run, run_size, &r));
        CHECK(r.role == roles[i]);
        for (size_t k = 0; k < ROWS * N; k++)
            y[k] = outputs[i];
        OK(dgm_run_tell(plan, run, run_size, state, state_len, r.eval_id, y, ROWS * N));
    }
    OK(dgm_run_result(plan, run, run_size, state, state_len, &x));
    for (size_t k = 0; k < ROWS * N; k++)
        CHECK(x[k] == -(0.25f + 3 * 0.25f + 0.375f));
    memset(y, 0, sizeof y);
    dgm_plan_free(plan);
}

/* Asks and tells until the run is done, with the slope of `f`. */
static void walk_with(dgm_plan *plan, const float *start, double (*f)(double t, double x))
{
    OK(dgm_plan_run_size(plan, ROWS, &run_size));
    OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
    CHECK(run_size <= sizeof run && state_len <= COUNT(state));
    OK(dgm_run_start(plan, seeds, ROWS, N, start, run, run_size, state, state_len));
    for (int calls = 0; calls < 2000; calls++) {
        dgm_request r = new_request();
        float *in = NULL;
        OK(dgm_run_ask(plan, run, run_size, &r));
        if (r.done)
            return;
        OK(dgm_run_input(plan, run, run_size, state, state_len, &in));
        for (size_t k = 0; k < ROWS * N; k++)
            y[k] = (float)f(r.t, in[k]);
        OK(dgm_run_tell(plan, run, run_size, state, state_len, r.eval_id, y, ROWS * N));
    }
    CHECK(!"the run came to its end");
}

static double jump(double t, double x)
{
    (void)x;
    CHECK((float)t != 0.25f && (float)t != 0.75f);
    return t < 0.25 ? 1 : t < 0.75 ? -2 : 3;
}

static double no_data(double t, double x)
{
    (void)t;
    (void)x;
    return 0;
}

/* Steps that end where the slope jumps integrate it exactly; DPM-Solver takes x along its noise. */
static void stops_and_lambda(void)
{
    static const double stops[] = {0.25, 0.75};
    static const int32_t pairs[] = {DGM_SOLVER_BOSH3, DGM_SOLVER_DOPRI5, DGM_SOLVER_TSIT5},
                         lambda[] = {DGM_SOLVER_DPM_12, DGM_SOLVER_DPM_23};
    float start[ROWS * N];
    const float *x = NULL;
    dgm_plan_options o;
    dgm_plan *plan = NULL;
    for (size_t i = 0; i < ROWS * N; i++)
        start[i] = 0.5f;
    for (size_t s = 0; s < COUNT(pairs); s++) {
        OK(dgm_plan_options_init(&o, sizeof o));
        CHECK(!o.stop_at && o.stop_at_len == 0);
        o.process = DGM_PROCESS_ODE;
        o.solver = pairs[s];
        o.stop_at = stops;
        o.stop_at_len = COUNT(stops);
        OK(dgm_plan_compile(&o, &plan));
        walk_with(plan, start, jump);
        OK(dgm_run_result(plan, run, run_size, state, state_len, &x));
        for (size_t k = 0; k < ROWS * N; k++)
            CHECK(fabs(x[k] - 0.5) < 1e-6);
        dgm_plan_free(plan);
        o.solver = DGM_SOLVER_HEUN;
        FAILS(DGM_ERROR_ARGUMENT, "stop_at", dgm_plan_compile(&o, &plan));
        o.solver = pairs[s];
        o.stop_at_len = 0;
        FAILS(DGM_ERROR_SHAPE, "stop_at", dgm_plan_compile(&o, &plan));
    }
    for (size_t s = 0; s < COUNT(lambda); s++) {
        OK(dgm_plan_options_init(&o, sizeof o));
        o.process = DGM_PROCESS_VE;
        o.prediction = DGM_PREDICTION_X0;
        o.solver = lambda[s];
        OK(dgm_plan_compile(&o, &plan));
        walk_with(plan, start, no_data);
        OK(dgm_run_result(plan, run, run_size, state, state_len, &x));
        for (size_t k = 0; k < ROWS * N; k++)
            CHECK(fabs(x[k] - 0.5 * 0.01 / 50) < 1e-6);
        dgm_plan_free(plan);
        o.process = DGM_PROCESS_ODE;
        o.prediction = DGM_PREDICTION_VELOCITY;
        FAILS(DGM_ERROR_ARGUMENT, "solver", dgm_plan_compile(&o, &plan));
    }
}

/* dx/dt = -x over three time units, kept on the way and at the end. */
static void ode(void)
{
    static const double saves[] = {0, 1, 3}, pi[] = {0.7, -0.4};
    static const double expected[] = {1, 0.36787944117144233, 0.049787068367863944};
    static const int32_t solvers[] = {DGM_SOLVER_BOSH3, DGM_SOLVER_DOPRI5, DGM_SOLVER_TSIT5};
    float start[ROWS * N];
    for (size_t i = 0; i < ROWS * N; i++)
        start[i] = 1;
    for (size_t s = 0; s < COUNT(solvers); s++) {
        dgm_plan_options o;
        dgm_plan *plan = NULL;
        const float *kept = NULL, *x = NULL;
        OK(dgm_plan_options_init(&o, sizeof o));
        CHECK(o.t_start == 0 && o.t_end == 1 && !o.save_at && !o.controller);
        o.process = DGM_PROCESS_ODE;
        o.solver = solvers[s];
        o.t_end = 3;
        o.rtol = o.atol = 1e-5;
        o.save_at = saves;
        o.save_at_len = COUNT(saves);
        o.controller = pi;
        o.controller_len = COUNT(pi);
        OK(dgm_plan_compile(&o, &plan));
        OK(dgm_plan_run_size(plan, ROWS, &run_size));
        OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
        CHECK(run_size <= sizeof run && state_len <= COUNT(state));
        OK(dgm_run_start(plan, seeds, ROWS, N, start, run, run_size, state, state_len));
        for (;;) {
            dgm_request r = new_request();
            float *in = NULL;
            OK(dgm_run_ask(plan, run, run_size, &r));
            if (r.done)
                break;
            OK(dgm_run_input(plan, run, run_size, state, state_len, &in));
            for (size_t k = 0; k < ROWS * N; k++)
                y[k] = -in[k];
            OK(dgm_run_tell(plan, run, run_size, state, state_len, r.eval_id, y, ROWS * N));
        }
        OK(dgm_run_saved(plan, run, run_size, state, state_len, &kept));
        OK(dgm_run_result(plan, run, run_size, state, state_len, &x));
        for (size_t k = 0; k < COUNT(saves) * ROWS * N; k++) {
            double error = kept[k] - expected[k / (ROWS * N)];
            CHECK(error < 3e-5 && error > -3e-5);
        }
        CHECK(memcmp(kept + 2 * ROWS * N, x, sizeof start) == 0);
        dgm_plan_free(plan);
    }
    memset(y, 0, sizeof y);
}

/* Without noise every method for sdes integrates its drift; with noise the diffusion is asked for too. */
static void sde(void)
{
    float start[ROWS * N], both[2 * ROWS * N];
    for (size_t i = 0; i < ROWS * N; i++)
        start[i] = 1;
    for (int32_t solver = DGM_SOLVER_EULER_MARUYAMA; solver <= DGM_SOLVER_SRIW1; solver++) {
        float moved = 0;
        for (int noisy = 0; noisy < 2; noisy++) {
            dgm_plan_options o;
            dgm_plan *plan = NULL;
            const float *x = NULL;
            size_t outputs = 0;
            OK(dgm_plan_options_init(&o, sizeof o));
            o.process = DGM_PROCESS_SDE;
            o.solver = solver;
            o.steps = 100;
            OK(dgm_plan_compile(&o, &plan));
            OK(dgm_plan_outputs(plan, &outputs));
            CHECK(outputs == 2);
            OK(dgm_plan_run_size(plan, ROWS, &run_size));
            OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
            CHECK(run_size <= sizeof run && state_len <= COUNT(state));
            OK(dgm_run_start(plan, seeds, ROWS, N, start, run, run_size, state, state_len));
            for (;;) {
                dgm_request r = new_request();
                float *in = NULL;
                OK(dgm_run_ask(plan, run, run_size, &r));
                if (r.done)
                    break;
                OK(dgm_run_input(plan, run, run_size, state, state_len, &in));
                for (size_t row = 0; row < ROWS; row++)
                    for (size_t k = 0; k < N; k++) {
                        both[2 * row * N + k] = -in[row * N + k];
                        both[(2 * row + 1) * N + k] = noisy ? 0.5f : 0;
                    }
                OK(dgm_run_tell(plan, run, run_size, state, state_len, r.eval_id, both, 2 * ROWS * N));
            }
            OK(dgm_run_result(plan, run, run_size, state, state_len, &x));
            for (size_t k = 0; k < ROWS * N; k++) {
                double error = x[k] - 0.36787944117144233;
                CHECK(noisy || (error < 2e-3 && error > -2e-3));
                moved += noisy ? (x[k] - 0.3678794f) * (x[k] - 0.3678794f) : 0;
            }
            dgm_plan_free(plan);
        }
        CHECK(moved > 1e-3f);
    }
}

/* An output that is not finite: refused, or computed with. */
static void non_finite(void)
{
    for (int32_t choice = DGM_NON_FINITE_REFUSE; choice <= DGM_NON_FINITE_PROPAGATE; choice++) {
        dgm_plan_options o;
        dgm_plan *plan = NULL;
        dgm_request r = new_request();
        const float *x = NULL;
        OK(dgm_plan_options_init(&o, sizeof o));
        CHECK(o.non_finite == DGM_NON_FINITE_REFUSE);
        o.steps = 1;
        o.non_finite = choice;
        OK(dgm_plan_compile(&o, &plan));
        OK(dgm_plan_run_size(plan, ROWS, &run_size));
        OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
        OK(dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len));
        OK(dgm_run_ask(plan, run, run_size, &r));
        for (size_t k = 0; k < ROWS * N; k++)
            y[k] = k == 1 ? NAN : 0;
        int32_t status = dgm_run_tell(plan, run, run_size, state, state_len, r.eval_id, y, ROWS * N);
        CHECK(status == (choice == DGM_NON_FINITE_REFUSE ? DGM_ERROR_STATE : DGM_OK));
        OK(dgm_run_result(plan, run, run_size, state, state_len, &x));
        for (size_t k = 0; k < ROWS * N; k++)
            CHECK(isfinite(x[k]) == (k != 1 || choice == DGM_NON_FINITE_REFUSE));
        dgm_plan_free(plan);
        o.solver = DGM_SOLVER_TSIT5;
        plan = NULL;
        CHECK(dgm_plan_compile(&o, &plan) == (choice == DGM_NON_FINITE_REFUSE ? DGM_OK : DGM_ERROR_ARGUMENT));
        dgm_plan_free(plan);
    }
}

/* Data N(0, 9) becomes N(0, 1) along dx/dt = -ln(3) x. */
static void log_density(void)
{
    const double rate = -1.0986122886681098, tau = 1.8378770664093453;
    for (int32_t kind = DGM_LIKELIHOOD_EXACT; kind <= DGM_LIKELIHOOD_HUTCHINSON_NORMAL; kind++) {
        dgm_plan_options o;
        dgm_plan *plan = NULL;
        float start[ROWS * N], e[ROWS * N];
        double numbers[ROWS], log_p[ROWS], bits[ROWS], walked[ROWS];
        size_t wanted = 0;
        OK(dgm_plan_options_init(&o, sizeof o));
        CHECK(o.likelihood == DGM_LIKELIHOOD_NONE);
        o.process = DGM_PROCESS_ODE;
        o.solver = DGM_SOLVER_DOPRI5;
        o.likelihood = kind;
        o.rtol = o.atol = 1e-6;
        OK(dgm_plan_compile(&o, &plan));
        OK(dgm_plan_numbers(plan, &wanted));
        CHECK(wanted == 1);
        OK(dgm_plan_run_size(plan, ROWS, &run_size));
        OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
        CHECK(run_size <= sizeof run && state_len <= COUNT(state));
        for (size_t k = 0; k < ROWS * N; k++)
            start[k] = (float)(k % 5) - 2;
        OK(dgm_run_start(plan, seeds, ROWS, N, start, run, run_size, state, state_len));
        if (kind == DGM_LIKELIHOOD_EXACT)
            CHECK(dgm_run_probe(plan, run, run_size, e, COUNT(e)) == DGM_ERROR_STATE);
        else
            OK(dgm_run_probe(plan, run, run_size, e, COUNT(e)));
        CHECK(dgm_run_log_density(plan, run, run_size, state, state_len, log_p, NULL, ROWS) == DGM_ERROR_STATE);
        for (size_t r = 0; r < ROWS; r++) {
            numbers[r] = 0;
            for (size_t k = 0; k < N; k++)
                numbers[r] += rate * (kind == DGM_LIKELIHOOD_EXACT ? 1 : e[r * N + k] * e[r * N + k]);
        }
        for (;;) {
            dgm_request r = new_request();
            float *in = NULL;
            OK(dgm_run_ask(plan, run, run_size, &r));
            if (r.done)
                break;
            OK(dgm_run_input(plan, run, run_size, state, state_len, &in));
            for (size_t k = 0; k < ROWS * N; k++)
                y[k] = (float)rate * in[k];
            CHECK(dgm_run_tell(plan, run, run_size, state, state_len, r.eval_id, y, ROWS * N) == DGM_ERROR_SHAPE);
            OK(dgm_run_tell_with(plan, run, run_size, state, state_len, r.eval_id, y, ROWS * N, numbers, ROWS));
        }
        OK(dgm_run_log_density(plan, run, run_size, state, state_len, log_p, bits, ROWS));
        OK(dgm_run_divergence(plan, run, run_size, walked, ROWS));
        for (size_t r = 0; r < ROWS; r++) {
            double expected = numbers[r], error = walked[r] - numbers[r];
            CHECK(error < 1e-6 && error > -1e-6);
            for (size_t k = 0; k < N; k++)
                expected -= 0.5 * (start[r * N + k] * start[r * N + k] / 9 + tau);
            CHECK(log_p[r] - expected < 1e-3 && expected - log_p[r] < 1e-3);
            error = bits[r] + log_p[r] / (N * 0.6931471805599453);
            CHECK(error < 1e-9 && error > -1e-9);
        }
        dgm_plan_free(plan);
    }
    memset(y, 0, sizeof y);
}

/* Standard normals: chains keep their variance; a wall that is no density is never entered. */
static void chains(void)
{
    enum { CHAINS = 64, STEPS = 120 };
    static float x_state[CHAINS * 6], x_y[CHAINS];
    static char x_run[16384];
    static uint64_t x_seeds[CHAINS], accepted[CHAINS];
    static double log_p[CHAINS], sizes[CHAINS], draws[CHAINS * STEPS];
    static const int32_t solvers[] = {DGM_SOLVER_MALA, DGM_SOLVER_HMC};
    OK(dgm_row_seeds(5, CHAINS, x_seeds));
    for (size_t s = 0; s < COUNT(solvers); s++) {
        dgm_plan_options o;
        dgm_plan *plan = NULL;
        size_t size = 0, len = 0, numbers = 0;
        const float *x = NULL;
        double square = 0, r_hat = 0, effective = 0;
        uint64_t taken = 0;
        OK(dgm_plan_options_init(&o, sizeof o));
        CHECK(o.step_size == 0.1 && o.leapfrog == 10 && o.warmup == 0 && o.target_accept == 0);
        o.process = DGM_PROCESS_TARGET;
        o.prediction = DGM_PREDICTION_SCORE;
        o.solver = solvers[s];
        o.steps = STEPS;
        o.warmup = STEPS / 2;
        OK(dgm_plan_compile(&o, &plan));
        OK(dgm_plan_numbers(plan, &numbers));
        CHECK(numbers == 1);
        OK(dgm_plan_run_size(plan, CHAINS, &size));
        OK(dgm_plan_state_len(plan, CHAINS, 1, &len));
        CHECK(size <= sizeof x_run && len <= COUNT(x_state));
        OK(dgm_run_start(plan, x_seeds, CHAINS, 1, NULL, x_run, size, x_state, len));
        for (;;) {
            dgm_request r = new_request();
            float *in = NULL;
            OK(dgm_run_ask(plan, x_run, size, &r));
            OK(dgm_run_result(plan, x_run, size, x_state, len, &x));
            for (size_t k = 0; k < CHAINS && !r.done; k++)
                draws[k * STEPS + (size_t)r.step] = x[k];
            if (r.done)
                break;
            OK(dgm_run_input(plan, x_run, size, x_state, len, &in));
            for (size_t k = 0; k < CHAINS; k++) {
                x_y[k] = -in[k];
                log_p[k] = in[k] > 3 ? -INFINITY : -0.5 * in[k] * in[k];
            }
            OK(dgm_run_tell_with(plan, x_run, size, x_state, len, r.eval_id, x_y, CHAINS, log_p, CHAINS));
        }
        OK(dgm_run_accepted(plan, x_run, size, accepted, CHAINS));
        OK(dgm_run_step_sizes(plan, x_run, size, sizes, CHAINS));
        for (size_t k = 0; k < CHAINS; k++) {
            taken += accepted[k];
            CHECK(accepted[k] <= STEPS / 2 && sizes[k] > 0.05);
            for (size_t i = 0; i < STEPS; i++)
                square += draws[k * STEPS + i] * draws[k * STEPS + i] / (CHAINS * STEPS);
            CHECK(x[k] <= 3);
        }
        CHECK(taken > CHAINS * STEPS / 5);
        CHECK(square > 0.8 && square < 1.2);
        OK(dgm_split_r_hat(draws, COUNT(draws), CHAINS, &r_hat));
        OK(dgm_effective_sample_size(draws, COUNT(draws), CHAINS, &effective));
        CHECK(r_hat < 1.1 && effective > 500);
        CHECK(dgm_split_r_hat(draws, 7, 2, &r_hat) == DGM_ERROR_SHAPE);
        dgm_plan_free(plan);
    }
}

static void checkpoint(void)
{
    dgm_plan *plan = compile(DGM_SOLVER_DPMPP_2M, 6, 1), *another = compile(DGM_SOLVER_DPMPP_2M, 7, 1);
    int calls = 0;
    OK(dgm_plan_run_size(plan, ROWS, &run_size));
    OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
    OK(dgm_sample(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len, y, t, straight, &calls));
    memcpy(other, state, sizeof other);
    calls = 0;
    STATUS(77, dgm_sample(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len, y, t, stop_at_three, &calls));

    size_t size = 0, written = 0, rows = 0, elements = 0;
    OK(dgm_run_export_size(plan, run, run_size, &size));
    char *block = (char *)malloc(size);
    FAILS(DGM_ERROR_RANGE, "cap", dgm_run_export(plan, run, run_size, state, state_len, block, size - 1, &written));
    FAILS(DGM_ERROR_NULL, "buf", dgm_run_export(plan, run, run_size, state, state_len, NULL, size, &written));
    OK(dgm_run_export(plan, run, run_size, state, state_len, block, size, &written));
    CHECK(written == size);
    OK(dgm_run_peek(block, size, &rows, &elements));
    CHECK(rows == ROWS && elements == N);
    memset(run, 0, sizeof run);
    memset(state, 0, sizeof state);
    FAILS(DGM_ERROR_STATE, "plan", dgm_run_import(another, block, size, run, run_size, state, state_len));
    OK(dgm_run_import(plan, block, size, run, run_size, state, state_len));
    finish_run(plan);
    CHECK(memcmp(state, other, ROWS * N * sizeof *state) == 0);

    block[size / 2] ^= 1;
    STATUS(DGM_ERROR_FORMAT, dgm_run_import(plan, block, size, run, run_size, state, state_len));
    block[size / 2] ^= 1;
    STATUS(DGM_ERROR_FORMAT, dgm_run_import(plan, block, size - 9, run, run_size, state, state_len));
    STATUS(DGM_ERROR_FORMAT, dgm_run_peek(block, 3, &rows, &elements));
    FAILS(DGM_ERROR_NULL, "rows", dgm_run_peek(block, size, NULL, &elements));
    FAILS(DGM_ERROR_RANGE, "run_size", dgm_run_import(plan, block, size, run, 7, state, state_len));
    STATUS(DGM_ERROR_SHAPE, dgm_run_import(plan, block, size, run, run_size, state, state_len - 1));
    free(block);
    dgm_plan_free(plan);
    dgm_plan_free(another);
}

static void misuse(void)
{
    dgm_plan *plan = compile(DGM_SOLVER_EULER, 4, 1), *another = compile(DGM_SOLVER_EULER, 5, 1);
    dgm_request r = new_request();
    float *x = y;
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len));
    memcpy(other, state, sizeof other);
    memcpy(copy, run, sizeof copy);

    FAILS(DGM_ERROR_NULL, "run is null", dgm_run_ask(plan, NULL, run_size, &r));
    FAILS(DGM_ERROR_NULL, "request is null", dgm_run_ask(plan, run, run_size, NULL));
    FAILS(DGM_ERROR_STATE, "plan", dgm_run_ask(another, run, run_size, &r));
    STATUS(DGM_ERROR_FORMAT, dgm_run_ask(plan, run, 5, &r));
    r.struct_size = 0;
    FAILS(DGM_ERROR_ARGUMENT, "struct_size 0", dgm_run_ask(plan, run, run_size, &r));
    r.struct_size = 24; /* an older caller */
    r.step = -9;
    OK(dgm_run_ask(plan, run, run_size, &r));
    CHECK(r.eval_id == 1 && r.step == -9);
    STATUS(DGM_ERROR_SHAPE, dgm_run_times(plan, run, run_size, t, ROWS - 1));
    FAILS(DGM_ERROR_NULL, "t is null", dgm_run_times(plan, run, run_size, NULL, ROWS));
    STATUS(DGM_ERROR_SHAPE, dgm_run_input(plan, run, run_size, state, state_len - 1, &x));
    CHECK(x == NULL);
    FAILS(DGM_ERROR_NULL, "x is null", dgm_run_input(plan, run, run_size, state, state_len, NULL));
    STATUS(DGM_ERROR_STATE, dgm_run_tell(plan, run, run_size, state, state_len, 2, y, ROWS * N));
    STATUS(DGM_ERROR_SHAPE, dgm_run_tell(plan, run, run_size, state, state_len, 1, y, ROWS * N - 1));
    FAILS(DGM_ERROR_NULL, "y is null", dgm_run_tell(plan, run, run_size, state, state_len, 1, NULL, ROWS * N));
    FAILS(DGM_ERROR_ALIAS, "state overlaps y", dgm_run_tell(plan, run, run_size, state, state_len, 1, state, ROWS * N));
    y[7] = NAN;
    FAILS(DGM_ERROR_STATE, "row 1", dgm_run_tell(plan, run, run_size, state, state_len, 1, y, ROWS * N));
    y[7] = 0;
    CHECK(memcmp(state, other, sizeof other) == 0 && memcmp(run, copy, sizeof copy) == 0);
    OK(dgm_run_tell(plan, run, run_size, state, state_len, 1, y, ROWS * N));
    FAILS(DGM_ERROR_STATE, "already", dgm_run_tell(plan, run, run_size, state, state_len, 1, y, ROWS * N));
    run[20] ^= 1;
    STATUS(DGM_ERROR_FORMAT, dgm_run_ask(plan, run, run_size, &r));

    FAILS(DGM_ERROR_NULL, "seeds", dgm_run_start(plan, NULL, ROWS, N, NULL, run, run_size, state, state_len));
    FAILS(DGM_ERROR_NULL, "state", dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, NULL, state_len));
    FAILS(DGM_ERROR_RANGE, "run_size", dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size - 1, state, state_len));
    FAILS(DGM_ERROR_RANGE, "state_len", dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, state, 1));
    STATUS(DGM_ERROR_RANGE, dgm_run_start(plan, seeds, 0, N, NULL, run, run_size, state, state_len));
    STATUS(DGM_ERROR_OVERFLOW, dgm_run_start(plan, seeds, SIZE_MAX / 8, SIZE_MAX / 8, NULL, run, run_size, state, state_len));
    FAILS(DGM_ERROR_ALIAS, "run overlaps state", dgm_run_start(plan, seeds, ROWS, N, NULL, state, run_size, state, state_len));
    FAILS(DGM_ERROR_ALIAS, "state overlaps x_start", dgm_run_start(plan, seeds, ROWS, N, state, run, run_size, state, state_len));
    OK(dgm_run_start(plan, seeds, ROWS, N, y, run, run_size, state, state_len));
    CHECK(memcmp(state, y, sizeof y) == 0);
    dgm_plan_free(plan);
    dgm_plan_free(another);
}

static void plans(void)
{
    dgm_plan_options o, again;
    dgm_plan *plan = NULL, *same = NULL;
    OK(dgm_plan_options_init(&o, sizeof o));
    CHECK(o.struct_size == sizeof o && o.process == DGM_PROCESS_FLOW && o.prediction == DGM_PREDICTION_VELOCITY);
    CHECK(o.solver == DGM_SOLVER_EULER && o.steps == 16 && o.shift == 1 && o.guidance == 1 && o.clip == 0);
    CHECK(o.train_steps == 1000 && o.times == NULL && o.times_len == 0 && o.max_evals == 10000);
    memset(&again, 0xff, sizeof again);
    OK(dgm_plan_options_init(&again, 24)); /* an older caller: nothing is written beyond */
    CHECK(again.struct_size == 24 && again.process == 0 && again.steps == -1);

    OK(dgm_plan_compile(NULL, &plan));
    OK(dgm_plan_compile(&again, &same));
    uint64_t h1 = 0, h2 = 1;
    OK(dgm_plan_hash(plan, &h1));
    OK(dgm_plan_hash(same, &h2));
    CHECK(h1 == h2);
    dgm_plan_free(same);
    size_t slots = 0, needed = 0;
    OK(dgm_plan_slots(plan, &slots));
    CHECK(slots >= 1);
    OK(dgm_plan_describe(plan, NULL, 0, &needed));
    char *text = (char *)malloc(needed);
    OK(dgm_plan_describe(plan, text, needed, NULL));
    CHECK(strlen(text) + 1 == needed && strstr(text, "euler"));
    free(text);
    FAILS(DGM_ERROR_NULL, "slots", dgm_plan_slots(plan, NULL));
    FAILS(DGM_ERROR_NULL, "plan is null", dgm_plan_slots(NULL, &slots));
    STATUS(DGM_ERROR_OVERFLOW, dgm_plan_state_len(plan, SIZE_MAX / 2, 8, &needed));
    STATUS(DGM_ERROR_RANGE, dgm_plan_state_len(plan, 0, 8, &needed));
    STATUS(DGM_ERROR_OVERFLOW, dgm_plan_run_size(plan, SIZE_MAX / 2, &needed));
    dgm_plan_free(plan);
    dgm_plan_free(NULL);

    double times[] = {1, 0.4, 0};
    o.times = times;
    o.times_len = 3;
    OK(dgm_plan_compile(&o, &plan));
    dgm_plan_free(plan);
    o.times = NULL;
    FAILS(DGM_ERROR_NULL, "times", dgm_plan_compile(&o, &plan));
    CHECK(plan == NULL);
    times[1] = 2;
    o.times = times;
    CHECK(dgm_plan_compile(&o, &plan) < 0 && plan == NULL);

#define BAD(field, value, code)                        \
    do {                                               \
        OK(dgm_plan_options_init(&o, sizeof o));       \
        o.field = value;                               \
        FAILS(code, #field, dgm_plan_compile(&o, &plan)); \
    } while (0)
    BAD(process, 99, DGM_ERROR_ARGUMENT);
    BAD(process, -1, DGM_ERROR_ARGUMENT);
    BAD(prediction, 99, DGM_ERROR_ARGUMENT);
    BAD(solver, 99, DGM_ERROR_ARGUMENT);
    BAD(spacing, 99, DGM_ERROR_ARGUMENT);
    BAD(spacing, DGM_SPACING_LEADING, DGM_ERROR_ARGUMENT);
    BAD(steps, 0, DGM_ERROR_RANGE);
    BAD(steps, -1, DGM_ERROR_RANGE);
    BAD(steps, 100001, DGM_ERROR_RANGE);
    BAD(shift, 0, DGM_ERROR_RANGE);
    BAD(shift, NAN, DGM_ERROR_RANGE);
    BAD(guidance, INFINITY, DGM_ERROR_RANGE);
    BAD(clip, -1, DGM_ERROR_RANGE);
    BAD(struct_size, 0, DGM_ERROR_ARGUMENT);
    BAD(struct_size, 100000, DGM_ERROR_ARGUMENT);
    FAILS(DGM_ERROR_NULL, "out is null", dgm_plan_compile(NULL, NULL));
}

int main(void)
{
    plans();
    every_solver();
    later_options();
    together();
    driver();
    large_driver(DGM_SOLVER_EULER);
    large_driver(DGM_SOLVER_DPMPP_2M);
    guidance(DGM_GUIDANCE_MODE_CFG, DGM_ROLE_UNCOND);
    guidance(DGM_GUIDANCE_MODE_AUTO, DGM_ROLE_WEAK);
    two_guidances();
    ode();
    sde();
    non_finite();
    stops_and_lambda();
    log_density();
    chains();
    checkpoint();
    misuse();
    return finish("test_plan");
}
