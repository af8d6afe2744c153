// A table that is read from a biased address, by a function that an update replaced: it may have been
// given a copy of the table, so that it is replaced again when the table's content changes.
//# build: gcc -O2
//# build: gcc -O1
//# build: gcc -Os
//# ladder: 1 2 3
//# changed 1: down
//# changed 2: down
//# data 2: tens updated
//# kept: other answer
//# before: 62 => 118 20
//# after 1: 62 => 122 20
//# after 2: 62 => 133 31
#include "sample.h"

static const int tens[] = {0, 10, VERSION > 2 ? 31 : 20, 30, 40, 50, 60, 70, 80, 90};

NOINLINE int down(int from, int to) {
    int sum = 0;

    for (int i = from; i > to; i--)
        sum += tens[i - 2] + i + (VERSION > 1);
    return sum;
}

NOINLINE int other(int n) {
    return tens[n];
}

void answer(const char *question) {
    printf("%d %d\n", down(question[0] - '0', question[1] - '0'), other(question[1] - '0'));
}
