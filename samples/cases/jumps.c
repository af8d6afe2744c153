// setjmp in a kept function, longjmp out of a replaced one, over a frame of a kept one.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: fail
//# kept: between answer
//# before: 1 => caught 1
//# before: 0 => fine
//# after: 1 => caught 2
//# after: 0 => fine
#include "sample.h"
#include <setjmp.h>

static jmp_buf back;

NOINLINE void fail(int n) {
#ifdef NEW
    longjmp(back, n + 1);
#else
    longjmp(back, n);
#endif
}

NOINLINE void between(int n) {
    if (n)
        fail(n);
    puts("fine");
}

void answer(const char *question) {
    int n = setjmp(back);

    if (n)
        printf("caught %d\n", n);
    else
        between(atoi(question));
}
