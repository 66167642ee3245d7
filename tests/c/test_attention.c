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

static uint16_t to_f16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return x == 0 ? 0 : (uint16_t)((u >> 16 & 0x8000) | ((u >> 23 & 0xff) - 112) << 10 | (u >> 13 & 0x3ff));
}

static uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)(u >> 16);
}

static void sixteen_bits(void)
{
    static float fq[COUNT(q)], fk[COUNT(k)], fv[COUNT(v)], want[COUNT(out)];
    static uint16_t hq[COUNT(q)], hk[COUNT(k)], hv[COUNT(v)], ho[COUNT(out)];
    for (int bf = 0; bf < 2; bf++) {
        uint16_t (*narrow)(float) = bf ? to_bf16 : to_f16;
        dgm_tensor tq = f32_tensor(fq, 4, q_shape), tk = f32_tensor(fk, 4, k_shape), tv = f32_tensor(fv, 4, v_shape);
        dgm_tensor to = f32_tensor(want, 4, out_shape), th = f32_tensor((float *)ho, 4, out_shape);
        /* Eighths: exact in both types. */
        for (size_t i = 0; i < COUNT(q); i++)
            hq[i] = narrow(fq[i] = floorf(8 * q[i]) / 8);
        for (size_t i = 0; i < COUNT(k); i++)
            hk[i] = narrow(fk[i] = floorf(8 * k[i]) / 8);
        for (size_t i = 0; i < COUNT(v); i++)
            hv[i] = narrow(fv[i] = floorf(8 * v[i]) / 8);
        OK(dgm_attention(&tq, &tk, &tv, NULL, &to, NULL));
        dgm_tensor *narrowed[] = {&tq, &tk, &tv, &th};
        void *data[] = {hq, hk, hv, ho};
        for (int i = 0; i < 4; i++) {
            narrowed[i]->data = data[i];
            narrowed[i]->dtype_bits = 16;
            narrowed[i]->dtype_code = bf ? DGM_DTYPE_BFLOAT : DGM_DTYPE_FLOAT;
        }
        to.data = out;
        OK(dgm_attention(&tq, &tk, &tv, NULL, &to, NULL));
        /* bfloat16 throughout is multiplied in pairs, with probabilities rounded to it: its own bits. */
        for (size_t i = 0; i < COUNT(out); i++)
            CHECK(bf ? fabsf(out[i] - want[i]) < 0.01f : memcmp(out + i, want + i, sizeof *want) == 0);
        memcpy(want, out, sizeof want);
        OK(dgm_attention(&tq, &tk, &tv, NULL, &th, NULL));
        for (size_t i = 0; i < COUNT(out); i++) {
            /* One of the two neighbours of the result in f32, whose low bits the narrow type cuts. */
            int32_t error = (int32_t)ho[i] - (int32_t)narrow(want[i]);
            CHECK(fabsf(want[i]) < 1e-3f || error == 0 || error == 1);
        }
        tv.dtype_code = bf ? DGM_DTYPE_FLOAT : DGM_DTYPE_BFLOAT;
        FAILS(DGM_ERROR_DTYPE, "v has dtype", dgm_attention(&tq, &tk, &tv, NULL, &to, NULL));
        tq.dtype_bits = 64;
        FAILS(DGM_ERROR_DTYPE, "q has dtype", dgm_attention(&tq, &tk, &tv, NULL, &to, NULL));
    }
}

/* The first queries of one head with the first keys, the rest with the rest. */
static void packed_sequences(void)
{
    enum { T = H * LQ, S = H * LK };
    static float got[T * DV], sums[T], alone[T * DV], alone_sums[T];
    int64_t sq[] = {T, 1, D}, sk[] = {S, 1, D}, sv[] = {S, 1, DV}, so[] = {T, 1, DV}, sl[] = {1, T};
    int64_t q_offsets[] = {0, 5, 5, T}, kv_offsets[] = {0, 7, 9, S}, falling[] = {0, 6, 5, T};
    static float more[S * D], values[S * DV], dout[T * DV], grads[2][T * D + S * D + S * DV];
    fill(more, COUNT(more), 4);
    fill(values, COUNT(values), 5);
    dgm_tensor tq = f32_tensor(q, 3, sq), tk = f32_tensor(more, 3, sk), tv = f32_tensor(values, 3, sv);
    dgm_tensor to = f32_tensor(got, 3, so), tl = f32_tensor(sums, 2, sl);
    dgm_attention_options o;
    OK(dgm_attention_options_init(&o, sizeof o));
    o.causal = 1;
    OK(dgm_attention_varlen(&tq, &tk, &tv, q_offsets, kv_offsets, 3, &o, &to, &tl));
    fill(dout, COUNT(dout), 6);
    float *own[3] = {grads[1], grads[1] + T * D, grads[1] + T * D + S * D};
    dgm_tensor td = f32_tensor(dout, 3, so), tdq = f32_tensor(grads[0], 3, sq), tdk = f32_tensor(grads[0] + T * D, 3, sk);
    dgm_tensor tdv = f32_tensor(grads[0] + T * D + S * D, 3, sv);
    OK(dgm_attention_varlen_backward(&tq, &tk, &tv, &to, &tl, &td, q_offsets, kv_offsets, 3, &o, &tdq, &tdk, &tdv));
    for (int n = 0; n < 3; n++) {
        int64_t rows = q_offsets[n + 1] - q_offsets[n], keys = kv_offsets[n + 1] - kv_offsets[n];
        int64_t aq[] = {1, 1, rows, D}, ak[] = {1, 1, keys, D}, av[] = {1, 1, keys, DV};
        int64_t ao[] = {1, 1, rows, DV}, al[] = {1, 1, rows};
        dgm_tensor bq = f32_tensor(q + q_offsets[n] * D, 4, aq), bk = f32_tensor(more + kv_offsets[n] * D, 4, ak);
        dgm_tensor bv = f32_tensor(values + kv_offsets[n] * DV, 4, av);
        dgm_tensor bo = f32_tensor(alone + q_offsets[n] * DV, 4, ao), bl = f32_tensor(alone_sums + q_offsets[n], 3, al);
        OK(dgm_attention(&bq, &bk, &bv, &o, &bo, &bl));
        dgm_tensor bd = f32_tensor(dout + q_offsets[n] * DV, 4, ao), bdq = f32_tensor(own[0] + q_offsets[n] * D, 4, aq);
        dgm_tensor bdk = f32_tensor(own[1] + kv_offsets[n] * D, 4, ak), bdv = f32_tensor(own[2] + kv_offsets[n] * DV, 4, av);
        OK(dgm_attention_backward(&bq, &bk, &bv, &bo, &bl, &bd, &o, &bdq, &bdk, &bdv, NULL));
    }
    CHECK(memcmp(grads[0], grads[1], sizeof grads[0]) == 0);
    FAILS(DGM_ERROR_ARGUMENT, "kv_offsets is",
          dgm_attention_varlen_backward(&tq, &tk, &tv, &to, &tl, &td, q_offsets, falling, 3, &o, &tdq, &tdk, &tdv));
    FAILS(DGM_ERROR_NULL, "kv_offsets",
          dgm_attention_varlen_backward(&tq, &tk, &tv, &to, &tl, &td, q_offsets, NULL, 3, &o, &tdq, &tdk, &tdv));
    FAILS(DGM_ERROR_ALIAS, "dv overlaps dk",
          dgm_attention_varlen_backward(&tq, &tk, &tv, &to, &tl, &td, q_offsets, kv_offsets, 3, &o, &tdq, &tdk, &tdk));
    CHECK(memcmp(got, alone, sizeof got) == 0 && memcmp(sums, alone_sums, sizeof sums) == 0);

    FAILS(DGM_ERROR_ARGUMENT, "q_offsets is", dgm_attention_varlen(&tq, &tk, &tv, falling, kv_offsets, 3, &o, &to, &tl));
    FAILS(DGM_ERROR_ARGUMENT, "kv_offsets is", dgm_attention_varlen(&tq, &tk, &tv, q_offsets, falling, 3, &o, &to, &tl));
    FAILS(DGM_ERROR_NULL, "q_offsets", dgm_attention_varlen(&tq, &tk, &tv, NULL, kv_offsets, 3, &o, &to, &tl));
    FAILS(DGM_ERROR_RANGE, "sequences is -1", dgm_attention_varlen(&tq, &tk, &tv, q_offsets, kv_offsets, -1, &o, &to, &tl));
    falling[1] = -1;
    FAILS(DGM_ERROR_RANGE, "kv_offsets", dgm_attention_varlen(&tq, &tk, &tv, q_offsets, falling, 3, &o, &to, &tl));
    o.kv_lengths = q_offsets;
    FAILS(DGM_ERROR_ARGUMENT, "kv_lengths", dgm_attention_varlen(&tq, &tk, &tv, q_offsets, kv_offsets, 3, &o, &to, &tl));
}

/* The gradients of sum(out * dout) by the same loops, causal, with a bias for each head and key. */
static void gradients(dgm_tensor *tq, dgm_tensor *tk, dgm_tensor *tv, dgm_tensor *to, dgm_tensor *tl)
{
    static float dout[COUNT(out)], dq[COUNT(q)], dk[COUNT(k)], dv[COUNT(v)], bias[H * LK], dbias[H * LK], kept[COUNT(q)];
    static double eq[COUNT(q)], ek[COUNT(k)], ev[COUNT(v)], eb[H * LK];
    int64_t keys[] = {1, H, 1, LK};
    fill(dout, COUNT(dout), 4);
    fill(bias, COUNT(bias), 5);
    dgm_tensor tdout = f32_tensor(dout, 4, out_shape), tdq = f32_tensor(dq, 4, q_shape), tdk = f32_tensor(dk, 4, k_shape);
    dgm_tensor tdv = f32_tensor(dv, 4, v_shape), tbias = f32_tensor(bias, 4, keys), tdbias = f32_tensor(dbias, 4, keys);
    dgm_attention_options o;
    OK(dgm_attention_options_init(&o, sizeof o));
    o.causal = 1;
    o.scale = 0.5f;
    o.bias = &tbias;
    OK(dgm_attention(tq, tk, tv, &o, to, tl));
    OK(dgm_attention_backward(tq, tk, tv, to, tl, &tdout, &o, &tdq, &tdk, &tdv, &tdbias));
    for (int b = 0; b < B; b++)
        for (int h = 0; h < H; h++)
            for (int i = 0; i < LQ; i++) {
                int kv = b * HKV + h / (H / HKV), row = (b * H + h) * LQ + i;
                double p[LK], sum = 0, dp[LK], delta = 0;
                for (int j = 0; j < LK; j++) {
                    double s = 0;
                    for (int d = 0; d < D; d++)
                        s += (double)q[row * D + d] * (double)k[(kv * LK + j) * D + d];
                    p[j] = j <= i + LK - LQ ? exp(0.5 * s + (double)bias[h * LK + j]) : 0;
                    sum += p[j];
                }
                for (int j = 0; j < LK; j++) {
                    p[j] /= sum;
                    dp[j] = 0;
                    for (int e = 0; e < DV; e++) {
                        dp[j] += (double)v[(kv * LK + j) * DV + e] * (double)dout[row * DV + e];
                        ev[(kv * LK + j) * DV + e] += p[j] * (double)dout[row * DV + e];
                    }
                    delta += p[j] * dp[j];
                }
                for (int j = 0; j < LK; j++) {
                    double ds = p[j] * (dp[j] - delta);
                    eb[h * LK + j] += ds;
                    for (int d = 0; d < D; d++) {
                        eq[row * D + d] += 0.5 * ds * (double)k[(kv * LK + j) * D + d];
                        ek[(kv * LK + j) * D + d] += 0.5 * ds * (double)q[row * D + d];
                    }
                }
            }
    for (size_t i = 0; i < COUNT(q); i++)
        NEAR(dq[i], eq[i]);
    for (size_t i = 0; i < COUNT(k); i++)
        NEAR(dk[i], ek[i]);
    for (size_t i = 0; i < COUNT(v); i++)
        NEAR(dv[i], ev[i]);
    for (size_t i = 0; i < COUNT(bias); i++)
        NEAR(dbias[i], eb[i]);

    memcpy(kept, dq, sizeof kept);
    OK(dgm_attention_backward(tq, tk, tv, to, tl, &tdout, &o, &tdq, &tdk, &tdv, NULL));
    CHECK(memcmp(kept, dq, sizeof kept) == 0);
    FAILS(DGM_ERROR_ALIAS, "dk overlaps dq", dgm_attention_backward(tq, tk, tv, to, tl, &tdout, &o, &tdq, &tdq, &tdv, NULL));
    FAILS(DGM_ERROR_NULL, "lse", dgm_attention_backward(tq, tk, tv, to, NULL, &tdout, &o, &tdq, &tdk, &tdv, NULL));
    o.bias = NULL;
    FAILS(DGM_ERROR_ARGUMENT, "dbias is given", dgm_attention_backward(tq, tk, tv, to, tl, &tdout, &o, &tdq, &tdk, &tdv, &tdbias));
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
    sixteen_bits();
    packed_sequences();
    gradients(&tq, &tk, &tv, &to, &tl);

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
    bad.dtype_bits = 64;
    FAILS(DGM_ERROR_DTYPE, "q has dtype f64", dgm_attention(&bad, &tk, &tv, NULL, &to, NULL));
    return finish("test_attention");
}
