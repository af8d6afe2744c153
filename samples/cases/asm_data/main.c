// Hand-written assembler with tables between its instructions stays, beside a function that changes
// and goes on calling it.
//# build: gcc -O2
//# build: gcc -O2 -no-pie -Wl,--emit-relocs
//# changed: both
//# kept: asm_double asm_rotate answer
//# before: 1 => 20 13
//# after: 1 => 13 20
#include "sample.h"

int asm_double(int n);
int asm_rotate(int n);

NOINLINE void both(int n) {
#ifdef NEW
    printf("%d ", asm_rotate(n));
    printf("%d\n", asm_double(n));
#else
    printf("%d ", asm_double(n));
    printf("%d\n", asm_rotate(n));
#endif
}

void answer(const char *question) {
    both(atoi(question) & 3);
}
