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
    while (fetch(line, sizeof line, stdin)) {
        round++;
        note(-10);
        printf("%s %ld %ld\n", line, round, noted);
        if (argc > 2)
            puts(argv[0]);
    }
    return 0;
}
