// The loop of the last function of its file asks another function in each round and goes on by what that says,
// and one of its calls is gone; both callees are called elsewhere, too. Behind the last declaration of a file
// it is the closing brace that shows that lines have gone. The call that a frame waits in is ended by the code that
// made it; the line that it gives is for the other build.
//# build: gcc -O2
//# build: gcc -O1
//# changed: main
//# changed 2: main
//# kept: await fetch note
//# ladder: 1 2 1
//# before: a => a 1 10
//# after 1: b => b 2 0
//# after 1: c => c 3 -10
//# after 2: d => d 4 0
//# after 2: e => e 5 10
#include "sample.h"

static long noted;

NOINLINE int await(char *line, int size) {
    if (!fgets(line, size, stdin))
        return 0;
    line[strcspn(line, "\n")] = 0;
    return 1;
}

NOINLINE char *fetch(char *line, int size, FILE *from) {
    char *got = fgets(line, size, from);

    if (got)
        line[strcspn(line, "\n")] = 0;
    return got;
}

NOINLINE void note(long more) {
    noted += more;
}

int main(int argc, char **argv) {
    char line[64];
    long round = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 3 && fetch(line, 4, stdin) && await(line, 4))
        note(argc);
    puts("ready");
    while (await(line, sizeof line)) {
        round++;
        note(20);
        note(-10);
        printf("%s %ld %ld\n", line, round, noted);
        if (argc > 2)
            puts(argv[0]);
    }
    return 0;
}
