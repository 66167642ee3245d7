/* Panics do not cross the interface: in a child process, a library built with the feature
 * test-panic panics on purpose; the caller gets a status and goes on.
 *
 *   fence LIBRARY */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int32_t panic_fn(int32_t kind);
typedef const char *text_fn(void);
typedef int32_t seeds_fn(uint64_t seed, size_t rows, uint64_t *out);

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (found == NULL)
        fprintf(stderr, "fence: no %s\n", name);
    return found;
}

/* The child: 0 when the panic became an error and the library still works. */
static int child(const char *path, int32_t kind, const char *words)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    panic_fn *panics;
    text_fn *last_error;
    seeds_fn *row_seeds;
    if (library == NULL) {
        fprintf(stderr, "fence: %s\n", dlerror());
        return 2;
    }
    /* ISO C has no cast between object and function pointers. */
    void *found[] = {symbol(library, "dgm_test_panic"), symbol(library, "dgm_last_error"), symbol(library, "dgm_row_seeds")};
    if (!found[0] || !found[1] || !found[2])
        return 2;
    memcpy(&panics, &found[0], sizeof panics);
    memcpy(&last_error, &found[1], sizeof last_error);
    memcpy(&row_seeds, &found[2], sizeof row_seeds);
    if (freopen("/dev/null", "w", stderr) == NULL) /* Rust reports each panic there */
        return 2;
    for (int round = 0; round < 3; round++) {
        uint64_t seeds[2] = {0, 0};
        if (panics(kind) != -900 || strstr(last_error(), words) == NULL)
            return 3;
        if (row_seeds(1, 2, seeds) != 0 || seeds[0] == seeds[1])
            return 4;
    }
    return panics(99) == -101 ? 0 : 5;
}

int main(int argc, char **argv)
{
    static const char *const words[] = {"on purpose", "index out of bounds", "an element", "panic", "the thread to return", "divide by zero"};
    int passed = 0, failed = 0;
    for (int32_t kind = 0; argc == 2 && kind < 6; kind++) {
        int status = 0;
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0)
            _exit(child(argv[1], kind, words[kind]));
        if (pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            passed++;
        } else {
            failed++;
            fprintf(stderr, "fence: panic %d ends the child with %#x\n", (int)kind, (unsigned)status);
        }
    }
    printf("fence: %d passed, %d failed\n", passed, failed);
    return failed != 0 || passed == 0;
}
