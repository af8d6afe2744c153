// A new thread-local variable: the threads that run have no room for it.
//# build: gcc -O2
//# build: clang -O2
//# changed: count
//# refused: thread-local last
//# kept: answer
//# refused[clang]: thread-local calls
#include "sample.h"

_Thread_local int calls;
#ifdef NEW
_Thread_local int last;
#endif

NOINLINE void count(void) {
#ifdef NEW
    printf("%d after %d\n", ++calls, last);
    last = calls;
#else
    printf("%d\n", ++calls);
#endif
}

void answer(const char *question) {
    (void)question;
    count();
}
