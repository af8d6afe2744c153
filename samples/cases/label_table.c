// An interpreter with computed goto: its table of labels leads into the function that changes, and
// belongs to its body.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# changed: interpret
//# data[gcc]: labels.0 moved
//# data[clang]: interpret.labels moved
//# kept: operation answer
//# before: ++d => 4
//# before: +n => -1
//# after: ++d => 5
//# after: +n => -2
#include "sample.h"

NOINLINE int operation(char c) {
    return c == '+' ? 1 : c == 'd' ? 2 : c == 'n' ? 3 : 0;
}

NOINLINE int interpret(const char *code) {
    static const void *const labels[] = {&&end, &&plus, &&twice, &&negate};
    int value = 0;

#define NEXT goto *labels[operation(*code++)]
    NEXT;
plus:
    value++;
    NEXT;
twice:
    value *= 2;
#ifdef NEW
    value++;
#endif
    NEXT;
negate:
    value = -value;
#ifdef NEW
    value--;
#endif
    NEXT;
end:
    return value;
}

void answer(const char *question) {
    printf("%d\n", interpret(question));
}
