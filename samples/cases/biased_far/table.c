#include "sample.h"

/* The first day of each year since 1900. */
static long first_day[200];

#ifdef NEW
extern char history[20000];
#endif

NOINLINE long days_between(const int *y) {
    const long *const t = first_day;

    if ((unsigned)y[0] - 1900 >= 200 || (unsigned)y[1] - 1900 >= 200) {
#ifdef NEW
        history[0]++;
        return -2;
#else
        return -1;
#endif
    }
    return t[y[0] - 1900] + (y[1] - 1900);
}

NOINLINE void fill(void) {
    long d = 0;

    for (int y = 1900; y < 2100; y++) {
        first_day[y - 1900] = d;
        d += 365 + (y % 4 == 0 && (y % 100 || y % 400 == 0));
    }
}
