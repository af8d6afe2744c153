/* Deep and mutual recursion. */
#include "torture.h"

static NOINLINE uint64_t deep(unsigned left, uint64_t carried, unsigned *turns) {
    uint64_t mine = carried * 31 + left;
    if (left == 0) {
        say("bottom", mine);
        version();
        return mine;
    }
    ++*turns;
    ADDED(added_counter++;)
    uint64_t below = deep(left - 1, mine ^ (mine >> 7), turns);
    return mix(below, mine) + *turns;
}

static NOINLINE unsigned even(unsigned n, unsigned seed);

static NOINLINE unsigned odd(unsigned n, unsigned seed) {
    if (n == 0)
        return seed + 1;
    unsigned result = even(n - 1, seed * 5 + 1);
    ADDED(if (result == 0xffffffff) added_counter++;)
    return result ^ n;
}

static NOINLINE unsigned even(unsigned n, unsigned seed) {
    if (n == 0)
        return seed;
    return odd(n - 1, seed + EITHER(n, 2 * n - n)) * 3 + seed;
}

static NOINLINE unsigned ackermann(unsigned m, unsigned n) {
    if (m == 0)
        return n + 1;
    if (n == 0)
        return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

int main(void) {
    begin();
    unsigned turns = 0;
    for (unsigned round = 1; round <= 3; round++) {
        say("deep", deep(20 * round, round, &turns));
        say("even", even(30 + round, round));
    }
    say("ackermann", ackermann(2, 5));
    say("turns", turns);
    version();
    END();
}
