/* Versions, status texts, threads. */
#include "check.h"

#include <stdlib.h>

static void versions(void)
{
    CHECK(dgm_abi_version() == DGM_ABI_VERSION);
    CHECK(dgm_numerics_version() >= 1);
    CHECK(strchr(dgm_version(), '.') != NULL);
    CHECK(strlen(dgm_isa()) > 3);
}

static void texts(void)
{
    CHECK(strcmp(dgm_status_string(DGM_OK), "ok") == 0);
    CHECK(strcmp(dgm_status_string(DGM_ERROR_SHAPE), "wrong shape") == 0);
    CHECK(strcmp(dgm_status_string(12345), "unknown status") == 0);
    CHECK(dgm_last_error()[0] == '\0');

    size_t needed = 0;
    OK(dgm_cpu_info(NULL, 0, &needed));
    CHECK(needed > 20);
    char *buf = (char *)malloc(needed);
    buf[0] = '#';
    FAILS(DGM_ERROR_RANGE, "cap", dgm_cpu_info(buf, needed - 1, NULL));
    CHECK(buf[0] == '#');
    FAILS(DGM_ERROR_NULL, "buf", dgm_cpu_info(NULL, 5, NULL));
    OK(dgm_cpu_info(buf, needed, NULL));
    CHECK(strlen(buf) + 1 == needed);
    CHECK(strstr(buf, dgm_isa()) != NULL);
    free(buf);
}

static void threads(void)
{
    OK(dgm_set_num_threads(3));
    CHECK(dgm_num_threads() == 3);
    FAILS(DGM_ERROR_RANGE, "threads is 0", dgm_set_num_threads(0));
    FAILS(DGM_ERROR_RANGE, "threads is -1", dgm_set_num_threads(-1));
    FAILS(DGM_ERROR_RANGE, "threads is 100000", dgm_set_num_threads(100000));
    CHECK(dgm_num_threads() == 3);
    OK(dgm_set_num_threads(2));
}

int main(void)
{
    versions();
    texts();
    threads();
    return finish("test_basic");
}
