/* Signals at 5 kHz, whose handler is replaced as well as the code that it interrupts. */
#include "torture.h"
#include <sys/time.h>

static volatile sig_atomic_t taken;
static volatile sig_atomic_t wrong;

static NOINLINE unsigned collatz(unsigned n) {
    unsigned steps = 0;
    while (n != 1) {
        n = n & 1 ? 3 * n + 1 : n / 2;
        steps++;
    }
    return steps;
}

static void on_alarm(int signal) {
    /* 27 takes 111 steps, whenever it is asked. */
    double half = 0.5 * taken;
    if (collatz(27) != 111 || signal != SIGALRM)
        wrong = 1;
    ADDED(added_counter++;)
    if (half * 2 != taken)
        wrong = 1;
    taken = taken + 1;
}

static NOINLINE uint64_t work(unsigned n) {
    uint64_t sum = 0;
    double scaled = 1;
    for (unsigned i = 1; i <= n; i++) {
        sum = mix(sum, collatz(i));
        ADDED(if (i > n) _exit(9);)
        scaled = scaled * 1.25 + i;
        if (scaled > 1e9)
            scaled /= 3e8;
    }
    return mix(sum, bits(scaled));
}

int main(void) {
    begin();
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (unsigned round = 0; round < 4; round++) {
        say("work", work(12 + round));
        version();
    }
    setitimer(ITIMER_REAL, &never, NULL);
    say("wrong", (uint64_t)wrong);
    version();
    END();
}
