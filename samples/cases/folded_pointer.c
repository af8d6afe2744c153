// As folded.c, but the running program holds a pointer to the folded function: nobody can tell which
// of the two it means.
//# build: gcc -O2 -ffunction-sections -fuse-ld=lld -Wl,--icf=all
//# build: gcc -O2 -ffunction-sections -fuse-ld=gold -Wl,--icf=all
//# refused: folded apples
//# kept: answer
#include "sample.h"

__attribute__((weak)) int apples(int n) {
#ifdef NEW
    return n * 3 + 2;
#else
    return n * 3 + 1;
#endif
}

__attribute__((weak)) int pears(int n) {
    return n * 3 + 1;
}

int (*fruit[2])(int) = {apples, pears};

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d\n", fruit[0](n), fruit[1](n));
}
