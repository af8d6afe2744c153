/* 128-bit integers: pairs of registers, carries, calls of the compiler's own library. */
#include "torture.h"

typedef unsigned __int128 wide;

static NOINLINE wide power(wide base, unsigned exponent, uint64_t modulus) {
    wide result = 1;
    while (exponent) {
        if (exponent & 1)
            result = result * base % modulus;
        base = base * base % modulus;
        exponent >>= 1;
        ADDED(added_counter++;)
    }
    return result;
}

static NOINLINE wide gather(const uint64_t *values, unsigned n) {
    wide sum = 0, product = 1;
    for (unsigned i = 0; i < n; i++) {
        sum += (wide)values[i] * values[n - 1 - i];
        product = product * (values[i] | 1) + (sum >> 64);
        if (product & 1)
            sum -= product >> 70;
        ADDED(if (i > n) _exit(9);)
    }
    return sum ^ product;
}

static NOINLINE uint64_t digits(wide value) {
    uint64_t sum = 0;
    while (value) {
        sum = sum * 7 + (unsigned)(value % 10);
        value /= 10;
    }
    return sum;
}

int main(void) {
    begin();
    uint64_t values[12];
    for (unsigned round = 1; round < 6; round++) {
        for (unsigned i = 0; i < 12; i++)
            values[i] = mix(round, i);
        wide sum = gather(values, 12);
        say("low", (uint64_t)sum);
        say("high", (uint64_t)(sum >> 64));
        say("power", (uint64_t)power(3 + round, 60 + round, 1000000000000000003u));
        say("digits", digits(sum));
        version();
    }
    END();
}
