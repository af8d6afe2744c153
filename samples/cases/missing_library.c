// NEW needs a library that the process has not loaded: refused by apply, with the function's name, and
// nothing has happened.
//# build: gcc -O2 -Wl,--as-needed
//# build: clang -O2 -Wl,--as-needed
//# changed: root
//# kept: answer
//# apply: 16
//# says: cbrt
//# before: 27 => 27
//# after: 27 => 27
#include "sample.h"
#include <math.h>

NOINLINE double root(double x) {
#ifdef NEW
    return cbrt(x);
#else
    return x - 0.25;
#endif
}

void answer(const char *question) {
    printf("%.0f\n", root(atof(question)));
}
