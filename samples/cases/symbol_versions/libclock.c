#include "sample.h"

/* `volatile`, so that neither is a constant to the linker or the reader. */
static volatile int base = 1;

int tick_1(void);
int tick_2(void);

__attribute__((symver("tick@CLOCK_1"))) NOINLINE int tick_1(void) {
#ifdef NEW
    return base + 110;
#else
    return base + 10;
#endif
}

__attribute__((symver("tick@@CLOCK_2"))) NOINLINE int tick_2(void) {
    return base + 1;
}
