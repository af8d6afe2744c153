/* Locals with alignment beyond the stack's: frames that are realigned. */
#include "torture.h"

struct line {
    _Alignas(64) uint32_t words[16];
};

static NOINLINE void fill(struct line *line, uint32_t seed) {
    if ((uintptr_t)line % 64)
        _exit(6);
    for (unsigned i = 0; i < 16; i++)
        line->words[i] = seed = seed * 1664525 + 1013904223;
    ADDED(added_counter++;)
}

static NOINLINE uint64_t blend(unsigned n, uint32_t seed) {
    struct line a, b;
    uint64_t sum = n;
    for (unsigned i = 0; i < n; i++) {
        fill(&a, seed + i);
        fill(&b, seed ^ i);
        for (unsigned j = 0; j < 16; j++)
            sum += (uint64_t)(a.words[j] ^ b.words[15 - j]) << (j & 7);
        ADDED(if (i > n) _exit(9);)
    }
    return sum;
}

/* Realigned, and with a part that grows. */
static NOINLINE uint64_t both(unsigned n) {
    _Alignas(32) uint64_t fixed[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    uint64_t moving[n];
    for (unsigned i = 0; i < n; i++)
        moving[i] = fixed[i % 8] * i;
    uint64_t sum = blend(2, n);
    for (unsigned i = 0; i < n; i++)
        sum = mix(sum, moving[i] + fixed[(i + 3) % 8]);
    return sum;
}

int main(void) {
    begin();
    for (unsigned round = 1; round < 5; round++) {
        say("blend", blend(round, round * 77));
        say("both", both(round * 5));
        version();
    }
    END();
}
