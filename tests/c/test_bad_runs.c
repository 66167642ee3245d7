/* Plans, runs and blocks made wrong in every way: an error that names what is wrong, and no byte
 * of the caller's memory changed. */
#include "check.h"

#include <stdlib.h>

enum { ROWS = 3, N = 5, LEN = ROWS * N };

static const uint64_t seeds[ROWS] = {11, 22, 33};
static dgm_plan *plan, *other;
static size_t run_size, state_len;

/* What a call may write lies here, between bytes that it may not. */
static struct memory {
    unsigned char guard_0[64], run[2048], guard_1[64];
    float state[256];
    unsigned char guard_2[64], block[4096], guard_3[64];
    float y[LEN], t[ROWS];
    unsigned char guard_4[64];
} now, then;

static void remember(void) { then = now; }
static int unchanged(void) { return memcmp(&now, &then, sizeof now) == 0; }

static int32_t ask(void)
{
    dgm_request r = new_request();
    int32_t status = dgm_run_ask(plan, now.run, run_size, &r);
    CHECK(status == DGM_OK || (r.eval_id == 0 && r.done == 0));
    return status;
}
static int32_t run_times(void) { return dgm_run_times(plan, now.run, run_size, now.t, ROWS); }
static int32_t input(void)
{
    float *x = now.y;
    int32_t status = dgm_run_input(plan, now.run, run_size, now.state, state_len, &x);
    CHECK(status == DGM_OK ? x >= now.state && x + LEN <= now.state + state_len : x == NULL);
    return status;
}
static int32_t result(void)
{
    const float *x = now.y;
    int32_t status = dgm_run_result(plan, now.run, run_size, now.state, state_len, &x);
    CHECK(status == DGM_OK ? x >= now.state && x + LEN <= now.state + state_len : x == NULL);
    return status;
}
static int32_t tell(uint64_t id)
{
    return dgm_run_tell(plan, now.run, run_size, now.state, state_len, id, now.y, LEN);
}
static int32_t tell_first(void) { return tell(1); }
static int32_t export_size(void)
{
    size_t size = 77;
    int32_t status = dgm_run_export_size(plan, now.run, run_size, &size);
    CHECK(status == DGM_OK || size == 77);
    return status;
}
static int32_t export_run(void)
{
    size_t written = 77;
    int32_t status = dgm_run_export(plan, now.run, run_size, now.state, state_len, now.block, sizeof now.block, &written);
    CHECK(status == DGM_OK || written == 77);
    return status;
}

static int32_t (*const readers[])(void) = {ask, run_times, input, result, tell_first, export_size, export_run};

/* Refused by all that reads a run, with nothing written. */
static void run_is_refused(const char *how, size_t at)
{
    for (size_t i = 0; i < COUNT(readers); i++) {
        int before = failed;
        int32_t status = readers[i]();
        CHECK(status == DGM_ERROR_FORMAT || status == DGM_ERROR_STATE);
        CHECK(unchanged());
        if (failed > before)
            fprintf(stderr, "  a run with %s %zu, reader %zu: %d, %s\n", how, at, i, (int)status, dgm_last_error());
        now = then;
    }
}

static void corrupted_runs(void)
{
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, now.run, run_size, now.state, state_len));
    struct memory good = now;
    for (size_t i = 0; i < run_size; i++)
        for (int bit = 0; bit < 8; bit += 7) {
            now = good;
            now.run[i] ^= (unsigned char)(1 << bit);
            remember();
            run_is_refused("a wrong byte at", i);
        }
    now = good;
    remember();
    size_t full = run_size;
    for (run_size = 0; run_size < full; run_size++)
        run_is_refused("so many bytes:", run_size);
    run_size = full;
    static const int fills[] = {0, 0xff, 0x7f};
    for (size_t i = 0; i < COUNT(fills); i++) {
        memset(now.run, fills[i], sizeof now.run);
        remember();
        run_is_refused("all bytes", (size_t)fills[i]);
    }
    /* Another plan's run, in good order. */
    now = good;
    OK(dgm_run_start(other, seeds, ROWS, N, NULL, now.run, run_size, now.state, state_len));
    remember();
    run_is_refused("another plan", 0);
}

static int32_t import(size_t len)
{
    return dgm_run_import(plan, now.block, len, now.run, run_size, now.state, state_len);
}

static void corrupted_blocks(void)
{
    size_t size = 0, rows = 77, elements = 77;
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, now.run, run_size, now.state, state_len));
    OK(dgm_run_export(plan, now.run, run_size, now.state, state_len, now.block, sizeof now.block, &size));
    memset(now.run, 0xee, sizeof now.run);
    memset(now.state, 0xee, sizeof now.state);
    struct memory good = now;
    remember();
    for (size_t len = 0; len < size; len++) {
        int32_t status = import(len);
        CHECK(status == DGM_ERROR_FORMAT);
        CHECK(dgm_run_peek(now.block, len, &rows, &elements) < 0 ? rows == 77 && elements == 77 : rows == ROWS && elements == N);
        rows = elements = 77;
        CHECK(unchanged());
    }
    for (size_t i = 0; i < size; i++) {
        now.block[i] ^= 0x10;
        remember();
        /* Bytes 8 to 15 name the plan. */
        STATUS(i / 8 == 1 ? DGM_ERROR_STATE : DGM_ERROR_FORMAT, import(size));
        (void)dgm_run_peek(now.block, size, &rows, &elements);
        CHECK(unchanged());
        now = good;
    }
    remember();
    FAILS(DGM_ERROR_FORMAT, "", import(size + 1));
    STATUS(DGM_ERROR_STATE, dgm_run_import(other, now.block, size, now.run, run_size, now.state, state_len));
    FAILS(DGM_ERROR_ALIAS, "run overlaps buf", dgm_run_import(plan, now.block, size, now.block, run_size, now.state, state_len));
    FAILS(DGM_ERROR_ALIAS, "state overlaps buf",
          dgm_run_import(plan, now.block, size, now.run, run_size, (float *)(void *)now.block, state_len));
    FAILS(DGM_ERROR_RANGE, "run_size", dgm_run_import(plan, now.block, size, now.run, run_size - 1, now.state, state_len));
    STATUS(DGM_ERROR_SHAPE, dgm_run_import(plan, now.block, size, now.run, run_size, now.state, state_len + 1));
    CHECK(unchanged());
    OK(import(size));
    OK(tell(1));
}

static void tells(void)
{
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, now.run, run_size, now.state, state_len));
    for (int i = 0; i < LEN; i++)
        now.y[i] = 0.5f;
    OK(tell(1));
    remember();
    FAILS(DGM_ERROR_STATE, "already", tell(1)); /* twice */
    FAILS(DGM_ERROR_STATE, "0", tell(0));
    STATUS(DGM_ERROR_STATE, tell(3)); /* not asked yet */
    STATUS(DGM_ERROR_STATE, tell(UINT64_MAX));
    static const size_t lengths[] = {0, 1, N, LEN - 1, LEN + 1};
    for (size_t i = 0; i < COUNT(lengths); i++)
        STATUS(DGM_ERROR_SHAPE, dgm_run_tell(plan, now.run, run_size, now.state, state_len, 2, now.y, lengths[i]));
    STATUS(DGM_ERROR_OVERFLOW, dgm_run_tell(plan, now.run, run_size, now.state, state_len, 2, now.t + ROWS, SIZE_MAX / 4 + 1));
    STATUS(DGM_ERROR_SHAPE, dgm_run_tell(plan, now.run, run_size, now.state, state_len - 1, 2, now.y, LEN));
    STATUS(DGM_ERROR_SHAPE, dgm_run_tell(plan, now.run, run_size, now.state, 0, 2, now.y, LEN));
    FAILS(DGM_ERROR_ALIAS, "run overlaps y", dgm_run_tell(plan, now.run, run_size, now.state, state_len, 2, (float *)(void *)(now.run + 64), LEN));
    FAILS(DGM_ERROR_STRIDE, "y", dgm_run_tell(plan, now.run, run_size, now.state, state_len, 2, (float *)(void *)((char *)now.y + 1), LEN));
    STATUS(DGM_ERROR_SHAPE, dgm_run_times(plan, now.run, run_size, now.t, ROWS + 1));
    CHECK(unchanged());
    static const float wrong[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < COUNT(wrong); i++)
        for (int at = 0; at < LEN; at++) {
            now.y[at] = wrong[i];
            remember();
            FAILS(DGM_ERROR_STATE, "row", tell(2));
            CHECK(unchanged());
            now.y[at] = 0.5f;
        }
    uint64_t id = 2;
    for (; ask() == DGM_OK && id < 100; id++) {
        dgm_request r = new_request();
        OK(dgm_run_ask(plan, now.run, run_size, &r));
        if (r.done)
            break;
        OK(tell(r.eval_id));
    }
    remember();
    FAILS(DGM_ERROR_STATE, "done", tell(id));
    CHECK(unchanged());
}

/* From one state to another: the same refusals, the same bits. */
static void tells_apart(void)
{
    static float from[256], to[256];
    int32_t swapped = 77;
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, now.run, run_size, now.state, state_len));
    for (int i = 0; i < LEN; i++)
        now.y[i] = 0.5f;
    OK(tell(1));
    memcpy(from, now.state, sizeof from);
    remember();
#define FROM(id, len, y_len) dgm_run_tell_from(plan, now.run, run_size, from, to, len, id, now.y, y_len)
#define SWAP(id, len, y_len) dgm_run_tell_swap(plan, now.run, run_size, from, to, len, id, now.y, y_len, &swapped)
    FAILS(DGM_ERROR_STATE, "already", FROM(1, state_len, LEN));
    FAILS(DGM_ERROR_STATE, "already", SWAP(1, state_len, LEN));
    STATUS(DGM_ERROR_SHAPE, FROM(2, state_len - 1, LEN));
    STATUS(DGM_ERROR_SHAPE, SWAP(2, state_len - 1, LEN));
    STATUS(DGM_ERROR_SHAPE, FROM(2, state_len, LEN - 1));
    STATUS(DGM_ERROR_SHAPE, SWAP(2, state_len, LEN - 1));
    STATUS(DGM_ERROR_OVERFLOW, FROM(2, SIZE_MAX / 4 + 1, LEN));
    for (int at = 0; at < LEN; at++) {
        now.y[at] = NAN;
        FAILS(DGM_ERROR_STATE, "row", FROM(2, state_len, LEN));
        FAILS(DGM_ERROR_STATE, "row", SWAP(2, state_len, LEN));
        now.y[at] = 0.5f;
    }
#undef FROM
#undef SWAP
    void *run = now.run;
    float *y = now.y, *odd = (float *)(void *)((char *)to + 1);
    FAILS(DGM_ERROR_ALIAS, "to overlaps state", dgm_run_tell_from(plan, run, run_size, to, to + 1, state_len, 2, y, LEN));
    FAILS(DGM_ERROR_ALIAS, "to overlaps y", dgm_run_tell_from(plan, run, run_size, from, y, state_len, 2, y, LEN));
    FAILS(DGM_ERROR_ALIAS, "run overlaps y", dgm_run_tell_from(plan, run, run_size, from, to, state_len, 2, (float *)(void *)(now.run + 64), LEN));
    FAILS(DGM_ERROR_STRIDE, "to", dgm_run_tell_from(plan, run, run_size, from, odd, state_len, 2, y, LEN));
    FAILS(DGM_ERROR_NULL, "plan is null", dgm_run_tell_from(NULL, run, run_size, from, to, state_len, 2, y, LEN));
    FAILS(DGM_ERROR_NULL, "run is null", dgm_run_tell_from(plan, NULL, run_size, from, to, state_len, 2, y, LEN));
    FAILS(DGM_ERROR_NULL, "state is null", dgm_run_tell_from(plan, run, run_size, NULL, to, state_len, 2, y, LEN));
    FAILS(DGM_ERROR_NULL, "to is null", dgm_run_tell_from(plan, run, run_size, from, NULL, state_len, 2, y, LEN));
    FAILS(DGM_ERROR_NULL, "y is null", dgm_run_tell_from(plan, run, run_size, from, to, state_len, 2, NULL, LEN));
    FAILS(DGM_ERROR_ALIAS, "state overlaps other", dgm_run_tell_swap(plan, run, run_size, to, to + 1, state_len, 2, y, LEN, &swapped));
    FAILS(DGM_ERROR_ALIAS, "other overlaps y", dgm_run_tell_swap(plan, run, run_size, from, y, state_len, 2, y, LEN, &swapped));
    FAILS(DGM_ERROR_STRIDE, "other", dgm_run_tell_swap(plan, run, run_size, from, odd, state_len, 2, y, LEN, &swapped));
    FAILS(DGM_ERROR_NULL, "plan is null", dgm_run_tell_swap(NULL, run, run_size, from, to, state_len, 2, y, LEN, &swapped));
    FAILS(DGM_ERROR_NULL, "run is null", dgm_run_tell_swap(plan, NULL, run_size, from, to, state_len, 2, y, LEN, &swapped));
    FAILS(DGM_ERROR_NULL, "state is null", dgm_run_tell_swap(plan, run, run_size, NULL, to, state_len, 2, y, LEN, &swapped));
    FAILS(DGM_ERROR_NULL, "other is null", dgm_run_tell_swap(plan, run, run_size, from, NULL, state_len, 2, y, LEN, &swapped));
    FAILS(DGM_ERROR_NULL, "y is null", dgm_run_tell_swap(plan, run, run_size, from, to, state_len, 2, NULL, LEN, &swapped));
    FAILS(DGM_ERROR_NULL, "swapped is null", dgm_run_tell_swap(plan, run, run_size, from, to, state_len, 2, y, LEN, NULL));
    CHECK(unchanged() && swapped == 77);
    CHECK(memcmp(from, now.state, state_len * sizeof *from) == 0);
    /* A whole walk, one way and the other. */
    for (int way = 0; way < 2; way++) {
        float *a = from, *b = to;
        now = then;
        memcpy(a, now.state, state_len * sizeof *a);
        unsigned char twin[sizeof now.run];
        memcpy(twin, now.run, sizeof twin);
        for (uint64_t id = 2;; id++) {
            dgm_request r = new_request();
            OK(dgm_run_ask(plan, twin, run_size, &r));
            if (r.done)
                break;
            if (way == 0)
                OK(dgm_run_tell_from(plan, twin, run_size, a, b, state_len, id, y, LEN));
            else
                OK(dgm_run_tell_swap(plan, twin, run_size, a, b, state_len, id, y, LEN, &swapped));
            if (way == 0 || swapped == 1) {
                float *c = a;
                a = b, b = c;
            }
            CHECK(way == 0 || swapped == 0 || swapped == 1);
            OK(tell(id));
            CHECK(memcmp(twin, now.run, run_size) == 0 && memcmp(a, now.state, state_len * sizeof *a) == 0);
        }
    }
}

/* Every pointer of every entry that takes a plan or a run. */
static void nulls(void)
{
    size_t size = 0;
    uint64_t hash = 0;
    float *x = NULL;
    const float *result_x = NULL;
    dgm_request r = new_request();
    void *run = now.run, *block = now.block;
    double alpha = 7, sigma = 7;
    OK(dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, now.state, state_len));
    remember();
#define NULL_IS(name, call) FAILS(DGM_ERROR_NULL, name " is null", call)
    NULL_IS("options", dgm_plan_options_init(NULL, sizeof(dgm_plan_options)));
    NULL_IS("out", dgm_plan_compile(NULL, NULL));
    NULL_IS("plan", dgm_plan_describe(NULL, NULL, 0, &size));
    NULL_IS("buf", dgm_plan_describe(plan, NULL, 8, &size));
    NULL_IS("plan", dgm_plan_slots(NULL, &size));
    NULL_IS("slots", dgm_plan_slots(plan, NULL));
    NULL_IS("plan", dgm_plan_state_len(NULL, 1, 1, &size));
    NULL_IS("floats", dgm_plan_state_len(plan, 1, 1, NULL));
    NULL_IS("plan", dgm_plan_run_size(NULL, 1, &size));
    NULL_IS("bytes", dgm_plan_run_size(plan, 1, NULL));
    NULL_IS("plan", dgm_plan_level(NULL, 0.5, &alpha, &sigma));
    NULL_IS("alpha", dgm_plan_level(plan, 0.5, NULL, &sigma));
    NULL_IS("sigma", dgm_plan_level(plan, 0.5, &alpha, NULL));
    FAILS(DGM_ERROR_RANGE, "t is NaN", dgm_plan_level(plan, NAN, &alpha, &sigma));
    CHECK(alpha == 7 && sigma == 7);
    NULL_IS("plan", dgm_plan_hash(NULL, &hash));
    NULL_IS("hash", dgm_plan_hash(plan, NULL));
    NULL_IS("plan", dgm_run_start(NULL, seeds, ROWS, N, NULL, run, run_size, now.state, state_len));
    NULL_IS("seeds", dgm_run_start(plan, NULL, ROWS, N, NULL, run, run_size, now.state, state_len));
    NULL_IS("run", dgm_run_start(plan, seeds, ROWS, N, NULL, NULL, run_size, now.state, state_len));
    NULL_IS("state", dgm_run_start(plan, seeds, ROWS, N, NULL, run, run_size, NULL, state_len));
    NULL_IS("plan", dgm_run_ask(NULL, run, run_size, &r));
    NULL_IS("run", dgm_run_ask(plan, NULL, run_size, &r));
    NULL_IS("request", dgm_run_ask(plan, run, run_size, NULL));
    NULL_IS("plan", dgm_run_times(NULL, run, run_size, now.t, ROWS));
    NULL_IS("run", dgm_run_times(plan, NULL, run_size, now.t, ROWS));
    NULL_IS("t", dgm_run_times(plan, run, run_size, NULL, ROWS));
    NULL_IS("plan", dgm_run_input(NULL, run, run_size, now.state, state_len, &x));
    NULL_IS("run", dgm_run_input(plan, NULL, run_size, now.state, state_len, &x));
    NULL_IS("state", dgm_run_input(plan, run, run_size, NULL, state_len, &x));
    NULL_IS("x", dgm_run_input(plan, run, run_size, now.state, state_len, NULL));
    NULL_IS("plan", dgm_run_tell(NULL, run, run_size, now.state, state_len, 1, now.y, LEN));
    NULL_IS("run", dgm_run_tell(plan, NULL, run_size, now.state, state_len, 1, now.y, LEN));
    NULL_IS("state", dgm_run_tell(plan, run, run_size, NULL, state_len, 1, now.y, LEN));
    NULL_IS("y", dgm_run_tell(plan, run, run_size, now.state, state_len, 1, NULL, LEN));
    NULL_IS("plan", dgm_run_result(NULL, run, run_size, now.state, state_len, &result_x));
    NULL_IS("run", dgm_run_result(plan, NULL, run_size, now.state, state_len, &result_x));
    NULL_IS("state", dgm_run_result(plan, run, run_size, NULL, state_len, &result_x));
    NULL_IS("x", dgm_run_result(plan, run, run_size, now.state, state_len, NULL));
    NULL_IS("plan", dgm_run_export_size(NULL, run, run_size, &size));
    NULL_IS("run", dgm_run_export_size(plan, NULL, run_size, &size));
    NULL_IS("bytes", dgm_run_export_size(plan, run, run_size, NULL));
    NULL_IS("plan", dgm_run_export(NULL, run, run_size, now.state, state_len, block, 4096, &size));
    NULL_IS("run", dgm_run_export(plan, NULL, run_size, now.state, state_len, block, 4096, &size));
    NULL_IS("state", dgm_run_export(plan, run, run_size, NULL, state_len, block, 4096, &size));
    NULL_IS("buf", dgm_run_export(plan, run, run_size, now.state, state_len, NULL, 4096, &size));
    CHECK(unchanged());
    OK(dgm_run_export(plan, run, run_size, now.state, state_len, block, 4096, &size));
    remember();
    size_t rows = 77, elements = 77;
    NULL_IS("buf", dgm_run_peek(NULL, size, &rows, &elements));
    NULL_IS("rows", dgm_run_peek(block, size, NULL, &elements));
    NULL_IS("elements", dgm_run_peek(block, size, &rows, NULL));
    CHECK(rows == 77 && elements == 77);
    NULL_IS("plan", dgm_run_import(NULL, block, size, run, run_size, now.state, state_len));
    NULL_IS("buf", dgm_run_import(plan, NULL, size, run, run_size, now.state, state_len));
    NULL_IS("run", dgm_run_import(plan, block, size, NULL, run_size, now.state, state_len));
    NULL_IS("state", dgm_run_import(plan, block, size, run, run_size, NULL, state_len));
    CHECK(unchanged());
}

/* Sizes that no memory has, and none at all. */
static void sizes(void)
{
    size_t size = 77;
    static const size_t huge[] = {SIZE_MAX, SIZE_MAX / 2, (size_t)1 << 62};
    remember();
    for (size_t i = 0; i < COUNT(huge); i++) {
        STATUS(DGM_ERROR_OVERFLOW, dgm_plan_state_len(plan, huge[i], 1, &size));
        STATUS(DGM_ERROR_OVERFLOW, dgm_plan_state_len(plan, 1, huge[i], &size));
        STATUS(DGM_ERROR_OVERFLOW, dgm_plan_run_size(plan, huge[i], &size));
        STATUS(DGM_ERROR_OVERFLOW, dgm_run_start(plan, seeds, huge[i], N, NULL, now.run, run_size, now.state, state_len));
        STATUS(DGM_ERROR_OVERFLOW, dgm_run_start(plan, seeds, ROWS, huge[i], NULL, now.run, run_size, now.state, state_len));
        CHECK(dgm_row_seeds(1, huge[i], (uint64_t *)(void *)now.state) == DGM_ERROR_OVERFLOW);
    }
    STATUS(DGM_ERROR_OVERFLOW, dgm_run_ask(plan, now.run, SIZE_MAX, NULL));
    STATUS(DGM_ERROR_OVERFLOW, dgm_run_peek(now.block, SIZE_MAX, &size, &size));
    STATUS(DGM_ERROR_RANGE, dgm_plan_state_len(plan, 0, 1, &size));
    STATUS(DGM_ERROR_RANGE, dgm_plan_state_len(plan, 1, 0, &size));
    STATUS(DGM_ERROR_RANGE, dgm_plan_run_size(plan, 0, &size));
    STATUS(DGM_ERROR_RANGE, dgm_run_start(plan, seeds, ROWS, 0, NULL, now.run, run_size, now.state, state_len));
    OK(dgm_row_seeds(1, 0, NULL));
    CHECK(size == 77 && unchanged());
}

int main(void)
{
    dgm_plan_options o;
    memset(&now, 0xab, sizeof now);
    OK(dgm_plan_options_init(&o, sizeof o));
    o.steps = 4;
    OK(dgm_plan_compile(&o, &plan));
    o.steps = 5;
    OK(dgm_plan_compile(&o, &other));
    OK(dgm_plan_run_size(plan, ROWS, &run_size));
    OK(dgm_plan_state_len(plan, ROWS, N, &state_len));
    CHECK(run_size <= sizeof now.run && state_len <= COUNT(now.state));
    nulls();
    sizes();
    corrupted_runs();
    corrupted_blocks();
    tells();
    tells_apart();
    dgm_plan_free(plan);
    dgm_plan_free(other);
    return finish("test_bad_runs");
}
