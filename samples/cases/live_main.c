// main never returns and changes itself: the call that it waits in returns into NEW's main, with its locals.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: main
//# changed 2: main
//# kept: step
//# ladder: 1 2 1
//# before: a => 1
//# after 1: a => 2!
//# after 2: a => 3
#include "sample.h"

static int total;

NOINLINE int step(void) {
    total += 1;
    return total;
}

int main(void) {
    char line[64];

    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    for (;;) {
        if (!fgets(line, sizeof line, stdin))
            exit(0);
#ifdef NEW
        printf("%d!\n", step());
#else
        printf("%d\n", step());
#endif
    }
}
