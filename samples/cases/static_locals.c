// Static locals keep their values, also where two functions have them under one name; a new one has
// NEW's initial value.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: calls
//# data[gcc]: weight.1 added
//# data[clang]: calls.weight added
//# kept: misses answer
//# before: a => calls 1 misses 101
//# before: b => calls 2 misses 102
//# after: c => calls 3 weight 7 misses 103
//# after: d => calls 4 weight 14 misses 104
#include "sample.h"

NOINLINE void calls(void) {
#ifdef NEW
    static int weight = 0;
#endif
    static int n;

    n++;
#ifdef NEW
    weight += 7;
    printf("calls %d weight %d ", n, weight);
#else
    printf("calls %d ", n);
#endif
}

NOINLINE void misses(void) {
    static int n = 100;

    n++;
    printf("misses %d\n", n);
}

void answer(const char *question) {
    (void)question;
    calls();
    misses();
}
