/*
 * kernels.c - which implementation of the kernels this CPU runs, and what they can be given.
 *
 * __builtin_cpu_supports looks at CPUID and at XCR0: a CPU with AVX-512 under a kernel that does not save its registers
 * counts as one without. AVX-512 here means what servers have had since Cascade Lake and Zen 4; older ones run AVX2.
 */
#include "engine/kernels.h"

#include <math.h>
#include <stdlib.h>

/* From best to last resort. */
static const struct mn_kernels *const all[] = {
#if defined(__x86_64__)
    &mn_kernels_avx512,
    &mn_kernels_avx2,
#endif
    &mn_kernels_portable,
};

static bool supported(const struct mn_kernels *kernels)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (kernels == &mn_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
    if (kernels == &mn_kernels_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return kernels == &mn_kernels_portable;
}

const struct mn_kernels *mn_kernels_named(const char *name)
{
    for (size_t i = 0; i < MN_ARRAY_LEN(all); i++) {
        if (strcmp(all[i]->name, name) == 0)
            return supported(all[i]) ? all[i] : NULL;
    }
    return NULL;
}

static const struct mn_kernels *choose(void)
{
    const char *forced = getenv("MNEME_KERNELS");
    const struct mn_kernels *kernels = forced ? mn_kernels_named(forced) : NULL;
    for (size_t i = 0; !kernels && i < MN_ARRAY_LEN(all); i++) {
        if (supported(all[i]))
            kernels = all[i];
    }
    return kernels ? kernels : &mn_kernels_portable;
}

const struct mn_kernels *mn_kernels_best(void)
{
    /* Threads that race here choose the same. */
    static _Atomic(const struct mn_kernels *) best;
    const struct mn_kernels *kernels = atomic_load_explicit(&best, memory_order_relaxed);
    if (!kernels) {
        kernels = choose();
        atomic_store_explicit(&best, kernels, memory_order_relaxed);
    }
    return kernels;
}

enum mn_status mn_kernel_check_norm(enum mn_metric metric, double norm2)
{
    return norm2 <= MN_KERNEL_NORM2_MAX
               ? MN_OK
               : MN_FAIL(MN_BAD_VALUE,
                         "the embedding's norm is %g; %g is the most under %s, so that no score is beyond a float",
                         sqrt(norm2), sqrt(MN_KERNEL_NORM2_MAX), mn_metric_word(metric));
}
