/* The x87 stack. */
#include "torture.h"

static NOINLINE long double horner(const long double *c, int n, long double x) {
    long double sum = 0;
    for (int i = 0; i < n; i++) {
        sum = sum * x + c[i];
        ADDED(added_counter++;)
    }
    return sum;
}

static NOINLINE long double newton(const long double *c, const long double *d, long double x) {
    for (int i = 0; i < 12; i++) {
        long double value = horner(c, 4, x), slope = horner(d, 3, x);
        ADDED(if (slope == 0) _exit(9);)
        x -= value / slope;
    }
    return x;
}

static NOINLINE uint64_t image(long double value) {
    long double scaled = value;
    int exponent = 0;
    while (scaled >= 2) {
        scaled /= 2;
        exponent++;
    }
    while (scaled < 1 && scaled > 0) {
        scaled *= 2;
        exponent--;
    }
    return (uint64_t)(scaled * 4611686018427387904.0L) + (uint64_t)(unsigned)exponent;
}

int main(void) {
    begin();
    static const long double c[] = {1, -2, -5, 3}, d[] = {3, -4, -5};
    long double x = 4.5L;
    for (int round = 0; round < 4; round++) {
        x = newton(c, d, x + 2 + round);
        say("root", image(x));
        say("value", image(x * x * x + 1));
        version();
    }
    END();
}
