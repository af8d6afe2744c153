// The end of a table, where something else begins, as the bound of a loop in a function with a
// switch: both ends of the table must lead to the same copy of it.
//# build: gcc -O2
//# build: gcc -O1
//# build: gcc -Os
//# build: gcc -O3
//# build: clang -O2
//# build: clang -O1
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# changed: total backwards kind
//# kept: weigh answer
//# before: 3 => 153 13 7
//# after: 3 => 154 14 8
#include "sample.h"

#define COUNT 10
static const unsigned keys[COUNT] = {3, 17, 40, 65, 1, 10, 5, 7, 2, 3};

NOINLINE unsigned weigh(unsigned key) {
    return key;
}

NOINLINE unsigned total(unsigned n) {
    unsigned sum = VERSION - 1;

    for (unsigned i = 0; i < COUNT; i++)
        sum += weigh(keys[i]);
    switch (n) {
    case 0: return sum + weigh(1);
    case 1: return sum * 3 + weigh(2);
    case 2: return sum + weigh(77);
    case 3: return sum;
    case 4: return sum - weigh(9);
    case 5: return sum ^ weigh(1);
    default: return 0;
    }
}

NOINLINE unsigned backwards(unsigned limit) {
    unsigned found = VERSION - 1;

    for (const unsigned *p = keys + COUNT; p > keys && limit; limit--)
        found += weigh(*--p) + weigh(0);
    return found + 1;
}

NOINLINE unsigned kind(unsigned n) {
    return keys[COUNT - n] + VERSION - 1;
}

void answer(const char *question) {
    unsigned n = (unsigned)atoi(question);

    printf("%u %u %u\n", total(n), backwards(n), kind(n));
}
