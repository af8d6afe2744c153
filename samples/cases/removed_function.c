// NEW no longer has a function that OLD called.
//# build: gcc -O2
//# build: clang -O2
//# changed: price
//# removed: discount
//# kept: answer
//# before: 10 => 9
//# after: 10 => 10
#include "sample.h"

#ifndef NEW
NOINLINE int discount(int price) {
    return price - price / 10;
}
#endif

NOINLINE int price(int base) {
#ifdef NEW
    return base + (base < 0);
#else
    return discount(base);
#endif
}

void answer(const char *question) {
    printf("%d\n", price(atoi(question)));
}
