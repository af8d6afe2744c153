// main never returns; what it calls changes.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: step
//# kept: main
//# before: a => 1
//# after: a => 11
#include "sample.h"

static int total;

NOINLINE int step(void) {
#ifdef NEW
    total += 10;
#else
    total += 1;
#endif
    return total;
}

int main(void) {
    char line[64];

    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    for (;;) {
        if (!fgets(line, sizeof line, stdin))
            exit(0);
        printf("%d\n", step());
    }
}
