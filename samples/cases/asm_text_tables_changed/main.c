// A table without a symbol behind the assembler functions that use it, and one of its first entries
// changes: before the address that they take.
//# build: gcc -O2
//# changed: asm_low asm_high
//# kept: answer
//# before: 2 => 30 31
//# after: 2 => 33 31
#include "sample.h"

int asm_low(int n);  /* what lies before the address taken */
int asm_high(int n); /* what lies behind it */

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d\n", asm_low(n), asm_high(n));
}
