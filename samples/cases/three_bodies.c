// The same function in three versions, one after the other.
//# build: gcc -O2
//# ladder: 1 2 3
//# changed: price
//# changed 2: price
//# kept: answer
//# before: 5 => 5
//# after: 5 => 10
//# after 2: 5 => 15
#include "sample.h"

NOINLINE int price(int n) {
    return n * VERSION;
}

void answer(const char *question) {
    printf("%d\n", price(atoi(question)));
}
