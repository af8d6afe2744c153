// A function in two parts. In `strict` only the cold part differs, in `loose` only the hot one.
//# build: gcc -O2
//# build: gcc -O2 -ffunction-sections
//# changed: strict loose
//# kept: steady answer
//# before: 5 => 6 10 15
//# before: -5 => bad -5 wrong -5 odd -5 0 0 0
//# after: 5 => 6 11 15
//# after: -5 => refused -5 wrong -5 odd -5 0 0 0
#include "sample.h"

__attribute__((cold)) NOINLINE void complain(const char *what, int n) {
    printf("%s %d ", what, n);
}

NOINLINE int strict(int n) {
    if (__builtin_expect(n < 0, 0)) {
#ifdef NEW
        complain("refused", n);
#else
        complain("bad", n);
#endif
        return 0;
    }
    return n + 1;
}

NOINLINE int loose(int n) {
    if (__builtin_expect(n < 0, 0)) {
        complain("wrong", n);
        return 0;
    }
#ifdef NEW
    return n * 2 + 1;
#else
    return n * 2;
#endif
}

NOINLINE int steady(int n) {
    if (__builtin_expect(n < 0, 0)) {
        complain("odd", n);
        return 0;
    }
    return n * 3;
}

void answer(const char *question) {
    int n = atoi(question);
    int a = strict(n), b = loose(n), c = steady(n);

    printf("%d %d %d\n", a, b, c);
}
