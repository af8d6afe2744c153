// A constant table grows: NEW's takes its place, and whoever reads it is replaced.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# changed: price count
//# data: prices moved
//# kept: tax answer
//# before: 1 => 20 of 3 tax 7
//# after: 1 => 20 of 4 tax 7
//# before: 2 => 30 of 3 tax 9
//# after: 2 => 35 of 4 tax 9
#include "sample.h"


#ifdef NEW
const int prices[] = {10, 20, 35, 40};
#else
const int prices[] = {10, 20, 30};
#endif
const int taxes[] = {5, 7, 9};

NOINLINE int price(int n) {
    return prices[n];
}

NOINLINE int count(void) {
    int n = 0;

    for (const int *p = prices; p < prices + sizeof prices / sizeof prices[0]; p++)
        n += *p > 0;
    return n;
}

NOINLINE int tax(int n) {
    return taxes[n];
}

void answer(const char *question) {
    int n = atoi(question);

    printf("%d of %d tax %d\n", price(n), count(), tax(n));
}
