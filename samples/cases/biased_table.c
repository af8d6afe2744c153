// A table that is indexed by a character: the compiler takes its address less 48, which is inside of
// whatever lies before it. The changed function must find the table all the same.
//# build: gcc -O2
//# build: gcc -O1
//# build: clang -O2
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# changed: day
//# kept: answer
//# before: 29 => 29
//# before: 07 => 7
//# after: 29 => 129
//# after: 07 => 107
#include "sample.h"

static const signed char tens[] = {0, 10, 20, 30, 40, 50, 60, 70, 80, 90};

NOINLINE int day(const char *s) {
#ifdef NEW
    return tens[s[0] - '0'] + (s[1] - '0') + 100;
#else
    return tens[s[0] - '0'] + (s[1] - '0');
#endif
}

void answer(const char *question) {
    printf("%d\n", day(question));
}
