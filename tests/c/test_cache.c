/* Caches of keys and values: pages against contiguous arrays, int8 against its definition, and what is
 * refused. */
#include "check.h"

enum { B = 2, H = 4, HKV = 2, D = 8, DV = 6, T = 4, M = 3, P = 7, N = T * M };

static float k[B * HKV * N * D], v[B * HKV * N * DV], q[B * H * D], out[B * H * DV], want[B * H * DV];
static float k_pages[P * HKV * T * D], v_pages[P * HKV * T * DV], lse[B * H];
static int8_t k_ints[P * HKV * T * D], v_ints[P * HKV * T * DV];
static float k_scales[P * HKV * T], v_scales[P * HKV * T];
static int32_t pages[B * M] = {5, 0, 3, 1, 6, 2};
static int64_t table_shape[] = {B, M}, q_shape[] = {B, H, 1, D}, out_shape[] = {B, H, 1, DV}, lse_shape[] = {B, H, 1};
static int64_t k_shape[] = {P, HKV, T, D}, v_shape[] = {P, HKV, T, DV}, scale_shape[] = {P, HKV, T};
static int64_t all_k[] = {B, HKV, N, D}, all_v[] = {B, HKV, N, DV};
static int64_t lengths[B];

static void fill(float *x, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

static dgm_tensor integers(void *data, int ndim, int64_t *shape, int bits)
{
    dgm_tensor t = f32_tensor((float *)data, ndim, shape);
    t.dtype_code = DGM_DTYPE_INT;
    t.dtype_bits = (uint8_t)bits;
    return t;
}

/* `count` tokens from `first` of all of them, by strides. */
static dgm_tensor tokens(float *data, int64_t *shape, int64_t *strides, int64_t first, int64_t count)
{
    int64_t d = shape[3];
    strides[0] = HKV * N * d;
    strides[1] = N * d;
    strides[2] = d;
    strides[3] = 1;
    shape[2] = count;
    dgm_tensor t = f32_tensor(data + first * d, 4, shape);
    t.strides = strides;
    return t;
}

static dgm_tensor tq, to, tl, tk, tv, table, ik, iv, ks, vs;
static dgm_kv_cache cache, ints;

static void reset(void)
{
    tq = f32_tensor(q, 4, q_shape);
    to = f32_tensor(out, 4, out_shape);
    tl = f32_tensor(lse, 3, lse_shape);
    tk = f32_tensor(k_pages, 4, k_shape);
    tv = f32_tensor(v_pages, 4, v_shape);
    table = integers(pages, 2, table_shape, 32);
    ik = integers(k_ints, 4, k_shape, 8);
    iv = integers(v_ints, 4, v_shape, 8);
    ks = f32_tensor(k_scales, 3, scale_shape);
    vs = f32_tensor(v_scales, 3, scale_shape);
    OK(dgm_kv_cache_init(&cache, sizeof cache));
    CHECK(cache.k == NULL && cache.block_table == NULL && cache.lengths == NULL);
    cache.k = &tk;
    cache.v = &tv;
    cache.block_table = &table;
    cache.lengths = lengths;
    ints = cache;
    ints.k = &ik;
    ints.v = &iv;
    ints.k_scale = &ks;
    ints.v_scale = &vs;
}

static void pages_are_their_tokens(void)
{
    int64_t a[4] = {B, HKV, 0, D}, b[4] = {B, HKV, 0, DV}, as[4], bs[4], counts[B] = {5, 3};
    dgm_tensor new_k = tokens(k, a, as, 0, 5), new_v = tokens(v, b, bs, 0, 5);
    lengths[0] = lengths[1] = 0;
    OK(dgm_kv_cache_append(&new_k, &new_v, NULL, NULL, &cache));
    CHECK(lengths[0] == 5 && lengths[1] == 5);
    new_k = tokens(k, a, as, 5, 5);
    new_v = tokens(v, b, bs, 5, 5);
    OK(dgm_kv_cache_append(&new_k, &new_v, counts, NULL, &cache));
    CHECK(lengths[0] == 10 && lengths[1] == 8);
    dgm_tensor whole_k = f32_tensor(k, 4, all_k), whole_v = f32_tensor(v, 4, all_v), tw = f32_tensor(want, 4, out_shape);
    dgm_attention_options o;
    OK(dgm_attention_options_init(&o, sizeof o));
    o.causal = 1;
    o.kv_lengths = lengths;
    OK(dgm_attention(&tq, &whole_k, &whole_v, &o, &tw, NULL));
    o.kv_lengths = NULL;
    OK(dgm_attention_paged(&tq, &cache, &o, &to, &tl));
    CHECK(memcmp(out, want, sizeof out) == 0);
    o.kv_lengths = lengths;
    FAILS(DGM_ERROR_ARGUMENT, "kv_lengths", dgm_attention_paged(&tq, &cache, &o, &to, &tl));

    /* A page of one sequence in both: a fork makes it its own. */
    int64_t keep[B] = {10, 9};
    FAILS(DGM_ERROR_RANGE, "keep is 9, expected 0 to 8", dgm_kv_cache_truncate(lengths, keep, B));
    keep[1] = 6;
    OK(dgm_kv_cache_truncate(lengths, keep, B));
    CHECK(lengths[0] == 10 && lengths[1] == 6);
    pages[M] = 5;
    pages[M + 1] = 0;
    keep[0] = 6;
    OK(dgm_kv_cache_truncate(lengths, keep, B));
    new_k = tokens(k, a, as, 6, 1);
    new_v = tokens(v, b, bs, 6, 1);
    FAILS(DGM_ERROR_ARGUMENT, "block_table is page 0", dgm_kv_cache_append(&new_k, &new_v, NULL, NULL, &cache));
    OK(dgm_kv_cache_fork(&cache, 0, 4));
    CHECK(memcmp(k_pages, k_pages + 4 * HKV * T * D, HKV * T * D * sizeof(float)) == 0);
    pages[M + 1] = 4;
    OK(dgm_kv_cache_append(&new_k, &new_v, NULL, NULL, &cache));
    CHECK(lengths[0] == 7 && lengths[1] == 7);
    FAILS(DGM_ERROR_RANGE, "from is -1", dgm_kv_cache_fork(&cache, -1, 4));
    FAILS(DGM_ERROR_RANGE, "to is 7", dgm_kv_cache_fork(&cache, 0, P));
    FAILS(DGM_ERROR_RANGE, "to is 4", dgm_kv_cache_fork(&cache, 4, 4));
    pages[M] = 1;
    pages[M + 1] = 6;
}

static void ints_have_a_scale(void)
{
    int64_t a[4] = {B, HKV, 0, D}, b[4] = {B, HKV, 0, DV}, as[4], bs[4];
    dgm_tensor new_k = tokens(k, a, as, 0, 6), new_v = tokens(v, b, bs, 0, 6), tw = f32_tensor(want, 4, out_shape);
    lengths[0] = lengths[1] = 0;
    OK(dgm_kv_cache_append(&new_k, &new_v, NULL, NULL, &ints));
    /* The same numbers as floats in the other cache. */
    for (size_t i = 0; i < COUNT(k_pages); i++)
        k_pages[i] = (float)k_ints[i] * k_scales[i / D];
    for (size_t i = 0; i < COUNT(v_pages); i++)
        v_pages[i] = (float)v_ints[i] * v_scales[i / DV];
    for (int i = 0; i < T * D; i++) {
        float x = k[i], scale = k_scales[pages[0] * HKV * T + i / D];
        CHECK(fabsf(k_pages[pages[0] * HKV * T * D + i] - x) <= 0.5001f * scale);
    }
    OK(dgm_attention_paged(&tq, &ints, NULL, &to, NULL));
    OK(dgm_attention_paged(&tq, &cache, NULL, &tw, NULL));
    for (size_t i = 0; i < COUNT(out); i++)
        NEAR(out[i], want[i]);
    ints.k_scale = NULL;
    FAILS(DGM_ERROR_ARGUMENT, "k_scale is absent", dgm_attention_paged(&tq, &ints, NULL, &to, NULL));
    ints.k_scale = &ks;
    cache.v_scale = &vs;
    FAILS(DGM_ERROR_ARGUMENT, "v_scale is given", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    cache.v_scale = NULL;
}

static void wrong_caches(void)
{
    float before[COUNT(out)], page_before[COUNT(k_pages)];
    memcpy(before, out, sizeof out);
    memcpy(page_before, k_pages, sizeof k_pages);
    lengths[0] = 12;
    lengths[1] = 3;
    dgm_tensor bad;
    pages[1] = P;
    FAILS(DGM_ERROR_RANGE, "block_table is 7 at [0, 1]", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    pages[1] = -1;
    FAILS(DGM_ERROR_RANGE, "block_table is -1 at [0, 1]", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    pages[1] = 0;
    lengths[0] = 13;
    FAILS(DGM_ERROR_RANGE, "lengths is 13, expected 0 to 12", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    lengths[0] = -1;
    FAILS(DGM_ERROR_RANGE, "lengths", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    lengths[0] = 12;
    FAILS(DGM_ERROR_NULL, "cache", dgm_attention_paged(&tq, NULL, NULL, &to, NULL));
    FAILS(DGM_ERROR_NULL, "q", dgm_attention_paged(NULL, &cache, NULL, &to, NULL));
    FAILS(DGM_ERROR_NULL, "out", dgm_attention_paged(&tq, &cache, NULL, NULL, NULL));
    cache.k = NULL;
    FAILS(DGM_ERROR_NULL, "k", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    cache.k = &tk;
    cache.lengths = NULL;
    FAILS(DGM_ERROR_NULL, "lengths", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    cache.lengths = lengths;
    cache.v = &iv;
    FAILS(DGM_ERROR_DTYPE, "v has dtype i8, expected f32", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    cache.v = &tv;
    bad = table;
    bad.dtype_bits = 64;
    bad.dtype_code = DGM_DTYPE_INT;
    cache.block_table = &bad;
    FAILS(DGM_ERROR_DTYPE, "block_table has dtype i64, expected i32", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    cache.block_table = &table;
    bad = tk;
    int64_t far[] = {HKV * T * D, T * D, 1, T};
    bad.strides = far;
    cache.k = &bad;
    FAILS(DGM_ERROR_STRIDE, "k has strides", dgm_attention_paged(&tq, &cache, NULL, &to, NULL));
    cache.k = &tk;
    bad = to;
    bad.data = v_pages;
    FAILS(DGM_ERROR_ALIAS, "out overlaps v", dgm_attention_paged(&tq, &cache, NULL, &bad, NULL));
    bad = tl;
    bad.data = out;
    FAILS(DGM_ERROR_ALIAS, "lse overlaps out", dgm_attention_paged(&tq, &cache, NULL, &to, &bad));
    bad = to;
    bad.data = pages;
    /* The table is small: what lies behind it, and is overlapped too, is the compiler's choice. */
    FAILS(DGM_ERROR_ALIAS, "out overlaps", dgm_attention_paged(&tq, &cache, NULL, &bad, NULL));

    int64_t a[4] = {B, HKV, 0, D}, b[4] = {B, HKV, 0, DV}, as[4], bs[4], counts[B] = {0, 2};
    dgm_tensor new_k = tokens(k, a, as, 0, 1), new_v = tokens(v, b, bs, 0, 1);
    FAILS(DGM_ERROR_RANGE, "lengths is 13", dgm_kv_cache_append(&new_k, &new_v, NULL, NULL, &cache));
    FAILS(DGM_ERROR_RANGE, "counts is 2, expected 0 to 1", dgm_kv_cache_append(&new_k, &new_v, counts, NULL, &cache));
    counts[1] = -1;
    FAILS(DGM_ERROR_RANGE, "counts", dgm_kv_cache_append(&new_k, &new_v, counts, NULL, &cache));
    counts[1] = 1;
    bad = tv;
    bad.data = k_pages;
    cache.v = &bad;
    FAILS(DGM_ERROR_ALIAS, "v overlaps k", dgm_kv_cache_append(&new_k, &new_v, counts, NULL, &cache));
    cache.v = &tv;
    bad = new_k;
    bad.data = k_pages;
    FAILS(DGM_ERROR_ALIAS, "k overlaps k_new", dgm_kv_cache_append(&bad, &new_v, counts, NULL, &cache));
    cache.lengths = (int64_t *)(void *)k_pages;
    memset(k_pages, 0, 16);
    FAILS(DGM_ERROR_ALIAS, "k overlaps lengths", dgm_kv_cache_append(&new_k, &new_v, counts, NULL, &cache));
    memcpy(k_pages, page_before, 16);
    cache.lengths = lengths;
    dgm_rope_options none;
    OK(dgm_rope_options_init(&none, sizeof none));
    FAILS(DGM_ERROR_NULL, "cos", dgm_kv_cache_append(&new_k, &new_v, counts, &none, &cache));
    CHECK(lengths[0] == 12 && lengths[1] == 3 && memcmp(before, out, sizeof out) == 0);
    CHECK(memcmp(page_before, k_pages, sizeof k_pages) == 0);
    FAILS(DGM_ERROR_NULL, "lengths", dgm_kv_cache_truncate(NULL, counts, B));
    FAILS(DGM_ERROR_RANGE, "batch is -1", dgm_kv_cache_truncate(lengths, counts, -1));
}

static void rotary(void)
{
    enum { ROWS = 16, HALF = 3 };
    static float cosines[ROWS * HALF], sines[ROWS * HALF], turned[COUNT(q)];
    int64_t shape[] = {ROWS, HALF}, first[B] = {9, 2};
    dgm_tensor cos_t = f32_tensor(cosines, 2, shape), sin_t = f32_tensor(sines, 2, shape), t = f32_tensor(turned, 4, q_shape);
    OK(dgm_rope_tables(0, 100.0f, &cos_t, &sin_t));
    dgm_rope_options o;
    OK(dgm_rope_options_init(&o, sizeof o));
    o.cos = &cos_t;
    o.sin = &sin_t;
    for (o.interleaved = 0; o.interleaved < 2; o.interleaved++) {
        OK(dgm_rope(&tq, first, &o, &t));
        for (int row = 0; row < B * H; row++)
            for (int i = 0; i < HALF; i++) {
                double angle = (double)first[row / H] * pow(100, -(double)i / HALF);
                int one = o.interleaved ? 2 * i : i, two = o.interleaved ? 2 * i + 1 : i + HALF;
                double x = q[row * D + one], y = q[row * D + two];
                NEAR(turned[row * D + one], x * cos(angle) - y * sin(angle));
                NEAR(turned[row * D + two], y * cos(angle) + x * sin(angle));
                CHECK(turned[row * D + 6] == q[row * D + 6] && turned[row * D + 7] == q[row * D + 7]);
            }
    }
    FAILS(DGM_ERROR_ARGUMENT, "interleaved is 2", dgm_rope(&tq, first, &o, &t));
    o.interleaved = 0;
    FAILS(DGM_ERROR_ALIAS, "out overlaps x", dgm_rope(&tq, first, &o, &tq));
    FAILS(DGM_ERROR_NULL, "tables", dgm_rope(&tq, first, NULL, &t));
    first[1] = ROWS;
    FAILS(DGM_ERROR_SHAPE, "cos has shape", dgm_rope(&tq, first, &o, &t));
    first[1] = -1;
    FAILS(DGM_ERROR_RANGE, "first", dgm_rope(&tq, first, &o, &t));
    FAILS(DGM_ERROR_ALIAS, "sin overlaps cos", dgm_rope_tables(0, 100.0f, &cos_t, &cos_t));
    FAILS(DGM_ERROR_RANGE, "theta is 0", dgm_rope_tables(0, 0.0f, &cos_t, &sin_t));
    FAILS(DGM_ERROR_RANGE, "first is -1", dgm_rope_tables(-1, 100.0f, &cos_t, &sin_t));

    /* Keys turned on their way into the cache are those turned before. */
    int64_t a[4] = {B, HKV, 0, D}, b[4] = {B, HKV, 0, DV}, as[4], bs[4], zero[B] = {0, 0}, ts[] = {B, HKV, N, D};
    static float turned_k[COUNT(k)], once[COUNT(k_pages)];
    dgm_tensor whole = f32_tensor(k, 4, all_k), to_k = f32_tensor(turned_k, 4, ts);
    dgm_tensor new_k = tokens(k, a, as, 0, 7), new_v = tokens(v, b, bs, 0, 7);
    OK(dgm_rope(&whole, zero, &o, &to_k));
    lengths[0] = lengths[1] = 0;
    OK(dgm_kv_cache_append(&new_k, &new_v, NULL, &o, &cache));
    memcpy(once, k_pages, sizeof once);
    lengths[0] = lengths[1] = 0;
    new_k = tokens(turned_k, a, as, 0, 7);
    OK(dgm_kv_cache_append(&new_k, &new_v, NULL, NULL, &cache));
    CHECK(memcmp(once, k_pages, sizeof once) == 0);
}

/* The first keys and the rest, joined, are all of them. */
static void merged(void)
{
    static float part[2][COUNT(out)], sums[2][COUNT(lse)], joined[COUNT(lse)];
    int64_t a[4] = {B, HKV, 0, D}, b[4] = {B, HKV, 0, DV}, as[4], bs[4];
    dgm_tensor parts[2], lses[2], tw = f32_tensor(want, 4, out_shape), tj = f32_tensor(joined, 3, lse_shape);
    for (int n = 0; n < 2; n++) {
        dgm_tensor pk = tokens(k, a, as, 5 * n, n ? N - 5 : 5), pv = tokens(v, b, bs, 5 * n, n ? N - 5 : 5);
        parts[n] = f32_tensor(part[n], 4, out_shape);
        lses[n] = f32_tensor(sums[n], 3, lse_shape);
        OK(dgm_attention(&tq, &pk, &pv, NULL, &parts[n], &lses[n]));
    }
    dgm_tensor whole_k = f32_tensor(k, 4, all_k), whole_v = f32_tensor(v, 4, all_v);
    OK(dgm_attention(&tq, &whole_k, &whole_v, NULL, &tw, &tl));
    OK(dgm_attention_merge(&parts[0], &lses[0], &parts[1], &lses[1], &to, &tj));
    for (size_t i = 0; i < COUNT(out); i++)
        NEAR(out[i], want[i]);
    for (size_t i = 0; i < COUNT(lse); i++)
        NEAR(joined[i], lse[i]);
    FAILS(DGM_ERROR_ALIAS, "out overlaps out1", dgm_attention_merge(&parts[0], &lses[0], &parts[1], &lses[1], &parts[0], NULL));
    FAILS(DGM_ERROR_NULL, "lse2", dgm_attention_merge(&parts[0], &lses[0], &parts[1], NULL, &to, NULL));
    FAILS(DGM_ERROR_SHAPE, "out2 has shape", dgm_attention_merge(&parts[0], &lses[0], &tq, &lses[1], &to, NULL));
}

int main(void)
{
    fill(q, COUNT(q), 1);
    fill(k, COUNT(k), 2);
    fill(v, COUNT(v), 3);
    reset();
    pages_are_their_tokens();
    ints_have_a_scale();
    wrong_caches();
    rotary();
    merged();
    return finish("test_cache");
}
