/* Norms, modulation, activations, embeddings and patches against their formulas. */
#include "check.h"

enum { ROWS = 4, W = 6 }; /* as [B, T, d]: [2, 2, 6] */

static float x[ROWS * W], y[ROWS * W], out[ROWS * W], a[2 * W], b[2 * W];
static int64_t rows_shape[] = {ROWS, W}, vector_shape[] = {W}, btd[] = {2, 2, W}, bd[] = {2, W};

static void norms(void)
{
    dgm_tensor tx = f32_tensor(x, 2, rows_shape), to = f32_tensor(out, 2, rows_shape);
    dgm_tensor weight = f32_tensor(a, 1, vector_shape), bias = f32_tensor(b, 1, vector_shape);
    OK(dgm_layer_norm(&tx, &weight, &bias, 1e-5f, &to));
    for (int r = 0; r < ROWS; r++) {
        double mean = 0, var = 0;
        for (int i = 0; i < W; i++)
            mean += (double)x[r * W + i] / W;
        for (int i = 0; i < W; i++)
            var += pow((double)x[r * W + i] - mean, 2) / W;
        for (int i = 0; i < W; i++)
            NEAR(out[r * W + i], ((double)x[r * W + i] - mean) / sqrt(var + 1e-5) * (double)a[i] + (double)b[i]);
    }
    OK(dgm_layer_norm(&tx, NULL, NULL, 1e-5f, &to));
    OK(dgm_rms_norm(&tx, &weight, 1e-5f, &to));
    for (int r = 0; r < ROWS; r++) {
        double square = 0;
        for (int i = 0; i < W; i++)
            square += pow((double)x[r * W + i], 2) / W;
        for (int i = 0; i < W; i++)
            NEAR(out[r * W + i], (double)x[r * W + i] / sqrt(square + 1e-5) * (double)a[i]);
    }
    OK(dgm_rms_norm(&tx, NULL, 1e-5f, &to));
    FAILS(DGM_ERROR_NULL, "x is null", dgm_layer_norm(NULL, NULL, NULL, 1e-5f, &to));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_rms_norm(&tx, NULL, 1e-5f, NULL));
    FAILS(DGM_ERROR_ALIAS, "out overlaps x", dgm_layer_norm(&tx, NULL, NULL, 1e-5f, &tx));
    STATUS(DGM_ERROR_RANGE, dgm_layer_norm(&tx, NULL, NULL, -1.0f, &to));
    STATUS(DGM_ERROR_RANGE, dgm_rms_norm(&tx, NULL, NAN, &to));
    FAILS(DGM_ERROR_SHAPE, "weight has shape", dgm_rms_norm(&tx, &tx, 1e-5f, &to));
}

static void modulation(void)
{
    dgm_tensor tx = f32_tensor(x, 3, btd), ty = f32_tensor(y, 3, btd), to = f32_tensor(out, 3, btd);
    dgm_tensor shift = f32_tensor(a, 2, bd), scale = f32_tensor(b, 2, bd), bad;
    OK(dgm_modulate(&tx, &shift, &scale, &to));
    for (int i = 0; i < ROWS * W; i++) {
        int v = i / (2 * W) * W + i % W;
        CHECK(out[i] == fmaf(x[i], 1 + b[v], a[v]));
    }
    /* Fused is the two after each other, to the bit. */
    float normed[ROWS * W], fused[ROWS * W];
    dgm_tensor rows = f32_tensor(x, 2, rows_shape), to_rows = f32_tensor(normed, 2, rows_shape);
    dgm_tensor tn = f32_tensor(normed, 3, btd), tf = f32_tensor(fused, 3, btd);
    OK(dgm_layer_norm(&rows, NULL, NULL, 1e-6f, &to_rows));
    OK(dgm_modulate(&tn, &shift, &scale, &to));
    OK(dgm_layer_norm_modulate(&tx, &shift, &scale, 1e-6f, &tf));
    CHECK(memcmp(fused, out, sizeof out) == 0);
    FAILS(DGM_ERROR_ALIAS, "out overlaps x", dgm_layer_norm_modulate(&tf, &shift, &scale, 1e-6f, &tf));
    FAILS(DGM_ERROR_SHAPE, "scale has shape", dgm_layer_norm_modulate(&tx, &shift, &tx, 1e-6f, &tf));
    FAILS(DGM_ERROR_NULL, "shift is null", dgm_layer_norm_modulate(&tx, NULL, &scale, 1e-6f, &tf));

    OK(dgm_gate_residual(&tx, &ty, &shift, &to));
    for (int i = 0; i < ROWS * W; i++)
        CHECK(out[i] == fmaf(a[i / (2 * W) * W + i % W], y[i], x[i]));

    /* In place gives the same. */
    float again[ROWS * W];
    memcpy(again, x, sizeof again);
    dgm_tensor place = f32_tensor(again, 3, btd);
    OK(dgm_gate_residual(&place, &ty, &shift, &place));
    CHECK(memcmp(again, out, sizeof out) == 0);
    memcpy(again, y, sizeof again);
    OK(dgm_gate_residual(&tx, &place, &shift, &place));
    CHECK(memcmp(again, out, sizeof out) == 0);
    OK(dgm_gate_residual(&tx, &tx, &shift, &to));
    memcpy(again, x, sizeof again);
    OK(dgm_gate_residual(&place, &place, &shift, &place));
    CHECK(memcmp(again, out, sizeof out) == 0);
    OK(dgm_modulate(&tx, &shift, &scale, &to));
    memcpy(again, x, sizeof again);
    OK(dgm_modulate(&place, &shift, &scale, &place));
    CHECK(memcmp(again, out, sizeof out) == 0);
    bad = shift;
    bad.data = again;
    FAILS(DGM_ERROR_ALIAS, "out overlaps shift", dgm_modulate(&tx, &bad, &scale, &place));
    FAILS(DGM_ERROR_SHAPE, "gate has shape", dgm_gate_residual(&tx, &ty, &tx, &to));
    FAILS(DGM_ERROR_NULL, "y is null", dgm_gate_residual(&tx, NULL, &shift, &to));
    FAILS(DGM_ERROR_NULL, "scale is null", dgm_modulate(&tx, &shift, NULL, &to));
}

static void activations(void)
{
    dgm_tensor tx = f32_tensor(x, 2, rows_shape), to = f32_tensor(out, 2, rows_shape), bad;
    OK(dgm_silu(&tx, &to));
    for (int i = 0; i < ROWS * W; i++)
        NEAR(out[i], (double)x[i] / (1 + exp(-(double)x[i])));
    float again[ROWS * W];
    memcpy(again, x, sizeof again);
    dgm_tensor place = f32_tensor(again, 2, rows_shape);
    OK(dgm_silu(&place, &place));
    CHECK(memcmp(again, out, sizeof out) == 0);
    /* In place with gaps between the elements, which stay. */
    float apart[2 * ROWS * W];
    int64_t every_second[] = {2 * W, 2};
    for (int i = 0; i < 2 * ROWS * W; i++)
        apart[i] = i % 2 ? -7.0f : x[i / 2];
    place = f32_tensor(apart, 2, rows_shape);
    place.strides = every_second;
    OK(dgm_silu(&place, &place));
    for (int i = 0; i < 2 * ROWS * W; i++)
        CHECK(apart[i] == (i % 2 ? -7.0f : out[i / 2]));
    place = f32_tensor(again, 2, rows_shape);
    OK(dgm_gelu(&tx, DGM_GELU_ERF, &to));
    memcpy(again, x, sizeof again);
    OK(dgm_gelu(&place, DGM_GELU_ERF, &place));
    CHECK(memcmp(again, out, sizeof out) == 0);
    for (int i = 0; i < ROWS * W; i++)
        NEAR(out[i], (double)x[i] * 0.5 * (1 + erf((double)x[i] * sqrt(0.5))));
    OK(dgm_gelu(&tx, DGM_GELU_TANH, &to));
    for (int i = 0; i < ROWS * W; i++) {
        double v = (double)x[i];
        NEAR(out[i], v * 0.5 * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))));
    }
    FAILS(DGM_ERROR_ARGUMENT, "kind is 2", dgm_gelu(&tx, 2, &to));
    FAILS(DGM_ERROR_NULL, "x is null", dgm_silu(NULL, &to));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_gelu(&tx, 0, NULL));
    bad = place;
    bad.shape = btd;
    STATUS(DGM_ERROR_SHAPE, dgm_silu(&tx, &bad));
    int64_t fewer[] = {ROWS - 1, W};
    bad = f32_tensor(x + 1, 2, fewer);
    STATUS(DGM_ERROR_ALIAS, dgm_silu(&tx, &bad));
}

static void embedding(void)
{
    float t[] = {0, 0.5f, 300}, e[3 * 8] = {0};
    int64_t t_shape[] = {3}, e_shape[] = {3, 8}, odd[] = {3, 7};
    dgm_tensor tt = f32_tensor(t, 1, t_shape), te = f32_tensor(e, 2, e_shape), bad = f32_tensor(e, 2, odd);
    OK(dgm_timestep_embedding(&tt, 10000, &te));
    for (int r = 0; r < 3; r++)
        for (int i = 0; i < 4; i++) {
            double angle = (double)t[r] * pow(10000, -i / 4.0);
            CHECK(fabs((double)e[r * 8 + i] - cos(angle)) < 1e-4);
            CHECK(fabs((double)e[r * 8 + 4 + i] - sin(angle)) < 1e-4);
        }
    STATUS(DGM_ERROR_SHAPE, dgm_timestep_embedding(&tt, 10000, &bad));
    STATUS(DGM_ERROR_RANGE, dgm_timestep_embedding(&tt, -1, &te));
    FAILS(DGM_ERROR_NULL, "t is null", dgm_timestep_embedding(NULL, 10000, &te));
}

static void patches(void)
{
    enum { C = 2, S = 4, P = 2 };
    float image[C * S * S], cut[C * S * S] = {0}, last[C * S * S] = {0}, back[C * S * S] = {0};
    int64_t image_shape[] = {1, C, S, S}, cut_shape[] = {1, 4, C * P * P};
    for (int i = 0; i < C * S * S; i++)
        image[i] = (float)i;
    dgm_tensor ti = f32_tensor(image, 4, image_shape), tc = f32_tensor(cut, 3, cut_shape);
    dgm_tensor tl = f32_tensor(last, 3, cut_shape), tb = f32_tensor(back, 4, image_shape);
    OK(dgm_patchify(&ti, P, &tc));
    for (int t = 0; t < 4; t++)
        for (int c = 0; c < C; c++)
            for (int r = 0; r < P; r++)
                for (int s = 0; s < P; s++) {
                    float want = image[(c * S + t / 2 * P + r) * S + t % 2 * P + s];
                    CHECK(cut[((t * C + c) * P + r) * P + s] == want);
                    last[((t * P + r) * P + s) * C + c] = want;
                }
    OK(dgm_unpatchify(&tl, P, &tb));
    CHECK(memcmp(back, image, sizeof image) == 0);
    STATUS(DGM_ERROR_RANGE, dgm_patchify(&ti, -1, &tc));
    STATUS(DGM_ERROR_RANGE, dgm_patchify(&ti, 0, &tc));
    STATUS(DGM_ERROR_SHAPE, dgm_patchify(&ti, 3, &tc));
    STATUS(DGM_ERROR_SHAPE, dgm_unpatchify(&tc, 4, &tb));
    dgm_tensor same = f32_tensor(cut, 4, image_shape);
    FAILS(DGM_ERROR_ALIAS, "out overlaps x", dgm_unpatchify(&tc, 2, &same));
    FAILS(DGM_ERROR_NULL, "x is null", dgm_patchify(NULL, 2, &tc));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_unpatchify(&tc, 2, NULL));
}

static void softmaxes(void)
{
    dgm_tensor tx = f32_tensor(x, 2, rows_shape), to = f32_tensor(out, 2, rows_shape);
    OK(dgm_softmax(&tx, &to));
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = 0; i < W; i++)
            sum += exp((double)x[r * W + i]);
        for (int i = 0; i < W; i++)
            NEAR(out[r * W + i], exp((double)x[r * W + i]) / sum);
    }
    OK(dgm_log_softmax(&tx, &to));
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = 0; i < W; i++)
            sum += exp((double)x[r * W + i]);
        for (int i = 0; i < W; i++)
            NEAR(out[r * W + i], (double)x[r * W + i] - log(sum));
    }
    FAILS(DGM_ERROR_ALIAS, "out overlaps x", dgm_softmax(&tx, &tx));
    FAILS(DGM_ERROR_NULL, "x is null", dgm_log_softmax(NULL, &to));
    dgm_tensor scalar = f32_tensor(x, 0, rows_shape), one = f32_tensor(out, 0, rows_shape);
    STATUS(DGM_ERROR_SHAPE, dgm_softmax(&scalar, &one));
}

static void gated(void)
{
    /* The halves of one tensor [4, 6] are [4, 3] with the stride of the whole row. */
    int64_t half[] = {ROWS, W / 2}, strides[] = {W, 1};
    dgm_tensor gate = f32_tensor(x, 2, half), up = f32_tensor(x + W / 2, 2, half), to = f32_tensor(out, 2, half);
    gate.strides = up.strides = strides;
    OK(dgm_swiglu(&gate, &up, &to));
    for (int i = 0; i < ROWS * W / 2; i++) {
        double g = (double)x[i / (W / 2) * W + i % (W / 2)], u = (double)x[i / (W / 2) * W + i % (W / 2) + W / 2];
        NEAR(out[i], g / (1 + exp(-g)) * u);
    }
    /* In place, where the other is elsewhere: halves lie too close to be told apart. */
    static float want[ROWS * W / 2], place[ROWS * W / 2];
    memcpy(want, out, sizeof want);
    dgm_tensor tp = f32_tensor(place, 2, half);
    for (int i = 0; i < ROWS * W / 2; i++)
        place[i] = x[i / (W / 2) * W + i % (W / 2)];
    OK(dgm_swiglu(&tp, &up, &tp));
    CHECK(memcmp(place, want, sizeof want) == 0);
    for (int i = 0; i < ROWS * W / 2; i++)
        place[i] = x[i / (W / 2) * W + i % (W / 2) + W / 2];
    OK(dgm_swiglu(&gate, &tp, &tp));
    CHECK(memcmp(place, want, sizeof want) == 0);
    OK(dgm_swiglu(&gate, &gate, &to));
    for (int i = 0; i < ROWS * W / 2; i++)
        place[i] = x[i / (W / 2) * W + i % (W / 2)];
    OK(dgm_swiglu(&tp, &tp, &tp));
    CHECK(memcmp(place, out, sizeof place) == 0);
    FAILS(DGM_ERROR_ALIAS, "out overlaps up", dgm_swiglu(&gate, &up, &gate));
    OK(dgm_geglu(&gate, &up, DGM_GELU_ERF, &to));
    for (int i = 0; i < ROWS * W / 2; i++) {
        double g = (double)x[i / (W / 2) * W + i % (W / 2)], u = (double)x[i / (W / 2) * W + i % (W / 2) + W / 2];
        NEAR(out[i], g / 2 * (1 + erf(g / sqrt(2))) * u);
    }
    STATUS(DGM_ERROR_ARGUMENT, dgm_geglu(&gate, &up, 2, &to));
    dgm_tensor whole = f32_tensor(x, 2, rows_shape);
    FAILS(DGM_ERROR_SHAPE, "up has shape", dgm_swiglu(&gate, &whole, &to));
    FAILS(DGM_ERROR_NULL, "up is null", dgm_geglu(&gate, NULL, DGM_GELU_TANH, &to));
}

static void residuals_and_groups(void)
{
    dgm_tensor tx = f32_tensor(x, 2, rows_shape), ty = f32_tensor(y, 2, rows_shape), to = f32_tensor(out, 2, rows_shape);
    static float sum[ROWS * W], want[ROWS * W], place[ROWS * W], second[ROWS * W];
    dgm_tensor ts = f32_tensor(sum, 2, rows_shape), tw = f32_tensor(want, 2, rows_shape);
    dgm_tensor tp = f32_tensor(place, 2, rows_shape), t2 = f32_tensor(second, 2, rows_shape), weight = f32_tensor(a, 1, vector_shape);
    OK(dgm_rms_norm_residual(&tx, &ty, &weight, 1e-5f, &ts, &to));
    for (int i = 0; i < ROWS * W; i++)
        CHECK(sum[i] == x[i] + y[i]);
    OK(dgm_rms_norm(&ts, &weight, 1e-5f, &tw));
    CHECK(memcmp(out, want, sizeof want) == 0);
    memcpy(place, y, sizeof place);
    OK(dgm_rms_norm_residual(&tx, &tp, &weight, 1e-5f, &tp, &t2));
    CHECK(memcmp(place, sum, sizeof sum) == 0 && memcmp(second, want, sizeof want) == 0);
    FAILS(DGM_ERROR_ALIAS, "sum overlaps x", dgm_rms_norm_residual(&tx, &ty, NULL, 1e-5f, &tx, &to));
    FAILS(DGM_ERROR_ALIAS, "out overlaps sum", dgm_rms_norm_residual(&tx, &ty, NULL, 1e-5f, &to, &to));
    FAILS(DGM_ERROR_NULL, "sum is null", dgm_rms_norm_residual(&tx, &ty, NULL, 1e-5f, NULL, &to));

    /* [2, 4, 3] in two groups of six elements each are [4, 6] in rows. */
    int64_t image[] = {2, 4, 3}, four[] = {4};
    dgm_tensor ti = f32_tensor(x, 3, image), tg = f32_tensor(out, 3, image), w = f32_tensor(a, 1, four);
    OK(dgm_group_norm(&ti, 2, NULL, NULL, 1e-5f, 0, &tg));
    OK(dgm_layer_norm(&tx, NULL, NULL, 1e-5f, &tw));
    CHECK(memcmp(out, want, sizeof want) == 0);
    OK(dgm_group_norm(&ti, 2, &w, &w, 1e-5f, 1, &tg));
    for (int i = 0; i < ROWS * W; i++)
        want[i] = fmaf(want[i], a[i / 3 % 4], a[i / 3 % 4]);
    OK(dgm_silu(&tw, &ts));
    CHECK(memcmp(out, sum, sizeof sum) == 0);
    STATUS(DGM_ERROR_RANGE, dgm_group_norm(&ti, 0, NULL, NULL, 1e-5f, 0, &tg));
    STATUS(DGM_ERROR_RANGE, dgm_group_norm(&ti, -1, NULL, NULL, 1e-5f, 0, &tg));
    FAILS(DGM_ERROR_SHAPE, "x has shape", dgm_group_norm(&ti, 3, NULL, NULL, 1e-5f, 0, &tg));
    FAILS(DGM_ERROR_SHAPE, "weight has shape", dgm_group_norm(&ti, 2, &weight, NULL, 1e-5f, 0, &tg));
    FAILS(DGM_ERROR_ARGUMENT, "silu is 2", dgm_group_norm(&ti, 2, NULL, NULL, 1e-5f, 2, &tg));
}

static void tables_and_guidance(void)
{
    int64_t indices[] = {3, 0, 3, 1}, wrong[] = {0, 4};
    dgm_tensor table = f32_tensor(x, 2, rows_shape), to = f32_tensor(out, 2, rows_shape);
    OK(dgm_embedding(&table, indices, ROWS, &to));
    for (int n = 0; n < ROWS; n++)
        CHECK(memcmp(out + n * W, x + indices[n] * W, W * sizeof *x) == 0);
    int64_t two[] = {2, W};
    dgm_tensor short_out = f32_tensor(out, 2, two);
    FAILS(DGM_ERROR_RANGE, "indices is 4 (element 1)", dgm_embedding(&table, wrong, 2, &short_out));
    FAILS(DGM_ERROR_SHAPE, "out has shape", dgm_embedding(&table, indices, ROWS, &short_out));
    FAILS(DGM_ERROR_NULL, "indices is null", dgm_embedding(&table, NULL, 2, &short_out));
    int64_t both[W] = {0};
    dgm_tensor over = f32_tensor((float *)(void *)both, 2, two);
    FAILS(DGM_ERROR_ALIAS, "out overlaps indices", dgm_embedding(&table, both, 2, &over));

    dgm_tensor ty = f32_tensor(y, 2, rows_shape);
    OK(dgm_cfg_combine(&table, &ty, 3, 0, &to));
    for (int i = 0; i < ROWS * W; i++)
        CHECK(out[i] == fmaf(y[i], -2, x[i] * 3));
    OK(dgm_cfg_combine(&table, &ty, 3, 0.5, &to));
    STATUS(DGM_ERROR_RANGE, dgm_cfg_combine(&table, &ty, 3, 2, &to));
    STATUS(DGM_ERROR_RANGE, dgm_cfg_combine(&table, &ty, NAN, 0, &to));
    FAILS(DGM_ERROR_ALIAS, "out overlaps cond", dgm_cfg_combine(&table, &ty, 3, 0, &table));

    static float places[] = {0, 1, 2, 0.5f}, cos_[6], sin_[6];
    int64_t at[] = {2, 2}, columns[] = {2, 3}, dims[] = {2, 4}, odd[] = {2, 3};
    dgm_tensor tp = f32_tensor(places, 2, at), tc = f32_tensor(cos_, 2, columns), ts = f32_tensor(sin_, 2, columns);
    OK(dgm_rope_axial_tables(&tp, dims, 100, &tc, &ts));
    double angles[] = {0, 1, 0.1, 2, 0.5, 0.05};
    for (int i = 0; i < 6; i++) {
        NEAR(cos_[i], cos(angles[i]));
        NEAR(sin_[i], sin(angles[i]));
    }
    FAILS(DGM_ERROR_RANGE, "dims is 3", dgm_rope_axial_tables(&tp, odd, 100, &tc, &ts));
    FAILS(DGM_ERROR_SHAPE, "cos has shape", dgm_rope_axial_tables(&tp, dims, 100, &short_out, &ts));
    FAILS(DGM_ERROR_NULL, "dims is null", dgm_rope_axial_tables(&tp, NULL, 100, &tc, &ts));
}

static uint16_t bf16_of(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* bf16 in, bf16 out: the f32 call on what the numbers are, rounded once; mixed types too. */
static void sixteen_bits(void)
{
    static uint16_t narrow[ROWS * W], got[ROWS * W];
    static float wide[ROWS * W];
    for (int i = 0; i < ROWS * W; i++) {
        narrow[i] = bf16_of(x[i]);
        uint32_t u = (uint32_t)narrow[i] << 16;
        memcpy(wide + i, &u, 4);
    }
    dgm_tensor tn = f32_tensor((float *)(void *)narrow, 2, rows_shape), tg = tn;
    tn.dtype_code = DGM_DTYPE_BFLOAT;
    tn.dtype_bits = 16;
    tg = tn;
    tg.data = got;
    dgm_tensor tw = f32_tensor(wide, 2, rows_shape), to = f32_tensor(out, 2, rows_shape), weight = f32_tensor(a, 1, vector_shape);
    OK(dgm_rms_norm(&tw, &weight, 1e-5f, &to));
    OK(dgm_rms_norm(&tn, &weight, 1e-5f, &tg));
    for (int i = 0; i < ROWS * W; i++)
        CHECK(got[i] == bf16_of(out[i]));
    OK(dgm_silu(&tw, &to));
    OK(dgm_silu(&tn, &tg));
    for (int i = 0; i < ROWS * W; i++)
        CHECK(got[i] == bf16_of(out[i]));
    memcpy(got, narrow, sizeof got);
    OK(dgm_silu(&tg, &tg));
    for (int i = 0; i < ROWS * W; i++)
        CHECK(got[i] == bf16_of(out[i]));
    /* The same memory as another type is not the same view. */
    dgm_tensor half = tg;
    half.dtype_code = DGM_DTYPE_FLOAT;
    FAILS(DGM_ERROR_ALIAS, "out overlaps x", dgm_silu(&tg, &half));
    dgm_tensor doubles = tg;
    doubles.dtype_code = DGM_DTYPE_INT;
    FAILS(DGM_ERROR_DTYPE, "x has dtype", dgm_silu(&doubles, &tg));
}

int main(void)
{
    for (int i = 0; i < ROWS * W; i++) {
        x[i] = (float)(i * i % 17) / 4 - 2;
        y[i] = (float)(i * 5 % 13) / 3 - 2;
    }
    for (int i = 0; i < 2 * W; i++) {
        a[i] = (float)i / 7 - 1;
        b[i] = 1 - (float)i / 5;
    }
    norms();
    modulation();
    activations();
    embedding();
    patches();
    softmaxes();
    gated();
    residuals_and_groups();
    tables_and_guidance();
    sixteen_bits();
    return finish("test_nn");
}
