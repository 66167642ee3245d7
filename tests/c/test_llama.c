/* Language models: the logits of transformers, equal bits in every cut, and every kind of bad input. */
#include "golden.h"

enum { MOST = 4 * 40 * 64, FLOATS = 1 << 16 };

static float whole[MOST], again[MOST], untouched[MOST];
static float k[FLOATS], v[FLOATS], work[FLOATS], k_pages[FLOATS], v_pages[FLOATS];

static dgm_kv_cache cache_of(dgm_tensor *tk, dgm_tensor *tv, int64_t *lengths)
{
    dgm_kv_cache cache;
    OK(dgm_kv_cache_init(&cache, sizeof cache));
    cache.k = tk;
    cache.v = tv;
    cache.lengths = lengths;
    return cache;
}

static void logits(const char *name, const char *folder)
{
    char key[64];
    snprintf(key, sizeof key, "%s.tokens", name);
    golden tokens = golden_get(key);
    snprintf(key, sizeof key, "%s.logits", name);
    golden want = golden_get(key);
    const int64_t *all = (const int64_t *)tokens.data;

    dgm_llama *model = NULL;
    dgm_llama_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    OK(dgm_llama_load(folder, &model));
    OK(dgm_llama_get_info(model, &info));
    CHECK(info.vocab == want.shape[2] && info.depth == 2 && info.cache_heads == info.depth * info.kv_heads);
    CHECK(info.packed_bytes > 10000);
    if (model == NULL)
        return;

    size_t len = 0, vocab = (size_t)info.vocab;
    int64_t lengths[2] = {0, 0}, shape[] = {2, info.cache_heads, 40, info.head_dim};
    dgm_tensor tk = f32_tensor(k, 4, shape), tv = f32_tensor(v, 4, shape);
    dgm_kv_cache cache = cache_of(&tk, &tv, lengths);
    dgm_tensor to = f32_tensor(whole, 3, want.shape);
    OK(dgm_llama_workspace_len(model, 2, 40, &len));
    CHECK(len <= FLOATS);
    memset(work, 0xff, sizeof work);
    OK(dgm_llama_forward(model, all, 2, 40, &cache, work, len, &to));
    CHECK(golden_close(whole, &want, 1e-5) && lengths[0] == 40 && lengths[1] == 40);

    /* The same bits in every language: FNV-1a of the logits. */
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < want.len * sizeof *whole; i++)
        hash = (hash ^ ((const unsigned char *)whole)[i]) * 0x100000001b3u;
    char line[64], text[256];
    snprintf(line, sizeof line, "%s %016llx\n", name, (unsigned long long)hash);
    FILE *f = fopen("tests/golden/llama.fnv", "rb");
    CHECK(f != NULL);
    if (f == NULL)
        return;
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    CHECK(strstr(text, line) != NULL);

    /* The second sequence alone, token by token, in pages of eight tokens. */
    int32_t pages[] = {3, 0, 4, 1, 2};
    int64_t table_shape[] = {1, 5}, paged[] = {5, info.cache_heads, 8, info.head_dim}, one[] = {1, 1, info.vocab}, n = 0;
    dgm_tensor pk = f32_tensor(k_pages, 4, paged), pv = f32_tensor(v_pages, 4, paged);
    dgm_tensor table = f32_tensor((float *)(void *)pages, 2, table_shape);
    table.dtype_code = DGM_DTYPE_INT;
    dgm_kv_cache small = cache_of(&pk, &pv, &n);
    small.block_table = &table;
    for (size_t i = 0; i < 40; i++) {
        dgm_tensor row = f32_tensor(again + i * vocab, 3, one);
        OK(dgm_llama_forward(model, all + 40 + i, 1, 1, &small, work, len, &row));
    }
    CHECK(n == 40 && memcmp(again, whole + 40 * vocab, 40 * vocab * sizeof *again) == 0);

    /* Back by ten tokens, and those again in one piece. */
    int64_t keep = 30, ten[] = {1, 10, info.vocab};
    OK(dgm_kv_cache_truncate(&n, &keep, 1));
    dgm_tensor rows = f32_tensor(again, 3, ten);
    OK(dgm_llama_forward(model, all + 70, 1, 10, &small, work, len, &rows));
    CHECK(memcmp(again, whole + 70 * vocab, 10 * vocab * sizeof *again) == 0);
    dgm_llama_free(model);
}

#define REFUSED(status, words, call)                                                  \
    do {                                                                              \
        FAILS(status, words, call);                                                   \
        CHECK(memcmp(again, untouched, sizeof again) == 0 && lengths[0] == 2 && lengths[1] == 0); \
    } while (0)

static void refusals(void)
{
    static char place;
    dgm_llama *model = NULL, *none = (dgm_llama *)(void *)&place;
    FAILS(DGM_ERROR_NULL, "folder is null", dgm_llama_load(NULL, &none));
    CHECK(none == NULL);
    none = (dgm_llama *)(void *)&place;
    FAILS(DGM_ERROR_IO, "no/such/folder/config.json", dgm_llama_load("no/such/folder", &none));
    CHECK(none == NULL);
    STATUS(DGM_ERROR_ARGUMENT, dgm_llama_load("\xff\xfe", &none));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_llama_load("tests/golden/tiny_llama", NULL));
    dgm_llama_free(NULL);
    OK(dgm_llama_load("tests/golden/tiny_llama", &model));

    dgm_llama_info info;
    memset(&info, 0, sizeof info);
    STATUS(DGM_ERROR_ARGUMENT, dgm_llama_get_info(model, &info));
    info.struct_size = sizeof info;
    FAILS(DGM_ERROR_NULL, "model is null", dgm_llama_get_info(NULL, &info));
    FAILS(DGM_ERROR_NULL, "info is null", dgm_llama_get_info(model, NULL));
    size_t len = 0;
    FAILS(DGM_ERROR_NULL, "model is null", dgm_llama_workspace_len(NULL, 1, 1, &len));
    FAILS(DGM_ERROR_NULL, "floats is null", dgm_llama_workspace_len(model, 1, 1, NULL));
    STATUS(DGM_ERROR_OVERFLOW, dgm_llama_workspace_len(model, SIZE_MAX, 2, &len));
    STATUS(DGM_ERROR_OVERFLOW, dgm_llama_workspace_len(model, (size_t)1 << 31, (size_t)1 << 31, &len));
    OK(dgm_llama_workspace_len(model, 2, 3, &len));

    int64_t lengths[2] = {2, 0}, tokens[] = {1, 2, 3, 4, 5, 6}, shape[] = {2, 4, 4, 12}, out_shape[] = {2, 1, 64};
    dgm_tensor tk = f32_tensor(k, 4, shape), tv = f32_tensor(v, 4, shape), to = f32_tensor(again, 3, out_shape);
    dgm_kv_cache cache = cache_of(&tk, &tv, lengths);
    for (size_t i = 0; i < MOST; i++)
        again[i] = untouched[i] = -1234.5f;
#define FORWARD(model, tokens, batch, n, cache, work, len, to) dgm_llama_forward(model, tokens, batch, n, cache, work, len, to)
    REFUSED(DGM_ERROR_NULL, "model is null", FORWARD(NULL, tokens, 2, 2, &cache, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "tokens is null", FORWARD(model, NULL, 2, 2, &cache, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "cache is null", FORWARD(model, tokens, 2, 2, NULL, work, len, &to));
    REFUSED(DGM_ERROR_NULL, "workspace is null", FORWARD(model, tokens, 2, 2, &cache, NULL, len, &to));
    REFUSED(DGM_ERROR_NULL, "logits is null", FORWARD(model, tokens, 2, 2, &cache, work, len, NULL));
    REFUSED(DGM_ERROR_SHAPE, "workspace", FORWARD(model, tokens, 2, 2, &cache, work, 7, &to));
    REFUSED(DGM_ERROR_OVERFLOW, "workspace", FORWARD(model, tokens, 2, 2, &cache, work, SIZE_MAX, &to));
    REFUSED(DGM_ERROR_OVERFLOW, "new_tokens", FORWARD(model, tokens, 2, SIZE_MAX, &cache, work, len, &to));
    REFUSED(DGM_ERROR_SHAPE, "tokens", FORWARD(model, tokens, 1, 2, &cache, work, len, &to));
    REFUSED(DGM_ERROR_SHAPE, "logits", FORWARD(model, tokens, 2, 0, &cache, work, len, &to));
    /* The first sequence has room for two more. */
    REFUSED(DGM_ERROR_RANGE, "lengths is 5, expected 0 to 4", FORWARD(model, tokens, 2, 3, &cache, work, len, &to));
    static const int64_t wrong[] = {-1, 64, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        int64_t bad[] = {1, 2, wrong[i], 4};
        REFUSED(DGM_ERROR_RANGE, "at [1, 0], expected 0 to 63", FORWARD(model, bad, 2, 2, &cache, work, len, &to));
    }
    REFUSED(DGM_ERROR_ALIAS, "workspace", FORWARD(model, (int64_t *)(void *)work, 2, 2, &cache, work, len, &to));
    REFUSED(DGM_ERROR_ALIAS, "workspace", FORWARD(model, tokens, 2, 2, &cache, k, len, &to));
    REFUSED(DGM_ERROR_ALIAS, "workspace", FORWARD(model, tokens, 2, 2, &cache, again, len, &to));
    REFUSED(DGM_ERROR_ALIAS, "tokens", FORWARD(model, (int64_t *)(void *)again, 2, 2, &cache, work, len, &to));
    dgm_tensor inside = f32_tensor(k, 3, out_shape);
    REFUSED(DGM_ERROR_ALIAS, "k", FORWARD(model, tokens, 2, 2, &cache, work, len, &inside));
    dgm_kv_cache bad = cache_of(&tk, &tk, lengths);
    REFUSED(DGM_ERROR_ALIAS, "v", FORWARD(model, tokens, 2, 2, &bad, work, len, &to));
    bad = cache_of(&tk, &tv, (int64_t *)(void *)work);
    REFUSED(DGM_ERROR_ALIAS, "lengths", FORWARD(model, tokens, 2, 2, &bad, work, len, &to));
    bad = cache_of(&tk, &tv, NULL);
    REFUSED(DGM_ERROR_NULL, "lengths is null", FORWARD(model, tokens, 2, 2, &bad, work, len, &to));
    int64_t heads[] = {2, 3, 4, 12}, thin[] = {2, 4, 4, 11}, wide[] = {2, 1, 65}, flat[] = {2, 64};
    dgm_tensor hk = f32_tensor(k, 4, heads), hv = f32_tensor(v, 4, heads), dk = f32_tensor(k, 4, thin);
    bad = cache_of(&hk, &hv, lengths);
    REFUSED(DGM_ERROR_SHAPE, "expected [P, 4, T, 12]", FORWARD(model, tokens, 2, 2, &bad, work, len, &to));
    bad = cache_of(&dk, &tv, lengths);
    REFUSED(DGM_ERROR_SHAPE, "expected [P, 4, T, 12]", FORWARD(model, tokens, 2, 2, &bad, work, len, &to));
    dgm_tensor other = f32_tensor(again, 3, wide);
    REFUSED(DGM_ERROR_SHAPE, "logits", FORWARD(model, tokens, 2, 2, &cache, work, len, &other));
    other = f32_tensor(again, 2, flat);
    REFUSED(DGM_ERROR_SHAPE, "logits", FORWARD(model, tokens, 2, 2, &cache, work, len, &other));
    OK(FORWARD(model, tokens, 2, 2, &cache, work, len, &to));
    CHECK(lengths[0] == 4 && lengths[1] == 2 && again[0] > -1000);
    dgm_llama_free(model);
}

int main(void)
{
    golden_open_files("tests/golden/llama.txt", "tests/golden/llama.bin");
    logits("tiny_llama", "tests/golden/tiny_llama");
    logits("tiny_llama_3", "tests/golden/tiny_llama_3");
    logits("tiny_llama_3", "tests/golden/tiny_llama_3_shards");
    refusals();
    free(golden_data);
    return finish("test_llama");
}
