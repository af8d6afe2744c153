// Debug information that is neither in the file nor in one debug file beside it.
//# build: gcc -O2 -gsplit-dwarf
//# build-error: build without -gsplit-dwarf
#include "sample.h"

void answer(const char *question) {
#ifdef NEW
    puts("new");
#endif
    puts(question);
}
