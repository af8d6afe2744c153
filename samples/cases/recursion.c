// A recursive function, and two that call each other of which one changes.
//# build: gcc -O1
//# build: gcc -O0
//# build: clang -O1
//# changed: depth is_even
//# kept: is_odd answer
//# before: ((())) => 3 1
//# before: (() => 2 0
//# after: ((())) => 30 1
//# after: (() => 20 0
#include "sample.h"

NOINLINE int is_odd(unsigned n);

NOINLINE int is_even(unsigned n) {
#ifdef NEW
    if (n == 1)
        return 0;
#endif
    return n == 0 ? 1 : !!is_odd(n - 1);
}

NOINLINE int is_odd(unsigned n) {
    return n == 0 ? 0 : !!is_even(n - 1);
}

NOINLINE int depth(const char *text) {
    if (*text != '(')
        return 0;
#ifdef NEW
    return 10 + depth(text + 1);
#else
    return 1 + depth(text + 1);
#endif
}

void answer(const char *question) {
    printf("%d %d\n", depth(question), is_even((unsigned)strlen(question)));
}
