/* How much memory is allocated: preloaded, it counts what malloc and its kin hand out (not mmap, which
 * takes thread stacks and the arenas of Python). glibc only. heap_reset() forgets the peak, heap_peak() is the most above that moment. */

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static atomic_long live, peak, base;

static void *grown(void *p, size_t bytes) {
    if (p) {
        long now = atomic_fetch_add(&live, (long)bytes) + (long)bytes, most = atomic_load(&peak);
        while (now > most && !atomic_compare_exchange_weak(&peak, &most, now)) {
        }
    }
    return p;
}

static void shrunk(size_t bytes) { atomic_fetch_sub(&live, (long)bytes); }

static void *counted(void *p) { return grown(p, p ? malloc_usable_size(p) : 0); }

void *malloc(size_t n) { return counted(__libc_malloc(n)); }
void *calloc(size_t n, size_t size) { return counted(__libc_calloc(n, size)); }
void *memalign(size_t align, size_t n) { return counted(__libc_memalign(align, n)); }
void *aligned_alloc(size_t align, size_t n) { return counted(__libc_memalign(align, n)); }

int posix_memalign(void **out, size_t align, size_t n) {
    void *p = __libc_memalign(align, n);
    if (!p) return ENOMEM;
    *out = counted(p);
    return 0;
}

void *realloc(void *p, size_t n) {
    size_t before = p ? malloc_usable_size(p) : 0;
    void *q = __libc_realloc(p, n);
    if (q || n == 0) shrunk(before);
    return counted(q);
}

void free(void *p) {
    if (p) shrunk(malloc_usable_size(p));
    __libc_free(p);
}

void heap_reset(void) {
    atomic_store(&base, atomic_load(&live));
    atomic_store(&peak, atomic_load(&live));
}

long heap_peak(void) { return atomic_load(&peak) - atomic_load(&base); }
