/* The MM-DiT of Stable Diffusion 3: the outputs of diffusers, equal bits alone, and every kind of bad input. */
#include "golden.h"

enum { N = 4 * 8 * 6, FLOATS = 1 << 15 };

static float out[2 * N], alone[N], untouched[2 * N], work[FLOATS];

#define REFUSED(status, words, call)                               \
    do {                                                           \
        FAILS(status, words, call);                                \
        CHECK(memcmp(out, untouched, sizeof out) == 0);            \
    } while (0)

int main(void)
{
    static char place;
    golden_open_files("tests/golden/sd3.txt", "tests/golden/sd3.bin");
    golden x = golden_get("sd3.x"), text = golden_get("sd3.text"), pooled = golden_get("sd3.pooled");
    golden t = golden_get("sd3.t"), want = golden_get("sd3.out");
    float *times = (float *)t.data;

    dgm_sd3 *model = NULL, *none = (dgm_sd3 *)(void *)&place;
    dgm_sd3_info info;
    size_t len = 0;
    memset(&info, 0, sizeof info);
    FAILS(DGM_ERROR_NULL, "folder is null", dgm_sd3_load(NULL, &none));
    CHECK(none == NULL);
    none = (dgm_sd3 *)(void *)&place;
    FAILS(DGM_ERROR_IO, "no/such/folder/config.json", dgm_sd3_load("no/such/folder", &none));
    CHECK(none == NULL);
    STATUS(DGM_ERROR_FORMAT, dgm_sd3_load("tests/golden/tiny_llama", &none));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_sd3_load("tests/golden/tiny_sd3", NULL));
    dgm_sd3_free(NULL);
    OK(dgm_sd3_load("tests/golden/tiny_sd3", &model));
    STATUS(DGM_ERROR_ARGUMENT, dgm_sd3_get_info(model, &info));
    info.struct_size = sizeof info;
    FAILS(DGM_ERROR_NULL, "model is null", dgm_sd3_get_info(NULL, &info));
    FAILS(DGM_ERROR_NULL, "info is null", dgm_sd3_get_info(model, NULL));
    OK(dgm_sd3_get_info(model, &info));
    CHECK(info.channels == 4 && info.out_channels == 4 && info.patch == 2 && info.hidden == 24 && info.heads == 3);
    CHECK(info.text == 20 && info.pooled == 12 && info.positions == 6 && info.packed_bytes > 100000);
    FAILS(DGM_ERROR_NULL, "model is null", dgm_sd3_workspace_len(NULL, 8, 6, 7, &len));
    FAILS(DGM_ERROR_NULL, "floats is null", dgm_sd3_workspace_len(model, 8, 6, 7, NULL));
    FAILS(DGM_ERROR_RANGE, "height is 9", dgm_sd3_workspace_len(model, 9, 6, 7, &len));
    STATUS(DGM_ERROR_OVERFLOW, dgm_sd3_workspace_len(model, 8, 6, SIZE_MAX, &len));
    OK(dgm_sd3_workspace_len(model, 8, 6, 7, &len));
    CHECK(len <= FLOATS);

    dgm_tensor tx = golden_tensor(&x), tt = golden_tensor(&text), tp = golden_tensor(&pooled);
    dgm_tensor to = f32_tensor(out, 4, want.shape);
    for (size_t i = 0; i < 2 * N; i++)
        out[i] = untouched[i] = -1234.5f;
    REFUSED(DGM_ERROR_NULL, "model is null", dgm_sd3_forward(NULL, &tx, times, &tt, &tp, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "x is null", dgm_sd3_forward(model, NULL, times, &tt, &tp, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "t is null", dgm_sd3_forward(model, &tx, NULL, &tt, &tp, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "text is null", dgm_sd3_forward(model, &tx, times, NULL, &tp, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "pooled is null", dgm_sd3_forward(model, &tx, times, &tt, NULL, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "workspace is null", dgm_sd3_forward(model, &tx, times, &tt, &tp, NULL, len, &to));
    REFUSED(DGM_ERROR_NULL, "out is null", dgm_sd3_forward(model, &tx, times, &tt, &tp, work, len, NULL));
    REFUSED(DGM_ERROR_SHAPE, "workspace", dgm_sd3_forward(model, &tx, times, &tt, &tp, work, len - 1, &to));
    REFUSED(DGM_ERROR_OVERFLOW, "workspace", dgm_sd3_forward(model, &tx, times, &tt, &tp, work, SIZE_MAX, &to));
    REFUSED(DGM_ERROR_ALIAS, "workspace", dgm_sd3_forward(model, &tx, work, &tt, &tp, work, len, &to));
    REFUSED(DGM_ERROR_ALIAS, "workspace", dgm_sd3_forward(model, &tx, times, &tt, &tp, out, len, &to));
    REFUSED(DGM_ERROR_ALIAS, "out overlaps t", dgm_sd3_forward(model, &tx, out, &tt, &tp, work, len, &to));
    REFUSED(DGM_ERROR_SHAPE, "text", dgm_sd3_forward(model, &tx, times, &tx, &tp, work, len, &to));
    REFUSED(DGM_ERROR_SHAPE, "pooled", dgm_sd3_forward(model, &tx, times, &tt, &tt, work, len, &to));
    dgm_tensor in_place = f32_tensor(out, 4, want.shape);
    REFUSED(DGM_ERROR_ALIAS, "out", dgm_sd3_forward(model, &in_place, times, &tt, &tp, work, len, &to));
    float no_time[] = {1, NAN};
    REFUSED(DGM_ERROR_RANGE, "t is", dgm_sd3_forward(model, &tx, no_time, &tt, &tp, work, len, &to));

    memset(work, 0xff, sizeof work);
    OK(dgm_sd3_forward(model, &tx, times, &tt, &tp, work, len, &to));
    CHECK(golden_close(out, &want, 2e-6));
    int64_t x_one[] = {1, 4, 8, 6}, text_one[] = {1, 7, 20}, pooled_one[] = {1, 12};
    dgm_tensor sx = f32_tensor((float *)x.data + N, 4, x_one), st = f32_tensor((float *)text.data + 140, 3, text_one);
    dgm_tensor sp = f32_tensor((float *)pooled.data + 12, 2, pooled_one), so = f32_tensor(alone, 4, x_one);
    OK(dgm_sd3_forward(model, &sx, times + 1, &st, &sp, work, len, &so));
    CHECK(memcmp(alone, out + N, sizeof alone) == 0);
    dgm_sd3_free(model);
    free(golden_data);
    return finish("test_sd3");
}
