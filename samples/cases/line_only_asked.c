// The same, when the user wants line numbers to be followed.
//# build: gcc -O2
//# build: clang -O2
//# build-args: --line-numbers
//# changed: check
//# kept: report answer
//# before: 0 => failed at 105
//# after: 0 => failed at 207
#include "sample.h"

NOINLINE void report(int line) {
    printf("failed at %d\n", line);
}

#ifdef NEW
#line 202
#else
#line 102
#endif
NOINLINE void check(int n) {
    if (n == 0)
        report(__LINE__);
}

void answer(const char *question) {
    check(atoi(question));
}
