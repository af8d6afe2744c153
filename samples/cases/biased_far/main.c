// A table that is indexed by a year: the compiler takes its address less 15200 bytes, which in NEW is inside
// of a new variable. The changed function must find the table all the same.
//# build: gcc -O1
//# build: gcc -O2
//# build: gcc -O3
//# build: clang -O2
//# build: gcc -O2 -no-pie -fno-pie -Wl,--emit-relocs
//# changed: days_between
//# kept: answer fill
//# data: history added
//# before: 2000 1950 => 36574
//# before: 0 0 => -1
//# after: 2000 1950 => 36574
//# after: 1990 1990 => 32962
//# after: 0 0 => -2
#include "sample.h"

long days_between(const int *y);
void fill(void);

#ifdef NEW
char history[20000];
#endif

void answer(const char *question) {
    static int filled;
    int y[2];

    if (!filled)
        fill();
    filled = 1;
    if (sscanf(question, "%d %d", &y[0], &y[1]) == 2)
        printf("%ld\n", days_between(y));
}
