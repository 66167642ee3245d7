/* Draws the samples of the gallery: every sampler on every shape that the file of cases lists.
 *
 *   cargo build --release -p dgm-capi
 *   sh capi/cc.sh capi/examples/gallery.c target/gallery && target/gallery CASES POINTS
 *
 * `make gallery DOOR=c` writes the cases, runs this and draws the picture. POINTS receives raw f32
 * [plans, shapes, rows, 2].
 */
#include <dgm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16, COMPONENTS = 1024 };

static int fail(const char *what)
{
    const char *said = dgm_last_error();
    fprintf(stderr, "%s: %s\n", what, said && *said ? said : "not as expected");
    return 1;
}

/* The next word has to be `name`, a number follows. */
static int count(FILE *f, const char *name, size_t most, size_t *to)
{
    char word[32];
    return fscanf(f, "%31s %zu", word, to) == 2 && strcmp(word, name) == 0 && *to >= 1 && *to <= most;
}

static dgm_mixture *read_mixture(FILE *f)
{
    static double means[2 * COMPONENTS], ones[COMPONENTS], variances[COMPONENTS];
    size_t n;
    double deviation;
    dgm_mixture *mixture = NULL;
    if (!count(f, "shape", COMPONENTS, &n) || fscanf(f, "%lf", &deviation) != 1)
        return NULL;
    for (size_t i = 0; i < 2 * n; i++)
        if (fscanf(f, "%lf", &means[i]) != 1)
            return NULL;
    for (size_t i = 0; i < n; i++) {
        ones[i] = 1;
        variances[i] = deviation * deviation;
    }
    return dgm_mixture_create(ones, means, variances, n, n, 2, &mixture) ? NULL : mixture;
}

/* Of an option its name, its value, and the number of a choice. */
static int set(dgm_plan_options *o, const char *name, const char *value, int code)
{
    struct {
        const char *name;
        int32_t *choice;
        int64_t *whole;
        double *number;
    } options[] = {
        {"process", &o->process, NULL, NULL},
        {"prediction", &o->prediction, NULL, NULL},
        {"solver", &o->solver, NULL, NULL},
        {"spacing", &o->spacing, NULL, NULL},
        {"steps", NULL, &o->steps, NULL},
        {"warmup", NULL, &o->warmup, NULL},
        {"corrector_steps", NULL, &o->corrector_steps, NULL},
        {"sigma_min", NULL, NULL, &o->sigma_min},
        {"sigma_max", NULL, NULL, &o->sigma_max},
        {"step_size", NULL, NULL, &o->step_size},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        if (strcmp(options[i].name, name) != 0)
            continue;
        if (options[i].choice)
            *options[i].choice = code;
        else if (options[i].whole)
            *options[i].whole = strtoll(value, NULL, 10);
        else
            *options[i].number = strtod(value, NULL);
        return 1;
    }
    return 0;
}

static dgm_plan *read_plan(FILE *f)
{
    dgm_plan_options options;
    dgm_plan *plan = NULL;
    size_t n;
    if (dgm_plan_options_init(&options, sizeof options) || !count(f, "plan", MOST, &n))
        return NULL;
    for (size_t i = 0; i < n; i++) {
        char name[32], value[64];
        int code;
        if (fscanf(f, "%31s %63s %d", name, value, &code) != 3 || !set(&options, name, value, code))
            return NULL;
    }
    return dgm_plan_compile(&options, &plan) ? NULL : plan;
}

static int draw(const dgm_plan *plan, const dgm_mixture *mixture, const uint64_t *seeds, size_t rows, FILE *to)
{
    size_t run_size, state_len;
    if (dgm_plan_run_size(plan, rows, &run_size) || dgm_plan_state_len(plan, rows, 2, &state_len))
        return 0;
    void *run = malloc(run_size);
    float *state = malloc(state_len * sizeof *state);
    const float *x = NULL;
    int done = run && state && dgm_run_start(plan, seeds, rows, 2, NULL, run, run_size, state, state_len) == DGM_OK &&
               dgm_mixture_sample(mixture, plan, run, run_size, state, state_len) == DGM_OK &&
               dgm_run_result(plan, run, run_size, state, state_len, &x) == DGM_OK &&
               fwrite(x, sizeof *x, 2 * rows, to) == 2 * rows;
    free(run);
    free(state);
    return done;
}

int main(int argc, char **argv)
{
    size_t rows, shapes, plans;
    unsigned long long seed;
    char word[32];
    dgm_mixture *mixtures[MOST];
    if (argc != 3) {
        fprintf(stderr, "usage: %s CASES POINTS\n", argv[0]);
        return 1;
    }
    FILE *cases = fopen(argv[1], "r"), *points = fopen(argv[2], "wb");
    if (!cases || !points)
        return fail("the files");
    if (!count(cases, "rows", 1 << 20, &rows) || fscanf(cases, "%31s %llu", word, &seed) != 2 ||
        !count(cases, "shapes", MOST, &shapes))
        return fail(argv[1]);
    uint64_t *seeds = malloc(rows * sizeof *seeds);
    if (!seeds || dgm_row_seeds(seed, rows, seeds))
        return fail("seeds");
    for (size_t s = 0; s < shapes; s++)
        if (!(mixtures[s] = read_mixture(cases)))
            return fail("shape");
    if (!count(cases, "plans", 1 << 20, &plans))
        return fail(argv[1]);
    for (size_t p = 0; p < plans; p++) {
        dgm_plan *plan = read_plan(cases);
        if (!plan)
            return fail("plan");
        for (size_t s = 0; s < shapes; s++)
            if (!draw(plan, mixtures[s], seeds, rows, points))
                return fail("sample");
        dgm_plan_free(plan);
    }
    for (size_t s = 0; s < shapes; s++)
        dgm_mixture_free(mixtures[s]);
    free(seeds);
    return fclose(cases) || fclose(points) ? fail(argv[2]) : 0;
}
