/* A signal whenever the harness sends it, over any instruction; its handler is replaced as well. */
#include "torture.h"

static volatile unsigned taken, wrong;
static uint64_t shared[8];

static NOINLINE unsigned digits(uint64_t value, unsigned base) {
    unsigned count = 0;
    do {
        value /= base;
        count++;
        ADDED(added_counter++;)
    } while (value);
    return count;
}

static void on_signal(int signal, siginfo_t *info, void *context) {
    uint64_t local[4] = {1, 2, 3, (uint64_t)signal};
    double half = signal / 2.0;
    for (unsigned i = 0; i < 4; i++) {
        local[i] = mix(local[i], i);
        if (digits(local[i] | 1ull << 63, 2) != 64)
            wrong = 1;
    }
    ADDED(if (!context) _exit(9);)
    if (half * 2 != signal || info->si_signo != signal)
        wrong = 1;
    taken++;
}

static NOINLINE uint64_t work(unsigned n) {
    uint64_t a = 1, b = n, c = 0;
    double d = 0.5;
    for (unsigned i = 0; i < n; i++) {
        a = mix(a, b);
        b += digits(a, 10 + i % 7);
        c ^= a << (i & 15);
        d = d * 1.5 + (double)(b & 3);
        if (d > 100)
            d /= 64;
        shared[i % 8] += c;
        ADDED(if (i > n) _exit(9);)
    }
    return mix(a ^ c, bits(d)) + b;
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_RESTART | SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    begin();
    for (unsigned round = 0; round < 4; round++) {
        say("work", work(10 + round));
        say("wrong", wrong);
        version();
    }
    for (unsigned i = 0; i < 8; i++)
        say("shared", shared[i]);
    END();
}
