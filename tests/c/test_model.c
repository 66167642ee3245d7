/* The trained network: its file, its forward, generation, and every kind of bad input. */
#include "golden.h"

static float out[4096], again[4096];

static void forward(const char *file, const char *group)
{
    char name[64];
    snprintf(name, sizeof name, "%s.x", group);
    golden x = golden_get(name);
    snprintf(name, sizeof name, "%s.t", group);
    golden t = golden_get(name);
    snprintf(name, sizeof name, "%s.labels", group);
    golden labels = golden_get(name);
    snprintf(name, sizeof name, "%s.out", group);
    golden want = golden_get(name);

    dgm_model *model = NULL;
    OK(dgm_model_load(file, &model));
    if (model == NULL)
        return;
    size_t batch = (size_t)x.shape[0], len = 0;
    const float *times = (const float *)t.data;
    const int64_t *classes = (const int64_t *)labels.data;
    OK(dgm_model_workspace_len(model, batch, &len));
    float *workspace = (float *)malloc(len * sizeof *workspace);
    memset(workspace, 0xff, len * sizeof *workspace);
    dgm_tensor tx = golden_tensor(&x), to = f32_tensor(out, 4, want.shape);
    OK(dgm_model_forward(model, &tx, times, classes, workspace, len, &to));
    CHECK(golden_close(out, &want, 2e-5));

    /* One image alone gives the same bits. */
    int64_t x_one[] = {1, x.shape[1], x.shape[2], x.shape[3]}, y_one[] = {1, want.shape[1], want.shape[2], want.shape[3]};
    size_t x_len = x.len / batch, y_len = want.len / batch;
    dgm_tensor sx = f32_tensor((float *)x.data + x_len, 4, x_one), sy = f32_tensor(again, 4, y_one);
    OK(dgm_model_forward(model, &sx, times + 1, classes + 1, workspace, len, &sy));
    CHECK(memcmp(again, out + y_len, y_len * sizeof *out) == 0);

    STATUS(DGM_ERROR_SHAPE, dgm_model_forward(model, &tx, times, classes, workspace, 7, &to));
    FAILS(DGM_ERROR_NULL, "t is null", dgm_model_forward(model, &tx, NULL, classes, workspace, len, &to));
    FAILS(DGM_ERROR_NULL, "labels is null", dgm_model_forward(model, &tx, times, NULL, workspace, len, &to));
    FAILS(DGM_ERROR_NULL, "workspace is null", dgm_model_forward(model, &tx, times, classes, NULL, len, &to));
    FAILS(DGM_ERROR_NULL, "x is null", dgm_model_forward(model, NULL, times, classes, workspace, len, &to));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_model_forward(model, &tx, times, classes, workspace, len, NULL));
    FAILS(DGM_ERROR_NULL, "model is null", dgm_model_forward(NULL, &tx, times, classes, workspace, len, &to));
    FAILS(DGM_ERROR_ALIAS, "out overlaps", dgm_model_forward(model, &to, times, classes, workspace, len, &to));
    to.data = workspace;
    FAILS(DGM_ERROR_ALIAS, "out overlaps workspace", dgm_model_forward(model, &tx, times, classes, workspace, len, &to));
    to.data = out;
    to.shape = x_one;
    STATUS(DGM_ERROR_SHAPE, dgm_model_forward(model, &tx, times, classes, workspace, len, &to));
    int64_t wrong[8] = {99, 0, -1};
    STATUS(DGM_ERROR_RANGE, dgm_model_forward(model, &sx, times, wrong, workspace, len, &sy));
    STATUS(DGM_ERROR_RANGE, dgm_model_forward(model, &sx, times, wrong + 2, workspace, len, &sy));
    STATUS(DGM_ERROR_OVERFLOW, dgm_model_workspace_len(model, SIZE_MAX / 2, &len));
    free(workspace);
    dgm_model_free(model);
}

static void file(void)
{
    dgm_model *model = (dgm_model *)out;
    FAILS(DGM_ERROR_IO, "no/such/file", dgm_model_load("no/such/file", &model));
    CHECK(model == NULL);
    STATUS(DGM_ERROR_FORMAT, dgm_model_load("tests/golden/golden.txt", &model));
    FAILS(DGM_ERROR_NULL, "path", dgm_model_load(NULL, &model));
    FAILS(DGM_ERROR_NULL, "out", dgm_model_load("models/digits.safetensors", NULL));
    FAILS(DGM_ERROR_ARGUMENT, "UTF-8", dgm_model_load("\xff", &model));
    dgm_model_free(NULL);

    OK(dgm_model_load("models/digits.safetensors", &model));
    dgm_model_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    OK(dgm_model_get_info(model, &info));
    CHECK(info.channels == 1 && info.height == 8 && info.width == 8 && info.out_channels == 1);
    CHECK(info.num_classes == 10 && info.tokens > 0 && info.width_d > 0 && info.depth > 0 && info.heads > 0);
    CHECK(info.packed_bytes > 1000);
    info.struct_size = 1;
    FAILS(DGM_ERROR_ARGUMENT, "struct_size 1", dgm_model_get_info(model, &info));

    char text[64];
    size_t needed = 0;
    OK(dgm_model_metadata(model, "process", text, sizeof text, &needed));
    CHECK(strcmp(text, "flow") == 0 && needed == 5);
    FAILS(DGM_ERROR_ARGUMENT, "no such key", dgm_model_metadata(model, "no such key", text, sizeof text, NULL));
    FAILS(DGM_ERROR_NULL, "key", dgm_model_metadata(model, NULL, text, sizeof text, NULL));

    dgm_plan_options o;
    OK(dgm_plan_options_init(&o, sizeof o));
    OK(dgm_model_plan_options(model, &o));
    CHECK(o.struct_size == sizeof o && o.process == DGM_PROCESS_FLOW && o.steps >= 1 && o.times == NULL);
    FAILS(DGM_ERROR_NULL, "options", dgm_model_plan_options(model, NULL));
    dgm_model_free(model);
}

static int32_t network(void *ctx, const dgm_request *r, const float *x, const float *t, float *y)
{
    static float workspace[1 << 20];
    static const int64_t classes[] = {3, 1, 4}, none[] = {10, 10, 10};
    int64_t shape[] = {r->rows, 1, 8, 8};
    dgm_tensor in = f32_tensor(x, 4, shape), result = f32_tensor(y, 4, shape);
    const int64_t *labels = r->role == DGM_ROLE_UNCOND ? none : classes;
    return dgm_model_forward((const dgm_model *)ctx, &in, t, labels, workspace, COUNT(workspace), &result);
}

static void generation(void)
{
    enum { ROWS = 3, N = 64 };
    dgm_model *model = NULL;
    dgm_plan *plan = NULL;
    dgm_plan_options o;
    OK(dgm_model_load("models/digits.safetensors", &model));
    OK(dgm_plan_options_init(&o, sizeof o));
    OK(dgm_model_plan_options(model, &o));
    o.steps = 4;
    o.guidance = 2;
    OK(dgm_plan_compile(&o, &plan));
    uint64_t seeds[ROWS];
    int64_t labels[] = {3, 1, 4}, shape[] = {ROWS, 1, 8, 8};
    dgm_tensor to = f32_tensor(out, 4, shape);
    OK(dgm_row_seeds(1, ROWS, seeds));
    OK(dgm_generate(model, plan, seeds, labels, ROWS, &to));

    /* The same by ask and tell. */
    static char run[4096];
    static float state[4096], y[ROWS * N], t[ROWS];
    size_t run_size = 0, state_len = 0;
    const float *x = NULL;
    OK(dgm_plan_run_size(plan, ROWS, &run_size));
    OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
    CHECK(run_size <= sizeof run && state_len <= COUNT(state));
    OK(dgm_sample(plan, seeds, ROWS, N, NULL, run, run_size, state, state_len, y, t, network, model));
    OK(dgm_run_result(plan, run, run_size, state, state_len, &x));
    CHECK(x != NULL && memcmp(x, out, sizeof y) == 0);

    /* On one thread, and one image alone. */
    OK(dgm_set_num_threads(1));
    to.data = again;
    OK(dgm_generate(model, plan, seeds, labels, ROWS, &to));
    CHECK(memcmp(again, out, sizeof y) == 0);
    OK(dgm_set_num_threads(2));
    int64_t one[] = {1, 1, 8, 8};
    to.shape = one;
    OK(dgm_generate(model, plan, seeds + 2, labels + 2, 1, &to));
    CHECK(memcmp(again, out + 2 * N, N * sizeof *out) == 0);

    STATUS(DGM_ERROR_SHAPE, dgm_generate(model, plan, seeds, labels, ROWS, &to));
    FAILS(DGM_ERROR_NULL, "model", dgm_generate(NULL, plan, seeds, labels, 1, &to));
    FAILS(DGM_ERROR_NULL, "plan", dgm_generate(model, NULL, seeds, labels, 1, &to));
    FAILS(DGM_ERROR_NULL, "seeds", dgm_generate(model, plan, NULL, labels, 1, &to));
    FAILS(DGM_ERROR_NULL, "labels", dgm_generate(model, plan, seeds, NULL, 1, &to));
    FAILS(DGM_ERROR_NULL, "out", dgm_generate(model, plan, seeds, labels, 1, NULL));
    dgm_plan_free(plan);
    dgm_model_free(model);
}

int main(void)
{
    golden_open();
    file();
    forward("models/digits.safetensors", "dit.digits");
    forward("tests/golden/tiny_dit.safetensors", "dit.tiny");
    generation();
    free(golden_data);
    return finish("test_model");
}
