// A bundle without a signature where one is required.
//# build: gcc -O2
//# changed: rate
//# apply-args: --require-signature {keys}/one.pub
//# apply: 20
//# says: is not signed
//# before: 10 => 20
//# after: 10 => 20
#include "sample.h"

NOINLINE static int rate(int x) {
    return x * (VERSION + 1);
}

void answer(const char *question) {
    printf("%d\n", rate(atoi(question)));
}
