// One function with two names in OLD, two functions in NEW.
//# build: gcc -O2
//# changed: answer
//# added: checksum_v1
//# kept: checksum
//# before: a => 98 98
//# after: a => 98 104
#include "sample.h"

__attribute__((weak)) int checksum(const char *text) {
    return text[0] + 1;
}

#ifdef NEW
__attribute__((weak)) int checksum_v1(const char *text) {
    return text[0] + 7;
}
#else
int checksum_v1(const char *text) __attribute__((weak, alias("checksum")));
#endif

void answer(const char *question) {
    printf("%d %d\n", checksum(question), checksum_v1(question));
}
