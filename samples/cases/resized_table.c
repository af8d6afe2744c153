// A table of commands in .data gets another entry. Start-up could have changed the live one, so this
// is refused unless the user says that NEW's may take its place.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: find
//# refused: variable-layout commands
//# kept: answer
#include "sample.h"

struct command {
    const char *name;
    int code;
};

struct command commands[] = {
    {"get", 1},
    {"set", 2},
#ifdef NEW
    {"del", 3},
#endif
};

NOINLINE int find(const char *name) {
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0)
            return commands[i].code;
    return -1;
}

void answer(const char *question) {
    printf("%d\n", find(question));
}
