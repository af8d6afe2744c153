// The plainest case: the body of one function differs, its caller and its neighbour do not.
//# build: gcc -O2
//# build: gcc -O0
//# build: gcc -O1
//# build: gcc -O3 -gdwarf-4
//# build: gcc -Os
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs -mcmodel=large
//# build: gcc -O2 -gz
//# build: gcc -O2 separate-debug
//# build: gcc -O2 -fno-plt -Wl,-z,now
//# build: gcc -O2 -Wl,-z,noseparate-code
//# build: gcc -O2 -ffunction-sections -fdata-sections -Wl,--gc-sections
//# build: gcc -O2 -pg
//# build: gcc -O2 -fstack-protector-all -fstack-clash-protection
//# build: clang -O2
//# build: clang -O0
//# build: clang -O3 -gdwarf-4
//# build: clang -Os
//# build: clang -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# build: clang -O2 -fuse-ld=lld
//# build: gcc -O2 -fuse-ld=gold
//# build: gcc -O2 -fuse-ld=lld -Wl,--image-base=0x4000000
//# build: musl-gcc -O2
//# build: musl-gcc -O2 -static -no-pie -fno-pie -Wl,--emit-relocs
//# build: musl-gcc -O2 -static-pie
//# changed: total
//# kept: answer items
//# before: 10 => 20 of 2
//# before: 1 => 2 of 2
//# after: 10 => 21 of 2
//# after: 1 => 3 of 2
#include "sample.h"

NOINLINE static int items(const char *list) {
    return (int)strlen(list) + 1;
}

NOINLINE static int total(int price, int count) {
#ifdef NEW
    return price * count + (count > 1); /* shipping */
#else
    return price * count;
#endif
}

void answer(const char *question) {
    int count = items("x");

    printf("%d of %d\n", total(atoi(question), count), count);
}
