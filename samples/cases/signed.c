// A signed bundle, and a process that takes only such.
//# build: gcc -O2
//# changed: rate
//# build-args: --sign {keys}/one.pem
//# apply-args: --require-signature {keys}/other.pub --require-signature {keys}/one.pub
//# before: 10 => 20
//# after: 10 => 30
#include "sample.h"

NOINLINE static int rate(int x) {
    return x * (VERSION + 1);
}

void answer(const char *question) {
    printf("%d\n", rate(atoi(question)));
}
