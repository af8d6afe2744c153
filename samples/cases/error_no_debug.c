// Stripped of all symbols and debug information.
//# build: gcc -O2 -s
//# build-error: build with -g
#include "sample.h"

void answer(const char *question) {
#ifdef NEW
    puts("new");
#endif
    puts(question);
}
