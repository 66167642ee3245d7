/* Coefficients mode: plain loops over the operations of a plan give the bits of ask and tell. */
#include "check.h"

#include <stdlib.h>

enum { ROWS = 2, N = 7, LEN = ROWS * N, SLOTS = 12, REGISTERS = 4 };

static const uint64_t seeds[ROWS] = {5, 6};
static char run[1024], detached[1024];
static float state[SLOTS * LEN];
static float mine[SLOTS][LEN], registers[REGISTERS][LEN];
static dgm_operation operations[64];
static dgm_term terms[256];

/* Any finite function of x and t. */
static void model(const dgm_request *r, const float *x, float *y)
{
    for (int i = 0; i < LEN; i++)
        y[i] = x[i] * (r->role == DGM_ROLE_COND ? 0.5f : 0.25f) + (float)r->t * 0.001f;
}

static void normal(uint32_t purpose, uint32_t draw, float *out)
{
    int64_t shape[2] = {ROWS, N};
    dgm_tensor t = f32_tensor(out, 2, shape);
    OK(dgm_random_normal(seeds, ROWS, purpose, draw, &t));
}

static const float *source(const dgm_term *t, const float *y, float *noise)
{
    switch (t->source) {
    case DGM_SOURCE_STATE:
        return mine[t->index];
    case DGM_SOURCE_REGISTER:
        return registers[t->index];
    case DGM_SOURCE_OUTPUT:
        return y;
    default:
        normal(t->purpose, t->draw, noise);
        return noise;
    }
}

/* Applies the operations of an evaluation; returns how many there are, -1 for one that is no sum. */
static int apply(const dgm_plan *plan, uint64_t id, const float *y)
{
    size_t n = 0, m = 0;
    float noise[LEN], sum[LEN];
    OK(dgm_plan_operations(plan, id, NULL, 0, &n, NULL, 0, &m));
    CHECK(n <= COUNT(operations) && m <= COUNT(terms));
    OK(dgm_plan_operations(plan, id, operations, COUNT(operations), &n, terms, COUNT(terms), &m));
    for (size_t i = 0; i < n; i++) {
        const dgm_operation *o = &operations[i];
        if (o->kind != DGM_OPERATION_COMBINE || o->mask != -1)
            return -1;
        memset(sum, 0, sizeof sum);
        for (size_t k = 0; k < o->terms; k++) {
            const dgm_term *t = &terms[o->first_term + k];
            const float *v = source(t, y, noise);
            CHECK(t->measured == -1);
            for (int e = 0; e < LEN; e++)
                sum[e] = fmaf(v[e], (float)t->coefficient, sum[e]);
        }
        for (int e = 0; e < LEN && o->clip != 0; e++)
            sum[e] = fmaxf(fminf(sum[e], (float)o->clip), -(float)o->clip);
        memcpy(o->target == DGM_SOURCE_STATE ? mine[o->index] : registers[o->index], sum, sizeof sum);
    }
    return (int)n;
}

static void compare(int32_t process, int32_t prediction, int32_t solver, double guidance, double clip, int32_t noise)
{
    dgm_plan_options o;
    dgm_plan *plan = NULL;
    size_t size = 0, floats = 0, slots = 0;
    float y[LEN];
    int total = 0;
    OK(dgm_plan_options_init(&o, sizeof o));
    o.process = process;
    o.prediction = prediction;
    o.solver = solver;
    o.steps = 6;
    o.guidance = guidance;
    o.clip = clip;
    o.noise = noise;
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_plan_run_size(plan, ROWS, &size));
    OK(dgm_plan_state_len(plan, ROWS, N, &floats));
    OK(dgm_plan_slots(plan, &slots));
    CHECK(size <= sizeof run && floats <= COUNT(state));
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, run, size, state, floats));
    OK(dgm_run_start_detached(plan, seeds, ROWS, N, detached, size));
    CHECK(memcmp(run, detached, size) == 0);

    dgm_request r = new_request();
    OK(dgm_run_ask(plan, detached, size, &r));
    memset(mine, 0, sizeof mine);
    normal(DGM_PURPOSE_INITIAL, 0, mine[0]);
    for (int e = 0; e < LEN; e++)
        mine[0][e] *= (float)r.sigma;
    CHECK(apply(plan, 0, y) >= 0);
    for (;;) {
        float *x = NULL;
        OK(dgm_run_ask(plan, run, size, &r));
        if (r.done)
            break;
        OK(dgm_run_input(plan, run, size, state, floats, &x));
        CHECK(memcmp(x, mine[r.slot], sizeof y) == 0);
        model(&r, x, y);
        OK(dgm_run_tell(plan, run, size, state, floats, r.eval_id, y, LEN));
        int n = apply(plan, r.eval_id, y);
        CHECK(n > 0);
        total += n;
        OK(dgm_run_advance(plan, detached, size, r.eval_id));
        CHECK(memcmp(run, detached, size) == 0);
    }
    CHECK(total >= 6);
    CHECK(memcmp(state, mine, slots * sizeof mine[0]) == 0);
    FAILS(DGM_ERROR_STATE, "done", dgm_run_advance(plan, detached, size, r.eval_id));
    dgm_plan_free(plan);
}

static void misuse(void)
{
    dgm_plan_options o;
    dgm_plan *plan = NULL;
    size_t size = 0, n = 77, m = 77;
    OK(dgm_plan_compile(NULL, &plan));
    OK(dgm_plan_run_size(plan, ROWS, &size));
    FAILS(DGM_ERROR_RANGE, "eval_id", dgm_plan_operations(plan, 17, operations, 64, &n, terms, 256, &m));
    FAILS(DGM_ERROR_NULL, "terms_len", dgm_plan_operations(plan, 1, operations, 64, &n, terms, 256, NULL));
    FAILS(DGM_ERROR_NULL, "plan", dgm_plan_operations(NULL, 1, operations, 64, &n, terms, 256, &m));
    FAILS(DGM_ERROR_NULL, "operations", dgm_plan_operations(plan, 1, NULL, 64, &n, terms, 256, &m));
    FAILS(DGM_ERROR_ALIAS, "terms",
          dgm_plan_operations(plan, 1, operations, 64, &n, (dgm_term *)(void *)operations, 4, &m));
    memset(operations, 9, sizeof operations);
    FAILS(DGM_ERROR_RANGE, "terms_cap", dgm_plan_operations(plan, 1, operations, 64, &n, terms, 1, &m));
    CHECK(n == 1 && m == 2 && operations[0].kind == 0x09090909);
    FAILS(DGM_ERROR_RANGE, "operations_cap", dgm_plan_operations(plan, 1, operations, 0, &n, terms, 256, &m));
    FAILS(DGM_ERROR_RANGE, "run_size", dgm_run_start_detached(plan, seeds, ROWS, N, run, 8));
    FAILS(DGM_ERROR_RANGE, "rows", dgm_run_start_detached(plan, seeds, 0, N, run, size));
    FAILS(DGM_ERROR_NULL, "seeds", dgm_run_start_detached(plan, NULL, ROWS, N, run, size));
    FAILS(DGM_ERROR_NULL, "run", dgm_run_start_detached(plan, seeds, ROWS, N, NULL, size));
    OK(dgm_run_start_detached(plan, seeds, ROWS, N, run, size));
    memcpy(detached, run, size);
    FAILS(DGM_ERROR_STATE, "evaluation 2", dgm_run_advance(plan, run, size, 2));
    FAILS(DGM_ERROR_FORMAT, "run", dgm_run_advance(plan, run, 8, 1));
    CHECK(memcmp(run, detached, size) == 0);
    dgm_plan_free(plan);

    OK(dgm_plan_options_init(&o, sizeof o));
    o.solver = DGM_SOLVER_BOSH3;
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_plan_run_size(plan, ROWS, &size));
    FAILS(DGM_ERROR_ARGUMENT, "solver", dgm_plan_operations(plan, 0, NULL, 0, &n, NULL, 0, &m));
    FAILS(DGM_ERROR_ARGUMENT, "solver", dgm_run_start_detached(plan, seeds, ROWS, N, run, size));
    dgm_plan_free(plan);
}

int main(void)
{
    const int32_t vp = DGM_PROCESS_VP_COSINE, eps = DGM_PREDICTION_EPSILON;
    const int32_t flow = DGM_PROCESS_FLOW, velocity = DGM_PREDICTION_VELOCITY;
    compare(flow, velocity, DGM_SOLVER_EULER, 1, 0, DGM_NOISE_INDEPENDENT);
    compare(flow, velocity, DGM_SOLVER_RK4, 2.5, 0, DGM_NOISE_INDEPENDENT);
    compare(flow, velocity, DGM_SOLVER_DPMPP_2M, 1, 0.75, DGM_NOISE_INDEPENDENT);
    compare(flow, velocity, DGM_SOLVER_UNIPC, 3, 1, DGM_NOISE_INDEPENDENT);
    compare(flow, velocity, DGM_SOLVER_DPMPP_2M_SDE, 1, 0, DGM_NOISE_BROWNIAN);
    compare(vp, eps, DGM_SOLVER_DDPM, 1, 1, DGM_NOISE_INDEPENDENT);
    compare(vp, eps, DGM_SOLVER_EULER_ANCESTRAL, 1, 0, DGM_NOISE_BROWNIAN);
    compare(vp, eps, DGM_SOLVER_SA_SOLVER, 1, 0, DGM_NOISE_INDEPENDENT);
    compare(vp, eps, DGM_SOLVER_SEEDS_3, 1, 0, DGM_NOISE_INDEPENDENT);
    misuse();
    return finish("test_operations");
}
