/* Attention against three loops in double precision. */
#include "check.h"

enum { B = 2, H = 4, HKV = 2, LQ = 3, LK = 5, D = 8, DV = 6 };

static float q[B * H * LQ * D], k[B * HKV * LK * D], v[B * HKV * LK * DV];
static float out[B * H * LQ * DV], lse[B * H * LQ];
static int64_t q_shape[] = {B, H, LQ, D}, k_shape[] = {B, HKV, LK, D}, v_shape[] = {B, HKV, LK, DV};
static int64_t out_shape[] = {B, H, LQ, DV}, lse_shape[] = {B, H, LQ};

static void fill(float *x, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

/* Compares one call with the definition. `length[b]` keys are used, `causal` as in the options. */
static void compare(double scale, int causal, const int64_t *length)
{
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int i = 0; i < LQ; i++) {
                int kv = b * HKV + h / (H / HKV), row = (b * H + h) * LQ + i;
                double weight[LK], most = -INFINITY, sum = 0;
                for (int j = 0; j < LK; j++) {
                    double s = 0;
                    for (int d = 0; d < D; d++)
                        s += (double)q[row * D + d] * (double)k[(kv * LK + j) * D + d];
                    int seen = j < length[b] && (!causal || j <= i + LK - LQ);
                    weight[j] = seen ? s * scale : -INFINITY;
                    most = fmax(most, weight[j]);
                }
                for (int j = 0; j < LK; j++) {
                    weight[j] = most == -INFINITY ? 0 : exp(weight[j] - most);
                    sum += weight[j];
                }
                for (int d = 0; d < DV; d++) {
                    double o = 0;
                    for (int j = 0; j < LK; j++)
                        o += weight[j] * (double)v[(kv * LK + j) * DV + d];
                    NEAR(out[row * DV + d], sum > 0 ? o / sum : 0);
                }
                if (sum > 0)
                    NEAR(lse[row], log(sum) + most);
                else
                    CHECK(lse[row] == -INFINITY);
            }
}

/* Scores as the options leave them, against dgm_attention() with a bias that holds their sum. */
static void options_do_what_they_say(dgm_tensor *tq, dgm_tensor *tk, dgm_tensor *tv, dgm_tensor *to)
{
    static float changed[B * H * LQ * LK], want[COUNT(out)], slopes[H] = {0.5f, 0.25f, 0.125f, 0};
    static float sinks[H] = {-INFINITY, -INFINITY, 80, 80};
    static uint8_t shown[LK] = {1, 0, 1, 1, 1};
    int64_t full[] = {B, H, LQ, LK}, keys[] = {1, 1, 1, LK}, wrong[] = {B, H, LQ, LK - 1};
    dgm_tensor bias = f32_tensor(changed, 4, full), mask = f32_tensor((float *)shown, 4, keys), bad;
    mask.dtype_code = DGM_DTYPE_BOOL;
    mask.dtype_bits = 8;
    for (int n = 0; n < B * H * LQ * LK; n++) {
        int h = n / LK / LQ % H, distance = n / LK % LQ + LK - LQ - n % LK;
        changed[n] = !shown[n % LK] || distance > 3 || distance < 0 ? -INFINITY : -slopes[h] * (float)distance;
    }
    dgm_attention_options o;
    OK(dgm_attention_options_init(&o, sizeof o));
    CHECK(o.window_left == -1 && o.window_right == -1 && o.soft_cap == 0 && o.bias == NULL && o.mask == NULL);
    o.bias = &bias;
    OK(dgm_attention(tq, tk, tv, &o, to, NULL));
    memcpy(want, out, sizeof want);
    OK(dgm_attention_options_init(&o, sizeof o));
    o.window_left = 3;
    o.window_right = 0;
    o.alibi_slopes = slopes;
    o.mask = &mask;
    OK(dgm_attention(tq, tk, tv, &o, to, NULL));
    for (size_t i = 0; i < COUNT(out); i++)
        NEAR(out[i], want[i]);
    mask.dtype_code = DGM_DTYPE_UINT;
    o.soft_cap = 1e4f;
    o.sinks = sinks;
    OK(dgm_attention(tq, tk, tv, &o, to, NULL));
    for (size_t i = 0; i < COUNT(out); i++)
        CHECK(fabs(out[i] - (i / (LQ * DV) % H < 2 ? want[i] : 0)) < 1e-4);

    o.window_left = -2;
    FAILS(DGM_ERROR_RANGE, "window_left is -2", dgm_attention(tq, tk, tv, &o, to, NULL));
    o.window_left = -1;
    o.soft_cap = -1;
    FAILS(DGM_ERROR_RANGE, "soft_cap is -1", dgm_attention(tq, tk, tv, &o, to, NULL));
    o.soft_cap = 0;
    o.reserved = 1;
    FAILS(DGM_ERROR_ARGUMENT, "reserved is 1", dgm_attention(tq, tk, tv, &o, to, NULL));
    o.reserved = 0;
    bad = bias;
    bad.shape = wrong;
    o.bias = &bad;
    FAILS(DGM_ERROR_SHAPE, "bias has shape [2, 4, 3, 4]", dgm_attention(tq, tk, tv, &o, to, NULL));
    o.bias = to;
    FAILS(DGM_ERROR_ALIAS, "out", dgm_attention(tq, tk, tv, &o, to, NULL));
    o.bias = NULL;
    bad = mask;
    bad.dtype_code = DGM_DTYPE_INT;
    o.mask = &bad;
    FAILS(DGM_ERROR_DTYPE, "mask has dtype i8, expected bool or u8", dgm_attention(tq, tk, tv, &o, to, NULL));
}

int main(void)
{
    fill(q, COUNT(q), 1);
    fill(k, COUNT(k), 2);
    fill(v, COUNT(v), 3);
    dgm_tensor tq = f32_tensor(q, 4, q_shape), tk = f32_tensor(k, 4, k_shape), tv = f32_tensor(v, 4, v_shape);
    dgm_tensor to = f32_tensor(out, 4, out_shape), tl = f32_tensor(lse, 3, lse_shape), bad;
    int64_t all[] = {LK, LK}, some[] = {4, 0}, wrong[] = {LK + 1, 0}, negative[] = {-1, 0};

    OK(dgm_attention(&tq, &tk, &tv, NULL, &to, &tl));
    compare(1 / sqrt((double)D), 0, all);
    float kept = out[5];
    OK(dgm_attention(&tq, &tk, &tv, NULL, &to, NULL));
    CHECK(out[5] == kept);

    dgm_attention_options o;
    OK(dgm_attention_options_init(&o, sizeof o));
    CHECK(o.struct_size == sizeof o && o.scale == 0 && o.causal == 0 && o.kv_lengths == NULL);
    o.causal = 1;
    o.scale = 0.5f;
    OK(dgm_attention(&tq, &tk, &tv, &o, &to, &tl));
    compare(0.5, 1, all);
    o.kv_lengths = some;
    o.causal = 0;
    OK(dgm_attention(&tq, &tk, &tv, &o, &to, &tl));
    compare(0.5, 0, some);

    options_do_what_they_say(&tq, &tk, &tv, &to);

    FAILS(DGM_ERROR_NULL, "options", dgm_attention_options_init(NULL, sizeof o));
    FAILS(DGM_ERROR_RANGE, "struct_size", dgm_attention_options_init(&o, 3));
    o.kv_lengths = wrong;
    FAILS(DGM_ERROR_RANGE, "kv_lengths", dgm_attention(&tq, &tk, &tv, &o, &to, &tl));
    o.kv_lengths = negative;
    FAILS(DGM_ERROR_RANGE, "kv_lengths", dgm_attention(&tq, &tk, &tv, &o, &to, &tl));
    o.kv_lengths = NULL;
    o.causal = 7;
    FAILS(DGM_ERROR_ARGUMENT, "causal is 7", dgm_attention(&tq, &tk, &tv, &o, &to, &tl));
    o.causal = 0;
    o.struct_size = 999;
    FAILS(DGM_ERROR_ARGUMENT, "struct_size 999", dgm_attention(&tq, &tk, &tv, &o, &to, &tl));
    o.struct_size = sizeof o;
    o.scale = NAN;
    STATUS(DGM_ERROR_RANGE, dgm_attention(&tq, &tk, &tv, &o, &to, &tl));

    FAILS(DGM_ERROR_NULL, "q is null", dgm_attention(NULL, &tk, &tv, NULL, &to, NULL));
    FAILS(DGM_ERROR_NULL, "k is null", dgm_attention(&tq, NULL, &tv, NULL, &to, NULL));
    FAILS(DGM_ERROR_NULL, "v is null", dgm_attention(&tq, &tk, NULL, NULL, &to, NULL));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_attention(&tq, &tk, &tv, NULL, NULL, NULL));
    bad = tk;
    bad.shape = v_shape;
    FAILS(DGM_ERROR_SHAPE, "k has shape", dgm_attention(&tq, &bad, &tv, NULL, &to, NULL));
    bad = to;
    bad.ndim = 3;
    FAILS(DGM_ERROR_SHAPE, "out has shape", dgm_attention(&tq, &tk, &tv, NULL, &bad, NULL));
    bad = tl;
    bad.ndim = 2;
    FAILS(DGM_ERROR_SHAPE, "lse has shape", dgm_attention(&tq, &tk, &tv, NULL, &to, &bad));
    bad = to;
    bad.data = q;
    FAILS(DGM_ERROR_ALIAS, "out overlaps q", dgm_attention(&tq, &tk, &tv, NULL, &bad, NULL));
    bad = tl;
    bad.data = out;
    FAILS(DGM_ERROR_ALIAS, "lse overlaps out", dgm_attention(&tq, &tk, &tv, NULL, &to, &bad));
    bad = tq;
    bad.dtype_bits = 16;
    FAILS(DGM_ERROR_DTYPE, "q has dtype f16", dgm_attention(&bad, &tk, &tv, NULL, &to, NULL));
    return finish("test_attention");
}
