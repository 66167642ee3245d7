/* Model files made wrong in every way: an error that says so, and no handle. */
#include "check.h"

#include <stdlib.h>

static char path[1024];

/* The status of loading these bytes from a file. */
static int32_t load(const void *bytes, size_t len)
{
    static char untouched;
    dgm_model *model = (dgm_model *)(void *)&untouched;
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(bytes, 1, len, f) != len || fclose(f) != 0) {
        fprintf(stderr, "%s cannot be written\n", path);
        exit(1);
    }
    int32_t status = dgm_model_load(path, &model);
    CHECK(status == DGM_OK ? model != NULL : model == NULL);
    CHECK(status == DGM_OK || strstr(dgm_last_error(), path) != NULL);
    if (status == DGM_OK)
        dgm_model_free(model);
    return status;
}

/* A file: the length of the header (or another number), the header, the bytes of the tensors. */
static int32_t load_file(uint64_t announced, const char *header, size_t header_len, const char *data, size_t data_len)
{
    char *all = (char *)malloc(8 + header_len + data_len);
    for (int i = 0; i < 8; i++)
        all[i] = (char)(announced >> (8 * i));
    memcpy(all + 8, header, header_len);
    memcpy(all + 8 + header_len, data, data_len);
    int32_t status = load(all, 8 + header_len + data_len);
    free(all);
    return status;
}

static void refuse(const char *header)
{
    int before = failed;
    static const char zeros[4] = {0};
    STATUS(DGM_ERROR_FORMAT, load_file(strlen(header), header, strlen(header), zeros, sizeof zeros));
    if (failed > before)
        fprintf(stderr, "  header %.200s\n", header);
}

static void headers(void)
{
#define TENSOR(name, dtype, shape, from, to) \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" from "," to "]}"
    static const char *const hostile[] = {
        "", "{", "{}", "[]", "null", "\xff\xfe", "{\"__metadata__\":{\"num_heads\":1}}",
        /* No DiT. */
        "{" TENSOR("x", "F32", "1", "0", "4") "}",
        /* Longer than the file; longer and shorter than the shape says. */
        "{" TENSOR("x", "F32", "100", "0", "400") "}",
        "{" TENSOR("x", "F32", "2", "0", "4") "}",
        "{" TENSOR("x", "F32", "", "0", "0") "}",
        /* Backwards, with a hole in front, negative, past 64 bits. */
        "{" TENSOR("x", "F32", "1", "4", "0") "}",
        "{" TENSOR("x", "F32", "0", "4", "4") "}",
        "{" TENSOR("x", "F32", "1", "-4", "0") "}",
        "{" TENSOR("x", "F32", "1", "18446744073709551616", "18446744073709551620") "}",
        "{" TENSOR("x", "F32", "1", "18446744073709551612", "18446744073709551615") "}",
        /* Sizes that overflow. */
        "{" TENSOR("x", "F32", "18446744073709551615,2", "0", "4") "}",
        "{" TENSOR("x", "F32", "4294967296,4294967296", "0", "4") "}",
        "{" TENSOR("x", "F32", "9223372036854775808,2,2", "0", "4") "}",
        "{" TENSOR("x", "F32", "-1", "0", "4") "}",
        "{" TENSOR("x", "F32", "1.5", "0", "4") "}",
        /* The same bytes twice, the same name twice, unknown types. */
        "{" TENSOR("x", "F32", "1", "0", "4") "," TENSOR("y", "F32", "1", "0", "4") "}",
        "{" TENSOR("x", "F32", "1", "0", "4") "," TENSOR("x", "F32", "1", "0", "4") "}",
        "{" TENSOR("x", "Q7", "1", "0", "4") "}",
        "{" TENSOR("x", "", "1", "0", "4") "}",
    };
    for (size_t i = 0; i < COUNT(hostile); i++)
        refuse(hostile[i]);
    static char deep[100001];
    memset(deep, '[', sizeof deep - 1);
    refuse(deep);
    static const uint64_t lengths[] = {3, 1000000, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
    for (size_t i = 0; i < COUNT(lengths); i++)
        STATUS(DGM_ERROR_FORMAT, load_file(lengths[i], "{}", 2, "", 0));
    STATUS(DGM_ERROR_FORMAT, load("", 0));
    STATUS(DGM_ERROR_FORMAT, load("\1\2\3", 3));
}

/* Tensors enough to make anything quadratic unbearable. */
static void a_million_tensors(void)
{
    enum { TENSORS = 1000000, EACH = 72 };
    char *header = (char *)malloc((size_t)TENSORS * EACH), *data = (char *)calloc(TENSORS, 4);
    size_t len = 0;
    for (int i = 0; i < TENSORS; i++)
        len += (size_t)snprintf(header + len, EACH, "%c\"t%d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                                i == 0 ? '{' : ',', i, 4 * i, 4 * i + 4);
    header[len++] = '}';
    FAILS(DGM_ERROR_FORMAT, "is missing", load_file(len, header, len, data, (size_t)TENSORS * 4));
    free(header);
    free(data);
}

/* A real file, cut, padded and with its type changed. */
static void changed_files(void)
{
    FILE *f = fopen("tests/golden/tiny_dit.safetensors", "rb");
    static char bytes[1 << 18];
    size_t len = f == NULL ? 0 : fread(bytes, 1, sizeof bytes - 1, f);
    CHECK(len > 1000 && len < sizeof bytes - 1);
    if (f == NULL)
        return;
    fclose(f);
    OK(load(bytes, len));
    STATUS(DGM_ERROR_FORMAT, load(bytes, len + 1));
    static const size_t cuts[] = {7, 8, 9, 100, 1000};
    for (size_t i = 0; i < COUNT(cuts); i++)
        STATUS(DGM_ERROR_FORMAT, load(bytes, cuts[i]));
    STATUS(DGM_ERROR_FORMAT, load(bytes, len - 1));
    static const char *const types[] = {"I32", "U32", "F3 "};
    for (size_t i = 0; i < COUNT(types); i++) {
        char *at = strstr(bytes + 8, "\"F32\"");
        CHECK(at != NULL);
        if (at == NULL)
            return;
        memcpy(at + 1, types[i], 3);
        STATUS(DGM_ERROR_FORMAT, load(bytes, len));
        memcpy(at + 1, "F32", 3);
    }
    OK(load(bytes, len));
}

int main(int argc, char **argv)
{
    (void)argc;
    snprintf(path, sizeof path, "%s.safetensors", argv[0]);
    headers();
    a_million_tensors();
    changed_files();
    remove(path);
    return finish("test_model_files");
}
