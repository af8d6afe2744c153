// A new read-only table of strings, used by a function that changed.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: day
//# kept: answer
//# data[gcc]: names added
//# data[clang]: reltable.day added
//# before: 2 => day 2
//# after: 2 => Tuesday
//# after: 9 => day 9
#include "sample.h"

#ifdef NEW
static const char *const names[] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday"};
#endif

NOINLINE void day(int n) {
#ifdef NEW
    if (n >= 0 && n < 5) {
        puts(names[n]);
        return;
    }
#endif
    printf("day %d\n", n);
}

void answer(const char *question) {
    day(atoi(question));
}
