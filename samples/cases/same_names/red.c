#include "sample.h"

static int state;

NOINLINE static void step(int n) {
    state += n;
}

NOINLINE int red(int n) {
    step(n);
    return state;
}
