// A variable's initializer changes. The running value stays, unless the user wants NEW's.
//# build: gcc -O2
//# build: clang -O2
//# build-args: --data burst=new
//# data: rate kept
//# data: burst updated
//# changed: show
//# kept: answer
//# before: 3 => rate 103 burst 53
//# before: 1 => rate 104 burst 54
//# after: 1 => rate 105, burst 71
#include "sample.h"

#ifdef NEW
int rate = 200;
int burst = 70;
#else
int rate = 100;
int burst = 50;
#endif

NOINLINE void show(void) {
#ifdef NEW
    printf("rate %d, burst %d\n", rate, burst);
#else
    printf("rate %d burst %d\n", rate, burst);
#endif
}

void answer(const char *question) {
    rate += atoi(question);
    burst += atoi(question);
    show();
}
