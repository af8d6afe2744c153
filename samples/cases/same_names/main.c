// Two units have static functions and variables of the same names; only one of each differs.
//# build: gcc -O2
//# build: gcc -O0
//# build: gcc -O2 -flto
//# build: gcc -O2 absolute-paths
//# build: gcc -O2 out-of-tree
//# build: clang -O2 absolute-paths
//# build: clang -O2
//# changed[!-flto]: step
//# changed[-flto]: step.lto_priv.0
//# kept: answer red blue
//# before: 1 => red 1 blue 10
//# before: 1 => red 2 blue 20
//# after: 1 => red 3 blue 120
//# after: 1 => red 4 blue 220
#include "sample.h"

int red(int n);
int blue(int n);

void answer(const char *question) {
    int n = atoi(question);

    printf("red %d ", red(n));
    printf("blue %d\n", blue(n));
}
