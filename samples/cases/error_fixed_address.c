// Linked at a fixed address, and the linker threw away which numbers in the code are addresses.
//# build: gcc -O2 -no-pie -fno-pie
//# build-error: --emit-relocs
#include "sample.h"

void answer(const char *question) {
#ifdef NEW
    puts("new");
#endif
    puts(question);
}
