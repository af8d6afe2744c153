// A bundle signed by a key other than the one that is required.
//# build: gcc -O2
//# changed: rate
//# build-args: --sign {keys}/other.pem
//# apply-args: --require-signature {keys}/one.pub
//# apply: 20
//# says: is signed by MCowBQYDK2VwAyEA
//# before: 10 => 20
//# after: 10 => 20
#include "sample.h"

NOINLINE static int rate(int x) {
    return x * (VERSION + 1);
}

void answer(const char *question) {
    printf("%d\n", rate(atoi(question)));
}
