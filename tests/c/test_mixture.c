/* Gaussian mixtures: exact answers, whole runs with the bits of single answers, bad arguments. */
#include "check.h"

#include <stdlib.h>

enum { ROWS = 100, DIMS = 2, LEN = ROWS * DIMS };

static const double weights[] = {2, 1, 0.05}, means[] = {-1.5, 0.5, 2, 1, 0, -2};
static const double variances[] = {0.3, 0.2, 0.5, 1, 0.01, 0.02};
static dgm_mixture *mixture;

static dgm_plan *compiled(void (*set)(dgm_plan_options *))
{
    dgm_plan_options o;
    OK(dgm_plan_options_init(&o, sizeof o));
    set(&o);
    dgm_plan *plan = NULL;
    OK(dgm_plan_compile(&o, &plan));
    return plan;
}

static void ula(dgm_plan_options *o)
{
    o->process = DGM_PROCESS_TARGET, o->prediction = DGM_PREDICTION_SCORE, o->solver = DGM_SOLVER_ULA, o->steps = 9;
}
static void hmc(dgm_plan_options *o) { ula(o), o->solver = DGM_SOLVER_HMC, o->warmup = 4; }
static void tsit5(dgm_plan_options *o) { o->solver = DGM_SOLVER_TSIT5; }
static void ddpm(dgm_plan_options *o)
{
    o->process = DGM_PROCESS_VP_COSINE, o->prediction = DGM_PREDICTION_V, o->solver = DGM_SOLVER_DDPM, o->steps = 9;
}
static void ode(dgm_plan_options *o) { o->process = DGM_PROCESS_ODE; }

/* One call, and an answer at a time: the same bytes of run and state. */
static void walks(void (*set)(dgm_plan_options *))
{
    dgm_plan *plan = compiled(set);
    uint64_t seeds[ROWS];
    OK(dgm_row_seeds(5, ROWS, seeds));
    size_t size, len, numbers;
    OK(dgm_plan_run_size(plan, ROWS, &size));
    OK(dgm_plan_state_len(plan, ROWS, DIMS, &len));
    OK(dgm_plan_numbers(plan, &numbers));
    unsigned char *runs[2];
    float *states[2];
    static float y[LEN];
    static double told[ROWS];
    for (int i = 0; i < 2; i++) {
        runs[i] = (unsigned char *)malloc(size), states[i] = (float *)malloc(len * sizeof(float));
        OK(dgm_run_start(plan, seeds, ROWS, DIMS, NULL, runs[i], size, states[i], len));
    }
    OK(dgm_mixture_sample(mixture, plan, runs[0], size, states[0], len));
    for (;;) {
        dgm_request r = new_request();
        OK(dgm_run_ask(plan, runs[1], size, &r));
        if (r.done || failed)
            break;
        OK(dgm_mixture_predict(mixture, plan, runs[1], size, states[1], len, y, LEN, told, numbers * ROWS));
        OK(dgm_run_tell_with(plan, runs[1], size, states[1], len, r.eval_id, y, LEN, told, numbers * ROWS));
    }
    CHECK(memcmp(runs[0], runs[1], size) == 0);
    CHECK(memcmp(states[0], states[1], len * sizeof(float)) == 0);
    STATUS(DGM_ERROR_STATE, dgm_mixture_predict(mixture, plan, runs[1], size, states[1], len, y, LEN, told, numbers * ROWS));
    for (int i = 0; i < 2; i++)
        free(runs[i]), free(states[i]);
    dgm_plan_free(plan);
}

static void ula50(dgm_plan_options *o) { ula(o), o->steps = 50; }
static void hmc20(dgm_plan_options *o) { hmc(o), o->steps = 20, o->warmup = 10; }
static void ddpm20(dgm_plan_options *o) { ddpm(o), o->steps = 20; }

/* The bits of every language: FNV-1a of the result. */
static void published(void)
{
    enum { MANY = 300 };
    static const struct {
        const char *name;
        void (*set)(dgm_plan_options *);
    } all[] = {{"ula", ula50}, {"hmc", hmc20}, {"tsit5", tsit5}, {"ddpm", ddpm20}};
    static unsigned char run[1 << 20];
    static float state[1 << 16];
    uint64_t seeds[MANY];
    OK(dgm_row_seeds(7, MANY, seeds));
    FILE *file = fopen("tests/golden/mixture.txt", "r");
    char line[256], name[64], want[64];
    int seen = 0;
    CHECK(file != NULL);
    while (file && fgets(line, sizeof line, file)) {
        if (line[0] == '#' || sscanf(line, "%63s %63s", name, want) != 2)
            continue;
        for (size_t i = 0; i < COUNT(all); i++) {
            if (strcmp(name, all[i].name) != 0)
                continue;
            dgm_plan *plan = compiled(all[i].set);
            size_t size, len;
            OK(dgm_plan_run_size(plan, MANY, &size));
            OK(dgm_plan_state_len(plan, MANY, DIMS, &len));
            CHECK(size <= sizeof run && len <= COUNT(state));
            OK(dgm_run_start(plan, seeds, MANY, DIMS, NULL, run, size, state, len));
            OK(dgm_mixture_sample(mixture, plan, run, size, state, len));
            uint64_t fnv = 0xcbf29ce484222325u;
            for (size_t b = 0; b < MANY * DIMS * sizeof(float); b++)
                fnv = (fnv ^ ((const unsigned char *)state)[b]) * 0x100000001b3u;
            char got[20];
            snprintf(got, sizeof got, "%016llx", (unsigned long long)fnv);
            if (strcmp(got, want) != 0)
                fprintf(stderr, "%s %s\n", name, got);
            CHECK(strcmp(got, want) == 0);
            dgm_plan_free(plan);
            seen++;
        }
    }
    if (file)
        fclose(file);
    CHECK(seen == 4);
}

static void answers(void)
{
    dgm_mixture *normal = NULL;
    const double one = 1, origin[2] = {0, 0}, four = 4;
    OK(dgm_mixture_create(&one, origin, &four, 1, 1, 2, &normal));
    float x[4] = {1, -2, 3, 0}, score[4], x0[4];
    int64_t shape[2] = {2, 2};
    dgm_tensor in = f32_tensor(x, 2, shape), out = f32_tensor(score, 2, shape), data = f32_tensor(x0, 2, shape);
    double density[2];
    OK(dgm_mixture_evaluate(normal, DGM_PREDICTION_SCORE, 1, 0, 1, &in, &out));
    OK(dgm_mixture_evaluate(normal, DGM_PREDICTION_X0, 0.6, 0.8, 1, &in, &data));
    OK(dgm_mixture_log_density(normal, 1, 0, &in, density, 2));
    for (int i = 0; i < 4; i++) {
        NEAR(score[i], -x[i] / 4);
        NEAR(x0[i], x[i] * 2.4 / 2.08);
    }
    NEAR(density[0], -5.0 / 8 - log(8 * 3.14159265358979323846));
    FAILS(DGM_ERROR_SHAPE, "log_density", dgm_mixture_log_density(normal, 1, 0, &in, density, 1));
    FAILS(DGM_ERROR_RANGE, "alpha", dgm_mixture_evaluate(normal, DGM_PREDICTION_SCORE, -1, 0, 1, &in, &out));
    FAILS(DGM_ERROR_RANGE, "sigma", dgm_mixture_log_density(normal, 1, NAN, &in, density, 2));
    FAILS(DGM_ERROR_RANGE, "sigma_data", dgm_mixture_evaluate(normal, DGM_PREDICTION_EDM, 1, 1, 0, &in, &out));
    FAILS(DGM_ERROR_ARGUMENT, "prediction", dgm_mixture_evaluate(normal, 99, 1, 0, 1, &in, &out));
    FAILS(DGM_ERROR_ARGUMENT, "prediction", dgm_mixture_evaluate(normal, -1, 1, 0, 1, &in, &out));
    FAILS(DGM_ERROR_ARGUMENT, "prediction",
          dgm_mixture_evaluate(normal, DGM_PREDICTION_CONSISTENCY, 1, 1, 1, &in, &out));
    STATUS(DGM_ERROR_ALIAS, dgm_mixture_evaluate(normal, DGM_PREDICTION_SCORE, 1, 0, 1, &in, &in));
    FAILS(DGM_ERROR_NULL, "mixture", dgm_mixture_evaluate(NULL, DGM_PREDICTION_SCORE, 1, 0, 1, &in, &out));
    FAILS(DGM_ERROR_NULL, "x", dgm_mixture_evaluate(normal, DGM_PREDICTION_SCORE, 1, 0, 1, NULL, &out));
    FAILS(DGM_ERROR_NULL, "out", dgm_mixture_evaluate(normal, DGM_PREDICTION_SCORE, 1, 0, 1, &in, NULL));
    FAILS(DGM_ERROR_NULL, "log_density", dgm_mixture_log_density(normal, 1, 0, &in, NULL, 2));
    dgm_mixture_free(normal);
    dgm_mixture_free(NULL);
}

static void bad_mixtures(void)
{
    dgm_mixture *out = mixture;
    const double zero[3] = {1, 0, 1}, negative[3] = {1, 1, -1};
    FAILS(DGM_ERROR_RANGE, "components", dgm_mixture_create(weights, means, variances, 6, 0, 2, &out));
    CHECK(out == NULL);
    FAILS(DGM_ERROR_RANGE, "dims", dgm_mixture_create(weights, means, variances, 6, 3, 0, &out));
    FAILS(DGM_ERROR_SHAPE, "variances", dgm_mixture_create(weights, means, variances, 5, 3, 2, &out));
    FAILS(DGM_ERROR_RANGE, "weights", dgm_mixture_create(zero, means, variances, 6, 3, 2, &out));
    FAILS(DGM_ERROR_RANGE, "variances", dgm_mixture_create(weights, means, negative, 3, 3, 2, &out));
    FAILS(DGM_ERROR_NULL, "weights", dgm_mixture_create(NULL, means, variances, 6, 3, 2, &out));
    FAILS(DGM_ERROR_NULL, "means", dgm_mixture_create(weights, NULL, variances, 6, 3, 2, &out));
    FAILS(DGM_ERROR_NULL, "variances", dgm_mixture_create(weights, means, NULL, 6, 3, 2, &out));
    FAILS(DGM_ERROR_NULL, "out", dgm_mixture_create(weights, means, variances, 6, 3, 2, NULL));
    STATUS(DGM_ERROR_OVERFLOW, dgm_mixture_create(weights, means, variances, 6, 3, SIZE_MAX / 2, &out));
}

static void bad_runs(void)
{
    dgm_plan *plan = compiled(ula), *other = compiled(ode);
    const uint64_t seeds[2] = {1, 2};
    unsigned char run[4096], before[4096];
    float state[64], y[4];
    size_t size, len;
    OK(dgm_plan_run_size(plan, 2, &size));
    OK(dgm_plan_state_len(plan, 2, 3, &len));
    OK(dgm_run_start(plan, seeds, 2, 3, NULL, run, size, state, len));
    memcpy(before, run, size);
    FAILS(DGM_ERROR_ARGUMENT, "elements", dgm_mixture_sample(mixture, plan, run, size, state, len));
    STATUS(DGM_ERROR_STATE, dgm_mixture_sample(mixture, other, run, size, state, len));
    OK(dgm_plan_state_len(plan, 2, 2, &len));
    OK(dgm_run_start(plan, seeds, 2, 2, NULL, run, size, state, len));
    memcpy(before, run, size);
    FAILS(DGM_ERROR_NULL, "mixture", dgm_mixture_sample(NULL, plan, run, size, state, len));
    FAILS(DGM_ERROR_NULL, "plan", dgm_mixture_sample(mixture, NULL, run, size, state, len));
    FAILS(DGM_ERROR_NULL, "run", dgm_mixture_sample(mixture, plan, NULL, size, state, len));
    FAILS(DGM_ERROR_NULL, "state", dgm_mixture_sample(mixture, plan, run, size, NULL, len));
    FAILS(DGM_ERROR_SHAPE, "state", dgm_mixture_sample(mixture, plan, run, size, state, len - 1));
    STATUS(DGM_ERROR_FORMAT, dgm_mixture_sample(mixture, plan, run, size - 1, state, len));
    STATUS(DGM_ERROR_ALIAS, dgm_mixture_sample(mixture, plan, run, size, (float *)run, len));
    FAILS(DGM_ERROR_SHAPE, "y", dgm_mixture_predict(mixture, plan, run, size, state, len, y, 3, NULL, 0));
    FAILS(DGM_ERROR_NULL, "y", dgm_mixture_predict(mixture, plan, run, size, state, len, NULL, 4, NULL, 0));
    STATUS(DGM_ERROR_ALIAS, dgm_mixture_predict(mixture, plan, run, size, state, len, state, 4, NULL, 0));
    double number;
    FAILS(DGM_ERROR_SHAPE, "numbers", dgm_mixture_predict(mixture, plan, run, size, state, len, y, 4, &number, 1));
    CHECK(memcmp(run, before, size) == 0);
    OK(dgm_run_start(other, seeds, 2, 2, NULL, run, sizeof run, state, len));
    FAILS(DGM_ERROR_ARGUMENT, "process", dgm_mixture_sample(mixture, other, run, sizeof run, state, len));
    dgm_plan_free(plan);
    dgm_plan_free(other);
}

int main(void)
{
    OK(dgm_mixture_create(weights, means, variances, 6, 3, 2, &mixture));
    void (*const all[])(dgm_plan_options *) = {ula, hmc, tsit5, ddpm};
    for (size_t i = 0; i < COUNT(all); i++)
        walks(all[i]);
    published();
    answers();
    bad_mixtures();
    bad_runs();
    dgm_mixture_free(mixture);
    return finish("test_mixture");
}
