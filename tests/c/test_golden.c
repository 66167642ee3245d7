/* The values that the tests of all languages share, through the C interface. */
#include "golden.h"

static float result[65536], sums[4096];

static dgm_tensor like(const golden *g, float *data, int64_t *shape)
{
    memcpy(shape, g->shape, sizeof g->shape);
    memset(data, 0xff, g->len * sizeof *data);
    return f32_tensor(data, g->ndim, shape);
}

static golden part(const char *group, const char *name)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", group, name);
    return golden_get(full);
}

static void attention(const char *name, int causal, int lengths)
{
    golden q = part(name, "q"), k = part(name, "k"), v = part(name, "v"), o = part(name, "out"), l = part(name, "lse");
    int64_t shape[8], lse_shape[8];
    dgm_tensor tq = golden_tensor(&q), tk = golden_tensor(&k), tv = golden_tensor(&v);
    dgm_tensor out = like(&o, result, shape), lse = like(&l, sums, lse_shape);
    dgm_attention_options options;
    OK(dgm_attention_options_init(&options, sizeof options));
    options.causal = causal;
    if (lengths)
        options.kv_lengths = (const int64_t *)part(name, "kv_lengths").data;
    OK(dgm_attention(&tq, &tk, &tv, &options, &out, &lse));
    CHECK(golden_close(result, &o, 2e-6));
    CHECK(golden_close(sums, &l, 2e-6));
}

static void linear(const char *inputs, const char *output, int with_bias, int32_t activation)
{
    golden x = part(inputs, "x"), w = part(inputs, "weight"), b = part(inputs, "bias"), o = golden_get(output);
    int64_t shape[8];
    dgm_tensor tx = golden_tensor(&x), tw = golden_tensor(&w), tb = golden_tensor(&b), out = like(&o, result, shape);
    dgm_linear *layer = NULL;
    OK(dgm_linear_pack(&tw, with_bias ? &tb : NULL, &layer));
    OK(dgm_linear_forward(layer, &tx, activation, &out));
    CHECK(golden_close(result, &o, 1e-5));
    dgm_linear_free(layer);
}

static void norms(void)
{
    golden x = golden_get("layer_norm.x"), w = golden_get("layer_norm.weight"), b = golden_get("layer_norm.bias");
    golden plain = golden_get("layer_norm.out"), affine = golden_get("layer_norm.affine_out");
    int64_t shape[8];
    dgm_tensor tx = golden_tensor(&x), tw = golden_tensor(&w), tb = golden_tensor(&b), out = like(&plain, result, shape);
    OK(dgm_layer_norm(&tx, NULL, NULL, 1e-6f, &out));
    CHECK(golden_close(result, &plain, 4e-6));
    OK(dgm_layer_norm(&tx, &tw, &tb, 1e-6f, &out));
    CHECK(golden_close(result, &affine, 4e-6));

    x = golden_get("rms_norm.x"), w = golden_get("rms_norm.weight");
    plain = golden_get("rms_norm.out"), affine = golden_get("rms_norm.affine_out");
    tx = golden_tensor(&x), tw = golden_tensor(&w), out = like(&plain, result, shape);
    OK(dgm_rms_norm(&tx, NULL, 1e-6f, &out));
    CHECK(golden_close(result, &plain, 4e-6));
    OK(dgm_rms_norm(&tx, &tw, 1e-6f, &out));
    CHECK(golden_close(result, &affine, 4e-6));
}

static void modulation(void)
{
    golden x = golden_get("modulate.x"), scale = golden_get("modulate.scale"), shift = golden_get("modulate.shift");
    golden want = golden_get("modulate.out");
    int64_t shape[8];
    dgm_tensor tx = golden_tensor(&x), a = golden_tensor(&shift), b = golden_tensor(&scale);
    dgm_tensor out = like(&want, result, shape);
    OK(dgm_modulate(&tx, &a, &b, &out));
    CHECK(golden_close(result, &want, 1e-6));
    golden res = golden_get("gate_residual.res"), y = golden_get("gate_residual.y"), gate = golden_get("gate_residual.gate");
    want = golden_get("gate_residual.out");
    tx = golden_tensor(&res), a = golden_tensor(&y), b = golden_tensor(&gate), out = like(&want, result, shape);
    OK(dgm_gate_residual(&tx, &a, &b, &out));
    CHECK(golden_close(result, &want, 1e-6));
}

static void elementwise(void)
{
    golden x = golden_get("activation.x"), want = golden_get("silu.out");
    int64_t shape[8];
    dgm_tensor tx = golden_tensor(&x), out = like(&want, result, shape);
    OK(dgm_silu(&tx, &out));
    CHECK(golden_close(result, &want, 1e-6));
    want = golden_get("gelu_tanh.out");
    OK(dgm_gelu(&tx, DGM_GELU_TANH, &out));
    CHECK(golden_close(result, &want, 1e-6));
    want = golden_get("gelu_erf.out");
    OK(dgm_gelu(&tx, DGM_GELU_ERF, &out));
    CHECK(golden_close(result, &want, 1e-6));

    x = golden_get("timestep_embedding.t"), want = golden_get("timestep_embedding.out");
    tx = golden_tensor(&x), out = like(&want, result, shape);
    OK(dgm_timestep_embedding(&tx, 10000, &out));
    CHECK(golden_close(result, &want, 2e-4)); /* the argument reaches 1000 and is rounded to f32 */
}

static void patches(void)
{
    golden x = golden_get("patchify.x"), want = golden_get("patchify.out");
    int64_t shape[8];
    dgm_tensor tx = golden_tensor(&x), out = like(&want, result, shape);
    OK(dgm_patchify(&tx, 2, &out));
    CHECK(memcmp(result, want.data, want.len * sizeof(float)) == 0);
    x = golden_get("unpatchify_head.tokens"), want = golden_get("unpatchify_head.out");
    tx = golden_tensor(&x), out = like(&want, result, shape);
    OK(dgm_unpatchify(&tx, 2, &out));
    CHECK(memcmp(result, want.data, want.len * sizeof(float)) == 0);
}

/* The exact velocity of data drawn from N(mu, std^2) under the flow process. */
static int32_t gaussian(void *ctx, const dgm_request *r, const float *x, const float *t, float *y)
{
    const double *mu_std = (const double *)ctx, mu = mu_std[0], var = mu_std[1] * mu_std[1];
    (void)t;
    for (int64_t i = 0; i < r->rows * r->elements; i++) {
        double s = r->sigma, a = r->alpha, rest = ((double)x[i] - a * mu) / (a * a * var + s * s);
        y[i] = (float)(s * rest - (mu + a * var * rest));
    }
    return 0;
}

static void solvers(void)
{
    static const struct { const char *name; int32_t solver; double shift; } cases[] = {
        {"sampler.flow.euler.shift1", DGM_SOLVER_EULER, 1},       {"sampler.flow.euler.shift3", DGM_SOLVER_EULER, 3},
        {"sampler.flow.midpoint.shift1", DGM_SOLVER_MIDPOINT, 1}, {"sampler.flow.midpoint.shift3", DGM_SOLVER_MIDPOINT, 3},
        {"sampler.flow.heun.shift1", DGM_SOLVER_HEUN, 1},         {"sampler.flow.heun.shift3", DGM_SOLVER_HEUN, 3},
        {"sampler.flow.rk4.shift1", DGM_SOLVER_RK4, 1},           {"sampler.flow.rk4.shift3", DGM_SOLVER_RK4, 3},
    };
    golden start = golden_get("sampler.x_T"), mu_std = golden_get("sampler.mu_std");
    size_t rows = (size_t)start.shape[0], elements = (size_t)start.shape[1];
    for (size_t i = 0; i < COUNT(cases); i++) {
        golden want = golden_get(cases[i].name);
        dgm_plan_options o;
        dgm_plan *plan = NULL;
        OK(dgm_plan_options_init(&o, sizeof o));
        o.solver = cases[i].solver;
        o.shift = cases[i].shift;
        o.steps = 10;
        OK(dgm_plan_compile(&o, &plan));
        char run[1024];
        float state[256], y[64], t[8];
        size_t run_size = 0, state_len = 0;
        uint64_t seeds[8] = {0};
        const float *x = NULL;
        OK(dgm_plan_run_size(plan, rows, &run_size));
        OK(dgm_plan_state_len(plan, rows, elements, &state_len));
        CHECK(run_size <= sizeof run && state_len <= COUNT(state));
        OK(dgm_sample(plan, seeds, rows, elements, (const float *)start.data, run, run_size, state, state_len, y, t, gaussian, mu_std.data));
        OK(dgm_run_result(plan, run, run_size, state, state_len, &x));
        CHECK(x != NULL && golden_close(x, &want, 2e-6));
        dgm_plan_free(plan);
    }
}

int main(void)
{
    golden_open();
    attention("attention.plain", 0, 0);
    attention("attention.causal", 1, 0);
    attention("attention.causal_tall", 1, 0);
    attention("attention.causal_wide", 1, 0);
    attention("attention.cross", 0, 0);
    attention("attention.gqa", 0, 0);
    attention("attention.dv", 0, 0);
    attention("attention.lengths", 0, 1);
    attention("attention.one_query", 0, 0);
    attention("attention.longer_than_split", 0, 0);
    linear("linear.small", "linear.small.out", 1, DGM_ACTIVATION_NONE);
    linear("linear.small", "linear.small.nobias_out", 0, DGM_ACTIVATION_NONE);
    linear("linear.odd", "linear.odd.out", 1, DGM_ACTIVATION_NONE);
    linear("linear.odd", "linear.odd.nobias_out", 0, DGM_ACTIVATION_NONE);
    linear("linear.wide", "linear.wide.out", 1, DGM_ACTIVATION_NONE);
    linear("linear.wide", "linear.wide.nobias_out", 0, DGM_ACTIVATION_NONE);
    linear("linear.activation", "linear.silu.out", 1, DGM_ACTIVATION_SILU);
    linear("linear.activation", "linear.gelu_tanh.out", 1, DGM_ACTIVATION_GELU_TANH);
    norms();
    modulation();
    elementwise();
    patches();
    solvers();
    free(golden_data);
    return finish("test_golden");
}
