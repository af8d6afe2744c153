/* Tree recursion: values wait in frames while other branches run. */
#include "torture.h"

static NOINLINE uint64_t fibonacci(unsigned n) {
    ADDED(added_counter++;)
    if (n < 2)
        return n;
    return fibonacci(n - 1) + fibonacci(n - 2);
}

static NOINLINE void hanoi(unsigned n, unsigned from, unsigned to, unsigned over, uint64_t *log) {
    if (n == 0)
        return;
    hanoi(n - 1, from, over, to, log);
    *log = mix(*log, from * 16 + to * 4 + n);
    ADDED(if (from == to) _exit(9);)
    hanoi(n - 1, over, to, from, log);
}

/* Sums over all ways to pay an amount, with an array of the path in each frame's caller. */
static NOINLINE uint64_t change(const int *coins, int kinds, int amount, int *path, int depth) {
    if (amount == 0) {
        uint64_t sum = 0;
        for (int i = 0; i < depth; i++)
            sum = sum * 3 + (uint64_t)path[i];
        return sum;
    }
    uint64_t sum = 0;
    for (int i = 0; i < kinds; i++) {
        if (coins[i] > amount)
            continue;
        path[depth] = coins[i];
        uint64_t part = change(coins + i, kinds - i, amount - coins[i], path, depth + 1);
        sum += part * (uint64_t)(i + 1);
    }
    return sum;
}

int main(void) {
    begin();
    static const int coins[] = {11, 7, 3, 2};
    uint64_t log = 0;
    int path[32];
    say("fibonacci", fibonacci(11));
    version();
    hanoi(6, 1, 2, 3, &log);
    say("hanoi", log);
    version();
    say("change", change(coins, 4, 21, path, 0));
    version();
    END();
}
