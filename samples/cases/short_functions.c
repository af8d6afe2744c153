// Functions shorter than the jump that leads away from them, with the gaps that alignment
// leaves behind them.
//# build: gcc -O2
//# build: gcc -O2 -falign-functions=8 -no-pie -fno-pie -Wl,--emit-relocs
//# build: gcc -O2 -falign-functions=8 -fcf-protection
//# build: clang -O2
//# changed: third
//# kept: first second fourth answer
//# before: 5 => 6 4 5 10
//# after: 5 => 6 4 25 10
#include "sample.h"

__attribute__((weak)) int first(int n) { return n + 1; }
__attribute__((weak)) int second(int n) { return n - 1; }
#ifdef NEW
__attribute__((weak)) int third(int n) { return n * n; }
#else
__attribute__((weak)) int third(int n) { return n; }
#endif
__attribute__((weak)) int fourth(int n) { return n + n; }

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d %d %d\n", first(n), second(n), third(n), fourth(n));
}
