// main never returns and gets a variable that OLD does not have: it begins as NEW begins it.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# build-args: --init-new-locals
//# changed: main
//# kept: step
//# warning: round
//# before: a => 1
//# after: a => 2 of ten 0
//# after: b => 3 of ten 0
#include "sample.h"

static int total;

NOINLINE int step(void) {
    total += 1;
    return total;
}

int main(void) {
    static char line[64];
#ifdef NEW
    long round = 0;
#endif

    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    for (;;) {
        if (!fgets(line, sizeof line, stdin))
            exit(0);
#ifdef NEW
        printf("%d of ten %ld\n", step(), round / 10);
        round++;
#else
        printf("%d\n", step());
#endif
    }
}
