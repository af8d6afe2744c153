// Assembler code under labels that are not declared to be functions: what changed in it is found, also
// where all that refers to it stays as it was, and also where the source gave it no name at all.
//# build: gcc -O2
//# changed: square asm_sum asm_twice
//# added: behind_square
//# removed: behind_square
//# kept: asm_called answer
//# before: 3 => 9 12 26
//# after: 3 => 10 13 127
#include "sample.h"

int asm_called(int n); /* calls the label's code */
int asm_sum(int n);    /* jumps behind its entry */
int asm_twice(int n);  /* calls code that has no symbol */

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d %d\n", asm_called(n), asm_sum(n), asm_twice(n));
}
