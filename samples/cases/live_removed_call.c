// main waits in a call that NEW does not make: OLD's code runs on, up to the next point that both have.
//# build: gcc -O2
//# build: gcc -O1 -fno-omit-frame-pointer
//# build: clang -O2
//# changed: main
//# kept: step await
//# before: a => 1
//# after: a => 2
//# after: a => 3!
//# after: a => 4!
#include "sample.h"

static int total;

NOINLINE int step(void) {
    total += 1;
    return total;
}

NOINLINE char *await(char *line, int size) {
    return fgets(line, size, stdin);
}

int main(int count, char **arguments) {
    char line[64];

    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    if (count > 5)
        return await(line, sizeof line) == NULL;
    for (;;) {
#ifdef NEW
        if (!fgets(line, sizeof line, stdin))
            exit(0);
        printf("%d!\n", step());
#else
        if (!await(line, sizeof line))
            exit(0);
        printf("%d\n", step());
#endif
    }
}
