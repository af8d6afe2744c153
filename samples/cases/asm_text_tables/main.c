// Tables without a symbol behind the assembler functions that use them, reached from their middle, and
// a function behind the tables (which nothing here calls) whose bytes differ: the tables are the same.
//# build: gcc -O2
//# changed: before
//# kept: asm_low asm_high asm_calls answer
//# before: 2 => 1 30 31
//# after: 2 => 2 30 31
#include "sample.h"

int before(int n);
int asm_low(int n);  /* what lies before the address taken */
int asm_high(int n); /* what lies behind it */

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d %d\n", before(n), asm_low(n), asm_high(n));
}
