// Two functions differ by their own line number alone and are kept. A third differs by a number that
// is near its line, but not it.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# line-only: check warn
//# changed: limit
//# kept: check warn answer
//# before: 0 => 122 failed at 115
//# after: 0 => 224 failed at 115
#include "sample.h"

NOINLINE void report(int line) {
    printf("failed at %d\n", line);
}

#ifdef NEW
#line 210
#else
#line 110
#endif
/* a long comment that NEW has in front of these functions */

NOINLINE void check(int n) {
    if (n == 0)
        report(__LINE__);
}

NOINLINE void warn(int n) { if (n == 1) report(__LINE__); }

NOINLINE int limit(int n) {
#ifdef NEW
    return 224 + n;
#else
    return 122 + n;
#endif
}

void answer(const char *question) {
    int n = atoi(question);

    printf("%d ", limit(n));
    check(n);
    warn(n);
}
