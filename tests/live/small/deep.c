/* A stack for debuggers and profilers: main, three levels of a function that is replaced, and under them
   code that stays and is busy or waits. "wait" waits for the next line there, "burn" computes until the next line. */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

static char line[16];
static volatile unsigned long work;

/* Busy until the next line comes. */
static NOINLINE void burn(void) {
    struct pollfd input = {0, POLLIN, 0};
    do {
        for (int i = 0; i < 1000000; i++)
            work += i;
    } while (poll(&input, 1, 0) == 0);
    if (!fgets(line, sizeof line, stdin))
        work++;
}

static NOINLINE int inner(void) {
    puts("inside");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 0;
    if (!strcmp(line, "burn\n"))
        burn();
    return 1;
}

static NOINLINE long replaced(long depth) {
    if (depth > 0) {
        long below = replaced(depth - 1);
        work++;
#ifdef NEW
        return below + 10;
#else
        return below + 1;
#endif
    }
    long got = inner();
    work++;
#ifdef NEW
    return got * 1000;
#else
    return got;
#endif
}

int main(void) {
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        printf("%ld\n", replaced(2));
        fflush(stdout);
    }
    return 0;
}
