/* The cases that every language runs: tests/conformance/cases.txt gives inputs by seed, and the
 * SHA-256 of the output or the error. A line, input or argument that is not understood is a
 * failure, so that no case is ever skipped silently. */
#include "check.h"
#include "sha256.h"

#include <stdlib.h>

enum { MOST = 8, GUARD = 64 };

typedef struct array {
    char name[32];
    int32_t ndim;
    int64_t shape[MOST];
    size_t len;
    float *data;
    dgm_tensor tensor;
    int used;
} array;

typedef struct conformance_case {
    char name[96], call[48];
    int bad;
    array in[MOST], out;
    int ins, args;
    struct {
        char name[32], value[32];
        int used;
    } arg[MOST];
    char sha256[65], error[16], word[32];
} conformance_case;

static void die(const char *what, const char *line)
{
    fprintf(stderr, "cases.txt: %s: \"%s\"\n", what, line);
    exit(1);
}

static void keep(char *to, size_t size, const char *text)
{
    if (strlen(text) >= size)
        die("too long a name", text);
    strcpy(to, text);
}

/* Element i of the inputs with this seed, in [-1, 1). */
static float generated(uint32_t i, uint32_t seed)
{
    uint32_t h = (i + 1) * 0x9E3779B1u + seed * 0x85EBCA77u;
    h = (h ^ h >> 16) * 0x21F0AAADu;
    h = (h ^ h >> 15) * 0x735A2D97u;
    h ^= h >> 15;
    return (float)(h >> 8) / 8388608.0f - 1.0f;
}

/* "NAME f32 2,3,4" */
static void read_array(array *a, char **word, int words, const char *line)
{
    if (words < 3 || strcmp(word[1], "f32") != 0)
        die("not an f32 array", line);
    keep(a->name, sizeof a->name, word[0]);
    a->len = 1;
    for (char *p = word[2]; *p; p += *p == ',') {
        if (a->ndim == MOST)
            die("too many dimensions", line);
        a->shape[a->ndim] = strtoll(p, &p, 10);
        a->len *= (size_t)a->shape[a->ndim++];
    }
    a->data = (float *)malloc((a->len + 2 * GUARD) * sizeof *a->data);
    if (a->data == NULL)
        die("no memory", line);
    for (size_t i = 0; i < a->len + 2 * GUARD; i++)
        a->data[i] = -1234.5f;
    a->tensor = f32_tensor(a->data + GUARD, a->ndim, a->shape);
}

static void read_contents(array *a, const char *kind, char *text, const char *line)
{
    float *x = a->data + GUARD;
    if (strcmp(kind, "seed") == 0) {
        uint32_t seed = (uint32_t)strtoul(text, NULL, 10);
        for (size_t i = 0; i < a->len; i++)
            x[i] = generated((uint32_t)i, seed);
    } else if (strcmp(kind, "values") == 0) {
        size_t n = 0;
        for (char *p = text; *p && n < a->len; n++, p += *p == ',') {
            uint32_t bits = (uint32_t)strtoul(p, &p, 16);
            memcpy(x + n, &bits, 4);
        }
        if (n != a->len)
            die("too few values", line);
    } else {
        die("unknown contents", line);
    }
}

/* What lies around the elements was not written; with `all`, neither were they. */
static int untouched(const array *a, int all)
{
    for (size_t i = 0; i < a->len + 2 * GUARD; i++)
        if ((all || i < GUARD || i >= GUARD + a->len) && a->data[i] != -1234.5f)
            return 0;
    return 1;
}

/* The input of this name, NULL when the case has none. */
static const dgm_tensor *in(conformance_case *c, const char *name)
{
    for (int i = 0; i < c->ins; i++)
        if (strcmp(c->in[i].name, name) == 0) {
            c->in[i].used = 1;
            return &c->in[i].tensor;
        }
    return NULL;
}

static const char *arg(conformance_case *c, const char *name, const char *otherwise)
{
    for (int i = 0; i < c->args; i++)
        if (strcmp(c->arg[i].name, name) == 0) {
            c->arg[i].used = 1;
            return c->arg[i].value;
        }
    return otherwise;
}

static float number(conformance_case *c, const char *name, const char *otherwise)
{
    return strtof(arg(c, name, otherwise), NULL);
}

/* "3,0,17" */
static const int64_t *counts(conformance_case *c, const char *name, int64_t *to, int64_t *many)
{
    const char *text = arg(c, name, NULL);
    if (text == NULL)
        return NULL;
    int64_t n = 0;
    for (char *p = NULL; n < MOST && *text; n++, text = p + (*p == ','))
        to[n] = strtoll(text, &p, 10);
    if (many)
        *many = n;
    return to;
}

static size_t elements(const dgm_tensor *x)
{
    size_t n = 1;
    for (int32_t i = 0; i < x->ndim; i++)
        n *= (size_t)x->shape[i];
    return n;
}

static uint16_t to_bf16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* For magnitudes below 2: to a multiple of the last place, ties to even, which the sum does. */
static uint16_t to_f16(float x)
{
    float a = fabsf(x), step = 0x1p-24f;
    while (a >= 2048 * step)
        step *= 2;
    uint32_t units = (uint32_t)lrintf(a / step), u = units;
    for (; step > 0x1p-24f; step /= 2)
        u += 1024;
    return (uint16_t)(u | (x < 0 ? 0x8000 : 0));
}

static float from_bf16(uint16_t x)
{
    uint32_t u = (uint32_t)x << 16;
    float y;
    memcpy(&y, &u, sizeof y);
    return y;
}

static float from_f16(uint16_t x)
{
    int exponent = x >> 10 & 31, units = x & 1023;
    float y = exponent ? ldexpf((float)(1024 + units), exponent - 25) : ldexpf((float)units, -24);
    return x & 0x8000 ? -y : y;
}

/* An array of the type that `storage` names, in memory of its own unless that is f32. */
static dgm_tensor stored(const dgm_tensor *x, const char *storage)
{
    dgm_tensor t = *x;
    if (strcmp(storage, "f32") == 0)
        return t;
    size_t n = elements(x);
    uint16_t *data = (uint16_t *)malloc(n * sizeof *data);
    if (data == NULL)
        die("no memory", storage);
    int bf = strcmp(storage, "bf16") == 0;
    for (size_t i = 0; i < n; i++)
        data[i] = bf ? to_bf16(((const float *)x->data)[i]) : to_f16(((const float *)x->data)[i]);
    t.data = data;
    t.dtype_bits = 16;
    t.dtype_code = bf ? DGM_DTYPE_BFLOAT : DGM_DTYPE_FLOAT;
    return t;
}

/* Frees what stored() took for `t`; with `status` DGM_OK, widens `t` into `to` first. */
static int32_t widen(int32_t status, dgm_tensor *t, dgm_tensor *to)
{
    if (t->dtype_bits == 32)
        return status;
    const uint16_t *from = (const uint16_t *)t->data;
    for (size_t i = 0; to && status == DGM_OK && i < elements(to); i++)
        ((float *)to->data)[i] = t->dtype_code == DGM_DTYPE_BFLOAT ? from_bf16(from[i]) : from_f16(from[i]);
    free(t->data);
    return status;
}

static int32_t choice(const char *text, const char *const *names, int32_t count)
{
    for (int32_t i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    return -1;
}

/* "0.5,0.25" */
static const float *numbers(conformance_case *c, const char *name, float *to)
{
    const char *text = arg(c, name, NULL);
    if (text == NULL)
        return NULL;
    char *p = NULL;
    for (int n = 0; n < MOST && *text; n++, text = p + (*p == ','))
        to[n] = strtof(text, &p);
    return to;
}

typedef struct option_memory {
    float slopes[MOST], sinks[MOST];
    int64_t lengths[MOST];
} option_memory;

static dgm_attention_options options(conformance_case *c, option_memory *memory)
{
    dgm_attention_options o;
    dgm_attention_options_init(&o, sizeof o);
    o.causal = atoi(arg(c, "causal", "0"));
    o.scale = number(c, "scale", "0");
    o.soft_cap = number(c, "soft_cap", "0");
    o.window_left = atoll(arg(c, "window_left", "-1"));
    o.window_right = atoll(arg(c, "window_right", "-1"));
    o.alibi_slopes = numbers(c, "alibi_slopes", memory->slopes);
    o.sinks = numbers(c, "sinks", memory->sinks);
    o.kv_lengths = counts(c, "kv_lengths", memory->lengths, NULL);
    o.bias = in(c, "bias");
    return o;
}

/* Of a mask, whatever is at least -0.25 is seen. */
static dgm_tensor boolean(const dgm_tensor *x)
{
    dgm_tensor t = *x;
    size_t n = elements(x);
    uint8_t *data = (uint8_t *)malloc(n);
    if (data == NULL)
        die("no memory", "mask");
    for (size_t i = 0; i < n; i++)
        data[i] = ((const float *)x->data)[i] >= -0.25f;
    t.data = data;
    t.dtype_bits = 8;
    t.dtype_code = DGM_DTYPE_BOOL;
    return t;
}

static int32_t call_attention(conformance_case *c, dgm_tensor *result)
{
    option_memory memory;
    dgm_attention_options o = options(c, &memory);
    const char *own = arg(c, "storage", "f32"), *of_kv = arg(c, "kv_storage", own);
    dgm_tensor q = stored(in(c, "q"), own), k = stored(in(c, "k"), of_kv), v = stored(in(c, "v"), of_kv);
    dgm_tensor out = *result, *lse = NULL, mask;
    int64_t shape[4] = {q.shape[0], q.shape[1], q.shape[2], v.shape[3]};
    if (strcmp(c->out.name, "lse") == 0) {
        lse = result;
        out = f32_tensor(NULL, 4, shape);
        out.data = calloc(elements(&out), sizeof(float));
    } else {
        out = stored(result, own);
    }
    if (in(c, "mask")) {
        mask = boolean(in(c, "mask"));
        o.mask = &mask;
    }
    int32_t status = dgm_attention(&q, &k, &v, &o, &out, lse);
    if (o.mask)
        free(mask.data);
    if (lse)
        free(out.data);
    else
        widen(status, &out, result);
    widen(status, &q, NULL);
    widen(status, &k, NULL);
    return widen(status, &v, NULL);
}

static int32_t call_attention_varlen(conformance_case *c, dgm_tensor *result)
{
    option_memory memory;
    dgm_attention_options o = options(c, &memory);
    int64_t q_offsets[MOST], kv_offsets[MOST], many = 0;
    counts(c, "q_offsets", q_offsets, &many);
    counts(c, "kv_offsets", kv_offsets, NULL);
    const char *own = arg(c, "storage", "f32");
    dgm_tensor q = stored(in(c, "q"), own), k = stored(in(c, "k"), own), v = stored(in(c, "v"), own);
    dgm_tensor out = stored(result, own);
    int32_t status = dgm_attention_varlen(&q, &k, &v, q_offsets, kv_offsets, many - 1, &o, &out, NULL);
    widen(status, &out, result);
    widen(status, &q, NULL);
    widen(status, &k, NULL);
    return widen(status, &v, NULL);
}

/* The output holds the three gradients one after the other. */
static int32_t call_attention_varlen_backward(conformance_case *c, dgm_tensor *out)
{
    option_memory owned;
    dgm_attention_options o = options(c, &owned);
    int64_t q_offsets[MOST], kv_offsets[MOST], many = 0;
    counts(c, "q_offsets", q_offsets, &many);
    counts(c, "kv_offsets", kv_offsets, NULL);
    const dgm_tensor *q = in(c, "q"), *k = in(c, "k"), *v = in(c, "v"), *dout = in(c, "dout"), *of[3] = {q, k, v};
    int64_t sums[2] = {dout->shape[1], dout->shape[0]}, all = 0;
    for (int i = 0; i < 3; i++)
        all += elements(of[i]);
    dgm_tensor y = f32_tensor(NULL, 3, dout->shape), lse = f32_tensor(NULL, 2, sums), to[3];
    float *memory = (float *)malloc((size_t)(all + elements(&y) + elements(&lse)) * sizeof *memory), *at = memory;
    if (memory == NULL)
        die("no memory", c->name);
    for (int i = 0; i < 3; at += elements(of[i++]))
        to[i] = f32_tensor(at, 3, of[i]->shape);
    y.data = at;
    lse.data = at + elements(&y);
    int32_t status = dgm_attention_varlen(q, k, v, q_offsets, kv_offsets, many - 1, &o, &y, &lse);
    if (status == DGM_OK)
        status = dgm_attention_varlen_backward(q, k, v, &y, &lse, dout, q_offsets, kv_offsets, many - 1, &o, &to[0],
                                               &to[1], &to[2]);
    if (status == DGM_OK)
        memcpy(out->data, memory, (size_t)all * sizeof *memory);
    free(memory);
    return status;
}

/* Entry (b, n) of the block table is page batch * (most - 1 - n) + b; all places but `short` are filled. */
static int32_t call_attention_paged(conformance_case *c, dgm_tensor *out)
{
    dgm_tensor k = *in(c, "k"), v = *in(c, "v"), table;
    int32_t pages[256];
    int64_t batch = atoll(arg(c, "batch", "1")), most = k.shape[0] / batch, lengths[8], shape[] = {batch, most};
    for (int64_t b = 0; b < batch; b++) {
        lengths[b] = most * k.shape[2] - atoll(arg(c, "short", "0"));
        for (int64_t n = 0; n < most; n++)
            pages[b * most + n] = (int32_t)(batch * (most - 1 - n) + b);
    }
    table = f32_tensor((float *)pages, 2, shape);
    table.dtype_code = DGM_DTYPE_INT;
    dgm_kv_cache cache;
    dgm_kv_cache_init(&cache, sizeof cache);
    cache.k = &k;
    cache.v = &v;
    cache.block_table = &table;
    cache.lengths = lengths;
    option_memory memory;
    dgm_attention_options o = options(c, &memory);
    return dgm_attention_paged(in(c, "q"), &cache, &o, out, NULL);
}

static int32_t call_attention_merge(conformance_case *c, dgm_tensor *out)
{
    return dgm_attention_merge(in(c, "out1"), in(c, "lse1"), in(c, "out2"), in(c, "lse2"), out, NULL);
}

static int32_t call_rope(conformance_case *c, dgm_tensor *out)
{
    const char *first = arg(c, "first", "0");
    int64_t positions[8] = {0};
    for (int i = 0; i < 8 && first; i++) {
        positions[i] = atoll(first);
        first = strchr(first, ',');
        first = first ? first + 1 : NULL;
    }
    dgm_rope_options tables;
    dgm_rope_options_init(&tables, sizeof tables);
    tables.cos = in(c, "cos");
    tables.sin = in(c, "sin");
    tables.interleaved = atoi(arg(c, "interleaved", "0"));
    return dgm_rope(in(c, "x"), positions, &tables, out);
}

/* The output is [B, K]: the three gradients of each batch entry one after the other. */
static int32_t call_attention_backward(conformance_case *c, dgm_tensor *out)
{
    option_memory owned;
    dgm_attention_options o = options(c, &owned);
    const dgm_tensor *of[3] = {in(c, "q"), in(c, "k"), in(c, "v")};
    const char *own = arg(c, "storage", "f32");
    dgm_tensor q = stored(of[0], own), k = stored(of[1], own), v = stored(of[2], own), dout = stored(in(c, "dout"), own);
    int64_t y_shape[4] = {q.shape[0], q.shape[1], q.shape[2], v.shape[3]}, len[3];
    int64_t rows = y_shape[0] * y_shape[1] * y_shape[2], all = rows * (y_shape[3] + 1);
    for (int i = 0; i < 3; i++) {
        len[i] = of[i]->shape[1] * of[i]->shape[2] * of[i]->shape[3];
        all += of[i]->shape[0] * len[i];
    }
    float *memory = (float *)malloc((size_t)all * sizeof *memory), *at = memory;
    if (memory == NULL)
        die("no memory", c->name);
    memset(memory, 0, (size_t)all * sizeof *memory);
    dgm_tensor wide_y = f32_tensor(at, 4, y_shape), lse = f32_tensor(at += rows * y_shape[3], 3, y_shape), to[3];
    dgm_tensor y = stored(&wide_y, own), narrow[3];
    at += rows;
    for (int i = 0; i < 3; i++) {
        to[i] = f32_tensor(at, 4, of[i]->shape);
        narrow[i] = stored(&to[i], own);
        at += of[i]->shape[0] * len[i];
    }
    int32_t status = dgm_attention(&q, &k, &v, &o, &y, &lse);
    if (status == DGM_OK)
        status = dgm_attention_backward(&q, &k, &v, &y, &lse, &dout, &o, &narrow[0], &narrow[1], &narrow[2], NULL);
    dgm_tensor *const inputs[5] = {&q, &k, &v, &dout, &y};
    for (int i = 0; i < 5; i++)
        widen(status, inputs[i], NULL);
    for (int i = 0; i < 3; i++)
        widen(status, &narrow[i], &to[i]);
    float *next = (float *)out->data;
    for (int64_t b = 0; status == DGM_OK && b < of[0]->shape[0]; b++)
        for (int i = 0; i < 3; next += len[i++])
            memcpy(next, (float *)to[i].data + b * len[i], (size_t)len[i] * sizeof *next);
    free(memory);
    return status;
}

static int32_t call_linear(conformance_case *c, dgm_tensor *out)
{
    static const char *const names[] = {"none", "silu", "gelu_tanh", "gelu_erf"};
    dgm_linear *layer = NULL;
    const char *storage = arg(c, "storage", "f32");
    int gated = strcmp(arg(c, "gated", "0"), "1") == 0, ends = !gated && in(c, "gate");
    dgm_tensor x = stored(in(c, "x"), storage), up = x, gate = x, residual = x;
    dgm_tensor weight = stored(in(c, gated ? "gate" : "weight"), storage);
    dgm_linear_options options;
    int32_t status = dgm_linear_options_init(&options, sizeof options);
    options.activation = choice(arg(c, "activation", "none"), names, 4);
    if (ends) {
        gate = stored(in(c, "gate"), storage);
        residual = stored(in(c, "residual"), storage);
        options.gate = &gate;
        options.residual = &residual;
        (void)arg(c, "groups_of_rows", ""); /* the rows of the gate, which its shape says too */
    }
    if (gated) {
        up = stored(in(c, "up"), storage);
        status = dgm_linear_pack_gated(&weight, &up, in(c, "gate_bias"), in(c, "up_bias"), &layer);
        widen(status, &up, NULL);
    } else if (status == DGM_OK) {
        status = dgm_linear_pack(&weight, in(c, "bias"), &layer);
    }
    if (status == DGM_OK)
        status = ends ? dgm_linear_apply(layer, &x, &options, out)
                      : dgm_linear_forward(layer, &x, options.activation, out);
    dgm_linear_free(layer);
    if (ends) {
        widen(status, &gate, NULL);
        widen(status, &residual, NULL);
    }
    widen(status, &weight, NULL);
    return widen(status, &x, NULL);
}

/* The inputs of a call and its result in the type of the case. */
typedef struct typed_case {
    dgm_tensor t[3], out, *result;
    int n;
} typed_case;

static typed_case typed(conformance_case *c, dgm_tensor *result, const char *a, const char *b, const char *third)
{
    const char *const names[] = {a, b, third}, *own = arg(c, "storage", "f32");
    typed_case all;
    memset(&all, 0, sizeof all);
    for (; all.n < 3 && names[all.n]; all.n++)
        all.t[all.n] = stored(in(c, names[all.n]), own);
    all.out = stored(result, own);
    all.result = result;
    return all;
}

static int32_t finished(typed_case *all, int32_t status)
{
    for (int i = 0; i < all->n; i++)
        widen(status, &all->t[i], NULL);
    return widen(status, &all->out, all->result);
}

static int32_t call_layer_norm(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", "weight", "bias");
    return finished(&x, dgm_layer_norm(&x.t[0], &x.t[1], &x.t[2], number(c, "eps", "nan"), &x.out));
}

static int32_t call_rms_norm(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", "weight", NULL);
    return finished(&x, dgm_rms_norm(&x.t[0], &x.t[1], number(c, "eps", "nan"), &x.out));
}

/* Two results of `out`'s type, each with half of its columns: side by side they are `out`. */
typedef struct halves {
    dgm_tensor first, second;
    int64_t shape[2];
    size_t row;
    char *memory;
} halves;

static void split(halves *h, const dgm_tensor *out)
{
    h->shape[0] = out->shape[0];
    h->shape[1] = out->shape[1] / 2;
    h->row = (size_t)h->shape[1] * (out->dtype_bits / 8);
    h->memory = (char *)malloc(2 * (size_t)h->shape[0] * h->row + 1);
    if (h->memory == NULL)
        die("no memory", "halves");
    h->first = h->second = *out;
    h->first.shape = h->second.shape = h->shape;
    h->first.data = h->memory;
    h->second.data = h->memory + (size_t)h->shape[0] * h->row;
}

static int32_t join(halves *h, int32_t status, const dgm_tensor *out)
{
    for (size_t r = 0; status == DGM_OK && r < (size_t)h->shape[0]; r++) {
        memcpy((char *)out->data + 2 * r * h->row, (char *)h->first.data + r * h->row, h->row);
        memcpy((char *)out->data + (2 * r + 1) * h->row, (char *)h->second.data + r * h->row, h->row);
    }
    free(h->memory);
    return status;
}

/* The sum and the norm of each row side by side. */
static int32_t call_rms_norm_residual(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", "residual", "weight");
    halves h;
    split(&h, &x.out);
    float eps = number(c, "eps", "nan");
    int32_t status = dgm_rms_norm_residual(&x.t[0], &x.t[1], &x.t[2], eps, &h.first, &h.second);
    return finished(&x, join(&h, status, &x.out));
}

static int32_t call_group_norm(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", "weight", "bias");
    int64_t groups = atoll(arg(c, "groups", "0"));
    int32_t silu = atoi(arg(c, "silu", "0"));
    return finished(&x, dgm_group_norm(&x.t[0], groups, &x.t[1], &x.t[2], number(c, "eps", "nan"), silu, &x.out));
}

static int32_t call_modulate(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", "shift", "scale");
    return finished(&x, dgm_modulate(&x.t[0], &x.t[1], &x.t[2], &x.out));
}

static int32_t call_layer_norm_modulate(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", "shift", "scale");
    return finished(&x, dgm_layer_norm_modulate(&x.t[0], &x.t[1], &x.t[2], number(c, "eps", "nan"), &x.out));
}

static int32_t call_gate_residual(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "residual", "y", "gate");
    return finished(&x, dgm_gate_residual(&x.t[0], &x.t[1], &x.t[2], &x.out));
}

static int32_t call_silu(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", NULL, NULL);
    return finished(&x, dgm_silu(&x.t[0], &x.out));
}

static int32_t gelu_kind(conformance_case *c)
{
    static const char *const names[] = {"tanh", "erf"};
    return choice(arg(c, "kind", ""), names, 2);
}

static int32_t call_gelu(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", NULL, NULL);
    return finished(&x, dgm_gelu(&x.t[0], gelu_kind(c), &x.out));
}

static int32_t call_swiglu(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "gate", "up", NULL);
    return finished(&x, dgm_swiglu(&x.t[0], &x.t[1], &x.out));
}

static int32_t call_geglu(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "gate", "up", NULL);
    return finished(&x, dgm_geglu(&x.t[0], &x.t[1], gelu_kind(c), &x.out));
}

static int32_t call_softmax(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", NULL, NULL);
    return finished(&x, dgm_softmax(&x.t[0], &x.out));
}

static int32_t call_log_softmax(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", NULL, NULL);
    return finished(&x, dgm_log_softmax(&x.t[0], &x.out));
}

static int32_t call_embedding(conformance_case *c, dgm_tensor *out)
{
    int64_t indices[MOST], count = 0;
    counts(c, "indices", indices, &count);
    typed_case x = typed(c, out, "table", NULL, NULL);
    return finished(&x, dgm_embedding(&x.t[0], indices, (size_t)count, &x.out));
}

static int32_t call_cfg_combine(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "cond", "uncond", NULL);
    double scale = strtod(arg(c, "scale", "nan"), NULL), rescale = strtod(arg(c, "rescale", "nan"), NULL);
    return finished(&x, dgm_cfg_combine(&x.t[0], &x.t[1], scale, rescale, &x.out));
}

/* Cosines and sines of each row side by side. */
static int32_t call_rope_axial_tables(conformance_case *c, dgm_tensor *out)
{
    int64_t dims[MOST];
    const int64_t *given = counts(c, "dims", dims, NULL);
    halves h;
    split(&h, out);
    float theta = number(c, "theta", "nan");
    return join(&h, dgm_rope_axial_tables(in(c, "positions"), given, theta, &h.first, &h.second), out);
}

static int32_t call_timestep_embedding(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "t", NULL, NULL);
    return finished(&x, dgm_timestep_embedding(&x.t[0], number(c, "max_period", "nan"), &x.out));
}

static int32_t call_patchify(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", NULL, NULL);
    return finished(&x, dgm_patchify(&x.t[0], atoll(arg(c, "patch", "0")), &x.out));
}

static int32_t call_unpatchify(conformance_case *c, dgm_tensor *out)
{
    typed_case x = typed(c, out, "x", NULL, NULL);
    return finished(&x, dgm_unpatchify(&x.t[0], atoll(arg(c, "patch", "0")), &x.out));
}

static const struct {
    const char *name;
    int32_t (*call)(conformance_case *c, dgm_tensor *out);
} calls[] = {
    {"attention", call_attention},
    {"attention_varlen", call_attention_varlen},
    {"attention_varlen_backward", call_attention_varlen_backward},
    {"attention_paged", call_attention_paged},
    {"attention_merge", call_attention_merge},
    {"rope", call_rope},
    {"attention_backward", call_attention_backward},
    {"linear", call_linear},
    {"layer_norm", call_layer_norm},
    {"rms_norm", call_rms_norm},
    {"rms_norm_residual", call_rms_norm_residual},
    {"group_norm", call_group_norm},
    {"modulate", call_modulate},
    {"layer_norm_modulate", call_layer_norm_modulate},
    {"gate_residual", call_gate_residual},
    {"silu", call_silu},
    {"gelu", call_gelu},
    {"swiglu", call_swiglu},
    {"geglu", call_geglu},
    {"softmax", call_softmax},
    {"log_softmax", call_log_softmax},
    {"embedding", call_embedding},
    {"cfg_combine", call_cfg_combine},
    {"rope_axial_tables", call_rope_axial_tables},
    {"timestep_embedding", call_timestep_embedding},
    {"patchify", call_patchify},
    {"unpatchify", call_unpatchify},
};

/* The classes of errors are the hundreds of their numbers. */
static int32_t error_class(const char *name)
{
    static const char *const names[] = {"argument", "shape", "dtype", "alias", "range", "io", "state"};
    int32_t i = choice(name, names, COUNT(names));
    if (i < 0)
        die("unknown class of error", name);
    return i + 1;
}

/* `word` stands in `text` as a word of its own. */
static int names(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = text; (p = strstr(p, word)) != NULL; p++) {
        char before = p == text ? ' ' : p[-1], after = p[n];
        if (!strchr("abcdefghijklmnopqrstuvwxyz_", before) && (after == '\0' || !strchr("abcdefghijklmnopqrstuvwxyz_", after)))
            return 1;
    }
    return 0;
}

static void run_once(conformance_case *c, int32_t threads)
{
    size_t i = 0;
    while (i < COUNT(calls) && strcmp(calls[i].name, c->call) != 0)
        i++;
    if (i == COUNT(calls))
        die("no such call in C", c->call);
    OK(dgm_set_num_threads(threads));
    int before = failed;
    int32_t status = calls[i].call(c, &c->out.tensor);
    if (c->bad) {
        CHECK(-status / 100 == error_class(c->error));
        CHECK(names(dgm_last_error(), c->word));
        CHECK(untouched(&c->out, 1));
    } else {
        char hex[65];
        STATUS(DGM_OK, status);
        sha256_hex(c->out.data + GUARD, c->out.len * sizeof(float), hex);
        CHECK(strcmp(hex, c->sha256) == 0);
        CHECK(untouched(&c->out, 0));
    }
    for (int k = 0; k < c->ins; k++) {
        CHECK(untouched(&c->in[k], 0));
        CHECK(c->bad || c->in[k].used); /* a bad call may end before it reads all */
    }
    for (int k = 0; k < c->args; k++)
        CHECK(c->bad || c->arg[k].used);
    if (failed > before)
        fprintf(stderr, "  in case %s with %d threads: %s\n", c->name, (int)threads, dgm_last_error());
}

static void run_case(conformance_case *c)
{
    run_once(c, 1);
    run_once(c, 3);
    for (int k = 0; k < c->ins; k++)
        free(c->in[k].data);
    free(c->out.data);
}

int main(void)
{
    char hex[65];
    sha256_hex("abc", 3, hex);
    CHECK(strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0);
    char many[112];
    memset(many, 'a', sizeof many);
    sha256_hex(many, sizeof many, hex);
    CHECK(strcmp(hex, "f54353008a2553262ecdc4a34749563ba0950e8b0fc8652780b0a614b99683c1") == 0);

    FILE *f = fopen("tests/conformance/cases.txt", "r");
    if (f == NULL)
        die("cannot be read; run from the root of the repository", "tests/conformance/cases.txt");
    static conformance_case c;
    static char line[1 << 20], copy[256], *word[MOST];
    int good = 0, bad = 0, open = 0;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#')
            continue;
        snprintf(copy, sizeof copy, "%.*s", (int)sizeof copy - 1, line);
        int words = 0;
        for (char *p = strtok(line, " "); p; p = strtok(NULL, " ")) {
            if (words == MOST)
                die("too many words", copy);
            word[words++] = p;
        }
        if ((strcmp(word[0], "case") == 0 || strcmp(word[0], "bad") == 0) && words == 2 && !open) {
            memset(&c, 0, sizeof c);
            keep(c.name, sizeof c.name, word[1]);
            c.bad = word[0][0] == 'b';
            open = 1;
        } else if (strcmp(word[0], "call") == 0 && words == 2) {
            keep(c.call, sizeof c.call, word[1]);
        } else if (strcmp(word[0], "in") == 0 && words == 6 && c.ins < MOST) {
            array *a = &c.in[c.ins++];
            read_array(a, word + 1, words - 1, copy);
            read_contents(a, word[4], word[5], copy);
        } else if (strcmp(word[0], "arg") == 0 && words == 3 && c.args < MOST) {
            keep(c.arg[c.args].name, sizeof c.arg[c.args].name, word[1]);
            keep(c.arg[c.args++].value, sizeof c.arg->value, word[2]);
        } else if (strcmp(word[0], "out") == 0 && c.out.data == NULL &&
                   (c.bad ? words == 4 : words == 6 && strcmp(word[4], "sha256") == 0)) {
            read_array(&c.out, word + 1, words - 1, copy);
            keep(c.sha256, sizeof c.sha256, c.bad ? "" : word[5]);
        } else if (strcmp(word[0], "error") == 0 && words == 3 && c.bad) {
            keep(c.error, sizeof c.error, word[1]);
            keep(c.word, sizeof c.word, word[2]);
        } else if (strcmp(word[0], "end") == 0 && open && c.out.data) {
            run_case(&c);
            c.bad ? bad++ : good++;
            open = 0;
        } else {
            die("unknown line", copy);
        }
    }
    CHECK(feof(f) && !open);
    fclose(f);
    CHECK(good > 0 && bad > 0);
    printf("%d cases, %d bad cases\n", good, bad);
    return finish("test_conformance");
}
