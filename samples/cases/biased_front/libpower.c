#include "sample.h"

/* The text is the first thing among the constants, and its address is taken less one. */
NOINLINE int compare(const char *number, int step) {
    const char *power = "922337203685477580";
    int c = 0;

    for (int i = 0; c == 0 && i < 18; i++)
        c = (number[i * step] - power[i]) * 10;
    if (c == 0)
        c = number[18 * step] - '8';
#ifdef NEW
    if (c > 50)
        return 50;
#endif
    return c;
}
