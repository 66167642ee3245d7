/* The random numbers of other systems, against what these draw (tests/golden/make_compat.py), and the
 * hashes that every language has (tests/conformance/runs.txt). */
#include "golden.h"
#include "sha256.h"

enum { MOST = 1000000 };

static unsigned char state[DGM_COMPAT_STATE_SIZE];
static float narrow[MOST];
static double wide[MOST];

static const char *const algorithms[] = {"torch_cpu", "torch_cuda", "numpy_pcg64", "numpy_philox", "numpy_random_state"};
static const char *const layouts[] = {"partitionable", "original", "nx"};

static uint32_t number_of(const char *name, const char *const *names, uint32_t count)
{
    uint32_t i = 0;
    while (i < count && strcmp(name, names[i]) != 0)
        i++;
    return i;
}

static dgm_tensor tensor_of(void *data, uint8_t bits, int32_t ndim, int64_t *shape)
{
    dgm_tensor t = f32_tensor((float *)data, ndim, shape);
    t.dtype_bits = bits;
    return t;
}

static int near_f32(const float *got, const float *want, size_t n, double tolerance)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance * fmax(1.0, fabs((double)want[i]))))
            return 0;
    return 1;
}

static int near_f64(const double *got, const double *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 5e-16 * fmax(1.0, fabs(want[i]))))
            return 0;
    return 1;
}

/* "torch_cpu.0.3.normal", the next draw of a generator that begins with step 0. */
static void check_draw(char **part, const char *type, golden g)
{
    uint32_t algorithm = number_of(part[0], algorithms, 5);
    if (strcmp(part[2], "0") == 0)
        OK(dgm_compat_seed(algorithm, strtoull(part[1], NULL, 10), state, sizeof state));
    int f64 = strcmp(type, "f64") == 0;
    dgm_tensor t = tensor_of(f64 ? (void *)wide : (void *)narrow, f64 ? 64 : 32, g.ndim, g.shape);
    if (strcmp(part[3], "normal") == 0)
        OK(dgm_compat_normal(state, sizeof state, &t));
    else
        OK(dgm_compat_uniform(state, sizeof state, &t));
    if (f64)
        CHECK(near_f64(wide, (const double *)g.data, g.len));
    else
        CHECK(near_f32(narrow, (const float *)g.data, g.len, algorithm == DGM_COMPAT_TORCH_CUDA ? 2e-6 : 0));
}

static void check_jax(char **part, golden g)
{
    uint32_t key[2], words[64], layout = number_of(part[1], layouts, 3);
    const uint64_t *want = (const uint64_t *)g.data;
    OK(dgm_compat_jax_key(strtoull(part[2], NULL, 10), key));
    dgm_tensor t = tensor_of(narrow, 32, g.ndim, g.shape);
    if (strcmp(part[3], "normal") == 0) {
        OK(dgm_compat_jax_normal(key, layout, &t));
        CHECK(near_f32(narrow, (const float *)g.data, g.len, 5e-7));
    } else if (strcmp(part[3], "uniform") == 0) {
        OK(dgm_compat_jax_uniform(key, layout, &t));
        CHECK(near_f32(narrow, (const float *)g.data, g.len, 0));
    } else {
        CHECK(g.len <= 64);
        if (strcmp(part[3], "split") == 0)
            OK(dgm_compat_jax_split(key, layout, g.len / 2, words));
        else
            OK(dgm_compat_jax_fold_in(key, 7, words));
        for (size_t i = 0; i < g.len && i < 64; i++)
            CHECK(words[i] == want[i]);
    }
}

static void check_golden(void)
{
    golden_open_files("tests/golden/compat.txt", "tests/golden/compat.bin");
    static char copy[sizeof golden_index];
    memcpy(copy, golden_index, sizeof copy);
    int draws = 0, jax = 0;
    char *rest = copy;
    for (char *line = strtok(copy, "\n"); line != NULL; line = strtok(rest, "\n")) {
        rest = line + strlen(line) + 1;
        char type[8], dims[64];
        char name[96];
        long long offset = 0;
        if (sscanf(line, "%95s %7s %63s %lld", name, type, dims, &offset) != 4 || name[0] == '#')
            continue;
        golden g;
        memset(&g, 0, sizeof g);
        g.data = golden_data + offset;
        g.len = 1;
        for (char *p = dims; *p && g.ndim < 8; g.ndim++) {
            g.shape[g.ndim] = strtoll(p, &p, 10);
            g.len *= (size_t)g.shape[g.ndim];
            p += *p == 'x';
        }
        char *part[4] = {NULL, NULL, NULL, NULL};
        int parts = 0;
        for (char *p = strtok(name, "."); p != NULL && parts < 4; p = strtok(NULL, "."))
            part[parts++] = p;
        if (strcmp(part[0], "torchsde") == 0)
            continue;
        if (strcmp(part[0], "jax") == 0) {
            check_jax(part, g);
            jax++;
        } else {
            check_draw(part, type, g);
            draws++;
        }
    }
    CHECK(draws >= 100 && jax >= 40);

    golden seeds = golden_get("torchsde.seeds");
    for (int i = 0; i < 6; i++) {
        char name[64];
        snprintf(name, sizeof name, "torchsde.%d.times", i);
        const double *t = (const double *)golden_get(name).data;
        snprintf(name, sizeof name, "torchsde.%d.increment", i);
        golden want = golden_get(name);
        dgm_tensor out = tensor_of(narrow, 32, 2, want.shape);
        OK(dgm_compat_brownian((const uint64_t *)seeds.data, 2, t[0], t[1], t[2], t[3], 0, &out));
        CHECK(memcmp(narrow, want.data, want.len * 4) == 0);
        snprintf(name, sizeof name, "torchsde.%d.noise", i);
        want = golden_get(name);
        OK(dgm_compat_brownian((const uint64_t *)seeds.data, 2, t[0], t[1], t[2], t[3], 1, &out));
        CHECK(near_f32(narrow, (const float *)want.data, want.len, 3e-7));
    }
}

/* One line "compat ..." of runs.txt: three rows from seeds 7, 8, 9. */
static void check_hash(char **word, int words, const char *hash)
{
    size_t n = (size_t)strtoull(word[words - 1], NULL, 10);
    int64_t shape[] = {1, (int64_t)n};
    CHECK(3 * n <= MOST);
    for (uint64_t r = 0; r < 3; r++) {
        uint64_t seed = 7 + r;
        dgm_tensor row = tensor_of(narrow + r * n, 32, 2, shape);
        if (strcmp(word[0], "brownian") == 0) {
            OK(dgm_compat_brownian(&seed, 1, atof(word[1]), atof(word[2]), atof(word[3]), atof(word[4]), 1, &row));
        } else if (strcmp(word[0], "jax") == 0) {
            uint32_t key[2], layout = number_of(word[1], layouts, 3);
            OK(dgm_compat_jax_key(seed, key));
            if (strcmp(word[2], "normal") == 0)
                OK(dgm_compat_jax_normal(key, layout, &row));
            else
                OK(dgm_compat_jax_uniform(key, layout, &row));
        } else {
            OK(dgm_compat_seed(number_of(word[0], algorithms, 5), seed, state, sizeof state));
            if (strcmp(word[1], "normal") == 0)
                OK(dgm_compat_normal(state, sizeof state, &row));
            else
                OK(dgm_compat_uniform(state, sizeof state, &row));
        }
    }
    char hex[65];
    sha256_hex(narrow, 3 * n * 4, hex);
    CHECK(strcmp(hex, hash) == 0);
}

static void check_hashes(void)
{
    FILE *f = fopen("tests/conformance/runs.txt", "r");
    CHECK(f != NULL);
    if (f == NULL)
        return;
    static char line[4096], kept[4096];
    char *word[10];
    int words = 0, checked = 0;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (strncmp(line, "compat ", 7) == 0) {
            strcpy(kept, line + 7);
            words = 0;
            for (char *p = strtok(kept, " "); p != NULL && words < 10; p = strtok(NULL, " "))
                word[words++] = p;
        } else if (strncmp(line, "sha256 ", 7) == 0 && words > 0) {
            check_hash(word, words, line + 7);
            words = 0;
            checked++;
        }
    }
    fclose(f);
    CHECK(checked == 17);
}

static void check_bad(void)
{
    int64_t shape[] = {2, 8}, strides[] = {16, 1}, two[] = {2};
    dgm_tensor t = tensor_of(narrow, 32, 2, shape), bad;
    unsigned char kept[sizeof state];
    uint64_t seeds[] = {1, 2};
    uint32_t key[2] = {0, 1}, words[4];
    const size_t size = sizeof state;
    FAILS(DGM_ERROR_ARGUMENT, "algorithm is 5", dgm_compat_seed(5, 1, state, size));
    FAILS(DGM_ERROR_NULL, "state is null", dgm_compat_seed(0, 1, NULL, size));
    FAILS(DGM_ERROR_RANGE, "state_size is 100", dgm_compat_seed(0, 1, state, 100));
    FAILS(DGM_ERROR_RANGE, "seed is", dgm_compat_seed(DGM_COMPAT_NUMPY_RANDOM_STATE, UINT64_C(1) << 32, state, size));
    memset(state, 0, size);
    FAILS(DGM_ERROR_FORMAT, "state", dgm_compat_normal(state, size, &t));

    OK(dgm_compat_seed(DGM_COMPAT_TORCH_CUDA, 1, state, size));
    bad = tensor_of(wide, 64, 2, shape);
    memcpy(kept, state, size);
    FAILS(DGM_ERROR_ARGUMENT, "torch_cuda", dgm_compat_normal(state, size, &bad));
    FAILS(DGM_ERROR_ARGUMENT, "torch_cuda", dgm_compat_uniform(state, size, &t));
    bad = tensor_of(narrow, 16, 2, shape);
    FAILS(DGM_ERROR_DTYPE, "out", dgm_compat_normal(state, size, &bad));
    bad = t;
    bad.strides = strides;
    FAILS(DGM_ERROR_STRIDE, "out", dgm_compat_normal(state, size, &bad));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_compat_normal(state, size, NULL));
    FAILS(DGM_ERROR_NULL, "state is null", dgm_compat_normal(NULL, size, &t));
    FAILS(DGM_ERROR_RANGE, "state_size", dgm_compat_normal(state, size - 1, &t));
    CHECK(memcmp(kept, state, size) == 0);
    for (size_t i = 0; i < size; i += 7) {
        state[i] ^= 4;
        STATUS(DGM_ERROR_FORMAT, dgm_compat_normal(state, size, &t));
        state[i] ^= 4;
    }
    static union {
        double align;
        unsigned char bytes[DGM_COMPAT_STATE_SIZE];
    } both;
    OK(dgm_compat_seed(0, 1, both.bytes, size));
    bad = tensor_of(both.bytes, 32, 2, shape);
    FAILS(DGM_ERROR_ALIAS, "out overlaps state", dgm_compat_normal(both.bytes, size, &bad));

    FAILS(DGM_ERROR_NULL, "key is null", dgm_compat_jax_key(1, NULL));
    FAILS(DGM_ERROR_NULL, "key is null", dgm_compat_jax_normal(NULL, 0, &t));
    FAILS(DGM_ERROR_ARGUMENT, "layout is 3", dgm_compat_jax_normal(key, 3, &t));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_compat_jax_fold_in(key, 1, NULL));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_compat_jax_split(key, 0, 2, NULL));
    FAILS(DGM_ERROR_ALIAS, "out overlaps key", dgm_compat_jax_split(key, 0, 1, key));
    FAILS(DGM_ERROR_OVERFLOW, "count", dgm_compat_jax_split(key, 0, SIZE_MAX, words));
    OK(dgm_compat_jax_split(key, 2, 2, words));
    CHECK(dgm_compat_jax_fold_in(key, 1, key) == DGM_OK);

    FAILS(DGM_ERROR_NULL, "seeds is null", dgm_compat_brownian(NULL, 2, 0, 1, 0, 1, 0, &t));
    FAILS(DGM_ERROR_SHAPE, "seeds", dgm_compat_brownian(seeds, 1, 0, 1, 0, 1, 0, &t));
    FAILS(DGM_ERROR_RANGE, "t1 is", dgm_compat_brownian(seeds, 2, 1, 1, 0, 1, 0, &t));
    FAILS(DGM_ERROR_RANGE, "ta is", dgm_compat_brownian(seeds, 2, 0, 1, NAN, 1, 0, &t));
    FAILS(DGM_ERROR_RANGE, "tb is", dgm_compat_brownian(seeds, 2, 0, 1, 1, 1, 1, &t));
    FAILS(DGM_ERROR_ARGUMENT, "normalized is 2", dgm_compat_brownian(seeds, 2, 0, 1, 0, 1, 2, &t));
    bad = tensor_of(narrow, 32, 1, two);
    FAILS(DGM_ERROR_SHAPE, "out", dgm_compat_brownian(seeds, 2, 0, 1, 0, 1, 0, &bad));
}

int main(void)
{
    check_golden();
    check_hashes();
    check_bad();
    return finish("test_compat");
}
