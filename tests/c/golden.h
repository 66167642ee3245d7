/* Reads tests/golden: an index of names and shapes, and the tensors one after another. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include "check.h"

#include <stdlib.h>

typedef struct golden {
    void *data; /* f32, f64, i64 or u64 */
    int32_t ndim;
    int64_t shape[8];
    size_t len;
} golden;

static char golden_index[16384], *golden_data;

static void golden_fail(const char *what)
{
    fprintf(stderr, "golden: %s\n", what);
    exit(1);
}

static void golden_open_files(const char *index, const char *data)
{
    FILE *f = fopen(index, "rb");
    if (f == NULL) {
        golden_fail("the index cannot be read; run from the root of the repository");
        return;
    }
    golden_index[fread(golden_index, 1, sizeof golden_index - 1, f)] = '\0';
    fclose(f);
    f = fopen(data, "rb");
    if (f == NULL || fseek(f, 0, SEEK_END) != 0)
        golden_fail("the tensors cannot be read");
    size_t size = (size_t)ftell(f);
    rewind(f);
    golden_data = (char *)malloc(size);
    if (golden_data == NULL || fread(golden_data, 1, size, f) != size)
        golden_fail("the tensors cannot be read");
    fclose(f);
}

static inline void golden_open(void)
{
    golden_open_files("tests/golden/golden.txt", "tests/golden/golden.bin");
}

/* The tensor of this name; the program ends when there is none. */
static golden golden_get(const char *name)
{
    char line[128];
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(golden_index, line);
    golden g;
    memset(&g, 0, sizeof g);
    char dtype[8], dims[64];
    long long offset = 0;
    if (at == NULL || sscanf(at + strlen(line), "%7s %63s %lld", dtype, dims, &offset) != 3)
        golden_fail(name);
    g.data = golden_data + offset;
    g.len = 1;
    for (char *p = dims; *p && g.ndim < 8; g.ndim++) {
        g.shape[g.ndim] = strtoll(p, &p, 10);
        g.len *= (size_t)g.shape[g.ndim];
        p += *p == 'x';
    }
    return g;
}

static inline dgm_tensor golden_tensor(golden *g)
{
    return f32_tensor((float *)g->data, g->ndim, g->shape);
}

/* `got` is as `want` up to `tolerance`, relative to the larger of the expected value and 1. */
static inline int golden_close(const float *got, const golden *want, double tolerance)
{
    const float *w = (const float *)want->data;
    for (size_t i = 0; i < want->len; i++) {
        double a = (double)got[i], b = (double)w[i];
        if (a != b && !(fabs(a - b) <= tolerance * fmax(1.0, fabs(b)))) {
            fprintf(stderr, "element %zu is %.9g, expected %.9g\n", i, a, b);
            return 0;
        }
    }
    return 1;
}

#endif
