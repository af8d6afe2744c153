// A text whose address is taken less one, which is in front of all constants of the library.
//# build: gcc -O2
//# build: gcc -O1
//# build: gcc -O3
//# build: clang -O2
//# target: libpower.so
//# changed: compare
//# before: 9223372036854775807 => -1
//# before: 9323372036854775807 => 10
//# before: 9923372036854775807 => 70
//# after: 9223372036854775807 => -1
//# after: 9323372036854775807 => 10
//# after: 9923372036854775807 => 50
#include "sample.h"

int compare(const char *number, int step);

void answer(const char *question) {
    printf("%d\n", compare(question, 1));
}
