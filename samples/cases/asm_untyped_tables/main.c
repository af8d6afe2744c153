// Constant tables of assembler sources under labels with no .type and no .size: known by name, and
// compared by content all the same.
//# build: gcc -O2
//# changed: asm_text_table
//# kept: asm_same_table answer
//# before: 2 => 30 32
//# after: 2 => 35 32
#include "sample.h"

int asm_text_table(int n);
int asm_same_table(int n);

void answer(const char *question) {
    int n = atoi(question);

    printf("%d %d\n", asm_text_table(n), asm_same_table(n));
}
