// A library with two versions of one symbol, of which the older changes.
//# build: gcc -O2 -Wl,--version-script=clock.map
//# target: libclock.so
//# changed: tick@CLOCK_1
//# kept: tick_2
//# before: x => 11 2
//# after: x => 111 2
#define _GNU_SOURCE
#include "sample.h"
#include <dlfcn.h>

int tick(void);

void answer(const char *question) {
    int (*old_tick)(void) = (int (*)(void))dlvsym(RTLD_DEFAULT, "tick", "CLOCK_1");

    (void)question;
    printf("%d %d\n", old_tick(), tick());
}
