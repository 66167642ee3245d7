/* Every tensor argument of every entry, made wrong in every way: an error that names it, and no
 * byte of the caller's memory changed. */
#include "arena.h"

enum { MOST = 11, ROWS = 3 };

static const uint64_t seeds[ROWS] = {1, 2, 3};
static const int64_t labels[ROWS] = {0, 1, 10};
static const float times[ROWS] = {0.1f, 0.5f, 0.9f};
static dgm_linear *layer;
static dgm_model *model;
static dgm_plan *plan;
static float *workspace;
static size_t workspace_len;

static int32_t attention(dgm_tensor *const *t) { return dgm_attention(t[0], t[1], t[2], NULL, t[3], t[4]); }
static int32_t biased(dgm_tensor *const *t)
{
    dgm_attention_options o;
    dgm_attention_options_init(&o, sizeof o);
    o.bias = t[3];
    return dgm_attention(t[0], t[1], t[2], &o, t[4], t[5]);
}
static int32_t backward(dgm_tensor *const *t)
{
    dgm_attention_options o;
    dgm_attention_options_init(&o, sizeof o);
    o.bias = t[6];
    return dgm_attention_backward(t[0], t[1], t[2], t[3], t[4], t[5], &o, t[7], t[8], t[9], t[6] ? t[10] : NULL);
}

static int32_t packed(dgm_tensor *const *t)
{
    static const int64_t q_offsets[] = {0, 2, 5}, kv_offsets[] = {0, 3, 7};
    return dgm_attention_varlen(t[0], t[1], t[2], q_offsets, kv_offsets, 2, NULL, t[3], t[4]);
}
static int32_t packed_backward(dgm_tensor *const *t)
{
    static const int64_t q_offsets[] = {0, 2, 5}, kv_offsets[] = {0, 3, 7};
    return dgm_attention_varlen_backward(t[0], t[1], t[2], t[3], t[4], t[5], q_offsets, kv_offsets, 2, NULL, t[6], t[7], t[8]);
}
static int32_t layer_norm(dgm_tensor *const *t) { return dgm_layer_norm(t[0], t[1], t[2], 1e-5f, t[3]); }
static int32_t rms_norm(dgm_tensor *const *t) { return dgm_rms_norm(t[0], t[1], 1e-5f, t[2]); }
static int32_t modulate(dgm_tensor *const *t) { return dgm_modulate(t[0], t[1], t[2], t[3]); }
static int32_t norm_modulate(dgm_tensor *const *t) { return dgm_layer_norm_modulate(t[0], t[1], t[2], 1e-5f, t[3]); }
static int32_t gate_residual(dgm_tensor *const *t) { return dgm_gate_residual(t[0], t[1], t[2], t[3]); }
static int32_t silu(dgm_tensor *const *t) { return dgm_silu(t[0], t[1]); }
static int32_t gelu(dgm_tensor *const *t) { return dgm_gelu(t[0], DGM_GELU_ERF, t[1]); }
static int32_t swiglu(dgm_tensor *const *t) { return dgm_swiglu(t[0], t[1], t[2]); }
static int32_t geglu(dgm_tensor *const *t) { return dgm_geglu(t[0], t[1], DGM_GELU_TANH, t[2]); }
static int32_t softmax(dgm_tensor *const *t) { return dgm_softmax(t[0], t[1]); }
static int32_t log_softmax(dgm_tensor *const *t) { return dgm_log_softmax(t[0], t[1]); }
static int32_t group_norm(dgm_tensor *const *t) { return dgm_group_norm(t[0], 2, t[1], t[2], 1e-5f, 1, t[3]); }
static int32_t cfg_combine(dgm_tensor *const *t) { return dgm_cfg_combine(t[0], t[1], 3, 0.5, t[2]); }
static int32_t axial_tables(dgm_tensor *const *t)
{
    static const int64_t dims[] = {2, 4, 2};
    return dgm_rope_axial_tables(t[0], dims, 10000, t[1], t[2]);
}
static int32_t embedding(dgm_tensor *const *t) { return dgm_timestep_embedding(t[0], 10000, t[1]); }
static int32_t patchify(dgm_tensor *const *t) { return dgm_patchify(t[0], 2, t[1]); }
static int32_t unpatchify(dgm_tensor *const *t) { return dgm_unpatchify(t[0], 2, t[1]); }
static int32_t forward(dgm_tensor *const *t) { return dgm_linear_forward(layer, t[0], DGM_ACTIVATION_SILU, t[1]); }
static int32_t uniform(dgm_tensor *const *t) { return dgm_random_uniform(seeds, ROWS, DGM_PURPOSE_USER, 0, t[0]); }
static int32_t normal(dgm_tensor *const *t) { return dgm_random_normal(seeds, ROWS, DGM_PURPOSE_USER, 0, t[0]); }
static int32_t generate(dgm_tensor *const *t) { return dgm_generate(model, plan, seeds, labels, ROWS, t[0]); }
static int32_t network(dgm_tensor *const *t)
{
    return dgm_model_forward(model, t[0], times, labels, workspace, workspace_len, t[1]);
}
static int32_t categorical(dgm_tensor *const *t)
{
    int64_t drawn[ROWS] = {-7, -7, -7};
    int32_t status = dgm_random_categorical(t[0], seeds, ROWS, DGM_PURPOSE_GUMBEL, 0, drawn);
    CHECK(status == DGM_OK || (drawn[0] == -7 && drawn[1] == -7 && drawn[2] == -7));
    return status;
}
static int32_t pack(dgm_tensor *const *t)
{
    dgm_linear *made = layer;
    int32_t status = dgm_linear_pack(t[0], t[1], &made);
    CHECK(status == DGM_OK ? made != NULL : made == NULL);
    dgm_linear_free(made);
    return status;
}

static struct entry {
    const char *name;
    int32_t (*call)(dgm_tensor *const *t);
    int elementwise; /* so many inputs may be the very same view as the output */
    int free_dim;    /* dimension of the first tensor that no other argument shares */
    int count;
    slot slots[MOST];
} entries[] = {
    {"attention", attention, 0, -1, 5,
     {{"q", 0, 0, 4, {2, 4, 5, 8}, 0, 0}, {"k", 0, 0, 4, {2, 2, 7, 8}, 0, 0}, {"v", 0, 0, 4, {2, 2, 7, 6}, 0, 0},
      {"out", 1, 0, 4, {2, 4, 5, 6}, 0, 0}, {"lse", 1, 1, 3, {2, 4, 5}, 0, 0}}},
    {"attention with a bias", biased, 0, -1, 6,
     {{"q", 0, 0, 4, {2, 4, 5, 8}, 0, 0}, {"k", 0, 0, 4, {2, 2, 7, 8}, 0, 0}, {"v", 0, 0, 4, {2, 2, 7, 6}, 0, 0},
      {"bias", 0, 1, 4, {2, 4, 5, 7}, 0, 0}, {"out", 1, 0, 4, {2, 4, 5, 6}, 0, 0}, {"lse", 1, 1, 3, {2, 4, 5}, 0, 0}}},
    {"attention_backward", backward, 0, -1, 11,
     {{"q", 0, 0, 4, {2, 4, 5, 8}, 0, 0}, {"k", 0, 0, 4, {2, 2, 7, 8}, 0, 0}, {"v", 0, 0, 4, {2, 2, 7, 6}, 0, 0},
      {"out", 0, 0, 4, {2, 4, 5, 6}, 0, 0}, {"lse", 0, 0, 3, {2, 4, 5}, 0, 0}, {"dout", 0, 0, 4, {2, 4, 5, 6}, 0, 0},
      {"bias", 0, 1, 4, {2, 4, 5, 7}, 0, 0}, {"dq", 1, 0, 4, {2, 4, 5, 8}, 0, 0}, {"dk", 1, 0, 4, {2, 2, 7, 8}, 0, 0},
      {"dv", 1, 0, 4, {2, 2, 7, 6}, 0, 0}, {"dbias", 1, 1, 4, {2, 4, 5, 7}, 0, 0}}},
    {"attention_varlen", packed, 0, -1, 5,
     {{"q", 0, 0, 3, {5, 4, 8}, 0, 0}, {"k", 0, 0, 3, {7, 2, 8}, 0, 0}, {"v", 0, 0, 3, {7, 2, 6}, 0, 0},
      {"out", 1, 0, 3, {5, 4, 6}, 0, 0}, {"lse", 1, 1, 2, {4, 5}, 0, 0}}},
    {"attention_varlen_backward", packed_backward, 0, -1, 9,
     {{"q", 0, 0, 3, {5, 4, 8}, 0, 0}, {"k", 0, 0, 3, {7, 2, 8}, 0, 0}, {"v", 0, 0, 3, {7, 2, 6}, 0, 0},
      {"out", 0, 0, 3, {5, 4, 6}, 0, 0}, {"lse", 0, 0, 2, {4, 5}, 0, 0}, {"dout", 0, 0, 3, {5, 4, 6}, 0, 0},
      {"dq", 1, 0, 3, {5, 4, 8}, 0, 0}, {"dk", 1, 0, 3, {7, 2, 8}, 0, 0}, {"dv", 1, 0, 3, {7, 2, 6}, 0, 0}}},
    {"layer_norm", layer_norm, 0, -1, 4,
     {{"x", 0, 0, 2, {4, 9}, 0, 0}, {"weight", 0, 1, 1, {9}, 0, 0}, {"bias", 0, 1, 1, {9}, 0, 0}, {"out", 1, 0, 2, {4, 9}, 0, 0}}},
    {"rms_norm", rms_norm, 0, -1, 3,
     {{"x", 0, 0, 2, {4, 9}, 0, 0}, {"weight", 0, 1, 1, {9}, 0, 0}, {"out", 1, 0, 2, {4, 9}, 0, 0}}},
    {"modulate", modulate, 1, -1, 4,
     {{"x", 0, 0, 3, {2, 3, 9}, 0, 0}, {"shift", 0, 0, 2, {2, 9}, 0, 0}, {"scale", 0, 0, 2, {2, 9}, 0, 0}, {"out", 1, 0, 3, {2, 3, 9}, 0, 0}}},
    {"layer_norm_modulate", norm_modulate, 0, -1, 4,
     {{"x", 0, 0, 3, {2, 3, 9}, 0, 0}, {"shift", 0, 0, 2, {2, 9}, 0, 0}, {"scale", 0, 0, 2, {2, 9}, 0, 0}, {"out", 1, 0, 3, {2, 3, 9}, 0, 0}}},
    {"gate_residual", gate_residual, 2, -1, 4,
     {{"residual", 0, 0, 3, {2, 3, 9}, 0, 0}, {"y", 0, 0, 3, {2, 3, 9}, 0, 0}, {"gate", 0, 0, 2, {2, 9}, 0, 0}, {"out", 1, 0, 3, {2, 3, 9}, 0, 0}}},
    {"silu", silu, 1, -1, 2, {{"x", 0, 0, 3, {2, 3, 5}, 0, 0}, {"out", 1, 0, 3, {2, 3, 5}, 0, 0}}},
    {"gelu", gelu, 1, -1, 2, {{"x", 0, 0, 3, {2, 3, 5}, 0, 0}, {"out", 1, 0, 3, {2, 3, 5}, 0, 0}}},
    {"swiglu", swiglu, 2, -1, 3, {{"gate", 0, 0, 3, {2, 3, 5}, 0, 0}, {"up", 0, 0, 3, {2, 3, 5}, 0, 0}, {"out", 1, 0, 3, {2, 3, 5}, 0, 0}}},
    {"geglu", geglu, 2, -1, 3, {{"gate", 0, 0, 3, {2, 3, 5}, 0, 0}, {"up", 0, 0, 3, {2, 3, 5}, 0, 0}, {"out", 1, 0, 3, {2, 3, 5}, 0, 0}}},
    {"softmax", softmax, 0, -1, 2, {{"x", 0, 0, 3, {2, 3, 5}, 0, 0}, {"out", 1, 0, 3, {2, 3, 5}, 0, 0}}},
    {"log_softmax", log_softmax, 0, -1, 2, {{"x", 0, 0, 3, {2, 3, 5}, 0, 0}, {"out", 1, 0, 3, {2, 3, 5}, 0, 0}}},
    {"group_norm", group_norm, 0, -1, 4,
     {{"x", 0, 0, 3, {2, 4, 5}, 0, 0}, {"weight", 0, 1, 1, {4}, 0, 0}, {"bias", 0, 1, 1, {4}, 0, 0}, {"out", 1, 0, 3, {2, 4, 5}, 0, 0}}},
    {"cfg_combine", cfg_combine, 0, -1, 3,
     {{"cond", 0, 0, 2, {3, 7}, 0, 0}, {"uncond", 0, 0, 2, {3, 7}, 0, 0}, {"out", 1, 0, 2, {3, 7}, 0, 0}}},
    {"rope_axial_tables", axial_tables, 0, -1, 3,
     {{"positions", 0, 0, 2, {4, 2}, 0, 0}, {"cos", 1, 0, 2, {4, 3}, 0, 0}, {"sin", 1, 0, 2, {4, 3}, 0, 0}}},
    {"timestep_embedding", embedding, 0, -1, 2, {{"t", 0, 0, 1, {3}, 0, 0}, {"out", 1, 0, 2, {3, 8}, 0, 0}}},
    {"patchify", patchify, 0, -1, 2, {{"x", 0, 0, 4, {2, 3, 4, 6}, 0, 0}, {"out", 1, 0, 3, {2, 6, 12}, 0, 0}}},
    {"unpatchify", unpatchify, 0, -1, 2, {{"x", 0, 0, 3, {2, 6, 12}, 0, 0}, {"out", 1, 0, 4, {2, 3, 4, 6}, 0, 0}}},
    {"linear_pack", pack, 0, 1, 2, {{"weight", 0, 0, 2, {5, 9}, 0, 0}, {"bias", 0, 1, 1, {5}, 0, 0}}},
    {"linear_forward", forward, 0, -1, 2, {{"x", 0, 0, 2, {4, 9}, 0, 0}, {"out", 1, 0, 2, {4, 5}, 0, 0}}},
    {"random_uniform", uniform, 0, 1, 1, {{"out", 1, 0, 2, {ROWS, 7}, 0, 0}}},
    {"random_normal", normal, 0, 1, 1, {{"out", 1, 0, 2, {ROWS, 7}, 0, 0}}},
    {"random_categorical", categorical, 0, 1, 1, {{"logits", 0, 0, 2, {ROWS, 7}, 0, 0}}},
    {"model_forward", network, 0, -1, 2, {{"x", 0, 0, 4, {ROWS, 1, 8, 8}, 0, 0}, {"out", 1, 0, 4, {ROWS, 1, 8, 8}, 0, 0}}},
    {"generate", generate, 0, -1, 1, {{"out", 1, 0, 4, {ROWS, 1, 8, 8}, 0, 0}}},
};

/* The arguments of the call that is made next: descriptors, and what they point to. */
static dgm_tensor tensor[MOST], *arg[MOST];
static int64_t shape[MOST][RANK + 1], strides[MOST][RANK + 1];

static void reset(struct entry *e)
{
    for (int i = 0; i < e->count; i++) {
        const slot *s = &e->slots[i];
        int64_t stride = 1;
        for (int d = s->ndim - 1; d >= 0; d--) {
            shape[i][d] = s->shape[d];
            strides[i][d] = stride;
            stride *= s->shape[d];
        }
        tensor[i] = f32_tensor(arena + s->at, s->ndim, shape[i]);
        tensor[i].strides = strides[i];
        arg[i] = &tensor[i];
    }
}

/* Makes the call and checks its status (one of two), that the text has the words, and that no
 * memory changed. Then makes all arguments right again. */
static void refuse_with(struct entry *e, int i, const char *fault, int32_t expected, int32_t or_else, const char *words)
{
    int before = failed;
    int32_t status = e->call(arg);
    CHECK(status == expected || status == or_else);
    CHECK(status == DGM_OK || strstr(dgm_last_error(), words) != NULL);
    CHECK(arena_intact(e->slots, e->count, status));
    if (failed > before)
        fprintf(stderr, "  %s, %s: %s gives %d, \"%s\"\n", e->name, e->slots[i].name, fault, (int)status, dgm_last_error());
    reset(e);
}

/* The text names the argument. */
static void refuse(struct entry *e, int i, const char *fault, int32_t expected, int32_t or_else)
{
    refuse_with(e, i, fault, expected, or_else, e->slots[i].name);
}

#define REFUSE(assignment, expected)                       \
    do {                                                   \
        assignment;                                        \
        refuse(e, i, #assignment, expected, expected);     \
    } while (0)
#define REFUSE_2(assignment, expected, or_else)            \
    do {                                                   \
        assignment;                                        \
        refuse(e, i, #assignment, expected, or_else);      \
    } while (0)

static void descriptors(struct entry *e, int i)
{
    dgm_tensor *t = &tensor[i];
    REFUSE(arg[i] = NULL, e->slots[i].optional ? DGM_OK : DGM_ERROR_NULL);
    REFUSE(t->data = NULL, DGM_ERROR_NULL);
    REFUSE(t->shape = NULL, DGM_ERROR_NULL);
    REFUSE(arg[i] = (dgm_tensor *)((char *)t + 4), DGM_ERROR_STRIDE);
    REFUSE(t->shape = (int64_t *)((char *)shape[i] + 4), DGM_ERROR_STRIDE);
    REFUSE(t->strides = (int64_t *)((char *)strides[i] + 4), DGM_ERROR_STRIDE);
    REFUSE(t->device_type = 2, DGM_ERROR_DTYPE);
    REFUSE(t->device_type = 0, DGM_ERROR_DTYPE);
    REFUSE(t->dtype_code = DGM_DTYPE_INT, DGM_ERROR_DTYPE);
    REFUSE(t->dtype_code = DGM_DTYPE_UINT, DGM_ERROR_DTYPE);
    REFUSE(t->dtype_code = DGM_DTYPE_BFLOAT, DGM_ERROR_DTYPE);
    REFUSE(t->dtype_code = 255, DGM_ERROR_DTYPE);
    REFUSE(t->dtype_bits = 64, DGM_ERROR_DTYPE);
    REFUSE(t->dtype_bits = 0, DGM_ERROR_DTYPE);
    REFUSE(t->dtype_bits = 33, DGM_ERROR_DTYPE);
    REFUSE(t->dtype_lanes = 4, DGM_ERROR_DTYPE);
    REFUSE(t->dtype_lanes = 0, DGM_ERROR_DTYPE);
    REFUSE(t->byte_offset = 1, DGM_ERROR_STRIDE);
    REFUSE(t->byte_offset = 2, DGM_ERROR_STRIDE);
    REFUSE(t->byte_offset = UINT64_MAX, DGM_ERROR_OVERFLOW);
    REFUSE(t->byte_offset = UINT64_MAX - 3, DGM_ERROR_OVERFLOW);
    REFUSE(t->byte_offset = ~(uint64_t)(uintptr_t)t->data - 3, DGM_ERROR_OVERFLOW);
    REFUSE(t->ndim = -1, DGM_ERROR_SHAPE);
    REFUSE(t->ndim = INT32_MIN, DGM_ERROR_SHAPE);
    REFUSE(t->ndim = RANK + 1, DGM_ERROR_SHAPE);
    REFUSE(t->ndim = INT32_MAX, DGM_ERROR_SHAPE);
    REFUSE(t->ndim = 0, DGM_ERROR_SHAPE);
    REFUSE((shape[i][t->ndim] = 1, strides[i][t->ndim] = 1, t->ndim++), DGM_ERROR_SHAPE);
    REFUSE(t->ndim--, DGM_ERROR_SHAPE);
}

static void dimensions(struct entry *e, int i, int d)
{
    int64_t *n = &shape[i][d], *s = &strides[i][d];
    REFUSE(*n = -1, DGM_ERROR_SHAPE);
    REFUSE(*n = INT64_MIN, DGM_ERROR_SHAPE);
    REFUSE_2(*n = INT64_MAX, DGM_ERROR_OVERFLOW, DGM_ERROR_SHAPE);
    REFUSE_2((*n = INT64_MAX, tensor[i].strides = NULL), DGM_ERROR_OVERFLOW, DGM_ERROR_SHAPE);
    REFUSE_2(*n = (int64_t)1 << 61, DGM_ERROR_OVERFLOW, DGM_ERROR_SHAPE);
    if (tensor[i].ndim > 1)
        REFUSE_2((*n = (int64_t)1 << 32, shape[i][(d + 1) % tensor[i].ndim] = (int64_t)1 << 32, tensor[i].strides = NULL),
                 DGM_ERROR_OVERFLOW, DGM_ERROR_SHAPE);
    if (*n > 1) {
        REFUSE(*s = INT64_MAX, DGM_ERROR_OVERFLOW);
        REFUSE(*s = INT64_MIN, DGM_ERROR_OVERFLOW);
        REFUSE(*s = (int64_t)1 << 61, DGM_ERROR_OVERFLOW);
        REFUSE(*s = -((int64_t)1 << 61), DGM_ERROR_OVERFLOW);
    }
    if (e->slots[i].output && *n > 1) {
        REFUSE(*s = 0, DGM_ERROR_STRIDE);
        REFUSE((tensor[i].data = arena + e->slots[i].at + (*n - 1) * *s, *s = -*s), DGM_ERROR_STRIDE);
        if (shape[i][(d + 1) % tensor[i].ndim] > 1 && tensor[i].ndim > 1)
            REFUSE(*s = strides[i][(d + 1) % tensor[i].ndim], DGM_ERROR_STRIDE);
    }
    /* Two arguments that do not fit each other: either may be named, with both shapes. */
    *n = 0;
    refuse_with(e, i, "no elements", DGM_OK, DGM_ERROR_SHAPE, "has shape");
    *n = 0, tensor[i].data = NULL;
    refuse_with(e, i, "no elements, no memory", DGM_OK, DGM_ERROR_SHAPE, "has shape");
    if (i == 0 && d == e->free_dim)
        return;
    *n += 1, tensor[i].strides = NULL;
    refuse_with(e, i, "one more", DGM_ERROR_SHAPE, DGM_ERROR_SHAPE, "has shape");
}

/* An input that runs backwards in memory, or does not run at all, is used as it is or refused. */
static void strided_input(struct entry *e, int i, int d, const float *expected, int out)
{
    const slot *s = &e->slots[i];
    int64_t stride = strides[i][d], n = shape[i][d];
    if (n < 2 || out < 0)
        return;
    float *x = arena + s->at, *copy = (float *)malloc(s->len * sizeof *copy);
    for (size_t k = 0; k < s->len; k++) {
        int64_t at = (int64_t)k / stride % n;
        copy[(int64_t)k + (n - 1 - 2 * at) * stride] = x[k];
    }
    tensor[i].data = copy + (n - 1) * stride;
    strides[i][d] = -stride;
    int32_t status = e->call(arg);
    CHECK(status == DGM_OK || status == DGM_ERROR_STRIDE);
    if (status == DGM_OK)
        CHECK(memcmp(arena + e->slots[out].at, expected, e->slots[out].len * sizeof *expected) == 0);
    CHECK(arena_intact(e->slots, e->count, status));
    reset(e);
    strides[i][d] = 0;
    status = e->call(arg);
    CHECK(status == DGM_OK || status == DGM_ERROR_STRIDE);
    CHECK(arena_intact(e->slots, e->count, status));
    reset(e);
    free(copy);
}

static void overlaps(struct entry *e, int out, const float *expected)
{
    for (int i = 0; i < e->count; i++) {
        const slot *s = &e->slots[i];
        if (i == out || (s->output && i > out))
            continue;
        tensor[out].data = arena + s->at;
        if (i < e->elementwise) {
            OK(e->call(arg));
            CHECK(memcmp(arena + s->at, expected, s->len * sizeof *arena) == 0);
            memcpy(arena + s->at, arena_before + s->at, s->len * sizeof *arena);
            CHECK(arena_intact(e->slots, 0, DGM_OK));
            reset(e);
        } else {
            refuse(e, out, "the same view", DGM_ERROR_ALIAS, DGM_ERROR_ALIAS);
        }
        tensor[out].data = arena + s->at + 1;
        refuse(e, out, "one element further", DGM_ERROR_ALIAS, DGM_ERROR_ALIAS);
        tensor[out].data = arena + s->at + s->len - 1;
        refuse(e, out, "the last element", DGM_ERROR_ALIAS, DGM_ERROR_ALIAS);
        tensor[out].data = arena + s->at - e->slots[out].len + 1;
        refuse(e, out, "the first element", DGM_ERROR_ALIAS, DGM_ERROR_ALIAS);
    }
}

static void all_faults(struct entry *e)
{
    static float expected[ARENA];
    int out = -1;
    arena_place(e->slots, e->count);
    reset(e);
    for (int i = 0; i < e->count; i++)
        if (out < 0 && e->slots[i].output)
            out = i;
    OK(e->call(arg));
    if (out >= 0)
        memcpy(expected, arena + e->slots[out].at, e->slots[out].len * sizeof *expected);
    CHECK(arena_intact(e->slots, e->count, DGM_OK));
    for (int i = 0; i < e->count; i++) {
        descriptors(e, i);
        for (int d = 0; d < e->slots[i].ndim; d++) {
            dimensions(e, i, d);
            /* The network takes its time under valgrind: one dimension of its input will do. */
            if (!e->slots[i].output && (d == 0 || e->call != network))
                strided_input(e, i, d, expected, out);
        }
        if (e->slots[i].output)
            overlaps(e, i, expected);
    }
}

int main(void)
{
    float zeros[5 * 9] = {0};
    int64_t weight_shape[] = {5, 9};
    dgm_tensor weight = f32_tensor(zeros, 2, weight_shape);
    dgm_plan_options o;
    arena_fill();
    OK(dgm_linear_pack(&weight, NULL, &layer));
    OK(dgm_model_load("models/digits.safetensors", &model));
    OK(dgm_plan_options_init(&o, sizeof o));
    OK(dgm_model_plan_options(model, &o));
    o.steps = 1;
    o.guidance = 1;
    OK(dgm_plan_compile(&o, &plan));
    OK(dgm_model_workspace_len(model, ROWS + 1, &workspace_len));
    workspace = (float *)malloc(workspace_len * sizeof *workspace);
    for (size_t i = 0; i < COUNT(entries); i++)
        all_faults(&entries[i]);
    free(workspace);
    dgm_plan_free(plan);
    dgm_model_free(model);
    dgm_linear_free(layer);
    return finish("test_bad_tensors");
}
