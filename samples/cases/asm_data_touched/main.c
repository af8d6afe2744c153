// Hand-written assembler with a table between its instructions, and the table changes. What is code
// and what is not cannot be told, so it is not rebuilt elsewhere.
//# build: gcc -O2
//# build: gcc -O2 -no-pie -Wl,--emit-relocs
//# changed: asm_rotate
//# kept: asm_double answer
//# refused: data-in-code asm_rotate
#include "sample.h"

int asm_double(int n);
int asm_rotate(int n);

void answer(const char *question) {
    int n = atoi(question);

    printf("%d ", asm_double(n & 3));
    printf("%d\n", asm_rotate(n & 3));
}
