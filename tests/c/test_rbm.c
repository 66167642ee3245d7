/* Restricted Boltzmann machines and exchanges between temperatures: published bits, definitions, bad arguments. */
#include "check.h"

enum { V = 20, H = 12, ROWS = 300, LADDER = 3 };

static float w[V * H], b[V], c[H], data[ROWS * V], v[ROWS * V], h[ROWS * H];
static int64_t wide[] = {V, H}, seen[] = {ROWS, V}, unseen[] = {ROWS, H};
static uint64_t seeds[ROWS];
static double numbers[ROWS];
static dgm_rbm *rbm;

static void fill(void)
{
    for (int i = 0; i < V; i++)
        for (int j = 0; j < H; j++)
            w[i * H + j] = (float)((7 * i + 3 * j) % 11 - 5) / 8;
    for (int i = 0; i < V; i++)
        b[i] = (float)(5 * i % 7 - 3) / 8;
    for (int j = 0; j < H; j++)
        c[j] = (float)(3 * j % 5 - 2) / 8;
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < V; i++)
            data[r * V + i] = (float)((r + i) % 2);
    memcpy(v, data, sizeof v);
    OK(dgm_row_seeds(7, ROWS, seeds));
    dgm_tensor weights = f32_tensor(w, 2, wide);
    OK(dgm_rbm_create(&weights, b, V, c, H, &rbm));
}

/* The bits of every language: FNV-1a. */
static void published(const char *name, const void *bytes, size_t len)
{
    uint64_t fnv = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        fnv = (fnv ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    char got[20], line[256], key[64], want[64];
    snprintf(got, sizeof got, "%016llx", (unsigned long long)fnv);
    FILE *file = fopen("tests/golden/rbm.txt", "r");
    int found = 0;
    while (file && fgets(line, sizeof line, file))
        if (line[0] != '#' && sscanf(line, "%63s %63s", key, want) == 2 && strcmp(key, name) == 0)
            found = strcmp(want, got) == 0;
    if (file)
        fclose(file);
    if (!found)
        fprintf(stderr, "%s %s\n", name, got);
    CHECK(found);
}

static void chains(void)
{
    dgm_tensor tv = f32_tensor(v, 2, seen), th = f32_tensor(h, 2, unseen), td = f32_tensor(data, 2, seen);
    OK(dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 0, 20, NULL, 0, NULL));
    published("gibbs", v, sizeof v);
    OK(dgm_rbm_hidden_probabilities(rbm, &tv, &th));
    published("hidden_probabilities", h, sizeof h);
    OK(dgm_rbm_free_energy(rbm, &tv, numbers, ROWS));
    published("free_energy", numbers, sizeof numbers);
    static float dw[V * H], db[V], dc[H];
    dgm_tensor tw = f32_tensor(dw, 2, wide);
    OK(dgm_rbm_cd_gradient(rbm, &td, &tv, &tw, db, V, dc, H));
    published("weights", dw, sizeof dw);
    published("visible_bias", db, sizeof db);
    published("hidden_bias", dc, sizeof dc);
    /* 3 and then 4 steps are 7. */
    static float whole[ROWS * V];
    memcpy(v, data, sizeof v), memcpy(whole, data, sizeof v);
    dgm_tensor tall = f32_tensor(whole, 2, seen);
    OK(dgm_rbm_gibbs(rbm, &tall, seeds, ROWS, 0, 7, NULL, 0, NULL));
    OK(dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 0, 3, NULL, 0, NULL));
    OK(dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 3, 4, NULL, 0, &th));
    CHECK(memcmp(v, whole, sizeof v) == 0);
    /* The energy by its definition. */
    OK(dgm_rbm_energy(rbm, &tv, &th, numbers, ROWS));
    for (int r = 0; r < ROWS; r += 50) {
        double want = 0;
        for (int i = 0; i < V; i++) {
            want -= b[i] * v[r * V + i];
            for (int j = 0; j < H; j++)
                want -= v[r * V + i] * w[i * H + j] * h[r * H + j];
        }
        for (int j = 0; j < H; j++)
            want -= c[j] * h[r * H + j];
        NEAR(numbers[r], want);
    }
    static float p[ROWS * V];
    dgm_tensor tp = f32_tensor(p, 2, seen);
    OK(dgm_rbm_visible_probabilities(rbm, &th, &tp));
    double sum = b[3];
    for (int j = 0; j < H; j++)
        sum += w[3 * H + j] * h[5 * H + j];
    NEAR(p[5 * V + 3], 1 / (1 + exp(-sum)));
}

static const double betas[LADDER] = {1, 0.75, 0.25};

static void tempering(void)
{
    static uint8_t accepted[ROWS / LADDER * (LADDER - 1)];
    dgm_tensor tv = f32_tensor(v, 2, seen), th = f32_tensor(h, 2, unseen);
    memcpy(v, data, sizeof v);
    for (uint32_t step = 0; step < 10; step++) {
        OK(dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, step, 1, betas, LADDER, &th));
        OK(dgm_rbm_energy(rbm, &tv, &th, numbers, ROWS));
        for (int r = 0; r < ROWS; r++)
            numbers[r] = -numbers[r];
        OK(dgm_replica_exchange(&tv, numbers, betas, LADDER, seeds, ROWS, step, accepted, sizeof accepted));
        int taken[2] = {0, 0};
        for (size_t i = 0; i < sizeof accepted; i++)
            taken[i % 2] += accepted[i];
        CHECK(taken[step % 2] > 0 && taken[(step + 1) % 2] == 0);
    }
    published("tempered", v, sizeof v);
}

static void bad_machines(void)
{
    dgm_rbm *out = rbm;
    dgm_tensor weights = f32_tensor(w, 2, wide), flat = f32_tensor(w, 1, wide);
    FAILS(DGM_ERROR_NULL, "weights", dgm_rbm_create(NULL, b, V, c, H, &out));
    CHECK(out == NULL);
    FAILS(DGM_ERROR_SHAPE, "weights", dgm_rbm_create(&flat, b, V, c, H, &out));
    FAILS(DGM_ERROR_NULL, "visible_bias", dgm_rbm_create(&weights, NULL, V, c, H, &out));
    FAILS(DGM_ERROR_NULL, "hidden_bias", dgm_rbm_create(&weights, b, V, NULL, H, &out));
    FAILS(DGM_ERROR_SHAPE, "visible_bias", dgm_rbm_create(&weights, b, V - 1, c, H, &out));
    FAILS(DGM_ERROR_SHAPE, "hidden_bias", dgm_rbm_create(&weights, b, V, c, H - 1, &out));
    FAILS(DGM_ERROR_NULL, "out", dgm_rbm_create(&weights, b, V, c, H, NULL));
    int64_t none[] = {0, H};
    dgm_tensor empty = f32_tensor(w, 2, none);
    FAILS(DGM_ERROR_SHAPE, "weights", dgm_rbm_create(&empty, b, 0, c, H, &out));
    const float kept = w[5];
    w[5] = NAN;
    FAILS(DGM_ERROR_RANGE, "weights is NaN at [0, 5]", dgm_rbm_create(&weights, b, V, c, H, &out));
    w[5] = 3e38f;
    FAILS(DGM_ERROR_RANGE, "weights", dgm_rbm_create(&weights, b, V, c, H, &out));
    w[5] = kept;
    b[2] = INFINITY;
    FAILS(DGM_ERROR_RANGE, "visible_bias", dgm_rbm_create(&weights, b, V, c, H, &out));
    b[2] = (float)(5 * 2 % 7 - 3) / 8;
    dgm_rbm_free(NULL);
}

static void bad_units(void)
{
    dgm_tensor tv = f32_tensor(v, 2, seen), th = f32_tensor(h, 2, unseen), tw = f32_tensor(w, 2, wide);
    static float other[ROWS * V], db[V], dc[H];
    dgm_tensor to = f32_tensor(other, 2, seen);
    FAILS(DGM_ERROR_NULL, "rbm", dgm_rbm_hidden_probabilities(NULL, &tv, &th));
    FAILS(DGM_ERROR_NULL, "v", dgm_rbm_hidden_probabilities(rbm, NULL, &th));
    FAILS(DGM_ERROR_NULL, "out", dgm_rbm_hidden_probabilities(rbm, &tv, NULL));
    FAILS(DGM_ERROR_SHAPE, "v", dgm_rbm_hidden_probabilities(rbm, &th, &tv));
    FAILS(DGM_ERROR_SHAPE, "h", dgm_rbm_visible_probabilities(rbm, &tv, &th));
    FAILS(DGM_ERROR_SHAPE, "out", dgm_rbm_hidden_probabilities(rbm, &tv, &to));
    STATUS(DGM_ERROR_ALIAS, dgm_rbm_hidden_probabilities(rbm, &tv, &tv));
    FAILS(DGM_ERROR_NULL, "h", dgm_rbm_visible_probabilities(rbm, NULL, &to));
    FAILS(DGM_ERROR_NULL, "free_energy", dgm_rbm_free_energy(rbm, &tv, NULL, ROWS));
    FAILS(DGM_ERROR_SHAPE, "free_energy", dgm_rbm_free_energy(rbm, &tv, numbers, ROWS - 1));
    STATUS(DGM_ERROR_ALIAS, dgm_rbm_free_energy(rbm, &tv, (double *)(void *)v, ROWS));
    FAILS(DGM_ERROR_SHAPE, "energy", dgm_rbm_energy(rbm, &tv, &th, numbers, ROWS + 1));
    FAILS(DGM_ERROR_SHAPE, "h", dgm_rbm_energy(rbm, &tv, &tv, numbers, ROWS));
    STATUS(DGM_ERROR_ALIAS, dgm_rbm_energy(rbm, &tv, &th, (double *)(void *)h, ROWS));
    v[V + 3] = 1.5f;
    FAILS(DGM_ERROR_RANGE, "v is 1.5 at row 1, unit 3", dgm_rbm_free_energy(rbm, &tv, numbers, ROWS));
    FAILS(DGM_ERROR_RANGE, "v_data is 1.5", dgm_rbm_cd_gradient(rbm, &tv, &to, &tw, db, V, dc, H));
    FAILS(DGM_ERROR_RANGE, "v_chain is 1.5", dgm_rbm_cd_gradient(rbm, &to, &tv, &tw, db, V, dc, H));
    v[V + 3] = NAN;
    FAILS(DGM_ERROR_RANGE, "v is NaN", dgm_rbm_hidden_probabilities(rbm, &tv, &th));
    v[V + 3] = 1;
    int64_t no_rows[] = {0, V};
    dgm_tensor none = f32_tensor(v, 2, no_rows);
    FAILS(DGM_ERROR_SHAPE, "v_data", dgm_rbm_cd_gradient(rbm, &none, &tv, &tw, db, V, dc, H));
    FAILS(DGM_ERROR_SHAPE, "v_chain", dgm_rbm_cd_gradient(rbm, &tv, &none, &tw, db, V, dc, H));
    FAILS(DGM_ERROR_SHAPE, "weights", dgm_rbm_cd_gradient(rbm, &tv, &tv, &to, db, V, dc, H));
    FAILS(DGM_ERROR_SHAPE, "visible_bias", dgm_rbm_cd_gradient(rbm, &tv, &tv, &tw, db, V - 1, dc, H));
    FAILS(DGM_ERROR_NULL, "hidden_bias", dgm_rbm_cd_gradient(rbm, &tv, &tv, &tw, db, V, NULL, H));
    STATUS(DGM_ERROR_ALIAS, dgm_rbm_cd_gradient(rbm, &tv, &tv, &tv, db, V, dc, H));
    STATUS(DGM_ERROR_ALIAS, dgm_rbm_cd_gradient(rbm, &tv, &tv, &tw, db, V, db + 1, H));
    STATUS(DGM_ERROR_ALIAS, dgm_rbm_cd_gradient(rbm, &tv, &tv, &tw, w, V, dc, H));
    OK(dgm_rbm_free_energy(rbm, &none, NULL, 0));
}

static void bad_chains(void)
{
    dgm_tensor tv = f32_tensor(v, 2, seen), th = f32_tensor(h, 2, unseen);
    const double bad[LADDER] = {1, -1, NAN};
    FAILS(DGM_ERROR_NULL, "v", dgm_rbm_gibbs(rbm, NULL, seeds, ROWS, 0, 1, NULL, 0, NULL));
    FAILS(DGM_ERROR_SHAPE, "v", dgm_rbm_gibbs(rbm, &th, seeds, ROWS, 0, 1, NULL, 0, NULL));
    FAILS(DGM_ERROR_NULL, "seeds", dgm_rbm_gibbs(rbm, &tv, NULL, ROWS, 0, 1, NULL, 0, NULL));
    FAILS(DGM_ERROR_SHAPE, "seeds", dgm_rbm_gibbs(rbm, &tv, seeds, ROWS - 1, 0, 1, NULL, 0, NULL));
    FAILS(DGM_ERROR_OVERFLOW, "seeds", dgm_rbm_gibbs(rbm, &tv, seeds, SIZE_MAX, 0, 1, NULL, 0, NULL));
    STATUS(DGM_ERROR_ALIAS, dgm_rbm_gibbs(rbm, &tv, (uint64_t *)(void *)v, ROWS, 0, 1, NULL, 0, NULL));
    FAILS(DGM_ERROR_RANGE, "steps", dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, UINT32_MAX, 1, NULL, 0, NULL));
    FAILS(DGM_ERROR_RANGE, "steps", dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 0, 0, NULL, 0, &th));
    FAILS(DGM_ERROR_NULL, "inverse_temperatures", dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 0, 1, NULL, 3, NULL));
    FAILS(DGM_ERROR_SHAPE, "inverse_temperatures", dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 0, 1, numbers, 7, NULL));
    FAILS(DGM_ERROR_RANGE, "inverse_temperatures", dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 0, 1, bad, LADDER, NULL));
    int64_t fewer[] = {ROWS - 1, H};
    dgm_tensor short_of_a_row = f32_tensor(h, 2, fewer);
    FAILS(DGM_ERROR_SHAPE, "hidden", dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 0, 1, NULL, 0, &short_of_a_row));
    STATUS(DGM_ERROR_ALIAS, dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 0, 1, NULL, 0, &tv));
    v[0] = 0.5f;
    FAILS(DGM_ERROR_RANGE, "v is 0.5 at row 0, unit 0", dgm_rbm_gibbs(rbm, &tv, seeds, ROWS, 0, 1, NULL, 0, NULL));
    v[0] = 1;

    uint8_t accepted[2] = {7, 7};
    float x[4] = {1, 2, 3, 4};
    int64_t shape[] = {4, 1};
    dgm_tensor tx = f32_tensor(x, 2, shape);
    double logs[4] = {0, 0, 0, 0};
    FAILS(DGM_ERROR_NULL, "x", dgm_replica_exchange(NULL, logs, betas, 2, seeds, 4, 0, accepted, 2));
    FAILS(DGM_ERROR_NULL, "log_density", dgm_replica_exchange(&tx, NULL, betas, 2, seeds, 4, 0, accepted, 2));
    FAILS(DGM_ERROR_NULL, "inverse_temperatures", dgm_replica_exchange(&tx, logs, NULL, 2, seeds, 4, 0, accepted, 2));
    FAILS(DGM_ERROR_NULL, "seeds", dgm_replica_exchange(&tx, logs, betas, 2, NULL, 4, 0, accepted, 2));
    FAILS(DGM_ERROR_NULL, "accepted", dgm_replica_exchange(&tx, logs, betas, 2, seeds, 4, 0, NULL, 2));
    FAILS(DGM_ERROR_SHAPE, "inverse_temperatures", dgm_replica_exchange(&tx, logs, betas, 3, seeds, 4, 0, accepted, 2));
    FAILS(DGM_ERROR_SHAPE, "inverse_temperatures", dgm_replica_exchange(&tx, logs, betas, 0, seeds, 4, 0, accepted, 2));
    FAILS(DGM_ERROR_RANGE, "inverse_temperatures", dgm_replica_exchange(&tx, logs, bad, 2, seeds, 4, 0, accepted, 2));
    FAILS(DGM_ERROR_SHAPE, "log_density", dgm_replica_exchange(&tx, logs, betas, 2, seeds, 3, 0, accepted, 2));
    FAILS(DGM_ERROR_SHAPE, "accepted", dgm_replica_exchange(&tx, logs, betas, 2, seeds, 4, 0, accepted, 1));
    FAILS(DGM_ERROR_SHAPE, "accepted", dgm_replica_exchange(&tx, logs, betas, 2, seeds, 4, 0, accepted, 5));
    STATUS(DGM_ERROR_ALIAS, dgm_replica_exchange(&tx, logs, betas, 2, seeds, 4, 0, (uint8_t *)logs, 2));
    STATUS(DGM_ERROR_ALIAS, dgm_replica_exchange(&tx, logs, logs, 2, seeds, 4, 0, accepted, 2));
    STATUS(DGM_ERROR_ALIAS, dgm_replica_exchange(&tx, logs, betas, 2, seeds, 4, 0, (uint8_t *)x, 2));
    logs[1] = NAN;
    FAILS(DGM_ERROR_RANGE, "log_density is NaN at row 1", dgm_replica_exchange(&tx, logs, betas, 2, seeds, 4, 0, accepted, 2));
    CHECK(x[0] == 1 && x[1] == 2 && x[2] == 3 && x[3] == 4 && accepted[0] == 7 && accepted[1] == 7);
    /* What is likelier goes to the colder row, always. */
    logs[1] = 5, logs[2] = 1, logs[3] = -INFINITY;
    OK(dgm_replica_exchange(&tx, logs, betas, 2, seeds, 4, 0, accepted, 2));
    CHECK(x[0] == 2 && x[1] == 1 && x[2] == 3 && x[3] == 4 && accepted[0] == 1 && accepted[1] == 0);
    CHECK(logs[0] == 5 && logs[1] == 0 && logs[2] == 1);
}

int main(void)
{
    fill();
    chains();
    tempering();
    bad_machines();
    bad_units();
    bad_chains();
    dgm_rbm_free(rbm);
    return finish("test_rbm");
}
