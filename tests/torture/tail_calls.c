/* Calls in tail position: frames that make way for others. */
#include "torture.h"

typedef uint64_t (*state)(uint64_t sum, unsigned left, const unsigned char *p);

static uint64_t first(uint64_t sum, unsigned left, const unsigned char *p);
static uint64_t second(uint64_t sum, unsigned left, const unsigned char *p);
static uint64_t third(uint64_t sum, unsigned left, const unsigned char *p);

static state const states[] = {first, second, third};

static NOINLINE uint64_t first(uint64_t sum, unsigned left, const unsigned char *p) {
    if (!left)
        return sum;
    ADDED(added_counter++;)
    return states[*p % 3](mix(sum, *p), left - 1, p + 1);
}

static NOINLINE uint64_t second(uint64_t sum, unsigned left, const unsigned char *p) {
    if (!left)
        return sum + 1;
    if (*p & 1)
        return third(sum * 3, left - 1, p + 1);
    return first(sum ^ left, left - 1, p + 1);
}

static NOINLINE uint64_t third(uint64_t sum, unsigned left, const unsigned char *p) {
    uint64_t here = sum + left;
    if (left > 2)
        here = mix(here, second(sum, 2, p));
    ADDED(if (left > 1000) _exit(9);)
    return left ? states[(*p >> 2) % 3](here, left - 1, p + 1) : here;
}

static NOINLINE unsigned gcd(unsigned a, unsigned b) { return b ? gcd(b, a % b) : a; }

int main(void) {
    begin();
    unsigned char data[64];
    for (unsigned round = 1; round <= 5; round++) {
        for (unsigned i = 0; i < 64; i++)
            data[i] = (unsigned char)(i * 37 * round + i / 3);
        say("states", first(round, 60, data));
        say("gcd", gcd(832040 * round, 514229 + round));
        version();
    }
    END();
}
