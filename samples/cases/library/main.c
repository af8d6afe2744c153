// A shared library that the program is linked with; it is updated under a program that stays.
//# build: gcc -O2
//# build: gcc -O2 -Wl,-z,now
//# build: clang -O2
//# build: clang -O2 -fuse-ld=lld
//# target: libshape.so
//# changed: shape_area shape_report
//# added: clip
//# kept: shape_scale shape_count
//# data: clipped added
//# before: 3 => 9 1
//# before: 4 => 16 2
//# after: 3 => 9 3 0
//# after: 40 => 100 4 1
#include "sample.h"

int shape_area(int n);
int shape_count(void);
extern int shape_verbose;
void shape_report(void);

void answer(const char *question) {
    shape_verbose++;
    printf("%d ", shape_area(atoi(question)));
    printf("%d", shape_count());
    shape_report();
    puts("");
}
