// A constant table of an assembler source under a label with no .type and no .size changes. That is
// seen, but how far it goes is not known, so that it cannot be put anywhere.
//# build: gcc -O2
//# changed: asm_table
//# kept: asm_until_end answer
//# refused: unsized table
#include "sample.h"

int asm_table(int n);
int asm_until_end(void);

void answer(const char *question) {
    printf("%d %d\n", asm_table(atoi(question)), asm_until_end());
}
