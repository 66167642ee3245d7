/* Rows at times of their own: a pyramid of rows gives the bits of a run together. */
#include "check.h"

#include <stdlib.h>

enum { ROWS = 3, N = 5, LEN = ROWS * N, STEPS = 4 };

static const uint64_t seeds[ROWS] = {5, 6, 7};
static char run[1024], before[1024];
static float state[16 * LEN], expected[LEN], y[LEN], t[ROWS];
static size_t size, floats;

static dgm_plan *compile(int32_t solver, int32_t per_row)
{
    dgm_plan_options o;
    dgm_plan *plan = NULL;
    OK(dgm_plan_options_init(&o, sizeof o));
    o.solver = solver;
    o.steps = STEPS;
    o.guidance = 2;
    o.per_row = per_row;
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_plan_run_size(plan, ROWS, &size));
    OK(dgm_plan_state_len(plan, ROWS, N, &floats));
    CHECK(size <= sizeof run && floats <= COUNT(state));
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, run, size, state, floats));
    return plan;
}

/* One evaluation; the model sees every row at its own time. 1 when the run is done. */
static int evaluate(const dgm_plan *plan, int64_t *step)
{
    dgm_request r = new_request();
    float *x = NULL;
    uint8_t active[ROWS];
    OK(dgm_run_ask(plan, run, size, &r));
    if (r.done)
        return 1;
    OK(dgm_run_times(plan, run, size, t, ROWS));
    OK(dgm_run_row_active(plan, run, size, active, ROWS));
    OK(dgm_run_input(plan, run, size, state, floats, &x));
    for (int i = 0; i < LEN; i++)
        y[i] = active[i / N] ? x[i] * (r.role == DGM_ROLE_COND ? 0.5f : 0.25f) + 0.1f * t[i / N] : NAN;
    *step = r.step;
    OK(dgm_run_tell(plan, run, size, state, floats, r.eval_id, y, LEN));
    return 0;
}

static void pyramid(int32_t solver)
{
    int64_t step = 0, steps[ROWS];
    dgm_plan *plan = compile(solver, 0);
    while (!evaluate(plan, &step))
        ;
    memcpy(expected, state, sizeof expected);
    dgm_plan_free(plan);

    plan = compile(solver, 1);
    for (int round = 0; round < STEPS + ROWS - 1; round++) {
        uint8_t rows[ROWS];
        for (int i = 0; i < ROWS; i++)
            rows[i] = round >= i;
        OK(dgm_run_select(plan, run, size, rows, ROWS));
        /* Until every row that moves has finished its step. */
        for (int whole = 0; !whole;) {
            evaluate(plan, &step);
            OK(dgm_run_row_steps(plan, run, size, steps, ROWS));
            whole = 1;
            for (int i = 0; i < ROWS; i++) {
                const int64_t due = round + 1 - i;
                whole &= steps[i] == (due < 0 ? 0 : due > STEPS ? (int64_t)STEPS : due);
            }
        }
    }
    CHECK(evaluate(plan, &step) == 1);
    CHECK(memcmp(state, expected, sizeof expected) == 0);
    dgm_plan_free(plan);
}

static void misuse(void)
{
    /* One more than there are rows: some calls are told so. */
    uint8_t rows[ROWS + 1] = {1, 0, 2, 0}, first[ROWS + 1] = {1, 0, 0, 0}, none[ROWS] = {0, 0, 0};
    int64_t step = 0, steps[ROWS + 1];
    dgm_request r = new_request();
    dgm_plan *plan = compile(DGM_SOLVER_HEUN, 1);
    memcpy(before, run, size);
    FAILS(DGM_ERROR_ARGUMENT, "rows", dgm_run_select(plan, run, size, rows, ROWS));
    FAILS(DGM_ERROR_SHAPE, "rows", dgm_run_select(plan, run, size, first, 2));
    FAILS(DGM_ERROR_NULL, "rows", dgm_run_select(plan, run, size, NULL, ROWS));
    FAILS(DGM_ERROR_NULL, "plan", dgm_run_select(NULL, run, size, first, ROWS));
    FAILS(DGM_ERROR_ALIAS, "rows", dgm_run_select(plan, run, size, (uint8_t *)run, ROWS));
    FAILS(DGM_ERROR_SHAPE, "rows", dgm_run_finish_rows(plan, run, size, first, 4));
    FAILS(DGM_ERROR_SHAPE, "steps", dgm_run_row_steps(plan, run, size, steps, 4));
    FAILS(DGM_ERROR_NULL, "steps", dgm_run_row_steps(plan, run, size, NULL, ROWS));
    FAILS(DGM_ERROR_SHAPE, "active", dgm_run_row_active(plan, run, size, rows, 4));
    CHECK(memcmp(run, before, size) == 0);
    OK(dgm_run_select(plan, run, size, none, ROWS));
    FAILS(DGM_ERROR_STATE, "no selected row", dgm_run_ask(plan, run, size, &r));
    OK(dgm_run_select(plan, run, size, first, ROWS));
    evaluate(plan, &step);
    FAILS(DGM_ERROR_STATE, "inside a step", dgm_run_select(plan, run, size, first, ROWS));
    dgm_plan_free(plan);

    plan = compile(DGM_SOLVER_EULER, 1);
    OK(dgm_run_finish_rows(plan, run, size, first, ROWS));
    OK(dgm_run_row_steps(plan, run, size, steps, ROWS));
    CHECK(steps[0] == STEPS && steps[1] == 0);
    OK(dgm_run_times(plan, run, size, t, ROWS));
    CHECK(t[0] == 0 && t[1] == 1);
    dgm_plan_free(plan);

    plan = compile(DGM_SOLVER_EULER, 0);
    FAILS(DGM_ERROR_STATE, "per_row", dgm_run_select(plan, run, size, first, ROWS));
    dgm_plan_free(plan);

    dgm_plan_options o;
    OK(dgm_plan_options_init(&o, sizeof o));
    o.per_row = 2;
    FAILS(DGM_ERROR_ARGUMENT, "per_row", dgm_plan_compile(&o, &plan));
    o.per_row = 1;
    o.solver = DGM_SOLVER_BOSH3;
    FAILS(DGM_ERROR_ARGUMENT, "solver", dgm_plan_compile(&o, &plan));
}

int main(void)
{
    pyramid(DGM_SOLVER_EULER);
    pyramid(DGM_SOLVER_RK4);
    pyramid(DGM_SOLVER_DPMPP_2M);
    pyramid(DGM_SOLVER_UNIPC);
    pyramid(DGM_SOLVER_DPMPP_2M_SDE);
    misuse();
    return finish("test_rows");
}
