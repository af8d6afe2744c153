// Assembler code under labels that are not declared to be functions, jumped into from outside and
// moved by what grows before it: still the same code.
//# build: gcc -O2
//# build: gcc -O2 -no-pie -Wl,--emit-relocs
//# changed: before
//# kept: asm_sum asm_twice answer
//# before: 3 => 1 12 26
//# after: 3 => 2 12 26
#include "sample.h"

int before(int n);    /* C: what stands before the assembler, and grows */
int asm_sum(int n);   /* jumps behind the entry of the label's code */
int asm_twice(int n); /* calls it */

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d %d\n", before(n), asm_sum(n), asm_twice(n));
}
