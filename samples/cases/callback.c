// A comparison function that libc calls back: qsort has its address from kept code.
//# build: gcc -O2
//# build: clang -O2
//# changed: compare
//# kept: answer
//# before: badc => abcd
//# after: badc => dcba
#include "sample.h"

NOINLINE int compare(const void *a, const void *b) {
#ifdef NEW
    return *(const char *)b - *(const char *)a;
#else
    return *(const char *)a - *(const char *)b;
#endif
}

void answer(const char *question) {
    char text[256];

    strcpy(text, question);
    qsort(text, strlen(text), 1, compare);
    puts(text);
}
