// Folded functions that all change alike, and folded ones that stay.
//# build: gcc -O2 -ffunction-sections -fuse-ld=lld -Wl,--icf=all
//# build: gcc -O2 -ffunction-sections -fuse-ld=gold -Wl,--icf=all
//# changed: pears
//# kept: answer plums
//# before: 2 => 7 7 9 9
//# after: 2 => 8 8 9 9
#include "sample.h"

#ifdef NEW
#define EXTRA 2
#else
#define EXTRA 1
#endif

__attribute__((weak)) int apples(int n) { return n * 3 + EXTRA; }
__attribute__((weak)) int pears(int n) { return n * 3 + EXTRA; }
__attribute__((weak)) int plums(int n) { return n * 4 + 1; }
__attribute__((weak)) int cherries(int n) { return n * 4 + 1; }

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d %d %d\n", apples(n), pears(n), plums(n), cherries(n));
}
