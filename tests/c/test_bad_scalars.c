/* Numbers, counts, texts and handles made wrong: plan options, kernel parameters, the network. */
#include "check.h"

#include <stdlib.h>

enum { ROWS = 2, N = 64 };

static float x[ROWS * N], out[ROWS * N], untouched[ROWS * N];
static int64_t flat[] = {ROWS, N}, image[] = {ROWS, 1, 8, 8}, column[] = {ROWS};
static uint64_t seeds[ROWS] = {1, 2};
static int64_t labels[ROWS] = {3, 10};
static float times[ROWS] = {0.2f, 0.7f};

#define REFUSED(code, words, call)                               \
    do {                                                         \
        FAILS(code, words, call);                                \
        CHECK(memcmp(out, untouched, sizeof out) == 0);          \
    } while (0)

static void kernels(void)
{
    dgm_tensor tx = f32_tensor(x, 2, flat), to = f32_tensor(out, 2, flat), t = f32_tensor(x, 1, column);
    dgm_tensor q = f32_tensor(x, 4, image), o = f32_tensor(out, 4, image);
    int64_t tokens[] = {ROWS, 1, N};
    dgm_tensor deep = f32_tensor(x, 3, tokens), into = f32_tensor(out, 3, tokens);
    static const float wrong[] = {NAN, INFINITY, -INFINITY, -1.0f};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        REFUSED(DGM_ERROR_RANGE, "eps", dgm_layer_norm(&tx, NULL, NULL, wrong[i], &to));
        REFUSED(DGM_ERROR_RANGE, "eps", dgm_rms_norm(&tx, NULL, wrong[i], &to));
        REFUSED(DGM_ERROR_RANGE, "eps", dgm_layer_norm_modulate(&deep, &tx, &tx, wrong[i], &into));
        REFUSED(DGM_ERROR_RANGE, "max_period", dgm_timestep_embedding(&t, wrong[i], &to));
        if (wrong[i] != -1.0f) {
            dgm_attention_options a;
            OK(dgm_attention_options_init(&a, sizeof a));
            a.scale = wrong[i];
            REFUSED(DGM_ERROR_RANGE, "scale", dgm_attention(&q, &q, &q, &a, &o, NULL));
        }
    }
    REFUSED(DGM_ERROR_RANGE, "max_period", dgm_timestep_embedding(&t, 0, &to));
    static const int32_t kinds[] = {-1, 2, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < COUNT(kinds); i++) {
        REFUSED(DGM_ERROR_ARGUMENT, "kind", dgm_gelu(&tx, kinds[i], &to));
        dgm_attention_options a;
        OK(dgm_attention_options_init(&a, sizeof a));
        a.causal = kinds[i];
        REFUSED(DGM_ERROR_ARGUMENT, "causal", dgm_attention(&q, &q, &q, &a, &o, NULL));
    }
    static const int64_t patches[] = {0, -1, 3, 9, INT64_MIN, INT64_MAX, (int64_t)1 << 32};
    int64_t cut[] = {ROWS, 16, 4};
    dgm_tensor tc = f32_tensor(x, 3, cut);
    for (size_t i = 0; i < COUNT(patches); i++) {
        CHECK(dgm_patchify(&q, patches[i], &to) < 0);
        CHECK(dgm_unpatchify(&tc, patches[i], &o) < 0);
        CHECK(memcmp(out, untouched, sizeof out) == 0);
    }
    dgm_linear *layer = NULL;
    int64_t square[] = {2, 2};
    dgm_tensor w = f32_tensor(x, 2, square), y = f32_tensor(out, 2, square);
    OK(dgm_linear_pack(&w, NULL, &layer));
    for (int32_t a = -1; a <= 4; a += 5)
        REFUSED(DGM_ERROR_ARGUMENT, "activation", dgm_linear_forward(layer, &w, a, &y));
    REFUSED(DGM_ERROR_NULL, "linear is null", dgm_linear_forward(NULL, &w, 0, &y));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_linear_pack(&w, NULL, NULL));
    dgm_linear_free(layer);
}

static void attention_options(void)
{
    int64_t four[] = {1, 4, 4, 8}, scores[] = {1, 4, 4, 4}, wide[] = {1, 4, 4, 5}, rows[] = {1, 4, 4};
    float per_head[5] = {0.5f, 0.25f, 0.125f, 0.0625f, 0};
    uint8_t bits[64] = {1};
    dgm_tensor q = f32_tensor(x, 4, four), to = f32_tensor(out, 4, four), lse = f32_tensor(out + 64, 3, rows);
    dgm_tensor mask = f32_tensor((const float *)(const void *)bits, 4, scores);
    dgm_attention_options o;
    mask.dtype_code = DGM_DTYPE_UINT;
    mask.dtype_bits = 8;
    int64_t lengths[] = {5};
#define OPTION_REFUSED(code, name, assignment)                                \
    do {                                                                      \
        OK(dgm_attention_options_init(&o, sizeof o));                         \
        assignment;                                                           \
        REFUSED(code, name, dgm_attention(&q, &q, &q, &o, &to, NULL));        \
    } while (0)
    OPTION_REFUSED(DGM_ERROR_RANGE, "window_left", o.window_left = -2);
    OPTION_REFUSED(DGM_ERROR_RANGE, "window_left", o.window_left = INT64_MIN);
    OPTION_REFUSED(DGM_ERROR_RANGE, "window_right", o.window_right = -2);
    OPTION_REFUSED(DGM_ERROR_RANGE, "soft_cap", o.soft_cap = NAN);
    OPTION_REFUSED(DGM_ERROR_RANGE, "soft_cap", o.soft_cap = INFINITY);
    OPTION_REFUSED(DGM_ERROR_RANGE, "soft_cap", o.soft_cap = -1);
    OPTION_REFUSED(DGM_ERROR_RANGE, "kv_lengths", o.kv_lengths = lengths);
    OPTION_REFUSED(DGM_ERROR_STRIDE, "kv_lengths", o.kv_lengths = (int64_t *)(void *)((char *)lengths + 4));
    OPTION_REFUSED(DGM_ERROR_STRIDE, "sinks", o.sinks = (float *)(void *)((char *)per_head + 1));
    OPTION_REFUSED(DGM_ERROR_STRIDE, "alibi_slopes", o.alibi_slopes = (float *)(void *)((char *)per_head + 2));
    OPTION_REFUSED(DGM_ERROR_ALIAS, "sinks", o.sinks = out + 127);
    OPTION_REFUSED(DGM_ERROR_ALIAS, "alibi_slopes", o.alibi_slopes = out);
    OPTION_REFUSED(DGM_ERROR_RANGE, "alibi_slopes", (per_head[1] = NAN, o.alibi_slopes = per_head));
    OPTION_REFUSED(DGM_ERROR_RANGE, "sinks", (per_head[1] = NAN, o.sinks = per_head));
    per_head[1] = 0.25f;
    to = f32_tensor(out, 4, four);
    OK(dgm_attention_options_init(&o, sizeof o));
    o.sinks = (float *)lse.data;
    dgm_tensor free_out = f32_tensor(out, 4, four);
    static float room[128];
    free_out.data = room;
    REFUSED(DGM_ERROR_ALIAS, "lse overlaps sinks", dgm_attention(&q, &q, &q, &o, &free_out, &lse));

#define MASK_REFUSED(code, name, assignment)                                  \
    do {                                                                      \
        dgm_tensor m = mask;                                                  \
        assignment;                                                           \
        OPTION_REFUSED(code, name, o.mask = &m);                              \
    } while (0)
    MASK_REFUSED(DGM_ERROR_DTYPE, "mask has dtype", m.dtype_bits = 16);
    MASK_REFUSED(DGM_ERROR_DTYPE, "mask has dtype", (m.dtype_code = DGM_DTYPE_FLOAT, m.dtype_bits = 32));
    MASK_REFUSED(DGM_ERROR_DTYPE, "mask", m.dtype_lanes = 8);
    MASK_REFUSED(DGM_ERROR_DTYPE, "mask", m.device_type = 2);
    MASK_REFUSED(DGM_ERROR_NULL, "mask", m.data = NULL);
    MASK_REFUSED(DGM_ERROR_NULL, "mask", m.shape = NULL);
    MASK_REFUSED(DGM_ERROR_SHAPE, "mask", m.ndim = 3);
    MASK_REFUSED(DGM_ERROR_SHAPE, "mask", m.ndim = -1);
    MASK_REFUSED(DGM_ERROR_SHAPE, "mask", m.shape = wide);
    MASK_REFUSED(DGM_ERROR_OVERFLOW, "mask", m.byte_offset = UINT64_MAX);
    MASK_REFUSED(DGM_ERROR_ALIAS, "mask", m.data = (char *)(void *)out + 511);
}

static void packed_sequences(void)
{
    int64_t three[] = {4, 1, 8}, good[] = {0, 1, 4};
    dgm_tensor q = f32_tensor(x, 3, three), to = f32_tensor(out, 3, three);
    dgm_attention_options o;
#define PACKED(q_offsets, kv_offsets, n, o) dgm_attention_varlen(&q, &q, &q, q_offsets, kv_offsets, n, o, &to, NULL)
    static int64_t wrong[][3] = {{0, 1, 3}, {0, 1, 5}, {1, 2, 4}, {0, 5, 4}, {0, -1, 4}, {0, INT64_MIN, 4}, {0, INT64_MAX, 4}};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        int32_t code = wrong[i][1] < 0 ? DGM_ERROR_RANGE : DGM_ERROR_ARGUMENT;
        REFUSED(code, "q_offsets", PACKED(wrong[i], good, 2, NULL));
        REFUSED(code, "kv_offsets", PACKED(good, wrong[i], 2, NULL));
    }
    REFUSED(DGM_ERROR_NULL, "q_offsets is null", PACKED(NULL, good, 2, NULL));
    REFUSED(DGM_ERROR_NULL, "kv_offsets is null", PACKED(good, NULL, 2, NULL));
    REFUSED(DGM_ERROR_STRIDE, "q_offsets", PACKED((int64_t *)(void *)((char *)good + 4), good, 1, NULL));
    REFUSED(DGM_ERROR_RANGE, "sequences", PACKED(good, good, -1, NULL));
    REFUSED(DGM_ERROR_RANGE, "sequences", PACKED(good, good, INT64_MIN, NULL));
    REFUSED(DGM_ERROR_OVERFLOW, "q_offsets", PACKED(good, good, INT64_MAX, NULL));
    REFUSED(DGM_ERROR_ARGUMENT, "q_offsets", PACKED(good, good, 0, NULL));
    OK(dgm_attention_options_init(&o, sizeof o));
    o.kv_lengths = good;
    REFUSED(DGM_ERROR_ARGUMENT, "kv_lengths", PACKED(good, good, 2, &o));
    OK(dgm_attention_options_init(&o, sizeof o));
    o.scale = NAN;
    REFUSED(DGM_ERROR_RANGE, "scale", PACKED(good, good, 2, &o));
    OK(PACKED(good, good, 2, NULL));
    memcpy(out, untouched, sizeof out);
}

/* Dimensions without elements or without memory of their own: an answer at once. */
static void huge_and_empty(void)
{
    const int64_t huge = (int64_t)1 << 46;
    int64_t none[] = {0}, rows[] = {0, huge}, images[] = {huge, 1, 0, 0}, cut[] = {huge, 0, 4}, wide[] = {huge, 0};
    dgm_tensor t = f32_tensor(NULL, 1, none), to = f32_tensor(NULL, 2, rows), w = f32_tensor(NULL, 2, wide);
    dgm_tensor image = f32_tensor(NULL, 4, images), tokens = f32_tensor(NULL, 3, cut);
    OK(dgm_timestep_embedding(&t, 10000, &to));
    OK(dgm_layer_norm(&w, NULL, NULL, 1e-5f, &w));
    OK(dgm_silu(&w, &w));
    OK(dgm_gelu(&tokens, DGM_GELU_ERF, &tokens));
    OK(dgm_patchify(&image, 2, &tokens));
    OK(dgm_unpatchify(&tokens, 2, &image));
    dgm_linear *layer = (dgm_linear *)(void *)out;
    FAILS(DGM_ERROR_OVERFLOW, "weight", dgm_linear_pack(&w, NULL, &layer));
    CHECK(layer == NULL);
    /* One number, broadcast: as an output it is refused before it is copied. */
    int64_t one[] = {huge}, still[] = {0};
    dgm_tensor spread = f32_tensor(out, 1, one);
    spread.strides = still;
    REFUSED(DGM_ERROR_STRIDE, "out", dgm_silu(&spread, &spread));
    REFUSED(DGM_ERROR_STRIDE, "out", dgm_gelu(&spread, DGM_GELU_TANH, &spread));
}

static void noise(void)
{
    dgm_tensor to = f32_tensor(out, 2, flat), tx = f32_tensor(x, 2, flat);
    int64_t drawn[ROWS] = {-7, -7};
    REFUSED(DGM_ERROR_NULL, "seeds is null", dgm_random_uniform(NULL, ROWS, 0, 0, &to));
    REFUSED(DGM_ERROR_NULL, "seeds is null", dgm_random_normal(NULL, ROWS, 0, 0, &to));
    REFUSED(DGM_ERROR_SHAPE, "seeds", dgm_random_uniform(seeds, ROWS - 1, 0, 0, &to));
    REFUSED(DGM_ERROR_SHAPE, "seeds", dgm_random_normal(NULL, 0, 0, 0, &to));
    REFUSED(DGM_ERROR_OVERFLOW, "seeds", dgm_random_normal(seeds, SIZE_MAX, 0, 0, &to));
    REFUSED(DGM_ERROR_STRIDE, "seeds", dgm_random_normal((uint64_t *)(void *)((char *)seeds + 1), 1, 0, 0, &to));
    REFUSED(DGM_ERROR_ALIAS, "seeds", dgm_random_normal((uint64_t *)(void *)out, ROWS, 0, 0, &to));
    FAILS(DGM_ERROR_NULL, "seeds is null", dgm_random_categorical(&tx, NULL, ROWS, 0, 0, drawn));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_random_categorical(&tx, seeds, ROWS, 0, 0, NULL));
    FAILS(DGM_ERROR_ALIAS, "out", dgm_random_categorical(&tx, seeds, ROWS, 0, 0, (int64_t *)(void *)x));
    FAILS(DGM_ERROR_ALIAS, "out overlaps seeds", dgm_random_categorical(&tx, seeds, ROWS, 0, 0, (int64_t *)(void *)seeds));
    FAILS(DGM_ERROR_OVERFLOW, "seeds", dgm_random_categorical(&tx, seeds, SIZE_MAX, 0, 0, drawn));
    float kept = x[3];
    x[3] = NAN;
    int32_t status = dgm_random_categorical(&tx, seeds, ROWS, 0, 0, drawn);
    CHECK(status < 0 && drawn[0] == -7 && drawn[1] == -7 && strstr(dgm_last_error(), "logits"));
    for (int i = 0; i < N; i++)
        x[i] = -INFINITY; /* nothing to draw from */
    status = dgm_random_categorical(&tx, seeds, ROWS, 0, 0, drawn);
    CHECK(status < 0 && drawn[0] == -7 && drawn[1] == -7 && strstr(dgm_last_error(), "logits"));
    for (int i = 0; i < N; i++)
        x[i] = 0.25f;
    x[3] = kept;
    FAILS(DGM_ERROR_NULL, "out is null", dgm_row_seeds(1, ROWS, NULL));
}

/* One option wrong; all others the defaults of this process and solver. */
static void option_is_refused(int32_t process, int32_t solver, size_t offset, const void *value, size_t size, const char *name)
{
    dgm_plan_options o;
    dgm_plan *plan = (dgm_plan *)(void *)out;
    int before = failed;
    OK(dgm_plan_options_init(&o, sizeof o));
    o.process = process;
    o.solver = solver;
    memcpy((char *)&o + offset, value, size);
    int32_t status = dgm_plan_compile(&o, &plan);
    CHECK(status == DGM_ERROR_RANGE || status == DGM_ERROR_ARGUMENT);
    CHECK(plan == NULL && strstr(dgm_last_error(), name) != NULL);
    if (failed > before)
        fprintf(stderr, "  process %d, solver %d, %s: %d, %s\n", (int)process, (int)solver, name, (int)status, dgm_last_error());
}

static void options(void)
{
    static const struct {
        int32_t process, solver;
    } plans[] = {{DGM_PROCESS_FLOW, DGM_SOLVER_EULER}, {DGM_PROCESS_FLOW, DGM_SOLVER_BOSH3},
                 {DGM_PROCESS_VP_LINEAR, DGM_SOLVER_DDIM}, {DGM_PROCESS_VP_COSINE, DGM_SOLVER_DPMPP_2M}};
#define OPTION(field) {#field, offsetof(dgm_plan_options, field)}
    static const struct {
        const char *name;
        size_t offset;
    } reals[] = {OPTION(shift), OPTION(eta), OPTION(guidance), OPTION(clip), OPTION(beta_start),
                 OPTION(beta_end), OPTION(rtol), OPTION(atol), OPTION(h_init),
                 OPTION(snr), OPTION(guidance_weak), OPTION(t_start), OPTION(t_end), OPTION(step_size), OPTION(target_accept)},
      enums[] = {OPTION(process), OPTION(prediction), OPTION(solver), OPTION(spacing), OPTION(likelihood),
               OPTION(non_finite)},
      counts[] = {OPTION(steps), OPTION(train_steps), OPTION(max_evals), OPTION(corrector_steps), OPTION(leapfrog), OPTION(warmup)};
    static const double wrong[] = {NAN, INFINITY, -INFINITY};
    static const int32_t codes[] = {-1, 99, INT32_MAX, INT32_MIN};
    static const int64_t negative[] = {-1, INT64_MIN};
    for (size_t p = 0; p < COUNT(plans); p++) {
        for (size_t i = 0; i < COUNT(reals); i++)
            for (size_t k = 0; k < COUNT(wrong); k++)
                option_is_refused(plans[p].process, plans[p].solver, reals[i].offset, &wrong[k], 8, reals[i].name);
        for (size_t i = 0; i < COUNT(enums); i++)
            for (size_t k = 0; k < COUNT(codes); k++)
                option_is_refused(plans[p].process, plans[p].solver, enums[i].offset, &codes[k], 4, enums[i].name);
        for (size_t i = 0; i < COUNT(counts); i++)
            for (size_t k = 0; k < COUNT(negative); k++)
                option_is_refused(plans[p].process, plans[p].solver, counts[i].offset, &negative[k], 8, counts[i].name);
    }
    static const int64_t steps[] = {0, 1000000000, INT64_MAX};
    for (size_t k = 0; k < COUNT(steps); k++) {
        option_is_refused(DGM_PROCESS_FLOW, DGM_SOLVER_EULER, offsetof(dgm_plan_options, steps), &steps[k], 8, "steps");
        option_is_refused(DGM_PROCESS_VP_LINEAR, DGM_SOLVER_DDIM, offsetof(dgm_plan_options, steps), &steps[k], 8, "steps");
        option_is_refused(DGM_PROCESS_VP_LINEAR, DGM_SOLVER_DDIM, offsetof(dgm_plan_options, train_steps), &steps[k], 8, "train_steps");
    }
    option_is_refused(DGM_PROCESS_FLOW, DGM_SOLVER_BOSH3, offsetof(dgm_plan_options, max_evals), &steps[0], 8, "max_evals");
    option_is_refused(DGM_PROCESS_FLOW, DGM_SOLVER_BOSH3, offsetof(dgm_plan_options, max_evals), &steps[2], 8, "max_evals");

    static double grid[][3] = {{1, NAN, 0}, {NAN, 0.5, 0}, {1, 0.5, NAN}, {INFINITY, 0.5, 0}, {1, 0.5, -INFINITY},
                               {0, 0.5, 1}, {1, 1, 0}, {1, 0.5, 0.5}, {1e300, 1, 0}, {1, 0.5, -1}};
    dgm_plan_options o;
    dgm_plan *plan = NULL;
    OK(dgm_plan_options_init(&o, sizeof o));
    for (size_t i = 0; i < COUNT(grid); i++) {
        o.times = grid[i];
        o.times_len = 3;
        CHECK(dgm_plan_compile(&o, &plan) < 0 && plan == NULL && strstr(dgm_last_error(), "times"));
    }
    grid[0][1] = 0.5;
    static const size_t lengths[] = {0, 1, SIZE_MAX, SIZE_MAX / 8};
    o.times = grid[0];
    for (size_t i = 0; i < COUNT(lengths); i++) {
        o.times_len = lengths[i];
        if (lengths[i] < 2 || lengths[i] > SIZE_MAX / 8)
            CHECK(dgm_plan_compile(&o, &plan) < 0 && plan == NULL && strstr(dgm_last_error(), "times"));
    }
    o.times = (double *)(void *)((char *)grid + 1);
    o.times_len = 3;
    FAILS(DGM_ERROR_STRIDE, "times", dgm_plan_compile(&o, &plan));
}

static int32_t zero_model(void *ctx, const dgm_request *r, const float *in, const float *t, float *y)
{
    (void)ctx, (void)in, (void)t;
    memset(y, 0, (size_t)(r->rows * r->elements) * sizeof *y);
    return 0;
}

static void driver(void)
{
    static char run[512];
    static float state[4 * ROWS * N], y[ROWS * N], t[ROWS];
    dgm_plan *plan = NULL;
    size_t size = 0, len = 0;
    OK(dgm_plan_compile(NULL, &plan));
    OK(dgm_plan_run_size(plan, ROWS, &size));
    OK(dgm_plan_state_len(plan, ROWS, N, &len));
    CHECK(size <= sizeof run && len <= COUNT(state));
#define SAMPLE(plan, seeds, rows, elements, run, size, state, len, y, t, model) \
    dgm_sample(plan, seeds, rows, elements, NULL, run, size, state, len, y, t, model, NULL)
    FAILS(DGM_ERROR_NULL, "plan is null", SAMPLE(NULL, seeds, ROWS, N, run, size, state, len, y, t, zero_model));
    FAILS(DGM_ERROR_NULL, "seeds is null", SAMPLE(plan, NULL, ROWS, N, run, size, state, len, y, t, zero_model));
    FAILS(DGM_ERROR_NULL, "run is null", SAMPLE(plan, seeds, ROWS, N, NULL, size, state, len, y, t, zero_model));
    FAILS(DGM_ERROR_NULL, "state is null", SAMPLE(plan, seeds, ROWS, N, run, size, NULL, len, y, t, zero_model));
    FAILS(DGM_ERROR_NULL, "y is null", SAMPLE(plan, seeds, ROWS, N, run, size, state, len, NULL, t, zero_model));
    FAILS(DGM_ERROR_NULL, "t is null", SAMPLE(plan, seeds, ROWS, N, run, size, state, len, y, NULL, zero_model));
    FAILS(DGM_ERROR_NULL, "model is null", SAMPLE(plan, seeds, ROWS, N, run, size, state, len, y, t, NULL));
    FAILS(DGM_ERROR_RANGE, "rows", SAMPLE(plan, seeds, 0, N, run, size, state, len, y, t, zero_model));
    FAILS(DGM_ERROR_RANGE, "elements", SAMPLE(plan, seeds, ROWS, 0, run, size, state, len, y, t, zero_model));
    STATUS(DGM_ERROR_OVERFLOW, SAMPLE(plan, seeds, ROWS, SIZE_MAX, run, size, state, len, y, t, zero_model));
    STATUS(DGM_ERROR_OVERFLOW, SAMPLE(plan, seeds, SIZE_MAX, N, run, size, state, len, y, t, zero_model));
    FAILS(DGM_ERROR_RANGE, "run_size", SAMPLE(plan, seeds, ROWS, N, run, size - 1, state, len, y, t, zero_model));
    FAILS(DGM_ERROR_RANGE, "state_len", SAMPLE(plan, seeds, ROWS, N, run, size, state, len - 1, y, t, zero_model));
    FAILS(DGM_ERROR_ALIAS, "y", SAMPLE(plan, seeds, ROWS, N, run, size, state, len, state, t, zero_model));
    FAILS(DGM_ERROR_ALIAS, "t", SAMPLE(plan, seeds, ROWS, N, run, size, state, len, y, state, zero_model));
    FAILS(DGM_ERROR_ALIAS, "t", SAMPLE(plan, seeds, ROWS, N, run, size, state, len, y, y, zero_model));
    FAILS(DGM_ERROR_ALIAS, "y", SAMPLE(plan, seeds, ROWS, N, y, sizeof y, state, len, y, t, zero_model));
    OK(SAMPLE(plan, seeds, ROWS, N, run, size, state, len, y, t, zero_model));
    dgm_plan_free(plan);
}

static void network(void)
{
    dgm_model *model = NULL;
    dgm_plan *plan = NULL;
    dgm_plan_options o;
    dgm_model_info info;
    size_t len = 0;
    char text[16] = "untouched";
    OK(dgm_model_load("models/digits.safetensors", &model));
    OK(dgm_plan_options_init(&o, sizeof o));
    FAILS(DGM_ERROR_NULL, "path is null", dgm_model_load(NULL, (dgm_model **)&plan));
    CHECK(plan == NULL);
    FAILS(DGM_ERROR_NULL, "out is null", dgm_model_load("models/digits.safetensors", NULL));
    CHECK(dgm_model_load("", (dgm_model **)&plan) == DGM_ERROR_IO && plan == NULL);
    CHECK(dgm_model_load("models", (dgm_model **)&plan) == DGM_ERROR_IO && plan == NULL);
    info.struct_size = sizeof info;
    FAILS(DGM_ERROR_NULL, "model is null", dgm_model_get_info(NULL, &info));
    FAILS(DGM_ERROR_NULL, "info is null", dgm_model_get_info(model, NULL));
    FAILS(DGM_ERROR_NULL, "model is null", dgm_model_plan_options(NULL, &o));
    FAILS(DGM_ERROR_NULL, "model is null", dgm_model_metadata(NULL, "process", text, sizeof text, NULL));
    FAILS(DGM_ERROR_NULL, "key is null", dgm_model_metadata(model, NULL, text, sizeof text, NULL));
    FAILS(DGM_ERROR_NULL, "buf is null", dgm_model_metadata(model, "process", NULL, 3, NULL));
    FAILS(DGM_ERROR_ARGUMENT, "key", dgm_model_metadata(model, "\xff\xfe", text, sizeof text, NULL));
    FAILS(DGM_ERROR_RANGE, "cap", dgm_model_metadata(model, "process", text, 2, &len));
    CHECK(strcmp(text, "untouched") == 0 && len == 5);
    FAILS(DGM_ERROR_NULL, "model is null", dgm_model_workspace_len(NULL, 1, &len));
    FAILS(DGM_ERROR_NULL, "floats is null", dgm_model_workspace_len(model, 1, NULL));
    STATUS(DGM_ERROR_OVERFLOW, dgm_model_workspace_len(model, SIZE_MAX, &len));

    OK(dgm_model_workspace_len(model, ROWS, &len));
    float *work = (float *)malloc(len * sizeof *work);
    dgm_tensor tx = f32_tensor(x, 4, image), to = f32_tensor(out, 4, image);
#define FORWARD(model, t, labels, work, len) dgm_model_forward(model, &tx, t, labels, work, len, &to)
    REFUSED(DGM_ERROR_NULL, "model is null", FORWARD(NULL, times, labels, work, len));
    REFUSED(DGM_ERROR_NULL, "t is null", FORWARD(model, NULL, labels, work, len));
    REFUSED(DGM_ERROR_NULL, "labels is null", FORWARD(model, times, NULL, work, len));
    REFUSED(DGM_ERROR_NULL, "workspace is null", FORWARD(model, times, labels, NULL, len));
    REFUSED(DGM_ERROR_SHAPE, "workspace", FORWARD(model, times, labels, work, len - 1));
    REFUSED(DGM_ERROR_SHAPE, "workspace", FORWARD(model, times, labels, work, 0));
    REFUSED(DGM_ERROR_OVERFLOW, "workspace", FORWARD(model, times, labels, work, SIZE_MAX));
    REFUSED(DGM_ERROR_ALIAS, "workspace", FORWARD(model, work, labels, work, len));
    REFUSED(DGM_ERROR_ALIAS, "out overlaps t", FORWARD(model, out, labels, work, len));
    REFUSED(DGM_ERROR_ALIAS, "out overlaps labels", FORWARD(model, times, (int64_t *)(void *)out, work, len));
    static const int64_t wrong[] = {-1, 11, INT64_MAX, INT64_MIN};
    OK(dgm_model_plan_options(model, &o));
    o.steps = 1;
    OK(dgm_plan_compile(&o, &plan));
    for (size_t i = 0; i < COUNT(wrong); i++) {
        int64_t bad[ROWS] = {1, wrong[i]};
        REFUSED(DGM_ERROR_RANGE, "labels", FORWARD(model, times, bad, work, len));
        REFUSED(DGM_ERROR_RANGE, "labels", dgm_generate(model, plan, seeds, bad, ROWS, &to));
    }
    static const float no_time[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < COUNT(no_time); i++) {
        float bad[ROWS] = {0.5f, no_time[i]};
        int32_t status = FORWARD(model, bad, labels, work, len);
        CHECK(status == DGM_OK ? isnan(out[N]) && !isnan(out[0]) : memcmp(out, untouched, sizeof out) == 0);
        memcpy(out, untouched, sizeof out);
    }
    REFUSED(DGM_ERROR_NULL, "model is null", dgm_generate(NULL, plan, seeds, labels, ROWS, &to));
    REFUSED(DGM_ERROR_NULL, "plan is null", dgm_generate(model, NULL, seeds, labels, ROWS, &to));
    REFUSED(DGM_ERROR_NULL, "seeds is null", dgm_generate(model, plan, NULL, labels, ROWS, &to));
    REFUSED(DGM_ERROR_NULL, "labels is null", dgm_generate(model, plan, seeds, NULL, ROWS, &to));
    REFUSED(DGM_ERROR_ALIAS, "seeds", dgm_generate(model, plan, (uint64_t *)(void *)out, labels, ROWS, &to));
    REFUSED(DGM_ERROR_ALIAS, "labels", dgm_generate(model, plan, seeds, (int64_t *)(void *)out, ROWS, &to));
    REFUSED(DGM_ERROR_OVERFLOW, "seeds", dgm_generate(model, plan, seeds, labels, SIZE_MAX, &to));
    CHECK(dgm_generate(model, plan, seeds, labels, 0, &to) < 0 && memcmp(out, untouched, sizeof out) == 0);
    free(work);
    dgm_plan_free(plan);
    dgm_model_free(model);
}

int main(void)
{
    for (int i = 0; i < ROWS * N; i++) {
        x[i] = 0.25f;
        out[i] = untouched[i] = -1234.5f;
    }
    kernels();
    attention_options();
    packed_sequences();
    huge_and_empty();
    noise();
    options();
    driver();
    network();
    return finish("test_bad_scalars");
}
