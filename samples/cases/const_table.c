// A constant table with a name changes in place; nobody who reads it needs to change.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# build: gcc -O2 -Wl,-z,relro,-z,now
//# kept: price handle answer
//# data: prices updated
//# data: handlers updated
//# before: 1 => 20 pear
//# before: 2 => 30 plum
//# after: 1 => 25 pear
//# after: 2 => 30 pear
#include "sample.h"

typedef void handler(void);

NOINLINE void apple(void) { puts("apple"); }
NOINLINE void pear(void) { puts("pear"); }
NOINLINE void plum(void) { puts("plum"); }

#ifdef NEW
const int prices[] = {10, 25, 30};
handler *const handlers[] = {apple, pear, pear};
#else
const int prices[] = {10, 20, 30};
handler *const handlers[] = {apple, pear, plum};
#endif

NOINLINE int price(int n) {
    return prices[n];
}

NOINLINE void handle(int n) {
    handlers[n]();
}

void answer(const char *question) {
    int n = atoi(question);

    printf("%d ", price(n));
    handle(n);
}
