// Functions shorter than the jump that leads away from them, one right behind the other, and
// nowhere near a gap that could hold the rest of it: and pointers lead to it.
//# build: gcc -Os -falign-functions=1
//# build: gcc -O2 -falign-functions=1
//# build: gcc -O2 -falign-functions=1 -no-pie -fno-pie -Wl,--emit-relocs
//# build: gcc -O2 -falign-functions=4
//# build: clang -Os
//# changed: third
//# refused: no-room third
//# kept: first second fourth answer
#include "sample.h"

__attribute__((weak)) int first(int n) { return n + 1; }
__attribute__((weak)) int second(int n) { return n - 1; }
#ifdef NEW
__attribute__((weak)) int third(int n) { return n * n; }
#else
__attribute__((weak)) int third(int n) { return n; }
#endif
__attribute__((weak)) int fourth(int n) { return n + n; }

int (*steps[])(int) = {first, second, third, fourth};

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d %d %d\n", steps[0](n), steps[1](n), steps[2](n), steps[3](n));
}
