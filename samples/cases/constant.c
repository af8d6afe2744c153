// An immediate operand. The second function holds the same number and must stay.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: limit
//# kept: other answer
//# before: 70 => 64 70
//# after: 70 => 70 70
#include "sample.h"

#ifdef NEW
#define LIMIT 128
#else
#define LIMIT 64
#endif

NOINLINE int limit(int n) {
    return n > LIMIT ? LIMIT : n;
}

NOINLINE int other(int n) {
    return n < 64 ? 64 : n;
}

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d\n", limit(n), other(n));
}
