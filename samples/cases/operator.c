// One operator: signed becomes unsigned, and `<` becomes `<=`.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: fits half
//# kept: answer twice
//# before: 16 => 0 8 32
//# before: -2 => 1 -1 -4
//# after: 16 => 1 8 32
//# after: -2 => 1 2147483647 -4
#include "sample.h"

NOINLINE int fits(int n) {
#ifdef NEW
    return n <= 16;
#else
    return n < 16;
#endif
}

NOINLINE int half(int n) {
#ifdef NEW
    return (int)((unsigned)n >> 1);
#else
    return n >> 1;
#endif
}

NOINLINE int twice(int n) {
    return n * 2;
}

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d %d\n", fits(n), half(n), twice(n));
}
