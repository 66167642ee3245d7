/* Noise: ranges, moments, and that a row depends on its seed alone. */
#include "check.h"

enum { ROWS = 3, N = 4001 };

static float a[ROWS * N], b[N];
static int64_t shape[] = {ROWS, N}, one[] = {1, N};

int main(void)
{
    uint64_t seeds[ROWS], more[8];
    OK(dgm_row_seeds(42, ROWS, seeds));
    OK(dgm_row_seeds(42, 8, more));
    CHECK(memcmp(seeds, more, sizeof seeds) == 0 && more[0] != more[1]);

    dgm_tensor ta = f32_tensor(a, 2, shape), tb = f32_tensor(b, 2, one), bad;
    OK(dgm_random_uniform(seeds, ROWS, DGM_PURPOSE_USER, 0, &ta));
    double sum = 0;
    int inside = 1;
    for (int i = 0; i < ROWS * N; i++) {
        sum += (double)a[i];
        inside = inside && a[i] > 0 && a[i] < 1;
    }
    CHECK(inside);
    CHECK(fabs(sum / (ROWS * N) - 0.5) < 0.02);
    OK(dgm_random_uniform(seeds + 2, 1, DGM_PURPOSE_USER, 0, &tb));
    CHECK(memcmp(b, a + 2 * N, sizeof b) == 0);

    OK(dgm_random_normal(seeds, ROWS, DGM_PURPOSE_INITIAL, 0, &ta));
    double square = sum = 0;
    for (int i = 0; i < ROWS * N; i++) {
        sum += (double)a[i];
        square += (double)a[i] * (double)a[i];
    }
    CHECK(fabs(sum / (ROWS * N)) < 0.04);
    CHECK(fabs(square / (ROWS * N) - 1) < 0.05);
    OK(dgm_random_normal(seeds + 1, 1, DGM_PURPOSE_INITIAL, 0, &tb));
    CHECK(memcmp(b, a + N, sizeof b) == 0);
    OK(dgm_random_normal(seeds + 1, 1, DGM_PURPOSE_STEP, 0, &tb));
    CHECK(memcmp(b, a + N, sizeof b) != 0);
    OK(dgm_random_normal(seeds + 1, 1, DGM_PURPOSE_INITIAL, 1, &tb));
    CHECK(memcmp(b, a + N, sizeof b) != 0);

    float logits[ROWS * 4] = {0, 0, 50, 0, 50, 0, 0, 0, -INFINITY, 3, -INFINITY, -INFINITY};
    int64_t logit_shape[] = {ROWS, 4}, drawn[ROWS] = {-5, -5, -5};
    dgm_tensor tl = f32_tensor(logits, 2, logit_shape);
    OK(dgm_random_categorical(&tl, seeds, ROWS, DGM_PURPOSE_GUMBEL, 0, drawn));
    CHECK(drawn[0] == 2 && drawn[1] == 0 && drawn[2] == 1);

    FAILS(DGM_ERROR_NULL, "seeds is null", dgm_random_normal(NULL, ROWS, 0, 0, &ta));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_random_uniform(seeds, ROWS, 0, 0, NULL));
    STATUS(DGM_ERROR_SHAPE, dgm_random_normal(seeds, ROWS - 1, 0, 0, &ta));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_row_seeds(1, 2, NULL));
    OK(dgm_row_seeds(1, 0, NULL));
    FAILS(DGM_ERROR_NULL, "out is null", dgm_random_categorical(&tl, seeds, ROWS, 0, 0, NULL));
    FAILS(DGM_ERROR_NULL, "logits is null", dgm_random_categorical(NULL, seeds, ROWS, 0, 0, drawn));
    STATUS(DGM_ERROR_SHAPE, dgm_random_categorical(&tl, seeds, ROWS - 1, 0, 0, drawn));
    FAILS(DGM_ERROR_ALIAS, "out overlaps seeds", dgm_random_categorical(&tl, seeds, ROWS, 0, 0, (int64_t *)(void *)seeds));
    int64_t tiny[] = {1, 2};
    bad = f32_tensor((const float *)(void *)seeds, 2, tiny);
    FAILS(DGM_ERROR_ALIAS, "out overlaps seeds", dgm_random_normal(seeds, 1, 0, 0, &bad));
    FAILS(DGM_ERROR_OVERFLOW, "seeds is too large", dgm_random_normal(seeds, SIZE_MAX / 2, 0, 0, &ta));
    uint64_t words[2];
    FAILS(DGM_ERROR_STRIDE, "multiple of 8", dgm_row_seeds(1, 1, (uint64_t *)(void *)((char *)words + 1)));
    return finish("test_random");
}
