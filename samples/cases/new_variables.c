// New variables, static and global, with and without initializers, pointers among them; those of OLD
// keep their values.
//# build: gcc -O2
//# build: gcc -O0
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# build: clang -O2
//# changed: count
//# kept: answer
//# data: step added
//# data: last added
//# data: history added
//# data: where added
//# before: a => 1
//# before: b => 2
//# after: c => 12 last 0 first 12 then 0
//# after: d => 22 last 12 first 12 then 22
#include "sample.h"

int total;

#ifdef NEW
int step = 10;
static int last;
static long history[100];
static long *where = history;
#endif

NOINLINE void count(void) {
#ifdef NEW
    total += step;
    *where++ = total;
    printf("%d last %d first %ld then %ld\n", total, last, history[0], history[1]);
    last = total;
#else
    total++;
    printf("%d\n", total);
#endif
}

void answer(const char *question) {
    if (question[0])
        count();
}
