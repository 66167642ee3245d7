/* Draws handwritten digits: a trained diffusion transformer sampled by ask and tell.
 *
 *   cargo build --release -p dgm-capi
 *   sh capi/cc.sh capi/examples/digits.c target/digits && target/digits --n 10 --out digits.f32
 *
 *   --model PATH --seed N --steps N --n N --labels 0,1,2 --out FILE
 */
#include <dgm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Every call returns a status; the library says what was wrong with which argument. */
static void check(int32_t status)
{
    if (status != DGM_OK) {
        fprintf(stderr, "%s: %s\n", dgm_status_string(status), dgm_last_error());
        exit(1);
    }
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    return memory;
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return otherwise;
}

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* A view of memory as [n, c, h, w]; `shape` must live as long as the view. */
static dgm_tensor tensor(float *data, int64_t *shape)
{
    dgm_tensor t = {0};
    t.data = data;
    t.device_type = DGM_DEVICE_CPU;
    t.ndim = 4;
    t.dtype_code = DGM_DTYPE_FLOAT;
    t.dtype_bits = 32;
    t.dtype_lanes = 1;
    t.shape = shape;
    return t;
}

int main(int argc, char **argv)
{
    const char *steps = option(argc, argv, "--steps", NULL);
    const char *list = option(argc, argv, "--labels", NULL);
    const char *file = option(argc, argv, "--out", NULL);
    size_t n = strtoull(option(argc, argv, "--n", "64"), NULL, 10);
    uint64_t seed = strtoull(option(argc, argv, "--seed", "351"), NULL, 10);

    dgm_model *model;
    dgm_model_info info = {.struct_size = sizeof info};
    check(dgm_model_load(option(argc, argv, "--model", "models/digits.safetensors"), &model));
    check(dgm_model_get_info(model, &info));

    /* The weights file says how the network wants to be sampled; a plan is that, compiled. */
    dgm_plan *plan;
    dgm_plan_options options;
    check(dgm_plan_options_init(&options, sizeof options));
    check(dgm_model_plan_options(model, &options));
    if (steps != NULL)
        options.steps = strtoll(steps, NULL, 10);
    check(dgm_plan_compile(&options, &plan));

    /* All memory is ours: the run, its state, the network's workspace and output. */
    size_t elements = (size_t)(info.channels * info.height * info.width);
    size_t run_size, state_len, workspace_len;
    check(dgm_plan_run_size(plan, n, &run_size));
    check(dgm_plan_state_len(plan, n, elements, &state_len));
    check(dgm_model_workspace_len(model, n, &workspace_len));
    void *run = allocate(run_size, 1);
    float *state = allocate(state_len, sizeof *state);
    float *workspace = allocate(workspace_len, sizeof *workspace);
    float *y = allocate(n * elements, sizeof *y);
    float *t = allocate(n, sizeof *t);

    /* One seed a row: an image never depends on the other images of its batch. */
    uint64_t *seeds = allocate(n, sizeof *seeds);
    check(dgm_row_seeds(seed, n, seeds));
    int64_t *labels = allocate(n, sizeof *labels), *null = allocate(n, sizeof *null);
    const char *next = list;
    for (size_t r = 0; r < n; r++) {
        char *end = NULL;
        labels[r] = list == NULL ? (int64_t)(r % 10) : strtoll(next, &end, 10);
        if (list != NULL)
            next = *end == ',' ? end + 1 : list; /* a short list is repeated */
        null[r] = info.num_classes;
    }

    double start = now();
    int64_t shape[] = {(int64_t)n, info.channels, info.height, info.width};
    check(dgm_run_start(plan, seeds, n, elements, NULL, run, run_size, state, state_len));
    for (;;) {
        /* The plan asks for the network's output, we tell it, until nothing is left to ask. */
        dgm_request request = {.struct_size = sizeof request};
        check(dgm_run_ask(plan, run, run_size, &request));
        if (request.done)
            break;
        float *x;
        check(dgm_run_times(plan, run, run_size, t, n));
        check(dgm_run_input(plan, run, run_size, state, state_len, &x));
        /* Classifier-free guidance asks twice a step: with the class and without. */
        const int64_t *classes = request.role == DGM_ROLE_UNCOND ? null : labels;
        dgm_tensor in = tensor(x, shape), out = tensor(y, shape);
        check(dgm_model_forward(model, &in, t, classes, workspace, workspace_len, &out));
        check(dgm_run_tell(plan, run, run_size, state, state_len, request.eval_id, y, n * elements));
    }
    printf("c  images=%zu steps=%lld seconds=%.3f\n", n, (long long)options.steps, now() - start);

    if (file != NULL) {
        const float *images;
        check(dgm_run_result(plan, run, run_size, state, state_len, &images));
        FILE *stream = fopen(file, "wb");
        if (stream == NULL || fwrite(images, sizeof *images, n * elements, stream) != n * elements ||
            fclose(stream) != 0) {
            perror(file);
            return 1;
        }
    }

    free(null);
    free(labels);
    free(seeds);
    free(t);
    free(y);
    free(workspace);
    free(state);
    free(run);
    dgm_plan_free(plan);
    dgm_model_free(model);
    return 0;
}
