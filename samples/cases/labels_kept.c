// Threaded code: the addresses of labels are put into memory, where NEW's body would find OLD's.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: interpret
//# data[gcc]: labels.0 moved
//# data[clang]: interpret.labels moved
//# kept: operation answer
//# refused: labels interpret
#include "sample.h"

static const void *threaded[16];

NOINLINE int operation(char c) {
    return c == '+' ? 1 : c == 'd' ? 2 : 0;
}

NOINLINE int interpret(const char *code) {
    static const void *const labels[] = {&&end, &&plus, &&twice};
    const void **at = threaded;
    int value = 0;

    for (int i = 0; i < 15 && code[i]; i++)
        threaded[i] = labels[operation(code[i])];
    threaded[15] = &&end;
    goto **at++;
plus:
    value++;
    goto **at++;
twice:
    value *= 2;
    goto **at++;
end:
#ifdef NEW
    return value + 1;
#else
    return value;
#endif
}

void answer(const char *question) {
    printf("%d\n", interpret(question));
}
