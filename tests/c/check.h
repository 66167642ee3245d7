/* A test is a row of checks; each prints only when it fails. */
#ifndef CHECK_H
#define CHECK_H

#include <dgm.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
#define ABI_ASSERT(condition, text) static_assert(condition, text)
#else
#define ABI_ASSERT(condition, text) _Static_assert(condition, text)
#endif

static int passed, failed;

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (condition) {                                                          \
            passed++;                                                             \
        } else {                                                                  \
            failed++;                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);       \
        }                                                                         \
    } while (0)

/* The call returns this status. */
#define STATUS(expected, call)                                                    \
    do {                                                                          \
        int32_t status_ = (call);                                                 \
        if (status_ == (expected)) {                                              \
            passed++;                                                             \
        } else {                                                                  \
            failed++;                                                             \
            fprintf(stderr, "%s:%d: %s is %d, expected %d: %s\n", __FILE__, __LINE__, #call, \
                    (int)status_, (int)(expected), dgm_last_error());             \
        }                                                                         \
    } while (0)

#define OK(call) STATUS(DGM_OK, call)

/* The call fails with this status and a text that contains these words. */
#define FAILS(expected, words, call)                                              \
    do {                                                                          \
        STATUS(expected, call);                                                   \
        if (strstr(dgm_last_error(), words)) {                                    \
            passed++;                                                             \
        } else {                                                                  \
            failed++;                                                             \
            fprintf(stderr, "%s:%d: \"%s\" does not contain \"%s\"\n", __FILE__, __LINE__, \
                    dgm_last_error(), words);                                     \
        }                                                                         \
    } while (0)

/* The two numbers differ by at most 1e-5 relative to the larger of them and 1. */
#define NEAR(a, b) CHECK(fabs((double)(a) - (double)(b)) <= 1e-5 * fmax(1.0, fabs((double)(b))))

/* A contiguous f32 tensor; the shape array must outlive it. */
static inline dgm_tensor f32_tensor(const float *data, int32_t ndim, int64_t *shape)
{
    dgm_tensor t;
    memset(&t, 0, sizeof t);
    t.data = (void *)data;
    t.device_type = DGM_DEVICE_CPU;
    t.ndim = ndim;
    t.dtype_code = DGM_DTYPE_FLOAT;
    t.dtype_bits = 32;
    t.dtype_lanes = 1;
    t.shape = shape;
    return t;
}

/* An empty answer for dgm_run_ask() to fill. */
static inline dgm_request new_request(void)
{
    dgm_request r;
    memset(&r, 0, sizeof r);
    r.struct_size = sizeof r;
    return r;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline int finish(const char *name)
{
    printf("%s: %d passed, %d failed\n", name, passed, failed);
    return failed != 0;
}

#endif
