/* Your own model: any C function that reads x and t and writes its prediction.
 *
 *   cargo build --release -p dgm-capi
 *   sh capi/cc.sh capi/examples/denoise.c target/denoise && target/denoise
 *
 * The data here are the points of a circle of radius 3, four of them, so the best possible
 * prediction is known: the mean of the points, weighted by how likely x came from each.
 */
#include <dgm.h>

#include <math.h>
#include <stdio.h>

enum { ROWS = 8, ELEMENTS = 2 };

static const float points[4][2] = {{3, 0}, {0, 3}, {-3, 0}, {0, -3}};

/* Predicts x0 for x = (1 - t) x0 + t noise, row by row. */
static int32_t circle(void *ctx, const dgm_request *request, const float *x, const float *t, float *y)
{
    int *calls = ctx;
    ++*calls;
    for (int64_t r = 0; r < request->rows; r++, x += ELEMENTS, y += ELEMENTS) {
        float weight[4], sum = 0, keep = 1 - t[r], nearest = INFINITY;
        for (int i = 0; i < 4; i++) {
            float a = x[0] - keep * points[i][0], b = x[1] - keep * points[i][1];
            weight[i] = (a * a + b * b) / (2 * t[r] * t[r]);
            nearest = fminf(nearest, weight[i]);
        }
        for (int i = 0; i < 4; i++)
            sum += weight[i] = expf(nearest - weight[i]);
        y[0] = y[1] = 0;
        for (int i = 0; i < 4; i++) {
            y[0] += weight[i] / sum * points[i][0];
            y[1] += weight[i] / sum * points[i][1];
        }
    }
    return 0; /* anything else stops the run */
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
    options.prediction = DGM_PREDICTION_X0;
    options.solver = DGM_SOLVER_DPMPP_2M;
    options.steps = 20;
    if (dgm_plan_compile(&options, &plan))
        return fail();

    /* Sizes come from dgm_plan_run_size() and dgm_plan_state_len(); here they are small. */
    char run[4096];
    float state[256], y[ROWS * ELEMENTS], t[ROWS];
    size_t run_size, state_len;
    if (dgm_plan_run_size(plan, ROWS, &run_size) || run_size > sizeof run ||
        dgm_plan_state_len(plan, ROWS, ELEMENTS, &state_len) || state_len > sizeof state / sizeof *state)
        return fail();

    uint64_t seeds[ROWS];
    int calls = 0;
    const float *x;
    if (dgm_row_seeds(2026, ROWS, seeds) ||
        dgm_sample(plan, seeds, ROWS, ELEMENTS, NULL, run, run_size, state, state_len, y, t, circle, &calls) ||
        dgm_run_result(plan, run, run_size, state, state_len, &x))
        return fail();
    for (int r = 0; r < ROWS; r++)
        printf("%6.3f %6.3f\n", (double)x[r * ELEMENTS], (double)x[r * ELEMENTS + 1]);
    printf("%d model calls\n", calls);
    dgm_plan_free(plan);
    return 0;
}
