// An update of many functions at once, each of them called before and after.
//# build: gcc -O2
//# build: gcc -O0
//# build: clang -O2
//# changed: f0 f1 f2 f3 f4 f5 f6 f7 f8 f9 fa fb fc fd fe ff
//# kept: answer g0 gf
//# before: 1 => 152 0
//# after: 1 => 2536 0
#include "sample.h"

#ifdef NEW
#define BODY(n) return x * (n + 151)
#else
#define BODY(n) return x * (n + 2)
#endif
#define F(n)                                                                                        \
    NOINLINE int f##n(int x) { BODY(0x##n); }                                                       \
    NOINLINE int g##n(int x) { return x - 0x##n; }
#define ALL(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(a) M(b) M(c) M(d) M(e) M(f)

ALL(F)

void answer(const char *question) {
    int x = atoi(question), sum = 0, other = 0;

#define ADD(n) sum += f##n(x), other += g##n(0x##n);
    ALL(ADD)
    printf("%d %d\n", sum, other);
}
