// Tail calls: into a replaced function, out of one, and a conditional jump to another function.
//# build: gcc -O2
//# build: gcc -O3
//# build: clang -O2
//# changed: middle
//# kept: first last answer
//# before: 3 => 302
//# before: 0 => 1
//# after: 3 => 308
//# after: 0 => 1
#include "sample.h"

NOINLINE int last(int n) {
    return n * 100 + 2;
}

NOINLINE int middle(int n, int m) {
#ifdef NEW
    if (n > 2)
        return last(n) + 6;
#endif
    return m ? last(n) : 1;
}

NOINLINE int first(int n) {
    return middle(n, n != 0);
}

void answer(const char *question) {
    printf("%d\n", first(atoi(question)));
}
