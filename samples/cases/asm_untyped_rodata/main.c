// A constant table of an assembler source under a label with no .type and no .size changes. That is
// seen; how far it goes is not known, so that all constants are carried with it.
//# build: gcc -O2
//# changed: asm_table
//# kept: asm_until_end answer
//# before: 2 => 31 10
//# after: 2 => 36 10
#include "sample.h"

int asm_table(int n);
int asm_until_end(void);

void answer(const char *question) {
    printf("%d %d\n", asm_table(atoi(question)), asm_until_end());
}
