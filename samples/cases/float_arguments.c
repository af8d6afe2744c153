// Arguments and results in vector registers and on the stack pass a redirect unharmed.
//# build: gcc -O2
//# build: gcc -O0
//# build: gcc -O3 -mavx2
//# build: clang -O2
//# changed: mix
//# kept: answer
//# before: 2 => 87.0 3.5
//# after: 2 => 88.0 3.5
#include "sample.h"

struct pair {
    double a, b;
};

NOINLINE struct pair mix(int i, double a, float b, long j, double c, double d, double e, double f, double g,
                         double h, double on_stack, long k, long l, long m, long n, long also_on_stack) {
    struct pair p = {a + b + c + d + e + f + g + h + on_stack, (double)(i + j + k + l + m + n + also_on_stack)};

#ifdef NEW
    p.a += 1;
#endif
    p.b /= 8;
    return p;
}

void answer(const char *question) {
    double x = atof(question);
    struct pair p = mix(1, x, 3, 2, 4, 5, 6, 7, 8, 9, 43, 3, 4, 5, 6, 7);

    printf("%.1f %.1f\n", p.a, p.b);
}
