// Both ends of a table are handed to another function; the compiler makes the beginning of the end, so
// that the end is all that the code has of the table.
//# build: gcc -O2
//# build: gcc -O1
//# build: gcc -Os
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# changed: range
//# data: before_it added
//# kept: sum answer
//# before: 1 => 306
//# after: 1 => 309
#include "sample.h"

#ifdef NEW
const unsigned before_it[3] = {1, 1, 1};
#endif
const unsigned keys[10] = {3, 17, 40, 65, 1, 10, 5, 7, 2, 3};

NOINLINE unsigned sum(const unsigned *from, const unsigned *to) {
    unsigned sum = 0;

    for (; from != to; from++)
        sum += *from;
    return sum;
}

NOINLINE unsigned range(void) {
#ifdef NEW
    return 2 * sum(keys, keys + 10) + sum(before_it, before_it + 3);
#else
    return 2 * sum(keys, keys + 10);
#endif
}

void answer(const char *question) {
    printf("%u\n", range());
    (void)question;
}
