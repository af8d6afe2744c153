#include "sample.h"

int shape_verbose; /* the program has its own copy of this */
static int calls;

#ifdef NEW
static int clipped;

NOINLINE static int clip(int n) {
    clipped += n > 10;
    return n > 10 ? 10 : n;
}
#endif

NOINLINE int shape_scale(int n) {
    return n * shape_verbose / shape_verbose;
}

NOINLINE int shape_area(int n) {
    calls++;
#ifdef NEW
    n = clip(n);
#endif
    return shape_scale(n) * n;
}

NOINLINE int shape_count(void) {
    return calls;
}

NOINLINE void shape_report(void) {
#ifdef NEW
    printf(" %d", clipped);
#else
    fflush(stdout);
#endif
}
