// Identical functions that the linker folded into one, of which NEW changes one. OLD's code at that
// address is both, so the callers of the one are replaced instead.
//# build: gcc -O2 -ffunction-sections -fuse-ld=lld -Wl,--icf=all
//# build: gcc -O2 -ffunction-sections -fuse-ld=gold -Wl,--icf=all
//# build: clang -O2 -ffunction-sections -fuse-ld=lld -Wl,--icf=all
//# changed: answer
//# added: apples
//# kept: pears
//# before: 2 => 7 7
//# after: 2 => 8 7
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

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d\n", apples(n), pears(n));
}
