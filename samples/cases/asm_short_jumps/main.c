// Assembler functions that jump to one another with two-byte jumps, out of a replaced one into a kept
// one and the other way round.
//# build: gcc -O2
//# changed: clamp
//# kept: store load answer
//# before: 5 => 5 0
//# before: 500 => 255 0
//# before: -5 => -5 1
//# after: 5 => 5 0
//# after: 500 => 99 0
//# after: -5 => -5 1
#include "sample.h"

int load(int n);  /* n, by way of clamp when it is large */
int store(int n); /* 1 when negative, by way of load */

void answer(const char *question) {
    int n = atoi(question);

    printf("%d ", load(n));
    printf("%d\n", store(n) < 0);
}
