// Names in options that nothing has: each is told, and the rest goes on.
//# build: gcc -O2
//# build-args: --map raet=rate --map rate=tare --data totals=new --accept-layout jbo
//# changed: rate
//# warning: --map raet=rate: OLD has no function raet
//# warning: --map rate=tare: NEW has no function tare
//# warning: --data totals: OLD has no variable of that name
//# warning: --accept-layout jbo: no type of that name changed its layout
//# before: 10 => 20
//# after: 10 => 30
#include "sample.h"

NOINLINE static int rate(int x) {
    return x * (VERSION + 1);
}

void answer(const char *question) {
    printf("%d\n", rate(atoi(question)));
}
