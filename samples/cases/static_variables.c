// Static variables of one unit keep their values: initialized, zero, arrays, and one whose name occurs
// as a local of a function as well.
//# build: gcc -O2
//# build: gcc -O2 absolute-paths
//# build: gcc -O2 out-of-tree
//# build: clang -O2 absolute-paths
//# build: gcc -O2 renamed-sources
//# build: clang -O2 renamed-sources
//# build: gcc -O2 -flto
//# changed: add
//# kept: answer
//# before: 1 => 1 101 1
//# before: 2 => 2 103 2
//# after: 3 => 3 1006 3
#include "sample.h"

static int calls;
static long sum = 100;
static char seen[64];

NOINLINE void add(int n) {
    static int calls_here;

    calls++;
    calls_here++;
#ifdef NEW
    if (sum < 1000)
        sum += 900;
#endif
    sum += n;
    seen[n & 63] = 1;
    if (calls != calls_here)
        puts("lost");
}

void answer(const char *question) {
    int different = 0;

    add(atoi(question));
    for (int i = 0; i < 64; i++)
        different += seen[i];
    printf("%d %ld %d\n", calls, sum, different);
}
