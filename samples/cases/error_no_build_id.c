// Without build ids nobody can tell which build a process runs.
//# build: gcc -O2 -Wl,--build-id=none
//# build-error: build id
#include "sample.h"

void answer(const char *question) {
#ifdef NEW
    puts("new");
#endif
    puts(question);
}
