/* The transformer of Flux: the outputs of diffusers, equal bits alone, and every kind of bad input. */
#include "golden.h"

enum { N = 12 * 8, FLOATS = 1 << 14 };

static float out[2 * N], alone[N], untouched[2 * N], work[FLOATS];

#define REFUSED(status, words, call)                               \
    do {                                                           \
        FAILS(status, words, call);                                \
        CHECK(memcmp(out, untouched, sizeof out) == 0);            \
    } while (0)

/* So that a call is a line. */
#define FORWARD dgm_flux_forward

/* The model without a guidance, all places of text at zero. */
static void schnell(void)
{
    static float plain[2 * 12 * 16];
    golden x = golden_get("tiny_flux.x"), text = golden_get("tiny_flux.text"), pooled = golden_get("tiny_flux.pooled");
    golden t = golden_get("tiny_flux.t"), ids = golden_get("tiny_flux.ids"), want = golden_get("tiny_flux.out");
    dgm_tensor tx = golden_tensor(&x), tt = golden_tensor(&text), tp = golden_tensor(&pooled), ti = golden_tensor(&ids);
    dgm_tensor to = f32_tensor(plain, 3, want.shape);
    const float *times = (const float *)t.data;
    dgm_flux *model = NULL;
    dgm_flux_info info;
    size_t len = 0;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    OK(dgm_flux_load("tests/golden/tiny_flux", &model));
    OK(dgm_flux_get_info(model, &info));
    CHECK(info.channels == 16 && info.out_channels == 16 && info.depth == 2 && info.single_depth == 3 && !info.guidance);
    OK(dgm_flux_workspace_len(model, 12, 5, &len));
    CHECK(len <= FLOATS);
    FAILS(DGM_ERROR_ARGUMENT, "guidance is given, expected none",
          dgm_flux_forward(model, &tx, times, times, &tt, &tp, &ti, NULL, work, len, &to));
    OK(dgm_flux_forward(model, &tx, times, NULL, &tt, &tp, &ti, NULL, work, len, &to));
    CHECK(golden_close(plain, &want, 2e-6));
    dgm_flux_free(model);
}

int main(void)
{
    static char place;
    golden_open_files("tests/golden/flux.txt", "tests/golden/flux.bin");
    schnell();
    golden x = golden_get("tiny_flux_dev.x"), text = golden_get("tiny_flux_dev.text");
    golden pooled = golden_get("tiny_flux_dev.pooled"), ids = golden_get("tiny_flux_dev.ids");
    golden text_ids = golden_get("tiny_flux_dev.text_ids"), t = golden_get("tiny_flux_dev.t");
    golden guidance = golden_get("tiny_flux_dev.guidance"), want = golden_get("tiny_flux_dev.out");
    float *times = (float *)t.data, *guides = (float *)guidance.data;

    dgm_flux *model = NULL, *none = (dgm_flux *)(void *)&place;
    dgm_flux_info info;
    size_t len = 0;
    memset(&info, 0, sizeof info);
    FAILS(DGM_ERROR_NULL, "folder is null", dgm_flux_load(NULL, &none));
    CHECK(none == NULL);
    none = (dgm_flux *)(void *)&place;
    FAILS(DGM_ERROR_IO, "no/such/folder/config.json", dgm_flux_load("no/such/folder", &none));
    CHECK(none == NULL);
    FAILS(DGM_ERROR_FORMAT, "_class_name", dgm_flux_load("tests/golden/tiny_sd3", &none));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_flux_load("tests/golden/tiny_flux_dev", NULL));
    dgm_flux_free(NULL);
    OK(dgm_flux_load("tests/golden/tiny_flux_dev", &model));
    STATUS(DGM_ERROR_ARGUMENT, dgm_flux_get_info(model, &info));
    info.struct_size = sizeof info;
    FAILS(DGM_ERROR_NULL, "model is null", dgm_flux_get_info(NULL, &info));
    FAILS(DGM_ERROR_NULL, "info is null", dgm_flux_get_info(model, NULL));
    OK(dgm_flux_get_info(model, &info));
    CHECK(info.channels == 16 && info.out_channels == 8 && info.hidden == 24 && info.heads == 3 && info.axes == 3);
    CHECK(info.depth == 1 && info.single_depth == 2 && info.text == 20 && info.pooled == 12 && info.guidance == 1);
    CHECK(info.packed_bytes > 50000);
    FAILS(DGM_ERROR_NULL, "model is null", dgm_flux_workspace_len(NULL, 12, 5, &len));
    FAILS(DGM_ERROR_NULL, "floats is null", dgm_flux_workspace_len(model, 12, 5, NULL));
    STATUS(DGM_ERROR_OVERFLOW, dgm_flux_workspace_len(model, 12, SIZE_MAX, &len));
    OK(dgm_flux_workspace_len(model, 12, 5, &len));
    CHECK(len <= FLOATS);

    dgm_tensor tx = golden_tensor(&x), tt = golden_tensor(&text), tp = golden_tensor(&pooled);
    dgm_tensor ti = golden_tensor(&ids), tti = golden_tensor(&text_ids), to = f32_tensor(out, 3, want.shape);
    for (size_t i = 0; i < 2 * N; i++)
        out[i] = untouched[i] = -1234.5f;
    REFUSED(DGM_ERROR_NULL, "model is null", FORWARD(NULL, &tx, times, guides, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "x is null", FORWARD(model, NULL, times, guides, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "t is null", FORWARD(model, &tx, NULL, guides, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_ARGUMENT, "guidance is missing", FORWARD(model, &tx, times, NULL, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "text is null", FORWARD(model, &tx, times, guides, NULL, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "pooled is null", FORWARD(model, &tx, times, guides, &tt, NULL, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "ids is null", FORWARD(model, &tx, times, guides, &tt, &tp, NULL, &tti, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "workspace is null", FORWARD(model, &tx, times, guides, &tt, &tp, &ti, &tti, NULL, len, &to));
    REFUSED(DGM_ERROR_NULL, "out is null", FORWARD(model, &tx, times, guides, &tt, &tp, &ti, &tti, work, len, NULL));
    REFUSED(DGM_ERROR_SHAPE, "workspace", FORWARD(model, &tx, times, guides, &tt, &tp, &ti, &tti, work, len - 1, &to));
    REFUSED(DGM_ERROR_OVERFLOW, "workspace", FORWARD(model, &tx, times, guides, &tt, &tp, &ti, &tti, work, SIZE_MAX, &to));
    REFUSED(DGM_ERROR_ALIAS, "workspace", FORWARD(model, &tx, work, guides, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_ALIAS, "workspace", FORWARD(model, &tx, times, work, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_ALIAS, "workspace", FORWARD(model, &tx, times, guides, &tt, &tp, &ti, &tti, out, len, &to));
    REFUSED(DGM_ERROR_ALIAS, "out overlaps t", FORWARD(model, &tx, out, guides, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_ALIAS, "out overlaps guidance", FORWARD(model, &tx, times, out, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_SHAPE, "x has", FORWARD(model, &tp, times, guides, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_SHAPE, "text has", FORWARD(model, &tx, times, guides, &tx, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_SHAPE, "pooled has", FORWARD(model, &tx, times, guides, &tt, &ti, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_SHAPE, "ids has", FORWARD(model, &tx, times, guides, &tt, &tp, &tti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_SHAPE, "text_ids has", FORWARD(model, &tx, times, guides, &tt, &tp, &ti, &ti, work, len, &to));
    int64_t places[] = {5, 3}, less[] = {2, 12, 7};
    dgm_tensor over = f32_tensor(out, 2, places), small = f32_tensor(out, 3, less);
    REFUSED(DGM_ERROR_SHAPE, "out has", FORWARD(model, &tx, times, guides, &tt, &tp, &ti, &tti, work, len, &small));
    REFUSED(DGM_ERROR_ALIAS, "out", FORWARD(model, &tx, times, guides, &tt, &tp, &ti, &over, work, len, &to));
    float no_time[] = {1, NAN};
    REFUSED(DGM_ERROR_RANGE, "t is", FORWARD(model, &tx, no_time, guides, &tt, &tp, &ti, &tti, work, len, &to));
    REFUSED(DGM_ERROR_RANGE, "guidance is", FORWARD(model, &tx, times, no_time, &tt, &tp, &ti, &tti, work, len, &to));

    memset(work, 0xff, sizeof work);
    OK(FORWARD(model, &tx, times, guides, &tt, &tp, &ti, &tti, work, len, &to));
    CHECK(golden_close(out, &want, 2e-6));
    int64_t x_one[] = {1, 12, 16}, text_one[] = {1, 5, 20}, pooled_one[] = {1, 12}, out_one[] = {1, 12, 8};
    dgm_tensor sx = f32_tensor((float *)x.data + 12 * 16, 3, x_one), st = f32_tensor((float *)text.data + 100, 3, text_one);
    dgm_tensor sp = f32_tensor((float *)pooled.data + 12, 2, pooled_one), so = f32_tensor(alone, 3, out_one);
    OK(FORWARD(model, &sx, times + 1, guides + 1, &st, &sp, &ti, &tti, work, len, &so));
    CHECK(memcmp(alone, out + N, sizeof alone) == 0);
    dgm_flux_free(model);
    free(golden_data);
    return finish("test_flux");
}
