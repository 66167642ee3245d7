/* What the binary interface promises: the layout of every struct, callers built with an older or a
 * newer header, and the names that the header declares. */
#include "check.h"

#include <stdlib.h>

#define SIZE(type, bytes) ABI_ASSERT(sizeof(type) == bytes, #type);
#define FIELD(type, field, bytes) ABI_ASSERT(offsetof(type, field) == bytes, #type "." #field);
#include "layout.h"
#undef SIZE
#undef FIELD

/* A struct of any size, with room to see writes beyond it. */
typedef union caller {
    size_t struct_size;
    unsigned char bytes[1024];
    dgm_attention_options attention;
    dgm_linear_options linear;
    dgm_kv_cache cache;
    dgm_rope_options rope;
    dgm_plan_options plan;
    dgm_request request;
    dgm_model_info info;
} caller;

enum { WORD = sizeof(size_t), NEWER = 40 };

static int all(const unsigned char *bytes, size_t from, size_t to, int value)
{
    for (size_t i = from; i < to; i++)
        if (bytes[i] != value)
            return 0;
    return 1;
}

/* `fill` writes what this library knows, zeros what only the caller knows, and nothing beyond.
 * `own` is the size here, `full` what a caller of this very version gets. */
static void check_filled(const caller *c, size_t size, size_t own, const caller *full)
{
    size_t known = size < own ? size : own;
    CHECK(c->struct_size == size);
    CHECK(memcmp(c->bytes + WORD, full->bytes + WORD, known - WORD) == 0);
    CHECK(all(c->bytes, known, size, 0));
    CHECK(all(c->bytes, size, sizeof c->bytes, 0xc5));
}

static int32_t init_attention(caller *c, size_t size) { return dgm_attention_options_init(&c->attention, size); }
static int32_t init_cache(caller *c, size_t size) { return dgm_kv_cache_init(&c->cache, size); }
static int32_t init_linear(caller *c, size_t size) { return dgm_linear_options_init(&c->linear, size); }
static int32_t init_rope(caller *c, size_t size) { return dgm_rope_options_init(&c->rope, size); }
static int32_t init_plan(caller *c, size_t size) { return dgm_plan_options_init(&c->plan, size); }

static dgm_model *model;
static dgm_plan *plan;
static unsigned char run[512];
static size_t run_size;

static int32_t set(caller *c, size_t size)
{
    c->struct_size = size;
    return DGM_OK;
}
static int32_t fill_request(caller *c, size_t size) { return set(c, size) + dgm_run_ask(plan, run, run_size, &c->request); }
static int32_t fill_info(caller *c, size_t size) { return set(c, size) + dgm_model_get_info(model, &c->info); }
static int32_t fill_options(caller *c, size_t size) { return set(c, size) + dgm_model_plan_options(model, &c->plan); }

static void filled(void)
{
    static const struct {
        int32_t (*fill)(caller *c, size_t size);
        size_t own;
    } kinds[] = {{init_attention, sizeof(dgm_attention_options)}, {init_cache, sizeof(dgm_kv_cache)},
                 {init_linear, sizeof(dgm_linear_options)}, {init_rope, sizeof(dgm_rope_options)}, {init_plan, sizeof(dgm_plan_options)},
                 {fill_request, sizeof(dgm_request)}, {fill_info, sizeof(dgm_model_info)},
                 {fill_options, sizeof(dgm_plan_options)}};
    for (size_t k = 0; k < COUNT(kinds); k++) {
        caller full, c;
        memset(&full, 0xc5, sizeof full);
        OK(kinds[k].fill(&full, kinds[k].own));
        for (size_t size = WORD; size <= kinds[k].own + NEWER; size += WORD) {
            memset(&c, 0xc5, sizeof c);
            OK(kinds[k].fill(&c, size));
            check_filled(&c, size, kinds[k].own, &full);
        }
        static const size_t wrong[] = {0, 1, WORD - 1, WORD + 1, 4104, SIZE_MAX, SIZE_MAX - 7};
        for (size_t i = 0; i < COUNT(wrong); i++) {
            memset(&c, 0xc5, sizeof c);
            CHECK(kinds[k].fill(&c, wrong[i]) < 0 && strstr(dgm_last_error(), "struct_size"));
            CHECK(all(c.bytes, WORD, sizeof c.bytes, 0xc5));
        }
    }
}

/* Options of an older caller mean the defaults beyond their end, whatever lies there. */
static void older_options(void)
{
    uint64_t expected = 0, hash = 0;
    dgm_plan *made = NULL;
    OK(dgm_plan_compile(NULL, &made));
    OK(dgm_plan_hash(made, &expected));
    dgm_plan_free(made);
    for (size_t size = WORD; size <= sizeof(dgm_plan_options); size += WORD) {
        caller c;
        memset(&c, 0xc5, sizeof c);
        OK(dgm_plan_options_init(&c.plan, size));
        OK(dgm_plan_compile(&c.plan, &made));
        OK(dgm_plan_hash(made, &hash));
        CHECK(hash == expected);
        dgm_plan_free(made);
    }
    float x[4] = {1, 2, 3, 4}, full[4], older[4];
    int64_t shape[] = {1, 1, 2, 2};
    dgm_tensor tx = f32_tensor(x, 4, shape), to = f32_tensor(full, 4, shape);
    OK(dgm_attention(&tx, &tx, &tx, NULL, &to, NULL));
    to.data = older;
    for (size_t size = WORD; size <= sizeof(dgm_attention_options); size += WORD) {
        caller c;
        memset(&c, 0xc5, sizeof c);
        OK(dgm_attention_options_init(&c.attention, size));
        OK(dgm_attention(&tx, &tx, &tx, &c.attention, &to, NULL));
        CHECK(memcmp(full, older, sizeof full) == 0);
    }
}

/* What only a newer caller knows must be zero: this library cannot do it. */
static void newer_options(void)
{
    caller c;
    dgm_plan *made = NULL;
    for (size_t at = sizeof(dgm_plan_options); at < sizeof(dgm_plan_options) + NEWER; at++) {
        memset(&c, 0xc5, sizeof c);
        OK(dgm_plan_options_init(&c.plan, sizeof c.plan + NEWER));
        OK(dgm_plan_compile(&c.plan, &made));
        dgm_plan_free(made);
        c.bytes[at] = 1;
        FAILS(DGM_ERROR_ARGUMENT, "options", dgm_plan_compile(&c.plan, &made));
        CHECK(made == NULL);
    }
}

int main(void)
{
    static const uint64_t seeds[1] = {1};
    static float state[64];
    size_t len = 0;
    OK(dgm_model_load("models/digits.safetensors", &model));
    OK(dgm_plan_compile(NULL, &plan));
    OK(dgm_plan_run_size(plan, 1, &run_size));
    OK(dgm_plan_state_len(plan, 1, 4, &len));
    CHECK(run_size <= sizeof run && len <= COUNT(state));
    OK(dgm_run_start(plan, seeds, 1, 4, NULL, run, run_size, state, len));
    filled();
    older_options();
    newer_options();
    dgm_plan_free(plan);
    dgm_model_free(model);
    return finish("test_abi");
}
