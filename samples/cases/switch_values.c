// A switch that the compiler makes into a table of values: one of them changes, in a nameless table.
//# build: gcc -O2
//# build: clang -O2
//# changed: price
//# kept: weight answer
//# before: 2 => 30 7
//# after: 2 => 33 7
#include "sample.h"

NOINLINE int price(int size) {
    switch (size) {
    case 0: return 11;
    case 1: return 17;
#ifdef NEW
    case 2: return 33;
#else
    case 2: return 30;
#endif
    case 3: return 71;
    case 4: return 101;
    case 5: return 99;
    default: return -1;
    }
}

NOINLINE int weight(int size) {
    switch (size) {
    case 0: return 1;
    case 1: return 9;
    case 2: return 7;
    case 3: return 8;
    case 4: return 400;
    case 5: return 5;
    default: return -1;
    }
}

void answer(const char *question) {
    printf("%d %d\n", price(atoi(question)), weight(atoi(question)));
}
