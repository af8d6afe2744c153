// Two names at one address, one of them weak; both lead to NEW's body.
//# build: gcc -O2
//# build: clang -O2
//# changed: checksum
//# kept: answer
//# before: abc => 294 294 1
//# after: abc => 198 198 1
#include "sample.h"

NOINLINE int checksum(const char *text) {
    int sum = 0;

    for (; *text; text++)
#ifdef NEW
        sum = sum * 0 + *text * 2;
#else
        sum += *text;
#endif
    return sum;
}

int checksum_v1(const char *text) __attribute__((weak, alias("checksum")));

void answer(const char *question) {
    int (*volatile a)(const char *) = checksum;
    int (*volatile b)(const char *) = checksum_v1;

    printf("%d %d %d\n", checksum(question), checksum_v1(question), a == b);
}
