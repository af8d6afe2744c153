// With -fipa-ra a caller keeps values in registers that its callee happens not to use. NEW's callee
// uses more of them, so its caller must be replaced too; the caller of another one must not.
//# build: gcc -O2
//# changed: leaf caller
//# kept: quiet_leaf quiet_caller answer
//# before: 5 => 31 5
//# after: 5 => 31 5
#include "sample.h"

#define LEAF __attribute__((noinline, noclone))

volatile int sink[16];

static LEAF void leaf(void) {
#ifdef NEW
    /* values that need many registers at once */
    int a = sink[0], b = sink[1], c = sink[2], d = sink[3], e = sink[4], f = sink[5], g = sink[6], h = sink[7];

    sink[7] = a; sink[6] = b; sink[5] = c; sink[4] = d; sink[3] = e; sink[2] = f; sink[1] = g; sink[0] = h;
#else
    sink[0]++;
#endif
}

static LEAF void quiet_leaf(void) {
    sink[8]++;
}

static NOINLINE int caller(int a, int b, int c, int d, int e) {
    leaf();
    return a + 2 * b + 3 * c + d - e;
}

static NOINLINE int quiet_caller(int a) {
    quiet_leaf();
    return a;
}

/* Not printf itself: whoever calls a variadic function may pass something in any register. */
static NOINLINE void show(int a, int b) {
    printf("%d %d\n", a, b);
}

void answer(const char *question) {
    int n = atoi(question);

    int first = caller(n, n, n, 6, 5);

    show(first, quiet_caller(n));
}
