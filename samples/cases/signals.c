// A handler that runs thousands of times a second changes; so does what it interrupts. No signal is
// lost, none is handled by half of each version.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: on_tick churn
//# kept: answer main
//# before: odd => yes
//# after: even => yes
//# after: whole => yes
#include "sample.h"
#include <signal.h>
#include <sys/time.h>
#include <time.h>

static volatile long a, b;
static volatile long old_ticks, new_ticks;

NOINLINE void churn(int n) {
    for (volatile int i = 0; i < n; i++)
#ifdef NEW
        a += 2, b += 2;
#else
        a += 1, b += 1;
#endif
}

NOINLINE void on_tick(int signal) {
    (void)signal;
#ifdef NEW
    new_ticks++;
#else
    old_ticks++;
#endif
    churn(3);
}

NOINLINE int moves(volatile long *counter) {
    long before = *counter;

    for (int i = 0; i < 2000 && *counter == before; i++) {
        struct timespec ms = {0, 1000000};
        nanosleep(&ms, NULL);
    }
    return *counter != before;
}

void answer(const char *question) {
    int yes;

    if (question[0] == 'o')
        yes = moves(&old_ticks);
    else if (question[0] == 'e')
        yes = moves(&new_ticks);
    else
        yes = a == b;
    puts(yes ? "yes" : "no");
}

int main(void) {
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    struct itimerval every = {{0, 100}, {0, 100}};
    char line[64];

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        answer(line);
        fflush(stdout);
    }
    return 0;
}
