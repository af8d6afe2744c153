// main never returns and changes itself, and no frame is to be carried over: apply waits, gives up, and names it with its line.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# build-args: --no-live-frames
//# changed: main
//# kept: step
//# warning: main
//# apply: 17
//# apply-args: --timeout 300
//# blocker: main
//# says: endless_main_changed.c
//# before: a => 1
//# after: a => 2
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
