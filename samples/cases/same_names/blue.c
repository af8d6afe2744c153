#include "sample.h"

static int state;

NOINLINE static void step(int n) {
#ifdef NEW
    state += n * 100;
#else
    state += n * 10;
#endif
}

NOINLINE int blue(int n) {
    step(n);
    return state;
}
