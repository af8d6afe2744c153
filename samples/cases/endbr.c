// Entries that begin with endbr64, which must stay where it is: calls through pointers land there.
//# build: gcc -O2 -fcf-protection=full
//# build: gcc -O0 -fcf-protection=full
//# build: clang -O2 -fcf-protection=full
//# changed: visit
//# kept: apply leave answer
//# before: 4 => 5 3
//# after: 4 => 6 3
#include "sample.h"

typedef int operation(int);

NOINLINE int visit(int n) {
#ifdef NEW
    return n + 2;
#else
    return n + 1;
#endif
}

NOINLINE int leave(int n) {
    return n - 1;
}

operation *operations[] = {visit, leave};

NOINLINE int apply(int which, int n) {
    return operations[which](n);
}

void answer(const char *question) {
    int n = atoi(question);

    printf("%d ", apply(0, n));
    printf("%d\n", apply(1, n));
}
