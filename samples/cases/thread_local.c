// A changed function uses thread-local variables, with and without an initial value.
//# build: gcc -O2
//# build: gcc -O0
//# build: gcc -O2 -fPIC -ftls-model=global-dynamic
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# build: clang -O2
//# changed: count
//# kept: answer
//# before: a => 1 of 100
//# before: b => 2 of 100
//# after: c => 12 of 100
//# after: d => 22 of 100
#include "sample.h"

_Thread_local int calls;
static _Thread_local int limit = 100;

NOINLINE void count(void) {
#ifdef NEW
    calls += 10;
#else
    calls += 1;
#endif
    printf("%d of %d\n", calls, limit);
}

void answer(const char *question) {
    if (*question == '!')
        limit++;
    count();
}
