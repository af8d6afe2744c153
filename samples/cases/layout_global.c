// The type of a global variable grows a field in its middle: its live value cannot be carried over.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# build: gcc -O2 -gdwarf-4
//# changed: hit
//# refused: variable-layout statistics
//# kept: answer
#include "sample.h"

struct statistics {
    long hits;
#ifdef NEW
    long misses;
#endif
    long bytes;
};

struct statistics statistics;

NOINLINE void hit(long n) {
    statistics.hits++;
    statistics.bytes += n;
#ifdef NEW
    statistics.misses += n == 0;
#endif
}

void answer(const char *question) {
    hit((long)strlen(question));
    puts("ok");
}
