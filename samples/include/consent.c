/* Linked into every sample: lets a sibling process trace it where the kernel (Yama) asks for consent,
   so that the tests run as an ordinary user. */
#include <sys/prctl.h>

#ifndef PR_SET_PTRACER
#define PR_SET_PTRACER 0x59616d61
#endif

__attribute__((constructor)) static void consent(void) {
    prctl(PR_SET_PTRACER, -1L, 0, 0, 0);
}
